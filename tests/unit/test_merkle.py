"""The Merkle list and directories made of it: where nodes end, how little is read and written, what is refused."""

from __future__ import annotations

import tracemalloc

import pytest

from buckia.core.directory import (
    DEPTH_MAX,
    DirectoryUpdate,
    build,
    diff,
    diff_trees,
    empty_tree,
    entries,
    find,
    is_empty,
    lookup,
    referenced,
    update,
    walk,
)
from buckia.core.ids import BlobType, blob_id
from buckia.core.manifest import EMPTY, Branch, Subtree, decode_directory, encode_directory, summarise
from buckia.core.merkle import CUTS, LEVELS_MAX, Cuts, ListBuilder, check_cuts
from buckia.errors import FormatError
from tests.trees import TINY, B, MemoryNodes, entry, file, folder, numbered, tree_of


def leaves(nodes, tree, cuts=TINY):
    """The ids of the nodes of level 0 in order."""
    node = decode_directory(nodes.raw[tree.id], cuts=cuts)
    if node.level == 0:
        return [tree.id]
    return [id for branch in node.branches for id in leaves(nodes, branch.subtree, cuts)]


def test_the_cuts_of_the_format():
    assert (CUTS.minimum, CUTS.maximum, CUTS.threshold) == (32, 512, 44739242)
    assert not CUTS.ends(31, 0)
    assert CUTS.ends(32, 44739241)
    assert not CUTS.ends(511, 44739242)
    assert CUTS.ends(512, 2**32 - 1)


def test_nodes_have_the_mean_size_and_the_weight_is_that_of_the_spec():
    nodes = MemoryNodes()
    tree = build(nodes, numbered(20000))
    ids = leaves(nodes, tree, CUTS)
    assert 110 < 20000 / len(ids) < 146
    for id in ids[:-1]:
        node = decode_directory(nodes.raw[id])
        digest = blob_id(BlobType.DIRECTORY, node.items[-1].name)
        assert len(node.items) == 512 or int.from_bytes(digest[:4], "big") < 44739242


def test_levels_end_with_one_node_and_an_exact_end_adds_none():
    sealed = []

    def seal(level, items):
        sealed.append((level, tuple(items)))
        return len(sealed)

    builder = ListBuilder(seal, lambda level, item: 2**32 - 1, TINY)
    for number in range(64):
        builder.add(number)
    assert builder.finish() == (1, 9)
    assert [len(items) for _, items in sealed] == [8] * 9
    assert ListBuilder(seal, lambda level, item: 0, TINY).finish() is None


def test_more_levels_than_allowed_are_refused():
    def build_list(count):
        builder = ListBuilder(lambda level, items: 0, lambda level, item: 0, TINY)
        for number in range(count):
            builder.add(number)
        return builder.finish()

    fits = TINY.minimum**LEVELS_MAX
    assert build_list(fits) == (LEVELS_MAX - 1, 0)
    for count in (fits + 1, 2 * fits):
        with pytest.raises(FormatError, match="levels"):
            build_list(count)


def test_any_number_of_entries_is_built_in_little_memory():
    class Forgetful(MemoryNodes):
        def put(self, kind, raw):
            return blob_id(kind, raw)

    stream = (one for start in range(0, 40000, 100) for one in numbered(100, start))
    tracemalloc.start()
    tree = build(Forgetful(), stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tree.files == 40000
    assert peak < 8_000_000


def test_the_empty_directory():
    nodes = MemoryNodes()
    tree = empty_tree(nodes)
    assert nodes.raw[tree.id] == EMPTY
    assert tree == build(nodes, []) == update(nodes, tree.id, [])
    assert is_empty(tree)
    assert (tree.files, tree.bytes) == (0, 0)
    assert list(entries(nodes, tree.id)) == []
    assert find(nodes, tree.id, b"a") is None
    full = update(nodes, tree.id, [(b"a", entry(b"a", file()))])
    assert not is_empty(full)
    assert update(nodes, full.id, [(b"a", None)]) == tree


def test_one_change_reads_and_writes_one_node_per_level():
    nodes = MemoryNodes()
    tree = build(nodes, numbered(20000))
    levels = decode_directory(nodes.raw[tree.id]).level + 1
    nodes.forget_counts()
    changed = update(nodes, tree.id, [(b"07777", entry(b"07777", file(B, 2)))])
    assert len(nodes.reads) == len(nodes.writes) == levels
    nodes.forget_counts()
    assert len(list(diff(nodes, tree.id, changed.id))) == 1
    assert len(nodes.reads) == 2 * levels
    nodes.forget_counts()
    find(nodes, tree.id, b"07777")
    assert len(nodes.reads) == levels


def test_appending_touches_the_end_only():
    nodes = MemoryNodes()
    tree = build(nodes, numbered(20000))
    nodes.forget_counts()
    assert update(nodes, tree.id, [(b"99999", entry(b"99999", file()))]).files == 20001
    assert len(nodes.reads) <= 3


def test_an_update_without_changes_writes_nothing():
    nodes = MemoryNodes()
    tree = build(nodes, numbered(200), TINY)
    nodes.forget_counts()
    assert update(nodes, tree.id, [], TINY) == tree
    assert nodes.writes == []


def test_every_prefix_and_suffix_can_be_cut_off():
    nodes = MemoryNodes()
    everything = numbered(60)
    tree = build(nodes, everything, TINY)
    for keep in range(61):
        tail = update(nodes, tree.id, [(one.name, None) for one in everything[: 60 - keep]], TINY)
        assert tail == build(nodes, everything[60 - keep :], TINY)
        head = update(nodes, tree.id, [(one.name, None) for one in everything[keep:]], TINY)
        assert head == build(nodes, everything[:keep], TINY)


def test_an_update_shows_what_was_there_and_keeps_it():
    nodes = MemoryNodes()
    tree = build(nodes, numbered(50), TINY)
    writer = DirectoryUpdate(nodes, tree.id, TINY)
    assert writer.seek(b"00007") == numbered(1, 7)[0]
    assert writer.seek(b"00007x") is None
    assert writer.finish() == tree


def test_disorder_is_the_callers_mistake():
    nodes = MemoryNodes()
    one, two = numbered(2)
    with pytest.raises(ValueError, match="sorted"):
        build(nodes, [two, one])
    writer = DirectoryUpdate(nodes, None)
    writer.seek(b"b")
    with pytest.raises(ValueError, match="sorted"):
        writer.seek(b"b")
    with pytest.raises(ValueError, match="another name"):
        writer.set(one)


def test_paths_are_looked_up():
    nodes = MemoryNodes()
    tree = tree_of(nodes, {(b"a", b"b", b"c"): (file(),), (b"d",): (folder(),)})
    assert lookup(nodes, tree.id, (b"a", b"b", b"c"), TINY) == entry(b"c", file())
    assert lookup(nodes, tree.id, (b"a", b"b"), TINY).versions == ()
    assert lookup(nodes, tree.id, (b"d", b"x"), TINY) is None
    assert lookup(nodes, tree.id, (b"x", b"x"), TINY) is None


def test_whole_trees_skip_what_is_equal():
    nodes = MemoryNodes()
    one = tree_of(nodes, {(b"a", b"%d" % n): (file(),) for n in range(9)} | {(b"b", b"x"): (file(),)})
    two = tree_of(
        nodes, {(b"a", b"%d" % n): (file(),) for n in range(9)} | {(b"b", b"x"): (file(B),), (b"c",): (folder(),)}
    )
    same = lookup(nodes, one.id, (b"a",), TINY).subtree.id
    nodes.forget_counts()
    assert [path for path, _, _ in diff_trees(nodes, one, two, TINY)] == [(b"b", b"x"), (b"c",)]
    assert same not in nodes.reads
    assert [path for path, _ in walk(nodes, two.id, (b"top",), TINY)][-3:] == [
        (b"top", b"b"), (b"top", b"b", b"x"), (b"top", b"c"),
    ]  # fmt: skip


def nested(nodes, depth):
    tree = build(nodes, [entry(b"x", file())])
    for _ in range(depth - 1):
        tree = build(nodes, [entry(b"x", subtree=tree)])
    return tree


def test_depth_is_bounded():
    nodes = MemoryNodes()
    fits, deep = nested(nodes, DEPTH_MAX), nested(nodes, DEPTH_MAX + 1)
    assert len(list(walk(nodes, fits.id))) == len(list(diff_trees(nodes, None, fits))) == DEPTH_MAX
    assert len(list(referenced(nodes, fits.id, set()))) == DEPTH_MAX + 1
    for walker in (walk(nodes, deep.id), diff_trees(nodes, None, deep), referenced(nodes, deep.id, set())):
        with pytest.raises(FormatError, match="deep"):
            list(walker)


def test_a_tree_that_repeats_itself_is_listed_once():
    nodes = MemoryNodes()
    tree = build(nodes, [entry(b"x", file())])
    for _ in range(60):
        tree = build(nodes, [entry(b"x", subtree=tree), entry(b"y", subtree=tree)])
        if tree.files > 2**50:
            break
    assert len(list(referenced(nodes, tree.id, set()))) < 70


def forged(nodes, level, items):
    """A root whose items are not what they say."""
    return nodes.put(BlobType.DIRECTORY, encode_directory(level, items))


def branch(nodes, items, name=None, **changes):
    subtree = {"id": forged(nodes, 0, items)} | dict(
        zip(("content_hash", "files", "bytes"), summarise(0, items), strict=True)
    )
    return Branch(name or items[-1].name, Subtree(**(subtree | changes)))


def closed_leaf(start):
    """Entries that fill a node."""
    items = numbered(200, start)
    for count in range(TINY.minimum, 9):
        if TINY.ends(count, TINY.name_weight(0, items[count - 1])):
            assert not check_cuts(0, items[:1], TINY.name_weight, TINY)
            return items[:count]
    raise AssertionError


def test_walkers_refuse_nodes_that_are_not_what_was_said():
    nodes = MemoryNodes()
    one, two = closed_leaf(0), closed_leaf(50)
    good = forged(nodes, 1, [branch(nodes, one), branch(nodes, two)])
    assert list(entries(nodes, good, TINY)) == one + two
    wrong = {
        "ends too early": [branch(nodes, one[:1]), branch(nodes, two)],
        "not in order": [branch(nodes, closed_leaf(50)), branch(nodes, one[:1] + numbered(1, 90), None)],
        "stated": [branch(nodes, one), branch(nodes, two, name=b"99999")],
        "above one node": [branch(nodes, one)],
    }
    for message, items in wrong.items():
        root = forged(nodes, 1, items)
        with pytest.raises(FormatError, match=message):
            list(entries(nodes, root, TINY))
        with pytest.raises(FormatError, match=message):
            list(diff(nodes, None, root, TINY))
    deeper = forged(nodes, 2, [branch(nodes, one), branch(nodes, two)])
    with pytest.raises(FormatError, match="stated"):
        find(nodes, deeper, b"00000", TINY)


@pytest.mark.parametrize("change", [{"files": 1}, {"bytes": 1}, {"content_hash": b"x" * 32}])
def test_verification_finds_wrong_sums(change):
    nodes = MemoryNodes()
    one, two = closed_leaf(0), closed_leaf(50)
    root = forged(nodes, 1, [branch(nodes, one, **change), branch(nodes, two)])
    with pytest.raises(FormatError, match="sums"):
        list(referenced(nodes, root, set(), TINY))
    inner = forged(nodes, 0, [entry(b"x", subtree=branch(nodes, one, **change).subtree)])
    with pytest.raises(FormatError, match="sums"):
        list(referenced(nodes, inner, set(), TINY))


def test_a_node_that_should_have_ended_earlier_is_refused():
    items = closed_leaf(0)
    raw = encode_directory(0, items + numbered(1, 300))
    with pytest.raises(FormatError, match="not cut"):
        decode_directory(raw, cuts=TINY)
    ends = next(item for item in numbered(100, 10) if TINY.ends(2, TINY.name_weight(0, item)))
    first, then = (
        encode_directory(0, [*numbered(1), ends]),
        encode_directory(0, [*numbered(1), ends, *numbered(1, 300)]),
    )
    assert decode_directory(first, cuts=TINY).closed
    with pytest.raises(FormatError, match="not cut"):
        decode_directory(then, cuts=TINY)
    with pytest.raises(FormatError, match="allowed"):
        decode_directory(encode_directory(0, numbered(20)), cuts=Cuts(2, 2**31, 8))


def test_other_keys_cut_elsewhere():
    nodes = MemoryNodes()
    other = Cuts(2, 4, 8, (b"k" * 32, b"l" * 32, b"m" * 32))
    assert build(nodes, numbered(100), TINY).id != build(nodes, numbered(100), other).id
