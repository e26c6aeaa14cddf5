"""A CDN gives exactly the bytes that were asked for, or nothing; it never raises; one that is broken is left alone."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from threading import Lock

import pytest

from buckia.errors import CancelledError, Transient, UsageError
from buckia.sync.body import SLICE_BYTES, Read
from buckia.sync.cdn import PATIENCE_SECONDS, CdnReader
from tests.servers.http import Answer, Gate, HttpServer, Request, part_of

DATA = b"0123456789"


def _take(read: Read) -> bytes:
    """A whole body, without looking at a clock."""
    return b"".join(iter(lambda: read(SLICE_BYTES), b""))


class Edge(HttpServer):
    """Serves one object at every path, unless answers are prepared; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answers: list[Answer] = []
        self._guard = Lock()
        super().__init__()

    def answer(self, request: Request) -> Answer:
        with self._guard:
            self.asked.append(request)
            return self.answers.pop(0) if self.answers else part_of(DATA, request.header("Range"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def edge() -> Iterator[Edge]:
    with Edge() as running:
        yield running


@pytest.fixture
def reader(edge: Edge) -> Iterator[CdnReader]:
    made = CdnReader(edge.url + "/")
    yield made
    made.close()
    made.close()


@pytest.mark.parametrize(
    ("offset", "length", "wanted", "asked"),
    [
        (0, None, DATA, None),
        (0, 10, DATA, "bytes=0-9"),
        (2, 3, b"234", "bytes=2-4"),
        (7, None, b"789", "bytes=7-"),
        (9, 1, b"9", "bytes=9-9"),
        (8, 3, None, "bytes=8-10"),
        (10, None, None, "bytes=10-"),
    ],
)
def test_ranges(
    edge: Edge, reader: CdnReader, offset: int, length: int | None, wanted: bytes | None, asked: str | None
) -> None:
    assert reader.read("a b/ü%41", offset, length, _take) == wanted
    (request,) = edge.asked
    assert (request.method, request.target) == ("GET", "/a%20b/%C3%BC%2541")
    assert request.header("Range") == asked
    assert request.header("Accept-Encoding") == "identity"


def _part(text: str, body: bytes = b"234", **more: object) -> Answer:
    return Answer(206, body, [("Content-Range", text)], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (_part("bytes 2-4/10"), b"234"),
        (_part("bytes 2-4/*"), b"234"),
        (Answer(200, DATA), b"234"),
        (Answer(200, b"0123"), None),
        (Answer(200, b""), None),
        (Answer(206, b"234"), None),
        (_part("bytes 1-3/10", b"123"), None),
        (_part("bytes 3-4/10", b"34"), None),
        (_part("bytes 2-3/4", b"23"), None),
        (_part("bytes 2-5/10", b"2345"), None),
        (_part("bytes 2-4/10", b"23"), None),
        (_part("bytes 2-4/10", b"23", length=3, end="close"), None),
        (Answer(200, DATA[:9], length=10, end="close"), None),
        (Answer(200, gzip.compress(DATA), [("Content-Encoding", "gzip")]), None),
        (Answer(200, DATA, [("Content-Encoding", "unheard-of")]), None),
        (Answer(404, b"<html>"), None),
        (Answer(403, b"token"), None),
        (Answer(302, b"", [("Location", "/elsewhere")]), None),
        (Answer(503, b"busy"), None),
        (Answer(0, end="close"), None),
    ],
)
def test_only_exact_answers_count(edge: Edge, reader: CdnReader, answer: Answer, wanted: bytes | None) -> None:
    edge.answers = [answer]
    assert reader.read("k", 2, 3, _take) == wanted
    assert len(edge.asked) == 1  # nothing is tried again, no redirect is followed


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (Answer(200, b""), b""),
        (Answer(200, DATA[:9], length=10, end="close"), None),
        (_part("bytes 0-2/10", b"012"), None),
    ],
)
def test_whole_objects(edge: Edge, reader: CdnReader, answer: Answer, wanted: bytes | None) -> None:
    edge.answers = [answer]
    assert reader.read("k", 0, None, _take) == wanted


def test_a_part_to_the_end_has_to_reach_it(edge: Edge, reader: CdnReader) -> None:
    edge.answers = [_part("bytes 7-8/10", b"78"), _part("bytes 7-9/*", b"789"), _part("bytes 7-9/10", b"789")]
    assert [reader.read("k", 7, None, _take) for _ in range(3)] == [None, None, b"789"]
    edge.answers = [Answer(200, DATA), Answer(200, DATA)]
    assert [reader.read("k", offset, None, _take) for offset in (9, 10)] == [b"9", None]


@pytest.mark.parametrize("failure", [Answer(0, end="close"), Answer(0, end="reset"), Answer(403), Answer(401)])
def test_after_three_failures_in_a_row_it_is_not_asked_again(edge: Edge, reader: CdnReader, failure: Answer) -> None:
    edge.answers = [failure, failure, Answer(404), failure, failure, failure]
    assert [reader.read("k", 0, None, _take) for _ in range(8)] == [None] * 8
    assert len(edge.asked) == 6
    assert not reader.works


def test_nobody_there() -> None:
    reader = CdnReader("http://127.0.0.1:9")
    assert [reader.read("k", 0, 1, _take) for _ in range(4)] == [None] * 4
    assert not reader.works


def test_a_slow_one_is_not_waited_for(edge: Edge) -> None:
    with Gate() as edge.latency:
        assert CdnReader(edge.url, timeouts=(1.0, 0.05)).read("k", 0, 1, _take) is None


def test_its_timeouts_are_short_whatever_those_of_the_bucket_are() -> None:
    """Three failures of one that accepts and does not answer take 15 seconds, not three minutes."""
    with CdnReader("http://127.0.0.1:9", timeouts=(60.0, 300.0))._connected() as manager:
        timeout = manager.connection_pool_kw["timeout"]
    assert (timeout.connect_timeout, timeout.read_timeout) == (PATIENCE_SECONDS, PATIENCE_SECONDS)
    with CdnReader("http://127.0.0.1:9", timeouts=(0.5, 2.0))._connected() as manager:
        timeout = manager.connection_pool_kw["timeout"]
    assert (timeout.connect_timeout, timeout.read_timeout) == (0.5, 2.0)


def test_that_it_is_given_up_is_said_once(edge: Edge, reader: CdnReader, caplog: pytest.LogCaptureFixture) -> None:
    edge.answers = [Answer(403)] * 9
    assert [reader.read("k", 0, None, _take) for _ in range(9)] == [None] * 9
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.getMessage() == f"{edge.url} is not asked any more (403), as the bucket has all of it."


def test_one_that_drips_is_not_asked_again(edge: Edge, reader: CdnReader) -> None:
    """Finding that out takes a minute."""

    def receive(read: Read) -> bytes:
        raise Transient("less than that")

    assert [reader.read("k", 0, None, receive) for _ in range(3)] == [None] * 3
    assert len(edge.asked) == 1


def test_a_cancellation_is_no_failure(reader: CdnReader) -> None:
    def receive(read: Read) -> bytes:
        raise CancelledError

    with pytest.raises(CancelledError):
        reader.read("k", 0, None, receive)
    assert reader.works


def test_a_certificate_of_nobody_is_a_failure(edge: Edge) -> None:
    assert CdnReader(edge.url.replace("http:", "https:")).read("k", 0, 1, _take) is None


def test_addresses_are_signed_and_logs_do_not_show_it(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "buckia")
    reader = CdnReader(edge.url, sign=lambda address: f"{address}?token=SECRET&expires=1")
    assert reader.read("a/b", 0, None, _take) == DATA
    edge.answers = [Answer(404), Answer(0, end="close")]
    assert reader.read("a/b", 0, None, _take) is None
    assert reader.read("a/b", 0, None, _take) is None
    assert {request.target for request in edge.asked} == {"/a/b?token=SECRET&expires=1"}
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("buckia")]
    assert len(logged) == 2
    assert all("/a/b" in line and "SECRET" not in line for line in logged)


def test_connections_are_kept(edge: Edge, reader: CdnReader) -> None:
    edge.answers = [Answer(200, DATA), Answer(404, b"x" * 3000), Answer(503, b"y"), Answer(416)]
    for _ in range(6):
        reader.read("k", 2, 3, _take)
    assert edge.counts.connections == 1


def test_a_proxy_of_the_environment_is_used(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    with Edge() as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        assert CdnReader(edge.url).read("k", 0, None, _take) == DATA
        assert [request.target for request in proxy.asked] == [f"{edge.url}/k"]
        assert proxy.asked[0].header("Proxy-Authorization") == "Basic dXNlcjp3b3Jk"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert CdnReader(edge.url).read("k", 0, None, _take) == DATA
        assert (len(proxy.asked), len(edge.asked)) == (1, 1)
        monkeypatch.setenv("http_proxy", "socks9://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        assert CdnReader(edge.url).read("k", 0, None, _take) is None


@pytest.mark.parametrize("url", ["", "cdn.example.org", "ftp://cdn.example.org"])
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(UsageError):
        CdnReader(url)
