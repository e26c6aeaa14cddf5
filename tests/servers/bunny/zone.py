"""A storage zone in memory, with its pull zone: what is stored, and what a replica that lags behind still shows."""

from __future__ import annotations

import hashlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

Path = tuple[str, ...]
"""Components of a path in the zone."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One object; times are seconds since 1970."""

    data: bytes
    checksum: str | None
    """SHA-256, upper case hex; ``None``: not known, as of old files."""
    changed: float
    created: float
    content_type: str = "application/octet-stream"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Directory:
    """Files and directories by name. One stays when the last file in it goes."""

    created: float = 0.0
    files: dict[str, StoredFile] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def walk(self, above: Path = ()) -> Iterator[tuple[Path, StoredFile]]:
        """All files below, with their paths."""
        for name, file in self.files.items():
            yield (*above, name), file
        for name, directory in self.directories.items():
            yield from directory.walk((*above, name))


@dataclass(slots=True)
class _Lagging:
    """What the replica shows in place of a path's present state."""

    file: StoredFile | None
    reads: int | None
    until: float | None


class Content:
    """The files of a zone. Methods are safe to call from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._root = Directory(clock())
        self._lag: tuple[int | None, float | None] | None = None
        self._replica: dict[Path, _Lagging] = {}

    def get(self, path: Path) -> StoredFile | None:
        """The file at a path."""
        with self._lock:
            above = self._directory(path[:-1]) if path else None
            return None if above is None else above.files.get(path[-1])

    def directory(self, path: Path) -> Directory | None:
        """A copy of the directory at a path, with its entries."""
        with self._lock:
            found = self._directory(path)
            return found and replace(found, files=dict(found.files), directories=dict(found.directories))

    def put(self, path: Path, data: bytes, checksum: str | None, content_type: str = "") -> None:
        """Writes a file, replacing the one at its path, and makes the directories above."""
        now = self._clock()
        with self._lock:
            above = self._directory(path[:-1], create=True)
            assert above is not None
            old = above.files.get(path[-1])
            self._wrote(path, old)
            created = now if old is None else old.created
            above.files[path[-1]] = StoredFile(data, checksum, now, created, content_type or "application/octet-stream")

    def make_directory(self, path: Path) -> bool:
        """Makes a directory and those above; whether it was not there before."""
        with self._lock:
            new = self._directory(path) is None
            self._directory(path, create=True)
            return new

    def delete_file(self, path: Path) -> bool:
        """Deletes a file; whether there was one. Its directory stays."""
        with self._lock:
            above = self._directory(path[:-1]) if path else None
            if above is None or path[-1] not in above.files:
                return False
            self._wrote(path, above.files.pop(path[-1]))
            return True

    def delete_directory(self, path: Path) -> bool:
        """Deletes a directory with all below, of the root only what is below; whether there was one."""
        with self._lock:
            found = self._directory(path)
            if found is None:
                return False
            for below, file in found.walk(path):
                self._wrote(below, file)
            if path:
                above = self._directory(path[:-1])
                assert above is not None
                del above.directories[path[-1]]
            else:
                self._root = Directory(self._clock())
            return True

    def change(self, path: Path, alter: Callable[[StoredFile], StoredFile]) -> None:
        """Alters what is stored behind everybody's back: no write, so no replica lags."""
        with self._lock:
            above = self._directory(path[:-1])
            assert above is not None
            above.files[path[-1]] = alter(above.files[path[-1]])

    def files(self) -> dict[Path, StoredFile]:
        """All files by path."""
        with self._lock:
            return dict(self._root.walk())

    # The replica that the CDN reads.

    def lag(self, *, reads: int | None = None, seconds: float | None = None) -> None:
        """From now on writes reach the replica only after that many reads of the path, or seconds on the clock, or
        with neither when `catch_up` is called.
        """
        with self._lock:
            self._lag = (reads, seconds)

    def catch_up(self) -> None:
        """The replica is like the primary, and from now on without lag."""
        with self._lock:
            self._lag = None
            self._replica.clear()

    def get_replicated(self, path: Path) -> StoredFile | None:
        """The file at a path as the replica has it; counts as a read."""
        with self._lock:
            lagging = self._replica.get(path)
            if lagging is None:
                return self.get(path)
            late = lagging.until is not None and self._clock() >= lagging.until
            if late or lagging.reads == 0:
                del self._replica[path]
                return self.get(path)
            if lagging.reads is not None:
                lagging.reads -= 1
            return lagging.file

    def _wrote(self, path: Path, old: StoredFile | None) -> None:
        if self._lag is None:
            return
        reads, seconds = self._lag
        shown = self._replica[path].file if path in self._replica else old
        self._replica[path] = _Lagging(shown, reads, None if seconds is None else self._clock() + seconds)

    def _directory(self, path: Path, *, create: bool = False) -> Directory | None:
        found = self._root
        for name in path:
            below = found.directories.get(name)
            if below is None:
                if not create:
                    return None
                below = found.directories[name] = Directory(self._clock())
            found = below
        return found


@dataclass(slots=True)
class Security:
    """Token authentication of a pull zone."""

    key: str
    enabled: bool = False
    check_address: bool = False
    """Token IP validation: every token must be locked to its client's address."""


def digest(data: bytes) -> str:
    """The ``Checksum`` of ``data``."""
    return hashlib.sha256(data).hexdigest().upper()


def new_password() -> str:
    """In the form of Bunny's passwords and keys."""
    return "-".join(secrets.token_hex(count) for count in (4, 2, 2, 6, 2, 2))
