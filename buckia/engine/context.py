"""What an operation works with: everything that touches the outside comes in here, so that a whole fleet can run in one
thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from buckia.core.chunker import Kernel
from buckia.core.projection import Fold
from buckia.engine.compare import Policy
from buckia.engine.work import Executor
from buckia.errors import RefusedError
from buckia.events import ProgressCallback
from buckia.local.filters import Filters
from buckia.local.folder import settled
from buckia.local.fs import DiskEntry, FileSystem, Stat
from buckia.local.state import State
from buckia.store.repository import Repository

STEP_BYTES = 2 << 20
"""Progress that is made at the speed of the disk is reported in steps of this size."""
Confirm = Callable[[str], bool]
"""Asked before a dangerous act; true goes on."""


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sync decides."""

    kernel: Kernel
    policy: Policy = "local_wins"
    delete_orphaned: bool = False
    allow_mass_delete: bool = False
    digest: str | None = "sha256"
    device_name: str = "device"


@dataclass(slots=True)
class Progress:
    """Bytes done of bytes planned; calls the user's callback from one thread at a time, and never goes back."""

    callback: ProgressCallback | None = None
    total: int = 0
    current: int = 0
    check: Callable[[], object] | None = None
    """Asked at every step; it raises CancelledError where the work is to stop."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, amount: int, action: str, path: str) -> None:
        """Count ``amount`` bytes (0 for acts that move none)."""
        if self.check is not None:
            self.check()
        if self.callback is None:
            return
        with self._lock:
            self.current = min(self.current + amount, self.total)
            if self.callback is not None:
                self.callback(self.current, self.total, action, path)

    def finish(self, action: str) -> None:
        """Report the end: current equals total."""
        if self.callback is not None:
            with self._lock:
                self.current = self.total
                self.callback(self.current, self.total, action, "")

    def close(self) -> None:
        """Call nobody from now on: a pack may still arrive when the operation has failed."""
        with self._lock:
            self.callback = None


@dataclass(slots=True)
class Upload:
    """A file on its way out. Each of its bytes counts once, however often it is read: when the pack that holds it has
    arrived, or when it was read and needed no upload.
    """

    progress: Progress
    path: str
    left: int
    """Planned bytes that were not read yet."""
    _known: int = 0

    def packed(self, size: int) -> int:
        """Bytes were read that will be sent; how many of them have not been read before."""
        new = min(size, self.left)
        self.left -= new
        return new

    def known(self, size: int) -> None:
        """Bytes were read that need no upload."""
        self._known += self.packed(size)
        if self._known >= STEP_BYTES:
            self._report()

    def sent(self, size: int) -> None:
        """A pack has arrived, with so many bytes of this file and of those before it."""
        self.progress.advance(size, "uploading", self.path)

    def finish(self) -> None:
        """The file was read: what it lacks of the plan counts too, and what is in no pack."""
        self._known += self.packed(self.left)
        self._report()

    def _report(self) -> None:
        size, self._known = self._known, 0
        self.progress.advance(size, "uploading", self.path)


@dataclass(slots=True)
class Workspace:
    """A local directory tied to a folder of a bucket."""

    repository: Repository
    state: State
    files: FileSystem
    root: str
    filters: Filters
    clock: Clock
    random_bytes: Callable[[int], bytes]
    executor: Executor
    settings: Settings
    progress: Progress = field(default_factory=Progress)
    fetchers: Executor | None = None
    """Where reads from the bucket wait, if those are to be more than the pieces of computing work; else ``executor``.
    """
    fold: Fold | None = None
    """What the local file system makes of names; None where all names differ that differ in bytes."""
    disk_paths: dict[bytes, str] = field(default_factory=dict)
    """Directories that the scan found, by their path in the folder."""
    planned_paths: dict[bytes, str] = field(default_factory=dict)
    """Directories that this run will make, where their name on disk is not that in the folder."""
    started_ns: int = 0
    """When this run began to look at the disk: what was changed later than a tick before may change again unseen."""

    def trusted_stat(self, disk: DiskEntry) -> Stat | None:
        """A stat by which later changes can be told, or None: the file is read again next time."""
        return disk.stat if settled(disk, self.started_ns) else None

    def disk_path_of(self, path: bytes) -> str:
        """Where a directory of the folder lies below the root; differs from its path where a name is shown under
        another name.
        """
        known = self.disk_paths.get(path, self.planned_paths.get(path))
        if known is not None:
            return known
        parent, _, name = path.rpartition(b"/")
        above = self.disk_path_of(parent) if parent else ""
        return f"{above}/{name.decode()}" if above else name.decode()

    def disk(self, relative: str) -> str:
        """The absolute path of something below the root; ``""`` is the root."""
        return f"{self.root}/{relative}" if relative else self.root


def guard_mass_deletion(deleted: int, present: int, where: str, settings: Settings, confirm: Confirm | None) -> None:
    """Ask before more than 20 files and a quarter of all are removed. Raises RefusedError if nobody agrees."""
    if deleted <= max(20, present // 4) or settings.allow_mass_delete:
        return
    question = f"This sync would remove {deleted} of {present} files {where}."
    if confirm is not None and confirm(f"{question} Go on?"):
        return
    raise RefusedError(
        question + " Nothing was changed.",
        hint="If that is intended, run it again with --allow-mass-delete; `--dry-run` lists the files.",
    )
