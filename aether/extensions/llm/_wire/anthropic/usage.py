"""What an answer used: input is the sum of three counts that exclude one another.

It must not know a price.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import (
    Tokens,
    count,
    count_of_some,
    counted,
    inner,
    unless_less,
)
from aether.llm.usage import add_known

__all__ = ["parse_usage"]


def parse_usage(usage: Any, *, written: bool) -> Tokens:
    """The counts of an answer in which something is `written`, or nothing. What is no whole number
    of at least 0 is not known.

    What a server-side compaction of the conversation used stands in `iterations` alone, beside
    counts that leave it out.
    """
    if not isinstance(usage, dict):
        return {}
    tokens = _counts(usage)
    iterations = usage.get("iterations")
    for iteration in iterations if isinstance(iterations, list) else ():
        if isinstance(iteration, dict) and iteration.get("type") == "compaction":
            tokens = _sum(tokens, _counts(iteration))
    tokens["input_tokens"] = count_of_some(tokens.get("input_tokens"))
    if written:
        tokens["output_tokens"] = count_of_some(tokens.get("output_tokens"))
    return tokens


def _counts(usage: dict[str, Any]) -> Tokens:
    uncached = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    details = inner(usage, "output_tokens_details")
    output, thought = count(usage.get("output_tokens")), count(details.get("thinking_tokens"))
    if thought:
        output = unless_less(output, thought)
    for_an_hour = inner(usage, "cache_creation").get("ephemeral_1h_input_tokens")
    return {
        "input_tokens": None if uncached is None else uncached + (read or 0) + (written or 0),
        "output_tokens": output,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "reasoning_tokens": thought,
        "token_details": counted(cache_write_1h_tokens=for_an_hour) if for_an_hour else {},
    }


def _sum(tokens: Tokens, more: Tokens) -> Tokens:
    """Both together; without the input or the output of one, that sum is not known."""
    details, others = tokens.get("token_details", {}), more.get("token_details", {})
    return {
        "input_tokens": _both(tokens.get("input_tokens"), more.get("input_tokens")),
        "output_tokens": _both(tokens.get("output_tokens"), more.get("output_tokens")),
        "cache_read_tokens": add_known(
            tokens.get("cache_read_tokens"), more.get("cache_read_tokens")
        ),
        "cache_write_tokens": add_known(
            tokens.get("cache_write_tokens"), more.get("cache_write_tokens")
        ),
        "reasoning_tokens": add_known(tokens.get("reasoning_tokens"), more.get("reasoning_tokens")),
        "token_details": {
            name: details.get(name, 0) + others.get(name, 0) for name in (*details, *others)
        },
    }


def _both(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
