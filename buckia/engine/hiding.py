"""What this device has deleted and not published: a directory that only exists for what is in it is not shown where all
of that is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from buckia.core.directory import Path, entries
from buckia.core.manifest import Entry, Kind, Subtree
from buckia.core.projection import project
from buckia.engine.compare import stays_hidden
from buckia.engine.context import Workspace
from buckia.local.folder import ScannedDirectory
from buckia.local.fs import DIRECTORY
from buckia.local.state import Row


class Hiding:
    """``scanned`` are the directories that the scan found changed, by path."""

    def __init__(self, workspace: Workspace, scanned: Mapping[bytes, ScannedDirectory]) -> None:
        self._work = workspace
        self._nodes = workspace.repository.nodes
        self._rows: dict[bytes, dict[bytes, list[Row]]] = {}
        self._holding: set[bytes] = set()
        """The directories that something is hidden in, at any depth."""
        self._found: dict[bytes, bool] = {}
        for path, directory in scanned.items():
            self._add(path, (*directory.hidden, *directory.missing))
        known = {} if workspace.filters.everything else workspace.state.fingerprints()
        for path, fingerprint in known.items():
            if fingerprint is None and path not in scanned:  # where this run does not look
                self._add(path, (row for row in workspace.state.directory(path)[1].values() if row.hidden))

    def shown(self, path: Path, listed: Iterable[Entry]) -> Iterable[Entry]:
        """The entries of a directory as they are for this device."""
        return self._without(path, listed) if b"/".join(path) in self._holding else listed

    def above(self, paths: Iterable[Path]) -> Iterator[Path]:
        """The directories on the way to these in which one that is not on disk now may have to be shown again."""
        for path in paths if self._rows else ():
            while path and b"/".join(path) not in self._work.disk_paths:
                path = path[:-1]
                yield path

    def _add(self, path: bytes, hidden: Iterable[Row]) -> None:
        for row in hidden:
            self._rows.setdefault(path, {}).setdefault(row.entry_name, []).append(row)
        if path in self._rows:
            parts = path.split(b"/")
            self._holding.update([b""], (b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)))

    def _without(self, path: Path, listed: Iterable[Entry]) -> Iterator[Entry]:
        for entry in listed:
            below = (*path, entry.name)
            if (
                entry.subtree is None
                or b"/".join(below) not in self._holding
                or any(version.kind == Kind.DIRECTORY for version in entry.versions)
                or self._is_there(b"/".join(below))
                or self._shows(below, entry.subtree)
            ):
                yield entry
            elif entry.versions:
                yield Entry(entry.name, entry.versions, None)

    def _is_there(self, path: bytes) -> bool:
        """Whether the directory was on disk when the run began, also where the scan did not look."""
        if path not in self._found:
            present = None
            above = path.rpartition(b"/")[0] in self._work.disk_paths
            if above and path not in self._work.disk_paths and not self._work.filters.descends(path):
                present = self._work.files.stat(self._work.disk(self._work.disk_path_of(path)))
            self._found[path] = path in self._work.disk_paths or (present is not None and present.kind == DIRECTORY)
        return self._found[path]

    def _shows(self, path: Path, tree: Subtree) -> bool:
        """Whether anything below a directory is to be shown."""
        hidden = self._rows.get(b"/".join(path), {})
        for entry in entries(self._nodes, tree.id):
            below = (*path, entry.name)
            for item in project(entry):
                if (
                    item.versions
                    and self._work.filters.covers(b"/".join(below), item.kind == Kind.DIRECTORY)
                    and not any(stays_hidden(row, item) for row in hidden.get(entry.name, ()))
                ):
                    return True
            if entry.subtree is not None and self._shows(below, entry.subtree):
                return True
        return False
