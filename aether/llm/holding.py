"""Holding: what budgets set aside for a call before it, and what becomes of that.

It must not know a price, nor who calls a provider.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aether.llm.budget import Budget

__all__ = ["NOTHING", "Account", "Amount", "Hold", "Left", "Used", "lock"]

_EXACT = Context(prec=60)  # whatever precision a thread has set for itself

lock = threading.Lock()
"""One for all budgets: what is set aside is set aside in a whole chain of them, or in none."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Dollars, tokens of input and output together, and requests."""

    usd: Decimal = Decimal(0)
    tokens: int = 0
    requests: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(
            _EXACT.add(self.usd, other.usd),
            self.tokens + other.tokens,
            self.requests + other.requests,
        )

    def minus(self, other: Amount) -> Amount:
        return Amount(
            _EXACT.subtract(self.usd, other.usd),
            self.tokens - other.tokens,
            self.requests - other.requests,
        )

    def times(self, count: int) -> Amount:
        return Amount(_EXACT.multiply(self.usd, count), self.tokens * count, self.requests * count)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Used:
    """What attempts have used."""

    settled: Amount = NOTHING
    beyond: Amount = NOTHING
    """What they may have used besides: the outcome of some is not known."""
    unpriced: int = 0
    """How many of them have used tokens whose price is not known, or was not looked up."""


class Account:
    """What one budget allows, and what became of it. To be read and changed under the lock."""

    __slots__ = ("beyond", "held", "requests", "spent", "tokens", "unpriced", "usd")

    def __init__(self, usd: Decimal | None, tokens: int | None, requests: int | None) -> None:
        self.usd = usd
        self.tokens = tokens
        self.requests = requests
        self.spent = NOTHING
        self.held = NOTHING
        self.beyond = NOTHING
        self.unpriced = 0

    def left(self, budget: Budget) -> Left:
        gone = self.spent.plus(self.held)
        return Left(
            budget,
            None if self.usd is None else max(Decimal(0), _EXACT.subtract(self.usd, gone.usd)),
            None if self.tokens is None else max(0, self.tokens - gone.tokens),
            None if self.requests is None else max(0, self.requests - gone.requests),
        )


class Left(NamedTuple):
    """What a budget has left; `None` where it has no such limit."""

    budget: Budget
    usd: Decimal | None
    tokens: int | None
    requests: int | None

    def covers(self, need: Amount) -> bool:
        """Whether so much may still be used."""
        return (
            (self.usd is None or need.usd <= self.usd)
            and (self.tokens is None or need.tokens <= self.tokens)
            and (self.requests is None or need.requests <= self.requests)
        )


class Hold:
    """What is set aside for one call, in all of its budgets. It must be settled, come what may.

    The budgets are as `with_parents` gives them.
    """

    __slots__ = ("_budgets", "held")

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = budgets
        self.held = NOTHING
        """What is set aside now."""

    def open(self, need: Amount) -> tuple[Left, ...]:
        """Set `need` aside in each budget. If one has less: what each has left, and nothing is."""
        with lock:
            lefts = tuple(budget.account.left(budget) for budget in self._budgets)
            if not all(left.covers(need) for left in lefts):
                return lefts
            self._replace(Used(), need)
        return ()

    def extend(self, used: Used, need: Amount, *, kept: Amount = NOTHING) -> bool:
        """Spend what was used, and have `kept` and `need` set aside in place of what was.

        `False` if there is no room for `need`: then no more than `kept` is, of what was before.
        """
        with lock:
            self._replace(used, kept)
            if not all(budget.account.left(budget).covers(need) for budget in self._budgets):
                return False
            self._replace(Used(), kept.plus(need))
            return True

    def settle(self, used: Used) -> None:
        """Spend what was used, and give the rest back."""
        with lock:
            self._replace(used, NOTHING)

    def _replace(self, used: Used, need: Amount) -> None:
        for budget in self._budgets:
            account = budget.account
            account.held = account.held.minus(self.held).plus(need)
            account.spent = account.spent.plus(used.settled)
            account.beyond = account.beyond.plus(used.beyond)
            account.unpriced += used.unpriced
        self.held = need
