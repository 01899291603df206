"""Anthropic's Messages, as Anthropic writes them.

It must not know an adapter. The shapes are those of Anthropic's API reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aether.http.contracts import HTTPResponse
from aether.llm.contracts import TokenUsage, ToolCall
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

__all__ = ["AnthropicWire"]

_FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERRORS: Mapping[Failure, tuple[int, str]] = {
    "bad_request": (400, "invalid_request_error"),
    "authentication": (401, "authentication_error"),
    "permission": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "context_length": (400, "invalid_request_error"),
    "rate_limit": (429, "rate_limit_error"),
    "quota": (402, "billing_error"),
    "overloaded": (529, "overloaded_error"),
    "server": (500, "api_error"),
}


class AnthropicWire(Wire):
    """Messages. A reply's signature is that of its block of thinking."""

    # The arguments of a call are an object wherever an answer is no stream.
    cannot: frozenset[Feature] = frozenset({"whole_cut_arguments"})
    request_id_header = "request-id"

    def wants_stream(self, request: WireRequest) -> bool:
        return request.json.get("stream") is True

    def body(self, reply: Reply, request: WireRequest) -> bytes:  # noqa: ARG002 - the port's
        content = [*_said(reply), *(_tool_use(call, call.arguments) for call in reply.calls)]
        message = _message(reply, content, stop_reason=_finish(reply))
        if reply.usage is not None:
            message["usage"] = {**_input(reply.usage), **_output(reply.usage)}
        return json.dumps(message, ensure_ascii=False).encode()

    def stream(self, reply: Reply, request: WireRequest) -> WireStream:  # noqa: ARG002 - as above
        told = [*_beginning(reply), *_blocks(reply), *_end(reply)]
        events = [server_sent_event(event, name=event["type"]) for event in told]
        texts = [number for number, event in enumerate(told, 1) if "text" in event.get("delta", ())]
        return WireStream(events, len(events) - 1, texts)

    def error(
        self, failure: Failure, message: str, *, retry_after: int | None = None
    ) -> HTTPResponse:
        status, _ = _ERRORS[failure]
        headers = {"content-type": "application/json"}
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        body = {**_error(failure, message), "request_id": "req_1"}
        return HTTPResponse(status, headers, json.dumps(body).encode())

    def error_event(self, failure: Failure, message: str) -> bytes:
        return server_sent_event(_error(failure, message), name="error")


def _error(failure: Failure, message: str) -> dict[str, Any]:
    if failure == "context_length":  # told by its words alone
        message = f"prompt is too long: 1200000 tokens > 1000000 maximum. {message}"
    return {"type": "error", "error": {"type": _ERRORS[failure][1], "message": message}}


def _finish(reply: Reply) -> str:
    return reply.finish_raw or _FINISH[reply.reason]


def _message(reply: Reply, content: list[Any], *, stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }


def _said(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.reasoning or reply.signature:
        yield {"type": "thinking", "thinking": reply.reasoning, "signature": reply.signature}
    if reply.text:
        yield {"type": "text", "text": reply.text}


def _tool_use(call: ToolCall, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(arguments)}


def _beginning(reply: Reply) -> Iterator[dict[str, Any]]:
    message = _message(reply, [], stop_reason=None)
    if reply.usage is not None:
        begun = {} if reply.usage.output_tokens is None else {"output_tokens": 1}
        message["usage"] = {**_input(reply.usage), **begun}
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}


def _blocks(reply: Reply) -> Iterator[dict[str, Any]]:
    index = 0
    for block in _said(reply):
        kind = block["type"]
        begun = {**block, kind: "", **({"signature": ""} if kind == "thinking" else {})}
        deltas = [{"type": f"{kind}_delta", kind: piece} for piece in pieces(block[kind])]
        if block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        yield from _block(index, begun, deltas)
        index += 1
    for call in reply.calls:
        text = arguments_text(call)
        written = ["", *(pieces(text) if text != "{}" else ())]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in written]
        yield from _block(index, _tool_use(call, {}), deltas)
        index += 1


def _block(
    index: int, begun: dict[str, Any], deltas: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _end(reply: Reply) -> Iterator[dict[str, Any]]:
    delta = {"stop_reason": _finish(reply), "stop_sequence": None}
    usage = {} if reply.usage is None else {"usage": _output(reply.usage)}
    yield {"type": "message_delta", "delta": delta, **usage}
    yield {"type": "message_stop"}


def _input(usage: TokenUsage) -> dict[str, Any]:
    """What the cache was read for and written to stands beside the rest, not in it."""
    rest = usage.input_tokens
    if rest is not None:
        rest -= (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    return known(
        input_tokens=rest,
        cache_creation_input_tokens=usage.cache_write_tokens,
        cache_read_input_tokens=usage.cache_read_tokens,
    )


def _output(usage: TokenUsage) -> dict[str, Any]:
    details = known(thinking_tokens=usage.reasoning_tokens)
    return known(output_tokens=usage.output_tokens, output_tokens_details=details or None)
