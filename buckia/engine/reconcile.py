"""Reconcile: the founding document's steps Scan, Compare, Apply Cache, Plan, Execute, Verify, in this order.

`Sync` is one run for one folder. ``plan`` goes as far as the plan and changes nothing but the local cache; ``run``
executes it.
"""

from __future__ import annotations

import os

from buckia.core.directory import lookup
from buckia.core.ids import DeviceId, Dot, ObjectId
from buckia.core.manifest import Kind, Subtree
from buckia.core.record import CHAIN_MAX
from buckia.engine import plan as acts
from buckia.engine.applied import Applied, begin_change, load_applied, load_conflicts, save_applied
from buckia.engine.compare import Change, DirectoryPlan, Edit, Path
from buckia.engine.context import Confirm, Workspace, guard_mass_deletion
from buckia.engine.forecast import Forecast
from buckia.engine.hiding import Hiding
from buckia.engine.history import retained, to_path
from buckia.engine.materialise import Materialiser
from buckia.engine.plan import Plan
from buckia.engine.publish import Publisher
from buckia.engine.survey import Survey, split
from buckia.errors import BucketNotFound, LocalError, NotFoundError
from buckia.events import Conflict, Failure, Settled, Skipped, SyncResult
from buckia.local.folder import OWN, ScannedDirectory, check_root, scan
from buckia.local.fs import DiskEntry
from buckia.local.paths import bucket_name
from buckia.store.journal import Tips
from buckia.store.repository import State

_PROVISIONAL = DeviceId(b"\xff" * 16)
"""Stands for the device that a dry run would become."""


class Sync:
    """One run. The steps are called in the order in which they stand here."""

    def __init__(self, workspace: Workspace) -> None:
        self._work = workspace
        self._repo = workspace.repository
        self._plan = Plan()
        self._listed: Tips = {}
        self._scanned: dict[bytes, ScannedDirectory] = {}
        self._unreadable: list[bytes] = []
        self._applied: Applied | None = None
        self._basis: Tips = {}
        self._heads: tuple[ObjectId, ...] = ()
        """The snapshots whose merge the tree is, where it is no snapshot's own."""
        self._state: State | None = None
        self._plans: list[DirectoryPlan] = []
        self._own = Dot(_PROVISIONAL, 0)
        """What the edits of this run will have."""
        self._hiding: Hiding | None = None
        self._blocked: list[Conflict] = []
        """What is in the way of something, and waits for its user."""

    def plan(self, *, write: bool = False) -> Plan:
        """All steps up to the plan. Without ``write`` no request changes the bucket and no identity is taken."""
        self.scan(write)
        self.compare()
        self.apply_cache()
        return self.make_plan()

    def run(self, confirm: Confirm | None = None) -> SyncResult:
        """The whole sync. Raises RefusedError before anything is changed where a mass deletion is not confirmed."""
        planned = self.plan(write=True)
        self._guard(planned, confirm)
        return self.verify(self.execute())

    # ---- Scan

    def scan(self, write: bool) -> None:
        """Look at both sides: one listing of the bucket's tips, and the local directories that are not as they were
        left.
        """
        work, repo = self._work, self._repo
        work.started_ns = work.clock.now_ns()
        check_root(work.files, work.root, work.state)
        if self._open(write):
            self._listed = repo.journal.list_tips()
        if write:
            self._take_identity()
        scanning = scan(work.files, work.root, work.state, work.filters, work.started_ns)
        for directory in scanning:
            if directory.exists:
                work.disk_paths[directory.path] = directory.disk_path
            else:
                directory.disk_path = work.disk_path_of(directory.path)
            self._note_skipped(directory.path, scanning.skipped(directory))
            if directory.error is not None:
                self._unreadable.append(directory.path)
                self._plan.failures.append(Failure(os.fsdecode(directory.path) or ".", directory.error.message))
            elif directory.clean:
                self._plan.unchanged += directory.files
            else:
                self._scanned[directory.path] = directory
        self._plan.warnings += work.filters.warnings
        if work.state.was_damaged:
            self._plan.warnings.append(
                "The local state was damaged; it was put aside, and this directory was compared by content."
            )

    def _note_skipped(self, directory: bytes, names: list[tuple[str, str]]) -> None:
        """Take down what is never synced, but for what this run would not cover anyway."""
        prefix = os.fsdecode(directory) + "/" if directory else ""
        covers = self._work.filters.covers
        for name, reason in names:
            path = prefix + name
            if reason == OWN:
                self._plan.skipped.append(Skipped(path, reason, "own"))
            elif covers(path, False) and covers(path, True):
                self._plan.skipped.append(Skipped(path, reason, "local"))

    def _open(self, write: bool) -> bool:
        """Open the folder. Whether it is there: a dry run of a first sync finds nothing, and makes nothing."""
        try:
            self._repo.open(create=write)
        except (NotFoundError, BucketNotFound):
            if write or self._repo.ledger.folder_object() is not None:
                raise
            return False
        return True

    def _take_identity(self) -> None:
        """Become a device where this state is none, or was copied; finish what an interrupted run had begun."""
        work, repo = self._work, self._repo
        repo.identify(work.settings.device_name, self._listed)
        if repo.settle(work.state.promote):  # what was staged then are the rows that follow from that record
            self._listed = repo.journal.list_tips()
        work.state.discard_staged()

    # ---- Compare

    def compare(self) -> None:
        """Learn what others published, and merge all heads into the state that this folder has now."""
        repo = self._repo
        self._applied = load_applied(self._work.state, self._work.filters.key())
        if self._applied is not None:
            repo.merge([repo.journal.load(head) for head in self._applied.heads])  # makes the nodes that are in no pack
        if self._applied is not None and self._applied.tips == self._listed:
            self._basis, self._heads = self._listed, self._applied.heads
            self._state = State(self._applied.tree, {})
            return
        self._basis = repo.refresh(self._listed)
        repo.require_visible()
        self._state = repo.current()
        heads = repo.journal.heads()
        self._heads = tuple(head.id for head in heads) if len(heads) > 1 else ()
        for record in sorted(repo.journal.held_back):
            if record in repo.journal.too_far:
                reason = f"its number is more than {CHAIN_MAX} ahead, and no device writes so many records."
            else:
                reason = "it, or one that it names, cannot be found in the bucket. It is taken once they are there."
            self._plan.warnings.append(f"Record {record.hex()[:12]} is left out: {reason}")

    # ---- Apply Cache

    def apply_cache(self) -> None:
        """Fold what changed in the local directory into that state, one directory at a time: changes become edits."""
        if self._state is None:
            raise AssertionError("compare comes before apply_cache")
        own = self._repo.ledger.device()
        self._plan.joins = not self._repo.ledger.own_seq()
        seq = max(self._repo.ledger.own_seq(), 1) + 1
        device = own[0] if own is not None else _PROVISIONAL
        self._own = Dot(device, seq)
        work = self._work
        self._hiding = Hiding(work, self._scanned)
        survey = Survey(work, self._state.tree, device, seq, retained(self._repo), self._hiding)
        changed = {
            b"/".join(path) for path in survey.changed_paths(self._applied.tree if self._applied is not None else None)
        }
        for path in sorted(self._scanned.keys() | changed, key=split):
            scanned = self._scanned.pop(path, None)
            if scanned is None:
                if not self._work.filters.descends(path) or self._is_unreadable(path):
                    continue
                scanned = self._unscanned(path)
            planned = survey.directory(scanned, path in changed)
            self._note_names(planned)
            self._plans.append(planned)
        self._plan.failures += survey.failures
        self._plan.warnings += [*survey.warnings, *survey.obstacles.found.values()]
        self._blocked = [Conflict(path) for path in survey.obstacles.found]
        for conflict in self._blocked:
            self._plan.add(acts.CONFLICT, ("", conflict.path), 0, "what is there is left out, and in the way")
        self._plan.hidden = survey.hidden_before
        for hidden in survey.hidden:
            self._plan.add(acts.HIDE, ("", hidden), 0, "deleted here; `--delete-orphaned` publishes it")

    def _note_names(self, planned: DirectoryPlan) -> None:
        """Where directories are to be made under other names, for what comes below them."""
        for change in planned.changes:
            shown = change.shown
            if shown is not None and shown.kind == Kind.DIRECTORY and change.name.encode() != shown.entry_name:
                where = f"{planned.disk_path}/{change.name}" if planned.disk_path else change.name
                self._work.planned_paths[b"/".join((*planned.path, shown.entry_name))] = where

    def _unscanned(self, path: bytes) -> ScannedDirectory:
        """A directory that the tree changed and the scan found as it was left, or not at all."""
        exists = path in self._work.disk_paths
        return ScannedDirectory(path, self._work.disk_path_of(path), clean=True, exists=exists)

    def _is_unreadable(self, path: bytes) -> bool:
        return any(path == bad or path.startswith(bad + b"/") or not bad for bad in self._unreadable)

    # ---- Plan

    def make_plan(self) -> Plan:
        """The plan: what goes up, comes down, is deleted on either side, and what conflicts."""
        planned = self._plan
        for directory in self._plans:
            prefix = os.fsdecode(b"".join(part + b"/" for part in directory.path))
            for edit in (*directory.edits, *directory.later):
                _plan_edit(planned, prefix, edit)
            for change in directory.changes:
                _plan_change(planned, prefix, change)
            planned.unchanged += _in_step(directory)
        in_step = self._applied.tree.files if self._applied is not None else 0
        planned.files = in_step
        if self._state is not None:
            # After a run that was not complete it is not known how much is in step; the folder is about that size.
            planned.files = in_step or self._state.tree.files
            planned.root = self._state.tree.content_hash.hex()
            planned.missing = [path for path in self._work.filters.chosen if not self._exists(path, self._state.tree)]
        return planned

    def _exists(self, text: str, tree: Subtree) -> bool:
        """Whether a path is in the tree or on the disk, in whatever normalisation."""
        path = to_path(text)
        if not path or lookup(self._repo.nodes, tree.id, path) is not None:
            return True
        where = self._work.root
        for depth, part in enumerate(path, 1):
            try:
                entries = {bucket_name(entry[0]): DiskEntry(*entry) for entry in self._work.files.scan(where)}
            except LocalError:
                return True  # it cannot be told, and that the directory cannot be read is reported already
            found = entries.get(part)
            if found is None or (found.kind != Kind.DIRECTORY and depth < len(path)):
                return False
            where = f"{where}/{found.name}"
        return True

    def _guard(self, planned: Plan, confirm: Confirm | None) -> None:
        settings = self._work.settings
        folder_files = self._state.tree.files if self._state is not None else 0
        guard_mass_deletion(_vanishing(self._plans), folder_files, "from the folder", settings, confirm)
        guard_mass_deletion(_vanishing_here(self._plans), planned.files, "on this disk", settings, confirm)

    def forecast(self) -> Forecast:
        """What the directory and its state will be if the plan is executed; what it would publish is read for that."""
        return Forecast(self._work, self._plans, self._own)

    # ---- Execute

    def execute(self) -> SyncResult:
        """Publish the local edits, then make the disk show the tree that results."""
        if self._state is None or self._hiding is None:
            raise AssertionError("compare and apply_cache come before execute")
        result = self._plan.result()
        self._work.progress.total = self._plan.bytes
        if any(plan.edits or plan.show for plan in self._plans):
            begin_change(self._work.state)
        published = Publisher(self._work, self._state.tree, self._basis).run(self._plans)
        materialiser = Materialiser(self._work, published.tree, self._hiding)
        materialiser.run(self._with_turned(published.turned))
        self._state = State(published.tree, {})
        own = self._repo.ledger.device()
        if published.snapshot is not None and own is not None:
            record = published.snapshot.record
            self._basis, self._heads = {**self._basis, record.device: (record.seq, published.snapshot.id)}, ()
        elif own is not None and own[0] in self._repo.ledger.tips():
            self._basis = {**self._basis, own[0]: self._repo.ledger.tips()[own[0]]}
        result.uploaded = published.uploaded
        result.downloaded = materialiser.downloaded
        result.deleted = published.deleted + materialiser.deleted
        unread = {failure.path for failure in published.failures}
        result.resolved_list = [settled for settled in result.resolved_list if settled.path not in unread]
        result.resolved = len(result.resolved_list)
        result.errors += published.failures + materialiser.failures
        result.warnings += [f"{left.path} is not written here: {left.reason}." for left in materialiser.skipped]
        result.skipped_list += materialiser.skipped
        result.skipped += len(materialiser.skipped)
        result.failed = len(result.errors)
        result.root = published.tree.content_hash.hex()
        if published.snapshot is not None:
            result.snapshot = published.snapshot.id.hex()[:8]
        return result

    def _with_turned(self, turned: set[Path]) -> list[DirectoryPlan]:
        """The plans, and those for directories in which only publishing has changed what is shown."""
        known = {plan.path: plan for plan in self._plans}
        for path in turned:
            if path in known:
                known[path].show = True
            elif self._work.filters.descends(b"/".join(path)):
                known[path] = DirectoryPlan(path, self._work.disk_path_of(b"/".join(path)), {}, show=True)
        return [known[path] for path in sorted(known)] if turned else self._plans

    # ---- Verify

    def verify(self, result: SyncResult) -> SyncResult:
        """Take the state for applied only if nothing failed; what was transferred was checked against its id when it
        came.
        """
        if self._state is None:
            raise AssertionError("execute comes before verify")
        if not result.failed and not self._blocked:
            save_applied(
                self._work.state, self._work.filters.key(), Applied(self._state.tree, dict(self._basis), self._heads)
            )
        pending = [Conflict(path, copies) for path, copies in load_conflicts(self._work.state).items()]
        result.conflict_list = sorted([*pending, *self._blocked], key=lambda conflict: conflict.path)
        result.conflicts = len(result.conflict_list)
        if result.snapshot is None:
            heads = self._repo.journal.heads()
            newest = max(heads, key=lambda head: (head.record.time_ns, head.id), default=None)
            result.snapshot = newest.id.hex()[:8] if newest is not None else None
        self._work.progress.finish("verifying")
        return result


def _vanishing(directories: list[DirectoryPlan]) -> int:
    """Files that were deleted here, without those that only have another name now: the same inode, size and time."""
    edits = [edit for directory in directories for edit in directory.edits]
    rows = [
        edit.row for edit in edits if edit.disk is None and edit.row is not None and edit.row.kind != Kind.DIRECTORY
    ]
    if not rows:
        return 0
    new = {
        (edit.disk.inode, edit.disk.size, edit.disk.mtime_ns)
        for edit in edits
        if edit.disk is not None and edit.row is None
    }
    return sum(row.stat is None or (row.stat[4], row.stat[1], row.stat[2]) not in new for row in rows)


def _vanishing_here(directories: list[DirectoryPlan]) -> int:
    """Files that are to be removed here, without those whose content comes back under another name."""
    changes = [change for directory in directories for change in directory.changes if change.write]
    rows = [change.row for change in changes if change.shown is None and change.row is not None]
    files = [row for row in rows if row.kind != Kind.DIRECTORY]
    if not files:
        return 0
    new = {change.shown.versions[0].content for change in changes if change.shown is not None and change.shown.versions}
    return sum(row.content not in new for row in files)


def _in_step(directory: DirectoryPlan) -> int:
    """Files of a directory that are in step and stay as they are; of one that was clean, less those counted already."""
    scanned = directory.scanned
    if scanned is None:
        return 0
    edits = {edit.name for edit in (*directory.edits, *directory.later)}
    touched = edits | {change.name for change in directory.changes if change.write}
    rows = directory.rows
    if scanned.clean:
        return -sum(name in rows and scanned.counts(rows[name]) for name in touched)
    return sum(row.name not in touched and scanned.counts(row) for row in rows.values())


def _plan_edit(planned: Plan, prefix: str, edit: Edit) -> None:
    # The name on disk is at hand already; a name of its own would cost memory a million times.
    plain = edit.name if edit.name.isascii() else os.fsdecode(edit.entry_name)
    place = (
        prefix,
        plain if edit.row is None or edit.row.entry_name == os.fsencode(edit.name) else os.fsdecode(edit.entry_name),
    )
    if edit.disk is None:
        if edit.row is not None and edit.row.kind == Kind.DIRECTORY:
            planned.directories += 1
        elif edit.row is not None:
            planned.add(acts.DELETE_REMOTE, place, 0, "deleted here")
        return
    if edit.disk.kind == Kind.DIRECTORY:
        planned.directories += 1
        return
    planned.add(acts.UPLOAD, place, edit.disk.size, "new here" if edit.row is None else "changed here")
    if edit.outcome == "pending":
        planned.add(acts.CONFLICT, place, 0, "changed on both sides; both versions are kept")
    elif edit.outcome == "local":
        reason = "changed on both sides; this device's version wins, the other stays in the history"
        planned.add(acts.RESOLVE, place, 0, reason)
        planned.resolved.append(Settled("".join(place), "local"))
    elif edit.outcome == "remote":
        reason = "changed on both sides; the other version wins, this device's stays in the history"
        planned.add(acts.RESOLVE, place, 0, reason)
        planned.resolved.append(Settled("".join(place), "remote"))


def _plan_change(planned: Plan, prefix: str, change: Change) -> None:
    if not change.write:
        return
    place = (prefix, change.name)
    if change.shown is None:
        if change.row is not None and change.row.kind == Kind.DIRECTORY:
            planned.directories += 1
        elif change.row is not None:
            planned.add(acts.DELETE_LOCAL, place, 0, "deleted elsewhere")
    elif change.shown.kind == Kind.DIRECTORY:
        planned.directories += 1
    else:
        size = change.shown.versions[0].size
        planned.add(acts.DOWNLOAD, place, size, "new elsewhere" if change.row is None else "changed elsewhere")
