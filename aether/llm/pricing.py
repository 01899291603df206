"""The port to prices. It must not know a price."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from aether.llm.usage import LedgerEntry

__all__ = ["PriceSource"]


class PriceSource(Protocol):
    """Knows what tokens cost. Both methods may block; they are called off the event loop."""

    def load(self) -> None:
        """Load the prices, if that was not done yet. Safe to call from several threads."""
        ...

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        """What the entry's tokens cost in US dollars; `None` if the model's price is not known.

        Counts that are `None` are not priced.
        """
        ...
