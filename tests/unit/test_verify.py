"""Verification promises: a whole folder is clean, every kind of damage to every kind of object is named with what it
affects, the rest is checked all the same, and nothing is written.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from buckia.client.runtime import Threads
from buckia.core.ids import BlobId, BlobType, DeviceId, ObjectId, object_id
from buckia.core.manifest import FileContent, Kind, Version
from buckia.core.pack import PackBuilder, parse_pack, read_blob
from buckia.core.record import Ack, Condemn, Record, Snapshot, encode_record, pack_key, record_key, tip_key
from buckia.engine.context import Progress
from buckia.engine.editor import TreeEditor
from buckia.engine.history import short
from buckia.engine.verify import verify
from buckia.engine.work import Inline
from buckia.errors import AccessDenied, ForkError, RollbackError, Transient
from buckia.events import Damage, VerifyResult
from buckia.store.journal import Linked
from buckia.sync.base import Page
from buckia.sync.memory import MemorySync
from tests.support.repositories import PREFIX, Folder, noise, open_repository


def check(bucket: MemorySync, *, read_data: bool = True) -> VerifyResult:
    """Verify as a new reader; nothing may change."""
    before = dict(bucket.objects)
    repository = open_repository(bucket)
    result = verify(repository, Inline(), read_data=read_data, progress=Progress())
    assert bucket.objects == before
    return result


def damage_of(result: VerifyResult, key: str) -> Damage:
    (found,) = [damage for damage in result.damaged if damage.object == key]
    return found


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def keys(bucket: MemorySync, part: str) -> list[str]:
    return [key for key in sorted(bucket.objects) if key.startswith(PREFIX + part)]


def record_name(linked: Linked) -> str:
    return PREFIX + record_key(linked.record.device, linked.record.seq, linked.id)


def only_pack(linked: Linked) -> str:
    (ref,) = linked.snapshot.packs
    return PREFIX + pack_key(ref.id)


@pytest.fixture
def folder() -> Folder:
    return Folder()


@pytest.fixture
def three(folder: Folder) -> tuple[Folder, list[Linked]]:
    """Three snapshots: the second adds a file, the third removes it again and changes another."""
    first = folder.commit({"a.txt": b"alpha" * 9, "sub/b.bin": noise(300_000), "sub/deep/c.txt": b"gamma"})
    second = folder.commit({"added.txt": noise(500, 1)})
    third = folder.commit({"added.txt": None, "a.txt": noise(700, 2)})
    return folder, [first, second, third]


class TestWhole:
    def test_an_empty_folder_is_clean(self, folder: Folder) -> None:
        result = check(folder.bucket)
        assert result.clean
        assert (result.snapshots, result.packs, result.blobs) == (0, 0, 0)

    @pytest.mark.parametrize("read_data", [False, True])
    def test_counts(self, three: tuple[Folder, list[Linked]], read_data: bool) -> None:
        folder, _ = three
        result = check(folder.bucket, read_data=read_data)
        assert result.clean, result.damaged
        assert not result.foreign
        assert (result.snapshots, result.files, result.packs) == (3, 3, 3)
        assert result.root == folder.tree.content_hash.hex()
        stored = {row.id for key in keys(folder.bucket, "packs/") for row in parse_pack(folder.bucket.objects[key])}
        assert result.blobs == len(stored)
        assert result.read_data == read_data
        whole = sum(map(len, folder.bucket.objects.values()))
        assert result.bytes == (whole if read_data else 0)

    def test_structure_reads_no_file_contents(self, folder: Folder) -> None:
        folder.commit({f"{number}": noise(1_000_000, number) for number in range(5)})
        folder.bucket.traffic.bytes_downloaded = 0
        assert check(folder.bucket, read_data=False).clean
        assert folder.bucket.traffic.bytes_downloaded < 100_000

    def test_with_threads_and_segments(self, folder: Folder) -> None:
        for number in range(40):
            folder.commit({f"d{number % 3}/{number}": noise(2000, number)})
        assert keys(folder.bucket, "segments/")
        pool = Threads(2)
        repository = open_repository(folder.bucket, workers=2)
        steps: list[tuple[int, int]] = []
        progress = Progress(lambda current, total, action, path: steps.append((current, total)))
        result = verify(repository, pool, read_data=True, progress=progress)
        pool.close()
        assert result.clean, result.damaged
        assert (result.snapshots, result.files) == (40, 40)
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] == result.bytes

    def test_several_heads(self, folder: Folder) -> None:
        other = Folder(folder.bucket, "other")
        folder.commit({"mine": b"1"})
        other.commit({"theirs": b"2"})
        result = check(folder.bucket)
        assert result.clean
        assert (result.snapshots, result.files) == (2, 2)

    def test_foreign_objects_and_unreferenced_packs_are_no_damage(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, _ = three
        folder.bucket.objects[PREFIX + "packs/notes.txt"] = b"?"
        folder.bucket.objects[PREFIX + "lost+found"] = b"?"
        builder = PackBuilder(bytes(32))
        builder.add(0, 0, b"x" * 32, 3, b"abc")
        sealed = builder.finish()
        folder.bucket.objects[PREFIX + pack_key(sealed.id)] = bytes(sealed.data)
        result = check(folder.bucket)
        assert result.clean
        assert result.foreign == [PREFIX + "lost+found", PREFIX + "packs/notes.txt"]
        assert (result.unreferenced_packs, result.packs) == (1, 3)

    def test_a_listing_may_omit_what_exists(
        self, three: tuple[Folder, list[Linked]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, linked = three
        hidden = {only_pack(linked[0]), record_name(linked[1])}
        original = MemorySync._list

        def omitting(self: MemorySync, prefix: str, token: str | None) -> Page:
            return Page([info for info in original(self, prefix, token).objects if info.key not in hidden])

        monkeypatch.setattr(MemorySync, "_list", omitting)
        assert check(folder.bucket).clean


class TestPacks:
    def test_missing(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        key = only_pack(linked[1])
        del folder.bucket.objects[key]
        for read_data in (False, True):
            result = check(folder.bucket, read_data=read_data)
            damage = damage_of(result, key)
            assert damage.kind == "missing"
            assert "." in damage.paths  # the root node of that snapshot lies in it
            assert damage.snapshots == (short(linked[1].id),)
            assert len(result.damaged) == 1

    def test_missing_pack_of_data_names_files_and_snapshots(self, folder: Folder) -> None:
        first = folder.commit({"big/x.bin": noise(5_000_000), "big/y.bin": noise(100, 9)})
        second = folder.commit({"other": b"o"})
        sizes = {ref.id: ref.size for ref in first.snapshot.packs}
        data = PREFIX + pack_key(max(sizes, key=lambda pack: sizes[pack]))
        del folder.bucket.objects[data]
        damage = damage_of(check(folder.bucket, read_data=False), data)
        assert damage.paths == ("big/x.bin", "big/y.bin")
        assert damage.snapshots == (short(first.id), short(second.id))

    def test_every_flipped_byte_is_found(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        key = only_pack(linked[2])
        whole = folder.bucket.objects[key]
        for place in [*range(0, len(whole), 61), len(whole) - 1]:
            folder.bucket.objects[key] = flipped(whole, place)
            assert damage_of(check(folder.bucket), key).kind == "corrupt", place

    def test_a_flipped_chunk_names_its_file_only(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        key = only_pack(linked[2])
        whole = folder.bucket.objects[key]
        (row,) = [row for row in parse_pack(whole) if row.kind == BlobType.CHUNK]
        folder.bucket.objects[key] = flipped(whole, row.offset + 5)
        assert check(folder.bucket, read_data=False).clean  # nothing but reading it can tell
        result = check(folder.bucket)
        assert [damage.object for damage in result.damaged] == [key]
        assert result.damaged[0].paths == ("a.txt",)
        assert result.damaged[0].snapshots == (short(linked[2].id),)

    def test_a_flipped_header_affects_no_file(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        key = only_pack(linked[0])
        folder.bucket.objects[key] = flipped(folder.bucket.objects[key], 20)
        damage = damage_of(check(folder.bucket), key)
        assert (damage.kind, damage.paths, damage.snapshots) == ("corrupt", (), ())

    @pytest.mark.parametrize("cut", [1, 60, 2000, 10**9])
    def test_truncated(self, three: tuple[Folder, list[Linked]], cut: int) -> None:
        folder, linked = three
        key = only_pack(linked[0])
        folder.bucket.objects[key] = folder.bucket.objects[key][:-cut]
        for read_data in (False, True):
            damage = damage_of(check(folder.bucket, read_data=read_data), key)
            assert damage.kind == "corrupt"
            assert bool(damage.paths) == (cut > 60)

    def test_swapped(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        one, two = only_pack(linked[0]), only_pack(linked[2])
        objects = folder.bucket.objects
        objects[one], objects[two] = objects[two], objects[one]
        result = check(folder.bucket)
        assert {damage.object for damage in result.damaged} == {one, two}
        assert all(damage.paths and damage.snapshots for damage in result.damaged)

    def test_a_flipped_node_is_found_without_reading_data_and_the_rest_is_checked(self, folder: Folder) -> None:
        folder.commit({"x/one": b"1", "z/three": b"3"})
        linked = folder.commit({"y/two": b"2"})
        gone = folder.commit({"w": noise(900)})
        key, missing = only_pack(linked), only_pack(gone)
        whole = folder.bucket.objects[key]
        subtree = next(row for row in parse_pack(whole) if row.kind == BlobType.DIRECTORY)
        folder.bucket.objects[key] = flipped(whole, subtree.offset + subtree.length // 2)
        result = check(folder.bucket, read_data=False)
        damage = damage_of(result, key)
        assert damage.kind == "corrupt"
        assert damage.paths in (("y",), (".",))
        del folder.bucket.objects[missing]
        assert {damage.object for damage in check(folder.bucket).damaged} == {key, missing}

    def test_another_copy_heals(self, folder: Folder) -> None:
        linked = folder.commit({"a": noise(3000)})
        writer = folder.repository.writer()
        writer.copy(blobs_of(folder.bucket.objects[only_pack(linked)]))
        folder.repository.publish(writer, folder.tree, folder.repository.ledger.tips())
        key = only_pack(linked)
        del folder.bucket.objects[key]
        damage = damage_of(check(folder.bucket), key)
        assert (damage.kind, damage.paths, damage.snapshots) == ("missing", (), ())

    def test_a_condemned_pack_may_be_gone_unless_it_is_needed(self, folder: Folder) -> None:
        linked = folder.commit({"a": noise(3000)})
        writer = folder.repository.writer()
        writer.copy(blobs_of(folder.bucket.objects[only_pack(linked)]))
        copy = folder.repository.publish(writer, folder.tree, folder.repository.ledger.tips())
        condemn(folder, linked.snapshot.packs[0].id, copy.snapshot.packs[0].id)
        del folder.bucket.objects[only_pack(linked)]
        assert check(folder.bucket).clean
        del folder.bucket.objects[only_pack(copy)]
        (damage,) = check(folder.bucket).damaged
        assert damage.kind == "missing"
        assert damage.snapshots == (short(linked.id), short(copy.id))

    def test_a_pack_whose_footer_differs_from_the_history(self, folder: Folder) -> None:
        linked = folder.commit({"a": b"some text"})
        ref = linked.snapshot.packs[0]
        rows = bytearray(ref.rows or b"")
        rows[4] ^= 1  # another id
        other = Snapshot(
            linked.snapshot.state_root,
            linked.snapshot.content_root,
            1,
            9,
            (type(ref)(ref.id, ref.size, bytes(rows)),),
        )
        replace_record(folder, linked, other)
        result = check(folder.bucket)
        assert damage_of(result, PREFIX + pack_key(ref.id)).kind == "malformed"

    @pytest.mark.parametrize("back", [1, 6, 20])
    def test_a_pack_whose_rows_are_only_in_itself(self, folder: Folder, back: int) -> None:
        linked = folder.commit({"a": b"some text"})
        (ref,) = linked.snapshot.packs
        replace_record(folder, linked, replace(linked.snapshot, packs=(replace(ref, rows=None),)))
        assert check(folder.bucket).clean
        key = only_pack(linked)
        whole = folder.bucket.objects[key]
        folder.bucket.objects[key] = flipped(whole, len(whole) - back)
        assert damage_of(check(folder.bucket), key).kind == "corrupt"


def condemn(folder: Folder, *packs: ObjectId) -> None:
    """A collector announces that it will delete packs."""
    vector = tuple((device, *tip) for device, tip in sorted(folder.repository.ledger.tips().items()))
    device = DeviceId(b"c" * 16)
    data = encode_record(Record(device, 1, None, (), vector, 0, "collector", Condemn(tuple(sorted(packs)))))
    name = object_id(data)
    folder.bucket.objects[PREFIX + record_key(device, 1, name)] = data
    folder.bucket.objects[PREFIX + tip_key(device, 1, name)] = bytes(name)


def blobs_of(pack: bytes) -> list[tuple[BlobType, BlobId, bytes]]:
    rows = parse_pack(pack)
    return [(BlobType(row.kind), row.id, read_blob(row, pack[row.offset : row.offset + row.length])) for row in rows]


def replace_record(folder: Folder, linked: Linked, body: Snapshot | Ack, **changes: object) -> str:
    """Put another record in the place of a device's newest one; its key."""
    record = linked.record
    fields = {
        "device": record.device,
        "seq": record.seq,
        "prev": record.prev,
        "features": (),
        "vector": record.vector,
        "time_ns": record.time_ns,
        "name": record.name,
        "body": body,
        **changes,
    }
    data = encode_record(Record(**fields))  # type: ignore[arg-type]
    name = object_id(data)
    objects = folder.bucket.objects
    objects.pop(record_name(linked), None)
    objects.pop(PREFIX + tip_key(record.device, record.seq, linked.id), None)
    objects[PREFIX + record_key(record.device, record.seq, name)] = data
    objects[PREFIX + tip_key(record.device, record.seq, name)] = bytes(name)
    return PREFIX + record_key(record.device, record.seq, name)


class TestRecords:
    @pytest.mark.parametrize("read_data", [False, True])
    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_missing(self, three: tuple[Folder, list[Linked]], read_data: bool, number: int) -> None:
        folder, linked = three
        del folder.bucket.objects[record_name(linked[number])]
        result = check(folder.bucket, read_data=read_data)
        assert damage_of(result, record_name(linked[number])).kind == "missing"

    def test_missing_although_a_segment_holds_it(self, folder: Folder) -> None:
        linked = [folder.commit({"a": b"%d" % number}) for number in range(40)]
        del folder.bucket.objects[record_name(linked[3])]
        damage = damage_of(check(folder.bucket, read_data=False), record_name(linked[3]))
        assert (damage.kind, damage.snapshots) == ("missing", (short(linked[3].id),))

    @pytest.mark.parametrize("number", [0, 2])
    def test_flipped(self, three: tuple[Folder, list[Linked]], number: int) -> None:
        folder, linked = three
        key = record_name(linked[number])
        folder.bucket.objects[key] = flipped(folder.bucket.objects[key], 90)
        for read_data in (False, True):
            result = check(folder.bucket, read_data=read_data)
            assert damage_of(result, key).kind == "corrupt"
            assert result.snapshots == 2

    def test_flipped_after_it_was_seen(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        key = record_name(linked[1])
        folder.bucket.objects[key] = flipped(folder.bucket.objects[key], 90)
        result = verify(folder.repository, Inline(), read_data=True, progress=Progress())
        assert damage_of(result, key).kind == "corrupt"
        assert result.snapshots == 3

    def test_one_device_s_damage_leaves_the_other_s_snapshots(self, folder: Folder) -> None:
        mine = folder.commit({"a": b"1"})
        other = Folder(folder.bucket, "other")
        other.commit({"b": noise(2000)})
        theirs = other.commit({"b": None})
        del folder.bucket.objects[record_name(theirs)]
        result = check(folder.bucket)
        assert [damage.object for damage in result.damaged] == [record_name(theirs)]
        assert result.snapshots == 2
        assert mine.id in {linked.id for linked in folder.repository.journal.records()}

    def test_a_record_that_knows_less_than_one_that_it_names(self, folder: Folder) -> None:
        Folder(folder.bucket, "other").commit({"z": b"z"})
        folder.repository.refresh()
        folder.commit({"a": b"1"})
        last = folder.commit({"a": b"2"})
        key = replace_record(folder, last, last.snapshot, vector=())
        result = check(folder.bucket)
        assert damage_of(result, key).kind == "malformed"

    @pytest.mark.parametrize("wrong", ["device", "number", "tip"])
    def test_one_that_names_another_as_what_it_is_not(self, folder: Folder, wrong: str) -> None:
        """Whoever lies is named, and the record that it lies about is not: that one is where it belongs."""
        other = Folder(folder.bucket, "other").commit({"z": b"z"})
        device, seq = other.record.device, other.record.seq
        named = (device, seq + 5, other.id) if wrong == "number" else (DeviceId(b"d" * 16), seq, other.id)
        key = PREFIX + tip_key(*named)
        if wrong == "tip":
            folder.bucket.objects[key] = bytes(other.id)
        else:
            linked = folder.commit({"a": b"1"})
            key = replace_record(folder, linked, linked.snapshot, vector=(named,))
        for read_data in (False, True):
            (damage,) = check(folder.bucket, read_data=read_data).damaged
            assert (damage.object, damage.kind) == (key, "malformed")
            assert "names a record of another device or number" in damage.reason

    def test_sums_that_are_not_those_of_the_tree(self, folder: Folder) -> None:
        linked = folder.commit({"a": b"123"})
        body = linked.snapshot
        wrong = Snapshot(body.state_root, body.content_root, 2, body.bytes, body.packs)
        key = replace_record(folder, linked, wrong)
        result = check(folder.bucket, read_data=False)
        assert damage_of(result, key).kind == "malformed"

    def test_a_tree_that_no_pack_holds(self, folder: Folder) -> None:
        linked = folder.commit({"a": b"123"})
        body = linked.snapshot
        key = replace_record(folder, linked, Snapshot(bytes(32), body.content_root, 1, 3, body.packs))
        (damage,) = check(folder.bucket).damaged
        assert damage.object == f"blob {bytes(32).hex()}"
        assert (damage.kind, damage.paths) == ("missing", (".",))
        assert damage.snapshots == (key[-64:][:8],)

    def test_a_chunk_that_no_pack_holds(self, folder: Folder) -> None:
        repository = folder.repository
        folder.commit({"a": b"123"})
        writer = repository.writer()
        editor = TreeEditor(repository.nodes, folder.tree)
        content = FileContent(0, type(writer.put(BlobType.CHUNK, b"x"))(b"\7" * 32))
        editor.edit((b"d", b"ghost"), (), Version(folder.dot(), Kind.FILE, 9, 0, 0o644, content))
        linked = repository.publish(writer, editor.finish(), repository.ledger.tips())
        (damage,) = check(folder.bucket, read_data=False).damaged
        assert (damage.kind, damage.paths) == ("missing", ("d/ghost",))
        assert damage.snapshots == (short(linked.id),)


class TestOtherObjects:
    def test_the_folder_object(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, _ = three
        key = PREFIX + "folder"
        whole = folder.bucket.objects[key]
        repository = folder.repository
        folder.bucket.objects[key] = flipped(whole, len(whole) - 1)
        result = verify(repository, Inline(), read_data=True, progress=Progress())
        assert damage_of(result, key).kind == "corrupt"
        del folder.bucket.objects[key]
        result = verify(repository, Inline(), read_data=False, progress=Progress())
        assert damage_of(result, key).kind == "missing"

    def test_segments(self, folder: Folder) -> None:
        for number in range(40):
            folder.commit({"a": b"%d" % number})
        (key,) = keys(folder.bucket, "segments/")
        whole = folder.bucket.objects[key]
        chance = random.Random(1)
        for _ in range(10):
            folder.bucket.objects[key] = flipped(whole, chance.randrange(len(whole)))
            result = check(folder.bucket)
            assert [damage.object for damage in result.damaged] == [key]
            assert result.damaged[0].kind == "corrupt"
            assert result.snapshots == 40
        name = object_id(b"no segment")
        folder.bucket.objects[key] = whole
        folder.bucket.objects[PREFIX + f"segments/{name.hex()}"] = b"no segment"
        assert [damage.kind for damage in check(folder.bucket).damaged] == ["malformed"]
        del folder.bucket.objects[PREFIX + f"segments/{name.hex()}"]
        del folder.bucket.objects[key]
        assert check(folder.bucket).clean  # a cache

    def test_tips(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, _ = three
        (key,) = keys(folder.bucket, "tips/")
        whole = folder.bucket.objects[key]
        folder.bucket.objects[key] = flipped(whole, 3)
        assert damage_of(check(folder.bucket), key).kind == "corrupt"
        del folder.bucket.objects[key]
        result = check(folder.bucket, read_data=False)
        assert [(damage.object, damage.kind) for damage in result.damaged] == [(key, "missing")]
        assert result.snapshots == 3

    def test_a_tip_of_a_record_that_is_not_there(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, _ = three
        device, name = DeviceId(b"d" * 16), object_id(b"?")
        folder.bucket.objects[PREFIX + tip_key(device, 7, name)] = bytes(name)
        result = check(folder.bucket)
        assert damage_of(result, PREFIX + record_key(device, 7, name)).kind == "missing"
        assert result.snapshots == 3


class TestMuchDamage:
    def test_paths_are_limited_and_every_snapshot_is_named(self, folder: Folder) -> None:
        first = folder.commit({f"d/{number:03}": noise(20_000, number) for number in range(300)})
        more = [folder.commit({"x": b"%d" % number}) for number in range(5)]
        sizes = {ref.id: ref.size for ref in first.snapshot.packs}
        key = PREFIX + pack_key(max(sizes, key=lambda pack: sizes[pack]))
        del folder.bucket.objects[key]
        damage = damage_of(check(folder.bucket, read_data=False), key)
        assert len(damage.paths) == len(set(damage.paths)) == 20
        assert all(path.startswith("d/") for path in damage.paths)
        assert damage.snapshots == tuple(short(linked.id) for linked in [first, *more])

    def test_whatever_is_deleted_or_flipped_is_found(self, folder: Folder) -> None:
        folder.commit({"a": b"1", "b/c": noise(90_000)})
        folder.commit({"b/d": b"2"})
        for key in sorted(folder.bucket.objects):
            whole = folder.bucket.objects[key]
            if key == PREFIX + "folder":
                continue
            for changed in damages(whole):
                if changed is None:
                    del folder.bucket.objects[key]
                else:
                    folder.bucket.objects[key] = changed
                result = check(folder.bucket)
                assert not result.clean, key
                folder.bucket.objects[key] = whole
        assert check(folder.bucket).clean


def damages(whole: bytes) -> Iterator[bytes | None]:
    yield None
    yield b""
    yield whole[: len(whole) // 2]
    yield whole + b"\0"
    for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        yield flipped(whole, place)


class TestRaises:
    def test_a_bucket_that_was_emptied(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, _ = three
        folder.bucket.objects.clear()
        with pytest.raises(RollbackError):
            verify(folder.repository, Inline(), read_data=False, progress=Progress())

    def test_a_fork(self, three: tuple[Folder, list[Linked]]) -> None:
        folder, linked = three
        name = object_id(b"other")
        record = linked[2].record
        folder.bucket.objects[PREFIX + tip_key(record.device, record.seq, name)] = bytes(name)
        with pytest.raises(ForkError):
            check(folder.bucket)

    @pytest.mark.parametrize("error", [AccessDenied("no"), Transient("later")])
    def test_a_bucket_that_cannot_be_read(
        self, three: tuple[Folder, list[Linked]], error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, linked = three
        key = only_pack(linked[0])
        original = MemorySync._get

        def failing(self: MemorySync, wanted: str, offset: int, length: int | None) -> bytes:
            if wanted == key:
                raise error
            return original(self, wanted, offset, length)

        monkeypatch.setattr(MemorySync, "_get", failing)
        with pytest.raises(type(error)):
            check(folder.bucket)
