"""A private event loop in a thread of its own, for calls that block.

It must not know what is run there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aether.errors import AetherError, ClientClosedError
from aether.llm.streaming import close_quietly

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a daemon thread until it is stopped.

    A forked process has none of its parent's threads: there the next call begins another loop.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.stopped = False
        self._begin()
        _threads.add(self)

    def _begin(self) -> None:
        self._inherited = False
        self._loop = asyncio.new_event_loop()
        self.streams: weakref.WeakSet[AsyncGenerator[Any, None]] = weakref.WeakSet()
        """Those that are read in this loop; they end with it."""
        self._thread = threading.Thread(target=self._serve, name="aether-sync", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """In a forked process: what there is of the parent's loop is left alone, for it shares the
        parent's files.
        """
        self._lock = threading.RLock()
        self._inherited = True
        _left_alone.append(self._loop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self.stopped:
                # A call that ended so hands it to its caller; the loop goes on for the others.
                with suppress(KeyboardInterrupt, SystemExit):
                    self._loop.run_forever()
            self._loop.run_until_complete(_cancel_all())
            self._loop.run_until_complete(_close_all(list(self.streams)))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end, in the caller's context variables. An interrupt cancels it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise AetherError(
                "client.sync was called from code that runs on its own event loop, which would "
                "wait for itself. Use the async client there."
            )
        try:
            return self._hand_over(coroutine).result()
        except concurrent.futures.CancelledError:
            if self.stopped:
                raise ClientClosedError("The client was closed during this call.") from None
            raise
        except BaseException:
            with suppress(RuntimeError):  # the loop is closed, and all of it has ended
                self._loop.call_soon_threadsafe(_cancel, coroutine)
            raise

    def _hand_over(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self.stopped:
                coroutine.close()
                raise ClientClosedError("This client is closed. Make a new one.")
            if self._inherited:
                self._begin()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """End the loop and the thread. Twice is fine."""
        with self._lock:
            running = not (self.stopped or self._inherited)
            self.stopped = True
            if running:
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()
_left_alone: list[asyncio.AbstractEventLoop] = []


def _forget_inherited() -> None:
    for thread in list(_threads):
        thread.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)


def _cancel(coroutine: Coroutine[Any, Any, object]) -> None:
    """End it, however far it has come: an interrupt may have come while it was handed over."""
    for task in asyncio.all_tasks():
        if task.get_coro() is coroutine:
            task.cancel()
            return
    coroutine.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close_all(streams: Sequence[AsyncGenerator[Any, None]]) -> None:
    """One after another, each from its outside: the loop would close all that they are made of at
    once.
    """
    for stream in streams:
        await close_quietly(stream)
