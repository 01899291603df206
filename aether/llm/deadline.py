"""The deadline of a call: whatever is awaited when it comes is cancelled.

It must not know what is awaited, nor what is done about it.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

from aether.errors import DeadlineExceededError, InputError

__all__ = ["NEVER", "Deadline", "deadline_after"]

P = ParamSpec("P")
T = TypeVar("T")


def deadline_after(timeout: object, *, clock: Callable[[], float] = time.monotonic) -> float | None:
    """When a call must have ended that may take so many seconds from now; `None` is never.

    Raises `InputError` for what is no time.
    """
    if timeout is None:
        return None
    number = timeout if isinstance(timeout, int | float) else 0
    if not isinstance(timeout, bool) and 0 < number <= sys.float_info.max:
        return clock() + number
    raise InputError(f"timeout is in seconds, above 0, not {timeout!r}.")


class Deadline:
    """The moment `at`, on `clock`, by which a call is to have ended; `None` is never.

    `timeout` limits what is awaited to so many seconds, as `asyncio.timeout` does. Nothing is cut
    short before `grace` seconds after `at`: time for what knows the deadline too, and can say more
    about it, to end by itself.
    """

    __slots__ = ("_at", "_clock", "_grace", "_timeout")

    def __init__(
        self,
        at: float | None,
        clock: Callable[[], float] = time.monotonic,
        timeout: Callable[[float], asyncio.Timeout] = asyncio.timeout,
        *,
        grace: float = 0.0,
    ) -> None:
        self._at = at
        self._clock = clock
        self._timeout = timeout
        self._grace = grace

    def left(self) -> float:
        """Seconds until then."""
        return math.inf if self._at is None else self._at - self._clock()

    def check(self) -> None:
        """Raise `DeadlineExceededError` if there are none left."""
        if self._at is not None and self._at <= self._clock():
            raise _time_is_up()

    def wait_for(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """What the work gives. If the deadline comes first, it is cancelled, and that is the error.

        Cancelling this cancels the work.
        """
        if self._at is None:
            return work(*args, **kwargs)
        return self._limit(partial(work, *args, **kwargs))

    async def _limit(self, work: Callable[[], Awaitable[T]]) -> T:
        self.check()
        limit = self._timeout(self.left() + self._grace)
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


NEVER: Final = Deadline(None)


class _Limited(AsyncIterator[T]):
    """Not a generator, which would have to be closed."""

    __slots__ = ("_deadline", "_items")

    def __init__(self, items: AsyncIterator[T], deadline: Deadline) -> None:
        self._items = items
        self._deadline = deadline

    async def __anext__(self) -> T:
        return await self._deadline.wait_for(self._items.__anext__)


def _time_is_up() -> DeadlineExceededError:
    return DeadlineExceededError(
        "The call's deadline has come. Allow it more time (timeout=), or ask for less.",
        kind="deadline",
        attempts=0,
    )
