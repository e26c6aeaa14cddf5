"""What others wrote is decoded and staged in memory that the limits bound, whatever it claims, and however often it
repeats itself; what does not fit on the disk is left out alone.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from buckia.core import canonical
from buckia.core.content import ChunkListBuilder, decode_chunks, encode_chunks
from buckia.core.ids import BlobId, BlobType, Dot, blob_id
from buckia.core.manifest import FileContent, Kind, Version, decode_directory, encode_directory
from buckia.core.merkle import NODE_BYTES_MAX, NODE_ITEMS_MAX
from buckia.engine.context import Progress
from buckia.engine.editor import TreeEditor
from buckia.engine.fetch import RESERVE_BYTES, Fetched, Fetcher, LocalSources, Wanted
from buckia.engine.restore import restore_file
from buckia.engine.restoreplan import Site
from buckia.engine.work import Inline
from buckia.errors import FormatError, IntegrityError
from buckia.local.disk import RealFileSystem
from buckia.local.writer import Writer
from buckia.store.repository import Repository
from buckia.store.transfer import Transfer
from buckia.store.writer import PackWriter
from tests.support.fleet import KERNEL, Device, Fleet, Plan
from tests.support.repositories import Folder, noise
from tests.trees import entry, symlink

MIB = 1 << 20
SIZE_MAX = MIB
ITEMS_MAX = 1 << 14
VALUE_BYTES = 128
"""Enough for one value: an empty list, its place in another, and what the checks need for it."""
COPIES = 10
"""Of the bytes themselves: those of a text take four times as much while it is text, and twice while it grows."""


@contextmanager
def allocating_at_most(limit: int) -> Iterator[None]:
    """The memory that is taken inside at any one time, beyond what was taken before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak:,} bytes at once, where {limit:,} are allowed"


def long_array(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4)


def arrays_of(item: bytes, per_array: int) -> bytes:
    """As many arrays of that many items as the size allows."""
    one = long_array(per_array) + item * per_array
    count = (SIZE_MAX - 5) // len(one)
    return long_array(count) + one * count


def chain_of(levels: int, before: int) -> bytes:
    """An array that begins with so many integers and ends with another such array, and so on."""
    return (long_array(before + 1) + b"\xcd\x01\x01" * before) * levels + b"\x90"


HOSTILE = {
    "empty arrays": arrays_of(b"\x90", 1 << 13),
    "a few short of the limit in each": arrays_of(b"\x90", ITEMS_MAX - 2),
    "one flat array": long_array(SIZE_MAX - 5) + b"\x90" * (SIZE_MAX - 5),
    "pairs": arrays_of(b"\x92\x90\x90", 100),
    "small integers": arrays_of(b"\x07", 1 << 13),
    "integers that are objects": arrays_of(b"\xcd\x7f\xff", 1 << 13),
    "nils": arrays_of(b"\xc0", 1 << 13),
    "empty bins": arrays_of(b"\xc4\x00", 1 << 13),
    "bins of one byte": arrays_of(b"\xc4\x01a", 1 << 13),
    "texts of one character": arrays_of("\U0001f600".encode().join([b"\xa4", b""]), 1 << 13),
    "arrays in arrays": arrays_of(b"\x91" * 7 + b"\x90", 100),
    "a hundred open at once": chain_of(100, 3000),
    "nested without end": b"\x91" * (SIZE_MAX - 1) + b"\x90",
    "nested, as deep as the library goes": b"\x91" * 500 + b"\x90",
    "announced, and not there": long_array(ITEMS_MAX) * 1000,
    "the longest array announced": long_array(2**32 - 1) * 100,
    "a long bin that is short": b"\xc6" + (2**32 - 1).to_bytes(4) + b"a" * 1000,
    "short bins that say they are long": long_array(1000) + b"\xc6\x3f\xff\xff\xff" * 1000,
    "a long text that is short": b"\xdb" + (2**32 - 1).to_bytes(4) + b"a" * 1000,
    "a map": b"\xdf" + (2**32 - 1).to_bytes(4) + b"\x90\xc0" * 1000,
    "maps": arrays_of(b"\x80", 1 << 13),
    "extensions": arrays_of(b"\xc7\x00\x05", 1 << 13),
    "two values": b"\xc0" + arrays_of(b"\x90", 1 << 13),
    "one bin": b"\xc6" + (SIZE_MAX - 5).to_bytes(4) + bytes(SIZE_MAX - 5),
    "one text": b"\xdb" + (SIZE_MAX - 5).to_bytes(4) + b"a" * (SIZE_MAX - 9) + "\U0001f600".encode(),
    "not one text": b"\xdb" + (SIZE_MAX - 5).to_bytes(4) + b"\xff" * (SIZE_MAX - 5),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_no_structure_takes_more_than_the_limits_say(data: bytes) -> None:
    assert len(data) <= SIZE_MAX
    with allocating_at_most(ITEMS_MAX * VALUE_BYTES + SIZE_MAX * COPIES), suppress(FormatError):
        canonical.decode(data, size_max=SIZE_MAX, items_max=ITEMS_MAX)


@pytest.mark.parametrize(
    "why", ["empty arrays", "a few short of the limit in each", "one flat array", "integers that are objects", "pairs"]
)
def test_too_many_values_are_refused_before_any_is_made(why: str) -> None:
    data = HOSTILE[why]
    with allocating_at_most(3 * len(data)), pytest.raises(FormatError, match=f"more than {ITEMS_MAX} items"):
        canonical.decode(data, size_max=SIZE_MAX, items_max=ITEMS_MAX)


@pytest.mark.parametrize("decode", [decode_directory, decode_chunks])
def test_a_node_of_a_few_bytes_on_the_wire_takes_little(decode: Callable[[bytes], object]) -> None:
    million = long_array(MIB) + b"\x90" * MIB
    bomb = b"\xdc" + (15).to_bytes(2) + million * 15
    with allocating_at_most(MIB), pytest.raises(FormatError, match="larger than"):
        decode(bomb)
    largest = b"\x95\x01\x01\x00\x90" + long_array(NODE_BYTES_MAX - 10) + b"\x90" * (NODE_BYTES_MAX - 10)
    with allocating_at_most(3 * NODE_BYTES_MAX), pytest.raises(FormatError, match="items"):
        decode(largest)


@pytest.mark.slow
@pytest.mark.parametrize("decode", [decode_directory, decode_chunks])
def test_a_node_of_as_many_values_as_there_may_be_takes_what_the_limits_say(decode: Callable[[bytes], object]) -> None:
    most = b"\x95\x01\x01\x00\x90" + long_array(NODE_ITEMS_MAX - 6) + b"\x90" * (NODE_ITEMS_MAX - 6)
    with allocating_at_most(NODE_ITEMS_MAX * VALUE_BYTES), pytest.raises(FormatError):
        decode(most)


def test_a_node_of_the_longest_names_and_targets_fits() -> None:
    names = [b"%0255d" % number for number in range(512)]
    raw = encode_directory(0, [entry(name, symlink(target=b"t" * 4096)) for name in names])
    assert 2 * MIB < len(raw) < NODE_BYTES_MAX


# ---- files


def list_of(writer: PackWriter, items: Sequence[tuple[BlobId, int, int]], level: int = 0) -> FileContent:
    """The content that is one node with these items."""
    return FileContent(level + 1, writer.put(BlobType.CHUNK_LIST, encode_chunks(level, items)))


def publish(repository: Repository, name: str, size: int, make: Callable[[PackWriter], FileContent]) -> Version:
    """Commit a file of this content and size, which nobody checks."""
    writer = repository.writer()
    device = repository.ledger.device()
    assert device is not None
    dot = Dot(device[0], repository.ledger.own_seq() + 1)
    version = Version(dot, Kind.FILE, size, 0, 0o644, make(writer))
    editor = TreeEditor(repository.nodes, repository.current().tree)
    editor.edit((name.encode(),), [], version)
    repository.publish(writer, editor.finish(), repository.ledger.tips())
    return version


def repeated(raw: bytes, times: int) -> Callable[[PackWriter], FileContent]:
    """A chunk and how often it repeats."""
    return lambda writer: list_of(writer, [(writer.put(BlobType.CHUNK, raw), len(raw), times)])


class Stage:
    """A directory to stage files in, from one folder in memory."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder()
        self.root = root
        self.reported: list[tuple[int, str]] = []
        self.reused = 0
        self._numbers = itertools.count()

    def stage(self, version: Version, sources: LocalSources | None = None) -> Fetched:
        writer = Writer(RealFileSystem(), str(self.root), token=f"{next(self._numbers):012}")
        fetcher = Fetcher(
            self.folder.repository,
            writer,
            Inline(),
            sources or LocalSources(),
            lambda size, path: self.reported.append((size, path)),
        )
        (fetched,) = fetcher.stage([Wanted("", "file", version)])
        self.reused = fetcher.bytes_reused
        return fetched

    def publish(self, size: int, make: Callable[[PackWriter], FileContent]) -> Version:
        return publish(self.folder.repository, f"file{next(self._numbers)}", size, make)

    def read(self, fetched: Fetched) -> bytes:
        assert fetched.staged is not None, fetched.reason
        return (self.root / fetched.staged.path).read_bytes()

    def left(self) -> list[str]:
        return [path.name for path in self.root.iterdir()]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize(("raw", "count"), [(b"z", 3 * MIB), (b"ab", 5 * MIB + 1), (noise(70_000), 1_000)])
def test_a_chunk_that_repeats_is_in_memory_once(stage: Stage, raw: bytes, count: int) -> None:
    version = stage.publish(len(raw) * count, repeated(raw, count))
    with allocating_at_most(6 * MIB):
        fetched = stage.stage(version)
    assert stage.read(fetched) == raw * count


def test_a_piece_of_many_repeats_ends_where_the_file_does(stage: Stage) -> None:
    for raw, count in [(b"abc", 2), (b"abc", MIB // 3), (b"abc", MIB // 3 + 1), (bytes(MIB), 3), (bytes(MIB + 1), 5)]:
        version = stage.publish(len(raw) * count, repeated(raw, count))
        assert stage.read(stage.stage(version)) == raw * count


def alternating(levels: int) -> Callable[[PackWriter], FileContent]:
    """Two chunks of one byte in turn, 512 ** levels of them, in as many nodes as levels."""

    def make(writer: PackWriter) -> FileContent:
        one, two = (writer.put(BlobType.CHUNK, raw) for raw in unmarked(BlobType.CHUNK, 1))
        content = list_of(writer, [(one, 1, 1), (two, 1, 1)] * 256)
        for level in range(1, levels):
            content = list_of(writer, [(content.id, 512**level, 512**level)] * 512, level)
        return content

    return make


def unmarked(kind: BlobType, size: int) -> tuple[bytes, bytes]:
    """Two chunks whose ids end no node."""
    found = [raw for raw in (bytes([n]) * size for n in range(256)) if blob_id(kind, raw)[0] > 3]
    return found[0], found[1]


@pytest.mark.slow
def test_many_tiny_chunks_are_gathered_in_few_windows(stage: Stage) -> None:
    version = stage.publish(512 * 512, alternating(2))
    with allocating_at_most(12 * MIB):
        fetched = stage.stage(version)
    one, two = unmarked(BlobType.CHUNK, 1)
    assert stage.read(fetched) == (one + two) * (256 * 512)


def test_chunks_that_are_larger_than_their_file_says_are_not_gathered(stage: Stage) -> None:
    def make(writer: PackWriter) -> FileContent:
        blobs = sorted(writer.put(BlobType.CHUNK, bytes([number]) * (4 * MIB)) for number in range(31))
        return list_of(writer, [(blob, 1, 1) for blob in blobs])

    version = stage.publish(31, make)
    with allocating_at_most(40 * MIB):
        fetched = stage.stage(version)
    assert fetched.staged is None
    assert "another length" in fetched.reason
    assert not stage.left()


def test_a_chunk_with_two_lengths_is_refused(stage: Stage) -> None:
    def make(writer: PackWriter) -> FileContent:
        one, two = (writer.put(BlobType.CHUNK, raw) for raw in (b"one", b"two"))
        return list_of(writer, [(one, 3, 1), (two, 3, 1), (one, 2, 1)])

    assert "another length" in stage.stage(stage.publish(8, make)).reason


def test_where_chunks_lie_in_a_file_on_disk_is_found_without_counting_repeats(stage: Stage) -> None:
    raw, count = b"z", 2 * MIB
    version = stage.publish(len(raw) * count + 5, lambda writer: with_tail(writer, raw, count))
    (stage.root / "old").write_bytes(raw * count + b"tail!")
    content = version.content
    assert isinstance(content, FileContent)
    fetched = stage.stage(version, LocalSources(contents={content.id: "old"}))
    assert stage.read(fetched) == raw * count + b"tail!"
    assert stage.reused == len(raw) + len(b"tail!")


def with_tail(writer: PackWriter, raw: bytes, count: int) -> FileContent:
    return list_of(
        writer, [(writer.put(BlobType.CHUNK, raw), len(raw), count), (writer.put(BlobType.CHUNK, b"tail!"), 5, 1)]
    )


def test_a_file_of_holes_is_written_as_it_was(stage: Stage) -> None:
    def make(writer: PackWriter) -> FileContent:
        builder = ChunkListBuilder(writer)
        for raw in [noise(MIB, 1), *[bytes(MIB)] * 40, noise(MIB, 2)]:
            builder.add(writer.put(BlobType.CHUNK, raw), len(raw))
        return builder.finish()

    version = stage.publish(42 * MIB, make)
    with allocating_at_most(24 * MIB):
        fetched = stage.stage(version)
    assert stage.read(fetched) == noise(MIB, 1) + bytes(40 * MIB) + noise(MIB, 2)


# ---- room on the disk


def test_a_file_that_does_not_fit_is_not_begun(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 8 * MIB
    version = stage.publish(size, repeated(bytes(MIB), 8))
    asked: list[str] = []
    free = size + RESERVE_BYTES

    def free_bytes(self: RealFileSystem, path: str) -> int:
        asked.append(path)
        return free

    monkeypatch.setattr(RealFileSystem, "free_bytes", free_bytes)
    assert stage.read(stage.stage(version)) == bytes(size)
    free -= 1
    kept = stage.left()
    monkeypatch.setattr(RealFileSystem, "create", None)
    fetched = stage.stage(version)
    assert fetched.staged is None
    assert f"needs {size} bytes, {free} are free" in fetched.reason
    assert stage.left() == kept
    assert asked == [str(stage.root)] * 2


def test_small_files_do_not_ask_for_room(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealFileSystem, "free_bytes", None)
    assert stage.read(stage.stage(stage.publish(3 * MIB, repeated(b"abc", MIB)))) == b"abc" * MIB


def test_a_disk_that_does_not_say_what_is_free_has_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 0 < RealFileSystem().free_bytes(str(tmp_path)) < 1 << 60
    for total, free in ((0, 1 << 63), (5, 0)):
        usage = SimpleNamespace(total=total, used=total, free=0)
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert RealFileSystem().free_bytes(str(tmp_path)) == free


def hostile_commit(fleet: Fleet, device: Device, name: str, size: int, raw: bytes, count: int) -> None:
    """A device publishes a file that it could not hold."""
    with Transfer(
        fleet.network, workers=0, retries=0, clock=_Clock(), random=lambda: 0.5, cancelled=lambda: False
    ) as transfer:
        repository = fleet.workspace(device, Plan(), transfer).repository
        repository.open()
        repository.refresh()
        publish(repository, name, size, repeated(raw, count))


class _Clock:
    def now_ns(self) -> int:
        return 1_800_000_000 * 10**9

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Nothing here has to wait."""


@pytest.mark.parametrize("power", [30, 40])
def test_a_file_that_nobody_can_hold_fails_alone(power: int) -> None:
    fleet = Fleet(devices=2)
    victim, hostile = fleet.devices
    victim.files.capacity = 10**9
    for device, name in ((victim, "ours"), (hostile, "theirs")):
        device.files.put(f"/root/{name}", name.encode())
    for device in (victim, hostile, victim):
        assert fleet.sync(device).error is None
    raw = bytes(range(1, 9)) * 512
    hostile_commit(fleet, hostile, "bomb", len(raw) << power, raw, 1 << power)
    hostile.files.put("/root/after", b"after")
    fleet.sync(hostile)
    with allocating_at_most(64 * MIB):
        outcome = fleet.sync(victim)
    assert outcome.error is None
    assert outcome.result is not None
    assert [failure.path for failure in outcome.result.errors] == ["bomb"]
    assert f"needs {len(raw) << power} bytes" in outcome.result.errors[0].reason
    assert fleet.tree(victim) == {"ours": b"ours", "theirs": b"theirs", "after": b"after"}
    victim.files.put("/root/ours", b"edited")
    later = fleet.sync(victim)
    assert later.error is None
    assert later.result is not None
    assert [failure.path for failure in later.result.errors] == ["bomb"]


def test_a_single_file_that_does_not_fit_is_not_restored(tmp_path: Path) -> None:
    folder = Folder()
    publish(folder.repository, "bomb", 1 << 50, repeated(bytes(MIB), 1 << 30))
    tree = folder.repository.current().tree
    site = Site(RealFileSystem(), str(tmp_path), Inline(), KERNEL, "0" * 12, "2024", Progress())
    with pytest.raises(IntegrityError, match=f"needs {1 << 50} bytes"):
        restore_file(folder.repository, site, tree, "bomb", "out")
    assert not list(tmp_path.iterdir())
