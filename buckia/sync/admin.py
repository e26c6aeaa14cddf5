"""What providers can do to a bucket beyond keys and bytes, each verb where its provider has it.

An adapter's ``admin`` is a `BucketAdmin` of its own; what it does not override answers with a `UsageError` that says
so. None of it is needed to sync: these are for whoever runs the bucket. No verb retries; all raise the closed set of
errors of `buckia.sync.base`. Only `purge` may take many requests, and leaves retries to its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from buckia.errors import UsageError

Json = Mapping[str, Any]
Verb = Literal["put", "get", "list", "delete", "stat"]
Attempt = Callable[[Verb, Callable[[], Any]], Any]
"""Makes one request, as often as it takes, and returns what it returned."""


def check_rules(rules: Sequence[Json], kind: str) -> None:
    """Raises `UsageError` unless each rule of a ``kind`` (``lifecycle``) is a mapping: they come from files."""
    for number, rule in enumerate(rules, 1):
        given: object = rule
        if not isinstance(given, Mapping):
            raise UsageError(f"The {kind} rule {number} is no mapping.")


class BucketAdmin:
    """The verbs of one bucket; this class has none of them. ``location`` names the bucket in messages."""

    def __init__(self, location: str) -> None:
        self.location = location

    def _lacks(self, what: str) -> NoReturn:
        raise UsageError(f"{self.location} has no {what}.", hint="Its provider does not offer it.")

    def allowed_prefix(self) -> str:
        """What every key begins with that the credentials may touch, as far as that can be known; mostly nothing."""
        return ""

    # Who may do what: S3 and what speaks its protocol.

    def get_policy(self) -> Json | None:
        """The bucket's policy document, or ``None``."""
        self._lacks("bucket policies")

    def set_policy(self, policy: Json) -> None:
        """Replaces the policy."""
        self._lacks("bucket policies")

    def delete_policy(self) -> None:
        """Removes the policy; that there is none is fine."""
        self._lacks("bucket policies")

    def get_acl(self) -> Json:
        """Owner and grants."""
        self._lacks("access control lists")

    def set_acl(self, canned: str) -> None:
        """Sets one of the ready-made lists: ``private``, ``public-read`` and so on."""
        self._lacks("access control lists")

    # How it is reached.

    def get_acceleration(self) -> bool:
        """Whether transfer acceleration is on."""
        self._lacks("transfer acceleration")

    def set_acceleration(self, on: bool) -> None:
        """Turns transfer acceleration on or off; it costs extra."""
        self._lacks("transfer acceleration")

    def get_cors(self) -> Sequence[Json]:
        """Rules for browsers on other origins."""
        self._lacks("CORS rules")

    def set_cors(self, rules: Sequence[Json]) -> None:
        """Replaces the CORS rules; none removes them."""
        self._lacks("CORS rules")

    # What becomes of objects.

    def get_lifecycle(self) -> Sequence[Json]:
        """Lifecycle rules, in the provider's own terms."""
        self._lacks("lifecycle rules")

    def set_lifecycle(self, rules: Sequence[Json], *, force: bool = False) -> None:
        """Replaces the lifecycle rules; none removes them. Raises `RefusedError` for a rule that would remove objects
        that a folder needs, unless ``force``.
        """
        self._lacks("lifecycle rules")

    def get_metadata(self, key: str) -> Mapping[str, str]:
        """An object's custom metadata."""
        self._lacks("custom metadata")

    def set_metadata(self, key: str, metadata: Mapping[str, str]) -> None:
        """Replaces an object's custom metadata; its bytes stay."""
        self._lacks("custom metadata")

    def list_hidden(self, prefix: str = "") -> Sequence[Json]:
        """Versions that listings do not show: ``key``, ``id``, ``size``, ``time`` (seconds since 1970), ``hidden``."""
        self._lacks("hidden versions")

    def delete_hidden(self, prefix: str = "") -> int:
        """Deletes the hidden versions for good; how many."""
        self._lacks("hidden versions")

    def list_uploads(self, prefix: str = "") -> Sequence[Json]:
        """Uploads in parts that were begun and not ended: ``key``, ``id``, ``time``. They cost storage."""
        self._lacks("uploads in parts")

    def abort_uploads(self, prefix: str = "") -> int:
        """Ends all of those uploads and frees what they hold; how many."""
        self._lacks("uploads in parts")

    # CDN.

    def pull_zone(self) -> Json:
        """The pull zone in front of the bucket: ``id``, ``name``, ``hostnames``, ``storage_zone_id``."""
        self._lacks("pull zone")

    def storage_zone(self) -> Json:
        """The zone that the bucket is: ``id``, ``name``, ``region``, ``replicas``, ``host``, ``pull_zones``."""
        self._lacks("storage zone")

    def purge(self, keys: Sequence[str], *, prefix: bool = False, attempt: Attempt = lambda verb, call: call()) -> int:
        """Makes the CDN forget objects, or with ``prefix`` all whose keys begin so; without keys the whole zone. How
        many purge requests it took; ``attempt`` makes each of them.
        """
        self._lacks("CDN cache to purge")
