"""Chunk lists: a file's chunks in order, folded, with their sizes checked, in bounded memory."""

from __future__ import annotations

import copy
import tracemalloc

import pytest

from buckia.core import canonical
from buckia.core.content import ChunkListBuilder, blobs, chunks, decode_chunks, encode_chunks, runs
from buckia.core.ids import BlobType, blob_id
from buckia.core.manifest import FileContent
from buckia.core.merkle import CUTS
from buckia.errors import FormatError
from tests.trees import TINY, MemoryNodes, chunk


def listed(nodes, items, cuts=TINY):
    builder = ChunkListBuilder(nodes, cuts)
    for id, length in items:
        builder.add(id, length)
    return builder.finish()


def test_files_of_up_to_one_chunk_need_no_node():
    nodes = MemoryNodes()
    empty = listed(nodes, [])
    assert empty == FileContent(0, blob_id(BlobType.CHUNK, b""))
    assert list(runs(nodes, empty, 0)) == list(blobs(nodes, empty, 0, set())) == []
    one = listed(nodes, [(chunk(1), 10)])
    assert one == FileContent(0, chunk(1))
    assert list(chunks(nodes, one, 10)) == [(chunk(1), 10)]
    assert nodes.writes == []


def test_equal_neighbours_are_folded():
    nodes = MemoryNodes()
    content = listed(nodes, [(chunk(1), 10)] * 1000)
    assert content.depth == 1
    assert list(runs(nodes, content, 10000, TINY)) == [(chunk(1), 10, 1000)]
    assert sum(length for _, length in chunks(nodes, content, 10000, TINY)) == 10000
    mixed = [(chunk(1), 10), (chunk(2), 5), (chunk(2), 5), (chunk(1), 10)]
    content = listed(nodes, mixed)
    assert [item[2] for item in runs(nodes, content, 30, TINY)] == [1, 2, 1]
    assert list(chunks(nodes, content, 30, TINY)) == mixed


def test_the_bytes_are_those_of_the_spec():
    nodes = MemoryNodes()
    content = listed(nodes, [(chunk(1), 10), (chunk(2), 5), (chunk(2), 5)])
    raw = nodes.raw[content.id]
    assert raw == canonical.encode([1, 2, 0, [], [[chunk(1), 10, 1], [chunk(2), 5, 2]]])
    assert content.id == blob_id(BlobType.CHUNK_LIST, raw)


def test_a_change_keeps_the_other_nodes():
    nodes = MemoryNodes()
    items = [(chunk(number), 100) for number in range(600)]
    content = listed(nodes, items)
    nodes.forget_counts()
    known = set(nodes.raw)
    items[300] = (chunk(9999), 100)
    assert listed(nodes, items).depth == content.depth
    assert len(set(nodes.raw) - known) <= 3 * content.depth


def test_lists_are_built_in_little_memory():
    class Forgetful(MemoryNodes):
        def put(self, kind, raw):
            return blob_id(kind, raw)

    tracemalloc.start()
    content = listed(Forgetful(), ((chunk(number), 262144) for number in range(50000)), CUTS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert content.depth > 1
    assert peak < 2_000_000


def test_every_blob_is_listed_once_and_seen_ones_are_skipped():
    nodes = MemoryNodes()
    items = [(chunk(number % 50), 10) for number in range(200)]
    content = listed(nodes, items)
    seen = set()
    found = list(blobs(nodes, content, 2000, seen, TINY))
    assert len(found) == len(set(found)) == len(seen)
    assert {id for kind, id in found if kind == BlobType.CHUNK} == {id for id, _ in items}
    assert {id for kind, id in found if kind == BlobType.CHUNK_LIST} == set(nodes.raw)
    nodes.forget_counts()
    assert list(blobs(nodes, content, 2000, seen, TINY)) == []
    assert nodes.reads == []


@pytest.mark.parametrize("size", [0, 1999, 2001])
def test_lengths_must_add_up_to_the_size(size):
    nodes = MemoryNodes()
    content = listed(nodes, [(chunk(number), 10) for number in range(200)])
    with pytest.raises(FormatError, match="add up"):
        list(chunks(nodes, content, size, TINY))


def test_the_depth_must_be_that_of_the_root():
    nodes = MemoryNodes()
    content = listed(nodes, [(chunk(number), 10) for number in range(200)])
    for depth in (content.depth - 1, content.depth + 1):
        with pytest.raises(FormatError, match="level"):
            list(chunks(nodes, FileContent(depth, content.id), 2000, TINY))


def put(nodes, level, items):
    return nodes.put(BlobType.CHUNK_LIST, encode_chunks(level, items))


def test_lists_that_no_writer_makes_are_refused():
    nodes = MemoryNodes()
    single = FileContent(1, put(nodes, 0, [(chunk(1), 10, 1)]))
    with pytest.raises(FormatError, match="one item"):
        list(chunks(nodes, single, 10, TINY))
    leaf = put(nodes, 0, [(chunk(1), 10, 1)])
    early = FileContent(2, put(nodes, 1, [(leaf, 10, 1), (leaf, 10, 1)]))
    with pytest.raises(FormatError, match="too early"):
        list(chunks(nodes, early, 20, TINY))
    wrong = FileContent(2, put(nodes, 1, [(leaf, 10, 2), (leaf, 10, 1)]))
    with pytest.raises(FormatError, match="add up"):
        list(chunks(nodes, wrong, 20, TINY))
    chain = FileContent(2, put(nodes, 1, [(leaf, 10, 1)]))
    with pytest.raises(FormatError, match="one item"):
        list(chunks(nodes, chain, 10, TINY))


NODE = [1, 2, 0, [], [[chunk(1), 10, 1], [chunk(2), 5, 2]]]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((1,), 1),
        ((2,), 8),
        ((3,), [b"a" * 16]),
        ((4,), []),
        ((4,), None),
        ((4, 0), [chunk(1), 10]),
        ((4, 0, 0), chunk(2)),
        ((4, 0, 0), b"short"),
        ((4, 0, 1), 0),
        ((4, 0, 1), 2**25),
        ((4, 0, 2), 0),
        ((4, 0, 2), None),
        ((4, 0, 2), 2**60),
    ],
    ids=str,
)
def test_malformed_nodes_are_refused(place, value):
    node = copy.deepcopy(NODE)
    inside = node
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    decode_chunks(canonical.encode(NODE))
    with pytest.raises(FormatError):
        decode_chunks(canonical.encode(node))
