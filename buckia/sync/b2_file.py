"""Local files on their way into B2: with their time of modification, and in parts where they are large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from buckia.errors import AccessDenied, BucketError, BuckiaError, LocalError, ObjectNotFound, Transient
from buckia.sync.b2_account import B2Account, UploadUrls
from buckia.sync.base import ObjectInfo, Verb
from buckia.sync.body import PacedBody
from buckia.sync.files import PART_BYTES

FILE_BYTES_MAX = 10**13
"""Largest file of all."""
PARTS_MAX = 10_000
"""Parts of one file."""
PARTS_AT_ONCE = 4
"""Parts of one file that are uploaded, and in memory, at a time."""

Body = Callable[[memoryview], memoryview | PacedBody]


class Each(Protocol):
    """Makes one request, as often as it takes; counts it, and when it succeeds ``uploaded`` bytes."""

    def __call__(self, verb: Verb, call: Callable[[], Any], uploaded: int = 0) -> Any:
        """What ``call`` returns."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file as it was when the upload began. Reading raises `LocalError`, also when it is not like that any more."""

    path: Path
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> LocalFile:
        """The file at ``path``."""
        with _reading(path):
            found = path.stat()
        return cls(path, found.st_size, found.st_mtime_ns)

    @property
    def info(self) -> dict[str, str]:
        """What B2 is to remember of it, under the name that its clients agree on."""
        return {"src_last_modified_millis": str(self.modified_ns // 1_000_000)}

    def sha1(self) -> str:
        """SHA-1 of all of it, hex."""
        with _reading(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha1").hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes."""
        with _reading(self.path), self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise LocalError(f"{self.path} became shorter while it was read.")
        return data

    def check(self) -> None:
        """Raises `LocalError` if the file was written since."""
        if LocalFile.of(self.path) != self:
            raise LocalError(f"{self.path} changed while it was read.")


class LargeUpload:
    """The upload of one file in parts. ``body`` makes bytes the body of a request."""

    def __init__(self, account: B2Account, key: str, file: LocalFile, each: Each, body: Body) -> None:
        self._account = account
        self._key = key
        self._file = file
        self._each = each
        self._body = body
        self._part_bytes = max(PART_BYTES, account.access.part_bytes_min, -(-file.size // PARTS_MAX))
        self._starts = range(0, file.size, self._part_bytes)

    def run(self, workers: int) -> ObjectInfo:
        """Uploads it, up to ``workers`` parts at a time; the parts of an earlier upload of the same file are kept. If
        it fails the parts are given up.
        """
        sha1 = self._file.sha1()
        info = self._file.info | {"large_file_sha1": sha1}
        file_id, arrived = self._begun_before(info) or (self._begin(info), {})
        try:
            urls = self._account.part_urls(file_id)

            def upload(start: int) -> str:
                return self._part(urls, start, arrived)

            # An error ends this at once: what is queued is dropped.
            with ThreadPoolExecutor(workers, "buckia-b2-part") as pool:
                sums = [*pool.map(upload, self._starts)]
            self._file.check()
            self._each("put", lambda: self._finish(file_id, sums))
        except BaseException:
            # Neither counted nor paced, as it has to be done also when the work was cancelled.
            with suppress(BuckiaError):
                self._account.call("cancel_large_file", file_id, key=self._key)
            raise
        return ObjectInfo(self._key, self._file.size, file_id, {"sha1": sha1})

    def _begin(self, info: Mapping[str, str]) -> str:
        arguments = (self._account.bucket_id, self._key, "b2/x-auto", dict(info))
        answer = self._each("put", lambda: self._account.call("start_large_file", *arguments, key=self._key))
        file_id: str = answer["fileId"]
        return file_id

    def _begun_before(self, info: Mapping[str, str]) -> tuple[str, dict[int, str]] | None:
        """An unfinished upload of the same file, cut in the same way: its id, and the SHA-1 of each part by number."""
        try:
            unfinished = self._each("list", lambda: [*self._account.unfinished(self._key)])
        except AccessDenied:
            return None  # this key may only write
        for found in unfinished:
            file_id = found["fileId"]
            if found["fileName"] == self._key and found["fileInfo"] == info:
                parts = self._each("list", partial(self._arrived, file_id))
                if all(part["contentLength"] == self._length(part["partNumber"]) for part in parts):
                    return file_id, {part["partNumber"]: part["contentSha1"] for part in parts}
        return None

    def _arrived(self, file_id: str) -> list[Mapping[str, Any]]:
        return [*self._account.parts(file_id, self._key)]

    def _length(self, number: int) -> int:
        """Bytes of the part with this number, which counts from 1; 0: there is none."""
        return max(0, min(self._part_bytes, self._file.size - (number - 1) * self._part_bytes))

    def _part(self, urls: UploadUrls, start: int, arrived: Mapping[int, str]) -> str:
        number = start // self._part_bytes + 1
        data = self._file.read(start, self._length(number))
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if arrived.get(number) != sha1:

            def send() -> None:
                self._account.upload_part(self._key, urls, number, sha1, self._body(memoryview(data)))

            self._each("put", send, len(data))
        return sha1

    def _finish(self, file_id: str, sums: list[str]) -> None:
        try:
            self._account.call("finish_large_file", file_id, sums, key=self._key)
        except Transient:
            raise
        except BucketError:
            # The answer to an earlier attempt may have been lost, or another process may have been faster.
            with suppress(ObjectNotFound):
                if self._account.head(self._key)["x-bz-file-id"] == file_id:
                    return
            raise


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}.") from error
