"""What a device remembers of its last complete sync: the tree that the disk shows, and the conflicts in it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from buckia.core import canonical
from buckia.core.directory import Path
from buckia.core.ids import BlobId, DeviceId, ObjectId
from buckia.core.manifest import Kind, Subtree
from buckia.core.projection import Shown, may_be_copy
from buckia.errors import FormatError
from buckia.local.ledger import APPLIED
from buckia.local.state import State

_BYTES_MAX = 16 << 20
_CONFLICTS = "conflicts"
_CHANGES = "changes"
_FIELDS = (int, bytes, bytes, int, int, list, list)
_TIP = (bytes, int, bytes)


@dataclass(frozen=True, slots=True)
class Applied:
    """The tree that was applied completely in one scope, and the tips that it includes.

    ``heads``: the snapshots whose merge the tree is, if it is no snapshot's own: its nodes are in no pack then.
    """

    tree: Subtree
    tips: dict[DeviceId, tuple[int, ObjectId]]
    heads: tuple[ObjectId, ...] = ()


def begin_change(state: State) -> None:
    """Say before rows are changed that they will be: until a run in some scope is complete, no tree is known to be what
    they show.
    """
    state.set_value(_CHANGES, (_changes(state) + 1).to_bytes(8))


def _changes(state: State) -> int:
    return int.from_bytes(state.get_value(_CHANGES) or b"")


def load_applied(state: State, scope: str) -> Applied | None:
    """The state that was last applied completely in this scope; None where it is not known, or rows were changed by
    another run since.
    """
    data = state.get_value(APPLIED + scope)
    if data is None:
        return None
    try:
        value = canonical.decode(data, size_max=_BYTES_MAX)
        changes, node, content, files, size, tips, heads = canonical.fields(value, _FIELDS, "applied state")
        if changes != _changes(state):
            return None
        for tip in tips:
            canonical.fields(tip, _TIP, "tip")
        canonical.fields(heads, [bytes] * len(heads), "list of heads")
    except FormatError:
        return None
    return Applied(
        Subtree(BlobId(node), content, files, size),
        {DeviceId(device): (seq, ObjectId(record)) for device, seq, record in tips},
        tuple(map(ObjectId, heads)),
    )


def save_applied(state: State, scope: str, applied: Applied) -> None:
    """Remember that a state is applied completely in this scope."""
    tree = applied.tree
    tips: list[canonical.Value] = [[device, seq, record] for device, (seq, record) in sorted(applied.tips.items())]
    heads: list[canonical.Value] = [*applied.heads]
    value = canonical.encode([_changes(state), tree.id, tree.content_hash, tree.files, tree.bytes, tips, heads])
    state.set_value(APPLIED + scope, value)


def load_conflicts(state: State) -> dict[str, tuple[str, ...]]:
    """The paths whose conflicts wait for a decision, with the names of the other versions on disk."""
    data = state.get_value(_CONFLICTS)
    if data is None:
        return {}
    try:
        items = canonical.decode(data, size_max=_BYTES_MAX)
        for item in items:
            _, copies = canonical.fields(item, (str, list), "conflict")
            canonical.fields(copies, [str] * len(copies), "list of copies")
    except (FormatError, TypeError):  # TypeError: not even a list
        return {}
    return {path: tuple(copies) for path, copies in items}


def save_conflicts(state: State, conflicts: dict[str, tuple[str, ...]]) -> None:
    """Remember the conflicts that wait."""
    items = [[path, list(copies)] for path, copies in sorted(conflicts.items())]
    state.set_value(_CONFLICTS, canonical.encode(items) if items else None)


class OpenConflicts:
    """The conflicts that wait, directory by directory, while directories are brought up to date."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
        for path, copies in load_conflicts(state).items():
            self._found[path.rpartition("/")[0]][path] = copies

    def note(self, directory: Path, shown: Iterable[Shown]) -> None:
        """Take those of a directory from what is shown there now."""
        where = os.fsdecode(b"/".join(directory))
        self._found.pop(where, None)
        for item in shown:
            if item.name != item.entry_name and item.kind != Kind.DIRECTORY and may_be_copy(item.name):
                path = os.fsdecode(b"/".join((*directory, item.entry_name)))
                copies = self._found[where]
                copies[path] = (*copies.get(path, ()), os.fsdecode(item.name))

    def save(self) -> None:
        """Remember them."""
        save_conflicts(self._state, {path: copies for group in self._found.values() for path, copies in group.items()})
