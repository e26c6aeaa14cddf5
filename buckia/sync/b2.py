"""Backblaze B2 through its native protocol, spoken by b2sdk.

Every upload carries its SHA-1, which B2 checks, and listings carry it too. A put makes a new version of the name and
never touches the old one, and a delete hides the name: the versions below stay and cost storage until a lifecycle rule
or `B2Admin.delete_hidden` removes them. There are no conditional writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from buckia.errors import BucketError, BuckiaError, MissingExtraError, ObjectNotFound, UsageError
from buckia.sync.b2_account import B2Account
from buckia.sync.b2_admin import B2Admin
from buckia.sync.b2_file import FILE_BYTES_MAX, PARTS_AT_ONCE, LargeUpload, LocalFile
from buckia.sync.b2_http import Connection
from buckia.sync.base import Attempt, BaseSync, Capabilities, ObjectInfo, Page, Verb, check_key
from buckia.sync.settings import check_seconds, check_text, checked_url

REALM = "https://api.backblazeb2.com"
"""Where accounts are authorised; the answer says where all else is."""
OBJECT_BYTES_MAX = 5 * 10**9
"""Largest file of one upload, and of one copy."""
SEGMENT_BYTES_MAX = 250
"""Longest part of a name between two slashes."""
SIGNED_SECONDS_MAX = 7 * 24 * 3600
"""Longest life of a signed address."""
LIST_COUNT = 10_000
"""Names per page: the most. Pages are billed per 1,000."""
VERSIONS_COUNT = 100
"""Versions per page when those of one name are looked for; one billed request has up to 1,000."""
WHOLE_BYTES_MAX = 32 << 20
"""Largest local file that is sent, and held in memory, as one."""

CAPABILITIES = Capabilities(
    # Immediate in practice, and nowhere promised.
    list_consistent=False,
    object_bytes_max=OBJECT_BYTES_MAX,
    digest_in_listing="sha1",
    copy=True,
    concurrency={"put": 16, "get": 16, "list": 2, "delete": 16},
    # New accounts may make 500 uploads and 500 downloads per second.
    requests_per_second=400.0,
    burst=100,
)


@dataclass(frozen=True, slots=True)
class B2Options:
    """How to use a bucket. Timeouts are seconds. Raises `UsageError` for values that make no sense."""

    delete: Literal["hide", "versions"] = "hide"
    """What a delete does: hide the name, or delete all of its versions, which needs the capability ``deleteFiles``."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_workers: int = 16
    """Connections that are kept open per host."""
    cdn_url: str | None = None
    """Address of a CDN at which a key stands for its object: ``https://CDN/file/BUCKET`` in front of B2's own hosts."""

    def __post_init__(self) -> None:
        if self.delete not in ("hide", "versions"):
            raise UsageError(f"b2_delete is hide or versions, not {self.delete!r}.")
        check_text(self, "cdn_url")
        check_seconds(self, "connect_timeout", "read_timeout")


class B2Sync(BaseSync):
    """A bucket of B2. ``credentials`` has the application key's id as ``access_key_id`` and the key itself as
    ``secret_access_key``.

    ``endpoint`` is the address at which the account is authorised, if it is not `REALM`; ``region`` says nothing, as
    the account knows where it lives. ``api`` stands in for b2sdk's raw API, such as its simulator. Nothing is sent
    before the first request.
    """

    paces_bodies = True

    def __init__(
        self,
        bucket_name: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        options: B2Options | None = None,
        api: Any = None,
    ) -> None:
        if not _installed():
            raise MissingExtraError("B2 needs the package b2sdk.", hint='pip install "buckia[b2]"')
        self._options = options or B2Options()
        realm = REALM if endpoint is None else _checked_realm(endpoint)
        where = "" if realm == REALM else f"?endpoint={realm}"
        super().__init__(f"b2://{bucket_name}{where}", CAPABILITIES)
        connection = Connection(
            realm=realm,
            credentials=dict(credentials or {}),
            max_workers=max(1, self._options.max_workers),
            connect_timeout=self._options.connect_timeout,
            read_timeout=self._options.read_timeout,
            raw=api,
        )
        self._account = B2Account(bucket_name, self.location, connection, self._count)
        self.admin = B2Admin(self._account)
        if self._options.cdn_url is not None:
            from buckia.sync.cdn import CdnReader

            self._cdn_url = checked_url(self._options.cdn_url, "The address of a CDN")
            timeouts = (self._options.connect_timeout, self._options.read_timeout)
            self.cdn = CdnReader(self._cdn_url, max_workers=connection.max_workers, timeouts=timeouts)

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        return self._uploaded(key, data, {})

    def _uploaded(self, key: str, data: memoryview, info: Mapping[str, str]) -> ObjectInfo:
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        stored = _info(self._account.upload(key, sha1, info, self._body(data)))
        if (stored.key, stored.size, stored.digests.get("sha1")) != (key, len(data), sha1):
            raise self._account.unequal(key)
        return stored

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        part = None
        if offset or length is not None:
            # An end behind that of the file means the end of the file.
            part = (offset, (FILE_BYTES_MAX if length is None else offset + length) - 1)
        with closing(self._account.download(key, part)) as response:
            return self._received(response.raw.read1)

    def _stat(self, key: str) -> ObjectInfo:
        headers = self._account.head(key)
        sha1, whole = headers.get("x-bz-content-sha1"), headers.get("x-bz-info-large_file_sha1")
        return ObjectInfo(
            key,
            int(headers["content-length"]),
            headers["x-bz-file-id"],
            _digests(sha1, whole),
            int(headers["x-bz-upload-timestamp"]) / 1000,
        )

    def _list(self, prefix: str, token: str | None) -> Page:
        answer = self._account.call(
            "list_file_names",
            self._account.bucket_id,
            start_file_name=token,
            max_file_count=LIST_COUNT,
            prefix=prefix,
            key=prefix,
        )
        more = answer["nextFileName"]
        return Page([_info(entry) for entry in answer["files"]], [] if more is None else [more])

    def _delete(self, key: str) -> None:
        if self._options.delete == "versions":
            self._delete_versions(key)
            return
        with suppress(ObjectNotFound):
            self._account.call("hide_file", self._account.bucket_id, key, key=key)

    def _delete_versions(self, key: str) -> None:
        mine = takewhile(lambda version: version["fileName"] == key, self._account.versions(key, VERSIONS_COUNT))
        found = [version["fileId"] for version in mine if version["action"] != "start"]
        # The oldest first: without the newest an older one would be visible.
        for file_id in reversed(found):
            self._count("delete")
            with suppress(ObjectNotFound):
                self._account.call("delete_file_version", file_id, key, key=key)

    def _copy(self, source: str, target: str) -> ObjectInfo:
        _check_name(target)
        self._count("stat")
        found = self._stat(source)
        if found.size > OBJECT_BYTES_MAX:
            raise BucketError(f"{self.location}: {source}: more than 5 GB cannot be copied.")
        return _info(self._account.call("copy_file", found.etag, target, key=source))

    def _close(self) -> None:
        self._account.close()

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        return self._account.translated(error, "download_file_from_url", key) or super()._translate(error, key)

    @contextmanager
    def _request(self, verb: Verb, key: str) -> Iterator[None]:
        if verb != "list":
            _check_name(key)
        with super()._request(verb, key):
            yield

    def connect(self) -> None:
        """Proves that the bucket exists and may be listed, as far as the key goes; raises what is wrong otherwise."""
        with self._request("list", ""):
            prefix = self._account.access.prefix or "_buckia/"
            self._account.call("list_file_names", self._account.bucket_id, max_file_count=1, prefix=prefix)

    def get_public_url(self, key: str) -> str:
        """The address of the object, at the CDN if there is one; it answers if the bucket is public. The first call
        may authorise the account.
        """
        check_key(key)
        if self._options.cdn_url is not None:
            return f"{self._cdn_url}/{quote(key)}"
        return self._account.url(key)

    def signed_url(self, key: str, expires: int) -> str:
        """See `BaseSync.signed_url`: up to 7 days, and good for all keys that begin with this one."""
        check_key(key)
        if not 1 <= expires <= SIGNED_SECONDS_MAX:
            raise UsageError(f"A signed URL of B2 is good for 1 to {SIGNED_SECONDS_MAX} seconds, not {expires}.")
        with self._request("stat", key):
            bucket = self._account.bucket_id
            answer = self._account.call("get_download_authorization", bucket, key, expires, key=key)
            return f"{self._account.url(key)}?Authorization={quote(answer['authorizationToken'], safe='')}"

    def upload_file(
        self, local_path: str | os.PathLike[str], key: str, *, attempt: Attempt = lambda verb, call: call()
    ) -> ObjectInfo:
        """Writes a local file as one object that remembers the file's time of modification.

        A file of more than 32 MiB goes in parts, up to 4 at a time, each of which is an attempt of its own. An upload
        of the same file that was cut off is continued; one that fails is cancelled, as its parts cost storage.
        """
        check_key(key)
        file = LocalFile.of(Path(local_path))
        if file.size > FILE_BYTES_MAX:
            raise BucketError(f"{file.path} is larger than one object may be there.")

        def each(verb: Verb, call: Callable[[], Any], uploaded: int = 0) -> Any:
            def once() -> Any:
                with self._request(verb, key):
                    answer = call()
                self._count_bytes(uploaded=uploaded)
                return answer

            return attempt(verb, once)

        if file.size > WHOLE_BYTES_MAX:
            workers = min(PARTS_AT_ONCE, max(1, self._options.max_workers))
            return LargeUpload(self._account, key, file, each, self._body).run(workers)
        data = memoryview(file.read(0, file.size))
        file.check()
        stored: ObjectInfo = each("put", lambda: self._uploaded(key, data, file.info), len(data))
        return stored


def _installed() -> bool:
    """Whether b2sdk is there; importing it would take a second."""
    return find_spec("b2sdk") is not None


def _checked_realm(endpoint: str) -> str:
    address = checked_url(endpoint, "An endpoint of B2")
    parts = urlsplit(address)
    if parts.path:
        raise UsageError("An endpoint of B2 has the form https://HOST or https://HOST:PORT.")
    if str(parts.hostname).startswith("s3."):
        raise UsageError(f"{endpoint} is the S3 endpoint of B2.", hint="Use the provider s3 for it, or no endpoint.")
    return address


def _check_name(key: str) -> None:
    """Raises `UsageError` for names that B2 refuses beyond those that all buckets do."""
    for segment in key.split("/"):
        length = len(segment.encode())
        if length > SEGMENT_BYTES_MAX:
            raise UsageError(
                f"B2 allows {SEGMENT_BYTES_MAX} bytes between two slashes of a name; {segment[:40]!r}... has {length}."
            )


def _info(entry: Mapping[str, Any]) -> ObjectInfo:
    """What an answer says about a version."""
    return ObjectInfo(
        entry["fileName"],
        entry["contentLength"],
        entry["fileId"],
        _digests(entry.get("contentSha1"), (entry.get("fileInfo") or {}).get("large_file_sha1")),
        entry["uploadTimestamp"] / 1000,
    )


def _digests(sha1: str | None, of_large_file: str | None) -> Mapping[str, str]:
    """Large files have their SHA-1 in their information, if who uploaded them put it there; ``unverified:`` ones are
    not believed.
    """
    for digest in (sha1, of_large_file):
        if digest is not None and len(digest) == 40:
            return {"sha1": digest}
    return {}
