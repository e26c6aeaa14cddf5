"""Planned faults happen where they are planned, once, and a plan that was not used up is noticed."""

from __future__ import annotations

import pytest

from buckia.errors import ObjectNotFound, Transient
from buckia.sync.faulty import Act, Fault, FaultySync, SimulatedCrash
from buckia.sync.memory import MemorySync


def _keys(bucket: FaultySync) -> list[str]:
    return [info.key for info in bucket.list()]


@pytest.mark.parametrize(
    ("act", "kind", "applied"),
    [
        ("before", Transient, False),
        ("applied", Transient, True),
        ("timeout", Transient, True),
        ("crash", SimulatedCrash, False),
        ("crash-applied", SimulatedCrash, True),
    ],
)
def test_a_put_fails_before_or_after_its_effect(act: Act, kind: type[BaseException], applied: bool) -> None:
    with FaultySync(MemorySync(), [Fault("put", act, nth=2)]) as bucket:
        bucket.put("a", b"1")
        with pytest.raises(kind):
            bucket.put("b", b"2")
        assert _keys(bucket) == (["a", "b"] if applied else ["a"])
        bucket.put("c", b"3")


def test_a_wish_to_wait_is_passed_on() -> None:
    with FaultySync(MemorySync(), [Fault("get", retry_after=9.0)]) as bucket:
        with pytest.raises(Transient) as caught:
            bucket.get("a")
        assert caught.value.retry_after == 9.0


def test_only_keys_that_fulfil_the_condition_count() -> None:
    with FaultySync(MemorySync(), [Fault("put", nth=2, where=lambda key: key.startswith("tips/"))]) as bucket:
        for key in ("tips/1", "journal/1", "journal/2"):
            bucket.put(key, b"")
        with pytest.raises(Transient):
            bucket.put("tips/2", b"")


def test_a_bit_is_flipped_where_it_is_wanted() -> None:
    with FaultySync(MemorySync(), [Fault("get", "flip", at=2)]) as bucket:
        bucket.put("a", b"\0\0\0\0")
        assert bucket.get("a") == b"\0\0\1\0"
        assert bucket.get("a") == b"\0\0\0\0"


def test_a_missing_object_comes_back() -> None:
    with FaultySync(MemorySync(), [Fault("get", "missing", times=2)]) as bucket:
        bucket.put("a", b"x")
        for _ in range(2):
            with pytest.raises(ObjectNotFound):
                bucket.get("a")
        assert bucket.get("a") == b"x"


def test_a_stale_listing_omits_the_newest_and_shows_the_deleted() -> None:
    with FaultySync(MemorySync(), [Fault("list", "stale", newest=2)]) as bucket:
        for key in ("x/a", "x/b", "y/a", "x/c"):
            bucket.put(key, b"")
        bucket.delete("x/a")
        assert [info.key for info in bucket.list("x/")] == ["x/a"]
        assert [info.key for info in bucket.list("x/")] == ["x/b", "x/c"]


def test_deleting_many_can_fail_in_the_middle() -> None:
    with FaultySync(MemorySync(), [Fault("delete", nth=2)]) as bucket:
        for key in "abc":
            bucket.put(key, b"")
        with pytest.raises(Transient):
            bucket.delete_many("abc")
        assert _keys(bucket) == ["b", "c"]


def test_faults_that_never_happened_fail_the_block() -> None:
    bucket = FaultySync(MemorySync(), [Fault("put"), Fault("put", nth=3), Fault("get", times=2)])
    with pytest.raises(Transient):
        bucket.put("a", b"")
    with pytest.raises(Transient):
        bucket.get("a")
    assert bucket.unused() == [Fault("put", nth=3), Fault("get", times=2)]
    with pytest.raises(AssertionError, match="never happened"), bucket:
        pass


def test_an_error_of_the_block_is_not_hidden_by_unused_faults() -> None:
    with pytest.raises(ZeroDivisionError), FaultySync(MemorySync(), [Fault("put")]):
        raise ZeroDivisionError


def test_faults_added_later_count_from_then() -> None:
    with FaultySync(MemorySync()) as bucket:
        bucket.put("a", b"")
        bucket.plan(Fault("put"))
        with pytest.raises(Transient):
            bucket.put("b", b"")
        assert bucket.log == [("put", "a"), ("put", "b")]


def test_latency_is_slept_before_every_request() -> None:
    slept: list[float] = []
    with FaultySync(MemorySync(), latency=0.05, sleep=slept.append) as bucket:
        bucket.put("a", b"")
        bucket.get("a")
    assert slept == [0.05, 0.05]
