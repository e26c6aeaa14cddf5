"""The catalog: which blob lies where, from segments and from the records that no segment covers yet.

It is a cache of what records and pack footers say. It locates; it never proves that an object is present.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial

from buckia.core.ids import DeviceId, ObjectId, object_id
from buckia.core.index import SEGMENT_BYTES_MAX, Index, Segment, build_segment, merge_segments
from buckia.core.pack import TAIL_BYTES, decode_rows, footer_bytes, parse_tail
from buckia.core.record import PackRef, Snapshot, decode_record, pack_key, parse_segment_key, segment_key
from buckia.errors import BuckiaError, FormatError, IntegrityError, ObjectNotFound, RangeNotSatisfiable
from buckia.store.journal import Linked
from buckia.store.ledger import Ledger
from buckia.store.transfer import Transfer

log = logging.getLogger(__name__)

UNCOVERED_MAX = 32
"""So many records may lie outside segments before one is written."""
MERGE_FACTOR = 3
"""A new segment takes in older ones of up to this many times its own records: their number stays logarithmic."""
_TAIL_GUESS_BYTES = 64 << 10


class Catalog:
    """Segments and loose records of one folder; `index` is loaded when it is first asked for."""

    def __init__(self, transfer: Transfer, ledger: Ledger, prefix: str) -> None:
        self._transfer = transfer
        self._ledger = ledger
        self._prefix = prefix
        self._covered: dict[DeviceId, list[tuple[int, int]]] | None = None
        self._segments: dict[ObjectId, Segment] = {}
        self._decoded: dict[ObjectId, Linked] = {}
        """Records outside segments: a few, which are asked for several times in one run."""

    @cached_property
    def index(self) -> Index:
        """Where every known blob lies."""
        index = Index()
        for name, segment in self._load_segments().items():
            index.add_segment(name, segment)
        for linked in self.uncovered():
            self._add_packs(index, linked.snapshot)
        return index

    def add_record(self, linked: Linked) -> None:
        """Take in a record that became known; costs nothing before the index is in use."""
        if "index" in self.__dict__ and isinstance(linked.record.body, Snapshot):
            self._add_packs(self.index, linked.record.body)

    def add_pack(self, pack: ObjectId, size: int, rows: bytes) -> None:
        """Take in a pack of this device that no record names yet."""
        self.index.add_pack(pack, size, rows)

    def pack_size(self, pack: ObjectId) -> int:
        """The size of a pack in bytes. Raises IntegrityError if no record names it."""
        size = self.index.pack_size(pack)
        if size is None:
            raise IntegrityError(f"Pack {pack.hex()[:12]} is named by no record.")
        return size

    def _add_packs(self, index: Index, body: Snapshot) -> None:
        for ref in body.packs:
            rows = self._rows(ref)
            if not rows:
                continue
            try:
                index.add_pack(ref.id, ref.size, rows)
            except FormatError as error:
                log.warning("The footer of pack %s is damaged: %s", ref.id.hex()[:12], error.message)

    def _rows(self, ref: PackRef) -> bytes:
        """A pack's footer rows; none of a pack that is gone: whoever needs a blob of it will miss that blob."""
        if ref.rows is not None:
            return ref.rows
        try:
            return self.footer(ref.id, ref.size)
        except (IntegrityError, FormatError, RangeNotSatisfiable) as error:
            log.warning("The footer of pack %s cannot be read: %s", ref.id.hex()[:12], error.message)
            return b""

    def footer(self, pack: ObjectId, size: int) -> bytes:
        """The footer rows of a pack, from memory or from the pack's end. Raises IntegrityError if the pack is gone or
        too short.
        """
        name = f"footer:{pack.hex()}"
        known = self._ledger.get_value(name)
        if known is not None:
            return known
        seen: list[bytes] = []
        while len(seen) < 3:
            rows = self.read_footer(pack, size)
            if rows in seen:  # no hash covers it, so it counts when it came twice
                self._ledger.set_value(name, rows)
                return rows
            seen.append(rows)
        raise _changing(pack)

    def read_footer(self, pack: ObjectId, size: int) -> bytes:
        """The footer rows of a pack from the bucket: one request, two for very many blobs. Raises FormatError for what
        is no footer of this pack.
        """

        def rows(end: bytes) -> tuple[int, bytes]:
            """The bytes that the footer has, and as far as ``end`` holds it its rows."""
            need = footer_bytes(parse_tail(end[-TAIL_BYTES:]))
            if need > size:
                raise IntegrityError(f"Pack {pack.hex()[:12]} is shorter than its footer.")
            if need > len(end):
                return need, b""
            found = end[len(end) - need : -TAIL_BYTES]
            decode_rows(found, size=size)
            return need, found

        key = self._prefix + pack_key(pack)
        try:
            guess = min(size, _TAIL_GUESS_BYTES)
            need, found = self._transfer.read(key, size - guess, guess, rows)
            if not found:
                need, found = self._transfer.read(key, size - need, need, rows)
        except ObjectNotFound as error:
            raise IntegrityError(f"Pack {pack.hex()[:12]} is missing in the bucket.") from error
        if not found:
            raise _changing(pack)
        return found

    def remember_footers(self, packs: Iterable[tuple[ObjectId, bytes]]) -> None:
        """Keep the footers of own packs whose rows are not in the record."""
        for pack, rows in packs:
            self._ledger.set_value(f"footer:{pack.hex()}", rows)

    # ---- segments

    def _load_segments(self) -> dict[ObjectId, Segment]:
        """The segments at hand that can be relied on."""
        for name in self._ledger.segments():
            segment = self._segments.get(name)
            if segment is None:
                data = self._ledger.segment(name)
                if data is None or object_id(data) != name:
                    log.warning("The local copy of segment %s is damaged and will be fetched again.", name.hex()[:12])
                    self._drop(name)
                    continue
                segment = self._segments[name] = Segment(data)
            if not self._agrees(name, segment):
                self._drop(name)
        return self._segments

    def _drop(self, name: ObjectId) -> None:
        self._ledger.drop_segment(name)
        self._segments.pop(name, None)
        self._covered = None

    def _agrees(self, name: ObjectId, segment: Segment) -> bool:
        """Whether the records that a segment embeds are those of the chains that are known here: one that tells of
        others would hide the true ones. It may be ahead of what is known; then it is asked again.
        """
        mark = f"segment:{name.hex()}"
        if self._ledger.get_value(mark) is not None:
            return True
        tips = self._ledger.tips()
        ahead = False
        for data in segment.records():
            if self._ledger.record(object_id(data)) is not None:
                continue
            record = decode_record(data)
            if record.device in tips and record.seq <= tips[record.device][0]:
                log.warning("Segment %s contradicts the records and is passed over.", name.hex()[:12])
                return False
            ahead = True
        if not ahead:
            self._ledger.set_value(mark, b"1")
        return True

    def _covers(self, device: DeviceId, seq: int) -> bool:
        covered = self._covered
        if covered is None:
            covered = {}
            for segment in self._load_segments().values():
                for owner, first, last in segment.ranges:
                    covered.setdefault(owner, []).append((first, last))
            self._covered = covered
        return any(first <= seq <= last for first, last in covered.get(device, ()))

    def uncovered(self) -> list[Linked]:
        """The known snapshot records that no segment at hand covers."""
        return [linked for linked in self._loose() if isinstance(linked.record.body, Snapshot)]

    def _loose(self) -> Iterator[Linked]:
        """Known records outside the segments at hand; walks each device's chain back from its tip."""
        for device, (seq, name) in self._ledger.tips().items():
            record: ObjectId | None = name
            number = seq
            while record is not None and number > 0:
                if self._covers(device, number):
                    number -= 1
                    previous = self._first_loose_below(device, number)
                    if previous is None:
                        break
                    number, record = previous
                    continue
                data = self._ledger.record(record)
                if data is None:
                    raise IntegrityError(f"Record {number} of device {device.hex()[:8]} is not known here.")
                linked = self._decoded.get(record)
                if linked is None:
                    linked = self._decoded[record] = Linked(record, decode_record(data), data)
                yield linked
                record, number = linked.record.prev, number - 1

    def _first_loose_below(self, device: DeviceId, seq: int) -> tuple[int, ObjectId] | None:
        """The highest record of a device below a covered stretch that is itself not covered, with its name; usually
        there is none.
        """
        while seq > 0 and self._covers(device, seq):
            bounds = [(first, last) for first, last in (self._covered or {}).get(device, ()) if first <= seq <= last]
            seq = min(first for first, _ in bounds) - 1
        if seq <= 0:
            return None
        for name, data in self._ledger.records():
            record = decode_record(data)
            if record.device == device and record.seq == seq:
                return seq, name
        return None

    def fetch_segments(self) -> Mapping[ObjectId, bytes]:
        """One LIST, and the segments that are not at hand; the records that they embed, by hash.

        A damaged segment is passed over, as everything in it can be had from records and packs.
        """
        found: dict[ObjectId, bytes] = {}
        names = [
            (info.key, info.size, name)
            for info in self._transfer.list(self._prefix + "segments/")
            if (name := parse_segment_key(info.key[len(self._prefix) :])) is not None
        ]
        have = set(self._ledger.segments())
        for key, size, name in names:
            if name in have:
                continue
            try:
                if size > SEGMENT_BYTES_MAX:
                    raise IntegrityError(f"Segment {name.hex()[:12]} has {size} bytes.")
                data, segment = self._transfer.read(key, 0, size, partial(_checked_segment, name))
            except (ObjectNotFound, RangeNotSatisfiable):
                continue
            except BuckiaError as error:
                if not isinstance(error, IntegrityError) and error.exit_code != 7:
                    raise
                log.warning("%s It is passed over; `buckia verify` tells more.", error.message)
                continue
            self._ledger.add_segment(name, data)
            self._segments[name] = segment
            if "index" in self.__dict__ and self._agrees(name, segment):
                self.index.add_segment(name, segment)
            found.update((object_id(record), record) for record in segment.records())
        self._covered = None
        return found

    def is_due(self, *, more: int = 0) -> bool:
        """Whether a segment is to be written, now or after so many more records."""
        return len(list(self._loose())) + more >= UNCOVERED_MAX

    def maintain(self, *, force: bool = False) -> bool:
        """Write a segment when too many records lie outside; delete those that it covers. Whether one was written.

        With ``force`` a segment is written whatever the number, as when footers did not fit into the record.
        """
        if not force and not self.is_due():
            return False
        self.fetch_segments()
        loose = [linked for linked in self._loose() if self._is_sure(linked)]
        if not loose or (not force and len(loose) < UNCOVERED_MAX):
            return False
        data, packs = self._built(loose)
        absorbed: list[ObjectId] = []
        count = len(loose)
        for name, segment in sorted(self._load_segments().items(), key=lambda item: len(item[1].records())):
            size = len(segment.records())
            if size > MERGE_FACTOR * count:
                break
            try:
                data = merge_segments([Segment(data), segment])
            except (FormatError, IntegrityError) as error:  # together too large, or they contradict each other
                log.info("Segment %s is not merged: %s", name.hex()[:12], error.message)
                continue
            absorbed.append(name)
            count += size
        self._replace(data, absorbed, packs)
        return True

    def _is_sure(self, linked: Linked) -> bool:
        """Whether all rows of a record's packs are sure. A segment says for ever what it says: where the record does
        not hold them, only the device that made the pack puts them there, as no hash covers the end of a pack.
        """
        if not isinstance(linked.record.body, Snapshot):
            return True
        condemned = self._ledger.condemned()
        device = self._ledger.device()
        own = device is not None and device[0] == linked.record.device
        refs = [ref for ref in linked.record.body.packs if ref.rows is None]
        return all(own if self._rows(ref) else ref.id in condemned for ref in refs)

    def _built(self, loose: list[Linked]) -> tuple[bytes, list[ObjectId]]:
        """A segment of these records, or where that were too large of half of them; and its packs."""
        packs: dict[ObjectId, tuple[int, bytes]] = {}
        for linked in loose:
            if isinstance(linked.record.body, Snapshot):
                for ref in linked.record.body.packs:
                    packs[ref.id] = (ref.size, self._rows(ref))
        try:
            return build_segment([linked.data for linked in loose], packs), list(packs)
        except FormatError:
            if len(loose) == 1:
                raise
            return self._built(loose[: len(loose) // 2])

    def _replace(self, data: bytes, absorbed: list[ObjectId], packs: Iterable[ObjectId]) -> None:
        name = object_id(data)
        self._transfer.put(self._prefix + segment_key(name), data)
        with self._ledger.transaction():
            self._ledger.add_segment(name, data)
            for pack in packs:
                self._ledger.set_value(f"footer:{pack.hex()}", None)
        segment = Segment(data)
        self._segments[name] = segment
        if "index" in self.__dict__:
            self.index.add_segment(name, segment)
        for old in absorbed:
            if old == name:
                continue
            self._transfer.delete(self._prefix + segment_key(old))
            self._segments.pop(old, None)
            self._ledger.drop_segment(old)
            if "index" in self.__dict__:
                self.index.drop_segment(old)
        self._covered = None


def _checked_segment(name: ObjectId, data: bytes) -> tuple[bytes, Segment]:
    if object_id(data) != name:
        raise IntegrityError(f"Segment {name.hex()[:12]} is damaged.")
    segment = Segment(data)
    segment.check()
    return data, segment


def _changing(pack: ObjectId) -> IntegrityError:
    return IntegrityError(f"The footer of pack {pack.hex()[:12]} is another one each time it is read.")
