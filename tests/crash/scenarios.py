"""The scenarios whose every effect is a crash point: what was before, what the users did, and whose sync dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from buckia.core.ids import DeviceId, ObjectId, object_id
from buckia.core.record import (
    Condemn,
    Record,
    encode_record,
    pack_key,
    parse_pack_key,
    parse_tip_key,
    record_key,
    tip_key,
)
from tests.crash.world import PREFIX, Habits, Inject, World, noise

BIG = noise(700_000, 1)
"""A file of several chunks."""
MEDIUM = noise(120_000, 2)
COLLECTOR = DeviceId(b"\xcc" * 16)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``prepare`` makes the world; then ``victim`` syncs, and dies.

    ``shrink`` maps "module:NAME" to a number that stands in for the product's own, so that rare paths are taken by small worlds.
    ``may_conflict``: a crash may leave both versions of a conflict for the users to choose from.
    """

    name: str
    prepare: Callable[[World], None]
    victim: str = "a"
    inject: Inject | None = None
    shrink: Mapping[str, int] = field(default_factory=dict)
    may_conflict: bool = False


# ---- preparations


def _fill(world: World, habits: Habits = Habits()) -> None:  # noqa: B008  a frozen value
    """Two devices in step."""
    a = world.device("a", habits)
    a.put("notes.txt", b"first line\n")
    a.put("data/big.bin", BIG)
    a.put("data/medium.bin", MEDIUM)
    a.put("data/deep/er/leaf", b"leaf")
    a.put("empty", b"")
    a.put("old.txt", b"to be deleted")
    a.put("away/one", b"goes with its directory")
    a.sync()
    world.device("b", habits).sync()


def first_sync(world: World) -> None:
    a = world.device("a")
    a.put("notes.txt", b"first line\n")
    a.put("data/big.bin", BIG)
    a.put("data/medium.bin", MEDIUM)
    a.put("data/same.bin", MEDIUM)
    a.put("data/deep/er/leaf", b"leaf")
    a.put("empty", b"")
    a.put("void/", b"")
    a.put("link", "data/big.bin")


def _edits(world: World, name: str) -> None:
    device = world.device(name)
    device.put("notes.txt", b"first line\nsecond line\n")
    device.put("data/big.bin", BIG[:300_000] + b"inserted" + BIG[300_000:])
    device.remove("old.txt")
    device.remove("away")
    device.move("data/medium.bin", "data/renamed.bin")
    device.put("new/file", b"new")


def edit_delete_rename(world: World) -> None:
    _fill(world)
    _edits(world, "a")


def receive(world: World) -> None:
    _fill(world)
    _edits(world, "a")
    world.device("a").sync()


def receive_and_send(world: World) -> None:
    receive(world)
    b = world.device("b")
    b.put("from-b", b"written on b")
    b.put("data/deep/er/leaf", b"leaf, edited on b")
    b.remove("empty")


def _conflict(policy: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        habits = Habits(policy=policy)
        _fill(world, habits)
        a, b = world.device("a"), world.device("b")
        b.put("notes.txt", b"b's version\n")
        b.put("data/deep/er/leaf", b"b's leaf")
        b.put("both", b"new on b")
        b.sync()
        a.put("notes.txt", b"a's longer version\n")
        a.put("data/deep/er/leaf", b"a's own leaf")
        a.put("both", b"new on a as well")
        a.put("unrelated", b"of a")

    return prepare


def _interrupted(before: str) -> Callable[[World], None]:
    """A sync of a that was killed right before the first request to put a key that begins so."""

    def prepare(world: World) -> None:
        _fill(world)
        _edits(world, "a")
        world.run(world.device("a"), "kill", _effects_until(world, before))
        world.device("a").come_back("kill")
        world.device("a").put("notes.txt", b"and edited once more\n")
        b = world.device("b")
        b.put("meanwhile", b"b goes on")
        b.sync()

    return prepare


def _effects_until(world: World, before: str) -> int:
    twin = World.load(world.save())
    device = twin.device("a")
    number = 1
    while True:
        twin = World.load(world.save())
        device = twin.device("a")
        assert twin.run(device, "kill", number) is None, f"nothing put {before}"
        if twin.last.startswith(f"put {PREFIX}{before}"):
            return number - 1
        number += 1


def many_records(world: World) -> None:
    """So many commits that segments are due, and one is there already to be merged and deleted."""
    a, b = world.device("a"), world.device("b")
    for number in range(5):
        a.put(f"file{number}", b"a%d" % number)
        a.sync()
        b.put(f"other{number}", b"b%d" % number)
        b.sync()
    a.sync()
    assert any("/segments/" in key for key in world.bucket.objects)
    a.put("last", b"one more")


def change_types(world: World) -> None:
    """Files become directories, directories files, links files, and the reverse."""
    a, b = world.device("a"), world.device("b")
    a.put("file-to-dir", b"a file")
    a.put("dir-to-file/inside", b"inside a directory")
    a.put("link-to-file", "file-to-dir")
    a.put("file-to-link", b"soon a link")
    a.put("dir-to-link/x/y", b"deep")
    a.put("mode", b"same bytes", mode=0o644)
    a.put("swap1", MEDIUM)
    a.put("swap2", BIG)
    a.sync()
    b.sync()
    for path in ("file-to-dir", "dir-to-file", "link-to-file", "file-to-link", "dir-to-link"):
        a.remove(path)
    a.put("file-to-dir/now", b"in a directory")
    a.put("file-to-dir/empty/", b"")
    a.put("dir-to-file", b"now a file")
    a.put("link-to-file", b"no link any more")
    a.put("file-to-link", "mode")
    a.put("dir-to-link", "file-to-dir")
    a.put("mode", b"same bytes", mode=0o600)
    a.put("swap1", BIG)
    a.put("swap2", MEDIUM)
    a.sync()


def relies_on_old_packs(world: World) -> None:
    """a will store nothing of what b deleted, as it is in an older pack: the pack that the collector condemns."""
    a, b = world.device("a"), world.device("b")
    a.put("kept", b"kept by a")
    a.put("treasure", MEDIUM)
    a.sync()
    b.sync()
    a.move("treasure", "elsewhere")
    a.put("new", b"new on a")
    b.remove("treasure")
    b.sync()


# ---- a collector


def condemn(world: World, packs: list[ObjectId], seq: int = 1, prev: ObjectId | None = None) -> Record:
    """What a collector publishes; it knows all tips that are in the bucket."""
    vector = []
    for key in world.bucket.objects:
        parsed = parse_tip_key(key.removeprefix(PREFIX))
        if parsed is not None and parsed[0] != COLLECTOR:
            vector.append(parsed)
    record = Record(COLLECTOR, seq, prev, (), tuple(sorted(vector)), 0, "collector", Condemn(tuple(sorted(packs))))
    data = encode_record(record)
    world.bucket.put(PREFIX + record_key(COLLECTOR, seq, object_id(data)), data)
    world.bucket.put(PREFIX + tip_key(COLLECTOR, seq, object_id(data)), bytes(object_id(data)))
    return record


def packs_of(world: World) -> list[ObjectId]:
    """All packs in the bucket, by the time of their arrival."""
    found = [parse_pack_key(key.removeprefix(PREFIX)) for key in world.bucket.written if key in world.bucket.objects]
    return [pack for pack in found if pack is not None]


def condemn_old(world: World, verb: str, key: str) -> None:
    """All packs of before, once, right before the victim's first record."""
    if verb == "put" and key.startswith("packs/") and "before" not in world.memory:
        world.memory["before"] = packs_of(world)
    if verb == "put" and key.startswith("journal/") and "condemned" not in world.memory:
        world.memory["condemned"] = world.memory["before"]
        condemn(world, world.memory["before"])


def condemn_new(world: World, verb: str, key: str) -> None:
    """The pack that has just been put and that no record names: to a collector it looks like garbage."""
    if verb == "put" and key.startswith("journal/") and "condemned" not in world.memory and packs_of(world):
        world.memory["condemned"] = packs_of(world)[-1:]
        condemn(world, world.memory["condemned"])


def collect(world: World) -> None:
    """Delete what was condemned, as a collector does that saw nobody need it when it looked."""
    for pack in world.memory.get("condemned", ()):
        world.bucket.objects.pop(PREFIX + pack_key(pack), None)


SEGMENTS_SOON = {
    "buckia.store.catalog:UNCOVERED_MAX": 4,
    "buckia.store.repository:UNCOVERED_MAX": 4,
}
PACKS_SOON = {**SEGMENTS_SOON, "buckia.store.repository:SMALL_PACKS_MAX": 3}

SCENARIOS = [
    Scenario("first sync", first_sync),
    Scenario("edit, delete and rename", edit_delete_rename),
    Scenario("receive", receive, victim="b"),
    Scenario("conflict, remote wins", _conflict("remote_wins"), may_conflict=True),
    Scenario("finish an interrupted sync", _interrupted("journal/")),
    Scenario("segments", many_records, shrink=SEGMENTS_SOON),
    Scenario("change types", change_types, victim="b"),
    Scenario("rescue", relies_on_old_packs, inject=condemn_old),
]
