"""The user's tree: every effect on it goes through one small interface, so that tests replace the whole disk.

Paths are ``str`` with ``/`` between components; bytes that are not UTF-8 travel as surrogate escapes
(``os.fsdecode``). No call
follows a symbolic link in the last component. Every failure is a ``LocalError`` with one clear sentence.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple, Protocol, Self

from buckia.core.ids import Buffer
from buckia.errors import LocalError

FILE = 0
SYMLINK = 1
DIRECTORY = 2
SPECIAL = 3

RawEntry = tuple[str, int, int, int, int, int, int]
"""The fields of a ``DiskEntry`` as a plain tuple, which is cheaper to make by the hundred thousand."""

Stat = tuple[int, int, int, int, int]
"""(mode, size, mtime ns, ctime ns, inode): what tells a changed file from an unchanged one."""


class DiskEntry(NamedTuple):
    """One name in a directory, as ``lstat`` sees it. Of a directory only name, kind and mode are set, the rest is 0."""

    name: str
    kind: int
    """``FILE``, ``SYMLINK``, ``DIRECTORY`` or ``SPECIAL``."""
    mode: int
    """12 permission bits."""
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def stat(self) -> Stat:
        """What is compared to find changes."""
        return self[2:]


class VanishedError(LocalError):
    """The path, or a directory above it, does not exist."""


class ExistsError(LocalError):
    """Something is already there."""


class DiskFullError(LocalError):
    """No room or quota left: going on with other files is pointless."""


class ReadHandle(Protocol):
    """A file that is open for reading."""

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` from the present position; the number of bytes read, 0 at the end."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; shorter only at the end of the file."""

    def stat(self) -> DiskEntry:
        """The open file's present state (the name is empty)."""

    def close(self) -> None:
        """Close; further calls do nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class WriteHandle(Protocol):
    """A new file that is open for writing."""

    def write(self, data: Buffer) -> None:
        """Append all of ``data``."""

    def set_mode(self, mode: int) -> None:
        """Set the permission bits."""

    def set_mtime(self, mtime_ns: int) -> None:
        """Set the modification time; call it after the last write."""

    def sync(self) -> None:
        """Return when the file's bytes are on the disk."""

    def close(self) -> None:
        """Close; further calls do nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class FileSystem(Protocol):
    """Every effect on the user's tree. All methods raise ``LocalError`` and nothing else."""

    def scan(self, path: str) -> list[RawEntry]:
        """All entries of one directory, unsorted. One that vanishes meanwhile is left out."""

    def stat(self, path: str) -> DiskEntry | None:
        """The entry at ``path``; None if nothing is there."""

    def device(self, path: str) -> int:
        """A number that is the same for all paths of one file system and differs between file systems."""

    def real_path(self, path: str) -> str:
        """The absolute path without symbolic links."""

    def free_bytes(self, path: str) -> int:
        """Bytes that this user may still write; a very large number where the file system does not say."""

    def case_insensitive(self, path: str) -> bool:
        """Whether names that differ in case only are one file in this directory. Writes nothing."""

    def open_read(self, path: str) -> ReadHandle:
        """Open a file; a symbolic link is refused."""

    def create(self, path: str) -> WriteHandle:
        """Create a file that must not exist, readable by this user only; ``ExistsError``."""

    def sync_files(self, paths: Iterable[str]) -> None:
        """Return when the bytes and attributes of all these files are on the disk."""

    def sync_directory(self, path: str) -> None:
        """Return when the names in this directory are on the disk."""

    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """Rename in one step, over a file if ``replace``; else ``ExistsError`` if something is there."""

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Create one directory, with what the umask leaves of ``mode``; ``ExistsError``."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; ``ExistsError`` if it is not empty."""

    def unlink(self, path: str) -> None:
        """Remove a file or symbolic link."""

    def readlink(self, path: str) -> bytes:
        """The target of a symbolic link."""

    def symlink(self, target: bytes, path: str) -> None:
        """Create a symbolic link; ``ExistsError``."""

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits of a file or directory."""

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Set the modification time of a file or of a symbolic link itself."""


# --- errors ---

_REASONS: dict[int, tuple[type[LocalError], str]] = {
    errno.ENOENT: (VanishedError, "it does not exist"),
    errno.ENOTDIR: (VanishedError, "a part of the path is not a directory"),
    errno.EEXIST: (ExistsError, "it exists already"),
    errno.ENOTEMPTY: (ExistsError, "the directory is not empty"),
    errno.ENOSPC: (DiskFullError, "the disk is full"),
    errno.EDQUOT: (DiskFullError, "the disk quota is used up"),
    errno.EACCES: (LocalError, "permission denied"),
    errno.EPERM: (LocalError, "the operation is not permitted"),
    errno.EROFS: (LocalError, "the file system is read-only"),
    errno.ENAMETOOLONG: (LocalError, "the name is too long for this file system"),
    errno.EILSEQ: (LocalError, "this file system does not allow the name"),
    errno.ELOOP: (LocalError, "it is a symbolic link"),
    errno.EISDIR: (LocalError, "it is a directory"),
    errno.EXDEV: (LocalError, "it lies on another file system"),
    errno.EFBIG: (LocalError, "the file is too large for this file system"),
    errno.EMFILE: (LocalError, "too many files are open"),
    errno.EIO: (LocalError, "the disk reported an error"),
    errno.EBUSY: (LocalError, "another program uses it"),
}


def printable(path: str) -> str:
    """``path`` for messages: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


def local_error(error: OSError, doing: str, path: str) -> LocalError:
    """The one place where the system's errors become ours, as ``Cannot <doing> <path>: <reason>.``"""
    kind, reason = _REASONS.get(error.errno or 0, (LocalError, error.strerror or str(error)))
    return kind(f"Cannot {doing} {printable(path)}: {reason}.")
