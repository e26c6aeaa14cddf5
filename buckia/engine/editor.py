"""Edits to a folder's tree, directory by directory: nothing but the open directories is held in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from buckia.core.directory import DirectoryUpdate, Path, empty_tree, find, is_empty
from buckia.core.ids import Dot
from buckia.core.manifest import Entry, Kind, Subtree, Version
from buckia.core.merge import edit_entry
from buckia.core.merkle import NodeStore


@dataclass(slots=True)
class _Open:
    """A directory that edits go to: its node before, and what changes in it."""

    name: bytes
    subtree: Subtree | None
    edits: dict[bytes, tuple[Collection[Dot], Version | None]] = field(default_factory=dict)
    below: dict[bytes, Subtree | None] = field(default_factory=dict)


class TreeEditor:
    """Applies edits in depth-first order of their paths: all edits in a directory and below it come without others
    between.

    ``finish`` returns the new tree.
    """

    def __init__(self, nodes: NodeStore, tree: Subtree) -> None:
        self._nodes = nodes
        self._top = tree
        self.turned: set[Path] = set()
        """Directories with a name that is a directory no more, or only now, without anybody's having said so of the
        name itself.
        """
        self._open = [_Open(b"", tree)]

    def edit(self, path: Path, supersede: Collection[Dot], version: Version | None) -> None:
        """Remove the superseded dots from a path's versions and add a version, if one is given."""
        self._move_to(path[:-1])
        self._open[-1].edits[path[-1]] = (supersede, version)

    def finish(self) -> Subtree:
        """Close all directories; the tree with all edits applied."""
        self._move_to(())
        return self._write((), self._open[0]) or empty_tree(self._nodes)

    def _move_to(self, path: Path) -> None:
        depth = 0
        while depth < len(path) and depth + 1 < len(self._open) and self._open[depth + 1].name == path[depth]:
            depth += 1
        while len(self._open) > depth + 1:
            where = tuple(directory.name for directory in self._open[1:])
            closed = self._open.pop()
            self._open[-1].below[closed.name] = self._write(where, closed)
        for name in path[depth:]:
            inside = self._open[-1]
            if name in inside.below:
                tree = inside.below[name]
            else:
                entry = find(self._nodes, inside.subtree.id, name) if inside.subtree is not None else None
                tree = entry.subtree if entry is not None else None
            self._open.append(_Open(name, tree))

    def _write(self, path: Path, directory: _Open) -> Subtree | None:
        """The directory with its edits; None if nothing is left in it."""
        if not directory.edits and not directory.below:
            return directory.subtree
        update = DirectoryUpdate(self._nodes, directory.subtree.id if directory.subtree is not None else None)
        for name in sorted(directory.edits.keys() | directory.below.keys()):
            old = update.seek(name)
            before = old.subtree if old is not None else None
            tree = directory.below.get(name, before)
            supersede, version = directory.edits.get(name, ((), None))
            new = edit_entry(old, name, supersede, version, tree)
            update.set(new)
            if (before is None) != (tree is None) and not (new is not None and _is_made(new)):
                self.turned.add(path)
        tree = update.finish()
        return None if is_empty(tree) else tree


def _is_made(entry: Entry) -> bool:
    """Whether somebody made a directory of this name."""
    return any(version.kind == Kind.DIRECTORY for version in entry.versions)
