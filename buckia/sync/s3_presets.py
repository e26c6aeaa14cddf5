"""What the servers that speak S3 differ in: one row each, found by the host of the endpoint.

Where a fact is not known for certain, the row has its careful side: conditional writes are off everywhere but at AWS,
as several servers ignore the condition without a word; a probe may switch them on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from buckia.sync.base import Capabilities

Checksum = Literal["sha256", "signature", "md5"]

PARTS_MAX = 10_000
"""Parts of one upload, everywhere."""

_GB = 10**9
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of server."""

    name: str
    host: re.Pattern[str]
    """What its host names look like; the group ``region`` is the region that requests are signed for."""
    capabilities: Capabilities
    checksum: Checksum = "sha256"
    """What a put carries for the server to check: ``x-amz-checksum-sha256``; ``Content-MD5``, which takes three times
    as long to compute (26 ms for 16 MiB, without the interpreter's lock) and is checked by all; or a signature over the
    SHA-256 of the body, which all servers take and not all check (SeaweedFS does not). Without the first one requests
    carry no newer checksum header at all, as some servers refuse those.
    """
    region: str = "us-east-1"
    """The region, where the host names none."""
    aws: bool = False
    """The region says which host it is, and the bucket's name stands in the host's name."""
    file_bytes_max: int = 5 << 40
    """Largest object of an upload in parts."""
    lacks: frozenset[str] = frozenset({"acceleration"})
    """What it is known not to have: ``storage_class``, and words of `buckia.sync.s3_admin`."""


def _capabilities(**changes: Any) -> Capabilities:
    return replace(Capabilities(batch_delete=1000, copy=True, object_bytes_max=5 * _GB), **changes)


def _rate(per_second: int) -> dict[str, Any]:
    """A published limit: kept on average; the requests of a quarter of a second may come at once."""
    return {"requests_per_second": float(per_second), "burst": per_second // 4}


_AWS = r"(?:.*?[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?|.*\.)amazonaws\.com(?:\.cn)?"

_ALL = (
    Preset(
        "aws",
        re.compile(_AWS),
        # 3,500 writes a second for each part of the keys that it splits off; reads may be more.
        _capabilities(conditional_put=True, object_bytes_max=5 * _GIB, **_rate(3500)),
        aws=True,
        file_bytes_max=PARTS_MAX * 5 * _GIB,
        lacks=frozenset(),
    ),
    Preset(
        "r2",
        re.compile(r".*\.r2\.cloudflarestorage\.com"),
        _capabilities(object_bytes_max=int(4.995 * _GIB)),
        region="auto",
        file_bytes_max=int(4.995 * (1 << 40)),
        lacks=frozenset({"acceleration", "acl", "policy", "versions"}),
    ),
    Preset(
        "do-spaces",
        re.compile(r"(?:.*\.)?(?P<region>[a-z]+\d+)\.digitaloceanspaces\.com"),
        _capabilities(**_rate(300)),
        checksum="md5",
        file_bytes_max=5 * 10**12,
    ),
    Preset(
        "minio",
        re.compile(r"(?:.*[.-])?minio(?:[.-].*)?|.*\.min\.io"),
        _capabilities(object_bytes_max=5 * _GIB),
    ),
    Preset(
        "linode",
        re.compile(r"(?:.*\.)?(?P<region>[a-z]{2}-[a-z]+-\d+)\.linodeobjects\.com"),
        # Half of what the older clusters allow to one bucket: other devices share it.
        _capabilities(concurrency={"put": 64, "get": 64, "list": 8, "delete": 4}, **_rate(375)),
        checksum="md5",
        file_bytes_max=5 * 10**12,
    ),
    Preset(
        "b2-s3",
        re.compile(r"(?:.*\.)?s3\.(?P<region>[a-z]{2}-[a-z]+-\d+)\.backblazeb2\.com"),
        _capabilities(**_rate(500)),
        checksum="md5",
        file_bytes_max=10 * 10**12,
        lacks=frozenset({"acceleration", "lifecycle"}),
    ),
    Preset(
        "bunny-s3",
        re.compile(r"(?:.*\.)?(?P<region>[a-z]+)-s3\.storage\.bunnycdn\.com"),
        # 100 connections of one address and 500 requests a second for the zone.
        _capabilities(batch_delete=0, concurrency={"put": 48, "get": 48, "list": 4, "delete": 16}, **_rate(500)),
        region="de",
        file_bytes_max=PARTS_MAX * 5 * _GB,
        lacks=frozenset({"acceleration", "acl", "cors", "lifecycle", "metadata", "storage_class", "versions"}),
    ),
    Preset("generic", re.compile(".*"), _capabilities()),
)

PRESETS = {preset.name: preset for preset in _ALL}
"""All of them by name; the last one, ``generic``, is any other server."""


def find_preset(host: str) -> tuple[Preset, str]:
    """The preset of an endpoint's host, and the region that its requests are signed for."""
    for preset in _ALL:
        match = preset.host.fullmatch(host.lower())
        if match is not None:
            return preset, match.groupdict().get("region") or preset.region
    raise AssertionError("The last preset matches every host.")
