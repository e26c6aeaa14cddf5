"""Requirements of the areas Q (steps of a sync), S (delta transfer) and V (the design card), by real syncs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.errors import BucketError, BuckiaError, FormatError, IntegrityError
from buckia.sync.faulty import Fault, FaultySync
from tests.cli.conftest import Outcome
from tests.cli.support import OLD_NS, Device, World, local_bucket, noise, process, provider, tree_of, wait_a_tick

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state-of-commands"))
    monkeypatch.setattr("buckia.client.runtime.jitter", lambda: 0.0)


def _fill(device: Device, directories: int, files: int) -> None:
    for directory in range(directories):
        (device.root / f"d{directory:03}").mkdir()
        for file in range(files):
            (device.root / f"d{directory:03}/f{file:03}").write_bytes(b"%d %d" % (directory, file))


class _Faulty:
    """A device whose bucket fails as planned; the state outlives the failures."""

    def __init__(self, world: World, *faults: Fault) -> None:
        self.bucket = FaultySync(local_bucket(world.bucket), faults)
        self.world = world

    def sync(self, root: Path) -> object:
        with provider("faulty", lambda config: self.bucket):
            config = BucketConfig(provider="faulty", bucket_name="x", max_workers=2)
            with BuckiaClient(config, state_dir=self.world.base / "faulty-state") as client:
                return client.sync(root, folder=self.world.folder)

    def tries(self, root: Path, expected: tuple[type[BuckiaError], ...] = (BucketError,)) -> bool:
        """Whether a sync came to its end; raises what is not expected."""
        try:
            self.sync(root)
        except expected:
            return False
        return True


@pytest.mark.slow
def test_q2_one_change_among_many_costs_a_few_nodes(world: World) -> None:
    a, b = world.pair()
    _fill(a, 25, 200)
    a.sync()
    b.sync()
    wait_a_tick()
    a.write("d012/f100", "changed")
    sent = a.sync()
    received = b.sync()
    assert (sent.uploaded, received.downloaded) == (1, 1)
    assert (sent.requests.put, sent.requests.total) <= (3, 7)
    assert received.requests.get <= 3
    assert sent.bytes_uploaded + received.bytes_downloaded < 60_000
    assert b.tree() == a.tree()


@pytest.mark.parametrize("step", range(1, 8))
def test_q3_interrupted_run_is_finished_first(world: World, step: int) -> None:
    """Whichever write of a commit is the last that arrives: the next run goes on, and publishes nothing twice."""
    a = world.device("a")
    a.fill({"one": "1", "two": noise(100_000)})
    failing = _Faulty(world, Fault("put", "error", nth=step, times=99, error=BucketError("The line is cut.")))
    arrived = failing.tries(a.root)
    records = len(world.of_kind("journal"))
    a.write("three", "3")
    whole = _Faulty(world)
    whole.sync(a.root)
    assert world.device("b").in_bucket() == a.tree()
    assert len(world.of_kind("tips")) == 1
    assert len(world.of_kind("journal")) - records <= 3
    numbers = [path.name.partition("-")[0] for path in world.of_kind("journal")]
    assert sorted(numbers) == sorted(set(numbers))
    with world.device("b").client() as client:
        assert client.verify(read_data=True).clean
    assert arrived == (step > 6)


@pytest.mark.parametrize("step", range(1, 5))
def test_q5_readers_see_the_old_or_the_new_state_at_every_step(world: World, step: int) -> None:
    a = world.device("a")
    a.write("note", "old")
    whole = _Faulty(world)
    whole.sync(a.root)
    a.fill({"note": "new!", "more": noise(50_000)})
    failing = _Faulty(world, Fault("put", "error", nth=step, times=99, error=BucketError("The line is cut.")))
    arrived = failing.tries(a.root)
    reader = world.device("reader").in_bucket()
    assert reader in ({"note": b"old"}, a.tree())
    assert arrived == (step > 3)
    if arrived:
        assert reader == a.tree()
    with world.device("reader").client() as client:
        assert client.verify(read_data=True).clean


@pytest.mark.parametrize("act", ["flip", "short"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_q6_what_is_damaged_on_the_way_never_reaches_the_disk(world: World, act: str, nth: int) -> None:
    a = world.device("a")
    a.fill({"small": "1", "clip": noise(700_000)})
    a.sync()
    target = world.base / "target"
    target.mkdir()
    damaged = _Faulty(world, Fault("get", act, nth=nth, at=100, where=lambda key: "/packs/" in key))  # type: ignore[arg-type]
    damaged.tries(target, (FormatError, IntegrityError))
    assert tree_of(target).items() <= a.tree().items()
    assert getattr(_Faulty(world).sync(target), "success", False)
    assert tree_of(target) == a.tree()


def test_q9_times_are_kept_and_a_touch_moves_nothing(world: World) -> None:
    a, b = world.pair()
    a.write("file", "1", mtime_ns=OLD_NS)
    a.sync()
    b.sync()
    assert (b.root / "file").stat().st_mtime_ns == OLD_NS
    wait_a_tick()
    os.utime(b.root / "file", ns=(OLD_NS // 2 * 10**9, OLD_NS // 10**9 * 10**9))
    result = b.sync()
    assert (result.uploaded, result.downloaded, result.requests.put) == (0, 0, 0)


def test_q10_permission_bits_are_content(world: World) -> None:
    a, b = world.pair()
    a.write("script", "#!/bin/sh")
    a.sync()
    b.sync()
    wait_a_tick()
    (a.root / "script").chmod(0o755)
    assert a.sync().uploaded == 1
    result = b.sync()
    assert (b.root / "script").stat().st_mode & 0o777 == 0o755
    assert result.bytes_downloaded < 5000


# ---- S5: delta transfer


def test_s5_an_insertion_into_a_clip_moves_little_each_way(world: World) -> None:
    a, b = world.pair()
    clip = noise(20_000_000)
    a.write("clip", clip)
    a.sync()
    b.sync()
    wait_a_tick()
    third = len(clip) // 3
    a.write("clip", clip[:third] + noise(1000, 1) + clip[third:])
    sent = a.sync()
    received = b.sync()
    assert b.read("clip") == a.read("clip")
    assert sent.bytes_uploaded < 1_200_000
    assert received.bytes_downloaded < 1_200_000


def test_s5_a_renamed_directory_moves_no_chunk(world: World) -> None:
    a, b = world.pair()
    a.fill({f"old name/clip{number}": noise(1_500_000, number) for number in range(3)} | {"old name/small": noise(900)})
    a.sync()
    b.sync()
    wait_a_tick()
    (a.root / "old name").rename(a.root / "new name")
    sent = a.sync(delete_orphaned=True)
    received = b.sync()
    assert b.tree() == a.tree()
    assert set(b.tree()) == {"new name/clip0", "new name/clip1", "new name/clip2", "new name/small"}
    assert sent.bytes_uploaded < 10_000
    assert received.bytes_downloaded < 10_000


def test_s5_nothing_changed_is_one_request(world: World) -> None:
    a, b = world.pair()
    a.fill({"one": "1", "clip": noise(3_000_000)})
    wait_a_tick()
    a.sync()
    b.sync()
    wait_a_tick()
    for device in (a, b):
        device.sync()
        result = device.sync()
        assert (result.requests.list, result.requests.total) == (1, 1)
        assert (result.bytes_uploaded, result.bytes_downloaded) == (0, 0)


def test_s5_one_small_file_of_a_thousand_is_five_writes_and_three_reads(world: World) -> None:
    a = world.device("a")
    _fill(a, 10, 100)
    a.sync()
    wait_a_tick()
    a.sync()
    for number in range(3):
        a.write("d005/f050", f"changed {number}")
        result = a.sync()
        assert result.uploaded == 1
        requests = result.requests
        assert requests.put + requests.delete <= 5, requests
        assert requests.get + requests.list + requests.stat <= 3, requests


def test_s5_equal_files_are_stored_once(world: World) -> None:
    a = world.device("a")
    clip = noise(2_000_000)
    a.fill({"one": clip, "two": clip, "deep/three": clip})
    result = a.sync()
    assert result.uploaded == 3
    assert result.bytes_uploaded < 2_100_000


@pytest.mark.slow
def test_s5_text_is_compressed(world: World) -> None:
    a = world.device("a")
    a.write("log", b"".join(b"line %d of a log that repeats itself\n" % number for number in range(200_000)))
    assert a.sync().bytes_uploaded < len(a.read("log")) / 4


# ---- V: the card


def test_v7_equal_roots_mean_equal_content(world: World) -> None:
    a, b = world.pair()
    a.fill({"x": "1", "y/z": "2"})
    b.fill({"x": "1", "y/z": "2"})
    other = Device(world.base / "c", str(world.bucket / "another folder"), world.base / "state/c")
    other.fill({"x": "1", "y/z": "2"})
    for device in (a, b, other):
        for path in ("x", "y/z"):
            (device.root / path).chmod(0o644)
        (device.root / "y").chmod(0o755)
    roots = {a.sync().root, b.sync().root, other.sync().root}
    assert len(roots) == 1
    other.write("x", "3")
    assert other.sync().root not in roots
    wait_a_tick()
    other.write("x", "1")
    assert other.sync().root in roots


def test_v11_restore_is_the_tree_of_its_snapshot(buckia: Run, world: World) -> None:
    a = world.device("a")
    trees: dict[str, dict[str, bytes]] = {}
    roots: dict[str, str] = {}
    for number in range(3):
        a.fill({f"file{number}": noise(1000, number), "changes": str(number)})
        result = a.sync()
        assert result.snapshot is not None
        trees[result.snapshot], roots[result.snapshot] = a.tree(), result.root
        wait_a_tick()
    for snapshot, tree in trees.items():
        outcome = buckia("restore", "--from", world.location, "--snapshot", snapshot, "--target", snapshot, "--json")
        assert (outcome.code, outcome.json["root"]) == (0, roots[snapshot])
        assert tree_of(world.base / snapshot) == tree


def test_v13_verification_finds_every_kind_of_damage_and_names_the_path(buckia: Run, world: World) -> None:
    a = world.device("a")
    a.fill({"photos/cat.jpg": noise(200_000)})
    a.sync()
    pack = world.of_kind("packs")[0]
    data = pack.read_bytes()
    pack.write_bytes(data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])
    outcome = buckia("verify", "--read-data", "--from", world.location, "--json")
    assert (outcome.code, outcome.json["clean"]) == (8, False)
    (damage,) = outcome.json["damaged"]
    assert damage["paths"] == ["photos/cat.jpg"]
    assert pack.name in damage["object"]
    assert buckia("verify", "--from", world.location).code == 0  # the structure is whole; only reading tells
    pack.unlink()
    assert buckia("verify", "--from", world.location).code == 8


def test_v10_the_same_cuts_with_every_kernel(world: World) -> None:
    """A device without the fast kernel finds the same chunks, and so sends nothing again."""
    a = world.device("a")
    a.write("clip", noise(1_500_000))
    a.sync()
    done = process(
        *("sync", str(world.device("b").root), "--to", world.location, "--json"),
        cwd=world.base,
        BUCKIA_CHUNKER="python",
    )
    assert done.returncode == 0
    c = world.device("c")
    c.write("clip", a.read("clip"))
    with c.client() as client:
        client._session.kernel_name = "python"
        result = client.sync(c.root)
    assert result.bytes_uploaded < 5000
