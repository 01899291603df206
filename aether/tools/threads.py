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
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from aether.errors import ToolError

__all__ = ["OverdueError", "WorkerThreads", "worker_threads"]

T = TypeVar("T")

LIMIT = 32
IDLE_SECONDS = 10.0

_Outcome = tuple[Any, BaseException | None]


class OverdueError(TimeoutError):
    """The work has not ended in time. What the work itself raises is never this."""


class _Job:
    """One piece of work on its way from an event loop to a thread and back."""

    __slots__ = ("abandoned", "context", "ended", "loop", "outcome", "result", "started", "work")

    def __init__(self, work: Callable[[], Any], context: contextvars.Context) -> None:
        self.work = work
        self.context = context
        self.loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[_Outcome] = self.loop.create_future()
        self.result: _Outcome | None = None
        self.started = False
        self.ended = False
        self.abandoned = False

    def let_go(self) -> None:
        """Drop what is not needed any more, which may take its time to go. In the work's thread."""
        del self.work, self.context
        if self.abandoned:
            self.result = None

    def tell(self) -> None:
        """Tell the waiting loop the result, which it alone holds from then on. From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._take)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return

    def _take(self) -> None:
        result, self.result = self.result, None
        if result is not None:
            self.settle(result)

    def settle(self, result: _Outcome) -> None:
        """End the wait, unless it has ended. In the loop's thread."""
        if not self.outcome.done():
            self.outcome.set_result(result)


_Mailbox = SimpleQueue[_Job]
"""Where an idle thread waits for its next job."""


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
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._idle: list[_Mailbox] = []
        self._threads = 0
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Threads with work that nobody waits for any more."""
        return self._abandoned

    async def run(
        self,
        work: Callable[[], T],
        *,
        context: contextvars.Context | None = None,
        until: float | None = None,
    ) -> T:
        """Run `work` in a thread, in `context` or a copy of the caller's; its exception comes out.

        The wait ends at once on cancellation, and with `OverdueError` at `until`, on the clock of
        the event loop. Work that had not begun then is not done; other work goes on unseen.
        """
        job = _Job(work, contextvars.copy_context() if context is None else context)
        self._submit(job)
        timer = None if until is None else job.loop.call_at(until, self._give_up, job)
        try:
            value, error = await job.outcome
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del job
        if error is None:
            return value  # type: ignore[no-any-return]  # what `work` returned
        try:
            raise error
        finally:
            del error  # else it would hold this frame, and the frame it

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._abandoned >= self._limit:
                raise self._stuck()
            if self._idle:
                self._idle.pop().put(job)
            elif self._threads < self._limit:
                mailbox = _Mailbox()
                mailbox.put(job)
                threading.Thread(
                    target=self._serve, args=(mailbox,), name="aether-tool", daemon=True
                ).start()
                self._threads += 1
            else:
                self._waiting.append(job)

    def _give_up(self, job: _Job) -> None:
        self._abandon(job)
        job.settle((None, OverdueError()))

    def _abandon(self, job: _Job) -> None:
        with self._lock:
            if job.ended or job.abandoned:  # its time may be up when its caller is cancelled
                return
            job.abandoned = True
            if not job.started:
                if job in self._waiting:
                    self._waiting.remove(job)
                return
            self._abandoned += 1
            if self._abandoned >= self._limit:
                while self._waiting:
                    waiting = self._waiting.popleft()
                    waiting.result = (None, self._stuck())
                    waiting.tell()

    def _stuck(self) -> ToolError:
        return ToolError(
            f"All {self._limit} threads for tools hang in calls that were given up. Give blocking "
            "tools time limits of their own, or make them async."
        )

    def _serve(self, mailbox: _Mailbox) -> None:
        while job := self._next(mailbox):
            if self._starts(job):
                try:
                    job.result = (job.context.run(job.work), None)
                except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                    job.result = (None, error)
            job.let_go()  # as long as the thread is not free: other work would wait for it
            self._ends(job, mailbox)
            if job.result is not None:
                job.tell()
            del job

    def _next(self, mailbox: _Mailbox) -> _Job | None:
        """The next piece of work, or none if there was nothing to do for a while."""
        try:
            return mailbox.get(timeout=self._idle_seconds)
        except Empty:
            with self._lock:
                if mailbox in self._idle:
                    self._idle.remove(mailbox)
                    self._threads -= 1
                    return None
            return mailbox.get()  # it has come just now

    def _starts(self, job: _Job) -> bool:
        with self._lock:
            job.started = not job.abandoned
            return job.started

    def _ends(self, job: _Job, mailbox: _Mailbox) -> None:
        """Its thread is free before anybody is told, who may have more to do at once."""
        with self._lock:
            job.ended = True
            if job.started and job.abandoned:
                self._abandoned -= 1
            self._is_free(mailbox)

    def _is_free(self, mailbox: _Mailbox) -> None:
        if self._waiting:
            mailbox.put(self._waiting.popleft())
        else:
            self._idle.append(mailbox)


worker_threads = WorkerThreads()
"""The threads of the process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker_threads.forget)
