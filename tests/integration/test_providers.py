"""One folder at every provider: the same content, whatever fails on the way, within what the provider allows."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from buckia.cli import cli
from buckia.cli.errors import run
from buckia.client.runtime import SystemClock
from buckia.errors import CancelledError
from buckia.events import Traffic
from buckia.store.pace import Limits, Pace
from buckia.store.transfer import Transfer
from tests.cli.support import CHECKOUT, noise, wait_a_tick
from tests.integration.providers import (
    ALL,
    FOLDER,
    OVER_HTTP,
    Machine,
    Place,
    SkippingClock,
    at_bunny,
    behind_proxy,
    each,
    fresh_place,
    needs_seaweed,
    picture_of,
)
from tests.servers import b2, bunny
from tests.servers.b2 import server as b2_wire
from tests.servers.bunny import BunnyServer
from tests.servers.http import Gate, HttpServer, Request
from tests.servers.proxy import FLIPPED, RETRYABLE, Fault, FaultProxy, When, drip, error
from tests.transfers import make

pytestmark = pytest.mark.slow

WORKERS = 8
FAULTS = (*RETRYABLE, error(500, retry_after=1), error(503, retry_after=2), error(504), error(429, retry_after=1))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials and no configuration but the test's; no real waiting."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "BUCKIA_CONFIG", "BUCKIA_MAX_WORKERS", "BUCKIA_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("buckia.client.runtime.SystemClock", SkippingClock)


# ---- the same folder everywhere


def two_devices(place: Place, base: Path) -> tuple[str, str]:
    """Two devices share a folder and both change it: the roots of its first state and of its last."""
    a, b = Machine(place, base, "a"), Machine(place, base, "b")
    clip = noise(3_000_000)
    a.write("note.txt", b"of a\n")
    a.write("run.sh", b"#!/bin/sh\n", 0o755)
    a.write("clips/kitchen.mp4", clip)
    a.write("empty", b"")
    a.write("both", b"of nobody")
    (a.root / "nothing in here").mkdir(mode=0o755)
    a.write("ünïcödé/日本語 😀.txt", "früh".encode())
    a.write("with  spaces/ a b.txt", b"spaces")
    (a.root / "link").symlink_to("clips/kitchen.mp4")
    first_picture = a.picture()
    first = a.sync()
    assert b.sync().root == first.root
    assert b.picture() == first_picture
    wait_a_tick()
    a.write("clips/kitchen.mp4", clip[:1_000_000] + b"inserted" + clip[1_000_000:])
    a.write("both", b"of a")
    (a.root / "link").unlink()
    (a.root / "link").symlink_to("note.txt")
    b.write("note.txt", b"of b, later\n")
    b.write("both", b"of b")
    (b.root / "ünïcödé/日本語 😀.txt").rename(b.root / "ünïcödé/moved")
    (b.root / "with  spaces/ a b.txt").unlink()
    for machine in (a, b, a, b):
        last = machine.sync(delete_orphaned=True)
    assert a.sync().root == last.root
    assert a.picture() == b.picture()
    assert {"both", "ünïcödé/moved"} < a.picture().keys()
    assert a.picture()["both"] == b"of b"
    assert a.picture()["link"] == "note.txt"
    assert "with  spaces/ a b.txt" not in a.picture()
    with b.client() as client:
        assert client.verify(read_data=True).clean
        assert first.snapshot in {item.id for item in client.snapshots()}
        client.restore(first.snapshot, target=base / "restored")
    assert picture_of(base / "restored") == first_picture
    return first.root, last.root


@pytest.fixture(scope="module")
def expected_roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    base = tmp_path_factory.mktemp("expected")
    return two_devices(fresh_place("memory", base), base)


@pytest.mark.parametrize("name", each(ALL))
def test_a_folder_is_the_same_at_every_provider(name: str, tmp_path: Path, expected_roots: tuple[str, str]) -> None:
    assert two_devices(fresh_place(name, tmp_path), tmp_path) == expected_roots


# ---- every third request fails


def many_rounds(place: Place, base: Path) -> tuple[Machine, Machine]:
    """Sixty files in several packs, and then both devices edit by turns."""
    a = Machine(place, base, "a", {"retries": 20})
    b = Machine(place, base, "b", {"retries": 20})
    for number in range(60):
        a.write(f"d{number % 7}/f{number}", noise(60_000, number))
    a.sync()
    b.sync()
    for turn in range(6):
        wait_a_tick()
        for machine, other in ((a, b), (b, a)):
            machine.write(f"d{turn}/of {machine.name}", noise(90_000, 100 + turn))
            machine.write(f"d{turn}/f{turn}", machine.name.encode() + noise(60_000, turn))
            machine.sync()
            other.sync()
    assert a.picture() == b.picture()
    return a, b


@pytest.mark.parametrize("name", each((*OVER_HTTP, "bunny unproven")))
def test_every_third_request_fails(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the faults that may pass: nothing is lost, and at most 1.6 times as many requests are made.

    At B2 an upload that failed goes to another address, for which one request more is needed.
    """
    monkeypatch.setattr("buckia.store.writer.PACK_BYTES_TARGET", 256 << 10)
    monkeypatch.setattr("buckia.store.writer.ONE_PACK_BYTES_MAX", 256 << 10)
    with behind_proxy(fresh_place(name, tmp_path)) as (place, proxy):
        undisturbed = many_rounds(place, tmp_path / "undisturbed")
        needed = proxy.counts.requests
        assert sum(f"{FOLDER}/_buckia/packs/" in key for key in place.objects()) > 20
    origin = fresh_place(name, tmp_path)
    with behind_proxy(origin) as (place, proxy):
        proxy.inject(When(share=1 / 3, seed=3), *FAULTS)
        disturbed = many_rounds(place, tmp_path / "disturbed")
        made, faults = proxy.counts.requests, proxy.made.total()
    c = Machine(origin, tmp_path / "disturbed", "c")
    c.sync()
    assert c.picture() == disturbed[0].picture() == undisturbed[0].picture()
    with c.client() as client:
        assert client.verify(read_data=True).clean
    assert sum(machine.retries for machine in (*undisturbed, c)) == 0
    assert 0.3 < faults / sum(made.values()) < 0.37
    # Only uploads to B2 are posted.
    addresses = made.get("POST", 0) - needed.get("POST", 0)
    assert sum(made.values()) <= 1.6 * (sum(needed.values()) + addresses)
    counted = [sum(machine.requests for machine in machines) for machines in (disturbed, undisturbed)]
    if name != "b2":
        assert counted == [sum(made.values()), sum(needed.values())]
    print(f"\n{name}: {counted[0] / counted[1]:.3f} as counted, {made} instead of {needed}")


class First:
    """Holds for the first get of each object."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, method: str, target: str) -> bool:
        with self._lock:
            new = method == "GET" and "/_buckia/" in target and not is_listing(method, target)
            new = new and target not in self._seen
            if new:
                self._seen.add(target)
            return new


@pytest.mark.parametrize("name", each((*OVER_HTTP, "bunny unproven")))
def test_every_object_arrives_spoilt_at_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit is flipped in the first answer that has it, for each command anew: no result and no exit code tells."""
    monkeypatch.setattr("buckia.store.writer.PACK_BYTES_TARGET", 256 << 10)
    monkeypatch.setattr("buckia.store.writer.ONE_PACK_BYTES_MAX", 256 << 10)
    origin = fresh_place(name, tmp_path)
    for variable, value in origin.environment.items():
        monkeypatch.setenv(variable, value)
    with behind_proxy(origin) as (place, proxy):
        proxy.inject(When(where=First()), FLIPPED)
        a, b = many_rounds(place, tmp_path / "spoilt")
        assert proxy.made["flipped"] > 20
        target = tmp_path / "restored"
        for line in (["restore", "--target", str(target)], ["verify"], ["verify", "--read-data"]):
            proxy.clear()
            proxy.inject(When(where=First()), FLIPPED)
            before = proxy.made["flipped"]
            assert run(cli, [*line, "--from", place.location]) == 0, line
            assert proxy.made["flipped"] > before
        assert picture_of(target) == a.picture() == b.picture()


# ---- how much at a time


@contextmanager
def working(place: Place, workers: int) -> Iterator[Transfer]:
    """A transfer as a sync has one, ready: connected and, where that is needed, authorised."""
    with place.backend(max_workers=workers) as backend:
        backend.pacer = Pace(Limits(), SkippingClock(), lambda: None)
        with make(backend, workers=workers, clock=SkippingClock()) as transfer:
            transfer.list("warm/up")
            yield transfer


@contextmanager
def held(
    server: HttpServer, count: int, work: Callable[[], object], where: Callable[[Request], bool] = lambda _: True
) -> Iterator[None]:
    """Runs ``work`` in a thread until it has so many requests in flight at the server; inside the block those are held,
    and afterwards everything goes on to its end.
    """
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    with Gate() as gate:
        server.latency = lambda request: gate(request) if where(request) else None
        thread.start()
        gate.wait(count)
        yield
    thread.join()
    server.latency = None
    assert problems == []


@pytest.mark.parametrize("name", each(OVER_HTTP))
def test_as_many_in_flight_as_there_are_workers(name: str, tmp_path: Path) -> None:
    """Eight at a time and never more, over nine connections at most, however many requests there are."""
    data = noise(64 << 10)
    keys = [f"packs/{number}" for number in range(64)]
    with behind_proxy(fresh_place(name, tmp_path)) as (place, proxy), working(place, WORKERS) as transfer:

        def put() -> None:
            for key in keys:
                transfer.submit_put(key, data)
            transfer.drain()

        def get() -> None:
            assert all(found == data for found in transfer.map_get((key, 0, len(data)) for key in keys * 7))

        for work in (put, get):
            with held(proxy, WORKERS, work):
                assert proxy.counts.max_in_flight == WORKERS
        counts = proxy.counts
        assert transfer.backend.traffic.retries == 0
    assert counts.max_in_flight == WORKERS
    assert counts.total >= 512
    assert counts.connections <= WORKERS + 1


def test_bunny_is_not_asked_more_than_it_allows(tmp_path: Path) -> None:
    """Of 32 workers only 4 list and 16 delete at a time, so that nothing is ever refused."""
    keys = [f"d{number % 20}/e{number}/file" for number in range(300)]
    with BunnyServer() as server:
        place = at_bunny(server)
        with working(place, 32) as transfer:
            for key in keys:
                transfer.put(key, b"x")
            server.storage.reset_counts()

            def list_all() -> None:
                assert [info.key for info in transfer.list()] == sorted(keys)

            with held(server.storage, 4, list_all, lambda request: request.path.count("/") > 2):
                assert server.counts.max_in_flight_by["LIST"] == 4
            with held(server.storage, 16, lambda: transfer.delete_many(keys)):
                assert server.counts.max_in_flight_by["DELETE"] == 16
            counts = server.counts
            assert transfer.backend.traffic.retries == 0
    assert counts.requests == {"LIST": 1 + 20 + 300, "DELETE": 300}
    assert (counts.max_in_flight_by["LIST"], counts.max_in_flight_by["DELETE"]) == (4, 16)


# ---- bodies that drip


@contextmanager
def dripping(place: Place, on_piece: Callable[[int], object]) -> Iterator[Place]:
    """The same bucket; objects come byte by byte, a second apart, and ``on_piece`` is told how many are under way."""
    over, numbers = threading.Event(), itertools.count(1)

    def sleep(seconds: float) -> None:
        number = next(numbers)
        if number > 1:
            over.wait(seconds)
        on_piece(number)

    with FaultProxy(place.endpoint, sleep=sleep) as proxy:
        is_object = When(where=lambda method, target: method == "GET" and not is_listing(method, target))
        proxy.inject(is_object, drip(1 << 20, seconds=1.0))
        try:
            yield place.at(endpoint=proxy.url)
        finally:
            over.set()


@pytest.mark.parametrize("name", each(OVER_HTTP))
def test_a_request_to_stop_is_noticed_while_a_body_drips(name: str, tmp_path: Path) -> None:
    """After the next byte, not after the last one."""
    origin = fresh_place(name, tmp_path)
    with origin.backend() as backend:
        backend.put("k", b"x" * 1000)
    stopped: list[int] = []

    def check() -> None:
        if stopped:
            raise CancelledError

    def stop(number: int) -> None:
        if number == 2:
            stopped.append(number)

    with dripping(origin, stop) as place, place.backend() as backend:
        backend.pacer = Pace(Limits(), SystemClock(), check)
        with pytest.raises(CancelledError):
            backend.get("k")


@pytest.mark.parametrize("command", ["sync", "restore", "verify", "cat"])
def test_the_first_ctrl_c_ends_a_command_while_bodies_drip(command: str, tmp_path: Path) -> None:
    """130, and the one sentence, though the connection would give a byte each second for minutes."""
    origin = fresh_place("b2", tmp_path)
    a = Machine(origin, tmp_path, "a")
    a.write("f", noise(50_000))
    a.sync()
    started: list[subprocess.Popen[str]] = []

    def stop(number: int) -> None:
        if number == 3:
            started[0].send_signal(signal.SIGINT)

    with dripping(origin, stop) as place:
        where = place.location
        line = {
            "sync": ["sync", str(tmp_path / "b"), "--to", where],
            "restore": ["restore", "--from", where, "--target", str(tmp_path / "b")],
            "verify": ["verify", "--read-data", "--from", where],
            "cat": ["cat", "f", "--from", where],
        }[command]
        (tmp_path / "b").mkdir()
        begun = started_with(*line, environment={**place.environment, "PYTHONPATH": str(CHECKOUT)})
        started.append(begun)
        try:
            assert begun.communicate(timeout=60)[1] == "buckia: error: Stopped.\n"
        finally:
            begun.kill()
    assert begun.returncode == 130


def started_with(*arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "buckia", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="latin-1",
    )


# ---- long listings


def is_listing(method: str, target: str) -> bool:
    return "list-type=2" in target or "b2_list_file_names" in target or (method, target[-1]) == ("GET", "/")


@pytest.mark.parametrize("name", ["memory", "local", "b2"])
def test_a_listing_of_ten_thousand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete, each object once, and in as many requests as there are pages."""
    monkeypatch.setattr("buckia.sync.b2.LIST_COUNT", 1000)
    keys = sorted(f"d{number % 250:03}/object {number}" for number in range(10_000))
    cloud = b2.B2Cloud()
    backend = cloud.sync(cloud.fresh_bucket()) if name == "b2" else fresh_place(name, tmp_path).backend()
    if name == "local":
        for key in keys:
            path = Path(str(backend.location), key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    else:
        for key in keys:
            backend.put(key, b"x")
    with make(backend, workers=WORKERS) as transfer:
        backend.traffic = Traffic()
        found = transfer.list()
        assert [info.key for info in found] == keys
        assert backend.traffic.requests.total == backend.traffic.requests.list == (10 if name == "b2" else 1)
        assert [info.key for info in transfer.list("d007/")] == keys[280:320]
        assert len(transfer.list("d00")) == 400


@pytest.mark.parametrize(
    ("name", "directories", "pages"),
    [
        pytest.param("s3", 250, 3, marks=needs_seaweed),
        ("bunny unproven", 250, 251),
        ("bunny unproven", 1, 2),
        ("b2", 250, 3),
    ],
)
def test_a_page_that_fails_is_asked_for_alone(
    name: str, directories: int, pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,500 objects over HTTP: one page in the middle fails, and that one only is asked for again."""
    monkeypatch.setattr("buckia.sync.b2.LIST_COUNT", 1000)
    keys = sorted(f"d{number % directories}/object {number}" for number in range(2500))
    with behind_proxy(fresh_place(name, tmp_path)) as (place, proxy), working(place, WORKERS) as transfer:
        for key in keys:
            transfer.submit_put(key, b"x")
        transfer.drain()
        traffic = transfer.backend.traffic = Traffic()
        proxy.inject(When(nth=pages // 2 + 1, where=is_listing), error(503))
        found = transfer.list()
        assert proxy.made["error"] == 1
    assert [info.key for info in found] == keys
    assert (traffic.requests.total, traffic.requests.list, traffic.retried.list) == (pages + 1, pages + 1, 1)


# ---- what the command says


@dataclass(frozen=True)
class Case:
    """One thing that is wrong: what the environment and the location say instead, or what is answered to whom."""

    name: str
    code: int
    words: str
    requests: int = 1
    """How many are made in all, or get that answer."""
    environment: Callable[[Place], Mapping[str, str]] = lambda _: {}
    location: Callable[[str, Place], str] = lambda location, _: location
    origin: Callable[[Place], Place] = lambda place: place
    fault: Fault | None = None
    where: Callable[[str, str], bool] = lambda method, target: True
    options: tuple[str, ...] = ()


def s3_error(status: int, code: str, message: str = "no", more: str = "") -> Fault:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    return error(status, body=body.encode())


def b2_error(status: int, code: str, message: str = "") -> Fault:
    return error(status, body=b2_wire.error(status, code, message)[1])


def is_put(method: str, target: str) -> bool:
    return method == "PUT" or "/pod/" in target


def other_bucket(location: str, place: Place) -> str:
    return location.replace(str(place.settings["bucket_name"]), "nobody-has-this")


def b2_key(*capabilities: str) -> Callable[[Place], Mapping[str, str]]:
    """A key of the account that may do this."""

    def environment(place: Place) -> Mapping[str, str]:
        cloud = b2.shared().cloud
        key = cloud.key(capabilities) if capabilities else cloud.master
        return {"B2_APPLICATION_KEY_ID": key["access_key_id"], "B2_APPLICATION_KEY": key["secret_access_key"]}

    return environment


BUSY = Case("busy", 4, "503", fault=error(503), options=("--retries", "0"))
S3 = [
    Case("wrong id", 3, "does not know this access key id", environment=lambda _: {"AWS_ACCESS_KEY_ID": "AKNOBODY"}),
    Case(
        "wrong secret",
        3,
        "does not accept the secret access key",
        environment=lambda _: {"AWS_SECRET_ACCESS_KEY": "wrong" * 8},
    ),
    Case("no bucket", 6, "There is no bucket s3://nobody-has-this", location=other_bucket),
    Case(
        "other region",
        4,
        "is in the region eu-west-9, not in us-east-1",
        fault=s3_error(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-9</Region>"),
    ),
    Case(
        "moved",
        4,
        "is in the region eu-west-7, not in us-east-1",
        fault=s3_error(301, "PermanentRedirect", more="<Region>eu-west-7</Region>"),
    ),
    Case("may not list", 3, "may not list the bucket", fault=s3_error(403, "AccessDenied"), where=is_listing),
    Case("may not write", 3, "may not write", fault=s3_error(403, "AccessDenied"), where=is_put),
    Case("quota", 4, "There is no room left", fault=s3_error(403, "QuotaExceeded", "1 TB"), where=is_put),
    Case("full", 4, "There is no room left", fault=error(507), where=is_put),
    Case("clock", 3, "refuses the time of this machine's clock", fault=s3_error(403, "RequestTimeTooSkewed")),
    Case("expired", 3, "as it has expired", fault=s3_error(400, "ExpiredToken")),
    BUSY,
]
LINODE = [
    Case(
        "wrong secret",
        3,
        "does not accept the secret access key",
        environment=lambda _: {"LINODE_CLI_OBJ_SECRET_KEY": "wrong" * 8},
    ),
    Case("no bucket", 6, "There is no bucket linode://nobody-has-this", location=other_bucket),
    Case("quota", 4, "There is no room left", fault=s3_error(403, "QuotaExceeded"), where=is_put),
    BUSY,
]
BUNNY = [
    Case("wrong key", 3, "does not accept the password", environment=lambda _: {"BUNNY_STORAGE_API_KEY": "wrong" * 8}),
    Case("no zone", 3, "does not accept the password", location=other_bucket),
    Case(
        "other region",
        3,
        "does not accept the password",
        origin=lambda place: place.at(endpoint=bunny.shared().other_region_url),
    ),
    Case("may not list", 3, "403: Forbidden", fault=error(403), where=is_listing),
    Case("read only", 3, "does not accept the password", 1, fault=error(401), where=is_put),
    Case("quota", 4, "507: Insufficient Storage", fault=error(507), where=is_put),
    BUSY,
]
B2 = [
    Case(
        "wrong key",
        3,
        "Backblaze does not accept the application key",
        environment=lambda _: {"B2_APPLICATION_KEY": "wrong" * 8},
    ),
    Case("other bucket", 3, "the application key is only for the bucket", location=other_bucket),
    Case("no bucket", 6, "There is no bucket b2://nobody-has-this", 2, b2_key(), location=other_bucket),
    # Before them the key is authorised, the bucket found, and its folder looked for.
    Case("may not list", 3, "lacks the capability listFiles", 4, b2_key("listBuckets", "readFiles", "writeFiles")),
    Case("may not write", 3, "lacks the capability writeFiles", 5, b2_key("listBuckets", "readFiles", "listFiles")),
    Case(
        "quota", 4, "storage cap exceeded", fault=b2_error(403, "storage_cap_exceeded", "Cannot upload"), where=is_put
    ),
    Case(
        "transactions",
        4,
        "transaction cap exceeded",
        fault=b2_error(403, "transaction_cap_exceeded"),
        where=is_listing,
    ),
    BUSY,
]


@pytest.mark.parametrize(
    ("provider", "case"),
    [
        *(pytest.param("s3", case, marks=needs_seaweed, id=f"s3 {case.name}") for case in S3),
        *(pytest.param("linode", case, marks=needs_seaweed, id=f"linode {case.name}") for case in LINODE),
        *(pytest.param("bunny", case, id=f"bunny {case.name}") for case in BUNNY),
        *(pytest.param("b2", case, id=f"b2 {case.name}") for case in B2),
    ],
)
def test_what_is_wrong_is_said_at_once(
    provider: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, its exit code, and not one request more than it took to find out."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("1")
    with behind_proxy(case.origin(fresh_place(provider, tmp_path))) as (place, proxy):
        for name, value in {**place.environment, **case.environment(place)}.items():
            monkeypatch.setenv(name, value)
        if case.fault is not None:
            proxy.inject(When(where=case.where), case.fault)
        location = case.location(place.location, place)
        code = run(cli, ["sync", str(tmp_path / "data"), "--to", location, "--max-workers", "1", *case.options])
        said = capsys.readouterr()
        made = proxy.made["error"] if case.fault is not None else proxy.counts.total
    assert (code, said.out) == (case.code, "")
    first, *rest = said.err.splitlines()
    assert first.startswith("buckia: error: ")
    assert case.words in first
    assert all(line.startswith("hint: ") for line in rest)
    assert "wrongwrong" not in said.err
    assert made == case.requests


# ---- secrets


def secrets_of(place: Place) -> set[bytes]:
    """What nobody may ever see, in the forms that requests have it in; the id of a key is no secret."""
    held = {name: value for name, value in place.credentials.items() if name != "access_key_id"}
    pairs = {f"{place.credentials.get('access_key_id')}:{value}" for value in held.values()}
    found = {value.encode() for value in held.values()}
    return found | {base64.b64encode(text.encode()) for text in {*held.values(), *pairs}}


@pytest.mark.parametrize("name", each(("s3", "linode", "bunny", "b2")))
def test_secrets_stay_where_they_are(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither what is printed with -vv, nor what any library logs, nor the bucket or this machine's files has them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("1")
    caplog.set_level(logging.DEBUG)
    printed = ""
    with behind_proxy(fresh_place(name, tmp_path)) as (place, proxy):
        for variable, value in place.environment.items():
            monkeypatch.setenv(variable, value)
        proxy.inject(When(share=1 / 3, seed=1), *FAULTS)
        for line in (["sync", "data", "--to"], ["verify", "--read-data", "--from"]):
            code = run(cli, [*line, place.location, "-vv", "--json", "--retries", "20"])
            said = capsys.readouterr()
            printed += said.out + said.err
            assert code == 0, said.err
        assert proxy.made.total() > 5
        proxy.clear()
        # A server may say in its refusal what it was sent: of Bunny's requests that is the password itself.
        said_back = place.credentials.get("storage_api_key", "")
        proxy.inject(When(), error(403, body=json.dumps({"Message": f"not {said_back}"}).encode()))
        assert run(cli, ["sync", "data", "--to", place.location, "-vv", "--json"]) in (3, 4)
        said = capsys.readouterr()
        assert "Traceback" in said.err
        printed += said.out + said.err
        with place.backend() as backend:
            printed += f"{backend!r} {backend.admin!r} {place.config()!r} {place.config()}"
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    stored = b"".join([key.encode() + data for key, data in place.objects().items()])
    assert len(stored) > 1000
    assert len(files) > 1000
    places = {"print": printed.encode(), "log": caplog.text.encode(), "file": files, "bucket": stored}
    for secret in secrets_of(place):
        assert [where for where, text in places.items() if secret in text] == []
