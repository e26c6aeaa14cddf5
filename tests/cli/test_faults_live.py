"""What happens to files that move, to names that collide, and to runs that are stopped, refused or turned away."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buckia.errors import BusyError, CancelledError
from buckia.local.disk import RealFileSystem
from tests.cli.conftest import Outcome, error_of
from tests.cli.support import World, leftovers, noise, process, tree_of, wait_a_tick

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))


# ---- files that do not hold still


class _Unsteady:
    """A read handle; ``act`` happens after the first bytes were read."""

    def __init__(self, inner: Any, act: Callable[[], object]) -> None:
        self._inner = inner
        self._act: Callable[[], object] | None = act

    def readinto(self, buffer: Any) -> int:
        got: int = self._inner.readinto(buffer)
        if self._act is not None:
            act, self._act = self._act, None
            act()
        return got

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> _Unsteady:
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.close()


def _unsteady(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object], times: int) -> None:
    original = RealFileSystem.open_read
    left = iter(range(times))

    def open_read(self: RealFileSystem, path: str) -> Any:
        handle = original(self, path)
        if path.endswith("/moving") and next(left, None) is not None:
            return _Unsteady(handle, lambda: act(Path(path)))
        return handle

    monkeypatch.setattr(RealFileSystem, "open_read", open_read)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _vanish(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("act", [_grow, _shrink], ids=["grows", "shrinks"])
@pytest.mark.parametrize("size", [50_000, 9 << 20])
def test_a_file_that_changes_once_while_it_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object], size: int
) -> None:
    a = world.device("a")
    a.fill({"moving": noise(size), "still": "1"})
    _unsteady(monkeypatch, act, 1)
    result = a.sync()
    assert (result.uploaded, result.failed) == (2, 0)
    assert world.device("b").in_bucket() == a.tree()


@pytest.mark.parametrize("act", [_grow, _shrink], ids=["grows", "shrinks"])
def test_a_file_that_never_holds_still_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    a = world.device("a")
    a.fill({"moving": noise(1 << 20), "still": "1"})
    _unsteady(monkeypatch, act, 99)
    result = a.sync()
    assert [(failure.path, failure.reason) for failure in result.errors] == [
        ("moving", "“moving” changed while it was read.")
    ]
    assert world.device("b").in_bucket() == {"still": b"1"}
    monkeypatch.undo()
    assert a.sync().uploaded == 1
    assert world.device("b").in_bucket() == a.tree()


def test_a_file_that_vanishes_while_it_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    a.fill({"moving": noise(1 << 20), "still": "1"})
    original = RealFileSystem.open_read

    def open_read(self: RealFileSystem, path: str) -> Any:
        if path.endswith("/moving"):
            _vanish(Path(path))
        return original(self, path)

    monkeypatch.setattr(RealFileSystem, "open_read", open_read)
    result = a.sync()
    assert result.uploaded == 1
    assert all(failure.path == "moving" for failure in result.errors)
    assert world.device("b").in_bucket() == {"still": b"1"}
    assert a.sync().failed == 0


# ---- name collisions on a case-insensitive target


def test_names_that_collide_on_this_disk_are_all_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.pair()
    a.fill({"Photo.jpg": "upper", "photo.jpg": "lower"})
    a.sync()
    monkeypatch.setattr(RealFileSystem, "case_insensitive", lambda self, path: True)
    assert b.sync().failed == 0
    shown = b.tree()
    assert len({path.casefold() for path in shown}) == 2
    assert sorted(shown.values()) == [b"lower", b"upper"]
    wait_a_tick()
    (aside,) = [path for path, content in shown.items() if content == b"lower"]
    b.write(aside, "lower, changed on b")
    assert b.sync().uploaded == 1
    monkeypatch.undo()
    a.sync()
    assert a.read("photo.jpg") == b"lower, changed on b"
    assert a.read("Photo.jpg") == b"upper"
    assert set(a.tree()) == {"Photo.jpg", "photo.jpg"}


def test_directories_that_collide_on_this_disk_are_both_filled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.pair()
    a.fill({"Dir/x": "1", "dir/y": "2", "dir/deep/z": "3"})
    a.sync()
    monkeypatch.setattr(RealFileSystem, "case_insensitive", lambda self, path: True)
    assert b.sync().failed == 0
    assert sorted(b.tree().values()) == [b"1", b"2", b"3"]
    assert len({path.partition("/")[0].casefold() for path in b.tree()}) == 2


# ---- two at once, and stopping


def test_a_second_run_on_the_same_folder_is_turned_away(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    seen: list[Outcome] = []

    def meanwhile(*report: object) -> None:
        if not seen:
            seen.append(buckia("sync", str(a.root), "--to", world.location, "--json"))

    with world.device("a").client() as client:
        os.environ["BUCKIA_STATE_DIR"] = str(a.state)
        client.sync(a.root, progress_callback=meanwhile)
    (outcome,) = seen
    assert outcome.code == BusyError.exit_code == 10
    assert outcome.json["error"]["type"] == "BusyError"
    assert world.device("b").in_bucket() == {"file": b"1"}


_HOOK = """
import os
from buckia.sync.local import LocalSync
put, seen = LocalSync._put, []
def hooked(self, key, data, if_absent):
    if {where!r} in key:
        seen.append(key)
        if len(seen) == 1:
            os.kill(os.getpid(), {number})
    return put(self, key, data, if_absent)
LocalSync._put = hooked
"""


@pytest.mark.parametrize("where", ["/packs/", "/journal/", "/tips/"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
@pytest.mark.slow
def test_a_signal_in_the_middle_and_the_run_after(
    buckia: Run, world: World, where: str, number: int, code: int
) -> None:
    a = world.device("a")
    a.fill({"clip": noise(2 << 20), "deep/small": "1"})
    line = ["sync", str(a.root), "--to", world.location]
    done = process(*line, cwd=world.base, before=_HOOK.format(where=where, number=int(number)))
    assert done.returncode == code, done.stderr
    if number != signal.SIGKILL:
        assert done.stderr == "buckia: error: Stopped.\n"
    outcome = buckia(*line, "--json")
    assert (outcome.code, outcome.json["failed"]) == (0, 0)
    assert world.device("b").in_bucket() == a.tree()
    if where != "/packs/" or number == signal.SIGKILL:
        return
    assert len(world.of_kind("packs")) <= 2


_HOOK_READ = """
import os
from buckia.sync.local import LocalSync
get = LocalSync._get
def hooked(self, key, offset, length):
    if "/packs/" in key and (length is None or length > 500_000):
        os.kill(os.getpid(), {number})
    return get(self, key, offset, length)
LocalSync._get = hooked
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("command", ["sync", "restore", "verify", "cat"])
@pytest.mark.slow
def test_a_signal_while_reading(buckia: Run, world: World, command: str, number: int, code: int) -> None:
    a = world.device("a")
    a.fill({f"clip{number}": noise(20 << 20, number) for number in range(2)})
    a.sync()
    target = world.base / "target"
    target.mkdir()
    line = {
        "sync": ["sync", str(target), "--to", world.location],
        "restore": ["restore", "--from", world.location, "--target", str(target)],
        "verify": ["verify", "--read-data", "--from", world.location],
        "cat": ["cat", "clip1", "--from", world.location],
    }[command]
    done = process(*line, cwd=world.base, before=_HOOK_READ.format(number=int(number)), encoding="latin-1")
    assert (done.returncode, done.stderr) == (code, "buckia: error: Stopped.\n")
    assert tree_of(target).items() <= a.tree().items()
    assert leftovers(target) == [] or command == "sync"
    if command in ("sync", "restore"):
        again = buckia(*line, *(["--overwrite"] if command == "restore" else []))
        assert again.code == 0, again.err
        assert tree_of(target) == a.tree()
        assert leftovers(target) == []


def test_a_cancelled_download_leaves_whole_files_only(world: World) -> None:
    a, b = world.pair()
    a.fill({f"clip{number}": noise(1 << 20, number) for number in range(4)})
    a.sync()
    with b.client() as client:

        def stop(current: int, total: int, action: str, path: str) -> None:
            if action == "downloading":
                client.cancel(signal.SIGTERM)

        with pytest.raises(CancelledError) as caught:
            client.sync(b.root, progress_callback=stop)
    assert caught.value.exit_code == 143
    assert b.tree().items() <= a.tree().items()
    assert b.sync().success
    assert leftovers(b.root) == []
    assert b.tree() == a.tree()


# ---- mass deletions and roots that are gone


def test_a_mass_deletion_here_is_not_published_unasked(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.fill({f"file{number:02}": str(number) for number in range(40)})
    line = ["sync", str(a.root), "--to", world.location, "--delete-orphaned"]
    buckia(*line)
    for number in range(30):
        (a.root / f"file{number:02}").unlink()
    before = world.bytes()
    outcome = buckia(*line)
    assert error_of(outcome) == (10, "This sync would remove 30 of 40 files from the folder. Nothing was changed.")
    assert "--allow-mass-delete" in outcome.err
    assert world.bytes() == before
    assert buckia(*line, "--allow-mass-delete", "--json").json["deleted"] == 30
    assert len(world.device("b").in_bucket()) == 10


def test_a_mass_deletion_elsewhere_is_not_applied_unasked(buckia: Run, world: World) -> None:
    a, b = world.pair()
    a.fill({f"file{number:02}": str(number) for number in range(40)})
    a.sync()
    line = ["sync", str(b.root), "--to", world.location]
    buckia(*line)
    for number in range(30):
        (a.root / f"file{number:02}").unlink()
    a.sync(delete_orphaned=True, allow_mass_delete=True)
    assert error_of(buckia(*line)) == (10, "This sync would remove 30 of 40 files on this disk. Nothing was changed.")
    assert len(b.tree()) == 40
    assert buckia(*line, "--allow-mass-delete", "--json").json["deleted"] == 30
    assert (len(b.tree()), len(b.trash())) == (10, 30)


@pytest.mark.parametrize("what", ["empty", "missing"])
@pytest.mark.parametrize("flags", [[], ["--delete-orphaned", "--allow-mass-delete"]])
def test_a_root_that_is_empty_or_gone_stops_always(buckia: Run, world: World, what: str, flags: list[str]) -> None:
    a = world.device("a")
    a.write("file", "1")
    line = ["sync", str(a.root), "--to", world.location, *flags]
    buckia(*line)
    before = world.bytes()
    shutil.rmtree(a.root)
    if what == "empty":
        a.root.mkdir()
    code, message = error_of(buckia(*line))
    assert code == 10
    assert str(a.root) in message
    assert a.root.exists() == (what == "empty")
    assert world.bytes() == before


def test_a_root_of_a_configuration_that_is_gone_is_not_made_anew(buckia: Run, tmp_path: Path) -> None:
    (tmp_path / ".buckia").write_text("x: {provider: local, bucket_name: bucket, folders: [f], paths: data}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/f").mkdir()
    (tmp_path / "data/f/file").write_text("1")
    assert buckia("sync").code == 0
    shutil.rmtree(tmp_path / "data/f")
    assert buckia("sync", "--delete-orphaned", "--allow-mass-delete").code == 10
    assert not (tmp_path / "data/f").exists()
