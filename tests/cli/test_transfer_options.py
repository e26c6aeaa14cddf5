"""Limits of the transfer mean the same as flag, configuration key and argument, and reach what keeps to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buckia import BucketConfig, BuckiaClient, ConfigError
from buckia.cli.common import open_client
from buckia.cli.options import Settings, Target
from buckia.errors import Transient
from buckia.store.pace import Pace
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync
from tests.cli.support import World, provider

GOOD = [
    ("limit_up", "500 KB", 500_000),
    ("limit_up", "10MB/s", 10_000_000),
    ("limit_up", "1.5MiB", 1_572_864),
    ("limit_down", "1g", 1e9),
    ("limit_down", 20_000, 20_000),
    ("retries", "0", 0),
    ("retries", 100, 100),
]
BAD: list[tuple[str, Any]] = [
    *(("limit_up", value) for value in ("fast", "10", "-1MB", "1 XB", "", "1e9", "9" * 400, True)),
    *(("limit_down", value) for value in ("0", 999, [1])),
    *(("retries", value) for value in ("-1", "101", "many", 1.5, True)),
    *(("requests_per_second", value) for value in (0, "none", -3)),
    *(("read_timeout", value) for value in (0, "soon")),
]


@pytest.mark.parametrize(("key", "given", "meant"), GOOD)
def test_flag_key_and_argument_are_one_option(world: World, tmp_path: Path, key: str, given: Any, meant: float) -> None:
    by_key = BucketConfig(provider="local", bucket_name="x", **{key: given})
    assert getattr(by_key, key) == meant
    with BuckiaClient.for_location(str(tmp_path / "b/f"), **{key: given}) as client:
        assert getattr(client.config, key) == meant


@pytest.mark.parametrize(("key", "given"), BAD)
def test_senseless_values_are_refused_by_name(key: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"'{key}' must be"):
        BucketConfig(provider="local", bucket_name="x", **{key: given})


def test_flags_reach_a_location_and_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".buckia").write_text("b: {provider: local, bucket_name: bucket, folders: [f], retries: 3, limit_up: 1 MB}\n")
    settings = Settings(transfer={"retries": 0, "limit_down": 5000.0})
    for target in (Target(), Target(location=str(tmp_path / "b/f"))):
        with open_client(settings, target) as client:
            assert (client.config.retries, client.config.limit_down) == (0, 5000.0)
    with open_client(settings, Target()) as client:
        assert (client.config.limit_up, client.config.name, client.config.folders) == (1e6, "b", ("f",))
        assert client.config.bucket_directory == tmp_path / "bucket"


def test_a_client_has_the_pace_of_its_configuration(tmp_path: Path) -> None:
    with BuckiaClient(
        BucketConfig(provider="memory", bucket_name="x", requests_per_second=7, limit_up="2 MB")
    ) as client:
        pace = client._session.backend.pacer
        assert isinstance(pace, Pace)
        assert (pace.rate, pace.limits_bytes) == (7, True)


@pytest.mark.parametrize(("retries", "times", "passes"), [(0, 1, False), (1, 1, True), (2, 3, False)])
def test_retries_are_as_many_as_are_asked_for(world: World, retries: int, times: int, passes: bool) -> None:
    (world.base / "data").mkdir()
    (world.base / "data/file").write_text("1")
    bucket = FaultySync(MemorySync(), [Fault("list", times=times, retry_after=0.001)])
    config = BucketConfig(provider="demo", bucket_name="x", folders=["f"], retries=retries)
    with provider("demo", lambda config: bucket), BuckiaClient(config) as client:
        if passes:
            assert client.sync(world.base / "data", folder="f").uploaded == 1
        else:
            with pytest.raises(Transient):
                client.sync(world.base / "data", folder="f")
            assert bucket.traffic.requests.list == retries + 1
