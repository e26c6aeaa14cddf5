"""What buckia promises about speed, memory, size and requests, and whether a run kept it. Times are for scale 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.measure import Sample
from tests.bench.runner import Results
from tests.bench.tools import Buckia

Metric = Callable[[Sample], float | None]
MB = 1e6


def _reported(name: str) -> Metric:
    """A count that buckia reports of itself."""

    def metric(sample: Sample) -> float | None:
        value = sample.report.get(name)
        return float(value) if isinstance(value, int) else None

    return metric


def _verbs(*verbs: str) -> Metric:
    """Requests of these verbs, as buckia's adapter counted them."""

    def metric(sample: Sample) -> float | None:
        requests = sample.report.get("requests")
        return float(sum(int(requests.get(verb, 0)) for verb in verbs)) if isinstance(requests, dict) else None

    return metric


def _served(sample: Sample) -> float | None:
    return None if sample.served is None else float(sample.served)


METRICS: dict[str, Metric] = {
    "wall": lambda sample: sample.wall,
    "cpu": lambda sample: sample.cpu,
    "peak": lambda sample: sample.peak / MB,
    "stored": lambda sample: None if sample.stored is None else sample.stored / MB,
    "grown": lambda sample: sample.extra["grown"] / MB if "grown" in sample.extra else None,
    "served": _served,
    "requests": _verbs("put", "get", "list", "delete", "stat"),
    "writes": _verbs("put", "delete"),
    "reads": _verbs("get", "list", "stat"),
    "up": lambda sample: None if (value := _reported("bytes_uploaded")(sample)) is None else value / MB,
    "down": lambda sample: None if (value := _reported("bytes_downloaded")(sample)) is None else value / MB,
    "chunks": lambda sample: sample.extra.get("chunks"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A metric of buckia in one row, or its ratio to a peer's, that shall not exceed a limit."""

    row: str
    metric: str
    limit: float
    peer: str = ""
    places: tuple[str, ...] = ("local", "disk")

    def value(self, results: Results, place: str) -> float | None:
        """The measured number; None if it or its peer was not measured, or a run of buckia failed."""
        metric = METRICS[self.metric]
        key = (place, self.row, Buckia.name)
        own = None if results.failed(key) else results.median(key, metric)
        if own is None or not self.peer:
            return own
        other = results.median((place, self.row, self.peer), metric)
        return own / other if other else None

    @property
    def text(self) -> str:
        """What is compared, in words."""
        unit = {"peak": " MB", "up": " MB", "down": " MB", "chunks": " bytes"}.get(self.metric, "")
        return f"{self.row}: {self.metric}, buckia/{self.peer}" if self.peer else f"{self.row}: {self.metric}{unit}"


_ALL = ("local", "disk", "s3")
_MEMORY_ROWS = ("first", "unchanged", "edits", "restore", "verify", "tiny", "sparse", "manifest")

TARGETS: tuple[Target, ...] = (
    Target("first", "wall", 0.5, "restic"),
    Target("first", "cpu", 0.4, "restic"),
    Target("first", "stored", 1.0, "restic"),
    Target("first", "wall", 0.6, "restic", ("s3",)),
    Target("first", "served", 1.0, "restic", ("s3",)),
    Target("unchanged", "wall", 0.35, "restic"),
    Target("unchanged", "requests", 1, places=_ALL),
    Target("edits", "wall", 0.5, "restic"),
    Target("restore", "wall", 0.7, "restic"),
    Target("verify", "wall", 0.4, "restic"),
    Target("tiny", "wall", 0.25, "restic"),
    Target("tiny", "wall", 1.5, "rsync"),
    Target("onefile", "writes", 5, places=_ALL),
    Target("onefile", "reads", 3, places=_ALL),
    Target("small", "writes", 149, places=_ALL),
    Target("delta-up", "up", 1.2, places=_ALL),
    Target("delta-down", "down", 1.2, places=_ALL),
    Target("rename", "chunks", 0),
    *(Target(row, "peak", 200, places=_ALL) for row in _MEMORY_ROWS),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target in one place, and what was measured; ``value`` None: a run of buckia failed, or there is none."""

    place: str
    target: Target
    value: float | None

    @property
    def mark(self) -> str:
        """``met``, ``MISSED`` or ``not measured``."""
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.target.limit else "MISSED"


def judge(results: Results, measured: set[tuple[str, str]]) -> list[Verdict]:
    """All targets whose (place, row) was run."""
    return [
        Verdict(place, target, target.value(results, place))
        for target in TARGETS
        for place in target.places
        if (place, target.row) in measured
    ]
