"""Damaged, hostile and foreign buckets: one clear sentence, exit code 7 or 8, and never a wrong file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia.core import canonical
from buckia.core.ids import BlobType, object_id
from buckia.core.pack import HEADER_BYTES, TAIL_BYTES, parse_pack
from buckia.core.record import encode_folder, parse_record_key, parse_tip_key, record_key, tip_key
from buckia.store import catalog
from tests.cli.conftest import Outcome
from tests.cli.support import (
    Forger,
    World,
    forged_directory,
    forged_file,
    forged_link,
    leftovers,
    noise,
    tree_of,
    wait_a_tick,
)

Run = Callable[..., Outcome]
Damage = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state-of-commands"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A bucket that holds objects of every kind, and the device that wrote it. Not to be changed."""
    world = World(tmp_path_factory.mktemp("whole"))
    a = world.device("a")
    a.fill({"clip": noise(600_000), "deep/er/small": "1", "text": "word " * 5000})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "UNCOVERED_MAX", 4)
        for number in range(4):
            a.write("changing", f"version {number}")
            a.sync()
            wait_a_tick()
    a.write("changing", "the last version, outside of the segment")
    a.sync()
    assert world.of_kind("segments")
    return world


@pytest.fixture
def copy(whole: World, world: World) -> World:
    """A bucket of one's own to damage, as `whole`."""
    shutil.copytree(whole.bucket, world.bucket)
    return world


def flip_first(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def flip_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def extend(data: bytes) -> bytes:
    return data + b"\0"


def _check(buckia: Run, world: World, expected: dict[str, bytes]) -> dict[str, int]:
    """Run what reads the bucket: every outcome is a right tree, or an error that is one sentence. The exit codes."""
    codes: dict[str, int] = {}
    for name, line in {
        "sync": ["sync", "synced", "--to", world.location],
        "restore": ["restore", "--from", world.location, "--target", "restored"],
        "verify": ["verify", "--from", world.location, "--read-data"],
        "ls": ["ls", "-r", "--from", world.location],
    }.items():
        (world.base / "synced").mkdir(exist_ok=True)
        outcome = buckia(*line)
        codes[name] = outcome.code
        assert "Unexpected" not in outcome.err, outcome.err
        assert "Traceback" not in outcome.err, outcome.err
        assert outcome.code in (0, 1, 7, 8), outcome.err
        if outcome.code and name != "verify":
            assert outcome.err, name
    for name in ("synced", "restored"):
        written = tree_of(world.base / name) if (world.base / name).exists() else {}
        assert written.items() <= expected.items()
        assert leftovers(world.base) == []
        if codes["sync" if name == "synced" else "restore"] == 0:
            assert written == expected
    return codes


@pytest.mark.parametrize("damage", [flip_first, flip_middle, flip_last, truncate, empty, extend])
@pytest.mark.parametrize("kind", ["folder", "journal", "segments", "packs"])
def test_a_damaged_object_is_told_and_never_becomes_a_wrong_file(
    buckia: Run, whole: World, copy: World, kind: str, damage: Damage
) -> None:
    for key, path in copy.objects().items():
        if key == kind or key.startswith(f"{kind}/"):
            path.write_bytes(damage(path.read_bytes()))
    codes = _check(buckia, copy, whole.device("a").tree())
    assert codes["verify"] in (7, 8), codes
    if kind in ("folder", "journal"):
        assert {codes["sync"], codes["restore"], codes["ls"]} <= {7, 8}


@pytest.mark.parametrize("part", ["header", "payload of a chunk", "payload of a node", "footer", "count"])
def test_a_pack_that_is_damaged_in_any_part(buckia: Run, whole: World, copy: World, part: str) -> None:
    for path in copy.of_kind("packs"):
        data = bytearray(path.read_bytes())
        rows = parse_pack(bytes(data))
        kinds = {row.kind == BlobType.CHUNK: row.offset for row in rows}
        at = {
            "header": HEADER_BYTES // 2,
            "payload of a chunk": kinds.get(True),
            "payload of a node": kinds.get(False),
            "footer": rows[-1].offset + rows[-1].length + 10,
            "count": len(data) - TAIL_BYTES,
        }[part]
        if at is not None:
            data[at] ^= 0x10
            path.write_bytes(data)
    codes = _check(buckia, copy, whole.device("a").tree())
    assert codes["verify"] == 8
    if part == "payload of a chunk":
        assert codes["sync"] == codes["restore"] == 1
    elif part == "payload of a node":
        assert codes["sync"] == codes["restore"] == 8


@pytest.mark.parametrize("kind", ["folder", "segments", "packs"])
def test_a_missing_object(buckia: Run, whole: World, copy: World, kind: str) -> None:
    for key, path in copy.objects().items():
        if key == kind or key.startswith(f"{kind}/"):
            path.unlink()
    before = copy.bytes()
    codes = _check(buckia, copy, whole.device("a").tree())
    if kind == "segments":
        assert codes == dict.fromkeys(codes, 0)
        return
    assert codes["verify"] == 8, codes
    if kind == "folder":
        assert codes == dict.fromkeys(codes, 8)
        assert copy.bytes() == before


def test_records_that_a_tip_names_and_that_are_not_there(buckia: Run, whole: World, copy: World) -> None:
    """Where not one of them can be had the folder is not empty but damaged, and nothing may be built on it."""
    for path in [*copy.of_kind("journal"), *copy.of_kind("segments")]:
        path.unlink()
    (copy.base / "synced").mkdir()
    before = copy.bytes()
    outcome = buckia("sync", "synced", "--to", copy.location)
    assert outcome.code == 8
    assert "records that the tips of this folder name are not in the bucket" in outcome.err
    assert (tree_of(copy.base / "synced"), copy.bytes()) == ({}, before)
    assert buckia("ls", "--from", copy.location).code == 8
    assert buckia("restore", "--from", copy.location, "--target", "restored").code == 8
    assert buckia("verify", "--from", copy.location).code == 8


def test_a_damaged_tip_costs_nothing(buckia: Run, whole: World, copy: World) -> None:
    for path in copy.of_kind("tips"):
        path.write_bytes(b"")
    codes = _check(buckia, copy, whole.device("a").tree())
    assert (codes["sync"], codes["restore"], codes["ls"]) == (0, 0, 0)


def test_names_that_nobody_gave_are_foreign(buckia: Run, whole: World, copy: World) -> None:
    for name in ("tips/x", "journal/readme", "packs/zz/1", "segments/1", "stray"):
        path = copy.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"what is this?")
    codes = _check(buckia, copy, whole.device("a").tree())
    assert codes == dict.fromkeys(codes, 0)
    outcome = buckia("verify", "--from", copy.location, "--json")
    assert len(outcome.json["foreign"]) == 5


def test_a_damaged_record_from_another_device_changes_nothing_here(buckia: Run, world: World) -> None:
    a, b = world.pair()
    a.write("file", "1")
    a.sync()
    line = ["sync", str(b.root), "--to", world.location]
    buckia(*line)
    known = set(world.of_kind("journal"))
    a.write("file", "22")
    a.sync()
    (record,) = set(world.of_kind("journal")) - known
    data = record.read_bytes()
    record.write_bytes(flip_middle(data))
    b.write("mine", "3")
    outcome = buckia(*line)
    assert outcome.code == 8
    assert "is damaged: its bytes do not match its name." in outcome.err
    assert b.tree() == {"file": b"1", "mine": b"3"}
    record.write_bytes(data)
    assert buckia(*line).code == 0
    assert b.tree() == {"file": b"22", "mine": b"3"} == b.in_bucket()


# ---- hostile manifests


def _forge(world: World, rows: Callable[[Forger], list[list[object]]]) -> None:
    a = world.device("a")
    a.write("good", "1")
    a.sync()
    forger = Forger(world.repository)
    forger.publish(rows(forger), size=4)


def _refused(buckia: Run, world: World) -> list[int]:
    """The exit codes of a sync and a restore; nothing that the forger named may appear anywhere."""
    codes: list[int] = []
    for line in (
        ["sync", "fresh", "--to", world.location],
        ["restore", "--from", world.location, "--target", "target"],
    ):
        (world.base / "fresh").mkdir(exist_ok=True)
        outcome = buckia(*line)
        assert "Unexpected" not in outcome.err
        assert outcome.err
        codes.append(outcome.code)
    assert not [path for path in world.base.rglob("*evil*") if world.bucket not in path.parents]
    assert leftovers(world.base) == []
    return codes


@pytest.mark.parametrize("name", [b"../evil", b"..", b"/tmp/evil", b"x/../../evil", b"evil\0", b"evil\xff", b""])
def test_names_that_lead_elsewhere_are_refused(buckia: Run, world: World, name: bytes) -> None:
    _forge(world, lambda forger: [forged_file(name, forger.chunk(b"evil"), 4)])
    assert _refused(buckia, world) == [7, 7]
    assert buckia("verify", "--from", world.location).code in (7, 8)


@pytest.mark.parametrize(
    "name",
    [b".buckia", b".BUCKIA", b".buckia-staging", b".buckia-trash", b".buckia-tmp-evil", b"_buckia", b"_Buckia-x"],
)
def test_names_of_our_own_are_not_written(buckia: Run, world: World, name: bytes) -> None:
    _forge(world, lambda forger: [forged_file(name, forger.chunk(b"evil"), 4)])
    (world.base / "fresh").mkdir()
    (world.base / "fresh/.buckia").write_text("x: {provider: local, bucket_name: b}")
    assert _refused(buckia, world) == [0, 1]
    assert tree_of(world.base / "fresh") == {}
    assert (world.base / "fresh/.buckia").read_text().startswith("x:")


@pytest.mark.parametrize("target", [b"../outside", b"/etc", b"x/../../outside", b"../../.."])
def test_links_that_lead_out_and_files_below_them(buckia: Run, world: World, target: bytes) -> None:
    (world.base / "outside").mkdir()
    (world.base / "outside/passwd").write_text("precious")

    def rows(forger: Forger) -> list[list[object]]:
        node, shown = forger.node([forged_file(b"evil", forger.chunk(b"evil"), 4)])
        return [forged_link(b"link", target), forged_directory(b"link2", node, shown, 1, 4)]

    _forge(world, rows)
    (world.base / "fresh").mkdir()
    outcome = buckia("sync", "fresh", "--to", world.location)
    assert (outcome.code, "warning: link is not written here: the target" in outcome.err) == (0, True)
    outcome = buckia("restore", "--from", world.location, "--target", "target")
    assert (outcome.code, "failed: link: " in outcome.err) == (1, True)
    for place in ("fresh", "target"):
        assert not (world.base / place / "link").is_symlink()
        assert tree_of(world.base / place) == {"link2/evil": b"evil"}
    assert sorted(path.name for path in (world.base / "outside").iterdir()) == ["passwd"]


def test_a_link_that_stands_in_the_way_is_not_followed(buckia: Run, world: World) -> None:
    """A directory that became a link on this disk: what belongs into the directory does not go through the link."""
    a = world.device("a")
    a.fill({"dir/file": "1"})
    a.sync()
    outside = world.base / "outside"
    outside.mkdir()
    target = world.base / "fresh"
    target.mkdir()
    (target / "dir").symlink_to(outside)
    buckia("sync", str(target), "--to", world.location)
    buckia("restore", "--from", world.location, "--target", str(target), "--overwrite")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("size", [3, 5])
def test_sizes_that_do_not_fit_the_content(buckia: Run, world: World, size: int) -> None:
    _forge(world, lambda forger: [forged_file(b"evil", forger.chunk(b"four"), size)])
    assert set(_refused(buckia, world)) <= {1, 7, 8}


# ---- other formats and versions


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_format_version_is_refused(buckia: Run, copy: World, version: int) -> None:
    value = canonical.decode((copy.repository / "folder").read_bytes(), size_max=4096)
    assert value[1] == 1
    (copy.repository / "folder").write_bytes(canonical.encode([value[0], version, *value[2:]]))
    before = copy.bytes()
    (copy.base / "mine").mkdir()
    (copy.base / "mine/file").write_text("1")
    for line in (
        ["sync", "mine", "--to"],
        ["ls", "--from"],
        ["verify", "--from"],
        ["restore", "--target", "t", "--from"],
    ):
        outcome = buckia(*line, copy.location)
        assert outcome.code == 7, outcome.err
        assert "version" in outcome.err
        assert len(outcome.err.splitlines()) <= 2
    assert copy.bytes() == before


def test_a_folder_object_of_another_folder_is_refused(buckia: Run, copy: World) -> None:
    (copy.repository / "folder").write_bytes(encode_folder("another"))
    for line in (["sync", ".", "--to"], ["ls", "--from"]):
        assert buckia(*line, copy.location).code in (7, 8, 10)


def test_records_under_a_wrong_device_are_refused(buckia: Run, copy: World) -> None:
    for path in [*copy.of_kind("tips"), *copy.of_kind("journal")]:
        key = path.relative_to(copy.repository).as_posix()
        parsed = parse_tip_key(key) or parse_record_key(key)
        assert parsed is not None
        device, seq, name = parsed
        other = type(device)(bytes(16))
        new = copy.repository / (tip_key if key.startswith("tips") else record_key)(other, seq, name)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    outcome = buckia("ls", "--from", copy.location)
    assert outcome.code in (7, 8), outcome.err


def test_two_records_with_one_number_are_a_fork(buckia: Run, whole: World, copy: World) -> None:
    tip = copy.of_kind("tips")[0]
    parsed = parse_tip_key(f"tips/{tip.name}")
    assert parsed is not None
    device, seq, _ = parsed
    (copy.repository / tip_key(device, seq, object_id(b"another"))).write_bytes(b"")
    for line in (["sync", "mine", "--to"], ["ls", "--from"], ["verify", "--from"]):
        (copy.base / "mine").mkdir(exist_ok=True)
        outcome = buckia(*line, copy.location)
        assert outcome.code == 8
        assert "two different records" in outcome.err
