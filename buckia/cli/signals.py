"""Ctrl-C and its kin ask an operation to stop cleanly; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def cancel_on_signals(cancel: Callable[[int], None]) -> Iterator[None]:
    """While this is open the first SIGINT, SIGTERM or SIGHUP calls ``cancel`` with its number; the next acts as ever.

    Stopping at once is safe as well, only less tidy. A SIGHUP that is ignored (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        cancel(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
