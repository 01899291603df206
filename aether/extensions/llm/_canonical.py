"""Canonical JSON: the key of a request, and an answer as text that is itself or nothing.

It must not know where answers are kept, nor which of them are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from aether.llm.data import Data
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk, ToolCallDelta

__all__ = ["KeptAnswer", "read_answer", "replayed", "request_key", "write_answer"]

FORMAT = 1
"""Of keys and answers: what was kept in another format has no key here, and nobody reads it."""

_AS_CHOSEN: dict[str, Any] = {"exclude_defaults": True, "warnings": False}
"""So a field that is new in a version leaves the keys of all who do not use it as they were."""

CallPiece = tuple[int, str | None, str | None, str]
Piece = tuple[str, str | None, CallPiece | None]


class KeptAnswer(Data):
    """An answer, and the deltas in which it came, if it came in any: a text where that was all."""

    response: LLMResponse
    deltas: list[str | Piece] | None = None

    def chunks(self) -> Iterator[StreamChunk]:
        """All chunks but the final one."""
        if self.deltas is None:
            yield from replayed(self.response)
            return
        for delta in self.deltas:
            if isinstance(delta, str):
                yield StreamChunk(text=delta)
            else:
                text, reasoning, call = delta
                yield StreamChunk(text, reasoning, None if call is None else ToolCallDelta(*call))


def request_key(
    request: LLMRequest, *, model: str | None, identity: Sequence[str | None], name: str | None
) -> str | None:
    """64 hexadecimal digits, the same for equal requests to the same `model` at `identity` alone.

    A `name` stands in place of the messages before the first that is not of the user or the system.
    `None` for a request that has something in it which is no JSON.
    """
    messages = request.messages
    try:
        fields = request.model_dump(exclude={"messages", "tools", "context"}, **_AS_CHOSEN)
        fields["model"] = model
        fields["tools"] = [
            [tool.name, tool.description, dict(tool.parameters)] for tool in request.tools
        ]
        if name is not None:
            fields["name"] = name
            messages = messages[_length_of_prompt(messages) :]
        fields["messages"] = [_described(message) for message in messages]
        text = _json([FORMAT, list(identity), fields])
        return sha256(text.encode()).hexdigest()
    except Exception:  # noqa: BLE001 - a third party's values may do anything: whoever sends them will say so
        return None


def write_answer(
    key: str, response: LLMResponse, streamed: Sequence[StreamChunk] | None
) -> tuple[str, LLMResponse] | None:
    """The answer as JSON text that only `read_answer` of the same key reads, and a copy of it.

    `streamed` are its chunks but the final one. They are left out if they do not join to it. `None`
    for an answer that would not come back from JSON as it is.
    """
    deltas = None if streamed is None else _deltas(response, streamed)
    try:
        kept = KeptAnswer(response=response, deltas=deltas)
        body = kept.model_dump_json(warnings=False)
        read = KeptAnswer.model_validate_json(body)
    except ValueError:  # half a surrogate pair, an object that is no JSON, a depth beyond measure
        return None
    if read != kept:
        return None
    return f'["{_digest(key, body)}",{body}]', read.response


def read_answer(key: str, text: object) -> KeptAnswer | None:
    """What was written under this key; `None` if the text is anything else."""
    if not isinstance(text, str):
        return None
    digest, body = text[2:66], text[68:-1]
    try:
        if text != f'["{digest}",{body}]' or digest != _digest(key, body):
            return None
        return KeptAnswer.model_validate_json(body)
    except ValueError:  # of a version that had other fields; or no text in UTF-8
        return None


def replayed(response: LLMResponse) -> Iterator[StreamChunk]:
    """A whole answer as the deltas of a stream, one of each kind, without the final chunk."""
    if response.reasoning:
        yield StreamChunk(reasoning=response.reasoning)
    if response.text:
        yield StreamChunk(text=response.text)
    for index, call in enumerate(response.tool_calls):
        arguments = call.invalid_arguments
        if arguments is None:
            arguments = json.dumps(call.arguments, ensure_ascii=False, default=str)
        yield StreamChunk(tool_call=ToolCallDelta(index, call.id, call.name, arguments))


def _length_of_prompt(messages: Sequence[Message]) -> int:
    """How many messages come before the first that a model or a tool has written."""
    for count, message in enumerate(messages):
        if message.role not in ("system", "user"):
            return count
    return len(messages)


def _described(message: Message) -> dict[str, Any]:
    """Without what is no part of the message as it is sent."""
    fields = message.model_dump(exclude={"content", "untrusted"}, **_AS_CHOSEN)
    content = message.content
    fields["content"] = (
        content
        if isinstance(content, str)
        else [part.model_dump(mode="json", warnings=False) for part in content]
    )
    return fields


def _deltas(response: LLMResponse, streamed: Sequence[StreamChunk]) -> list[str | Piece] | None:
    if "".join(chunk.text for chunk in streamed) != response.text:
        return None
    if "".join(chunk.reasoning or "" for chunk in streamed) != (response.reasoning or ""):
        return None
    if response.tool_calls and not any(chunk.tool_call for chunk in streamed):
        return None
    return [_delta(chunk) for chunk in streamed if chunk.has_content]


def _delta(chunk: StreamChunk) -> str | Piece:
    call = chunk.tool_call
    if call is None:
        return (chunk.text, chunk.reasoning, None) if chunk.reasoning else chunk.text
    return chunk.text, chunk.reasoning, (call.index, call.id, call.name, call.arguments)


def _digest(key: str, body: str) -> str:
    return sha256(f"{FORMAT}\n{key}\n{body}".encode()).hexdigest()


def _json(value: object) -> str:
    """The one way to write a value: `TypeError` or `ValueError` for what is no JSON."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
