"""The Core API: lookup of storage and pull zones, and purging with its limits; the account's key in ``AccessKey``."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs

from tests.servers.bunny.options import BunnyOptions
from tests.servers.http import Answer, HeaderList, HttpServer, Request

_PER_PAGE = range(5, 1001)


class Account(Protocol):
    """What the Core API knows of an account."""

    @property
    def account_key(self) -> str: ...
    @property
    def options(self) -> BunnyOptions: ...
    def storage_zones(self) -> list[dict[str, Any]]: ...
    def pull_zones(self) -> list[dict[str, Any]]: ...
    def purge_url(self, url: str, *, exact: bool) -> None: ...
    def purge_zone(self, pull_zone_id: int) -> None: ...


class TokenBucket:
    """``burst`` tokens, refilled at ``per_second``."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = burst
        self._seen = clock()

    def take(self) -> float:
        """Takes one token and returns 0, or takes none and returns the seconds until there is one."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._seen) * self._per_second)
            self._seen = now
            # What a clock adds up to may miss a whole token by its last bit.
            if self._tokens > 1 - 1e-9:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self._per_second


class CoreHost(HttpServer):
    """The host of the Core API."""

    def __init__(self, account: Account) -> None:
        self._account = account
        clock = lambda: account.options.clock()  # noqa: E731
        self._exact = TokenBucket(120, 5, clock)
        self._prefix = TokenBucket(20, 0.5, clock)
        self.purged: list[str] = []
        """URLs as they were given, in order; those that were answered by 429 are not among them."""
        self.purged_zones: list[int] = []
        """Ids of pull zones that were purged whole."""
        super().__init__()

    def answer(self, request: Request) -> Answer:
        """Checks the key and finds the call."""
        if request.header("AccessKey") != self._account.account_key:
            return _error(401, "unauthorized", "", "The request authorization failed.")
        query = {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        match [request.method, *request.path.strip("/").split("/")]:
            case ["POST", "purge"]:
                return self._purge(query)
            case ["POST", "pullzone", number, "purgeCache"]:
                return self._purge_zone(number)
            case ["GET", "pullzone"]:
                return _page(self._account.pull_zones(), query, search=self._account.options.pull_zone_search)
            case ["GET", "pullzone", number]:
                return _one(self._account.pull_zones(), number, "PullZone")
            case ["GET", "storagezone"]:
                return _page(self._account.storage_zones(), query, search=True)
            case ["GET", "storagezone", number]:
                return _one(self._account.storage_zones(), number, "StorageZone")
            case [_, "purge" | "pullzone" | "storagezone", *_]:
                return _error(405, "method_not_allowed", "", "The method is not allowed.")
        return _error(404, "not_found", "", "There is no such call.")

    def _purge(self, query: Mapping[str, str]) -> Answer:
        url = query.get("url", "")
        if not url:
            return _error(400, "validation_error", "Url", "The url is required.")
        exact_path = query.get("exactPath", "").lower() == "true"
        is_prefix = "*" in url or (url.partition("?")[0].endswith("/") and not exact_path)
        wait = (self._prefix if is_prefix else self._exact).take()
        if wait:
            headers = [("Retry-After", str(math.ceil(wait)))]
            return _error(429, "rate_limit", "", "Too many purge requests.", headers)
        self.purged.append(url)
        self._account.purge_url(url, exact=not is_prefix)
        return Answer(200)

    def _purge_zone(self, number: str) -> Answer:
        known = {str(zone["Id"]): zone["Id"] for zone in self._account.pull_zones()}
        if number not in known:
            return _missing("PullZone")
        self.purged_zones.append(known[number])
        self._account.purge_zone(known[number])
        return Answer(204)


def _one(zones: Iterable[dict[str, Any]], number: str, kind: str) -> Answer:
    for zone in zones:
        if str(zone["Id"]) == number:
            return _json(zone)
    return _missing(kind)


def _page(zones: list[dict[str, Any]], query: Mapping[str, str], *, search: bool) -> Answer:
    """A page of a list; without a page number, or with 0, all zones as a plain array, as it was once."""
    try:
        page, per_page = int(query.get("page") or 0), int(query.get("perPage") or 1000)
    except ValueError:
        page, per_page = -1, 0
    if page < 0 or per_page not in _PER_PAGE:
        return _error(400, "validation_error", "PerPage", "A page has 5 to 1000 items.")
    wanted = query.get("search", "").lower()
    found = [zone for zone in zones if not search or wanted in zone["Name"].lower()]
    if page == 0:
        return _json(found)
    end = page * per_page
    return _json(
        {
            "Items": found[end - per_page : end],
            "CurrentPage": page,
            "TotalItems": len(found),
            "HasMoreItems": end < len(found),
        }
    )


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), [("Content-Type", "application/json")])


def _missing(kind: str) -> Answer:
    return _error(404, f"{kind.lower()}.not_found", kind, f"The requested {kind} was not found.")


def _error(status: int, key: str, about: str, message: str, headers: HeaderList = ()) -> Answer:
    body = json.dumps({"ErrorKey": key, "Field": about, "Message": message}).encode()
    return Answer(status, body, [*headers, ("Content-Type", "application/json")])
