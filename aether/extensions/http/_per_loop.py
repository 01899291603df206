"""One resource for each event loop, closed with its loop, or with the last reference to its owner.

It must not know what the resource is. A connection belongs to the loop that opened it; a transport
may be used from several, one after another (`asyncio.run` twice) or in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from aether._finishing import Finishing, finish
from aether.errors import ClientClosedError

__all__ = ["PerLoop", "close_all"]

R = TypeVar("R")

Keeper = AsyncGenerator[None, None]

POLL_SECONDS = 0.005
PATIENCE_SECONDS = 1.0
"""For so long another thread's loop is waited for, at most, until it has closed what is its own."""


class PerLoop(Generic[R]):
    """Makes the resource of a loop when it is first asked for there."""

    def __init__(
        self, make: Callable[[], R], close: Callable[[R], Coroutine[Any, Any, None]]
    ) -> None:
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._kept: dict[asyncio.AbstractEventLoop, tuple[R, Keeper]] = {}
        self._closed = False
        weakref.finalize(self, _abandon, self._kept).atexit = False

    def made(self) -> R | None:
        """The running loop's resource, if it was made before, and nothing is closed."""
        kept = self._kept.get(asyncio.get_running_loop())
        return None if kept is None or self._closed else kept[0]

    async def get(self) -> R:
        """The running loop's resource. `ClientClosedError` after `aclose`."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None or self._closed:
            with self._lock:
                self.check_open()
                for other in [other for other in self._kept if other.is_closed()]:
                    del self._kept[other]
                resource = self._make()
                keeper = _keep(resource, self._close, self._kept, loop)
                self._kept[loop] = kept = resource, keeper
            await keeper.__anext__()
        return kept[0]

    def check_open(self) -> None:
        """`ClientClosedError` after `aclose`."""
        if self._closed:
            raise ClientClosedError("This transport was closed. Make a new one.")

    async def aclose(self) -> None:
        """Close the resources of all loops, also of those in other threads. Twice is fine.

        Cancelled, it closes them all the same. A loop that is blocked closes its own when it goes
        on: it is waited for `PATIENCE_SECONDS`.
        """
        with self._lock:
            self._closed = True
            kept = list(self._kept.items())
        async with contextlib.AsyncExitStack() as closing:  # one that fails keeps no other open
            for loop, (_, keeper) in kept:
                closing.push_async_callback(_close_in, loop, keeper)


async def close_all(close: Callable[[R], Coroutine[Any, Any, None]], several: set[R]) -> None:
    """Close each of several resources."""
    async with contextlib.AsyncExitStack() as closing:  # one that fails keeps no other open
        for each in several:
            closing.push_async_callback(close, each)


async def _keep(
    resource: R,
    close: Callable[[R], Coroutine[Any, Any, None]],
    kept: dict[asyncio.AbstractEventLoop, tuple[R, Keeper]],
    loop: asyncio.AbstractEventLoop,
) -> Keeper:
    # A loop that is shut down closes the generators that were begun in it: so this is how a
    # library learns of the end of a loop (`loop.shutdown_asyncgens`, called by `asyncio.run`).
    try:
        yield
    finally:
        kept.pop(loop, None)
        _orphans.pop(id(resource), None)
        # A library that is cancelled while it closes may leave some of its connections open.
        await finish(close(resource))


_orphans: dict[int, Keeper] = {}
"""What a forgotten owner left in a loop, held until it is closed there."""


def _abandon(kept: dict[asyncio.AbstractEventLoop, tuple[Any, Keeper]]) -> None:
    for loop, (resource, keeper) in list(kept.items()):
        if loop.is_closed():
            continue
        _orphans[id(resource)] = keeper
        with contextlib.suppress(RuntimeError):  # it has closed just now, and the keeper with it
            loop.call_soon_threadsafe(_begin_closing, loop, keeper)


def _begin_closing(loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
    task = Finishing(_close(keeper), loop=loop)
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


async def _close(keeper: Keeper) -> None:
    # Not `aclose()` itself as a task: one that is cancelled before it begins would be cancelled and
    # closed at once, in the middle of each other (Python 3.11 and 3.12).
    await keeper.aclose()


async def _close_in(loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
    if loop is asyncio.get_running_loop():
        await _close(keeper)
    elif loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(_close(keeper), loop)
        # A loop that stops right now never answers, and may have cancelled what it was asked for;
        # its own end has closed the keeper then. And one that is blocked, perhaps by who waits for
        # this (a notebook, by `client.sync.close()`), closes it when it goes on.
        until = time.monotonic() + PATIENCE_SECONDS
        while loop.is_running() and not closing.done() and time.monotonic() < until:  # noqa: ASYNC110 - two loops, no event
            await asyncio.sleep(POLL_SECONDS)
    elif not loop.is_closed():
        await asyncio.to_thread(loop.run_until_complete, _close(keeper))
