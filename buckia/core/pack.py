"""Packs: many blobs in one immutable object. See ``specs/format.md``, section 4."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3

from buckia.core.codec import RAW, RAW_LENGTH_MAX, ZSTD, decompress
from buckia.core.ids import ID_BYTES, PUBLIC_ID_KEYS, BlobId, BlobType, Buffer, ObjectId, blob_id, object_id
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError

HEADER_BYTES = 76
ROW_BYTES = 48
TAIL_BYTES = 8
SALT_BYTES = 32
PACK_BYTES_MAX = 128 << 20
PACK_BYTES_MIN = HEADER_BYTES + 1 + ROW_BYTES + TAIL_BYTES
BLOBS_MAX = 1 << 16

_KIND_MAX = max(BlobType)
_START = b"BKPK\x01\x00\x00\x00\x00\x00\x00\x00"
_END = b"BKPE"
_COMMITMENT = bytes(32)
_ROW = struct.Struct(">BBH32sIII")
_FIELDS = struct.Struct(">BBxx32sIII")
_BUFFER_BYTES = 17 << 20


class BlobRow(NamedTuple):
    """Where a blob lies in its pack; a named tuple, as packs of 65,536 blobs are read into these.

    ``length`` bytes at ``offset`` of the object hold the blob's ``raw_length`` bytes as ``codec`` says.
    """

    kind: int
    codec: int
    id: BlobId
    offset: int
    length: int
    raw_length: int


@dataclass(frozen=True, slots=True)
class SealedPack:
    """A finished pack: the object's bytes, its id, and its encoded footer rows. ``data`` is the builder's memory."""

    id: ObjectId
    data: memoryview
    rows: bytes


class PackBuilder:
    """Lays blobs one behind the other into one piece of memory.

    ``salt`` is 32 random bytes. ``buffer`` is memory to use again (a larger one is made where it does not suffice): the
    pack that was sealed in it before must no longer be needed.
    """

    def __init__(self, salt: bytes, buffer: bytearray | None = None) -> None:
        if len(salt) != SALT_BYTES:
            raise ValueError(f"A salt has {SALT_BYTES} bytes, not {len(salt)}.")
        header = _START + salt + _COMMITMENT
        self._view = memoryview(bytearray(_BUFFER_BYTES) if buffer is None else buffer)
        self._end = 0
        self._rows: list[bytes] = []
        self._reserve(HEADER_BYTES)
        self._view[:HEADER_BYTES] = header
        self._end = HEADER_BYTES

    @property
    def count(self) -> int:
        """Blobs so far."""
        return len(self._rows)

    @property
    def size(self) -> int:
        """Bytes of the object if it were finished now."""
        return self._end + footer_bytes(len(self._rows))

    def add(self, kind: int, codec: int, id: BlobId, raw_length: int, payload: Buffer) -> None:
        """Append a blob whose raw bytes ``codec`` turned into ``payload``. ``ValueError`` if it gets too large."""
        offset = self._end
        length = len(payload)
        end = offset + length
        if not length or len(id) != ID_BYTES:
            raise ValueError("A blob needs a payload and an id of 32 bytes.")
        if end > len(self._view):
            self._reserve(end)
        self._view[offset:end] = payload
        self._rows.append(_ROW.pack(kind, codec, 0, id, offset, length, raw_length))
        self._end = end

    def finish(self) -> SealedPack:
        """The object, in the builder's memory; nothing is added afterwards. ``ValueError`` if it exceeds the limits."""
        count, size = len(self._rows), self.size
        if not 1 <= count <= BLOBS_MAX or size > PACK_BYTES_MAX:
            raise ValueError(f"A pack of {count} blobs and {size} bytes is outside the limits.")
        rows = b"".join(self._rows)
        self._reserve(size)
        self._view[self._end : size] = rows + count.to_bytes(4, "big") + _END
        data = self._view[:size]
        return SealedPack(object_id(data), data, rows)

    def _reserve(self, size: int) -> None:
        if size <= len(self._view):
            return
        if size > PACK_BYTES_MAX:
            raise ValueError(f"A pack of {size} bytes is larger than {PACK_BYTES_MAX}.")
        larger = memoryview(bytearray(min(2 * size, PACK_BYTES_MAX)))
        larger[: self._end] = self._view[: self._end]
        self._view = larger


def footer_bytes(count: int) -> int:
    """Bytes of the footer and the tail of a pack with ``count`` blobs."""
    return count * ROW_BYTES + TAIL_BYTES


def parse_header(data: Buffer) -> bytes:
    """The salt in the header with which ``data`` begins.

    Raises ``UnsupportedFormatError`` for another version, suite or key mode.
    """
    header = bytes(data[:HEADER_BYTES])
    if len(header) < HEADER_BYTES or header[:4] != _START[:4]:
        raise FormatError("Not a pack.")
    if header[4:7] != _START[4:7]:
        raise UnsupportedFormatError(f"A pack of version {header[4]}, suite {header[5]}, key mode {header[6]}.")
    if header[:12] != _START or header[44:] != _COMMITMENT:
        raise FormatError("A pack with a malformed header.")
    return header[12:44]


def parse_tail(tail: Buffer) -> int:
    """The number of rows that the last 8 bytes of a pack state."""
    last = bytes(tail)
    if len(last) != TAIL_BYTES or last[4:] != _END:
        raise FormatError("A pack that does not end like one.")
    count = int.from_bytes(last[:4], "big")
    if not 1 <= count <= BLOBS_MAX:
        raise FormatError(f"A pack of {count} blobs is outside the limits.")
    return count


def decode_rows(rows: Buffer, *, start: int = HEADER_BYTES, size: int | None = None) -> list[BlobRow]:
    """The rows of a footer, the first blob of which begins at ``start``.

    Raises ``FormatError`` unless payloads are contiguous, within the limits and, if ``size`` (of the object, in bytes)
    is given, followed by exactly footer and tail.
    """
    data = bytes(rows)
    count, rest = divmod(len(data), ROW_BYTES)
    if rest or not 1 <= count <= BLOBS_MAX:
        raise FormatError(f"{len(data)} bytes are not the rows of a pack.")
    if max(data[0::ROW_BYTES]) > _KIND_MAX or max(data[1::ROW_BYTES]) > ZSTD:
        raise UnsupportedFormatError("A pack holds a blob of an unknown type or codec.")
    if any(data[2::ROW_BYTES]) or any(data[3::ROW_BYTES]):
        raise FormatError("A row of a pack is malformed.")
    decoded = list(map(BlobRow._make, _FIELDS.iter_unpack(data)))
    end = start
    for _, codec, _, offset, length, raw_length in decoded:
        if offset != end or not 0 < length <= raw_length <= RAW_LENGTH_MAX or (codec == RAW and length != raw_length):
            raise FormatError(f"A row of a pack with offset {offset}, length {length} and raw length {raw_length}.")
        end += length
    total = end + footer_bytes(count)
    if total > PACK_BYTES_MAX or (size is not None and total != size):
        raise FormatError(f"The rows of a pack describe {total} bytes.")
    return decoded


def row_at(rows: Buffer, index: int) -> BlobRow:
    """One row of rows that ``decode_rows`` accepted."""
    return BlobRow._make(_FIELDS.unpack_from(rows, index * ROW_BYTES))


def check_row(row: BlobRow, size: int) -> None:
    """Raise ``FormatError`` unless this can be a row of a pack of ``size`` bytes."""
    kind, codec, _, offset, length, raw_length = row
    if kind > _KIND_MAX or codec > ZSTD:
        raise UnsupportedFormatError("A pack holds a blob of an unknown type or codec.")
    inside = HEADER_BYTES <= offset <= size - ROW_BYTES - TAIL_BYTES - length
    if not inside or not 0 < length <= raw_length <= RAW_LENGTH_MAX or (codec == RAW and length != raw_length):
        raise FormatError(f"A row of a pack with offset {offset}, length {length} and raw length {raw_length}.")


def parse_pack(data: Buffer) -> list[BlobRow]:
    """The rows of a whole object, after checking header, tail and that no byte between is unaccounted for.

    Blobs are not read.
    """
    size = len(data)
    if not PACK_BYTES_MIN <= size <= PACK_BYTES_MAX:
        raise FormatError(f"A pack of {size} bytes is outside the limits.")
    parse_header(data)
    footer = size - footer_bytes(parse_tail(data[-TAIL_BYTES:]))
    if footer < HEADER_BYTES:
        raise FormatError("A pack whose footer is larger than the pack.")
    return decode_rows(data[footer:-TAIL_BYTES], size=size)


def read_blob(row: BlobRow, payload: Buffer, keys: tuple[bytes, ...] = PUBLIC_ID_KEYS) -> bytes:
    """The raw bytes of a blob.

    Raises ``IntegrityError`` if they are not those that the id names, ``FormatError`` if ``payload`` cannot be
    decompressed.
    """
    kind, codec, id, _, length, raw_length = row
    if len(payload) != length:
        raise IntegrityError(f"A blob of {length} bytes was read as {len(payload)}.")
    raw = decompress(codec, payload, raw_length)
    if blob_id(kind, raw, keys) != id:
        raise IntegrityError(f"Blob {id.hex()} is damaged.")
    return raw


def verify_blobs(data: Buffer, rows: Iterable[BlobRow], keys: tuple[bytes, ...] = PUBLIC_ID_KEYS) -> list[BlobRow]:
    """The rows whose blobs in the whole pack ``data`` are not what their ids name.

    Copies nothing that is stored as it is.
    """
    view = memoryview(data)
    damaged = []
    for row in rows:
        kind, codec, id, offset, length, raw_length = row
        payload = view[offset : offset + length]
        try:
            raw = payload if codec == RAW and length == raw_length else decompress(codec, payload, raw_length)
        except FormatError:
            damaged.append(row)
            continue
        if blake3(raw, key=keys[kind]).digest() != id:
            damaged.append(row)
    return damaged
