"""Restores a snapshot from a bucket: `python specs/reader.py BUCKET_DIR FOLDER TARGET [--snapshot HASH]`.

Written from `format.md` ("section" means one of it) and `limits.md`, to be read beside them. The bucket is a directory
of this machine with a file per object; nothing in it is changed. Where versions are in conflict, the current one is
restored. Segments are not read: records and packs hold the same.
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
CONTENT_KEY = blake3(b"", derive_key_context="buckia v1 content").digest()

# Shapes of structured data: a range of integers, the length of a bin, a type, a constant, (alternatives), [elements] or
# [..., each element].
ZERO, ONE, TWO, MODE, TIME = range(1), range(1, 2), range(2, 3), range(4096), range(-1 << 63, 1 << 63)
SIZE, POSITIVE, LARGE, SMALL = range(1 << 53), range(1, 1 << 53), range(2, 1 << 53), range((16 << 20) + 1)
SEQ, COMMON = range(1, 10**10), [[], [..., [16, range(1, 10**10), 32]], TIME, str]
SNAPSHOT = [32, 32, SIZE, SIZE, [..., [32, SIZE, (None, bytes)]]]
KINDS = (["snapshot", *COMMON, SNAPSHOT], ["condemn", *COMMON, [[..., 32]]], ["ack", *COMMON, []])
RECORD = tuple([16, SEQ, (None, 32), *kind, None] for kind in KINDS)
DIGEST = (None, [ONE, 32], [TWO, 16], [range(3, 4), 20], [range(4, 5), 32])
FILES = tuple([SIZE, SEQ, ZERO, *of, DIGEST] for of in ([SMALL, TIME, MODE, [ZERO, 32]], [LARGE, TIME, MODE, [range(1, 9), 32]]))
SYMLINK = [SIZE, SEQ, ONE, range(1, 4097), TIME, ZERO, bytes, None]
DIRECTORY = [SIZE, SEQ, TWO, ZERO, ZERO, MODE, None, None]
ENTRY = [bytes, [..., (*FILES, SYMLINK, DIRECTORY)], (None, [32, 32, SIZE, SIZE])]
ABOVE = [bytes, 32, 32, SIZE, SIZE]
NODES = {
    1: ([ONE, ONE, ZERO, [..., 16], [..., ENTRY]], [ONE, ONE, range(1, 8), [], [..., ABOVE]]),
    2: tuple([ONE, TWO, at, [], [..., [32, size, POSITIVE]]] for at, size in ((ZERO, SMALL[1:]), (range(1, 8), POSITIVE))),
}

Row = tuple[Any, ...]  # type, codec, 0, id, offset, length, raw length
Read = Callable[[int, bytes], bytes]  # (type, id) -> the blob's raw bytes


class FormatError(Exception):
    """The bytes are not what the format allows, or name something that this reader does not know."""


class IntegrityError(Exception):
    """Bytes are missing, or are not those that their name or id promises."""


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
        each = repeat(shape[1]) if shape[:1] == [...] else shape
        return (each is not shape or len(value) == len(shape)) and all(map(fits, value, each))
    return type(value) is shape or bool(value == shape)


def unpack(raw: bytes, shape: Any) -> Any:
    """Section 2: the value, if the bytes are canonical msgpack of it and it has the shape."""
    try:
        value = msgpack.unpackb(raw, max_array_len=1 << 20)
        check(fits(value, shape) and msgpack.packb(value) == raw, "not canonical, or of another shape or version")
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"not msgpack: {error}") from error
    return value


def ascending(values: list[Any]) -> bool:
    """Whether the values are sorted, each once."""
    return all(a < b for a, b in pairwise(values))


def decode_rows(raw: bytes, size: int) -> list[Row]:
    """Section 4: the footer of a pack of `size` bytes."""
    check(len(raw) % 48 == 0 and 48 <= len(raw) <= 48 << 16 and size <= 128 << 20, "a footer or pack of a bad size")
    rows, end = list(struct.iter_unpack(">BBH32sIII", raw)), 76
    for kind, codec, zero, _, offset, length, raw_length in rows:
        check(kind < 3 and codec < 2 and zero == 0 and offset == end, "a gap, or an unknown type or codec")
        check(1 <= length <= raw_length <= 16 << 20 and (codec or length == raw_length), "a bad length")
        end += length
    check(end + len(raw) + 8 == size, "the footer does not begin where the payloads end")
    return rows


def decode_pack(raw: bytes) -> list[Row]:
    """Section 4: what a whole pack holds."""
    start = len(raw) - 8 - 48 * int.from_bytes(raw[-8:-4], "big")
    check(raw[:12] == b"BKPK\1" + bytes(7) and raw[44:76] == bytes(32), "not a pack's header")
    check(raw[-4:] == b"BKPE" and start > 76, "not a pack's end")
    return decode_rows(raw[start:-8], len(raw))


def decode_blob(kind: int, name: bytes, codec: int, payload: bytes, raw_length: int) -> bytes:
    """Section 4: the raw bytes. Bounds come before the decompression, and the id decides."""
    if codec == 1:
        try:
            frame = zstandard.get_frame_parameters(payload)
            check(payload[:4] == b"\x28\xb5\x2f\xfd" and frame.content_size == raw_length, "a frame of another size")
            check(frame.window_size <= 16 << 20 and not frame.dict_id, "a frame with a large window or a dictionary")
            payload = zstandard.ZstdDecompressor().decompress(payload, raw_length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise FormatError(f"not one zstd frame: {error}") from error
    check(codec < 2 and len(payload) == raw_length, "an unknown codec, or a blob of another length than its row says")
    check(blake3(payload, key=ID_KEYS[kind]).digest() == name, f"blob {name.hex()} has other bytes", IntegrityError)
    return payload


def decode_record(raw: bytes) -> list[Any]:
    """Section 6: the ten fields, and the [device, seq, hash] of all records that it names, `prev` too."""
    check(raw[:8] == b"BKJR\1\0\0\0" and len(raw) <= 8 << 20, "not a record's header, or too long")
    record: list[Any] = unpack(raw[8:], RECORD)
    device, seq, prev, kind, _, vector, _, name, body, _ = record
    devices = [link[0] for link in vector]
    check((prev is None) == (seq == 1) and len(name.encode()) <= 64, "a bad prev or name")
    check(ascending(devices) and device not in devices, "a bad vector")
    check(kind != "condemn" or ascending(body[0]), "unsorted ids")
    for _, size, rows in body[4] if kind == "snapshot" else []:
        check(rows is None or decode_rows(rows, size), "no rows")
    return [*record, [*vector, [device, seq - 1, prev]] if prev else vector]


def current(versions: list[Any]) -> Any:
    """Section 9: the version that counts: of kind 2 if one is. The order of indices is that of the device ids."""
    return max(versions, key=lambda version: (version[2] == 2, version[4], version[0], version[1]))


def measure(level: int, devices: list[bytes], items: list[Any]) -> list[Any]:
    """Section 9: content hash, files and bytes of a directory node, which the node above must state."""
    used = {version[0] for item in items for version in ([] if level else item[1])}
    check(ascending(devices) and sorted(used) == [*range(len(devices))], "not the devices of its items")
    check(ascending([item[0] for item in items]), "names out of order")
    hashed, files, size = [], 0, 0
    for name, versions, below in [(item[0], [], item[1:]) if level else item for item in items]:
        check(1 <= len(name) <= 255 and name.decode(errors="ignore").encode() == name, "a name too long, or no UTF-8")
        check(name not in (b".", b"..") and not set(name) & set(b"/\0"), "an unsafe name")
        check((versions or below) and ascending([version[:2] for version in versions]), "no versions, or unsorted ones")
        links = [version for version in versions if version[2] == 1]
        check(all(len(link[6]) == link[3] and b"\0" not in link[6] for link in links), "a target that no link has")
        plain = {msgpack.packb([what, mode, content]) for _, _, what, _, _, mode, content, _ in versions}
        values = [] if level else [[*map(msgpack.unpackb, sorted(plain))]]
        hashed.append([name, *values, below and below[1]])
        one = not below and current(versions)[2] < 2
        files, size = files + (below[2] if below else one), size + (below[3] if below else one and current(versions)[3])
    return [blake3(msgpack.packb([level, hashed]), key=CONTENT_KEY).digest(), files, size]


def leaves(read: Read, kind: int, said: list[Any], level: int | None = None, last: bool = True) -> list[Any]:
    """Sections 9 and 10: all items of level 0 below a node, of which `said` is the id and more. A root's level is None;
    `last` is whether the node is the last of its level.
    """
    _, _, at, devices, items = unpack(read(kind, said[0]), NODES[kind])
    check(at == level and items if level is not None else not at or len(items) > 1, "a bad level, or a needless node")
    for n, item in enumerate(items, 1):
        word = item[0] if kind == 2 else blake3(item[0], key=ID_KEYS[1]).digest()[4 * at :]
        ends = n == 512 or (n >= 32 and int.from_bytes(word[:4], "big") < 44739242)
        check(ends or last if n == len(items) else not ends, "a node that ends elsewhere than a writer cuts")
    bytes_and_chunks = [sum(b * (1 if at else c) for _, b, c in items), sum(c for *_, c in items)] if kind == 2 else []
    stated = measure(at, devices, items) if kind == 1 else bytes_and_chunks
    check(stated[: len(said) - 1] == said[1:], "a node is not what is said of it")
    found = [] if at else items
    for item in items if at else []:
        found += leaves(read, kind, item if kind == 2 else item[1:], at - 1, last and item is items[-1])
        check(kind == 2 or found[-1][0] == item[0], "another last name")
    check(all(a[0] < b[0] if kind == 1 else a[0] != b[0] for a, b in pairwise(found)), "out of order, or not folded")
    return found


class Bucket:
    """One folder of a bucket: `records` (hash -> fields) that its tips lead to, and `places` of blobs in their packs."""

    def __init__(self, bucket: str, folder: str) -> None:
        self.path = Path(bucket, folder, "_buckia")
        self.records = dict[bytes, list[Any]]()
        self.places = defaultdict[tuple[int, bytes], list[tuple[str, Row]]](list)
        stated = unpack(self.get("folder"), list)
        check(stated[:4] == ["buckia", 1, 1, 0], "not a folder, or of another version, chunker or suite")
        check(stated[4:] == [folder], "the object of another folder", IntegrityError)
        keys = [path.relative_to(self.path).as_posix() for path in sorted(self.path.glob("tips/*"))]
        tips = list(filter(None, (re.fullmatch("tips/([0-9a-f]{32})[.]([0-9]{10})-([0-9a-f]{64})", key) for key in keys)))
        check(all(self.get(tip[0]).hex() == tip[3] for tip in tips), "a tip with other bytes", IntegrityError)
        links = [[bytes.fromhex(tip[1]), int(tip[2]), bytes.fromhex(tip[3])] for tip in tips]
        while links:
            device, seq, name = links.pop()
            if name not in self.records:
                record = decode_record(self.get(f"journal/{device.hex()}/{seq:010}-{name.hex()}", name.hex()))
                check(record[:2] == [device, seq], "a record under the name of another", IntegrityError)
                self.records[name] = record
                links += record[10]
                for pack, size, rows in record[8][4] if record[3] == "snapshot" else []:
                    self.learn(f"packs/{pack.hex()[:2]}/{pack.hex()}", size, rows)
        check(len({(*record[:2],) for record in self.records.values()}) == len(self.records), "a fork", IntegrityError)

    def get(self, key: str, name: str | None = None) -> bytes:
        """The object; its hash must be `name`, if that is given."""
        check((self.path / key).is_file(), f"{key} is missing", IntegrityError)
        raw = (self.path / key).read_bytes()
        check(name in (None, blake3(raw).hexdigest()), f"{key} has other bytes", IntegrityError)
        return raw

    def learn(self, pack: str, size: int, rows: bytes | None) -> None:
        """Notes where blobs are. A pack may be gone; whoever needs a blob that only it held will miss that."""
        with suppress(IntegrityError):
            for row in decode_rows(rows, size) if rows else decode_pack(self.get(pack, pack[-64:])):
                self.places[row[0], row[3]].append((pack, row))

    def read(self, kind: int, name: bytes) -> bytes:
        """The raw bytes of a blob, from any place that holds them."""
        for pack, (_, codec, _, _, offset, length, raw_length) in self.places[kind, name]:
            with suppress(OSError, FormatError, IntegrityError), (self.path / pack).open("rb") as stream:
                stream.seek(offset)
                return decode_blob(kind, name, codec, stream.read(length), raw_length)
        raise IntegrityError(f"no pack holds blob {name.hex()}")

    def heads(self) -> list[str]:
        """The hashes of snapshots that no other snapshot includes; records of other kinds change no tree."""
        snapshots = {name: record for name, record in self.records.items() if record[3] == "snapshot"}
        included = defaultdict[bytes, int](int)
        for device, seq, _ in (link for record in snapshots.values() for link in record[10]):
            included[device] = max(included[device], seq)
        return sorted(name.hex() for name, record in snapshots.items() if record[1] > included[record[0]])


def restore_file(read: Read, path: bytes, size: int, content: list[Any]) -> None:
    """Section 10: writes a new file from its chunks."""
    depth, name = content
    chunks = leaves(read, 2, [name, size], depth - 1) if depth else [[name, size, 1]] if size else []
    check(size or name == blake3(b"", key=ID_KEYS[0]).digest(), "an empty file with another id")
    check(not depth or sum(times for _, _, times in chunks) > 1, "a list where one chunk would do")
    with open(path, "xb") as out:
        for name, length, times in chunks:
            raw = read(0, name)
            check(len(raw) == length, "a chunk of another length than its list says")
            out.writelines(repeat(raw, times))


def restore(read: Read, path: bytes, root: list[Any], left: Iterator[int], depth: int = 0) -> None:
    """Fills an empty directory. `root` is [id, content hash, files, bytes] of the root node of what belongs in it.
    `left` counts entries, as a small tree can name a subtree exponentially often.
    """
    entries = leaves(read, 1, root)
    check(depth < 128 and (entries or not depth), "too deep, or a subtree without entries")
    for name, versions, below in entries:
        inside = os.path.join(path, name)
        check(next(left, None) is not None, "too many entries")
        check(os.path.basename(inside) == name, "a name that means something else on this machine")
        check(depth or not name.lower().startswith(b"_buckia"), "a name that is reserved")
        _, _, kind, size, mtime, mode, content, _ = current(versions or [[0, 0, 2, 0, 0, 0o755, None, None]])
        if below or kind == 2:
            os.mkdir(inside, 0o700)
            if below:
                restore(read, inside, below, left, depth + 1)
            os.chmod(inside, mode & 0o777 if kind == 2 else 0o755)
        elif kind == 1:
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
        os.makedirs(given.target, exist_ok=True)
        check(not os.listdir(given.target), "the target is not empty")
        restore(bucket.read, os.fsencode(given.target), record[8][:4], iter(range(50_000_000)))
    except (FormatError, IntegrityError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
