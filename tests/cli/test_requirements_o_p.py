"""Requirements of the areas O (command line) and P (configuration), by real syncs."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia import __version__
from tests.cli.conftest import Outcome
from tests.cli.support import World, process, tree_of, wait_a_tick

Run = Callable[..., Outcome]

ENTRY = "x:\n  provider: local\n  bucket_name: bucket\n  folders: [f]\n"


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration and a folder ``f``."""
    project = tmp_path / "project"
    (project / "f/sub").mkdir(parents=True)
    (project / "f/file").write_text("1")
    (project / "f/sub/other").write_text("2")
    (project / ".buckia").write_text(ENTRY)
    monkeypatch.chdir(project)
    return project


def test_o1_the_command_tells_its_version(tmp_path: Path) -> None:
    done = process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"buckia {__version__}\n")


def test_o2_the_configuration_is_found_from_below(buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "f/sub")
    assert buckia("sync", "--json").json["uploaded"] == 2
    monkeypatch.chdir(project.parent)
    assert buckia("sync").code == 2
    wait_a_tick()
    assert buckia("sync", "-d", "project", "--json").json["unchanged"] == 2
    assert buckia("-d", "project", "status").code == 0


def test_o5_a_dry_run_lists_its_actions(buckia: Run, project: Path) -> None:
    buckia("sync")
    (project / "f/new").write_text("new")
    outcome = buckia("sync", "--dry-run")
    assert outcome.code == 0
    assert re.match(r"upload +3 B  new  \(new here\)\n", outcome.out)
    assert "Nothing was changed (dry run)." in outcome.out


def test_o7_status_costs_one_request(buckia: Run, project: Path) -> None:
    wait_a_tick()
    buckia("sync")
    status = buckia("status", "--json").json
    assert (status["in_sync"], sum(status["requests"].values())) == (True, 1)
    (project / "f/file").unlink()
    (project / "f/new").write_text("new")
    status = buckia("status", "--json").json
    assert (status["in_sync"], status["to_upload"]) == (False, 1)


def test_p2_nothing_of_ours_is_synced(buckia: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.buckia").write_text("x: {provider: local, bucket_name: ../bucket}\n")
    (tmp_path / "data/.buckia-staging").write_text("y: {provider: local, bucket_name: ../bucket}\n")
    (tmp_path / "data/file").write_text("1")
    result = buckia("-d", "data", "sync", "--json").json
    assert (result["uploaded"], result["skipped"]) == (1, 2)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".buckia", ".buckia-staging", "file"}
    assert [item["path"] for item in buckia("-d", "data", "ls", "--json").json] == ["file"]


def test_p3_paths_count_from_the_file_and_not_from_here(
    buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = buckia("sync", "--dry-run", "--json").json
    monkeypatch.chdir("/")
    there = buckia("sync", "--dry-run", "--json", "--config", str(project / ".buckia")).json
    assert here["actions"] == there["actions"] != []
    assert buckia("sync", "--config", str(project / ".buckia")).code == 0
    assert (project / "bucket/f/_buckia").is_dir()


def test_p4_p5_p6_entries_are_chosen_by_their_key(buckia: Run, project: Path) -> None:
    (project / ".buckia").write_text(ENTRY + ENTRY.replace("x:", "y:").replace("bucket\n", "other\n"))
    outcome = buckia("sync")
    assert (outcome.code, "--bucket NAME" in outcome.err, "x, y" in outcome.err) == (2, True, True)
    assert buckia("sync", "--bucket", "y").code == 0
    assert (project / "other/f").is_dir()
    assert not (project / "bucket").exists()
    (project / ".buckia").write_text(ENTRY + ENTRY)
    outcome = buckia("sync")
    assert (outcome.code, "the key 'x' stands twice" in outcome.err) == (2, True)


def test_p16_p40_every_object_lies_below_its_folder(buckia: Run, project: Path) -> None:
    (project / ".buckia").write_text(ENTRY.replace("[f]", "[f, g]"))
    (project / "g").mkdir()
    (project / "g/of g").write_text("3")
    assert buckia("sync").code == 0
    keys = [
        path.relative_to(project / "bucket").as_posix() for path in (project / "bucket").rglob("*") if path.is_file()
    ]
    assert keys
    assert all(re.match("(f|g)/_buckia/", key) for key in keys)
    assert [item["path"] for item in buckia("ls", "--folder", "g", "--json").json] == ["of g"]


def test_p17_without_folders_the_root_is_the_bucket(buckia: Run, project: Path) -> None:
    (project / ".buckia").write_text("x: {provider: local, bucket_name: ../bucket, paths: [f]}\n")
    assert buckia("sync", "--json").json["uploaded"] == 2
    assert (project.parent / "bucket/_buckia/folder").is_file()
    assert {item["path"] for item in buckia("ls", "--json").json} == {"file", "sub"}


def test_p17_a_root_may_say_where_it_lies(buckia: Run, project: Path) -> None:
    (project / ".buckia").write_text(ENTRY.replace("folders: [f]", "paths: [{local: f, remote: elsewhere}]"))
    assert buckia("sync", "--json").json["uploaded"] == 2
    assert (project / "bucket/elsewhere/_buckia").is_dir()


@pytest.mark.parametrize("line", ["files: {a: f/a}", "upload_files: {a: f/a}", "paths: [a, b]"])
def test_p18_p19_p29_what_is_not_there_yet_is_refused_and_not_ignored(buckia: Run, project: Path, line: str) -> None:
    (project / ".buckia").write_text(f"{ENTRY}  {line}\n")
    outcome = buckia("sync")
    assert outcome.code == 2
    assert f"'{line.partition(':')[0]}'" in outcome.err
    assert "not there yet" in outcome.err
    assert not (project / "bucket").exists()


def test_p20_deletions_are_published_if_the_configuration_says_so(buckia: Run, project: Path) -> None:
    buckia("sync")
    (project / "f/file").unlink()
    assert buckia("sync", "--json").json["hidden"] == 1
    assert "hidden" not in buckia("sync").out
    (project / ".buckia").write_text(ENTRY + "  delete_orphaned: true\n")
    assert buckia("sync", "--no-delete-orphaned", "--json").json["deleted"] == 0
    assert buckia("sync", "--json").json["deleted"] == 1
    assert [item["path"] for item in buckia("ls", "--json").json] == ["sub"]


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha1"])
def test_p22_checksums_are_those_of_other_tools(buckia: Run, project: Path, algorithm: str) -> None:
    (project / ".buckia").write_text(f"{ENTRY}  checksum_algorithm: {algorithm}\n")
    buckia("sync")
    expected = [f"{hashlib.new(algorithm, data).hexdigest()}  {path}" for path, data in tree_of(project / "f").items()]
    assert sorted(buckia("ls", "-r", "--checksum").out.splitlines()) == sorted(expected)


@pytest.mark.parametrize(("policy", "winner"), [("local_wins", b"of b!"), ("remote_wins", b"of a"), ("ask", None)])
def test_p23_the_policy_of_the_configuration_decides(
    buckia: Run, project: Path, world: World, policy: str, winner: bytes | None
) -> None:
    (project / ".buckia").write_text(f"{ENTRY}  conflict_resolution: {policy}\n")
    world.folder = "f"
    a = world.device("a")
    a.location = str(project / "bucket/f")
    buckia("sync")
    a.sync()
    wait_a_tick()
    a.write("file", "of a")
    a.sync()
    (project / "f/file").write_bytes(b"of b!")
    outcome = buckia("sync", "--json")
    assert outcome.code == (0 if winner else 9)
    a.sync()
    assert a.tree() == tree_of(project / "f")
    if winner:
        assert a.read("file") == winner


def test_p26_ask_never_waits_for_an_answer(project: Path, world: World) -> None:
    (project / ".buckia").write_text(f"{ENTRY}  conflict_resolution: ask\n")
    done = process("sync", cwd=project, CI="true", BUCKIA_STATE_DIR=str(world.base / "state"))
    assert done.returncode == 0


def test_p43_the_id_is_all_that_a_reader_needs(buckia: Run, project: Path) -> None:
    buckia("sync")
    assert buckia("restore", "--from", str(project / "bucket/f"), "--target", "copy").code == 0
    assert tree_of(project / "copy") == tree_of(project / "f")


def test_p_every_command_finds_the_folder_of_a_mapped_root(
    world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.base)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(world.base / "state"))
    Path(".buckia").write_text("b: {provider: local, bucket_name: bucket, paths: [{local: mine, remote: AAA}]}\n")
    Path("mine").mkdir()
    Path("mine/file").write_text("1")
    assert buckia("sync").code == 0
    assert [entry["path"] for entry in buckia("ls", "--json").json] == ["file"]
    for line in ("snapshots", "log file", "cat file", "verify", "diff latest --target mine"):
        assert buckia(*line.split()).code == 0, line
    assert buckia("ls", "--folder", "BBB").code == 2
    assert buckia("sync", "--folder", "BBB").code == 2
    assert buckia("status", "--json").json["in_sync"] is True


def test_p_a_root_that_is_not_there_yet_is_planned_as_empty_and_made_by_the_sync(
    world: World, buckia: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.base)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(world.base / "state"))
    Path("other").mkdir()
    Path("other/file").write_text("1")
    assert buckia("sync", "other", "--to", "bucket/f").code == 0
    before = tree_of(world.base / "state")
    Path(".buckia").write_text("b: {provider: local, bucket_name: bucket, folders: [f], paths: [notes]}\n")
    outcome = buckia("sync", "--dry-run")
    assert (outcome.code, "no directory" in outcome.err) == (2, True)  # a typo or a disk that is not mounted

    Path("notes").mkdir()
    Path("notes/.buckia").write_text("one of our own")
    assert "the files beside it" not in buckia("sync", "--dry-run", "--config", ".buckia").err
    Path("notes/mine").write_text("not synced")
    outcome = buckia("sync", "--dry-run")
    assert (outcome.code, "file" in outcome.out) == (0, True)
    assert "the files beside it" in outcome.err
    assert not Path("notes/f").exists()
    assert tree_of(world.base / "state") == before

    assert buckia("sync").code == 0
    assert tree_of(Path("notes")) == {"f/file": b"1", "mine": b"not synced"}
    shutil.rmtree("bucket")
    outcome = buckia("sync")
    assert (outcome.code, "There is no local bucket" in outcome.err) == (6, True)
    assert str(world.base / "state") in outcome.err  # what to remove to begin anew


def test_o_a_device_name_that_no_record_can_hold(world: World, buckia: Run) -> None:
    a = world.device("a")
    a.write("file", "1")
    line = ("sync", str(a.root), "--to", world.location)
    outcome = buckia(*line, "--device-name", "x" * 65)
    assert (outcome.code, "1 to 64 bytes" in outcome.err) == (2, True)
    assert buckia(*line, "--device-name", "x" * 64).code == 0


def test_c_status_counts_conflicts_that_wait_and_all_folders(world: World, buckia: Run) -> None:
    a, b = world.pair()
    a.write("p", "one")
    b.write("p", "two")
    a.sync()
    b.sync(conflict_resolution="ask")
    with b.client() as client:
        status = client.status(b.root)
    assert (status.conflicts, status.in_sync) == (1, False)
