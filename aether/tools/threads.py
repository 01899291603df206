"""Threads for work that blocks: bounded in number, used again, and never in the way of an exit.

It must not know what the work is.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from aether.errors import ToolError

__all__ = ["WorkerThreads", "worker_threads"]

T = TypeVar("T")

LIMIT = 32
IDLE_SECONDS = 10.0

_Outcome = tuple[Any, BaseException | None]


class _Job:
    """One piece of work on its way from an event loop to a thread and back."""

    __slots__ = ("abandoned", "ended", "loop", "outcome", "started", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[_Outcome] = self.loop.create_future()
        self.started = False
        self.ended = False
        self.abandoned = False

    def deliver(self, outcome: _Outcome) -> None:
        """Tell the waiting loop. From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return

    def _settle(self, outcome: _Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class WorkerThreads:
    """Runs blocking work for any number of event loops in at most `limit` daemon threads.

    More work than that waits for a thread. Python cannot end a thread: when a caller stops
    waiting (a timeout, a cancellation), the thread counts as abandoned until its work ends. When
    all threads are abandoned, new work and work that waits fail at once with `ToolError`.
    """

    def __init__(self, limit: int = LIMIT, idle_seconds: float = IDLE_SECONDS) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self.forget()

    def forget(self) -> None:
        """Start anew, as in a forked process, which has none of its parent's threads."""
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Threads with work that nobody waits for any more."""
        return self._abandoned

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, in a copy of the caller's context; its exception comes out here.

        On cancellation the wait ends at once. Work that had not begun is not done; other work
        goes on unseen.
        """
        context = contextvars.copy_context()
        job = _Job(lambda: context.run(work))
        self._submit(job)
        try:
            value, error = await job.outcome
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        finally:
            del job
        if error is None:
            return value  # type: ignore[no-any-return]  # what `work` returned
        try:
            raise error
        finally:
            del error  # else it would hold this frame, and the frame it

    def _submit(self, job: _Job) -> None:
        with self._changed:
            if self._abandoned >= self._limit:
                raise self._stuck()
            if len(self._waiting) >= self._idle and self._threads < self._limit:
                threading.Thread(target=self._serve, name="aether-tool", daemon=True).start()
                self._threads += 1
            self._waiting.append(job)
            self._changed.notify()

    def _abandon(self, job: _Job) -> None:
        with self._changed:
            if job.ended:
                return
            if not job.started:
                if job in self._waiting:
                    self._waiting.remove(job)
                return
            job.abandoned = True
            self._abandoned += 1
            if self._abandoned >= self._limit:
                while self._waiting:
                    self._waiting.popleft().deliver((None, self._stuck()))

    def _stuck(self) -> ToolError:
        return ToolError(
            f"All {self._limit} threads for tools hang in calls that were given up. Give blocking "
            "tools time limits of their own, or make them async."
        )

    def _serve(self) -> None:
        while job := self._next():
            try:
                outcome: _Outcome = (job.work(), None)
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                outcome = (None, error)
            with self._changed:
                job.ended = True
                if job.abandoned:
                    self._abandoned -= 1
            job.deliver(outcome)
            del job, outcome

    def _next(self) -> _Job | None:
        """The next piece of work, or none if there was nothing to do for a while."""
        with self._changed:
            while not self._waiting:
                self._idle += 1
                called = self._changed.wait(self._idle_seconds)
                self._idle -= 1
                if not called and not self._waiting:
                    self._threads -= 1
                    return None
            job = self._waiting.popleft()
            job.started = True
            return job


worker_threads = WorkerThreads()
"""The threads of the process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker_threads.forget)
