"""What waits for a user can be seen and settled by the user: conflicts of all files, and what lies in the way."""

from __future__ import annotations

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
