"""LOCATION: one argument names a bucket folder completely, and says clearly when it does not."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.config import BucketConfig
from buckia.errors import UsageError
from buckia.location import Location, check_folder_id


def test_a_directory_is_bucket_and_folder(tmp_path: Path) -> None:
    location = Location.parse("/a/b/folder/")
    assert (location.provider, location.settings, location.folder) == ("local", {"bucket_name": "/a/b"}, "folder")
    assert location.display == "/a/b/folder"
    assert Location.parse("x/f", base=Path("/base")).settings == {"bucket_name": "/base/x"}
    assert Location.parse("../f", base=tmp_path / "deep").settings == {"bucket_name": str(tmp_path)}
    assert Location.parse(".", base=tmp_path).folder == tmp_path.name


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Location.parse("~/f").display == "/home/me/f"


def test_s3() -> None:
    location = Location.parse("s3://bench/folder?endpoint=http://127.0.0.1:8333&region=us-east-1&path_style=1")
    assert location.folder == "folder"
    assert location.settings == {
        "bucket_name": "bench",
        "endpoint": "http://127.0.0.1:8333",
        "region": "us-east-1",
        "path_style": True,
    }
    assert location.display == "s3://bench/folder?endpoint=http://127.0.0.1:8333&region=us-east-1&path_style=1"
    assert Location.parse("s3://b/f?endpoint=host.example").settings["endpoint"] == "https://host.example"


def test_s3_prefix_and_escapes() -> None:
    location = Location.parse("s3://b/some/pre%20fix/my%20folder/")
    assert location.settings == {"bucket_name": "b", "prefix": "some/pre fix"}
    assert location.folder == "my folder"
    assert location.display == "s3://b/some/pre%20fix/my%20folder"


def test_memory() -> None:
    location = Location.parse("memory://test/f")
    assert (location.provider, location.settings, location.folder) == ("memory", {"bucket_name": "test"}, "f")


@pytest.mark.parametrize("text", ["/a/f", "s3://b/p/f?endpoint=http://h:1/&path_style=no", "memory://n/f%2520"])
def test_the_display_form_means_the_same_and_makes_a_configuration(text: str) -> None:
    location = Location.parse(text)
    assert Location.parse(location.display) == location
    bucket = BucketConfig.for_location(location)
    assert (bucket.provider, bucket.folders) == (location.provider, (location.folder,))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("/", "cannot be a location"),
        ("/a/_buckia", "reserved"),
        ("/a/_BUCKIA-x", "reserved"),
        ("/a/f\n", "white space"),
        ("gs://b/f", "'gs://' is no kind of location"),
        ("s3://b", "names no bucket and folder"),
        ("s3:///f", "names no bucket and folder"),
        ("s3://b/f?endpiont=x", "has no parameter 'endpiont'"),
        ("s3://b/f?region=a&region=b", "stands twice"),
        ("s3://b/f?region=", "is empty"),
        ("s3://b/f?endpoint=ftp://x", "not a host"),
        ("s3://b/f?path_style=perhaps", "must be 1 or 0"),
        ("s3://b/../f", "is no name"),
        ("s3://b/a%2Fb", "without slashes"),
        ("s3://b/f#x", "%23"),
        ("memory://n/a/f", "names no store"),
        ("s3://b/f?region=\udcff", "not valid Unicode"),
        ("s3://b/f?endpoint=h\udcff", "not valid Unicode"),
    ],
)
def test_what_is_no_location(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        Location.parse(text)
    assert part in caught.value.message
    assert caught.value.exit_code == 2


def test_credentials_are_refused_and_not_repeated() -> None:
    for text in ("s3://KEY:HUSH@b/f", "s3://b/f?endpoint=http://u:HUSH@h"):
        with pytest.raises(UsageError, match="credentials") as caught:
            Location.parse(text)
        assert "HUSH" not in f"{caught.value.message}{caught.value.hint}"


def test_a_misspelt_parameter_is_met_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        Location.parse("s3://b/f?endpiont=x")
    assert caught.value.hint == "Did you mean 'endpoint'?"


@given(st.text(max_size=60) | st.text("s3:/memory.?&=%@#ab_-[]", max_size=40).map(lambda tail: f"s3://{tail}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        location = Location.parse(text, base=Path("/base"))
        assert check_folder_id(location.folder) == location.folder
        assert "/" not in location.folder


@pytest.mark.parametrize(
    ("text", "meant"),
    [("s3:bucket/x", "s3://bucket/x"), ("B2:/bucket/x", "b2://bucket/x"), ("memory:m/x", "memory://m/x")],
)
def test_a_url_without_its_slashes_is_no_directory(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"did you mean {meant}?")) as error:
        Location.parse(text)
    assert error.value.hint is not None
    assert f"./{text}" in error.value.hint
    assert Location.parse(f"./{text}").provider == "local"
    assert Location.parse("odd:name/x").provider == "local"
