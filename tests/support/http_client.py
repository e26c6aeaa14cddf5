"""A client for the HTTP servers of the tests, as plain as can be, and a clock for them."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Reply:
    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["Message"])


@dataclass
class Client:
    """One connection to a host."""

    url: str
    key: str | None = None
    base: str = ""
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent.setdefault("AccessKey", self.key)
        self.connection.request(method, self.base + path, body, sent, encode_chunked=not isinstance(body, bytes))
        answer = self.connection.getresponse()
        return Reply(answer.status, answer.read(), answer.headers)


class Clock:
    def __init__(self, now: float = 1_600_000_000.5) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
