"""From messages to Chat Completions' messages: roles, parts, pairing, what must be echoed.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor
from aether.extensions.llm._wire.conversation import call_id_within, paired, place_of
from aether.extensions.llm._wire.host_state import own_state
from aether.extensions.llm._wire.media import (
    base64_of,
    check_type,
    check_url,
    data_url,
    file_name,
    plain_type,
)
from aether.extensions.llm._wire.openai_chat.caching import Breakpoints
from aether.extensions.llm._wire.openai_chat.output_media import TRANSCRIPT
from aether.llm.content import (
    AudioPart,
    CachePoint,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
)
from aether.llm.messages import Message, ToolCall

__all__ = ["CALL_STATE", "CONTENT", "render_messages", "text_of"]

REFUSAL = "refusal"
ECHOED_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", REFUSAL)
"""Fields of an answer that go back, under the same name, to the server that gave them; those that
hold reasoning not to one that never does, which shares its name with one that does."""
CONTENT = "content"
"""The same of content that is more than text, such as Mistral's thinking, while its text is the
message's."""
CALL_STATE = "extra_content"
"""The same of a tool call: where Gemini's compatible server keeps a thought's signature."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/mp4": "m4a"}  # others by the name of their type


def render_messages(
    messages: Sequence[Message], vendor: Vendor, model: str, *, now: float
) -> list[dict[str, Any]]:
    """The messages in order. Each tool call must have its result before anything else is said.

    `now` is the time in seconds since the epoch: sound that the server has forgotten is not
    named to it.
    """
    writer = _Writer(vendor, model, now)
    for position, message in paired(messages):
        writer.add(message, position)
    return writer.written


class _Writer:
    """Writes the messages of one request, one after the other."""

    def __init__(self, vendor: Vendor, model: str, now: float) -> None:
        self.written: list[dict[str, Any]] = []
        self._vendor = vendor
        self._model = model
        self._now = now

    @cached_property
    def _breakpoints(self) -> Breakpoints:
        return Breakpoints(self._vendor, self._model)

    def add(self, message: Message, position: int) -> None:
        """The next message, unless it says nothing."""
        role, content = message.role, message.content
        made: dict[str, Any] = {"role": role}
        if role == "tool":
            made["tool_call_id"] = _call_id(message.tool_call_id or "", self._vendor)
        if isinstance(content, str):
            made["content"] = content
        elif role == "user":
            vendor = self._vendor
            self._add_parts(made, message, position, lambda part, place: _part(part, vendor, place))
        else:
            self._add_text(made, message, position)
        if role == "user":
            if not made["content"]:
                raise InputError(f"Message {position} (user) is empty.")
            if self._vendor.bridge and self.written and self.written[-1]["role"] == "tool":
                self.written.append({"role": "assistant", "content": self._vendor.bridge})
        elif role == "assistant":
            self._add_answer(made, message, position)
            if len(made) == 1:
                return  # some refuse an empty one
        elif role == "system" and not made["content"]:
            return
        self.written.append(made)

    def _add_text(self, made: dict[str, Any], message: Message, position: int) -> None:
        """Parts as text alone: one string, but for breakpoints in it."""
        answers = message.role == "assistant"

        def written(part: ContentPart, place: str) -> dict[str, Any] | None:
            if isinstance(part, TextPart):
                return {"type": "text", "text": part.text} if part.text else None
            if isinstance(part, ReasoningPart) or (answers and self._adds_media(made, part)):
                return None
            raise InputError(f"{place} is of type {part.type}: here the provider takes text alone.")

        self._add_parts(made, message, position, written)
        said = made["content"]
        if isinstance(said, list) and all(part.keys() == {"type", "text"} for part in said):
            made["content"] = "".join(part["text"] for part in said)

    def _add_answer(self, made: dict[str, Any], message: Message, position: int) -> None:
        """What stands beside the content, and the content only where it says anything."""
        vendor, calls = self._vendor, message.tool_calls
        echoed = self._echoed(made, message) if message.provider_state else None
        if "audio" in made:
            made[CONTENT] = self._unspoken(message)
        beside = calls or echoed or "images" in made
        if not made[CONTENT] and ("audio" in made or not beside):
            del made[CONTENT]  # and else "", not null, which some chat templates refuse
        if calls:
            made["tool_calls"] = [_call(call, vendor, position) for call in calls]
            if vendor.required_reasoning is not None:
                made[vendor.required_reasoning] = ""
        if echoed:
            made.update(echoed)

    def _echoed(self, made: dict[str, Any], message: Message) -> dict[str, Any]:
        """The fields that go back as they came. So does content, if it still says the same."""
        vendor = self._vendor
        known = own_state(message.provider_state, vendor.name, vendor.state_host) or {}
        if not vendor.echoes_reasoning:
            return {REFUSAL: known[REFUSAL]} if REFUSAL in known else {}
        raw = known.get(CONTENT)
        if isinstance(raw, list) and text_of(raw) == message.text:
            made[CONTENT] = [dict(part) if isinstance(part, dict) else part for part in raw]
        return {name: known[name] for name in ECHOED_FIELDS if name in known}

    def _add_parts(
        self,
        made: dict[str, Any],
        message: Message,
        position: int,
        written: Callable[[Any, str], dict[str, Any] | None],
    ) -> None:
        said: list[dict[str, Any]] = []
        made["content"] = said
        for number, part in enumerate(message.content, 1):
            if isinstance(part, CachePoint):
                before = made if said else self.written[-1] if self.written else None
                self._breakpoints.put(part, before)
                continue
            wired = written(part, place_of(message, position, number))
            if wired is not None:
                said.append(wired)
        if len(said) == 1 and said[0].keys() == {"type", "text"}:
            made["content"] = said[0]["text"]

    def _adds_media(self, made: dict[str, Any], part: ContentPart) -> bool:
        """Whether the part is sound or an image that a model made, and what goes back of it."""
        if not isinstance(part, AudioPart | ImagePart):
            return False
        state = own_state(part.provider_state, self._vendor.name, self._vendor.state_host)
        if isinstance(part, ImagePart):
            if state is None or not self._vendor.shown_images:
                return False
            url = part.url or data_url(part)
            image = {"type": "image_url", "image_url": {"url": url}}
            made.setdefault("images", []).append(image)
            return True
        if state and state.get("id"):
            expires_at = state.get("expires_at")
            if not isinstance(expires_at, int) or expires_at > self._now:
                made["audio"] = {"id": state["id"]}
        return bool(part.provider_state)  # the text beside it says the same

    def _unspoken(self, message: Message) -> str:
        """The text that the sound, which goes back, does not say."""
        texts = (part for part in message.content if isinstance(part, TextPart))
        own = self._vendor.name
        return "".join(part.text for part in texts if part.provider_state.get(own) != TRANSCRIPT)


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
    if call.provider_state and vendor.echoes_reasoning:
        state = own_state(call.provider_state, vendor.name, vendor.state_host) or {}
        if CALL_STATE in state:
            made[CALL_STATE] = state[CALL_STATE]
    return made


def _call_id(call_id: str, vendor: Vendor) -> str:
    """The id as the server takes it: the same text always gives the same id."""
    if vendor.longest_call_id is not None and len(call_id) > vendor.longest_call_id:
        return call_id_within(vendor.longest_call_id, call_id)
    if not vendor.short_call_ids or _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(sha256(call_id.encode()).digest()[:8])
    return "".join(_DIGITS[number // 36**place % 36] for place in range(9))


def text_of(content: Sequence[Any]) -> str:
    """The text of a list of parts as a server writes them."""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


def _part(part: Any, vendor: Vendor, place: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.type in vendor.refused_parts:
        raise InputError(f"{place} is of type {part.type}: {vendor.name} takes none.")
    if vendor.media_types is not None and part.type != "file" and part.data is not None:
        check_type(part, place, takes=vendor.media_types, provider=vendor.name)
    if isinstance(part, ImagePart):
        url = data_url(part) if part.url is None else check_url(part, place)
        return {"type": "image_url", "image_url": {"url": url}}
    if vendor.bare_media and isinstance(part, FilePart):
        url = data_url(part) if part.url is None else check_url(part, place)
        named = {"document_name": part.name} if part.name else {}
        return {"type": "document_url", "document_url": url, **named}
    if isinstance(part, AudioPart) and part.data is not None:
        if vendor.bare_media:
            return {"type": "input_audio", "input_audio": base64_of(part)}
        media_type = plain_type(part)
        audio_format = _AUDIO_FORMATS.get(media_type, media_type.removeprefix("audio/"))
        sound = {"data": base64_of(part), "format": audio_format}
        return {"type": "input_audio", "input_audio": sound}
    if isinstance(part, FilePart) and part.data is not None:
        return {"type": "file", "file": {"filename": file_name(part), "file_data": data_url(part)}}
    raise InputError(
        f"{place} is of type {part.type}, which the provider cannot take"
        + (" by its URL: pass its data." if isinstance(part, AudioPart | FilePart) else ".")
    )
