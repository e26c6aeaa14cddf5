"""Requirements of the areas F (local files) and K (dry run, progress, logging, filters), by real syncs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buckia.events import Traffic
from buckia.local.disk import RealFileSystem
from tests.cli.conftest import Outcome
from tests.cli.support import CHECKOUT, OLD_NS, Device, World, noise, wait_a_tick

Run = Callable[..., Outcome]


def _count_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    original = RealFileSystem.open_read

    def open_read(self: RealFileSystem, path: str) -> Any:
        opened.append(path)
        return original(self, path)

    monkeypatch.setattr(RealFileSystem, "open_read", open_read)
    return opened


def _fill(device: Device, directories: int, files: int) -> None:
    for directory in range(directories):
        (device.root / f"d{directory:03}").mkdir()
        for file in range(files):
            (device.root / f"d{directory:03}/f{file:03}").write_bytes(b"%d %d" % (directory, file))


def test_f2_second_scan_hashes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a = world.device("a")
    _fill(a, 20, 50)
    wait_a_tick()
    assert a.sync().uploaded == 1000
    opened = _count_opened(monkeypatch)
    result = a.sync()
    assert (opened, result.unchanged, result.requests.total) == ([], 1000, 1)
    a.write("d003/f004", "changed")
    a.sync()
    assert set(opened) == {f"{a.root}/d003/f004"}


def test_f2_what_lies_on_disk_is_not_fetched(world: World) -> None:
    a, b = world.pair()
    clip = noise(6_000_000)
    a.write("clip", clip)
    a.sync()
    b.sync()
    a.write("copies/again", clip)
    a.write("clip", clip[:3_000_000] + b"inserted" + clip[3_000_000:])
    a.sync()
    result = b.sync()
    assert result.downloaded == 2
    assert result.bytes_downloaded < 1_500_000
    assert b.tree() == a.tree()


def test_f3_one_name_in_two_normal_forms(world: World) -> None:
    a, b = world.pair()
    a.write("Ame\u0301lie", "decomposed")
    a.sync()
    b.sync()
    assert set(b.tree()) == {"Am\u00e9lie"}
    wait_a_tick()
    b.write("Am\u00e9lie", "changed on b")
    assert b.sync().uploaded == 1
    assert a.sync().downloaded == 1
    assert set(a.tree().values()) == {b"changed on b"}
    assert len(a.tree()) == 1


@pytest.mark.parametrize("name", ["a\\b", "CON", "trailing.", "trailing ", "q?", "new\nline", "\u202egpj.exe", " "])
def test_f3_odd_names_arrive_as_they_are(world: World, name: str) -> None:
    a, b = world.pair()
    a.write(f"dir/{name}", "content")
    a.sync()
    assert b.sync().failed == 0
    assert b.tree() == {f"dir/{name}": b"content"}


def test_f3_a_name_that_is_no_text_is_skipped_and_counted(world: World) -> None:
    a = world.device("a")
    a.write("good", "1")
    Path(os.fsdecode(os.fsencode(a.root) + b"/bad\xff")).write_text("2")
    result = a.sync()
    assert (result.uploaded, result.skipped, result.failed) == (1, 1, 0)


def test_f4_the_tree_arrives_exactly(world: World) -> None:
    a, b = world.pair()
    a.fill({"one/two/three/four": "deep", "with space/\u00fcn\u00ef": "text", "empty": "", ".hidden/.file": "h"})
    (a.root / "void/nested").mkdir(parents=True)
    (a.root / "void").chmod(0o750)
    a.write("script", "#!/bin/sh", mtime_ns=OLD_NS).chmod(0o755)
    a.write("locked", "l").chmod(0o400)
    (a.root / "link").symlink_to("one/two")
    (a.root / "dangling").symlink_to("nowhere")
    os.utime(a.root / "link", ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    a.sync()
    assert b.sync().failed == 0
    assert _shape(b.root) == _shape(a.root)
    assert b.tree() == a.tree()


def _shape(root: Path) -> dict[str, tuple[object, ...]]:
    shape: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        found = path.lstat()
        time = None if path.is_dir() and not path.is_symlink() else found.st_mtime_ns
        link = os.readlink(path) if path.is_symlink() else None
        mode = None if path.is_symlink() else found.st_mode
        shape[str(path.relative_to(root))] = (mode, time, link)
    return shape


# ---- K


def test_k1_a_dry_run_changes_nothing_and_tells_what_will_happen(buckia: Run, world: World) -> None:
    a, b = world.pair()
    a.fill({"stays": "s", "changes": "1", "goes": "g", "comes back": "c"})
    a.sync()
    b.sync()
    wait_a_tick()
    a.fill({"changes": "22", "new of a": "n"})
    (a.root / "goes").unlink()
    a.sync(delete_orphaned=True)
    b.write("new of b", "b")
    (b.root / "comes back").unlink()
    bucket, disk, shape = world.bytes(), b.tree(), _shape(b.root)
    with b.client() as client:
        plan = client.plan(b.root, delete_orphaned=True)
    traffic = b.sync(dry_run=True, delete_orphaned=True).requests
    assert (traffic.put, traffic.delete) == (0, 0)
    assert (world.bytes(), b.tree(), _shape(b.root)) == (bucket, disk, shape)
    assert {(action.kind, action.path) for action in plan} == {
        ("download", "changes"),
        ("download", "new of a"),
        ("delete_local", "goes"),
        ("upload", "new of b"),
        ("delete_remote", "comes back"),
    }
    result = b.sync(delete_orphaned=True)
    assert (result.uploaded, result.downloaded, result.deleted) == (1, 2, 2)


def test_k1_a_dry_run_of_a_new_folder_makes_nothing(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.write("file", "1")
    outcome = buckia("sync", str(a.root), "--to", world.location, "--dry-run")
    assert outcome.code in (0, 6)
    assert not world.bucket.exists()


def test_k2_progress_never_goes_back_and_ends_at_its_total(world: World) -> None:
    a, b = world.pair()
    a.fill({f"file{number}": noise(50_000, number) for number in range(10)} | {"clip": noise(5_000_000)})
    for device, action in ((a, "uploading"), (b, "downloading")):
        reports: list[tuple[int, int, str, str]] = []
        device.sync(progress_callback=lambda *report, reports=reports: reports.append(report))
        currents = [current for current, *_ in reports]
        assert currents == sorted(currents)
        assert {total for _, total, *_ in reports} == {5_500_000}
        assert currents[-1] == 5_500_000
        assert {path for _, _, what, path in reports if what == action} == set(a.tree())


def test_k3_the_library_leaves_logging_alone(world: World) -> None:
    script = """
import logging
import buckia
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING, root.handlers
assert all(name.startswith("buckia") for name in logging.root.manager.loggerDict if "buckia" in name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=CHECKOUT)
    handlers = list(logging.getLogger().handlers)
    world.device("a").sync()
    assert logging.getLogger().handlers == handlers


def test_k5_what_a_filter_leaves_out_is_left_alone(world: World) -> None:
    a, b = world.pair()
    a.fill({"keep.txt": "1", "big.mov": "2", "dir/big.mov": "3"})
    a.sync()
    root = b.sync(exclude_pattern=r"\.mov$").root
    assert set(b.tree()) == {"keep.txt"}
    b.write("other.txt", "4")
    assert b.sync(exclude_pattern=r"\.mov$", delete_orphaned=True).root != root
    assert set(a.in_bucket()) == {"keep.txt", "big.mov", "dir/big.mov", "other.txt"}
    assert b.sync().downloaded == 2
    assert b.tree() == a.in_bucket()


def test_k5_ignore_files_are_heeded_and_synced(world: World) -> None:
    a, b = world.pair()
    a.fill({".buckiaignore": "*.tmp\n/build/\n", "a.tmp": "1", "build/x": "2", "src/build/y": "3", "src/b.tmp": "4"})
    a.sync()
    assert set(a.in_bucket()) == {".buckiaignore", "src/build/y"}
    b.sync()
    assert set(b.tree()) == {".buckiaignore", "src/build/y"}


def test_k1_a_dry_run_says_about_what_the_run_costs(world: World) -> None:
    a, b = world.device("a"), world.device("b")

    def compare(device: Device) -> tuple[Traffic, Traffic]:
        with device.client() as client:
            plan = client.plan(device.root)
            assert plan.traffic.requests.total > 0, "planning looks at the bucket"
            return plan.estimate(), client.sync(device.root).traffic

    a.fill({"small": "1", "deep/clip": noise(9_000_000)[::-1], "large": noise(20_000_000), "empty": ""})
    b.root.mkdir(exist_ok=True)
    for device in (a, b):
        estimate, actual = compare(device)
        assert 0 <= actual.requests.put - estimate.requests.put <= 1, "two threads fill a pack each"
        assert estimate.requests.total <= 2 * actual.requests.total
        assert actual.requests.total <= 2 * estimate.requests.total
        assert estimate.bytes_uploaded <= actual.bytes_uploaded <= 1.02 * estimate.bytes_uploaded
        assert estimate.bytes_downloaded <= actual.bytes_downloaded <= 1.02 * estimate.bytes_downloaded
    estimate, actual = compare(a)
    assert (estimate.requests.total, actual.requests.total) == (1, 1)
