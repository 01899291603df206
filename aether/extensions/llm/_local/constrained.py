"""Replies that a grammar holds: the schema of an answer or a tool call, and reading it as it comes.

It must not know the engine: text goes in, in pieces cut anywhere, and deltas come out.

With tools, a reply is `{"answer": "..."}` or `{"tool": "<name>", "arguments": {...}}`, of which the
schema leaves only what is allowed. So any model can call tools, also one whose chat template has
no words for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from aether.errors import InputError
from aether.extensions.llm._local.decoding import StopFilter, StringDecoder, ValueScanner
from aether.extensions.llm._local.schema import simplify_schema
from aether.llm.messages import LLMRequest, StreamChunk, ToolCallDelta, ToolSpec, new_call_id

__all__ = [
    "Reply",
    "ToolReply",
    "ValueReply",
    "offered_tools",
    "open_reply",
    "reply_schema",
]


def offered_tools(request: LLMRequest) -> tuple[Sequence[ToolSpec], bool]:
    """The tools that the reply may call, and whether it has to call one."""
    choice = request.tool_choice
    if choice == "none" or not request.tools:
        return (), False
    if choice in (None, "auto"):
        return request.tools, False
    if choice == "required":
        return request.tools, True
    named = [tool for tool in request.tools if tool.name == choice]
    if not named:
        offered = ", ".join(tool.name for tool in request.tools)
        raise InputError(f"tool_choice names {choice!r}, which is not offered. Offered: {offered}.")
    return named, True


def reply_schema(request: LLMRequest) -> dict[str, Any] | None:
    """The JSON Schema of the reply in the engine's words, or `None` where any text will do."""
    tools, must_call = offered_tools(request)
    definitions: dict[str, Any] = {}
    answer: dict[str, Any] = {"type": "string", "minLength": 1}
    if request.output_schema is not None:
        answer = simplify_schema(request.output_schema, definitions, of="the output")
    elif not tools:
        return None
    if not tools:
        schema = answer
    else:
        replies = [] if must_call else [_closed_object(answer=answer)]
        for tool in tools:
            of = f"the parameters of tool {tool.name!r}"
            arguments = simplify_schema(dict(tool.parameters), definitions, of=of)
            replies.append(_closed_object(tool={"const": tool.name}, arguments=arguments))
        schema = replies[0] if len(replies) == 1 else {"anyOf": replies}
    return {**schema, "$defs": definitions} if definitions else schema


def _closed_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class Reply:
    """A reply that is being written. This one is any text, and the engine says where it ends."""

    @property
    def is_complete(self) -> bool:
        """Whether it is known to have ended: what follows means nothing."""
        return False

    @property
    def is_valid(self) -> bool:
        """Whether it may end here."""
        return True

    @property
    def call(self) -> tuple[str, str, str] | None:
        """The id, name and arguments, as they were written, of the whole call that it makes."""
        return None

    def feed(self, text: str) -> Sequence[StreamChunk]:
        """The deltas that a further piece makes."""
        return [StreamChunk(text=text)]

    def end(self) -> str:
        """The text that was held back, when nothing comes any more."""
        return ""


class ValueReply(Reply):
    """One JSON value, which is the text."""

    def __init__(self) -> None:
        self._value = ValueScanner()
        self._text: list[str] = []

    @property
    def is_complete(self) -> bool:
        return self._value.is_closed

    @property
    def is_valid(self) -> bool:
        try:
            from_json("".join(self._text))
        except ValueError:
            return False
        return True

    def feed(self, text: str) -> Sequence[StreamChunk]:
        piece = self._value.feed(text)
        self._text.append(piece)
        return [StreamChunk(text=piece)] if piece else []


class ToolReply(Reply):
    """An answer or a call. An answer's text ends before the first of the `stop` sequences."""

    _OPENING = re.compile(
        r'\s*\{\s*"(?:(answer)"\s*:|tool"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:)'
    )

    def __init__(self, *, answer_is_text: bool = True, stop: Sequence[str] = ()) -> None:
        self._answer_is_text = answer_is_text
        self._stop = StopFilter(stop if answer_is_text else ())
        self._opening = ""
        self._value: StringDecoder | ValueScanner | None = None
        self._id = ""
        self._name: str | None = None
        self._arguments: list[str] = []

    @property
    def is_complete(self) -> bool:
        return self._stop.is_stopped or (self._value is not None and self._value.is_closed)

    @property
    def is_valid(self) -> bool:
        return self.is_complete

    @property
    def call(self) -> tuple[str, str, str] | None:
        if self._name is None or not self.is_complete:
            return None
        return self._id, self._name, "".join(self._arguments)

    def feed(self, text: str) -> Sequence[StreamChunk]:
        if self._value is not None:
            return self._read(text)
        self._opening += text
        opening = self._OPENING.match(self._opening)
        if opening is None:
            return []
        rest = self._opening[opening.end() :]
        if opening[1]:
            self._value = StringDecoder() if self._answer_is_text else ValueScanner()
            return self._read(rest)
        self._value = ValueScanner()
        self._id, self._name = new_call_id(), json.loads(opening[2])
        start = StreamChunk(tool_call=ToolCallDelta(0, id=self._id, name=self._name))
        return [start, *self._read(rest)]

    def end(self) -> str:
        return self._stop.end()

    def _read(self, text: str) -> list[StreamChunk]:
        assert self._value is not None  # noqa: S101 - for the type checker: feed() has made it
        piece = self._value.feed(text)
        if self._name is not None:
            self._arguments.append(piece)
            return [StreamChunk(tool_call=ToolCallDelta(0, arguments=piece))] if piece else []
        piece = self._stop.feed(piece)
        return [StreamChunk(text=piece)] if piece else []


def open_reply(request: LLMRequest) -> Reply:
    """What reads the reply to `request`."""
    tools, _ = offered_tools(request)
    if tools:
        return ToolReply(answer_is_text=request.output_schema is None, stop=request.stop)
    return Reply() if request.output_schema is None else ValueReply()
