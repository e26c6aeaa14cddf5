"""The collector's half of garbage collection, as another device would do it: this version has none of its own."""

from __future__ import annotations

from buckia.core import canonical
from buckia.core.directory import referenced
from buckia.core.ids import DeviceId, ObjectId, object_id
from buckia.core.record import (
    Condemn,
    Record,
    Snapshot,
    encode_record,
    pack_key,
    parse_pack_key,
    parse_tip_key,
    record_key,
    tip_key,
)
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository, snapshot_tree
from tests.crash.world import PREFIX, World

COLLECTOR = DeviceId(b"\xcc" * 16)
_HEADER = b"BKJR\x01\x00\x00\x00"


def packs_of(world: World) -> list[ObjectId]:
    """All packs in the bucket, by the time of their arrival."""
    found = [parse_pack_key(key.removeprefix(PREFIX)) for key in world.bucket.written if key in world.bucket.objects]
    return [pack for pack in found if pack is not None]


def condemn(world: World, packs: list[ObjectId]) -> None:
    """Publish a condemn record that knows all that is in the bucket."""
    world.condemned += packs
    vector, seq, prev = _place(world)
    body = Condemn(tuple(sorted(packs)))
    _publish(world, seq, encode_record(Record(COLLECTOR, seq, prev, (), vector, 0, "collector", body)))


def publish_unknown(world: World, kind: str, features: tuple[str, ...] = ()) -> None:
    """Publish a record of a later version."""
    vector, seq, prev = _place(world)
    value = (COLLECTOR, seq, prev, kind, features, vector, 0, "a later version", (), None)
    _publish(world, seq, _HEADER + canonical.encode(value))


def _place(world: World) -> tuple[tuple[tuple[DeviceId, int, ObjectId], ...], int, ObjectId | None]:
    tips = [parse_tip_key(key.removeprefix(PREFIX)) for key in world.bucket.objects]
    newest: dict[DeviceId, tuple[DeviceId, int, ObjectId]] = {}
    for tip in tips:
        if tip is not None and tip[1] > newest.get(tip[0], (tip[0], 0))[1]:
            newest[tip[0]] = tip
    own = newest.pop(COLLECTOR, None)
    return tuple(sorted(newest.values())), 1 if own is None else own[1] + 1, None if own is None else own[2]


def _publish(world: World, seq: int, data: bytes) -> None:
    name = object_id(data)
    world.bucket.put(PREFIX + record_key(COLLECTOR, seq, name), data)
    world.bucket.put(PREFIX + tip_key(COLLECTOR, seq, name), bytes(name))


def unnamed(world: World) -> list[ObjectId]:
    """The packs that no record names: what may be condemned even if all history is kept."""
    index = _opened(world).catalog.index
    return [pack for pack in packs_of(world) if index.pack_size(pack) is None]


def garbage(world: World) -> list[ObjectId]:
    """The packs that hold nothing of any head, nor of any device's newest snapshot: what may be condemned."""
    world.forgetful = True
    repository = _opened(world)
    newest: dict[DeviceId, Record] = {}
    for linked in repository.journal.records():
        if isinstance(linked.record.body, Snapshot):
            newest[linked.record.device] = max(
                linked.record, newest.get(linked.record.device, linked.record), key=lambda record: record.seq
            )
    roots = [snapshot_tree(head.snapshot) for head in repository.journal.heads()]
    roots += [snapshot_tree(record.body) for record in newest.values() if isinstance(record.body, Snapshot)]
    live: set[ObjectId] = set()
    seen: set[bytes] = set()
    for root in roots:
        for _, blob in referenced(repository.nodes, root.id, seen):  # type: ignore[arg-type]
            live.update(location.pack for location in repository.catalog.index.locations(blob))
    return [pack for pack in packs_of(world) if pack not in live]


def delete(world: World) -> None:
    """What a collector does in the end."""
    for pack in world.condemned:
        world.bucket.objects.pop(PREFIX + pack_key(pack), None)


def check_snapshots(world: World, device: str) -> None:
    """The newest snapshot of a device, and what a new device would get, can be read to the last byte."""
    repository = _opened(world)
    own = [linked for linked in repository.journal.records() if linked.record.name == device]
    trees = [snapshot_tree(linked.snapshot) for linked in own if isinstance(linked.record.body, Snapshot)][-1:]
    made = repository.current().tree  # its own nodes may be in no pack: it was merged here and now
    for tree in [*trees, made]:
        found = {blob for _, blob in referenced(repository.nodes, tree.id, set())}
        blobs = found if tree is not made else {blob for blob in found if repository.holds(blob)}
        read = {blob for wanted in repository.reader.plan(blobs) for blob, _ in repository.reader.fetch(wanted)}
        assert read == blobs


def records_of(world: World, device: str) -> list[Record]:
    """A device's records by number."""
    found = [linked.record for linked in _opened(world).journal.records() if linked.record.name == device]
    return sorted(found, key=lambda record: record.seq)


def _opened(world: World) -> Repository:
    repository = world.repository(MemoryLedger(), lambda: 0)
    repository.open()
    repository.refresh()
    return repository
