"""Where a measure finds itself: a library, a server, and how much to do."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.contracts import Client, Subject

Times = Callable[[int], int]
"""A count of what is done at a scale, from what is done at 1."""


def scaled(scale: float, count: int) -> int:
    """So many, scaled; one at least."""
    return max(1, round(count * scale))


@dataclass(frozen=True, slots=True)
class Setting:
    """One library on one server."""

    name: str
    """Of the library, in `SUBJECTS`."""
    origin: str
    """The server's, such as `http://127.0.0.1:8000`."""
    scale: float = 1.0
    """How much of what a measure does by default is done."""
    is_whole: bool = False
    """Whether all is done of what a measure does a part of by default."""

    def times(self, count: int) -> int:
        """So many, scaled; one at least."""
        return scaled(self.scale, count)

    def url(self, behaviour: str = "") -> str:
        """The base URL at which the server does that; see `benchmarks.server`."""
        return f"{self.origin}/{behaviour}/v1" if behaviour else f"{self.origin}/v1"

    @asynccontextmanager
    async def client(self, behaviour: str = "") -> AsyncIterator[Client]:
        """A client of the library, closed afterwards."""
        subject: Subject = importlib.import_module(f"benchmarks.subjects.{self.name}")
        client = subject.client(self.url(behaviour))
        try:
            yield client
        finally:
            await client.close()
