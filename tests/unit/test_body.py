"""Bodies that arrive: every byte once and in memory once, and one that drips is given up."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from buckia.errors import CancelledError, Transient
from buckia.sync.body import SLICE_BYTES, SLOW_BYTES_PER_SECOND, SLOW_SECONDS, read_slices

MINUTE = int(SLOW_SECONDS * SLOW_BYTES_PER_SECOND)


class Line:
    """A connection: (seconds, bytes) that come one after the other; the clock moves while they are waited for."""

    def __init__(self, comes: Iterable[tuple[float, int]]) -> None:
        self.comes: Iterator[tuple[float, int]] = iter(comes)
        self.now = 0.0
        self.told: list[int] = []

    def read(self, count: int) -> bytes:
        seconds, size = next(self.comes, (0.0, 0))
        assert size <= count
        self.now += seconds
        return bytes(size)

    def receive(self) -> bytes:
        return read_slices(self.read, self.told.append, "there", lambda: self.now)


def test_a_body_arrives_whole_and_each_slice_is_told_of() -> None:
    line = Line([(0.1, 3), (0.1, SLICE_BYTES), (0.1, 1)])
    assert len(line.receive()) == SLICE_BYTES + 4
    assert line.told == [3, SLICE_BYTES, 1]
    assert Line([]).receive() == b""


@pytest.mark.parametrize(("seconds", "size"), [(1.5, 1), (59.0, 1), (1.0, SLOW_BYTES_PER_SECOND - 1), (0.01, 1)])
def test_a_body_that_drips_is_given_up(seconds: float, size: int) -> None:
    """Within three minutes, however it drips."""
    line = Line(iter(lambda: (seconds, size), None))
    with pytest.raises(Transient, match=r"^there: less than 1024 bytes per second arrived\.$"):
        line.receive()
    assert line.now <= 3 * SLOW_SECONDS


@pytest.mark.parametrize(
    "comes",
    [
        [(1.0, SLOW_BYTES_PER_SECOND)] * 500,
        [(200.0, 100), *[(0.1, SLICE_BYTES)] * 5],
        [*[(0.1, SLICE_BYTES)] * 5, (200.0, 100), *[(0.1, SLICE_BYTES)] * 5],
        [(29.0, MINUTE // 2), (31.0, 0)],
    ],
    ids=["just fast enough", "a long first wait", "one pause", "the end is waited for"],
)
def test_a_body_that_comes_is_waited_for(comes: list[tuple[float, int]]) -> None:
    """A slow line is no broken one, and how long one pause may be is not decided here."""
    assert len(Line(comes).receive()) == sum(size for _, size in comes)


def test_a_body_that_came_fast_may_not_drip_later() -> None:
    line = Line([*[(0.001, SLICE_BYTES)] * 1000, *[(10.0, 1)] * 100])
    with pytest.raises(Transient):
        line.receive()


def test_time_that_a_limit_takes_is_not_the_line_s() -> None:
    """Who limits the bandwidth to a few bytes per second gets his body all the same."""
    line = Line([(0.0, 10)] * 100)

    def tell(count: int) -> None:
        line.now += 60

    assert len(read_slices(line.read, tell, "there", lambda: line.now)) == 1000


def test_whoever_is_told_may_stop_it() -> None:
    def stop(count: int) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        read_slices(Line([(0.0, 1)] * 2).read, stop, "there")


def test_a_body_is_in_memory_once() -> None:
    """A pack takes its 16 MiB and an eighth, and not twice as much."""
    tracemalloc.start()
    data = Line([(0.0, SLICE_BYTES)] * 256).receive()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * len(data)
