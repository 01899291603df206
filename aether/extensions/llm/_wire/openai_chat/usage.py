"""What an answer used: one reading of the many nestings, where unknown is `None` and never 0.

It must not know a price, but reads what the server says that it cost.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import (
    Tokens,
    count,
    count_of_some,
    counted,
    first_count,
    inner,
    reported_cost,
    unless_less,
)

__all__ = ["find_usage", "parse_usage"]


def find_usage(body: dict[str, Any]) -> dict[str, Any] | None:
    """The usage object of an answer or a chunk; Groq's older one stands inside `x_groq`."""
    usage = body.get("usage")
    if not usage and "x_groq" in body:
        groq = body["x_groq"]
        usage = groq.get("usage") if type(groq) is dict else None
    return usage if usage and type(usage) is dict else None


def parse_usage(usage: dict[str, Any] | None, *, written: bool) -> Tokens:
    """The counts of an answer in which something is `written`, or nothing. What is no whole number
    of at least 0 is not known.

    The total settles what a server leaves out: Mistral's input leaves out audio, and Gemini's
    compatible server and xAI's output leave out reasoning. Perplexity's leaves it out of the total
    as well, and tells it outside of the details: what is more than the output is no part of it.
    """
    if usage is None:
        return {"token_details": {}}
    read = inner(usage, "prompt_tokens_details")
    details = inner(usage, "completion_tokens_details")
    input_tokens = count_of_some(usage.get("prompt_tokens"))
    output_tokens = count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    if input_tokens is not None and output_tokens is not None and total is not None:
        missing = total - input_tokens - output_tokens
        if missing > 0 and missing == count(read.get("audio_tokens")):
            input_tokens += missing
        elif missing > 0:
            output_tokens += missing
    reasoning = count(details.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = count(usage.get("reasoning_tokens"))
        if reasoning is not None and output_tokens is not None and reasoning > output_tokens:
            output_tokens += reasoning
    cached = count(read.get("cached_tokens"))
    if cached is None:  # DeepSeek's, and Together's
        cached = first_count(usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
    stored = count(read.get("cache_write_tokens"))
    if cached or stored:
        input_tokens = unless_less(input_tokens, cached, stored)
    if reasoning:
        output_tokens = unless_less(output_tokens, reasoning)
    token_details: dict[str, int] = {}
    if any(read.values()) or any(details.values()):
        token_details = counted(
            input_audio_tokens=read.get("audio_tokens"),
            input_image_tokens=read.get("image_tokens"),
            output_audio_tokens=details.get("audio_tokens"),
            output_image_tokens=details.get("image_tokens"),
        )
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens or None if written else output_tokens,
        "cache_read_tokens": cached,
        "cache_write_tokens": stored,
        "reasoning_tokens": reasoning,
        "cost_usd": reported_cost(usage),
        "token_details": token_details,
    }
