"""What was applied is remembered; what is malformed counts as not known, so that the next run finds out by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from buckia.core import canonical
from buckia.core.ids import BlobId, DeviceId, ObjectId
from buckia.core.manifest import Subtree
from buckia.engine.applied import (
    Applied,
    begin_change,
    load_applied,
    load_conflicts,
    save_applied,
    save_conflicts,
)
from buckia.local.state import State

NODE = BlobId(b"n" * 32)
RECORD = ObjectId(b"r" * 32)
DEVICE = DeviceId(b"d" * 16)
APPLIED = Applied(Subtree(NODE, b"c" * 32, 3, 70), {DEVICE: (2, RECORD)}, (RECORD,))
SOUND: list[canonical.Value] = [0, NODE, b"c" * 32, 3, 70, [[DEVICE, 2, RECORD]], [RECORD]]


@pytest.fixture
def state() -> Iterator[State]:
    with State.open(None, machine="m") as opened:
        yield opened


def test_what_was_applied_is_known_until_a_change_begins(state: State) -> None:
    assert load_applied(state, "x") is None
    save_applied(state, "x", APPLIED)
    assert load_applied(state, "x") == APPLIED
    assert load_applied(state, "y") is None
    begin_change(state)
    assert load_applied(state, "x") is None


def test_conflicts_are_kept(state: State) -> None:
    assert load_conflicts(state) == {}
    save_conflicts(state, {"a/b": ("a/b (conflict)",), "c": ()})
    assert load_conflicts(state) == {"a/b": ("a/b (conflict)",), "c": ()}
    save_conflicts(state, {})
    assert load_conflicts(state) == {}


@pytest.mark.parametrize("value", [None, 1, "text", b"", [], SOUND[:-1], [*SOUND, 0], [SOUND]])
def test_an_applied_state_of_another_shape_is_absent(state: State, value: canonical.Value) -> None:
    state.set_value("applied:", canonical.encode(value))
    assert load_applied(state, "") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in range(7) for value in (None, "text")),
        *((field, 1) for field in (1, 2, 5, 6)),
        *(
            (5, [tip])
            for tip in (1, b"xyz", [], [DEVICE, 2], ["text", 2, RECORD], [DEVICE, None, RECORD], [[], 2, b""])
        ),
        *((6, [head]) for head in (1, "text", [], None)),
    ],
)
def test_an_applied_state_with_a_malformed_value_is_absent(state: State, field: int, value: canonical.Value) -> None:
    state.set_value("applied:", canonical.encode(SOUND))
    assert load_applied(state, "") is not None
    state.set_value("applied:", canonical.encode([*SOUND[:field], value, *SOUND[field + 1 :]]))
    assert load_applied(state, "") is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01"])
def test_bytes_that_are_no_value_are_absent(state: State, data: bytes) -> None:
    state.set_value("applied:", data)
    state.set_value("conflicts", data)
    assert load_applied(state, "") is None
    assert load_conflicts(state) == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        b"xy",
        [1],
        ["ab"],
        [[]],
        [["a"]],
        [["a", "b"]],
        [[1, []]],
        [[[], []]],
        [["a", [1]]],
        [["a", [], 0]],
    ],
)
def test_malformed_conflicts_are_absent(state: State, value: canonical.Value) -> None:
    state.set_value("conflicts", canonical.encode(value))
    assert load_conflicts(state) == {}
