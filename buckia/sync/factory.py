"""Providers by name: the ones of this package, those of other packages, and those that a program registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from buckia.errors import UsageError
from buckia.sync.base import BaseSync

ENTRY_POINTS = "buckia.backends"
"""Group in which other packages announce a function from `BackendConfig` to `BaseSync`, by provider."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """All that an adapter may need. Credentials never appear in a repr."""

    provider: str
    bucket_name: str
    region: str | None = None
    endpoint: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_workers: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What only this provider knows, by name; unknown names are refused."""
    directory: Path = Path()
    """Where the configuration lies: relative paths in it count from there."""


Make = Callable[[BackendConfig], BaseSync]

_memory_buckets: dict[str, BaseSync] = {}
"""Buckets in memory live as long as the process: all that name one share it."""


def _local(config: BackendConfig) -> BaseSync:
    from buckia.sync.local import LocalSync

    settings = _settings(config, {"durable"})
    if not isinstance(settings.get("durable", True), bool):
        raise UsageError("The setting durable is true or false.")
    return LocalSync(Path(config.bucket_name), **settings)


def _memory(config: BackendConfig) -> BaseSync:
    from buckia.sync.memory import MemorySync

    _settings(config, set())
    known = _memory_buckets.get(config.bucket_name)
    if known is None:
        known = _memory_buckets[config.bucket_name] = MemorySync(config.bucket_name)
    return known


def _s3(config: BackendConfig) -> BaseSync:
    from buckia.sync.s3 import S3Options, S3Sync

    return S3Sync(config.bucket_name, options=_options(config, S3Options), **_where(config))


def _linode(config: BackendConfig) -> BaseSync:
    from buckia.sync.linode import LinodeSync
    from buckia.sync.s3 import S3Options

    return LinodeSync(config.bucket_name, options=_options(config, S3Options), **_where(config))


def _b2(config: BackendConfig) -> BaseSync:
    from buckia.sync.b2 import B2Options, B2Sync

    return B2Sync(config.bucket_name, options=_options(config, B2Options, b2_delete="delete"), **_where(config))


def _bunny(config: BackendConfig) -> BaseSync:
    from buckia.sync.bunny import BunnyOptions, BunnySync

    settings = dict(config.settings)
    zone = settings.pop("storage_zone", config.bucket_name)
    if not isinstance(zone, str):
        raise UsageError("The setting storage_zone is text.")
    options = _options(replace(config, settings=settings), BunnyOptions)
    return BunnySync(zone, options=options, **_where(config))


Options = TypeVar("Options")


def _options(config: BackendConfig, kind: Callable[..., Options], **names: str) -> Options:
    """An adapter's options from settings of the same names, or of those that stand for them in ``names``."""
    known = {field.name for field in fields(kind)} - {"max_workers", *names.values()}  # type: ignore[arg-type]
    given = _settings(config, known | names.keys())
    # One more than work at a time: a request in the foreground finds a connection, too.
    return kind(max_workers=config.max_workers + 1, **{names.get(name, name): value for name, value in given.items()})


def _where(config: BackendConfig) -> dict[str, Any]:
    return {"region": config.region, "endpoint": config.endpoint, "credentials": config.credentials}


_OWN: dict[str, Make] = {
    "b2": _b2,
    "bunny": _bunny,
    "linode": _linode,
    "local": _local,
    "memory": _memory,
    "s3": _s3,
}
_registered: dict[str, Make] = {}


def register(provider: str, make: Make) -> None:
    """Makes a provider known in this process. Names of this package cannot be taken."""
    if provider in _OWN:
        raise UsageError(f"The provider {provider} is buckia's own.")
    _registered[provider] = make


def known_providers() -> list[str]:
    """Names that `create_sync_backend` takes, sorted."""
    return sorted({*_OWN, *_registered, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def create_sync_backend(config: BackendConfig) -> BaseSync:
    """The adapter of ``config.provider``; the bucket is not asked yet.

    Raises `UsageError` for an unknown provider or setting, `MissingExtraError` where a package is missing.
    """
    provider = config.provider
    make = _registered.get(provider) or _OWN.get(provider) or _announced(provider)
    if make is None:
        raise UsageError(f"There is no provider {provider!r}.", hint=f"Available: {', '.join(known_providers())}.")
    if not config.bucket_name:
        raise UsageError("A bucket needs a name.")
    backend = make(config)
    # The id of a key is no secret, and at some providers the bucket's own name.
    backend.mask(value for name, value in config.credentials.items() if not name.endswith("_id"))
    return backend


def _announced(provider: str) -> Make | None:
    for point in entry_points(group=ENTRY_POINTS, name=provider):
        make: Make = point.load()
        return make
    return None


def _settings(config: BackendConfig, known: set[str]) -> dict[str, Any]:
    unknown = sorted(config.settings.keys() - known)
    if unknown:
        raise UsageError(f"The provider {config.provider} has no setting {', '.join(unknown)}.")
    return dict(config.settings)
