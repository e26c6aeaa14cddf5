"""Backblaze B2 for tests, in memory: `B2Cloud` is an account without a wire, `B2Server` the same over HTTP.

A cloud makes buckets and application keys. `B2Cloud.sync` is an adapter that calls b2sdk's simulator directly, and
`B2Server.sync` one that talks to it through b2sdk's HTTP client. Any number of both may share one cloud.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from buckia.sync.b2 import B2Options, B2Sync
from tests.servers.b2.server import WireServer
from tests.servers.b2.simulator import Simulator

__all__ = ["SYNC", "B2Bucket", "B2Cloud", "B2Server", "Version", "shared"]

SYNC = ("listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles")
"""Capabilities of a key that may sync, and delete versions."""


@dataclass(frozen=True)
class Version:
    """One version of a name, as a test sees it behind the adapter's back."""

    name: str
    action: str
    """``upload``, ``hide``, or ``start`` while it is uploaded in parts."""
    data: bytes | None
    info: dict[str, str] = field(default_factory=dict)


class B2Bucket:
    """A bucket, and an application key for it."""

    def __init__(self, cloud: B2Cloud, name: str, bucket_id: str, credentials: dict[str, str]) -> None:
        self._cloud = cloud
        self.name = name
        self.bucket_id = bucket_id
        self.credentials = credentials

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with the credentials."""
        return {
            "B2_APPLICATION_KEY_ID": self.credentials["access_key_id"],
            "B2_APPLICATION_KEY": self.credentials["secret_access_key"],
        }

    def versions(self) -> list[Version]:
        """All versions, by name, each name's newest first."""
        files = sorted(self.simulated.file_name_and_id_to_file.items())
        return [Version(name, file.action, file.data_bytes, dict(file.file_info)) for (name, _), file in files]

    def names(self) -> list[str]:
        """The names that a listing shows."""
        return [entry["fileName"] for entry in self.simulated.list_file_names(self._cloud.token, None, 10_000)["files"]]

    @property
    def simulated(self) -> Any:
        """The bucket of the simulator."""
        return self._cloud.simulator.bucket_id_to_bucket[self.bucket_id]


class B2Cloud:
    """One account. ``simulator`` is b2sdk's raw API in memory; ``token`` one with which everything is allowed."""

    def __init__(self) -> None:
        self.simulator = Simulator()
        self._numbers = itertools.count()
        self.account_id, self._master_key = self.simulator.create_account()
        self.token: str = self.simulator.authorize_account("", self.account_id, self._master_key)["authorizationToken"]

    @property
    def master(self) -> dict[str, str]:
        """Credentials with which everything is allowed."""
        return {"access_key_id": self.account_id, "secret_access_key": self._master_key}

    def fresh_bucket(self, name: str | None = None) -> B2Bucket:
        """A new, empty bucket with a key for everything a sync does."""
        name = name or f"test-{secrets.token_hex(6)}"
        url = self.simulator.API_URL
        bucket = self.simulator.create_bucket(url, self.token, self.account_id, name, "allPrivate")
        return B2Bucket(self, name, bucket["bucketId"], self.key(SYNC, [bucket["bucketId"]]))

    def key(
        self, capabilities: Sequence[str] = SYNC, bucket_ids: Sequence[str] | None = None, prefix: str | None = None
    ) -> dict[str, str]:
        """Credentials of a new application key."""
        made = self.simulator.create_key(
            self.simulator.API_URL,
            self.token,
            self.account_id,
            list(capabilities),
            f"key-{next(self._numbers)}",
            None,
            None if bucket_ids is None else list(bucket_ids),
            prefix,
        )
        return {"access_key_id": made["applicationKeyId"], "secret_access_key": made["applicationKey"]}

    def sync(
        self, bucket: B2Bucket, *, credentials: dict[str, str] | None = None, options: B2Options | None = None
    ) -> B2Sync:
        """An adapter that calls the simulator."""
        return B2Sync(bucket.name, credentials=credentials or bucket.credentials, options=options, api=self.simulator)

    def expire_tokens(self) -> None:
        """All tokens that keys got so far are refused from now on."""
        self.simulator.expired_auth_tokens.update({*self.simulator.auth_token_to_key} - {self.token})


class B2Server(WireServer):
    """A cloud behind HTTP on 127.0.0.1, from its construction to `stop` or the end of its ``with`` block."""

    def __init__(self, cloud: B2Cloud | None = None) -> None:
        self.cloud = cloud or B2Cloud()
        super().__init__(self.cloud.simulator)

    def fresh_bucket(self, name: str | None = None) -> B2Bucket:
        """See `B2Cloud.fresh_bucket`."""
        return self.cloud.fresh_bucket(name)

    def sync(
        self, bucket: B2Bucket, *, credentials: dict[str, str] | None = None, options: B2Options | None = None
    ) -> B2Sync:
        """An adapter that talks to this server."""
        return B2Sync(bucket.name, endpoint=self.url, credentials=credentials or bucket.credentials, options=options)


@cache
def shared() -> B2Server:
    """The server of this test run, for tests that let nothing fail on it; everybody takes a `fresh_bucket`."""
    return B2Server()
