"""``buckia verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from buckia.cli.common import session
from buckia.cli.options import Settings, Target, common_options, current_settings, target_options
from buckia.cli.output import count, note, out, out_json, short, size
from buckia.cli.progress import ProgressDisplay
from buckia.cli.sync import show_requests, traffic
from buckia.errors import IntegrityError

if TYPE_CHECKING:
    from buckia.events import VerifyResult


@click.command("verify")
@target_options("--from")
@click.option("--read-data", is_flag=True, help="Read and check every byte, not only the structure.")
@common_options
def verify_command(location: str | None, bucket: str | None, folder: str | None, read_data: bool) -> int:
    """Prove that a bucket folder is complete and undamaged.

    Checks that everything that any snapshot needs is there; with --read-data also that every byte is what it was. The
    exit code is 8 if something is damaged.
    """
    settings = current_settings()
    where = Target(location, bucket, folder)
    with session(settings, where) as client, ProgressDisplay(enabled=not settings.quiet) as display:
        result = client.verify(read_data=read_data, progress_callback=display)
    if settings.json:
        out_json(result)
    else:
        _show(settings, result)
        show_requests(settings, result.traffic)
    return 0 if result.clean else IntegrityError.exit_code


def _show(settings: Settings, result: VerifyResult) -> None:
    for damage in result.damaged:
        out(f"{damage.kind.upper():<10} {damage.object}: {damage.reason}")
        if damage.paths:
            snapshots = f" (snapshots {', '.join(damage.snapshots)})" if damage.snapshots else ""
            out(f"           affects {', '.join(damage.paths)}{snapshots}")
    if settings.quiet:
        return
    for key in result.foreign:
        note(f"not one of ours: {key}")
    verdict = "All is whole" if result.clean else f"{count(len(result.damaged), 'object')} damaged"
    scope = f"{size(result.bytes)} of data read" if result.read_data else "structure only; --read-data reads all data"
    out(
        f"{verdict}: {count(result.snapshots, 'snapshot')}, {count(result.files, 'file')}, "
        f"{count(result.packs, 'pack')}, {count(result.blobs, 'blob')} ({scope})   root {short(result.root)}  "
        f"({traffic(result.traffic)})"
    )
    if result.unreferenced_packs:
        why = ", left by interrupted runs; they do no harm" if result.clean else " that can be read"
        note(f"{count(result.unreferenced_packs, 'pack')} in no snapshot{why}.")
