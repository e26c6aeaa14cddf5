"""The CDN edge of one pull zone: caches what the replica of its storage zone shows, and checks tokens in URLs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote, unquote_plus

from tests.servers.bunny.options import BunnyOptions
from tests.servers.bunny.zone import Content, Path, Security, StoredFile
from tests.servers.http import Answer, HttpServer, Request, part_of

_IN_PATH = "/bcdn_token="
_NOT_SIGNED = ("token", "expires")


class CdnEdge(HttpServer):
    """One edge, whose cache never forgets by itself. Query parameters do not make other objects."""

    def __init__(self, content: Content, security: Security, options: Callable[[], BunnyOptions]) -> None:
        self._content = content
        self._security = security
        self._options = options
        self._cache: dict[Path, StoredFile | None] = {}
        super().__init__()

    def answer(self, request: Request) -> Answer:
        """Serves a file from the cache, or through it."""
        if request.method not in ("GET", "HEAD"):
            return _page(405)
        options = self._options()
        path: str | None = _split(request.target)[0]
        if self._security.enabled:
            path = signed_path(request.target, self._security, request.client, options)
        if path is None:
            return _page(403)
        file, state = self._cached(tuple(unquote(path).strip("/").split("/")), options)
        if file is None or path.endswith("/"):
            return _page(404)
        headers = [("Content-Type", file.content_type), ("CDN-Cache", state)]
        answer = part_of(file.data, request.header("Range"), headers)
        if request.method == "HEAD":
            answer.length, answer.body = len(answer.body), b""
        return answer

    def purge(self, pattern: str | None, *, exact: bool) -> None:
        """Forgets the path, or where not ``exact`` all that it matches: ``*`` is any text, and more may follow after a
        slash at the end. ``None``: everything.
        """
        text = re.escape(unquote(pattern or "*").lstrip("/"))
        if not exact:
            text = text.replace(r"\*", ".*") + (".*" if text.endswith("/") else "")
        forgotten = re.compile(text, re.DOTALL)
        with self._lock:
            for path in [path for path in self._cache if forgotten.fullmatch("/".join(path))]:
                del self._cache[path]

    def _cached(self, path: Path, options: BunnyOptions) -> tuple[StoredFile | None, str]:
        with self._lock:
            if path in self._cache:
                return self._cache[path], "HIT"
            file = self._content.get_replicated(path)
            if file is not None or options.cache_missing:
                self._cache[path] = file
            return file, "MISS"


def signed_path(target: str, security: Security, client: str, options: BunnyOptions) -> str | None:
    """The path that a signed target is about, without its token; ``None`` when the token does not permit it."""
    path, parameters = _split(target)
    token, expires = parameters.get("token", ""), parameters.get("expires", "")
    if not expires.isdecimal() or int(expires) < options.clock():
        return None
    scope = parameters.get("token_path")
    if scope is not None and not path.startswith(scope):
        return None
    if not _country_permitted(parameters, options.country):
        return None
    signed = {name: value for name, value in parameters.items() if name not in _NOT_SIGNED}
    if signed.get("token_ignore_params") == "true":
        signed = {name: value for name, value in signed.items() if name in ("token_ignore_params", "token_path")}
    data = "&".join(f"{name}={value}" for name, value in sorted(signed.items()))
    addresses = _addresses(client) if security.check_address else [""]
    before = (scope or path) + expires
    good = [made for address in addresses for made in _tokens(security.key, before, data, address)]
    return path if any(hmac.compare_digest(token.encode(), one.encode()) for one in good) else None


def _tokens(key: str, before: str, data: str, address: str) -> list[str]:
    """The token of today, and the one of before, which is still accepted."""
    packed = b""
    if address:
        packed = ipaddress.ip_address(address).packed
        packed = packed[:8] + bytes(8) if len(packed) == 16 else packed
    today = hmac.digest(key.encode(), before.encode() + packed + data.encode(), "sha256")
    earlier = hashlib.sha256((key + before + data + address).encode()).digest()
    return [f"HS256-{'1-' if address else ''}{_text(today)}", _text(earlier)]


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _addresses(client: str) -> list[str]:
    """The addresses that a token may be locked to: the client's, and that of its network ending in ``.0``."""
    return [client] if ":" in client else [client, client.rpartition(".")[0] + ".0"]


def _country_permitted(parameters: Mapping[str, str], country: str) -> bool:
    allowed, blocked = parameters.get("token_countries"), parameters.get("token_countries_blocked")
    return (not allowed or country in allowed.split(",")) and (not blocked or country not in blocked.split(","))


def _split(target: str) -> tuple[str, dict[str, str]]:
    """Path without a token in it, and all parameters. A name that stands twice gets a value that nobody signed."""
    path, _, query = target.partition("?")
    if path.startswith(_IN_PATH):
        inside, slash, rest = path[1:].partition("/")
        path = slash + rest
        query = inside.removeprefix("bcdn_") + ("&" + query if query else "")
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        name = unquote_plus(name)
        parameters[name] = "\0" if name in parameters else unquote_plus(value)
    return path, parameters


def _page(status: int) -> Answer:
    return Answer(status, f"<html><h1>{status}</h1></html>".encode(), [("Content-Type", "text/html")])
