"""Writes to the user's tree: staged beside their place, flushed, then put there over exactly what was expected.

Paths are relative to the root, ``/`` between components. No component of a path is ever followed if it is a symbolic
link. What
would be overwritten or removed is looked at right before: if it is not what the caller has seen, it stays, and
``ChangedMeanwhile``
says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from buckia.core.ids import Buffer
from buckia.errors import LocalError
from buckia.local.fs import (
    DIRECTORY,
    FILE,
    SYMLINK,
    DiskEntry,
    DiskFullError,
    ExistsError,
    FileSystem,
    Stat,
    VanishedError,
    printable,
)
from buckia.local.paths import TEMPORARY, TRASH, safe_join
from buckia.local.sidecars import (
    SQLITE_MAGIC,
    changes_beside,
    open_changes,
    require_closed,
    require_none_stale,
    sidecars,
)

_ATTEMPTS = 1000
_PERMISSIONS = 0o777
"""What is restored of a mode: setuid, setgid and the sticky bit are not for others to set."""
_OWNER_READS = 0o400
_OWNER = 0o700


class ChangedMeanwhile(LocalError):
    """What is at a path is not what the last look has seen; it was left alone."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A finished file or link under a temporary name. ``entry`` is its stat; renaming keeps all of it but ctime."""

    directory: str
    name: str
    entry: DiskEntry
    flushed: bool = False
    database: bool = False
    """It is one of SQLite's."""

    @property
    def path(self) -> str:
        """Relative to the root."""
        return f"{self.directory}/{self.name}" if self.directory else self.name


@dataclass(frozen=True, slots=True)
class Placement:
    """Put ``staged`` at ``path``, where now is what has the stat ``expected``: None for nothing.

    ``expected`` of a directory is ``DiskEntry.stat``, too; it must be empty. ``trash``: what is there goes to the
    trash, and the changes that SQLite keeps beside it, too; without it they hold the placement up.
    """

    staged: Staged
    path: str
    expected: Stat | None
    trash: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a placement: the stat read back, or the error that left everything as it was."""

    path: str
    entry: DiskEntry | None
    error: LocalError | None = None


class Writer:
    """Writes below one root. Staging may be done by several threads, everything else by one."""

    def __init__(self, fs: FileSystem, root: str, *, token: str) -> None:
        """``token`` names this run's temporary files: its first ``OWNER_LETTERS`` say whose they are, the others are
        random.
        """
        self._fs = fs
        self._root = root.rstrip("/")
        self._prefix = f"{TEMPORARY}{token}-"
        self._numbers = count(1)
        self._unflushed: set[str] = set()
        self._known: set[str] | None = None
        """Directories that were looked at while a batch is being placed: they need not be for each of its files."""
        self._staged: set[str] = set()
        """Absolute paths of staged files that are neither placed nor discarded."""
        self.sidecars: set[str] = set()
        """What went to the trash because it belonged to a database there."""

    # --- staging ---

    def stage_file(self, directory: str, chunks: Iterable[Buffer], *, mode: int, mtime_ns: int) -> Staged:
        """Write a file under a temporary name in ``directory``, which must exist. On an error nothing is left of it."""
        name, path = self._temporary(directory)
        handle = self._fs.create(path)
        head = b""
        try:
            with handle:
                for chunk in chunks:
                    handle.write(chunk)
                    if len(head) < len(SQLITE_MAGIC):
                        head += bytes(memoryview(chunk)[: len(SQLITE_MAGIC) - len(head)])
                handle.set_mode(mode & _PERMISSIONS)
                handle.set_mtime(mtime_ns)
                flushed = not mode & _OWNER_READS  # it cannot be opened again to flush it
                if flushed:
                    handle.sync()
            self._staged.add(path)
            return Staged(directory, name, self._present(path), flushed, head == SQLITE_MAGIC)
        except BaseException:
            self._fs.unlink(path)
            raise

    def stage_symlink(self, directory: str, target: bytes, *, mtime_ns: int) -> Staged:
        """Make a symbolic link under a temporary name in ``directory``."""
        name, path = self._temporary(directory)
        self._fs.symlink(target, path)
        try:
            self._fs.set_mtime(path, mtime_ns)
            self._staged.add(path)
            return Staged(directory, name, self._present(path), True)
        except BaseException:
            self._fs.unlink(path)
            raise

    def flush_staged(self, staged: Iterable[Staged]) -> None:
        """Return when the bytes of staged files are on the disk: before intents are logged and files are placed."""
        self._fs.sync_files([safe_join(self._root, *item.path.split("/")) for item in staged if not item.flushed])

    def discard(self, staged: Staged) -> None:
        """Remove a staged file that is not to be placed."""
        path = self._checked(staged.path)
        self._fs.unlink(path)
        self._staged.discard(path)

    @contextmanager
    def tidying(self) -> Iterator[None]:
        """Remove what was staged inside and never placed, if the work inside is cut short."""
        try:
            yield
        except BaseException:
            for path in sorted(self._staged):
                if self._fs.stat(path) is not None:
                    self._fs.unlink(path)
            self._staged.clear()
            raise

    # --- placing ---

    def place(self, placements: Sequence[Placement], when: str) -> list[Placed]:
        """Put flushed files in place, then flush the directories' names. ``when`` names this run's trash.

        One outcome for each, in order; the staged file of one that failed is removed. ``DiskFullError`` ends it all.
        """
        self._known = set()
        results = [self._place(placement, when) for placement in placements]
        self._known = None
        self.flush()
        return results

    def _place(self, placement: Placement, when: str) -> Placed:
        try:
            source = self._checked(placement.staged.path)
            target = self._checked(placement.path)
            self._clear(placement, target, when)
            try:
                self._fs.rename(source, target, replace=placement.expected is not None and not placement.trash)
            except ExistsError:
                raise _changed(placement.path) from None
            self._staged.discard(source)
            self._renamed_in(placement.path, placement.staged.path)
            return Placed(placement.path, self._present(target))
        except DiskFullError:
            raise
        except LocalError as error:
            if self._fs.stat(f"{self._root}/{placement.staged.path}") is not None:
                self.discard(placement.staged)
            return Placed(placement.path, None, error)

    def _clear(self, placement: Placement, target: str, when: str) -> None:
        """Verify what is in the way and, where it cannot simply be replaced, take it away."""
        present = self._verified(placement.path, target, placement.expected)
        if present is None:
            if placement.staged.database and not placement.trash:
                require_none_stale(self._fs, target, placement.path)
            elif placement.staged.database and changes_beside(self._fs, target, stale=True):
                self._trash_sidecars(placement.path, when)
            return
        if self._known and (present.kind == DIRECTORY or placement.trash):
            self._known.clear()
        if present.kind == DIRECTORY:
            self._fs.rmdir(target)
            self._renamed_in(placement.path)
        elif placement.trash:
            self._trash_database(placement.path, target, when)
        else:
            require_closed(self._fs, target, placement.path)

    def make_directory(self, path: str, mode: int = _PERMISSIONS) -> DiskEntry:
        """Create a directory and those above it where they are missing; ``ExistsError`` if something else is there.
        They have what the umask leaves of ``mode``.

        Set its mode with ``set_mode`` once everything is in it: a read-only directory takes no files.
        """
        self._make_directories(path, mode & _PERMISSIONS)
        return self._present(safe_join(self._root, *path.split("/")))

    def _make_directories(self, path: str, mode: int = _PERMISSIONS) -> bool:
        made = False
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            where = safe_join(self._root, *parts[:depth])
            present = self._fs.stat(where)
            if present is None:
                self._fs.mkdir(where, mode)
                self._renamed_in(here)
                made = True
            elif present.kind != DIRECTORY:
                raise ExistsError(f"Cannot create the directory {printable(here)}: a file or link is there.")
        return made

    def set_mode(self, path: str, mode: int) -> DiskEntry:
        """Set a directory's permission bits; its stat afterwards. Other bits of its mode stay."""
        where = self._checked(path)
        present = self._present(where)
        if present.kind != DIRECTORY:
            raise _changed(path)
        self._fs.set_mode(where, mode & _PERMISSIONS | present.mode & ~_PERMISSIONS)
        return self._present(where)

    def set_attributes(self, path: str, expected: Stat, *, mode: int, mtime_ns: int) -> DiskEntry:
        """Set permission bits and time of a file whose content stays; its stat afterwards."""
        where = self._checked(path)
        present = self._verified(path, where, expected)
        if present is None or present.kind == DIRECTORY:
            raise _changed(path)
        if present.mtime_ns != mtime_ns:  # first: a new time alone is no edit, should the process end in between
            self._fs.set_mtime(where, mtime_ns)
        if present.kind == 0 and present.mode != mode & _PERMISSIONS:
            self._fs.set_mode(where, mode & _PERMISSIONS)
        return self._present(where)

    # --- removing ---

    def remove(self, path: str, expected: Stat, when: str, *, in_use: bool = False) -> str:
        """Move a file or link to the trash if it is what was expected; its path there.

        ``in_use``: also a database that has changes beside it, and them with it; else ``InUseError``.
        """
        where = self._checked(path)
        if self._verified(path, where, expected) is None:
            raise _changed(path)
        if in_use:
            return self._trash_database(path, where, when)
        require_closed(self._fs, where, path)
        return self.trash(path, when)

    def require_closed(self, path: str) -> None:
        """Raise ``InUseError`` where a database lies that may not be replaced now."""
        require_closed(self._fs, self._checked(path), path)

    def _trash_database(self, path: str, where: str, when: str) -> str:
        """Move a file to the trash and, if it is a database with changes beside it, these after it."""
        beside = open_changes(self._fs, where) is not None
        moved = self.trash(path, when)
        if beside:
            self._trash_sidecars(path, when)
        return moved

    def _trash_sidecars(self, path: str, when: str) -> None:
        for suffix in sidecars(self._fs, safe_join(self._root, *path.split("/"))):
            self.trash(path + suffix, when)
            self.sidecars.add(path + suffix)

    def trash(self, path: str, when: str) -> str:
        """Move whatever is at ``path`` to ``.buckia-trash/<when>/<path>``; its path there, which is new in any case.

        Directories in the trash are for their owner only.
        """
        source = self._checked(path)
        if self._fs.stat(source) is None:
            raise VanishedError(f"Cannot move {printable(path)} to the trash: it does not exist.")
        parent, _, name = path.rpartition("/")
        for attempt in range(1, _ATTEMPTS):
            top = f"{TRASH}/{when}" if attempt == 1 else f"{TRASH}/{when}-{attempt}"
            directory = f"{top}/{parent}" if parent else top
            try:
                if self._make_directories(directory, _OWNER):  # what was in a private directory stays private
                    self.flush()  # else the file's new place might be lost, and the file with it
                self._fs.rename(source, self._checked(f"{directory}/{name}"), replace=False)
            except ExistsError:
                continue
            self._renamed_in(path, f"{directory}/{name}")
            return f"{directory}/{name}"
        raise LocalError(f"Cannot move {printable(path)} to the trash: the trash is full of its like.")

    def remove_directory(self, path: str) -> bool:
        """Remove a directory if it is empty but for temporary files, whoever made them: they were to take the places of
        files in it. Whether it was.
        """
        where = self._checked(path)
        try:
            self._fs.rmdir(where)
        except ExistsError:
            entries = self._fs.scan(where)
            if not all(name.startswith(TEMPORARY) and kind in (FILE, SYMLINK) for name, kind, *_ in entries):
                return False
            self.remove_leftovers(path, (entry[0] for entry in entries))
            try:
                self._fs.rmdir(where)
            except ExistsError:  # something came meanwhile
                return False
        self._unflushed.discard(path)
        self._renamed_in(path)
        return True

    def remove_leftovers(self, directory: str, names: Iterable[str]) -> None:
        """Remove temporary files of other runs."""
        for name in names:
            if name.startswith(TEMPORARY) and not name.startswith(self._prefix):
                self._fs.unlink(self._checked(f"{directory}/{name}" if directory else name))

    def flush(self) -> None:
        """Return when all names that were made, moved or removed are on the disk."""
        for directory in sorted(self._unflushed):
            where = f"{self._root}/{directory}" if directory else self._root or "/"
            present = self._fs.stat(where)
            if present is not None and present.kind == DIRECTORY:
                self._fs.sync_directory(where)
        self._unflushed.clear()

    # --- reading ---

    def free_bytes(self, directory: str) -> int:
        """Bytes that may still be written in ``directory``, which must exist."""
        return self._fs.free_bytes(safe_join(self._root, *directory.split("/")) if directory else self._root or "/")

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes of a file on disk; the caller checks that they are what it hopes for."""
        with self._fs.open_read(self._checked(path)) as file:
            return file.read_at(offset, length)

    # --- checks ---

    def _checked(self, path: str) -> str:
        """The absolute path, if every directory on the way is one (and no link to one)."""
        parts = path.split("/")
        target = safe_join(self._root, *parts)
        known = self._known
        above = path.rpartition("/")[0]
        if known is not None and above in known:
            return target
        for depth in range(1, len(parts)):
            where = safe_join(self._root, *parts[:depth])
            present = self._fs.stat(where)
            if present is None:
                raise VanishedError(f"The directory {printable('/'.join(parts[:depth]))} does not exist.")
            if present.kind != DIRECTORY:
                raise _changed("/".join(parts[:depth]))
        if known is not None:
            known.add(above)
        return target

    def _verified(self, path: str, where: str, expected: Stat | None) -> DiskEntry | None:
        present = self._fs.stat(where)
        if (None if present is None else present.stat) == expected:
            return present
        if expected is None and present is not None and present.kind == DIRECTORY:
            held = f"{printable(path)} is a directory here that holds what is not synced"
            raise ChangedMeanwhile(f"{held}; move that away and sync again.")
        raise _changed(path)

    def _temporary(self, directory: str) -> tuple[str, str]:
        name = f"{self._prefix}{next(self._numbers)}"
        return name, self._checked(f"{directory}/{name}" if directory else name)

    def _present(self, where: str) -> DiskEntry:
        present = self._fs.stat(where)
        if present is None:
            raise VanishedError(f"{printable(where)} vanished.")
        return present

    def _renamed_in(self, *paths: str) -> None:
        self._unflushed.update(path.rpartition("/")[0] for path in paths)


def _changed(path: str) -> ChangedMeanwhile:
    return ChangedMeanwhile(f"{printable(path)} changed while the sync was running; it was left alone.")
