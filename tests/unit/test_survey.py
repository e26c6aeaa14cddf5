"""Comparing a directory costs what is in it, once."""

from __future__ import annotations

import sys
from types import FrameType

from buckia.engine import survey
from tests.support.fleet import ROOT, Fleet


def _calls(files: int) -> int:
    """How often functions of the survey are entered or resumed while every one of so many files is found changed."""
    fleet = Fleet(devices=1)
    (device,) = fleet.devices
    for text in (b"one", b"another"):
        fleet.advance(10**9)
        fleet.set_clock(device)
        for number in range(files):
            device.files.put(f"{ROOT}/{number:05}", text)
        count = 0

        def tally(frame: FrameType, event: str, _: object) -> None:
            nonlocal count
            count += event == "call" and frame.f_code.co_filename == survey.__file__

        sys.setprofile(tally)
        try:
            outcome = fleet.sync(device)
        finally:
            sys.setprofile(None)
        assert outcome.result is not None
        assert outcome.result.uploaded == files
    return count


def test_the_work_of_comparing_a_directory_grows_as_the_directory() -> None:
    assert _calls(200) < 2.2 * _calls(100)
