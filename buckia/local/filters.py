"""What a sync covers: regular expressions, chosen paths, ``.buckiaignore`` files. What is left out is never touched.

Regular expressions are searched in the path within the folder (``/`` between components, no leading one); a directory
counts as a
match also with a slash at its end. Exclusion wins. Chosen paths match by component. Ignore files have gitignore syntax
and apply below
their directory; they are synced like any other file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from blake3 import blake3

from buckia.errors import UsageError
from buckia.local.ignore import IgnoreFile
from buckia.local.paths import IGNORE_FILE

_NOT_EXTENDABLE = re.compile(r"\$|\\[ZbB]|\(\?")
"""In expressions with one of these a match may vanish when the text goes on."""


class Filters:
    """Which paths of a folder a sync covers. Ignore files are added as the scan comes across them."""

    def __init__(
        self,
        *,
        include: str | None = None,
        exclude: str | None = None,
        sync_paths: Sequence[str] | None = None,
        never: str | None = None,
    ) -> None:
        """Raises ``UsageError`` for a malformed expression or path. ``sync_paths`` None: everything.

        ``never`` is a subtree that is not synced whatever the others say: our own state, where it lies in the tree.
        """
        self._never = never
        self._include = _compile("include_pattern", include)
        self._exclude = _compile("exclude_pattern", exclude)
        self._prunes = exclude is not None and not _NOT_EXTENDABLE.search(exclude)
        self._chosen = None if sync_paths is None else sorted({_clean(path) for path in sync_paths})
        self._ignores: dict[str, tuple[bytes, IgnoreFile]] = {}
        self._ignored: dict[str, bool] = {}
        self._salts: dict[str, bytes] = {}
        self.warnings: list[str] = []
        """Lines of ignore files that are no patterns."""
        parts = [include, exclude, None if self._chosen is None else "\n".join(self._chosen), never]
        self._key = b"" if parts == [None] * len(parts) else blake3(repr(parts).encode("utf-8", "replace")).digest()

    @property
    def everything(self) -> bool:
        """Nothing is left out so far."""
        return not self._key and not self._ignores

    @property
    def chosen(self) -> list[str]:
        """The paths that are covered, if they were chosen, by component."""
        return self._chosen or []

    def add_ignore_file(self, directory: str, content: bytes) -> None:
        """Apply the ignore file that lies in ``directory`` (path in the folder; the top is empty)."""
        file = IgnoreFile(content.decode("utf-8-sig", "replace"))
        where = _join(directory, IGNORE_FILE)
        self.warnings += [f"{where}, {problem}." for problem in file.problems]
        self._ignores[directory] = (blake3(content).digest(), file)
        self._ignored.clear()
        self._salts.clear()

    def covers(self, path: str | bytes, is_directory: bool) -> bool:
        """Whether the sync handles the entry at ``path`` (in the folder)."""
        if self.everything:
            return True
        path = _text(path)
        if self._never is not None and _within(path, self._never):
            return False
        if self._chosen is not None and not any(_within(path, chosen) for chosen in self._chosen):
            return False
        forms = (path, f"{path}/") if is_directory else (path,)
        if self._include is not None and not any(map(self._include.search, forms)):
            return False
        if self._exclude is not None and any(map(self._exclude.search, forms)):
            return False
        return not self._is_ignored(path, is_directory)

    def descends(self, path: str | bytes) -> bool:
        """Whether something below the directory at ``path`` may be covered."""
        if self.everything:
            return True
        path = _text(path)
        if not path:
            return True
        if self._never is not None and _within(path, self._never):
            return False
        if self._chosen is not None and not any(_within(path, c) or _within(c, path) for c in self._chosen):
            return False
        if self._prunes and self._exclude is not None and self._exclude.search(f"{path}/"):
            return False
        return not self._is_ignored(path, True)

    def _is_ignored(self, path: str, is_directory: bool) -> bool:
        """By the deepest ignore file that has an opinion. What lies in an ignored directory is ignored, as in git."""
        if not self._ignores or path.rpartition("/")[2] == IGNORE_FILE:
            return False
        known = self._ignored.get(path) if is_directory else None
        if known is not None:
            return known
        parent = path.rpartition("/")[0]
        ignored = bool(parent) and self._is_ignored(parent, True)
        directory: str | None = parent
        while not ignored and directory is not None:
            found = self._ignores.get(directory)
            if found is not None:
                relative = path[len(directory) + 1 :] if directory else path
                verdict = found[1].ignores(relative, is_directory)
                if verdict is not None:
                    ignored = verdict
                    break
            directory = directory.rpartition("/")[0] if directory else None
        if is_directory:
            self._ignored[path] = ignored
        return ignored

    def salt(self, directory: str) -> bytes:
        """Changes whenever other entries of ``directory`` (path in the folder) may be covered; empty without any."""
        if self.everything:
            return b""
        known = self._salts.get(directory)
        if known is None:
            above = self.salt(directory.rpartition("/")[0]) if directory else self._key
            own = self._ignores.get(directory)
            known = self._salts[directory] = blake3(above + own[0]).digest() if own else above
        return known

    def key(self) -> str:
        """The identity of the scope, for markers such as "applied completely": empty when everything is covered."""
        if self.everything:
            return ""
        ignores = [(directory, self._ignores[directory][0].hex()) for directory in sorted(self._ignores)]
        return blake3(self._key + repr(ignores).encode("utf-8", "replace")).hexdigest(length=16)


def _text(path: str | bytes) -> str:
    return path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _within(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies below it; the empty one holds everything."""
    return not directory or path == directory or path.startswith(f"{directory}/")


def _compile(option: str, expression: str | None) -> re.Pattern[str] | None:
    if expression is None:
        return None
    try:
        return re.compile(expression)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise UsageError(f"{option} {expression!r} is no regular expression: {error.msg}{where}.") from error


def _clean(path: str) -> str:
    """A chosen path by component: ``./a//b/`` is ``a/b``."""
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/") or "\0" in path:
        raise UsageError(f"The path {path!r} does not lie in the folder.", hint="Give it relative to the folder's top.")
    return "/".join(parts)
