"""Two runners after one thing: the first in its caller's task, the second in one of its own.

The first is run as if it were alone, and the second sets out later. Only if the second has
something before it, the first is interrupted, as by `asyncio.timeout`. No runner changes its task:
what it holds open may be bound to that. It must not know what they run after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from aether._finishing import GRACE_SECONDS

__all__ = ["CallLater", "Race", "Timer"]

T = TypeVar("T")

_log = logging.getLogger("aether.llm")


class Timer(Protocol):
    """What has been put off, until it is cancelled."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Race(Generic[T]):
    """An async context manager around the first runner, within which it is interrupted if it loses:
    then a `TimeoutError` comes out, and `is_lost` is true.

    The second sets out so many seconds `after` now. Whoever makes a race must `stop` it, on every
    way out. `call_later` is the running loop's, if it is not given.
    """

    def __init__(
        self,
        second: Callable[[Race[T]], Coroutine[Any, Any, None]],
        *,
        after: float,
        call_later: CallLater | None = None,
    ) -> None:
        self._set_out = second
        self.is_lost = False
        """Whether the second had something first."""
        self._failure: Exception | None = None
        self._limit: asyncio.Timeout | None = None
        """What interrupts the first, while it runs. It holds its task, and that may hold this."""
        self._handed: asyncio.Queue[T | None] = asyncio.Queue()
        self._second: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._timer = (call_later or loop.call_later)(after, self._start)

    async def __aenter__(self) -> None:
        self._limit = await asyncio.timeout(None).__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            await limit.__aexit__(kind, error, traceback)

    def overtake(self) -> None:
        """The second has something: the first, if it still runs, is interrupted."""
        if self._limit is not None and not self.is_lost:
            self.is_lost = True
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def hand_over(self, item: T) -> None:
        """The second gives this to whoever takes it, and waits until it is taken."""
        self._handed.put_nowait(item)
        await self._handed.join()

    async def next_item(self) -> T | None:
        """What the second hands over; `None` when it has ended. Raises what has ended it."""
        item = await self._handed.get()
        self._handed.task_done()
        if item is None and self._failure is not None:
            raise self._failure
        return item

    async def stop(self) -> None:
        """End the second, and wait for its end, however often this is cancelled meanwhile; but no
        longer than `GRACE_SECONDS`. Twice is fine.
        """
        self._timer.cancel()
        second = self._second
        if second is None:
            return
        second.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE_SECONDS
        cancelled: asyncio.CancelledError | None = None
        while not second.done():
            left = deadline - loop.time()
            if left <= 0:
                _log.warning("a second attempt does not end although it was cancelled")
                break
            try:
                await asyncio.wait({second}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
        self._second = self._failure = None  # they hold frames that hold this
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # else it would hold this frame, and the frame it

    def _start(self) -> None:
        self._second = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._set_out(self)
        except Exception as error:  # noqa: BLE001 - who takes its items gets it
            self._failure = error
        finally:
            self._handed.put_nowait(None)
