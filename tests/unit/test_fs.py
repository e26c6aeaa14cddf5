"""Two disks, one behaviour: the real one and the one in memory agree on every call, and failures read as sentences."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia.errors import LocalError
from buckia.local import disk
from buckia.local.disk import RealFileSystem
from buckia.local.fs import (
    DIRECTORY,
    FILE,
    SPECIAL,
    SYMLINK,
    DiskEntry,
    DiskFullError,
    ExistsError,
    FileSystem,
    VanishedError,
)
from tests.support.memory_fs import MemoryFileSystem, SimulatedCrash


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FileSystem, str]:
    if request.param == "real":
        return RealFileSystem(), str(tmp_path)
    memory = MemoryFileSystem()
    memory.put("/root/", b"")
    return memory, "/root"


def write(fs: FileSystem, path: str, data: bytes) -> None:
    with fs.create(path) as handle:
        handle.write(data)


def test_scan_tells_kinds_sizes_and_times(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    with fs.create(f"{root}/file") as handle:
        handle.write(b"12345")
        handle.set_mode(0o640)
        handle.set_mtime(1_600_000_000_123_456_789)
    fs.symlink(b"file", f"{root}/link")
    fs.mkdir(f"{root}/directory")
    found = {entry[0]: DiskEntry(*entry) for entry in fs.scan(root)}
    assert {name: entry.kind for name, entry in found.items()} == {
        "file": FILE,
        "link": SYMLINK,
        "directory": DIRECTORY,
    }
    assert found["file"][2:5] == (0o640, 5, 1_600_000_000_123_456_789)
    assert found["directory"][3:] == (0, 0, 0, 0)
    assert found["link"].size == 4
    for name, entry in found.items():
        assert fs.stat(f"{root}/{name}") == entry


def test_stat_of_nothing_is_none(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    write(fs, f"{root}/file", b"")
    assert fs.stat(f"{root}/nothing") is None
    assert fs.stat(f"{root}/file/below") is None
    assert fs.stat(f"{root}/no/such/directory") is None


def test_reading(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    write(fs, f"{root}/file", b"0123456789")
    with fs.open_read(f"{root}/file") as handle:
        buffer = bytearray(6)
        assert handle.readinto(memoryview(buffer)) == 6
        assert buffer == b"012345"
        assert handle.readinto(buffer) == 4
        assert handle.readinto(buffer) == 0
        assert handle.read_at(3, 4) == b"3456"
        assert handle.read_at(8, 100) == b"89"
        assert handle.read_at(50, 1) == b""
        assert handle.stat()[1:] == (fs.stat(f"{root}/file") or ())[1:]


def test_a_file_is_created_for_its_owner_only_and_never_over_another(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    write(fs, f"{root}/file", b"mine")
    assert fs.stat(f"{root}/file").mode == 0o600  # type: ignore[union-attr]
    with pytest.raises(ExistsError, match="it exists already"):
        fs.create(f"{root}/file")
    fs.symlink(b"elsewhere", f"{root}/link")
    with pytest.raises(ExistsError):
        fs.create(f"{root}/link")
    assert fs.stat(f"{root}/elsewhere") is None


def test_links_are_not_followed(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    write(fs, f"{root}/file", b"data")
    before = fs.stat(f"{root}/file")
    fs.symlink(b"file", f"{root}/link")
    with pytest.raises(LocalError):
        fs.open_read(f"{root}/link")
    fs.set_mtime(f"{root}/link", 5_000_000_000)
    assert fs.stat(f"{root}/link").mtime_ns == 5_000_000_000  # type: ignore[union-attr]
    assert fs.stat(f"{root}/file") == before
    assert fs.readlink(f"{root}/link") == b"file"
    fs.unlink(f"{root}/link")
    assert fs.stat(f"{root}/file") == before


def test_rename_with_and_without_replacing(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    for name in "abc":
        write(fs, f"{root}/{name}", name.encode())
    with pytest.raises(ExistsError):
        fs.rename(f"{root}/a", f"{root}/b", replace=False)
    fs.rename(f"{root}/a", f"{root}/b", replace=True)
    fs.rename(f"{root}/c", f"{root}/d", replace=False)
    assert sorted(entry[0] for entry in fs.scan(root)) == ["b", "d"]
    with fs.open_read(f"{root}/b") as handle:
        assert handle.read_at(0, 9) == b"a"
    with pytest.raises(VanishedError):
        fs.rename(f"{root}/a", f"{root}/x", replace=False)


def test_directories(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    fs.mkdir(f"{root}/d")
    with pytest.raises(ExistsError):
        fs.mkdir(f"{root}/d")
    write(fs, f"{root}/d/file", b"")
    with pytest.raises(ExistsError, match="not empty"):
        fs.rmdir(f"{root}/d")
    fs.sync_files([f"{root}/d/file"])
    fs.sync_directory(f"{root}/d")
    fs.unlink(f"{root}/d/file")
    fs.rmdir(f"{root}/d")
    with pytest.raises(VanishedError):
        fs.scan(f"{root}/d")


def test_many_files_are_flushed_side_by_side(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    paths = [f"{root}/{number}" for number in range(20)]
    for path in paths:
        write(fs, path, b"x")
    fs.sync_files(paths)
    with pytest.raises(VanishedError):
        fs.sync_files([*paths, f"{root}/gone"])


def test_the_disk_says_where_it_is_and_what_is_free(place: tuple[FileSystem, str]) -> None:
    fs, root = place
    fs.mkdir(f"{root}/d")
    assert fs.device(root) == fs.device(f"{root}/d")
    assert fs.free_bytes(root) > 0
    assert fs.real_path(root) == root


# --- the real disk ---


def test_names_that_are_no_utf8_come_through(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    (entry,) = RealFileSystem().scan(str(tmp_path))
    assert entry[0] == "\udcff"
    with pytest.raises(VanishedError, match=r"\\udcff\\nx: it does not exist"):
        RealFileSystem().open_read(f"{tmp_path}/\udcff\nx")


def test_special_files_are_neither_opened_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fs = RealFileSystem()
    assert fs.scan(str(tmp_path))[0][1] == SPECIAL
    with fs.open_read(f"{tmp_path}/fifo") as handle:  # does not block
        assert handle.stat().kind == SPECIAL


def test_an_entry_that_vanishes_while_scanning_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        name = "gone"

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise FileNotFoundError

    class Listing:
        def __enter__(self) -> list[object]:
            return [Gone(), *real(tmp_path)]

        def __exit__(self, *error: object) -> None:
            pass

    (tmp_path / "here").touch()
    real = os.scandir
    monkeypatch.setattr(disk.os, "scandir", lambda path: Listing())
    assert [entry[0] for entry in RealFileSystem().scan(str(tmp_path))] == ["here"]


def test_case_is_probed_without_writing(tmp_path: Path) -> None:
    fs = RealFileSystem()
    directory = tmp_path / "Probe"
    directory.mkdir()
    expected = (tmp_path / "pROBE").exists()
    assert fs.case_insensitive(str(directory)) is expected
    (directory / "123").touch()
    (directory / "Name").touch()
    assert RealFileSystem().case_insensitive(str(directory)) is expected
    assert sorted(os.listdir(directory)) == ["123", "Name"]


def test_a_failure_is_one_sentence(tmp_path: Path) -> None:
    fs = RealFileSystem()
    with pytest.raises(LocalError, match=r"^Cannot create .*: the name is too long for this file system\.$"):
        fs.create(f"{tmp_path}/{'n' * 300}")
    with pytest.raises(LocalError, match="embedded null"):
        fs.unlink(f"{tmp_path}/a\0b")
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(LocalError, match="it is a symbolic link"):
        fs.open_read(f"{tmp_path}/link")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_apart() -> None:
    handle = disk._RealWriteHandle("/dev/full", os.open("/dev/full", os.O_WRONLY))
    with handle, pytest.raises(DiskFullError, match="the disk is full"):
        handle.write(b"x")


def _as_nobody(act: Callable[[], None], answer: multiprocessing.connection.Connection) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        act()
    except Exception as error:
        answer.send((type(error).__name__, str(error)))
    else:
        answer.send(None)


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="takes another user's place, so needs root")
def test_permissions_are_reported(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o755)
    (directory / "secret").write_bytes(b"s")
    (directory / "secret").chmod(0o600)
    for parent in (tmp_path, *tmp_path.parents[:-1]):
        parent.chmod(parent.stat().st_mode | 0o055)
    fs = RealFileSystem()
    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: fs.open_read(f"{directory}/secret"), "Cannot open"),
        (lambda: fs.create(f"{directory}/new"), "Cannot create"),
        (lambda: fs.unlink(f"{directory}/secret"), "Cannot remove"),
        (lambda: fs.set_mode(f"{directory}/secret", 0o644), "Cannot set the permissions of"),
    ]
    context = multiprocessing.get_context("fork")
    for act, beginning in acts:
        ours, theirs = context.Pipe()
        child = context.Process(target=_as_nobody, args=(act, theirs))
        child.start()
        kind, message = ours.recv()
        child.join()
        assert kind == "LocalError"
        assert message.startswith(beginning)
        assert "permi" in message


# --- the disk in memory: its faults are the tests' measure ---


def test_memory_full(place: tuple[FileSystem, str]) -> None:
    fs = MemoryFileSystem(capacity=10)
    with fs.create("/a") as handle:
        handle.write(b"123456")
        with pytest.raises(DiskFullError):
            handle.write(b"1234567890")


def test_memory_ignores_case_when_asked() -> None:
    fs = MemoryFileSystem(insensitive=True)
    fs.put("/Name", b"1")
    assert fs.case_insensitive("/")
    assert fs.get("/nAME") == b"1"
    with pytest.raises(ExistsError):
        fs.create("/NAME")


def test_memory_dies_where_it_is_told_and_stays_dead() -> None:
    fs = MemoryFileSystem()

    def hook(call: str, phase: str, path: str) -> None:
        if (call, phase) == ("write", "during"):
            raise SimulatedCrash

    fs.hook = hook
    handle = fs.create("/a")
    with pytest.raises(SimulatedCrash):
        handle.write(b"12345678")
    with pytest.raises(SimulatedCrash):
        fs.stat("/a")
    fs.revive()
    assert fs.get("/a") == b"1234"


def test_memory_loses_what_was_not_flushed() -> None:
    def build() -> MemoryFileSystem:
        fs = MemoryFileSystem()
        write(fs, "/a", b"12345678")
        write(fs, "/b", b"abcdefgh")
        fs.sync_files(["/b"])
        fs.sync_directory("/")
        fs.rename("/b", "/c", replace=False)
        return fs

    fs = build()
    fs.lose_power(lambda n: 0)
    assert fs.tree("/") == {"a": b"", "b": b"abcdefgh"}
    fs = build()
    fs.lose_power(lambda n: 1)
    assert fs.tree("/") == {"a": b"1234", "c": b"abcdefgh"}
    fs = build()
    fs.lose_power(lambda n: n - 1)
    assert fs.tree("/") == {"a": b"12345678", "c": b"abcdefgh"}


def test_memory_follows_links_on_the_way_as_real_disks_do() -> None:
    fs = MemoryFileSystem()
    fs.put("/outside/", b"")
    fs.put("/root/link", "../outside")
    write(fs, "/root/link/file", b"x")
    assert fs.get("/outside/file") == b"x"


def test_nothing_is_below_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    fs = RealFileSystem()
    assert fs.stat(str(tmp_path / "loop" / "sub" / "f")) is None
    assert fs.stat(str(tmp_path / "loop")) is not None
