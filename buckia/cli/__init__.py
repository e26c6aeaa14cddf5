"""The ``buckia`` command: arguments to client calls, results to text or JSON, errors to exit codes.

Commands are imported when they run; this module and what it imports are all that ``--help`` and completion need.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from buckia import __version__
from buckia.cli.options import common_options

COMMANDS = {
    "sync": ("sync", "Bring a directory and its bucket folder in step, both ways."),
    "status": ("sync", "Show how a directory and its bucket folder stand to each other."),
    "snapshots": ("browse", "List the snapshots of a folder, oldest first."),
    "ls": ("browse", "List the files of a snapshot."),
    "diff": ("browse", "Show what differs between two snapshots, or a snapshot and a directory."),
    "log": ("browse", "Show the versions of a path, oldest first."),
    "cat": ("browse", "Write a file of a snapshot to stdout."),
    "restore": ("restore", "Write a snapshot, or parts of it, to disk."),
    "verify": ("verify", "Prove that a bucket folder is complete and undamaged."),
    "bucket": ("bucket", "Check a bucket, and use what its provider offers beside storage."),
    "url": ("bucket", "Print the address of an object."),
    "init": ("config", "Write a configuration file for a bucket, and try the bucket."),
    "config": ("config", "Show and check the configuration."),
    "auth": ("auth", "Keep secrets in the keyring, and see which ones are used."),
}
"""Command name: (module, short help). The help is the first line of the command's own, which a test compares."""

EPILOG = """\b
Environment:
  BUCKIA_CONFIG       the configuration file, as --config
  BUCKIA_LOG_LEVEL    debug, info, warning or error
  BUCKIA_MAX_WORKERS  as --max-workers
  BUCKIA_STATE_DIR    where this device keeps its state
\b
Exit codes:
  0 done   1 some files failed   2 usage or configuration   3 authentication
  4 network or provider   5 local file system   6 not found   7 unknown format
  8 damaged data   9 conflicts are pending   10 needs a confirmation
"""


class LazyGroup(click.Group):
    """Knows its commands by name and imports the module of the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"buckia.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; a misspelt one is met with a suggestion."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"There is no command '{args[0]}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group("buckia", cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="buckia", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Keep local folders in step with cloud buckets: deduplicated, with history, restore and verification.

    \b
      buckia sync photos --to s3://BUCKET/FOLDER?endpoint=HOST
      buckia restore --from s3://BUCKET/FOLDER --snapshot latest --target photos
      buckia verify --from s3://BUCKET/FOLDER --read-data

    Without --to and --from the bucket and its folders are those of the nearest .buckia file.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    from buckia.cli.errors import run

    sys.exit(run(cli, list(sys.argv[1:] if arguments is None else arguments)))
