"""An event loop in virtual time: it never waits, and a seed says who goes first.

When nothing is ready, time jumps to the next timer. What is ready runs in an order drawn by
`chance`: asyncio runs it first come, first served, but no code may rely on which of two tasks goes
on first. Nothing ready and no timer is a deadlock, which is an error that shows the stuck tasks.
"""

from __future__ import annotations

import asyncio
import heapq
import io
from collections.abc import Iterable
from random import Random
from typing import Any
from weakref import WeakSet

MAX_STEPS = 500_000
"""A seed that takes more is one whose tasks run in a circle: most take some thousands."""


class Stuck(Exception):  # noqa: N818 - it says what the simulation is
    """Nobody can go on, or somebody goes on for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without sockets, signals or threads."""

    # What typeshed leaves out of `BaseEventLoop`.
    _asyncgens: WeakSet[Any]
    _ready: Any
    _scheduled: list[Any]

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self.steps = 0
        self.complaints: list[str] = []
        """What asyncio says that nobody heard: an exception in a callback, or never retrieved."""
        self._now = 0.0
        self._draw = chance.random
        self.set_debug(False)
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Stuck(f"Deadlock: no task can go on.\n{_shown(asyncio.all_tasks(self))}")
            self._now = max(self._now, timers[0].when())
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        chosen = int(self._draw() * len(ready))
        ready[chosen], ready[-1] = ready[-1], ready[chosen]
        handle = ready.pop()
        if not handle.cancelled():
            handle._run()
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Stuck(f"{MAX_STEPS} steps and no end.\n{_shown(asyncio.all_tasks(self))}")

    def _write_to_self(self) -> None:
        """Nothing sleeps here, so nobody need be woken."""

    def _process_events(self, events: object) -> None:
        """There are no sockets."""

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context['message']}: {context.get('exception')!r}")


def _shown(tasks: Iterable[asyncio.Task[Any]]) -> str:
    text = io.StringIO()
    for task in sorted(tasks, key=lambda task: task.get_name()):
        task.print_stack(file=text)
    return text.getvalue()
