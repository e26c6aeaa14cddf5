"""Canonical msgpack has one encoding per value, and decoding refuses everything else with ``FormatError``, cheaply."""

from __future__ import annotations

import tracemalloc
from enum import IntEnum
from typing import Any

import pytest

from buckia.core.canonical import DEPTH_MAX, ascending, decode, encode, fields, within
from buckia.errors import FormatError


class Colour(IntEnum):
    RED = 3


ENCODINGS = [
    (None, "c0"),
    (0, "00"),
    (127, "7f"),
    (128, "cc80"),
    (256, "cd0100"),
    (65536, "ce00010000"),
    (1 << 32, "cf0000000100000000"),
    ((1 << 64) - 1, "cfffffffffffffffff"),
    (-1, "ff"),
    (-32, "e0"),
    (-33, "d0df"),
    (-129, "d1ff7f"),
    (-(1 << 63), "d38000000000000000"),
    (b"", "c400"),
    (b"\x00\xff", "c40200ff"),
    ("", "a0"),
    ("aä", "a361c3a4"),
    ("x" * 32, "d920" + "78" * 32),
    ([], "90"),
    ([1, [None, b"z"]], "920192c0c4017a"),
    ([0] * 16, "dc0010" + "00" * 16),
]

NOT_CANONICAL = {
    "nothing": "",
    "truncated array": "9201",
    "two values": "0101",
    "integer that would be shorter": "cc01",
    "long form of zero": "d300000000000000 00",
    "signed form of a positive": "d07f",
    "str that would be shorter": "d90161",
    "bin16 that would be bin8": "c5000161",
    "array16 that would be a fixarray": "dc000101",
    "true": "c3",
    "false in an array": "91c2",
    "float": "ca00000000",
    "double": "cb0000000000000000",
    "empty map": "80",
    "map": "81a16101",
    "map with an array as key": "819001",
    "extension": "d40500",
    "empty extension": "c70005",
    "timestamp": "d6ff00000001",
    "malformed timestamp": "c700ff",
    "str that is not UTF-8": "a1ff",
    "unused byte": "c1",
    "array that announces four billion items": "ddffffffff",
    "str that announces four gigabytes": "dbffffffff",
}


@pytest.mark.parametrize(("value", "expected"), ENCODINGS)
def test_each_value_has_its_shortest_form(value: Any, expected: str) -> None:
    data = encode(value)
    assert data.hex() == expected
    assert decode(data, size_max=100) == value


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_what_no_writer_makes_is_refused(data: str) -> None:
    with pytest.raises(FormatError):
        decode(bytes.fromhex(data), size_max=100)


@pytest.mark.parametrize("value", [True, 1.5, {}, {1}, bytearray(b"x"), 1 << 64, -(1 << 63) - 1, "\ud800", object()])
def test_what_the_format_cannot_hold_is_not_encoded(value: Any) -> None:
    with pytest.raises(FormatError):
        encode([1, [value]])


def test_tuples_and_enumerations_are_arrays_and_integers() -> None:
    assert encode((1, (Colour.RED,))) == encode([1, [3]])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_decoded(kind: Any) -> None:
    assert decode(kind(b"\x92\x01\xa1a"), size_max=4) == [1, "a"]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_arrays_nest_to_the_limit_and_no_deeper() -> None:
    assert decode(encode(nested(DEPTH_MAX)), size_max=100) == nested(DEPTH_MAX)
    with pytest.raises(FormatError):
        encode(nested(DEPTH_MAX + 1))
    for depth in (DEPTH_MAX + 1, 600, 100_000):
        with pytest.raises(FormatError):
            decode(b"\x91" * (depth - 1) + b"\x90", size_max=200_000)


def test_an_array_that_contains_itself_is_not_encoded() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(FormatError):
        encode(value)


def test_size_and_number_of_items_are_limited() -> None:
    data = encode([1, 2, [3, 4]])
    assert decode(data, size_max=len(data), items_max=6) == [1, 2, [3, 4]]
    with pytest.raises(FormatError):
        decode(data, size_max=len(data) - 1)
    with pytest.raises(FormatError):
        decode(data, size_max=len(data), items_max=5)
    with pytest.raises(FormatError):
        encode([1, 2], items_max=2)


MANY = [
    [None] * 65536,
    *([None, 0, 127, -1, -32] * 3),
    *(1 << bits for bits in range(64)),
    *(-(1 << bits) for bits in range(64)),
    *(b"x" * size for size in (0, 1, 255, 256, 65535, 65536)),
    *("x" * size for size in (0, 1, 31, 32, 255, 256, 65535, 65536)),
    [],
    [[]] * 15,
    [[1, b"", "a"]] * 16,
    "the end",
]
"""Every form of every type; at the end more bytes than values, so that all of it is counted."""


def total(value: Any) -> int:
    return 1 + sum(map(total, value)) if isinstance(value, list) else 1


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_limit_of_items_is_exact_for_every_form(kind: Any) -> None:
    data = kind(encode(MANY))
    assert decode(data, size_max=len(data), items_max=total(MANY)) == MANY
    with pytest.raises(FormatError, match=f"more than {total(MANY) - 1} items"):
        decode(data, size_max=len(data), items_max=total(MANY) - 1)
    for items_max in (65_000, 100, 1, 0):
        with pytest.raises(FormatError, match=f"more than {items_max} items"):
            decode(data, size_max=len(data), items_max=items_max)


@pytest.mark.parametrize("value", MANY[-18:], ids=range(18))
def test_the_limit_of_items_is_exact_for_a_single_value(value: Any) -> None:
    data = encode([value])
    assert decode(data, size_max=len(data), items_max=total([value])) == [value]
    with pytest.raises(FormatError, match="items"):
        decode(data, size_max=len(data), items_max=total([value]) - 1)


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_what_no_writer_makes_is_refused_where_values_are_counted_first(data: str) -> None:
    for raw in (bytes.fromhex(data), b"\x92\x00" + bytes.fromhex(data)):
        with pytest.raises(FormatError):
            decode(raw, size_max=100, items_max=len(raw) - 1)


def test_announced_items_cost_no_memory_until_they_are_there() -> None:
    bomb = b"\xdd\x00\x0f\xff\xff" * 500 + bytes(1000)
    tracemalloc.start()
    with pytest.raises(FormatError):
        decode(bomb, size_max=len(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_fields_checks_number_and_types() -> None:
    assert fields([1, b"a"], (int, bytes), "pair") == [1, b"a"]
    for value in ([1], [1, b"a", 2], [b"a", 1], (1, b"a"), None, 7):
        with pytest.raises(FormatError, match="pair"):
            fields(value, (int, bytes), "pair")


def test_within_and_ascending() -> None:
    within(3, 3, 3, "number")
    ascending([], "names")
    ascending([b"a", b"b"], "names")
    for bad in ([b"a", b"a"], [b"b", b"a"]):
        with pytest.raises(FormatError, match="names"):
            ascending(bad, "names")
    for number in (2, 4):
        with pytest.raises(FormatError, match="number"):
            within(number, 3, 3, "number")
