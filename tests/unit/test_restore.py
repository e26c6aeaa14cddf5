"""Restore promises: the target becomes what the snapshot holds, bit by bit; what was there is never lost and never
touched unasked; hostile trees write nothing outside; and only what is missing is fetched.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buckia.client.runtime import Threads
from buckia.core import canonical
from buckia.core.chunker import kernel
from buckia.core.ids import BlobType, content_hash
from buckia.core.manifest import FileContent, Kind, Subtree, Version
from buckia.core.pack import parse_pack
from buckia.core.record import pack_key
from buckia.engine.context import Progress
from buckia.engine.fetch import RESERVE_BYTES
from buckia.engine.restore import RestoreOptions, restore, restore_file
from buckia.engine.restoreplan import Site
from buckia.engine.work import Inline
from buckia.errors import (
    CancelledError,
    FormatError,
    IntegrityError,
    LocalError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from buckia.events import RestoreResult
from buckia.local.disk import RealFileSystem
from buckia.local.fs import DiskFullError
from buckia.local.state import Row
from buckia.store.reader import WINDOW_BYTES
from buckia.sync.memory import MemorySync
from tests.support.repositories import PREFIX, Folder, Link, noise, open_repository
from tests.transfers import PATIENCE

NUMBERS = iter(range(10**6))


@pytest.fixture
def folder() -> Folder:
    return Folder()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def site(target: Path, **changes: object) -> Site:
    number = next(NUMBERS)
    values: dict[str, object] = {
        "files": RealFileSystem(),
        "target": str(target),
        "executor": Inline(),
        "kernel": kernel(None),
        "token": f"{number:012x}",
        "when": f"2024-01-01T00000{number}Z",
        **changes,
    }
    return Site(**values)  # type: ignore[arg-type]


def run(folder: Folder, target: Path, *paths: str, tree: Subtree | None = None, **options: bool) -> RestoreResult:
    """Restore as a new reader."""
    repository = open_repository(folder.bucket)
    repository.refresh()
    chosen = RestoreOptions(paths, **options)
    result = restore(repository, site(target), tree or repository.current().tree, chosen)
    leftovers = list(target.parent.rglob(".buckia-tmp*"))
    assert not leftovers
    return result


def contents(target: Path) -> dict[str, bytes | str | None]:
    """All that is below a directory but the trash: bytes, link targets, None for directories."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if name.startswith(".buckia-trash"):
            continue
        found[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


def trash(target: Path) -> dict[str, bytes | str | None]:
    """What is in the trash, by path there."""
    found: dict[str, bytes | str | None] = {}
    for run_ in sorted((target / ".buckia-trash").glob("*")):
        found.update(contents(run_))
    return {name: data for name, data in found.items() if data is not None}


class TestWhole:
    def test_everything_is_as_it_was(self, folder: Folder, target: Path) -> None:
        folder.modes = {"bin/run": 0o755, "secret": 0o400, "closed/": 0o500, "closed/in": 0o640}
        folder.mtimes = {"a.txt": 1_234_567_890_987_654_321, "link": 1_111_111_111_000_000_007, "old": -5 * 10**9}
        big = noise(3_000_000)
        folder.commit(
            {
                "a.txt": b"alpha",
                "empty": b"",
                "big": big,
                "zeros": bytes(5_000_000),
                "bin/run": b"#!",
                "secret": b"s",
                "old": b"o",
                "link": Link(b"bin/run"),
                "deep/er/link": Link(b"../../a.txt"),
                "void/": b"",
                "closed/": b"",
                "closed/in": b"i",
                "käse/ß": b"utf-8",
            }
        )
        result = run(folder, target)
        assert not result.errors
        assert contents(target) == {
            "a.txt": b"alpha",
            "big": big,
            "bin": None,
            "bin/run": b"#!",
            "closed": None,
            "closed/in": b"i",
            "deep": None,
            "deep/er": None,
            "deep/er/link": "../../a.txt",
            "empty": b"",
            "käse": None,
            "käse/ß": b"utf-8",
            "link": "bin/run",
            "old": b"o",
            "secret": b"s",
            "void": None,
            "zeros": bytes(5_000_000),
        }
        assert (target / "a.txt").stat().st_mtime_ns == 1_234_567_890_987_654_321
        assert (target / "old").stat().st_mtime_ns == -5 * 10**9
        assert (target / "link").lstat().st_mtime_ns == 1_111_111_111_000_000_007
        modes = {name: stat.S_IMODE((target / name).stat().st_mode) for name in ("bin/run", "secret", "closed", "void")}
        assert modes == {"bin/run": 0o755, "secret": 0o400, "closed": 0o500, "void": 0o755}
        assert (result.restored, result.unchanged, result.trashed, result.failed) == (11, 0, 0, 0)
        assert result.bytes == 8_000_000 + 5 + 2 + 1 + 1 + 1 + 5
        assert result.root == folder.tree.content_hash.hex()
        os.chmod(target / "closed", 0o700)

    def test_with_threads(self, folder: Folder, target: Path) -> None:
        files = {f"d{number % 7}/{number}": noise(3000, number) for number in range(700)}
        files["big"] = noise(4_000_000)
        folder.commit(files)
        repository = open_repository(folder.bucket, workers=2)
        repository.refresh()
        steps: list[tuple[int, int]] = []
        progress = Progress(lambda current, total, action, path: steps.append((current, total)))
        pool = Threads(2)
        where = site(target, executor=pool, progress=progress)
        result = restore(repository, where, repository.current().tree, RestoreOptions())
        pool.close()
        assert (result.restored, result.failed) == (701, 0)
        assert {name: data for name, data in contents(target).items() if data is not None} == files
        assert steps == sorted(steps)
        assert steps[-1] == (result.bytes, result.bytes)

    def test_an_older_snapshot(self, folder: Folder, target: Path) -> None:
        before = folder.commit({"a": b"1", "b": b"2"})
        folder.commit({"a": b"3", "b": None})
        body = before.snapshot
        from buckia.store.repository import snapshot_tree

        run(folder, target, tree=snapshot_tree(body))
        assert contents(target) == {"a": b"1", "b": b"2"}

    def test_an_empty_tree(self, folder: Folder, target: Path) -> None:
        result = run(folder, target)
        assert (result.restored, result.failed) == (0, 0)
        assert contents(target) == {}
        assert target.is_dir()

    def test_directories_above_the_target_are_made(self, folder: Folder, target: Path) -> None:
        folder.commit({"a": b"1"})
        run(folder, target / "x" / "y")
        assert contents(target / "x" / "y") == {"a": b"1"}

    def test_conflict_copies_are_shown(self, folder: Folder, target: Path) -> None:
        other = Folder(folder.bucket, "other")
        folder.mtimes["a.txt"] = 5
        other.mtimes["a.txt"] = 9
        folder.commit({"a.txt": b"mine"})
        other.commit({"a.txt": b"theirs"})
        run(folder, target)
        found = contents(target)
        assert found.pop("a.txt") == b"theirs"
        ((name, data),) = found.items()
        assert name.startswith("a (conflict ")
        assert data == b"mine"
        run(folder, target / "copy", name)
        assert contents(target / "copy") == {name: b"mine"}


class TestSelection:
    @pytest.fixture
    def files(self, folder: Folder) -> Folder:
        folder.modes = {"images/": 0o711}
        folder.commit(
            {
                "images/": b"",
                "images/a.png": b"a",
                "images/deep/b.png": b"b",
                "images-old/c.png": b"c",
                "notes": b"n",
            }
        )
        return folder

    @pytest.mark.parametrize(
        ("paths", "expected"),
        [
            (("images",), {"images/a.png", "images/deep/b.png"}),
            (("/images/",), {"images/a.png", "images/deep/b.png"}),
            (("images/a.png",), {"images/a.png"}),
            (("images/deep", "notes"), {"images/deep/b.png", "notes"}),
            (("images", "images/a.png"), {"images/a.png", "images/deep/b.png"}),
            ((".",), {"images/a.png", "images/deep/b.png", "images-old/c.png", "notes"}),
        ],
    )
    def test_paths_match_by_component(
        self, files: Folder, target: Path, paths: tuple[str, ...], expected: set[str]
    ) -> None:
        result = run(files, target, *paths)
        assert {name for name, data in contents(target).items() if data is not None} == expected
        assert result.restored == len(expected)

    @pytest.mark.parametrize("path", ["image", "notes/x", "images/a", "images/deep/none", "../x"])
    def test_a_path_that_is_not_there(self, files: Folder, target: Path, path: str) -> None:
        with pytest.raises(NotFoundError, match=path):
            run(files, target, "notes", path)
        assert not target.exists()

    def test_what_is_not_selected_is_no_extra(self, files: Folder, target: Path) -> None:
        (target / "images").mkdir(parents=True)
        os.chmod(target / "images", 0o750)
        (target / "mine").write_bytes(b"m")
        (target / "images" / "mine").write_bytes(b"m")
        result = run(files, target, "images/a.png", overwrite=True, delete_extra=True)
        assert (result.extra, result.deleted) == ([], 0)
        assert (target / "mine").exists()
        assert stat.S_IMODE((target / "images").stat().st_mode) == 0o750
        result = run(files, target, "images", overwrite=True)
        assert result.extra == ["images/mine"]
        assert stat.S_IMODE((target / "images").stat().st_mode) == 0o711


class TestTarget:
    @pytest.fixture(autouse=True)
    def _files(self, folder: Folder) -> None:
        folder.commit({"a": b"1", "d/b": b"22"})

    def test_one_that_holds_files_is_refused(self, folder: Folder, target: Path) -> None:
        target.mkdir()
        (target / "mine").write_bytes(b"m")
        with pytest.raises(RefusedError):
            run(folder, target)
        assert contents(target) == {"mine": b"m"}

    def test_one_that_holds_only_what_is_ours_is_empty(self, folder: Folder, target: Path) -> None:
        (target / ".buckia-trash").mkdir(parents=True)
        assert run(folder, target).restored == 2

    def test_a_file(self, folder: Folder, target: Path) -> None:
        target.write_bytes(b"x")
        for where in (target, target / "below"):
            with pytest.raises(LocalError):
                run(folder, where, overwrite=True)
        assert target.read_bytes() == b"x"

    def test_a_link_to_a_directory(self, folder: Folder, target: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        target.symlink_to("real")
        run(folder, target)
        assert contents(tmp_path / "real") == {"a": b"1", "d": None, "d/b": b"22"}

    def test_no_room(self, folder: Folder, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RealFileSystem, "free_bytes", lambda self, path: 2)
        with pytest.raises(DiskFullError, match="needs 3 bytes, 2 are free"):
            run(folder, target)
        assert not target.exists()
        result = run(folder, target, dry_run=True)
        assert "needs 3 bytes" in result.warnings[0]

    def test_no_room_for_what_is_to_stay_free(
        self, folder: Folder, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large file that would fail at the reserve is refused before anything is written; small ones need none."""
        size = WINDOW_BYTES + 1
        folder.commit({"large": bytes(size)})
        free = size + 3 + RESERVE_BYTES - 1
        monkeypatch.setattr(RealFileSystem, "free_bytes", lambda self, path: free)
        with pytest.raises(DiskFullError, match=f"{free} are free, of which {RESERVE_BYTES} are to stay free"):
            run(folder, target)
        assert not target.exists()
        assert not run(folder, target, "a", "d").errors
        free += 1
        assert run(folder, target, overwrite=True).restored == 1


class Meeting(MemorySync):
    """Reads of ``held`` objects are answered only once ``most`` of them wait."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.held: set[str] = set()
        self._most = most
        self._waiting = 0
        self._met = threading.Event()
        self._count_lock = threading.Lock()

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        if key in self.held:
            with self._count_lock:
                self._waiting += 1
                if self._waiting == self._most:
                    self._met.set()
            assert self._met.wait(PATIENCE), f"{self._waiting} of {self._most} reads are in flight"
        return super()._get(key, offset, length)


@pytest.mark.parametrize(
    ("count", "size", "pack_bytes", "most"),
    [
        (40, 40_000, 64 << 10, 12),
        (8, 700_000, 64 << 10, 12),
        (2, 5_000_000, 64 << 10, 12),
        (1, 9_000_000, 64 << 10, 12),
        (12, 5_000_000, 16 << 20, 4),
    ],
    ids=["one chunk", "one window", "a few windows", "many windows", "large packs"],
)
def test_as_many_reads_are_in_flight_as_there_are_workers(
    target: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int, pack_bytes: int, most: int
) -> None:
    """Whatever the sizes of files and packs are: only latency would tell the difference. Of large packs as many windows
    are read as memory holds.
    """
    monkeypatch.setattr("buckia.store.writer.PACK_BYTES_TARGET", pack_bytes)
    monkeypatch.setattr("buckia.store.writer.ONE_PACK_BYTES_MAX", 0)
    monkeypatch.setattr("buckia.engine.fetch.SIDE_BY_SIDE_BYTES", 8 << 20)
    bucket = Meeting(most)
    files = {f"f{number}": noise(size, number) for number in range(count)}
    Folder(bucket).commit(files)
    packs = {key: data for key, data in bucket.objects.items() if "/packs/" in key}
    bucket.held = {key for key, data in packs.items() if any(row.kind == BlobType.CHUNK for row in parse_pack(data))}
    repository = open_repository(bucket, workers=most)
    repository.refresh()
    executor = Threads(most)
    result = restore(repository, site(target, executor=executor), repository.current().tree, RestoreOptions())
    executor.close()
    repository.transfer.close()
    assert not result.errors
    assert contents(target) == files


class TestOverwrite:
    def test_what_is_equal_stays_and_what_differs_goes_to_the_trash(self, folder: Folder, target: Path) -> None:
        folder.commit({"same": b"same", "other": b"new!", "longer": b"new", "link": Link(b"same"), "newdir/f": b"f"})
        target.mkdir()
        (target / "same").write_bytes(b"same")
        inode = (target / "same").stat().st_ino
        (target / "other").write_bytes(b"old!")
        (target / "longer").write_bytes(b"older")
        (target / "link").symlink_to("elsewhere")
        (target / "extra").mkdir()
        (target / "extra" / "e").write_bytes(b"e")
        result = run(folder, target, overwrite=True)
        assert not result.errors
        assert (result.restored, result.unchanged, result.trashed, result.deleted) == (4, 1, 3, 0)
        assert result.extra == ["extra/e"]
        assert contents(target) == {
            "extra": None,
            "extra/e": b"e",
            "link": "same",
            "longer": b"new",
            "newdir": None,
            "newdir/f": b"f",
            "other": b"new!",
            "same": b"same",
        }
        assert (target / "same").stat().st_ino == inode
        assert trash(target) == {"other": b"old!", "longer": b"older", "link": "elsewhere"}

    def test_a_second_restore_does_nothing(self, folder: Folder, target: Path) -> None:
        folder.commit({"a": b"1", "big": noise(2_000_000), "l": Link(b"a"), "d/e": b"", "v/": b""})
        run(folder, target)
        before = {path: path.lstat().st_ctime_ns for path in target.rglob("*")}
        folder.bucket.traffic.bytes_downloaded = 0
        result = run(folder, target, overwrite=True, delete_extra=True)
        assert (result.restored, result.unchanged, result.trashed, result.bytes) == (0, 4, 0, 0)
        assert {path: path.lstat().st_ctime_ns for path in target.rglob("*")} == before
        assert folder.bucket.traffic.bytes_downloaded < 5000

    def test_mode_and_time_are_set_where_the_content_is_equal(self, folder: Folder, target: Path) -> None:
        folder.modes["a"] = 0o600
        folder.commit({"a": b"1"})
        target.mkdir()
        (target / "a").write_bytes(b"1")
        os.chmod(target / "a", 0o664)
        result = run(folder, target, overwrite=True)
        assert (result.unchanged, result.restored) == (1, 0)
        found = (target / "a").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o600, 1_600_000_000_123_456_789)

    def test_extra_files_go_to_the_trash_if_that_is_wanted(self, folder: Folder, target: Path) -> None:
        folder.commit({"a": b"1", "d/": b""})
        for name in ("x/y/z", "d/extra", "top"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(name.encode())
        (target / "hollow").mkdir()
        (target / "dangling").symlink_to("nowhere")
        (target / ".buckia.yaml").write_bytes(b"ours")
        result = run(folder, target, overwrite=True, delete_extra=True)
        assert (result.deleted, result.trashed, result.extra, result.errors) == (4, 4, [], [])
        assert contents(target) == {".buckia.yaml": b"ours", "a": b"1", "d": None}
        assert trash(target) == {"x/y/z": b"x/y/z", "d/extra": b"d/extra", "top": b"top", "dangling": "nowhere"}

    def test_a_file_where_a_directory_is_and_the_other_way_round(self, folder: Folder, target: Path) -> None:
        folder.commit({"file": b"f", "dir/in": b"i", "deep/x": b"x"})
        (target / "file" / "sub").mkdir(parents=True)
        (target / "file" / "sub" / "lost").write_bytes(b"kept")
        (target / "dir").write_bytes(b"was a file")
        (target / "deep").symlink_to(target.parent)
        result = run(folder, target, overwrite=True)
        assert not result.errors
        assert contents(target) == {"deep": None, "deep/x": b"x", "dir": None, "dir/in": b"i", "file": b"f"}
        assert trash(target) == {"file/sub/lost": b"kept", "dir": b"was a file", "deep": str(target.parent)}
        assert result.trashed == 3
        assert not (target.parent / "x").exists()

    def test_only_missing_chunks_are_fetched(self, folder: Folder, target: Path) -> None:
        data = noise(8_000_000)
        folder.commit({"big": data[:4_000_000] + b"changed" + data[4_000_000:]})
        target.mkdir()
        (target / "big").write_bytes(data)
        folder.bucket.traffic.bytes_downloaded = 0
        result = run(folder, target, overwrite=True)
        assert (target / "big").read_bytes() == data[:4_000_000] + b"changed" + data[4_000_000:]
        assert result.bytes_reused > 6_500_000
        assert folder.bucket.traffic.bytes_downloaded < 1_500_000
        assert trash(target) == {"big": data}

    def test_an_equal_file_of_another_name_is_a_source(self, folder: Folder, target: Path) -> None:
        data = noise(2_000_000)
        folder.commit({"a": data, "b": data})
        target.mkdir()
        (target / "a").write_bytes(data)
        folder.bucket.traffic.bytes_downloaded = 0
        result = run(folder, target, overwrite=True)
        assert (result.restored, result.unchanged, result.bytes_reused) == (1, 1, 2_000_000)
        assert folder.bucket.traffic.bytes_downloaded < 20_000

    def test_dry_run_counts_the_same_and_writes_nothing(self, folder: Folder, target: Path) -> None:
        folder.commit({"same": b"same", "other": b"new!", "dir/in": b"i", "file": b"f"})
        for name, data in {"same": b"same", "other": b"old!", "dir": b"f", "file/x": b"x", "e/e": b"e"}.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
        before = contents(target)
        foreseen = run(folder, target, overwrite=True, delete_extra=True, dry_run=True)
        assert contents(target) == before
        assert not (target / ".buckia-trash").exists()
        result = run(folder, target, overwrite=True, delete_extra=True)
        for name in ("restored", "unchanged", "trashed", "deleted", "bytes", "failed", "extra"):
            assert getattr(foreseen, name) == getattr(result, name), name
        run(folder, target / "none", dry_run=True)
        assert not (target / "none").exists()

    def test_a_file_that_changes_meanwhile_stays(self, folder: Folder, target: Path) -> None:
        folder.commit({"a": b"new", "b": b"bbb"})
        target.mkdir()
        (target / "a").write_bytes(b"old")

        def callback(current: int, total: int, action: str, path: str) -> None:
            (target / "a").write_bytes(b"edited just now")
            (target / "b").write_bytes(b"made just now")

        repository = open_repository(folder.bucket)
        repository.refresh()
        where = site(target, progress=Progress(callback))
        result = restore(repository, where, repository.current().tree, RestoreOptions(overwrite=True))
        assert {failure.path for failure in result.errors} == {"a", "b"}
        assert contents(target) == {"a": b"edited just now", "b": b"made just now"}

    def test_leftovers_of_a_run_that_was_cut_off_are_removed(self, folder: Folder, target: Path) -> None:
        folder.commit({"d/a": b"1"})
        (target / "d").mkdir(parents=True)
        (target / "d" / ".buckia-tmp-00000000ff-1").write_bytes(b"half")
        run(folder, target, overwrite=True)
        assert contents(target) == {"d": None, "d/a": b"1"}

    @pytest.mark.parametrize("after", [1, 3, 6])
    def test_stopping_leaves_no_staged_file(self, folder: Folder, target: Path, after: int) -> None:
        folder.commit({f"d/{number}": noise(1000, number) for number in range(8)})
        count = 0

        def check() -> None:
            nonlocal count
            count += 1
            if count > after:
                raise CancelledError

        repository = open_repository(folder.bucket)
        repository.refresh()
        where = site(target, progress=Progress(check=check))
        with pytest.raises(CancelledError):
            restore(repository, where, repository.current().tree, RestoreOptions())
        assert not list(target.rglob(".buckia-tmp*"))


class TestInPlace:
    """With the rows of a state: only what was captured is replaced or removed."""

    @pytest.fixture
    def before(self, folder: Folder, target: Path) -> Subtree:
        folder.commit({"a": b"old", "gone": b"g", "b": b"B"})
        tree = folder.tree
        folder.commit({"a": b"new", "gone": None, "later": b"later", "dir/later": b"x"})
        run(folder, target)
        return tree

    def rows(self, folder: Folder, target: Path) -> Callable[[bytes], dict[str, Row]]:
        """What a sync would have noted."""
        from buckia.core.directory import entries, lookup

        files = RealFileSystem()

        def of(path: bytes) -> dict[str, Row]:
            tree = folder.tree
            if path:
                entry = lookup(folder.repository.nodes, tree.id, tuple(path.split(b"/")))
                if entry is None or entry.subtree is None:
                    return {}
                tree = entry.subtree
            found = {}
            for entry in entries(folder.repository.nodes, tree.id):
                name = entry.name.decode()
                if not entry.versions:
                    found[name] = Row(name, entry.name, Kind.DIRECTORY, (), None, 0o755, 0, 0)
                    continue
                (version,) = entry.versions
                disk = noted[path + b"/" + entry.name]
                fields = (version.kind, (version.dot,), version.content, version.mode, version.size, version.mtime_ns)
                found[name] = Row(name, entry.name, *fields, disk)
            return found

        noted = {}
        for here in target.rglob("*"):
            relative = here.relative_to(target)
            parent = b"" if relative.parent == Path() else os.fsencode(relative.parent)
            present = files.stat(str(here))
            noted[parent + b"/" + os.fsencode(relative.name)] = present.stat if present is not None else None
        return of

    def go(self, folder: Folder, target: Path, tree: Subtree, rows: object) -> RestoreResult:
        repository = open_repository(folder.bucket)
        repository.refresh()
        return restore(repository, site(target, rows=rows), tree, RestoreOptions(overwrite=True, delete_extra=True))

    def test_back_to_an_older_state(self, folder: Folder, target: Path, before: Subtree) -> None:
        (target / "ignored").write_bytes(b"no row")
        rows = self.rows(folder, target)
        result = self.go(folder, target, before, rows)
        assert not result.errors
        assert contents(target) == {"a": b"old", "b": b"B", "gone": b"g", "ignored": b"no row"}
        assert trash(target) == {"a": b"new", "later": b"later", "dir/later": b"x"}
        assert (result.restored, result.unchanged, result.deleted, result.trashed) == (2, 1, 2, 3)

    def test_what_changed_since_the_sync_stays(self, folder: Folder, target: Path, before: Subtree) -> None:
        rows = self.rows(folder, target)
        (target / "a").write_bytes(b"edited")
        (target / "later").write_bytes(b"edited too")
        (target / "gone").write_bytes(b"made again")
        result = self.go(folder, target, before, rows)
        assert {failure.path for failure in result.errors} == {"a", "later", "gone"}
        found = contents(target)
        assert (found["a"], found["later"], found["gone"]) == (b"edited", b"edited too", b"made again")

    def test_a_row_without_a_stat_is_read(self, folder: Folder, target: Path, before: Subtree) -> None:
        from dataclasses import replace

        rows = self.rows(folder, target)
        (target / "later").write_bytes(b"edited too")

        def unsettled(path: bytes) -> dict[str, Row]:
            return {name: replace(row, stat=None) for name, row in rows(path).items()}

        result = self.go(folder, target, before, unsettled)
        assert {failure.path for failure in result.errors} == {"later"}
        assert contents(target) == {"a": b"old", "b": b"B", "gone": b"g", "later": b"edited too"}


class TestDamage:
    def test_files_that_cannot_be_had_are_failures_and_the_rest_is_written(self, folder: Folder, target: Path) -> None:
        folder.commit({"good": b"g", "sub/fine": b"f"})
        linked = folder.commit({"bad": noise(5_000_000), "small": noise(3000, 1)})
        sizes = {ref.id: ref.size for ref in linked.snapshot.packs}
        key = PREFIX + pack_key(max(sizes, key=lambda pack: sizes[pack]))
        whole = folder.bucket.objects.pop(key)
        result = run(folder, target)
        assert {failure.path for failure in result.errors} == {"bad", "small"}
        assert (result.restored, result.failed) == (2, 2)
        assert contents(target) == {"good": b"g", "sub": None, "sub/fine": b"f"}
        folder.bucket.objects[key] = whole[:3000] + bytes(100) + whole[3100:]
        result = run(folder, target / "again")
        assert {failure.path for failure in result.errors} == {"bad"}
        folder.bucket.objects[key] = whole
        assert run(folder, target, overwrite=True).restored == 2

    def test_a_directory_that_cannot_be_read(self, folder: Folder, target: Path) -> None:
        folder.commit({"good/g": b"g"})
        linked = folder.commit({"bad/x": b"x"})
        tree = folder.tree
        key = PREFIX + pack_key(linked.snapshot.packs[0].id)
        repository = open_repository(folder.bucket)
        repository.refresh()
        repository.nodes.get(BlobType.DIRECTORY, tree.id)
        from buckia.core.directory import lookup

        entry = lookup(repository.nodes, tree.id, (b"bad",))
        assert entry is not None
        assert entry.subtree is not None
        repository.ledger._nodes.pop((BlobType.DIRECTORY, entry.subtree.id), None)  # type: ignore[attr-defined]
        del folder.bucket.objects[key]
        (target / "bad").mkdir(parents=True)
        (target / "bad" / "mine").write_bytes(b"m")
        options = RestoreOptions(overwrite=True, delete_extra=True)
        result = restore(repository, site(target), tree, options)
        assert [failure.path for failure in result.errors] == ["bad"]
        assert contents(target) == {"bad": None, "bad/mine": b"m", "good": None, "good/g": b"g"}
        del folder.bucket.objects[next(iter(k for k in folder.bucket.objects if "/packs/" in k))]
        with pytest.raises((IntegrityError, FormatError)):
            run(folder, target / "none")


class TestHostile:
    """Trees that no honest device makes. Nothing is ever written outside the target."""

    @pytest.fixture(autouse=True)
    def _outside(self, tmp_path: Path) -> Iterator[None]:
        (tmp_path / "precious").write_bytes(b"p")
        yield
        assert {path.name for path in tmp_path.iterdir()} <= {"precious", "out"}
        assert (tmp_path / "precious").read_bytes() == b"p"

    @pytest.mark.parametrize("name", ["_buckia", "_buckia-x", ".buckia", ".buckia-trash", ".buckia-tmp-1", ".BuckIA"])
    def test_reserved_names(self, folder: Folder, target: Path, name: str) -> None:
        folder.commit({f"{name}/packs": b"x", "good": b"g"})
        result = run(folder, target)
        assert [failure.path for failure in result.errors] == [name]
        assert contents(target) == {"good": b"g"}

    @pytest.mark.parametrize("link", [b"/etc/passwd", b"../precious", b"d/../../precious", b"../../x", b"/"])
    def test_links_that_lead_outside(self, folder: Folder, target: Path, link: bytes) -> None:
        folder.commit({"link": Link(link), "good": b"g"})
        result = run(folder, target)
        assert [failure.path for failure in result.errors] == ["link"]
        assert contents(target) == {"good": b"g"}

    @pytest.mark.parametrize("name", [b"..", b".", b"../precious", b"/precious", b"a/b", b"", b"a\0b", b"\xff"])
    def test_names_that_are_no_components(self, folder: Folder, target: Path, name: bytes) -> None:
        node, tree = forged(folder, [[name, [[0, 1, 0, 1, 0, 0o644, [0, bytes(32)], None]], None]])
        folder.commit({"good": b"g"})
        repository = folder.repository
        with pytest.raises(FormatError):
            restore(repository, site(target), tree, RestoreOptions())
        assert node
        assert not target.exists()
        outer = [b"sub", [], [tree.id, tree.content_hash, 1, 1]]
        good = [b"zlink", [[0, 1, 1, 1, 0, 0, b"x", None]], None]
        _, above = forged(folder, [outer, good])
        result = restore(repository, site(target), above, RestoreOptions())
        assert [failure.path for failure in result.errors] == ["sub"]
        assert contents(target) == {"sub": None, "zlink": "x"}

    def test_a_link_at_the_target_is_not_followed(self, folder: Folder, target: Path, tmp_path: Path) -> None:
        folder.commit({"d/precious": b"hostile", "precious": b"hostile"})
        target.mkdir()
        (target / "d").symlink_to(tmp_path)
        (target / "precious").symlink_to(tmp_path / "precious")
        result = run(folder, target, overwrite=True)
        assert not result.errors
        assert contents(target) == {"d": None, "d/precious": b"hostile", "precious": b"hostile"}

    def test_a_link_and_files_below_it(self, folder: Folder, target: Path) -> None:
        other = Folder(folder.bucket, "other")
        folder.commit({"d": Link(b"..")})
        other.commit({"d/precious": b"hostile"})
        result = run(folder, target)
        assert len(result.errors) == 1
        assert contents(target) == {"d": None, "d/precious": b"hostile"}

    def test_sizes_that_are_not_true(self, folder: Folder, target: Path) -> None:
        repository = folder.repository
        folder.commit({"good": b"g"})
        writer = repository.writer()
        content = FileContent(0, writer.put(BlobType.CHUNK, b"four"))
        from buckia.engine.editor import TreeEditor

        editor = TreeEditor(repository.nodes, folder.tree)
        editor.edit((b"bad",), (), Version(folder.dot(), Kind.FILE, 10**6, 0, 0o644, content))
        repository.publish(writer, editor.finish(), repository.ledger.tips())
        result = run(folder, target)
        assert [failure.path for failure in result.errors] == ["bad"]
        assert contents(target) == {"good": b"g"}

    def test_setuid_is_not_restored(self, folder: Folder, target: Path) -> None:
        folder.modes = {"tool": 0o6755, "d/": 0o3777}
        folder.commit({"tool": b"t", "d/": b""})
        run(folder, target)
        assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
        assert stat.S_IMODE((target / "d").stat().st_mode) == 0o777


def forged(folder: Folder, rows: list[object]) -> tuple[bytes, Subtree]:
    """A directory node with any items."""
    raw = canonical.encode([1, 1, 0, [bytes(16)], rows])  # type: ignore[list-item]
    return raw, Subtree(folder.repository.nodes.put(BlobType.DIRECTORY, raw), content_hash(raw), 1, 1)


class TestOneFile:
    def test_it_is_written_with_mode_and_time(self, folder: Folder, target: Path) -> None:
        folder.modes["d/x"] = 0o640
        data = noise(1_500_000)
        folder.commit({"d/x": data, "empty": b""})
        target.mkdir()
        (target / "mine").write_bytes(b"old")
        repository = open_repository(folder.bucket)
        repository.refresh()
        tree = repository.current().tree
        restore_file(repository, site(target), tree, "d/x", "mine")
        assert (target / "mine").read_bytes() == data
        found = (target / "mine").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 1_600_000_000_123_456_789)
        restore_file(repository, site(target), tree, "empty", "none")
        assert contents(target) == {"mine": data, "none": b""}

    def test_what_is_no_file(self, folder: Folder, target: Path) -> None:
        folder.commit({"d/x": b"1", "l": Link(b"d")})
        target.mkdir()
        (target / "dir").mkdir()
        repository, tree = folder.repository, folder.tree
        for remote, error in (("d", NotFoundError), ("", NotFoundError), ("none", NotFoundError), ("l", UsageError)):
            with pytest.raises(error):
                restore_file(repository, site(target), tree, remote, "out")
        with pytest.raises(LocalError):
            restore_file(repository, site(target), tree, "d/x", "dir")
        folder.bucket.objects = {k: v for k, v in folder.bucket.objects.items() if "/packs/" not in k}
        with pytest.raises(IntegrityError):
            restore_file(repository, site(target), tree, "d/x", "out")
        assert contents(target) == {"dir": None}


class TestDatabases:
    """Changes that SQLite keeps beside a database never meet another database."""

    OLD, NEW = (b"SQLite format 3\0" + letter * 600 for letter in (b"a", b"b"))
    WAL = b"\x37\x7f\x06\x82" + b"w" * 60

    @pytest.mark.parametrize("delete_extra", [False, True])
    def test_what_lies_beside_a_database_goes_with_it(self, folder: Folder, target: Path, delete_extra: bool) -> None:
        folder.commit({"app.db": self.NEW, "new.db": self.NEW, "notes": b"text"})
        target.mkdir()
        before = {
            "app.db": self.OLD,
            "app.db-wal": self.WAL,
            "app.db-shm": b"s",
            "new.db-wal": self.WAL,
            "notes": b"other text",
            "notes-wal": b"of the user's",
        }
        for name, data in before.items():
            (target / name).write_bytes(data)
        result = run(folder, target, overwrite=True, delete_extra=delete_extra)
        assert not result.errors
        expected: dict[str, bytes] = {"app.db": self.NEW, "new.db": self.NEW, "notes": b"text"}
        if delete_extra:
            assert result.deleted == 1
            assert trash(target) == before
        else:
            expected["notes-wal"] = before.pop("notes-wal")
            assert result.extra == ["notes-wal"]
            assert trash(target) == before
        assert contents(target) == expected
        assert result.trashed == len(before)

    def test_one_that_the_snapshot_does_not_hold_goes_whole(self, folder: Folder, target: Path) -> None:
        folder.commit({"f": b"x"})
        target.mkdir()
        before = {"app.db": self.OLD, "app.db-wal": self.WAL}
        for name, data in before.items():
            (target / name).write_bytes(data)
        result = run(folder, target, overwrite=True, delete_extra=True)
        assert not result.errors
        assert trash(target) == before
        assert result.trashed == 2

    def test_a_single_file_does_not_replace_one_in_use(self, folder: Folder, target: Path) -> None:
        folder.commit({"app.db": self.NEW})
        target.mkdir()
        (target / "app.db").write_bytes(self.OLD)
        (target / "app.db-wal").write_bytes(self.WAL)
        repository = open_repository(folder.bucket)
        repository.refresh()
        with pytest.raises(LocalError, match="is in use or was not closed"):
            restore_file(repository, site(target), repository.current().tree, "app.db", "app.db")
        assert (target / "app.db").read_bytes() == self.OLD
