"""What S3 offers for whole buckets: rights, CORS and lifecycle rules, metadata, versions, uploads that were left open.

Lifecycle rules are looked at before they are set: a rule that removes objects by age, or moves them to an archive,
breaks every folder that it reaches. `harm` is that judgement, of rules alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from buckia.errors import BucketError, ObjectNotFound, RefusedError, UsageError
from buckia.sync.admin import BucketAdmin, Json, check_rules
from buckia.sync.base import check_key, check_prefix
from buckia.sync.s3_errors import Where, check_deleted
from buckia.sync.s3_multipart import Call, abort_upload, open_uploads

CANNED_ACLS = ("private", "public-read", "public-read-write", "authenticated-read")

_READABLE_CLASSES = (
    *("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"),
)
_OURS = "_buckia"
_METADATA_BYTES_MAX = 2048
_METADATA_NAME = re.compile("[A-Za-z0-9_.-]+")
# What a copy with new metadata would lose: it is sent again.
_KEPT = ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "StorageClass")


def harm(rule: Mapping[str, Any]) -> str | None:
    """What a lifecycle rule would do to objects of a folder, as the end of a sentence; ``None``: nothing.

    Objects of a folder lie at ``[prefix/][folder/]_buckia/...``; they carry no tags, and noncurrent versions of them
    are of no use.
    """
    if rule.get("Status", "Enabled") != "Enabled":
        return None
    where = _mapping(rule.get("Filter"))
    both = _mapping(where.get("And"))
    if where.get("Tag") or both.get("Tags"):
        return None
    prefix = next((str(part["Prefix"]) for part in (where, both, rule) if part.get("Prefix")), "")
    if not _can_hold_a_folder(prefix):
        return None
    reach = f"under “{prefix}”" if prefix else "of the whole bucket"
    if _mapping(rule.get("Expiration")).keys() & {"Days", "Date"}:
        return f"removes objects {reach} by their age"
    for transition in (rule.get("Transition"), *(rule.get("Transitions") or ())):
        target = _mapping(transition).get("StorageClass", "STANDARD")
        if target not in _READABLE_CLASSES:
            return f"moves objects {reach} to {target}, where they cannot be read at once"
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    """What is none counts as empty: the server will say what is wrong with it."""
    return value if isinstance(value, Mapping) else {}


def _can_hold_a_folder(prefix: str) -> bool:
    """Whether a key of a folder may begin so: any folder there may be, now or later."""
    *components, last = prefix.split("/")
    for component in components:
        if component == _OURS:
            return True
        # No key of ours has an empty component, and no folder's name begins like our own.
        if component in ("", ".", "..") or component.startswith(_OURS):
            return False
    return _OURS.startswith(last) or not last.startswith(_OURS)


class S3Admin(BucketAdmin):
    """The verbs of one bucket. ``lacks`` are those that its server is known not to have: ``acl``, ``policy``,
    ``acceleration``, ``cors``, ``lifecycle``, ``metadata``, ``versions``; ``batch`` keys go into one delete request, 0:
    there are none such.
    """

    _words: ClassVar[Mapping[str, str]] = {
        "policy": "bucket policies",
        "acl": "access control lists",
        "acceleration": "transfer acceleration",
        "cors": "CORS rules",
        "lifecycle": "lifecycle rules",
        "metadata": "custom metadata",
        "versions": "hidden versions",
    }

    def __init__(self, where: Where, call: Call, *, lacks: frozenset[str] = frozenset(), batch: int = 1000) -> None:
        super().__init__(where.location)
        self._where = where
        self._call = call
        self._missing = lacks
        self._batch = batch

    def _need(self, what: str) -> None:
        if what in self._missing:
            self._lacks(self._words[what])

    # Who may do what.

    def get_policy(self) -> Json | None:
        """The bucket's policy document, or ``None``."""
        self._need("policy")
        with suppress(ObjectNotFound):
            text = self._call("get", "get_bucket_policy")["Policy"]
            try:
                policy: Json = json.loads(text)
            except ValueError:
                raise BucketError(f"{self.location}: the policy is no JSON.") from None
            return policy
        return None

    def set_policy(self, policy: Json) -> None:
        """Replaces the policy."""
        self._need("policy")
        self._call("put", "put_bucket_policy", Policy=json.dumps(policy))

    def delete_policy(self) -> None:
        """Removes the policy; that there is none is fine."""
        self._need("policy")
        with suppress(ObjectNotFound):
            self._call("delete", "delete_bucket_policy")

    def get_acl(self) -> Json:
        """Owner and grants."""
        self._need("acl")
        answer = self._call("get", "get_bucket_acl")
        return {"owner": answer.get("Owner", {}), "grants": answer.get("Grants", [])}

    def set_acl(self, canned: str) -> None:
        """Sets one of the ready-made lists, `CANNED_ACLS`. New buckets of AWS have none."""
        self._need("acl")
        if canned not in CANNED_ACLS:
            raise UsageError(f"There is no list {canned!r}.", hint=f"Known are: {', '.join(CANNED_ACLS)}.")
        self._call("put", "put_bucket_acl", ACL=canned)

    # How it is reached.

    def get_acceleration(self) -> bool:
        """Whether transfer acceleration is on."""
        self._need("acceleration")
        return bool(self._call("get", "get_bucket_accelerate_configuration").get("Status") == "Enabled")

    def set_acceleration(self, on: bool) -> None:
        """Turns transfer acceleration on or off; it costs extra, and is used with ``transfer_acceleration``."""
        self._need("acceleration")
        status = {"Status": "Enabled" if on else "Suspended"}
        self._call("put", "put_bucket_accelerate_configuration", AccelerateConfiguration=status)

    def get_cors(self) -> Sequence[Json]:
        """Rules for browsers on other origins."""
        self._need("cors")
        with suppress(ObjectNotFound):
            return list(self._call("get", "get_bucket_cors").get("CORSRules", ()))
        return []

    def set_cors(self, rules: Sequence[Json]) -> None:
        """Replaces the CORS rules; none removes them."""
        self._need("cors")
        if rules:
            self._call("put", "put_bucket_cors", CORSConfiguration={"CORSRules": [*rules]})
        else:
            self._call("delete", "delete_bucket_cors")

    # What becomes of objects.

    def get_lifecycle(self) -> Sequence[Json]:
        """Lifecycle rules, in the words of S3."""
        self._need("lifecycle")
        with suppress(ObjectNotFound):
            rules = self._call("get", "get_bucket_lifecycle_configuration").get("Rules", ())
            return [_with_dates_as_text(rule) for rule in rules]
        return []

    def set_lifecycle(self, rules: Sequence[Json], *, force: bool = False) -> None:
        """Replaces the lifecycle rules; none removes them. Raises `RefusedError` for a rule that reaches objects which
        a folder may need (see `harm`), unless ``force``.
        """
        self._need("lifecycle")
        check_rules(rules, "lifecycle")
        for number, rule in enumerate(rules, 1):
            found = None if force else harm(rule)
            if found is not None:
                raise RefusedError(
                    f"The lifecycle rule {rule.get('ID') or number} {found}: a folder there would be lost.",
                    hint="Give it a prefix under which no folder can lie, or force it.",
                )
        if rules:
            configuration = {"Rules": [*rules]}
            self._call("put", "put_bucket_lifecycle_configuration", LifecycleConfiguration=configuration)
        else:
            self._call("delete", "delete_bucket_lifecycle")

    def get_metadata(self, key: str) -> Mapping[str, str]:
        """An object's custom metadata."""
        self._need("metadata")
        check_key(key)
        return dict(self._call("stat", "head_object", key).get("Metadata", {}))

    def set_metadata(self, key: str, metadata: Mapping[str, str]) -> None:
        """Replaces an object's custom metadata by copying it onto itself; its bytes, content type and storage class
        stay, an ACL of its own does not. Names are letters, digits and ``_.-``, values are ASCII, 2,048 bytes in all.
        """
        self._need("metadata")
        check_key(key)
        _check_metadata(metadata)
        now = self._call("stat", "head_object", key)
        self._call(
            "put",
            "copy_object",
            key,
            CopySource={"Bucket": self._where.bucket, "Key": key},
            CopySourceIfMatch=now["ETag"],
            Metadata=dict(metadata),
            MetadataDirective="REPLACE",
            **{name: now[name] for name in _KEPT if now.get(name)},
        )

    # What listings do not show.

    def list_hidden(self, prefix: str = "") -> Sequence[Json]:
        """Versions that are not current, and the markers of deletions: ``key``, ``id``, ``size``, ``time``, ``hidden``
        (it is a marker).
        """
        return [
            {
                "key": item["Key"],
                "id": item["VersionId"],
                "size": item.get("Size", 0),
                "time": item["LastModified"].timestamp(),
                "hidden": marker,
            }
            for item, marker in self._versions(prefix)
        ]

    def delete_hidden(self, prefix: str = "") -> int:
        """Deletes them for good; how many. What is current stays."""
        markers: list[dict[str, str]] = []
        waiting: list[dict[str, str]] = []
        count = 0
        # Markers go last: without its marker an older version would be current again.
        for item, marker in self._versions(prefix):
            (markers if marker else waiting).append({"Key": item["Key"], "VersionId": item["VersionId"]})
            if len(waiting) == max(1, self._batch):
                count += self._delete_versions(waiting)
                waiting = []
        count += self._delete_versions(waiting)
        for start in range(0, len(markers), max(1, self._batch)):
            count += self._delete_versions(markers[start : start + max(1, self._batch)])
        return count

    def _versions(self, prefix: str) -> Iterator[tuple[Mapping[str, Any], bool]]:
        self._need("versions")
        check_prefix(prefix)
        position: dict[str, Any] = {}
        while True:
            page = self._call("list", "list_object_versions", Prefix=prefix, **position)
            yield from ((item, False) for item in page.get("Versions", ()) if not item.get("IsLatest"))
            yield from ((item, True) for item in page.get("DeleteMarkers", ()))
            if not page.get("IsTruncated"):
                return
            last, position = position, {"KeyMarker": page.get("NextKeyMarker")}
            if page.get("NextVersionIdMarker"):
                position["VersionIdMarker"] = page["NextVersionIdMarker"]
            if not position["KeyMarker"] or position == last:
                raise BucketError(f"{self.location} says that a listing goes on, and not where.")

    def _delete_versions(self, versions: Sequence[dict[str, str]]) -> int:
        if versions and self._batch:
            about = {"Objects": [*versions], "Quiet": True}
            check_deleted(self._call("delete", "delete_objects", Delete=about), self._where)
        else:
            for version in versions:
                self._call("delete", "delete_object", version["Key"], VersionId=version["VersionId"])
        return len(versions)

    def list_uploads(self, prefix: str = "") -> Sequence[Json]:
        """Uploads in parts that were begun and not ended: ``key``, ``id``, ``time``. They cost storage."""
        check_prefix(prefix)
        return [
            {"key": item["Key"], "id": item["UploadId"], "time": item["Initiated"].timestamp()}
            for item in open_uploads(self._call, prefix)
        ]

    def abort_uploads(self, prefix: str = "") -> int:
        """Ends all of those uploads and frees what they hold; how many. One that is going on fails by it."""
        uploads = self.list_uploads(prefix)
        for upload in uploads:
            with suppress(ObjectNotFound):
                abort_upload(self._call, upload["key"], upload["id"])
        return len(uploads)


def _with_dates_as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_dates_as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_dates_as_text(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of metadata.", hint="Names are letters, digits and _ . -")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise UsageError(f"The metadata {name} is not plain ASCII text.", hint="Percent-encode it.")
    if len({name.lower() for name in metadata}) < len(metadata):
        raise UsageError("Names of metadata do not differ by case alone.")
    if sum(len(name) + len(value) for name, value in metadata.items()) > _METADATA_BYTES_MAX:
        raise UsageError(f"Metadata has at most {_METADATA_BYTES_MAX} bytes in all.")
