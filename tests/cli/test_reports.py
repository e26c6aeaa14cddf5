"""What a sync says of itself is true: its last line, its counts, what it left out, what it was asked for in vain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from buckia import BuckiaClient
from buckia.errors import AuthenticationError, LocalError
from buckia.local.disk import RealFileSystem
from buckia.local.fs import RawEntry
from buckia.sync.base import Page
from buckia.sync.local import LocalSync
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


def test_what_filters_leave_out_is_not_told(world: World, sync: Run) -> None:
    """Who has seen the line can silence it with an ignore file; and with --paths only what lies there counts."""
    a = _odd(world)
    assert "left out" not in sync(a, "--paths", "ok").err
    assert sync(a, "--exclude", "pipe|mine|stuff|wal", "--json").json["skipped"] == 1
    a.write(".buckiaignore", "pipe\n.buckia-mine/\n_buckia*\n*-wal\n")
    for _ in range(2):
        assert sync(a).err == ""


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


# ---- what was asked for in vain


def test_a_path_that_is_nowhere_is_reported(world: World, sync: Run) -> None:
    """A typo in --paths is a failure of its own; the other paths are synced."""
    a, b = _filled(world)
    a.write("one", "changed")
    a.write("new/x", "x")
    wait_a_tick()
    outcome = sync(a, "--paths", "one", "new", "nonexist", "sub/nope", "one/below")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"failed: {path}: it is neither on this disk nor in the bucket"
        for path in ("nonexist", "one/below", "sub/nope")
    ]
    assert _line(outcome) == "Synced 2 files up, 3 failed"
    outcome = sync(a, "--paths", "typo", "--json")
    assert (outcome.code, outcome.json["missing"], outcome.json["failed"]) == (1, ["typo"], 1)
    assert sync(a, "--paths", "typo", "-n").code == 1
    # On one side only is enough, and a disk's own normalisation.
    assert sync(b, "--paths", "new").code == 0
    (a.root / "cafe\u0301").write_text("x")
    assert sync(a, "--paths", "caf\u00e9").code == 0
    (a.root / "two").unlink()
    assert sync(a, "--paths", "two").code == 0
    assert sync(a, "--paths", ".").code == 0


def test_a_typo_in_a_first_sync_is_reported(world: World, sync: Run) -> None:
    """Neither side has anything to compare with yet."""
    a = world.device("a")
    a.write("one", "1")
    for more in (("-n",), (), ()):
        outcome = sync(a, "--paths", "typo", *more)
        assert (outcome.code, outcome.err) == (1, "failed: typo: it is neither on this disk nor in the bucket\n")


def test_what_cannot_be_looked_at_is_no_typo(world: World, sync: Run) -> None:
    """A directory that cannot be read is what failed."""
    a = world.device("a")
    a.write("private/x", "1")
    original = RealFileSystem.scan

    def scan(self: RealFileSystem, path: str) -> list[RawEntry]:
        if path.endswith("private"):
            raise LocalError("Cannot read the directory private: permission denied.")
        return original(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RealFileSystem, "scan", scan)
        outcome = sync(a, "--paths", "private/x")
    assert (outcome.code, outcome.err) == (
        1,
        "failed: private: Cannot read the directory private: permission denied.\n",
    )


def test_a_conflict_that_the_policy_settled_is_named(world: World, sync: Run) -> None:
    """On the device that settled it, with the side whose version is current."""
    one, two = world.pair()
    for policy, kept, words in (("local_wins", "local", "this device's"), ("remote_wins", "remote", "the other")):
        for form in ((), ("--json",)):
            one.write("doc", f"{policy}{form} base")
            wait_a_tick()
            one.sync()
            two.sync()
            one.write("doc", f"{policy}{form} one")
            two.write("doc", f"{policy}{form} two, longer")
            wait_a_tick()
            one.sync()
            outcome = sync(two, "--conflict-resolution", policy, *form)
            assert outcome.code == 0
            if form:
                assert outcome.json["resolved_list"] == [{"path": "doc", "kept": kept, "folder": ""}]
            else:
                assert "1 conflict settled" in outcome.out
                assert f"settled: doc: {words}" in outcome.err
            assert sync(two, "--json").json["resolved_list"] == []


def test_what_is_deleted_here_alone_is_told_until_that_is_published(world: World, sync: Run, buckia: Run) -> None:
    one, _ = _filled(world)
    for name in ("one", "sub/four"):
        (one.root / name).unlink()
    told = "2 files deleted here, still in the bucket"
    for _ in range(2):
        wait_a_tick()
        assert f"{told} (sync --delete-orphaned publishes deletions, restore brings files back)." in sync(one).err
    assert sync(one, "--json").json["hidden"] == 2
    status = ("status", str(one.root), "--to", one.location)
    assert f"  {told} (" in buckia(*status).out
    assert buckia(*status, "--json").json["hidden"] == 2
    assert sync(one, "--delete-orphaned").code == 0
    assert buckia(*status, "--json").json["hidden"] == 0


# ---- several folders


@pytest.fixture
def folders(world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command where a configuration names three folders, which are in step."""
    world.base.joinpath(".buckia").write_text(
        "m:\n  provider: local\n  bucket_name: bk\n  folders: [A, B, C]\n  paths: [docs]\n"
    )
    monkeypatch.chdir(world.base)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(world.base / "state"))
    for name in "ABC":
        (world.base / "docs" / name).mkdir(parents=True)
        (world.base / "docs" / name / "file").write_text(name)
    wait_a_tick()
    assert buckia("sync").code == 0
    return buckia


def _other(world: World, folder: str) -> Device:
    return Device(world.base / f"other-{folder}", str(world.base / "bk" / folder), world.base / "other")


def test_every_folder_has_a_line_of_its_own(world: World, folders: Run) -> None:
    """Results, conflicts, failures and warnings say whose they are."""
    other = _other(world, "B")
    other.sync()
    other.write("file", "by another")
    wait_a_tick()
    other.sync()
    (world.base / "docs/B/file").write_text("by us")
    (world.base / "docs/C/new").write_text("new")
    os.mkfifo(world.base / "docs/A/pipe")
    wait_a_tick()
    outcome = folders("sync", "--conflict-resolution", "ask")
    assert outcome.code == 9
    assert [line.partition("   root ")[0] for line in outcome.out.splitlines()] == [
        "A: In step: 1 file",
        "B: Synced 1 file up, 1 down, 1 conflict",
        "C: Synced 1 file up",
    ]
    assert "1 path left out: A/pipe (it is no file, directory or link)" in outcome.err
    assert "conflict: B/file; other versions: file (conflict " in outcome.err
    result = folders("sync", "--json").json
    assert [(part["folder"], part["conflicts"]) for part in result["folders"]] == [("A", 0), ("B", 1), ("C", 0)]
    assert all(part["root"] and part["snapshot"] for part in result["folders"])
    assert (result["unchanged"], result["conflict_list"][0]["folder"]) == (5, "B")
    (world.base / "docs/B/other").write_text("x")
    assert "B/other" in folders("sync", "-n").out


def test_status_shows_every_folder_by_itself(world: World, folders: Run) -> None:
    (world.base / "docs/B/new").write_text("new")
    (world.base / "docs/C/file").unlink()
    (world.base / "docs/C/other").write_text("x")
    lines = folders("status").out.splitlines()
    roots = [line.partition(" <-> ")[0] for line in lines if " <-> " in line]
    assert roots == [f"{name}: {world.base / 'docs' / name}" for name in "ABC"]
    assert [line for line in lines if "step" in line][1:] == ["  not in step: 1 to upload"] * 2
    result = folders("status", "--json").json
    parts = {part["folder"]: part for part in result["folders"]}
    assert (result["in_sync"], result["to_upload"], result["hidden"], result["files"]) == (False, 2, 1, 3)
    assert [parts[name]["to_upload"] for name in "ABC"] == [0, 1, 1]
    assert [parts[name]["hidden"] for name in "ABC"] == [0, 0, 1]
    assert parts["A"]["in_sync"]
    assert len({parts[name]["snapshot"] for name in "ABC"}) == 3


def test_status_says_which_of_several_folders_an_error_is_about(world: World, folders: Run) -> None:
    assert folders("status").code == 0
    shutil.rmtree(world.base / "bk" / "B" / "_buckia")
    outcome = folders("status")
    assert outcome.code != 0
    assert outcome.out == ""
    assert outcome.err.startswith("buckia: error: B: ")


def test_what_is_wrong_with_one_folder_holds_up_no_other(world: World, folders: Run) -> None:
    """A folder that is refused is named, the others are synced and shown, and the exit code is the first error's."""
    for name in "AC":
        (world.base / "docs" / name / "new").write_text("new")
    (world.base / "docs/B/file").unlink()  # empty now, as a disk that is not mounted
    wait_a_tick()
    dry = folders("sync", "-n")
    assert dry.code == 10
    assert "A/new" in dry.out
    assert "C/new" in dry.out
    outcome = folders("sync")
    assert outcome.code == 10
    assert [line.partition("   root ")[0] for line in outcome.out.splitlines()] == [
        "A: Synced 1 file up",
        "C: Synced 1 file up",
    ]
    assert f"buckia: error: B: The directory {world.base}/docs/B is empty, but it held files before." in outcome.err
    shutil.rmtree(world.base / "docs/C")
    outcome = folders("sync")
    assert outcome.code == 10
    assert outcome.err.count("buckia: error: ") == 2
    outcome = folders("sync", "--json")
    assert outcome.code == 10
    result = outcome.json
    assert [part["error"] and part["error"]["type"] for part in result["folders"]] == [
        None,
        "RefusedError",
        "RefusedError",
    ]
    assert (result["error"]["exit_code"], result["success"], result["unchanged"]) == (10, False, 2)


def test_what_is_wrong_with_the_bucket_stops_at_once(world: World, folders: Run) -> None:
    """Where it is gone after the first folder, the others are not tried, and what was done is told."""
    (world.base / "docs/A/new").write_text("new")
    wait_a_tick()
    original = LocalSync._list

    def listing(self: LocalSync, prefix: str, token: str | None) -> Page:
        if prefix.startswith("B/"):
            raise AuthenticationError("The key was revoked.")
        return original(self, prefix, token)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSync, "_list", listing)
        outcome = folders("sync")
        assert outcome.code == 3
        assert _line(outcome) == "A: Synced 1 file up"
        assert outcome.err == "buckia: error: B: The key was revoked.\n"
        assert [part["folder"] for part in folders("sync", "--json").json["folders"]] == ["A", "B"]


def test_a_chosen_path_need_be_in_one_folder_only(world: World, folders: Run) -> None:
    """It is nowhere only if no folder has it."""
    (world.base / "docs/B/only").write_text("x")
    assert folders("sync", "--paths", "only").code == 0
    outcome = folders("sync", "--paths", "nothing")
    assert (outcome.code, outcome.err) == (1, "failed: nothing: it is neither on this disk nor in the bucket\n")


def test_a_question_says_which_folder_it_is_about(world: World, folders: Run) -> None:
    """A mass deletion is confirmed for one folder, not for all."""
    for number in range(30):
        (world.base / "docs/B" / f"f{number}").write_text(str(number))
    wait_a_tick()
    folders("sync")
    for number in range(30):
        (world.base / "docs/B" / f"f{number}").unlink()
    asked: list[str] = []
    with BuckiaClient(world.base / ".buckia", state_dir=world.base / "state") as client:
        result = client.sync(delete_orphaned=True, confirm=lambda question: not asked.append(question))
    assert result.deleted == 30
    assert asked == ["B: This sync would remove 30 of 31 files from the folder. Go on?"]


# ---- conflicts in the history


def test_what_lies_beside_a_directory_is_listed(world: World, buckia: Run) -> None:
    """A directory may be one side of a conflict; `ls` and `log` show the other one, by the name that disks show."""
    a, b = world.pair()
    a.fill({"l/q": "q", "k": "k", "p": "1"})
    a.sync()
    b.sync()
    shutil.rmtree(a.root / "l")
    (a.root / "l").symlink_to("real")
    a.write("p", "of a")
    b.write("p", "of b!")
    wait_a_tick()
    b.sync()
    a.sync(conflict_resolution="ask")
    b.sync()
    on_disk = {path.name for path in b.root.iterdir() if not path.name.startswith(".buckia")}
    copies = [path for path in on_disk if "(conflict " in path]
    assert len(copies) == 2
    where = ("--from", world.location)
    listed = buckia("ls", "-r", *where, "--json").json
    assert sorted(item["path"] for item in listed) == sorted(on_disk | {"l/q"})  # hidden at a, not deleted
    assert {item["path"] for item in listed if item["conflict"]} == {"l", "p", *copies}
    link = next(path for path in copies if path.startswith("l "))
    assert [item["path"] for item in buckia("ls", *where, "--json").json if item["path"][0] == "l"] == ["l", link]
    (only,) = buckia("ls", link, *where, "--json").json
    assert (only["kind"], only["target"], only["conflict"]) == ("symlink", "real", True)
    other = next(path for path in copies if path != link)
    assert [item["path"] for item in buckia("ls", "p", *where, "--json").json] == ["p", other]
    for name in ("l", link):
        versions = buckia("log", name, *where, "--json").json
        assert [(item["change"], item["path"]) for item in versions] == [("directory", "l"), ("conflict", link)]
    assert [item["change"] for item in buckia("log", "p", *where, "--json").json].count("written") >= 2
    assert "4 B" in buckia("log", "l", *where).out


def test_the_log_of_a_path_that_changes_its_kind(world: World, buckia: Run) -> None:
    """A directory is told from a deletion."""
    a = world.device("a")
    for make in (
        lambda: a.write("x", "1"),
        lambda: ((a.root / "x").unlink(), a.write("x/y", "2")),
        lambda: shutil.rmtree(a.root / "x"),
    ):
        make()
        a.write("keep", os.urandom(4))
        wait_a_tick()
        a.sync(delete_orphaned=True)
    versions = buckia("log", "x", "--from", world.location, "--json").json
    assert [item["change"] for item in versions] == ["written", "directory", "deleted"]
    assert buckia("log", "nothing", "--from", world.location).code == 6
