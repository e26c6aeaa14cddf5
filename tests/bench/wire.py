"""``python -m tests.bench.wire``: what the way to a bucket costs, in real time; see ``README.md``.

The servers run in processes of their own, so that their work does not hold back the client that is measured.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from buckia.client.runtime import SystemClock
from buckia.store.pace import Limits, Pace
from buckia.store.transfer import Transfer
from buckia.sync.base import BaseSync, ObjectInfo
from buckia.sync.bunny import BunnyOptions, BunnySync
from buckia.sync.memory import MemorySync
from buckia.sync.s3 import S3Options, S3Sync
from tests.bench import server
from tests.servers.bunny import BunnyServer
from tests.servers.http import Counts
from tests.servers.proxy import FaultProxy, When, latency
from tests.servers.seaweed import S3Bucket, SeaweedServer

ROWS = ("latency", "limits", "cpu")
WORKERS = 8
OBJECTS = 64
OBJECT_BYTES = 64 << 10
LATENCY_SECONDS = 0.05
FASTER_MIN = 6.0

LIMIT_BYTES = 10e6
LIMITED_OBJECTS, LIMITED_BYTES = 40, 1_000_000
LIMIT_REQUESTS = 20.0
LIMITED_REQUESTS = 101

CPU_BATCH = 100
CPU_ROUNDS = 10
CPU_SHARE_MAX = 0.15


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number and where it shall be; either bound may be missing. ``detail`` is what it was made of."""

    row: str
    text: str
    value: float
    low: float | None = None
    high: float | None = None
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """``met``, ``MISSED``, or empty where there is no bound."""
        if self.low is None and self.high is None:
            return ""
        kept = (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)
        return "met" if kept else "MISSED"


# ---- servers in processes of their own


@dataclass(frozen=True, slots=True)
class Zone:
    """A storage zone of the Bunny server."""

    name: str
    url: str
    password: str

    def bucket(self, *, url: str | None = None, workers: int = WORKERS) -> BunnySync:
        """An adapter; ``url`` is a proxy in front of the server."""
        return BunnySync(
            self.name,
            endpoint=url or self.url,
            credentials={"storage_api_key": self.password},
            options=BunnyOptions(max_workers=workers),
        )


def _start_bunny() -> tuple[BunnyServer, Zone]:
    running = BunnyServer()
    return running, Zone(running.zone, running.storage_url, running.password)


def _start_proxy(target: str) -> tuple[FaultProxy, str]:
    running = FaultProxy(target)
    running.inject(When(), latency(LATENCY_SECONDS))
    return running, running.url


def _serve(pipe: Connection, start: Callable[[], tuple[Any, Any]]) -> None:
    """Runs in the process: says how to reach the server, then its counts as often as they are asked for."""
    running, about = start()
    with running:
        pipe.send(about)
        try:
            while True:
                pipe.recv()
                pipe.send(running.counts)
        except EOFError:
            return


@contextlib.contextmanager
def _process(start: Callable[[], tuple[Any, Any]]) -> Iterator[tuple[Any, Callable[[], Counts]]]:
    """A server until the end of the block: how to reach it, and what it counted."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, start), daemon=True)
    process.start()
    theirs.close()

    def counts() -> Counts:
        ours.send(None)
        found: Counts = ours.recv()
        return found

    try:
        yield ours.recv(), counts
    finally:
        ours.close()
        process.join()


def _transfer(bucket: BaseSync, limits: Limits | None = None, *, workers: int = WORKERS) -> Transfer:
    """As the client puts one together, with the pacer that it always has."""
    clock = SystemClock()
    bucket.pacer = Pace(limits or Limits(), clock, lambda: None)
    return Transfer(bucket, workers=workers, retries=0, clock=clock, random=lambda: 0.5, cancelled=lambda: False)


def _upload(transfer: Transfer, prefix: str, number: int, data: bytes) -> float:
    """Seconds that so many objects take."""
    start = time.perf_counter()
    for key in range(number):
        transfer.submit_put(f"{prefix}/{key}", data)
    transfer.drain()
    return time.perf_counter() - start


def _download(transfer: Transfer, prefix: str, number: int, size: int) -> float:
    """Seconds that reading them takes."""
    start = time.perf_counter()
    arrived = sum(len(data) for data in transfer.map_get((f"{prefix}/{key}", 0, size) for key in range(number)))
    seconds = time.perf_counter() - start
    if arrived != number * size:
        raise AssertionError(f"{arrived} bytes arrived.")
    return seconds


# ---- latency: 50 ms on every request


def measure_latency(zone: Zone, runs: int) -> list[Figure]:
    """How much faster 8 workers are than one when every request takes 50 ms, and what that takes of connections."""
    seconds: dict[tuple[int, str], float] = {}
    in_flight = connections = 0
    for run in range(runs):
        for workers in (1, WORKERS):
            with (
                _process(partial(_start_proxy, zone.url)) as (url, counts),
                zone.bucket(url=url, workers=workers) as bucket,
                _transfer(bucket, workers=workers) as transfer,
            ):
                prefix = f"latency-{run}-{workers}"
                taken = {
                    "up": _upload(transfer, prefix, OBJECTS, os.urandom(OBJECT_BYTES)),
                    "down": _download(transfer, prefix, OBJECTS, OBJECT_BYTES),
                }
                seen = counts()
            for way, value in taken.items():
                seconds[workers, way] = min(value, seconds.get((workers, way), value))
            if workers == WORKERS:
                in_flight, connections = max(in_flight, seen.max_in_flight), max(connections, seen.connections)
    found = [
        Figure(
            "latency",
            f"{OBJECTS} objects of 64 KiB {way}: 1 worker / {WORKERS} workers, times",
            seconds[1, way] / seconds[WORKERS, way],
            low=FASTER_MIN,
            detail={"seconds_1": seconds[1, way], f"seconds_{WORKERS}": seconds[WORKERS, way]},
        )
        for way in ("up", "down")
    ]
    return [
        *found,
        Figure("latency", "most requests in flight", in_flight, high=WORKERS),
        Figure("latency", "TCP connections", connections, high=WORKERS + 1),
    ]


# ---- limits of bytes and requests


def measure_limits(name: str, make: Callable[[], BaseSync], runs: int) -> list[Figure]:
    """Rates in real time under each limit; of several runs the one that is furthest from it."""
    rates: dict[str, list[float]] = {"up": [], "down": [], "requests": []}
    data = os.urandom(LIMITED_BYTES)
    for _ in range(runs):
        prefix = f"limits-{secrets.token_hex(4)}"
        total = LIMITED_OBJECTS * LIMITED_BYTES
        with make() as bucket:
            with _transfer(bucket, Limits(upload_bytes=LIMIT_BYTES)) as transfer:
                rates["up"].append(total / _upload(transfer, prefix, LIMITED_OBJECTS, data))
            with _transfer(bucket, Limits(download_bytes=LIMIT_BYTES)) as transfer:
                rates["down"].append(total / _download(transfer, prefix, LIMITED_OBJECTS, LIMITED_BYTES))
            with _transfer(bucket, Limits(requests=LIMIT_REQUESTS)) as transfer:
                start = time.perf_counter()
                for _ in transfer.map_get((f"{prefix}/0", 0, 1000) for _ in range(LIMITED_REQUESTS)):
                    pass
                # The first one does not wait.
                rates["requests"].append((LIMITED_REQUESTS - 1) / (time.perf_counter() - start))
    return [
        Figure(
            "limits",
            f"{name}: {text}",
            max(rates[key], key=lambda rate: abs(rate - limit)) / unit,
            low=limit * (1 - leeway) / unit,
            high=limit * (1 + leeway) / unit,
        )
        for key, text, limit, leeway, unit in (
            ("up", "10 MB/s up, MB/s", LIMIT_BYTES, 0.10, 1e6),
            ("down", "10 MB/s down, MB/s", LIMIT_BYTES, 0.10, 1e6),
            ("requests", "20 requests/s, requests/s", LIMIT_REQUESTS, 0.05, 1),
        )
    ]


# ---- CPU of a request


def measure_cpu(place: S3Bucket, rounds: int) -> list[Figure]:
    """What our layers cost of CPU per request, beside the same call of boto3 itself, in turns."""
    with S3Sync(
        place.name,
        region=place.region,
        endpoint=place.endpoint,
        credentials=place.credentials,
        options=S3Options(max_workers=WORKERS),
    ) as bucket:
        bare, data = _boto3(place), os.urandom(OBJECT_BYTES)
        with (
            _transfer(bucket, workers=0) as alone,
            _transfer(bucket) as threaded,
            _transfer(_Nothing(data), workers=0) as layers,
            _transfer(_Nothing(data)) as busy,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            # The adapter's own client without the adapter, and one as the documentation of boto3 makes it.
            same = partial(_put_as_we_do, bucket._s3(), place.name, data, bucket._checksum)
            plain = partial(_put, bare, place.name, data)
            read = [f"read/{number}" for number in range(CPU_BATCH)]
            _each(same, read)
            ways: dict[tuple[str, str], Callable[[list[str]], object]] = {
                ("put", "ours"): partial(_each, lambda key: alone.put(key, data)),
                ("put", "client"): partial(_each, same),
                ("put", "boto3"): partial(_each, plain),
                ("put", "layers"): partial(_each, lambda key: layers.put(key, data)),
                ("get", "ours"): lambda _: _each(alone.get, read),
                ("get", "client"): lambda _: _each(partial(_get, bucket._s3(), place.name), read),
                ("get", "boto3"): lambda _: _each(partial(_get, bare, place.name), read),
                ("get", "layers"): partial(_each, layers.get),
                ("put, 8 threads", "ours"): lambda keys: _submitted(threaded, keys, data),
                ("put, 8 threads", "client"): lambda keys: [*pool.map(same, keys)],
                ("put, 8 threads", "boto3"): lambda keys: [*pool.map(plain, keys)],
                ("put, 8 threads", "layers"): lambda keys: _submitted(busy, keys, data),
            }
            return _compared(ways, rounds)


class _Nothing(MemorySync):
    """Keeps nothing and has one object, so that what remains are the layers above an adapter."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._info_of_all = ObjectInfo("any", len(data))
        self._bytes_of_all = data

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        return self._info_of_all

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        return self._bytes_of_all


def _each(call: Callable[[str], object], keys: list[str]) -> None:
    for key in keys:
        call(key)


def _compared(ways: dict[tuple[str, str], Callable[[list[str]], object]], rounds: int) -> list[Figure]:
    """Each way in turn, again and again; the least CPU seconds of each."""
    numbers = count()
    best: dict[tuple[str, str], float] = {}
    gc.collect()
    for turn in range(rounds + 1):
        order = [*ways] if turn % 2 else [*ways][::-1]
        for way in order:
            batch = next(numbers)
            keys = [f"cpu/{batch}/{number}" for number in range(CPU_BATCH)]
            start = time.process_time()
            ways[way](keys)
            taken = (time.process_time() - start) / CPU_BATCH
            if turn:
                best[way] = min(taken, best.get(way, taken))
    found = []
    for verb in dict.fromkeys(verb for verb, _ in ways):
        ours, client, boto3, layers = (1e6 * best[verb, who] for who in ("ours", "client", "boto3", "layers"))
        detail = {"ours_us": ours, "client_us": client, "boto3_us": boto3, "layers_us": layers}
        for text, value in (
            (f"ours {ours:.0f} us / the same call of its client {client:.0f} us, less 1", ours / client - 1),
            (f"ours {ours:.0f} us / boto3 {boto3:.0f} us, less 1", ours / boto3 - 1),
            (f"our layers above nothing {layers:.0f} us / boto3 {boto3:.0f} us", layers / boto3),
        ):
            found.append(Figure("cpu", f"{verb}: {text}", value, None, CPU_SHARE_MAX, detail))
    return found


def _boto3(place: S3Bucket) -> Any:
    """A client as its documentation makes one; without retries, as ours."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=place.endpoint,
        region_name=place.region,
        aws_access_key_id=place.access_key_id,
        aws_secret_access_key=place.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=WORKERS),
    )


def _put(client: Any, bucket: str, data: bytes, key: str) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=data)


def _put_as_we_do(client: Any, bucket: str, data: bytes, digest: str, key: str) -> None:
    """With the digest that the adapter sends; the client signs it by itself where it sends none."""
    headers: dict[str, str] = {}
    if digest == "sha256":
        headers["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(data).digest()).decode()
    elif digest == "md5":
        headers["ContentMD5"] = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    client.put_object(Bucket=bucket, Key=key, Body=memoryview(data), **headers)


def _get(client: Any, bucket: str, key: str) -> None:
    body = client.get_object(Bucket=bucket, Key=key)["Body"]
    body.read()
    body.close()


def _submitted(transfer: Transfer, keys: list[str], data: bytes) -> None:
    for key in keys:
        transfer.submit_put(key, data)
    transfer.drain()


# ---- the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also if a bound is missed: that is a result."""
    asked = _parser().parse_args(arguments)
    figures: list[Figure] = []
    with contextlib.ExitStack() as stack:
        os.environ["NO_PROXY"] = "127.0.0.1"
        lack = server.missing()
        if lack:
            print(f"S3 is left out: {lack}")
        place = None if lack else stack.enter_context(SeaweedServer()).fresh_bucket()
        zone, _ = stack.enter_context(_process(_start_bunny))
        with zone.bucket() as bucket:
            bucket.put("warm", b"imports and all")
        if "latency" in asked.rows:
            figures += measure_latency(zone, asked.runs)
        if "limits" in asked.rows:
            figures += measure_limits("bunny", zone.bucket, asked.runs)
            if place is not None:
                figures += measure_limits("s3", partial(_s3, place), asked.runs)
        if "cpu" in asked.rows and place is not None:
            figures += measure_cpu(place, CPU_ROUNDS * asked.runs)
    print(table(figures))
    if asked.json:
        document = {"load": os.getloadavg()[0], "figures": [asdict(one) | {"mark": one.mark} for one in figures]}
        asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _s3(place: S3Bucket) -> S3Sync:
    return S3Sync(place.name, region=place.region, endpoint=place.endpoint, credentials=place.credentials)


def table(figures: Sequence[Figure]) -> str:
    """One line per figure."""
    lines = [("row", "what", "measured", "shall be", "")]
    for one in figures:
        low = "" if one.low is None else f"{one.low:g}"
        high = "" if one.high is None else f"{one.high:g}"
        bounds = f"{low} to {high}" if low and high else f">= {low}" if low else f"<= {high}" if high else ""
        lines.append((one.row, one.text, f"{one.value:.3g}", bounds, one.mark))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _rows(text: str) -> list[str]:
    rows = text.split(",")
    if unknown := sorted(set(rows) - set(ROWS)):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.wire", description="what the way to a bucket costs")
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--runs", type=int, default=3, help="runs of everything (3)")
    parser.add_argument("--json", type=Path, help="write everything to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
