"""Targets for the bytes of a bucket: ``specs/format.md``. All laws are promises of that page or of a docstring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from buckia.core import canonical, pack, record
from buckia.core.codec import RAW, RAW_LENGTH_MAX, Compressor, decompress
from buckia.core.content import decode_chunks, encode_chunks, runs
from buckia.core.ids import BlobId, BlobType, ObjectId, blob_id, object_id
from buckia.core.index import Index, Segment, build_segment, merge_segments
from buckia.core.manifest import FileContent, decode_directory, encode_directory, summarise
from buckia.core.merkle import CUTS, NODE_BYTES_MAX, Cuts
from buckia.core.pack import (
    HEADER_BYTES,
    ROW_BYTES,
    BlobRow,
    PackBuilder,
    decode_rows,
    footer_bytes,
    parse_header,
    parse_pack,
    parse_tail,
    read_blob,
    row_at,
    verify_blobs,
)
from buckia.core.record import Record, Unknown, check_folder, decode_record, encode_folder, encode_record
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError
from fuzz.target import LawBroken, Structure, accepted, behind, law, target
from tests.support.segments import rows_of_pack

FOLDERS = ("", "photos", "d\u00e9j\u00e0 vu")
"""The folders as which the folder target reads its inputs."""

_ITEMS_MAX = 1000
_BLOB_BYTES_MAX = 1 << 20
_TINY = Cuts(2, 4, 8)


def _values(value: object, depth: int = 0) -> Iterator[tuple[object, int]]:
    yield value, depth
    if isinstance(value, list):
        for item in value:
            yield from _values(item, depth + 1)


@target("canonical", canonical.decode, structure=behind(0))
def fuzz_canonical(data: bytes) -> None:
    value = canonical.decode(data, size_max=1 << 14, items_max=_ITEMS_MAX)
    with accepted():
        law(canonical.encode(value) == data, "a value has one encoding")
        found = list(_values(value))
        law(len(found) <= _ITEMS_MAX, "items are limited")
        law(max(depth for _, depth in found) <= canonical.DEPTH_MAX, "depth is limited")
        law(all(type(one) in (type(None), int, bytes, str, list) for one, _ in found), "there are five types of values")


@target("record", decode_record, structure=behind(8))
def fuzz_record(data: bytes) -> None:
    decoded = decode_record(data)
    with accepted():
        _fuzz_decoded(decoded, data)
    if isinstance(decoded.body, Unknown):
        with suppress(FormatError):
            encode_record(decoded)
            raise LawBroken("what is not understood is not written")


def _fuzz_decoded(decoded: Record, data: bytes) -> None:
    law(decoded.knowledge[decoded.device] == decoded.seq, "a record knows itself")
    law(len(decoded.knowledge) == len(decoded.vector) + 1, "a vector leaves out the record's own device")
    law((decoded.prev is None) == (decoded.seq == 1), "only the first record has no predecessor")
    law(len(decoded.name.encode()) <= record.DEVICE_NAME_BYTES_MAX, "names are limited")
    key = record.record_key(decoded.device, decoded.seq, object_id(data))
    law(record.parse_record_key(key) == (decoded.device, decoded.seq, object_id(data)), "its key can be read")
    if not isinstance(decoded.body, Unknown):
        law(encode_record(decoded) == data, "a record has one encoding")


@target("folder", check_folder, structure=behind(0))
def fuzz_folder(data: bytes) -> None:
    readings = 0
    refused: Exception | None = None
    for name in FOLDERS:
        try:
            check_folder(data, name)
        except (FormatError, IntegrityError) as error:
            refused = error
        else:
            with accepted():
                law(encode_folder(name) == data, "a folder object is a pure function of the name")
            readings += 1
    law(readings <= 1, "a folder object is that of one folder")
    if not readings and refused is not None:
        raise refused


@target(
    "key",
    record.parse_tip_key,
    record.parse_record_key,
    record.parse_pack_key,
    record.parse_segment_key,
)
def fuzz_key(data: bytes) -> None:
    key = data.decode("utf-8", "surrogateescape")
    again = []
    if (tip := record.parse_tip_key(key)) is not None:
        again.append(record.tip_key(*tip))
    if (numbered := record.parse_record_key(key)) is not None:
        again.append(record.record_key(*numbered))
    if (packed := record.parse_pack_key(key)) is not None:
        again.append(record.pack_key(packed))
    if (segment := record.parse_segment_key(key)) is not None:
        again.append(record.segment_key(segment))
    law(again in ([], [key]), "a key is of one kind, and made from what it says")
    if not again:
        raise FormatError("No key of an object.")


@target("pack-header", parse_header)
def fuzz_pack_header(data: bytes) -> None:
    salt = parse_header(data)
    with accepted():
        builder = PackBuilder(salt, memory := bytearray(HEADER_BYTES))
        law(builder.count == 0 and memory == data[:HEADER_BYTES], "a header is a function of its salt")


@target("pack-tail", parse_tail)
def fuzz_pack_tail(data: bytes) -> None:
    count = parse_tail(data)
    with accepted():
        law(1 <= count <= pack.BLOBS_MAX, "blobs are limited")
        law(count.to_bytes(4, "big") + b"BKPE" == data, "a tail is a function of the count")


@target("pack-rows", decode_rows, row_at)
def fuzz_pack_rows(data: bytes) -> None:
    start = int.from_bytes(data[12 + 24 : 12 + 28], "big") if len(data) >= ROW_BYTES else HEADER_BYTES
    rows = decode_rows(data, start=start)
    with accepted():
        _fuzz_rows(rows, data, start)


def _fuzz_rows(rows: list[BlobRow], data: bytes, start: int) -> None:
    size = rows[-1].offset + rows[-1].length + footer_bytes(len(rows))
    law(decode_rows(data, start=start, size=size) == rows, "rows end where the footer begins")
    law(size <= pack.PACK_BYTES_MAX, "packs are limited")
    law([row_at(data, number) for number in range(len(rows))] == rows, "a row can be read by itself")
    law(all(0 < row.length <= row.raw_length <= RAW_LENGTH_MAX for row in rows), "blobs are limited")
    for row in rows if start >= HEADER_BYTES else ():
        pack.check_row(row, size)
    with suppress(FormatError):
        decode_rows(data, start=start, size=size + 1)
        raise LawBroken("rows describe one size")


@target("pack", parse_pack, read_blob, verify_blobs, size_max=1 << 16)
def fuzz_pack(data: bytes) -> None:
    rows = parse_pack(data)
    with accepted():
        view = memoryview(data)
        builder = PackBuilder(parse_header(data), bytearray(len(data)))
        for row in rows:
            builder.add(*row[:3], row.raw_length, view[row.offset : row.offset + row.length])
        sealed = builder.finish()
        law(sealed.data == data and sealed.id == object_id(data), "a pack is a function of its salt and its blobs")
        law(decode_rows(sealed.rows, size=len(data)) == rows, "the rows are those of the footer")
        small = [row for row in rows if row.raw_length <= _BLOB_BYTES_MAX][:64]
        law(verify_blobs(data, small) == [row for row in small if not _reads(row, data)], "verifying reads every blob")


def _reads(row: BlobRow, data: bytes) -> bool:
    try:
        raw = read_blob(row, data[row.offset : row.offset + row.length])
    except (FormatError, IntegrityError):
        return False
    law(len(raw) == row.raw_length and blob_id(row.kind, raw) == row.id, "what is read is what the row names")
    return True


@target("blob", decompress)
def fuzz_blob(data: bytes) -> None:
    """The input: u8 codec, u32 raw length, payload."""
    codec, raw_length, payload = (data[0] if data else 0), int.from_bytes(data[1:5], "big"), data[5:]
    raw = decompress(codec, payload, raw_length)
    with accepted():
        law(len(raw) == raw_length <= RAW_LENGTH_MAX, "a blob has the length that was stated")
        law(codec != RAW or raw == payload, "what is stored as it is comes back as it is")
        law(decompress(codec, memoryview(payload), raw_length) == raw, "every buffer is read alike")
        if raw_length <= _BLOB_BYTES_MAX:
            again, packed = Compressor().compress(raw)
            law(len(packed) <= raw_length, "compression never makes a blob larger")
            law(decompress(again, packed, raw_length) == raw, "compression loses nothing")


def _open_segment(data: bytes) -> bytes:
    return data[16 : 16 + int.from_bytes(data[8:12], "big")]


def _close_segment(data: bytes, packed: bytes) -> bytes:
    rows = data[16 + int.from_bytes(data[8:12], "big") :]
    return data[:8] + len(packed).to_bytes(4, "big") + data[12:16] + packed + rows


@target("segment", Segment, structure=Structure(_open_segment, _close_segment), size_max=1 << 16)
def fuzz_segment(data: bytes) -> None:
    segment = Segment(data)
    # A segment that only opened: whatever its rows are, a lookup answers or refuses, and never finds another blob.
    rows = data[len(data) - 52 * len(segment) :]
    index = Index()
    index.add_segment(object_id(data), segment)
    for number in range(min(len(segment), 100)):
        id = BlobId(rows[52 * number : 52 * number + 32])
        with suppress(FormatError):
            law(all(location.row.id == id for location in segment.find_all(id)), "a lookup finds what was looked for")
            law(index.locations(id) == [] or id in segment, "the index finds what the segment holds")
    segment.check()
    with accepted():
        _fuzz_checked(segment, data)


def _fuzz_checked(segment: Segment, data: bytes) -> None:
    locations = list(segment)
    keys = [(location.row.id, location.pack) for location in locations]
    law(keys == sorted(keys) and len(locations) == len(segment), "rows are sorted")
    law(all(location in segment.find_all(location.row.id) for location in locations), "every row is found")
    law(all(location.row.id in segment for location in locations), "every blob is contained")
    absent = ObjectId(bytes(31) + b"\1")
    law((not segment.find_all(BlobId(absent))) == (BlobId(absent) not in segment), "containing is being found")
    packs = {id: (size, rows_of_pack(segment, id)) for id, size in segment.packs}
    try:
        built = build_segment(segment.records(), packs)
    except UnsupportedFormatError:
        return  # it embeds a record of a newer version
    law(built == data, "a segment is a function of its records and packs")
    law(merge_segments([segment, segment]) == data, "merging a segment with itself changes nothing")


@target("directory", decode_directory, structure=behind(0))
def fuzz_directory(data: bytes) -> None:
    node = decode_directory(data)
    with accepted():
        law(encode_directory(node.level, node.items) == data, "a node has one encoding")
        law(len(node.items) <= CUTS.maximum and len(data) <= NODE_BYTES_MAX, "nodes are limited")
        names = [item.name for item in node.items]
        law(names == sorted(set(names)), "names are sorted, each once")
        if node.level == 0:
            law(all(entry.versions or entry.subtree for entry in node.entries), "an entry is something")
        # Sums may be more than the format can count: refused, like malformed bytes.
        with suppress(FormatError):
            content, files, size = summarise(node.level, node.items)
            law(len(content) == 32 and files >= 0 and size >= 0, "a node has a summary")
        with suppress(FormatError):
            law(decode_directory(data, cuts=_TINY).items == node.items, "cuts do not change what is read")


class _OneNode:
    """A node store with one node, under every id: nothing that it returns was checked against what refers to it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        return self._raw

    def put(self, kind: BlobType, raw: bytes) -> BlobId:
        return blob_id(kind, raw)


@target("chunk-list", decode_chunks, structure=behind(0))
def fuzz_chunk_list(data: bytes) -> None:
    node = decode_chunks(data)
    with accepted():
        law(encode_chunks(node.level, node.items) == data, "a node has one encoding")
        law(0 < len(node.items) <= CUTS.maximum, "nodes are limited")
        size = sum(length * (1 if node.level else count) for _, length, count in node.items)
        content = FileContent(node.level + 1, blob_id(BlobType.CHUNK_LIST, data))
        with suppress(FormatError):
            read = tuple(runs(_OneNode(data), content, size))
            law(node.level == 0 and read == node.items, "a file is its list, and no node lies below itself")
        with suppress(FormatError):
            tuple(runs(_OneNode(data), content, size + 1))
            raise LawBroken("chunks add up to the size")
        with suppress(FormatError):
            law(decode_chunks(data, cuts=_TINY).items == node.items, "cuts do not change what is read")
