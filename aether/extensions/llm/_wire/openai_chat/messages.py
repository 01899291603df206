"""From messages to Chat Completions' messages: roles, parts, pairing, what must be echoed.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor
from aether.llm.content import AudioPart, FilePart, ImagePart, ReasoningPart, TextPart
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
    if not messages:
        raise InputError("There are no messages to send.")
    rendered: list[dict[str, Any]] = []
    unanswered: list[str] = []
    for position, message in enumerate(messages, 1):
        if message.role == "tool":
            call_id = _pair(message, unanswered, position)
            text = _text(message, position)
            made = {"role": "tool", "tool_call_id": _call_id(call_id, vendor), "content": text}
            rendered.append(made)
            continue
        if unanswered:
            raise InputError(
                f"Message {position} ({message.role}) comes before the results of the tool calls "
                f"{', '.join(unanswered)}. Put a tool message for each of them before it."
            )
        if message.role == "user":
            rendered.append({"role": "user", "content": _user_content(message, vendor, position)})
        elif message.role == "assistant":
            made = _assistant(message, vendor, position)
            if len(made) > 1:  # one that says nothing is refused by some, and means nothing to any
                rendered.append(made)
            unanswered = _call_ids(message, position)
        else:
            text = _text(message, position)
            if text:
                rendered.append({"role": "system", "content": text})
    if unanswered:
        raise InputError(
            f"The messages end before the results of the tool calls {', '.join(unanswered)}. "
            "Add a tool message for each of them."
        )
    return rendered


def _pair(message: Message, unanswered: list[str], position: int) -> str:
    call_id = message.tool_call_id
    if call_id is None and len(unanswered) == 1:
        call_id = unanswered[0]
    if call_id is None or call_id not in unanswered:
        raise InputError(
            f"Message {position} is the result of the tool call {call_id!r}, which the assistant "
            "message before it did not make, or which has a result already."
        )
    unanswered.remove(call_id)
    return call_id


def _call_ids(message: Message, position: int) -> list[str]:
    ids = [call.id for call in message.tool_calls]
    if len(set(ids)) < len(ids):
        raise InputError(f"Message {position} has two tool calls with the same id.")
    return ids


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
            if not isinstance(part, TextPart | ReasoningPart):
                raise InputError(
                    f"Message {position} ({message.role}) has a part of type {part.type}: here "
                    "the provider takes text alone."
                )
    return message.text


def _user_content(message: Message, vendor: Vendor, position: int) -> str | list[dict[str, Any]]:
    content = message.content
    if not isinstance(content, str):
        parts = [_part(part, vendor, position) for part in content]
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
        return {"type": "image_url", "image_url": {"url": part.url or _data_url(part)}}
    if isinstance(part, AudioPart) and part.data is not None:
        audio_format = _AUDIO_FORMATS.get(part.media_type or "")
        if audio_format is None:
            raise InputError(
                f"Message {position} has audio of type {part.media_type}: the provider takes "
                "audio/wav and audio/mpeg."
            )
        data = b64encode(part.data).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": audio_format}}
    if isinstance(part, FilePart) and part.data is not None:
        named = {"filename": part.name} if part.name else {}
        return {"type": "file", "file": {**named, "file_data": _data_url(part)}}
    raise InputError(
        f"Message {position} (user) has a part of type {part.type} that the provider cannot take"
        + (" by its URL: pass its data." if isinstance(part, AudioPart | FilePart) else ".")
    )


def _data_url(part: ImagePart | FilePart) -> str:
    return f"data:{part.media_type};base64,{b64encode(part.data or b'').decode()}"
