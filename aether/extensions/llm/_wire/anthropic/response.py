"""From the body of an answer to a response, and the parts that a stream's end shares with it.

It must not know how an answer came. What the protocol does not allow is a `ProtocolError`, never
a guess; blocks that are not known are kept as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from aether.errors import ProtocolError
from aether.extensions.llm._wire.anthropic.state import OWN_TYPES, state_of
from aether.extensions.llm._wire.anthropic.usage import parse_usage
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.reading import decode, expect, listed
from aether.llm.messages import (
    FinishReason,
    LLMResponse,
    Message,
    ToolCall,
    decoded_call,
    new_call_id,
)

__all__ = ["Answer", "checked_block", "container_id", "parse_response"]

FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_CUTTING: tuple[FinishReason, ...] = ("length", "content_filter")

Block = dict[str, Any]


class Answer(NamedTuple):
    """An answer's parts, as far as they have come."""

    content: Sequence[Block]
    finish_reason: str | None
    usage: Any
    model: str | None
    arguments: Sequence[str | None] | None = None
    """The text of each block's input, of a stream; `None` for a block whose input came whole."""
    container: str | None = None

    def to_response(self, source: Source, *, whole: bool = True) -> LLMResponse:
        """The response. One that is not `whole` was cut: its last words may be missing, and what
        it cannot be sent back as is left out.
        """
        reason = FINISH_REASONS.get(self.finish_reason or "", "other")
        calls = self._calls(cut=not whole or reason in _CUTTING)
        text = self._joined("text", "text")
        if reason == "stop" and not text and any(map(_is_unread, self.content)):
            reason = "other"
        state = state_of(self._content_with(calls), self.container) if whole else {}
        return LLMResponse(
            text=text,
            model=source.redact(self.model) if self.model else source.model,
            tool_calls=calls,
            finish_reason="tool_calls" if calls and reason in ("stop", "other") else reason,
            finish_reason_raw=source.redact(self.finish_reason) if self.finish_reason else None,
            reasoning=self._joined("thinking", "thinking") or None,
            request_id=source.request_id,
            provider=source.provider,
            message=Message(
                role="assistant",
                content=text,
                tool_calls=calls,
                provider_state=kept_state(state, source) if state else {},
            ),
            **parse_usage(self.usage, written=bool(self.content)),
        )

    def check(self, source: Source) -> None:
        """Raise `ProtocolError` for an answer that would pass for one but says nothing."""
        if not self.content and self.finish_reason is None:
            raise source.error(
                ProtocolError, f"{source.provider} answered with neither content nor a stop reason."
            )
        calls = [block for block in self.content if block["type"] == "tool_use"]
        if calls and not all(block.get("name") for block in calls):
            raise source.error(ProtocolError, f"{source.provider} gave a tool call without a name.")
        if self.finish_reason == "tool_use" and not calls:
            raise source.error(
                ProtocolError, f"{source.provider} says that it calls tools, but gives no call."
            )

    def _joined(self, kind: str, name: str) -> str:
        return "".join([block.get(name) or "" for block in self.content if block["type"] == kind])

    def _calls(self, *, cut: bool) -> list[ToolCall]:
        """The calls, each with an id of its own. One that the answer's end may have cut off is
        marked as invalid.
        """
        made: list[ToolCall] = []
        seen: set[str] = set()
        for place, block in enumerate(self.content):
            if block["type"] != "tool_use" or not block.get("name"):
                continue
            given = block.get("id")
            call_id = given if given and given not in seen else new_call_id()
            seen.add(call_id)
            written = None if self.arguments is None else self.arguments[place]
            last = place == len(self.content) - 1
            if written is not None and (written.strip() or not cut):
                made.append(ToolCall.parse(call_id, block["name"], written))
            elif cut and last:  # an object, but maybe with less in it than was meant
                text = "" if written is not None else to_json(block.get("input")).decode()
                made.append(ToolCall(id=call_id, name=block["name"], invalid_arguments=text))
            else:
                made.append(decoded_call(call_id, block["name"], block.get("input") or {}))
        return made

    def _content_with(self, calls: Sequence[ToolCall]) -> list[Block]:
        """The blocks with the arguments of their calls, which in a stream come as text, and with
        the ids that were given to those without one of their own.
        """
        if not calls:
            return list(self.content)
        made = iter(calls)
        return [
            {**block, "id": call.id, "input": call.arguments}
            if block["type"] == "tool_use" and (call := next(made, None)) is not None
            else block
            for block in self.content
        ]


def parse_response(body: bytes, *, source: Source) -> LLMResponse:
    """The response that a body of status 200 holds; an error object inside it is raised."""
    value = decode(body, source)
    if value.get("type") == "error" or value.get("error"):
        raise reported_error(value, source=source)
    if "content" not in value:
        raise source.error(ProtocolError, f"{source.provider} answered without content.")
    answer = Answer(
        content=[checked_block(block, source) for block in listed(value, "content", source)],
        finish_reason=expect(value.get("stop_reason"), str, "stop_reason", source) or None,
        usage=value.get("usage"),
        model=expect(value.get("model"), str, "model", source) or None,
        container=container_id(value),
    )
    try:
        answer.check(source)
    except ProtocolError as error:
        error.partial = answer.to_response(source)
        raise
    return answer.to_response(source)


def checked_block(block: Any, source: Source) -> Block:
    """A block whose fields, where they are known, are of the types that they must be."""
    checked = expect(block, dict, "content block", source)
    kind = expect(checked.get("type"), str, "content block's type", source)
    if not kind:
        raise source.error(ProtocolError, f"{source.provider} gave a content block without a type.")
    if kind in ("text", "thinking"):
        expect(checked.get(kind), str, kind, source)
    elif kind == "tool_use":
        expect(checked.get("id"), str, "tool call id", source)
        expect(checked.get("name"), str, "tool name", source)
        expect(checked.get("input"), dict, "tool input", source)
    return checked


def _is_unread(block: Block) -> bool:
    """Whether nothing is read of its kind: what the server's tools have done, or what is new."""
    return block["type"] not in OWN_TYPES


def container_id(value: dict[str, Any]) -> str | None:
    """The container that the server's code ran in."""
    container = value.get("container")
    found = container.get("id") if isinstance(container, dict) else None
    return found if isinstance(found, str) else None
