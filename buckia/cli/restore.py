"""``buckia restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from buckia.cli.browse import snapshot_option
from buckia.cli.common import confirmation, session
from buckia.cli.options import Settings, Target, common_options, current_settings, target_options
from buckia.cli.output import count, note, out, out_json, plain, short, size
from buckia.cli.progress import ProgressDisplay
from buckia.cli.sync import show_actions, show_problems, show_requests, traffic
from buckia.errors import UsageError

if TYPE_CHECKING:
    from buckia.events import RestoreResult


@click.command("restore")
@click.argument("paths", metavar="[PATHS]...", nargs=-1)
@target_options("--from")
@snapshot_option
@click.option("--target", metavar="DIR", type=click.Path(file_okay=False), help="Write here; default: in place.")
@click.option("--overwrite", is_flag=True, help="Replace files at the target that differ.")
@click.option(
    "--delete-extra",
    is_flag=True,
    help="Move files that the snapshot does not hold to the trash; a --target that is not empty needs --overwrite too.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common_options
def restore_command(paths: tuple[str, ...], snapshot: str, target: str | None, yes: bool, **values: object) -> int:
    """Write a snapshot, or parts of it, to disk.

    Without --target the files go where the configuration has them, after a question (--yes answers it). Every file is
    verified before it is put in place.
    """
    settings = current_settings()
    where = Target(*(str(value) if value is not None else None for value in map(values.get, _WHERE)))
    if where.location is not None and target is None:
        raise UsageError("A location says nothing about where to write.", hint="Add --target DIR.")
    with session(settings, where) as client, ProgressDisplay(enabled=not settings.quiet) as display:
        result = client.restore(
            snapshot,
            paths,
            target,
            overwrite=bool(values["overwrite"]),
            delete_extra=bool(values["delete_extra"]),
            dry_run=bool(values["dry_run"]),
            confirm=confirmation(display, yes=yes),
            progress_callback=display,
        )
    _show(settings, result)
    return 1 if result.failed else 0


_WHERE = ("location", "bucket", "folder")


def _show(settings: Settings, result: RestoreResult) -> None:
    if settings.json:
        out_json(plain(result) | {"actions": [action.to_dict() for action in result.actions]})
    elif not settings.quiet:
        show_actions(result.actions)
        verb = "Would restore" if result.dry_run else "Restored"
        parts = [f"{verb} {count(result.restored, 'file')}, {size(result.bytes)}"]
        if result.bytes_reused:
            parts.append(f"{size(result.bytes_reused)} of it from disk")
        parts += [f"{number} {word}" for number, word in _rest(result) if number]
        ending = "Nothing was changed (dry run)." if result.dry_run else f"({traffic(result.traffic)})"
        out(f"{', '.join(parts)}   snapshot {result.snapshot}  root {short(result.root)}  {ending}")
        show_requests(settings, result.traffic)
        if result.extra:
            note(
                f"{count(len(result.extra), 'file')} at the target not in the snapshot, and left there "
                "(--delete-extra moves them to the trash)."
            )
    show_problems(settings, result.warnings, result.errors)


def _rest(result: RestoreResult) -> tuple[tuple[int, str], ...]:
    return (
        (result.unchanged, "unchanged"),
        (result.trashed - result.deleted, "replaced (to the trash)"),
        (result.deleted, "deleted (to the trash)"),
        (result.failed, "failed"),
    )
