"""What a sync says of itself is true: its last line, its counts, what it left out, what it was asked for in vain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.cli.conftest import Outcome
from tests.cli.support import Device, World, wait_a_tick

Run = Callable[..., Outcome]


@pytest.fixture
def sync(buckia: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Sync a device by the command."""

    def invoke(device: Device, *arguments: str) -> Outcome:
        monkeypatch.setenv("BUCKIA_STATE_DIR", str(device.state))
        return buckia("sync", str(device.root), "--to", device.location, *arguments)

    return invoke


def _line(outcome: Outcome) -> str:
    """What the last line says was done."""
    return outcome.out.splitlines()[-1].partition("   root ")[0]


def _filled(world: World) -> tuple[Device, Device]:
    """Two devices in step with five files, two of them below `sub`."""
    a, b = world.pair()
    a.fill({"one": "1", "two": "2", "three": "3", "sub/four": "4", "sub/five": "5"})
    wait_a_tick()
    assert a.sync().uploaded == 5
    assert b.sync().downloaded == 5
    return a, b


# ---- counts


def test_files_that_were_only_compared_by_content_are_in_step(world: World, sync: Run) -> None:
    """A state that is lost, and a directory that was copied, hold files that are in step."""
    a, b = _filled(world)
    shutil.rmtree(a.state)
    assert _line(sync(a)) == "In step: 5 files"
    assert _line(sync(a)) == "In step: 5 files"
    c = world.device("c")
    shutil.copytree(b.root, c.root, dirs_exist_ok=True)
    assert _line(sync(c)) == "In step: 5 files"
    assert sync(c, "--json").json["unchanged"] == 5


def test_filters_count_what_they_cover(world: World, sync: Run) -> None:
    """With --paths and expressions the files that were looked at are counted, in each of several runs."""
    a, _ = _filled(world)
    for _ in range(3):
        assert _line(sync(a, "--paths", "sub")) == "In step: 2 files"
        assert _line(sync(a, "--paths", "one", "sub/four")) == "In step: 2 files"
        assert _line(sync(a, "--exclude", "^t")) == "In step: 3 files"
        assert _line(sync(a)) == "In step: 5 files"
    a.write("sub/five", "changed")
    wait_a_tick()
    result = sync(a, "--paths", "sub", "--json").json
    assert (result["uploaded"], result["unchanged"]) == (1, 1)


def test_ignored_files_are_not_in_step(world: World, sync: Run) -> None:
    """What an ignore file leaves out counts for nothing, also where the bucket has it and nothing changed."""
    a, b = _filled(world)
    b.write(".buckiaignore", "t*\n")
    wait_a_tick()
    assert _line(sync(b)) == "Synced 1 file up"
    assert _line(sync(b)) == "In step: 4 files"
    assert _line(sync(b)) == "In step: 4 files"
    a.write("two", "by a")
    wait_a_tick()
    assert sync(a, "--json").json["unchanged"] == 4  # before the ignore file arrives, it leaves nothing out
    assert _line(sync(b)) == "In step: 4 files"
    assert _line(sync(b)) == "In step: 4 files"


def test_a_file_that_is_hidden_here_is_not_in_step(world: World, sync: Run) -> None:
    """It is in the bucket and not on this disk."""
    a, _ = _filled(world)
    (a.root / "one").unlink()
    for _ in range(2):
        assert sync(a, "--json").json["unchanged"] == 4


def test_a_change_of_mode_is_counted_on_both_sides(world: World, sync: Run) -> None:
    """It moves no bytes of the file, and something was done all the same."""
    a, b = _filled(world)
    (a.root / "one").chmod(0o600)
    assert _line(sync(a)) == "Synced 1 file up"
    assert _line(sync(b)) == "Synced 1 down"
    assert (b.root / "one").stat().st_mode & 0o777 == 0o600
    assert _line(sync(b)) == "In step: 5 files"


def test_directories_alone_are_counted(world: World, sync: Run) -> None:
    """A new, changed or removed directory is named where no file moved, and is in the JSON in any case."""
    a, b = _filled(world)
    (a.root / "empty").mkdir()
    (a.root / "sub").chmod(0o700)
    assert sync(a, "-n").out.startswith("Would be done: 2 directories.")
    assert _line(sync(a)) == "Synced 2 directories"
    assert sync(b, "--json").json["directories"] == 2
    assert _line(sync(b)) == "In step: 5 files"
    (a.root / "empty").rmdir()
    assert _line(sync(a, "--delete-orphaned")) == "Synced 1 directory"
    assert _line(sync(b)) == "Synced 1 directory"
    a.write("more/six", "6")
    result = sync(a, "--json").json
    assert (result["uploaded"], result["directories"]) == (1, 1)


def test_a_conflict_that_waits_is_nothing_that_was_synced(world: World, sync: Run) -> None:
    """Only the run in which it came about did anything."""
    a, b = world.pair()
    a.write("one", "of a")
    b.write("one", "of b")
    wait_a_tick()
    a.sync()
    assert _line(sync(b)).startswith("Synced ")
    assert _line(sync(b)) == "In step: 2 files, 1 conflict"


# ---- what is left out


def _odd(world: World) -> Device:
    a = world.device("a")
    a.fill({"ok": "x", "_buckia_stuff": "x", ".buckia-mine/x": "x", ".buckia.yaml": "a: {}\n"})
    a.write("app.db", b"SQLite format 3\0" + b"\0" * 100)
    a.write("app.db-wal", "changes")
    os.mkfifo(a.root / "pipe")
    wait_a_tick()
    return a


def test_what_is_left_out_is_named(world: World, sync: Run) -> None:
    """Without -v one line with three names and reasons, in the first run and in every other; our own files not."""
    a = _odd(world)
    for _ in range(3):
        (line,) = [line for line in sync(a).err.splitlines() if "left out" in line]
        assert line == (
            "4 paths left out: .buckia-mine (its name is reserved for buckia), _buckia_stuff (its name is reserved for "
            "buckia), app.db-wal (it belongs to an open SQLite database), and 1 more (all with -v)"
        )
    assert "left out" not in sync(a, "-q").err


def test_all_that_is_left_out_is_listed(world: World, sync: Run) -> None:
    """With -v and --json, our own files too."""
    a = _odd(world)
    expected = {
        ".buckia-mine": ("its name is reserved for buckia", "local"),
        ".buckia.yaml": ("it is one of buckia's own files", "own"),
        "_buckia_stuff": ("its name is reserved for buckia", "local"),
        "app.db-wal": ("it belongs to an open SQLite database", "local"),
        "pipe": ("it is no file, directory or link", "local"),
    }
    for _ in range(2):
        result = sync(a, "--json")
        found = {item["path"]: (item["reason"], item["kind"]) for item in result.json["skipped_list"]}
        assert found == expected
        assert result.json["skipped"] == 5
        lines = [line for line in sync(a, "-v").err.splitlines() if line.startswith("left out: ")]
        assert lines == [f"left out: {path}: {reason}" for path, (reason, _) in sorted(expected.items())]


def test_the_trash_and_configurations_are_nothing_to_wonder_about(world: World, sync: Run) -> None:
    """A directory that holds nothing else of the kind says nothing of what was left out."""
    a, b = _filled(world)
    (a.root / "one").unlink()
    a.sync(delete_orphaned=True)
    b.write(".buckia", "a: {}\n")
    assert sync(b).err == ""
    assert (b.root / ".buckia-trash").is_dir()
    assert sync(b).err == ""
    assert sync(b, "--json").json["skipped"] == 2


@pytest.mark.parametrize("content", ["", "important"])
@pytest.mark.parametrize("beside", ["notes-journal", "notes-wal", "notes-shm"])
def test_what_only_has_the_name_of_a_journal_is_synced(world: World, sync: Run, content: str, beside: str) -> None:
    """Beside an empty file only what begins as SQLite writes it is taken for its log, and what is to replace the file
    is not held up.
    """
    a, b = world.pair()
    a.write("notes", "")
    a.write(beside, content)
    wait_a_tick()
    result = sync(a, "--json").json
    assert (result["uploaded"], result["skipped"]) == (2, 0)
    b.sync()
    b.write("notes", "more")
    wait_a_tick()
    b.sync()
    result = sync(a, "--json").json
    assert (result["downloaded"], result["failed"]) == (1, 0)
    assert a.read("notes") == b"more"


@pytest.mark.parametrize(
    ("beside", "content"),
    [("x-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"), ("x-journal", bytes(512)), ("x-wal", b"\x37\x7f\x06\x82....")],
)
def test_the_log_of_a_database_that_is_not_written_yet_is_withheld(
    world: World, sync: Run, beside: str, content: bytes
) -> None:
    """A new database is empty until its first transaction is done."""
    a = world.device("a")
    a.write("x", "")
    a.write(beside, content)
    wait_a_tick()
    result = sync(a, "--json").json
    assert (result["uploaded"], [item["path"] for item in result["skipped_list"]]) == (1, [beside])
