"""The comparison of one local tree with one state of the folder: every directory that changed on either side becomes a
`DirectoryPlan`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from buckia.core.directory import Path, diff_trees, entries, find, lookup, walk
from buckia.core.ids import DeviceId, Dot
from buckia.core.manifest import Entry, Kind, Subtree, Version, is_directory
from buckia.core.merge import edit_entry
from buckia.core.merkle import NodeStore
from buckia.core.projection import DIRECTORY_MODE, Fold, Shown, may_be_copy, project_directory
from buckia.engine.capture import Capture, IdsOnly
from buckia.engine.compare import (
    NOTHING,
    Change,
    DirectoryPlan,
    Edit,
    Value,
    changes_for,
    decide,
    delete_edit,
    dots_of,
    kept_mode,
    placeholder,
    rewritten,
    stays_hidden,
    write_edit,
)
from buckia.engine.context import Workspace
from buckia.engine.hiding import Hiding
from buckia.engine.obstacles import Obstacles
from buckia.errors import LocalError
from buckia.events import Failure
from buckia.local.folder import ScannedDirectory
from buckia.local.fs import DiskEntry
from buckia.local.paths import bucket_name
from buckia.local.state import Row

IsRetained = Callable[[Path, Value], bool]
"""Whether some snapshot of the past shows this value at this path."""


def split(path: bytes) -> Path:
    """A path as the state keeps it, by components."""
    return tuple(path.split(b"/")) if path else ()


def subtree_at(nodes: NodeStore, tree: Subtree, path: Path) -> Subtree | None:
    """What lies below a path of a tree, if anything does."""
    if not path:
        return tree
    entry = lookup(nodes, tree.id, path)
    return entry.subtree if entry is not None else None


class Survey:
    """Compares directories with a tree. ``device`` and ``seq`` are what the next record will have."""

    def __init__(
        self,
        workspace: Workspace,
        tree: Subtree,
        device: DeviceId,
        seq: int,
        is_retained: IsRetained,
        hiding: Hiding,
    ) -> None:
        self._work = workspace
        self._nodes = workspace.repository.nodes
        self._tree = tree
        self._device = device
        self._seq = seq
        self._is_retained = is_retained
        self._hiding = hiding
        self._capture = Capture(workspace.files, IdsOnly(), workspace.settings.kernel, None)
        self.failures: list[Failure] = []
        self.hidden: list[str] = []
        """Paths whose deletion here is kept to this device by this run."""
        self.hidden_before = 0
        """Files of which earlier runs have done so, and this one does."""
        self.warnings: list[str] = []
        self.obstacles = Obstacles(workspace)

    # ---- which directories

    def changed_paths(self, applied: Subtree | None) -> set[Path]:
        """The directories in which the tree differs from what was applied here last; all of them if nothing was."""
        if applied is None:
            directories = (path for path, entry in walk(self._nodes, self._tree.id) if is_directory(entry))
            return {(), *directories, *map(split, self._work.state.fingerprints())}
        changed: set[Path] = set()
        for path, one, two in diff_trees(self._nodes, applied, self._tree):
            where = path[:-1]
            if where and where not in changed and (one is None or two is None):
                self._add_turned(where, applied, changed)
            changed.add(where)
        return changed.union(self._hiding.above(changed))

    def _add_turned(self, path: Path, applied: Subtree, changed: set[Path]) -> None:
        """Where something lies below a path for the first time, or nothing does any more, its own directory shows
        another thing.
        """
        while path and (subtree_at(self._nodes, applied, path) is None) != (self._subtree(path) is None):
            path = path[:-1]
            changed.add(path)

    def directory(self, scanned: ScannedDirectory, changed: bool) -> DirectoryPlan:
        """The decisions for one directory that the scan or the tree says has changed."""
        path = split(scanned.path)
        rows = (
            self._work.state.directory(scanned.path)[1] if scanned.clean else {**scanned.unchanged, **scanned.outside}
        )
        plan = DirectoryPlan(path, scanned.disk_path, rows, scanned=scanned, show=changed)
        view = _View(self._nodes, self._subtree(path), self._work.fold, self._hiding, scanned)
        if changed:
            view.load()
        for disk, row in scanned.changed:
            self._local(plan, view, disk, row)
        self._decide(plan, view)
        covers = self.covers(path)
        taken = {disk.name for disk, row in scanned.changed if row is None}
        aside: list[Row] = []
        for row in (*scanned.missing, *scanned.hidden):
            if covers(row.entry_name, row.kind == Kind.DIRECTORY):
                row = self._missing(plan, view, row)
            if row is not None and row.name in taken:
                aside.append(row)  # the name is another's now: what it stood for gets a new one
            elif row is not None:
                plan.rows.setdefault(row.name, row)
        _one_per_name(plan, view)
        if changed or plan.show or aside or any(map(self._moves_names, plan.edits)):
            plan.show = True
            plan.changes = self.obstacles.passed(plan, self._shown_changes(plan, view, aside))
            self.warnings += [
                f"Other devices have a directory “{self._path(plan, os.fsencode(change.name))}”; this device's file of"
                " that name is a conflict copy now."
                for change in plan.changes
                if _gives_way(change, plan.changes)
            ]
        return plan

    def _decide(self, plan: DirectoryPlan, view: _View) -> None:
        """Let the policy decide where edits meet versions that this device shows neither under their names nor under
        those of conflict copies.
        """
        met = [(edit, entry) for edit in plan.edits if (entry := view.entry(edit.entry_name)) is not None]
        seen: dict[bytes, set[Dot]] = {entry.name: set() for _, entry in met}
        for row in (*plan.rows.values(), *view.rows_before()) if met else ():
            if row.entry_name in seen:
                seen[row.entry_name].update(row.dots)
        for edit, entry in met:
            unseen = [version for version in entry.versions if version.dot not in seen[entry.name]]
            decide(edit, unseen, self._work.settings.policy)

    def _moves_names(self, edit: Edit) -> bool:
        """Whether other names in the directory may change with this edit: of siblings, or of what had to give way to
        this name.
        """
        return edit.others or may_be_copy(edit.entry_name) or (self._work.fold is not None and edit.disk is None)

    def _subtree(self, path: Path) -> Subtree | None:
        return subtree_at(self._nodes, self._tree, path)

    # ---- local changes

    def _local(self, plan: DirectoryPlan, view: _View, disk: DiskEntry, row: Row | None) -> None:
        """Something on disk that its row does not explain: it is refreshed, adopted, or an edit."""
        name = row.entry_name if row is not None else (bucket_name(disk.name) or b"")
        shown = view.shown(disk.name, name)
        if shown is not None and row is None and disk.kind == Kind.DIRECTORY != shown.kind:
            shown = None  # what a file is called, a conflict copy too, says nothing of a directory
        entry = view.entry(shown.entry_name if shown is not None and row is None else name)
        try:
            value = self._value_if_needed(plan, disk, row, entry)
        except LocalError as error:
            self.failures.append(Failure(self._path(plan, name), error.message))
            if row is not None:
                plan.rows[row.name] = row
            return
        if (
            row is not None
            and value is not None
            and (row.kind, row.content, row.mode) == (value.kind, value.content, value.mode)
        ):
            plan.rows[row.name] = replace(row, stat=self._work.trusted_stat(disk), hidden=False)
            return
        if row is not None and _stands_for_nothing(row):
            row = None  # that file was to go, or to be replaced: what is here now is something else
        if value is not None and self._adopt(plan, view, disk, row, (entry, shown), value):
            return
        plan.edits.append(write_edit(disk, row, entry, entry.name if entry is not None else name, value))

    def _value_if_needed(
        self, plan: DirectoryPlan, disk: DiskEntry, row: Row | None, entry: Entry | None
    ) -> Value | None:
        """What is on disk, read only where it may equal something known, or where a tie must be settled."""
        kind = Kind(disk.kind)
        if kind == Kind.DIRECTORY:
            return kept_mode(Value(kind, None, disk.mode), disk, row)
        candidates = [version for version in (entry.versions if entry is not None else ()) if version.kind == kind]
        same_size = any(version.size == disk.size for version in candidates)
        if row is not None and row.kind == kind:
            same_size |= row.size == disk.size
        tie = self._work.settings.policy == "newest_wins" and any(v.mtime_ns == disk.mtime_ns for v in candidates)
        unknown_origin = (row is None or _stands_for_nothing(row)) and entry is not None
        if kind == Kind.FILE and not (same_size or tie or unknown_origin):
            return None
        captured = self._capture.read(self._disk(plan, disk.name), disk.name, disk.kind)
        return kept_mode(captured.value, disk, row)

    def _adopt(
        self,
        plan: DirectoryPlan,
        view: _View,
        disk: DiskEntry,
        row: Row | None,
        at: tuple[Entry | None, Shown | None],
        value: Value,
    ) -> bool:
        """Take what is on disk for a version that the tree has, or once had, ``at`` its name, and what is shown under
        that: no edit. Whether it was.

        Not for one that another name here stands for: somebody put it in this place, and what becomes of that name may
        well remove that version.
        """
        entry, shown = at
        versions = entry.versions if entry is not None else ()
        seen = frozenset(row.dots) if row is not None else frozenset()
        if any(version.dot in seen for version in versions):
            return False
        if value.kind == Kind.DIRECTORY:
            modes = [version for version in versions if version.kind == Kind.DIRECTORY]
            if (
                row is not None
                or entry is None
                or not (modes or (entry.subtree is not None and value.mode == DIRECTORY_MODE))
            ):
                return False
            equal = tuple(version for version in modes if value.matches(version))
            plan.rows[disk.name] = self._row(disk, entry.name, value, equal, None)
            plan.show |= len(equal) < len(modes)
            return True
        same = tuple(version for version in versions if value.matches(version))
        elsewhere = view.under_other_names(entry.name, disk.name) if same and entry is not None else NOTHING
        equal = tuple(version for version in same if version.dot not in elsewhere)
        if equal:
            plan.rows[disk.name] = self._row(disk, entry.name if entry else b"", value, equal, equal[0])
            plan.show |= shown is None or frozenset(shown.dots) != dots_of(equal)
            return True
        if row is None and entry is not None and not same and self._is_retained((*plan.path, entry.name), value):
            plan.rows[disk.name] = self._row(disk, entry.name, value, (), None)
            plan.show = True
            return True
        return False

    def _row(
        self, disk: DiskEntry, name: bytes, value: Value, versions: tuple[Version, ...], version: Version | None
    ) -> Row:
        return Row(
            name=disk.name,
            entry_name=name,
            kind=value.kind,
            dots=tuple(sorted(item.dot for item in versions)),
            content=value.content,
            mode=value.mode,
            size=version.size if version is not None else disk.size,
            mtime_ns=version.mtime_ns if version is not None else disk.mtime_ns,
            stat=self._work.trusted_stat(disk),
        )

    def _missing(self, plan: DirectoryPlan, view: _View, row: Row) -> Row | None:
        """A row without a file: a deletion to publish, to hide, or of something that is gone from the tree as well. The
        row that is left, if it is to be hidden.
        """
        if row.kind == Kind.DIRECTORY and not row.dots and row.hidden:
            return None
        edit = delete_edit(row.name, row, view.entry(row.entry_name))
        if edit is None:
            plan.show = plan.show or view.entry(row.entry_name) is not None
        elif self._work.settings.delete_orphaned:
            plan.edits.append(edit)
        else:
            if row.kind != Kind.DIRECTORY:
                if row.hidden:
                    self.hidden_before += 1
                else:
                    self.hidden.append(self._path(plan, row.entry_name))
            return replace(row, hidden=True, stat=None)
        return None

    # ---- what the disk will have to show

    def _shown_changes(self, plan: DirectoryPlan, view: _View, aside: list[Row]) -> list[Change]:
        """The changes on disk once the edits are published, as far as they are known before contents are read.

        Rows that are ``aside`` hide what they hid under the name that it has then.
        """
        rows = dict(plan.rows)
        replaced: dict[bytes, Entry | None] = {}
        for edit in plan.edits:
            entry = view.entry(edit.entry_name)
            version: Version | None = None
            if edit.disk is not None:
                version = placeholder(edit, self._device, self._seq)
            elif edit.kept is not None:
                version = rewritten(edit.kept, self._device, self._seq)
            subtree = entry.subtree if entry is not None else None
            after = edit_entry(entry, edit.entry_name, edit.supersede, version, subtree)
            if edit.winner is not None and after is not None:
                final = rewritten(edit.winner, self._device, self._seq + 1)
                gone = {item.dot for item in after.versions if item.same_value(final)} | {
                    version.dot if version else final.dot
                }
                after = edit_entry(after, edit.entry_name, gone, final, subtree)
            replaced[edit.entry_name] = after
            if edit.disk is not None and version is not None:
                value = Value(version.kind, version.content, version.mode)
                rows[edit.name] = self._row(edit.disk, edit.entry_name, value, (version,), version)
        shown = view.all_shown(replaced)
        for row in aside:
            for item in shown:
                if item.entry_name == row.entry_name and stays_hidden(row, item):
                    name = item.name.decode()
                    rows[name] = plan.rows[name] = replace(row, name=name)
        return changes_for(shown, rows, self.covers(plan.path))

    def covers(self, path: Path) -> Callable[[bytes, bool], bool]:
        """Whether names in a directory take part in this run."""
        prefix = b"".join(part + b"/" for part in path)
        filters = self._work.filters
        return lambda name, is_dir: filters.covers(prefix + name, is_dir)

    def _disk(self, plan: DirectoryPlan, name: str) -> str:
        return self._work.disk(f"{plan.disk_path}/{name}" if plan.disk_path else name)

    def _path(self, plan: DirectoryPlan, name: bytes) -> str:
        return os.fsdecode(b"/".join((*plan.path, name)))


class _View:
    """A directory of the tree, read name by name or, where much of it is needed, at once."""

    def __init__(
        self, nodes: NodeStore, subtree: Subtree | None, fold: Fold | None, hiding: Hiding, scanned: ScannedDirectory
    ) -> None:
        self._nodes = nodes
        self._scanned = scanned
        self._rows: dict[bytes, list[Row]] | None = None
        self._subtree = subtree
        self._fold = fold
        self._entries: dict[bytes, Entry] | None = None
        self._found: dict[bytes, Entry | None] = {}
        self._names: dict[bytes, Shown] | None = None
        self._path = split(scanned.path)
        self._hiding = hiding

    def load(self) -> dict[bytes, Entry]:
        """All entries by name."""
        if self._entries is None:
            listed: Iterable[Entry] = entries(self._nodes, self._subtree.id) if self._subtree is not None else ()
            self._entries = {entry.name: entry for entry in listed}
        return self._entries

    def entry(self, name: bytes) -> Entry | None:
        """The entry of this name."""
        if self._subtree is None:
            return None
        if self._entries is not None:
            return self._entries.get(name)
        if name not in self._found:
            self._found[name] = find(self._nodes, self._subtree.id, name)
        return self._found[name]

    def shown(self, disk_name: str, name: bytes) -> Shown | None:
        """What the tree shows under a name on disk."""
        on_disk = os.fsencode(disk_name)
        entry = self.entry(name)
        if entry is not None and self._fold is None:
            here = project_directory(self._hiding.shown(self._path, [entry]))
            return next((item for item in here if item.name in (on_disk, name)), None)
        if not may_be_copy(on_disk) and self._fold is None:
            return None
        if self._names is None:
            self._names = {item.name: item for item in self.all_shown({})}
        return self._names.get(on_disk)

    def under_other_names(self, entry_name: bytes, name: str) -> frozenset[Dot]:
        """The versions of an entry that this directory's rows, as they were before this run, have under other names."""
        if self._rows is None:
            self._rows = {}
            for row in self.rows_before():
                self._rows.setdefault(row.entry_name, []).append(row)
        return frozenset(dot for row in self._rows.get(entry_name, ()) if row.name != name for dot in row.dots)

    def rows_before(self) -> Iterator[Row]:
        """The rows of the directory as the scan found them."""
        yield from self._scanned.unchanged.values()
        yield from (row for _, row in self._scanned.changed if row is not None)
        yield from self._scanned.missing
        yield from self._scanned.hidden
        yield from self._scanned.outside.values()

    def all_shown(self, replaced: dict[bytes, Entry | None]) -> list[Shown]:
        """What the whole directory shows, with some entries replaced."""
        present = dict(self.load())
        for name, entry in replaced.items():
            if entry is None:
                present.pop(name, None)
            else:
                present[name] = entry
        listed = (present[name] for name in sorted(present))
        return project_directory(self._hiding.shown(self._path, listed), self._fold)


def _gives_way(change: Change, changes: list[Change]) -> bool:
    """Whether a directory takes the name of a file or link that is kept under another."""
    row, shown = change.row, change.shown
    if row is None or row.hidden or row.kind == Kind.DIRECTORY or shown is None or shown.kind != Kind.DIRECTORY:
        return False
    return any(one.shown is not None and not one.shown.dots.isdisjoint(row.dots) for one in changes)


def _one_per_name(plan: DirectoryPlan, view: _View) -> None:
    """One edit per entry, as a record writes one version per path: deletions of both sides of a conflict join, a write
    takes in a deletion.

    Of several writes (a file and its conflict copy, both edited) all but the first wait for the next commit.
    """
    kept: dict[bytes, Edit] = {}
    for edit in sorted(plan.edits, key=lambda edit: (edit.entry_name, edit.disk is None, edit.name)):
        first = kept.get(edit.entry_name)
        if first is None:
            kept[edit.entry_name] = edit
        elif edit.disk is not None:
            plan.later.append(edit)
            if edit.row is not None:
                plan.rows[edit.row.name] = edit.row
        elif edit.row is not None:
            if first.disk is None and first.row is not None:
                both = replace(first.row, dots=(*first.row.dots, *edit.row.dots))
                kept[edit.entry_name] = delete_edit(first.name, both, view.entry(edit.entry_name)) or first
            else:
                first.supersede |= frozenset(edit.row.dots)
    plan.edits = list(kept.values())


def _stands_for_nothing(row: Row) -> bool:
    """A file that a run announced to go: what lies in its place now, if it is not that file, is new."""
    return not row.dots and row.kind != Kind.DIRECTORY
