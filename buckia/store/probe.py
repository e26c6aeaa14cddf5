"""What a bucket really does, found out by trying: nothing that a provider claims is built on before.

A probe writes some small objects under a key of its own and removes them in the end, whatever happened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from buckia.errors import BucketError, ObjectNotFound, PreconditionFailed, UsageError
from buckia.store.transfer import Transfer
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo

PREFIX = "_buckia-probe/"
"""Of all objects that a probe writes."""
PAGE_OBJECTS = 1050
"""Objects that take more than one page of a listing at most providers."""
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


def probe(transfer: Transfer, token: str, *, pages: bool = True) -> Probe:
    """Try everything, under a key with ``token``, which nobody else uses. Raises what a plain put, get or list raises;
    that something optional does not work is a result.
    """
    prefix = f"{PREFIX}{token}/"
    try:
        return _probe(transfer, prefix, pages)
    finally:
        left = [info.key for info in transfer.list(prefix)]
        transfer.delete_many(left)


def _probe(transfer: Transfer, prefix: str, pages: bool) -> Probe:
    key = f"{prefix}object"
    transfer.put(key, b"before")
    transfer.put(key, _DATA)
    read = transfer.get(key) == _DATA
    listed = {info.key: info for info in transfer.list(prefix)}
    found = listed.get(key)
    ranges = _gets_ranges(transfer, key)
    conditional = _honours_conditions(transfer.backend, f"{prefix}condition")
    complete = _lists_all(transfer, f"{prefix}many/") if pages else None
    transfer.delete(key)
    return Probe(
        read_after_write=read,
        list_after_write=found is not None and found.size == len(_DATA),
        gone_after_delete=_is_gone(transfer, key),
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


def _is_gone(transfer: Transfer, key: str) -> bool:
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
