"""Blobs out of packs: reads are grouped by pack and joined into ranges, and every blob is checked against its id."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from buckia.core.ids import BlobId, BlobType, ObjectId
from buckia.core.index import Location
from buckia.core.merkle import NODE_BYTES_MAX
from buckia.core.pack import BlobRow, decode_rows, parse_pack, read_blob
from buckia.core.record import pack_key
from buckia.errors import BucketError, FormatError, IntegrityError, ObjectNotFound, RangeNotSatisfiable
from buckia.store.catalog import Catalog
from buckia.store.ledger import Ledger
from buckia.store.transfer import Transfer

log = logging.getLogger(__name__)

GAP_BYTES_MAX = 256 << 10
"""Two wanted blobs with less than this between them are read in one request."""
RANGE_BYTES_MAX = 16 << 20
WINDOW_BYTES = 4 << 20
"""So much of a file is gathered at a time."""
WHOLE_PACK_BYTES_MAX = 1 << 20
"""A pack up to this size is read whole when a node in it is wanted: its other nodes are wanted next."""
NODES_BYTES_MAX = 16 << 20
"""Raw bytes of the nodes that are taken from one pack at a time."""
NODE_MISSES_MAX = 2
"""After so many single nodes from one pack it is read whole."""


@dataclass(frozen=True, slots=True)
class Range:
    """One ranged read: the blobs of a pack that lie in it."""

    pack: ObjectId
    start: int
    end: int
    rows: tuple[BlobRow, ...]


class BlobReader:
    """Reads blobs of one folder. Thread-safe but for `node`."""

    def __init__(self, transfer: Transfer, ledger: Ledger, catalog: Catalog, prefix: str) -> None:
        self._transfer = transfer
        self._ledger = ledger
        self._catalog = catalog
        self._prefix = prefix
        self._misses: dict[ObjectId, int] = defaultdict(int)

    def locate(self, blob: BlobId) -> Location:
        """Where a blob lies. Raises IntegrityError if no record says so."""
        location = self._catalog.index.get(blob)
        if location is None:
            raise IntegrityError(f"Blob {blob.hex()[:12]} is in no pack that a record names.")
        return location

    def plan(self, blobs: Iterable[BlobId]) -> list[Range]:
        """The fewest reasonable reads that bring these blobs, each once, by pack and offset."""
        by_pack: dict[ObjectId, dict[int, BlobRow]] = defaultdict(dict)
        for blob in blobs:
            location = self.locate(blob)
            by_pack[location.pack][location.row.offset] = location.row
        return [wanted for pack, rows in by_pack.items() for wanted in ranges(pack, rows.values())]

    def fetch(self, wanted: Range) -> list[tuple[BlobId, bytes]]:
        """The blobs of a range. Raises IntegrityError if one cannot be had."""
        return [(blob, had(raw)) for blob, raw in self._fetched(wanted)]

    def salvage(self, wanted: Range) -> list[tuple[BlobId, bytes]]:
        """The blobs of a range that can be had."""
        return [(blob, raw) for blob, raw in self._fetched(wanted) if isinstance(raw, bytes)]

    def _fetched(self, wanted: Range) -> list[tuple[BlobId, bytes | IntegrityError]]:
        return self.open(wanted, self._read_if_there(wanted, cached=True))

    def read_ahead(self, wanted: Iterable[Range]) -> Iterator[tuple[Range, memoryview]]:
        """The bytes of ranges, in order, as many on their way as the transfer makes at a time; none of a range that is
        not there.
        """
        pending = deque[Range]()

        def requests() -> Iterator[tuple[str, int, int]]:
            for piece in wanted:
                pending.append(piece)
                yield self._prefix + pack_key(piece.pack), piece.start, piece.end - piece.start

        for data in self._transfer.map_get(requests(), cached=True):
            yield pending.popleft(), memoryview(b"" if isinstance(data, BucketError) else data)

    def open(self, wanted: Range, data: memoryview) -> list[tuple[BlobId, bytes | IntegrityError]]:
        """The blobs of a range that was read, in its order; of one that cannot be had, why, with the pack.

        What did not arrive as it should is read once more from the bucket itself, and then sought in other packs.
        """
        blobs, spoilt = _opened(wanted, data)
        if spoilt and data:
            log.info("%d blobs of pack %s are read again.", len(spoilt), wanted.pack.hex()[:12])
            again = _range(wanted.pack, spoilt)
            more, spoilt = _opened(again, self._read_if_there(again, cached=False))
            blobs |= more
        found: dict[int, bytes | IntegrityError] = {**blobs}
        for row in spoilt:
            found[row.offset] = self._other_copy(Location(wanted.pack, row))
        return [(row.id, found[row.offset]) for row in wanted.rows]

    def _other_copy(self, damaged: Location) -> bytes | IntegrityError:
        for location in self._catalog.index.locations(damaged.row.id):
            if location == damaged:
                continue
            row = location.row
            try:
                key = self._prefix + pack_key(location.pack)
                return self._transfer.read(key, row.offset, row.length, partial(read_blob, row))
            except (ObjectNotFound, RangeNotSatisfiable, IntegrityError, FormatError):
                continue
        return IntegrityError(
            f"Pack {damaged.pack.hex()[:12]} is missing, cut short or damaged, and there is no other copy of its blob "
            f"{damaged.row.id.hex()[:12]}.",
            hint="`buckia verify --read-data` lists what is affected.",
        )

    def node(self, kind: BlobType, node: BlobId) -> bytes:
        """A tree node's raw bytes; nodes that came along are kept as well."""
        location = self.locate(node)
        size = self._catalog.pack_size(location.pack)
        self._misses[location.pack] += 1
        if size <= WHOLE_PACK_BYTES_MAX or self._misses[location.pack] > NODE_MISSES_MAX:
            nodes = self._nodes_of(location.pack, size)
            self._ledger.add_nodes((row_kind, name, raw) for name, (row_kind, raw) in nodes.items())
            if node in nodes:
                return nodes[node][1]
        ((_, raw),) = self.fetch(_range(location.pack, [location.row]))
        self._ledger.add_nodes([(kind, node, raw)])
        return raw

    def _nodes_of(self, pack: ObjectId, size: int) -> dict[BlobId, tuple[int, bytes]]:
        """All intact nodes of a pack: a small one is read whole, of a larger one its footer and where the nodes lie."""
        nodes: dict[BlobId, tuple[int, bytes]] = {}
        try:
            if size <= WHOLE_PACK_BYTES_MAX:
                data = memoryview(self._transfer.get(self._prefix + pack_key(pack), 0, size, cached=True))
                pieces = [(0, data, [row for row in parse_pack(data) if row.kind != BlobType.CHUNK])]
            else:
                rows = [row for row in decode_rows(self._catalog.read_footer(pack, size)) if row.kind != BlobType.CHUNK]
                pieces = [
                    (piece.start, self._read(piece, cached=True), list(piece.rows)) for piece in ranges(pack, rows)
                ]
        except (ObjectNotFound, RangeNotSatisfiable, FormatError, IntegrityError):
            return nodes
        left = NODES_BYTES_MAX
        for start, data, wanted in pieces:
            for row in wanted:
                left -= row.raw_length
                if row.raw_length > NODE_BYTES_MAX or left < 0:
                    continue  # malformed, or more than is worth keeping: read one by one when it is asked for
                try:
                    nodes[row.id] = (
                        row.kind,
                        read_blob(row, data[row.offset - start : row.offset - start + row.length]),
                    )
                except (IntegrityError, FormatError):
                    continue
        return nodes

    def _read(self, piece: Range, *, cached: bool) -> memoryview:
        key = self._prefix + pack_key(piece.pack)
        return memoryview(self._transfer.get(key, piece.start, piece.end - piece.start, cached=cached))

    def _read_if_there(self, piece: Range, *, cached: bool) -> memoryview:
        try:
            return self._read(piece, cached=cached)
        except (ObjectNotFound, RangeNotSatisfiable):
            return memoryview(b"")


def ranges(pack: ObjectId, rows: Iterable[BlobRow]) -> Iterator[Range]:
    """Rows of one pack as reads: near ones together, none over `RANGE_BYTES_MAX` unless a single blob is."""
    group: list[BlobRow] = []
    for row in sorted(rows, key=lambda row: row.offset):
        if group and (
            row.offset - (group[-1].offset + group[-1].length) > GAP_BYTES_MAX
            or row.offset + row.length - group[0].offset > RANGE_BYTES_MAX
        ):
            yield _range(pack, group)
            group = []
        group.append(row)
    if group:
        yield _range(pack, group)


def _range(pack: ObjectId, rows: list[BlobRow]) -> Range:
    return Range(pack, rows[0].offset, rows[-1].offset + rows[-1].length, tuple(rows))


def _opened(piece: Range, data: memoryview) -> tuple[dict[int, bytes], list[BlobRow]]:
    """The blobs in a range that was read, by offset, and the rows of those that are not what they should be."""
    blobs: dict[int, bytes] = {}
    spoilt: list[BlobRow] = []
    for row in piece.rows:
        start = row.offset - piece.start
        try:
            blobs[row.offset] = read_blob(row, data[start : start + row.length])
        except (IntegrityError, FormatError):
            spoilt.append(row)
    return blobs, spoilt


def had(raw: bytes | IntegrityError) -> bytes:
    """A blob that `BlobReader.open` gave; raises why it cannot be had."""
    if isinstance(raw, IntegrityError):
        raise raw
    return raw
