"""The ways in which a client is asked: whole or as a stream, alone, in a session or by an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, get_args

from aether import Aether, Agent
from aether.llm.contracts import LLMResponse, StreamChunk, ToolCall

__all__ = ["SESSION", "WAYS", "Way", "calling", "get_answer", "saying"]

Way = Literal["ask", "stream", "session", "session stream", "agent", "agent stream"]
WAYS: tuple[Way, ...] = get_args(Way)

SESSION = "s"


async def get_answer(client: Aether, way: Way, prompt: str = "go", **options: Any) -> LLMResponse:
    """The last turn's response; sessions are that of the id `SESSION`."""
    asked: Any = client
    response: LLMResponse
    if way.startswith("session"):
        asked = client.session(SESSION)
    elif way.startswith("agent"):
        asked = Agent("asked", client=client)
    if way == "agent":
        response = (await asked.run(prompt, **options)).response
    elif way.endswith("stream"):
        response = await _last(asked.stream(prompt, **options))
    else:
        response = await asked.complete(prompt, **options)
    return response


async def _last(stream: AsyncIterator[StreamChunk]) -> LLMResponse:
    chunks = [chunk async for chunk in stream]
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    final = chunks[-1].response
    assert final is not None
    return final


def calling(*calls: ToolCall, text: str = "", model: str = "m", **fields: Any) -> LLMResponse:
    """An answer that calls tools."""
    counts = {"input_tokens": 10, "output_tokens": 5, "finish_reason": "tool_calls"}
    return LLMResponse(text, model, tool_calls=list(calls), **{**counts, **fields})


def saying(text: str = "done", *, model: str = "m", **fields: Any) -> LLMResponse:
    """An answer in text."""
    counts = {"input_tokens": 10, "output_tokens": 5, "finish_reason": "stop"}
    return LLMResponse(text, model, **{**counts, **fields})
