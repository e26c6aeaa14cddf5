"""What this device has deleted and not published: a directory that only exists for what is in it is not shown where all
of that is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from buckia.core.directory import Path, entries
from buckia.core.manifest import Entry, Kind, Subtree
from buckia.core.merkle import NodeStore
from buckia.core.projection import Shown, project
from buckia.local.folder import ScannedDirectory
from buckia.local.state import Row

Covers = Callable[[bytes, bool], bool]
"""Whether a run handles the entry at a path; true as the second argument says that it is a directory."""


def stays_hidden(row: Row, item: Shown) -> bool:
    """Whether a hidden row speaks of what would be shown."""
    if (row.kind == Kind.DIRECTORY) != (item.kind == Kind.DIRECTORY):
        return False
    return item.dots <= set(row.dots) or (row.kind == Kind.DIRECTORY and not row.dots)


class Hiding:
    """``scanned`` are the directories that the scan found changed, ``on_disk`` has all that it found."""

    def __init__(
        self, nodes: NodeStore, scanned: Iterable[ScannedDirectory], on_disk: Mapping[bytes, str], covers: Covers
    ) -> None:
        self._nodes = nodes
        self._on_disk = on_disk
        self._covers = covers
        self._rows: dict[bytes, dict[bytes, list[Row]]] = {}
        self._holding: set[bytes] = set()
        """The directories that something is hidden in, at any depth."""
        for directory in scanned:
            for row in (*directory.hidden, *directory.missing):
                self._rows.setdefault(directory.path, {}).setdefault(row.entry_name, []).append(row)
        for path in self._rows:
            while path not in self._holding:
                self._holding.add(path)
                path = path.rpartition(b"/")[0]

    def shown(self, path: Path, listed: Iterable[Entry]) -> Iterable[Entry]:
        """The entries of a directory as they are for this device."""
        return self._without(path, listed) if b"/".join(path) in self._holding else listed

    def above(self, paths: Iterable[Path]) -> Iterator[Path]:
        """The directories on the way to these in which one that is not on disk now may have to be shown again."""
        for path in paths if self._rows else ():
            while path and b"/".join(path) not in self._on_disk:
                path = path[:-1]
                yield path

    def _without(self, path: Path, listed: Iterable[Entry]) -> Iterator[Entry]:
        for entry in listed:
            below = (*path, entry.name)
            where = b"/".join(below)
            if (
                entry.subtree is None
                or where not in self._holding
                or where in self._on_disk
                or any(version.kind == Kind.DIRECTORY for version in entry.versions)
                or self._shows(below, entry.subtree)
            ):
                yield entry
            elif entry.versions:
                yield Entry(entry.name, entry.versions, None)

    def _shows(self, path: Path, tree: Subtree) -> bool:
        """Whether anything below a directory is to be shown."""
        hidden = self._rows.get(b"/".join(path), {})
        for entry in entries(self._nodes, tree.id):
            below = (*path, entry.name)
            for item in project(entry):
                if (
                    item.versions
                    and self._covers(b"/".join(below), item.kind == Kind.DIRECTORY)
                    and not any(stays_hidden(row, item) for row in hidden.get(entry.name, ()))
                ):
                    return True
            if entry.subtree is not None and self._shows(below, entry.subtree):
                return True
        return False
