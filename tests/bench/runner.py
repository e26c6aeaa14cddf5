"""Runs scenarios: a fresh place for every one, equal conditions for all tools, the samples by place, row and tool."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import measure
from tests.bench.corpus import Corpus
from tests.bench.measure import Command, Sample
from tests.bench.server import Server, open_server
from tests.bench.tools import Home, Tool

Key = tuple[str, str, str]
"""Place, row, tool."""
Make = Callable[[Tool], Command | None]
"""The command of a tool; None: it has no such thing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    scale: float
    rows: frozenset[str]
    runs: int
    tools: tuple[type[Tool], ...]
    """Those that are installed and wanted."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scenario works: ``local`` or ``disk`` (repositories are directories) or ``s3``."""

    name: str
    directory: Path

    @property
    def s3(self) -> bool:
        """Repositories are on a server."""
        return self.name == "s3"


@dataclass(slots=True)
class Results:
    """All samples of a benchmark."""

    samples: dict[Key, list[Sample]] = field(default_factory=dict)
    corpus: Corpus | None = None
    """What the main rows worked on."""

    def add(self, key: Key, sample: Sample) -> None:
        """Keep a sample and say so."""
        self.samples.setdefault(key, []).append(sample)
        words = sample.error or f"{sample.wall:8.2f} s  {sample.cpu:8.2f} cpu  {sample.peak / 1e6:7.0f} MB"
        print(f"{key[0]:6}{key[1]:12}{key[2]:8}{words}", file=sys.stderr, flush=True)

    def median(self, key: Key, metric: Callable[[Sample], float | None]) -> float | None:
        """Median of a metric over the runs that succeeded; None without any."""
        values = [metric(sample) for sample in self.samples.get(key, ()) if not sample.error]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def failed(self, *keys: Key) -> bool:
        """Some command failed, of these (default: of all)."""
        return any(sample.error for key in keys or self.samples for sample in self.samples.get(key, ()))


class Scenario:
    """One scenario in one place in one run: its directory, its tools, its server."""

    def __init__(self, options: Options, place: Place, results: Results, root: Path, server: Server | None) -> None:
        self.options = options
        self.place = place
        self.results = results
        self.root = root
        self.server = server

    @property
    def scale(self) -> float:
        """Scale of everything in it."""
        return self.options.scale

    def wants(self, row: str) -> bool:
        """The row was asked for."""
        return row in self.options.rows

    def tools(self, turn: int, wanted: Callable[[type[Tool]], bool] = lambda _: True) -> list[Tool]:
        """The tools that can take part, with prepared repositories; every run begins with another one."""
        kinds = [kind for kind in self.options.tools if wanted(kind) and (kind.s3 or not self.place.s3)]
        tools = []
        for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)] if kinds else []:
            tool = kind(Home(self.root / kind.name, self.server))
            command = tool.prepare()
            error = measure.run(command, self.root / "log").error if command else ""
            if error:
                self.results.add((self.place.name, "prepare", kind.name), Sample(error=error))
            else:
                tools.append(tool)
        return tools

    def each(self, row: str, tools: list[Tool], make: Make, *warm: Path) -> dict[str, Sample]:
        """Time one command of every tool; one that fails is out of what follows."""
        done = {}
        for tool in list(tools):
            command = make(tool)
            if command is None:
                continue
            sample = done[tool.name] = self.time(tool, command, *warm)
            self.results.add((self.place.name, row, tool.name), sample)
            if sample.error:
                tools.remove(tool)
        return done

    def time(self, tool: Tool, command: Command, *warm: Path) -> Sample:
        """Run one command under the conditions that hold for all."""
        before = tool.home.stored() if self._has_repository(tool) else 0
        measure.settle(*warm)
        served = self.server.count() if self.server else 0
        sample = measure.run(command, self.root / "log")
        if self.server:
            sample.served = self.server.count() - served
        if self._has_repository(tool):
            sample.stored = tool.home.stored()
            sample.extra["grown"] = sample.stored - before
        return sample

    def _has_repository(self, tool: Tool) -> bool:
        return self.server is not None or tool.home.repository.exists()


@contextmanager
def scenario(options: Options, place: Place, results: Results, name: str) -> Iterator[Scenario]:
    """A fresh scenario; everything that it wrote is gone afterwards."""
    root = place.directory / place.name / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        server = stack.enter_context(open_server()) if place.s3 else None
        yield Scenario(options, place, results, root, server)
