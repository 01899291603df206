"""Payloads of events: copies that a subscriber may change without changing the run.

It must not know an event, nor who listens.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

from aether.llm.messages import LLMRequest, LLMResponse, Message, ToolCall

__all__ = ["payload_of"]

T = TypeVar("T")


def payload_of(value: Any) -> Any:
    """A copy of a request, response or call, in depth; of its tools and anything else, the thing.

    A tool is one object wherever it is offered, and its handler may be a method of anything.
    """
    match value:
        case LLMRequest():
            return value.replace(
                messages=tuple(map(_message, value.messages)),
                output_schema=_apart(value.output_schema),
                extra_body=_apart(value.extra_body),
                extra_headers=dict(value.extra_headers),
                context=None,  # the run's own: whoever asks with the copy makes another call
            )
        case LLMResponse():
            copied = _apart(value.model_copy(update={"output": None}))
            return copied.model_copy(update={"output": _apart(value.output)})
        case ToolCall():
            return value.model_copy(
                update={
                    "arguments": _apart(value.arguments),
                    "provider_state": _apart(value.provider_state),
                }
            )
    return value


def _message(message: Message) -> Message:
    if isinstance(message.content, str) and not (message.tool_calls or message.provider_state):
        return message.model_copy(update={"tool_calls": [], "provider_state": {}})  # as most are
    return _apart(message)


def _apart(value: T) -> T:
    """A copy that shares nothing that can change; of what cannot be copied, the thing itself."""
    try:
        return deepcopy(value)
    except Exception:  # noqa: BLE001 - anything may stand in arguments, and be an output
        return value
