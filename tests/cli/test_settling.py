"""What waits for a user can be seen and settled by the user: conflicts of all files, and what lies in the way."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.cli.support import World, wait_a_tick


def test_a_conflict_in_an_ignore_file_is_settled_like_any_other(world: World) -> None:
    """The copies of an ignore file are ordinary files, and only the one under the plain name has a meaning."""
    a, b = world.pair()
    a.fill({".buckiaignore": "*.tmp\n", "x.log": "1", "keep": "k"})
    a.sync()
    b.fill({".buckiaignore": "*.log\n", "y.tmp": "2"})
    b.sync()
    a.sync()
    result = b.sync()
    assert (result.conflicts, result.skipped, result.failed, result.warnings) == (1, 0, 0, [])
    ((conflict),) = result.conflict_list
    assert conflict.path == ".buckiaignore"
    (copy,) = conflict.copies
    assert {b.read(".buckiaignore"), b.read(copy)} == {b"*.tmp\n", b"*.log\n"}
    assert a.tree()[copy] == b.read(copy)
    chosen = b.read(copy)
    (b.root / copy).rename(b.root / ".buckiaignore")
    wait_a_tick()
    settled = b.sync(delete_orphaned=True)
    assert (settled.conflicts, settled.failed, settled.warnings) == (0, 0, [])
    assert a.sync().conflicts == 0
    assert a.read(".buckiaignore") == b.read(".buckiaignore") == chosen
    assert not [path for path in a.tree() if "(conflict" in path]


@pytest.mark.parametrize("by", ["filter", "ignore file"])
def test_an_ignored_directory_in_the_way_of_a_file_stays_and_is_named(world: World, by: str) -> None:
    """One true sentence says what lies in the way and what to do, until it is moved away."""
    a, b = world.pair()
    a.write("k", "k")
    a.sync()
    b.sync()
    options = {"exclude_pattern": "^build/"} if by == "filter" else {}
    b.write("build/own", "mine")
    if by == "ignore file":
        b.write(".buckiaignore", "build/\n")
    b.sync(**options)
    a.write("build", "a file")
    a.sync()
    for _ in range(2):
        result = b.sync(**options)
        assert (result.failed, result.conflicts, result.downloaded) == (0, 1, 0)
        assert [conflict.path for conflict in result.conflict_list] == ["build"]
        (warning,) = result.warnings
        assert warning.startswith("The directory “build”, which this sync leaves out, lies where the folder has a file")
        assert b.read("build/own") == b"mine"
    with b.client() as client:
        plan = client.plan(b.root, **options)
        assert ([action.kind for action in plan], plan.warnings) == (["conflict"], result.warnings)
    (b.root / "build").rename(b.root / "other")
    settled = b.sync(**options)
    assert (settled.conflicts, settled.failed, settled.warnings) == (0, 0, [])
    assert (b.read("build"), b.read("other/own")) == (b"a file", b"mine")


def test_an_ignored_file_in_the_way_of_a_directory_stays_and_is_named(world: World) -> None:
    a, b = world.pair()
    a.write("k", "k")
    a.sync()
    b.write("x.tmp", "mine")
    b.sync(exclude_pattern="tmp$")
    a.fill({"x.tmp/deep/q": "1", "x.tmp/r": "2"})
    a.sync()
    result = b.sync(exclude_pattern="tmp$")
    assert (result.failed, result.conflicts) == (0, 1)
    (warning,) = result.warnings
    assert warning.startswith("The file “x.tmp”, which this sync leaves out, lies where the folder has a directory")
    assert b.read("x.tmp") == b"mine"
    (b.root / "x.tmp").unlink()
    assert b.sync(exclude_pattern="tmp$").failed == 0
    assert b.read("x.tmp/deep/q") == b"1"


def test_a_directory_that_holds_what_is_left_out_does_not_give_way_to_a_file_and_says_so(world: World) -> None:
    """Its file stays, each run tells the truth, and once it is moved away the file of the folder comes."""
    a, b = world.pair()
    a.write("d/x", "1")
    a.sync()
    b.sync()
    (b.root / "d/skip.tmp").write_text("mine")
    shutil.rmtree(a.root / "d")
    a.write("d", "a file now")
    wait_a_tick()
    a.sync(delete_orphaned=True)
    for _ in range(2):
        (failure,) = b.sync(exclude_pattern=r"\.tmp$").errors
        assert failure.path == "d"
        assert failure.reason.startswith("d is a directory here that holds what is not synced; move that away")
        assert (b.root / "d/skip.tmp").read_text() == "mine"
    (b.root / "d/skip.tmp").unlink()
    (b.root / "d").rmdir()
    assert b.sync(exclude_pattern=r"\.tmp$").failed == 0
    assert (b.root / "d").read_text() == "a file now"


def test_a_pipe_in_the_way_of_a_file_is_named(world: World) -> None:
    a, b = world.pair()
    a.write("k", "k")
    a.sync()
    b.sync()
    os.mkfifo(b.root / "new")
    a.write("new", "a file")
    a.sync()
    (warning,) = b.sync().warnings
    assert warning.startswith("The special file “new”")
    (b.root / "new").unlink()
    assert b.sync().downloaded == 1
