"""Bunny for tests, in memory: Edge Storage API, Core API, and a CDN edge for every zone.

``BunnyServer`` is one account. It speaks HTTP on 127.0.0.1 and follows the documents of Bunny to the status code; where
they are silent, `BunnyOptions` has both answers. Nothing in it waits, except where a test asks for it.
"""

from __future__ import annotations

import atexit
import itertools
import secrets
from dataclasses import replace
from functools import cache
from typing import Any, Self
from urllib.parse import urlsplit

from tests.servers.bunny.cdn import CdnEdge, signed_path
from tests.servers.bunny.core import CoreHost
from tests.servers.bunny.options import BunnyOptions, Limits
from tests.servers.bunny.storage import StorageHost
from tests.servers.bunny.zone import Content, Security, StoredFile, digest, new_password
from tests.servers.http import Counts, HeaderList

__all__ = ["BunnyOptions", "BunnyServer", "BunnyZone", "Limits", "Security", "shared", "signed_path"]


class BunnyZone:
    """A storage zone with its pull zone: all that is needed to reach it, and what a test does behind its back.

    Paths are texts in the zone, without a slash before them.
    """

    def __init__(self, server: BunnyServer, name: str, number: int) -> None:
        self._server = server
        self._cdn: CdnEdge | None = None
        self.zone = name
        self.zone_id = 1000 + number
        self.user_id = server.user_id
        self.password = new_password()
        self.readonly_password = new_password()
        self.pull_zone_name = f"{name}-cdn"
        self.pull_zone_id = 500_000 + number
        self.security = Security(new_password())
        """Token authentication; off until a test says ``zone.security.enabled = True``."""
        self.content = Content(lambda: server.options.clock())

    @property
    def storage_url(self) -> str:
        """The storage host; objects are at ``{storage_url}/{zone}/{path}``."""
        return self._server.storage_url

    @property
    def core_url(self) -> str:
        """The host of the Core API."""
        return self._server.core_url

    @property
    def cdn(self) -> CdnEdge:
        """The edge, which runs from the first time that somebody asks for it."""
        if self._cdn is None:
            self._cdn = CdnEdge(self.content, self.security, lambda: self._server.options)
        return self._cdn

    @property
    def cdn_url(self) -> str:
        """The edge's address; objects are at ``{cdn_url}/{path}``."""
        return self.cdn.url

    @property
    def account_key(self) -> str:
        """The key of the Core API."""
        return self._server.account_key

    @property
    def security_key(self) -> str:
        """The key that tokens are made with."""
        return self.security.key

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with the credentials."""
        return {
            "BUNNY_STORAGE_ZONE": self.zone,
            "BUNNY_STORAGE_API_KEY": self.password,
            "BUNNY_API_KEY": self.account_key,
        }

    @property
    def hostnames(self) -> list[str]:
        """Hosts of the pull zone."""
        return [f"{self.pull_zone_name}.b-cdn.net", *([urlsplit(self._cdn.url).netloc] if self._cdn else [])]

    # Behind its back.

    def objects(self) -> dict[str, bytes]:
        """All objects by path."""
        return {"/".join(path): file.data for path, file in self.content.files().items()}

    def read(self, path: str) -> bytes:
        """An object's bytes; `KeyError` if there is none."""
        return self.content.files()[tuple(path.split("/"))].data

    def write(self, path: str, data: bytes, *, checksum_known: bool = True) -> None:
        """Stores an object, as old ones or those that came by FTP without a known checksum."""
        self.content.put(tuple(path.split("/")), data, digest(data) if checksum_known else None)

    def remove(self, path: str) -> None:
        """Deletes an object."""
        self.content.delete_file(tuple(path.split("/")))

    def damage(self, path: str) -> None:
        """Flips a bit in the middle of an object; length and checksum stay as they are listed."""

        def flip(file: StoredFile) -> StoredFile:
            data = bytearray(file.data)
            data[len(data) // 2] ^= 1
            return replace(file, data=bytes(data))

        self.content.change(tuple(path.split("/")), flip)

    def lag(self, *, reads: int | None = None, seconds: float | None = None) -> None:
        """From now on the CDN finds the state before each write (or 404): for so many of its reads of that path, for
        so many seconds on the injected clock, or until `catch_up`. What it finds it caches, as always.
        """
        self.content.lag(reads=reads, seconds=seconds)

    def catch_up(self) -> None:
        """The CDN finds what is stored, and from now on without lag. Its cache stays."""
        self.content.catch_up()

    def stop(self) -> None:
        """Ends the edge."""
        if self._cdn is not None:
            self._cdn.stop()


class BunnyServer:
    """A running account with one zone, and more on request; ends with `stop` or the ``with`` block.

    ``options`` may be replaced while it runs. The attributes of a zone that the server has too are those of its first.
    """

    def __init__(self, zone: str | None = None, *, options: BunnyOptions | None = None) -> None:
        self.options = options or BunnyOptions()
        self.account_key = new_password() + secrets.token_hex(20)
        self.user_id = new_password()
        self._numbers = itertools.count()
        self._zones: dict[str, BunnyZone] = {}
        self.first = self.fresh_zone(zone)
        self.storage = StorageHost(self._zones, lambda: self.options)
        """Counts, `fail_next` and ``latency`` of the storage host."""
        self.core = CoreHost(self)
        """The same of the Core API, and what was purged."""
        self._elsewhere: StorageHost | None = None

    def fresh_zone(self, name: str | None = None) -> BunnyZone:
        """A new, empty zone of this account, with passwords, a pull zone and a CDN host of its own."""
        number = next(self._numbers)
        name = name or f"test-{secrets.token_hex(6)}"
        if name in self._zones:
            raise ValueError(f"There is a zone {name}.")
        self._zones[name] = zone = BunnyZone(self, name, number)
        return zone

    # The first zone, and the hosts.

    @property
    def storage_url(self) -> str:
        """The storage host of the zones' region."""
        return self.storage.url

    @property
    def core_url(self) -> str:
        """The host of the Core API."""
        return self.core.url

    @property
    def other_region_url(self) -> str:
        """A storage host that no zone here has as its primary one: it answers 401 to everything."""
        if self._elsewhere is None:
            self._elsewhere = StorageHost({}, lambda: self.options)
        return self._elsewhere.url

    @property
    def cdn_url(self) -> str:
        """See `BunnyZone.cdn_url`."""
        return self.first.cdn_url

    @property
    def zone(self) -> str:
        """The zone's name."""
        return self.first.zone

    @property
    def password(self) -> str:
        """The zone's password."""
        return self.first.password

    @property
    def readonly_password(self) -> str:
        """The zone's other password, with which every write is answered by 401."""
        return self.first.readonly_password

    @property
    def pull_zone_id(self) -> int:
        """The number of the pull zone."""
        return self.first.pull_zone_id

    @property
    def pull_zone_name(self) -> str:
        """The name of the pull zone."""
        return self.first.pull_zone_name

    @property
    def security_key(self) -> str:
        """The key that tokens are made with."""
        return self.first.security_key

    @property
    def counts(self) -> Counts:
        """What the storage host has seen, by ``PUT GET LIST DELETE DESCRIBE HEAD``."""
        return self.storage.counts

    def fail_next(
        self, method: str, status: int, body: bytes | str = b"", *, times: int = 1, headers: HeaderList = ()
    ) -> None:
        """`HttpServer.fail_next` of the storage host; ``GET`` means listings, too, and ``LIST`` only those."""
        self.storage.fail_next(method, status, body, times=times, headers=headers)

    def stop(self) -> None:
        """Ends all hosts; may be called twice."""
        for host in (self.storage, self.core, self._elsewhere, *self._zones.values()):
            if host is not None:
                host.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What the Core API asks.

    def storage_zones(self) -> list[dict[str, Any]]:
        """All storage zones, as the Core API shows them."""
        return [
            {
                "Id": zone.zone_id,
                "UserId": self.user_id,
                "Name": zone.zone,
                "Password": zone.password,
                "ReadOnlyPassword": zone.readonly_password,
                "Region": "DE",
                "ReplicationRegions": [],
                "StorageHostname": urlsplit(self.storage_url).netloc,
                "StorageZoneType": 0,
                "FilesStored": len(zone.content.files()),
                "PullZones": [self._pull_zone(zone)],
                "Deleted": False,
            }
            for zone in self._zones.values()
        ]

    def pull_zones(self) -> list[dict[str, Any]]:
        """All pull zones, as the Core API shows them."""
        return [self._pull_zone(zone) for zone in self._zones.values()]

    def purge_url(self, url: str, *, exact: bool) -> None:
        """Makes the edge of that host forget; that there is none is fine."""
        parts = urlsplit(url if "//" in url else f"//{url}")
        for zone in self._zones.values():
            if parts.netloc in zone.hostnames:
                zone.cdn.purge(parts.path, exact=exact)

    def purge_zone(self, pull_zone_id: int) -> None:
        """Makes the edge of that zone forget everything."""
        for zone in self._zones.values():
            if zone.pull_zone_id == pull_zone_id:
                zone.cdn.purge(None, exact=False)

    def _pull_zone(self, zone: BunnyZone) -> dict[str, Any]:
        hostnames = [
            {"Id": number, "Value": name, "ForceSSL": False, "IsSystemHostname": number == 0, "HasCertificate": True}
            for number, name in enumerate(zone.hostnames)
        ]
        return {
            "Id": zone.pull_zone_id,
            "Name": zone.pull_zone_name,
            "OriginUrl": None,
            "Enabled": True,
            "Hostnames": hostnames,
            "StorageZoneId": zone.zone_id,
            "ZoneSecurityEnabled": zone.security.enabled,
            "ZoneSecurityKey": zone.security.key,
            "ZoneSecurityIncludeHashRemoteIP": zone.security.check_address,
        }


@cache
def shared() -> BunnyServer:
    """The server of this test run, for tests that leave its options alone; everybody takes a `fresh_zone`."""
    server = BunnyServer()
    atexit.register(server.stop)
    return server
