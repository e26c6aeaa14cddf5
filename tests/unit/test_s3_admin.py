"""Verbs for whole buckets: rules that would lose a folder are refused, hidden versions go in an order that brings
nothing back, and what a server lacks is said.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from buckia.errors import AccessDenied, BucketError, ObjectNotFound, RefusedError, UsageError
from buckia.sync.s3_admin import S3Admin, harm
from buckia.sync.s3_errors import Where
from buckia.sync.s3_presets import PRESETS

THEN = datetime(2026, 1, 1, tzinfo=UTC)


class Api:
    """Answers what it was told by operation, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, verb: str, operation: str, key: str = "", **about: Any) -> Any:
        self.asked.append((operation, key, about))
        answer = self.answers.get(operation, {})
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return answer.pop(0)
        return answer

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _, _ in self.asked]


def _admin(api: Api, **changes: Any) -> S3Admin:
    return S3Admin(Where("s3://bucket", "bucket"), api, **changes)


# Lifecycle.


def _rule(prefix: str | None = None, **action: Any) -> dict[str, Any]:
    rule = {"ID": "r", "Status": "Enabled", **(action or {"Expiration": {"Days": 30}})}
    return rule if prefix is None else {"Filter": {"Prefix": prefix}, **rule}


@pytest.mark.parametrize(
    "prefix",
    [
        *(None, "", "t", "team", "team/", "logs/", "logs/2026/", "team/photos", "a/b/c/"),
        *("_", "_buck", "_buckia", "_buckia/", "_buckia/packs/", "team/_buckia", "team/_buckia/", "team/_bu"),
        *("team/_buckia/packs/aa/", "team/_buckia/tips/", "a/b/_buckia/journal/", "team/_buckia/anything"),
    ],
)
def test_a_rule_that_reaches_a_folder_is_harmful(prefix: str | None) -> None:
    assert harm(_rule(prefix)) is not None


@pytest.mark.parametrize(
    "prefix",
    [
        *("_buckia2", "_buckia-old/", "_buckia.tmp/x", "team/_buckia-tmp", "team/_buckiax/", "team/_buckiax/logs/"),
        *("/logs/", "logs//", "./x", "../", "a/../b/"),
    ],
)
def test_a_rule_that_can_reach_none_is_not(prefix: str) -> None:
    assert harm(_rule(prefix)) is None


@pytest.mark.parametrize(
    "action",
    [
        {"Expiration": {"Days": 1}},
        {"Expiration": {"Date": "2030-01-01"}},
        {"Expiration": {"Date": THEN}},
        {"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
        {"Transitions": [{"Days": 1, "StorageClass": "STANDARD_IA"}, {"Days": 9, "StorageClass": "DEEP_ARCHIVE"}]},
        {"Transition": {"Days": 1, "StorageClass": "GLACIER"}},
        {"Transitions": [{"Days": 1, "StorageClass": "SOMETHING_NEW"}]},
        {"Expiration": {"Days": 1}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
    ],
)
def test_actions_that_harm(action: dict[str, Any]) -> None:
    assert harm(_rule("", **action)) is not None


@pytest.mark.parametrize(
    "action",
    [
        {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        {"Expiration": {"ExpiredObjectDeleteMarker": True}},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "DEEP_ARCHIVE"}]},
        {"Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}]},
        {"Transitions": [{"Days": 1, "StorageClass": "INTELLIGENT_TIERING"}]},
        {"Transitions": []},
        {"Expiration": {"Days": 1}, "Status": "Disabled"},
    ],
)
def test_actions_that_do_not(action: dict[str, Any]) -> None:
    assert harm(_rule("", **action)) is None


@pytest.mark.parametrize(
    ("where", "harmful"),
    [
        ({}, True),
        ({"Filter": {}}, True),
        ({"Filter": {"Tag": {"Key": "temporary", "Value": "yes"}}}, False),
        ({"Filter": {"And": {"Prefix": "team/", "Tags": [{"Key": "a", "Value": "b"}]}}}, False),
        ({"Filter": {"And": {"Prefix": "team/", "ObjectSizeGreaterThan": 1}}}, True),
        ({"Filter": {"And": {"Prefix": "_buckia-old/", "ObjectSizeGreaterThan": 1}}}, False),
        ({"Filter": {"ObjectSizeLessThan": 100}}, True),
        ({"Prefix": "team/_buckia/"}, True),
        ({"Prefix": "team/_buckiax/"}, False),
        ({"Prefix": ""}, True),
        ({"Filter": "everything"}, True),
        ({"Filter": {"And": []}}, True),
    ],
)
def test_where_a_rule_reaches(where: dict[str, Any], harmful: bool) -> None:
    assert (harm({**_rule(), **where}) is not None) is harmful


def test_harmful_rules_are_refused_until_forced() -> None:
    api = Api()
    admin = _admin(api)
    good, bad = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}}, _rule("logs/")
    with pytest.raises(RefusedError, match="rule r removes objects under “logs/”") as caught:
        admin.set_lifecycle([good, bad])
    assert "force" in (caught.value.hint or "")
    with pytest.raises(RefusedError, match=r"rule 1 .*whole bucket"):
        admin.set_lifecycle([{"Expiration": {"Days": 1}}])
    with pytest.raises(UsageError):
        admin.set_lifecycle(["everything"])  # type: ignore[list-item]
    assert not api.asked
    admin.set_lifecycle([good])
    admin.set_lifecycle([good, bad], force=True)
    assert [about["LifecycleConfiguration"]["Rules"] for _, _, about in api.asked] == [[good], [good, bad]]
    admin.set_lifecycle([])
    assert api.operations[-1] == "delete_bucket_lifecycle"


def test_dates_of_rules_can_be_printed() -> None:
    api = Api(get_bucket_lifecycle_configuration={"Rules": [{"Expiration": {"Date": THEN}, "Transitions": [THEN]}]})
    assert _admin(api).get_lifecycle() == [
        {"Expiration": {"Date": "2026-01-01T00:00:00+00:00"}, "Transitions": ["2026-01-01T00:00:00+00:00"]}
    ]


# What is not there.


def test_what_was_never_set_is_nothing() -> None:
    nothing = ObjectNotFound("no such thing")
    names = ("get_bucket_policy", "get_bucket_cors", "get_bucket_lifecycle_configuration", "delete_bucket_policy")
    admin = _admin(Api(**dict.fromkeys(names, nothing)))
    assert (admin.get_policy(), admin.get_cors(), admin.get_lifecycle()) == (None, [], [])
    admin.delete_policy()


def test_a_refusal_is_not_nothing() -> None:
    admin = _admin(Api(get_bucket_policy=AccessDenied("no"), get_bucket_cors=BucketError("broken")))
    with pytest.raises(AccessDenied):
        admin.get_policy()
    with pytest.raises(BucketError):
        admin.get_cors()


def test_a_policy_that_is_no_json() -> None:
    with pytest.raises(BucketError, match="no JSON"):
        _admin(Api(get_bucket_policy={"Policy": "<xml>"})).get_policy()


VERBS: dict[str, list[Callable[[S3Admin], object]]] = {
    "policy": [lambda a: a.get_policy(), lambda a: a.set_policy({}), lambda a: a.delete_policy()],
    "acl": [lambda a: a.get_acl(), lambda a: a.set_acl("private")],
    "acceleration": [lambda a: a.get_acceleration(), lambda a: a.set_acceleration(True)],
    "cors": [lambda a: a.get_cors(), lambda a: a.set_cors([])],
    "lifecycle": [lambda a: a.get_lifecycle(), lambda a: a.set_lifecycle([])],
    "metadata": [lambda a: a.get_metadata("k"), lambda a: a.set_metadata("k", {})],
    "versions": [lambda a: a.list_hidden(), lambda a: a.delete_hidden()],
}


@pytest.mark.parametrize("word", VERBS)
def test_what_a_server_lacks_is_said_without_asking_it(word: str) -> None:
    api = Api()
    for verb in VERBS[word]:
        with pytest.raises(UsageError, match=r"^s3://bucket has no ") as caught:
            verb(_admin(api, lacks=frozenset({word})))
        assert "provider" in (caught.value.hint or "")
    assert not api.asked


def test_every_word_of_the_presets_is_one_of_ours() -> None:
    assert set.union(*(set(preset.lacks) for preset in PRESETS.values())) <= {*VERBS, "storage_class"}


def test_lists_of_rights_have_names() -> None:
    with pytest.raises(UsageError, match="publik") as caught:
        _admin(Api()).set_acl("publik")
    assert "public-read" in (caught.value.hint or "")


# Metadata.


def test_metadata_is_replaced_and_nothing_else() -> None:
    head = {"ETag": '"e"', "ContentType": "text/plain", "StorageClass": "STANDARD_IA", "Metadata": {"a": "b"}}
    api = Api(head_object=head)
    admin = _admin(api)
    assert admin.get_metadata("k") == {"a": "b"}
    admin.set_metadata("k", {"colour": "red"})
    operation, key, about = api.asked[-1]
    assert (operation, key) == ("copy_object", "k")
    assert about == {
        "CopySource": {"Bucket": "bucket", "Key": "k"},
        "CopySourceIfMatch": '"e"',
        "Metadata": {"colour": "red"},
        "MetadataDirective": "REPLACE",
        "ContentType": "text/plain",
        "StorageClass": "STANDARD_IA",
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"a b": "x"},
        {"": "x"},
        {"a:b": "x"},
        {"a": "ü"},
        {"a": "x\r\nEvil: yes"},
        {"a": " x"},
        {"a": "x" * 2048},
        {"a": "x", "A": "y"},
    ],
)
def test_metadata_that_headers_cannot_hold(metadata: dict[str, str]) -> None:
    api = Api()
    with pytest.raises(UsageError):
        _admin(api).set_metadata("k", metadata)
    assert not api.asked


def test_metadata_of_unsafe_keys() -> None:
    for verb in (lambda a: a.get_metadata("../k"), lambda a: a.set_metadata("a//b", {})):
        with pytest.raises(UsageError):
            verb(_admin(Api()))


# Hidden versions.


def _version(key: str, number: int, **changes: Any) -> dict[str, Any]:
    return {"Key": key, "VersionId": f"{key}{number}", "LastModified": THEN, "IsLatest": False, "Size": 1, **changes}


def _pages() -> list[dict[str, Any]]:
    return [
        {
            "Versions": [_version("a", 2, IsLatest=True), _version("a", 1)],
            "DeleteMarkers": [_version("b", 3, IsLatest=True)],
            "IsTruncated": True,
            "NextKeyMarker": "b",
            "NextVersionIdMarker": "b3",
        },
        {"Versions": [_version("b", 2), _version("b", 1)], "DeleteMarkers": [_version("c", 2)], "IsTruncated": False},
    ]


def test_hidden_versions_are_listed() -> None:
    api = Api(list_object_versions=_pages())
    found = _admin(api).list_hidden("x/")
    assert [(item["id"], item["hidden"]) for item in found] == [
        *(("a1", False), ("b3", True), ("b2", False), ("b1", False), ("c2", True)),
    ]
    assert found[0] == {"key": "a", "id": "a1", "size": 1, "time": THEN.timestamp(), "hidden": False}
    assert [about for _, _, about in api.asked] == [
        {"Prefix": "x/"},
        {"Prefix": "x/", "KeyMarker": "b", "VersionIdMarker": "b3"},
    ]


@pytest.mark.parametrize("batch", [0, 1, 2, 1000])
def test_markers_go_last_and_what_is_current_stays(batch: int) -> None:
    api = Api(list_object_versions=_pages())
    assert _admin(api, batch=batch).delete_hidden() == 5
    order: list[str] = []
    for operation, key, about in api.asked:
        if operation == "delete_object":
            assert about["VersionId"].startswith(key)
            order.append(about["VersionId"])
        elif operation == "delete_objects":
            assert len(about["Delete"]["Objects"]) <= batch
            order += [item["VersionId"] for item in about["Delete"]["Objects"]]
    assert sorted(order) == ["a1", "b1", "b2", "b3", "c2"]
    assert {*order[-2:]} == {"b3", "c2"}


def test_markers_stay_if_a_version_does() -> None:
    failed = {"Errors": [{"Key": "b", "VersionId": "b1", "Code": "AccessDenied", "Message": "no"}]}
    api = Api(list_object_versions=_pages(), delete_objects=[failed])
    with pytest.raises(AccessDenied, match="may not delete b"):
        _admin(api).delete_hidden()
    assert api.operations.count("delete_objects") == 1


def test_a_listing_of_versions_that_cannot_go_on() -> None:
    with pytest.raises(BucketError, match="not where"):
        _admin(Api(list_object_versions={"IsTruncated": True})).list_hidden()


# Uploads.


def test_open_uploads_are_listed_and_ended() -> None:
    uploads = [{"Key": key, "UploadId": f"u{key}", "Initiated": THEN} for key in ("a", "b//c")]
    api = Api(list_multipart_uploads={"Uploads": uploads}, abort_multipart_upload=ObjectNotFound("ended by now"))
    admin = _admin(api)
    assert admin.list_uploads("x") == [
        {"key": "a", "id": "ua", "time": THEN.timestamp()},
        {"key": "b//c", "id": "ub//c", "time": THEN.timestamp()},
    ]
    assert admin.abort_uploads() == 2
    assert [(operation, key) for operation, key, _ in api.asked[-2:]] == [
        ("abort_multipart_upload", "a"),
        ("abort_multipart_upload", "b//c"),
    ]
