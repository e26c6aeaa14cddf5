"""Progress on the terminal: what moves, how fast, and how long it will take; nothing where nobody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from buckia.cli.output import clean, width

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY_SECONDS = 1.0
RATE_SECONDS = 60.0
"""The rate is that of so long."""
_PATH_COLUMNS = 40


class Rate:
    """How fast bytes move, and how long the others will take; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        """One a second at most: time and bytes done. The first is as old as the rate looks back, or a little older."""
        self._current = self._total = 0

    def take(self, current: int, total: int) -> None:
        """So many bytes are done by now. Other work begins where that are fewer than before, or of another total."""
        now = self._clock()
        if current < self._current or total != self._total:
            self._samples = deque()  # a new one, as the terminal is drawn by another thread
        self._current, self._total = current, total
        if not self._samples or now - self._samples[-1][0] >= 1:
            self._samples.append((now, current))
        while len(self._samples) > 1 and now - self._samples[1][0] >= RATE_SECONDS:
            self._samples.popleft()

    def per_second(self) -> float:
        """Bytes per second; 0 where nothing has moved."""
        samples = self._samples
        if not samples:
            return 0
        since, before = samples[0]
        return (self._current - before) / max(self._clock() - since, 1)

    def __str__(self) -> str:
        from rich.filesize import decimal

        rate = self.per_second()
        if not rate:
            return ""
        left = round((self._total - self._current) / rate)
        return f"{decimal(int(rate))}/s {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


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
        self._rate = Rate(clock)
        self._report = (0, 0, "", "")
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._begin = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()

    def __call__(self, current: int, total: int, action: str, path: str) -> None:
        """Take a report of progress: bytes done, bytes in all, what happens, to which path."""
        if not self._enabled:
            return
        with self._lock:
            self._report = (current, total, action, path)
            self._rate.take(current, total)
            left = DELAY_SECONDS - (self._clock() - self._begin)
            if self._bar is not None or left <= 0:
                self._draw()
            elif self._timer is None:  # the next report may be long in coming
                self._timer = threading.Timer(left, self._begin_to_draw)
                self._timer.daemon = True
                self._timer.start()

    def pause(self) -> None:
        """Clear the line, as before a question; the next report draws it again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._bar, self._task = None, None

    def _begin_to_draw(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread():  # else it was cancelled meanwhile
                self._draw()

    def _draw(self) -> None:
        if self._bar is None or self._task is None:
            self._bar, self._task = _bar(self._rate)
        current, total, action, path = self._report
        self._bar.update(
            self._task, completed=current, total=total or None, action=action.capitalize(), path=shortened(path)
        )
        self._bar.start()


def shortened(path: str, columns: int = _PATH_COLUMNS) -> str:
    """The end of a path that fits into so many columns, made safe for a terminal."""
    text = clean(path)
    if width(text) <= columns:
        return text
    while width(text) > columns - 3:
        text = text[max(1, (width(text) - columns + 3) // 2) :]
    return f"...{text}"


def _bar(rate: Rate) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.fields[action]}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}", style="progress.data.speed"),
        TextColumn("{task.fields[path]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    return bar, bar.add_task("", total=None, action="", path="", rate=rate)
