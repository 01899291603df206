"""OpenAI's Responses, as OpenAI writes them.

It must not know an adapter. The shapes are those of OpenAI's API reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aether.http.contracts import HTTPResponse
from aether.llm.contracts import TokenUsage
from aether.testing.wires.contracts import (
    Failure,
    Feature,
    Reply,
    Wire,
    WireRequest,
    WireStream,
    arguments_text,
    known,
    pieces,
    server_sent_event,
)
from aether.testing.wires.openai_chat import OPENAI_ERRORS, openai_error

__all__ = ["OpenAIResponsesWire"]

Event = dict[str, Any]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class OpenAIResponsesWire(Wire):
    """Responses. A reply's signature is the `encrypted_content` of its item of reasoning."""

    cannot: frozenset[Feature] = frozenset({"tool_calls_without_a_call"})
    request_id_header = "x-request-id"

    def wants_stream(self, request: WireRequest) -> bool:
        return request.json.get("stream") is True

    def body(self, reply: Reply, request: WireRequest) -> bytes:  # noqa: ARG002 - the port's
        return json.dumps(_response(reply, _ended(reply)), ensure_ascii=False).encode()

    def stream(self, reply: Reply, request: WireRequest) -> WireStream:  # noqa: ARG002 - as above
        events = [
            server_sent_event({**event, "sequence_number": number}, name=event["type"])
            for number, event in enumerate(_events(reply))
        ]
        kinds = [event["type"] for event in _events(reply)]
        texts = [n for n, kind in enumerate(kinds, 1) if kind == "response.output_text.delta"]
        return WireStream(events, len(events), texts)

    def error(
        self, failure: Failure, message: str, *, retry_after: int | None = None
    ) -> HTTPResponse:
        answer = openai_error(failure, message, retry_after)
        if failure == "not_found":  # of a model: here it is a 400, with the same code
            return HTTPResponse(400, answer.headers, answer.body)
        return answer

    def error_event(self, failure: Failure, message: str) -> bytes:
        event = {"type": "error", "code": _code(failure), "message": message, "param": None}
        return server_sent_event({**event, "sequence_number": 99}, name="error")

    def error_in_body(self, failure: Failure, message: str) -> bytes:
        error = {"code": _code(failure), "message": message}
        return json.dumps(_response(Reply(), {"status": "failed", "error": error})).encode()


def _code(failure: Failure) -> str:
    _, kind, code = OPENAI_ERRORS[failure]
    return code or kind


def _ended(reply: Reply) -> dict[str, Any]:
    reason = reply.finish_raw or _INCOMPLETE.get(reply.reason)
    if reason is None:
        return {"status": "completed"}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def _response(reply: Reply, facts: dict[str, Any], *, begun: bool = False) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1764000000,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": reply.model,
        "output": [] if begun else list(_items(reply)),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "tool_choice": "auto",
        "usage": None if begun or reply.usage is None else _usage(reply.usage),
        **facts,
    }


def _items(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.reasoning or reply.signature:
        item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
        if reply.reasoning:
            item["summary"] = [{"type": "summary_text", "text": reply.reasoning}]
        yield {**item, "encrypted_content": reply.signature} if reply.signature else item
    whole = "incomplete" if reply.reason == "length" else "completed"
    if reply.text or not reply.calls:
        yield {
            "id": "msg_1",
            "type": "message",
            "status": "completed" if reply.calls else whole,
            "role": "assistant",
            "content": [_part(reply.text)],
        }
    for number, call in enumerate(reply.calls, 1):
        yield {
            "id": f"fc_{number}",
            "type": "function_call",
            "status": "completed" if call.invalid_arguments is None else whole,
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_text(call),
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _events(reply: Reply) -> Iterator[Event]:
    beginning = _response(reply, {"status": "in_progress"}, begun=True)
    yield {"type": "response.created", "response": beginning}
    yield {"type": "response.in_progress", "response": beginning}
    for index, item in enumerate(_items(reply)):
        place = {"output_index": index}
        begun = {**item, "status": "in_progress"}
        if item["type"] == "reasoning":
            yield {"type": "response.output_item.added", **place, "item": _without(item)}
            yield from _of_reasoning(reply, {**place, "item_id": item["id"]})
        elif item["type"] == "message":
            begun["content"] = []
            yield {"type": "response.output_item.added", **place, "item": begun}
            yield from _of_text(reply.text, {**place, "item_id": item["id"], "content_index": 0})
        else:
            begun["arguments"] = ""
            yield {"type": "response.output_item.added", **place, "item": begun}
            yield from _of_call(item["arguments"], {**place, "item_id": item["id"]})
        yield {"type": "response.output_item.done", **place, "item": item}
    ended = _ended(reply)
    yield {"type": f"response.{ended['status']}", "response": _response(reply, ended)}


def _without(item: dict[str, Any]) -> dict[str, Any]:
    begun = {**item, "summary": []}
    if "encrypted_content" in begun:
        begun["encrypted_content"] = ""  # whole only when the item is done
    return begun


def _of_reasoning(reply: Reply, place: Event) -> Iterator[Event]:
    if not reply.reasoning:
        return
    place = {**place, "summary_index": 0}
    name = "response.reasoning_summary"
    part = {"type": "summary_text", "text": ""}
    yield {"type": f"{name}_part.added", **place, "part": part}
    for piece in pieces(reply.reasoning):
        yield {"type": f"{name}_text.delta", **place, "delta": piece}
    yield {"type": f"{name}_text.done", **place, "text": reply.reasoning}
    yield {"type": f"{name}_part.done", **place, "part": {**part, "text": reply.reasoning}}


def _of_text(text: str, place: Event) -> Iterator[Event]:
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for piece in pieces(text):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _part(text)}


def _of_call(arguments: str, place: Event) -> Iterator[Event]:
    for piece in pieces(arguments):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}


def _usage(usage: TokenUsage) -> dict[str, Any]:
    total = None
    if usage.input_tokens is not None and usage.output_tokens is not None:
        total = usage.input_tokens + usage.output_tokens
    read = known(cached_tokens=usage.cache_read_tokens, cache_write_tokens=usage.cache_write_tokens)
    written = known(reasoning_tokens=usage.reasoning_tokens)
    return known(
        input_tokens=usage.input_tokens,
        input_tokens_details=read or None,
        output_tokens=usage.output_tokens,
        output_tokens_details=written or None,
        total_tokens=total,
    )
