"""The content of files: chunk ids in order, as a Merkle list if there is more than one. See ``specs/format.md``,
section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any, NoReturn

from buckia.core import canonical
from buckia.core.ids import ID_BYTES, BlobId, BlobType, Buffer, blob_id
from buckia.core.manifest import CHUNK_BYTES_MAX, NODE_FORMAT, FileContent, open_node
from buckia.core.merkle import CUTS, INTEGER_MAX, Cuts, ListBuilder, NodeStore, check_cuts
from buckia.errors import BuckiaError, FormatError, IntegrityError

Run = tuple[BlobId, int, int]
"""An item: at level 0 a chunk, its length and how often it repeats; above a node, the bytes below it and their chunks,
repeats counted.
"""


@dataclass(frozen=True, slots=True)
class ChunkNode:
    """A decoded chunk-list node. ``closed``: its last item ends it, so that others may follow."""

    level: int
    items: tuple[Run, ...]
    closed: bool


class ChunkListBuilder:
    """Builds a file's content from its chunks in order, writing nodes as they fill."""

    def __init__(self, nodes: NodeStore, cuts: Cuts = CUTS) -> None:
        self._nodes = nodes
        self._keys = cuts.keys
        self._list: ListBuilder[Run, Run] = ListBuilder(self._seal, _weigh, cuts)
        self._run: Run | None = None
        self._alone = True

    def add(self, id: BlobId, length: int) -> None:
        """Appends a chunk of ``length`` bytes."""
        run = self._run
        if run is not None:
            if id == run[0]:
                self._run = (id, length, run[2] + 1)
                return
            self._list.add(run)
            self._alone = False
        self._run = (id, length, 1)

    def finish(self) -> FileContent:
        """The content; all its nodes are written by now."""
        run = self._run
        if run is None:
            return FileContent(0, blob_id(BlobType.CHUNK, b"", self._keys))
        if self._alone and run[2] == 1:
            return FileContent(0, run[0])
        self._list.add(run)
        self._run = None
        root = self._list.finish()
        if root is None:
            raise AssertionError("a list with a run has a root")
        return FileContent(root[0] + 1, root[1][0])

    def _seal(self, level: int, items: Sequence[Run]) -> Run:
        id = self._nodes.put(BlobType.CHUNK_LIST, encode_chunks(level, items))
        return (id, *_sums(level, items))


def runs(nodes: NodeStore, content: FileContent, size: int, cuts: Cuts = CUTS) -> Iterator[Run]:
    """The chunks of a file of ``size`` bytes in order, as (id, length, repeat). Raises ``FormatError`` if they do not
    add up to it.
    """
    if content.depth == 0:
        if size:
            yield (content.id, size, 1)
        return
    previous: BlobId | None = None
    stack = [_root(content, size)]
    while stack:
        ref = stack.pop()
        node = ref.open(nodes, cuts)
        stack.extend(ref.below(node))
        if node.level == 0:
            if node.items[0][0] == previous:
                _bad("equal chunks follow each other")
            previous = node.items[-1][0]
            yield from node.items


def chunks(nodes: NodeStore, content: FileContent, size: int, cuts: Cuts = CUTS) -> Iterator[tuple[BlobId, int]]:
    """Like ``runs``, chunk by chunk: (id, length)."""
    for id, length, count in runs(nodes, content, size, cuts):
        yield from repeat((id, length), count)


Skip = Callable[[BuckiaError], None]
"""Told why a node cannot be read."""


def blobs(
    nodes: NodeStore,
    content: FileContent,
    size: int,
    seen: set[BlobId],
    cuts: Cuts = CUTS,
    *,
    skip: Skip | None = None,
) -> Iterator[tuple[BlobType, BlobId]]:
    """The nodes and chunks of a file that are not in ``seen``, to which they are added; what lies below a seen node is
    skipped.

    A node is yielded before it is read. One that cannot be read raises, or is told to ``skip`` and passed over.
    """
    if content.depth == 0:
        if size and content.id not in seen:
            seen.add(content.id)
            yield BlobType.CHUNK, content.id
        return
    stack = [] if content.id in seen else [_root(content, size)]
    while stack:
        ref = stack.pop()
        if ref.id not in seen:
            seen.add(ref.id)
            yield BlobType.CHUNK_LIST, ref.id
            try:
                node = ref.open(nodes, cuts)
            except (FormatError, IntegrityError) as error:
                if skip is None:
                    raise
                skip(error)
                continue
            stack.extend(ref.below(node))
            for item in () if node.level else node.items:
                if item[0] not in seen:
                    seen.add(item[0])
                    yield BlobType.CHUNK, item[0]


def encode_chunks(level: int, items: Sequence[Run]) -> bytes:
    """The bytes of a node with these items. Raises ``FormatError`` for what no reader takes."""
    rows: list[list[Any]] = [list(item) for item in items]
    _check_items(level, rows)
    return canonical.encode([NODE_FORMAT, BlobType.CHUNK_LIST.value, level, [], rows])


def decode_chunks(raw: Buffer, *, cuts: Cuts = CUTS) -> ChunkNode:
    """The node with these bytes. Raises ``FormatError`` for bytes that no writer makes."""
    level, devices, rows = open_node(raw, BlobType.CHUNK_LIST.value)
    if devices != []:
        _bad("it has devices")
    _check_items(level, rows)
    items = tuple([(row[0], row[1], row[2]) for row in rows])
    return ChunkNode(level, items, check_cuts(level, items, _weigh, cuts))


@dataclass(frozen=True, slots=True)
class _Ref:
    """A node to read, and what it must be. ``last``: nothing follows at its level. Only the root has no ``chunks``."""

    level: int
    id: BlobId
    length: int
    chunks: int | None
    last: bool

    def open(self, nodes: NodeStore, cuts: Cuts) -> ChunkNode:
        """Reads the node and checks that it is what it must be."""
        node = decode_chunks(nodes.get(BlobType.CHUNK_LIST, self.id), cuts=cuts)
        if node.level != self.level:
            _bad("it is not of the level that was stated")
        length, count = _sums(node.level, node.items)
        if length != self.length or self.chunks not in (None, count):
            _bad("its chunks do not add up to what was stated")
        if not node.closed and not self.last:
            _bad("it ends too early")
        if self.chunks is None and len(node.items) == 1 and (node.level or count == 1):
            _bad("a list of one item is not a list")
        return node

    def below(self, node: ChunkNode) -> list[_Ref]:
        """The nodes below this one, the first one last: a stack."""
        if node.level == 0:
            return []
        refs = [_Ref(node.level - 1, id, length, count, False) for id, length, count in reversed(node.items)]
        refs[0] = replace(refs[0], last=self.last)
        return refs


def _root(content: FileContent, size: int) -> _Ref:
    return _Ref(content.depth - 1, content.id, size, None, True)


def _weigh(level: int, item: Run) -> int:
    return int.from_bytes(item[0][:4], "big")


def _sums(level: int, items: Sequence[Run | list[Any]]) -> tuple[int, int]:
    length = sum(item[1] for item in items) if level else sum(item[1] * item[2] for item in items)
    return length, sum(item[2] for item in items)


def _check_items(level: int, rows: Sequence[list[Any]]) -> None:
    length_max = INTEGER_MAX if level else CHUNK_BYTES_MAX
    for row in rows:
        if type(row) is not list or len(row) != 3:
            _bad("an item is not an array of three")
        id, length, count = row
        if type(id) is not bytes or len(id) != ID_BYTES:
            _bad("an item's id is not 32 bytes")
        numbers = type(length) is int and type(count) is int
        if not numbers or not (0 < length <= length_max and 0 < count <= INTEGER_MAX):
            _bad("an item's numbers are out of range")
    if not rows:
        _bad("it is empty")
    if level == 0 and any(one[0] == two[0] for one, two in pairwise(rows)):
        _bad("equal chunks follow each other")
    if _sums(level, rows)[0] > INTEGER_MAX:
        _bad("a file with more bytes than the format can count")


def _bad(why: str) -> NoReturn:
    raise FormatError(f"A chunk list is malformed: {why}.")
