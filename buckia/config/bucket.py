"""One bucket entry of a configuration: how to reach a bucket, and what to sync with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from buckia.config import options as checks
from buckia.config.options import SyncOptions
from buckia.config.values import (
    AnySettings,
    ByteRate,
    Context,
    Digest,
    Endpoint,
    FolderId,
    Folders,
    OneOrMany,
    Pattern,
    Policy,
    Positive,
    Prefix,
    Retries,
    TextMap,
    Workers,
)
from buckia.config.words import KeyPath, sentence, suggestion
from buckia.errors import ConfigError, UsageError
from buckia.location import Location, check_folder_id

PROVIDERS = ("b2", "bunny", "linode", "local", "memory", "s3")

ALIASES: Mapping[str, str] = {
    "hostname": "domain",
    "endpoint_url": "endpoint",
    "bucket": "bucket_name",
    "storage_zone_name": "storage_zone",
    "pull_zone_name": "pull_zone",
    "application_key_id": "access_key_id",
    "aws_access_key_id": "access_key_id",
    "access_key": "access_key_id",
    "key_id": "access_key_id",
    "application_key": "secret_access_key",
    "aws_secret_access_key": "secret_access_key",
    "secret_key": "secret_access_key",
    "aws_session_token": "session_token",
}
"""Other names that keys go by, in files, keyword arguments and ``credentials``."""

SECRET_KEYS = (
    "api_key",
    "storage_api_key",
    "password",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "token_key",
)

_PROVIDER_KEYS = (
    *("prefix", "storage_zone", "pull_zone", "cdn_url", "api_url", "transport", "transfer_acceleration"),
    *("storage_class", "connect_timeout", "read_timeout"),
)
"""Keys that are settings of the provider, which refuses those that mean nothing to it."""

_SECRET_WORDS = ("key", "secret", "token", "password", "credential")
_FOLDER_BITS_MIN = 96
_OLD_BUNNY_HOST = "storage.bunnycdn.net"
_NOT_YET = {
    "files": "single files",
    "upload_files": "single files to upload",
    "sync_rules": "rules per path",
}


@dataclass(frozen=True, slots=True)
class MappedRoot:
    """A local directory and the folder of the bucket that it shows; ``""`` is the bucket's top."""

    local: Path
    folder: str
    receives: bool
    """Changes from the bucket are written here; other roots only upload."""


class LocalRoot(BaseModel):
    """A ``paths`` entry that says itself where it lies in the bucket: ``{local: ..., remote: FOLDER}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    local: str
    remote: FolderId


class BucketConfig(BaseModel):
    """One bucket: provider, credentials, folders, paths and the options of a sync. Its repr shows no secrets.

    Keyword arguments are the keys of the configuration file. Raises ConfigError that names the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: str
    bucket_name: str
    domain: str | None = None
    endpoint: Endpoint | None = None
    region: str | None = None
    prefix: Prefix | None = None
    """Path in the bucket under which the folders lie."""
    path_style: bool | None = None
    storage_zone: str | None = None
    pull_zone: str | None = None
    cdn_url: Endpoint | None = None
    api_url: Endpoint | None = None
    transport: str | None = None
    transfer_acceleration: bool | None = None
    storage_class: str | None = None

    api_key: SecretStr | None = None
    storage_api_key: SecretStr | None = None
    password: SecretStr | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    token_key: SecretStr | None = None
    token_context: Context | None = None
    credentials: dict[str, SecretStr] = {}
    provider_settings: Annotated[dict[str, Any], AnySettings] = {}

    folders: Folders = ()
    paths: Annotated[tuple[str | LocalRoot, ...], OneOrMany] = ()
    files: TextMap = {}
    upload_files: TextMap = {}
    sync_rules: Annotated[tuple[dict[str, str], ...], OneOrMany] = ()

    delete_orphaned: bool = False
    max_workers: Workers = Field(default_factory=checks.default_workers)
    retries: Retries = checks.RETRIES_DEFAULT
    limit_up: ByteRate | None = None
    limit_down: ByteRate | None = None
    requests_per_second: Positive | None = None
    """Instead of what the provider is known to allow."""
    connect_timeout: Positive | None = None
    read_timeout: Positive | None = None
    """Seconds."""
    checksum_algorithm: Digest = "sha256"
    conflict_resolution: Policy = "local_wins"
    include_pattern: Pattern | None = None
    exclude_pattern: Pattern | None = None
    pdf: Annotated[Any, AnySettings] = None

    _name: str = PrivateAttr(default="")
    _base: Path = PrivateAttr(default_factory=Path)
    _namespace: str | None = PrivateAttr(default=None)
    _from_file: bool = PrivateAttr(default=False)
    _only: str | None = PrivateAttr(default=None)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What ``repr`` shows: the keys that were set, without the settings of providers, which may hold secrets."""
        for key, value in super().__repr_args__():
            if key in self.model_fields_set:
                yield key, "{...}" if key == "provider_settings" else value

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, data: Any, handler: Callable[[Any], BucketConfig]) -> BucketConfig:
        """Resolve aliases and turn what pydantic finds into one ConfigError without any of the values."""
        if isinstance(data, Mapping):
            data = _canonical(data)
        try:
            return handler(data)
        except ValidationError as error:
            # A misspelt key explains a missing one, so it comes first.
            details = error.errors(include_input=False, include_url=False)
            details.sort(key=lambda one: one["type"] != "extra_forbidden")
            problems = [_problem(one, data) for one in details if one["type"] != "default_factory_not_called"]
        raise BucketConfigError(problems)

    @property
    def name(self) -> str:
        """The entry's key in its file; what ``--bucket`` takes."""
        return self._name or self.bucket_name

    @property
    def base(self) -> Path:
        """The directory that relative paths count from: that of the file, or the current one."""
        return self._base

    @property
    def namespace(self) -> str | None:
        """The ``namespace`` of the file: it sets the names of secrets apart from those of other programs."""
        return self._namespace

    @property
    def from_file(self) -> bool:
        """The entry was read from a file; what it holds was not given by the program."""
        return self._from_file

    @property
    def host(self) -> str | None:
        """``domain`` as it is meant: an old form of Bunny's host never worked."""
        bunny = self.provider == "bunny" and (self.domain or "").lower() == _OLD_BUNNY_HOST
        return "storage.bunnycdn.com" if bunny else self.domain

    @property
    def bucket_directory(self) -> Path:
        """Where the bucket of provider ``local`` lies."""
        return self._local(self.bucket_name)

    def placed(self, name: str, base: Path, *, namespace: str | None = None, from_file: bool = False) -> BucketConfig:
        """A copy with the name, base directory and namespace of the configuration that it stands in."""
        copy = self.model_copy()
        copy._name, copy._base, copy._namespace, copy._from_file = name, base, namespace, from_file
        return copy

    def with_folder(self, folder: str) -> BucketConfig:
        """A copy that is about this folder only. Raises UsageError if it can be none or the entry names others."""
        self._require_named(folder)
        try:
            copy = self.model_copy(update={"folders": (check_folder_id(folder),)})
            copy._only = folder
            return copy
        except ValueError as problem:
            raise ConfigError(f"The folder '{folder}' {problem}.") from None

    @property
    def named_folders(self) -> tuple[str, ...]:
        """The folders that ``folders`` and ``paths`` name; none: any may be used."""
        remotes = (path.remote for path in self.paths if isinstance(path, LocalRoot))
        return tuple(dict.fromkeys((*self.folders, *remotes)))

    def _require_named(self, folder: str) -> None:
        """A misspelt folder would be made, here and in the bucket."""
        names = self.named_folders
        if names and folder not in names:
            problem = f"The bucket entry '{self.name}' names no folder '{folder}'{suggestion(folder, names)}"
            raise UsageError(sentence(problem), hint=f"Its folders are: {', '.join(names)}.")

    def with_settings(self, **given: Any) -> BucketConfig:
        """A copy in which these keys have other values. Raises ConfigError."""
        if not given:
            return self
        own = {key: getattr(self, key) for key in self.model_fields_set}
        return type(self)(**own | given).placed(
            self._name, self._base, namespace=self._namespace, from_file=self._from_file
        )

    @classmethod
    def for_location(cls, location: Location, **given: Any) -> BucketConfig:
        """The configuration that ``--to`` or ``--from`` stands for: one bucket, one folder; ``given`` are more keys."""
        return cls(provider=location.provider, folders=(location.folder,), **location.settings, **given)

    def options(self) -> SyncOptions:
        """What the entry says about how to sync."""
        return SyncOptions(
            delete_orphaned=self.delete_orphaned,
            max_workers=self.max_workers,
            include_pattern=self.include_pattern,
            exclude_pattern=self.exclude_pattern,
            conflict_resolution=self.conflict_resolution,
            checksum_algorithm=self.checksum_algorithm,
        )

    def secrets(self) -> dict[str, str]:
        """The entry's own secrets in clear, by their canonical names; ``credentials`` win over keys of the entry.

        Where else they may come from, and which of them a provider needs, is up to `buckia.credentials`.
        """
        own = {key: getattr(self, key) for key in SECRET_KEYS}
        own |= {ALIASES.get(key, key): value for key, value in self.credentials.items()}
        return {key: value.get_secret_value() for key, value in own.items() if value is not None}

    def backend(self) -> dict[str, Any]:
        """Keyword arguments of ``buckia.sync.factory.BackendConfig``, but for the credentials.

        Keys that an adapter does not know reach it among ``settings``, which it refuses, so nothing is lost silently.
        """
        settings = dict(self.provider_settings)
        endpoint = self.endpoint
        if self.provider in ("s3", "linode", "b2", "bunny"):
            endpoint = endpoint or self.host
        elif self.host is not None:
            settings["domain"] = self.host
        if self.path_style is not None:
            settings["addressing"] = "path" if self.path_style else "virtual"
        for key in _PROVIDER_KEYS:
            if getattr(self, key) is not None:
                settings[key] = getattr(self, key)
        return {
            "provider": self.provider,
            "bucket_name": str(self.bucket_directory) if self.provider == "local" else self.bucket_name,
            "region": self.region,
            "endpoint": endpoint,
            "max_workers": self.max_workers,
            "settings": settings,
            "directory": self._base,
        }

    def mapping(self, local_path: str | Path | None = None, folder: str | None = None) -> tuple[MappedRoot, ...]:
        """Which local directory shows which folder, in order.

        ``local_path`` replaces ``paths`` and counts from the current directory; with ``folder`` it is that folder.
        Raises UsageError for a folder that is none of those that the entry names.
        """
        if folder is not None:
            self._require_named(folder)
        if local_path is not None and folder is not None:
            return (MappedRoot(Path(local_path).expanduser(), folder, receives=True),)
        roots: list[Path | LocalRoot]
        if local_path is not None:
            roots = [Path(local_path).expanduser()]
        else:
            roots = [path if isinstance(path, LocalRoot) else self._local(path) for path in self.paths or (".",)]
        folder = self._only if folder is None else folder
        folders = self.folders if folder is None else (folder,)
        result: list[MappedRoot] = []
        for number, root in enumerate(roots):
            if isinstance(root, LocalRoot):
                if folder in (None, root.remote):
                    result.append(MappedRoot(self._local(root.local), root.remote, receives=number == 0))
            elif folders:
                result += [MappedRoot(root / name, name, receives=number == 0) for name in folders]
            else:
                result.append(MappedRoot(root, "", receives=number == 0))
        return tuple(result)

    def require_supported(self) -> None:
        """Raise ConfigError if the entry asks for something that this version would have to ignore."""
        wanted = [key for key in _NOT_YET if getattr(self, key)]
        if wanted:
            raise ConfigError(
                f"'{wanted[0]}' ({_NOT_YET[wanted[0]]}) of the bucket entry '{self.name}' "
                "is not there yet in this version.",
                hint="Remove the key to sync the rest.",
            )
        if len(self.paths) > 1:
            raise ConfigError(
                f"Several 'paths' in the bucket entry '{self.name}' are not there yet in this version.",
                hint="Keep the first one, or name one directory: `buckia sync DIR`.",
            )

    @property
    def warnings(self) -> list[str]:
        """What is accepted and probably not meant."""
        found: list[str] = []
        if self.host != self.domain:
            found.append(f"'{self.name}': Bunny's host is storage.bunnycdn.com, and so '{_OLD_BUNNY_HOST}' is read.")
        if self.pdf is not None:
            found.append(f"'{self.name}': 'pdf' has no effect, buckia renders no documents.")
        if self.provider not in checks.NEAR:
            for folder in self.folders:
                if folder_bits(folder) < _FOLDER_BITS_MIN:
                    found.append(
                        f"'{self.name}': the folder id '{folder}' can be guessed, and whoever knows an id may have "
                        "access to its files; use at least 26 random letters and digits."
                    )
        return found

    def dump(self, *, reveal: bool = False) -> dict[str, Any]:
        """The keys that were set, as a file would hold them; secrets are masked unless ``reveal``."""
        result: dict[str, Any] = {}
        for key in type(self).model_fields:
            if key in self.model_fields_set and (value := getattr(self, key)) is not None:
                result[key] = _plain(key, value, reveal=reveal)
        return result

    @property
    def holds_secrets(self) -> bool:
        """The entry states credentials or settings that look like some."""
        return self.dump() != self.dump(reveal=True)

    def _local(self, text: str) -> Path:
        try:
            return self._base / Path(text).expanduser()
        except RuntimeError:
            raise ConfigError(f"No home directory is known for '{text}' in the bucket entry '{self.name}'.") from None


class BucketConfigError(ConfigError):
    """A bucket entry that is wrong; ``problems`` holds all of them as (key path, clause)."""

    def __init__(self, problems: list[tuple[KeyPath, str]]) -> None:
        self.problems = problems
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(sentence(f"{describe(problems[0])}{more}"))


def describe(problem: tuple[KeyPath, str]) -> str:
    """A problem as the beginning of a sentence: ``'max_workers' must be ...``."""
    path, clause = problem
    return f"'{'.'.join(map(str, path))}' {clause}" if path else clause


def folder_bits(folder: str) -> float:
    """How many bits an id of this shape can hold at most: its characters times the bits of their apparent alphabet."""
    letters = [character for character in folder if character.isalnum()]
    lower = folder.lower()
    if all(character.isdigit() for character in letters):
        alphabet = 10
    elif all(character in "0123456789abcdef" for character in lower if character.isalnum()):
        alphabet = 16
    else:
        alphabet = 62 if lower != folder and folder.upper() != folder else 36
    return len(letters) * math.log2(alphabet) if len(set(letters)) > 2 else 0.0


def _canonical(data: Mapping[Any, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    seen: dict[Any, Any] = {}
    for given, value in data.items():
        key = ALIASES.get(given, given)
        if key in seen:
            raise BucketConfigError([((str(given),), f"means the same as '{seen[key]}', and both are given")])
        seen[key] = given
        if value is not None or key in ("provider", "bucket_name"):
            result[key] = value
    return result


def _problem(detail: ErrorDetails, data: object) -> tuple[KeyPath, str]:
    path = tuple(part for part in detail["loc"] if part not in ("str", "LocalRoot"))
    kind = detail["type"]
    key = str(path[-1]) if path else ""
    if kind == "missing":
        return path, "is missing"
    if kind == "extra_forbidden":
        known = [*LocalRoot.model_fields]
        if len(path) == 1:
            present = data if isinstance(data, Mapping) else {}
            known = [name for name in (*BucketConfig.model_fields, *ALIASES) if ALIASES.get(name, name) not in present]
        return path, f"is no key that buckia knows{suggestion(key, known)}"
    if kind == "value_error":
        return path, str(detail["ctx"]["error"])
    clauses = {
        "string_type": "must be text; put it in quotes",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be text or {local: ..., remote: ...}",
    }
    return path, clauses.get(kind, "has a value of the wrong kind")


def _plain(key: str, value: Any, *, reveal: bool) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value() if reveal else "********"
    if isinstance(value, LocalRoot):
        return {"local": value.local, "remote": value.remote}
    if isinstance(value, Mapping):
        return {name: _plain(f"{key}.{name}", item, reveal=reveal) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(key, item, reveal=reveal) for item in value]
    if not reveal and isinstance(value, str) and key not in BucketConfig.model_fields:
        return "********" if any(word in key.lower() for word in _SECRET_WORDS) else value
    return value
