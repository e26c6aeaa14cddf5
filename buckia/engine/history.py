"""Looking back: snapshots by name, and what they hold. Nothing here writes to the bucket."""

from __future__ import annotations

import heapq
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from buckia.core.content import chunks
from buckia.core.directory import Path, diff_trees, entries, lookup, walk
from buckia.core.ids import BlobId, ObjectId
from buckia.core.manifest import Entry, FileContent, Kind, Subtree, Version, current, is_directory
from buckia.core.projection import DIRECTORY_MODE, Shown, may_be_copy, project, project_directory
from buckia.core.record import Snapshot
from buckia.engine.capture import DIGESTS, EMPTY_CHUNK
from buckia.engine.compare import Value
from buckia.errors import IntegrityError, NotFoundError, UsageError
from buckia.events import Difference, FileInfo, PathVersion, SnapshotInfo
from buckia.store.journal import Linked
from buckia.store.reader import WINDOW_BYTES
from buckia.store.repository import Repository, snapshot_tree

SHORT_ID = 8
_LATEST = re.compile(r"latest(?:~(\d+))?")
_KINDS = {Kind.FILE: "file", Kind.SYMLINK: "symlink", Kind.DIRECTORY: "directory"}
_DIGEST_NAMES = {number: name for name, number in DIGESTS.items()}
_READ_AHEAD = 32


def in_causal_order(records: Iterable[Linked]) -> list[Linked]:
    """Every record after those that it names; records that do not know of each other by time, then device."""
    linked = {record.id: record for record in records}
    waiting: dict[ObjectId, int] = {}
    followers: dict[ObjectId, list[ObjectId]] = defaultdict(list)
    for name, item in linked.items():
        named = {before for _, _, before in item.record.vector} | {item.record.prev}
        before = [one for one in named if one is not None and one in linked]
        waiting[name] = len(before)
        for one in before:
            followers[one].append(name)
    ready = [_place(linked[name]) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    ordered: list[Linked] = []
    while ready:
        *_, name = heapq.heappop(ready)
        ordered.append(linked[name])
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, _place(linked[follower]))
    return ordered


def _place(item: Linked) -> tuple[int, bytes, int, ObjectId]:
    return (item.record.time_ns, item.record.device, item.record.seq, item.id)


def snapshot_records(repository: Repository) -> list[Linked]:
    """All snapshots of all devices, oldest first."""
    return [item for item in in_causal_order(repository.journal.records()) if isinstance(item.record.body, Snapshot)]


def snapshots(repository: Repository) -> list[SnapshotInfo]:
    """What ``buckia snapshots`` lists."""
    heads = {head.id for head in repository.journal.heads()}
    return [
        SnapshotInfo(
            id=short(item.id),
            time=iso_time(item.record.time_ns),
            device=item.record.name,
            root=item.snapshot.content_root.hex(),
            files=item.snapshot.files,
            bytes=item.snapshot.bytes,
            head=item.id in heads,
        )
        for item in snapshot_records(repository)
    ]


def short(record: ObjectId) -> str:
    """The name of a snapshot for people: the beginning of its id."""
    return record.hex()[:SHORT_ID]


def iso_time(time_ns: int) -> str:
    """ISO 8601 in UTC, to the second; a time outside the calendar is shown as the nearest that is in it."""
    seconds = min(max(time_ns // 10**9, -62135596800), 253402300799)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def resolve(repository: Repository, name: str) -> tuple[Subtree, str]:
    """The tree of a snapshot and its display name: ``latest``, ``latest~N``, the beginning of an id, or a time (UTC;
    the newest one until then).

    Raises NotFoundError if there is none, UsageError if several match.
    """
    match = _LATEST.fullmatch(name)
    if match is not None and not int(match[1] or 0):
        heads = repository.journal.heads()
        if not heads:
            raise NotFoundError("This folder has no snapshot yet.")
        return repository.current().tree, short(heads[0].id) if len(heads) == 1 else "latest"
    records = snapshot_records(repository)
    if match is not None:
        back = int(match[1])
        if back >= len(records):
            raise NotFoundError(
                f"There is no snapshot {name}: the folder has {len(records)}.", hint="`buckia snapshots` lists them."
            )
        found = records[-1 - back]
    else:
        found = _by_id_or_time(records, name)
    return snapshot_tree(found.snapshot), short(found.id)


def _by_id_or_time(records: list[Linked], name: str) -> Linked:
    if re.fullmatch(r"[0-9a-f]{4,64}", name):
        found = [item for item in records if item.id.hex().startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"“{name}” fits {len(found)} snapshots.", hint="Give more of its letters.")
    try:
        moment = datetime.fromisoformat(name)
    except ValueError:
        raise NotFoundError(
            f"There is no snapshot “{name}”.", hint="`buckia snapshots` lists them; `latest` is the newest state."
        ) from None
    limit = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 10**9)
    until = [item for item in records if item.record.time_ns // 10**9 * 10**9 <= limit]
    if not until:
        raise NotFoundError(f"There is no snapshot as old as {name}.", hint="`buckia snapshots` lists them.")
    return max(until, key=lambda item: item.record.time_ns)


def to_path(text: str) -> Path:
    """A path as people write it, by components; names are in NFC in the folder, whatever the keyboard made."""
    parts = unicodedata.normalize("NFC", text).strip("/").split("/")
    return tuple(os.fsencode(part) for part in parts if part not in ("", "."))


def to_text(path: Path) -> str:
    """A path for people."""
    return os.fsdecode(b"/".join(path))


def find_entry(repository: Repository, tree: Subtree, text: str) -> tuple[Path, Entry | None]:
    """The entry at a path; None is the top. Raises NotFoundError if there is none."""
    path = to_path(text)
    if not path:
        return path, None
    entry = lookup(repository.nodes, tree.id, path)
    if entry is None:
        raise NotFoundError(f"There is no “{text}” in this snapshot.", hint="`buckia ls` shows what is there.")
    return path, entry


def ls(repository: Repository, name: str, text: str, recursive: bool) -> list[FileInfo]:
    """What ``buckia ls`` lists: a directory's entries, or one file, each followed by its conflict copies."""
    tree, _ = resolve(repository, name)
    copy = _conflict_copy(repository, tree, to_path(text))
    if copy is not None:
        return [_version_info(to_path(text), copy.versions[0], conflict=True)]
    path, entry = find_entry(repository, tree, text)
    if entry is not None and not is_directory(entry):
        return _infos(repository, tree, path, entry)
    below = tree if entry is None else entry.subtree
    if below is None:
        return []
    if recursive:
        listed = walk(repository.nodes, below.id, path)
    else:
        listed = (((*path, item.name), item) for item in entries(repository.nodes, below.id))
    return [info for where, item in listed for info in _infos(repository, tree, where, item)]


def _infos(repository: Repository, tree: Subtree, path: Path, entry: Entry) -> list[FileInfo]:
    """An entry, then its conflict copies under the names that disks show."""
    several = len(entry.versions) + (entry.subtree is not None) > 1 and len(project(entry)) > 1
    version = current(entry)
    if version is not None:
        found = [_version_info(path, version, conflict=several)]
    else:
        modes = [item.mode for item in entry.versions if item.kind == Kind.DIRECTORY]
        size = entry.subtree.bytes if entry.subtree is not None else 0
        mode = modes[-1] if modes else DIRECTORY_MODE
        found = [FileInfo(to_text(path), "directory", size, 0, mode, "", None, conflict=several)]
    if several:
        shown = [item for item in _shown_in(repository, tree, path[:-1]) if item.entry_name == entry.name]
        found += [_version_info((*path[:-1], item.name), item.versions[0], conflict=True) for item in shown[1:]]
    return found


def _version_info(path: Path, version: Version, *, conflict: bool) -> FileInfo:
    digest = version.digest
    return FileInfo(
        path=to_text(path),
        kind=_KINDS[version.kind],
        size=version.size,
        mtime_ns=version.mtime_ns,
        mode=version.mode,
        content=version.content.id.hex() if isinstance(version.content, FileContent) else "",
        digest=None if digest is None else f"{_DIGEST_NAMES[digest.algorithm]}:{digest.value.hex()}",
        target=os.fsdecode(version.content) if isinstance(version.content, bytes) else None,
        conflict=conflict,
    )


def cat(repository: Repository, name: str, text: str) -> Iterator[bytes]:
    """The bytes of a file, checked, piece by piece."""
    tree, _ = resolve(repository, name)
    copy = _conflict_copy(repository, tree, to_path(text))
    version = copy.versions[0] if copy is not None else None
    if version is None:
        _, entry = find_entry(repository, tree, text)
        version = current(entry) if entry is not None else None
    if version is None:
        raise UsageError(f"“{text}” is a directory.")
    if isinstance(version.content, bytes):
        return iter([version.content])
    return read_file(repository, version)


def _conflict_copy(repository: Repository, tree: Subtree, path: Path) -> Shown | None:
    """What is shown under the name of a conflict copy, if this is one."""
    if not path or not may_be_copy(path[-1]):
        return None
    return next((i for i in _shown_in(repository, tree, path[:-1]) if i.name == path[-1] != i.entry_name), None)


def _shown_in(repository: Repository, tree: Subtree, path: Path) -> list[Shown]:
    """What a directory of a tree shows; nothing if it is none."""
    above = lookup(repository.nodes, tree.id, path) if path else None
    directory = tree if not path else above.subtree if above is not None else None
    return project_directory(entries(repository.nodes, directory.id)) if directory is not None else []


def read_file(repository: Repository, version: Version) -> Iterator[bytes]:
    """The chunks of a file's content in order."""
    if not isinstance(version.content, FileContent):
        raise IntegrityError("Only files have contents.")
    pending: list[tuple[BlobId, int]] = []
    size = 0
    for item in chunks(repository.nodes, version.content, version.size):
        pending.append(item)
        size += item[1]
        if len(pending) >= _READ_AHEAD or size >= WINDOW_BYTES:
            yield from _read(repository, pending)
            pending, size = [], 0
    yield from _read(repository, pending)


def _read(repository: Repository, wanted: list[tuple[BlobId, int]]) -> Iterator[bytes]:
    blobs: dict[BlobId, bytes] = {}
    for piece in repository.reader.plan(dict.fromkeys(blob for blob, _ in wanted)):
        blobs.update(repository.reader.fetch(piece))
    for blob, length in wanted:
        if len(blobs[blob]) != length:
            raise IntegrityError(f"Chunk {blob.hex()[:12]} has another length than its file says.")
        yield blobs[blob]


def diff(repository: Repository, before: Subtree, after: Subtree) -> list[Difference]:
    """How two states differ, path by path, in what users see."""
    found: list[Difference] = []
    for path, old, new in diff_trees(repository.nodes, before, after):
        change = difference(_shown(old), _shown(new))
        if change is not None:
            found.append(Difference(to_text(path), change, _size(old), _size(new)))
    return found


_Shown = tuple[Kind, Version | None]


def _shown(entry: Entry | None) -> _Shown | None:
    if entry is None:
        return None
    version = current(entry)
    return (Kind.DIRECTORY, None) if version is None else (version.kind, version)


def difference(old: _Shown | None, new: _Shown | None) -> str | None:
    """The word for how a path changed; None if users see no difference."""
    if old is None or new is None:
        return None if old is new else "added" if old is None else "removed"
    if old[0] != new[0]:
        return "type"
    if old[1] is None or new[1] is None or old[1].same_value(new[1]):
        return None
    return "modified"


def _size(entry: Entry | None) -> int | None:
    version = current(entry) if entry is not None else None
    return None if version is None else version.size


def log(repository: Repository, text: str) -> list[PathVersion]:
    """The history of one path, oldest first: every snapshot that changed what it shows, conflict copies too."""
    path = to_path(text)
    if not path:
        raise UsageError("`log` needs a path.")
    if may_be_copy(path[-1]) and repository.journal.heads():
        copy = _conflict_copy(repository, repository.current().tree, path)
        path = path if copy is None else (*path[:-1], copy.entry_name)
    found: list[PathVersion] = []
    last: list[Shown] = []
    for item in snapshot_records(repository):
        entry = lookup(repository.nodes, snapshot_tree(item.snapshot).id, path)
        shown = project(entry) if entry is not None else []
        if not shown and last:
            found.append(_path_version(item, path, "deleted", None))
        elif shown and not (last and _alike(shown[0], last[0])):
            change = "directory" if shown[0].kind == Kind.DIRECTORY else "written"
            found.append(_path_version(item, path, change, shown[0]))
        for copy in shown[1:]:
            if not any(_alike(copy, before) for before in last):
                found.append(_path_version(item, (*path[:-1], copy.name), "conflict", copy))
        last = shown
    if not found:
        raise NotFoundError(f"No snapshot holds “{text}”.", hint="`buckia ls -r` shows what the newest one holds.")
    return found


def _alike(one: Shown, other: Shown) -> bool:
    """Whether users see no difference."""
    if one.kind != other.kind or one.kind == Kind.DIRECTORY:
        return one.kind == other.kind and one.mode == other.mode
    return one.versions[0].same_value(other.versions[0])


def _path_version(record: Linked, path: Path, change: str, shown: Shown | None) -> PathVersion:
    version = shown.versions[0] if shown is not None and shown.kind != Kind.DIRECTORY else None
    content = version.content if version is not None else None
    return PathVersion(
        path=to_text(path),
        change=change,
        snapshot=short(record.id),
        time=iso_time(record.record.time_ns),
        device=record.record.name,
        size=0 if version is None else version.size,
        content=content.id.hex() if isinstance(content, FileContent) else None,
    )


def retained(repository: Repository) -> Callable[[Path, Value], bool]:
    """A question: does some snapshot show this value at this path? Asked for files whose origin is not known here."""

    def is_retained(path: Path, value: Value) -> bool:
        content = value.content.id if isinstance(value.content, FileContent) else EMPTY_CHUNK
        if content != EMPTY_CHUNK and not repository.holds(content):  # what is empty is never stored
            return False
        seen: set[bytes] = set()
        for item in reversed(snapshot_records(repository)):
            tree = snapshot_tree(item.snapshot)
            if tree.id in seen:
                continue
            seen.add(tree.id)
            entry = lookup(repository.nodes, tree.id, path)
            if entry is not None and any(value.matches(version) for version in entry.versions):
                return True
        return False

    return is_retained
