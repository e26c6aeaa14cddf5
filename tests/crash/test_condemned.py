"""The writer's half of garbage collection: nothing acknowledged depends on a pack that a collector may delete.

The collector of these tests condemns only what no head and no device's newest snapshot needs, and deletes it as soon as
the device has finished, which is the worst that it may do.
"""

from __future__ import annotations

import pytest

from buckia.core.record import Snapshot
from buckia.errors import UnsupportedFormatError
from tests.crash.collector import (
    check_snapshots,
    condemn,
    delete,
    garbage,
    packs_of,
    publish_unknown,
    records_of,
)
from tests.crash.world import World, check_bucket, noise

TREASURE = noise(120_000, 5)


def make_world() -> World:
    """b made everything and a has it; then b deletes some of it, and a moves and edits without knowing."""
    world = World()
    a, b = world.device("a"), world.device("b")
    a.put("of-a", b"a has a snapshot of its own")
    a.sync()
    b.sync()
    b.put("treasure", TREASURE)
    b.sync()
    b.put("same/one", noise(5_000, 6))
    b.put("same/below/two", noise(5_000, 7))
    b.sync()
    a.sync()
    return world


def b_deletes(world: World, *paths: str) -> None:
    b = world.device("b")
    for path in paths:
        b.remove(path)
    b.put("b", b"so that nothing of the old tree is needed")
    b.sync()


def before_record(verb: str, key: str) -> bool:
    return verb == "put" and key.startswith("journal/")


def condemn_garbage(world: World) -> None:
    assert garbage(world)
    condemn(world, garbage(world))


def finish(world: World) -> None:
    """The collector deletes; then everything must still be there, for this device and for a new one."""
    delete(world)
    check_snapshots(world, "a")
    world.device("b").sync()
    world.device("a").sync()
    world.device("b").sync()
    tree = world.device("a").tree()
    for name in ("b", "clone"):
        world.device(name).sync()
        assert world.device(name).tree() == tree


def snapshots_of_a(world: World) -> list[Snapshot]:
    return [record.body for record in records_of(world, "a") if isinstance(record.body, Snapshot)]


def test_what_was_condemned_before_the_sync_is_stored_again() -> None:
    world = make_world()
    b_deletes(world, "treasure")
    condemn_garbage(world)
    world.device("a").move("treasure", "saved")
    before = len(snapshots_of_a(world))
    world.device("a").sync()
    assert len(snapshots_of_a(world)) == before + 1, "no rescue is needed: nothing relied on what was condemned"
    assert world.device("a").tree()["saved"] == TREASURE
    finish(world)
    assert world.device("a").tree()["saved"] == TREASURE


def test_a_pack_condemned_during_the_sync_is_rescued() -> None:
    world = make_world()
    world.device("a").move("treasure", "saved")

    def meanwhile(world: World) -> None:
        b_deletes(world, "treasure")
        condemn_garbage(world)

    world.meanwhile(before_record, meanwhile)
    before = snapshots_of_a(world)
    world.run(world.device("a"), "kill")
    commit, addendum = snapshots_of_a(world)[len(before) :]
    assert commit.state_root == addendum.state_root
    assert addendum.packs
    assert records_of(world, "a")[-1].vector == records_of(world, "a")[-2].vector
    finish(world)
    assert world.device("a").tree()["saved"] == TREASURE


def test_a_pack_that_no_record_names_yet_looks_like_garbage_and_is_rescued() -> None:
    world = make_world()
    world.device("a").put("new", b"in a pack that only a knows")

    def meanwhile(world: World) -> None:
        condemn(world, packs_of(world)[-1:])

    world.meanwhile(before_record, meanwhile)
    world.run(world.device("a"), "kill")
    finish(world)
    assert world.device("b").tree()["new"] == b"in a pack that only a knows"


def test_parts_of_the_tree_that_did_not_change_are_rescued_too() -> None:
    """They are not stored, and so not looked up; but the new snapshot needs them as much as what is new in it."""
    world = make_world()
    world.device("a").put("new", b"of a")

    def meanwhile(world: World) -> None:
        b_deletes(world, "treasure", "same")
        condemn_garbage(world)

    world.meanwhile(before_record, meanwhile)
    world.run(world.device("a"), "kill")
    finish(world)
    assert "same" not in world.device("a").tree()
    assert world.device("b").tree()["new"] == b"of a"


def test_a_pack_that_was_condemned_and_spared_before_can_be_condemned_again() -> None:
    world = make_world()
    condemn(world, packs_of(world))
    world.condemned.clear()  # all of it is needed, so nothing is deleted
    world.device("a").sync()
    world.device("a").move("treasure", "saved")
    world.device("a").sync()
    world.device("a").move("same/one", "one")

    def meanwhile(world: World) -> None:
        b_deletes(world, "same")
        condemn_garbage(world)

    world.meanwhile(before_record, meanwhile)
    world.run(world.device("a"), "kill")
    finish(world)


def test_a_rescue_that_was_cut_off_is_finished_by_the_next_sync() -> None:
    """Also by one that has nothing to publish."""
    world = make_world()
    world.device("a").move("treasure", "saved")
    saved = world.save()
    points = 0
    for stop in range(1, 10_000):
        world = World.load(saved)
        a = world.device("a")

        def meanwhile(world: World) -> None:
            b_deletes(world, "treasure")
            condemn_garbage(world)

        world.meanwhile(before_record, meanwhile)
        if world.run(a, "power", stop) is not None:
            break
        if world.condemned:
            points += 1
            a.come_back("power")
            a.sync()
            finish(world)
            assert a.tree()["saved"] == TREASURE, f"after effect {stop}: {world.last}"
    assert points > 10


def test_after_a_rescue_in_the_next_run_new_nodes_are_sent() -> None:
    """The rescue has packs of its own, which must not take what the run makes afterwards."""
    world = make_world()
    a, b = world.device("a"), world.device("b")
    a.move("treasure", "saved")
    effects = 1
    saved = world.save()
    while True:  # up to the moment when the record is finished and nothing of it is sent
        world = World.load(saved)
        a, b = world.device("a"), world.device("b")
        assert world.run(a, "kill", effects) is None
        if world.last.startswith("put journal/"):
            break
        effects += 1
    a.come_back("kill")
    b_deletes(world, "treasure")
    condemn_garbage(world)
    b.put("same/one", b"another edit, so that the heads must be merged")
    b.sync()
    a.put("more", b"and an edit of a")
    a.sync()
    finish(world)
    assert a.tree()["saved"] == TREASURE
    assert a.tree()["more"] == b"and an edit of a"


@pytest.mark.parametrize(("kind", "features"), [("rotate", ()), ("ack", ("signed",)), ("snapshot", ("delta",))])
def test_what_this_version_does_not_know_makes_it_read_only(kind: str, features: tuple[str, ...]) -> None:
    world = make_world()
    a, b = world.device("a"), world.device("b")
    b.put("last", b"before the other version came")
    b.sync()
    publish_unknown(world, kind, features)
    assert a.sync().downloaded == 1, "reading works"
    assert a.tree()["last"] == b"before the other version came"
    assert world.device("new").sync().downloaded == 5
    a.put("edit", b"cannot be published")
    before = dict(world.bucket.objects)
    with pytest.raises(UnsupportedFormatError, match=features[0] if features else kind):
        a.sync()
    assert a.tree()["edit"] == b"cannot be published"
    world.device("new").put("edit", b"nor by a device that has no record yet")
    with pytest.raises(UnsupportedFormatError):
        world.device("new").sync()
    assert world.bucket.objects == before, "a device that may only read has written"
    check_bucket(world)
