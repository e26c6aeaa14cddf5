"""What the library reports: progress while it works, and one result value per operation.

Field names are what ``--json`` prints; counts are integers, sizes are bytes, times are nanoseconds unless the name says
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

ProgressCallback = Callable[[int, int, str, str], None]
"""Called with (current bytes, total bytes, action, path); never by two threads at once.

A file that is uploaded counts when it has arrived, in steps of packs. ``action`` is ``uploading``, ``downloading``,
``deleting`` or ``verifying``; ``total`` may be 0.
"""

ActionKind = Literal["upload", "download", "delete_remote", "delete_local", "keep", "hide", "conflict", "resolve"]


@dataclass(slots=True)
class Requests:
    """Requests to the bucket by verb, as the adapter saw them (retries count)."""

    put: int = 0
    get: int = 0
    list: int = 0
    delete: int = 0
    stat: int = 0

    @property
    def total(self) -> int:
        """All requests."""
        return self.put + self.get + self.list + self.delete + self.stat

    def add(self, other: Requests) -> None:
        """Count others as well."""
        self.put += other.put
        self.get += other.get
        self.list += other.list
        self.delete += other.delete
        self.stat += other.stat


@dataclass(slots=True)
class Traffic:
    """Requests, retries and payload bytes of one operation."""

    requests: Requests = field(default_factory=Requests)
    retried: Requests = field(default_factory=Requests)
    """Those among them that were made again, because an attempt before had failed."""
    retries: int = 0
    """Sum of ``retried``."""
    bytes_uploaded: int = 0
    """Payload of puts; no other verb sends any."""
    bytes_downloaded: int = 0
    """Payload of gets; listings are not counted."""

    def add(self, other: Traffic) -> None:
        """Count another operation's traffic as well."""
        self.requests.add(other.requests)
        self.retried.add(other.retried)
        self.retries += other.retries
        self.bytes_uploaded += other.bytes_uploaded
        self.bytes_downloaded += other.bytes_downloaded


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be handled, and why; everything else was."""

    path: str
    reason: str
    folder: str = ""
    """Where several were synced."""


@dataclass(frozen=True, slots=True)
class FolderError:
    """Why a folder was not synced where several were to be: the name of the error's class, and what it says."""

    type: str
    message: str
    hint: str | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path with several concurrent versions; ``copies`` are the names of the others on disk."""

    path: str
    copies: tuple[str, ...] = ()
    folder: str = ""
    """Where several were synced."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A conflict that the policy has decided: whose version is current. The other one is in the history."""

    path: str
    kept: Literal["local", "remote"]
    folder: str = ""
    """Where several were synced."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that is not synced whatever the filters say, and why."""

    path: str
    reason: str
    kind: str
    """``own``: one of buckia's own files. ``local``: on this disk, and not uploaded. ``remote``: in the bucket, and not
    written here.
    """
    folder: str = ""
    """Where several were synced."""


@dataclass(slots=True)
class SyncResult:
    """What a sync did (or, with ``dry_run``, would do). Counts are files and links, also where only a mode changed."""

    uploaded: int = 0
    downloaded: int = 0
    deleted: int = 0
    """Files removed here (to the trash) or removed from the folder by this run."""
    directories: int = 0
    """Directories that were made, removed, or got another mode, on either side."""
    unchanged: int = 0
    """Files that this run covers and found in step."""
    skipped: int = 0
    """Paths that are never synced: our own files, special files, unrepresentable names."""
    hidden: int = 0
    """Files deleted here, before this run or earlier ones, whose deletion is not published (``delete_orphaned`` is
    off); of those that this run covers.
    """
    conflicts: int = 0
    """Paths with several versions that wait for a decision."""
    resolved: int = 0
    """Conflicts that the policy settled in this run; the losing version is in the history."""
    failed: int = 0
    errors: list[Failure] = field(default_factory=list)
    conflict_list: list[Conflict] = field(default_factory=list)
    resolved_list: list[Settled] = field(default_factory=list)
    skipped_list: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    root: str = ""
    """Content root after the run, hex: equal wherever the content is equal."""
    root_before: str = ""
    snapshot: str | None = None
    """Short id of the snapshot that this run published, if it published one; else of the newest."""
    dry_run: bool = False
    missing: list[str] = field(default_factory=list)
    """Of the paths that were chosen, those that are neither on this disk nor in the bucket; ``errors`` has them too."""
    folder: str = ""
    """Where several were synced."""
    error: FolderError | None = None
    """Why the folder was not synced, where several were to be; of them together, the first."""
    folders: list[SyncResult] = field(default_factory=list)
    """Where several were synced, the result of each, which has its own root and snapshot; the others have none."""
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def success(self) -> bool:
        """No file failed, and no folder."""
        return self.failed == 0 and self.error is None

    @property
    def requests(self) -> Requests:
        """Requests to the bucket by verb."""
        return self.traffic.requests

    @property
    def bytes_uploaded(self) -> int:
        """Payload bytes sent to the bucket."""
        return self.traffic.bytes_uploaded

    @property
    def bytes_downloaded(self) -> int:
        """Payload bytes received from the bucket."""
        return self.traffic.bytes_downloaded


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot of a folder, of any device."""

    id: str
    time: str
    """ISO 8601, UTC; the writing device's clock."""
    device: str
    root: str
    files: int
    bytes: int
    head: bool
    """No other snapshot supersedes it."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of a snapshot."""

    path: str
    kind: str
    """``file``, ``symlink`` or ``directory``."""
    size: int
    mtime_ns: int
    mode: int
    content: str
    digest: str | None
    """``sha256:<hex>`` and the like, as the writer stated it."""
    target: str | None = None
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """How one path differs between two states: ``added``, ``removed``, ``modified`` or ``type``."""

    path: str
    change: str
    size_before: int | None
    size_after: int | None


@dataclass(frozen=True, slots=True)
class PathVersion:
    """One version of a path in the history of a folder."""

    path: str
    change: str
    """``written`` (a file or link), ``directory`` (it is one now, or with another mode), ``deleted``, or ``conflict``:
    another version came beside it, whose copy ``path`` names.
    """
    snapshot: str
    time: str
    device: str
    size: int
    content: str | None


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a sync or a restore will do: ``directory`` is a path in the folder with a slash, ``size`` in
    bytes, ``reason`` for people.
    """

    kind: ActionKind
    directory: str
    name: str
    size: int
    reason: str

    @property
    def path(self) -> str:
        """Relative to the folder."""
        return self.directory + self.name

    def to_dict(self) -> dict[str, object]:
        """The action for ``--json``."""
        return {"kind": self.kind, "path": self.path, "size": self.size, "reason": self.reason}


@dataclass(slots=True)
class RestoreResult:
    """What a restore wrote (or, with ``dry_run``, would write)."""

    restored: int = 0
    unchanged: int = 0
    deleted: int = 0
    """Files that the snapshot does not hold and that went to the trash."""
    trashed: int = 0
    """All files that went to the trash: those that were replaced, and ``deleted``."""
    failed: int = 0
    bytes: int = 0
    bytes_reused: int = 0
    """Bytes taken from files that were on disk already."""
    extra: list[str] = field(default_factory=list)
    """Files at the target that the snapshot does not hold; left there."""
    errors: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    snapshot: str = ""
    root: str = ""
    dry_run: bool = False
    actions: list[Action] = field(default_factory=list)
    """With ``dry_run``, what would be written (``download``), go to the trash (``delete_local``), and be left though
    the snapshot does not hold it (``keep``).
    """
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that verification found wrong."""

    kind: str
    """``missing``, ``corrupt``, ``malformed`` or ``unreadable``."""
    object: str
    reason: str
    paths: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()


@dataclass(slots=True)
class VerifyResult:
    """What a verification checked and found."""

    snapshots: int = 0
    files: int = 0
    packs: int = 0
    blobs: int = 0
    bytes: int = 0
    """Bytes read from the bucket and checked."""
    read_data: bool = False
    damaged: list[Damage] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Objects in the folder's repository that are none of ours."""
    unreferenced_packs: int = 0
    root: str = ""
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def clean(self) -> bool:
        """Nothing is damaged."""
        return not self.damaged


@dataclass(slots=True)
class StatusResult:
    """How a local directory and its folder in the bucket stand to each other."""

    local_path: str = ""
    location: str = ""
    in_sync: bool = False
    to_upload: int = 0
    to_download: int = 0
    to_delete: int = 0
    hidden: int = 0
    """Files deleted here whose deletion is not published; the next sync publishes it only if it is told to."""
    conflicts: int = 0
    pending: int = 0
    """Conflicts and interrupted work that wait."""
    root: str = ""
    snapshot: str | None = None
    snapshot_time: str | None = None
    device: str | None = None
    files: int = 0
    bytes: int = 0
    folder: str = ""
    """Where there are several."""
    folders: list[StatusResult] = field(default_factory=list)
    """Where there are several, each by itself: only they have a path, a root, a snapshot and a device."""
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(slots=True)
class BucketCheck:
    """What a bucket does, as it was seen by trying."""

    location: str = ""
    usable: bool = False
    """Folders can be kept here."""
    read_after_write: bool = False
    list_after_write: bool = False
    gone_after_delete: bool = False
    range_get: bool = False
    conditional_put: bool = False
    digest_in_listing: str | None = None
    """The algorithm of a digest that listings carry."""
    pages: bool | None = None
    """A listing of more than 1,000 objects is complete; ``None``: not tried."""
    broken: list[str] = field(default_factory=list)
    """Promises of an adapter that were not kept, if they were asked for."""
