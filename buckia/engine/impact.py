"""What depends on damaged objects: which snapshots, and which paths in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from buckia.core.content import ChunkNode, decode_chunks
from buckia.core.directory import Path
from buckia.core.ids import BlobId, BlobType
from buckia.core.manifest import Entry, FileContent, Node, decode_directory
from buckia.core.merkle import NodeStore
from buckia.engine.history import to_text
from buckia.errors import BuckiaError, FormatError, IntegrityError

PATHS_MAX = 20
"""So many paths are named of all that one object's damage affects."""


class Impact:
    """Explores the trees of snapshots: every node is read once, and past those that cannot be read it goes on.

    ``culprit`` names the object whose damage makes a blob impossible to get, if there is one; ``unreadable`` is told of
    nodes that turn out to be bad, and names the object that holds them.
    """

    def __init__(
        self,
        nodes: NodeStore,
        culprit: Callable[[BlobType, BlobId], str | None],
        unreadable: Callable[[BlobType, BlobId, BuckiaError], str],
    ) -> None:
        self._nodes = nodes
        self._culprit = culprit
        self._unreadable = unreadable
        self._named_by: dict[BlobId, list[BlobId]] = {}
        self._bad: dict[BlobId, str] = {}
        self._starts: dict[str, set[BlobId]] = {}
        self._reach: dict[str, set[BlobId]] = {}

    def explore(self, root: BlobId) -> None:
        """Read what was not read yet of a tree."""
        pending = [(BlobType.DIRECTORY, root)]
        self._named_by.setdefault(root, [])
        while pending:
            kind, node = pending.pop()
            key = self._culprit(kind, node)
            try:
                below = _below(self._open(kind, node))
            except (IntegrityError, FormatError) as error:
                key = key or self._unreadable(kind, node, error)
                below = []
            if key is not None:
                self._bad[node] = key
                self._starts.setdefault(key, set()).add(node)
            for kind_below, blob in below:
                if kind_below == BlobType.CHUNK:
                    lost = self._culprit(kind_below, blob)
                    if lost is not None:
                        self._bad[blob] = lost
                        self._starts.setdefault(lost, set()).add(node)
                    continue
                if blob not in self._named_by:
                    pending.append((kind_below, blob))
                self._named_by.setdefault(blob, []).append(node)

    def objects(self) -> Iterable[str]:
        """The objects whose damage matters."""
        return self._starts.keys()

    def reaches(self, key: str, root: BlobId) -> bool:
        """Whether a tree needs a damaged object."""
        return root in self._reached(key)

    def paths(self, key: str, roots: Iterable[BlobId]) -> list[str]:
        """Up to `PATHS_MAX` paths in these trees that need a damaged object: a directory's own where what is in it
        cannot be known.
        """
        found: dict[str, None] = {}
        visited: set[tuple[Path, BlobId]] = set()
        pending: list[tuple[Path, BlobId]] = []
        pending += [((), root) for root in reversed([*roots])]
        while pending and len(found) < PATHS_MAX:
            path, directory = pending.pop()
            if (path, directory) in visited or directory not in self._reached(key):
                continue
            visited.add((path, directory))
            if self._bad.get(directory) == key:
                found[to_text(path) or "."] = None
            try:
                node = self._open(BlobType.DIRECTORY, directory)
            except (IntegrityError, FormatError):
                continue
            if isinstance(node, Node) and node.level:
                pending += [(path, branch.subtree.id) for branch in reversed(node.branches)]
            elif isinstance(node, Node):
                for entry in node.entries:
                    here = (*path, entry.name)
                    if any(self._needs(key, blob) for _, blob in _contents(entry)):
                        found[to_text(here)] = None
                    if entry.subtree is not None:
                        pending.append((here, entry.subtree.id))
        return list(found)[:PATHS_MAX]

    def _needs(self, key: str, blob: BlobId) -> bool:
        return self._bad.get(blob) == key or blob in self._reached(key)

    def _reached(self, key: str) -> set[BlobId]:
        """The nodes from which a damaged object can be reached."""
        reached = self._reach.get(key)
        if reached is None:
            reached = self._reach[key] = set()
            pending = list(self._starts.get(key, ()))
            while pending:
                node = pending.pop()
                if node not in reached:
                    reached.add(node)
                    pending += self._named_by.get(node, ())
        return reached

    def _open(self, kind: BlobType, node: BlobId) -> Node | ChunkNode:
        raw = self._nodes.get(kind, node)
        return decode_chunks(raw) if kind == BlobType.CHUNK_LIST else decode_directory(raw)


def _contents(entry: Entry) -> Iterator[tuple[BlobType, BlobId]]:
    """What an entry's versions refer to."""
    for version in entry.versions:
        content = version.content
        if isinstance(content, FileContent) and version.size:
            yield BlobType.CHUNK_LIST if content.depth else BlobType.CHUNK, content.id


def _below(node: Node | ChunkNode) -> list[tuple[BlobType, BlobId]]:
    """What a node refers to."""
    if isinstance(node, ChunkNode):
        kind = BlobType.CHUNK_LIST if node.level else BlobType.CHUNK
        return [(kind, blob) for blob, _, _ in node.items]
    if node.level:
        return [(BlobType.DIRECTORY, branch.subtree.id) for branch in node.branches]
    found = [item for entry in node.entries for item in _contents(entry)]
    return found + [(BlobType.DIRECTORY, entry.subtree.id) for entry in node.entries if entry.subtree is not None]
