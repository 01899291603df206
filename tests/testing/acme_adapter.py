"""An adapter as a third party writes one: a protocol of its own, on nothing but Aether's ports.

Its wire stands in the guide `testing-a-provider.md`. Run by `test_conformance_suites`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ContextLengthError,
    InputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.http.bodies import read_error_body
from aether.http.contracts import Timeout, Transport
from aether.http.finding import transport_maker
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.streaming import final_chunk

PROBLEMS: dict[str, type[ProviderError]] = {
    "bad_request": BadRequestError,
    "authentication": AuthenticationError,
    "permission": PermissionDeniedError,
    "not_found": NotFoundError,
    "context_length": ContextLengthError,
    "rate_limit": RateLimitError,
    "quota": QuotaExceededError,
    "overloaded": OverloadedError,
    "server": ServerError,
}
STATUSES: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    503: OverloadedError,
}
REASONS = {"done": "stop", "limit": "length", "calling": "tool_calls", "blocked": "content_filter"}
TIMEOUT = Timeout(read=30)


class AcmeProvider:
    default_model = "acme-1"

    def __init__(self, api_key: str, *, base_url: str) -> None:
        self._url = f"{base_url}/generate"
        self._transport: Transport | None = transport_maker(None)()

        def headers(extra: Mapping[str, str]) -> dict[str, str]:
            return {"content-type": "application/json", "x-acme-key": api_key, **extra}

        def clean(text: str) -> str:
            return text.replace(api_key, "[key]")

        self._headers = headers
        self._clean = clean

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        transport, body = self._open(), _render(request, stream=False)
        headers = self._headers(request.extra_headers)
        answer = await transport.request(
            "POST", self._url, headers=headers, body=body, timeout=TIMEOUT, max_bytes=10_000_000
        )
        if answer.status != 200:
            raise self._refusal(answer.status, answer.headers, answer.body)
        value = self._object(answer.body)
        reading = _Reading(answer.headers.get("acme-request"))
        for said in value.get("said", []):
            reading.add(said)
        if "end" not in value:
            raise ProtocolError("Acme answered without an end.")
        return reading.response(value["end"])

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        transport, body = self._open(), _render(request, stream=True)
        headers = self._headers(request.extra_headers)
        reading = _Reading(None)
        try:
            async with transport.stream(
                "POST", self._url, headers=headers, body=body, timeout=TIMEOUT
            ) as answer:
                reading.request_id = answer.headers.get("acme-request")
                pieces, rest, end = answer.chunks(), b"", None
                if answer.status != 200:
                    said = await read_error_body(pieces)
                    raise self._refusal(answer.status, answer.headers, said)
                async for piece in pieces:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        value = self._object(line)
                        if "end" in value:
                            end = value["end"]
                        else:
                            yield reading.add(value)
                if end is None:
                    raise StreamInterruptedError("Acme's answer ended before its end.")
                yield final_chunk(reading.response(end))
        except ProviderError as error:
            if reading.calls or reading.text:
                broken = StreamInterruptedError(str(error), partial=reading.response({}))
                raise broken from error
            raise

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _open(self) -> Transport:
        if self._transport is None:
            raise ClientClosedError("This provider was closed.")
        return self._transport

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not value:
            raise ProtocolError(self._clean(f"Acme sent what is no object: {data[:100]!r}"))
        if "problem" in value:
            raise PROBLEMS[value["problem"]](self._clean(value["detail"]))
        return value

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        kind = STATUSES.get(status, ServerError if status >= 500 else BadRequestError)
        detail = ""
        try:
            self._object(body)
        except ProtocolError:
            detail = f"Acme answered {status}."
        except ProviderError as error:
            kind, detail = type(error), str(error)
        wait = headers.get("retry-after")
        return kind(
            detail,
            status=status,
            retry_after=None if wait is None else float(wait),
            request_id=headers.get("acme-request"),
        )


class _Reading:
    """An answer, as far as it has come."""

    def __init__(self, request_id: str | None) -> None:
        self.request_id = request_id
        self.text = ""
        self.calls: list[ToolCall] = []

    def add(self, said: dict[str, Any]) -> StreamChunk:
        if "call" in said:
            call = said["call"]
            self.calls.append(ToolCall(id="", name=call["name"], arguments=call["arguments"]))
            return StreamChunk()
        self.text += said.get("text", "")
        return StreamChunk(said.get("text", ""))

    def response(self, end: dict[str, Any]) -> LLMResponse:
        why = end.get("why")
        tokens = end.get("tokens", {})
        fields: dict[str, Any] = {"finish_reason": REASONS.get(why or "", "other")}
        if self.calls and fields["finish_reason"] in ("stop", "other"):
            fields["finish_reason"] = "tool_calls"
        return LLMResponse(
            text=self.text,
            model=end.get("model", "unknown"),
            input_tokens=tokens.get("in"),
            output_tokens=tokens.get("out"),
            tool_calls=self.calls,
            finish_reason_raw=why,
            request_id=self.request_id,
            **fields,
        )


def _render(request: LLMRequest, *, stream: bool) -> bytes:
    names = [tool.name for tool in request.tools]
    if not all(name.isidentifier() for name in names):
        raise InputError(f"Acme takes no such tool names: {names}.")
    if request.tool_choice not in (None, "auto", "none", "required", *names):
        raise InputError(f"{request.tool_choice!r} is not offered.")
    body: dict[str, Any] = {
        "model": request.model or AcmeProvider.default_model,
        "limit": request.max_tokens,
        "stream": stream,
        "choice": request.tool_choice,
        "tools": [
            {"name": tool.name, "about": tool.description, "takes": dict(tool.parameters)}
            for tool in request.tools
        ],
        "turns": _turns(request),
        "form": request.output_schema,
        "until": list(request.stop),
        "sampling": {"heat": request.temperature, "mass": request.top_p, "seed": request.seed},
        "effort": request.reasoning,
    }
    added = dict(request.extra_body)
    body["tools"] += added.pop("tools", [])
    return json.dumps(_merged(body, added)).encode()


def _merged(fields: dict[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    made = {**fields, **added}
    for name, value in added.items():
        if isinstance(value, dict) and isinstance(fields.get(name), dict):
            made[name] = _merged(fields[name], value)
    return made


def _turns(request: LLMRequest) -> Sequence[dict[str, Any]]:
    if not request.messages:
        raise InputError("There are no messages.")
    turns: list[dict[str, Any]] = []
    waiting: dict[str, int] = {}
    for message in request.messages:
        if not isinstance(message.content, str) and any(
            part.type not in ("text", "reasoning", "cache_point") for part in message.content
        ):
            raise InputError("Acme takes text alone.")
        if message.role == "tool":
            place = waiting.pop(message.tool_call_id or "", None)
            if place is None:
                raise InputError(f"{message.tool_call_id!r} is the result of no call.")
            turns.append({"role": "tool", "text": message.text, "of": place})
            continue
        if waiting:
            raise InputError("There are calls without a result.")
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        waiting = {call.id: place for place, call in enumerate(message.tool_calls)}
        turns.append({"role": message.role, "text": message.text, "calls": calls})
    if waiting:
        raise InputError("There are calls without a result.")
    return turns
