"""Compare: what changed here, what changed there, and what that means, one directory at a time.

Local changes become `Edit` values; what the disk must show becomes `Change` values. Both are decided from the
directory's rows (what was shown there), the disk, and the entries of the merged tree. See ``specs/merge.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from buckia.core.ids import BlobId, DeviceId, Dot
from buckia.core.manifest import Content, Entry, FileContent, Kind, Version
from buckia.core.projection import Shown
from buckia.local.folder import ScannedDirectory
from buckia.local.fs import DiskEntry
from buckia.local.paths import bucket_name
from buckia.local.state import Row

Path = tuple[bytes, ...]
Policy = Literal["local_wins", "remote_wins", "newest_wins", "ask"]
Outcome = Literal["none", "local", "remote", "pending"]

PERMISSIONS = 0o777
"""What is restored of a mode."""
NOTHING: frozenset[Dot] = frozenset()
"""Shared, as Python makes a new empty set at every call."""


@dataclass(frozen=True, slots=True)
class Value:
    """What users see of something on disk: two with equal values are one version."""

    kind: Kind
    content: Content
    mode: int

    def matches(self, version: Version) -> bool:
        """Whether a version has this value, as far as a disk can tell: not all bits of a mode are set there."""
        return (
            self.kind == version.kind
            and self.content == version.content
            and self.mode & PERMISSIONS == version.mode & PERMISSIONS
        )


def kept_mode(value: Value, disk: DiskEntry, row: Row | None) -> Value:
    """The value with the version's own mode where nobody changed the disk's: some bits are never set on disk."""
    if row is None or row.kind != value.kind:
        return value
    kept = PERMISSIONS if row.stat is None else ~0
    same = disk.mode & kept == (row.mode if row.stat is None else row.stat[0]) & kept
    return replace(value, mode=row.mode) if same else value


@dataclass(slots=True)
class Edit:
    """A local change that is to be published at a path.

    ``disk`` is what is there, None for a deletion. ``kept`` is a version to be re-written under a new dot: the rest of
    a conflict of which one side was deleted. ``winner`` is set where the policy decides against this edit: it is
    published, then superseded.
    """

    entry_name: bytes
    name: str
    disk: DiskEntry | None
    supersede: frozenset[Dot]
    value: Value | None = None
    kept: Version | None = None
    winner: Version | None = None
    outcome: Outcome = "none"
    row: Row | None = None
    others: bool = False
    """Something else is left at the path, so that another thing may have to be shown there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What must happen to one name on disk so that it shows what the tree says.

    ``shown`` None removes the name; ``row`` None means that there is nothing of ours yet; ``write`` false only updates
    the row.
    """

    name: str
    shown: Shown | None
    row: Row | None
    write: bool


@dataclass(slots=True)
class DirectoryPlan:
    """The decisions for one directory. ``rows`` are its rows without the edits; ``show`` says that the tree changed
    here.
    """

    path: Path
    disk_path: str
    rows: dict[str, Row]
    edits: list[Edit] = field(default_factory=list)
    later: list[Edit] = field(default_factory=list)
    """Further writes at paths of ``edits``, for commits of their own: a record writes one version at a path."""
    changes: list[Change] = field(default_factory=list)
    scanned: ScannedDirectory | None = None
    show: bool = False
    blocked: set[str] = field(default_factory=set)
    """Names that cannot be shown as something is in the way that does not take part."""


def dots_of(versions: Iterable[Version]) -> frozenset[Dot]:
    """The dots of versions."""
    return frozenset(version.dot for version in versions)


def settle(policy: Policy, mtime_ns: int, newest: Version, content: Callable[[], Content]) -> Outcome:
    """Who wins where this device's own edit meets versions that it had not seen, of which this is the greatest.

    ``newest_wins`` compares modification times; of equal ones the greater content id wins, so that every device decides
    alike.
    """
    if policy == "local_wins":
        return "local"
    if policy == "remote_wins":
        return "remote"
    if policy == "ask":
        return "pending"
    if mtime_ns != newest.mtime_ns:
        return "local" if mtime_ns > newest.mtime_ns else "remote"
    return "local" if _content_key(content()) > _content_key(newest.content) else "remote"


def _content_key(content: Content) -> bytes:
    if isinstance(content, FileContent):
        return content.id
    return content or b""


def write_edit(disk: DiskEntry, row: Row | None, entry: Entry | None, name: bytes, value: Value | None) -> Edit:
    """The edit for something new or changed on disk. ``value`` is known where its content was read to compare it."""
    if row is None and entry is None:
        return Edit(name, disk.name, disk, NOTHING, value=value)
    edit = Edit(name, disk.name, disk, frozenset(row.dots) if row is not None else NOTHING, value=value, row=row)
    if entry is not None:
        if disk.kind == Kind.DIRECTORY:
            edit.supersede |= dots_of(version for version in entry.versions if version.kind == Kind.DIRECTORY)
        edit.others = any(version.dot not in edit.supersede for version in entry.versions)
        edit.others |= disk.kind != Kind.DIRECTORY and entry.subtree is not None
    return edit


def decide(edit: Edit, unseen: list[Version], policy: Policy) -> None:
    """Let the policy decide where an edit meets versions that this device had not shown under any name.

    A file without a row never wins by policy, nor does a new mode alone over new content. Those that the device did
    show, it leaves alone: they are for somebody to choose from.
    """
    disk, value = edit.disk, edit.value
    if disk is None or disk.kind == Kind.DIRECTORY:
        return
    unseen = [version for version in unseen if version.kind != Kind.DIRECTORY]
    if not unseen or any(value is not None and value.matches(version) for version in unseen):
        return
    newest = max(unseen, key=lambda version: version.precedence)
    if edit.row is None:
        edit.outcome = "pending"
    elif policy != "ask" and _is_of_mode_alone(edit.row, value) and not _has_content_of(edit.row, newest):
        edit.outcome = "remote"
    else:
        edit.outcome = settle(policy, disk.mtime_ns, newest, lambda: value.content if value else None)
    if edit.outcome == "local":
        edit.supersede |= dots_of(unseen)
    elif edit.outcome == "remote":
        edit.winner = newest


def _is_of_mode_alone(row: Row, value: Value | None) -> bool:
    return value is not None and _has_content_of(row, value)


def _has_content_of(row: Row, other: Value | Version) -> bool:
    return row.kind == other.kind and row.content == other.content


def delete_edit(name: str, row: Row, entry: Entry | None) -> Edit | None:
    """The edit that publishes a deletion; None where nothing that was shown here is left in the tree.

    What this device had not seen stays. Deleting one side of a conflict chooses the other: it is re-written under a new
    dot, so that a concurrent choice the other way cannot remove both.
    """
    versions = entry.versions if entry is not None else ()
    gone = [version for version in versions if version.dot in row.dots]
    if not gone:
        return None
    left = [version for version in versions if version.dot not in row.dots]
    others = bool(left) or (entry is not None and entry.subtree is not None)
    edit = Edit(row.entry_name, name, None, dots_of(gone), row=row, others=others)
    if left:
        kept = max(left, key=lambda version: version.precedence)
        edit.kept = kept
        edit.supersede |= dots_of(version for version in left if version.same_value(kept))
    return edit


def changes_for(shown: Iterable[Shown], rows: Mapping[str, Row], covers: Callable[[bytes, bool], bool]) -> list[Change]:
    """What must happen on disk so that a directory with these rows shows these entries. Names that ``covers`` leaves
    out stay as they are.

    What was hidden stays so where it would have another name now, as others took its own.
    """
    changes: list[Change] = []
    hidden: dict[bytes, list[Row]] = {}
    for one in rows.values():
        if one.hidden and one.dots and one.kind != Kind.DIRECTORY:
            hidden.setdefault(one.entry_name, []).append(one)
    wanted: set[str] = set()
    # A name may be on disk in another normalisation than in the tree, and stays so.
    on_disk = {bucket_name(name): name for name in rows if not name.isascii()}
    for item in shown:
        name = on_disk.get(item.name, item.name.decode())
        wanted.add(name)
        if not covers(item.entry_name, item.kind == Kind.DIRECTORY):
            continue
        row = rows.get(name)
        dots = item.dots
        if row is not None and row.hidden and stays_hidden(row, item):
            continue
        if row is None or row.hidden:
            before = next((one for one in hidden.get(item.entry_name, ()) if stays_hidden(one, item)), None)
            changes.append(Change(name, item, before, before is None))
        elif frozenset(row.dots) != dots or row.entry_name != item.entry_name:
            changes.append(Change(name, item, row, not shows_value(row, item)))
        elif row.kind != item.kind:
            changes.append(Change(name, item, row, True))
    for name, row in rows.items():
        if name not in wanted and covers(row.entry_name, row.kind == Kind.DIRECTORY):
            changes.append(Change(name, None, row, not row.hidden))
    return changes


def stays_hidden(row: Row, item: Shown) -> bool:
    """Whether a hidden row speaks of what would be shown."""
    if (row.kind == Kind.DIRECTORY) != (item.kind == Kind.DIRECTORY):
        return False
    return item.dots <= set(row.dots) or (row.kind == Kind.DIRECTORY and not row.dots)


def shows_value(row: Row, item: Shown) -> bool:
    """Whether what a row says is on disk is what should be shown."""
    if row.kind != item.kind:
        return False
    if item.kind == Kind.DIRECTORY:
        return row.mode == item.mode
    version = item.versions[0]
    return row.content == version.content and row.mode == version.mode


def placeholder(edit: Edit, device: DeviceId, seq: int) -> Version:
    """The version that an edit will have, as far as it is known before its content is read: enough to decide what is
    shown.
    """
    disk = edit.disk
    if disk is None:
        raise ValueError("A deletion has no version.")
    kind = Kind(disk.kind)
    if edit.value is not None:
        content: Content = edit.value.content
    elif kind == Kind.FILE:
        content = FileContent(0, _UNREAD)
    else:
        content = b"?" if kind == Kind.SYMLINK else None
    mtime = 0 if kind == Kind.DIRECTORY else disk.mtime_ns
    return Version(Dot(device, seq), kind, disk.size if kind == Kind.FILE else 0, mtime, disk.mode, content, None)


_UNREAD = BlobId(b"\0" * 32)


def rewritten(version: Version, device: DeviceId, seq: int) -> Version:
    """The same value under a new dot."""
    return replace(version, dot=Dot(device, seq))
