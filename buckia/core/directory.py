"""Directories as Merkle lists of entries: read, search, build, update and compare them; walk whole trees.

Nodes that need not be read are not. What is read is checked: order, cuts, and what the node above said. See
``specs/format.md``, section 9.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NoReturn, cast

from buckia.core import content
from buckia.core.ids import BlobId, BlobType
from buckia.core.manifest import (
    EMPTY,
    EMPTY_CONTENT,
    Branch,
    Entry,
    FileContent,
    Node,
    Subtree,
    decode_directory,
    encode_directory,
    id_of,
    subtree_of,
    summarise,
)
from buckia.core.merkle import CUTS, Cuts, ListBuilder, NodeStore
from buckia.errors import FormatError, IntegrityError

DEPTH_MAX = 128
"""The components of a path."""

ENTRIES_MAX = 50_000_000
"""The entries of a tree, counted by path."""

Path = tuple[bytes, ...]

_name = attrgetter("name")


def empty_tree(nodes: NodeStore) -> Subtree:
    """The empty directory, as it stands at a folder's top."""
    return Subtree(nodes.put(BlobType.DIRECTORY, EMPTY), EMPTY_CONTENT, 0, 0)


def is_empty(tree: Subtree) -> bool:
    """Whether a directory has no entries. Below the top its entry has no subtree then."""
    return tree.content_hash == EMPTY_CONTENT


def entries(nodes: NodeStore, id: BlobId, cuts: Cuts = CUTS) -> Iterator[Entry]:
    """The entries of a directory in order."""
    cursor = _Cursor(nodes, id, cuts)
    while (head := cursor.head()) is not None:
        if isinstance(head, _Ref):
            cursor.expand()
        else:
            yield from cursor.take_leaf()


def find(nodes: NodeStore, id: BlobId, name: bytes, cuts: Cuts = CUTS) -> Entry | None:
    """The entry with this name. Reads one node per level."""
    ref = _root(nodes, id, cuts)
    while True:
        node = ref.open(nodes, cuts)
        number = bisect_left(node.items, name, key=_name)
        if number == len(node.items):
            return None
        if node.level == 0:
            entry = node.entries[number]
            return entry if entry.name == name else None
        ref = ref.child(node, number)


def lookup(nodes: NodeStore, root: BlobId, path: Sequence[bytes], cuts: Cuts = CUTS) -> Entry | None:
    """The entry at a path of at least one component, below the directory ``root``."""
    entry: Entry | None = None
    id: BlobId | None = root
    for name in path:
        if id is None or (entry := find(nodes, id, name, cuts)) is None:
            return None
        id = None if entry.subtree is None else entry.subtree.id
    return entry


def build(nodes: NodeStore, items: Iterable[Entry], cuts: Cuts = CUTS) -> Subtree:
    """Writes a directory with these entries, sorted by name. Holds a few nodes only, whatever their number."""
    builder = _builder(nodes, cuts)
    previous = b""
    for entry in items:
        if entry.name <= previous:
            raise ValueError("entries are not sorted by name")
        previous = entry.name
        builder.add(entry)
    root = builder.finish()
    return empty_tree(nodes) if root is None else root[1].subtree


def update(
    nodes: NodeStore, id: BlobId | None, changes: Iterable[tuple[bytes, Entry | None]], cuts: Cuts = CUTS
) -> Subtree:
    """Writes the directory that results from replacing (or removing: None) entries, sorted by name.

    Equal to ``build`` of the whole. Reads and writes only the nodes that differ and their neighbours. Without entries
    it is the empty directory: see ``is_empty``.
    """
    writer = DirectoryUpdate(nodes, id, cuts)
    for name, entry in changes:
        writer.seek(name)
        writer.set(entry)
    return writer.finish()


class DirectoryUpdate:
    """An update under way: ``seek`` a name, ``set`` what shall stand there, go on with a greater name, ``finish``."""

    def __init__(self, nodes: NodeStore, id: BlobId | None, cuts: Cuts = CUTS) -> None:
        self._nodes = nodes
        self._cuts = cuts
        self._old = _Cursor(nodes, id, cuts)
        self._new = _builder(nodes, cuts)
        self._name = b""
        self._entry: Entry | None = None

    def seek(self, name: bytes) -> Entry | None:
        """Goes to a name, which is greater than the one before, and returns the old entry. It stays unless ``set``
        replaces it.
        """
        if name <= self._name:
            raise ValueError("changes are not sorted by name")
        self._settle()
        self._name = name
        old, new = self._old, self._new
        while (head := old.head()) is not None:
            if isinstance(head, _Ref):
                if head.branch is not None and head.name < name and not head.last and new.aligned(head.level):
                    new.add_node(head.level, head.branch)
                    old.skip()
                else:
                    old.expand()
            elif head.name < name:
                new.add(head)
                old.skip()
            else:
                if head.name == name:
                    self._entry = head
                    old.skip()
                break
        return self._entry

    def set(self, entry: Entry | None) -> None:
        """Puts an entry (None: nothing) at the name that was sought."""
        if entry is not None and entry.name != self._name:
            raise ValueError("an entry is set under another name")
        self._entry = entry

    def finish(self) -> Subtree:
        """Writes the rest and returns the new directory."""
        head = self._old.head()
        if isinstance(head, _Ref) and head.node is not None and not self._name:
            return _branch_of(head.id, head.node).subtree  # nothing was sought
        self._settle()
        old, new = self._old, self._new
        reused: BlobId | None = None
        while (head := old.head()) is not None:
            if not isinstance(head, _Ref):
                new.add(head)
                old.skip()
            elif head.branch is not None and new.aligned(head.level):
                new.add_node(head.level, head.branch)
                reused = head.id
                old.skip()
            else:
                old.expand()
        root = new.finish()
        if root is None:
            return empty_tree(self._nodes)
        tree = root[1].subtree
        return self._collapse(tree) if root[0] and tree.id == reused else tree

    def _settle(self) -> None:
        if self._entry is not None:
            self._new.add(self._entry)
            self._entry = None

    def _collapse(self, tree: Subtree) -> Subtree:
        """The lowest node that holds all: a reused last node may be a chain."""
        while True:
            node = decode_directory(self._nodes.get(BlobType.DIRECTORY, tree.id), cuts=self._cuts)
            if node.level == 0 or len(node.items) > 1:
                return tree
            tree = node.branches[0].subtree


def diff(
    nodes: NodeStore, a: BlobId | None, b: BlobId | None, cuts: Cuts = CUTS
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The entries in which two directories differ, sorted by name, of ``a`` and of ``b``. Equal nodes are not read."""
    if a == b:
        return
    left, right = _Cursor(nodes, a, cuts), _Cursor(nodes, b, cuts)
    while True:
        one, two = left.head(), right.head()
        if isinstance(one, _Ref):
            if isinstance(two, _Ref):
                if one.id == two.id:
                    left.skip()
                    right.skip()
                    continue
                if two.level >= one.level:
                    right.expand()
                    continue
            left.expand()
        elif isinstance(two, _Ref):
            right.expand()
        elif one is not None and (two is None or one.name < two.name):
            left.skip()
            yield one, None
        elif two is not None and (one is None or two.name < one.name):
            right.skip()
            yield None, two
        elif one is None:
            return
        else:
            left.skip()
            right.skip()
            if one != two:
                yield one, two


# -- whole trees


def walk(nodes: NodeStore, id: BlobId, prefix: Path = (), cuts: Cuts = CUTS) -> Iterator[tuple[Path, Entry]]:
    """All entries below a directory that lies at ``prefix``, each directory before what is in it, in the order of
    names.

    Raises ``FormatError`` for paths deeper than ``DEPTH_MAX`` and trees of more than ``ENTRIES_MAX`` entries.
    """
    stack: list[tuple[Path, Iterator[Entry]]] = [(prefix, entries(nodes, id, cuts))]
    count = 0
    while stack:
        path, items = stack[-1]
        entry = next(items, None)
        if entry is None:
            stack.pop()
            continue
        count += 1
        if count > ENTRIES_MAX:
            _bad(f"a tree of more than {ENTRIES_MAX} entries")
        here = (*path, entry.name)
        yield here, entry
        if entry.subtree is not None:
            check_depth(here)
            stack.append((here, entries(nodes, entry.subtree.id, cuts)))


def diff_trees(
    nodes: NodeStore, a: Subtree | None, b: Subtree | None, cuts: Cuts = CUTS
) -> Iterator[tuple[Path, Entry | None, Entry | None]]:
    """The paths at which versions differ or one side has no entry, in the order of ``walk``. Equal directories are not
    read.
    """
    stack: list[tuple[Path, Iterator[tuple[Entry | None, Entry | None]]]] = [
        ((), diff(nodes, id_of(a), id_of(b), cuts))
    ]
    count = 0
    while stack:
        path, pairs = stack[-1]
        pair = next(pairs, None)
        if pair is None:
            stack.pop()
            continue
        count += 1
        if count > ENTRIES_MAX:
            _bad(f"a difference of more than {ENTRIES_MAX} entries")
        one, two = pair
        here = (*path, cast(Entry, one or two).name)
        if one is None or two is None or one.versions != two.versions:
            yield here, one, two
        left, right = id_of(subtree_of(one)), id_of(subtree_of(two))
        if left != right:
            check_depth(here)
            stack.append((here, diff(nodes, left, right, cuts)))


def referenced(
    nodes: NodeStore, id: BlobId, seen: set[BlobId], cuts: Cuts = CUTS, *, skip: content.Skip | None = None
) -> Iterator[tuple[BlobType, BlobId]]:
    """Every node and chunk of a tree that is not in ``seen``, to which they are added; what lies below a seen node is
    skipped.

    A node is yielded before it is read; then all that is said of it is checked, sums and content hashes too. A node
    that cannot be read, or is malformed, raises; with ``skip`` that is told, and the walk goes on beside it.
    """
    if id in seen:
        return
    seen.add(id)
    yield BlobType.DIRECTORY, id
    stack: list[tuple[BlobId, _Ref | None, Subtree | None, int]] = [(id, None, None, 1)]
    while stack:
        name, part, stated, depth = stack.pop()
        try:
            ref = _root(nodes, name, cuts) if part is None else part
            node = ref.open(nodes, cuts)
            if stated is not None and _branch_of(ref.id, node).subtree != stated:
                _bad("the sums or the content hash of a directory are not what was stated")
        except (FormatError, IntegrityError) as error:
            if skip is None:
                raise
            skip(error)
            continue
        below: list[tuple[BlobId, _Ref | None, Subtree | None, int]] = []
        if node.level:
            for number, branch in enumerate(node.branches):
                if branch.subtree.id not in seen:
                    seen.add(branch.subtree.id)
                    yield BlobType.DIRECTORY, branch.subtree.id
                    child = ref.child(node, number)
                    below.append((child.id, child, branch.subtree, depth))
        for entry in () if node.level else node.entries:
            for version in entry.versions:
                if isinstance(version.content, FileContent):
                    yield from content.blobs(nodes, version.content, version.size, seen, cuts, skip=skip)
            tree = entry.subtree
            if tree is not None and tree.id not in seen:
                if depth == DEPTH_MAX:
                    _bad(f"directories are nested more than {DEPTH_MAX} deep")
                seen.add(tree.id)
                yield BlobType.DIRECTORY, tree.id
                below.append((tree.id, None, tree, depth + 1))
        stack.extend(reversed(below))


def check_depth(path: Path) -> None:
    """Raises ``FormatError`` if nothing may lie below this path."""
    if len(path) >= DEPTH_MAX:
        _bad(f"directories are nested more than {DEPTH_MAX} deep")


# -- nodes in order


@dataclass(frozen=True, slots=True)
class _Ref:
    """A node in a directory, read or not, and what it must be.

    ``name`` is its last name, and its first is greater than ``floor``. ``last``: nothing follows it at its level. Only
    the root has no ``branch``.
    """

    level: int
    id: BlobId
    name: bytes
    floor: bytes
    last: bool
    branch: Branch | None
    node: Node | None = None

    def open(self, nodes: NodeStore, cuts: Cuts) -> Node:
        """Reads the node and checks that it is what it must be."""
        if self.node is not None:
            return self.node
        node = decode_directory(nodes.get(BlobType.DIRECTORY, self.id), cuts=cuts)
        if node.level != self.level or not node.items or node.items[-1].name != self.name:
            _bad("a node is not the one that was stated")
        if node.items[0].name <= self.floor:
            _bad("nodes are not in order")
        if not node.closed and not self.last:
            _bad("a node ends too early")
        return node

    def child(self, node: Node, number: int) -> _Ref:
        """The node that item ``number`` of this one stands for."""
        branch = node.branches[number]
        floor = node.branches[number - 1].name if number else self.floor
        last = self.last and number == len(node.items) - 1
        return _Ref(node.level - 1, branch.subtree.id, branch.name, floor, last, branch)


class _Cursor:
    """A place in a directory; ``head`` is what comes next: an entry, or a node that was not opened."""

    def __init__(self, nodes: NodeStore, id: BlobId | None, cuts: Cuts) -> None:
        self._nodes = nodes
        self._cuts = cuts
        self._refs = [] if id is None else [_root(nodes, id, cuts)]
        self._leaf: tuple[Entry, ...] = ()
        self._next = 0

    def head(self) -> Entry | _Ref | None:
        """What comes next; None at the end."""
        if self._next < len(self._leaf):
            return self._leaf[self._next]
        return self._refs[-1] if self._refs else None

    def skip(self) -> None:
        """Goes past the head."""
        if self._next < len(self._leaf):
            self._next += 1
        else:
            self._refs.pop()

    def expand(self) -> None:
        """Replaces the head, a node, by what is in it."""
        ref = self._refs.pop()
        node = ref.open(self._nodes, self._cuts)
        if node.level:
            self._refs.extend(ref.child(node, number) for number in reversed(range(len(node.items))))
        else:
            self._leaf = node.entries
            self._next = 0

    def take_leaf(self) -> tuple[Entry, ...]:
        """The entries of the open node, past which it goes."""
        leaf = self._leaf[self._next :]
        self._next = len(self._leaf)
        return leaf


def _root(nodes: NodeStore, id: BlobId, cuts: Cuts) -> _Ref:
    node = decode_directory(nodes.get(BlobType.DIRECTORY, id), cuts=cuts)
    if node.level and len(node.items) < 2:
        _bad("a root above one node")
    name = node.items[-1].name if node.items else b""
    return _Ref(node.level, id, name, b"", True, None, node)


def _branch_of(id: BlobId, node: Node) -> Branch:
    content_hash, files, size = summarise(node.level, node.items)
    return Branch(node.items[-1].name if node.items else b"", Subtree(id, content_hash, files, size))


def _builder(nodes: NodeStore, cuts: Cuts) -> ListBuilder[Entry, Branch]:
    def seal(level: int, items: Sequence[Entry | Branch]) -> Branch:
        same = cast(Sequence[Entry], items)  # of one level, so of one kind
        id = nodes.put(BlobType.DIRECTORY, encode_directory(level, same))
        return Branch(items[-1].name, Subtree(id, *summarise(level, same)))

    return ListBuilder(seal, cuts.name_weight, cuts)


def _bad(why: str) -> NoReturn:
    raise FormatError(f"A directory is malformed: {why}.")
