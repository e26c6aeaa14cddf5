"""What a segment says, in the words of a pack."""

from __future__ import annotations

import struct

from buckia.core.ids import ObjectId
from buckia.core.index import Segment


def rows_of_pack(segment: Segment, pack: ObjectId) -> bytes:
    """The footer rows of a pack, in the pack's order; empty for a pack without rows in the segment."""
    rows = sorted((location.row for location in segment if location.pack == pack), key=lambda row: row.offset)
    return b"".join(struct.pack(">BBH32sIII", row.kind, row.codec, 0, *row[2:]) for row in rows)
