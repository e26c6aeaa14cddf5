"""Records, the folder object and keys: one encoding each, and nothing malformed passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from buckia.core import canonical, record
from buckia.core.ids import DeviceId, ObjectId
from buckia.core.pack import PACK_BYTES_MAX
from buckia.core.record import (
    Ack,
    Condemn,
    PackRef,
    Record,
    Snapshot,
    Unknown,
    check_folder,
    decode_record,
    encode_folder,
    encode_record,
)
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError

A, B, C = (DeviceId(bytes([n]) * 16) for n in (1, 2, 3))
H1, H2, H3 = (ObjectId(bytes([n]) * 32) for n in (7, 8, 9))
SNAPSHOT = Snapshot(b"s" * 32, b"c" * 32, 2, 300, (PackRef(H2, 1000, bytes(96)), PackRef(H1, 500)))
FULL = Record(B, 5, H3, (), ((A, 1, H1), (C, 9, H2)), -5, "Küche", SNAPSHOT)
FIRST = Record(A, 1, None, (), (), 0, "", Ack())
HEADER = b"BKJR\x01\x00\x00\x00"


def value(changes: dict[int, Any] | None = None) -> list[Any]:
    """FULL as it is encoded, with some fields changed."""
    packs = [[H2, 1000, bytes(96)], [H1, 500, None]]
    body = [b"s" * 32, b"c" * 32, 2, 300, packs]
    fields = [B, 5, H3, "snapshot", [], [[A, 1, H1], [C, 9, H2]], -5, "Küche", body, None]
    for index, change in (changes or {}).items():
        fields[index] = change
    return fields


def encoded(fields: Any) -> bytes:
    return HEADER + canonical.encode(fields)


def body(changes: dict[int, Any]) -> bytes:
    changed = value()[8]
    for index, change in changes.items():
        changed[index] = change
    return encoded(value({8: changed}))


def test_the_bytes_of_a_record() -> None:
    assert encode_record(FULL) == encoded(value())
    assert encode_record(FIRST) == encoded([A, 1, None, "ack", [], [], 0, "", [], None])


@pytest.mark.parametrize("each", [FULL, FIRST, replace(FULL, body=Condemn((H1, H2)))])
def test_records_come_back(each: Record) -> None:
    assert decode_record(memoryview(encode_record(each))) == each


def test_kind_and_knowledge() -> None:
    assert FULL.kind == "snapshot"
    assert replace(FULL, body=Condemn(())).kind == "condemn"
    assert FIRST.kind == "ack"
    assert FULL.knowledge == {A: 1, B: 5, C: 9}
    assert FIRST.knowledge == {A: 1}


def test_an_unknown_kind_keeps_its_place_in_the_history() -> None:
    data = encoded(value({3: "forget", 8: [1, [2, b"x"]], 9: b"signature"}))
    assert decode_record(data) == replace(FULL, body=Unknown("forget"))
    assert decode_record(data).kind == "forget"
    with pytest.raises(FormatError):
        encode_record(decode_record(data))


def test_an_unknown_feature_makes_the_body_unknown() -> None:
    read = decode_record(encoded(value({4: ["delta", "padding"], 8: [1]})))
    assert read == replace(FULL, features=("delta", "padding"), body=Unknown("snapshot"))


@pytest.mark.parametrize(
    "changes",
    [
        {0: b"short"},
        {0: "text"},
        {1: 0},
        {1: record.SEQ_MAX + 1},
        {1: 1},
        {2: None},
        {2: b"short"},
        {3: b"snapshot"},
        {3: "x" * 65},
        {4: ["b", "a"]},
        {4: ["a", "a"]},
        {4: [1]},
        {4: ["x" * 65]},
        {4: [f"{n:03}" for n in range(record.FEATURES_MAX + 1)]},
        {5: [[C, 9, H2], [A, 1, H1]]},
        {5: [[A, 1, H1], [A, 2, H2]]},
        {5: [[B, 4, H1]]},
        {5: [[A, 0, H1]]},
        {5: [[A, 1, b"short"]]},
        {5: [[b"short", 1, H1]]},
        {5: [[A, 1]]},
        {5: [[n.to_bytes(16, "big"), 1, H1] for n in range(record.DEVICES_MAX + 1)]},
        {6: 1 << 63},
        {6: None},
        {7: "ä" * 33},
        {7: b"name"},
        {8: None},
        {8: []},
        {9: b"signature"},
        {3: "ack"},
        {3: "condemn"},
        {3: "ack", 8: [1]},
        {3: "condemn", 8: []},
        {3: "condemn", 8: [[H2, H1]]},
        {3: "condemn", 8: [[H1, H1]]},
        {3: "condemn", 8: [[b"short"]]},
        {3: "condemn", 8: [[1]]},
        {3: "condemn", 8: [[n.to_bytes(32, "big") for n in range(record.RECORD_PACKS_MAX + 1)]]},
    ],
)
def test_malformed_records_are_refused(changes: dict[int, Any]) -> None:
    with pytest.raises(FormatError):
        decode_record(encoded(value(changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {0: b"short"},
        {1: b"short"},
        {2: -1},
        {2: record.COUNT_MAX + 1},
        {3: -1},
        {3: record.COUNT_MAX + 1},
        {4: None},
        {4: [[H1, 500]]},
        {4: [[b"short", 500, None]]},
        {4: [[H1, 10, None]]},
        {4: [[H1, PACK_BYTES_MAX + 1, None]]},
        {4: [[H1, 500, b""]]},
        {4: [[H1, 500, bytes(47)]]},
        {4: [[H1, 500, None], [H1, 500, None]]},
        {4: [[H1, 9_999_999, bytes(48 * 11_000)], [H2, 9_999_999, bytes(48 * 11_000)]]},
        {4: [[n.to_bytes(32, "big"), 500, None] for n in range(record.RECORD_PACKS_MAX + 1)]},
    ],
)
def test_malformed_snapshots_are_refused(changes: dict[int, Any]) -> None:
    with pytest.raises(FormatError):
        decode_record(body(changes))


@pytest.mark.parametrize("fields", [None, 1, [], value()[:-1], [*value(), None]])
def test_what_is_no_record_is_refused(fields: Any) -> None:
    with pytest.raises(FormatError):
        decode_record(encoded(fields))


def test_headers() -> None:
    payload = encode_record(FULL)[8:]
    for header in (b"BKJX\x01\x00\x00\x00", b"BKJR\x01\x00\x00\x01", b"BKJR\x01\x00\x01\x00", b"BKJ"):
        with pytest.raises(FormatError) as caught:
            decode_record(header + payload)
        assert type(caught.value) is FormatError
    for header in (b"BKJR\x02\x00\x00\x00", b"BKJR\x01\x01\x00\x00", b"BKJR\x02\x00\x00\x09"):
        with pytest.raises(UnsupportedFormatError):
            decode_record(header + payload)
    with pytest.raises(FormatError):
        decode_record(HEADER + bytes(record.RECORD_BYTES_MAX))


@pytest.mark.parametrize(
    "bad",
    [
        replace(FULL, seq=0),
        replace(FULL, prev=None),
        replace(FULL, vector=((C, 9, H2), (A, 1, H1))),
        replace(FULL, name="x" * 65),
        replace(FULL, name="\ud800"),
        replace(FULL, features=("unknown",)),
        replace(FULL, body=Condemn((H2, H1))),
    ],
)
def test_what_could_not_be_read_is_not_written(bad: Record) -> None:
    with pytest.raises(FormatError):
        encode_record(bad)


def test_the_folder_object_is_a_function_of_the_name() -> None:
    assert encode_folder("docs") == bytes.fromhex("95a66275636b6961010100a4646f6373")
    for name in ("", "docs", "Ämter/2024"):
        check_folder(encode_folder(name), name)
    with pytest.raises(FormatError):
        encode_folder("x" * (record.FOLDER_NAME_BYTES_MAX + 1))


def test_another_folders_object_is_refused() -> None:
    with pytest.raises(IntegrityError):
        check_folder(encode_folder("docs"), "other")


@pytest.mark.parametrize(
    "fields", [["buckia", 2, 1, 0, ""], ["buckia", 1, 2, 0, ""], ["buckia", 1, 1, 1, ""], ["buckia", 7], ["buckia"]]
)
def test_folders_of_other_versions_are_unsupported(fields: list[Any]) -> None:
    with pytest.raises(UnsupportedFormatError):
        check_folder(canonical.encode(fields), "")


@pytest.mark.parametrize("data", [b"", b"\xc0", canonical.encode(["bucket", 1, 1, 0, ""]), bytes(5000)])
def test_what_is_no_folder_object_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_folder(data, "")


def test_keys() -> None:
    device, hash = "01" * 16, "07" * 32
    assert record.folder_key() == "folder"
    assert record.tip_key(A, 42, H1) == f"tips/{device}.0000000042-{hash}"
    assert record.record_key(A, 42, H1) == f"journal/{device}/0000000042-{hash}"
    assert record.pack_key(H1) == f"packs/07/{hash}"
    assert record.segment_key(H1) == f"segments/{hash}"


def test_keys_come_back() -> None:
    assert record.parse_tip_key(record.tip_key(A, 42, H1)) == (A, 42, H1)
    assert record.parse_record_key(record.record_key(A, record.SEQ_MAX, H1)) == (A, record.SEQ_MAX, H1)
    assert record.parse_pack_key(record.pack_key(H1)) == H1
    assert record.parse_segment_key(record.segment_key(H1)) == H1


@pytest.mark.parametrize(
    "key",
    [
        "",
        "folder",
        "tips/",
        record.tip_key(A, 0, H1),
        record.record_key(A, 0, H1),
        record.tip_key(A, 42, H1) + "0",
        record.tip_key(A, 42, H1) + "\n",
        record.tip_key(A, 42, H1).replace("00000", "\N{ARABIC-INDIC DIGIT ZERO}" * 5),
        record.tip_key(DeviceId(b"\xab" * 16), 42, H1).replace("ab", "AB"),
        record.pack_key(H1).replace("packs/07", "packs/08"),
        "x/" + record.pack_key(H1),
        record.segment_key(H1)[:-1],
    ],
)
def test_other_keys_are_not_parsed(key: str) -> None:
    assert record.parse_tip_key(key) is None
    assert record.parse_record_key(key) is None
    assert record.parse_pack_key(key) is None
    assert record.parse_segment_key(key) is None
