"""From exceptions to messages and exit codes: the only place where the command catches what it does not expect."""

from __future__ import annotations

import json
import os
import sys
import traceback

import click

from buckia.cli.options import Settings
from buckia.cli.output import clean
from buckia.errors import BuckiaError, CancelledError, LocalError, UsageError, masked

PIPE_CLOSED = 128 + 13
_COMPLETION = "_BUCKIA_COMPLETE"


def run(group: click.Group, arguments: list[str]) -> int:
    """Run the command line and return its exit code; whatever fails is reported."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding lacks must not stop a command.
            stream.reconfigure(errors="backslashreplace")
    if instruction := os.environ.get(_COMPLETION):
        from click.shell_completion import shell_complete

        return shell_complete(group, {}, "buckia", _COMPLETION, instruction)
    settings = Settings()
    try:
        code = _invoke(group, arguments, settings)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return report(CancelledError(), as_json=settings.json)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return UsageError.exit_code
    except click.ClickException as error:
        return report(_from_click(error), as_json=settings.json or "--json" in arguments)
    except BuckiaError as error:
        return report(error, as_json=settings.json, with_traceback=settings.verbose > 1)
    except Exception as error:  # the last line of defence: one line for people, the rest on request
        return report(_unexpected(error), as_json=settings.json, with_traceback=settings.verbose > 0)
    return code


def _invoke(group: click.Group, arguments: list[str], settings: Settings) -> int:
    try:
        with group.make_context("buckia", arguments, obj=settings) as context:
            code = group.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return code if isinstance(code, int) else 0


def report(error: BuckiaError, *, as_json: bool, with_traceback: bool = False) -> int:
    """Print an error: for people to stderr, with ``as_json`` as an object to stdout as well. Returns its exit code."""
    if with_traceback:
        cause = error.__cause__ if type(error) is BuckiaError and error.__cause__ else error
        text = masked("".join(traceback.format_exception(cause)))
        sys.stderr.write("\n".join(map(clean, text.split("\n"))))
    sys.stderr.write(f"buckia: error: {clean(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"hint: {clean(error.hint)}\n")
    if as_json:
        kind = type(error).__name__
        fields = {"type": kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        try:
            sys.stdout.write(json.dumps({"error": fields}, separators=(",", ":")) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _silence_stdout()
    return error.exit_code


def _from_click(error: click.ClickException) -> BuckiaError:
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"See {error.ctx.command_path} --help"
    message = error.format_message()
    return UsageError(message if message.endswith((".", "?", ")")) else f"{message}.", hint=hint)


def _unexpected(error: Exception) -> BuckiaError:
    text = masked(" ".join(str(error).split()))
    message = f"Unexpected {type(error).__name__}" + (f": {text}" if text else "")
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        wrapped: BuckiaError = LocalError(f"{error.strerror}{where}.", hint="Run again with -v for more.")
    else:
        wrapped = BuckiaError(f"{message}.", hint="This is a fault of buckia. Run again with -v for the traceback.")
    wrapped.__cause__ = error
    return wrapped


def _silence_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
