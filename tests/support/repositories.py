"""A folder in a bucket in memory, for tests: commits of whole trees as dictionaries, and many devices."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from buckia.core.chunker import CHUNK_MIN, chunk_ends, kernel, page_size
from buckia.core.content import ChunkListBuilder
from buckia.core.ids import BlobType, Dot, blob_id
from buckia.core.manifest import FileContent, Kind, Subtree, Version
from buckia.engine.editor import TreeEditor
from buckia.engine.history import to_path
from buckia.store.journal import Linked
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository
from buckia.store.transfer import Transfer
from buckia.store.writer import PackWriter
from buckia.sync.base import BaseSync
from buckia.sync.memory import MemorySync

FOLDER = "f"
PREFIX = f"{FOLDER}/_buckia/"


class _Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Nothing here has to wait."""


def open_repository(bucket: BaseSync, *, workers: int = 0, retries: int = 0, create: bool = False) -> Repository:
    """A folder as a new reader sees it: nothing is known yet."""
    transfer = Transfer(
        bucket, workers=workers, retries=retries, clock=_Clock(), random=lambda: 0.0, cancelled=lambda: False
    )
    chance = random.Random(len(getattr(bucket, "objects", ())))
    repository = Repository(
        transfer, MemoryLedger(), FOLDER, random_bytes=chance.randbytes, now_ns=lambda: 1_700_000_000 * 10**9
    )
    repository.open(create=create)
    return repository


class Link(bytes):
    """The target of a symbolic link."""


class Folder:
    """One device's view of a folder, and short ways to write to it."""

    def __init__(self, bucket: MemorySync | None = None, name: str = "device") -> None:
        self.bucket = bucket or MemorySync()
        self.repository = open_repository(self.bucket, create=True)
        self.repository.refresh()
        self.repository.become_device(name)
        self.repository.join(self.repository.ledger.tips())
        self.modes: dict[str, int] = {}
        self.mtimes: dict[str, int] = {}

    @property
    def tree(self) -> Subtree:
        return self.repository.current().tree

    def commit(self, changes: Mapping[str, bytes | Link | None]) -> Linked:
        """Write files and links; a path that ends in a slash is a directory, None removes."""
        repository = self.repository
        tree = self.tree
        writer = repository.writer()
        editor = TreeEditor(repository.nodes, tree)
        for text in sorted(changes, key=to_path):
            path = to_path(text)
            editor.edit(path, self.dots(tree, path), self.version(writer, text, changes[text]))
        return repository.publish(writer, editor.finish(), repository.ledger.tips())

    def dots(self, tree: Subtree, path: tuple[bytes, ...]) -> list[Dot]:
        """What a write to a path supersedes."""
        from buckia.core.directory import lookup

        entry = lookup(self.repository.nodes, tree.id, path)
        return [version.dot for version in entry.versions] if entry is not None else []

    def dot(self) -> Dot:
        """That of the next record."""
        device = self.repository.ledger.device()
        assert device is not None
        return Dot(device[0], self.repository.ledger.own_seq() + 1)

    def version(self, writer: PackWriter, text: str, data: bytes | Link | None) -> Version | None:
        """What a value becomes in the tree."""
        if data is None:
            return None
        mtime = self.mtimes.get(text, 1_600_000_000_123_456_789)
        if text.endswith("/"):
            return Version(self.dot(), Kind.DIRECTORY, 0, 0, self.modes.get(text, 0o755), None)
        if isinstance(data, Link):
            return Version(self.dot(), Kind.SYMLINK, len(data), mtime, 0, bytes(data))
        content = store(writer, data)
        return Version(self.dot(), Kind.FILE, len(data), mtime, self.modes.get(text, 0o644), content)


def store(writer: PackWriter, data: bytes) -> FileContent:
    """Cut and store a file's bytes."""
    if len(data) <= CHUNK_MIN:
        return FileContent(0, writer.put(BlobType.CHUNK, data) if data else blob_id(BlobType.CHUNK, b""))
    builder = ChunkListBuilder(writer)
    start = 0
    for end in chunk_ends(data, kernel=kernel(None), page_size=page_size(data[:100]), final=True):
        builder.add(writer.put(BlobType.CHUNK, data[start:end]), end - start)
        start = end
    return builder.finish()


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)
