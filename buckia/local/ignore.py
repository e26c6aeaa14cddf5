"""Ignore files: the syntax and meaning of ``.gitignore``, matched without backtracking.

Ignore files come from other people's devices, so a line must not be able to take long. A star is matched at the first
place where what follows it fits and never again: all between two stars is of one length, so no later place does better.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

LINE_CHARACTERS_MAX = 512
WILDCARD_LINES_MAX = 1000
"""Per file, of lines that must be tried one by one; others are looked up."""

_PROBLEMS_MAX = 10

Component = str | re.Pattern[str]
"""A name, or what matches names."""

_ANY: Final = None
"""``**`` among the components of a pattern: any number of names."""

_Token = tuple[bool, str]
"""A character, or with True the regular expression of one."""

_SLASH: Final[_Token] = (False, "/")
_STAR: Final[_Token] = (True, "*")

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-\\~",
    "lower": "a-z",
    "print": " -\\~",
    "punct": "!-/:-@\\[-`{-\\~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_CLASS = re.compile(r"\[:([a-z]*):\]")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with wildcards."""

    number: int
    ignores: bool
    only_directories: bool
    by_name: bool
    """The pattern is for names anywhere below, not for paths."""
    runs: Sequence[Sequence[Component]]
    """Components between ``**``: the first run is at the path's beginning, the last one at its end."""

    def matches(self, parts: Sequence[str]) -> bool:
        if self.by_name:
            return not self.runs[0] or _fits(self.runs[0], parts[-1:], 0)
        first, last = self.runs[0], self.runs[-1]
        if len(self.runs) == 1:
            return len(first) == len(parts) and _fits(first, parts, 0)
        position, end = len(first), len(parts) - max(len(last), 1)  # at the end ** stands for one name or more
        if position > end or not _fits(first, parts, 0) or not _fits(last, parts, end):
            return False
        for run in self.runs[1:-1]:
            while position + len(run) <= end and not _fits(run, parts, position):
                position += 1
            position += len(run)
        return position <= end


class IgnoreFile:
    """The patterns of one ignore file."""

    def __init__(self, text: str) -> None:
        self.problems: list[str] = []
        """Why lines are no patterns: clauses that begin with the number of the line."""
        self._plain: dict[str, tuple[int, bool]] = {}
        self._wild: list[_Line] = []
        refused = 0
        for number, line in enumerate(text.split("\n"), 1):
            try:
                self._add(number, line.removesuffix("\r"))
            except ValueError as problem:
                refused += 1
                if refused <= _PROBLEMS_MAX:
                    self.problems.append(f"line {number} is no pattern: {problem}")
        if refused > _PROBLEMS_MAX:
            self.problems.append(f"{refused - _PROBLEMS_MAX} more lines are no patterns")
        self._wild.reverse()

    def ignores(self, path: str, is_directory: bool) -> bool | None:
        """Whether the last line that matches the path itself leaves it out or takes it in; None if none matches.

        ``path`` is relative to the file's directory. What lies in a directory that is left out is not asked for here.
        """
        parts = path.split("/")
        last, verdict = 0, None
        for key in (parts[-1], f"/{path}"):
            for form in (key, f"{key}/") if is_directory else (key,):
                number, ignores = self._plain.get(form, (0, False))
                if number > last:
                    last, verdict = number, ignores
        for line in self._wild:
            if line.number < last:
                break
            if (is_directory or not line.only_directories) and line.matches(parts):
                return line.ignores
        return verdict

    def _add(self, number: int, line: str) -> None:
        """Raises ``ValueError`` with a clause for a line that is no pattern."""
        if line.startswith("#"):
            return
        if len(line) > LINE_CHARACTERS_MAX:
            raise ValueError(f"it is longer than {LINE_CHARACTERS_MAX} characters")
        ignores = not line.startswith("!")
        pattern = _without_spaces(line.removeprefix("!"))
        only_directories = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        if not pattern:
            return
        by_name = "/" not in pattern
        components = _components(pattern.removeprefix("/"))
        if "" in components:
            return  # no path has an empty component
        names = [component for component in components if isinstance(component, str)]
        if len(names) == len(components):
            key = names[0] if by_name else f"/{'/'.join(names)}"
            self._plain[f"{key}/" if only_directories else key] = (number, ignores)
            return
        if len(self._wild) == WILDCARD_LINES_MAX:
            raise ValueError(f"only {WILDCARD_LINES_MAX} lines of a file may have wildcards")
        runs: list[list[Component]] = [[]]
        for component in components:
            if component is not _ANY:
                runs[-1].append(component)
            elif runs[-1] or len(runs) == 1:
                runs.append([])
        self._wild.append(_Line(number, ignores, only_directories, by_name, runs))


def _fits(run: Sequence[Component], parts: Sequence[str], start: int) -> bool:
    """Whether these components match the parts from ``start`` on, one by one."""
    for component, part in zip(run, parts[start : start + len(run)], strict=True):
        if component != part if isinstance(component, str) else component.match(part) is None:
            return False
    return True


def _without_spaces(line: str) -> str:
    """Without the spaces at the end, but for one behind a backslash."""
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    return line[: len(bare) + 1] if backslashes % 2 else bare


def _components(pattern: str) -> list[Component | None]:
    """Raises ``ValueError``."""
    components: list[Component | None] = []
    tokens: list[_Token] = []
    for token in (*_tokens(pattern), _SLASH):
        if token != _SLASH:
            tokens.append(token)
        else:
            components.append(_component(tokens))
            tokens = []
    return components


def _component(tokens: Sequence[_Token]) -> Component | None:
    if len(tokens) > 1 and set(tokens) == {_STAR}:
        return _ANY
    if not any(wild for wild, _ in tokens):
        return "".join(text for _, text in tokens)
    first, *others = ("".join(text if wild else re.escape(text) for wild, text in group) for group in _groups(tokens))
    between = "".join(f"(?>.*?{group})" for group in others[:-1] if group)
    end = f".*{others[-1]}" if others else ""
    return re.compile(f"{first}{between}{end}\\Z", re.DOTALL)


def _groups(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """What stands between stars."""
    groups: list[list[_Token]] = [[]]
    for token in tokens:
        if token == _STAR:
            groups.append([])
        else:
            groups[-1].append(token)
    return groups


def _tokens(pattern: str) -> Iterator[_Token]:
    """Raises ``ValueError``."""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "[":
            expression, position = _bracket(pattern, position + 1)
            yield True, expression
            continue
        if character == "*":
            yield _STAR
        elif character == "?":
            yield True, "."
        else:
            character, position = _plain(pattern, position)
            yield False, character
            continue
        position += 1


def _plain(pattern: str, position: int) -> tuple[str, int]:
    """The character that stands here, perhaps behind a backslash, and where it ends."""
    if pattern[position] == "\\":
        position += 1
    if position == len(pattern):
        raise ValueError("a backslash ends it")
    return pattern[position], position + 1


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """The regular expression of the characters in brackets that begin here, and where they end."""
    negated = pattern[position : position + 1] in ("!", "^")
    begin = position = position + negated
    parts: list[str] = []
    while pattern[position : position + 1] != "]" or position == begin:
        if position >= len(pattern):
            raise ValueError("a bracket is not closed")
        if named := _CLASS.match(pattern, position):
            if named.group(1) not in _CLASSES:
                raise ValueError("it names an unknown class of characters")
            parts.append(_CLASSES[named.group(1)])
            position = named.end()
            continue
        low, position = _plain(pattern, position)
        part = re.escape(low)
        if pattern[position : position + 1] == "-" and pattern[position + 1 : position + 2] not in ("", "]"):
            high, position = _plain(pattern, position + 1)
            if high < low:
                raise ValueError("a range of characters is reversed")
            part = f"{part}-{re.escape(high)}"
        parts.append(part)
    return f"[{'^' if negated else ''}{''.join(parts)}]", position + 1
