"""Files in parts: side by side, gone on with, aborted when they fail, and never with other bytes than the file has."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buckia.errors import AccessDenied, BucketError, CancelledError, LocalError, ObjectNotFound, Transient
from buckia.sync.base import ObjectInfo, Verb
from buckia.sync.files import LocalFile
from buckia.sync.s3_multipart import PART_BYTES_MAX, PART_BYTES_MIN, PartedUpload, part_bytes
from buckia.sync.s3_presets import PARTS_MAX, PRESETS

PART = 1000


class Server:
    """Uploads in parts as S3 does them, in memory; ``before`` and ``after`` may raise at any request."""

    def __init__(self) -> None:
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.keys: dict[str, str] = {}
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.requests: Counter[str] = Counter()
        self.sent: list[int] = []
        self.before: Callable[[str, dict[str, Any]], None] = lambda operation, about: None
        self.after: Callable[[str, dict[str, Any]], None] = lambda operation, about: None
        self.page = 1000
        self.etag: Callable[[bytes], str] = lambda data: hashlib.md5(data).hexdigest()
        self.lock = threading.Lock()
        self._numbers = iter(range(1000))

    def call(self, verb: str, operation: str, key: str = "", **about: Any) -> Any:
        with self.lock:
            self.requests[operation] += 1
        self.before(operation, about)
        answer = getattr(self, operation)(key, **about)
        self.after(operation, about)
        return answer

    def open(self, key: str = "k", **parts: bytes) -> str:
        upload = f"u{next(self._numbers)}"
        self.uploads[upload] = {int(number[1:]): data for number, data in parts.items()}
        self.keys[upload] = key
        return upload

    def list_multipart_uploads(self, key: str, Prefix: str, KeyMarker: str = "", UploadIdMarker: str = "") -> Any:  # noqa: N803
        found = sorted((key, upload) for upload, key in self.keys.items() if key.startswith(Prefix))
        left = [item for item in found if item > (KeyMarker, UploadIdMarker)]
        items = [{"Key": key, "UploadId": upload, "Initiated": upload} for key, upload in left[: self.page]]
        if len(left) <= self.page:
            return {"Uploads": items, "IsTruncated": False}
        last = left[self.page - 1]
        return {"Uploads": items, "IsTruncated": True, "NextKeyMarker": last[0], "NextUploadIdMarker": last[1]}

    def list_parts(self, key: str, UploadId: str, PartNumberMarker: int = 0) -> Any:  # noqa: N803
        left = [number for number in sorted(self._parts(UploadId)) if number > PartNumberMarker]
        parts = self._parts(UploadId)
        items = [
            {"PartNumber": number, "Size": len(parts[number]), "ETag": f'"{self.etag(parts[number])}"'}
            for number in left[: self.page]
        ]
        more = {"IsTruncated": True, "NextPartNumberMarker": left[self.page - 1]} if len(left) > self.page else {}
        return {"Parts": items, **more}

    def create_multipart_upload(self, key: str, **_: Any) -> Any:
        return {"UploadId": self.open(key)}

    def upload_part(self, key: str, UploadId: str, PartNumber: int, Body: Any, ContentMD5: str) -> Any:  # noqa: N803
        data = b""
        while piece := Body.read(300):
            data += piece
        assert len(data) == len(Body)
        with self.lock:
            self._parts(UploadId)[PartNumber] = data
            self.sent.append(PartNumber)
        return {"ETag": f'"{self.etag(data)}"'}

    def complete_multipart_upload(self, key: str, UploadId: str, MultipartUpload: Any) -> Any:  # noqa: N803
        parts = self._parts(UploadId)
        numbers = [part["PartNumber"] for part in MultipartUpload["Parts"]]
        assert numbers == [*range(1, len(numbers) + 1)]
        assert [part["ETag"] for part in MultipartUpload["Parts"]] == [f'"{self.etag(parts[n])}"' for n in numbers]
        data = b"".join(parts[number] for number in numbers)
        digests = b"".join(hashlib.md5(parts[number]).digest() for number in numbers)
        etag = f'"{hashlib.md5(digests).hexdigest()}-{len(numbers)}"'
        self.objects[key] = (data, etag)
        self._forget(UploadId)
        return {"ETag": etag}

    def abort_multipart_upload(self, key: str, UploadId: str) -> Any:  # noqa: N803
        self._parts(UploadId)
        self._forget(UploadId)
        return {}

    def head_object(self, key: str) -> Any:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return {"ContentLength": len(self.objects[key][0]), "ETag": self.objects[key][1]}

    def _parts(self, upload: str) -> dict[int, bytes]:
        if upload not in self.uploads:
            raise ObjectNotFound("NoSuchUpload")
        return self.uploads[upload]

    def _forget(self, upload: str) -> None:
        del self.uploads[upload], self.keys[upload]


def patient(verb: Verb, call: Callable[[], Any]) -> Any:
    """Tries three times, as the engine does, without waiting."""
    for _ in range(2):
        try:
            return call()
        except Transient:
            continue
    return call()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """4.5 parts, no two alike."""
    path = tmp_path / "file"
    path.write_bytes(b"".join(f"{number:08d}\n".encode() for number in range(PART // 2)))
    return path


def _upload(server: Server, path: Path, **changes: Any) -> ObjectInfo:
    about: dict[str, Any] = {"attempt": patient, "workers": 3, **changes}
    return PartedUpload(server.call, about.pop("attempt"), "k", LocalFile(path), PART, **about).run()


@pytest.mark.parametrize(
    ("size", "each"),
    [
        (1, 8 << 20),
        (64 << 20, 8 << 20),
        (PARTS_MAX * (8 << 20), 8 << 20),
        (PARTS_MAX * (8 << 20) + 1, 9 << 20),
        (10**12, 96 << 20),
        (5 << 40, 525 << 20),
        (PARTS_MAX * (5 << 30), 5 << 30),
    ],
)
def test_parts_grow_so_that_there_are_never_too_many(size: int, each: int) -> None:
    assert part_bytes(size) == each
    assert -(-size // each) <= PARTS_MAX
    assert PART_BYTES_MIN <= each <= PART_BYTES_MAX


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_the_largest_file_of_every_preset_fits(preset: Any) -> None:
    assert part_bytes(preset.file_bytes_max) <= PART_BYTES_MAX


def test_a_file_becomes_an_object(server: Server, path: Path) -> None:
    info = _upload(server, path, parameters={"StorageClass": "STANDARD_IA"})
    data, etag = server.objects["k"]
    assert data == path.read_bytes()
    assert info == ObjectInfo("k", len(data), etag.strip('"'))
    assert not server.uploads
    assert server.requests == {
        "list_multipart_uploads": 1,
        "create_multipart_upload": 1,
        "upload_part": 5,
        "complete_multipart_upload": 1,
    }


def test_parts_go_side_by_side_and_no_more_than_there_are_workers(server: Server, path: Path) -> None:
    together, flying, most, lock = threading.Barrier(2), 0, 0, threading.Lock()

    def before(operation: str, about: dict[str, Any]) -> None:
        nonlocal flying, most
        if operation == "upload_part":
            with lock:
                flying += 1
                most = max(most, flying)
            if about["PartNumber"] < 5:
                together.wait(10)

    def after(operation: str, about: dict[str, Any]) -> None:
        nonlocal flying
        if operation == "upload_part":
            with lock:
                flying -= 1

    server.before, server.after = before, after
    _upload(server, path, workers=2)
    assert most == 2


def test_every_request_is_an_attempt_of_its_own(server: Server, path: Path) -> None:
    verbs: Counter[str] = Counter()

    def attempt(verb: Verb, call: Callable[[], Any]) -> Any:
        verbs[verb] += 1
        return patient(verb, call)

    failures = {"upload_part": 2, "complete_multipart_upload": 1, "list_multipart_uploads": 1}

    def before(operation: str, about: dict[str, Any]) -> None:
        with server.lock:
            failing = failures.get(operation, 0) > 0
            failures[operation] = failures.get(operation, 0) - 1
        if failing:
            raise Transient("busy")

    server.before = before
    _upload(server, path, attempt=attempt)
    assert verbs == {"list": 1, "put": 7}
    assert server.objects["k"][0] == path.read_bytes()


# Going on.


def _parts_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[start : start + PART] for start in range(0, len(data), PART)]


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_only_what_is_missing_or_differs_is_sent(server: Server, path: Path, page: int) -> None:
    parts = _parts_of(path)
    server.open("k2", p1=parts[0])
    upload = server.open(p1=parts[0], p2=b"?" * PART, p3=parts[2], p5=parts[4])
    server.page = page
    _upload(server, path)
    assert sorted(server.sent) == [2, 4]
    assert server.objects["k"][0] == path.read_bytes()
    assert upload not in server.uploads
    assert server.requests["create_multipart_upload"] == 0
    assert [*server.keys.values()] == ["k2"]


def test_what_says_nothing_of_its_bytes_is_sent_again(server: Server, path: Path) -> None:
    parts = _parts_of(path)
    server.open(p1=parts[0], p2=parts[1])
    server.etag = lambda data: hashlib.sha256(data).hexdigest()[:32]  # as encrypted parts have it
    _upload(server, path)
    assert sorted(server.sent) == [1, 2, 3, 4, 5]
    assert server.objects["k"][0] == path.read_bytes()


@pytest.mark.parametrize(
    "parts", [{"p1": b"x" * (PART + 1)}, {"p6": b"x" * PART}, {"p5": b"x" * PART}, {"p1": b"x" * 10}]
)
def test_an_upload_of_another_size_is_left_alone(server: Server, path: Path, parts: dict[str, bytes]) -> None:
    other = server.open(**parts)
    _upload(server, path)
    assert server.objects["k"][0] == path.read_bytes()
    assert [*server.uploads] == [other]


def test_the_newest_of_several_is_gone_on_with(server: Server, path: Path) -> None:
    old = server.open(p1=_parts_of(path)[0])
    server.open(p2=_parts_of(path)[1])
    _upload(server, path)
    assert sorted(server.sent) == [1, 3, 4, 5]
    assert [*server.uploads] == [old]


def test_a_killed_run_is_gone_on_with(server: Server, path: Path) -> None:
    class Killed(BaseException):
        """The process is gone: it aborts nothing."""

    def before(operation: str, about: dict[str, Any]) -> None:
        if operation == "upload_part" and about["PartNumber"] == 3:
            raise Killed
        if operation == "abort_multipart_upload":
            raise Killed

    server.before = before
    with pytest.raises(Killed):
        _upload(server, path, workers=1)
    assert len(server.uploads) == 1
    server.before, before_sent = lambda operation, about: None, len(server.sent)
    _upload(server, path)
    assert server.objects["k"][0] == path.read_bytes()
    assert sorted(server.sent[before_sent:]) == [3, 4, 5]
    assert server.requests["create_multipart_upload"] == 1


@pytest.mark.parametrize("operation", ["list_multipart_uploads", "list_parts"])
@pytest.mark.parametrize("error", [AccessDenied("no"), BucketError("not offered"), ObjectNotFound("gone by now")])
def test_what_may_not_be_listed_is_not_gone_on_with(
    server: Server, path: Path, operation: str, error: BucketError
) -> None:
    server.open(p1=_parts_of(path)[0])

    def before(called: str, about: dict[str, Any]) -> None:
        if called == operation:
            raise error

    server.before = before
    _upload(server, path)
    assert sorted(server.sent) == [1, 2, 3, 4, 5]


# Lost answers.


def _lose(server: Server, operation: str) -> None:
    lost = iter([True])

    def after(called: str, about: dict[str, Any]) -> None:
        if called == operation and next(lost, False):
            raise Transient("lost")

    server.after = after


def test_an_upload_whose_beginning_was_not_heard_of_is_used(server: Server, path: Path) -> None:
    other = server.open(p9=b"")
    _lose(server, "create_multipart_upload")
    _upload(server, path)
    assert server.objects["k"][0] == path.read_bytes()
    assert [*server.uploads] == [other]
    assert server.requests["create_multipart_upload"] == 1


def test_an_end_that_was_not_heard_of_is_found(server: Server, path: Path) -> None:
    _lose(server, "complete_multipart_upload")
    info = _upload(server, path)
    assert info.etag == server.objects["k"][1].strip('"')
    assert server.requests["head_object"] == 1


def test_an_end_that_nobody_confirmed_is_not_done(server: Server, path: Path) -> None:
    """An answer without an ETag, from a proxy for example, is no proof; the next attempt sees what is there."""
    real = server.complete_multipart_upload

    def silent(key: str, **about: Any) -> Any:
        if server.requests["complete_multipart_upload"] > 1:
            real(key, **about)
        return {}

    server.complete_multipart_upload = silent  # type: ignore[method-assign]
    info = _upload(server, path)
    assert info.etag == server.objects["k"][1].strip('"')
    assert server.requests["complete_multipart_upload"] == 3


def test_an_upload_that_somebody_ended_is_no_success(server: Server, path: Path) -> None:
    server.objects["k"] = (path.read_bytes(), '"0-5"')

    def before(operation: str, about: dict[str, Any]) -> None:
        if operation == "complete_multipart_upload":
            server.uploads.clear()
            if server.requests[operation] == 1:
                raise Transient("lost")

    server.before = before
    with pytest.raises(ObjectNotFound):
        _upload(server, path)


# Failing.


def _failing(operation: str, error: BaseException, number: int = 2) -> Callable[[str, dict[str, Any]], None]:
    def before(called: str, about: dict[str, Any]) -> None:
        if called == operation and about.get("PartNumber", number) == number:
            raise error

    return before


@pytest.mark.parametrize("operation", ["upload_part", "complete_multipart_upload"])
@pytest.mark.parametrize(
    "error", [AccessDenied("no"), Transient("busy"), CancelledError(), KeyboardInterrupt(), ValueError("a bug")]
)
def test_no_upload_is_left_open(server: Server, path: Path, operation: str, error: BaseException) -> None:
    server.before = _failing(operation, error)
    with pytest.raises(type(error)):
        _upload(server, path)
    assert not server.uploads
    assert not server.objects
    assert server.requests["abort_multipart_upload"] == 1


def test_an_interruption_while_parts_are_sent_aborts(server: Server, path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    asked = iter(range(1000))

    def ask(count: int) -> None:
        """So slow that nothing gets through before it is stopped; by the third time all parts are queued."""
        if next(asked) == 2:
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        _upload(server, path, ask=ask)
    assert server.requests["upload_part"] <= 3
    assert not server.uploads
    assert not server.objects


def test_the_other_parts_stop_when_one_fails(server: Server, path: Path) -> None:
    begun, failed = threading.Event(), threading.Event()
    asked: list[int] = []

    def before(operation: str, about: dict[str, Any]) -> None:
        if operation == "upload_part" and about["PartNumber"] == 2:
            begun.wait(10)
            failed.set()
            raise AccessDenied("no")

    def ask(count: int) -> None:
        begun.set()
        failed.wait(10)
        asked.append(count)
        threading.Event().wait(0.01)

    server.before = before
    with pytest.raises(AccessDenied):
        _upload(server, path, workers=2, ask=ask)
    assert server.requests["upload_part"] == 2
    assert len(asked) <= 3
    assert not server.uploads


def test_a_cancellation_aborts_at_once(server: Server, path: Path) -> None:
    cancelled = threading.Event()
    aborted_by: list[str] = []

    def attempt(verb: Verb, call: Callable[[], Any]) -> Any:
        if cancelled.is_set():
            raise CancelledError
        aborted_by.append(verb)
        return call()

    server.after = lambda operation, about: cancelled.set() if operation == "upload_part" else None
    with pytest.raises(CancelledError):
        _upload(server, path, attempt=attempt, workers=1)
    assert not server.uploads
    assert "delete" not in aborted_by  # it would have been refused


def test_an_upload_that_cannot_be_aborted_is_told_of(server: Server, path: Path) -> None:
    def before(operation: str, about: dict[str, Any]) -> None:
        if operation in ("upload_part", "abort_multipart_upload"):
            raise AccessDenied(operation)

    server.before = before
    with pytest.raises(AccessDenied, match="upload_part") as caught:
        _upload(server, path)
    assert "stays open" in caught.value.__notes__[0]


# Files that change.


@pytest.mark.parametrize("change", ["rewritten", "longer", "shorter", "gone"])
def test_a_file_that_changes_is_no_object(server: Server, path: Path, change: str) -> None:
    data = path.read_bytes()

    def after(operation: str, about: dict[str, Any]) -> None:
        if operation == "upload_part" and about["PartNumber"] == 2:
            if change == "gone":
                path.unlink()
                return
            path.write_bytes({"rewritten": data.swapcase(), "longer": data + b"x", "shorter": data[:-1]}[change])
            os.utime(path, ns=(1, 1))

    server.after = after
    with pytest.raises(LocalError, match="cannot be read" if change == "gone" else "changed"):
        _upload(server, path, workers=1)
    assert not server.uploads
    assert not server.objects
    assert server.requests["upload_part"] == 2


def test_a_file_that_becomes_shorter_while_a_part_is_sent(server: Server, path: Path) -> None:
    def before(operation: str, about: dict[str, Any]) -> None:
        if operation == "upload_part":
            os.truncate(path, 10)

    def call(verb: str, operation: str, key: str = "", **about: Any) -> Any:
        try:
            return server.call(verb, operation, key, **about)
        except LocalError as error:
            # HTTP libraries take what a body raises for a failure of their own.
            raise Transient(str(error)) from error

    server.before = before
    upload = PartedUpload(call, lambda verb, call: call(), "k", LocalFile(path), PART, 1)
    with pytest.raises(LocalError, match=re.escape(str(path))):
        upload.run()
    assert not server.uploads


def test_a_file_that_changes_at_the_very_end(server: Server, path: Path) -> None:
    server.after = lambda operation, about: os.utime(path, ns=(1, 1)) if len(server.sent) == 5 else None
    with pytest.raises(LocalError, match="changed"):
        _upload(server, path, workers=1)
    assert not server.objects
    assert not server.uploads


# Limits.


def test_memory_does_not_grow_with_parts(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(48 << 20)

    def upload_part(key: str, Body: Any, **_: Any) -> Any:  # noqa: N803
        digest = hashlib.md5()
        while piece := Body.read(16 << 10):
            digest.update(piece)
        return {"ETag": f'"{digest.hexdigest()}"'}

    server.upload_part = upload_part  # type: ignore[method-assign, assignment]
    server.complete_multipart_upload = lambda key, **_: {"ETag": "e"}  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    try:
        PartedUpload(server.call, patient, "k", LocalFile(path), 16 << 20, 3).run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20


def test_a_limit_is_asked_for_what_is_sent_and_nothing_else(server: Server, path: Path) -> None:
    asked: list[int] = []
    parts = _parts_of(path)
    server.open(p1=parts[0], p2=parts[1])
    _upload(server, path, ask=asked.append)
    assert sum(asked) == sum(len(part) for part in parts[2:])


@pytest.mark.parametrize("name", ["list_multipart_uploads", "list_parts"])
def test_a_listing_that_cannot_go_on_ends(server: Server, path: Path, name: str) -> None:
    server.open()
    setattr(server, name, lambda key, **about: {"IsTruncated": True})
    _upload(server, path)
    assert server.requests[name] <= 2
    assert server.objects["k"][0] == path.read_bytes()
