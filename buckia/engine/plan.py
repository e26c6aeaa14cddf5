"""The plan of a sync: a value that prints, serialises, is what a dry run shows and what the run executes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from buckia.events import (
    Action,
    ActionKind,
    Conflict,
    Failure,
    FolderError,
    Requests,
    Settled,
    Skipped,
    SyncResult,
    Traffic,
)
from buckia.store.reader import WINDOW_BYTES
from buckia.store.writer import ONE_PACK_BYTES_MAX, PACK_BYTES_TARGET

UPLOAD: ActionKind = "upload"
DOWNLOAD: ActionKind = "download"
DELETE_REMOTE: ActionKind = "delete_remote"
DELETE_LOCAL: ActionKind = "delete_local"
KEEP: ActionKind = "keep"
HIDE: ActionKind = "hide"
CONFLICT: ActionKind = "conflict"
RESOLVE: ActionKind = "resolve"

_PUBLISHED = (UPLOAD, DELETE_REMOTE, RESOLVE)


@dataclass(slots=True)
class Plan:
    """All actions of a sync, directory by directory, and what it leaves alone."""

    actions: list[Action] = field(default_factory=list)
    directories: int = 0
    unchanged: int = 0
    resolved: list[Settled] = field(default_factory=list)
    """Conflicts that the policy settles: whose version each `RESOLVE` is for."""
    skipped: list[Skipped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Of the paths that were chosen, those that are neither on this disk nor in the bucket."""
    error: FolderError | None = None
    """Where several folders were to be synced, the first error; ``failures`` has the others."""
    root: str = ""
    hidden: int = 0
    """Files whose deletion earlier runs have kept to this device, and this one does."""
    files: int = 0
    """Files that are in step before the run; the measure for mass deletions."""
    joins: bool = False
    """This device has published nothing yet."""
    traffic: Traffic = field(default_factory=Traffic)
    """What planning took."""

    def add(self, kind: ActionKind, place: tuple[str, str], size: int, reason: str) -> None:
        """Append an action at a (directory, name)."""
        self.actions.append(Action(kind, *place, size, reason))

    def __iter__(self) -> Iterator[Action]:
        return iter(self.actions)

    def __len__(self) -> int:
        return len(self.actions)

    def count(self, kind: ActionKind) -> int:
        """How many actions of a kind there are."""
        return sum(action.kind == kind for action in self.actions)

    @property
    def bytes(self) -> int:
        """Bytes of the files that move, either way: the total of progress reports."""
        return sum(action.size for action in self.actions if action.kind in (UPLOAD, DOWNLOAD))

    def estimate(self) -> Traffic:
        """About what executing it costs, beyond what planning has read, if nothing of it is in the bucket or on disk
        already; what is known is not sent again, so it may be less.
        """
        sent = [action.size for action in self.actions if action.kind == UPLOAD]
        received = [action.size for action in self.actions if action.kind == DOWNLOAD]
        requests = Requests(list=1)
        if any(action.kind in _PUBLISHED for action in self.actions):
            total = sum(sent)
            # Packs of chunks and of nodes, a record and its tip; then a look around, and the old tip goes.
            requests.put = max(1, math.ceil(total / PACK_BYTES_TARGET)) + (total >= ONE_PACK_BYTES_MAX) + 2
            requests.list, requests.delete = 2, 1
            if self.joins:  # the folder's own object, a first record and its tip
                requests.put, requests.list = requests.put + 3, 4
        large = [size for size in received if size > WINDOW_BYTES]
        # Two threads may have filled a pack each with the chunks of a large file: a window lies in one pack or in both.
        requests.get = sum(math.ceil(1.5 * size / WINDOW_BYTES) + 1 for size in large)
        requests.get += math.ceil((sum(received) - sum(large)) / WINDOW_BYTES)
        return Traffic(requests, bytes_uploaded=sum(sent), bytes_downloaded=sum(received))

    def result(self) -> SyncResult:
        """The plan as the result that it would have if nothing fails."""
        counts = Counter(action.kind for action in self.actions)
        return SyncResult(
            uploaded=counts[UPLOAD],
            downloaded=counts[DOWNLOAD],
            deleted=counts[DELETE_REMOTE] + counts[DELETE_LOCAL],
            directories=self.directories,
            unchanged=self.unchanged,
            skipped=len(self.skipped),
            skipped_list=list(self.skipped),
            hidden=self.hidden + counts[HIDE],
            conflicts=counts[CONFLICT],
            resolved=len(self.resolved),
            failed=len(self.failures),
            errors=list(self.failures),
            conflict_list=[Conflict(action.path) for action in self.actions if action.kind == CONFLICT],
            resolved_list=list(self.resolved),
            warnings=list(self.warnings),
            missing=list(self.missing),
            error=self.error,
            root=self.root,
            root_before=self.root,
            traffic=self.traffic,
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan for ``--json``, beside the result that it would have."""
        cost = self.estimate()
        return {
            "dry_run": True,
            "actions": [action.to_dict() for action in self.actions],
            "estimate": {
                "requests": cost.requests,
                "bytes_uploaded": cost.bytes_uploaded,
                "bytes_downloaded": cost.bytes_downloaded,
            },
        }
