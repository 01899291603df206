"""What is asked of each library, and what a measure is made of.

It must import nothing but the standard library, and little of it: it is loaded in the environment
of each library, and before a first call is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

MODEL = "gpt-4o-mini"
KEY = "sk-of-the-benchmarks"
PROMPT = "What is 17 + 25? Say the number."
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
"""The tool below, for those who are given a schema and no function."""


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


Heard = Callable[[str], object]
"""Told each piece of text that is not empty."""


class Client(Protocol):
    """One client of a library, made as its README says, and used again for each call."""

    async def call(self, prompt: str = PROMPT) -> str:
        """The text that answers the prompt."""
        ...

    async def stream(self, heard: Heard, prompt: str = PROMPT) -> None:
        """The same as a stream, to its end."""
        ...

    async def tool(self, turns: int | None = None) -> str:
        """The text after calls of `add`. `turns` is told to a library that has a limit of them."""
        ...

    def agent(self) -> object:
        """A new agent with one tool, over this client; `None` if the library has no agents."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Subject(Protocol):
    """A library, as a module of the folder `subjects`."""

    def client(self, url: str) -> Client:
        """A client of the server at this base URL, which ends in `/v1`."""
        ...


class Figure(NamedTuple):
    """One number that a measure yields, as it stands in a table."""

    key: str
    title: str
    unit: str = "µs"
    digits: int = 0

    @property
    def is_time(self) -> bool:
        """Whether a slow moment of the machine makes it larger."""
        return self.unit in ("µs", "ms")

    @property
    def is_size(self) -> bool:
        """Whether it says anything to divide it by another library's."""
        return self.is_time or self.unit in ("KiB", "MB", "modules")


Values = dict[str, float]
"""What a measure has found, by the keys of its figures."""


class CannotMeasureError(Exception):
    """This cannot be measured here, or not of this library; the message says why."""
