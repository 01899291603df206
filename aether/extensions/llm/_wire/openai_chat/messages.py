"""From messages to Chat Completions' messages: roles, parts, pairing, what must be echoed.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.conversation import paired
from aether.extensions.llm._wire.media import base64_of, check_url, data_url
from aether.llm.content import (
    AudioPart,
    CachePoint,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
)
from aether.llm.messages import Message, ToolCall

__all__ = ["render_messages"]

ECHOED_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "refusal")
"""Fields of an answer that go back, under the same name, to the server that gave them."""
CALL_STATE = "extra_content"
"""The same of a tool call: where Gemini's compatible server keeps a thought's signature."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def render_messages(messages: Sequence[Message], vendor: Vendor) -> list[dict[str, Any]]:
    """The messages in order. Each tool call must have its result before anything else is said."""
    rendered: list[dict[str, Any]] = []
    for position, message in paired(messages):
        if message.role == "tool":
            call_id = _call_id(message.tool_call_id or "", vendor)
            text = _text(message, position)
            rendered.append({"role": "tool", "tool_call_id": call_id, "content": text})
        elif message.role == "user":
            rendered.append({"role": "user", "content": _user_content(message, vendor, position)})
        elif message.role == "assistant":
            made = _assistant(message, vendor, position)
            if len(made) > 1:  # one that says nothing is refused by some, and means nothing to any
                rendered.append(made)
        else:
            text = _text(message, position)
            if text:
                rendered.append({"role": "system", "content": text})
    return rendered


def _assistant(message: Message, vendor: Vendor, position: int) -> dict[str, Any]:
    state = message.provider_state.get(vendor.name)
    echoed = {}
    if isinstance(state, dict):
        echoed = {name: state[name] for name in ECHOED_FIELDS if name in state}
    made: dict[str, Any] = {"role": "assistant"}
    text = _text(message, position)
    if text or message.tool_calls or echoed:
        made["content"] = text  # "" and not null, which some chat templates refuse
    if message.tool_calls:
        made["tool_calls"] = [_call(call, vendor, position) for call in message.tool_calls]
        if vendor.required_reasoning is not None:
            made[vendor.required_reasoning] = ""
    return made | echoed


def _call(call: ToolCall, vendor: Vendor, position: int) -> dict[str, Any]:
    try:
        arguments = to_json(call.arguments).decode()
    except ValueError as error:
        raise InputError(
            f"Message {position} calls {call.name!r} with arguments that JSON cannot hold."
        ) from error
    name = _NOT_IN_A_NAME.sub("_", call.name)[:64] or "_"  # a model may have made it up
    made: dict[str, Any] = {
        "id": _call_id(call.id, vendor),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    state = call.provider_state.get(vendor.name)
    if isinstance(state, dict) and CALL_STATE in state:
        made[CALL_STATE] = state[CALL_STATE]
    return made


def _call_id(call_id: str, vendor: Vendor) -> str:
    """The id as the server takes it: the same text always gives the same id."""
    if not vendor.short_call_ids or _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(sha256(call_id.encode()).digest()[:8])
    return "".join(_DIGITS[number // 36**place % 36] for place in range(9))


def _text(message: Message, position: int) -> str:
    if not isinstance(message.content, str):
        for part in message.content:
            if not isinstance(part, TextPart | ReasoningPart | CachePoint):
                raise InputError(
                    f"Message {position} ({message.role}) has a part of type {part.type}: here "
                    "the provider takes text alone."
                )
    return message.text


def _user_content(message: Message, vendor: Vendor, position: int) -> str | list[dict[str, Any]]:
    content = message.content
    if not isinstance(content, str):
        parts = [
            _part(part, vendor, position) for part in content if not isinstance(part, CachePoint)
        ]
        if all(part["type"] == "text" for part in parts) and len(parts) <= 1:
            content = message.text
        else:
            return parts
    if not content:
        raise InputError(f"Message {position} (user) is empty.")
    return content


def _part(part: Any, vendor: Vendor, position: int) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.type in vendor.refused_parts:
        raise InputError(
            f"Message {position} has a part of type {part.type}: {vendor.name} takes none."
        )
    if isinstance(part, ImagePart):
        url = data_url(part) if part.url is None else check_url(part, position)
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(part, AudioPart) and part.data is not None:
        audio_format = _AUDIO_FORMATS.get(part.media_type or "")
        if audio_format is None:
            raise InputError(
                f"Message {position} has audio of type {part.media_type}: the provider takes "
                "audio/wav and audio/mpeg."
            )
        sound = {"data": base64_of(part), "format": audio_format}
        return {"type": "input_audio", "input_audio": sound}
    if isinstance(part, FilePart) and part.data is not None:
        named = {"filename": part.name} if part.name else {}
        return {"type": "file", "file": {**named, "file_data": data_url(part)}}
    raise InputError(
        f"Message {position} (user) has a part of type {part.type} that the provider cannot take"
        + (" by its URL: pass its data." if isinstance(part, AudioPart | FilePart) else ".")
    )
