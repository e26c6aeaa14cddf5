"""What holds for every object of the format, whatever it contains.

Decoding reverses encoding; there is one encoding; a changed, missing or extra byte never goes unnoticed; arbitrary
bytes never raise anything but ``FormatError`` or ``IntegrityError``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.core import canonical, pack, record
from buckia.core.codec import RAW, ZSTD, Compressor, decompress
from buckia.core.ids import BlobId, DeviceId, ObjectId, blob_id, object_id
from buckia.core.index import Index, Location, Segment, build_segment, merge_segments
from buckia.core.pack import BlobRow, PackBuilder, SealedPack, decode_rows, parse_pack, read_blob, verify_blobs
from buckia.core.record import Ack, Condemn, PackRef, Record, Snapshot, Unknown, decode_record, encode_record
from buckia.errors import FormatError, IntegrityError
from tests.support.segments import rows_of_pack

Bytes = st.binary(max_size=200)
Hash = st.binary(min_size=32, max_size=32)
Device = st.binary(min_size=16, max_size=16)
Count = st.integers(0, record.COUNT_MAX)
Seq = st.integers(1, record.SEQ_MAX)

scalars = st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | Bytes | st.text(max_size=20)


def arrays_of(depth: int) -> st.SearchStrategy[Any]:
    return scalars if depth == 0 else scalars | st.lists(arrays_of(depth - 1), max_size=4)


values = arrays_of(canonical.DEPTH_MAX)

rows = st.none() | st.integers(1, 3).map(lambda count: bytes(48 * count))
pack_refs = st.builds(PackRef, Hash, st.integers(pack.PACK_BYTES_MIN, pack.PACK_BYTES_MAX), rows)
snapshots = st.builds(
    Snapshot, Hash, Hash, Count, Count, st.lists(pack_refs, max_size=4, unique_by=lambda ref: ref.id).map(tuple)
)
condemned = st.lists(Hash, max_size=4, unique=True).map(lambda ids: Condemn(tuple(sorted(ids))))
names = st.text(max_size=16)  # at most 64 bytes


@st.composite
def records(draw: st.DrawFn) -> Record:
    device, seq = draw(Device), draw(Seq)
    vector = draw(
        st.lists(st.tuples(Device.filter(lambda id: id != device), Seq, Hash), unique_by=lambda item: item[0])
    )
    prev = draw(Hash) if seq > 1 else None
    body = draw(snapshots | condemned | st.just(Ack()))
    time_ns = draw(st.integers(-record.TIME_NS_MAX - 1, record.TIME_NS_MAX))
    return Record(device, seq, prev, (), tuple(sorted(vector)), time_ns, draw(names), body)


blobs = st.lists(
    st.tuples(
        st.integers(0, 2), Bytes.filter(len) | st.tuples(Bytes, st.integers(1, 40)).map(lambda p: b"ab" + p[0] * p[1])
    ),
    min_size=1,
    max_size=12,
)


def seal(content: list[tuple[int, bytes]], salt: bytes = bytes(32)) -> SealedPack:
    builder, compressor = PackBuilder(salt, bytearray()), Compressor()
    for kind, raw in content:
        codec, payload = compressor.compress(raw)
        builder.add(kind, codec, blob_id(kind, raw), len(raw), payload)
    return builder.finish()


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], dict[ObjectId, tuple[int, bytes]], dict[BlobId, list[Location]]]:
    """Records of some devices with their packs' rows, and where every blob is."""
    objects, packs, where = [], {}, {}
    chain = st.lists(st.lists(blobs, max_size=2), max_size=4)
    for device, commits in enumerate(draw(st.lists(chain, max_size=3))):
        for seq, contents in enumerate(commits, 1):
            refs = []
            for content in contents:
                sealed = seal(content, object_id(b"%d %d %d" % (device, seq, len(refs))))
                inline = draw(st.booleans())
                refs.append(PackRef(sealed.id, len(sealed.data), sealed.rows if inline else None))
                packs[sealed.id] = (len(sealed.data), sealed.rows)
                for row in decode_rows(sealed.rows):
                    where.setdefault(row.id, []).append(Location(sealed.id, row))
            body = Snapshot(bytes(32), bytes(32), 0, 0, tuple(refs))
            prev = ObjectId(bytes(32)) if seq > 1 else None
            device_id = DeviceId(bytes([device]) * 16)
            objects.append(encode_record(Record(device_id, seq, prev, (), (), 0, "", body)))
    return objects, packs, where


def decode(data: bytes) -> Any:
    return canonical.decode(data, size_max=1 << 20)


def check_segment(data: bytes) -> None:
    segment = Segment(data)
    segment.check()
    list(segment)


def read_everything(data: bytes) -> list[bytes]:
    return [read_blob(row, data[row.offset : row.offset + row.length]) for row in parse_pack(data)]


DECODERS: dict[str, Callable[[bytes], object]] = {
    "canonical": decode,
    "record": decode_record,
    "folder": lambda data: record.check_folder(data, ""),
    "pack": read_everything,
    "rows": decode_rows,
    "tail": pack.parse_tail,
    "header": pack.parse_header,
    "segment": check_segment,
    "zstd": lambda data: decompress(ZSTD, data, 100),
}
HEADS = {"record": b"BKJR\x01\0\0\0", "segment": b"BKSG\x01\0\0\0", "pack": b"BKPK\x01" + bytes(7)}


@given(values)
def test_a_value_comes_back_and_has_one_encoding(value: Any) -> None:
    data = canonical.encode(value)
    assert decode(data) == value
    assert canonical.encode(decode(data)) == data


@given(Bytes)
def test_bytes_that_decode_are_what_encode_makes(data: bytes) -> None:
    try:
        value = decode(data)
    except FormatError:
        return
    assert canonical.encode(value) == data


@given(records())
def test_a_record_comes_back(each: Record) -> None:
    data = encode_record(each)
    assert decode_record(data) == each
    assert encode_record(decode_record(data)) == data


@given(Device, Seq, Hash)
def test_keys_come_back(device: DeviceId, seq: int, hash: ObjectId) -> None:
    assert record.parse_tip_key(record.tip_key(device, seq, hash)) == (device, seq, hash)
    assert record.parse_record_key(record.record_key(device, seq, hash)) == (device, seq, hash)
    assert record.parse_pack_key(record.pack_key(hash)) == hash
    assert record.parse_segment_key(record.segment_key(hash)) == hash


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 60))
def test_compression_comes_back_and_never_grows(part: bytes, repeat: int) -> None:
    raw = part * repeat
    codec, payload = Compressor().compress(raw)
    assert len(payload) <= len(raw)
    assert decompress(codec, payload, len(raw)) == raw
    assert codec in (RAW, ZSTD)


@given(blobs)
def test_a_pack_comes_back(content: list[tuple[int, bytes]]) -> None:
    sealed = seal(content)
    data = bytes(sealed.data)
    assert read_everything(data) == [raw for _, raw in content]
    assert verify_blobs(data, parse_pack(data)) == []
    assert b"".join(_encoded(row) for row in parse_pack(data)) == sealed.rows
    assert object_id(data) == sealed.id


def _encoded(row: BlobRow) -> bytes:
    numbers = b"".join(number.to_bytes(4, "big") for number in (row.offset, row.length, row.raw_length))
    return bytes([row.kind, row.codec, 0, 0]) + row.id + numbers


@given(blobs, st.data())
def test_a_changed_byte_of_a_pack_is_noticed(content: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """By its id always; by its reader wherever another byte would make a difference to what is read."""
    sealed = seal(content)
    original = bytes(sealed.data)
    changed = bytearray(original)
    at = data.draw(st.integers(0, len(original) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    assert object_id(changed) != sealed.id
    try:
        read = read_everything(bytes(changed))
    except (FormatError, IntegrityError):
        return
    # The salt decides nothing, and zstd has more than one frame for the same bytes.
    assert read == [raw for _, raw in content]


@given(blobs, st.data())
def test_a_pack_that_is_cut_or_extended_is_refused(content: list[tuple[int, bytes]], data: st.DataObject) -> None:
    original = bytes(seal(content).data)
    end = data.draw(st.integers(0, len(original) - 1))
    for changed in (original[:end], original + data.draw(Bytes.filter(len)), original[:end] + original[end + 1 :]):
        with pytest.raises((FormatError, IntegrityError)):
            read_everything(changed)


@given(records(), st.data())
def test_a_changed_byte_of_a_record_is_noticed(each: Record, data: st.DataObject) -> None:
    original = encode_record(each)
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    assert object_id(changed) != object_id(original)
    try:
        read = decode_record(changed)
    except FormatError:
        pass
    else:
        assert read != each
        assert isinstance(read.body, Unknown) or encode_record(read) == changed
    with pytest.raises(FormatError):
        decode_record(original[: data.draw(st.integers(0, len(original) - 1))])


@given(histories())
def test_a_segment_is_a_dictionary_of_its_rows(history: Any) -> None:
    objects, packs, where = history
    segment = Segment(build_segment(objects, packs))
    segment.check()
    index = Index()
    for pack_id, (size, footer) in packs.items():
        index.add_pack(pack_id, size, footer)
        assert rows_of_pack(segment, pack_id) == footer
    assert len(segment) == sum(map(len, where.values()))
    for id, locations in where.items():
        assert sorted(segment.find_all(id)) == sorted(index.locations(id)) == sorted(locations)
        best = max(locations, key=lambda location: (packs[location.pack][0], location.pack))
        found = index.get(id)
        assert found is not None
        assert found.pack == best.pack
        neighbour = BlobId((int.from_bytes(id, "big") ^ 1).to_bytes(32, "big"))
        assert (neighbour in segment) == (neighbour in index) == (neighbour in where)


@given(histories(), st.data())
def test_merging_segments_is_the_union(history: Any, data: st.DataObject) -> None:
    objects, packs, _ = history
    parts = [[each for each in objects if data.draw(st.booleans())] for _ in range(data.draw(st.integers(0, 3)))] + [
        objects
    ]
    merged = merge_segments([Segment(build_segment(part, packs)) for part in parts])
    assert merged == build_segment(objects, packs)


@given(histories(), st.data())
def test_a_changed_byte_of_a_segment_is_noticed(history: Any, data: st.DataObject) -> None:
    """By its hash always; its reader alone finds all but a change that makes another segment of the format."""
    objects, packs, _ = history
    original = build_segment(objects, packs)
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    assert object_id(changed) != object_id(original)
    try:
        check_segment(bytes(changed))
    except FormatError:
        return
    segment = Segment(changed)
    footers = {pack_id: (size, rows_of_pack(segment, pack_id)) for pack_id, size in segment.packs}
    assert build_segment(segment.records(), footers) == changed


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_else(name: str, data: bytes) -> None:
    for candidate in (data, HEADS.get(name, b"\x28\xb5\x2f\xfd") + data):
        with suppress(FormatError, IntegrityError):
            DECODERS[name](candidate)


@given(values)
def test_arbitrary_values_raise_nothing_else(value: Any) -> None:
    payload = canonical.encode(value)
    with pytest.raises(FormatError):
        decode_record(HEADS["record"] + payload)
    with pytest.raises(FormatError):
        Segment(HEADS["segment"] + len(payload).to_bytes(4, "big") + bytes(4) + payload)
