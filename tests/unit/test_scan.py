"""The scan sees every change, loads nothing it does not need, and never takes what it cannot see for gone."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buckia.core.ids import BlobId, DeviceId, Dot
from buckia.core.manifest import FileContent, Kind
from buckia.errors import LocalError, RefusedError
from buckia.local.disk import RealFileSystem
from buckia.local.filters import Filters
from buckia.local.folder import ScannedDirectory, check_root, fresh_fingerprint, scan, settled
from buckia.local.fs import DiskEntry
from buckia.local.state import Row, State
from tests.support.memory_fs import MemoryFileSystem

ROOT = "/root"
DOT = Dot(DeviceId(b"d" * 16), 1)


class World:
    """A disk, a state, and an engine that believes everything it sees."""

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.fs = MemoryFileSystem()
        self.fs.put(f"{ROOT}/", b"")
        self.state = State.open(None, machine="m")
        for path in files:
            self.put(path, path.encode())

    def put(self, path: str, data: bytes | str = b"x") -> None:
        self.fs.put(f"{ROOT}/{path}", data)

    def scan(self, filters: Filters | None = None) -> dict[str, ScannedDirectory]:
        return {d.path.decode(): d for d in scan(self.fs, ROOT, self.state, filters or Filters())}

    def accept(self, filters: Filters | None = None) -> dict[str, ScannedDirectory]:
        """Take what is on disk for synced."""
        found = self.scan(filters)
        for directory in found.values():
            if directory.clean or directory.error:
                continue
            if not directory.exists and not directory.outside:
                self.state.drop_directory(directory.path)
                continue
            rows = [*directory.unchanged.values(), *directory.hidden, *directory.outside.values()]
            rows += [row_of(entry, row) for entry, row in directory.changed]
            self.state.stage(directory.path, rows, directory.fingerprint(rows) if directory.exists else None)
        self.state.promote()
        return found


def row_of(entry: DiskEntry, row: Row | None = None) -> Row:
    name = unicodedata.normalize("NFC", entry.name).encode() if row is None else row.entry_name
    content = FileContent(0, BlobId(b"c" * 32)) if entry.kind == Kind.FILE else None
    kind = Kind(entry.kind)
    return Row(entry.name, name, kind, (DOT,), content, entry.mode, entry.size, entry.mtime_ns, entry.stat)


def changes(found: dict[str, ScannedDirectory]) -> list[str]:
    """What differs, as ``+new``, ``~changed``, ``-missing``."""
    result = []
    for path, directory in found.items():
        prefix = f"{path}/" if path else ""
        result += [f"{'+' if row is None else '~'}{prefix}{entry.name}" for entry, row in directory.changed]
        result += [f"-{prefix}{row.name}" for row in directory.missing]
    return sorted(result)


def test_directories_come_before_what_is_in_them_and_siblings_sorted() -> None:
    world = World(["b/x", "b/a/x", "a/x", "b-c/x", "x"])
    assert list(world.scan()) == ["", "a", "b", "b/a", "b-c"]
    assert changes(world.scan()) == sorted(["+a", "+a/x", "+b", "+b/a", "+b/a/x", "+b/x", "+b-c", "+b-c/x", "+x"])


def test_what_was_accepted_is_clean_and_costs_no_rows() -> None:
    world = World(["a/x", "b"])
    world.accept()
    loaded: list[bytes] = []
    world.state.directory = lambda path, **_: loaded.append(path)  # type: ignore[assignment,method-assign,return-value]
    found = world.scan()
    assert [directory.clean for directory in found.values()] == [True, True]
    assert loaded == []


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda w: w.put("a/x", b"other"), ["~a/x"]),
        (lambda w: w.put("a/x", b"a/x"), ["~a/x"]),
        (lambda w: w.put("a/new"), ["+a/new"]),
        (lambda w: w.fs.remove(f"{ROOT}/a/x"), ["-a/x"]),
        (lambda w: w.fs.remove(f"{ROOT}/a"), ["-a", "-a/b", "-a/b/y", "-a/x"]),
        (lambda w: w.fs.move(f"{ROOT}/a/x", f"{ROOT}/a/z"), ["+a/z", "-a/x"]),
        (lambda w: w.fs.set_mode(f"{ROOT}/a/x", 0o600), ["~a/x"]),
        (lambda w: w.fs.set_mode(f"{ROOT}/a", 0o700), ["~a"]),
        (lambda w: w.fs.set_mtime(f"{ROOT}/a/x", 5), ["~a/x"]),
        (lambda w: w.put("e/"), ["+e"]),
        (lambda w: w.put("a/b", b"now a file"), ["-a/b/y", "~a/b"]),
        (lambda w: w.put("c/x/y"), ["+c/x/y", "~c/x"]),
        (lambda w: w.put("a/x", "link"), ["~a/x"]),
    ],
)
def test_every_change_is_seen(act: object, expected: list[str]) -> None:
    world = World(["a/x", "a/b/y", "c/x", "d/z"])
    world.accept()
    act(world)  # type: ignore[operator]
    assert changes(world.scan()) == expected
    assert world.scan()["d"].clean
    world.accept()
    found = world.accept()
    assert all(directory.clean for directory in found.values())
    assert changes(found) == []


def test_directories_that_are_gone_come_in_their_place() -> None:
    world = World(["a/x", "b/c/y", "d/z"])
    world.accept()
    world.fs.remove(f"{ROOT}/b")
    found = world.scan()
    assert list(found) == ["", "a", "b", "b/c", "d"]
    assert [directory.exists for directory in found.values()] == [True, True, False, False, True]


def test_a_directory_that_cannot_be_read_proves_nothing() -> None:
    world = World(["a/b/x", "c"])
    world.accept()

    def hook(call: str, phase: str, path: str) -> None:
        if (call, path) == ("scan", f"{ROOT}/a"):
            raise LocalError("Cannot read the directory a: permission denied.")

    world.fs.hook = hook
    found = world.scan()
    assert list(found) == ["", "a"]
    assert str(found["a"].error) == "Cannot read the directory a: permission denied."
    assert changes(found) == []


def test_a_root_that_cannot_be_read_ends_the_scan() -> None:
    world = World(["a"])

    def hook(call: str, phase: str, path: str) -> None:
        if call == "scan":
            raise LocalError("no")

    world.fs.hook = hook
    with pytest.raises(LocalError, match="no"):
        world.scan()


# --- the root ---


def test_a_missing_root_is_refused() -> None:
    world = World()
    with pytest.raises(RefusedError, match="does not exist"):
        scan(world.fs, "/nowhere", world.state, Filters())
    world.fs.put("/file", b"")
    with pytest.raises(RefusedError, match="does not exist"):
        check_root(world.fs, "/file", world.state)


def test_an_empty_root_is_refused_only_where_something_was_in_it() -> None:
    world = World()
    assert changes(world.accept()) == []
    world.put("a")
    world.accept()
    world.fs.remove(f"{ROOT}/a")
    world.put(".buckia-trash/x")
    with pytest.raises(RefusedError, match="is empty, but it held files before"):
        world.scan()


def test_a_root_whose_rows_are_all_hidden_may_be_empty() -> None:
    world = World(["a"])
    world.accept()
    row = world.state.directory(b"")[1]["a"]
    world.state.stage(b"", [replace(row, hidden=True, stat=None)], None)
    world.state.promote()
    world.fs.remove(f"{ROOT}/a")
    found = world.scan()[""]
    assert [row.name for row in found.hidden] == ["a"]
    assert found.missing == []


def test_a_root_on_another_file_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(["a"])
    world.scan()
    monkeypatch.setattr(world.fs, "device", lambda path: 99)
    with pytest.raises(RefusedError, match="another file system"):
        world.scan()


# --- what is never synced ---


def test_ours_special_and_unrepresentable_names_are_skipped_and_counted(tmp_path: Path) -> None:
    for name in (".buckia.yaml", ".buckia-demo", ".BUCKIA", "_buckia-x", "ok", "sub/_buckia", "sub/.buckia-tmp-0-1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".buckia-trash/old").mkdir(parents=True)
    (tmp_path / ".buckiaignore").write_text("")
    os.mkfifo(tmp_path / "fifo")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    (tmp_path / "link").symlink_to("/etc")
    with State.open(None, machine="m") as state:
        found = {d.path: d for d in scan(RealFileSystem(), str(tmp_path), state, Filters())}
    assert list(found) == [b"", b"sub"]
    top = found[b""]
    assert [entry.name for entry, _ in top.changed] == [".buckiaignore", "link", "ok", "sub"]
    assert {name for name, _ in top.skipped} == {
        *(".BUCKIA", ".buckia-demo", ".buckia-trash", ".buckia.yaml", "_buckia-x", "fifo", "\udcff"),
    }
    assert top.skipped_count == 7
    assert [entry.name for entry, _ in found[b"sub"].changed] == ["_buckia"]
    assert found[b"sub"].leftovers == []
    assert found[b"sub"].looked_at_again


def test_only_temporary_files_of_ones_own_and_abandoned_ones_are_leftovers() -> None:
    """What a living run of another state has staged stays; the directory is looked at until it is gone."""
    world = World(["a"])
    own, other = f".buckia-tmp-{world.state.owner}ff-1", ".buckia-tmp-0123456789-1"
    world.put(own)
    world.put(other)
    found = world.accept()[""]
    assert found.leftovers == [own]
    assert not world.scan()[""].clean
    entry = world.fs.stat(f"{ROOT}/{other}")
    assert entry is not None
    day = 24 * 3600 * 10**9
    later = scan(world.fs, ROOT, world.state, Filters(), entry.ctime_ns + day)
    assert [d.leftovers for d in later] == [[own]]
    later = scan(world.fs, ROOT, world.state, Filters(), entry.ctime_ns + day + 1)
    assert [sorted(d.leftovers) for d in later] == [sorted([own, other])]
    world.fs.remove(f"{ROOT}/{own}")
    world.fs.remove(f"{ROOT}/{other}")
    world.accept()
    assert world.scan()[""].clean


def test_the_number_of_skipped_is_known_where_nothing_changed() -> None:
    world = World([".buckia.yaml", "a"])
    world.accept()
    found = world.scan()[""]
    assert found.clean
    assert found.skipped_count == 1


def test_sidecars_of_databases_are_skipped_and_other_files_are_not() -> None:
    world = World(["notes", "notes-wal", "orphan-journal", "x-wal/y"])
    world.put("app.db", b"SQLite format 3\0" + b"\0" * 100)
    world.put("new.db", b"")
    world.put("new.db-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
    world.put("new.db-wal", b"a text")
    for name in ("app.db-wal", "app.db-shm", "app.db-journal", "app.db-other"):
        world.put(name)
    found = world.scan()[""]
    assert [name for name, _ in found.skipped] == ["app.db-journal", "app.db-shm", "app.db-wal", "new.db-journal"]
    assert [e.name for e, _ in found.changed] == [
        *("app.db", "app.db-other", "new.db", "new.db-wal", "notes", "notes-wal", "orphan-journal", "x-wal"),
    ]


def test_what_becomes_a_sidecar_is_not_deleted() -> None:
    world = World(["a", "a-wal"])
    world.accept()
    world.put("a", b"SQLite format 3\0")
    found = world.scan()[""]
    assert found.missing == []
    assert list(found.outside) == ["a-wal"]


def test_paths_that_are_too_deep_or_long_are_skipped() -> None:
    world = World(["/".join(["d"] * 127) + "/file", "/".join(["e"] * 128) + "/file", "/".join(["n" * 250] * 17)])
    found = world.scan()
    files = [d.path.decode() for d in found.values() for entry, _ in d.changed if entry.name == "file"]
    assert files == ["/".join(["d"] * 127)]
    assert {reason for d in found.values() for _, reason in d.skipped} == {"its path is too long"}


# --- names ---


def test_names_are_normalised_and_found_again() -> None:
    decomposed = unicodedata.normalize("NFD", "ä")
    world = World([f"{decomposed}/{decomposed}.txt"])
    found = world.accept()
    assert list(found) == ["", "ä"]
    assert found["ä"].disk_path == decomposed
    found = world.scan()
    assert list(found) == ["", "ä"]
    assert all(directory.clean for directory in found.values())


def test_two_names_that_are_one_in_the_folder() -> None:
    world = World(["ä", unicodedata.normalize("NFD", "ä")])
    found = world.scan()[""]
    assert len(found.changed) == 1
    assert [reason for _, reason in found.skipped] == ["another name here is the same in Unicode"]


def test_a_disk_that_shows_another_normalisation_than_was_written() -> None:
    world = World(["ä"])
    world.accept()
    world.fs.move(f"{ROOT}/ä", f"{ROOT}/{unicodedata.normalize('NFD', 'ä')}")
    found = world.scan()[""]
    assert found.missing == []
    ((entry, row),) = found.changed  # its ctime has changed
    assert row is not None
    assert entry.name == row.name == unicodedata.normalize("NFD", "ä")
    assert row.entry_name == "ä".encode()


def test_directories_shown_under_another_name_keep_their_path() -> None:
    world = World(["Name~1a2b3c4/x", "other"])
    found = world.scan()
    rows = [row_of(entry) for entry, _ in found[""].changed]
    rows[0] = replace(rows[0], entry_name=b"name")
    below = [row_of(entry) for entry, _ in found["Name~1a2b3c4"].changed]
    world.state.stage(b"", rows, found[""].fingerprint(rows))
    world.state.stage(b"name", below, found["Name~1a2b3c4"].fingerprint(below))
    world.state.promote()
    found = world.scan()
    assert {path: directory.disk_path for path, directory in found.items()} == {"": "", "name": "Name~1a2b3c4"}
    assert all(directory.clean for directory in found.values())


# --- filters ---


def test_what_filters_leave_out_is_neither_new_nor_missing() -> None:
    world = World(["a.jpg", "b.txt", "d/c.jpg", "d/e.txt"])
    world.accept()
    world.put("b.txt", b"changed")
    world.fs.remove(f"{ROOT}/d/e.txt")
    world.fs.remove(f"{ROOT}/d/c.jpg")
    found = world.scan(Filters(include="jpg$"))
    assert changes(found) == ["-d/c.jpg"]
    assert set(found[""].outside) == {"b.txt", "d"}
    assert set(found["d"].outside) == {"e.txt"}
    world.fs.remove(f"{ROOT}/d")
    assert changes(world.scan(Filters(include="jpg$"))) == ["-d/c.jpg"]
    assert changes(world.scan(Filters(sync_paths=["other"]))) == []
    assert changes(world.scan()) == ["-d", "-d/c.jpg", "-d/e.txt", "~b.txt"]


def test_a_fingerprint_holds_for_its_filters_only() -> None:
    world = World(["a.jpg", "b.txt"])
    only = {"include": "jpg$"}
    world.accept(Filters(**only))
    assert world.scan(Filters(**only))[""].clean
    assert changes(world.scan()) == ["+b.txt"]


def test_ignore_files_apply_from_their_directory_on_and_changes_to_them_are_seen() -> None:
    world = World(["d/a.log", "d/e/b.log", "c.log", "d/e/x"])
    world.put("d/.buckiaignore", b"*.log\n")
    world.accept()
    assert sorted(world.state.directory(b"d/e")[1]) == ["x"]
    assert all(directory.clean for directory in world.scan().values())
    world.put("d/.buckiaignore", b"b*\n")
    assert changes(world.scan()) == ["+d/a.log", "~d/.buckiaignore"]
    world.fs.remove(f"{ROOT}/d/.buckiaignore")
    assert changes(world.scan()) == ["+d/a.log", "+d/e/b.log", "-d/.buckiaignore"]


def test_an_ignore_file_that_cannot_be_read_stops_its_directory() -> None:
    world = World(["d/x"])
    world.put("d/.buckiaignore", b"x" * (1 << 20) + b"y")
    found = world.scan()
    assert "is larger than" in str(found["d"].error)


# --- fingerprints ---


def test_a_fingerprint_needs_every_covered_file_and_its_stat() -> None:
    world = World(["a", "b"])
    found = world.scan()[""]
    rows = [row_of(entry) for entry, _ in found.changed]
    assert found.fingerprint(rows) is not None
    assert found.fingerprint(rows[:1]) != found.fingerprint(rows)
    assert found.fingerprint([rows[0], replace(rows[1], stat=None)]) is None
    gone = replace(rows[1], name="gone", hidden=True, stat=None)
    assert found.fingerprint([*rows, gone]) == found.fingerprint(iter(rows))


def test_a_fingerprint_can_be_known_before_the_next_scan() -> None:
    world = World(["a", "d/b", ".buckia.yaml"])
    world.accept()
    top = world.scan()[""]
    assert top.clean
    top.unchanged = world.state.directory(b"")[1]
    assert sorted(top.unchanged) == ["a", "d"]
    world.put("a", b"another")  # as if placed by this run
    world.put("new/file")
    rows = [
        replace(top.unchanged["a"], stat=world.fs.stat(f"{ROOT}/a").stat),  # type: ignore[union-attr]
        top.unchanged["d"],
        row_of(world.fs.stat(f"{ROOT}/new")),  # type: ignore[arg-type]
    ]
    new = [row_of(world.fs.stat(f"{ROOT}/new/file"))]  # type: ignore[arg-type]
    world.state.stage(b"", rows, top.fingerprint(rows))
    world.state.stage(b"new", new, fresh_fingerprint(b"new", new, Filters()))
    world.state.promote()
    found = world.scan()
    assert {path: d.clean for path, d in found.items()} == {"": True, "d": True, "new": True}
    assert found[""].skipped_count == 1


def test_a_clean_directory_can_go_on_with_its_rows() -> None:
    world = World(["a", "b", ".buckia.yaml", "c.txt"])
    only = {"exclude": "txt$"}
    world.accept(Filters(**only))
    top = world.scan(Filters(**only))[""]
    assert top.clean
    top.unchanged = world.state.directory(b"")[1]
    world.put("a", b"another")
    world.fs.remove(f"{ROOT}/b")
    rows = [replace(top.unchanged["a"], stat=world.fs.stat(f"{ROOT}/a").stat)]  # type: ignore[union-attr]
    world.state.stage(b"", rows, top.fingerprint(rows))
    world.state.promote()
    assert world.scan(Filters(**only))[""].clean


def test_a_new_file_beside_the_conflict_copy_of_its_name_is_new() -> None:
    world = World(["a (conflict 1).txt"])
    ((entry, _),) = world.scan()[""].changed
    world.state.stage(b"", [replace(row_of(entry), entry_name=b"a.txt")], None)
    world.state.promote()
    world.put("a.txt")
    assert changes(world.scan()) == ["+a.txt"]


def test_a_mount_point_is_scanned_like_any_directory() -> None:
    world = World(["mnt/x"])
    assert "+mnt/x" in changes(world.scan())


# --- intents ---


def staged(world: World) -> str:
    """What a run of this state calls a file that it has not put in place yet."""
    return f".buckia-tmp-{world.state.owner}-1"


def intent_world() -> tuple[World, Row]:
    """A run that was cut off: it had staged a file and said so."""
    world = World(["a", "other"])
    world.accept()
    world.fs.put(f"{ROOT}/{staged(world)}", b"from afar", mtime_ns=7)
    entry = world.fs.stat(f"{ROOT}/{staged(world)}")
    assert entry is not None
    intent = replace(row_of(entry._replace(name="a")), dots=(Dot(DOT.device, 2),))
    world.state.add_intents([(b"", intent)])
    return world, intent


def test_a_file_that_was_put_in_place_before_the_end_is_known_again() -> None:
    world, intent = intent_world()
    world.fs.move(f"{ROOT}/{staged(world)}", f"{ROOT}/a")
    found = world.scan()[""]
    assert changes({"": found}) == []
    assert found.unchanged["a"].dots == intent.dots
    world.accept()
    assert world.scan()[""].clean
    assert world.state.intents(b"") == {}


def test_a_file_that_was_not_yet_put_in_place_is_the_old_one() -> None:
    world, _ = intent_world()
    found = world.scan()[""]
    assert found.unchanged["a"].dots == (DOT,)
    assert found.leftovers == [staged(world)]


def test_an_edit_after_the_end_supersedes_only_what_was_surely_seen() -> None:
    world, _ = intent_world()
    world.put("a", b"edited")
    ((_, row),) = world.scan()[""].changed
    assert row is not None
    assert row.dots == (DOT,)
    world.fs.remove(f"{ROOT}/a")
    (missing,) = world.scan()[""].missing
    assert missing.dots == (DOT,)


# --- settled stats ---

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND + 123


def entry(mtime_ns: int, ctime_ns: int) -> DiskEntry:
    return DiskEntry("f", 0, 0o644, 1, mtime_ns, ctime_ns, 1)


def test_a_stat_is_trusted_only_when_the_clock_has_moved_on() -> None:
    old = NOW - SECOND
    fresh = NOW - 10_000_000
    assert settled(entry(old, old), NOW)
    assert not settled(entry(fresh, fresh), NOW)
    assert not settled(entry(old, fresh), NOW)
    assert not settled(entry(NOW + SECOND, NOW + SECOND), NOW)  # the file system's clock is ahead
    assert settled(entry(NOW + SECOND, old), NOW)
    coarse = (NOW // SECOND - 1) * SECOND
    assert not settled(entry(coarse, coarse), NOW)
    assert settled(entry(coarse - SECOND, coarse - SECOND), NOW)


# --- everything at once ---

PATHS = st.lists(st.sampled_from(["a", "b", "c.txt", "ä"]), min_size=1, max_size=3).map("/".join)
ACTS = st.lists(st.tuples(st.sampled_from(["put", "remove", "directory", "link"]), PATHS), max_size=12)


def perform(world: World, acts: list[tuple[str, str]]) -> None:
    for act, path in acts:
        above = path.split("/")[:-1]
        blocked = any(
            world.fs.exists(f"{ROOT}/{'/'.join(above[: n + 1])}")
            and world.fs.stat(f"{ROOT}/{'/'.join(above[: n + 1])}").kind != Kind.DIRECTORY  # type: ignore[union-attr]
            for n in range(len(above))
        )
        if blocked:
            continue
        if act == "remove" and world.fs.exists(f"{ROOT}/{path}"):
            world.fs.remove(f"{ROOT}/{path}")
        elif act != "remove":
            world.put(path + ("/" if act == "directory" else ""), "target" if act == "link" else b"x")


@settings(max_examples=150, deadline=None)
@given(ACTS, ACTS)
def test_the_scan_tells_the_difference_between_two_trees(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    world = World(["keep"])
    perform(world, before)
    world.accept()
    old = {path: world.fs.stat(f"{ROOT}/{path}") for path in world.fs.tree(ROOT)}
    perform(world, after)
    new = {path: world.fs.stat(f"{ROOT}/{path}") for path in world.fs.tree(ROOT)}
    expected = [f"-{path}" for path in old.keys() - new.keys()]
    expected += [f"+{path}" for path in new.keys() - old.keys()]
    expected += [f"~{path}" for path in old.keys() & new.keys() if old[path] != new[path]]
    assert changes(world.accept()) == sorted(expected)
    assert all(directory.clean for directory in world.scan().values())


def test_a_root_whose_rows_were_all_announced_to_go_may_be_empty() -> None:
    world = World(["a", "d/b"])
    world.accept()
    for path in (b"", b"d"):
        rows = world.state.directory(path)[1].values()
        world.state.stage(path, [replace(row, dots=()) for row in rows], None)
    world.state.promote()
    world.fs.remove(f"{ROOT}/a")
    world.fs.remove(f"{ROOT}/d")
    assert changes(world.scan()) == ["-a", "-d", "-d/b"]


def test_a_root_is_not_empty_where_a_directory_without_dots_held_something() -> None:
    world = World(["d/e/b"])
    world.accept()
    world.state.stage(b"", [replace(row, dots=()) for row in world.state.directory(b"")[1].values()], None)
    world.state.promote()
    world.fs.remove(f"{ROOT}/d")
    with pytest.raises(RefusedError, match="is empty, but it held files before"):
        world.scan()
