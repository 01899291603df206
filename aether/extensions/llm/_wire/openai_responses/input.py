"""From messages to input items: roles, parts, pairing, and what goes back as it came.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from aether.errors import InputError
from aether.extensions.llm._vendors import OPENAI, Vendor
from aether.extensions.llm._wire.conversation import call_id_within, paired, place_of
from aether.extensions.llm._wire.host_state import own_state
from aether.extensions.llm._wire.media import check_type, check_url, data_url, file_name
from aether.extensions.llm._wire.openai_responses.items import (
    CUSTOM_INPUT,
    Item,
    calls_in,
    text_in,
)
from aether.extensions.llm._wire.openai_responses.response import OUTPUT
from aether.llm.content import CachePoint, FilePart, ImagePart, ReasoningPart, TextPart
from aether.llm.messages import Message, ToolCall

__all__ = ["render_input"]

_BREAKPOINT = "prompt_cache_breakpoint"
_MOST_BREAKPOINTS = 4  # that OpenAI writes for one request
_LONGEST_CALL_ID = 64  # a longer one is a 400 at OpenAI, with the code `string_above_max_length`
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def render_input(
    messages: Sequence[Message],
    *,
    vendor: Vendor,
    at_openai: bool,
    stored: bool,
    breakpoints: bool,
) -> list[Item]:
    """The items in order. Each tool call must have its result before anything else is said.

    System messages stay in their places, as items of their own: `instructions` would hold one of
    them, and put it first. `stored`: the server keeps answers, and knows their items by id.
    `breakpoints`: the model is told what to cache; what an assistant says cannot end such a part.
    """
    rendered: list[Item] = []
    kinds: dict[str, str] = {}
    for position, message in paired(messages):
        if message.role == "assistant":
            items = _echoed(message, vendor, stateless=at_openai and not stored)
            if items is None:
                items = _assistant(message, vendor, position)
            kinds = {str(item.get("call_id")): str(item.get("type")) for item in items}
            rendered += items
        elif message.role == "tool":
            call_id = message.tool_call_id or ""
            custom = kinds.get(call_id) == "custom_tool_call"
            kind = "custom_tool_call_output" if custom else "function_call_output"
            output = _content(message, position, breakpoints=breakpoints, at_openai=at_openai)
            rendered.append({"type": kind, "call_id": call_id, "output": output})
        elif message.role == "user":
            content = _content(message, position, breakpoints=breakpoints, at_openai=at_openai)
            if not content:
                raise InputError(f"Message {position} (user) is empty.")
            rendered.append({"type": "message", "role": "user", "content": content})
        elif _text(message, position):
            content = _content(message, position, breakpoints=breakpoints, at_openai=at_openai)
            rendered.append({"type": "message", "role": "system", "content": content})
    if breakpoints:
        _keep_latest(rendered)
    if at_openai:
        for item in rendered:
            if isinstance(item.get("call_id"), str):
                item["call_id"] = call_id_within(_LONGEST_CALL_ID, item["call_id"])
    return rendered


def _echoed(message: Message, vendor: Vendor, *, stateless: bool) -> list[Item] | None:
    """The items that the message was made of, if it still says what they do."""
    state = own_state(message.provider_state, vendor.name, vendor.state_host) or {}
    output = state.get(OUTPUT)
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        return None
    items: list[Item] = [dict(item) for item in output if isinstance(item, dict)]
    said = text_in(items)
    if message.text and not said:
        said = text_in(items, commentary=True)
    if message.text != said:
        return None
    if [_said(call) for call in calls_in(items)] != [_said(call) for call in message.tool_calls]:
        return None
    while items and items[-1].get("type") == "reasoning":
        items.pop()  # refused without the item that it led to, which was cut off
    if stateless and any(_only_known_by_id(item) for item in items):
        items = [
            {name: value for name, value in item.items() if name != "id"}
            for item in items
            if not _only_known_by_id(item)
        ]
    invalid = {call.id for call in message.tool_calls if call.invalid_arguments is not None}
    return [
        {**item, "arguments": "{}"}
        if item.get("type") == "function_call" and str(item.get("call_id")) in invalid
        else item
        for item in items
    ]


def _said(call: ToolCall) -> tuple[str, str, Any]:
    return call.id, call.name, call.arguments


def _only_known_by_id(item: Item) -> bool:
    """Reasoning that a server which has stored nothing does not find again.

    What follows it would be refused without it, unless it has no id either.
    """
    return item.get("type") == "reasoning" and not item.get("encrypted_content")


def _assistant(message: Message, vendor: Vendor, position: int) -> list[Item]:
    text = _text(message, position)
    items: list[Item] = []
    if text:
        items.append({"type": "message", "role": "assistant", "content": text})
    items += [_call(call, vendor, position) for call in message.tool_calls]
    return items


def _call(call: ToolCall, vendor: Vendor, position: int) -> Item:
    name = _NOT_IN_A_NAME.sub("_", call.name)[:64] or "_"  # a model may have made it up
    state = own_state(call.provider_state, vendor.name, vendor.state_host) or {}
    kind = state.get("type")
    custom = call.arguments.get(CUSTOM_INPUT)
    if kind == "custom_tool_call" and isinstance(custom, str):
        return {"type": kind, "call_id": call.id, "name": name, "input": custom}
    try:
        arguments = to_json(call.arguments).decode()
    except ValueError as error:
        raise InputError(
            f"Message {position} calls {call.name!r} with arguments that JSON cannot hold."
        ) from error
    return {"type": "function_call", "call_id": call.id, "name": name, "arguments": arguments}


def _text(message: Message, position: int) -> str:
    if not isinstance(message.content, str):
        for number, part in enumerate(message.content, 1):
            if not isinstance(part, TextPart | ReasoningPart | CachePoint):
                raise InputError(
                    f"{place_of(message, position, number)} is of type {part.type}: here the "
                    "provider takes text alone."
                )
    return message.text


def _content(
    message: Message, position: int, *, breakpoints: bool, at_openai: bool
) -> str | list[Item]:
    """What is said to the model: text, or parts."""
    if isinstance(message.content, str):
        return message.content
    parts: list[Item] = []
    for number, part in enumerate(message.content, 1):
        if not isinstance(part, CachePoint):
            place = place_of(message, position, number)
            parts.append(_part(part, place, at_openai=at_openai))
        elif breakpoints and parts:
            parts[-1][_BREAKPOINT] = {"mode": "explicit"}
    if len(parts) <= 1 and all(part.keys() == {"type", "text"} for part in parts):
        return message.text
    return parts


def _keep_latest(items: Sequence[Item]) -> None:
    marked = [
        part
        for item in items
        for content in (item.get("content"), item.get("output"))
        if isinstance(content, list)
        for part in content
        if _BREAKPOINT in part
    ]
    for part in marked[:-_MOST_BREAKPOINTS]:
        del part[_BREAKPOINT]


def _part(part: Any, place: str, *, at_openai: bool) -> Item:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        if at_openai and part.data is not None:
            check_type(part, place, takes=OPENAI.media_types or (), provider=OPENAI.name)
        url = data_url(part) if part.url is None else check_url(part, place)
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if isinstance(part, FilePart) and part.data is None:
        return {"type": "input_file", "file_url": check_url(part, place)}
    if isinstance(part, FilePart):
        # It is refused without a name.
        return {"type": "input_file", "filename": file_name(part), "file_data": data_url(part)}
    raise InputError(
        f"{place} is of type {part.type}, which the Responses API does not take."
        + (" Chat Completions does: api='chat'." if part.type == "audio" else "")
    )
