"""A bucket in memory: for tests and simulations, and the shortest example of an adapter."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence

from buckia.errors import ObjectNotFound, PreconditionFailed
from buckia.sync.base import BaseSync, Capabilities, ObjectInfo, Page


class MemorySync(BaseSync):
    """Objects in a dictionary. Every request sees all that were answered before it.

    ``objects`` maps keys to bytes, for tests that damage or count them.
    """

    def __init__(self, name: str = "memory") -> None:
        super().__init__(f"memory:{name}", Capabilities(conditional_put=True, batch_delete=1000, copy=True))
        self.objects: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}
        self._lock = threading.Lock()

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        stored = bytes(data)
        with self._lock:
            if if_absent and key in self.objects:
                raise PreconditionFailed(f"{self.location} holds {key} already.")
            self.objects[key] = stored
            self._modified[key] = time.time()
            return self._info(key)

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        stored = self._stored(key)
        return stored[offset:] if length is None else stored[offset : offset + length]

    def _stat(self, key: str) -> ObjectInfo:
        with self._lock:
            self._stored(key)
            return self._info(key)

    def _list(self, prefix: str, token: str | None) -> Page:
        with self._lock:
            keys = sorted([key for key in self.objects if key.startswith(prefix)])
            return Page([self._info(key) for key in keys])

    def _delete(self, key: str) -> None:
        self._delete_many([key])

    def _delete_many(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)
                self._modified.pop(key, None)

    def _copy(self, source: str, target: str) -> ObjectInfo:
        return self._put(target, memoryview(self._stored(source)), False)

    def _close(self) -> None:
        """Nothing to free; the objects stay."""

    def _stored(self, key: str) -> bytes:
        stored = self.objects.get(key)
        if stored is None:
            raise ObjectNotFound(f"{self.location} holds no {key}.")
        return stored

    def _info(self, key: str) -> ObjectInfo:
        stored = self.objects[key]
        etag = hashlib.md5(stored, usedforsecurity=False).hexdigest()
        return ObjectInfo(key, len(stored), etag, {}, self._modified.get(key))
