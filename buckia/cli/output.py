"""What commands print: JSON on one line, or plain text that no file name can turn into terminal commands."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_HARMLESS = "\u200c\u200d"  # joiners, which letters and emoji are made of


def clean(text: str) -> str:
    """The text with everything that could steer a terminal, or reorder what is read, spelt out as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(character if _harmless(character) else _escape(character) for character in text)


def _harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs" or character in _HARMLESS


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def out(text: str = "") -> None:
    """Print a line for people to stdout."""
    sys.stdout.write(clean(text) + "\n")


def note(text: str) -> None:
    """Print a line for people to stderr."""
    sys.stderr.write(clean(text) + "\n")


def plain(value: Any) -> Any:
    """Result values as JSON knows them: objects of their fields, with the counts of ``traffic`` among them."""
    if is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {}
        for field in fields(value):
            item = plain(getattr(value, field.name))
            result |= item if field.name == "traffic" else {field.name: item}
        for name in ("success", "clean"):
            if hasattr(type(value), name):
                result[name] = bool(getattr(value, name))
        return result
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def out_json(value: Any) -> None:
    """Print a value as one line of JSON; ASCII only, so it survives every encoding."""
    sys.stdout.write(json.dumps(plain(value), separators=(",", ":")) + "\n")


def out_json_array(values: Iterable[Any]) -> None:
    """Print values as one array on one line, one by one, as there may be millions."""
    write = sys.stdout.write
    write("[")
    for number, value in enumerate(values):
        write(("," if number else "") + json.dumps(plain(value), separators=(",", ":")))
    write("]\n")


def size(count: int) -> str:
    """Bytes in decimal units with three digits: ``2.31 GB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if unit == 0:
        return f"{count} B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``3 directories``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def short(identifier: str) -> str:
    """The first twelve characters of an id or root: enough to tell it, and to name it in a command."""
    return identifier[:12]


def moment(time_ns: int) -> str:
    """Nanoseconds since 1970 as ``2026-11-22 10:06:31`` in UTC; ``?`` for what no calendar holds."""
    try:
        return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"


def width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lines of an aligned table; the columns in ``right`` hold numbers. Nothing is cut off."""
    cells = [[clean(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]
    numbers = set(right)
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - width(cell))
            padded.append(space + cell if column in numbers else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines
