"""How long each step of an event loop takes: what keeps all other tasks of a program waiting.

CPU time is measured, of the loop's own thread: what else the machine does meanwhile counts for
little. Servers run in a thread of their own, so that their work is not counted.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from asyncio import events
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aether.testing import FaultServer

LONGEST_STEP = 0.05
"""Seconds. So long, at most, does one step of anything keep the loop from going on."""


@dataclass
class Steps:
    """What was measured so far."""

    longest: float = 0.0
    """Seconds."""
    what: str = "nothing"
    """The callback, or the task, that took them."""


@asynccontextmanager
async def measured_steps() -> AsyncIterator[Steps]:
    """Measure the steps of the running loop, from here to the end of the one that leaves."""
    measured = Steps()
    handle: Any = events.Handle
    run: Callable[[Any], None] = handle._run
    watched = threading.get_ident()

    def timed(self: Any) -> None:
        if threading.get_ident() != watched:
            run(self)
            return
        what = self._callback
        before = time.thread_time()
        run(self)
        took = time.thread_time() - before
        if took > measured.longest:
            measured.longest, measured.what = took, repr(what)[:500]

    handle._run = timed
    try:
        await asyncio.sleep(0)
        try:
            yield measured
        finally:
            await asyncio.sleep(0)  # the step that ends here is over, and counted
    finally:
        handle._run = run


@asynccontextmanager
async def elsewhere(make: Callable[[], FaultServer]) -> AsyncIterator[FaultServer]:
    """A server in a thread, and a loop, of its own."""
    here = asyncio.get_running_loop()
    started: asyncio.Future[tuple[FaultServer, Callable[[], object]]] = here.create_future()
    ended: asyncio.Future[None] = here.create_future()

    async def serve() -> None:
        there, done = asyncio.get_running_loop(), asyncio.Event()
        async with make() as server:
            end = functools.partial(there.call_soon_threadsafe, done.set)
            here.call_soon_threadsafe(started.set_result, (server, end))
            await done.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            here.call_soon_threadsafe(ended.set_result, None)

    thread = threading.Thread(target=run)
    thread.start()
    server, end = await started
    try:
        yield server
    finally:
        end()
        await ended
        thread.join()
