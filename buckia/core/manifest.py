"""What a folder's tree is made of: entries with their versions, and the bytes of directory nodes.

See ``specs/format.md``, section 9. ``directory`` reads, builds and compares whole directories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, NoReturn, cast

from buckia.core import canonical
from buckia.core.ids import DEVICE_ID_BYTES, ID_BYTES, BlobId, Buffer, DeviceId, Dot, content_hash
from buckia.core.merkle import CUTS, INTEGER_MAX, LEVELS_MAX, NODE_BYTES_MAX, NODE_ITEMS_MAX, Cuts, check_cuts
from buckia.core.record import SEQ_MAX
from buckia.errors import FormatError, UnsupportedFormatError

NAME_BYTES_MAX = 255
TARGET_BYTES_MAX = 4096
VERSIONS_MAX = 1024
CHUNK_BYTES_MAX = 16 * 1024 * 1024
MODE_MAX = 0o7777
DIGEST_BYTES = {1: 32, 2: 16, 3: 20, 4: 32}
"""The length of a digest by its algorithm: SHA-256, MD5, SHA-1, BLAKE3."""

NODE_FORMAT = 1
_DIRECTORY = 1
_TIME_LIMIT = 2**63

ContentHash = bytes


class Kind(IntEnum):
    """What a version of an entry is."""

    FILE = 0
    SYMLINK = 1
    DIRECTORY = 2


_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes: with ``depth`` 0 its one chunk, otherwise a chunk-list node of level ``depth - 1``."""

    depth: int
    id: BlobId


Content = FileContent | bytes | None
"""By kind: a file's content, a symlink's target, nothing for a directory."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's digest as its writer stated it; ``DIGEST_BYTES`` has the algorithms."""

    algorithm: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """What one write left at a path. ``size`` in bytes, ``mode`` the permission bits; never changed under its dot."""

    dot: Dot
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    content: Content
    digest: Digest | None = None

    def same_value(self, other: Version) -> bool:
        """Whether users see one version: kind, content and mode are equal."""
        return self.kind == other.kind and self.content == other.content and self.mode == other.mode

    @property
    def precedence(self) -> tuple[int, bytes, int]:
        """Orders concurrent versions; the greatest is the one that is shown."""
        return (self.mtime_ns, self.dot.device, self.dot.seq)


@dataclass(frozen=True, slots=True)
class Subtree:
    """A directory: the id of its root node, its content hash, and the current files and their bytes below."""

    id: BlobId
    content_hash: ContentHash
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory: its versions (several are concurrent), sorted by dot, and what lies below it."""

    name: bytes
    versions: tuple[Version, ...]
    subtree: Subtree | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """An item above level 0: a node by the last name in it."""

    name: bytes
    subtree: Subtree


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded directory node. ``closed``: its last item ends it, so that others may follow."""

    level: int
    items: tuple[Entry, ...] | tuple[Branch, ...]
    closed: bool

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The items of a node of level 0."""
        return cast(tuple[Entry, ...], self.items)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The items of a node above level 0."""
        return cast(tuple[Branch, ...], self.items)


def is_directory(entry: Entry) -> bool:
    """Whether an entry is shown as a directory: something lies below it, or a version says so."""
    return entry.subtree is not None or any(version.kind is Kind.DIRECTORY for version in entry.versions)


def current(entry: Entry) -> Version | None:
    """The version that counts and is shown under the entry's own name; None if that is a directory."""
    versions = entry.versions
    if is_directory(entry) or not versions:
        return None
    return versions[0] if len(versions) == 1 else max(versions, key=lambda version: version.precedence)


def subtree_of(entry: Entry | None) -> Subtree | None:
    """What lies below an entry, if there is one."""
    return None if entry is None else entry.subtree


def id_of(tree: Subtree | None) -> BlobId | None:
    """The root node of a directory, if there is one."""
    return None if tree is None else tree.id


# -- encoding


def encode_directory(level: int, items: Sequence[Entry] | Sequence[Branch]) -> bytes:
    """The bytes of a node with these items, which must be sorted by name. Raises ``FormatError`` for what no reader
    takes.
    """
    if level:
        branches = cast(Sequence[Branch], items)
        rows: list[Any] = [[branch.name, *_tree_row(branch.subtree)] for branch in branches]
        devices: list[DeviceId] = []
        _check_branches(rows)
    else:
        entries = cast(Sequence[Entry], items)
        devices = sorted({version.dot.device for entry in entries for version in entry.versions})
        index = {device: number for number, device in enumerate(devices)}
        rows = [_entry_row(entry, index) for entry in entries]
        _check_entries(rows)
    raw = canonical.encode([NODE_FORMAT, _DIRECTORY, level, devices, rows], items_max=NODE_ITEMS_MAX)
    if len(raw) > NODE_BYTES_MAX:
        raise FormatError(f"A node of {len(raw)} bytes is larger than the {NODE_BYTES_MAX} that are allowed.")
    return raw


def summarise(level: int, items: Sequence[Entry] | Sequence[Branch]) -> tuple[ContentHash, int, int]:
    """A node's content hash, files and bytes."""
    files = size = 0
    rows: list[Any] = []
    if level:
        for branch in cast(Sequence[Branch], items):
            tree = branch.subtree
            files += tree.files
            size += tree.bytes
            rows.append((branch.name, tree.content_hash))
    else:
        for entry in cast(Sequence[Entry], items):
            tree_below = entry.subtree
            if tree_below is not None:
                files += tree_below.files
                size += tree_below.bytes
            elif (shown := current(entry)) is not None:
                files += 1
                size += shown.size
            values = [(version.kind._value_, version.mode, _content_row(version.content)) for version in entry.versions]
            if len(values) > 1:
                distinct = {canonical.encode(value): value for value in values}
                values = [distinct[key] for key in sorted(distinct)]
            rows.append((entry.name, values, None if tree_below is None else tree_below.content_hash))
    if size > INTEGER_MAX or files > INTEGER_MAX:
        raise FormatError("A directory with more bytes than the format can count.")
    return content_hash(canonical.encode([level, rows])), files, size


def _entry_row(entry: Entry, index: dict[DeviceId, int]) -> list[Any]:
    tree = entry.subtree
    return [
        entry.name,
        [
            [
                index[version.dot.device],
                version.dot.seq,
                version.kind._value_,  # as canonical.encode is fastest with plain integers
                version.size,
                version.mtime_ns,
                version.mode,
                _content_row(version.content),
                None if (digest := version.digest) is None else [digest.algorithm, digest.value],
            ]
            for version in entry.versions
        ],
        None if tree is None else _tree_row(tree),
    ]


def _content_row(content: Content) -> list[Any] | bytes | None:
    return [content.depth, content.id] if isinstance(content, FileContent) else content


def _tree_row(tree: Subtree) -> list[Any]:
    return [tree.id, tree.content_hash, tree.files, tree.bytes]


# -- decoding


def decode_directory(raw: Buffer, *, cuts: Cuts = CUTS) -> Node:
    """The node with these bytes. Raises ``FormatError`` for bytes that no writer makes."""
    level, devices, items = open_node(raw, _DIRECTORY)
    _check_devices(level, devices)
    if level:
        _check_branches(items)
        branches = tuple(_branch(item) for item in items)
        return Node(level, branches, check_cuts(level, branches, cuts.name_weight, cuts))
    if _check_entries(items) != set(range(len(devices))):
        _bad("it lists other devices than it uses")
    entries = tuple([_entry(item, devices) for item in items])
    return Node(0, entries, check_cuts(0, entries, cuts.name_weight, cuts))


def open_node(raw: Buffer, kind: int) -> tuple[int, Any, list[Any]]:
    """The level, the devices and the items of a node of either kind, not looked into yet."""
    node = canonical.decode(raw, size_max=NODE_BYTES_MAX, items_max=NODE_ITEMS_MAX)
    if not isinstance(node, list) or len(node) != 5:
        _bad("it is not an array of five")
    version, stated, level, devices, items = node
    if version != NODE_FORMAT:
        raise UnsupportedFormatError("A node has a format version that is not known.")
    if stated != kind:
        _bad("it is of another type")
    if not isinstance(level, int) or not 0 <= level < LEVELS_MAX or not isinstance(items, list):
        _bad("its level or its items are not as they must be")
    return level, devices, items


def _entry(item: list[Any], devices: list[DeviceId]) -> Entry:
    name, rows, tree = item
    return Entry(name, tuple([_version(row, devices) for row in rows]), None if tree is None else Subtree(*tree))


def _version(row: list[Any], devices: list[DeviceId]) -> Version:
    index, seq, kind, size, mtime_ns, mode, content, digest = row
    return Version(
        Dot(devices[index], seq),
        _KINDS[kind],
        size,
        mtime_ns,
        mode,
        FileContent(*content) if kind == 0 else content,
        None if digest is None else Digest(*digest),
    )


def _branch(item: list[Any]) -> Branch:
    return Branch(item[0], Subtree(*item[1:]))


# -- what readers refuse, and writers do not write


def check_name(name: object) -> None:
    """Raises ``FormatError`` unless this is one path component as the format allows it."""
    if type(name) is not bytes or not 0 < len(name) <= NAME_BYTES_MAX:
        _bad(f"a name is not 1 to {NAME_BYTES_MAX} bytes")
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        _bad(f"{name!r} is not one path component")
    if not name.isascii():
        try:
            name.decode()
        except UnicodeDecodeError:
            _bad(f"the name {name!r} is not UTF-8")


def _check_entries(rows: list[Any]) -> set[int]:
    """The device numbers that the rows use."""
    used: set[int] = set()
    previous = b""
    for row in rows:
        if type(row) is not list or len(row) != 3:
            _bad("an entry is not an array of three")
        name, versions, tree = row
        check_name(name)
        if name <= previous:
            _bad("names are not in order")
        previous = name
        if type(versions) is not list or len(versions) > VERSIONS_MAX:
            _bad(f"the versions of {name!r} are not an array of up to {VERSIONS_MAX}")
        for version in versions:
            _check_version(version)
            used.add(version[0])
        if len(versions) > 1:
            dots = [version[:2] for version in versions]
            if any(one >= two for one, two in pairwise(dots)):
                _bad(f"the versions of {name!r} are not in order")
        if tree is not None:
            _check_tree(tree)
            if tree[1] == EMPTY_CONTENT:
                _bad(f"the directory {name!r} is empty and has a node")
        elif not versions:
            _bad(f"{name!r} has neither a version nor anything below")
    return used


def _check_branches(rows: list[Any]) -> None:
    previous = b""
    for row in rows:
        if type(row) is not list or len(row) != 5:
            _bad("an inner item is not an array of five")
        check_name(row[0])
        if row[0] <= previous:
            _bad("names are not in order")
        previous = row[0]
        _check_tree(row[1:])
    if not rows:
        _bad("an inner node is empty")


def _check_tree(row: Any) -> None:
    if type(row) is not list or len(row) != 4:
        _bad("a subtree is not an array of four")
    id, content, files, size = row
    if not _is_id(id) or not _is_id(content):
        _bad("a subtree's hashes are not 32 bytes")
    if not (type(files) is type(size) is int and 0 <= files <= INTEGER_MAX and 0 <= size <= INTEGER_MAX):
        _bad("a subtree's sums are out of range")


def _check_version(row: Any) -> None:
    if type(row) is not list or len(row) != 8:
        _bad("a version is not an array of eight")
    index, seq, kind, size, mtime, mode, content, digest = row
    if not (type(index) is type(seq) is type(kind) is type(size) is type(mtime) is type(mode) is int):
        _bad("a version's numbers are not numbers")
    if not (
        0 < seq <= SEQ_MAX
        and 0 <= size <= INTEGER_MAX
        and -_TIME_LIMIT <= mtime < _TIME_LIMIT
        and 0 <= mode <= MODE_MAX
    ):
        _bad("a version's numbers are out of range")
    if kind == 0:
        _check_file(size, content)
        if digest is not None:
            _check_digest(digest)
        return
    if digest is not None:
        _bad("something that is no file has a digest")
    if kind == 1:
        if type(content) is not bytes or not 0 < len(content) <= TARGET_BYTES_MAX or b"\0" in content:
            _bad("a symlink's target is not a path")
        if size != len(content) or mode != 0:
            _bad("a symlink's size or mode is not as it must be")
    elif kind != 2:
        _bad("a version is of an unknown kind")
    elif content is not None or size != 0 or mtime != 0:
        _bad("a directory has a content, a size or a time")


def _check_file(size: int, content: Any) -> None:
    if type(content) is not list or len(content) != 2 or type(content[0]) is not int or not _is_id(content[1]):
        _bad("a file's content is not a depth and an id")
    depth = content[0]
    if not 0 <= depth <= LEVELS_MAX:
        _bad("a file's depth is out of range")
    if size < 2 if depth else size > CHUNK_BYTES_MAX:
        _bad("a file's depth does not fit its size")


def _check_digest(digest: Any) -> None:
    if type(digest) is not list or len(digest) != 2:
        _bad("a digest is not an array of two")
    algorithm, value = digest
    if type(algorithm) is not int or type(value) is not bytes or DIGEST_BYTES.get(algorithm) != len(value):
        _bad("a digest is of an unknown algorithm or of another length")


def _check_devices(level: int, devices: Any) -> None:
    if type(devices) is not list or not all(type(device) is bytes for device in devices):
        _bad("its devices are not an array of ids")
    if any(len(device) != DEVICE_ID_BYTES for device in devices) or any(one >= two for one, two in pairwise(devices)):
        _bad("its devices are not ids in order")
    if level and devices:
        _bad("an inner node has devices")


def _is_id(value: object) -> bool:
    return type(value) is bytes and len(value) == ID_BYTES


def _bad(why: str) -> NoReturn:
    raise FormatError(f"A node is malformed: {why}.")


EMPTY = encode_directory(0, ())
"""The bytes of the empty directory at a folder's top."""

EMPTY_CONTENT = summarise(0, ())[0]
"""The content hash of the empty directory."""
