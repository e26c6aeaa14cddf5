"""Credentials come from the first place that has them whole; a pair is never put together; only places are shown."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from keyring.backends import fail, null
from pydantic import SecretStr

from buckia import credentials
from buckia.config import BucketConfig, BuckiaConfig
from buckia.config.bucket import SECRET_KEYS
from buckia.credentials import GIVEN, Context, resolve
from buckia.errors import AuthenticationError, ConfigError, LocalError, MissingExtraError, UsageError
from tests.support.keyrings import MemoryKeyring, installed


@pytest.fixture(autouse=True)
def ring() -> Iterator[MemoryKeyring]:
    backend = MemoryKeyring()
    with installed(backend):
        yield backend


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands of other tests set up does not decide what is logged here."""
    logger = logging.getLogger("buckia")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)


def entry(tmp_path: Path, text: str, name: str = "notes", top: str = "") -> BucketConfig:
    """An entry that was read from a file."""
    file = tmp_path / ".buckia"
    file.write_text(f"{top}\n{name}: {{bucket_name: b, {text}}}\n", encoding="utf-8")
    return BuckiaConfig.from_file(file)[name]


def code(provider: str, **keys: Any) -> BucketConfig:
    """An entry that a program made."""
    return BucketConfig(provider=provider, bucket_name="b", **keys)


# ---- order

NEEDED = {
    "s3": ("access_key_id", "secret_access_key"),
    "linode": ("access_key_id", "secret_access_key"),
    "b2": ("access_key_id", "secret_access_key"),
    "bunny": ("storage_api_key",),
}
ENVIRONMENT = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "linode": ("LINODE_CLI_OBJ_ACCESS_KEY", "LINODE_CLI_OBJ_SECRET_KEY"),
    "b2": ("B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY"),
    "bunny": ("BUNNY_STORAGE_API_KEY",),
}


@pytest.mark.parametrize("provider", NEEDED)
@pytest.mark.parametrize("from_file", [True, False])
def test_the_order_of_places(provider: str, from_file: bool, tmp_path: Path, ring: MemoryKeyring) -> None:
    names = NEEDED[provider]

    def values(place: str) -> dict[str, str]:
        return {name: f"{name} {place}" for name in names}

    own = values("own")
    if from_file:
        text = ", ".join(f"{name}: {value}" for name, value in own.items())
        config = entry(tmp_path, f"provider: {provider}, {text}", top="namespace: team")
    else:
        config = code(provider, credentials=own)
    given = values("given")
    environ = {f"BUCKIA_NOTES_{name.upper()}": f"{name} context" for name in names}
    environ |= {f"BUCKIA_TEAM_NOTES_{name.upper()}": f"{name} namespace" for name in names}
    environ |= {variable: f"{name} provider" for variable, name in zip(ENVIRONMENT[provider], names, strict=True)}
    ring.secrets = {("buckia_team_notes", name): f"{name} keyring" for name in names}
    ring.secrets |= {(f"buckia_team_{provider}", name): f"{name} keyring of all" for name in names}

    order = ["given", "namespace", "context", "provider", "keyring", "keyring of all", "own"]
    for place in order if from_file else ["given", "own"]:
        found = resolve(config, given, environ)
        assert found.reveal() == values(place)
        if place == "given":
            given = {}
        elif place.startswith("keyring"):
            assert set(found.sources.values()) == {
                f"keyring (buckia_team_{'notes' if place == 'keyring' else provider})"
            }
            ring.secrets = {key: value for key, value in ring.secrets.items() if not value.endswith(f" {place}")}
        elif place != "own":
            environ = {key: value for key, value in environ.items() if not value.endswith(f" {place}")}
    assert set(found.sources.values()) == {"configuration file" if from_file else GIVEN}


@pytest.mark.parametrize(
    ("provider", "environ", "name", "source"),
    [
        ("s3", {"AWS_ACCESS_KEY_ID": "1", "AWS_SECRET_ACCESS_KEY": "2"}, "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("linode", {"LINODE_OBJ_ACCESS_KEY": "1", "LINODE_OBJ_SECRET_KEY": "2"}, None, "LINODE_OBJ_ACCESS_KEY"),
        ("b2", {"BUCKIA_B2_API_KEY": "1", "BUCKIA_B2_PASSWORD": "2"}, "secret_access_key", "BUCKIA_B2_PASSWORD"),
        ("b2", {"BUCKIA_B_ACCESS_KEY_ID": "1", "BUCKIA_B_PASSWORD": "2"}, None, "BUCKIA_B_ACCESS_KEY_ID"),
        ("bunny", {"BUNNY_STORAGE_PASSWORD": "1"}, "storage_api_key", "BUNNY_STORAGE_PASSWORD"),
        ("bunny", {"BUCKIA_BUNNY_PASSWORD": "1"}, "storage_api_key", "BUCKIA_BUNNY_PASSWORD"),
        ("bunny", {"BUNNY_STORAGE_API_KEY": "1", "BUNNYNET_API_KEY": "2"}, "api_key", "BUNNYNET_API_KEY"),
        ("bunny", {"BUNNY_STORAGE_API_KEY": "1", "BUNNY_API_KEY": "2"}, "api_key", "BUNNY_API_KEY"),
        ("bunny", {"BUNNY_STORAGE_API_KEY": "1", "BUNNY_TOKEN_KEY": "2"}, "token_key", "BUNNY_TOKEN_KEY"),
    ],
)
def test_names_in_the_environment(provider: str, environ: dict[str, str], name: str | None, source: str) -> None:
    found = resolve(code(provider), environ=environ)
    assert found.sources[name or NEEDED[provider][0]] == f"environment ({source})"
    assert found.reveal()[name or NEEDED[provider][0]] == environ[source]


def test_a_context_replaces_the_names_of_entry_and_provider(tmp_path: Path, ring: MemoryKeyring) -> None:
    config = entry(tmp_path, "provider: bunny, token_context: my-staging.2", top="namespace: team")
    environ = {"BUCKIA_NOTES_PASSWORD": "entry", "BUCKIA_BUNNY_PASSWORD": "provider"}
    ring.secrets[("buckia_team_bunny", "storage_api_key")] = "provider"
    with pytest.raises(AuthenticationError):
        resolve(config, environ=environ)
    ring.secrets[("buckia_team_my-staging.2", "storage_api_key")] = "kept"
    assert resolve(config, environ=environ).reveal() == {"storage_api_key": "kept"}
    environ["buckia_team_my-staging.2"] = "single token"
    assert resolve(config, environ=environ).reveal() == {"storage_api_key": "single token"}
    environ["BUCKIA_MY_STAGING_2_PASSWORD"] = "named"
    assert resolve(config, environ=environ).reveal() == {"storage_api_key": "named"}


def test_a_context_is_a_plain_word() -> None:
    for wrong in ("", "a b", "-a", "a/b", "a" * 65, "ä"):
        with pytest.raises(ConfigError, match="'token_context' must be 1 to 64"):
            code("b2", token_context=wrong)


def test_what_stands_in_a_file_is_told_from_what_a_program_gives(tmp_path: Path) -> None:
    values = {"provider": "bunny", "bucket_name": "b", "password": "own"}
    environ = {"BUNNY_STORAGE_API_KEY": "environment"}
    (tmp_path / "c.json").write_text('{"provider": "bunny", "bucket_name": "b", "password": "own"}')
    read = BuckiaConfig.from_file(tmp_path / "c.json").select()
    for config, expected in (
        (BucketConfig(**values), "own"),
        (BuckiaConfig.from_mapping({"x": values}).select().with_folder("f"), "own"),
        (read, "environment"),
        (read.with_folder("f"), "environment"),
    ):
        assert resolve(config, environ=environ).reveal() == {"storage_api_key": expected}


@pytest.mark.parametrize("provider", ["local", "memory"])
def test_some_providers_need_none(provider: str, ring: MemoryKeyring) -> None:
    found = resolve(code(provider, api_key="x"), environ={"AWS_ACCESS_KEY_ID": "half"})
    assert (found.values, found.sources, ring.reads) == ({}, {}, 0)


def test_s3_without_any_leaves_the_search_to_its_own_tools() -> None:
    assert resolve(code("s3"), environ={}).reveal() == {}


def test_a_profile_is_not_overruled_by_what_is_there_for_everyone(tmp_path: Path, ring: MemoryKeyring) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "1", "AWS_SECRET_ACCESS_KEY": "2"}
    ring.secrets = {("buckia_default_s3", name): "x" for name in NEEDED["s3"]}
    config = entry(tmp_path, "provider: s3, provider_settings: {profile: p}")
    assert resolve(config, environ=environ).reveal() == {}
    environ |= {"BUCKIA_OWN_ACCESS_KEY_ID": "3", "BUCKIA_OWN_SECRET_ACCESS_KEY": "4"}
    config = entry(tmp_path, "provider: s3, token_context: own, provider_settings: {profile: p}")
    assert resolve(config, environ=environ).reveal() == {"access_key_id": "3", "secret_access_key": "4"}


def test_a_provider_of_another_package_gets_what_the_first_place_has(tmp_path: Path, ring: MemoryKeyring) -> None:
    config = code("acme", credentials={"tenant": "t", "password": "p"})
    assert resolve(config, environ={"BUCKIA_ACME_API_KEY": "k"}).reveal() == {"tenant": "t", "password": "p"}
    assert resolve(code("acme"), environ={"BUCKIA_ACME_API_KEY": "k"}).reveal() == {"api_key": "k"}
    ring.secrets = {("buckia_default_acme", "password"): "kept"}
    assert resolve(code("acme"), environ={}).reveal() == {"password": "kept"}
    assert resolve(code("other"), environ={}).reveal() == {}


# ---- pairs


def test_a_pair_is_never_put_together_from_two_places(tmp_path: Path, ring: MemoryKeyring) -> None:
    """Every way in which five places hold nothing, one half, the other half, or both."""
    names = NEEDED["b2"]
    states: list[tuple[str, ...]] = [(), names[:1], names[1:], names]
    places = ("given", "context", "provider", "keyring", "file")
    files = {}
    for held in states:
        text = "".join(f", {name}: file" for name in held)
        files[held] = entry(tmp_path, f"provider: b2{text}")
    logging.getLogger("buckia.credentials").setLevel(logging.CRITICAL)
    try:
        for combination in itertools.product(states, repeat=len(places)):
            given, context, provider, kept, file = combination
            environ = {f"BUCKIA_NOTES_{name.upper()}": "context" for name in context}
            environ |= {ENVIRONMENT["b2"][names.index(name)]: "provider" for name in provider}
            ring.secrets = {("buckia_default_notes", name): "keyring" for name in kept}
            whole = [place for place, held in zip(places, combination, strict=True) if held == names]
            if whole:
                found = resolve(files[file], dict.fromkeys(given, "given"), environ).reveal()
                assert found == dict.fromkeys(names, whole[0])
            else:
                with pytest.raises(AuthenticationError):
                    resolve(files[file], dict.fromkeys(given, "given"), environ)
    finally:
        logging.getLogger("buckia.credentials").setLevel(logging.NOTSET)


@pytest.mark.parametrize("provider", ["s3", "b2"])
def test_half_a_pair_is_named(provider: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = entry(tmp_path, f"provider: {provider}, secret_access_key: HUSH")
    with pytest.raises(AuthenticationError) as caught:
        resolve(config, environ={})
    assert caught.value.message == ("'notes': configuration file: there is secret_access_key, but no access_key_id.")
    assert "HUSH" not in f"{caught.value.message} {caught.value.hint}"
    environ = {"BUCKIA_NOTES_ACCESS_KEY_ID": "HUSH", **dict.fromkeys(ENVIRONMENT[provider], "whole")}
    assert set(resolve(config, environ=environ).reveal().values()) == {"whole"}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "BUCKIA_NOTES_ACCESS_KEY_ID" in warning
    assert "HUSH" not in warning


def test_a_session_token_stays_with_its_pair(tmp_path: Path) -> None:
    pair = {"AWS_ACCESS_KEY_ID": "1", "AWS_SECRET_ACCESS_KEY": "2"}
    config = entry(tmp_path, "provider: s3, access_key_id: i, secret_access_key: k, session_token: of the file")
    assert resolve(config, environ=pair).reveal() == {"access_key_id": "1", "secret_access_key": "2"}
    found = resolve(config, environ=pair | {"AWS_SESSION_TOKEN": "3"})
    assert found.reveal() == {"access_key_id": "1", "secret_access_key": "2", "session_token": "3"}
    assert found.sources["session_token"] == "environment (AWS_SESSION_TOKEN)"
    assert resolve(config, environ={"AWS_SESSION_TOKEN": "3"}).reveal()["session_token"] == "of the file"
    assert "session_token" not in resolve(code("b2", **config.secrets()), environ={}).reveal()


# ---- what is missing or wrong


@pytest.mark.parametrize(
    ("provider", "words", "variables"),
    [
        ("linode", "There is no access_key_id and no secret_access_key for", "LINODE_CLI_OBJ_SECRET_KEY"),
        ("b2", "no secret_access_key (application key) for", "B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY"),
        ("bunny", "no storage_api_key (password of the storage zone) for", "BUNNY_STORAGE_API_KEY"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(provider: str, words: str, variables: str, tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError) as caught:
        resolve(entry(tmp_path, f"provider: {provider}", name="my notes"), environ={})
    assert caught.value.exit_code == 3
    assert f"{words} the bucket entry 'my notes' ({provider})." in caught.value.message
    assert variables in str(caught.value.hint)
    assert "`buckia auth set --bucket 'my notes'`" in str(caught.value.hint)
    with pytest.raises(AuthenticationError) as caught:
        resolve(code(provider, token_context="c"), environ={})
    assert f"`buckia auth set --provider {provider} --context c`" in str(caught.value.hint)


def test_the_key_of_bunnys_account_opens_no_storage() -> None:
    with pytest.raises(AuthenticationError, match="no storage_api_key"):
        resolve(code("bunny", api_key="HUSH"), environ={"BUNNYNET_API_KEY": "HUSH"})


def test_empty_ones_do_not_count_and_white_space_is_no_part(tmp_path: Path, ring: MemoryKeyring) -> None:
    config = entry(tmp_path, "provider: bunny, storage_api_key: ' ', password: 'own\n\n'")
    ring.secrets[("buckia_default_notes", "storage_api_key")] = ""
    assert resolve(config, {"password": ""}, {"BUNNY_STORAGE_API_KEY": ""}).reveal() == {"storage_api_key": "own"}


def test_control_characters_are_refused_before_a_library_shows_them() -> None:
    with pytest.raises(AuthenticationError, match=r"BUNNY_STORAGE_API_KEY\): storage_api_key holds a") as caught:
        resolve(code("bunny"), environ={"BUNNY_STORAGE_API_KEY": "HU\nSH"})
    assert "SH" not in str(caught.value)


@pytest.mark.parametrize("provider", ["s3", "bunny"])
def test_names_that_mean_nothing_are_refused(provider: str) -> None:
    for config, given in ((code(provider), {"acess_key_id": "HUSH"}), (code(provider, credentials={"x": "HUSH"}), {})):
        with pytest.raises(UsageError, match="is no credential that buckia knows") as caught:
            resolve(config, given, {})
        assert "HUSH" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(UsageError, match="must be text"):
        resolve(code(provider), {"api_key": 5}, {})  # type: ignore[dict-item]


def test_names_of_other_tools_are_understood() -> None:
    given = {"aws_access_key_id": "i", "application_key": "k"}
    assert resolve(code("b2"), given, {}).reveal() == {"access_key_id": "i", "secret_access_key": "k"}
    both = {"storage_api_key": SecretStr("k"), "password": SecretStr("other")}
    assert resolve(code("bunny"), both, {}).reveal() == {"storage_api_key": "k"}


# ---- masks


def test_credentials_show_places_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found = resolve(code("s3"), environ={"AWS_ACCESS_KEY_ID": "HUSH1", "AWS_SECRET_ACCESS_KEY": "HUSH2"})
    assert found.reveal()["secret_access_key"] == "HUSH2"
    shown = f"{found} {found!r} {found!s} {format(found)} {asdict(found)} {found.values} {vars_of(found)}{caplog.text}"
    assert "HUSH" not in shown
    assert "values" not in repr(found)
    assert "environment (AWS_SECRET_ACCESS_KEY)" in repr(found)
    assert "environment (AWS_SECRET_ACCESS_KEY)" in caplog.text
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            action(found)


def vars_of(found: credentials.Credentials) -> dict[str, object]:
    return {name: getattr(found, name) for name in ("values", "sources")}


def test_no_local_variable_on_the_way_shows_a_secret(ring: MemoryKeyring) -> None:
    """What a debugger or an error reporter takes from the frames is masked, too."""
    ring.secrets[("buckia_default_b", "access_key_id")] = "HUSH"
    with pytest.raises(AuthenticationError) as caught:
        resolve(code("b2", access_key_id="HUSH"), {"secret_access_key": SecretStr("HUSH")}, {})
    frames = [entry.frame.f_locals for entry in caught.traceback if entry.frame.code.path == Path(credentials.__file__)]
    assert frames
    shown = str([{name: value for name, value in frame.items() if name != "self"} for frame in frames])
    shown += "".join(str(vars(frame["self"])) for frame in frames if "self" in frame)
    assert "HUSH" not in shown


# ---- keyring


def test_the_keyring_is_asked_only_if_nothing_before_it_knows(ring: MemoryKeyring) -> None:
    environ = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "x")
    resolve(code("s3"), environ=environ)
    resolve(code("b2"), {"access_key_id": "i", "secret_access_key": "k"}, environ={})
    assert ring.reads == 0
    resolve(code("s3"), environ={})
    assert ring.reads > 0


@pytest.fixture(params=["headless", "not installed"])
def absent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "headless":
        with installed(fail.Keyring()):
            yield
    else:
        monkeypatch.setitem(sys.modules, "keyring", None)
        yield


@pytest.mark.usefixtures("absent")
def test_without_a_keyring_the_search_goes_on_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found = resolve(entry(tmp_path, "provider: bunny, password: own"), environ={})
    assert found.sources == {"storage_api_key": "configuration file"}
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert "keyring" in caplog.text


@pytest.mark.usefixtures("absent")
def test_without_a_keyring_nothing_can_be_kept_and_the_way_out_is_named() -> None:
    for action in (
        lambda: credentials.store("bunny", None, "c", {"storage_api_key": SecretStr("HUSH")}),
        lambda: credentials.stored(),
        lambda: credentials.kept(None, "c"),
        lambda: credentials.forget(None, "c"),
    ):
        with pytest.raises(MissingExtraError, match="keyring") as caught:
            action()
        assert "BUNNY_STORAGE_API_KEY" in str(caught.value.hint)
        assert 'pip install "buckia[keyring]"' in str(caught.value.hint)
        assert "HUSH" not in f"{caught.value} {caught.value.hint}"


def test_a_locked_keyring_is_passed_over_with_one_warning(
    tmp_path: Path, ring: MemoryKeyring, caplog: pytest.LogCaptureFixture
) -> None:
    ring.locked = True
    found = resolve(entry(tmp_path, "provider: bunny, password: own"), environ={})
    assert found.sources == {"storage_api_key": "configuration file"}
    assert [record.getMessage() for record in caplog.records] == ["The keyring failed (KeyringLocked)."]
    with pytest.raises(LocalError, match="KeyringLocked") as caught:
        credentials.stored()
    assert "HUSH" not in f"{caught.value}{caught.value.__cause__}"


def keep(provider: str, context: str, namespace: str | None = None, **secrets: str) -> None:
    credentials.store(provider, namespace, context, credentials.complete(provider, secrets))


def test_what_is_stored_is_found_listed_and_forgotten(ring: MemoryKeyring) -> None:
    keep("b2", "b2", application_key_id="i", application_key="k")
    keep("bunny", "clips", "team", password="p", api_key=" a\n", token_key="")
    assert ring.secrets[("buckia_team_clips", "api_key")] == "a"
    assert resolve(code("b2"), environ={}).sources["access_key_id"] == "keyring (buckia_default_b2)"
    assert credentials.stored() == [
        Context("default", "b2", ("access_key_id", "secret_access_key")),
        Context("team", "clips", ("api_key", "storage_api_key")),
    ]
    assert ring.secrets[("buckia", "contexts")] == '{"default": ["b2"], "team": ["clips"]}'
    credentials.forget("team", "clips")
    assert credentials.kept("team", "clips") == ()
    credentials.forget(None, "b2")
    assert ring.secrets == {("buckia", "contexts"): "{}"}


def test_storing_leaves_nothing_old_of_a_pair_and_nothing_else_changes(ring: MemoryKeyring) -> None:
    keep("s3", "c", access_key_id="i", secret_access_key="k", session_token="t")
    keep("s3", "c", access_key_id="i2", secret_access_key="k2")
    assert credentials.kept(None, "c") == ("access_key_id", "secret_access_key")
    keep("bunny", "c", storage_api_key="p")
    keep("bunny", "c", token_key="t")
    assert {name: ring.secrets[("buckia_default_c", name)] for name in credentials.kept(None, "c")} == {
        "access_key_id": "i2",
        "secret_access_key": "k2",
        "storage_api_key": "p",
        "token_key": "t",
    }


def test_a_write_that_fails_leaves_what_was_there(ring: MemoryKeyring) -> None:
    keep("s3", "c", access_key_id="i", secret_access_key="k", session_token="t")
    before = dict(ring.secrets)
    for writes in (0, 1):
        ring.refuse_after = writes
        with pytest.raises(LocalError) as caught:
            keep("s3", "c", access_key_id="HUSH", secret_access_key="HUSH")
        assert "HUSH" not in f"{caught.value}{caught.value.__cause__}"
        assert ring.secrets == before
    ring.secrets.clear()
    ring.refuse_after = 1
    with pytest.raises(LocalError):
        keep("s3", "c", access_key_id="HUSH", secret_access_key="HUSH")
    assert ring.secrets == {}


def test_a_keyring_that_forgets_is_found_out() -> None:
    with installed(null.Keyring()), pytest.raises(MissingExtraError, match="keeps nothing"):
        keep("bunny", "c", password="p")


@pytest.mark.parametrize("text", ["no json", "[1]", '{"a": 5}', "5"])
def test_a_damaged_list_of_contexts_is_made_anew(ring: MemoryKeyring, text: str) -> None:
    ring.secrets[("buckia", "contexts")] = text
    assert credentials.stored() == []
    keep("bunny", "c", password="p")
    assert credentials.stored() == [Context("default", "c", ("storage_api_key",))]


@pytest.mark.parametrize(
    ("provider", "secrets", "message"),
    [
        ("b2", {}, "No secret was entered"),
        ("b2", {"access_key_id": "  "}, "No secret was entered"),
        ("b2", {"access_key_id": "HUSH"}, "There is no secret_access_key"),
        ("s3", {"session_token": "HUSH"}, "There is no access_key_id"),
        ("b2", {"token_key": "HUSH"}, "The provider b2 has no token_key"),
        ("bunny", {"access_key_id": "HUSH"}, "The provider bunny has no access_key_id"),
        ("bunny", {"pasword": "HUSH"}, "'pasword' is no credential"),
    ],
)
def test_what_was_entered_is_checked(provider: str, secrets: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        credentials.complete(provider, secrets)
    assert "HUSH" not in f"{caught.value} {caught.value.hint}"


def test_every_secret_that_a_provider_needs_is_a_key_of_the_configuration() -> None:
    for provider in ("s3", "linode", "b2", "bunny", "other"):
        for group in credentials.groups(provider):
            assert {*group.names} <= {*SECRET_KEYS}
            for variables in group.variables:
                assert {*group.needed} <= variables.keys() <= {*group.names}
            assert group.variables or not group.required
