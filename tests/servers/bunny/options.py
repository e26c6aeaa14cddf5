"""How the Bunny of the tests behaves where the real one is not documented, or may behave in two ways."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """Most requests at a time. Beyond the first two the answer is 400, beyond the others 429."""

    list: int = 5
    delete: int = 30
    connections: int = 100
    """Requests in flight on all zones; the document says connections per address, and here all have one address."""
    zone: int = 250


@dataclass(frozen=True, slots=True)
class BunnyOptions:
    """Switches; the defaults are what the documents say, and where they are silent the less convenient answer."""

    mismatch: Literal["reject", "drop"] = "reject"
    """A wrong ``Checksum``: 400, or 201; nothing is stored either way."""
    checksum_any_case: bool = False
    """A ``Checksum`` in lower case counts as right."""
    missing_directory: Literal[200, 404] = 200
    """The listing of a directory that is not there: 200 with ``[]``, or 404."""
    times: Literal["milliseconds", "seconds", "zoned"] = "milliseconds"
    """``2017-03-10T03:06:48.203`` (zeros at the end left out), ``2017-03-10T03:06:48``, or that with a ``Z``."""
    replicated_zones: str | None = ""
    """What every entry has for ``ReplicatedZones``."""
    describe: Literal[200, 405, 501] = 200
    """What DESCRIBE does: it works, or answers so."""
    describe_directories: bool = False
    """DESCRIBE of a directory without the slash at its end finds it, too."""
    delete_directories: bool = False
    """DELETE of a directory without the slash at its end deletes it, with all below."""
    head: bool = False
    """HEAD works instead of answering 405."""
    chunked: bool = False
    """A body without a length is taken instead of refused by 411."""
    content_type: bool = False
    """``Content-Type`` of a put is kept where there is no ``Override-Content-Type``."""
    unsafe_names: Literal["store", "refuse"] = "store"
    """Names with characters that live tests found to be mangled: stored as they are, or 400."""
    errors: Literal["json", "text", "empty"] = "json"
    """What the body of an error is."""
    limits: Limits = field(default_factory=Limits)
    retry_after: int | None = None
    """Seconds in the ``Retry-After`` of a 429 of the storage host; ``None``: there is none."""
    cache_missing: bool = False
    """The CDN remembers also that an object is missing, until it is purged."""
    pull_zone_search: bool = True
    """``search`` of ``/pullzone`` filters; otherwise it has no effect."""
    country: str = "US"
    """Where the CDN sees its clients."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
