"""Files on the way in: their chunks from what is on disk already or from packs, checked, into staged files.

Files of one chunk are staged in the order of the packs that hold them, so that each range of a pack is read once;
larger ones are written chunk by chunk in their own order. At no time are more than a few ranges in memory, whatever a
file says of its chunks: they may be tiny, or repeat without end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat

from buckia.core.content import runs
from buckia.core.ids import BlobId, BlobType, blob_id
from buckia.core.manifest import FileContent, Kind, Version
from buckia.core.pack import BlobRow
from buckia.engine.work import Executor, in_order
from buckia.errors import BuckiaError, CancelledError, FormatError, IntegrityError, LocalError
from buckia.local.fs import DiskFullError
from buckia.local.writer import Staged, Writer
from buckia.store.reader import WINDOW_BYTES, Range, had, ranges
from buckia.store.repository import Repository

SMALL_RANGE_BYTES = 4 << 20
"""Raw bytes of small files that are read together."""
AHEAD_BYTES = 16 << 20
"""Bytes of windows and ranges that are worked on at a time; the transfer reads that much less ahead."""
SIDE_BY_SIDE_BYTES = 32 << 20
"""Files of several chunks up to this size are written side by side, larger ones one after the other."""
BATCH_FILES = 20_000
"""So many files of one chunk are looked up and grouped by pack at a time."""
WINDOW_RUNS = 8192
"""Chunks of a file that are gathered at a time, however small they are: `WINDOW_BYTES` in chunks of 512 bytes."""
PIECE_BYTES = 1 << 20
"""A chunk that repeats is written in pieces of about this size."""
RESERVE_BYTES = 16 << 20
"""What a large file must leave free on the disk, for what the file system keeps of it and for everybody else."""


PLACE_FILES = 512
PLACE_BYTES = 64 << 20
"""Staged files are flushed and put in place when there are so many, or of so many bytes: what is in place by then, a
run that is cut off has not fetched in vain.
"""


def room_for(sizes: Sequence[int]) -> int:
    """Bytes that must be free before files of these sizes are staged: with a large one among them, the reserve too."""
    return sum(sizes) + (RESERVE_BYTES if max(sizes, default=0) > WINDOW_BYTES else 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file or symlink to stage in ``directory`` (which exists); ``path`` is where it belongs."""

    directory: str
    path: str
    version: Version


@dataclass(frozen=True, slots=True)
class Fetched:
    """A staged file, or why there is none."""

    wanted: Wanted
    staged: Staged | None
    reason: str = ""


def in_batches(staged: Iterable[Fetched]) -> Iterator[list[Fetched]]:
    """What was staged, in groups that are put in place together."""
    batch: list[Fetched] = []
    size = 0
    for fetched in staged:
        batch.append(fetched)
        size += fetched.wanted.version.size
        if len(batch) >= PLACE_FILES or size >= PLACE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(slots=True)
class LocalSources:
    """Where wanted contents may be on disk: by content, and chunk by chunk for files that are being replaced."""

    contents: dict[BlobId, str] = field(default_factory=dict)
    """Content id to a file's path relative to the root."""
    moved: dict[str, str] = field(default_factory=dict)
    """Paths that are in the trash meanwhile."""
    previous: dict[str, tuple[FileContent, int]] = field(default_factory=dict)
    """Path to the content and size of what lies there now."""

    def path_of(self, path: str) -> str:
        """Where a file is by now."""
        return self.moved.get(path, path)


Runs = list[tuple[BlobId, int, int]]
"""Chunks of a file in order: id, length, repeat."""

Pieces = list[tuple[bytes, int]]
"""Chunks of a file in order, and how often each repeats."""


class Fetcher:
    """Stages files below one root. ``report`` is told the bytes that were written of each, a window at a time, and its
    path.
    """

    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        executor: Executor,
        sources: LocalSources,
        report: Callable[[int, str], None],
    ) -> None:
        self._repo = repository
        self._writer = writer
        self._executor = executor
        self._sources = sources
        self._report = report
        self._ahead = executor.width + 1
        self.bytes_reused = 0

    def stage(self, wanted: Iterable[Wanted]) -> Generator[Fetched, None, None]:
        """Stage everything, in no particular order. Raises DiskFullError and errors of the bucket; what concerns one
        file is in its result.
        """
        with self._repo.transfer.reserving(AHEAD_BYTES):
            yield from self._stage(wanted)

    def _stage(self, wanted: Iterable[Wanted]) -> Iterator[Fetched]:
        single: list[Wanted] = []
        medium: list[Wanted] = []
        for item in wanted:
            content, size = item.version.content, item.version.size
            if isinstance(content, FileContent) and content.depth and 0 < size <= SIDE_BY_SIDE_BYTES:
                medium.append(item)
            elif isinstance(content, FileContent) and not content.depth and 0 < size <= WINDOW_BYTES:
                single.append(item)
            else:
                yield self._stage_other(item)
            if len(single) + len(medium) >= BATCH_FILES:
                yield from self._stage_single(single)
                yield from self._stage_medium(medium)
                single, medium = [], []
        yield from self._stage_single(single)
        yield from self._stage_medium(medium)

    # ---- files of one chunk

    def _stage_single(self, items: list[Wanted]) -> Iterator[Fetched]:
        by_chunk: dict[BlobId, list[Wanted]] = defaultdict(list)
        for item in items:
            by_chunk[_content(item.version).id].append(item)
        local = [blob for blob in by_chunk if blob in self._sources.contents]
        for blob, raw in zip(local, map(self._local_file, local), strict=True):
            if raw is not None:
                self.bytes_reused += len(raw)
                for item in by_chunk.pop(blob):
                    yield self._write(item, raw)

        for blob in [blob for blob in by_chunk if not self._repo.holds(blob)]:
            for item in by_chunk.pop(blob):
                yield Fetched(item, None, f"no pack that a record names holds its chunk {blob.hex()[:12]}")

        # Reading and opening is for the workers; so many small files are written faster by one thread than by several.
        read = self._repo.reader.read_ahead(self._ranges(by_chunk, SMALL_RANGE_BYTES))
        for blobs in in_order(self._executor, self._open, read, self._ahead, cost=_opened_bytes, budget=AHEAD_BYTES):
            for blob, found in blobs:
                for item in by_chunk[blob]:
                    yield Fetched(item, None, found) if isinstance(found, str) else self._write(item, found)

    def _ranges(self, blobs: Iterable[BlobId], limit: int) -> Iterator[Range]:
        """The reads that bring these blobs, cut so that those of one have at most ``limit`` bytes, or are one blob."""
        for piece in self._repo.reader.plan(blobs):
            rows: list[BlobRow] = []
            size = 0
            for row in piece.rows:
                if rows and size + row.raw_length > limit:
                    yield from ranges(piece.pack, rows)
                    rows, size = [], 0
                rows.append(row)
                size += row.raw_length
            yield from ranges(piece.pack, rows)

    def _local_file(self, blob: BlobId) -> bytes | None:
        """The bytes of a file that should have this content, if it still has."""
        path = self._sources.path_of(self._sources.contents[blob])
        try:
            raw = self._writer.read_range(path, 0, 1 << 24)
        except LocalError:
            return None
        return raw if blob_id(BlobType.CHUNK, raw) == blob else None

    def _open(self, read: tuple[Range, memoryview]) -> list[tuple[BlobId, bytes | str]]:
        """The blobs of a range that was read; of those that cannot be had, the reason."""
        return [(blob, raw if isinstance(raw, bytes) else raw.message) for blob, raw in self._repo.reader.open(*read)]

    def _write(self, item: Wanted, raw: bytes) -> Fetched:
        if len(raw) != item.version.size:
            return Fetched(item, None, "its size is not what the snapshot says")
        return self._staged(item, lambda: [raw])

    # ---- files of a few windows, side by side

    def _stage_medium(self, items: list[Wanted]) -> Iterator[Fetched]:
        def work(prepared: tuple[Wanted, Runs, dict[BlobId, tuple[str, int]], str]) -> Fetched:
            item, found, offsets, reason = prepared

            def source() -> Iterator[bytes]:
                self._require_room(item)
                return (raw for window in _windows(found) for raw in _written_out(self._read(window, offsets)))

            return Fetched(item, None, reason) if reason else self._staged(item, source)

        finely_cut: list[Wanted] = []

        def prepared() -> Iterator[tuple[Wanted, Runs, dict[BlobId, tuple[str, int]], str]]:
            for item in items:
                found = self._prepare(item)
                if len(found[1]) > WINDOW_RUNS:
                    finely_cut.append(item)
                else:
                    yield found

        yield from in_order(
            self._executor,
            work,
            prepared(),
            self._ahead,
            cost=lambda found: min(found[0].version.size, WINDOW_BYTES),
            budget=AHEAD_BYTES,
        )
        yield from map(self._stage_other, finely_cut)

    def _prepare(self, item: Wanted) -> tuple[Wanted, Runs, dict[BlobId, tuple[str, int]], str]:
        """The chunks of a file, or one more than are gathered at a time, and where they may be on disk; or why that
        cannot be known.
        """
        content = _content(item.version)
        try:
            return (
                item,
                list(islice(runs(self._repo.nodes, content, item.version.size), WINDOW_RUNS + 1)),
                self._local_offsets(item, content),
                "",
            )
        except (IntegrityError, FormatError) as error:
            return item, [], {}, error.message

    # ---- everything else

    def _stage_other(self, item: Wanted) -> Fetched:
        version = item.version
        if version.kind == Kind.SYMLINK and isinstance(version.content, bytes):
            try:
                return Fetched(
                    item, self._writer.stage_symlink(item.directory, version.content, mtime_ns=version.mtime_ns)
                )
            except DiskFullError:
                raise
            except LocalError as error:
                return Fetched(item, None, error.message)
        if not version.size:
            return self._staged(item, list)
        return self._staged(item, lambda: self._chunks(item))

    def _staged(self, item: Wanted, source: Callable[[], Iterable[bytes]]) -> Fetched:
        version = item.version
        reported = 0

        def parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
            nonlocal reported
            done = 0
            for raw in chunks:
                yield raw
                done += len(raw)
                if reported + WINDOW_BYTES <= done < version.size:
                    self._report(done - reported, item.path)
                    reported = done

        try:
            chunks = parts(source())  # which asks for room before the file is begun
            staged = self._writer.stage_file(item.directory, chunks, mode=version.mode, mtime_ns=version.mtime_ns)
        except (DiskFullError, CancelledError):
            raise
        except (LocalError, IntegrityError, FormatError) as error:
            return Fetched(item, None, error.message)
        self._report(version.size - reported, item.path)
        return Fetched(item, staged)

    def _chunks(self, item: Wanted) -> Iterator[bytes]:
        """The bytes of a file that fits on the disk. Raises LocalError right away if it does not."""
        self._require_room(item)
        return self._gathered(item)

    def _require_room(self, item: Wanted) -> None:
        size = item.version.size
        if size > WINDOW_BYTES and size + RESERVE_BYTES > (free := self._writer.free_bytes(item.directory)):
            raise LocalError(f"It needs {size} bytes, {free} are free, of which {RESERVE_BYTES} are to stay free.")

    def _gathered(self, item: Wanted) -> Iterator[bytes]:
        """A file's chunks in order, a window at a time: within it each pack is read once, whatever the order of the
        chunks.
        """
        content = _content(item.version)
        offsets = self._local_offsets(item, content)

        def read(window: Runs) -> Pieces:
            return self._read(window, offsets)

        windows = _windows(runs(self._repo.nodes, content, item.version.size))
        for pieces in in_order(self._executor, read, windows, self._ahead, cost=_window_bytes, budget=AHEAD_BYTES):
            yield from _written_out(pieces)

    def _local_offsets(self, item: Wanted, content: FileContent) -> dict[BlobId, tuple[str, int]]:
        """Which chunks lie where on disk: in a file of the same content, or in the version that this one replaces."""
        twin = self._sources.contents.get(content.id)
        if twin is not None:
            return self._offsets(twin, content, item.version.size)
        before = self._sources.previous.get(item.path)
        return {} if before is None else self._offsets(item.path, *before)

    def _offsets(self, path: str, content: FileContent, size: int) -> dict[BlobId, tuple[str, int]]:
        found: dict[BlobId, tuple[str, int]] = {}
        offset = 0
        for blob, length, count in runs(self._repo.nodes, content, size):
            found.setdefault(blob, (path, offset))
            offset += length * count
        return found

    def _read(self, window: Runs, offsets: dict[BlobId, tuple[str, int]]) -> Pieces:
        """The bytes of a window's chunks: from disk where they are, the others from their packs.

        Raises IntegrityError for a chunk of another length than its file says, as soon as it was read.
        """
        lengths: dict[BlobId, int] = {}
        blobs: dict[BlobId, bytes] = {}
        for blob, length, _ in window:
            if lengths.setdefault(blob, length) != length:
                raise _another_length(blob)
            if blob in offsets and blob not in blobs:
                raw = self._local_chunk(blob, length, *offsets[blob])
                if raw is not None:
                    blobs[blob] = raw
        missing = [blob for blob in lengths if blob not in blobs]
        for piece, data in self._repo.reader.read_ahead(self._ranges(missing, 2 * WINDOW_BYTES)):
            for blob, found in self._repo.reader.open(piece, data):
                raw = had(found)
                if len(raw) != lengths[blob]:
                    raise _another_length(blob)
                blobs[blob] = raw
        return [(blobs[blob], count) for blob, _, count in window]

    def _local_chunk(self, blob: BlobId, length: int, path: str, offset: int) -> bytes | None:
        """A chunk that should lie in a file on disk, if it still does."""
        try:
            raw = self._writer.read_range(self._sources.path_of(path), offset, length)
        except LocalError:
            return None
        if len(raw) != length or blob_id(BlobType.CHUNK, raw) != blob:
            return None
        self.bytes_reused += length
        return raw


def _windows(found: Iterable[tuple[BlobId, int, int]]) -> Iterator[Runs]:
    """A file's chunks, as many at a time as are gathered."""
    window: Runs = []
    size = 0
    for run in found:
        window.append(run)
        size += run[1]
        if size >= WINDOW_BYTES or len(window) == WINDOW_RUNS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _window_bytes(window: Runs) -> int:
    return sum(length for _, length, _ in window)


def _opened_bytes(read: tuple[Range, memoryview]) -> int:
    piece, data = read
    return len(data) + sum(row.raw_length for row in piece.rows)


def _written_out(pieces: Pieces) -> Iterator[bytes]:
    """The bytes of a file, with as much of a chunk that repeats at a time as is in a piece."""
    for raw, count in pieces:
        several = min(max(PIECE_BYTES // len(raw), 1), count)
        yield from repeat(raw * several, count // several)
        if count % several:
            yield raw * (count % several)


def _another_length(blob: BlobId) -> IntegrityError:
    return IntegrityError(f"Chunk {blob.hex()[:12]} has another length than its file says.")


def _content(version: Version) -> FileContent:
    if not isinstance(version.content, FileContent):
        raise BuckiaError("Only files have contents.")
    return version.content
