"""A fleet and the reference model side by side: every act happens in both, and after it they must agree.

``history`` is the acts as Python calls: what a failure prints, to be pasted into `test_regressions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from blake3 import blake3

from buckia.errors import RefusedError
from buckia.local.state import State
from tests.model.bucket import KINDS, BucketView, parse_record
from tests.model.reference import Device as Memory
from tests.model.reference import Disk, Dot, Expected, Folder, Record, Row, Run, Sync, Tree, Value, Version, apply
from tests.support.fleet import PREFIX, ROOT, Device, Fault, Fleet, Outcome, Plan, Restored, Scope
from tests.support.memory_fs import SimulatedCrash

_CHUNK_KEY = blake3(b"\0", derive_key_context="buckia v1 public id").digest()
SECOND = 10**9


class Disagreement(AssertionError):
    """The product and the model differ, or a promise is broken."""


def tie(value: Value) -> bytes:
    """What decides between contents of equal time: the content's id."""
    return blake3(value.data, key=_CHUNK_KEY).digest() if value.kind == "f" else value.data


def _dying(call: int) -> Callable[[str, str, str], None]:
    left = call

    def hook(name: str, phase: str, path: str) -> None:
        nonlocal left
        left -= phase == "before"
        if left == 0:
            raise SimulatedCrash

    return hook


class World:
    """Devices by number, and what must hold for them."""

    def __init__(self, seed: int = 0, devices: int = 2) -> None:
        self.fleet = Fleet(seed)
        self.folder = Folder()
        self.view = BucketView(self.fleet.store.objects, PREFIX)
        self.memories: list[Memory] = []
        self.expected: dict[Dot, tuple[Record, Tree]] = {}
        self.history: list[str] = [f"world = World({seed}, {devices})"]
        self.saved: dict[int, tuple[State, Memory]] = {}
        self._written = 0
        for number in range(devices):
            self.fleet.add_device(skew_ns=(0, 7, -5, 3)[number % 4] * SECOND)
            self.memories.append(Memory())

    # ---- what users do

    def _user(self, act: str, number: int, *values: Any) -> Device:
        self.history.append(f"world.{act}({', '.join(map(repr, (number, *values)))})")
        device = self.fleet.devices[number]
        self.fleet.advance(SECOND)
        self.fleet.set_clock(device)
        return device

    def write(self, number: int, path: str, size: int | None = None) -> None:
        """New content, different from all before; in place of whatever is there. ``size`` in bytes fixes its length."""
        device = self._user("write", number, path, *([] if size is None else [size]))
        if self._clear(device, path):
            self._written += 1
            data = b"%d %s" % (self._written, path.encode())
            device.files.put(f"{ROOT}/{path}", data if size is None else data.ljust(size, b"."))

    def put(self, number: int, path: str, text: str) -> None:
        """A file with this content."""
        device = self._user("put", number, path, text)
        if self._clear(device, path):
            device.files.put(f"{ROOT}/{path}", text.encode())

    def link(self, number: int, path: str, target: str) -> None:
        """A symbolic link."""
        device = self._user("link", number, path, target)
        if self._clear(device, path):
            device.files.put(f"{ROOT}/{path}", target)

    def delete(self, number: int, path: str) -> None:
        """Remove a file or a whole directory."""
        device = self._user("delete", number, path)
        if self._exists(device, path):
            device.files.remove(f"{ROOT}/{path}")

    def rename(self, number: int, source: str, target: str) -> None:
        """Move a file or directory, over what is there."""
        device = self._user("rename", number, source, target)
        inside = f"{target}/".startswith(f"{source}/") or f"{source}/".startswith(f"{target}/")
        if not inside and self._exists(device, source) and self._clear(device, target):
            if self._exists(device, target):
                device.files.remove(f"{ROOT}/{target}")
            if "/" in target:
                device.files.put(f"{ROOT}/{target.rpartition('/')[0]}/", b"")
            device.files.move(f"{ROOT}/{source}", f"{ROOT}/{target}")

    def mkdir(self, number: int, path: str, mode: int = 0o755) -> None:
        """A directory, in place of a file."""
        device = self._user("mkdir", number, path, mode)
        if self._clear(device, path):
            device.files.put(f"{ROOT}/{path}/", b"", mode=mode)

    def chmod(self, number: int, path: str, mode: int) -> None:
        """Set permission bits of a file or directory."""
        device = self._user("chmod", number, path, mode)
        present = device.files.stat(f"{ROOT}/{path}") if self._exists(device, path) else None
        if present is not None and present.kind != 1:
            device.files.set_mode(f"{ROOT}/{path}", mode)

    def touch(self, number: int, path: str) -> None:
        """Set the time, and nothing else."""
        device = self._user("touch", number, path)
        if self._exists(device, path):
            device.files.set_mtime(f"{ROOT}/{path}", device.files.clock_ns)

    def wait(self, ns: int) -> None:
        """Time passes."""
        self.history.append(f"world.wait({ns})")
        self.fleet.advance(ns)

    def copies(self, number: int) -> list[str]:
        """The conflict copies on a device's disk."""
        return [path for path in self.disk(number) if "(conflict " in path.rpartition("/")[2]]

    def _exists(self, device: Device, path: str) -> bool:
        """Whether something is there; links on the way are not followed."""
        return self._clear(device, path) and device.files.exists(f"{ROOT}/{path}")

    def _clear(self, device: Device, path: str) -> bool:
        """Make way for something at a path: what would be its directories are no files. Whether it can be there."""
        where = ""
        for part in path.split("/")[:-1]:
            where = f"{where}/{part}" if where else part
            present = device.files.stat(f"{ROOT}/{where}")
            if present is not None and present.kind != 2:
                return False
        return True

    # ---- states

    def lose_state(self, number: int) -> None:
        """A device forgets everything but its disk."""
        self.history.append(f"world.lose_state({number})")
        self.fleet.lose_state(self.fleet.devices[number])
        self.memories[number] = Memory()

    def save_state(self, number: int) -> None:
        """A device's user makes a backup of its memory."""
        self.history.append(f"world.save_state({number})")
        self.saved[number] = (self.fleet.saved_state(self.fleet.devices[number]), deepcopy(self.memories[number]))

    def put_back(self, number: int, how: Restored = "elsewhere") -> None:
        """The backup is restored, if there is one; disk and bucket are as they are.

        ``with its disk``: only the device's newest tip tells then, which the next sync must list. Where it is not in
        the bucket, the state is put back in place.
        """
        self.history.append(f"world.put_back({number}, {how!r})")
        if number in self.saved:
            state, memory = self.saved[number]
            own = self.fleet.devices[number].id or b""
            told = max((dot[1] for dot in self.view.records if dot[0] == own), default=0) <= self._tips().get(own, 0)
            if how == "with its disk" and not told:
                how = "in place"
            self.fleet.put_back(self.fleet.devices[number], state, how)
            self.memories[number] = deepcopy(memory)

    def clone(self, number: int) -> int:
        """A second machine that is a copy of a device, state and tree; its number."""
        self.history.append(f"world.clone({number})")
        self.fleet.clone(self.fleet.devices[number])
        memory = self.memories[number]
        copy = Memory(dict(memory.rows), None, dict(memory.tentative))
        copy.recall({})  # by their inodes these files are others
        self.memories.append(copy)
        return len(self.memories) - 1

    def deliver(self) -> None:
        """What was late takes effect."""
        self.history.append("world.deliver()")
        self.fleet.network.deliver()
        self._learn()

    # ---- syncs

    def sync(
        self,
        number: int,
        policy: str = "local_wins",
        delete_orphaned: bool = True,
        *,
        paths: tuple[str, ...] | None = None,
        exclude: str | None = None,
        faults: tuple[Fault, ...] = (),
        retries: int = 0,
        late_puts: int = 0,
        late_deletes: int = 0,
        dies_at: int = 0,
        meanwhile: tuple[int, int] | None = None,
    ) -> Outcome:
        """Sync one device, and check all promises about it.

        ``dies_at``: the process ends at that call of the file system. ``meanwhile``: before the request of that number
        another device makes a whole sync.
        """
        extras = {"paths": paths, "exclude": exclude, "faults": faults, "retries": retries}
        extras |= {"late_puts": late_puts, "late_deletes": late_deletes, "dies_at": dies_at, "meanwhile": meanwhile}
        words = [repr(number), repr(policy), repr(delete_orphaned), *(f"{k}={v!r}" for k, v in extras.items() if v)]
        self.history.append(f"world.sync({', '.join(words)})")
        device, memory = self.fleet.devices[number], self.memories[number]
        run = Run(policy, delete_orphaned, paths, exclude)
        before, id_before, own = self.disk(number), device.id, device.state.own_seq()
        tips = self._tips()
        self.fleet.network.late_puts, self.fleet.network.late_deletes = late_puts, late_deletes
        plan = Plan(policy, delete_orphaned, Scope(paths, exclude), faults, retries)  # type: ignore[arg-type]
        if dies_at:
            device.files.hook = _dying(dies_at)
        if meanwhile is not None and meanwhile[1] != number:
            self.fleet.network.at_request[meanwhile[0]] = lambda: self._meanwhile(meanwhile[1])
        outcome = self.fleet.sync(device, plan)
        own = own if device.id == id_before else 0
        memory.recall(before)
        if self._settled(device, memory, id_before):
            calm = not (faults or late_puts or late_deletes or dies_at)
            self._check(number, run, outcome, before, max(own, 1) + 1, tips if calm else {})
        elif outcome.error is None:
            raise Disagreement("a sync went on although an earlier commit is not acknowledged")
        elif self.disk(number) != before:
            raise Disagreement("a sync that could not deliver an earlier commit has changed the disk")
        for name in list(memory.tentative):
            where, _, last = name.rpartition("/")
            if last not in device.state.intents(where.encode()):
                del memory.tentative[name]
        self._learn()
        self._nothing_lost(number, before)
        if damages := self.fleet.damages():
            raise Disagreement(f"verify reports {damages}")
        wrong = {
            key
            for key in self.fleet.network.deleted_keys
            if not key.startswith((f"{PREFIX}tips/", f"{PREFIX}segments/"))
        }
        if wrong:
            raise Disagreement(f"deleted in the bucket: {wrong}")
        return outcome

    def _meanwhile(self, number: int) -> None:
        """A sync in the middle of another one, unless that one has published what is not checked yet."""
        self.view.refresh()
        if all(dot in self.expected for dot in self.view.trees):
            written = len(self.history)
            self.sync(number)
            del self.history[written:]

    def _settled(self, device: Device, memory: Memory, id_before: bytes | None) -> bool:
        """Take the rows of a commit that was under way, if it was finished by now. False: it is still under way."""
        if memory.pending is None:
            return True
        dot, rows = memory.pending
        if device.id != id_before:
            memory.pending = None
        elif device.state.tips().get(dot[0], (0, b""))[0] >= dot[1]:  # type: ignore[call-overload]
            memory.rows, memory.pending = rows, None
        return memory.pending is None

    def _check(self, number: int, run: Run, outcome: Outcome, before: Disk, seq: int, tips: dict[bytes, int]) -> None:
        device, memory = self.fleet.devices[number], self.memories[number]
        self._learn(own=device.id)
        if isinstance(outcome.error, RefusedError):
            self._check_refused(number, outcome.error, before)
            return
        if device.id is None:
            if outcome.error is None:
                raise Disagreement("a sync without a device id")
            return
        own: bytes = device.id
        made = self._made(device, (own, seq))
        known = made.basis if made is not None else {one: tip[0] for one, tip in device.state.tips().items()}
        for one, tip in tips.items():
            if outcome.error is None and known.get(one, 0) < tip:
                raise Disagreement(f"the sync did not take record {tip} of {one.hex()[:6]}, which was in the listing")
        expected = Sync(self.folder, known, own, seq, run).expect(memory.rows, before, tie)
        self._check_records(device, seq, known, expected, outcome)
        now = self.disk(number)
        if outcome.error is None:
            self._equal("disk", expected.disk, now)
            if (outcome.result.failed > 0) != bool(expected.failed):  # type: ignore[union-attr]
                raise Disagreement(f"failures {outcome.result.errors}, expected {expected.failed}")  # type: ignore[union-attr]
            blocked = {conflict.path for conflict in outcome.result.conflict_list if not conflict.copies}  # type: ignore[union-attr]
            if blocked != expected.blocked:
                raise Disagreement(f"in the way: {blocked}, expected {expected.blocked}")
            memory.rows = expected.rows
            self._check_rows(device, memory)
        elif calm_error := (outcome.error if tips != {} else None):
            raise Disagreement(f"a sync without faults ended with {calm_error!r}") from calm_error
        else:
            self._after_failure(device, memory, expected, (own, seq), before, now)

    def _made(self, device: Device, dot: Dot) -> Any:
        """The record of the edits, if the sync came that far."""
        found = self.view.records.get(dot)
        if found is None and (raw := device.state.outbox()) is not None:
            record = parse_record(raw)[0]
            found = record if record.dot == dot else None
        return found

    def _check_records(
        self, device: Device, seq: int, known: dict[bytes, int], expected: Expected, outcome: Outcome
    ) -> None:
        """The records that were published are those that were expected: all of them, or the first ones if the sync
        failed.
        """
        tree = self.folder.state(known)
        raw = device.state.outbox()
        waiting = parse_record(raw)[0].dot if raw is not None else None
        for step, record in enumerate(expected.records):
            dot = (device.id or b"", seq + step)
            tree = apply(tree, record, dot)
            if dot not in self.view.records and dot != waiting:
                if outcome.error is None:
                    raise Disagreement(f"not published: {record}")
                return
            self.expected[dot] = (record, tree)
        dot = (device.id or b"", seq + len(expected.records))
        if dot in self.view.records and dot not in self.expected:
            self._equal("published without need", {}, self._differences(tree, self.view.trees.get(dot, {})))
            raise Disagreement(f"a record without a change: {dot}")

    @staticmethod
    def _differences(before: Tree, after: Tree) -> dict[str, Any]:
        return {
            path: (before.get(path), after.get(path))
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        }

    def _check_rows(self, device: Device, memory: Memory) -> None:
        wanted = {name: (row.entry, row.dots, row.hidden) for name, row in memory.rows.items()}
        self._equal("rows", wanted, self._rows(device, memory))

    @staticmethod
    def _rows(device: Device, memory: Memory) -> dict[str, tuple[str, frozenset[Dot], bool]]:
        """The rows in a device's state. A file that a run placed before it was cut off is known by its intent until it
        is looked at.
        """
        found: dict[str, tuple[str, frozenset[Dot], bool]] = {}
        for path in device.state.fingerprints():
            prefix = f"{path.decode()}/" if path else ""
            rows = device.state.directory(path)[1]
            rows |= {name: row for name, row in device.state.intents(path).items() if prefix + name in memory.tentative}
            for name, row in rows.items():
                dots = frozenset((bytes(dot.device), dot.seq) for dot in row.dots)
                found[prefix + name] = (prefix + row.entry_name.decode(), dots, row.hidden)
        return found

    def _was_promoted(self, device: Device, memory: Memory, expected: Expected, same: set[str]) -> bool:
        """Whether the rows after publishing, of a sync that had nothing to publish, became current before it failed."""
        found = self._rows(device, memory)
        for name in same:
            one, two = memory.rows.get(name), expected.stages[0].get(name)
            if one != two and found.get(name) != (None if two is None else (two.entry, two.dots, two.hidden)):
                return False
        return True

    def _after_failure(
        self, device: Device, memory: Memory, expected: Expected, dot: Dot, before: Disk, now: Disk
    ) -> None:
        """A sync that failed: nothing, or its commit, or its commit and a part of what it had to change on the disk."""
        tip = device.state.tips().get(dot[0], (0, b""))[0]  # type: ignore[call-overload]
        done = min(max(0, tip - dot[1] + 1), len(expected.records))
        if done < len(expected.records):
            self._equal("disk of a sync that has not published everything", before, now)
            memory.rows = expected.stages[done - 1] if done else memory.rows
            following = (dot[0], dot[1] + done)
            if following in self.expected:
                memory.pending = (following, expected.stages[done])
            return
        same = {name for name in memory.rows.keys() | expected.stages[0].keys() if before.get(name) == now.get(name)}
        promoted = bool(expected.records) or self._was_promoted(device, memory, expected, same)
        rows = dict(expected.stages[-1] if promoted else memory.rows)
        for name in before.keys() | now.keys() | expected.disk.keys():
            old, new, final = before.get(name), now.get(name), expected.disk.get(name)
            found = self._rows(device, memory).get(name)
            if self._was_opened(found, name, rows, (old, new)):
                continue
            if new == old:
                self._row_of_unchanged(found, name, rows, expected)
                continue
            if new is None:
                # Announced before it was removed; of a directory that is so only if it was to go by itself.
                if name in rows and (rows[name].value.kind != "d" or (found is not None and not found[1])):
                    rows[name] = replace(rows[name], dots=frozenset())
            elif new == final and name in expected.rows and new.value.kind != "d":
                memory.tentative[name] = (new, rows.get(name))
                rows[name] = expected.rows[name]
            elif new.value.kind == "d" and (final is None or final.value.kind == "d"):
                if old is None:
                    rows.pop(name, None)
                elif old.value.kind != "d" and name in rows:
                    rows[name] = replace(rows[name], dots=frozenset())
            else:
                raise Disagreement(f"{name} is {new}, neither {old} nor {final}")
        memory.rows = rows

    @staticmethod
    def _was_opened(
        found: tuple[str, frozenset[Dot], bool] | None,
        name: str,
        rows: dict[str, Row],
        change: tuple[Version | None, Version | None],
    ) -> bool:
        """A directory that took no changes, as a run that was cut off has left it: without a row, so that it gets its
        mode back, or with one that says that it was to go.
        """
        old, new = change
        if old is None or new is None or not old.value.kind == new.value.kind == "d" or old.value.mode & 0o700 == 0o700:
            return False
        if found is None:
            rows.pop(name, None)
        elif not found[1] and name in rows:
            rows[name] = replace(rows[name], dots=frozenset(), value=new.value)
        return found is None or not found[1]

    @staticmethod
    def _row_of_unchanged(
        found: tuple[str, frozenset[Dot], bool] | None, name: str, rows: dict[str, Row], expected: Expected
    ) -> None:
        """The row of something that a failed run left alone: it may have been announced to go, or stand for others."""
        final = expected.rows.get(name)
        if found is None or name not in rows:
            return
        if not found[1]:
            rows[name] = replace(rows[name], dots=frozenset())
        elif final is not None and final.value == rows[name].value and (final.entry, final.dots, final.hidden) == found:
            rows[name] = final

    def _check_refused(self, number: int, error: RefusedError, before: Disk) -> None:
        """Only an empty root that had files is refused here, and then nothing happens."""
        device, memory = self.fleet.devices[number], self.memories[number]
        held = any(not row.hidden for name, row in memory.rows.items() if "/" not in name)
        if before or not held:
            raise Disagreement(f"refused: {error}")
        self._equal("disk of a refused sync", before, self.disk(number))
        del device

    def _learn(self, own: bytes | None = None) -> None:
        """Take in what has appeared in the bucket; of ``own`` later, when it is known what it must be."""
        self.view.refresh()
        for dot, tree in self.view.trees.items():
            if dot in self.folder.records or (dot[0] == own and dot not in self.expected):
                continue
            if dot not in self.expected:
                raise Disagreement(f"nobody was to publish {dot}: {tree}")
            record, wanted = self.expected[dot]
            self._equal(f"tree of record {dot[1]}", wanted, tree)
            self.folder.records[dot] = record

    def _nothing_lost(self, number: int, before: Disk) -> None:
        """Whatever the sync took from the disk is in the history or in the trash."""
        now = self.disk(number)
        kept = {version.value.data for record in self.folder.records.values() for version in record.adds.values()}
        kept |= {version.value.data for version in now.values()} | set(self.fleet.trash(self.fleet.devices[number]))
        for path, version in before.items():
            if version.value.kind != "d" and version.value.data not in kept:
                raise Disagreement(f"lost: {path} with {version.value.data!r}")

    def _tips(self) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for key in self.fleet.store.objects:
            if key.startswith(f"{PREFIX}tips/"):
                device, seq = key.rpartition("/")[2].split("-")[0].split(".")
                one = bytes.fromhex(device)
                found[one] = max(found.get(one, 0), int(seq))
        return found or {b"": 0}

    def _equal(self, what: str, wanted: Any, found: Any) -> None:
        if wanted != found:
            names = sorted(
                (name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)), key=str
            )
            lines = [f"  {name}: {found.get(name)}\n    should be {wanted.get(name)}" for name in names]
            raise Disagreement(f"{what}:\n" + "\n".join(lines))

    # ---- looking

    def disk(self, number: int) -> Disk:
        """What lies on a device's disk, without what is buckia's own."""
        files = self.fleet.devices[number].files
        found: Disk = {}
        pending = [""]
        while pending:
            where = pending.pop()
            for name, kind, mode, _, mtime_ns, _, _ in files.scan(f"{ROOT}/{where}"):
                path = f"{where}/{name}" if where else name
                if name.startswith(".buckia") and name != ".buckiaignore":
                    continue
                if kind == 2:
                    pending.append(path)
                    found[path] = Version(Value("d", b"", mode), 0)
                else:
                    found[path] = Version(
                        Value(KINDS[kind], files.get(f"{ROOT}/{path}"), 0 if kind == 1 else mode), mtime_ns
                    )
        return found

    # ---- the end

    def quiesce(self) -> None:
        """Everything arrives, everybody syncs in turn: two rounds later all show the same, and a third does nothing."""
        self.deliver()
        everybody = range(len(self.memories))
        for number in everybody:
            if not self.disk(number):
                self.write(number, "never-empty")
        for _ in range(2):
            for number in everybody:
                self.sync(number)
        trees = [{path: version.value for path, version in self.disk(number).items()} for number in everybody]
        roots = set()
        for number in everybody:
            self._equal(f"device {number} beside device 0", trees[0], trees[number])
            outcome = self.sync(number)
            roots.add(outcome.result.root)  # type: ignore[union-attr]
            requests = [verb for verb, _ in outcome.log]
            if requests != ["list"]:
                raise Disagreement(f"a sync without changes made the requests {outcome.log}")
        if damages := self.fleet.damages(read_data=True):
            raise Disagreement(f"verify reports {damages}")
        if len(roots) != 1:
            raise Disagreement(f"content roots {roots}")
