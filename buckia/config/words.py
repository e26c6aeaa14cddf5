"""Small words of configuration text and of messages; apart, so that what is made in code needs no parser of text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""


class PlainWord(str):
    """A word of YAML that stood without quotes, so it may mean a number where no schema says otherwise."""

    __slots__ = ()


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a clause about an unknown word: ``; did you mean 'photos'?``, or nothing if no known word is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def sentence(clause: str) -> str:
    """A clause with its full stop, unless it asks a question."""
    return clause if clause.endswith("?") else f"{clause}."
