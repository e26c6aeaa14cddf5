"""``buckia init`` and ``buckia config``: the configuration file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from buckia.cli.bucket import show_check
from buckia.cli.common import load_config, session, warn
from buckia.cli.options import Settings, Target, common_options, current_settings
from buckia.cli.output import count, note, out, out_json, table
from buckia.errors import BuckiaError, CancelledError, ConfigError

if TYPE_CHECKING:
    from buckia.config import BuckiaConfig
    from buckia.events import BucketCheck

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
            ("cdn-url", "Address of a CDN in front of the bucket, for reading."),
            ("token-context", "Name under which `buckia auth set` keeps the secrets."),
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
@click.option("--check/--no-check", default=True, help="Try what the bucket does, as `buckia bucket check`.")
@_entry_options
@common_options
def init_command(entry: str | None, check: bool, **values: Any) -> int:
    """Write a configuration file for a bucket, and try the bucket.

    The file is .buckia in this directory, or that of --config. One that exists is not touched. That the bucket cannot
    be tried is only a warning: the file is written.
    """
    from buckia.config import BucketConfig, BuckiaConfig
    from buckia.config.options import NEAR

    settings = current_settings()
    given = {name: value for name, value in values.items() if value not in (None, ())}
    bucket = BucketConfig(**{name: list(value) if name == "folders" else value for name, value in given.items()})
    name = entry or bucket.bucket_name
    config = BuckiaConfig({name: bucket.placed(name, Path())})
    path = config.save(settings.config or ".buckia")
    config = BuckiaConfig.from_file(path)
    warn(settings, bucket.warnings)
    if not settings.json and not settings.quiet:
        out(f"Wrote {path} (bucket entry '{name}'). It is never uploaded.")
        for root in config[name].mapping():
            out(f"It syncs {root.local} with {f'the folder {root.folder}' if root.folder else 'the whole bucket'}.")
    # The first sync makes those that are near.
    found = _try(settings, path, name) if check and bucket.provider not in NEAR else None
    if settings.json:
        out_json({"path": str(path), "bucket": name, "check": found})
    elif not settings.quiet:
        if found is not None:
            show_check(found)
        out("Next: buckia sync --dry-run")
    return 0


def _try(settings: Settings, path: Path, name: str) -> BucketCheck | None:
    """What the bucket does; a warning, and None, if that cannot be found out now."""
    try:
        with session(replace(settings, config=str(path)), Target(bucket=name)) as client:
            return client.bucket.check()
    except CancelledError:
        raise
    except BuckiaError as error:
        warn(settings, [f"The bucket was not tried: {error.message}"])
        if error.hint and not settings.quiet:
            note(f"hint: {error.hint}")
        return None


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
