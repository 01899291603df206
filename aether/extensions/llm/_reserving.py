"""Reserving: one call with what budgets have set aside for it, from before it to its end.

It must not know how the call is made, nor where prices come from.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal

from aether.errors import BudgetExceededError
from aether.extensions.llm._settling import Settling
from aether.extensions.llm._worst_case import WorstCase
from aether.llm.accounting import account_for
from aether.llm.budget import Budget, in_dollars
from aether.llm.call import CallContext
from aether.llm.holding import NOTHING, Amount, Hold, Left, Used
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.pricing import PriceSource
from aether.llm.sizing import LARGEST_INPUT

__all__ = ["LEAST_OUTPUT", "ReservedCall"]

LEAST_OUTPUT = 16
"""`max_tokens` is lowered to no less: some APIs refuse it, and nobody could use the answer."""

_log = logging.getLogger("aether.llm")


class ReservedCall:
    """One call with what is set aside for it: its `Reservation`.

    It goes on with a context of its own, whose entries are the caller's: an outer layer may branch
    off others meanwhile, which have to be held to the same budgets.
    """

    __slots__ = (
        "_attempts",
        "_clock",
        "_context",
        "_first_entry",
        "_hold",
        "_need",
        "_outer",
        "_outer_context",
        "_output_tokens",
        "_prices",
        "_settling",
        "_started",
        "_worst",
        "held",
        "request",
    )

    def __init__(
        self,
        request: LLMRequest,
        context: CallContext,
        budgets: Sequence[Budget],
        worst: WorstCase,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._outer_context = context
        self._context = copy.copy(context)
        self._first_entry = len(context.entries)
        self._context.budgets = ()  # whatever is called in its place is held to them here
        self.request = request.replace(context=self._context)
        self._hold = Hold(budgets)
        self._worst = worst
        self._prices: PriceSource | None = None
        self._attempts = 1
        """For how many it was set aside so far."""
        self._outer = context.reservation
        self.held: Sequence[Budget] = budgets
        """Those that this layer, or one around it, holds the call to."""
        if isinstance(self._outer, ReservedCall):
            self.held = (*budgets, *self._outer.held)
        self._clock = clock
        self._started = clock()

    def reserve(self, prices: PriceSource | None) -> None:
        """Set aside the most that it can use, or as much as there is; else refuse it.

        Without prices it is not limited in dollars.
        """
        self._prices = prices
        worst = self._worst
        output = worst.output_tokens
        least = min(output, LEAST_OUTPUT) if worst.can_be_lowered else output
        need = self._needed(output)
        while lefts := self._hold.open(need):
            # Others set aside and give back meanwhile: each time it asks for less.
            lowered = self._affordable(lefts, least, output)
            if lowered is None or lowered >= output:
                raise self._refusal(lefts, self._needed(least))
            output = lowered
            need = self._needed(output)
        self._need = need
        self._output_tokens = output
        self._context.reservation = self
        if output < worst.output_tokens:
            self.request = self.request.replace(max_tokens=output)
            _log.warning("max_tokens is lowered to %d: a budget has no more left", output)

    def settle_by(self, prices: PriceSource | None) -> None:
        """Have what it uses priced by these."""
        self._settling = Settling(
            self._context.entries,
            prices=prices,
            provider=self._worst.provider,
            model=self._worst.model,
            most_output=self._output_tokens,
            most_usd=self._need.usd,
        )

    def extend(self) -> bool:
        """Settle the attempts that have ended, and set the same aside for one more.

        What is set aside for others stays, as they may be under way: no entry tells of them yet.
        """
        need = self._need.plus(self._read_again())
        used = self._settling.used()
        under_way = max(0, self._attempts - self._settling.attempts)
        if not self._hold.extend(used, need, kept=self._need.times(under_way)):
            return False
        self._attempts += 1
        return self._outer is None or self._outer.extend()

    def end(
        self,
        answer: LLMResponse | StreamChunk | None,
        error: BaseException | None,
        characters: int = 0,
    ) -> None:
        """Settle it, whatever became of it."""
        context, outer = self._context, self._outer_context
        context.reservation = None  # they hold each other
        used = Used(self._hold.held)  # if it cannot be said
        if not isinstance(answer, LLMResponse | StreamChunk):
            answer = None  # a third party may return anything
        try:
            account_for(
                context,
                self.request,
                first=self._first_entry,
                provider=self._worst.provider,
                model=self._worst.model,
                seconds=self._clock() - self._started,
                answer=answer,
                error=error,
                characters=characters,
            )
            used = self._settling.used()
        finally:
            self._hold.settle(used)
            outer.accounted, outer.queued = context.accounted, context.queued

    def _needed(self, output_tokens: int) -> Amount:
        worst, prices = self._worst, self._prices
        usd = None if prices is None else worst.usd(output_tokens, prices)
        return Amount(usd or Decimal(0), worst.input_tokens + output_tokens, 1)

    def _read_again(self) -> Amount:
        """With each further part of an answer that comes in parts, those before it are read."""
        parts = self._context.entries[self._first_entry :]
        tokens = sum(part.output_tokens or 0 for part in parts if part.error is None)
        if not tokens:
            return NOTHING
        usd = None if self._prices is None else self._worst.usd_of_input(tokens, self._prices)
        return Amount(usd or Decimal(0), tokens)

    def _affordable(self, lefts: Sequence[Left], least: int, output: int) -> int | None:
        """The most tokens of output, at most `output`, that all have enough for."""
        output = min(output, self._worst.largest_limit)
        for left in lefts:
            if left.requests == 0:
                return None
            if left.tokens is not None:
                output = min(output, left.tokens - self._worst.input_tokens)
        if output < least:
            return None
        dollars = [left.usd for left in lefts if left.usd is not None]
        if dollars and self._prices is not None:
            return self._worst.most_output_for(min(dollars), self._prices, least, output)
        return output

    def _refusal(self, lefts: Sequence[Left], need: Amount) -> BudgetExceededError:
        left = next((left for left in lefts if not left.covers(need)), lefts[0])
        worst = self._worst
        of = "" if worst.model is None else f" of {worst.model!r}"
        advice = "Raise the limit."
        if left.requests == 0:
            lack = f"has no request left for this call{of}"
        else:
            tokens = left.tokens is not None and left.tokens < need.tokens
            lack = (
                f"has too little left for this call{of}, which may use "
                f"{f'{need.tokens} tokens' if tokens else in_dollars(need.usd)}: "
                f"{worst.input_tokens} tokens of input at most, and "
                f"{need.tokens - worst.input_tokens} of output"
            )
            advice = "Shorten the messages, or raise the limit."
            if worst.input_tokens >= LARGEST_INPUT or not worst.can_be_lowered:
                advice = (
                    "Something in it may be of any length (a document, or a field of extra_body), "
                    "so that the most that any model takes is counted. Leave it out, or raise the "
                    "limit."
                )
        if left.budget.account.held.requests:
            advice = (
                "Calls under way have the most that they may use set aside until they end. Make "
                f"fewer at once, or give each a lower max_tokens. {advice}"
            )
        return BudgetExceededError(
            f"Not sent: {left.budget!r} {lack}. {advice}",
            remaining_usd=None if left.usd is None else float(left.usd),
            remaining_tokens=left.tokens,
            remaining_requests=left.requests,
            provider=self._worst.provider,
            model=worst.model,
        )
