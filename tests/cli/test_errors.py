"""Errors: one line, a hint, the right exit code, and JSON for those who asked for it."""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import buckia as library
from buckia import errors
from buckia.cli import COMMANDS, cli, common
from buckia.cli.options import Settings, Target
from buckia.errors import BucketError, BuckiaError, CancelledError, ConfigError, IntegrityError, RefusedError
from buckia.events import RestoreResult
from tests.cli.conftest import Outcome, StubClient

Run = Callable[..., Outcome]
CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, BuckiaError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_one_line_a_hint_and_its_exit_code(buckia: Run, client: StubClient, kind: type) -> None:
    error = kind("It broke at a\x1bb.") if kind is CancelledError else kind("It broke at a\x1bb.", hint="Mend it.")
    client.results["snapshots"] = error
    outcome = buckia("snapshots")
    assert outcome.code == error.exit_code
    hint = "hint: Mend it.\n" if error.hint else ""
    assert outcome.err == f"buckia: error: It broke at a\\x1bb.\n{hint}"
    assert outcome.out == ""


def test_json_errors_are_an_object_on_stdout(buckia: Run, client: StubClient) -> None:
    client.results["sync"] = IntegrityError("Broken.", hint="Verify.")
    outcome = buckia("sync", "--json")
    assert outcome.code == 8
    assert outcome.json == {
        "error": {"type": "IntegrityError", "message": "Broken.", "hint": "Verify.", "exit_code": 8}
    }
    assert outcome.err == "buckia: error: Broken.\nhint: Verify.\n"
    usage = buckia("sync", "--nonsense", "--json")
    assert (usage.code, usage.json["error"]["type"]) == (2, "UsageError")


@pytest.mark.parametrize("flag", ["-v", "-vv"])
@pytest.mark.parametrize("expected", [True, False])
def test_tracebacks_hold_no_secret_and_steer_no_terminal(
    buckia: Run, client: StubClient, flag: str, expected: bool
) -> None:
    """Though the library's exception below repeats what a server repeated."""
    errors.hide("SESSIONSECRET0123", "SECRET")
    cause = ValueError("the server: SESSIONSECRET0123 \x1b[2J SECRET is odd")
    error = BucketError("Denied.") if expected else RuntimeError("SECRET, unexpected")
    error.__cause__ = cause
    client.results["snapshots"] = error
    outcome = buckia("snapshots", flag)
    assert "SECRET" not in outcome.err
    assert "\x1b" not in outcome.err
    assert ("ValueError: the server: *** \\x1b[2J *** is odd" in outcome.err) == (not expected or flag == "-vv")


def test_unexpected_errors_are_one_line_and_a_traceback_on_request(buckia: Run, client: StubClient) -> None:
    client.results["snapshots"] = KeyError("x")
    outcome = buckia("snapshots")
    assert outcome.code == 1
    assert outcome.err.startswith("buckia: error: Unexpected KeyError: 'x'.\nhint: ")
    assert "Traceback" not in outcome.err
    assert "Traceback" in buckia("snapshots", "-v").err
    client.results["snapshots"] = PermissionError(13, "Permission denied", "/x")
    outcome = buckia("snapshots")
    assert (outcome.code, outcome.err.splitlines()[0]) == (5, "buckia: error: Permission denied (/x).")


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    script = "import sys; from buckia.cli import main; main(['--help'])"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, cwd=_root(), check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_without_configuration_the_hint_says_what_to_do(buckia: Run) -> None:
    outcome = buckia("sync")
    assert outcome.code == 2
    assert "There is no configuration file (.buckia)" in outcome.err
    assert "buckia init" in outcome.err
    assert "--to LOCATION" in outcome.err


def test_a_configuration_file_is_found_above_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".buckia").write_text("a: {provider: local, bucket_name: b}")
    (tmp_path / "other").write_text("c: {provider: local, bucket_name: b}")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert list(common.load_config(Settings())) == ["a"]
    monkeypatch.setenv("BUCKIA_CONFIG", "../other")
    assert list(common.load_config(Settings())) == ["c"]
    assert list(common.load_config(Settings(config="../.buckia"))) == ["a"]
    with pytest.raises(ConfigError, match="no configuration file"):
        common.load_config(Settings(config="missing"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_the_file_of_another_user_above_is_not_used_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".buckia").write_text("a: {provider: local, bucket_name: b}")
    os.chown(tmp_path / ".buckia", 12345, -1)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    with pytest.raises(ConfigError, match="belongs to another user"):
        common.load_config(Settings())
    assert list(common.load_config(Settings(config=str(tmp_path / ".buckia")))) == ["a"]


@pytest.mark.parametrize(
    ("terminal", "ci", "asks"), [(True, None, True), (True, "true", False), (True, "false", True), (False, None, False)]
)
def test_questions_are_asked_at_terminals_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, ci: str | None, asks: bool
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    assert common.interactive() is asks


def test_without_a_terminal_the_client_gets_no_answer(buckia: Run, client: StubClient) -> None:
    client.results["sync"] = RefusedError("30 of 40 files would be deleted.")
    assert buckia("sync").code == 10
    assert client.call("sync").kwargs["confirm"] is None
    buckia("restore")
    assert client.call("restore").kwargs["confirm"] is None
    client.calls.clear()
    buckia("restore", "--yes")
    assert client.call("restore").kwargs["confirm"]("Sure?") is True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_and_decides_the_exit_code(buckia: Run, client: StubClient, number: int, code: int) -> None:
    before = signal.getsignal(number)

    def sync(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == before
        raise CancelledError(signal=client.call("cancel").args[0])

    client.results["sync"] = sync
    outcome = buckia("sync")
    assert (outcome.code, outcome.err) == (code, "buckia: error: Stopped.\n")
    assert signal.getsignal(number) == before


def test_an_ignored_hangup_stays_ignored(buckia: Run, client: StubClient) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        client.results["snapshots"] = lambda: os.kill(os.getpid(), signal.SIGHUP) or []
        assert buckia("snapshots").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_stops_at_once(buckia: Run, client: StubClient) -> None:
    def sync(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise BucketError("not reached")

    client.results["sync"] = sync
    assert buckia("sync").code == 130


@pytest.mark.parametrize(
    ("flags", "variable", "level"),
    [
        ([], None, logging.WARNING),
        (["-v"], None, logging.INFO),
        (["-vv"], None, logging.DEBUG),
        (["-q"], None, logging.ERROR),
        ([], "debug", logging.DEBUG),
        (["-v"], "DEBUG", logging.DEBUG),
    ],
)
def test_logging_is_set_up_by_the_command_alone(
    buckia: Run, client: StubClient, monkeypatch: pytest.MonkeyPatch, flags: list[str], variable: str | None, level: int
) -> None:
    root = list(logging.getLogger().handlers)
    if variable:
        monkeypatch.setenv("BUCKIA_LOG_LEVEL", variable)
    assert buckia("snapshots", *flags).code == 0
    assert logging.getLogger("buckia").level == level
    assert logging.getLogger().handlers == root


def test_log_lines_are_clean(buckia: Run, client: StubClient) -> None:
    client.results["snapshots"] = lambda: logging.getLogger("buckia.x").warning("skipped %s", "a\x1b[2J") or []
    assert buckia("snapshots").err == "buckia: warning: skipped a\\x1b[2J\n"


def test_an_unknown_log_level_is_a_usage_error(
    buckia: Run, client: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKIA_LOG_LEVEL", "loud")
    assert buckia("snapshots").code == 2


def test_the_static_help_is_that_of_the_commands() -> None:
    group = cli
    context = group.make_context("buckia", ["sync"])
    for name, (_, text) in COMMANDS.items():
        command = group.get_command(context, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(200)) == (name, text)


@pytest.mark.parametrize("line", ["--help", "--version", "sync --help", "restore -h", "config show --help"])
def test_help_imports_nothing_heavy(line: str) -> None:
    script = f"""
import sys
from buckia.cli import cli
from buckia.cli.errors import run
code = run(cli, {line.split()!r})
heavy = {{"pydantic", "boto3", "yaml", "rich", "blake3", "zstandard", "msgpack", "numpy", "sqlite3"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=_root(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "buckia" in done.stdout


def test_completion_works() -> None:
    environment = {**os.environ, "_BUCKIA_COMPLETE": "bash_complete", "COMP_WORDS": "buckia sn", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "buckia"], capture_output=True, text=True, cwd=_root(), env=environment, check=False
    )
    assert done.stdout == "plain,snapshots\n"


@pytest.mark.parametrize("line", ["", "config"])
def test_a_command_without_its_command_shows_help(buckia: Run, line: str) -> None:
    outcome = buckia(*line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: buckia")
    assert "\n  config " in outcome.err or "\n  validate " in outcome.err


def test_version(buckia: Run) -> None:
    assert buckia("--version").out == f"buckia {library.__version__}\n"


def test_public_names_exist_and_importing_them_changes_no_logging() -> None:
    handlers = list(logging.getLogger().handlers)
    for name in library.__all__:
        if name != "BuckiaClient":
            assert getattr(library, name) is not None
    assert logging.getLogger().handlers == handlers
    public = {item.__name__ for item in CLASSES}
    assert public <= set(library.__all__)
    with pytest.raises(AttributeError):
        library.nonsense  # noqa: B018


def test_locations_do_not_mix_with_configuration() -> None:
    for settings, target in ((Settings(config="x"), Target("/b/f")), (Settings(), Target("/b/f", None, "f"))):
        with pytest.raises(errors.UsageError, match="reads no configuration"):
            common.open_client(settings, target)


def _root() -> Path:
    return Path(__file__).parents[2]


def test_json_error_text_survives_any_encoding(buckia: Run, client: StubClient) -> None:
    client.results["snapshots"] = errors.NotFoundError("There is no '猫\udcff'.")
    outcome = buckia("snapshots", "--json")
    assert outcome.out.isascii()
    assert json.loads(outcome.out)["error"]["message"] == "There is no '猫\udcff'."


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_question_is_asked_on_stderr_and_no_is_the_default(
    buckia: Run, client: StubClient, monkeypatch: pytest.MonkeyPatch, answer: str, agreed: bool
) -> None:
    monkeypatch.setattr(common, "interactive", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    answers: list[bool] = []
    client.results["restore"] = lambda *args, confirm, **kwargs: (
        answers.append(confirm("Replace 3\x1b files?")) or (RestoreResult())
    )
    outcome = buckia("restore", "--json")
    assert answers == [agreed]
    assert "Replace 3\\x1b files? [y/N]" in outcome.err
    assert outcome.json["restored"] == 0
