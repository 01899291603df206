"""From messages to the Messages API's system text and turns: order, pairing, what goes back.

It must not know the rest of a request. What can be repaired with certainty is repaired, the rest
is an `InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.anthropic.caching import Breakpoints
from aether.extensions.llm._wire.anthropic.parts import block_of, text_block
from aether.extensions.llm._wire.anthropic.state import (
    Echo,
    call_id,
    container_of,
    echoed,
    is_resumable,
)
from aether.extensions.llm._wire.conversation import paired, place_of
from aether.llm.content import CachePoint, ReasoningPart, TextPart
from aether.llm.messages import Message, ToolCall
from aether.llm.profiles import ModelProfile

__all__ = ["render_messages"]

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_FAILED = "The tool failed."  # a failure without a word is refused

Block = dict[str, Any]


def render_messages(
    messages: Sequence[Message], profile: ModelProfile, model: str
) -> dict[str, Any]:
    """The fields `system`, `messages` and `container` of a body, as far as they are needed.

    Neighbours of one role become one turn, and the results of a turn's calls begin the next one.
    """
    conversation = _Conversation(messages, profile, takes_unsigned="claude" not in model.lower())
    for position, message in paired(messages):
        conversation.add(message, position)
    if not conversation.turns:
        raise InputError("There is no message to answer: all of them are empty or system messages.")
    last = messages[-1]
    ends_open = conversation.turns[-1]["role"] == "assistant"
    if ends_open and profile.prefill is False and not is_resumable(last):
        raise InputError(
            f"The last message is the assistant's, and {model} does not go on with an answer that "
            "was begun. End with a user message."
        )
    if ends_open:
        conversation.trim()
    return conversation.fields()


class _Conversation:
    def __init__(
        self, messages: Sequence[Message], profile: ModelProfile, *, takes_unsigned: bool
    ) -> None:
        self._messages = messages
        self._profile = profile
        # Other vendors' models may sign no thinking and yet want it back: DeepSeek's, Kimi.
        self._takes_unsigned = takes_unsigned
        self._ids: dict[str, str] = {}  # of the latest calls, as they are sent
        self._taken: set[str] = set()
        self._system: list[Block] = []
        self._breakpoints = Breakpoints()
        self._container: str | None = None
        self.turns: list[dict[str, Any]] = []

    def add(self, message: Message, position: int) -> None:
        """One message, which has its position among all of them."""
        if message.role == "system":
            self._add_system(message, position, _following_role(self._messages, position))
        elif message.role == "tool":
            self._add_result(message, position)
        elif message.role == "user":
            self._add_user(message, position)
        else:
            self._add_assistant(message, position)

    def trim(self) -> None:
        """An answer's beginning is refused with white space at its end."""
        block = self.turns[-1]["content"][-1]
        if block["type"] == "text":
            block["text"] = block["text"].rstrip()

    def fields(self) -> dict[str, Any]:
        """What a body needs of them."""
        if self._breakpoints:
            self._breakpoints.mark(self._blocks())
        fields: dict[str, Any] = {}
        if self._system:
            fields["system"] = _shortened(self._system)
        fields["messages"] = [
            {"role": turn["role"], "content": _shortened(turn["content"])} for turn in self.turns
        ]
        if self._container is not None:
            fields["container"] = self._container
        return fields

    @cached_property
    def _turn_start(self) -> int:
        """The position of the user's message that began the latest turn.

        Thinking before it may be left out. Where a model binds its thinking to all that stood
        before it, it must be: a session keeps no tool turns, a system text may change, and then the
        thinking that was kept is refused ("bound to a different conversation").
        """
        start, before = 0, ""
        for position, message in enumerate(self._messages, 1):
            if message.role == "user" and before != "tool":
                start = position
            if message.role != "system":
                before = message.role
        return start

    def _takes_late_system(self, following: str | None) -> bool:
        """Behind a user's turn and before an answer; elsewhere it is refused, and then it stands
        with the system text at the beginning.
        """
        return (
            self._profile.late_system is True
            and bool(self.turns)
            and self.turns[-1]["role"] in ("user", "system")
            and following != "user"
        )

    def _turn(self, role: str) -> list[Block]:
        if not self.turns or self.turns[-1]["role"] != role:
            self.turns.append({"role": role, "content": []})
        content: list[Block] = self.turns[-1]["content"]
        return content

    def _blocks(self) -> list[Block]:
        """All so far, in the order of the prompt."""
        return [*self._system, *(block for turn in self.turns for block in turn["content"])]

    def _add_system(self, message: Message, position: int, following: str | None) -> None:
        late = self._takes_late_system(following)
        for part, block in zip(_parts(message), _text_blocks(message, position), strict=True):
            if isinstance(part, CachePoint):
                self._breakpoints.add(self._blocks() if late else self._system, part.ttl)
            elif block is not None:
                (self._turn("system") if late else self._system).append(block)

    def _add_user(self, message: Message, position: int) -> None:
        blocks = _blocks(message, position)
        if not any(blocks):
            raise InputError(f"Message {position} (user) is empty.")
        for part, block in zip(_parts(message), blocks, strict=True):
            if isinstance(part, CachePoint):
                self._breakpoints.add(self._blocks(), part.ttl)
            elif block is not None:
                self._turn("user").append(block)

    def _add_result(self, message: Message, position: int) -> None:
        content = [block for block in _blocks(message, position) if block is not None]
        call = message.tool_call_id or ""
        result: Block = {"type": "tool_result", "tool_use_id": self._ids[call]}
        if message.is_error:
            if any(block["type"] != "text" for block in content):
                raise InputError(
                    f"Message {position} (tool) is a failure with more than text in it, which "
                    "Anthropic refuses: say in text what went wrong."
                )
            result["is_error"] = True
            content = content or [{"type": "text", "text": _FAILED}]
        if content:
            result["content"] = _shortened(content)
        self._turn("user").append(result)
        self._add_points(message)

    def _add_assistant(self, message: Message, position: int) -> None:
        echo = self._echoed(message, position) if message.provider_state else None
        if echo is None:
            made = [block for block in _text_blocks(message, position) if block is not None]
            made += map(_call, message.tool_calls)
        else:
            more = text_block(echo.text)
            made = [*echo.blocks, *((more,) if more else ()), *map(_call, echo.calls)]
        self._identify(made)
        if made:
            self._turn("assistant").extend(made)
        self._add_points(message)

    def _echoed(self, message: Message, position: int) -> Echo | None:
        in_turn = position >= self._turn_start
        if in_turn:
            self._container = container_of(message) or self._container
        return echoed(
            message,
            thinking=in_turn or not self._profile.binds_thinking,
            unsigned=self._takes_unsigned,
        )

    def _identify(self, blocks: Sequence[Block]) -> None:
        """Give each call an id that the API takes, and no other call has, in whichever turn."""
        self._ids = {}
        for block in blocks:
            if block["type"] == "tool_use":
                given = block["id"]
                made = call_id(given)
                while made in self._taken:
                    made = call_id(f"{made}, {len(self._taken)}")
                self._taken.add(made)
                self._ids[given] = block["id"] = made

    def _add_points(self, message: Message) -> None:
        """Behind all of a message whose blocks are not its parts."""
        if isinstance(message.content, str):
            return
        for part in message.content:
            if isinstance(part, CachePoint):
                self._breakpoints.add(self._blocks(), part.ttl)


def _following_role(messages: Sequence[Message], position: int) -> str | None:
    roles = (message.role for message in messages[position:] if message.role != "system")
    return next(roles, None)


def _parts(message: Message) -> Sequence[Any]:
    """What its content is made of; a text stands for itself."""
    return (message.content,) if isinstance(message.content, str) else message.content


def _blocks(message: Message, position: int) -> list[Block | None]:
    """A block for each of the parts; `None` for one that says nothing."""
    if isinstance(message.content, str):
        return [text_block(message.content)]
    return [
        block_of(part, place_of(message, position, number))
        for number, part in enumerate(message.content, 1)
    ]


def _text_blocks(message: Message, position: int) -> list[Block | None]:
    """The same, where text alone is taken."""
    if isinstance(message.content, str):
        return [text_block(message.content)]
    made: list[Block | None] = []
    for number, part in enumerate(message.content, 1):
        if isinstance(part, TextPart):
            made.append(text_block(part.text))
        elif isinstance(part, ReasoningPart | CachePoint):
            made.append(None)  # its own reasoning stands in the state, that of others goes to none
        else:
            place = place_of(message, position, number)
            raise InputError(f"{place} is of type {part.type}: here Anthropic takes text alone.")
    return made


def _call(call: ToolCall) -> Block:
    name = _NOT_IN_A_NAME.sub("_", call.name)[:64] or "_"  # a model may have made it up
    return {"type": "tool_use", "id": call.id, "name": name, "input": call.arguments}


def _shortened(blocks: Sequence[Block]) -> str | list[Block]:
    """One plain text as a string, which means the same."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return list(blocks)
