"""The calls to one model that wait for their start: first come, first served.

It must not know a provider, nor what a call is beyond what it needs and when it is due.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from aether.extensions.llm._rate import Need, Rate
from aether.extensions.llm._rate_headers import Told

__all__ = ["NoPlaceError", "Place", "RateQueue"]

LONGEST_SLEEP = 3600.0
"""Seconds: who waits for longer looks again then."""
SHORTEST_SLEEP = 0.001
"""Seconds: a clock that does not move is not asked all the time."""
BEHIND_SLEEP = 0.1
"""Seconds: who stands behind another, whose loop may be blocked, is woken when that one leaves."""


class NoPlaceError(Exception):
    """A call is not started: as many wait as may, or it is due before its turn (`late`).

    So many wait before it, and its turn would come in so many seconds, at the earliest.
    """

    def __init__(self, waiting: int, seconds: float, *, late: bool) -> None:
        super().__init__()
        self.waiting = waiting
        self.seconds = seconds
        self.late = late


class Place:
    """Somebody's place in the queue."""

    __slots__ = ("due", "future", "loop", "need")

    def __init__(self, need: Need, due: float | None) -> None:
        self.need = need
        self.due = due
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()


class RateQueue:
    """Starts calls in the order in which they came, each as soon as the rate allows.

    Who stands at the head waits for the time, and all others for the head: a call that needs much
    is not overtaken by those that need less. A place is left with the wait, however that ends, and
    those behind move up. Event loops and threads may share it.
    """

    def __init__(
        self,
        rate: Rate,
        *,
        max_waiting: int,
        clock: Callable[[], float],
        timeout: Callable[[float], asyncio.Timeout],
    ) -> None:
        self._rate = rate
        self._max_waiting = max_waiting
        self._clock = clock
        self._timeout = timeout
        # Reentrant, because the collector may end a forgotten call while this thread is in here.
        self._guard = threading.RLock()
        self._places: deque[Place] = deque()
        self._ahead = Need()
        """What all that wait need together."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._places)

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a call needs."""
        return self._rate.counts_tokens

    @property
    def output(self) -> float:
        """The tokens of an average answer."""
        return self._rate.output

    def start(self, need: Need, due: float | None) -> int | Place:
        """Start a call now, and say in which round; or give it a place, which `wait` waits in.

        `NoPlaceError` if it can get none. `due` is when the call must have ended.
        """
        with self._guard:
            now = self._clock()
            self._forget_closed_loops()
            seconds = self._rate.wait(need, self._ahead, now)
            if due is not None and now + seconds >= due:
                raise NoPlaceError(len(self._places), seconds, late=True)
            if not self._places and not seconds:
                return self._take(need, now)
            if len(self._places) >= self._max_waiting:
                raise NoPlaceError(len(self._places), seconds, late=False)
            place = Place(need, due)
            self._places.append(place)
            self._ahead.add(need)
            return place

    async def wait(self, place: Place, agreed: Callable[[], None] | None = None) -> int:
        """Wait until the call may start; the round in which it does. `NoPlaceError` as soon as it
        is known that this comes too late.

        `agreed` is called when its turn has come, and raises where it is not to start any more:
        then it takes nothing.
        """
        try:
            while True:
                started, seconds = self._look(place, agreed)
                if started is not None:
                    return started
                with suppress(TimeoutError):
                    async with self._timeout(seconds):
                        await place.future
        except BaseException:
            with self._guard:
                self._leave(place)
            raise

    def correct(self, need: Need, tokens: float | None) -> None:
        """A call has ended that had taken so much, and used that many tokens, if it is known."""
        with self._guard:
            if tokens is not None:
                self._rate.correct(need, tokens, self._clock())
                self._wake_head()

    def learn_output(self, tokens: float) -> None:
        with self._guard:
            self._rate.learn_output(tokens)

    def seen(self, need: Need) -> None:
        """The provider has counted a call, or never will."""
        with self._guard:
            self._rate.seen(need)

    def learn(self, told: Mapping[str, Told]) -> None:
        """The provider says what it allows."""
        with self._guard:
            self._rate.learn(told, self._clock())
            self._wake_changed()

    def refused(self, round_: int, retry_after: float | None) -> None:
        """The provider refused a call that started in that round."""
        with self._guard:
            self._rate.refused(round_, retry_after, self._clock())
            self._wake_changed()

    def succeeded(self, round_: int) -> None:
        """The provider served it."""
        with self._guard:
            self._rate.succeeded(round_, self._clock())
            self._wake_head()

    def _take(self, need: Need, now: float) -> int:
        self._rate.take(need, now)
        return self._rate.round

    def _look(self, place: Place, agreed: Callable[[], None] | None) -> tuple[int | None, float]:
        """Start the call if it may; else how long to wait before looking again."""
        with self._guard:
            now = self._clock()
            self._forget_closed_loops()
            head = self._places[0] is place
            before = Need() if head else self._before(place)
            seconds = self._rate.wait(place.need, before, now)
            if place.due is not None and now + seconds >= place.due:
                raise NoPlaceError(round(before.requests), seconds, late=True)
            if head and not seconds:
                if agreed is not None:
                    agreed()
                self._leave(place)
                return self._take(place.need, now), 0.0
            if place.future.done():
                place.future = place.loop.create_future()
            if not head:
                seconds = max(seconds, BEHIND_SLEEP)
            if place.due is not None:
                seconds = min(seconds, place.due - now)
            return None, min(max(seconds, SHORTEST_SLEEP), LONGEST_SLEEP)

    def _before(self, place: Place) -> Need:
        before = Need()
        if self._places[-1] is place:  # it has just come: thousands may stand before it
            before.add(self._ahead)
            before.add(place.need, -1)
            return before
        for each in tuple(self._places):
            if each is place:
                break
            before.add(each.need)
        return before

    def _leave(self, place: Place) -> None:
        if place not in self._places:
            return
        head = self._places[0] is place
        self._places.remove(place)
        self._ahead.add(place.need, -1)
        if not self._places:
            self._ahead = Need()
        elif head:
            self._wake_head()

    def _wake_head(self) -> None:
        if self._places:
            _wake(self._places[0])

    def _wake_changed(self) -> None:
        """It may go faster, or take longer than some may wait."""
        if not self._places:
            return
        now, before = self._clock(), Need()
        for place in tuple(self._places):
            if place.due is not None and (
                now + self._rate.wait(place.need, before, now) >= place.due
            ):
                _wake(place)
            before.add(place.need)
        self._wake_head()

    def _forget_closed_loops(self) -> None:
        """Nobody waits there any more, and nobody has left."""
        while self._places and self._places[0].loop.is_closed():
            self._leave(self._places[0])


def _wake(place: Place) -> None:
    with suppress(RuntimeError):  # its loop is closed
        place.loop.call_soon_threadsafe(_settle, place.future)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
