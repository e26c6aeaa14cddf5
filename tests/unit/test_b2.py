"""The adapter of B2 on Backblaze's own simulator keeps the contract, deletes as it was told, needs no more rights than
it has to, and says in words what is wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from b2sdk.v3 import exception as b2

from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    BucketError,
    BucketNotFound,
    BuckiaError,
    LocalError,
    MissingExtraError,
    ObjectNotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    RefusedError,
    Transient,
    UsageError,
)
from buckia.sync import b2 as b2_module
from buckia.sync import b2_file, contract
from buckia.sync.b2 import B2Options, B2Sync
from buckia.sync.b2_errors import behind, translate, wants_other_server
from tests.servers.b2 import SYNC, B2Bucket, B2Cloud, Version

KEY = "f/_buckia/object"
VERSIONS = B2Options(delete="versions")


@pytest.fixture
def cloud() -> B2Cloud:
    return B2Cloud()


@pytest.fixture
def bucket(cloud: B2Cloud) -> B2Bucket:
    return cloud.fresh_bucket()


@pytest.fixture
def sync(cloud: B2Cloud, bucket: B2Bucket) -> B2Sync:
    return cloud.sync(bucket)


def actions(bucket: B2Bucket) -> list[tuple[str, str]]:
    return [(version.name, version.action) for version in bucket.versions()]


@pytest.mark.parametrize("check", contract.ALL, ids=lambda check: check.__name__)
def test_promise(check: contract.Check, cloud: B2Cloud) -> None:
    check(lambda: cloud.sync(cloud.fresh_bucket()))


@pytest.mark.parametrize(
    "check",
    [check for check in contract.ALL if check is not contract.counts_requests],
    ids=lambda check: check.__name__,
)
def test_promise_when_versions_are_deleted(check: contract.Check, cloud: B2Cloud) -> None:
    check(lambda: cloud.sync(cloud.fresh_bucket(), options=VERSIONS))


def test_ten_thousand_objects_are_listed_in_pages_of_ten_thousand(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket) as sync:
        keys = [f"f/{number:05d}" for number in range(10_050)]
        for key in keys:
            sync.put(key, b"")
        sync.delete("f/00000")
        assert [info.key for info in sync.list("f/")] == keys[1:]
        assert sync.traffic.requests.list == 2
        first = sync.list_page("f/")
        assert len(first.objects) == 10_000
        assert len(first.more) == 1


# What objects are.


def test_listings_and_stats_and_puts_say_the_same(sync: B2Sync) -> None:
    put = sync.put(KEY, b"bytes")
    assert put == sync.stat(KEY) == next(sync.list())
    assert put.digests == {"sha1": hashlib.sha1(b"bytes").hexdigest()}
    assert put.etag
    assert sync.put(KEY, b"bytes").etag != put.etag


def test_a_digest_that_b2_did_not_check_is_not_believed(sync: B2Sync, bucket: B2Bucket) -> None:
    sync.put(KEY, b"bytes")
    for sha1 in ("none", "unverified:" + "0" * 40, None):
        bucket.simulated.visible(KEY).content_sha1 = sha1
        assert next(sync.list()).digests == {}
        assert sync.stat(KEY).digests == {}


def test_names_that_b2_refuses_are_refused_before_any_request(cloud: B2Cloud, bucket: B2Bucket) -> None:
    sync = B2Sync(bucket.name, credentials=bucket.credentials, api=Untouchable())
    longest = "a" * 250 + "/" + "ü" * 125
    for key in ("a" * 251, "a/" + "ü" * 126 + "/b"):
        calls: list[Callable[[], object]] = [
            lambda key=key: sync.put(key, b""),
            lambda key=key: sync.get(key),
            lambda key=key: sync.stat(key),
            lambda key=key: sync.delete(key),
            lambda key=key: sync.signed_url(key, 60),
        ]
        for call in calls:
            with pytest.raises(UsageError, match="250 bytes"):
                call()
    assert sync.traffic.requests.total == 0
    with pytest.raises(UsageError, match="250 bytes"):
        cloud.sync(bucket).copy(longest, "b" * 251)
    cloud.sync(bucket).put(longest, b"")


class Untouchable:
    """A service that must not be asked."""

    b2_http = None

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called.")


def test_nothing_is_asked_before_the_first_request() -> None:
    with B2Sync("bucket", credentials={}, api=Untouchable()) as sync:
        assert repr(sync) == "B2Sync('b2://bucket')"


@pytest.mark.slow
def test_no_sdk_is_loaded_before_the_first_request() -> None:
    script = (
        "import sys; from buckia.sync.b2 import B2Sync; B2Sync('bucket').close();"
        "print(*{'b2sdk', 'requests', 'urllib3'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b2_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="b2sdk") as raised:
        B2Sync("bucket")
    assert raised.value.hint == 'pip install "buckia[b2]"'


# Deletes.


def test_a_delete_hides_and_keeps_the_versions(sync: B2Sync, bucket: B2Bucket) -> None:
    sync.put(KEY, b"1")
    sync.put(KEY, b"2")
    sync.delete(KEY)
    sync.delete(KEY)
    sync.delete("f/none")
    assert actions(bucket) == [(KEY, "hide"), (KEY, "upload"), (KEY, "upload")]
    assert bucket.names() == []
    sync.put(KEY, b"3")
    assert sync.get(KEY) == b"3"


def test_a_delete_can_remove_all_versions_of_that_very_name(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket) as hiding:
        for data in (b"1", b"2"):
            hiding.put(KEY, data)
            hiding.delete(KEY)
        hiding.put(KEY, b"3")
        hiding.put(KEY + "2", b"other")
    with cloud.sync(bucket, options=VERSIONS) as sync:
        sync.delete(KEY)
        assert actions(bucket) == [(KEY + "2", "upload")]
        assert sync.traffic.requests.delete == 1 + 5
        sync.delete(KEY)
        assert sync.traffic.requests.delete == 1 + 5 + 1


def test_no_old_version_is_visible_while_versions_are_deleted(
    cloud: B2Cloud, bucket: B2Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = cloud.sync(bucket, options=VERSIONS)
    for data in (b"1", b"2", b"3"):
        sync.put(KEY, data)
    seen = []
    remove = cloud.simulator.delete_file_version

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(sync.get(KEY))
        return remove(*arguments, **named)

    monkeypatch.setattr(cloud.simulator, "delete_file_version", watched)
    sync.delete(KEY)
    assert seen == [b"3"] * 3


def test_an_upload_in_parts_that_goes_on_is_no_version_to_delete(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket, options=VERSIONS) as sync:
        sync.put(KEY, b"1")
        begin(cloud, bucket, KEY)
        assert sync.get(KEY) == b"1"
        assert bucket.names() == [KEY]
        sync.delete(KEY)
        assert actions(bucket) == [(KEY, "start")]


def begin(cloud: B2Cloud, bucket: B2Bucket, key: str, info: dict[str, str] | None = None) -> str:
    answer = cloud.simulator.start_large_file(
        cloud.simulator.API_URL, cloud.token, bucket.bucket_id, key, "b2/x-auto", info or {}
    )
    return str(answer["fileId"])


def test_an_unknown_way_to_delete_is_refused() -> None:
    with pytest.raises(UsageError, match="b2_delete"):
        B2Options(delete="all")  # type: ignore[arg-type]


# Keys and what they may.


def test_a_key_for_the_bucket_needs_no_right_to_look_up_buckets(cloud: B2Cloud, bucket: B2Bucket) -> None:
    rights = ("listFiles", "readFiles", "writeFiles")
    with cloud.sync(bucket, credentials=cloud.key(rights, [bucket.bucket_id])) as sync:
        sync.connect()
        sync.put(KEY, b"x")
        assert sync.get(KEY) == b"x"
        assert [info.key for info in sync.list()] == [KEY]
        sync.delete(KEY)


@pytest.mark.parametrize(
    ("lacking", "act"),
    [
        ("listFiles", lambda sync: [*sync.list("f/")]),
        ("listFiles", lambda sync: sync.connect()),
        ("readFiles", lambda sync: sync.get(KEY)),
        ("readFiles", lambda sync: sync.stat(KEY)),
        ("writeFiles", lambda sync: sync.put(KEY, b"")),
        ("writeFiles", lambda sync: sync.delete(KEY)),
        ("writeFiles", lambda sync: sync.copy(KEY, "f/other")),
        ("deleteFiles", lambda sync: sync.admin.delete_hidden()),
        ("shareFiles", lambda sync: sync.signed_url(KEY, 60)),
        ("writeBuckets", lambda sync: sync.admin.set_lifecycle([])),
        ("listBuckets", lambda sync: sync.admin.get_lifecycle()),
    ],
)
def test_what_a_key_lacks_is_named(
    cloud: B2Cloud, bucket: B2Bucket, lacking: str, act: Callable[[B2Sync], object]
) -> None:
    with cloud.sync(bucket) as sync:
        sync.put(KEY, b"1")
        sync.put(KEY, b"2")
    rights = [right for right in (*SYNC, "shareFiles", "writeBuckets") if right != lacking]
    with cloud.sync(bucket, credentials=cloud.key(rights, [bucket.bucket_id])) as sync:
        with pytest.raises(AccessDenied, match=rf"lacks the capability {lacking}\.") as raised:
            act(sync)
        assert raised.value.exit_code == 3
        assert raised.value.hint is not None


def test_removing_versions_needs_a_right_of_its_own(cloud: B2Cloud, bucket: B2Bucket) -> None:
    rights = ("listFiles", "readFiles", "writeFiles")
    key = cloud.key(rights, [bucket.bucket_id])
    with cloud.sync(bucket, credentials=key, options=VERSIONS) as sync:
        sync.put(KEY, b"x")
        with pytest.raises(AccessDenied, match="deleteFiles"):
            sync.delete(KEY)
        assert sync.get(KEY) == b"x"


def test_a_key_for_a_prefix_works_below_it(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket, credentials=cloud.key(SYNC, [bucket.bucket_id], "f/")) as sync:
        sync.connect()
        sync.put(KEY, b"x")
        assert [info.key for info in sync.list("f/")] == [KEY]
        for act in (lambda: sync.put("g/x", b""), lambda: sync.get("g/x"), lambda: [*sync.list("g/")]):
            with pytest.raises(AccessDenied, match="only for names that begin with 'f/'"):
                act()


def test_a_key_for_another_bucket_says_for_which(cloud: B2Cloud, bucket: B2Bucket) -> None:
    other = cloud.fresh_bucket("other-bucket")
    with cloud.sync(bucket, credentials=other.credentials) as sync:
        for act in (sync.connect, lambda: sync.get(KEY), lambda: sync.put(KEY, b"")):
            with pytest.raises(AccessDenied, match="only for the bucket other-bucket"):
                act()


def test_a_bucket_that_does_not_exist_is_missing(cloud: B2Cloud) -> None:
    with B2Sync("no-such-bucket", credentials=cloud.master, api=cloud.simulator) as sync:
        for act in (sync.connect, lambda: sync.get(KEY), lambda: sync.stat(KEY), lambda: sync.put(KEY, b"")):
            with pytest.raises(BucketNotFound, match=r"There is no bucket b2://no-such-bucket\."):
                act()


def test_a_key_whose_bucket_was_deleted_says_so(cloud: B2Cloud, bucket: B2Bucket) -> None:
    cloud.simulator.delete_bucket(cloud.simulator.API_URL, cloud.token, cloud.account_id, bucket.bucket_id)
    with cloud.sync(bucket) as sync, pytest.raises(BucketNotFound, match="was deleted"):
        sync.connect()


def test_a_wrong_key_is_no_transient_failure(cloud: B2Cloud, bucket: B2Bucket) -> None:
    wrong = {**bucket.credentials, "secret_access_key": "SECRETTEXT"}
    with cloud.sync(bucket, credentials=wrong) as sync, pytest.raises(AuthenticationError) as raised:
        sync.connect()
    assert "SECRETTEXT" not in f"{raised.value} {raised.value.hint} {sync!r} {vars(sync)}"


def test_missing_credentials_are_asked_for() -> None:
    with B2Sync("bucket", api=Untouchable()) as sync, pytest.raises(AuthenticationError) as raised:
        sync.connect()
    assert raised.value.hint == "Set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY."


def test_an_expired_token_is_renewed_and_the_request_made_again(cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync) -> None:
    sync.put(KEY, b"x")
    cloud.expire_tokens()
    before = sync.traffic.requests.total
    assert sync.get(KEY) == b"x"
    assert sync.traffic.requests.total - before == 2
    sync.put(KEY, b"y")
    assert sync.get(KEY) == b"y"


def test_a_key_that_was_revoked_is_not_accepted(cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync) -> None:
    sync.put(KEY, b"x")
    cloud.expire_tokens()
    cloud.simulator.key_id_to_key.clear()
    with pytest.raises(AuthenticationError):
        sync.get(KEY)


# Endpoints.


@pytest.mark.parametrize(
    ("endpoint", "location"),
    [
        (None, "b2://bucket"),
        ("https://api.backblazeb2.com/", "b2://bucket"),
        ("http://127.0.0.1:9", "b2://bucket?endpoint=http://127.0.0.1:9"),
        ("api.example.com", "b2://bucket?endpoint=https://api.example.com"),
    ],
)
def test_an_endpoint_is_an_address(endpoint: str | None, location: str) -> None:
    assert B2Sync("bucket", endpoint=endpoint).location == location


@pytest.mark.parametrize("endpoint", ["", "ftp://x", "https://", "https://u:p@x", "https://x/path", "https://x:99999"])
def test_what_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="https://HOST") as raised:
        B2Sync("bucket", endpoint=endpoint)
    assert "u:p" not in str(raised.value)


def test_the_s3_endpoint_is_for_the_provider_s3() -> None:
    with pytest.raises(UsageError, match="S3 endpoint") as raised:
        B2Sync("bucket", endpoint="https://s3.us-west-004.backblazeb2.com")
    assert "provider s3" in (raised.value.hint or "")


# Errors.


def from_answer(status: int, code: str | None, message: str | None = "Some reason.", **headers: str) -> Exception:
    with warnings.catch_warnings(action="ignore"):
        error: Exception = b2.interpret_b2_error(status, code, message, headers, {})
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (from_answer(400, "no_such_file"), ObjectNotFound),
        (from_answer(400, "file_not_present"), ObjectNotFound),
        (from_answer(404, "not_found"), ObjectNotFound),
        (from_answer(404, None), ObjectNotFound),
        (from_answer(400, "already_hidden"), ObjectNotFound),
        (from_answer(400, "bad_bucket_id"), BucketNotFound),
        (b2.NonExistentBucket("bucket"), BucketNotFound),
        (from_answer(401, "expired_auth_token"), AuthenticationError),
        (from_answer(401, "bad_auth_token"), AuthenticationError),
        (from_answer(401, "unauthorized"), AccessDenied),
        (from_answer(403, "access_denied"), AccessDenied),
        (b2.SSECKeyError(), AccessDenied),
        (from_answer(403, None, None), AccessDenied),
        (from_answer(403, "storage_cap_exceeded"), QuotaExceeded),
        (from_answer(403, "transaction_cap_exceeded"), QuotaExceeded),
        (from_answer(403, "download_cap_exceeded"), QuotaExceeded),
        (from_answer(416, "range_not_satisfiable"), RangeNotSatisfiable),
        (from_answer(416, "other"), RangeNotSatisfiable),
        (from_answer(408, "request_timeout"), Transient),
        (from_answer(429, "too_many_requests"), Transient),
        (from_answer(500, "internal_error"), Transient),
        (from_answer(503, "service_unavailable"), Transient),
        (from_answer(400, "bad_request", "Sha1 did not match data received"), Transient),
        (from_answer(400, "bad_request"), BucketError),
        (from_answer(400, "something_new"), BucketError),
        (from_answer(400, "bad_json"), BucketError),
        (from_answer(409, "conflict"), BucketError),
        (from_answer(418, "teapot"), BucketError),
        (from_answer(400, "auth_token_limit", "more than one upload using auth token SECRETTEXT"), Transient),
        (b2.B2ConnectionError("refused"), Transient),
        (b2.B2RequestTimeout("slow"), Transient),
        (b2.BrokenPipe(), Transient),
        (b2.ConnectionReset(), Transient),
        (b2.UnknownHost(), Transient),
        (b2.ChecksumMismatch("sha1", "a", "b"), Transient),
        (b2.FileSha1Mismatch("name"), Transient),
        (b2.PartSha1Mismatch("id"), Transient),
        (b2.UnusableFileName("bad name"), UsageError),
        (b2.PotentialS3EndpointPassedAsRealm(b"<html>"), UsageError),
        (ValueError("bad name"), UsageError),
        (json.JSONDecodeError("no", "{", 0), Transient),
        (json.JSONDecodeError("no", "", 0), BucketError),
        (json.JSONDecodeError("no", " <html>", 0), BucketError),
        (requests.exceptions.ChunkedEncodingError("cut"), Transient),
        (urllib3.exceptions.IncompleteRead(1, 2), Transient),
        (urllib3.exceptions.ProtocolError("cut"), Transient),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{type(value).__name__}-{value}"[:50],
)
def test_what_b2_says_is_one_error_of_the_closed_set(error: Exception, kind: type[BuckiaError]) -> None:
    found = translate(error, "b2://bucket", KEY)
    assert type(found) is kind
    text = str(found)
    assert text.startswith(("b2://bucket: ", "There is no bucket b2://bucket."))
    assert "SECRETTEXT" not in text
    assert "None" not in text
    assert "\n" not in text


def packed(cause: Exception) -> Exception:
    """As b2sdk packs what it did not expect."""
    try:
        try:
            raise cause
        except Exception as error:
            raise b2.UnknownError(repr(error))  # noqa: B904
    except b2.UnknownError as error:
        return error


def test_what_b2sdk_takes_for_unknown_is_looked_into() -> None:
    cut = requests.exceptions.ChunkedEncodingError("cut")
    assert type(translate(packed(cut), "b2://bucket", KEY)) is Transient
    assert type(translate(packed(AssertionError("odd")), "b2://bucket", KEY)) is BucketError
    assert behind(packed(cut)) is cut
    unrelated = b2.UnknownError("418 teapot")
    unrelated.__context__ = Transient("before")
    assert behind(unrelated) is unrelated


def test_a_bug_stays_what_it_is() -> None:
    assert translate(KeyError("x"), "b2://bucket", KEY) is None
    assert translate(AssertionError(), "b2://bucket", KEY) is None


def test_caps_have_a_hint() -> None:
    found = translate(from_answer(403, "storage_cap_exceeded"), "b2://bucket", KEY)
    assert found is not None
    assert "Caps & Alerts" in (found.hint or "")


def test_too_many_requests_are_told_from_a_service_that_is_down() -> None:
    busy = translate(from_answer(429, "too_many_requests", **{"retry-after": "7"}), "b2://bucket", KEY)
    down = translate(from_answer(503, "service_unavailable", **{"retry-after": "9"}), "b2://bucket", KEY)
    assert isinstance(busy, Transient)
    assert isinstance(down, Transient)
    assert (busy.throttled, busy.retry_after) == (True, 7.0)
    assert (down.throttled, down.retry_after) == (False, 9.0)


def test_certificates_are_no_transient_failure() -> None:
    error = b2.B2ConnectionError("certificate verify failed")
    error.__context__ = requests.exceptions.SSLError("certificate verify failed")
    found = translate(error, "b2://bucket", KEY)
    assert type(found) is BucketError
    assert "REQUESTS_CA_BUNDLE" in (found.hint or "")
    assert not wants_other_server(error)
    assert wants_other_server(b2.B2ConnectionError("refused"))


def test_a_page_of_a_proxy_becomes_one_short_line() -> None:
    found = translate(from_answer(418, "non_json_response", "<html>\n" + "x" * 5000), "b2://bucket", KEY)
    assert len(str(found)) < 300


# Upload URLs.


def test_an_upload_goes_to_another_server_when_one_has_no_room(cloud: B2Cloud, sync: B2Sync) -> None:
    sync.put(KEY, b"0")
    cloud.simulator.set_upload_errors(
        [b2.ServiceError("503 service_unavailable busy"), b2.B2ConnectionError("refused")]
    )
    before = sync.traffic.requests.put
    sync.put(KEY, b"1")
    assert sync.get(KEY) == b"1"
    assert sync.traffic.requests.put - before == 1 + 2 * 2
    assert sync.traffic.bytes_uploaded == 2


def test_it_gives_up_after_three_servers(cloud: B2Cloud, sync: B2Sync) -> None:
    errors = [b2.ServiceError("503 service_unavailable busy") for _ in range(4)]
    cloud.simulator.set_upload_errors(errors)
    with pytest.raises(Transient):
        sync.put(KEY, b"1")
    assert len(errors) == 1
    assert sync.traffic.requests.put == 5


@pytest.mark.parametrize(
    "error", [b2.TooManyRequests(3), b2.StorageCapExceeded(), b2.FileSha1Mismatch("x"), b2.B2RequestTimeout("slow")]
)
def test_other_failures_of_an_upload_are_not_for_another_server(cloud: B2Cloud, sync: B2Sync, error: Exception) -> None:
    cloud.simulator.set_upload_errors([error])
    with pytest.raises((Transient, QuotaExceeded)):
        sync.put(KEY, b"1")
    assert sync.traffic.requests.put == 1
    sync.put(KEY, b"1")


# Files.


@pytest.fixture
def small_parts(cloud: B2Cloud, monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts of a few bytes, so that large files are small ones."""
    cloud.simulator.MIN_PART_SIZE = 1000
    monkeypatch.setattr(b2_file, "PART_BYTES", 1000)
    monkeypatch.setattr(b2_module, "WHOLE_BYTES_MAX", 2000)
    return 1000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(4500))
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    return path


def test_a_local_file_keeps_its_time(cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"bytes")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    info = sync.upload_file(path, KEY)
    assert info == sync.stat(KEY)
    assert bucket.versions() == [Version(KEY, "upload", b"bytes", {"src_last_modified_millis": "1700000000123"})]
    assert (sync.traffic.requests.put, sync.traffic.bytes_uploaded) == (1, 5)


def test_a_large_file_goes_in_parts(small_parts: int, bucket: B2Bucket, sync: B2Sync, large: Path) -> None:
    attempts: list[str] = []

    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        attempts.append(verb)
        return call()

    info = sync.upload_file(large, KEY, attempt=attempt)
    data, sha1 = large.read_bytes(), hashlib.sha1(large.read_bytes()).hexdigest()
    assert sync.get(KEY) == data
    assert (info.size, info.etag, info.digests) == (4500, sync.stat(KEY).etag, {"sha1": sha1})
    assert next(sync.list()).digests == sync.stat(KEY).digests == {"sha1": sha1}
    assert bucket.versions()[0].info == {"src_last_modified_millis": "1700000000123", "large_file_sha1": sha1}
    assert attempts == ["list", "put", *["put"] * 5, "put"]
    assert (sync.traffic.requests.put, sync.traffic.requests.list) == (7, 1 + 1)
    assert sync.traffic.bytes_uploaded == 4500


def test_each_part_is_an_attempt_of_its_own(
    small_parts: int, cloud: B2Cloud, sync: B2Sync, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(cloud, monkeypatch, "upload_part", b2.TooManyRequests(1), times=2)

    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except Transient:
                sync.count_retry(verb)  # type: ignore[arg-type]

    sync.upload_file(large, KEY, attempt=attempt)
    assert sync.get(KEY) == large.read_bytes()
    assert (broken.calls, sync.traffic.retries) == (5 + 2, 2)
    assert sync.traffic.bytes_uploaded == 4500


class Broken:
    """Makes calls of a method fail, before or after they did their work."""

    def __init__(
        self,
        cloud: B2Cloud,
        patch: pytest.MonkeyPatch,
        method: str,
        error: Exception,
        *,
        times: int = 1,
        late: bool = False,
    ) -> None:
        self.calls = 0
        self._call = getattr(cloud.simulator, method)
        self._error, self._left, self._late = error, times, late
        patch.setattr(cloud.simulator, method, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        fails = self._left > 0
        self._left -= fails
        answer = None if fails and not self._late else self._call(*arguments, **named)
        if fails:
            raise self._error
        return answer


def test_a_large_file_that_fails_leaves_nothing_open(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(cloud, monkeypatch, "upload_part", b2.StorageCapExceeded(), times=100)
    with pytest.raises(QuotaExceeded):
        sync.upload_file(large, KEY)
    assert bucket.versions() == []
    assert broken.calls <= 5


def test_a_failure_to_clean_up_does_not_hide_the_failure(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(cloud, monkeypatch, "upload_part", b2.StorageCapExceeded(), times=100)
    Broken(cloud, monkeypatch, "cancel_large_file", b2.B2ConnectionError("refused"))
    with pytest.raises(QuotaExceeded):
        sync.upload_file(large, KEY)
    assert actions(bucket) == [(KEY, "start")]


def test_an_upload_that_was_cut_off_is_gone_on_with(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Broken(cloud, patch, "finish_large_file", b2.ServiceError("503 down now"), times=9)
        Broken(cloud, patch, "cancel_large_file", b2.ServiceError("503 down now"), times=9)
        with pytest.raises(Transient):
            sync.upload_file(large, KEY)
    bucket.simulated.file_id_to_file[next(iter(bucket.simulated.file_id_to_file))].parts.pop()
    broken = Broken(cloud, monkeypatch, "upload_part", AssertionError(), times=0)
    sync.upload_file(large, KEY)
    assert broken.calls == 1
    assert actions(bucket) == [(KEY, "upload")]
    assert sync.get(KEY) == large.read_bytes()


@pytest.mark.parametrize("info", [{}, {"src_last_modified_millis": "1700000000123", "large_file_sha1": "0" * 40}])
def test_another_file_s_upload_is_left_alone(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path, info: dict[str, str]
) -> None:
    file_id = begin(cloud, bucket, KEY, info)
    sync.upload_file(large, KEY)
    assert sync.stat(KEY).etag != file_id
    assert sorted(actions(bucket)) == [(KEY, "start"), (KEY, "upload")]


def test_an_upload_that_was_cut_in_another_way_is_left_alone(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path
) -> None:
    data = large.read_bytes()
    info = {"src_last_modified_millis": "1700000000123", "large_file_sha1": hashlib.sha1(data).hexdigest()}
    file_id = begin(cloud, bucket, KEY, info)
    for number in range(1, 10):
        part = data[(number - 1) * 500 : number * 500]
        sha1 = hashlib.sha1(part).hexdigest()
        bucket.simulated.upload_part(file_id, number, len(part), sha1, io.BytesIO(part))
    sync.upload_file(large, KEY)
    assert sync.get(KEY) == data
    assert sync.stat(KEY).etag != file_id


def test_a_key_that_may_only_write_uploads_in_parts(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, large: Path
) -> None:
    with cloud.sync(bucket, credentials=cloud.key(("writeFiles",), [bucket.bucket_id])) as sync:
        sync.upload_file(large, KEY)
    assert bucket.versions()[0].data == large.read_bytes()


def test_an_end_whose_answer_was_lost_is_recognised(
    small_parts: int, cloud: B2Cloud, bucket: B2Bucket, sync: B2Sync, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(cloud, monkeypatch, "finish_large_file", b2.B2ConnectionError("reset"), late=True)

    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Transient:
            return call()

    sync.upload_file(large, KEY, attempt=attempt)
    assert actions(bucket) == [(KEY, "upload")]


def test_a_file_that_changes_meanwhile_is_not_stored(
    small_parts: int, bucket: B2Bucket, sync: B2Sync, large: Path
) -> None:
    def attempt(verb: str, call: Callable[[], Any]) -> Any:
        answer = call()
        os.utime(large, ns=(0, 5))
        return answer

    with pytest.raises(LocalError, match="changed while it was read"):
        sync.upload_file(large, KEY, attempt=attempt)
    assert bucket.versions() == []


def test_a_small_file_that_changes_meanwhile_is_not_stored(
    bucket: B2Bucket, sync: B2Sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"bytes")
    read = b2_file.LocalFile.read

    def disturbed(*arguments: Any) -> bytes:
        data = read(*arguments)
        os.utime(path, ns=(0, 5))
        return data

    monkeypatch.setattr(b2_file.LocalFile, "read", disturbed)
    with pytest.raises(LocalError, match="changed while it was read"):
        sync.upload_file(path, KEY)
    assert bucket.versions() == []


def test_parts_are_no_larger_than_memory_allows(tmp_path: Path, cloud: B2Cloud, bucket: B2Bucket) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, (32 << 20) + 1)
    sizes = []
    with cloud.sync(bucket, options=B2Options(max_workers=1)) as sync:
        body = sync._body

        def measured(data: memoryview) -> Any:
            sizes.append(len(data))
            return body(data)

        sync._body = measured  # type: ignore[method-assign]
        sync.upload_file(path, KEY)
    assert sizes == [16 << 20, 16 << 20, 1]


def test_a_file_that_cannot_be_read_says_so(sync: B2Sync, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read"):
        sync.upload_file(tmp_path / "none", KEY)


def test_a_downloaded_file_is_the_uploaded_one(sync: B2Sync, tmp_path: Path) -> None:
    sync.put(KEY, b"bytes")
    sync.download_file(KEY, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"bytes"


# Addresses.


def test_public_addresses(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket) as sync:
        url = cloud.simulator.DOWNLOAD_URL
        assert sync.get_public_url("f/ü b") == f"{url}/file/{bucket.name}/f/%C3%BC%20b"
    with cloud.sync(bucket, options=B2Options(cdn_url="https://cdn.example.com/file/x/")) as sync:
        assert sync.get_public_url("f/ü b") == "https://cdn.example.com/file/x/f/%C3%BC%20b"


def test_signed_addresses_are_good_for_seven_days_at_most(cloud: B2Cloud, bucket: B2Bucket) -> None:
    with cloud.sync(bucket, credentials=cloud.key((*SYNC, "shareFiles"), [bucket.bucket_id])) as sync:
        for seconds in (0, -1, 7 * 24 * 3600 + 1):
            with pytest.raises(UsageError, match="604800"):
                sync.signed_url(KEY, seconds)
        assert sync.signed_url(KEY, 7 * 24 * 3600).startswith(f"{sync.get_public_url(KEY)}?Authorization=")
        assert cloud.simulator.download_tokens.popitem()[1] == (bucket.bucket_id, KEY)


# What the owner of the bucket does.


@pytest.fixture
def owner(cloud: B2Cloud, bucket: B2Bucket) -> B2Sync:
    return cloud.sync(bucket, credentials=cloud.master)


def test_lifecycle_rules_come_and_go(owner: B2Sync) -> None:
    rules = [{"fileNamePrefix": "", "daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": None}]
    assert owner.admin.get_lifecycle() == []
    owner.admin.set_lifecycle(rules)
    assert owner.admin.get_lifecycle() == rules
    owner.admin.set_lifecycle([])
    assert owner.admin.get_lifecycle() == []


@pytest.mark.parametrize("prefix", ["", "f/", "f/_buckia/packs/", "logs/"])
def test_a_rule_that_would_hide_live_objects_is_refused(owner: B2Sync, prefix: str) -> None:
    rule = {"fileNamePrefix": prefix, "daysFromUploadingToHiding": 30, "daysFromHidingToDeleting": 1}
    with pytest.raises(RefusedError, match="also those in use"):
        owner.admin.set_lifecycle([rule])
    assert owner.admin.get_lifecycle() == []
    owner.admin.set_lifecycle([rule], force=True)
    assert owner.admin.get_lifecycle() == [rule]


@pytest.mark.parametrize("rules", [["x"], [5], [None], [[]]])
def test_rules_that_are_none_are_refused(owner: B2Sync, rules: list[Any]) -> None:
    for set_rules in (owner.admin.set_lifecycle, owner.admin.set_cors):
        with pytest.raises(UsageError, match="rule 1 is no mapping"):
            set_rules(rules)


def test_cors_rules_come_and_go(owner: B2Sync) -> None:
    rules = [
        {"corsRuleName": "web", "allowedOrigins": ["https://x"], "allowedOperations": ["b2_download_file_by_name"]}
    ]
    owner.admin.set_cors(rules)
    assert owner.admin.get_cors() == rules
    owner.admin.set_cors([])
    assert owner.admin.get_cors() == []


def test_hidden_versions_are_listed_and_deleted(cloud: B2Cloud, bucket: B2Bucket, owner: B2Sync) -> None:
    owner.put("f/live", b"new")
    owner.put("f/replaced", b"old one")
    owner.put("f/replaced", b"new")
    owner.put("f/deleted", b"gone")
    owner.delete("f/deleted")
    owner.put("g/deleted", b"gone")
    owner.delete("g/deleted")
    begin(cloud, bucket, "f/replaced")
    found = [(row["key"], row["size"], row["hidden"]) for row in owner.admin.list_hidden("f/")]
    assert found == [("f/deleted", 0, True), ("f/deleted", 4, True), ("f/replaced", 7, False)]
    assert all(row["id"] and row["time"] > 0 for row in owner.admin.list_hidden())
    assert owner.admin.delete_hidden("f/") == 3
    assert actions(bucket) == [
        ("f/live", "upload"),
        ("f/replaced", "start"),
        ("f/replaced", "upload"),
        ("g/deleted", "hide"),
        ("g/deleted", "upload"),
    ]
    assert owner.admin.delete_hidden() == 2
    assert bucket.names() == ["f/live", "f/replaced"]


def test_a_deleted_name_stays_deleted_while_its_versions_go(
    cloud: B2Cloud, bucket: B2Bucket, owner: B2Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.put(KEY, b"1")
    owner.put(KEY, b"2")
    owner.delete(KEY)
    seen = []
    remove = cloud.simulator.delete_file_version

    def watched(*arguments: Any, **named: Any) -> Any:
        answer = remove(*arguments, **named)
        seen.append(bucket.names())
        return answer

    monkeypatch.setattr(cloud.simulator, "delete_file_version", watched)
    assert owner.admin.delete_hidden() == 3
    assert seen == [[]] * 3


def test_versions_are_found_page_by_page(bucket: B2Bucket, owner: B2Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        owner.put(KEY, bytes([number]))
    monkeypatch.setattr("buckia.sync.b2_admin.PAGE", 2)
    assert len(owner.admin.list_hidden()) == 4
    monkeypatch.setattr(b2_module, "VERSIONS_COUNT", 2)
    B2Sync._delete_versions(owner, KEY)
    assert bucket.versions() == []


def test_open_uploads_are_listed_and_ended(cloud: B2Cloud, bucket: B2Bucket, owner: B2Sync) -> None:
    first, second = begin(cloud, bucket, "f/a"), begin(cloud, bucket, "g/b")
    assert {(row["key"], row["id"]) for row in owner.admin.list_uploads()} == {("f/a", first), ("g/b", second)}
    assert owner.admin.abort_uploads("g/") == 1
    assert actions(bucket) == [("f/a", "start")]
    assert owner.admin.abort_uploads() == 1
    assert owner.admin.abort_uploads() == 0


def test_what_b2_has_not_is_said(owner: B2Sync) -> None:
    for act in (owner.admin.get_policy, owner.admin.get_acl, owner.admin.pull_zone):
        with pytest.raises(UsageError, match="has no"):
            act()
