"""The journal: every device's chain of records, followed from the tips.

`Journal` finds new records, checks their chains, holds back those whose predecessors are not visible yet, keeps the
heads, and publishes this device's records so that a sequence number never appears with two contents. See
``specs/ordering.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from buckia.core.ids import ID_BYTES, DeviceId, ObjectId, object_id
from buckia.core.index import Segment
from buckia.core.record import (
    CHAIN_MAX,
    RECORD_BYTES_MAX,
    Condemn,
    Named,
    Record,
    Snapshot,
    Unknown,
    decode_record,
    parse_record_key,
    parse_tip_key,
    record_key,
    tip_key,
    vocabulary,
)
from buckia.errors import (
    BucketError,
    ForkError,
    FormatError,
    IntegrityError,
    ObjectNotFound,
    RollbackError,
    UnsupportedFormatError,
)
from buckia.store.ledger import Ledger
from buckia.store.transfer import Transfer

log = logging.getLogger(__name__)

Tips = Mapping[DeviceId, tuple[int, ObjectId]]
Find = Callable[[ObjectId], Record | None]

GAP_MAX = 8
"""A device that is further behind than this looks for segments before it walks a chain record by record."""

_READ_ONLY = "read-only"
_CONDEMNS = "condemn-records"
_VOCABULARY = "vocabulary"
_NEWER_HINT = "Install the newest version of buckia."
_REFUSED_HINT = "Nothing was changed. `buckia verify` tells which objects are wrong."


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


@dataclass(slots=True)
class _Source:
    """Where the records of one walk come from: segments, listings of the journal, single objects. ``known`` has the
    newest number of each device that is known.
    """

    transfer: Transfer
    ledger: Ledger
    prefix: str
    fetch_segments: Callable[[], Mapping[ObjectId, bytes]]
    known: Mapping[DeviceId, int]
    found: dict[ObjectId, bytes] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    too_far: set[ObjectId] = field(default_factory=set)
    asked: bool = False
    searched: bool = False

    def get(self, named: Named) -> bytes | None:
        """A record's bytes, not checked; None where they cannot be had. Raises FormatError if they are too many."""
        device, seq, record = named
        gap = seq - self.known.get(device, 0)
        if gap > CHAIN_MAX:
            log.warning("Device %s seems to be %d records ahead, which no device can be.", device.hex()[:8], gap)
            self.too_far.add(record)
            return None
        if gap > GAP_MAX:
            self._take_segments()
            if record not in self.found:
                self._prefetch(device, seq)
        data = self.found.pop(record, None)
        if data is None:
            data = self._single(named)
        return data if data is not None else self._embedded(record)

    def _take_segments(self) -> None:
        if not self.asked:
            self.asked = True
            self.found.update(self.fetch_segments())

    def _prefetch(self, device: DeviceId, seq: int) -> None:
        """Get the hundred records around one side by side instead of one after the other: one that is listed for each
        number, together no more than one record may have. What is not there or not whole waits for its turn.
        """
        hundred = f"{self.prefix}journal/{device.hex()}/{seq // 100:08d}"
        if hundred in self.listed:
            return
        self.listed.add(hundred)
        wanted: dict[int, tuple[str, int, ObjectId]] = {}
        room = RECORD_BYTES_MAX
        for info in self.transfer.list(hundred):
            parsed = parse_record_key(info.key[len(self.prefix) :])
            if parsed is None or parsed[1] <= self.known.get(device, 0) or parsed[2] in self.found:
                continue
            if parsed[1] not in wanted and info.size <= room:
                wanted[parsed[1]] = (info.key, info.size, parsed[2])
                room -= info.size
        read = self.transfer.map_get((key, 0, size) for key, size, _ in wanted.values())
        for (_, _, record), data in zip(wanted.values(), read, strict=True):
            if not isinstance(data, BucketError) and object_id(data) == record:
                self.found[record] = data

    def _single(self, named: Named) -> bytes | None:
        """One object by its key; nobody has listed it, so its size is not known."""
        device, seq, record = named
        key = self.prefix + record_key(device, seq, record)
        try:
            data = self.transfer.get_whole(key, RECORD_BYTES_MAX, lambda data: object_id(data) == record)
        except ObjectNotFound:
            return None
        if data is None:
            raise FormatError(
                f"Record {seq} of device {device.hex()[:8]} has more than {RECORD_BYTES_MAX} bytes; no record has."
            )
        return data

    def _embedded(self, record: ObjectId) -> bytes | None:
        """A record whose object is missing, from a segment that embeds it."""
        if not self.searched:
            self.searched = True
            self._take_segments()
            for name in self.ledger.segments():
                try:
                    embedded = Segment(self.ledger.segment(name) or b"").records()
                except FormatError as error:  # it is fetched again when it is next loaded
                    log.info("Segment %s is passed over: %s", name.hex()[:12], error.message)
                    continue
                self.found.update((object_id(one), one) for one in embedded)
        return self.found.pop(record, None)


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
        self.too_far: set[ObjectId] = set()
        """Those of them that are not looked for: their numbers are further ahead than `CHAIN_MAX`."""
        self._ask_again()

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
        """This state has to become another device: it was copied or set back, as it knows itself or as the bucket holds
        a record under its id that it did not write; or its number is so high that new readers could soon not follow it.
        """
        own = self._ledger.device()
        if own is None or self._ledger.is_clone:
            return own is not None
        number, outbox = self._ledger.own_seq(), self._ledger.outbox()
        if outbox is None and number != self._ledger.tips().get(own[0], (0,))[0]:
            return True  # pieces of two states
        if number > CHAIN_MAX // 2 and outbox is None:
            return True
        seq, record = tips.get(own[0], (0, None))
        if outbox is not None and object_id(outbox) == record:
            return False
        return seq > number

    def link(self, tips: Tips) -> list[Linked]:
        """Fetch and check all records up to these tips; those that became known, oldest first.

        A record counts only when every record that it names is known; others are in `held_back` until a later call.
        Raises IntegrityError for one that names what is not so, before anything is remembered.
        """
        gathered = self._gather(tips)
        find = self._lookup(gathered)
        for device, (seq, name) in sorted(tips.items() - self._ledger.tips().items()):
            _require_place((device, seq, name), find(name), f"The tip of device {device.hex()[:8]}")
        for linked in gathered.values():
            _require_sound(linked.record, find)
        # Of sound records one that names another knows more, so it comes later.
        order = sorted(gathered.values(), key=lambda linked: (sum(linked.record.knowledge.values()), linked.id))
        waiting = set(gathered)
        outbox = self._ledger.outbox()
        if outbox is not None:
            waiting.add(object_id(outbox))
        added: list[Linked] = []
        with self._ledger.transaction():
            for linked in order:
                if all(name not in waiting and find(name) is not None for _, _, name in _news(linked.record, find)):
                    waiting.discard(linked.id)
                    added.append(linked)
                else:
                    self.held_back.add(linked.id)
            self._remember(added)
        return added

    def _gather(self, tips: Tips) -> dict[ObjectId, Linked]:
        """All records that are not known and reachable from the tips."""
        remembered = self._ledger.tips()
        # Tips are remembered for good, records only as long as the cache lasts: then all are fetched once more.
        known = {device: seq for device, (seq, name) in remembered.items() if self._ledger.record(name) is not None}
        numbers = {(device, seq): record for device, (seq, record) in remembered.items()}
        source = _Source(self._transfer, self._ledger, self._prefix, self._fetch_segments, known)
        gathered: dict[ObjectId, Linked] = {}
        self.held_back, self.too_far = set(), source.too_far
        wanted: dict[Named, None] = {(device, seq, record): None for device, (seq, record) in tips.items()}
        done: set[Named] = set()
        outbox = self._ledger.outbox()
        unsettled = None if outbox is None else object_id(outbox)
        while wanted:
            named, _ = wanted.popitem()
            device, seq, record = named
            done.add(named)
            if record == unsettled or record in gathered or self._ledger.record(record) is not None:
                continue
            if numbers.setdefault((device, seq), record) != record or seq <= known.get(device, 0):
                raise _fork(device, seq)
            data = source.get(named)
            if data is None:
                self.held_back.add(record)
                continue
            gathered[record] = Linked(record, _check_record(data, named), data)
            wanted.update((one, None) for one in gathered[record].record.named if one not in done)
        self.held_back -= gathered.keys()
        return gathered

    def _lookup(self, gathered: Mapping[ObjectId, Linked]) -> Find:
        """Records by hash: these, the one in the outbox, and those that are known."""
        found: dict[ObjectId, Record | None] = {name: linked.record for name, linked in gathered.items()}
        outbox = self._ledger.outbox()
        if outbox is not None:
            found[object_id(outbox)] = decode_record(outbox)

        def find(name: ObjectId) -> Record | None:
            if name not in found:
                data = self._ledger.record(name)
                found[name] = None if data is None else decode_record(data)
            return found[name]

        return find

    def _remember(self, added: list[Linked]) -> None:
        """Make linked records part of what is known: tips, and what they mean."""
        tips = self._ledger.tips()
        for linked in added:
            record = linked.record
            self._ledger.add_record(linked.id, linked.data)
            if tips.get(record.device, (0,))[0] < record.seq:
                tips[record.device] = (record.seq, linked.id)
                self._ledger.set_tip(record.device, record.seq, linked.id)
        if added:
            self._interpret(added)

    def _interpret(self, added: Iterable[Linked]) -> None:
        """Take in what records mean to this version: heads, condemned packs, read-only state."""
        heads = [self.load(head) for head in self._ledger.heads()]
        for linked in added:
            record = linked.record
            if isinstance(record.body, Condemn):
                self._ledger.add_condemned(record.body.packs)
                self._ledger.set_value(_CONDEMNS, (self._ledger.get_value(_CONDEMNS) or b"") + linked.id)
            if isinstance(record.body, Unknown):
                what = record.features[0] if record.features else record.kind
                self._ledger.set_value(_READ_ONLY, what.encode())
            if isinstance(record.body, Snapshot):
                heads.append(linked)
        self._ledger.set_heads([head.id for head in undominated(heads)])
        self._ledger.set_value(_VOCABULARY, vocabulary())

    def _ask_again(self) -> None:
        """Interpret all known records again if that was done by a version that knows other kinds or features. Raises
        UnsupportedFormatError if that one showed a state which this one cannot read: the disk would be set back.
        """
        if self._ledger.get_value(_VOCABULARY) == vocabulary() or not self._ledger.tips():
            return
        if any(isinstance(head.record.body, Unknown) for head in self.heads()):
            raise UnsupportedFormatError("A newer version of buckia was used with this local state.", hint=_NEWER_HINT)
        known = self.records()
        with self._ledger.transaction():
            self._ledger.forget_meaning()
            self._ledger.set_value(_READ_ONLY, None)
            self._ledger.set_value(_CONDEMNS, None)
            self._interpret(known)

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

    def require_sound(self, record: Record) -> None:
        """Raise IntegrityError unless a new record of this device may be published: all that it names is known here,
        as what it is named, and knows no more than it does.
        """
        find = self._lookup({})
        if any(find(name) is None for _, _, name in record.named):
            raise IntegrityError(f"Own record {record.seq} names one that is not known here.", hint=_REFUSED_HINT)
        _require_sound(record, find)

    def publish(self, data: bytes, record: Record) -> ObjectId:
        """Put a finished record and its tip, and delete this device's older tips, if that can be done.

        The bytes are durable here before the first request, and `settle` repeats exactly them after a crash.
        """
        name = object_id(data)
        self._ledger.outdate_copies()
        self._transfer.put(self._prefix + record_key(record.device, record.seq, name), data)
        self._transfer.put(self._prefix + tip_key(record.device, record.seq, name), bytes(name))
        older = {*self._own_listed, self._ledger.tips().get(record.device, (record.seq, name))}
        try:
            for seq, before in sorted(older):
                if seq < record.seq:
                    self._transfer.delete(self._prefix + tip_key(record.device, seq, before))
        except BucketError as error:  # they mislead nobody, and the next commit finds them in the listing
            log.info("An older tip of this device stays for now: %s", error.message)
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
    included: dict[DeviceId, int] = {}
    newest: dict[DeviceId, int] = {}
    for linked in unique.values():
        record = linked.record
        newest[record.device] = max(newest.get(record.device, 0), record.seq)
        for device, seq, _ in record.vector:
            included[device] = max(included.get(device, 0), seq)
    return [
        unique[name]
        for name in sorted(unique)
        if included.get(unique[name].record.device, 0) < unique[name].record.seq == newest[unique[name].record.device]
    ]


def _news(record: Record, find: Find) -> list[Named]:
    """What a record names and its predecessor does not: where the predecessor is right, so is the rest."""
    before = None if record.prev is None else find(record.prev)
    same = frozenset(before.vector if before is not None else ())
    return [named for named in record.named if named not in same]


def _require_sound(record: Record, find: Find) -> None:
    """Raise IntegrityError where a record names another as what it is not, or one that knows more than it does; as far
    as these can be found.
    """
    what = f"Record {record.seq} of device {record.device.hex()[:8]}"
    knowledge = record.knowledge
    for named in _news(record, find):
        before = find(named[2])
        _require_place(named, before, what)
        if before is not None and any(knowledge.get(device, 0) < seq for device, seq in before.knowledge.items()):
            raise IntegrityError(f"{what} names one that knows more than it does.", hint=_REFUSED_HINT)


def _require_place(named: Named, record: Record | None, what: str) -> None:
    if record is not None and (record.device, record.seq) != named[:2]:
        raise IntegrityError(f"{what} names a record of another device or number than it says.", hint=_REFUSED_HINT)


def _check_record(data: bytes, named: Named) -> Record:
    device, seq, name = named
    if object_id(data) != name:
        raise _damaged(device, seq)
    record = decode_record(data)
    if (record.device, record.seq) != (device, seq):
        raise IntegrityError(f"Record {name.hex()[:12]} lies under another device or number than its own.")
    return record


def _damaged(device: DeviceId, seq: int) -> IntegrityError:
    return IntegrityError(f"Record {seq} of device {device.hex()[:8]} is damaged: its bytes do not match its name.")


def _fork(device: DeviceId, seq: int) -> ForkError:
    return ForkError(
        f"Device {device.hex()[:8]} has two different records with number {seq}: its state was copied to a second "
        "machine, or the bucket was tampered with.",
        hint="Nothing was changed. Remove the local state of the copied device, so that it becomes a new one.",
    )
