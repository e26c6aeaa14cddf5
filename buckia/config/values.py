"""The kinds of values that the keys of a bucket entry have: what is written becomes what is meant, or is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from buckia.config import options as checks
from buckia.config.options import ChecksumAlgorithm, ConflictResolution
from buckia.config.words import PlainWord
from buckia.location import check_endpoint, check_folder_id, check_prefix

_NUMBER_BITS_MAX = 1024
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _text_map(value: object) -> object:
    return {} if value is None else value


def _settings(value: object) -> object:
    """Plain words of YAML that look like numbers become numbers; nothing declares the types of provider settings.

    What TOML can say and other formats cannot is refused.
    """
    if isinstance(value, Mapping):
        return {key: _settings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_settings(item) for item in value]
    if isinstance(value, PlainWord):
        if re.fullmatch(r"-?[0-9]{1,15}", value):
            return int(value)
        return float(value) if re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,15}", value) else str(value)
    if isinstance(value, date | time):
        raise ValueError(f"holds {value}, a date or time; put it in quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is none")
    if isinstance(value, int) and value.bit_length() > _NUMBER_BITS_MAX:
        raise ValueError("holds a number that is too long; put it in quotes")
    return value


def _one_or_many(value: object) -> object:
    """A single entry may stand without its list."""
    if value is None:
        return ()
    return [value] if isinstance(value, str | Mapping) else value


def check_context(text: str) -> str:
    """A name under which secrets are kept: 1 to 64 letters, digits, dots, dashes and underscores."""
    if not _CONTEXT.fullmatch(text):
        raise ValueError("must be 1 to 64 letters, digits, '.', '-' or '_', the first one a letter or digit")
    return text


def _once_each(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Two local directories would show a folder that is named twice."""
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise ValueError(f"names '{folder}' twice")
    return folders


FolderId = Annotated[str, AfterValidator(check_folder_id)]
Pattern = Annotated[str, AfterValidator(checks.check_pattern)]
Workers = Annotated[int, BeforeValidator(lambda value: checks.check_workers(checks.as_number(value)))]
Retries = Annotated[int, BeforeValidator(lambda value: checks.check_retries(checks.as_number(value)))]
ByteRate = Annotated[float, BeforeValidator(checks.check_byte_rate)]
Positive = Annotated[float, BeforeValidator(checks.check_positive)]
Digest = Annotated[ChecksumAlgorithm, BeforeValidator(checks.check_checksum_algorithm)]
Policy = Annotated[ConflictResolution, BeforeValidator(checks.check_conflict_resolution)]
TextMap = Annotated[dict[str, str], BeforeValidator(_text_map)]
Folders = Annotated[tuple[FolderId, ...], BeforeValidator(_one_or_many), AfterValidator(_once_each)]
Endpoint = Annotated[str, AfterValidator(check_endpoint)]
Prefix = Annotated[str, AfterValidator(check_prefix)]
Context = Annotated[str, AfterValidator(check_context)]
AnySettings = BeforeValidator(_settings)
OneOrMany = BeforeValidator(_one_or_many)
