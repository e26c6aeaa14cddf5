"""Marks beside the state that no backup brings back: they tell that the state was set back in its place.

A sequence number must never be used twice, but a backup of the state that is restored over the very file looks like
the state in every respect. So every record has a mark, an empty file of its own that the state remembers by file number
and change time, and before the first request for the record all older marks are removed. A state that is older
remembers one that is gone, or, if that was restored as well, one with another change time: no program can choose it.

What goes back together with all of its disk (a snapshot of a virtual machine) takes the marks along.
"""

from __future__ import annotations

import os
from typing import Protocol

from buckia.local.disk import RealFileSystem
from buckia.local.fs import local_error

_PREFIX = "mark-"


class Marks(Protocol):
    """What differs whenever it was made anew or put back."""

    def make(self, token: str) -> bytes:
        """Make a mark beside those that there are; what to remember of it. ``token`` is part of a file's name."""
        ...

    def keep(self, token: str) -> None:
        """Remove all marks but this one, for good."""
        ...

    def hold(self, remembered: bytes | None) -> bool:
        """Whether this mark is there and the same; for None, whether there is none at all."""
        ...


class FileMarks:
    """Marks in a directory. All of it is durable on return, and raises ``LocalError``."""

    def __init__(self, directory: str) -> None:
        """Nothing is touched before ``make``."""
        self._directory = directory

    def make(self, token: str) -> bytes:
        """See ``Marks``."""
        path = self._path(token)
        try:
            with open(path, "wb"):
                pass
        except OSError as error:
            raise local_error(error, "create", path) from error
        RealFileSystem().sync_directory(self._directory)
        return self._look(token) or b""

    def keep(self, token: str) -> None:
        """See ``Marks``."""
        older = [name for name in self._names() if name != _PREFIX + token]
        for name in older:
            path = os.path.join(self._directory, name)
            try:
                os.unlink(path)
            except OSError as error:
                raise local_error(error, "remove", path) from error
        if older:
            RealFileSystem().sync_directory(self._directory)

    def hold(self, remembered: bytes | None) -> bool:
        """See ``Marks``."""
        if remembered is None:
            return not self._names()
        return self._look(remembered.split(b" ")[0].decode()) == remembered

    def _path(self, token: str) -> str:
        return os.path.join(self._directory, _PREFIX + token)

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._directory) if name.startswith(_PREFIX)]
        except OSError as error:
            raise local_error(error, "list", self._directory) from error

    def _look(self, token: str) -> bytes | None:
        path = self._path(token)
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise local_error(error, "look at", path) from error
        return f"{token} {about.st_ino} {about.st_ctime_ns}".encode()


class MemoryMarks:
    """Marks of a state in memory: ``present`` has what is to be remembered of each."""

    def __init__(self) -> None:
        self.present: dict[str, bytes] = {}
        self._made = 0

    def make(self, token: str) -> bytes:
        """See ``Marks``."""
        self._made += 1
        self.present[token] = f"{token} {self._made}".encode()
        return self.present[token]

    def keep(self, token: str) -> None:
        """See ``Marks``."""
        self.present = {token: self.present[token]}

    def hold(self, remembered: bytes | None) -> bool:
        """See ``Marks``."""
        return not self.present if remembered is None else remembered in self.present.values()
