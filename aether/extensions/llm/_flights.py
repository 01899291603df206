"""Single flight: work that several callers want at once is done once, in a task of its own.

It must not know what the work is. Whoever waits for it reads what it has brought so far, from the
beginning, at a pace of his own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from aether._finishing import finish

__all__ = ["Flight", "Flights"]

T = TypeVar("T")
R = TypeVar("R")

Place = tuple[asyncio.AbstractEventLoop, str]


class Flight(Generic[T, R]):
    """Work under way: its `items` so far, and in the end its `result` or its `error`.

    Whoever has joined it must leave it.
    """

    __slots__ = (
        "_home",
        "_news",
        "_place",
        "_task",
        "ended",
        "error",
        "items",
        "readers",
        "result",
    )

    def __init__(self, home: dict[Place, Flight[T, R]], place: Place) -> None:
        self.items: list[T] = []
        self.result: R | None = None
        """It may be there before the work has ended."""
        self.error: BaseException | None = None
        """What the work has raised; that it was cancelled, too."""
        self.ended = False
        self.readers = 0
        self._home = home
        self._place = place
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_last_reader(self) -> bool:
        """Whether nobody but who asks will get the result any more."""
        return self.ended and self.readers == 1

    def begin(self, work: Callable[[Flight[T, R]], Coroutine[Any, Any, None]]) -> None:
        """Start the work in a task."""
        self._home[self._place] = self
        self._task = asyncio.get_running_loop().create_task(self._do(work))
        self._task.add_done_callback(self._on_end)  # also where it never came to begin

    def add(self, item: T) -> None:
        """Something for the readers."""
        self.items.append(item)
        self._news.set()

    async def news(self) -> None:
        """Wait for another item, or the end. To be called by who has read all that there is."""
        self._news.clear()
        await self._news.wait()

    async def leave(self) -> None:
        """Wait no longer. The last to leave ends work that is still under way, and waits for that.

        Cancelled meanwhile, it waits on for up to a second.
        """
        self.readers -= 1
        if self.readers:
            return
        if self._task is not None and not self._task.done():
            self._forget()
            self._task.cancel()
            await finish(_ended(self._task))
        self.error = None  # it holds the frame of the work, and that this

    async def _do(self, work: Callable[[Flight[T, R]], Coroutine[Any, Any, None]]) -> None:
        try:
            await work(self)
        except Exception as error:  # noqa: BLE001 - it is for the readers
            self.error = error
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._end()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not self.ended:
            self.error = asyncio.CancelledError()
            self._end()
        if not task.cancelled():
            task.exception()  # the readers have it

    def _end(self) -> None:
        self.ended = True
        self._forget()
        self._news.set()

    def _forget(self) -> None:
        """From now on, who comes begins another."""
        if self._home.get(self._place) is self:
            del self._home[self._place]


class Flights(Generic[T, R]):
    """What is under way, by key, in each event loop. Loops share nothing."""

    def __init__(self) -> None:
        self._flights: dict[Place, Flight[T, R]] = {}

    def join(
        self, key: str, work: Callable[[Flight[T, R]], Coroutine[Any, Any, None]]
    ) -> tuple[Flight[T, R], bool]:
        """The flight of this key, and whether it begins here, with `work`."""
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        begins = flight is None
        if flight is None:
            flight = Flight(self._flights, place)
            flight.begin(work)
        flight.readers += 1
        return flight, begins

    def __len__(self) -> int:
        return len(self._flights)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
