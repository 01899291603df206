"""One resource for each event loop, closed with its loop.

It must not know what the resource is. A connection belongs to the loop that opened it; a transport
may be used from several, one after another (`asyncio.run` twice) or in threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from aether.errors import ClientClosedError

__all__ = ["PerLoop"]

R = TypeVar("R")

PATIENCE_SECONDS = 5.0


class PerLoop(Generic[R]):
    """Makes the resource of a loop when it is first asked for there."""

    def __init__(self, make: Callable[[], R], close: Callable[[R], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[R, AsyncGenerator[None, None]]
        ] = WeakKeyDictionary()
        self._closed = False

    async def get(self) -> R:
        """The running loop's resource. `ClientClosedError` after `aclose`."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            with self._lock:
                if self._closed:
                    raise ClientClosedError("This transport was closed. Make a new one.")
                resource = self._make()
                keeper = self._keep(resource)
                self._kept[loop] = kept = resource, keeper
            await keeper.__anext__()
        return kept[0]

    async def aclose(self) -> None:
        """Close the resources of all loops, also of those in other threads. Twice is fine."""
        with self._lock:
            self._closed = True
            kept = list(self._kept.items())
            self._kept.clear()
        async with AsyncExitStack() as closing:  # one that fails keeps no other open
            for loop, (_, keeper) in kept:
                closing.push_async_callback(_close_in, loop, keeper)

    async def _keep(self, resource: R) -> AsyncGenerator[None, None]:
        # A loop that is shut down closes the generators that were begun in it: so this is how a
        # library learns of the end of a loop (`loop.shutdown_asyncgens`, called by `asyncio.run`).
        try:
            yield
        finally:
            await self._close(resource)


async def _close_in(loop: asyncio.AbstractEventLoop, keeper: AsyncGenerator[None, None]) -> None:
    if loop is asyncio.get_running_loop():
        await keeper.aclose()
    elif loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(keeper.aclose(), loop)
        # The loop may stop right now, and then nobody ever answers.
        await asyncio.wait_for(asyncio.wrap_future(closing), PATIENCE_SECONDS)
    elif not loop.is_closed():
        await asyncio.to_thread(loop.run_until_complete, keeper.aclose())
