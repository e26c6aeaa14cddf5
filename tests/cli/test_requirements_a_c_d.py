"""Requirements of the areas A (purpose), C (folders on a server) and D (core of the sync), by real syncs."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.errors import CancelledError
from tests.cli.conftest import Outcome
from tests.cli.support import OLD_NS, Device, World, noise, tree_of, wait_a_tick

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state-of-commands"))


def test_a1_content_decides_and_not_times(world: World) -> None:
    a, b = world.pair()
    for device in (a, b):
        device.fill({"clip": noise(3_000_000), "note": "1"})
    root = a.sync().root
    for number, path in enumerate(b.root.iterdir()):
        os.utime(path, ns=(OLD_NS + number, OLD_NS + number))
    result = b.sync()
    assert (result.root, result.uploaded, result.downloaded) == (root, 0, 0)
    assert result.bytes_downloaded < 10_000
    with b.client() as client:
        assert client.status(b.root).in_sync


def test_a1_a_change_that_keeps_size_and_time_is_seen_and_moves_its_chunk_only(world: World) -> None:
    a = world.device("a")
    clip = noise(8_000_000)
    a.write("clip", clip, mtime_ns=OLD_NS)
    a.sync()
    wait_a_tick()
    a.write("clip", clip[:4_000_000] + b"!" + clip[4_000_001:], mtime_ns=OLD_NS)
    result = a.sync()
    assert result.uploaded == 1
    assert result.bytes_uploaded < 1_300_000


def test_a2_folders_of_one_bucket_are_independent(buckia: Run, world: World) -> None:
    for folder in ("A", "B"):
        (world.base / folder).mkdir()
        (world.base / folder / "file").write_text("the same in both")
        assert buckia("sync", folder, "--to", str(world.bucket / folder)).code == 0
    keys = [path.relative_to(world.bucket).parts[0] for path in world.bucket.rglob("*") if path.is_file()]
    assert set(keys) == {"A", "B"}
    shutil.rmtree(world.bucket / "A")
    assert buckia("verify", "--read-data", "--from", str(world.bucket / "B")).code == 0


@pytest.mark.slow
def test_a3_an_interrupted_upload_is_not_sent_again(world: World) -> None:
    a = world.device("a")
    a.fill({f"clip{number}": noise(20 << 20, number) for number in range(3)})
    before = set(threading.enumerate())
    with a.client() as client:

        def stop(current: int, total: int, action: str, path: str) -> None:
            if current:  # a pack has arrived
                client.cancel()

        with pytest.raises(BaseException, match="Stopped"):
            client.sync(a.root, progress_callback=stop)
    for thread in set(threading.enumerate()) - before:  # what is in flight is not waited for, but arrives all the same
        thread.join(20)
    arrived = sum(path.stat().st_size for path in world.of_kind("packs"))
    assert arrived > 0
    result = a.sync()
    assert result.success
    assert result.bytes_uploaded < (60 << 20) - arrived + (1 << 20)
    assert world.device("b").in_bucket() == a.tree()


@pytest.mark.parametrize("act", ["sync", "restore"])
def test_a3_an_interrupted_download_keeps_the_files_that_came(
    world: World, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """They are in their places, and the next run does not fetch them again."""
    monkeypatch.setattr("buckia.engine.fetch.PLACE_BYTES", 1 << 20)
    a, b = world.pair()
    size = 2 << 20
    a.fill({f"clip{number}": noise(size, number) for number in range(6)})
    a.sync()

    def fetch(client: BuckiaClient, stop: Callable[..., None] | None = None) -> int:
        if act == "sync":
            return client.sync(b.root, progress_callback=stop).bytes_downloaded
        result = client.restore("latest", target=b.root, overwrite=True, progress_callback=stop)
        return result.traffic.bytes_downloaded

    with b.client() as client:

        def stop(current: int, total: int, action: str, path: str) -> None:
            if current >= total // 2:
                client.cancel()

        with pytest.raises(CancelledError):
            fetch(client, stop)
    kept = len(b.tree())
    assert 0 < kept < 6
    with b.client() as client:
        assert fetch(client) < (6 - kept) * size + (1 << 20)
    assert b.tree() == a.tree()


def test_a4_bucket_and_id_are_enough_to_clone(world: World) -> None:
    a, b = world.pair()
    a.fill({"x/y/z": "1", "clip": noise(500_000)})
    assert b.sync().root != a.sync().root
    assert b.sync().root == a.sync().root
    assert b.tree() == a.tree()


# ---- C

SERVER = """
demo: {provider: local, bucket_name: bucket, folders: [demo-team], paths: assets/demo/}
backup: {provider: local, bucket_name: bucket, folders: [user-1, user-2], paths: assets/backup/}
"""


@pytest.fixture
def server(tmp_path: Path) -> Path:
    (tmp_path / ".buckia").write_text(SERVER)
    for directory in ("assets/demo/demo-team/images", "assets/backup"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "assets/demo/demo-team/images/one.png").write_text("1")
    (tmp_path / "assets/demo/demo-team/App.sqlite").write_text("no database yet")
    return tmp_path


def test_c2_a_folder_lies_below_its_path_under_its_id(buckia: Run, server: Path) -> None:
    assert buckia("sync", "--bucket", "demo").code == 0
    listed = buckia("ls", "-r", "--bucket", "demo", "--json").json
    assert {item["path"] for item in listed} == {"images", "images/one.png", "App.sqlite"}
    app = Device(server / "app", str(server / "bucket/demo-team"), server / "app-state")
    app.sync()
    assert app.tree() == tree_of(server / "assets/demo/demo-team")
    app.write("images/two.png", "2")
    app.sync()
    assert buckia("sync", "--bucket", "demo", "--json").json["downloaded"] == 1
    assert app.tree() == tree_of(server / "assets/demo/demo-team")


def test_c4_many_users_lie_side_by_side(buckia: Run, server: Path) -> None:
    for user in ("user-1", "user-2"):
        phone = Device(server / "phones" / user, str(server / "bucket" / user), server / "phone-state" / user)
        phone.write("photo", f"of {user}")
        phone.sync()
    result = buckia("sync", "--bucket", "backup", "--json").json
    assert (result["downloaded"], result["failed"]) == (2, 0)
    assert tree_of(server / "assets/backup") == {"user-1/photo": b"of user-1", "user-2/photo": b"of user-2"}


def test_c5_a_user_is_restored_on_the_server_as_he_was(buckia: Run, server: Path) -> None:
    phone = Device(server / "phone", str(server / "bucket/user-1"), server / "phone-state")
    phone.fill({"photo": "first", "gone": "later"})
    phone.sync()
    before = phone.tree()
    wait_a_tick()
    phone.write("photo", "second")
    (phone.root / "gone").unlink()
    phone.sync(delete_orphaned=True)
    line = "restore --bucket backup --folder user-1 --snapshot latest~1 --target then"
    assert buckia(*line.split()).code == 0
    assert tree_of(server / "then") == before


# ---- D


def test_d1_flag_key_and_argument_are_one_option(buckia: Run, tmp_path: Path) -> None:
    data = tmp_path / "f"
    data.mkdir()
    for name in ("a.jpg", "b.jpg", "c.txt", "private.jpg"):
        (data / name).write_text(name)
    entry: dict[str, Any] = {"provider": "local", "bucket_name": "bucket", "folders": ["f"]}
    chosen = {"include_pattern": r"\.jpg$", "exclude_pattern": "^private", "delete_orphaned": True, "max_workers": 3}
    (tmp_path / "bucket").mkdir()
    (tmp_path / ".buckia").write_text(json.dumps({"x": entry | chosen}))
    (tmp_path / "plain").write_text(json.dumps({"x": entry}))
    flags = ["--include", r"\.jpg$", "--exclude", "^private", "--delete-orphaned", "--max-workers", "3"]
    with BuckiaClient(BucketConfig(**entry)) as client:
        client.sync()
    for name in ("a.jpg", "c.txt"):
        (data / name).unlink()
    (data / "new.jpg").write_text("new")
    by_flag = buckia("sync", "--dry-run", "--json", "--config", "plain", *flags).json
    by_key = buckia("sync", "--dry-run", "--json").json
    with BuckiaClient(BucketConfig(**entry)) as client:
        by_argument = client.plan(**chosen)
    assert by_flag["actions"] == by_key["actions"] == by_argument.to_dict()["actions"]
    assert [(action["kind"], action["path"]) for action in by_key["actions"]] == [
        ("delete_remote", "a.jpg"),
        ("upload", "new.jpg"),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_d2_two_devices_converge_and_lose_nothing(world: World, seed: int) -> None:
    """Whatever they do between syncs: in the end both show the same, and every content written is in the history."""
    chance = random.Random(seed)
    devices = world.pair()
    published: set[bytes] = set()
    paths = ["note", "dir/one", "dir/two", "deep/er/file"]
    for step in range(14):
        device = chance.choice(devices)
        path = chance.choice(paths)
        if chance.random() < 0.25 and (device.root / path).exists():
            (device.root / path).unlink()
        else:
            device.write(path, f"{device.name} {step}".encode() * chance.choice([1, 3000]))
        if chance.random() < 0.5:
            published |= set(device.tree().values())
            assert device.sync(delete_orphaned=True, conflict_resolution="ask").success
    for device in (*devices, *devices):
        published |= set(device.tree().values())
        assert device.sync(delete_orphaned=True, conflict_resolution="ask").success
    a, b = devices
    assert a.tree() == b.tree()
    assert a.sync().root == b.sync().root
    stored: set[bytes] = set()
    with a.client() as client:
        for number, snapshot in enumerate(client.snapshots()):
            client.restore(snapshot.id, target=world.base / "all" / str(number))
            stored |= set(tree_of(world.base / "all" / str(number)).values())
        assert client.verify(read_data=True).clean
    assert published <= stored


def test_d5_new_file_of_another_device_is_no_orphan(world: World) -> None:
    a, b = world.pair()
    a.write("mine", "1")
    a.sync()
    b.sync()
    b.write("new/of b", "2")
    b.sync()
    assert a.sync(delete_orphaned=True).deleted == 0
    assert a.tree() == b.tree() == a.in_bucket()


def test_d6_what_was_deleted_comes_back(world: World) -> None:
    a = world.device("a")
    a.fill({"keep": "k", "dear": "precious"})
    a.sync()
    (a.root / "dear").unlink()
    a.sync(delete_orphaned=True)
    assert set(a.in_bucket()) == {"keep"}
    with a.client() as client:
        client.restore("latest~1", paths=["dear"], target=world.base / "back")
    assert tree_of(world.base / "back") == {"dear": b"precious"}
