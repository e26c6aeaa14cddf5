"""What a bucket really does, found out by trying: nothing that a provider claims is built on before.

A probe writes some small objects under a key of its own and removes them in the end, also when it fails or is stopped;
and with them what earlier ones had to leave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from buckia.errors import BucketError, BuckiaError, CancelledError, ObjectNotFound, PreconditionFailed, UsageError
from buckia.store.transfer import Transfer
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo

PREFIX = "_buckia-probe/"
"""Of all objects that a probe writes."""
PAGE_OBJECTS = 1050
"""Objects that take more than one page of a listing at most providers."""
LEFT_SECONDS = 3600.0
"""Objects of other probes that are so much older, by the bucket's own clock, were left behind."""
_DATA = bytes(range(256)) * 16
_ALGORITHMS = ("sha256", "sha1", "md5")


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen. Only ``pages`` may be unknown (``None``): it was not tried."""

    read_after_write: bool
    """A read right after a write has its bytes, also after an overwrite."""
    list_after_write: bool
    """A listing right after a write shows it."""
    gone_after_delete: bool
    """Neither a read nor a listing right after a delete shows the object."""
    range_get: bool
    conditional_put: bool
    """A second write with the condition that there is none is refused, and changes nothing."""
    digest_in_listing: str | None
    """The algorithm of a digest that listings carry and that is right; ``md5`` may be an ETag."""
    pages: bool | None
    """A listing of 1,050 objects is complete, and has none twice."""

    @property
    def usable(self) -> bool:
        """Enough for a folder: what was written can be read, and a listing leaves nothing out for ever."""
        return self.read_after_write and self.pages is not False

    def capabilities(self, stated: Capabilities) -> Capabilities:
        """What an adapter states of itself, corrected by what was seen."""
        return replace(
            stated,
            conditional_put=self.conditional_put,
            range_get=stated.range_get and self.range_get,
            list_consistent=self.list_after_write and self.gone_after_delete,
            digest_in_listing=self.digest_in_listing,
        )


def probe(
    transfer: Transfer, token: str, *, below: str = "", pages: bool = True, resume: Callable[[], None] = lambda: None
) -> Probe:
    """Try everything, under keys that begin with ``below`` and hold ``token``, which nobody else uses. Raises what a
    plain put, get, list or delete raises; that something optional does not work is a result.

    ``resume`` takes a request to stop back, so that what was written can be removed.
    """
    prefix = f"{below}{PREFIX}{token}/"
    # If this fails there is nothing to remove.
    transfer.put(f"{prefix}gone", b"before")
    with _tidied(transfer, f"{below}{PREFIX}", prefix, resume):
        return _probe(transfer, prefix, pages)


@contextmanager
def _tidied(transfer: Transfer, root: str, prefix: str, resume: Callable[[], None]) -> Iterator[None]:
    """Removes in the end what lies below ``prefix``, and what others left below ``root``; else says that it stays."""
    problem: BuckiaError | None = None
    try:
        try:
            yield
        except BuckiaError as error:
            problem = error
        resume()
        _tidy(transfer, root, prefix)
    except (BuckiaError, KeyboardInterrupt) as error:
        problem = problem or (error if isinstance(error, BuckiaError) else CancelledError())
        stays = f"What was written below {prefix} stays until a later `buckia bucket check` may delete it."
        problem.hint = f"{problem.hint} {stays}" if problem.hint else stays
    if problem is not None:
        raise problem


def _tidy(transfer: Transfer, root: str, prefix: str) -> None:
    with suppress(BuckiaError):
        transfer.drain()  # a put that is on its way would arrive afterwards
    listed = transfer.list(root)
    mine = [info for info in listed if info.key.startswith(prefix)]
    old = max((info.modified or 0.0 for info in mine), default=0.0) - LEFT_SECONDS
    left = [info for info in listed if info.modified is not None and info.modified < old]
    transfer.delete_many(info.key for info in mine + left)


def _probe(transfer: Transfer, prefix: str, pages: bool) -> Probe:
    # First of all: who may not delete is to leave no more than this one.
    gone = _deletes(transfer, f"{prefix}gone")
    key = f"{prefix}object"
    transfer.put(key, b"before")
    transfer.put(key, _DATA)
    read = transfer.get(key) == _DATA
    listed = {info.key: info for info in transfer.list(prefix)}
    found = listed.get(key)
    ranges = _gets_ranges(transfer, key)
    conditional = _honours_conditions(transfer.backend, f"{prefix}condition")
    complete = _lists_all(transfer, f"{prefix}many/") if pages else None
    return Probe(
        read_after_write=read,
        list_after_write=found is not None and found.size == len(_DATA),
        gone_after_delete=gone,
        range_get=ranges,
        conditional_put=conditional,
        digest_in_listing=None if found is None else _digest(found),
        pages=complete,
    )


def _gets_ranges(transfer: Transfer, key: str) -> bool:
    try:
        return transfer.get(key, 1000, 17) == _DATA[1000:1017] and transfer.get(key, 4000) == _DATA[4000:]
    except BucketError:
        return False


def _honours_conditions(backend: BaseSync, key: str) -> bool:
    """Some servers ignore the condition without a word, so only a refusal counts; and of the first write none."""
    stated = backend.capabilities
    backend.capabilities = replace(stated, conditional_put=True)
    try:
        backend.put(key, b"first", if_absent=True)
        try:
            backend.put(key, b"second", if_absent=True)
        except PreconditionFailed:
            return backend.get(key) == b"first"
        return False
    except (BucketError, UsageError):
        return False
    finally:
        backend.capabilities = stated


def _lists_all(transfer: Transfer, prefix: str) -> bool:
    keys = [f"{prefix}{number:04d}" for number in range(PAGE_OBJECTS)]
    for key in keys:
        transfer.submit_put(key, b"x")
    transfer.drain()
    complete = [info.key for info in transfer.list(prefix)] == keys
    transfer.delete_many(keys)
    return complete


def _deletes(transfer: Transfer, key: str) -> bool:
    transfer.put(key, b"after")
    transfer.delete(key)
    try:
        transfer.get(key)
    except ObjectNotFound:
        return all(info.key != key for info in transfer.list(key))
    return False


def _digest(found: ObjectInfo) -> str | None:
    for algorithm in _ALGORITHMS:
        right = hashlib.new(algorithm, _DATA, usedforsecurity=False).hexdigest()
        if found.digests.get(algorithm) == right or (algorithm == "md5" and found.etag == right):
            return algorithm
    return None
