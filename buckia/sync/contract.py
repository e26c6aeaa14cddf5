"""What a bucket must guarantee, as one function per sentence.

Each takes a ``fresh`` function that returns an adapter of an empty bucket, or of one in which nothing lies under the
keys used here, and raises `AssertionError` with the reason when the promise is not kept. pytest runs them over every
adapter of this package; authors of other adapters run them over theirs: ``for check in contract.ALL: check(fresh)``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from buckia.errors import ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, UsageError
from buckia.sync.base import BaseSync

Fresh = Callable[[], BaseSync]
Check = Callable[[Fresh], None]

KEY = "contract/_buckia/object"
_NAMES = ("a", "a b", "a-b/x", "a.b", "a/b", "a/b.c", "a/b/", "b", "ü", "ü/€", "\U0001f4e6")


def _same(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}.")


def _raises(kind: type[Exception], call: Callable[[], object], what: str) -> None:
    try:
        found = call()
    except kind:
        return
    raise AssertionError(f"{what}: {found!r} instead of {kind.__name__}.")


def returns_what_was_put(fresh: Fresh) -> None:
    """A get returns exactly the bytes of the put before it, from none to many."""
    with fresh() as bucket:
        for size in (0, 1, 4096, 3 << 20):
            data = bytes(range(251)) * (size // 251 + 1)
            info = bucket.put(KEY, memoryview(bytearray(data))[:size])
            _same(info.size, size, "Size after a put")
            _same(bucket.get(KEY) == data[:size], True, f"Equal bytes of {size}")
            _same(bucket.stat(KEY).size, size, "Size in a stat")


def replaces_whole_objects(fresh: Fresh) -> None:
    """A put replaces the object of its key, also by a shorter one."""
    with fresh() as bucket:
        bucket.put(KEY, b"first and long")
        bucket.put(KEY, b"second")
        _same(bucket.get(KEY), b"second", "Bytes after a second put")
        _same([(info.key, info.size) for info in bucket.list("contract/")], [(KEY, 6)], "Listing after a second put")


def readers_never_see_a_part(fresh: Fresh) -> None:
    """Whoever reads while an object is replaced gets the old one or the new one."""
    versions = [bytes([number]) * (200_000 + number) for number in range(2)]
    ended = threading.Event()
    with fresh() as bucket, ThreadPoolExecutor(1) as pool:
        bucket.put(KEY, versions[0])

        def read() -> set[bool]:
            seen: set[bool] = set()
            while not ended.is_set():
                seen.add(bucket.get(KEY) in versions)
            return seen

        reader = pool.submit(read)
        try:
            for number in range(10):
                bucket.put(KEY, versions[number % 2])
        finally:
            ended.set()
        _same(reader.result() <= {True}, True, "Only whole objects")


def serves_ranges(fresh: Fresh) -> None:
    """A get of a range returns exactly its bytes."""
    with fresh() as bucket:
        bucket.put(KEY, b"0123456789")
        _same(bucket.get(KEY, offset=2, length=3), b"234", "A part")
        _same(bucket.get(KEY, offset=7), b"789", "A part to the end")
        _same(bucket.get(KEY, offset=0, length=10), b"0123456789", "All as a range")
        _same(bucket.get(KEY, offset=9, length=1), b"9", "The last byte")
        _same(bucket.get(KEY, offset=4, length=0), b"", "Nothing")


def refuses_ranges_beyond_the_end(fresh: Fresh) -> None:
    """A range that is not wholly in the object raises RangeNotSatisfiable, never fewer bytes."""
    with fresh() as bucket:
        bucket.put(KEY, b"0123456789")
        _raises(RangeNotSatisfiable, lambda: bucket.get(KEY, offset=8, length=3), "A range across the end")
        _raises(RangeNotSatisfiable, lambda: bucket.get(KEY, offset=10, length=1), "A range at the end")
        _raises(RangeNotSatisfiable, lambda: bucket.get(KEY, offset=20), "A range behind the end")
        _raises(RangeNotSatisfiable, lambda: bucket.get(KEY, offset=11, length=0), "An empty range behind the end")


def reads_small_objects_whole(fresh: Fresh) -> None:
    """An object comes whole in one request, however small, unless it has more bytes than are wanted."""
    with fresh() as bucket:
        for size in (0, 1, 9, 10):
            bucket.put(KEY, b"x" * size)
            _same(bucket.get_whole(KEY, 10, lambda data: True), b"x" * size, f"An object of {size}")
        bucket.put(KEY, b"x" * 11)
        _same(bucket.get_whole(KEY, 10, lambda data: True), None, "A larger one")
        _raises(ObjectNotFound, lambda: bucket.get_whole(KEY[:-1], 10, lambda data: True), "A missing one")


def knows_what_is_missing(fresh: Fresh) -> None:
    """A get or stat of a key without an object raises ObjectNotFound, also when the key begins another one."""
    with fresh() as bucket:
        bucket.put(KEY, b"x")
        for key in ("contract/none", "contract", "contract/_buckia", KEY + "/below", KEY[:-1]):
            _raises(ObjectNotFound, partial(bucket.get, key), f"A get of {key}")
            _raises(ObjectNotFound, partial(bucket.get, key, offset=1, length=2), f"A range of {key}")
            _raises(ObjectNotFound, partial(bucket.stat, key), f"A stat of {key}")


def lists_everything_once(fresh: Fresh) -> None:
    """A listing has every object once, with its key as it was written and its size, in whatever order."""
    with fresh() as bucket:
        sizes = {f"contract/{name}{'z' if name.endswith('/') else ''}x": number for number, name in enumerate(_NAMES)}
        for key, size in sizes.items():
            bucket.put(key, b"x" * size)
        found = [(info.key, info.size) for info in bucket.list("contract/")]
        _same(sorted(found), sorted(sizes.items()), "Listing")


def lists_by_prefix(fresh: Fresh) -> None:
    """A prefix is text: it may end within a name, and a listing of one that nothing has is empty."""
    with fresh() as bucket:
        for key in ("contract/ab/1", "contract/ab/2", "contract/abc", "contract/b"):
            bucket.put(key, b"")
        for prefix, wanted in {
            "contract/ab/": ["contract/ab/1", "contract/ab/2"],
            "contract/ab": ["contract/ab/1", "contract/ab/2", "contract/abc"],
            "contract/ab/2": ["contract/ab/2"],
            "contract/b": ["contract/b"],
            "contract/c": [],
            "contract/b/": [],
            "contract/none/at/all": [],
        }.items():
            _same(sorted(info.key for info in bucket.list(prefix)), wanted, f"Listing of {prefix}")


def listings_are_complete(fresh: Fresh) -> None:
    """A listing has all objects however many pages it takes."""
    with fresh() as bucket, ThreadPoolExecutor(8) as pool:
        keys = [f"contract/{number:04d}" for number in range(1050)]
        for info in pool.map(lambda key: bucket.put(key, b""), keys):
            _same(info.size, 0, "Size after a put")
        _same(sorted(info.key for info in bucket.list("contract/")), keys, "Listing")
        bucket.delete_many(keys)
        _same([*bucket.list("contract/")], [], "Listing after deleting all")


def deletes(fresh: Fresh) -> None:
    """A deleted object is gone from get, stat and listing, and nothing else is."""
    with fresh() as bucket:
        for key in (KEY, KEY + "2"):
            bucket.put(key, b"x")
        bucket.delete(KEY)
        _raises(ObjectNotFound, lambda: bucket.get(KEY), "A get after a delete")
        _raises(ObjectNotFound, lambda: bucket.stat(KEY), "A stat after a delete")
        _same([info.key for info in bucket.list("contract/")], [KEY + "2"], "Listing after a delete")


def deletes_what_is_not_there(fresh: Fresh) -> None:
    """A delete of a key without an object succeeds, alone and among others."""
    with fresh() as bucket:
        bucket.put(KEY, b"x")
        bucket.delete("contract/none")
        bucket.delete_many(["contract/none", KEY, "contract/no/such"])
        bucket.delete_many([])
        _same([*bucket.list("contract/")], [], "Listing")


def stays_after_closing(fresh: Fresh) -> None:
    """Closing twice is fine."""
    bucket = fresh()
    bucket.put(KEY, b"x")
    bucket.close()
    bucket.close()


def honours_conditions(fresh: Fresh) -> None:
    """Where conditional writes are declared, a put of an existing key with if_absent fails and changes nothing, and
    one of many racing wins.
    """
    with fresh() as bucket:
        if not bucket.capabilities.conditional_put:
            _raises(UsageError, lambda: bucket.put(KEY, b"x", if_absent=True), "A condition without the capability")
            return
        bucket.put(KEY, b"first", if_absent=True)
        _raises(PreconditionFailed, lambda: bucket.put(KEY, b"second", if_absent=True), "A second conditional put")
        _same(bucket.get(KEY), b"first", "Bytes after a refused put")

        def race(number: int) -> bool:
            try:
                bucket.put(KEY + "/race", bytes([number]), if_absent=True)
            except PreconditionFailed:
                return False
            return True

        bucket.delete(KEY)
        with ThreadPoolExecutor(8) as pool:
            wins = [number for number, won in enumerate(pool.map(race, range(8))) if won]
        _same(len(wins), 1, "Winners of a race")
        _same(bucket.get(KEY + "/race"), bytes(wins), "Bytes after a race")


def copies(fresh: Fresh) -> None:
    """A copy has the bytes of its source, which stays."""
    with fresh() as bucket:
        bucket.put(KEY, b"bytes")
        _same(bucket.copy(KEY, "contract/copy ü").size, 5, "Size of a copy")
        _same((bucket.get(KEY), bucket.get("contract/copy ü")), (b"bytes", b"bytes"), "Bytes")
        _raises(ObjectNotFound, lambda: bucket.copy("contract/none", KEY), "A copy of nothing")


def refuses_unsafe_keys(fresh: Fresh) -> None:
    """A key that could mean something else in another bucket is refused before any request."""
    with fresh() as bucket:
        requests = bucket.traffic.requests.total
        for key in ("", "/a", "a/", "a//b", "a/../b", ".", "a\\b", "a\nb", " a", "a /b", "x" * 1025, "\udc80"):
            _raises(UsageError, partial(bucket.put, key, b""), f"A put of {key!r}")
            _raises(UsageError, partial(bucket.get, key), f"A get of {key!r}")
            _raises(UsageError, partial(bucket.delete, key), f"A delete of {key!r}")
        _same(bucket.traffic.requests.total, requests, "Requests")


def serves_many_at_a_time(fresh: Fresh) -> None:
    """Requests of several threads do not disturb each other."""
    with fresh() as bucket, ThreadPoolExecutor(8) as pool:

        def round_trip(number: int) -> bool:
            key, data = f"contract/{number}", bytes([number]) * 10_000
            bucket.put(key, data)
            return bucket.get(key, offset=1, length=9_999) == data[1:] and bucket.stat(key).size == 10_000

        _same([*pool.map(round_trip, range(40))], [True] * 40, "Round trips")


def counts_requests(fresh: Fresh) -> None:
    """Requests and payload bytes are counted as they are made."""
    with fresh() as bucket:
        bucket.put(KEY, b"12345")
        bucket.get(KEY, offset=1, length=2)
        bucket.stat(KEY)
        [*bucket.list("contract/")]
        bucket.delete(KEY)
        made = bucket.traffic.requests
        # A listing may take a request per directory, and a put one that proves it.
        _same((made.put, made.get, made.delete), (1, 1, 1), "Puts, gets and deletes")
        _same((made.list >= 1, made.stat >= 1, made.total <= 10), (True, True, True), "Listings and stats")
        read = 2 if bucket.capabilities.range_get else 5
        _same((bucket.traffic.bytes_uploaded, bucket.traffic.bytes_downloaded), (5, read), "Bytes")


ALL: tuple[Check, ...] = (
    returns_what_was_put,
    replaces_whole_objects,
    readers_never_see_a_part,
    serves_ranges,
    refuses_ranges_beyond_the_end,
    reads_small_objects_whole,
    knows_what_is_missing,
    lists_everything_once,
    lists_by_prefix,
    listings_are_complete,
    deletes,
    deletes_what_is_not_there,
    stays_after_closing,
    honours_conditions,
    copies,
    refuses_unsafe_keys,
    serves_many_at_a_time,
    counts_requests,
)
