"""A conversation as every chat template understands it: plain text, turn about.

It must not know the engine. Many templates take one system message, at the front, and refuse two
turns of one role in a row; few have words for tools. So system messages are joined, neighbours of
one role too, tools are described in the system message, and calls and results are told as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aether.errors import InputError
from aether.llm.content import CachePoint, ReasoningPart, TextPart
from aether.llm.messages import Message, ToolSpec

__all__ = ["render_messages"]

# Short, because a small model repeats long instructions instead of following them.
_TOOLS = """\
You can use these tools:
{tools}

To use a tool, reply with {{"tool": name, "arguments": {{...}}}}. \
To answer, reply with {{"answer": text}}."""

# Without it, a small model answers a result with the same call, again and again.
_AFTER_RESULTS = "Now answer, or use another tool if you need one."


def render_messages(
    messages: Sequence[Message], tools: Sequence[ToolSpec] = ()
) -> list[dict[str, str]]:
    """Messages of `role` and `content`. `InputError` if there are none, or one is not text."""
    if not messages:
        raise InputError("The request has no messages.")
    system = [_text(message) for message in messages if message.role == "system"]
    if tools:
        system.append(_TOOLS.format(tools="\n".join(map(_describe, tools))))
    rendered: list[dict[str, str]] = []
    if system:
        rendered.append({"role": "system", "content": _joined(system)})
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "system":
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        role, content = _turn(message, names)
        if rendered and rendered[-1]["role"] == role:
            rendered[-1]["content"] = _joined([rendered[-1]["content"], content])
        else:
            rendered.append({"role": role, "content": content})
    if tools and messages[-1].role == "tool":
        rendered[-1]["content"] = _joined([rendered[-1]["content"], _AFTER_RESULTS])
    return rendered


def _turn(message: Message, names: Mapping[str, str]) -> tuple[str, str]:
    text = _text(message)
    if message.role == "tool":
        outcome = "Error" if message.is_error else "Result"
        name = names.get(message.tool_call_id or "")
        return "user", f"{outcome} of {name}: {text}" if name else f"{outcome}: {text}"
    calls = [_json({"tool": call.name, "arguments": call.arguments}) for call in message.tool_calls]
    return message.role, _joined([text, *calls])


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if not isinstance(part, TextPart | ReasoningPart | CachePoint):
            raise InputError(
                f"The local provider reads text only; the {message.role} message has a part of "
                f"type {part.type!r}. Leave it out, or use a provider that takes it."
            )
    return message.text


def _describe(tool: ToolSpec) -> str:
    parameters = dict(tool.parameters)
    # With definitions the whole schema is needed, else the properties say it in fewer words.
    shown = parameters if "$defs" in parameters else parameters.get("properties", {})
    return f"- {tool.name}: {tool.description} Arguments: {_json(shown)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text)
