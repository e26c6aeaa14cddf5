"""Merging: whatever devices write, delete and pull in whatever order, no write is lost and nothing that was replaced
comes back.

The merge is commutative, associative and idempotent down to the bytes of the tree. A model of plain sets says what a
tree must hold.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from buckia.core.directory import DirectoryUpdate, find, is_empty
from buckia.core.ids import DeviceId
from buckia.core.merge import edit_entry, join, merge_trees
from tests.trees import TINY, MemoryNodes, file, folder, tree_of

DEVICES = [DeviceId(bytes([number]) * 16) for number in range(4)]
PATHS = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3).map(tuple)
DEVICE = st.integers(0, len(DEVICES) - 1)
HEAD = st.integers(0, 60)


def edited(nodes, tree_id, path, supersede, version):
    """The directory after an edit at a path below it; None if nothing is left."""
    name, rest = path[0], path[1:]
    writer = DirectoryUpdate(nodes, tree_id, TINY)
    old = writer.seek(name)
    subtree = old.subtree if old else None
    if rest:
        subtree = edited(nodes, subtree and subtree.id, rest, supersede, version)
        writer.set(edit_entry(old, name, (), None, subtree))
    else:
        writer.set(edit_entry(old, name, supersede, version, subtree))
    tree = writer.finish()
    return None if is_empty(tree) else tree


class State:
    """What a device or a record holds: the product's tree, and the model's versions by path."""

    def __init__(self, known, tree, model):
        self.known, self.tree, self.model = known, tree, model


class Fleet(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.nodes = MemoryNodes()
        self.empty = tree_of(self.nodes, {})
        self.devices = [State({}, self.empty, {}) for _ in DEVICES]
        self.heads = [State({}, self.empty, {})]
        self.live = set()

    def merged(self, one, two):
        tree = merge_trees(self.nodes, one.tree, one.known, two.tree, two.known, TINY)
        model = {}
        for path in one.model.keys() | two.model.keys():
            a, b = one.model.get(path, set()), two.model.get(path, set())
            kept = (a & b) | {v for v in a - b if two.known.get(v.dot.device, 0) < v.dot.seq}
            kept |= {v for v in b - a if one.known.get(v.dot.device, 0) < v.dot.seq}
            if kept:
                model[path] = kept
        return State(join(one.known, two.known), tree, model)

    def write(self, number, path, superseded, version):
        """One edit of a device, under its next number."""
        state = self.devices[number]
        device = DEVICES[number]
        known = state.known | {device: state.known.get(device, 0) + 1}
        tree = edited(self.nodes, state.tree.id, path, {v.dot for v in superseded}, version) or self.empty
        model = dict(state.model)
        model[path] = (model.get(path, set()) - superseded) | ({version} if version else set())
        if not model[path]:
            del model[path]
        self.live -= {(path, v.dot) for v in superseded}
        if version:
            self.live.add((path, version.dot))
        self.devices[number] = State(known, tree, model)

    @rule(number=DEVICE, path=PATHS, value=st.integers(1, 3))
    def write_file(self, number, path, value):
        state = self.devices[number]
        version = file(DEVICES[number], state.known.get(DEVICES[number], 0) + 1, value)
        self.write(number, path, set(state.model.get(path, ())), version)

    @rule(number=DEVICE, path=PATHS)
    def make_directory(self, number, path):
        state = self.devices[number]
        version = folder(DEVICES[number], state.known.get(DEVICES[number], 0) + 1)
        self.write(number, path, set(state.model.get(path, ())), version)

    @rule(number=DEVICE, path=PATHS)
    def delete_with_all_below(self, number, path):
        for below in sorted(self.devices[number].model):
            if below[: len(path)] == path:
                self.write(number, below, set(self.devices[number].model[below]), None)

    @rule(number=DEVICE, path=PATHS)
    def choose_one_of_several(self, number, path):
        state = self.devices[number]
        versions = sorted(state.model.get(path, ()), key=lambda v: (v.dot.device, v.dot.seq))
        if len(versions) > 1:
            seq = state.known.get(DEVICES[number], 0) + 1
            self.write(number, path, set(versions), file(DEVICES[number], seq, versions[0].size + 1))

    @rule(number=DEVICE)
    def publish(self, number):
        self.heads.append(self.devices[number])

    @rule(number=DEVICE, head=HEAD)
    def pull(self, number, head):
        self.devices[number] = self.merged(self.devices[number], self.heads[head % len(self.heads)])

    @rule(one=HEAD, two=HEAD, three=HEAD)
    def the_laws_hold(self, one, two, three):
        a, b, c = (self.heads[number % len(self.heads)] for number in (one, two, three))
        assert self.merged(a, b).tree == self.merged(b, a).tree
        assert self.merged(self.merged(a, b), c).tree == self.merged(a, self.merged(b, c)).tree
        assert self.merged(a, a).tree == a.tree

    @invariant()
    def trees_hold_what_the_model_holds(self):
        for state in self.devices:
            expected = {path: tuple(sorted(versions, key=lambda v: v.dot)) for path, versions in state.model.items()}
            assert state.tree == tree_of(self.nodes, expected)

    @invariant()
    def no_write_is_lost_and_nothing_comes_back(self):
        all_of_them = self.devices[0]
        for state in self.devices[1:]:
            all_of_them = self.merged(all_of_them, state)
        found = {(path, v.dot) for path, versions in all_of_them.model.items() for v in versions}
        assert found == self.live
        assert all(self.holds(all_of_them.tree, path, dot) for path, dot in found)

    def holds(self, tree, path, dot):
        for name in path[:-1]:
            tree = find(self.nodes, tree.id, name, TINY).subtree
        return dot in {version.dot for version in find(self.nodes, tree.id, path[-1], TINY).versions}


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestFleet = Fleet.TestCase
