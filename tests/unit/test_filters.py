"""What a sync covers is exactly what was asked for, by component, and its identity changes whenever it does."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.errors import UsageError
from buckia.local.filters import Filters


def test_nothing_is_left_out_by_default() -> None:
    filters = Filters()
    assert filters.everything
    assert filters.covers("a/b.txt", False)
    assert filters.covers(b"\xff", False)
    assert filters.descends(b"a")
    assert filters.key() == ""
    assert filters.salt("a") == b""


def test_include_and_exclude_are_searched_in_the_path_and_exclude_wins() -> None:
    filters = Filters(include=r"\.(jpg|png)$", exclude=r"(^|/)private/")
    assert filters.covers("photos/a.jpg", False)
    assert not filters.covers("photos/a.gif", False)
    assert not filters.covers("private/a.jpg", False)
    assert not filters.covers("x/private/a.jpg", False)
    assert filters.covers("x/notprivate/a.jpg", False)
    assert filters.descends("photos")
    assert not filters.covers("photos", True)


def test_a_directory_matches_with_its_slash() -> None:
    filters = Filters(exclude="^cache/")
    assert not filters.covers("cache", True)
    assert filters.covers("cache", False)
    assert not filters.descends("cache")
    assert filters.descends("cached")


@pytest.mark.parametrize("exclude", ["^a/$", r"^a/\Z", r"^a/\b$", "^a/(?!b)", "(?i)^A/"])
def test_a_directory_is_left_out_whole_only_where_that_is_certain(exclude: str) -> None:
    assert Filters(exclude=exclude).descends("a")


@given(
    st.sampled_from(["a", "a/", "^a/b", "[ab]/+", "b.c", "(a|b)/c?", "a+b*", "/"]),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
)
def test_nothing_covered_lies_where_the_scan_does_not_go(exclude: str, above: list[str], below: list[str]) -> None:
    filters = Filters(exclude=exclude)
    if not filters.descends("/".join(above)):
        assert not filters.covers("/".join([*above, *below]), False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "a("}, r"include_pattern 'a\(' is no regular expression: .* at position 1"),
        ({"exclude": "[z-a]"}, "exclude_pattern .* at position 1"),
        ({"sync_paths": ["../x"]}, "does not lie in the folder"),
        ({"sync_paths": ["/etc"]}, "does not lie in the folder"),
        ({"sync_paths": ["a/../../b"]}, "does not lie in the folder"),
    ],
)
def test_nonsense_is_a_usage_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Filters(**options)  # type: ignore[arg-type]


def test_chosen_paths_match_by_component() -> None:
    filters = Filters(sync_paths=["images", "./docs//a/"])
    assert filters.covers("images", True)
    assert filters.covers("images/x", False)
    assert not filters.covers("images-old/x", False)
    assert not filters.covers("docs", True)
    assert filters.descends("docs")
    assert filters.covers("docs/a/b", False)
    assert not filters.covers("docs/ab", False)
    assert filters.descends("docs/a/b")
    assert not filters.descends("other")
    assert Filters(sync_paths=["."]).covers("anything", False)
    assert not Filters(sync_paths=[]).covers("anything", False)


def ignoring(*files: tuple[str, str]) -> Filters:
    filters = Filters()
    for directory, content in files:
        filters.add_ignore_file(directory, content.encode())
    return filters


def test_ignore_files_have_gitignore_syntax() -> None:
    filters = ignoring(("", "# a comment\n*.log\n!keep.log\nbuild/\n/top\ndoc/**/x\n\\#odd\n"))
    for path, is_directory, covered in [
        ("a.log", False, False),
        ("d/a.log", False, False),
        ("keep.log", False, True),
        ("build", True, False),
        ("build", False, True),
        ("d/build/deep/file", False, False),
        ("top", False, False),
        ("d/top", False, True),
        ("doc/a/b/x", False, False),
        ("#odd", False, False),
    ]:
        assert filters.covers(path, is_directory) == covered, path
    assert not filters.descends("build")
    assert filters.descends("d")


def test_deeper_ignore_files_decide_and_see_paths_below_them_only() -> None:
    filters = ignoring(("", "*.tmp\n/only-top\n"), ("a", "!good.tmp\n/local\n"))
    assert filters.covers("a/good.tmp", False)
    assert filters.covers("a/b/good.tmp", False)
    assert not filters.covers("good.tmp", False)
    assert not filters.covers("a/bad.tmp", False)
    assert not filters.covers("a/local", False)
    assert filters.covers("local", False)
    assert filters.covers("a/only-top", False)


def test_nothing_in_an_ignored_directory_comes_back() -> None:
    filters = ignoring(("", "a/\n"), ("a", "!*\n"))
    assert not filters.covers("a/b", False)
    assert not filters.covers("a/b/c", False)


def test_ignore_files_are_synced_whatever_they_say() -> None:
    filters = ignoring(("", "*\n"), ("a", "*\n"))
    assert filters.covers(".buckiaignore", False)
    assert not filters.covers("x", False)


def test_lines_that_are_no_patterns_are_reported_and_skipped() -> None:
    filters = ignoring(("d", "[z-a]\n*.log\n"))
    assert not filters.covers("d/x.log", False)
    assert len(filters.warnings) == 1
    assert "d/.buckiaignore, line 1" in filters.warnings[0]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("*a" * 250 + "b", "a" * 255),
        ("*" * 40 + "x", "a" * 255),
        ("?*" * 200 + "b", "a" * 255),
        ("*" + "[a]" * 127 + "b*", "a" * 255),
        ("**/a/" * 60 + "b", "/".join("a" * 128)),
        ("**/*a/" * 60 + "*b", "/".join(["a" * 31] * 128)),
        ("**/" + "*a/" * 64 + "*b/**/x", "/".join(["a" * 31] * 128)),
    ],
)
def test_no_ignore_line_takes_long_to_tell_that_it_does_not_match(line: str, name: str) -> None:
    assert ignoring(("", line)).covers(name, False)


def test_what_an_ignore_file_may_hold_is_limited() -> None:
    filters = ignoring(("", "*" * 513 + "\n#" + "-" * 600 + "\n" + "*.a\n" * 1000 + "*.b\nplain\n"))
    assert filters.warnings == [
        ".buckiaignore, line 1 is no pattern: it is longer than 512 characters.",
        ".buckiaignore, line 1003 is no pattern: only 1000 lines of a file may have wildcards.",
    ]
    assert [filters.covers(name, False) for name in ("x.a", "x.b", "plain")] == [False, True, False]
    assert len(ignoring(("", "[\n" * 1000)).warnings) == 11


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("[[]", "["),
        ("[a--b]", ""),
        ("[+--]", "-"),
        ("[a&&b]", "ab&"),
        ("[a||b]", "ab|"),
        ("[a~~b]", "ab~"),
        ("[]a]", "]a"),
        ("[[:alpha:]]", "ab"),
        ("[^]]", "[ab&|~-"),
        (r"[\]a]", "]a"),
    ],
)
def test_brackets_are_those_of_gitignore_and_warn_of_nothing(line: str, ignored: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = ignoring(("", line))
    assert {character for character in "[]ab&|~-" if not filters.covers(character, False)} == set(ignored)


@pytest.mark.parametrize(
    ("line", "ignored", "covered"),
    [
        ("**/b", ["b", "a/b"], ["a/bb"]),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c"], ["b/c", "a/b"]),
        ("**/a/**/b/**", ["a/b/c", "x/a/y/b/c"], ["a/b", "b/a/b"]),
        ("**", ["b", "a/b"], []),
        ("/*", ["a", "b/c"], []),
        ("a/*", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("a/?", ["a/b"], ["a/bb"]),
        ("a**c", ["ac", "abc", "x/abc"], ["a/c"]),
        (r"a\/b", ["a/b"], ["b"]),
        (r"\!x", ["!x"], ["x"]),
        ("!x", [], ["x", "!x"]),
        (r"y\  ", ["y "], ["y"]),
        ("y ", ["y"], ["y "]),
        ("b", ["b", "a/b", "b/a"], ["ab"]),
        ("/b", ["b"], ["a/b"]),
        ("a/b", ["a/b"], ["x/a/b"]),
        ("a//b", [], ["a/b"]),
        ("/", [], ["a"]),
        ("a\u2028b", ["a\u2028b"], ["a", "b"]),
        ("x\r", ["x"], ["x\r"]),
    ],
)
def test_patterns_match_the_paths_that_git_matches(line: str, ignored: list[str], covered: list[str]) -> None:
    filters = ignoring(("", f"{line}\n"))
    assert [path for path in (*ignored, *covered) if filters.covers(path, False)] == covered


def test_the_last_line_that_matches_decides() -> None:
    filters = ignoring(("", "*.log\n!keep.log\nkeep.*\n!/d/keep.log\nd/\n!e/\n"))
    assert not filters.covers("keep.log", False)
    assert not filters.covers("d/keep.log", False)
    assert filters.covers("d", False)
    assert filters.covers("e", True)


def test_bytes_that_are_no_text_do_no_harm() -> None:
    filters = Filters()
    filters.add_ignore_file("", b"\xff\xfe\x00*\n\xef\xbb\xbf*.log\r\n")
    assert not filters.covers("a.log", False) or filters.covers("a.txt", False)


def test_the_key_and_the_salt_follow_what_is_covered() -> None:
    keys = {
        Filters().key(),
        Filters(include="a").key(),
        Filters(exclude="a").key(),
        Filters(sync_paths=["a"]).key(),
        Filters(sync_paths=["a", "b"]).key(),
        Filters(sync_paths=[]).key(),
        ignoring(("", "a")).key(),
        ignoring(("", "b")).key(),
        ignoring(("a", "b")).key(),
    }
    assert len(keys) == 9
    assert Filters(sync_paths=["b/", "a"]).key() == Filters(sync_paths=["a", "./b"]).key()
    above = ignoring(("a", "x"))
    assert above.salt("") == b""
    assert above.salt("a") == above.salt("a/b") != b""
    assert above.salt("c") == b""
    assert Filters(include="a").salt("x") != b""
