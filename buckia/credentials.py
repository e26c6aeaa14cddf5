"""Credentials: which secrets a provider needs, where they are found, and how they are kept in the keyring.

They are looked for in what the program gives, in the environment, in the keyring, and in the configuration file, in
this order. Secrets that belong together, such as an id and its key, are taken from one place: half a pair is never
completed from another one. Of what was found only the places are ever shown.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from shlex import quote
from typing import Any, NoReturn, TypeVar

from pydantic import SecretStr

from buckia.config.bucket import ALIASES, SECRET_KEYS, BucketConfig
from buckia.errors import AuthenticationError, BuckiaError, LocalError, MissingExtraError, UsageError

T = TypeVar("T")
Given = Mapping[str, str | SecretStr]
Found = Mapping[str, tuple[SecretStr, str]]
"""What one place holds: canonical name -> (secret, where it lies)."""

GIVEN = "given by the program"
FILE = "configuration file"
NAMESPACE_DEFAULT = "default"
_INDEX = ("buckia", "contexts")
"""Service and user of the keyring's one entry that is no secret: the names of our contexts, as it cannot list them."""

_log = logging.getLogger(__name__)


# ---- what providers need


@dataclass(frozen=True, slots=True)
class Group:
    """Secrets that belong together, by canonical names; without ``needed`` any of ``optional`` will do."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    variables: tuple[Mapping[str, str], ...] = ()
    """The provider's own environment variables by secret; each mapping is a place, the first one is recommended."""
    required: bool = True
    """There is no connection without them."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return self.needed + self.optional


_PAIR = ("access_key_id", "secret_access_key")
_PAIR_NAMES = {"api_key": "access_key_id", "password": "secret_access_key"}
_OTHER = (Group((), SECRET_KEYS, required=False),)
"""What other packages' providers need is theirs to know."""

_GROUPS: Mapping[str, tuple[Group, ...]] = {
    "local": (),
    "memory": (),
    # Without any, botocore goes on looking: profiles, single sign-on, the machine's role.
    "s3": (
        Group(
            _PAIR,
            ("session_token",),
            (
                {
                    "access_key_id": "AWS_ACCESS_KEY_ID",
                    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
                    "session_token": "AWS_SESSION_TOKEN",
                },
            ),
            required=False,
        ),
    ),
    "linode": (
        Group(
            _PAIR,
            ("session_token",),
            (
                {
                    "access_key_id": "LINODE_CLI_OBJ_ACCESS_KEY",
                    "secret_access_key": "LINODE_CLI_OBJ_SECRET_KEY",
                },
                {"access_key_id": "LINODE_OBJ_ACCESS_KEY", "secret_access_key": "LINODE_OBJ_SECRET_KEY"},
            ),
        ),
    ),
    "b2": (
        Group(
            _PAIR,
            variables=({"access_key_id": "B2_APPLICATION_KEY_ID", "secret_access_key": "B2_APPLICATION_KEY"},),
        ),
    ),
    "bunny": (
        Group(
            ("storage_api_key",),
            variables=({"storage_api_key": "BUNNY_STORAGE_API_KEY"}, {"storage_api_key": "BUNNY_STORAGE_PASSWORD"}),
        ),
        Group(("api_key",), variables=({"api_key": "BUNNYNET_API_KEY"}, {"api_key": "BUNNY_API_KEY"}), required=False),
        Group(("token_key",), variables=({"token_key": "BUNNY_TOKEN_KEY"},), required=False),
    ),
}
_MEANT: Mapping[str, Mapping[str, str]] = {
    "s3": _PAIR_NAMES,
    "linode": _PAIR_NAMES,
    "b2": _PAIR_NAMES,
    "bunny": {"password": "storage_api_key"},
}
"""What names that several providers share stand for at one of them."""

_TITLES: Mapping[tuple[str, str], str] = {
    ("b2", "access_key_id"): "application key id",
    ("b2", "secret_access_key"): "application key",
    ("bunny", "storage_api_key"): "password of the storage zone",
    ("bunny", "api_key"): "API key of the account",
    ("bunny", "token_key"): "token authentication key of the pull zone",
}


def groups(provider: str) -> tuple[Group, ...]:
    """What a provider needs; ``()``: nothing."""
    return _GROUPS.get(provider, _OTHER)


def title(provider: str, name: str) -> str:
    """What the provider's own pages call a secret."""
    return _TITLES.get((provider, name), name.replace("_", " "))


def canonical(provider: str, secrets: Mapping[str, T]) -> dict[str, T]:
    """The mapping by the names that the provider's adapter knows. Raises UsageError for a name that is none at all."""
    result = {ALIASES.get(name, name): secret for name, secret in secrets.items()}
    if provider in _GROUPS:
        for name in result.keys() - {*SECRET_KEYS}:
            near = difflib.get_close_matches(name, [*SECRET_KEYS, *ALIASES], 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known are: {', '.join(SECRET_KEYS)}."
            raise UsageError(f"'{name}' is no credential that buckia knows.", hint=hint)
    for name, meant in _MEANT.get(provider, {}).items():
        if name in result:
            result.setdefault(meant, result.pop(name))
    return result


# ---- what was found


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets by canonical name, and where each was found. Shows the places only, and cannot be pickled."""

    values: Mapping[str, SecretStr] = field(repr=False)
    sources: Mapping[str, str]
    """``environment (AWS_ACCESS_KEY_ID)``, ``keyring (SERVICE)``, ``configuration file``, ``given by the program``."""

    def reveal(self) -> dict[str, str]:
        """The secrets in clear, for an adapter."""
        return {name: value.get_secret_value() for name, value in self.values.items()}

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("Credentials cannot be pickled: they would lie there in clear.")


def resolve(
    config: BucketConfig,
    given: Given | None = None,
    environ: Mapping[str, str] | None = None,
) -> Credentials:
    """The credentials of a bucket entry; ``given`` wins over everything, ``environ`` stands for the environment.

    Raises AuthenticationError if the provider cannot do without those that are missing, or if only half of a pair is
    there. Touches no network; the keyring is asked only if neither the program nor the environment has an answer.
    """
    found: dict[str, tuple[SecretStr, str]] = {}
    if needs := groups(config.provider):
        search = _Search(config, given or {}, os.environ if environ is None else environ)
        for group in needs:
            found |= search.take(group)
    sources = {name: source for name, (_, source) in found.items()}
    _log.debug("credentials of '%s': %s", config.name, sources or "none of our own")
    return Credentials({name: secret for name, (secret, _) in found.items()}, sources)


class _Search:
    """Looks through the places where the secrets of one bucket entry may be."""

    def __init__(self, config: BucketConfig, given: Given, environ: Mapping[str, str]) -> None:
        self.config = config
        self.environ = environ
        self.given = self.place(given, GIVEN)
        self.own = self.place(config.secrets(), FILE if config.from_file else GIVEN)
        # A profile is a choice of credentials by name, so what is there for everyone does not overrule it.
        self.profile = config.provider == "s3" and "profile" in config.provider_settings
        self.contexts = contexts(config) if config.token_context or not self.profile else ()

    def place(self, secrets: Given, source: str) -> Found:
        """What a mapping holds."""
        return canonical(self.config.provider, _clean({name: (value, source) for name, value in secrets.items()}))

    def take(self, group: Group) -> Found:
        """The group's secrets from the first place that has all that are needed."""
        halves: list[str] = []
        for place in self.places(group):
            found = {name: place[name] for name in (group.names if group.needed else place) if name in place}
            held = [name for name in group.needed if name in found]
            if found and len(held) == len(group.needed):
                for half in halves:
                    _log.warning("'%s': %s, so it is not used", self.config.name, half)
                return found
            if held:
                missing = next(name for name in group.needed if name not in found)
                halves.append(f"{found[held[0]][1]}: there is {held[0]}, but no {missing}")
        if halves:
            raise AuthenticationError(
                f"'{self.config.name}': {halves[0]}.", hint="Both are taken from one place: put them there together."
            )
        if group.required:
            raise self.missing(group)
        return {}

    def places(self, group: Group) -> Iterator[Found]:
        """Where to look, in order; none is looked into before the ones before it."""
        yield self.given
        if not self.config.from_file:
            yield self.own
        for stem in self.stems():
            yield self.environment({name: f"{stem}_{name.upper()}" for name in SECRET_KEYS})
        if len(group.needed) == 1 and group.required and self.config.namespace:
            # Programs of old kept a single token under this name.
            for context in self.contexts:
                yield self.environment({group.needed[0]: f"buckia_{self.config.namespace}_{context}"})
        for variables in () if self.profile else group.variables:
            yield self.environment(variables)
        yield from self.kept
        if self.config.from_file:
            yield self.own

    def environment(self, variables: Mapping[str, str]) -> Found:
        """The secrets that the environment holds under these names."""
        held = {
            name: (self.environ[variable], f"environment ({variable})")
            for name, variable in variables.items()
            if variable in self.environ
        }
        return canonical(self.config.provider, _clean(held))

    @cached_property
    def kept(self) -> list[Found]:
        """What the keyring holds for each context; where there is none, or it is locked, the search goes on."""
        services = [service_name(self.config.namespace, context) for context in self.contexts]
        names = [name for group in groups(self.config.provider) for name in group.names]
        try:
            with _keyring() as ring:
                return [
                    _clean(
                        {
                            name: (secret, f"keyring ({service})")
                            for name in names
                            if (secret := ring.get_password(service, name)) is not None
                        }
                    )
                    for service in services
                ]
        except MissingExtraError as error:
            _log.debug("%s", error.message)
        except LocalError as error:
            _log.warning("%s", error.message)
        return []

    def stems(self) -> Iterator[str]:
        """The beginnings of environment variables that are about this entry."""
        for context in self.contexts:
            for words in (f"{self.config.namespace}_{context}" if self.config.namespace else "", context):
                stem = re.sub("[^A-Z0-9]+", "_", words.upper()).strip("_")
                if stem:
                    yield f"BUCKIA_{stem}"

    def missing(self, group: Group) -> AuthenticationError:
        """What to say if nothing was found."""
        provider = self.config.provider
        names = " and no ".join(_described(provider, name) for name in group.needed)
        variables = " and ".join(group.variables[0][name] for name in group.needed)
        command = f"--bucket {quote(self.config.name)}" if self.config.from_file else f"--provider {provider}"
        if self.config.token_context and not self.config.from_file:
            command += f" --context {self.config.token_context}"
        return AuthenticationError(
            f"There is no {names} for the bucket entry '{self.config.name}' ({provider}).",
            hint=f"Set {variables}, or use the keyring: `buckia auth set {command}`.",
        )


def _described(provider: str, name: str) -> str:
    words = title(provider, name)
    return name if words == name.replace("_", " ") else f"{name} ({words})"


def contexts(config: BucketConfig) -> tuple[str, ...]:
    """The names under which the secrets of an entry are looked for: ``token_context``, or the entry's and its
    provider's.
    """
    if config.token_context:
        return (config.token_context,)
    return tuple(dict.fromkeys((config.name, config.provider)))


def _clean(held: Mapping[str, tuple[str | SecretStr, str]]) -> dict[str, tuple[SecretStr, str]]:
    """Secrets without white space around them, and without empty ones."""
    result = {}
    for name, (value, source) in held.items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            raise UsageError(f"The credential '{name}' must be text.")
        text = text.strip()
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            # HTTP libraries would refuse it as well, with an error that shows it.
            raise AuthenticationError(f"{source}: {name} holds a line break or another control character.")
        if text:
            result[name] = (SecretStr(text), source)
    return result


# ---- the keyring


@dataclass(frozen=True, slots=True)
class Context:
    """What the keyring holds for one context: the names of its secrets."""

    namespace: str
    context: str
    secrets: tuple[str, ...]


def service_name(namespace: str | None, context: str) -> str:
    """The keyring's service that holds the secrets of a context, by canonical names as users."""
    return f"buckia_{namespace or NAMESPACE_DEFAULT}_{context}"


def complete(provider: str, secrets: Mapping[str, str]) -> dict[str, SecretStr]:
    """What a person entered for a provider, checked. Raises UsageError if that is nothing, foreign, or half a pair."""
    entered = _clean(canonical(provider, {name: (value, "what was entered") for name, value in secrets.items()}))
    names = [name for group in groups(provider) for name in group.names]
    for name in entered:
        if name not in names:
            raise UsageError(f"The provider {provider} has no {name}.", hint=f"It has: {', '.join(names)}.")
    if not entered:
        raise UsageError("No secret was entered, so nothing was stored.")
    for group in groups(provider):
        lacking = [name for name in group.needed if name not in entered]
        if lacking and any(name in entered for name in group.names):
            raise UsageError(f"There is no {lacking[0]}, so nothing was stored.", hint="Both belong together.")
    return {name: secret for name, (secret, _) in entered.items()}


def store(provider: str, namespace: str | None, context: str, secrets: Mapping[str, SecretStr]) -> None:
    """Put secrets, as `complete` returns them, into the keyring; of each group that they touch nothing old is left.

    Raises MissingExtraError if there is no keyring, LocalError if it refuses; then what was there before is put back.
    """
    service = service_name(namespace, context)
    touched = [name for group in groups(provider) if {*group.names} & secrets.keys() for name in group.names]
    with _keyring() as ring:
        before = {name: ring.get_password(service, name) for name in touched}
        try:
            for name in touched:
                _put(ring, service, name, secrets[name].get_secret_value() if name in secrets else None)
        except BaseException:
            for name, secret in before.items():
                _put(ring, service, name, secret)
            raise
        if not {*_kept(ring, service)} >= secrets.keys():
            raise _no_keyring("The keyring of this machine keeps nothing.")
        index = _index(ring)
        index.setdefault(namespace or NAMESPACE_DEFAULT, set()).add(context)
        _write_index(ring, index)


def stored() -> list[Context]:
    """The contexts in the keyring, of all namespaces. Raises MissingExtraError, LocalError."""
    with _keyring() as ring:
        return [
            Context(namespace, context, names)
            for namespace, contexts_of_it in sorted(_index(ring).items())
            for context in sorted(contexts_of_it)
            if (names := _kept(ring, service_name(namespace, context)))
        ]


def kept(namespace: str | None, context: str) -> tuple[str, ...]:
    """The names of the secrets that the keyring holds for a context. Raises MissingExtraError, LocalError."""
    with _keyring() as ring:
        return _kept(ring, service_name(namespace, context))


def forget(namespace: str | None, context: str) -> None:
    """Remove a context and its secrets from the keyring. Raises MissingExtraError, LocalError."""
    with _keyring() as ring:
        for name in SECRET_KEYS:
            _put(ring, service_name(namespace, context), name, None)
        index = _index(ring)
        index.get(namespace or NAMESPACE_DEFAULT, set()).discard(context)
        _write_index(ring, index)


@contextmanager
def _keyring() -> Iterator[Any]:
    """The module ``keyring``; what it and its plug-ins raise becomes an error of ours that shows nothing of theirs."""
    try:
        import keyring
        from keyring.errors import NoKeyringError
    except ImportError:
        raise _no_keyring("The package keyring is not installed.") from None
    try:
        yield keyring
    except BuckiaError:
        raise
    except NoKeyringError:
        raise _no_keyring("There is no keyring on this machine.") from None
    except Exception as error:  # plug-ins raise what they like, and their messages may hold what they were given
        raise LocalError(
            f"The keyring failed ({type(error).__name__}).", hint="Unlock it, or use the environment instead."
        ) from None


def _no_keyring(message: str) -> MissingExtraError:
    return MissingExtraError(
        message,
        hint="Use environment variables such as AWS_ACCESS_KEY_ID, B2_APPLICATION_KEY_ID, BUNNY_STORAGE_API_KEY or "
        'BUCKIA_<CONTEXT>_ACCESS_KEY_ID, or on a machine with a desktop: pip install "buckia[keyring]"',
    )


def _kept(ring: Any, service: str) -> tuple[str, ...]:
    return tuple(name for name in SECRET_KEYS if ring.get_password(service, name) is not None)


def _put(ring: Any, service: str, name: str, secret: str | None) -> None:
    """Write a secret; None removes it."""
    if secret is not None:
        ring.set_password(service, name, secret)
    elif ring.get_password(service, name) is not None:
        ring.delete_password(service, name)


def _index(ring: Any) -> dict[str, set[str]]:
    """Namespace -> contexts. What cannot be read is no loss: storing a context again brings it back."""
    text = ring.get_password(*_INDEX) or "{}"
    try:
        return {str(name): {str(context) for context in those} for name, those in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        _log.warning("The list of contexts in the keyring cannot be read.")
        return {}


def _write_index(ring: Any, index: Mapping[str, set[str]]) -> None:
    ring.set_password(*_INDEX, json.dumps({name: sorted(those) for name, those in sorted(index.items()) if those}))
