"""Merging states without locks and without a common ancestor, and editing one. See ``specs/merge.md``.

A version that only one side has is new if the other side's knowledge does not cover its dot, and was superseded
otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from buckia.core.directory import DirectoryUpdate, Path, check_depth, diff, empty_tree, is_empty
from buckia.core.ids import BlobId, DeviceId, Dot
from buckia.core.manifest import Entry, Subtree, Version, id_of, subtree_of
from buckia.core.merkle import CUTS, Cuts, NodeStore
from buckia.errors import ForkError

Knowledge = Mapping[DeviceId, int]
"""By device the highest seq whose effects a state includes."""


def knows(knowledge: Knowledge, dot: Dot) -> bool:
    """Whether a state with this knowledge has seen what was written under a dot."""
    return knowledge.get(dot.device, 0) >= dot.seq


def covers(a: Knowledge, b: Knowledge) -> bool:
    """Whether a state with knowledge ``a`` has seen all that one with ``b`` has."""
    return all(a.get(device, 0) >= seq for device, seq in b.items())


def join(a: Knowledge, b: Knowledge) -> dict[DeviceId, int]:
    """The knowledge of the merge of two states."""
    return {device: max(a.get(device, 0), b.get(device, 0)) for device in a.keys() | b.keys()}


def merge_versions(
    a: Collection[Version], b: Collection[Version], a_known: Knowledge, b_known: Knowledge
) -> tuple[Version, ...]:
    """The versions of one path that survive, sorted by dot. Raises ``ForkError`` for unequal versions under one dot."""
    left = {version.dot: version for version in a}
    right = {version.dot: version for version in b}
    kept = []
    for dot, version in left.items():
        other = right.get(dot)
        if other is None:
            if not knows(b_known, dot):
                kept.append(version)
        elif other == version:
            kept.append(version)
        else:
            raise ForkError(f"Device {dot.device.hex()} wrote two different versions under number {dot.seq}.")
    kept += [version for dot, version in right.items() if dot not in left and not knows(a_known, dot)]
    return tuple(sorted(kept, key=_dot))


def merge_trees(
    nodes: NodeStore, a: Subtree, a_known: Knowledge, b: Subtree, b_known: Knowledge, cuts: Cuts = CUTS
) -> Subtree:
    """The top directory of the merge of two states; its knowledge is ``join`` of theirs.

    Commutative, associative, idempotent. Reads only what differs. Raises ``ForkError`` for unequal versions under one
    dot, and for two states with the same knowledge that differ.
    """
    if a.id == b.id:
        return a
    a_covers, b_covers = covers(a_known, b_known), covers(b_known, a_known)
    if a_covers and b_covers:
        raise ForkError("Two states that include the same records differ.")
    if a_covers:
        return a
    if b_covers:
        return b
    return _Merge(nodes, a_known, b_known, cuts).merge((), a, b) or empty_tree(nodes)


class _Merge:
    """One merge. Pairs of directories that were merged are remembered, as one directory may be below many."""

    def __init__(self, nodes: NodeStore, a_known: Knowledge, b_known: Knowledge, cuts: Cuts) -> None:
        self._nodes = nodes
        self._a_known = a_known
        self._b_known = b_known
        self._cuts = cuts
        self._done: dict[tuple[BlobId | None, BlobId | None], Subtree | None] = {}

    def merge(self, path: Path, a: Subtree | None, b: Subtree | None) -> Subtree | None:
        """The merge of two directories at ``path``; None if nothing is left in it."""
        ids = (id_of(a), id_of(b))
        if ids[0] == ids[1]:
            return a
        if ids not in self._done:
            writer = DirectoryUpdate(self._nodes, ids[0] or ids[1], self._cuts)
            for one, two in diff(self._nodes, *ids, self._cuts):
                name = _name(one, two)
                merged = self._merge_entries((*path, name), one, two)
                if merged != (two if a is None else one):
                    writer.seek(name)
                    writer.set(merged)
            self._done[ids] = _subdirectory(writer.finish())
        return self._done[ids]

    def _merge_entries(self, path: Path, one: Entry | None, two: Entry | None) -> Entry | None:
        try:
            versions = merge_versions(
                one.versions if one else (), two.versions if two else (), self._a_known, self._b_known
            )
        except ForkError as error:
            where = b"/".join(path).decode(errors="backslashreplace")
            raise ForkError(f"{where}: {error.message}") from None
        a, b = subtree_of(one), subtree_of(two)
        if a != b:
            check_depth(path)
            a = self.merge(path, a, b)
        return _entry(path[-1], versions, a)


def edit_entry(
    entry: Entry | None,
    name: bytes,
    supersede: Collection[Dot],
    version: Version | None,
    subtree: Subtree | None,
) -> Entry | None:
    """The entry without the superseded dots, with ``version`` and ``subtree``. None if nothing is left."""
    kept = [] if entry is None else [one for one in entry.versions if one.dot not in supersede]
    if version is not None:
        if any(one.dot == version.dot for one in kept):
            raise ValueError("a dot is used twice at one path")
        kept.append(version)
    return _entry(name, tuple(sorted(kept, key=_dot)), subtree)


def _subdirectory(tree: Subtree) -> Subtree | None:
    return None if is_empty(tree) else tree


def _entry(name: bytes, versions: tuple[Version, ...], subtree: Subtree | None) -> Entry | None:
    return Entry(name, versions, subtree) if versions or subtree is not None else None


def _name(one: Entry | None, two: Entry | None) -> bytes:
    return one.name if one is not None else cast(Entry, two).name


def _dot(version: Version) -> tuple[DeviceId, int]:
    return (version.dot.device, version.dot.seq)
