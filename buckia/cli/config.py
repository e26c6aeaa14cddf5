"""``buckia init`` and ``buckia config``: the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from buckia.cli.common import load_config, warn
from buckia.cli.options import common_options, current_settings
from buckia.cli.output import count, note, out, out_json, table
from buckia.errors import ConfigError

if TYPE_CHECKING:
    from buckia.config import BuckiaConfig

_ENTRY_HELP = "The name of the bucket entry; default: the name of the bucket."


def _entry_options(function: Any) -> Any:
    """One option per key that a first configuration may need; those that hold secrets say so."""
    secret = "Stored in the file, which only you may read."
    for name, text in reversed(
        (
            ("region", "Where the bucket lies."),
            ("endpoint", "Host or URL of an S3-compatible store."),
            ("domain", "Host of the storage service."),
            ("storage-zone", "Bunny's storage zone."),
            ("pull-zone", "Bunny's pull zone."),
            ("access-key-id", secret),
            ("secret-access-key", secret),
            ("api-key", secret),
            ("storage-api-key", secret),
            ("password", secret),
        )
    ):
        function = click.option(f"--{name}", metavar="TEXT", help=text)(function)
    return function


@click.command("init")
@click.option("--provider", required=True, metavar="NAME", help="s3, linode, b2, bunny or local.")
@click.option("--bucket-name", required=True, metavar="NAME", help="The bucket; for 'local' a directory.")
@click.option("--bucket", "entry", metavar="NAME", help=_ENTRY_HELP)
@click.option("--folder", "folders", multiple=True, metavar="ID", help="A folder of the bucket to sync; repeatable.")
@click.option("--paths", "paths", metavar="DIR", help="The local directory that holds the folders; default: this one.")
@click.option("--delete-orphaned/--no-delete-orphaned", default=None, help="Publish deletions made here.")
@_entry_options
@common_options
def init_command(entry: str | None, **values: Any) -> int:
    """Write a configuration file for a bucket.

    The file is .buckia in this directory, or that of --config. One that exists is not touched.
    """
    from buckia.config import BucketConfig, BuckiaConfig

    settings = current_settings()
    given = {name: value for name, value in values.items() if value not in (None, ())}
    bucket = BucketConfig(**{name: list(value) if name == "folders" else value for name, value in given.items()})
    name = entry or bucket.bucket_name
    config = BuckiaConfig({name: bucket.placed(name, Path())})
    path = config.save(settings.config or ".buckia")
    BuckiaConfig.from_file(path)
    warn(settings, bucket.warnings)
    if settings.json:
        out_json({"path": str(path), "bucket": name})
    elif not settings.quiet:
        out(f"Wrote {path} (bucket entry '{name}'). It is never uploaded.")
        out("Next: buckia sync --dry-run")
    return 0


@click.group("config", context_settings={"help_option_names": ["-h", "--help"]})
def config_command() -> None:
    """Show and check the configuration."""


@config_command.command("show")
@click.option("--bucket", metavar="NAME", help="Only this bucket entry.")
@click.option("--mapping", is_flag=True, help="Show which local directory holds which folder.")
@common_options
def config_show_command(bucket: str | None, mapping: bool) -> int:
    """Print the configuration that commands here would use, without its secrets."""
    from buckia.config import BuckiaConfig

    settings = current_settings()
    config = load_config(settings)
    if bucket is not None:
        config = BuckiaConfig({bucket: config.select(bucket)}, path=config.path, namespace=config.namespace)
    warn(settings, config.warnings)
    if mapping:
        _show_mapping(config, as_json=settings.json)
    elif settings.json:
        out_json({name: entry.dump() for name, entry in config.items()})
    else:
        out(f"# {config.path}")
        for line in config.to_text().splitlines():
            out(line)
    return 0


def _show_mapping(config: BuckiaConfig, *, as_json: bool) -> None:
    rows = [
        {"bucket": name, "local": str(root.local), "folder": root.folder, "receives": root.receives}
        for name, entry in config.items()
        for root in entry.mapping()
    ]
    if as_json:
        out_json(rows)
        return
    words = {True: "both ways", False: "upload only"}
    lines = [
        (
            str(row["bucket"]),
            str(row["local"]),
            str(row["folder"]) or "(top of the bucket)",
            words[bool(row["receives"])],
        )
        for row in rows
    ]
    for line in table(("BUCKET", "LOCAL", "FOLDER", "DIRECTION"), lines):
        out(line)


@config_command.command("validate")
@common_options
def config_validate_command() -> int:
    """Check the configuration, and say what this version does not act on yet."""
    settings = current_settings()
    config = load_config(settings)
    later = []
    for entry in config.values():
        try:
            entry.require_supported()
        except ConfigError as error:
            later.append(error.message)
    if settings.json:
        out_json({"path": str(config.path), "buckets": list(config), "warnings": [*config.warnings, *later]})
        return 0
    warn(settings, config.warnings)
    for message in later:
        note(f"buckia: warning: {message}")
    if not settings.quiet:
        out(f"{config.path} is valid: {count(len(config), 'bucket entry')}.")
    return 0
