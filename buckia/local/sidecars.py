"""What SQLite keeps beside a database: changes that are not in it yet, or that are to be taken back.

It applies them to whatever lies under the database's name when it is opened next, so they must never meet another file
than their own.
"""

from __future__ import annotations

from buckia.errors import LocalError
from buckia.local.fs import FILE, FileSystem, printable

SIDECARS = ("-wal", "-shm", "-journal")
SQLITE_MAGIC = b"SQLite format 3\0"
_HOLDING = {"-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"), "-journal": (b"\xd9\xd5\x05\xf9",)}
"""Those that hold changes, and how they begin."""
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
    for suffix, beginnings in _HOLDING.items():
        entry = fs.stat(path + suffix)
        if entry is None or entry.kind != FILE or not entry.size:
            continue
        head = _head(fs, path + suffix, 4)
        if head in beginnings if stale else head is None or head[0]:  # a zero: it was applied, and kept for later use
            return suffix
    return None


def is_database(fs: FileSystem, path: str) -> bool:
    """Whether what is at ``path`` is a database, or may be one: it cannot be read, or is empty as all is beside it."""
    return _head(fs, path, len(SQLITE_MAGIC)) in (SQLITE_MAGIC, b"", None)


def require_closed(fs: FileSystem, path: str, name: str) -> None:
    """Raise ``InUseError`` if the file at the absolute ``path``, called ``name``, is a database with changes beside
    it.
    """
    suffix = changes_beside(fs, path)
    if suffix is not None and is_database(fs, path):
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
