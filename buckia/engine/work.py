"""Work for several threads, as an interface: the engine never makes threads itself, and runs on one where it is given
an inline executor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
R_co = TypeVar("R_co", covariant=True)


class Promise(Protocol[R_co]):
    """A result that may not be there yet."""

    def result(self) -> R_co:
        """Wait for it; raises what the work raised."""

    def exception(self) -> BaseException | None:
        """Wait for it; what the work raised, if it did."""

    def cancel(self) -> bool:
        """Give up on work that has not begun."""


class Executor(Protocol):
    """Where work runs. ``width`` is how much of it runs at a time."""

    @property
    def width(self) -> int:
        """Pieces of work that run side by side."""

    def submit(self, work: Callable[[Item], Result], item: Item) -> Promise[Result]:
        """Begin a piece of work."""


class _Done(Promise[Result]):
    def __init__(self, work: Callable[[Item], Result], item: Item) -> None:
        self._error: BaseException | None = None
        try:
            self._result = work(item)
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result

    def exception(self) -> BaseException | None:
        return self._error

    def cancel(self) -> bool:
        return False


class Inline:
    """Runs everything in the caller's thread when it is submitted: for tests, and for one core."""

    width = 1

    def submit(self, work: Callable[[Item], Result], item: Item) -> Promise[Result]:
        """Do it now."""
        return _Done(work, item)


def in_order(
    executor: Executor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int | None = None,
    *,
    cost: Callable[[Item], int] = lambda item: 0,
    budget: int = 0,
) -> Iterator[Result]:
    """The results of work on items, in their order, with up to ``ahead`` pieces begun before they are asked for, which
    together cost no more than the ``budget`` unless it is a single one.
    """
    bound = ahead if ahead is not None else 2 * executor.width
    begun: deque[Promise[Result]] = deque()
    costs: deque[int] = deque()
    try:
        for item in items:
            costs.append(cost(item))
            while begun and sum(costs) > budget:
                costs.popleft()
                yield begun.popleft().result()
            begun.append(executor.submit(work, item))
            if len(begun) >= bound:
                costs.popleft()
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        # Outcomes no longer matter, but nothing may run on when its surroundings are taken away.
        for promise in [promise for promise in begun if not promise.cancel()]:
            promise.exception()
