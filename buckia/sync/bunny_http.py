"""A host of Bunny over ``requests``: one key that is sent to it and nowhere else, and answers as values.

Nothing is retried and no redirect is followed, so a key never leaves for another host. Proxies (``HTTPS_PROXY``,
``NO_PROXY``) and certificates (``REQUESTS_CA_BUNDLE``) work as everywhere; ``.netrc`` is not read. What breaks on the
way is raised as an error of the closed set of `buckia.sync.base`; what the host answers is the caller's to judge.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BuckiaError,
    ObjectNotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.body import Read, read_slices
from buckia.sync.headers import foreign, retry_after
from buckia.sync.settings import checked_url

MAIN_HOST = "storage.bunnycdn.com"
REGIONS: Mapping[str, str] = {
    "de": MAIN_HOST,
    **{code: f"{code}.{MAIN_HOST}" for code in ("uk", "ny", "la", "sg", "se", "br", "jh", "syd")},
}
"""The storage host of each region in which a zone can have its primary copy."""
REGION_ALIASES: Mapping[str, str] = {"eu": "de", "eu-central": "de"}

ERROR_BYTES_MAX = 64 << 10
"""So much of the body of an error is read."""
SAID_CHARACTERS_MAX = 200

_BY_STATUS: Mapping[int, type[BuckiaError]] = {
    401: AuthenticationError,
    403: AccessDenied,
    404: ObjectNotFound,
    408: Transient,
    416: RangeNotSatisfiable,
    425: Transient,
    429: Transient,
    501: BucketError,
    505: BucketError,
    507: QuotaExceeded,
}
_NEXT_STEPS: Mapping[int, str] = {
    403: "The key was taken, and this is not allowed: see in Bunny's panel whether the account or the zone is "
    "suspended, and whether a proxy on the way answers in Bunny's place.",
    507: "There is no room left: see in Bunny's panel whether the zone or the account has reached a limit, or its "
    "credit is used up. What was sent so far is kept; sync again afterwards.",
}


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Timeouts are seconds; ``max_workers`` connections are kept open."""

    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_workers: int = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered. Names of ``headers`` are in lower case; ``said`` is its reason in words, or empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    said: str = ""

    @property
    def is_web_page(self) -> bool:
        """It is HTML, which no API of Bunny speaks: something else may have answered."""
        return "html" in self.headers.get("content-type", "").lower() or self.body.lstrip().startswith(b"<")

    def value(self, where: str) -> Any:
        """The body as JSON. What cannot be read was damaged on its way, so it is `Transient`; but for a web page or
        nothing, which Bunny never answers.
        """
        if self.is_web_page or not self.body:
            raise foreign(where, "Bunny")
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Transient(f"{where}: the answer cannot be read: {error}.") from error

    def problem(self, where: str) -> BuckiaError:
        """The error that an answer means which is not the one that was wanted, by its status alone."""
        if self.status < 300:
            return foreign(where, "Bunny")
        reason = self.said or _phrase(self.status)
        if 300 <= self.status < 400:
            return BucketError(
                f"{where}: {self.status}: it is somewhere else.",
                hint="Redirects are not followed: name the host itself.",
            )
        kind = _BY_STATUS.get(self.status) or (Transient if self.status >= 500 else BucketError)
        message = f"{where}: {self.status}: {reason}"
        if kind is Transient:
            wish = retry_after(self.headers)
            return Transient(message, retry_after=wish, throttled=self.status == 429 or wish is not None)
        return kind(message, hint=_NEXT_STEPS.get(self.status))


class BunnyHost:
    """The host at ``url``; ``where`` names it in messages. Without a key a request raises ``keyless``.

    Methods are safe to call from several threads. Nothing is sent or imported before the first request.
    """

    def __init__(
        self, url: str, key: str | None, *, where: str, keyless: AuthenticationError, options: HttpOptions
    ) -> None:
        self.url = url
        self.where = where
        self._key = _checked_key(key, where)
        self._keyless = keyless
        self._options = options
        self._session: Any = None
        self._lock = threading.Lock()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = b"",
        receive: Callable[[Read], bytes] | None = None,
    ) -> Answer:
        """Makes one request; ``path`` is encoded already. Any status is an answer. ``receive`` reads its body.

        Raises `Transient` when there was none or it was cut short, `BucketError` where no connection can be made.
        """
        import urllib3

        session = self._connected()
        try:
            with session.request(
                method,
                self.url + path,
                params=query,
                headers=headers,
                data=body,
                stream=True,
                allow_redirects=False,
                timeout=(self._options.connect_timeout, self._options.read_timeout),
            ) as response:
                return self._taken(response, receive)
        except (OSError, urllib3.exceptions.HTTPError) as error:  # all that requests raises are OSErrors
            raise broken(error, self.where) from error

    @property
    def key(self) -> str:
        """The key, for who else speaks to this host."""
        if self._key is None:
            raise self._keyless
        return self._key

    def close(self) -> None:
        """Frees connections; may be called twice."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _taken(self, response: Any, receive: Callable[[Read], bytes] | None) -> Answer:
        def read(count: int) -> bytes:
            data: bytes = response.raw.read1(count, decode_content=True)
            return data

        headers = {name.lower(): value for name, value in response.headers.items()}
        status: int = response.status_code
        if status >= 300:
            body = response.raw.read(ERROR_BYTES_MAX, decode_content=True)
            return Answer(status, headers, body, self._said(body))
        body = receive(read) if receive is not None else read_slices(read, lambda count: None, self.where)
        promised = headers.get("content-length", "")
        if promised.isdecimal() and "content-encoding" not in headers and int(promised) != len(body):
            raise Transient(f"{self.where}: {len(body)} bytes arrived instead of {promised}.")
        return Answer(status, headers, body)

    def _said(self, body: bytes) -> str:
        """The reason that the body of an error gives: ``{"Message": ...}``, or plain text; without the key."""
        text = body.decode(errors="replace").strip()
        if text.startswith("<"):
            return ""
        try:
            found = json.loads(text)
            text = str(found.get("Message") or "") if isinstance(found, dict) else ""
        except ValueError:
            text = text.partition("\n")[0]
        if self._key:
            text = text.replace(self._key, "***")
        return text[:SAID_CHARACTERS_MAX].rstrip(". ")

    def _connected(self) -> Any:
        key = self.key
        with self._lock:
            if self._session is None:
                self._session = self._made(key)
            return self._session

    def _made(self, key: str) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        def authorise(request: Any) -> Any:
            request.headers["AccessKey"] = key
            return request

        session = requests.Session()
        session.headers.update({"User-Agent": "buckia", "Accept": "*/*", "Accept-Encoding": "identity"})
        # Also keeps requests from looking into .netrc for each request.
        session.auth = authorise
        pool = HTTPAdapter(pool_connections=2, pool_maxsize=max(1, self._options.max_workers), max_retries=0)
        for scheme in ("https://", "http://"):
            session.mount(scheme, pool)
        return session


def broken(error: Exception, where: str) -> BuckiaError:
    """The error that an exception of ``requests`` or ``urllib3`` means: there was no answer, or not a whole one."""
    import requests

    reason = _reason(error)
    if isinstance(error, requests.exceptions.SSLError) and "EOF" not in str(error):
        return BucketError(
            f"{where}: the connection is not secure: {reason}.",
            hint="REQUESTS_CA_BUNDLE names a file with the certificates of your own authority.",
        )
    setup = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)
    ours = isinstance(error, OSError) and not isinstance(
        error, (requests.RequestException, ConnectionError, TimeoutError)
    )
    if ours or isinstance(error, setup):
        # Nothing was sent: a file of certificates that is not there, an address that is none.
        return BucketError(f"{where}: {error}.")
    return Transient(f"{where}: {reason}.")


def storage_url(region: str | None, endpoint: str | None) -> str:
    """The address of a storage host. ``endpoint`` wins, except for the main host, which names no region."""
    if endpoint is not None:
        url = checked_url(endpoint, "A storage host")
        if urlsplit(url).hostname != MAIN_HOST:
            return url
    code = (region or "de").strip().lower()
    host = REGIONS.get(REGION_ALIASES.get(code, code))
    if host is None:
        raise UsageError(f"Bunny has no storage region {region!r}.", hint=f"Known are {', '.join(sorted(REGIONS))}.")
    return f"https://{host}"


def _checked_key(key: str | None, where: str) -> str | None:
    """A key that can be a header's value: HTTP libraries show what they refuse."""
    text = (key or "").strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise AuthenticationError(f"{where}: the key holds characters that no key has.")
    return text or None


def _reason(error: BaseException) -> str:
    """In words what the operating system said, which libraries wrap several times."""
    import requests
    import urllib3

    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in seen:
            seen.append(item)
            queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    for item in reversed(seen):
        if isinstance(item, OSError) and item.strerror:
            return str(item.strerror)
    return "no answer came in time" if any(isinstance(item, timeouts) for item in seen) else "the connection broke"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"
