"""What holds for every input: chunks join to the input, kernels agree, windows do not matter, edits stay local."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from buckia.core.chunker import CHUNK_MAX, CHUNK_MIN, Kernel, chunk_ends, kernel
from buckia.errors import UsageError


@cache
def kernels() -> list[Kernel]:
    found = []
    for name in ("c", "numpy", "python"):
        try:
            found.append(kernel(name))
        except UsageError as error:
            print(f"without {name}: {error}")
    return found


def noise(seed: int, size: int) -> bytes:
    return blake3(seed.to_bytes(8, "big")).digest(length=size)


@st.composite
def inputs(draw: st.DrawFn, size_max: int) -> bytes:
    """Noise, runs of one byte and repeated phrases, in any order: up to ``size_max`` bytes."""
    parts = []
    left = draw(st.integers(0, size_max))
    while left > 0:
        size = draw(st.integers(1, left))
        match draw(st.sampled_from(["noise", "noise", "run", "phrase"])):
            case "noise":
                parts.append(noise(draw(st.integers(0, 2**20)), size))
            case "run":
                parts.append(bytes([draw(st.integers(0, 255))]) * size)
            case _:
                phrase = draw(st.binary(min_size=1, max_size=100))
                parts.append((phrase * (size // len(phrase) + 1))[:size])
        left -= size
    return b"".join(parts)


def cuts(data: bytes, k: Kernel | None = None) -> list[int]:
    return chunk_ends(data, kernel=k or kernel(), page_size=None, final=True)


def chunks(data: bytes) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *cuts(data)])]


@given(inputs(4 << 20))
@example(b"")
@settings(max_examples=40)
def test_chunks_join_to_the_input_and_keep_the_bounds(data: bytes) -> None:
    parts = chunks(data)
    assert b"".join(parts) == data
    assert all(CHUNK_MIN <= len(part) <= CHUNK_MAX for part in parts[:-1])
    assert all(0 < len(part) <= CHUNK_MAX for part in parts[-1:])


@given(inputs(1_200_000), st.booleans())
@settings(max_examples=20)
def test_all_kernels_agree(data: bytes, final: bool) -> None:
    found = [k.cuts(data, final) for k in kernels()]
    assert all(ends == found[0] for ends in found)


# What a window leaves over is looked at again: many tiny windows would cost quadratic time, and prove no more.
windows_of_a_stream = st.lists(st.integers(1, 2 << 20), min_size=1, max_size=12)


@given(inputs(3 << 20), windows_of_a_stream, st.sampled_from([None, 512, 65536]))
@settings(max_examples=40)
def test_a_stream_in_any_windows_is_cut_like_the_whole(data: bytes, windows: list[int], page: int | None) -> None:
    whole = chunk_ends(data, kernel=kernel(), page_size=page, final=True)
    streamed: list[int] = []
    start = end = turn = 0
    while end < len(data):
        end = min(end + windows[turn], len(data)) if turn < len(windows) else len(data)
        turn += 1
        view = memoryview(data)[start:end]
        ends = chunk_ends(view, kernel=kernel(), page_size=page, final=end == len(data))
        streamed += [start + e for e in ends]
        if ends:
            start += ends[-1]
    assert streamed == whole


@given(inputs(3 << 20))
@settings(max_examples=30)
def test_a_chunk_is_found_again_when_cut_on_its_own(data: bytes) -> None:
    for part in chunks(data)[:-1]:
        assert kernel().cuts(part, False) == [len(part)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("removed", "inserted"), [(0, 1), (0, 1000), (1, 0), (4096, 4096), (70_000, 0)])
def test_an_edit_changes_few_chunks(seed: int, removed: int, inserted: int) -> None:
    """In random data, whatever the edit, cuts fall back into step within a few chunks."""
    data = noise(seed, 8 << 20)
    at = 500_000 + seed * 900_000
    edited = data[:at] + noise(99, inserted) + data[at + removed :]
    before, after = set(chunks(data)), chunks(edited)
    assert sum(len(part) for part in after if part not in before) <= 3 << 19


@given(st.integers(0, 2**20), st.integers(1, 300_000))
@settings(max_examples=30)
def test_what_comes_after_never_moves_a_cut_before(seed: int, appended: int) -> None:
    data = noise(seed, 1_500_000)
    assert cuts(data + noise(seed + 1, appended))[: len(cuts(data)) - 1] == cuts(data)[:-1]
