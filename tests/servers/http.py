"""The base of the HTTP servers of the tests: HTTP/1.1 with keep-alive on 127.0.0.1, a thread per connection.

A server derives from `HttpServer` and writes `answer`. The base reads and writes messages as they are on the wire,
counts them, answers as a test told it to (`HttpServer.fail_next`), and lets a test hold requests open (`Gate`). It runs
from its construction to `stop` or the end of its ``with`` block.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import IO, Literal, Self

HeaderList = Sequence[tuple[str, str]]

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_LINE_MAX = 1 << 16
_ONE_WRITE_MAX = 1 << 16
_WAIT_SECONDS = 20.0
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Request:
    """A request as it arrived; ``body`` is without chunks."""

    method: str
    target: str
    """Path and query as on the wire."""
    headers: list[tuple[str, str]]
    """In order, names as they were written."""
    client: str = ""
    """The address it came from."""
    body: bytes = b""
    path: str = ""
    query: str = ""
    _by_name: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.path, _, self.query = self.target.partition("?")
        self._by_name = {name.lower(): value for name, value in self.headers}

    def header(self, name: str) -> str | None:
        """The header's value, whatever the case of its name."""
        return self._by_name.get(name.lower())

    @property
    def chunked(self) -> bool:
        """Whether the body came in chunks, without a length."""
        return (self.header("transfer-encoding") or "").lower().endswith("chunked")


@dataclass(slots=True)
class Answer:
    """What is sent back; the base adds the length. Status 0: nothing at all, ``end`` happens instead."""

    status: int
    body: bytes = b""
    headers: HeaderList = ()
    length: int | None = None
    """The Content-Length, where it is not that of ``body``: a HEAD, or a body that is cut."""
    pieces: Iterable[bytes] | None = None
    """The body in the parts in which it is to be sent, one write each; it may wait in between."""
    end: Literal["keep", "close", "reset"] = "keep"
    """What becomes of the connection afterwards."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a server has seen. Requests are counted by kind: their method, unless the server tells finer ones."""

    requests: Mapping[str, int]
    connections: int
    """Accepted TCP connections."""
    max_in_flight: int
    """Most requests at one time, from the end of their head to the last write of their answer."""
    max_in_flight_by: Mapping[str, int]

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())


class Gate:
    """Holds requests until it is opened, as a server's ``latency``: ``server.latency = gate = Gate()``."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0
        self._opened = False

    def __call__(self, _: Request) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._opened, _WAIT_SECONDS)
            self._waiting -= 1

    def wait(self, count: int) -> None:
        """Returns when ``count`` requests are held; raises `TimeoutError` when they do not come."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= count, _WAIT_SECONDS):
                raise TimeoutError(f"{self._waiting} requests came instead of {count}.")

    def open(self) -> None:
        """Lets the held requests pass, and all later ones."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


class HttpServer:
    """A running server. Subclasses write `answer`, and override `kind` and `admitted` where they need to."""

    latency: Callable[[Request], object] | None = None
    """Called with every admitted request before it is answered; may sleep, or wait for a test (`Gate`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._accepted = 0
        self._in_flight: Counter[str] = Counter()
        self._max: Counter[str] = Counter()
        self._max_all = 0
        self._forced: list[_Forced] = []
        self._connections: set[socket.socket] = set()
        self._stopping = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=type(self).__name__, daemon=True).start()

    # What a subclass writes.

    def answer(self, request: Request) -> Answer:
        """The answer to a request; called by many threads."""
        raise NotImplementedError

    def kind(self, request: Request) -> str:
        """Under which name a request is counted."""
        return request.method

    def admitted(self, request: Request) -> AbstractContextManager[Answer | None]:
        """Surrounds the work on a request; what it yields is the answer of a server that has no room for it."""
        return nullcontext()

    # What a test asks and says.

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def counts(self) -> Counts:
        """What was seen since the start or the last `reset_counts`."""
        with self._lock:
            return Counts(dict(self._requests), self._accepted, self._max_all, dict(self._max))

    def reset_counts(self) -> None:
        """Begins counting anew; requests in flight stay in flight."""
        with self._lock:
            self._requests.clear()
            self._accepted = 0
            self._max = self._in_flight.copy()
            self._max_all = self._in_flight.total()

    def fail_next(
        self, method: str, status: int, body: bytes | str = b"", *, times: int = 1, headers: HeaderList = ()
    ) -> None:
        """The next ``times`` requests of a method or kind (``*``: any) get this answer, and nothing else happens.

        Status 0 closes the connection without an answer. What was said first comes first.
        """
        with self._lock:
            text = body.encode() if isinstance(body, str) else body
            self._forced.append(_Forced(method, times, status, text, headers))

    def stop(self) -> None:
        """Closes everything; may be called twice."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            connections = [*self._connections]
        # Closing a socket does not wake a thread that waits in accept; a connection does.
        socket.create_connection(("127.0.0.1", self.port)).close()
        for connection in connections:
            _shut(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Connections.

    def _accept(self) -> None:
        with self._listener:
            while True:
                connection, address = self._listener.accept()
                with self._lock:
                    if self._stopping:
                        connection.close()
                        return
                    self._connections.add(connection)
                    self._accepted += 1
                threading.Thread(target=self._serve, args=(connection, address[0]), daemon=True).start()

    def _serve(self, connection: socket.socket, client: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := _read_head(stream, client)) is not None:
                    if not self._exchange(connection, stream, request):
                        return
        except (OSError, EOFError):
            return  # the client is gone: that is its right
        finally:
            with self._lock:
                self._connections.discard(connection)
            self.connection_closed()

    def connection_closed(self) -> None:
        """Called by the thread of a connection when it ends."""

    def _exchange(self, connection: socket.socket, stream: IO[bytes], request: Request) -> bool:
        """One request and its answer; whether the connection may have another."""
        kind = self.kind(request)
        leave = self._enter(kind)
        try:
            if (request.header("expect") or "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.body = read_body(stream, request.headers, until_close=False)
            answer = self._respond(request, kind)
            if (request.header("connection") or "").lower() == "close" and answer.end == "keep":
                answer.end = "close"
            _send(connection, answer, request.method == "HEAD", leave)
        finally:
            leave()
        if answer.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return answer.end == "keep"

    def _respond(self, request: Request, kind: str) -> Answer:
        try:
            with self.admitted(request) as refused:
                if refused is not None:
                    return refused
                if self.latency is not None:
                    self.latency(request)
                return self._forced_answer(request.method, kind) or self.answer(request)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return Answer(500, b"The test server has an error; see its output.", end="close")

    def _forced_answer(self, method: str, kind: str) -> Answer | None:
        if not self._forced:
            return None
        with self._lock:
            for forced in self._forced:
                if forced.method in ("*", method, kind):
                    forced.times -= 1
                    if forced.times <= 0:
                        self._forced.remove(forced)
                    return Answer(forced.status, forced.body, forced.headers, end="keep" if forced.status else "close")
        return None

    def _enter(self, kind: str) -> Callable[[], None]:
        """Counts a request in; the result, called once or more, counts it out."""
        with self._lock:
            self._requests[kind] += 1
            self._in_flight[kind] += 1
            self._max[kind] = max(self._max[kind], self._in_flight[kind])
            self._max_all = max(self._max_all, self._in_flight.total())
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                with self._lock:
                    self._in_flight[kind] -= 1

        return leave


@dataclass(slots=True)
class _Forced:
    method: str
    times: int
    status: int
    body: bytes
    headers: HeaderList


def part_of(data: bytes, wanted: str | None, headers: HeaderList = ()) -> Answer:
    """The whole of ``data``, or what a Range header asks for: 206, or 416 where nothing of it is there."""
    match = _RANGE.fullmatch(wanted or "")
    if match is None or match.group() == "bytes=-":
        return Answer(200, data, [*headers, ("Accept-Ranges", "bytes")])
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last), len(data) - 1) if last else len(data) - 1
    else:
        start, end = max(0, len(data) - int(last)), len(data) - 1
    if start > end:
        return Answer(416, b"", [("Content-Range", f"bytes */{len(data)}")])
    return Answer(206, data[start : end + 1], [*headers, ("Content-Range", f"bytes {start}-{end}/{len(data)}")])


def read_headers(stream: IO[bytes]) -> list[tuple[str, str]]:
    """Reads header lines to the empty one. Raises `EOFError` when the connection ends before."""
    headers = []
    while (line := stream.readline(_LINE_MAX)) != b"\r\n":
        if not line.endswith(b"\n"):
            raise EOFError
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    return headers


def read_body(stream: IO[bytes], headers: HeaderList, *, until_close: bool) -> bytes:
    """Reads the body that the headers announce; without a length nothing, or all to the end of the connection.

    Raises `EOFError` when it ends early.
    """
    by_name = {name.lower(): value for name, value in headers}
    if by_name.get("transfer-encoding", "").lower().endswith("chunked"):
        return _read_chunks(stream)
    if "content-length" not in by_name:
        return stream.read() if until_close else b""
    return _read_exactly(stream, int(by_name["content-length"]))


def _read_head(stream: IO[bytes], client: str) -> Request | None:
    line = stream.readline(_LINE_MAX)
    if not line:
        return None
    method, _, rest = line.decode("latin-1").partition(" ")
    target, _, version = rest.rpartition(" ")
    if not version.startswith("HTTP/1."):
        raise EOFError
    return Request(method, target, read_headers(stream), client)


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _read_chunks(stream: IO[bytes]) -> bytes:
    chunks = []
    while size := int(stream.readline(_LINE_MAX).partition(b";")[0] or b"0", 16):
        chunks.append(_read_exactly(stream, size))
        stream.readline(_LINE_MAX)
    read_headers(stream)
    return b"".join(chunks)


def _send(connection: socket.socket, answer: Answer, head_only: bool, leave: Callable[[], None]) -> None:
    """Writes an answer; ``leave`` is called before the last write, as the client may act on it at once."""
    if answer.status == 0:
        return
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.status not in (204, 304):
        lines.append(f"Content-Length: {len(answer.body) if answer.length is None else answer.length}")
    if answer.end == "close":
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    pieces = [b""] if head_only else [answer.body] if answer.pieces is None else answer.pieces
    written = head
    for piece in pieces:
        if len(written) + len(piece) <= _ONE_WRITE_MAX and written is head:
            written = head + piece
            continue
        connection.sendall(written)
        written = piece
    if len(written) > _ONE_WRITE_MAX:
        connection.sendall(memoryview(written)[:-_ONE_WRITE_MAX])
        written = written[-_ONE_WRITE_MAX:]
    leave()
    connection.sendall(written)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()
