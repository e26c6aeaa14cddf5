"""The storage host of the Bunny of the tests answers as the real one does, to the status code, and the HTTP servers of
the tests count what they see.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.servers.bunny import BunnyOptions, BunnyServer, BunnyZone, Limits, shared
from tests.servers.http import Gate
from tests.support.http_client import Client, Clock, Reply

BUSY = "Unable to process request"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[BunnyServer]:
    with BunnyServer("zone", options=BunnyOptions(clock=clock)) as running:
        yield running


@pytest.fixture
def zone(server: BunnyServer) -> BunnyZone:
    return server.first


@pytest.fixture
def storage(server: BunnyServer) -> Client:
    return Client(server.storage_url, server.password, "/zone/")


def switch(server: BunnyServer, **options: Any) -> None:
    server.options = replace(server.options, **options)


def upper(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest().upper()


# Storage.


def test_an_object_is_stored_replaced_read_and_deleted(storage: Client) -> None:
    assert storage("PUT", "a/b", b"first").status == 201
    assert storage("PUT", "a/b", b"second").status == 201
    assert storage("GET", "a/b").body == b"second"
    assert storage("DELETE", "a/b").status == 200
    missing = storage("GET", "a/b")
    assert (missing.status, missing.json) == (404, {"HttpCode": 404, "Message": "Object Not Found"})
    assert storage("DELETE", "a/b").status == 404


def test_everything_wrong_with_zone_key_or_host_is_401(server: BunnyServer, storage: Client) -> None:
    storage("PUT", "a", b"x")
    assert storage("GET", "a", AccessKey="wrong").status == 401
    assert storage("GET", "a", AccessKey=server.account_key).status == 401
    assert Client(server.storage_url)("GET", "/zone/a").status == 401
    assert Client(server.storage_url, server.password)("GET", "/none/a").status == 401
    assert Client(server.other_region_url, server.password)("GET", "/zone/a").status == 401
    assert storage("GET", "a", AccessKey=server.fresh_zone().password).json["HttpCode"] == 401


def test_the_other_password_only_reads(server: BunnyServer, storage: Client) -> None:
    storage("PUT", "a", b"x")
    reader = Client(server.storage_url, server.readonly_password, "/zone/")
    assert [reader(method, "a").status for method in ("GET", "DESCRIBE", "PUT", "DELETE")] == [200, 200, 401, 401]
    assert reader("GET", "").status == 200
    assert storage("GET", "a").body == b"x"


def test_entries_have_all_fields(server: BunnyServer, zone: BunnyZone, storage: Client, clock: Clock) -> None:
    storage("PUT", "d/a", b"12345678")
    clock.now += 60.25
    storage("PUT", "d/a", b"12345678")
    (entry,) = storage("GET", "d/").json
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", entry.pop("Guid"))
    assert entry == {
        "StorageZoneName": "zone",
        "Path": "/zone/d/",
        "ObjectName": "a",
        "Length": 8,
        "LastChanged": "2020-09-13T12:27:40.75",
        "ServerId": 24,
        "ArrayNumber": 0,
        "IsDirectory": False,
        "UserId": server.user_id,
        "ContentType": "",
        "DateCreated": "2020-09-13T12:26:40.5",
        "StorageZoneId": zone.zone_id,
        "Checksum": upper(b"12345678"),
        "ReplicatedZones": "",
    }
    assert storage("DESCRIBE", "d/a").json | {"Guid": ""} == entry | {"Guid": ""}
    (directory,) = storage("GET", "").json
    shown = {name: directory[name] for name in ("ObjectName", "Path", "IsDirectory", "Length", "Checksum")}
    assert shown == {"ObjectName": "d", "Path": "/zone/", "IsDirectory": True, "Length": 0, "Checksum": None}


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ("milliseconds", "2020-09-13T12:26:40.5"),
        ("seconds", "2020-09-13T12:26:40"),
        ("zoned", "2020-09-13T12:26:40Z"),
    ],
)
def test_times_have_several_forms(server: BunnyServer, storage: Client, times: str, text: str) -> None:
    switch(server, times=times)
    storage("PUT", "a", b"")
    assert storage("DESCRIBE", "a").json["LastChanged"] == text


def test_a_time_on_the_full_second_has_no_fraction(storage: Client, clock: Clock) -> None:
    clock.now = 1_600_000_000.0
    storage("PUT", "a", b"")
    assert storage("DESCRIBE", "a").json["LastChanged"] == "2020-09-13T12:26:40"


def test_directories_appear_with_their_files_and_stay_without(storage: Client) -> None:
    storage("PUT", "a/b/c", b"x")
    storage("DELETE", "a/b/c")
    assert [entry["ObjectName"] for entry in storage("GET", "a/").json] == ["b"]
    assert storage("GET", "a/b/").json == []
    assert storage("DELETE", "a/b/").status == 200
    assert storage("GET", "a/").json == []


def test_a_directory_is_made_once(storage: Client) -> None:
    assert [storage("PUT", "new/", b"").status for _ in range(2)] == [201, 400]


def test_deleting_a_directory_takes_all_below(zone: BunnyZone, storage: Client) -> None:
    for path in ("a/b/c", "a/d", "ab"):
        zone.write(path, b"x")
    assert storage("DELETE", "a").status == 404
    assert storage("DELETE", "a/").status == 200
    assert storage("DELETE", "a/").status == 404
    assert zone.objects() == {"ab": b"x"}


def test_deleting_by_a_name_without_slash_may_take_a_directory(server: BunnyServer, storage: Client) -> None:
    server.first.write("a/b", b"x")
    switch(server, delete_directories=True, describe_directories=True)
    assert storage("DESCRIBE", "a").json["IsDirectory"] is True
    assert storage("DELETE", "a").status == 200
    assert server.first.objects() == {}


def test_the_root_is_guarded(zone: BunnyZone, storage: Client) -> None:
    for how in ("", "?allowRootDelete=true"):
        zone.write("a/b", b"x")
        assert storage("DELETE", how).status == (200 if how else 400)
    assert zone.objects() == {}
    zone.write("a/b", b"x")
    assert storage("DELETE", "", allowRootDelete="true").status == 200
    assert zone.objects() == {}


def test_a_missing_directory_is_empty_or_missing(server: BunnyServer, storage: Client) -> None:
    assert (storage("GET", "none/").status, storage("GET", "none/").json) == (200, [])
    switch(server, missing_directory=404)
    assert storage("GET", "none/").status == 404
    assert storage("GET", "").status == 200


def test_a_directory_is_no_file(zone: BunnyZone, storage: Client) -> None:
    zone.write("a/b", b"x")
    assert (storage("GET", "a").status, storage("DESCRIBE", "a").status) == (404, 404)
    assert storage("DESCRIBE", "a/").json["IsDirectory"] is True


def test_a_checksum_is_compared_in_upper_case(server: BunnyServer, zone: BunnyZone, storage: Client) -> None:
    assert storage("PUT", "a", b"x", Checksum=upper(b"x")).status == 201
    assert storage("PUT", "a", b"y", Checksum=upper(b"x")).status == 400
    assert storage("PUT", "a", b"y", Checksum=upper(b"y").lower()).status == 400
    assert zone.objects() == {"a": b"x"}
    switch(server, checksum_any_case=True)
    assert storage("PUT", "a", b"y", Checksum=upper(b"y").lower()).status == 201
    assert zone.objects() == {"a": b"y"}


def test_a_wrong_checksum_may_be_accepted_and_nothing_stored(server: BunnyServer, storage: Client) -> None:
    switch(server, mismatch="drop")
    storage("PUT", "a", b"old")
    assert storage("PUT", "a", b"new", Checksum=upper(b"other")).status == 201
    assert storage("GET", "a").body == b"old"


def test_ranges(storage: Client) -> None:
    storage("PUT", "a", b"0123456789")
    part = storage("GET", "a", Range="bytes=2-4")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert storage("GET", "a", Range="bytes=7-").body == b"789"
    assert storage("GET", "a", Range="bytes=-2").body == b"89"
    beyond = storage("GET", "a", Range="bytes=8-99")
    assert (beyond.body, beyond.headers["Content-Range"]) == (b"89", "bytes 8-9/10")
    assert [storage("GET", "a", Range=f"bytes={first}-").status for first in (10, 11)] == [416, 416]
    assert storage("GET", "a", Range="lines=1-2").status == 200


def test_head_is_not_offered(server: BunnyServer, storage: Client) -> None:
    storage("PUT", "a", b"12345")
    assert storage("HEAD", "a").status == 405
    switch(server, head=True)
    answer = storage("HEAD", "a")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "5", b"")
    assert storage("GET", "a").body == b"12345"
    assert storage("POST", "a").status == 405


@pytest.mark.parametrize("status", [405, 501])
def test_describe_may_be_unknown(server: BunnyServer, storage: Client, status: int) -> None:
    storage("PUT", "a", b"x")
    switch(server, describe=status)
    assert storage("DESCRIBE", "a").status == status


def test_chunked_bodies_are_refused_or_taken(server: BunnyServer, zone: BunnyZone, storage: Client) -> None:
    assert storage("PUT", "a", iter([b"12", b"345"]), Transfer_Encoding="chunked").status == 411
    switch(server, chunked=True)
    assert storage("PUT", "a", iter([b"12", b"345"]), Transfer_Encoding="chunked").status == 201
    assert zone.objects() == {"a": b"12345"}


def test_forms_are_no_raw_bodies(storage: Client) -> None:
    assert storage("PUT", "a", b"x", Content_Type="application/x-www-form-urlencoded").status == 401


def test_the_type_of_an_object_is_the_overriding_one(server: BunnyServer, storage: Client) -> None:
    storage("PUT", "a", b"x", Content_Type="image/png")
    assert storage("GET", "a").headers["Content-Type"] == "application/octet-stream"
    storage("PUT", "a", b"x", Content_Type="image/png", Override_Content_Type="image/gif")
    assert storage("GET", "a").headers["Content-Type"] == "image/gif"
    switch(server, content_type=True)
    storage("PUT", "a", b"x", Content_Type="image/png")
    assert storage("GET", "a").headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("path", ["%20a", "a%20", "d/%20a", "a%20/b", "../a", "a%2Fb", "%ff", "x" * 6001])
def test_names_that_are_refused(storage: Client, path: str) -> None:
    assert storage("PUT", path, b"x").status == 400


@pytest.mark.parametrize("name", ["a b", "ü/€", "\U0001f4e6", "a%b", "a?b", "x" * 6000, "A", "a"])
def test_names_that_are_not(zone: BunnyZone, storage: Client, name: str) -> None:
    assert storage("PUT", quote(name), b"x").status == 201
    assert zone.objects() == {name: b"x"}
    assert storage("GET", quote(name).replace("/", "//")).status == 200


@pytest.mark.parametrize("name", ["a%b", "a?b", "a\\b", 'a"b', "~a", ".a", "a."])
def test_names_that_are_mangled_may_be_refused(server: BunnyServer, storage: Client, name: str) -> None:
    switch(server, unsafe_names="refuse")
    assert storage("PUT", quote(name), b"x").status == 400
    assert storage("PUT", "a.b-_c~", b"x").status == 201


def test_an_old_object_has_no_checksum_and_a_damaged_one_the_old(zone: BunnyZone, storage: Client) -> None:
    zone.write("old", b"x", checksum_known=False)
    zone.write("bad", b"12345")
    zone.damage("bad")
    assert storage("DESCRIBE", "old").json["Checksum"] is None
    assert storage("DESCRIBE", "bad").json["Checksum"] == upper(b"12345")
    assert storage("GET", "bad").body == b"12245"


# Limits and faults.


@pytest.mark.parametrize(
    ("limits", "method", "path", "status"),
    [
        (Limits(list=2), "GET", "d/", 400),
        (Limits(delete=2), "DELETE", "d/x", 400),
        (Limits(connections=2), "GET", "d/x", 429),
        (Limits(zone=2), "PUT", "d/x", 429),
    ],
)
def test_no_more_than_the_limit_at_a_time(
    server: BunnyServer, limits: Limits, method: str, path: str, status: int
) -> None:
    switch(server, limits=limits, retry_after=5)
    server.first.write("d/x", b"x")

    def ask(_: int = 0) -> Reply:
        return Client(server.storage_url, server.password, "/zone/")(method, path)

    with ThreadPoolExecutor(2) as pool:
        with Gate() as gate:
            server.storage.latency = gate
            held = [pool.submit(ask) for _ in range(2)]
            gate.wait(2)
            refused = ask()
        assert all(one.result().status in (200, 201, 404) for one in held)
    assert refused.status == status
    assert refused.message == (BUSY if status == 400 else "Too Many Requests")
    assert refused.headers["Retry-After"] == (None if status == 400 else "5")
    assert ask().status in (200, 201, 404)


def test_the_documented_limits() -> None:
    assert BunnyOptions().limits == Limits(list=5, delete=30, connections=100, zone=250)


def test_lists_do_not_count_as_reads(server: BunnyServer, storage: Client) -> None:
    server.first.write("d/x", b"x")
    with ThreadPoolExecutor(5) as pool, Gate() as gate:
        server.storage.latency = lambda request: gate(request) if request.path.endswith("/") else None
        for _ in range(5):
            pool.submit(Client(server.storage_url, server.password, "/zone/"), "GET", "d/")
        gate.wait(5)
        assert storage("GET", "d/x").status == 200
        assert storage("GET", "d/").status == 400


@pytest.mark.parametrize(("errors", "body"), [("text", b"Object Not Found"), ("empty", b"")])
def test_errors_may_have_other_bodies(server: BunnyServer, storage: Client, errors: str, body: bytes) -> None:
    switch(server, errors=errors)
    assert (storage("GET", "none").status, storage("GET", "none").body) == (404, body)


def test_forced_answers(server: BunnyServer, zone: BunnyZone, storage: Client) -> None:
    server.fail_next("PUT", 503, "later", times=2, headers=[("Retry-After", "1")])
    server.fail_next("LIST", 400, json.dumps({"HttpCode": 400, "Message": BUSY}))
    assert [storage("PUT", "a", b"x").status for _ in range(3)] == [503, 503, 201]
    assert storage("GET", "a").status == 200
    assert storage("GET", "").message == BUSY
    assert len(storage("GET", "").json) == 1
    server.fail_next("*", 0)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        storage("DELETE", "a")
    assert zone.objects() == {"a": b"x"}


def test_requests_and_connections_are_counted(server: BunnyServer, storage: Client) -> None:
    for number in range(3):
        storage("PUT", f"d/{number}", b"x" * 200_000)
    storage("GET", "d/")
    assert storage("GET", "d/2").body == b"x" * 200_000
    storage("DESCRIBE", "d/2")
    other = Client(server.storage_url, server.password, "/zone/")
    with ThreadPoolExecutor(1) as pool, Gate() as gate:
        server.storage.latency = lambda request: gate(request) if request.method == "DELETE" else None
        held = pool.submit(other, "DELETE", "d/0")
        gate.wait(1)
        storage("GET", "d/1")
    assert held.result().status == 200
    counts = server.counts
    assert counts.requests == {"PUT": 3, "LIST": 1, "GET": 2, "DESCRIBE": 1, "DELETE": 1}
    assert (counts.total, counts.connections, counts.max_in_flight) == (8, 2, 2)
    assert counts.max_in_flight_by["GET"] == 1
    server.storage.reset_counts()
    storage("GET", "d/1")
    assert (server.counts.requests, server.counts.connections, server.counts.max_in_flight) == ({"GET": 1}, 0, 1)
    assert server.counts.max_in_flight_by["DELETE"] == 0


def test_whoever_asks_may_wait_for_leave_to_send_the_body(server: BunnyServer, zone: BunnyZone) -> None:
    head = f"PUT /zone/a HTTP/1.1\r\nAccessKey: {zone.password}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.storage.port), 20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ab")
        assert connection.recv(100).startswith(b"HTTP/1.1 201 Created\r\n")
    assert zone.read("a") == b"ab"


def test_a_fault_of_the_server_is_an_answer(
    server: BunnyServer, storage: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise LookupError("a fault of the test")

    server.storage.latency = broken
    assert storage("GET", "").status == 500
    assert "a fault of the test" in capfd.readouterr().err


def test_a_stopped_server_has_no_threads_and_no_port() -> None:
    before = set(threading.enumerate())
    with BunnyServer() as server:
        storage = Client(server.storage_url, server.password, f"/{server.zone}/")
        assert storage("GET", "").status == 200
        assert Client(server.cdn_url)("GET", "/a").status == 404
    with pytest.raises(OSError):  # noqa: PT011
        storage("GET", "")
    server.stop()
    ours = set(threading.enumerate()) - before
    for thread in ours:
        thread.join(10)
    assert not any(thread.is_alive() for thread in ours)


def test_a_run_shares_one_server() -> None:
    one, two = shared().fresh_zone(), shared().fresh_zone()
    one.write("a", b"x")
    assert one.storage_url == two.storage_url
    assert (one.zone, one.password, one.pull_zone_id) != (two.zone, two.password, two.pull_zone_id)
    assert two.objects() == {}


# By hand.


@pytest.mark.slow
def test_the_server_runs_by_hand() -> None:
    command = [sys.executable, "-m", "tests.servers", "bunny"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "END":
            lines.append(process.stdout.readline().rstrip("\n"))
        text = "\n".join(lines)
        found = {
            name: re.search(rf"{name}: '?(\S+?)'?}}?$", text, re.MULTILINE) for name in ("domain", "storage_api_key")
        }
        domain, key = (match.group(1) for match in found.values() if match)
        assert Client(domain, key)("PUT", "/notes/a", b"x").status == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
