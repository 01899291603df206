"""Gemini's `generateContent`, as Google writes it.

It must not know an adapter. The shapes are those of the Gemini API's reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
    known,
    pieces,
    server_sent_event,
)

__all__ = ["GeminiWire"]

_FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
_ERRORS: Mapping[Failure, tuple[int, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT"),
    "authentication": (400, "INVALID_ARGUMENT"),
    "permission": (403, "PERMISSION_DENIED"),
    "not_found": (404, "NOT_FOUND"),
    "context_length": (400, "INVALID_ARGUMENT"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED"),
    "quota": (429, "RESOURCE_EXHAUSTED"),
    "overloaded": (503, "UNAVAILABLE"),
    "server": (500, "INTERNAL"),
}


class GeminiWire(Wire):
    """`generateContent` and `streamGenerateContent`, which must be asked for with `alt=sse`.

    A reply's signature is that of its first call, else that of its text. `call_ids`: newer models
    give their calls ids.
    """

    def __init__(self, *, call_ids: bool = False) -> None:
        lacking: set[Feature] = {
            "cut_arguments",
            "whole_cut_arguments",
            "cache_write_tokens",
            "tool_calls_without_a_call",
        }
        if not call_ids:
            lacking.add("call_ids")
        self.cannot = frozenset(lacking)

    def wants_stream(self, request: WireRequest) -> bool:
        return ":streamGenerateContent" in request.path

    def body(self, reply: Reply, request: WireRequest) -> bytes:  # noqa: ARG002 - the port's
        parts = [*self._said(reply), *self._calls(reply)]
        return json.dumps(_answer(reply, parts, last=True), ensure_ascii=False).encode()

    def stream(self, reply: Reply, request: WireRequest) -> WireStream:  # noqa: ARG002 - as above
        parts: list[dict[str, Any]] = []
        for part in self._said(reply):
            whole = {key: value for key, value in part.items() if key != "text"}
            thought = {key: value for key, value in whole.items() if key != "thoughtSignature"}
            texts = [{"text": piece, **thought} for piece in pieces(part["text"])]
            if "thoughtSignature" in whole:  # on a part of its own, at the end
                texts.append({"text": "", **whole})
            parts += texts
        parts += self._calls(reply)
        count = len(parts) + 1
        chunks = [
            _answer(_so_far(reply, number, count), [part]) for number, part in enumerate(parts, 1)
        ]
        chunks.append(_answer(reply, [{"text": ""}] if parts else [], last=True))
        said = [n for n, part in enumerate(parts, 1) if part.get("text") and "thought" not in part]
        return WireStream([_event(chunk) for chunk in chunks], len(chunks), said)

    def error(
        self, failure: Failure, message: str, *, retry_after: int | None = None
    ) -> HTTPResponse:
        status, _ = _ERRORS[failure]
        body = _error(failure, message, retry_after)
        return HTTPResponse(
            status, {"content-type": "application/json; charset=UTF-8"}, json.dumps(body).encode()
        )

    def error_event(self, failure: Failure, message: str) -> bytes:
        return _event(_error(failure, message, None))

    def _said(self, reply: Reply) -> Iterator[dict[str, Any]]:
        if reply.reasoning:
            yield {"text": reply.reasoning, "thought": True}
        if reply.text:
            signed = reply.signature and not reply.calls
            yield {
                "text": reply.text,
                **({"thoughtSignature": reply.signature} if signed else {}),
            }

    def _calls(self, reply: Reply) -> Iterator[dict[str, Any]]:
        for number, call in enumerate(reply.calls):
            signed = reply.signature and number == 0
            yield {
                "functionCall": self._call(call),
                **({"thoughtSignature": reply.signature} if signed else {}),
            }

    def _call(self, call: ToolCall) -> dict[str, Any]:
        made: dict[str, Any] = {"name": call.name}
        if call.invalid_arguments is None:
            made["args"] = dict(call.arguments)
        return {**made, "id": call.id} if self.can("call_ids") else made


def _event(data: Mapping[str, Any]) -> bytes:
    return server_sent_event(data, line_end="\r\n")


def _answer(reply: Reply, parts: list[dict[str, Any]], *, last: bool = False) -> dict[str, Any]:
    content = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    candidate: dict[str, Any] = {"content": content, "index": 0}
    if last:
        candidate["finishReason"] = reply.finish_raw or _FINISH.get(reply.reason, "STOP")
    answer: dict[str, Any] = {"candidates": [candidate]}
    if reply.usage is not None:
        answer["usageMetadata"] = _usage(reply.usage)
    return {**answer, "modelVersion": reply.model, "responseId": "response-1"}


def _so_far(reply: Reply, chunk: int, count: int) -> Reply:
    """With the usage that is told then: a running total, in which what was thought comes first."""
    usage = reply.usage
    if usage is None or usage.output_tokens is None:
        return reply
    output = -(-usage.output_tokens * chunk // count)
    thought = None if usage.reasoning_tokens is None else min(usage.reasoning_tokens, output)
    return replace(reply, usage=replace(usage, output_tokens=output, reasoning_tokens=thought))


def _usage(usage: TokenUsage) -> dict[str, Any]:
    """What was thought stands beside what was said, not in it."""
    said = usage.output_tokens
    if said is not None:
        said -= usage.reasoning_tokens or 0
    total = None
    if usage.input_tokens is not None and usage.output_tokens is not None:
        total = usage.input_tokens + usage.output_tokens
    return known(
        promptTokenCount=usage.input_tokens,
        cachedContentTokenCount=usage.cache_read_tokens,
        candidatesTokenCount=said,
        thoughtsTokenCount=usage.reasoning_tokens,
        totalTokenCount=total,
    )


def _error(failure: Failure, message: str, retry_after: int | None) -> dict[str, Any]:
    status, name = _ERRORS[failure]
    details: list[dict[str, Any]] = []
    if failure == "authentication":  # a bad request, but for this
        message = f"API key not valid. Please pass a valid API key. {message}"
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        info = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        details.append({"@type": kind, **info})
    if failure == "context_length":  # told by its words alone
        limit = "exceeds the maximum number of tokens allowed (1048576)"
        message = f"The input token count (1200000) {limit}. {message}"
    if failure == "quota":  # a limit on the rate, but for this
        kind = "type.googleapis.com/google.rpc.QuotaFailure"
        metric = "generativelanguage.googleapis.com/generate_requests_per_model_per_day"
        quota = {"quotaMetric": metric, "quotaId": "GenerateRequestsPerDayPerProjectPerModel"}
        details.append({"@type": kind, "violations": [quota]})
    if retry_after is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": f"{retry_after}s"})
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    return {"error": {**error, "details": details} if details else error}
