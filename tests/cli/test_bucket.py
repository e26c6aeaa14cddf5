"""``buckia bucket`` and ``buckia url``: a bucket is tried and that is remembered, verbs reach the provider, and what a
provider does not have is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from buckia import BucketConfig, BuckiaClient, UsageError
from buckia.client.bucket import kept_probe
from buckia.errors import CancelledError, RefusedError
from buckia.sync import factory
from buckia.sync.admin import Attempt, BucketAdmin
from buckia.sync.base import ObjectInfo
from buckia.sync.memory import MemorySync
from tests.cli.conftest import Outcome
from tests.servers import b2, bunny

Run = Callable[..., Outcome]
Command = Callable[..., Outcome]


class Provider(BucketAdmin):
    """Has every verb, and notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__("demo")
        self.asked: list[tuple[Any, ...]] = []

    def _note(self, *what: Any) -> None:
        self.asked.append(what)

    def get_policy(self) -> Mapping[str, Any] | None:
        return {"Statement": []}

    def set_policy(self, policy: Mapping[str, Any]) -> None:
        self._note("policy", policy)

    def delete_policy(self) -> None:
        self._note("no policy")

    def get_acl(self) -> Mapping[str, Any]:
        return {"Owner": "me"}

    def set_acl(self, canned: str) -> None:
        self._note("acl", canned)

    def get_acceleration(self) -> bool:
        return False

    def set_acceleration(self, on: bool) -> None:
        self._note("acceleration", on)

    def get_cors(self) -> Sequence[Mapping[str, Any]]:
        return []

    def set_cors(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._note("cors", rules)

    def get_lifecycle(self) -> Sequence[Mapping[str, Any]]:
        return [{"ID": "a"}]

    def set_lifecycle(self, rules: Sequence[Mapping[str, Any]], *, force: bool = False) -> None:
        if rules and not force:
            raise RefusedError("That rule removes what folders need.")
        self._note("lifecycle", rules, force)

    def get_metadata(self, key: str) -> Mapping[str, str]:
        return {"of": key}

    def set_metadata(self, key: str, metadata: Mapping[str, str]) -> None:
        self._note("metadata", key, metadata)

    def list_hidden(self, prefix: str = "") -> Sequence[Mapping[str, Any]]:
        return [{"key": f"{prefix}a", "id": "1", "size": 1500, "time": 0.0, "hidden": True}]

    def delete_hidden(self, prefix: str = "") -> int:
        self._note("hidden", prefix)
        return 1

    def list_uploads(self, prefix: str = "") -> Sequence[Mapping[str, Any]]:
        return []

    def abort_uploads(self, prefix: str = "") -> int:
        raise AssertionError("there is none")

    def purge(self, keys: Sequence[str], *, prefix: bool = False, attempt: Attempt = lambda verb, call: call()) -> int:
        attempt("delete", lambda: self._note("purge", list(keys), prefix))
        return 3


@pytest.fixture
def bucket() -> MemorySync:
    found = MemorySync("demo")
    found.admin = Provider()
    return found


@pytest.fixture
def demo(bucket: MemorySync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemorySync:
    """A directory whose configuration names the bucket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    Path(".buckia").write_text("demo: {provider: memory, bucket_name: demo, folders: [f], paths: .}\n")
    monkeypatch.setitem(factory._memory_buckets, "demo", bucket)
    return bucket


def asked(bucket: MemorySync) -> list[tuple[Any, ...]]:
    assert isinstance(bucket.admin, Provider)
    return bucket.admin.asked


# ---- check


def test_check_shows_what_the_bucket_does(buckia: Run, demo: MemorySync) -> None:
    demo.put("keep", b"x")
    outcome = buckia("bucket", "check", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == {
        "location": "memory:demo",
        "usable": True,
        "read_after_write": True,
        "list_after_write": True,
        "gone_after_delete": True,
        "range_get": True,
        "conditional_put": True,
        "digest_in_listing": "md5",
        "pages": True,
        "broken": [],
    }
    text = buckia("bucket", "check", "--no-pages").out
    assert "listings of more than 1,000 objects are complete  not tried" in text
    assert text.endswith("It can hold folders.\n")
    assert [*demo.objects] == ["keep"]


def test_what_was_seen_is_remembered_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ignoring(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            return super()._put(key, data, False)

    config = BucketConfig(provider="memory", bucket_name="demo", folders=["f"])
    state = tmp_path / "own"

    def fresh() -> BuckiaClient:
        monkeypatch.setitem(factory._memory_buckets, "demo", Ignoring("demo"))
        return BuckiaClient(config, state_dir=state)

    with fresh() as client:
        assert client._session.backend.capabilities.conditional_put
        assert not client.bucket.check(pages=False).conditional_put
    with fresh() as client:
        assert not client._session.backend.capabilities.conditional_put
    (kept,) = state.glob("*/probe.json")
    kept.write_text("{")
    assert kept_probe(str(kept.parent)) is None
    with fresh() as client:
        assert client._session.backend.capabilities.conditional_put, "a damaged memory is none"


def test_a_bucket_that_forgets_is_called_so(buckia: Run, demo: MemorySync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_get", lambda key, offset, length: b"before"[offset:][:length])
    outcome = buckia("bucket", "check", "--no-pages")
    assert outcome.code == 4
    assert "a read shows the write before it                  NO" in outcome.out
    assert "Do not keep folders here" in outcome.out


def test_a_full_check_runs_every_promise(buckia: Run, demo: MemorySync, monkeypatch: pytest.MonkeyPatch) -> None:
    assert buckia("bucket", "check", "--full", "--no-pages").code == 0
    assert not demo.objects
    monkeypatch.setattr(demo, "_copy", lambda source, target: ObjectInfo(target, 5))
    outcome = buckia("bucket", "check", "--full", "--no-pages", "--json")
    assert outcome.code == 4
    (promise,) = outcome.json["broken"]
    assert promise.startswith("A copy has the bytes of its source, which stays. But: ")
    assert not demo.objects


def test_init_tries_the_bucket(buckia: Run, demo: MemorySync, tmp_path: Path) -> None:
    zone = bunny.shared().fresh_zone()
    line = ("init", "--provider", "bunny", "--bucket-name", zone.zone, "--domain", zone.storage_url)
    outcome = buckia("-c", "one", *line, "--storage-api-key", zone.password)
    assert outcome.code == 0
    assert "It can hold folders." in outcome.out
    assert "listings tell a digest of the bytes               sha256" in outcome.out
    assert zone.objects() == {}
    outcome = buckia("-c", "two", *line, "--storage-api-key", "wrong")
    assert (outcome.code, (tmp_path / "two").is_file()) == (0, True)
    assert "The bucket was not tried" in outcome.err
    outcome = buckia("-c", "three", *line, "--storage-api-key", "wrong", "--no-check")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_check_writes_below_the_prefix_of_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Watched(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            written.append(key)
            return super()._put(key, data, if_absent)

    monkeypatch.setitem(factory._memory_buckets, "demo", Watched("demo"))
    config = BucketConfig(provider="memory", bucket_name="demo", folders=["f"], prefix="apps/one")
    with BuckiaClient(config, state_dir=tmp_path / "own") as client:
        client.bucket.check(pages=False)
    assert written
    assert all(key.startswith("apps/one/_buckia-probe/") for key in written)


@pytest.mark.parametrize("full", [False, True])
def test_a_key_of_b2_that_is_limited_to_a_prefix_can_be_checked(tmp_path: Path, full: bool) -> None:
    server = b2.shared()
    made = server.fresh_bucket()
    key = server.cloud.key(("listFiles", "readFiles", "writeFiles"), [made.bucket_id], "notes/")
    config = BucketConfig(provider="b2", bucket_name=made.name, endpoint=server.url, folders=["notes"], **key)
    with BuckiaClient(config, state_dir=tmp_path / "own") as client:
        found = client.bucket.check(pages=False, full=full)
    assert (found.usable, found.broken) == (True, [])
    assert made.names() == []


def test_a_check_that_is_stopped_removes_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(MemorySync):
        def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
            if key.endswith("/many/0100"):
                client._session.cancellation.cancel(2)
            return super()._put(key, data, if_absent)

    bucket = Stopping("demo")
    monkeypatch.setitem(factory._memory_buckets, "demo", bucket)
    config = BucketConfig(provider="memory", bucket_name="demo", folders=["f"])
    with BuckiaClient(config, state_dir=tmp_path / "own") as client, pytest.raises(CancelledError):
        client.bucket.check()
    assert not bucket.objects


# ---- verbs


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("policy get", {"Statement": []}),
        ("acl get", {"Owner": "me"}),
        ("cors get", []),
        ("lifecycle get", [{"ID": "a"}]),
        ("metadata a/b", {"of": "a/b"}),
        ("acceleration", {"acceleration": False}),
        ("uploads", []),
    ],
)
def test_what_can_be_read(buckia: Run, demo: MemorySync, line: str, shown: Any) -> None:
    assert buckia("bucket", *line.split(), "--json").json == shown
    outcome = buckia("bucket", *line.split())
    assert outcome.code == 0
    if line.endswith("get"):
        assert json.loads(outcome.out) == shown


@pytest.mark.parametrize(
    ("line", "text", "wanted"),
    [
        ("policy set F -y", '{"Version": "1"}', ("policy", {"Version": "1"})),
        ("policy delete -y", "", ("no policy",)),
        ("acl set private", "", ("acl", "private")),
        ("acl set public-read --yes", "", ("acl", "public-read")),
        ("acceleration on", "", ("acceleration", True)),
        ("acceleration off", "", ("acceleration", False)),
        ("cors set F", "[{}]", ("cors", [{}])),
        ("lifecycle set F", "[]", ("lifecycle", [], False)),
        ("lifecycle set F --force", '[{"ID": "x"}]', ("lifecycle", [{"ID": "x"}], True)),
        ("metadata a/b c=d=e f=", "", ("metadata", "a/b", {"c": "d=e", "f": ""})),
        ("hidden p/ --delete -y", "", ("hidden", "p/")),
        ("purge a b/c", "", ("purge", ["a", "b/c"], False)),
        ("purge a --prefix", "", ("purge", ["a"], True)),
        ("purge -y", "", ("purge", [], False)),
    ],
)
def test_what_can_be_changed(buckia: Run, demo: MemorySync, line: str, text: str, wanted: tuple[Any, ...]) -> None:
    Path("F").write_text(text)
    outcome = buckia("bucket", *line.split(), "--json")
    assert outcome.code == 0
    assert asked(demo) == [wanted]
    assert outcome.json


@pytest.mark.parametrize(
    "line", ["policy set F", "cors set F", "lifecycle set F", "acl set private", "acl set public-read"]
)
def test_a_dry_run_sends_nothing(buckia: Run, demo: MemorySync, line: str) -> None:
    value: Any = {"a": 1} if line.startswith("policy") else {"acl": line[8:]} if line.startswith("acl") else [{"a": 1}]
    Path("F").write_text(json.dumps(value))
    outcome = buckia("bucket", *line.split(), "--dry-run")
    assert (outcome.code, json.loads(outcome.out), asked(demo)) == (0, value, [])


@pytest.mark.parametrize(
    "line",
    [
        *("policy delete", "policy set F", "acl set public-read", "acl set public-read-write"),
        *("acl set authenticated-read", "hidden --delete", "purge"),
    ],
)
def test_nothing_dangerous_is_done_unasked(buckia: Run, demo: MemorySync, line: str) -> None:
    Path("F").write_text("{}")
    outcome = buckia("bucket", *line.split())
    assert (outcome.code, asked(demo)) == (10, [])
    assert "--yes" in outcome.err


def test_a_rule_that_removes_what_is_needed_is_refused(buckia: Run, demo: MemorySync) -> None:
    Path("F").write_text("[{}]")
    outcome = buckia("bucket", "lifecycle", "set", "F")
    assert (outcome.code, asked(demo)) == (10, [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("policy set missing", "'missing' holds no JSON that can be read"),
        ("policy set F", "'F' must hold a JSON object."),
        ("cors set G", "'G' must hold a JSON array."),
        ("metadata key novalue", "'novalue' is not NAME=VALUE."),
        ("upload F f/_buckia/packs/x", "only buckia itself writes"),
        ("acceleration sideways", "sideways"),
    ],
)
def test_senseless_lines_exit_2(buckia: Run, demo: MemorySync, line: str, said: str) -> None:
    Path("F").write_text("[]")
    Path("G").write_text("{}")
    outcome = buckia("bucket", *line.split())
    assert outcome.code == 2
    assert said in outcome.err
    assert asked(demo) == []


def test_a_verb_that_a_provider_lacks_says_so(buckia: Run, demo: MemorySync) -> None:
    demo.admin = BucketAdmin("memory:demo")
    for line, what in (("policy get", "bucket policies"), ("purge a", "CDN cache to purge"), ("zone", "storage zone")):
        outcome = buckia("bucket", *line.split())
        assert outcome.code == 2
        assert f"memory:demo has no {what}." in outcome.err


def test_lists_are_tables(buckia: Run, demo: MemorySync) -> None:
    outcome = buckia("bucket", "hidden", "x/")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["KEY", "SIZE", "TIME"],
        ["x/a", "1.50", "kB", "1970-01-01", "00:00:00"],
    ]
    assert outcome.err == "1 hidden version.\n"
    assert buckia("bucket", "uploads", "--abort").out == "0 open uploads removed.\n"


def test_a_plain_object(buckia: Run, demo: MemorySync) -> None:
    Path("F").write_bytes(b"plain")
    assert buckia("bucket", "upload", "F", "public/logo.png").out == "Wrote public/logo.png, 5 B.\n"
    assert demo.objects == {"public/logo.png": b"plain"}


# ---- addresses and the CDN, at a Bunny server


def test_bunny_addresses_and_purges(buckia: Run, demo: MemorySync) -> None:
    zone = bunny.shared().fresh_zone()
    zone.security.enabled = True
    Path("zone.yaml").write_text(
        f"zone: {{provider: bunny, bucket_name: {zone.zone}, domain: '{zone.storage_url}', api_url: '{zone.core_url}',"
        f" cdn_url: '{zone.cdn_url}', pull_zone: {zone.pull_zone_name}, storage_api_key: {zone.password},"
        f" api_key: {zone.account_key}, token_key: {zone.security_key}}}\n"
    )
    Path("zone.yaml").chmod(0o600)
    assert buckia("-c", "zone.yaml", "url", "a/b c").out == f"{zone.cdn_url}/a/b%20c\n"
    signed = buckia("-c", "zone.yaml", "url", "a/b", "--expires", "1h", "--json").json
    assert signed["expires"] == 3600
    assert "token=HS256-" in signed["url"]
    found = buckia("-c", "zone.yaml", "bucket", "zone", "--json").json
    assert found["storage_zone"]["name"] == zone.zone
    assert found["pull_zone"]["id"] == zone.pull_zone_id
    assert buckia("-c", "zone.yaml", "bucket", "purge", "a/b c").out == "Purged, with 1 request.\n"
    assert bunny.shared().core.purged[-1] == f"{zone.cdn_url}/a/b%20c"
    for secret in (zone.account_key, zone.password, zone.security_key):
        assert secret not in json.dumps(found) + signed["url"]


def test_an_address_that_there_is_not(buckia: Run, demo: MemorySync) -> None:
    assert "no public address" in buckia("url", "a").err
    assert "has no signed URLs" in buckia("url", "a", "--expires", "7d").err
    for wrong in ("0", "1w", "-5", "soon", "1.5h"):
        outcome = buckia("url", "a", f"--expires={wrong}")
        assert (outcome.code, "is no time" in outcome.err) == (2, True)


def test_the_library_has_the_same(demo: MemorySync) -> None:
    with BuckiaClient(".buckia") as client:
        assert client.purge_cache(["a"]) == 3
        assert client.bucket.location == "memory:demo"
        with pytest.raises(UsageError, match="no signed URLs"):
            client.bucket.url("a", expires=60)
        assert client.bucket.url("a") is None


def test_the_configuration_of_another_provider_is_not_ignored(tmp_path: Path) -> None:
    config = BucketConfig(provider="local", bucket_name=str(tmp_path), pull_zone="x")
    with BuckiaClient(config) as client, pytest.raises(UsageError, match="local has no setting pull_zone"):
        client.test_connection()


def test_a_check_leaves_no_trace_in_a_directory(buckia: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even an empty directory."""
    monkeypatch.setenv("BUCKIA_STATE_DIR", str(tmp_path / "state"))
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    assert buckia("bucket", "check", "--no-pages", "--from", str(bucket / "folder")).code == 0
    assert list(bucket.iterdir()) == []
