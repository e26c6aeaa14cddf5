"""What a directory and its state will be once a planned sync has run: what a dry run of a restore in place, which
begins with that sync, is compared with. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from buckia.core.ids import Dot
from buckia.core.manifest import Kind
from buckia.engine.capture import Capture, IdsOnly
from buckia.engine.compare import PERMISSIONS, Change, DirectoryPlan, Edit, Value
from buckia.engine.context import Workspace
from buckia.engine.restoreplan import refusal
from buckia.engine.work import in_order
from buckia.errors import LocalError
from buckia.events import Failure
from buckia.local.fs import DiskEntry
from buckia.local.paths import Platform
from buckia.local.state import Row

_Entries = dict[str, DiskEntry | None]
_Read = dict[int, Value]
"""What is on disk, by the edit's identity."""


class Forecast:
    """The rows and names that a sync with these plans will leave. ``own`` is the dot that its edits will have.

    What it would capture is read. ``failures`` are files that could not be.
    """

    def __init__(self, workspace: Workspace, plans: Iterable[DirectoryPlan], own: Dot) -> None:
        self._work = workspace
        self._own = own
        self._rows: dict[bytes, dict[str, Row]] = {}
        self._disk: dict[str, _Entries] = {}
        self.failures: list[Failure] = []
        plans = list(plans)
        read = self._read(plans)
        for plan in plans:
            rows, disk = self._after(plan, read)
            self._rows[b"/".join(plan.path)] = rows
            if disk:
                self._disk[plan.disk_path] = disk

    def rows(self, path: bytes) -> Mapping[str, Row]:
        """The rows of a directory of the folder, by name on disk."""
        found = self._rows.get(path)
        return self._work.state.directory(path)[1] if found is None else found

    def entries(self, disk_path: str) -> Mapping[str, DiskEntry | None]:
        """What the sync changes in a directory on disk, its path relative to the root; None: the name goes."""
        return self._disk.get(disk_path, {})

    def _read(self, plans: Iterable[DirectoryPlan]) -> _Read:
        """The values of all edits; comparing has read those of some already."""
        capture = Capture(self._work.files, IdsOnly(), self._work.settings.kernel, None)
        found: _Read = {}
        unread: list[tuple[Edit, str]] = []
        for plan in plans:
            for edit in (*plan.edits, *plan.later):
                if edit.value is not None:
                    found[id(edit)] = edit.value
                elif edit.disk is not None:
                    unread.append((edit, f"{plan.disk_path}/{edit.name}" if plan.disk_path else edit.name))

        def read(path: str) -> Value | LocalError:
            try:
                return capture.read(self._work.disk(path), path).value
            except LocalError as error:
                return error

        values = in_order(self._work.executor, read, (path for _, path in unread))
        for (edit, path), value in zip(unread, values, strict=True):
            if isinstance(value, LocalError):
                self.failures.append(Failure(path, value.message))
            else:
                found[id(edit)] = value
        return found

    def _after(self, plan: DirectoryPlan, read: _Read) -> tuple[dict[str, Row], _Entries]:
        rows, disk = dict(plan.rows), _Entries()
        written: dict[bytes, Value] = {}
        for edit in (*plan.edits, *plan.later):
            value, present = read.get(id(edit)), edit.disk
            if value is not None and present is not None:
                written[edit.entry_name] = value
                rows[edit.name] = _row(edit.name, edit.entry_name, value, present)
        for change in plan.changes:
            shown, name = change.shown, change.name
            if name in plan.blocked:
                continue
            if shown is None:
                rows.pop(name, None)
                if change.write:
                    disk[name] = None
            elif change.write and refusal(plan.path, shown, Platform.current()) is None:
                value, present = self._shown(change, written)
                rows[name], disk[name] = _row(name, shown.entry_name, value, present), present
            elif not change.write and change.row is not None:
                rows.setdefault(name, replace(change.row, name=name, entry_name=shown.entry_name))
        return rows, disk

    def _shown(self, change: Change, written: Mapping[bytes, Value]) -> tuple[Value, DiskEntry]:
        """What a change brings to the disk. Of an edit that comes under another name the plan does not know the
        content.
        """
        shown = change.shown
        if shown is None or shown.kind == Kind.DIRECTORY:
            mode = shown.mode if shown is not None else 0
            return Value(Kind.DIRECTORY, None, mode), DiskEntry(change.name, Kind.DIRECTORY, mode, 0, 0, 0, 0)
        version = shown.versions[0]
        value = Value(version.kind, version.content, version.mode)
        if version.dot == self._own:
            value = written.get(shown.entry_name, value)
        mode = version.mode & PERMISSIONS
        return value, DiskEntry(change.name, version.kind, mode, version.size, version.mtime_ns, 0, 0)


def _row(name: str, entry_name: bytes, value: Value, present: DiskEntry) -> Row:
    """A row of what is, or will be, on disk; nobody asks for its dots."""
    return Row(
        name, entry_name, value.kind, (), value.content, value.mode, present.size, present.mtime_ns, present.stat
    )
