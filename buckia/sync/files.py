"""Local files on their way to and from buckets: written whole or not at all, flushed, and errors in words."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from buckia.errors import BucketError, LocalError

PART_BYTES = 16 << 20
"""So much of an object is in memory at a time."""
_READ_BYTES = 256 << 10


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all bytes to a descriptor, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Makes names that were created in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, size_max: int) -> bytes:
    """A whole file. Raises `BucketError` if it is larger than ``size_max`` bytes, `LocalError` if it cannot be read."""
    try:
        if path.stat().st_size > size_max:
            raise BucketError(f"{path} is larger than one object may be there.")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}.") from error


class LocalFile:
    """A file that must stay as it is while it is read. Raises `LocalError` if it cannot be read or was changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._signature()
        self.size = self._seen[0]

    def check(self) -> None:
        """Raises `LocalError` if the file is not the one that was there at first."""
        if self._signature() != self._seen:
            raise LocalError(f"{self.path} was changed while it was uploaded.", hint="Upload it again.")

    @contextmanager
    def part(self, offset: int, length: int, ask: Callable[[int], None]) -> Iterator[FilePart]:
        """A part of it as the body of a request."""
        self.check()
        try:
            with open(self.path, "rb", buffering=0) as file:
                yield FilePart(file, offset, length, ask)
        except OSError as error:
            raise LocalError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def _signature(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise LocalError(f"{self.path} cannot be read: {error.strerror}.") from error
        return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


class FilePart(io.RawIOBase):
    """A part of a file as a file of its own; ``ask(count)`` is called before so many bytes of it are handed out."""

    def __init__(self, file: io.FileIO, offset: int, length: int, ask: Callable[[int], None]) -> None:
        self._file = file
        self._offset = offset
        self._length = length
        self._ask = ask
        self._position = 0

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do; the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        return self._read(size, self._ask)

    def digest(self, algorithm: str) -> bytes:
        """The digest of the whole part; nobody is asked, as nothing is sent."""
        digest = hashlib.new(algorithm, usedforsecurity=False)
        self.seek(0)
        while data := self._read(_READ_BYTES, lambda count: None):
            digest.update(data)
        self.seek(0)
        return digest.digest()

    def _read(self, size: int | None, ask: Callable[[int], None]) -> bytes:
        left = max(0, self._length - self._position)
        count = min(left, _READ_BYTES, left if size is None or size < 0 else size)
        if not count:
            return b""
        ask(count)
        self._file.seek(self._offset + self._position)
        data = self._file.read(count)
        if not data:
            raise LocalError(f"{self._file.name} became shorter while it was uploaded.", hint="Upload it again.")
        self._position += len(data)
        return data


@contextmanager
def replacing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that appends to a file beside ``path``; at the end, unless an error came, it takes the place of
    ``path`` in one step. Raises `LocalError`.
    """
    staged = path.with_name(f".buckia-tmp-{secrets.token_hex(8)}")
    try:
        with _local_errors(path):
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:

            def write(data: bytes) -> None:
                with _local_errors(path):
                    write_all(descriptor, data)

            yield write
            with _local_errors(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with _local_errors(path):
            os.replace(staged, path)
            fsync_directory(path.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}.") from error
