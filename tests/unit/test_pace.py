"""How fast a bucket may be used: rates hold over all threads, a pause allows a burst, complaints lower the rate."""

from __future__ import annotations

import threading

import pytest

from buckia.errors import CancelledError, Transient, UsageError
from buckia.store.pace import BURST_BYTES, RATE_MIN, RATE_START, Limits, Pace
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync
from tests.transfers import FakeClock, make

MB = 10**6


def pace(clock: FakeClock, **limits: float) -> Pace:
    return Pace(Limits(**limits), clock, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate", "burst"), [(20, 1), (20, 10), (0.5, 1), (500, 50)])
def test_requests_come_at_the_rate_that_is_allowed(rate: float, burst: int) -> None:
    clock = FakeClock()
    limited = pace(clock, requests=rate, burst=burst)
    count = int(60 * rate)
    begin = clock.now
    for _ in range(count):
        limited.request("get")
    assert (count - burst) / rate == pytest.approx(clock.now - begin, rel=1e-6)
    assert count / (clock.now - begin) == pytest.approx(rate, rel=0.05 + burst / count)


def test_a_pause_is_not_saved_up() -> None:
    clock = FakeClock()
    limited = pace(clock, requests=10, burst=3)
    clock.now += 3600
    begin = clock.now
    for _ in range(13):
        limited.request("put")
    assert clock.now - begin == pytest.approx(1.0)


@pytest.mark.parametrize("direction", ["upload_bytes", "download_bytes"])
@pytest.mark.parametrize("piece", [1000, BURST_BYTES, 16 << 20])
def test_bytes_flow_at_the_rate_that_is_allowed(direction: str, piece: int) -> None:
    clock = FakeClock()
    limited = pace(clock, **{direction: 10 * MB})
    move = limited.uploading if direction == "upload_bytes" else limited.downloading
    other = limited.downloading if direction == "upload_bytes" else limited.uploading
    begin, total = clock.now, 0
    while total < 300 * MB:
        move(piece)
        other(piece)
        total += piece
    assert total / (clock.now - begin) == pytest.approx(10 * MB, rel=0.01)


def test_without_limits_nobody_waits() -> None:
    clock = FakeClock()
    free = pace(clock)
    begin = clock.now
    for _ in range(1000):
        free.request("list")
        free.uploading(16 << 20)
        free.downloading(16 << 20)
    assert clock.now == begin
    assert not free.limits_bytes
    assert pace(clock, upload_bytes=1000).limits_bytes


def test_the_rate_holds_over_many_threads() -> None:
    """Threads that ask at one moment get slots one after the other: the last of them waits for all."""
    slept: list[float] = []

    class Still(FakeClock):
        def sleep(self, seconds: float) -> None:
            raise CancelledError

        def monotonic(self) -> float:
            return 1000.0

    limited = Pace(Limits(requests=10), Still(), lambda: None)

    def ask() -> None:
        try:
            limited.request("get")
        except CancelledError:
            slept.append(1)

    threads = [threading.Thread(target=ask) for _ in range(21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slept) == 20
    clock = FakeClock()
    limited._clock = clock
    limited.request("get")
    assert clock.now - 1000 == pytest.approx(2.1)


def test_waiting_can_be_cancelled() -> None:
    clock = FakeClock()

    def check() -> None:
        if clock.now > 1001:
            raise CancelledError

    limited = Pace(Limits(requests=0.1), clock, check)
    limited.request("get")
    with pytest.raises(CancelledError):
        limited.request("get")
    assert clock.now < 1002


@pytest.mark.parametrize("wrong", [{"requests": -1}, {"upload_bytes": -1}, {"download_bytes": -0.1}, {"burst": 0}])
def test_a_limit_makes_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="limit"):
        Limits(**wrong)  # type: ignore[arg-type]


def test_a_complaint_halves_the_rate_and_it_grows_again() -> None:
    clock = FakeClock()
    limited = pace(clock, requests=40, burst=40)
    limited.throttled()
    assert limited.rate == 20
    limited.throttled()  # the answer to another request of the same burst
    assert limited.rate == 20
    clock.now += 1.5
    limited.throttled()
    assert limited.rate == 10
    for _ in range(2000):
        limited.request("get")
    assert limited.rate == 40
    clock.now += 60
    begin = clock.now
    for _ in range(40):
        limited.request("get")
    assert clock.now - begin < 0.01, "a burst is allowed again"
    clock.now += 60
    limited.throttled()
    assert limited.rate == 20


def test_complaints_without_a_known_limit_lead_to_one_for_a_while() -> None:
    clock = FakeClock()
    limited = pace(clock)
    limited.throttled()
    assert limited.rate == RATE_START / 2
    for _ in range(5000):
        limited.request("get")
    assert limited.rate == 0


def test_the_rate_has_a_floor() -> None:
    clock = FakeClock()
    limited = pace(clock, requests=10)
    for _ in range(20):
        limited.throttled()
        clock.now += 2
    assert limited.rate == RATE_MIN


def test_a_transfer_tells_its_pacer_of_complaints() -> None:
    complaint = Transient("slow down", throttled=True)
    with FaultySync(MemorySync(), [Fault("put", "error", error=complaint), Fault("put", nth=2)]) as bucket:
        clock = FakeClock()
        bucket.pacer = limited = pace(clock, requests=100)
        make(bucket, clock=clock).put("a", b"x")
        assert limited.rate == pytest.approx(50, rel=0.2)
        assert bucket.traffic.requests.put == 3
        assert bucket.traffic.retried.put == bucket.traffic.retries == 2


def test_every_request_is_paced_pages_and_retries_too() -> None:
    asked: list[str] = []

    class Listening(Pace):
        def request(self, verb: str) -> None:
            asked.append(verb)

    with FaultySync(MemorySync(), [Fault("get")]) as bucket:
        bucket.pacer = Listening(Limits(), FakeClock(), lambda: None)
        transfer = make(bucket)
        transfer.put("a", b"x")
        transfer.get("a")
        transfer.list()
        transfer.delete("a")
    assert asked == ["put", "get", "get", "list", "delete"]


def test_bodies_are_paced() -> None:
    moved: list[int] = []

    class Listening(Pace):
        def uploading(self, count: int) -> None:
            moved.append(count)

        def downloading(self, count: int) -> None:
            moved.append(-count)

    bucket = MemorySync()
    bucket.pacer = Listening(Limits(), FakeClock(), lambda: None)
    bucket.put("a", bytes(1000))
    bucket.get("a", offset=1, length=10)
    assert moved == [1000, -10]
