"""The scan: which names in the local tree are as they were last shown, which are not, and which are none of ours.

Nothing is read but directories (and ignore files): whether a file with another stat has other content is for the
caller to find out. A
directory whose entries are all as the fingerprint says costs no look at its rows.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import msgpack
from blake3 import blake3

from buckia.core.manifest import Kind
from buckia.errors import LocalError, RefusedError
from buckia.local.filters import Filters
from buckia.local.fs import DIRECTORY, FILE, SPECIAL, SYMLINK, DiskEntry, FileSystem, RawEntry, printable
from buckia.local.paths import (
    CONFIGURATION,
    DEPTH_MAX,
    IGNORE_FILE,
    OWNER_LETTERS,
    PATH_BYTES_MAX,
    TEMPORARY,
    TRASH,
    bucket_name,
    ours,
)
from buckia.local.sidecars import SIDECARS, belongs
from buckia.local.state import Row, State

_HASH_BYTES = 28
_STORED_BYTES = _HASH_BYTES + 8
_MAPPED = 1 << 31
_IGNORE_FILE_BYTES_MAX = 1 << 20
_SETTLED_NS = 50_000_000
_SETTLED_COARSE_NS = 2_000_000_000
_ABANDONED_NS = 24 * 3600 * 10**9
_ROOT_DEVICE = "root device"
_MOUNTED = "Is the disk mounted that it lies on?"
_EMPTIED = f"{_MOUNTED} If all that was in it is to go, make an empty directory in it, and sync again."

OWN = "it is one of buckia's own files"
Skipped = tuple[str, str]
"""(name on disk, why it is never synced); the reason is ``OWN`` where nobody need be told."""


@dataclass(slots=True)
class ScannedDirectory:
    """One directory as the scan found it.

    Where ``clean``, it is as its rows say, and they were not loaded: to go on with it, set ``unchanged`` to them, or
    have it looked at again by ``Scan.load``.

    Where it is not: every row of the state is in exactly one of ``unchanged``, ``changed``, ``missing``, ``hidden``
    and ``outside``. The row of a conflict copy is also gone where a directory has its name now, which has no row then.
    """

    path: bytes
    """In the folder, components joined by ``/``; the top is empty."""
    disk_path: str
    """Relative to the root; differs from ``path`` where a name is shown under another name."""
    clean: bool = False
    exists: bool = True
    """False: there is no such directory any more, and ``missing`` are its rows."""
    error: LocalError | None = None
    """It could not be read. Nothing is known of what is in it or below it, and nothing may be concluded."""
    entries: list[RawEntry] = field(default_factory=list)
    """What is on disk beside ``unchanged`` and ``changed``; where ``clean``, all of it, and only if some has no row."""
    unchanged: dict[str, Row] = field(default_factory=dict)
    changed: list[tuple[DiskEntry, Row | None]] = field(default_factory=list)
    """New, or with another stat or kind than its row says."""
    missing: list[Row] = field(default_factory=list)
    hidden: list[Row] = field(default_factory=list)
    """Deleted here before, without publishing it."""
    outside: dict[str, Row] = field(default_factory=dict)
    """Rows that this sync does not cover, whatever is on disk: to be kept as they are."""
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    """Of ``skipped``, known also where the directory is clean."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files of runs that were cut off."""
    looked_at_again: bool = False
    """Temporary files of other runs are here, which may be under way: the next scan is to see whether they still are.
    """
    salt: bytes = b""
    filters: Filters | None = None
    """What the run covers; None: all of it."""
    files: int = 0
    """Files and links that the run covers and that are as their rows say; known only where the directory is clean."""

    def fingerprint(self, rows: Iterable[Row]) -> bytes | None:
        """What to store beside ``rows``, the directory's new rows, once the disk is as they say.

        None if that cannot be known from their stats, or the next scan is to look again. What is on disk but has no
        row makes it look again too.
        """
        if self.looked_at_again:
            return None
        rows = list(rows)
        covered = {entry[0] for entry, _ in self.changed} | self.unchanged.keys()
        entries = [entry for entry in self.entries if entry[0] not in covered and entry[0] not in self.leftovers]
        others = {entry[0] for entry in entries} | self.outside.keys()
        for row in rows:
            if row.hidden or row.name in others:
                continue
            if row.stat is None and row.kind != Kind.DIRECTORY:
                return None
            entries.append((row.name, int(row.kind), *(row.stat or (row.mode, 0, 0, 0, 0))))
        mapped = any(row.kind == Kind.DIRECTORY and not _own_name(row) for row in rows)
        flags = self.skipped_count | (_MAPPED if mapped else 0)
        files = sum(map(self.counts, rows))
        return _fingerprint(entries, self.salt) + flags.to_bytes(4) + files.to_bytes(4)

    def counts(self, row: Row) -> bool:
        """Whether a row tells of a file or link that the run covers."""
        if row.hidden or row.kind == Kind.DIRECTORY or row.name in self.outside:
            return False
        return self.filters is None or self.filters.covers(_below(self.path, row.entry_name), False)


def is_leftover(entry: DiskEntry, token: str, now_ns: int) -> bool:
    """Whether a temporary file may be removed by the run that names its own with ``token``.

    That is one of the same owner, whose earlier runs are over, or one that nobody has touched for a day.
    """
    own = entry.name.startswith(f"{TEMPORARY}{token[:OWNER_LETTERS]}")
    return own or entry.ctime_ns < now_ns - _ABANDONED_NS


def fresh_fingerprint(path: bytes, rows: Iterable[Row], filters: Filters) -> bytes | None:
    """What to store beside the rows of a directory that this run has made itself."""
    return ScannedDirectory(path, "", salt=filters.salt(path.decode()), filters=filters).fingerprint(list(rows))


def _fingerprint(entries: list[RawEntry], salt: bytes) -> bytes:
    entries.sort()
    return blake3(salt + msgpack.packb(entries, unicode_errors="surrogateescape")).digest(length=_HASH_BYTES)


def settled(entry: DiskEntry, now_ns: int) -> bool:
    """Whether a stat will tell later changes: it is older than one tick of the file system's clock at ``now_ns``.

    ``now_ns`` is the time when the content began to be read. Where it is False, store no stat: the next run reads the
    file again.
    """
    coarse = entry.ctime_ns % 1_000_000_000 == 0 and entry.mtime_ns % 1_000_000_000 == 0
    limit = now_ns - (_SETTLED_COARSE_NS if coarse else _SETTLED_NS)
    if limit < entry.mtime_ns <= now_ns:
        return False
    return entry.ctime_ns <= limit  # a time of modification may be set to anything, also in the future


def check_root(fs: FileSystem, root: str, state: State) -> None:
    """Raise ``RefusedError`` where the root is missing or on another file system: perhaps a disk is not mounted."""
    entry = fs.stat(root)
    if entry is None or entry.kind != DIRECTORY:
        raise RefusedError(f"The directory {printable(root)} does not exist.", hint=_MOUNTED)
    recorded = state.get_value(_ROOT_DEVICE)
    device = str(fs.device(root)).encode()
    if recorded is None:
        state.set_value(_ROOT_DEVICE, device)
    elif recorded != device:
        raise RefusedError(f"The directory {printable(root)} lies on another file system than before.", hint=_MOUNTED)


def scan(fs: FileSystem, root: str, state: State, filters: Filters, now_ns: int = 0) -> Scan:
    """Begin a scan of the tree at ``root``, an absolute real path. Raises ``RefusedError`` as ``check_root`` does.

    ``now_ns`` tells temporary files that nobody has touched for long.
    """
    check_root(fs, root, state)
    return Scan(fs, root, state, filters, now_ns)


class Scan:
    """Iterates over every directory that the filters let in: each before what is in it, siblings by name in the folder.

    Directories that are gone but have rows come in their place. Iterating raises ``RefusedError`` if the root is empty
    but has
    rows, and ``LocalError`` if it cannot be read. The state may be staged to, but not promoted, meanwhile.
    """

    def __init__(self, fs: FileSystem, root: str, state: State, filters: Filters, now_ns: int) -> None:
        self._now_ns = now_ns
        self._fs = fs
        self._root = root.rstrip("/")
        self._state = state
        self._filters = filters
        self._known = state.fingerprints()
        self._paths: list[bytes] | None = None
        self._unsettled = _by_component(path for path, fingerprint in self._known.items() if fingerprint is None)

    def __iter__(self) -> Iterator[ScannedDirectory]:
        """Depth first, without recursion: how deep the tree is, others decide."""
        stack: list[tuple[bytes, str | None, int]] = [(b"", "", 0)]
        while stack:
            path, disk_path, depth = stack.pop()
            if disk_path is None:
                directory = self._gone(path)
                children: dict[bytes, str | None] = dict.fromkeys(self._rows_below(path))
            else:
                directory, children = self._visit(path, disk_path, depth)
            if directory.error is not None and not path:
                raise directory.error
            yield directory
            for name in sorted(children, reverse=True):
                child = children[name]
                below = None if child is None else f"{disk_path}/{child}" if disk_path else child
                stack.append((_below(path, name), below, depth + 1))

    def load(self, directory: ScannedDirectory) -> ScannedDirectory:
        """A directory that was clean, looked at once more and compared name by name."""
        depth = directory.path.count(b"/") + 1 if directory.path else 0
        return self._visit(directory.path, directory.disk_path, depth, compare=True)[0]

    def skipped(self, directory: ScannedDirectory) -> list[Skipped]:
        """What is never synced in a directory, also in one that was clean; there that costs a second look if it is more
        than our own files.
        """
        if not directory.clean or not directory.skipped_count:
            return directory.skipped
        own = [(entry[0], OWN) for entry in directory.entries if _is_own(directory.path, entry[0], entry[1])]
        return own if len(own) == directory.skipped_count else self.load(directory).skipped

    # --- one directory ---

    def _visit(
        self, path: bytes, disk_path: str, depth: int, *, compare: bool = False
    ) -> tuple[ScannedDirectory, dict[bytes, str | None]]:
        """The directory, and the subdirectories to go on with: name in the folder to that on disk, None if gone."""
        result = ScannedDirectory(path, disk_path, filters=self._filters)
        where = f"{self._root}/{disk_path}" if disk_path else self._root or "/"
        try:
            entries = self._fs.scan(where)
            self._read_ignore_file(path, where, entries)
        except LocalError as error:
            result.error = error
            return result, {}
        if not path:
            self._refuse_empty(entries)
        result.salt = self._filters.salt(path.decode())
        present = _fingerprint(entries, result.salt)
        stored = self._known.get(path)
        if stored is not None and stored.startswith(present) and len(stored) == _STORED_BYTES and not compare:
            flags = int.from_bytes(stored[_HASH_BYTES : _HASH_BYTES + 4])
            rows = self._state.directory(path)[1] if flags & _MAPPED else {}
            children = self._subdirectories(path, entries, rows, depth)
            # Where something is hidden, its directory may be gone from the disk without a row that says so.
            if all(name in children for name in self._names_below(path, self._unsettled)):
                result.clean = True
                result.files = int.from_bytes(stored[_HASH_BYTES + 4 :])
                result.skipped_count = flags & ~_MAPPED
                if result.skipped_count or result.salt:  # names without rows: needed for a new fingerprint
                    result.entries = entries
                return result, children
        result.entries = entries
        rows = self._resolved_rows(path, entries)
        children = self._subdirectories(path, entries, rows, depth)
        self._compare(result, where, rows, depth)
        uncertain = self._uncertain(result)
        for name in self._rows_below(path):
            if name not in children and name not in uncertain:
                children[name] = None
        # What rows or changes describe need not be kept twice: a first sync may hold a million of these.
        described = {entry.name for entry, _ in result.changed} | result.unchanged.keys()
        result.entries = [entry for entry in entries if entry[0] not in described]
        return result, children

    def _refuse_empty(self, entries: list[RawEntry]) -> None:
        if any(not ours(entry[0], top=True) for entry in entries):
            return
        if self._held_something():
            message = f"The directory {printable(self._root)} is empty, but it held files before."
            raise RefusedError(message, hint=_EMPTIED)

    def _held_something(self) -> bool:
        """Whether rows say that something should be there. Without dots, a row was announced to go, or is a directory
        that is there for what is in it.
        """
        rows = [row for row in self._state.directory(b"")[1].values() if not row.hidden]
        if any(row.dots for row in rows):
            return True
        directories = [row.entry_name for row in rows if row.kind == Kind.DIRECTORY]
        below = [path for path in self._known if path.partition(b"/")[0] in directories]
        return any(row.dots and not row.hidden for path in below for row in self._state.directory(path)[1].values())

    def _subdirectories(
        self, path: bytes, entries: list[RawEntry], rows: dict[str, Row], depth: int
    ) -> dict[bytes, str | None]:
        found: dict[bytes, str | None] = {}
        top = not path
        for entry in entries:
            if entry[1] != DIRECTORY:
                continue
            name = entry[0]
            row = rows.get(name)
            entry_name = row.entry_name if row is not None and not _displaced(entry[1], row) else bucket_name(name)
            if entry_name is None or ours(name, top=top) or entry_name in found:
                continue
            below = path + b"/" + entry_name if path else entry_name
            if depth < DEPTH_MAX - 1 and len(below) <= PATH_BYTES_MAX and self._filters.descends(below):
                found[entry_name] = name
        return found

    def _compare(self, result: ScannedDirectory, where: str, rows: dict[str, Row], depth: int) -> None:
        on_disk = {entry[0]: entry for entry in result.entries}
        taken = {bucket_name(name) for name, row in rows.items() if name in on_disk and _own_name(row)}
        for raw in result.entries:
            entry = DiskEntry(*raw)
            name = entry.name
            row = rows.get(name)
            if row is not None and _displaced(entry.kind, row):
                row = None  # it stays among those that are gone
            elif row is not None:
                del rows[name]
            if name.startswith(TEMPORARY) and entry.kind in (FILE, SYMLINK):
                if is_leftover(entry, self._state.owner, self._now_ns):
                    result.leftovers.append(name)
                else:
                    result.looked_at_again = True
            elif reason := self._skip_reason(result.path, entry, depth):
                result.skipped.append((name, reason))
            elif row is None and bucket_name(name) in taken:
                result.skipped.append((name, "another name here is the same in Unicode"))
            elif self._is_sidecar(entry, on_disk, where):
                result.skipped.append((name, "it belongs to an open SQLite database"))
            elif not self._covers(result.path, entry, row):
                pass
            elif row is not None and _matches(entry, row):
                result.unchanged[name] = row
                continue
            else:
                result.changed.append((entry, row))
                if row is None:
                    taken.add(bucket_name(name))
                continue
            if row is not None:
                result.outside[name] = row
        self._classify_absent(result, rows.values())
        result.skipped_count = len(result.skipped)

    def _classify_absent(self, result: ScannedDirectory, rows: Iterable[Row]) -> None:
        for row in rows:
            path = _below(result.path, row.entry_name)
            if row.hidden:
                result.hidden.append(row)
            elif self._filters.covers(path, row.kind == Kind.DIRECTORY):
                result.missing.append(row)
            else:
                result.outside[row.name] = row

    def _resolved_rows(self, path: bytes, entries: list[RawEntry]) -> dict[str, Row]:
        """The directory's rows by name on this disk, with the intents that a run which was cut off has carried out."""
        rows = self._state.directory(path)[1]
        on_disk = {entry[0]: entry for entry in entries}
        for name, intent in self._state.intents(path).items():
            raw = on_disk.get(name)
            if raw is None:
                continue
            entry = DiskEntry(*raw)
            # Renaming changes ctime. Anything but our own file proves nothing: then the row before it stands, and the
            # worst outcome is a conflict.
            if entry.kind == intent.kind and _same_file(entry, intent):
                rows[name] = replace(intent, stat=entry.stat)
        # Some file systems show names in another normalisation than they were written in.
        for name in on_disk.keys() - rows.keys():
            if not name.isascii():
                written = (bucket_name(name) or b"").decode()
                if written in rows and written not in on_disk:
                    rows[name] = replace(rows.pop(written), name=name)
        return rows

    def _skip_reason(self, path: bytes, entry: DiskEntry, depth: int) -> str | None:
        if _is_own(path, entry.name, entry.kind):
            return OWN
        if ours(entry.name, top=not path):
            return "its name is reserved for buckia"
        if entry.kind == SPECIAL:
            return "it is no file, directory or link"
        name = bucket_name(entry.name)
        if name is None:
            return "its name is not UTF-8, or too long"
        if depth >= DEPTH_MAX or len(_below(path, name)) > PATH_BYTES_MAX:
            return "its path is too long"
        return None

    def _covers(self, path: bytes, entry: DiskEntry, row: Row | None) -> bool:
        if self._filters.everything:
            return True
        name = row.entry_name if row is not None else bucket_name(entry.name)
        return self._filters.covers(_below(path, name or b""), entry.kind == DIRECTORY)

    def _is_sidecar(self, entry: DiskEntry, on_disk: dict[str, RawEntry], where: str) -> bool:
        """Whether SQLite keeps it beside a database: alone, or of another moment, it is worth nothing or does harm."""
        if entry.kind != FILE or not entry.name.endswith(SIDECARS):
            return False
        database = on_disk.get(entry.name.rpartition("-")[0])
        return database is not None and database[1] == FILE and belongs(self._fs, where, entry.name)

    def _read_ignore_file(self, path: bytes, where: str, entries: list[RawEntry]) -> None:
        for entry in entries:
            if entry[0] != IGNORE_FILE or entry[1] != FILE:
                continue
            where = f"{where}/{IGNORE_FILE}"
            if entry[3] > _IGNORE_FILE_BYTES_MAX:
                raise LocalError(f"{printable(where)} is larger than {_IGNORE_FILE_BYTES_MAX} bytes.")
            with self._fs.open_read(where) as file:
                self._filters.add_ignore_file(path.decode(), file.read_at(0, _IGNORE_FILE_BYTES_MAX))

    # --- directories that are gone ---

    def _gone(self, path: bytes) -> ScannedDirectory:
        result = ScannedDirectory(path, "", exists=False, salt=self._filters.salt(path.decode()))
        self._classify_absent(result, self._state.directory(path)[1].values())
        return result

    def _rows_below(self, path: bytes) -> Iterator[bytes]:
        """The names of the subdirectories of ``path`` that have rows, themselves or below."""
        if self._paths is None:
            self._paths = _by_component(self._known)
        return self._names_below(path, self._paths)

    def _names_below(self, path: bytes, paths: list[bytes]) -> Iterator[bytes]:
        """The names of the subdirectories of ``path`` on the way to these, which are ``_by_component``."""
        prefix = path.replace(b"/", b"\0") + b"\0" if path else b""
        at = bisect.bisect_left(paths, prefix or b"\0")
        while at < len(paths) and paths[at].startswith(prefix):
            name = paths[at][len(prefix) :].partition(b"\0")[0]
            if self._filters.descends(_below(path, name)):
                yield name
            at = bisect.bisect_left(paths, prefix + name + b"\1", at)

    def _uncertain(self, result: ScannedDirectory) -> set[bytes | None]:
        """Names in the folder whose directory may or may not be gone, as what is on disk in its place is left out."""
        on_disk = {entry[0] for entry in result.entries if entry[1] == DIRECTORY}
        uncertain = {bucket_name(name) for name, _ in result.skipped}
        return uncertain.union(row.entry_name for row in result.outside.values() if row.name in on_disk)


def _is_own(path: bytes, name: str, kind: int) -> bool:
    """Whether this is the trash or a configuration, which lie where they belong."""
    return not path and (name == TRASH or (kind == FILE and name.startswith(CONFIGURATION) and ours(name, top=True)))


def _by_component(paths: Iterable[bytes]) -> list[bytes]:
    """Paths with NUL between components, which no name holds, sorted: all that lies in a directory comes together."""
    return sorted(path.replace(b"/", b"\0") for path in paths)


def _own_name(row: Row) -> bool:
    return row.entry_name == bucket_name(row.name)


def _displaced(kind: int, row: Row) -> bool:
    """Whether a directory has come into the place of a file that only had another's name there, as conflict copies do.

    It is no version of that path, whose directory may lie beside it under the path's own name.
    """
    return kind == DIRECTORY and row.kind != Kind.DIRECTORY and not _own_name(row)


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _matches(entry: DiskEntry, row: Row) -> bool:
    if entry.kind != row.kind or row.hidden:
        return False
    if entry.kind == DIRECTORY:
        return entry.mode == (row.mode if row.stat is None else row.stat[0])
    return row.stat is not None and entry.stat == row.stat


def _same_file(entry: DiskEntry, intent: Row) -> bool:
    if intent.stat is None:
        return False
    mode, size, mtime_ns, _, inode = intent.stat
    expected = (mode, size, mtime_ns, inode)
    return entry.kind in (FILE, SYMLINK) and (entry.mode, entry.size, entry.mtime_ns, entry.inode) == expected
