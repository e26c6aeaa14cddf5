"""A proxy that makes planned faults, in front of any HTTP/1.1 server.

It forwards requests as they are, the ``Host`` included, so that signatures stay valid. Plans count requests, not time::

    with FaultProxy(server.url) as proxy:
        proxy.inject(When(every=3), RESET, LOST, error(503, retry_after=1))   # each third request, in turn
        proxy.inject(When(where=is_put), latency(0.05))                       # and all puts are slow
"""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Literal
from urllib.parse import urlsplit

from tests.servers.http import Answer, HeaderList, HttpServer, Request, read_body, read_headers

Kind = Literal["latency", "reset", "lost", "error", "truncated", "flipped", "drip"]

_NOT_FORWARDED = frozenset({"connection", "keep-alive", "expect", "transfer-encoding", "content-length"})
_TARGET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request."""

    kind: Kind
    status: int = 0
    body: bytes = b""
    retry_after: int | None = None
    seconds: float = 0.0
    pieces: int = 1


RESET = Fault("reset")
"""The connection breaks before the request has reached the target."""
LOST = Fault("lost")
"""The target has done what was asked, and the connection breaks before its answer."""
TRUNCATED = Fault("truncated")
"""The answer ends in the middle of its body, whose length was stated; one without a body is `LOST`."""
FLIPPED = Fault("flipped")
"""One bit in the middle of the answer's body is wrong; an answer without a body stays as it is, and is not counted."""


def latency(seconds: float) -> Fault:
    """The request arrives later at the target."""
    return Fault("latency", seconds=seconds)


def error(status: int, *, retry_after: int | None = None, body: bytes = b"") -> Fault:
    """The target never sees the request, and the answer is this."""
    return Fault("error", status=status, body=body, retry_after=retry_after)


def drip(pieces: int = 16, seconds: float = 0.0) -> Fault:
    """The body of the answer comes in so many pieces, with a pause before each."""
    return Fault("drip", pieces=pieces, seconds=seconds)


RETRYABLE = (RESET, LOST, TRUNCATED, error(500), error(502), error(503), error(503, retry_after=0), error(429))
"""What any client must survive by asking again, if nothing depends on the answer to a write that was lost."""


@dataclass(frozen=True, slots=True)
class When:
    """Which requests: those for which ``where(method, target)`` holds, where a target is a path with its query, and of
    these by their number, from 1.

    With ``every`` each such number, with ``nth`` that one only, with ``share`` each with that probability, drawn from
    ``seed``; with none of them all. ``burst`` more than 1 goes on for so many requests in a row.
    """

    every: int | None = None
    nth: int | None = None
    share: float | None = None
    seed: int = 0
    burst: int = 1
    where: Callable[[str, str], bool] | None = None


@dataclass(slots=True)
class _Rule:
    when: When
    faults: tuple[Fault, ...]
    random: random.Random
    seen: int = 0
    made: int = 0
    left: int = 0

    def next(self, method: str, target: str) -> Fault | None:
        """The fault of the next request; faults take turns."""
        when = self.when
        if when.where is not None and not when.where(method, target):
            return None
        self.seen += 1
        if self._begins():
            self.left = when.burst
        if self.left == 0:
            return None
        self.left -= 1
        self.made += 1
        return self.faults[(self.made - 1) % len(self.faults)]

    def _begins(self) -> bool:
        when = self.when
        if when.nth is not None:
            return self.seen == when.nth
        if when.every is not None:
            return self.seen % when.every == 0
        return when.share is None or self.random.random() < when.share


class FaultProxy(HttpServer):
    """A running proxy; `url` takes the place of ``target``'s. ``sleep`` is what latency and drip wait with.

    Every connection of a client has one of its own to the target, so both sides keep theirs.
    """

    def __init__(self, target: str, *, sleep: Callable[[float], object] = time.sleep) -> None:
        parts = urlsplit(target)
        if parts.scheme != "http" or parts.hostname is None or parts.path.strip("/"):
            raise ValueError("The target has the form http://HOST:PORT.")
        self._target = (parts.hostname, parts.port or 80)
        self._sleep = sleep
        self._rules: list[_Rule] = []
        self._mine = threading.local()
        self.made: Counter[Kind] = Counter()
        """Faults that happened, by kind."""
        self.forwarded = 0
        """Requests that reached the target."""
        super().__init__()

    def inject(self, when: When, *faults: Fault) -> None:
        """Adds a plan, which counts from now; of several faults each time the next. Where several plans meet, all
        their latencies happen, and the first of the other faults.
        """
        if not faults:
            raise ValueError("A plan has at least one fault.")
        with self._lock:
            self._rules.append(_Rule(when, faults, random.Random(when.seed)))

    def clear(self) -> None:
        """Ends all plans."""
        with self._lock:
            self._rules.clear()

    def answer(self, request: Request) -> Answer:
        """Forwards the request, with what is planned for it."""
        with self._lock:
            planned = [rule.next(request.method, request.target) for rule in self._rules]
        fault = None
        for one in planned:
            if one is not None and one.kind == "latency":
                self._count(one)
                self._sleep(one.seconds)
            else:
                fault = fault or one
        if fault is None:
            return self._forward(request)
        if fault.kind == "reset":
            self._count(fault)
            return Answer(0, end="reset")
        if fault.kind == "error":
            self._count(fault)
            after = [] if fault.retry_after is None else [("Retry-After", str(fault.retry_after))]
            return Answer(fault.status, fault.body, after)
        return self._spoiled(self._forward(request), fault)

    def connection_closed(self) -> None:
        """The client's connection is gone, and so is that to the target."""
        self._disconnect()

    def _spoiled(self, answer: Answer, fault: Fault) -> Answer:
        """What a fault makes of the target's answer."""
        body = answer.body
        if fault.kind == "flipped" and not body:
            return answer
        self._count(fault)
        if fault.kind == "lost" or (fault.kind == "truncated" and not body):
            return Answer(0, end="reset")
        if fault.kind == "truncated":
            answer.length, answer.body, answer.end = len(body), body[: len(body) // 2], "close"
        elif fault.kind == "flipped":
            middle = len(body) // 2
            answer.body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        else:
            answer.pieces = self._pieces(body, fault)
        return answer

    def _pieces(self, body: bytes, fault: Fault) -> Iterator[bytes]:
        step = max(1, -(-len(body) // fault.pieces))
        for start in range(0, len(body), step):
            self._sleep(fault.seconds)
            yield body[start : start + step]

    def _count(self, fault: Fault) -> None:
        with self._lock:
            self.made[fault.kind] += 1

    # The side of the target.

    def _forward(self, request: Request) -> Answer:
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in _kept(request.headers)]
        if request.body or request.chunked or request.header("content-length") is not None:
            lines.append(f"Content-Length: {len(request.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        with self._lock:
            self.forwarded += 1
        try:
            target = self._connected()
            target.socket.sendall(head)
            if request.body:
                target.socket.sendall(request.body)
            return self._received(target, request.method)
        except (OSError, EOFError):
            # The target broke the connection: so does the proxy.
            self._disconnect()
            return Answer(0, end="reset")

    def _received(self, target: _Target, method: str) -> Answer:
        status = 100
        headers: HeaderList = []
        while status < 200:
            words = target.stream.readline().split(b" ", 2)
            if len(words) < 2:
                raise EOFError
            status = int(words[1])
            headers = read_headers(target.stream)
        by_name = {name.lower(): value.lower() for name, value in headers}
        answer = Answer(status, headers=_kept(headers))
        if method == "HEAD" or status in (204, 304):
            answer.length = int(by_name.get("content-length", 0))
        else:
            answer.body = read_body(target.stream, headers, until_close=True)
        if by_name.get("connection") == "close" or not {"content-length", "transfer-encoding"} & by_name.keys():
            self._disconnect()
        return answer

    def _connected(self) -> _Target:
        """This thread's connection to the target; a new one where the target has closed the last."""
        target: _Target | None = getattr(self._mine, "target", None)
        if target is not None and select.select([target.socket], [], [], 0)[0]:
            self._disconnect()
            target = None
        if target is None:
            connection = socket.create_connection(self._target, _TARGET_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = self._mine.target = _Target(connection)
        return target

    def _disconnect(self) -> None:
        target: _Target | None = getattr(self._mine, "target", None)
        if target is not None:
            self._mine.target = None
            target.stream.close()
            target.socket.close()


@dataclass(slots=True)
class _Target:
    socket: socket.socket
    stream: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.stream = self.socket.makefile("rb")


def _kept(headers: HeaderList) -> list[tuple[str, str]]:
    """Headers of the message itself, without those of a connection."""
    return [(name, value) for name, value in headers if name.lower() not in _NOT_FORWARDED]
