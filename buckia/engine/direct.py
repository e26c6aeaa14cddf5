"""Single files without a local tree: one file put into, or removed from, a folder."""

from __future__ import annotations

from buckia.core.directory import Path, lookup
from buckia.core.ids import Dot
from buckia.core.manifest import Entry, Kind, Version, is_directory
from buckia.engine.capture import Capture
from buckia.engine.compare import dots_of
from buckia.engine.context import Settings
from buckia.engine.editor import TreeEditor
from buckia.engine.history import to_path, to_text
from buckia.errors import IntegrityError, NotFoundError, UsageError
from buckia.local.fs import FileSystem
from buckia.local.paths import Platform, path_problem
from buckia.store.journal import Linked
from buckia.store.repository import Repository


def put_file(repository: Repository, files: FileSystem, source: str, remote: str, settings: Settings) -> Linked:
    """Commit one local file (absolute path ``source``) as the current version of a path. Raises UsageError for a path
    that cannot be.
    """
    path = to_path(remote)
    problem = path_problem(path, Platform.LINUX)
    if problem is not None:
        raise UsageError(f"“{remote}” is no path for a file: {problem}.")
    entry, dot = _prepare(repository, remote, settings)
    if entry is not None and is_directory(entry):
        raise UsageError(f"“{remote}” is a directory.")
    _require_directories(repository, path)
    writer = repository.writer()
    tree = repository.current().tree
    captured = Capture(files, writer, settings.kernel, settings.digest).read(source, source)
    value, disk = captured.value, captured.disk
    if value.kind == Kind.DIRECTORY:
        raise UsageError(f"“{source}” is a directory; `sync` takes directories.")
    size = len(value.content) if isinstance(value.content, bytes) else disk.size
    version = Version(dot, value.kind, size, disk.mtime_ns, value.mode, value.content, captured.digest)
    editor = TreeEditor(repository.nodes, tree)
    editor.edit(path, dots_of(entry.versions) if entry is not None else (), version)
    return repository.publish(writer, editor.finish(), repository.ledger.tips())


def delete_path(repository: Repository, remote: str, settings: Settings) -> Linked:
    """Commit the deletion of one file. Raises NotFoundError if there is none."""
    entry, _ = _prepare(repository, remote, settings)
    if entry is None:
        raise NotFoundError(f"There is no “{remote}” in this folder.")
    if is_directory(entry):
        raise UsageError(f"“{remote}” is a directory; single files can be deleted.")
    writer = repository.writer()
    editor = TreeEditor(repository.nodes, repository.current().tree)
    editor.edit(to_path(remote), dots_of(entry.versions), None)
    return repository.publish(writer, editor.finish(), repository.ledger.tips())


def _require_directories(repository: Repository, path: Path) -> None:
    """Nothing is put below a file: the two would be in conflict from the start."""
    tree = repository.current().tree
    for depth in range(1, len(path)):
        above = lookup(repository.nodes, tree.id, path[:depth])
        if above is None:
            return
        if not is_directory(above):
            raise UsageError(f"“{to_text(path[:depth])}” is a file, so nothing can be put below it.")


def _prepare(repository: Repository, remote: str, settings: Settings) -> tuple[Entry | None, Dot]:
    """Be a device that knows the newest state; the entry at a path, and the dot of the next record."""
    path = to_path(remote)
    if not path:
        raise UsageError("A file needs a path.")
    repository.open(create=True)
    repository.identify(settings.device_name, repository.journal.list_tips())
    repository.settle()
    repository.refresh()
    repository.join(repository.ledger.tips())
    own = repository.ledger.device()
    if own is None:
        raise IntegrityError(f"No device identity for {to_text(path)}.")
    entry = lookup(repository.nodes, repository.current().tree.id, path)
    return entry, Dot(own[0], repository.ledger.own_seq() + 1)
