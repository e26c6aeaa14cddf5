"""Where blobs are: segments, which are searched in place, and the packs that no segment covers yet.

See ``specs/format.md``, section 8. The index locates; it never proves presence.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from buckia.core import canonical
from buckia.core.canonical import ascending, fields, within
from buckia.core.ids import DEVICE_ID_BYTES, ID_BYTES, BlobId, Buffer, DeviceId, ObjectId
from buckia.core.pack import PACK_BYTES_MAX, PACK_BYTES_MIN, ROW_BYTES, BlobRow, check_row, decode_rows, row_at
from buckia.core.record import SEQ_MAX, Record, Snapshot, Unknown, check_magic, decode_record
from buckia.errors import ForkError, FormatError, IntegrityError, UnsupportedFormatError

SEGMENT_BYTES_MAX = 1 << 30
META_BYTES_MAX = 256 << 20
META_ITEMS_MAX = 1 << 22

SEGMENT_ROW_BYTES = 52

Range = tuple[DeviceId, int, int]
"""Device, first seq, last seq."""

_MAGIC = b"BKSG\x01\x00\x00\x00"
_HEADER = struct.Struct(">8sII")
_ROW = struct.Struct(">32sIIIIBBH")
_MOVED = struct.Struct("32s4s16s")
_PREFIX = struct.Struct(">Q")
_ID = struct.Struct("32s")
_FOOTER_ROW = struct.Struct("4s32s12s")
_PROBES = 12
_INDEX_BITS = 16


class Location(NamedTuple):
    """A blob's row in a pack; a named tuple, as one is made for every blob that is looked up."""

    pack: ObjectId
    row: BlobRow


class Segment:
    """One segment, read in place from ``data``: bytes, or a view of a memory map, which stays open as long.

    Opening checks header and meta, a lookup the row that it returns, ``check`` everything; all raise ``FormatError``.
    """

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        size = len(self._data)
        if not _HEADER.size <= size <= SEGMENT_BYTES_MAX:
            raise FormatError(f"A segment of {size} bytes is outside the limits.")
        check_magic(self._data, _MAGIC, "segment")
        self._count: int
        _, meta_bytes, self._count = _HEADER.unpack_from(self._data)
        self._rows: int = _HEADER.size + meta_bytes
        if self._rows + self._count * SEGMENT_ROW_BYTES != size:
            raise FormatError("A segment whose length is not what its header states.")
        meta = canonical.decode(
            self._data[_HEADER.size : self._rows], size_max=META_BYTES_MAX, items_max=META_ITEMS_MAX
        )
        ranges, self._records, packs = fields(meta, (list, list, list), "segment")
        self.ranges: list[Range] = _decode_ranges(ranges)
        self.packs: list[tuple[ObjectId, int]] = _decode_packs(packs)
        self.sizes: dict[ObjectId, int] = dict(self.packs)
        covered = sum(last - first + 1 for _, first, last in self.ranges)
        if covered != len(self._records) or not all(isinstance(record, bytes) for record in self._records):
            raise FormatError("A segment does not embed the records that it covers.")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Location]:
        """All locations, sorted by blob and pack."""
        return map(self._location, range(self._count))

    def __contains__(self, id: BlobId) -> bool:
        return self._has(self._first(id), id)

    def records(self) -> list[bytes]:
        """The embedded records, sorted by device and seq."""
        return list(self._records)

    def find_all(self, id: BlobId) -> list[Location]:
        """Every place where a blob is."""
        found = []
        position = self._first(id)
        while self._has(position, id):
            found.append(self._location(position))
            position += 1
        return found

    def check(self) -> None:
        """Check all that the format promises about this segment. Takes a microsecond or two per row."""
        records = [decode_record(record) for record in self._records]
        keys = [(record.device, record.seq) for record in records]
        ascending(keys, "records of a segment")
        if _ranges(keys) != self.ranges:
            raise FormatError("A segment does not embed the records that it covers.")
        named = _named_packs(records)
        if {id: size for id, (size, _) in named.items()} != self.sizes:
            raise FormatError("A segment lists other packs than its records name.")
        ascending((id + index + rest for id, index, rest in self._raw_rows()), "rows of a segment")
        footers: list[list[bytes]] = [[] for _ in self.packs]
        for id, index, rest in self._raw_rows():
            pack = int.from_bytes(index, "big")
            within(pack, 0, len(footers) - 1, "row's pack")
            footers[pack].append(_footer_row(id, rest))
        for (pack_id, size), rows in zip(self.packs, footers, strict=True):
            footer = _footer(rows)
            inline = named[pack_id][1]
            if footer:
                decode_rows(footer, size=size)
            if footer and inline is not None and footer != inline:
                raise FormatError("A segment contradicts the rows in its records.")

    def _first(self, id: BlobId) -> int:
        """The first position whose id is not less. Ids are uniform, so interpolation needs about three probes."""
        data, start, probe, whole = self._data, self._rows, _PREFIX.unpack_from, _ID.unpack_from
        low, high, low_key, high_key = 0, self._count, 0, 1 << 64
        key = int.from_bytes(id[:8], "big")
        for _ in range(_PROBES):
            if low == high:
                return low
            middle = low + (key - low_key) * (high - low) // (high_key - low_key)
            at = start + middle * SEGMENT_ROW_BYTES
            found = probe(data, at)[0]
            if found < key:
                low, low_key = middle + 1, found
            elif found > key:
                high, high_key = middle, found
            else:
                first = middle == low or probe(data, at - SEGMENT_ROW_BYTES)[0] < key
                if first and whole(data, at)[0] == id:
                    return middle
                break
        while low < high:
            middle = (low + high) >> 1
            at = start + middle * SEGMENT_ROW_BYTES
            if whole(data, at)[0] < id:
                low = middle + 1
            else:
                high = middle
        return low

    def _has(self, position: int, id: BlobId) -> bool:
        at = self._rows + position * SEGMENT_ROW_BYTES
        return position < self._count and bytes(self._data[at : at + ID_BYTES]) == id

    def _location(self, position: int) -> Location:
        at = self._rows + position * SEGMENT_ROW_BYTES
        id, pack, offset, length, raw_length, kind, codec, zero = _ROW.unpack_from(self._data, at)
        if pack >= len(self.packs) or zero:
            raise FormatError("A row of a segment is malformed.")
        pack_id, size = self.packs[pack]
        row = BlobRow(kind, codec, id, offset, length, raw_length)
        check_row(row, size)
        return Location(pack_id, row)

    def _raw_rows(self, first: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Id, pack index and the rest of each row, as bytes."""
        stop = self._count if end is None else end
        start = self._rows
        return _MOVED.iter_unpack(self._data[start + first * SEGMENT_ROW_BYTES : start + stop * SEGMENT_ROW_BYTES])

    def _moved(self, bucket: int, indices: Mapping[bytes, bytes]) -> list[bytes]:
        """The rows whose ids begin with the byte ``bucket``, with other pack indices."""
        first = self._first(BlobId(bytes([bucket]) + bytes(ID_BYTES - 1)))
        end = self._first(BlobId(bytes([bucket + 1]) + bytes(ID_BYTES - 1))) if bucket < 255 else self._count
        try:
            return [id + indices[index] + rest for id, index, rest in self._raw_rows(first, end)]
        except KeyError:
            raise FormatError("A row of a segment is malformed.") from None


class Index:
    """All segments and recent packs of a folder. Any thread may read while one changes it."""

    def __init__(self) -> None:
        self._segments: tuple[tuple[ObjectId, Segment], ...] = ()
        self._packs: list[tuple[ObjectId, bytes]] = []
        # Blob -> position in _packs and in the pack's rows as one number, or several: a fifth of what an object takes.
        self._recent: dict[BlobId, int | tuple[int, ...]] = {}
        self._recent_sizes: dict[ObjectId, int] = {}
        self._sizes: dict[ObjectId, int] = {}

    def add_segment(self, hash: ObjectId, segment: Segment) -> None:
        """Search this segment too."""
        self.drop_segment(hash)
        self._sizes = {**self._sizes, **segment.sizes}
        self._segments = (*self._segments, (hash, segment))

    def drop_segment(self, hash: ObjectId) -> None:
        """Forget a segment; nothing happens if it is not known."""
        remaining = tuple(item for item in self._segments if item[0] != hash)
        if len(remaining) == len(self._segments):
            return
        self._segments = remaining
        sizes = dict(self._recent_sizes)
        for _, segment in remaining:
            sizes.update(segment.sizes)
        self._sizes = sizes

    def add_pack(self, pack: ObjectId, size: int, rows: bytes) -> None:
        """Add a pack of ``size`` bytes by its footer rows; nothing happens if it was added before. A segment that
        names the pack may have no rows of it.

        Raises ``FormatError`` for malformed rows.
        """
        if pack in self._recent_sizes:
            return
        decoded = decode_rows(rows, size=size)
        first = len(self._packs) << _INDEX_BITS
        self._packs.append((pack, rows))
        self._recent_sizes[pack] = self._sizes[pack] = size
        recent = self._recent
        for number, row in enumerate(decoded, first):
            known = recent.setdefault(row.id, number)
            if known != number:
                recent[row.id] = (*known, number) if isinstance(known, tuple) else (known, number)

    def pack_size(self, pack: ObjectId) -> int | None:
        """Bytes of a pack, or ``None`` if it is not known."""
        return self._sizes.get(pack)

    def __contains__(self, id: BlobId) -> bool:
        return id in self._recent or any(id in segment for _, segment in self._segments)

    def get(self, id: BlobId) -> Location | None:
        """Where a blob is; of several packs the largest."""
        found = self.locations(id)
        return found[0] if found else None

    def kind(self, id: BlobId) -> int | None:
        """The type of a blob, or ``None`` if it is not known: what `get` says, for very many blobs."""
        number = self._recent.get(id)
        if isinstance(number, int):
            return self._packs[number >> _INDEX_BITS][1][(number & ((1 << _INDEX_BITS) - 1)) * ROW_BYTES]
        location = self.get(id)
        return None if location is None else location.row.kind

    def locations(self, id: BlobId) -> list[Location]:
        """Every place where a blob is, those in the largest packs first."""
        found = []
        numbers = self._recent.get(id)
        if numbers is not None:
            for number in numbers if isinstance(numbers, tuple) else (numbers,):
                pack, rows = self._packs[number >> _INDEX_BITS]
                found.append(Location(pack, row_at(rows, number & ((1 << _INDEX_BITS) - 1))))
        for _, segment in self._segments:
            found += segment.find_all(id)
        if len(found) > 1:
            sizes = self._sizes
            found = sorted(dict.fromkeys(found), key=lambda each: (sizes.get(each.pack, 0), each), reverse=True)
        return found


def build_segment(records: Iterable[bytes], packs: Mapping[ObjectId, tuple[int, bytes]]) -> bytes:
    """The segment that covers these record objects.

    ``packs`` gives size and footer rows of packs whose rows their record does not hold; empty rows stand for a pack
    that no longer exists. Raises ``IntegrityError`` if a pack is missing there, ``ForkError`` for two records with one
    device and seq.
    """
    embedded, decoded = _collect(records)
    named = _named_packs(decoded)
    sizes: dict[ObjectId, int] = {}
    rows: list[bytes] = []
    for index, pack in enumerate(sorted(named)):
        size, inline = named[pack]
        given_size, footer = packs.get(pack, (size, inline))
        if given_size != size:
            raise FormatError(f"Pack {pack.hex()} has {given_size} bytes and its record says {size}.")
        if footer is None:
            raise IntegrityError(f"The rows of pack {pack.hex()} are missing.")
        sizes[pack] = size
        if footer:
            decode_rows(footer, size=size)
        number = index.to_bytes(4, "big")
        rows += [id + number + place + start for start, id, place in _FOOTER_ROW.iter_unpack(footer)]
    rows.sort()
    return _assemble(embedded, sizes, [b"".join(rows)])


def merge_segments(segments: Sequence[Segment]) -> bytes:
    """The segment that covers what these cover together.

    Raises ``ForkError`` for two different records with one device and seq.
    """
    embedded, _ = _collect(record for segment in segments for record in segment.records())
    sizes: dict[ObjectId, int] = {}
    for segment in segments:
        for pack, size in segment.packs:
            if sizes.setdefault(pack, size) != size:
                raise FormatError(f"Pack {pack.hex()} has different sizes in two segments.")
    numbers = {pack: index.to_bytes(4, "big") for index, pack in enumerate(sorted(sizes))}
    moves = [
        {index.to_bytes(4, "big"): numbers[pack] for index, (pack, _) in enumerate(segment.packs)}
        for segment in segments
    ]
    # One 256th at a time: sorting bytes in C is fast, and only that part is ever held as objects.
    rows = (
        b"".join(
            sorted({row for segment, move in zip(segments, moves, strict=True) for row in segment._moved(bucket, move)})
        )
        for bucket in range(256)
    )
    return _assemble(embedded, sizes, rows)


def _footer_row(id: bytes, rest: bytes) -> bytes:
    return rest[12:] + id + rest[:12]


def _footer(rows: list[bytes]) -> bytes:
    ordered: list[bytes] = sorted(rows, key=lambda row: row[36:40])  # by offset
    return b"".join(ordered)


def _assemble(
    embedded: Mapping[tuple[DeviceId, int], bytes], sizes: Mapping[ObjectId, int], rows: Iterable[bytes]
) -> bytes:
    keys = sorted(embedded)
    meta = canonical.encode(
        (_ranges(keys), [embedded[key] for key in keys], sorted(sizes.items())), items_max=META_ITEMS_MAX
    )
    segment = bytearray(_HEADER.size) + meta
    for part in rows:
        segment += part
    count = (len(segment) - _HEADER.size - len(meta)) // SEGMENT_ROW_BYTES
    if len(segment) > SEGMENT_BYTES_MAX or len(meta) > META_BYTES_MAX:
        raise FormatError(f"A segment of {len(segment)} bytes is outside the limits.")
    _HEADER.pack_into(segment, 0, _MAGIC, len(meta), count)
    return bytes(segment)


def _collect(records: Iterable[bytes]) -> tuple[dict[tuple[DeviceId, int], bytes], list[Record]]:
    embedded: dict[tuple[DeviceId, int], bytes] = {}
    decoded = []
    for data in records:
        record = decode_record(data)
        if isinstance(record.body, Unknown):
            raise UnsupportedFormatError(f"A record of kind '{record.kind}' cannot be put into a segment.")
        if embedded.setdefault((record.device, record.seq), data) != data:
            raise ForkError(f"Device {record.device.hex()} has two records with number {record.seq}.")
        decoded.append(record)
    return embedded, decoded


def _named_packs(records: Iterable[Record]) -> dict[ObjectId, tuple[int, bytes | None]]:
    """Size and, where known, rows of the packs that records name."""
    packs: dict[ObjectId, tuple[int, bytes | None]] = {}
    for record in records:
        for ref in record.body.packs if isinstance(record.body, Snapshot) else ():
            size, rows = packs.setdefault(ref.id, (ref.size, ref.rows))
            both = rows is not None and ref.rows is not None
            if size != ref.size or (both and rows != ref.rows):
                raise FormatError(f"Two records describe pack {ref.id.hex()} differently.")
            packs[ref.id] = (size, rows or ref.rows)
    return packs


def _ranges(keys: Iterable[tuple[DeviceId, int]]) -> list[Range]:
    ranges: list[Range] = []
    for device, seq in keys:
        if ranges and ranges[-1][0] == device and ranges[-1][2] == seq - 1:
            ranges[-1] = (device, ranges[-1][1], seq)
        else:
            ranges.append((device, seq, seq))
    return ranges


def _decode_ranges(values: Iterable[object]) -> list[Range]:
    ranges: list[Range] = []
    for value in values:
        device, first, last = fields(value, (bytes, int, int), "range")
        within(len(device), DEVICE_ID_BYTES, DEVICE_ID_BYTES, "device id's length")
        within(first, 1, SEQ_MAX, "seq")
        within(last, first, SEQ_MAX, "seq")
        if ranges and (device, first) <= (ranges[-1][0], ranges[-1][2] + 1):
            raise FormatError("The ranges of a segment are not sorted, overlap or touch.")
        ranges.append((device, first, last))
    return ranges


def _decode_packs(values: Iterable[object]) -> list[tuple[ObjectId, int]]:
    packs = []
    for value in values:
        pack, size = fields(value, (bytes, int), "pack of a segment")
        within(len(pack), ID_BYTES, ID_BYTES, "pack id's length")
        within(size, PACK_BYTES_MIN, PACK_BYTES_MAX, "pack size")
        packs.append((ObjectId(pack), size))
    ascending((pack for pack, _ in packs), "packs of a segment")
    return packs
