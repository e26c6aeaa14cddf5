"""The results as plain text and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.measure import file_system
from tests.bench.runner import Options, Place, Results
from tests.bench.stages import Work
from tests.bench.targets import METRICS, Verdict

ROW_TEXTS = {
    "prepare": "preparation that failed",
    "first": "first sync",
    "open": "open the repository and list its snapshots (in all that follows, too)",
    "unchanged": "nothing changed",
    "edits": "after a week of edits",
    "restore": "restore into an empty directory",
    "verify": "full verification of the stored data",
    "tiny-first": "tiny files, first sync",
    "tiny": "tiny files, nothing changed",
    "small": "small files, first sync",
    "onefile": "one small file changed",
    "rename": "a directory renamed",
    "delta-2nd": "one clip, a second device's first sync",
    "delta-up": "1,000 bytes inserted in a clip, device that did it",
    "delta-down": "1,000 bytes inserted in a clip, the other device",
    "sparse": "one file with a single hole",
    "manifest": "manifest of a million files, merged with another head",
}
_COLUMNS = (
    ("wall", "median s", 2),
    ("cpu", "cpu s", 2),
    ("peak", "peak MB", 0),
    ("stored", "stored MB", 2),
    ("grown", "grown MB", 3),
    ("served", "served", 0),
    ("requests", "requests", 0),
    ("writes", "writes", 0),
    ("reads", "reads", 0),
    ("up", "up MB", 3),
    ("down", "down MB", 3),
)


def system(places: Sequence[Place], versions: dict[str, str]) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "places": {place.name: f"{place.directory} ({file_system(place.directory)})" for place in places},
        "tools": {name: version or "not installed" for name, version in versions.items()},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def head(facts: dict[str, Any], options: Options) -> str:
    """The lines above the tables."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, Python {facts['python']}",
        f"scale {options.scale:g}, {options.runs} runs, load {facts['load']:.2f} at the start",
        *(f"{name}: {where}" for name, where in facts["places"].items()),
        *(f"{name}: {version}" for name, version in facts["tools"].items()),
    ]
    if facts["load"] > 0.5:
        lines.append("NOTE: other programs were running; times are worth little")
    if options.scale < 1:
        lines.append("NOTE: targets for times are meant for scale 1; at a small one the start of the programs decides")
    return "\n".join(lines) + "\n"


def tables(results: Results) -> str:
    """One table per place and row, one line per tool."""
    blocks = []
    for place, row in dict.fromkeys((place, row) for place, row, _ in results.samples):
        tools = sorted(tool for p, r, tool in results.samples if (p, r) == (place, row))
        lines = [_line(results, (place, row, tool)) for tool in sorted(tools, key=lambda tool: tool != "buckia")]
        titles = ["tool", "min s", *(title for _, title, _ in _COLUMNS)]
        kept = [i for i in range(len(titles)) if any(line[i] for line in lines)]
        rows = [[line[i] for i in kept] for line in [titles, *lines]]
        blocks.append(f"{place}: {ROW_TEXTS.get(row, row)}\n{_aligned(rows)}{_errors(results, place, row, tools)}")
    return "\n".join(blocks)


def _line(results: Results, key: tuple[str, str, str]) -> list[str]:
    values = {name: results.median(key, METRICS[name]) for name, _, _ in _COLUMNS}
    cells = {name: "" if (value := values[name]) is None else f"{value:,.{digits}f}" for name, _, digits in _COLUMNS}
    walls = [sample.wall for sample in results.samples[key] if not sample.error]
    return [key[2], f"{min(walls):.2f}" if walls else "failed", *cells.values()]


def _errors(results: Results, place: str, row: str, tools: Sequence[str]) -> str:
    samples = ((tool, sample) for tool in tools for sample in results.samples[place, row, tool])
    errors = {f"  {tool}: {sample.error}\n" for tool, sample in samples if sample.error}
    return "".join(sorted(errors))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def targets(verdicts: Sequence[Verdict]) -> str:
    """One line per target: what was measured, the limit, whether it was kept."""
    rows = [["place", "target", "measured", "limit", ""]]
    for verdict in verdicts:
        value, limit = verdict.value, f"{verdict.target.limit:g}"
        measured = "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
        rows.append([verdict.place, verdict.target.text, measured, limit, verdict.mark])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = (
        f"  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )
    return "targets (the measured number shall not exceed the limit)\n" + "\n".join(lines) + "\n"


def stages(speeds: dict[str, float], work: Work | None, first: tuple[float, float], cores: int) -> str:
    """Speed of every stage on one thread; with ``work``, how far the first sync (wall, CPU s) is from their sum."""
    seconds = work.seconds(speeds) if work else {}
    rows = [["stage", "GB/s", "s of a first sync"]]
    for stage, speed in speeds.items():
        rows.append([stage, f"{speed:.2f}", f"{seconds[stage]:.2f}" if stage in seconds else ""])
    text = "one thread's limits\n" + _aligned(rows)
    if not work:
        return text
    wall, cpu = first
    total = sum(seconds.values())
    return (
        f"{text}  sum {total:.2f} s of one thread, {total / cores:.2f} s on {cores} cores without loss\n"
        f"  measured: wall {wall:.2f} s = {wall * cores / total:.2f} x that, "
        f"cpu {cpu:.2f} s = {cpu / total:.2f} x the sum\n"
    )


def as_json(facts: dict[str, Any], options: Options, results: Results, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "system": facts,
        "scale": options.scale,
        "runs": options.runs,
        "rows": [
            {"place": place, "row": row, "tool": tool, "samples": [asdict(sample) for sample in samples]}
            for (place, row, tool), samples in results.samples.items()
        ],
        "targets": [
            {"place": verdict.place, **asdict(verdict.target), "measured": verdict.value, "mark": verdict.mark}
            for verdict in verdicts
        ],
    }
