"""What `BaseSync` does for every adapter: keys and ranges at the door, errors, counting, files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.errors import (
    AccessDenied,
    BucketError,
    BuckiaError,
    LocalError,
    ObjectNotFound,
    RangeNotSatisfiable,
    Transient,
    UsageError,
)
from buckia.sync.base import BaseSync, ObjectInfo, Page, check_key, check_prefix
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync


def test_an_adapter_that_lacks_a_method_cannot_be_made() -> None:
    class Partial(BaseSync):
        def _close(self) -> None: ...

    with pytest.raises(TypeError, match=r"_delete.*_get.*_list.*_put.*_stat"):
        Partial("nowhere", MemorySync().capabilities)  # type: ignore[abstract]


@pytest.mark.parametrize(
    "key", ["a", "a/b", "ü/€ 📦", ".hidden", "..a", "a..", "a b/c~d", "x" * 1024, "é" * 512, "_buckia/tips/0-1"]
)
def test_plain_keys_are_taken(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../a", "a\\b", "a\0b", "a\nb", "a\x7f"),
        *(" a", "a ", "a /b", "a/\u00a0b", "x" * 1025, "é" * 513, "\udc80"),
    ],
)
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(UsageError):
        check_key(key)


@given(st.text(max_size=30))
def test_a_key_that_is_taken_stays_in_its_directory(key: str) -> None:
    try:
        check_key(key)
    except UsageError:
        return
    assert Path("/root", key).resolve().is_relative_to("/root")
    for end in range(len(key) + 1):
        check_prefix(key[:end])


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "../", "a/../b", "a\\", "a/ b", "\n"])
def test_a_prefix_that_begins_no_key_is_refused(prefix: str) -> None:
    bucket = MemorySync()
    with pytest.raises(UsageError):
        bucket.list(prefix)
    assert bucket.traffic.requests.list == 0


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-2, None)])
def test_impossible_ranges_are_refused(offset: int, length: int | None) -> None:
    with pytest.raises(UsageError):
        MemorySync().get("a", offset=offset, length=length)


def test_an_answer_that_was_cut_short_is_told_from_a_short_object() -> None:
    with FaultySync(MemorySync(), [Fault("get", "short")]) as bucket:
        bucket.put("a", b"0123456789")
        with pytest.raises(Transient, match="2 bytes arrived instead of 4"):
            bucket.get("a", offset=3, length=4)
        with pytest.raises(RangeNotSatisfiable):
            bucket.get("a", offset=8, length=4)


def test_a_server_that_ignores_ranges_is_noticed() -> None:
    class Ignoring(MemorySync):
        def _get(self, key: str, offset: int, length: int | None) -> bytes:
            return super()._get(key, 0, None)

    bucket = Ignoring()
    bucket.put("a", b"0123456789")
    with pytest.raises(BucketError, match="ignores ranges"):
        bucket.get("a", offset=3, length=4)


def test_an_object_beyond_the_limit_is_refused() -> None:
    bucket = MemorySync()
    bucket.capabilities = replace(bucket.capabilities, object_bytes_max=3)
    with pytest.raises(BucketError, match="4 bytes"):
        bucket.put("a", b"0123")
    assert bucket.traffic.requests.put == 0


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (TimeoutError("slow"), Transient),
        (ConnectionResetError(), Transient),
        (OSError(5, "Input/output error"), BucketError),
        (ObjectNotFound("none"), ObjectNotFound),
    ],
)
def test_errors_of_the_network_become_ours(raised: Exception, kind: type[Exception]) -> None:
    with FaultySync(
        MemorySync(), [Fault("list", "error", error=raised), Fault("put", "error", error=raised)]
    ) as bucket:
        with pytest.raises(kind) as listing:
            [*bucket.list()]
        with pytest.raises(kind) as put:
            bucket.put("a", b"")
        assert type(listing.value) is type(put.value) is kind


def test_a_bug_in_an_adapter_stays_what_it_is() -> None:
    with FaultySync(MemorySync(), [Fault("stat", "error", error=KeyError("bug"))]) as bucket, pytest.raises(KeyError):
        bucket.stat("a")


def test_a_listing_of_other_keys_than_asked_for_is_an_error() -> None:
    class Generous(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            return super()._list("", token)

    bucket = Generous()
    bucket.put("a", b"")
    with pytest.raises(BucketError, match="lists 'a' under 'b'"):
        [*bucket.list("b")]


def test_a_listing_that_breaks_raises() -> None:
    class Breaking(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            if token is not None:
                raise ConnectionResetError("reset")
            return Page(super()._list(prefix, token).objects, ["2"])

    bucket = Breaking()
    bucket.put("a", b"")
    with pytest.raises(Transient):
        [*bucket.list()]


def test_a_listing_that_goes_in_a_circle_is_an_error() -> None:
    class Circular(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            return Page((), ["again"])

    with pytest.raises(BucketError, match="goes on, and not where"):
        [*Circular().list()]


def test_a_listing_may_branch() -> None:
    class Tree(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            below = {None: ["a", "b"], "a": [], "b": ["c"], "c": []}
            return Page([ObjectInfo(token or "top", 0)], below[token])

    bucket = Tree()
    assert sorted(info.key for info in bucket.list()) == ["a", "b", "c", "top"]
    assert bucket.traffic.requests.list == 4


def test_counting_is_exact_with_many_threads() -> None:
    bucket = MemorySync()
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda number: bucket.put(f"k{number % 7}", b"xyz"), range(800))]
    assert bucket.traffic.requests.put == 800
    assert bucket.traffic.bytes_uploaded == 2400


def test_batches_are_one_request_each() -> None:
    bucket = MemorySync()
    bucket.capabilities = replace(bucket.capabilities, batch_delete=10)
    bucket.delete_many(f"k{number}" for number in range(25))
    assert bucket.traffic.requests.delete == 3


def test_files_go_up_and_down(tmp_path: Path) -> None:
    data = bytes(range(256)) * (70 << 10)  # two parts
    (tmp_path / "up").write_bytes(data)
    bucket = MemorySync()
    assert bucket.upload_file(tmp_path / "up", "dir/a").size == len(data)
    (tmp_path / "down").write_bytes(b"old")
    bucket.download_file("dir/a", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    assert [*bucket.list_remote_files("dir/")] == ["dir/a"]
    bucket.delete_file("dir/a")
    assert bucket.list_remote_files() == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "up"]
    assert bucket.get_public_url("dir/a") is None
    assert "memory" in repr(bucket)


def test_a_download_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "down").write_bytes(b"old")
    with FaultySync(MemorySync(), [Fault("get", nth=2)]) as bucket:
        bucket.put("a", bytes(20 << 20))
        with pytest.raises(Transient):
            bucket.download_file("a", tmp_path / "down")
        with pytest.raises(ObjectNotFound):
            bucket.download_file("none", tmp_path / "down")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("down", b"old")]


def test_a_download_notices_that_the_object_was_replaced(tmp_path: Path) -> None:
    class Replaced(MemorySync):
        def _get(self, key: str, offset: int, length: int | None) -> bytes:
            data = super()._get(key, offset, length)
            self.objects[key] = b"y" * len(self.objects[key])
            return data

    bucket = Replaced()
    bucket.put("a", bytes(20 << 20))
    with pytest.raises(Transient, match="replaced"):
        bucket.download_file("a", tmp_path / "down")
    assert [*tmp_path.iterdir()] == []


def test_local_trouble_is_a_local_error(tmp_path: Path) -> None:
    bucket = MemorySync()
    bucket.put("a", b"x")
    with pytest.raises(LocalError):
        bucket.upload_file(tmp_path / "none", "a")
    with pytest.raises(LocalError):
        bucket.download_file("a", tmp_path / "none" / "down")


def test_connecting_proves_that_the_bucket_can_be_listed() -> None:
    with FaultySync(MemorySync(), [Fault("list", nth=2)]) as bucket:
        bucket.connect()
        assert not bucket.test_connection()
        assert bucket.test_connection()


def test_leaving_a_listing_early_is_fine() -> None:
    bucket = MemorySync()
    for key in "abc":
        bucket.put(key, b"")
    assert next(bucket.list()).key == "a"


def test_a_secret_that_a_server_repeats_is_not_shown() -> None:
    class Echoing(MemorySync):
        def _stat(self, key: str) -> ObjectInfo:
            raise AccessDenied("the key K0123456 is wrong", hint="not K0123456")

        def _translate(self, error: Exception, key: str) -> BuckiaError | None:
            return BucketError(f"{error}")

        def _get(self, key: str, offset: int, length: int | None) -> bytes:
            raise ValueError("K0123456!")

    bucket = Echoing()
    bucket.mask(["K0123456", "key", ""])
    with pytest.raises(AccessDenied) as denied:
        bucket.stat("a")
    assert (str(denied.value), denied.value.hint) == ("the key *** is wrong", "not ***")
    with pytest.raises(BucketError, match=r"^\*\*\*!$"):
        bucket.get("a")
