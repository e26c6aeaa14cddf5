"""Makes `specs/vectors` (all but `chunker.json`): `python tests/golden/make_golden.py` writes what `build()` returns.

Everything comes from `naive_writer.py` and the generators here, none from the product, and is the same each time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

sys.path.insert(0, str(Path(__file__).parent))
import naive_writer as w
from negatives import negatives

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
A, B = bytes(range(0xA0, 0xB0)), bytes(range(0xB0, 0xC0))
T0 = 1_700_000_000_000_000_000

# 64 bytes after which the top 20 bits of the Gear hash are zero, and such with 16 but not 20: they cut where they end.
STRONG = blake3(b"buckia golden marker").digest(64, seek=1862199)
WEAK = blake3(b"buckia golden marker").digest(64, seek=103613)

# A text, and a zstd frame of it made by libzstd at level 19. It is kept here, because other versions of the library
# make other frames.
TEXT = "".join(
    f"{n} green bottles hanging on the wall, and if {'one' if n % 2 else 'two'} should accidentally fall\n"
    for n in range(40)
).encode()
FRAME = bytes.fromhex(
    "28b52ffd60860ab5040072c71611907d9c6e39e806eeae91ee805c8c2d62064b25744c21a388b25442c7143288204b25744c21632c95d0318540"
    "7b07a895c5efb5326de1a3ceb17f75df99ff72fd91feb3ec43ad8c3f9cfaed7d69a9b46c7e8655ebdbde4288e58b28a81170dffa7f07d03b2d06"
    "11fcff0dc1ef10fc016566a699d57a2963668c595996b266c62c5bbbc8f356ab54ad55558970005481094815"
)


def encode(raw: bytes) -> tuple[int, bytes]:
    """Like the writer's own, with the kept frame for the kept text."""
    return (1, FRAME) if raw == TEXT else w.encode(raw)


def stream(name: str, length: int) -> bytes:
    """Bytes that look random: the extended output of the hash of a name."""
    return blake3(name.encode()).digest(length)


def salt(name: str) -> bytes:
    """A pack's salt, which a real writer draws at random."""
    return stream(f"buckia golden salt {name}", 32)


def file(data: bytes, dot: tuple[bytes, int] = (A, 1), minutes: int = 0, mode: int = 0o644) -> w.Version:
    """A file with a digest, as a device writes it."""
    digest = (1, hashlib.sha256(data).digest())
    return w.Version(*dot, w.FILE, data, T0 + minutes * 60_000_000_000, mode, digest)


def link(target: str, dot: tuple[bytes, int] = (A, 1)) -> w.Version:
    """A symlink."""
    return w.Version(*dot, w.SYMLINK, target.encode(), T0 + 1)


def folder(mode: int, dot: tuple[bytes, int] = (A, 1)) -> w.Version:
    """A directory."""
    return w.Version(*dot, w.DIRECTORY, mode=mode)


def listing(tree: w.Tree) -> list[dict[str, Any]]:
    """What restoring the tree gives, the current version of each path: for files and symlinks below conflicts too."""
    paths = set(tree) | {path[:at] for path in tree for at, char in enumerate(path) if char == "/"}
    found = []
    for path in sorted(paths, key=lambda path: path.encode()):
        versions = sorted(tree.get(path, []), key=lambda v: (v.mtime_ns, v.device, v.seq))
        modes = [v.mode for v in versions if v.kind == w.DIRECTORY]
        if modes or any(other.startswith(path + "/") for other in paths):
            found.append({"path": path, "kind": "directory", "mode": modes[-1] if modes else 0o755})
            continue
        v = versions[-1]
        row: dict[str, Any] = {"path": path, "kind": "symlink" if v.kind else "file", "size": len(v.data)}
        row |= {"target": v.data.decode()} if v.kind else {"mode": v.mode}
        row["mtime_ns"] = v.mtime_ns
        found.append(row if v.kind else row | {"sha256": hashlib.sha256(v.data).hexdigest()})
    return found


class Golden:
    """A bucket with one folder, and what is expected of it."""

    def __init__(self, name: str, about: str, key: str) -> None:
        self.name, self.key = name, key
        self.folder = w.Folder(key, encode)
        self.expected: dict[str, Any] = {"about": about, "folder": key, "heads": [], "snapshots": {}}

    def snapshot(self, author: w.Author, tree: w.Tree) -> bytes:
        """Commits a tree and notes what restoring it gives. Returns the record's hash."""
        name, root = self.folder.snapshot(author, tree, salt(f"{self.name} {len(self.folder.records)}"))
        conflicts = [path for path, versions in sorted(tree.items()) if in_conflict(versions)]
        self.expected["snapshots"][name.hex()] = {
            "device": author.device.hex(),
            "seq": self.folder.records[name][1],
            "state_root": root.id.hex(),
            "content_root": root.content.hex(),
            "files": root.files,
            "bytes": root.size,
            "conflicts": conflicts,
            "listing": listing(tree),
        }
        return name

    def files(self, *heads: bytes) -> Iterator[tuple[str, bytes]]:
        """Path below `vectors/buckets` and bytes of all that belongs to it."""
        self.expected["heads"] = sorted(head.hex() for head in heads)
        prefix = f"{self.name}/{self.key}/_buckia" if self.key else f"{self.name}/_buckia"
        yield from ((f"{prefix}/{key}", raw) for key, raw in self.folder.objects.items())
        yield f"{self.name}.json", text(self.expected)


def in_conflict(versions: list[w.Version]) -> bool:
    """Whether users can tell the versions apart."""
    return len({(v.kind, v.data, v.mode) for v in versions}) > 1


def text(value: Any) -> bytes:
    """JSON with a line for each of what a list holds, for people and for diffs."""
    raw = json.dumps(value, indent=1, ensure_ascii=True)
    return (raw + "\n").encode()


def plain() -> Iterator[tuple[str, bytes]]:
    golden = Golden("plain", "One device, two snapshots: a changed, a deleted and a new file; equal files.", "photos")
    same = stream("plain", 5000)
    tree = {"bottles.txt": [file(TEXT)], "empty": [file(b"")], "a/one.bin": [file(same)], "a/two.bin": [file(same)]}
    golden.snapshot(w.Author(A, "alpha", T0), tree)
    tree = tree | {"a/three": [file(b"new", (A, 2), 5)], "empty": [file(b"no longer", (A, 2), 5, 0o600)]}
    del tree["a/one.bin"]
    return golden.files(golden.snapshot(w.Author(A, "alpha", T0 + 9), tree))


def empty() -> Iterator[tuple[str, bytes]]:
    golden = Golden("empty", "An empty folder at the bucket's top, and a record that is no snapshot after it.", "")
    head = golden.snapshot(w.Author(A), {})
    golden.folder.record(w.Author(B, "beta", T0, (head,)), "ack", [])
    return golden.files(head)


def names() -> Iterator[tuple[str, bytes]]:
    golden = Golden("names", "Names in several scripts, directories without entries, symlinks, modes, times.", "names")
    tree: w.Tree = {
        "caf\u00e9/\u6771\u4eac": [file(b"Tokyo", mode=0o600)],
        "caf\u00e9/\u03a9mega \U0001f600": [file(b"four bytes each", mode=0o755)],
        "Z": [file(b"before lower case", mode=0o444)],
        ".hidden": [file(b"h")],
        "with space, 'quotes' and (brackets)": [file(b"q")],
        "x" * 255: [file(b"the longest name")],
        "\u00df" * 127: [file(b"254 bytes of name")],
        "old": [w.Version(A, 1, w.FILE, b"before 1970", -1_000_000_007, 0o640)],
        "empty/of mode 700": [folder(0o700)],
        "empty/of mode 755": [folder(0o755)],
        "kept": [folder(0o750)],
        "kept/file": [file(b"k")],
        "links/relative": [link("../Z")],
        "links/absolute": [link("/nowhere/at all")],
        "links/to a directory": [link("../caf\u00e9")],
        "/".join(f"d{n}" for n in range(20)): [file(b"deep")],
    }
    # Which name is prefix of which decides the order: unsigned bytes, not parts or letters.
    tree |= {"o": [file(b"1")], "o-": [file(b"2")], "o.d/f": [file(b"3")], "o0": [file(b"4")]}
    return golden.files(golden.snapshot(w.Author(A, "\u00e4", -T0), tree))


def many() -> Iterator[tuple[str, bytes]]:
    golden = Golden("many", "700 files in one directory: nodes on two levels. Rows only in the pack.", "many")
    tree = {f"all/file {n:03d}.txt": [file(f"{n}\n".encode() * 3, minutes=n)] for n in range(700)}
    return golden.files(golden.snapshot(w.Author(A, "alpha", T0, inline=False), tree))


def clip() -> Iterator[tuple[str, bytes]]:
    """Each rule that cuts, equal chunks in a row, zeros."""
    golden = Golden(
        "clip", "One file with chunks of every kind, and one that is a single run of equal chunks.", "media"
    )

    def filler(name: str, length: int, end: bytes = b"") -> bytes:
        return stream(name, 3000).ljust(length - len(end), name[:1].encode()) + end

    def ends(parts: list[bytes]) -> bytes:
        return b"".join(parts)

    equal = ends([filler("s", 80_000, WEAK), filler("t", 20_000, STRONG)])
    data = ends(
        [
            *(filler("a", 30_000, STRONG), filler("b", 60_000, STRONG)),  # too early, then a chunk of 90,000
            *(equal, equal, equal),  # WEAK cuts from 262,144 on only
            *(filler("c", 200_000, WEAK), filler("d", 100_000, WEAK)),  # a chunk of 300,000
            *(
                filler("e", 810_000),
                bytes(3 << 20),
                filler("f", 70_000),
            ),  # the longest chunk, one across, zeros, the rest
        ]
    )
    tree = {"clip.mov": [file(data)], "zeros": [file(bytes(2 << 20))], "loop": [file(equal * 4)]}
    return golden.files(golden.snapshot(w.Author(A, "alpha", T0), tree))


def pages() -> Iterator[tuple[str, bytes]]:
    """Files that begin as SQLite's do: pages of 512 bytes on two levels, of 4096 and of 65536, and a wrong size."""
    golden = Golden("pages", "Files cut into pages: 700 of 512 bytes, a run of equal ones, a short last one.", "db")

    def database(size: int, count: int, rest: int) -> bytes:
        head = b"SQLite format 3\0" + (size % 65535).to_bytes(2, "big")
        body = [(head if n == 0 else b"page %d" % n if n % 50 else b"").ljust(size, b"\0") for n in range(count)]
        return b"".join(body) + b"r" * rest

    tree = {
        "small.db": [file(database(512, 700, 100))],
        "normal.db": [file(database(4096, 10, 0)[:20480] + bytes(4096 * 9))],
        "large.db": [file(database(65536, 3, 1))],
        "one page.db": [file(database(4096, 1, 0))],
        "not.db": [file(b"SQLite format 3\0\x03\x00" + b"no power of two" * 20)],
        "too short.db": [file(b"SQLite format 3\0\x10")],
    }
    return golden.files(golden.snapshot(w.Author(A, "alpha", T0, inline=False), tree))


def two_devices(golden: Golden) -> tuple[bytes, bytes, w.Tree, w.Tree]:
    """Both change one file at once. Returns the heads and their trees."""
    base = {"note": [file(b"first")], "dir/kept": [file(b"kept")], "gone": [file(b"to be deleted")]}
    first = golden.snapshot(w.Author(A, "alpha", T0), base)
    of_b = base | {"note": [file(b"from beta", (B, 1), 7)], "dir/of beta": [file(b"b", (B, 1))]}
    second = golden.snapshot(w.Author(B, "beta", T0 + 1, (first,)), of_b)
    of_a = base | {"note": [file(b"from alpha", (A, 2), 6)], "of alpha": [link("note", (A, 2))]}
    del of_a["gone"]
    return golden.snapshot(w.Author(A, "alpha", T0 + 2), of_a), second, of_a, of_b


def heads() -> Iterator[tuple[str, bytes]]:
    golden = Golden("heads", "Two devices that have not seen each other's last snapshots: two heads.", "shared")
    return golden.files(*two_devices(golden)[:2])


def conflict_tree(of_a: w.Tree, of_b: w.Tree) -> w.Tree:
    """The merge of the trees of two_devices(), and a file that is new."""
    tree = {**of_a, **{path: versions for path, versions in of_b.items() if path != "gone"}}
    tree["note"] = [*of_a["note"], *of_b["note"]]
    return tree | {"mine": [file(b"of beta", (B, 2), 9)]}


def conflict() -> Iterator[tuple[str, bytes]]:
    golden = Golden("conflict", "Two heads, merged by a third snapshot, with one path in conflict.", "shared")
    head, _, of_a, of_b = two_devices(golden)
    return golden.files(golden.snapshot(w.Author(B, "beta", T0 + 3, (head,)), conflict_tree(of_a, of_b)))


def siblings() -> Iterator[tuple[str, bytes]]:
    golden = Golden(
        "siblings", "A file and a directory of one name, equal siblings, a directory without a version.", "s"
    )
    tree = {
        "p": [file(b"a file"), folder(0o711, (B, 1))],
        "q": [file(b"a file")],
        "q/below": [file(b"below", (B, 1))],
        "same": [file(b"same", (A, 1), 1), file(b"same", (B, 1), 2)],
        "modes": [file(b"m", (A, 1), 3, 0o600), file(b"m", (B, 1), 3, 0o644)],
        "link or file": [link("q", (A, 1)), file(b"older", (B, 1), -1)],
    }
    first = golden.folder.record(w.Author(A, "alpha", T0), "ack", [])
    return golden.files(golden.snapshot(w.Author(B, "beta", T0, (first,)), tree))


def segment() -> Iterator[tuple[str, bytes]]:
    golden = Golden("segment", "A segment that covers all records but the last of A; condemned packs.", "cached")
    head, _, of_a, of_b = two_devices(golden)
    unused = sorted([stream("a pack that was never there", 32), stream("another", 32)])
    last = golden.folder.record(w.Author(B, "beta", T0 + 3, (head,)), "condemn", [unused])
    golden.folder.segment([[A, 1, 2], [B, 1, 2]])
    tree = conflict_tree(of_a, of_b)
    return golden.files(golden.snapshot(w.Author(A, "alpha", T0 + 4, (last,), inline=False), tree))


BUCKETS = (plain, empty, names, many, clip, pages, heads, conflict, siblings, segment)


def ids() -> dict[str, Any]:
    """Derived keys, and ids of sample bytes."""
    samples = [b"", b"a", b"buckia", bytes(1024), stream("sample", 5000)]
    keys = {f"id of type {kind}": w.derive("buckia v1 public id", bytes([kind])).hex() for kind in range(3)}
    keys["content"] = w.CONTENT_KEY.hex()
    gear = w.derive("buckia v1 public gear", b"", 2048)
    return {
        "keys": keys,
        "gear": {
            "first": f"{w.GEAR[0]:016x}",
            "last": f"{w.GEAR[255]:016x}",
            "hash of the table": w.hash_of(gear).hex(),
        },
        "ids": [
            {"type": kind, "raw": raw.hex(), "id": w.blob_id(kind, raw).hex()} for kind in range(3) for raw in samples
        ],
        "hashes": [{"raw": raw.hex(), "hash": w.hash_of(raw).hex()} for raw in samples],
    }


def msgpack() -> dict[str, Any]:
    """Values and their canonical bytes, some described by what they repeat; and bytes that are not canonical."""
    edges = [0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**63 - 1]
    edges += [2**63, 2**64 - 1, -1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)]
    rows = [
        {"value": value, "canonical": w.canonical(value).hex()} for value in [None, *edges, "", "\u00e9", [], [[None]]]
    ]
    for size in (0, 1, 31, 32, 255, 256, 65535, 65536):
        for value, shown in (
            (b"b" * size, {"bin": "62"}),
            ("s" * size, {"str": "s"}),
            ([None] * size, {"array": None}),
        ):
            raw = w.canonical(value)
            rows.append(
                {"value": shown | {"times": size}, "head": raw[: len(raw) - size].hex(), "hash": w.hash_of(raw).hex()}
            )
    refused = {
        "true": "c3", "float": "cb3ff0000000000000", "map": "80", "extension": "d40100", "timestamp": "d6ff00000000",
        "never used": "c1", "nothing": "", "two values": "0101", "cut short": "92c0", "no UTF-8": "a1ff",
        "surrogate": "a3eda080",
        "1 in uint 8": "cc01", "128 in uint 16": "cd0080", "1 in uint 64": "cf0000000000000001", "1 in int 8": "d001",
        "256 in int 16": "d10100", "65536 in int 32": "d200010000", "2^32 in int 64": "d30000000100000000",
        "-1 in int 8": "d0ff",
        "bin 16 of 1 byte": "c5000161", "str 8 of 1 byte": "d90161", "array 16 of 1": "dc0001c0",
        "array 32 of 1": "dd00000001c0",
        "an array of 2^32 - 1": "ddffffffff", "a true inside": "9192c0c2",
    }  # fmt: skip
    return {"canonical": rows, "refused": [{"why": why, "raw": raw} for why, raw in refused.items()]}


def generated(count: int) -> dict[str, Any]:
    """A directory of files by rule, and the list of chunks by rule, both of `count` items."""
    tree: dict[bytes, w.Entry] = {}
    for n in range(count):
        content = [0, w.blob_id(w.CHUNK, str(n).encode())]
        version = [(A, B)[n % 2], 1 + n % 300, w.FILE, n, T0 + n, 0o644, content, None]
        tree[f"name {n}".encode()] = w.Entry([version])
    blobs, chunks = w.Blobs(), w.Blobs()
    root = w.directory(tree, blobs)
    items = [[w.blob_id(w.CHUNK, str(n).encode()), 1 + n, 1 + n % 3] for n in range(count)]
    listed = w.chunk_list(items, chunks) if count > 1 else None
    return {
        "count": count,
        "directory": dict(zip(("id", "content", "files", "bytes"), map(plainly, root.row()), strict=True)),
        "directory nodes": len(blobs.raw),
        "list": {"depth": listed[0], "id": listed[1].hex()} if listed else None,
        "list nodes": len(chunks.raw),
    }


def plainly(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def trees() -> dict[str, Any]:
    """Roots of directories and chunk lists of many sizes, made by a rule, and a few nodes as they are."""
    return {
        "rule": (
            "Entry n (from 0) has the name 'name <n>' and one file version: device A if n is even, else B, "
            "seq 1 + n mod 300, size n, mtime T0 + n, mode 420, content [0, id of the chunk '<n>'], no digest. "
            "Item n of the list is [id of the chunk '<n>', 1 + n, 1 + n mod 3]. Numbers are decimal."
        ),
        "A": A.hex(), "B": B.hex(), "T0": T0,
        "generated": [generated(count) for count in (0, 1, 2, 31, 32, 33, 200, 512, 513, 700, 5000, 30000)],
        "nodes": [{"about": about, **node(tree)} for about, tree in node_samples()],
    }  # fmt: skip


def node_samples() -> Iterator[tuple[str, w.Tree]]:
    yield "empty", {}
    yield "one file", {"f": [file(b"content")]}
    yield "two siblings, a symlink, a directory of mode 700", {
        "d": [folder(0o700)], "l": [link("f")], "f": [file(b"b", (B, 3)), file(b"a", (A, 9))],
    }  # fmt: skip
    yield "siblings of one value: one in the content hash", {"f": [file(b"a", (A, 9), 1), file(b"a", (B, 2))]}


def node(tree: w.Tree) -> dict[str, Any]:
    blobs = w.Blobs()
    root = w.directory(w.entries_of(tree, blobs), blobs)
    raw = blobs.raw[w.DIRECTORY_NODE, root.id]
    return {
        "raw": raw.hex(),
        "id": root.id.hex(),
        "content": root.content.hex(),
        "files": root.files,
        "bytes": root.size,
    }


def objects() -> dict[str, Any]:
    """Packs and records as they are, with their parts."""
    blobs = w.Blobs()
    for kind, raw in ((0, b"chunk"), (0, bytes(300)), (0, TEXT), (2, b"not really a node"), (1, b"chunk")):
        blobs.add(kind, raw)
    raw, _ = w.make_pack(blobs, salt("objects"), encode)
    names = [{"type": kind, "id": name.hex(), "raw": data.hex()} for (kind, name), data in blobs.raw.items()]
    records = [{"hash": name.hex(), "raw": raw.hex()} for name, raw in record_samples()]
    return {"packs": [{"id": w.hash_of(raw).hex(), "raw": raw.hex(), "blobs": names}], "records": records}


def record_samples() -> Iterator[tuple[bytes, bytes]]:
    made = w.Folder("samples", encode)
    first = made.record(w.Author(A, "alpha", T0), "ack", [])
    second, _ = made.snapshot(w.Author(B, "b\u00eata", -1, (first,)), {"f": [file(b"x", (B, 1))]}, salt("record"))
    made.record(w.Author(A, "", 0, (second,)), "condemn", [sorted(made.rows)])
    yield from ((w.hash_of(raw), raw) for key, raw in made.objects.items() if key.startswith("journal/"))


def build() -> dict[str, bytes]:
    """Path below `specs/vectors` -> bytes, of all that this makes."""
    files = {f"buckets/{path}": raw for bucket in BUCKETS for path, raw in bucket()}
    made: list[tuple[str, Callable[[], dict[str, Any]]]] = [("ids", ids), ("msgpack", msgpack), ("trees", trees)]
    for name, make in [*made, ("objects", objects)]:
        files[f"{name}.json"] = text({"about": f"Made by tests/golden/make_golden.py. {make.__doc__}", **make()})
    index = []
    for case in negatives():
        path = f"negative/{case.object} - {case.why}.bin"
        files[path] = case.raw
        row = {"file": path, "object": case.object, "expect": case.expect, "why": case.why, "name": case.name.hex()}
        index.append(row | case.more)
    files["negative.json"] = text({"about": "Objects that a reader refuses, and how.", "objects": index})
    return files


def main() -> None:
    """Writes the vectors."""
    for name in ("buckets", "negative"):
        shutil.rmtree(VECTORS / name, ignore_errors=True)
    for path, raw in build().items():
        (VECTORS / path).parent.mkdir(parents=True, exist_ok=True)
        (VECTORS / path).write_bytes(raw)


if __name__ == "__main__":
    main()
