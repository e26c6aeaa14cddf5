"""Every parser has a fuzz target, every target reaches its parser, and no seed breaks a promise."""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import buckia.core
from buckia import location
from buckia.config import file as config_file
from buckia.config import text as config_text
from buckia.local import filters, rows
from fuzz import make_corpus, smoke
from fuzz.mutate import mutations
from fuzz.target import REFUSALS, TEXT_REFUSALS, LawBroken, Target, accepted
from fuzz.targets import TARGETS

CORPUS_BYTES_MAX = 300_000
DECODER = re.compile(r"(decode|parse)(_\w+)?|decompress|read_blob|check_folder|Segment")
ELSEWHERE = (config_text, config_file, location, filters, rows)

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


def code_of(covered: Any) -> CodeType:
    function = covered.__init__ if inspect.isclass(covered) else covered
    code: CodeType = inspect.unwrap(getattr(function, "__func__", function)).__code__
    return code


def decoders() -> Iterator[tuple[str, Any]]:
    """Public functions and classes that are named like decoders, where they are defined."""
    names = [f"buckia.core.{info.name}" for info in pkgutil.iter_modules(buckia.core.__path__)]
    for module in (*map(import_module, names), *ELSEWHERE):
        for name, value in vars(module).items():
            if DECODER.fullmatch(name) and callable(value) and value.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", value
            if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "parse"):
                yield f"{module.__name__}.{name}.parse", value.parse


def test_every_decoder_has_a_target() -> None:
    covered = {code_of(each) for target in TARGETS.values() for each in target.covers}
    found = dict(decoders())
    assert len(found) >= 14
    assert [name for name, decoder in found.items() if code_of(decoder) not in covered] == []


@each_target
def test_a_target_reaches_what_it_covers_and_accepts_some_of_its_corpus(target: Target) -> None:
    called: set[CodeType] = set()

    def notice(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    previous = sys.getprofile()
    sys.setprofile(notice)
    try:
        taken = [target.accepts(data) for data in smoke.corpus(target)]
    finally:
        sys.setprofile(previous)
    assert any(taken)
    assert {code_of(each) for each in target.covers} <= called


@each_target
def test_some_seed_is_refused(target: Target) -> None:
    assert not target.refusals or not all(map(target.accepts, smoke.corpus(target)))


def test_the_corpus_is_small_and_belongs_to_the_targets() -> None:
    files = [file for file in smoke.CORPUS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < CORPUS_BYTES_MAX
    assert {file.parent.name for file in files} == set(TARGETS)


def test_the_seeds_can_be_made_anew(tmp_path: Path) -> None:
    count = make_corpus.write(tmp_path)
    made = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert count == len(made)
    assert made <= {file.relative_to(smoke.CORPUS) for file in smoke.CORPUS.rglob("*")}


@each_target
def test_mutations_are_the_same_every_time_and_stay_small(target: Target) -> None:
    seeds = smoke.corpus(target)
    first = list(islice(mutations(target, seeds), 50))
    assert first == list(islice(mutations(target, seeds), 50))
    assert first != list(islice(mutations(target, seeds, seed=1), 50))
    assert max(map(len, first)) <= max(target.size_max, *map(len, seeds))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], None]], int]:
    """Runs the smoke test with one target ``probe`` that is this function."""
    (tmp_path / "corpus" / "probe").mkdir(parents=True)
    (tmp_path / "corpus" / "probe" / "seed").write_bytes(b"seed")
    monkeypatch.setattr(smoke, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(smoke, "FINDINGS", tmp_path / "findings")

    def run(function: Callable[[bytes], None]) -> int:
        monkeypatch.setattr(smoke, "TARGETS", {"probe": Target("probe", function, ())})
        return smoke.main([])

    return run


def test_a_refusal_is_no_finding(
    run: Callable[[Callable[[bytes], None]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: bytes) -> None:
        raise REFUSALS[0]("no")

    assert run(refuse) == 0
    assert "0 accepted" in capsys.readouterr().out


@pytest.mark.parametrize("refusal", [*REFUSALS, *TEXT_REFUSALS])
def test_a_refusal_after_acceptance_is_a_finding(
    refusal: type[Exception], run: Callable[[Callable[[bytes], None]], int]
) -> None:
    def refuse_late(data: bytes) -> None:
        with accepted():
            raise refusal("no")

    with pytest.raises(LawBroken):
        refuse_late(b"")
    assert run(refuse_late) == 1


def test_a_finding_ends_with_1_and_its_input(
    run: Callable[[Callable[[bytes], None]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(data: bytes) -> None:
        raise KeyError("oops")

    assert run(fail) == 1
    out = capsys.readouterr().out
    assert "KeyError" in out
    assert b"seed".hex() in out
    assert [file.read_bytes() for file in (tmp_path / "findings").iterdir()] == [b"seed"]
