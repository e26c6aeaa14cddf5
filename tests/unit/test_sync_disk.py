"""What a sync leaves on a disk: it begins again wherever it was cut off, and touches nothing but what it has to."""

from __future__ import annotations

from typing import Any

import pytest

from buckia.errors import LocalError
from buckia.events import SyncResult
from tests.support.fleet import ROOT, Device, Fleet, Scope
from tests.support.memory_fs import SimulatedCrash

SECOND = 10**9


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(0, 2)


def put(device: Device, path: str, data: bytes | str = b"x", **changes: Any) -> None:
    device.files.put(f"{ROOT}/{path}", data, **changes)


def remove(device: Device, path: str) -> None:
    device.files.remove(f"{ROOT}/{path}")


def mode(device: Device, path: str) -> int:
    entry = device.files.stat(f"{ROOT}/{path}")
    assert entry is not None
    return entry.mode


def sync(fleet: Fleet, device: Device, **changes: Any) -> SyncResult:
    """A sync that ends, some time after the last."""
    fleet.advance(10 * SECOND)
    outcome = fleet.sync(device, **changes)
    assert outcome.error is None
    assert outcome.result is not None
    return outcome.result


def both(fleet: Fleet, rounds: int = 1) -> None:
    """All devices sync in turn, without failures."""
    for _ in range(rounds):
        for device in fleet.devices:
            assert not sync(fleet, device).errors


def die_when_empty(device: Device) -> None:
    """The next run dies as soon as the root holds nothing of the user's."""

    def hook(name: str, phase: str, path: str) -> None:
        if all(path.startswith(".buckia") for path in device.files.tree(ROOT)):
            raise SimulatedCrash

    device.files.hook = hook


@pytest.mark.parametrize("paths", [("one", "two"), ("d/one", "two"), ("d/e/one",)])
def test_a_run_that_died_while_nothing_was_in_the_root_is_taken_up_again(fleet: Fleet, paths: tuple[str, ...]) -> None:
    first, second = fleet.devices
    for path in paths:
        put(first, path)
    both(fleet)
    for path in paths:
        remove(first, path.partition("/")[0])
    put(first, "new", b"new")
    sync(fleet, first)
    die_when_empty(second)
    fleet.advance(10 * SECOND)
    assert isinstance(fleet.sync(second).error, SimulatedCrash)
    assert not sync(fleet, second).errors
    both(fleet)
    assert fleet.tree(first) == fleet.tree(second) == {"new": b"new"}


def test_an_old_empty_file_is_known_from_the_history_where_the_state_is_lost(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "f", b"")
    put(first, "keep")
    both(fleet)
    put(first, "f", b"filled")
    sync(fleet, first)
    fleet.lose_state(second)
    assert not sync(fleet, second).conflicts
    assert fleet.tree(second) == {"f": b"filled", "keep": b"x"}


# ---- databases

DATABASE = b"SQLite format 3\0" + b"a" * 600
NEWER = b"SQLite format 3\0" + b"b" * 600
WAL = b"\x37\x7f\x06\x82" + b"w" * 60
JOURNAL = b"\xd9\xd5\x05\xf9" + b"j" * 60


@pytest.mark.parametrize(("suffix", "changes"), [("-wal", WAL), ("-journal", JOURNAL)])
def test_a_database_with_changes_beside_it_is_not_replaced(fleet: Fleet, suffix: str, changes: bytes) -> None:
    first, second = fleet.devices
    put(first, "app.db", DATABASE)
    put(first, "other")
    both(fleet)
    put(second, f"app.db{suffix}", changes)
    put(first, "app.db", NEWER)
    put(first, "other", b"new")
    sync(fleet, first)
    for _ in range(2):
        result = sync(fleet, second)
        assert [failure.path for failure in result.errors] == ["app.db"]
        assert "app.db is in use or was not closed: app.db" + suffix in result.errors[0].reason
        assert fleet.tree(second) == {"app.db": DATABASE, "other": b"new", f"app.db{suffix}": changes}
    remove(second, f"app.db{suffix}")
    both(fleet)
    assert fleet.tree(second) == {"app.db": NEWER, "other": b"new"}


def test_a_database_with_changes_beside_it_is_not_fetched(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "app.db", DATABASE)
    both(fleet)
    put(second, "app.db-wal", WAL)
    put(first, "app.db", NEWER)
    sync(fleet, first)
    sync(fleet, second)
    calls: list[str] = []
    second.files.hook = lambda name, phase, path: calls.append(name)
    assert sync(fleet, second).errors
    assert "create" not in calls


def test_a_database_with_changes_beside_it_is_not_removed(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "d/app.db", DATABASE)
    put(first, "d/other")
    both(fleet)
    put(second, "d/app.db-wal", WAL)
    remove(first, "d")
    put(first, "keep")
    sync(fleet, first)
    assert [failure.path for failure in sync(fleet, second).errors] == ["d/app.db"]
    assert fleet.tree(second) == {"d": None, "d/app.db": DATABASE, "d/app.db-wal": WAL, "keep": b"x"}
    remove(second, "d/app.db-wal")
    both(fleet)
    assert fleet.tree(first) == fleet.tree(second) == {"keep": b"x"}


@pytest.mark.parametrize(
    ("data", "beside"),
    [(DATABASE, b""), (DATABASE, b"\0" * 60), (b"no database", b"of the user's")],
)
def test_what_holds_no_changes_holds_nothing_up(fleet: Fleet, data: bytes, beside: bytes) -> None:
    first, second = fleet.devices
    put(first, "f", data)
    both(fleet)
    put(second, "f-journal", beside)
    put(first, "f", NEWER)
    sync(fleet, first)
    assert not sync(fleet, second).errors
    assert fleet.tree(second)["f"] == NEWER


def test_a_new_database_does_not_meet_the_changes_of_an_old_one(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "app.db", DATABASE)
    put(first, "notes", b"text")
    put(second, "app.db-wal", WAL)
    put(second, "notes-wal", WAL)
    both_errors = [sync(fleet, first).errors, sync(fleet, second).errors]
    assert [[failure.path for failure in errors] for errors in both_errors] == [[], ["app.db"]]
    assert fleet.tree(second) == {"app.db-wal": WAL, "notes": b"text", "notes-wal": WAL}
    remove(second, "app.db-wal")
    assert not sync(fleet, second).errors
    assert fleet.tree(second)["app.db"] == DATABASE


# ---- modes


def test_a_private_directory_that_comes_back_for_what_arrives_in_it_stays_private(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "d/e/", mode=0o700)
    put(first, "d/", mode=0o700)
    put(first, "d/e/f")
    put(first, "keep")
    both(fleet)
    remove(second, "d")
    assert sync(fleet, second, delete_orphaned=False).hidden
    put(first, "d/e/new")
    sync(fleet, first)
    sync(fleet, second, delete_orphaned=False)
    assert set(fleet.tree(second)) == {"d", "d/e", "d/e/new", "keep"}
    assert [mode(second, path) for path in ("d", "d/e")] == [0o700, 0o700]
    assert "put" not in {verb for verb, _ in fleet.sync(second, delete_orphaned=False).log}
    sync(fleet, first)
    assert [mode(first, path) for path in ("d", "d/e")] == [0o700, 0o700]


@pytest.mark.parametrize("path", ["d/e/f", "d/e"])
def test_a_private_directory_above_what_a_sync_covers_is_private(fleet: Fleet, path: str) -> None:
    first, second = fleet.devices
    put(first, "d/", mode=0o700)
    put(first, "d/e/", mode=0o500)
    put(first, "d/e/f")
    sync(fleet, first)
    scope = Scope(paths=(path,))
    assert not sync(fleet, second, scope=scope).errors
    assert fleet.tree(second) == {"d": None, "d/e": None, "d/e/f": b"x"}
    assert [mode(second, path) for path in ("d", "d/e")] == [0o700, 0o500]
    for covered in (scope, Scope()):
        fleet.advance(10 * SECOND)
        assert {verb for verb, _ in fleet.sync(second, scope=covered).log} <= {"list", "get"}
    assert not sync(fleet, first).downloaded
    assert [mode(first, path) for path in ("d", "d/e")] == [0o700, 0o500]


def test_bits_that_are_not_restored_are_no_change(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "f", mode=0o4755)
    put(first, "d/", mode=0o2775)
    put(first, "d/x")
    for device in (first, second, second, first):  # at once, so that rows have no stats
        assert fleet.sync(device).error is None
    both(fleet)
    assert [mode(first, path) for path in ("f", "d")] == [0o4755, 0o2775]
    assert [mode(second, path) & 0o7777 for path in ("f", "d")] == [0o755, 0o775]
    put(second, "f", b"new")
    for device in (second, first, second):
        assert not sync(fleet, device).errors
    assert fleet.tree(first)["f"] == b"new"
    assert [mode(device, "f") for device in fleet.devices] == [0o755, 0o755]


def test_bits_that_are_not_restored_are_no_conflict_where_the_state_is_lost(fleet: Fleet) -> None:
    first = fleet.devices[0]
    put(first, "f", mode=0o4755)
    both(fleet, rounds=2)
    for device in fleet.devices:
        fleet.lose_state(device)
        result = sync(fleet, device)
        assert (result.conflicts, result.uploaded, result.downloaded) == (0, 0, 0)
    assert mode(first, "f") == 0o4755


def test_only_the_mode_of_a_directory_whose_group_is_inherited_changes(fleet: Fleet) -> None:
    first, second = fleet.devices
    put(first, "d/", mode=0o2775)
    put(first, "d/x")
    both(fleet)
    put(second, "d/", mode=0o700)
    both(fleet, rounds=2)
    assert mode(first, "d") == 0o2700
    assert mode(second, "d") == 0o700


def only_where_allowed(device: Device) -> None:
    """The disk minds the modes of directories, as it does for all but the superuser."""

    def hook(name: str, phase: str, path: str) -> None:
        if phase != "before" or name not in ("create", "rename", "mkdir", "rmdir", "unlink", "symlink"):
            return
        above = device.files._find(path.rpartition("/")[0] or "/")
        if above.mode & 0o300 != 0o300:
            raise LocalError(f"Cannot {name} {path}: permission denied.")

    device.files.hook = hook


def change_a_read_only_directory(fleet: Fleet) -> None:
    """The second device has it, with a mode of 555, and the first has published changes in it."""
    first = fleet.devices[0]
    for path in ("d/f", "d/g", "d/sub/h", "e/i"):
        put(first, path)
    modes = {"d/": 0o555, "d/sub/": 0o500, "e/": 0o555}
    for path, bits in modes.items():
        put(first, path, mode=bits)
    both(fleet)
    put(first, "d/f", b"changed")
    put(first, "d/new", b"new")
    put(first, "d/sub/more/", b"", mode=0o555)
    put(first, "d/sub/more/k")
    remove(first, "d/g")
    remove(first, "d/sub/h")
    remove(first, "e")
    put(first, "d/sub/", mode=0o711)
    sync(fleet, first)


AFTER = {"d": None, "d/f": b"changed", "d/new": b"new", "d/sub": None, "d/sub/more": None, "d/sub/more/k": b"x"}
AFTER_MODES = {"d": 0o555, "d/sub": 0o711, "d/sub/more": 0o555}


def test_changes_arrive_in_read_only_directories(fleet: Fleet) -> None:
    change_a_read_only_directory(fleet)
    first, second = fleet.devices
    only_where_allowed(second)
    assert not sync(fleet, second).errors
    assert fleet.tree(second) == AFTER
    assert {path: mode(second, path) for path in AFTER_MODES} == AFTER_MODES
    assert "put" not in {verb for verb, _ in fleet.sync(second).log}
    both(fleet)
    assert {path: mode(first, path) for path in AFTER_MODES} == AFTER_MODES


def test_a_run_that_died_with_directories_open_closes_them_next_time(fleet: Fleet) -> None:
    change_a_read_only_directory(fleet)
    for number in range(10_000):
        world = Fleet(0, 2)
        change_a_read_only_directory(world)
        first, second = world.devices
        left = [number]

        def hook(name: str, phase: str, path: str, left: list[int] = left) -> None:
            if phase == "after" and name not in ("stat", "scan", "read"):
                left[0] -= 1
                if left[0] < 0:
                    raise SimulatedCrash

        second.files.hook = hook
        world.advance(10 * SECOND)
        died = isinstance(world.sync(second).error, SimulatedCrash)
        for device in (second, first, second):
            assert not sync(world, device).errors
        for device in world.devices:
            assert world.tree(device) == AFTER
            assert {path: mode(device, path) for path in AFTER_MODES} == AFTER_MODES
        if not died:
            return
