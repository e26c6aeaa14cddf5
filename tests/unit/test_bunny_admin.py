"""Pull zones and purging at Bunny: names become numbers, what is purged is what was asked, one request at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

import pytest

from buckia.errors import AuthenticationError, BucketError, BucketNotFound, Transient, UsageError
from buckia.sync.bunny import BunnyOptions, BunnySync
from buckia.sync.bunny_admin import BunnyAdmin
from tests.servers.bunny import BunnyOptions as Behaviour
from tests.servers.bunny import BunnyServer
from tests.servers.http import Answer, HttpServer, Request


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def server() -> Iterator[BunnyServer]:
    with BunnyServer() as running:
        yield running


def admin(server: BunnyServer, *, key: str | None = None, **options: Any) -> BunnyAdmin:
    chosen = BunnyOptions(api_url=server.core_url, **options)
    credentials = {"password": server.password, "api_key": server.account_key if key is None else key}
    found = BunnySync(server.zone, endpoint=server.storage_url, credentials=credentials, options=chosen).admin
    assert isinstance(found, BunnyAdmin)
    return found


@pytest.mark.parametrize("search", [True, False])
def test_a_pull_zone_is_found_by_name_by_number_or_by_its_storage_zone(server: BunnyServer, search: bool) -> None:
    server.options = replace(server.options, pull_zone_search=search)
    for name in (f"{server.zone}-2", f"a-{server.zone}"):
        server.fresh_zone(name)
    for wanted in (server.pull_zone_name, server.pull_zone_name.upper(), str(server.pull_zone_id), None):
        found = admin(server, pull_zone=wanted).pull_zone()
        assert found == {
            "id": server.pull_zone_id,
            "name": server.pull_zone_name,
            "hostnames": [f"{server.pull_zone_name}.b-cdn.net"],
            "storage_zone_id": server.first.zone_id,
            "token_authentication": False,
            "token_ip": False,
        }


def test_the_answer_is_kept(server: BunnyServer) -> None:
    made = admin(server, pull_zone=server.pull_zone_name)
    for _ in range(3):
        made.pull_zone()
    made.purge([])
    made.purge(["k"])
    assert server.core.counts.requests == {"GET": 1, "POST": 2}


def test_what_the_storage_zone_is(server: BunnyServer) -> None:
    found = admin(server).storage_zone()
    assert (found["id"], found["name"], found["region"]) == (server.first.zone_id, server.zone, "de")
    assert (found["replicas"], found["pull_zones"]) == ([], [server.pull_zone_id])
    shown = json.dumps([found, admin(server).pull_zone()])
    for secret in (server.password, server.readonly_password, server.security_key, server.account_key):
        assert secret not in shown


def test_zones_of_similar_names_are_told_apart() -> None:
    with BunnyServer("photos-old") as server:
        wanted = server.fresh_zone("photos")
        made = BunnySync(
            "photos", credentials={"api_key": server.account_key}, options=BunnyOptions(api_url=server.core_url)
        )
        assert isinstance(made.admin, BunnyAdmin)
        assert made.admin.storage_zone()["id"] == wanted.zone_id
        assert made.admin.pull_zone()["id"] == wanted.pull_zone_id


def test_zones_that_are_not_there(server: BunnyServer) -> None:
    for wanted in ("no-such-zone", "999999"):
        with pytest.raises(BucketNotFound, match=wanted):
            admin(server, pull_zone=wanted).pull_zone()
    made = BunnySync(
        "elsewhere", credentials={"api_key": server.account_key}, options=BunnyOptions(api_url=server.core_url)
    )
    with pytest.raises(BucketNotFound, match="elsewhere"):
        made.admin.pull_zone()


def test_keys_that_are_not_accepted(server: BunnyServer) -> None:
    with pytest.raises(AuthenticationError) as caught:
        admin(server, key=server.password).pull_zone()
    assert "not the password of the zone" in (caught.value.hint or "")
    with pytest.raises(AuthenticationError) as caught:
        admin(server, key="").purge(["k"])
    assert "BUNNYNET_API_KEY" in (caught.value.hint or "")
    with pytest.raises(UsageError):
        admin(server).get_policy()


# Purging.


def fetched(url: str) -> bytes:
    with urlopen(url, timeout=5) as answer:
        data: bytes = answer.read()
    return data


def test_a_purge_makes_the_cdn_read_anew(server: BunnyServer) -> None:
    zone = server.first
    made = admin(server, cdn_url=zone.cdn_url, pull_zone=zone.pull_zone_name)
    paths = ("a b/ü", "a b/x", "c")

    def state() -> list[bytes]:
        return [fetched(f"{zone.cdn_url}/{quoted}") for quoted in ("a%20b/%C3%BC", "a%20b/x", "c")]

    def write(data: bytes) -> None:
        for path in paths:
            zone.write(path, data)

    write(b"1")
    assert state() == [b"1"] * 3
    write(b"2")
    assert state() == [b"1"] * 3
    assert made.purge(["a b/ü"]) == 1
    assert state() == [b"2", b"1", b"1"]
    write(b"3")
    assert made.purge(["a b/"], prefix=True) == 1
    assert state() == [b"3", b"3", b"1"]
    write(b"4")
    assert made.purge([]) == 1
    assert state() == [b"4"] * 3
    assert server.core.purged == [f"{zone.cdn_url}/a%20b/%C3%BC", f"{zone.cdn_url}/a%20b/*"]
    assert server.core.purged_zones == [zone.pull_zone_id]


def test_without_an_address_the_pull_zones_own_is_purged(server: BunnyServer) -> None:
    assert admin(server).purge(["a/1", "a/2"]) == 2
    host = f"https://{server.pull_zone_name}.b-cdn.net"
    assert server.core.purged == [f"{host}/a/1", f"{host}/a/2"]


@pytest.mark.parametrize(
    ("keys", "purged"),
    [
        ([f"f/a/{n}" for n in range(100)], [f"f/a/{n}" for n in range(100)]),
        ([f"f/a/{n}" for n in range(101)], ["f/a/*"]),
        ([*(f"f/a/{n}" for n in range(101)), "f/b", "g/c/d"], ["f/*", "g/c/*"]),
        ([f"f {n % 20}/{n}/x" for n in range(200)], sorted(f"f%20{n}/*" for n in range(20))),
        ([f"f{n}/x" for n in range(101)], []),
        ([*(f"f/a/{n}" for n in range(101)), "top"], []),
    ],
    ids=["a hundred", "one directory", "two", "twenty, one above", "too many", "one at the top"],
)
def test_many_objects_are_purged_by_their_directories(server: BunnyServer, keys: list[str], purged: list[str]) -> None:
    made = admin(server, pull_zone=server.pull_zone_name)
    assert made.purge(keys) == (len(purged) or 1)
    assert sorted(url.removeprefix(f"https://{server.pull_zone_name}.b-cdn.net/") for url in server.core.purged) == (
        sorted(purged)
    )
    assert server.core.purged_zones == ([] if purged else [server.pull_zone_id])


def test_only_the_refused_request_is_made_again() -> None:
    now = [0.0]
    with BunnyServer(options=Behaviour(clock=lambda: now[0])) as server:
        made = admin(server, pull_zone=server.pull_zone_name)
        keys = [f"d{n}/" for n in range(23)]
        refused: list[Transient] = []

        def attempt(verb: str, call: Callable[[], Any]) -> Any:
            while True:
                try:
                    return call()
                except Transient as error:
                    refused.append(error)
                    now[0] += error.retry_after or 0

        assert made.purge(keys, prefix=True, attempt=attempt) == 23
        assert [(error.throttled, error.retry_after) for error in refused] == [(True, 2.0)] * 3
        assert [url.rsplit("/", 2)[1] for url in server.core.purged] == [key[:-1] for key in keys]
        with pytest.raises(Transient) as caught:
            made.purge(["x"], prefix=True)
        assert caught.value.retry_after == 2.0


@pytest.mark.parametrize(("keys", "prefix"), [(["a/"], False), ([""], False), (["/a"], True), (["ok", "a//"], True)])
def test_what_cannot_be_purged(server: BunnyServer, keys: list[str], prefix: bool) -> None:
    with pytest.raises(UsageError):
        admin(server).purge(keys, prefix=prefix)
    assert server.core.counts.total == 0


# Answers that the server of the tests does not give.


class Canned(HttpServer):
    def __init__(self, *found: object) -> None:
        self.found = [*found]
        self.asked: list[str] = []
        super().__init__()

    def answer(self, request: Request) -> Answer:
        self.asked.append(request.target)
        found = self.found.pop(0)
        return found if isinstance(found, Answer) else Answer(200, json.dumps(found).encode())


def canned(server: Canned, **options: Any) -> BunnyAdmin:
    made = BunnySync("zone", credentials={"api_key": "k"}, options=BunnyOptions(api_url=server.url, **options)).admin
    assert isinstance(made, BunnyAdmin)
    return made


def test_lists_of_zones_go_on_for_pages() -> None:
    pages = [{"Items": [{"Id": n, "Name": f"z{n}"}], "CurrentPage": n, "HasMoreItems": n < 3} for n in (1, 2, 3)]
    with Canned(*pages) as server:
        assert canned(server, pull_zone="z3").pull_zone()["id"] == 3
        assert [target.partition("&")[0] for target in server.asked] == [f"/pullzone?page={n}" for n in (1, 2, 3)]
    with Canned([{"Id": 1, "Name": "z1"}, {"Id": 2, "Name": "z2"}]) as server:
        assert canned(server, pull_zone="z2").pull_zone()["id"] == 2


def test_a_storage_zone_with_several_pull_zones_leaves_a_choice() -> None:
    for linked, hint in (([{"Id": 5}, {"Id": 6}], "5, 6"), ([], "Add a pull zone")):
        zone = {"Id": 1, "Name": "zone", "Region": "NY", "ReplicationRegions": ["LA", "SG"], "PullZones": linked}
        with Canned({"Items": [zone]}, {"Items": [zone]}) as server:
            assert canned(server).storage_zone()["replicas"] == ["la", "sg"]
            with pytest.raises(UsageError, match=f"has {len(linked)} pull zones") as caught:
                canned(server).pull_zone()
            assert hint in (caught.value.hint or "")


def test_reasons_of_the_core_api_are_told() -> None:
    refusal = {"ErrorKey": "validation_error", "Field": "Url", "Message": "The url is not yours."}
    with Canned(Answer(400, json.dumps(refusal).encode()), Answer(500), {"Id": 1, "Name": "z"}) as server:
        made = canned(server, cdn_url="https://cdn.example.org", pull_zone="1")
        with pytest.raises(BucketError, match=r"400: The url is not yours\Z"):
            made.purge(["k"])
        with pytest.raises(Transient):
            made.purge(["k"])
        with pytest.raises(BucketError, match="has no host"):
            canned(server, pull_zone="1").purge(["k"])
