"""Conversations that can be sent: what every protocol demands of the order of messages.

It must not know a protocol. What can be repaired with certainty is repaired; the rest is an
`InputError` that names the message by its position, from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aether.errors import InputError
from aether.llm.messages import Message

__all__ = ["paired"]


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
            call_id = _answered(message, [each for each in expected if each not in results])
            if call_id is None:
                raise InputError(
                    f"Message {position} is the result of the tool call {message.tool_call_id!r}, "
                    "which the assistant message before it did not make, or which has a result "
                    "already."
                )
            if message.tool_call_id is None:
                message = message.model_copy(update={"tool_call_id": call_id})  # noqa: PLW2901
            results[call_id] = (position, message)
            if len(results) == len(expected):
                yield from (results[each] for each in expected)
                expected, results = [], {}
            continue
        missing = [each for each in expected if each not in results]
        if missing:
            raise InputError(
                f"Message {position} ({message.role}) comes before the results of the tool calls "
                f"{', '.join(missing)}. Put a tool message for each of them before it."
            )
        expected = [call.id for call in message.tool_calls]
        if expected and message.role != "assistant":
            raise InputError(
                f"Message {position} ({message.role}) has tool calls, which only an assistant "
                "message can make."
            )
        if len(set(expected)) < len(expected):
            raise InputError(f"Message {position} has two tool calls with the same id.")
        yield position, message
    missing = [each for each in expected if each not in results]
    if missing:
        raise InputError(
            f"The messages end before the results of the tool calls {', '.join(missing)}. Add a "
            "tool message for each of them."
        )


def _answered(message: Message, unanswered: Sequence[str]) -> str | None:
    call_id = message.tool_call_id
    if call_id is None and len(unanswered) == 1:
        return unanswered[0]
    return call_id if call_id in unanswered else None
