"""Seeds of the targets that read bytes, from the real encoders, and hostile relatives of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack
import zstandard

from buckia.core import canonical
from buckia.core.codec import RAW, ZSTD, Compressor
from buckia.core.content import encode_chunks
from buckia.core.ids import BlobId, BlobType, DeviceId, Dot, ObjectId, blob_id, object_id
from buckia.core.index import build_segment
from buckia.core.manifest import (
    EMPTY,
    Branch,
    Digest,
    Entry,
    FileContent,
    Kind,
    Subtree,
    Version,
    encode_directory,
)
from buckia.core.pack import PackBuilder, SealedPack
from buckia.core.record import (
    Ack,
    Body,
    Condemn,
    PackRef,
    Record,
    Snapshot,
    encode_folder,
    encode_record,
    pack_key,
    record_key,
    segment_key,
    tip_key,
)
from buckia.local.rows import Row, encode_rows
from fuzz.format_targets import FOLDERS

Cases = dict[str, bytes]

_A, _B = DeviceId(b"a" * 16), DeviceId(b"b" * 16)
_TREE = Subtree(blob_id(1, b"node"), blob_id(1, b"content"), 3, 12345)


def _chunk(number: int) -> BlobId:
    return blob_id(BlobType.CHUNK, b"%d" % number)


def _seal(contents: Mapping[bytes, int], salt: int = 0) -> SealedPack:
    builder, compressor = PackBuilder(bytes([salt]) * 32, bytearray()), Compressor()
    for raw, kind in contents.items():
        codec, payload = compressor.compress(raw)
        builder.add(kind, codec, blob_id(kind, raw), len(raw), payload)
    return builder.finish()


_SEALED = _seal({b"one": 0, b"two " * 100: 0, EMPTY: 1, bytes(5000): 0}, 1)
_OTHER = _seal({b"one": 0, b"three": 0}, 2)


def _record(body: Body, seq: int = 1, device: DeviceId = _A) -> bytes:
    prev = None if seq == 1 else object_id(b"before")
    vector = ((_B, 7, object_id(b"other")),) if device == _A else ()
    return encode_record(Record(device, seq, prev, (), vector, 1_700_000_000_000_000_000, "caf\u00e9", body))


def _snapshot(*packs: PackRef) -> Snapshot:
    return Snapshot(_TREE.id, _TREE.content_hash, 3, 12345, packs)


def _ref(pack: SealedPack, *, inline: bool = True) -> PackRef:
    return PackRef(pack.id, len(pack.data), pack.rows if inline else None)


def _array(*items: object) -> bytes:
    packed: bytes = msgpack.packb(items)
    return packed


def _canonical() -> Cases:
    return {
        "nil": b"\xc0",
        "nested": canonical.encode([None, 0, -1, 2**64 - 1, -(2**63), b"bytes", "text \u00e9", [[[[[[[b""]]]]]]]]),
        "long": canonical.encode([b"x" * 300, "y" * 70, list(range(300))]),
        "deep": b"\x91" * 2000 + b"\xc0",
        "announces-much": b"\xdd\xff\xff\xff\xff" * 3,
        "map": b"\x81\x01\x02",
        "boolean": b"\x93\xc2\xc3\xc0",
        "float": b"\xcb" + bytes(8),
        "extension": b"\xd6\xff" + bytes(4),
        "long-form": b"\xcd\x00\x01",
        "surrogate": b"\xa3\xed\xa0\x80",
        "trailing": b"\x90\x90",
        "none": b"",
    }


def _records() -> Cases:
    snapshot = _record(_snapshot(_ref(_SEALED), _ref(_OTHER, inline=False)), 2)
    start = snapshot[:8] + b"\x9a\xc4\x10" + _A + b"\x01\xc0\xa8snapshot\x90\x90\x00\xa0"
    fields: list[canonical.Value] = [_A, 3, bytes(32), "later", ["z"], [], 0, "", [1, [2]], b"signed"]
    return {
        "snapshot": snapshot,
        "first": _record(_snapshot(), 1),
        "condemn": _record(Condemn(tuple(sorted((_SEALED.id, _OTHER.id)))), 9_999_999_999),
        "ack": _record(Ack(), 1, _B),
        "later-kind": snapshot[:8] + canonical.encode(fields),
        "later-feature": snapshot[:8] + canonical.encode([*fields[:3], "ack", *fields[4:]]),
        "later-version": b"BKJR\x02" + snapshot[5:],
        "own-vector": snapshot[:8] + canonical.encode([_A, 1, None, "ack", [], [[_A, 1, bytes(32)]], 0, "", [], None]),
        "boolean-seq": snapshot[:8] + _array(_A, True, None, "ack", [], [], 0, "", [], None),
        "announces-packs": start + b"\xdd\xff\xff\xff\xff",
        "header-only": snapshot[:8],
    }


def _folders() -> Cases:
    cases = {f"folder-{number}": encode_folder(name) for number, name in enumerate(FOLDERS)}
    return cases | {
        "another": encode_folder("another"),
        "later-version": canonical.encode(["buckia", 2, 1, 0, ""]),
        "boolean-version": _array("buckia", True, 1, 0, ""),
        "text": b'["buckia", 1, 1, 0, ""]',
        "more": canonical.encode(["buckia", 1, 1, 0, "", None]),
    }


def _keys() -> Cases:
    id = ObjectId(bytes(range(32)))
    keys = {
        "tip": tip_key(_A, 1, id),
        "record": record_key(_A, 9_999_999_999, id),
        "pack": pack_key(id),
        "segment": segment_key(id),
        "seq-zero": tip_key(_A, 0, id),
        "newline": pack_key(id) + "\n",
        "wrong-shelf": pack_key(id).replace("packs/00", "packs/01"),
        "capitals": segment_key(id).upper().lower().replace("0a", "0A"),
        "other-digits": record_key(_A, 1, id).replace("0000000001", "000000000\u0661"),
        "up": "packs/../folder",
    }
    return {name: key.encode() for name, key in keys.items()}


def _packs() -> Cases:
    data = bytes(_SEALED.data)
    zeros = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    liar = PackBuilder(bytes(32), bytearray())
    liar.add(0, ZSTD, _chunk(1), len(zeros) + 1, zeros)
    liar.add(0, RAW, _chunk(2), 3, b"abc")
    liar.add(1, ZSTD, _chunk(3), 1 << 20, zeros)
    return {
        "four-blobs": data,
        "two-blobs": bytes(_OTHER.data),
        "lies": bytes(liar.finish().data),
        "many": bytes(_seal({b"%d" % number: number % 3 for number in range(40)}).data),
        "cut": data[:-1],
        "more-rows": data[:-8] + (9).to_bytes(4, "big") + b"BKPE",
        "most-rows": data[:-8] + (1 << 16).to_bytes(4, "big") + b"BKPE",
        "gap": data[:80] + b"\0" + data[80:],
        "later-suite": data[:5] + b"\1" + data[6:],
    }


def _pack_headers() -> Cases:
    header = bytes(_SEALED.data[:76])
    return {
        "good": header,
        "longer": bytes(_SEALED.data[:90]),
        "short": header[:75],
        "epoch": header[:11] + b"\1" + header[12:],
        "commitment": header[:75] + b"\1",
        "key-mode": header[:6] + b"\1" + header[7:],
    }


def _pack_tails() -> Cases:
    counts = {"one": 1, "most": 1 << 16, "none": 0, "too-many": (1 << 16) + 1, "all": (1 << 32) - 1}
    return {name: count.to_bytes(4, "big") + b"BKPE" for name, count in counts.items()} | {"short": b"BKPE"}


def _pack_rows() -> Cases:
    rows = _SEALED.rows
    last = rows[-48:]
    return {
        "good": rows,
        "other": _OTHER.rows,
        "late-start": last,
        "reserved": rows[:2] + b"\1" + rows[3:],
        "codec": rows[:1] + b"\2" + rows[2:],
        "type": b"\3" + rows[1:],
        "huge": last[:36] + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        "not-whole": rows[:-1],
    }


def _blobs() -> Cases:
    raw = b"some text, again and again; " * 40
    frame = zstandard.ZstdCompressor(level=1).compress(raw)
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(raw)
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"

    def case(codec: int, length: int, payload: bytes) -> bytes:
        return bytes([codec]) + length.to_bytes(4, "big") + payload

    return {
        "raw": case(RAW, len(raw), raw),
        "zstd": case(ZSTD, len(raw), frame),
        "checksum": case(ZSTD, len(raw), checked),
        "no-size": case(ZSTD, len(raw), nameless),
        "trailing": case(ZSTD, len(raw), frame + b"\0"),
        "two-frames": case(ZSTD, 2 * len(raw), frame + frame),
        "skippable": case(ZSTD, len(raw), skippable + frame),
        "cut": case(ZSTD, len(raw), frame[:-3]),
        "wrong-length": case(ZSTD, len(raw) + 1, frame),
        "claims-much": case(ZSTD, (1 << 32) - 1, b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + frame[6:]),
        "large-window": case(ZSTD, len(raw), b"\x28\xb5\x2f\xfd\x00\xf8" + frame[6:]),
        "large": case(ZSTD, 16 << 20, zstandard.ZstdCompressor().compress(bytes(16 << 20))),
        "later-codec": case(2, 1, b"x"),
        "nothing": case(RAW, 0, b""),
    }


def _segments() -> Cases:
    first = _record(_snapshot(_ref(_SEALED)), 1)
    second = _record(_snapshot(_ref(_OTHER, inline=False)), 2)
    packs = {_OTHER.id: (len(_OTHER.data), _OTHER.rows)}
    both = build_segment([first, second, _record(Ack(), 5, _B)], packs)
    meta = 16 + int.from_bytes(both[8:12], "big")
    return {
        "both": both,
        "one": build_segment([first], {}),
        "gone": build_segment([second], {_OTHER.id: (len(_OTHER.data), b"")}),
        "empty": build_segment([], {}),
        "unsorted": both[:meta] + both[meta + 52 :] + both[meta : meta + 52],
        "same-ids": both[:meta] + both[meta : meta + 52] * ((len(both) - meta) // 52),
        "no-such-pack": both[: meta + 32] + b"\xff\xff\xff\xff" + both[meta + 36 :],
        "long-meta": both[:8] + b"\xff\xff\xff\xff" + both[12:],
        "many-rows": both[:12] + b"\xff\xff\xff\xff" + both[16:],
        "header-only": both[:16],
    }


def _file(number: int = 1, device: DeviceId = _A, seq: int = 1, digest: Digest | None = None) -> Version:
    return Version(Dot(device, seq), Kind.FILE, number, -1, 0o644, FileContent(0, _chunk(number)), digest)


def _directories() -> Cases:
    link = Version(Dot(_B, 9), Kind.SYMLINK, 4, 10**18, 0, b"a/..")
    folder = Version(Dot(_A, 3), Kind.DIRECTORY, 0, 0, 0o755, None)
    big = Version(Dot(_B, 2), Kind.FILE, 1 << 40, 5, 0o7777, FileContent(3, _chunk(1)), Digest(1, bytes(32)))
    entries = [
        Entry(b"a", (_file(),)),
        Entry(b"b", (folder,), _TREE),
        Entry(b"c", (_file(2, _A, 4, Digest(2, bytes(16))), big)),
        Entry("d\u00e9".encode(), (), _TREE),
        Entry(b"e", (link,)),
    ]
    node = encode_directory(0, entries)
    version = [0, 1, 0, 1, 0, 0o644, [0, bytes(32)], None]

    def leaf(*items: object) -> bytes:
        return _array(1, 1, 0, [_A], list(items))

    return {
        "empty": EMPTY,
        "entries": node,
        "many": encode_directory(0, [Entry(b"%03d" % number, (_file(),)) for number in range(31)]),
        "branches": encode_directory(1, [Branch(b"m", _TREE), Branch(b"z", _TREE)]),
        "level-8": _array(1, 1, 8, [], [[b"m", *(_TREE.id, _TREE.content_hash, 1, 1)]]),
        "up": leaf([b"..", [version], None]),
        "slash": leaf([b"a/b", [version], None]),
        "no-device": leaf([b"a", [[1, *version[1:]]], None]),
        "negative-device": leaf([b"a", [[-1, *version[1:]]], None]),
        "boolean-kind": leaf([b"a", [[*version[:2], False, *version[3:]]], None]),
        "much": _array(1, 1, 0, [], [[name, [], [bytes(32), bytes(32), 2**53 - 1, 1]] for name in (b"a", b"b")]),
        "later-format": _array(2, 1, 0, [], []),
    }


def _chunk_lists() -> Cases:
    runs = [(_chunk(number), 65536 + number, 1 + number % 3) for number in range(20)]
    return {
        "runs": encode_chunks(0, runs),
        "repeated": encode_chunks(0, [(_chunk(1), 1 << 20, 1 << 30)]),
        "branches": encode_chunks(2, [(_chunk(1), 1 << 40, 1 << 20), (_chunk(2), 1 << 41, 1 << 21)]),
        "overflow": _array(1, 2, 0, [], [[_chunk(1), 1 << 24, 2**63]]),
        "unfolded": _array(1, 2, 0, [], [[_chunk(1), 5, 1], [_chunk(1), 5, 1]]),
        "empty": _array(1, 2, 0, [], []),
        "directory": EMPTY,
    }


def _local_rows() -> Cases:
    dots = (Dot(_A, 1), Dot(_B, 2))
    rows = [
        Row("a", b"a", Kind.FILE, dots, FileContent(0, _chunk(1)), 0o644, 5, 7, (33188, 5, 7, 8, 9)),
        Row("b", b"B", Kind.SYMLINK, dots[:1], b"target", 0, 6, 0),
        Row("c\udcff", b"c", Kind.DIRECTORY, dots[1:], None, 0o755, 0, 0, None, True),
    ]
    item = [b"n", None, 0, [0, 1], None, 0, 0, 0, None, 0]
    return {
        "rows": encode_rows(rows),
        "none": encode_rows([]),
        "later-format": _array(2, [], []),
        "no-device": _array(1, [], [item]),
        "odd-dots": _array(1, [_A], [[*item[:3], [0], *item[4:]]]),
        "map": b"\x80",
    }


MAKERS: dict[str, Callable[[], Cases]] = {
    "canonical": _canonical,
    "record": _records,
    "folder": _folders,
    "key": _keys,
    "pack-header": _pack_headers,
    "pack-tail": _pack_tails,
    "pack-rows": _pack_rows,
    "pack": _packs,
    "blob": _blobs,
    "segment": _segments,
    "directory": _directories,
    "chunk-list": _chunk_lists,
    "local-rows": _local_rows,
}
"""What makes the seeds of each target, by name."""
