"""Nothing is overwritten but what was expected, nothing goes through a link, a cut at any call leaves old or new."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia.errors import LocalError
from buckia.local.disk import RealFileSystem
from buckia.local.fs import DIRECTORY, SYMLINK, DiskFullError, ExistsError, FileSystem, Stat, VanishedError
from buckia.local.writer import ChangedMeanwhile, Placement, Writer
from tests.support.memory_fs import MemoryFileSystem, SimulatedCrash

WHEN = "20240101T000000Z"
Place = tuple[FileSystem, str, Writer]


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "real":
        fs: FileSystem = RealFileSystem()
        root = str(tmp_path / "root")
        os.mkdir(root)
        return fs, root, Writer(fs, root, token="t")
    memory = MemoryFileSystem()
    memory.put("/root/", b"")
    return memory, "/root", Writer(memory, "/root", token="t")


def stat(fs: FileSystem, path: str) -> Stat:
    entry = fs.stat(path)
    assert entry is not None
    return entry.stat


def read(fs: FileSystem, path: str) -> bytes:
    with fs.open_read(path) as handle:
        return handle.read_at(0, 1 << 20)


def make(fs: FileSystem, path: str, data: bytes = b"old") -> Stat:
    with fs.create(path) as handle:
        handle.write(data)
    return stat(fs, path)


def put(
    writer: Writer, path: str, data: bytes = b"new", expected: Stat | None = None, *, trash: bool = False
) -> LocalError | None:
    """Stage, flush and place one file; the error, if there was one."""
    staged = writer.stage_file(path.rpartition("/")[0], [data[:1], data[1:]], mode=0o640, mtime_ns=1_000_000_007)
    writer.flush_staged([staged])
    (placed,) = writer.place([Placement(staged, path, expected, trash)], WHEN)
    return placed.error


def names(fs: FileSystem, path: str) -> list[str]:
    return sorted(entry[0] for entry in fs.scan(path))


def test_a_new_file_has_its_bytes_mode_and_time(place: Place) -> None:
    fs, root, writer = place
    writer.make_directory("a/b")
    assert put(writer, "a/b/file") is None
    entry = fs.stat(f"{root}/a/b/file")
    assert entry is not None
    assert (entry.mode, entry.size, entry.mtime_ns) == (0o640, 3, 1_000_000_007)
    assert read(fs, f"{root}/a/b/file") == b"new"
    assert names(fs, f"{root}/a/b") == ["file"]


def test_the_stat_that_is_returned_is_that_on_disk(place: Place) -> None:
    fs, root, writer = place
    staged = writer.stage_file("", [b"x"], mode=0o600, mtime_ns=5)
    writer.flush_staged([staged])
    (placed,) = writer.place([Placement(staged, "file", None)], WHEN)
    assert placed.entry is not None
    assert placed.entry == fs.stat(f"{root}/file")
    before, after = staged.entry.stat, placed.entry.stat
    assert before[:3] + before[4:] == after[:3] + after[4:]


def test_an_expected_file_is_replaced(place: Place) -> None:
    fs, root, writer = place
    expected = make(fs, f"{root}/file")
    assert put(writer, "file", expected=expected) is None
    assert read(fs, f"{root}/file") == b"new"
    assert names(fs, root) == ["file"]


def test_what_was_not_expected_stays(place: Place) -> None:
    fs, root, writer = place
    expected = make(fs, f"{root}/file", b"somebody's")
    assert isinstance(put(writer, "file"), ChangedMeanwhile)
    assert isinstance(put(writer, "file", expected=(*expected[:2], 1, *expected[3:])), ChangedMeanwhile)
    assert isinstance(put(writer, "other", expected=expected), ChangedMeanwhile)
    assert read(fs, f"{root}/file") == b"somebody's"
    assert names(fs, root) == ["file"]


def test_a_file_that_appears_at_the_last_moment_stays() -> None:
    fs = MemoryFileSystem()
    fs.put("/root/", b"")

    def hook(call: str, phase: str, path: str) -> None:
        if (call, phase) == ("rename", "before"):
            fs.put("/root/file", b"just written")

    fs.hook = hook
    assert isinstance(put(Writer(fs, "/root", token="t"), "file"), ChangedMeanwhile)
    assert fs.tree("/root") == {"file": b"just written"}


def test_one_failure_does_not_stop_the_others(place: Place) -> None:
    fs, root, writer = place
    make(fs, f"{root}/b", b"unexpected")
    staged = [writer.stage_file("", [name.encode()], mode=0o644, mtime_ns=1) for name in "abc"]
    writer.flush_staged(staged)
    placed = writer.place([Placement(s, n, None) for s, n in zip(staged, "abc", strict=True)], WHEN)
    assert [result.error is None for result in placed] == [True, False, True]
    assert names(fs, root) == ["a", "b", "c"]


def test_links_are_made_as_they_are(place: Place) -> None:
    fs, root, writer = place
    staged = writer.stage_symlink("", b"../any/where", mtime_ns=3_000_000_000)
    writer.flush_staged([staged])
    (placed,) = writer.place([Placement(staged, "link", None)], WHEN)
    assert placed.entry is not None
    assert (placed.entry.kind, placed.entry.mtime_ns) == (SYMLINK, 3_000_000_000)
    assert fs.readlink(f"{root}/link") == b"../any/where"


def test_nothing_goes_through_a_link(place: Place) -> None:
    fs, root, writer = place
    outside = root.rpartition("/")[0] + "/outside"
    fs.mkdir(outside)
    expected = make(fs, f"{outside}/precious")
    fs.symlink(outside.encode(), f"{root}/link")
    acts: list[Callable[[], object]] = [
        lambda: writer.stage_file("link", [b"x"], mode=0o644, mtime_ns=1),
        lambda: writer.stage_symlink("link", b"x", mtime_ns=1),
        lambda: writer.make_directory("link"),
        lambda: writer.make_directory("link/below"),
        lambda: writer.remove("link/precious", expected, WHEN),
        lambda: writer.trash("link/precious", WHEN),
        lambda: writer.remove_directory("link/precious"),
        lambda: writer.set_mode("link", 0o777),
        lambda: writer.set_attributes("link/precious", expected, mode=0o777, mtime_ns=1),
        lambda: writer.remove_leftovers("link", [".buckia-tmp-x-1"]),
        lambda: writer.read_range("link/precious", 0, 1),
        lambda: writer.read_range("link", 0, 1),
    ]
    for act in acts:
        with pytest.raises(LocalError):
            act()
    staged = writer.stage_file("", [b"x"], mode=0o644, mtime_ns=1)
    (placed,) = writer.place([Placement(staged, "link/precious", expected)], WHEN)
    assert placed.error is not None
    assert stat(fs, f"{outside}/precious") == expected
    assert names(fs, outside) == ["precious"]


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "", ".", "a/..", "a/../../x", "x\0"])
def test_paths_that_lead_elsewhere_are_refused(place: Place, path: str) -> None:
    _, _, writer = place
    writer.make_directory("a")
    for act in (
        lambda: writer.make_directory(path),
        lambda: writer.trash(path, WHEN),
        lambda: writer.read_range(path, 0, 1),
        lambda: writer.stage_file(path or "..", [], mode=0, mtime_ns=0),
    ):
        with pytest.raises(LocalError):
            act()


def test_dangerous_mode_bits_are_not_restored(place: Place) -> None:
    _, _, writer = place
    staged = writer.stage_file("", [b"#!"], mode=0o6755, mtime_ns=1)
    assert staged.entry.mode == 0o755
    writer.make_directory("d")
    assert writer.set_mode("d", 0o7700).mode == 0o700


def test_a_file_that_its_owner_cannot_read_is_flushed_in_time(place: Place) -> None:
    _, _, writer = place
    staged = writer.stage_file("", [b"x"], mode=0o200, mtime_ns=1)
    assert staged.flushed
    writer.flush_staged([staged])
    (placed,) = writer.place([Placement(staged, "x", None)], WHEN)
    assert placed.entry is not None
    assert placed.entry.mode == 0o200


def test_attributes_change_without_the_content(place: Place) -> None:
    fs, root, writer = place
    expected = make(fs, f"{root}/file")
    entry = writer.set_attributes("file", expected, mode=0o444, mtime_ns=77)
    assert (entry.mode, entry.mtime_ns) == (0o444, 77)
    with pytest.raises(ChangedMeanwhile):
        writer.set_attributes("file", expected, mode=0o644, mtime_ns=1)
    assert writer.set_attributes("file", entry.stat, mode=0o444, mtime_ns=77) == entry


# --- the trash ---


def test_removed_files_go_to_the_trash_under_their_path(place: Place) -> None:
    fs, root, writer = place
    fs.mkdir(f"{root}/d")
    expected = make(fs, f"{root}/d/file")
    assert writer.remove("d/file", expected, WHEN) == f".buckia-trash/{WHEN}/d/file"
    assert read(fs, f"{root}/.buckia-trash/{WHEN}/d/file") == b"old"
    assert names(fs, f"{root}/d") == []


def test_only_what_was_expected_is_removed(place: Place) -> None:
    fs, root, writer = place
    expected = make(fs, f"{root}/file")
    with pytest.raises(ChangedMeanwhile):
        writer.remove("file", (*expected[:1], 99, *expected[2:]), WHEN)
    with pytest.raises(ChangedMeanwhile):
        writer.remove("gone", expected, WHEN)
    with pytest.raises(VanishedError):
        writer.trash("gone", WHEN)
    assert names(fs, root) == ["file"]


def test_the_trash_keeps_what_it_has(place: Place) -> None:
    fs, root, writer = place
    for data in (b"1", b"2", b"3"):
        writer.remove("file", make(fs, f"{root}/file", data), WHEN)
    fs.mkdir(f"{root}/file")  # a directory of the name of a trashed file
    writer.remove("file/below", make(fs, f"{root}/file/below", b"4"), WHEN)
    kept = {
        path: read(fs, f"{root}/.buckia-trash/{path}")
        for path in (f"{WHEN}/file", f"{WHEN}-2/file", f"{WHEN}-3/file", f"{WHEN}-4/file/below")
    }
    assert list(kept.values()) == [b"1", b"2", b"3", b"4"]


def test_what_is_replaced_can_go_to_the_trash(place: Place) -> None:
    fs, root, writer = place
    expected = make(fs, f"{root}/file")
    assert put(writer, "file", expected=expected, trash=True) is None
    assert read(fs, f"{root}/file") == b"new"
    assert read(fs, f"{root}/.buckia-trash/{WHEN}/file") == b"old"


def test_a_link_in_place_of_the_trash_is_not_followed(place: Place) -> None:
    fs, root, writer = place
    fs.symlink(b"..", f"{root}/.buckia-trash")
    expected = make(fs, f"{root}/file")
    with pytest.raises(LocalError):
        writer.remove("file", expected, WHEN)
    assert stat(fs, f"{root}/file") == expected


# --- directories ---


def test_a_directory_gives_way_to_a_file_only_when_empty(place: Place) -> None:
    fs, root, writer = place
    expected = writer.make_directory("d/e").stat
    assert isinstance(put(writer, "d", expected=expected), ExistsError)
    assert names(fs, f"{root}/d") == ["e"]
    assert put(writer, "d/e", expected=expected) is None
    assert read(fs, f"{root}/d/e") == b"new"


def test_making_and_removing_directories(place: Place) -> None:
    fs, root, writer = place
    assert writer.make_directory("a/b").kind == DIRECTORY
    assert writer.make_directory("a/b").kind == DIRECTORY
    assert not writer.remove_directory("a")
    assert writer.remove_directory("a/b")
    make(fs, f"{root}/a/.buckia-tmp-another-1")
    make(fs, f"{root}/a/precious")
    assert not writer.remove_directory("a"), "what is the user's stays, and all beside it"
    assert fs.stat(f"{root}/a/.buckia-tmp-another-1") is not None
    fs.unlink(f"{root}/a/precious")
    assert writer.remove_directory("a"), "whoever made it: nothing takes its place here any more"
    make(fs, f"{root}/file")
    with pytest.raises(ExistsError):
        writer.make_directory("file/x")
    with pytest.raises(ChangedMeanwhile):
        writer.set_mode("file", 0o700)


# --- leftovers, reading, failures ---


def test_leftovers_of_other_runs_are_removed_and_nothing_else(place: Place) -> None:
    fs, root, writer = place
    make(fs, f"{root}/.buckia-tmp-old-1")
    make(fs, f"{root}/mine")
    staged = writer.stage_file("", [b"x"], mode=0o644, mtime_ns=1)
    writer.remove_leftovers("", [".buckia-tmp-old-1", "mine", staged.name])
    assert names(fs, root) == sorted(["mine", staged.name])
    writer.discard(staged)
    assert names(fs, root) == ["mine"]


def test_ranges_are_read(place: Place) -> None:
    fs, root, writer = place
    make(fs, f"{root}/file", b"0123456789")
    assert writer.read_range("file", 3, 4) == b"3456"
    assert writer.read_range("file", 8, 10) == b"89"


def test_a_failing_source_leaves_nothing(place: Place) -> None:
    fs, root, writer = place

    def broken() -> object:
        yield b"half"
        raise LocalError("the source broke")

    with pytest.raises(LocalError, match="the source broke"):
        writer.stage_file("", broken(), mode=0o644, mtime_ns=1)  # type: ignore[arg-type]
    assert names(fs, root) == []


def test_a_full_disk_leaves_nothing_and_stops() -> None:
    fs = MemoryFileSystem(capacity=20)
    fs.put("/root/old", b"1234567890")
    with pytest.raises(DiskFullError):
        Writer(fs, "/root", token="t").stage_file("", [b"x" * 15], mode=0o644, mtime_ns=1)
    assert fs.tree("/root") == {"old": b"1234567890"}


# --- every cut ---


def scenario(fs: MemoryFileSystem) -> None:
    """Replace a file, make one in a new directory, remove one."""
    writer = Writer(fs, "/root", token="t")
    old, gone = fs.stat("/root/old"), fs.stat("/root/gone")
    assert old is not None
    assert gone is not None
    writer.make_directory("new/deep")
    staged = [
        writer.stage_file("", [b"re", b"placed"], mode=0o644, mtime_ns=1),
        writer.stage_file("new/deep", [b"crea", b"ted"], mode=0o644, mtime_ns=1),
    ]
    writer.flush_staged(staged)
    writer.place([Placement(staged[0], "old", old.stat), Placement(staged[1], "new/deep/file", None)], WHEN)
    writer.remove("gone", gone.stat, WHEN)
    writer.flush()


def fresh() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    fs.put("/root/old", b"old")
    fs.put("/root/gone", b"gone")
    return fs


def run_until(fs: MemoryFileSystem, number: int, at: str) -> bool:
    """Whether the process died at its call ``number``."""
    seen = 0

    def hook(call: str, phase: str, path: str) -> None:
        nonlocal seen
        if phase == "before":
            seen += 1
        if seen == number and phase == at:
            raise SimulatedCrash

    fs.hook = hook
    try:
        scenario(fs)
    except SimulatedCrash:
        return True
    return False


def check(tree: dict[str, bytes | str | None], where: str) -> None:
    assert tree["old"] in (b"old", b"replaced"), where
    assert tree.get("new/deep/file", b"created") == b"created", where
    trashed = [path for path in tree if path.startswith(".buckia-trash/") and path.endswith("/gone")]
    assert [tree.get("gone"), *[tree[path] for path in trashed]].count(b"gone") == 1, where
    others = {path for path in tree if not path.rpartition("/")[2].startswith(".buckia-t") and "trash" not in path}
    assert others <= {"old", "gone", "new", "new/deep", "new/deep/file"}, where


@pytest.mark.parametrize("phase", ["before", "during", "after"])
def test_a_cut_at_any_call_leaves_the_old_or_the_new(phase: str) -> None:
    number = 0
    cuts = 0
    while True:
        number += 1
        fs = fresh()
        died = run_until(fs, number, phase)
        fs.revive()
        if not died and number > fs.calls:
            break
        cuts += died
        check(fs.tree("/root"), f"call {number}, {phase}")
    assert cuts > (2 if phase == "during" else 40)


def test_losing_power_at_any_call_leaves_the_old_or_the_new() -> None:
    number = 0
    while True:
        number += 1
        for fate in range(3):
            for kept in (0, 1, 3, 1000):
                fs = fresh()
                died = run_until(fs, number, "after")
                fs.lose_power(lambda n, fate=fate, kept=kept: fate if n == 3 else min(kept, n - 1))
                check(fs.tree("/root"), f"call {number}, fate {fate}, kept {kept}")
        if not died and number > fs.calls:
            break


def test_after_the_last_call_everything_is_on_the_disk() -> None:
    fs = fresh()
    scenario(fs)
    fs.lose_power(lambda n: 0)
    tree = fs.tree("/root")
    assert tree["old"] == b"replaced"
    assert tree["new/deep/file"] == b"created"
    assert tree[f".buckia-trash/{WHEN}/gone"] == b"gone"
    assert "gone" not in tree


@pytest.mark.parametrize("omitted", ["sync_files", "sync_directory"])
def test_each_flush_is_needed(omitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fresh()
    monkeypatch.setattr(fs, omitted, lambda paths: None)
    scenario(fs)
    fs.lose_power(lambda n: 0)
    complete = fs.tree("/root").get("new/deep/file") == b"created" and fs.get("/root/old") == b"replaced"
    assert not complete


def test_the_trash_is_for_its_owner_only(place: Place) -> None:
    fs, root, writer = place
    writer.make_directory("a/b")
    expected = make(fs, f"{root}/a/b/f")
    writer.remove("a/b/f", expected, WHEN)
    for path in (".buckia-trash", f".buckia-trash/{WHEN}", f".buckia-trash/{WHEN}/a/b"):
        entry = fs.stat(f"{root}/{path}")
        assert entry is not None
        assert entry.mode & 0o777 == 0o700
    entry = fs.stat(f"{root}/a/b")
    assert entry is not None
    assert entry.mode & 0o777 != 0o700
