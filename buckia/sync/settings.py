"""Checks of an adapter's options: their values come from files, so each may be of any type.

Each ``check_`` takes the options and names of some of their fields, and raises `UsageError` for the first that is
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from buckia.errors import UsageError


def check_seconds(options: object, *names: str) -> None:
    """They are numbers above zero."""
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise UsageError(f"The setting {name} is a number of seconds.")


def check_text(options: object, *names: str) -> None:
    """They are text of one line, or not given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"The setting {name} is text.", hint=f'Put it in quotes: "{value}".')
        if value and not value.isprintable():
            raise UsageError(f"The setting {name} is text of one line.")


def check_flags(options: object, *names: str) -> None:
    """They are true or false."""
    for name in names:
        if not isinstance(getattr(options, name), bool):
            raise UsageError(f"The setting {name} is true or false.")


def check_choice(options: object, name: str, known: Sequence[str]) -> None:
    """It is one of those words."""
    if getattr(options, name) not in known:
        raise UsageError(f"The setting {name} is one of {', '.join(known)}.")


def check_count(options: object, name: str, least: int, most: int, what: str) -> None:
    """It is a whole number in that range; ``what`` says so in the sentence of the error."""
    value = getattr(options, name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"The setting {name} is {what}.")


def checked_url(text: str, what: str) -> str:
    """``text`` as ``http(s)://HOST[:PORT][/PATH]``, https if it names none. Raises `UsageError` about ``what``."""
    address = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in address):
        raise UsageError(f"{what} has the form https://HOST or https://HOST:PORT.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"{what} holds no credentials and no parameters: its form is https://HOST.")
    return address.rstrip("/")
