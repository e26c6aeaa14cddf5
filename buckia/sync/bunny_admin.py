"""What an account at Bunny can do to a storage zone and the pull zone before it, through the Core API.

Needs the key of the account, which is sent to this API only. Results hold no passwords and no keys, though the API
tells them.

The API counts purges per account: 120 exact ones at once and 5 per second, 20 of whole directories and one in two
seconds. Beyond that it answers 429, which is `Transient`; a purge of many objects hands each of its requests to
``attempt``, so that only the refused one is made again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from buckia.errors import AuthenticationError, BucketError, BucketNotFound, UsageError
from buckia.sync.admin import BucketAdmin, Json
from buckia.sync.base import Attempt, check_key, check_prefix
from buckia.sync.bunny_http import BunnyHost

EXACT_MAX = 100
"""More objects than this are purged by their directories: the API would take half a minute or more for them."""
PREFIXES_MAX = 20
"""Directories of one purge; with more, those above them are purged."""

_PER_PAGE = 1000
_PAGES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Zones:
    """The storage zone, its pull zone by name or number, and the CDN's address where it is known."""

    storage: str
    pull: str | None = None
    cdn_url: str | None = None


class BunnyAdmin(BucketAdmin):
    """The verbs of one storage zone. What the API says of the pull zone is kept in the object."""

    def __init__(self, location: str, host: BunnyHost, zones: Zones) -> None:
        super().__init__(location)
        self._host = host
        self._zones = zones
        self._known: Mapping[str, Any] | None = None
        self._lock = threading.Lock()

    def pull_zone(self) -> Json:
        """The pull zone in front of the bucket: ``id``, ``name``, ``hostnames``, ``storage_zone_id``, and whether URLs
        need a token (``token_authentication``) and it an address (``token_ip``).

        It is that of the settings, or else the only one that is linked to the storage zone.
        """
        with self._lock:
            if self._known is None:
                self._known = self._find()
            found = self._known
        return {
            "id": found["Id"],
            "name": found.get("Name"),
            "hostnames": [host.get("Value") for host in found.get("Hostnames") or ()],
            "storage_zone_id": found.get("StorageZoneId"),
            "token_authentication": bool(found.get("ZoneSecurityEnabled")),
            "token_ip": bool(found.get("ZoneSecurityIncludeHashRemoteIP")),
        }

    def storage_zone(self) -> Json:
        """The storage zone: ``id``, ``name``, ``region``, ``replicas``, ``host``, ``pull_zones`` (numbers).

        Where there are replicas the CDN may read one that is seconds behind: a purge right after a write can bring back
        what was there before, so wait some 5 seconds between the two.
        """
        for found in self._pages("/storagezone", self._zones.storage):
            if found.get("Name") == self._zones.storage:
                return {
                    "id": found["Id"],
                    "name": found["Name"],
                    "region": str(found.get("Region") or "").lower(),
                    "replicas": [str(code).lower() for code in found.get("ReplicationRegions") or ()],
                    "host": found.get("StorageHostname"),
                    "pull_zones": [zone["Id"] for zone in found.get("PullZones") or ()],
                }
        raise BucketNotFound(f"The account has no storage zone {self._zones.storage}.")

    def purge(self, keys: Sequence[str], *, prefix: bool = False, attempt: Attempt = lambda verb, call: call()) -> int:
        """Makes the CDN forget objects, or with ``prefix`` all whose keys begin so; without keys the whole zone. How
        many purge requests it took.

        More than 100 objects are purged by their directories: 20 at most, so others in them go, too. That costs the
        CDN a read of each from the bucket, once.
        """
        for key in keys:
            (check_prefix if prefix else check_key)(key)
        if prefix:
            wanted = ["" if "" in keys else f"{quote(key)}*" for key in keys]
        elif len(keys) <= EXACT_MAX:
            wanted = [quote(key) for key in keys]
        else:
            wanted = [f"{quote(directory)}*" if directory else "" for directory in _directories(keys)]
        if not wanted or "" in wanted:
            number = self.pull_zone()["id"]
            attempt("delete", lambda: self._ask("POST", f"/pullzone/{number}/purgeCache"))
            return 1
        base = self._zones.cdn_url or self._address()
        for pattern in wanted:
            query = {"url": f"{base}/{pattern}", "async": "false"}
            attempt("delete", partial(self._ask, "POST", "/purge", query))
        return len(wanted)

    def _address(self) -> str:
        zone = self.pull_zone()
        if not zone["hostnames"]:
            raise BucketError(f"The pull zone {zone['name']} has no host.")
        return f"https://{zone['hostnames'][0]}"

    def _find(self) -> Mapping[str, Any]:
        wanted = self._zones.pull
        if wanted is None:
            linked = self.storage_zone()["pull_zones"]
            if len(linked) != 1:
                raise UsageError(
                    f"{self.location} has {len(linked)} pull zones.",
                    hint=f"Set pull_zone to one of them: {', '.join(map(str, linked))}."
                    if linked
                    else "Add a pull zone to the storage zone in Bunny's panel.",
                )
            wanted = str(linked[0])
        if wanted.isdecimal():
            found: Mapping[str, Any] = self._ask("GET", f"/pullzone/{wanted}", missing=f"pull zone {wanted}")
            return found
        for zone in self._pages("/pullzone", wanted):
            if str(zone.get("Name", "")).lower() == wanted.lower():
                return zone
        raise BucketNotFound(f"The account has no pull zone {wanted}.")

    def _pages(self, path: str, search: str) -> Iterator[Mapping[str, Any]]:
        """All entries of a list in which ``search`` may be, whether or not the API looks for it."""
        for number in range(1, _PAGES_MAX):
            query = {"page": str(number), "perPage": str(_PER_PAGE), "search": search}
            found = self._ask("GET", path, query)
            if isinstance(found, list):
                yield from found
                return
            yield from found.get("Items") or ()
            if not found.get("HasMoreItems"):
                return
        raise BucketError(f"{self._host.where}: the list of zones does not end.")

    def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None, *, missing: str = "") -> Any:
        """The value of an answer; ``missing`` is what a 404 says there is not."""
        answer = self._host.ask(method, path, query=query, headers={"Accept": "application/json"})
        if answer.status == 401:
            raise AuthenticationError(
                f"{self._host.where} does not accept the API key.",
                hint="api_key is the key of the account (Account settings, API key), not the password of the zone.",
            )
        if answer.status == 404 and missing:
            raise BucketNotFound(f"The account has no {missing}.")
        if answer.status not in (200, 204):
            raise answer.problem(self._host.where)
        return answer.value(self._host.where) if method == "GET" else None


def _directories(keys: Sequence[str]) -> list[str]:
    """At most `PREFIXES_MAX` directories, with a slash at the end, that hold all keys; ``""`` is the top."""
    paths = {tuple(key.split("/")[:-1]) for key in keys}
    while len(paths) > PREFIXES_MAX:
        deepest = max(map(len, paths))
        paths = {path[:-1] if len(path) == deepest else path for path in paths}
    outer = [path for path in sorted(paths) if not any(path[:end] in paths for end in range(len(path)))]
    return ["".join(f"{name}/" for name in path) for path in outer]
