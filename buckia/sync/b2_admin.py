"""What the owner of a B2 bucket can do to it: lifecycle and CORS rules, versions that are not visible, uploads that
were never finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from buckia.errors import ObjectNotFound, RefusedError
from buckia.sync.admin import BucketAdmin, Json, check_rules
from buckia.sync.b2_account import B2Account

PAGE = 10_000
"""Versions per page: the most."""


class B2Admin(BucketAdmin):
    """The verbs of a B2 bucket. Rules are in B2's own terms; changing them needs the capability ``writeBuckets``."""

    def __init__(self, account: B2Account) -> None:
        super().__init__(account.location)
        self._account = account

    def allowed_prefix(self) -> str:
        """The prefix that the application key is limited to."""
        return self._account.access.prefix

    def get_lifecycle(self) -> Sequence[Json]:
        """Lifecycle rules: ``fileNamePrefix`` and numbers of days."""
        rules: Sequence[Json] = self._account.bucket()["lifecycleRules"]
        return rules

    def set_lifecycle(self, rules: Sequence[Json], *, force: bool = False) -> None:
        """See `BucketAdmin.set_lifecycle`. Refused is ``daysFromUploadingToHiding``: it would take away packs that are
        in use, and folders may lie below any prefix. ``daysFromHidingToDeleting`` frees what was deleted or replaced.
        """
        check_rules(rules, "lifecycle")
        for rule in rules:
            if rule.get("daysFromUploadingToHiding") and not force:
                prefix = rule.get("fileNamePrefix", "")
                raise RefusedError(
                    f"{self.location}: a rule for {prefix!r} would hide objects by their age, also those in use.",
                    hint="Use daysFromHidingToDeleting, which deletes only what is hidden already.",
                )
        self._update(lifecycle_rules=[dict(rule) for rule in rules])

    def get_cors(self) -> Sequence[Json]:
        """CORS rules: ``corsRuleName``, ``allowedOrigins``, ``allowedOperations`` and so on."""
        rules: Sequence[Json] = self._account.bucket()["corsRules"]
        return rules

    def set_cors(self, rules: Sequence[Json]) -> None:
        """Replaces the CORS rules; none removes them."""
        check_rules(rules, "CORS")
        self._update(cors_rules=[dict(rule) for rule in rules])

    def list_hidden(self, prefix: str = "") -> Sequence[Json]:
        """See `BucketAdmin.list_hidden`. ``hidden`` says that the whole name is deleted; otherwise the version was
        replaced by a newer one. Hide markers are versions of 0 bytes.
        """
        return [_row(version, hidden=hidden) for version, hidden in self._hidden(prefix)]

    def delete_hidden(self, prefix: str = "") -> int:
        """See `BucketAdmin.delete_hidden`. Needs the capability ``deleteFiles``; no visible object is touched."""
        found = [version for version, _ in self._hidden(prefix)]
        # Backwards the oldest of a name comes first, so that nothing old is visible in between.
        for version in reversed(found):
            name = version["fileName"]
            with suppress(ObjectNotFound):
                self._account.call("delete_file_version", version["fileId"], name, key=name)
        return len(found)

    def list_uploads(self, prefix: str = "") -> Sequence[Json]:
        """See `BucketAdmin.list_uploads`."""
        return [
            {"key": file["fileName"], "id": file["fileId"], "time": file["uploadTimestamp"] / 1000}
            for file in self._account.unfinished(prefix)
        ]

    def abort_uploads(self, prefix: str = "") -> int:
        """See `BucketAdmin.abort_uploads`."""
        found = [*self._account.unfinished(prefix)]
        for file in found:
            with suppress(ObjectNotFound):
                self._account.call("cancel_large_file", file["fileId"], key=file["fileName"])
        return len(found)

    def _update(self, **changes: Any) -> None:
        self._account.call("update_bucket", self._account.access.account_id, self._account.bucket_id, **changes)

    def _hidden(self, prefix: str) -> Iterator[tuple[Mapping[str, Any], bool]]:
        """Versions that listings do not show, and whether their name is deleted."""
        name, deleted = None, False
        for version in self._account.versions(prefix, PAGE):
            if version["action"] == "start":
                continue  # an upload that goes on is no version yet
            if version["fileName"] == name:
                yield version, deleted
                continue
            name, deleted = version["fileName"], version["action"] == "hide"
            if deleted:
                yield version, True


def _row(version: Mapping[str, Any], *, hidden: bool) -> Json:
    return {
        "key": version["fileName"],
        "id": version["fileId"],
        "size": version["contentLength"],
        "time": version["uploadTimestamp"] / 1000,
        "hidden": hidden,
    }
