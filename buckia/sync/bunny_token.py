"""Signed URLs of Bunny's CDN: tokens that a pull zone with token authentication asks for. Pure functions.

The scheme of today is an HMAC-SHA-256 of path, time of expiry, address and parameters; the one of before, a plain
SHA-256 that begins with the key, is still accepted and made with ``legacy``.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from buckia.errors import UsageError

_NETWORK_BYTES = 8
"""A token for an IPv6 address is one for its /64."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a signed URL permits beyond its own path and time; the defaults add nothing."""

    directory: str | None = None
    """A path (``/photos/``): the token is good for everything whose path begins so."""
    ip: str | None = None
    """Only this address may use it. The pull zone must have IP validation on; IPv4 ending in ``.0`` means the /24."""
    countries: Sequence[str] = ()
    """Only from these, as two letters each."""
    blocked_countries: Sequence[str] = ()
    """Not from these."""
    limit: int | None = None
    """kB per second."""
    ignore_params: bool = False
    """Other parameters of the URL are not signed, and dropped."""
    in_path: bool = False
    """The token stands in the path instead of the query, so that relative links of what is read keep it."""
    legacy: bool = False
    """The scheme of before."""


def sign_url(url: str, key: str, expires: int, rules: TokenRules | None = None) -> str:
    """``url`` with a token that is good until ``expires`` (Unix seconds); ``key`` is that of the pull zone.

    The path must be encoded as it is requested. Raises `UsageError` for what cannot be signed.
    """
    rules = rules or TokenRules()
    parts = urlsplit(url)
    path = parts.path or "/"
    if not key or expires <= 0:
        raise UsageError("A signed URL needs a key and a time of expiry.")
    if rules.directory is not None and not path.startswith(rules.directory):
        raise UsageError(f"A token for {rules.directory} is no good for {path}.")
    parameters = sorted(_parameters(parts.query, rules).items())
    signed = "&".join(f"{name}={value}" for name, value in parameters)
    token = _token(key, f"{rules.directory or path}{expires}", signed, rules)
    shown = "".join(f"&{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)
    base = f"{parts.scheme}://{parts.netloc}"
    if rules.in_path:
        return f"{base}/bcdn_token={token}{shown}&expires={expires}{path}"
    return f"{base}{path}?token={token}{shown}&expires={expires}"


def _token(key: str, before: str, signed: str, rules: TokenRules) -> str:
    if rules.legacy:
        return _text(hashlib.sha256(f"{key}{before}{signed}{rules.ip or ''}".encode()).digest())
    address = b""
    if rules.ip is not None:
        try:
            address = ipaddress.ip_address(rules.ip).packed
        except ValueError:
            raise UsageError(f"{rules.ip!r} is no IP address.") from None
        if len(address) > 4:
            address = address[:_NETWORK_BYTES] + bytes(len(address) - _NETWORK_BYTES)
    digest = hmac.digest(key.encode(), before.encode() + address + signed.encode(), "sha256")
    return f"HS256-{'1-' if address else ''}{_text(digest)}"


def _parameters(query: str, rules: TokenRules) -> dict[str, str]:
    """What is signed beside path and time, by name."""
    wanted = {
        "token_countries": ",".join(rules.countries),
        "token_countries_blocked": ",".join(rules.blocked_countries),
        "limit": str(rules.limit or ""),
    }
    pairs = [*parse_qsl(query, keep_blank_values=True), *((name, value) for name, value in wanted.items() if value)]
    if rules.ignore_params:
        pairs = [("token_ignore_params", "true")]
    if rules.directory is not None:
        pairs.append(("token_path", rules.directory))
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1 or name in ("token", "expires"):
            raise UsageError(f"The parameter {name!r} of a URL cannot be signed: it has another value already.")
    return dict(pairs)


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest).decode().rstrip("=")
