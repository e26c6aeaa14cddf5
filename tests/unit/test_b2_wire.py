"""The adapter of B2 over HTTP makes each request once, through few connections, with bodies of known length; only an
expired token and a busy upload server make it ask more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from buckia.config import BuckiaConfig
from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    CancelledError,
    ObjectNotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.store.transfer import Transfer
from buckia.sync import b2 as b2_module
from buckia.sync import b2_file, contract
from buckia.sync.b2 import B2Options, B2Sync
from tests.servers.b2 import SYNC, B2Bucket, B2Server, shared
from tests.servers.b2.server import error
from tests.servers.http import Answer, Gate, HttpServer, Request
from tests.servers.proxy import RETRYABLE, FaultProxy, When

KEY = "f/_buckia/object"
UPLOAD, DOWNLOAD, LIST = "b2_upload_file", "b2_download_file_by_name", "b2_list_file_names"
BUSY = error(503, "service_unavailable", "no tomes available")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[B2Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with B2Server() as running:
        yield running


@pytest.fixture
def bucket(server: B2Server) -> B2Bucket:
    return server.fresh_bucket()


@pytest.fixture
def sync(server: B2Server, bucket: B2Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[B2Sync]:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"Somebody waits for {seconds} s.")

    monkeypatch.setattr(time, "sleep", sleep)
    with server.sync(bucket) as made:
        yield made


@pytest.fixture
def warm(server: B2Server, sync: B2Sync) -> B2Sync:
    """An adapter that has a token and an upload URL, and nothing counted yet."""
    sync.put(KEY, b"0123456789")
    server.reset_counts()
    sync.traffic = type(sync.traffic)()
    return sync


@pytest.mark.parametrize("check", contract.ALL, ids=lambda check: check.__name__)
def test_promise(check: contract.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    check(lambda: shared().sync(shared().fresh_bucket()))


# How many requests.


def test_the_first_put_authorises_and_later_ones_do_not(server: B2Server, sync: B2Sync) -> None:
    sync.put(KEY, b"1")
    assert server.counts.requests == {"b2_authorize_account": 1, "b2_get_upload_url": 1, UPLOAD: 1}
    sync.put(KEY, b"2")
    assert server.counts.requests == {"b2_authorize_account": 1, "b2_get_upload_url": 1, UPLOAD: 2}
    assert sync.traffic.requests.total == 2


def test_a_key_for_all_buckets_looks_the_bucket_up_once(server: B2Server, bucket: B2Bucket) -> None:
    with server.sync(bucket, credentials=server.cloud.master) as sync:
        sync.put(KEY, b"1")
        sync.get(KEY)
        [*sync.list()]
    assert server.counts.requests["b2_list_buckets"] == 1


def test_a_bucket_that_does_not_exist_is_no_missing_object(server: B2Server) -> None:
    with B2Sync("no-such-bucket", endpoint=server.url, credentials=server.cloud.master) as sync:
        for act in (lambda: sync.get(KEY), lambda: sync.stat(KEY), lambda: sync.put(KEY, b""), sync.connect):
            with pytest.raises(BucketNotFound):
                act()


@pytest.mark.parametrize(
    ("act", "asked", "counted"),
    [
        (lambda sync: sync.get(KEY), {DOWNLOAD: 1}, {"get": 1}),
        (lambda sync: sync.get(KEY, offset=2, length=3), {DOWNLOAD: 1}, {"get": 1}),
        (lambda sync: sync.stat(KEY), {"HEAD": 1}, {"stat": 1}),
        (lambda sync: [*sync.list("f/")], {LIST: 1}, {"list": 1}),
        (lambda sync: sync.connect(), {LIST: 1}, {"list": 1}),
        (lambda sync: sync.delete(KEY), {"b2_hide_file": 1}, {"delete": 1}),
        (lambda sync: sync.delete("f/none"), {"b2_hide_file": 1}, {"delete": 1}),
        (lambda sync: sync.copy(KEY, "f/copy"), {"HEAD": 1, "b2_copy_file": 1}, {"stat": 1, "put": 1}),
    ],
)
def test_each_verb_takes_as_few_requests_as_it_can(
    server: B2Server, warm: B2Sync, act: Callable[[B2Sync], object], asked: dict[str, int], counted: dict[str, int]
) -> None:
    act(warm)
    assert server.counts.requests == asked
    requests_made = warm.traffic.requests
    assert {verb: getattr(requests_made, verb) for verb in counted} == counted
    assert requests_made.total == sum(counted.values())


def test_connections_are_kept_and_shared(server: B2Server, bucket: B2Bucket) -> None:
    with server.sync(bucket, options=B2Options(max_workers=4)) as sync, ThreadPoolExecutor(4) as pool:

        def work(number: int) -> bytes:
            sync.put(f"f/{number}", b"x" * number)
            sync.stat(f"f/{number}")
            return sync.get(f"f/{number}")

        assert [len(data) for data in pool.map(work, range(40))] == [*range(40)]
        counts = server.counts
    assert counts.connections <= 4
    assert counts.requests["b2_get_upload_url"] <= 4
    assert counts.requests["b2_authorize_account"] == 1


def test_after_closing_it_can_be_used_again(server: B2Server, warm: B2Sync) -> None:
    warm.close()
    assert warm.get(KEY) == b"0123456789"
    assert server.counts.connections == 1


# What is sent.


def test_bodies_have_a_length_and_a_digest(server: B2Server, warm: B2Sync) -> None:
    seen: list[Request] = []
    server.latency = seen.append
    for data in (b"", b"x" * 100_000):
        warm.put("f/ü b", data)
        request = seen.pop()
        assert not request.chunked
        assert request.header("content-length") == str(len(data))
        assert request.header("x-bz-content-sha1") == hashlib.sha1(data).hexdigest()
        assert request.header("x-bz-file-name") == "f/%C3%BC%20b"
        assert request.body == data


def test_a_part_is_asked_for_as_a_part(server: B2Server, warm: B2Sync) -> None:
    seen: list[Request] = []
    server.latency = seen.append
    assert warm.get(KEY, offset=2, length=3) == b"234"
    assert warm.get(KEY, offset=8) == b"89"
    assert warm.get(KEY) == b"0123456789"
    assert [request.header("range") for request in seen] == ["bytes=2-4", "bytes=8-9999999999999", None]
    assert {request.header("accept-encoding") for request in seen} == {"identity"}


def test_pages_are_asked_for_in_full(server: B2Server, warm: B2Sync) -> None:
    seen: list[Request] = []
    server.latency = seen.append
    warm.list_page("f/", "f/a")
    body = json.loads(seen[0].body)
    assert (body["maxFileCount"], body["prefix"], body["startFileName"]) == (10_000, "f/", "f/a")


def test_a_netrc_file_does_not_take_the_token_s_place(
    server: B2Server, sync: B2Sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    sync.put(KEY, b"x")
    assert sync.get(KEY) == b"x"


class CountingPacer:
    """A pacer that lets everything pass, and knows how much."""

    limits_bytes = True

    def __init__(self) -> None:
        self.requests = 0
        self.up: list[int] = []
        self.down: list[int] = []

    def request(self, verb: str) -> None:
        self.requests += 1

    def uploading(self, count: int) -> None:
        self.up.append(count)

    def downloading(self, count: int) -> None:
        self.down.append(count)

    def throttled(self) -> None:
        raise AssertionError("Nobody complained.")


def test_limited_bodies_flow_in_slices(warm: B2Sync) -> None:
    warm.pacer = pacer = CountingPacer()
    data = os.urandom(200_000)
    warm.put(KEY, data)
    assert warm.get(KEY) == data
    assert sum(pacer.up) == sum(pacer.down) == len(data)
    assert max(pacer.up + pacer.down) <= 64 << 10
    assert pacer.requests == 2


def test_a_cancellation_while_a_body_flows_is_one(server: B2Server, warm: B2Sync, bucket: B2Bucket) -> None:
    class Stopping(CountingPacer):
        def uploading(self, count: int) -> None:
            raise CancelledError

        downloading = uploading

    for sync in (warm, server.cloud.sync(bucket)):
        sync.pacer = Stopping()
        for act in (lambda sync=sync: sync.put(KEY, b"x" * 100), lambda sync=sync: sync.get(KEY)):
            with pytest.raises(CancelledError):
                act()
    # By one server only: nobody asks another one.
    assert server.counts.requests.keys() <= {UPLOAD, DOWNLOAD}
    assert bucket.versions()[0].data == b"0123456789"


# Upload servers.


def test_a_busy_upload_server_means_another_one(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, *BUSY)
    warm.put(KEY, b"new")
    assert warm.get(KEY) == b"new"
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 1, DOWNLOAD: 1}
    assert warm.traffic.requests.put == 3
    warm.put(KEY, b"newer")
    assert server.counts.requests["b2_get_upload_url"] == 1


def test_a_lost_connection_means_another_one(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, 0)
    warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 1}


def test_an_expired_upload_token_means_another_one(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, *error(401, "expired_auth_token", "Authorization token has expired"))
    warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 1}


def test_when_all_tokens_have_expired_one_put_finds_its_way(server: B2Server, warm: B2Sync) -> None:
    server.cloud.expire_tokens()
    warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 2, "b2_authorize_account": 1}
    assert warm.traffic.requests.put == 1 + 2 + 1


def test_a_service_that_is_down_is_not_asked_for_ever(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, *BUSY, times=100)
    with pytest.raises(Transient):
        warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 3, "b2_get_upload_url": 2}


def test_a_url_that_failed_is_not_used_again(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, *error(429, "too_many_requests"))
    with pytest.raises(Transient):
        warm.put(KEY, b"new")
    warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 1}


def test_no_two_uploads_use_one_url_at_a_time(server: B2Server, warm: B2Sync) -> None:
    with Gate() as gate, ThreadPoolExecutor(4) as pool:
        server.latency = lambda request: gate(request) if request.path.startswith("/pod/") else None
        puts = [pool.submit(warm.put, f"f/{number}", b"x") for number in range(4)]
        gate.wait(4)
        gate.open()
        for put in puts:
            put.result()
    assert server.counts.requests == {UPLOAD: 4, "b2_get_upload_url": 3}


def test_the_server_refuses_two_uploads_by_one_url(server: B2Server, sync: B2Sync) -> None:
    url, token = sync._account._urls.fresh()
    headers = {"Authorization": token, "X-Bz-File-Name": "x", "X-Bz-Content-Sha1": hashlib.sha1(b"x").hexdigest()}
    with Gate() as gate, ThreadPoolExecutor(1) as pool:
        server.latency = gate
        first = pool.submit(requests.post, url, b"x", headers=headers)
        gate.wait(1)
        second = requests.post(url, b"x", headers=headers)
        gate.open()
        assert first.result().status_code == 200
    assert (second.status_code, second.json()["code"]) == (400, "auth_token_limit")


def test_an_upload_url_in_use_elsewhere_means_another_one(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(UPLOAD, *error(400, "auth_token_limit", "more than one upload using auth token SECRETTEXT"))
    warm.put(KEY, b"new")
    assert server.counts.requests == {UPLOAD: 2, "b2_get_upload_url": 1}


@pytest.mark.parametrize(
    ("headers", "chunked"), [({"X-Bz-Content-Sha1": "0" * 40}, False), ({"X-Bz-Content-Sha1": "0" * 40}, True)]
)
def test_the_server_checks_digest_and_length(
    server: B2Server, sync: B2Sync, bucket: B2Bucket, headers: dict[str, str], chunked: bool
) -> None:
    url, token = sync._account._urls.fresh()
    body: Any = iter([b"x"]) if chunked else b"x"
    answer = requests.post(url, body, headers={"Authorization": token, "X-Bz-File-Name": "x", **headers})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert ("Sha1" in answer.json()["message"]) is not chunked
    assert bucket.versions() == []


# Tokens.


def test_all_threads_share_one_new_token(server: B2Server, warm: B2Sync) -> None:
    server.cloud.expire_tokens()
    with Gate() as gate, ThreadPoolExecutor(8) as pool:
        server.latency = lambda request: gate(request) if request.path.endswith(LIST) else None
        lists = [pool.submit(lambda: [*warm.list("f/")]) for _ in range(8)]
        gate.wait(8)
        gate.open()
        for each in lists:
            assert [info.key for info in each.result()] == [KEY]
    assert server.counts.requests == {LIST: 16, "b2_authorize_account": 1}
    assert warm.traffic.requests.list == 16


@pytest.mark.parametrize(
    "act",
    [
        lambda sync: sync.get(KEY),
        lambda sync: sync.stat(KEY),
        lambda sync: sync.delete(KEY),
        lambda sync: sync.copy(KEY, "f/copy"),
    ],
)
def test_an_expired_token_is_renewed_once(server: B2Server, warm: B2Sync, act: Callable[[B2Sync], object]) -> None:
    server.cloud.expire_tokens()
    act(warm)
    assert server.counts.requests["b2_authorize_account"] == 1
    assert server.counts.total == warm.traffic.requests.total + 1


def test_a_token_that_is_refused_again_is_not_renewed_again(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(LIST, *error(401, "expired_auth_token", "Authorization token has expired"), times=9)
    with pytest.raises(AuthenticationError):
        [*warm.list()]
    assert server.counts.requests == {LIST: 2, "b2_authorize_account": 1}


def test_a_refused_head_says_nothing_and_is_asked_again_once(server: B2Server, warm: B2Sync) -> None:
    server.fail_next("HEAD", 401, times=9)
    with pytest.raises(AccessDenied):
        warm.stat(KEY)
    assert server.counts.requests == {"HEAD": 2, "b2_authorize_account": 1}


@pytest.mark.parametrize("code", ["unauthorized", "bad_auth_token"])
def test_a_wrong_key_is_asked_for_once(server: B2Server, bucket: B2Bucket, code: str) -> None:
    server.fail_next("b2_authorize_account", *error(401, code, ""))
    with server.sync(bucket) as sync, pytest.raises(AuthenticationError, match="does not accept the application key"):
        sync.connect()
    assert server.counts.requests == {"b2_authorize_account": 1}


def test_an_account_that_is_not_complete_says_so(server: B2Server, bucket: B2Bucket) -> None:
    server.fail_next("b2_authorize_account", *error(401, "email_not_verified", "Please verify your email."))
    with server.sync(bucket) as sync, pytest.raises(AccessDenied, match="verify your email"):
        sync.connect()


def test_a_missing_right_is_asked_for_once(server: B2Server, bucket: B2Bucket) -> None:
    with server.sync(bucket, credentials=server.cloud.key(["readFiles"], [bucket.bucket_id])) as sync:
        with pytest.raises(AccessDenied, match="lacks the capability listFiles"):
            [*sync.list()]
        with pytest.raises(AccessDenied, match="lacks the capability writeFiles"):
            sync.put(KEY, b"")
    assert server.counts.requests == {"b2_authorize_account": 1, LIST: 1, "b2_get_upload_url": 1}


# Failures.


@pytest.mark.parametrize(
    ("kind", "answer", "meaning"),
    [
        (LIST, error(500, "internal_error"), Transient),
        (LIST, (503, b"<html>nothing here</html>"), Transient),
        (LIST, error(408, "request_timeout"), Transient),
        (LIST, error(403, "transaction_cap_exceeded"), QuotaExceeded),
        (LIST, error(400, "bad_bucket_id"), BucketError),
        (LIST, (200, b"<html>"), BucketError),
        (LIST, (0, b""), Transient),
        (DOWNLOAD, error(403, "download_cap_exceeded", "Usage cap exceeded"), QuotaExceeded),
        (DOWNLOAD, error(403, "access_denied"), AccessDenied),
        (DOWNLOAD, error(404, "not_found"), ObjectNotFound),
        (DOWNLOAD, error(416, "range_not_satisfiable"), RangeNotSatisfiable),
        (DOWNLOAD, error(503, "service_unavailable"), Transient),
        ("HEAD", (403, b""), AccessDenied),
        ("HEAD", (404, b""), ObjectNotFound),
        ("HEAD", (503, b""), Transient),
        ("b2_hide_file", error(500, "internal_error"), Transient),
        (UPLOAD, error(403, "storage_cap_exceeded", "Usage cap exceeded"), QuotaExceeded),
        (UPLOAD, error(400, "bad_request", "Sha1 did not match data received"), Transient),
        (UPLOAD, error(408, "request_timeout"), Transient),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_a_failure_is_one_request_and_one_error(
    server: B2Server, warm: B2Sync, kind: str, answer: tuple[int, bytes], meaning: type[BuckiaError]
) -> None:
    acts: dict[str, Callable[[], object]] = {
        LIST: lambda: [*warm.list("f/")],
        DOWNLOAD: lambda: warm.get(KEY),
        "HEAD": lambda: warm.stat(KEY),
        "b2_hide_file": lambda: warm.delete(KEY),
        UPLOAD: lambda: warm.put(KEY, b"x"),
    }
    server.fail_next(kind, *answer, times=9)
    with pytest.raises(meaning) as raised:
        acts[kind]()
    assert isinstance(raised.value, meaning)
    assert server.counts.requests == {kind: 1}
    assert warm.traffic.requests.total == 1


def test_too_many_requests_are_handed_up_with_the_wish(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(LIST, *error(429, "too_many_requests"), headers=[("Retry-After", "7")])
    with pytest.raises(Transient) as raised:
        [*warm.list()]
    assert (raised.value.throttled, raised.value.retry_after) == (True, 7.0)
    assert server.counts.requests == {LIST: 1}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_retries_are_not_multiplied(server: B2Server, warm: B2Sync) -> None:
    clock = Clock()
    with Transfer(warm, workers=0, retries=5, clock=clock, random=lambda: 0.0, cancelled=lambda: False) as transfer:
        server.fail_next(DOWNLOAD, *BUSY, times=2)
        server.fail_next(DOWNLOAD, *error(429, "too_many_requests"), headers=[("Retry-After", "7")])
        assert transfer.get(KEY) == b"0123456789"
        assert server.counts.requests == {DOWNLOAD: 4}
        assert (warm.traffic.requests.get, warm.traffic.retries) == (4, 3)
        assert clock.now == pytest.approx(7.0)
        server.fail_next(DOWNLOAD, *BUSY, times=99)
        with pytest.raises(Transient):
            transfer.get(KEY)
        assert server.counts.requests == {DOWNLOAD: 4 + 6}


def test_every_third_request_may_fail(server: B2Server, bucket: B2Bucket) -> None:
    with FaultProxy(server.url) as proxy:
        sync = B2Sync(bucket.name, endpoint=proxy.url, credentials=bucket.credentials)
        with (
            sync,
            Transfer(
                sync, workers=0, retries=5, clock=Clock(), random=lambda: 0.0, cancelled=lambda: False
            ) as transfer,
        ):
            transfer.list()
            server.reset_counts()
            proxy.reset_counts()
            proxy.inject(When(every=3), *RETRYABLE)
            data = {f"f/{number}": os.urandom(number) for number in range(40)}
            for key, written in data.items():
                transfer.put(key, written)
            assert {key: transfer.get(key) for key in data} == data
            assert [info.key for info in transfer.list()] == sorted(data)
            for key in data:
                transfer.delete(key)
            assert transfer.list() == []
    assert set(proxy.made) == {fault.kind for fault in RETRYABLE}
    # 122 would do if none failed, and half as many again are lost; each failed upload needs a new upload URL as well.
    assert proxy.counts.total <= 2.1 * 122


def test_a_truncated_download_is_no_object(server: B2Server, warm: B2Sync) -> None:
    server.truncate_next()
    with pytest.raises(Transient):
        warm.get(KEY)
    assert warm.get(KEY) == b"0123456789"
    assert server.counts.requests == {DOWNLOAD: 2}


def test_a_server_that_does_not_answer_is_given_up(server: B2Server, bucket: B2Bucket) -> None:
    with server.sync(bucket, options=B2Options(read_timeout=0.1)) as sync:
        sync.put(KEY, b"x")
        server.reset_counts()
        with Gate() as gate:
            server.latency = gate
            for act in (lambda: sync.get(KEY), lambda: sync.stat(KEY), sync.connect, lambda: sync.put(KEY, b"y")):
                with pytest.raises(Transient):
                    act()
    assert server.counts.total == 4


def test_timeouts_are_those_of_the_options(server: B2Server, bucket: B2Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[float, float]] = {}
    request = requests.Session.request

    def watched(session: requests.Session, method: str, url: str, **how: Any) -> Any:
        seen[url.rpartition("/")[2]] = how["timeout"]
        return request(session, method, url, **how)

    monkeypatch.setattr(requests.Session, "request", watched)
    with server.sync(bucket, options=B2Options(connect_timeout=3, read_timeout=4)) as sync:
        sync.put("a", b"x")
        sync.get("a")
        sync.copy("a", "b")
    # All of a copy is done before its answer comes.
    assert seen.pop("b2_copy_file") == (3, 1200)
    assert {*seen.values()} == {(3, 4)}


def test_a_server_that_is_not_there(bucket: B2Bucket, server: B2Server) -> None:
    sync = B2Sync(bucket.name, endpoint="http://127.0.0.1:1", credentials=bucket.credentials)
    with sync, pytest.raises(Transient):
        sync.connect()


def test_a_server_that_is_another_one(bucket: B2Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(HttpServer):
        def answer(self, request: Request) -> Answer:
            return Answer(200, b"[]")

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Other() as other, pytest.raises(BucketError, match="does not answer as Backblaze B2"):
        B2Sync(bucket.name, endpoint=other.url, credentials=bucket.credentials).connect()


PAGE_OF_A_PORTAL = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize("body", [PAGE_OF_A_PORTAL, b"{}", b"[]", b"7"])
@pytest.mark.parametrize(
    ("kind", "act"),
    [
        (LIST, lambda sync: [*sync.list()]),
        ("HEAD", lambda sync: sync.stat(KEY)),
        (DOWNLOAD, lambda sync: sync.get(KEY)),
        (UPLOAD, lambda sync: sync.put(KEY, b"new")),
        ("b2_copy_file", lambda sync: sync.copy(KEY, "f/copy")),
        ("b2_list_file_versions", lambda sync: sync.admin.list_hidden()),
        ("b2_list_unfinished_large_files", lambda sync: sync.admin.list_uploads()),
        ("b2_list_buckets", lambda sync: sync.admin.get_cors()),
        ("b2_get_download_authorization", lambda sync: sync.signed_url(KEY, 1)),
    ],
)
def test_what_does_not_answer_as_b2_is_named(
    server: B2Server, bucket: B2Bucket, kind: str, act: Callable[[B2Sync], object], body: bytes
) -> None:
    """A captive portal, or a server of another kind, is neither a bug nor an empty bucket."""
    with server.sync(bucket, credentials=server.cloud.master) as sync:
        sync.put(KEY, b"x")
        server.fail_next(kind, 200, body)
        with pytest.raises(BucketError, match="does not answer as Backblaze B2") as raised:
            act(sync)
    assert type(raised.value) is BucketError
    assert "sign in" in (raised.value.hint or "")


def test_a_portal_at_the_authorisation_is_named(server: B2Server, bucket: B2Bucket) -> None:
    server.fail_next("b2_authorize_account", 200, PAGE_OF_A_PORTAL)
    with server.sync(bucket) as sync, pytest.raises(BucketError, match="does not answer as Backblaze B2"):
        sync.connect()


@pytest.mark.parametrize(
    ("change", "value"), [("contentLength", 2), ("contentSha1", "0" * 40), ("contentSha1", None), ("fileName", "other")]
)
def test_an_upload_whose_answer_tells_of_something_else_is_not_done(
    server: B2Server, warm: B2Sync, change: str, value: object
) -> None:
    told = {"fileName": KEY, "contentLength": 3, "contentSha1": hashlib.sha1(b"new").hexdigest()}
    told |= {"fileId": "4_z", "uploadTimestamp": 1, "fileInfo": {}, change: value}
    server.fail_next(UPLOAD, 200, json.dumps(told))
    with pytest.raises(Transient, match="not what was sent"):
        warm.put(KEY, b"new")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(server: B2Server, warm: B2Sync, status: int) -> None:
    """Neither token nor bytes leave for another host."""
    asked: list[Request] = []

    class Elsewhere(HttpServer):
        def answer(self, request: Request) -> Answer:
            asked.append(request)
            return Answer(200, b"{}")

    with Elsewhere() as elsewhere:
        for act in (
            lambda: warm.put(KEY, b"new"),
            lambda: warm.get(KEY),
            lambda: warm.stat(KEY),
            lambda: warm.delete(KEY),
            lambda: [*warm.list()],
            lambda: server.sync(server.fresh_bucket()).connect(),
        ):
            server.fail_next("*", status, headers=[("Location", f"{elsewhere.url}/steal")])
            with pytest.raises(BucketError, match=f"{status}: it is somewhere else") as raised:
                act()
            assert type(raised.value) is BucketError
            assert "not followed" in (raised.value.hint or "")
    assert not asked


def test_a_token_that_is_refused_at_once_is_said_to_be(server: B2Server, warm: B2Sync) -> None:
    server.fail_next(LIST, *error(401, "expired_auth_token", "m"), times=2)
    with pytest.raises(AuthenticationError, match="does not accept the token that it has just given") as raised:
        [*warm.list()]
    assert raised.value.hint


def test_no_secret_is_in_a_message(server: B2Server, bucket: B2Bucket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = "K" + os.urandom(12).hex()
    server.cloud.simulator.key_id_to_key[bucket.credentials["access_key_id"]].key = secret
    credentials = {**bucket.credentials, "secret_access_key": secret}
    with server.sync(bucket, credentials=credentials) as sync:
        sync.put(KEY, b"x")
        token = sync._account.access.token
        texts = [repr(sync), repr(vars(sync)), repr(vars(sync._account))]
        server.fail_next("*", *error(500, "internal_error"), times=9)
        for act in (lambda: sync.get(KEY), lambda: sync.put(KEY, b""), sync.connect, lambda: sync.delete(KEY)):
            with pytest.raises(Transient) as raised:
                act()
            texts.append(f"{raised.value} {raised.value.hint} {raised.value!r}")
    for text in texts:
        assert secret not in text
        assert token not in text
    assert secret not in caplog.text


# Files in parts.


@pytest.fixture
def large(server: B2Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large, as parts are small here; the service says how small when it authorises."""
    server.cloud.simulator.MIN_PART_SIZE = 1000
    monkeypatch.setattr(b2_file, "PART_BYTES", 1000)
    monkeypatch.setattr(b2_module, "WHOLE_BYTES_MAX", 2000)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(9500))
    return path


def test_a_large_file_goes_in_parts_side_by_side(server: B2Server, large: Path, warm: B2Sync) -> None:
    with Gate() as gate, ThreadPoolExecutor(1) as pool:
        server.latency = lambda request: gate(request) if request.path.startswith("/pod/part/") else None
        upload = pool.submit(warm.upload_file, large, KEY)
        gate.wait(4)
        gate.open()
        upload.result()
    assert warm.get(KEY) == large.read_bytes()
    counts = server.counts
    assert counts.max_in_flight_by["b2_upload_part"] == 4
    assert counts.requests == {
        "b2_list_unfinished_large_files": 1,
        "b2_start_large_file": 1,
        "b2_get_upload_part_url": 4,
        "b2_upload_part": 10,
        "b2_finish_large_file": 1,
        DOWNLOAD: 1,
    }
    assert (warm.traffic.requests.put, warm.traffic.requests.list) == (12, 1)


def test_a_part_goes_to_another_server_when_one_is_busy(server: B2Server, large: Path, warm: B2Sync) -> None:
    server.fail_next("b2_upload_part", *BUSY, times=2)
    warm.upload_file(large, KEY)
    assert warm.get(KEY) == large.read_bytes()
    assert server.counts.requests["b2_upload_part"] == 12


@pytest.mark.parametrize("told", [{"contentLength": 999}, {"contentSha1": "0" * 40}])
def test_a_part_whose_answer_tells_of_something_else_is_not_done(
    server: B2Server, large: Path, warm: B2Sync, told: dict[str, Any]
) -> None:
    right = {"contentLength": 1000, "contentSha1": hashlib.sha1(large.read_bytes()[:1000]).hexdigest(), "partNumber": 1}
    server.fail_next("b2_upload_part", 200, json.dumps(right | told))
    with pytest.raises(Transient, match="not what was sent"):
        warm.upload_file(large, "f/large")


def test_a_large_file_that_fails_is_cancelled(server: B2Server, bucket: B2Bucket, large: Path, warm: B2Sync) -> None:
    server.fail_next("b2_upload_part", *error(403, "storage_cap_exceeded"), times=99)
    with pytest.raises(QuotaExceeded):
        warm.upload_file(large, "f/large")
    assert server.counts.requests["b2_cancel_large_file"] == 1
    assert [version.name for version in bucket.versions()] == [KEY]


# Addresses.


def test_a_signed_address_opens_that_object(server: B2Server, bucket: B2Bucket) -> None:
    with server.sync(bucket, credentials=server.cloud.key((*SYNC, "shareFiles"), [bucket.bucket_id])) as sync:
        sync.put("f/ü b", b"bytes")
        sync.put("g", b"other")
        signed = sync.signed_url("f/ü b", 60)
        assert requests.get(signed).content == b"bytes"
        query = signed.partition("?")[2]
        assert requests.get(f"{sync.get_public_url('g')}?{query}").status_code == 401
        assert requests.get(sync.get_public_url("g")).status_code == 401


class Cdn(HttpServer):
    """Serves what it was given."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        super().__init__()

    def answer(self, request: Request) -> Answer:
        data = self.objects.get(request.path)
        return Answer(404) if data is None else Answer(200, data)


def test_a_cdn_is_read_where_that_is_allowed(server: B2Server, bucket: B2Bucket) -> None:
    with Cdn({f"/file/{bucket.name}/f/a": b"from the CDN"}) as cdn:
        options = B2Options(cdn_url=f"{cdn.url}/file/{bucket.name}")
        with server.sync(bucket, options=options) as sync:
            sync.put("f/a", b"from the bucket")
            sync.put("f/b", b"from the bucket")
            assert sync.get("f/a") == b"from the bucket"
            assert sync.get("f/a", cached=True) == b"from the CDN"
            assert sync.get("f/b", cached=True) == b"from the bucket"
            assert sync.get_public_url("f/a") == f"{cdn.url}/file/{bucket.name}/f/a"
    assert server.counts.requests[DOWNLOAD] == 2


def test_an_address_of_a_cdn_is_checked(bucket: B2Bucket) -> None:
    with pytest.raises(UsageError, match="address of a CDN"):
        B2Sync(bucket.name, options=B2Options(cdn_url="ftp://cdn.example.com"))
    with B2Sync(bucket.name, options=B2Options(cdn_url="cdn.example.com/")) as sync:
        assert sync.get_public_url("a b") == "https://cdn.example.com/a%20b"


# The page about it.

PAGE = (Path(__file__).parents[2] / "docs" / "providers" / "b2.md").read_text(encoding="utf-8")


def test_the_page_names_every_setting_and_its_default() -> None:
    table = PAGE.partition("\n## Settings\n")[2].partition("\n## ")[0]
    stated = dict(re.findall(r"^\| `(\w+)` \| `?(\w+)`? \|", table, re.MULTILINE))
    defaults = {field.name: field.default for field in fields(B2Options)}
    defaults["b2_delete"] = defaults.pop("delete")
    del defaults["max_workers"]  # a key of the entry
    assert stated == {
        name: "none" if value is None else f"{value}".removesuffix(".0") for name, value in defaults.items()
    }


def test_the_page_s_entries_are_valid() -> None:
    entries = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert entries
    for entry in entries:
        assert BuckiaConfig.from_mapping(yaml.safe_load(entry))["notes"].provider == "b2"


def test_the_page_s_program_runs(
    server: B2Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fresh_bucket("my-notes")
    monkeypatch.setattr(b2_module, "REALM", server.url)
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", server.cloud.master["access_key_id"])
    monkeypatch.setenv("B2_APPLICATION_KEY", server.cloud.master["secret_access_key"])
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(programs) == 1
    exec(compile(programs[0], "b2.md", "exec"), {})
    counts, address = capsys.readouterr().out.splitlines()
    assert counts == "0 hidden versions, 0 uploads ended"
    assert address.startswith(f"{server.url}/file/my-notes/notes/picture.jpg?Authorization=")
