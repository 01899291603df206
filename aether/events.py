"""Events: what happens in a run, told to whoever subscribed.

It must not know who publishes. No subscriber can change a result: its exceptions are logged, what
it is told is its own to change, and one that takes longer than a second goes on as a task.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeVar

from aether.errors import ConfigurationError
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk, ToolCall

__all__ = [
    "EVENT_NAMES",
    "REQUEST_COMPLETE",
    "REQUEST_ERROR",
    "REQUEST_START",
    "STREAM_CHUNK",
    "STREAM_COMPLETE",
    "STREAM_ERROR",
    "STREAM_START",
    "TOOL_COMPLETE",
    "TOOL_ERROR",
    "TOOL_START",
    "Event",
    "EventBus",
    "Subscriber",
]

REQUEST_START: Final = "request.start"
REQUEST_COMPLETE: Final = "request.complete"
REQUEST_ERROR: Final = "request.error"
STREAM_START: Final = "stream.start"
STREAM_CHUNK: Final = "stream.chunk"
STREAM_COMPLETE: Final = "stream.complete"
STREAM_ERROR: Final = "stream.error"
TOOL_START: Final = "tool.start"
TOOL_COMPLETE: Final = "tool.complete"
TOOL_ERROR: Final = "tool.error"

EVENT_NAMES: Final = (
    REQUEST_START,
    REQUEST_COMPLETE,
    REQUEST_ERROR,
    STREAM_START,
    STREAM_CHUNK,
    STREAM_COMPLETE,
    STREAM_ERROR,
    TOOL_START,
    TOOL_COMPLETE,
    TOOL_ERROR,
)

SLOW_SUBSCRIBER_SECONDS = 1.0

_log = logging.getLogger("aether.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. Fields that do not apply are `None`.

    The request, the response, the chunk and the call are copies: what a subscriber changes in them
    reaches the other subscribers at most, never the run.
    """

    name: str
    run_id: str
    """One per `ask`, `complete`, `stream`, session turn or agent run; its events share it."""
    parent_run_id: str | None = None
    """The run whose tool call delegated to this one."""
    call_id: str | None = None
    """One per provider call or tool call: ties a start to its end. That of a tool call is the
    model's, which tells apart the calls of one `turn`."""
    turn: int | None = None
    """The turn of the tool loop, from 1."""
    agent: str | None = None
    session_id: str | None = None
    request: LLMRequest | None = None
    response: LLMResponse | None = None
    chunk: StreamChunk | None = None
    call: ToolCall | None = None
    result: Any = None
    """The `ToolResult`."""
    error: BaseException | None = None
    cancelled: bool = False
    duration_seconds: float | None = None
    """Since the start event of the same call."""


Subscriber = Callable[[Event], Awaitable[object] | object]
S = TypeVar("S", bound=Callable[[Event], Any])


class EventBus:
    """Subscribers by event name. It can be shared between clients.

    Subscribers are called on the event loop, one after another: one that is not async should
    return at once, since the loop stands still meanwhile; that it did for a second is logged.
    """

    def __init__(self) -> None:
        self._subscribers: dict[str, tuple[Subscriber, ...]] = {}
        self._lock = threading.Lock()
        self._background: set[asyncio.Future[Any]] = set()

    def subscribe(self, event_name: str, callback: Subscriber) -> Callable[[], None]:
        """Call `callback`, sync or async, with each such event. Returns what unsubscribes it."""
        _check_name(event_name)
        if not callable(callback):
            raise TypeError("a subscriber must be callable")
        with self._lock:
            self._subscribers[event_name] = (*self._subscribers.get(event_name, ()), callback)
        active = True

        def unsubscribe() -> None:
            nonlocal active
            with self._lock:
                if not active:
                    return
                active = False
                remaining = list(self._subscribers.get(event_name, ()))
                for index, present in enumerate(remaining):
                    if present is callback:
                        del remaining[index]
                        break
                if remaining:
                    self._subscribers[event_name] = tuple(remaining)
                else:
                    self._subscribers.pop(event_name, None)

        return unsubscribe

    def on(self, event_name: str) -> Callable[[S], S]:
        """A decorator that subscribes a callback and returns it unchanged."""
        _check_name(event_name)

        def decorate(callback: S) -> S:
            self.subscribe(event_name, callback)
            return callback

        return decorate

    def wants(self, event_name: str) -> bool:
        """Whether anybody listens: without a listener no event need be made."""
        return event_name in self._subscribers

    async def publish(self, event: Event) -> None:
        """Await the event's subscribers, in the order of subscription.

        What one raises is logged, `KeyboardInterrupt` and `SystemExit` aside. One that is not
        done after a second goes on as a task, with a warning, and the next one is called. If the
        caller is cancelled meanwhile, the rest is delivered in the background.
        """
        subscribers = self._subscribers.get(event.name)
        if subscribers:
            await self._deliver(event, subscribers)

    async def _deliver(self, event: Event, subscribers: Sequence[Subscriber]) -> None:
        for index, callback in enumerate(subscribers):
            called = perf_counter()
            try:
                outcome = callback(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - no subscriber can fail a run
                _log.exception("a subscriber of %s failed", event.name)
                continue
            finally:
                if perf_counter() - called >= SLOW_SUBSCRIBER_SECONDS:
                    _log.warning(
                        "a subscriber of %s held up the event loop for more than %s s: make it "
                        "async, or hand its work to a thread",
                        event.name,
                        SLOW_SUBSCRIBER_SECONDS,
                    )
            if not inspect.isawaitable(outcome):
                continue
            task = asyncio.ensure_future(outcome)
            try:
                done, _ = await asyncio.wait({task}, timeout=SLOW_SUBSCRIBER_SECONDS)
            except asyncio.CancelledError:
                self._keep(task, event)
                rest = subscribers[index + 1 :]
                if rest:
                    self._keep(asyncio.ensure_future(self._deliver(event, rest)), event)
                raise
            if done:
                _report(task, event)
            else:
                _log.warning(
                    "a subscriber of %s takes longer than %s s and goes on in the background",
                    event.name,
                    SLOW_SUBSCRIBER_SECONDS,
                )
                self._keep(task, event)

    def _keep(self, task: asyncio.Future[Any], event: Event) -> None:
        self._background.add(task)

        def finish(done: asyncio.Future[Any]) -> None:
            self._background.discard(done)
            try:
                _report(done, event)
            except (KeyboardInterrupt, SystemExit):
                return  # the loop has raised it already, and is being wound up

        task.add_done_callback(finish)


def _check_name(event_name: str) -> None:
    if event_name not in EVENT_NAMES:
        raise ConfigurationError(f"Unknown event {event_name!r}. Known: {', '.join(EVENT_NAMES)}.")


def _report(task: asyncio.Future[Any], event: Event) -> None:
    if task.cancelled():
        _log.error("a subscriber of %s was cancelled before its end", event.name)
        return
    error = task.exception()
    if error is None:
        return
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    _log.error("a subscriber of %s failed", event.name, exc_info=error)
