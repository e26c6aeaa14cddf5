"""Which directory shows which folder: what the configuration names, and no second place beside it by mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from buckia import BuckiaClient, BuckiaConfig
from buckia.errors import UsageError
from tests.cli.conftest import Outcome, error_of
from tests.cli.support import tree_of

Run = Callable[..., Outcome]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An entry with two folders, one of which is in the bucket."""
    project = tmp_path / "project"
    (project / "photos/2024").mkdir(parents=True)
    (project / "photos/2024/one").write_text("1")
    monkeypatch.chdir(project)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    write("folders: [photos, notes], paths: [.]")
    return project


def write(keys: str) -> None:
    Path(".buckia").write_text(f"x: {{provider: local, bucket_name: ../bucket, {keys}}}\n")


@pytest.mark.parametrize("line", ["sync", "status", "ls", "sync elsewhere", "verify"])
def test_a_misspelt_folder_is_refused_and_made_nowhere(buckia: Run, project: Path, line: str) -> None:
    """A folder that the entry does not name is met with the one that was meant, and with all that there are."""
    (project / "elsewhere").mkdir()
    outcome = buckia(*line.split(), "--folder", "phtos")
    assert error_of(outcome) == (2, "The bucket entry 'x' names no folder 'phtos'; did you mean 'photos'?")
    assert "hint: Its folders are: photos, notes." in outcome.err
    assert not (project / "phtos").exists()
    assert not (project.parent / "bucket").exists()


def test_a_folder_that_paths_name_is_known_and_others_are_not(buckia: Run, project: Path) -> None:
    """``remote`` names a folder as ``folders`` does."""
    write("paths: [{local: photos, remote: AAA}]")
    assert buckia("sync", "--folder", "AAA").code == 0
    assert error_of(buckia("sync", "--folder", "BBB")) == (2, "The bucket entry 'x' names no folder 'BBB'.")


def test_where_no_folder_is_named_any_may_be_used(buckia: Run, project: Path) -> None:
    """``--folder`` stays free, with a directory and without."""
    write("delete_orphaned: true")
    assert buckia("sync", "photos", "--folder", "any").code == 0
    assert buckia("sync", "--folder", "photos").code == 0
    assert {path.name for path in (project.parent / "bucket").iterdir()} == {"any", "photos"}


@pytest.mark.parametrize("where", [".", "../photos", "../link"])
def test_a_configured_root_stands_for_itself_alone(
    buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Named from within or by a link it is synced as by a plain ``sync``, and no folder is made inside."""
    (project / "link").symlink_to("photos")
    assert buckia("sync").code == 0
    monkeypatch.chdir(project / "photos")
    assert buckia("sync", where, "--json").json["unchanged"] == 1
    assert buckia("sync", where, "--folder", "photos", "--json").json["unchanged"] == 1
    assert buckia("status", where, "--json").json["in_sync"] is True
    assert [*tree_of(project / "photos")] == ["2024/one"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sync photos/2024", "{}/photos/2024 lies inside {}/photos, which shows the folder 'photos' already."),
        ("status photos/2024", "{}/photos/2024 lies inside {}/photos, which shows the folder 'photos' already."),
        ("sync photos/2024 --folder notes", "{}/photos/2024 lies inside {}/photos, which shows the folder 'photos'"),
        ("sync . --folder photos", "{} would lie around {}/photos, which shows the folder 'photos' already."),
        ("sync notes --folder photos", "{}/notes shows the folder 'notes' already, so it cannot show another one."),
        ("sync other", "{}/photos/2024 would lie inside {}/photos, which shows the folder 'photos' already."),
    ],
)
def test_no_root_lies_in_or_around_a_configured_one(buckia: Run, project: Path, line: str, problem: str) -> None:
    """The next plain ``sync`` would publish what was fetched there to everyone; nothing is written on either side."""
    (project / "notes").mkdir()
    (project / "other").mkdir()
    (project / "other/photos").symlink_to("../photos/2024")
    before = tree_of(project)
    outcome = buckia(*line.split())
    code, message = error_of(outcome)
    assert (code, message.startswith(problem.replace("{}", str(project)))) == (2, True), message
    assert "hint: " in outcome.err
    assert tree_of(project) == before
    assert not (project.parent / "bucket").exists()


def test_the_hint_for_a_part_of_a_root_does_what_was_meant(buckia: Run, project: Path) -> None:
    """What it names syncs that part, at its place in the folder."""
    hint = "for this part of it `buckia sync --folder photos --paths 2024`."
    assert hint in buckia("sync", "photos/2024").err
    assert buckia("sync", "--folder", "photos", "--paths", "2024", "--json").json["uploaded"] == 1
    assert buckia("cat", "2024/one", "--folder", "photos").code == 0


def test_a_directory_elsewhere_takes_the_place_of_paths(buckia: Run, project: Path) -> None:
    """As documented: ``DIR`` holds the folders, or with ``--folder`` is one; so does the directory of the paths."""
    assert buckia("sync").code == 0
    for name in ("elsewhere", "copy"):
        (project.parent / name).mkdir()
    assert buckia("sync", "../elsewhere").code == 0
    assert [*tree_of(project.parent / "elsewhere")] == ["photos/2024/one"]
    assert buckia("sync", "../copy", "--folder", "photos").code == 0
    assert [*tree_of(project.parent / "copy")] == ["2024/one"]
    assert buckia("sync", ".", "--json").json["unchanged"] == 1


def test_a_file_without_paths_claims_its_own_directory_and_an_entry_in_code_none(project: Path) -> None:
    """In code ``sync(DIR)`` is all that says where the files are."""
    keys = {"provider": "local", "bucket_name": str(project.parent / "bucket")}
    with BuckiaClient(keys) as client:
        assert client.sync("photos").uploaded == 1
    write("delete_orphaned: true")
    with (
        BuckiaClient(BuckiaConfig.from_file(".buckia")) as client,
        pytest.raises(UsageError, match=r"lies inside .* which shows the bucket already") as caught,
    ):
        client.sync("photos")
    assert "set 'paths' in the configuration" in str(caught.value.hint)
