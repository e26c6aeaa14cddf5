"""Two devices and one folder on a real S3 server: everything arrives, and the server counts as we do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.cli import cli
from buckia.cli.errors import run
from buckia.errors import AuthenticationError, BucketError, BucketNotFound, RollbackError
from buckia.events import Requests
from tests.cli.support import Device, World, noise, process, tree_of, wait_a_tick
from tests.integration.conftest import Cloud

pytestmark = pytest.mark.slow


@contextmanager
def counted(cloud: Cloud) -> Iterator[Callable[[], int]]:
    """How many requests the server answered since the beginning of the block."""
    before = cloud.server.request_count()
    yield lambda: cloud.server.request_count() - before


def test_two_devices_share_a_folder(cloud: Cloud) -> None:
    phone, laptop = cloud.device("phone"), cloud.device("laptop")
    phone.fill({"photos/cat.jpg": noise(300_000), "clips/kitchen.mp4": noise(20_000_000, 1), "note": "of the phone"})
    (phone.root / "empty").mkdir()
    first = phone.sync()
    assert (first.uploaded, first.failed) == (3, 0)
    second = laptop.sync()
    assert (second.downloaded, second.root) == (3, first.root)
    assert laptop.tree() == phone.tree()
    assert (laptop.root / "empty").is_dir()
    wait_a_tick()
    laptop.write("note", "of the laptop")
    (laptop.root / "photos/cat.jpg").rename(laptop.root / "photos/tom.jpg")
    laptop.sync(delete_orphaned=True)
    clip = phone.read("clips/kitchen.mp4")
    phone.write("clips/kitchen.mp4", clip[:7_000_000] + noise(1000, 2) + clip[7_000_000:])
    sent = phone.sync()
    assert sent.bytes_uploaded < 1_200_000
    received = laptop.sync()
    assert received.bytes_downloaded < 1_200_000
    assert phone.tree() == laptop.tree() == phone.in_bucket()
    assert set(phone.trash()) == {"photos/cat.jpg"}
    assert all(key.startswith("team/_buckia/") for key in cloud.listed())
    with phone.client() as client:
        assert client.verify(read_data=True).clean
        assert {item.device for item in client.snapshots()} == {"phone", "laptop"}
        client.restore("latest~2", target=cloud.base / "then")
    assert tree_of(cloud.base / "then")["note"] == b"of the phone"


def test_the_server_counts_what_we_count(cloud: Cloud) -> None:
    a, b = cloud.device("a"), cloud.device("b")
    a.fill({f"d{number % 10}/f{number}": f"{number}" for number in range(1000)})
    reports: list[tuple[str, Requests, int]] = []

    def step(name: str, device: Device) -> Requests:
        wait_a_tick()
        with counted(cloud) as count:
            result = device.sync()
            reports.append((name, result.requests, count()))
        assert result.success
        return result.requests

    step("first", a)
    step("clone", b)
    unchanged = step("nothing", a)
    assert (unchanged.list, unchanged.total) == (1, 1)
    a.write("d5/f555", "changed")
    small = step("one file", a)
    assert small.put + small.delete <= 5
    assert small.get + small.list + small.stat <= 3
    step("one file arrives", b)
    assert [(name, ours.total) for name, ours, _ in reports] == [(name, server) for name, _, server in reports]
    assert b.tree() == a.tree()


def test_a_conflict_is_the_same_on_both_devices(cloud: Cloud) -> None:
    a, b = cloud.device("a"), cloud.device("b")
    a.write("note", "agreed")
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("note", "of a")
    b.write("note", "of b!")
    a.sync(conflict_resolution="ask")
    assert b.sync(conflict_resolution="ask").conflicts == 1
    a.sync(conflict_resolution="ask")
    assert a.tree() == b.tree()
    assert sorted(a.tree().values()) == [b"of a", b"of b!"]


def test_the_provider_changes_nothing_about_the_root(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Requirement N12: local and S3, only the configuration differs."""
    data = cloud.base / "team"
    for name, content in {"note": b"1", "deep/clip": noise(3_000_000), "empty": b""}.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    roots = []
    for entry in (
        {"provider": "local", "bucket_name": str(cloud.base / "bucket")},
        {
            "provider": "s3",
            "bucket_name": cloud.bucket.name,
            "endpoint": cloud.bucket.endpoint,
            "credentials": cloud.bucket.credentials,
        },
    ):
        with BuckiaClient(BucketConfig(folders=["team"], **entry)) as client:
            roots.append(client.sync(data, folder="team").root)
            assert client.test_connection()
            client.restore(target=cloud.base / entry["provider"])
        assert tree_of(cloud.base / entry["provider"]) == tree_of(data)
    assert roots[0] == roots[1]


def test_the_same_bytes_lie_in_both_kinds_of_bucket(cloud: Cloud) -> None:
    """A bucket may be copied by any tool that copies objects: its folder goes on there."""
    a = cloud.device("a")
    a.fill({"note": "1", "clip": noise(2_000_000)})
    root = a.sync().root
    world = World(cloud.base / "copied", folder="team")
    for key in cloud.listed():
        path = world.bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cloud.read(key))
    copied = world.device("c")
    assert copied.sync().root == root
    assert copied.tree() == a.tree()


def test_the_command_line_against_s3(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    (cloud.base / "data").mkdir()
    (cloud.base / "data/file").write_text("1")
    done = process("sync", "data", "--to", cloud.location, "--json", cwd=cloud.base)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["uploaded"] == 1
    for line in (
        ["status", "data", "--to", cloud.location],
        ["snapshots", "--from", cloud.location],
        ["cat", "file", "--from", cloud.location],
        ["verify", "--read-data", "--from", cloud.location],
        ["restore", "--from", cloud.location, "--target", "out"],
    ):
        assert run(cli, line) == 0, capsys.readouterr().err
    assert tree_of(cloud.base / "out") == {"file": b"1"}
    assert cloud.bucket.secret_access_key not in "".join(capsys.readouterr())


def test_an_emptied_bucket_is_a_rollback(cloud: Cloud) -> None:
    a = cloud.device("a")
    a.write("file", "1")
    a.sync()
    for key in cloud.listed():
        cloud.remove(key)
    with pytest.raises(RollbackError):
        a.sync()
    assert cloud.listed() == set()
    assert a.tree() == {"file": b"1"}
    shutil.rmtree(a.state)
    assert a.sync().uploaded == 1


def test_no_bucket_no_key_and_no_leave_to_write(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    a = cloud.device("a")
    a.write("file", "1")
    a.sync()
    keys = cloud.listed()
    missing = Device(a.root, a.location.replace(cloud.bucket.name, "nobody-has-this"), cloud.base / "state/x")
    with pytest.raises(BucketNotFound) as caught:
        missing.sync()
    assert caught.value.exit_code == 6
    reader_id, reader_secret = cloud.server.reader
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", reader_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", reader_secret)
    assert a.in_bucket() == {"file": b"1"}
    a.write("file", "22")
    with pytest.raises(BucketError) as denied:
        a.sync()
    assert denied.value.exit_code == 3
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    with pytest.raises((AuthenticationError, BucketError)) as wrong:
        a.sync()
    assert wrong.value.exit_code == 3
    assert "wrongwrong" not in f"{wrong.value} {wrong.value.hint}"
    assert cloud.listed() == keys
    monkeypatch.undo()


def test_a_server_that_does_not_answer(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buckia.client.runtime.jitter", lambda: 0.0)
    gone = Device(cloud.base / "a", "s3://bucket/team?endpoint=http://127.0.0.1:9", cloud.base / "state/a")
    gone.write("file", "1")
    with pytest.raises(BucketError) as caught:
        gone.sync()
    assert caught.value.exit_code == 4
    assert gone.tree() == {"file": b"1"}
