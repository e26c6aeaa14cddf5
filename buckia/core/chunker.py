"""Where a file is cut into chunks: ``specs/format.md``, section 5.

Two profiles, both pure functions of the file's bytes: *pages* for SQLite databases, *default* (content-defined) for the
rest. Default has three kernels with identical cuts: ``c`` (about 5 GB/s), ``numpy`` (0.3) and ``python`` (0.02).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from buckia.core.ids import Buffer, derive_key
from buckia.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

CHUNK_MIN = 64 << 10
"""Bytes; only the last chunk of a file is shorter."""
CHUNK_AVG = 256 << 10
"""Bytes; from this length on a chunk is cut more eagerly."""
CHUNK_MAX = 1 << 20
"""Bytes; no chunk is longer."""

_WINDOW = 64
_PHASES = ((CHUNK_MIN, CHUNK_AVG, 1 << 44), (CHUNK_AVG, CHUNK_MAX, 1 << 48))
"""From which length, below which length, a chunk ends where the hash is below which limit."""
_TABLE = derive_key("buckia v1 public gear", length=2048)
_GEAR = struct.unpack(">256Q", _TABLE)

_SQLITE_MAGIC = b"SQLite format 3\0"


class Kernel(Protocol):
    """One implementation of the default profile."""

    @property
    def name(self) -> str:
        """``c``, ``numpy`` or ``python``."""

    def cuts(self, data: Buffer, final: bool) -> list[int]:
        """End offsets of all complete chunks of ``data``, which begins at a chunk's start; see `chunk_ends`."""


def kernel(name: str | None = None) -> Kernel:
    """The kernel with this name, or the fastest that is there. UsageError if it is unknown or not installed."""
    if name is None:
        return _first_available()
    if name not in _KERNELS:
        raise UsageError(f"There is no chunker {name!r}.", hint=f"Choose one of {', '.join(_KERNELS)}.")
    return _KERNELS[name]()


def page_size(head: Buffer) -> int | None:
    """The page size in bytes if the file that begins with ``head`` is cut into pages; 18 bytes of it are looked at."""
    if bytes(head[:16]) != _SQLITE_MAGIC or len(head) < 18:
        return None
    size = int.from_bytes(head[16:18], "big")
    if size == 1:
        return 65536
    return size if 512 <= size <= 32768 and size.bit_count() == 1 else None


def chunk_ends(data: Buffer, *, kernel: Kernel, page_size: int | None, final: bool) -> list[int]:
    """End offsets of all complete chunks in ``data``, which begins at a chunk's start.

    Bytes after the last offset belong to a chunk that needs more data; with ``final`` they are the file's last chunk.
    Any window of at least `CHUNK_MAX` bytes (a page, if ``page_size`` is given) makes progress.
    """
    if page_size is None:
        return kernel.cuts(data, final)
    size = len(data)
    ends = list(range(page_size, size + 1, page_size))
    if final and size % page_size:
        ends.append(size)
    return ends


_Find = Callable[[memoryview, int, int, int], int]
"""(data, begin, end, limit) -> first position in [begin, end) whose hash is below the limit, or ``end``."""


def _walk(data: Buffer, final: bool, find: _Find) -> list[int]:
    view = memoryview(data)
    ends: list[int] = []
    start = 0
    while (end := _chunk_end(view, start, find)) is not None:
        ends.append(end)
        start = end
    if final and start < len(view):
        ends.append(len(view))
    return ends


def _chunk_end(view: memoryview, start: int, find: _Find) -> int | None:
    size = len(view)
    for shortest, longest, limit in _PHASES:
        begin, end = start + shortest - 1, min(start + longest - 1, size)
        if begin >= size:
            return None
        hit = find(view, begin, end, limit)
        if hit < end:
            return hit + 1
    return start + CHUNK_MAX if start + CHUNK_MAX <= size else None


class _CKernel:
    name = "c"

    def __init__(self) -> None:
        try:
            from buckia.core import _gear
        except ImportError as error:
            raise UsageError(
                "The C chunker is not there: buckia was installed without a compiler.",
                hint="Install a C compiler and reinstall buckia, or choose the chunker 'numpy' or 'python'.",
            ) from error
        self._cuts = _gear.cuts

    def cuts(self, data: Buffer, final: bool) -> list[int]:
        return self._cuts(data, final, _TABLE)


class _NumpyKernel:
    name = "numpy"

    _BLOCK = 8 << 10  # positions hashed at a time: the fastest measured, as the arrays stay in the nearest cache

    def __init__(self) -> None:
        try:
            import numpy
        except ImportError as error:
            raise MissingExtraError("The chunker 'numpy' needs NumPy.", hint="pip install numpy") from error
        self._np: Any = numpy
        self._gear: NDArray[numpy.uint64] = numpy.array(_GEAR, dtype=numpy.uint64)

    def cuts(self, data: Buffer, final: bool) -> list[int]:
        return _walk(data, final, self._find)

    def _find(self, view: memoryview, begin: int, end: int, limit: int) -> int:
        for at in range(begin, end, self._BLOCK):
            hashes = self._hashes(view[at - _WINDOW + 1 : min(at + self._BLOCK, end)])
            below = hashes < self._np.uint64(limit)
            first = int(below.argmax())
            if below[first]:
                return at + first
        return end

    def _hashes(self, block: memoryview) -> NDArray[numpy.uint64]:
        hashes: NDArray[numpy.uint64] = self._gear[self._np.frombuffer(block, dtype=self._np.uint8)]
        # The sum over a window of 2w bytes is the sum over w bytes plus, shifted by w, the sum over the w bytes before.
        width = 1
        while width < _WINDOW:
            hashes = hashes[width:] + (hashes[:-width] << self._np.uint64(width))
            width *= 2
        return hashes


class _PythonKernel:
    name = "python"

    def cuts(self, data: Buffer, final: bool) -> list[int]:
        return _walk(data, final, self._find)

    @staticmethod
    def _find(view: memoryview, begin: int, end: int, limit: int) -> int:
        gear = _GEAR
        value = 0
        for byte in view[begin - _WINDOW + 1 : begin]:
            value = (value << 1) + gear[byte]
        for position, byte in enumerate(view[begin:end], begin):
            value = (value << 1) + gear[byte] & 0xFFFF_FFFF_FFFF_FFFF
            if value < limit:
                return position
        return end


_KERNELS: dict[str, Callable[[], Kernel]] = {"c": _CKernel, "numpy": _NumpyKernel, "python": _PythonKernel}
"""Fastest first."""


def _first_available() -> Kernel:
    for make in (_CKernel, _NumpyKernel):
        with suppress(UsageError):
            return make()
    return _PythonKernel()
