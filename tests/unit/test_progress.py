"""Progress of large files: it follows what was sent, or written, in steps of a few MiB, and each byte counts once."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from buckia.core.chunker import CHUNK_MAX
from buckia.engine import publish
from buckia.engine.context import STEP_BYTES, Progress, Upload
from buckia.engine.reconcile import Sync
from buckia.store.reader import WINDOW_BYTES
from buckia.store.writer import PACK_BYTES_TARGET
from buckia.sync.base import ObjectInfo
from tests.support.fleet import ROOT, Device, Fleet, Network, Plan

Report = tuple[int, int, str, str]
MIB = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def reports_of(fleet: Fleet, device: Device) -> list[Report]:
    """What a sync of this device reports."""
    reports: list[Report] = []
    fleet.set_clock(device)
    with fleet.transfer() as transfer:
        work = fleet.workspace(device, Plan(), transfer)
        work.progress = Progress(lambda *report: reports.append(report))
        result = Sync(work).run()
    assert result.success
    fleet.now_ns = max(fleet.now_ns, device.files.clock_ns)
    return reports


def steps(reports: list[Report]) -> list[int]:
    currents = [0, *(current for current, *_ in reports)]
    return [after - before for before, after in pairwise(currents)]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(devices=2)


def test_an_upload_counts_when_its_pack_has_arrived(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a bucket holds a put back, the bytes of its pack are not counted; in the end all are, before the last
    report.
    """
    size = 2 * PACK_BYTES_TARGET + 5 * MIB
    device = fleet.devices[0]
    device.files.put(f"{ROOT}/big", noise(size))
    reports: list[Report] = []
    arrived, seen = [0], list[tuple[int, int]]()
    put = Network._put

    def watched(network: Network, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        seen.append((reports[-1][0] if reports else 0, arrived[0]))
        info = put(network, key, data, if_absent)
        arrived[0] += len(data)
        return info

    monkeypatch.setattr(Network, "_put", watched)
    fleet.set_clock(device)
    with fleet.transfer() as transfer:
        work = fleet.workspace(device, Plan(), transfer)
        work.progress = Progress(lambda *report: reports.append(report))
        Sync(work).run()
    assert all(counted <= sent for counted, sent in seen)
    assert reports[0] == (0, size, "uploading", "big")
    assert {report[1:] for report in reports[:-1]} == {(size, "uploading", "big")}
    assert max(steps(reports)) <= PACK_BYTES_TARGET
    assert reports[-2][0] == size
    assert reports[-1] == (size, size, "verifying", "")


def test_what_needs_no_upload_counts_as_it_is_read(fleet: Fleet) -> None:
    """A second copy of a large file advances in small steps."""
    size = 12 * MIB
    device = fleet.devices[0]
    device.files.put(f"{ROOT}/big", noise(size))
    reports_of(fleet, device)
    device.files.put(f"{ROOT}/copy", noise(size))
    reports = reports_of(fleet, device)
    assert {path for *_, path in reports[:-1]} == {"copy"}
    assert max(steps(reports)) <= STEP_BYTES + CHUNK_MAX
    assert reports[-2][:2] == (size, size)


def test_small_files_are_named_and_their_pack_counts(fleet: Fleet) -> None:
    """Each file and each link is named once it was read; the bytes follow with the pack."""
    device = fleet.devices[0]
    names = [f"file{number}" for number in range(20)]
    for number, name in enumerate(names):
        device.files.put(f"{ROOT}/{name}", noise(1000, number))
    reports = reports_of(fleet, device)
    assert [report[0] for report in reports] == [0] * 20 + [20_000, 20_000]
    assert [report[3] for report in reports[:20]] == sorted(names)


def test_what_one_commit_has_read_ahead_counts_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync in many slices reads files again whose chunks it has stored already."""
    monkeypatch.setattr(publish, "SLICE_BYTES", MIB)
    monkeypatch.setattr(publish, "AHEAD", 2)
    device = fleet.devices[0]
    for number in range(6):
        device.files.put(f"{ROOT}/clip{number}", noise(3 * MIB, number))
    reports = reports_of(fleet, device)
    assert next(report for report in reports if report[3] == "clip5")[0] == 15 * MIB
    assert reports[-2][0] == 18 * MIB


@pytest.mark.parametrize("size", [20 * MIB, 40 * MIB])
def test_a_download_counts_what_was_written(fleet: Fleet, size: int) -> None:
    """A file that is fetched side by side with others, and one that is larger than that, advance by windows."""
    one, other = fleet.devices
    one.files.put(f"{ROOT}/big", noise(size))
    reports_of(fleet, one)
    reports = reports_of(fleet, other)
    assert {report[1:] for report in reports[:-1]} == {(size, "downloading", "big")}
    assert max(steps(reports)) <= WINDOW_BYTES + CHUNK_MAX
    assert len(reports) <= size // WINDOW_BYTES + 2
    assert reports[-2][0] == size


def test_a_file_that_is_read_again_counts_once() -> None:
    """And one that is shorter than planned counts in full, as the total says so."""
    reports: list[Any] = []
    progress = Progress(lambda *report: reports.append(report), total=100)
    upload = Upload(progress, "a", 60)
    assert upload.packed(50) == 50
    upload.known(50)  # of which 10 were not read before
    assert upload.packed(50) == 0
    upload.finish()
    assert reports.pop() == (10, 100, "uploading", "a")
    upload.sent(50)
    shorter = Upload(progress, "b", 40)
    shorter.known(30)
    shorter.finish()
    assert reports == [(60, 100, "uploading", "a"), (100, 100, "uploading", "b")]


def test_nobody_is_called_after_the_end() -> None:
    """A pack that arrives after its sync has failed is no progress of it."""
    reports: list[Any] = []
    progress = Progress(lambda *report: reports.append(report), total=10)
    progress.close()
    Upload(progress, "a", 10).sent(10)
    assert not reports
