"""Rows: what this device shows of the folder, name by name, and their form in the local state.

A row ties a name on disk to the versions that it shows (their dots) and to the stat that was read back when it was
written or
hashed. An edit or deletion supersedes exactly these dots.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack

from buckia.core.ids import BlobId, DeviceId, Dot
from buckia.core.manifest import Content, FileContent, Kind
from buckia.errors import FormatError
from buckia.local.fs import Stat

_FORMAT = 1
_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True)
class Row:
    """One name that this device shows, or has hidden."""

    name: str
    """On disk, one component."""
    entry_name: bytes
    """The entry's name in the folder."""
    kind: Kind
    dots: tuple[Dot, ...]
    """The versions that are shown under this name; all have the same kind, content and mode."""
    content: Content
    mode: int
    """The version's permission bits; the disk's are in ``stat`` and may differ where it cannot hold them."""
    size: int
    mtime_ns: int
    """The version's time."""
    stat: Stat | None = None
    """Of the file while it has this content; None: unknown or not settled, so the file must be read again."""
    hidden: bool = False
    """Deleted here, and the deletion is not to be published: no file, and none is to be made for these dots."""


def encode_rows(rows: Iterable[Row]) -> bytes:
    """The bytes of a directory's rows."""
    devices: dict[DeviceId, int] = {}
    items: list[Any] = []
    for row in rows:
        name = os.fsencode(row.name)
        content = row.content
        items.append(
            (
                name,
                None if row.entry_name == name else row.entry_name,
                int(row.kind),
                [part for dot in row.dots for part in (devices.setdefault(dot.device, len(devices)), dot.seq)],
                (content.depth, content.id) if isinstance(content, FileContent) else content,
                row.mode,
                row.size,
                row.mtime_ns,
                row.stat,
                int(row.hidden),
            )
        )
    packed: bytes = msgpack.packb([_FORMAT, list(devices), items])
    return packed


def decode_rows(data: bytes) -> list[Row]:
    """The rows in these bytes; ``FormatError`` if they are damaged."""
    try:
        version, devices, items = msgpack.unpackb(data, use_list=False)
        if version != _FORMAT:
            raise FormatError("Rows of the local state have an unknown format.")
        if type(devices) is not tuple or type(items) is not tuple:
            raise FormatError("Rows of the local state are no rows.")
        known: dict[tuple[int, int], Dot] = {}
        return [_decode_row(item, devices, known) for item in items]
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise FormatError(f"Rows of the local state are damaged: {error}.") from error


def _decode_row(item: Any, devices: tuple[Any, ...], known: dict[tuple[int, int], Dot]) -> Row:
    name, entry_name, kind, flat, content, mode, size, mtime_ns, stat, hidden = item
    if not (
        type(name) is bytes
        and (entry_name is None or type(entry_name) is bytes)
        and type(kind) is type(mode) is type(size) is type(mtime_ns) is type(hidden) is int
        and kind >= 0
        and type(flat) is tuple
        and (stat is None or (type(stat) is tuple and len(stat) == 5))
    ):
        raise TypeError("a field is of the wrong type")
    dots: list[Dot] = []
    for position in range(0, len(flat), 2):
        key = (flat[position], flat[position + 1])
        dot = known.get(key)
        if dot is None:  # most rows of a directory share a few dots
            dot = known[key] = _dot(devices, *key)
        dots.append(dot)
    if type(content) is tuple:
        depth, blob = content
        if type(depth) is not int or type(blob) is not bytes:
            raise TypeError("a content is of the wrong type")
        content = FileContent(depth, BlobId(blob))
    elif content is not None and type(content) is not bytes:
        raise TypeError("a content is of the wrong type")
    return Row(
        os.fsdecode(name),
        name if entry_name is None else entry_name,
        _KINDS[kind],
        tuple(dots),
        content,
        mode,
        size,
        mtime_ns,
        stat,
        bool(hidden),
    )


def _dot(devices: tuple[Any, ...], number: Any, seq: Any) -> Dot:
    device = devices[number]
    if number < 0 or type(device) is not bytes or type(seq) is not int:
        raise TypeError("a dot is of the wrong type")
    return Dot(DeviceId(device), seq)
