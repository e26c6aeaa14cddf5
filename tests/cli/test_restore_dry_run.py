"""Promises of ``buckia restore --dry-run``: it says, path by path, what the same command would do without it, also in
place, where that begins with a sync; and it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from buckia.errors import LocalError
from tests.cli.conftest import Outcome
from tests.cli.support import tree_of, wait_a_tick

Run = Callable[..., Outcome]

COUNTS = ("restored", "unchanged", "trashed", "deleted", "bytes", "failed")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, as current directory; the folder lies in ``f`` and in the bucket ``wb``."""
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    place = tmp_path / "place"
    (place / "f").mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def synced(buckia: Run, place: Path) -> Path:
    """The folder's directory, with two snapshots behind it."""
    assert buckia(*"init --provider local --bucket-name wb --folder f --paths .".split()).code == 0
    folder = place / "f"
    write(folder, {"a": "1", "kept": "k", "d/x": "x", "e/y": "y", "file": "f", "was": "w"})
    assert buckia("sync").code == 0
    wait_a_tick()
    write(folder, {"a": "2"})
    assert buckia("sync").code == 0
    wait_a_tick()
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def edited_elsewhere(buckia: Run, place: Path, files: dict[str, str], gone: tuple[str, ...] = ()) -> None:
    """Another device syncs, edits and syncs again."""
    line = ("sync", str(place / "other"), "--to", str(place / "wb/f"))
    (place / "other").mkdir()
    assert buckia(*line).code == 0
    wait_a_tick()
    write(place / "other", files)
    for name in gone:
        (place / "other" / name).unlink()
    assert buckia(*line, "--delete-orphaned").code == 0


def kinds(outcome: Outcome) -> dict[str, str]:
    """The kind of action that a dry run shows for each path."""
    return {action["path"]: action["kind"] for action in outcome.json["actions"]}


def counts(outcome: Outcome) -> dict[str, object]:
    return {name: outcome.json[name] for name in COUNTS} | {"extra": sorted(outcome.json["extra"])}


def test_in_place_what_is_captured_first_counts_as_captured(buckia: Run, synced: Path) -> None:
    """A file that was edited since the last sync is restored, and the dry run says so."""
    write(synced, {"a": "3"})
    foreseen = buckia("restore", "--snapshot", "latest~1", "-n")
    assert foreseen.code == 0, foreseen.err
    assert "download           1 B  a  (replaces what is there, which goes to the trash)" in foreseen.out
    assert "Would restore 1 file, 1 B, 5 unchanged, 1 replaced (to the trash)" in foreseen.out
    assert (synced / "a").read_text() == "3"
    done = buckia("restore", "--snapshot", "latest~1", "-y")
    assert done.code == 0, done.err
    assert "Restored 1 file, 1 B, 5 unchanged, 1 replaced (to the trash)" in done.out


@pytest.mark.parametrize("policy", ["local_wins", "remote_wins", "ask"])
@pytest.mark.parametrize("options", [(), ("--delete-extra",), ("a", "d")])
def test_in_place_a_dry_run_counts_what_the_run_does(
    buckia: Run, place: Path, synced: Path, options: tuple[str, ...], policy: str
) -> None:
    """With edits, deletions, other kinds and conflicts on both sides it is as the sync before the restore leaves it."""
    configuration = (place / ".buckia").read_text()
    (place / ".buckia").write_text(f"{configuration.rstrip()}\n  conflict_resolution: {policy}\n")
    edited_elsewhere(
        buckia, place, {"a": "other side", "d/x": "x there", "there/new": "new", "both": "there"}, gone=("was",)
    )
    wait_a_tick()
    write(synced, {"a": "3", "kept": "edited", "new/n": "n", "both": "here"})
    (synced / "file").unlink()
    write(synced, {"file/in": "in"})
    (synced / "e/y").unlink()
    (synced / "e").rmdir()
    write(synced, {"e": "a file"})
    before = tree_of(synced)
    line = ("restore", *options, "--snapshot", "latest~2", "--json")
    foreseen = buckia(*line, "-n")
    assert tree_of(synced) == before
    done = buckia(*line, "-y")
    assert (foreseen.code, done.code) == (0, 0), foreseen.err + done.err
    assert counts(foreseen) == counts(done)
    assert done.json["actions"] == []


@pytest.mark.parametrize("present", [None, {}, {"a": "2", "kept": "mine", "mine/x": "x"}])
def test_in_place_where_nothing_was_synced_yet(
    buckia: Run, place: Path, synced: Path, present: dict[str, str] | None
) -> None:
    """On a new device the sync before the restore fetches, adopts and finds conflicts; the dry run counts that too.

    It makes no directory.
    """
    here = place.parent / "new"
    here.mkdir()
    configuration = (place / ".buckia").read_text()
    (here / ".buckia").write_text(configuration.replace("bucket_name: wb", "bucket_name: ../place/wb"))
    if present is not None:
        (here / "f").mkdir()
        write(here / "f", present)
    (synced / "link").symlink_to("/nowhere")
    assert buckia("sync").code == 0
    line = ("restore", "--config", str(here / ".buckia"), "--snapshot", "latest~2", "--delete-extra", "--json")
    foreseen = buckia(*line, "-n")
    assert (here / "f").exists() == (present is not None)
    done = buckia(*line, "-y")
    assert (foreseen.code, done.code) == (0, 0), foreseen.err + done.err
    assert counts(foreseen) == counts(done)


def test_in_place_what_cannot_be_captured_stops_both(
    buckia: Run, synced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read ends the dry run as it ends the run: nothing is restored."""
    from buckia.engine.capture import Capture

    write(synced, {"new": "n"})
    read = Capture.read

    def refuse(self: Capture, path: str, name: str, kind: int | None = None) -> object:
        if name.endswith("new"):
            raise LocalError("Permission denied: new")
        return read(self, path, name, kind)

    monkeypatch.setattr(Capture, "read", refuse)
    outcomes = [buckia("restore", "--snapshot", "latest~1", flag) for flag in ("-n", "-y")]
    assert outcomes[0].code == outcomes[1].code != 0
    assert "1 file could not be captured, so nothing was restored" in outcomes[0].err
    assert (synced / "a").read_text() == "2"


def test_every_action_is_shown(buckia: Run, place: Path, synced: Path) -> None:
    """What would be written, go to the trash, and be left is named as by the dry run of a sync."""
    target = place / "out"
    write(target, {"a": "mine", "kept": "k", "d": "a file", "file/in": "in", "more": "extra"})
    line = ("restore", "--target", str(target), "--overwrite", "-n")
    foreseen = buckia(*line, "--json")
    assert kinds(foreseen) == {
        **dict.fromkeys(("a", "d/x", "e/y", "file", "was"), "download"),
        **dict.fromkeys(("d", "file/in"), "delete_local"),
        "more": "keep",
    }
    assert foreseen.json["actions"][0] == {
        "kind": "download",
        "path": "a",
        "size": 1,
        "reason": "replaces what is there, which goes to the trash",
    }
    assert (foreseen.json["trashed"], foreseen.json["unchanged"], foreseen.json["extra"]) == (3, 1, ["more"])
    assert (
        "keep               5 B  more  (not in the snapshot; --delete-extra moves it to the trash)" in buckia(*line).out
    )
    assert kinds(buckia(*line, "--delete-extra", "--json"))["more"] == "delete_local"


def test_what_goes_to_the_trash_is_said_once(buckia: Run, place: Path, synced: Path) -> None:
    """Files that were replaced and files that were deleted are counted apart."""
    target = place / "out"
    write(target, {"a": "mine", **{f"more/{number}": "extra" for number in range(30)}})
    line = ("restore", "--target", str(target), "--overwrite", "--delete-extra")
    for outcome in (buckia(*line, "-n"), buckia(*line)):
        assert "6 files, 6 B, 1 replaced (to the trash), 30 deleted (to the trash)   snapshot" in outcome.out
    assert "needs --overwrite too" in " ".join(buckia("restore", "--help").out.split())
