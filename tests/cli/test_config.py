"""Configuration: the documented example and its kin are read, everything else is refused with file, line and key."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia import BucketConfig, BuckiaConfig
from buckia.config import MappedRoot, find_config
from buckia.config.bucket import SECRET_KEYS, folder_bits
from buckia.config.text import parse
from buckia.errors import ConfigError, UsageError
from buckia.sync.factory import BackendConfig, create_sync_backend

EXAMPLE = Path(__file__).with_name("example.buckia")
SECRETS = ("YOUR_API_KEY", "YOUR_STORAGE_API_KEY", "YOUR_PASSWORD")


def load(tmp_path: Path, text: str, name: str = ".buckia") -> BuckiaConfig:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return BuckiaConfig.from_file(file)


def refusal(tmp_path: Path, text: str, name: str = ".buckia") -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, name)
    assert caught.value.exit_code == 2
    return caught.value.message.replace(str(tmp_path), "")


def test_the_documented_example() -> None:
    bucket = BuckiaConfig.from_file(EXAMPLE)["common-assets"]
    assert (bucket.provider, bucket.bucket_name, bucket.region) == ("bunny", "common-assets", "eu-central")
    assert bucket.folders == ("123-456-789-ABC",)
    assert bucket.paths == ("demo/", "static/data/")
    assert bucket.options().delete_orphaned is True
    assert (bucket.max_workers, bucket.checksum_algorithm, bucket.conflict_resolution) == (8, "sha256", "local_wins")
    assert bucket.secrets() == dict(zip(("api_key", "storage_api_key", "password"), SECRETS, strict=True))
    assert bucket.host == "storage.bunnycdn.com"


def test_the_documented_example_warns_of_its_host_and_its_guessable_id() -> None:
    host, folder = BuckiaConfig.from_file(EXAMPLE)["common-assets"].warnings
    assert "storage.bunnycdn.com" in host
    assert "123-456-789-ABC" in folder
    assert "guessed" in folder


def test_the_documented_example_maps_folders_into_paths() -> None:
    base = EXAMPLE.parent
    assert BuckiaConfig.from_file(EXAMPLE)["common-assets"].mapping() == (
        MappedRoot(base / "demo/123-456-789-ABC", "123-456-789-ABC", receives=True),
        MappedRoot(base / "static/data/123-456-789-ABC", "123-456-789-ABC", receives=False),
    )


def test_what_is_not_there_yet_is_said_and_not_ignored() -> None:
    with pytest.raises(ConfigError, match=r"Several 'paths' .* not there yet in this version"):
        BuckiaConfig.from_file(EXAMPLE)["common-assets"].require_supported()
    for key, value in (("files", {"a": "b"}), ("upload_files", {"a": "b"}), ("sync_rules", [{"path": "a"}])):
        with pytest.raises(ConfigError, match=f"'{key}' .* not there yet in this version"):
            BucketConfig(provider="s3", bucket_name="b", **{key: value}).require_supported()
    BucketConfig(provider="s3", bucket_name="b", paths=["demo"], pdf={"engine": "x"}).require_supported()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a:\n  provider: s3\n  bucket_name: b\n  folders: [x1]\n  max_workers: 3\n", ".buckia"),
        ('{"a": {"provider": "s3", "bucket_name": "b", "folders": ["x1"],\t"max_workers": 3}}', ".buckia.json"),
        ('{"a": {"provider": "s3", "bucket_name": "b", "folders": ["x1"], "max_workers": 3}}', ".buckia"),
        ('[a]\nprovider = "s3"\nbucket_name = "b"\nfolders = ["x1"]\nmax_workers = 3\n', ".buckia.toml"),
    ],
)
def test_yaml_toml_and_json_mean_the_same(tmp_path: Path, text: str, name: str) -> None:
    bucket = load(tmp_path, text, name)["a"]
    assert bucket.dump() == {"provider": "s3", "bucket_name": "b", "folders": ["x1"], "max_workers": 3}
    assert bucket.base == tmp_path


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("max_workers: 0", "/.buckia:4: 'a.max_workers' must be a whole number from 1 to 1024."),
        ("max_workers: x", "/.buckia:4: 'a.max_workers' must be a whole number from 1 to 1024."),
        ("max_workers: true", "/.buckia:4: 'a.max_workers' must be a whole number from 1 to 1024."),
        ("checksum_algorithm: crc", "/.buckia:4: 'a.checksum_algorithm' must be one of sha256, md5, sha1, blake3."),
        ("conflict_resolution: newest", "did you mean 'newest_wins'?"),
        ("delete_orphan: true", "/.buckia:4: 'a.delete_orphan' is no key that buckia knows; did you mean 'delete_"),
        ("bukcet: x", "/.buckia:4: 'a.bukcet' is no key that buckia knows."),
        ("paths: {local: x, remot: y}", "'a.paths.0.remot' is no key that buckia knows; did you mean 'remote'?"),
        ("folders: [x, y, x]", "/.buckia:4: 'a.folders' names 'x' twice."),
        ("delete_orphaned: maybe", "/.buckia:4: 'a.delete_orphaned' must be true or false."),
        ("folders: [ok, ../evil]", "/.buckia:4: 'a.folders.1' must be one path component, without slashes."),
        ("folders: [_buckia]", "is reserved"),
        ("exclude_pattern: '('", "/.buckia:4: 'a.exclude_pattern' is no valid regular expression"),
        ("paths: {here: 1}", "/.buckia:4: 'a.paths.0"),
        ("prefix: a/../b", "/.buckia:4: 'a.prefix' holds '..', which is no name for a folder."),
        ("region: true", "/.buckia:4: 'a.region' must be text; put it in quotes."),
        ("bucket_name: again", "/.buckia:4: the key 'bucket_name' stands twice (first in line 3)."),
        ("hostname: a\n  domain: b", "/.buckia:5: 'a.domain' means the same as 'hostname', and both are given."),
        ("region: !!python/object:os.system x", "/.buckia:4: the tag"),
        ("endpoint: https://user:pass@host", "'a.endpoint' must not hold credentials."),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, entry: str, expected: str) -> None:
    message = refusal(tmp_path, f"a:\n  provider: s3\n  bucket_name: b\n  {entry}\n")
    assert expected in message
    assert "\n" not in message


def test_errors_in_toml_and_json_name_the_line(tmp_path: Path) -> None:
    text = '[a]\nprovider = "s3"\nbucket_name = "b"\n\nmax_workers = 0\n'
    assert refusal(tmp_path, text, "c.toml").startswith("/c.toml:5: 'a.max_workers'")
    assert "c.toml:2: no valid TOML" in refusal(tmp_path, '[a]\nprovider = "s3\n', "c.toml")
    text = '{\n "a": {\n  "provider": "s3",\n\t"bucket_name": "b",\n  "max_workers": 0}}'
    assert refusal(tmp_path, text, "c.json").startswith("/c.json:5: 'a.max_workers'")
    assert "c.json:3: no valid JSON" in refusal(tmp_path, '{\n"a":\n', "c.json")
    assert "stands twice" in refusal(tmp_path, '{"a": {"provider": "s3", "provider": "b2"}}', "c.json")


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "namespace: x\n"])
def test_a_configuration_needs_an_entry(tmp_path: Path, text: str) -> None:
    assert "no bucket entry" in refusal(tmp_path, text)


def test_required_keys_and_known_providers(tmp_path: Path) -> None:
    assert "'a.provider' is missing" in refusal(tmp_path, "a: {bucket_name: b}\n")
    assert "'a.bucket_name' is missing" in refusal(tmp_path, "a: {provider: s3}\n")
    message = refusal(tmp_path, "a:\n  provider: s3\n  bukcet: b\n")
    assert message == "/.buckia:3: 'a.bukcet' is no key that buckia knows; did you mean 'bucket'? (1 more problems)."
    message = refusal(tmp_path, "a:\n  provider: s3\n  bucket: b\n  delete_orphan: true\n")
    assert message == "/.buckia:4: 'a.delete_orphan' is no key that buckia knows; did you mean 'delete_orphaned'?"
    assert refusal(tmp_path, "a:\n  provider: lokal\n  bucket_name: b\n").endswith("; did you mean 'local'?")
    message = refusal(tmp_path, "a:\n  provider: bunnny\n  bucket_name: b\n")
    assert "/.buckia:2: 'a.provider' must be one of b2, bunny, linode, local, memory, s3" in message


def test_plain_words_of_yaml_stay_text(tmp_path: Path) -> None:
    text = "a:\n  provider: s3\n  bucket_name: 0123\n  region: no\n  folders: [1e3, 12:30:00]\n  delete_orphaned: yes\n"
    bucket = load(tmp_path, text)["a"]
    assert (bucket.bucket_name, bucket.region, bucket.folders) == ("0123", "no", ("1e3", "12:30:00"))
    assert bucket.delete_orphaned is True


def test_provider_settings_keep_numbers_and_flags(tmp_path: Path) -> None:
    text = "a:\n  provider: s3\n  bucket_name: b\n  provider_settings: {timeout: 30, fast: false, name: '5x'}\n"
    assert load(tmp_path, text)["a"].provider_settings == {"timeout": 30, "fast": False, "name": "5x"}


def test_anchors_and_merges_work_and_cannot_explode(tmp_path: Path) -> None:
    text = "dev: &base\n  provider: s3\n  bucket_name: b\n  region: r\nprod:\n  <<: *base\n  bucket_name: c\n"
    prod = load(tmp_path, text)["prod"]
    assert (prod.bucket_name, prod.region) == ("c", "r")
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "too many values" in refusal(tmp_path, bomb)
    assert "too deeply" in refusal(tmp_path, "a: " + "[" * 5000)
    assert "too deeply" in refusal(tmp_path, "a: &a [*a]\n")


def test_flat_files_namespace_and_null_values(tmp_path: Path) -> None:
    flat = load(tmp_path, "provider: s3\nbucket_name: b\nregion:\n")
    assert list(flat) == ["b"]
    assert flat["b"].region is None
    config = load(tmp_path, "namespace: team\na: {provider: s3, bucket_name: b}\n")
    assert (config.namespace, list(config)) == ("team", ["a"])


def test_container_and_selection(tmp_path: Path) -> None:
    two = load(tmp_path, "a: {provider: s3, bucket_name: x}\nb: {provider: s3, bucket_name: y}\n")
    assert "a" in two
    assert dict(two.items())["b"].name == "b"
    assert two.get("c") is None
    assert two.select("b").bucket_name == "y"
    with pytest.raises(ConfigError, match="several") as several:
        two.select()
    assert "a, b" in str(several.value.hint)
    with pytest.raises(ConfigError, match="no bucket entry 'c'"):
        two.select("c")
    one = load(tmp_path, "a: {provider: s3, bucket_name: x}\n")
    assert one.select().name == "a"
    default = load(tmp_path, "a: {provider: s3, bucket_name: x}\ndefault: {provider: s3, bucket_name: y}\n")
    assert default.select().bucket_name == "y"


def test_aliases_and_credentials() -> None:
    bucket = BucketConfig(
        provider="b2",
        bucket_name="b",
        hostname="h",  # type: ignore[call-arg]
        credentials={"application_key_id": "i", "application_key": "k"},
    )
    assert bucket.domain == "h"
    assert bucket.secrets() == {"access_key_id": "i", "secret_access_key": "k"}
    with pytest.raises(ConfigError, match="'bucket_nam' is no key"):
        BucketConfig(provider="s3", bucket_nam="b")  # type: ignore[call-arg]


def test_what_the_adapter_gets(tmp_path: Path) -> None:
    text = "a:\n  provider: s3\n  bucket_name: b\n  hostname: h:9000\n  api_key: i\n  password: k\n  path_style: true\n"
    text += "  provider_settings: {read_timeout: 7.5}\nb:\n  provider: local\n  bucket_name: store\n"
    config = load(tmp_path, text)
    s3 = config["a"].backend()
    assert (s3["endpoint"], s3["settings"]) == ("h:9000", {"addressing": "path", "read_timeout": 7.5})
    assert "credentials" not in s3
    create_sync_backend(BackendConfig(**s3)).close()
    local = BackendConfig(**config["b"].backend())
    assert local.bucket_name == str(tmp_path / "store")
    assert create_sync_backend(local).location == local.bucket_name
    stray = BucketConfig(provider="local", bucket_name="b", pull_zone="z")
    with pytest.raises(UsageError, match="pull_zone"):
        create_sync_backend(BackendConfig(**stray.backend()))


@pytest.mark.parametrize(
    ("text_format", "text", "message"),
    [
        ("yaml", r'a: "\UFFFFFFFF"', "no valid YAML"),
        ("yaml", r'a: "\ud800"', "t:1: an escape stands for no character"),
        ("yaml", r'"\ud800": a', "t:1: an escape stands for no character"),
        ("yaml", "a:\n - " + "[" * 20_000, "t:2: no valid YAML: it is nested too deeply"),
        ("toml", "a = " + "9" * 5000, "a number is too long"),
        ("toml", "a = '\udcff'", "not valid Unicode"),
        ("json", '{\n"a": "\\ud800"}', "t:2: an escape stands for no character"),
        ("json", '{\n"\\uDFFF": 1}', "t:2: an escape stands for no character"),
        ("json", '{\n"a": [{"b": 1,\n"\\u0062": 2}]}', r"t:3: the key 'b' stands twice \(first in line 2\)"),
        ("json", '{"a": ' + "[" * 40 + "]" * 40 + "}", "too deeply"),
    ],
)
def test_text_that_has_no_meaning_is_refused_in_every_format(text_format: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, name="t", text_format=text_format)  # type: ignore[arg-type]


def test_lines_of_toml_are_found_however_long_they_are() -> None:
    spaces = " " * 100_000
    document = parse(f"{spaces}\n{spaces}a . 'b c'{spaces}= 1\n", name="t", text_format="toml")
    assert document.lines == {("a", "b c"): 2}


def test_lines_of_json_do_not_depend_on_yaml() -> None:
    long = "k" * 2000
    text = f'{{\n"{long}":\n [1,\n {{}}, {{"\\u007f": "\x7f, ]\\"",\n"b": [[], 2]}}]}}'
    document = parse(text, name="t", text_format="json")
    assert document.values == {long: [1, {}, {"\x7f": '\x7f, ]"', "b": [[], 2]}]}
    item = (long, 2)
    assert document.lines == {
        (long,): 2,
        (long, 0): 3,
        (long, 1): 4,
        item: 4,
        (*item, "\x7f"): 4,
        (*item, "b"): 5,
        (*item, "b", 0): 5,
        (*item, "b", 1): 5,
    }


@pytest.mark.parametrize("key", ["pdf", "provider_settings.since"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1979-05-27", "holds 1979-05-27, a date or time; put it in quotes"),
        ("07:32:00", "a date or time"),
        ("[1979-05-27T07:32:00Z]", "a date or time"),
        ("0x" + "f" * 4000, "a number that is too long"),
    ],
)
def test_what_only_toml_can_say_is_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    text = f'provider = "memory"\nbucket_name = "b"\n{key} = {value}\n'
    assert message in refusal(tmp_path, text, "c.toml")


@pytest.mark.parametrize("text_format", ["yaml", "json"])
@pytest.mark.parametrize(
    "value", ['"\n\x85/', "a\x85b", "a\n\u2028b", " \u2029", "\x7f", "'\n", "# a\n b", "\U0001f600\r\n"]
)
def test_what_is_written_can_be_read_back(text_format: str, value: str) -> None:
    config = BuckiaConfig.from_mapping({"a": {"provider": "memory", "bucket_name": value, "pdf": {value: [value]}}})
    text = config.to_text(text_format)  # type: ignore[arg-type]
    again = BuckiaConfig.from_text(text, text_format=text_format)  # type: ignore[arg-type]
    assert again["a"].dump() == config["a"].dump()


def test_secrets_never_show(tmp_path: Path) -> None:
    config = BuckiaConfig.from_file(EXAMPLE)
    shown = f"{config!r} {config['common-assets']!r} {config['common-assets']} {config.to_text()}"
    hidden = BucketConfig(
        provider="s3", bucket_name="b", provider_settings={"token_key": "HUSH", "password": "HUSH", "ttl": 3}
    )
    shown += f"{hidden!r} {hidden.dump()}"
    for secret in (*SECRETS, "HUSH"):
        assert secret not in shown
    for key in SECRET_KEYS:
        message = refusal(tmp_path, f"a:\n  provider: s3\n  bucket_name: b\n  {key}: [HUSH]\n")
        assert f"a.{key}" in message
        assert "HUSH" not in message


def test_save_keeps_everything_and_protects_it(tmp_path: Path) -> None:
    config = BuckiaConfig.from_file(EXAMPLE)
    target = config.save(tmp_path / ".buckia")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    again = BuckiaConfig.from_file(target)
    assert again["common-assets"].dump(reveal=True) == config["common-assets"].dump(reveal=True)
    assert again.exposure == []
    with pytest.raises(ConfigError, match="exists already"):
        config.save(target)
    config.save(target, overwrite=True)
    assert os.listdir(tmp_path) == [".buckia"]
    target.chmod(0o644)
    assert "chmod 600" in again.exposure[0]
    assert json.loads(config.save(tmp_path / "c.json").read_text())["common-assets"]["password"] == "YOUR_PASSWORD"


def test_paths_are_relative_to_the_file_and_know_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = "a:\n  provider: local\n  bucket_name: ../bucket\n  folders: [f1, f2]\n  paths: ['~/docs']\n"
    bucket = load(tmp_path, text)["a"]
    assert bucket.bucket_directory == tmp_path / "../bucket"
    home = Path("/home/me/docs")
    assert bucket.mapping() == (MappedRoot(home / "f1", "f1", True), MappedRoot(home / "f2", "f2", True))
    assert bucket.mapping("here") == (MappedRoot(Path("here/f1"), "f1", True), MappedRoot(Path("here/f2"), "f2", True))
    assert bucket.mapping("here", "f2") == (MappedRoot(Path("here"), "f2", True),)
    assert bucket.mapping(None, "f2") == (MappedRoot(home / "f2", "f2", True),)


def test_without_folders_the_root_is_the_top_of_the_bucket() -> None:
    assert BucketConfig(provider="s3", bucket_name="b").mapping("here") == (MappedRoot(Path("here"), "", True),)
    pinned = BucketConfig(provider="s3", bucket_name="b", paths=[{"local": "x", "remote": "f"}], folders=["g"])
    assert pinned.mapping() == (MappedRoot(Path("x"), "f", True),)


def test_files_are_found_here_above_and_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "a/b").mkdir(parents=True)
    (home / ".buckia").mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert find_config(home / "a/b") is None
    assert BuckiaConfig.default_config_path(home / "a/b") == home / "a/b/.buckia"
    (home / ".buckia/config.yaml").touch()
    assert find_config(home / "a/b") == home / ".buckia/config.yaml"
    (home / "a/.buckia.toml").touch()
    assert find_config(home / "a/b") == home / "a/.buckia.toml"
    (home / "a/.buckia").touch()
    assert find_config(home / "a/b") == home / "a/.buckia"


@pytest.mark.parametrize(
    ("folder", "weak"),
    [
        ("123-456-789-ABC", True),
        ("demo", True),
        ("a" * 40, True),
        ("7f2kq4mzd5x3wnc6b7hvtyao2u", False),
        ("0b0e9b2e-5f0a-4c39-9d3f-4f0b6f1c2d3e", False),
    ],
)
def test_ids_that_can_be_guessed_are_told_from_others(folder: str, weak: bool) -> None:
    assert (folder_bits(folder) < 96) is weak
    assert (
        any("guessed" in text for text in BucketConfig(provider="s3", bucket_name="b", folders=[folder]).warnings)
        is weak
    )
    assert BucketConfig(provider="local", bucket_name="b", folders=[folder]).warnings == []


@given(st.text(max_size=200), st.sampled_from(["yaml", "toml", "json"]))
def test_any_text_is_read_or_refused(text: str, text_format: str) -> None:
    with suppress(ConfigError):
        assert len(BuckiaConfig.from_text(text, text_format=text_format)) > 0  # type: ignore[arg-type]


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
        lambda values: st.lists(values) | st.dictionaries(st.text("abc", min_size=1), values),
        max_leaves=10,
    )
)
def test_json_reads_as_json_says(value: object) -> None:
    assert parse(json.dumps({"x": value}), name="t", text_format="json").values == {"x": value}


@pytest.mark.parametrize(("provider", "workers"), [("local", 8), ("s3", 16), ("b2", 16), ("bunny", 16), ("linode", 16)])
def test_workers_are_the_providers_unless_they_are_given(provider: str, workers: int) -> None:
    assert BucketConfig(provider=provider, bucket_name="b").options().max_workers == workers
    assert BucketConfig(provider=provider, bucket_name="b", max_workers=3).options().max_workers == 3
