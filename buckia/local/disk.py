"""The disk of this machine behind the interface of ``buckia.local.fs``."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat as stat_module
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar

from buckia.core.ids import Buffer
from buckia.errors import LocalError
from buckia.local.fs import (
    DIRECTORY,
    FILE,
    SPECIAL,
    SYMLINK,
    DiskEntry,
    RawEntry,
    ReadHandle,
    WriteHandle,
    local_error,
    printable,
)

P = ParamSpec("P")
R = TypeVar("R")


def _translated(doing: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn OSError into LocalError. The path is the method's first argument, or that of its handle."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except OSError as error:
                raise local_error(error, doing, _subject(args)) from error
            except ValueError as error:  # an embedded NUL, or a name that the system's encoding lacks
                raise LocalError(f"Cannot {doing} {printable(_subject(args))}: {error}.") from error

        return call

    return decorate


def _subject(args: tuple[Any, ...]) -> str:
    return args[0].path if isinstance(args[0], _Handle) else str(args[1])


_WINDOWS = os.name == "nt"
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {stat_module.S_IFREG: FILE, stat_module.S_IFLNK: SYMLINK, stat_module.S_IFDIR: DIRECTORY}
_SYNC_THREADS = 8
"""Measured: 1000 small files take 0.17 s one after the other, 0.05 s with 8 threads, as the disk groups commits."""


_SYNC_SLOW_SECONDS = 0.02
"""A batch that is not flushed within this time goes on with threads."""


def _entry(name: str, found: os.stat_result) -> DiskEntry:
    mode = found.st_mode
    kind = _KINDS.get(mode & 0o170000, SPECIAL)
    if kind == DIRECTORY:
        return DiskEntry(name, kind, mode & 0o7777, 0, 0, 0, 0)
    return DiskEntry(name, kind, mode & 0o7777, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class _Handle:
    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _RealReadHandle(_Handle):
    __slots__ = ()

    @_translated("read")
    def readinto(self, buffer: bytearray | memoryview) -> int:
        if hasattr(os, "readv"):
            return os.readv(self._fd, [buffer])
        data = os.read(self._fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @_translated("read")
    def read_at(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            if hasattr(os, "pread"):
                part = os.pread(self._fd, length, offset)
            else:
                os.lseek(self._fd, offset, os.SEEK_SET)
                part = os.read(self._fd, length)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @_translated("read")
    def stat(self) -> DiskEntry:
        return _entry("", os.fstat(self._fd))


class _RealWriteHandle(_Handle):
    __slots__ = ()

    @_translated("write")
    def write(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    @_translated("set the permissions of")
    def set_mode(self, mode: int) -> None:
        if hasattr(os, "fchmod"):
            os.fchmod(self._fd, mode)
        else:
            os.chmod(self.path, mode)

    @_translated("set the time of")
    def set_mtime(self, mtime_ns: int) -> None:
        os.utime(self._fd if os.utime in os.supports_fd else self.path, ns=(mtime_ns, mtime_ns))

    @_translated("write")
    def sync(self) -> None:
        _sync(self._fd)


def _sync(fd: int) -> None:
    """Flush to the medium itself: on macOS plain ``fsync`` stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
    os.fsync(fd)


def _rename_exclusive() -> Callable[[bytes, bytes], int] | None:
    """The system's rename that never replaces, or None. It returns 0 or sets errno."""
    names = {"linux": ("renameat2", (-100, None, -100, None, 1)), "darwin": ("renamex_np", (None, None, 4))}
    if sys.platform not in names:
        return None
    name, form = names[sys.platform]
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return None
    if len(form) == 5:
        return lambda source, target: int(function(form[0], source, form[2], target, form[4]))
    return lambda source, target: int(function(source, target, form[2]))


class RealFileSystem:
    """The disk of this machine."""

    def __init__(self) -> None:
        self._insensitive: dict[str, bool] = {}
        self._exclusive = _rename_exclusive()

    @_translated("read the directory")
    def scan(self, path: str) -> list[RawEntry]:
        """See ``FileSystem``."""
        # The hottest loop of a run without changes: nothing here but the system call and one tuple.
        result: list[RawEntry] = []
        add, kind_of = result.append, _KINDS.get
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                mode = found.st_mode
                kind = kind_of(mode & 0o170000, SPECIAL)
                if kind == DIRECTORY:
                    add((entry.name, kind, mode & 0o7777, 0, 0, 0, 0))
                    continue
                if _WINDOWS:  # scandir does not know inode and ctime there as lstat does
                    found = os.lstat(entry.path)
                size, mtime_ns, ctime_ns, inode = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
                add((entry.name, kind, mode & 0o7777, size, mtime_ns, ctime_ns, inode))
        return result

    @_translated("look at")
    def stat(self, path: str) -> DiskEntry | None:
        """See ``FileSystem``."""
        try:
            return _entry(path.rpartition("/")[2], os.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # below a link that leads to itself there is nothing
                return None
            raise

    @_translated("look at")
    def device(self, path: str) -> int:
        """See ``FileSystem``."""
        # The file system's own id survives restarts, device numbers may not.
        if hasattr(os, "statvfs"):
            identity = os.statvfs(path).f_fsid
            if identity:
                return identity
        return os.stat(path).st_dev

    @_translated("look at")
    def real_path(self, path: str) -> str:
        """See ``FileSystem``."""
        real = os.path.realpath(path)
        return real.replace("\\", "/") if _WINDOWS else real

    @_translated("look at")
    def free_bytes(self, path: str) -> int:
        """See ``FileSystem``."""
        usage = shutil.disk_usage(path)
        return usage.free if usage.total else 1 << 63  # some network file systems say nothing

    @_translated("read the directory")
    def case_insensitive(self, path: str) -> bool:
        """See ``FileSystem``. Looks up an existing name with its case swapped."""
        known = self._insensitive.get(path)
        if known is None:
            known = self._insensitive[path] = self._probe(path)
        return known

    def _probe(self, path: str) -> bool:
        names = set(os.listdir(path))
        for directory, candidates in ((path, names), (os.path.dirname(path), {os.path.basename(path)})):
            for name in candidates:
                swapped = name.swapcase()
                if swapped == name or swapped in names:
                    continue
                try:
                    other = os.lstat(os.path.join(directory, swapped))
                except FileNotFoundError:
                    return False
                return os.path.samestat(os.lstat(os.path.join(directory, name)), other)
        return sys.platform in ("win32", "darwin")

    @_translated("open")
    def open_read(self, path: str) -> ReadHandle:
        """See ``FileSystem``."""
        return _RealReadHandle(path, os.open(path, _READ_FLAGS))

    @_translated("create")
    def create(self, path: str) -> WriteHandle:
        """See ``FileSystem``."""
        return _RealWriteHandle(path, os.open(path, _CREATE_FLAGS, 0o600))

    def sync_files(self, paths: Iterable[str]) -> None:
        """See ``FileSystem``."""
        todo = list(paths)
        start = time.monotonic()
        while todo:
            # Where a flush costs next to nothing (memory, a cached disk), threads would only be in each other's way.
            self._sync_file(todo.pop())
            if time.monotonic() - start > _SYNC_SLOW_SECONDS:
                break
        if not todo:
            return
        with ThreadPoolExecutor(min(_SYNC_THREADS, len(todo))) as pool:
            for _ in pool.map(self._sync_file, todo):
                pass

    @_translated("write")
    def _sync_file(self, path: str) -> None:
        # Windows flushes through a writable handle only; elsewhere the file may be read-only by now.
        fd = os.open(path, (os.O_RDWR if _WINDOWS else os.O_RDONLY) | getattr(os, "O_NOFOLLOW", 0))
        try:
            _sync(fd)
        finally:
            os.close(fd)

    @_translated("write")
    def sync_directory(self, path: str) -> None:
        """See ``FileSystem``. Windows has no such call: its file systems journal names."""
        if _WINDOWS:
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _sync(fd)
        finally:
            os.close(fd)

    @_translated("rename")
    def rename(self, source: str, target: str, *, replace: bool) -> None:
        """See ``FileSystem``."""
        if replace:
            os.replace(source, target)
        elif _WINDOWS:
            os.rename(source, target)
        elif self._exclusive is None or self._exclusive(os.fsencode(source), os.fsencode(target)):
            code = ctypes.get_errno() if self._exclusive else errno.ENOSYS
            if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
                raise OSError(code, os.strerror(code), source)
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "exists", target)
            os.rename(source, target)

    @_translated("create the directory")
    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """See ``FileSystem``."""
        os.mkdir(path, mode)

    @_translated("remove the directory")
    def rmdir(self, path: str) -> None:
        """See ``FileSystem``."""
        os.rmdir(path)

    @_translated("remove")
    def unlink(self, path: str) -> None:
        """See ``FileSystem``."""
        os.unlink(path)

    @_translated("read the link")
    def readlink(self, path: str) -> bytes:
        """See ``FileSystem``."""
        return os.fsencode(os.readlink(path))

    @_translated("create the link")
    def symlink(self, target: bytes, path: str) -> None:
        """See ``FileSystem``."""
        os.symlink(os.fsdecode(target), path)

    @_translated("set the permissions of")
    def set_mode(self, path: str, mode: int) -> None:
        """See ``FileSystem``."""
        os.chmod(path, mode)

    @_translated("set the time of")
    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """See ``FileSystem``."""
        follow = os.utime not in os.supports_follow_symlinks
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=follow)
