"""What an answer used: input is the sum of three counts that exclude one another.

It must not know a price.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import Tokens, count, counted
from aether.llm.usage import add_known

__all__ = ["parse_usage"]


def parse_usage(usage: Any) -> Tokens:
    """The counts. What is no whole number of at least 0 is not known.

    What a server-side compaction of the conversation used stands in `iterations` alone, beside
    counts that leave it out.
    """
    if not isinstance(usage, dict):
        return Tokens()
    tokens = _counts(usage)
    iterations = usage.get("iterations")
    for iteration in iterations if isinstance(iterations, list) else ():
        if isinstance(iteration, dict) and iteration.get("type") == "compaction":
            tokens = _sum(tokens, _counts(iteration))
    return tokens


def _counts(usage: dict[str, Any]) -> Tokens:
    uncached = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    details = usage.get("output_tokens_details")
    lifetimes = usage.get("cache_creation")
    for_an_hour = (
        lifetimes.get("ephemeral_1h_input_tokens") if isinstance(lifetimes, dict) else None
    )
    return Tokens(
        input=None if uncached is None else uncached + (read or 0) + (written or 0),
        output=count(usage.get("output_tokens")),
        cache_read=read,
        cache_write=written,
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        details=counted(cache_write_1h_tokens=for_an_hour),
    )


def _sum(tokens: Tokens, more: Tokens) -> Tokens:
    """Both together; without the input or the output of one, that sum is not known."""
    return Tokens(
        input=None if tokens.input is None or more.input is None else tokens.input + more.input,
        output=None
        if tokens.output is None or more.output is None
        else tokens.output + more.output,
        cache_read=add_known(tokens.cache_read, more.cache_read),
        cache_write=add_known(tokens.cache_write, more.cache_write),
        reasoning=add_known(tokens.reasoning, more.reasoning),
        details={
            name: tokens.details.get(name, 0) + more.details.get(name, 0)
            for name in (*tokens.details, *more.details)
        },
    )
