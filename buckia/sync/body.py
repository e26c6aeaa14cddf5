"""Bodies in slices: a bandwidth limit holds, and a request to stop is noticed, while they flow and not only between
them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Protocol

from buckia.errors import Transient
from buckia.sync.admin import Verb

SLICE_BYTES = 64 << 10
"""Bytes that are sent or received between two questions to the pacer."""
SLOW_SECONDS = 60.0
"""Time of waiting for bytes over which their rate is measured."""
SLOW_BYTES_PER_SECOND = 1024
"""A body that comes more slowly than this is given up."""

Read = Callable[[int], bytes]
"""The next bytes of a body, up to so many, as soon as there are any; none at its end."""


class Pacer(Protocol):
    """Decides when a request may begin and bytes may flow: each call returns as soon as they may."""

    def request(self, verb: Verb) -> None:
        """One request is about to be made."""

    def uploading(self, count: int) -> None:
        """So many bytes are about to be sent."""

    def downloading(self, count: int) -> None:
        """So many bytes have arrived. Raises `CancelledError` where the work was cancelled."""

    def throttled(self) -> None:
        """The provider wants fewer requests."""

    @property
    def limits_bytes(self) -> bool:
        """Bytes are limited, so bodies have to be sent and received in slices."""


class PacedBody(io.RawIOBase):
    """Bytes as a file that asks ``ask(count)`` before it hands out the next slice. HTTP libraries read it as a body."""

    def __init__(self, data: memoryview, ask: Callable[[int], None]) -> None:
        self._data = data
        self._ask = ask
        self._position = 0

    def __len__(self) -> int:
        return len(self._data)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: libraries find out the size by it."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do; the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, never more than a slice; none at the end."""
        left = max(0, len(self._data) - self._position)
        count = min(left, SLICE_BYTES, left if size is None or size < 0 else size)
        if count:
            self._ask(count)
        part = bytes(self._data[self._position : self._position + count])
        self._position += count
        return part


def read_slices(
    read: Read, tell: Callable[[int], None], where: str, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """A whole body, slice by slice; ``tell(count)`` is told of each and may raise. ``clock`` returns seconds.

    Raises `Transient`, which begins with ``where``, for one that drips. Of a single pause half a minute counts: how
    long one may be is for the connection's timeout to say.
    """
    body = io.BytesIO()  # whose `getvalue` is no copy
    waited, counted = 0.0, 0
    while True:
        begin = clock()
        part = read(SLICE_BYTES)
        waited += min(clock() - begin, SLOW_SECONDS / 2)
        if not part:
            return body.getvalue()
        tell(len(part))
        body.write(part)
        if waited >= SLOW_SECONDS:
            if body.tell() - counted < SLOW_SECONDS * SLOW_BYTES_PER_SECOND:
                raise Transient(f"{where}: less than {SLOW_BYTES_PER_SECOND} bytes per second arrived.")
            waited, counted = 0.0, body.tell()
