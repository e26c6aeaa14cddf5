"""A manifest of a million files, streamed into a tree and merged with another device's head.

The files exist only as a generator, the nodes go to a file: what stays in memory is what the code under test keeps.
By itself: ``python -m tests.bench.manifest``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from buckia.core.directory import build, entries, update
from buckia.core.ids import BlobId, BlobType, DeviceId, Dot, blob_id
from buckia.core.manifest import Digest, Entry, FileContent, Kind, Subtree, Version
from buckia.core.merge import merge_trees
from tests.bench.corpus import PAST_NS, stream

FIRST, SECOND = DeviceId(b"first device    "), DeviceId(b"second device   ")
FILES_PER_DIRECTORY = 100
DIRECTORIES_PER_PARENT = 100
SHA_256 = 1


class FileNodes:
    """Tree nodes in a file, found by id."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[BlobId, tuple[int, int]] = {}
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def put(self, kind: BlobType, raw: bytes) -> BlobId:
        """Keep a node and return its id."""
        node = blob_id(kind, raw)
        if node not in self._places:
            self._places[node] = (self._end, len(raw))
            self._file.write(raw)
            self._end += len(raw)
        return node

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        """The bytes of a node."""
        offset, length = self._places[id]
        self._file.flush()
        return os.pread(self._file.fileno(), length, offset)


def name_of(directory: int) -> bytes:
    """The name of the directory with this number."""
    return b"d%06d" % directory


def file_entry(directory: int, number: int, dot: Dot) -> Entry:
    """One file's entry as a scan would give it; its content depends on directory, number and dot."""
    seed = stream(f"entry {directory} {number} {dot.device.hex()} {dot.seq}", 64)
    version = Version(
        dot=dot,
        kind=Kind.FILE,
        size=1000 + number,
        mtime_ns=PAST_NS + number,
        mode=0o644,
        content=FileContent(0, BlobId(seed[:32])),
        digest=Digest(SHA_256, seed[32:]),
    )
    return Entry(f"file-{number:04}.json".encode(), (version,), None)


def directory_entry(name: bytes, subtree: Subtree) -> Entry:
    """The entry of a directory that holds ``subtree``."""
    version = Version(Dot(FIRST, 1), Kind.DIRECTORY, 0, 0, 0o755, None, None)
    return Entry(name, (version,), subtree)


def first_tree(nodes: FileNodes, files: int) -> Subtree:
    """What the first device published: a hundred files in a directory, a hundred directories in each upper one."""
    directories = -(-files // FILES_PER_DIRECTORY)
    return build(nodes, (_upper(nodes, files, upper) for upper in range(0, directories, DIRECTORIES_PER_PARENT)))


def _upper(nodes: FileNodes, files: int, start: int) -> Entry:
    last = min(start + DIRECTORIES_PER_PARENT, -(-files // FILES_PER_DIRECTORY))
    return directory_entry(
        name_of(start), build(nodes, (_directory(nodes, files, number) for number in range(start, last)))
    )


def _directory(nodes: FileNodes, files: int, number: int) -> Entry:
    count = min(FILES_PER_DIRECTORY, files - number * FILES_PER_DIRECTORY)
    return directory_entry(
        name_of(number), build(nodes, (file_entry(number, file, Dot(FIRST, 1)) for file in range(count)))
    )


def changed_tree(nodes: FileNodes, tree: Subtree, dot: Dot, step: int) -> Subtree:
    """The tree after one file was changed in every ``step``-th directory."""
    uppers = []
    for upper in entries(nodes, tree.id):
        changes = []
        for below in entries(nodes, _below(upper).id):
            number = int(below.name[1:])
            if number % step == 0:
                entry = file_entry(number, 0, dot)
                changes.append(_with(below, update(nodes, _below(below).id, [(entry.name, entry)])))
        uppers.append(_with(upper, update(nodes, _below(upper).id, changes)))
    return update(nodes, tree.id, uppers)


def _below(entry: Entry) -> Subtree:
    if entry.subtree is None:
        raise SystemExit(f"{entry.name!r} is no directory")
    return entry.subtree


def _with(entry: Entry, subtree: Subtree) -> tuple[bytes, Entry]:
    return entry.name, Entry(entry.name, entry.versions, subtree)


def run(files: int, workdir: Path) -> dict[str, float | int]:
    """Build, change on two devices, merge; what came out and how much memory it took."""
    took = {}
    with tempfile.TemporaryFile(dir=workdir) as file:
        nodes = FileNodes(file)
        start = time.perf_counter()
        first = first_tree(nodes, files)
        took["build_s"] = time.perf_counter() - start
        ours, theirs = changed_tree(nodes, first, Dot(FIRST, 2), 7), changed_tree(nodes, first, Dot(SECOND, 1), 10)
        start = time.perf_counter()
        merged = merge_trees(nodes, ours, {FIRST: 2}, theirs, {FIRST: 1, SECOND: 1})
        took["merge_s"] = time.perf_counter() - start
    if not first.files == files == merged.files:
        raise SystemExit(f"{files} files became {first.files}, after the merge {merged.files}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"files": files, "nodes": len(nodes), **took, "peak": peak}


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    print(json.dumps(run(asked.files, asked.workdir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
