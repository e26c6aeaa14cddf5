"""The small words of configuration text; apart, so that a configuration made in code needs no parser of text."""

from __future__ import annotations

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""


class PlainWord(str):
    """A word of YAML that stood without quotes, so it may mean a number where no schema says otherwise."""

    __slots__ = ()
