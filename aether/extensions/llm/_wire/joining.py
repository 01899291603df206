"""Joining the parts of an answer that came in several.

It must not know why it did.
"""

from __future__ import annotations

from typing import Any, TypeVar

from aether.llm.content import ContentPart, ProviderState, TextPart
from aether.llm.messages import LLMResponse, Message
from aether.llm.usage import add_known

__all__ = ["joined"]

N = TypeVar("N", int, float)


def joined(first: LLMResponse, second: LLMResponse) -> LLMResponse:
    """One response: texts and calls one behind the other, tokens added, the end of the second.

    Input or output tokens, or a cost, that one of them did not report make the sum unknown.
    """
    calls = [*first.tool_calls, *second.tool_calls]
    reasoning = (first.reasoning or "") + (second.reasoning or "")
    return second.model_copy(
        update={
            "text": first.text + second.text,
            "reasoning": reasoning or None,
            "tool_calls": calls,
            "input_tokens": _both(first.input_tokens, second.input_tokens),
            "output_tokens": _both(first.output_tokens, second.output_tokens),
            "cache_read_tokens": add_known(first.cache_read_tokens, second.cache_read_tokens),
            "cache_write_tokens": add_known(first.cache_write_tokens, second.cache_write_tokens),
            "reasoning_tokens": add_known(first.reasoning_tokens, second.reasoning_tokens),
            "token_details": {
                name: first.token_details.get(name, 0) + second.token_details.get(name, 0)
                for name in (*first.token_details, *second.token_details)
            },
            "cost_usd": _both(first.cost_usd, second.cost_usd),
            "message": Message(
                "assistant",
                _content(first.message, second.message),
                tool_calls=calls,
                provider_state=_state(first.message, second.message),
            ),
        }
    )


def _both(a: N | None, b: N | None) -> N | None:
    return None if a is None or b is None else a + b


def _content(first: Message, second: Message) -> str | list[ContentPart]:
    if isinstance(first.content, str) and isinstance(second.content, str):
        return first.content + second.content
    return [*_parts(first), *_parts(second)]


def _parts(message: Message) -> list[ContentPart]:
    if isinstance(message.content, str):
        return [TextPart(text=message.content)] if message.content else []
    return message.content


def _state(first: Message, second: Message) -> ProviderState:
    """Of each provider's state, lists are put one behind the other; else the second counts."""
    state: dict[str, Any] = {**first.provider_state}
    for provider, later in second.provider_state.items():
        earlier = state.get(provider)
        if isinstance(earlier, dict) and isinstance(later, dict):
            state[provider] = {**earlier, **later} | {
                name: [*earlier[name], *value]
                for name, value in later.items()
                if isinstance(value, list) and isinstance(earlier.get(name), list)
            }
        else:
            state[provider] = later
    return state
