"""The journal: every device's chain of records, followed from the tips.

`Journal` finds new records, checks their chains, holds back those whose predecessors are not visible yet, keeps the
heads, and publishes this device's records so that a sequence number never appears with two contents. See
``specs/ordering.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from buckia.core.ids import ID_BYTES, DeviceId, ObjectId, object_id
from buckia.core.record import (
    Condemn,
    Record,
    Snapshot,
    Unknown,
    decode_record,
    parse_record_key,
    parse_tip_key,
    record_key,
    tip_key,
)
from buckia.errors import ForkError, FormatError, IntegrityError, ObjectNotFound, RollbackError
from buckia.store.ledger import Ledger
from buckia.store.transfer import Transfer

Tips = Mapping[DeviceId, tuple[int, ObjectId]]

GAP_MAX = 8
"""A device that is further behind than this looks for segments before it walks a chain record by record."""

_READ_ONLY = "read-only"
_CONDEMNS = "condemn-records"


@dataclass(frozen=True, slots=True)
class Linked:
    """A record, its name, and its bytes."""

    id: ObjectId
    record: Record
    data: bytes

    @property
    def snapshot(self) -> Snapshot:
        """The body, of a record that is known to be a snapshot."""
        if not isinstance(self.record.body, Snapshot):
            raise FormatError(f"Record {self.id.hex()[:12]} is no snapshot.")
        return self.record.body


class Journal:
    """Records of all devices of one folder. ``fetch_segments`` brings records of segments: it is called when a chain
    has a long gap.
    """

    def __init__(
        self, transfer: Transfer, ledger: Ledger, prefix: str, fetch_segments: Callable[[], Mapping[ObjectId, bytes]]
    ) -> None:
        self._transfer = transfer
        self._ledger = ledger
        self._prefix = prefix
        self._fetch_segments = fetch_segments
        self._own_listed: list[tuple[int, ObjectId]] = []
        self.held_back: set[ObjectId] = set()
        """Records that are named somewhere and not visible yet, or depend on such a one."""

    # ---- reading

    def list_tips(self) -> Tips:
        """The newest record of every device: one LIST, joined with what was seen before.

        Raises ForkError for two records with one number, RollbackError if a record that was seen before is gone.
        """
        own = self._ledger.device()
        known = self._ledger.tips()
        newest: dict[DeviceId, tuple[int, ObjectId]] = {}
        self._own_listed = []
        for info in self._transfer.list(self._prefix + "tips/"):
            parsed = parse_tip_key(info.key[len(self._prefix) :])
            if parsed is None:
                continue
            device, seq, record = parsed
            if own is not None and device == own[0]:
                self._own_listed.append((seq, record))
            have = newest.get(device)
            if have is not None and have[0] == seq and have[1] != record:
                raise _fork(device, seq)
            if have is None or seq > have[0]:
                newest[device] = (seq, record)
        for device, (seq, record) in known.items():
            listed = newest.get(device)
            if listed is None or listed[0] < seq:
                self._require_remembered(device, seq, record)
                newest[device] = (seq, record)
            elif listed[0] == seq and listed[1] != record:
                raise _fork(device, seq)
        return newest

    def _require_remembered(self, device: DeviceId, seq: int, record: ObjectId) -> None:
        """A listing may omit what exists; only a missing record is a rollback."""
        try:
            self._transfer.stat(self._prefix + record_key(device, seq, record))
        except ObjectNotFound:
            raise RollbackError(
                f"The bucket no longer holds record {seq} of device {device.hex()[:8]}, which was seen in it before: "
                "it was emptied, replaced, or set back to an older state.",
                hint="Nothing was changed. If that is intended, remove this folder's local state and sync again.",
            ) from None

    def usurped(self, tips: Tips) -> bool:
        """The bucket holds a record under this device's id that this state did not write: the state was copied or set
        back.
        """
        own = self._ledger.device()
        if own is None or own[0] not in tips:
            return False
        seq, record = tips[own[0]]
        outbox = self._ledger.outbox()
        if outbox is not None and object_id(outbox) == record:
            return False
        return seq > self._ledger.own_seq()

    def link(self, tips: Tips) -> list[Linked]:
        """Fetch and check all records up to these tips; those that became known, oldest first.

        A record counts only when every record that it names is known; others are in `held_back` until a later call.
        """
        gathered = self._gather(tips)
        order = sorted(gathered.values(), key=lambda linked: (sum(linked.record.knowledge.values()), linked.id))
        added: list[Linked] = []
        known_now: dict[ObjectId, Record] = {}
        with self._ledger.transaction():
            for linked in order:
                if self._complete(linked.record, known_now):
                    known_now[linked.id] = linked.record
                    added.append(linked)
                else:
                    self.held_back.add(linked.id)
            self._remember(added)
        return added

    def _gather(self, tips: Tips) -> dict[ObjectId, Linked]:
        """All records that are not known and reachable from the tips."""
        remembered = self._ledger.tips()
        # Tips are remembered for good, records only as long as the cache lasts: then all are fetched once more.
        known = {device: tip for device, tip in remembered.items() if self._ledger.record(tip[1]) is not None}
        numbers = {(device, seq): record for device, (seq, record) in remembered.items()}
        gathered: dict[ObjectId, Linked] = {}
        self.held_back = set()
        wanted = [(device, seq, record) for device, (seq, record) in tips.items()]
        sources: dict[ObjectId, bytes] = {}
        outbox = self._ledger.outbox()
        unsettled = None if outbox is None else object_id(outbox)
        if any(seq - known.get(device, (0,))[0] > GAP_MAX for device, seq, _ in wanted):
            sources.update(self._fetch_segments())
            self._prefetch(wanted, known, sources)
        while wanted:
            device, seq, record = wanted.pop()
            if record == unsettled or record in gathered or record in self.held_back:
                continue
            if self._ledger.record(record) is not None:
                continue
            if numbers.setdefault((device, seq), record) != record or seq <= known.get(device, (0,))[0]:
                raise _fork(device, seq)
            data = sources.pop(record, None)
            if data is None:
                try:
                    data = self._transfer.get(self._prefix + record_key(device, seq, record))
                except ObjectNotFound:
                    self.held_back.add(record)
                    continue
            linked = Linked(record, _check_record(data, device, seq, record), data)
            gathered[record] = linked
            if linked.record.prev is not None:
                wanted.append((device, seq - 1, linked.record.prev))
            wanted.extend(linked.record.vector)
        return gathered

    def _prefetch(
        self,
        wanted: Iterable[tuple[DeviceId, int, ObjectId]],
        known: Mapping[DeviceId, tuple[int, ObjectId]],
        sources: dict[ObjectId, bytes],
    ) -> None:
        """Get the records that no segment covers side by side instead of one after the other; what a LIST omits is
        found by its hash.
        """
        found: list[tuple[str, int]] = []
        for device, last, record in wanted:
            first = known.get(device, (0, record))[0] + 1
            covered = {r.seq for r in map(decode_record, sources.values()) if r.device == device}
            missing = [seq for seq in range(first, last + 1) if seq not in covered]
            for hundred in sorted({seq // 100 for seq in missing}, reverse=True)[:2]:
                prefix = f"{self._prefix}journal/{device.hex()}/{hundred:08d}"
                for info in self._transfer.list(prefix):
                    parsed = parse_record_key(info.key[len(self._prefix) :])
                    if parsed is not None and parsed[0] == device and parsed[1] in set(missing):
                        found.append((info.key, info.size))
        for (key, _), data in zip(found, self._transfer.map_get((key, 0, size) for key, size in found), strict=True):
            parsed = parse_record_key(key[len(self._prefix) :])
            if parsed is not None:
                sources[parsed[2]] = bytes(data)

    def _complete(self, record: Record, known_now: Mapping[ObjectId, Record]) -> bool:
        """Whether all that the record names is known; checks that it knows what they know."""
        names = [named for _, _, named in record.vector]
        if record.prev is not None:
            names.append(record.prev)
        knowledge = record.knowledge
        for named in names:
            before = known_now.get(named)
            if before is None:
                data = self._ledger.record(named)
                if data is None:
                    return False
                before = decode_record(data)
            if any(knowledge.get(device, 0) < seq for device, seq in before.knowledge.items()):
                raise IntegrityError(
                    f"Record {record.seq} of device {record.device.hex()[:8]} names one that knows more than it does."
                )
        return True

    def _remember(self, added: list[Linked]) -> None:
        """Make linked records part of what is known: tips, heads, condemned packs, read-only state."""
        tips = self._ledger.tips()
        heads = [self.load(head) for head in self._ledger.heads()]
        for linked in added:
            record = linked.record
            self._ledger.add_record(linked.id, linked.data)
            if tips.get(record.device, (0,))[0] < record.seq:
                tips[record.device] = (record.seq, linked.id)
                self._ledger.set_tip(record.device, record.seq, linked.id)
            if isinstance(record.body, Condemn):
                self._ledger.add_condemned(record.body.packs)
                self._ledger.set_value(_CONDEMNS, (self._ledger.get_value(_CONDEMNS) or b"") + linked.id)
            if isinstance(record.body, Unknown) or record.features:
                what = record.features[0] if record.features else record.kind
                self._ledger.set_value(_READ_ONLY, what.encode())
            if isinstance(record.body, Snapshot):
                heads.append(linked)
        if added:
            self._ledger.set_heads([head.id for head in undominated(heads)])

    def load(self, record: ObjectId) -> Linked:
        """A known record by its hash. Raises IntegrityError if it is not known."""
        data = self._ledger.record(record)
        if data is None:
            raise IntegrityError(f"Record {record.hex()[:12]} is not known here.")
        return Linked(record, decode_record(data), data)

    def heads(self) -> list[Linked]:
        """The snapshots that no other known one supersedes, ordered by hash."""
        return [self.load(head) for head in sorted(self._ledger.heads())]

    def records(self) -> list[Linked]:
        """All known records, in causal order; ties by time, then device."""
        linked = [Linked(record, decode_record(data), data) for record, data in self._ledger.records()]
        return sorted(
            linked, key=lambda item: (sum(item.record.knowledge.values()), item.record.time_ns, item.record.device)
        )

    def condemned_beyond(self, knowledge: Mapping[DeviceId, int]) -> set[ObjectId]:
        """The packs that were condemned by known records which this knowledge does not include."""
        names = self._ledger.get_value(_CONDEMNS) or b""
        packs: set[ObjectId] = set()
        for start in range(0, len(names), ID_BYTES):
            record = self.load(ObjectId(names[start : start + ID_BYTES])).record
            if isinstance(record.body, Condemn) and knowledge.get(record.device, 0) < record.seq:
                packs.update(record.body.packs)
        return packs

    def read_only_reason(self) -> str | None:
        """What another device's record asks for that this version does not know, if anything."""
        value = self._ledger.get_value(_READ_ONLY)
        return None if value is None else value.decode()

    # ---- writing

    def publish(self, data: bytes, record: Record) -> ObjectId:
        """Put a finished record and its tip, and delete this device's older tips.

        The bytes are durable here before the first request, and `settle` repeats exactly them after a crash.
        """
        name = object_id(data)
        self._transfer.put(self._prefix + record_key(record.device, record.seq, name), data)
        self._transfer.put(self._prefix + tip_key(record.device, record.seq, name), bytes(name))
        older = set(self._own_listed)
        own = self._ledger.tips().get(record.device)
        if own is not None:
            older.add(own)
        for seq, before in sorted(older):
            if seq < record.seq:
                self._transfer.delete(self._prefix + tip_key(record.device, seq, before))
        return name

    def acknowledge(self, data: bytes, record: Record) -> Linked:
        """Make this device's published record part of what is known and clear the outbox; runs inside the caller's
        transaction.
        """
        linked = Linked(object_id(data), record, data)
        with self._ledger.transaction():
            self._remember([linked])
            self._ledger.set_outbox(None)
        return linked


def undominated(snapshots: Iterable[Linked]) -> list[Linked]:
    """Those that no other one knows of, each once, ordered by hash."""
    unique = {linked.id: linked for linked in snapshots}
    knowledge = {name: linked.record.knowledge for name, linked in unique.items()}
    return [
        unique[name]
        for name in sorted(unique)
        if not any(
            other != name and knowledge[other].get(unique[name].record.device, 0) >= unique[name].record.seq
            for other in unique
        )
    ]


def _check_record(data: bytes, device: DeviceId, seq: int, name: ObjectId) -> Record:
    if object_id(data) != name:
        raise IntegrityError(f"Record {seq} of device {device.hex()[:8]} is damaged: its bytes do not match its name.")
    record = decode_record(data)
    if record.device != device or record.seq != seq:
        raise IntegrityError(f"Record {name.hex()[:12]} lies under another device or number than its own.")
    return record


def _fork(device: DeviceId, seq: int) -> ForkError:
    return ForkError(
        f"Device {device.hex()[:8]} has two different records with number {seq}: its state was copied to a second "
        "machine, or the bucket was tampered with.",
        hint="Nothing was changed. Remove the local state of the copied device, so that it becomes a new one.",
    )
