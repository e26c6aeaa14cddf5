"""Restore: a directory is made to hold what a snapshot holds, or some paths of it.

Everything is planned first, and must fit on the disk. Then directories are made, files are staged, flushed and put in
place over exactly what was seen, what the snapshot does not hold goes to the trash if that is wanted, and directories
get their modes last. Whatever is replaced goes to the trash first. What cannot be written is reported, and the rest is
written all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from buckia.core.directory import lookup
from buckia.core.manifest import FileContent, Kind, Subtree, current
from buckia.engine.compare import PERMISSIONS
from buckia.engine.fetch import Fetched, Fetcher, Wanted, in_batches, room_for
from buckia.engine.history import to_path
from buckia.engine.plan import DELETE_LOCAL, DOWNLOAD, KEEP
from buckia.engine.restoreplan import Directory, Found, Item, RestorePlan, RestorePlanner, Site
from buckia.errors import IntegrityError, LocalError, NotFoundError, RefusedError, UsageError
from buckia.events import Action, ActionKind, Failure, RestoreResult
from buckia.local.fs import DIRECTORY, DiskEntry, DiskFullError
from buckia.local.paths import ours
from buckia.local.sidecars import require_closed
from buckia.local.writer import Placement, Writer
from buckia.store.repository import Repository

_OWNER = 0o700


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What to restore, and how to treat what is there. ``paths`` are in the folder; none stands for everything."""

    paths: tuple[str, ...] = ()
    overwrite: bool = False
    delete_extra: bool = False
    dry_run: bool = False


def restore(repository: Repository, site: Site, tree: Subtree, options: RestoreOptions) -> RestoreResult:
    """Restore a tree; what failed is in the result.

    ``trashed`` counts all files that went to the trash, ``deleted`` those of them that the snapshot does not hold.
    Raises RefusedError if the target holds something and ``overwrite`` is false, NotFoundError for a path that the
    snapshot does not hold, DiskFullError before anything is written if it does not fit, LocalError if the target
    cannot be used, and what the bucket raises.
    """
    base = _open_target(site, options.overwrite)
    plan = RestorePlanner(repository, site, options.paths).run(tree, base)
    result = RestoreResult(unchanged=plan.unchanged, root=tree.content_hash.hex(), dry_run=options.dry_run)
    result.errors += plan.failures
    sizes = [item.size for item in plan.writes]
    need, free = sum(sizes), site.files.free_bytes(base)
    if (room := room_for(sizes)) > free:
        kept = f", of which {room - need} are to stay free" if room > need else ""
        shortage = f"The restore to {site.target} needs {need} bytes, {free} are free{kept}."
        if not options.dry_run:
            raise DiskFullError(shortage, hint="Nothing was written. Make room, or restore fewer paths.")
        result.warnings.append(shortage)
    if options.dry_run:
        _foresee(plan, options, result)
    else:
        site.progress.total = need
        _Restorer(repository, site, result).run(plan, options.delete_extra)
    result.failed = len(result.errors)
    site.progress.finish("downloading")
    return result


def restore_file(repository: Repository, site: Site, tree: Subtree, remote: str, name: str) -> None:
    """Write the current version of one path as the file ``name`` in the target, replacing a file there in one step.

    Raises NotFoundError if there is no such file, LocalError if it cannot be written, IntegrityError if it is damaged.
    """
    path = to_path(remote)
    entry = lookup(repository.nodes, tree.id, path) if path else None
    version = current(entry) if entry is not None else None
    if version is None:
        raise NotFoundError(f"There is no file “{remote}” in this snapshot.", hint="`buckia ls` shows what is there.")
    if version.kind != Kind.FILE:
        raise UsageError(f"“{remote}” is a symbolic link.")
    site.target = site.files.real_path(site.target)
    present = site.files.stat(site.disk(name))
    if present is not None and present.kind == DIRECTORY:
        raise LocalError(f"{site.disk(name)} is a directory.")
    if present is not None:
        require_closed(site.files, site.disk(name), name)
    site.progress.total = version.size
    result = RestoreResult()
    _Restorer(repository, site, result).write(RestorePlan(writes=[Item("", name, version, present)]), trash=False)
    for failure in result.errors:
        raise IntegrityError(f"“{remote}” was not written: {failure.reason}")
    site.progress.finish("downloading")


def _open_target(site: Site, overwrite: bool) -> str:
    """Resolve the target; itself or, where it does not exist yet, the directory above it that does."""
    files = site.files
    site.target = base = files.real_path(site.target)
    while (present := files.stat(base)) is None and base.strip("/"):
        base = base.rpartition("/")[0] or "/"
    if present is not None and present.kind != DIRECTORY:
        raise LocalError(f"{base} is no directory.")
    if base == site.target and not overwrite and any(not ours(entry[0], top=True) for entry in files.scan(base)):
        raise RefusedError(
            f"{base} is not empty.",
            hint="Name another directory, or add --overwrite: what it replaces goes to the trash there.",
        )
    return base


def _foresee(plan: RestorePlan, options: RestoreOptions, result: RestoreResult) -> None:
    """What a run would do, path by path, and the counts that it would bring."""
    actions: list[Action] = []

    def foresee(kind: ActionKind, path: str, size: int, reason: str) -> None:
        above, slash, name = path.rpartition("/")
        actions.append(Action(kind, above + slash, name, size, reason))

    for directory in plan.directories:
        if _gives_way(directory.present):
            result.trashed += 1
            foresee(DELETE_LOCAL, directory.path, 0, "a directory takes its place; it goes to the trash")
    for item in plan.writes:
        replaces = _gives_way(item.present)
        result.trashed += replaces
        reason = "replaces what is there, which goes to the trash" if replaces else "not there"
        if item.present is not None and not replaces:
            reason = "takes the place of a directory"
        foresee(DOWNLOAD, item.path, item.size, reason)
        for path, _ in _files(item.inside):
            result.trashed += 1
            foresee(DELETE_LOCAL, path, 0, "a file takes the place of its directory; it goes to the trash")
    for path, size in _files(plan.extra):
        if options.delete_extra:
            foresee(DELETE_LOCAL, path, 0, "not in the snapshot; it goes to the trash")
        else:
            foresee(KEEP, path, size, "not in the snapshot; --delete-extra moves it to the trash")
            result.extra.append(path)
    result.deleted = len(_files(plan.extra)) if options.delete_extra else 0
    result.trashed += result.deleted
    result.restored = len(plan.writes)
    result.bytes = sum(item.size for item in plan.writes)
    result.actions = sorted(actions, key=lambda action: action.path)


def _gives_way(present: DiskEntry | None) -> bool:
    """Whether a file or link is there, which goes to the trash before its place is taken."""
    return present is not None and present.kind != DIRECTORY


def _files(found: Sequence[Found]) -> list[tuple[str, int]]:
    """Paths and sizes in bytes of the files and links among what was found."""
    return [(item.path, item.stat[1]) for item in found if item.stat is not None]


class _Restorer:
    """Carries out a plan. What concerns one path becomes a failure in the result; a full disk ends it all."""

    def __init__(self, repository: Repository, site: Site, result: RestoreResult) -> None:
        self._repo = repository
        self._site = site
        self._result = result
        self._writer = Writer(site.files, site.target, token=site.token)

    def run(self, plan: RestorePlan, delete_extra: bool) -> None:
        """All of it, in the order that the plan states."""
        self._make_target()
        for where, names in plan.leftovers:
            with self._failing(where):
                self._writer.remove_leftovers(where, names)
        made = [directory for directory in plan.directories if self._make(directory)]
        for item in plan.attributes:
            self._set_attributes(item)
        self.write(plan, trash=True)
        if delete_extra:
            self._result.deleted = self._remove(plan.extra)
            self._result.trashed += self._result.deleted
        else:
            gone = self._writer.sidecars
            self._result.extra = [item.path for item in plan.extra if item.stat is not None and item.path not in gone]
        self._result.trashed += len(self._writer.sidecars)
        for directory in reversed(made):
            self._set_mode(directory)
        self._writer.flush()

    @contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        try:
            yield
        except DiskFullError:
            raise
        except LocalError as error:
            self._fail(path, error.message)

    def _fail(self, path: str, reason: str) -> None:
        self._result.errors.append(Failure(path, reason))

    # ---- directories

    def _make_target(self) -> None:
        missing: list[str] = []
        where = self._site.target
        while self._site.files.stat(where) is None:
            missing.append(where)
            where = where.rpartition("/")[0] or "/"
        for directory in reversed(missing):
            self._site.files.mkdir(directory)
            self._site.files.sync_directory(directory.rpartition("/")[0] or "/")

    def _make(self, directory: Directory) -> bool:
        """Have a directory that can be written to; whether there is one."""
        present = directory.present
        with self._failing(directory.path):
            if present is not None and not directory.exists:
                self._writer.remove(directory.path, present.stat, self._site.when, in_use=True)
                self._result.trashed += 1
            if present is None or not directory.exists:
                self._writer.make_directory(directory.path)
            elif present.mode & _OWNER != _OWNER:
                self._writer.set_mode(directory.path, present.mode | _OWNER)
            return True
        return False

    def _set_mode(self, directory: Directory) -> None:
        present = directory.present
        before = present.mode & PERMISSIONS if present is not None and directory.exists else None
        mode = before if directory.mode is None else directory.mode
        unchanged = before is not None and before & _OWNER == _OWNER and mode == before
        if mode is not None and not unchanged:
            with self._failing(directory.path):
                self._writer.set_mode(directory.path, mode)

    # ---- files

    def _set_attributes(self, item: Item) -> None:
        version, present = item.version, item.present
        if present is not None:
            with self._failing(item.path):
                self._writer.set_attributes(item.path, present.stat, mode=version.mode, mtime_ns=version.mtime_ns)

    def write(self, plan: RestorePlan, *, trash: bool) -> None:
        """Stage the plan's files and put them in place; ``trash``: what they replace goes there.

        If this is interrupted, no staged file stays behind.
        """
        progress = self._site.progress
        fetcher = Fetcher(
            self._repo,
            self._writer,
            self._site.executor,
            plan.sources,
            lambda size, path: progress.advance(size, "downloading", path),
        )
        places = {item.path: item for item in plan.writes if self._can_be_had(item)}
        wanted = (Wanted(item.directory, item.path, item.version) for item in places.values())
        with self._writer.tidying(), closing(fetcher.stage(wanted)) as staged:
            for batch in in_batches(staged):
                self._place(list(self._placements(batch, places, trash)), places)
        self._result.bytes_reused = fetcher.bytes_reused

    def _placements(self, batch: list[Fetched], places: dict[str, Item], trash: bool) -> Iterator[Placement]:
        for fetched in batch:
            path = fetched.wanted.path
            if fetched.staged is None:
                self._fail(path, fetched.reason)
                continue
            present = places[path].present
            expected = None if present is None or present.kind == DIRECTORY else present.stat
            yield Placement(fetched.staged, path, expected, trash)

    def _can_be_had(self, item: Item) -> bool:
        """Whether the history says where a file's chunk is; chunks of larger files are looked up one by one."""
        content = item.version.content
        single = isinstance(content, FileContent) and not content.depth and item.version.size
        if isinstance(content, FileContent) and single and not self._repo.holds(content.id):
            self._fail(item.path, f"its content, blob {content.id.hex()[:12]}, is in no pack that a record names")
            return False
        return True

    def _place(self, batch: list[Placement], places: Mapping[str, Item]) -> None:
        if not batch:
            return
        self._writer.flush_staged([placement.staged for placement in batch])
        for placement in batch:
            inside = places[placement.path].inside
            if inside:
                self._result.trashed += self._remove(inside)
                self._writer.flush()
        for placement, placed in zip(batch, self._writer.place(batch, self._site.when), strict=True):
            if placed.error is not None:
                self._fail(placement.path, placed.error.message)
                continue
            self._result.trashed += placement.trash and placement.expected is not None
            self._result.restored += 1
            self._result.bytes += places[placement.path].size

    def _remove(self, found: Sequence[Found]) -> int:
        """Move files to the trash and remove the directories that they leave empty; how many files."""
        removed = 0
        for item in found:
            if item.stat is not None and item.path not in self._writer.sidecars:
                with self._failing(item.path):
                    self._writer.remove(item.path, item.stat, self._site.when, in_use=True)
                    self._site.progress.advance(0, "deleting", item.path)
                    removed += 1
        for item in reversed(found):
            if item.stat is None:
                with self._failing(item.path):
                    self._writer.remove_directory(item.path)
        return removed
