"""Mutations: the same seed makes the same inputs, with no more than the standard library and msgpack."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from fuzz.target import Target, unpack

_NUMBERS = (0, 1, 2, 31, 32, 47, 48, 127, 128, 255, 256, 512, 1 << 16, 1 << 24, 1 << 27, 1 << 31, 1 << 32)
_WORDS = (b"BKPK", b"BKPE", b"BKJR", b"BKSG", b"../", b"\xff", b"\xc0", b"\xdd\xff\xff\xff\xff", b"**")
_TEXT = b"\0\t\n\r \"#%&'*+-./0:=?@[\\]_{|}~\x7f\x80\xc3\xa9\xed"
_SCALARS = (None, True, 0.5, -1, 0, 1, 7, 8, 9, 64, 65, 4096, 10**10, 2**53 - 1, 2**53, 2**63, -(2**63), 2**64 - 1)
_BINARIES = (b"", b"a", b"/", b"..", b"\xff", bytes(16), bytes(32), bytes(33), b"n" * 255, b"n" * 256)
_STRINGS = ("", "snapshot", "condemn", "ack", "later", "\u00e9" * 32)
_ARRAYS: tuple[Any, ...] = ([], [[]], [None] * 5, {}, {0: 0}, [[[[[[[[[1]]]]]]]]])
_VALUES: tuple[Any, ...] = (*_SCALARS, *_BINARIES, *_STRINGS, *_ARRAYS)


def mutations(target: Target, corpus: Sequence[bytes], seed: int = 0) -> Iterator[bytes]:
    """Endlessly many inputs made from those of the corpus."""
    chance = random.Random(f"{target.name} {seed}")
    while True:
        data = chance.choice(corpus)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            data = mutate(chance, target, data, chance.choice(corpus))
        yield data


def mutate(chance: random.Random, target: Target, data: bytes, other: bytes) -> bytes:
    """One change; where the input holds msgpack half of them are to values."""
    structure = target.structure
    if structure is not None and chance.random() < 0.5:
        value = unpack(structure.open(data))
        if isinstance(value, list):
            _change_value(chance, value, unpack(structure.open(other)))
            try:
                return structure.close(data, msgpack.packb(value))[: target.size_max]
            except (ValueError, OverflowError):
                pass  # nested too deeply for msgpack: the bytes are changed instead
    return chance.choice(_CHANGES)(chance, data, other)[: target.size_max]


def _change_value(chance: random.Random, value: list[Any], other: Any) -> None:
    arrays = list(_arrays(value))
    place = chance.choice(arrays)
    at = chance.randrange(len(place) + 1)
    what = chance.randrange(6)
    if what == 0 or at == len(place):
        place.insert(at, chance.choice(_VALUES))
    elif what == 1:
        del place[at]
    elif what == 2:
        place.insert(at, place[at])
    elif what == 3:
        place[at] = _near(chance, place[at])
    elif what == 4 and isinstance(other, list):
        donor = chance.choice(list(_arrays(other)))
        place[at] = chance.choice(donor) if donor else []
    else:
        place[at] = chance.choice(_VALUES)


def _arrays(value: list[Any], depth: int = 0) -> Iterator[list[Any]]:
    yield value
    if depth < 12:
        for item in value:
            if isinstance(item, list):
                yield from _arrays(item, depth + 1)


def _near(chance: random.Random, value: Any) -> Any:
    """Almost the same value."""
    if isinstance(value, bytes):
        return _change_byte(chance, value, b"")
    if isinstance(value, str):
        return value + chance.choice(("x", "\u0301", "\0"))
    if isinstance(value, list):
        return chance.sample(value, len(value))
    if isinstance(value, int):
        return value + chance.choice((-1, 1)) if -(2**62) < value < 2**62 else 0
    return chance.choice(_VALUES)


def _change_byte(chance: random.Random, data: bytes, _: bytes) -> bytes:
    if not data:
        return bytes([chance.randrange(256)])
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _set_byte(chance: random.Random, data: bytes, _: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes([chance.choice(_TEXT)]) + data[at + 1 :]


def _insert(chance: random.Random, data: bytes, _: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    new = chance.choice(
        (chance.randbytes(chance.randrange(1, 9)), chance.choice(_WORDS), bytes([chance.choice(_TEXT)]))
    )
    return data[:at] + new + data[at:]


def _delete(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:first] + data[min(end, first + chance.choice((1, 4, 48, 1 << 14))) :]


def _repeat(chance: random.Random, data: bytes, _: bytes) -> bytes:
    first, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:end] + data[first:end] * chance.choice((1, 1, 2, 16)) + data[end:]


def _number(chance: random.Random, data: bytes, _: bytes) -> bytes:
    width = chance.choice((1, 2, 4, 4, 8))
    number = (chance.choice(_NUMBERS) + chance.choice((-1, 0, 1))) % (1 << (8 * width))
    at = chance.randrange(len(data) + 1)
    return data[:at] + number.to_bytes(width, "big") + data[at + width :]


def _cut(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_CHANGES = (_change_byte, _change_byte, _set_byte, _insert, _delete, _repeat, _number, _number, _cut, _splice)
