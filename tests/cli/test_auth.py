"""``buckia auth`` keeps secrets in the keyring and says where each comes from; none is ever shown or left behind."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from keyring.backends import fail

from buckia import BucketConfig, BuckiaClient
from buckia.cli import auth, cli
from buckia.config import BuckiaConfig
from buckia.errors import AccessDenied, AuthenticationError, BucketError, BuckiaError, UsageError
from buckia.sync import factory
from buckia.sync.base import BaseSync, Page
from buckia.sync.factory import BackendConfig
from buckia.sync.memory import MemorySync
from tests.cli.conftest import Outcome, error_of
from tests.support.keyrings import MemoryKeyring, installed

Run = Callable[..., Outcome]
Type = Callable[[str], None]

SECRET = "HUSH"
"""Every secret of these tests begins so."""
FILE = """\
namespace: team
notes: {provider: b2, bucket_name: my-notes, token_context: staging}
clips: {provider: bunny, bucket_name: my-clips}
assets: {provider: s3, bucket_name: my-assets}
here: {provider: local, bucket_name: bucket}
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    for name in os.environ:
        if name.startswith(("AWS_", "B2_", "BUNNY", "LINODE_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def ring() -> Iterator[MemoryKeyring]:
    backend = MemoryKeyring()
    with installed(backend):
        yield backend


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A configuration in the current directory."""
    (tmp_path / ".buckia").write_text(FILE)
    return tmp_path


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Type:
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody who types these answers where nothing is echoed, and y or n elsewhere; the questions are remembered."""

    def answering(*answers: str) -> list[str]:
        left, questions = list(answers), []

        def answer(prompt: str) -> str:
            questions.append(prompt)
            return left.pop(0)

        monkeypatch.setattr(auth, "interactive", lambda: True)
        monkeypatch.setattr(click.termui, "hidden_prompt_func", answer)
        monkeypatch.setattr(click.termui, "visible_prompt_func", answer)
        return questions

    return answering


# ---- set


def test_set_asks_for_what_an_entry_needs_without_echo(
    buckia: Run, project: Path, person: Callable[..., list[str]], ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = person("HUSH1", "HUSH2")
    monkeypatch.setattr(click.termui, "visible_prompt_func", None)
    outcome = buckia("auth", "set", "--bucket", "notes")
    assert outcome.code == 0
    assert [question.split(" (")[0] for question in questions] == ["access_key_id", "secret_access_key"]
    assert ring.secrets[("buckia_team_staging", "access_key_id")] == "HUSH1"
    assert ring.secrets[("buckia_team_staging", "secret_access_key")] == "HUSH2"
    assert outcome.out == "Stored access_key_id, secret_access_key in the keyring (buckia_team_staging).\n"
    assert SECRET not in outcome.out + outcome.err


def test_set_for_bunny_may_leave_out_what_is_not_for_storage(
    buckia: Run, person: Callable[..., list[str]], ring: MemoryKeyring
) -> None:
    questions = person("HUSH", "", "")
    outcome = buckia("auth", "set", "--provider", "bunny", "--json")
    assert outcome.json == {"context": "bunny", "service": "buckia_default_bunny", "stored": ["storage_api_key"]}
    assert ["may be left empty" in question for question in questions] == [False, True, True]
    assert {key for key in ring.secrets if key[0] != "buckia"} == {("buckia_default_bunny", "storage_api_key")}


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (["--provider", "b2"], "buckia_team_b2"),
        (["--provider", "b2", "--context", "mine"], "buckia_team_mine"),
        (["--bucket", "notes"], "buckia_team_staging"),
        (["--bucket", "notes", "--context", "mine"], "buckia_team_mine"),
        (["--bucket", "assets"], "buckia_team_assets"),
    ],
)
def test_set_from_stdin(
    buckia: Run, project: Path, stdin: Type, ring: MemoryKeyring, arguments: list[str], service: str
) -> None:
    stdin("# of the vault\n\nKEY_ID=HUSH=1\n secret_access_key =HUSH2 \r\n")
    outcome = buckia("auth", "set", "--stdin", *arguments, "--json")
    assert outcome.json["service"] == service
    assert ring.secrets[(service, "access_key_id")] == "HUSH=1"
    assert ring.secrets[(service, "secret_access_key")] == "HUSH2"
    assert SECRET not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HUSH", "Line 1 of stdin is not NAME=VALUE with the name of a secret."),
        ("key_id=HUSH\nHUSHbase64==", "Line 2 of stdin is not NAME=VALUE with the name of a secret."),
        ("key_id=HUSH\nKEY_ID=HUSH", "Line 2 of stdin names key_id again."),
        ("key_id=HUSH", "There is no secret_access_key, so nothing was stored."),
        ("", "No secret was entered, so nothing was stored."),
        ("token_key=HUSH", "The provider b2 has no token_key."),
        ("key_id=HU\x07SH\napplication_key=x", "holds a line break or another control character"),
        ("# HUSH" * 20_000, "There is too much on stdin for a few secrets."),
    ],
)
def test_what_is_wrong_on_stdin_is_named_by_line_and_never_shown(
    buckia: Run, stdin: Type, ring: MemoryKeyring, text: str, message: str
) -> None:
    stdin(text)
    outcome = buckia("auth", "set", "--provider", "b2", "--stdin", "-vv", "--json")
    assert outcome.code in (2, 3)
    assert message in outcome.json["error"]["message"]
    assert "SH" not in (outcome.out + outcome.err).replace("HUSHx", "")
    assert ring.secrets == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("set --provider b2", "Nobody can be asked for secrets here."),
        ("set --provider b2 --bucket notes", "--provider and --bucket exclude each other."),
        ("set --provider b2 --context a/b", "'--context' must be 1 to 64 letters"),
        ("set --bucket here --stdin", "The provider local needs no credentials."),
        ("set --bucket nowhere", "There is no bucket entry 'nowhere'."),
        ("set", "The configuration holds several bucket entries"),
        ("set --provider b2 HUSH", "Got unexpected extra argument"),
        ("set --provider b2 --access-key-id HUSH", "No such option"),
    ],
)
def test_wrong_arguments(buckia: Run, project: Path, arguments: str, message: str) -> None:
    code, said = error_of(buckia("auth", *arguments.split()))
    assert code == 2
    assert message in said


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_keyring_nobody_is_asked(
    buckia: Run, person: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    questions = person("HUSH", "HUSH")
    with installed(fail.Keyring()):
        if missing:
            monkeypatch.setitem(sys.modules, "keyring", None)
        outcome = buckia("auth", "set", "--provider", "b2")
        assert (outcome.code, questions) == (2, [])
        assert "keyring" in error_of(outcome)[1]
        assert "B2_APPLICATION_KEY_ID" in outcome.err
        assert 'pip install "buckia[keyring]"' in outcome.err
        assert buckia("auth", "remove", "b2", "--yes").code == 2
        outcome = buckia("auth", "list")
        assert (outcome.code, outcome.out) == (0, "")
        assert "keyring" in outcome.err
        assert buckia("auth", "list", "--json").json == {"keyring": False, "contexts": [], "buckets": []}


# ---- list and remove


@pytest.fixture
def kept(project: Path, ring: MemoryKeyring, buckia: Run, stdin: Type) -> None:
    """Secrets of two contexts."""
    for arguments in (["--bucket", "notes"], ["--provider", "s3", "--context", "spare"]):
        stdin("access_key_id=HUSH1\nsecret_access_key=HUSH2")
        assert buckia("auth", "set", "--stdin", *arguments).code == 0


@pytest.mark.usefixtures("kept")
def test_list_shows_names_and_places(buckia: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKIA_CLIPS_PASSWORD", "HUSH3")
    shown = buckia("auth", "list")
    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines()] == [
        ["CONTEXT", "NAMESPACE", "SECRETS"],
        ["spare", "team", "access_key_id,", "secret_access_key"],
        ["staging", "team", "access_key_id,", "secret_access_key"],
        ["BUCKET", "PROVIDER", "SECRET", "SOURCE"],
        ["notes", "b2", "access_key_id", "keyring", "(buckia_team_staging)"],
        ["notes", "b2", "secret_access_key", "keyring", "(buckia_team_staging)"],
        ["clips", "bunny", "storage_api_key", "environment", "(BUCKIA_CLIPS_PASSWORD)"],
        "assets s3 - as the AWS tools find them: profile, single sign-on, the machine's role".split(),
        ["here", "local", "-", "none", "needed"],
    ]
    listed = buckia("auth", "list", "--json", "-vv")
    assert listed.json["contexts"][1] == {
        "namespace": "team",
        "context": "staging",
        "secrets": ["access_key_id", "secret_access_key"],
    }
    assert listed.json["buckets"][1]["secrets"] == {"storage_api_key": "environment (BUCKIA_CLIPS_PASSWORD)"}
    assert SECRET not in shown.out + shown.err + listed.out + listed.err


def test_list_says_what_is_missing(buckia: Run, project: Path) -> None:
    outcome = buckia("auth", "list")
    assert outcome.code == 0
    assert "There is no storage_api_key (password of the storage zone)" in outcome.out
    assert buckia("auth", "list", "--json").json["buckets"][0]["problem"].startswith("There is no access_key_id")


@pytest.mark.usefixtures("kept")
def test_remove_asks_first(buckia: Run, person: Callable[..., list[str]], ring: MemoryKeyring) -> None:
    before = dict(ring.secrets)
    assert buckia("auth", "remove", "staging").code == 10
    questions = person("n", "y")
    assert buckia("auth", "remove", "staging").code == 10
    assert ring.secrets == before
    outcome = buckia("auth", "remove", "staging")
    assert outcome.out == "Removed access_key_id, secret_access_key from the keyring (buckia_team_staging).\n"
    assert all("access_key_id, secret_access_key (buckia_team_staging)" in question for question in questions)
    assert {service for service, _ in ring.secrets} == {"buckia_team_spare", "buckia"}
    assert buckia("auth", "remove", "spare", "--yes", "--json").json["removed"] == [
        "access_key_id",
        "secret_access_key",
    ]
    assert buckia("auth", "list", "--json").json["contexts"] == []
    assert buckia("auth", "remove", "spare", "--yes").code == 6


# ---- use


class Refusing(MemorySync):
    """A bucket that answers every listing with an error."""

    error: BuckiaError

    def list_page(self, prefix: str = "", token: str | None = None) -> Page:
        raise self.error


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[BackendConfig]:
    """What the adapters of S3 were made of; they are buckets in memory."""
    made: list[BackendConfig] = []

    def make(config: BackendConfig) -> BaseSync:
        made.append(config)
        return MemorySync(config.bucket_name)

    monkeypatch.setitem(factory._registered, "s3", make)
    return made


def refuse(monkeypatch: pytest.MonkeyPatch, error: BuckiaError) -> None:
    bucket = Refusing("refusing")
    bucket.error = error
    monkeypatch.setitem(factory._registered, "s3", lambda config: bucket)


@pytest.mark.usefixtures("kept")
def test_test_connects_and_says_what_was_used(
    buckia: Run, given: list[BackendConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = buckia("auth", "test", "--bucket", "assets")
    assert outcome.code == 0
    assert outcome.out.startswith("'assets' answers. Credentials: as the AWS tools find them")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "HUSH1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HUSH2")
    outcome = buckia("auth", "test", "--bucket", "assets", "-vv")
    assert "access_key_id from environment (AWS_ACCESS_KEY_ID), secret_access_key from" in outcome.out
    assert SECRET not in outcome.out + outcome.err
    outcome = buckia("auth", "test", "--bucket", "assets", "--json")
    assert outcome.json["connected"] is True
    assert outcome.json["secrets"]["access_key_id"] == "environment (AWS_ACCESS_KEY_ID)"
    assert [dict(one.credentials) for one in given] == [
        {},
        *2 * [{"access_key_id": "HUSH1", "secret_access_key": "HUSH2"}],
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [(AuthenticationError("No."), 3), (AccessDenied("Not you."), 3), (BucketError("Down."), 4)],
)
def test_test_reports_a_refusal(
    buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch, error: BuckiaError, code: int
) -> None:
    refuse(monkeypatch, error)
    monkeypatch.setenv("BUCKIA_ASSETS_ACCESS_KEY_ID", "HUSH1")
    monkeypatch.setenv("BUCKIA_ASSETS_SECRET_ACCESS_KEY", "HUSH2")
    outcome = buckia("auth", "test", "--bucket", "assets", "-vv")
    assert outcome.code == code
    assert f"buckia: error: {error.message}" in outcome.err
    assert ("from environment (BUCKIA_ASSETS_ACCESS_KEY_ID)" in outcome.err) is (code == 3)
    assert SECRET not in outcome.out + outcome.err


def test_test_of_missing_credentials_and_missing_buckets(buckia: Run, project: Path) -> None:
    code, message = error_of(buckia("auth", "test", "--bucket", "clips"))
    assert (code, "There is no storage_api_key" in message) == (3, True)
    assert buckia("auth", "test", "--bucket", "here").code == 6
    (project / "bucket").mkdir()
    assert buckia("auth", "test", "--bucket", "here").out == "'here' answers. Credentials: none needed.\n"


def test_a_client_hands_the_adapter_what_was_found(
    project: Path, given: list[BackendConfig], ring: MemoryKeyring
) -> None:
    pair = {"access_key_id": "i", "secret_access_key": "k"}
    ring.secrets = {("buckia_team_assets", name): value for name, value in pair.items()}
    for client in (
        BuckiaClient(project / ".buckia", bucket_name="assets"),
        BuckiaClient(BucketConfig(provider="s3", bucket_name="b", api_key="i", password="k")),
        BuckiaClient(BucketConfig(provider="s3", bucket_name="b", api_key="x", password="x"), credentials=pair),
        BuckiaClient(BuckiaConfig.from_file(project / ".buckia"), bucket_name="assets", credentials=pair),
        BuckiaClient.for_location("s3://b/folder", credentials=pair),
    ):
        with client:
            assert client.test_connection()
        assert dict(given.pop().credentials) == pair


def test_credentials_are_missing_only_when_they_are_needed() -> None:
    client = BuckiaClient(BucketConfig(provider="bunny", bucket_name="my-storage-zone"))
    with pytest.raises(AuthenticationError, match="storage_api_key"):
        client.test_connection()
    client = BuckiaClient(BucketConfig(provider="s3", bucket_name="b"), credentials={"acces_key": "HUSH"})
    with pytest.raises(UsageError, match="'acces_key' is no credential") as caught:
        client.test_connection()
    assert SECRET not in f"{caught.value} {caught.value.hint} {client!r} {client.config!r}"


# ---- nothing is left behind


def test_a_sync_leaves_no_secret_anywhere(
    buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch, ring: MemoryKeyring
) -> None:
    """Neither in what is printed at the highest verbosity, nor in the local state, nor in the bucket."""
    secrets = "".join(
        f", {name}: HUSH-{name}" for name in ("api_key", "password", "access_key_id", "secret_access_key")
    )
    (project / ".buckia").write_text(
        f"here: {{provider: local, bucket_name: bucket, folders: [f], paths: [files]{secrets},"
        " credentials: {token_key: HUSH}, provider_settings: {durable: false}}\n"
    )
    (project / ".buckia").chmod(0o600)
    for name in ("AWS_SECRET_ACCESS_KEY", "BUNNY_STORAGE_API_KEY", "BUCKIA_HERE_PASSWORD", "B2_APPLICATION_KEY"):
        monkeypatch.setenv(name, f"HUSH-{name}")
    ring.secrets[("buckia_default_here", "password")] = "HUSH-keyring"
    (project / "files/f").mkdir(parents=True)
    (project / "files/f/note").write_text("text")
    printed = ""
    for line in ("sync -vv", "sync -vv --json", "status -vv", "verify -vv --read-data", "config show", "auth list -vv"):
        outcome = buckia(*line.split())
        assert outcome.code == 0, outcome.err
        printed += outcome.out + outcome.err
    for pack in (project / "bucket/f/_buckia/packs").rglob("*/*"):
        pack.write_bytes(b"damage")
    for line in ("verify -vv --read-data", "restore -vv --json --target out"):
        outcome = buckia(*line.split())
        assert outcome.code != 0
        printed += outcome.out + outcome.err
    assert SECRET not in printed
    looked_at = 0
    for place in ("state", "bucket", "files"):
        for path in (project / place).rglob("*"):
            if path.is_file():
                looked_at += 1
                assert SECRET.encode() not in path.read_bytes(), path
    assert looked_at > 5


def test_no_secret_in_logs_and_errors_of_a_run_that_fails(
    buckia: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, AccessDenied("Not you."))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "HUSH1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HUSH2")
    monkeypatch.setenv("BUCKIA_ASSETS_ACCESS_KEY_ID", "HUSH3")
    outcome = buckia("snapshots", "--bucket", "assets", "-vv", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["error"]["type"] == "AccessDenied"
    assert "AWS_ACCESS_KEY_ID" in outcome.err
    assert "BUCKIA_ASSETS_ACCESS_KEY_ID" in outcome.err
    assert SECRET not in outcome.out + outcome.err


def test_the_commands_of_the_group_are_these() -> None:
    command = cli.get_command(click.Context(cli), "auth")
    assert isinstance(command, click.Group)
    assert list(command.commands) == ["set", "list", "remove", "test"]
    assert logging.getLogger("buckia.credentials").level == logging.NOTSET
