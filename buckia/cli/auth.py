"""``buckia auth``: secrets in the keyring, and where each secret comes from."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buckia.cli.common import configure_logging, interactive, load_config, session
from buckia.cli.options import Settings, Target, common_options, current_settings
from buckia.cli.output import clean, note, out, out_json, table
from buckia.errors import (
    AccessDenied,
    AuthenticationError,
    LocalError,
    MissingExtraError,
    NotFoundError,
    RefusedError,
    UsageError,
)

if TYPE_CHECKING:
    from buckia.config import BucketConfig, BuckiaConfig
    from buckia.credentials import Context

PROVIDERS = ("b2", "bunny", "linode", "s3")
_STDIN_BYTES_MAX = 1 << 16


@click.group("auth", context_settings={"help_option_names": ["-h", "--help"]})
def auth_command() -> None:
    """Keep secrets in the keyring, and see which ones are used."""


def _configuration(settings: Settings) -> BuckiaConfig | None:
    """The configuration that commands here would use, if there is one."""
    from buckia.config import find_config

    if settings.config or os.environ.get("BUCKIA_CONFIG") or find_config(Path.cwd()):
        return load_config(settings)
    return None


# ---- set


@auth_command.command("set")
@click.option("--provider", type=click.Choice(PROVIDERS), help="Ask for what this provider needs.")
@click.option("--bucket", metavar="NAME", help="Ask for what this bucket entry of the configuration needs.")
@click.option("--context", metavar="C", help="The name to keep them under; default: the entry's or the provider's.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read lines NAME=VALUE from stdin instead of asking.")
@common_options
def auth_set_command(provider: str | None, bucket: str | None, context: str | None, from_stdin: bool) -> int:
    """Ask for secrets, without showing them, and put them into the keyring.

    They are never taken from the command line, where the list of processes would show them.
    """
    from buckia import credentials

    settings = current_settings()
    configure_logging(settings)
    provider, namespace, context = _place(settings, provider, bucket, context)
    if not credentials.groups(provider):
        raise UsageError(f"The provider {provider} needs no credentials.")
    credentials.kept(namespace, context)  # where there is no keyring nobody need type
    entered = _read_lines(provider) if from_stdin else _ask(provider, context)
    secrets = credentials.complete(provider, entered)
    credentials.store(provider, namespace, context, secrets)
    service = credentials.service_name(namespace, context)
    if settings.json:
        out_json({"context": context, "service": service, "stored": list(secrets)})
    elif not settings.quiet:
        out(f"Stored {', '.join(secrets)} in the keyring ({service}).")
    return 0


def _place(
    settings: Settings, provider: str | None, bucket: str | None, context: str | None
) -> tuple[str, str | None, str]:
    """Provider, namespace and context that the options name."""
    from buckia.config.values import check_context

    if provider is not None and bucket is not None:
        raise UsageError("--provider and --bucket exclude each other.", hint="An entry has its provider.")
    if context is not None:
        try:
            check_context(context)
        except ValueError as problem:
            raise UsageError(f"'--context' {problem}.") from None
    if provider is not None:
        config = _configuration(settings)
        return provider, config.namespace if config else None, context or provider
    entry = load_config(settings).select(bucket)
    return entry.provider, entry.namespace, context or entry.token_context or entry.name


def _ask(provider: str, context: str) -> dict[str, str]:
    """What a person types, without echo; what may be left out may be left empty."""
    from buckia import credentials

    if not interactive():
        raise UsageError("Nobody can be asked for secrets here.", hint="Give them as lines NAME=VALUE to --stdin.")
    note(f"Secrets of {provider} for the context '{context}'; they are not shown.")
    entered = {}
    for group in credentials.groups(provider):
        for name in group.names:
            optional = "" if group.required and name in group.needed else ", may be left empty"
            text = f"{name} ({credentials.title(provider, name)}{optional})"
            entered[name] = click.prompt(text, hide_input=True, default="", show_default=False, err=True)
    return entered


def _read_lines(provider: str) -> dict[str, str]:
    """Lines NAME=VALUE of stdin. Errors name the line only: anything in it may be a secret."""
    from buckia.config.bucket import ALIASES, SECRET_KEYS

    known = {*SECRET_KEYS, *ALIASES}
    entered: dict[str, str] = {}
    text = sys.stdin.read(_STDIN_BYTES_MAX + 1)
    if len(text) > _STDIN_BYTES_MAX:
        raise UsageError("There is too much on stdin for a few secrets.")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip().lower()
        if not equals or name not in known:
            raise UsageError(
                f"Line {number} of stdin is not NAME=VALUE with the name of a secret.",
                hint=f"Names are: {', '.join(SECRET_KEYS)}.",
            )
        if name in entered:
            raise UsageError(f"Line {number} of stdin names {name} again.")
        entered[name] = value
    return entered


# ---- list


@auth_command.command("list")
@common_options
def auth_list_command() -> int:
    """List the contexts in the keyring, and where each bucket entry's secrets come from. No secret is shown."""
    settings = current_settings()
    configure_logging(settings)
    config = _configuration(settings)
    contexts, problem = _contexts()
    entries = [_entry(entry) for entry in config.values()] if config else []
    if settings.json:
        out_json({"keyring": problem is None, "contexts": contexts, "buckets": entries})
        return 0
    if problem:
        note(problem)
    elif not contexts:
        note("The keyring holds nothing of buckia.")
    rows = [(one.context, one.namespace, ", ".join(one.secrets)) for one in contexts]
    _show(("CONTEXT", "NAMESPACE", "SECRETS"), rows)
    _show(("BUCKET", "PROVIDER", "SECRET", "SOURCE"), [row for entry in entries for row in entry.rows()])
    return 0


def _contexts() -> tuple[list[Context], str | None]:
    """What the keyring holds, or why it cannot say."""
    from buckia import credentials

    try:
        return credentials.stored(), None
    except (MissingExtraError, LocalError) as error:
        return [], error.message


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where the secrets of a bucket entry come from; ``problem``: what is missing."""

    bucket: str
    provider: str
    secrets: Mapping[str, str]
    problem: str | None = None

    def rows(self) -> list[tuple[str, ...]]:
        if not self.secrets:
            return [(self.bucket, self.provider, "-", self.problem or _without(self.provider))]
        return [(self.bucket, self.provider, name, source) for name, source in self.secrets.items()]


def _entry(entry: BucketConfig) -> _Entry:
    from buckia import credentials

    try:
        return _Entry(entry.name, entry.provider, credentials.resolve(entry).sources)
    except AuthenticationError as error:
        return _Entry(entry.name, entry.provider, {}, error.message)


def _without(provider: str) -> str:
    """What a provider does that is given no credentials."""
    if provider == "s3":
        return "as the AWS tools find them: profile, single sign-on, the machine's role"
    return "none needed"


def _show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        for line in table(header, rows):
            out(line)


# ---- remove


@auth_command.command("remove")
@click.argument("context")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common_options
def auth_remove_command(context: str, yes: bool) -> int:
    """Remove a context and its secrets from the keyring."""
    from buckia import credentials

    settings = current_settings()
    configure_logging(settings)
    config = _configuration(settings)
    namespace = config.namespace if config else None
    service = credentials.service_name(namespace, context)
    names = credentials.kept(namespace, context)
    if not names:
        raise NotFoundError(f"The keyring holds nothing of buckia under {service}.", hint="See `buckia auth list`.")
    question = f"Remove {', '.join(names)} ({service}) from the keyring?"
    if not yes and not (interactive() and click.confirm(clean(question), default=False, err=True)):
        raise RefusedError("Removing secrets needs a confirmation. Nothing was removed.", hint="Add --yes.")
    credentials.forget(namespace, context)
    if settings.json:
        out_json({"context": context, "service": service, "removed": names})
    elif not settings.quiet:
        out(f"Removed {', '.join(names)} from the keyring ({service}).")
    return 0


# ---- test


@auth_command.command("test")
@click.option("--bucket", metavar="NAME", help="The bucket entry of the configuration.")
@common_options
def auth_test_command(bucket: str | None) -> int:
    """Connect to a bucket, and say which credentials were used. The exit code is 3 if they are refused."""
    from buckia import credentials

    settings = current_settings()
    with session(settings, Target(bucket=bucket)) as client:
        entry = client.config
        sources = credentials.resolve(entry).sources
        used = ", ".join(f"{name} from {source}" for name, source in sources.items()) or _without(entry.provider)
        try:
            client.test_connection()
        except (AuthenticationError, AccessDenied):
            note(f"Credentials of '{entry.name}': {used}.")
            raise
    if settings.json:
        out_json({"bucket": entry.name, "provider": entry.provider, "connected": True, "secrets": dict(sources)})
    elif not settings.quiet:
        out(f"'{entry.name}' answers. Credentials: {used}.")
    return 0
