"""Local files on their way to and from buckets: written whole or not at all, flushed, and errors in words."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from buckia.errors import BucketError, LocalError

PART_BYTES = 16 << 20
"""So much of an object is in memory at a time."""


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
