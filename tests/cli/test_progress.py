"""Progress: nothing without a terminal, nothing in the first second, then one line that shows what happens."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from buckia.cli import progress
from buckia.cli.common import configure_logging
from buckia.cli.options import Settings
from buckia.cli.output import width
from buckia.cli.progress import ProgressDisplay, Rate, shortened


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(display: ProgressDisplay, clock: Clock) -> None:
    with display:
        display(0, 100, "uploading", "a")
        clock.now = 0.9
        display(10, 100, "uploading", "a")
        clock.now = 1.1
        display(50, 100, "uploading", "clips/kit\x1bchen.mp4")
        display(50, 0, "verifying", "b")
        display.pause()
        display(100, 100, "downloading", "c[bold]")


def test_a_terminal_sees_it_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    display = ProgressDisplay(enabled=True, clock=clock)
    with display:
        clock.now = 0.9
        display(10, 100, "uploading", "a")
    assert terminal.getvalue() == ""
    clock.now = 0.0
    drive(ProgressDisplay(enabled=True, clock=clock), clock)
    shown = terminal.getvalue()
    assert "Downloading" in shown
    assert "c[bold]" in shown
    assert "\x1bchen" not in shown


def test_it_is_drawn_though_the_next_report_is_long_in_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reported in the first second is shown after it, also where a pack takes a minute."""
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with ProgressDisplay(enabled=True, clock=clock) as display:
        display(0, 100, "uploading", "clip")
        timer = display._timer
        assert timer is not None
        timer.join()
        assert "clip" in terminal.getvalue()


def test_the_rate_is_that_of_the_last_minute() -> None:
    """Packs that arrive at one moment are no high rate, a pause lowers it, and new work begins anew."""
    clock = Clock()
    rate = Rate(clock)
    rate.take(0, 1000)
    assert str(rate) == ""
    clock.now = 10
    for current in (100, 200, 300):
        rate.take(current, 1000)
    assert str(rate) == "30 bytes/s 0:00:23"
    clock.now = 30
    assert str(rate) == "10 bytes/s 0:01:10"
    clock.now = 100
    rate.take(390, 1000)
    assert rate.per_second() == (390 - 100) / 90
    rate.take(0, 500)
    assert str(rate) == ""


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """The package's logger is afterwards as it was."""
    logger = logging.getLogger("buckia")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("_own_logging")
def test_a_line_of_the_log_stands_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that a provider asks for is told of while the bar is drawn, on a line of its own."""
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    configure_logging(Settings())
    with ProgressDisplay(enabled=True, clock=clock) as display:
        clock.now = 1.1
        display(50, 100, "uploading", "a")
        logging.getLogger("buckia.store").warning("a pause")
    before, _, after = terminal.getvalue().partition("buckia: warning: a pause\n")
    assert before.endswith("\x1b[2K")
    assert "Uploading" in after


@pytest.mark.parametrize(("stream", "enabled"), [(io.StringIO, True), (Terminal, False)])
def test_nobody_else_does(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], enabled: bool) -> None:
    output, clock = stream(), Clock()
    monkeypatch.setattr(sys, "stderr", output)
    drive(ProgressDisplay(enabled=enabled, clock=clock), clock)
    assert output.getvalue() == ""


@pytest.mark.parametrize("path", ["a/b.jpg", "x" * 100, "猫" * 50, "a" * 39 + "猫", ""])
def test_paths_are_cut_in_front_and_fit(path: str) -> None:
    shown = shortened(path, 40)
    assert width(shown) <= 40
    assert path.endswith(shown.removeprefix("..."))
    assert width(path) > 40 or shown == path
