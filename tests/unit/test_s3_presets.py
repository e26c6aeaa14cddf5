"""Every kind of S3 server is known by its host, and settings that it cannot have are refused before a request."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from buckia.errors import UsageError
from buckia.sync.cdn import CdnReader
from buckia.sync.linode import OLDER_CLUSTERS
from buckia.sync.s3 import S3Options, S3Sync
from buckia.sync.s3_admin import harm
from buckia.sync.s3_presets import PRESETS, find_preset

KEYS = {"access_key_id": "AKIDTEXT", "secret_access_key": "SECRETTEXT"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("host", "name", "region"),
    [
        ("s3.amazonaws.com", "aws", "us-east-1"),
        ("s3.eu-west-1.amazonaws.com", "aws", "eu-west-1"),
        ("s3-us-west-2.amazonaws.com", "aws", "us-west-2"),
        ("s3.dualstack.us-gov-west-1.amazonaws.com", "aws", "us-gov-west-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "aws", "cn-north-1"),
        ("bucket.vpce-0a-1b.s3.us-east-1.vpce.amazonaws.com", "aws", "us-east-1"),
        ("S3.EU-WEST-1.AMAZONAWS.COM", "aws", "eu-west-1"),
        ("0123abc.r2.cloudflarestorage.com", "r2", "auto"),
        ("0123abc.eu.r2.cloudflarestorage.com", "r2", "auto"),
        ("nyc3.digitaloceanspaces.com", "do-spaces", "nyc3"),
        ("minio", "minio", "us-east-1"),
        ("minio.example.org", "minio", "us-east-1"),
        ("play.min.io", "minio", "us-east-1"),
        ("us-sea-9.linodeobjects.com", "linode", "us-sea-9"),
        ("s3.us-west-004.backblazeb2.com", "b2-s3", "us-west-004"),
        ("de-s3.storage.bunnycdn.com", "bunny-s3", "de"),
        ("syd-s3.storage.bunnycdn.com", "bunny-s3", "syd"),
        ("127.0.0.1", "generic", "us-east-1"),
        ("s3.example.org", "generic", "us-east-1"),
        ("amazonaws.com.example.org", "generic", "us-east-1"),
        ("evil-digitaloceanspaces.com", "generic", "us-east-1"),
    ],
)
def test_hosts(host: str, name: str, region: str) -> None:
    preset, found = find_preset(host)
    assert (preset.name, found) == (name, region)


def test_only_aws_is_trusted_with_conditions() -> None:
    assert [preset.name for preset in PRESETS.values() if preset.capabilities.conditional_put] == ["aws"]


def test_only_aws_accelerates() -> None:
    assert [preset.name for preset in PRESETS.values() if "acceleration" not in preset.lacks] == ["aws"]


def test_what_the_table_says() -> None:
    assert PRESETS["bunny-s3"].capabilities.batch_delete == 0
    assert {preset.capabilities.batch_delete for preset in PRESETS.values()} == {0, 1000}
    assert {name for name, preset in PRESETS.items() if preset.checksum == "sha256"} == {
        *("aws", "r2", "minio", "bunny-s3", "generic"),
    }
    assert PRESETS["b2-s3"].checksum == "md5"  # it refuses the newer headers
    assert PRESETS["bunny-s3"].capabilities.concurrency["list"] == 4
    assert all(preset.capabilities.object_bytes_max <= 5 << 30 for preset in PRESETS.values())


def test_the_endpoint_says_the_rest() -> None:
    bucket = S3Sync("b", endpoint="https://nyc3.digitaloceanspaces.com/", credentials=KEYS)
    assert bucket.location == "s3://b?endpoint=https://nyc3.digitaloceanspaces.com"
    assert bucket.capabilities is PRESETS["do-spaces"].capabilities
    client = bucket._s3()
    assert (client.meta.region_name, client.meta.config.s3["addressing_style"]) == ("nyc3", "path")
    bucket = S3Sync("b", endpoint="nyc3.digitaloceanspaces.com", region="elsewhere", credentials=KEYS)
    assert bucket._s3().meta.region_name == "elsewhere"


def test_a_preset_may_be_named() -> None:
    bucket = S3Sync("b", endpoint="http://127.0.0.1:9", credentials=KEYS, options=S3Options(preset="r2"))
    assert bucket.capabilities is PRESETS["r2"].capabilities
    assert bucket._s3().meta.region_name == "auto"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://b.nyc3.digitaloceanspaces.com",
        "b.us-sea-1.linodeobjects.com",
        "b.s3.us-west-004.backblazeb2.com",
        "b.s3.eu-west-1.amazonaws.com",
    ],
)
def test_an_endpoint_does_not_hold_the_bucket(endpoint: str) -> None:
    with pytest.raises(UsageError, match="begins with the name of the bucket") as caught:
        S3Sync("b", endpoint=endpoint)
    assert (caught.value.hint or "").endswith(endpoint.partition("b.")[2])


def test_a_bucket_may_be_named_like_a_host() -> None:
    S3Sync("us-east-1", endpoint="us-east-1.linodeobjects.com")
    S3Sync("s3", endpoint="s3.example.org")


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "https://", "https://user:pw@host", "https://host?x=1", "https://host:port"]
)
def test_endpoints_that_make_no_sense(endpoint: str) -> None:
    with pytest.raises(UsageError) as caught:
        S3Sync("bucket", endpoint=endpoint)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "gcs"}, "preset is one of auto, aws"),
        ({"addressing": "host"}, "addressing is one of"),
        ({"checksum": "crc32"}, "checksum is one of"),
        ({"connect_timeout": 0}, "connect_timeout is a number of seconds"),
        ({"read_timeout": "long"}, "read_timeout is a number of seconds"),
        ({"read_timeout": True}, "read_timeout is a number of seconds"),
        ({"transfer_acceleration": "yes"}, "transfer_acceleration is true or false"),
        ({"multipart_threshold": 1}, "multipart_threshold is a number of bytes"),
        ({"multipart_threshold": 6 << 30}, "multipart_threshold is a number of bytes"),
        ({"storage_class": 1}, "storage_class is text"),
        ({"storage_class": "GLACIER"}, "cannot be read at once"),
        ({"storage_class": "DEEP_ARCHIVE"}, "cannot be read at once"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        S3Options(**options)


def test_bunny_has_no_storage_classes() -> None:
    with pytest.raises(UsageError, match="no storage classes"):
        S3Sync("b", endpoint="de-s3.storage.bunnycdn.com", options=S3Options(storage_class="STANDARD"))


# Acceleration.


def test_acceleration_is_another_host() -> None:
    with S3Sync(
        "bucket", region="eu-west-1", credentials=KEYS, options=S3Options(transfer_acceleration=True)
    ) as bucket:
        assert bucket.signed_url("k", 60).startswith("https://bucket.s3-accelerate.amazonaws.com/k?")
    with S3Sync("bucket", region="eu-west-1", credentials=KEYS) as bucket:
        assert bucket.signed_url("k", 60).startswith("https://bucket.s3.eu-west-1.amazonaws.com/k?")
    with S3Sync("my.bucket", region="eu-west-1", credentials=KEYS) as bucket:
        assert bucket.signed_url("k", 60).startswith("https://s3.eu-west-1.amazonaws.com/my.bucket/k?")


@pytest.mark.parametrize(
    ("name", "endpoint", "addressing", "words"),
    [
        ("my.bucket", None, "auto", "no dots"),
        ("bucket", None, "path", "the bucket's name in the host's name"),
        ("bucket", "https://s3.eu-west-1.amazonaws.com", "auto", "no transfer acceleration"),
        ("bucket", "https://nyc3.digitaloceanspaces.com", "auto", "no transfer acceleration"),
    ],
)
def test_acceleration_has_conditions(name: str, endpoint: str | None, addressing: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        S3Sync(name, endpoint=endpoint, options=S3Options(transfer_acceleration=True, addressing=addressing))


# Addresses.


def test_addresses() -> None:
    assert S3Sync("b", endpoint="s3.example.org/").get_public_url("a b") == "https://s3.example.org/b/a%20b"
    assert S3Sync("b", region="eu-west-1").get_public_url("k") == "https://b.s3.eu-west-1.amazonaws.com/k"
    assert S3Sync("my.bucket").get_public_url("k") == "https://s3.amazonaws.com/my.bucket/k"
    assert S3Sync("b", region="cn-north-1").get_public_url("k") == "https://b.s3.cn-north-1.amazonaws.com.cn/k"
    assert S3Sync("b").location == "s3://b"
    virtual = S3Options(addressing="virtual")
    assert S3Sync("b", endpoint="http://host:9", options=virtual).get_public_url("ü") == "http://b.host:9/%C3%BC"


def test_a_cdn_stands_in_front() -> None:
    bucket = S3Sync(
        "b", endpoint="s3.example.org", options=S3Options(cdn_url="https://cdn.example.org/", max_workers=3)
    )
    assert isinstance(bucket.cdn, CdnReader)
    assert bucket.get_public_url("a b") == "https://cdn.example.org/a%20b"
    with pytest.raises(UsageError, match="address of a CDN"):
        S3Sync("b", options=S3Options(cdn_url="ftp://cdn"))


# What the environment and profiles say.


def test_an_endpoint_in_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://nyc3.digitaloceanspaces.com")
    assert not S3Sync("b").capabilities.conditional_put
    assert S3Sync("b").location == "s3://b?endpoint=https://nyc3.digitaloceanspaces.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert S3Sync("b").location == "s3://b?endpoint=http://127.0.0.1:9"
    assert S3Sync("b", endpoint="host").location == "s3://b?endpoint=https://host"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert S3Sync("b").location == "s3://b"


def test_an_endpoint_in_a_profile_is_not_taken_for_aws(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = eu-west-1\nendpoint_url = https://s3.example.org\n")
    options = S3Options(profile="other")
    with pytest.raises(UsageError, match="names another endpoint") as caught:
        S3Sync("b", credentials=KEYS, options=options).get("k")
    assert "endpoint" in (caught.value.hint or "")
    (tmp_path / "config").write_text("[profile other]\nregion = eu-west-1\n")
    assert S3Sync("b", credentials=KEYS, options=options)._s3().meta.region_name == "eu-west-1"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_a_region_in_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "eu-north-1")
    assert S3Sync("b", credentials=KEYS)._s3().meta.region_name == "eu-north-1"
    assert S3Sync("b", region="eu-west-1", credentials=KEYS)._s3().meta.region_name == "eu-west-1"
    assert S3Sync("b", endpoint="nyc3.digitaloceanspaces.com", credentials=KEYS)._s3().meta.region_name == "nyc3"


def test_secrets_are_in_no_repr() -> None:
    bucket = S3Sync("b", endpoint="host", credentials=KEYS)
    shown = f"{bucket!r} {bucket.location} {bucket._connection!r} {bucket.admin!r} {bucket._where!r}"
    assert "SECRETTEXT" not in shown
    assert "AKIDTEXT" not in shown


# What the pages say.

DOCS = Path(__file__).parents[2] / "docs" / "providers"


def test_the_page_names_every_preset_and_no_other() -> None:
    table = (DOCS / "s3.md").read_text(encoding="utf-8").partition("## Compatible servers")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.strip("| ").split("|")] for row in table.splitlines() if row.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == [*PRESETS]
    for row in rows:
        preset = PRESETS[row[0].strip("`")]
        assert row[4].replace("-", "").lower().startswith(preset.checksum), row
        rate = f"{preset.capabilities.requests_per_second:,.0f} requests/s" if preset.capabilities.burst > 1 else ""
        assert row[5:6] == [] if not rate else row[5].startswith(rate), row


def test_the_page_names_every_setting() -> None:
    text = (DOCS / "s3.md").read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named | {"max_workers"} == {field.name for field in fields(S3Options)} - {"addressing"} | {
        *("path_style", "max_workers"),
    }


def test_the_rules_and_policies_of_the_page_are_sound() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", (DOCS / "s3.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    policy, rules = map(json.loads, blocks)
    assert [harm(rule) for rule in rules] == [None, None]
    allowed = {action for part in policy["Statement"] for action in [part["Action"]] if isinstance(action, str)}
    assert allowed == {"s3:ListBucket", "s3:DeleteObject"}
    deletes = next(part for part in policy["Statement"] if part["Action"] == "s3:DeleteObject")
    assert all(re.search(r"/_buckia/(tips|segments)/\*$", resource) for resource in deletes["Resource"])
    assert all("Condition" not in part for part in policy["Statement"])


def test_the_page_of_linode_names_every_older_cluster() -> None:
    text = (DOCS / "linode.md").read_text(encoding="utf-8").partition("## Which host")[2].partition("```")[0]
    assert set(re.findall(r"`([a-z]{2}-[a-z]+-\d)`(?= [A-Z])", text)) == OLDER_CLUSTERS
