"""The Merkle list: items cut into nodes where their hashes say so, and those into nodes again, up to one root.

Two lists with equal items have equal nodes, whatever edits led to them. Directories (``manifest``, ``directory``) and
chunk lists (``content``) are such lists. See ``specs/format.md``, sections 9 and 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from blake3 import blake3

from buckia.core.ids import PUBLIC_ID_KEYS, BlobId, BlobType
from buckia.errors import FormatError

LEVELS_MAX = 8
NODE_BYTES_MAX = 4 * 1024 * 1024
NODE_ITEMS_MAX = 1 << 19
INTEGER_MAX = 2**53 - 1
"""The greatest size, count and sum: what every language holds exactly."""


class NodeStore(Protocol):
    """Where nodes are kept, by id."""

    def get(self, kind: BlobType, id: BlobId, /) -> bytes:
        """The raw bytes of a node, checked against its id. Raises ``IntegrityError`` if it cannot be had."""

    def put(self, kind: BlobType, raw: bytes, /) -> BlobId:
        """Keeps a node, which may be there already, and returns its id."""


class Named(Protocol):
    """An item of a directory's list."""

    @property
    def name(self) -> bytes:
        """The (last) name that it stands for."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How lists are cut: items per node, and the keys of blob ids, as cuts hash names.

    ``minimum`` is at least 2. The format has the default sizes only; others serve tests. The mean is ``minimum`` plus
    one in the probability that an item ends a node.
    """

    minimum: int = 32
    mean: int = 128
    maximum: int = 512
    keys: tuple[bytes, ...] = PUBLIC_ID_KEYS
    threshold: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", 2**32 // (self.mean - self.minimum))

    def ends(self, count: int, weight: int) -> bool:
        """Whether a node ends after its item number ``count`` (from 1), which has this weight."""
        return count == self.maximum or (count >= self.minimum and weight < self.threshold)

    def name_weight(self, level: int, item: Named) -> int:
        """The weight of a directory's item at a level."""
        digest = blake3(item.name, key=self.keys[BlobType.DIRECTORY]).digest()
        return int.from_bytes(digest[4 * level : 4 * level + 4], "big")


CUTS = Cuts()
"""The cuts of the format, in folders without encryption."""

Item = TypeVar("Item")
Branch = TypeVar("Branch")


class ListBuilder(Generic[Item, Branch]):
    """Builds a Merkle list from its items in order, holding at most one unfinished node per level.

    ``seal(level, items)`` writes a node and returns the item of the level above that stands for it; ``weigh(level,
    item)`` gives an item's weight.
    """

    def __init__(
        self,
        seal: Callable[[int, Sequence[Item | Branch]], Branch],
        weigh: Callable[[int, Item | Branch], int],
        cuts: Cuts,
    ) -> None:
        self._seal = seal
        self._weigh = weigh
        self._cuts = cuts
        self._minimum = cuts.minimum
        self._pending: list[list[Item | Branch]] = [[]]
        self._nodes = [0]
        self._last: list[Branch | None] = [None]

    def add(self, item: Item) -> None:
        """Appends an item of the list."""
        self._add(0, item)

    def add_node(self, level: int, branch: Branch) -> None:
        """Appends a whole node of ``level``, written before. ``aligned(level)`` must hold, and either the cuts end that
        node or nothing follows it.
        """
        self._grow(level)
        for below in range(level):
            self._nodes[below] += self._minimum
        self._stand(level, branch)

    def aligned(self, level: int) -> bool:
        """Whether no node of this level or below is unfinished, so that a written node of this level can follow."""
        return not any(self._pending[: level + 1])

    def finish(self) -> tuple[int, Branch] | None:
        """Ends the last nodes. Returns the root's level and what stands for it, or None without items."""
        for level in range(LEVELS_MAX):
            if level < len(self._pending) and self._pending[level]:
                self._end(level)
            if self._nodes[level] == 0:
                return None
            root = self._last[level]
            if self._nodes[level] == 1 and root is not None:
                return level, root
        raise FormatError(f"A list needs more than {LEVELS_MAX} levels.")

    def _add(self, level: int, item: Item | Branch) -> None:
        pending = self._pending[level]
        pending.append(item)
        count = len(pending)
        if count >= self._minimum and self._cuts.ends(count, self._weigh(level, item)):
            self._end(level)

    def _end(self, level: int) -> None:
        items = self._pending[level]
        self._pending[level] = []
        self._stand(level, self._seal(level, items))

    def _stand(self, level: int, branch: Branch) -> None:
        self._nodes[level] += 1
        self._last[level] = branch
        if level + 1 < LEVELS_MAX:
            self._grow(level + 1)
            self._add(level + 1, branch)
        elif self._nodes[level] > 1:
            raise FormatError(f"A list needs more than {LEVELS_MAX} levels.")

    def _grow(self, level: int) -> None:
        while len(self._pending) <= level:
            self._pending.append([])
            self._nodes.append(0)
            self._last.append(None)


def check_cuts(level: int, items: Sequence[Item], weigh: Callable[[int, Item], int], cuts: Cuts) -> bool:
    """Whether a node with these items is ended by its last one, so that others may follow it.

    Raises ``FormatError`` for a node that would have been ended earlier.
    """
    count = len(items)
    if count > cuts.maximum:
        raise FormatError(f"A node of {count} items, where {cuts.maximum} are allowed.")
    threshold = cuts.threshold
    for item in items[cuts.minimum - 1 : count - 1]:
        if weigh(level, item) < threshold:
            raise FormatError("A node is not cut where its items say.")
    return count > 0 and cuts.ends(count, weigh(level, items[-1]) if count >= cuts.minimum else 0)
