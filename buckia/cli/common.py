"""What every command needs before it can call the client: the configuration, logging, questions, signals."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buckia.cli.options import Settings, Target
from buckia.cli.output import clean, note
from buckia.cli.progress import ProgressDisplay
from buckia.cli.signals import cancel_on_signals
from buckia.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from buckia.client import BuckiaClient
    from buckia.config import BuckiaConfig

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _CleanFormatter(logging.Formatter):
    """Log lines hold file names, too. All but those for developers look like what `warn` prints."""

    def format(self, record: logging.LogRecord) -> str:
        record.severity = record.levelname.lower()
        return "\n".join(clean(line) for line in super().format(record).split("\n"))


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment: above a line of progress, which takes its place while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # as the library's handlers do: what cannot be logged stops nothing
            self.handleError(record)


def configure_logging(settings: Settings) -> None:
    """Send the ``buckia`` loggers to stderr, at the level of -v, -q or BUCKIA_LOG_LEVEL; the library never does."""
    name = os.environ.get("BUCKIA_LOG_LEVEL", "").lower() or "warning"
    if name not in _LEVELS:
        raise UsageError(f"BUCKIA_LOG_LEVEL must be one of {', '.join(_LEVELS)}.")
    level = _LEVELS[name]
    if settings.verbose:
        level = min(level, logging.DEBUG if settings.verbose > 1 else logging.INFO)
    elif settings.quiet:
        level = logging.ERROR
    handler = _Stderr()
    detailed = "%(levelname)s %(name)s: %(message)s"
    handler.setFormatter(_CleanFormatter(detailed if level == logging.DEBUG else "buckia: %(severity)s: %(message)s"))
    logger = logging.getLogger("buckia")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def warn(settings: Settings, warnings: list[str]) -> None:
    """Print warnings to stderr, unless only errors are wanted."""
    if not settings.quiet:
        for warning in warnings:
            note(f"buckia: warning: {warning}")


def load_config(settings: Settings) -> BuckiaConfig:
    """The configuration of --config, BUCKIA_CONFIG, or the nearest file. Raises ConfigError."""
    from buckia.config import BuckiaConfig, find_config

    named = settings.config or os.environ.get("BUCKIA_CONFIG")
    if named:
        return BuckiaConfig.from_file(Path(named).expanduser())
    found = find_config(Path.cwd())
    if found is None:
        raise ConfigError(
            "There is no configuration file (.buckia) in this directory or above it.",
            hint="Write one with `buckia init`, or name a bucket folder with `--to LOCATION` or `--from LOCATION`.",
        )
    _check_owner(found)
    return BuckiaConfig.from_file(found)


def _check_owner(found: Path) -> None:
    """A file that somebody else left in a directory above must not decide where our files go."""
    if found.parent == Path.cwd() or not hasattr(os, "geteuid"):
        return
    owner = found.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"The configuration file '{found}' belongs to another user, so it is not used by itself.",
            hint=f"If you trust it: --config {found}",
        )


def open_client(settings: Settings, target: Target) -> BuckiaClient:
    """The client for a bucket folder; no network yet. Raises UsageError and its kin."""
    state = os.environ.get("BUCKIA_STATE_DIR") or None
    if target.location is not None:
        if target.bucket or target.folder or settings.config:
            raise UsageError(
                "A LOCATION names the bucket and the folder and reads no configuration.",
                hint="Leave out --bucket, --folder and --config, or the location.",
            )
        from buckia.client import BuckiaClient

        return BuckiaClient.for_location(
            target.location, state_dir=state, device_name=target.device_name, **settings.transfer
        )
    config = load_config(settings)
    bucket = config.select(target.bucket).with_settings(**settings.transfer)
    if target.folder is not None:
        bucket = bucket.with_folder(target.folder)
    warn(settings, [*bucket.warnings, *config.exposure])
    from buckia.client import BuckiaClient  # last, as wrong arguments and configurations need not wait for it

    return BuckiaClient(bucket, state_dir=state, device_name=target.device_name)


@contextmanager
def session(settings: Settings, target: Target) -> Iterator[BuckiaClient]:
    """An open client with logging set up; signals cancel what it does."""
    configure_logging(settings)
    from buckia.client.runtime import tune_process

    tune_process()
    with open_client(settings, target) as client, cancel_on_signals(client.cancel):
        yield client


def interactive() -> bool:
    """Somebody can answer: stdin and stderr are terminals, and this is no automation."""
    automated = os.environ.get("CI", "").lower() not in ("", "0", "false", "no")
    return not automated and sys.stdin.isatty() and sys.stderr.isatty()


def confirmation(display: ProgressDisplay, *, yes: bool = False) -> Callable[[str], bool] | None:
    """How to answer the client's questions: yes to all, by asking, or None, which refuses."""
    if yes:
        return lambda question: True
    if not interactive():
        return None

    def ask(question: str) -> bool:
        display.pause()
        return click.confirm(clean(question), default=False, err=True)

    return ask
