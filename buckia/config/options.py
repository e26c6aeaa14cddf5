"""The options of a sync: one value that command-line flags, configuration keys and keyword arguments all become.

The checks here serve all three, so an option means the same and fails alike wherever it is written. They raise
ValueError with a clause that fits behind the option's name.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from buckia.config.words import sentence, suggestion
from buckia.errors import UsageError
from buckia.location import check_folder_id

ConflictResolution = Literal["local_wins", "remote_wins", "newest_wins", "ask"]
"""Which version becomes current when this device's unpublished edit meets an unseen one; the other stays in history."""

ChecksumAlgorithm = Literal["sha256", "md5", "sha1", "blake3"]
"""The digest that is recorded for each file; the identity of content is BLAKE3 always."""

WORKERS_DEFAULT = 8
_WORKERS_FAR = 16
NEAR = ("local", "memory")
"""Providers without a network between: requests there wait for nothing."""
WORKERS_MAX = 1024
RETRIES_DEFAULT = 6
RETRIES_MAX = 100
BYTE_RATE_MIN = 1000
PATTERN_CHARACTERS_MAX = 4096

_BYTE_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(|[kmgt]i?)b?(?:/s)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def default_workers(entry: Mapping[str, Any]) -> int:
    """How many workers a bucket entry has that does not say."""
    return WORKERS_DEFAULT if entry.get("provider") in NEAR else _WORKERS_FAR


def as_number(value: object) -> object:
    """Whole numbers only: neither true nor 8.0 is one; text of digits is, as environment and YAML hand it over."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    return value


def check_workers(value: object) -> int:
    """A number of workers, 1 to ``WORKERS_MAX``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= WORKERS_MAX:
        raise ValueError(f"must be a whole number from 1 to {WORKERS_MAX}")
    return value


def check_retries(value: object) -> int:
    """How often a request that failed for a passing reason is made again: 0 to ``RETRIES_MAX``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= RETRIES_MAX:
        raise ValueError(f"must be a whole number from 0 to {RETRIES_MAX}")
    return value


def check_byte_rate(value: object) -> float:
    """Bytes per second: a number, or text such as ``500 KB``, ``10MB/s`` or ``1.5 MiB``."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    match = _BYTE_RATE.fullmatch(text.strip())
    rate = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not BYTE_RATE_MIN <= rate <= 1e15:
        raise ValueError("must be bytes per second, at least 1 KB, such as 500 KB or 10 MB")
    return rate


def check_positive(value: object) -> float:
    """A number above zero."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise ValueError("must be a number above 0")
    return number


def check_flag(value: object) -> bool:
    """True or false, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def check_pattern(value: object) -> str:
    """A regular expression of Python's ``re``, searched in the path within the folder."""
    if not isinstance(value, str) or len(value) > PATTERN_CHARACTERS_MAX:
        raise ValueError("must be a regular expression")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as problem:
        raise ValueError(f"is no valid regular expression: {problem}") from None
    return value


def check_sync_paths(value: object) -> tuple[str, ...]:
    """Paths within the folder, each without ``.``, ``..`` and trailing slash; ``()`` stands for everything."""
    if isinstance(value, str | os.PathLike):
        value = (value,)
    if not isinstance(value, Iterable):
        raise ValueError("must be a list of paths")
    paths: list[str] = []
    for item in value:
        path = os.fspath(item) if isinstance(item, str | os.PathLike) else ""
        if not isinstance(path, str) or not path or "\0" in path:
            raise ValueError("must be a list of paths")
        if os.sep != "/":
            path = path.replace(os.sep, "/")
        if path.startswith("/"):
            raise ValueError(f"must hold paths relative to the folder, not '{path}'")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ValueError(f"must not leave the folder, as '{path}' does")
        paths.append("/".join(parts))
    return () if "" in paths else tuple(dict.fromkeys(paths))


def check_choice(value: object, allowed: tuple[str, ...]) -> str:
    """One of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        tail = suggestion(value, allowed) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {', '.join(allowed)}{tail}")
    return value


def check_conflict_resolution(value: object) -> str:
    """One of the policies of ``ConflictResolution``."""
    return check_choice(value, get_args(ConflictResolution))


def check_checksum_algorithm(value: object) -> str:
    """One of the digests of ``ChecksumAlgorithm``."""
    return check_choice(value, get_args(ChecksumAlgorithm))


def _check_folder(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be the id of a folder")
    return check_folder_id(value)


_CHECKS: dict[str, Callable[[Any], object]] = {
    "folder": _check_folder,
    "delete_orphaned": check_flag,
    "max_workers": check_workers,
    "include_pattern": check_pattern,
    "exclude_pattern": check_pattern,
    "dry_run": check_flag,
    "sync_paths": check_sync_paths,
    "conflict_resolution": check_conflict_resolution,
    "checksum_algorithm": check_checksum_algorithm,
    "allow_mass_delete": check_flag,
}
_OPTIONAL = ("folder", "include_pattern", "exclude_pattern")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """How one sync behaves. Raises UsageError that names the option if a value makes no sense."""

    folder: str | None = None
    """The one folder of the bucket to work on; None: what the configuration says."""
    delete_orphaned: bool = False
    """Publish this device's deletions; those of others are applied always."""
    max_workers: int = WORKERS_DEFAULT
    """Concurrent transfers."""
    include_pattern: str | None = None
    """Only paths in which this regular expression is found take part."""
    exclude_pattern: str | None = None
    """Paths in which this regular expression is found take no part; wins over ``include_pattern``."""
    dry_run: bool = False
    """Plan, and change nothing on either side."""
    sync_paths: tuple[str, ...] = ()
    """Only these files and subtrees take part; empty: all."""
    conflict_resolution: ConflictResolution = "local_wins"
    checksum_algorithm: ChecksumAlgorithm = "sha256"
    allow_mass_delete: bool = False
    """Do not ask before many files are deleted."""

    def __post_init__(self) -> None:
        """Check every value; frozen, so normalised ones are put in place here."""
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            try:
                object.__setattr__(self, name, check(value))
            except ValueError as problem:
                raise UsageError(sentence(f"'{name}' {problem}")) from None

    def override(self, **given: Any) -> SyncOptions:
        """A copy with the given values; None means "not given" and changes nothing. Unknown names raise UsageError."""
        known = [field.name for field in fields(self)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean '{near[0]}'?" if near else f"Options are: {', '.join(known)}."
                raise UsageError(f"'{name}' is no option of a sync.", hint=hint)
        return replace(self, **{name: value for name, value in given.items() if value is not None})
