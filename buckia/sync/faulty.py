"""A bucket that fails as planned: what networks, providers and power cuts do, at the request where a test wants it.

::

    with FaultySync(MemorySync(), [Fault("put", nth=2, act="applied")]) as bucket:
        ...

A plan that was not used up fails the ``with`` block: a test that never reached its fault proves nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from buckia.errors import BuckiaError, ObjectNotFound, Transient
from buckia.sync.base import BaseSync, ObjectInfo, Page, Verb

Act = Literal["before", "applied", "timeout", "short", "flip", "missing", "stale", "crash", "crash-applied", "error"]


class SimulatedCrash(BaseException):
    """The process ends here; no handler of errors may swallow it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the ``nth`` request (from 1) of a verb whose key fulfils ``where``.

    Acts: ``before`` `Transient` without an effect; ``applied`` `Transient` although it was done; ``timeout`` the same
    as a `TimeoutError` of the network; ``short`` a get returns half the bytes; ``flip`` a get returns a flipped bit at
    ``at``; ``missing`` `ObjectNotFound` for an object that is there; ``stale`` a listing omits the ``newest`` objects
    and shows deleted ones; ``crash`` and ``crash-applied`` `SimulatedCrash` before or after the effect; ``error``
    raises ``error``. ``times`` requests in a row are hit.
    """

    verb: Verb
    act: Act = "before"
    nth: int = 1
    times: int = 1
    where: Callable[[str], bool] | None = None
    retry_after: float | None = None
    at: int = 0
    newest: int = 1
    error: Exception | None = None


class _Planned:
    """A fault and how many requests it has seen."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0

    @property
    def used(self) -> bool:
        return self.seen >= self.fault.nth + self.fault.times - 1

    def hits(self, verb: Verb, key: str) -> bool:
        fault = self.fault
        if fault.verb != verb or (fault.where is not None and not fault.where(key)):
            return False
        self.seen += 1
        return fault.nth <= self.seen < fault.nth + fault.times


class FaultySync(BaseSync):
    """The bucket ``inner`` with a plan of faults; ``sleep`` is called with ``latency`` seconds before every request.

    Without faults it behaves as ``inner`` does. Requests are counted here. Deleting many and copying are done one by
    one, so that each can fail.
    """

    def __init__(
        self,
        inner: BaseSync,
        faults: Iterable[Fault] = (),
        *,
        latency: float = 0.0,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(inner.location, replace(inner.capabilities, batch_delete=0, copy=False))
        self.inner = inner
        self.log: list[tuple[Verb, str]] = []
        """Every request that arrived, in order."""
        self._planned = [_Planned(fault) for fault in faults]
        self._latency = latency
        self._sleep = sleep
        self._written: list[str] = []
        self._deleted: dict[str, ObjectInfo] = {}
        self._lock = threading.Lock()

    def plan(self, *faults: Fault) -> None:
        """Adds faults, which count requests from now on."""
        with self._lock:
            self._planned += map(_Planned, faults)

    def unused(self) -> list[Fault]:
        """The faults that did not happen (often enough) yet."""
        with self._lock:
            return [planned.fault for planned in self._planned if not planned.used]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        unused = self.unused()
        if kind is None and unused:
            raise AssertionError(f"These faults never happened: {unused}.")

    def _put(self, key: str, data: memoryview, if_absent: bool) -> ObjectInfo:
        fault = self._arrive("put", key)
        info = self.inner.put(key, data, if_absent=if_absent)
        with self._lock:
            self._deleted.pop(key, None)
            self._written.append(key)
        self._leave(fault, key)
        return info

    def _get(self, key: str, offset: int, length: int | None) -> bytes:
        fault = self._arrive("get", key)
        data = self.inner._get(key, offset, length)
        self._leave(fault, key)
        if fault is not None and fault.act == "short":
            if length is None:
                raise Transient(f"{self.location}: {key}: the answer was cut short.")
            return data[: len(data) // 2]
        if fault is not None and fault.act == "flip" and data:
            position = fault.at % len(data)
            return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        return data

    def _stat(self, key: str) -> ObjectInfo:
        fault = self._arrive("stat", key)
        info = self.inner.stat(key)
        self._leave(fault, key)
        return info

    def _list(self, prefix: str, token: str | None) -> Page:
        fault = self._arrive("list", prefix)
        page = self.inner.list_page(prefix, token)
        self._leave(fault, prefix)
        if fault is not None and fault.act == "stale":
            return Page(self._stale([*page.objects], prefix, fault.newest), page.more)
        return page

    def _stale(self, found: list[ObjectInfo], prefix: str, newest: int) -> list[ObjectInfo]:
        with self._lock:
            recent = [key for key in dict.fromkeys(reversed(self._written)) if key.startswith(prefix)][:newest]
            gone = [info for key, info in self._deleted.items() if key.startswith(prefix)]
        return sorted([info for info in found if info.key not in recent] + gone, key=lambda info: info.key)

    def _delete(self, key: str) -> None:
        fault = self._arrive("delete", key)
        try:
            before = self.inner.stat(key)
        except ObjectNotFound:
            before = None
        self.inner.delete(key)
        if before is not None:
            with self._lock:
                self._deleted[key] = before
        self._leave(fault, key)

    def _close(self) -> None:
        self.inner.close()

    def _translate(self, error: Exception, key: str) -> BuckiaError | None:
        return self.inner._translate(error, key)

    def _arrive(self, verb: Verb, key: str) -> Fault | None:
        if self._sleep is not None and self._latency:
            self._sleep(self._latency)
        with self._lock:
            self.log.append((verb, key))
            hits = [planned.fault for planned in self._planned if planned.hits(verb, key)]
        if not hits:
            return None
        fault = hits[0]
        if fault.act == "before":
            raise Transient(f"{self.location}: {verb} {key} failed as planned.", retry_after=fault.retry_after)
        if fault.act == "missing":
            raise ObjectNotFound(f"{self.location} holds no {key}.")
        if fault.act == "crash":
            raise SimulatedCrash
        if fault.act == "error" and fault.error is not None:
            raise fault.error
        return fault

    def _leave(self, fault: Fault | None, key: str) -> None:
        if fault is None:
            return
        if fault.act == "applied":
            raise Transient(
                f"{self.location}: the answer for {key} was lost as planned.", retry_after=fault.retry_after
            )
        if fault.act == "timeout":
            raise TimeoutError("timed out as planned")
        if fault.act == "crash-applied":
            raise SimulatedCrash
