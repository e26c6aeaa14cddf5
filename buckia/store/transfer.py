"""The engine that moves objects: the only place with retries, threads and waiting.

A verb is tried ``1 + retries`` times, and again only after `Transient`: a put whose answer was lost is simply
repeated, as no key is ever written with other bytes. Between attempts it waits a random part of 0.5, 1, 2 .. 60
seconds, or as long as the provider asked for, and logs that; when the provider complains of too many requests the
bucket's pacer is told.

Work in the background runs on up to ``workers`` threads, which start when there is work; with ``workers=0`` everything
happens in the caller's thread, in order. One budget bounds the bytes in flight: whoever submits beyond it waits. The
first error wins: it drops what is queued and is raised by the next submission or by `Transfer.drain`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from buckia.errors import (
    BucketError,
    CancelledError,
    FormatError,
    IntegrityError,
    ObjectNotFound,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.base import BaseSync, Buffer, ObjectInfo, Verb

BACKOFF_MIN = 0.5
BACKOFF_MAX = 60.0
RETRY_AFTER_MAX = 300.0
"""Seconds; a provider that asks for more has failed."""
QUIET_SECONDS = 5.0
"""A pause that is longer is a warning, as somebody may wonder what happens."""

_POLL = 0.1
"""Seconds between looks at ``cancelled`` while waiting."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Returns after that many seconds."""


class _Abandoned(Exception):
    """Nobody waits for this work any more."""


@dataclass(slots=True, eq=False)
class _Job:
    """One piece of work for a thread; ``alone`` ones report to who submitted them, the others' errors end the whole
    batch.
    """

    call: Callable[[Callable[[], None]], Any]
    size: int
    alone: bool
    done: bool = False
    abandoned: bool = False
    result: Any = None
    error: BaseException | None = None


class Transfer:
    """Requests to one bucket, with retries, in the foreground or on threads.

    At most ``workers`` requests are in flight, those in the foreground included. ``random`` returns numbers in [0, 1).
    ``cancelled`` is asked before every attempt and while waiting: when it returns true the work ends with
    `CancelledError` (it may also raise one itself). Any thread may call; close it, or use it as a context manager.
    """

    def __init__(
        self,
        backend: BaseSync,
        *,
        workers: int,
        retries: int,
        clock: Clock,
        random: Callable[[], float],
        cancelled: Callable[[], bool],
    ) -> None:
        self.backend = backend
        self.budget_bytes = max(48, 3 * workers) << 20
        """Bytes in flight beyond which a submission waits; a single larger item passes alone. Three packs are enough
        for most lines; whoever asks for many workers has the memory for more.
        """
        self._workers = workers
        self._slots = threading.BoundedSemaphore(workers) if workers else nullcontext()
        self._retries = retries
        self._clock = clock
        self._random = random
        self._cancelled = cancelled
        self._limits = {
            verb: threading.BoundedSemaphore(most) for verb, most in backend.capabilities.concurrency.items()
        }
        self._announced = 0.0
        """Until then everybody knows that there is a pause."""
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._threads: list[threading.Thread] = []
        self._parked: list[threading.Event] = []
        """Threads without work. The last one is woken first: each keeps some memory of the largest that it had."""
        self._unfinished = 0
        self._bytes = 0
        self._error: BaseException | None = None
        self._closed = False

    # In the foreground.

    def get(self, key: str, offset: int = 0, length: int | None = None, *, cached: bool = False) -> bytes:
        """`BaseSync.get` with retries; with ``cached`` a CDN may answer."""
        call = partial(self.backend.get, key, offset=offset, length=length, cached=cached)
        return self._attempts("get", key, call, self._check)

    def read(self, key: str, offset: int, length: int, decode: Callable[[bytes], T]) -> T:
        """What ``decode`` makes of bytes of an object. Where it raises `IntegrityError` or `FormatError` they may have
        been spoilt on their way, so it gets them once more.
        """
        try:
            return decode(self.get(key, offset, length))
        except (IntegrityError, FormatError) as error:
            log.info("%s is read again: %s", key, error.message)
        return decode(self.get(key, offset, length))

    def get_whole(self, key: str, limit: int, is_whole: Callable[[bytes], bool]) -> bytes | None:
        """`BaseSync.get_whole` with retries; what is not whole is read once more."""
        call = partial(self.backend.get_whole, key, limit, is_whole)
        data = self._attempts("get", key, call, self._check)
        if data is not None and is_whole(data):
            return data
        log.info("%s is read again: it is not what it should be.", key)
        return self._attempts("get", key, call, self._check)

    def put(self, key: str, data: Buffer) -> ObjectInfo:
        """`BaseSync.put` with retries."""
        return self._attempts("put", key, partial(self.backend.put, key, data), self._check)

    def stat(self, key: str) -> ObjectInfo:
        """`BaseSync.stat` with retries."""
        return self._attempts("stat", key, partial(self.backend.stat, key), self._check)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """`BaseSync.list`, complete and by the order of the keys: each page with retries, those that do not wait for
        each other side by side.
        """
        found: list[ObjectInfo] = []
        tokens: list[str | None] = [None]
        known: set[str] = set()
        while tokens:
            calls = [partial(self.backend.list_page, prefix, token) for token in tokens]
            if len(calls) == 1:
                pages = [self._attempts("list", prefix, calls[0], self._check)]
            else:
                pages = [*self._ordered((0, "list", prefix, call) for call in calls)]
            found += [info for page in pages for info in page.objects]
            tokens = [token for page in pages for token in page.more]
            if len(known | set(tokens)) != len(known) + len(tokens):
                raise BucketError(f"{self.backend.location} lists the same page again and again.")
            known.update(token for token in tokens if token is not None)
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """`BaseSync.delete` with retries."""
        self._attempts("delete", key, partial(self.backend.delete, key), self._check)

    def delete_many(self, keys: Iterable[str]) -> None:
        """`BaseSync.delete_many` with retries of each batch, batches side by side."""
        size = self.backend.capabilities.batch_delete or 1
        pending = [*keys]
        parts = (pending[start : start + size] for start in range(0, len(pending), size))
        for _ in self._ordered((0, "delete", part[0], partial(self.backend.delete_many, part)) for part in parts):
            self._check()

    def attempt(self, verb: Verb, call: Callable[[], T], key: str = "") -> T:
        """What ``call``, one request of this bucket, returns, with retries; ``key`` is what it is about."""
        return self._attempts(verb, key, call, self._check)

    def upload_file(self, local_path: str | os.PathLike[str], key: str) -> ObjectInfo:
        """`BaseSync.upload_file` with retries of each of its requests."""
        return self.backend.upload_file(local_path, key, attempt=partial(self.attempt, key=key))

    def map_get(
        self, requests: Iterable[tuple[str, int, int | None]], *, cached: bool = False
    ) -> Iterator[bytes | ObjectNotFound | RangeNotSatisfiable]:
        """The bytes of each (key, offset, length), in order, read ahead within the budget; or why there are none.

        A length of ``None`` (to the end) is for small objects, as it is not counted. Any other error is raised in its
        place. Several of these may be open at a time: each holds at least one request in flight. Whoever has one open
        must not submit.
        """

        def get(key: str, offset: int, length: int | None) -> bytes | ObjectNotFound | RangeNotSatisfiable:
            try:
                return self.backend.get(key, offset=offset, length=length, cached=cached)
            except (ObjectNotFound, RangeNotSatisfiable) as error:
                return error

        return self._ordered((request[2] or 0, "get", request[0], partial(get, *request)) for request in requests)

    @contextmanager
    def reserving(self, size: int) -> Iterator[None]:
        """Leaves room in the budget for ``size`` bytes that the caller holds itself."""
        self.budget_bytes -= size
        try:
            yield
        finally:
            self.budget_bytes += size

    # In the background.

    def submit_put(self, key: str, data: Buffer, on_done: Callable[[], None] | None = None) -> None:
        """Begins a put; ``data`` must not change until ``on_done``, which runs in a worker's thread and must not
        submit.
        """

        def work(check: Callable[[], None]) -> None:
            self._attempts("put", key, partial(self.backend.put, key, data), check)
            if on_done is not None:
                on_done()

        self._submit(work, memoryview(data).nbytes)

    def drain(self) -> None:
        """Waits until all submitted work has ended, then raises its first error, once."""
        with self._changed:
            while self._unfinished:
                self._wait()
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Drops what is queued and lets the threads end; what is in flight is not waited for."""
        with self._changed:
            self._closed = True
            self._drop_queued()
            for wake in self._parked:
                wake.set()
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Retries.

    def _attempts(self, verb: Verb, key: str, call: Callable[[], T], check: Callable[[], None]) -> T:
        attempt = 0
        while True:
            check()
            try:
                with self._limits.get(verb, nullcontext()), self._slots:
                    return call()
            except Transient as error:
                if error.throttled and self.backend.pacer is not None:
                    self.backend.pacer.throttled()
                wish = error.retry_after or 0
                if wish > RETRY_AFTER_MAX:
                    said = f"{error.message.rstrip('.')}; the provider asks to wait for {_duration(wish)}."
                    raise Transient(said, retry_after=wish, throttled=error.throttled, hint=error.hint) from error
                if attempt == self._retries:
                    raise
                delay = max(self._random() * min(BACKOFF_MAX, BACKOFF_MIN * 2**attempt), wish)
                self._announce(delay, f"{verb} {key}", error)
            attempt += 1
            self._pause(delay, check)
            self.backend.count_retry(verb)

    def _announce(self, seconds: float, what: str, error: Transient) -> None:
        """Say that a request is made again, and to everybody if it takes long and that was not said yet."""
        with self._changed:
            now = self._clock.monotonic()
            new = seconds > QUIET_SECONDS and now >= self._announced
            if new:
                self._announced = now + seconds
        log.log(
            logging.WARNING if new else logging.INFO,
            "%s is tried again in %s: %s",
            what,
            _duration(seconds),
            error.message,
        )

    def _pause(self, seconds: float, check: Callable[[], None]) -> None:
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            check()
            self._clock.sleep(min(left, _POLL))

    def _check(self) -> None:
        if self._cancelled():
            raise CancelledError

    # Threads. `_changed` guards every attribute below it in `__init__`.

    def _submit(self, work: Callable[[Callable[[], None]], None], size: int) -> None:
        if not self._workers:
            work(self._check)
            return
        self._check()
        with self._changed:
            while self._error is None and not (self._has_room(size) and len(self._queue) < 2 * self._workers):
                self._wait()
            if self._error is not None:
                # Kept for `drain`, which also waits for what is still in flight.
                raise self._error
            self._enqueue(_Job(work, size, alone=False))
            self._unfinished += 1

    def _ordered(self, calls: Iterable[tuple[int, Verb, str, Callable[[], T]]]) -> Iterator[T]:
        """Results of (bytes, verb, key, call), in order; at least one is in flight whatever the budget, so nested ones
        cannot block each other.
        """
        if not self._workers:
            for _, verb, key, call in calls:
                yield self._attempts(verb, key, call, self._check)
            return
        ahead: deque[_Job] = deque()
        try:
            for size, verb, key, call in calls:
                while ahead and not (len(ahead) < 2 * self._workers and self._has_room(size)):
                    yield self._take(ahead)
                job = _Job(partial(self._attempts, verb, key, call), size, alone=True)
                with self._changed:
                    self._enqueue(job)
                ahead.append(job)
            while ahead:
                yield self._take(ahead)
        finally:
            with self._changed:
                for job in ahead:
                    job.abandoned = True
                    if job.done:
                        self._bytes -= job.size
                self._queue = deque(job for job in self._queue if not self._dropped(job, job.abandoned))
                self._changed.notify_all()

    def _take(self, ahead: deque[_Job]) -> Any:
        job = ahead[0]
        with self._changed:
            while not job.done:
                self._wait()
            ahead.popleft()
            self._bytes -= job.size
            self._changed.notify_all()
        if job.error is not None:
            raise job.error
        return job.result

    def _has_room(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self.budget_bytes

    def _wait(self) -> None:
        """Waits for a change, inside `_changed`; a cancellation is noticed even when no request comes back."""
        self._changed.wait(_POLL)
        try:
            self._check()
        except BaseException:
            self._drop_queued()
            raise

    def _enqueue(self, job: _Job) -> None:
        if self._closed:
            raise UsageError("This transfer is closed.")
        self._bytes += job.size
        self._queue.append(job)
        if self._parked:
            self._parked.pop().set()
        elif len(self._threads) < self._workers:
            # Daemons: a process that was told to stop does not wait for a slow request.
            thread = threading.Thread(target=self._work, name="buckia-transfer", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        wake = threading.Event()
        while True:
            with self._changed:
                job = self._queue.popleft() if self._queue else None
                if job is None:
                    if self._closed:
                        return
                    wake.clear()
                    self._parked.append(wake)
            if job is None:
                wake.wait()
            else:
                self._run(job)
                del job  # and the bytes that it holds, before waiting for more

    def _run(self, job: _Job) -> None:
        def check() -> None:
            if job.abandoned or (self._error is not None and not job.alone):
                raise _Abandoned
            self._check()

        try:
            job.result = job.call(check)
        except BaseException as error:  # handed to whoever waits
            job.error = error
        with self._changed:
            job.done = True
            if job.alone:
                if job.abandoned:
                    self._bytes -= job.size
            else:
                self._bytes -= job.size
                self._unfinished -= 1
                if job.error is not None and self._error is None:
                    self._error = job.error
                    self._drop_queued()
            self._changed.notify_all()

    def _drop_queued(self) -> None:
        self._queue = deque(job for job in self._queue if not self._dropped(job, not job.alone))

    def _dropped(self, job: _Job, drop: bool) -> bool:
        if drop:
            self._bytes -= job.size
            self._unfinished -= not job.alone
        return drop


def _duration(seconds: float) -> str:
    """Seconds in words: ``2.5 seconds``, ``3 minutes``, ``24 hours``."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{min(seconds, 1e9) / length:.0f} {unit}"
    return f"{seconds:.1f} seconds"
