"""The bucket as everything above sees it: keys and bytes, seven verbs, one closed set of errors.

An adapter derives from `BaseSync` and writes ``_put _get _stat _list _delete _close``, and where the provider can do
it ``_delete_many`` and ``_copy``. It declares its `Capabilities` and turns what its library raises into the closed set
by `_translate`. It never waits, retries or keeps state between calls: only ``store.transfer`` looks at `Transient`,
and decides by a `Pacer` when a request may begin. `BaseSync` checks keys and ranges, translates errors and counts
requests, so that an adapter holds nothing but its provider. What a bucket must guarantee is `buckia.sync.contract`, one
function per sentence.

The closed set: `ObjectNotFound`, `BucketNotFound`, `RangeNotSatisfiable`, `PreconditionFailed`, `AccessDenied`,
`AuthenticationError`, `QuotaExceeded`, `Transient`, else `BucketError`. Methods are safe to call from several threads.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

from buckia.errors import BucketError, BuckiaError, RangeNotSatisfiable, Transient, UsageError, hide
from buckia.events import Traffic
from buckia.sync.admin import Attempt as Attempt
from buckia.sync.admin import BucketAdmin
from buckia.sync.admin import Verb as Verb
from buckia.sync.body import PacedBody, Read, read_slices
from buckia.sync.body import Pacer as Pacer
from buckia.sync.files import PART_BYTES, read_file, replacing

Buffer = bytes | bytearray | memoryview

KEY_BYTES_MAX = 1024
_SECRET_MIN = 6
"""Characters; shorter ones are no secrets, and would be found in any text."""
_FORBIDDEN = frozenset(map(chr, [*range(0x20), 0x7F])) | {"\\"}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a bucket says about one object; ``size`` in bytes, ``modified`` in seconds since 1970, ``digests`` as
    {algorithm: hex}.
    """

    key: str
    size: int
    etag: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    modified: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do beyond the contract, and how much of it at once."""

    conditional_put: bool = False
    """``put(..., if_absent=True)`` works; never built on without a probe, as some servers ignore the condition."""
    range_get: bool = True
    """The provider sends parts of objects; otherwise whole ones are fetched and cut."""
    list_consistent: bool = True
    """A listing shows every write that was acknowledged before it began."""
    object_bytes_max: int = 5 << 30
    """Largest object of a single put."""
    digest_in_listing: str | None = None
    """Algorithm of the digests that listings carry."""
    batch_delete: int = 0
    """Keys per delete request; 0: one request per key."""
    copy: bool = False
    """The provider copies an object within the bucket."""
    concurrency: Mapping[str, int] = field(default_factory=dict)
    """Most requests at a time by verb; a verb that is not named has no limit of its own."""
    requests_per_second: float = 0.0
    """Rate that the provider allows on average; 0: none is known."""
    burst: int = 1
    """Requests that may come at once, if there was a pause before."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a listing. ``more`` are tokens of further pages, of any number and in any order: one that
    continues this page, or one for each directory in it; an empty one ends this branch.
    """

    objects: Sequence[ObjectInfo]
    more: Sequence[str] = ()


class CachedReads(Protocol):
    """Another way to objects that never change: a CDN in front of the bucket."""

    def read(self, key: str, offset: int, length: int | None, receive: Callable[[Read], bytes]) -> bytes | None:
        """What `BaseSync._get` returns, its body read by ``receive``; ``None`` where it cannot be had here."""

    def close(self) -> None:
        """Frees connections."""


def check_key(key: str) -> None:
    """Raises `UsageError` unless ``key`` is 1..1024 bytes of UTF-8 in plain components.

    Components are separated by single slashes; none is empty, ``.`` or ``..``, begins or ends with white space, or
    holds a control character or a backslash. So a key means the same in every bucket and cannot leave a local one.
    """
    _check_length(key)
    for component in key.split("/"):
        if component in ("", ".", "..") or component != component.strip():
            raise UsageError(f"The key {key!r} has an unsafe component {component!r}.")
    if not _FORBIDDEN.isdisjoint(key):
        raise UsageError(f"The key {key!r} holds a control character or a backslash.")


def check_prefix(prefix: str) -> None:
    """Raises `UsageError` unless ``prefix`` is empty or begins a valid key; it may end within a component or with a
    slash.
    """
    head, _, tail = prefix.rpartition("/")
    if prefix.startswith("/"):
        raise UsageError(f"The prefix {prefix!r} begins with a slash.")
    if head:
        check_key(head)
    if tail:
        _check_length(prefix)
        if tail[0].isspace() or not _FORBIDDEN.isdisjoint(tail):
            raise UsageError(f"The prefix {prefix!r} begins no valid key.")


def _check_length(key: str) -> None:
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError(f"The key {key!r} is not Unicode text.") from None
    if not 1 <= length <= KEY_BYTES_MAX:
        raise UsageError(f"A key is 1 to {KEY_BYTES_MAX} bytes, not {length}.")


class BaseSync(ABC):
    """A bucket. Subclasses write the primitives below; callers use the methods without an underscore.

    ``location`` names the bucket in messages, ``capabilities`` says what it can do, ``traffic`` counts requests and
    payload bytes (assign a new `Traffic` to count one operation), ``admin`` has the provider's own verbs.
    """

    paces_bodies: ClassVar[bool] = False
    """The adapter tells the pacer of bytes while they flow; otherwise it is told of whole bodies here."""

    def __init__(self, location: str, capabilities: Capabilities) -> None:
        self.location = location
        self.capabilities = capabilities
        self.traffic = Traffic()
        self.pacer: Pacer | None = None
        self.cdn: CachedReads | None = None
        self.admin = BucketAdmin(location)
        self._traffic_lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()

    # What an adapter writes. Keys and ranges arrive checked.

    @abstractmethod
    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        """Writes the whole object: no reader ever sees a part of it, and on return it is durable. ``data`` is flat
        bytes, not to be kept.
        """

    @abstractmethod
    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        """Reads from ``offset`` (``None``: to the end). Fewer bytes mean that the object ends; the base class finds
        out why.
        """

    @abstractmethod
    def _stat(self, key: str) -> ObjectInfo:
        """Size and what else is known of one object."""

    @abstractmethod
    def _list(self, prefix: str, token: str | None) -> Page:
        """A page of the objects whose key begins with ``prefix``: the first one, or that of a token from another
        page. All pages together have each object once, in any order.
        """

    @abstractmethod
    def _delete(self, key: str) -> None:
        """Makes the key invisible; a key that is not there is fine."""

    @abstractmethod
    def _close(self) -> None:
        """Frees connections; may be called twice."""

    def _delete_many(self, keys: Sequence[str]) -> None:
        """Deletes up to ``capabilities.batch_delete`` keys in one request."""
        raise NotImplementedError

    def _copy(self, source: str, target: str) -> ObjectInfo:
        """Copies within the bucket, where ``capabilities.copy``."""
        raise NotImplementedError

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        """The error of the closed set that a library's exception means; ``None`` for what is a bug and must surface as
        it is.
        """
        if isinstance(error, (TimeoutError, ConnectionError)):
            return Transient(f"{self.location}: {str(error) or type(error).__name__}")
        if isinstance(error, OSError):
            return BucketError(f"{self.location}: {key}: {error.strerror or error}")
        return None

    # Keys and bytes.

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Writes an object, replacing one of that key; with ``if_absent`` raises `PreconditionFailed` instead.

        On return the object is durable and visible whole; after an error it is absent, old or new, never partial.
        """
        check_key(key)
        view = memoryview(data).cast("B")
        if if_absent and not self.capabilities.conditional_put:
            raise UsageError(f"{self.location} knows no conditional writes.")
        if len(view) > self.capabilities.object_bytes_max:
            raise BucketError(f"{self.location}: {key}: {len(view)} bytes are more than one object may have here.")
        with self._request("put", key):
            if self.pacer is not None and not self.paces_bodies:
                self.pacer.uploading(len(view))
            info = self._put(key, view, if_absent)
        self._count_bytes(uploaded=len(view))
        return info

    def get(self, key: str, *, offset: int = 0, length: int | None = None, cached: bool = False) -> bytes:
        """Reads exactly ``length`` bytes from ``offset``, or to the end of the object.

        Raises `ObjectNotFound`, `RangeNotSatisfiable` when the object is shorter (an ``offset`` at its end or beyond
        counts, except for 0), `Transient` when the answer was cut short on its way. With ``cached`` a CDN may answer:
        only for a name that was learned from the bucket itself, as a CDN remembers what it did not find.
        """
        check_key(key)
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"A range cannot begin at {offset} and have {length} bytes.")
        if length == 0:
            # No provider has an expression for an empty range.
            self._check_end(key, offset)
            return b""
        data = self._cached(key, offset, length) if cached else None
        if data is None:
            with self._request("get", key):
                data = self._get(key, *((offset, length) if self.capabilities.range_get else (0, None)))
            self._count_bytes(downloaded=len(data))
            if not self.capabilities.range_get:
                data = data[offset:][:length]
        arrived = f"{self.location}: {key}: {len(data)} bytes arrived instead of {length}"
        if length is not None and len(data) < length:
            self._check_end(key, offset + length)
            raise Transient(f"{arrived}.")
        if length is not None and len(data) > length:
            raise BucketError(f"{arrived}; it ignores ranges.")
        if offset and not data:
            raise RangeNotSatisfiable(f"{self.location}: {key} ends before byte {offset}.")
        return data

    def get_whole(self, key: str, limit: int, is_whole: Callable[[bytes], bool]) -> bytes | None:
        """Reads a small object in one request, of one with more than ``limit`` bytes no more; that one is ``None``.

        Raises `ObjectNotFound`, and `Transient` for an answer that is not whole and shorter than the object.
        """
        check_key(key)
        if not self.capabilities.range_get and self.stat(key).size > limit:
            return None
        try:
            with self._request("get", key):
                data = self._get(key, 0, limit + 1 if self.capabilities.range_get else None)
        except RangeNotSatisfiable:  # an empty object has no first byte to ask for
            data = b""
        self._count_bytes(downloaded=len(data))
        if len(data) <= limit and not is_whole(data) and self.stat(key).size > len(data):
            raise Transient(f"{self.location}: {key} was cut short after {len(data)} bytes.")
        return data if len(data) <= limit else None

    def stat(self, key: str) -> ObjectInfo:
        """Size and what else is known of an object, or `ObjectNotFound`."""
        check_key(key)
        with self._request("stat", key):
            return self._stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with ``prefix`` (text, not a directory), each once, in any order.

        Objects that others put there are listed as they are, also under keys that `put` would refuse: whoever makes a
        path from a listed key checks it. Any failure raises: a listing that ends is complete.
        """
        check_prefix(prefix)
        return self._all_pages(prefix)

    def list_page(self, prefix: str = "", token: str | None = None) -> Page:
        """One page of `list`: the first one, or that of a token from an earlier page. A listing is complete when no
        token is left; tokens may be asked for in any order, and again.
        """
        check_prefix(prefix)
        with self._request("list", prefix):
            page = self._list(prefix, token)
        for info in page.objects:
            if not info.key.startswith(prefix):
                raise BucketError(f"{self.location} lists {info.key!r} under {prefix!r}.")
        if token is not None and token in page.more:
            raise BucketError(f"{self.location} says that a listing goes on, and not where.")
        return page

    def delete(self, key: str) -> None:
        """Deletes an object; one that is not there is fine."""
        check_key(key)
        with self._request("delete", key):
            self._delete(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Deletes objects, many per request where the provider can. After an error any of them may be gone."""
        batch = self.capabilities.batch_delete
        pending = [*keys]
        for key in pending:
            check_key(key)
        if not batch:
            for key in pending:
                self.delete(key)
            return
        for start in range(0, len(pending), batch):
            part = pending[start : start + batch]
            with self._request("delete", part[0]):
                self._delete_many(part)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copies an object within the bucket, at the provider where it can, else through memory."""
        check_key(source)
        check_key(target)
        if not self.capabilities.copy:
            return self.put(target, self.get(source))
        with self._request("put", source):
            return self._copy(source, target)

    def close(self) -> None:
        """Frees connections; may be called twice."""
        if self.cdn is not None:
            self.cdn.close()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    # Raw objects as files, for whoever uses a bucket without a folder in it.

    def connect(self) -> None:
        """Proves that the bucket exists and may be listed; raises what is wrong otherwise."""
        self.list_page("_buckia/")

    def test_connection(self) -> bool:
        """Whether `connect` succeeds."""
        try:
            self.connect()
        except BuckiaError:
            return False
        return True

    def list_remote_files(self, prefix: str = "") -> dict[str, ObjectInfo]:
        """All objects whose key begins with ``prefix``, by key."""
        return {info.key: info for info in self.list(prefix)}

    def upload_file(
        self, local_path: str | os.PathLike[str], key: str, *, attempt: Attempt = lambda verb, call: call()
    ) -> ObjectInfo:
        """Writes a local file as one object, read into memory whole unless the provider takes it in parts.

        ``attempt`` makes each request: retries are the caller's.
        """
        data = read_file(Path(local_path), self.capabilities.object_bytes_max)
        info: ObjectInfo = attempt("put", lambda: self.put(key, data))
        return info

    def download_file(self, key: str, local_path: str | os.PathLike[str]) -> ObjectInfo:
        """Writes an object to a local file in parts of 16 MiB, beside it first; an existing file is replaced only by a
        whole object.
        """
        info = self.stat(key)
        with replacing(Path(local_path)) as write:
            for offset in range(0, info.size, PART_BYTES):
                write(self.get(key, offset=offset, length=min(PART_BYTES, info.size - offset)))
            if info.size > PART_BYTES and self.stat(key).etag != info.etag:
                raise Transient(f"{self.location}: {key} was replaced while it was read.")
        return info

    def delete_file(self, key: str) -> None:
        """The same as `delete`."""
        self.delete(key)

    def get_public_url(self, key: str) -> str | None:
        """Where anybody could read the object, if the bucket were public; ``None`` when it has no address."""
        check_key(key)
        return None

    def signed_url(self, key: str, expires: int) -> str:
        """An address at which anybody can read the object for ``expires`` seconds; `UsageError` where there is none."""
        check_key(key)
        raise UsageError(f"{self.location} has no signed URLs.")

    # For adapters with ``paces_bodies``.

    def _body(self, data: memoryview) -> memoryview | PacedBody:
        """What to hand to an HTTP library as the body of a put: the bytes, or where bandwidth is limited a file."""
        if self.pacer is None or not self.pacer.limits_bytes:
            return data
        return PacedBody(data, self.pacer.uploading)

    def _received(self, read: Read) -> bytes:
        """The whole body of an answer. Raises `Transient` for one that drips."""
        tell = (lambda count: None) if self.pacer is None else self.pacer.downloading
        return read_slices(read, tell, self.location)

    def mask(self, secrets: Iterable[str]) -> None:
        """Never show these in an error, although a server may repeat what it was sent."""
        self._secrets = tuple(secret for secret in secrets if len(secret) >= _SECRET_MIN)
        hide(*self._secrets)

    def _masked(self, error: BuckiaError) -> BuckiaError:
        for secret in self._secrets:
            error.message = error.message.replace(secret, "***")
            error.args = (error.message,)
            error.hint = error.hint and error.hint.replace(secret, "***")
        return error

    # Counting.

    def count_retry(self, verb: Verb) -> None:
        """Counts a request that is made again."""
        retried = self.traffic.retried
        with self._traffic_lock:
            self.traffic.retries += 1
            setattr(retried, verb, getattr(retried, verb) + 1)

    def _count(self, verb: Verb) -> None:
        if self.pacer is not None:
            self.pacer.request(verb)
        requests = self.traffic.requests
        with self._traffic_lock:
            setattr(requests, verb, getattr(requests, verb) + 1)

    def _count_bytes(self, *, uploaded: int = 0, downloaded: int = 0) -> None:
        if self.pacer is not None and downloaded and not self.paces_bodies:
            self.pacer.downloading(downloaded)
        with self._traffic_lock:
            self.traffic.bytes_uploaded += uploaded
            self.traffic.bytes_downloaded += downloaded

    # Checks around the primitives.

    @contextmanager
    def _request(self, verb: Verb, key: str) -> Iterator[None]:
        self._count(verb)
        try:
            yield
        except BuckiaError as error:
            self._masked(error)
            raise
        except Exception as error:
            translated = self._translate(error, key)
            if translated is None:
                raise
            raise self._masked(translated) from error

    def _all_pages(self, prefix: str) -> Iterator[ObjectInfo]:
        tokens: deque[str | None] = deque([None])
        known: set[str] = set()
        while tokens:
            page = self.list_page(prefix, tokens.popleft())
            if known & set(page.more):
                raise BucketError(f"{self.location} lists the same page again and again.")
            known.update(page.more)
            yield from page.objects
            tokens.extend(page.more)

    def _cached(self, key: str, offset: int, length: int | None) -> bytes | None:
        if self.cdn is None:
            return None
        with self._request("get", key):
            data = self.cdn.read(key, offset, length, self._received)
        if data is not None:
            with self._traffic_lock:
                self.traffic.bytes_downloaded += len(data)
        return data

    def _check_end(self, key: str, end: int) -> None:
        if self.stat(key).size < end:
            raise RangeNotSatisfiable(f"{self.location}: {key} ends before byte {end}.")
