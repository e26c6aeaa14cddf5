"""What this device remembers of one folder of one bucket: trust, a cache of the bucket, the rows of the local tree.

*Trust* is what must survive: the device's id, the newest records that were seen, the finished record that may not have
arrived.
It is a table of names and values that every version reads. Everything else is a cache, made anew when its schema is
not this
version's. Losing the whole state loses no data: the tree is then compared by content, by a new device.

A directory's rows are kept as one value beside a *fingerprint* of what the disk showed; while the disk still shows the
same, the
rows need not even be loaded. Work in progress is *staged* beside the current rows and becomes current in one step;
rows of
files that are about to be put in place are kept as *intents*, so that a run that was cut off knows its own files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self

from blake3 import blake3

from buckia.core.ids import DeviceId, object_id
from buckia.core.manifest import Kind
from buckia.local.connection import Connection, DamagedError
from buckia.local.disk import RealFileSystem
from buckia.local.fs import local_error
from buckia.local.home import StateLock, machine_id, state_directory
from buckia.local.ledger import DeviceLedger
from buckia.local.mark import FileMarks, Marks, MemoryMarks
from buckia.local.paths import OWNER_LETTERS
from buckia.local.rows import Row, decode_rows, encode_rows

__all__ = ["Row", "State", "machine_id", "state_directory"]

_DATABASE = "state.db"


class State(DeviceLedger):
    """A device's memory. One process at a time holds it; its methods may be called from several threads."""

    def __init__(self, connection: Connection, directory: str | None, *, identity: bytes, marks: Marks) -> None:
        """Use ``open`` instead."""
        super().__init__(connection, directory)
        self._identity = identity
        self._marks = marks
        self._lock: StateLock | None = None
        present = self._trust("identity")
        self.is_clone = present not in (None, identity) or not marks.hold(self._trust("mark"))
        """The state was copied here from elsewhere, or from a backup: the device must take another id."""
        self.was_damaged = False
        """The state's file was unusable and has been put aside; this one is new."""
        if present is None:
            self._set_trust("identity", identity)

    @classmethod
    def open(cls, directory: str | None, *, machine: str) -> Self:
        """Open or create the state in ``directory``; None: in memory, for tests.

        ``machine`` is ``machine_id()``. Raises ``BusyError`` if another process holds it, ``LocalError``.
        """
        if directory is None:
            return cls(Connection(None), None, identity=machine.encode(), marks=MemoryMarks())
        lock = StateLock(directory)
        path = os.path.join(directory, _DATABASE)
        damaged = False
        try:
            try:
                connection = Connection(path)
            except DamagedError:
                damaged = True
                _put_aside(path)
                connection = Connection(path)
            state = cls(connection, directory, identity=_identity(machine, path), marks=FileMarks(directory))
        except BaseException:
            lock.release()
            raise
        state._lock = lock
        state.was_damaged = damaged
        return state

    @property
    def owner(self) -> str:
        """Eight letters that name this state's temporary files: no run of another state has them."""
        return blake3(self._identity).hexdigest(length=OWNER_LETTERS // 2)

    def close(self) -> None:
        """Close and let other processes in."""
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def set_device(self, device: DeviceId, name: str) -> None:
        """See ``DeviceLedger``. From now on the state belongs here: it is no clone any more."""
        token = device.hex()
        mark = self._marks.make(token)
        with self._db.durable():
            super().set_device(device, name)
            self._set_trust("identity", self._identity)
            self._set_trust("mark", mark)
        self._marks.keep(token)
        self.is_clone = False

    def set_outbox(self, data: bytes | None) -> None:
        """See ``DeviceLedger``. The record gets a mark."""
        mark = None if data is None else self._marks.make(object_id(data).hex())
        with self._db.durable():
            super().set_outbox(data)
            if mark is not None:
                self._set_trust("mark", mark)

    def outdate_copies(self) -> None:
        """See ``store.ledger``."""
        mark = self._trust("mark")
        if mark is not None:
            self._marks.keep(mark.split(b" ")[0].decode())

    # --- directories ---

    def fingerprints(self) -> dict[bytes, bytes | None]:
        """All directories that have rows, by bucket path, with their fingerprints.

        A path's components are joined by ``/``, the top is empty. The fingerprint is None where the disk must be
        compared name by name.
        """
        known: dict[bytes, bytes | None] = dict(self._db.all("SELECT path, fingerprint FROM directories"))
        known.update((path, None) for (path,) in self._db.all("SELECT DISTINCT path FROM intents"))
        return known

    def directory(self, path: bytes) -> tuple[bytes | None, dict[str, Row]]:
        """A directory's fingerprint and its rows by name on disk."""
        found = self._db.one("SELECT fingerprint, rows FROM directories WHERE path = ?", (path,))
        if found is None:
            return None, {}
        return found[0], {row.name: row for row in decode_rows(found[1])}

    def stage(self, path: bytes, rows: Iterable[Row], fingerprint: bytes | None) -> None:
        """Prepare a directory's new rows. The fingerprint is dropped if a file among them must be read again."""
        rows = list(rows)
        if any(row.stat is None and not row.hidden and row.kind != Kind.DIRECTORY for row in rows):
            fingerprint = None
        self._db.run("INSERT OR REPLACE INTO staged VALUES (?, ?, ?)", (path, fingerprint, encode_rows(rows)))

    def drop_directory(self, path: bytes) -> None:
        """Prepare to forget a directory's rows (not those of directories below it)."""
        self._db.run("INSERT OR REPLACE INTO staged VALUES (?, NULL, NULL)", (path,))

    def promote(self) -> None:
        """Make all that is staged current, in one step; the intents in these directories have served."""
        with self._db.transaction():
            self._db.run("INSERT OR REPLACE INTO directories SELECT * FROM staged WHERE rows IS NOT NULL")
            self._db.run("DELETE FROM directories WHERE path IN (SELECT path FROM staged WHERE rows IS NULL)")
            self._db.run("DELETE FROM intents WHERE path IN (SELECT path FROM staged)")
            self._db.run("DELETE FROM staged")

    def discard_staged(self) -> None:
        """Forget what is staged."""
        self._db.run("DELETE FROM staged")

    def add_intents(self, intents: Iterable[tuple[bytes, Row]]) -> None:
        """Say, before files are put in place, which rows they will have; durable on return.

        Each is the directory's bucket path and the row; ``row.stat`` is that of the staged file, by which it is known
        again after its renaming.
        """
        with self._db.durable():
            self._db.run_many(
                "INSERT OR REPLACE INTO intents VALUES (?, ?, ?)",
                ((path, os.fsencode(row.name), encode_rows([row])) for path, row in intents),
            )

    def intents(self, path: bytes) -> dict[str, Row]:
        """The intents in one directory, by name on disk. A scan resolves them: see ``buckia.local.folder``."""
        found = self._db.all("SELECT row FROM intents WHERE path = ?", (path,))
        return {row.name: row for (data,) in found for row in decode_rows(data)}


def _identity(machine: str, path: str) -> bytes:
    """The machine, and the file itself: a copy of the state has another inode or lies on another file system."""
    try:
        inode = os.stat(path).st_ino
    except OSError as error:
        raise local_error(error, "look at", path) from error
    return f"{machine} {RealFileSystem().device(path)} {inode}".encode()


def _put_aside(path: str) -> None:
    try:
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.replace(path + suffix, f"{path}.damaged{suffix}")
    except OSError as error:
        raise local_error(error, "put aside", path) from error
