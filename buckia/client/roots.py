"""Which local directories an operation is about; none of them shows two folders of a bucket, or lies in another."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from buckia.config.bucket import BucketConfig, MappedRoot
from buckia.errors import UsageError


def chosen_roots(config: BucketConfig, local_path: str | Path | None, folder: str | None) -> tuple[MappedRoot, ...]:
    """The configured roots, or those that ``local_path`` stands for; a configured root stands for itself alone.

    Raises UsageError for a folder that the entry does not name, and where a root would show a folder of the bucket in
    or around a directory that shows one already: the next sync of that would publish a copy of it.
    """
    roots = config.mapping(local_path, folder)
    # In code an entry without ``paths`` claims no directory; in a file it claims the one that the file lies in.
    claims = bool(config.paths) or config.from_file
    if local_path is None or not claims or (folder is not None and not config.named_folders):
        return roots
    directory = _real(local_path)
    configured = config.mapping()
    same = tuple(root for root in configured if _real(root.local) == directory and folder in (None, root.folder))
    if same:
        return same
    taken = {(_real(root.local), root.folder): root for root in configured}
    for root in roots:
        real = _real(root.local)
        if (real, root.folder) in taken:
            continue
        for place, other in taken.items():
            if real == place[0] or _inside(real, place[0]) or _inside(place[0], real):
                raise _refusal(config, directory, real, other)
    return roots


def _refusal(config: BucketConfig, directory: str, root: str, other: MappedRoot) -> UsageError:
    """Why ``root``, which ``directory`` stands for, cannot be synced beside a configured one."""
    place = _real(other.local)
    shown = f"shows the folder '{other.folder}'" if other.folder else "shows the bucket"
    whole = f"buckia sync --folder {shlex.quote(other.folder)}" if other.folder else "buckia sync"
    hint = f"To sync {place} type `{whole}`."
    if _inside(directory, place):
        part = shlex.quote(os.path.relpath(directory, place))
        hint = f"To sync all of that type `{whole}`, for this part of it `{whole} --paths {part}`."
        if not config.paths:
            hint += " To sync another directory set 'paths' in the configuration."
        return UsageError(f"{directory} lies inside {place}, which {shown} already.", hint=hint)
    if root == place:
        return UsageError(f"{root} {shown} already, so it cannot show another one.", hint=hint)
    if _inside(root, place):
        return UsageError(f"{root} would lie inside {place}, which {shown} already.", hint=hint)
    return UsageError(f"{root} would lie around {place}, which {shown} already.", hint=hint)


def _real(path: str | Path) -> str:
    return os.path.realpath(Path(path).expanduser())


def _inside(path: str, directory: str) -> bool:
    return path != directory and path.startswith(directory.rstrip(os.sep) + os.sep)
