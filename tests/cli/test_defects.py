"""Fifteen defects of an earlier implementation of the same document, each shown to be absent by real syncs."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.errors import BucketError, BuckiaError, ConfigError, LocalError, UsageError
from buckia.local.disk import RealFileSystem
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.local import LocalSync
from tests.cli.conftest import Outcome
from tests.cli.support import (
    OLD_NS,
    Device,
    Forger,
    World,
    forged_file,
    leftovers,
    local_bucket,
    noise,
    provider,
    wait_a_tick,
)

Run = Callable[..., Outcome]

NEWER, OLDER = OLD_NS + 10**10, OLD_NS


def _both_changed(world: World, mtime_a: int = OLDER, mtime_b: int = NEWER) -> tuple[Device, Device]:
    """Two devices that agreed on a file and have both changed it since; `a` has published its version."""
    a, b = world.pair()
    a.write("note", "agreed")
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("note", "of a", mtime_ns=mtime_a)
    a.sync()
    b.write("note", "of b!", mtime_ns=mtime_b)
    return a, b


@pytest.mark.parametrize(
    ("policy", "mtime_a", "mtime_b", "winner"),
    [
        ("local_wins", NEWER, OLDER, b"of b!"),
        ("remote_wins", OLDER, NEWER, b"of a"),
        ("newest_wins", OLDER, NEWER, b"of b!"),
        ("newest_wins", NEWER, OLDER, b"of a"),
    ],
)
def test_defect_01_the_conflict_policy_decides_and_the_loser_is_kept(
    world: World, policy: str, mtime_a: int, mtime_b: int, winner: bytes
) -> None:
    a, b = _both_changed(world, mtime_a, mtime_b)
    result = b.sync(conflict_resolution=policy)
    assert (result.resolved, result.conflicts, result.failed) == (1, 0, 0)
    assert a.sync().conflicts == 0
    assert a.tree() == b.tree() == {"note": winner}
    assert a.versions("note") == {b"agreed", b"of a", b"of b!"}


def test_defect_01_ask_keeps_both_versions_in_sight(world: World) -> None:
    a, b = _both_changed(world)
    result = b.sync(conflict_resolution="ask")
    assert (result.conflicts, result.resolved) == (1, 0)
    a.sync()
    assert a.tree() == b.tree()
    assert sorted(a.tree().values()) == [b"of a", b"of b!"]
    ((conflict),) = result.conflict_list
    assert conflict.path == "note"
    assert set(conflict.copies) | {"note"} == set(b.tree())


@pytest.mark.parametrize("policy", ["local_wins", "remote_wins", "newest_wins", "ask"])
def test_defect_01_an_old_local_file_never_overwrites_a_remote_change(world: World, policy: str) -> None:
    a, b = world.pair()
    a.write("note", "old")
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("note", "new", mtime_ns=OLDER)
    a.sync()
    result = b.sync(conflict_resolution=policy)
    assert (result.downloaded, result.uploaded, result.resolved) == (1, 0, 0)
    assert b.read("note") == a.read("note") == b"new"


def test_defect_02_a_file_changed_remotely_is_downloaded(world: World) -> None:
    a, b = world.pair()
    a.fill({"same": "s", "deep/er/file": "first", "grows": noise(300_000)})
    a.sync()
    b.sync()
    wait_a_tick()
    a.fill({"deep/er/file": "second", "grows": noise(700_000)})
    assert a.sync().uploaded == 2
    assert b.sync().downloaded == 2
    assert b.tree() == a.tree()


def test_defect_03_a_file_new_from_another_device_is_no_orphan(world: World) -> None:
    a, b = world.pair()
    a.write("first", "1")
    a.sync(delete_orphaned=True)
    b.sync(delete_orphaned=True)
    b.write("second", "2")
    b.sync(delete_orphaned=True)
    result = a.sync(delete_orphaned=True)
    assert (result.downloaded, result.deleted) == (1, 0)
    assert a.tree() == b.tree() == a.in_bucket() == {"first": b"1", "second": b"2"}


def test_defect_04_a_local_deletion_is_not_undone_by_the_next_sync(world: World) -> None:
    a, b = world.pair()
    a.fill({"keep": "k", "drop": "d"})
    a.sync()
    b.sync()
    (a.root / "drop").unlink()
    result = a.sync()
    assert (result.downloaded, result.deleted, result.hidden) == (0, 0, 1)
    for _ in range(2):
        result = a.sync()
        assert (result.downloaded, result.uploaded) == (0, 0)
    assert a.tree() == {"keep": b"k"}
    b.sync()
    assert set(b.tree()) == {"keep", "drop"}
    assert a.sync(delete_orphaned=True).deleted == 1
    b.sync()
    assert b.tree() == {"keep": b"k"}
    assert b.trash() == {"drop": b"d"}


def test_defect_05_patterns_are_heeded_both_ways(world: World) -> None:
    a, b = world.pair()
    patterns = {"include_pattern": r"\.(jpg|png)$", "exclude_pattern": r"^private/"}
    a.fill({"one.jpg": "1", "two.txt": "2", "private/three.jpg": "3", "sub/four.png": "4"})
    a.sync(**patterns)
    assert set(a.in_bucket()) == {"one.jpg", "sub/four.png"}
    b.fill({"five.txt": "5", "six.png": "6"})
    b.sync()
    (a.root / "two.txt").unlink()
    a.sync(delete_orphaned=True, **patterns)
    assert set(a.tree()) == {"one.jpg", "private/three.jpg", "sub/four.png", "six.png"}
    assert set(b.in_bucket()) == {"one.jpg", "sub/four.png", "five.txt", "six.png"}


class _Meeting(LocalSync):
    """Holds the reading of file contents until as many as wanted are in flight at once."""

    def __init__(self, root: Path, wanted: int) -> None:
        super().__init__(root, durable=False)
        self.most = self.flying = 0
        self._wanted = wanted
        self._met = threading.Event()
        self._guard = threading.Lock()

    @contextmanager
    def _meet(self) -> Iterator[None]:
        with self._guard:
            self.flying += 1
            self.most = max(self.most, self.flying)
            if self.flying >= self._wanted:
                self._met.set()
        assert self._met.wait(3), f"only {self.most} at once"
        yield
        with self._guard:
            self.flying -= 1

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        if not offset:  # small objects and tree nodes, which are looked up one after the other
            return super()._get(key, offset, length)
        with self._meet():
            return super()._get(key, offset, length)


@pytest.mark.parametrize("size", [40_000, 400_000])
def test_defect_06_workers_transfer_at_the_same_time_and_no_more_than_asked_for(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "bucket"
    local_bucket(directory)
    world = World(tmp_path)
    a = world.device("a")
    for number in range(4):
        a.write(f"clip{number}", noise(size, number))
        a.sync()
    meeting = _Meeting(directory, 3)
    with provider("meeting", lambda config: meeting):
        config = BucketConfig(provider="meeting", bucket_name="x", folders=["folder"], max_workers=3)
        (tmp_path / "b").mkdir()
        with BuckiaClient(config, state_dir=tmp_path / "state") as client:
            client.sync(tmp_path / "b", folder="folder")
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == a.tree()
    assert meeting.most == 3


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha1", "blake3"])
def test_defect_07_nothing_is_sent_again_whatever_the_digest(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_bytes(b"content")
    config = BucketConfig(provider="local", bucket_name=str(tmp_path / "bucket"), checksum_algorithm=algorithm)
    with BuckiaClient(config, state_dir=tmp_path / "state") as client:
        assert client.sync(tmp_path / "data", folder="f").uploaded == 1
        wait_a_tick()
        for _ in range(2):
            again = client.sync(tmp_path / "data", folder="f")
            assert (again.uploaded, again.requests.put, again.bytes_uploaded) == (0, 0, 0)
        os.utime(tmp_path / "data/file")
        touched = client.sync(tmp_path / "data", folder="f")
        assert (touched.uploaded, touched.requests.put) == (0, 0)
    with BuckiaClient.for_location(str(tmp_path / "bucket/f"), state_dir=tmp_path / "state") as client:
        (info,) = client.list_files()
    if algorithm != "blake3":
        assert info.digest == f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"


def test_defect_08_paths_match_by_component(world: World) -> None:
    a, b = world.pair()
    a.fill({"images/1": "1", "images-old/2": "2", "images.txt": "3"})
    a.sync()
    b.sync()
    for path in ("images/1", "images-old/2", "images.txt"):
        (a.root / path).unlink()
    a.write("images-new", "not asked for")
    result = a.sync(sync_paths=["images/"], delete_orphaned=True)
    assert (result.deleted, result.uploaded) == (1, 0)
    assert set(b.in_bucket()) == {"images-old/2", "images.txt"}
    b.sync()
    assert set(b.tree()) == {"images-old/2", "images.txt"}


def test_defect_09_relative_and_absolute_roots_are_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    a.write("sub/file", "1")
    monkeypatch.chdir(a.root.parent)
    link = a.root.parent / "link"
    link.symlink_to("a")
    with a.client() as client:
        assert client.sync("a").uploaded == 1
        wait_a_tick()
        for path in (a.root, "./a", "a/../a/", Path("a"), link, "link"):
            result = client.sync(path)
            assert (result.uploaded, result.downloaded, result.requests.total) == (0, 0, 1), path


@pytest.mark.parametrize("name", [b"../evil", b"..", b"/evil", b"a/../../evil", b"evil\0", b".", b"\xff\xfe", b""])
def test_defect_10_no_name_leads_out_of_the_root(world: World, name: bytes) -> None:
    a, b = world.pair()
    a.write("good", "1")
    a.sync()
    b.sync()
    forger = Forger(world.repository)
    forger.publish([forged_file(name, forger.chunk(b"evil"), 4)], size=4)
    around = sorted(path for path in world.base.rglob("*") if "state" not in path.parts)
    for device in (b, world.device("c")):
        before = device.tree()
        with pytest.raises(BuckiaError) as caught:
            device.sync()
        assert caught.value.exit_code == 7
        assert device.tree() == before
    assert all(path.exists() for path in around)
    assert not list(world.base.rglob("*evil*"))


@pytest.mark.parametrize(
    "name", [".buckia", ".buckia.yaml", ".buckia.toml", ".buckia-staging", ".buckia.json", "sub/.buckia"]
)
def test_defect_11_configurations_and_their_keys_stay_here(world: World, name: str) -> None:
    a = world.device("a")
    a.write("file", "1")
    a.write(name, "x: {provider: s3, bucket_name: b, secret_access_key: TOPSECRET}")
    result = a.sync()
    assert (result.uploaded, result.skipped) == (1, 1)
    assert set(a.in_bucket()) == {"file"}
    assert not [key for key, data in world.bytes().items() if b"TOPSECRET" in data]


def test_defect_12_downloads_are_whole_checked_and_keep_their_time(world: World) -> None:
    a, b = world.pair()
    a.write("clip", "what was there before")
    a.sync()
    b.sync()
    wait_a_tick()
    old = set(world.of_kind("packs"))
    a.write("clip", noise(900_000), mtime_ns=OLD_NS)
    (a.root / "clip").chmod(0o750)
    a.write("small", "good")
    a.sync()
    (pack,) = set(world.of_kind("packs")) - old
    data = pack.read_bytes()
    pack.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    result = b.sync()
    assert [failure.path for failure in result.errors] == ["clip"]
    assert b.tree() == {"clip": b"what was there before", "small": b"good"}
    assert leftovers(b.root) == []
    pack.write_bytes(data)
    assert b.sync().success
    found = (b.root / "clip").stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (OLD_NS, 0o750)
    assert b.tree() == a.tree()


def test_defect_12_transient_failures_are_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = FaultySync(local_bucket(world.bucket), [Fault("put", nth=2, times=2), Fault("list", nth=2)])
    monkeypatch.setattr("buckia.client.runtime.jitter", lambda: 0.0)
    (world.base / "a").mkdir()
    (world.base / "a/file").write_bytes(b"1")
    with provider("faulty", lambda config: bucket), bucket:
        config = BucketConfig(provider="faulty", bucket_name="x")
        with BuckiaClient(config, state_dir=world.base / "state") as client:
            result = client.sync(world.base / "a", folder="folder")
        assert (result.uploaded, result.failed, result.traffic.retries) == (1, 0, 3)
    assert world.device("b").in_bucket() == {"file": b"1"}


def test_defect_13_what_happened_offline_is_part_of_the_next_plan(world: World) -> None:
    a, b = world.pair()
    a.fill({"stays": "s", "changes": "1", "goes": "g"})
    a.sync()
    b.sync()
    b.fill({"changes": "2", "comes": "c"})
    (b.root / "goes").unlink()
    a.write("other", "o")
    a.sync()
    with b.client() as client:
        plan = {(action.kind, action.path) for action in client.plan(b.root, delete_orphaned=True)}
    assert plan == {("upload", "changes"), ("upload", "comes"), ("delete_remote", "goes"), ("download", "other")}
    b.sync(delete_orphaned=True)
    assert b.in_bucket() == b.tree() == {"stays": b"s", "changes": b"2", "comes": b"c", "other": b"o"}


@pytest.mark.parametrize("nth", [1, 2])
def test_defect_14_a_failed_listing_is_an_error_and_no_empty_bucket(world: World, nth: int) -> None:
    a = world.device("a")
    a.fill({"one": "1", "two": "2"})
    a.sync()
    before = world.bytes()
    a.write("three", "3")
    failing = FaultySync(local_bucket(world.bucket), [Fault("list", "error", nth, error=BucketError("No list today."))])
    with provider("failing", lambda config: failing):
        config = BucketConfig(provider="failing", bucket_name=str(world.bucket))
        with (
            BuckiaClient(config, state_dir=world.base / "other") as client,
            pytest.raises(BucketError, match="No list"),
        ):
            client.sync(a.root, folder="folder")
    uploaded = {key for key in world.bytes().keys() - before.keys() if key.startswith("packs/")}
    if nth == 1:
        assert world.bytes() == before
    assert len(uploaded) <= 1
    assert set(a.tree()) == {"one", "two", "three"}
    assert a.sync().failed == 0
    assert set(world.device("b").in_bucket()) == {"one", "two", "three"}


def test_defect_14_a_listing_that_omits_something_hides_nothing(world: World) -> None:
    a = world.device("a")
    a.fill({"one": "1"})
    a.sync()
    wait_a_tick()
    tip = next(iter(world.of_kind("tips")))
    data = tip.read_bytes()
    tip.unlink()
    result = a.sync()
    assert (result.uploaded, result.downloaded, result.deleted, result.failed) == (0, 0, 0, 0)
    tip.write_bytes(data)
    assert a.sync().requests.total == 1


def test_defect_15_an_unknown_digest_is_refused(buckia: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checksum_algorithm"):
        BucketConfig(provider="local", bucket_name="b", checksum_algorithm="sha257")
    (tmp_path / ".buckia").write_text("x:\n  provider: local\n  bucket_name: b\n  checksum_algorithm: crc32\n")
    outcome = buckia("sync")
    assert outcome.code == 2
    assert ".buckia:4: 'x.checksum_algorithm' must be one of sha256, md5, sha1, blake3" in outcome.err
    with BuckiaClient(BucketConfig(provider="local", bucket_name="b")) as client, pytest.raises(UsageError):
        client.sync(tmp_path, checksum_algorithm="crc32")


def test_defect_15_a_file_that_cannot_be_read_fails_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    a.fill({"good": "1", "bad": "2"})
    original = RealFileSystem.open_read

    def open_read(self: RealFileSystem, path: str) -> object:
        if path.endswith("/bad"):
            raise LocalError(f"Cannot open {path}: permission denied.")
        return original(self, path)

    monkeypatch.setattr(RealFileSystem, "open_read", open_read)
    result = a.sync()
    assert (result.uploaded, result.failed, result.success) == (1, 1, False)
    (failure,) = result.errors
    assert (failure.path, "permission denied" in failure.reason) == ("bad", True)
    assert set(a.in_bucket()) == {"good"}
    monkeypatch.undo()
    assert a.sync().uploaded == 1
    assert set(a.in_bucket()) == {"good", "bad"}
