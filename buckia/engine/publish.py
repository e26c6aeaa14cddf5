"""Execute, the way out: edits are read, stored and committed; local memory advances only with the acknowledgement.

A long sync is committed in slices, so that what was sent counts even if the rest is interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from buckia.core.directory import Path, lookup
from buckia.core.ids import Dot
from buckia.core.manifest import Kind, Subtree, Version
from buckia.engine.capture import Capture, Captured
from buckia.engine.compare import DirectoryPlan, Edit, Value, dots_of, kept_mode, rewritten
from buckia.engine.context import Upload, Workspace
from buckia.engine.editor import TreeEditor
from buckia.engine.work import in_order
from buckia.errors import LocalError
from buckia.events import Failure
from buckia.local.state import Row
from buckia.store.journal import Linked, Tips
from buckia.store.writer import PackWriter

SLICE_BYTES = 4 << 30
SLICE_NS = 600 * 10**9
"""A long sync commits after so many bytes or nanoseconds."""
SMALL_FILE_BYTES = 256 << 10
AHEAD = 64
"""Batches that may be under way or wait for an earlier one; their chunks are in packs already, so they weigh little."""
BATCH_FILES = 64
BATCH_BYTES = 4 << 20
"""Small files are read in batches of this size, as handing each over singly costs more than reading it."""

Item = tuple[DirectoryPlan, Edit, bool]
"""An edit, its directory, and whether it is the directory's last."""
Batch = list[Item]
Outcome = Captured | Failure | None
Read = list[tuple[Item, Outcome]]


@dataclass(slots=True)
class Published:
    """What came of publishing: the tree, the records it includes, the newest own snapshot, files that failed."""

    tree: Subtree
    basis: Tips
    snapshot: Linked | None = None
    failures: list[Failure] = field(default_factory=list)
    turned: set[Path] = field(default_factory=set)
    """Directories that show another thing now although none of their own names was edited: see `TreeEditor`."""
    uploaded: int = 0
    deleted: int = 0


class Publisher:
    """Publishes the edits of one sync on top of a tree."""

    def __init__(self, workspace: Workspace, tree: Subtree, basis: Tips) -> None:
        self._work = workspace
        self._repo = workspace.repository
        self.done = Published(tree, basis)
        self._bytes = 0
        self._uploads: dict[str, Upload] = {}
        """Files that were begun and not taken yet; what one commit read ahead, the next one reads again."""
        self._losers: dict[Path, tuple[set[Dot], Version]] = {}
        """Where the policy decides for another version than the local edit: the dots of such edits, and that version.
        """

    def run(self, plans: list[DirectoryPlan]) -> Published:
        """Publish all edits of these plans, which come in tree order, and store the rows that follow from them."""
        published = any(plan.edits for plan in plans)
        if published:
            self._repo.join(self.done.basis)  # before anything is staged, as its acknowledgement promotes nothing
        for plan in plans:
            if not plan.edits:
                self._stage(plan)
        if not published:
            self._work.state.promote()
            return self.done
        while any(plan.edits for plan in plans):
            self._commit(plans)
            if not any(plan.edits for plan in plans):
                self._take_later([plan for plan in plans if plan.later])
        if self._losers:
            self._settle()
        return self.done

    def _take_later(self, plans: list[DirectoryPlan]) -> None:
        """The next writes at paths that were written already, one at each; they build on the rows that are promoted by
        now.
        """
        for plan in plans:
            turn = {edit.entry_name: edit for edit in reversed(plan.later)}
            plan.edits = sorted(turn.values(), key=lambda edit: edit.entry_name)
            plan.later = [edit for edit in plan.later if turn[edit.entry_name] is not edit]
            plan.rows = self._work.state.directory(b"/".join(plan.path))[1]

    # ---- one commit

    def _commit(self, plans: list[DirectoryPlan]) -> None:
        """Read and publish as many edits as make one commit; they leave their plans."""
        writer = self._repo.writer()
        capture = Capture(self._work.files, writer, self._work.settings.kernel, self._work.settings.digest)
        editor = TreeEditor(self._repo.nodes, self.done.tree)
        dot = self._next_dot()
        taken = 0  # of the plan that comes next
        self._bytes, since = 0, self._work.clock.now_ns()

        def read(batch: Batch) -> Read:
            return [(item, self._read(capture, writer, item)) for item in batch]

        for results in in_order(self._work.executor, read, _batches(_items(plans)), AHEAD):
            for (plan, edit, is_last), captured in results:
                taken = 0 if is_last else taken + 1
                self._take(editor, plan, edit, captured, dot)
                if is_last:
                    plan.edits = []
                    self._stage(plan)
            if self._bytes >= SLICE_BYTES or self._work.clock.now_ns() - since >= SLICE_NS:
                break
        if taken:
            plan.edits = plan.edits[taken:]
            self._stage_partly(plan)
        tree = editor.finish()
        self.done.turned |= editor.turned
        if tree.id == self.done.tree.id:
            self._repo.nodes.attach(None)
            self._work.state.promote()
        else:
            self.done.snapshot = self._repo.publish(writer, tree, self.done.basis, self._work.state.promote)
            self.done.tree = tree

    def _take(self, editor: TreeEditor, plan: DirectoryPlan, edit: Edit, captured: Outcome, dot: Dot) -> None:
        """Put what was read into the tree and into the directory's rows."""
        upload = self._uploads.pop(_text(plan, edit), None)
        if isinstance(captured, Failure):
            self.done.failures.append(captured)
            if edit.row is not None:
                plan.rows[edit.row.name] = edit.row
            return
        if edit.winner is not None:
            self._losers.setdefault((*plan.path, edit.entry_name), (set(), edit.winner))[0].add(dot)
        version, row = self._outcome(edit, captured, dot)
        editor.edit((*plan.path, edit.entry_name), edit.supersede, version)
        if row is not None:
            plan.rows[row.name] = row
        if upload is None:
            self._work.progress.advance(0, "deleting", _text(plan, edit))
        else:
            upload.finish()

    def _read(self, capture: Capture, writer: PackWriter, item: Item) -> Outcome:
        """What a file holds; None for a deletion."""
        plan, edit, _ = item
        if edit.disk is None:
            return None
        text = _text(plan, edit)
        upload = self._uploads.setdefault(text, Upload(self._work.progress, text, edit.disk.size))
        relative = f"{plan.disk_path}/{edit.name}" if plan.disk_path else edit.name
        if edit.disk.kind == Kind.DIRECTORY:
            return Captured(Value(Kind.DIRECTORY, None, edit.disk.mode), None, edit.disk)
        if edit.disk.size > SMALL_FILE_BYTES:
            self._work.progress.advance(0, "uploading", text)  # it may take long before the first pack has arrived
        try:
            with writer.telling(upload):
                return capture.read(self._work.disk(relative), edit.name, edit.disk.kind)
        except LocalError as error:
            if capture.sink_failure is not None:
                raise  # not this file's failure: what others stored may be lost with it
            return Failure(text, error.message)

    def _outcome(self, edit: Edit, captured: Captured | None, dot: Dot) -> tuple[Version | None, Row | None]:
        """The version that an edit adds, and the row that shows it."""
        if captured is None:
            self.done.deleted += edit.row is not None and edit.row.kind != Kind.DIRECTORY
            return (rewritten(edit.kept, dot.device, dot.seq) if edit.kept is not None else None), None
        disk = captured.disk
        value = kept_mode(captured.value, disk, edit.row)
        directory = value.kind == Kind.DIRECTORY
        size = 0 if directory else len(value.content) if isinstance(value.content, bytes) else disk.size
        mtime = 0 if directory else disk.mtime_ns
        version = Version(dot, value.kind, size, mtime, value.mode, value.content, captured.digest)
        stat = self._work.trusted_stat(disk)
        row = Row(edit.name, edit.entry_name, value.kind, (dot,), value.content, value.mode, size, mtime, stat)
        if not directory:
            self.done.uploaded += 1
            self._bytes += size
        return version, row

    def _next_dot(self) -> Dot:
        own = self._repo.ledger.device()
        if own is None:
            raise LocalError("This state has no device identity.")
        return Dot(own[0], self._repo.ledger.own_seq() + 1)

    def _stage(self, plan: DirectoryPlan) -> None:
        """The rows that hold once the commit is acknowledged; where the tree changes too, the fingerprint waits until
        it is applied.
        """
        path = b"/".join(plan.path)
        rows, plan.rows = list(plan.rows.values()), {}
        scanned = plan.scanned
        if not plan.show and not (scanned is not None and scanned.leftovers):
            plan.scanned = None
        if not rows and plan.path:
            self._work.state.drop_directory(path)
            return
        settled = scanned is not None and not plan.show and not any(row.hidden for row in rows)
        self._work.state.stage(path, rows, scanned.fingerprint(rows) if scanned is not None and settled else None)

    def _stage_partly(self, plan: DirectoryPlan) -> None:
        """The rows of a directory of whose edits this commit has a part: the others keep the rows that they had."""
        waiting = {edit.row.name: edit.row for edit in plan.edits if edit.row is not None}
        self._work.state.stage(b"/".join(plan.path), {**waiting, **plan.rows}.values(), None)

    # ---- conflicts that the policy decides against the local edit

    def _settle(self) -> None:
        """A second commit re-writes the winners under a new dot; the losing edits are in the first one, so in the
        history.
        """
        writer = self._repo.writer()
        editor = TreeEditor(self._repo.nodes, self.done.tree)
        dot = self._next_dot()
        for path, (lost, winner) in sorted(self._losers.items()):
            entry = lookup(self._repo.nodes, self.done.tree.id, path)
            if entry is not None:
                same = dots_of(version for version in entry.versions if version.same_value(winner))
                editor.edit(path, same | lost, rewritten(winner, dot.device, dot.seq))
        tree = editor.finish()
        self.done.snapshot = self._repo.publish(writer, tree, self.done.basis)
        self.done.tree = tree


def _items(plans: list[DirectoryPlan]) -> Iterator[Item]:
    """All edits in order; made one by one, as there may be a million."""
    return ((plan, edit, edit is plan.edits[-1]) for plan in plans for edit in plan.edits)


def _batches(pending: Iterator[Item]) -> Iterator[Batch]:
    """Large files alone, small ones together."""
    batch: Batch = []
    size = 0
    for item in pending:
        length = item[1].disk.size if item[1].disk is not None else 0
        if length > SMALL_FILE_BYTES:
            if batch:
                yield batch
            yield [item]
            batch, size = [], 0
            continue
        batch.append(item)
        size += length
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _text(plan: DirectoryPlan, edit: Edit) -> str:
    return os.fsdecode(b"/".join((*plan.path, edit.entry_name)))
