"""The transfer engine: what is tried again and when, what runs at a time, and what is in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

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
from buckia.sync.base import ObjectInfo, Page
from buckia.sync.faulty import Fault, FaultySync, SimulatedCrash
from buckia.sync.memory import MemorySync
from tests.transfers import PATIENCE, Crowded, FakeClock, make


class Timed(FaultySync):
    """Notes when each request came."""

    def __init__(self, clock: FakeClock, *faults: Fault) -> None:
        super().__init__(MemorySync(), faults)
        self.clock = clock
        self.times: list[float] = []

    def _arrive(self, verb, key):  # type: ignore[no-untyped-def]
        self.times.append(self.clock.now)
        return super()._arrive(verb, key)

    @property
    def pauses(self) -> list[float]:
        return [round(b - a, 6) for a, b in zip(self.times, self.times[1:], strict=False)]


# Retries.


def test_what_may_pass_is_tried_again() -> None:
    with FaultySync(
        MemorySync(), [Fault("put", times=2), Fault("get", "timeout"), Fault("get", "short", nth=2)]
    ) as bucket:
        transfer = make(bucket)
        transfer.put("a", b"0123")
        assert transfer.get("a", 1, 2) == b"12"
        assert bucket.traffic.retries == 4
        assert (bucket.traffic.requests.put, bucket.traffic.requests.get) == (3, 3)


def test_a_put_whose_answer_was_lost_is_repeated() -> None:
    with FaultySync(MemorySync(), [Fault("put", "applied")]) as bucket:
        make(bucket).put("a", b"x")
        assert bucket.log == [("put", "a"), ("put", "a")]
        assert bucket.get("a") == b"x"


def test_a_listing_that_breaks_goes_on_where_it_was_and_is_sorted() -> None:
    class Breaking(MemorySync):
        broken = False

        def _list(self, prefix: str, token: str | None) -> Page:
            if token is not None and not self.broken:
                self.broken = True
                raise ConnectionResetError("reset")
            found = [*reversed(super()._list(prefix, None).objects)]
            return Page(found[1:]) if token else Page(found[:1], ["2"])

    bucket = Breaking()
    for key in ("b", "a", "c"):
        bucket.put(key, b"")
    assert [info.key for info in make(bucket).list()] == ["a", "b", "c"]
    assert bucket.broken
    assert bucket.traffic.requests.list == 3


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_it_gives_up_after_the_last_retry(retries: int) -> None:
    with FaultySync(MemorySync(), [Fault("stat", times=retries + 1)]) as bucket:
        with pytest.raises(Transient, match="as planned"):
            make(bucket, retries=retries).stat("a")
        assert bucket.traffic.requests.stat == retries + 1


@pytest.mark.parametrize(
    "kind",
    [
        AccessDenied,
        AuthenticationError,
        BucketError,
        BucketNotFound,
        ObjectNotFound,
        QuotaExceeded,
        RangeNotSatisfiable,
    ],
)
def test_nothing_else_is_tried_again(kind: type[BuckiaError]) -> None:
    with FaultySync(MemorySync(), [Fault("get", "error", error=kind("no"))]) as bucket:
        with pytest.raises(kind):
            make(bucket).get("a")
        assert bucket.traffic.requests.get == 1
        assert bucket.traffic.retries == 0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_pauses_are_a_random_part_of_doubling_times_up_to_a_minute(share: float) -> None:
    clock = FakeClock()
    with Timed(clock, Fault("put", times=9)) as bucket:
        make(bucket, clock=clock, retries=9, random=lambda: share).put("a", b"")
        assert bucket.pauses == [round(share * most, 6) for most in (0.5, 1, 2, 4, 8, 16, 32, 60, 60)]


def test_a_provider_that_names_a_time_is_given_it() -> None:
    clock = FakeClock()
    with Timed(clock, Fault("put", retry_after=7.5), Fault("put", nth=2, retry_after=0.125)) as bucket:
        make(bucket, clock=clock, random=lambda: 0.9).put("a", b"")
        assert bucket.pauses == [7.5, 0.9]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(301, "5 minutes"), (3600, "60 minutes"), (86_400, "24 hours"), (9e5, "10 days"), (float("inf"), "11574 days")],
)
def test_a_provider_that_asks_for_hours_has_failed_and_it_is_said(seconds: float, words: str) -> None:
    clock = FakeClock()
    with Timed(clock, Fault("put", retry_after=seconds)) as bucket:
        with pytest.raises(Transient, match=rf"as planned.*; the provider asks to wait for {words}\.$") as caught:
            make(bucket, clock=clock).put("a", b"")
        assert caught.value.retry_after == seconds
        assert bucket.pauses == []


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name == "buckia.store.transfer"
    ]


def test_each_pause_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With the verb, the key, the time and the reason; a warning where it is long."""
    caplog.set_level(logging.INFO, "buckia")
    reason = Transient("there: SlowDown", retry_after=7.5)
    faults = [Fault("put"), Fault("put", "error", nth=2, error=reason), Fault("list")]
    with FaultySync(MemorySync(), faults) as bucket:
        transfer = make(bucket, random=lambda: 0.9)
        transfer.put("a", b"")
        transfer.list("p/")
    assert said(caplog) == [
        (logging.INFO, "put a is tried again in 0.5 seconds: memory:memory: put a failed as planned."),
        (logging.WARNING, "put a is tried again in 7.5 seconds: there: SlowDown"),
        (logging.INFO, "list p/ is tried again in 0.5 seconds: memory:memory: list p/ failed as planned."),
    ]


def test_pauses_side_by_side_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Sixteen workers that are told to wait say it once, and again when that time is over."""
    caplog.set_level(logging.INFO, "buckia")
    clock = FakeClock()
    with FaultySync(MemorySync()) as bucket:
        transfer = make(bucket, clock=clock)
        for seconds in (0, 3, 10, 1):
            clock.now += seconds
            transfer._announce(12.0, "get k", Transient("busy"))
    assert [level for level, _ in said(caplog)] == [logging.WARNING, logging.INFO, logging.WARNING, logging.INFO]


def test_nothing_is_requested_once_cancelled() -> None:
    bucket = MemorySync()
    with pytest.raises(CancelledError):
        make(bucket, cancelled=lambda: True).put("a", b"")
    assert bucket.traffic.requests.total == 0


def test_a_pause_ends_early_when_cancelled() -> None:
    clock = FakeClock()
    stopped = threading.Event()
    clock.on_sleep = stopped.set
    with Timed(clock, Fault("put", retry_after=200)) as bucket:
        with pytest.raises(CancelledError):
            make(bucket, clock=clock, cancelled=stopped.is_set).put("a", b"")
        assert len(bucket.times) == 1
        assert clock.now - 1000 < 1


def test_deleting_many_retries_single_batches() -> None:
    with FaultySync(MemorySync(), [Fault("delete", where=lambda key: key == "k3")]) as bucket:
        for number in range(6):
            bucket.put(f"k{number}", b"")
        make(bucket).delete_many(f"k{number}" for number in range(6))
        assert bucket.traffic.requests.delete == 7
        assert [*bucket.list()] == []


# In the caller's thread.


def test_without_workers_all_happens_in_order_in_this_thread() -> None:
    threads = set()

    class Watched(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            threads.add(threading.current_thread())
            return super()._put(key, data, if_absent)

    done: list[str] = []
    bucket = Watched()
    with make(bucket) as transfer:
        for key in ("b", "a"):
            transfer.submit_put(key, key.encode(), partial(done.append, key))
            assert bucket.get(key) == key.encode()
        transfer.drain()
    assert done == ["b", "a"]
    assert threads == {threading.current_thread()}


def test_without_workers_an_error_is_raised_where_it_happens() -> None:
    with FaultySync(MemorySync(), [Fault("put", "crash")]) as bucket:
        transfer = make(bucket)
        with pytest.raises(SimulatedCrash):
            transfer.submit_put("a", b"")
        transfer.drain()


def test_without_workers_map_get_reads_when_asked() -> None:
    bucket = MemorySync()
    bucket.put("a", b"0123")
    results = make(bucket).map_get([("a", 0, 1), ("a", 1, 2), ("a", 3, None)])
    assert bucket.traffic.requests.get == 0
    assert next(results) == b"0"
    assert bucket.traffic.requests.get == 1
    assert [*results] == [b"12", b"3"]


# On threads.


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_requests_as_workers_are_in_flight_and_no_more(workers: int) -> None:
    bucket = Crowded(meet=workers)
    with make(bucket, workers=workers) as transfer:
        for number in range(workers * 5):
            transfer.submit_put(str(number), b"x")
        transfer.drain()
    assert bucket.most == workers
    assert len(bucket.objects) == workers * 5


def test_the_budget_bounds_the_bytes_in_flight() -> None:
    bucket = Crowded()
    with make(bucket, workers=4) as transfer:
        transfer.budget_bytes = 100
        for number in range(12):
            transfer.submit_put(str(number), b"x" * 40)
        transfer.drain()
    assert bucket.most_bytes <= 80
    assert len(bucket.objects) == 12


def test_a_submission_beyond_the_budget_waits() -> None:
    bucket = Crowded()
    bucket.gate.clear()
    submitted = threading.Semaphore(0)
    with make(bucket, workers=4) as transfer:
        transfer.budget_bytes = 100

        def submit() -> None:
            for number in range(3):
                transfer.submit_put(str(number), b"x" * 50)
                submitted.release()

        thread = threading.Thread(target=submit)
        thread.start()
        assert submitted.acquire(timeout=PATIENCE)
        assert submitted.acquire(timeout=PATIENCE)
        assert bucket.arrived.acquire(timeout=PATIENCE)
        assert bucket.arrived.acquire(timeout=PATIENCE)
        assert not submitted.acquire(blocking=False)
        bucket.gate.set()
        assert submitted.acquire(timeout=PATIENCE)
        thread.join(PATIENCE)
        transfer.drain()
    assert len(bucket.objects) == 3


def test_an_item_larger_than_the_budget_passes_alone() -> None:
    bucket = Crowded()
    with make(bucket, workers=4) as transfer:
        transfer.budget_bytes = 10
        for number in range(4):
            transfer.submit_put(str(number), b"x" * 50)
        transfer.drain()
    assert bucket.most_bytes == 50
    assert len(bucket.objects) == 4


def test_what_is_done_is_told_after_it_is_done() -> None:
    bucket = MemorySync()
    done: list[tuple[str, bool]] = []
    with make(bucket, workers=2) as transfer:
        for number in range(10):
            key = str(number)
            transfer.submit_put(key, b"x", lambda key=key: done.append((key, key in bucket.objects)))  # type: ignore[misc]
        transfer.drain()
        assert sorted(done) == [(str(number), True) for number in range(10)]


def test_the_first_error_wins_and_drops_what_is_queued() -> None:
    told: list[str] = []
    with FaultySync(MemorySync(), [Fault("put", "error", nth=2, error=QuotaExceeded("full"))]) as bucket:
        with make(bucket, workers=1) as transfer:

            def submit_all() -> None:
                for number in range(100):
                    transfer.submit_put(str(number), b"x", partial(told.append, str(number)))

            with pytest.raises(QuotaExceeded):
                submit_all()
            with pytest.raises(QuotaExceeded):
                transfer.drain()
            assert told == ["0"]
            assert bucket.traffic.requests.put == 2
            transfer.submit_put("again", b"x")
            transfer.drain()
        assert sorted(info.key for info in bucket.list()) == ["0", "again"]


def test_the_first_error_ends_the_pauses_of_others() -> None:
    clock = FakeClock()
    failed = threading.Event()
    clock.on_sleep = lambda: failed.wait(0.01)

    class Failing(MemorySync):
        waiting = threading.Event()

        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            if key == "busy":
                self.waiting.set()
                raise Transient("busy", retry_after=250)
            assert self.waiting.wait(PATIENCE)
            failed.set()
            raise AccessDenied("no")

    bucket = Failing()
    with make(bucket, workers=2, clock=clock, retries=1000) as transfer:
        transfer.submit_put("busy", b"")
        transfer.submit_put("denied", b"")
        with pytest.raises(AccessDenied):
            transfer.drain()


def test_a_crash_in_a_thread_reaches_the_caller() -> None:
    with FaultySync(MemorySync(), [Fault("put", "crash-applied")]) as bucket, make(bucket, workers=2) as transfer:
        transfer.submit_put("a", b"x")
        with pytest.raises(SimulatedCrash):
            transfer.drain()


def test_an_error_of_the_callback_is_an_error_of_the_work() -> None:
    def fail() -> None:
        raise ValueError("callback")

    with make(MemorySync(), workers=1) as transfer:
        transfer.submit_put("a", b"x", fail)
        with pytest.raises(ValueError, match="callback"):
            transfer.drain()


def test_drain_ends_when_cancelled_although_a_request_hangs() -> None:
    bucket = Crowded()
    bucket.gate.clear()
    stopped = threading.Event()
    with make(bucket, workers=1, cancelled=stopped.is_set) as transfer:
        transfer.submit_put("a", b"x")
        transfer.submit_put("b", b"x")
        assert bucket.arrived.acquire(timeout=PATIENCE)
        stopped.set()
        with pytest.raises(CancelledError):
            transfer.drain()
        bucket.gate.set()
    assert "b" not in bucket.objects


def test_threads_start_with_work_and_end_with_close() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "buckia-transfer"}

    before = threads()
    transfer = make(MemorySync(), workers=8)
    transfer.put("a", b"x")
    assert threads() == before
    transfer.submit_put("b", b"x")
    transfer.drain()
    mine = threads() - before
    assert len(mine) == 1
    transfer.close()
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    with pytest.raises(UsageError, match="closed"):
        transfer.submit_put("c", b"x")
    transfer.drain()


def test_a_verb_with_a_limit_of_its_own_keeps_it() -> None:
    bucket = Crowded()
    bucket.capabilities = replace(bucket.capabilities, concurrency={"put": 2})
    with make(bucket, workers=6) as transfer:
        for number in range(30):
            transfer.submit_put(str(number), b"x")
        transfer.drain()
    assert bucket.most <= 2


# Reading ahead.


def test_map_get_keeps_the_order_and_reads_ahead() -> None:
    bucket = Crowded(meet=3)
    bucket.objects = {str(number): bytes([number]) * 10 for number in range(30)}
    with make(bucket, workers=3) as transfer:
        found = [*transfer.map_get((str(number), number % 5, 5) for number in range(30))]
    assert found == [bytes([number]) * 5 for number in range(30)]
    assert bucket.most == 3


def test_map_get_stays_within_the_budget() -> None:
    bucket = Crowded()
    bucket.objects = {"a": b"x" * 1000}
    with make(bucket, workers=8) as transfer:
        transfer.budget_bytes = 100
        assert sum(map(len, transfer.map_get([("a", 0, 30)] * 20))) == 600
        assert bucket.most_bytes <= 90
        assert [*transfer.map_get([("a", 0, 500)] * 3)] == [b"x" * 500] * 3


def test_map_get_asks_for_nothing_that_is_far_ahead() -> None:
    asked: list[int] = []

    def requests() -> Iterator[tuple[str, int, int]]:
        for number in range(1000):
            asked.append(number)
            yield "a", 0, 1

    bucket = MemorySync()
    bucket.put("a", b"x")
    with make(bucket, workers=2) as transfer:
        results = transfer.map_get(requests())
        assert next(results) == b"x"
        assert len(asked) <= 6


def test_map_get_says_in_its_place_what_is_not_there_and_goes_on() -> None:
    bucket = MemorySync()
    bucket.put("a", b"x")
    with make(bucket, workers=2) as transfer:
        kinds = [type(found) for found in transfer.map_get([("none", 0, 1), ("a", 0, 2), ("a", 0, 1)])]
        assert kinds == [ObjectNotFound, RangeNotSatisfiable, bytes]


def test_map_get_raises_an_error_in_its_place_and_goes_on_with_others() -> None:
    with (
        FaultySync(MemorySync(), [Fault("get", "error", nth=2, error=AccessDenied("no"))]) as bucket,
        make(bucket, workers=1) as transfer,
    ):
        bucket.put("a", b"x")
        results = transfer.map_get([("a", 0, 1)] * 3)
        assert next(results) == b"x"
        with pytest.raises(AccessDenied):
            next(results)
        transfer.submit_put("b", b"y")
        transfer.drain()
        assert [*transfer.map_get([("b", 0, 1)])] == [b"y"]


def test_map_get_that_is_left_early_gives_its_budget_back() -> None:
    bucket = MemorySync()
    bucket.put("a", b"x" * 100)
    with make(bucket, workers=3) as transfer:
        transfer.budget_bytes = 300
        for _ in range(20):
            results = transfer.map_get([("a", 0, 100)] * 10)
            next(results)
            results.close()  # type: ignore[attr-defined]
        transfer.submit_put("b", b"y" * 300)
        transfer.drain()
    assert bucket.objects["b"] == b"y" * 300


def test_reading_within_reading_cannot_block_itself() -> None:
    bucket = MemorySync()
    bucket.put("a", b"x" * 100)
    with make(bucket, workers=2) as transfer:
        transfer.budget_bytes = 100
        requests = [("a", 0, 100)] * 4
        total = 0
        for outer in transfer.map_get(requests):
            total += len(outer) + sum(map(len, transfer.map_get(requests)))
    assert total == 4 * 500


def test_requests_in_the_foreground_count_among_the_workers() -> None:
    bucket = Crowded(meet=2)
    bucket.objects["a"] = b"1"
    bucket._modified["a"] = 0.0
    with make(bucket, workers=2) as transfer:
        threads = [threading.Thread(target=transfer.get, args=("a",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert bucket.most == 2


def test_what_the_caller_holds_itself_is_taken_from_the_budget_for_as_long() -> None:
    bucket = Crowded()
    with make(bucket, workers=4) as transfer:
        transfer.budget_bytes = 100
        with transfer.reserving(60):
            for number in range(8):
                transfer.submit_put(str(number), b"x" * 20)
            transfer.drain()
        assert bucket.most_bytes <= 40
        assert transfer.budget_bytes == 100
