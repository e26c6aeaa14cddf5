"""Requirements of the areas L (Python API) and N (architecture, plug-ins), by real syncs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import buckia
from buckia import BucketConfig, BuckiaClient
from buckia.errors import BucketNotFound, BuckiaError, NotFoundError, UsageError
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo
from buckia.sync.memory import MemorySync
from tests.cli.support import CHECKOUT, OLD_NS, World, noise, provider, tree_of, wait_a_tick


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example directory of the founding document, in the current directory."""
    files = {
        "images/one.jpg": "1",
        "images-old/two.jpg": "2",
        "documents/important.pdf": "3",
        "documents/other.pdf": "4",
        "note.txt": "5",
        ".hidden": "6",
    }
    for name, content in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "project"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[BuckiaClient]:
    with BuckiaClient(BucketConfig(provider="local", bucket_name=str(tmp_path / "bucket"))) as client:
        yield client


def test_l1_the_names_at_the_top() -> None:
    for name in ("BuckiaClient", "BucketConfig", "BuckiaConfig", "SyncResult", "Conflict"):
        assert hasattr(buckia, name), name
    assert set(buckia.__all__) <= set(dir(buckia))


def test_l2_l3_a_client_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    """No credentials, no network, no bucket, no state: only what uses them asks for them."""
    config = BucketConfig(provider="s3", bucket_name="nobody-has-this", endpoint="http://127.0.0.1:1")
    script = """
import sys, buckia
client = buckia.BuckiaClient(buckia.BucketConfig(provider="s3", bucket_name="b", endpoint="http://127.0.0.1:1"))
sys.exit("boto3" in sys.modules or "botocore" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=CHECKOUT)
    with BuckiaClient(config), BuckiaClient({"provider": "local", "bucket_name": "b"}):
        assert not (tmp_path / "state").exists()
    (tmp_path / "config").write_text("a: {provider: local, bucket_name: x}\nb: {provider: local, bucket_name: y}\n")
    assert BuckiaClient(tmp_path / "config", bucket_name="b").config.bucket_name == "y"
    assert BuckiaClient(str(tmp_path / "config"), bucket_name="a").config.bucket_name == "x"


def test_l4_the_least_call(client: BuckiaClient, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    result = client.sync(local_path="./project", delete_orphaned=True)
    assert (result.uploaded, result.success) == (6, True)


@pytest.mark.parametrize("path", ["missing", "note.txt"])
def test_l6_a_root_that_is_no_directory(client: BuckiaClient, project: Path, path: str) -> None:
    with pytest.raises(BuckiaError, match="directory") as caught:
        client.sync(project / path)
    assert caught.value.exit_code in (2, 10)


def test_l5_to_l12_the_long_call_of_the_founding_document(client: BuckiaClient, project: Path) -> None:
    result = client.sync(
        local_path=project,
        max_workers=8,
        delete_orphaned=True,
        include_pattern=r".*\.(jpg|png|gif)$",
        exclude_pattern=r"^\..*",  # Exclude hidden files
        dry_run=False,
        sync_paths=["images/", "documents/important.pdf"],
    )
    assert result.uploaded == 1
    assert [info.path for info in client.list_files()] == ["images/one.jpg"]


def test_l12_parts_of_a_tree(client: BuckiaClient, project: Path) -> None:
    result = client.sync(project, sync_paths=["images/", "documents/important.pdf"])
    print(f"Uploaded: {result.uploaded}, Downloaded: {result.downloaded}")
    assert [info.path for info in client.list_files()] == ["documents/important.pdf", "images/one.jpg"]
    client.sync(project)
    for path in ("images-old/two.jpg", "documents/other.pdf", "images/one.jpg"):
        (project / path).unlink()
    result = client.sync(project, sync_paths=["images", "documents/important.pdf"], delete_orphaned=True)
    assert result.deleted == 1
    assert {info.path for info in client.list_files()} == {
        *("documents/important.pdf", "documents/other.pdf", "images-old/two.jpg", "note.txt", ".hidden")
    }


def test_l13_l14_the_callback_of_the_founding_document(
    client: BuckiaClient, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report_progress(current, total, action, path):  # type: ignore[no-untyped-def]  # verbatim
        percent = int(current * 100 / total) if total > 0 else 0
        print(f"{action.capitalize()}: {path} - {percent}% complete")

    client.sync(local_path=project, progress_callback=report_progress)
    lines = capsys.readouterr().out.splitlines()
    assert "Uploading: note.txt - " in "\n".join(lines)
    assert lines[-1].endswith("100% complete")
    (tmp_path / "empty").mkdir()
    with BuckiaClient(BucketConfig(provider="local", bucket_name=str(tmp_path / "other"))) as other:
        other.sync(local_path=tmp_path / "empty", progress_callback=report_progress)
    assert "Traceback" not in capsys.readouterr().out


def test_l13_an_exception_of_the_callback_ends_the_sync_cleanly(world: World) -> None:
    a, b = world.pair()
    a.fill({f"clip{number}": noise(300_000, number) for number in range(8)})

    def fail(current: int, total: int, action: str, path: str) -> None:
        raise ZeroDivisionError(path)

    for device in (a, b):
        with pytest.raises(ZeroDivisionError):
            device.sync(progress_callback=fail)
        assert device.sync().success
    assert b.tree() == a.tree()


def test_l15_callbacks_come_one_at_a_time(world: World) -> None:
    a, b = world.pair()
    a.fill({f"clip{number}": noise(100_000, number) for number in range(30)})
    inside = threading.Lock()
    threads: set[str] = set()

    def report(current: int, total: int, action: str, path: str) -> None:
        threads.add(threading.current_thread().name)
        assert inside.acquire(blocking=False), "two at once"
        os.sched_yield()
        inside.release()

    a.sync(progress_callback=report, max_workers=8)
    b.sync(progress_callback=report, max_workers=8)
    assert threads


def test_l18_to_l20_results_tell_all(client: BuckiaClient, project: Path) -> None:
    first = client.sync(project)
    assert all(type(getattr(first, name)) is int for name in ("uploaded", "downloaded", "deleted", "failed"))
    assert (first.root_before, first.root) != (first.root, first.root)
    assert first.bytes_uploaded > 0
    again = client.sync(project)
    assert (again.root_before, again.unchanged, again.errors) == (first.root, 6, [])


def test_l21_upload_file(world: World) -> None:
    a = world.device("a")
    a.fill({"note": "1", "clip": noise(500_000)})
    a.sync()
    outside = world.base / "outside"
    outside.write_text("by itself")
    os.utime(outside, ns=(OLD_NS, OLD_NS))
    with a.client() as client:
        before = {info.path for info in client.list_files()}
        client.upload_file(outside, "deep/er/single")
        assert {info.path for info in client.list_files()} == before | {"deep/er/single"}
        assert b"".join(client.cat("deep/er/single")) == b"by itself"
        for wrong in ("../x", "a/../b", "", "/", ".buckia", "a/.buckia-x", "_buckia/x"):
            with pytest.raises(BuckiaError):
                client.upload_file(outside, wrong)
        with pytest.raises(BuckiaError):
            client.upload_file(world.base / "none", "x")
        assert {info.path for info in client.list_files()} == before | {"deep/er/single"}
    assert a.sync().downloaded == 1
    assert (a.root / "deep/er/single").stat().st_mtime_ns == OLD_NS


def test_l21_upload_file_below_a_file_is_refused(world: World) -> None:
    a = world.device("a")
    a.write("clip", "1")
    a.sync()
    with a.client() as client, pytest.raises(UsageError):
        client.upload_file(a.root / "clip", "clip/below")


def test_l21_paths_are_found_in_either_normal_form(world: World) -> None:
    a = world.device("a")
    a.write("Am\u00e9lie", "1")
    a.sync()
    with a.client() as client:
        assert b"".join(client.cat("Ame\u0301lie")) == b"1"


def test_l22_download_file(world: World) -> None:
    a = world.device("a")
    a.write("clip", noise(500_000), mtime_ns=OLD_NS).chmod(0o640)
    a.sync()
    target = world.base / "copy"
    with a.client() as client:
        client.download_file("clip", target)
        assert (target.read_bytes(), target.stat().st_mtime_ns) == (a.read("clip"), OLD_NS)
        assert target.stat().st_mode & 0o777 == 0o640
        with pytest.raises(NotFoundError):
            client.download_file("none", world.base / "none")
        for pack in world.of_kind("packs"):
            data = pack.read_bytes()
            pack.write_bytes(data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])
        target.write_text("before")
        with pytest.raises(BuckiaError):
            client.download_file("clip", target)
        with pytest.raises(BuckiaError):
            client.download_file("clip", world.base / "broken")
    assert target.read_text() == "before"
    assert not (world.base / "broken").exists()
    assert not list(world.base.glob(".buckia-tmp*"))


def test_l23_the_rest(world: World) -> None:
    a = world.device("a")
    a.fill({"note": "1", "dir/other": "2"})
    a.sync()
    with a.client() as client:
        assert client.test_connection() is True
        with (
            BuckiaClient(BucketConfig(provider="local", bucket_name=str(world.base / "none"))) as other,
            pytest.raises(BucketNotFound),
        ):
            other.test_connection()
        client.delete_file("dir/other")
        assert [info.path for info in client.list_files()] == ["note"]
        with pytest.raises(NotFoundError):
            client.delete_file("dir/other")
        with pytest.raises(UsageError, match="has no URL"):
            client.get_public_url("note")
    assert a.sync().deleted == 1
    assert a.trash() == {"dir/other": b"2"}


# ---- N


@pytest.mark.parametrize(
    "module", ["client", "config", "cli", "sync.base", "sync.factory", "sync.local", "sync.s3", "sync.memory"]
)
def test_n17_the_modules_of_the_founding_document(module: str) -> None:
    assert import_module(f"buckia.{module}")


def test_n7_a_third_party_adapter_needs_no_change_here(world: World) -> None:
    class Demo(MemorySync):
        """Everything that a provider needs."""

    demo = Demo("demo")
    (world.base / "data").mkdir()
    (world.base / "data/file").write_text("1")
    config = BucketConfig(provider="demo", bucket_name="x", folders=["f"])
    with provider("demo", lambda config: demo), BuckiaClient(config) as client:
        assert client.sync(world.base / "data", folder="f").uploaded == 1
    assert all(key.startswith("f/_buckia/") for key in demo.objects)


def test_n8_a_subclass_without_a_method_is_told_which() -> None:
    class Incomplete(BaseSync):
        def __init__(self) -> None:
            super().__init__("nowhere", Capabilities())

        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            raise NotImplementedError

    with pytest.raises(TypeError, match="_get"):
        Incomplete()  # type: ignore[abstract]


def test_n9_an_unknown_provider_is_met_with_the_known_ones(tmp_path: Path) -> None:
    with (
        BuckiaClient(BucketConfig(provider="s4", bucket_name="x")) as client,
        pytest.raises(UsageError, match="s4") as caught,
    ):
        client.test_connection()
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in ("local", "memory", "s3"))


def test_n10_the_methods_of_an_adapter_are_fixed() -> None:
    public = {"connect", "test_connection", "list_remote_files", "upload_file", "download_file", "delete_file"}
    assert public | {"get_public_url"} <= set(dir(BaseSync))
    assert BaseSync.__abstractmethods__ == {"_put", "_get", "_stat", "_list", "_delete", "_close"}


def test_n12_the_provider_changes_nothing_but_the_configuration(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    a.fill({"note": "1", "deep/clip": noise(2_000_000), "empty": ""})
    roots = set()
    for config in (
        BucketConfig(provider="local", bucket_name=str(world.bucket), folders=["f"]),
        BucketConfig(provider="memory", bucket_name="switch", folders=["f"]),
    ):
        with BuckiaClient(config) as client:
            roots.add(client.sync(a.root, folder="f").root)
            client.restore(target=world.base / config.provider)
        assert tree_of(world.base / config.provider) == a.tree()
    assert len(roots) == 1


def test_n15_a_local_run_imports_no_provider(world: World) -> None:
    script = """
import sys
from buckia.cli import cli
from buckia.cli.errors import run
code = run(cli, sys.argv[1:])
sdk = {"boto3", "botocore", "requests", "b2sdk", "cryptography", "keyring", "numpy"} & set(sys.modules)
sys.exit(f"imported: {sdk}" if sdk else code)
"""
    a = world.device("a")
    a.write("file", "1")
    for arguments in (["sync", str(a.root), "--to", world.location], ["verify", "--from", world.location]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=CHECKOUT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_n3_mapped_folders_need_no_tick(world: World) -> None:
    """A change made right after a sync is never taken for what was there before, whatever the clock's resolution."""
    a = world.device("a")
    for number in range(8):
        a.write("same size", f"{number:04}", mtime_ns=OLD_NS)
        assert a.sync().uploaded == 1
    wait_a_tick()
    assert a.sync().uploaded == 0
    assert a.in_bucket() == {"same size": b"0007"}
