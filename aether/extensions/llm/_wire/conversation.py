"""Conversations that can be sent: what every protocol demands of the order of messages.

It must not know a protocol. What can be repaired with certainty is repaired; the rest is an
`InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from aether.errors import InputError
from aether.llm.content import ContentPart, ReasoningPart
from aether.llm.messages import Message

__all__ = ["call_id_within", "paired", "place_of"]


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
    expected: list[str] = []
    results: dict[str, tuple[int, Message]] = {}
    for position, message in enumerate(messages, 1):
        if message.role == "tool":
            call_id = _answered(message, expected, results)
            if call_id is None and message.tool_call_id is None:
                raise InputError(
                    f"Message {position} (tool) has no tool_call_id. It must be the id of a tool "
                    "call of the assistant message before it that has no result yet."
                )
            if call_id is None:
                raise InputError(
                    f"Message {position} is the result of the tool call {message.tool_call_id!r}, "
                    "which the assistant message before it did not make, or which has a result "
                    "already."
                )
            if message.tool_call_id is None:
                message = message.model_copy(update={"tool_call_id": call_id})  # noqa: PLW2901 - mended
            results[call_id] = (position, message)
            if len(results) == len(expected):
                for each in expected:
                    yield results[each]
                expected, results = [], {}
            continue
        if expected:
            raise InputError(
                f"Message {position} ({message.role}) comes before the results of the tool calls "
                f"{_missing(expected, results)}. Put a tool message for each of them before it."
            )
        if message.role == "user" and not isinstance(message.content, str):
            _check_user(message.content, message, position)
        if message.tool_calls:
            expected = _calls_of(message, position)
        yield position, message
    if expected:
        raise InputError(
            "The messages end before the results of the tool calls "
            f"{_missing(expected, results)}. Add a tool message for each of them."
        )


def call_id_within(most: int, call_id: str) -> str:
    """The id of a call with at most so many characters: the same text always gives the same id."""
    return call_id if len(call_id) <= most else f"call_{sha256(call_id.encode()).hexdigest()[:24]}"


def _calls_of(message: Message, position: int) -> list[str]:
    """The ids of the message's calls."""
    calls = [call.id for call in message.tool_calls]
    if message.role != "assistant":
        raise InputError(
            f"Message {position} ({message.role}) has tool calls, which only an assistant "
            "message can make."
        )
    if len(set(calls)) < len(calls):
        raise InputError(f"Message {position} has two tool calls with the same id.")
    return calls


def _missing(expected: Sequence[str], results: Mapping[str, object]) -> str:
    return ", ".join(each for each in expected if each not in results)


def _check_user(parts: Sequence[ContentPart], message: Message, position: int) -> None:
    for number, part in enumerate(parts, 1):
        if isinstance(part, ReasoningPart):
            raise InputError(
                f"{place_of(message, position, number)} is of type reasoning, which a user's "
                "message may hold none of: it is what a model thought."
            )


def _answered(
    message: Message, expected: Sequence[str], results: Mapping[str, object]
) -> str | None:
    call_id = message.tool_call_id
    if call_id is not None:
        return call_id if call_id in expected and call_id not in results else None
    unanswered = [each for each in expected if each not in results]
    return unanswered[0] if len(unanswered) == 1 else None
