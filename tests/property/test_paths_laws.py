"""Laws of names: what is accepted stays below the root on any disk, and what folds to ours is refused everywhere."""

from __future__ import annotations

import posixpath
import unicodedata
from pathlib import PureWindowsPath

from hypothesis import given
from hypothesis import strategies as st

from buckia.local.paths import (
    Platform,
    bucket_name,
    fold_insensitive,
    link_problem,
    name_problem,
    ours,
    path_problem,
    safe_join,
)

TRICKS = st.sampled_from(
    [
        *"./\\:\0 ~-_aB1",
        "..",
        ".buckia",
        "_buckia",
        "con",
        "nul",
        "\u200c",
        "\u212a",
        "\ufeff",
        "\u0301",
        "$",
        "CON.",
        "é",
    ]
)
NAMES = st.one_of(st.lists(TRICKS, max_size=6).map("".join), st.text(max_size=12))
RAW = st.one_of(NAMES.map(lambda name: name.encode("utf-8", "surrogatepass")), st.binary(max_size=12))


@given(st.lists(RAW, max_size=6), st.sampled_from(list(Platform)))
def test_an_accepted_path_stays_below_the_root(parts: list[bytes], platform: Platform) -> None:
    if path_problem(parts, platform) is not None:
        return
    names = [part.decode() for part in parts]
    joined = safe_join("/root", *names)
    assert posixpath.normpath(joined) == joined
    assert joined.startswith("/root/")
    if platform is Platform.WINDOWS:
        assert PureWindowsPath(*names).parts == tuple(names)
        assert not PureWindowsPath(*names).is_absolute()


@given(RAW, st.booleans())
def test_windows_is_the_strictest(raw: bytes, top: bool) -> None:
    if name_problem(raw, Platform.WINDOWS, top=top) is None:
        assert name_problem(raw, Platform.LINUX, top=top) is None
        assert name_problem(raw, Platform.MACOS, top=top) is None


@given(NAMES)
def test_what_folds_to_ours_is_ours(name: str) -> None:
    folded = unicodedata.normalize("NFC", name).casefold()
    if folded.startswith(".buckia") and name != ".buckiaignore" and not name.startswith(".buckiaignore (conflict "):
        assert ours(name, top=False)
    if ours(name, top=False):
        assert ours(name, top=True)
        assert ours(name.upper(), top=False) or name.upper().casefold() != name.casefold()


@given(st.text(max_size=20))
def test_names_are_normalised_once(name: str) -> None:
    result = bucket_name(name)
    if result is not None:
        assert bucket_name(result.decode()) == result
        assert fold_insensitive(result) == fold_insensitive(name.encode())
        assert len(result) <= 255


@given(st.lists(st.sampled_from(["..", ".", "a", "b", ""]), max_size=8), st.integers(0, 4))
def test_links_that_are_let_in_end_inside(parts: list[str], depth: int) -> None:
    target = "/".join(parts)
    if link_problem(depth, target.encode(), Platform.LINUX) is None:
        place = "/root" + "/d" * depth
        assert posixpath.normpath(f"{place}/{target}").startswith("/root")
