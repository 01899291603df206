"""From messages to Gemini's contents: roles, parts, pairing, what must be echoed.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.conversation import paired, place_of
from aether.extensions.llm._wire.gemini.echo import (
    FOREIGN_SIGNATURE,
    neutral_parts,
    recalled_parts,
)
from aether.extensions.llm._wire.gemini.parts import (
    PROVIDER,
    check_media,
    content_part,
    result_part,
)
from aether.llm.content import CachePoint, ReasoningPart, TextPart
from aether.llm.messages import Message
from aether.llm.profiles import ModelProfile

__all__ = ["Conversation", "render_messages"]

Parts = list[dict[str, Any]]


class Conversation:
    """`system` are the parts of the system instruction, `contents` the turns in their order."""

    def __init__(self) -> None:
        self.system: Parts = []
        self.contents: list[dict[str, Any]] = []

    def say(self, role: str, parts: Parts) -> None:
        """Add to the turn under way, if it is of the same role; there are two, `user` and
        `model`.
        """
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"] += parts
        elif parts:
            self.contents.append({"role": role, "parts": list(parts)})


def render_messages(messages: Sequence[Message], profile: ModelProfile) -> Conversation:
    """All system messages together, wherever they stand, and the rest turn about.

    Results of tools are the user's turn, in the order of their calls.
    """
    made = Conversation()
    functions: dict[str, dict[str, Any]] = {}
    # From Gemini 3 on, calls are signed, and results may hold media.
    signs = profile.thinking == "level"
    for position, message in paired(messages):
        if message.role == "system":
            text = _text(message, position)
            made.system += [{"text": text}] if text else []
        elif message.role == "user":
            made.say("user", _user(message, position))
        elif message.role == "assistant":
            parts = _assistant(message, position, signs=signs)
            calls = [part["functionCall"] for part in parts if "functionCall" in part]
            functions = {
                call.id: wired for call, wired in zip(message.tool_calls, calls, strict=True)
            }
            made.say("model", parts)
        else:
            called = functions[message.tool_call_id or ""]
            takes_media = None if profile.thinking is None else signs
            made.say("user", [result_part(message, position, called, takes_media=takes_media)])
    if not made.contents:
        raise InputError("There is no message but the system's: Gemini needs one of the user.")
    return made


def _user(message: Message, position: int) -> Parts:
    content = message.content
    if isinstance(content, str):
        parts = [{"text": content}] if content else []
    else:
        parts = []
        for number, part in enumerate(content, 1):
            if isinstance(part, CachePoint) or (isinstance(part, TextPart) and not part.text):
                continue
            place = place_of(message, position, number)
            check_media(part, place)
            parts.append(content_part(part, place))
    if not parts:
        raise InputError(f"Message {position} (user) is empty.")
    return parts


def _assistant(message: Message, position: int, *, signs: bool) -> Parts:
    parts = recalled_parts(message)
    if parts is not None:
        return parts
    parts = neutral_parts(message, position)
    calls = message.tool_calls
    if signs and calls and PROVIDER not in calls[0].provider_state:
        first = next(part for part in parts if "functionCall" in part)
        first["thoughtSignature"] = FOREIGN_SIGNATURE
    return parts


def _text(message: Message, position: int) -> str:
    if not isinstance(message.content, str):
        for number, part in enumerate(message.content, 1):
            if not isinstance(part, TextPart | ReasoningPart | CachePoint):
                raise InputError(
                    f"{place_of(message, position, number)} is of type {part.type}: here Gemini "
                    "takes text alone."
                )
    return message.text
