"""What a device shows of a tree: which version stands under a name, and what the conflict copies are called.

A pure function of the entries, so every device shows the same. Nothing of it is ever written into a tree. See
``specs/merge.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import count

from buckia.core.ids import PUBLIC_ID_KEYS, BlobType, Dot, blob_id
from buckia.core.manifest import NAME_BYTES_MAX, Entry, Kind, Version, is_directory

DIRECTORY_MODE = 0o755
"""The mode of a directory that only exists because something lies in it."""

EXTENSION_BYTES_MAX = 32
"""What follows the last dot of a name, the dot included, is an extension up to this length."""

Fold = Callable[[bytes], Hashable]
"""What a file system makes of a name: it takes two names that fold to equal values for one."""


COPY_LABEL = " (conflict "
"""What begins the label in the name of a conflict copy."""


def may_be_copy(name: bytes) -> bool:
    """Whether a name may be that of a conflict copy; only the directory's entries tell whether it is one."""
    return COPY_LABEL.encode() in name


@dataclass(frozen=True, slots=True)
class Shown:
    """One name on disk. ``versions``: all that it shows, the greatest first; equal in kind, content and mode unless a
    directory.
    """

    name: bytes
    entry_name: bytes
    versions: tuple[Version, ...]
    kind: Kind

    @property
    def mode(self) -> int:
        """The permission bits to set."""
        return self.versions[0].mode if self.versions else DIRECTORY_MODE

    @property
    def dots(self) -> frozenset[Dot]:
        """What an edit or a deletion of this name supersedes."""
        return frozenset(version.dot for version in self.versions)


def project(entry: Entry) -> list[Shown]:
    """What is shown of one entry: first what has its name, then the conflict copies."""
    return project_directory((entry,))


def project_directory(entries: Iterable[Entry], fold: Fold | None = None) -> list[Shown]:
    """What is shown of a whole directory, entry by entry, under names that differ under ``fold`` (None: as they are).

    Entries' own names come before those that are made up; of two that fold to one, the first by order keeps it.
    """
    folded = fold or bytes
    places = [(entry, [] if _is_plain(entry) else _groups(entry)) for entry in entries]
    taken: set[Hashable] = set()
    clashing = []
    for number, (entry, _) in enumerate(places):
        key = folded(entry.name)
        if key in taken:
            clashing.append(number)
        taken.add(key)
    renamed = {number: _aside(places[number][0], taken, folded) for number in clashing}
    shown = []
    for number, (entry, groups) in enumerate(places):
        main = groups[0] if groups else entry.versions
        name = renamed.get(number, entry.name)
        shown.append(Shown(name, entry.name, main, main[0].kind if main else Kind.DIRECTORY))
        shown += [_copy(entry, group, taken, folded) for group in groups[1:]]
    return shown


def _is_plain(entry: Entry) -> bool:
    return entry.subtree is None and len(entry.versions) == 1


def _groups(entry: Entry) -> list[tuple[Version, ...]]:
    """The versions by what users see: the main group, which is empty for a directory without a version, then the
    others.
    """
    ordered = sorted(entry.versions, key=lambda version: version.precedence, reverse=True)
    groups: list[list[Version]] = []
    directory: list[Version] = []
    for version in ordered:
        if version.kind is Kind.DIRECTORY:
            directory.append(version)
            continue
        for group in groups:
            if group[0].same_value(version):
                group.append(version)
                break
        else:
            groups.append([version])
    main = [directory] if is_directory(entry) else []
    return [tuple(group) for group in main + groups]


def _copy(entry: Entry, group: tuple[Version, ...], taken: set[Hashable], fold: Fold) -> Shown:
    dot = group[0].dot
    stem, extension = entry.name, b""
    place = entry.name.rfind(b".")
    if place > 0 and len(entry.name) - place <= EXTENSION_BYTES_MAX:
        stem, extension = entry.name[:place], entry.name[place:]
    label = f"{COPY_LABEL}{dot.device[:3].hex()} {dot.seq}"
    endings = (f"{label} {n})" if n > 1 else f"{label})" for n in count(1))
    name = _free(stem, (ending.encode() + extension for ending in endings), taken, fold)
    return Shown(name, entry.name, group, group[0].kind)


def _aside(entry: Entry, taken: set[Hashable], fold: Fold) -> bytes:
    """Another name for an entry whose own is taken by one that folds to the same."""
    groups = _groups(entry)
    if groups[0]:
        dot = groups[0][0].dot
        label = f"~{dot.device[:3].hex()}{dot.seq}"
    else:
        label = f"~{blob_id(BlobType.DIRECTORY, entry.name, PUBLIC_ID_KEYS)[:3].hex()}"
    endings = (f"{label}~{n}" if n > 1 else label for n in count(1))
    return _free(entry.name, (ending.encode() for ending in endings), taken, fold)


def _free(stem: bytes, endings: Iterable[bytes], taken: set[Hashable], fold: Fold) -> bytes:
    """The first name of the stem, shortened at a character if it must be, and an ending that is not taken; takes it."""
    for ending in endings:
        room = NAME_BYTES_MAX - len(ending)
        name = stem[:room].decode(errors="ignore").encode() + ending
        key = fold(name)
        if key not in taken:
            taken.add(key)
            return name
    raise AssertionError("endings never end")
