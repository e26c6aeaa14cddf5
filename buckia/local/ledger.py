"""What a device knows of the bucket: its identity, tips, outbox, and a cache of records, segments and nodes.

It is the durable implementation of what ``buckia.store.ledger`` describes; the two know each other by shape only.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Set
from contextlib import AbstractContextManager

from buckia.core.ids import ID_BYTES, BlobId, Buffer, DeviceId, ObjectId
from buckia.core.record import decode_record
from buckia.local.connection import Connection
from buckia.local.fs import local_error

APPLIED = "applied:"
"""Begins the names of the values that say which tree was applied."""

_DEVICE_BYTES = 16
_SET = "INSERT OR REPLACE INTO {} VALUES (?, ?)"


class DeviceLedger:
    """What a device knows of its folder in the bucket. Calls may come from several threads."""

    def __init__(self, connection: Connection, directory: str | None) -> None:
        """Use ``connection``; segments are files in ``directory``, kept in memory for None."""
        self._db = connection
        self._directory = directory
        self._segments: dict[ObjectId, Buffer] = {}
        if directory is not None:
            self._sweep_segments()

    # --- trust ---

    def _trust(self, name: str) -> bytes | None:
        row = self._db.one("SELECT value FROM trust WHERE name = ?", (name,))
        return row[0] if row else None

    def _set_trust(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._db.run("DELETE FROM trust WHERE name = ?", (name,))
        else:
            self._db.run(_SET.format("trust"), (name, value))

    def folder_object(self) -> bytes | None:
        """The folder object, once it was seen in the bucket."""
        return self._trust("folder")

    def set_folder_object(self, data: bytes) -> None:
        """Remember the folder object."""
        self._set_trust("folder", data)

    def device(self) -> tuple[DeviceId, str] | None:
        """This device's id and display name, once it has one."""
        value = self._trust("device")
        return (DeviceId(value[:_DEVICE_BYTES]), value[_DEVICE_BYTES:].decode()) if value else None

    def set_device(self, device: DeviceId, name: str) -> None:
        """Become ``device``; durable on return. Another id starts its own sequence again and drops the outbox."""
        with self._db.durable():
            present = self.device()
            if present is None or present[0] != device:
                self._set_trust("own_seq", None)
                self._set_trust("outbox", None)
            self._set_trust("device", device + name.encode())

    def own_seq(self) -> int:
        """The highest number that a finished record of this device has, 0 without one."""
        return int.from_bytes(self._trust("own_seq") or b"")

    def _raise_own_seq(self, seq: int) -> None:
        if seq > self.own_seq():
            self._set_trust("own_seq", seq.to_bytes(8))

    def tips(self) -> dict[DeviceId, tuple[int, ObjectId]]:
        """The newest record that is known of every device."""
        rows = self._db.all("SELECT name, value FROM trust WHERE name LIKE 'tip/%'")
        return {
            DeviceId(bytes.fromhex(name[4:])): (int.from_bytes(value[:8]), ObjectId(value[8:])) for name, value in rows
        }

    def set_tip(self, device: DeviceId, seq: int, record: ObjectId) -> None:
        """Remember the newest record of a device."""
        with self._db.transaction():
            self._set_trust(f"tip/{device.hex()}", seq.to_bytes(8) + record)
            own = self.device()
            if own is not None and own[0] == device:
                self._raise_own_seq(seq)

    def outbox(self) -> bytes | None:
        """A finished record of this device that may not have arrived."""
        return self._trust("outbox")

    def set_outbox(self, data: bytes | None) -> None:
        """Keep a finished record until it is acknowledged; its number is never used again. Durable on return."""
        with self._db.durable():
            self._set_trust("outbox", data)
            if data is not None:
                self._raise_own_seq(decode_record(data).seq)

    # --- cache ---

    def record(self, record: ObjectId) -> bytes | None:
        """A record object that is linked to the tips."""
        row = self._db.one("SELECT data FROM records WHERE id = ?", (record,))
        return row[0] if row else None

    def add_record(self, record: ObjectId, data: bytes) -> None:
        """Remember a linked record."""
        self._db.run("INSERT OR IGNORE INTO records VALUES (?, ?)", (record, data))

    def records(self) -> Iterator[tuple[ObjectId, bytes]]:
        """All linked records, in no particular order."""
        return iter(self._db.all("SELECT id, data FROM records"))

    def heads(self) -> list[ObjectId]:
        """The snapshots that no other known one supersedes."""
        value = self.get_value("heads") or b""
        return [ObjectId(value[at : at + ID_BYTES]) for at in range(0, len(value), ID_BYTES)]

    def set_heads(self, heads: list[ObjectId]) -> None:
        """Remember the heads."""
        self.set_value("heads", b"".join(heads))

    def forget_meaning(self) -> None:
        """Forget what follows from what records mean to this version: the heads, and which trees were applied."""
        self._db.run("DELETE FROM data WHERE name = 'heads' OR name LIKE ?", (f"{APPLIED}%",))

    def node(self, kind: int, node: BlobId) -> bytes | None:
        """A tree node that was verified before."""
        row = self._db.one("SELECT data FROM nodes WHERE kind = ? AND id = ?", (kind, node))
        return row[0] if row else None

    def add_nodes(self, nodes: Iterable[tuple[int, BlobId, bytes]]) -> None:
        """Keep verified tree nodes: kind, id, raw bytes."""
        self._db.run_many("INSERT OR IGNORE INTO nodes (kind, id, data) VALUES (?, ?, ?)", nodes)

    def keep_nodes(self, live: Set[BlobId]) -> None:
        """Drop the nodes of states gone by, once they are more than those that live."""
        (known,) = self._db.one("SELECT count(*) FROM nodes") or (0,)
        if known > 2 * len(live):
            gone = [(number,) for number, node in self._db.all("SELECT number, id FROM nodes") if node not in live]
            self._db.run_many("DELETE FROM nodes WHERE number = ?", gone)

    def pending_packs(self) -> list[tuple[ObjectId, int, bytes]]:
        """Packs that were logged and not yet named by an acknowledged record: id, size, footer rows."""
        return self._db.all("SELECT id, size, rows FROM packs ORDER BY rowid")

    def log_pack(self, pack: ObjectId, size: int, rows: bytes) -> None:
        """Log a pack before its upload; durable on return."""
        with self._db.durable():
            self._db.run("INSERT OR REPLACE INTO packs VALUES (?, ?, ?)", (pack, size, rows))

    def forget_packs(self, packs: Iterable[ObjectId]) -> None:
        """Drop packs from the log."""
        self._db.run_many("DELETE FROM packs WHERE id = ?", ((pack,) for pack in packs))

    def condemned(self) -> set[ObjectId]:
        """Packs that some collector has announced to delete."""
        return {ObjectId(row[0]) for row in self._db.all("SELECT id FROM condemned")}

    def add_condemned(self, packs: Iterable[ObjectId]) -> None:
        """Remember condemned packs."""
        self._db.run_many("INSERT OR IGNORE INTO condemned VALUES (?)", ((pack,) for pack in packs))

    def get_value(self, name: str) -> bytes | None:
        """A small named value."""
        row = self._db.one("SELECT value FROM data WHERE name = ?", (name,))
        return row[0] if row else None

    def set_value(self, name: str, data: bytes | None) -> None:
        """Set or remove a small named value."""
        if data is None:
            self._db.run("DELETE FROM data WHERE name = ?", (name,))
        else:
            self._db.run(_SET.format("data"), (name, data))

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside happens together, or not at all; nested ones join. Other threads wait for its end."""
        return self._db.transaction()

    # --- segments: files, mapped instead of read ---

    def segments(self) -> list[ObjectId]:
        """The segments that are at hand."""
        return [ObjectId(row[0]) for row in self._db.all("SELECT id FROM segments ORDER BY rowid")]

    def segment(self, segment: ObjectId) -> Buffer | None:
        """A segment's bytes (mapped, not read)."""
        known = self._segments.get(segment)
        if known is not None or self._directory is None:
            return known
        try:
            with open(self._segment_path(segment), "rb") as file:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (FileNotFoundError, ValueError):  # lost or empty: it is a cache
            return None
        except OSError as error:
            raise local_error(error, "read", self._segment_path(segment)) from error
        self._segments[segment] = mapped
        return mapped

    def add_segment(self, segment: ObjectId, data: bytes) -> None:
        """Keep a segment."""
        if self._directory is None:
            self._segments[segment] = data
        else:
            self._write_segment(self._segment_path(segment), data)
        self._db.run("INSERT OR IGNORE INTO segments VALUES (?)", (segment,))

    def drop_segment(self, segment: ObjectId) -> None:
        """Forget a segment. Its file goes when the state is opened next, as it may be in use."""
        self._db.run("DELETE FROM segments WHERE id = ?", (segment,))
        self._segments.pop(segment, None)

    def _segment_path(self, segment: ObjectId) -> str:
        return os.path.join(self._directory or "", "segments", segment.hex())

    def _write_segment(self, path: str, data: bytes) -> None:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.new", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.new", path)
        except OSError as error:
            raise local_error(error, "write", path) from error

    def _sweep_segments(self) -> None:
        directory = os.path.join(self._directory or "", "segments")
        wanted = {segment.hex() for segment in self.segments()}
        try:
            for name in os.listdir(directory) if os.path.isdir(directory) else ():
                if name not in wanted:
                    os.unlink(os.path.join(directory, name))
        except OSError as error:
            raise local_error(error, "clean up", directory) from error
