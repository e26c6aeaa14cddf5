"""The directories that a run works in: those that are missing on the way are made, those that take no changes are
opened, and all get their modes at the end.

Nothing of that is a change by the user. Whatever a run that was cut off left open has no row, so that the next one
gives it the mode of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from buckia.core.directory import Path
from buckia.core.manifest import Kind
from buckia.core.projection import Shown
from buckia.engine.context import Workspace
from buckia.errors import LocalError
from buckia.local.fs import DIRECTORY, VanishedError
from buckia.local.state import Row
from buckia.local.writer import Writer

_OWNER = 0o700
Rows = dict[str, Row]


@dataclass(slots=True)
class _Due:
    """A directory that gets its mode at the end; then its row, if it has one, says so."""

    disk_path: str
    mode: int
    row: Row | None = None


class Directories:
    """``shown`` is what the tree shows in a directory; ``fail`` takes a path on disk and why its mode was not set."""

    def __init__(
        self,
        workspace: Workspace,
        writer: Writer,
        shown: Callable[[Path], list[Shown]],
        fail: Callable[[str, str], None],
    ) -> None:
        self._work = workspace
        self._writer = writer
        self._shown = shown
        self._fail = fail
        self._due: dict[Path, _Due] = {}
        self._rows: dict[Path, Rows] = {}
        self._own: set[Path] = set()

    def begin(self, rows: dict[Path, Rows]) -> None:
        """The rows of the directories whose names are being changed; who changes them stores them."""
        self._rows = rows
        self._own = set(rows)

    def open(self, directories: Iterable[tuple[Path, str]]) -> None:
        """Let names be changed in these directories."""
        opened: list[_Due] = []
        changed: dict[Path, Rows] = {}
        for path, disk_path in directories:
            there = path and b"/".join(path) in self._work.disk_paths
            present = self._work.files.stat(self._work.disk(disk_path)) if there else None
            if present is None or present.kind != DIRECTORY or present.mode & _OWNER == _OWNER:
                continue
            self._rows_of(path[:-1])
            if path[:-1] not in changed:
                changed[path[:-1]] = self._work.state.directory(b"/".join(path[:-1]))[1]
            rows = changed[path[:-1]]
            row = rows.pop(disk_path.rpartition("/")[2], None)
            if row is not None and not row.dots:  # it was announced to go, and is still to go if it is found open
                rows[row.name] = replace(row, stat=(present.mode | _OWNER, 0, 0, 0, 0))
            self._due[path] = _Due(disk_path, present.mode)
            opened.append(self._due[path])
        with self._work.state.transaction():
            for above, rows in changed.items():
                self._work.state.stage(b"/".join(above), rows.values(), None)
            self._work.state.promote()
        for due in opened:
            with suppress(LocalError):  # where it is not ours to change, what fails in it says so
                self._writer.set_mode(due.disk_path, due.mode | _OWNER)

    def make(self, path: Path, disk_path: str) -> set[Path]:
        """Have a directory, and those above it, which this run may not cover; those whose listing is another now."""
        parts = disk_path.split("/")
        missing = [
            depth
            for depth in range(1, len(path) + 1)
            if self._work.files.stat(self._work.disk("/".join(parts[:depth]))) is None
        ]
        for depth in missing:
            where, here = path[:depth], "/".join(parts[:depth])
            shown = self._shown_as(where)
            self._writer.make_directory(here, _OWNER | (shown.mode if shown is not None else 0o777))
            if shown is not None:
                dots = tuple(sorted(shown.dots))
                row = Row(parts[depth - 1], where[-1], Kind.DIRECTORY, dots, None, shown.mode, 0, 0)
                self.later(where, here, shown.mode, row)
        self._writer.make_directory(disk_path)
        return {path[:depth] for depth in range(len(path))} if missing else set()

    def later(self, path: Path, disk_path: str, mode: int, row: Row) -> None:
        """Set a directory's mode at the end."""
        self._due[path] = _Due(disk_path, mode, row)

    def close(self) -> None:
        """Set all modes, innermost first."""
        for path in sorted(self._due, reverse=True):
            due = self._due.pop(path)
            rows = self._rows_of(path[:-1])
            now = rows.get(due.disk_path.rpartition("/")[2])
            if now is not None and now.kind != Kind.DIRECTORY:
                continue  # this run has put something else in its place
            try:
                entry = self._writer.set_mode(due.disk_path, due.mode)
            except VanishedError:
                continue
            except LocalError as error:
                if due.row is not None:
                    self._fail(due.disk_path, error.message)
                else:
                    rows.pop(due.disk_path.rpartition("/")[2], None)
                continue
            if due.row is not None:
                rows[due.row.name] = replace(due.row, mode=due.mode, stat=entry.stat)

    def stage(self) -> None:
        """The rows of the directories above those whose names were changed, to be compared name by name next time."""
        for path in self._rows.keys() - self._own:
            self._work.state.stage(b"/".join(path), self._rows[path].values(), None)

    def _rows_of(self, path: Path) -> Rows:
        rows = self._rows.get(path)
        if rows is None:
            rows = self._rows[path] = self._work.state.directory(b"/".join(path))[1]
        return rows

    def _shown_as(self, path: Path) -> Shown | None:
        return next(
            (item for item in self._shown(path[:-1]) if item.kind == Kind.DIRECTORY and item.entry_name == path[-1]),
            None,
        )
