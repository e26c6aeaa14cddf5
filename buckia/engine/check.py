"""Checks of single objects, read whole: hash, structure, and what it holds. They run side by side in workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from buckia.core.ids import BlobId, ObjectId, object_id
from buckia.core.index import Segment
from buckia.core.pack import TAIL_BYTES, BlobRow, decode_rows, footer_bytes, parse_pack, verify_blobs
from buckia.core.record import Named, PackRef, decode_record
from buckia.errors import BuckiaError, FormatError, IntegrityError, ObjectNotFound, UnsupportedFormatError


@dataclass(frozen=True, slots=True)
class Report:
    """What reading one object of ``size`` bytes showed: the kind and reason of its damage, both empty if it is whole.

    ``lost``: of a pack, the blobs that cannot be had from it; None stands for all.
    """

    size: int
    kind: str = ""
    reason: str = ""
    lost: frozenset[BlobId] | None = frozenset()


def gone(error: BuckiaError) -> Report:
    """What a read that failed says of an object that was listed."""
    if isinstance(error, ObjectNotFound):
        return Report(0, "missing", "it was listed and is not there", None)
    return Report(0, "corrupt", "it is shorter than it was listed", None)


def check_pack(ref: PackRef, data: bytes, is_known: Callable[[BlobRow], bool]) -> Report:
    """A pack: hash, structure, every blob, and that its rows are stated in ``ref`` or, where there are none, known."""
    size = len(data)
    whole = object_id(data) == ref.id
    try:
        rows = parse_pack(data)
    except FormatError as error:
        kind = "corrupt" if not whole else "unreadable" if isinstance(error, UnsupportedFormatError) else "malformed"
        return Report(size, kind, error.message, _lost_blobs(data, ref.rows))
    footer = data[size - footer_bytes(len(rows)) : -TAIL_BYTES]
    stated = footer == ref.rows if ref.rows is not None else all(map(is_known, rows))
    lost = frozenset(row.id for row in verify_blobs(data, rows)) if stated else _lost_blobs(data, ref.rows)
    if not whole:
        return Report(size, "corrupt", "its bytes are not those that its name stands for", lost)
    if not stated:
        return Report(size, "malformed", "its blobs are not those that the history lists", lost)
    if lost:
        return Report(size, "malformed", f"{len(lost or ())} of its blobs are not what their ids stand for", lost)
    return Report(size)


def _lost_blobs(data: bytes, rows: bytes | None) -> frozenset[BlobId] | None:
    """The blobs that are not where the history says; all where it says so nowhere else."""
    if rows is None:
        return None
    try:
        return frozenset(row.id for row in verify_blobs(data, decode_rows(rows)))
    except FormatError:
        return None


def check_record(named: Named, data: bytes) -> Report:
    """A record, under the key that names it."""
    device, seq, name = named
    if object_id(data) != name:
        return Report(len(data), "corrupt", "its bytes are not those that its name stands for")
    try:
        record = decode_record(data)
    except FormatError as error:
        return Report(len(data), "malformed", error.message)
    if (record.device, record.seq) != (device, seq):
        return Report(len(data), "malformed", "it lies under another device or number than its own")
    return Report(len(data))


def check_segment(name: ObjectId, data: bytes) -> Report:
    """A segment: all that the format promises of one."""
    if object_id(data) != name:
        return Report(len(data), "corrupt", "its bytes are not those that its name stands for")
    return check_decoded(data, lambda: Segment(data).check())


def check_tip(record: ObjectId, data: bytes) -> Report:
    """A tip, whose key names ``record``."""
    if data != record:
        return Report(len(data), "corrupt", "it names another record than its key")
    return Report(len(data))


def check_decoded(data: bytes, decode: Callable[[], None]) -> Report:
    """Any object, by the decoder of its kind."""
    try:
        decode()
    except (FormatError, IntegrityError) as error:
        return Report(len(data), "malformed" if isinstance(error, FormatError) else "corrupt", error.message)
    return Report(len(data))
