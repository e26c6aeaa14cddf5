"""Canonical msgpack: one value, one encoding. See ``specs/format.md``, section 2.

Values are nil, integers, bin, str and arrays. Whoever decodes gets exactly what a writer of this format encodes, or
``FormatError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress, pairwise
from typing import Any

import msgpack

from buckia.core.ids import Buffer
from buckia.errors import FormatError

DEPTH_MAX = 8
ITEMS_MAX = 1 << 20

Value = None | int | bytes | str | Sequence["Value"]
"""What can be encoded. ``bool`` and ``float`` are refused when it is."""

_ARRAYS = frozenset({list, tuple})
_TYPES = _ARRAYS | {type(None), int, bytes, str}

_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""By a value's first byte: of how many bytes the length is that follows it, where one does."""
_WIDTHS = bytes(
    [
        *(1 for _ in range(0x80)),  # integers
        *(0 for _ in range(0x10)),  # maps: none
        *(1 for _ in range(0x10)),  # arrays
        *(1 + length for length in range(0x20)),  # str
        *bytes.fromhex("01000000 02030500 00000000 02030509 02030509 00000000 00020305 03050000"),
        *(1 for _ in range(0x20)),  # integers
    ]
)
"""By a value's first byte: its bytes without those that a length counts and without an array's items; 0 for none of the
format.
"""


def encode(value: Value, *, items_max: int = ITEMS_MAX) -> bytes:
    """The canonical bytes of a value; tuples are arrays. Raises ``FormatError`` for what the format cannot hold."""
    _check(value, items_max)
    return _pack(value)


def decode(data: Buffer, *, size_max: int, items_max: int = ITEMS_MAX) -> Any:
    """The value with these bytes, arrays as lists.

    Raises ``FormatError`` for more than ``size_max`` bytes or ``items_max`` values, and for bytes that ``encode`` would
    not make.
    """
    if len(data) > size_max:
        raise FormatError(f"A value of {len(data)} bytes is larger than the {size_max} that are allowed.")
    try:
        _require_whole(data)
        _count(data, items_max)
        value = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_array_len=items_max, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise FormatError(f"Malformed msgpack: {error or 'truncated'}.") from None
    _check(value, items_max)
    if _pack(value) != data:
        raise FormatError("A value is not encoded in its canonical form.")
    return value


def fields(value: object, types: Sequence[type | tuple[type, ...]], what: str) -> list[Any]:
    """``value`` if it is an array with exactly these types of items; ``FormatError`` that names ``what`` otherwise."""
    if not isinstance(value, list) or len(value) != len(types) or not all(map(isinstance, value, types)):
        raise FormatError(f"A malformed {what}.")
    return value


def within(value: int, low: int, high: int, what: str) -> None:
    """Raise ``FormatError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise FormatError(f"A {what} of {value} is outside {low} to {high}.")


def ascending(values: Iterable[Any], what: str) -> None:
    """Raise ``FormatError`` unless each value is greater than the one before."""
    if any(a >= b for a, b in pairwise(values)):
        raise FormatError(f"The {what} are not sorted, or one is repeated.")


def _require_whole(data: Buffer) -> None:
    """An array is allocated when its header is read. Skipping allocates nothing, and fails where announced items are
    missing.
    """
    scanner = msgpack.Unpacker(max_buffer_size=len(data), strict_map_key=True)
    scanner.feed(data)
    scanner.skip()


def _count(data: Buffer, items_max: int) -> None:
    """Refuse more than ``items_max`` values before one of them is made: the byte of an empty array takes 80 in memory.

    A value takes a byte at least. So data of up to ``items_max`` bytes need not be looked at, nor what is left once the
    values so far took so many bytes more.
    """
    excess, at = len(data) - items_max, 0
    for _ in range(items_max):
        if excess <= 0:
            return
        head = data[at]
        width = _WIDTHS[head]
        if width != 1:
            if not width:
                raise FormatError(f"The format has no values that begin with the byte {head:02x}.")
            length = _LENGTHS.get(head)
            if length is not None:
                width += int.from_bytes(data[at + 1 : at + 1 + length])
            excess -= width - 1
        at += width
    if excess > 0:
        raise _too_many(items_max)


def _pack(value: Value) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"A value that the format cannot hold: {error}.") from None
    return packed


def _check(value: object, items_max: int) -> None:
    """Level by level, so that the work per value is done in C."""
    level: list[object] = [value]
    items = 0
    for _ in range(DEPTH_MAX + 1):
        items += len(level)
        if items > items_max:
            raise _too_many(items_max)
        types = list(map(type, level))
        distinct = set(types)
        if not distinct <= _TYPES:
            _refuse(distinct - _TYPES)
        if distinct.isdisjoint(_ARRAYS):
            return
        arrays: Iterable[Any] = compress(level, map(_ARRAYS.__contains__, types))
        level = list(chain.from_iterable(arrays))
    raise FormatError(f"Arrays are nested more than {DEPTH_MAX} deep.")


def _too_many(items_max: int) -> FormatError:
    return FormatError(f"A value holds more than {items_max} items.")


def _refuse(types: Iterable[type]) -> None:
    for kind in types:
        if kind is bool or not issubclass(kind, int):  # enumerations are integers
            raise FormatError(f"The format has no values of type {kind.__name__}.")
