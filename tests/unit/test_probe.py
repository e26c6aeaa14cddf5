"""A probe finds out what a bucket really does, believes nothing else, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from buckia.errors import AccessDenied, BucketError, CancelledError
from buckia.store.probe import LEFT_SECONDS, PAGE_OBJECTS, PREFIX, Probe, probe
from buckia.sync.base import BaseSync, ObjectInfo, Page
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync
from tests.transfers import make

GOOD = Probe(
    read_after_write=True,
    list_after_write=True,
    gone_after_delete=True,
    range_get=True,
    conditional_put=True,
    digest_in_listing="md5",
    pages=True,
)


def tried(bucket: BaseSync, *, pages: bool = True) -> Probe:
    found = probe(make(bucket), "t0", pages=pages)
    assert [*bucket.list(PREFIX)] == [], "everything is removed again"
    return found


def test_a_bucket_that_does_everything() -> None:
    bucket = MemorySync()
    bucket.put("mine/object", b"x")
    stated = bucket.capabilities
    assert tried(bucket) == GOOD
    assert GOOD.usable
    assert bucket.capabilities == stated
    assert [*bucket.objects] == ["mine/object"]


def test_pages_are_tried_on_request_only() -> None:
    bucket = MemorySync()
    found = tried(bucket, pages=False)
    assert found == replace(GOOD, pages=None)
    assert found.usable
    assert bucket.traffic.requests.total < 25 < PAGE_OBJECTS


def test_a_condition_that_is_ignored_without_a_word() -> None:
    class Ignoring(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            return super()._put(key, data, False)

    assert tried(Ignoring()) == replace(GOOD, conditional_put=False)


def test_a_condition_that_is_refused_as_such() -> None:
    class Refusing(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            if if_absent:
                raise BucketError("NotImplemented")
            return super()._put(key, data, if_absent)

    assert tried(Refusing()) == replace(GOOD, conditional_put=False)


def test_a_condition_that_refuses_and_writes_all_the_same() -> None:
    class Lying(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            try:
                return super()._put(key, data, if_absent)
            except BucketError:
                super()._put(key, data, False)
                raise

    assert tried(Lying()) == replace(GOOD, conditional_put=False)


def test_a_condition_works_where_it_was_not_stated() -> None:
    bucket = MemorySync()
    bucket.capabilities = replace(bucket.capabilities, conditional_put=False)
    assert tried(bucket).conditional_put
    assert not bucket.capabilities.conditional_put, "who asks decides"


def test_a_listing_that_is_behind() -> None:
    with FaultySync(MemorySync(), [Fault("list", "stale", nth=2, newest=2)]) as bucket:
        found = tried(bucket, pages=False)
    assert found == replace(GOOD, list_after_write=False, digest_in_listing=None, pages=None)
    assert found.usable
    assert not found.capabilities(bucket.capabilities).list_consistent


def test_reads_that_are_behind() -> None:
    class Old(MemorySync):
        def _get(self, key: str, offset: int, length: int | None) -> bytes:
            return b"before" if offset == 0 else super()._get(key, offset, length)

    found = tried(Old())
    assert not found.read_after_write
    assert not found.usable


def test_ranges_that_are_ignored() -> None:
    class Whole(MemorySync):
        def _get(self, key: str, offset: int, length: int | None) -> bytes:
            return super()._get(key, 0, None)

    bucket = Whole()
    found = tried(bucket)
    assert found == replace(GOOD, range_get=False)
    bucket.capabilities = found.capabilities(bucket.capabilities)
    bucket.put("a", b"0123456789")
    assert bucket.get("a", offset=2, length=3) == b"234"


def test_objects_that_come_back() -> None:
    class Undead(MemorySync):
        def _delete(self, key: str) -> None:
            if key.endswith("/gone") and key in self.objects and not self.raised:
                self.raised = True
                return
            super()._delete(key)

        raised = False

    assert tried(Undead()) == replace(GOOD, gone_after_delete=False)


@pytest.mark.parametrize("lost", ["the rest", "one twice"])
def test_listings_that_end_too_early(lost: str) -> None:
    class Short(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            objects: Sequence[ObjectInfo] = super()._list(prefix, token).objects
            if len(objects) < 1000:
                return Page(objects)
            return Page(objects[:1000]) if lost == "the rest" else Page([*objects, objects[0]])

    found = tried(Short())
    assert found == replace(GOOD, pages=False)
    assert not found.usable


def test_a_digest_counts_only_if_it_is_right() -> None:
    class Digesting(MemorySync):
        def _info(self, key: str) -> ObjectInfo:
            return replace(super()._info(key), digests={"sha256": "00" * 32, "sha1": None}, etag='"opaque"')

    assert tried(Digesting()).digest_in_listing is None


def test_what_fails_leaves_nothing_behind() -> None:
    with FaultySync(MemorySync(), [Fault("get", "error", error=AccessDenied("no reading"))]) as bucket:
        with pytest.raises(AccessDenied, match="no reading"):
            probe(make(bucket), "t0")
        assert [*bucket.list()] == []


def test_who_may_not_delete_leaves_next_to_nothing_and_is_told_so() -> None:
    """A delete is tried before a thousand objects are written."""

    class Keeping(MemorySync):
        def _delete(self, key: str) -> None:
            raise AccessDenied("no deleting", hint="Ask for it.")

        def _delete_many(self, keys: Sequence[str]) -> None:
            self._delete(keys[0])

    bucket = Keeping()
    with pytest.raises(AccessDenied, match="no deleting") as caught:
        probe(make(bucket), "t0")
    assert [*bucket.objects] == [f"{PREFIX}t0/gone"]
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"Ask for it. What was written below {PREFIX}t0/ stays")


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize("after", [1, 2, 7, 9, 40, 400])
def test_what_is_stopped_is_tidied_up(workers: int, after: int) -> None:
    """A request to stop ends the trying, and not the removal of what was written."""
    bucket = MemorySync()
    stopped = [True]

    def cancelled() -> bool:
        if stopped[0] and bucket.traffic.requests.total >= after:
            raise CancelledError(signal=2)
        return False

    with make(bucket, workers=workers, cancelled=cancelled) as transfer, pytest.raises(CancelledError) as caught:
        probe(transfer, "t0", resume=lambda: stopped.__setitem__(0, False))
    assert caught.value.exit_code == 130
    assert not caught.value.hint
    assert not bucket.objects


def test_who_does_not_wait_for_the_end_is_told_what_is_left() -> None:
    class Interrupted(MemorySync):
        def _delete_many(self, keys: Sequence[str]) -> None:
            if len(keys) > 1:
                raise KeyboardInterrupt
            super()._delete_many(keys)

    with pytest.raises(CancelledError) as caught:
        probe(make(Interrupted()), "t0", pages=False)
    assert f"below {PREFIX}t0/ stays" in (caught.value.hint or "")


def test_what_others_left_long_ago_is_removed() -> None:
    """Measured by the bucket's own clock; a check that goes on elsewhere is not disturbed."""
    bucket = MemorySync()
    for name, age in (("old/many/1", LEFT_SECONDS + 60), ("old-3/contract/x", 1e6), ("now/object", 60)):
        bucket.put(f"{PREFIX}{name}", b"x")
        bucket._modified[f"{PREFIX}{name}"] -= age
    bucket.put(f"below/{PREFIX}old/object", b"x")
    probe(make(bucket), "t0", pages=False)
    assert [*bucket.objects] == [f"{PREFIX}now/object", f"below/{PREFIX}old/object"]


def test_a_probe_stays_below_what_it_is_told() -> None:
    bucket = MemorySync()
    written: list[str] = []
    put = bucket._put

    def watched(key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        written.append(key)
        return put(key, data, if_absent)

    bucket._put = watched  # type: ignore[method-assign]
    assert probe(make(bucket), "t0", below="notes/") == GOOD
    assert written
    assert all(key.startswith(f"notes/{PREFIX}t0/") for key in written)
    assert not bucket.objects


def test_who_may_not_write_is_told_of_nothing_that_stays() -> None:
    bucket = FaultySync(MemorySync(), [Fault("put", "error", error=AccessDenied("no writing"))])
    with bucket, pytest.raises(AccessDenied) as caught:
        probe(make(bucket), "t0")
    assert caught.value.hint is None
    assert bucket.traffic.requests.total == 1


def test_what_was_seen_corrects_what_was_stated() -> None:
    stated = MemorySync().capabilities
    nothing = replace(GOOD, conditional_put=False, range_get=False, gone_after_delete=False, digest_in_listing=None)
    corrected = nothing.capabilities(stated)
    assert (corrected.conditional_put, corrected.range_get, corrected.list_consistent) == (False, False, False)
    assert corrected.batch_delete == stated.batch_delete
    assert not GOOD.capabilities(replace(stated, range_get=False)).range_get
