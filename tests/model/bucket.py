"""The bucket as its bytes say, read without a line of the product, from `specs/format.md` alone.

Every tree is walked down to the last chunk when its record is first seen, so a commit that misses a blob is noticed at
once.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import msgpack
import zstandard
from blake3 import blake3

from tests.model.reference import Dot, Tree, Value, Version

_JOURNAL = re.compile("journal/([0-9a-f]{32})/([0-9]{10})-([0-9a-f]{64})")
_ID_KEYS = [blake3(bytes([kind]), derive_key_context="buckia v1 public id").digest() for kind in range(3)]
KINDS = "fld"


@dataclass(frozen=True)
class Record:
    """A record as far as merging needs it; ``knowledge`` includes itself."""

    device: bytes
    seq: int
    kind: str
    knowledge: dict[bytes, int]

    @property
    def dot(self) -> Dot:
        return self.device, self.seq

    @property
    def basis(self) -> dict[bytes, int]:
        """What the state included that this record edits."""
        return {**self.knowledge, self.device: self.seq - 1}


def parse_record(raw: bytes) -> tuple[Record, Any]:
    """A record and its body."""
    device, seq, _, kind, _, vector, _, _, body, _ = msgpack.unpackb(raw[8:])
    return Record(device, seq, kind, {**{other: known for other, known, _ in vector}, device: seq}), body


class BucketView:
    """A folder's records and trees. ``objects`` is the bucket's dictionary; ``refresh`` looks at it anew."""

    def __init__(self, objects: dict[str, bytes], prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix
        self._seen: set[str] = set()
        self._blobs: dict[tuple[int, bytes], bytes] = {}
        self._directories: dict[bytes, Tree] = {}
        self.records: dict[Dot, Record] = {}
        self.trees: dict[Dot, Tree] = {}
        """What the snapshots among the records hold."""

    def refresh(self) -> list[Dot]:
        """Take in what is new; the dots of new records. Fails for a bucket in which something is missing or damaged."""
        fresh: list[tuple[Record, Any]] = []
        for key in [key for key in self._objects if key not in self._seen]:
            self._seen.add(key)
            name, raw = key.removeprefix(self._prefix), self._objects[key]
            if name.startswith("packs/"):
                assert blake3(raw).hexdigest() == name.rpartition("/")[2], f"{key} has other bytes than its name says"
                self._open_pack(raw)
            elif match := _JOURNAL.fullmatch(name):
                assert blake3(raw).hexdigest() == match[3], f"{key} has other bytes than its name says"
                record, body = parse_record(raw)
                assert (record.device.hex(), f"{record.seq:010}") == (match[1], match[2]), key
                assert record.dot not in self.records, f"two records have number {record.seq} of {record.device.hex()}"
                self.records[record.dot] = record
                fresh.append((record, body))
        for record, body in fresh:
            if record.kind == "snapshot":
                self.trees[record.dot] = self._directory(body[0])
        return [record.dot for record, _ in fresh]

    def _open_pack(self, raw: bytes) -> None:
        count = int.from_bytes(raw[-8:-4], "big")
        for kind, codec, _, name, offset, length, size in struct.iter_unpack(">BBH32sIII", raw[-8 - 48 * count : -8]):
            payload = raw[offset : offset + length]
            blob = zstandard.ZstdDecompressor().decompress(payload, size) if codec else payload
            assert blake3(blob, key=_ID_KEYS[kind]).digest() == name, "a blob has other bytes than its id says"
            self._blobs[kind, name] = blob

    def _directory(self, root: bytes) -> Tree:
        """Everything below a directory, by path from there."""
        known = self._directories.get(root)
        if known is not None:
            return known
        found: Tree = {}
        pending = [root]
        while pending:
            _, _, level, devices, items = msgpack.unpackb(self._blobs[1, pending.pop()])
            if level:
                pending += [item[1] for item in items]
                continue
            for name, versions, below in items:
                path = name.decode()
                if versions:
                    found[path] = dict(self._version(version, devices) for version in versions)
                if below:
                    found.update((f"{path}/{inner}", values) for inner, values in self._directory(below[0]).items())
        self._directories[root] = found
        return found

    def _version(self, row: list[Any], devices: list[bytes]) -> tuple[Dot, Version]:
        device, seq, kind, size, mtime_ns, mode, content, _ = row
        data = (self._content(*content) if size else b"") if kind == 0 else content or b""
        assert kind != 0 or len(data) == size, "a file of another size than its version says"
        return (devices[device], seq), Version(Value(KINDS[kind], data, mode), mtime_ns)

    def _content(self, depth: int, name: bytes) -> bytes:
        if depth == 0:
            return self._blobs[0, name]
        items = msgpack.unpackb(self._blobs[2, name])[4]
        return b"".join(self._content(depth - 1, item[0]) * (item[2] if depth == 1 else 1) for item in items)
