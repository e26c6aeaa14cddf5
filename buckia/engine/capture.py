"""Reading files: one pass that cuts, hashes, stores and digests, and that notices when the file changed under it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from blake3 import blake3

from buckia.core.chunker import CHUNK_MIN, Kernel, chunk_ends, page_size
from buckia.core.content import ChunkListBuilder
from buckia.core.ids import BlobId, BlobType, Buffer, blob_id
from buckia.core.manifest import Digest, FileContent, Kind
from buckia.core.merkle import NodeStore
from buckia.engine.compare import Value
from buckia.errors import LocalError
from buckia.local.fs import DiskEntry, FileSystem

BUFFER_BYTES = 2 << 20
ATTEMPTS = 3
DIGESTS: dict[str, int] = {"sha256": 1, "md5": 2, "sha1": 3, "blake3": 4}
"""Digest algorithms by the number that stands for them in a version."""


class NodeSink(NodeStore, Protocol):
    """Where blobs of all kinds go: a pack writer, or nowhere."""

    failure: BaseException | None
    """Why nothing more is taken."""

    def put(self, kind: BlobType, raw: Buffer) -> BlobId:
        """Take a blob; its id."""


class IdsOnly:
    """A node store that computes ids and keeps nothing."""

    failure: BaseException | None = None

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        """Nothing can be had from here."""
        raise KeyError(id)

    def put(self, kind: BlobType, raw: Buffer) -> BlobId:
        """The id that a blob would have."""
        return blob_id(kind, raw)


@dataclass(frozen=True, slots=True)
class Captured:
    """What was read: the value, the bytes' digest, and the stat that it belongs to."""

    value: Value
    digest: Digest | None
    disk: DiskEntry


class ChangedWhileRead(LocalError):
    """A file changed while it was read, again and again."""


class Capture:
    """Reads files into a sink. One per sync; used by several threads."""

    def __init__(self, files: FileSystem, sink: NodeSink, kernel: Kernel, digest: str | None) -> None:
        self._files = files
        self._sink = sink
        self._kernel = kernel
        self._digest = digest
        self._local = threading.local()

    @property
    def sink_failure(self) -> BaseException | None:
        """Why the sink takes nothing more."""
        return self._sink.failure

    def read(self, path: str, name: str, kind: int | None = None) -> Captured:
        """The content of what is at an absolute path; ``kind`` saves a look where it is known to be a file.

        Raises LocalError if it cannot be read or vanished, ChangedWhileRead if it did not hold still in three attempts.
        """
        for _ in range(ATTEMPTS):
            captured = self._file(path, name) if kind == Kind.FILE else self._attempt(path, name)
            if captured is not None:
                return captured
        raise ChangedWhileRead(f"“{name}” changed while it was read.", hint="It is taken with the next sync.")

    def _attempt(self, path: str, name: str) -> Captured | None:
        before = self._files.stat(path)
        if before is None:
            raise LocalError(f"“{name}” vanished while it was read.")
        if before.kind == Kind.SYMLINK:
            target = self._files.readlink(path)
            return Captured(Value(Kind.SYMLINK, target, 0), None, before)
        if before.kind == Kind.DIRECTORY:
            return Captured(Value(Kind.DIRECTORY, None, before.mode), None, before)
        return self._file(path, name)

    def _file(self, path: str, name: str) -> Captured | None:
        with self._files.open_read(path) as handle:
            start = handle.stat()
            if start.kind != Kind.FILE:
                raise LocalError(f"“{name}” is no longer a file.")
            content, digest, size = self._content(handle)
            end = handle.stat()
        if start != end or size != start.size:
            return None
        return Captured(Value(Kind.FILE, content, start.mode), digest, start._replace(name=name))

    def _content(self, handle: Any) -> tuple[FileContent, Digest | None, int]:
        """Content, digest and size of what a handle yields until its end."""
        view: memoryview | None = getattr(self._local, "buffer", None)
        if view is None:
            view = self._local.buffer = memoryview(bytearray(BUFFER_BYTES))
        digest = _hasher(self._digest)
        builder: ChunkListBuilder | None = None
        pages: int | None = None
        fill = size = 0
        while True:
            got = handle.readinto(view[fill:])
            if got:
                if digest is not None:
                    digest.update(view[fill : fill + got])
                fill += got
                size += got
                if fill < len(view):
                    continue
            if builder is None:
                if size <= CHUNK_MIN and not got and (pages := page_size(view[:fill])) is None:
                    return FileContent(0, self._one_chunk(view[:fill])), self._finish(digest), size
                pages = page_size(view[: min(fill, 100)])
                builder = ChunkListBuilder(self._sink)
            done = 0
            for end in chunk_ends(view[:fill], kernel=self._kernel, page_size=pages, final=not got):
                builder.add(self._sink.put(BlobType.CHUNK, view[done:end]), end - done)
                done = end
            if not got:
                return builder.finish(), self._finish(digest), size
            view[: fill - done] = bytes(view[done:fill])
            fill -= done

    def _one_chunk(self, raw: memoryview) -> BlobId:
        return self._sink.put(BlobType.CHUNK, raw) if len(raw) else EMPTY_CHUNK

    def _finish(self, digest: Any) -> Digest | None:
        return None if digest is None or self._digest is None else Digest(DIGESTS[self._digest], digest.digest())


EMPTY_CHUNK = blob_id(BlobType.CHUNK, b"")
"""The id of the empty file's content, which is never stored."""


def _hasher(algorithm: str | None) -> Any:
    if algorithm is None:
        return None
    return blake3() if algorithm == "blake3" else hashlib.new(algorithm)
