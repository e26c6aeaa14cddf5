"""What a fuzz target is: a function that reads bytes, the errors by which it may refuse them, and what it covers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgpack

from buckia.errors import FormatError, IntegrityError, UsageError

REFUSALS = (FormatError, IntegrityError)
"""How a decoder refuses bytes."""

TEXT_REFUSALS = (UsageError,)
"""How text that a person wrote is refused; configuration errors are usage errors."""


class LawBroken(AssertionError):
    """A parser accepted an input and then broke a promise about it."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Where an input holds msgpack, so that mutation can change values and not only bytes.

    ``open`` gives the msgpack within an input, ``close`` the input with other msgpack in its place.
    """

    open: Callable[[bytes], bytes]
    close: Callable[[bytes, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under test. ``covers`` are the functions and classes that it stands for."""

    name: str
    run: Callable[[bytes], None]
    covers: tuple[Any, ...]
    refusals: tuple[type[Exception], ...] = REFUSALS
    structure: Structure | None = None
    size_max: int = 1 << 14
    """Bytes to which mutation lets an input grow."""

    def accepts(self, data: bytes) -> bool:
        """Whether the parser takes the input; any other outcome than that and a refusal is raised."""
        try:
            self.run(data)
        except self.refusals:
            return False
        return True


@dataclass(slots=True)
class Registry:
    """The targets by name."""

    targets: dict[str, Target] = field(default_factory=dict)

    def target(self, name: str, *covers: Any, **options: Any) -> Callable[[Callable[[bytes], None]], Any]:
        """Decorates a function ``bytes -> None`` as the target ``name``."""

        def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
            self.targets[name] = Target(name, run, covers, **options)
            return run

        return register


REGISTRY = Registry()
target = REGISTRY.target


def law(holds: object, promise: str) -> None:
    """Raise ``LawBroken`` unless ``holds``. What is computed for it belongs into ``with accepted()``."""
    if not holds:
        raise LawBroken(promise)


@contextmanager
def accepted() -> Iterator[None]:
    """For all that follows once the parser took the input: refusing it, or what was made from it, comes too late."""
    try:
        yield
    except (*REFUSALS, *TEXT_REFUSALS) as error:
        raise LawBroken(f"what was accepted is refused later: {error}") from error


def behind(length: int) -> Structure:
    """Msgpack behind a header of ``length`` bytes."""
    return Structure(lambda data: data[length:], lambda data, packed: data[:length] + packed)


def unpack(packed: bytes) -> Any:
    """The value in msgpack, whatever its form; ``None`` where there is none."""
    with suppress(ValueError, TypeError, msgpack.UnpackException):  # TypeError: an array as the key of a map
        return msgpack.unpackb(packed, raw=False, strict_map_key=False)
    return None
