"""What an answer used, from `usageMetadata`, where unknown is `None` and never 0.

It must not know a price.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.reading import Tokens, count, unless_less

__all__ = ["find_usage", "parse_usage"]

_COUNTS = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")
_DETAILS = {
    "promptTokensDetails": "input_{}_tokens",
    "cacheTokensDetails": "cache_{}_read_tokens",
    "candidatesTokensDetails": "output_{}_tokens",
}
_MODALITIES = {"AUDIO": "audio", "IMAGE": "image", "VIDEO": "video"}
"""Those that may have a price of their own. Documents are counted as text or as images."""


def find_usage(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The usage of an answer or a chunk; one that counts nothing (`trafficType` alone) is none."""
    usage = chunk.get("usageMetadata")
    if type(usage) is dict:
        for name in _COUNTS:
            if count(usage.get(name)) is not None:
                return usage
    return None


def parse_usage(usage: dict[str, Any] | None, *, written: bool) -> Tokens:
    """The counts of an answer in which something is `written`, or nothing. Thoughts stand beside
    the candidates, results of Google's tools beside the prompt, and the total is the sum of these
    four; a count of nothing is left out.
    """
    if usage is None:
        return {}
    prompt = count(usage.get("promptTokenCount"))
    tools = count(usage.get("toolUsePromptTokenCount"))
    candidates = count(usage.get("candidatesTokenCount"))
    thoughts = count(usage.get("thoughtsTokenCount"))
    total = count(usage.get("totalTokenCount"))
    cached = count(usage.get("cachedContentTokenCount"))
    read = None if prompt is None else prompt + (tools or 0)
    output: int | None = (candidates or 0) + (thoughts or 0)
    if candidates is None:  # nothing, or unknown: only the total can tell
        rest = None if read is None or total is None else total - read
        output = rest if rest is not None and rest >= (thoughts or 0) else None
    if cached:
        read = unless_less(read, cached)
    return {
        "input_tokens": read or None,  # there is some: a server that says 0 has not counted
        "output_tokens": output or None if written else output,
        "cache_read_tokens": cached,
        "reasoning_tokens": thoughts,
        "token_details": _details(usage),
    }


def _details(usage: dict[str, Any]) -> dict[str, int]:
    """The tokens by modality. Where those from a cache are told, what is not among them is 0."""
    found: dict[str, int] = {}
    for field, name in _DETAILS.items():
        if field not in usage:
            continue
        listed = usage[field]
        for each in listed if type(listed) is list else ():
            modality = _MODALITIES.get(str(each.get("modality"))) if type(each) is dict else None
            tokens = None if modality is None else count(each.get("tokenCount"))
            if tokens:
                part = name.format(modality)
                found[part] = found.get(part, 0) + tokens
    if usage.get("cacheTokensDetails"):
        for modality in _MODALITIES.values():
            if f"input_{modality}_tokens" in found:
                found.setdefault(f"cache_{modality}_read_tokens", 0)
    return found
