"""Requests to Backblaze B2 with a token, each made once: the part of the protocol that every client has to play.

b2sdk's raw API has one method per request of the published protocol and does the wire. This adds what lies between the
requests: it authorises before the first one and again when the token has expired, finds the bucket's id, keeps one
upload URL per upload in progress, and sends an upload elsewhere when the server at hand has no room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from buckia.errors import AccessDenied, AuthenticationError, BucketNotFound, BuckiaError, Transient, hide
from buckia.sync.b2_errors import behind, checked, not_b2, translate, wants_other_server
from buckia.sync.b2_http import Connection, as_body, raw_api
from buckia.sync.base import Verb
from buckia.sync.body import PacedBody

UPLOAD_URLS_MAX = 3
"""Servers that one upload is offered to before it counts as failed."""

_NEEDS: dict[str, tuple[Verb, str]] = {
    "cancel_large_file": ("delete", "writeFiles"),
    "copy_file": ("put", "writeFiles"),
    "delete_file_version": ("delete", "deleteFiles"),
    "download_file_from_url": ("get", "readFiles"),
    "finish_large_file": ("put", "writeFiles"),
    "get_download_authorization": ("stat", "shareFiles"),
    "get_file_info_by_name": ("stat", "readFiles"),
    "get_upload_part_url": ("put", "writeFiles"),
    "get_upload_url": ("put", "writeFiles"),
    "hide_file": ("delete", "writeFiles"),
    "list_buckets": ("list", "listBuckets"),
    "list_file_names": ("list", "listFiles"),
    "list_file_versions": ("list", "listFiles"),
    "list_parts": ("list", "writeFiles"),
    "list_unfinished_large_files": ("list", "listFiles"),
    "start_large_file": ("put", "writeFiles"),
    "update_bucket": ("put", "writeBuckets"),
    "upload_file": ("put", "writeFiles"),
    "upload_part": ("put", "writeFiles"),
}
"""Methods of the raw API: how they are counted, and the capability that the key must have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """What an authorisation gave. ``buckets`` are ids by name, or ``None`` where the key is for all."""

    account_id: str
    token: str = field(repr=False)
    api_url: str
    download_url: str
    part_bytes_min: int
    capabilities: frozenset[str]
    buckets: Mapping[str | None, str] | None
    prefix: str
    """All names that the key may touch begin so."""


class UploadUrls:
    """Upload URLs and their tokens: one serves one upload at a time, and again as long as it works."""

    def __init__(self, ask: Callable[[], Mapping[str, str]]) -> None:
        self._ask = ask
        self._free: deque[tuple[str, str]] = deque()

    def take(self) -> tuple[str, str]:
        """One that nobody uses."""
        try:
            return self._free.pop()
        except IndexError:
            return self.fresh()

    def fresh(self) -> tuple[str, str]:
        """One that was never used: of another server, if the service thinks so."""
        answer = self._ask()
        hide(answer["authorizationToken"])
        return answer["uploadUrl"], answer["authorizationToken"]

    def give(self, pair: tuple[str, str]) -> None:
        """Returns one that worked."""
        self._free.append(pair)


class B2Account:
    """One bucket through one application key. Raises the closed set of `buckia.sync.base`; any thread may call.

    ``count`` is told of each request beyond the first of a call; authorising, finding the bucket and the first upload
    URLs are like the handshake of a connection, and not counted.
    """

    def __init__(self, bucket_name: str, location: str, connection: Connection, count: Callable[[Verb], None]) -> None:
        self.location = location
        self.bucket_name = bucket_name
        self._connection = connection
        self._count = count
        self._lock = threading.Lock()
        self._raw = connection.raw
        self._access: Access | None = None
        self._bucket_id: str | None = None
        self._urls = UploadUrls(lambda: self.call("get_upload_url", self.bucket_id))

    @property
    def access(self) -> Access:
        """The present authorisation."""
        return self._authorised(None)

    @property
    def bucket_id(self) -> str:
        """The bucket's id. Raises `BucketNotFound`, or `AccessDenied` where the key is for other buckets."""
        return self._know_bucket()

    def bucket(self) -> Mapping[str, Any]:
        """What the service says about the bucket."""
        found = self.call("list_buckets", self.access.account_id, bucket_name=self.bucket_name)["buckets"]
        if not found:
            raise BucketNotFound(
                f"There is no bucket {self.location}.", hint="Its name is unique in all of Backblaze B2."
            )
        bucket: Mapping[str, Any] = found[0]
        return bucket

    def versions(self, prefix: str, page: int) -> Iterator[Mapping[str, Any]]:
        """All versions of all names that begin with ``prefix``, by name, each name's newest first; hide markers and
        unfinished large files are among them. ``page`` is how many are asked for at a time, up to 10,000.
        """
        name = file_id = None
        while True:
            answer = self.call(
                "list_file_versions",
                self.bucket_id,
                start_file_name=name,
                start_file_id=file_id,
                max_file_count=page,
                prefix=prefix,
                key=prefix,
            )
            yield from answer["files"]
            name, file_id = answer["nextFileName"], answer["nextFileId"]
            if name is None:
                return
            self._count("list")

    def unfinished(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """Large files whose upload was begun and neither ended nor cancelled."""
        start = None
        while True:
            answer = self.call(
                "list_unfinished_large_files", self.bucket_id, start_file_id=start, prefix=prefix, key=prefix
            )
            yield from answer["files"]
            start = answer["nextFileId"]
            if start is None:
                return
            self._count("list")

    def parts(self, file_id: str, key: str) -> Iterator[Mapping[str, Any]]:
        """Parts of an unfinished large file that have arrived, by number; ``key`` is for messages."""
        start = 1
        while start is not None:
            answer = self.call("list_parts", file_id, start, 1000, key=key)
            yield from answer["parts"]
            start = answer["nextPartNumber"]
            if start is not None:
                self._count("list")

    def call(self, method: str, *arguments: Any, key: str = "", **named: Any) -> Any:
        """Calls a method of the raw API that takes the API's address and a token first. ``key`` is for messages."""

        def make(raw: Any, access: Access) -> Any:
            return getattr(raw, method)(access.api_url, access.token, *arguments, **named)

        return checked(method, self._made(method, key, make), self.location)

    def head(self, key: str) -> Mapping[str, str]:
        """The headers of a file, without its body."""
        self._know_bucket()

        def make(raw: Any, access: Access) -> Any:
            return raw.get_file_info_by_name(access.download_url, access.token, self.bucket_name, key)

        headers: Mapping[str, str] = self._made("get_file_info_by_name", key, make)
        return checked("get_file_info_by_name", headers, self.location)

    def download(self, key: str, part: tuple[int, int] | None) -> Any:
        """A response whose body was not read yet; ``part`` is the first and the last byte. It has to be closed."""
        self._know_bucket()

        def make(raw: Any, access: Access) -> Any:
            url = raw.get_download_url_by_name(access.download_url, self.bucket_name, key)
            with raw.download_file_from_url(access.token, url, part) as response:
                return response

        response = self._made("download_file_from_url", key, make)
        try:
            checked("download_file_from_url", response.headers, self.location)
        except BuckiaError:
            response.close()
            raise
        return response

    def url(self, key: str) -> str:
        """Where the file is."""
        address: str = self._opened().get_download_url_by_name(self.access.download_url, self.bucket_name, key)
        return address

    def upload(self, key: str, sha1: str, info: Mapping[str, str], data: memoryview | PacedBody) -> Mapping[str, Any]:
        """Uploads a file whole."""
        body = as_body(data)

        def send(url: str, token: str) -> Any:
            return self._raw.upload_file(url, token, key, len(body), "b2/x-auto", sha1, dict(info), body)

        return self._routed("upload_file", key, self._urls, send)

    def upload_part(self, key: str, urls: UploadUrls, number: int, sha1: str, data: memoryview | PacedBody) -> None:
        """Uploads one part of a large file; ``urls`` are those of the large file, ``key`` is for messages."""
        body = as_body(data)

        def send(url: str, token: str) -> Any:
            return self._raw.upload_part(url, token, number, len(body), sha1, body)

        answer = self._routed("upload_part", key, urls, send)
        if (answer["contentLength"], answer["contentSha1"]) != (len(body), sha1):
            raise self.unequal(key)

    def unequal(self, key: str) -> Transient:
        """The error for an upload whose answer tells of other bytes."""
        return Transient(f"{self.location}: {key}: what is stored there is not what was sent.")

    def part_urls(self, file_id: str) -> UploadUrls:
        """Upload URLs for the parts of a large file."""
        return UploadUrls(lambda: self.call("get_upload_part_url", file_id))

    def translated(self, error: Exception, method: str, key: str) -> BuckiaError | None:
        """The error of the closed set; where the key is not allowed to do something, what it lacks."""
        from b2sdk.v3 import exception as b2

        accounts = (b2.InvalidAuthToken, b2.EmailNotVerified, b2.NoPaymentHistory)
        if isinstance(error, b2.Unauthorized) and not isinstance(error, accounts) and self._access is not None:
            return self._refused(method, key, self._access)
        return translate(error, self.location, key)

    def close(self) -> None:
        """Frees connections; the next request opens new ones."""
        http = getattr(self._raw, "b2_http", None)
        if http is not None:
            http.session.close()

    def _made(self, method: str, key: str, make: Callable[[Any, Access], T]) -> T:
        """What ``make`` returns; once more with a new token when the old one is no longer valid."""
        from b2sdk.v3 import exception as b2

        raw, access = self._opened(), self._authorised(None)
        try:
            try:
                return make(raw, access)
            except b2.Unauthorized as error:
                # The answer to HEAD has no code, so nobody knows whether it is about the token.
                if error.code and not isinstance(error, b2.InvalidAuthToken):
                    raise
                access = self._authorised(access)
            self._count(_NEEDS[method][0])
            return make(raw, access)
        except Exception as error:
            _raise_own(error)
            raise (self.translated(error, method, key) or error) from error

    def _routed(self, method: str, key: str, urls: UploadUrls, send: Callable[[str, str], Any]) -> Mapping[str, Any]:
        pair = urls.take()
        for left in reversed(range(UPLOAD_URLS_MAX)):
            try:
                answer: Mapping[str, Any] = send(*pair)
            except Exception as error:
                _raise_own(error)
                if not left or not wants_other_server(error):
                    raise (self.translated(error, method, key) or error) from error
            else:
                urls.give(pair)
                return checked(method, answer, self.location)
            self._count("put")
            pair = urls.fresh()
            self._count("put")
        raise AssertionError("The last upload URL either works or raises.")

    def _refused(self, method: str, key: str, access: Access) -> AccessDenied:
        capability = _NEEDS[method][1]
        where = f"{self.location}: {key}" if key else self.location
        if capability not in access.capabilities:
            return AccessDenied(
                f"{where}: the application key lacks the capability {capability}.",
                hint=f"Use an application key that has {capability}.",
            )
        if not key.startswith(access.prefix):
            return AccessDenied(f"{where}: the application key is only for names that begin with {access.prefix!r}.")
        return AccessDenied(f"{where}: the application key does not allow this.")

    def _know_bucket(self) -> str:
        """Asked for before downloads, too, so that their 404 is about the file."""
        if self._bucket_id is None:
            self._bucket_id = self._find_bucket()
        return self._bucket_id

    def _find_bucket(self) -> str:
        buckets = self.access.buckets
        if buckets is None:
            found: str = self.bucket()["bucketId"]
            return found
        if self.bucket_name in buckets:
            return buckets[self.bucket_name]
        names = ", ".join(sorted(name for name in buckets if name))
        if not names:
            raise BucketNotFound(f"{self.location}: the bucket of the application key was deleted.")
        raise AccessDenied(
            f"{self.location}: the application key is only for the bucket {names}.",
            hint=f"Use an application key for {self.bucket_name}, if there is such a bucket.",
        )

    def _opened(self) -> Any:
        if self._raw is None:
            with self._lock:
                if self._raw is None:
                    self._raw = raw_api(self._connection)
        return self._raw

    def _authorised(self, rejected: Access | None) -> Access:
        """The authorisation; another one than ``rejected``, which one thread gets for all."""
        raw = self._opened()
        with self._lock:
            if self._access is None or self._access is rejected:
                self._access = self._authorise(raw)
            return self._access

    def _authorise(self, raw: Any) -> Access:
        from b2sdk.v3 import exception as b2

        credentials = self._connection.credentials
        key_id, secret = credentials.get("access_key_id"), credentials.get("secret_access_key")
        if not key_id or not secret:
            raise AuthenticationError(
                f"There are no credentials for {self.location}.",
                hint="Set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY.",
            )
        try:
            answer = raw.authorize_account(self._connection.realm, key_id, secret)
        except (b2.EmailNotVerified, b2.NoPaymentHistory) as error:
            raise AccessDenied(f"{self.location}: {error}", hint="Complete the Backblaze account.") from error
        except b2.Unauthorized as error:
            raise AuthenticationError(
                f"{self.location}: Backblaze does not accept the application key {key_id}.",
                hint="Check B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY: an id and its key belong together.",
            ) from error
        except Exception as error:
            raise (translate(error, self.location, "authorisation") or error) from error
        try:
            return _access(answer)
        except (KeyError, TypeError) as error:
            raise not_b2(self.location) from error


def _raise_own(error: Exception) -> None:
    """Raises an error that is ours already."""
    own = behind(error)
    if isinstance(own, BuckiaError):
        raise own from None


def _access(answer: Mapping[str, Any]) -> Access:
    storage = answer["apiInfo"]["storageApi"]
    allowed = storage["allowed"]
    buckets = allowed.get("buckets")
    hide(answer["authorizationToken"])
    return Access(
        account_id=answer["accountId"],
        token=answer["authorizationToken"],
        api_url=storage["apiUrl"],
        download_url=storage["downloadUrl"],
        part_bytes_min=storage["absoluteMinimumPartSize"],
        capabilities=frozenset(allowed["capabilities"]),
        buckets={bucket["name"]: bucket["id"] for bucket in buckets} if buckets else None,
        prefix=allowed.get("namePrefix") or "",
    )
