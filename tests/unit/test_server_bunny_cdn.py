"""The Core API and the CDN of the Bunny of the tests: lookup, purging and its limits, caching, lag, signed URLs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.servers.bunny import BunnyOptions, BunnyServer, BunnyZone, Security, signed_path
from tests.support.http_client import Client, Clock, Reply


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


@pytest.fixture
def core(server: BunnyServer) -> Client:
    return Client(server.core_url, server.account_key)


def switch(server: BunnyServer, **options: Any) -> None:
    server.options = replace(server.options, **options)


# Core API.


def test_the_core_api_wants_the_key_of_the_account(server: BunnyServer, core: Client) -> None:
    for key in ("", server.password, server.readonly_password):
        answer = core("GET", "/pullzone", AccessKey=key)
        assert (answer.status, set(answer.json)) == (401, {"ErrorKey", "Field", "Message"})
        assert "WWW-Authenticate" not in answer.headers
    assert core("GET", "/pullzone").status == 200


def test_zones_are_found_by_page_and_search(server: BunnyServer, core: Client) -> None:
    zones = [server.first, *(server.fresh_zone(f"zone-{number}") for number in range(6))]
    page = core("GET", "/storagezone?page=1&perPage=5").json
    assert (page["CurrentPage"], page["TotalItems"], page["HasMoreItems"]) == (1, 7, True)
    rest = core("GET", "/storagezone?page=2&perPage=5").json
    assert rest["HasMoreItems"] is False
    assert [item["Name"] for item in page["Items"] + rest["Items"]] == [zone.zone for zone in zones]
    found = core("GET", "/storagezone?page=1&perPage=1000&search=ZONE-3").json["Items"]
    assert [(item["Id"], item["Password"]) for item in found] == [(zones[4].zone_id, zones[4].password)]
    assert found[0]["ReadOnlyPassword"] == zones[4].readonly_password
    assert found[0]["StorageHostname"] == urlsplit(server.storage_url).netloc
    assert found[0]["PullZones"][0]["Id"] == zones[4].pull_zone_id
    assert core("GET", f"/storagezone/{zones[4].zone_id}").json == found[0]
    assert core("GET", "/storagezone?page=1&perPage=4").status == 400
    assert core("GET", "/storagezone/1").status == 404


def test_pull_zones_come_as_a_plain_array_without_a_page(server: BunnyServer, core: Client) -> None:
    server.fresh_zone("zone-2")
    everything = core("GET", "/pullzone").json
    assert core("GET", "/pullzone?page=0&perPage=1000").json == everything
    assert core("GET", "/pullzone?page=1").json["Items"] == everything
    found = core("GET", "/pullzone?page=1&search=zone-2").json["Items"]
    assert found == everything[1:]
    assert core("GET", f"/pullzone/{found[0]['Id']}").json == found[0]
    assert found[0]["Name"] == "zone-2-cdn"
    assert found[0]["Hostnames"][0]["Value"] == "zone-2-cdn.b-cdn.net"
    assert found[0]["ZoneSecurityEnabled"] is False
    switch(server, pull_zone_search=False)
    assert core("GET", "/pullzone?page=1&search=zone-2").json["Items"] == everything


def test_only_numbers_name_a_pull_zone(server: BunnyServer, core: Client) -> None:
    for wrong in (server.pull_zone_name, server.pull_zone_id + 1):
        assert core("POST", f"/pullzone/{wrong}/purgeCache").status == 404
        assert core("GET", f"/pullzone/{wrong}").status == 404
    assert core("POST", f"/pullzone/{server.pull_zone_id}/purgeCache").status == 204
    assert core("POST", f"/pullzone/{server.pull_zone_id}/purgeCache", b'{"CacheTag": "tag"}').status == 204
    assert server.core.purged_zones == [server.pull_zone_id] * 2


def purge(core: Client, url: str, more: str = "") -> Reply:
    return core("POST", f"/purge?url={quote(url, safe='')}&async=false{more}")


def test_purges_are_recorded_and_limited(server: BunnyServer, core: Client, clock: Clock) -> None:
    url = "https://zone-cdn.b-cdn.net/a%20b"
    assert [purge(core, url).status for _ in range(120)] == [200] * 120
    refused = purge(core, url)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    clock.now += 0.2
    assert [purge(core, url).status for _ in range(2)] == [200, 429]
    assert server.core.purged == [url] * 121
    prefixes = [url + "/", url + "*", url + "/*"]
    assert [purge(core, prefixes[number % 3]).status for number in range(21)] == [200] * 20 + [429]
    clock.now += 1.9
    assert purge(core, url + "/").status == 429
    assert purge(core, url + "/", "&exactPath=true").status == 200
    clock.now += 0.1
    assert purge(core, url + "/").status == 200
    assert core("GET", f"/purge?url={url}").status == 405
    assert core("POST", "/purge").status == 400


# CDN.


@pytest.fixture
def cdn(zone: BunnyZone) -> Client:
    return Client(zone.cdn_url)


def test_the_cdn_caches_until_it_is_purged(zone: BunnyZone, storage: Client, cdn: Client, core: Client) -> None:
    storage("PUT", "d/a%20b", b"old")
    assert (cdn("GET", "/d/a%20b").headers["CDN-Cache"], cdn("GET", "/d/a%20b").headers["CDN-Cache"]) == ("MISS", "HIT")
    storage("PUT", "d/a%20b", b"new")
    assert cdn("GET", "/d/a%20b?v=2").body == b"old"
    for about in ("/d/a", "/d/a%20bc", "/other/", "/x*"):
        purge(core, zone.cdn_url + about)
    assert cdn("GET", "/d/a%20b").body == b"old"
    for number, about in enumerate(("/d/a%20b", "/d/", "/d/a*", "/*", "/*b")):
        data = b"%d" % number
        storage("PUT", "d/a%20b", data)
        purge(core, zone.cdn_url + about)
        assert cdn("GET", "/d/a%20b").body == data
    storage("PUT", "d/a%20b", b"last")
    core("POST", f"/pullzone/{zone.pull_zone_id}/purgeCache")
    assert cdn("GET", "/d/a%20b").body == b"last"
    storage("DELETE", "d/a%20b")
    purge(core, f"https://{zone.pull_zone_name}.b-cdn.net/d/a%20b")
    assert cdn("GET", "/d/a%20b").status == 404


def test_the_cdn_serves_files_only(zone: BunnyZone, cdn: Client) -> None:
    zone.write("d/a", b"0123456789")
    part = cdn("GET", "/d/a", Range="bytes=2-4")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert cdn("GET", "/d/a", Range="bytes=10-").status == 416
    head = cdn("HEAD", "/d/a")
    assert (head.status, head.headers["Content-Length"]) == (200, "10")
    assert [cdn("GET", path).status for path in ("/", "/d", "/d/", "/d/a/")] == [404] * 4
    assert cdn("PUT", "/d/a", b"x").status == 405
    assert zone.cdn.counts.requests == {"GET": 6, "HEAD": 1, "PUT": 1}


def test_a_replica_lags_for_some_reads(zone: BunnyZone, storage: Client, cdn: Client) -> None:
    zone.write("kept", b"old")
    zone.lag(reads=2)
    storage("PUT", "new", b"x")
    assert [cdn("GET", "/new").status for _ in range(3)] == [404, 404, 200]
    storage("PUT", "kept", b"new")
    assert storage("GET", "kept").body == b"new"
    assert cdn("GET", "/kept").body == b"old"


def test_a_purge_too_early_caches_the_old_object_again(
    zone: BunnyZone, storage: Client, cdn: Client, core: Client
) -> None:
    zone.write("a", b"old")
    zone.lag()
    storage("PUT", "a", b"newer")
    storage("PUT", "a", b"newest")
    assert cdn("GET", "/a").body == b"old"
    zone.catch_up()
    assert cdn("GET", "/a").body == b"old"
    purge(core, zone.cdn_url + "/a")
    assert cdn("GET", "/a").body == b"newest"


def test_a_replica_lags_by_the_clock(zone: BunnyZone, storage: Client, cdn: Client, clock: Clock) -> None:
    zone.write("a", b"x")
    zone.lag(seconds=5)
    storage("DELETE", "a")
    storage("PUT", "b", b"x")
    clock.now += 4.9
    assert (cdn("GET", "/a").status, cdn("GET", "/b").status) == (200, 404)
    clock.now += 0.1
    assert cdn("GET", "/b").status == 200
    assert cdn("GET", "/a").headers["CDN-Cache"] == "HIT"


def test_the_cdn_may_remember_what_is_missing(server: BunnyServer, zone: BunnyZone, cdn: Client) -> None:
    assert cdn("GET", "/a").status == 404
    zone.write("a", b"x")
    assert cdn("GET", "/a").status == 200
    switch(server, cache_missing=True)
    assert cdn("GET", "/b").status == 404
    zone.write("b", b"x")
    assert cdn("GET", "/b").status == 404


# Tokens. The vectors are those that Bunny publishes; their key is "SecurityKey", they expire at 1598024587.

V6 = "2001:db8:85a3::8a2e:370:7334"
VECTORS = [
    ("", "/300kb.jpg?token=HS256-o10JRWlsAItyAsdKS6jJKjabHN4FrFsplDHPV1idcX4"),
    ("", "/300kb.jpg?token=HS256-i5s3Uv7mnrFfN5nznwU2BxhILpnipYeE18TapV0WNFM&token_countries=CA%2CUS"),
    ("", "/300kb.jpg?token=HS256-JS8dSuBSjSH-W2-xhdkCPC36-2rlxfDCQJjlNMPqKZQ&token_countries_blocked=RU%2CCN"),
    ("", "/abc/300kb.jpg?token=HS256-uVZvT3SbEoVKYJyDJgbcsDmSFf73cv-uNUVaJiKWpbQ&token_path=%2Fabc"),
    ("", "/300kb.jpg?token=HS256-1lwWBD_c1IAGSj1UKPoxreu8ePDQ-Z9FoWLcRn_RRH0&token_ignore_params=true"),
    ("", "/300kb.jpg?token=HS256-DAVapqNNED3Z7JkjRTYX0UOIHNtbHEuuhRNEc4A7mMQ&limit=1000"),
    ("1.2.3.4", "/300kb.jpg?token=HS256-1-L2rISTLcujMY9UFf2tbZ41d5i-Bme1g1oTK_Z2QMLJk"),
    (V6, "/300kb.jpg?token=HS256-1-Z1BaGdhTZdU4iANcyKpurFR2VgCNdqC6hlBv5x_TyaI"),
    ("1.2.3.4", "/bcdn_token=HS256-1-4lIDGI2_t3wiTmopXzB7z71wtZKTe1Ic0lDlL72iAJw&token_countries=CA%2CUS/abc/"),
    (V6, "/bcdn_token=HS256-1-LGpoP8i1bV4P1kN4NrO_iYxLJuLAD2R3Clstsy9kWAc&token_countries=CA%2CUS/abc/"),
    ("1.2.3.4", "/bcdn_token=HS256-1-X01Z6A9xAo1_ds1XFf9y8gAIzk_JpmoevOx7EtgMQhY&limit=5000/abc/"),
    ("1.2.3.4", "/abc/300kb.jpg?token=HS256-1-wag9tC0r1QWfg-2eMj5QcdzgPLCIdQb-D0WVU1Mhg2w&token_path=%2Fabc"),
    ("1.2.3.4", "/300kb.jpg?token=HS256-1-rWalmQRJ-A_qrb08-JoeU3b-gOS5mJiJjPOfDWa0gsQ&token_ignore_params=true"),
    ("1.2.3.4", "/300kb.jpg?token=HS256-1-myF6Rnz7Z9VAfAjjkyUHJQ_6gr-AJ7VyPsG5rQdQKm8&token_countries_blocked=RU%2CCN"),
]


def with_expiry(url: str, expires: str = "1598024587") -> str:
    if url.startswith("/bcdn_token="):
        token, _, path = url[1:].partition("/")
        return f"/{token}&expires={expires}/{path}"
    return f"{url}&expires={expires}"


@pytest.mark.parametrize(("address", "url"), VECTORS)
def test_published_tokens(address: str, url: str) -> None:
    path = "/abc/" if url.endswith("/abc/") else url.partition("?")[0]
    security = Security("SecurityKey", enabled=True, check_address=bool(address))
    in_time, late = (BunnyOptions(clock=Clock(now)) for now in (1598024587.0, 1598024588.0))
    client = address or "9.9.9.9"
    assert signed_path(with_expiry(url), security, client, in_time) == path
    refused = {
        "late": signed_path(with_expiry(url), security, client, late),
        "other expiry": signed_path(with_expiry(url, "1598024588"), security, client, in_time),
        "no expiry": signed_path(url, security, client, in_time),
        "other key": signed_path(with_expiry(url), replace(security, key="securitykey"), client, in_time),
        "other token": signed_path(with_expiry(url.replace("HS256-", "HS256-x")), security, client, in_time),
        "address": signed_path(with_expiry(url), replace(security, check_address=not address), "2.2.2.2", in_time),
    }
    assert refused == dict.fromkeys(refused)


def test_where_a_token_holds() -> None:
    options = BunnyOptions(clock=Clock(0))
    security = Security("SecurityKey", enabled=True)
    directory = with_expiry(VECTORS[3][1])
    assert signed_path(directory.replace("300kb", "other"), security, "", options) == "/abc/other.jpg"
    assert signed_path(directory.replace("/abc/", "/xyz/", 1), security, "", options) is None
    assert signed_path(with_expiry(VECTORS[0][1]) + "&more=1", security, "", options) is None
    assert signed_path(with_expiry(VECTORS[4][1]) + "&more=1", security, "", options) == "/300kb.jpg"
    assert signed_path(with_expiry(VECTORS[4][1]) + "&token_ignore_params=true", security, "", options) is None
    assert signed_path(with_expiry(VECTORS[1][1]), security, "", replace(options, country="DE")) is None
    assert signed_path(with_expiry(VECTORS[2][1]), security, "", replace(options, country="RU")) is None


@pytest.mark.parametrize("address", ["", "1.2.3.0", "1.2.3.4"])
def test_tokens_of_before(address: str) -> None:
    signed = f"SecurityKey/dir/99limit=5&token_path=/dir/{address}".encode()
    token = base64.urlsafe_b64encode(hashlib.sha256(signed).digest()).decode().rstrip("=")
    security = Security("SecurityKey", enabled=True, check_address=bool(address))
    url = f"/dir/a?token={token}&token_path=%2Fdir%2F&limit=5&expires=99"
    options = BunnyOptions(clock=Clock(0))
    assert signed_path(url, security, "1.2.3.4", options) == "/dir/a"
    assert signed_path(url.replace("limit=5", "limit=6"), security, "1.2.3.4", options) is None


def test_a_protected_zone_serves_signed_urls_only(server: BunnyServer, zone: BunnyZone, cdn: Client) -> None:
    zone.write("abc/300kb.jpg", b"x")
    zone.security.key, zone.security.enabled = "SecurityKey", True
    switch(server, clock=Clock(1598024587.0))
    assert [cdn("GET", path).status for path in ("/abc/300kb.jpg", "/none")] == [403, 403]
    signed = with_expiry(VECTORS[3][1])
    assert cdn("GET", signed).body == b"x"
    in_path = signed.partition("?")[2].replace("token", "bcdn_token", 1)
    assert cdn("GET", f"/{in_path}/abc/300kb.jpg").body == b"x"
    assert cdn("GET", f"/{in_path}/abc/none").status == 404
