"""Large files as objects in parts: sent side by side, gone on with after an interruption, never left open by us.

A part is read from the file while it is sent, so memory does not grow with its size. It carries its MD5, which the
server checks. An upload that a killed run left is gone on with: what the server holds of it is compared with the file
by size and MD5, and only the rest is sent. An upload that fails or is cancelled is aborted. Nothing here waits or tries
again: ``attempt`` does.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from buckia.errors import BucketError, BuckiaError, CancelledError, ObjectNotFound, Transient
from buckia.sync.base import Attempt, ObjectInfo
from buckia.sync.files import LocalFile
from buckia.sync.s3_presets import PARTS_MAX

Call = Callable[..., Any]
"""``call(verb, operation, key, **parameters)``: one counted request; see `buckia.sync.s3.S3Sync.call`."""

PART_BYTES_MIN = 5 << 20
PART_BYTES_MAX = 5 << 30
_PART_BYTES = 8 << 20
_MIB = 1 << 20
_MD5 = re.compile("[0-9a-f]{32}")


def part_bytes(size: int) -> int:
    """Bytes of each part but the last: 8 MiB, or as many whole MiB as keep the parts of ``size`` bytes to 10,000."""
    least = -(-size // PARTS_MAX)
    return max(_PART_BYTES, -(-least // _MIB) * _MIB)


class _Stopped(CancelledError):
    """Another part failed."""


@dataclass(frozen=True, slots=True)
class PartedUpload:
    """One file on its way to one key: `run` it once."""

    call: Call
    attempt: Attempt
    key: str
    file: LocalFile
    part_bytes: int
    workers: int
    """Parts at a time."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """For the beginning of the upload: storage class and the like."""
    ask: Callable[[int], None] = lambda count: None
    """Told of bytes before they flow; returns when they may."""

    def run(self) -> ObjectInfo:
        """Sends what is missing and makes the object of it."""
        upload, held = self._begun()
        try:
            etags = self._send_all(upload, held)
            self.file.check()
            return self._complete(upload, etags)
        except BaseException as error:
            self._abort(upload, error)
            raise

    # Beginning, or going on.

    def _begun(self) -> tuple[str, dict[int, tuple[int, str]]]:
        """An open upload and the parts that the server holds of it: {number: (size, etag)}."""
        known = self.attempt("list", self._open_uploads)
        for upload in known:
            held = self.attempt("list", partial(self._held, upload))
            if held is not None and all(
                number <= self._count and size == self._span(number)[1] for number, (size, _) in held.items()
            ):
                return upload, held
        return self._begin(known), {}

    def _begin(self, known: list[str]) -> str:
        tried = False

        def create() -> str:
            nonlocal tried
            if tried:
                # The answer was lost, and perhaps not the upload that it told of.
                for upload in self._open_uploads():
                    if upload not in known:
                        return upload
            tried = True
            return _told(self.call("put", "create_multipart_upload", self.key, **self.parameters), "UploadId")

        upload: str = self.attempt("put", create)
        return upload

    def _open_uploads(self) -> list[str]:
        """Ids of the open uploads of this key, newest first; none where they may not be listed."""
        try:
            found = [item for item in open_uploads(self.call, self.key) if item["Key"] == self.key]
        except Transient:
            raise
        except BucketError:
            # Going on is a convenience; whatever else is wrong, the beginning of a new upload will say.
            return []
        found.sort(key=lambda item: str(item.get("Initiated", "")), reverse=True)
        return [item["UploadId"] for item in found]

    def _held(self, upload: str) -> dict[int, tuple[int, str]] | None:
        """Parts of an upload; ``None`` if it has ended by now, or its parts may not be listed."""
        try:
            return self._listed(upload)
        except Transient:
            raise
        except BucketError:
            return None

    def _listed(self, upload: str) -> dict[int, tuple[int, str]]:
        held: dict[int, tuple[int, str]] = {}
        position: dict[str, Any] = {}
        while True:
            page = self.call("list", "list_parts", self.key, UploadId=upload, **position)
            for item in page.get("Parts", ()):
                held[item["PartNumber"]] = (item["Size"], str(item.get("ETag", "")).strip('"'))
            if not page.get("IsTruncated"):
                return held
            last, position = position, {"PartNumberMarker": page.get("NextPartNumberMarker")}
            if not position["PartNumberMarker"] or position == last:
                raise BucketError("The server says that a listing of parts goes on, and not where.")

    # Sending.

    @property
    def _count(self) -> int:
        return -(-self.file.size // self.part_bytes)

    def _span(self, number: int) -> tuple[int, int]:
        """Offset and length of a part; numbers begin with 1."""
        offset = (number - 1) * self.part_bytes
        return offset, min(self.part_bytes, self.file.size - offset)

    def _send_all(self, upload: str, held: Mapping[int, tuple[int, str]]) -> list[str]:
        stop = threading.Event()
        with ThreadPoolExecutor(max(1, min(self.workers, self._count)), "buckia-part") as pool:
            try:
                parts: list[Future[str]] = [
                    pool.submit(self._send, upload, number, held.get(number), stop)
                    for number in range(1, self._count + 1)
                ]
                wait(parts, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        # All threads have ended: nothing arrives any more for an upload that is aborted.
        for part in parts:
            error = None if part.cancelled() else part.exception()
            if error is not None and not isinstance(error, _Stopped):
                raise error
        return [part.result() for part in parts]

    def _send(self, upload: str, number: int, held: tuple[int, str] | None, stop: threading.Event) -> str:
        offset, length = self._span(number)

        def go_on() -> None:
            if stop.is_set():
                raise _Stopped

        def ask(count: int) -> None:
            go_on()
            self.ask(count)

        def send() -> str:
            go_on()
            with self.file.part(offset, length, ask) as body:
                digest = body.digest("md5")
                if held == (length, digest.hex()):
                    return held[1]
                check = base64.b64encode(digest).decode()
                about = {"UploadId": upload, "PartNumber": number, "ContentMD5": check}
                try:
                    answer = self.call("put", "upload_part", self.key, Body=body, **about)
                except Transient:
                    # What the body raised while it was sent comes back as a failure of the network.
                    go_on()
                    self.file.check()
                    raise
            return _told(answer, "ETag").strip('"')

        try:
            etag: str = self.attempt("put", send)
        except BaseException:
            stop.set()
            raise
        return etag

    # Ending.

    def _complete(self, upload: str, etags: list[str]) -> ObjectInfo:
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]

        def complete() -> ObjectInfo:
            about = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            try:
                answer = self.call("put", "complete_multipart_upload", self.key, **about)
            except ObjectNotFound:
                # An attempt whose answer was lost has made it, or somebody who uploads the same file.
                if (info := self._made(etags)) is not None:
                    return info
                raise
            if not answer.get("ETag"):
                raise Transient(f"{self.key}: the answer has no ETag, so nobody says that it is stored.")
            return ObjectInfo(self.key, self.file.size, str(answer["ETag"]).strip('"'))

        info: ObjectInfo = self.attempt("put", complete)
        return info

    def _made(self, etags: list[str]) -> ObjectInfo | None:
        """The object, if it is there and made of these very parts."""
        if not all(_MD5.fullmatch(etag) for etag in etags):
            return None
        digest = hashlib.md5(bytes.fromhex("".join(etags)), usedforsecurity=False).hexdigest()
        with suppress(ObjectNotFound):
            found = self.call("stat", "head_object", self.key)
            etag = str(found.get("ETag", "")).strip('"')
            if (found["ContentLength"], etag) == (self.file.size, f"{digest}-{len(etags)}"):
                return ObjectInfo(self.key, self.file.size, etag)
        return None

    def _abort(self, upload: str, error: BaseException) -> None:
        # Retries are for those who may wait: not after a cancellation, nor when they were of no use before.
        patient = isinstance(error, Exception) and not isinstance(error, Transient | CancelledError)
        try:
            with suppress(ObjectNotFound):
                if patient:
                    self.attempt("delete", lambda: abort_upload(self.call, self.key, upload))
                else:
                    abort_upload(self.call, self.key, upload)
        except BuckiaError as failed:
            error.add_note(f"The upload {upload} of {self.key} stays open, and the next one goes on with it: {failed}")


def _told(answer: Mapping[str, Any], name: str) -> str:
    if not answer.get(name):
        raise BucketError(f"The server says nothing of the {name} of an upload in parts; it may not know such uploads.")
    return str(answer[name])


def open_uploads(call: Call, prefix: str) -> Iterator[Mapping[str, Any]]:
    """Uploads in parts that were begun and not ended, of all keys that begin with ``prefix``, in the server's words."""
    position: dict[str, Any] = {}
    while True:
        page = call("list", "list_multipart_uploads", Prefix=prefix, **position)
        yield from page.get("Uploads", ())
        if not page.get("IsTruncated"):
            return
        last = position
        position = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
        if not position["KeyMarker"] or position == last:
            raise BucketError("The server says that a listing of uploads goes on, and not where.")


def abort_upload(call: Call, key: str, upload: str) -> None:
    """Ends an upload and frees what it holds. Raises `ObjectNotFound` if there is none."""
    call("delete", "abort_multipart_upload", key, UploadId=upload)
