"""The chunker cuts exactly where the specification says, with every kernel, and finds databases by their head."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from buckia.core import chunker
from buckia.core.chunker import CHUNK_AVG, CHUNK_MAX, CHUNK_MIN, chunk_ends, kernel, page_size
from buckia.errors import MissingExtraError, UsageError

VECTORS = json.loads((Path(__file__).parents[2] / "specs" / "vectors" / "chunker.json").read_text())
NAMES = ("c", "numpy", "python")


def expand(segments: list[dict[str, Any]]) -> bytes:
    return b"".join(
        blake3(s["xof"].encode()).digest(length=s["length"], seek=s["from"])
        if "xof" in s
        else bytes.fromhex(s["hex"]) * s["times"]
        for s in segments
    )


def kernel_or_skip(name: str) -> chunker.Kernel:
    try:
        return kernel(name)
    except UsageError as error:
        pytest.skip(error.message)


@pytest.mark.parametrize("name", NAMES)
def test_the_cuts_are_those_of_the_specification(name: str) -> None:
    k = kernel_or_skip(name)
    for vector in VECTORS["default"]:
        data = expand(vector["input"])
        assert len(data) == vector["size"], vector["name"]
        assert chunk_ends(data, kernel=k, page_size=None, final=True) == vector["ends"], vector["name"]


def test_the_table_is_that_of_the_specification() -> None:
    assert blake3(chunker._TABLE).hexdigest() == VECTORS["table"]


@pytest.mark.parametrize("case", VECTORS["pages"], ids=lambda case: case["head"][30:] or "empty")
def test_page_sizes_are_those_of_the_specification(case: dict[str, Any]) -> None:
    head = bytes.fromhex(case["head"])
    assert page_size(head) == case["page"]
    assert page_size(memoryview(head)) == case["page"]


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_a_real_database_is_cut_into_its_pages(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size = {size}")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    data = path.read_bytes()
    found = page_size(data)
    assert found == size
    ends = chunk_ends(data, kernel=kernel(), page_size=found, final=True)
    assert ends == list(range(size, len(data) + 1, size))


def test_the_last_page_may_be_short_and_waits_for_the_end() -> None:
    k = kernel()
    assert chunk_ends(bytes(1300), kernel=k, page_size=512, final=False) == [512, 1024]
    assert chunk_ends(bytes(1300), kernel=k, page_size=512, final=True) == [512, 1024, 1300]
    assert chunk_ends(bytes(1024), kernel=k, page_size=512, final=True) == [512, 1024]
    assert chunk_ends(b"", kernel=k, page_size=512, final=True) == []


@pytest.mark.parametrize("name", NAMES)
def test_without_the_end_no_chunk_is_guessed(name: str) -> None:
    k = kernel_or_skip(name)
    assert k.cuts(b"", False) == k.cuts(b"", True) == []
    for size in (1, CHUNK_MIN - 1, CHUNK_MIN, CHUNK_AVG - 1, CHUNK_AVG, CHUNK_MAX - 1):
        assert k.cuts(bytes(size), False) == []
        assert k.cuts(bytes(size), True) == [size]
    assert k.cuts(bytes(CHUNK_MAX), False) == [CHUNK_MAX]


@pytest.mark.parametrize("name", NAMES)
def test_every_buffer_of_bytes_will_do(name: str) -> None:
    k = kernel_or_skip(name)
    data = expand([{"xof": "buffers", "from": 0, "length": 700_000}])
    expected = k.cuts(data, True)
    assert len(expected) > 1
    assert k.cuts(bytearray(data), True) == expected
    assert k.cuts(memoryview(b"x" + data + b"x")[1:-1], True) == expected


def test_the_c_kernel_refuses_what_it_cannot_read() -> None:
    kernel_or_skip("c")
    from buckia.core import _gear

    with pytest.raises(BufferError):
        _gear.cuts(memoryview(bytes(200_000))[::2], True, chunker._TABLE)
    with pytest.raises(ValueError, match="2048"):
        _gear.cuts(b"", True, b"short")
    with pytest.raises(TypeError):
        _gear.cuts("text", True, chunker._TABLE)  # type: ignore[arg-type]  # that is the test


def test_an_unknown_kernel_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'rust'"):
        kernel("rust")


def test_a_kernel_that_is_not_installed_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "buckia.core._gear", None)
    monkeypatch.delattr("buckia.core._gear", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(UsageError, match="compiler"):
        kernel("c")
    with pytest.raises(MissingExtraError, match="NumPy"):
        kernel("numpy")
    assert kernel().name == kernel(None).name == "python"


def test_the_fastest_kernel_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [kernel_or_skip(name).name for name in NAMES] == list(NAMES)
    assert kernel().name == "c"
    monkeypatch.setitem(sys.modules, "buckia.core._gear", None)
    monkeypatch.delattr("buckia.core._gear", raising=False)
    assert kernel().name == "numpy"
