"""OpenAI's Chat Completions, as OpenAI and the many servers like it write them.

It must not know an adapter. The shapes are those of OpenAI's API reference, and of DeepSeek's for
reasoning.
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

__all__ = ["OPENAI_ERRORS", "OpenAIChatWire", "openai_error"]

_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}

OPENAI_ERRORS: Mapping[Failure, tuple[int, str, str | None]] = {
    "bad_request": (400, "invalid_request_error", "unsupported_value"),
    "authentication": (401, "invalid_request_error", "invalid_api_key"),
    "permission": (403, "invalid_request_error", "unsupported_country_region_territory"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "overloaded": (503, "server_error", None),
    "server": (500, "server_error", None),
}
"""Status, type and code of OpenAI's errors."""


class OpenAIChatWire(Wire):
    """Chat Completions.

    `reasoning_field` is the field for reasoning, on servers that show it: `reasoning_content` or
    `reasoning`. `usage`: in a stream it is told when `asked` for with `stream_options`, as OpenAI
    does it, or `always`. `end_mark`: not every server sends one.
    """

    request_id_header = "x-request-id"

    def __init__(
        self,
        *,
        reasoning_field: str | None = None,
        usage: str = "asked",
        end_mark: bool = True,
    ) -> None:
        self._reasoning_field = reasoning_field
        self._usage_unasked = usage == "always"
        self._end_mark = end_mark
        lacking: set[Feature] = {"signature"}
        if reasoning_field is None:
            lacking.add("reasoning")
        self.cannot = frozenset(lacking)

    def wants_stream(self, request: WireRequest) -> bool:
        return request.json.get("stream") is True

    def body(self, reply: Reply, request: WireRequest) -> bytes:  # noqa: ARG002 - the port's
        message: dict[str, Any] = {
            "role": "assistant",
            "content": reply.text if reply.text or not reply.calls else None,
            "refusal": None,
            "annotations": [],
        }
        if self._reasoning_field is not None and reply.reasoning:
            message[self._reasoning_field] = reply.reasoning
        if reply.calls:
            message["tool_calls"] = [_call(call, arguments_text(call)) for call in reply.calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish(reply),
        }
        answer = {**self._head(reply, "chat.completion"), "choices": [choice]}
        if reply.usage is not None:
            answer["usage"] = _usage(reply.usage)
        return json.dumps(answer, ensure_ascii=False).encode()

    def stream(self, reply: Reply, request: WireRequest) -> WireStream:
        head = self._head(reply, "chat.completion.chunk")
        asked = request.json.get("stream_options") or {}
        told = self._usage_unasked or asked.get("include_usage") is True
        nothing_yet = {"usage": None} if told else {}

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return server_sent_event({**head, "choices": [choice], **nothing_yet})

        deltas = [{"role": "assistant", "content": "", "refusal": None}, *self._deltas(reply)]
        texts = [number for number, delta in enumerate(deltas, 1) if delta.get("content")]
        events = [*map(chunk, deltas), chunk({}, _finish(reply))]
        settled = len(events)
        if told and reply.usage is not None:
            usage = {**head, "choices": [], "usage": _usage(reply.usage)}
            events.append(server_sent_event(usage))
        if self._end_mark:
            events.append(server_sent_event("[DONE]"))
        return WireStream(events, settled, texts)

    def error(
        self, failure: Failure, message: str, *, retry_after: int | None = None
    ) -> HTTPResponse:
        return openai_error(failure, message, retry_after)

    def error_event(self, failure: Failure, message: str) -> bytes:
        return server_sent_event(openai_error(failure, message, None).body.decode())

    def _head(self, reply: Reply, kind: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": kind,
            "created": 1764000000,
            "model": reply.model,
            "service_tier": "default",
            "system_fingerprint": "fp_1",
        }

    def _deltas(self, reply: Reply) -> Iterator[dict[str, Any]]:
        if self._reasoning_field is not None:
            for piece in pieces(reply.reasoning):
                yield {self._reasoning_field: piece}
        for piece in pieces(reply.text):
            yield {"content": piece}
        for index, call in enumerate(reply.calls):
            yield {"tool_calls": [{"index": index, **_call(call, "")}]}
            for piece in pieces(arguments_text(call)):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def openai_error(failure: Failure, message: str, retry_after: int | None) -> HTTPResponse:
    """An error as OpenAI answers it, whichever of its protocols is spoken."""
    status, kind, code = OPENAI_ERRORS[failure]
    error = {"message": message, "type": kind, "param": None, "code": code}
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return HTTPResponse(status, headers, json.dumps({"error": error}).encode())


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _finish(reply: Reply) -> str:
    return reply.finish_raw or _FINISH[reply.reason]


def _usage(usage: TokenUsage) -> dict[str, Any]:
    total = None
    if usage.input_tokens is not None and usage.output_tokens is not None:
        total = usage.input_tokens + usage.output_tokens
    read = known(cached_tokens=usage.cache_read_tokens, cache_write_tokens=usage.cache_write_tokens)
    written = known(reasoning_tokens=usage.reasoning_tokens)
    return known(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=total,
        prompt_tokens_details=read or None,
        completion_tokens_details=written or None,
    )
