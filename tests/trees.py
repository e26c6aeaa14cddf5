"""What tests of trees share: nodes in memory, tiny cuts so that few entries make many levels, short ways to make
values.
"""

from __future__ import annotations

from collections.abc import Mapping

from buckia.core.directory import build
from buckia.core.ids import BlobId, BlobType, DeviceId, Dot, blob_id
from buckia.core.manifest import Entry, FileContent, Kind, Subtree, Version
from buckia.core.merkle import Cuts

TINY = Cuts(2, 4, 8)
A, B, C = (DeviceId(letter * 16) for letter in (b"a", b"b", b"c"))


class MemoryNodes:
    """A node store in memory that counts."""

    def __init__(self) -> None:
        self.raw: dict[BlobId, bytes] = {}
        self.reads: list[BlobId] = []
        self.writes: list[BlobId] = []

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        self.reads.append(id)
        return self.raw[id]

    def put(self, kind: BlobType, raw: bytes) -> BlobId:
        id = blob_id(kind, raw)
        self.writes.append(id)
        self.raw[id] = raw
        return id

    def forget_counts(self) -> None:
        self.reads.clear()
        self.writes.clear()


def chunk(number: int) -> BlobId:
    """The id of some chunk."""
    return blob_id(BlobType.CHUNK, b"%d" % number)


def file(device: DeviceId = A, seq: int = 1, value: int = 1, mtime_ns: int = 0, mode: int = 0o644) -> Version:
    """A version of a file whose content and size say ``value``."""
    return Version(Dot(device, seq), Kind.FILE, value, mtime_ns, mode, FileContent(0, chunk(value)))


def symlink(device: DeviceId = A, seq: int = 1, target: bytes = b"t") -> Version:
    """A version of a symlink."""
    return Version(Dot(device, seq), Kind.SYMLINK, len(target), 0, 0, target)


def folder(device: DeviceId = A, seq: int = 1, mode: int = 0o755) -> Version:
    """A version of a directory."""
    return Version(Dot(device, seq), Kind.DIRECTORY, 0, 0, mode, None)


def entry(name: bytes, *versions: Version, subtree: Subtree | None = None) -> Entry:
    """An entry with its versions in order."""
    return Entry(name, tuple(sorted(versions, key=lambda one: (one.dot.device, one.dot.seq))), subtree)


def numbered(count: int, start: int = 0) -> list[Entry]:
    """Entries for files 00000, 00001, ..."""
    return [entry(b"%05d" % number, file(value=number + 1)) for number in range(start, start + count)]


def tree_of(nodes: MemoryNodes, paths: Mapping[tuple[bytes, ...], tuple[Version, ...]], cuts: Cuts = TINY) -> Subtree:
    """The top directory with these versions at these paths; directories in between exist without versions."""
    below: dict[bytes, dict[tuple[bytes, ...], tuple[Version, ...]]] = {}
    for path, versions in paths.items():
        inside = below.setdefault(path[0], {})
        if versions:
            inside[path[1:]] = versions
    entries = []
    for name in sorted(below):
        own = below[name].pop((), ())
        subtree = tree_of(nodes, below[name], cuts) if below[name] else None
        if own or subtree:
            entries.append(entry(name, *own, subtree=subtree))
    return build(nodes, entries, cuts)
