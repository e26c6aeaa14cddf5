"""A world that can be stopped after any effect: one bucket, some devices, each with a disk and a state, all in memory.

An *effect* changes what a crash leaves behind: an object put or deleted, half of a write, a name made or moved, a
flush, a commit of the state. `World.run` lets one device sync and stops the world right after the effect of a given
number: whatever the dying process still tries fails. Between two effects nothing is different for those who come
after the crash, so stopping after every effect is stopping before, after and inside of every call to bucket and disk.

A device comes back in one of four ways. ``kill``: the process ended, everything written is there. ``power``: it was
cut, and nothing is there that was not flushed. ``torn``: the same, but names are there, and the bytes of files are not.
``ahead``: the same as ``power`` for the disk, while the state's commits happen to be there.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from buckia.core.chunker import kernel
from buckia.core.content import chunks
from buckia.core.directory import referenced, walk
from buckia.core.ids import object_id
from buckia.core.manifest import FileContent
from buckia.core.pack import parse_pack
from buckia.core.record import Snapshot, parse_pack_key, parse_record_key, parse_tip_key
from buckia.engine.context import Settings, Workspace
from buckia.engine.reconcile import Sync
from buckia.engine.work import Inline
from buckia.events import SyncResult
from buckia.local.connection import Connection
from buckia.local.filters import Filters
from buckia.local.mark import MemoryMarks
from buckia.local.paths import TEMPORARY, TRASH
from buckia.local.state import State
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository, snapshot_tree
from buckia.store.transfer import Transfer
from buckia.sync.base import ObjectInfo, Page
from buckia.sync.memory import MemorySync
from tests.support.memory_fs import MemoryFileSystem, SimulatedCrash

Mode = Literal["kill", "power", "torn", "ahead"]
Tree = dict[str, bytes | str | None]
Moment = Callable[[str, str], bool]
"""Whether a request, (verb, key below the repository's root), is the one before which others act."""
Act = Callable[["World"], None]

ROOT = "/data"
FOLDER = "f"
PREFIX = f"{FOLDER}/_buckia/"
KERNEL = kernel(None)
_READS = {"scan", "stat", "device", "real_path", "free_bytes", "case_insensitive", "open_read", "read", "readlink"}
_FLUSHES = {"sync", "sync_file", "sync_directory"}


class Bucket(MemorySync):
    """The bucket. It remembers what was ever put, and refuses a name that comes back with other bytes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.written: dict[str, bytes] = {}

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        self._world.asks("put", key)
        before = self.written.setdefault(key, bytes(data))
        assert before == data, f"{key} was put a second time with other bytes"
        info = super()._put(key, data, if_absent)
        self._world.happens(f"put {key.removeprefix(PREFIX)}")
        return info

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        self._world.asks("get", key)
        return super()._get(key, offset, length)

    def _stat(self, key: str) -> ObjectInfo:
        self._world.asks("stat", key)
        return super()._stat(key)

    def _list(self, prefix: str, token: str | None) -> Page:
        self._world.asks("list", prefix)
        return super()._list(prefix, token)

    def _delete(self, key: str) -> None:
        self._world.asks("delete", key)
        super()._delete_many([key])
        self._world.happens(f"delete {key.removeprefix(PREFIX)}")


class MortalConnection(Connection):
    """A state's database in memory. ``flushed`` is what a power cut leaves of it."""

    def __init__(self, world: World, image: bytes | None = None) -> None:
        self._world = world
        self._image = image
        self._full = False
        self._changes = 0
        self.flushed = image
        super().__init__(None)
        if image is None:
            self.flushed = self._db.serialize()

    def _prepare(self) -> None:
        if self._image is not None:
            self._db.deserialize(self._image)
        super()._prepare()

    def run(self, sql: str, values: Any = ()) -> None:
        self._world.lives()
        if sql == "PRAGMA journal_mode=WAL":
            return  # `serialize` would miss what is in the log
        super().run(sql, values)
        if sql.startswith("PRAGMA synchronous="):
            self._full = sql.endswith("FULL")
        elif not self._db.in_transaction and self._db.total_changes != self._changes:
            self._changes = self._db.total_changes
            if self._full:
                self.flushed = self._db.serialize()
            self._world.happens("commit of the state")

    def written(self) -> bytes:
        """What the death of the process leaves: all that was committed."""
        if self._db.in_transaction:
            self._db.rollback()
        return self._db.serialize()


@dataclass(frozen=True, slots=True)
class Habits:
    """How a device syncs."""

    policy: Any = "local_wins"
    delete_orphaned: bool = True
    sync_paths: tuple[str, ...] = ()
    digest: str | None = "sha256"


class MortalMarks(MemoryMarks):
    """What lies beside a state. ``flushed`` is what a power cut may leave of it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.flushed: dict[str, bytes] = {}

    def make(self, token: str) -> bytes:
        self._world.lives()
        mark = super().make(token)
        self._changed("a new mark")
        return mark

    def keep(self, token: str) -> None:
        self._world.lives()
        older = len(self.present) > 1
        super().keep(token)
        if older:
            self._changed("removal of older marks")

    def _changed(self, what: str) -> None:
        self._world.happens(what)
        self.flushed = dict(self.present)


class Device:
    """A disk, a state, and the habit of syncing the two with the world's bucket."""

    def __init__(self, world: World, name: str, habits: Habits) -> None:
        self.world = world
        self.name = name
        self.habits = habits
        self.fs = MemoryFileSystem()
        self.fs.put(ROOT + "/", b"")
        self.connection = MortalConnection(world)
        self.marks = MortalMarks(world)
        self.segments: dict[Any, Any] = {}

    # ---- what its user does

    def put(self, path: str, data: bytes | str, **attributes: Any) -> None:
        """Write a file (bytes), make a link (str), or a directory (the path ends in a slash)."""
        self.fs.put(f"{ROOT}/{path}", data, **attributes)
        if isinstance(data, bytes):
            self.world.contents.add(data)

    def remove(self, path: str) -> None:
        """Delete a file or a tree."""
        self.fs.remove(f"{ROOT}/{path}")

    def move(self, source: str, target: str) -> None:
        """Rename."""
        self.fs.move(f"{ROOT}/{source}", f"{ROOT}/{target}")

    # ---- the product

    def sync(self) -> SyncResult:
        """One run of the product, in a process of its own."""
        self.fs.clock_ns += 60 * 10**9
        state = State(self.connection, None, identity=b"machine", marks=self.marks)
        state._segments = self.segments
        habits = self.habits
        repository = self.world.repository(state, self.fs.now_ns)
        work = Workspace(
            repository=repository,
            state=state,
            files=self.fs,
            root=ROOT,
            filters=Filters(include=None, exclude=None, sync_paths=list(habits.sync_paths) or None),
            clock=self.fs,
            random_bytes=self.world.random.randbytes,
            executor=Inline(),
            settings=Settings(
                kernel=KERNEL,
                policy=habits.policy,
                delete_orphaned=habits.delete_orphaned,
                allow_mass_delete=True,
                digest=habits.digest,
                device_name=self.name,
            ),
        )
        return Sync(work).run()

    def come_back(self, mode: Mode) -> None:
        """After a crash: what is left of the disk and of the state."""
        image = self.connection.written() if mode in ("kill", "ahead") else self.connection.flushed
        self.connection = MortalConnection(self.world, image)
        if mode == "torn":
            self.marks.present = dict(self.marks.flushed)
        if mode == "kill":
            self.fs.revive()
        else:
            choices = iter([True])
            self.fs.lose_power(lambda n: n - 1 if mode == "torn" and next(choices, False) else 0)
        self.fs.clock_ns += 60 * 10**9

    # ---- what is on its disk

    def tree(self) -> Tree:
        """What users see: all but the trash."""
        return {path: data for path, data in self.everything().items() if path.split("/")[0] != TRASH}

    def everything(self) -> Tree:
        """All that is below the root."""
        return self.fs.tree(ROOT)

    def leftovers(self) -> list[str]:
        """Temporary files, wherever they are."""
        return [path for path in self.everything() if is_temporary(path)]


class World:
    """The bucket and all devices, by name. ``calls`` and ``effects`` count those of `run`."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.bucket = Bucket(self)
        self.devices: dict[str, Device] = {}
        self.contents: set[bytes] = set()
        """Every file that a user ever wrote."""
        self.condemned: list[Any] = []
        """Packs that a collector will delete, where there is one."""
        self.forgetful = False
        """The collector keeps no history but what is current."""
        self._moment: Moment | None = None
        self._meanwhile: Act | None = None
        self.calls = 0
        self.effects = 0
        self.last = ""
        self.log: list[str] = []
        """Every effect of the last `run`."""
        self._running: Device | None = None
        self._stop: int | None = None
        self._mode: Mode = "kill"
        self._frozen = False

    def device(self, name: str, habits: Habits = Habits()) -> Device:
        """A device; a new one has an empty directory."""
        if name not in self.devices:
            self.devices[name] = Device(self, name, habits)
        return self.devices[name]

    def repository(self, ledger: Any, now_ns: Callable[[], int]) -> Repository:
        """The folder as one device sees it."""
        transfer = Transfer(
            self.bucket, workers=0, retries=0, clock=_Clock(), random=lambda: 0.0, cancelled=lambda: False
        )
        return Repository(transfer, ledger, FOLDER, random_bytes=self.random.randbytes, now_ns=now_ns)

    # ---- others

    def meanwhile(self, moment: Moment, act: Act) -> None:
        """Let others act right before the first request of the device that `run` lets run that fits."""
        self._moment, self._meanwhile = moment, act

    def catch_up(self) -> None:
        """Let them act now, if they have not yet."""
        act, self._moment, self._meanwhile = self._meanwhile, None, None
        if act is not None:
            act(self)

    # ---- stopping

    def run(self, device: Device, mode: Mode, stop: int | None = None) -> SyncResult | None:
        """Let a device sync, and stop the world after effect number ``stop``. None if it was stopped."""
        self._running, self._stop, self._mode = device, stop, mode
        self.calls = self.effects = 0
        self.log.clear()
        device.fs.hook = self._on_disk
        try:
            return device.sync()
        except SimulatedCrash:
            return None
        finally:
            device.fs.hook = None
            self._running = None
            self._frozen = False

    def lives(self) -> None:
        """Raise where the process is dead already."""
        if self._frozen:
            raise SimulatedCrash

    def asks(self, verb: str, key: str) -> None:
        """A request is about to be answered."""
        self.lives()
        if self._running is not None:
            self.calls += 1
            if self._moment is not None and self._moment(verb, key.removeprefix(PREFIX)):
                device, self._running = self._running, None
                self.catch_up()
                self._running = device

    def happens(self, what: str) -> None:
        """There was an effect. Stops the world if it is the chosen one."""
        if self._running is None:
            return
        self.effects += 1
        self.last = what
        self.log.append(what)
        if self.effects == self._stop:
            self._frozen = True
            self._running.fs.dead = True
            raise SimulatedCrash

    def _on_disk(self, call: str, phase: str, path: str) -> None:
        if phase == "before":
            self.calls += 1
        elif call not in _READS and not (self._mode == "kill" and call in _FLUSHES):
            self.happens(f"{phase} {call} {path}")

    # ---- as it was

    def save(self) -> bytes:
        """Everything, flushed, to be loaded as often as needed."""
        devices = {}
        for name, device in self.devices.items():
            device.fs.lose_power(_keep_all(device.fs))
            image = device.connection.written()
            segments = {key: bytes(value) for key, value in device.segments.items()}
            devices[name] = (device.habits, device.fs, image, device.marks.present, segments)
        objects = (self.bucket.objects, self.bucket.written)
        return pickle.dumps((devices, objects, self.contents, self.random))

    @classmethod
    def load(cls, saved: bytes) -> World:
        """A world as it was saved."""
        world = cls()
        devices, objects, world.contents, world.random = pickle.loads(saved)
        world.bucket.objects, world.bucket.written = objects
        for name, (habits, fs, image, marks, segments) in devices.items():
            device = world.device(name, habits)
            device.fs, device.segments, device.marks.present = fs, segments, marks
            device.marks.flushed = dict(marks)
            device.connection = MortalConnection(world, image)
        return world


def _keep_all(fs: MemoryFileSystem) -> Callable[[int], int]:
    answers = iter([len(fs._pending)])
    return lambda n: next(answers, n - 1)


class _Clock:
    def now_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits in this world")


# ---- what must hold


_KNOWN: dict[tuple[bytes, int], bytes] = {}
"""Content by id and size: ids are hashes, and what they name is checked in every bucket all the same."""


def check_bucket(world: World) -> set[bytes]:
    """Read all of it as a stranger: every pack whole, every snapshot complete, tips that name records, no number twice.

    Where history was forgotten only what the heads need must be there. The contents of all files.
    """
    repository = world.repository(MemoryLedger(), lambda: 0)
    repository.open()
    repository.refresh()
    assert not repository.journal.held_back
    objects = {key.removeprefix(PREFIX): data for key, data in world.bucket.objects.items()}
    _check_names(objects, {key.removeprefix(PREFIX) for key in world.bucket.written})
    contents: set[bytes] = set()
    seen: set[Any] = set()
    readable: set[Any] = set()
    for linked in repository.journal.heads() if world.forgetful else repository.journal.records():
        if not isinstance(linked.record.body, Snapshot):
            continue
        root = snapshot_tree(linked.record.body).id
        blobs = {blob for _, blob in referenced(repository.nodes, root, seen)}
        for wanted in repository.reader.plan(blobs):
            readable.update(blob for blob, _ in repository.reader.fetch(wanted))
        assert blobs <= readable
        for _, entry in walk(repository.nodes, root):
            for version in entry.versions:
                if isinstance(version.content, FileContent):
                    contents.add(_bytes(repository, version.content, version.size))
    return contents


def _bytes(repository: Repository, content: FileContent, size: int) -> bytes:
    key = (content.id, size)
    if key not in _KNOWN:
        found = []
        for blob, _ in chunks(repository.nodes, content, size):
            (wanted,) = repository.reader.plan([blob])
            found += [raw for _, raw in repository.reader.fetch(wanted)]
        _KNOWN[key] = b"".join(found)
    return _KNOWN[key]


def _check_names(objects: dict[str, bytes], ever: Iterable[str]) -> None:
    numbers = set()
    for key in ever:
        record = parse_record_key(key)
        if record is not None:
            assert record[:2] not in numbers, f"{key}: the number was used before"
            numbers.add(record[:2])
    for key, data in objects.items():
        pack, record, tip = parse_pack_key(key), parse_record_key(key), parse_tip_key(key)
        if pack is not None:
            assert object_id(data) == pack
            parse_pack(data)
        elif record is not None:
            assert object_id(data) == record[2]
        elif tip is not None:
            name = f"journal/{tip[0].hex()}/{tip[1]:010}-{tip[2].hex()}"
            assert name in objects, f"{key} names no record"


def is_temporary(path: str) -> bool:
    """Whether the product has put it there for the time of its run."""
    return path.rpartition("/")[2].startswith(TEMPORARY)


def files(tree: Tree) -> set[bytes]:
    """The bytes of all files that are not temporary."""
    return {data for path, data in tree.items() if isinstance(data, bytes) and not is_temporary(path)}


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)
