"""What lies on this device where the folder has something else, and is left out of the sync: it stays, and its user is
told.
"""

from __future__ import annotations

import os

from buckia.core.manifest import Kind
from buckia.engine.compare import Change, DirectoryPlan
from buckia.engine.context import Workspace
from buckia.local.fs import DIRECTORY, FILE, SPECIAL, SYMLINK, DiskEntry
from buckia.local.paths import ours

_WORDS = {FILE: "file", SYMLINK: "link", DIRECTORY: "directory", SPECIAL: "special file"}


class Obstacles:
    """Collects what is in the way. ``found`` has a sentence for each, by its path in the folder."""

    def __init__(self, workspace: Workspace) -> None:
        self._work = workspace
        self._above: dict[bytes, bool] = {}
        self.found: dict[str, str] = {}

    def passed(self, plan: DirectoryPlan, changes: list[Change]) -> list[Change]:
        """The changes that can be made in a directory. The names of the others are noted in its plan."""
        left = {entry[0] for entry in plan.scanned.entries} if plan.scanned is not None else set()
        for change in changes:
            if change.write and change.shown is not None and self._is_blocked(plan, change, left):
                plan.blocked.add(change.name)
        return [change for change in changes if change.name not in plan.blocked]

    def _is_blocked(self, plan: DirectoryPlan, change: Change, left: set[str]) -> bool:
        scanned, shown, row = plan.scanned, change.shown, change.row
        if scanned is None or shown is None or ours(change.name, top=not plan.path):  # which is never written
            return False
        if not scanned.exists:
            return self._is_below_something(plan)
        if row is not None and not row.hidden and row.kind == shown.kind:
            return False
        if not scanned.clean and change.name not in left:  # nothing is there, or what takes part
            return False
        path = b"/".join((*plan.path, os.fsencode(change.name)))
        where = f"{plan.disk_path}/{change.name}" if plan.disk_path else change.name
        present = self._work.files.stat(self._work.disk(where))
        if present is None or present.kind == shown.kind == DIRECTORY:
            return False
        return (not scanned.clean or self._is_left_out(path, present)) and self._note(path, present, shown.kind)

    def _is_below_something(self, plan: DirectoryPlan) -> bool:
        """Whether a directory cannot be made as something else has its name, or that of one above it."""
        paths = (b"/".join(plan.path[:depth]) for depth in range(1, len(plan.path) + 1))
        path = next((path for path in paths if path not in self._work.disk_paths), None)
        if path is None:
            return False
        if path not in self._above:
            present = self._work.files.stat(self._work.disk(self._work.disk_path_of(path)))
            blocks = present is not None and present.kind != DIRECTORY and self._is_left_out(path, present)
            self._above[path] = blocks and present is not None and self._note(path, present, Kind.DIRECTORY)
        return self._above[path]

    def _is_left_out(self, path: bytes, present: DiskEntry) -> bool:
        return present.kind == SPECIAL or not self._work.filters.covers(path, present.kind == DIRECTORY)

    def _note(self, path: bytes, present: DiskEntry, wanted: Kind) -> bool:
        name = os.fsdecode(path)
        self.found[name] = (
            f"The {_WORDS[present.kind]} “{name}”, which this sync leaves out, lies where the folder has a"
            f" {_WORDS[wanted]}: nothing was changed there; move it away and sync again."
        )
        return True
