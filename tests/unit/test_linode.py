"""Linode is S3 with addresses, limits and credentials of its own."""

from __future__ import annotations

import pytest

from buckia.errors import AuthenticationError, UsageError
from buckia.sync.linode import OLDER_CLUSTERS, LinodeSync, linode_endpoint
from buckia.sync.s3 import S3Options

KEYS = {"access_key_id": "AKIDTEXT", "secret_access_key": "SECRETTEXT"}


@pytest.mark.parametrize(
    ("region", "endpoint", "wanted"),
    [
        ("us-east-1", None, "https://us-east-1.linodeobjects.com"),
        ("eu-central-1", None, "https://eu-central-1.linodeobjects.com"),
        ("us-sea-1", None, "https://us-sea-1.linodeobjects.com"),
        ("us-sea-9", None, "https://us-sea-9.linodeobjects.com"),
        ("us-sea", "us-sea-9.linodeobjects.com", "us-sea-9.linodeobjects.com"),
        (None, "http://127.0.0.1:9", "http://127.0.0.1:9"),
    ],
)
def test_where_a_bucket_is(region: str | None, endpoint: str | None, wanted: str) -> None:
    assert linode_endpoint(region, endpoint) == wanted


@pytest.mark.parametrize("region", ["us-sea", "us-east", "nl-ams", "us-east-1.linodeobjects.com", "../x-1"])
def test_a_region_that_may_be_several_hosts(region: str) -> None:
    with pytest.raises(UsageError, match="does not say at which of its hosts") as caught:
        LinodeSync("b", region=region, credentials=KEYS)
    assert "endpoint" in (caught.value.hint or "")


def test_without_a_place_there_is_no_bucket() -> None:
    with pytest.raises(UsageError, match="needs a region or an endpoint"):
        LinodeSync("b", credentials=KEYS)


def test_aws_variables_do_not_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    bucket = LinodeSync("b", region="us-east-1", credentials=KEYS)
    assert bucket.location == "linode://b?endpoint=https://us-east-1.linodeobjects.com"
    assert bucket._s3().meta.region_name == "us-east-1"
    with pytest.raises(UsageError):
        LinodeSync("b", credentials=KEYS)


def test_aws_credentials_are_not_sent_to_linode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "FROMENVIRONMENT")
    bucket = LinodeSync("b", endpoint="http://127.0.0.1:9")
    with pytest.raises(AuthenticationError, match="no credentials for linode://b") as caught:
        bucket.get("k")
    assert "LINODE_CLI_OBJ_ACCESS_KEY and LINODE_CLI_OBJ_SECRET_KEY" in (caught.value.hint or "")
    assert "AWS" not in (caught.value.hint or "")


def test_limits_are_those_of_the_cluster() -> None:
    older = LinodeSync("b", region="us-east-1", credentials=KEYS).capabilities
    newer = LinodeSync("b", region="us-sea-9", credentials=KEYS).capabilities
    stand_in = LinodeSync("b", endpoint="http://127.0.0.1:9", credentials=KEYS).capabilities
    assert (older.requests_per_second, newer.requests_per_second) == (375, 1000)
    assert stand_in == older
    for capabilities in (older, newer):
        assert not capabilities.conditional_put
        assert capabilities.batch_delete == 1000
        assert capabilities.concurrency["put"] == 64
    assert "us-sea-1" in OLDER_CLUSTERS


def test_requests_carry_no_newer_checksums() -> None:
    bucket = LinodeSync("b", region="us-east-1", credentials=KEYS)
    assert bucket._checksum == "md5"
    config = bucket._s3().meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.s3["addressing_style"] == "path"


def test_settings_of_s3_work() -> None:
    options = S3Options(addressing="virtual", cdn_url="https://cdn.example.org")
    bucket = LinodeSync("bucket", region="us-east-1", credentials=KEYS, options=options)
    assert bucket.signed_url("k", 60).startswith("https://bucket.us-east-1.linodeobjects.com/k?")
    assert bucket.get_public_url("k") == "https://cdn.example.org/k"
    with pytest.raises(UsageError, match="no transfer acceleration"):
        LinodeSync("b", region="us-east-1", options=S3Options(transfer_acceleration=True))
    with pytest.raises(UsageError, match="begins with the name of the bucket"):
        LinodeSync("b", endpoint="b.us-east-1.linodeobjects.com")


def test_newer_endpoints_have_no_cors_rules() -> None:
    newer = LinodeSync("b", endpoint="us-sea-9.linodeobjects.com", credentials=KEYS).admin
    for verb in (newer.get_cors, lambda: newer.set_cors([])):
        with pytest.raises(UsageError, match="no CORS rules at its newer endpoints") as caught:
            verb()
        assert "older clusters" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no transfer acceleration"):
        newer.get_acceleration()
