"""Segments and the index find every blob that their records and packs hold, and refuse rows that no writer makes."""

from __future__ import annotations

import mmap
import random
from pathlib import Path
from typing import Any

import pytest

from buckia.core import canonical, index
from buckia.core.ids import BlobId, DeviceId, ObjectId, blob_id, object_id
from buckia.core.index import Index, Location, Segment, build_segment, merge_segments
from buckia.core.pack import PackBuilder, decode_rows
from buckia.core.record import Ack, PackRef, Record, Snapshot, encode_record
from buckia.errors import ForkError, FormatError, IntegrityError, UnsupportedFormatError
from tests.support.segments import rows_of_pack

A, B = DeviceId(b"a" * 16), DeviceId(b"b" * 16)
Packs = dict[ObjectId, tuple[int, bytes]]
Blobs = dict[BlobId, list[Location]]


def make_pack(texts: list[bytes], salt: int = 0) -> tuple[ObjectId, int, bytes]:
    builder = PackBuilder(salt.to_bytes(32, "big"), bytearray())
    for text in texts:
        builder.add(0, 0, blob_id(0, text), len(text), text)
    sealed = builder.finish()
    return sealed.id, len(sealed.data), sealed.rows


def make_record(device: DeviceId, seq: int, packs: list[tuple[ObjectId, int, bytes]], inline: bool = False) -> bytes:
    refs = tuple(PackRef(id, size, rows if inline else None) for id, size, rows in packs)
    prev = ObjectId(bytes(32)) if seq > 1 else None
    return encode_record(Record(device, seq, prev, (), (), 0, "", Snapshot(bytes(32), bytes(32), 0, 0, refs)))


def make(device: DeviceId, seqs: range, packs_each: int = 2, blobs_each: int = 40) -> tuple[list[bytes], Packs, Blobs]:
    """Records, the rows that they do not hold, and where each blob is."""
    records, packs, blobs = [], {}, {}
    for seq in seqs:
        made = []
        for number in range(packs_each):
            texts = [b"%s %d %d %d" % (device, seq, number, i) for i in range(blobs_each)] + [b"shared", b"%d" % number]
            pack, size, rows = make_pack(texts, seq * 1000 + number)
            made.append((pack, size, rows))
            if seq % 2:
                packs[pack] = (size, rows)
            for row in decode_rows(rows):
                blobs.setdefault(row.id, []).append(Location(pack, row))
        records.append(make_record(device, seq, made, inline=seq % 2 == 0))
    return records, packs, blobs


RECORDS, PACKS, BLOBS = make(A, range(1, 6))
DATA = build_segment(RECORDS, PACKS)
UNKNOWN = [blob_id(1, b"%d" % i) for i in range(200)]


def rebuilt(rows: Any = None, **changes: Any) -> bytes:
    """DATA with some parts replaced."""
    segment = Segment(DATA)
    parts = {
        "ranges": segment.ranges,
        "records": segment.records(),
        "packs": segment.packs,
        "header": b"BKSG\x01\x00\x00\x00",
    } | changes
    meta = canonical.encode((parts["ranges"], parts["records"], parts["packs"]))
    body = b"".join(all_rows() if rows is None else rows)
    return parts["header"] + len(meta).to_bytes(4, "big") + (len(body) // 52).to_bytes(4, "big") + meta + body


def all_rows() -> list[bytes]:
    body = DATA[16 + int.from_bytes(DATA[8:12], "big") :]
    return [body[at : at + 52] for at in range(0, len(body), 52)]


def test_the_bytes_of_a_segment() -> None:
    pack, size, rows = make_pack([b"abc"])
    record = make_record(A, 1, [(pack, size, rows)])
    meta = canonical.encode([[[A, 1, 1]], [record], [[pack, size]]])
    row = blob_id(0, b"abc") + bytes(4) + rows[36:48] + bytes(4)
    expected = b"BKSG\x01\x00\x00\x00" + len(meta).to_bytes(4, "big") + b"\x00\x00\x00\x01" + meta + row
    assert build_segment([record], {pack: (size, rows)}) == expected


def test_a_segment_covers_its_records() -> None:
    segment = Segment(DATA)
    segment.check()
    assert segment.ranges == [(A, 1, 5)]
    assert segment.records() == RECORDS
    assert segment.packs == sorted(segment.packs)
    assert len(segment) == sum(map(len, BLOBS.values()))
    assert rebuilt() == DATA


def test_a_segment_finds_what_it_holds_and_nothing_else() -> None:
    segment = Segment(DATA)
    for id, locations in BLOBS.items():
        assert sorted(segment.find_all(id)) == sorted(locations)
        assert id in segment
    for id in (*UNKNOWN, BlobId(bytes(32)), BlobId(b"\xff" * 32)):
        assert segment.find_all(id) == []
        assert id not in segment
    assert sorted(segment) == sorted(location for locations in BLOBS.values() for location in locations)


def test_of_several_packs_the_largest_is_preferred() -> None:
    small, large = make_pack([b"x"]), make_pack([b"x", b"y" * 100])
    for number in range(4):
        other = make_pack([b"x"], number + 7)
        records = [make_record(A, 1, [small, large, other], inline=True)]
        covered, recent = Index(), Index()
        covered.add_segment(ObjectId(bytes(32)), Segment(build_segment(records, {})))
        for pack in (small, large, other):
            recent.add_pack(*pack)
        found = recent.get(blob_id(0, b"x"))
        assert found is not None
        assert found.pack == large[0]
        assert covered.get(blob_id(0, b"x")) == found


def test_ids_that_are_not_uniform_are_found_too() -> None:
    """Equal beginnings defeat interpolation, not the search."""
    generator = random.Random(3)
    ids = [BlobId(bytes(8) + generator.randbytes(24)) for _ in range(300)]
    ids += [BlobId(b"\xff" * 31 + bytes([n])) for n in range(200)] + [BlobId(bytes(7) + b"\x01" + bytes(24))]
    builder = PackBuilder(bytes(32))
    for id in ids[::2]:
        builder.add(0, 0, id, 1, b"x")
    sealed = builder.finish()
    record = make_record(A, 1, [(sealed.id, len(sealed.data), sealed.rows)], inline=True)
    segment = Segment(build_segment([record], {}))
    assert [id in segment for id in ids] == [n % 2 == 0 for n in range(len(ids))]


def test_an_empty_segment() -> None:
    for data in (build_segment([], {}), merge_segments([])):
        segment = Segment(data)
        segment.check()
        assert (len(segment), segment.ranges, segment.packs, segment.records()) == (0, [], [], [])
        assert segment.find_all(UNKNOWN[0]) == []


def test_rows_of_a_pack_are_its_footer() -> None:
    segment = Segment(DATA)
    for pack, (_, rows) in PACKS.items():
        assert rows_of_pack(segment, pack) == rows
    assert rows_of_pack(segment, ObjectId(bytes(32))) == b""


def test_a_memory_map_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        segment = Segment(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    segment.check()
    assert all(sorted(segment.find_all(id)) == sorted(locations) for id, locations in BLOBS.items())


def test_segments_merge_to_what_one_segment_would_be() -> None:
    theirs, their_packs, _ = make(B, range(2, 9))
    everything = build_segment([*RECORDS, *theirs], PACKS | their_packs)
    parts = [(RECORDS[:2] + theirs[3:], PACKS | their_packs), (theirs[:4], their_packs), (RECORDS[1:], PACKS)]
    segments = [Segment(build_segment(records, packs)) for records, packs in parts]
    assert merge_segments(segments) == everything
    assert merge_segments(segments[::-1]) == everything
    assert Segment(everything).ranges == [(A, 1, 5), (B, 2, 8)]


def test_gaps_stay_gaps() -> None:
    segment = Segment(build_segment([RECORDS[4], RECORDS[0], RECORDS[1]], PACKS))
    assert segment.ranges == [(A, 1, 2), (A, 5, 5)]
    segment.check()


def test_one_record_of_a_number() -> None:
    other = make_record(A, 1, [])
    with pytest.raises(ForkError):
        build_segment([RECORDS[0], other], PACKS)
    with pytest.raises(ForkError):
        merge_segments([Segment(DATA), Segment(build_segment([other], {}))])
    assert build_segment([*RECORDS, RECORDS[0]], PACKS) == DATA


def test_a_pack_that_is_gone_has_no_rows() -> None:
    gone = next(iter(PACKS))
    segment = Segment(build_segment(RECORDS, PACKS | {gone: (PACKS[gone][0], b"")}))
    segment.check()
    assert rows_of_pack(segment, gone) == b""
    assert gone in segment.sizes


def test_rows_that_are_missing_or_contradict_are_refused() -> None:
    pack, (size, rows) = next(iter(PACKS.items()))
    with pytest.raises(IntegrityError, match="missing"):
        build_segment(RECORDS, {})
    for wrong in ((size + 1, rows), (size, rows[:-48]), (size, rows[:-1])):
        with pytest.raises(FormatError):
            build_segment(RECORDS, PACKS | {pack: wrong})
    with pytest.raises(FormatError, match="differently"):
        build_segment([RECORDS[0], make_record(B, 1, [(pack, size + 1, b"")])], PACKS)
    forged = Segment(rebuilt(packs=[(id, size + 1) for id, size in Segment(DATA).packs]))
    with pytest.raises(FormatError, match="different sizes"):
        merge_segments([Segment(DATA), forged])


def test_records_that_are_not_understood_stay_outside() -> None:
    fields = canonical.decode(memoryview(RECORDS[0])[8:], size_max=1 << 20)
    fields[3] = "forget"
    with pytest.raises(UnsupportedFormatError):
        build_segment([RECORDS[0][:8] + canonical.encode(fields)], {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        DATA[:15],
        DATA[:-1],
        DATA + b"x",
        rebuilt(header=b"BKSX\x01\x00\x00\x00"),
        rebuilt(header=b"BKSG\x02\x00\x00\x00"),
        rebuilt(header=b"BKSG\x01\x01\x00\x00"),
        rebuilt(header=b"BKSG\x01\x00\x00\x01"),
        rebuilt(ranges=[]),
        rebuilt(ranges=[(A, 1, 4)]),
        rebuilt(ranges=[(A, 0, 4)]),
        rebuilt(ranges=[(A, 5, 1)]),
        rebuilt(ranges=[(A, 1, 3), (A, 4, 5)]),
        rebuilt(ranges=[(A, 1, 3), (A, 3, 4)]),
        rebuilt(ranges=[(B, 1, 2), (A, 1, 3)]),
        rebuilt(ranges=[(b"short", 1, 5)]),
        rebuilt(ranges=[1]),
        rebuilt(records=[1, 2, 3, 4, 5]),
        rebuilt(packs=[*Segment(DATA).packs[::-1]]),
        rebuilt(packs=[(b"short", 500)]),
        rebuilt(packs=[(b"p" * 32, 1)]),
        rebuilt(packs=[1]),
    ],
)
def test_malformed_segments_do_not_open(data: bytes) -> None:
    with pytest.raises(FormatError):
        Segment(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"ranges": [(A, 2, 6)]},
        {"ranges": [(B, 1, 5)]},
        {"records": RECORDS[::-1]},
        {"records": [b"x"] * 5},
        {"packs": Segment(DATA).packs[:-1], "rows": []},
        {"packs": [*Segment(DATA).packs, (b"\xff" * 32, 500)]},
        {"rows": all_rows()[::-1]},
        {"rows": [all_rows()[0], *all_rows()]},
        {"rows": all_rows()[1:]},
        {"rows": [row[:32] + b"\x00\x00\x00\x63" + row[36:] for row in all_rows()]},
        {"rows": [row[:-1] + b"\x01" for row in all_rows()]},
        {"rows": [row[:-4] + b"\x01" + row[-3:] for row in all_rows()]},
    ],
)
def test_the_full_check_finds_every_contradiction(changes: Any) -> None:
    segment = Segment(rebuilt(**changes))
    with pytest.raises(FormatError):
        segment.check()


@pytest.mark.parametrize(
    ("at", "value"), [(32, 99), (36, 0), (36, 4096), (40, 0), (40, 1 << 31), (44, 0), (44, 1 << 25), (48, 0x03000000)]
)
def test_a_lookup_checks_the_row_that_it_returns(at: int, value: int) -> None:
    segment = Segment(rebuilt(rows=[row[:at] + value.to_bytes(4, "big") + row[at + 4 :] for row in all_rows()]))
    with pytest.raises(FormatError):
        segment.find_all(next(iter(BLOBS)))
    with pytest.raises(FormatError):
        list(segment)
    with pytest.raises(FormatError):
        segment.check()


def test_merging_refuses_rows_of_no_pack() -> None:
    forged = Segment(rebuilt(rows=[row[:32] + b"\x00\x00\x00\x63" + row[36:] for row in all_rows()]))
    with pytest.raises(FormatError):
        merge_segments([forged])


def test_segments_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SEGMENT_BYTES_MAX", len(DATA))
    assert build_segment(RECORDS, PACKS) == DATA
    monkeypatch.setattr(index, "SEGMENT_BYTES_MAX", len(DATA) - 1)
    with pytest.raises(FormatError):
        build_segment(RECORDS, PACKS)
    with pytest.raises(FormatError):
        Segment(DATA)


def test_the_index_joins_segments_and_recent_packs() -> None:
    found = Index()
    found.add_segment(object_id(DATA), Segment(DATA))
    _, their_packs, their_blobs = make(B, range(1, 2))
    for pack, (size, rows) in their_packs.items():
        found.add_pack(pack, size, rows)
        found.add_pack(pack, size, rows)
        assert found.pack_size(pack) == size
    for id in {**BLOBS, **their_blobs}:
        expected = BLOBS.get(id, []) + their_blobs.get(id, [])
        locations = found.locations(id)
        assert sorted(locations) == sorted(expected)
        sizes = [found.pack_size(location.pack) or 0 for location in locations]
        assert sizes == sorted(sizes, reverse=True)
        assert found.get(id) == locations[0]
        assert found.kind(id) == locations[0].row.kind
        assert id in found
    for id in UNKNOWN:
        assert (found.get(id), found.kind(id), found.locations(id), id in found) == (None, None, [], False)


def test_a_segment_may_cover_recent_packs() -> None:
    found = Index()
    for pack, (size, rows) in PACKS.items():
        found.add_pack(pack, size, rows)
    found.add_segment(object_id(DATA), Segment(DATA))
    for id, locations in BLOBS.items():
        assert sorted(found.locations(id)) == sorted(locations)


def test_dropping_a_segment_forgets_what_only_it_held() -> None:
    found = Index()
    hash = object_id(DATA)
    pack, (size, rows) = next(iter(PACKS.items()))
    found.add_pack(pack, size, rows)
    for _ in range(2):
        found.add_segment(hash, Segment(DATA))
    found.drop_segment(ObjectId(bytes(32)))
    found.drop_segment(hash)
    held = {row.id for row in decode_rows(rows)}
    assert {id for id in BLOBS if id in found} == held
    assert [id for id, _ in Segment(DATA).packs if found.pack_size(id) is not None] == [pack]


def test_the_index_refuses_malformed_rows_and_stays_as_it_was() -> None:
    found = Index()
    pack, (size, rows) = next(iter(PACKS.items()))
    for wrong in ((size + 1, rows), (size, b""), (size, rows[:-1])):
        with pytest.raises(FormatError):
            found.add_pack(pack, *wrong)
    assert found.pack_size(pack) is None
    found.add_pack(pack, size, rows)
    assert found.pack_size(pack) == size


def test_a_blob_that_is_twice_in_a_pack() -> None:
    pack, size, rows = make_pack([b"same", b"other", b"same", b"same"])
    found = Index()
    found.add_pack(pack, size, rows)
    segment = Segment(build_segment([make_record(A, 1, [(pack, size, rows)])], {pack: (size, rows)}))
    segment.check()
    assert rows_of_pack(segment, pack) == rows
    for locations in (found.locations(blob_id(0, b"same")), segment.find_all(blob_id(0, b"same"))):
        assert sorted(location.row.offset for location in locations) == [76, 85, 89]


def test_acks_are_covered_too() -> None:
    ack = encode_record(Record(B, 1, None, (), (), 0, "", Ack()))
    segment = Segment(build_segment([ack, *RECORDS], PACKS))
    segment.check()
    assert segment.ranges == [(A, 1, 5), (B, 1, 1)]
