"""A directory as a bucket: a disk, a network share, or the stand-in for a provider in tests.

An object is a file at its key. It is written beside its place and renamed, so nobody sees a part of it; with
``durable`` the file and the names that lead to it are on disk before a put returns. Symbolic links in the directory
are never followed: what is behind one is not in the bucket. As in any file system ``a`` and ``a/b`` cannot both be
objects.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from buckia.errors import (
    AccessDenied,
    BucketError,
    BucketNotFound,
    BuckiaError,
    ObjectNotFound,
    PreconditionFailed,
    QuotaExceeded,
    Transient,
)
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo, Page, check_key
from buckia.sync.files import write_all

TEMPORARY = ".buckia-tmp-"
"""Files of this prefix are puts that have not ended."""

_ABANDONED_SECONDS = 86400
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_ATTEMPTS = 8
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)


class LocalSync(BaseSync):
    """A bucket in the existing directory ``root``. Without ``durable`` a put may be lost when the machine stops."""

    def __init__(self, root: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.root = Path(root).absolute()
        super().__init__(str(self.root), Capabilities(conditional_put=True, object_bytes_max=1 << 62))
        self._durable = durable
        self._durable_names: set[tuple[str, ...]] = set()
        self._swept: set[tuple[str, ...]] = set()

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # a deletion took away the directory that it had left empty
                return self._put_once(key, data, if_absent)
        return self._put_once(key, data, if_absent)

    def _put_once(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        *parents, name = key.split("/")
        with self._directory(tuple(parents), create=True) as directory:
            temporary = TEMPORARY + secrets.token_hex(8)
            try:
                info = self._write(directory, temporary, key, data)
                if if_absent:
                    os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
                else:
                    os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                    temporary = ""
            except FileExistsError:
                raise PreconditionFailed(f"{self.location} holds {key} already.") from None
            finally:
                if temporary:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=directory)
            if self._durable:
                os.fsync(directory)
        return info

    def _write(self, directory: int, name: str, key: str, data: memoryview) -> ObjectInfo:
        descriptor = os.open(name, _CREATE, 0o666, dir_fd=directory)
        try:
            write_all(descriptor, data)
            if self._durable:
                os.fsync(descriptor)
            return _info(key, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        with self._file(key) as (descriptor, found):
            end = found.st_size if length is None else min(offset + length, found.st_size)
            if end <= offset:
                return b""
            data = os.pread(descriptor, end - offset, offset)
            while len(data) < end - offset:  # one call reads at most 2 GiB
                part = os.pread(descriptor, end - offset - len(data), offset + len(data))
                if not part:
                    break
                data += part
            return data

    def _stat(self, key: str) -> ObjectInfo:
        with self._file(key) as (_, found):
            return _info(key, found)

    def _list(self, prefix: str, token: str | None) -> Page:
        *parents, begin = prefix.split("/")
        try:
            with self._directory(tuple(parents)) as directory:
                return Page([*self._walk(directory, "".join(f"{part}/" for part in parents), begin)])
        except FileNotFoundError:
            return Page(())

    def _walk(self, directory: int, path: str, begin: str = "") -> Iterator[ObjectInfo]:
        with os.scandir(directory) as entries:
            # A directory sorts as its name and a slash: that is the order of the keys.
            names = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry.name) for entry in entries)
        for shown, name in names:
            if not shown.startswith(begin) or name.startswith(TEMPORARY):
                continue
            # A name that is not UTF-8 is no key, but is shown.
            key = path + os.fsencode(shown).decode(errors="replace")
            try:
                if not shown.endswith("/"):
                    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield _info(key, found)
                    continue
                below = os.open(name, _DIRECTORY, dir_fd=directory)
            except FileNotFoundError:
                continue  # deleted meanwhile
            try:
                yield from self._walk(below, key)
            finally:
                os.close(below)

    def _delete(self, key: str) -> None:
        *parents, name = key.split("/")
        with suppress(FileNotFoundError, IsADirectoryError), self._directory(tuple(parents)) as directory:
            os.unlink(name, dir_fd=directory)
            if self._durable:
                os.fsync(directory)
        self._prune(parents)

    def _prune(self, parents: list[str]) -> None:
        """Remove directories that are empty now, as elsewhere no trace is left of a key's slashes either."""
        while parents:
            *above, name = parents
            try:
                with self._directory(tuple(above)) as directory:
                    os.rmdir(name, dir_fd=directory)
            except OSError:
                return  # it is not empty, or not ours to remove: either way it stays
            parents = above

    def _close(self) -> None:
        """Nothing stays open between requests."""

    def get_public_url(self, key: str) -> str:
        """The ``file:`` address of the object."""
        check_key(key)
        return (self.root / key).as_uri()

    @contextmanager
    def _file(self, key: str) -> Iterator[tuple[int, os.stat_result]]:
        *parents, name = key.split("/")
        missing = f"{self.location} holds no {key}."
        try:
            with self._directory(tuple(parents)) as directory:
                descriptor = os.open(name, _READ, dir_fd=directory)
        except OSError as error:
            if error.errno in (*_ABSENT, errno.ENXIO):
                raise ObjectNotFound(missing) from None
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ObjectNotFound(missing)
            yield descriptor, found
        finally:
            os.close(descriptor)

    @contextmanager
    def _directory(self, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory at ``parts``, reached without following a link. `FileNotFoundError` if there
        is none.
        """
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise BucketNotFound(f"There is no directory {self.root}.") from None
        try:
            for depth in range(1, len(parts) + 1):
                below = self._enter(descriptor, parts[:depth], create)
                os.close(descriptor)
                descriptor = below
            if create and parts not in self._swept:
                _sweep(descriptor)
                self._swept.add(parts)
            yield descriptor
        finally:
            os.close(descriptor)

    def _enter(self, parent: int, parts: tuple[str, ...], create: bool) -> int:
        if create and parts not in self._durable_names:
            with suppress(FileExistsError):
                os.mkdir(parts[-1], 0o777, dir_fd=parent)
            if self._durable:
                # Also when it existed: whoever made it may have died before this.
                os.fsync(parent)
            self._durable_names.add(parts)
        try:
            return os.open(parts[-1], _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if parts not in self._durable_names:
                raise
            self._durable_names.discard(parts)  # somebody removed it
            return self._enter(parent, parts, create)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if create:
                raise BucketError(f"{self.root}/{'/'.join(parts)} is in the way: it is not a directory.") from None
            raise FileNotFoundError(errno.ENOENT, "no such directory", parts[-1]) from None

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.EACCES, errno.EPERM):
            return AccessDenied(f"The permissions of {self.root} do not allow access to {key}.")
        if code == errno.EROFS:
            return AccessDenied(f"{self.root} is on a read-only file system.")
        if code in _FULL:
            return QuotaExceeded(f"There is no space left for {self.root}.")
        if code in _PASSING:
            return Transient(f"{self.root}: {os.strerror(code or 0)}.")
        return super()._translate(error, key)


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectInfo(key, found.st_size, etag, {}, found.st_mtime_ns / 1e9)


def _sweep(directory: int) -> None:
    """Removes what a killed process left a day or longer ago."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY):
                continue
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - _ABANDONED_SECONDS:
                    os.unlink(entry.name, dir_fd=directory)
