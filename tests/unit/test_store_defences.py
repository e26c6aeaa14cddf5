"""What one damaged or hostile object, or one failing request, must not do: lose what others stored, stop all later
commits, or hide what is there.
"""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from buckia import BuckiaClient
from buckia.core.codec import ZSTD
from buckia.core.content import chunks
from buckia.core.directory import entries, lookup
from buckia.core.ids import BlobType, ObjectId, blob_id, object_id
from buckia.core.index import build_segment
from buckia.core.manifest import FileContent
from buckia.core.pack import ROW_BYTES, TAIL_BYTES, PackBuilder, footer_bytes, parse_pack
from buckia.core.record import Ack, Condemn, Record, encode_record, pack_key, segment_key
from buckia.errors import AccessDenied, BucketError, IntegrityError, LocalError, RollbackError
from buckia.local.ledger import DeviceLedger
from buckia.local.state import State
from buckia.store import catalog, repository
from buckia.store.repository import Repository
from buckia.sync.base import ObjectInfo, Page
from buckia.sync.memory import MemorySync
from tests.support.repositories import FOLDER, PREFIX, Folder, noise, open_repository
from tests.transfers import Crowded, make


def keys(bucket: MemorySync, part: str) -> list[str]:
    return [key for key in sorted(bucket.objects) if key.startswith(PREFIX + part)]


def names(repo: Repository) -> list[bytes]:
    return [entry.name for entry in entries(repo.nodes, repo.current().tree.id)]


# ---- a pack that could not be handed over


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_pack_that_could_not_be_logged_ends_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """It held chunks of other files than the one that was read just then."""
    chance = random.Random(1)
    (tmp_path / "data").mkdir()
    for number in range(8):
        (tmp_path / f"data/f{number}").write_bytes(chance.randbytes(6 << 20))
    original, count = DeviceLedger.log_pack, 0

    def log_pack(self: DeviceLedger, *what: Any) -> None:
        nonlocal count
        count += 1
        if count == nth:
            raise LocalError("The local state cannot be used: disk full.")
        original(self, *what)

    monkeypatch.setattr(DeviceLedger, "log_pack", log_pack)
    with BuckiaClient.for_location(str(tmp_path / "b/f"), state_dir=tmp_path / "state") as client:
        with pytest.raises(LocalError, match="disk full"):
            client.sync(tmp_path / "data")
        assert client.sync(tmp_path / "data").uploaded == 8
        result = client.verify(read_data=True)
        assert (result.clean, result.files) == (True, 8)


# ---- the folder object


def test_a_folder_is_not_continued_where_its_object_is_gone() -> None:
    """A device that knows the folder and no record of it would make one that nobody else can open."""
    bucket = MemorySync()
    repo = open_repository(bucket, create=True)
    repo.refresh()
    repo.become_device("a")
    bucket.objects.clear()
    with pytest.raises(RollbackError, match="`folder` object of f is gone"):
        repo.open(create=True)
    assert not bucket.objects


# ---- damage stays where it is


def test_old_damage_does_not_stop_later_commits() -> None:
    folder = Folder()
    folder.commit({"d/old": noise(3 << 20, 1), "other": b"x"})
    for key in keys(folder.bucket, "packs/"):
        del folder.bucket.objects[key]
    for number in range(70):
        folder.commit({f"new{number}": b"%d" % number})
    assert len(names(folder.repository)) == 72
    assert keys(folder.bucket, "segments/")


def condemn(folder: Folder, packs: list[str]) -> None:
    """Another device condemns packs, as a collector would."""
    repo = Folder(folder.bucket, "collector").repository
    repo.refresh()
    own = repo.ledger.device()
    assert own is not None
    tips = repo.ledger.tips()
    vector = tuple((device, *tip) for device, tip in sorted(tips.items()) if device != own[0])
    doomed = tuple(sorted(ObjectId(bytes.fromhex(key[-64:])) for key in packs))
    seq, prev = tips[own[0]]
    record = Record(own[0], seq + 1, prev, (), vector, 5, own[1], Condemn(doomed))
    data = encode_record(record)
    repo.ledger.set_outbox(data)
    repo._settle(data, record)


def test_damage_does_not_stop_a_rescue() -> None:
    folder = Folder()
    folder.commit({"big": noise(5 << 20, 9)})
    folder.commit({"x": b"xx"})
    packs = keys(folder.bucket, "packs/")
    largest = max(packs, key=lambda key: len(folder.bucket.objects[key]))
    del folder.bucket.objects[largest]
    basis = folder.repository.ledger.tips()
    condemn(folder, packs)
    repo = folder.repository
    writer = repo.writer()
    linked = repo.publish(writer, folder.tree, basis)
    assert repo.ledger.outbox() is None
    assert linked.snapshot.state_root == folder.tree.id
    for pack in packs:
        folder.bucket.objects.pop(pack, None)
    fresh = open_repository(folder.bucket)
    fresh.refresh()
    entry = lookup(fresh.nodes, fresh.current().tree.id, (b"x",))
    assert entry is not None
    content = entry.versions[0].content
    assert isinstance(content, FileContent)
    (piece,) = fresh.reader.plan([content.id])
    assert [raw for _, raw in fresh.reader.fetch(piece)] == [b"xx"], "what could be rescued was"


# ---- segments are a cache


def test_a_segment_that_cannot_be_written_is_no_failure() -> None:
    class Denied(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            if "/segments/" in key:
                raise AccessDenied("no segments")
            return super()._put(key, data, if_absent)

    folder = Folder(Denied())
    for number in range(40):
        folder.commit({f"f{number}": b"%d" % number})
    fresh = open_repository(folder.bucket)
    fresh.refresh()
    assert len(names(fresh)) == 40


def test_segments_that_do_not_fit_together_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buckia.core.index.META_BYTES_MAX", 20_000)
    monkeypatch.setattr(catalog, "UNCOVERED_MAX", 8)
    folder = Folder()
    for number in range(100):
        folder.commit({f"f{number}": noise(300, number)})
    assert len(keys(folder.bucket, "segments/")) > 1
    fresh = open_repository(folder.bucket)
    fresh.refresh()
    assert len(names(fresh)) == 100
    assert len(list(fresh.catalog._loose())) < 16


@pytest.mark.parametrize("damage", ["gone", "tail", "id"])
def test_a_pack_that_comes_back_is_found_again(monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """A segment that said it was gone, or that it held other blobs, would say so for ever."""
    monkeypatch.setattr("buckia.store.writer.INLINE_ROWS_BYTES_MAX", 100)
    folder = Folder()
    folder.commit({"a": noise(5 << 20, 3), "z": b"1"})
    monkeypatch.setattr("buckia.store.writer.INLINE_ROWS_BYTES_MAX", 1 << 20)
    for key in keys(folder.bucket, "segments/"):
        del folder.bucket.objects[key]  # as if its writer had been cut off before
    pack = max(keys(folder.bucket, "packs/"), key=lambda key: len(folder.bucket.objects[key]))
    whole = folder.bucket.objects.pop(pack)
    if damage == "tail":
        folder.bucket.objects[pack] = whole[:-1] + b"X"
    if damage == "id":
        folder.bucket.objects[pack] = flipped_bit(whole, len(whole) - 8 - 20, 0)
    other = Folder(folder.bucket, "other")
    for number in range(33):
        other.commit({f"n{number}": b"%d" % number})
    assert keys(folder.bucket, "segments/")
    folder.bucket.objects[pack] = whole
    fresh = open_repository(folder.bucket)
    fresh.refresh()
    assert contents(fresh, b"a") == noise(5 << 20, 3)


def flipped_bit(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def contents(repo: Repository, name: bytes) -> bytes:
    """A file's bytes, all of them from the bucket."""
    entry = lookup(repo.nodes, repo.current().tree.id, (name,))
    assert entry is not None
    version = entry.versions[0]
    assert isinstance(version.content, FileContent)
    order = [blob for blob, _ in chunks(repo.nodes, version.content, version.size)]
    found = {blob: raw for piece in repo.reader.plan(dict.fromkeys(order)) for blob, raw in repo.reader.fetch(piece)}
    return b"".join(found[blob] for blob in order)


@pytest.fixture
def lone_footer(monkeypatch: pytest.MonkeyPatch) -> tuple[Folder, str, dict[bytes, bytes]]:
    """A folder with one pack, whose rows are in no record; the pack's key, and what is in the folder."""
    monkeypatch.setattr("buckia.store.writer.INLINE_ROWS_BYTES_MAX", 0)
    folder = Folder()
    files = {b"long": noise(100_000, 1), b"noise": noise(999, 2), b"text": b"text " * 300}
    folder.commit({name.decode(): data for name, data in files.items()})
    for key in keys(folder.bucket, "segments/"):
        del folder.bucket.objects[key]
    monkeypatch.undo()
    (pack,) = keys(folder.bucket, "packs/")
    return folder, pack, files


def footer_bits(pack: bytes, *, ids: bool = True) -> Iterator[tuple[int, int]]:
    """Every bit of footer and tail; of ids one of each byte, or none."""
    start = len(pack) - footer_bytes(len(parse_pack(pack)))
    for place in range(start, len(pack)):
        is_id = 4 <= (place - start) % ROW_BYTES < 36 and place < len(pack) - TAIL_BYTES
        if ids or not is_id:
            yield from ((place, bit) for bit in ([place % 8] if is_id else range(8)))


def test_a_flipped_bit_in_a_footer_that_no_hash_covers_is_an_error(
    lone_footer: tuple[Folder, str, dict[bytes, bytes]],
) -> None:
    """A clear one, of whatever lay there; what is read all the same is as it was written."""
    folder, pack, files = lone_footer
    whole = folder.bucket.objects[pack]
    for place, bit in footer_bits(whole):
        folder.bucket.objects[pack] = flipped_bit(whole, place, bit)
        fresh = open_repository(folder.bucket)
        fresh.refresh()
        errors: list[str] = []
        for name, data in files.items():
            try:
                assert contents(fresh, name) == data
            except IntegrityError as error:
                errors.append(error.message)
        assert errors, (place, bit)
        assert all("is in no pack" in error or "damaged" in error for error in errors)


def test_nothing_relies_on_what_a_flipped_footer_says(lone_footer: tuple[Folder, str, dict[bytes, bytes]]) -> None:
    """Another device that has the same contents stores again what it could not read."""
    folder, pack, files = lone_footer
    before = dict(folder.bucket.objects)
    stored = 0
    for place, bit in footer_bits(before[pack], ids=False):
        folder.bucket.objects = {**before, pack: flipped_bit(before[pack], place, bit)}
        other = Folder(folder.bucket, "other")
        try:
            other.commit({f"{name.decode()} again": data for name, data in files.items()})
        except IntegrityError:  # the folder's own node cannot be read, so there is nothing to build on
            continue
        fresh = open_repository(folder.bucket)
        fresh.refresh()
        assert {name: contents(fresh, name + b" again") for name in files} == files
        stored += 1
    assert stored > 20


def test_a_segment_of_other_records_hides_nothing() -> None:
    """Consistent in itself, and not about the records that are linked."""
    folder = Folder()
    own = folder.repository.ledger.device()
    assert own is not None
    for number in range(12):
        folder.commit({f"f{number}": noise(3000, number)})
    prev, records = None, []
    for seq in range(1, 14):
        records.append(encode_record(Record(own[0], seq, prev, (), (), 5, "x", Ack())))
        prev = object_id(records[-1])
    forged = build_segment(records, {})
    folder.bucket.objects[PREFIX + segment_key(object_id(forged))] = forged
    fresh = open_repository(folder.bucket)
    fresh.refresh()
    assert len(names(fresh)) == 12
    for number in range(30):
        folder.commit({f"g{number}": b"%d" % number})
    assert len(names(folder.repository)) == 42


@pytest.mark.parametrize("damage", ["truncated", "meta", "row"])
def test_a_damaged_local_copy_of_a_segment_is_fetched_again(tmp_path: Path, damage: str) -> None:
    chance = random.Random(5)
    folder = Folder.__new__(Folder)
    folder.bucket, folder.modes, folder.mtimes = MemorySync(), {}, {}

    def opened() -> State:
        state = State.open(str(tmp_path), machine="m")
        repo = Repository(
            make(folder.bucket), state, FOLDER, random_bytes=chance.randbytes, now_ns=lambda: 1_700_000_000 * 10**9
        )
        repo.open(create=True)
        repo.refresh()
        folder.repository = repo
        return state

    state = opened()
    folder.repository.become_device("a")
    folder.repository.join(folder.repository.ledger.tips())
    for number in range(33):
        folder.commit({f"f{number}": noise(3000, number)})
    state.close()
    (name,) = os.listdir(tmp_path / "segments")
    data = bytearray((tmp_path / "segments" / name).read_bytes())
    if damage == "truncated":
        del data[-100:]
    else:
        data[40 if damage == "meta" else -13] ^= 1
    (tmp_path / "segments" / name).write_bytes(data)
    state = opened()
    try:
        repo = folder.repository
        for entry in entries(repo.nodes, folder.tree.id):
            content = entry.versions[0].content
            assert isinstance(content, FileContent)
            (piece,) = repo.reader.plan([content.id])
            assert repo.reader.fetch(piece)
        folder.commit({"more": b"more"})
    finally:
        state.close()


# ---- counting


def test_consolidation_is_due_when_a_segment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of joining devices count as well."""
    calls = []
    original = Repository._consolidate

    def counted(self: Repository, *what: Any) -> None:
        calls.append(what)
        original(self, *what)

    monkeypatch.setattr(Repository, "_consolidate", counted)
    folder = Folder()
    for number in range(70):
        folder.repository.refresh()
        folder.commit({f"f{number}": noise(100, number)})
        Folder(folder.bucket, f"ci {number}")
    assert 2 <= len(calls) <= 70 * 2 // 16


def test_a_record_is_not_composed_while_another_waits() -> None:
    folder = Folder()
    folder.commit({"a": b"1"})
    repo = folder.repository
    writer = repo.writer()
    tree = folder.tree
    repo._compose(Ack(), repo.ledger.tips())
    with pytest.raises(IntegrityError, match="waits to be delivered"):
        repo.publish(writer, tree, repo.ledger.tips())


def test_a_folder_says_when_it_has_too_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "DEVICES_MAX", 3)
    bucket = MemorySync()
    for number in range(3):
        Folder(bucket, f"d{number}").commit({f"f{number}": b"x"})
    before = dict(bucket.objects)
    with pytest.raises(Exception, match="This folder has 3 devices"):
        Folder(bucket, "one more")
    assert bucket.objects == before


# ---- transfers


def test_a_listing_in_a_circle_ends() -> None:
    class Circular(MemorySync):
        def _list(self, prefix: str, token: str | None) -> Page:
            return Page((), ["b" if token == "a" else "a"])

    with pytest.raises(BucketError, match="again and again"):
        make(Circular()).list()
    with pytest.raises(BucketError, match="again and again"):
        [*Circular().list()]


def test_limits_by_verb_hold_for_foreground_requests_too() -> None:
    bucket = Crowded()
    bucket.capabilities = replace(bucket.capabilities, concurrency={"put": 2})
    bucket.gate.clear()
    with make(bucket, workers=2) as transfer:
        threads = [threading.Thread(target=transfer.put, args=(f"f{number}", b"x")) for number in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            assert bucket.arrived.acquire(timeout=20)
        assert not bucket.arrived.acquire(timeout=0.2)
        bucket.gate.set()
        for thread in threads:
            thread.join()
    assert bucket.most == 2


def test_a_small_pack_of_huge_nodes_is_not_opened_whole() -> None:
    """60 nodes of 16 MiB that compress to nothing once took a gigabyte of memory."""
    folder = Folder()
    folder.commit({"a": b"1"})
    huge = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(8 << 20))
    builder = PackBuilder(bytes(32))
    node = b"\x90"
    name = blob_id(BlobType.DIRECTORY, node)
    builder.add(BlobType.DIRECTORY, 0, name, 1, node)
    for number in range(30):
        builder.add(BlobType.DIRECTORY, ZSTD, blob_id(BlobType.DIRECTORY, b"%d" % number), 8 << 20, huge)
    sealed = builder.finish()
    folder.bucket.put(PREFIX + pack_key(sealed.id), sealed.data)
    folder.repository.catalog.add_pack(sealed.id, len(sealed.data), sealed.rows)
    tracemalloc.start()
    try:
        assert folder.repository.reader.node(BlobType.DIRECTORY, name) == node
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
