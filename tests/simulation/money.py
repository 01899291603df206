"""The money truth (I8): the client's ledger against the servers' own, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from aether.extensions.llm.cost_tracking import Usage
from aether.llm.usage import LedgerEntry
from aether.testing.faults import Served
from tests.simulation.calls import Call
from tests.simulation.judging import Judge

__all__ = ["Prices", "check_ledger"]

INPUT, OUTPUT = 3, 7
"""Dollars a token: whole numbers, so that sums are exact."""


class Prices:
    """A price for every model."""

    def load(self) -> None:
        """Nothing is to be loaded."""

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        return Decimal(_price(entry.input_tokens or 0, entry.output_tokens or 0))


def check_ledger(judge: Judge, usage: Usage, calls: Iterable[Call]) -> None:
    """Compare the ledger of one stack with what its servers did."""
    billed = told = answers = 0
    entries: list[LedgerEntry] = []
    for call in calls:
        answers += call.whole
        own = call.context.entries
        entries += own
        same = len(own) == len(call.exchanges)
        judge.check(same, "I8: %s has entries %s for %s", call.tag, own, call.exchanges)
        attempts = zip(own, call.exchanges, call.attempts, strict=False)
        for entry, exchange, attempt in attempts:
            _check_entry(judge, call, entry, exchange.served)
            lost = attempt.content and entry.state not in ("exact", "estimated")
            judge.check(not lost, "I8: %s had an answer, but has %s", call.tag, entry)
            billed += _bill(exchange.served)
            if entry.state in ("exact", "estimated"):
                told += _price(entry.input_tokens or 0, entry.output_tokens or 0)
    exact = all(entry.state in ("exact", "not_billed") for entry in entries)
    judge.check(usage.is_exact == exact, "I8: the usage is not exact, or it is")
    judge.check(usage.total_requests == answers, "I8: %s came back, not %s", answers, usage)
    kept = sorted(map(id, usage.ledger)) == sorted(map(id, entries))
    judge.check(kept, "I8: the ledger has %s entries, not %s", len(usage.ledger), len(entries))
    judge.check(usage.total_cost_usd == told, "I8: %s is told, not %s", usage.total_cost_usd, told)
    doubt = usage.uncertain_cost_usd
    judge.check(abs(billed - told) <= doubt, "I8: %s is billed, %s +- %s told", billed, told, doubt)


def _check_entry(judge: Judge, call: Call, entry: LedgerEntry, served: Served | None) -> None:
    billed = (0, 0) if served is None else (served.input_tokens, served.output_tokens)
    told = (entry.input_tokens, entry.output_tokens)
    holds = {
        "exact": told == billed,
        "estimated": billed != (0, 0),
        "not_billed": billed == (0, 0),
        "unknown": True,
    }.get(entry.state)
    judge.check(holds, "I8: %s is told as %s, but was %s", call.tag, entry, served)


def _bill(served: Served | None) -> int:
    return 0 if served is None else _price(served.input_tokens, served.output_tokens)


def _price(input_tokens: int, output_tokens: int) -> int:
    return INPUT * input_tokens + OUTPUT * output_tokens
