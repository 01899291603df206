"""One resource for each event loop, closed with its loop.

It must not know what the resource is. A connection belongs to the loop that opened it; a transport
may be used from several, one after another (`asyncio.run` twice) or in threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from aether.errors import ClientClosedError

__all__ = ["PerLoop"]

R = TypeVar("R")


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
            if self._closed:
                raise ClientClosedError("This transport was closed. Make a new one.")
            resource = self._make()
            keeper = self._keep(resource)
            with self._lock:
                self._kept[loop] = kept = resource, keeper
            await keeper.__anext__()
        return kept[0]

    async def aclose(self) -> None:
        """Close the resources of all loops, also of those in other threads. Twice is fine."""
        with self._lock:
            self._closed = True
            kept = list(self._kept.items())
            self._kept.clear()
        here = asyncio.get_running_loop()
        for loop, (_, keeper) in kept:
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(keeper.aclose(), loop)
                await asyncio.wrap_future(closing)
            elif not loop.is_closed():
                await asyncio.to_thread(loop.run_until_complete, keeper.aclose())

    async def _keep(self, resource: R) -> AsyncGenerator[None, None]:
        # A loop that is shut down closes the generators that were begun in it: so this is how a
        # library learns of the end of a loop (`loop.shutdown_asyncgens`, called by `asyncio.run`).
        try:
            yield
        finally:
            await self._close(resource)
