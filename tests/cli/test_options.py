"""Command lines: documented forms parse, options may stand anywhere, and mean what configuration and API mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buckia.cli.options import Target
from buckia.cli.sync import POLICIES
from buckia.config import BuckiaConfig, ConflictResolution, SyncOptions
from buckia.errors import UsageError
from tests.cli.conftest import Outcome, StubClient, error_of

Run = Callable[..., Outcome]
PATHS = {"sync_paths": ("images/", "videos/")}


@pytest.mark.parametrize(
    ("line", "local_path", "overrides"),
    [
        ("sync", None, {}),
        ("sync --paths images/ videos/", None, PATHS),
        ("sync --paths images/ --paths videos/", None, PATHS),
        ("sync --paths images/ videos/ --delete-orphaned", None, {**PATHS, "delete_orphaned": True}),
        ("sync --paths=images/ --paths=videos/ dir", "dir", PATHS),
        ("sync dir --paths images/ videos/", "dir", PATHS),
        ("sync --paths images/ videos/ -- dir", "dir", PATHS),
        ("sync dir --to /b/f", "dir", {}),
        ("sync --to /b/f", ".", {}),
        ("sync --no-delete-orphaned", None, {"delete_orphaned": False}),
        ("sync --include .*\\.jpg$ --exclude ^\\.", None, {"include_pattern": ".*\\.jpg$", "exclude_pattern": "^\\."}),
        ("sync --conflict-resolution ask --max-workers 3", None, {"conflict_resolution": "ask", "max_workers": 3}),
        ("sync --allow-mass-delete", None, {"allow_mass_delete": True}),
        ("sync dir --folder f1", "dir", {"folder": "f1"}),
    ],
)
def test_sync_lines(buckia: Run, client: StubClient, line: str, local_path: Any, overrides: dict[str, Any]) -> None:
    assert buckia(*line.split()).code == 0
    call = client.call("sync")
    assert call.args == (local_path,)
    assert call.overrides == overrides
    assert client.calls[-1].method == "close"


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("sync --to /b/f --device-name amber-fox", Target("/b/f", None, None, "amber-fox")),
        ("sync --bucket b --folder f1", Target(None, "b", "f1")),
        ("sync dir --bucket b --folder f1", Target(None, "b", None)),
        ("snapshots --from /b/f", Target("/b/f")),
        ("ls --bucket b", Target(None, "b")),
        ("restore --folder f1", Target(None, None, "f1")),
        ("verify --from s3://b/f?endpoint=http://h:1", Target("s3://b/f?endpoint=http://h:1")),
    ],
)
def test_targets(buckia: Run, client: StubClient, line: str, target: Target) -> None:
    assert buckia(*line.split()).code == 0
    assert client.target == target


@pytest.mark.parametrize(
    ("line", "method", "args", "kwargs"),
    [
        ("status dir --to /b/f", "status", ("dir",), {}),
        ("status", "status", (None,), {}),
        ("snapshots --from /b/f", "snapshots", (), {}),
        (
            "ls --from /b/f --snapshot latest~2 -r photos",
            "ls",
            ("photos",),
            {"snapshot": "latest~2", "recursive": True},
        ),
        ("ls", "ls", ("",), {"snapshot": "latest", "recursive": False}),
        ("diff --from /b/f s1 s2", "diff", ("s1", "s2"), {}),
        ("diff --from /b/f s1", "diff", ("s1", "latest"), {}),
        ("diff --from /b/f s1 --target dir", "diff", ("s1",), {"target": "dir"}),
        ("log --from /b/f a/b", "log", ("a/b",), {}),
        ("verify --from /b/f --read-data", "verify", (), {"read_data": True}),
        (
            "restore --from /b/f --snapshot s1 a b --target dir --overwrite",
            "restore",
            ("s1", ("a", "b"), "dir"),
            {"overwrite": True, "delete_extra": False, "dry_run": False},
        ),
        (
            "restore --delete-extra --dry-run --yes",
            "restore",
            ("latest", (), None),
            {"overwrite": False, "delete_extra": True, "dry_run": True},
        ),
    ],
)
def test_other_lines(
    buckia: Run, client: StubClient, line: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert buckia(*line.split()).code == 0
    call = client.call(method)
    assert (call.args, call.overrides) == (args, kwargs)


@pytest.mark.parametrize(
    "line", ["--config .buckia-staging sync", "sync --config .buckia-staging", "sync -c .buckia-staging"]
)
def test_config_stands_before_or_after_the_command(buckia: Run, client: StubClient, line: str) -> None:
    assert buckia(*line.split()).code == 0
    assert client.settings.config == ".buckia-staging"


@pytest.mark.parametrize("line", ["-v --json -q snapshots -v", "snapshots -vv --json -q"])
def test_common_options_stand_anywhere(buckia: Run, client: StubClient, line: str) -> None:
    assert buckia(*line.split()).code == 0
    assert (client.settings.verbose, client.settings.json, client.settings.quiet) == (2, True, True)


def test_directory_is_where_the_command_works_and_only_it(buckia: Run, client: StubClient, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    seen: list[Path] = []
    client.results["snapshots"] = lambda: seen.append(Path.cwd()) or []
    assert buckia("-d", "deep", "snapshots").code == 0
    assert buckia("snapshots", "-d", "deep").code == 0
    assert seen == [tmp_path / "deep"] * 2
    assert Path.cwd() == tmp_path
    assert buckia("-d", "missing", "snapshots").code == 2


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("sync --paths", "requires at least one path"),
        ("sync --paths --dry-run", "requires at least one path"),
        ("sync a b", "unexpected extra argument"),
        ("sync --conflict-resolution newest", "is not one of"),
        ("sync --max-workers x", "'--max-workers' must be a whole number from 1 to 1024."),
        ("sync --max-workers 0", "'--max-workers' must be a whole number from 1 to 1024."),
        ("sync --paths /x", "'--paths' must hold paths relative to the folder, not '/x'."),
        ("sync --paths ../x", "'--paths' must not leave the folder, as '../x' does."),
        ("sync --include (", "'--include' is no valid regular expression: "),
        ("sync --exclude *", "'--exclude' is no valid regular expression: "),
        ("sync --to /b/f --bucket b", "reads no configuration"),
        ("restore --from /b/f", "says nothing about where to write"),
        ("diff s1 s2 --target dir", "not with both"),
        ("synk", "Did you mean 'sync'"),
        ("sync --nonsense", "No such option"),
        ("cat x --json", "cannot be printed as JSON"),
        ("init --provider s3", "--bucket-name"),
    ],
)
def test_wrong_lines_exit_2_and_say_why(buckia: Run, line: str, part: str) -> None:
    outcome = buckia(*line.split())
    assert outcome.code == 2
    assert part in outcome.err
    assert outcome.err.startswith("buckia: error: ")
    assert outcome.out == ("" if "--json" not in line else outcome.out)


@pytest.mark.parametrize("value", ["0", "x"])
def test_a_wrong_value_of_the_environment_is_told_by_its_variable(
    buckia: Run, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Nobody typed ``--max-workers``, so the message does not speak of it."""
    monkeypatch.setenv("BUCKIA_MAX_WORKERS", value)
    assert error_of(buckia("sync")) == (2, "'BUCKIA_MAX_WORKERS' must be a whole number from 1 to 1024.")


def test_workers_may_come_from_the_environment(
    buckia: Run, client: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKIA_MAX_WORKERS", "5")
    assert buckia("sync").code == 0
    assert client.call("sync").overrides == {"max_workers": 5}


def test_policies_of_the_command_are_those_of_the_library() -> None:
    assert get_args(ConflictResolution) == POLICIES


PATTERNS = st.sampled_from([r".*\.(jpg|png|gif)$", r"^\..*", "a b", "x"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "delete_orphaned": st.booleans(),
        "max_workers": st.integers(1, 1024),
        "include_pattern": PATTERNS,
        "exclude_pattern": PATTERNS,
        "conflict_resolution": st.sampled_from(POLICIES),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(values=OPTIONS)
def test_flag_key_and_argument_are_one_option(buckia: Run, client: StubClient, values: dict[str, Any]) -> None:
    """The same values, written as flags, as configuration keys and as keyword arguments, are the same options."""
    by_argument = SyncOptions().override(**values)
    entry = {"provider": "local", "bucket_name": "b", **values}
    by_key = BuckiaConfig.from_text(yaml.safe_dump({"a": entry})).select().options()
    flags: list[str] = []
    for name, value in values.items():
        flag = f"--{name.removesuffix('_pattern').replace('_', '-')}"
        flags += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    client.calls.clear()
    assert buckia("sync", *flags).code == 0
    by_flag = SyncOptions().override(**client.call("sync").overrides)
    assert by_argument == by_key == by_flag


def test_no_option_at_all_means_the_same_defaults(buckia: Run, client: StubClient) -> None:
    buckia("sync")
    by_key = BuckiaConfig.from_text("a: {provider: local, bucket_name: b}").select().options()
    assert SyncOptions() == by_key == by_key.override(**client.call("sync").overrides)
    assert (by_key.delete_orphaned, by_key.max_workers, by_key.conflict_resolution) == (False, 8, "local_wins")
    assert by_key.checksum_algorithm == "sha256"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["images/", "documents/important.pdf"], ("images", "documents/important.pdf")),
        ("images/", ("images",)),
        (["a", "./a//", "a/./b"], ("a", "a/b")),
        (["a", "."], ()),
        ([Path("a/b")], ("a/b",)),
    ],
)
def test_sync_paths_are_components(given: Any, kept: tuple[str, ...]) -> None:
    assert SyncOptions(sync_paths=given).sync_paths == kept


@pytest.mark.parametrize(
    "values",
    [
        {"sync_paths": ["../x"]},
        {"sync_paths": ["/x"]},
        {"sync_paths": [""]},
        {"sync_paths": 3},
        {"max_workers": 0},
        {"max_workers": True},
        {"delete_orphaned": "yes"},
        {"include_pattern": "("},
        {"conflict_resolution": "newest"},
        {"checksum_algorithm": "crc32"},
        {"folder": "a/b"},
        {"folder": "_buckia"},
    ],
)
def test_senseless_options_are_refused_by_name(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(UsageError, match=f"'{name}'"):
        SyncOptions().override(**values)


def test_an_unknown_option_is_met_with_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        SyncOptions().override(delete_orphan=True)
    assert caught.value.hint == "Did you mean 'delete_orphaned'?"
