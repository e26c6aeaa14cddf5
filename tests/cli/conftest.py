"""A client that does nothing and remembers what it was asked, behind the real command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from buckia.cli import cli, common
from buckia.cli.errors import run
from buckia.cli.options import Settings, Target
from buckia.engine.plan import Plan
from buckia.events import (
    Difference,
    FileInfo,
    PathVersion,
    Requests,
    RestoreResult,
    SnapshotInfo,
    StatusResult,
    SyncResult,
    Traffic,
    VerifyResult,
)
from tests.cli.support import World

SAMPLE_TRAFFIC = Traffic(Requests(put=158, list=2), retries=0, bytes_uploaded=2_310_000_000, bytes_downloaded=0)


@dataclass
class Call:
    """One call of the client: its method, positional and keyword arguments."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def overrides(self) -> dict[str, Any]:
        return {key: value for key, value in self.kwargs.items() if key not in ("progress_callback", "confirm")}


@dataclass
class StubClient:
    """Answers with ``results`` by method name, or raises them if they are errors."""

    results: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    target: Target = field(default_factory=Target)
    settings: Settings = field(default_factory=Settings)

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append(Call("close", (), {}))

    def cancel(self, signal: int = 2) -> None:
        self.calls.append(Call("cancel", (signal,), {}))

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_") or method not in self.results:
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(Call(method, args, kwargs))
            result = self.results[method]
            if isinstance(result, BaseException):
                raise result
            return result(*args, **kwargs) if callable(result) else result

        return call

    def call(self, method: str) -> Call:
        (found,) = [call for call in self.calls if call.method == method]
        return found


def sample_results() -> dict[str, Any]:
    """One plausible answer for each method."""
    plan = Plan()
    plan.add("upload", ("clips/", "kitchen.mp4"), 9_400_000, "changed here")
    return {
        "sync": SyncResult(uploaded=412, downloaded=3, root="9c1e" * 16, snapshot="7f3a21", traffic=SAMPLE_TRAFFIC),
        "plan": plan,
        "status": StatusResult(local_path="/a", location="/b/folder", in_sync=True, root="9c1e" * 16),
        "snapshots": [SnapshotInfo("7f3a21", "2026-11-22T10:06:00Z", "amber-fox", "9c1e" * 16, 31, 2_310_000, True)],
        "ls": [FileInfo("photos/cat.jpg", "file", 1234, 1_700_000_000_000_000_000, 0o644, "aa", "sha256:00ff")],
        "diff": [Difference("a", "added", None, 5)],
        "log": [PathVersion("a", "written", "7f3a21", "2026-11-22T10:06:00Z", "amber-fox", 5, "aa")],
        "cat": [b"\x00first", b"second\xff"],
        "restore": RestoreResult(restored=30, bytes=214_000_000, bytes_reused=198_000_000, snapshot="7f3a21"),
        "verify": VerifyResult(snapshots=3, files=31, packs=2, blobs=99),
    }


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StubClient:
    """The stub, in an empty current directory."""
    stub = StubClient(sample_results())

    def open_client(settings: Settings, target: Target) -> StubClient:
        stub.settings, stub.target = settings, target
        return stub

    monkeypatch.setattr(common, "open_client", open_client)
    return stub


@pytest.fixture(autouse=True)
def _quiet_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("BUCKIA_CONFIG", "BUCKIA_LOG_LEVEL", "BUCKIA_MAX_WORKERS", "BUCKIA_STATE_DIR", "CI"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Outcome:
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        (line,) = self.out.splitlines()
        return json.loads(line)


def error_of(outcome: Outcome) -> tuple[int, str]:
    """Exit code and the one sentence; nothing else but a hint may have been printed."""
    first, *rest = outcome.err.splitlines()
    assert first.startswith("buckia: error: "), outcome.err
    assert all(line.startswith("hint: ") for line in rest), outcome.err
    return outcome.code, first.removeprefix("buckia: error: ")


@pytest.fixture
def buckia(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process."""

    def invoke(*arguments: str) -> Outcome:
        code = run(cli, list(arguments))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return invoke


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A place for a bucket and devices."""
    return World(tmp_path)
