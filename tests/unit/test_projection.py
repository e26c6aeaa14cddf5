"""What a device shows: the same names on every device, no name twice, none too long, and everything shown somewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.core.ids import DeviceId
from buckia.core.manifest import NAME_BYTES_MAX, Kind, Subtree
from buckia.core.projection import DIRECTORY_MODE, project, project_directory
from tests.trees import A, B, C, chunk, entry, file, folder, symlink

TREE = Subtree(chunk(1), b"c" * 32, 3, 70)


def names(shown):
    return [one.name for one in shown]


def fold(name):
    return name.decode().casefold()


def test_one_version_is_shown_as_it_is():
    (shown,) = project(entry(b"f.txt", file(mode=0o600)))
    assert (shown.name, shown.entry_name, shown.kind, shown.mode) == (b"f.txt", b"f.txt", Kind.FILE, 0o600)
    assert shown.versions == (file(mode=0o600),)
    assert shown.dots == {file().dot}


def test_the_latest_version_has_the_name_and_the_others_are_copies():
    versions = file(A, 3, 1, 10), file(B, 2, 2, 30), symlink(C, 7)
    shown = project(entry(b"f.txt", *versions))
    assert names(shown) == [b"f.txt", b"f (conflict 616161 3).txt", b"f (conflict 636363 7).txt"]
    assert [one.versions for one in shown] == [(versions[1],), (versions[0],), (versions[2],)]
    assert {one.entry_name for one in shown} == {b"f.txt"}
    assert [one.kind for one in shown] == [Kind.FILE, Kind.FILE, Kind.SYMLINK]


def test_equal_times_are_settled_by_dot():
    shown = project(entry(b"f", file(A, 9, 1), file(B, 1, 2), file(B, 2, 3)))
    assert [one.versions[0].dot.seq for one in shown] == [2, 1, 9]


def test_equal_values_are_one_version_with_all_dots():
    versions = file(A, 1, 5, 1), file(B, 1, 5, 9), file(C, 1, 6, 5)
    first, second = project(entry(b"f", *versions))
    assert first.versions == (versions[1], versions[0])
    assert first.dots == {versions[0].dot, versions[1].dot}
    assert second.versions == (versions[2],)


def test_a_directory_keeps_the_name_and_files_are_copies():
    main, copy = project(entry(b"p.d", file(A, 1, mtime_ns=99), folder(B, 2, 0o700), folder(A, 9, 0o711), subtree=TREE))
    assert (main.name, main.kind, main.mode) == (b"p.d", Kind.DIRECTORY, 0o700)
    assert main.versions == (folder(B, 2, 0o700), folder(A, 9, 0o711))
    assert (copy.name, copy.kind) == (b"p (conflict 616161 1).d", Kind.FILE)


def test_a_directory_without_a_version():
    (shown,) = project(entry(b"p", subtree=TREE))
    assert (shown.kind, shown.versions, shown.mode, shown.dots) == (Kind.DIRECTORY, (), DIRECTORY_MODE, frozenset())
    assert names(project(entry(b"p", file(), subtree=TREE))) == [b"p", b"p (conflict 616161 1)"]


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        (b"a.tar.gz", b"a.tar (conflict 616161 1).gz"),
        (b".bashrc", b".bashrc (conflict 616161 1)"),
        (b"name", b"name (conflict 616161 1)"),
        (b"name.", b"name (conflict 616161 1)."),
        (b"see p. " + b"x" * 40, b"see p. " + b"x" * 40 + b" (conflict 616161 1)"),
        (b"x" * 251 + b".jpg", b"x" * 231 + b" (conflict 616161 1).jpg"),
        ("ü".encode() * 127, "ü".encode() * 117 + b" (conflict 616161 1)"),
    ],
)
def test_names_of_copies(name, copy):
    shown = project(entry(name, file(A, 1), file(B, 1, 2)))
    assert names(shown) == [name, copy]
    assert len(copy) <= NAME_BYTES_MAX


def test_copies_give_way_to_real_names():
    taken = entry(b"f (conflict 616161 1).txt", file(C, 1))
    entries = [taken, entry(b"f.txt", file(A, 1), file(B, 1, 2))]
    assert names(project_directory(entries)) == [taken.name, b"f.txt", b"f (conflict 616161 1 2).txt"]
    similar = DeviceId(b"aaa" + b"z" * 13)
    shown = project(entry(b"f", file(B, 9, 1), file(A, 1, 2), file(similar, 1, 3)))
    assert names(shown) == [b"f", b"f (conflict 616161 1)", b"f (conflict 616161 1 2)"]


def test_names_that_fold_to_one_are_shown_aside():
    entries = [
        entry(b"README", file(A, 1)),
        entry(b"Readme", file(B, 2)),
        entry(b"readme", subtree=TREE),
        entry(b"x", file()),
    ]
    shown = project_directory(entries, fold)
    assert names(shown)[:2] == [b"README", b"Readme~6262622"]
    assert names(shown)[2].startswith(b"readme~")
    assert [one.entry_name for one in shown] == [one.name for one in entries]
    assert names(project_directory(entries)) == [one.name for one in entries]


def test_names_aside_give_way_to_real_names():
    entries = [entry(b"A", file()), entry(b"a", file(B, 2)), entry(b"a~6262622", file())]
    assert names(project_directory(entries, fold)) == [b"A", b"a~6262622~2", b"a~6262622"]


NAMES = st.lists(st.sampled_from(["a", "A", "ü", "Ü", "."]), min_size=3, max_size=4).map(
    lambda one: "".join(one).encode()
)
VERSIONS = st.lists(
    st.builds(file, st.sampled_from([A, B, C]), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2)),
    min_size=1,
    max_size=4,
    unique_by=lambda one: (one.dot.device, one.dot.seq),
)


@given(st.dictionaries(NAMES, VERSIONS, max_size=8))
def test_every_version_is_shown_once_under_a_name_of_its_own(contents):
    entries = [entry(name, *versions) for name, versions in sorted(contents.items())]
    for target in (None, fold):
        shown = project_directory(entries, target)
        folded = [target(one.name) if target else one.name for one in shown]
        assert len(folded) == len(set(folded))
        assert sorted((one.entry_name, version.dot) for one in shown for version in one.versions) == sorted(
            (item.name, version.dot) for item in entries for version in item.versions
        )
