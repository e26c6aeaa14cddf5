"""Writes whole folders of a bucket from descriptions of trees, as `specs/format.md` says: slowly and plainly.

It shares no code with the product or with `specs/reader.py`, and encodes msgpack and zstd frames itself, so that what
it writes depends on no library but BLAKE3. Salts and times are given. Everything is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

CHUNK, DIRECTORY_NODE, LIST_NODE = 0, 1, 2
FILE, SYMLINK, DIRECTORY = 0, 1, 2
NODE_MIN, NODE_MAX, NODE_CUT = 32, 512, 44739242


def be(value: int, width: int) -> bytes:
    """An unsigned big-endian integer."""
    return value.to_bytes(width, "big")


def pack_int(value: int) -> bytes:
    """The shortest form; of two equally short ones, the unsigned one."""
    if -32 <= value < 128:
        return be(value % 256, 1)
    for code, width in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if 0 <= value < 1 << (8 * width):
            return be(code, 1) + be(value, width)
    for code, width in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if -(1 << (8 * width - 1)) <= value < 0:
            return be(code, 1) + value.to_bytes(width, "big", signed=True)
    raise ValueError(f"{value} needs more than 64 bits")


def pack_head(size: int, fixed: tuple[int, int], wider: Sequence[tuple[int, int]]) -> bytes:
    """The head of something with a size: `fixed` is (code, sizes below which it is used), `wider` are (code, width)."""
    if size < fixed[1]:
        return be(fixed[0] + size, 1)
    for code, width in wider:
        if size < 1 << (8 * width):
            return be(code, 1) + be(size, width)
    raise ValueError(f"{size} needs more than 32 bits")


def canonical(value: Any) -> bytes:
    """The canonical bytes of nil, integers, bin, str and arrays."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return pack_int(value)
    if isinstance(value, bytes):
        return pack_head(len(value), (0, 0), ((0xC4, 1), (0xC5, 2), (0xC6, 4))) + value
    if isinstance(value, str):
        text = value.encode("utf-8")
        return pack_head(len(text), (0xA0, 32), ((0xD9, 1), (0xDA, 2), (0xDB, 4))) + text
    return pack_head(len(value), (0x90, 16), ((0xDC, 2), (0xDD, 4))) + b"".join(map(canonical, value))


def derive(context: str, material: bytes, length: int = 32) -> bytes:
    """BLAKE3 in derive-key mode."""
    return blake3(material, derive_key_context=context).digest(length)


def hash_of(raw: bytes) -> bytes:
    """The name of an object."""
    return blake3(raw).digest()


def blob_id(kind: int, raw: bytes) -> bytes:
    """The id of a blob."""
    return blake3(raw, key=derive("buckia v1 public id", be(kind, 1))).digest()


CONTENT_KEY = derive("buckia v1 content", b"")


class Blobs:
    """The blobs of a commit in the order in which they were first added, each once."""

    def __init__(self) -> None:
        self.raw: dict[tuple[int, bytes], bytes] = {}

    def add(self, kind: int, raw: bytes) -> bytes:
        """Keeps a blob. Returns its id."""
        name = blob_id(kind, raw)
        self.raw.setdefault((kind, name), raw)
        return name


def runs(raw: bytes, least: int = 16) -> list[tuple[bool, bytes]]:
    """Splits bytes at runs of one byte value that are at least `least` long: (whether it is a run, bytes)."""
    found: list[tuple[bool, bytes]] = []
    start = at = 0
    while at < len(raw):
        end = at + 1
        while end < len(raw) and raw[end] == raw[at]:
            end += 1
        if end - at >= least:
            found += [(False, raw[start:at])] * (start < at) + [(True, raw[at:end])]
            start = end
        at = end
    return found + [(False, raw[start:])] * (start < at)


def zstd_frame(raw: bytes) -> bytes:
    """A zstd frame (RFC 8878) of raw and run-length blocks, in a single segment that states its content size."""
    if len(raw) < 256:
        head = be(0x20, 1) + be(len(raw), 1)
    elif len(raw) < 256 + 65536:
        head = be(0x60, 1) + (len(raw) - 256).to_bytes(2, "little")
    else:
        head = be(0xA0, 1) + len(raw).to_bytes(4, "little")
    blocks = [(run, part[i : i + 131072]) for run, part in runs(raw) for i in range(0, len(part), 131072)]
    frame = b"\x28\xb5\x2f\xfd" + head
    for number, (run, part) in enumerate(blocks, 1):
        frame += (len(part) << 3 | run << 1 | (number == len(blocks))).to_bytes(3, "little") + part[
            : 1 if run else None
        ]
    return frame


def encode(raw: bytes) -> tuple[int, bytes]:
    """(codec, payload): a frame if that is shorter."""
    frame = zstd_frame(raw)
    return (1, frame) if len(frame) < len(raw) else (0, raw)


Encode = Callable[[bytes], tuple[int, bytes]]


def make_pack(blobs: Blobs, salt: bytes, encoder: Encode = encode) -> tuple[bytes, bytes]:
    """(a pack with these blobs, its rows)."""
    out = b"BKPK" + be(1, 1) + be(0, 1) + be(0, 1) + be(0, 1) + be(0, 4) + salt + bytes(32)
    rows = b""
    for (kind, name), raw in blobs.raw.items():
        codec, payload = encoder(raw)
        rows += be(kind, 1) + be(codec, 1) + be(0, 2) + name + be(len(out), 4) + be(len(payload), 4) + be(len(raw), 4)
        out += payload
    return out + rows + be(len(blobs.raw), 4) + b"BKPE", rows


GEAR = [int.from_bytes(derive("buckia v1 public gear", b"", 2048)[8 * i : 8 * i + 8], "big") for i in range(256)]


def page_size(raw: bytes) -> int | None:
    """The size of the pages of an SQLite file, None of any other file."""
    if len(raw) < 18 or raw[:16] != b"SQLite format 3\0":
        return None
    size = int.from_bytes(raw[16:18], "big")
    return 65536 if size == 1 else size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else None


def cut(raw: bytes) -> list[bytes]:
    """The chunks of a file."""
    size = page_size(raw)
    if size:
        return [raw[i : i + size] for i in range(0, len(raw), size)]
    chunks, start, state = [], 0, 0
    for at, byte in enumerate(raw):
        # Shifted out of 64 bits, a byte leaves the sum after 64 further ones: this is the window.
        state = (state << 1) + GEAR[byte] & 0xFFFFFFFFFFFFFFFF
        length = at + 1 - start
        if (
            (65536 <= length < 262144 and state >> 44 == 0)
            or (262144 <= length < 1048576 and state >> 48 == 0)
            or length == 1048576
        ):
            chunks.append(raw[start : at + 1])
            start = at + 1
    return chunks + [raw[start:]] * (start < len(raw))


def nodes_of(items: list[Any], word: Callable[[Any], int]) -> list[list[Any]]:
    """Cuts the items of a level into nodes."""
    nodes: list[list[Any]] = [[]]
    for item in items:
        last = nodes[-1]
        if len(last) == NODE_MAX or (len(last) >= NODE_MIN and word(last[-1]) < NODE_CUT):
            nodes.append([])
        nodes[-1].append(item)
    return nodes


def fold(chunks: Iterable[tuple[bytes, int]]) -> list[list[Any]]:
    """[id, length, repeat] of chunks (id, length), equal neighbours folded."""
    items: list[list[Any]] = []
    for name, length in chunks:
        if items and items[-1][0] == name:
            items[-1][2] += 1
        else:
            items.append([name, length, 1])
    return items


def chunk_list(items: list[list[Any]], blobs: Blobs) -> list[Any]:
    """[depth, id] of the list of these items of level 0."""
    level = 0
    while True:
        above = []
        for node in nodes_of(items, lambda item: int.from_bytes(item[0][:4], "big")):
            name = blobs.add(LIST_NODE, canonical([1, 2, level, [], node]))
            if level == 0:
                above.append([name, sum(length * repeat for _, length, repeat in node), sum(item[2] for item in node)])
            else:
                above.append([name, sum(item[1] for item in node), sum(item[2] for item in node)])
        level, items = level + 1, above
        if len(items) == 1:
            return [level, items[0][0]]


def file_content(raw: bytes, blobs: Blobs) -> list[Any]:
    """[depth, id] of a file's bytes."""
    if not raw:
        return [0, blob_id(CHUNK, b"")]
    chunks = [(blobs.add(CHUNK, chunk), len(chunk)) for chunk in cut(raw)]
    return [0, chunks[0][0]] if len(chunks) == 1 else chunk_list(fold(chunks), blobs)


@dataclass(frozen=True, slots=True)
class Version:
    """What was written at a path; `data` are a file's bytes or a symlink's target."""

    device: bytes
    seq: int
    kind: int
    data: bytes = b""
    mtime_ns: int = 0
    mode: int = 0
    digest: tuple[int, bytes] | None = None


@dataclass(slots=True)
class Entry:
    """A name: versions as [device, seq, kind, size, mtime, mode, content, digest], and what lies below it."""

    versions: list[list[Any]] = field(default_factory=list)
    below: dict[bytes, Entry] = field(default_factory=dict)


Tree = dict[str, list[Version]]  # path -> versions


@dataclass(frozen=True, slots=True)
class Root:
    """What is said of a directory's root node."""

    id: bytes
    content: bytes
    files: int
    size: int

    def row(self) -> list[Any]:
        """As in a subtree."""
        return [self.id, self.content, self.files, self.size]


def entries_of(tree: Tree, blobs: Blobs) -> dict[bytes, Entry]:
    """The entries of the top directory."""
    top = Entry()
    for path, versions in sorted(tree.items()):
        entry = top
        for part in path.split("/"):
            entry = entry.below.setdefault(part.encode("utf-8"), Entry())
        for v in versions:
            content = file_content(v.data, blobs) if v.kind == FILE else v.data if v.kind == SYMLINK else None
            digest = list(v.digest) if v.digest else None
            entry.versions.append([v.device, v.seq, v.kind, len(v.data), v.mtime_ns, v.mode, content, digest])
    return top.below


def count(versions: list[list[Any]], subtree: list[Any] | None) -> tuple[int, int]:
    """(files, bytes) of an entry."""
    if subtree is not None:
        return subtree[2], subtree[3]
    if any(version[2] == DIRECTORY for version in versions):
        return 0, 0
    newest = sorted(versions, key=lambda version: (version[4], version[0], version[1]))[-1]
    return 1, newest[3]


def leaf_node(entries: list[tuple[bytes, Entry, list[Any] | None]], blobs: Blobs) -> list[Any]:
    """[last name, id, content hash, files, bytes] of a node of level 0."""
    devices = sorted({version[0] for _, entry, _ in entries for version in entry.versions})
    items, plain, files, size = [], [], 0, 0
    for name, entry, subtree in entries:
        versions = sorted(entry.versions, key=lambda version: (version[0], version[1]))
        items.append([name, [[devices.index(version[0]), *version[1:]] for version in versions], subtree])
        unlike: list[list[Any]] = []
        for version in versions:
            value = [version[2], version[5], version[6]]
            if value not in unlike:
                unlike.append(value)
        plain.append([name, sorted(unlike, key=canonical), subtree[1] if subtree else None])
        more = count(versions, subtree)
        files, size = files + more[0], size + more[1]
    content = blake3(canonical([0, plain]), key=CONTENT_KEY).digest()
    last = entries[-1][0] if entries else b""
    return [last, blobs.add(DIRECTORY_NODE, canonical([1, 1, 0, devices, items])), content, files, size]


def inner_node(level: int, items: list[list[Any]], blobs: Blobs) -> list[Any]:
    """[last name, id, content hash, files, bytes] of a node above level 0."""
    content = blake3(canonical([level, [[item[0], item[2]] for item in items]]), key=CONTENT_KEY).digest()
    name = blobs.add(DIRECTORY_NODE, canonical([1, 1, level, [], items]))
    return [items[-1][0], name, content, sum(item[3] for item in items), sum(item[4] for item in items)]


def directory(below: dict[bytes, Entry], blobs: Blobs) -> Root:
    """The root of a directory with these entries."""
    items: list[Any] = []
    for name, entry in sorted(below.items()):
        items.append((name, entry, directory(entry.below, blobs).row() if entry.below else None))
    level = 0
    while True:

        def word(item: Any, at: int = level) -> int:
            return int.from_bytes(blob_id(DIRECTORY_NODE, item[0])[4 * at : 4 * at + 4], "big")

        nodes = nodes_of(items, word)
        items = [inner_node(level, node, blobs) if level else leaf_node(node, blobs) for node in nodes]
        level += 1
        if len(items) == 1:
            return Root(*items[0][1:])


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes a record, and what it names: `vector` holds hashes of records of other devices."""

    device: bytes
    name: str = ""
    time_ns: int = 0
    vector: Sequence[bytes] = ()
    inline: bool = True


class Folder:
    """A folder of a bucket in memory: `objects` maps keys below `_buckia/` to bytes."""

    def __init__(self, name: str, encoder: Encode = encode) -> None:
        self.encoder = encoder
        self.objects = {"folder": canonical(["buckia", 1, 1, 0, name])}
        self.records: dict[bytes, list[Any]] = {}
        self.rows: dict[bytes, bytes] = {}
        self.stored: set[tuple[int, bytes]] = set()

    def snapshot(self, author: Author, tree: Tree, salt: bytes) -> tuple[bytes, Root]:
        """Commits a tree: what is new of it in one pack. Returns the record's hash and the tree's root."""
        blobs = Blobs()
        root = directory(entries_of(tree, blobs), blobs)
        blobs.raw = {blob: raw for blob, raw in blobs.raw.items() if blob not in self.stored}
        packs = []
        if blobs.raw:
            raw, rows = make_pack(blobs, salt, self.encoder)
            name = hash_of(raw)
            self.objects[f"packs/{name.hex()[:2]}/{name.hex()}"] = raw
            self.stored |= set(blobs.raw)
            self.rows[name] = rows
            packs = [[name, len(raw), rows if author.inline else None]]
        return self.record(author, "snapshot", [*root.row(), packs]), root

    def record(self, author: Author, kind: str, body: list[Any]) -> bytes:
        """Writes a record and its tip, and deletes the device's older tip. Returns the record's hash."""
        own = [(fields[1], name) for name, fields in self.records.items() if fields[0] == author.device]
        seq, prev = max(own, default=(0, None))
        seq += 1
        vector = sorted([self.records[name][0], self.records[name][1], name] for name in author.vector)
        fields = [author.device, seq, prev, kind, [], vector, author.time_ns, author.name, body, None]
        raw = b"BKJR" + be(1, 1) + be(0, 1) + be(0, 2) + canonical(fields)
        name, device = hash_of(raw), author.device.hex()
        self.records[name] = fields
        self.objects = {key: value for key, value in self.objects.items() if not key.startswith(f"tips/{device}.")}
        self.objects[f"journal/{device}/{seq:010d}-{name.hex()}"] = raw
        self.objects[f"tips/{device}.{seq:010d}-{name.hex()}"] = name
        return name

    def segment(self, ranges: list[list[Any]]) -> bytes:
        """Writes a segment that covers [device, first, last]. Returns its hash."""
        covered = []
        for name, fields in self.records.items():
            if any(fields[0] == device and first <= fields[1] <= last for device, first, last in ranges):
                key = f"journal/{fields[0].hex()}/{fields[1]:010d}-{name.hex()}"
                covered.append((fields[0], fields[1], self.objects[key], fields))
        covered.sort(key=lambda record: record[:2])
        packs = sorted(p[:2] for _, _, _, fields in covered if fields[3] == "snapshot" for p in fields[8][4])
        rows = []
        for index, (pack, _) in enumerate(packs):
            for i in range(0, len(self.rows[pack]), 48):
                row = self.rows[pack][i : i + 48]
                rows.append(row[4:36] + be(index, 4) + row[36:48] + row[0:2] + be(0, 2))
        meta = canonical([sorted(ranges), [raw for _, _, raw, _ in covered], packs])
        head = b"BKSG" + be(1, 1) + be(0, 1) + be(0, 2) + be(len(meta), 4) + be(len(rows), 4)
        raw = head + meta + b"".join(sorted(rows, key=lambda row: row[:36]))
        name = hash_of(raw)
        self.objects[f"segments/{name.hex()}"] = raw
        return name
