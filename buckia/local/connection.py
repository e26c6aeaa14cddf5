"""One SQLite connection for the local state: transactions that nest, and durability where it is asked for.

Commits survive the death of the process. They survive a power cut only when ``durable`` was asked for: flushing every
commit of a large
sync would cost more than the sync.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from buckia.errors import BusyError, LocalError

SCHEMA_VERSION = 1

_TRUST = "CREATE TABLE IF NOT EXISTS trust (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_CACHE = (
    "CREATE TABLE records (id BLOB PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE segments (id BLOB PRIMARY KEY)",
    "CREATE TABLE nodes (number INTEGER PRIMARY KEY, kind INTEGER, id BLOB, data BLOB NOT NULL, UNIQUE (kind, id))",
    "CREATE TABLE packs (id BLOB PRIMARY KEY, size INTEGER NOT NULL, rows BLOB NOT NULL)",
    "CREATE TABLE condemned (id BLOB PRIMARY KEY)",
    "CREATE TABLE data (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE directories (path BLOB PRIMARY KEY, fingerprint BLOB, rows BLOB NOT NULL)",
    "CREATE TABLE staged (path BLOB PRIMARY KEY, fingerprint BLOB, rows BLOB)",
    "CREATE TABLE intents (path BLOB, name BLOB, row BLOB NOT NULL, PRIMARY KEY (path, name))",
)


class DamagedError(LocalError):
    """The state file is not, or no longer, a database."""


class Connection:
    """A connection that several threads may use; a transaction belongs to one thread, the others wait for its end."""

    def __init__(self, path: str | None) -> None:
        """Open or create the database at ``path``, in memory for None. Raises ``DamagedError``, ``LocalError``."""
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._durable_later = False
        with self._translated():
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=0)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        # Alone on the file (the state is locked), so WAL needs no shared memory and works on network file systems too.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=4000"):
            self.run(f"PRAGMA {pragma}")
        version = self.one("PRAGMA user_version")[0]
        if version == SCHEMA_VERSION:
            return
        with self.durable():
            self.run(_TRUST)
            for (name,) in self.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'trust'"):
                self.run(f'DROP TABLE "{name}"')
            for statement in _CACHE:
                self.run(statement)
            self.run(f"PRAGMA user_version={SCHEMA_VERSION}")

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        with self._lock, self._translated():
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> LocalError:
        where = f"The local state {self._path or 'in memory'}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise BusyError("Another buckia is running on this folder.") from error
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return DamagedError(f"{where} is damaged: {error}.", hint="Remove its directory: no data is lost by that.")
        return LocalError(f"{where} cannot be used: {error}.")

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Execute one statement."""
        with self._lock:
            try:
                self._db.execute(sql, values)
            except sqlite3.Error as error:
                raise self._error(error) from error

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each of ``values``, as one transaction."""
        with self.transaction():
            try:
                self._db.executemany(sql, values)
            except sqlite3.Error as error:
                raise self._error(error) from error

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchone()
            except sqlite3.Error as error:
                raise self._error(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing does. A nested one joins the outer one."""
        with self._lock:
            if self._depth == 0:
                self.run("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._durable_later = False
                    if self._db.in_transaction:  # SQLite has rolled back by itself when the disk is full
                        self._db.rollback()
                raise
            self._depth -= 1
            if self._depth == 0:
                self._commit()

    def _commit(self) -> None:
        try:
            self.run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise
        if self._durable_later:
            self._durable_later = False
            self._flush()

    def _flush(self) -> None:
        """Flush all commits so far: a commit that is flushed takes those before it with it."""
        self.run("PRAGMA synchronous=FULL")
        try:
            self.run("INSERT OR REPLACE INTO trust VALUES ('flushed', x'00')")
        finally:
            self.run("PRAGMA synchronous=NORMAL")

    @contextmanager
    def durable(self) -> Iterator[None]:
        """A transaction that survives a power cut; within another one, when that one ends."""
        with self._lock:
            if self._depth:
                with self.transaction():
                    yield
                self._durable_later = True
                return
            self.run("PRAGMA synchronous=FULL")  # has no effect within a transaction
            try:
                with self.transaction():
                    yield
            finally:
                self.run("PRAGMA synchronous=NORMAL")
