"""What crashes and chaos have brought to light, each as small as it can be."""

from __future__ import annotations

import pytest

from tests.crash.world import MortalConnection, World, check_bucket, noise


def test_a_commit_that_consolidates_may_hold_a_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of its chunks are on their way when the tree is searched for what lies in small packs."""
    monkeypatch.setattr("buckia.store.catalog.UNCOVERED_MAX", 4)
    monkeypatch.setattr("buckia.store.repository.SMALL_PACKS_MAX", 2)
    world = World()
    a = world.device("a")
    for number in range(12):
        a.put(f"small{number}", noise(100, number))
        a.put("large", noise(300_000, 100 + number))
        assert a.sync().uploaded == 2
    world.device("clone").sync()
    assert world.device("clone").tree() == a.tree()
    assert noise(300_000, 105) in check_bucket(world)


def test_a_state_whose_cache_was_dropped_goes_on_under_its_identity() -> None:
    """Another version's schema drops what is cached: records are fetched again, what is trusted stays."""
    world = World()
    a, b = world.device("a"), world.device("b")
    a.put("of-a", b"a")
    a.sync()
    b.sync()
    b.put("of-b", b"b")
    b.sync()
    a.sync()
    a.put("more", b"more of a")
    a.connection._db.execute("PRAGMA user_version=0")
    a.connection = MortalConnection(world, a.connection.written())
    assert a.sync().uploaded == 1
    b.sync()
    assert a.tree() == b.tree() == {"of-a": b"a", "of-b": b"b", "more": b"more of a"}
    assert len([key for key in world.bucket.objects if "/tips/" in key]) == 2


@pytest.mark.parametrize("edit", ["add", "change"])
def test_what_others_put_into_a_directory_that_was_deleted_here_stays_in_it(edit: str) -> None:
    world = World()
    a, b = world.device("a"), world.device("b")
    a.put("d/below/x", b"x")
    a.put("kept", b"kept")
    a.sync()
    b.sync()
    b.remove("d")
    a.put("d/below/new" if edit == "add" else "d/below/x", b"of a")
    a.sync()
    for device in (b, a, b):
        device.sync()
    path = "d/below/new" if edit == "add" else "d/below/x"
    assert a.tree() == b.tree() == {"d": None, "d/below": None, path: b"of a", "kept": b"kept"}


def test_a_link_that_was_staged_when_the_process_died_is_removed() -> None:
    world = World()
    a, b = world.device("a"), world.device("b")
    a.put("link", "target")
    a.sync()
    stop = 1
    saved = world.save()
    while not b.leftovers():
        world = World.load(saved)
        b = world.device("b")
        assert world.run(b, "kill", stop) is None
        stop += 1
    b.come_back("kill")
    b.sync()
    assert b.leftovers() == []
    assert b.tree() == {"link": "target"}
