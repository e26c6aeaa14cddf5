"""On real accounts: the bucket keeps every promise, and folders arrive, at a cost that is known before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import tree_of
from tests.e2e.accounts import PROVIDERS, Account, missing, new_folder

pytestmark = pytest.mark.e2e

MEGABYTES = int(os.environ.get("BUCKIA_E2E_MB", "200"))
"""Size of the large folder."""
CHECK_REQUESTS_MAX = 8_000
DEVICES_REQUESTS_MAX = 300
LARGE_REQUESTS_MAX = 400
"""Bounds on requests, retries included, which `docs/developer/e2e.md` states."""


@pytest.fixture(params=PROVIDERS)
def account(request: pytest.FixtureRequest) -> Account:
    """An account, or the test is skipped."""
    lacks = missing(request.param, os.environ)
    if lacks:
        pytest.skip(f"no account at {request.param}: {', '.join(lacks)} not set")
    return Account.of(request.param, os.environ)


@pytest.fixture
def folder(account: Account) -> Iterator[str]:
    """A folder that nobody else has, gone afterwards."""
    name = new_folder()
    yield name
    account.delete(account.left(name))
    assert account.left(name) == []


def fill(root: Path, megabytes: int, seed: int) -> None:
    """Files of 1 MB and smaller that do not compress, and some small ones."""
    bytes_of = random.Random(seed).randbytes
    for number in range(megabytes):
        path = root / f"clips/{number % 7}/{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(1_000_000))
    for number in range(50):
        (root / f"note {number} ü.txt").write_bytes(bytes_of(number * 20))


def test_the_bucket_keeps_every_promise(account: Account, tmp_path: Path) -> None:
    """``buckia bucket check --full``: the probe, and the whole contract below a key of its own."""
    with account.device("checker", new_folder(), tmp_path) as (client, _):
        bucket = client.bucket
        found = bucket.check(full=True)
        print(found)
        assert found.broken == []
        assert found.usable
        assert bucket._backend.traffic.requests.total <= CHECK_REQUESTS_MAX


def test_two_devices_share_a_folder(account: Account, folder: str, tmp_path: Path) -> None:
    """There and back, a conflict, a deletion: both show the same, and all of it can be verified."""
    requests = 0
    with (
        account.device("phone", folder, tmp_path) as (phone, here),
        account.device("laptop", folder, tmp_path) as (laptop, there),
    ):
        fill(here, 3, seed=1)
        (here / "note").write_text("agreed")
        first = phone.sync(here, folder=folder)
        second = laptop.sync(there, folder=folder)
        assert (first.failed, second.failed) == (0, 0)
        assert first.root == second.root
        results = [first, second]
        (here / "note").write_text("of the phone")
        (there / "note").write_text("of the laptop!")
        (there / "note 7 ü.txt").unlink()
        results.append(laptop.sync(there, folder=folder, delete_orphaned=True))
        results.append(phone.sync(here, folder=folder, conflict_resolution="ask", delete_orphaned=True))
        results.append(laptop.sync(there, folder=folder, conflict_resolution="ask", delete_orphaned=True))
        mine = tree_of(here)
        assert mine == tree_of(there)
        assert {b"of the phone", b"of the laptop!"} <= set(mine.values())
        assert "note 7 ü.txt" not in mine
        unchanged = phone.sync(here, folder=folder)
        assert (unchanged.uploaded, unchanged.downloaded) == (0, 0)
        results.append(unchanged)
        checked = laptop.verify(read_data=True)
        assert checked.clean
        requests = sum(result.requests.total for result in results) + checked.traffic.requests.total
    assert requests <= DEVICES_REQUESTS_MAX


def test_a_large_folder_arrives_and_is_verified(account: Account, folder: str, tmp_path: Path) -> None:
    """Each byte goes up once and comes down twice: to the second device, and to verify."""
    size = MEGABYTES * 1_000_000
    with account.device("sender", folder, tmp_path) as (sender, here):
        fill(here, MEGABYTES, seed=2)
        sent = sender.sync(here, folder=folder)
        print(sent)
        assert sent.success
        assert size <= sent.bytes_uploaded <= 1.03 * size + 1_000_000
    with account.device("receiver", folder, tmp_path) as (receiver, there):
        received = receiver.sync(there, folder=folder)
        assert received.success
        assert received.root == sent.root
        assert received.bytes_downloaded <= 1.05 * size + 1_000_000
        assert tree_of(there) == tree_of(here)
        checked = receiver.verify(read_data=True)
        print(checked)
        assert checked.clean
        assert checked.traffic.bytes_downloaded <= 1.05 * size + 1_000_000
    requests = (sent.requests, received.requests, checked.traffic.requests)
    assert sum(one.total for one in requests) <= LARGE_REQUESTS_MAX
