"""The published format can be implemented from its page.

The vectors are what `naive_writer.py` makes of it, byte for byte, and `specs/reader.py`, which shares no code with the
writer or the product, restores every bucket and refuses what would do harm. `test_buckia_reads_golden.py` says the same
of the product, and more of what is refused.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from zstandard import ZstdError

from tests.golden.vectors import HERE, NEGATIVES, SPECS, VECTORS, golden_buckets, listing, load, reader

BUCKETS = list(golden_buckets())
BUCKET_NAMES = [path.name for path, _, _ in BUCKETS]
SNAPSHOTS = [(path, folder, name, s) for path, folder, expected in BUCKETS for name, s in expected["snapshots"].items()]


def restored(target: Path, bucket: Path, folder: str, *options: str) -> list[dict[str, Any]]:
    assert reader.main([str(bucket), folder, str(target), *options]) == 0
    return listing(target)


def head_of(expected: dict[str, Any]) -> Any:
    (head,) = expected["heads"]
    return expected["snapshots"][head]


def bucket_named(name: str) -> tuple[Path, str, dict[str, Any]]:
    return BUCKETS[BUCKET_NAMES.index(name)]


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    sys.path.insert(0, str(HERE))
    try:
        made = load(HERE / "make_golden.py").build()
    finally:
        sys.path.remove(str(HERE))
    there = {path.relative_to(VECTORS).as_posix(): path for path in VECTORS.rglob("*") if path.is_file()}
    assert set(made) == set(there) - {"chunker.json"}
    assert [path for path, raw in made.items() if there[path].read_bytes() != raw] == []
    assert sum(path.stat().st_size for path in there.values()) < 1_500_000


def test_the_naive_chunker_agrees_with_the_chunker_vectors() -> None:
    writer = load(HERE / "naive_writer.py")
    vectors = json.loads((VECTORS / "chunker.json").read_text(encoding="utf-8"))

    def part(given: dict[str, Any]) -> bytes:
        if "hex" in given:
            return bytes.fromhex(given["hex"]) * given["times"]
        return bytes(blake3(given["xof"].encode()).digest(given["length"], seek=given["from"]))

    for vector in vectors["default"]:
        ends, at = [], 0
        for chunk in writer.cut(b"".join(map(part, vector["input"]))):
            at += len(chunk)
            ends.append(at)
        assert ends == vector["ends"], vector["name"]
    assert [writer.page_size(bytes.fromhex(v["head"])) for v in vectors["pages"]] == [
        v["page"] for v in vectors["pages"]
    ]


@pytest.mark.parametrize(
    ("path", "folder", "name", "snapshot"), SNAPSHOTS, ids=[f"{s[0].name}-{s[2][:6]}" for s in SNAPSHOTS]
)
def test_the_reader_restores_every_snapshot(
    tmp_path: Path, path: Path, folder: str, name: str, snapshot: dict[str, Any]
) -> None:
    assert restored(tmp_path / "out", path, folder, "--snapshot", name) == snapshot["listing"]
    record = reader.Bucket(str(path), folder).records[bytes.fromhex(name)]
    assert [value if isinstance(value, int) else value.hex() for value in record[8][:4]] == [
        snapshot[key] for key in ("state_root", "content_root", "files", "bytes")
    ]


@pytest.mark.parametrize(("path", "folder", "expected"), BUCKETS, ids=BUCKET_NAMES)
def test_the_reader_finds_the_heads(path: Path, folder: str, expected: dict[str, Any]) -> None:
    assert reader.Bucket(str(path), folder).heads() == expected["heads"]


def test_the_reader_asks_which_of_several_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder, expected = bucket_named("heads")
    assert reader.main([str(path), folder, str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert all(head in said for head in expected["heads"])
    assert not (tmp_path / "out").exists()


def test_the_command_restores_without_being_installed(tmp_path: Path) -> None:
    path, folder, expected = bucket_named("plain")
    command = [sys.executable, "-I", str(SPECS / "reader.py"), str(path), folder, str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert listing(tmp_path / "out") == head_of(expected)["listing"]


def copied(tmp_path: Path, name: str) -> tuple[Path, Path, str, dict[str, Any]]:
    """(copy of a bucket, its `_buckia`, folder, expectation)."""
    path, folder, expected = bucket_named(name)
    shutil.copytree(path, tmp_path / "bucket")
    return tmp_path / "bucket", tmp_path / "bucket" / folder / "_buckia", folder, expected


def test_damaged_or_missing_segments_cost_nothing(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "segment")
    for path in top.glob("segments/*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert restored(tmp_path / "one", bucket, folder) == head_of(expected)["listing"]
    shutil.rmtree(top / "segments")
    assert restored(tmp_path / "two", bucket, folder) == head_of(expected)["listing"]


def test_keys_of_another_form_are_ignored(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "plain")
    for key in ("tips/README", "tips/" + "0" * 32 + ".1-" + "0" * 64, "tips/.DS_Store"):
        (top / key).write_bytes(b"not ours")
    assert restored(tmp_path / "out", bucket, folder) == head_of(expected)["listing"]


def test_any_intact_copy_of_a_blob_will_do(tmp_path: Path) -> None:
    path, folder, expected = bucket_named("plain")
    found = reader.Bucket(str(path), folder)
    for places in found.places.values():
        nowhere, (pack, row) = ("packs/00/gone", places[0][1]), places[0]
        places[:] = [nowhere, (pack, (*row[:4], 76, 1, 1)), places[0]]
    (tmp_path / "out").mkdir()
    root = bytes.fromhex(head_of(expected)["state_root"])
    reader.restore(found.read, os.fsencode(tmp_path / "out"), root, iter(range(99)))
    assert listing(tmp_path / "out") == head_of(expected)["listing"]


def test_packs_that_an_older_record_names_may_be_gone(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "plain")
    old, _ = sorted(expected["snapshots"].values(), key=lambda snapshot: snapshot["seq"])
    packs = reader.Bucket(str(bucket), folder).places
    (top / packs[1, bytes.fromhex(old["state_root"])][0][0]).unlink()
    assert reader.Bucket(str(bucket), folder).heads() == expected["heads"]
    assert reader.main([str(bucket), folder, str(tmp_path / "out")]) == 1  # what did not change lay there
    assert (tmp_path / "out" / "a" / "three").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["packs", "journal", "tips"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    bucket, top, folder, _ = copied(tmp_path, "segment")
    for path in top.glob(f"{kind}/**/*"):
        if path.is_file():
            raw = bytearray(path.read_bytes())
            raw[min(90, len(raw) - 1)] ^= 1
            path.write_bytes(raw)
    assert reader.main([str(bucket), folder, str(tmp_path / "out")]) == 1
    assert "IntegrityError" in capsys.readouterr().err


def test_what_is_in_the_target_stays(tmp_path: Path) -> None:
    path, folder, _ = bucket_named("plain")
    (tmp_path / "mine").write_bytes(b"mine")
    assert reader.main([str(path), folder, str(tmp_path)]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


MALFORMED = (ValueError, ZstdError)

# What is wrong with these, a restore does not rely on. Strict decoders, as the product's, refuse them all.
HARMLESS = {
    "record": {"condemn unsorted", "condemn with a pack twice", "snapshot with a pack twice"},
    "directory": {
        *("dot twice", "versions unsorted", "1025 versions", "devices unsorted", "device twice", "device unused"),
        *("device index beyond", "digest 5", "digest of 31 bytes", "subtree that is the empty directory"),
        *("one chunk of more than 16 MiB", "list of 1 byte"),
    },
    "list": {"one chunk once", "root with one child"},
}


def refuse(case: dict[str, Any], raw: bytes, tmp_path: Path) -> None:
    """Decodes an object as its kind."""
    name = bytes.fromhex(case["name"])

    def node(kind: int, wanted: bytes) -> bytes:
        reader.check(wanted == name, "the only blob is another one", LookupError)
        return bytes(reader.decode_blob(kind, name, 0, raw, len(raw)))

    if case["object"] == "folder":
        (tmp_path / case["folder"] / "_buckia").mkdir(parents=True)
        (tmp_path / case["folder"] / "_buckia" / "folder").write_bytes(raw)
        reader.Bucket(str(tmp_path), case["folder"])
    elif case["object"] == "blob":
        reader.decode_blob(case["type"], name, case["codec"], raw, case["raw length"])
    elif case["object"] == "directory":
        (tmp_path / "out").mkdir()
        reader.restore(node, os.fsencode(tmp_path / "out"), name, iter(range(99)))
    elif case["object"] == "list":
        depth, size = reader.unpack(raw, reader.NODES[2])[2] + 1, sum(b * c for _, b, c in reader.unpack(raw, list)[4])
        reader.restore_file(node, os.fsencode(tmp_path / "file"), size, [depth, name])
    else:
        reader.check(blake3(raw).digest() == name, "other bytes", reader.IntegrityError)
        if case["object"] == "pack":
            reader.decode_pack(raw)
        else:
            record = reader.decode_record(raw)
            for _, size, rows in record[8][4]:
                reader.decode_rows(rows, size)


def wrong_for_the_reader() -> Iterator[Any]:
    for case in NEGATIVES:
        if case["object"] != "segment" and case["why"] not in HARMLESS.get(case["object"], ()):
            yield pytest.param(case, id=f"{case['object']}-{case['why']}")


@pytest.mark.parametrize("case", [*wrong_for_the_reader()])
def test_the_reader_refuses(case: dict[str, Any], tmp_path: Path) -> None:
    error = reader.IntegrityError if case["expect"] == "integrity" else MALFORMED
    with pytest.raises(error):
        refuse(case, (VECTORS / case["file"]).read_bytes(), tmp_path)
    assert not (tmp_path / "file").exists()


def test_the_reader_decodes_canonical_msgpack_only() -> None:
    vectors = json.loads((VECTORS / "msgpack.json").read_text(encoding="utf-8"))
    anything = (None, str, range(-1 << 63, 1 << 64), [..., (None, [..., None])])
    for vector in vectors["canonical"]:
        if "canonical" in vector:
            assert reader.unpack(bytes.fromhex(vector["canonical"]), anything) == vector["value"]
    for vector in vectors["refused"]:
        with pytest.raises(MALFORMED):
            reader.unpack(bytes.fromhex(vector["raw"]), (*anything, bytes))


def test_objects_are_read_as_they_were_made() -> None:
    vectors = json.loads((VECTORS / "objects.json").read_text(encoding="utf-8"))
    for pack in vectors["packs"]:
        raw = bytes.fromhex(pack["raw"])
        rows = reader.decode_pack(raw)
        assert [(row[0], row[3].hex()) for row in rows] == [(b["type"], b["id"]) for b in pack["blobs"]]
        for (kind, codec, _, name, offset, length, raw_length), blob in zip(rows, pack["blobs"], strict=True):
            payload = raw[offset : offset + length]
            assert reader.decode_blob(kind, name, codec, payload, raw_length).hex() == blob["raw"]
    for record in vectors["records"]:
        assert blake3(bytes.fromhex(record["raw"])).hexdigest() == record["hash"]
        reader.decode_record(bytes.fromhex(record["raw"]))
    for node in json.loads((VECTORS / "trees.json").read_text(encoding="utf-8"))["nodes"]:
        found = [*reader.leaves(lambda kind, name, raw=node["raw"]: bytes.fromhex(raw), 1, bytes.fromhex(node["id"]))]
        assert found == reader.unpack(bytes.fromhex(node["raw"]), list)[4]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or ".").split(".")[0])
    return found


def test_the_reader_and_the_writer_stand_alone_and_stay_small() -> None:
    packages = {"blake3", "msgpack", "zstandard"}
    assert imports(SPECS / "reader.py") - sys.stdlib_module_names == packages
    assert imports(HERE / "naive_writer.py") - sys.stdlib_module_names == {"blake3"}
    for path, most in ((SPECS / "reader.py", 250), (HERE / "naive_writer.py", 400)):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= most
        assert max(map(len, lines)) <= 120
