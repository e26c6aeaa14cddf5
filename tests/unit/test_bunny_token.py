"""Signed CDN URLs are those that Bunny's own libraries make: the published vectors of both schemes."""

from __future__ import annotations

import pytest

from buckia.errors import UsageError
from buckia.sync.bunny_token import TokenRules, sign_url

HOST = "https://token-tester.b-cdn.net"
PHOTO = f"{HOST}/300kb.jpg"
IPV6 = "2001:0db8:85a3:0000:0000:8a2e:0370:7334"

# (path, rules, what the signed URL is after the host); key "SecurityKey", expires 1598024587
TODAY = [
    (
        "/300kb.jpg",
        TokenRules(),
        "/300kb.jpg?token=HS256-o10JRWlsAItyAsdKS6jJKjabHN4FrFsplDHPV1idcX4&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(countries=("CA", "US")),
        "/300kb.jpg?token=HS256-i5s3Uv7mnrFfN5nznwU2BxhILpnipYeE18TapV0WNFM&token_countries=CA%2CUS&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(blocked_countries=("RU", "CN")),
        "/300kb.jpg?token=HS256-JS8dSuBSjSH-W2-xhdkCPC36-2rlxfDCQJjlNMPqKZQ&token_countries_blocked=RU%2CCN"
        "&expires=1598024587",
    ),
    (
        "/abc/300kb.jpg",
        TokenRules(directory="/abc"),
        "/abc/300kb.jpg?token=HS256-uVZvT3SbEoVKYJyDJgbcsDmSFf73cv-uNUVaJiKWpbQ&token_path=%2Fabc&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ignore_params=True),
        "/300kb.jpg?token=HS256-1lwWBD_c1IAGSj1UKPoxreu8ePDQ-Z9FoWLcRn_RRH0&token_ignore_params=true"
        "&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(limit=1000),
        "/300kb.jpg?token=HS256-DAVapqNNED3Z7JkjRTYX0UOIHNtbHEuuhRNEc4A7mMQ&limit=1000&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ip="1.2.3.4"),
        "/300kb.jpg?token=HS256-1-L2rISTLcujMY9UFf2tbZ41d5i-Bme1g1oTK_Z2QMLJk&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ip=IPV6),
        "/300kb.jpg?token=HS256-1-Z1BaGdhTZdU4iANcyKpurFR2VgCNdqC6hlBv5x_TyaI&expires=1598024587",
    ),
    (
        "/abc/",
        TokenRules(ip="1.2.3.4", countries=("CA", "US"), in_path=True),
        "/bcdn_token=HS256-1-4lIDGI2_t3wiTmopXzB7z71wtZKTe1Ic0lDlL72iAJw&token_countries=CA%2CUS"
        "&expires=1598024587/abc/",
    ),
    (
        "/abc/",
        TokenRules(ip=IPV6, countries=("CA", "US"), in_path=True),
        "/bcdn_token=HS256-1-LGpoP8i1bV4P1kN4NrO_iYxLJuLAD2R3Clstsy9kWAc&token_countries=CA%2CUS"
        "&expires=1598024587/abc/",
    ),
    (
        "/abc/",
        TokenRules(ip="1.2.3.4", limit=5000, in_path=True),
        "/bcdn_token=HS256-1-X01Z6A9xAo1_ds1XFf9y8gAIzk_JpmoevOx7EtgMQhY&limit=5000&expires=1598024587/abc/",
    ),
    (
        "/abc/300kb.jpg",
        TokenRules(ip="1.2.3.4", directory="/abc"),
        "/abc/300kb.jpg?token=HS256-1-wag9tC0r1QWfg-2eMj5QcdzgPLCIdQb-D0WVU1Mhg2w&token_path=%2Fabc&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ip="1.2.3.4", ignore_params=True),
        "/300kb.jpg?token=HS256-1-rWalmQRJ-A_qrb08-JoeU3b-gOS5mJiJjPOfDWa0gsQ&token_ignore_params=true"
        "&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ip="1.2.3.4", blocked_countries=("RU", "CN")),
        "/300kb.jpg?token=HS256-1-myF6Rnz7Z9VAfAjjkyUHJQ_6gr-AJ7VyPsG5rQdQKm8&token_countries_blocked=RU%2CCN"
        "&expires=1598024587",
    ),
    (
        "/300kb.jpg",
        TokenRules(ip=IPV6, blocked_countries=("RU", "CN")),
        "/300kb.jpg?token=HS256-1-XGkCf_JKNfOrpWAM_CIYjZBbVHbB4U1mxHg8pXJtBNc&token_countries_blocked=RU%2CCN"
        "&expires=1598024587",
    ),
]


@pytest.mark.parametrize(("path", "rules", "wanted"), TODAY)
def test_the_published_vectors(path: str, rules: TokenRules, wanted: str) -> None:
    assert sign_url(HOST + path, "SecurityKey", 1598024587, rules) == HOST + wanted


LOCKED = "192.168.100.100"
# (rules, what the signed URL is after the host); key and time as below
BEFORE = [
    (TokenRules(), "/300kb.jpg?token=fa_Vy6p0rbSWCf1CHNBdSiSku828n0HNDffUX0DFlnI&expires=1727918622"),
    (
        TokenRules(in_path=True),
        "/bcdn_token=fa_Vy6p0rbSWCf1CHNBdSiSku828n0HNDffUX0DFlnI&expires=1727918622/300kb.jpg",
    ),
    (
        TokenRules(in_path=True, countries=("AU",)),
        "/bcdn_token=8ryY2_NXJ8PauusW-GvF_GSstCq6IwkV1VmeZOrFKUQ&token_countries=AU&expires=1727918622/300kb.jpg",
    ),
    (TokenRules(ip=LOCKED), "/300kb.jpg?token=SmnSkK1stGqOJge706jsf-02HaCbUaVv7507ZrLP43k&expires=1727918622"),
    (
        TokenRules(ip=LOCKED, directory="/300kb"),
        "/300kb.jpg?token=jriwRWg1R2Ba_fCAFP7KnIKoBCYgBzkJg83mD8hJchA&token_path=%2F300kb&expires=1727918622",
    ),
    (
        TokenRules(ip=LOCKED, directory="/300kb", countries=("AU", "NZ"), blocked_countries=("GB",), in_path=True),
        "/bcdn_token=DEOLD1efgKnm2FWBEwlg75NohDtydbKj4PU7oEpDoro&token_countries=AU%2CNZ&token_countries_blocked=GB"
        "&token_path=%2F300kb&expires=1727918622/300kb.jpg",
    ),
]


@pytest.mark.parametrize(("rules", "wanted"), BEFORE)
def test_the_published_vectors_of_the_scheme_before(rules: TokenRules, wanted: str) -> None:
    given = {name: getattr(rules, name) for name in ("ip", "directory", "countries", "blocked_countries", "in_path")}
    rules = TokenRules(legacy=True, **given)
    assert sign_url(PHOTO, "229248f0-f007-4bf9-ba1f-bbf1b4ad9d40", 1727918622, rules) == HOST + wanted


def test_parameters_of_the_url_are_signed_and_kept() -> None:
    plain, other = (sign_url(f"{PHOTO}?v={value}", "key", 1) for value in ("a%20b", "c"))
    assert plain.endswith("&v=a%20b&expires=1")
    assert plain.split("&")[0] != other.split("&")[0]
    assert sign_url(f"{PHOTO}?z=1&a=2", "key", 1, TokenRules(limit=5)).endswith("&a=2&limit=5&z=1&expires=1")
    dropped = sign_url(f"{PHOTO}?v=1", "key", 1, TokenRules(ignore_params=True))
    assert dropped == sign_url(f"{PHOTO}?v=2", "key", 1, TokenRules(ignore_params=True))


@pytest.mark.parametrize(
    ("url", "key", "expires", "rules"),
    [
        (PHOTO, "", 1, TokenRules()),
        (PHOTO, "key", 0, TokenRules()),
        (PHOTO, "key", 1, TokenRules(ip="1.2.3")),
        (PHOTO, "key", 1, TokenRules(directory="/other/")),
        (f"{PHOTO}?a=1&a=2", "key", 1, TokenRules()),
        (f"{PHOTO}?token=x", "key", 1, TokenRules()),
        (f"{PHOTO}?token_countries=AT", "key", 1, TokenRules(countries=("DE",))),
    ],
)
def test_what_cannot_be_signed(url: str, key: str, expires: int, rules: TokenRules) -> None:
    with pytest.raises(UsageError):
        sign_url(url, key, expires, rules)
