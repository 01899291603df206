"""What the tests of requests stand on: sending one, and looking for marked words in what was sent.

It must not know a protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aether.errors import InputError
from aether.llm.contracts import LLMRequest, Message
from aether.testing._provider_tests.harness import HELLO, AdapterHarness, outcome
from aether.testing.wires import WireRequest
from aether.tools.contracts import Tool

__all__ = ["LOOK_UP", "USER", "SendingHarness", "holds", "times"]

USER = Message(role="user", content="What is 1 + 2?")
LOOK_UP = Tool(
    name="look_up_word",
    description="Looks a word up.",
    parameters={
        "type": "object",
        "properties": {"the_word": {"type": "string", "description": "Which word."}},
        "required": ["the_word"],
    },
    handler=lambda the_word: the_word,
)
"""A tool that is offered beside `add`."""


class SendingHarness(AdapterHarness):
    """Inherit from it with tests."""

    async def _sent(self, request: LLMRequest, streaming: bool) -> WireRequest:
        """The one request that reached the server."""
        sent = await self._taken(request, streaming)
        assert sent is not None, "it was refused with an InputError"
        return sent

    async def _taken(self, request: LLMRequest, streaming: bool) -> WireRequest | None:
        """As above; `None` if it was refused with an `InputError`, and nothing was sent."""
        async with self._serving(HELLO) as (provider, server):
            came = await outcome(provider, request, streaming=streaming)
        if isinstance(came.error, InputError):
            assert not server.requests, "it was refused after it had been sent"
            return None
        came.succeeded()
        assert len(server.requests) == 1
        return server.requests[0]

    async def _is_refused(self, request: LLMRequest, streaming: bool) -> None:
        async with self._serving(HELLO) as (provider, server):
            came = await outcome(provider, request, streaming=streaming)
        assert isinstance(came.error, InputError), f"no InputError, but {came!r}"
        assert not server.requests, "it was sent"


def holds(sent: WireRequest, text: str) -> bool:
    """Whether a text of the body, or a name in it, has the text in it."""
    return times(sent, text) > 0


def times(sent: WireRequest, text: str) -> int:
    """How often the text is in the texts of the body, and in the names in it."""
    return sum(each.count(text) for each in _texts(json.loads(sent.body)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)
