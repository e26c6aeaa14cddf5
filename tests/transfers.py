"""What tests of transfers share: a clock that only sleeping moves, and a bucket that notes what is in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from buckia.store.transfer import Transfer
from buckia.sync.base import BaseSync, ObjectInfo
from buckia.sync.memory import MemorySync

PATIENCE = 20
"""Seconds after which a thread that should have come is a failure."""


class FakeClock:
    """Sleeping moves it, nothing else does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_sleep: Callable[[], object] = lambda: None

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.on_sleep()


def make(backend: BaseSync, *, workers: int = 0, retries: int = 3, **changes: object) -> Transfer:
    defaults = {"clock": FakeClock(), "random": lambda: 0.5, "cancelled": lambda: False}
    return Transfer(backend, workers=workers, retries=retries, **{**defaults, **changes})  # type: ignore[arg-type]


class Crowded(MemorySync):
    """Notes how many requests and bytes are in flight; ``meet`` holds them until that many are, ``gate`` until it is
    opened.
    """

    def __init__(self, meet: int = 0) -> None:
        super().__init__()
        self.flying = self.most = self.bytes = self.most_bytes = 0
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self._meeting = threading.Barrier(meet, timeout=PATIENCE) if meet else None
        self._count_lock = threading.Lock()

    @contextmanager
    def _flight(self, size: int) -> Iterator[None]:
        with self._count_lock:
            self.flying += 1
            self.bytes += size
            self.most, self.most_bytes = max(self.most, self.flying), max(self.most_bytes, self.bytes)
        self.arrived.release()
        if self._meeting is not None:
            self._meeting.wait()
        assert self.gate.wait(PATIENCE)
        try:
            yield
        finally:
            with self._count_lock:
                self.flying -= 1
                self.bytes -= size

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        with self._flight(len(data)):
            return super()._put(key, data, if_absent)

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        with self._flight(length or 0):
            return super()._get(key, offset, length)
