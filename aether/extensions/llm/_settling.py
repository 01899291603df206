"""Settling: what attempts have used, read from their ledger entries.

It must not know a budget, nor what was set aside in it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from decimal import Context, Decimal

from aether.extensions.llm._worst_case import most_of
from aether.llm.holding import Amount, Used
from aether.llm.pricing import PriceSource
from aether.llm.usage import LedgerEntry

__all__ = ["Settling"]

_EXACT = Context(prec=60)  # whatever precision the calling thread has set for itself
_log = logging.getLogger("aether.llm")


class Settling:
    """Reads the entries of one call, each once.

    An attempt has the price of the model that answered; if that has none, of the one that was
    asked (`provider` and `model`). Of an output that is not known there was no more than
    `most_output`. An attempt whose price cannot be looked up is taken to have cost `most_usd`.
    """

    __slots__ = (
        "_entries",
        "_model",
        "_most_output",
        "_most_usd",
        "_prices",
        "_provider",
        "_read",
        "attempts",
    )

    def __init__(
        self,
        entries: list[LedgerEntry],
        *,
        prices: PriceSource | None,
        provider: str | None,
        model: str | None,
        most_output: int,
        most_usd: Decimal,
    ) -> None:
        self._entries = entries
        self._read = len(entries)
        self.attempts = 0
        """How many have been read."""
        self._prices = prices
        self._provider = provider
        self._model = model
        self._most_output = most_output
        self._most_usd = most_usd

    def used(self) -> Used:
        """What the attempts have used that have ended since this was asked last."""
        total = Used()
        while self._read < len(self._entries) and self._entries[self._read].state != "pending":
            used = self._used_by(self._entries[self._read])
            total = Used(
                total.settled.plus(used.settled),
                total.beyond.plus(used.beyond),
                total.unpriced + used.unpriced,
            )
            self._read += 1
            self.attempts += 1
        return total

    def _used_by(self, entry: LedgerEntry) -> Used:
        if entry.state == "not_billed":
            return Used(Amount(requests=1))
        most = self._at_most(entry)
        tokens, beyond = _tokens(entry), max(0, _tokens(most) - _tokens(entry))
        try:
            usd, doubt = self._cost(entry, most)
        except Exception as error:  # noqa: BLE001 - a price source is anybody's code
            _log.warning("what %r used cannot be priced: %s", entry.model, type(error).__name__)
            usd, doubt = self._most_usd, Decimal(0)
        return Used(
            Amount(usd or Decimal(0), tokens, 1), Amount(doubt, beyond), unpriced=int(usd is None)
        )

    def _cost(self, entry: LedgerEntry, most: LedgerEntry) -> tuple[Decimal | None, Decimal]:
        """What it has cost, if that is known, and by how much it may have been more."""
        if entry.cost_usd is not None:
            return Decimal(repr(entry.cost_usd)), Decimal(0)
        if self._prices is None:
            return None, Decimal(0)
        told = entry.input_tokens is not None or entry.output_tokens is not None
        cost = self._price(entry) if told else None
        if most is entry:
            return cost, Decimal(0)
        dearest = self._price(most_of(most, self._prices))
        if not told:
            cost = None if dearest is None else Decimal(0)
        if cost is None or dearest is None:
            return cost, Decimal(0)
        return cost, max(Decimal(0), _EXACT.subtract(dearest, cost))

    def _price(self, entry: LedgerEntry) -> Decimal | None:
        if self._prices is None:
            return None
        cost = self._prices.cost(entry)
        if cost is None:
            cost = self._prices.cost(replace(entry, provider=self._provider, model=self._model))
        return cost

    def _at_most(self, entry: LedgerEntry) -> LedgerEntry:
        """The entry with the most that it can have used; itself if its counts are known."""
        most_input, most_output = entry.most_input_tokens, entry.most_output_tokens
        if most_input is None and most_output is None:
            return entry
        if most_output is not None:
            most_output = max(entry.output_tokens or 0, min(most_output, self._most_output))
        return replace(
            entry,
            input_tokens=entry.input_tokens if most_input is None else most_input,
            output_tokens=entry.output_tokens if most_output is None else most_output,
            most_input_tokens=most_input,
            most_output_tokens=most_output,
        )


def _tokens(entry: LedgerEntry) -> int:
    return (entry.input_tokens or 0) + (entry.output_tokens or 0)
