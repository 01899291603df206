"""What of an answer must go back as it came: its blocks, where plain text and calls say less.

It must not know where it is kept but for one entry of a message's `provider_state`. Signed
thinking, citations and the blocks of server-side tools have no neutral form; thinking that comes
back changed, or tool blocks without it, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from aether.llm.messages import Message, ToolCall

__all__ = [
    "OWN_TYPES",
    "PROVIDER",
    "THINKING_TYPES",
    "Echo",
    "call_id",
    "container_of",
    "echoed",
    "is_resumable",
    "is_said",
    "state_of",
]

PROVIDER = "anthropic"
THINKING_TYPES = ("thinking", "redacted_thinking")

_ID = re.compile(r"[a-zA-Z0-9_-]+")
OWN_TYPES = ("text", "tool_use", *THINKING_TYPES)

Block = dict[str, Any]


def state_of(content: Sequence[Block], container: str | None = None) -> dict[str, Any]:
    """The state that a message keeps for Anthropic; empty if its text and calls say it all.

    `container` is where the server's code ran: what goes on there must name it.
    """
    state: dict[str, Any] = {}
    if [_bare(block) for block in content if is_said(block, unsigned=True)] != _plain(content):
        state["content"] = list(content)
    if container is not None:
        state["container"] = container
    return state


class Echo(NamedTuple):
    """The blocks of a message as they came, and what it says beyond them."""

    blocks: list[Block]
    text: str
    calls: list[ToolCall]


def echoed(message: Message, *, thinking: bool, unsigned: bool) -> Echo | None:
    """What is to be sent again; `None` if no blocks were kept, or if the message was edited.

    Without what the API refuses of its own answers: text that says nothing, thinking that was cut
    off before its signature (other servers sign none: `unsigned`), and thinking that nothing
    follows. Without all thinking, if `thinking` is false.
    """
    content = _content(message)
    more = None if content is None else _beyond(content, message)
    if content is None or more is None:
        return None
    blocks = [dict(block) for block in content if is_said(block, unsigned=unsigned)]
    if not thinking:
        blocks = [block for block in blocks if block["type"] not in THINKING_TYPES]
    while blocks and blocks[-1]["type"] in THINKING_TYPES:
        del blocks[-1]
    return Echo(blocks, *more)


def is_resumable(message: Message) -> bool:
    """Whether the message ends in the middle of a server-side tool's work, and so may stand at the
    end of a conversation.
    """
    content = _content(message)
    return content is not None and _is_open(content) and _beyond(content, message) == ("", [])


def container_of(message: Message) -> str | None:
    """The container that the message's code ran in."""
    state = message.provider_state.get(PROVIDER)
    container = state.get("container") if isinstance(state, dict) else None
    return container if isinstance(container, str) else None


def is_said(block: Block, *, unsigned: bool) -> bool:
    """Whether the API takes the block back: not text without a word, nor unsigned thinking, but
    where that is taken.
    """
    if block["type"] == "text":
        return bool(str(block.get("text") or "").strip())
    if block["type"] != "thinking":
        return True
    return bool(block.get("signature") or (unsigned and block.get("thinking")))


def call_id(given: str) -> str:
    """A call's id as the API takes it: the same text always gives the same id."""
    return given if _ID.fullmatch(given) else f"toolu_{sha256(given.encode()).hexdigest()[:24]}"


def _content(message: Message) -> list[Block] | None:
    state = message.provider_state.get(PROVIDER)
    content = state.get("content") if isinstance(state, dict) else None
    if not isinstance(content, list) or not content:
        return None
    blocks = [block for block in content if isinstance(block, dict) and "type" in block]
    return blocks if len(blocks) == len(content) else None


def _is_open(content: Sequence[Block]) -> bool:
    """Whether the blocks end in the middle of a server-side tool's work."""
    return content[-1]["type"] not in OWN_TYPES


def _beyond(content: Sequence[Block], message: Message) -> tuple[str, list[ToolCall]] | None:
    """The text and the calls that the message has behind those of the blocks: what came when an
    open turn went on, and needed no blocks of its own. `None` if it was edited.
    """
    text = _text(content)
    calls = [
        (block.get("id"), block.get("name"), block.get("input"))
        for block in content
        if block["type"] == "tool_use"
    ]
    made = [(call.id, call.name, call.arguments) for call in message.tool_calls]
    if not message.text.startswith(text) or made[: len(calls)] != calls:
        return None
    more = message.text[len(text) :], message.tool_calls[len(calls) :]
    return more if _is_open(content) or more == ("", []) else None


def _text(content: Sequence[Block]) -> str:
    return "".join(str(block.get("text") or "") for block in content if block["type"] == "text")


def _plain(content: Sequence[Block]) -> list[Block]:
    """The blocks that would be written from the text and the calls alone."""
    text = _text(content)
    blocks: list[Block] = [{"type": "text", "text": text}] if text.strip() else []
    blocks += [
        {name: block.get(name) for name in ("type", "id", "name", "input")}
        for block in content
        if block["type"] == "tool_use"
    ]
    return blocks


def _bare(block: Block) -> Block:
    return {name: value for name, value in block.items() if value is not None}
