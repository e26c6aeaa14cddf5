"""A fleet of devices in one process, on one thread, from one seed: one bucket, and a disk, a state and a clock for
each.

Everything that a device meets in the world is here and can go wrong as planned: requests that fail, puts and deletions
that take effect later, listings that omit what is new, states that are lost or copied, processes that end in the
middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from buckia.core.chunker import kernel
from buckia.core.ids import DeviceId
from buckia.engine.compare import Policy
from buckia.engine.context import Progress, Settings, Workspace
from buckia.engine.reconcile import Sync
from buckia.engine.verify import verify
from buckia.engine.work import Inline
from buckia.errors import BuckiaError, Transient
from buckia.events import Damage, SyncResult
from buckia.local.connection import Connection
from buckia.local.filters import Filters
from buckia.local.mark import MemoryMarks
from buckia.local.state import State
from buckia.store.ledger import MemoryLedger
from buckia.store.repository import Repository
from buckia.store.transfer import Transfer
from buckia.sync.base import ObjectInfo, Verb
from buckia.sync.faulty import Fault, FaultySync, SimulatedCrash
from buckia.sync.memory import MemorySync
from tests.support.memory_fs import MemoryFileSystem
from tests.support.memory_fs import SimulatedCrash as DiskCrash

ROOT = "/root"
FOLDER = "folder"
PREFIX = f"{FOLDER}/_buckia/"
Restored = Literal["elsewhere", "in place", "with its marks", "mirrored", "with its disk"]
"""How a backup of a state comes back: as another file; over the present one, alone, or with its marks beside those of
today, or in their place; or with all that tells about it.
"""
KERNEL = kernel(None)


@dataclass(frozen=True)
class Scope:
    """What a sync covers, in the words of the configuration."""

    paths: tuple[str, ...] | None = None
    exclude: str | None = None

    def filters(self) -> Filters:
        return Filters(sync_paths=self.paths, exclude=self.exclude)


@dataclass(frozen=True)
class Plan:
    """How a sync is to be run."""

    policy: Policy = "local_wins"
    delete_orphaned: bool = True
    scope: Scope = Scope()
    faults: tuple[Fault, ...] = ()
    retries: int = 0
    allow_mass_delete: bool = True


class Network(FaultySync):
    """The bucket as the fleet sees it. ``late`` holds writes that were begun and will be done by ``deliver``."""

    def __init__(self, inner: MemorySync) -> None:
        super().__init__(inner)
        self.late: list[Callable[[], object]] = []
        self.late_puts = 0
        self.late_deletes = 0
        self.deleted_keys: set[str] = set()
        self.at_request: dict[int, Callable[[], object]] = {}
        """What happens elsewhere right before the n-th request from now (from 1)."""

    def clear(self) -> None:
        """Forget the faults that did not happen."""
        self._planned.clear()
        self.late_puts = self.late_deletes = 0
        self.at_request.clear()

    def deliver(self) -> None:
        """All late writes take effect."""
        late, self.late = self.late, []
        for write in late:
            write()

    def _arrive(self, verb: Verb, key: str) -> Fault | None:
        self.at_request = {number - 1: act for number, act in self.at_request.items()}
        act = self.at_request.pop(0, None)
        if act is not None:
            act()
        return super()._arrive(verb, key)

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        if self.late_puts:
            self.late_puts -= 1
            stored = bytes(data)
            self.late.append(lambda: super(Network, self)._put(key, memoryview(stored), False))
            raise Transient(f"put {key} timed out, and arrives later")
        return super()._put(key, data, if_absent)

    def _delete(self, key: str) -> None:
        self.deleted_keys.add(key)
        if self.late_deletes:
            self.late_deletes -= 1
            self.late.append(lambda: super(Network, self)._delete(key))
            return
        super()._delete(key)


@dataclass
class Device:
    """One local root and what belongs to it."""

    name: str
    machine: str
    """And which file the state is."""
    files: MemoryFileSystem
    state: State
    marks: MemoryMarks
    """What lies beside the state."""
    skew_ns: int = 0
    syncs: int = 0

    @property
    def id(self) -> DeviceId | None:
        own = self.state.device()
        return None if own is None else own[0]


@dataclass
class Outcome:
    """What came of a sync: its result, or how it ended."""

    result: SyncResult | None = None
    error: BaseException | None = None
    log: list[tuple[Verb, str]] = field(default_factory=list)


class _Clock:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def now_ns(self) -> int:
        return self._fleet.now_ns

    def monotonic(self) -> float:
        return self._fleet.now_ns / 1e9

    def sleep(self, seconds: float) -> None:
        self._fleet.now_ns += int(seconds * 1e9)


class Fleet:
    """Devices and their bucket. ``now_ns`` is true time; a device's clock is off by its skew."""

    def __init__(self, seed: int = 0, devices: int = 0) -> None:
        self.random = random.Random(seed)
        self.store = MemorySync()
        self.network = Network(self.store)
        self.now_ns = 1_700_000_000 * 10**9
        self.devices: list[Device] = []
        for _ in range(devices):
            self.add_device()

    # ---- devices

    def add_device(self, skew_ns: int = 0) -> Device:
        """A new machine with an empty root."""
        number = len(self.devices)
        files = MemoryFileSystem(tick_ns=1_000_000)
        files.put(f"{ROOT}/", b"")
        machine, marks = f"machine-{number}", MemoryMarks()
        device = Device(f"dev{number}", machine, files, _new_state(machine, marks), marks, skew_ns)
        self.devices.append(device)
        return device

    def clone(self, device: Device) -> Device:
        """A second machine that is a copy of the first, with the state and the tree as they are now."""
        other = self.add_device(device.skew_ns)
        other.state = _copy_state(device.state, other.machine, other.marks)
        _copy_tree(device.files, other.files)
        return other

    def saved_state(self, device: Device) -> State:
        """A copy of the state and its marks as they are now: a backup."""
        marks = MemoryMarks()
        marks.present = dict(device.marks.present)
        return _copy_state(device.state, device.machine, marks)

    def put_back(self, device: Device, saved: State, how: Restored) -> None:
        """A backup of the state is restored; the tree stays."""
        device.state.close()
        marks = dict(saved._marks.present)  # type: ignore[attr-defined]
        if how == "elsewhere":
            device.machine += " again"
        if how in ("mirrored", "with its disk"):
            device.marks.present = marks if how == "with its disk" else {}
        for token in marks if how in ("with its marks", "mirrored") else ():
            device.marks.make(token)
        device.state = _copy_state(saved, device.machine, device.marks)

    def lose_state(self, device: Device) -> None:
        """The state is gone; the tree stays."""
        device.state.close()
        device.state = _new_state(device.machine, device.marks)

    # ---- time

    def advance(self, ns: int) -> None:
        """Time passes."""
        self.now_ns += ns

    def set_clock(self, device: Device) -> None:
        """The device's disk and programs see the present time, as their clock says; it never goes back on one disk."""
        device.files.clock_ns = max(device.files.clock_ns, self.now_ns + device.skew_ns)

    # ---- syncs

    def transfer(self, retries: int = 0) -> Transfer:
        """The way to the bucket for one run."""
        return Transfer(
            self.network,
            workers=0,
            retries=retries,
            clock=_Clock(self),
            random=self.random.random,
            cancelled=lambda: False,
        )

    def workspace(self, device: Device, plan: Plan, transfer: Transfer) -> Workspace:
        """The parts of one run, as `buckia.client.session` puts them together."""
        repository = Repository(
            transfer, device.state, FOLDER, random_bytes=self.random.randbytes, now_ns=device.files.now_ns
        )
        settings = Settings(
            KERNEL, plan.policy, plan.delete_orphaned, plan.allow_mass_delete, digest="sha256", device_name=device.name
        )
        return Workspace(
            repository=repository,
            state=device.state,
            files=device.files,
            root=ROOT,
            filters=plan.scope.filters(),
            clock=device.files,
            random_bytes=self.random.randbytes,
            executor=Inline(),
            settings=settings,
        )

    def sync(self, device: Device, plan: Plan | None = None, **changes: Any) -> Outcome:
        """One run of one device, as planned."""
        plan = plan if plan is not None else Plan(**changes)
        self.set_clock(device)
        device.syncs += 1
        start = len(self.network.log)
        self.network.plan(*plan.faults)
        outcome = Outcome()
        try:
            with self.transfer(plan.retries) as transfer:
                outcome.result = Sync(self.workspace(device, plan, transfer)).run()
        except (BuckiaError, SimulatedCrash, DiskCrash) as error:
            outcome.error = error
        device.files.revive()
        self.network.clear()
        outcome.log = self.network.log[start:]
        self.now_ns = max(self.now_ns, device.files.clock_ns - device.skew_ns)
        return outcome

    def settle(
        self, devices: Iterable[Device] | None = None, rounds: int = 2, **changes: Any
    ) -> Iterator[tuple[Device, Outcome]]:
        """Everything late arrives, then these devices sync in turn."""
        self.network.deliver()
        chosen = list(self.devices if devices is None else devices)
        for _ in range(rounds):
            for device in chosen:
                yield device, self.sync(device, **changes)

    # ---- looking

    def damages(self, *, read_data: bool = False) -> list[Damage]:
        """What `verify` finds in the bucket as it is, with what is late left out. None where there is no folder yet."""
        if not self.store.objects:
            return []
        clock = _Clock(self)
        with Transfer(
            self.store, workers=0, retries=0, clock=clock, random=lambda: 0.5, cancelled=lambda: False
        ) as transfer:
            repository = Repository(
                transfer, MemoryLedger(), FOLDER, random_bytes=random.Random(0).randbytes, now_ns=clock.now_ns
            )
            repository.open()
            return verify(repository, Inline(), read_data=read_data, progress=Progress()).damaged

    @staticmethod
    def tree(device: Device) -> dict[str, bytes | str | None]:
        """What the user sees: paths without what is buckia's own."""
        return {path: value for path, value in device.files.tree(ROOT).items() if not path.startswith(".buckia")}

    @staticmethod
    def trash(device: Device) -> list[bytes]:
        """The contents of all files and links in the trash."""
        found = device.files.tree(ROOT).items()
        return [
            value if isinstance(value, bytes) else value.encode()
            for path, value in found
            if path.startswith(".buckia-trash/") and value is not None
        ]


def _new_state(machine: str, marks: MemoryMarks) -> State:
    return State(Connection(None), None, identity=machine.encode(), marks=marks)


def _copy_state(state: State, machine: str, marks: MemoryMarks) -> State:
    connection = Connection(None)
    state._db._db.backup(connection._db)
    copy = State(connection, None, identity=machine.encode(), marks=marks)
    copy._segments = dict(state._segments)
    return copy


def _copy_tree(source: MemoryFileSystem, target: MemoryFileSystem) -> None:
    target.clock_ns = source.clock_ns
    target._numbers = source._numbers + 1_000_000  # no inode is what it was
    pending = [ROOT]
    while pending:
        where = pending.pop()
        for name, kind, mode, _, mtime_ns, _, _ in source.scan(where):
            path = f"{where}/{name}"
            if kind == 2:
                target.put(f"{path}/", b"", mode=mode)
                pending.append(path)
            else:
                data = source.get(path)
                target.put(path, data.decode() if kind == 1 else data, mode=mode, mtime_ns=mtime_ns)
