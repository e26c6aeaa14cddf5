"""Configuration: what a bucket is, what to sync with it, and how. Reads files; knows no environment and no network."""

from buckia.config.bucket import BucketConfig, MappedRoot
from buckia.config.file import CONFIG_NAMES, BuckiaConfig, find_config
from buckia.config.options import ChecksumAlgorithm, ConflictResolution, SyncOptions

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
