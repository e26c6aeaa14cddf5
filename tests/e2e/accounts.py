"""Which real accounts the environment names, and how to reach and to clean them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buckia import BucketConfig, BuckiaClient
from buckia.client.runtime import SystemClock
from buckia.store.probe import PREFIX as PROBES
from buckia.store.transfer import Transfer
from buckia.sync.factory import BackendConfig, create_sync_backend

PREFIX = "buckia-e2e"
"""Under which all folders of the runs lie."""

_KEYS: Mapping[str, Mapping[str, str]] = {
    "s3": {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"},
    "linode": {"access_key_id": "LINODE_CLI_OBJ_ACCESS_KEY", "secret_access_key": "LINODE_CLI_OBJ_SECRET_KEY"},
    "b2": {"access_key_id": "B2_APPLICATION_KEY_ID", "secret_access_key": "B2_APPLICATION_KEY"},
    "bunny": {"storage_api_key": "BUNNY_STORAGE_API_KEY"},
}
"""Secrets by provider, and the variables that hold them."""
_OPTIONAL: Mapping[str, Mapping[str, str]] = {"s3": {"session_token": "AWS_SESSION_TOKEN"}}

PROVIDERS = tuple(_KEYS)


def missing(provider: str, environment: Mapping[str, str]) -> list[str]:
    """The variables without which there is no account; empty ones count as missing."""
    needed = [f"BUCKIA_E2E_{provider.upper()}_BUCKET", *_KEYS[provider].values()]
    if provider == "linode" and not environment.get("BUCKIA_E2E_LINODE_ENDPOINT"):
        needed.append("BUCKIA_E2E_LINODE_REGION")
    return [name for name in needed if not environment.get(name)]


@dataclass(frozen=True, slots=True)
class Account:
    """A bucket at a provider. ``settings`` are keys of a bucket entry; credentials are never shown."""

    provider: str
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Account({self.provider!r})"

    @classmethod
    def of(cls, provider: str, environment: Mapping[str, str]) -> Account:
        """What the environment names; nothing of it may be `missing`."""
        own = f"BUCKIA_E2E_{provider.upper()}_"
        settings: dict[str, Any] = {"provider": provider, "bucket_name": environment[f"{own}BUCKET"]}
        for name in ("region", "endpoint"):
            if value := environment.get(own + name.upper()):
                settings[name] = value
        names = {**_KEYS[provider], **_OPTIONAL.get(provider, {})}
        found = {secret: environment.get(variable) for secret, variable in names.items()}
        settings["credentials"] = {secret: value for secret, value in found.items() if value}
        return cls(provider, settings)

    @contextmanager
    def device(self, name: str, folder: str, base: Path) -> Iterator[tuple[BuckiaClient, Path]]:
        """A client with a state of its own, and its directory, for one folder below `PREFIX`."""
        config = BucketConfig(folders=[folder], prefix=PREFIX, **self.settings)
        root = base / name
        root.mkdir(exist_ok=True)
        with BuckiaClient(config, state_dir=base / f"state-{name}", device_name=name) as client:
            yield client, root

    @contextmanager
    def transfer(self) -> Iterator[Transfer]:
        """Requests to the bucket itself, with retries."""
        settings = dict(self.settings)
        with (
            create_sync_backend(BackendConfig(**settings)) as backend,
            Transfer(
                backend,
                workers=8,
                retries=3,
                clock=SystemClock(),
                random=lambda: secrets.randbelow(1000) / 1000,
                cancelled=lambda: False,
            ) as transfer,
        ):
            yield transfer

    def left(self, folder: str | None = None) -> list[str]:
        """Keys of the runs' objects: of one folder, or of all runs, with those of probes."""
        prefixes = [f"{PREFIX}/{folder}/"] if folder else [f"{PREFIX}/", PROBES]
        with self.transfer() as transfer:
            return [info.key for prefix in prefixes for info in transfer.list(prefix)]

    def delete(self, keys: list[str]) -> None:
        """Delete objects, none of which lies outside of what the runs write."""
        if foreign := [key for key in keys if not key.startswith((f"{PREFIX}/", PROBES))]:
            raise AssertionError(f"{foreign[0]} is not of these runs.")
        with self.transfer() as transfer:
            transfer.delete_many(keys)


def new_folder() -> str:
    """A folder's id that no other run has; it begins with the time, so that one can see how old it is."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(10)}"


def from_environment() -> list[Account]:
    """All accounts that the environment names."""
    return [Account.of(provider, os.environ) for provider in PROVIDERS if not missing(provider, os.environ)]
