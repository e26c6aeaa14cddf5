"""Merkle lists: an update equals a rebuild, a difference is exact, and decoders refuse whatever no writer makes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from buckia.core.content import ChunkListBuilder, chunks, decode_chunks
from buckia.core.directory import build, diff, diff_trees, entries, find, referenced, update, walk
from buckia.core.ids import BlobType
from buckia.core.manifest import decode_directory, encode_directory
from buckia.errors import FormatError
from tests.trees import TINY, A, B, MemoryNodes, chunk, entry, file, folder, symlink, tree_of

NAMES = st.integers(0, 120).map(lambda number: b"%03d" % number)
CONTENTS = st.dictionaries(NAMES, st.integers(1, 3), max_size=90)
CHANGES = st.dictionaries(NAMES, st.none() | st.integers(1, 4), max_size=20)


def made(values):
    return [entry(name, file(value=value)) for name, value in sorted(values.items())]


@given(CONTENTS, CHANGES)
@settings(max_examples=300)
def test_an_update_is_a_rebuild(old, changes):
    nodes = MemoryNodes()
    tree = build(nodes, made(old), TINY)
    new = {name: value for name, value in (old | changes).items() if value is not None}
    expected = build(nodes, made(new), TINY)
    edits = [(name, value and entry(name, file(value=value))) for name, value in sorted(changes.items())]
    assert update(nodes, tree.id, edits, TINY) == expected
    assert update(nodes, None, [(one.name, one) for one in made(new)], TINY) == expected
    assert list(entries(nodes, expected.id, TINY)) == made(new)
    assert (expected.files, expected.bytes) == (len(new), sum(new.values()))


@given(st.integers(0, 120), st.integers(0, 120), st.integers(0, 120), st.integers(0, 120))
@settings(max_examples=200)
def test_removing_and_adding_ranges_is_a_rebuild(start, count, drop, dropped):
    nodes = MemoryNodes()
    old = {b"%03d" % number: 1 for number in range(start, start + count)}
    removed = {b"%03d" % number: None for number in range(drop, drop + dropped)}
    new = {name: value for name, value in old.items() if name not in removed}
    tree, expected = build(nodes, made(old), TINY), build(nodes, made(new), TINY)
    assert update(nodes, tree.id, sorted(removed.items()), TINY) == expected
    assert update(nodes, expected.id, [(one.name, one) for one in made(old)], TINY) == tree


@given(CONTENTS, CHANGES)
@settings(max_examples=200)
def test_a_difference_is_exact(old, changes):
    nodes = MemoryNodes()
    new = {name: value for name, value in (old | changes).items() if value is not None}
    one, two = build(nodes, made(old), TINY), build(nodes, made(new), TINY)
    left, right = ({item.name: item for item in made(values)} for values in (old, new))
    expected = [(left.get(name), right.get(name)) for name in sorted(left | right) if left.get(name) != right.get(name)]
    assert list(diff(nodes, one.id, two.id, TINY)) == expected
    assert list(diff(nodes, None, two.id, TINY)) == [(None, item) for item in made(new)]


@given(CONTENTS, NAMES)
@settings(max_examples=100)
def test_what_is_found_is_what_is_there(values, name):
    nodes = MemoryNodes()
    tree = build(nodes, made(values), TINY)
    assert find(nodes, tree.id, name, TINY) == {item.name: item for item in made(values)}.get(name)


PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(tuple)
TREES = st.dictionaries(PATHS, st.integers(1, 2).map(lambda value: (file(value=value),)), max_size=12)


@given(TREES, TREES)
@settings(max_examples=150)
def test_whole_trees_are_walked_and_compared(one, two):
    nodes = MemoryNodes()
    left, right = tree_of(nodes, one), tree_of(nodes, two)
    for paths, tree in ((one, left), (two, right)):
        seen = {path: item.versions for path, item in walk(nodes, tree.id, (), TINY)}
        assert list(seen) == sorted(seen)
        assert {path: versions for path, versions in seen.items() if versions} == paths
    differing = {
        path: (a.versions if a else (), b.versions if b else ()) for path, a, b in diff_trees(nodes, left, right, TINY)
    }
    expected = {path: (one.get(path, ()), two.get(path, ())) for path in one | two if one.get(path) != two.get(path)}
    assert {path: pair for path, pair in differing.items() if pair != ((), ())} == expected


@given(TREES)
@settings(max_examples=50)
def test_what_is_referenced_is_all_that_was_written(paths):
    nodes = MemoryNodes()
    tree = tree_of(nodes, paths)
    listed = list(referenced(nodes, tree.id, set(), TINY))
    assert len(listed) == len(set(listed))
    fresh = MemoryNodes()
    fresh.raw = {id: nodes.raw[id] for kind, id in listed if kind != BlobType.CHUNK}
    assert list(walk(fresh, tree.id, (), TINY)) == list(walk(nodes, tree.id, (), TINY))
    assert {id for kind, id in listed if kind == BlobType.CHUNK} == {
        version.content.id for versions in paths.values() for version in versions
    }


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), max_size=60))
@settings(max_examples=200)
def test_a_chunk_list_gives_back_its_chunks(runs):
    nodes = MemoryNodes()
    expected = [(chunk(number), number + 1) for number, count in runs for _ in range(count)]
    builder = ChunkListBuilder(nodes, TINY)
    for id, length in expected:
        builder.add(id, length)
    size = sum(length for _, length in expected)
    assert list(chunks(nodes, builder.finish(), size, TINY)) == expected


LEAF = encode_directory(
    0,
    [
        entry(b"a", file(), file(B, 2, value=3)),
        entry(b"b", symlink(B), folder(A, 7)),
        entry("ü".encode(), file(mtime_ns=-1, value=70000)),
    ],
)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_format_error(raw):
    for decode in (decode_directory, decode_chunks):
        try:
            decode(raw)
        except FormatError:
            continue


@given(st.integers(0, len(LEAF) - 1), st.binary(max_size=3), st.integers(0, 3))
@settings(max_examples=500)
def test_a_damaged_node_is_refused_or_is_another_canonical_node(place, inserted, removed):
    raw = LEAF[:place] + inserted + LEAF[place + removed :]
    try:
        node = decode_directory(raw)
    except FormatError:
        return
    assert encode_directory(node.level, node.items) == raw
