"""Restores a snapshot from a bucket: `python specs/reader.py BUCKET_DIR FOLDER TARGET [--snapshot HASH]`.

Written from `format.md` ("section" means one of it) and `limits.md`, to be read beside them. The bucket is a directory
with a file per object; nothing in it is changed. TARGET is made. Of versions in conflict the current one is restored.
What a restore does not rely on is not read or not checked: segments, content hashes, digests, lists of devices.
"""

import argparse
import os
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from blake3 import blake3

ID_KEYS = [blake3(bytes([kind]), derive_key_context="buckia v1 public id").digest() for kind in range(3)]

# Shapes of data: a range, the length of a bin, a type, a constant, (alternatives), [elements] or [..., each element].
ZERO, ONE, TWO, MODE, UP, TIME = range(1), range(1, 2), range(2, 3), range(4096), range(1, 8), range(-1 << 63, 1 << 63)
SIZE, POSITIVE, CHUNK, SEQ = range(1 << 53), range(1, 1 << 53), range(1, (16 << 20) + 1), range(1, 10**10)
KINDS: Any = (("snapshot", [32, 32, SIZE, SIZE, [..., [32, SIZE, (None, bytes)]]]), ("condemn", list), ("ack", []))
RECORD = tuple([16, SEQ, (None, 32), kind, [], [..., [16, SEQ, 32]], TIME, str, body, None] for kind, body in KINDS)
FILE = [SIZE, SEQ, ZERO, SIZE, TIME, MODE, [range(9), 32], (None, [SIZE, bytes])]
SYMLINK = [SIZE, SEQ, ONE, range(1, 4097), TIME, ZERO, bytes, None]
DIRECTORY = [SIZE, SEQ, TWO, ZERO, ZERO, MODE, None, None]
ENTRY = [bytes, [..., (FILE, SYMLINK, DIRECTORY)], (None, [32, 32, SIZE, SIZE])]
NODES = {
    1: ([ONE, ONE, ZERO, [..., 16], [..., ENTRY]], [ONE, ONE, UP, [], [..., [bytes, 32, 32, SIZE, SIZE]]]),
    2: ([ONE, TWO, ZERO, [], [..., [32, CHUNK, POSITIVE]]], [ONE, TWO, UP, [], [..., [32, POSITIVE, POSITIVE]]]),
}
Read = Callable[[int, bytes], bytes]  # (type, id) -> the blob's raw bytes


class FormatError(ValueError):
    """Bytes that the format does not allow, or this reader does not know. Libraries raise ValueError and ZstdError."""


class IntegrityError(Exception):
    """Bytes that are not those that their name or id promises."""


DAMAGE = (IntegrityError, OSError, ValueError, zstandard.ZstdError)


def check(holds: object, message: str, error: type[Exception] = FormatError) -> None:
    """Raises the error unless `holds`."""
    if not holds:
        raise error(message)


def fits(value: Any, shape: Any) -> bool:
    """Whether a value has a shape."""
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, range):
        return type(value) is int and value in shape
    if isinstance(shape, int):
        return type(value) is bytes and len(value) == shape
    if isinstance(shape, list) and isinstance(value, list):
        each = [shape[1]] * len(value) if shape[:1] == [...] else shape
        return len(value) == len(each) and all(map(fits, value, each))
    return type(value) is shape or bool(value == shape)


def unpack(raw: bytes, shape: Any) -> Any:
    """Section 2: the value, if the bytes are canonical msgpack of it and it has the shape."""
    value = msgpack.unpackb(raw, max_array_len=1 << 20)
    check(fits(value, shape) and msgpack.packb(value) == raw, "not canonical, or of another shape or version")
    return value


def decode_rows(raw: bytes, size: int) -> list[Any]:
    """Section 4: (type, codec, 0, id, offset, length, raw length) of the blobs of a pack of `size` bytes."""
    check(len(raw) % 48 == 0 and 48 <= len(raw) <= 48 << 16 and size <= 128 << 20, "a footer or pack of a bad size")
    rows, end = list(struct.iter_unpack(">BBH32sIII", raw)), 76
    for kind, codec, zero, _, offset, length, raw_length in rows:
        check(kind < 3 and codec < 2 and zero == 0 and offset == end, "a gap, or an unknown type or codec")
        check(1 <= length <= raw_length <= 16 << 20 and (codec or length == raw_length), "a bad length")
        end += length
    check(end + len(raw) + 8 == size, "the footer does not begin where the payloads end")
    return rows


def decode_pack(raw: bytes) -> list[Any]:
    """Section 4: what a whole pack holds."""
    start = len(raw) - 8 - 48 * int.from_bytes(raw[-8:-4], "big")
    check(raw[:12] + raw[44:76] == b"BKPK\1" + bytes(39) and raw[-4:] == b"BKPE" and start > 76, "not a pack")
    return decode_rows(raw[start:-8], len(raw))


def decode_blob(kind: int, name: bytes, codec: int, payload: bytes, raw_length: int) -> bytes:
    """Section 4: the raw bytes. Bounds come before the decompression, and the id decides."""
    if codec == 1:
        frame = zstandard.get_frame_parameters(payload)
        check(payload[:4] == b"\x28\xb5\x2f\xfd" and frame.content_size == raw_length, "a frame of another size")
        check(frame.window_size <= 16 << 20 and not frame.dict_id, "a frame with a large window or a dictionary")
        payload = zstandard.ZstdDecompressor().decompress(payload, raw_length, allow_extra_data=False)
    check(codec < 2 and len(payload) == raw_length, "an unknown codec, or a blob of another length than its row says")
    check(blake3(payload, key=ID_KEYS[kind]).digest() == name, f"blob {name.hex()} has other bytes", IntegrityError)
    return payload


def decode_record(raw: bytes) -> list[Any]:
    """Section 6: the ten fields, and the [device, seq, hash] of all records that it names, `prev` too."""
    check(raw[:8] == b"BKJR\1\0\0\0" and len(raw) <= 8 << 20, "not a record's header, or too long")
    record: list[Any] = unpack(raw[8:], RECORD)
    device, seq, prev, _, _, vector, _, name, _, _ = record
    devices = [link[0] for link in vector]
    check((prev is None) == (seq == 1) and len(name.encode()) <= 64, "a bad prev or name")
    check(devices == sorted({*devices} - {device}), "a bad vector")
    return [*record, [*vector, [device, seq - 1, prev]] if prev else vector]


def leaves(read: Read, kind: int, name: bytes, level: int | None = None, last: bool = True) -> Iterator[list[Any]]:
    """Sections 9 and 10: the items of level 0 below a node. `level` is None for a root; `last`: none follows there."""
    _, _, at, _, items = unpack(read(kind, name), NODES[kind])
    check(at == level and items if level is not None else not at or len(items) > 1, "a bad level, or a needless node")
    check(all(a[0] < b[0] if kind == 1 else at or a[0] != b[0] for a, b in pairwise(items)), "items out of order")
    for n, item in enumerate(items, 1):
        word = item[0] if kind == 2 else blake3(item[0], key=ID_KEYS[1]).digest()[4 * at :]
        ends = n == 512 or (n >= 32 and int.from_bytes(word[:4], "big") < 44739242)
        check(ends or last if n == len(items) else not ends, "a node that ends elsewhere than a writer cuts")
    yield from [] if at else items
    for item in items if at else []:
        yield from leaves(read, kind, item[1] if kind == 1 else item[0], at - 1, last and item is items[-1])


class Bucket:
    """One folder of a bucket: `records` (hash -> fields) that its tips lead to, `places` of blobs in their packs."""

    def __init__(self, bucket: str, folder: str) -> None:
        self.path = Path(bucket, folder, "_buckia")
        self.records = dict[bytes, list[Any]]()
        self.places = defaultdict[tuple[int, bytes], list[tuple[str, Any]]](list)
        stated, links = unpack(self.get("folder"), list), list[Any]()
        check(stated[:4] == ["buckia", 1, 1, 0], "not a folder, or of another version, chunker or suite")
        check(stated[4:] == [folder], "the object of another folder", IntegrityError)
        for path in sorted(self.path.glob("tips/*")):
            if tip := re.fullmatch("([0-9a-f]{32})[.]([0-9]{10})-([0-9a-f]{64})", path.name):
                check(path.read_bytes().hex() == tip[3], f"{path.name} has other bytes", IntegrityError)
                links.append((bytes.fromhex(tip[1]), int(tip[2]), bytes.fromhex(tip[3])))
        while links:
            device, seq, name = links.pop()
            if name not in self.records:
                record = decode_record(self.get(f"journal/{device.hex()}/{seq:010}-{name.hex()}", name.hex()))
                self.records[name] = record
                links += record[10]
                for pack, size, rows in record[8][4] if record[3] == "snapshot" else []:
                    self.learn(f"packs/{pack.hex()[:2]}/{pack.hex()}", size, rows)
            check(self.records[name][:2] == [device, seq], "a record under the name of another", IntegrityError)
        check(len({(*record[:2],) for record in self.records.values()}) == len(self.records), "a fork", IntegrityError)

    def get(self, key: str, name: str | None = None) -> bytes:
        """The object; its hash must be `name`, if that is given."""
        raw = (self.path / key).read_bytes()
        check(name in (None, blake3(raw).hexdigest()), f"{key} has other bytes", IntegrityError)
        return raw

    def learn(self, pack: str, size: int, rows: bytes | None) -> None:
        """Notes where blobs are. A pack may be gone; whoever needs a blob that only it held will miss that."""
        with suppress(*DAMAGE):
            for row in decode_rows(rows, size) if rows is not None else decode_pack(self.get(pack, pack[-64:])):
                self.places[row[0], row[3]].append((pack, row))

    def read(self, kind: int, name: bytes) -> bytes:
        """The raw bytes of a blob, from any place that holds them."""
        for pack, (_, codec, _, _, offset, length, raw_length) in self.places[kind, name]:
            with suppress(*DAMAGE), (self.path / pack).open("rb") as stream:
                stream.seek(offset)
                return decode_blob(kind, name, codec, stream.read(length), raw_length)
        raise IntegrityError(f"no pack holds blob {name.hex()}")

    def heads(self) -> list[str]:
        """The hashes of snapshots that no other snapshot includes; records of other kinds change no tree."""
        snapshots = {name.hex(): record for name, record in self.records.items() if record[3] == "snapshot"}
        included = dict(sorted(link[:2] for record in snapshots.values() for link in record[10]))
        return sorted(name for name, record in snapshots.items() if record[1] > included.get(record[0], 0))


def restore_file(read: Read, path: bytes, size: int, content: list[Any]) -> None:
    """Section 10: writes a new file from its chunks."""
    depth, name = content
    chunks = [*leaves(read, 2, name, depth - 1)] if depth else [[name, size, 1]] if size else []
    check(sum(length * times for _, length, times in chunks) == size, "chunks that do not add up to the file's size")
    with open(path, "xb") as out:
        for name, length, times in chunks:
            raw = read(0, name)
            check(len(raw) == length, "a chunk of another length than its list says")
            out.writelines(repeat(raw, times))


def restore(read: Read, path: bytes, root: bytes, left: Iterator[int], depth: int = 0) -> None:
    """Section 9: fills an empty directory. `left` counts entries: a small tree can name one exponentially often."""
    for name, versions, below in leaves(read, 1, root):
        check(depth < 128 and next(left, None) is not None, "too deep, or too many entries")
        check(1 <= len(name) <= 255 and name.decode(errors="ignore").encode() == name, "a name too long, or no UTF-8")
        check(name not in (b".", b"..") and not {*name} & {*b"/\0"}, "an unsafe name")
        check(depth or not name.lower().startswith(b"_buckia"), "a reserved name")
        inside = os.path.join(path, name)
        check(os.path.basename(inside) == name, "a name that means something else on this machine")
        check(versions or below, "neither a version nor anything below")
        versions = versions or [[0, 0, 2, 0, 0, 0o755, None, None]]
        order = sorted(versions, key=lambda version: (version[2] == 2, version[4], version[0], version[1]))
        _, _, kind, size, mtime, mode, content, _ = order[-1]
        if below or kind == 2:
            os.mkdir(inside, 0o700)
            if below:
                restore(read, inside, below[0], left, depth + 1)
            os.chmod(inside, mode & 0o777 if kind == 2 else 0o755)
        elif kind == 1:
            check(len(content) == size and b"\0" not in content, "a target that no link has")
            os.symlink(content, inside)
            os.utime(inside, ns=(mtime, mtime), follow_symlinks=False)
        else:
            restore_file(read, inside, size, content)
            os.chmod(inside, mode & 0o777)
            os.utime(inside, ns=(mtime, mtime))


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description="Restores a snapshot from a bucket.")
    for name in ("bucket", "folder", "target"):
        parser.add_argument(name)
    parser.add_argument("--snapshot", help="hash of a snapshot's record")
    given = parser.parse_args(arguments)
    try:
        bucket = Bucket(given.bucket, given.folder)
        heads = [given.snapshot] if given.snapshot else bucket.heads()
        check(len(heads) == 1, f"choose one of {len(heads)} heads with --snapshot: {' '.join(heads)}")
        record = bucket.records.get(bytes.fromhex(heads[0]), [None] * 4)
        check(record[3] == "snapshot", "no such snapshot")
        os.makedirs(given.target)
        restore(bucket.read, os.fsencode(given.target), record[8][0], iter(range(50_000_000)))
    except DAMAGE as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
