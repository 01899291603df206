"""Breakpoints for prompt caches: how a server is told what comes again.

It must not know how messages are made. Servers that cache by themselves, or not at all, are told
nothing.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._vendors import Vendor, is_among
from aether.llm.content import CachePoint
from aether.llm.profiles import profile_for

__all__ = ["Breakpoints"]

MOST = 4
"""The latest of them count: OpenAI writes no more, and Anthropic refuses a fifth."""


class Breakpoints:
    """The breakpoints of one request."""

    def __init__(self, vendor: Vendor, model: str) -> None:
        self._field: str | None = None
        if vendor.openai_models and profile_for(model).cache_breakpoints:
            self._field = "prompt_cache_breakpoint"
        elif is_among(model, vendor.cache_control_models):
            self._field = "cache_control"
        self._marked: list[dict[str, Any]] = []

    def put(self, point: CachePoint, message: dict[str, Any] | None) -> None:
        """Mark the end of what the message says so far; one that says nothing has none."""
        part = None if self._field is None or message is None else _last_part(message)
        if self._field is None or part is None:
            return
        if self._field == "cache_control":
            part[self._field] = {"type": "ephemeral", "ttl": point.ttl}
        else:  # its shortest time to live, which is the default, is 30 minutes
            part[self._field] = {"mode": "explicit"}
        if all(part is not marked for marked in self._marked):
            self._marked.append(part)
        if len(self._marked) > MOST:
            del self._marked.pop(0)[self._field]


def _last_part(message: dict[str, Any]) -> dict[str, Any] | None:
    content = message.get("content")
    if isinstance(content, str) and content:
        content = message["content"] = [{"type": "text", "text": content}]
    if not content:
        return None
    part: dict[str, Any] = content[-1]
    return part
