"""Options that several commands share, and the one that takes many words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """What holds for the whole run; its options may stand before and after the command."""

    config: str | None = None
    json: bool = False
    verbose: int = 0
    quiet: bool = False
    transfer: dict[str, Any] = field(default_factory=dict)
    """Keys of a bucket entry that options of this run replace."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which bucket folder a command is about: a location, or an entry of the configuration and a folder of it."""

    location: str | None = None
    bucket: str | None = None
    folder: str | None = None
    device_name: str | None = None


class GreedyCommand(click.Command):
    """A command whose `GreedyOption` options take all words up to the next option: ``--paths a b --dry-run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the greedy option before each of its words, then parse as usual."""
        greedy = {name for option in self.params if isinstance(option, GreedyOption) for name in option.opts}
        return super().parse_args(ctx, _spread(ctx, args, greedy))


class GreedyOption(click.Option):
    """An option of a `GreedyCommand` that takes one word or more, and may be given repeatedly."""


def _spread(ctx: click.Context, args: list[str], greedy: set[str]) -> list[str]:
    result: list[str] = []
    words = iter(enumerate(args))
    current = None
    for index, word in words:
        if word == "--":
            return [*result, *args[index:]]
        if word in greedy:
            current = word
            if index + 1 == len(args) or args[index + 1].startswith("-"):
                raise click.BadOptionUsage(word, f"Option '{word}' requires at least one path.", ctx)
        elif word.startswith("-") or current is None:
            current = None
            result.append(word)
        else:
            result += [current, word]
    return result


def current_settings() -> Settings:
    """The settings of the command that runs."""
    return _settings_of(click.get_current_context())


def _settings_of(ctx: click.Context) -> Settings:
    return ctx.find_root().ensure_object(Settings)


def _store(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    settings = _settings_of(ctx)
    if option.name == "verbose":
        settings.verbose += value
    elif value:
        setattr(settings, str(option.name), value)


def _change_directory(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        ctx.find_root().with_resource(contextlib.chdir(value))
    except OSError as error:
        raise click.BadParameter(f"'{value}': {error.strerror}.", ctx, option) from None


def common_options(function: F) -> F:
    """``--config``, ``--directory``, ``--json``, ``-v`` and ``-q``; they end up in `Settings`."""
    for decorator in (
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_store, help="Print errors only."),
        click.option(
            "-v", "--verbose", count=True, expose_value=False, callback=_store, help="Say more; twice: everything."
        ),
        click.option(
            "--json", is_flag=True, expose_value=False, callback=_store, help="Print JSON, on one line, to stdout."
        ),
        click.option(
            "-d",
            "--directory",
            metavar="DIR",
            type=click.Path(file_okay=False),
            expose_value=False,
            callback=_change_directory,
            help="Work as if started in this directory.",
        ),
        click.option(
            "-c",
            "--config",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            expose_value=False,
            callback=_store,
            help="The configuration file; default: the nearest .buckia.",
        ),
    ):
        function = decorator(function)
    return function


def _store_transfer(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    from buckia.config import options as checks

    check = checks.check_retries if option.name == "retries" else checks.check_byte_rate
    try:
        checked = check(int(value) if value.isdecimal() and len(value) < 16 else value)
    except ValueError as problem:
        raise click.BadParameter(f"'{value}' {problem}.", ctx, option) from None
    _settings_of(ctx).transfer[str(option.name)] = checked


_TRANSFER = {
    "limit_up": ("RATE", "Send at most so many bytes per second, such as 500KB or 10MB."),
    "limit_down": ("RATE", "Receive at most so many bytes per second."),
    "retries": ("N", "Make a request that failed for a passing reason again so often; default: 6."),
}


def transfer_options(function: F) -> F:
    """``--limit-up``, ``--limit-down`` and ``--retries``; they end up in `Settings`."""
    for name, (metavar, text) in reversed(_TRANSFER.items()):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, metavar=metavar, expose_value=False, callback=_store_transfer, help=text)(
            function
        )
    return function


def checked(check: str, *, number: bool = False) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that checks an option's value by a function of `buckia.config.options`, so that a refusal names what
    was typed: the option, or the variable of the environment. ``number``: the value is text of a number.
    """

    def callback(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return value
        from buckia.config import options as checks

        value = checks.as_number(value) if number else value
        try:
            getattr(checks, check)(value)
        except ValueError as problem:
            environment = ctx.get_parameter_source(str(option.name)) is click.core.ParameterSource.ENVIRONMENT
            name = str(option.envvar) if environment else option.opts[0]
            raise click.UsageError(f"'{name}' {problem}.", ctx) from None
        return value

    return callback


def target_options(location: str) -> Callable[[F], F]:
    """``--to`` or ``--from LOCATION``, ``--bucket`` and ``--folder``: the parameters of a `Target`; and
    `transfer_options`.
    """

    def decorate(function: F) -> F:
        for decorator in (
            transfer_options,
            click.option(
                "--folder", metavar="ID", help="The folder of the bucket, if the configuration names several."
            ),
            click.option("--bucket", metavar="NAME", help="The bucket entry of the configuration."),
            click.option(
                location,
                "location",
                metavar="LOCATION",
                help="A bucket folder: a directory or s3://BUCKET/FOLDER; reads no configuration.",
            ),
        ):
            function = decorator(function)
        return function

    return decorate
