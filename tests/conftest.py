"""Every run tests the same: property tests draw from a fixed seed and never fail for being slow."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("buckia", derandomize=True, deadline=None, print_blob=True, database=None)
settings.load_profile("buckia")

# A shell ignores signals for what it runs in the background or under nohup, and so would everything that is tested.
for _name, _act in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _act)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command sets up the logger of the package; no test may find it changed by another."""
    logger = logging.getLogger("buckia")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before
