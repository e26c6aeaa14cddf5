"""The product and the published format agree.

buckia restores and verifies every golden bucket, refuses every negative object with the error that is stated, and makes
the same nodes, roots and chunks as the naive writer does of one description. What buckia writes `specs/reader.py`
restores.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.core import canonical, content, directory, index, pack, record
from buckia.core.chunker import chunk_ends, kernel, page_size
from buckia.core.ids import BlobId, BlobType, DeviceId, Dot, ObjectId, blob_id, object_id
from buckia.core.manifest import Content, Digest, Entry, FileContent, Kind, Subtree, Version
from buckia.errors import FormatError, IntegrityError, UnsupportedFormatError
from tests.golden.vectors import HERE, NEGATIVES, VECTORS, golden_buckets, listing, load, reader
from tests.trees import MemoryNodes

BUCKETS = list(golden_buckets())
IDS = [path.name for path, _, _ in BUCKETS]
ERRORS = {"format": FormatError, "unsupported": UnsupportedFormatError, "integrity": IntegrityError}
COPY = " (conflict "
TREES = json.loads((VECTORS / "trees.json").read_text(encoding="utf-8"))

w = load(HERE / "naive_writer.py")


def client(bucket: Path, folder: str, state: Path) -> BuckiaClient:
    """A client for a folder; a location names every one but that at the bucket's top."""
    if folder:
        return BuckiaClient.for_location(str(bucket / folder), state_dir=state)
    return BuckiaClient(BucketConfig(provider="local", bucket_name=str(bucket)), state_dir=state)


def state_of(top: Path) -> dict[str, bytes]:
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


# -- what the naive writer wrote


@pytest.mark.parametrize(("path", "folder", "expected"), BUCKETS, ids=IDS)
def test_buckia_restores_every_snapshot(path: Path, folder: str, expected: dict[str, Any], tmp_path: Path) -> None:
    with client(path, folder, tmp_path / "state") as one:
        for name, snapshot in expected["snapshots"].items():
            target = tmp_path / name
            result = one.restore(name, target=target)
            # A link that leads out of the folder is written for nobody who did not ask for it.
            refused = [row["path"] for row in snapshot["listing"] if row.get("target", "").startswith("/")]
            assert [failure.path for failure in result.errors] == refused
            assert result.root == snapshot["content_root"]
            assert [row for row in listing(target) if COPY not in row["path"]] == [
                row for row in snapshot["listing"] if row["path"] not in refused
            ]


@pytest.mark.parametrize(("path", "folder", "expected"), BUCKETS, ids=IDS)
def test_buckia_lists_the_snapshots(path: Path, folder: str, expected: dict[str, Any], tmp_path: Path) -> None:
    with client(path, folder, tmp_path / "state") as one:
        found = {info.id: info for info in one.snapshots()}
    assert {name[:8] for name in expected["snapshots"]} == set(found)
    for name, snapshot in expected["snapshots"].items():
        info = found[name[:8]]
        assert (info.root, info.files, info.bytes) == (
            snapshot["content_root"],
            snapshot["files"],
            snapshot["bytes"],
        )
        assert info.head == (name in expected["heads"])


@pytest.mark.parametrize(("path", "folder", "expected"), BUCKETS, ids=IDS)
def test_every_byte_of_every_bucket_verifies(path: Path, folder: str, expected: dict[str, Any], tmp_path: Path) -> None:
    before = state_of(path)
    with client(path, folder, tmp_path / "state") as one:
        result = one.verify(read_data=True)
    assert result.damaged == []
    assert result.foreign == []
    assert result.snapshots == len(expected["snapshots"])
    assert result.unreferenced_packs == 0
    assert state_of(path) == before


def test_two_heads_are_shown_merged(tmp_path: Path) -> None:
    """The bucket `conflict` goes on where `heads` ends: its last snapshot is their merge and one new file."""
    heads, merged = BUCKETS[IDS.index("heads")], BUCKETS[IDS.index("conflict")]
    with client(*heads[:2], tmp_path / "state") as one:
        one.restore(target=tmp_path / "out")
    (head,) = merged[2]["heads"]
    wanted = [row for row in merged[2]["snapshots"][head]["listing"] if row["path"] != "mine"]
    found = listing(tmp_path / "out")
    assert [row for row in found if COPY not in row["path"]] == wanted
    (copy,) = (row for row in found if COPY in row["path"])
    assert copy["path"] == "note (conflict a0a1a2 2)"
    assert (tmp_path / "out" / copy["path"]).read_bytes() == b"from alpha"


@pytest.mark.parametrize("kind", ["packs", "journal", "tips", "segments", "folder"])
def test_buckia_notices_a_flipped_bit(tmp_path: Path, kind: str) -> None:
    path, folder, _ = BUCKETS[IDS.index("segment")]
    shutil.copytree(path, tmp_path / "bucket")
    top = tmp_path / "bucket" / folder / "_buckia"
    victim = max(file for file in [*top.glob(f"{kind}/**/*"), top / "folder"] if file.is_file() and kind in str(file))
    raw = bytearray(victim.read_bytes())
    raw[min(90, len(raw) - 1)] ^= 1
    victim.write_bytes(raw)
    with client(tmp_path / "bucket", folder, tmp_path / "state") as one:
        try:
            damaged = [damage.object for damage in one.verify(read_data=True).damaged]
        except (FormatError, IntegrityError):
            assert kind == "folder"
        else:
            assert victim.relative_to(tmp_path / "bucket").as_posix() in damaged


# -- what is refused


class OneNode:
    """A store with one node."""

    def __init__(self, name: bytes, raw: bytes) -> None:
        self._name = name
        self._raw = raw

    def get(self, kind: BlobType, id: BlobId) -> bytes:
        assert id == self._name, "a malformed node was followed"
        return checked(kind, 0, id, self._raw, len(self._raw))

    def put(self, kind: BlobType, raw: bytes) -> BlobId:
        raise AssertionError("reading writes nothing")


def checked(kind: int, codec: int, id: bytes, payload: bytes, raw_length: int) -> bytes:
    row = pack.BlobRow(kind, codec, BlobId(id), pack.HEADER_BYTES, len(payload), raw_length)
    return pack.read_blob(row, payload)


def read_record(raw: bytes) -> None:
    decoded = record.decode_record(raw)
    for ref in decoded.body.packs if isinstance(decoded.body, record.Snapshot) else ():
        if ref.rows is not None:
            pack.decode_rows(ref.rows, size=ref.size)


def read_list(name: bytes, raw: bytes) -> None:
    _, _, level, _, items = canonical.decode(raw, size_max=len(raw))
    size = sum(item[1] * item[2] for item in items)
    list(content.runs(OneNode(name, raw), FileContent(level + 1, BlobId(name)), size))


def read_object(case: dict[str, Any], raw: bytes) -> None:
    """Decodes an object as its kind."""
    name = bytes.fromhex(case["name"])
    whole: dict[str, Callable[[bytes], Any]] = {
        "record": read_record,
        "pack": pack.parse_pack,
        "segment": lambda raw: index.Segment(raw).check(),
    }
    match case["object"]:
        case "folder":
            record.check_folder(raw, case["folder"])
        case "blob":
            checked(case["type"], case["codec"], name, raw, case["raw length"])
        case "directory":
            list(directory.entries(OneNode(name, raw), BlobId(name)))
        case "list":
            read_list(name, raw)
        case kind:
            if object_id(raw) != name:
                raise IntegrityError("other bytes")
            whole[kind](raw)


@pytest.mark.parametrize("case", NEGATIVES, ids=[f"{case['object']}-{case['why']}" for case in NEGATIVES])
def test_buckia_refuses_with_the_error_that_is_stated(case: dict[str, Any]) -> None:
    with pytest.raises((FormatError, IntegrityError)) as caught:
        read_object(case, (VECTORS / case["file"]).read_bytes())
    assert caught.type is ERRORS[case["expect"]]


# -- one description, two writers


def version_of(naive: Any, of: Content) -> Version:
    """The naive writer's version as buckia's."""
    dot = Dot(DeviceId(naive.device), naive.seq)
    digest = Digest(*naive.digest) if naive.digest else None
    return Version(dot, Kind(naive.kind), len(naive.data), naive.mtime_ns, naive.mode, of, digest)


class Built(MemoryNodes):
    """Builds the tree of a naive description with what buckia has for it; `raw` are its nodes and chunks."""

    def tree(self, below: dict[str, Any]) -> Subtree:
        """The directory of nested names; the versions of a name are under the key ''."""
        return directory.build(self, [*self._entries(below)])

    def _entries(self, below: dict[str, Any]) -> Iterator[Entry]:
        for name, inside in sorted(below.items(), key=lambda item: item[0].encode()):
            versions = [version_of(v, self._content(v)) for v in inside.pop("", [])]
            ordered = sorted(versions, key=lambda v: (v.dot.device, v.dot.seq))
            yield Entry(name.encode(), tuple(ordered), self.tree(inside) if inside else None)

    def _content(self, naive: Any) -> Content:
        if naive.kind != w.FILE:
            return naive.data if naive.kind == w.SYMLINK else None
        chunks, start = content.ChunkListBuilder(self), 0
        for end in chunk_ends(naive.data, kernel=kernel(), page_size=page_size(naive.data[:18]), final=True):
            chunks.add(self.put(BlobType.CHUNK, naive.data[start:end]), end - start)
            start = end
        return chunks.finish()


def nested(tree: dict[str, Any]) -> dict[str, Any]:
    top: dict[str, Any] = {}
    for path, versions in tree.items():
        here = top
        for part in path.split("/"):
            here = here.setdefault(part, {})
        here[""] = versions
    return top


def descriptions() -> Iterator[tuple[str, dict[str, Any]]]:
    one, two = b"\x01" * 16, b"\x02" * 16

    def file(data: bytes, dot: tuple[bytes, int] = (one, 1), mtime: int = 5, mode: int = 0o644) -> Any:
        return w.Version(*dot, w.FILE, data, mtime, mode, (1, bytes(32)) if len(data) % 2 else None)

    noise = random.Random(7).randbytes(2_500_000)
    database = b"SQLite format 3\0\x02\x00" + bytes(494) + noise[: 512 * 900] + bytes(512 * 40) + b"rest"
    yield "nothing", {}
    yield "small files", {"a": [file(b"")], "b/c": [file(b"x")], "b/d": [file(bytes(70_000))], "b-": [file(b"y")]}
    yield "large files", {"noise": [file(noise)], "zeros": [file(bytes(3 << 20))], "twice": [file(noise[:900_000] * 2)]}
    yield "pages", {"db": [file(database)], "one": [file(database[:512])], "short": [file(database[:17])]}
    yield "many", {f"all/{n}": [file(b"%d" % n, mtime=n, mode=n % 512)] for n in range(1500)}
    yield (
        "siblings",
        {
            "f": [file(b"1", (two, 9), 1), file(b"2", (one, 3), 2), file(b"1", (one, 4), 3)],
            "f/below": [file(b"below", (two, 1))],
            "d": [w.Version(two, 2, w.DIRECTORY, mode=0o700), w.Version(one, 2, w.SYMLINK, b"../x", -5)],
            "e\u0301": [file(b"as it is", mode=0o4755)],
        },
    )


DESCRIPTIONS = dict(descriptions())


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_buckia_and_the_naive_writer_make_the_same_blobs(name: str) -> None:
    blobs = w.Blobs()
    root = w.directory(w.entries_of(DESCRIPTIONS[name], blobs), blobs)
    nodes = Built()
    tree = nodes.tree(nested(DESCRIPTIONS[name]))
    assert (tree.id, tree.content_hash, tree.files, tree.bytes) == (root.id, root.content, root.files, root.size)
    assert nodes.raw == {id: raw for (_, id), raw in blobs.raw.items()}


@pytest.mark.parametrize("case", TREES["generated"], ids=[str(case["count"]) for case in TREES["generated"]])
def test_buckia_makes_the_generated_trees(case: dict[str, Any]) -> None:
    devices = [DeviceId(bytes.fromhex(TREES[name])) for name in ("A", "B")]
    count = case["count"]
    chunks = [blob_id(BlobType.CHUNK, b"%d" % n) for n in range(count)]
    entries = []
    for n in range(count):
        dot = Dot(devices[n % 2], 1 + n % 300)
        version = Version(dot, Kind.FILE, n, TREES["T0"] + n, 0o644, FileContent(0, chunks[n]))
        entries.append(Entry(b"name %d" % n, (version,)))
    nodes = MemoryNodes()
    tree = directory.build(nodes, sorted(entries, key=lambda entry: entry.name))
    assert len(nodes.raw) == case["directory nodes"]
    assert case["directory"] == {
        "id": tree.id.hex(),
        "content": tree.content_hash.hex(),
        "files": tree.files,
        "bytes": tree.bytes,
    }
    if case["list"]:
        builder = content.ChunkListBuilder(nodes)
        for n, chunk in enumerate(chunks):
            for _ in range(1 + n % 3):
                builder.add(chunk, 1 + n)
        root = builder.finish()
        assert case["list"] == {"depth": root.depth, "id": root.id.hex()}
        size = sum((1 + n) * (1 + n % 3) for n in range(count))
        assert [*content.runs(nodes, root, size)] == [(chunk, 1 + n, 1 + n % 3) for n, chunk in enumerate(chunks)]


def test_buckia_reads_the_single_objects() -> None:
    vectors = json.loads((VECTORS / "objects.json").read_text(encoding="utf-8"))
    for made in vectors["packs"]:
        raw = bytes.fromhex(made["raw"])
        rows = pack.parse_pack(raw)
        assert [row.id.hex() for row in rows] == [blob["id"] for blob in made["blobs"]]
        for row, blob in zip(rows, made["blobs"], strict=True):
            assert pack.read_blob(row, raw[row.offset : row.offset + row.length]).hex() == blob["raw"]
    for made in vectors["records"]:
        raw = bytes.fromhex(made["raw"])
        assert record.encode_record(record.decode_record(raw)) == raw
        assert object_id(raw) == ObjectId(bytes.fromhex(made["hash"]))


# -- what buckia writes


def fill(top: Path) -> None:
    """A small tree of everything that a folder can hold."""
    noise = random.Random(11)
    files = {
        "empty": b"",
        "one byte": b"1",
        "text.txt": b"many green bottles\n" * 5000,
        "noise.bin": noise.randbytes(3_000_000),
        "zeros": bytes(3 << 20),
        "deep/er/and/deeper/file": b"deep",
        "caf\u00e9/\u6771\u4eac": b"Tokyo",
        "data.db": b"SQLite format 3\0\x10\x00" + noise.randbytes(300_000),
        **{f"many/{n:04d}": b"%d\n" % n for n in range(700)},
    }
    for number, (name, data) in enumerate(files.items()):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600 if number % 3 else 0o755)
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_007))
    (top / "nothing in it").mkdir(mode=0o700)
    (top / "deep" / "link").symlink_to("../text.txt")
    os.utime(top / "deep" / "link", ns=(0, 1_500_000_000_123_456_789), follow_symlinks=False)


def test_the_reader_restores_what_buckia_writes(tmp_path: Path) -> None:
    local, bucket = tmp_path / "local", tmp_path / "bucket"
    fill(local)
    before = listing(local)
    with BuckiaClient.for_location(str(bucket / "photos"), state_dir=tmp_path / "state") as one:
        first = one.sync(local)
        assert first.failed == 0
        (old,) = reader.Bucket(str(bucket), "photos").heads()
        (local / "text.txt").write_bytes(b"changed")
        (local / "noise.bin").write_bytes(b"inserted" + (local / "noise.bin").read_bytes())
        shutil.rmtree(local / "deep")
        (local / "zeros").rename(local / "many" / "renamed")
        second = one.sync(local, delete_orphaned=True)
        assert second.failed == 0
        snapshots = one.snapshots()
    assert reader.main([str(bucket), "photos", str(tmp_path / "new")]) == 0
    assert listing(tmp_path / "new") == listing(local)
    assert reader.main([str(bucket), "photos", str(tmp_path / "old"), "--snapshot", old]) == 0
    assert listing(tmp_path / "old") == before
    assert [info.root for info in snapshots] == [first.root, second.root]


def test_the_content_root_is_that_of_the_naive_writer(tmp_path: Path) -> None:
    """The same files, written by another device at another time: equal content roots."""
    local = tmp_path / "local"
    fill(local)
    tree: dict[str, Any] = {}
    for path in local.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        kind, data = w.FILE, b""
        if path.is_symlink():
            kind, data, mode = w.SYMLINK, os.fsencode(os.readlink(path)), 0
        elif path.is_dir():
            kind = w.DIRECTORY
        else:
            data = path.read_bytes()
        tree[path.relative_to(local).as_posix()] = [w.Version(b"n" * 16, 7, kind, data, 0, mode)]
    blobs = w.Blobs()
    root = w.directory(w.entries_of(tree, blobs), blobs)
    with BuckiaClient.for_location(str(tmp_path / "bucket" / "f"), state_dir=tmp_path / "state") as one:
        assert one.sync(local).root == root.content.hex()


def test_buckia_goes_on_where_the_naive_writer_ended(tmp_path: Path) -> None:
    """A golden bucket is one like any other: buckia syncs it, edits it, and the reader restores the result."""
    for name in ("plain", "segment", "many"):
        path, folder, _ = BUCKETS[IDS.index(name)]
        bucket, local = tmp_path / name, tmp_path / f"{name} local"
        shutil.copytree(path, bucket)
        local.mkdir()
        with client(bucket, folder, tmp_path / "state") as one:
            assert one.sync(local).failed == 0
            (local / "new").write_bytes(b"from buckia")
            assert one.sync(local).uploaded == 1
            assert one.verify(read_data=True).clean
        assert reader.main([str(bucket), folder, str(tmp_path / f"{name} out")]) == 0
        assert listing(tmp_path / f"{name} out") == [
            row for row in listing(local) if COPY not in row["path"] and ".buckia" not in row["path"]
        ]
