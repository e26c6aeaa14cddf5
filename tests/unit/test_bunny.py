"""Bunny on the wire: what is sent, what its answers mean, what proves a put, and which key goes to which host."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Literal

import pytest

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    LocalError,
    MissingExtraError,
    ObjectNotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.store.transfer import Transfer
from buckia.sync import bunny, contract
from buckia.sync.bunny import BunnyOptions, BunnySync
from buckia.sync.bunny_http import REGIONS
from tests.servers.bunny import BunnyOptions as Behaviour
from tests.servers.bunny import BunnyServer, BunnyZone, Limits
from tests.servers.http import Answer, Gate, HttpServer, Request
from tests.servers.proxy import RETRYABLE, FaultProxy, When
from tests.transfers import FakeClock

PASSWORD = "zone-password-0000"
ACCOUNT = "account-key-1111"
TOKEN_KEY = "token-key-2222"
DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


# Servers: a scripted one for single answers, and a whole Bunny.


class Scripted(HttpServer):
    """Answers what it was told, in order, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[Request] = []
        self._guard = Lock()
        super().__init__()

    def answer(self, request: Request) -> Answer:
        with self._guard:
            self.asked.append(request)
            return self.answers.pop(0)


@pytest.fixture
def host() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def bucket(host: Scripted) -> Iterator[BunnySync]:
    with BunnySync("zone", endpoint=host.url, credentials={"storage_api_key": PASSWORD}) as made:
        yield made


@pytest.fixture
def server() -> Iterator[BunnyServer]:
    with BunnyServer() as running:
        yield running


def connected(zone: BunnyZone, *, token_key: bool = False, **options: Any) -> BunnySync:
    credentials = {"storage_api_key": zone.password, "api_key": zone.account_key}
    if token_key:
        credentials["token_key"] = zone.security_key
    chosen = BunnyOptions(**{"api_url": zone.core_url, **options})
    return BunnySync(zone.zone, endpoint=zone.storage_url, credentials=credentials, options=chosen)


def entry(name: str = "k", size: int = len(DATA), checksum: str | None = DIGEST.upper(), **more: Any) -> dict[str, Any]:
    return {
        "Guid": "A4B75509-1974-462C-862C-8BADAD915D6C",
        "ObjectName": name,
        "Length": size,
        "LastChanged": "2024-01-01T00:00:00",
        "IsDirectory": False,
        "Checksum": checksum,
        **more,
    }


def value(found: object) -> Answer:
    return Answer(200, json.dumps(found).encode(), [("Content-Type", "application/json")])


def said(status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    return Answer(status, json.dumps({"HttpCode": status, "Message": message}).encode(), headers)


# The contract.


def _fresh(server: BunnyServer, **options: Any) -> Callable[[], BunnySync]:
    return lambda: connected(server.fresh_zone(), **options)


DEAR = (contract.listings_are_complete,)
# A listing takes a request for each directory, and a put is proven by one.
COUNTED = (contract.counts_requests,)


@pytest.mark.parametrize("check", [c for c in contract.ALL if c not in COUNTED], ids=lambda check: check.__name__)
def test_promises(server: BunnyServer, check: contract.Check) -> None:
    check(_fresh(server))


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(
            missing_directory=404,
            mismatch="drop",
            times="seconds",
            errors="text",
            describe_directories=True,
            unsafe_names="refuse",
        ),
        Behaviour(missing_directory=404, times="zoned", errors="empty", describe=405),
    ],
    ids=["other answers", "no DESCRIBE"],
)
@pytest.mark.parametrize("check", [c for c in contract.ALL if c not in DEAR + COUNTED], ids=lambda c: c.__name__)
def test_promises_at_a_bunny_that_behaves_otherwise(
    server: BunnyServer, check: contract.Check, behaviour: Behaviour
) -> None:
    server.options = behaviour
    check(_fresh(server, verify_puts=behaviour.describe == 200))


def test_every_request_is_counted_as_the_server_counts_it(server: BunnyServer) -> None:
    with connected(server.first) as bucket:
        bucket.put("a/b/c", DATA)
        bucket.get("a/b/c", offset=1, length=2)
        bucket.stat("a/b/c")
        [*bucket.list("a/")]
        bucket.delete("a/b/c")
        made = bucket.traffic.requests
    assert (made.put, made.get, made.stat, made.list, made.delete) == (1, 1, 2, 2, 1)
    assert server.counts.requests == {"PUT": 1, "GET": 1, "DESCRIBE": 2, "LIST": 2, "DELETE": 1}


# Where requests go.


@pytest.mark.parametrize(
    ("region", "endpoint", "url"),
    [
        *((code, None, f"https://{host}/") for code, host in REGIONS.items()),
        (None, None, "https://storage.bunnycdn.com/"),
        ("", None, "https://storage.bunnycdn.com/"),
        ("eu", None, "https://storage.bunnycdn.com/"),
        ("eu-central", None, "https://storage.bunnycdn.com/"),
        (" NY ", None, "https://ny.storage.bunnycdn.com/"),
        ("eu-central", "storage.bunnycdn.com", "https://storage.bunnycdn.com/"),
        ("ny", "storage.bunnycdn.com", "https://ny.storage.bunnycdn.com/"),
        ("ny", "uk.storage.bunnycdn.com", "https://uk.storage.bunnycdn.com/"),
        ("new", "new.storage.bunnycdn.com", "https://new.storage.bunnycdn.com/"),
        (None, "http://127.0.0.1:8080/below/", "http://127.0.0.1:8080/below/"),
    ],
)
def test_hosts(monkeypatch: pytest.MonkeyPatch, region: str | None, endpoint: str | None, url: str) -> None:
    import requests.adapters

    sent = []

    def send(_: object, request: Any, **__: object) -> None:
        sent.append(request.url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    made = BunnySync("zone", region=region, endpoint=endpoint, credentials={"password": PASSWORD})
    with pytest.raises(Transient):
        made.get("a b/ü")
    assert sent == [f"{url}zone/a%20b/%C3%BC"]


def test_all_regions_of_bunny_are_known() -> None:
    assert " ".join(sorted(REGIONS)) == "br de jh la ny se sg syd uk"
    with pytest.raises(UsageError, match="'mars'") as caught:
        BunnySync("zone", region="mars")
    assert "br, de, jh, la, ny, se, sg, syd, uk" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "https://", "https://user:pw@host", "https://host?x=1", "https://host:port", "a b"]
)
def test_addresses_that_make_no_sense(endpoint: str) -> None:
    with pytest.raises(UsageError):
        BunnySync("zone", endpoint=endpoint)
    for name in ("cdn_url", "api_url"):
        with pytest.raises(UsageError):
            BunnySync("zone", options=BunnyOptions(**{name: endpoint}))


@pytest.mark.parametrize("zone", ["", "a/b", ".hidden", "a b", "a?b"])
def test_names_that_are_no_zone(zone: str) -> None:
    with pytest.raises(UsageError):
        BunnySync(zone)


def test_locations() -> None:
    assert BunnySync("zone").location == BunnySync("zone", region="ny").location == "bunny://zone"
    assert BunnySync("zone", endpoint="http://127.0.0.1:1").location == "bunny://zone?endpoint=http://127.0.0.1:1"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bunny, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        BunnySync("zone")
    assert caught.value.hint == 'pip install "buckia[bunny]"'


# Who gets which key.


def test_each_key_goes_to_its_own_host(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Scripted() as storage, Scripted() as core, Scripted() as cdn:
        bucket = BunnySync(
            "zone",
            endpoint=storage.url,
            credentials={"storage_api_key": PASSWORD, "api_key": ACCOUNT, "token_key": TOKEN_KEY},
            options=BunnyOptions(api_url=core.url, cdn_url=cdn.url, pull_zone="7", verify_puts=False),
        )
        storage.answers = [Answer(201), Answer(200, DATA), value([]), Answer(404), Answer(200, DATA)]
        cdn.answers = [Answer(200, DATA), Answer(404)]
        core.answers = [value({"Id": 7, "Name": "pz"}), Answer(200), Answer(204)]
        bucket.put("k", DATA)
        bucket.get("k")
        [*bucket.list()]
        bucket.delete("k")
        assert bucket.get("k", cached=True) == bucket.get("k", cached=True) == DATA
        bucket.admin.pull_zone()
        bucket.admin.purge(["k"])
        bucket.admin.purge([])
        shown = f"{bucket!r}{bucket.admin!r}{caplog.text}{bucket.signed_url('k', 60)}"
    for server, key in ((storage, PASSWORD), (core, ACCOUNT), (cdn, None)):
        assert server.asked
        assert not server.answers
        for request in server.asked:
            sent = f"{request.target}{request.headers}{request.body!r}"
            assert [secret for secret in (PASSWORD, ACCOUNT, TOKEN_KEY) if secret in sent] == ([key] if key else [])
            assert request.header("AccessKey") == key
    assert not [secret for secret in (PASSWORD, ACCOUNT, TOKEN_KEY) if secret in shown]


PORTAL = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize("body", [PORTAL, b""])
def test_what_does_not_answer_as_bunny_is_named(host: Scripted, bucket: BunnySync, body: bytes) -> None:
    """A captive portal says 200 to everything: neither an object nor a listing."""
    page = Answer(200, body, [("Content-Type", "text/html")])
    for act in (
        lambda: bucket.get("k"),
        lambda: bucket.get("k", offset=0, length=3),
        lambda: bucket.stat("k"),
        lambda: [*bucket.list()],
        lambda: bucket.put("k", DATA),
    ):
        host.answers = [page, page]
        with pytest.raises(BucketError, match="does not answer as Bunny") as caught:
            act()
        assert type(caught.value) is BucketError
        assert "sign in" in (caught.value.hint or "")


@pytest.mark.parametrize("data", [PORTAL, b""])
def test_objects_that_look_like_another_server_s_answer_are_asked_about(server: BunnyServer, data: bytes) -> None:
    with connected(server.first) as bucket:
        bucket.put("page.html", data)
        assert bucket.get("page.html") == data
        assert bucket.get("page.html", offset=0, length=len(data)) == data
        server.first.write("page.html", data + b"x")
        assert bucket.get("page.html") == data + b"x"


def test_a_redirect_is_not_followed(host: Scripted, bucket: BunnySync) -> None:
    with Scripted() as elsewhere:
        for verb in (bucket.get, bucket.stat, bucket.delete, bucket.list_page):
            host.answers = [Answer(307, b"", [("Location", f"{elsewhere.url}/zone/k")])]
            with pytest.raises(BucketError, match="307"):
                verb("k")
        assert not elsewhere.asked


def test_netrc_is_not_asked(host: Scripted, bucket: BunnySync, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    host.answers = [Answer(200, DATA)]
    bucket.get("k")
    assert host.asked[0].header("Authorization") is None


def test_no_password_is_said_before_any_request(host: Scripted) -> None:
    for transport in ("direct", "bunnycdnpython"):
        options = BunnyOptions(transport=transport)  # type: ignore[arg-type]
        made = BunnySync("zone", endpoint=host.url, credentials={"api_key": ACCOUNT}, options=options)
        with pytest.raises(AuthenticationError, match="no password") as caught:
            made.get("k")
        assert "BUNNY_STORAGE_API_KEY" in (caught.value.hint or "")
    assert not host.asked


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        BunnySync("zone", credentials={"storage_api_key": key})
    assert key not in f"{caught.value}{caught.value.hint}"


def test_a_server_that_echoes_the_key_does_not_make_us_show_it(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [Answer(418, f"Bad key {PASSWORD}".encode())]
    with pytest.raises(BucketError, match=r"Bad key \*\*\*\Z"):
        bucket.get("k")


# Puts.


def test_a_put_is_one_plain_request_and_its_proof(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [said(201, "File uploaded."), value(entry())]
    info = bucket.put("a b/ü~x", memoryview(bytearray(b"__" + DATA))[2:])
    put, describe = host.asked
    assert (put.method, put.target, put.body) == ("PUT", "/zone/a%20b/%C3%BC~x", DATA)
    assert put.header("Checksum") == DIGEST.upper()
    assert put.header("Content-Type") == "application/octet-stream"
    assert put.header("Content-Length") == "10"
    for name in ("Override-Content-Type", "Transfer-Encoding", "Expect", "Content-Encoding"):
        assert put.header(name) is None
    assert (describe.method, describe.target) == ("DESCRIBE", "/zone/a%20b/%C3%BC~x")
    assert (info.key, info.size, info.digests, info.modified) == ("a b/ü~x", 10, {"sha256": DIGEST}, 1704067200.0)


def test_a_content_type_is_sent_where_one_is_wanted(host: Scripted) -> None:
    options = BunnyOptions(content_type="image/png", verify_puts=False)
    host.answers = [Answer(201)]
    BunnySync("zone", endpoint=host.url, credentials={"password": PASSWORD}, options=options).put("k", DATA)
    (put,) = host.asked
    assert put.header("Override-Content-Type") == "image/png"


class Pacer:
    limits_bytes = True

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []

    def request(self, verb: str) -> None: ...
    def uploading(self, count: int) -> None:
        self.sent.append(count)

    def downloading(self, count: int) -> None:
        self.received.append(count)

    def throttled(self) -> None: ...


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_bodies_have_a_length_also_when_they_are_paced(server: BunnyServer, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for pacer in (None, Pacer()):
        with connected(server.first) as bucket:
            bucket.pacer = pacer
            bucket.put("k", data)
            assert server.first.read("k") == bucket.get("k") == data
        if pacer is not None:
            assert sum(pacer.sent) == sum(pacer.received) == size
            assert max([0, *pacer.sent, *pacer.received]) <= 1 << 16


class Damaging(BunnySync):
    """Sends other bytes than it was given, as a bad line would."""

    def _body(self, data: memoryview) -> memoryview:
        return memoryview(bytes(data).swapcase())


def damaging(zone: BunnyZone, **options: Any) -> Damaging:
    chosen = BunnyOptions(api_url=zone.core_url, **options)
    return Damaging(zone.zone, endpoint=zone.storage_url, credentials={"password": zone.password}, options=chosen)


def test_a_damaged_body_is_never_taken_for_stored(server: BunnyServer) -> None:
    with damaging(server.first) as bucket:
        with pytest.raises(Transient, match="mismatched"):
            bucket.put("k", DATA)
        server.options = replace(server.options, mismatch="drop")  # 201, and nothing is stored
        for before, known in ((None, True), (b"other data", True), (b"other", True), (b"other", False)):
            if before is not None:
                server.first.write("k", before, checksum_known=known)
            with pytest.raises(Transient, match="not what was sent"):
                bucket.put("k", DATA)
    assert server.first.objects() == {"k": b"other"}
    # What is left without the proof: nobody notices.
    with damaging(server.first, verify_puts=False) as bucket:
        bucket.put("k", DATA)
    assert server.counts.requests == {"PUT": 6, "DESCRIBE": 4}


def test_a_proof_that_fails_is_made_up_for_without_sending_again(server: BunnyServer) -> None:
    with connected(server.first) as bucket:
        for _ in range(2):
            server.fail_next("DESCRIBE", 503)
            with pytest.raises(Transient):
                bucket.put("k", DATA)
        assert bucket.put("k", DATA).size == len(DATA)
        assert server.counts.requests == {"PUT": 1, "DESCRIBE": 3}
        assert bucket.traffic.requests.total == 4
        bucket.put("k", DATA)
        assert server.counts.requests["PUT"] == 2
        # It proves these bytes of that key, and nothing else.
        server.fail_next("DESCRIBE", 503)
        with pytest.raises(Transient):
            bucket.put("k", b"second")
        bucket.put("k", b"third")
        server.fail_next("DESCRIBE", 503)
        with pytest.raises(Transient):
            bucket.put("k", b"fourth")
        bucket.put("other", b"fourth")
        assert server.first.objects() == {"k": b"fourth", "other": b"fourth"}
        assert server.counts.requests["PUT"] == 6


def test_a_put_that_turns_out_not_to_be_stored_is_sent_again(server: BunnyServer) -> None:
    server.options = replace(server.options, mismatch="drop")
    with damaging(server.first) as bucket:
        server.fail_next("DESCRIBE", 503)
        for _ in range(2):
            with pytest.raises(Transient):
                bucket.put("k", DATA)
        bucket._body = lambda data: data  # type: ignore[method-assign]
        bucket.put("k", DATA)
    assert server.first.objects() == {"k": DATA}


# What answers mean.

BUSY = "Unable to process request"


@pytest.mark.parametrize(
    ("answer", "kind", "throttled"),
    [
        (said(400, BUSY), Transient, True),
        (Answer(400, f"Error: {BUSY}, please wait.".upper().encode()), Transient, True),
        (said(400, "Something else."), BucketError, False),
        (Answer(401), AuthenticationError, False),
        (said(403, "No."), AccessDenied, False),
        (Answer(408), Transient, False),
        (said(413, "Too large."), BucketError, False),
        (said(429, "Too many."), Transient, True),
        (Answer(500, b"<html><h1>Internal error"), Transient, False),
        (Answer(502), Transient, False),
        (Answer(503), Transient, False),
        (Answer(503, b"", [("Retry-After", "5")]), Transient, True),
        (Answer(501), BucketError, False),
        (Answer(507), QuotaExceeded, False),
        (Answer(599), Transient, False),
        (Answer(402, b"Pay first."), BucketError, False),
        (Answer(204), BucketError, False),
    ],
)
def test_answers(host: Scripted, bucket: BunnySync, answer: Answer, kind: type[BuckiaError], throttled: bool) -> None:
    for verb in (bucket.get, bucket.list_page):
        host.answers = [answer]
        with pytest.raises(kind) as caught:
            verb("k")
        assert type(caught.value) is kind
        assert "<" not in str(caught.value)
        assert isinstance(caught.value, Transient) is (kind is Transient)
        if isinstance(caught.value, Transient):
            assert caught.value.throttled is throttled
        if kind in (AccessDenied, QuotaExceeded):
            assert "Bunny's panel" in str(caught.value.hint)
    assert len(host.asked) == 2  # nothing is retried below us


@pytest.mark.parametrize(
    ("answer", "kind", "throttled"),
    [
        (said(400, BUSY), Transient, True),
        (said(400, "Checksum and file contents mismatched."), Transient, False),
        (said(400, "Invalid path or checksum"), Transient, False),
        (Answer(400), Transient, False),
        (said(400, "Invalid path."), BucketError, False),
        (said(400, "The name is not allowed."), BucketError, False),
        (Answer(401), AuthenticationError, False),
        (Answer(404), BucketNotFound, False),
        (Answer(413), BucketError, False),
        (Answer(200), BucketError, False),
        (Answer(429), Transient, True),
    ],
)
def test_answers_to_a_put(
    host: Scripted, bucket: BunnySync, answer: Answer, kind: type[BuckiaError], throttled: bool
) -> None:
    host.answers = [answer]
    with pytest.raises(kind) as caught:
        bucket.put("k", DATA)
    assert type(caught.value) is kind
    assert getattr(caught.value, "throttled", False) is throttled
    assert len(host.asked) == 1


@pytest.mark.parametrize(("body", "throttled"), [(b"", True), (b"<html>", True), (b"Something else.", False)])
def test_a_400_without_a_word_means_busy_where_it_can_mean_nothing_else(
    host: Scripted, bucket: BunnySync, body: bytes, throttled: bool
) -> None:
    for verb in (bucket.list_page, bucket.delete):
        host.answers = [Answer(400, body)]
        with pytest.raises(BucketError) as caught:
            verb("k")
        assert getattr(caught.value, "throttled", False) is throttled


def test_a_wrong_password_and_what_it_may_come_from(server: BunnyServer) -> None:
    wrong = {"storage_api_key": server.account_key}
    reader = {"storage_api_key": server.readonly_password}
    with BunnySync(server.zone, endpoint=server.storage_url, credentials=wrong) as bucket:
        for call in (bucket.connect, lambda: bucket.get("k"), lambda: bucket.stat("k"), lambda: bucket.put("k", b"")):
            with pytest.raises(AuthenticationError) as caught:
                call()
            assert "the key of the account" in (caught.value.hint or "")
            assert "region" in (caught.value.hint or "")
    with BunnySync(server.zone, endpoint=server.storage_url, credentials=reader) as bucket:
        bucket.connect()
        for call in (lambda: bucket.put("k", b""), lambda: bucket.delete("k")):
            with pytest.raises(AuthenticationError) as caught:
                call()
            assert "read-only" in (caught.value.hint or "")
    bucket = BunnySync(server.zone, endpoint=server.other_region_url, credentials=reader)
    with pytest.raises(AuthenticationError, match=r"127\.0\.0\.1 does not accept"):
        bucket.connect()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", "17")], 17.0),
        ([("Retry-After", "Mon, 02 Mar 2026 10:00:30 GMT"), ("Date", "Mon, 02 Mar 2026 10:00:00 GMT")], 30.0),
        ([("Retry-After", "soon")], None),
        ([], None),
    ],
)
def test_a_wish_to_wait(
    host: Scripted, bucket: BunnySync, headers: list[tuple[str, str]], seconds: float | None
) -> None:
    host.answers = [Answer(429, b"", headers)]
    with pytest.raises(Transient) as caught:
        bucket.get("k")
    assert caught.value.retry_after == seconds


def test_limits_of_bunny_are_what_is_declared(server: BunnyServer) -> None:
    with connected(server.first) as bucket:
        most = bucket.capabilities.concurrency
        assert dict(most) == {"list": 4, "delete": 16, "put": 64, "get": 64}
        limits = Limits()
        assert most["list"] < limits.list
        assert most["delete"] < limits.delete
        assert max(most["put"], most["get"]) < limits.connections


# Broken connections.


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0, end="close"),
        Answer(0, end="reset"),
        Answer(200, DATA[:4], length=10, end="close"),
        Answer(200, DATA[:9], length=10, end="reset"),
        Answer(206, DATA[:4], [("Content-Range", "bytes 0-9/10")], length=10, end="close"),
        Answer(206, DATA, [("Content-Range", "bytes 1-10/11")]),
    ],
)
def test_broken_answers_may_pass(host: Scripted, bucket: BunnySync, answer: Answer) -> None:
    for pacer in (None, Pacer()):
        bucket.pacer = pacer
        host.answers = [answer]
        with pytest.raises(Transient) as caught:
            bucket.get("k", offset=0, length=10)
        assert str(caught.value).startswith("bunny://zone")


def test_broken_answers_to_other_requests_may_pass(host: Scripted, bucket: BunnySync) -> None:
    listing = json.dumps([entry()]).encode()
    for answer in (Answer(0, end="close"), Answer(200, listing[:-5], length=len(listing), end="close")):
        for verb in (bucket.list_page, bucket.stat):
            host.answers = [answer]
            with pytest.raises(Transient):
                verb("k")
    host.answers = [Answer(0, end="close")]
    with pytest.raises(Transient):
        bucket.put("k", DATA)


def test_nobody_there_may_pass() -> None:
    bucket = BunnySync("zone", endpoint="http://127.0.0.1:9", credentials={"password": PASSWORD})
    with pytest.raises(Transient, match=r"\Abunny://zone\S*: Connection refused\.\Z"):
        bucket.get("k")


def test_a_slow_answer_may_pass(host: Scripted) -> None:
    options = BunnyOptions(read_timeout=0.05)
    host.answers = [Answer(200)]
    with Gate() as host.latency, pytest.raises(Transient, match="in time"):
        BunnySync("zone", endpoint=host.url, credentials={"password": PASSWORD}, options=options).get("k")


def test_what_is_no_secure_connection_does_not_pass(host: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1 << 16)

        thread = Thread(target=answer)
        thread.start()
        endpoint = f"https://127.0.0.1:{plain.getsockname()[1]}"
        bucket = BunnySync("zone", endpoint=endpoint, credentials={"password": PASSWORD})
        with pytest.raises(BucketError, match="not secure") as caught:
            bucket.get("k")
        thread.join()
    assert type(caught.value) is BucketError
    assert "REQUESTS_CA_BUNDLE" in (caught.value.hint or "")
    # Who hangs up before it is one may be back soon.
    bucket = BunnySync("zone", endpoint=host.url.replace("http:", "https:"), credentials={"password": PASSWORD})
    with pytest.raises(Transient):
        bucket.get("k")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/bundle.pem")
    with pytest.raises(BucketError, match=r"/nonexistent/bundle\.pem") as caught:
        bucket.get("k")
    assert type(caught.value) is BucketError


def test_connections_are_kept_also_after_errors(server: BunnyServer) -> None:
    with connected(server.first) as bucket:
        bucket.put("k", DATA)
        for _ in range(5):
            for call in (bucket.get, bucket.stat):
                with pytest.raises(ObjectNotFound):
                    call("none")
            with pytest.raises(RangeNotSatisfiable):
                bucket.get("k", offset=20, length=1)
            bucket.get("k")
            [*bucket.list()]
        bucket.close()
        assert bucket.get("k") == DATA
    assert server.counts.connections == 2


@pytest.mark.parametrize("mismatch", ["reject", "drop"])
def test_when_every_third_request_fails_nothing_is_lost_and_little_repeated(
    server: BunnyServer, mismatch: Literal["reject", "drop"]
) -> None:
    server.options = Behaviour(mismatch=mismatch)
    objects = {f"d/{number % 5}/{number}": bytes([number]) * (1000 + number) for number in range(60)}
    with FaultProxy(server.storage_url) as proxy:
        proxy.inject(When(share=1 / 3, seed=1), *RETRYABLE)
        bucket = BunnySync(server.zone, endpoint=proxy.url, credentials={"password": server.password})
        draw = random.Random(1).random
        with Transfer(
            bucket, workers=0, retries=12, clock=FakeClock(), random=draw, cancelled=lambda: False
        ) as transfer:
            for key, data in objects.items():
                transfer.submit_put(key, data)
            assert server.first.objects() == objects
            assert [transfer.get(key) for key in objects] == [*objects.values()]
            assert [info.key for info in transfer.list("d/")] == sorted(objects)
            transfer.delete_many(objects)
            assert server.first.objects() == {}
        made = bucket.traffic.requests
        assert made.total == proxy.counts.total
        assert 1.3 < made.total / (4 * len(objects) + 6) < 1.6


# Reads.


def test_ranges_are_asked_for(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [
        Answer(206, b"me b", [("Content-Range", "bytes 2-5/10")]),
        Answer(206, b"me bytes", [("Content-Range", "bytes 2-9/10")]),
        Answer(206, b"me b"),
        Answer(200, DATA),
        Answer(200, DATA),
    ]
    assert bucket.get("k", offset=2, length=4) == b"me b"
    assert bucket.get("k", offset=2) == b"me bytes"
    assert bucket.get("k", offset=2, length=4) == b"me b"
    assert bucket.get("k", offset=2, length=4) == b"me b"  # the whole came, and is cut
    assert bucket.get("k") == DATA
    asked = [request.header("Range") for request in host.asked]
    assert asked == ["bytes=2-5", "bytes=2-", "bytes=2-5", "bytes=2-5", None]
    assert {request.header("Accept-Encoding") for request in host.asked} == {"identity"}


def test_a_part_to_the_end_that_ends_before_it_may_pass(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [Answer(206, b"me", [("Content-Range", "bytes 2-3/10")])]
    with pytest.raises(Transient, match="another part"):
        bucket.get("k", offset=2)


def test_a_directory_is_no_object(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [Answer(200, b"[]"), Answer(404)]  # as some have seen it answer to a GET without the slash
    with pytest.raises(ObjectNotFound):
        bucket.get("k")
    host.answers = [Answer(200, b"[]"), value(entry(size=2, checksum=hashlib.sha256(b"[]").hexdigest()))]
    assert bucket.get("k") == b"[]"
    for found in (entry(IsDirectory=True), entry(Guid=None), None, [], {}):
        host.answers = [value(found)]
        with pytest.raises(ObjectNotFound):
            bucket.stat("k")


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_what_is_known_of_an_object(server: BunnyServer) -> None:
    server.first.write("d/k", DATA)
    server.first.write("d/old", DATA, checksum_known=False)
    seen = set()
    for times in ("milliseconds", "seconds", "zoned"):
        server.options = replace(server.options, times=times, clock=lambda: 1700000000.25)  # type: ignore[arg-type]
        server.first.write("d/k", DATA)
        with connected(server.first) as bucket:
            listed = {info.key: info for info in bucket.list("d/")}
            assert listed["d/k"] == bucket.stat("d/k")
            seen.add(listed["d/k"].modified)
            assert listed["d/k"].digests == {"sha256": DIGEST}
            assert listed["d/old"].digests == {}
            assert listed["d/old"].size == len(DATA)
    assert seen == {1700000000.0, 1700000000.25}


@pytest.mark.parametrize("status", [405, 501])
def test_without_describe_the_directory_is_listed_from_then_on(server: BunnyServer, status: int) -> None:
    server.options = Behaviour(describe=status)  # type: ignore[arg-type]
    server.first.write("d/k", DATA)
    server.first.write("top", DATA)
    with connected(server.first) as bucket:
        assert bucket.stat("d/k").digests == {"sha256": DIGEST}
        assert bucket.stat("top").size == len(DATA)
        for key in ("d", "d/k2", "none", "d/k/below"):
            with pytest.raises(ObjectNotFound):
                bucket.stat(key)
        assert server.counts.requests == {"DESCRIBE": 1, "LIST": 6}
        assert (bucket.traffic.requests.stat, bucket.traffic.requests.list) == (6, 1)


# Listings.


def test_a_listing_is_a_request_for_each_directory_that_can_hold_the_prefix(server: BunnyServer) -> None:
    for path in ("f/a/1", "f/ab/1", "f/ab/x/2", "f/abc", "g/1"):
        server.first.write(path, DATA)
    with connected(server.first) as bucket:
        first = bucket.list_page("f/ab")
        assert ([info.key for info in first.objects], [*first.more]) == (["f/abc"], ["f/ab"])
        second = bucket.list_page("f/ab", "f/ab")
        assert ([info.key for info in second.objects], [*second.more]) == (["f/ab/1"], ["f/ab/x"])
        assert server.counts.requests == {"LIST": 2}
        server.storage.reset_counts()
        assert sorted(info.key for info in bucket.list()) == ["f/a/1", "f/ab/1", "f/ab/x/2", "f/abc", "g/1"]
        assert server.counts.requests == {"LIST": 6}


@pytest.mark.parametrize("status", [200, 404])
def test_a_missing_directory_is_empty(server: BunnyServer, status: int) -> None:
    server.options = Behaviour(missing_directory=status)  # type: ignore[arg-type]
    with connected(server.first) as bucket:
        bucket.connect()
        assert [*bucket.list("no/such/")] == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(404, b"<html><h1>Not here"), BucketError),
        (Answer(404, b"Not here", [("Content-Type", "text/html")]), BucketError),
        (Answer(200, b"<html><h1>Log in"), BucketError),
        (Answer(200, b""), BucketError),
        (Answer(200, b'[{"ObjectName": "k'), Transient),
        (value({"Items": []}), BucketError),
        (value(None), BucketError),
        (value(["k"]), BucketError),
        (value([{"Guid": "x"}]), BucketError),
        (value([entry(size=-1)]), BucketError),
        (value([entry(size=None)]), BucketError),  # type: ignore[arg-type]
        *((value([entry(name)]), BucketError) for name in ("", ".", "..", "a/b", "\ud800")),
        (value([entry("..", IsDirectory=True)]), BucketError),
    ],
)
def test_what_is_no_listing_is_never_an_empty_bucket(
    host: Scripted, bucket: BunnySync, answer: Answer, kind: type[BuckiaError]
) -> None:
    host.answers = [answer]
    with pytest.raises(kind) as caught:
        [*bucket.list()]
    assert type(caught.value) is kind


def test_names_of_others_are_listed_as_they_are(server: BunnyServer) -> None:
    strange = ["d/100%25.txt", "d/a#b/c?d", "d/.hidden", "d/x y/ü"]
    for path in strange:
        server.first.write(path, DATA)
    with connected(server.first) as bucket:
        assert sorted(info.key for info in bucket.list("d/")) == sorted(strange)


# Names and deletes.


@pytest.mark.parametrize(
    "key", ['a"b', "a<b", "a>b", "a#b", "100%", "a?b", "~a", ".a", "a.", "d/.a/b", "d./a", "a/" + "?", "%2e%2e/a"]
)
def test_names_that_bunny_mangles_are_refused_before_any_request(host: Scripted, bucket: BunnySync, key: str) -> None:
    for call in (lambda: bucket.put(key, b""), lambda: bucket.get(key), lambda: bucket.stat(key)):
        with pytest.raises(UsageError, match="Bunny stores no object") as caught:
            call()
        assert caught.value.hint
    with pytest.raises(UsageError):
        bucket.delete(key)
    assert not host.asked


@pytest.mark.parametrize("key", ["a/", "a//b", "", "/", "/a", " /"])
def test_no_delete_can_mean_a_directory(host: Scripted, bucket: BunnySync, key: str) -> None:
    for delete in (bucket.delete, bucket._delete, lambda k: bucket.delete_many([k])):
        with pytest.raises(UsageError):
            delete(key)
    assert not host.asked


def test_deletes_spare_what_is_below_and_beside(server: BunnyServer) -> None:
    for path in ("a/b/c", "a/b2", "a2"):
        server.first.write(path, DATA)
    with connected(server.first) as bucket:
        bucket.delete("a")
        bucket.delete("a/b")
        bucket.delete_many(["a/b2", "none", "a/b/none"])
    assert sorted(server.first.objects()) == ["a/b/c", "a2"]


def test_a_delete_is_sent_without_a_slash_at_its_end(host: Scripted, bucket: BunnySync) -> None:
    host.answers = [said(200, "File deleted."), said(404, "Object not found"), Answer(204)]
    for key in ("a/b c", "a", "ü"):
        bucket.delete(key)
    assert [(r.method, r.target) for r in host.asked] == [
        ("DELETE", "/zone/a/b%20c"),
        ("DELETE", "/zone/a"),
        ("DELETE", "/zone/%C3%BC"),
    ]


# The CDN.


def test_reads_of_what_never_changes_go_to_the_cdn(server: BunnyServer) -> None:
    zone = server.first
    with connected(zone, cdn_url=zone.cdn_url) as bucket:
        bucket.put("k", DATA)
        assert bucket.get("k", cached=True) == DATA
        assert bucket.get("k", offset=2, length=4, cached=True) == b"me b"
        assert server.counts.requests.get("GET", 0) == 0
        assert bucket.get("k") == DATA
        zone.lag()
        bucket.put("new", DATA)
        assert bucket.get("new", cached=True) == DATA  # a replica does not have it yet
        assert zone.cdn.counts.requests == {"GET": 3}
        assert server.counts.requests["GET"] == 2
    with connected(zone) as bucket:
        bucket.get("k", cached=True)
    assert zone.cdn.counts.requests == {"GET": 3}


def test_a_cdn_that_wants_tokens_gets_them(server: BunnyServer) -> None:
    zone = server.first
    zone.security.enabled = True
    zone.write("a b/ü", DATA)
    with connected(zone, token_key=True, cdn_url=zone.cdn_url) as bucket:
        assert bucket.get("a b/ü", cached=True) == DATA
        assert server.counts.requests == {}
    with connected(zone, cdn_url=zone.cdn_url) as bucket:
        assert bucket.get("a b/ü", cached=True) == DATA
        assert server.counts.requests == {"GET": 1}


def test_signed_urls_work_until_they_expire(server: BunnyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    zone = server.first
    zone.security.enabled = True
    zone.write("a b/ü", DATA)
    now = [1_800_000_000.0]
    server.options = replace(server.options, clock=lambda: now[0])
    monkeypatch.setattr(bunny.time, "time", lambda: now[0])
    with connected(zone, token_key=True, cdn_url=zone.cdn_url) as bucket:
        url = bucket.signed_url("a b/ü", 60)
        plain = bucket.get_public_url("a b/ü")
        with pytest.raises(UsageError):
            bucket.signed_url("k", 0)
    assert url.startswith(f"{plain}?token=HS256-")
    assert url.endswith("&expires=1800000060")
    assert requests.get(url, timeout=5).content == DATA
    assert requests.get(plain or "", timeout=5).status_code == 403
    now[0] += 61
    assert requests.get(url, timeout=5).status_code == 403


def test_addresses_of_objects() -> None:
    def url(**options: Any) -> str | None:
        return BunnySync("zone", options=BunnyOptions(**options)).get_public_url("a b")

    assert url() is None
    assert url(pull_zone="123456") is None
    assert url(pull_zone="photos") == "https://photos.b-cdn.net/a%20b"
    assert url(pull_zone="photos", cdn_url="cdn.example.org/") == "https://cdn.example.org/a%20b"
    assert url(cdn_url="http://cdn.example.org/x") == "http://cdn.example.org/x/a%20b"


@pytest.mark.parametrize(
    ("credentials", "options"),
    [
        ({"token_key": TOKEN_KEY}, {}),
        ({"token_key": TOKEN_KEY}, {"pull_zone": "123"}),
        ({}, {"cdn_url": "https://cdn.example.org"}),
    ],
)
def test_a_signed_url_needs_an_address_and_a_key(credentials: dict[str, str], options: dict[str, Any]) -> None:
    bucket = BunnySync("zone", credentials=credentials, options=BunnyOptions(**options))
    with pytest.raises(UsageError) as caught:
        bucket.signed_url("k", 60)
    assert all(name in (caught.value.hint or "") for name in ("cdn_url", "pull_zone", "token_key"))
    with pytest.raises(UsageError):
        bucket.signed_url("a/", 60)


# The package bunnycdnpython.

PACKAGED = [c for c in contract.ALL if c not in (*DEAR, *COUNTED, contract.readers_never_see_a_part)]


@pytest.mark.parametrize("check", PACKAGED, ids=lambda check: check.__name__)
def test_promises_by_the_package(server: BunnyServer, check: contract.Check) -> None:
    pytest.importorskip("BunnyCDN")
    check(_fresh(server, transport="bunnycdnpython", verify_puts=False))


def test_the_package_is_believed_nothing(server: BunnyServer) -> None:
    pytest.importorskip("BunnyCDN")
    with connected(server.first, transport="bunnycdnpython") as bucket:
        bucket.put("d/k", DATA)
        server.first.damage("d/k")
        with pytest.raises(Transient, match="not what is stored"):
            bucket.get("d/k")
        server.fail_next("PUT", 201)  # and nothing is stored
        with pytest.raises(Transient, match="not what was sent"):
            bucket.put("d/new", DATA)
        server.fail_next("DELETE", 200)  # and nothing is deleted
        with pytest.raises(Transient, match="still there"):
            bucket.delete("d/k")
        for method, call in (("PUT", lambda: bucket.put("d/k", DATA)), ("GET", lambda: bucket.get("d/k"))):
            for status, kind in ((401, AuthenticationError), (429, Transient), (503, Transient), (0, Transient)):
                server.fail_next(method, status)
                with pytest.raises(kind):
                    call()
        for status, kind in ((401, AuthenticationError), (400, Transient), (503, Transient), (0, Transient)):
            server.fail_next("DELETE", status)
            with pytest.raises(kind):
                bucket.delete("d/k")
    assert [*server.first.objects()] == ["d/k"]


def test_the_package_is_paced_by_whole_objects(server: BunnyServer) -> None:
    pytest.importorskip("BunnyCDN")
    with connected(server.first, transport="bunnycdnpython") as bucket:
        bucket.pacer = pacer = Pacer()
        bucket.put("k", DATA)
        bucket.get("k")
        assert (pacer.sent, pacer.received) == ([len(DATA)], [len(DATA)])


def test_a_transport_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="transport is one of"):
        BunnySync("zone", options=BunnyOptions(transport="pigeon"))  # type: ignore[arg-type]
    monkeypatch.setattr("buckia.sync.bunny_package.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        BunnySync("zone", options=BunnyOptions(transport="bunnycdnpython"))
    assert caught.value.hint == "pip install bunnycdnpython"


# Local files.


def test_a_file_is_sent_without_being_held_in_memory(tmp_path: Path, bucket: BunnySync) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(48 << 20)
    digest = hashlib.sha256(bytes(48 << 20)).hexdigest()
    sent: list[int] = []

    def ask(method: str, path: str, *, headers: dict[str, str], body: Any = None) -> object:
        if method != "PUT":
            return bunny.Answer(200, {}, json.dumps(entry(size=sum(sent), checksum=digest.upper())).encode())
        assert (headers["Checksum"], len(body)) == (digest.upper(), 48 << 20)
        while piece := body.read(64 << 10):
            sent.append(len(piece))
        return bunny.Answer(201, {})

    bucket._host.ask = ask  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    try:
        info = bucket.upload_file(path, "k")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20
    assert (info.size, info.digests) == (48 << 20, {"sha256": digest})
    assert (bucket.traffic.requests.put, bucket.traffic.bytes_uploaded) == (1, 48 << 20)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_file_arrives_as_it_is_and_each_try_is_an_attempt(server: BunnyServer, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := random.Random(size).randbytes(size))
    verbs: list[str] = []

    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        for _ in range(2):
            verbs.append(verb)
            try:
                return call()
            except Transient:
                continue
        raise AssertionError

    for pacer in (None, Pacer()):
        server.fail_next("PUT", 503)
        with connected(server.first) as bucket:
            bucket.pacer = pacer
            assert bucket.upload_file(path, "k", attempt=attempt).size == size
            assert server.first.read("k") == data
        if pacer is not None:
            assert sum(pacer.sent) >= size
    assert verbs == ["put"] * 4


def test_files_that_cannot_be_sent(server: BunnyServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with connected(server.first, object_bytes_max=9) as bucket:
        with pytest.raises(LocalError, match="cannot be read"):
            bucket.upload_file(tmp_path / "none", "k")
        with pytest.raises(UsageError):
            bucket.upload_file(tmp_path / "file", "../k")
        with pytest.raises(BucketError, match="larger than one object"):
            bucket.upload_file(tmp_path / "file", "k")
        assert bucket.traffic.requests.total == 0

    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        (tmp_path / "file").write_bytes(b"other")
        return call()

    with connected(server.first) as bucket, pytest.raises(LocalError, match="changed while"):
        bucket.upload_file(tmp_path / "file", "k", attempt=attempt)
    assert server.first.objects() == {}


@pytest.mark.parametrize("stored", [DATA, b"same size.", b"x"])
def test_where_no_digest_is_told_the_bytes_are_read_back(
    host: Scripted, bucket: BunnySync, tmp_path: Path, stored: bytes
) -> None:
    """A size alone proves nothing."""
    (tmp_path / "file").write_bytes(DATA)
    for send in (lambda: bucket.put("k", DATA), lambda: bucket.upload_file(tmp_path / "file", "k")):
        host.answers = [Answer(201), value(entry(size=len(stored), checksum=None))]
        part = Answer(206, stored, [("Content-Range", f"bytes 0-9/{len(stored)}")])
        host.answers += [part] if len(stored) == len(DATA) else []
        if stored == DATA:
            assert send().size == len(DATA)
        else:
            with pytest.raises(Transient, match="not what was sent"):
                send()
        assert not host.answers
