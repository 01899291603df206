"""Answers as Gemini gives them, written by hand, and a provider that gets them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aether.extensions.llm.gemini import GeminiProvider
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

KEY = "AIza-canary-0123456789"
USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}


def provider(transport: ScriptedTransport, model: str = "gemini-3.8-flash") -> GeminiProvider:
    return GeminiProvider(KEY, model, transport=transport)


def request(*messages: Message, **fields: Any) -> LLMRequest:
    return LLMRequest(messages or [Message("user", "How are you today?")], **fields)


def answer(*parts: Any, finish: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """A whole answer, or a chunk of one. A text stands for a part with it."""
    wired = [{"text": part} if isinstance(part, str) else part for part in parts]
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": wired}}
    if finish is not None:
        candidate["finishReason"] = finish
    candidate |= fields.pop("candidate", {})
    made = {
        "candidates": [candidate],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-told",
        "responseId": "answer-1",
    }
    return {**made, **fields}


def call(
    name: str = "add", args: Any = None, *, id: str | None = None, signature: str | None = None
) -> dict[str, Any]:
    function = {"name": name, "args": {} if args is None else args}
    if id is not None:
        function["id"] = id
    signed = {} if signature is None else {"thoughtSignature": signature}
    return {"functionCall": function, **signed}


def signed(text: str, signature: str) -> dict[str, Any]:
    return {"text": text, "thoughtSignature": signature}


def thought(text: str) -> dict[str, Any]:
    return {"text": text, "thought": True}


def sse(*values: Any, end: str = "\r\n\r\n") -> bytes:
    """The body of a stream, with the line ends that Gemini sends."""
    return "".join(f"data: {json.dumps(value)}{end}" for value in values).encode()


async def read(stream: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


async def complete(transport: ScriptedTransport, value: Any, **fields: Any) -> LLMResponse:
    """The response that stands for an answer."""
    transport.answers_json(value)
    return await provider(transport).complete(request(**fields))


async def stream(
    transport: ScriptedTransport, *values: Any, **fields: Any
) -> tuple[list[StreamChunk], LLMResponse]:
    """The chunks of a stream, and its response."""
    transport.answers(sse(*values))
    chunks = await read(provider(transport).stream(request(**fields)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    response = chunks[-1].response
    assert response is not None
    return chunks, response


async def sent_back(
    transport: ScriptedTransport, *messages: Message, model: str = "gemini-3.8-flash"
) -> list[dict[str, Any]]:
    """The contents of a call with these messages."""
    transport.answers_json(answer("ok"))
    await provider(transport, model).complete(request(*messages))
    contents: list[dict[str, Any]] = transport.calls[-1].body["contents"]
    return contents
