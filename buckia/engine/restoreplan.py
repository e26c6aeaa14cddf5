"""What a restore has to do: a tree, or some paths of it, compared with what is at the target. Nothing is changed here.

What is there is recognised by its content; in a restore in place, also by the rows of the local state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from buckia.core.chunker import CHUNK_MIN, Kernel
from buckia.core.directory import Path, entries
from buckia.core.ids import BlobId, BlobType, Buffer, blob_id
from buckia.core.manifest import Content, FileContent, Kind, Subtree, Version
from buckia.core.merkle import NodeStore
from buckia.core.projection import Fold, Shown, project_directory
from buckia.engine.capture import Capture, Captured
from buckia.engine.compare import PERMISSIONS
from buckia.engine.context import Progress
from buckia.engine.fetch import LocalSources
from buckia.engine.history import to_path
from buckia.engine.work import Executor, in_order
from buckia.errors import FormatError, IntegrityError, LocalError, NotFoundError
from buckia.events import Failure
from buckia.local.folder import is_leftover
from buckia.local.fs import DIRECTORY, SYMLINK, DiskEntry, FileSystem, Stat
from buckia.local.paths import (
    TEMPORARY,
    Platform,
    bucket_name,
    fold_for,
    link_problem,
    name_problem,
    ours,
    path_problem,
)
from buckia.local.state import Row
from buckia.store.repository import Repository

_CHANGED = "it changed since the last sync and was left alone"

Rows = Callable[[bytes], Mapping[str, Row]]
"""What a local state says of a directory of the folder: rows by name on disk."""


@dataclass(slots=True)
class Site:
    """Where to restore: an absolute path, its disk, and what the work is done with.

    ``token`` is random and names temporary files, ``when`` names this run's trash. ``rows`` is for a restore in place,
    after a sync: then only what is as its row says is replaced or removed, and nothing without a row is extra.
    """

    files: FileSystem
    target: str
    executor: Executor
    kernel: Kernel
    token: str
    when: str
    progress: Progress = field(default_factory=Progress)
    rows: Rows | None = None
    coming: Callable[[str], Mapping[str, DiskEntry | None]] | None = None
    """For a dry run in place: what the sync before it changes in a directory on disk; None: a name goes."""
    now_ns: int = 0
    """When the restore began: temporary files of others that nobody has touched for long are removed."""

    def disk(self, relative: str) -> str:
        """The absolute path of something below the target; ``""`` is the target."""
        return f"{self.target}/{relative}" if relative else self.target


@dataclass(slots=True)
class Item:
    """A file or link of the tree. ``present`` is what is in its place; ``inside`` what is in that, if a directory."""

    directory: str
    path: str
    version: Version
    present: DiskEntry | None = None
    row: Row | None = None
    inside: list[Found] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that it takes on disk."""
        return self.version.size if self.version.kind == Kind.FILE else 0


@dataclass(slots=True)
class Directory:
    """A directory that shall be there. ``mode`` None: as it is; ``present`` may be a file or link in its place."""

    path: str
    mode: int | None
    present: DiskEntry | None = None

    @property
    def exists(self) -> bool:
        """It is there."""
        return self.present is not None and self.present.kind == DIRECTORY


@dataclass(frozen=True, slots=True)
class Found:
    """Something at the target that the snapshot does not hold. ``stat`` None: a directory; it comes before its own."""

    path: str
    stat: Stat | None


@dataclass(slots=True)
class RestorePlan:
    """What is to be done, in the order of the fields but for the modes of directories, which come last."""

    leftovers: list[tuple[str, list[str]]] = field(default_factory=list)
    """Temporary files of runs that were cut off, by directory."""
    directories: list[Directory] = field(default_factory=list)
    """Each before those in it."""
    attributes: list[Item] = field(default_factory=list)
    """Files of which only mode or time differ."""
    writes: list[Item] = field(default_factory=list)
    extra: list[Found] = field(default_factory=list)
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)
    sources: LocalSources = field(default_factory=LocalSources)


@dataclass(frozen=True, slots=True)
class _Visit:
    """A directory of the tree to look at; ``selected``: all of it is wanted."""

    path: Path
    disk_path: str
    tree: Subtree
    exists: bool
    selected: bool


class _Selection:
    """Which paths are wanted, by component; ``missing`` are those that were not met yet."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._wanted = {to_path(text): text for text in paths}
        self.everything = not self._wanted or () in self._wanted
        self._above = {path[:depth] for path in self._wanted for depth in range(len(path))}
        self.missing = {} if self.everything else dict(self._wanted)

    def meets(self, path: Path, shown: Shown) -> bool:
        """Whether a name is selected: by the entry's, or a conflict copy by its own."""
        names = {(*path, shown.entry_name), (*path, shown.name)} & self._wanted.keys()
        for name in names:
            self.missing.pop(name, None)
        return bool(names)

    def leads_on(self, path: Path) -> bool:
        """Whether something below a directory is selected."""
        return path in self._above

    def forget(self, path: Path) -> None:
        """What is below a path cannot be known, so nothing there is missing."""
        for name in [name for name in self.missing if name[: len(path)] == path]:
            del self.missing[name]


class _Sink:
    """Takes what is read from the target's files. Chunk lists are kept, so that the files' chunks can be found."""

    failure: BaseException | None = None

    def __init__(self, nodes: NodeStore) -> None:
        self._nodes = nodes

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        """A node."""
        return self._nodes.get(kind, id)

    def put(self, kind: BlobType, raw: Buffer) -> BlobId:
        """The id of a blob."""
        return blob_id(kind, raw) if kind == BlobType.CHUNK else self._nodes.put(kind, bytes(raw))


class RestorePlanner:
    """Makes the plan for one tree. ``paths`` select, none stands for everything."""

    def __init__(self, repository: Repository, site: Site, paths: Iterable[str]) -> None:
        self._repo = repository
        self._site = site
        self._selection = _Selection(paths)
        self._plan = RestorePlan()
        self._platform = Platform.current()
        self._fold: Fold | None = None
        self._capture = Capture(site.files, _Sink(repository.nodes), site.kernel, None)
        self._unsure: list[Item] = []

    def run(self, tree: Subtree, base: str) -> RestorePlan:
        """The plan. ``base`` is the target or, if there is none yet, the directory above it that exists.

        Raises NotFoundError for selected paths that the tree does not hold, and errors of the tree's own root.
        """
        exists = base == self._site.target
        self._fold = fold_for(self._platform, case_insensitive=self._site.files.case_insensitive(base))
        pending = [_Visit((), "", tree, exists, self._selection.everything)]
        while pending:
            pending += reversed(self._visit(pending.pop()))
        for text in self._selection.missing.values():
            raise NotFoundError(f"There is no “{text}” in this snapshot.", hint="`buckia ls` shows what is there.")
        read = in_order(self._site.executor, self._read, (item.path for item in self._unsure))
        for item, captured in zip(self._unsure, read, strict=True):
            self._settle(item, captured)
        return self._plan

    # ---- one directory

    def _visit(self, visit: _Visit) -> list[_Visit]:
        """What is to be done with the names in a directory; the directories in it to go on with."""
        try:
            listed = list(entries(self._repo.nodes, visit.tree.id))
            rows = self._rows(visit.path)
            disk = self._scan(visit)
        except (IntegrityError, FormatError, LocalError) as error:
            if not visit.path:
                raise
            self._selection.forget(visit.path)
            self._fail(visit.disk_path, error.message)
            return []
        subtrees = {entry.name: entry.subtree for entry in listed}
        own_names = {row.entry_name: row.name for row in rows.values() if bucket_name(row.name) == row.entry_name}
        below: list[_Visit] = []
        for shown in project_directory(listed, self._fold):
            name = own_names.get(shown.name, shown.name.decode())
            present = disk.pop(self._folded(name), None)
            selected = self._selection.meets(visit.path, shown) or visit.selected
            here = (*visit.path, shown.entry_name)
            if not selected and not (shown.kind == Kind.DIRECTORY and self._selection.leads_on(here)):
                continue
            path = _join(visit.disk_path, name)
            problem = refusal(visit.path, shown, self._platform)
            if problem is not None:
                self._selection.forget(here)
                self._fail(path, f"it is not written here: {problem}")
            elif shown.kind == Kind.DIRECTORY:
                subtree = subtrees[shown.entry_name]
                directory = self._directory(path, shown, present, rows.get(name), selected)
                if directory is not None and subtree is not None:
                    below.append(_Visit(here, path, subtree, directory.exists, selected))
                elif directory is not None and directory.exists:
                    self._plan.extra += self._besides(path, here, self._listed(path))
            else:
                self._file(Item(visit.disk_path, path, shown.versions[0], present, rows.get(name)), here)
        if visit.selected:
            self._plan.extra += self._besides(visit.disk_path, visit.path, disk.values())
        return below

    def _rows(self, path: Path) -> Mapping[str, Row]:
        return {} if self._site.rows is None else self._site.rows(b"/".join(path))

    def _scan(self, visit: _Visit) -> dict[str, DiskEntry]:
        """What is at the place of a directory, by folded name, but for what is ours."""
        found: dict[str, DiskEntry] = {}
        leftovers: list[str] = []
        for entry in self._entries(visit.disk_path) if visit.exists else ():
            if entry.name.startswith(TEMPORARY):
                if is_leftover(entry, self._site.token, self._site.now_ns):
                    leftovers.append(entry.name)
            elif not ours(entry.name, top=not visit.path):
                found[self._folded(entry.name)] = entry
        if leftovers:
            self._plan.leftovers.append((visit.disk_path, leftovers))
        return found

    def _entries(self, directory: str) -> list[DiskEntry]:
        """What is in a directory, or will be. Raises LocalError."""
        coming = {} if self._site.coming is None else self._site.coming(directory)
        try:
            found = [DiskEntry(*raw) for raw in self._site.files.scan(self._site.disk(directory))]
        except LocalError:
            if self._site.coming is None or self._site.files.stat(self._site.disk(directory)) is not None:
                raise
            found = []  # the sync makes it
        entries = [entry for entry in found if entry.name not in coming]
        return entries + [entry for entry in coming.values() if entry is not None]

    def _folded(self, name: str) -> str:
        return name if self._fold is None else str(self._fold(name.encode("utf-8", "surrogateescape")))

    def _fail(self, path: str, reason: str) -> None:
        self._plan.failures.append(Failure(path, reason))

    def _directory(
        self, path: str, shown: Shown, present: DiskEntry | None, row: Row | None, selected: bool
    ) -> Directory | None:
        """A directory to be there; None if something is in its place that must stay.

        One that only leads to what is selected keeps its mode if it is there.
        """
        planned = Directory(path, shown.mode & PERMISSIONS, present)
        if planned.exists and not selected:
            planned.mode = None
        elif present is not None and not planned.exists and not self._is_captured(path, present, row):
            self._fail(path, _CHANGED)
            return None
        self._plan.directories.append(planned)
        return planned

    def _file(self, item: Item, path: Path) -> None:
        present, row = item.present, item.row
        if present is None:
            self._plan.writes.append(item)
        elif present.kind == DIRECTORY:
            item.inside = [Found(item.path, None), *self._besides(item.path, path, self._listed(item.path))]
            self._plan.writes.append(item)
        elif row is not None and row.stat == present.stat:
            self._decide(item, row.content, present)
        elif self._site.rows is not None or _may_share(item, present):
            self._unsure.append(item)
        else:
            self._plan.writes.append(item)

    # ---- what is there, by content

    def _read(self, path: str) -> Captured | None:
        """What is at a path; None where it cannot be read."""
        try:
            return self._capture.read(self._site.disk(path), path)
        except LocalError:
            return None

    def _settle(self, item: Item, captured: Captured | None) -> None:
        """Decide about a file that had to be read. In place, one that is not as its row says is only left or equal."""
        row = item.row
        if captured is not None:
            item.present = captured.disk
            as_row = row is not None and (row.kind, row.content) == (captured.value.kind, captured.value.content)
            equal = (item.version.kind, item.version.content) == (captured.value.kind, captured.value.content)
            if self._site.rows is None or as_row or equal:
                self._decide(item, captured.value.content, captured.disk)
                return
        if self._site.rows is not None:
            self._fail(item.path, _CHANGED)
        else:
            self._plan.writes.append(item)

    def _decide(self, item: Item, content: Content, present: DiskEntry) -> None:
        """Compare an item with the content of what is in its place, which may be used as a source too."""
        version, sources = item.version, self._plan.sources
        if isinstance(content, FileContent) and present.size:
            sources.contents.setdefault(content.id, item.path)
            if content.depth:
                sources.previous[item.path] = (content, present.size)
        if (present.kind, content) != (version.kind, version.content):
            self._plan.writes.append(item)
            return
        self._plan.unchanged += 1
        other_mode = version.kind == Kind.FILE and present.mode != version.mode & PERMISSIONS
        if other_mode or present.mtime_ns != version.mtime_ns:
            self._plan.attributes.append(item)

    def _is_captured(self, path: str, present: DiskEntry, row: Row | None) -> bool:
        """Whether what is there may go: in a restore in place it must be what its row says."""
        if self._site.rows is None:
            return True
        if row is None or row.hidden or row.kind != present.kind:
            return False
        if row.stat is not None:
            return row.stat == present.stat
        captured = self._read(path)
        return captured is not None and captured.value.content == row.content and captured.disk.stat == present.stat

    # ---- what is there besides

    def _besides(self, directory: str, path: Path, listed: Iterable[DiskEntry]) -> list[Found]:
        """What is in a directory on disk and may go, with all that is below. In place: as far as it has rows."""
        found: list[Found] = []
        pending = [(directory, path, [*listed])]
        while pending:
            here, folder_path, present = pending.pop()
            rows = self._rows(folder_path) if present else {}
            for entry in present:
                row, where = rows.get(entry.name), _join(here, entry.name)
                unknown = self._site.rows is not None and (row is None or row.hidden)
                if unknown or ours(entry.name, top=not folder_path):
                    continue
                if entry.kind == DIRECTORY:
                    name = row.entry_name if row is not None else entry.name.encode("utf-8", "surrogateescape")
                    found.append(Found(where, None))
                    pending.append((where, (*folder_path, name), self._listed(where)))
                elif self._is_captured(where, entry, row):
                    found.append(Found(where, entry.stat))
                else:
                    self._fail(where, _CHANGED)
        return found

    def _listed(self, directory: str) -> list[DiskEntry]:
        try:
            return self._entries(directory)
        except LocalError as error:
            self._fail(directory, error.message)
            return []


def refusal(path: Path, shown: Shown, platform: Platform) -> str | None:
    """Why something may not be on this disk, in a directory of the folder; None if it may."""
    problem = name_problem(shown.name, platform, top=not path) or path_problem((*path, shown.name), platform)
    if problem is None and shown.kind == Kind.SYMLINK:
        target = shown.versions[0].content
        problem = link_problem(len(path), target, platform) if isinstance(target, bytes) else None
    return problem


def _may_share(item: Item, present: DiskEntry) -> bool:
    """Whether it is worth reading what is there: it may be equal, or hold chunks that are wanted."""
    version = item.version
    if present.kind == SYMLINK or version.kind == Kind.SYMLINK:
        return present.kind == version.kind
    if present.size == version.size:
        return True
    return isinstance(version.content, FileContent) and version.content.depth > 0 and present.size > CHUNK_MIN


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
