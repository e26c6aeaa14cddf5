"""``python -m tests.bench``: see ``README.md``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import measure, report, server, targets, tools
from tests.bench.measure import Command
from tests.bench.rows import PROJECT, ROWS, run_rows
from tests.bench.runner import Options, Place, Results
from tests.bench.stages import Work

_ROOM_BYTES = 14 << 30
"""What the scenarios need at scale 1: the corpus, five repositories of it, one restored tree."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 1 if a command failed (a missed target is a result, not a failure)."""
    asked = _parser().parse_args(arguments)
    if asked.buckia:
        tools.set_buckia(asked.buckia)
    versions = tools.versions()
    wanted = asked.tools.split(",") if asked.tools else list(versions)
    options = Options(
        scale=asked.scale,
        rows=frozenset(asked.rows),
        runs=asked.runs,
        tools=tuple(tool for tool in tools.TOOLS if versions[tool.name] and tool.name in wanted),
    )
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_workdir(asked.workdir or _roomy(asked.scale)))
        places = [Place(name, directory) for name in ("local", "s3") if asked.store in (name, "both")]
        if asked.store != "local" and (lack := server.missing()):
            print(f"s3 is left out: {lack}")
            places = [place for place in places if not place.s3]
        if asked.disk is not None:
            places.append(Place("disk", stack.enter_context(_workdir(asked.disk))))
        facts = report.system(places, versions)
        print(report.head(facts, options), flush=True)
        results = Results()
        run_rows(options, places, results)
        verdicts = targets.judge(results, {(place, row) for place, row, _ in results.samples})
        print(report.tables(results))
        print(report.targets(verdicts))
        document = report.as_json(facts, options, results, verdicts)
        if asked.stages:
            document["stages"] = _stages(directory, results, facts["cores"])
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if results.failed() else 0


def _stages(directory: Path, results: Results, cores: int) -> dict[str, object]:
    """Measure and print the limits of one thread, in a process of its own."""
    argv = (sys.executable, "-m", "tests.bench.stages", "--workdir", str(directory))
    sample = measure.run(Command(argv, PROJECT), directory / "log")
    if sample.error:
        print(f"stages: {sample.error}")
        return {}
    speeds = {stage: float(str(speed)) for stage, speed in sample.report.items()}
    wall, cpu, stored = (
        results.median(("local", "first", "buckia"), targets.METRICS[name]) for name in ("wall", "cpu", "stored")
    )
    work = None
    if results.corpus and wall is not None and cpu is not None and stored is not None:
        work = Work(results.corpus.bytes, results.corpus.compressible, round(stored * 1e6))
    print(report.stages(speeds, work, (wall or 0.0, cpu or 0.0), cores))
    return dict(speeds)


@contextlib.contextmanager
def _workdir(parent: Path) -> Iterator[Path]:
    """A directory of our own below ``parent``, gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="buckia-bench-", dir=parent) as name:
        yield Path(name)


def _roomy(scale: float) -> Path:
    """The memory file system if it has the room, else the directory for temporary files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and measure.free_bytes(memory) > _ROOM_BYTES * scale + (1 << 30):
        return memory
    return Path(tempfile.gettempdir())


def _rows(text: str) -> list[str]:
    rows = text.split(",")
    if unknown := sorted(set(rows) - set(ROWS)):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="buckia beside its peers, in one run",
        epilog="`python -m tests.bench.wire` measures the way to a bucket: latency, limits, CPU per request.",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="size of everything (1: as in README.md)")
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--store", choices=("local", "s3", "both"), default="local", help="where repositories are")
    parser.add_argument("--runs", type=int, default=3, help="runs of everything (median and minimum are shown)")
    parser.add_argument("--tools", help="some of buckia,restic,borg,rclone,rsync (default: those installed)")
    parser.add_argument("--workdir", type=Path, help="work below this directory (default: /dev/shm if it has the room)")
    parser.add_argument("--disk", type=Path, help="measure a second time below this directory on a disk")
    parser.add_argument("--json", type=Path, help="write everything to this file, too")
    parser.add_argument("--stages", action="store_true", help="measure the limits of one thread as well")
    parser.add_argument("--buckia", help="command line to measure as buckia (default: beside this interpreter)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
