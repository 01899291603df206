"""What of an answer must go back to Gemini, and how a message remembers it.

A thought's signature belongs to the part that it came with: it is neither moved nor merged, and a
part without any text may carry one ("Thought signatures" in Gemini's documentation). Where the
text and the calls of a message would not give back what came, its parts are kept as they came.
It must not know the rest of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from aether.extensions.llm._wire.conversation import place_of
from aether.extensions.llm._wire.gemini.parts import (
    MEDIA,
    PROVIDER,
    call_part,
    content_part,
    state_of,
)
from aether.extensions.llm._wire.host_state import restated
from aether.extensions.llm._wire.media import Media, base64_of
from aether.llm.content import ContentPart, TextPart
from aether.llm.messages import LLMRequest, Message

__all__ = ["FOREIGN_SIGNATURE", "PartsKept", "neutral_parts", "recalled_parts", "without_state"]

FOREIGN_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini's documentation gives for a call that was not made by a model that signs."""

_DIGEST = "sha256"


class PartsKept:
    """The parts of an answer in their order, as they are to go back.

    Texts in pieces are joined, as long as nothing but text is in them. Bytes are not kept twice:
    a digest stands for those that are in the message's content.
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._thought = False

    def add_text(self, text: str, *, thought: bool) -> None:
        """A piece of text that came with nothing beside it."""
        if text:
            if thought != self._thought:
                self._close()
                self._thought = thought
            self._pieces.append(text)

    def add(self, part: dict[str, Any]) -> None:
        """Any other part."""
        self._close()
        self._parts.append(part)

    def add_media(self, part: dict[str, Any], data: bytes) -> None:
        """A part with bytes that are in the message's content as well."""
        blob = {key: value for key, value in part["inlineData"].items() if key != "data"}
        self.add({**part, "inlineData": {**blob, _DIGEST: sha256(data).hexdigest()}})

    def needed(self, message: Message) -> list[dict[str, Any]] | None:
        """What the message must keep, if its content and calls are not enough."""
        parts = self._joined()
        return None if _filled(parts, message.content) == neutral_parts(message, 0) else parts

    def all(self) -> list[dict[str, Any]]:
        return self._joined()

    def _joined(self) -> list[dict[str, Any]]:
        return [*self._parts, *self._open()]

    def _open(self) -> list[dict[str, Any]]:
        if not self._pieces:
            return []
        thought = {"thought": True} if self._thought else {}
        return [{"text": "".join(self._pieces), **thought}]

    def _close(self) -> None:
        self._parts += self._open()
        self._pieces = []


def neutral_parts(message: Message, position: int) -> list[dict[str, Any]]:
    """An assistant message as its text, media and calls alone say it."""
    content = message.content
    if isinstance(content, str):
        said = [{"text": content}] if content else []
    else:
        said = [
            content_part(part, place_of(message, position, number))
            for number, part in enumerate(content, 1)
            if isinstance(part, MEDIA) or (isinstance(part, TextPart) and _says(part))
        ]
    return [*said, *map(call_part, message.tool_calls)]


def recalled_parts(message: Message) -> list[dict[str, Any]] | None:
    """The parts that the message came from, if it still says the same; else `None`."""
    state = state_of(message.provider_state)
    stored = state.get("parts")
    if not isinstance(stored, list) or not all(isinstance(part, dict) for part in stored):
        return None
    parts = _filled(stored, message.content)
    if parts is None:
        return None
    text = "".join(
        part["text"]
        for part in parts
        if isinstance(part.get("text"), str) and not part.get("thought")
    )
    functions = [part["functionCall"] for part in parts if "functionCall" in part]
    if not all(isinstance(function, dict) for function in functions):
        return None
    made = [(function.get("name"), function.get("args") or {}) for function in functions]
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    if text == message.text and made == calls:
        return parts
    if "continuationToken" not in state:
        return None
    # The answer went on after these parts, and what came then needed no parts of its own.
    if not message.text.startswith(text) or calls[: len(made)] != made:
        return None
    rest = message.text[len(text) :]
    return [
        *parts,
        *([{"text": rest}] if rest else []),
        *map(call_part, message.tool_calls[len(made) :]),
    ]


def without_state(request: LLMRequest) -> LLMRequest | None:
    """The request without anything that Gemini gave to be sent back; `None` if there is nothing."""
    messages = tuple(map(_forgetful, request.messages))
    same = all(a is b for a, b in zip(messages, request.messages, strict=True))
    return None if same else request.replace(messages=messages)


def _says(part: TextPart) -> bool:
    return bool(part.text or state_of(part.provider_state))


def _filled(
    parts: Sequence[dict[str, Any]], content: str | list[ContentPart]
) -> list[dict[str, Any]] | None:
    """The parts with their bytes, if the content still has just these, in this order."""
    media = iter(()) if isinstance(content, str) else _media_in(content)
    filled = []
    for part in parts:
        blob = part.get("inlineData")
        if isinstance(blob, dict) and _DIGEST in blob:
            found = next(media, None)
            if found is None or sha256(found.data or b"").hexdigest() != blob[_DIGEST]:
                return None
            rest = {key: value for key, value in blob.items() if key != _DIGEST}
            part = {**part, "inlineData": {**rest, "data": base64_of(found)}}  # noqa: PLW2901 - a copy
        filled.append(part)
    return filled if next(media, None) is None else None


def _media_in(content: list[ContentPart]) -> Iterator[Media]:
    return (part for part in content if isinstance(part, MEDIA))


def _forgetful(message: Message) -> Message:
    return restated(message, _others) if message.role == "assistant" else message


def _others(provider_state: dict[str, Any]) -> dict[str, Any]:
    if PROVIDER not in provider_state:
        return provider_state
    return {name: state for name, state in provider_state.items() if name != PROVIDER}
