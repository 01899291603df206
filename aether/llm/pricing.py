"""The port to prices. It must not know a price."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from aether.llm.usage import LedgerEntry
from aether.registry import declare_builtins

__all__ = ["KIND", "PriceSource"]

KIND = "price_source"


class PriceSource(Protocol):
    """Knows what tokens cost. Both methods may block: no call to a provider waits for them."""

    def load(self) -> None:
        """Load the prices, if that was not done yet. Safe to call from several threads."""
        ...

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        """What the entry's tokens cost in US dollars; `None` if the model's price is not known.

        Counts that are `None` are not priced. It is also asked what an attempt would have cost that
        had used as much as it can have.
        """
        ...


declare_builtins(KIND, {"genai": "aether.extensions.prices.genai:GenAIPrices"})
