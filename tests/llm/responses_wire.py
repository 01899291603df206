"""What a server of the Responses API says, written by hand: items, answers and their events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aether.extensions.llm.openai import OpenAIProvider
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

KEY = "sk-canary-0123456789"
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 29,
}

Item = dict[str, Any]


def message(*texts: str, **fields: Any) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    made = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
    return {**made, "content": content, **fields}


def reasoning(*summaries: str, **fields: Any) -> Item:
    summary = [{"type": "summary_text", "text": text} for text in summaries]
    made: Item = {"type": "reasoning", "id": "rs_1", "summary": summary}
    return {**made, "encrypted_content": "gAAAA-opaque", **fields}


def call(arguments: str = '{"a":1}', **fields: Any) -> Item:
    made = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add"}
    return {**made, "status": "completed", "arguments": arguments, **fields}


def answer(*output: Item, **fields: Any) -> dict[str, Any]:
    made = {"id": "resp_1", "object": "response", "status": "completed", "model": "told-model"}
    empty = {"error": None, "incomplete_details": None}
    return {**made, **empty, "output": list(output), "usage": USAGE, **fields}


def cut(*output: Item, reason: str | None = "max_output_tokens") -> dict[str, Any]:
    return answer(*output, status="incomplete", incomplete_details={"reason": reason})


def events(whole: dict[str, Any], *, size: int = 3) -> list[dict[str, Any]]:
    """The events that OpenAI sends for an answer, its texts in pieces of that size."""
    opening = {**whole, "status": "in_progress", "output": [], "usage": None}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": opening},
        {"type": "response.in_progress", "response": opening},
    ]
    for index, item in enumerate(whole["output"]):
        told += ({"output_index": index, **event} for event in _item_events(item, size))
    told.append({"type": f"response.{whole['status']}", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def _item_events(item: Item, size: int) -> Iterator[dict[str, Any]]:
    empty = {"arguments": "", "input": "", "content": [], "summary": []}
    begun = {name: empty.get(name, value) for name, value in item.items()}
    yield {"type": "response.output_item.added", "item": {**begun, "status": "in_progress"}}
    of_it = {"item_id": item.get("id")}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        yield from ({**event, **of_it} for event in _pieces(kind, "arguments", item, size))
    elif item["type"] == "custom_tool_call":
        kind = "response.custom_tool_call_input"
        yield from ({**event, **of_it} for event in _pieces(kind, "input", item, size))
    for place, part in enumerate(item.get("summary", ())):
        where = {**of_it, "summary_index": place}
        yield {"type": "response.reasoning_summary_part.added", **where, "part": part}
        kind = "response.reasoning_summary_text"
        yield from ({**event, **where} for event in _pieces(kind, "text", part, size))
    for place, part in enumerate(item.get("content", ())):
        where = {**of_it, "content_index": place}
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        kind = f"response.{part['type']}"
        field = "refusal" if part["type"] == "refusal" else "text"
        yield from ({**event, **where} for event in _pieces(kind, field, part, size))
        yield {"type": "response.content_part.done", **where, "part": part}
    yield {"type": "response.output_item.done", "item": item}


def _pieces(kind: str, field: str, holder: Item, size: int) -> Iterator[dict[str, Any]]:
    text = holder[field]
    for start in range(0, len(text), size):
        yield {"type": f"{kind}.delta", "delta": text[start : start + size], "obfuscation": "xyz"}
    yield {"type": f"{kind}.done", field: text}


def sse(*told: Any, named: bool = True) -> bytes:
    """The events as bytes; a text is written as it is."""
    lines = []
    for event in told:
        if isinstance(event, str):
            lines.append(event)
            continue
        name = f"event: {event['type']}\n" if named and "type" in event else ""
        lines.append(f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n")
    return "".join(lines).encode()


def provider(transport: ScriptedTransport, model: str = "gpt-x", **options: Any) -> OpenAIProvider:
    return OpenAIProvider(KEY, model, transport=transport, **options)


def request(*messages: Message, **fields: Any) -> LLMRequest:
    return LLMRequest(messages or [Message("user", "What is 17 + 25?")], **fields)


async def complete(
    transport: ScriptedTransport, whole: Any, asked: LLMRequest | None = None
) -> LLMResponse:
    """What the provider makes of a body."""
    transport.answers_json(whole)
    return await provider(transport).complete(asked or request())


async def stream(
    transport: ScriptedTransport, *pieces: bytes | BaseException
) -> tuple[list[StreamChunk], LLMResponse]:
    """What the provider makes of a stream; the deltas of its chunks join to the response."""
    transport.answers(*pieces)
    chunks = [chunk async for chunk in provider(transport).stream(request())]
    response = chunks[-1].response
    assert response is not None
    assert "".join(chunk.text for chunk in chunks) == response.text
    assert "".join(chunk.reasoning or "" for chunk in chunks) == (response.reasoning or "")
    return chunks, response


async def both(transport: ScriptedTransport, whole: dict[str, Any]) -> LLMResponse:
    """The response, which is the same whether it is streamed or not."""
    response = await complete(transport, whole)
    _, streamed = await stream(transport, sse(*events(whole)))
    assert streamed == response
    return response


async def sent(transport: ScriptedTransport, asked: LLMRequest, **options: Any) -> dict[str, Any]:
    """The body that is sent for a request."""
    transport.answers_json(answer(message("Hello")))
    await provider(transport, **options).complete(asked)
    body: dict[str, Any] = transport.calls[-1].body
    return body
