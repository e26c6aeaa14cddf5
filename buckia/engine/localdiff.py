"""How a snapshot differs from a directory on disk that no state knows."""

from __future__ import annotations

from buckia.core.chunker import Kernel
from buckia.core.directory import entries
from buckia.core.manifest import Kind, Subtree
from buckia.core.projection import Shown, project_directory
from buckia.engine.capture import Capture, IdsOnly
from buckia.errors import UsageError
from buckia.events import Difference
from buckia.local.fs import SPECIAL, DiskEntry, FileSystem
from buckia.local.paths import bucket_name, ours
from buckia.store.repository import Repository


def diff_with_disk(
    repository: Repository, files: FileSystem, tree: Subtree, directory: str, kernel: Kernel
) -> list[Difference]:
    """From the snapshot to the disk: ``added`` is on the disk only. Contents are compared by hash, sizes first."""
    present = files.stat(directory)
    if present is None or present.kind != Kind.DIRECTORY:
        raise UsageError(f"“{directory}” is no directory.")
    found: list[Difference] = []
    _DiskDiff(repository, files, Capture(files, IdsOnly(), kernel, None), found).compare(tree, directory, "")
    return found


class _DiskDiff:
    def __init__(self, repository: Repository, files: FileSystem, capture: Capture, found: list[Difference]) -> None:
        self._repo = repository
        self._files = files
        self._capture = capture
        self._found = found

    def compare(self, tree: Subtree | None, where: str, prefix: str) -> None:
        """One directory; ``where`` is its absolute path, ``prefix`` its path in the folder with a slash."""
        shown = {}
        subtrees = {}
        if tree is not None:
            listed = list(entries(self._repo.nodes, tree.id))
            shown = {item.name.decode(): item for item in project_directory(listed)}
            subtrees = {entry.name: entry.subtree for entry in listed}
        disk = {}
        for raw in self._files.scan(where):
            entry = DiskEntry(*raw)
            if entry.kind != SPECIAL and not ours(entry.name, top=not prefix) and bucket_name(entry.name) is not None:
                disk[entry.name] = entry
        for name in sorted(shown.keys() | disk.keys()):
            item, present = shown.get(name), disk.get(name)
            self._one(prefix + name, f"{where}/{name}", item, present)
            below = subtrees.get(item.entry_name) if item is not None and item.kind == Kind.DIRECTORY else None
            if present is not None and present.kind == Kind.DIRECTORY:
                self.compare(below, f"{where}/{name}", f"{prefix}{name}/")
            elif below is not None:
                self._all_removed(below, f"{prefix}{name}/")

    def _one(self, path: str, where: str, item: Shown | None, present: DiskEntry | None) -> None:
        before = item.versions[0].size if item is not None and item.kind != Kind.DIRECTORY else None
        after = present.size if present is not None and present.kind != Kind.DIRECTORY else None
        if item is None or present is None:
            self._found.append(Difference(path, "added" if item is None else "removed", before, after))
        elif item.kind != present.kind:
            self._found.append(Difference(path, "type", before, after))
        elif item.kind != Kind.DIRECTORY:
            version = item.versions[0]
            if version.size != present.size or not self._capture.read(where, path).value.matches(version):
                self._found.append(Difference(path, "modified", before, after))

    def _all_removed(self, tree: Subtree, prefix: str) -> None:
        for entry in entries(self._repo.nodes, tree.id):
            for item in project_directory([entry]):
                size = item.versions[0].size if item.kind != Kind.DIRECTORY else None
                self._found.append(Difference(prefix + item.name.decode(), "removed", size, None))
            if entry.subtree is not None:
                self._all_removed(entry.subtree, f"{prefix}{entry.name.decode()}/")
