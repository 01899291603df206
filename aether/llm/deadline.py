"""The deadline of a call: whatever is awaited when it comes is cancelled.

It must not know what is awaited, nor what is done about it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from aether.errors import RequestTimeoutError

__all__ = ["DEADLINE", "Deadline"]

T = TypeVar("T")

DEADLINE = "deadline"
"""The `kind` of the error of a deadline that has come."""


class Deadline:
    """The moment `at`, on `clock`, by which a call is to have ended; `None` is never.

    `timeout` limits what is awaited to so many seconds, as `asyncio.timeout` does.
    """

    __slots__ = ("_at", "_clock", "_timeout")

    def __init__(
        self,
        at: float | None,
        clock: Callable[[], float],
        timeout: Callable[[float], asyncio.Timeout],
    ) -> None:
        self._at = at
        self._clock = clock
        self._timeout = timeout

    def left(self) -> float:
        """Seconds until then."""
        return math.inf if self._at is None else self._at - self._clock()

    def check(self) -> None:
        """Raise a `RequestTimeoutError`, whose `kind` is `deadline`, if there are none left."""
        if self.left() <= 0:
            raise _time_is_up()

    async def wait_for(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work gives. If the deadline comes first, it is cancelled, and that is the error.

        Cancelling this cancels the work.
        """
        if self._at is None:
            return await work()
        self.check()
        limit = self._timeout(self.left())
        try:
            async with limit:
                return await work()
        except Exception as error:
            if limit.expired():
                raise _time_is_up() from error
            raise

    def iterate(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The same items, each waited for until then. Who closes `items` leaves nothing open."""
        return items if self._at is None else _Limited(items, self)


class _Limited(AsyncIterator[T]):
    """Not a generator, which would have to be closed."""

    __slots__ = ("_deadline", "_items")

    def __init__(self, items: AsyncIterator[T], deadline: Deadline) -> None:
        self._items = items
        self._deadline = deadline

    async def __anext__(self) -> T:
        return await self._deadline.wait_for(self._items.__anext__)


def _time_is_up() -> RequestTimeoutError:
    return RequestTimeoutError("The call's deadline has come.", kind=DEADLINE)
