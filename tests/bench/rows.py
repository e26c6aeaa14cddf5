"""What is measured: every scenario makes its files, lets all tools work on them, and adds rows to the results."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import corpus, measure
from tests.bench.measure import Command, Sample
from tests.bench.runner import Options, Place, Results, Scenario, scenario
from tests.bench.tools import Buckia, Tool

PROJECT = Path(__file__).parents[2]
MAIN_ROWS = ("first", "open", "unchanged", "edits", "restore", "verify")
MANIFEST_FILES = 1_000_000


def run_rows(options: Options, places: list[Place], results: Results) -> None:
    """Run all wanted scenarios in all places, as often as asked for."""
    for turn in range(options.runs):
        for place in places:
            for name, (rows, body) in SCENARIOS.items():
                if options.rows.isdisjoint(rows) or (place.s3 and name in LOCAL_ONLY):
                    continue
                with scenario(options, place, results, name) as work:
                    body(work, turn)


def _main(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    made = work.results.corpus = corpus.build(source, work.scale)
    tools = work.tools(turn)
    stored, touched = 1, None
    work.each("first", tools, lambda tool: tool.sync(source, 1), source)
    if work.wants("open"):
        work.each("open", tools, lambda tool: tool.open())
    if work.wants("unchanged"):
        stored = 2
        work.each("unchanged", tools, lambda tool: tool.sync(source, 2), source)
    if work.wants("edits"):
        stored = 3
        # A time that alone has changed is no new version to buckia, so it is not asked to give it back.
        touched = corpus.edit(made, work.scale).touched
        work.each("edits", tools, lambda tool: tool.sync(source, 3), source)
    if work.wants("restore"):
        _restore(work, tools, source, stored, touched)
    if work.wants("verify"):
        for tool in list(tools):
            one = [tool]
            work.each("verify", one, lambda tool: tool.verify(source), source, tool.home.repository)


def _restore(work: Scenario, tools: list[Tool], source: Path, stored: int, timeless: str | None) -> None:
    """Restore into an empty directory; a tree that differs from the source is no result."""
    digest = measure.tree_digest(source, timeless)
    for tool in list(tools):
        target = work.root / "target"
        target.mkdir()
        command = tool.restore(target, stored)
        if command is not None:
            sample = work.time(tool, command, tool.home.repository)
            if not sample.error and measure.tree_digest(target, timeless) != digest:
                sample.error = "the restored tree differs from what was stored"
            work.results.add((work.place.name, "restore", tool.name), sample)
        shutil.rmtree(target)


def _tiny(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    corpus.write_tiny(source, corpus.scaled(corpus.TINY_FILES, work.scale, 100))
    tools = work.tools(turn)
    work.each("tiny-first", tools, lambda tool: tool.sync(source, 1), source)
    work.each("tiny", tools, lambda tool: tool.sync(source, 2), source)


def _small(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    corpus.write_small(source, corpus.scaled(corpus.SMALL_FILES, work.scale, 200))
    work.each("small", work.tools(turn), lambda tool: tool.sync(source, 1), source)


def _onefile(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    corpus.write_small(source, corpus.scaled(corpus.SMALL_FILES // 2, work.scale, 200))
    tools = _stored_untimed(work, turn, source)
    with sorted((source / "notes").rglob("*.txt"))[0].open("ab") as file:
        file.write(b"one more line\n")
    work.each("onefile", tools, lambda tool: tool.sync(source, 2), source)


def _rename(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    corpus.write_small(source, corpus.scaled(corpus.SMALL_FILES, work.scale, 200))
    tools = _stored_untimed(work, turn, source)
    corpus.rename_directory(source)
    before = {tool.name: set(measure.files(tool.home.repository)) for tool in tools}
    done = work.each("rename", tools, lambda tool: tool.sync(source, 2), source)
    for tool in tools:
        if tool.name == Buckia.name and not work.place.s3:
            new = set(measure.files(tool.home.repository)) - before[tool.name]
            done[tool.name].extra["chunks"] = sum(_chunk_bytes(Path(path)) for path in sorted(new))


def _chunk_bytes(path: Path) -> int:
    """Bytes of file contents (not of the manifest) in a repository object; 0 if it is no pack."""
    if "packs" not in path.parts:
        return 0
    from buckia.core.ids import BlobType
    from buckia.core.pack import parse_pack

    return sum(row.length for row in parse_pack(path.read_bytes()) if row.kind == BlobType.CHUNK)


def _delta(work: Scenario, turn: int) -> None:
    """One clip on two devices: bytes up from one and down to the other after an insertion."""
    source, other = work.root / "source", work.root / "other"
    clip = source / "clip.mp4"
    corpus.write_clip(clip, corpus.scaled(corpus.DELTA_BYTES, work.scale))
    other.mkdir()
    tools = _stored_untimed(work, turn, source, lambda kind: kind is Buckia)
    if not tools:
        return
    work.each("delta-2nd", tools, lambda tool: _second(tool, other))
    corpus.insert(clip)
    work.each("delta-up", tools, lambda tool: tool.sync(source, 2), source)
    done = work.each("delta-down", tools, lambda tool: _second(tool, other), other)
    if tools and measure.tree_digest(other) != measure.tree_digest(source):
        done[Buckia.name].error = "the second device has other files than the first"


def _second(tool: Tool, directory: Path) -> Command | None:
    return tool.sync(directory, 1, device=2) if isinstance(tool, Buckia) else None


def _sparse(work: Scenario, turn: int) -> None:
    source = work.root / "source"
    corpus.write_sparse(source / "disk.img", corpus.scaled(corpus.SPARSE_BYTES, work.scale))
    work.each("sparse", work.tools(turn, lambda kind: kind.deduplicates), lambda tool: tool.sync(source, 1))


def _manifest(work: Scenario, turn: int) -> None:
    if Buckia not in work.options.tools:
        return
    count = corpus.scaled(MANIFEST_FILES, work.scale, 1000)
    argv = (sys.executable, "-m", "tests.bench.manifest", "--files", str(count), "--workdir", str(work.root))
    sample = measure.run(Command(argv, PROJECT), work.root / "log")
    work.results.add((work.place.name, "manifest", Buckia.name), sample)


def _stored_untimed(
    work: Scenario, turn: int, source: Path, wanted: Callable[[type[Tool]], bool] = lambda _: True
) -> list[Tool]:
    """Tools that hold the present state of ``source``; only a failure leaves a trace in the results."""
    ready = []
    for tool in work.tools(turn, wanted):
        sample: Sample = work.time(tool, tool.sync(source, 1))
        if sample.error:
            work.results.add((work.place.name, "prepare", tool.name), sample)
        else:
            ready.append(tool)
    return ready


Body = Callable[[Scenario, int], None]
SCENARIOS: dict[str, tuple[tuple[str, ...], Body]] = {
    "main": (MAIN_ROWS, _main),
    "tiny": (("tiny",), _tiny),
    "small": (("small",), _small),
    "onefile": (("onefile",), _onefile),
    "rename": (("rename",), _rename),
    "delta": (("delta",), _delta),
    "sparse": (("sparse",), _sparse),
    "manifest": (("manifest",), _manifest),
}
LOCAL_ONLY = frozenset({"tiny", "sparse", "manifest"})
"""Scenarios that ask nothing of the store; on a server they would only take longer."""
ROWS = tuple(row for rows, _ in SCENARIOS.values() for row in rows)
