"""The published format can be implemented from its page.

The vectors are what `naive_writer.py` makes of it, byte for byte, and `specs/reader.py`, which shares no code with the
writer or the product, restores every bucket and refuses what is wrong.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3

HERE = Path(__file__).parent
SPECS = HERE.parents[1] / "specs"
VECTORS = SPECS / "vectors"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reader = load(SPECS / "reader.py")


def golden_buckets() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """(directory of the bucket, folder, what is expected of it) of each golden bucket."""
    for path in sorted((VECTORS / "buckets").glob("*.json")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        yield path.with_suffix(""), expected["folder"], expected


BUCKETS = list(golden_buckets())
BUCKET_NAMES = [path.name for path, _, _ in BUCKETS]
SNAPSHOTS = [(path, folder, name, s) for path, folder, expected in BUCKETS for name, s in expected["snapshots"].items()]
NEGATIVES = json.loads((VECTORS / "negative.json").read_text(encoding="utf-8"))["objects"]


def listing(top: Path) -> list[dict[str, Any]]:
    """What is on the disk, as in a golden bucket's expectation."""
    found = []
    for path in sorted(top.rglob("*"), key=lambda path: os.fsencode(path.relative_to(top).as_posix())):
        there = path.lstat()
        row: dict[str, Any] = {"path": path.relative_to(top).as_posix()}
        if stat.S_ISDIR(there.st_mode):
            row |= {"kind": "directory", "mode": stat.S_IMODE(there.st_mode)}
        elif stat.S_ISLNK(there.st_mode):
            row |= {
                "kind": "symlink",
                "size": there.st_size,
                "target": os.readlink(path),
                "mtime_ns": there.st_mtime_ns,
            }
        else:
            row |= {"kind": "file", "size": there.st_size, "mode": stat.S_IMODE(there.st_mode)}
            row |= {"mtime_ns": there.st_mtime_ns, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        found.append(row)
    return found


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
    for journal in (False, True):
        assert [head.hex() for head in reader.Bucket(str(path), folder, journal).heads()] == expected["heads"]


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


def test_the_journal_leads_to_what_tips_would(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "conflict")
    shutil.rmtree(top / "tips")
    assert restored(tmp_path / "out", bucket, folder, "--journal") == head_of(expected)["listing"]


def test_a_segment_replaces_the_records_that_it_covers(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "segment")
    for path in top.glob("journal/*/*"):
        if int(path.name[:10]) <= 2:
            path.unlink()
    assert restored(tmp_path / "out", bucket, folder) == head_of(expected)["listing"]


def test_nothing_is_lost_with_a_segment(tmp_path: Path) -> None:
    bucket, top, folder, expected = copied(tmp_path, "segment")
    shutil.rmtree(top / "segments")
    assert restored(tmp_path / "out", bucket, folder) == head_of(expected)["listing"]


@pytest.mark.parametrize("kind", ["packs", "journal", "tips", "segments"])
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


def refuse(case: dict[str, Any], raw: bytes, tmp_path: Path) -> None:
    """Decodes an object as its kind."""
    name = bytes.fromhex(case["name"])
    decoders: dict[str, Callable[[bytes], Any]] = {
        "record": reader.decode_record,
        "pack": reader.decode_pack,
        "segment": reader.decode_segment,
    }

    def node(kind: int, wanted: bytes) -> bytes:
        assert wanted == name
        return bytes(reader.decode_blob(kind, name, 0, raw, len(raw)))

    if case["object"] == "folder":
        (tmp_path / case["folder"] / "_buckia").mkdir(parents=True)
        (tmp_path / case["folder"] / "_buckia" / "folder").write_bytes(raw)
        reader.Bucket(str(tmp_path), case["folder"])
    elif case["object"] == "blob":
        reader.decode_blob(case["type"], name, case["codec"], raw, case["raw length"])
    elif case["object"] == "directory":
        reader.leaves(node, 1, [name])
    elif case["object"] == "list":
        depth, size = reader.unpack(raw, reader.NODES[2])[2] + 1, sum(b * c for _, b, c in reader.unpack(raw, list)[4])
        reader.restore_file(node, os.fsencode(tmp_path / "out"), size, [depth, name])
    else:
        reader.check(blake3(raw).digest() == name, "other bytes", reader.IntegrityError)
        decoders[case["object"]](raw)


@pytest.mark.parametrize("case", NEGATIVES, ids=[f"{case['object']}-{case['why']}" for case in NEGATIVES])
def test_the_reader_refuses(case: dict[str, Any], tmp_path: Path) -> None:
    error = reader.IntegrityError if case["expect"] == "integrity" else reader.FormatError
    with pytest.raises(error):
        refuse(case, (VECTORS / case["file"]).read_bytes(), tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_reader_decodes_canonical_msgpack_only() -> None:
    vectors = json.loads((VECTORS / "msgpack.json").read_text(encoding="utf-8"))
    anything = (None, str, range(-1 << 63, 1 << 64), [..., (None, [..., None])])
    for vector in vectors["canonical"]:
        if "canonical" in vector:
            assert reader.unpack(bytes.fromhex(vector["canonical"]), anything) == vector["value"]
    for vector in vectors["refused"]:
        with pytest.raises(reader.FormatError):
            reader.unpack(bytes.fromhex(vector["raw"]), (*anything, bytes))


def test_objects_are_read_as_they_were_made() -> None:
    vectors = json.loads((VECTORS / "objects.json").read_text(encoding="utf-8"))
    for pack in vectors["packs"]:
        raw = bytes.fromhex(pack["raw"])
        places = reader.decode_pack(raw)
        assert [(kind, name.hex()) for (kind, name), _ in places] == [(b["type"], b["id"]) for b in pack["blobs"]]
        for ((kind, name), (of, codec, offset, length, raw_length)), blob in zip(places, pack["blobs"], strict=True):
            assert of.hex() == pack["id"]
            payload = raw[offset : offset + length]
            assert reader.decode_blob(kind, name, codec, payload, raw_length).hex() == blob["raw"]
    for record in vectors["records"]:
        assert blake3(bytes.fromhex(record["raw"])).hexdigest() == record["hash"]
        reader.decode_record(bytes.fromhex(record["raw"]))
    for node in json.loads((VECTORS / "trees.json").read_text(encoding="utf-8"))["nodes"]:
        said = [bytes.fromhex(node["id"]), bytes.fromhex(node["content"]), node["files"], node["bytes"]]
        reader.leaves(lambda kind, name, raw=node["raw"]: bytes.fromhex(raw), 1, said)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or ".").split(".")[0])
    return found


def lines_of_code(path: Path) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped and not (token.type == tokenize.STRING and token.line.lstrip().startswith('"""')):
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines)


def test_the_reader_and_the_writer_stand_alone_and_stay_small() -> None:
    packages = {"blake3", "msgpack", "zstandard"}
    assert imports(SPECS / "reader.py") - sys.stdlib_module_names == packages
    assert imports(HERE / "naive_writer.py") - sys.stdlib_module_names == {"blake3"}
    assert lines_of_code(SPECS / "reader.py") <= 250
    assert len((HERE / "naive_writer.py").read_text(encoding="utf-8").splitlines()) <= 400
