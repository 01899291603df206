"""Cancelling a flow at every point at which it can be suspended, in one run after another.

A point is a suspension of the flow's task, or of a task that it has started: the coroutine has
handed something to the event loop to wait for. Point 0 is before the flow's first step.

    async def attempt(cancelling: Cancelling) -> None:
        async with Stage() as stage:
            answered = await cancelling.run(stage.flow())
            ...  # judge what is left

    assert await every_point("once", attempt) > 10

Each attempt gets a new run of the flow; the last one is that which was over before its point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Literal, get_args

__all__ = ["WAYS", "Cancelling", "Way", "every_pair_of_points", "every_point", "pause"]

Way = Literal["once", "late", "at once twice", "timeout", "shield"]
"""How a flow is cancelled at its point:

- `once`: while it waits;
- `late`: when that which it waits for has come, and it does not know it yet;
- `at once twice`: two cancellations before it can answer the first;
- `timeout`: the deadline of an `asyncio.timeout` around it comes;
- `shield`: not it is cancelled, but who waits for it behind an `asyncio.shield`.
"""
WAYS: tuple[Way, ...] = get_args(Way)

MOST_POINTS = 500
PATIENCE_SECONDS = 1.0
"""Within this time the cancellation comes out."""


class Cancelling:
    """One run of a flow, cancelled at its point; with `again`, so many suspensions later too."""

    def __init__(self, way: Way, point: int, again: int | None = None) -> None:
        self.point = point
        self._way = way
        self._again = again
        self._seen = 0
        self._strike: Callable[[], object] = lambda: None
        self._ended: Callable[[], bool] = lambda: False
        self.strikes = 0
        """How often it was cancelled."""
        self.reached = False
        """Whether the run came to its point."""
        self.reached_again = False
        """Whether it came to the second one."""

    async def run(self, flow: Coroutine[Any, Any, Any]) -> bool:
        """Run it. Whether it came to its own end; its error is raised, if it has one of its own.

        Asserts that a cancelled flow ends with the cancellation, soon, and with nothing else.
        """
        context = copy_context()
        context.run(_cancelling.set, self)
        if self._way == "shield":
            return await self._behind_a_shield(flow, context)
        if self._way == "timeout":
            flow = self._within_a_timeout(flow)
        task = asyncio.get_running_loop().create_task(flow, context=context)
        self._ended = task.done
        if self._way != "timeout":
            self._strike = task.cancel
        self._begin()
        await _until_done(task)
        if not self.strikes:
            task.result()
            return True
        if self._way == "timeout":
            return task.result() is not _TIMED_OUT
        assert task.cancelled(), f"the cancellation was swallowed: {task!r}"
        return False

    def suspended(self, waited: object) -> None:
        """A task of the flow waits now, for a future or for its next turn."""
        if self._ended():
            return
        self._seen += 1
        if self._seen == self.point:
            self.reached = True
            if self._way == "late" and isinstance(waited, asyncio.Future):
                # Comes before the callback that wakes the task, for this is the earlier one.
                waited.add_done_callback(self._cancel)
            else:
                self._cancel()
        elif self._again is not None and self._seen == self.point + self._again:
            self.reached_again = True
            self._cancel()

    def __repr__(self) -> str:
        return f"Cancelling({self._way!r}, {self.point}, again={self._again})"

    def _begin(self) -> None:
        if self.point == 0:
            self.reached = True
            self._cancel()

    def _cancel(self, _: object = None) -> None:
        if self._ended():
            return
        self.strikes += 1
        self._strike()
        if self._way == "at once twice":
            self._strike()

    async def _within_a_timeout(self, flow: Coroutine[Any, Any, Any]) -> object:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        try:
            async with asyncio.timeout(None) as limit:
                self._strike = lambda: limit.reschedule(loop.time())
                if self.strikes:  # at point 0
                    self._strike()
                result = await flow
                self._ended = lambda: True
            assert not limit.expired(), "the cancellation was swallowed"
        except TimeoutError:
            assert self.strikes, "a TimeoutError, though there was time"
            assert task.cancelling() == 0, "who set the limit cannot go on: a cancellation is left"
            self._ended = lambda: True
            await asyncio.sleep(0)
            return _TIMED_OUT
        finally:
            flow.close()
        return result

    async def _behind_a_shield(self, flow: Coroutine[Any, Any, Any], context: Context) -> bool:
        inner = asyncio.get_running_loop().create_task(flow, context=context)
        outer = asyncio.ensure_future(_shielding(inner))
        self._strike, self._ended = outer.cancel, inner.done
        self._begin()
        await _until_done(outer)
        assert outer.cancelled() == bool(self.strikes)
        await _until_done(inner)
        inner.result()
        return True


async def every_point(way: Way, attempt: Callable[[Cancelling], Awaitable[None]]) -> int:
    """Attempt it at each point in turn. The number of points."""
    return await _sweep(lambda point: Cancelling(way, point), attempt)


async def every_pair_of_points(attempt: Callable[[Cancelling], Awaitable[None]]) -> int:
    """Cancel it at each point in turn, and then at each point that is left, while it deals with the
    first. The number of points.
    """

    async def pairs(first: int) -> None:
        await _sweep(
            lambda later: Cancelling("once", first, again=later + 1),
            attempt,
            reached=lambda each: each.reached_again,
        )

    async def alone_and_again(cancelling: Cancelling) -> None:
        await attempt(cancelling)
        if cancelling.reached:
            await pairs(cancelling.point)

    return await _sweep(lambda point: Cancelling("once", point), alone_and_again)


async def pause() -> None:
    """Wait for something that comes at once, as from a socket: it is there before it is known."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_let_go, future)
    await future


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _sweep(
    make: Callable[[int], Cancelling],
    attempt: Callable[[Cancelling], Awaitable[None]],
    *,
    reached: Callable[[Cancelling], bool] = lambda each: each.reached,
) -> int:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_make_task)
    try:
        for number in range(MOST_POINTS):
            cancelling = make(number)
            try:
                await attempt(cancelling)
            except BaseException as error:
                error.add_note(f"This was {cancelling!r}.")
                raise
            if not reached(cancelling):
                return number
    finally:
        loop.set_task_factory(before)
    raise AssertionError("it does not come to its end")


_TIMED_OUT = object()
_cancelling: ContextVar[Cancelling | None] = ContextVar("cancelling", default=None)


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None
) -> asyncio.Task[Any]:
    cancelling = _cancelling.get() if context is None else context.get(_cancelling)
    if cancelling is not None:
        coroutine = _Watched(coroutine, cancelling)
    return asyncio.Task(coroutine, loop=loop, context=context)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its suspensions."""

    def __init__(self, inner: Coroutine[Any, Any, Any], cancelling: Cancelling) -> None:
        self._inner = inner
        self._cancelling = cancelling

    def send(self, value: Any) -> Any:
        waited = self._inner.send(value)
        self._cancelling.suspended(waited)
        return waited

    def throw(self, *error: Any) -> Any:
        waited = self._inner.throw(*error)
        self._cancelling.suspended(waited)
        return waited

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("a task sends and throws")

    def __getattr__(self, name: str) -> Any:  # its frame and its state, for who looks at tasks
        return getattr(self._inner, name)


async def _shielding(inner: asyncio.Task[Any]) -> Any:
    return await asyncio.shield(inner)


async def _until_done(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    assert task.done(), f"it does not end: {task!r}"
