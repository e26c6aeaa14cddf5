"""After very many small syncs a folder opens as quickly as after few: segments and small packs are consolidated."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from buckia.core.directory import walk
from buckia.core.ids import BlobType, Dot
from buckia.core.manifest import FileContent, Kind, Version
from buckia.engine import history
from buckia.engine.editor import TreeEditor
from buckia.events import Traffic
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository
from buckia.store.transfer import Transfer
from buckia.sync.memory import MemorySync
from tests.transfers import FakeClock


def repository(bucket: MemorySync, seed: str, ledger: MemoryLedger | None = None) -> Repository:
    """A device's view of one folder, on one thread."""
    transfer = Transfer(bucket, workers=0, retries=0, clock=FakeClock(), random=lambda: 0.5, cancelled=lambda: False)
    numbers = itertools.count()

    def random_bytes(count: int) -> bytes:
        return (seed.encode() + next(numbers).to_bytes(8, "big")).rjust(count, b"\0")[-count:]

    times = itertools.count(1_700_000_000 * 10**9, 10**9)
    return Repository(transfer, ledger or MemoryLedger(), "f", random_bytes=random_bytes, now_ns=lambda: next(times))


def joined(bucket: MemorySync, seed: str) -> Repository:
    """A device that has published its first record."""
    device = repository(bucket, seed)
    device.open(create=True)
    device.become_device(seed)
    device.join(device.refresh())
    return device


def commit(device: Repository, name: bytes, data: bytes) -> None:
    """One sync with one small file, as the engine would publish it."""
    device.refresh()
    state = device.current()
    writer = device.writer()
    own = device.ledger.device()
    assert own is not None
    content = FileContent(0, writer.put(BlobType.CHUNK, data))
    version = Version(Dot(own[0], device.ledger.own_seq() + 1), Kind.FILE, len(data), 0, 0o644, content)
    editor = TreeEditor(device.nodes, state.tree)
    editor.edit((name,), (), version)
    device.publish(writer, editor.finish(), device.ledger.tips())


def requests_of(bucket: MemorySync, act: Callable[[], object]) -> Traffic:
    """What an act costs."""
    bucket.traffic = Traffic()
    act()
    return bucket.traffic


def check_opening(bucket: MemorySync, syncs: int) -> None:
    """A new device lists every snapshot and reads the whole tree with few requests."""
    fresh = repository(bucket, "fresh")

    def look() -> None:
        fresh.open()
        fresh.refresh()
        assert len(history.snapshots(fresh)) == syncs

    listing = requests_of(bucket, look)
    assert listing.requests.total < 50, listing
    assert not listing.requests.put, "reading commands write nothing"

    def read_tree() -> None:
        assert sum(1 for _ in walk(fresh.nodes, fresh.current().tree.id)) == min(syncs, 200)

    assert requests_of(bucket, read_tree).requests.total < 50


def run(syncs: int) -> None:
    bucket = MemorySync("many")
    device = joined(bucket, "one")
    costs = []
    for number in range(syncs):
        name = b"file %03d" % (number % 200)
        costs.append(requests_of(bucket, lambda name=name, number=number: commit(device, name, b"%d" % number)))
    consolidating = sum(cost.requests.put > 3 for cost in costs)
    assert consolidating <= len(costs) / 32 + 1, "at most one run in 32 consolidates"
    quiet = [cost for cost in costs if cost.requests.put <= 3]
    assert all(cost.requests.put + cost.requests.delete <= 5 for cost in quiet)
    assert all(cost.requests.get + cost.requests.list + cost.requests.stat <= 3 for cost in quiet)
    check_opening(bucket, syncs)


def test_hundreds_of_small_syncs() -> None:
    run(400)


@pytest.mark.slow
def test_thousands_of_small_syncs() -> None:
    run(2_500)


@pytest.mark.nightly
def test_ten_thousand_small_syncs() -> None:
    run(10_000)
