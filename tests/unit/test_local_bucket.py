"""A directory as a bucket: nothing half-written is ever seen, links lead nowhere, and what the disk refuses is said as
it is.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from buckia.errors import (
    AccessDenied,
    BucketError,
    BucketNotFound,
    ObjectNotFound,
    QuotaExceeded,
    Transient,
)
from buckia.sync.base import ObjectInfo
from buckia.sync.local import TEMPORARY, LocalSync


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "bucket"
    path.mkdir()
    return path


@pytest.fixture
def bucket(root: Path) -> LocalSync:
    return LocalSync(root)


def _keys(bucket: LocalSync) -> list[str]:
    return [info.key for info in bucket.list()]


def test_an_object_is_a_file_at_its_key(bucket: LocalSync, root: Path) -> None:
    bucket.put("a/b/c", b"data")
    assert (root / "a/b/c").read_bytes() == b"data"
    (root / "a/d").write_bytes(b"foreign")
    assert bucket.get("a/d") == b"foreign"
    assert _keys(bucket) == ["a/b/c", "a/d"]
    assert bucket.get_public_url("a/d") == f"file://{root}/a/d"


def test_listings_follow_the_order_of_keys(bucket: LocalSync) -> None:
    keys = sorted(["a/b", "a-b", "a.b/c", "a0", "ab", "b", "a/c/d", "ü", "A"], key=str.encode)
    for key in keys:
        bucket.put(key, b"")
    assert _keys(bucket) == keys


def test_a_missing_root_is_a_missing_bucket_and_is_never_made(tmp_path: Path) -> None:
    bucket = LocalSync(tmp_path / "none")
    for request in (
        bucket.get,
        bucket.stat,
        bucket.delete,
        lambda key: bucket.put(key, b""),
        lambda key: [*bucket.list()],
    ):
        with pytest.raises(BucketNotFound, match="none"):
            request("a")
    assert not (tmp_path / "none").exists()
    (tmp_path / "none").write_bytes(b"a file")
    with pytest.raises(BucketNotFound):
        bucket.connect()


def test_a_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    LocalSync(tmp_path / "link").put("a", b"x")
    assert (root / "a").read_bytes() == b"x"


def test_links_lead_nowhere(bucket: LocalSync, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "dir").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "loop").symlink_to("loop")
    for key in ("dir/secret", "file", "loop"):
        with pytest.raises(ObjectNotFound):
            bucket.get(key)
        with pytest.raises(ObjectNotFound):
            bucket.stat(key)
    assert _keys(bucket) == []
    assert [*bucket.list("dir/")] == []
    with pytest.raises(BucketError, match="in the way"):
        bucket.put("dir/new", b"x")
    bucket.delete("dir/secret")
    bucket.put("file", b"replaces the link")
    assert (outside / "secret").read_bytes() == b"secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert bucket.get("file") == b"replaces the link"


def test_other_things_than_files_are_no_objects(bucket: LocalSync, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "dir").mkdir()
    for key in ("pipe", "dir", "dir/none"):
        with pytest.raises(ObjectNotFound):
            bucket.get(key)
    assert _keys(bucket) == []
    bucket.delete("dir")
    assert (root / "dir").is_dir()


def test_a_name_cannot_be_an_object_and_a_directory(bucket: LocalSync) -> None:
    bucket.put("a/b", b"1")
    bucket.put("c", b"2")
    with pytest.raises(BucketError):
        bucket.put("a", b"x")
    with pytest.raises(BucketError, match="in the way"):
        bucket.put("c/d", b"x")
    assert _keys(bucket) == ["a/b", "c"]


def test_a_name_that_is_not_utf8_is_shown(bucket: LocalSync, root: Path) -> None:
    try:
        (root / os.fsdecode(b"bad-\xff")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert _keys(bucket) == ["bad-\ufffd"]


def test_unended_puts_are_not_seen_and_go_away_after_a_day(bucket: LocalSync, root: Path) -> None:
    (root / "a").mkdir()
    old, new = root / "a" / f"{TEMPORARY}old", root / "a" / f"{TEMPORARY}new"
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 2 * 86400
    os.utime(old, (past, past))
    assert _keys(bucket) == []
    bucket.put("a/b", b"x")
    assert _keys(bucket) == ["a/b"]
    assert not old.exists()
    assert new.exists()


def test_no_directory_is_left_of_what_was_deleted(bucket: LocalSync, root: Path) -> None:
    """A key's slashes are no directories at other providers; here they go with the last object in them."""
    bucket.put("a/b/c", b"x")
    bucket.put("a/d", b"x")
    bucket.delete("a/b/c")
    assert sorted(path.name for path in root.rglob("*")) == ["a", "d"]
    bucket.delete_many(["a/d", "nothing/at/all"])
    assert list(root.iterdir()) == []
    bucket.put("a/b/c", b"again")
    assert bucket.get("a/b/c") == b"again"


def test_a_put_survives_that_its_directory_is_taken_away(
    bucket: LocalSync, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the directory and the write another process may delete the last object in it."""
    original = LocalSync._write
    calls = 0

    def write(self: LocalSync, directory: int, name: str, key: str, data: memoryview) -> ObjectInfo:
        nonlocal calls
        calls += 1
        if calls == 1:
            (root / "a/b").rmdir()
        return original(self, directory, name, key, data)

    monkeypatch.setattr(LocalSync, "_write", write)
    bucket.put("a/b/c", b"x")
    assert calls == 2
    assert _keys(bucket) == ["a/b/c"]


def test_a_put_that_fails_leaves_nothing(bucket: LocalSync, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a", b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for call in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(BucketError, match="Input/output error"):
                bucket.put("a", b"new")
        assert [path.name for path in root.iterdir()] == ["a"]
        assert bucket.get("a") == b"old"


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, QuotaExceeded, "no space left"),
        (errno.EDQUOT, QuotaExceeded, "no space left"),
        (errno.EACCES, AccessDenied, "permissions"),
        (errno.EPERM, AccessDenied, "permissions"),
        (errno.EROFS, AccessDenied, "read-only file system"),
        (errno.ESTALE, Transient, "Stale"),
        (errno.EBUSY, Transient, "busy"),
        (errno.EIO, BucketError, "Input/output"),
    ],
)
def test_what_the_disk_refuses(
    bucket: LocalSync, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], says: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("buckia.sync.base.os.write", fail)
    with pytest.raises(kind, match=says) as caught:
        bucket.put("a", b"x")
    assert type(caught.value) is kind


def test_order_of_a_durable_put(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **names: object) -> object:
            what = ""
            if name == "fsync":
                what = " directory" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else " file"  # type: ignore[arg-type]
            events.append(name + what)
            return real(*arguments, **names)

        monkeypatch.setattr(os, name, call)

    for name in ("mkdir", "fsync", "replace", "link"):
        watch(name)
    bucket = LocalSync(root)
    bucket.put("d/a", b"x")
    assert events == ["mkdir", "fsync directory", "fsync file", "replace", "fsync directory"]
    events.clear()
    bucket.put("d/b", b"x", if_absent=True)
    assert events == ["fsync file", "link", "fsync directory"]
    events.clear()
    LocalSync(root, durable=False).put("d/c", b"x")
    assert events == ["mkdir", "replace"]


def test_a_directory_that_somebody_removed_is_made_again(bucket: LocalSync, root: Path) -> None:
    bucket.put("a/b/c", b"x")
    (root / "a/b/c").unlink()
    (root / "a/b").rmdir()
    (root / "a").rmdir()
    bucket.put("a/b/c", b"y")
    assert bucket.get("a/b/c") == b"y"


def test_many_bytes_arrive_in_several_calls(bucket: LocalSync, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr("buckia.sync.base.os.write", lambda descriptor, data: write(descriptor, data[:1000]))
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 700), offset))
    data = bytes(range(256)) * 20
    bucket.put("a", data)
    assert bucket.get("a") == data
    assert bucket.get("a", offset=100, length=4000) == data[100:4100]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_permissions_are_respected() -> None:
    code = """
import os, sys
from buckia.errors import BuckiaError
from buckia.sync.local import LocalSync
bucket = LocalSync(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
for request in (
    lambda: bucket.put("a", b"x"),
    lambda: bucket.get("private/a"),
    lambda: [*bucket.list()],
    lambda: bucket.delete("b"),
):
    try:
        print(request())
    except BuckiaError as error:
        print(type(error).__name__, error.exit_code)
"""
    with tempfile.TemporaryDirectory() as root:  # not pytest's: others may not enter that
        owner = LocalSync(root)
        owner.put("private/a", b"x")
        owner.put("b", b"x")
        Path(root, "private").chmod(0o700)
        Path(root).chmod(0o755)
        run = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=False)
    assert run.stdout.split("\n")[:4] == ["AccessDenied 3"] * 4, run.stderr
