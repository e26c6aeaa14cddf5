"""``buckia sync`` and ``buckia status``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import click

from buckia.cli.common import confirmation, session
from buckia.cli.errors import report
from buckia.cli.options import (
    GreedyCommand,
    GreedyOption,
    Settings,
    Target,
    checked,
    common_options,
    current_settings,
    target_options,
)
from buckia.cli.output import count, note, out, out_json, plain, short, size
from buckia.cli.progress import ProgressDisplay
from buckia.errors import BuckiaError, ConflictsPending
from buckia.events import SyncResult

if TYPE_CHECKING:
    from buckia.client import Plan
    from buckia.events import Action, Conflict, Failure, Settled, Skipped, StatusResult, Traffic

POLICIES = ("local_wins", "remote_wins", "newest_wins", "ask")
_LISTED_MAX = 20
_NAMED_MAX = 3
_DIRECTORY = click.Path(file_okay=False)


@click.command("sync", cls=GreedyCommand)
@click.argument("local_path", metavar="[DIR]", required=False, type=_DIRECTORY)
@target_options("--to")
@click.option(
    "--paths",
    "sync_paths",
    cls=GreedyOption,
    multiple=True,
    metavar="PATH...",
    callback=checked("check_sync_paths"),
    help="Only these files and directories of the folder; takes all words up to the next option.",
)
@click.option(
    "--include",
    "include_pattern",
    metavar="REGEX",
    callback=checked("check_pattern"),
    help="Only paths in which this is found.",
)
@click.option(
    "--exclude",
    "exclude_pattern",
    metavar="REGEX",
    callback=checked("check_pattern"),
    help="No paths in which this is found; wins.",
)
@click.option(
    "--delete-orphaned/--no-delete-orphaned",
    default=None,
    help="Publish deletions made here; those of others always arrive.",
)
@click.option(
    "--conflict-resolution",
    type=click.Choice(POLICIES),
    help="Whose version becomes current when both sides changed a file; the other is in the history.",
)
@click.option(
    "--max-workers",
    metavar="N",
    envvar="BUCKIA_MAX_WORKERS",
    callback=checked("check_workers", number=True),
    help="Concurrent transfers (default: 8).",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--allow-mass-delete", is_flag=True, help="Do not ask before many files are deleted.")
@click.option("--device-name", metavar="NAME", help="How this device shows in the history.")
@common_options
def sync_command(local_path: str | None, **values: Any) -> int:
    """Bring a directory and its bucket folder in step, both ways.

    DIR stands before --paths. Without DIR the paths of the configuration are synced; with --to the default is the
    current directory.
    """
    settings = current_settings()
    target = Target(values.pop("location"), values.pop("bucket"), values.pop("folder"), values.pop("device_name"))
    # Zero is an answer, and no good one; what was not given is something else.
    overrides = {
        name: value for name, value in values.items() if value is not None and value is not False and value != ()
    }
    if values["delete_orphaned"] is False:
        overrides["delete_orphaned"] = False
    if target.location is not None and local_path is None:
        local_path = "."
    if target.folder is not None and local_path is not None and target.location is None:
        # A directory and a folder belong to each other; without a directory the folder lies in the configured path.
        overrides["folder"] = target.folder
        target = Target(None, target.bucket, None, target.device_name)
    dry_run = bool(overrides.pop("dry_run", False))
    with session(settings, target) as client, ProgressDisplay(enabled=not settings.quiet) as display:
        try:
            if dry_run:
                plan = client.plan(local_path, progress_callback=display, **overrides)
                display.pause()
                return _show_plan(settings, plan)
            result = client.sync(local_path, progress_callback=display, confirm=confirmation(display), **overrides)
        except BuckiaError as error:
            display.pause()
            if error.result is None:
                raise
            return _show_partly(settings, error)
    _show_result(settings, result)
    return exit_code(result)


def exit_code(result: SyncResult) -> int:
    """1 if files failed, 9 if conflicts wait, else 0."""
    if result.failed:
        return 1
    return ConflictsPending.exit_code if result.conflicts else 0


def _show_partly(settings: Settings, error: BuckiaError) -> int:
    """What came of the other folders where one failed, then the error."""
    if isinstance(error.result, SyncResult):
        _show_result(settings, error.result)
        for other in error.result.folders:
            if other.error is not None and other.error != error.result.error:
                note(f"buckia: error: {other.error.message}")
                if other.error.hint:
                    note(f"hint: {other.error.hint}")
    else:
        _show_plan(settings, cast("Plan", error.result))
    return report(error, as_json=False, with_traceback=settings.verbose > 1)


def _show_plan(settings: Settings, plan: Plan) -> int:
    result = plan.result()
    if settings.json:
        out_json(plain(result) | plain(plan.to_dict()))
    elif not settings.quiet:
        show_actions(plan.actions)
        text = ", ".join(_done(result) + _left(result))
        out(f"Would be done: {text or 'nothing, all is in step'}. Nothing was changed (dry run).")
        if plan.actions:
            out(f"It would cost about: {traffic(plan.estimate())}.")
    _show_skipped(settings, result)
    _show_problems(settings, result)
    return 1 if result.failed else 0


def show_actions(actions: Iterable[Action]) -> None:
    """Print what a dry run would do, an action a line."""
    for action in actions:
        verb = action.kind.replace("_", " ")
        out(f"{verb:<13} {size(action.size):>8}  {action.path}" + (f"  ({action.reason})" if action.reason else ""))


def _show_result(settings: Settings, result: SyncResult) -> None:
    if settings.json:
        out_json(result)
    elif not settings.quiet:
        for one in result.folders or [result]:
            if one.error is None:
                out(f"{one.folder}: {_line(one)}" if one.folder else _line(one))
    show_requests(settings, result.traffic)
    _show_skipped(settings, result)
    _show_settled(settings, result)
    _show_problems(settings, result)


def _show_settled(settings: Settings, result: SyncResult) -> None:
    if settings.json or settings.quiet:
        return
    for settled in result.resolved_list[:_LISTED_MAX]:
        kept = "this device's version" if settled.kept == "local" else "the other device's version"
        note(f"settled: {_path(settled)}: {kept} is current, the other one is in the history")
    _note_rest(len(result.resolved_list), "settled conflict")


def _line(result: SyncResult) -> str:
    done = _done(result)
    begin = f"Synced {done.pop(0)}" if done else f"In step: {count(result.unchanged, 'file')}"
    text = ", ".join([begin, *done, *_left(result)])
    return f"{text}   root {short(result.root)}  snapshot {result.snapshot or 'none'}  ({traffic(result.traffic)})"


def _path(item: Failure | Conflict | Settled | Skipped) -> str:
    """A path for people: with its folder, where there are several."""
    return f"{item.folder}/{item.path}" if item.folder else item.path


def _done(result: SyncResult) -> list[str]:
    """What was done; directories are named where nothing else was, as they come with their files."""
    parts = (
        (result.uploaded, f"{count(result.uploaded, 'file')} up"),
        (result.downloaded, f"{result.downloaded} down"),
        (result.deleted, f"{result.deleted} deleted"),
        (result.resolved, f"{count(result.resolved, 'conflict')} settled"),
    )
    done = [text for number, text in parts if number]
    return done or ([count(result.directories, "directory")] if result.directories else [])


def _left(result: SyncResult) -> list[str]:
    """What was not done."""
    parts = ((result.conflicts, count(result.conflicts, "conflict")), (result.failed, f"{result.failed} failed"))
    return [text for number, text in parts if number]


def _show_skipped(settings: Settings, result: SyncResult) -> None:
    """What is never synced: with -v all of it, else a few names that the user may wonder about."""
    if settings.json or settings.quiet:
        return
    if settings.verbose:
        for left in result.skipped_list:
            note(f"left out: {_path(left)}: {left.reason}")
        return
    here = [left for left in result.skipped_list if left.kind == "local"]  # of the others the warnings speak
    if here:
        names = ", ".join(f"{_path(left)} ({left.reason})" for left in here[:_NAMED_MAX])
        more = f", and {len(here) - _NAMED_MAX} more (all with -v)" if len(here) > _NAMED_MAX else ""
        note(f"{count(len(here), 'path')} left out: {names}{more}")


def traffic(value: Traffic) -> str:
    """What an operation cost: ``2.31 GB sent in 160 requests``."""
    sent = [f"{size(value.bytes_uploaded)} sent"] if value.bytes_uploaded else []
    received = [f"{size(value.bytes_downloaded)} received"] if value.bytes_downloaded else []
    moved = ", ".join(sent + received) or "nothing moved"
    retried = f", {value.retries} retried" if value.retries else ""
    return f"{moved} in {count(value.requests.total, 'request')}{retried}"


def show_requests(settings: Settings, value: Traffic) -> None:
    """With -v, requests by verb: ``requests: 158 put (3 retried), 2 list``."""
    if not settings.verbose or settings.json:
        return
    parts = []
    for verb in ("put", "get", "list", "delete", "stat"):
        number, again = getattr(value.requests, verb), getattr(value.retried, verb)
        if number:
            parts.append(f"{number} {verb}" + (f" ({again} retried)" if again else ""))
    note(f"requests: {', '.join(parts) or 'none'}")


def _show_problems(settings: Settings, result: SyncResult) -> None:
    show_problems(settings, result.warnings, result.errors)
    if settings.quiet:
        return
    for conflict in result.conflict_list[:_LISTED_MAX]:
        copies = f"; other versions: {', '.join(conflict.copies)}" if conflict.copies else ""
        note(f"conflict: {_path(conflict)}{copies}")
    _note_rest(len(result.conflict_list), "conflict")
    if settings.json:
        return
    if result.hidden:
        note(f"{_hidden(result.hidden)}.")


def _hidden(number: int) -> str:
    """What is only hidden here, and both ways out of that."""
    ways = "sync --delete-orphaned publishes deletions, restore brings files back"
    return f"{count(number, 'file')} deleted here, still in the bucket ({ways})"


def show_problems(settings: Settings, warnings: Iterable[str], errors: list[Failure]) -> None:
    """Print the warnings and failures of a result to stderr."""
    if not settings.quiet:
        for warning in warnings:
            note(f"buckia: warning: {warning}")
    for failure in errors[:_LISTED_MAX]:
        note(f"failed: {_path(failure)}: {failure.reason}")
    _note_rest(len(errors), "failure")


def _note_rest(number: int, noun: str) -> None:
    if number > _LISTED_MAX:
        note(f"... and {count(number - _LISTED_MAX, f'more {noun}')} (all with --json)")


@click.command("status")
@click.argument("local_path", metavar="[DIR]", required=False, type=_DIRECTORY)
@target_options("--to")
@common_options
def status_command(local_path: str | None, location: str | None, bucket: str | None, folder: str | None) -> int:
    """Show how a directory and its bucket folder stand to each other."""
    settings = current_settings()
    if location is not None and local_path is None:
        local_path = "."
    with session(settings, Target(location, bucket, folder)) as client:
        result = client.status(local_path)
    if settings.json:
        out_json(result)
    else:
        for one in result.folders or [result]:
            _show_status(one)
    return 0


def _show_status(result: StatusResult) -> None:
    name = f"{result.folder}: " if result.folder else ""
    out(f"{name}{result.local_path} <-> {result.location}")
    waiting = (
        (result.to_upload, f"{result.to_upload} to upload"),
        (result.to_download, f"{result.to_download} to download"),
        (result.to_delete, f"{result.to_delete} to delete"),
        (result.conflicts, count(result.conflicts, "conflict")),
        (result.pending > result.conflicts, "an interrupted run to finish"),
    )
    text = ", ".join(text for number, text in waiting if number)
    out(f"  in step at root {short(result.root)}" if result.in_sync else f"  not in step: {text or 'run buckia sync'}")
    if result.hidden:
        out(f"  {_hidden(result.hidden)}")
    if result.snapshot:
        when = f" of {result.snapshot_time}" if result.snapshot_time else ""
        out(f"  newest snapshot {result.snapshot}{when}: {count(result.files, 'file')}, {size(result.bytes)}")
    else:
        out("  no snapshot yet")
    if result.device:
        out(f"  this device is {result.device}")
