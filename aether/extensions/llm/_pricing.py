"""Prices on demand: a price source that is made and loaded when it is first needed.

It must not know a price, nor what is priced.
"""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

from aether.llm.pricing import KIND, PriceSource
from aether.llm.usage import LedgerEntry
from aether.registry import default_registry

__all__ = ["Prices"]


class Prices:
    """A `PriceSource` around another, or the built-in one. Threads and loops may share it."""

    __slots__ = ("_lock", "_source", "loaded")

    def __init__(self, source: PriceSource | None = None) -> None:
        self._source = source
        self._lock = threading.Lock()
        self.loaded = False
        """Whether a price can be asked for without waiting."""

    async def ready(self) -> None:
        """Load the prices in a worker thread, if that was not done yet."""
        if not self.loaded:
            await asyncio.to_thread(self.load)

    def load(self) -> None:
        self._loaded()

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        return self._loaded().cost(entry)

    def _loaded(self) -> PriceSource:
        source = self._source
        if source is not None and self.loaded:
            return source
        with self._lock:
            source = self._source or self._builtin()
            if not self.loaded:
                source.load()
                self._source = source
                self.loaded = True
        return source

    @staticmethod
    def _builtin() -> PriceSource:
        source: PriceSource = default_registry.get(KIND, "genai")()
        return source
