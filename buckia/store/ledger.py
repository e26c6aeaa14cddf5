"""What a repository remembers between runs, as an interface, and a forgetful implementation of it.

The device's state implements it durably (`buckia.local.state`); commands that only read use `MemoryLedger`. Everything
here can be fetched again from the bucket, except the device's identity, the tips (which are trust: what was seen must
not vanish) and the outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from buckia.core.ids import BlobId, Buffer, DeviceId, ObjectId

PendingPack = tuple[ObjectId, int, bytes]
"""A pack that was logged before its upload: id, size in bytes, footer rows."""


class Ledger(Protocol):
    """A device's memory of one folder. Not shared between processes; calls may come from several threads."""

    is_clone: bool
    """This memory was copied here, or is an old copy that was put back: the device must take another id."""

    def folder_object(self) -> bytes | None:
        """The folder object, once it was seen in the bucket."""

    def set_folder_object(self, data: bytes) -> None:
        """Remember the folder object."""

    def device(self) -> tuple[DeviceId, str] | None:
        """This device's id and display name, once it has one."""

    def set_device(self, device: DeviceId, name: str) -> None:
        """Become another device: the own sequence starts again and the outbox is dropped."""

    def own_seq(self) -> int:
        """The highest sequence number that a finished record of this device has, 0 without one."""

    def tips(self) -> dict[DeviceId, tuple[int, ObjectId]]:
        """The newest record that is known of every device."""

    def set_tip(self, device: DeviceId, seq: int, record: ObjectId) -> None:
        """Remember the newest record of a device."""

    def record(self, record: ObjectId) -> bytes | None:
        """A record object that is linked to the tips."""

    def add_record(self, record: ObjectId, data: bytes) -> None:
        """Remember a linked record."""

    def records(self) -> Iterator[tuple[ObjectId, bytes]]:
        """All linked records, in no particular order."""

    def heads(self) -> list[ObjectId]:
        """The snapshots that no other known one supersedes."""

    def set_heads(self, heads: list[ObjectId]) -> None:
        """Remember the heads."""

    def forget_meaning(self) -> None:
        """Forget what follows from what records mean to this version: the heads, and which trees were applied."""

    def segments(self) -> list[ObjectId]:
        """The segments that are at hand."""

    def segment(self, segment: ObjectId) -> Buffer | None:
        """A segment's bytes (mapped, not read)."""

    def add_segment(self, segment: ObjectId, data: bytes) -> None:
        """Keep a segment."""

    def drop_segment(self, segment: ObjectId) -> None:
        """Forget a segment."""

    def node(self, kind: int, node: BlobId) -> bytes | None:
        """A tree node that was verified before."""

    def add_nodes(self, nodes: Iterable[tuple[int, BlobId, bytes]]) -> None:
        """Keep verified tree nodes: kind, id, raw bytes."""

    def keep_nodes(self, live: Set[BlobId]) -> None:
        """Drop nodes that are not among these, when that is worth the trouble; the bucket has them all."""

    def pending_packs(self) -> list[PendingPack]:
        """Packs that were logged and not yet named by an acknowledged record."""

    def log_pack(self, pack: ObjectId, size: int, rows: bytes) -> None:
        """Log a pack before its upload; durable on return."""

    def forget_packs(self, packs: Iterable[ObjectId]) -> None:
        """Drop packs from the log."""

    def outbox(self) -> bytes | None:
        """A finished record of this device that may not have arrived."""

    def set_outbox(self, data: bytes | None) -> None:
        """Keep a finished record until it is acknowledged; durable on return."""

    def outdate_copies(self) -> None:
        """Before the first request for the record in the outbox: what was copied of this memory before that record is
        known for a clone from now on.
        """

    def condemned(self) -> set[ObjectId]:
        """Packs that some collector has announced to delete."""

    def add_condemned(self, packs: Iterable[ObjectId]) -> None:
        """Remember condemned packs."""

    def get_value(self, name: str) -> bytes | None:
        """A small named value."""

    def set_value(self, name: str, data: bytes | None) -> None:
        """Set or remove a small named value."""

    def transaction(self) -> AbstractContextManager[object]:
        """Everything inside becomes durable together, or not at all; nested ones join."""


class MemoryLedger:
    """A ledger for commands that only read: it starts empty and ends with the process."""

    def __init__(self) -> None:
        self.is_clone = False
        self._folder: bytes | None = None
        self._device: tuple[DeviceId, str] | None = None
        self._own_seq = 0
        self._tips: dict[DeviceId, tuple[int, ObjectId]] = {}
        self._records: dict[ObjectId, bytes] = {}
        self._heads: list[ObjectId] = []
        self._segments: dict[ObjectId, bytes] = {}
        self._nodes: dict[tuple[int, BlobId], bytes] = {}
        self._packs: dict[ObjectId, PendingPack] = {}
        self._outbox: bytes | None = None
        self._condemned: set[ObjectId] = set()
        self._values: dict[str, bytes] = {}

    def folder_object(self) -> bytes | None:
        """See `Ledger`."""
        return self._folder

    def set_folder_object(self, data: bytes) -> None:
        """See `Ledger`."""
        self._folder = data

    def device(self) -> tuple[DeviceId, str] | None:
        """See `Ledger`."""
        return self._device

    def set_device(self, device: DeviceId, name: str) -> None:
        """See `Ledger`."""
        self._device = (device, name)
        self._own_seq = 0
        self._outbox = None

    def own_seq(self) -> int:
        """See `Ledger`."""
        return self._own_seq

    def tips(self) -> dict[DeviceId, tuple[int, ObjectId]]:
        """See `Ledger`."""
        return dict(self._tips)

    def set_tip(self, device: DeviceId, seq: int, record: ObjectId) -> None:
        """See `Ledger`."""
        self._tips[device] = (seq, record)
        if self._device is not None and device == self._device[0]:
            self._own_seq = max(self._own_seq, seq)

    def record(self, record: ObjectId) -> bytes | None:
        """See `Ledger`."""
        return self._records.get(record)

    def add_record(self, record: ObjectId, data: bytes) -> None:
        """See `Ledger`."""
        self._records[record] = data

    def records(self) -> Iterator[tuple[ObjectId, bytes]]:
        """See `Ledger`."""
        return iter(list(self._records.items()))

    def heads(self) -> list[ObjectId]:
        """See `Ledger`."""
        return list(self._heads)

    def set_heads(self, heads: list[ObjectId]) -> None:
        """See `Ledger`."""
        self._heads = list(heads)

    def forget_meaning(self) -> None:
        """See `Ledger`."""
        self._heads = []

    def segments(self) -> list[ObjectId]:
        """See `Ledger`."""
        return list(self._segments)

    def segment(self, segment: ObjectId) -> Buffer | None:
        """See `Ledger`."""
        return self._segments.get(segment)

    def add_segment(self, segment: ObjectId, data: bytes) -> None:
        """See `Ledger`."""
        self._segments[segment] = data

    def drop_segment(self, segment: ObjectId) -> None:
        """See `Ledger`."""
        self._segments.pop(segment, None)

    def node(self, kind: int, node: BlobId) -> bytes | None:
        """See `Ledger`."""
        return self._nodes.get((kind, node))

    def add_nodes(self, nodes: Iterable[tuple[int, BlobId, bytes]]) -> None:
        """See `Ledger`."""
        for kind, node, raw in nodes:
            self._nodes[kind, node] = raw

    def keep_nodes(self, live: Set[BlobId]) -> None:
        """See `Ledger`."""
        self._nodes = {key: raw for key, raw in self._nodes.items() if key[1] in live}

    def pending_packs(self) -> list[PendingPack]:
        """See `Ledger`."""
        return list(self._packs.values())

    def log_pack(self, pack: ObjectId, size: int, rows: bytes) -> None:
        """See `Ledger`."""
        self._packs[pack] = (pack, size, rows)

    def forget_packs(self, packs: Iterable[ObjectId]) -> None:
        """See `Ledger`."""
        for pack in packs:
            self._packs.pop(pack, None)

    def outbox(self) -> bytes | None:
        """See `Ledger`."""
        return self._outbox

    def set_outbox(self, data: bytes | None) -> None:
        """See `Ledger`."""
        self._outbox = data

    def outdate_copies(self) -> None:
        """See `Ledger`; of what is forgotten there is no copy."""

    def condemned(self) -> set[ObjectId]:
        """See `Ledger`."""
        return set(self._condemned)

    def add_condemned(self, packs: Iterable[ObjectId]) -> None:
        """See `Ledger`."""
        self._condemned.update(packs)

    def get_value(self, name: str) -> bytes | None:
        """See `Ledger`."""
        return self._values.get(name)

    def set_value(self, name: str, data: bytes | None) -> None:
        """See `Ledger`."""
        if data is None:
            self._values.pop(name, None)
        else:
            self._values[name] = data

    def transaction(self) -> AbstractContextManager[object]:
        """See `Ledger`."""
        return nullcontext()
