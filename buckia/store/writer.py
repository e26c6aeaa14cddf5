"""Blobs into packs: what one commit adds.

Any number of threads call `PackWriter.put`; known blobs stop there, new ones are compressed and appended to an open
pack, full packs are logged and handed to the transfer, which makes callers wait while too much is in flight.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from buckia.core.codec import RAW, Compressor
from buckia.core.ids import PUBLIC_ID_KEYS, BlobId, BlobType, Buffer, ObjectId, blob_id
from buckia.core.pack import BLOBS_MAX, PackBuilder
from buckia.core.record import INLINE_ROWS_BYTES_MAX, PackRef, pack_key
from buckia.store.catalog import Catalog
from buckia.store.ledger import Ledger
from buckia.store.transfer import Transfer

PACK_BYTES_TARGET = 16 << 20
ONE_PACK_BYTES_MAX = 4 << 20
"""A commit of less than this keeps nodes and chunks in one pack."""
NODE_BYTES_MAX = 8 << 20
"""Nodes wait in memory for the end of the commit up to this size."""
LANES = 2
LANES_FROM_BYTES = 8 << 20
"""From this size of a commit on, threads fill packs of their own."""
_POOL_MAX = 3


class Source(Protocol):
    """Whose chunks these are; it is told in raw bytes what becomes of them."""

    def packed(self, size: int) -> int:
        """New bytes lie in a pack; how many of them are to be told of again as ``sent``."""

    def known(self, size: int) -> None:
        """Bytes need not be stored."""

    def sent(self, size: int) -> None:
        """A pack has arrived that ends with bytes from here; ``size`` is that of all its sources."""


class PackWriter:
    """The open packs of one commit. ``finish`` delivers them."""

    def __init__(
        self, transfer: Transfer, ledger: Ledger, catalog: Catalog, prefix: str, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._transfer = transfer
        self._ledger = ledger
        self._catalog = catalog
        self._prefix = prefix
        self._random = random_bytes
        self._lock = threading.Lock()
        self._local = threading.local()
        self._condemned = ledger.condemned()
        self._new: set[BlobId] = set()
        self._chunks: dict[int, _OpenPack] = {}
        self._threads = 0
        self._nodes: list[_Blob] = []
        self._nodes_bytes = 0
        self._sent = 0
        self._free: list[bytearray] = []
        self.lists: set[BlobId] = set()
        """Lists of chunks that are new: nothing can read them before they are delivered."""
        self.chunk_bytes = 0
        """Raw bytes of chunks that were new."""
        self.failure: BaseException | None = None
        """Why a pack could not be handed over: what lay in it counts as stored nowhere, so nothing more is taken."""

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        """Nothing is read back from here: a writer is a node store for those that only write."""
        raise LookupError(id.hex())

    def put(self, kind: BlobType, raw: Buffer) -> BlobId:
        """Store a blob unless it is known; its id. Thread-safe."""
        self._require_sound()
        source: Source | None = getattr(self._local, "source", None) if kind == BlobType.CHUNK else None
        name = blob_id(kind, raw, PUBLIC_ID_KEYS)
        known = self._known(kind, name, len(raw))
        if not known:
            codec, payload = self._compressor().compress(raw)
            known = not self._append(_Blob(kind, codec, name, len(raw), payload, source))
        if known and source is not None:
            source.known(len(raw))
        return name

    @contextmanager
    def telling(self, source: Source) -> Iterator[None]:
        """Chunks that this thread puts inside are from this source."""
        self._local.source = source
        try:
            yield
        finally:
            self._local.source = None

    def _known(self, kind: BlobType, name: BlobId, raw_length: int) -> bool:
        """Whether a blob need not be stored. A row that no hash covers may be damaged: one that says other things of
        the blob than are true, or what no `Compressor` does, is no copy.
        """
        return name in self._new or any(
            (row.kind, row.raw_length) == (kind, raw_length)
            and (row.codec == RAW) == (row.length == raw_length)
            and pack not in self._condemned
            for pack, row in self._catalog.index.locations(name)
        )

    def _compressor(self) -> Compressor:
        compressor: Compressor | None = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = Compressor()
        return compressor

    def _append(self, blob: _Blob) -> bool:
        """Put a blob into a pack, unless another thread just did."""
        with self._lock:
            self._require_sound()
            if blob.name in self._new:
                return False
            self._new.add(blob.name)
            if blob.kind == BlobType.CHUNK:
                self.chunk_bytes += blob.raw_length
                full = self._add_chunk(blob)
            else:
                full = self._add_node(blob)
        while full is not None:
            # The next pack is opened after this one was taken: whoever waits for the transfer holds one pack, not two.
            self._send(full)
            if blob.kind != BlobType.CHUNK:
                break
            with self._lock:
                full = self._add_chunk(blob)
        return True

    def _add_chunk(self, blob: _Blob) -> _OpenPack | None:
        """Append a chunk to the pack of this thread's lane; if it is full, take it out instead and return it."""
        lane = self._lane()
        pack = self._chunks.get(lane)
        if pack is not None and pack.is_full(len(blob.payload)):
            return self._chunks.pop(lane)
        if pack is None:
            pack = self._chunks[lane] = self._open_pack()
        pack.add(blob)
        return None

    def _add_node(self, blob: _Blob) -> _OpenPack | None:
        """Keep a node for the end of the commit; a pack of nodes if there are very many."""
        if blob.kind == BlobType.CHUNK_LIST:
            self.lists.add(blob.name)
        self._nodes.append(blob)
        self._nodes_bytes += len(blob.payload)
        if self._nodes_bytes > NODE_BYTES_MAX or len(self._nodes) == BLOBS_MAX:
            return self._node_pack()
        return None

    def _lane(self) -> int:
        """Which open pack a thread fills: large commits give each its own, so that a file's chunks lie together and are
        read together.
        """
        if self.chunk_bytes < LANES_FROM_BYTES:
            return 0
        lane: int | None = getattr(self._local, "lane", None)
        if lane is None:
            lane = self._local.lane = self._threads % LANES
            self._threads += 1
        return lane

    def _open_pack(self) -> _OpenPack:
        buffer = self._free.pop() if self._free else bytearray(PACK_BYTES_TARGET + (1 << 20))
        return _OpenPack(PackBuilder(self._random(32), buffer), buffer)

    def _node_pack(self) -> _OpenPack:
        pack = self._open_pack()
        for blob in self._nodes:
            pack.add(blob)
        self._nodes = []
        self._nodes_bytes = 0
        return pack

    def _send(self, pack: _OpenPack) -> None:
        """Log and upload a pack; its memory is used again once it arrived."""
        try:
            self._hand_over(pack)
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _require_sound(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _hand_over(self, pack: _OpenPack) -> None:
        sealed = pack.builder.finish()
        self._ledger.log_pack(sealed.id, len(sealed.data), sealed.rows)

        def arrived() -> None:
            sealed.data.release()
            with self._lock:
                if len(self._free) < _POOL_MAX:
                    self._free.append(pack.buffer)
            if pack.source is not None:
                pack.source.sent(pack.source_bytes)

        self._sent += 1
        self._transfer.submit_put(self._prefix + pack_key(sealed.id), sealed.data, arrived)

    def copy(self, blobs: Iterable[tuple[BlobType, BlobId, bytes]]) -> None:
        """Store blobs although they are known: rescue from a condemned pack, consolidation of small ones."""
        for kind, name, raw in blobs:
            codec, payload = self._compressor().compress(raw)
            self._append(_Blob(kind, codec, name, len(raw), payload))

    def finish(self) -> None:
        """Seal what is open and wait until every pack has arrived and is in the ledger's log of pending packs."""
        with self._lock:
            self._require_sound()
            packs = [self._chunks[lane] for lane in sorted(self._chunks)]
            self._chunks = {}
            if self._nodes:
                if len(packs) == 1 and not self._sent and packs[0].has_room(self._nodes, self._nodes_bytes):
                    for blob in self._nodes:
                        packs[0].add(blob)
                    self._nodes = []
                else:
                    packs.append(self._node_pack())
        for pack in packs:
            self._send(pack)
        self._transfer.drain()
        self._require_sound()
        self._new.clear()
        self._free.clear()


@dataclass(slots=True)
class _Blob:
    """A compressed blob on its way into a pack."""

    kind: BlobType
    codec: int
    name: BlobId
    raw_length: int
    payload: Buffer
    source: Source | None = None


@dataclass(slots=True)
class _OpenPack:
    """A pack that is being filled, and the memory that it lies in."""

    builder: PackBuilder
    buffer: bytearray
    source: Source | None = None
    """The last one of its chunks."""
    source_bytes: int = 0

    def is_full(self, more: int) -> bool:
        """Whether a payload of ``more`` bytes belongs into the next pack."""
        return self.builder.count == BLOBS_MAX or self.builder.size + more > PACK_BYTES_TARGET

    def has_room(self, nodes: list[_Blob], size: int) -> bool:
        """Whether a commit is so small that its nodes lie with its chunks."""
        return self.builder.size + size < ONE_PACK_BYTES_MAX and self.builder.count + len(nodes) <= BLOBS_MAX

    def add(self, blob: _Blob) -> None:
        """Append a blob."""
        self.builder.add(blob.kind, blob.codec, blob.name, blob.raw_length, blob.payload)
        if blob.source is not None:
            self.source = blob.source
            self.source_bytes += blob.source.packed(blob.raw_length)


def pack_refs(packs: Iterable[tuple[ObjectId, int, bytes]]) -> tuple[PackRef, ...]:
    """What a record says of packs: their footers as long as they fit, else only their names."""
    refs: list[PackRef] = []
    room = INLINE_ROWS_BYTES_MAX
    for pack, size, rows in packs:
        inline = len(rows) <= room
        room -= len(rows) if inline else 0
        refs.append(PackRef(pack, size, rows if inline else None))
    return tuple(refs)
