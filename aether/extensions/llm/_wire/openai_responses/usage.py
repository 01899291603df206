"""What an answer used, where unknown is `None` and never 0.

It must not know a price, but reads what the server says that it cost.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import (
    Tokens,
    count,
    count_of_some,
    inner,
    reported_cost,
    unless_less,
)

__all__ = ["parse_usage"]


def parse_usage(usage: Any, *, written: bool) -> Tokens:
    """The counts of an answer in which something is `written`, or nothing. What is no whole number
    of at least 0 is not known.
    """
    if not isinstance(usage, dict):
        return {}
    read = inner(usage, "input_tokens_details")
    details = inner(usage, "output_tokens_details")
    input_tokens = count_of_some(usage.get("input_tokens"))
    output_tokens = (count_of_some if written else count)(usage.get("output_tokens"))
    cached, stored = count(read.get("cached_tokens")), count(read.get("cache_write_tokens"))
    reasoning = count(details.get("reasoning_tokens"))
    if cached or stored:
        input_tokens = unless_less(input_tokens, cached, stored)
    if reasoning:
        output_tokens = unless_less(output_tokens, reasoning)
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_tokens": cached,
        "cache_write_tokens": stored,
        "reasoning_tokens": reasoning,
        "cost_usd": reported_cost(usage),
    }
