"""B2's native protocol over HTTP, in front of the simulator: what b2sdk's HTTP client talks to.

Requests are counted by the names of the API: ``b2_upload_file``, ``b2_list_file_names``, ``b2_download_file_by_name``,
and so on; ``HEAD`` is one for a file's headers. A test says what is to fail next by the same names:
``server.fail_next("b2_upload_file", *error(503, "service_unavailable"))``.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import parse_qs, unquote

from b2sdk.v3 import exception as b2

from tests.servers.b2.simulator import LIST_COUNT_MAX, Simulator
from tests.servers.http import Answer, HttpServer, Request, part_of

API = "/b2api/v4/"
POD = "/pod/"
FILES = "/file/"
_SIMULATED_POD = "https://upload.example.com/"
_INFO = "x-bz-info-"

_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (b2.NonExistentBucket, 400, "bad_bucket_id"),
    (b2.FileAlreadyHidden, 400, "already_hidden"),
    (b2.FileNotPresent, 404, "not_found"),
    (b2.UnsatisfiableRange, 416, "range_not_satisfiable"),
    (b2.StorageCapExceeded, 403, "storage_cap_exceeded"),
    (b2.TransactionCapExceeded, 403, "transaction_cap_exceeded"),
    (b2.AccessDenied, 403, "access_denied"),
    (b2.Conflict, 409, "conflict"),
    (b2.MissingPart, 400, "missing_part"),
    (b2.B2Error, 400, "bad_request"),
)
_NOT_THERE = {"b2_hide_file": (400, "no_such_file"), "b2_delete_file_version": (400, "file_not_present")}


def error(status: int, code: str, message: str = "") -> tuple[int, bytes]:
    """Status and body of an error, as the service words it."""
    return status, json.dumps({"status": status, "code": code, "message": message}).encode()


class WireServer(HttpServer):
    """The wire of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._pods_lock = threading.Lock()
        self._pods_in_use: set[str] = set()
        self._to_truncate = 0
        self._calls: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
            "b2_cancel_large_file": self._call("cancel_large_file", "fileId"),
            "b2_copy_file": self._copy_file,
            "b2_delete_file_version": self._call("delete_file_version", "fileId", "fileName"),
            "b2_finish_large_file": self._call("finish_large_file", "fileId", "partSha1Array"),
            "b2_get_download_authorization": self._call(
                "get_download_authorization", "bucketId", "fileNamePrefix", "validDurationInSeconds"
            ),
            "b2_get_upload_part_url": self._call("get_upload_part_url", "fileId"),
            "b2_get_upload_url": self._call("get_upload_url", "bucketId"),
            "b2_hide_file": self._call("hide_file", "bucketId", "fileName"),
            "b2_list_buckets": self._call("list_buckets", "accountId", "bucketId", "bucketName"),
            "b2_list_file_names": self._call("list_file_names", "bucketId", "startFileName", "maxFileCount", "prefix"),
            "b2_list_file_versions": self._call(
                "list_file_versions", "bucketId", "startFileName", "startFileId", "maxFileCount", "prefix"
            ),
            "b2_list_parts": self._call("list_parts", "fileId", "startPartNumber", "maxPartCount"),
            "b2_list_unfinished_large_files": self._call(
                "list_unfinished_large_files", "bucketId", "startFileId", "maxFileCount", "namePrefix"
            ),
            "b2_start_large_file": self._call("start_large_file", "bucketId", "fileName", "contentType", "fileInfo"),
            "b2_update_bucket": self._update_bucket,
        }
        super().__init__()

    def truncate_next(self, times: int = 1) -> None:
        """The next downloads end in the middle, and so do their connections."""
        self._to_truncate += times

    # What the base asks.

    def kind(self, request: Request) -> str:
        if request.path.startswith(POD):
            return "b2_upload_part" if request.path.startswith(f"{POD}part/") else "b2_upload_file"
        if request.path.startswith(FILES):
            return "HEAD" if request.method == "HEAD" else "b2_download_file_by_name"
        return request.path.removeprefix(API)

    def admitted(self, request: Request) -> AbstractContextManager[Answer | None]:
        """An upload URL serves one upload at a time."""
        return self._pod(request) if request.path.startswith(POD) else nullcontext()

    def answer(self, request: Request) -> Answer:
        kind = self.kind(request)
        try:
            if request.path.startswith(POD):
                return _json(self._upload(request, kind))
            if request.path.startswith(FILES):
                return self._download(request)
            if kind == "b2_authorize_account":
                return _json(self._authorize(request, _base(request)))
            if kind not in self._calls:
                return Answer(*error(404, "not_found", "There is no such call."))
            token = request.header("authorization") or ""
            found = self._calls[kind](token, json.loads(request.body))
            if "uploadUrl" in found:
                found["uploadUrl"] = _base(request) + POD + found["uploadUrl"].removeprefix(_SIMULATED_POD)
            return _json(found)
        except b2.Unauthorized as refused:
            status, body = error(401, str(refused.code), "")
        except (b2.B2Error, KeyError) as failed:
            status, body = _error_of(failed, kind)
        return Answer(status, b"" if request.method == "HEAD" else body)

    # The calls.

    def _call(self, method: str, *names: str) -> Callable[[str, Mapping[str, Any]], Any]:
        def call(token: str, body: Mapping[str, Any]) -> Any:
            count = body.get("maxFileCount")
            if count is not None and not 1 <= count <= LIST_COUNT_MAX:
                raise b2.BadRequest(f"maxFileCount out of range: {count}", "out_of_range")
            simulator = self._simulator
            return getattr(simulator, method)(simulator.API_URL, token, *(body.get(name) for name in names))

        return call

    def _copy_file(self, token: str, body: Mapping[str, Any]) -> Any:
        return self._simulator.copy_file(self._simulator.API_URL, token, body["sourceFileId"], body["fileName"])

    def _update_bucket(self, token: str, body: Mapping[str, Any]) -> Any:
        changes = {
            name: body[key]
            for key, name in {"corsRules": "cors_rules", "lifecycleRules": "lifecycle_rules"}.items()
            if key in body
        }
        url = self._simulator.API_URL
        return self._simulator.update_bucket(url, token, body["accountId"], body["bucketId"], **changes)

    def _authorize(self, request: Request, base: str) -> Any:
        scheme, _, encoded = (request.header("authorization") or "").partition(" ")
        key_id, _, key = base64.b64decode(encoded).decode().partition(":") if scheme == "Basic" else ("", "", "")
        answer = self._simulator.authorize_account("", key_id, key)
        answer["apiInfo"]["storageApi"] |= {"apiUrl": base, "downloadUrl": base, "s3ApiUrl": base}
        return answer

    # Uploads.

    @contextmanager
    def _pod(self, request: Request) -> Iterator[Answer | None]:
        with self._pods_lock:
            taken = request.path in self._pods_in_use
            self._pods_in_use.add(request.path)
        if taken:
            said = f"more than one upload using auth token {request.header('authorization')}"
            yield Answer(*error(400, "auth_token_limit", said))
            return
        try:
            yield None
        finally:
            with self._pods_lock:
                self._pods_in_use.discard(request.path)

    def _upload(self, request: Request, kind: str) -> Any:
        token = request.header("authorization") or ""
        url = _SIMULATED_POD + request.path.removeprefix(POD)
        if url != token or token.rpartition("/")[2] not in self._simulator.auth_token_to_key:
            raise b2.InvalidAuthToken("", "bad_auth_token")
        if token.rpartition("/")[2] in self._simulator.expired_auth_tokens:
            raise b2.InvalidAuthToken("", "expired_auth_token")
        if request.chunked or request.header("content-length") is None:
            raise b2.BadRequest("Content-Length is missing.", "bad_request")
        sha1 = request.header("x-bz-content-sha1") or ""
        body = io.BytesIO(request.body)
        if kind == "b2_upload_part":
            number = int(request.header("x-bz-part-number") or "0")
            return self._simulator.upload_part(url, token, number, len(request.body), sha1, body)
        info = {
            name.lower().removeprefix(_INFO): unquote(value)
            for name, value in request.headers
            if name.lower().startswith(_INFO)
        }
        name = unquote(request.header("x-bz-file-name") or "")
        content_type = request.header("content-type") or ""
        return self._simulator.upload_file(url, token, name, len(request.body), content_type, sha1, info, body)

    # Downloads.

    def _download(self, request: Request) -> Answer:
        bucket_name, _, name = request.path.removeprefix(FILES).partition("/")
        token = request.header("authorization") or parse_qs(request.query).get("Authorization", [""])[0]
        simulator = self._simulator
        if bucket_name not in simulator.bucket_name_to_bucket:
            return Answer(*error(404, "not_found", f"Bucket {bucket_name} does not exist."))
        simulator.get_file_info_by_name(simulator.API_URL, token, bucket_name, unquote(name))
        file = simulator.bucket_name_to_bucket[bucket_name].visible(unquote(name))
        headers = [(key, str(value)) for key, value in file.as_download_headers().items() if key != "content-length"]
        if request.method == "HEAD":
            return Answer(200, b"", headers, length=len(file.data_bytes))
        answer = part_of(file.data_bytes, request.header("range"), headers)
        if answer.status == 416:
            return Answer(*error(416, "range_not_satisfiable"))
        if self._to_truncate and answer.body:
            self._to_truncate -= 1
            answer.length = len(answer.body)
            answer.body = answer.body[: len(answer.body) // 2]
            answer.end = "close"
        return answer


def _base(request: Request) -> str:
    """The address that the client knows, which may be that of a proxy."""
    return f"http://{request.header('host')}"


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value, default=list).encode(), [("Content-Type", "application/json")])


def _error_of(failed: Exception, kind: str) -> tuple[int, bytes]:
    if isinstance(failed, b2.FileNotPresent) and kind in _NOT_THERE:
        return error(*_NOT_THERE[kind])
    if isinstance(failed, b2.BadRequest):
        return error(400, failed.code, failed.message)
    if isinstance(failed, (b2.FileSha1Mismatch, b2.PartSha1Mismatch, b2.ChecksumMismatch)):
        return error(400, "bad_request", "Sha1 did not match data received")
    for known, status, code in _ERRORS:
        if isinstance(failed, known):
            return error(status, code, str(failed))
    return error(400, "bad_request", f"{failed} is missing.")
