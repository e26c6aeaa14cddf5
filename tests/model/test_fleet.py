"""Whole histories of a fleet, drawn at random: whatever users, networks and crashes do, the product does what the model
says.

After each step every promise of `reference.py` holds; in the end everybody syncs twice and all devices show the same. A
failure is shrunk and prints its history as the lines of a regression test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from buckia.sync.faulty import Fault
from tests.model.world import World
from tests.support.fleet import Restored

DEVICES_MAX = 4
PATHS = ("a", "b", "a/q", "d/x", "d/y.txt", "d/e/z", "d.d/x")
DIRECTORIES = ("a", "d", "d/e", "d.d", "g")
SCOPES = (("a",), ("d",), ("d/x", "b"), ("d/e/z",))
EXCLUDES = ("^d/", "x$", "^a", "^b$", "^d/e$")

devices = st.integers(0, DEVICES_MAX - 1)
paths = st.sampled_from(PATHS)
directories = st.sampled_from(DIRECTORIES)
policies = st.sampled_from(("local_wins", "remote_wins", "newest_wins", "ask"))
counts = st.integers(1, 6)
retries = st.integers(0, 1)


class FleetMachine(RuleBasedStateMachine):
    """The acts of users and of the world."""

    world: World | None = None
    failed = False

    @initialize(number=st.integers(0, 1000), devices=st.integers(2, 3))
    def begin(self, number: int, devices: int) -> None:
        self.world = World(number, devices)
        for device in range(devices):
            self.world.write(device, f"keep{device}")

    @contextmanager
    def acting(self) -> Iterator[World]:
        world = self.world
        assert world is not None
        try:
            yield world
        except BaseException as error:
            self.failed = True
            ids = [device.id.hex()[:6] if device.id is not None else "-" for device in world.fleet.devices]
            error.add_note("\n".join((*world.history, f"# device ids: {' '.join(ids)}")))
            raise

    def act(self, name: str, device: int, *values: Any, **options: Any) -> None:
        with self.acting() as world:
            getattr(world, name)(device % len(world.memories), *values, **options)

    @rule(device=devices, path=st.sampled_from(PATHS + DIRECTORIES), same_size=st.booleans())
    def write(self, device: int, path: str, same_size: bool) -> None:
        self.act("write", device, path, *([12] if same_size else []))

    @rule(device=devices, path=paths, text=st.sampled_from(("one", "two")))
    def write_alike(self, device: int, path: str, text: str) -> None:
        self.act("put", device, path, text)

    @rule(device=devices, path=st.sampled_from(PATHS + DIRECTORIES))
    def delete(self, device: int, path: str) -> None:
        self.act("delete", device, path)

    @rule(device=devices, source=st.sampled_from(PATHS + DIRECTORIES), to=st.sampled_from(PATHS + DIRECTORIES))
    def rename(self, device: int, source: str, to: str) -> None:
        self.act("rename", device, source, to)

    @rule(device=devices, path=directories, mode=st.sampled_from((0o755, 0o700)))
    def mkdir(self, device: int, path: str, mode: int) -> None:
        self.act("mkdir", device, path, mode)

    @rule(device=devices, path=st.sampled_from(PATHS + DIRECTORIES), mode=st.sampled_from((0o644, 0o600, 0o755)))
    def chmod(self, device: int, path: str, mode: int) -> None:
        self.act("chmod", device, path, mode)

    @rule(device=devices, path=paths)
    def touch(self, device: int, path: str) -> None:
        self.act("touch", device, path)

    @rule(device=devices, path=paths, to=st.sampled_from(("a", "b")))
    def link(self, device: int, path: str, to: str) -> None:
        self.act("link", device, path, to)

    @rule(device=devices, which=st.integers(0, 3), name=st.sampled_from(("write", "delete", "touch", "mkdir")))
    def conflict_copy(self, device: int, which: int, name: str) -> None:
        with self.acting() as world:
            copies = world.copies(device % len(world.memories))
        if copies:
            self.act(name, device, copies[which % len(copies)])

    @rule(device=devices, which=st.integers(0, 3), way=st.sampled_from(("over", "back", "exchange")))
    def choose(self, device: int, which: int, way: str) -> None:
        with self.acting() as world:
            copies = world.copies(device % len(world.memories))
        if copies:
            copy = copies[which % len(copies)]
            plain = re.sub(r" \(conflict [^)]*\)", "", copy)
            moves = {
                "over": [(copy, plain)],
                "back": [(plain, copy)],
                "exchange": [(plain, "aside"), (copy, plain), ("aside", copy)],
            }
            for source, target in moves[way]:
                self.act("rename", device, source, target)

    @rule(ns=st.sampled_from((10**9, 10**10)))
    def wait(self, ns: int) -> None:
        with self.acting() as world:
            world.wait(ns)

    # ---- syncs

    @rule(device=devices, policy=policies)
    def sync(self, device: int, policy: str) -> None:
        self.act("sync", device, policy)

    @rule(first=devices, second=devices, policy=policies)
    def sync_two(self, first: int, second: int, policy: str) -> None:
        self.act("sync", first, policy)
        self.act("sync", second, policy)

    @rule(device=devices, policy=policies)
    def sync_and_hide(self, device: int, policy: str) -> None:
        self.act("sync", device, policy, False)

    @rule(device=devices, policy=policies, publish=st.booleans(), scope=st.sampled_from(SCOPES))
    def sync_some(self, device: int, policy: str, publish: bool, scope: tuple[str, ...]) -> None:
        self.act("sync", device, policy, publish, paths=scope)

    @rule(device=devices, policy=policies, publish=st.booleans(), exclude=st.sampled_from(EXCLUDES))
    def sync_without(self, device: int, policy: str, publish: bool, exclude: str) -> None:
        self.act("sync", device, policy, publish, exclude=exclude)

    # ---- what goes wrong

    @rule(
        device=devices,
        policy=policies,
        verb=st.sampled_from(("put", "get", "list", "delete", "stat")),
        kind=st.sampled_from(("before", "applied", "crash", "crash-applied")),
        nth=counts,
        retries=retries,
    )
    def sync_with_fault(self, device: int, policy: str, verb: Any, kind: Any, nth: int, retries: int) -> None:
        self.act("sync", device, policy, faults=(Fault(verb, kind, nth=nth),), retries=retries)

    @rule(device=devices, policy=policies, newest=st.integers(1, 3))
    def sync_with_stale_lists(self, device: int, policy: str, newest: int) -> None:
        self.act("sync", device, policy, faults=(Fault("list", "stale", newest=newest, times=99),))

    @rule(device=devices, policy=policies, late=st.integers(1, 3), retries=retries)
    def sync_with_late_puts(self, device: int, policy: str, late: int, retries: int) -> None:
        self.act("sync", device, policy, late_puts=late, retries=retries)

    @rule(device=devices, policy=policies)
    def sync_with_late_delete(self, device: int, policy: str) -> None:
        self.act("sync", device, policy, late_deletes=1)

    @rule(device=devices, policy=policies, call=st.integers(1, 60))
    def sync_and_die(self, device: int, policy: str, call: int) -> None:
        self.act("sync", device, policy, dies_at=call)

    @rule(device=devices, policy=policies, request=st.integers(1, 12), other=st.integers(0, 1))
    def sync_while_another_syncs(self, device: int, policy: str, request: int, other: int) -> None:
        self.act("sync", device, policy, meanwhile=(request, other))

    @rule()
    def deliver(self) -> None:
        with self.acting() as world:
            world.deliver()

    @rule(device=devices)
    def lose_state(self, device: int) -> None:
        self.act("lose_state", device)

    @rule(device=devices)
    def save_state(self, device: int) -> None:
        self.act("save_state", device)

    @rule(device=devices, how=st.sampled_from(("elsewhere", "in place", "with its marks", "mirrored")))
    def put_back(self, device: int, how: Restored) -> None:
        self.act("put_back", device, how)

    @rule(device=devices, policy=policies, publish=st.booleans())
    def put_back_with_its_disk(self, device: int, policy: str, publish: bool) -> None:
        with self.acting() as world:
            world.deliver()
        self.act("put_back", device, "with its disk")
        self.act("sync", device, policy, publish)

    @rule(device=devices)
    def clone(self, device: int) -> None:
        with self.acting() as world:
            if len(world.memories) < DEVICES_MAX:
                world.clone(device % len(world.memories))

    def teardown(self) -> None:
        if self.world is None or self.failed:
            return
        with self.acting() as world:
            world.quiesce()


def run(shard: int, histories: int, steps: int) -> None:
    machine: Callable[[], RuleBasedStateMachine] = seed(shard)(type("Shard", (FleetMachine,), {}))
    run_state_machine_as_test(
        machine, settings=settings(max_examples=histories, stateful_step_count=steps, deadline=None)
    )


def test_a_few_histories() -> None:
    run(0, 20, 25)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(1, 5))
def test_histories(shard: int) -> None:
    run(shard, 75, 40)


@pytest.mark.nightly
@pytest.mark.parametrize("shard", range(101, 105))
def test_many_long_histories(shard: int) -> None:
    run(shard, 500, 60)
