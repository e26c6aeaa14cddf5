"""Objects that a reader refuses: each differs from a right one in a single respect.

Where bytes are wrong, the name or id is nevertheless theirs: hostile objects have right hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import naive_writer as w

A, B = bytes(range(0xA0, 0xB0)), bytes(range(0xB0, 0xC0))
ONE, TWO = b"\x11" * 32, b"\x22" * 32
EMPTY = w.directory({}, w.Blobs())
FILE = [0, 1, w.FILE, 5, 7, 0o644, [0, ONE], None]


@dataclass(frozen=True, slots=True)
class Negative:
    """An object, why it is wrong, and which error says so: format, unsupported (a kind of format), integrity.

    `object` is folder, record, pack, segment, directory, list (both as the root nodes of their trees) or blob; `name`
    the hash or id under which it is stored; `more` what else a reader must know.
    """

    object: str
    why: str
    raw: bytes
    name: bytes
    expect: str = "format"
    more: dict[str, Any] = field(default_factory=dict)


def negatives() -> Iterator[Negative]:
    """All of them."""
    yield from folders()
    yield from records()
    yield from packs()
    yield from segments()
    yield from directories()
    yield from lists()
    yield from blobs()


def changed(values: list[Any], at: int, value: Any) -> list[Any]:
    """The list with another value at one place."""
    return [*values[:at], value, *values[at + 1 :]]


def patched(raw: bytes, at: int, value: bytes) -> bytes:
    """The bytes with others from a place on, which may count from the end."""
    at %= len(raw)
    return raw[:at] + value + raw[at + len(value) :]


def case(kind: str, why: str, raw: bytes, expect: str = "format") -> Negative:
    """A negative whose name is the hash of the bytes."""
    return Negative(kind, why, raw, w.hash_of(raw), expect)


def folders() -> Iterator[Negative]:
    right = ["buckia", 1, 1, 0, "photos"]
    more = {"folder": "photos"}
    for why, value, expect in (
        ("magic", changed(right, 0, "bucket"), "format"),
        ("version 2", changed(right, 1, 2), "unsupported"),
        ("chunker 2", changed(right, 2, 2), "unsupported"),
        ("suite 1", changed(right, 3, 1), "unsupported"),
        ("name as bin", changed(right, 4, b"photos"), "integrity"),
        ("another folder's name", changed(right, 4, "films"), "integrity"),
        ("a field too many", [*right, 0], "integrity"),
        ("a field too few", right[:4], "integrity"),
    ):
        raw = w.canonical(value)
        yield Negative("folder", why, raw, w.hash_of(raw), expect, more)
    raw = w.canonical(right) + b"\xc0"
    yield Negative("folder", "bytes after the end", raw, w.hash_of(raw), "format", more)


def records() -> Iterator[Negative]:
    head = b"BKJR\1\0\0\0"
    right = [A, 2, ONE, "snapshot", [], [[B, 1, TWO]], 5, "alpha", [ONE, TWO, 0, 0, []], None]
    first = changed(changed(right, 1, 1), 2, None)
    row = b"\0\0\0\0" + ONE + w.be(76, 4) + w.be(10, 4) + w.be(10, 4)
    size = 76 + 10 + 48 + 8
    with_rows = {
        "no rows": b"",
        "half a row": row[:24],
        "row not at 76": patched(row, 36, w.be(77, 4)),
        "row longer than its pack": patched(row, 40, w.be(11, 4)),
        "row with codec 0 and another length": patched(patched(row, 40, w.be(9, 4)), 44, w.be(10, 4)),
        "row with something reserved": patched(row, 3, b"\1"),
    }
    wrong = {
        "device of 15 bytes": changed(right, 0, A[:15]),
        "seq 0": changed(first, 1, 0),
        "seq beyond ten digits": changed(right, 1, 10**10),
        "seq 2 without prev": changed(right, 2, None),
        "seq 1 with prev": changed(first, 2, ONE),
        "prev of 31 bytes": changed(right, 2, ONE[:31]),
        "kind as bin": changed(right, 3, b"snapshot"),
        "features nil": changed(right, 4, None),
        "features unsorted": changed(right, 4, ["b", "a"]),
        "feature twice": changed(right, 4, ["a", "a"]),
        "vector with own device": changed(right, 5, [[A, 1, TWO]]),
        "vector unsorted": changed(right, 5, [[b"\xff" * 16, 1, TWO], [B, 1, TWO]]),
        "vector with a device twice": changed(right, 5, [[B, 1, TWO], [B, 2, TWO]]),
        "vector with seq 0": changed(right, 5, [[B, 0, TWO]]),
        "time of 65 bits": changed(right, 6, 2**63),
        "name of 65 bytes": changed(right, 7, "n" * 65),
        "name of 33 characters and 66 bytes": changed(right, 7, "\u00e9" * 33),
        "snapshot with a short root": changed(right, 8, [ONE[:31], TWO, 0, 0, []]),
        "snapshot with a pack twice": changed(right, 8, [ONE, TWO, 0, 0, [[ONE, size, None], [ONE, size, None]]]),
        "snapshot with negative files": changed(right, 8, [ONE, TWO, -1, 0, []]),
        "snapshot with a pack without size": changed(right, 8, [ONE, TWO, 0, 0, [[ONE, None]]]),
        "condemn unsorted": changed(changed(right, 3, "condemn"), 8, [[TWO, ONE]]),
        "condemn with a pack twice": changed(changed(right, 3, "condemn"), 8, [[ONE, ONE]]),
        "ack with a body": changed(changed(right, 3, "ack"), 8, [[]]),
        "signature": changed(right, 9, b"s"),
        "a field too many": [*right, None],
        **{why: changed(right, 8, [ONE, TWO, 1, 10, [[ONE, size, rows]]]) for why, rows in with_rows.items()},
    }
    yield from (case("record", why, head + w.canonical(value)) for why, value in wrong.items())
    strange = changed(right, 8, [ONE, TWO, 1, 10, [[ONE, size, patched(row, 0, b"\3")]]])
    yield case("record", "row of type 3", head + w.canonical(strange), "unsupported")
    good = head + w.canonical(right)
    yield case("record", "magic", patched(good, 0, b"BKJX"))
    yield case("record", "version 2", patched(good, 4, b"\2"), "unsupported")
    yield case("record", "suite 1", patched(good, 5, b"\1"), "unsupported")
    yield case("record", "something reserved", patched(good, 7, b"\1"))
    yield case("record", "bytes after the end", good + b"\xc0")
    yield case("record", "cut short", good[:-1])
    yield Negative("record", "name of other bytes", good, ONE, "integrity")


def packs() -> Iterator[Negative]:
    blobs = w.Blobs()
    blobs.add(w.CHUNK, b"first chunk")
    blobs.add(w.CHUNK, b"second chunk")
    good, _ = w.make_pack(blobs, bytes(32))
    first, second = len(good) - 104, len(good) - 56
    for why, raw, expect in (
        ("magic", patched(good, 0, b"BKPX"), "format"),
        ("version 2", patched(good, 4, b"\2"), "unsupported"),
        ("suite 1", patched(good, 5, b"\1"), "unsupported"),
        ("key mode 1", patched(good, 6, b"\1"), "unsupported"),
        ("reserved byte", patched(good, 7, b"\1"), "format"),
        ("epoch 1", patched(good, 11, b"\1"), "format"),
        ("commitment", patched(good, 75, b"\1"), "format"),
        ("magic at the end", patched(good, -4, b"BKPX"), "format"),
        ("no rows", good[:76] + bytes(4) + b"BKPE", "format"),
        ("a row too many", patched(good, -8, w.be(3, 4)), "format"),
        ("a row too few", patched(good, -8, w.be(1, 4)), "format"),
        ("2^32 - 1 rows", patched(good, -8, b"\xff" * 4), "format"),
        ("type 3", patched(good, first, b"\3"), "unsupported"),
        ("codec 2", patched(good, first + 1, b"\2"), "unsupported"),
        ("codec 0 and another length", patched(good, first + 44, w.be(12, 4)), "format"),
        ("reserved in a row", patched(good, first + 3, b"\1"), "format"),
        ("first offset 75", patched(good, first + 36, w.be(75, 4)), "format"),
        ("overlapping rows", patched(good, second + 36, w.be(80, 4)), "format"),
        ("length 0", patched(patched(good, first + 40, bytes(4)), second + 36, w.be(76, 4)), "format"),
        ("length above raw length", patched(good, first + 44, w.be(10, 4)), "format"),
        ("raw length above 16 MiB", patched(good, first + 44, w.be((16 << 20) + 1, 4)), "format"),
        ("a byte before the footer", good[:first] + b"\0" + good[first:], "format"),
        ("bytes after the end", good + b"\0", "format"),
        ("cut short", good[:60], "format"),
    ):
        yield case("pack", why, raw, expect)
    yield Negative("pack", "name of other bytes", good, ONE, "integrity")


def segments() -> Iterator[Negative]:
    folder = w.Folder("f")
    first, _ = folder.snapshot(w.Author(A), {"f": [w.Version(A, 1, w.FILE, b"one")]}, bytes(32))
    folder.snapshot(w.Author(A), {"f": [w.Version(A, 2, w.FILE, b"two")]}, bytes(32))
    folder.record(w.Author(B, vector=(first,)), "ack", [])
    good = folder.objects[f"segments/{folder.segment([[A, 1, 2], [B, 1, 1]]).hex()}"]
    size = int.from_bytes(good[8:12], "big")
    rows = [good[at : at + 52] for at in range(16 + size, len(good), 52)]
    by_device = [
        [raw for key, raw in sorted(folder.objects.items()) if key.startswith(f"journal/{d.hex()}")] for d in (A, B)
    ]
    embedded = by_device[0] + by_device[1]
    found = sorted(
        [name, len(raw)] for key, raw in folder.objects.items() if "packs" in key for name in [w.hash_of(raw)]
    )

    def made(ranges: list[Any], raws: list[bytes], of: list[Any], table: list[bytes]) -> bytes:
        meta = w.canonical([ranges, raws, of])
        return b"BKSG\1\0\0\0" + w.be(len(meta), 4) + w.be(len(table), 4) + meta + b"".join(table)

    spans = [[A, 1, 2], [B, 1, 1]]
    assert made(spans, embedded, found, rows) == good
    yield case("segment", "magic", patched(good, 0, b"BKSX"))
    yield case("segment", "version 2", patched(good, 4, b"\2"), "unsupported")
    yield case("segment", "suite 1", patched(good, 5, b"\1"), "unsupported")
    yield case("segment", "something reserved", patched(good, 7, b"\1"))
    yield case("segment", "a row cut short", good[:-1])
    yield case("segment", "bytes after the end", good + b"\0")
    yield case("segment", "meta longer than the segment", patched(good, 8, b"\xff" * 4))
    yield case("segment", "ranges unsorted", made(spans[::-1], embedded, found, rows))
    yield case("segment", "ranges adjacent", made([[A, 1, 1], [A, 2, 2], [B, 1, 1]], embedded, found, rows))
    yield case("segment", "ranges overlapping", made([[A, 1, 2], [A, 2, 2]], embedded, found, rows))
    yield case("segment", "range from 0", made([[A, 0, 1], [B, 1, 1]], embedded, found, rows))
    yield case("segment", "range backwards", made([[A, 2, 1], [B, 1, 1]], embedded[:1], found, rows))
    yield case("segment", "a record too few", made(spans, embedded[:2], found, rows))
    yield case("segment", "a record too many", made(spans, [*embedded, embedded[2]], found, rows))
    yield case("segment", "records in another order", made(spans, [embedded[1], embedded[0], embedded[2]], found, rows))
    yield case("segment", "a record that is none", made(spans, [*embedded[:2], b"none"], found, rows))
    yield case("segment", "packs unsorted", made(spans, embedded, found[::-1], rows))
    yield case("segment", "rows unsorted", made(spans, embedded, found, rows[::-1]))
    yield case(
        "segment",
        "row of a pack that is not there",
        made(spans, embedded, found, [patched(rows[0], 32, w.be(2, 4)), *rows[1:]]),
    )
    yield case("segment", "reserved in a row", made(spans, embedded, found, [*rows[:-1], patched(rows[-1], 51, b"\1")]))
    strange = made(spans, embedded, found, [*rows[:-1], patched(rows[-1], 48, b"\3")])
    yield case("segment", "type 3 in a row", strange, "unsupported")
    yield case("segment", "a row twice", made(spans, embedded, found, [rows[0], *rows]))
    yield case("segment", "a row less than its pack has", made(spans, embedded, found, rows[1:]))
    yield case("segment", "a pack that no record names", made(spans, embedded, sorted([*found, [ONE, 142]]), rows))
    yield Negative("segment", "name of other bytes", good, ONE, "integrity")


def directories() -> Iterator[Negative]:
    def node(
        items: list[Any], devices: list[bytes] | None = None, level: int = 0, head: tuple[int, int] = (1, 1)
    ) -> bytes:
        return w.canonical([*head, level, [A] if devices is None else devices, items])

    def named(name: bytes) -> bytes:
        return node([[name, [FILE], None]])

    def version(at: int, value: Any) -> bytes:
        return node([[b"f", [changed(FILE, at, value)], None]])

    link, below = [0, 1, w.SYMLINK, 3, 7, 0, b"abc", None], [ONE, TWO, 1, 5]
    many = sorted(b"n%d" % n for n in range(600))
    words = [int.from_bytes(w.blob_id(1, name)[:4], "big") < w.NODE_CUT for name in many]
    cuts, never = (
        [n for n, c in zip(many, words, strict=True) if c],
        [n for n, c in zip(many, words, strict=True) if not c],
    )
    items = [[name, [FILE], None] for name in sorted([*never[:40], cuts[-1]])]
    at_cut = items[: 1 + items.index([cuts[-1], [FILE], None])]
    after = [[b"z%d" % n, [FILE], None] for n in range(3)]
    upper = [[b"a", ONE, TWO, 1, 5], [b"b", TWO, ONE, 1, 5]]
    wrong = {
        "names unsorted": node([[b"b", [FILE], None], [b"a", [FILE], None]]),
        "name twice": node([[b"a", [FILE], None], [b"a", [FILE], None]]),
        "name empty": named(b""), "name of 256 bytes": named(b"n" * 256), "name dot": named(b"."),
        "name dot dot": named(b".."),
        "name with slash": named(b"a/b"), "name absolute": named(b"/a"), "name with NUL": named(b"a\0"),
        "name no UTF-8": named(b"\xff"), "name with surrogate": named(b"\xed\xa0\x80"),
        "name as str": node([["f", [FILE], None]]),
        "no versions and no subtree": node([[b"f", [], None]], []),
        "dot twice": node([[b"f", [FILE, changed(FILE, 3, 6)], None]]),
        "versions unsorted": node([[b"f", [changed(FILE, 1, 2), FILE], None]]),
        "devices unsorted": node([[b"f", [FILE, changed(FILE, 0, 1)], None]], [B, A]),
        "device twice": node([[b"f", [FILE, changed(FILE, 0, 1)], None]], [A, A]),
        "device unused": node([[b"f", [FILE], None]], [A, B]),
        "device of 15 bytes": node([[b"f", [FILE], None]], [A[:15]]),
        "device index beyond": version(0, 1),
        "seq 0": version(1, 0), "kind 3": version(2, 3), "size negative": version(3, -1),
        "size 2^53": version(3, 2**53),
        "mode of 13 bits": version(5, 4096), "mode negative": version(5, -1), "content nil": version(6, None),
        "depth 9": version(6, [9, ONE]), "id of 31 bytes": version(6, [0, ONE[:31]]), "digest 5": version(7, [5, ONE]),
        "digest as str": version(7, [1, "a"]), "digest of 31 bytes": version(7, [1, ONE[:31]]),
        "symlink with a digest": node([[b"f", [changed(link, 7, [1, ONE])], None]]),
        "symlink with NUL": node([[b"f", [changed(link, 6, b"a\0c")], None]]),
        "directory with a digest": node([[b"f", [[0, 1, 2, 0, 0, 0o755, None, [1, ONE]]], None]]),
        "one chunk of more than 16 MiB": version(3, (16 << 20) + 1),
        "list of 1 byte": node([[b"f", [changed(changed(FILE, 6, [1, ONE]), 3, 1)], None]]),
        "1025 versions": node([[b"f", [changed(FILE, 1, n) for n in range(1, 1026)], None]]),
        "subtree that is the empty directory": node([[b"f", [], [EMPTY.id, EMPTY.content, 0, 0]]], []),
        "mtime of 65 bits": version(4, 2**63),
        "symlink with a mode": node([[b"f", [changed(link, 5, 0o777)], None]]),
        "symlink of another size": node([[b"f", [changed(link, 3, 4)], None]]),
        "symlink without target": node([[b"f", [changed(changed(link, 6, b""), 3, 0)], None]]),
        "symlink of 4097 bytes": node([[b"f", [changed(changed(link, 6, b"t" * 4097), 3, 4097)], None]]),
        "directory with mtime": node([[b"f", [[0, 1, 2, 0, 7, 0o755, None, None]], None]]),
        "directory with size": node([[b"f", [[0, 1, 2, 5, 0, 0o755, None, None]], None]]),
        "directory with content": node([[b"f", [[0, 1, 2, 0, 0, 0o755, ONE, None]], None]]),
        "subtree without counts": node([[b"f", [], below[:2]]], []),
        "a list's type": node([[b"f", [FILE], None]], head=(1, 2)),
        "level 8": node(upper, [], 8), "level negative": node([], [], -1),
        "devices above level 0": node(upper, [A], 1),
        "root with one child": node(upper[:1], [], 1), "root with none": node([], [], 1),
        "last names unsorted": node(upper[::-1], [], 1),
        "513 items": node([[name, [FILE], None] for name in sorted([*never, *(b"x%d" % n for n in range(9))])[:513]]),
        "goes on after a cut": node([*at_cut, *after]),
        "a field too many": w.canonical([1, 1, 0, [A], [[b"f", [FILE], None]], None]),
        "no array": w.canonical(b"node"),
    }  # fmt: skip
    assert len(at_cut) > w.NODE_MIN
    for why, raw in wrong.items():
        yield Negative("directory", why, raw, w.blob_id(w.DIRECTORY_NODE, raw))
    raw = node([[b"f", [FILE], None]], head=(2, 1))
    yield Negative("directory", "first number 2", raw, w.blob_id(w.DIRECTORY_NODE, raw), "unsupported")
    raw = named(b"f")
    yield Negative("directory", "id of other bytes", raw, ONE, "integrity")
    yield Negative("directory", "id of the type of lists", raw, w.blob_id(w.LIST_NODE, raw), "integrity")


def lists() -> Iterator[Negative]:
    def node(items: list[Any], level: int = 0, devices: tuple[bytes, ...] = ()) -> bytes:
        return w.canonical([1, 2, level, devices, items])

    rising = [[b"\xff" + w.be(n, 31), 9, 1] for n in range(513)]
    wrong = {
        "no items": node([]), "one chunk once": node([[ONE, 9, 1]]),
        "equal neighbours": node([[ONE, 9, 1], [ONE, 9, 2]]),
        "repeat 0": node([[ONE, 9, 1], [TWO, 9, 0]]), "length 0": node([[ONE, 9, 1], [TWO, 0, 1]]),
        "id of 31 bytes": node([[ONE, 9, 1], [TWO[:31], 9, 1]]), "devices": node([[ONE, 9, 2]], 0, (A,)),
        "length 2^53": node([[ONE, 9, 1], [TWO, 2**53, 1]]),
        "chunk of more than 16 MiB": node([[ONE, 9, 1], [TWO, (16 << 20) + 1, 1]]), "513 items": node(rising),
        "goes on after a cut": node([*rising[:31], [bytes(32), 9, 1], *rising[31:40]]),
        "root with one child": node([[ONE, 9, 3]], 1), "level 8": node([[ONE, 9, 1], [TWO, 9, 1]], 8),
    }  # fmt: skip
    raw = w.canonical([2, 2, 0, [], [[ONE, 9, 2]]])
    yield Negative("list", "first number 2", raw, w.blob_id(w.LIST_NODE, raw), "unsupported")
    for why, raw in wrong.items():
        yield Negative("list", why, raw, w.blob_id(w.LIST_NODE, raw))


def blobs() -> Iterator[Negative]:
    data = b"z" * 100
    frame, magic = w.zstd_frame(data), b"\x28\xb5\x2f\xfd"
    block = w.zstd_frame(data)[6:]
    for why, codec, raw_length, payload, expect in (
        ("other bytes", 0, 100, b"y" + data[1:], "integrity"),
        ("frame of other bytes", 1, 100, w.zstd_frame(b"y" * 100), "integrity"),
        ("codec 2", 2, 100, ONE + frame, "unsupported"),
        ("codec 3", 3, 100, frame, "unsupported"),
        ("stored with another length", 0, 101, data, "format"),
        ("frame of another length", 1, 99, frame, "format"),
        ("frame that does not state its content size", 1, 100, magic + b"\0\0" + block, "format"),
        ("frame that states more than it holds", 1, 101, magic + b"\x20\x65" + block, "format"),
        ("frame that states less than it holds", 1, 99, magic + b"\x20\x63" + block, "format"),
        ("bytes after the frame", 1, 100, frame + b"\0", "format"),
        ("a second frame", 1, 100, frame + frame, "format"),
        ("a skippable frame after it", 1, 100, frame + b"\x50\x2a\x4d\x18" + bytes(4), "format"),
        ("a skippable frame before it", 1, 100, b"\x50\x2a\x4d\x18" + bytes(4) + frame, "format"),
        ("frame with a window of 2 GiB", 1, 100, magic + b"\x80\xa8" + (100).to_bytes(4, "little") + block, "format"),
        ("frame with a dictionary", 1, 100, magic + b"\x21\x07\x64" + block, "format"),
    ):
        more = {"type": w.CHUNK, "codec": codec, "raw length": raw_length}
        yield Negative("blob", why, payload, w.blob_id(w.CHUNK, data), expect, more)
