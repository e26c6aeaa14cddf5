"""Wherever a sync dies, nothing is lost, nothing is half, and the next syncs end where an undisturbed one would have.

Every effect of every scenario is a crash point, each in four ways (see ``world``). Afterwards the device syncs again,
the others do, a new one clones the folder, and the bucket is read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from unittest.mock import patch

import pytest

from tests.crash.collector import delete
from tests.crash.scenarios import NIGHTLY, SCENARIOS, Scenario
from tests.crash.world import Mode, Tree, World, check_bucket, files, is_temporary

MODES: tuple[Mode, ...] = ("kill", "power", "torn", "ahead")


@contextmanager
def shrunk(scenario: Scenario) -> Iterator[None]:
    """The product with the scenario's smaller numbers."""
    patches = []
    for name, number in scenario.shrink.items():
        module, _, attribute = name.partition(":")
        patches.append(patch.object(import_module(module), attribute, number))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def crash_everywhere(scenario: Scenario, modes: tuple[Mode, ...] = MODES) -> int:
    """Run the scenario once for every effect and mode; how many crash points there were."""
    points = 0
    with shrunk(scenario):
        saved = prepared(scenario)
        for mode in modes:
            whole = begun(scenario, saved)
            assert whole.run(whole.device(scenario.victim), mode) is not None
            effects = whole.effects
            for effect, times in scenario.reaches.items():
                assert sum(done.startswith(effect) for done in whole.log) >= times, effect
            expected = settle(whole, scenario)
            for stop in range(1, effects + 1):
                check_one(scenario, saved, mode, stop, expected)
            points += effects
    return points


def prepared(scenario: Scenario) -> bytes:
    """The world right before the victim's sync."""
    world = World()
    scenario.prepare(world)
    return world.save()


def begun(scenario: Scenario, saved: bytes) -> World:
    """That world once more, with what others will do meanwhile."""
    world = World.load(saved)
    if scenario.meanwhile is not None:
        world.meanwhile(scenario.moment, scenario.meanwhile)
    return world


def check_one(scenario: Scenario, saved: bytes, mode: Mode, stop: int, expected: Tree) -> None:
    """Crash after one effect, come back, and look at everything."""
    world = begun(scenario, saved)
    device = world.device(scenario.victim)
    before = files(device.everything())
    assert world.run(device, mode, stop) is None, "the run was shorter than the one before it"
    try:
        device.come_back(mode)
        check_whole(world, device.everything())
        got = settle(world, scenario, before | files(device.tree()))
        check_result(scenario, world, got, expected)
    except Exception as error:
        error.add_note(f"{scenario.name}: crash ({mode}) after effect {stop}: {world.last}")
        raise


def settle(world: World, scenario: Scenario, kept: frozenset[bytes] | set[bytes] = frozenset()) -> Tree:
    """Sync everywhere until all is quiet; what every device then shows. All of ``kept`` must still be somewhere."""
    world.catch_up()
    victim = world.device(scenario.victim)
    victim.sync()
    assert victim.leftovers() == [], "temporary files stay behind"
    delete(world)
    others = [device for device in world.devices.values() if device is not victim]
    for device in [*others, victim, *others]:
        result = device.sync()
        assert not result.failed, result.errors
    objects = dict(world.bucket.objects)
    for device in world.devices.values():
        result = device.sync()
        assert (result.uploaded, result.downloaded, result.deleted, result.failed) == (0, 0, 0, 0), result
    assert world.bucket.objects == objects, "a sync of what is in step wrote something"
    contents = check_bucket(world)
    tree = victim.tree()
    for device in [*others, world.device("clone")]:
        device.sync()
        assert scenario.view(device.tree()) == scenario.view(tree), f"{device.name} shows something else"
    lost = kept - contents.union(*(files(device.everything()) for device in world.devices.values()))
    assert not lost, f"lost: {[data[:40] for data in lost]}"
    return tree


def check_whole(world: World, tree: Tree) -> None:
    """Every file is one that somebody wrote: none is half, none is mixed."""
    for path, data in tree.items():
        if isinstance(data, bytes) and not is_temporary(path):
            assert data in world.contents, f"{path} is half-written"


def check_result(scenario: Scenario, world: World, got: Tree, expected: Tree) -> None:
    """The end is that of an undisturbed run."""
    if scenario.may_conflict:
        assert names(got) == names(expected)
        assert files(got) <= world.contents
    else:
        assert got == expected


def names(tree: Tree) -> set[str]:
    """All paths but those of conflict copies."""
    return {path for path in tree if "(conflict " not in path}


def test_smoke() -> None:
    assert crash_everywhere(SCENARIOS[2], ("kill",)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_effect(scenario: Scenario) -> None:
    assert crash_everywhere(scenario) > 30


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", NIGHTLY, ids=lambda scenario: scenario.name)
def test_every_effect_of_more_scenarios(scenario: Scenario) -> None:
    assert crash_everywhere(scenario) > 30
