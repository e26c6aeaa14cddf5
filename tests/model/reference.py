"""The reference model: what devices, their disks and the folder must be after any history, in plain values.

It follows `specs/merge.md` and shares nothing with the engine. A folder is a set of records, each of which adds
versions to paths and supersedes others; a state is a fold over any downward closed set of them. A device is its rows
(what it shows, and which versions that stands for) beside its disk. `Sync.expect` says what one sync must publish
and leave on the disk:

- I1: everything published is what was on some disk, and stays readable (`tests/model/bucket.py` reads it).
- I3: devices of one scope that sync in turn show the same.
- I4: what was written is live, a sibling, or superseded by a write that had seen it; it is in the history once it was
published. - I5: what was deleted and published does not come back. - I6: what a sync removes from a disk is in the
history or in the trash, and what its scope leaves out stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

Dot = tuple[bytes, int]
"""(device, seq)"""
Knowledge = Mapping[bytes, int]


class Value(NamedTuple):
    """What users see of a version: kind is ``f``ile, ``l``ink or ``d``irectory."""

    kind: str
    data: bytes
    mode: int


class Version(NamedTuple):
    """A value and the time that orders it among siblings."""

    value: Value
    mtime_ns: int


Tree = dict[str, dict[Dot, Version]]
Disk = dict[str, Version]


@dataclass(frozen=True)
class Shown:
    """One name of the projection: ``entry`` is the path whose versions it shows."""

    entry: str
    dots: frozenset[Dot]
    value: Value
    mtime_ns: int


@dataclass(frozen=True)
class Row:
    """What a device believes to show under a name."""

    entry: str
    dots: frozenset[Dot]
    value: Value
    hidden: bool = False


@dataclass
class Edit:
    """What a record does to one path: drops dots, adds a version; a second record supersedes it by ``reinstate``."""

    drops: set[Dot]
    adds: Version | None = None
    name: str | None = None
    """The name on disk that was written; None for a deletion."""
    reinstate: Version | None = None


@dataclass(frozen=True)
class Record:
    """A published record: by path what it drops and adds."""

    drops: dict[str, frozenset[Dot]]
    adds: dict[str, Version]


@dataclass
class Device:
    """A device's memory, apart from its disk."""

    rows: dict[str, Row] = field(default_factory=dict)
    pending: tuple[Dot, dict[str, Row]] | None = None
    """A record that was finished and not acknowledged, and the rows that follow from it."""
    tentative: dict[str, tuple[Version, Row | None]] = field(default_factory=dict)
    """What a run put in place before it was cut off, and the row before it, which stands if a user has changed the file
    since.
    """

    def recall(self, disk: Disk) -> None:
        """Decide what became of files that a run had put in place before it was cut off."""
        for name, (placed, row) in list(self.tentative.items()):
            if disk.get(name) != placed:
                del self.tentative[name]
                self.rows.pop(name, None)
                if row is not None:
                    self.rows[name] = row


@dataclass(frozen=True)
class Run:
    """How a sync is run."""

    policy: str
    delete_orphaned: bool
    paths: tuple[str, ...] | None = None
    exclude: str | None = None

    def covers(self, path: str, directory: bool) -> bool:
        """Whether the scope lets a path in."""
        if self.paths is not None and not any(path == one or path.startswith(f"{one}/") for one in self.paths):
            return False
        forms = (path, f"{path}/") if directory else (path,)
        return self.exclude is None or not any(re.search(self.exclude, form) for form in forms)


@dataclass
class Expected:
    """What a sync does if nothing fails: records in order, the rows after each, and rows and disk at the end.

    Of a sync that publishes nothing ``stages`` has one element: the rows as they are before the disk is changed.
    """

    records: list[Record]
    stages: list[dict[str, Row]]
    rows: dict[str, Row]
    disk: Disk
    failed: set[str] = field(default_factory=set)
    """Names that cannot be shown as something else is in the way."""
    blocked: set[str] = field(default_factory=set)
    """What is in the way and takes no part in the run."""


def parent(path: str) -> str:
    """The directory of a path; the top is empty."""
    return path.rpartition("/")[0]


# ---- the folder


class Folder:
    """All records, by dot."""

    def __init__(self) -> None:
        self.records: dict[Dot, Record] = {}

    def state(self, known: Knowledge) -> Tree:
        """The merge of all records that this knowledge includes: what they added and none of them superseded."""
        chosen = [(dot, record) for dot, record in self.records.items() if known.get(dot[0], 0) >= dot[1]]
        gone = {(path, dot) for _, record in chosen for path, dots in record.drops.items() for dot in dots}
        tree: Tree = {}
        for dot, record in chosen:
            for path, version in record.adds.items():
                if (path, dot) not in gone:
                    tree.setdefault(path, {})[dot] = version
        return tree

    def held(self, known: Knowledge, path: str, value: Value) -> bool:
        """Whether some record ever held this value at this path."""
        return any(
            path in record.adds and record.adds[path].value == value
            for dot, record in self.records.items()
            if known.get(dot[0], 0) >= dot[1]
        )


def apply(tree: Tree, record: Record, dot: Dot) -> Tree:
    """A tree after a record."""
    after = {path: dict(versions) for path, versions in tree.items()}
    for path, dots in record.drops.items():
        for one in dots:
            after.get(path, {}).pop(one, None)
    for path, version in record.adds.items():
        after.setdefault(path, {})[dot] = version
    return {path: versions for path, versions in after.items() if versions}


# ---- what is shown


def _directories(tree: Tree) -> dict[str, set[str]]:
    """The paths in each directory."""
    children: dict[str, set[str]] = {"": set()}
    for path in tree:
        while path:
            children.setdefault(parent(path), set()).add(path)
            path = parent(path)
    return children


def project(tree: Tree, without: Container[str] = ()) -> dict[str, Shown]:
    """What every device shows of a tree, by path on disk. ``without``: paths that are no directories on this one."""
    children = _directories(tree)
    shown: dict[str, Shown] = {}
    for where in sorted(children):
        listed = sorted(path for path in children[where] if path in tree or path not in without)
        for path in listed:
            below = path in children and path not in without
            for name, item in _project_entry(path, tree.get(path, {}), below, {*listed, *shown}):
                shown[name] = item
    return shown


def _displaces(present: Version, name: str, row: Row) -> bool:
    """Whether a directory lies in the place of a conflict copy."""
    return present.value.kind == "d" and row.value.kind != "d" and row.entry != name


def _project_entry(
    path: str, versions: dict[Dot, Version], below: bool, taken: Iterable[str]
) -> Iterable[tuple[str, Shown]]:
    ordered = sorted(versions, key=lambda dot: (versions[dot].mtime_ns, *dot), reverse=True)
    directory = [dot for dot in ordered if versions[dot].value.kind == "d"]
    groups: dict[Value, list[Dot]] = {}
    for dot in ordered:
        if dot not in directory:
            groups.setdefault(versions[dot].value, []).append(dot)
    items = [Shown(path, frozenset(dots), value, versions[dots[0]].mtime_ns) for value, dots in groups.items()]
    if directory or below:
        value = versions[directory[0]].value if directory else Value("d", b"", 0o755)
        yield path, Shown(path, frozenset(directory), value, 0)
    else:
        yield path, items.pop(0)
    used = set(taken)
    for item in items:
        dot = max(item.dots, key=lambda one: (versions[one].mtime_ns, *one))
        name = _copy_name(path, dot, used)
        used.add(name)
        yield name, item


def _copy_name(path: str, dot: Dot, used: set[str]) -> str:
    where, _, name = path.rpartition("/")
    at = name.rfind(".")
    stem, extension = (name[:at], name[at:]) if at > 0 and len(name) - at <= 32 else (name, "")
    for number in range(1, 1000):
        label = f"{stem} (conflict {dot[0][:3].hex()} {dot[1]}{f' {number}' if number > 1 else ''}){extension}"
        full = f"{where}/{label}" if where else label
        if full not in used:
            return full
    raise AssertionError("names never end")


# ---- a sync


class Sync:
    """What one sync of a device must do. ``device`` and ``seq`` are the id and the number of its first record with
    edits.
    """

    def __init__(self, folder: Folder, known: Knowledge, device: bytes, seq: int, run: Run) -> None:
        self._folder = folder
        self._known = known
        self._dot = (device, seq)
        self._run = run

    def expect(self, rows: dict[str, Row], disk: Disk, tie: Callable[[Value], bytes]) -> Expected:
        """The outcome, from the rows and the disk before it. ``tie`` orders contents of equal time."""
        tree = self._folder.state(self._known)
        self._before = disk
        self._hidden = [
            row
            for name, row in rows.items()
            if (name not in disk or _displaces(disk[name], name, row))
            and (row.hidden or self._covers(row.entry, row.value.kind))
        ]
        rows = dict(rows)
        device, seq = self._dot
        records: list[Record] = []
        stages: list[dict[str, Row]] = []
        losers: dict[str, tuple[set[Dot], Version]] = {}
        self._aside: list[Row] = []
        turns = self._edits(tree, rows, disk, tie)
        if not turns:
            self._name_aside(tree, rows)
        while turns:
            dot = (device, seq + len(records))
            edits = {path: edits.pop(0) for path, edits in turns.items()}
            turns = {path: edits for path, edits in turns.items() if edits}
            for path, edit in edits.items():
                if edit.name is not None and edit.adds is not None:
                    rows[edit.name] = Row(path, frozenset([dot]), edit.adds.value)
                if edit.reinstate is not None:
                    losers.setdefault(path, (set(), edit.reinstate))[0].add(dot)
            records.append(
                Record(
                    {path: frozenset(edit.drops) for path, edit in edits.items()},
                    {path: edit.adds for path, edit in edits.items() if edit.adds is not None},
                )
            )
            tree = apply(tree, records[-1], dot)
            self._name_aside(tree, rows)
            stages.append(dict(rows))
        if losers:
            records.append(self._reinstate(tree, losers))
            stages.append(dict(rows))
            tree = apply(tree, records[-1], (device, seq + len(records) - 1))
        result = Expected(records, stages or [dict(rows)], rows, dict(disk))
        self._materialise(self._project(tree), result)
        return result

    def _name_aside(self, tree: Tree, rows: dict[str, Row]) -> None:
        """Rows whose names others have taken hide what they hid under the names that it has now."""
        for row in self._aside:
            for name, item in self._project(tree).items():
                if item.entry == row.entry and self._stays_hidden(row, item):
                    rows[name] = row
        self._aside = []

    def _covers(self, entry: str, kind: str) -> bool:
        return self._run.covers(entry, kind == "d")

    def _project(self, tree: Tree) -> dict[str, Shown]:
        """What this device shows: a directory is none if it only exists for what is in it and all of that is hidden."""
        children = _directories(tree)
        filled: set[str] = set()
        without: set[str] = set()
        for path in sorted(children.keys() - {""}, reverse=True):
            if any(one in filled or self._shows(one, tree.get(one, {}), one in children) for one in children[path]):
                filled.add(path)
            elif (
                all(version.value.kind != "d" for version in tree.get(path, {}).values())
                and (path not in self._before or self._before[path].value.kind != "d")
                and any(row.entry.startswith(f"{path}/") for row in self._hidden)
            ):
                without.add(path)
        return project(tree, without)

    def _shows(self, path: str, versions: dict[Dot, Version], below: bool) -> bool:
        """Whether a version of a path is to be seen here."""
        return any(
            item.dots
            and self._covers(path, item.value.kind)
            and not any(row.entry == path and self._stays_hidden(row, item) for row in self._hidden)
            for _, item in _project_entry(path, versions, below, ())
        )

    # -- local changes

    def _edits(
        self, tree: Tree, rows: dict[str, Row], disk: Disk, tie: Callable[[Value], bytes]
    ) -> dict[str, list[Edit]]:
        shown = self._project(tree)
        before = dict(rows)
        displaced: dict[str, Row] = {}
        taken: set[str] = set()
        changed: list[tuple[str, str, Row | None]] = []
        writes: dict[str, list[Edit]] = {}
        deletions: dict[str, Edit] = {}
        for name in sorted(disk):
            row, version = rows.get(name), disk[name]
            entry = row.entry if row is not None else shown[name].entry if name in shown else name
            if version.value.kind == "d" and entry != name and (row or shown[name]).value.kind != "d":
                entry = name  # a directory in the place of a conflict copy is another thing
                if row is not None:
                    displaced[name], row = row, None
            if not self._covers(row.entry if row is not None else name, version.value.kind):
                continue
            if row is not None and row.value == version.value:
                rows[name] = replace(row, hidden=False)
                continue
            if row is not None and not row.dots and row.value.kind != "d":
                row = rows.pop(name) and None  # that file was to go, or to be replaced: this is something else
            if name in displaced:
                taken.add(name)
                del rows[name]
            versions, below = tree.get(entry, {}), any(other.startswith(f"{entry}/") for other in tree)
            others = (one for other, one in before.items() if other != name and one.entry == entry)
            elsewhere = {dot for one in others for dot in one.dots}
            if self._adopts(rows, name, entry, versions, version.value, below, elsewhere):
                continue
            changed.append((entry, name, row))
        seen: dict[str, set[Dot]] = {}
        for row in (*before.values(), *rows.values()):
            seen.setdefault(row.entry, set()).update(row.dots)
        for entry, name, present in changed:
            edit = self._write(present, entry, name, disk[name], tree.get(entry, {}), seen.get(entry, set()), tie)
            writes.setdefault(entry, []).append(edit)  # a file and its conflict copy may both be written
        for name in sorted(rows.keys() - disk.keys() | displaced.keys()):
            row = displaced[name] if name in displaced else rows[name]
            if not self._covers(row.entry, row.value.kind):
                self._aside += [row] if name in taken else []
                continue
            gone = row.dots & tree.get(row.entry, {}).keys()
            if name not in taken and (gone or not (row.hidden and row.value.kind == "d")):
                del rows[name]
            if gone and not self._run.delete_orphaned:
                if name in taken:
                    self._aside.append(replace(row, hidden=True))
                else:
                    rows[name] = replace(row, hidden=True)
            elif gone:
                deletions.setdefault(row.entry, Edit(set())).drops |= gone
        for entry, edit in deletions.items():
            if entry in writes:
                writes[entry][0].drops |= edit.drops
            else:
                writes[entry] = [self._choose(edit, tree[entry])]
        return writes

    def _choose(self, edit: Edit, versions: dict[Dot, Version]) -> Edit:
        """Deleting one side of a conflict chooses another, which is written anew."""
        left = versions.keys() - edit.drops
        if left:
            kept = max(left, key=lambda dot: (versions[dot].mtime_ns, *dot))
            edit.adds = versions[kept]
            edit.drops |= {dot for dot in left if versions[dot].value == versions[kept].value}
        return edit

    def _adopts(
        self,
        rows: dict[str, Row],
        name: str,
        entry: str,
        versions: dict[Dot, Version],
        value: Value,
        below: bool,
        elsewhere: set[Dot],
    ) -> bool:
        """Whether what is on disk is a version that the folder has or had there, and no edit; none of another name."""
        row = rows.get(name)
        if row is not None and row.dots & versions.keys():
            return False
        if value.kind == "d":
            modes = {dot for dot, version in versions.items() if version.value.kind == "d"}
            if row is not None or not (modes or (below and value.mode == 0o755)):
                return False
            rows[name] = Row(entry, frozenset(dot for dot in modes if versions[dot].value == value), value)
            return True
        same = {dot for dot, version in versions.items() if version.value == value}
        equal = frozenset(same - elsewhere)
        if equal or (row is None and not same and (versions or below) and self._folder.held(self._known, entry, value)):
            rows[name] = Row(entry, equal, value)
            return True
        return False

    def _write(
        self,
        row: Row | None,
        entry: str,
        name: str,
        version: Version,
        versions: dict[Dot, Version],
        seen: set[Dot],
        tie: Callable[[Value], bytes],
    ) -> Edit:
        drops = set(row.dots) & versions.keys() if row is not None else set()
        if version.value.kind == "d":
            directories = {dot for dot, one in versions.items() if one.value.kind == "d"}
            return Edit(drops | directories, Version(version.value, 0), name)
        edit = Edit(drops, version, name)
        unseen = [dot for dot in versions.keys() - seen if versions[dot].value.kind != "d"]
        if row is None or not unseen or any(versions[dot].value == version.value for dot in unseen):
            return edit
        newest = versions[max(unseen, key=lambda dot: (versions[dot].mtime_ns, *dot))]
        order = (version.mtime_ns, tie(version.value)) > (newest.mtime_ns, tie(newest.value))
        policy = self._run.policy
        bare = {(one.kind, one.data) for one in (row.value, version.value)}  # one: only the mode was changed
        beaten = len(bare) == 1 and (newest.value.kind, newest.value.data) not in bare
        if not beaten and (policy == "local_wins" or (policy == "newest_wins" and order)):
            edit.drops |= set(unseen)
        elif policy != "ask":
            edit.reinstate = newest
        return edit

    @staticmethod
    def _reinstate(tree: Tree, losers: dict[str, tuple[set[Dot], Version]]) -> Record:
        """The policy was against these edits: now that they are in the history the others' versions supersede them."""
        drops = {
            path: frozenset(lost | {dot for dot, version in tree[path].items() if version.value == winner.value})
            for path, (lost, winner) in losers.items()
        }
        return Record(drops, {path: winner for path, (_, winner) in losers.items()})

    # -- what the disk shows

    def _materialise(self, shown: dict[str, Shown], result: Expected) -> None:
        rows, disk = result.rows, result.disk
        hidden = [row for row in rows.values() if row.hidden and row.dots and row.value.kind != "d"]
        wanted = {name: item for name, item in shown.items() if self._covers(item.entry, item.value.kind)}
        wanted = {name: item for name, item in wanted.items() if not self._is_blocked(name, item, result)}
        for name in sorted(rows.keys() - shown.keys(), reverse=True):
            row = rows[name]
            if not self._covers(row.entry, row.value.kind):
                continue
            self._remove(name, row, result)
        replaced = []
        for name, item in sorted(wanted.items(), reverse=True):
            present = rows.get(name)
            if present is not None and not present.hidden and (present.value.kind == "d") != (item.value.kind == "d"):
                replaced.append(name)
                self._remove(name, present, result)
        for name, item in sorted(wanted.items()):
            present = rows.get(name)
            if present is not None and present.hidden and name not in replaced:
                if self._stays_hidden(present, item):
                    continue
                present = None
            before = [row for row in hidden if row.entry == item.entry and self._stays_hidden(row, item)]
            if before and present is None and name not in replaced:
                rows[name] = replace(before[0], dots=item.dots)  # others took the name that it had
                continue
            if (
                name in disk
                and (present is None or present.hidden)
                and not (disk[name].value.kind == item.value.kind == "d")
            ):
                result.failed.add(name)
                continue
            above = parent(name)
            if not self._make_parents(above, shown, result):
                result.failed.add(name)
                continue
            if present is not None and present.value != disk[name].value:
                result.failed.add(name)  # written by its user, and it waits for the next sync
                continue
            rows[name] = Row(item.entry, item.dots, item.value)
            if present is None or (present.value != item.value and present.dots != item.dots):
                disk[name] = Version(item.value, item.mtime_ns)
            elif present.dots == item.dots:
                rows[name] = present
            else:
                rows[name] = replace(present, entry=item.entry, dots=item.dots)

    def _is_blocked(self, name: str, item: Shown, result: Expected) -> bool:
        """Whether something that the run leaves out lies at a name, or in place of a directory above it."""
        row = result.rows.get(name)
        if any(
            one.entry == item.entry and one.hidden and self._stays_hidden(one, item) for one in result.rows.values()
        ):
            return False
        if row is not None and not row.hidden and row.value.kind == item.value.kind:
            return False
        for path in (name[:at] for at in range(1, len(name) + 1) if name[at : at + 1] in ("", "/")):
            present, kind = self._before.get(path), item.value.kind if path == name else "d"
            if present is None:
                return False
            if not present.value.kind == kind == "d" and not self._covers(path, present.value.kind):
                result.blocked.add(path)
                return True
        return False

    @staticmethod
    def _stays_hidden(row: Row, item: Shown) -> bool:
        directory = row.value.kind == "d"
        return directory == (item.value.kind == "d") and (item.dots <= row.dots or (directory and not row.dots))

    def _remove(self, name: str, row: Row, result: Expected) -> None:
        rows, disk = result.rows, result.disk
        if name not in disk:
            rows.pop(name, None)
        elif row.value.kind == "d" and any(other.startswith(f"{name}/") for other in disk):
            rows[name] = replace(row, dots=frozenset(), hidden=True)
        elif disk[name].value != row.value:
            result.failed.add(name)
        else:
            rows.pop(name, None)
            del disk[name]

    def _make_parents(self, path: str, shown: dict[str, Shown], result: Expected) -> bool:
        """Directories on the way are made as the folder has them, whether or not the run covers them."""
        missing = []
        while path and path not in result.disk:
            missing.append(path)
            path = parent(path)
        if path and result.disk[path].value.kind != "d":
            return False
        for one in missing:
            item = shown[one]
            result.disk[one] = Version(item.value, 0)
            result.rows[one] = Row(item.entry, item.dots, item.value)
        return True
