"""What a damaged or hostile record, tip or listing must not do: hide what others wrote, exhaust a reader, or keep what
is stored from being acknowledged.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia import BuckiaClient
from buckia.core import record as records
from buckia.core.directory import entries
from buckia.core.ids import DeviceId, ObjectId, object_id
from buckia.core.index import build_segment
from buckia.core.record import (
    CHAIN_MAX,
    FOLDER_BYTES_MAX,
    RECORD_BYTES_MAX,
    SEQ_MAX,
    Ack,
    Condemn,
    Named,
    Record,
    Snapshot,
    decode_record,
    encode_record,
    record_key,
    segment_key,
    tip_key,
)
from buckia.errors import (
    AccessDenied,
    BucketError,
    CancelledError,
    FormatError,
    IntegrityError,
    ObjectNotFound,
    Transient,
    UnsupportedFormatError,
)
from buckia.local.state import State
from buckia.store import journal
from buckia.store.journal import Linked, undominated
from buckia.store.ledger import Ledger, MemoryLedger
from buckia.store.repository import Repository
from buckia.sync.base import ObjectInfo, Page
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync
from tests.support import fleet as fleets
from tests.support.fleet import Fleet
from tests.support.repositories import FOLDER, PREFIX, Folder, open_repository
from tests.transfers import make

LOW, MIDDLE, HIGH = (DeviceId(bytes([byte]) * 16) for byte in (0x00, 0x80, 0xFF))


def store(bucket: MemorySync, record: Record, *, tip: bool = True) -> Named:
    """Put a record that somebody made by hand."""
    data = encode_record(record)
    named = (record.device, record.seq, object_id(data))
    bucket.objects[PREFIX + record_key(*named)] = data
    if tip:
        bucket.objects[PREFIX + tip_key(*named)] = bytes(named[2])
    return named


def ack(device: DeviceId, seq: int = 1, prev: ObjectId | None = None, vector: tuple[Named, ...] = ()) -> Record:
    return Record(device, seq, prev, (), tuple(sorted(vector)), 5, "by hand", Ack())


def chain(bucket: MemorySync, device: DeviceId, length: int) -> list[Named]:
    """So many records of a device, each naming the one before, and the tip of the last."""
    made: list[Named] = []
    for seq in range(1, length + 1):
        made.append(store(bucket, ack(device, seq, made[-1][2] if made else None), tip=seq == length))
    return made


def own(folder: Folder) -> Named:
    """This device's newest record."""
    device = folder.repository.ledger.device()
    assert device is not None
    return (device[0], *folder.repository.ledger.tips()[device[0]])


def names(repo: Repository) -> list[bytes]:
    return [entry.name for entry in entries(repo.nodes, repo.current().tree.id)]


class Spy(MemorySync):
    """Notes what is asked for; ``ghosts`` are listed and cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, int | None]] = []
        self.ghosts: set[str] = set()

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        self.asked.append(("get", key, length))
        if key in self.ghosts:
            raise ObjectNotFound(f"There is no {key}.")
        return super()._get(key, offset, length)

    def _stat(self, key: str) -> ObjectInfo:
        self.asked.append(("stat", key, None))
        if key in self.ghosts:
            raise ObjectNotFound(f"There is no {key}.")
        return super()._stat(key)

    def _list(self, prefix: str, token: str | None) -> Page:
        self.asked.append(("list", prefix, None))
        return super()._list(prefix, token)


# ---- a record names others as what they are


def lying(bucket: MemorySync, liar: DeviceId, victim: Named, lie: str) -> Callable[[], object]:
    """Store what an honest device would; what is returned stores a record that names one as what it is not."""
    device, seq, name = victim
    if lie == "number":
        return lambda: store(bucket, ack(liar, vector=((device, 1000, name),)))
    if lie == "device":
        return lambda: store(bucket, ack(liar, vector=((DeviceId(b"\x33" * 16), seq, name),)))
    if lie == "prev of another device":
        return lambda: store(bucket, ack(liar, seq + 1, name, (victim,)))
    first = store(bucket, ack(liar))
    store(bucket, ack(DeviceId(b"\x44" * 16), vector=(first,)))
    return lambda: store(bucket, ack(liar, 3, first[2]))


@pytest.mark.parametrize("lie", ["number", "device", "prev of another device", "prev of another number"])
@pytest.mark.parametrize("liar", [LOW, HIGH])
@pytest.mark.parametrize("known", [True, False])
def test_a_record_that_names_another_as_what_it_is_not_is_refused(lie: str, liar: DeviceId, known: bool) -> None:
    """Its vector says what it includes: with a wrong number it would hide what others write later."""
    folder = Folder()
    folder.commit({"a": b"1"})
    publish = lying(folder.bucket, liar, own(folder), lie)
    reader = open_repository(folder.bucket)
    if known:
        reader.refresh()
    before = reader.ledger.tips(), reader.ledger.heads()
    publish()
    for _ in range(2):
        with pytest.raises(IntegrityError, match="names a record of another device or number"):
            reader.refresh()
        assert (reader.ledger.tips(), reader.ledger.heads()) == before


def test_what_a_liar_names_does_not_hide_what_the_victim_writes_next() -> None:
    folder = Folder()
    folder.commit({"a": b"1"})
    device, seq, name = own(folder)
    body = folder.repository.journal.heads()[0].snapshot
    liar = replace(ack(HIGH, vector=((device, seq + 1, name),)), body=replace(body, packs=()))
    store(folder.bucket, liar)
    reader = open_repository(folder.bucket)
    with pytest.raises(IntegrityError, match="another device or number"):
        reader.refresh()
    with pytest.raises(IntegrityError, match="another device or number"):
        folder.commit({"precious": b"thesis"})
    assert b"precious" not in names(folder.repository)  # not acknowledged
    assert folder.repository.ledger.outbox() is not None  # and not lost


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("device", [LOW, HIGH])
def test_a_tip_that_gives_a_known_record_to_another_is_refused(known: bool, device: DeviceId) -> None:
    folder = Folder()
    folder.commit({"a": b"1"})
    _, seq, name = own(folder)
    reader = open_repository(folder.bucket)
    if known:
        reader.refresh()
    folder.bucket.objects[PREFIX + tip_key(device, seq, name)] = bytes(name)
    with pytest.raises(IntegrityError, match=r"tip of device .* another device or number"):
        reader.refresh()


def test_a_record_may_name_what_is_not_visible_yet_and_waits_for_it() -> None:
    folder = Folder()
    folder.commit({"a": b"1"})
    late = store(folder.bucket, ack(MIDDLE), tip=False)
    data = folder.bucket.objects.pop(PREFIX + record_key(*late))
    store(folder.bucket, ack(HIGH, vector=(late, own(folder))))
    reader = open_repository(folder.bucket)
    reader.refresh()
    assert len(reader.journal.held_back) == 2
    assert names(reader) == [b"a"]
    folder.bucket.objects[PREFIX + record_key(*late)] = data
    reader.refresh()
    assert not reader.journal.held_back
    assert HIGH in reader.ledger.tips()


def test_a_record_that_names_the_one_in_the_outbox_as_another_is_refused() -> None:
    folder = Folder()
    device, seq, _ = own(folder)
    repo = folder.repository
    data, record = repo._compose(Ack(), repo.ledger.tips())
    repo.journal.publish(data, record)
    honest = store(folder.bucket, ack(LOW, vector=((device, seq + 1, object_id(data)),)))
    repo.refresh()
    assert honest[2] in repo.journal.held_back  # until the own one is acknowledged
    store(folder.bucket, ack(HIGH, vector=((device, seq + 5, object_id(data)),)))
    with pytest.raises(IntegrityError, match="another device or number"):
        repo.refresh()


def test_an_own_record_is_held_to_the_same_rule() -> None:
    folder = Folder()
    folder.commit({"a": b"1"})
    other = Folder(folder.bucket, "other")
    repo = other.repository
    device, seq, name = own(folder)
    me, last, mine = own(other)
    sound = ack(me, last + 1, mine, ((device, seq, name),))
    repo.journal.require_sound(sound)
    for wrong in (
        replace(sound, vector=((device, seq + 1, name),)),  # another number
        replace(sound, vector=((HIGH, seq, name),)),  # another device
        replace(sound, vector=()),  # less than its predecessor knows
        replace(sound, seq=last + 2),  # not the predecessor
        replace(sound, vector=((device, seq, ObjectId(b"x" * 32)),)),  # nothing that is known here
    ):
        with pytest.raises(IntegrityError):
            repo.journal.require_sound(wrong)


# ---- a record knows what those know that it names


@pytest.mark.parametrize("liar", [LOW, MIDDLE, HIGH])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seen", [1, 12])
def test_a_record_that_knows_less_than_it_names_is_refused_in_every_order(
    liar: DeviceId, known: bool, seen: int
) -> None:
    """Whether it sorts before or after those that it names."""
    bucket = MemorySync()
    open_repository(bucket, create=True)
    honest = chain(bucket, DeviceId(b"\x77" * 16), seen)
    middle = store(bucket, ack(DeviceId(b"\x66" * 16), vector=(honest[-1],)))
    reader = open_repository(bucket)
    if known:
        reader.refresh()
    store(bucket, ack(liar, vector=(middle,)))
    with pytest.raises(IntegrityError, match="names one that knows more"):
        reader.refresh()


def test_a_record_may_not_forget_what_its_predecessor_knew() -> None:
    bucket = MemorySync()
    open_repository(bucket, create=True)
    named = store(bucket, ack(LOW))
    first = store(bucket, ack(HIGH, vector=(named,)), tip=False)
    store(bucket, ack(HIGH, 2, first[2]))
    with pytest.raises(IntegrityError, match="names one that knows more"):
        open_repository(bucket).refresh()


# ---- another version


def with_feature(bucket: MemorySync, linked: Linked) -> None:
    """What a newer version would have published instead of this record."""
    record = linked.record
    named = (record.device, record.seq, linked.id)
    del bucket.objects[PREFIX + record_key(*named)], bucket.objects[PREFIX + tip_key(*named)]
    store(bucket, replace(record, features=("f2",)))


@contextmanager
def ledger_of(kind: str) -> Iterator[Ledger]:
    if kind == "memory":
        yield MemoryLedger()
    else:
        with State.open(None, machine="m") as state:
            yield state


def opened(bucket: MemorySync, ledger: Ledger) -> Repository:
    repo = Repository(make(bucket), ledger, FOLDER, random_bytes=bytes, now_ns=lambda: 1)
    repo.open()
    repo.refresh()
    return repo


@pytest.mark.parametrize("kind", ["memory", "state"])
def test_heads_and_read_only_follow_the_version_that_looks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records are kept; what they mean is asked again when a version knows other kinds or features."""
    folder = Folder()
    folder.commit({"x": b"1"})
    newer = folder.commit({"y": b"2"})
    monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
    with_feature(folder.bucket, newer)
    with ledger_of(kind) as ledger:
        for known in (frozenset[str](), frozenset({"f2"}), frozenset({"f2", "f3"})):
            monkeypatch.setattr(records, "FEATURES", known)
            for _ in range(2):
                repo = opened(folder.bucket, ledger)
                assert repo.journal.read_only_reason() == (None if known else "f2")
                assert names(repo) == ([b"x", b"y"] if known else [b"x"])


@pytest.mark.parametrize("kind", ["memory", "state"])
def test_an_older_version_does_not_set_back_what_a_newer_one_showed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    folder.commit({"x": b"1"})
    newer = folder.commit({"y": b"2"})
    monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
    with_feature(folder.bucket, newer)
    with ledger_of(kind) as ledger:
        assert names(opened(folder.bucket, ledger)) == [b"x", b"y"]
        monkeypatch.setattr(records, "FEATURES", frozenset())
        with pytest.raises(UnsupportedFormatError, match="newer version of buckia"):
            opened(folder.bucket, ledger)
        monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
        assert names(opened(folder.bucket, ledger)) == [b"x", b"y"]


def test_what_a_newer_version_condemns_counts_after_the_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    pack = ObjectId(b"p" * 32)
    monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
    store(folder.bucket, replace(ack(HIGH), features=("f2",), body=Condemn((pack,))))
    monkeypatch.setattr(records, "FEATURES", frozenset())
    ledger = MemoryLedger()
    assert not opened(folder.bucket, ledger).journal.condemned_beyond({})
    monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
    assert opened(folder.bucket, ledger).journal.condemned_beyond({}) == {pack} == ledger.condemned()


def test_the_meaning_is_not_asked_again_by_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    folder.commit({"x": b"1"})
    ledger = MemoryLedger()
    opened(folder.bucket, ledger)
    monkeypatch.setattr(MemoryLedger, "records", lambda self: pytest.fail("all records are read"))
    opened(folder.bucket, ledger)


def test_a_device_that_is_upgraded_gets_what_it_could_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nothing was published since: its last sync was complete only for what it understood."""
    bucket, ours, theirs = tmp_path / "b", tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()

    def client(name: str) -> BuckiaClient:
        return BuckiaClient.for_location(str(bucket / "f"), state_dir=tmp_path / f"state {name}")

    with client("theirs") as writer:
        (theirs / "x").write_text("1")
        writer.sync(theirs)
        (theirs / "y").write_text("2")
        writer.sync(theirs)
    root = bucket / "f/_buckia"
    (tip,) = (root / "tips").iterdir()
    old = next((root / "journal").glob(f"*/*{tip.name[-64:]}"))
    monkeypatch.setattr(records, "FEATURES", frozenset({"f2"}))
    data = encode_record(replace(decode_record(old.read_bytes()), features=("f2",)))
    old.with_name(f"{old.name[:11]}{object_id(data).hex()}").write_bytes(data)
    tip.with_name(f"{tip.name[:44]}{object_id(data).hex()}").write_bytes(object_id(data))
    old.unlink()
    tip.unlink()
    monkeypatch.setattr(records, "FEATURES", frozenset())
    for known in (frozenset[str](), frozenset({"f2"})):
        monkeypatch.setattr(records, "FEATURES", known)
        for _ in range(2):
            with client("ours") as reader:
                reader.sync(ours)
        assert sorted(path.name for path in ours.iterdir()) == (["x", "y"] if known else ["x"])


# ---- numbers that nobody has reached


@pytest.mark.parametrize("seq", [CHAIN_MAX - 3, CHAIN_MAX + 1, SEQ_MAX])
@pytest.mark.parametrize("where", ["tip", "vector"])
def test_a_huge_number_costs_nothing(seq: int, where: str) -> None:
    bucket = Spy()
    folder = Folder(bucket)
    folder.commit({"x": b"1"})
    named = (MIDDLE, seq, ObjectId(b"\xcd" * 32))
    if where == "tip":
        bucket.objects[PREFIX + tip_key(*named)] = bytes(named[2])
    else:
        store(bucket, ack(HIGH, vector=(named,)))
    reader = open_repository(bucket)
    bucket.asked.clear()
    tracemalloc.start()
    try:
        reader.refresh()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert len(bucket.asked) < 16
    assert named[2] in reader.journal.held_back
    assert names(reader) == [b"x"]


def test_a_number_too_far_ahead_is_held_back_without_a_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever lies there; readers that are nearer by then take it."""
    bucket = Spy()
    folder = Folder(bucket)
    made = chain(bucket, HIGH, 30)
    monkeypatch.setattr(journal, "CHAIN_MAX", 20)
    reader = open_repository(bucket)
    bucket.asked.clear()
    reader.refresh()
    assert not [key for _, key, _ in bucket.asked if HIGH.hex() in key]
    assert reader.journal.held_back == {made[-1][2]}
    assert "30 records ahead" in caplog.text
    for named in (made[-1], made[14], made[-1]):
        tips = {key for key in bucket.objects if f"tips/{HIGH.hex()}" in key}
        for key in tips:
            del bucket.objects[key]
        bucket.objects[PREFIX + tip_key(*named)] = bytes(named[2])
        reader.refresh()
    assert reader.ledger.tips()[HIGH] == made[-1][1:]
    assert folder.repository.ledger.tips()


def test_what_a_sync_says_of_records_that_it_leaves_out() -> None:
    """That a later one takes them, where one can: a number that no device reaches is never looked for."""
    fleet = Fleet(devices=1)
    fleet.devices[0].files.put(f"{fleets.ROOT}/a", b"1")
    assert fleet.sync(fleet.devices[0]).error is None
    for device, seq in ((LOW, 1), (HIGH, CHAIN_MAX + 1)):
        named = (device, seq, ObjectId(device * 2))
        fleet.store.objects[fleets.PREFIX + tip_key(*named)] = bytes(named[2])
    result = fleet.sync(fleet.devices[0]).result
    assert result is not None
    assert result.warnings == [
        "Record 000000000000 is left out: it, or one that it names, cannot be found in the bucket. It is taken once "
        "they are there.",
        "Record ffffffffffff is left out: its number is more than 4194304 ahead, and no device writes so many records.",
    ]


def test_a_device_takes_a_new_id_long_before_its_number_is_too_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHAIN_MAX", 20)
    folder = Folder()
    for number in range(9):
        folder.commit({"x": b"%d" % number})
        assert not folder.repository.journal.usurped(folder.repository.journal.list_tips())
    folder.commit({"x": b"last"})
    assert folder.repository.journal.usurped(folder.repository.journal.list_tips())


# ---- sizes


def test_of_a_record_that_is_too_large_no_more_is_asked_for_than_one_may_have() -> None:
    bucket = Spy()
    Folder(bucket)
    named = (HIGH, 1, ObjectId(b"\xcd" * 32))
    bucket.objects[PREFIX + record_key(*named)] = bytes(RECORD_BYTES_MAX + 1)
    bucket.objects[PREFIX + tip_key(*named)] = bytes(named[2])
    reader = open_repository(bucket)
    with pytest.raises(FormatError, match=f"Record 1 of device ffffffff has more than {RECORD_BYTES_MAX} bytes"):
        reader.refresh()
    key = PREFIX + record_key(*named)
    assert [what for what in bucket.asked if what[1] == key] == [("get", key, RECORD_BYTES_MAX + 1)] * 2


def test_a_single_record_costs_one_request() -> None:
    """Its size is not asked for: the bucket sends as much as a record may have."""
    bucket = Spy()
    folder = Folder(bucket)
    reader = open_repository(bucket)
    reader.refresh()
    folder.commit({"x": b"1"})
    bucket.asked.clear()
    reader.refresh()
    key = PREFIX + record_key(*own(folder))
    assert bucket.asked == [("list", PREFIX + "tips/", None), ("get", key, RECORD_BYTES_MAX + 1)]


def test_a_record_that_is_empty_is_damaged() -> None:
    bucket = Spy()
    folder = Folder(bucket)
    bucket.objects[PREFIX + record_key(*own(folder))] = b""
    with pytest.raises(IntegrityError, match="its bytes do not match its name"):
        open_repository(bucket).refresh()


def test_a_record_that_arrives_cut_short_is_asked_for_again() -> None:
    with FaultySync(MemorySync()) as bucket:
        open_repository(bucket, create=True)
        folder = Folder(bucket.inner)  # type: ignore[arg-type]
        device = own(folder)[0]
        bucket.plan(Fault("get", "short", where=lambda key: f"journal/{device.hex()}" in key))
        reader = open_repository(bucket, retries=1)
        reader.refresh()
        assert device in reader.ledger.tips()
        assert bucket.traffic.requests.stat == 1


def test_of_a_huge_folder_object_no_more_is_read_than_one_may_have() -> None:
    bucket = Spy()
    bucket.objects[PREFIX + "folder"] = bytes(10 * FOLDER_BYTES_MAX)
    with pytest.raises(FormatError, match="none of buckia's has"):
        open_repository(bucket)
    assert bucket.asked == [("get", PREFIX + "folder", FOLDER_BYTES_MAX + 1)] * 2


def test_no_more_of_a_listed_record_is_asked_for_than_it_has() -> None:
    bucket = Spy()
    Folder(bucket)
    chain(bucket, MIDDLE, 30)
    reader = open_repository(bucket)
    bucket.asked.clear()
    reader.refresh()
    fetched = {key: length for verb, key, length in bucket.asked if verb == "get" and MIDDLE.hex() in key}
    assert fetched == {key: len(data) for key, data in bucket.objects.items() if f"journal/{MIDDLE.hex()}" in key}
    assert len(fetched) == 30


def test_listed_records_that_are_too_large_or_one_too_many_are_not_fetched_ahead() -> None:
    bucket = Spy()
    Folder(bucket)
    made = chain(bucket, HIGH, 30)
    junk = [record_key(HIGH, seq, ObjectId(bytes([byte]) * 32)) for seq in (5, 40) for byte in (0, 255)]
    for key in junk:
        bucket.objects[PREFIX + key] = bytes(RECORD_BYTES_MAX + 1)
    many = [record_key(HIGH, 7, ObjectId(bytes([byte]) * 32)) for byte in range(100)]
    for key in many:
        bucket.objects[PREFIX + key] = b"junk"
    large = [record_key(HIGH, seq, ObjectId(bytes(32))) for seq in range(50, 60)]
    for key in large:
        bucket.objects[PREFIX + key] = bytes(RECORD_BYTES_MAX // 4)
    reader = open_repository(bucket)
    bucket.asked.clear()
    reader.refresh()
    assert reader.ledger.tips()[HIGH] == made[-1][1:]
    fetched = {key for verb, key, _ in bucket.asked if verb == "get"}
    assert not fetched & {PREFIX + key for key in junk}
    assert len(fetched & {PREFIX + key for key in many}) <= 1
    assert len(fetched & {PREFIX + key for key in large}) < 4


# ---- work in proportion


def test_the_first_link_decodes_each_record_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many devices, whose records lie in segments."""
    bucket = MemorySync()
    open_repository(bucket, create=True)
    for number in range(40):
        chain(bucket, DeviceId(number.to_bytes(16)), 12)
    objects = [data for key, data in bucket.objects.items() if "/journal/" in key]
    segment = build_segment(objects, {})
    bucket.objects[PREFIX + segment_key(object_id(segment))] = segment
    reader = open_repository(bucket)
    count = 0

    def counted(data: bytes) -> Record:
        nonlocal count
        count += 1
        return decode_record(data)

    monkeypatch.setattr(journal, "decode_record", counted)
    assert len(reader.refresh()) == 40
    assert count <= 3 * len(objects)


def test_what_many_records_name_is_looked_for_once() -> None:
    bucket = Spy()
    open_repository(bucket, create=True)
    missing = (HIGH, 3, ObjectId(b"\xcd" * 32))
    for number in range(9):
        store(bucket, ack(DeviceId(number.to_bytes(16)), vector=(missing,)))
    reader = open_repository(bucket)
    bucket.asked.clear()
    reader.refresh()
    assert len(reader.journal.held_back) == 10
    assert [verb for verb, key, _ in bucket.asked if key == PREFIX + record_key(*missing)] == ["get"]
    assert [key for verb, key, _ in bucket.asked if verb == "list"] == [PREFIX + "tips/", PREFIX + "segments/"]


def test_a_long_chain_is_listed_a_hundred_at_a_time() -> None:
    bucket = Spy()
    open_repository(bucket, create=True)
    made = chain(bucket, HIGH, 450)
    reader = open_repository(bucket)
    bucket.asked.clear()
    reader.refresh()
    assert reader.ledger.tips()[HIGH] == made[-1][1:]
    verbs = [verb for verb, _, _ in bucket.asked]
    assert verbs.count("get") == 450
    assert verbs.count("list") == 2 + 5  # tips, segments
    assert verbs.count("stat") == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.dictionaries(st.integers(0, 3), st.integers(1, 4))), max_size=12))
def test_the_heads_are_those_that_no_other_snapshot_includes(made: list[tuple[int, dict[int, int]]]) -> None:
    seqs = dict.fromkeys(range(4), 0)
    snapshots = []
    body = Snapshot(b"s" * 32, b"c" * 32, 0, 0, ())
    for number, (owner, vector) in enumerate(made):
        seqs[owner] += 1
        links = tuple(
            (DeviceId(bytes([other]) * 16), seq, ObjectId(b"n" * 32))
            for other, seq in sorted(vector.items())
            if other != owner
        )
        record = Record(DeviceId(bytes([owner]) * 16), seqs[owner], None, (), links, 0, "", body)
        snapshots.append(Linked(ObjectId(number.to_bytes(32)), record, b""))

    def included(one: Linked) -> bool:
        others = (other.record.knowledge for other in snapshots if other.id != one.id)
        return any(known.get(one.record.device, 0) >= one.record.seq for known in others)

    assert undominated([*snapshots, *snapshots]) == [one for one in snapshots if not included(one)]


# ---- listings and objects that disagree


@pytest.mark.parametrize("workers", [0, 4])
def test_a_listed_record_that_cannot_be_read_is_passed_over(workers: int) -> None:
    bucket = Spy()
    open_repository(bucket, create=True)
    made = chain(bucket, HIGH, 30)
    for seq in (4, 5, 35):
        key = PREFIX + record_key(HIGH, seq, ObjectId(b"\0" * 32))  # listed before the true one
        bucket.objects[key] = b"x"
        bucket.ghosts.add(key)
    reader = open_repository(bucket, workers=workers)
    reader.refresh()
    assert reader.ledger.tips()[HIGH] == made[-1][1:]
    assert not reader.journal.held_back


def test_a_listed_record_that_is_needed_and_cannot_be_read_is_held_back() -> None:
    bucket = Spy()
    folder = Folder(bucket)
    folder.commit({"x": b"1"})
    made = chain(bucket, HIGH, 30)
    bucket.ghosts.add(PREFIX + record_key(*made[9]))
    reader = open_repository(bucket)
    reader.refresh()
    assert reader.journal.held_back == {name for _, seq, name in made if seq >= 10}
    assert names(reader) == [b"x"]
    bucket.ghosts.clear()
    reader.refresh()
    assert not reader.journal.held_back


def test_a_record_that_is_shorter_than_listed_is_damaged_only_if_it_is_needed() -> None:
    class Longer(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            page = super()._list(prefix, token)
            return Page([replace(info, size=info.size + ("/journal/" in info.key)) for info in page.objects])

    bucket = Longer()
    open_repository(bucket, create=True)
    made = chain(bucket, HIGH, 30)
    reader = open_repository(bucket)
    reader.refresh()
    assert reader.ledger.tips()[HIGH] == made[-1][1:]


def missing_record(bucket: MemorySync) -> tuple[list[Named], bytes]:
    """Twelve records, of which one object is lost; the segment that embeds it."""
    made = chain(bucket, HIGH, 12)
    segment = build_segment([bucket.objects[PREFIX + record_key(*named)] for named in made], {})
    del bucket.objects[PREFIX + record_key(*made[9])]
    return made, segment


@pytest.mark.parametrize("where", ["in the bucket", "at hand"])
def test_a_lost_record_is_taken_from_a_segment_that_embeds_it(where: str) -> None:
    """A device that is not far behind would not have looked there."""
    bucket = MemorySync()
    open_repository(bucket, create=True)
    made, segment = missing_record(bucket)
    reader = open_repository(bucket)
    for named in made[:8]:
        reader.ledger.add_record(named[2], bucket.objects[PREFIX + record_key(*named)])
    reader.ledger.set_tip(*made[7])
    reader.refresh()
    assert made[9][2] in reader.journal.held_back
    if where == "at hand":
        reader.ledger.add_segment(object_id(segment), segment)
    else:
        bucket.objects[PREFIX + segment_key(object_id(segment))] = segment
    reader.refresh()
    assert not reader.journal.held_back
    assert reader.ledger.tips()[HIGH] == made[-1][1:]


def test_a_damaged_segment_at_hand_stops_nothing() -> None:
    bucket = MemorySync()
    open_repository(bucket, create=True)
    made, segment = missing_record(bucket)
    reader = open_repository(bucket)
    reader.ledger.add_segment(object_id(segment), segment[:-40])
    reader.refresh()
    assert made[9][2] in reader.journal.held_back


# ---- older tips


class Deletions(MemorySync):
    """Deletes fail with ``error`` while there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.failed = 0

    def _delete(self, key: str) -> None:
        if self.error is not None:
            self.failed += 1
            raise self.error
        super()._delete(key)


@pytest.mark.parametrize("error", [AccessDenied("append only"), BucketError("locked"), Transient("again")], ids=repr)
def test_a_tip_that_cannot_be_deleted_is_no_reason_to_fail(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    bucket = Deletions()
    folder = Folder(bucket)
    bucket.error = error
    caplog.set_level("INFO")
    for number in range(40):
        folder.commit({f"f{number}": b"%d" % number})
        assert folder.repository.ledger.outbox() is None
    assert "older tip" in caplog.text
    tips = [key for key in bucket.objects if "/tips/" in key]
    assert len(tips) == 41
    assert bucket.failed < 2 * 40  # not once for each that is left
    reader = open_repository(bucket)
    reader.refresh()
    assert len(names(reader)) == 40
    bucket.error = None
    folder.commit({"last": b"1"})
    assert len([key for key in bucket.objects if "/tips/" in key]) == 1


def test_who_stops_a_commit_while_tips_are_deleted_stops_it() -> None:
    bucket = Deletions()
    folder = Folder(bucket)
    bucket.error = CancelledError()
    with pytest.raises(CancelledError):
        folder.commit({"x": b"1"})
    assert folder.repository.ledger.outbox() is not None
