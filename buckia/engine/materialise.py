"""Execute, the way in: the disk is made to show a tree, and the rows to say what it shows.

Order: files that go are moved to the trash, directories that go are removed, new directories are made, files are
staged, flushed, announced as intents and put in place, and directories get their modes last. Whatever is not as its row
says is left alone and taken up by the next sync.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from buckia.core.directory import Path, entries, lookup
from buckia.core.manifest import FileContent, Kind, Subtree
from buckia.core.projection import Shown, project_directory
from buckia.engine.applied import OpenConflicts
from buckia.engine.capture import Capture, IdsOnly
from buckia.engine.compare import PERMISSIONS, Change, DirectoryPlan, changes_for
from buckia.engine.context import Workspace
from buckia.engine.directories import Directories
from buckia.engine.fetch import Fetched, Fetcher, LocalSources, Wanted, in_batches
from buckia.engine.hiding import Hiding
from buckia.errors import LocalError
from buckia.events import Failure, Skipped
from buckia.local.folder import ScannedDirectory, fresh_fingerprint
from buckia.local.fs import DiskEntry, DiskFullError, Stat
from buckia.local.paths import Platform, link_problem, name_problem
from buckia.local.state import Row
from buckia.local.writer import ChangedMeanwhile, Placement, Staged, Writer

_RECENT_NS = 2 * 10**9
_OWNER = 0o700


@dataclass(slots=True)
class _Directory:
    """A directory whose names are being changed."""

    path: Path
    disk_path: str
    rows: dict[str, Row]
    scanned: ScannedDirectory | None
    files: list[Change] = field(default_factory=list)
    made: list[Change] = field(default_factory=list)

    def disk(self, name: str) -> str:
        return f"{self.disk_path}/{name}" if self.disk_path else name

    @property
    def key(self) -> bytes:
        return b"/".join(self.path)

    def forget(self, name: str) -> None:
        """Nothing is there any more, so the listing made before no longer counts for this name."""
        self.rows.pop(name, None)
        if self.scanned is not None:
            self.scanned.unchanged.pop(name, None)


class Materialiser:
    """Applies one tree to the disk."""

    def __init__(self, workspace: Workspace, tree: Subtree, hiding: Hiding) -> None:
        self._work = workspace
        self._nodes = workspace.repository.nodes
        self._tree = tree
        self._hiding = hiding
        token = workspace.state.owner + workspace.random_bytes(6).hex()
        self._writer = Writer(workspace.files, workspace.root, token=token)
        self._when = datetime.fromtimestamp(workspace.clock.now_ns() // 10**9, UTC).strftime("%Y-%m-%dT%H%M%SZ")
        self._sources = LocalSources()
        self._conflicts = OpenConflicts(workspace.state)
        self._listed_anew: set[bytes] = set()
        """Directories that hold one now which no row tells of: they are to be compared name by name next time."""
        self.downloaded = 0
        self.deleted = 0
        self.failures: list[Failure] = []
        self.skipped: list[Skipped] = []
        self._directories = Directories(
            workspace, self._writer, self._shown, lambda path, reason: self.failures.append(Failure(path, reason))
        )

    def run(self, plans: list[DirectoryPlan]) -> None:
        """Make these directories, which come in tree order, show what the tree says."""
        for plan in plans:
            if plan.scanned is not None and plan.scanned.leftovers:
                self._writer.remove_leftovers(plan.disk_path, plan.scanned.leftovers)
        directories = [self._open(plan) for plan in plans if plan.show]
        if not directories:
            return
        self._announce_removals(directories)
        self._directories.begin({directory.path: directory.rows for directory in directories})
        try:
            self._change(directories)
            self._writer.flush()
        finally:
            self._directories.close()
        for directory in directories:
            self._stage(directory)
        self._directories.stage()
        with self._work.state.transaction():
            self._conflicts.save()
            self._work.state.promote()

    def _change(self, directories: list[_Directory]) -> None:
        changing = (directory for directory in directories if directory.files or directory.made)
        self._directories.open((directory.path, directory.disk_path) for directory in changing)
        for directory in directories:
            self._remove_files(directory)
        for directory in reversed(directories):
            self._remove_directories(directory)
        for directory in directories:
            self._make_directories(directory)
        self._write_files(directories)

    # ---- what must change

    def _open(self, plan: DirectoryPlan) -> _Directory:
        """Compare the rows as they are after publishing with what the tree shows."""
        rows = self._work.state.directory(b"/".join(plan.path))[1]
        directory = _Directory(plan.path, plan.disk_path, rows, plan.scanned)
        if plan.scanned is not None and plan.scanned.clean:
            plan.scanned.unchanged = dict(rows)
        shown = self._shown(plan.path)
        self._conflicts.note(plan.path, shown)
        prefix = b"".join(part + b"/" for part in plan.path)
        covers = self._work.filters.covers
        for change in changes_for(shown, rows, lambda name, is_dir: covers(prefix + name, is_dir)):
            if change.name in plan.blocked or self._is_refused(directory, change):
                continue
            if not change.write:
                self._update_row(directory, change)
            elif change.shown is not None and change.shown.kind == Kind.DIRECTORY:
                directory.made.append(change)
            else:
                directory.files.append(change)
                self._note_sources(directory, change)
        return directory

    def _shown(self, path: Path) -> list[Shown]:
        tree: Subtree | None = self._tree
        if path:
            entry = lookup(self._nodes, self._tree.id, path)
            tree = entry.subtree if entry is not None else None
        if tree is None:
            return []
        return project_directory(self._hiding.shown(path, entries(self._nodes, tree.id)), self._work.fold)

    def _is_refused(self, directory: _Directory, change: Change) -> bool:
        """Names and links that may not be on this disk are reported and left out."""
        if change.shown is None or not change.write:
            return False
        platform = Platform.current()
        problem = name_problem(change.shown.name, platform, top=not directory.path)
        if problem is None and change.shown.kind == Kind.SYMLINK:
            target = change.shown.versions[0].content
            problem = link_problem(len(directory.path), target, platform) if isinstance(target, bytes) else None
        if problem is None:
            return False
        self.skipped.append(Skipped(directory.disk(change.name), problem, "remote"))
        return True

    def _update_row(self, directory: _Directory, change: Change) -> None:
        """The disk shows the right thing already; only what it stands for has changed."""
        if change.shown is None:
            directory.rows.pop(change.name, None)
        elif change.row is not None:
            dots = tuple(sorted(change.shown.dots))
            directory.rows[change.name] = replace(
                change.row, name=change.name, dots=dots, entry_name=change.shown.entry_name
            )

    def _note_sources(self, directory: _Directory, change: Change) -> None:
        """Remember where contents are on disk, so that they need not be fetched."""
        row = change.row
        if row is not None and isinstance(row.content, FileContent) and row.size:
            path = directory.disk(change.name)
            self._sources.contents.setdefault(row.content.id, path)
            if row.content.depth:
                self._sources.previous[path] = (row.content, row.size)

    # ---- removing

    def _announce_removals(self, directories: list[_Directory]) -> None:
        """Say before anything is removed that its absence means nothing, or a run that is cut off here would look like
        its deletion, or like a disk that is not mounted.

        Their versions may well live on under another name. A row without dots says that; the intents make it durable.
        """
        going = [
            (directory, [row for change in directory.files + directory.made if (row := _going(change))])
            for directory in directories
        ]
        intents: list[tuple[bytes, Row]] = []
        with self._work.state.transaction():
            for directory, rows in going:
                if rows:
                    announced = [replace(row, dots=()) for row in rows]
                    intents += [(directory.key, row) for row in announced]
                    changed = {**directory.rows, **{row.name: row for row in announced}}
                    self._work.state.stage(directory.key, changed.values(), None)
            self._work.state.promote()
        if intents:
            self._work.state.add_intents(intents)

    def _remove_files(self, directory: _Directory) -> None:
        for change in directory.files + directory.made:
            row = _giving_way(change)
            if row is None:
                continue
            path = directory.disk(change.name)
            try:
                self._sources.moved[path] = self._writer.remove(path, self._expected(directory, row), self._when)
            except LocalError as error:
                if self._work.files.stat(self._work.disk(path)) is not None:
                    self._fail(directory, change.name, error.message)
                    continue
            directory.forget(change.name)
            self.deleted += change.shown is None
            self._work.progress.advance(0, "deleting", path)

    def _remove_directories(self, directory: _Directory) -> None:
        """Directories that are gone in the tree, innermost first; one that still holds something of the user's stays,
        unlisted.
        """
        for change in directory.files:
            row = change.row
            if row is None or row.kind != Kind.DIRECTORY:
                continue
            try:
                gone = self._writer.remove_directory(directory.disk(change.name))
            except LocalError as error:
                gone = self._work.files.stat(self._work.disk(directory.disk(change.name))) is None
                if not gone:
                    self._fail(directory, change.name, error.message)
                    continue
            if gone:
                directory.forget(change.name)
            else:
                directory.rows[change.name] = replace(row, dots=(), hidden=True)

    def _expected(self, directory: _Directory, row: Row) -> Stat:
        """The stat that a file must have to be replaced: that of its row, or, where the row has none, of a file that
        was just read and is the same.
        """
        if row.stat is not None:
            return row.stat
        name = directory.disk(row.name)
        capture = Capture(self._work.files, IdsOnly(), self._work.settings.kernel, None)
        captured = capture.read(self._work.disk(name), name)
        if captured.value.content != row.content or captured.value.kind != row.kind:
            raise ChangedMeanwhile(f"{name} changed while the sync was running; it was left alone.")
        return captured.disk.stat

    # ---- writing

    def _make_directories(self, directory: _Directory) -> None:
        for change in directory.made if self._is_there(directory, directory.made) else ():
            shown = change.shown
            if shown is None or (
                change.row is not None and change.row.kind != Kind.DIRECTORY and change.name in directory.rows
            ):
                continue
            where = directory.disk(change.name)
            try:
                self._writer.make_directory(where, shown.mode | _OWNER)
            except LocalError as error:
                self._fail(directory, change.name, error.message)
                continue
            dots = tuple(sorted(shown.dots))
            row = Row(change.name, shown.entry_name, Kind.DIRECTORY, dots, None, shown.mode, 0, 0)
            directory.rows[change.name] = row
            self._directories.later((*directory.path, shown.entry_name), where, shown.mode, row)

    def _write_files(self, directories: list[_Directory]) -> None:
        places: dict[str, tuple[_Directory, Change]] = {}
        alike: list[tuple[_Directory, Change, Row]] = []
        for directory in directories:
            for change in directory.files if self._is_there(directory, directory.files) else ():
                intent = _attributes(change) if change.name in directory.rows else None
                if intent is not None:
                    alike.append((directory, change, intent))
                elif change.shown is not None and not self._is_in_use(directory, change):
                    places[directory.disk(change.name)] = (directory, change)
        self._set_attributes(alike)
        if not places:
            return
        self._note_twins(places)
        fetcher = Fetcher(
            self._work.repository,
            self._writer,
            self._work.fetchers or self._work.executor,
            self._sources,
            lambda size, path: self._work.progress.advance(size, "downloading", path),
        )
        with self._writer.tidying(), closing(fetcher.stage(self._wanted(places))) as staged:
            for batch in in_batches(staged):
                self._place(batch, places)

    def _is_there(self, directory: _Directory, changes: list[Change]) -> bool:
        """Make the directory itself where it is missing, as this sync may cover what is in it without covering the
        directory.
        """
        wanted = [change for change in changes if change.shown is not None]
        if not wanted or not directory.path:
            return True
        try:
            made = self._directories.make(directory.path, directory.disk_path)
        except LocalError as error:
            for change in wanted:
                self._fail(directory, change.name, error.message)
            return False
        self._listed_anew.update(map(b"/".join, made))
        return True

    def _is_in_use(self, directory: _Directory, change: Change) -> bool:
        """Whether the file is a database that cannot be replaced now, so that nothing need be fetched for it."""
        try:
            if change.name in directory.rows:
                self._writer.require_closed(directory.disk(change.name))
        except LocalError as error:
            self._fail(directory, change.name, error.message)
            return True
        return False

    def _wanted(self, places: dict[str, tuple[_Directory, Change]]) -> Iterator[Wanted]:
        for path, (directory, change) in places.items():
            if change.shown is not None:
                yield Wanted(directory.disk_path, path, change.shown.versions[0])

    def _note_twins(self, places: dict[str, tuple[_Directory, Change]]) -> None:
        """Contents that lie elsewhere in the tree already: what was copied or renamed on another device is not fetched
        again.
        """
        versions = (change.shown.versions[0] for _, change in places.values() if change.shown is not None)
        contents = {version.content.id for version in versions if isinstance(version.content, FileContent)}
        wanted = contents - self._sources.contents.keys()
        if not wanted:
            return
        for path in self._work.state.fingerprints():
            disk_path = self._work.disk_path_of(path)
            for row in self._work.state.directory(path)[1].values():
                if isinstance(row.content, FileContent) and row.content.id in wanted and not row.hidden:
                    self._sources.contents.setdefault(
                        row.content.id, f"{disk_path}/{row.name}" if disk_path else row.name
                    )

    def _set_attributes(self, alike: list[tuple[_Directory, Change, Row]]) -> None:
        """Set mode and time of files that have the right content. Each intent is the row that such a file will have: it
        is announced, or a run that is cut off would take the new mode for an edit of the user's.
        """
        if alike:
            self._work.state.add_intents((directory.key, intent) for directory, _, intent in alike)
        for directory, change, intent in alike:
            if change.row is None or change.row.stat is None:
                continue
            try:
                entry = self._writer.set_attributes(
                    directory.disk(change.name), change.row.stat, mode=intent.mode, mtime_ns=intent.mtime_ns
                )
            except LocalError as error:
                self._fail(directory, change.name, error.message)
                continue
            directory.rows[change.name] = self._row(change.name, change.shown, entry)
            self.downloaded += 1

    def _place(self, batch: list[Fetched], places: dict[str, tuple[_Directory, Change]]) -> None:
        """Flush, announce and rename a batch of staged files."""
        ready: list[tuple[_Directory, Change, Placement]] = []
        for fetched in batch:
            staged = fetched.staged
            directory, change = places[fetched.wanted.path]
            if staged is None:
                self._fail(directory, change.name, fetched.reason)
                continue
            try:
                expected = self._present(directory, change)
            except LocalError as error:
                self._discard(staged)
                self._fail(directory, change.name, error.message)
                continue
            ready.append((directory, change, Placement(staged, fetched.wanted.path, expected)))
        if not ready:
            return
        self._writer.flush_staged([placement.staged for *_, placement in ready])
        self._work.state.add_intents(
            (directory.key, self._row(change.name, change.shown, placement.staged.entry, trusted=True))
            for directory, change, placement in ready
            if change.shown is not None
        )
        outcomes = self._writer.place([placement for *_, placement in ready], self._when)
        for (directory, change, _), placed in zip(ready, outcomes, strict=True):
            if placed.entry is None or change.shown is None:
                self._fail(
                    directory, change.name, placed.error.message if placed.error is not None else "it was not placed"
                )
                continue
            directory.rows[change.name] = self._row(change.name, change.shown, placed.entry)
            self.downloaded += 1

    def _present(self, directory: _Directory, change: Change) -> Stat | None:
        """What must be at the place now: nothing, or the file that its row describes."""
        row = directory.rows.get(change.name)
        if row is None or row.hidden or row.kind == Kind.DIRECTORY:
            return None
        return self._expected(directory, row)

    def _discard(self, staged: Staged) -> None:
        try:
            self._writer.discard(staged)
        except DiskFullError:
            raise
        except LocalError as error:
            self.failures.append(Failure(staged.path, error.message))

    def _row(self, name: str, shown: Shown | None, entry: DiskEntry, *, trusted: bool = False) -> Row:
        """The row of a file that was just written. Its time was set, so that whoever changes it afterwards changes that
        as well.
        """
        if shown is None:
            raise AssertionError("a written file shows something")
        version = shown.versions[0]
        now = self._work.clock.now_ns()
        settled = trusted or not now - _RECENT_NS < entry.mtime_ns <= now
        return Row(
            name,
            shown.entry_name,
            version.kind,
            tuple(sorted(shown.dots)),
            version.content,
            version.mode,
            version.size,
            version.mtime_ns,
            entry.stat if settled else None,
        )

    def _fail(self, directory: _Directory, name: str, reason: str) -> None:
        self.failures.append(Failure(directory.disk(name), reason))

    def _stage(self, directory: _Directory) -> None:
        if not directory.rows and directory.path:
            self._work.state.drop_directory(directory.key)
            return
        rows = list(directory.rows.values())
        fingerprint = None
        if not self.failures and directory.key not in self._listed_anew and not any(row.hidden for row in rows):
            if directory.scanned is not None and directory.scanned.exists:
                fingerprint = directory.scanned.fingerprint(rows)
            else:
                fingerprint = fresh_fingerprint(directory.key, rows, self._work.filters)
        self._work.state.stage(directory.key, rows, fingerprint)


def _attributes(change: Change) -> Row | None:
    """The row that the file will have, where only mode or time differ, so that nothing is fetched."""
    row, shown = change.row, change.shown
    if row is None or shown is None or row.stat is None or row.kind != Kind.FILE or shown.kind != Kind.FILE:
        return None
    version = shown.versions[0]
    if row.content != version.content:
        return None
    _, size, _, ctime_ns, inode = row.stat
    return replace(
        row,
        entry_name=shown.entry_name,
        dots=tuple(sorted(shown.dots)),
        mode=version.mode,
        mtime_ns=version.mtime_ns,
        stat=(version.mode & PERMISSIONS, size, version.mtime_ns, ctime_ns, inode),
    )


def _giving_way(change: Change) -> Row | None:
    """The row of a file or link that is to be taken away, and not merely to be written over."""
    row = change.row
    if row is None or row.kind == Kind.DIRECTORY or not (change.shown is None or change.shown.kind == Kind.DIRECTORY):
        return None
    return row


def _going(change: Change) -> Row | None:
    """The row of whatever is to be taken away, directories included."""
    row, shown = change.row, change.shown
    if row is not None and row.kind == Kind.DIRECTORY and (shown is None or shown.kind != Kind.DIRECTORY):
        return row
    return _giving_way(change)
