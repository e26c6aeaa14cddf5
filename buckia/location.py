"""LOCATION: one folder of a bucket in one argument, as ``--to`` and ``--from`` take it.

A location is a directory, whose parent is the bucket and whose name is the folder, or a URL whose last path part is the
folder::

    ../backup/photos
    s3://BUCKET/FOLDER                             AWS, region and credentials from the usual places
    s3://BUCKET/A/B/FOLDER?endpoint=HOST&region=R  any S3-compatible store; A/B is a prefix of all keys
    linode://BUCKET/FOLDER?region=CLUSTER          Linode; or endpoint=HOST
    b2://BUCKET/FOLDER                             Backblaze B2
    bunny://ZONE/FOLDER?region=de                  Bunny's storage
    memory://NAME/FOLDER                           lives as long as the process; for tests and examples
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from buckia.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ALMOST = re.compile(r"([A-Za-z][A-Za-z0-9]+):(?!//)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_QUERY = {
    "s3": ("endpoint", "region", "path_style"),
    "linode": ("endpoint", "region"),
    "b2": ("endpoint",),
    "bunny": ("endpoint", "region"),
}
"""Providers that have locations, and their parameters."""
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_FOLDER_BYTES_MAX = 255


def check_folder_id(text: str) -> str:
    """Return ``text`` if it can name a folder: one path component that is not ours and not special.

    Raises ValueError with a clause that fits behind the folder's name.
    """
    if text in ("", ".", ".."):
        raise ValueError("is no name for a folder")
    if "/" in text or "\\" in text:
        raise ValueError("must be one path component, without slashes")
    if text.casefold().startswith("_buckia"):
        raise ValueError("is reserved: names that begin with '_buckia' are our own")
    if text != text.strip():
        raise ValueError("begins or ends with white space")
    if any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text):
        raise ValueError("holds control characters")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None
    if size > _FOLDER_BYTES_MAX:
        raise ValueError(f"is longer than {_FOLDER_BYTES_MAX} bytes")
    return text


def check_prefix(text: str) -> str:
    """Return ``text`` as a path in a bucket, without slashes around it. Raises ValueError."""
    for part in text.strip("/").split("/"):
        try:
            check_folder_id(part)
        except ValueError as problem:
            raise ValueError(f"holds '{part}', which {problem}") from None
    return text.strip("/")


def check_endpoint(text: str) -> str:
    """Return ``text`` as ``http(s)://host[:port][/path]``, https if it states none. Raises ValueError."""
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a host or URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("is not a host or an http(s) URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials")
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("is not a plain host or URL")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder in a bucket, named completely.

    ``settings`` are keyword arguments of ``BucketConfig`` beside ``provider``; a location cannot hold credentials.
    """

    provider: str
    settings: Mapping[str, str | bool]
    folder: str
    display: str
    """For messages: the location in its plain form, safe to print and to type again."""

    @classmethod
    def parse(cls, text: str, *, base: Path | None = None) -> Location:
        """Read a location; directories are relative to ``base`` (default: the current directory). Raises UsageError."""
        if not text.strip() or "\0" in text:
            raise UsageError("The location is empty.", hint="Name a directory or a URL such as s3://BUCKET/FOLDER.")
        match = _SCHEME.match(text)
        if match is None:
            almost = _ALMOST.match(text)
            if almost is not None and almost.group(1).lower() in (*_QUERY, "memory"):
                rest = text[almost.end() :].lstrip("/")
                raise UsageError(
                    f"'{text}' lacks the slashes of a location: did you mean {almost.group(1).lower()}://{rest}?",
                    hint=f"A directory of that name is ./{text}.",
                )
            return _directory(text, base)
        scheme = match.group(1).lower()
        if scheme == "memory":
            return _memory(text)
        if scheme not in _QUERY:
            raise UsageError(
                f"'{scheme}://' is no kind of location that buckia knows.",
                hint=f"Known are directories and {', '.join(f'{name}://' for name in _QUERY)}, "
                "such as s3://BUCKET/FOLDER.",
            )
        return _bucket(scheme, text)


def _directory(text: str, base: Path | None) -> Location:
    try:
        path = (base or Path.cwd()) / Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"No home directory is known for '{text}'.") from None
    if ".." in path.parts:
        path = path.resolve()
    if path.parent == path:
        raise UsageError(
            f"'{path}' cannot be a location.",
            hint="Name a directory below it: its parent is the bucket, its name the folder.",
        )
    return Location("local", {"bucket_name": str(path.parent)}, _folder(path.name, text), str(path))


def _folder(name: str, text: str) -> str:
    try:
        return check_folder_id(name)
    except ValueError as problem:
        raise UsageError(f"The folder '{name}' of the location '{text}' {problem}.") from None


def _url(text: str, *, allowed: tuple[str, ...]) -> tuple[str, list[str], dict[str, str]]:
    """(host part, decoded path components, query) of a location URL; never echoes what may be a secret."""
    try:
        text.encode()
        parts = urlsplit(text)
    except UnicodeEncodeError:
        raise UsageError("The location is not valid Unicode.") from None
    except ValueError:
        raise UsageError("The location is not a valid URL.") from None
    if "@" in parts.netloc:
        raise UsageError(
            "A location must not hold credentials: they would show up in the process list and in logs.",
            hint="Keep them in the environment or the keyring (`buckia auth set`), or write a configuration file.",
        )
    if parts.fragment:
        raise UsageError(f"The location '{text}' holds a '#'; write it as %23.")
    query: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            known = f"Did you mean '{near[0]}'?" if near else f"Known are: {', '.join(allowed) or 'none'}."
            raise UsageError(f"A location of this kind has no parameter '{key}'.", hint=known)
        if key in query:
            raise UsageError(f"The parameter '{key}' stands twice in the location.")
        if not value:
            raise UsageError(f"The parameter '{key}' of the location is empty.")
        query[key] = value
    return parts.netloc, [unquote(part) for part in parts.path.split("/") if part], query


def _bucket(scheme: str, text: str) -> Location:
    allowed = _QUERY[scheme]
    bucket, path, query = _url(text, allowed=allowed)
    if not _BUCKET.fullmatch(bucket) or not path:
        example = "&".join(f"{name}=..." for name in allowed[:2])
        raise UsageError(f"'{text}' names no bucket and folder.", hint=f"Write {scheme}://BUCKET/FOLDER?{example}")
    settings: dict[str, str | bool] = {"bucket_name": bucket}
    folder = _folder(path[-1], text)
    if len(path) > 1:
        # Each part is checked by itself, as one may hold an escaped slash.
        settings["prefix"] = "/".join(_folder(part, text) for part in path[:-1])
    shown: dict[str, str] = {}
    if "endpoint" in query:
        try:
            settings["endpoint"] = shown["endpoint"] = check_endpoint(query["endpoint"])
        except ValueError as problem:
            raise UsageError(f"The endpoint of the location {problem}.") from None
    if "region" in query:
        settings["region"] = shown["region"] = query["region"]
    if "path_style" in query:
        if query["path_style"].lower() not in _TRUTH:
            raise UsageError("The parameter 'path_style' of the location must be 1 or 0.")
        settings["path_style"] = _TRUTH[query["path_style"].lower()]
        shown["path_style"] = str(int(settings["path_style"]))
    display = f"{scheme}://{bucket}/{'/'.join(quote(part) for part in path)}"
    if shown:
        display += f"?{urlencode(shown, safe=':/')}"
    return Location(scheme, settings, folder, display)


def _memory(text: str) -> Location:
    name, path, _ = _url(text, allowed=())
    if not _BUCKET.fullmatch(name) or len(path) != 1:
        raise UsageError(f"'{text}' names no store and folder.", hint="Write memory://NAME/FOLDER.")
    return Location("memory", {"bucket_name": name}, _folder(path[0], text), f"memory://{name}/{quote(path[0])}")
