"""Bunny.net: a storage zone through the Storage API, and the CDN in front of it.

**What makes a put trustworthy.** Each carries its SHA-256 (``Checksum``), and Bunny answers 201. What it answers when
the two do not fit is documented as 400, and was seen as 201 with nothing stored. So a 201 alone proves nothing: with
``verify_puts`` (the default) each put is followed by a DESCRIBE, which tells size and SHA-256 of what is stored. It is
one small request, free of charge; a listing would grow with the directory, and reading back would double the traffic:
that is done only where no SHA-256 is told.
If that request fails the put is `Transient`; tried again, it begins with the DESCRIBE, so that no body is sent twice
for a lost answer of the second request. Without ``verify_puts`` a 201 is believed. A host that knows no DESCRIBE is
asked for the listing of the directory instead, which is dear: better to go without there.

Directories come into being with the objects in them, and stay when those are deleted. They are never deleted here, as
Bunny deletes a directory with all that is in it: no path of a DELETE ever ends with a slash.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from buckia.errors import BucketError, BuckiaError, MissingExtraError, ObjectNotFound, Transient, UsageError
from buckia.sync.base import Attempt, BaseSync, Capabilities, ObjectInfo, Page, Verb, check_key
from buckia.sync.bunny_admin import BunnyAdmin, Zones
from buckia.sync.bunny_errors import no_account_key, no_password, refusal
from buckia.sync.bunny_http import REGIONS, Answer, BunnyHost, HttpOptions, storage_url
from buckia.sync.bunny_options import BunnyOptions as BunnyOptions
from buckia.sync.bunny_package import BunnyPackage, require
from buckia.sync.bunny_token import sign_url
from buckia.sync.cdn import CdnReader
from buckia.sync.files import PART_BYTES, FilePart, LocalFile
from buckia.sync.settings import checked_url

_CDN_DOMAIN = "b-cdn.net"
_READ_SECONDS = 3600
"""For so long a URL is signed that is read at once."""
_UNSAFE = frozenset('"<>#%?\\')
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PART = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BunnySync(BaseSync):
    """The storage zone ``zone``, at the host of its ``region`` (``de`` without one) or at ``endpoint``.

    ``endpoint`` is a host, for which https is meant, or a URL; ``storage.bunnycdn.com`` leaves it to the region.
    ``credentials`` has ``storage_api_key`` (or ``password``), the password of the zone; ``api_key``, the key of the
    account, for `admin`; ``token_key``, with which URLs of the pull zone are signed. The first two are sent to their
    own host only, the last one nowhere.
    """

    paces_bodies: ClassVar[bool] = True

    def __init__(
        self,
        zone: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        options: BunnyOptions | None = None,
    ) -> None:
        self._options = options = options or BunnyOptions()
        if find_spec("requests") is None:
            raise MissingExtraError("Bunny needs the package requests.", hint='pip install "buckia[bunny]"')
        if not _ZONE.fullmatch(zone):
            raise UsageError(f"{zone!r} can be no storage zone.")
        packaged = options.transport == "bunnycdnpython"
        if packaged:
            require()
        url = storage_url(region, endpoint)
        known = urlsplit(url).hostname in REGIONS.values()
        super().__init__(
            f"bunny://{zone}" + ("" if known else f"?endpoint={url}"),
            Capabilities(
                range_get=not packaged,
                list_consistent=False,  # so it is in practice; nobody promises it
                object_bytes_max=options.object_bytes_max,
                digest_in_listing="sha256",
                # Of 5 listings, 30 deletes and 100 connections that Bunny allows.
                concurrency={"list": 4, "delete": 16, "put": 64, "get": 64},
            ),
        )
        self._zone = zone
        held = {name: value for name, value in (credentials or {}).items() if value}
        password = held.get("storage_api_key") or held.get("password")
        self._token_key = held.get("token_key")
        http = HttpOptions(options.connect_timeout, options.read_timeout, options.max_workers)
        self._host = BunnyHost(url, password, where=self.location, keyless=no_password(zone), options=http)
        self._cdn_url = options.cdn_url and checked_url(options.cdn_url, "A CDN's address")
        if self._cdn_url:
            sign = self._signed_for_a_read if self._token_key else None
            timeouts = (options.connect_timeout, options.read_timeout)
            self.cdn = CdnReader(self._cdn_url, sign=sign, max_workers=options.max_workers, timeouts=timeouts)
        api = checked_url(options.api_url, "The Core API's address")
        self._core = BunnyHost(api, held.get("api_key"), where=api, keyless=no_account_key(), options=http)
        self.admin = BunnyAdmin(self.location, self._core, Zones(zone, options.pull_zone, self._cdn_url or None))
        self._package = BunnyPackage(self._host, zone) if packaged else None
        self._describes = True
        self._unproven: dict[str, str] = {}
        """Digests of puts that were answered by 201 and whose DESCRIBE failed, by key."""

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        return self._stored(key, data, hashlib.sha256(data).hexdigest())

    def _stored(self, key: str, data: memoryview | FilePart, digest: str) -> ObjectInfo:
        if self._unproven.pop(key, None) != digest:
            self._send(key, data, digest)
            if not self._options.verify_puts and self._package is None:
                return ObjectInfo(key, len(data), digest, {"sha256": digest})
            self._count("stat")
        self._unproven[key] = digest
        try:
            stored = self._stat(key)
        except ObjectNotFound:
            stored = None
        self._unproven.pop(key, None)
        if (
            stored is None
            or not _fits(stored, len(data), digest)
            or not (stored.digests or self._holds(stored, digest))
        ):
            raise Transient(f"{self.location}: {key}: what is stored there is not what was sent.")
        return stored

    def _holds(self, stored: ObjectInfo, digest: str) -> bool:
        """Reads back what nobody tells the digest of: a size alone proves nothing."""
        found = hashlib.sha256()
        for offset in range(0, stored.size, PART_BYTES):
            found.update(self.get(stored.key, offset=offset, length=min(PART_BYTES, stored.size - offset)))
        return found.hexdigest() == digest

    def upload_file(
        self, local_path: str | os.PathLike[str], key: str, *, attempt: Attempt = lambda verb, call: call()
    ) -> ObjectInfo:
        """Writes a local file as one object, of any size within the limit: it is read while it is sent. Raises
        `LocalError` if the file is changed while it is read.
        """
        if self._package is not None:
            return super().upload_file(local_path, key, attempt=attempt)
        check_key(key)
        file = LocalFile(Path(local_path))
        if file.size > self.capabilities.object_bytes_max:
            raise BucketError(f"{file.path} is larger than one object may be there.")
        with file.part(0, file.size, lambda _: None) as whole:
            digest = whole.digest("sha256").hex()

        def send() -> ObjectInfo:
            with file.part(0, file.size, self._uploading) as body, self._request("put", key):
                info = self._stored(key, body, digest)
            self._count_bytes(uploaded=file.size)
            return info

        stored: ObjectInfo = attempt("put", send)
        return stored

    def _uploading(self, count: int) -> None:
        if self.pacer is not None and self.pacer.limits_bytes:
            self.pacer.uploading(count)

    def _send(self, key: str, data: memoryview | FilePart, digest: str) -> None:
        path = self._path(key)
        if self._package is not None and isinstance(data, memoryview):
            if self.pacer is not None:
                self.pacer.uploading(len(data))
            answer = self._package.put(key, data)
        else:
            headers = {"Checksum": digest.upper(), "Content-Type": "application/octet-stream"}
            if self._options.content_type:
                headers["Override-Content-Type"] = self._options.content_type
            answer = self._host.ask(
                "PUT", path, headers=headers, body=self._body(data) if isinstance(data, memoryview) else data
            )
        if answer.status != 201:
            raise self._refusal(answer, "put", key)

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        path = self._path(key)
        if self._package is not None:
            return self._checked(key, self._package.get(key))
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        answer = self._host.ask("GET", path, headers=headers, receive=self._received)
        if answer.status == 206:
            return self._part(answer, key, offset, length)
        if answer.status != 200:
            raise self._refusal(answer, "get", key)
        if answer.body in (b"", b"[]") or answer.is_web_page:
            # So a directory may look that is asked for like an object, and so any other server.
            self._count("stat")
            self._prove(self._stat(key), answer.body, key)
        return answer.body[offset:][:length] if headers else answer.body

    def _part(self, answer: Answer, key: str, offset: int, length: int | None) -> bytes:
        match = _PART.fullmatch(answer.headers.get("content-range", ""))
        end = str(offset + len(answer.body))
        # Of a part with a length the base class sees whether it is whole.
        if match and (int(match[1]) != offset or (length is None and match[2] != end)):
            raise Transient(f"{self.location}: {key}: another part came than was asked for.")
        return answer.body

    def _stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        if self._describes:
            answer = self._host.ask("DESCRIBE", path, headers={"Accept": "application/json"})
            if answer.status not in (405, 501):
                return self._described(answer, key)
            # Bunny does not document DESCRIBE, though its own libraries use it.
            self._describes = False
            self._count("list")
        for info in self._list(key, None).objects:
            if info.key == key:
                return info
        raise ObjectNotFound(f"{self.location} holds no {key}.")

    def _described(self, answer: Answer, key: str) -> ObjectInfo:
        if answer.status != 200:
            raise self._refusal(answer, "stat", key)
        found = answer.value(self.location)
        if not isinstance(found, dict) or not found.get("Guid") or found.get("IsDirectory"):
            raise ObjectNotFound(f"{self.location} holds no {key}.")
        return self._info(key, found)

    def _list(self, prefix: str, token: str | None) -> Page:
        """The directory in which ``prefix`` ends, or that of the token; tokens are directories below it."""
        directory = prefix.rpartition("/")[0] if token is None else token
        path = "/" + "".join(f"{quote(name, safe='')}/" for name in (self._zone, *directory.split("/")) if name)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        answer = self._host.ask("GET", path, headers=headers)
        if answer.status == 404 and not answer.is_web_page:
            return Page(())
        if answer.status != 200:
            raise self._refusal(answer, "list", directory or "the zone")
        found = answer.value(self.location)
        if not isinstance(found, list):
            raise BucketError(f"{self.location}: what came is no listing of {directory or 'the zone'}.")
        objects: list[ObjectInfo] = []
        more: list[str] = []
        above = f"{directory}/" if directory else ""
        for entry in found:
            key = above + self._name(entry, directory)
            if entry.get("IsDirectory"):
                if f"{key}/".startswith(prefix):
                    more.append(key)
            elif key.startswith(prefix):
                objects.append(self._info(key, entry))
        return Page(objects, more)

    def _name(self, entry: Any, directory: str) -> str:
        name = entry.get("ObjectName") if isinstance(entry, dict) else None
        try:
            valid = isinstance(name, str) and name.encode() and name not in (".", "..") and "/" not in name
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise BucketError(f"{self.location}: {directory or 'the zone'} lists a name that is none: {name!r}.")
        return str(name)

    def _info(self, key: str, entry: Mapping[str, Any]) -> ObjectInfo:
        size = entry.get("Length")
        if not isinstance(size, int) or size < 0:
            raise BucketError(f"{self.location}: {key}: {size!r} is no size.")
        digest = str(entry.get("Checksum") or "").lower()
        digests = {"sha256": digest} if _SHA256.fullmatch(digest) else {}
        changed = entry.get("LastChanged")
        return ObjectInfo(key, size, digests.get("sha256") or str(changed), digests, _seconds(changed))

    def _delete(self, key: str) -> None:
        path = self._path(key)
        answer = self._host.ask("DELETE", path) if self._package is None else self._package.delete(key)
        if answer.status not in (200, 204, 404):
            raise self._refusal(answer, "delete", key)
        if self._package is None:
            return
        self._count("stat")
        try:
            self._stat(key)
        except ObjectNotFound:
            return
        raise Transient(f"{self.location}: {key} is still there after it was deleted.")

    def _close(self) -> None:
        self._host.close()
        self._core.close()

    def get_public_url(self, key: str) -> str | None:
        """Where the CDN has the object, if the settings tell: ``cdn_url``, or the name of the pull zone."""
        check_key(key)
        address = self._cdn_address()
        return None if address is None else f"{address}/{quote(key)}"

    def signed_url(self, key: str, expires: int) -> str:
        """An address at the CDN at which anybody can read the object for ``expires`` seconds."""
        url = self.get_public_url(key)
        if url is None or not self._token_key:
            raise UsageError(
                f"{self.location} has no signed URLs without a CDN's address and its key.",
                hint="Set cdn_url, or pull_zone to the pull zone's name; and token_key to the key of its tokens.",
            )
        if expires < 1:
            raise UsageError("A URL is good for one second at least.")
        return sign_url(url, self._token_key, int(time.time()) + expires)

    def _signed_for_a_read(self, address: str) -> str:
        return sign_url(address, self._token_key or "", int(time.time()) + _READ_SECONDS)

    def _cdn_address(self) -> str | None:
        name = self._options.pull_zone
        if self._cdn_url or not name or name.isdecimal():
            return self._cdn_url or None
        return f"https://{quote(name, safe='')}.{_CDN_DOMAIN}"

    def _checked(self, key: str, answer: Answer) -> bytes:
        """The bytes that the package fetched, if they are those that are stored."""
        if answer.status != 200:
            raise self._refusal(answer, "get", key)
        if self.pacer is not None:
            self.pacer.downloading(len(answer.body))
        self._count("stat")
        self._prove(self._stat(key), answer.body, key)
        return answer.body

    def _prove(self, stored: ObjectInfo, body: bytes, key: str) -> None:
        if not _fits(stored, len(body), hashlib.sha256(body).hexdigest()):
            raise Transient(f"{self.location}: {key}: what came is not what is stored there.")

    # What is asked, and what is answered.

    def _path(self, key: str) -> str:
        """The key in a URL. Raises `UsageError` for names that Bunny refuses, or mangles as its users found out."""
        names = key.split("/")
        for name in names:
            if not name.strip() or name[0] in "~." or name[-1] == "." or not _UNSAFE.isdisjoint(name):
                raise UsageError(
                    f"Bunny stores no object of the name {key!r}.",
                    hint='Its names do not hold " < > # % ? or \\, begin with a dot or ~, or end with a dot.',
                )
        return "/" + "/".join(quote(name, safe="") for name in (self._zone, *names))

    def _refusal(self, answer: Answer, verb: Verb, key: str) -> BuckiaError:
        return refusal(answer, verb, key, self.location, self._host.url)


def _fits(stored: ObjectInfo, size: int, digest: str) -> bool:
    """Whether that is stored; an object without a digest is known by its size."""
    return stored.size == size and stored.digests.get("sha256", digest) == digest


def _seconds(text: object) -> float | None:
    """Seconds since 1970; times that name no zone are UTC."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
