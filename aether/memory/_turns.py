"""The order of turns: one at a time, first come, first served.

It must not know what a turn does. A lock of asyncio belongs to one event loop; this queue serves
several, one after another or in threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Self

__all__ = ["Turn", "TurnQueue"]

Owner = Callable[[], object]
"""Says which task or thread a turn belongs to now, if any; a weak reference to one is an owner."""


class _Place:
    """Somebody's place in the queue, at its head while the turn is theirs."""

    __slots__ = ("future", "loop", "owner")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self.loop = loop
        self.owner = owner
        self.future: asyncio.Future[None] | None = None


class Turn:
    """Leave to go. It ends with its `with` block, and at the latest with its last reference:
    a generator that is dropped where no loop can close it takes its turn along.
    """

    __slots__ = ("_place", "_queue")

    def __init__(self, queue: TurnQueue, place: _Place) -> None:
        self._queue = queue
        self._place = place

    def end(self) -> None:
        """Let the next one go; leave the queue, if this turn had not come yet. Twice is fine."""
        self._queue._leave(self._place)  # noqa: SLF001 - a turn is its queue's own token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def __del__(self) -> None:
        self.end()


class TurnQueue:
    """Gives turns in the order in which they were asked for."""

    def __init__(self) -> None:
        # Reentrant, because the collector may end a forgotten turn while this thread is in here.
        self._guard = threading.RLock()
        self._current: _Place | None = None
        self._waiting: deque[_Place] = deque()

    async def take(self, owner: Owner) -> Turn:
        """Wait for a turn. Cancelled while waiting, also just as it comes, it passes it on."""
        place = _Place(asyncio.get_running_loop(), owner)
        turn = Turn(self, place)
        with self._guard:
            self._waiting.append(place)
            if self._current is not None and self._current.loop.is_closed():
                self._current = None  # it can neither go on nor end
            self._advance()
            if self._current is place:
                return turn
            future = place.future = place.loop.create_future()
            if self._current is place:  # the collector ended a turn before there was a future
                return turn
        try:
            await future
        except BaseException:
            turn.end()
            raise
        return turn

    def belongs_to(self, caller: object) -> bool:
        """Whether the turn under way is the caller's, who would wait for its end without end."""
        current = self._current
        return caller is not None and current is not None and current.owner() is caller

    def _leave(self, place: _Place) -> None:
        with self._guard:
            if self._current is place:
                self._current = None
                self._advance()
            elif place in self._waiting:
                self._waiting.remove(place)

    def _advance(self) -> None:
        while self._current is None and self._waiting:
            place = self._current = self._waiting.popleft()
            if place.future is None:  # it has not begun to wait
                return
            try:
                place.loop.call_soon_threadsafe(_wake, place.future)
            except RuntimeError:  # its loop is closed: nobody waits there any more
                self._current = None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
