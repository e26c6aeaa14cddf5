"""Configuration files: many bucket entries by name, where they are looked for, and how they are written."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from buckia.config.bucket import ALIASES, PROVIDERS, BucketConfig, BucketConfigError, describe
from buckia.config.text import TEXT_BYTES_MAX, Document, TextFormat, format_of, parse
from buckia.config.words import KeyPath, sentence, suggestion
from buckia.errors import ConfigError, LocalError

CONFIG_NAMES = (".buckia", ".buckia.yaml", ".buckia.yml", ".buckia.toml", ".buckia.json")
"""The files that are looked for, in this order."""

_NO_ENTRY_HINT = "Write one with `buckia init`, or name a bucket folder with `--to` or `--from`."


class _Dumper(yaml.SafeDumper):
    """Escapes the line breaks of Unicode, which other styles than double quotes turn into plain ones."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


class BuckiaConfig(Mapping[str, BucketConfig]):
    """Bucket entries by name, in the order of their file. Immutable."""

    def __init__(
        self, buckets: Mapping[str, BucketConfig], *, path: Path | None = None, namespace: str | None = None
    ) -> None:
        self._buckets = dict(buckets)
        self.path = path
        self.namespace = namespace

    def __getitem__(self, name: str) -> BucketConfig:
        return self._buckets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._buckets)

    def __len__(self) -> int:
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"BuckiaConfig({list(self)}, path={str(self.path) if self.path else None!r})"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> BuckiaConfig:
        """Read a configuration file; relative paths in it count from its directory. Raises ConfigError."""
        file = Path(path)
        try:
            with file.open(encoding="utf-8") as stream:
                text = stream.read(TEXT_BYTES_MAX + 1)
        except FileNotFoundError:
            raise ConfigError(f"There is no configuration file '{file}'.", hint=_NO_ENTRY_HINT) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{file}: the configuration is not UTF-8 text.") from None
        except OSError as error:
            raise ConfigError(f"The configuration file '{file}' cannot be read: {error.strerror}.") from None
        return cls._from_document(parse(text, name=str(file)), file.absolute())

    @classmethod
    def from_text(
        cls, text: str, *, text_format: TextFormat | None = None, name: str = "configuration"
    ) -> BuckiaConfig:
        """Read configuration text; ``name`` stands in messages, relative paths count from the current directory."""
        return cls._from_document(parse(text, name=name, text_format=text_format), None)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> BuckiaConfig:
        """Take bucket entries by name, or the keys of a single one. Raises ConfigError."""
        return cls._from_document(Document("configuration", values), None)

    @classmethod
    def _from_document(cls, document: Document, path: Path | None) -> BuckiaConfig:
        values = dict(document.values)
        if isinstance(values.get("provider"), str):
            entries, prefix, namespace = {"": values}, False, None
        else:
            namespace = values.pop("namespace", None)
            if namespace is not None and not isinstance(namespace, str):
                raise ConfigError(f"{document.where(('namespace',))}: 'namespace' must be text.")
            entries, prefix = values, True
        if not entries:
            raise ConfigError(f"{document.name}: the configuration holds no bucket entry.", hint=_NO_ENTRY_HINT)
        base = path.parent if path else Path()
        namespace = str(namespace) if namespace else None
        buckets: dict[str, BucketConfig] = {}
        for key, entry in entries.items():
            bucket = _entry(document, (key,) if prefix else (), entry)
            name = key if prefix else bucket.bucket_name
            buckets[name] = bucket.placed(name, base, namespace=namespace, from_file=path is not None)
        return cls(buckets, path=path, namespace=namespace)

    def select(self, name: str | None = None) -> BucketConfig:
        """The entry with this name; without a name ``default``, else the only one. Raises ConfigError."""
        names = ", ".join(self) or "none"
        if name is not None:
            if name not in self:
                raise ConfigError(f"There is no bucket entry '{name}'.", hint=f"Entries are: {names}.")
            return self[name]
        if "default" in self:
            return self["default"]
        if len(self) == 1:
            return next(iter(self.values()))
        raise ConfigError(
            "The configuration holds several bucket entries, and none is called 'default'.",
            hint=f"Choose one with --bucket NAME (bucket_name=NAME in Python): {names}.",
        )

    @property
    def warnings(self) -> list[str]:
        """What is accepted and probably not meant, of all entries and of the file."""
        return [*(warning for bucket in self.values() for warning in bucket.warnings), *self.exposure]

    @property
    def exposure(self) -> list[str]:
        """A warning if other users can read the secrets in the file."""
        if self.path is None or os.name != "posix" or not any(bucket.holds_secrets for bucket in self.values()):
            return []
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except OSError:
            return []  # no longer there, so nobody can read it
        if not mode & 0o077:
            return []
        return [f"'{self.path}' holds secrets, and other users can read it: chmod 600 {self.path.name}"]

    def to_text(self, text_format: TextFormat = "yaml", *, reveal: bool = False) -> str:
        """The configuration as a file would hold it; secrets are masked unless ``reveal``. TOML cannot be written."""
        values: dict[str, Any] = {"namespace": self.namespace} if self.namespace else {}
        values |= {name: bucket.dump(reveal=reveal) for name, bucket in self.items()}
        if text_format == "json":
            return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        if text_format == "yaml":
            return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
        raise ConfigError("Configurations can be read from TOML, but are written as YAML or JSON only.")

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> Path:
        """Write the configuration, secrets included, and return where; only the owner may read it if it holds any.

        Raises ConfigError if the file exists and ``overwrite`` is not set, LocalError if it cannot be written.
        """
        target = Path(path) if path is not None else self.path or Path(CONFIG_NAMES[0])
        text = self.to_text(format_of(target.name, ""), reveal=True)
        mode = 0o600 if any(bucket.holds_secrets for bucket in self.values()) else 0o644
        written = target.with_name(f"{CONFIG_NAMES[0]}-new-{os.getpid()}") if overwrite else target
        try:
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                if overwrite:
                    os.replace(written, target)
            except BaseException:
                written.unlink(missing_ok=True)
                raise
        except FileExistsError:
            raise ConfigError(
                f"'{target}' exists already and was not changed.", hint="Edit it, or move it away first."
            ) from None
        except OSError as error:
            raise LocalError(f"The configuration cannot be written to '{target}': {error.strerror}.") from None
        return target

    @staticmethod
    def default_config_path(directory: str | os.PathLike[str] | None = None) -> Path:
        """The file that commands started in ``directory`` use, or where one would be written if there is none."""
        start = Path(directory) if directory is not None else Path.cwd()
        return find_config(start) or start / CONFIG_NAMES[0]


def find_config(start: Path) -> Path | None:
    """The configuration file of a directory: its own, that of the nearest directory above, else the user's own."""
    start = start.absolute()
    for directory in (start, *start.parents):
        for name in CONFIG_NAMES:
            if (directory / name).is_file():
                return directory / name
    try:
        own = Path.home() / ".buckia" / "config.yaml"
    except RuntimeError:
        return None
    return own if own.is_file() else None


def _entry(document: Document, path: KeyPath, values: object) -> BucketConfig:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{document.where(path)}: '{path[0]}' must be a bucket entry, that is a mapping of settings.")
    bad = [key for key in values if not isinstance(key, str)]
    if bad:
        raise ConfigError(f"{document.where(path)}: the key {bad[0]!r} must be text.")
    try:
        bucket = BucketConfig(**values)
    except BucketConfigError as error:
        raise _located(document, path, error) from None
    problem = _provider_problem(bucket.provider)
    if problem:
        raise _located(document, path, BucketConfigError([(("provider",), problem)]))
    return bucket


def _located(document: Document, entry: KeyPath, error: BucketConfigError) -> ConfigError:
    """The first problem, with file, line and key."""
    found = []
    for key_path, clause in error.problems:
        names = [given for given, key in ALIASES.items() if key_path and key == key_path[0]]
        paths = [(*entry, *key_path), *((*entry, name, *key_path[1:]) for name in names)]
        exact = next((path for path in paths if path in document.lines), paths[0])
        found.append((document.where(exact), describe(((*entry, *key_path), clause))))
    where, text = found[0]
    more = f" ({len(found) - 1} more problems)" if len(found) > 1 else ""
    return ConfigError(sentence(f"{where}: {text}{more}"))


def _provider_problem(provider: str) -> str | None:
    """Why a file cannot name this provider. In code others may have been registered, so the factory decides there."""
    if provider in PROVIDERS:
        return None
    known = sorted({*PROVIDERS, *(point.name for point in entry_points(group="buckia.backends"))})
    return None if provider in known else f"must be one of {', '.join(known)}{suggestion(provider, known)}"
