"""Every command for real: what it does, what ``--json`` prints, which names of snapshots it takes, and how it ends."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Outcome
from tests.cli.support import OLD_NS, World, process, tree_of, wait_a_tick

Run = Callable[..., Outcome]
Command = Callable[..., Outcome]

SYNC_FIELDS = {
    *("uploaded", "downloaded", "deleted", "unchanged", "skipped", "hidden", "conflicts", "resolved", "failed"),
    *("errors", "conflict_list", "resolved_list", "warnings", "root", "root_before", "snapshot", "dry_run", "success"),
    *("directories", "skipped_list", "missing", "folder", "error", "folders"),
    *("requests", "retried", "retries", "bytes_uploaded", "bytes_downloaded"),
}
SNAPSHOT_FIELDS = {"id", "time", "device", "root", "files", "bytes", "head"}
FILE_FIELDS = {"path", "kind", "size", "mtime_ns", "mode", "content", "digest", "target", "conflict"}
DIFFERENCE_FIELDS = {"path", "change", "size_before", "size_after"}
VERSION_FIELDS = {"path", "change", "snapshot", "time", "device", "size", "content"}
RESTORE_FIELDS = {
    *("restored", "unchanged", "deleted", "trashed", "failed", "bytes", "bytes_reused", "extra", "errors", "warnings"),
    *("snapshot", "root", "dry_run", "requests", "retried", "retries", "bytes_uploaded", "bytes_downloaded"),
    "actions",
}
VERIFY_FIELDS = {
    *("snapshots", "files", "packs", "blobs", "bytes", "read_data", "damaged", "foreign", "unreferenced_packs", "root"),
    *("clean", "requests", "retried", "retries", "bytes_uploaded", "bytes_downloaded"),
}
STATUS_FIELDS = {
    *("local_path", "location", "in_sync", "to_upload", "to_download", "to_delete", "hidden", "conflicts", "pending"),
    *(
        "root",
        "folder",
        "folders",
        "snapshot",
        "snapshot_time",
        "device",
        "files",
        "bytes",
        "requests",
        "retried",
        "retries",
    ),
    *("bytes_uploaded", "bytes_downloaded"),
}


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state-of-commands"))


@pytest.fixture
def three(world: World) -> World:
    """A folder with three snapshots by one device."""
    a = world.device("a")
    a.fill({"images/one.png": "1", "note": "first"})
    a.sync()
    wait_a_tick()
    a.write("note", "second")
    a.sync()
    wait_a_tick()
    a.write("note", "third, longer")
    (a.root / "images/one.png").unlink()
    a.write("images/two.png", "22", mtime_ns=OLD_NS)
    a.sync(delete_orphaned=True)
    return world


@pytest.fixture
def command(buckia: Run, three: World) -> Command:
    """Run a reading command on that folder."""
    return lambda name, *arguments: buckia(name, *arguments, "--from", three.location)


def compact(outcome: Outcome) -> Any:
    """The one line of JSON of a command that printed nothing else."""
    (line,) = outcome.out.splitlines()
    value = json.loads(line)
    assert line == json.dumps(value, separators=(",", ":"))
    assert outcome.err == ""
    return value


# ---- JSON


def test_json_of_sync_status_and_dry_run(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    line = (str(a.root), "--to", world.location, "--json")
    assert buckia("sync", *line, "--dry-run").code in (0, 6)
    first = compact(buckia("sync", *line))
    assert first.keys() == SYNC_FIELDS
    assert (first["uploaded"], first["success"], first["failed"]) == (1, True, 0)
    assert first["requests"].keys() == {"put", "get", "list", "delete", "stat"}
    assert re.fullmatch("[0-9a-f]{64}", first["root"])
    assert re.fullmatch("[0-9a-f]{8}", first["snapshot"])
    a.write("two", "2")
    plan = compact(buckia("sync", *line, "--dry-run"))
    assert plan.keys() == SYNC_FIELDS | {"actions", "estimate"}
    assert plan["dry_run"] is True
    assert plan["actions"] == [{"kind": "upload", "path": "two", "size": 1, "reason": "new here"}]
    status = compact(buckia("status", *line))
    assert status.keys() == STATUS_FIELDS
    assert (status["in_sync"], status["to_upload"]) == (False, 1)
    buckia("sync", *line)
    wait_a_tick()
    status = compact(buckia("status", *line))
    assert (status["in_sync"], status["to_upload"], status["files"], status["bytes"]) == (True, 0, 2, 2)
    assert status["requests"] == {"put": 0, "get": 0, "list": 1, "delete": 0, "stat": 0}


def test_json_of_reading_commands(command: Command) -> None:
    snapshots = compact(command("snapshots", "--json"))
    assert len(snapshots) == 3
    assert all(item.keys() == SNAPSHOT_FIELDS for item in snapshots)
    assert [item["head"] for item in snapshots].count(True) == 1
    listed = compact(command("ls", "-r", "--json"))
    assert {item["path"]: item["kind"] for item in listed} == {
        "images": "directory",
        "images/two.png": "file",
        "note": "file",
    }
    assert all(item.keys() == FILE_FIELDS for item in listed)
    differences = compact(command("diff", "latest~2", "--json"))
    assert {(item["path"], item["change"]) for item in differences} == {
        ("images/one.png", "removed"),
        ("images/two.png", "added"),
        ("note", "modified"),
    }
    assert all(item.keys() == DIFFERENCE_FIELDS for item in differences)
    versions = compact(command("log", "note", "--json"))
    assert [item["size"] for item in versions] == [5, 6, 13]
    assert all(item.keys() == VERSION_FIELDS for item in versions)
    assert compact(command("diff", "latest", "latest", "--json")) == []


def test_json_of_restore_and_verify(command: Command, three: World) -> None:
    restored = compact(command("restore", "--target", "out", "--json"))
    assert restored.keys() == RESTORE_FIELDS
    assert (restored["restored"], restored["failed"], restored["bytes"]) == (2, 0, 15)
    verified = compact(command("verify", "--json"))
    assert verified.keys() == VERIFY_FIELDS
    assert (verified["clean"], verified["read_data"], verified["snapshots"]) == (True, False, 3)
    deep = compact(command("verify", "--read-data", "--json"))
    assert (deep["clean"], deep["read_data"], deep["bytes"] > 0) == (True, True, True)


def test_json_of_errors(command: Command) -> None:
    outcome = command("ls", "nowhere", "--json")
    (line,) = outcome.out.splitlines()
    error = json.loads(line)["error"]
    assert (error["type"], error["exit_code"], outcome.code) == ("NotFoundError", 6, 6)


def test_json_of_config_and_init(buckia: Run, tmp_path: Path) -> None:
    done = compact(buckia("init", "--provider", "local", "--bucket-name", "bucket", "--folder", "f", "--json"))
    assert done == {"path": ".buckia", "bucket": "bucket", "check": None}
    shown = compact(buckia("config", "show", "--json"))
    assert shown == {"bucket": {"provider": "local", "bucket_name": "bucket", "folders": ["f"]}}
    (mapping,) = compact(buckia("config", "show", "--mapping", "--json"))
    assert (mapping["local"], mapping["folder"], mapping["receives"]) == (str(tmp_path / "f"), "f", True)
    assert compact(buckia("config", "validate", "--json"))["buckets"] == ["bucket"]
    assert buckia("init", "--provider", "local", "--bucket-name", "other").code == 2


# ---- names of snapshots


def test_names_of_snapshots(command: Command) -> None:
    listed = {item["id"]: item for item in command("snapshots", "--json").json}
    contents = {name: command("cat", "note", "--snapshot", name).out for name in listed}
    assert sorted(contents.values()) == ["first", "second", "third, longer"]
    by_content = {content: name for name, content in contents.items()}
    for name, content in {"latest": "third, longer", "latest~0": "third, longer", "latest~1": "second"}.items():
        assert command("cat", "note", "--snapshot", name).out == content
    first = by_content["first"]
    assert command("cat", "note", "--snapshot", "latest~2").out == "first"
    assert command("cat", "note", "--snapshot", first[:6]).out == "first"
    assert command("cat", "note", "--snapshot", listed[first]["time"]).code in (0, 6)
    assert command("cat", "note", "--snapshot", "2999-01-01").out == "third, longer"
    assert command("cat", "note", "--snapshot", "2999-01-01T10:00:00Z").out == "third, longer"
    for wrong in ("latest~3", "1999-12-31", "ffffffff", "yesterday", "latest~x", ""):
        outcome = command("cat", "note", "--snapshot", wrong)
        assert (outcome.code, outcome.out) == (6, ""), wrong


def test_a_time_names_the_newest_snapshot_until_then(
    buckia: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = world.device("a")
    for hour in (8, 10, 12):
        now = 1_700_000_000 - 1_700_000_000 % 86400 + hour * 3600
        monkeypatch.setattr("buckia.client.runtime.SystemClock.now_ns", lambda self, now=now: now * 10**9)
        a.write("note", f"at {hour}", mtime_ns=now * 10**9 - 10**9)
        a.sync()
    for time, content in {"09:00:00": "at 8", "10:00:00": "at 10", "11:59:59Z": "at 10", "23:00": "at 12"}.items():
        outcome = buckia("cat", "note", "--snapshot", f"2023-11-14T{time}", "--from", world.location)
        assert outcome.out == content
    outcome = buckia("cat", "note", "--snapshot", "2023-11-14T07:00:00", "--from", world.location)
    assert outcome.code == 6


# ---- the founding document's lines, in a directory with a configuration

LINES = "x: {provider: local, bucket_name: ../bucket, folders: [team], paths: .}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, as current directory."""
    project = tmp_path / "project"
    for name in ("images", "videos", "documents"):
        (project / "team" / name).mkdir(parents=True)
        (project / "team" / name / "file").write_text(name)
    (project / ".buckia").write_text(LINES)
    (project / ".buckia-staging").write_text(LINES.replace("../bucket", "../staging"))
    monkeypatch.chdir(project)
    return project


def test_the_lines_of_the_founding_document(buckia: Run, project: Path) -> None:
    assert buckia(*"sync --dry-run".split()).code in (0, 6)
    assert buckia(*"sync --paths images/ videos/".split()).code == 0
    assert {item["path"] for item in buckia("ls", "-r", "--json").json} == {
        *("images", "images/file", "videos", "videos/file")
    }
    assert buckia("sync").code == 0
    assert len(buckia("ls", "-r", "--json").json) == 6
    outcome = buckia(*"sync --dry-run".split())
    assert (outcome.code, outcome.err) == (0, "")
    assert "nothing, all is in step" in outcome.out
    wait_a_tick()
    outcome = buckia("status")
    assert outcome.code == 0
    assert "in step at root" in outcome.out
    assert not (project.parent / "staging").exists()
    assert buckia(*"sync --config .buckia-staging".split()).code == 0
    assert buckia(*"--config .buckia-staging status".split()).code == 0
    assert (project.parent / "staging/team/_buckia").is_dir()
    assert {key.split("/")[0] for key in _keys(project.parent / "bucket")} == {"team"}


def test_repeated_paths_are_the_same_as_many(buckia: Run, project: Path) -> None:
    assert buckia(*"sync --paths images --paths videos/file --json".split()).json["uploaded"] == 2


def test_a_single_folder_of_several_is_chosen(buckia: Run, project: Path) -> None:
    (project / ".buckia").write_text(LINES.replace("[team]", "[team, user]"))
    assert buckia("sync", "--json").code == 0
    assert (project / "user").is_dir()
    for line in ("snapshots", "ls", "verify"):
        outcome = buckia(*line.split())
        assert outcome.code == 2
        assert "Choose one with --folder: team, user." in outcome.err
    assert buckia("ls", "--folder", "team").code == 0
    assert buckia("sync", "--folder", "team", "--json").json["uploaded"] == 0
    assert buckia("ls", "--folder", "nobody").code == 2


def _keys(directory: Path) -> list[str]:
    return [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]


def test_two_devices_by_their_state_directories(buckia: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("phone", "laptop"):
        (world.base / name).mkdir()
    (world.base / "phone/file").write_text("1")
    for name in ("phone", "laptop", "phone"):
        monkeypatch.setenv("BUCKIA_STATE_DIR", str(world.base / f"state of {name}"))
        assert buckia("sync", name, "--to", world.location, "--device-name", name).code == 0
        (world.base / name / f"from {name}").write_text(name)
        assert buckia("sync", name, "--to", world.location).code == 0
    assert tree_of(world.base / "phone").keys() == {"file", "from phone", "from laptop"}
    devices = {item["device"] for item in buckia("snapshots", "--from", world.location, "--json").json}
    assert devices == {"phone", "laptop"}
    assert len(list((world.base / "state of phone").iterdir())) == 1


# ---- restore


def test_restore_to_targets(buckia: Run, command: Command, three: World) -> None:
    a = three.device("a")
    assert command("restore", "--target", "out").code == 0
    assert tree_of(Path("out")) == a.tree()
    assert Path("out/images/two.png").stat().st_mtime_ns == OLD_NS
    assert command("restore", "--snapshot", "latest~2", "--target", "old").code == 0
    assert tree_of(Path("old")) == {"images/one.png": b"1", "note": b"first"}
    assert command("restore", "images", "--target", "part").code == 0
    assert tree_of(Path("part")) == {"images/two.png": b"22"}
    assert command("restore", "nowhere", "--target", "none").code == 6
    assert not Path("none").exists()


def test_restore_over_files_needs_leave(command: Command, three: World) -> None:
    Path("out").mkdir()
    Path("out/note").write_text("mine")
    Path("out/extra").write_text("mine too")
    outcome = command("restore", "--target", "out")
    assert outcome.code == 10
    assert tree_of(Path("out")) == {"note": b"mine", "extra": b"mine too"}
    dry = compact(command("restore", "--target", "out", "--overwrite", "--dry-run", "--json"))
    assert dry["dry_run"] is True
    assert tree_of(Path("out")) == {"note": b"mine", "extra": b"mine too"}
    done = compact(command("restore", "--target", "out", "--overwrite", "--json"))
    assert done["extra"] == ["extra"]
    assert tree_of(Path("out")) == {**three.device("a").tree(), "extra": b"mine too"}
    done = compact(command("restore", "--target", "out", "--overwrite", "--delete-extra", "--json"))
    assert tree_of(Path("out")) == three.device("a").tree()
    assert tree_of(Path("out/.buckia-trash"))
    again = compact(command("restore", "--target", "out", "--overwrite", "--json"))
    assert (again["restored"], again["unchanged"]) == (0, 2)


def test_restore_in_place(buckia: Run, project: Path) -> None:
    note = project / "team/note"
    note.write_text("first")
    assert buckia("sync").code == 0
    wait_a_tick()
    note.write_text("second")
    assert buckia("sync").code == 0
    note.write_text("third, never synced")
    outcome = buckia("restore", "--snapshot", "latest~1")
    assert outcome.code == 10
    assert note.read_text() == "third, never synced"
    outcome = buckia("restore", "--snapshot", "latest~1", "--yes", "--json")
    assert (outcome.code, outcome.json["failed"]) == (0, 0), outcome.err
    assert note.read_text() == "first"
    captured = {buckia("cat", "note", "--snapshot", item["id"]).out for item in buckia("snapshots", "--json").json}
    assert captured == {"first", "second", "third, never synced"}
    assert buckia("sync", "--json").json["uploaded"] == 1
    assert buckia("cat", "note").out == "first"


def test_a_location_and_no_target(command: Command) -> None:
    outcome = command("restore")
    assert (outcome.code, "--target" in outcome.err) == (2, True)


# ---- diff, cat, log, ls


def test_diff_with_a_directory(command: Command, three: World) -> None:
    a = three.device("a")
    assert compact(command("diff", "latest", "--target", str(a.root), "--json")) == []
    a.write("note", "fourth")
    a.write("new/file", "n")
    (a.root / "images/two.png").unlink()
    found = compact(command("diff", "latest", "--target", str(a.root), "--json"))
    assert {(item["path"], item["change"]) for item in found} >= {
        ("note", "modified"),
        ("new/file", "added"),
        ("images/two.png", "removed"),
    }
    outcome = command("diff", "latest~2", "latest")
    assert outcome.out.splitlines()[-1].split() == ["M", "5", "B", "13", "B", "note"]
    assert command("diff", "latest", "latest", "--target", "x").code == 2


def test_cat_gives_bytes_as_they_are(three: World) -> None:
    a = three.device("a")
    a.write("binary", bytes(range(256)) * 1000)
    a.sync()
    done = process("cat", "note", "--from", three.location, cwd=three.base)
    assert (done.returncode, done.stdout) == (0, "third, longer")
    with a.client() as client:
        assert b"".join(client.cat("binary")) == bytes(range(256)) * 1000


def test_cat_of_what_is_no_file(command: Command) -> None:
    assert command("cat", "images").code == 2
    assert command("cat", "note/below").code == 6
    assert command("cat", "../note").code in (2, 6)


def test_log_and_ls_for_people(command: Command) -> None:
    lines = command("log", "images/one.png").out.splitlines()
    assert lines[0].split()[:2] == ["SNAPSHOT", "TIME"]
    assert {line.split()[3] for line in lines[1:]} == {"written", "deleted"}
    assert command("log", "nowhere").code == 6
    assert [line.split()[-1] for line in command("ls").out.splitlines()] == ["images/", "note"]
    digest = hashlib.sha256(b"third, longer").hexdigest()
    assert command("ls", "note", "--checksum").out == f"{digest}  note\n"


def test_snapshots_are_listed_oldest_first(command: Command) -> None:
    listed = command("snapshots", "--json").json
    contents = [command("cat", "note", "--snapshot", item["id"]).out for item in listed]
    assert contents == ["first", "second", "third, longer"]
    assert [item["head"] for item in listed] == [False, False, True]
    rows = command("snapshots").out.splitlines()
    assert rows[-1].split()[:2] == [listed[-1]["id"], "*"]


# ---- exit codes


def test_exit_codes_of_pending_conflicts_and_failures(
    buckia: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = world.pair()
    a.write("note", "agreed")
    a.sync()
    line = ["sync", str(b.root), "--to", world.location, "--conflict-resolution", "ask"]
    assert buckia(*line).code == 0
    wait_a_tick()
    a.write("note", "of a")
    a.sync()
    b.write("note", "of b!")
    outcome = buckia(*line)
    assert outcome.code == 9
    assert "conflict: note; other versions: note (conflict " in outcome.err
    assert buckia(*line).code == 9
    (copy,) = [path for path in b.tree() if "conflict" in path]
    (b.root / copy).unlink()
    assert buckia(*line, "--delete-orphaned").code == 0
    assert buckia(*line).code == 0
    a.sync()
    assert a.tree() == b.tree() == {"note": b.read("note")}


@pytest.mark.parametrize("number", ["0", "-1", "1025", "x"])
def test_a_number_of_workers_that_makes_no_sense(buckia: Run, three: World, number: str) -> None:
    outcome = buckia("sync", str(three.device("a").root), "--to", three.location, "--max-workers", number)
    assert outcome.code == 2
    assert "workers" in outcome.err


def test_commands_run_without_stdin(three: World) -> None:
    done = process("sync", str(three.device("a").root), "--to", three.location, "--json", cwd=three.base, CI="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["success"] is True
