"""``python -m fuzz.smoke [--seconds N] [TARGET ...]``: every target over its corpus and always the same mutations.

Exit code 1, with the input in a file, when a parser raised what it must not or broke a law.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from fuzz.mutate import mutations
from fuzz.target import Target
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FINDINGS = Path(tempfile.gettempdir()) / "buckia-fuzz"

_MUTATIONS = 400
_SECONDS_MAX = 10.0
_HEX_BYTES_MAX = 256


def corpus(target: Target) -> list[bytes]:
    """The target's corpus, in the order of file names."""
    return [file.read_bytes() for file in sorted((CORPUS / target.name).iterdir())]


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.smoke", description="Run fuzz targets without a fuzzer.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=0.0, help="mutate for so long per target, at most 10")
    parser.add_argument("--file", type=Path, help="run this one input instead")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target '{unknown[0]}'; there are {', '.join(TARGETS)}")
    if given.file is not None and len(given.targets) != 1:
        parser.error("--file needs one target")
    found = 0
    for name in given.targets or TARGETS:
        target = TARGETS[name]
        inputs: Iterable[bytes] = [given.file.read_bytes()] if given.file else _inputs(target, given.seconds)
        found += _run(target, inputs)
    return 1 if found else 0


def _inputs(target: Target, seconds: float) -> Iterator[bytes]:
    """The corpus and a fixed number of mutations, then more until ``seconds`` have passed; ends after 10 s."""
    seeds = corpus(target)
    start = time.monotonic()
    endless = mutations(target, seeds)
    for data in chain(seeds, islice(endless, _MUTATIONS)):
        yield data
        if time.monotonic() - start > _SECONDS_MAX:
            print(f"{target.name}: cut short after {_SECONDS_MAX:.0f} s")
            return
    while time.monotonic() - start < min(seconds, _SECONDS_MAX):
        yield next(endless)


def _run(target: Target, inputs: Iterable[bytes]) -> int:
    """Prints a line; the number of findings: 0, or 1 as the first one ends the target."""
    count = accepted = 0
    for data in inputs:
        count += 1
        try:
            accepted += target.accepts(data)
        except Exception:
            print(f"{target.name}: {count} inputs, then a finding")
            _report(target, data)
            return 1
    print(f"{target.name}: {count} inputs, {accepted} accepted, {count - accepted} refused, 0 findings")
    return 0


def _report(target: Target, data: bytes) -> None:
    traceback.print_exc(file=sys.stdout)
    FINDINGS.mkdir(exist_ok=True)
    file = FINDINGS / f"{target.name}-{hashlib.sha256(data).hexdigest()[:16]}"
    file.write_bytes(data)
    shown = data.hex() if len(data) <= _HEX_BYTES_MAX else f"{data[:_HEX_BYTES_MAX].hex()}... ({len(data)} bytes)"
    print(f"input: {shown}\nagain: python -m fuzz.smoke {target.name} --file {file}")


if __name__ == "__main__":
    sys.exit(main())
