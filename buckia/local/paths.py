"""Which names may be on which disk: the pure path policy. ``specs/path-policy.md`` states it as a table.

Manifests come from other people's devices. A name is judged before anything is written, and what is refused is
reported, never bent
into something else.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from enum import StrEnum

from buckia.core.projection import COPY_LABEL
from buckia.errors import LocalError

NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4096
DEPTH_MAX = 128

IGNORE_FILE = ".buckiaignore"
TRASH = ".buckia-trash"
TEMPORARY = ".buckia-tmp-"
OWNER_LETTERS = 8
"""So many letters after that say whose a temporary file is."""

CONFIGURATION = ".buckia"
"""Configurations have this name, or one that begins with it, and lie at the top."""

_IGNORE_FILE_COPY = IGNORE_FILE + COPY_LABEL
_REPOSITORY = "_buckia"
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_SHORT_NAME = re.compile(r"[^.~]{1,6}~[0-9]{1,6}")
_FORBIDDEN_ON_WINDOWS = frozenset('\\:*?"<>|')
_IGNORED_BY_HFS = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF], None)
"""Code points that HFS+ drops when it compares names, for ``str.translate``."""


class Platform(StrEnum):
    """Whose rules apply to names on disk."""

    LINUX = "linux"
    MACOS = "macos"
    WINDOWS = "windows"

    @classmethod
    def current(cls) -> Platform:
        """That of this machine; other systems have the rules of Linux."""
        return {"darwin": cls.MACOS, "win32": cls.WINDOWS}.get(sys.platform, cls.LINUX)


def ours(name: str, *, top: bool) -> bool:
    """Whether a name is for our own use, or for one that some file system takes for ours: never synced, never written.

    These are all that begin with ``.buckia`` except ``.buckiaignore`` and its conflict copies, and at the folder's top
    all that begin with ``_buckia``.
    """
    if name == IGNORE_FILE or name.startswith(_IGNORE_FILE_COPY):
        return False
    if name.isascii():  # nearly all are, and folding those is quick
        folded = name.lower()
    else:
        folded = unicodedata.normalize("NFC", name.translate(_IGNORED_BY_HFS)).casefold()
    return folded.startswith(CONFIGURATION) or (top and folded.startswith(_REPOSITORY))


def name_problem(name: bytes, platform: Platform, *, top: bool = False) -> str | None:
    """Why an entry of this name cannot be on a disk of ``platform``; None if it can. ``top``: at the folder's top."""
    if not name or name in (b".", b".."):
        return "the name is empty or only dots"
    if len(name) > NAME_BYTES_MAX:
        return f"the name is longer than {NAME_BYTES_MAX} bytes"
    if b"/" in name or b"\0" in name:
        return "the name holds a slash or a NUL"
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "the name is not UTF-8"
    if ours(text, top=top):
        return "the name is reserved for buckia"
    return _windows_problem(text) if platform is Platform.WINDOWS else None


def _windows_problem(name: str) -> str | None:
    if any(c in _FORBIDDEN_ON_WINDOWS or c < " " for c in name):
        return "the name holds a character that Windows forbids"
    if name[-1] in ". ":
        return "Windows drops the dot or space at the end of the name"
    stem = name.partition(".")[0].rstrip(" ")
    if _RESERVED.fullmatch(stem):
        return f"Windows reserves the name {stem.upper()}"
    stem, _, extension = name.rpartition(".") if "." in name else (name, "", "")
    if len(stem) <= 8 and len(extension) <= 3 and _SHORT_NAME.fullmatch(stem):
        return "Windows may take the name for another file's short name"
    return None


def path_problem(parts: Sequence[bytes], platform: Platform) -> str | None:
    """Why a path in a folder cannot be on a disk of ``platform``; None if it can."""
    if not parts:
        return "the path is empty"
    if len(parts) > DEPTH_MAX:
        return f"the path has more than {DEPTH_MAX} components"
    if sum(map(len, parts)) + len(parts) - 1 > PATH_BYTES_MAX:
        return f"the path is longer than {PATH_BYTES_MAX} bytes"
    problems = (name_problem(part, platform, top=number == 0) for number, part in enumerate(parts))
    return next((problem for problem in problems if problem), None)


def link_problem(depth: int, target: bytes, platform: Platform) -> str | None:
    """Why a symbolic link that lies ``depth`` directories below the root leads out of it; None if it does not.

    ``..`` is allowed at the beginning only: after a name it may be the parent of what another link points at.
    """
    if not target or b"\0" in target:
        return "the target is empty or holds a NUL"
    if platform is Platform.WINDOWS:
        target = target.replace(b"\\", b"/")
        if b":" in target:
            return "the target holds a colon, with which Windows names drives and streams"
    if target.startswith(b"/"):
        return "the target is absolute"
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = next((number for number, part in enumerate(parts) if part != b".."), len(parts))
    if ups > depth or b".." in parts[ups:]:
        return "the target leads out of the folder"
    return None


def bucket_name(name: str) -> bytes | None:
    """The name in the folder of a new file with this name on disk: NFC, UTF-8. None if it has none."""
    if name.isascii():
        return name.encode()
    try:
        normal = unicodedata.normalize("NFC", name).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 (surrogate escapes)
        return None
    return normal if len(normal) <= NAME_BYTES_MAX else None


def fold_insensitive(name: bytes) -> str:
    """What a file system that ignores case sees in a name: names with equal results may be one file there.

    Stricter than any single one of them, as they differ in tables and in normalisation.
    """
    text = name.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def fold_normalising(name: bytes) -> str:
    """What a file system that minds case but not normalisation sees in a name."""
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape"))


def fold_for(platform: Platform, *, case_insensitive: bool) -> Callable[[bytes], str] | None:
    """The folding under which names on a disk collide; None where different bytes are different files."""
    if case_insensitive:
        return fold_insensitive
    return fold_normalising if platform is Platform.MACOS else None


def safe_join(root: str, *parts: str) -> str:
    """``root/part/part``. Raises ``LocalError`` for a part that is not one plain component."""
    for part in parts:
        if not part or part in (".", "..") or "/" in part or "\0" in part:
            raise LocalError(f"{part!r} is not a name that may be used in a path.")
    return "/".join((root.rstrip("/"), *parts))
