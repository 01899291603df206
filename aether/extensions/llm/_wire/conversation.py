"""Conversations that can be sent: what every protocol demands of the order of messages.

It must not know a protocol. What can be repaired with certainty is repaired; the rest is an
`InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias

from aether.errors import InputError
from aether.llm.content import ContentPart, ReasoningPart
from aether.llm.messages import Message

__all__ = ["call_id_within", "paired", "place_of"]

_Results: TypeAlias = dict[str, tuple[int, Message] | None]
"""Tool calls by their ids, in their order, each with the message that has its result."""


def place_of(message: Message, position: int, number: int) -> str:
    """How an error names a part of a message: both are counted from 1."""
    return f"Message {position} ({message.role}), part {number}"


def paired(messages: Sequence[Message]) -> Iterator[tuple[int, Message]]:
    """The messages with their positions, each tool message with the id of the call it answers.

    Each tool call must have its result before anything else is said. Results come in the order of
    their calls, whatever order they were given in. A single result needs no id.
    """
    if not messages:
        raise InputError("There are no messages to send.")
    results: _Results = {}
    missing = 0
    for position, message in enumerate(messages, 1):
        role = message.role
        if role == "tool":
            call_id = message.tool_call_id
            if call_id is None:
                call_id = _only_one(results, position)
                message = message.model_copy(update={"tool_call_id": call_id})  # noqa: PLW2901 - mended
            if call_id not in results or results[call_id] is not None:
                raise InputError(
                    f"Message {position} is the result of the tool call {call_id!r}, which the "
                    "assistant message before it did not make, or which has a result already."
                )
            results[call_id] = position, message
            missing -= 1
            if not missing:
                yield from filter(None, results.values())
                results = {}
            continue
        if results:
            raise InputError(
                f"Message {position} ({role}) comes before the results of the tool calls "
                f"{', '.join(_missing(results))}. Put a tool message for each of them before it."
            )
        if role == "user" and not isinstance(message.content, str):
            _check_user(message.content, message, position)
        if message.tool_calls:
            results = _none_yet(message, position)
            missing = len(results)
        yield position, message
    if results:
        raise InputError(
            "The messages end before the results of the tool calls "
            f"{', '.join(_missing(results))}. Add a tool message for each of them."
        )


def call_id_within(most: int, call_id: str) -> str:
    """The id of a call with at most so many characters: the same text always gives the same id."""
    return call_id if len(call_id) <= most else f"call_{sha256(call_id.encode()).hexdigest()[:24]}"


def _none_yet(message: Message, position: int) -> _Results:
    """The message's calls, without a result."""
    calls = message.tool_calls
    results: _Results = dict.fromkeys([call.id for call in calls])
    if message.role != "assistant":
        raise InputError(
            f"Message {position} ({message.role}) has tool calls, which only an assistant "
            "message can make."
        )
    if len(results) < len(calls):
        raise InputError(f"Message {position} has two tool calls with the same id.")
    return results


def _missing(results: _Results) -> list[str]:
    return [call_id for call_id, result in results.items() if result is None]


def _only_one(results: _Results, position: int) -> str:
    """The call without a result, if there is one."""
    missing = _missing(results)
    if len(missing) != 1:
        raise InputError(
            f"Message {position} (tool) has no tool_call_id. It must be the id of a tool call of "
            "the assistant message before it that has no result yet."
        )
    return missing[0]


def _check_user(parts: Sequence[ContentPart], message: Message, position: int) -> None:
    for number, part in enumerate(parts, 1):
        if isinstance(part, ReasoningPart):
            raise InputError(
                f"{place_of(message, position, number)} is of type reasoning, which a user's "
                "message may hold none of: it is what a model thought."
            )
