"""What can be done with a bucket itself, beside its folders: try it, use its provider's own verbs, name its objects.

Keys count from the bucket's top. Every request is made with the retries and within the limits of the configuration.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from buckia.errors import BuckiaError
from buckia.events import BucketCheck
from buckia.store.probe import PREFIX, Probe, probe
from buckia.store.transfer import Transfer
from buckia.sync import contract
from buckia.sync.admin import BucketAdmin
from buckia.sync.base import BaseSync, ObjectInfo, Page

_FILE = "probe.json"


class Bucket:
    """A bucket at its provider. Made by `BuckiaClient.bucket`."""

    def __init__(
        self,
        backend: BaseSync,
        transfer: Callable[[], AbstractContextManager[Transfer]],
        directory: str,
        *,
        prefix: str = "",
        resume: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._transfer = transfer
        self._directory = directory
        self._prefix = f"{prefix}/" if prefix else ""
        self._resume = resume

    @property
    def location(self) -> str:
        """The bucket, for messages."""
        return self._backend.location

    @property
    def admin(self) -> BucketAdmin:
        """The provider's own verbs; each makes one request, and none is made again."""
        return self._backend.admin

    def check(self, *, pages: bool = True, full: bool = False) -> BucketCheck:
        """Try what the bucket does, remember it for later syncs, and say it.

        ``pages`` also writes 1,050 small objects and lists them; ``full`` also runs every promise of
        `buckia.sync.contract`, some 3,500 requests. All that is written lies under ``_buckia-probe/``, below the
        entry's prefix or the one that the key is limited to, and is removed, also after a request to stop.
        Raises what a plain write, read or listing raises.
        """
        token = secrets.token_hex(8)
        with self._transfer() as transfer:
            allowed = transfer.attempt("list", self.admin.allowed_prefix)
            below = self._prefix if self._prefix.startswith(allowed) else allowed
            found = probe(transfer, token, below=below, pages=pages, resume=self._resume)
        broken = self._broken_promises(f"{below}{PREFIX}{token}") if full else []
        keep_probe(self._directory, found)
        return BucketCheck(
            location=self.location,
            usable=found.usable and not broken,
            **asdict(found),
            broken=broken,
        )

    def _broken_promises(self, prefix: str) -> list[str]:
        """Promises of the contract that the bucket does not keep, each with what came instead."""
        broken: list[str] = []
        for number, promise in enumerate(contract.ALL):
            view = _Below(self._backend, f"{prefix}-{number}/")
            try:
                promise(lambda view=view: view)  # type: ignore[misc]
            except (AssertionError, BuckiaError) as error:
                said = (promise.__doc__ or promise.__name__).split("\n\n")[0]
                broken.append(f"{' '.join(said.split())} But: {error}")
            finally:
                view.remove_all()
        return broken

    def url(self, key: str, *, expires: int | None = None) -> str | None:
        """The address of an object: the public one, which answers if the bucket is public, or with ``expires`` one
        that anybody can use for so many seconds. ``None`` where there is no public one.
        """
        return self._backend.get_public_url(key) if expires is None else self._backend.signed_url(key, expires)

    def upload(self, local_path: str | os.PathLike[str], key: str) -> ObjectInfo:
        """Write a local file as one object, large ones in parts where the provider takes them."""
        with self._transfer() as transfer:
            return transfer.upload_file(local_path, key)

    def purge(self, keys: Sequence[str] = (), *, prefix: bool = False) -> int:
        """Make the CDN forget these objects, all whose keys begin with one of them, or without any everything. How
        many requests it took.
        """
        with self._transfer() as transfer:
            return self._backend.admin.purge(keys, prefix=prefix, attempt=transfer.attempt)


def keep_probe(directory: str, found: Probe) -> None:
    """Remember in a directory what a bucket does."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, _FILE)
    staged = f"{path}-{os.getpid()}"
    with open(staged, "w", encoding="utf-8") as file:
        json.dump(asdict(found), file)
    os.replace(staged, path)


def kept_probe(directory: str) -> Probe | None:
    """What a bucket did when it was last tried, or ``None``; a file that is no such is none."""
    try:
        with open(os.path.join(directory, _FILE), encoding="utf-8") as file:
            return Probe(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


class _Below(BaseSync):
    """A bucket's keys below a prefix, as if they were a bucket. Closing it closes nothing: it belongs to another."""

    def __init__(self, inner: BaseSync, prefix: str) -> None:
        super().__init__(inner.location, inner.capabilities)
        self._inner = inner
        self._prefix = prefix

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        return self._outside(self._inner.put(self._prefix + key, data, if_absent=if_absent))

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        with self._inner._request("get", self._prefix + key):
            return self._inner._get(self._prefix + key, offset, length)

    def _stat(self, key: str) -> ObjectInfo:
        return self._outside(self._inner.stat(self._prefix + key))

    def _list(self, prefix: str, token: str | None) -> Page:
        page = self._inner.list_page(self._prefix + prefix, token)
        return Page([self._outside(info) for info in page.objects], page.more)

    def _delete(self, key: str) -> None:
        self._inner.delete(self._prefix + key)

    def _delete_many(self, keys: Sequence[str]) -> None:
        self._inner.delete_many([self._prefix + key for key in keys])

    def _copy(self, source: str, target: str) -> ObjectInfo:
        return self._outside(self._inner.copy(self._prefix + source, self._prefix + target))

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        return self._inner._translate(error, self._prefix + key)

    def _close(self) -> None:
        """The bucket stays open."""

    def _outside(self, info: ObjectInfo) -> ObjectInfo:
        return ObjectInfo(info.key.removeprefix(self._prefix), info.size, info.etag, info.digests, info.modified)

    def remove_all(self) -> None:
        """Delete what lies below the prefix."""
        self.delete_many(info.key for info in self._everything())

    def _everything(self) -> Iterator[ObjectInfo]:
        yield from [*self.list()]
