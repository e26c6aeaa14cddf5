"""How fast a bucket may be used: requests and bytes per second over all threads, and fewer when the provider asks.

Each limit is a generic cell rate algorithm (ITU-T I.371, GCRA): one number, the time at which the next request would
arrive if all came evenly. A request may be early by as much as the burst allows; whoever is earlier sleeps. When the
provider says that requests come too fast, the rate is halved, and grows again as TCP's does: slowly, step by step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from buckia.errors import UsageError
from buckia.store.transfer import Clock
from buckia.sync.base import Verb

log = logging.getLogger(__name__)

BURST_BYTES = 64 << 10
"""May be sent or received at once after a pause: about a slice of a body."""
POLL_SECONDS = 0.1
"""Between looks at whether the work was cancelled."""
RATE_MIN = 0.5
"""Requests per second below which no provider's wish is followed further; it says Retry-After instead."""
RATE_START = 50.0
"""Requests per second from which to come down when no limit was known."""
RECOVERY = 0.05
"""Of the rate is added for each second without a complaint."""
_COMPLAINTS_SECONDS = 1.0
"""Complaints within this time are answers to one burst, and count once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user and the provider allow; 0 means no limit. Rates are per second, ``burst`` requests may come at
    once.
    """

    requests: float = 0.0
    burst: int = 1
    upload_bytes: float = 0.0
    download_bytes: float = 0.0

    def __post_init__(self) -> None:
        if min(self.requests, self.upload_bytes, self.download_bytes) < 0 or self.burst < 1:
            raise UsageError("A limit is a positive number per second, or 0 for none.")


class _Cell:
    """One limit. ``reserve`` says how long to sleep before so many units may pass."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._next = 0.0

    def reserve(self, units: float, now: float) -> float:
        if not self.rate:
            return 0.0
        arrival = max(self._next, now)
        self._next = arrival + units / self.rate
        # All that was reserved before has passed when `arrival` comes; the burst may be early.
        return max(0.0, self._next - self.burst / self.rate - now)


class Pace:
    """A `buckia.sync.base.Pacer` with limits, for all threads that use one bucket. ``check`` is called while it waits
    and may raise.
    """

    def __init__(self, limits: Limits, clock: Clock, check: Callable[[], object]) -> None:
        self._clock = clock
        self._check = check
        self._lock = threading.Lock()
        self._ceiling = limits.requests
        self._burst = limits.burst
        self._requests = _Cell(limits.requests, limits.burst)
        self._up = _Cell(limits.upload_bytes, BURST_BYTES)
        self._down = _Cell(limits.download_bytes, BURST_BYTES)
        self._complained = self._grown = float("-inf")

    @property
    def rate(self) -> float:
        """Requests per second that are allowed now; 0: any number."""
        return self._requests.rate

    @property
    def limits_bytes(self) -> bool:
        """Bodies have to be sent and received in slices."""
        return bool(self._up.rate or self._down.rate)

    def request(self, verb: Verb) -> None:
        """Returns when the next request may be made."""
        if self._requests.rate:
            self._recover()
            self._wait(self._requests, 1.0)

    def uploading(self, count: int) -> None:
        """Returns when so many bytes may be sent."""
        self._wait(self._up, count)

    def downloading(self, count: int) -> None:
        """Returns when so many bytes may have been received; notices also without a limit that the work is
        cancelled.
        """
        self._check()
        self._wait(self._down, count)

    def throttled(self) -> None:
        """The provider wants fewer requests: half as many from now on."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._complained < _COMPLAINTS_SECONDS:
                return
            self._complained = self._grown = now
            self._requests.rate = max(RATE_MIN, (self._requests.rate or RATE_START) / 2)
            self._requests.burst = 1
            log.info("The bucket wants fewer requests: %.3g per second for now.", self._requests.rate)

    def _recover(self) -> None:
        """Grow towards the limit; without one the rate is let go when it is where it began."""
        with self._lock:
            if self._complained == float("-inf"):
                return
            now = self._clock.monotonic()
            if now - self._grown < 1.0:
                return
            ceiling = self._ceiling or RATE_START
            self._requests.rate += ceiling * RECOVERY * (now - self._grown)
            self._grown = now
            if self._requests.rate >= ceiling:
                self._requests.rate, self._requests.burst = self._ceiling, self._burst
                self._complained = float("-inf")

    def _wait(self, cell: _Cell, units: float) -> None:
        if not cell.rate:
            return
        with self._lock:
            start = self._clock.monotonic()
            end = start + cell.reserve(units, start)
        while (left := end - self._clock.monotonic()) > 0:
            self._check()
            self._clock.sleep(min(left, POLL_SECONDS))
