"""b2sdk's raw API over HTTP: keep-alive connections for all workers, our timeouts, every request made once.

b2sdk's own retries and waits are off. Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and certificates (``REQUESTS_CA_BUNDLE``)
work as everywhere. No redirect is followed, so neither token nor bytes leave for another host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from buckia.sync.body import PacedBody

COPY_SECONDS = 1200.0
"""Read timeout of a copy: the answer comes when all is copied."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the service. Timeouts are seconds; ``raw`` stands in for the HTTP client of b2sdk."""

    realm: str
    credentials: Mapping[str, str] = field(repr=False)
    max_workers: int
    connect_timeout: float
    read_timeout: float
    raw: Any = None


def as_body(data: memoryview | PacedBody) -> PacedBody:
    """Bytes as the file that b2sdk wants: one of known length, as B2 takes no body in chunks."""
    return data if isinstance(data, PacedBody) else PacedBody(data, lambda _: None)


def raw_api(connection: Connection) -> Any:
    """The raw API, ready to be called by any thread."""
    import requests
    from b2sdk.v3 import B2Http, B2HttpApiConfig, B2RawHTTPApi
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    # Otherwise the user's netrc would be read at each request, and could take the token's place.
    session.auth = lambda request: request
    session.max_redirects = 0
    # Every upload URL may have a host of its own.
    adapter = HTTPAdapter(pool_connections=connection.max_workers + 8, pool_maxsize=connection.max_workers)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # With "decode_content" the session stays as it is; bodies of downloads are read raw here in any case.
    http = B2Http(
        B2HttpApiConfig(lambda: session, install_clock_skew_hook=False, user_agent_append="buckia", decode_content=True)
    )
    http.CONNECTION_TIMEOUT = connection.connect_timeout
    make = http.request

    def request(method: str, url: str, headers: Mapping[str, str], **how: Any) -> Any:
        how["try_count"] = 1
        how["_timeout"] = COPY_SECONDS if url.endswith("/b2_copy_file") else connection.read_timeout
        if how.get("stream"):
            headers = {**headers, "Accept-Encoding": "identity"}
        return make(method, url, headers=headers, **how)

    http.request = request
    return B2RawHTTPApi(http)
