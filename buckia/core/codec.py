"""How a blob's bytes are stored: as they are, or as one zstd frame. See ``specs/format.md``, section 4."""

from __future__ import annotations

import zstandard

from buckia.core.ids import Buffer
from buckia.errors import FormatError, UnsupportedFormatError

RAW = 0
ZSTD = 1
RAW_LENGTH_MAX = 16 << 20

_LEVEL = 1
_MAGIC = b"\x28\xb5\x2f\xfd"
_TINY = 64
_SAMPLE = 4096
_PROBED = 64 << 10

_idle: list[zstandard.ZstdDecompressor] = []
"""Decompressors that nobody uses. Each belongs to one thread at a time; making one costs more than a small blob.

``pop`` and ``append`` are atomic.
"""


class Compressor:
    """Compresses blobs; not for use by two threads at once."""

    def __init__(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False, write_content_size=True)
        self._compress = compressor.compress

    def compress(self, raw: Buffer) -> tuple[int, Buffer]:
        """The codec and the payload for these bytes: ``raw`` itself unless compression saves at least a sixteenth."""
        length = len(raw)
        if length < _TINY or (length > _PROBED and not self._promising(raw)):
            return RAW, raw
        payload = self._compress(raw)
        if len(payload) > length - (length >> 4):
            return RAW, raw
        return ZSTD, payload

    def _promising(self, raw: Buffer) -> bool:
        """Whether one of three samples shrinks by a tenth."""
        view = memoryview(raw)
        last = len(raw) - _SAMPLE
        limit = _SAMPLE - _SAMPLE // 10
        return any(len(self._compress(view[at : at + _SAMPLE])) <= limit for at in (last >> 1, 0, last))


def decompress(codec: int, payload: Buffer, raw_length: int) -> bytes:
    """The ``raw_length`` raw bytes of a payload. Raises ``FormatError`` for a payload of any other length or form.

    Memory is bounded by ``raw_length`` whatever the payload claims.
    """
    if not 0 < raw_length <= RAW_LENGTH_MAX:
        raise FormatError(f"A blob of {raw_length} bytes is outside 1 to {RAW_LENGTH_MAX}.")
    if codec == RAW:
        if len(payload) != raw_length:
            raise FormatError(f"A blob of {raw_length} bytes is stored as {len(payload)}.")
        return bytes(payload)
    if codec != ZSTD:
        raise UnsupportedFormatError(f"A blob with codec {codec}.")
    if payload[:4] != _MAGIC:
        raise FormatError("A compressed blob that is not a zstd frame.")
    try:
        # The library allocates what the frame claims, whatever limit it is given: the claim is checked first.
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size != raw_length or frame.window_size > RAW_LENGTH_MAX:
            raise FormatError(f"A zstd frame does not state that it holds {raw_length} bytes.")
        raw = _decompress(payload)
    except zstandard.ZstdError as error:
        raise FormatError(f"A malformed zstd frame: {error}.") from None
    if len(raw) != raw_length:
        raise FormatError(f"A zstd frame holds {len(raw)} bytes and states {raw_length}.")
    return raw


def _decompress(payload: Buffer) -> bytes:
    try:
        decompressor = _idle.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor(max_window_size=RAW_LENGTH_MAX)
    try:
        return decompressor.decompress(payload, read_across_frames=False, allow_extra_data=False)
    finally:
        _idle.append(decompressor)
