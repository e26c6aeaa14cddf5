"""Merging two states: each case of `specs/merge.md`, how little is read, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from buckia.core.directory import DEPTH_MAX, build, empty_tree, lookup, update, walk
from buckia.core.manifest import Digest
from buckia.core.merge import covers, edit_entry, join, knows, merge_trees, merge_versions
from buckia.errors import ForkError, FormatError
from tests.trees import TINY, A, B, C, MemoryNodes, entry, file, folder, numbered, tree_of

P = (b"p",)


def merged(one, one_known, two, two_known):
    """What the merge of two trees, given as paths, holds; both ways round."""
    nodes = MemoryNodes()
    a, b = tree_of(nodes, one), tree_of(nodes, two)
    tree = merge_trees(nodes, a, one_known, b, two_known, TINY)
    assert tree == merge_trees(nodes, b, two_known, a, one_known, TINY)
    return {path: item.versions for path, item in walk(nodes, tree.id, (), TINY) if item.versions}


def test_knowledge():
    assert knows({A: 3}, file(A, 3).dot)
    assert not knows({A: 3}, file(A, 4).dot)
    assert not knows({}, file(A, 1).dot)
    assert covers({A: 3, B: 1}, {A: 2})
    assert not covers({A: 3}, {A: 2, B: 1})
    assert join({A: 3, B: 1}, {A: 2, C: 4}) == {A: 3, B: 1, C: 4}


def test_writes_at_different_paths_meet():
    assert merged({(b"x",): (file(A),)}, {A: 1}, {(b"y",): (file(B),)}, {B: 1}) == {
        (b"x",): (file(A),),
        (b"y",): (file(B),),
    }


def test_a_later_write_replaces_what_it_saw():
    assert merged({P: (file(A, 1),)}, {A: 1, C: 1}, {P: (file(B, 1, 2),)}, {A: 1, B: 1}) == {P: (file(B, 1, 2),)}


def test_concurrent_writes_are_siblings():
    assert merged({P: (file(A, 2),)}, {A: 2}, {P: (file(B, 1, 2),)}, {A: 1, B: 1}) == {P: (file(A, 2), file(B, 1, 2))}


def test_a_deletion_removes_what_it_saw():
    assert merged({P: (file(A, 1),)}, {A: 1, C: 1}, {}, {A: 1, B: 1}) == {}


def test_an_edit_wins_over_a_concurrent_deletion():
    assert merged({P: (file(A, 2),)}, {A: 2}, {}, {A: 1, B: 1}) == {P: (file(A, 2),)}


def test_criss_cross():
    # A and B wrote; each merged with the other; A chose, B edited something else: the choice stands.
    chosen, other = file(A, 2, 3), file(B, 2, 4)
    both = (file(A, 1), file(B, 1))
    result = merged({P: (chosen,)}, {A: 2, B: 1}, {P: both, (b"q",): (other,)}, {A: 1, B: 2})
    assert result == {P: (chosen,), (b"q",): (other,)}


def test_a_directory_deleted_while_a_child_is_added():
    one = {P: (folder(A, 1),), (b"p", b"new"): (file(A, 2),)}
    assert merged(one, {A: 2}, {}, {A: 1, B: 1}) == {(b"p", b"new"): (file(A, 2),)}


def test_a_file_and_a_directory_at_one_path():
    one, two = {P: (file(A, 1),)}, {P: (folder(B, 1),), (b"p", b"x"): (file(B, 1),)}
    assert merged(one, {A: 1}, two, {B: 1}) == {P: (file(A, 1), folder(B, 1)), (b"p", b"x"): (file(B, 1),)}


def test_everything_deleted_on_both_sides_is_the_empty_directory():
    nodes = MemoryNodes()
    one, two = tree_of(nodes, {(b"x", b"y"): (file(A, 1),)}), tree_of(nodes, {P: (file(B, 1),)})
    assert merge_trees(nodes, one, {A: 1, B: 1}, two, {A: 1, B: 1, C: 1}, TINY) == two
    assert merge_trees(nodes, one, {A: 1, B: 1, C: 1}, two, {A: 2, B: 1}, TINY) == empty_tree(nodes)


def test_a_state_that_includes_the_other_is_the_result_unread():
    nodes = MemoryNodes()
    one, two = tree_of(nodes, {P: (file(A, 1),)}), tree_of(nodes, {P: (file(A, 2),)})
    nodes.forget_counts()
    assert merge_trees(nodes, one, {A: 1}, two, {A: 2}, TINY) == two
    assert merge_trees(nodes, two, {A: 2}, one, {A: 1}, TINY) == two
    assert merge_trees(nodes, one, {A: 1}, one, {B: 1}, TINY) == one
    assert nodes.reads == []


def test_only_what_differs_is_read():
    nodes = MemoryNodes()
    big = build(nodes, numbered(20000))
    base = build(nodes, [entry(b"big", subtree=big), entry(b"x", file(A, 1)), entry(b"y", file(A, 1))])
    one = update(nodes, base.id, [(b"x", entry(b"x", file(A, 2)))])
    two = update(nodes, base.id, [(b"y", entry(b"y", file(B, 1)))])
    nodes.forget_counts()
    tree = merge_trees(nodes, one, {A: 2}, two, {A: 1, B: 1})
    assert big.id not in nodes.reads
    assert len(nodes.reads) <= 4
    assert lookup(nodes, tree.id, (b"big", b"00001")) == numbered(1, 1)[0]
    assert tree.files == 20002


@pytest.mark.parametrize("other", [file(A, 1, 2), file(A, 1, 1, 5), replace(file(A, 1), digest=Digest(2, b"d" * 16))])
def test_unequal_versions_under_one_dot_are_a_fork(other):
    with pytest.raises(ForkError, match="p/q: Device 6161"):
        merged({(b"p", b"q"): (file(A, 1),)}, {A: 1, B: 1}, {(b"p", b"q"): (other,)}, {A: 1, C: 1})


def test_equal_knowledge_with_unequal_trees_is_a_fork():
    with pytest.raises(ForkError):
        merged({P: (file(A, 1),)}, {A: 2}, {}, {A: 2})


def test_versions_come_out_sorted_whatever_the_order():
    one, two = [file(C, 1), file(A, 2)], [file(B, 1)]
    assert merge_versions(one, two, {}, {}) == merge_versions(two, one[::-1], {}, {}) == (
        file(A, 2), file(B, 1), file(C, 1),
    )  # fmt: skip


def test_directories_deeper_than_the_format_allows_are_refused():
    nodes = MemoryNodes()
    deep, fits = build(nodes, [entry(b"x", file(A, 1))]), None
    for depth in range(2, DEPTH_MAX + 2):
        fits, deep = deep, build(nodes, [entry(b"x", subtree=deep)])
        assert depth <= DEPTH_MAX + 1
    other = build(nodes, [entry(b"y", file(B, 1))])
    assert merge_trees(nodes, fits, {A: 1}, other, {B: 1}).files == 2
    with pytest.raises(FormatError, match="deep"):
        merge_trees(nodes, deep, {A: 1}, other, {B: 1})


def test_a_tree_that_repeats_itself_is_merged_once():
    nodes = MemoryNodes()
    tree = build(nodes, [entry(b"x", file(A, 1))])
    for _ in range(40):
        tree = build(nodes, [entry(b"x", subtree=tree), entry(b"y", subtree=tree)])
    other = build(nodes, [entry(b"z", file(B, 1))])
    nodes.forget_counts()
    assert merge_trees(nodes, tree, {A: 1}, other, {B: 1}).files == 2**40 + 1
    assert len(nodes.reads) < 200


def test_edits_of_an_entry():
    old = entry(b"p", file(A, 1), file(B, 1, 2))
    subtree = build(MemoryNodes(), numbered(1))
    assert edit_entry(None, b"p", (), file(A, 1), None) == entry(b"p", file(A, 1))
    assert edit_entry(old, b"p", [file(A, 1).dot], file(C, 1), None) == entry(b"p", file(B, 1, 2), file(C, 1))
    assert edit_entry(old, b"p", [one.dot for one in old.versions], None, None) is None
    assert edit_entry(old, b"p", [one.dot for one in old.versions], None, subtree) == entry(b"p", subtree=subtree)
    with pytest.raises(ValueError, match="twice"):
        edit_entry(old, b"p", (), file(A, 1, 9), None)
