"""Configuration: what a bucket is, what to sync with it, and how. Reads files; knows no environment and no network.

Files and their parsers are loaded when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buckia.config.bucket import BucketConfig, MappedRoot
from buckia.config.options import ChecksumAlgorithm, ConflictResolution, SyncOptions

if TYPE_CHECKING:
    from buckia.config.file import CONFIG_NAMES, BuckiaConfig, find_config

__all__ = [
    "CONFIG_NAMES",
    "BucketConfig",
    "BuckiaConfig",
    "ChecksumAlgorithm",
    "ConflictResolution",
    "MappedRoot",
    "SyncOptions",
    "find_config",
]


def __getattr__(name: str) -> Any:
    """What concerns files, when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from buckia.config import file

    return getattr(file, name)
