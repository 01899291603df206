"""Breakpoints of the prompt cache: from cache points in messages to marks on blocks.

It must not know how blocks are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

__all__ = ["MOST_BREAKPOINTS", "Breakpoints"]

MOST_BREAKPOINTS = 4
"""A request with more is refused."""

Block = dict[str, Any]
Lifetime = Literal["5m", "1h"]


class Breakpoints:
    """Collects cache points, each with the block before it, and then marks these blocks."""

    def __init__(self) -> None:
        self._lifetimes: dict[int, Lifetime] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._lifetimes)

    def add(self, blocks: Sequence[Block], lifetime: Lifetime) -> None:
        """A point behind these blocks, which do not end in thinking: that cannot be marked. Behind
        nothing it means nothing; of two behind the same block, the longer lifetime counts.
        """
        if blocks and self._lifetimes.get(id(blocks[-1])) != "1h":
            self._lifetimes[id(blocks[-1])] = lifetime

    def mark(self, blocks: Sequence[Block]) -> None:
        """Mark the latest four of all blocks of a prompt, which are given in their order.

        What is kept for an hour must not stand behind what is kept for less, so that an earlier
        point is kept as long as a later one.
        """
        points = [block for block in blocks if id(block) in self._lifetimes][-MOST_BREAKPOINTS:]
        lifetime: Lifetime = "5m"
        for block in reversed(points):
            if self._lifetimes[id(block)] == "1h":
                lifetime = "1h"
            block["cache_control"] = {"type": "ephemeral", "ttl": lifetime}
