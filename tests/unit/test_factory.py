"""Providers by name: what is there, what is not, and what is missing is said plainly."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from buckia.errors import BucketError, UsageError
from buckia.sync import factory
from buckia.sync.factory import BackendConfig, create_sync_backend, known_providers, register
from buckia.sync.local import LocalSync
from buckia.sync.memory import MemorySync
from buckia.sync.s3 import S3Sync

PROVIDERS = ("s3", "linode", "b2", "bunny")
TIMEOUTS = ("connect_timeout", "read_timeout")


def test_our_providers(tmp_path: Path) -> None:
    local = create_sync_backend(BackendConfig("local", str(tmp_path), settings={"durable": False}))
    assert isinstance(local, LocalSync)
    assert local.location == str(tmp_path)
    assert isinstance(create_sync_backend(BackendConfig("memory", "m")), MemorySync)
    s3 = create_sync_backend(
        BackendConfig("s3", "bucket", endpoint="example.org", settings={"addressing": "virtual", "read_timeout": 5})
    )
    assert isinstance(s3, S3Sync)
    assert s3.location == "s3://bucket?endpoint=https://example.org"


@pytest.mark.parametrize("value", ["no", 0, None])
def test_a_local_bucket_is_durable_or_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(UsageError, match="durable is true or false"):
        create_sync_backend(BackendConfig("local", str(tmp_path), settings={"durable": value}))


def test_an_unknown_provider_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no provider 'ftp'") as caught:
        create_sync_backend(BackendConfig("ftp", "b"))
    for provider in ("b2", "bunny", "linode", "local", "memory", "s3"):
        assert provider in (caught.value.hint or "")


def test_the_four_providers_of_the_cloud() -> None:
    keys = {"access_key_id": "i", "secret_access_key": "s", "storage_api_key": "p"}
    made = {
        provider: create_sync_backend(BackendConfig(provider, "bucket", credentials=keys, **more))
        for provider, more in {
            "s3": {"region": "eu-west-1"},
            "linode": {"region": "us-east-1"},
            "b2": {"settings": {"b2_delete": "versions"}},
            "bunny": {"region": "uk", "settings": {"storage_zone": "zone", "verify_puts": False}},
        }.items()
    }
    assert {provider: type(backend).__name__ for provider, backend in made.items()} == {
        "s3": "S3Sync",
        "linode": "LinodeSync",
        "b2": "B2Sync",
        "bunny": "BunnySync",
    }
    assert {provider: backend.location for provider, backend in made.items()} == {
        "s3": "s3://bucket",
        "linode": "linode://bucket?endpoint=https://us-east-1.linodeobjects.com",
        "b2": "b2://bucket",
        "bunny": "bunny://zone",
    }


@pytest.mark.parametrize("provider", ["local", "memory", "s3", "linode", "b2", "bunny"])
def test_an_unknown_setting_is_refused(provider: str) -> None:
    with pytest.raises(UsageError, match=f"provider {provider} has no setting adressing"):
        create_sync_backend(BackendConfig(provider, "b", settings={"adressing": "path"}))


SETTINGS = [
    *((provider, name, "abc", "number of seconds") for provider in PROVIDERS for name in TIMEOUTS),
    *((provider, "cdn_url", 5, "cdn_url is text") for provider in PROVIDERS),
    ("bunny", "pull_zone", 12345, "pull_zone is text"),
    ("bunny", "api_url", 5, "api_url is text"),
    ("bunny", "content_type", "a\nb", "content_type is text of one line"),
    ("bunny", "verify_puts", "nope", "verify_puts is true or false"),
    ("bunny", "object_bytes_max", "5GB", "object_bytes_max is a number of bytes"),
    ("bunny", "object_bytes_max", 0, "object_bytes_max is a number of bytes"),
    ("bunny", "transport", "carrier pigeon", "transport is one of"),
    ("bunny", "storage_zone", 5.5, "zone is text"),
    ("b2", "b2_delete", 1, "b2_delete is hide or versions"),
    ("s3", "multipart_threshold", True, "number of bytes"),
]


@pytest.mark.parametrize(("provider", "name", "value", "words"), SETTINGS)
def test_a_setting_of_another_type_is_refused(provider: str, name: str, value: object, words: str) -> None:
    """Settings come from files; a wrong one is said when it is read, and by its name."""
    with pytest.raises(UsageError, match=words):
        create_sync_backend(
            BackendConfig(
                provider, "bucket", region="us-east-1" if provider != "bunny" else None, settings={name: value}
            )
        )


def test_a_bucket_needs_a_name() -> None:
    with pytest.raises(UsageError, match="name"):
        create_sync_backend(BackendConfig("local", ""))


def test_credentials_are_in_no_repr() -> None:
    config = BackendConfig("s3", "b", credentials={"access_key_id": "AKIDTEXT", "secret_access_key": "SECRETTEXT"})
    shown = repr(config) + repr(create_sync_backend(config))
    assert "SECRETTEXT" not in shown
    assert "AKIDTEXT" not in shown


def test_a_program_registers_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "_registered", dict(factory._registered))
    register("own", lambda config: MemorySync(config.bucket_name))
    assert "own" in known_providers()
    assert create_sync_backend(BackendConfig("own", "x")).location == "memory:x"
    for name in ("local", "bunny"):
        with pytest.raises(UsageError):
            register(name, lambda config: MemorySync())


def _third_party(config: BackendConfig) -> MemorySync:
    return MemorySync(f"third-{config.bucket_name}")


def test_packages_announce_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("third", f"{__name__}:_third_party", factory.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: _third_party)
    monkeypatch.setattr(factory, "entry_points", lambda group, name="third": [point] if name == "third" else [])
    assert "third" in known_providers()
    assert create_sync_backend(BackendConfig("third", "x")).location == "memory:third-x"


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_missing_extra_names_the_command() -> None:
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("boto3", "botocore"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
from buckia.errors import MissingExtraError
from buckia.sync.factory import BackendConfig, create_sync_backend
try:
    create_sync_backend(BackendConfig("s3", "bucket"))
except MissingExtraError as error:
    print(error.exit_code, error.message, error.hint)
"""
    assert _run(code).strip() == '2 S3 needs the package boto3. pip install "buckia[s3]"'


def test_nothing_of_a_provider_is_imported_before_it_is_used() -> None:
    code = """
import sys
from buckia.sync.factory import BackendConfig, create_sync_backend
create_sync_backend(BackendConfig("local", "."))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"boto3", "botocore", "requests", "b2sdk", "urllib3"}))
create_sync_backend(BackendConfig("s3", "bucket"))
print("botocore.session" in sys.modules)
"""
    assert _run(code).split("\n")[:2] == ["[]", "False"]


def test_secrets_are_masked_in_errors_and_ids_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of a key is often the bucket's own name, and a message without it says nothing."""
    monkeypatch.setattr(factory, "_memory_buckets", {})
    config = BackendConfig(
        provider="memory",
        bucket_name="my-notes",
        credentials={
            "access_key_id": "my-notes",
            **{name: f"SECRET-{name}" for name in ("secret_access_key", "session_token", "api_key", "token_key")},
            **{name: f"SECRET-{name}" for name in ("storage_api_key", "password", "of_another_provider")},
        },
    )
    bucket = create_sync_backend(config)

    def fail(key: str) -> None:
        raise BucketError(f"memory:my-notes: {' '.join(config.credentials.values())}", hint="my-notes SECRET-password")

    bucket._stat = fail  # type: ignore[assignment, method-assign]
    with pytest.raises(BucketError) as caught:
        bucket.stat("k")
    assert str(caught.value) == "memory:my-notes: my-notes" + 7 * " ***"
    assert caught.value.hint == "my-notes ***"
