"""The scenarios whose every effect is a crash point: what was before, what the users did, and whose sync dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.crash.collector import condemn, garbage, unnamed
from tests.crash.world import Act, Habits, Moment, Tree, World, noise

BIG = noise(700_000, 1)
"""A file of several chunks."""
MEDIUM = noise(120_000, 2)
LARGE = noise(2_500_000, 3)


def at_first_record(verb: str, key: str) -> bool:
    """Right before the first record is put."""
    return verb == "put" and key.startswith("journal/")


def at_first_pack(verb: str, key: str) -> bool:
    """Right before the first pack is put."""
    return verb == "put" and key.startswith("packs/")


def whole(tree: Tree) -> Tree:
    """All of a tree."""
    return tree


@dataclass(frozen=True, slots=True)
class Scenario:
    """``prepare`` makes the world; then ``victim`` syncs, and dies.

    ``meanwhile`` is what others do at ``moment`` of that sync, or after it if it does not get so far. ``shrink`` maps
    "module:NAME" to a number that stands in for the product's own, so that small worlds take rare paths.
    ``may_conflict``: a crash may leave both versions of a conflict for the users to choose from. ``view`` is that part
    of a tree in which all devices must agree. ``reaches``: effects which prove that the run goes where it should.
    """

    name: str
    prepare: Act
    victim: str = "a"
    meanwhile: Act | None = None
    moment: Moment = at_first_record
    shrink: Mapping[str, int] = field(default_factory=dict)
    may_conflict: bool = False
    view: Callable[[Tree], Tree] = whole
    reaches: Mapping[str, int] = field(default_factory=dict)


# ---- what users do


def fill(world: World, habits: Habits = Habits()) -> None:  # noqa: B008  a frozen value
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


def edit(world: World, name: str) -> None:
    """Edits, deletions, and a renaming."""
    device = world.device(name)
    device.put("notes.txt", b"first line\nsecond line\n")
    device.put("data/big.bin", BIG[:300_000] + b"inserted" + BIG[300_000:])
    device.remove("old.txt")
    device.remove("away")
    device.move("data/medium.bin", "data/renamed.bin")
    device.put("new/file", b"new")


def first_sync(world: World) -> None:
    """Files that were never synced."""
    a = world.device("a")
    a.put("notes.txt", b"first line\n")
    a.put("data/big.bin", BIG)
    a.put("data/medium.bin", MEDIUM)
    a.put("data/same.bin", MEDIUM)
    a.put("data/deep/er/leaf", b"leaf")
    a.put("empty", b"")
    a.put("void/", b"")
    a.put("link", "data/big.bin")


def send(habits: Habits = Habits()) -> Act:  # noqa: B008  a frozen value
    """Edits on a that are to be published."""

    def prepare(world: World) -> None:
        fill(world, habits)
        edit(world, "a")

    return prepare


def receive(habits: Habits = Habits()) -> Act:  # noqa: B008  a frozen value
    """Edits of a that are published."""

    def prepare(world: World) -> None:
        fill(world, habits)
        edit(world, "a")
        world.device("a").sync()

    return prepare


def receive_and_send(world: World) -> None:
    """Edits of a that are published, and others on b that are not."""
    receive()(world)
    b = world.device("b")
    b.put("from-b", b"written on b")
    b.put("data/deep/er/leaf", b"leaf, edited on b")
    b.remove("empty")


def conflict(policy: str) -> Act:
    """Both have edited the same files; b was first."""

    def prepare(world: World) -> None:
        fill(world, Habits(policy=policy))
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


def conflict_to_receive(world: World) -> None:
    """A conflict between published versions, which a third device must show."""
    fill(world, Habits(policy="ask"))
    a, b, c = world.device("a"), world.device("b"), world.device("c")
    c.sync()
    a.put("notes.txt", b"a's")
    a.sync()
    b.put("notes.txt", b"b's")
    b.sync()


def choose(world: World) -> None:
    """A user settles a conflict by deleting one of its two versions."""
    conflict_to_receive(world)
    a = world.device("a")
    a.sync()
    (copy,) = [path for path in a.tree() if "(conflict " in path]
    a.remove(copy)


def interrupted(before: str) -> Act:
    """A sync of a that was killed right before the first request to put a key that begins so."""

    def prepare(world: World) -> None:
        fill(world)
        edit(world, "a")
        kill_before(world, before)
        world.device("a").put("notes.txt", b"and edited once more\n")
        b = world.device("b")
        b.put("meanwhile", b"b goes on")
        b.sync()

    return prepare


def kill_before(world: World, key: str) -> None:
    """Let a sync until right before it puts such a key."""
    saved = world.save()
    number = 0
    twin = world
    while not twin.last.startswith(f"put {key}"):
        number += 1
        twin = World.load(saved)
        assert twin.run(twin.device("a"), "kill", number) is None, f"nothing put {key}"
    world.run(world.device("a"), "kill", number - 1)
    world.device("a").come_back("kill")


def records_until(due: Callable[[World], bool]) -> Act:
    """Commit by commit, until what is due would happen in the next sync of a."""

    def prepare(world: World) -> None:
        a, b = world.device("a"), world.device("b")
        for number in range(40):
            a.put("last", noise(300_000, 1000 + number))
            twin = World.load(world.save())
            twin.run(twin.device("a"), "kill")
            if number > 8 and due(twin):
                return
            device = a if number % 3 else b
            device.put(f"file{number}", noise(1500, number))
            device.sync()
        raise AssertionError("it never came")

    return prepare


def replaces_segment(world: World) -> bool:
    """A segment was written and an older one deleted."""
    return any(done.startswith("delete segments/") for done in world.log)


def consolidates(world: World) -> bool:
    """The newest pack holds the contents of many."""
    return len(next(data for key, data in reversed(world.bucket.written.items()) if "/packs/" in key)) > 6_000


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


def rely_on_old_packs(world: World) -> None:
    """a moves and keeps what b made in packs of their own."""
    a, b = world.device("a"), world.device("b")
    a.put("of-a", b"a has a snapshot of its own")
    a.sync()
    b.sync()
    b.put("treasure", MEDIUM)
    b.sync()
    b.put("same/one", noise(5_000, 6))
    b.put("same/below/two", noise(5_000, 7))
    b.sync()
    a.sync()
    a.move("treasure", "elsewhere")
    a.put("new", b"new on a")


def delete_and_condemn(world: World) -> None:
    """b deletes that, and a collector takes notice."""
    b = world.device("b")
    b.remove("treasure")
    b.remove("same")
    b.put("b", b"of b")
    b.sync()
    condemn(world, garbage(world))


def condemn_unnamed(world: World) -> None:
    """A collector takes packs for garbage that no record names yet."""
    condemn(world, unnamed(world))


def links(world: World) -> None:
    """Links that come, go and turn elsewhere."""
    a, b = world.device("a"), world.device("b")
    a.put("target", b"a file")
    a.put("d/turns", "../target")
    a.put("d/goes", "../target")
    a.put("dangling", "nowhere")
    a.sync()
    b.sync()
    a.put("d/turns", "../dangling")
    a.remove("d/goes")
    a.put("e/comes", "../target")
    a.put("target", "d")


def directories(world: World) -> None:
    """Empty ones, deep ones, modes, and one that takes the place of another."""
    a, b = world.device("a"), world.device("b")
    a.put("empty/", b"")
    a.put("deep/1/2/3/4/5/leaf", b"leaf")
    a.put("private/", b"", mode=0o700)
    a.put("private/file", b"private")
    a.put("goes/with/all", b"of it")
    a.sync()
    b.sync()
    a.remove("empty")
    a.put("deep/1/other/", b"")
    a.put("private/", b"", mode=0o750)
    a.remove("goes")
    a.move("deep/1/2", "moved")
    a.put("again/empty/", b"")


def sent(prepare: Act) -> Act:
    """The same, published by a."""

    def published(world: World) -> None:
        prepare(world)
        world.device("a").sync()

    return published


def crowd(world: World) -> None:
    """So many files that directories have several nodes."""
    a, b = world.device("a"), world.device("b")
    for number in range(400):
        a.put(f"many/{number:03}", b"%d" % (number % 7))
    a.sync()
    b.sync()
    for number in range(0, 400, 40):
        a.put(f"many/{number:03}", b"edited %d" % number)
    for number in range(5, 400, 50):
        a.remove(f"many/{number:03}")


def attributes(world: World) -> None:
    """Only modes and times change."""
    a, b = world.device("a"), world.device("b")
    a.put("script", b"#!/bin/sh\n", mode=0o644)
    a.put("read-only", b"for all", mode=0o644)
    a.put("big", BIG)
    a.sync()
    b.sync()
    a.put("script", b"#!/bin/sh\n", mode=0o755)
    a.put("read-only", b"for all", mode=0o444)
    a.put("big", BIG, mode=0o600, mtime_ns=1_600_000_000_000_000_000)


def large(world: World) -> None:
    """More than one pack, where packs are small."""
    a = world.device("a")
    a.put("large", LARGE)
    a.put("big", BIG)
    a.put("text", b"compresses well " * 10_000)
    for number in range(20):
        a.put(f"small/{number}", noise(3_000, 100 + number))


def three_heads(world: World) -> None:
    """Three devices have published without knowing of each other; a has to merge and has an edit of its own."""
    fill(world)
    a, b, c = world.device("a"), world.device("b"), world.device("c")
    c.sync()
    b.put("of-b", b"b")
    b.remove("old.txt")
    c.put("data/of-c", b"c")
    c.put("notes.txt", b"edited by c")
    world.meanwhile(at_first_record, lambda _: c.sync() and None)
    world.run(b, "kill")
    a.put("data/of-a", b"a")
    a.put("data/deep/er/leaf", b"edited by a")


def b_goes_on(world: World) -> None:
    """While a syncs, b does as well."""
    b = world.device("b")
    b.put("meanwhile", b"of b")
    b.put("data/deep/er/leaf", b"edited by b")
    b.remove("empty")
    b.sync()


def joins_with_files(world: World) -> None:
    """A new device has some of the files already, and others under the same names."""
    fill(world)
    c = world.device("c", Habits(policy="ask"))
    c.put("data/big.bin", BIG)
    c.put("data/medium.bin", MEDIUM)
    c.put("notes.txt", b"c had notes of its own\n")
    c.put("only-c", b"c")


def deleted_there_edited_here(world: World) -> None:
    """b has deleted directories into which a has put something."""
    fill(world)
    a, b = world.device("a"), world.device("b")
    a.put("away/more", b"put there by a")
    a.put("data/deep/er/leaf", b"edited by a")
    a.sync()
    b.remove("away")
    b.remove("data/deep")


SCOPE = Habits(sync_paths=("data", "notes.txt"))


def scoped(prepare: Callable[[Habits], Act]) -> Act:
    """The same where a and b sync only a part; c has all of it."""

    def narrow(world: World) -> None:
        c = world.device("c")
        c.put("outside", b"never on a or b")
        c.put("data/of-c", b"in the scope")
        c.sync()
        prepare(SCOPE)(world)

    return narrow


def in_scope(tree: Tree) -> Tree:
    """The part that a and b sync."""
    return {path: data for path, data in tree.items() if path == "notes.txt" or path.split("/")[0] == "data"}


KEEP = Habits(delete_orphaned=False)


def without_hidden(tree: Tree) -> Tree:
    """All but what one of the devices hides."""
    return {path: data for path, data in tree.items() if path not in {"old.txt", "away", "away/one", "data/medium.bin"}}


SEGMENTS_SOON = {"buckia.store.catalog:UNCOVERED_MAX": 4}
CONSOLIDATE_SOON = {**SEGMENTS_SOON, "buckia.store.repository:SMALL_PACKS_MAX": 3}
SMALL_PACKS = {"buckia.store.writer:PACK_BYTES_TARGET": 300_000, "buckia.store.writer:ONE_PACK_BYTES_MAX": 1_000}
REPLACES = {"put segments": 1, "delete segments": 1}
RESCUES = {"put journal": 2, "put packs": 2}
SMALL_BATCHES = {"buckia.engine.fetch:PLACE_FILES": 2}
SMALL_SLICES = {
    "buckia.engine.publish:SLICE_BYTES": 200_000,
    "buckia.engine.publish:SMALL_FILE_BYTES": 1_000,
    "buckia.engine.publish:BATCH_FILES": 2,
}
NO_ROOM_FOR_FOOTERS = {"buckia.store.writer:INLINE_ROWS_BYTES_MAX": 100}

SCENARIOS = [
    Scenario("first sync", first_sync, reaches={"put": 3}),
    Scenario("edit, delete and rename", send()),
    Scenario("receive", receive(), victim="b"),
    Scenario("conflict, remote wins", conflict("remote_wins"), may_conflict=True, reaches={"put journal": 2}),
    Scenario("finish an interrupted sync", interrupted("journal/")),
    Scenario("segments", records_until(replaces_segment), shrink=SEGMENTS_SOON, reaches=REPLACES),
    Scenario("change types", change_types, victim="b", reaches={"after rename": 10}),
    Scenario("rescue", rely_on_old_packs, meanwhile=delete_and_condemn, reaches=RESCUES),
]

NIGHTLY = [
    Scenario("conflict, local wins", conflict("local_wins"), may_conflict=True),
    Scenario("conflict, newest wins", conflict("newest_wins"), may_conflict=True),
    Scenario("conflict, ask", conflict("ask"), may_conflict=True),
    Scenario("receive a conflict", conflict_to_receive, victim="c"),
    Scenario("settle a conflict by deleting a copy", choose),
    Scenario("receive and send", receive_and_send, victim="b"),
    Scenario("another device syncs meanwhile", send(), meanwhile=b_goes_on, may_conflict=True),
    Scenario("three heads", three_heads),
    Scenario("join with files", joins_with_files, victim="c", may_conflict=True),
    Scenario("deleted here, edited there", deleted_there_edited_here, victim="b"),
    Scenario("scope, send", scoped(send), view=in_scope),
    Scenario("scope, receive", scoped(receive), victim="b", view=in_scope),
    Scenario("keep orphans, send", send(KEEP), view=without_hidden),
    Scenario("keep orphans, receive", receive(KEEP), victim="b", view=without_hidden),
    Scenario("send links", links),
    Scenario("receive links", sent(links), victim="b"),
    Scenario("send directories", directories),
    Scenario("receive directories", sent(directories), victim="b"),
    Scenario("send attributes", attributes),
    Scenario("receive attributes", sent(attributes), victim="b"),
    Scenario("send a crowd", crowd),
    Scenario("receive a crowd in small batches", sent(crowd), victim="b", shrink=SMALL_BATCHES),
    Scenario("clone in small batches", sent(large), victim="b", shrink=SMALL_BATCHES | SMALL_PACKS),
    Scenario("many packs", large, shrink=SMALL_PACKS, reaches={"put packs": 10}),
    Scenario("many packs after an interrupted sync", interrupted("packs/"), shrink=SMALL_PACKS),
    Scenario("many commits", large, shrink=SMALL_SLICES, reaches={"put journal": 5}),
    Scenario("finish a sync without its tip", interrupted("tips/")),
    Scenario("consolidate small packs", records_until(consolidates), shrink=CONSOLIDATE_SOON, reaches={"put packs": 1}),
    Scenario("footers outside of the record", send(), shrink=NO_ROOM_FOR_FOOTERS, reaches={"put segments": 1}),
    Scenario("rescue a new pack", send(), meanwhile=condemn_unnamed, reaches=RESCUES),
    Scenario(
        "rescue after a conflict",
        conflict("remote_wins"),
        meanwhile=condemn_unnamed,
        may_conflict=True,
        reaches={"put journal": 3, "put packs": 3},
    ),
]
