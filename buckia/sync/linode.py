"""Linode (Akamai) object storage: S3 with addresses and limits of its own.

A bucket lies in a cluster, whose host is ``<cluster>.linodeobjects.com``. The ids of the older clusters (types E0 and
E1) are known; at the newer endpoints (E2 and E3) the number in the host's name is assigned, so a region does not say
which host it is. The keys are those of object storage; no token of the account is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from buckia.errors import UsageError
from buckia.sync.s3 import S3Options, S3Sync
from buckia.sync.s3_admin import S3Admin
from buckia.sync.s3_presets import PRESETS, find_preset

OLDER_CLUSTERS = frozenset(
    (
        "ap-south-1 au-mel-1 br-gru-1 es-mad-1 eu-central-1 fr-par-1 gb-lon-1 id-cgk-1 in-maa-1 it-mil-1 jp-osa-1 "
        "nl-ams-1 se-sto-1 sg-sin-1 us-east-1 us-iad-1 us-lax-1 us-mia-1 us-ord-1 us-sea-1 us-southeast-1"
    ).split()
)
"""Clusters of the types E0 and E1."""

_CLUSTER = re.compile(r"[a-z]{2}-[a-z]+-\d+")
_NEWER_RATE = 1000
"""Requests a second: half of what E2 and E3 allow to one bucket, as other devices share it."""


def linode_endpoint(region: str | None, endpoint: str | None) -> str:
    """Where a bucket is: ``endpoint`` if there is one, else by its cluster.

    Raises `UsageError` for a region that is none, as ``us-sea`` may be ``us-sea-1`` or ``us-sea-9``.
    """
    if endpoint:
        return endpoint
    if not region:
        raise UsageError(
            "A bucket at Linode needs a region or an endpoint.",
            hint="`region: us-east-1`, or `endpoint:` with the host that the page of the bucket shows.",
        )
    if not _CLUSTER.fullmatch(region):
        raise UsageError(
            f"The region {region} does not say at which of its hosts the bucket is.",
            hint=f"Set `endpoint` to the host that the page of the bucket shows, such as {region}-1.linodeobjects.com.",
        )
    return f"https://{region}.linodeobjects.com"


class LinodeSync(S3Sync):
    """A bucket at Linode. ``region`` is a cluster (``us-east-1``); ``endpoint`` is a host or URL and wins.

    ``credentials`` has ``access_key_id`` and ``secret_access_key``; they are not looked for anywhere else, as what the
    environment holds for AWS is not for Linode.
    """

    _scheme = "linode"
    _title = "Linode"
    _variables = ("LINODE_CLI_OBJ_ACCESS_KEY", "LINODE_CLI_OBJ_SECRET_KEY", "session_token")
    _looks_for_credentials = False

    def __init__(
        self,
        bucket_name: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        credentials: Mapping[str, str] | None = None,
        options: S3Options | None = None,
    ) -> None:
        endpoint = linode_endpoint(region, endpoint)
        host = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}").hostname or ""
        preset, cluster = find_preset(host)
        known = preset is PRESETS["linode"]
        super().__init__(
            bucket_name,
            # What is signed is the cluster; another server that stands in may want anything.
            region=cluster if known else region,
            endpoint=endpoint,
            credentials=credentials,
            options=replace(options or S3Options(), preset="linode"),
        )
        newer = known and cluster not in OLDER_CLUSTERS
        if newer:
            self.capabilities = replace(
                self.capabilities, requests_per_second=float(_NEWER_RATE), burst=_NEWER_RATE // 4
            )
        self.admin = LinodeAdmin(self._where, self.call, lacks=self._preset.lacks | ({"cors"} if newer else set()))


class LinodeAdmin(S3Admin):
    """The verbs of a bucket at Linode."""

    def _need(self, what: str) -> None:
        if what == "cors" and what in self._missing:
            raise UsageError(
                f"{self.location}: Linode offers no CORS rules at its newer endpoints (E2 and E3).",
                hint="A bucket in one of the older clusters has them.",
            )
        super()._need(what)
