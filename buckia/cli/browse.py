"""Commands that read the history of a folder and change nothing: ``snapshots``, ``ls``, ``diff``, ``log``, ``cat``."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING

import click

from buckia.cli.common import session
from buckia.cli.options import Target, common_options, current_settings, target_options
from buckia.cli.output import moment, out, out_json_array, short, size, table
from buckia.errors import UsageError

if TYPE_CHECKING:
    from buckia.events import FileInfo

_LETTERS = {"added": "A", "removed": "D", "modified": "M", "type": "T"}
_SIZELESS = ("deleted", "directory")
_KINDS = {"file": stat.S_IFREG, "symlink": stat.S_IFLNK, "directory": stat.S_IFDIR}

snapshot_option = click.option(
    "--snapshot",
    metavar="S",
    default="latest",
    show_default=True,
    help="An id or the beginning of one, 'latest', 'latest~N' for the N-th before it, or a time (UTC), as "
    "'2026-11-22T10:06': the newest until then.",
)


@click.command("snapshots")
@target_options("--from")
@common_options
def snapshots_command(location: str | None, bucket: str | None, folder: str | None) -> int:
    """List the snapshots of a folder, oldest first.

    A star marks those that no other one follows; 'latest' is all of them merged.
    """
    settings = current_settings()
    with session(settings, Target(location, bucket, folder)) as client:
        snapshots = client.snapshots()
    if settings.json:
        out_json_array(snapshots)
        return 0
    rows = [
        (
            item.id + (" *" if item.head else ""),
            item.time,
            item.device,
            short(item.root),
            str(item.files),
            size(item.bytes),
        )
        for item in snapshots
    ]
    for line in table(("ID", "TIME (UTC)", "DEVICE", "ROOT", "FILES", "SIZE"), rows, right=(4, 5)):
        out(line)
    return 0


@click.command("ls")
@click.argument("path", metavar="[PATH]", default="")
@target_options("--from")
@snapshot_option
@click.option("-r", "--recursive", is_flag=True, help="List everything below PATH.")
@click.option("--checksum", is_flag=True, help="Print the recorded digest and the path, as sha256sum does.")
@common_options
def ls_command(path: str, snapshot: str, recursive: bool, checksum: bool, **where: str | None) -> int:
    """List the files of a snapshot."""
    settings = current_settings()
    with session(settings, Target(**where)) as client:
        entries = client.ls(path, snapshot=snapshot, recursive=recursive)
    if settings.json:
        out_json_array(entries)
        return 0
    for entry in entries:
        if not checksum:
            out(_listing(entry))
        elif entry.digest:
            out(f"{entry.digest.partition(':')[2]}  {entry.path}")
    return 0


def _listing(entry: FileInfo) -> str:
    mode = stat.filemode(_KINDS.get(entry.kind, stat.S_IFREG) | stat.S_IMODE(entry.mode))
    name = entry.path + ("/" if entry.kind == "directory" else "")
    arrow = f" -> {entry.target}" if entry.target is not None else ""
    when = moment(entry.mtime_ns) if entry.kind != "directory" else ""
    return f"{mode}  {size(entry.size):>8}  {when:<19}  {name}{arrow}" + ("  (conflict)" if entry.conflict else "")


@click.command("diff")
@click.argument("first", metavar="SNAPSHOT")
@click.argument("second", metavar="[SNAPSHOT]", required=False)
@target_options("--from")
@click.option("--target", metavar="DIR", type=click.Path(file_okay=False), help="Compare with this directory.")
@common_options
def diff_command(first: str, second: str | None, target: str | None, **where: str | None) -> int:
    """Show what differs between two snapshots, or a snapshot and a directory.

    A path is added (A), removed (D), modified (M) or of another type (T) in the second state, which is the latest
    snapshot if none is named.
    """
    if second is not None and target is not None:
        raise UsageError("Compare with a second snapshot or with --target, not with both.")
    settings = current_settings()
    with session(settings, Target(**where)) as client:
        if target is not None:
            differences = client.diff(first, target=target)
        else:
            differences = client.diff(first, second if second is not None else "latest")
    if settings.json:
        out_json_array(differences)
        return 0
    for item in differences:
        before = "-" if item.size_before is None else size(item.size_before)
        after = "-" if item.size_after is None else size(item.size_after)
        out(f"{_LETTERS.get(item.change, '?')}  {before:>8}  {after:>8}  {item.path}")
    return 0


@click.command("log")
@click.argument("path", metavar="PATH")
@target_options("--from")
@common_options
def log_command(path: str, location: str | None, bucket: str | None, folder: str | None) -> int:
    """Show the versions of a path, oldest first."""
    settings = current_settings()
    with session(settings, Target(location, bucket, folder)) as client:
        versions = client.log(path)
    if settings.json:
        out_json_array(versions)
        return 0
    rows = [
        (item.snapshot, item.time, item.device, item.change, "" if item.change in _SIZELESS else size(item.size))
        for item in versions
    ]
    for line in table(("SNAPSHOT", "TIME (UTC)", "DEVICE", "CHANGE", "SIZE"), rows, right=(4,)):
        out(line)
    return 0


@click.command("cat")
@click.argument("path", metavar="PATH")
@target_options("--from")
@snapshot_option
@common_options
def cat_command(path: str, snapshot: str, **where: str | None) -> int:
    """Write a file of a snapshot to stdout."""
    settings = current_settings()
    if settings.json:
        raise UsageError("The content of a file cannot be printed as JSON.")
    sys.stdout.flush()
    with session(settings, Target(**where)) as client:
        for data in client.cat(path, snapshot=snapshot):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return 0
