"""The real world for the engine: this machine's clock, randomness, threads, and a flag that signals may set."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from buckia.errors import CancelledError

_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
"""Names of glibc's malloc.h."""
_MAPPED_BYTES = 8 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")

_FIRST = (
    "amber azure brave brisk calm clear coral crisp dusky early eager fair fleet fresh gentle glad golden grand "
    "green happy hazel honest humble ivory jolly keen kind late light lively lucky mellow merry mild misty noble "
    "olive opal pale plain proud quick quiet rapid rosy royal ruby rustic sandy sharp silent silver sleek snowy "
    "solid steady still sunny swift tidy warm wide wise"
).split()
_SECOND = (
    "aspen badger beaver birch bison brook canyon cedar comet crane delta dune eagle elm falcon fern finch fjord "
    "fox glade grove harbor hare hawk heron hill island jay juniper kestrel lake larch lark lynx maple marsh meadow "
    "mesa moss oak orchid otter owl peak pine plover pond quail raven reef ridge river robin shore sparrow spruce "
    "stone stork swan thicket tide trout vale willow"
).split()


class SystemClock:
    """This machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        time.sleep(seconds)


def random_bytes(count: int) -> bytes:
    """Bytes from the system's generator."""
    return secrets.token_bytes(count)


def jitter() -> float:
    """A number in [0, 1); decides nothing but waiting times."""
    return random.random()


def device_name() -> str:
    """A random name of two words."""
    return f"{secrets.choice(_FIRST)} {secrets.choice(_SECOND)}"


def tune_process() -> None:
    """Settings for whoever owns the process, so for the command; the library leaves them alone.

    glibc keeps freed buffers of packs in a heap for every thread; one heap for all is enough: measured on a
    verification of 1.5 GB, a peak of 150 MB instead of 220. It also begins to take large buffers from that heap, where
    they leave holes; mapped ones are given back: 170 MB instead of 214 when bodies come over a network. Python looks
    for cycles after every 700 new objects, and here are hundreds of thousands that are in none. A thread that comes
    back from C waits up to 5 ms for one that computes; with a tenth of that a restore of 20,000 files took 3.2 s
    instead of 3.6.
    """
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """The worker pool that cuts, hashes, seals and opens; ``width`` threads that start when there is work."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="buckia-worker")

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Begin a piece of work."""
        return self._pool.submit(work, item)

    def close(self) -> None:
        """Let the threads end; what has begun is waited for."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Cancellation:
    """A flag that a signal handler may set; whoever works asks ``check`` now and then."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def cancel(self, signal: int) -> None:
        """Ask everything to stop; safe in a signal handler."""
        self._signal = signal

    def clear(self) -> None:
        """Forget an earlier request."""
        self._signal = None

    def check(self) -> bool:
        """False; raises CancelledError once `cancel` was called."""
        if self._signal is not None:
            raise CancelledError(signal=self._signal)
        return False
