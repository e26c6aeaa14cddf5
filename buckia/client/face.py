"""BuckiaClient: the library's face, and the one place where the parts are put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from buckia.client.roots import chosen_roots
from buckia.client.session import Session
from buckia.client.several import asking, combined_plans, combined_results, combined_status, each
from buckia.config.bucket import BucketConfig, MappedRoot
from buckia.config.options import SyncOptions
from buckia.core.record import DEVICE_NAME_BYTES_MAX
from buckia.engine import direct, history
from buckia.engine.applied import load_conflicts
from buckia.engine.context import Confirm
from buckia.engine.plan import DELETE_LOCAL, DELETE_REMOTE, DOWNLOAD, HIDE, UPLOAD, Plan
from buckia.engine.reconcile import Sync
from buckia.errors import LocalError, RefusedError, UsageError
from buckia.events import (
    Difference,
    Failure,
    FileInfo,
    PathVersion,
    ProgressCallback,
    RestoreResult,
    SnapshotInfo,
    StatusResult,
    SyncResult,
    VerifyResult,
)
from buckia.location import Location

if TYPE_CHECKING:
    from buckia.client.bucket import Bucket
    from buckia.config.file import BuckiaConfig
    from buckia.engine.restore import RestoreOptions


class BuckiaClient:
    """A folder, or the folders of one bucket entry, and what can be done with them.

    Constructing one touches neither network nor disk but for a configuration file. Not for use by several threads at
    once, except `cancel`.
    """

    def __init__(
        self,
        config: BucketConfig | BuckiaConfig | Mapping[str, Any] | str | Path,
        *,
        bucket_name: str | None = None,
        state_dir: str | Path | None = None,
        device_name: str | None = None,
        kernel: str | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        """``config``: one bucket, several (``bucket_name`` selects), a mapping of either form, or a configuration
        file's path.

        ``state_dir`` replaces the user's state directory (or ``BUCKIA_STATE_DIR``); ``kernel`` is ``c``, ``numpy`` or
        ``python``, by default ``BUCKIA_CHUNKER`` or the fastest that is there. ``credentials``, by the names of the
        configuration, win over all others. Raises ConfigError.
        """
        self._open(_select(config, bucket_name), None, state_dir, device_name)
        self._session.given = credentials or {}
        if kernel is not None:
            self._session.kernel_name = kernel

    def _open(
        self, config: BucketConfig, location: Location | None, state_dir: str | Path | None, device_name: str | None
    ) -> None:
        if device_name is not None and not 1 <= len(device_name.encode(errors="replace")) <= DEVICE_NAME_BYTES_MAX:
            raise UsageError(f"A device's name has 1 to {DEVICE_NAME_BYTES_MAX} bytes.")
        self.config = config
        self._session = Session(config, location, None if state_dir is None else str(state_dir), device_name)

    @classmethod
    def for_location(
        cls,
        location: str,
        *,
        state_dir: str | Path | None = None,
        device_name: str | None = None,
        credentials: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> BuckiaClient:
        """A client for one folder that is named completely, without any configuration; ``settings`` are further keys
        of a bucket entry, such as ``retries`` or ``limit_up``. Raises UsageError.
        """
        parsed = Location.parse(location)
        client = cls.__new__(cls)
        client._open(BucketConfig.for_location(parsed, **settings), parsed, state_dir, device_name)
        client._session.given = credentials or {}
        return client

    # ---- the two trips

    def sync(
        self,
        local_path: str | Path | None = None,
        *,
        options: SyncOptions | None = None,
        progress_callback: ProgressCallback | None = None,
        confirm: Confirm | None = None,
        **overrides: Any,
    ) -> SyncResult:
        """Bring a local directory and its folder in step, both ways.

        ``overrides`` are fields of SyncOptions: delete_orphaned, max_workers, include_pattern, exclude_pattern,
        sync_paths, dry_run, conflict_resolution, folder, allow_mass_delete. Without ``local_path`` the configured paths
        are synced. ``confirm`` is asked before a mass deletion; without it that is refused. Raises BuckiaError; files
        that failed alone are in the result. Of several folders each is tried, unless an error concerns them all; the
        first error is raised in the end, and its ``result`` is what came of them.
        """
        chosen = self._options(options, overrides)
        roots = self._roots(local_path, chosen.folder)

        def one(root: MappedRoot) -> SyncResult:
            with (
                self._session.counted() as traffic,
                self._session.workspace(root, chosen, progress_callback, write=not chosen.dry_run) as work,
            ):
                run = Sync(work)
                if chosen.dry_run:
                    result = run.plan().result()
                    result.dry_run = True
                else:
                    result = run.run(asking(confirm, root.folder if len(roots) > 1 else ""))
            result.traffic = traffic
            return result

        return combined_results(each(roots, one))

    def plan(
        self,
        local_path: str | Path | None = None,
        *,
        options: SyncOptions | None = None,
        progress_callback: ProgressCallback | None = None,
        **overrides: Any,
    ) -> Plan:
        """What `sync` would do; nothing is changed on either side. Raises as that does; ``result`` is a `Plan` then."""
        chosen = self._options(options, overrides)

        def one(root: MappedRoot) -> Plan:
            with (
                self._session.counted() as traffic,
                self._session.workspace(root, chosen, progress_callback, write=False) as work,
            ):
                plan = Sync(work).plan()
            plan.traffic = traffic
            return plan

        return combined_plans(each(self._roots(local_path, chosen.folder), one))

    def restore(
        self,
        snapshot: str = "latest",
        paths: Sequence[str] = (),
        target: str | Path | None = None,
        *,
        confirm: Confirm | None = None,
        progress_callback: ProgressCallback | None = None,
        **how: bool,
    ) -> RestoreResult:
        """Write a snapshot, or some of its paths, to ``target``; without one, in place, after a sync.

        That sync captures what is there. ``how``: ``overwrite`` (replace files at the target that differ; they go to
        its trash), ``delete_extra`` (move files that the snapshot does not hold to the trash), ``dry_run`` (change
        nothing; ``actions`` of the result are what would be done).

        Raises RefusedError if the target holds files and ``overwrite`` is not given, or if nobody confirms a restore in
        place.
        """
        from buckia.engine.restore import RestoreOptions, restore

        unknown = how.keys() - {"overwrite", "delete_extra", "dry_run"}
        if unknown:
            raise UsageError(f"restore has no option {', '.join(sorted(unknown))}.")
        options = RestoreOptions(tuple(paths), **how)
        if target is None:
            return self._restore_in_place(snapshot, options, confirm, progress_callback)
        session = self._session
        where = str(Path(target).expanduser().absolute())
        session.keep_apart(where, session.folder())
        with (
            session.counted() as traffic,
            session.reading() as repository,
            session.threads(requests=self.config.max_workers) as executor,
        ):
            tree, name = history.resolve(repository, snapshot)
            site = session.site(where, executor, session.progress(progress_callback))
            result = restore(repository, site, tree, options)
        result.snapshot, result.traffic = name, traffic
        return result

    def _restore_in_place(
        self,
        snapshot: str,
        options: RestoreOptions,
        confirm: Confirm | None,
        progress_callback: ProgressCallback | None,
    ) -> RestoreResult:
        from buckia.engine.restore import restore

        session = self._session
        roots = self._roots(None, None)
        if len(roots) != 1:
            raise UsageError(
                f"{len(roots)} folders are configured.",
                hint="Choose one with --folder, or name a directory with --target.",
            )
        with session.reading(roots[0].folder) as repository:
            # Before the capture, which makes a newer snapshot.
            tree, name = history.resolve(repository, snapshot)
        if not options.dry_run:
            self._capture(roots[0], name, confirm)
        with (
            session.counted() as traffic,
            session.workspace(roots[0], self.config.options(), progress_callback, write=False) as work,
        ):
            site = session.site(work.root, work.fetchers or work.executor, work.progress, work.state.owner)
            if options.dry_run:
                run = Sync(work)
                planned, forecast = run.plan(), run.forecast()
                _require_captured(planned.failures + forecast.failures)
                site.rows, site.coming = forecast.rows, forecast.entries
            else:
                site.rows = lambda path: work.state.directory(path)[1]
            work.repository.open()
            work.repository.refresh()
            result = restore(work.repository, site, tree, replace(options, overwrite=True))
        result.snapshot, result.traffic = name, traffic
        return result

    def _capture(self, root: MappedRoot, name: str, confirm: Confirm | None) -> None:
        """Ask, and take what is there now into the history, before it is replaced."""
        question = f"Restore snapshot {name} over {root.local}? What is there now is captured first."
        if confirm is None or not confirm(question):
            raise RefusedError(
                "A restore in place needs a confirmation. Nothing was changed.",
                hint="Answer the question, or add --yes.",
            )
        _require_captured(self.sync(allow_mass_delete=True).errors)

    def verify(self, read_data: bool = False, progress_callback: ProgressCallback | None = None) -> VerifyResult:
        """Check that every snapshot is whole: structure and presence, and with ``read_data`` every byte."""
        from buckia.engine.verify import verify

        session = self._session
        with (
            session.counted() as traffic,
            session.reading(refresh=False) as repository,  # what cannot be read is to be reported, not raised
            session.threads() as executor,
        ):
            progress = self._session.progress(progress_callback)
            result = verify(repository, executor, read_data=read_data, progress=progress)
        result.traffic = traffic
        return result

    # ---- looking

    def status(self, local_path: str | Path | None = None) -> StatusResult:
        """How a local directory and its folder stand to each other, or all that the configuration names: counted
        together, and each by itself. Nothing is changed.
        """
        return combined_status(each(self._roots(local_path, None), self._status))

    def _status(self, root: MappedRoot) -> StatusResult:
        with (
            self._session.counted() as traffic,
            self._session.workspace(root, self.config.options(), None, write=False) as work,
        ):
            plan = Sync(work).plan()
            expected = plan.result()
            newest = history.snapshots(work.repository)[-1:]
            own = work.repository.ledger.device()
            pending = work.repository.ledger.outbox() is not None
            waiting = {*load_conflicts(work.state), *(conflict.path for conflict in expected.conflict_list)}
        return StatusResult(
            local_path=str(root.local),
            location=self._session.display,
            in_sync=not (waiting or pending or plan.failures) and all(action.kind == HIDE for action in plan.actions),
            to_upload=plan.count(UPLOAD),
            to_download=plan.count(DOWNLOAD),
            to_delete=plan.count(DELETE_LOCAL) + plan.count(DELETE_REMOTE),
            hidden=expected.hidden,
            conflicts=len(waiting),
            pending=len(waiting) + pending,
            root=plan.root,
            snapshot=newest[0].id if newest else None,
            snapshot_time=newest[0].time if newest else None,
            device=own[1] if own is not None else None,
            files=newest[0].files if newest else 0,
            bytes=newest[0].bytes if newest else 0,
            traffic=traffic,
        )

    def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots of all devices, oldest first."""
        with self._session.reading() as repository:
            return history.snapshots(repository)

    def ls(self, path: str = "", snapshot: str = "latest", recursive: bool = False) -> list[FileInfo]:
        """The entries of a directory of a snapshot."""
        with self._session.reading() as repository:
            return history.ls(repository, snapshot, path, recursive)

    def diff(self, first: str, second: str | None = None, target: str | Path | None = None) -> list[Difference]:
        """How two snapshots, or a snapshot and a directory on disk, differ."""
        if (second is None) == (target is None):
            raise UsageError("`diff` compares a snapshot with another one or with a directory.")
        from buckia.engine.localdiff import diff_with_disk

        with self._session.reading() as repository:
            tree, _ = history.resolve(repository, first)
            if target is not None:
                directory = str(Path(target).expanduser().absolute())
                return diff_with_disk(repository, self._session.files, tree, directory, self._session.settings().kernel)
            return history.diff(repository, tree, history.resolve(repository, second or "latest")[0])

    def cat(self, path: str, snapshot: str = "latest") -> Iterator[bytes]:
        """The bytes of a file, checked, piece by piece."""
        with self._session.reading() as repository:
            yield from history.cat(repository, snapshot, path)

    def log(self, path: str) -> list[PathVersion]:
        """The history of one path, oldest first."""
        with self._session.reading() as repository:
            return history.log(repository, path)

    # ---- single files

    def upload_file(self, local: str | Path, remote: str) -> str:
        """Commit one file as the current version of a path; the short id of the snapshot."""
        with self._session.direct() as repository:
            source = os.path.realpath(Path(local).expanduser())
            return history.short(
                direct.put_file(repository, self._session.files, source, remote, self._session.settings()).id
            )

    def download_file(self, remote: str, local: str | Path) -> None:
        """Write the current version of a path to a local file; verified, in one step, with mode and time."""
        from buckia.engine.restore import restore_file

        target = Path(local).expanduser().absolute()
        session = self._session
        with session.reading() as repository, session.threads(requests=self.config.max_workers) as executor:
            site = session.site(str(target.parent), executor, session.progress(None))
            restore_file(repository, site, history.resolve(repository, "latest")[0], remote, target.name)

    def delete_file(self, remote: str) -> str:
        """Commit the deletion of one file, which stays in the history; the short id of the snapshot."""
        with self._session.direct() as repository:
            return history.short(direct.delete_path(repository, remote, self._session.settings()).id)

    def list_files(self, path: str = "") -> list[FileInfo]:
        """All files below a path in the newest state."""
        return [info for info in self.ls(path, recursive=True) if info.kind != "directory"]

    def get_public_url(self, remote: str) -> str:
        """Files in packs have no address of their own: always raises UsageError in this version."""
        raise UsageError(
            f"“{remote}” has no URL: its bytes lie in packs, together with others.",
            hint="A placement that keeps files at their own path is not there yet.",
        )

    @property
    def bucket(self) -> Bucket:
        """The bucket itself, beside its folders: its provider's verbs, a check of what it does, addresses of objects.
        Raises UsageError for what the provider has not.
        """
        return self._session.bucket()

    def purge_cache(self, keys: Sequence[str] = (), *, prefix: bool = False) -> int:
        """Make the bucket's CDN forget objects by their keys, or everything; how many requests it took. Nothing that
        buckia writes needs it, as no name is ever used again.
        """
        return self.bucket.purge(keys, prefix=prefix)

    def test_connection(self) -> bool:
        """True if the bucket answers and lets us in; otherwise the reason is raised, a BuckiaError."""
        self._session.backend.connect()
        return True

    # ---- life

    def cancel(self, signal: int = 2) -> None:
        """Make running operations stop with CancelledError; safe in a signal handler."""
        self._session.cancellation.cancel(signal)

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- arguments

    def _options(self, options: SyncOptions | None, overrides: dict[str, Any]) -> SyncOptions:
        return (options if options is not None else self.config.options()).override(**overrides)

    def _roots(self, local_path: str | Path | None, folder: str | None) -> tuple[MappedRoot, ...]:
        self.config.require_supported()
        location = self._session.location
        if location is not None:
            return (MappedRoot(Path(local_path if local_path is not None else "."), location.folder, receives=True),)
        roots = chosen_roots(self.config, local_path, folder)
        if not roots:
            raise UsageError(
                f"No local directory of the bucket entry '{self.config.name}' holds that folder.",
                hint="`buckia config show --mapping` shows which holds which; `buckia sync DIR` names one.",
            )
        return roots


def _require_captured(failures: Sequence[Failure]) -> None:
    """Raise LocalError if something on disk cannot be taken into the history before it is replaced."""
    if failures:
        number = "1 file" if len(failures) == 1 else f"{len(failures)} files"
        raise LocalError(f"{number} could not be captured, so nothing was restored: {failures[0].reason}")


def _select(config: BucketConfig | BuckiaConfig | Mapping[str, Any] | str | Path, name: str | None) -> BucketConfig:
    if isinstance(config, BucketConfig):
        return config
    from buckia.config.file import BuckiaConfig

    if isinstance(config, str | Path):
        config = BuckiaConfig.from_file(Path(config).expanduser())
    if not isinstance(config, BuckiaConfig):
        config = BuckiaConfig.from_mapping(config)
    return config.select(name)
