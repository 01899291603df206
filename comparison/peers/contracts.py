"""What the comparison needs of a library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

PROMPT = "What is the weather like in Paris?"
MODELS = {
    "openai": "gpt-4.1-mini",
    "openai.responses": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
    "gemini": "gemini-2.5-flash",
}
"""Models that each library knows: some treat an unknown one differently."""
KEY = "sk-canary-of-the-comparison"
TOOL = "get_weather"
TOOL_DESCRIPTION = "The weather in a city."
TOOL_PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

Heard = Callable[[str], bool]
"""Told each piece of text that is not empty. When it says yes, the loop is left with `break`."""


@dataclass
class Said:
    """What a caller has in hands when the library has raised nothing."""

    text: str
    finish: str | None
    """Why the answer ended, in the library's word; `None` if it says nothing."""


class Caller(Protocol):
    """A client with default settings, pointed at one server and one protocol."""

    async def ask(self) -> Said:
        """One call that is no stream."""

    async def stream(self, heard: Heard, *, tool: bool = False) -> Said:
        """One stream, read to its end or left. With `tool` the model may call one."""

    def tokens(self) -> int | None:
        """The tokens in its accounts; `None` if it keeps none."""

    async def close(self) -> None:
        """Close what it has open."""


class Peer(Protocol):
    """A library, as a module of this folder."""

    DISTRIBUTION: str
    PROTOCOLS: tuple[str, ...]
    ERRORS: tuple[type[BaseException], ...]
    """The classes that its errors are of, as generously as its documentation can be read."""

    def caller(self, protocol: str, url: str) -> Caller:
        """`url` is the base URL that the protocol's own SDK would be given."""
