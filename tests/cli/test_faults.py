"""What users read when something is wrong, the exit code, and that nothing was lost or half written.

Damaged and hostile buckets are in ``test_faults_objects.py``, what changes during a run in ``test_faults_live.py``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from buckia.cli import cli
from buckia.cli.errors import run
from buckia.local.disk import RealFileSystem
from buckia.local.fs import DiskFullError, local_error
from buckia.local.writer import Placed, Placement, Writer
from tests.cli.conftest import Outcome, error_of
from tests.cli.support import Device, World, as_user, leftovers, noise, process, small_disk

Run = Callable[..., Outcome]
ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
NOBODY = 65534


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))


# ---- configuration and installation


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "x:\n  provider: s4\n  bucket_name: b\n",
            ":2: 'x.provider' must be one of b2, bunny, linode, local, memory, s3.",
        ),
        ("x:\n  provider: local\n  max_workers: 0\n  bucket_name: b", ":3: 'x.max_workers' must be a whole number"),
        ("x:\n  provider: local\n", ":1: 'x.bucket_name' is missing."),
        ("x:\n  provider: local\n  bucket_name: b\n  buckt: c", ":4: 'x.buckt' is no key that buckia knows"),
        ("x: {provider: local\n", "no valid YAML"),
        ("x:\n  provider: local\nx:\n  provider: s3\n", ":3: the key 'x' stands twice (first in line 1)."),
        ("", "holds no bucket entry"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_a_malformed_configuration_names_line_and_key(buckia: Run, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / ".buckia").write_text(text)
    code, message = error_of(buckia("sync"))
    assert code == 2
    assert f"{tmp_path / '.buckia'}" in message
    assert sentence in message
    assert not (tmp_path / "state").exists()


def test_a_missing_configuration_says_what_to_do(buckia: Run) -> None:
    for line in (["sync"], ["status"], ["ls"], ["restore"], ["verify"], ["sync", "--config", "none"]):
        outcome = buckia(*line)
        assert error_of(outcome)[0] == 2
        assert "hint: " in outcome.err
        assert "buckia init" in outcome.err


def test_a_missing_extra_names_the_pip_command(tmp_path: Path) -> None:
    (tmp_path / ".buckia").write_text(
        "x: {provider: s3, bucket_name: b, folders: [f], endpoint: 'http://127.0.0.1:1'}\n"
    )
    (tmp_path / "f").mkdir()
    blocker = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
    done = process("sync", cwd=tmp_path, before=blocker)
    assert done.returncode == 2
    assert 'pip install "buckia[s3]"' in done.stderr
    assert "Traceback" not in done.stderr


# ---- permissions


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user may enter; pytest's may not be."""
    place = Path(tempfile.mkdtemp(prefix="buckia-test-"))
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def _run_as_nobody(place: Path, *arguments: str) -> tuple[int, str]:
    os.environ["BUCKIA_STATE_DIR"] = str(place / "state-of-nobody")
    code, _, err = as_user(NOBODY, lambda: run(cli, list(arguments)))
    return code, err


@ROOT
def test_a_bucket_without_permission(open_place: Path) -> None:
    world = World(open_place)
    a = world.device("a")
    a.write("file", "1")
    a.sync()
    before = world.bytes()
    mine = open_place / "mine"
    mine.mkdir()
    mine.chmod(0o777)
    (mine / "new").write_text("2")
    code, err = _run_as_nobody(open_place, "sync", str(mine), "--to", world.location)
    assert (code, err.startswith("buckia: error: The permissions of")) == (3, True), err
    assert world.bytes() == before
    world.bucket.chmod(0o700)
    for command in (["sync", str(mine), "--to"], ["ls", "--from"]):
        code, err = _run_as_nobody(open_place, *command, world.location)
        assert code in (3, 5), err
        assert len(err.splitlines()) <= 2
        assert "ermission" in err
        assert "Unexpected" not in err
    assert (mine / "new").read_text() == "2"


@ROOT
def test_files_and_directories_without_permission(open_place: Path) -> None:
    world = World(open_place)
    mine = open_place / "mine"
    (mine / "closed").mkdir(parents=True)
    (mine / "closed/inside").write_text("never seen")
    (mine / "open").write_text("1")
    (mine / "secret").write_text("2")
    (mine / "secret").chmod(0o600)
    (mine / "closed").chmod(0o700)
    code, err = _run_as_nobody(open_place, "sync", str(mine), "--to", world.location)
    assert code == 1
    assert f"failed: closed: Cannot read the directory {mine}/closed: permission denied." in err
    assert f"failed: secret: Cannot open {mine}/secret: permission denied." in err
    assert world.device("c").in_bucket() == {"open": b"1"}
    mine.chmod(0o700)
    code, err = _run_as_nobody(open_place, "sync", str(mine), "--to", world.location)
    assert code in (2, 5, 10), err
    assert set(world.device("c").in_bucket()) == {"open"}


@ROOT
def test_a_target_that_may_not_be_written(open_place: Path) -> None:
    world = World(open_place)
    a = world.device("a")
    a.fill({"one": "1", "deep/two": "2"})
    a.sync()
    mine = open_place / "mine"
    mine.mkdir()
    code, err = _run_as_nobody(open_place, "restore", "--from", world.location, "--target", str(mine))
    assert code in (1, 5), err
    assert "ermission denied" in err
    assert list(mine.iterdir()) == []


# ---- buckets and folders that are not there


def test_a_bucket_that_is_gone_is_not_made_anew(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    assert buckia("sync", str(a.root), "--to", world.location).code == 0
    shutil.rmtree(world.bucket)
    for command in (
        ["sync", str(a.root), "--to"],
        ["status", str(a.root), "--to"],
        ["ls", "--from"],
        ["verify", "--from"],
    ):
        outcome = buckia(*command, world.location)
        assert error_of(outcome) == (6, f"There is no local bucket {world.bucket}.")
        assert "hint: Is the disk mounted that it lies on?" in outcome.err
    assert not world.bucket.exists()
    assert a.tree() == {"file": b"1"}


@pytest.mark.parametrize("left", ["nothing", "folder"])
def test_an_emptied_bucket_is_a_rollback(buckia: Run, world: World, left: str) -> None:
    a = world.device("a")
    a.write("file", "1")
    buckia("sync", str(a.root), "--to", world.location)
    folder = (world.repository / "folder").read_bytes()
    shutil.rmtree(world.bucket)
    world.repository.mkdir(parents=True)
    if left == "folder":
        (world.repository / "folder").write_bytes(folder)
    before = world.bytes()
    for line in (["sync"], ["sync", "--dry-run"], ["status"]):
        outcome = buckia(*line, str(a.root), "--to", world.location)
        code, message = error_of(outcome)
        assert code == 8
        assert "was emptied, replaced, or set back" in message
        assert str(world.base / "state") in outcome.err
    assert world.bytes() == before
    assert a.tree() == {"file": b"1"}
    shutil.rmtree(world.base / "state")
    assert buckia("sync", str(a.root), "--to", world.location).code == 0
    assert world.device("b").in_bucket() == {"file": b"1"}


def test_a_bucket_set_back_to_an_older_state_is_a_rollback(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    buckia("sync", str(a.root), "--to", world.location)
    shutil.copytree(world.bucket, world.base / "older")
    a.write("file", "22")
    buckia("sync", str(a.root), "--to", world.location)
    shutil.rmtree(world.bucket)
    shutil.copytree(world.base / "older", world.bucket)
    assert error_of(buckia("sync", str(a.root), "--to", world.location))[0] == 8
    assert a.tree() == {"file": b"22"}


def test_a_folder_that_does_not_exist(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    a.sync()
    before = world.bytes()
    other = str(world.bucket / "others")
    reading = (["ls"], ["snapshots"], ["log", "file"], ["cat", "file"], ["verify"], ["restore", "--target", "out"])
    for command in reading:
        outcome = buckia(*command, "--from", other)
        assert error_of(outcome) == (6, f"There is no folder others in {world.bucket}.")
    assert "1 to upload" in buckia("status", str(a.root), "--to", other).out
    assert not (world.base / "out").exists()
    assert world.bytes() == before
    assert not Path(other).exists()


@pytest.mark.parametrize("inside", [True, False])
def test_a_bucket_and_a_tree_in_each_other_are_refused(buckia: Run, world: World, inside: bool) -> None:
    a = world.device("a")
    a.write("deep/file", "1")
    location = a.root / "deep/bucket/folder" if inside else a.root
    tree = a.root if inside else a.root / "deep"
    code, message = error_of(buckia("sync", str(tree), "--to", str(location)))
    assert (code, "lie in each other" in message) == (10, True)
    assert a.tree() == {"deep/file": b"1"}


@pytest.mark.parametrize("target", ["bucket", "bucket/folder", "bucket/folder/sub", "."])
def test_nothing_is_restored_over_the_bucket_that_it_comes_from(buckia: Run, world: World, target: str) -> None:
    a = world.device("a")
    a.write("file", "1")
    a.sync()
    before = world.bytes()
    line = ["restore", "--from", world.location, "--target", str(world.base / target), "--overwrite", "--delete-extra"]
    code, message = error_of(buckia(*line))
    assert (code, "lie in each other" in message) == (10, True)
    assert world.bytes() == before
    assert not (world.base / "bucket/folder/file").exists()


def test_a_bucket_inside_another_one_is_refused(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    a.sync()
    before = world.bytes()
    code, message = error_of(buckia("sync", str(a.root), "--to", f"{world.location}/_buckia/inner"))
    assert (code, "lies inside another bucket folder" in message) == (2, True)
    assert world.bytes() == before


def test_the_state_is_not_synced_with_the_tree(buckia: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    a.write("file", "1")
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(a.root / "state"))
    for _ in range(2):
        assert buckia("sync", str(a.root), "--to", world.location).code == 0
    listed = buckia("ls", "-r", "--from", world.location).out
    assert "file" in listed
    assert "state" not in listed


def test_foreign_files_are_no_bucket_folder(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    (world.bucket / "folder").mkdir(parents=True)
    (world.bucket / "folder/mine").write_text("precious")
    code, message = error_of(buckia("sync", str(a.root), "--to", world.location))
    assert (code, "holds other files (“mine”)" in message) == (10, True)
    assert [path.name for path in (world.bucket / "folder").iterdir()] == ["mine"]


# ---- full disks


@ROOT
def test_a_full_local_bucket(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("small", "1")
    with small_disk(world.bucket, 1 << 20):
        assert buckia("sync", str(a.root), "--to", world.location).code == 0
        a.write("clip", noise(3 << 20))
        code, message = error_of(buckia("sync", str(a.root), "--to", world.location))
        assert (code, message) == (4, f"There is no space left for {world.bucket}.")
        assert leftovers(world.bucket) == []
        assert world.device("b").in_bucket() == {"small": b"1"}
        (a.root / "clip").write_bytes(noise(100_000))
        assert buckia("sync", str(a.root), "--to", world.location).code == 0
        assert world.device("b").in_bucket() == a.tree()


@ROOT
def test_a_full_target(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.fill({"clip": noise(3 << 20), "small": "1"})
    a.sync()
    target = world.base / "target"
    with small_disk(target, 1 << 20):
        (target / "mine").write_text("kept")
        outcome = buckia("sync", str(target), "--to", world.location)
        assert outcome.code == 5
        assert "the disk is full" in outcome.err
        assert (target / "mine").read_text() == "kept"
        assert not (target / "clip").exists()
        assert leftovers(target) == []
        (target / "mine").unlink()
    with small_disk(target, 8 << 20):
        shutil.rmtree(world.base / "state")
        assert buckia("sync", str(target), "--to", world.location).code == 0
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {**a.tree(), "mine": b"kept"}


@ROOT
def test_a_full_target_of_a_restore(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.fill({"clip": noise(3 << 20)})
    a.sync()
    with small_disk(world.base / "target", 1 << 20) as target:
        outcome = buckia("restore", "--from", world.location, "--target", str(target))
        assert outcome.code == 5
        assert "full" in outcome.err or "space" in outcome.err
        assert [path for path in target.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up_while_files_are_placed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.pair()
    a.fill({f"file{number}": noise(5000, number) for number in range(20)})
    a.sync()
    original = RealFileSystem.create
    count = iter(range(100))

    def create(self: RealFileSystem, path: str) -> Any:
        if next(count) == 7:
            raise local_error(OSError(28, "No space left on device"), "create", path)
        return original(self, path)

    monkeypatch.setattr(RealFileSystem, "create", create)
    with pytest.raises(DiskFullError, match="the disk is full"):
        b.sync()
    assert b.tree().items() <= a.tree().items()
    monkeypatch.undo()
    assert b.sync().success
    assert b.tree() == a.tree()
    assert leftovers(b.root) == []


def test_a_run_leaves_what_a_run_of_another_state_has_staged(world: World) -> None:
    """Two buckets may be synced with one directory at the same time; what was staged for either is its own."""
    a = world.device("a")
    other = Device(a.root, str(world.base / "second" / "folder"), world.base / "state" / "a", "a")
    a.write("x", "1")
    a.sync()
    other.sync()
    staged: list[str] = []
    placing = Writer.place

    def place(writer: Writer, placements: Sequence[Placement], when: str) -> list[Placed]:
        a.write("new", "by the user")
        staged.extend(leftovers(a.root))
        other.sync()
        return placing(writer, placements, when)

    b = world.device("b")
    b.write("y", "2")
    b.sync()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "place", place)
        result = a.sync()
    assert staged
    assert (result.downloaded, result.errors) == (1, [])
    assert a.read("y") == b"2"
    a.sync()
    assert leftovers(a.root) == []
