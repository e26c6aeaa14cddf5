"""What SQLite keeps beside a database: changes that are not in it yet, or that are to be taken back.

It applies them to whatever lies under the database's name when it is opened next, so they must never meet another file
than their own.
"""

from __future__ import annotations

from buckia.errors import LocalError
from buckia.local.fs import FILE, FileSystem, printable

SIDECARS = ("-wal", "-shm", "-journal")
SQLITE_MAGIC = b"SQLite format 3\0"
_BEGINNINGS = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": (b"\x18\xe2\x2d\x00", b"\x00\x2d\xe2\x18"),
    "-journal": (b"\xd9\xd5\x05\xf9",),
}
_UNWRITTEN = b"\0\0\0\0"
"""How one begins whose header is not written yet, or was wiped out as its changes were applied."""
_HOLDING = ("-wal", "-journal")
"""Those that hold changes."""
_ADVICE = {
    "-wal": "close it, or run `PRAGMA wal_checkpoint(TRUNCATE)`",
    "-journal": "open it once more, and close it",
}


class InUseError(LocalError):
    """A database that is not to be touched while there are changes beside it."""


def sidecars(fs: FileSystem, path: str) -> list[str]:
    """All that lies beside the absolute ``path``, as suffixes."""
    found = ((suffix, fs.stat(path + suffix)) for suffix in SIDECARS)
    return [suffix for suffix, entry in found if entry is not None and entry.kind == FILE]


def changes_beside(fs: FileSystem, path: str, *, stale: bool = False) -> str | None:
    """The suffix of the file that holds changes of the database at the absolute ``path``, or None.

    ``stale``: no database is there, so that only what begins as SQLite writes it counts.
    """
    for suffix in _HOLDING:
        entry = fs.stat(path + suffix)
        if entry is None or entry.kind != FILE or not entry.size:
            continue
        head = _head(fs, path + suffix, 4)
        # A zero: it was applied, and kept for later use.
        if head in _BEGINNINGS[suffix] if stale else head is None or head[0]:
            return suffix
    return None


def belongs(fs: FileSystem, directory: str, name: str) -> bool:
    """Whether a file, called like what SQLite keeps beside a file that is there, is that: alone, or of another moment,
    it is worth nothing or does harm. What cannot be told counts as such.
    """
    stem, _, suffix = name.rpartition("-")
    head = _head(fs, f"{directory}/{stem}", len(SQLITE_MAGIC))
    if head:
        return head == SQLITE_MAGIC
    beginning = _head(fs, f"{directory}/{name}", 4)  # the database is not written yet, or it is no database at all
    return head is None or beginning in (None, _UNWRITTEN, *_BEGINNINGS[f"-{suffix}"])


def open_changes(fs: FileSystem, path: str) -> str | None:
    """As ``changes_beside``, if what is at ``path`` is a database, or may be one: it cannot be read, or is empty and
    what is beside it begins as SQLite writes it.
    """
    suffix = changes_beside(fs, path)
    head = _head(fs, path, len(SQLITE_MAGIC)) if suffix is not None else b""
    if head == b"":
        return changes_beside(fs, path, stale=True) if suffix is not None else None
    return suffix if head in (SQLITE_MAGIC, None) else None


def require_closed(fs: FileSystem, path: str, name: str) -> None:
    """Raise ``InUseError`` if the file at the absolute ``path``, called ``name``, is a database with changes beside
    it.
    """
    suffix = open_changes(fs, path)
    if suffix is not None:
        name = printable(name)
        raise InUseError(
            f"{name} is in use or was not closed: {name}{suffix} holds changes that are not in it yet; "
            f"{_ADVICE[suffix]}."
        )


def require_none_stale(fs: FileSystem, path: str, name: str) -> None:
    """Raise ``InUseError`` if changes of a database that is gone wait where one is to be put."""
    suffix = changes_beside(fs, path, stale=True)
    if suffix is not None:
        name = printable(name)
        raise InUseError(
            f"{name} is not written here: {name}{suffix} holds changes of another database, which SQLite would apply "
            "to it; move it away."
        )


def _head(fs: FileSystem, path: str, length: int) -> bytes | None:
    """The first bytes of a file; None where they cannot be read."""
    try:
        with fs.open_read(path) as file:
            return file.read_at(0, length)
    except LocalError:
        return None
