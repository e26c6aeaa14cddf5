"""Reads through a CDN in front of a bucket, for objects that never change: nearer, and without load on the bucket.

A CDN is a convenience: whatever is not exactly what was asked for counts as nothing, and the bucket is read. One that
cannot be reached, or wants other credentials, three times in a row is not asked again by that reader; nor is one whose
bodies drip.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from buckia.errors import Transient, UsageError
from buckia.sync.body import Read

FAILURES_MAX = 3
"""Failures in a row, after which a reader gives up for good."""
PATIENCE_SECONDS = 5.0
"""Longest timeout for a connection and for the next bytes: the bucket has the object as well."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_log = logging.getLogger(__name__)


class CdnReader:
    """A `buckia.sync.base.CachedReads` at ``url``: one of ``https://``, or ``http://`` where that is meant.

    ``sign`` makes the address of an object one that the CDN accepts. ``timeouts`` are seconds for connecting and for
    each read, at most `PATIENCE_SECONDS`; ``max_workers`` connections are kept open.
    """

    def __init__(
        self,
        url: str,
        *,
        sign: Callable[[str], str] | None = None,
        max_workers: int = 16,
        timeouts: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise UsageError("The address of a CDN begins with https://")
        self.url = url.rstrip("/")
        self._sign = sign or (lambda address: address)
        self._max_workers = max_workers
        self._timeouts = tuple(min(timeout, PATIENCE_SECONDS) for timeout in timeouts)
        self._manager: Any = None
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def works(self) -> bool:
        """It is still asked."""
        return self._failures < FAILURES_MAX

    def read(self, key: str, offset: int, length: int | None, receive: Callable[[Read], bytes]) -> bytes | None:
        """The bytes of an object from ``offset``, ``length`` of them or all to its end; ``None`` where the CDN does
        not give exactly those. ``receive`` reads the body, and may raise to stop the work.
        """
        if not self.works:
            return None
        import urllib3

        address = f"{self.url}/{quote(key)}"
        headers = {"Accept-Encoding": "identity"}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        try:
            response = self._connected().request(
                "GET", self._sign(address), headers=headers, redirect=False, retries=False, preload_content=False
            )
            with response:
                data, reason = _taken(response, offset, length, receive)
        except urllib3.exceptions.HTTPError as error:
            self._failed(address, type(error).__name__)
            return None
        except Transient:
            # That took a minute: no more of them.
            self._failed(address, "too slow", FAILURES_MAX)
            return None
        if response.status in (401, 403):
            self._failed(address, str(response.status))
            return None
        self._failures = 0
        if data is None:
            _log.debug("%s: %s", address, reason)
        return data

    def close(self) -> None:
        """Frees connections; may be called twice."""
        with self._lock:
            manager, self._manager = self._manager, None
        if manager is not None:
            manager.clear()

    def _failed(self, address: str, reason: str, times: int = 1) -> None:
        with self._lock:
            worked, self._failures = self.works, self._failures + times
        _log.debug("%s: %s", address, reason)
        if worked and not self.works:
            _log.warning("%s is not asked any more (%s), as the bucket has all of it.", self.url, reason)

    def _connected(self) -> Any:
        with self._lock:
            if self._manager is None:
                self._manager = self._made()
            return self._manager

    def _made(self) -> Any:
        import urllib3

        connect, read = self._timeouts
        options: dict[str, Any] = {
            "num_pools": 2,
            "maxsize": max(1, self._max_workers),
            "timeout": urllib3.Timeout(connect=connect, read=read),
            **_certificates(),
        }
        parts = urlsplit(self.url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(parts.hostname or ""):
            return urllib3.PoolManager(**options)
        address = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        if address.auth:
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=address.auth)
        return urllib3.ProxyManager(address.url, **options)


def _taken(
    response: Any, offset: int, length: int | None, receive: Callable[[Read], bytes]
) -> tuple[bytes | None, str]:
    """The bytes that were asked for, or ``None`` and why not."""
    status = response.status
    encoding = response.headers.get("Content-Encoding", "identity")
    if status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            return None, "a part, and it does not say which"
        first, last = int(match[1]), int(match[2])
        wanted = match[3] if length is None else str(offset + length)
        if first != offset or str(last + 1) != wanted:
            return None, "another part"
    elif status != 200:
        response.drain_conn()
        return None, str(status)
    if encoding != "identity":
        return None, f"encoded as {encoding}"
    data = receive(response.read1)
    promised = response.headers.get("Content-Length", "")
    if promised.isdecimal() and int(promised) != len(data):
        return None, "cut short"
    if status == 206:
        return (data, "") if len(data) == last + 1 - first else (None, "cut short")
    if offset or length is not None:
        data = data[offset:][:length]
        if not data or (length is not None and len(data) < length):
            return None, "shorter than that"
    return data, ""


def _certificates() -> Mapping[str, str]:
    """Where ``requests`` would find the certificates of authorities, so that both trust the same."""
    own = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if own:
        return {"ca_cert_dir" if os.path.isdir(own) else "ca_certs": own}
    if find_spec("certifi") is None:
        return {}
    import certifi

    return {"ca_certs": certifi.where()}
