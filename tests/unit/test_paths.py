"""Names from other people's devices: what may stand on which disk, as a table for three platforms."""

from __future__ import annotations

import unicodedata

import pytest

from buckia.errors import LocalError
from buckia.local.paths import (
    Platform,
    bucket_name,
    fold_for,
    fold_insensitive,
    link_problem,
    name_problem,
    ours,
    path_problem,
    safe_join,
)

ALL, WINDOWS, NONE, TOP = "all", "windows", "none", "top"

# name -> refused on: all platforms, Windows only, none, or on all at the folder's top only
NAMES: dict[str, list[str]] = {
    ALL: [
        *("", ".", "..", "/", "a/b", "/etc", "../x", "a/", "a\0b", "\0", "n" * 256, "ä" * 128, "\U0001f600" * 64),
        *(".buckia", ".BUCKIA", ".Buckia", ".bucKIA", ".buckia.yaml", ".buckia.toml", ".buckia.json", ".buckia-demo"),
        *(".buckia-trash", ".buckia-tmp-1", ".buckiarc", ".BuckiaIgnore", ".buckiaignore.txt", ".buckiaignore "),
        *(".buckia ", ".buckia.", ".buckia::$INDEX_ALLOCATION", ".buckia:stream", ".buckia\\x", ".buc\u212aia"),
        *(
            ".buckiaignore (Conflict a 1)",
            ".buckiaignore\u200d (conflict a 1)",
            ".buckiaignore~1",
            ".buckiaignore (old)",
        ),
        *(".b\u200cuckia", "\u200e.buckia", ".bu\u202acki\u202ea", ".buck\u206aia", "\ufeff.buckia", ".buckia\u200d"),
        *(".BUC\u212aIA", ".buckia\u0338", ".buckia\n", ".bucki\ufeffa-tmp-1"),
    ],
    TOP: [
        "_buckia",
        "_BUCKIA",
        "_buckia.txt",
        "_buckia-old",
        "_buckia\u0338",
        "_Buckia",
        "_b\u200duckia",
        "_buc\u212aia",
    ],
    WINDOWS: [
        *("a\\b", "..\\x", "C:", "C:\\x", "a:b", "file:stream", "what?", "a*b", '"', '"a"', "<a>", "a|b", "a>b", "|"),
        *("a\x01b", "\x1f", "tab\there", "line\nbreak", "bell\x07", "trailing.", "trailing ", "a. ", "a .", "...", " "),
        *("con", "CON", "Con", "prn", "PRN.txt", "aux", "aux.c", "nul", "NUL.tar.gz", "com1", "COM9", "com0", "lpt1"),
        *("LPT9.log", "com¹", "COM²", "com³.txt", "lpt¹", "lpt²", "LPT³", "CONIN$", "conout$", "conin$.x", "con .txt"),
        *("nul .x", "aux..c", "CON.", "prn ", "PROGRA~1", "progra~1", "a~1", "LONGNA~1.TXT", "ABCD~12.C", "git~1"),
        *("BUCKIA~1", "_BUCKI~1", "ab~12345.x"),
    ],
    NONE: [
        *(
            "a",
            "A",
            "file.txt",
            "no-extension",
            ".hidden",
            "..hidden",
            "...x",
            "a..b",
            " leading",
            "two words",
            "a b.c",
        ),
        *("ä", unicodedata.normalize("NFD", "ä"), "日本語", "\U0001f600.png", "عربى", "Ω", "ﬁ", "ß", "İ", "\u0131"),
        *("n" * 255, "ä" * 127, "e\u0301", "a\u200db", "\u202etxt.exe", "a\xa0b", "a\u3000", "\u2024"),
        *(
            ".buckiaignore",
            ".buckiaignore (conflict 0a1b2c 3)",
            "buckia",
            "buckia.yaml",
            "x.buckia",
            "my.buckia-notes",
            "buckia_",
            "__buckia",
            ".bucki",
            "_bucki",
        ),
        *(
            ".buckia\u0301",
            ".buck\u0131a",
            "a_buckia",
            "-",
            "--help",
            "-rf",
            "~",
            "~root",
            "$HOME",
            "%PATH%",
            "`id`",
            "a;b",
            "a&b",
            "#",
        ),
        *("console", "contact.txt", "com", "com10", "com1x", "lpt", "lpt10", "auxiliary", "null", "nulls", "prn1"),
        *("conin", "com⁴", "report~v1", "name~1a2b3c4", "name~12345678", "a~b", "~1", "~1.txt", "backup~1.conf"),
        *("conflict (conflict 0a1b2c 3).txt", "a,b", "a=b", "a+b", "[a]", "{a}", "(a)", "a!b", "a'b", "@", "^", "\x7f"),
        *("CLOCK$", "desktop.ini", "Thumbs.db", ".DS_Store", "Icon", "data.sqlite-wal"),
    ],
}
TABLE = [(name, refused) for refused, names in NAMES.items() for name in names]


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 150
    assert len(set(TABLE)) == len(TABLE)


@pytest.mark.parametrize(("name", "refused"), TABLE)
def test_names(name: str, refused: str) -> None:
    for platform in Platform:
        problem = name_problem(name.encode(), platform)
        at_top = name_problem(name.encode(), platform, top=True)
        bad = refused == ALL or (refused == WINDOWS and platform is Platform.WINDOWS)
        assert (problem is not None) == bad, (platform, problem)
        assert (at_top is not None) == (bad or refused == TOP), (platform, at_top)


@pytest.mark.parametrize("raw", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xae", b"\xf5\x80\x80\x80"])
def test_names_must_be_utf8(raw: bytes) -> None:
    assert all(name_problem(raw, platform) == "the name is not UTF-8" for platform in Platform)


def test_what_is_ours_is_what_is_refused() -> None:
    assert ours(".buckia-trash", top=False)
    assert not ours(".buckiaignore", top=True)
    assert ours("_buckia", top=True)
    assert not ours("_buckia", top=False)


def test_paths_have_bounds() -> None:
    assert path_problem((b"a", b"_buckia"), Platform.LINUX) is None
    assert path_problem((b"_buckia", b"a"), Platform.LINUX) is not None
    assert path_problem((), Platform.LINUX) is not None
    assert path_problem((b"a",) * 128, Platform.LINUX) is None
    assert path_problem((b"a",) * 129, Platform.LINUX) is not None
    assert path_problem((b"n" * 240,) * 17, Platform.LINUX) is None
    assert path_problem((b"n" * 255,) * 17, Platform.LINUX) is not None
    assert path_problem((b"a", b".."), Platform.MACOS) is not None
    assert path_problem((b"a", b"nul"), Platform.WINDOWS) is not None


LINKS = [
    (0, "file", True),
    (0, "a/b/c", True),
    (0, "./a", True),
    (0, "..", False),
    (0, "../x", False),
    (1, "../x", True),
    (1, "..", True),
    (1, "../..", False),
    (2, "../../x", True),
    (2, ".././../x", True),
    (2, "../../../x", False),
    (0, "/etc/passwd", False),
    (5, "/", False),
    (5, "//x", False),
    (5, "a/../b", False),  # if a is a link, its parent is anywhere
    (5, "../a/..", False),
    (0, "a\0b", False),
    (0, "", False),
    (0, "..x", True),
    (0, ".", True),
]


@pytest.mark.parametrize(("depth", "target", "inside"), LINKS)
def test_links_that_lead_out_are_told(depth: int, target: str, inside: bool) -> None:
    for platform in Platform:
        assert (link_problem(depth, target.encode(), platform) is None) == inside


@pytest.mark.parametrize(
    "target", [b"C:\\x", b"c:x", "\u0540:".encode(), b"./C:x", b"a:b", b"\\\\server\\share", b"\\x", b"..\\x"]
)
def test_windows_has_more_ways_out(target: bytes) -> None:
    assert link_problem(0, target, Platform.WINDOWS) is not None
    assert link_problem(0, target, Platform.LINUX) is None


def test_new_names_are_normalised() -> None:
    assert bucket_name("e\u0301") == "é".encode()
    assert bucket_name("plain") == b"plain"
    assert bucket_name("\udcff") is None
    assert bucket_name("\u0958" * 80) is None  # grows beyond the limit


def test_foldings() -> None:
    assert fold_insensitive(b"STRASSE") == fold_insensitive("straße".encode())
    assert fold_insensitive("É".encode()) == fold_insensitive("e\u0301".encode())
    assert fold_for(Platform.LINUX, case_insensitive=False) is None
    assert fold_for(Platform.WINDOWS, case_insensitive=False) is None
    assert fold_for(Platform.LINUX, case_insensitive=True) is fold_insensitive
    normalising = fold_for(Platform.MACOS, case_insensitive=False)
    assert normalising is not None
    assert normalising("é".encode()) == normalising("e\u0301".encode())
    assert normalising(b"A") != normalising(b"a")


def test_joining_takes_plain_components_only() -> None:
    assert safe_join("/root", "a", "b") == "/root/a/b"
    assert safe_join("/", "a") == "/a"
    for part in ("", ".", "..", "a/b", "a\0"):
        with pytest.raises(LocalError):
            safe_join("/root", "a", part)
