"""The bucket as everything above sees it: keys and bytes, seven verbs, one closed set of errors.

An adapter derives from `BaseSync` and writes ``_put _get _stat _list _delete _close``, and where the provider can do
it ``_delete_many`` and ``_copy``. It declares its `Capabilities` and turns what its library raises into the closed set
by `_translate`. It never waits, retries or keeps state between calls: only ``store.transfer`` looks at `Transient`.
`BaseSync` checks keys and ranges, translates errors and counts requests, so that an adapter holds nothing but its
provider. What a bucket must guarantee is `buckia.sync.contract`, one function per sentence.

The closed set: `ObjectNotFound`, `BucketNotFound`, `RangeNotSatisfiable`, `PreconditionFailed`, `AccessDenied`,
`AuthenticationError`, `QuotaExceeded`, `Transient`, else `BucketError`. Methods are safe to call from several threads.
"""

from __future__ import annotations

import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from buckia.errors import BucketError, BuckiaError, LocalError, RangeNotSatisfiable, Transient, UsageError
from buckia.events import Traffic

Buffer = bytes | bytearray | memoryview
Verb = Literal["put", "get", "list", "delete", "stat"]

KEY_BYTES_MAX = 1024
_PART_BYTES = 16 << 20
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
    payload bytes (assign a new `Traffic` to count one operation).
    """

    def __init__(self, location: str, capabilities: Capabilities) -> None:
        self.location = location
        self.capabilities = capabilities
        self.traffic = Traffic()
        self._traffic_lock = threading.Lock()

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
    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with ``prefix``, each once, in any order. Every page after the first is
        counted by `_count`.
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
            info = self._put(key, view, if_absent)
        self._count_bytes(uploaded=len(view))
        return info

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Reads exactly ``length`` bytes from ``offset``, or to the end of the object.

        Raises `ObjectNotFound`, `RangeNotSatisfiable` when the object is shorter (an ``offset`` at its end or beyond
        counts, except for 0), `Transient` when the answer was cut short on its way.
        """
        check_key(key)
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"A range cannot begin at {offset} and have {length} bytes.")
        if length == 0:
            # No provider has an expression for an empty range.
            self._check_end(key, offset)
            return b""
        with self._request("get", key):
            data = self._get(key, *((offset, length) if self.capabilities.range_get else (0, None)))
        self._count_bytes(downloaded=len(data))
        if not self.capabilities.range_get:
            data = data[offset:][:length]
        if length is not None and len(data) < length:
            self._check_end(key, offset + length)
            raise Transient(f"{self.location}: {key}: {len(data)} bytes arrived instead of {length}.")
        if length is not None and len(data) > length:
            raise BucketError(
                f"{self.location}: {key}: {len(data)} bytes arrived instead of {length}; it ignores ranges."
            )
        if offset and not data:
            raise RangeNotSatisfiable(f"{self.location}: {key} ends before byte {offset}.")
        return data

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
        return self._checked_listing(prefix)

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
        next(self.list("_buckia/"), None)

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

    def upload_file(self, local_path: str | os.PathLike[str], key: str) -> ObjectInfo:
        """Writes a local file as one object, read into memory whole."""
        path = Path(local_path)
        try:
            size = path.stat().st_size
            if size > self.capabilities.object_bytes_max:
                raise BucketError(f"{path} is larger than one object may be at {self.location}.")
            data = path.read_bytes()
        except OSError as error:
            raise LocalError(f"{path} cannot be read: {error.strerror}.") from error
        return self.put(key, data)

    def download_file(self, key: str, local_path: str | os.PathLike[str]) -> ObjectInfo:
        """Writes an object to a local file in parts of 16 MiB, beside it first; an existing file is replaced only by a
        whole object.
        """
        path = Path(local_path)
        info = self.stat(key)
        staged = path.with_name(f".buckia-tmp-{secrets.token_hex(8)}")
        try:
            with _local_errors(path), open(staged, "xb", buffering=0) as file:
                for offset in range(0, info.size, _PART_BYTES):
                    write_all(file.fileno(), self.get(key, offset=offset, length=min(_PART_BYTES, info.size - offset)))
                os.fsync(file.fileno())
            if info.size > _PART_BYTES and self.stat(key).etag != info.etag:
                raise Transient(f"{self.location}: {key} was replaced while it was read.")
            with _local_errors(path):
                os.replace(staged, path)
                fsync_directory(path.parent)
        finally:
            staged.unlink(missing_ok=True)
        return info

    def delete_file(self, key: str) -> None:
        """The same as `delete`."""
        self.delete(key)

    def get_public_url(self, key: str) -> str | None:
        """Where anybody could read the object, if the bucket were public; ``None`` when it has no address."""
        check_key(key)
        return None

    # Counting.

    def count_retry(self) -> None:
        """Counts a request that is made again."""
        with self._traffic_lock:
            self.traffic.retries += 1

    def _count(self, verb: Verb) -> None:
        requests = self.traffic.requests
        with self._traffic_lock:
            setattr(requests, verb, getattr(requests, verb) + 1)

    def _count_bytes(self, *, uploaded: int = 0, downloaded: int = 0) -> None:
        with self._traffic_lock:
            self.traffic.bytes_uploaded += uploaded
            self.traffic.bytes_downloaded += downloaded

    # Checks around the primitives.

    @contextmanager
    def _request(self, verb: Verb, key: str) -> Iterator[None]:
        self._count(verb)
        try:
            yield
        except BuckiaError:
            raise
        except Exception as error:
            translated = self._translate(error, key)
            if translated is None:
                raise
            raise translated from error

    def _checked_listing(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._request("list", prefix):
            for info in self._list(prefix):
                if not info.key.startswith(prefix):
                    raise BucketError(f"{self.location} lists {info.key!r} under {prefix!r}.")
                yield info

    def _check_end(self, key: str, end: int) -> None:
        if self.stat(key).size < end:
            raise RangeNotSatisfiable(f"{self.location}: {key} ends before byte {end}.")


def write_all(descriptor: int, data: Buffer) -> None:
    """Writes all bytes to a descriptor, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Makes names that were created in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}.") from error
