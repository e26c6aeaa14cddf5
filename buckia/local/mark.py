"""A mark beside the state that no backup brings back: it tells that the state was set back in its place.

A sequence number must never be used twice, but a backup of the state that is restored over the very file looks like
the state in every respect. So the mark is made anew for every record before its first request, and the state remembers
what it was. A mark that was not restored with the state is that of a later record; one that was restored has another
change time, which no program can set, or, where files have no such time, another file number.

What goes back together with all of its disk (a snapshot of a virtual machine) takes the mark along.
"""

from __future__ import annotations

import os
from typing import Protocol

from buckia.local.disk import RealFileSystem, replace_file
from buckia.local.fs import local_error

_BYTES_MAX = 64


class Mark(Protocol):
    """What differs whenever it was made anew or put back."""

    def renew(self, token: bytes) -> None:
        """Make the mark anew, for ``token``: at most 64 bytes without a space, never used before. What it was is gone
        for good.
        """
        ...

    def read(self) -> bytes:
        """What the mark is: its token, a space, and more; empty where there is none."""
        ...


class FileMark:
    """A mark in a file of its own."""

    def __init__(self, path: str) -> None:
        """Nothing is touched before ``renew``."""
        self._path = path

    def renew(self, token: bytes) -> None:
        """See ``Mark``. Raises ``LocalError``. Durable on return, as a state whose mark is lost drops its outbox, and
        with it what others may need (``specs/ordering.md``, section 5).
        """
        replace_file(self._path, token)
        RealFileSystem().sync_directory(os.path.dirname(self._path))

    def read(self) -> bytes:
        """See ``Mark``. Raises ``LocalError``."""
        try:
            with open(self._path, "rb") as file:
                token = file.read(_BYTES_MAX)
                about = os.fstat(file.fileno())
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise local_error(error, "read", self._path) from error
        return b"%s %d %d" % (token, about.st_ino, about.st_ctime_ns)


class MemoryMark:
    """A mark for a state in memory. ``present`` is what it is."""

    def __init__(self) -> None:
        self.present = b""
        self._count = 0

    def renew(self, token: bytes) -> None:
        """See ``Mark``."""
        self._count += 1
        self.present = b"%s %d" % (token, self._count)

    def read(self) -> bytes:
        """See ``Mark``."""
        return self.present
