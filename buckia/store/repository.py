"""One folder of one bucket: its format, its journal, its trees and blobs. The only module that composes the key layout.

Writing goes through `Repository.writer` and `Repository.publish`; the order in which objects appear is that of
``specs/ordering.md``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from buckia.core.directory import empty_tree, referenced
from buckia.core.ids import BlobId, BlobType, DeviceId, ObjectId, blob_id, object_id
from buckia.core.manifest import Subtree, decode_directory
from buckia.core.merge import join, merge_trees
from buckia.core.record import (
    DEVICES_MAX,
    FOLDER_BYTES_MAX,
    Ack,
    PackRef,
    Record,
    Snapshot,
    check_folder,
    decode_record,
    encode_folder,
    encode_record,
    folder_key,
    pack_key,
)
from buckia.errors import (
    BuckiaError,
    CancelledError,
    FormatError,
    IntegrityError,
    NotFoundError,
    ObjectNotFound,
    RollbackError,
    UnsupportedFormatError,
    UsageError,
)
from buckia.store.catalog import Catalog
from buckia.store.journal import Journal, Linked, Tips
from buckia.store.ledger import Ledger
from buckia.store.reader import BlobReader
from buckia.store.transfer import Transfer
from buckia.store.writer import PackWriter, pack_refs

log = logging.getLogger(__name__)

SMALL_PACK_BYTES = 1 << 20
SMALL_PACKS_MAX = 64
"""With more small packs than this holding live blobs, the live ones are copied into one."""
_NODE_BATCH = 256
_MISSING_FOLDER_HINT = "`buckia sync DIR --to LOCATION` creates a folder; `buckia snapshots --from LOCATION` shows one."


@dataclass(frozen=True, slots=True)
class State:
    """A state of the folder: its tree, and which dots it knows."""

    tree: Subtree
    knowledge: dict[DeviceId, int]


class Nodes:
    """Tree nodes as one store: what was made in this run, what is known here, and what the bucket holds.

    New nodes go to the writer once one is attached, and stay in memory before.
    """

    def __init__(self, reader: BlobReader, ledger: Ledger) -> None:
        self._reader = reader
        self._ledger = ledger
        self._made: dict[BlobId, tuple[BlobType, bytes]] = {}
        self._fresh: list[tuple[int, BlobId, bytes]] = []
        self._fresh_ids: dict[BlobId, bytes] = {}
        self._writer: PackWriter | None = None
        self._lock = threading.Lock()

    def get(self, kind: BlobType, node: BlobId) -> bytes:
        """The raw bytes of a node. Raises IntegrityError if it cannot be had."""
        made = self._made.get(node)
        if made is not None:
            return made[1]
        fresh = self._fresh_ids.get(node)
        if fresh is not None:
            return fresh
        raw = self._ledger.node(kind, node)
        return raw if raw is not None else self._reader.node(kind, node)

    def put(self, kind: BlobType, raw: bytes) -> BlobId:
        """Keep a new node; its id."""
        if self._writer is None:
            node = blob_id(kind, raw)
            self._made[node] = (kind, raw)
            return node
        node = self._writer.put(kind, raw)
        self._keep(kind, node, raw)
        return node

    def _keep(self, kind: BlobType, node: BlobId, raw: bytes) -> None:
        with self._lock:
            if node not in self._fresh_ids:
                self._fresh.append((kind, node, raw))
                self._fresh_ids[node] = raw
            full = len(self._fresh) >= _NODE_BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Move nodes of this run into the ledger."""
        with self._lock:
            self._ledger.add_nodes(self._fresh)
            self._fresh.clear()
            self._fresh_ids.clear()

    def attach(self, writer: PackWriter | None) -> None:
        """Send new nodes to this writer from now on."""
        self._writer = writer

    def write_made(self, roots: Iterable[BlobId]) -> None:
        """Send the nodes below these that were made before a writer was attached, as far as the bucket has not got
        them.
        """
        if self._writer is None or not self._made:
            return
        pending = [*roots]
        done: set[BlobId] = set()
        while pending:
            node = pending.pop()
            made = self._made.get(node)
            if made is None or node in done:
                continue
            done.add(node)
            kind, raw = made
            self._writer.put(kind, raw)
            self._keep(kind, node, raw)
            decoded = decode_directory(raw)
            pending += (
                [branch.subtree.id for branch in decoded.branches]
                if decoded.level
                else [entry.subtree.id for entry in decoded.entries if entry.subtree is not None]
            )


class Repository:
    """A folder in a bucket, below ``prefix`` where one is given. ``random_bytes`` and ``now_ns`` are the only
    randomness and clock.
    """

    def __init__(
        self,
        transfer: Transfer,
        ledger: Ledger,
        folder: str,
        *,
        prefix: str = "",
        random_bytes: Callable[[int], bytes],
        now_ns: Callable[[], int],
    ) -> None:
        self.folder = folder
        self.transfer = transfer
        self.ledger = ledger
        self.prefix = "".join(f"{part}/" for part in (prefix, folder, "_buckia") if part)
        self._random = random_bytes
        self._now_ns = now_ns
        self.catalog = Catalog(transfer, ledger, self.prefix)
        self.journal = Journal(transfer, ledger, self.prefix, self.catalog.fetch_segments)
        self.reader = BlobReader(transfer, ledger, self.catalog, self.prefix)
        self.nodes = Nodes(self.reader, ledger)
        self._merged: list[BlobId] = []
        """The root of the last merge, if it was one of several snapshots."""

    def open(self, *, create: bool = False) -> None:
        """Check the folder object, until a record of the folder is known, which tells of it; with ``create`` write it
        where there is nothing yet.

        Raises NotFoundError if there is no such folder, IntegrityError if its folder object is gone,
        UnsupportedFormatError for another format.
        """
        known = self.ledger.folder_object()
        if known is not None and self.ledger.tips():
            return
        key = self.prefix + folder_key()
        try:
            data = self._folder_object(key)
        except ObjectNotFound:
            if known is not None:
                raise RollbackError(
                    f"The `folder` object of {self.folder or '(top)'} is gone, but this device has seen it.",
                    hint="Is it the same bucket? If it was emptied on purpose, remove this device's local state.",
                ) from None
            data = self._found_or_made(key, create)
        check_folder(data, self.folder)
        self.ledger.set_folder_object(data)

    def _found_or_made(self, key: str, create: bool) -> bytes:
        """The folder object where a first look found none: another device may be making it at this moment."""
        listed = {info.key for info in self.transfer.list(self.prefix)}
        if key in listed:
            return self._folder_object(key)
        name = self.folder or "(top)"
        if listed:
            raise IntegrityError(f"Folder {name} is damaged: its `folder` object is missing while others exist.")
        if not create:
            where = self.transfer.backend.location
            raise NotFoundError(f"There is no folder {name} in {where}.", hint=_MISSING_FOLDER_HINT)
        data = encode_folder(self.folder)
        self.transfer.put(key, data)
        return data

    def _folder_object(self, key: str) -> bytes:
        data = self.transfer.get_whole(key, FOLDER_BYTES_MAX, encode_folder(self.folder).__eq__)
        if data is None:
            raise FormatError(f"The folder object has more than {FOLDER_BYTES_MAX} bytes; none of buckia's has.")
        return data

    # ---- reading

    def refresh(self, tips: Tips | None = None) -> Tips:
        """Learn what is new in the bucket: one LIST, and the records that are not known. The tips as far as they are
        linked.
        """
        for linked in self.journal.link(self.journal.list_tips() if tips is None else tips):
            self.catalog.add_record(linked)
        return self.ledger.tips()

    def require_visible(self) -> None:
        """Raise IntegrityError where tips name records and not one of them can be had: that is no empty folder."""
        if self.journal.held_back and not self.ledger.tips():
            raise IntegrityError(
                f"The {len(self.journal.held_back)} records that the tips of this folder name are not in the bucket.",
                hint="If the bucket is slow to show new objects, try again later; `buckia verify` tells more.",
            )

    def current(self) -> State:
        """The merge of all heads: what a new device would get."""
        return self.merge(self.journal.heads())

    def merge(self, heads: Sequence[Linked]) -> State:
        """The merge of these snapshots. Its nodes are in memory only, unless it is a snapshot's own tree."""
        if not heads:
            return State(empty_tree(self.nodes), {})
        state = State(snapshot_tree(heads[0].snapshot), heads[0].record.knowledge)
        for head in heads[1:]:
            other = State(snapshot_tree(head.snapshot), head.record.knowledge)
            tree = merge_trees(self.nodes, state.tree, state.knowledge, other.tree, other.knowledge)
            state = State(tree, join(state.knowledge, other.knowledge))
        self._merged = [state.tree.id] if len(heads) > 1 else []
        return state

    def holds(self, blob: BlobId) -> bool:
        """Whether some record says where this blob lies."""
        return blob in self.catalog.index

    # ---- writing

    def identify(self, name: str, tips: Tips) -> None:
        """Be a device: take an identity where this state has none that it may use; ``tips`` are those in the bucket."""
        if self.ledger.device() is None or self.journal.usurped(tips):
            self.become_device(name)

    def become_device(self, name: str) -> DeviceId:
        """Take a new random identity."""
        device = DeviceId(self._random(16))
        self.ledger.set_device(device, name)
        return device

    def join(self, basis: Tips) -> None:
        """Publish a first record, so that collectors know of this device before it relies on a pack."""
        self._require_writable()
        if self.ledger.own_seq() == 0:
            if len(basis) >= DEVICES_MAX:
                raise UsageError(
                    f"This folder has {len(basis)} devices, and no record can name more.",
                    hint="Keep the local state of short-lived devices (BUCKIA_STATE_DIR), or begin a new folder.",
                )
            self._settle(*self._compose(Ack(), basis))

    def settle(self, on_acknowledge: Callable[[], None] | None = None) -> bool:
        """Finish a record that an earlier run may not have delivered. Whether there was one."""
        data = self.ledger.outbox()
        if data is None:
            return False
        self._settle(data, decode_record(data), on_acknowledge)
        return True

    def writer(self) -> PackWriter:
        """Open packs for one commit. Packs that an interrupted run had delivered are used.

        Raises UnsupportedFormatError if another device's records ask for what this version does not know.
        """
        self._require_writable()
        self._adopt_pending()
        writer = self._new_writer()
        self.nodes.attach(writer)
        return writer

    def _new_writer(self) -> PackWriter:
        return PackWriter(self.transfer, self.ledger, self.catalog, self.prefix, self._random)

    def _adopt_pending(self) -> None:
        condemned = self.ledger.condemned()
        for pack, size, rows in self.ledger.pending_packs():
            try:
                present = self.transfer.stat(self.prefix + pack_key(pack)).size == size
            except ObjectNotFound:
                present = False
            if present and pack not in condemned:
                self.catalog.add_pack(pack, size, rows)
            else:
                self.ledger.forget_packs([pack])

    def publish(
        self, writer: PackWriter, tree: Subtree, basis: Tips, on_acknowledge: Callable[[], None] | None = None
    ) -> Linked:
        """Commit a tree: its packs, the record, the tip; then check that no collector has condemned what it relies on.

        ``basis`` names the records that the tree includes. ``on_acknowledge`` runs in the transaction in which local
        memory advances.
        """
        # A tree that builds on a merge has nodes of it that no one has written yet, below nodes that were written just
        # now.
        self.nodes.write_made((*self._merged, tree.id))
        if self.catalog.is_due(more=1):
            self._consolidate(writer, tree)
        packs = self._finish(writer)
        body = Snapshot(tree.id, tree.content_hash, tree.files, tree.bytes, packs)
        linked = self._settle(*self._compose(body, basis), on_acknowledge)
        self.nodes.attach(None)
        self._maintain(force=any(ref.rows is None for ref in packs))
        return linked

    def _maintain(self, *, force: bool) -> None:
        """Write a segment where one is due. What is published stands without it, so failing is no failure."""
        try:
            self.catalog.maintain(force=force)
        except CancelledError:
            raise
        except BuckiaError as error:
            log.warning("No segment was written: %s", error.message)

    def _require_writable(self) -> None:
        reason = self.journal.read_only_reason()
        if reason is not None:
            raise UnsupportedFormatError(
                f"This folder is read-only here: another device uses “{reason}”, which this version does not know.",
                hint="Install a newer buckia.",
            )

    def _finish(self, writer: PackWriter, known: Iterable[ObjectId] = ()) -> tuple[PackRef, ...]:
        """Deliver the open packs; all packs in the log belong to this commit, but those that are ``known``."""
        writer.finish()
        self.nodes.flush()
        before = set(known)
        return pack_refs(pending for pending in self.ledger.pending_packs() if pending[0] not in before)

    def _compose(self, body: Snapshot | Ack, basis: Tips) -> tuple[bytes, Record]:
        """A finished record, durable here before anything of it is sent."""
        own = self.ledger.device()
        if own is None:
            raise IntegrityError("This state has no device identity.")
        device, name = own
        before = self.ledger.tips().get(device)
        if self.ledger.outbox() is not None:
            raise IntegrityError("A finished record of this device waits to be delivered.")
        record = Record(
            device=device,
            seq=1 if before is None else before[0] + 1,
            prev=None if before is None else before[1],
            features=(),
            vector=tuple((other, *basis[other]) for other in sorted(basis) if other != device),
            time_ns=self._now_ns(),
            name=name,
            body=body,
        )
        self.journal.require_sound(record)
        data = encode_record(record)
        self.ledger.set_outbox(data)
        return data, record

    def _settle(
        self,
        data: bytes,
        record: Record,
        on_acknowledge: Callable[[], None] | None = None,
        given_up: Collection[BlobId] = (),
    ) -> Linked:
        """Send a finished record, rescue what was condemned meanwhile, and acknowledge it. What is ``given_up`` could
        not be read: it is lost with or without this record.
        """
        self.journal.publish(data, record)
        self.refresh()
        doomed = self.journal.condemned_beyond(record.knowledge)
        if doomed and isinstance(record.body, Snapshot):
            linked = Linked(object_id(data), record, data)
            if self._lost_with(doomed, linked).keys() - given_up:
                return self._rescue(linked, doomed, on_acknowledge)
        return self._acknowledge(data, record, on_acknowledge)

    def _acknowledge(self, data: bytes, record: Record, on_acknowledge: Callable[[], None] | None) -> Linked:
        with self.ledger.transaction():
            linked = self.journal.acknowledge(data, record)
            if isinstance(record.body, Snapshot):
                mine = {ref.id: ref for ref in record.body.packs}
                pending = self.ledger.pending_packs()
                self.catalog.remember_footers(
                    (pack, rows) for pack, _, rows in pending if pack in mine and mine[pack].rows is None
                )
                self.catalog.add_record(linked)
                self.ledger.forget_packs(mine)
            if on_acknowledge is not None:
                on_acknowledge()
        return linked

    def _lost_with(self, doomed: set[ObjectId], linked: Linked) -> dict[BlobId, BlobType]:
        """What a snapshot needs and what lies in these packs only.

        The whole tree is searched: what did not change is needed as well, and what is new may have looked like
        garbage until a record named it.
        """
        index = self.catalog.index
        self.catalog.add_record(linked)
        found: dict[BlobId, BlobType] = {}
        for kind, blob in referenced(self.nodes, snapshot_tree(linked.snapshot).id, set(), skip=_pass_over):
            places = index.locations(blob)
            if places and all(location.pack in doomed for location in places):
                found[blob] = kind
        return found

    def _rescue(self, linked: Linked, doomed: set[ObjectId], on_acknowledge: Callable[[], None] | None) -> Linked:
        """Copy what is in danger into new packs and publish an addendum; only that one is acknowledged to the caller.

        The record stays in the outbox until the addendum takes its place there: one that is cut off begins again.
        """
        body = linked.snapshot
        self._adopt_pending()
        endangered = self._lost_with(doomed, linked)
        writer = self._new_writer()
        given_up = endangered.keys() - self._copy(writer, endangered)
        packs = self._finish(writer, known=(ref.id for ref in body.packs))
        basis = {device: (seq, name) for device, seq, name in linked.record.vector}
        with self.ledger.transaction():
            self._acknowledge(linked.data, linked.record, None)
            addendum = Snapshot(body.state_root, body.content_root, body.files, body.bytes, packs)
            composed = self._compose(addendum, basis)
        return self._settle(*composed, on_acknowledge, given_up)

    def _consolidate(self, writer: PackWriter, tree: Subtree) -> None:
        """Copy the live blobs of many small packs into the packs of this commit; forget the nodes of old states."""
        index = self.catalog.index
        nodes: set[BlobId] = set(writer.lists)
        small: dict[ObjectId, list[tuple[BlobType, BlobId]]] = {}
        # What is below a new list of chunks stays where it is until another time.
        damaged: list[BuckiaError] = []
        for kind, blob in referenced(self.nodes, tree.id, set(writer.lists), skip=damaged.append):
            if kind != BlobType.CHUNK:
                nodes.add(blob)
            location = index.get(blob)
            if location is not None and self.catalog.pack_size(location.pack) < SMALL_PACK_BYTES:
                small.setdefault(location.pack, []).append((kind, blob))
        for error in damaged:
            _pass_over(error)
        if not damaged:
            self.ledger.keep_nodes(nodes)
        if len(small) <= SMALL_PACKS_MAX:
            return
        self._copy(writer, {blob: kind for blobs in small.values() for kind, blob in blobs})

    def _copy(self, writer: PackWriter, kinds: Mapping[BlobId, BlobType]) -> set[BlobId]:
        """Store blobs once more; which. What cannot be read any longer is passed over."""
        copied: set[BlobId] = set()
        for wanted in self.reader.plan(kinds):
            blobs = self.reader.salvage(wanted)
            writer.copy((kinds[blob], blob, raw) for blob, raw in blobs)
            copied.update(blob for blob, _ in blobs)
        if len(copied) < len(kinds):
            log.warning("%d blobs cannot be read any longer; `buckia verify` tells more.", len(kinds) - len(copied))
        return copied


def _pass_over(error: BuckiaError) -> None:
    log.warning("%s It is passed over; `buckia verify` tells more.", error.message)


def snapshot_tree(snapshot: Snapshot) -> Subtree:
    """The tree that a snapshot records."""
    return Subtree(BlobId(snapshot.state_root), snapshot.content_root, snapshot.files, snapshot.bytes)
