"""An answer that was spoilt on its way is no damage: it is asked for once more, and what is damaged costs that one
request.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from buckia.core.ids import BlobId
from buckia.core.record import parse_pack_key, parse_record_key, parse_segment_key, parse_tip_key
from buckia.engine.context import Progress
from buckia.engine.history import cat, ls
from buckia.engine.verify import verify
from buckia.engine.work import Inline
from buckia.errors import FormatError, IntegrityError
from buckia.store.repository import Repository
from buckia.sync.faulty import Fault, FaultySync
from buckia.sync.memory import MemorySync
from tests.support.repositories import PREFIX, Folder, noise, open_repository

Files = dict[str, bytes]


def read_all(repository: Repository) -> Files:
    """Every file of the newest state, as a new reader learns of them."""
    repository.refresh()
    files = [info.path for info in ls(repository, "latest", "", True) if info.kind == "file"]
    return {path: b"".join(cat(repository, "latest", path)) for path in files}


def chunks_of(repository: Repository) -> list[BlobId]:
    """What each file of one chunk consists of."""
    repository.refresh()
    return [BlobId(bytes.fromhex(info.content)) for info in ls(repository, "latest", "", True) if info.kind == "file"]


@pytest.fixture(params=["small", "large", "segments", "lone footers"])
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder whose reading takes all kinds of objects."""
    if request.param == "lone footers":
        monkeypatch.setattr("buckia.store.writer.INLINE_ROWS_BYTES_MAX", 0)
    folder = Folder()
    folder.commit({"a/long": noise(300_000, 1), "a/noise": noise(999, 2), "text": b"text " * 300, "twin": b"twin"})
    if request.param == "large":
        folder.commit({"clip": noise(6 << 20, 3), "b/other": noise(2 << 20, 4)})
    if request.param == "segments":
        monkeypatch.setattr("buckia.store.catalog.UNCOVERED_MAX", 8)
        for number in range(12):
            folder.commit({f"d{number % 3}/f{number}": noise(700, number)})
    if request.param == "lone footers":
        for key in [key for key in folder.bucket.objects if "/segments/" in key]:
            del folder.bucket.objects[key]
    monkeypatch.undo()
    return folder


def flips(gets: int) -> Iterator[Fault]:
    """One bit of one answer, for each of so many: at its begin, in its middle, at its end, and anywhere."""
    chance = random.Random(5)
    for nth in range(1, gets + 1):
        for at in (2, -1, chance.randrange(1 << 30)):
            yield Fault("get", "flip", nth=nth, at=at)


def disturbed(folder: Folder, work: Callable[[Repository], object]) -> list[int]:
    """Do work as it is, and with a spoilt answer to each of its gets; it gives the same each time. The requests that
    it takes, the undisturbed ones first.
    """
    with FaultySync(folder.bucket) as bucket:
        expected = work(open_repository(bucket))
        counts = [bucket.traffic.requests.total]
        gets = bucket.traffic.requests.get
    for fault in flips(gets):
        with FaultySync(folder.bucket, [fault]) as bucket:
            assert work(open_repository(bucket)) == expected, fault
            counts.append(bucket.traffic.requests.total)
    return counts


def test_a_spoilt_answer_changes_nothing_that_is_read(folder: Folder) -> None:
    """Nor does it cost more than one request; of a record also one for its size, as it may have been cut short."""
    before, *others = disturbed(folder, read_all)
    assert max(others) <= before + 2


def test_a_spoilt_answer_is_no_damage_to_verify(folder: Folder) -> None:
    def work(repository: Repository) -> object:
        result = verify(repository, Inline(), read_data=True, progress=Progress())
        return (result.damaged, result.files, result.bytes, result.root, result.blobs)

    before, *others = disturbed(folder, work)
    assert max(others) <= before + 2


# ---- what is really damaged


def first(bucket: MemorySync, parse: Callable[[str], object]) -> str:
    return next(key for key in sorted(bucket.objects) if parse(key[len(PREFIX) :]) is not None)


def spoil(bucket: MemorySync, key: str, place: int) -> None:
    data = bytearray(bucket.objects[key])
    data[place] ^= 1
    bucket.objects[key] = bytes(data)


def asked(bucket: FaultySync, key: str) -> int:
    return bucket.log.count(("get", key))


def test_a_damaged_record_is_read_twice() -> None:
    folder = Folder()
    key = first(folder.bucket, parse_record_key)
    spoil(folder.bucket, key, 10)
    with FaultySync(folder.bucket) as bucket:
        with pytest.raises(
            IntegrityError, match=r"^Record 1 of device \w+ is damaged: its bytes do not match its name"
        ):
            open_repository(bucket).refresh()
        assert asked(bucket, key) == 2


@pytest.mark.parametrize(("place", "words"), [(0, "not one of buckia's|malformed|Malformed"), (-1, "another folder")])
def test_a_damaged_folder_object_is_read_twice(place: int, words: str) -> None:
    folder = Folder()
    spoil(folder.bucket, PREFIX + "folder", place)
    with FaultySync(folder.bucket) as bucket:
        with pytest.raises((FormatError, IntegrityError), match=words):
            open_repository(bucket)
        assert asked(bucket, PREFIX + "folder") == 2


def test_damaged_chunks_of_one_range_cost_one_request_together() -> None:
    """And the others of that range are had."""
    folder = Folder()
    folder.commit({f"f{number}": noise(900, number) for number in range(50)})
    pack = first(folder.bucket, parse_pack_key)
    repository = open_repository(folder.bucket)
    (piece,) = repository.reader.plan(chunks_of(repository))
    for row in piece.rows[10:20]:
        spoil(folder.bucket, pack, row.offset)
    with FaultySync(folder.bucket) as bucket:
        repository.transfer.backend = bucket
        assert len(repository.reader.salvage(piece)) == 40
        assert asked(bucket, pack) == 2
        with pytest.raises(
            IntegrityError, match=r"^Pack .* is missing, cut short or damaged, and there is no other copy"
        ):
            repository.reader.fetch(piece)


def test_a_pack_that_is_gone_is_not_asked_for_again() -> None:
    folder = Folder()
    folder.commit({"f": noise(900, 1)})
    repository = open_repository(folder.bucket)
    (piece,) = repository.reader.plan(chunks_of(repository))
    pack = first(folder.bucket, parse_pack_key)
    del folder.bucket.objects[pack]
    with FaultySync(folder.bucket) as bucket:
        repository.transfer.backend = bucket
        assert repository.reader.salvage(piece) == []
        assert asked(bucket, pack) == 1


def test_a_damaged_segment_is_read_twice_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder()
    for number in range(40):
        folder.commit({f"f{number}": b"%d" % number})
    key = first(folder.bucket, parse_segment_key)
    spoil(folder.bucket, key, 50)
    with FaultySync(folder.bucket) as bucket:
        assert len(read_all(open_repository(bucket))) == 40
        assert asked(bucket, key) == 2
    assert f"Segment {key[-64:][:12]} is damaged. It is passed over" in caplog.text


@pytest.mark.parametrize(
    ("parse", "gets"), [(parse_pack_key, 4), (parse_record_key, 2), (parse_segment_key, 2), (parse_tip_key, 2)]
)
def test_verify_reads_what_is_damaged_once_more(parse: Callable[[str], object], gets: int) -> None:
    """Beside that the tree in a pack is walked: it is tried whole, and then a node of it is read."""
    folder = Folder()
    for number in range(40):
        folder.commit({f"f{number}": b"%d" % number})
    repository = open_repository(folder.bucket)
    repository.refresh()  # learns the records while they are whole
    key = first(folder.bucket, parse)
    spoil(folder.bucket, key, 5)
    with FaultySync(folder.bucket) as bucket:
        repository.transfer.backend = bucket
        result = verify(repository, Inline(), read_data=True, progress=Progress())
        damage = next(damage for damage in result.damaged if damage.object == key)
        assert damage.kind == "corrupt"
        assert asked(bucket, key) == gets
