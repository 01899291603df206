"""What an answer used, from `usageMetadata`, where unknown is `None` and never 0.

It must not know a price.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import Tokens, count

__all__ = ["find_usage", "parse_usage"]

_COUNTS = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")


def find_usage(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The usage of an answer or a chunk; one that counts nothing (`trafficType` alone) is none."""
    usage = chunk.get("usageMetadata")
    if type(usage) is not dict or all(count(usage.get(name)) is None for name in _COUNTS):
        return None
    return usage


def parse_usage(usage: dict[str, Any] | None) -> Tokens:
    """The counts. Thoughts stand beside the candidates, results of Google's tools beside the
    prompt, and the total is the sum of these four; a count of nothing is left out.
    """
    if usage is None:
        return Tokens()
    prompt = count(usage.get("promptTokenCount"))
    tools = count(usage.get("toolUsePromptTokenCount"))
    candidates = count(usage.get("candidatesTokenCount"))
    thoughts = count(usage.get("thoughtsTokenCount"))
    total = count(usage.get("totalTokenCount"))
    read = None if prompt is None else prompt + (tools or 0)
    written: int | None = (candidates or 0) + (thoughts or 0)
    if candidates is None:  # nothing, or unknown: only the total can tell
        rest = None if read is None or total is None else total - read
        written = rest if rest is not None and rest >= (thoughts or 0) else None
    return Tokens(
        input=read,
        output=written,
        cache_read=count(usage.get("cachedContentTokenCount")),
        reasoning=thoughts,
    )
