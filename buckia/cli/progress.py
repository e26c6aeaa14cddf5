"""Progress on the terminal: what moves, how fast, and how long it will take; nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from buckia.cli.output import clean, width

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY_SECONDS = 1.0
_PATH_COLUMNS = 40


class ProgressDisplay:
    """A progress callback that draws one line on stderr once an operation has taken a second.

    Without a terminal, or if not ``enabled``, it draws nothing. ``clock`` returns seconds.
    """

    def __init__(self, *, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._clock = clock
        self._begin = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._begin = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()

    def __call__(self, current: int, total: int, action: str, path: str) -> None:
        """Take a report of progress: bytes done, bytes in all, what happens, to which path."""
        if not self._enabled or (self._bar is None and self._clock() - self._begin < DELAY_SECONDS):
            return
        if self._bar is None or self._task is None:
            self._bar, self._task = _bar()
            self._bar.start()
        self._bar.update(
            self._task, completed=current, total=total or None, action=action.capitalize(), path=shortened(path)
        )

    def pause(self) -> None:
        """Clear the line, as before a question; the next report draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._task = None, None


def shortened(path: str, columns: int = _PATH_COLUMNS) -> str:
    """The end of a path that fits into so many columns, made safe for a terminal."""
    text = clean(path)
    if width(text) <= columns:
        return text
    while width(text) > columns - 3:
        text = text[max(1, (width(text) - columns + 3) // 2) :]
    return f"...{text}"


def _bar() -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.fields[action]}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[path]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    return bar, bar.add_task("", total=None, action="", path="")
