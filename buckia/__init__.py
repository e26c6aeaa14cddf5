"""Two-way sync of local folders with cloud buckets: deduplicated, with history, restore and verification.

::

    from buckia import BuckiaClient, BucketConfig

    client = BuckiaClient(BucketConfig(provider="s3", bucket_name="my-bucket", folders=["7f2kq4mzd5x3wnc6b7hvtyao2u"]))
    result = client.sync(local_path="./assets")
    print(f"{result.uploaded} uploaded, {result.downloaded} downloaded")

Names are imported when they are first used, so that ``import buckia`` costs nothing. All errors are in `buckia.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buckia.client import BuckiaClient
    from buckia.config import BucketConfig, BuckiaConfig, SyncOptions
    from buckia.errors import (
        AccessDenied,
        AuthenticationError,
        BucketError,
        BucketNotFound,
        BuckiaError,
        BusyError,
        CancelledError,
        ConfigError,
        ConflictsPending,
        ForkError,
        FormatError,
        IntegrityError,
        LocalError,
        MissingExtraError,
        NotFoundError,
        ObjectNotFound,
        PreconditionFailed,
        QuotaExceeded,
        RangeNotSatisfiable,
        RefusedError,
        RollbackError,
        Transient,
        UnsupportedFormatError,
        UsageError,
    )
    from buckia.events import (
        Conflict,
        Damage,
        Difference,
        Failure,
        FileInfo,
        PathVersion,
        RestoreResult,
        Settled,
        SnapshotInfo,
        StatusResult,
        SyncResult,
        VerifyResult,
    )
    from buckia.location import Location

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AuthenticationError",
    "BucketConfig",
    "BucketError",
    "BucketNotFound",
    "BuckiaClient",
    "BuckiaConfig",
    "BuckiaError",
    "BusyError",
    "CancelledError",
    "ConfigError",
    "Conflict",
    "ConflictsPending",
    "Damage",
    "Difference",
    "Failure",
    "FileInfo",
    "ForkError",
    "FormatError",
    "IntegrityError",
    "LocalError",
    "Location",
    "MissingExtraError",
    "NotFoundError",
    "ObjectNotFound",
    "PathVersion",
    "PreconditionFailed",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "RefusedError",
    "RestoreResult",
    "RollbackError",
    "Settled",
    "SnapshotInfo",
    "StatusResult",
    "SyncOptions",
    "SyncResult",
    "Transient",
    "UnsupportedFormatError",
    "UsageError",
    "VerifyResult",
    "__version__",
]

_HOMES = {
    "buckia.client": ("BuckiaClient",),
    "buckia.config": ("BucketConfig", "BuckiaConfig", "SyncOptions"),
    "buckia.location": ("Location",),
    "buckia.events": (
        "Conflict",
        "Damage",
        "Difference",
        "Failure",
        "FileInfo",
        "PathVersion",
        "RestoreResult",
        "Settled",
        "SnapshotInfo",
        "StatusResult",
        "SyncResult",
        "VerifyResult",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'buckia' has no attribute '{name}'")
    value: object = getattr(import_module(_HOME_OF.get(name, "buckia.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
