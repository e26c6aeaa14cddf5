"""How the parts are put together for one operation: adapter, transfer, repository, local state, threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from buckia.client import runtime
from buckia.client.bucket import Bucket, kept_probe
from buckia.config.bucket import BucketConfig, MappedRoot
from buckia.config.options import NEAR, SyncOptions
from buckia.core.chunker import kernel
from buckia.credentials import resolve
from buckia.engine.context import Progress, Settings, Workspace
from buckia.engine.work import Executor
from buckia.errors import BucketNotFound, ForkError, LocalError, RefusedError, RollbackError, UsageError
from buckia.events import ProgressCallback, Requests, Traffic
from buckia.local.disk import RealFileSystem
from buckia.local.filters import Filters
from buckia.local.paths import OWNER_LETTERS, fold_insensitive, ours
from buckia.local.state import State, machine_id, state_directory
from buckia.location import Location
from buckia.store.ledger import Ledger, MemoryLedger
from buckia.store.pace import Limits, Pace
from buckia.store.repository import Repository
from buckia.store.transfer import Transfer
from buckia.sync.base import BaseSync, Capabilities
from buckia.sync.factory import BackendConfig, create_sync_backend

if TYPE_CHECKING:
    from buckia.engine.restoreplan import Site

_log = logging.getLogger(__name__)
_MOUNTED = "Is the disk mounted that it lies on?"


class Session:
    """One bucket entry, and what is open of it."""

    def __init__(
        self, config: BucketConfig, location: Location | None, state_dir: str | None, device_name: str | None
    ) -> None:
        self.config = config
        self.location = location
        self.cancellation = runtime.Cancellation()
        self.files = RealFileSystem()
        self.clock = runtime.SystemClock()
        self.given: Mapping[str, str] = {}
        """Credentials that the program gave beside the configuration; they win over it."""
        self.kernel_name = os.environ.get("BUCKIA_CHUNKER") or None
        self._state_dir = state_dir
        self._device_name = device_name
        self._backend: BaseSync | None = None

    @property
    def backend(self) -> BaseSync:
        """The adapter, made when it is first needed."""
        if self._backend is None:
            self.config.require_supported()
            keywords = self.config.backend()
            keywords["credentials"] = resolve(self.config, self.given).reveal()
            keywords["settings"] = {key: value for key, value in keywords["settings"].items() if key != "prefix"}
            self._backend = create_sync_backend(BackendConfig(**keywords))
            self._backend.pacer = Pace(self._limits(self._backend.capabilities), self.clock, self.cancellation.check)
            seen = kept_probe(self._state_directory("probe", ""))
            if seen is not None:
                self._backend.capabilities = seen.capabilities(self._backend.capabilities)
        return self._backend

    def bucket(self) -> Bucket:
        """The bucket itself."""
        return Bucket(
            self.backend,
            lambda: self._transfer(self.config.max_workers),
            self._state_directory("probe", ""),
            prefix=self.config.prefix or "",
            resume=self.cancellation.clear,
        )

    def _limits(self, capabilities: Capabilities) -> Limits:
        """What the configuration says; of requests, else what the provider is known to allow."""
        own = self.config.requests_per_second
        return Limits(
            requests=capabilities.requests_per_second if own is None else own,
            burst=capabilities.burst if own is None else 1,
            upload_bytes=self.config.limit_up or 0.0,
            download_bytes=self.config.limit_down or 0.0,
        )

    @property
    def display(self) -> str:
        """Where the bucket is, for messages."""
        return self.location.display if self.location is not None else self.backend.location

    def close(self) -> None:
        """Give connections back."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    # ---- parts

    def settings(self, options: SyncOptions | None = None) -> Settings:
        """How the engine decides."""
        chosen = options if options is not None else self.config.options()
        return Settings(
            kernel=kernel(self.kernel_name),
            policy=chosen.conflict_resolution,
            delete_orphaned=chosen.delete_orphaned,
            allow_mass_delete=chosen.allow_mass_delete,
            digest=chosen.checksum_algorithm,
            device_name=self._device_name or runtime.device_name(),
        )

    def progress(self, callback: ProgressCallback | None) -> Progress:
        """A progress report that also notices a request to stop."""
        return Progress(callback, check=self.cancellation.check)

    def site(self, target: str, executor: Executor, progress: Progress, owner: str | None = None) -> Site:
        """A directory to restore to. ``owner`` names temporary files; by default that is whoever restores this folder
        there.
        """
        from buckia.engine.restoreplan import Site

        now_ns = self.clock.now_ns()
        when = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y-%m-%dT%H%M%SZ")
        if owner is None:
            owner = os.path.basename(self._state_directory(os.path.realpath(target), self.folder()))[:OWNER_LETTERS]
        token = owner + runtime.random_bytes(6).hex()
        return Site(self.files, target, executor, kernel(self.kernel_name), token, when, progress, now_ns=now_ns)

    @contextmanager
    def counted(self) -> Iterator[Traffic]:
        """Requests and bytes of what happens inside, complete at its end."""
        traffic = self.backend.traffic = Traffic(Requests())
        yield traffic

    @contextmanager
    def threads(self, *, requests: int = 0) -> Iterator[runtime.Threads]:
        """A worker pool for one operation: as wide as there are processors, or as the requests over a network for which
        its work waits.
        """
        near = self.config.provider in NEAR
        pool = runtime.Threads(runtime.processors() if near else max(runtime.processors(), requests))
        try:
            yield pool
        finally:
            pool.close()

    def _transfer(self, workers: int) -> Transfer:
        return Transfer(
            self.backend,
            # Without latency more threads than processors would only be in each other's way.
            workers=min(workers, 2 * runtime.processors()) if self.config.provider in NEAR else workers,
            retries=self.config.retries,
            clock=self.clock,
            random=runtime.jitter,
            cancelled=self.cancellation.check,
        )

    @contextmanager
    def _repository(self, folder: str, ledger: Ledger, workers: int) -> Iterator[Repository]:
        with self._transfer(workers) as transfer:
            yield Repository(
                transfer,
                ledger,
                folder,
                prefix=self.config.prefix or "",
                random_bytes=runtime.random_bytes,
                now_ns=self.clock.now_ns,
            )

    def folder(self) -> str:
        """The one folder that reading commands are about. Raises UsageError if the configuration names several."""
        folders = [*dict.fromkeys(root.folder for root in self.config.mapping())] or [*self.config.folders]
        if len(folders) > 1:
            raise UsageError(
                f"The bucket entry '{self.config.name}' has {len(folders)} folders.",
                hint=f"Choose one with --folder: {', '.join(folders)}.",
            )
        return folders[0]

    @contextmanager
    def reading(self, folder: str | None = None, *, refresh: bool = True) -> Iterator[Repository]:
        """A folder for commands that only read: nothing is registered in the bucket and nothing kept on disk."""
        self._require_bucket()
        with self._repository(
            self.folder() if folder is None else folder, MemoryLedger(), self.config.max_workers
        ) as repository:
            repository.open()
            if refresh:
                repository.refresh()
                repository.require_visible()
            yield repository

    @contextmanager
    def direct(self) -> Iterator[Repository]:
        """A folder for single files that belong to no local tree; the device is that of this user on this machine."""
        folder = self.folder()
        directory = self._state_directory("direct", folder)
        with (
            State.open(directory, machine=machine_id()) as state,
            self._repository(folder, state, self.config.max_workers) as repository,
        ):
            yield repository

    @contextmanager
    def workspace(
        self, root: MappedRoot, options: SyncOptions, callback: ProgressCallback | None, *, write: bool
    ) -> Iterator[Workspace]:
        """A local root and its folder. With ``write`` a local bucket that never was there is made."""
        settings = self.settings(options)
        with (
            closing(self.progress(callback)) as progress,
            self._place(root, write=write) as (local, directory),
            _naming_state(directory),
            State.open(directory, machine=machine_id()) as state,
            self._repository(root.folder, state, options.max_workers) as repository,
            self.threads() as executor,
            self.threads(requests=options.max_workers) as fetchers,
        ):
            filters = Filters(
                include=options.include_pattern,
                exclude=options.exclude_pattern,
                sync_paths=options.sync_paths or None,
                never=_below(os.path.dirname(os.path.realpath(directory)), local),
            )
            if state.folder_object() is not None:
                self._require_bucket(directory)
            self._check_location(local, root.folder, write=write)
            yield Workspace(
                repository=repository,
                state=state,
                files=self.files,
                root=local,
                filters=filters,
                clock=self.clock,
                random_bytes=runtime.random_bytes,
                executor=executor,
                fetchers=fetchers,
                settings=settings,
                progress=progress,
                fold=fold_insensitive if self.files.case_insensitive(local) else None,
            )

    @contextmanager
    def _place(self, root: MappedRoot, *, write: bool) -> Iterator[tuple[str, str]]:
        """The real path of a local root, and the directory of its state. A root that the configuration names and that
        is not there yet is made, or without ``write`` looked at as an empty one that is nowhere.
        """
        path = Path(root.local).expanduser().absolute()
        local = os.path.realpath(path)
        state = self._state_directory(local, root.folder)
        if not path.exists() and os.path.isdir(state):
            raise RefusedError(f"The directory {path} is gone, but it was synced before.", hint=_MOUNTED)
        if not path.exists() and self.location is None and root.folder and path.parent.is_dir():
            if any(entry.is_file() and not ours(entry.name, top=True) for entry in path.parent.iterdir()):
                _log.warning("%s was not there yet; the files beside it in %s are not synced", path, path.parent)
            if not write:
                with TemporaryDirectory(prefix="buckia-") as nowhere:
                    empty = os.path.join(nowhere, "root")
                    os.mkdir(empty)
                    yield self.files.real_path(empty), os.path.join(nowhere, "state", "root")
                return
            try:
                path.mkdir()
            except OSError as error:
                raise LocalError(f"Cannot create the directory {path}: {error.strerror}.") from error
        if not path.is_dir():
            raise UsageError(f"“{root.local}” is no directory.", hint="Name a directory that exists.")
        if os.path.dirname(os.path.realpath(state)) == local:
            raise RefusedError(
                f"The directory {local} is where the local state lies.",
                hint="Sync another directory, or set BUCKIA_STATE_DIR.",
            )
        yield self.files.real_path(str(path)), state

    def _state_directory(self, local: str, folder: str) -> str:
        env = dict(os.environ)
        if self._state_dir is not None:
            env["BUCKIA_STATE_DIR"] = self._state_dir
        return state_directory(local, f"{self.config.provider}:{self.display}:{self.config.prefix or ''}", folder, env)

    # ---- local buckets

    def _require_bucket(self, state: str = "") -> None:
        """Raise BucketNotFound if a local bucket is not there; ``state`` is that of a root which was synced with it."""
        bucket = self.config.bucket_directory
        if self.config.provider != "local" or bucket.is_dir():
            return
        remedy = f"To begin anew without it remove the local state, {state}." if state else "The first sync makes one."
        raise BucketNotFound(f"There is no local bucket {bucket}.", hint=f"{_MOUNTED} {remedy}")

    def keep_apart(self, local: str, folder: str) -> None:
        """Raise RefusedError if a local bucket's folder lies in a directory that is to be synced or restored, or around
        it.
        """
        if self.config.provider != "local":
            return
        place = os.path.join(os.path.realpath(self.config.bucket_directory), folder)
        real = os.path.realpath(local)
        if _within(place.rstrip(os.sep), real) or _within(real, place.rstrip(os.sep)):
            raise RefusedError(
                f"The bucket folder {place} and the directory {local} lie in each other.",
                hint="Choose a place outside of it.",
            )
        if "_buckia" in place.split(os.sep):
            raise UsageError(f"{place} lies inside another bucket folder.", hint="Choose a place outside of it.")

    def _check_location(self, local: str, folder: str, *, write: bool) -> None:
        """A local bucket must not lie in the tree that it holds, nor around it, nor among foreign files."""
        if self.config.provider != "local":
            return
        self.keep_apart(local, folder)
        bucket = os.path.realpath(self.config.bucket_directory)
        place = os.path.join(bucket, folder) if folder else bucket
        if os.path.isdir(place):
            foreign = [name for name in os.listdir(place) if name != "_buckia"]
            if foreign and not os.path.isdir(os.path.join(place, "_buckia")):
                raise RefusedError(
                    f"{place} holds other files (“{foreign[0]}”), so it is not used as a bucket folder.",
                    hint="Name a directory that does not exist yet, or an empty one.",
                )
        elif write:
            try:
                os.makedirs(bucket, exist_ok=True)
            except OSError as error:
                raise LocalError(f"Cannot create the bucket {bucket}: {error.strerror}.") from error


@contextmanager
def _naming_state(directory: str) -> Iterator[None]:
    """Where the remedy is to forget the local state, say where that lies."""
    try:
        yield
    except (RollbackError, ForkError) as error:
        error.hint = f"{error.hint} It lies in {directory}."
        raise


def _below(path: str, directory: str) -> str | None:
    return os.path.relpath(path, directory) if _within(path, directory) else None


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)
