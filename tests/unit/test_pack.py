"""A pack holds exactly the bytes that format.md says, and every deviation is refused or found by an id."""

from __future__ import annotations

import pytest

from buckia.core.codec import RAW, RAW_LENGTH_MAX, ZSTD, Compressor
from buckia.core.ids import BlobId, blob_id, object_id
from buckia.core.pack import (
    BLOBS_MAX,
    HEADER_BYTES,
    PACK_BYTES_MAX,
    PACK_BYTES_MIN,
    ROW_BYTES,
    TAIL_BYTES,
    BlobRow,
    PackBuilder,
    SealedPack,
    check_row,
    decode_rows,
    footer_bytes,
    parse_header,
    parse_pack,
    parse_tail,
    read_blob,
    row_at,
    verify_blobs,
)
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError

SALT = bytes(range(32))
BLOBS = [(0, b"one"), (1, b"two" * 1000), (2, b"\x00" * 50_000)]


def add(builder: PackBuilder, kind: int, raw: bytes) -> None:
    codec, payload = Compressor().compress(raw)
    builder.add(kind, codec, blob_id(kind, raw), len(raw), payload)


def make(buffer: bytearray | None = None) -> SealedPack:
    builder = PackBuilder(SALT, buffer)
    for kind, raw in BLOBS:
        add(builder, kind, raw)
    return builder.finish()


def row(**changes: int) -> bytes:
    values = {"kind": 0, "codec": 0, "zero": 0, "offset": HEADER_BYTES, "length": 3, "raw": 3} | changes
    start = bytes([values["kind"], values["codec"]]) + values["zero"].to_bytes(2, "big") + bytes(32)
    return start + b"".join(values[name].to_bytes(4, "big") for name in ("offset", "length", "raw"))


def test_the_bytes_of_a_pack() -> None:
    builder = PackBuilder(SALT)
    id = blob_id(0, b"abc")
    builder.add(0, RAW, id, 3, b"abc")
    header = b"BKPK\x01\x00\x00\x00" + bytes(4) + SALT + bytes(32)
    footer = b"\x00\x00\x00\x00" + id + bytes([0, 0, 0, 76, 0, 0, 0, 3, 0, 0, 0, 3])
    pack = builder.finish()
    assert bytes(pack.data) == header + b"abc" + footer + b"\x00\x00\x00\x01BKPE"
    assert pack.rows == footer
    assert pack.id == object_id(pack.data)


def test_blobs_come_back() -> None:
    pack = make()
    rows = parse_pack(pack.data)
    assert rows == decode_rows(pack.rows, size=len(pack.data))
    assert [(each.kind, read_blob(each, pack.data[each.offset : each.offset + each.length])) for each in rows] == BLOBS
    assert [row_at(pack.rows, i) for i in range(3)] == rows
    assert verify_blobs(pack.data, rows) == []
    for each in rows:
        check_row(each, len(pack.data))


def test_size_and_count_are_those_of_the_object() -> None:
    builder = PackBuilder(SALT)
    assert (builder.count, builder.size) == (0, HEADER_BYTES + TAIL_BYTES)
    for count, (kind, raw) in enumerate(BLOBS, 1):
        add(builder, kind, raw)
        assert builder.count == count
    size = builder.size
    assert len(builder.finish().data) == size


def test_memory_is_used_again_and_grows_where_it_must() -> None:
    buffer = bytearray(1 << 20)
    assert make(buffer).data.obj is buffer
    assert make(buffer) == make() == make(bytearray()) == make(bytearray(200))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payloads_may_be_any_buffer(kind: type[bytes]) -> None:
    builder = PackBuilder(SALT)
    builder.add(0, RAW, blob_id(0, b"abc"), 3, kind(b"abc"))
    assert bytes(builder.finish().data[76:79]) == b"abc"


def test_the_builder_refuses_what_no_reader_accepts() -> None:
    with pytest.raises(ValueError, match="salt"):
        PackBuilder(b"short")
    builder = PackBuilder(SALT)
    with pytest.raises(ValueError, match="outside"):
        builder.finish()
    for id, payload in ((b"short", b"abc"), (bytes(32), b"")):
        with pytest.raises(ValueError, match="needs"):
            builder.add(0, RAW, BlobId(id), 3, payload)


def test_the_builder_stops_at_the_largest_pack() -> None:
    builder = PackBuilder(SALT)
    chunk = bytes(RAW_LENGTH_MAX)
    for _ in range(7):
        builder.add(0, RAW, BlobId(bytes(32)), len(chunk), chunk)
    with pytest.raises(ValueError, match="larger"):
        builder.add(0, RAW, BlobId(bytes(32)), len(chunk), chunk)


def test_the_builder_stops_at_the_largest_number_of_blobs() -> None:
    builder = PackBuilder(SALT)
    for _ in range(BLOBS_MAX + 1):
        builder.add(0, RAW, BlobId(bytes(32)), 1, b"x")
    with pytest.raises(ValueError, match="65537 blobs"):
        builder.finish()


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, b"X", FormatError),
        (4, b"\x02", UnsupportedFormatError),
        (5, b"\x01", UnsupportedFormatError),
        (6, b"\x01", UnsupportedFormatError),
        (7, b"\x01", FormatError),
        (11, b"\x01", FormatError),
        (44, b"\x01", FormatError),
        (75, b"\x01", FormatError),
    ],
)
def test_every_byte_of_the_header_but_the_salt_is_fixed(at: int, value: bytes, error: type[FormatError]) -> None:
    data = bytearray(make().data)
    assert parse_header(data) == SALT
    data[at : at + 1] = value
    with pytest.raises(FormatError) as caught:
        parse_header(data)
    assert type(caught.value) is error


def test_tails() -> None:
    assert parse_tail(b"\x00\x01\x00\x00BKPE") == BLOBS_MAX
    for bad in (
        b"",
        b"\x00\x00\x00\x01BKPF",
        b"\x00\x00\x00\x00BKPE",
        b"\x00\x01\x00\x01BKPE",
        b"\x00\x00\x00\x01BKPEx",
    ):
        with pytest.raises(FormatError):
            parse_tail(bad)


@pytest.mark.parametrize(
    "rows",
    [
        b"",
        row()[:-1],
        row() + b"x",
        row(zero=1),
        row(offset=HEADER_BYTES - 1),
        row(offset=HEADER_BYTES + 1),
        row(length=0, raw=0),
        row(length=0),
        row(raw=0),
        row(raw=4),
        row(length=4, raw=3, codec=ZSTD),
        row(raw=RAW_LENGTH_MAX + 1, codec=ZSTD),
        row(length=(1 << 32) - 1, raw=(1 << 32) - 1),
        row() + row(),
        row() + row(offset=HEADER_BYTES + 4),
        row() * (BLOBS_MAX + 1),
    ],
)
def test_rows_that_no_writer_makes_are_refused(rows: bytes) -> None:
    with pytest.raises(FormatError):
        decode_rows(rows)


@pytest.mark.parametrize("changes", [{"kind": 3}, {"codec": 2}, {"codec": 255}])
def test_unknown_types_and_codecs_are_unsupported(changes: dict[str, int]) -> None:
    with pytest.raises(UnsupportedFormatError):
        decode_rows(row(**changes))
    with pytest.raises(UnsupportedFormatError):
        check_row(row_at(row(**changes), 0), 1000)


def test_rows_describe_exactly_their_object() -> None:
    size = HEADER_BYTES + 3 + footer_bytes(1)
    assert decode_rows(row(), size=size) == [BlobRow(0, 0, BlobId(bytes(32)), 76, 3, 3)]
    assert decode_rows(row(offset=500), start=500)[0].offset == 500
    for wrong in (size - 1, size + 1):
        with pytest.raises(FormatError):
            decode_rows(row(), size=wrong)
    eight = b"".join(
        row(offset=HEADER_BYTES + i * RAW_LENGTH_MAX, length=RAW_LENGTH_MAX, raw=RAW_LENGTH_MAX) for i in range(8)
    )
    assert len(decode_rows(eight[:-ROW_BYTES])) == 7
    with pytest.raises(FormatError):
        decode_rows(eight)


@pytest.mark.parametrize(
    "changes", [{"offset": 75}, {"offset": 78}, {"length": 0}, {"length": 4, "raw": 4}, {"raw": 4}, {"length": 2}]
)
def test_a_single_row_lies_inside_its_pack(changes: dict[str, int]) -> None:
    size = HEADER_BYTES + 4 + footer_bytes(1)
    check_row(row_at(row(offset=77), 0), size)
    with pytest.raises(FormatError):
        check_row(row_at(row(**{"offset": 77} | changes), 0), size)


def test_objects_of_impossible_sizes_are_refused() -> None:
    data = bytes(make().data)
    for bad in (b"", data[:75], data[: PACK_BYTES_MIN - 1], data[:-1], data + b"x", bytes(PACK_BYTES_MAX + 1)):
        with pytest.raises(FormatError):
            parse_pack(bad)
    with pytest.raises(FormatError):
        parse_pack(data[:76] + bytes(60) + b"\x00\x00\xff\xffBKPE")


def test_a_blob_is_what_its_id_says() -> None:
    id = blob_id(0, b"abc")
    good = BlobRow(0, RAW, id, 76, 3, 3)
    assert read_blob(good, memoryview(b"abc")) == b"abc"
    assert type(read_blob(good, memoryview(b"abc"))) is bytes
    for row, payload in ((good, b"abd"), (good, b"ab"), (good, b"abcd"), (good._replace(kind=1), b"abc")):
        with pytest.raises(IntegrityError):
            read_blob(row, payload)


def test_verification_names_the_damaged_blobs() -> None:
    pack = make()
    rows = parse_pack(pack.data)
    for index, damaged in enumerate(rows):
        data = bytearray(pack.data)
        data[damaged.offset + damaged.length // 2] ^= 1
        assert verify_blobs(data, rows) == [rows[index]]
    assert verify_blobs(bytes(len(pack.data)), rows) == rows
