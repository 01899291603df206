"""From the body of an answer to a response, and the parts that a stream's end shares with it.

It must not know how an answer came. What the protocol does not allow is a `ProtocolError`, never
a guess; fields that are not known are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from aether.errors import ProtocolError
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.openai_chat.fragments import is_more_than_text
from aether.extensions.llm._wire.openai_chat.messages import CALL_STATE, CONTENT
from aether.extensions.llm._wire.openai_chat.output_media import Sound, read_images
from aether.extensions.llm._wire.openai_chat.usage import find_usage, parse_usage
from aether.extensions.llm._wire.reading import decode, expect, expect_list, inner, listed
from aether.extensions.llm._wire.thinking import split_thinking
from aether.llm.content import ContentPart, TextPart
from aether.llm.data import made_of
from aether.llm.messages import (
    MAX_JSON_PARTS,
    FinishReason,
    LLMResponse,
    Message,
    ToolCall,
    arguments_in,
    decoded_call,
    has_too_many_parts,
    new_call_id,
)

__all__ = [
    "OLD_CALL",
    "REASONING_FIELDS",
    "Answer",
    "WireCall",
    "first_choice",
    "parse_response",
    "read_content",
    "read_model",
    "read_reasoning",
    "refusal_in",
]

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together's
    "length": "length",
    "model_length": "length",  # Mistral's: the end of the context
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "function_call_filter": "error",  # Gemini's: a call that cannot be read
    "insufficient_system_resource": "error",  # DeepSeek's
    "abort": "error",  # vLLM's and SGLang's
    # Of gateways that leave Anthropic's and Gemini's words as they are:
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
    "malformed_function_call": "error",
}
"""Of Gemini's compatible server, more follows behind a colon."""
REASONING_FIELDS = ("reasoning_content", "reasoning")
"""The second is what newer servers call it; some give both, with the same text."""
_DETAILS = "reasoning_details"
_REASONING = frozenset((*REASONING_FIELDS, _DETAILS))

_CALL_PARTS = ("tool_use", "tool_call", "function_call")
_READ = ("text", "thinking", "summary", "refusal")

OLD_CALL = "function_call"
"""Where there was one call at most, without an id, before there were `tool_calls`."""


class WireCall(NamedTuple):
    """A tool call as it came. `arguments` is text, an object, or nothing."""

    id: str | None
    name: str
    arguments: Any
    extra: Any = None


class Answer(NamedTuple):
    """An answer's parts, as far as they have come."""

    text: str
    reasoning: str
    calls: Sequence[WireCall]
    finish_reason: str | None
    usage: dict[str, Any] | None
    model: str | None
    state: dict[str, Any]
    """What must be echoed."""
    refused: bool = False
    media: Sequence[ContentPart] = ()
    """Sound, with what it says as text, and images."""
    parts: Sequence[Any] = ()
    """Of content that came as a list, all of it."""

    def to_response(self, source: Source, *, whole: bool = True) -> LLMResponse:
        """The response. One that is not `whole` was cut: its last words may be missing."""
        finish = _neutral(self.finish_reason or "") if whole else None
        if self.calls and finish in ("stop", "other"):
            finish = "tool_calls"
        elif finish == "stop" and (self.refused or refusal_in(self.parts)):
            finish = "content_filter"
        elif finish == "stop" and not (self.text or self.media) and _is_unread(self.parts):
            finish = "other"
        calls: list[ToolCall] = []
        if self.calls:
            cut = not whole or finish in ("length", "content_filter", "error")
            calls = _tool_calls(self.calls, source, cut=cut)
        said: dict[str, Any] = {
            "role": "assistant",
            "content": self._content() if self.media else self.text,
            "tool_calls": calls,
            "provider_state": kept_state(self.state, source) if self.state else {},
            "untrusted": False,
        }
        message = made_of(Message, said)
        told: dict[str, Any] = {
            "text": message.text if self.media else self.text,
            "model": source.redact(self.model) if self.model else source.model,
            "tool_calls": calls.copy(),
            "finish_reason": finish,
            "finish_reason_raw": source.redact(self.finish_reason) if self.finish_reason else None,
            "reasoning": self.reasoning or None,
            "request_id": source.request_id,
            "provider": source.provider,
            "message": message,
            **parse_usage(self.usage, written=bool(self.text or self.reasoning or calls)),
        }
        return made_of(LLMResponse, told)

    def check(self, source: Source) -> None:
        """Raise `ProtocolError` for an answer that would pass for one but says nothing, or has its
        calls where the protocol has none.
        """
        if not self.calls and any(map(_is_call, self.parts)):
            raise source.error(
                ProtocolError, f"{source.provider} gave a tool call as a part of its content."
            )
        if self.text or self.calls or self.media:
            return
        if self.finish_reason is None:
            raise source.error(
                ProtocolError,
                f"{source.provider} answered with neither content nor a finish reason.",
            )
        if _neutral(self.finish_reason) == "tool_calls":
            raise source.error(
                ProtocolError, f"{source.provider} says that it calls tools, but gives no call."
            )

    def _content(self) -> list[ContentPart]:
        text = [TextPart(text=self.text)] if self.text else []
        return [*text, *self.media]


def parse_response(body: bytes, *, source: Source, vendor: Vendor) -> LLMResponse:
    """The response that a body of status 200 holds; an error object inside it is raised."""
    value = decode(body, source)
    if value.get("error") or value.get("object") == "error":
        raise reported_error(value, source=source)
    choices = [each for each in listed(value, "choices", source) if isinstance(each, dict)]
    choice = first_choice(choices, source)
    if choice is None:
        raise source.error(ProtocolError, f"{source.provider} answered without a choice.")
    if choice.get("error"):
        raise reported_error(choice, source=source)
    finish = expect(choice.get("finish_reason"), str, "finish_reason", source) or None
    if "message" not in choice and _neutral(finish or "") not in ("content_filter", "error"):
        raise source.error(ProtocolError, f"{source.provider} gave a choice without a message.")
    message = expect(choice.get("message"), dict, "message", source)
    content = message.get("content")
    text, reasoning = read_content(content, source)
    state: dict[str, Any] = {}
    if not _REASONING.isdisjoint(message):
        field, shown = read_reasoning(message)
        reasoning += shown
        if vendor.echoes_reasoning:
            if field:
                state[field] = shown
            if message.get(_DETAILS):
                state[_DETAILS] = _bounded(message[_DETAILS], source)
    if vendor.echoes_reasoning and is_more_than_text(content):
        state[CONTENT] = content
    if vendor.think_tags and not reasoning:
        reasoning, text = split_thinking(text)
    parts = content if isinstance(content, list) else ()
    refusal = message.get("refusal") or (CONTENT not in state and refusal_in(parts))
    if refusal:
        state["refusal"] = refusal
    media = _media(message, source) if "audio" in message or "images" in message else ()
    calls = _read_calls(message, source) if "tool_calls" in message or OLD_CALL in message else ()
    answer = Answer(
        text=text,
        reasoning=reasoning,
        calls=calls,
        finish_reason=finish,
        usage=find_usage(value),
        model=read_model(value),
        state=state,
        refused=bool(refusal),
        media=media,
        parts=parts,
    )
    try:
        answer.check(source)
    except ProtocolError as error:
        error.partial = answer.to_response(source)
        raise
    return answer.to_response(source)


def first_choice(choices: Sequence[dict[str, Any]], source: Source) -> dict[str, Any] | None:
    """The answer: the other choices are alternatives, which nobody asked for. But calls in another
    one with the same index, or none, are of the same answer, and would be lost.
    """
    first: dict[str, Any] | None = None
    for choice in choices:
        if choice.get("index"):
            continue
        if first is None:
            first = choice
        elif inner(choice, "message").get("tool_calls") or inner(choice, "delta").get("tool_calls"):
            raise source.error(
                ProtocolError,
                f"{source.provider} gave the tool calls of its answer in a choice of their own.",
            )
    return first


def read_content(content: object, source: Source) -> tuple[str, str]:
    """Text and reasoning of `content`: text, nothing, or a list of parts such as Mistral's and
    Databricks'.
    """
    if isinstance(content, str):
        return content, ""
    if content is None:
        return "", ""
    text: list[str] = []
    thought: list[str] = []
    for part in expect_list(content, "content", source):
        if isinstance(part, str):
            text.append(part)
            continue
        part = expect(part, dict, "content part", source)  # noqa: PLW2901 - checked, not changed
        said = part.get("text")
        if isinstance(said, str):
            text.append(said)
        elif part.get("type") in ("text", "output_text"):
            expect(said, str, "text of a content part", source)
        thinking = part.get("thinking") or part.get("summary")
        if thinking:
            thought.append(read_content(thinking, source)[0])
    return "".join(text), "".join(thought)


def refusal_in(parts: Sequence[Any]) -> str:
    """What parts of content say of why there is no answer."""
    if not parts:
        return ""
    said = (part.get("refusal") for part in parts if isinstance(part, dict))
    return "".join(each for each in said if isinstance(each, str))


def read_reasoning(fields: dict[str, Any]) -> tuple[str, str]:
    """The name of the field of a message or a delta that holds reasoning, and what it says."""
    found = ("", "")
    for name in REASONING_FIELDS:
        shown = fields.get(name)
        if isinstance(shown, str):
            if shown:
                return name, shown
            found = found if found[0] else (name, "")
    return found


def read_model(value: dict[str, Any]) -> str | None:
    """The model that answered, as far as it is told."""
    model = value.get("model")
    return model if isinstance(model, str) and model else None


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _CALL_PARTS


def _is_unread(parts: Sequence[Any]) -> bool:
    """Whether one of the parts is of a kind of which nothing is read."""
    return any(
        isinstance(part, dict) and part.get("type") != "text" and not part.keys() & set(_READ)
        for part in parts
    )


def _neutral(reason: str) -> FinishReason:
    return FINISH_REASONS.get(reason.partition(":")[0].lower(), "other")


def _media(message: dict[str, Any], source: Source) -> list[ContentPart]:
    sound = Sound()
    if message.get("audio"):
        sound.add(message["audio"], source)
    return [*sound.parts(source), *read_images(message, source)]


def _read_calls(message: dict[str, Any], source: Source) -> list[WireCall]:
    calls = listed(message, "tool_calls", source)
    if not calls and message.get(OLD_CALL):
        calls = [{"function": message[OLD_CALL]}]
    return [_read_call(call, source) for call in calls]


def _read_call(call: Any, source: Source) -> WireCall:
    fields = expect(call, dict, "tool call", source)
    function = expect(fields.get("function"), dict, "function", source)
    name = expect(function.get("name"), str, "function name", source)
    if not name:
        raise source.error(ProtocolError, f"{source.provider} gave a tool call without a name.")
    return WireCall(
        id=expect(fields.get("id"), str, "tool call id", source) or None,
        name=name,
        arguments=function.get("arguments"),
        extra=fields.get(CALL_STATE),
    )


def _bounded(details: Any, source: Source) -> Any:
    """They go back as they came, with each turn, and are copied with it."""
    if has_too_many_parts({"": details}):
        raise source.error(
            ProtocolError,
            f"{source.provider} gave reasoning_details of more than {MAX_JSON_PARTS} values.",
        )
    return details


def _tool_calls(calls: Sequence[WireCall], source: Source, *, cut: bool) -> list[ToolCall]:
    """The calls, each with an id of its own. A call that was cut off before it had arguments is
    not one without arguments.
    """
    made: list[ToolCall] = []
    seen: set[str] = set()
    for call in calls:
        call_id = call.id if call.id and call.id not in seen else new_call_id()
        seen.add(call_id)
        more: dict[str, Any] = {}
        if call.extra:
            more["provider_state"] = kept_state({CALL_STATE: call.extra}, source)
        arguments = call.arguments
        if isinstance(arguments, dict):
            made.append(decoded_call(call_id, call.name, arguments, **more))
        elif cut and not arguments:
            made.append(ToolCall(id=call_id, name=call.name, invalid_arguments="", **more))
        else:
            text = arguments if isinstance(arguments, str) else to_json(arguments).decode()
            told = {
                "id": call_id,
                "name": call.name,
                "provider_state": {},
                **arguments_in(text),
                **more,
            }
            made.append(made_of(ToolCall, told))
    return made
