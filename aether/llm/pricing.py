"""The port to prices. It must not know a price."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from aether.llm.usage import LedgerEntry
from aether.registry import declare_builtins

__all__ = ["KIND", "PriceSource"]

KIND = "price_source"


class PriceSource(Protocol):
    """Knows what tokens cost.

    Loading may block: it is done in a thread, or where somebody reads a cost. Then a price is there
    at once: a call that a budget limits in dollars asks for some on its way.
    """

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
