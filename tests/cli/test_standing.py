"""How things stand is told: of every folder, of what is deleted here only, of conflicts that were settled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia.engine.capture import Capture
from buckia.errors import LocalError
from tests.cli.conftest import Outcome
from tests.cli.support import OLD_NS, Device, World, wait_a_tick

Run = Callable[..., Outcome]
HIDDEN = "deleted here, still in the bucket (sync --delete-orphaned publishes deletions, restore brings files back)"


@pytest.fixture
def docs(world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the folders A and B of a configuration, which are in step; the current one is above it."""
    config = "m: {provider: local, bucket_name: bk, folders: [A, B], paths: [docs]}\n"
    world.base.joinpath(".buckia").write_text(config)
    monkeypatch.chdir(world.base)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(world.base / "state"))
    for name in "AB":
        (world.base / "docs" / name).mkdir(parents=True)
        for file in ("one", "two"):
            (world.base / "docs" / name / file).write_text(name + file)
    wait_a_tick()
    assert buckia("sync").code == 0
    return world.base / "docs"


def _command(buckia: Run, monkeypatch: pytest.MonkeyPatch, device: Device, name: str, *arguments: str) -> Outcome:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(device.state))
    return buckia(name, str(device.root), "--to", device.location, *arguments)


# ---- several folders


def test_status_shows_every_folder_by_itself(buckia: Run, docs: Path) -> None:
    """Each has a block with its path, root, snapshot and device, and an object in the JSON; counts are added up."""
    (docs / "B/three").write_text("3")
    wait_a_tick()
    lines = buckia("status").out.splitlines()
    assert [line.partition(" <-> ")[0] for line in lines if not line.startswith(" ")] == [
        f"A: {docs}/A",
        f"B: {docs}/B",
    ]
    second = lines.index(next(line for line in lines if line.startswith("B: ")))
    assert lines[1].startswith("  in step at root ")
    assert lines[second + 1] == "  not in step: 1 to upload"
    shown = buckia("status", "--json").json
    one, two = shown["folders"]
    assert (one["folder"], one["in_sync"], one["to_upload"]) == ("A", True, 0)
    assert (two["folder"], two["in_sync"], two["to_upload"]) == ("B", False, 1)
    for name in ("local_path", "root", "snapshot", "device"):
        assert one[name] != two[name]
        assert not shown[name]
    assert (shown["in_sync"], shown["to_upload"], shown["files"]) == (False, 1, 4)
    assert shown["requests"]["list"] == one["requests"]["list"] + two["requests"]["list"]


def test_status_of_one_folder_is_a_single_block(buckia: Run, docs: Path) -> None:
    """A single folder of several is not named, and has no array."""
    outcome = buckia("status", "--folder", "B")
    assert outcome.out.startswith(f"{docs}/B <-> ")
    assert buckia("status", "--folder", "B", "--json").json["folders"] == []


# ---- deleted here only


def test_deletions_that_are_kept_here_are_told_by_every_run(
    world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync, dry run and status count what is deleted here and still in the bucket, also from earlier runs."""
    a = world.device("a")
    a.fill({"keep": "k", "gone": "g", "sub/one": "1", "sub/two": "2"})
    wait_a_tick()
    a.sync()
    (a.root / "gone").unlink()
    for number in (1, 1, 3, 3):
        if number == 3:
            shutil.rmtree(a.root / "sub", ignore_errors=True)
        wait_a_tick()
        files = "1 file" if number == 1 else "3 files"
        assert _command(buckia, monkeypatch, a, "sync", "-n").err == f"{files} {HIDDEN}.\n"
        assert _command(buckia, monkeypatch, a, "sync").err == f"{files} {HIDDEN}.\n"
        assert _command(buckia, monkeypatch, a, "sync", "--json").json["hidden"] == number
        status = _command(buckia, monkeypatch, a, "status")
        assert "in step at root" in status.out
        assert f"  {files} {HIDDEN}\n" in status.out
        shown = _command(buckia, monkeypatch, a, "status", "--json").json
        assert (shown["hidden"], shown["in_sync"]) == (number, True)


def test_deletions_are_told_no_more_once_they_are_published_or_undone(
    world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this device, by another one, by a new version from there, or by a restore."""
    a, b = world.pair()
    a.fill({"ours": "o", "theirs": "t", "new": "n", "back": "b", "keep": "k"})
    wait_a_tick()
    a.sync()
    b.sync()
    for name in ("ours", "theirs", "new", "back"):
        (a.root / name).unlink()
    assert a.sync().hidden == 4
    (b.root / "theirs").unlink()
    b.write("new", "newer")
    wait_a_tick()
    b.sync(delete_orphaned=True)
    result = a.sync()
    assert (result.hidden, a.read("new")) == (2, b"newer")
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(a.state))
    assert buckia("restore", "back", "--from", a.location, "--target", str(a.root), "--overwrite").code == 0
    wait_a_tick()
    result = a.sync()
    assert (result.hidden, result.uploaded, a.read("back")) == (1, 0, b"b")
    assert a.sync(delete_orphaned=True).hidden == 0
    assert a.sync().hidden == 0
    b.sync()
    assert a.tree() == b.tree() == {"new": b"newer", "back": b"b", "keep": b"k"}


def test_hidden_files_of_several_folders_are_added_up(buckia: Run, docs: Path) -> None:
    """In the sync, its plan and the status; a restore in place brings those of one folder back."""
    for name in "AB":
        (docs / name / "one").unlink()
    for _ in range(2):
        assert buckia("sync", "-n", "--json").json["hidden"] == 2
        result = buckia("sync", "--json").json
        assert (result["hidden"], [part["hidden"] for part in result["folders"]]) == (2, [1, 1])
        status = buckia("status", "--json").json
        assert (status["hidden"], [part["hidden"] for part in status["folders"]]) == (2, [1, 1])
    assert buckia("status").out.count(f"  1 file {HIDDEN}\n") == 2
    assert buckia("restore", "one", "--folder", "A", "--yes").code == 0
    assert (docs / "A/one").read_text() == "Aone"
    assert [part["hidden"] for part in buckia("sync", "--json").json["folders"]] == [0, 1]


# ---- settled by the policy


@pytest.mark.parametrize(
    ("policy", "kept", "text"),
    [
        ("local_wins", "local", "this device's version is current, the other one is in the history"),
        ("remote_wins", "remote", "the other device's version is current, the other one is in the history"),
        ("newest_wins", "remote", "the other device's version is current, the other one is in the history"),
    ],
)
def test_settled_conflicts_are_named(
    world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch, policy: str, kept: str, text: str
) -> None:
    """The path and the side that was kept, in the result and in text; the plan says what it would be."""
    a, b = world.pair()
    a.write("sub/doc", "agreed")
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("sub/doc", "of a", mtime_ns=OLD_NS + 10**10)
    a.sync()
    b.write("sub/doc", "of b!", mtime_ns=OLD_NS)
    options = ("--conflict-resolution", policy)
    planned = _command(buckia, monkeypatch, b, "sync", *options, "-n", "--json").json
    assert planned["resolved_list"] == [{"path": "sub/doc", "kept": kept, "folder": ""}]
    outcome = _command(buckia, monkeypatch, b, "sync", *options)
    assert (outcome.code, outcome.err) == (0, f"settled: sub/doc: {text}\n")
    result = _command(buckia, monkeypatch, b, "sync", *options, "--json").json
    assert (result["resolved"], result["resolved_list"]) == (0, [])


def test_many_settled_conflicts_are_told_in_part_and_with_their_folder(
    world: World, buckia: Run, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty lines at most; the JSON has them all."""
    other = Device(world.base / "other", str(world.base / "bk/B"), world.base / "other state")
    names = [f"f{number:02}" for number in range(22)]
    for name in names:
        (docs / "B" / name).write_text("agreed")
    wait_a_tick()
    assert buckia("sync").code == 0
    other.sync()
    wait_a_tick()
    for name in names:
        other.write(name, "of another")
        (docs / "B" / name).write_text("of this one")
    wait_a_tick()
    other.sync()
    planned = buckia("sync", "-n", "--json").json
    lines = buckia("sync").err.splitlines()
    assert lines[0] == "settled: B/f00: this device's version is current, the other one is in the history"
    assert lines[20:] == ["... and 2 more settled conflicts (all with --json)"]
    assert planned["resolved"] == len(planned["resolved_list"]) == 22


def test_a_conflict_whose_edit_could_not_be_read_is_not_said_to_be_settled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is an error, and settled by a later run."""
    a, b = world.pair()
    a.write("doc", "agreed")
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("doc", "of a")
    a.sync()
    b.write("doc", "of b, longer")

    def unreadable(*_: object) -> None:
        raise LocalError("It cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(Capture, "read", unreadable)
        result = b.sync()
    assert (result.success, result.resolved, result.resolved_list) == (False, 0, [])
    (settled,) = b.sync().resolved_list
    assert (settled.path, settled.kept) == ("doc", "local")
