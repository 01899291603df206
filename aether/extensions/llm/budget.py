"""Budgets around a provider: what a call may use is set aside before it, and settled after it.

It must not know how a call is made, tried again or counted: it reads the ledger entries that the
call leaves in its context.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from aether.errors import ConfigurationError
from aether.extensions.llm._pricing import Prices
from aether.extensions.llm._reserving import ReservedCall
from aether.extensions.llm._worst_case import WorstCase
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.budget import Budget, with_parents
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.pricing import PriceSource
from aether.llm.sizing import written_beside_text
from aether.llm.wrapper import ProviderWrapper, with_context

__all__ = ["BudgetProvider"]

_log = logging.getLogger("aether.llm")


class BudgetProvider(ProviderWrapper):
    """Holds calls to budgets: its own, those of the call's context, and all their parents.

    Before a call the most that one attempt can use is set aside in each of them, in all or in none:
    a token of input for each byte that is sent, `max_tokens` of output (where that is not set, the
    longest answer of the model, or of any model), at the dearest price for such tokens; and one
    request. Where less is left, `max_tokens` is lowered to it (where it is not set, to no more than
    16,384, or 8,192 if the model's longest answer is not known, which next to all take). Where
    that would leave fewer than 16 tokens, or no request is left, the call is not sent:
    `BudgetExceededError` says what is left. No call waits for others.

    Afterwards, however the call ended, each attempt is settled by its ledger entry: `exact` and
    `estimated` at its tokens and price, or the cost that the provider tells; `unknown` at the
    counts that were told, and what it may have used besides is in `uncertain_usd`; `not_billed` as
    a request. The rest is given back. Before a further attempt an inner layer asks
    `context.reservation.extend()`, which settles the last one and sets the same aside again.

    So the sum of what is settled never passes a limit, where no answer has more tokens than
    `max_tokens`, and the model that answers is no dearer than the one that was asked. If it does,
    the budget says so, and refuses what follows.

    A limit in dollars needs prices: they are loaded, in a worker thread, before the first call that
    needs them. If the model's price is not known, or the prices cannot be loaded, the call is a
    `ConfigurationError`, unless each budget with such a limit ignores it
    (`Budget(unknown_price="ignore")`).

    A call without budgets passes through. `provider` is the name under which a model is priced;
    `clock` is monotonic.
    """

    def __init__(
        self,
        inner: LLMProvider,
        budget: Budget | None = None,
        *,
        provider: str | None = None,
        prices: PriceSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"budget is a Budget, such as Budget(usd=5), not {budget!r}.")
        super().__init__(inner)
        self._budget = budget
        self._provider = provider
        self._prices = prices if isinstance(prices, Prices) else Prices(prices)
        self._clock = clock

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        budgets = self._budgets(request.context)
        if not budgets:
            return await self.inner.complete(request)
        call = await self._begin(request, budgets)
        try:
            response = await self.inner.complete(call.request)
        except BaseException as error:
            call.end(None, error)
            raise
        call.end(response, None)
        return response

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        budgets = self._budgets(request.context)
        if not budgets:
            return super().stream(request)
        return ChunkStream(self._batches_within(budgets, request))

    async def _batches_within(
        self, budgets: Sequence[Budget], request: LLMRequest
    ) -> AsyncGenerator[Batch, None]:
        call = await self._begin(request, budgets)
        last: StreamChunk | None = None
        characters = 0
        try:
            async with open_batches(self.inner, call.request) as batches:
                async for batch in batches:
                    for last in batch:
                        characters += len(last.text) or written_beside_text(last)
                    yield batch
        except BaseException as error:
            call.end(_answer(last), error, characters)
            raise
        call.end(_answer(last), None, characters)

    def settings(self) -> str:
        return "" if self._budget is None else repr(self._budget)

    def _budgets(self, context: CallContext | None) -> tuple[Budget, ...]:
        """What the call is to be held to, and no outer layer holds it to already."""
        if self._budget is None and (context is None or not context.budgets):
            return ()
        budgets = () if self._budget is None else (self._budget,)
        if context is None:
            return with_parents(budgets)
        found = with_parents((*budgets, *context.budgets))
        outer = context.reservation
        held = outer.held if isinstance(outer, ReservedCall) else ()
        return tuple(budget for budget in found if budget not in held) if held else found

    async def _begin(self, request: LLMRequest, budgets: Sequence[Budget]) -> ReservedCall:
        request, context = with_context(request)
        model = request.model or self.default_model
        worst = WorstCase(request, provider=self._provider, model=model)
        prices, priced = await self._ready(worst, budgets)
        call = ReservedCall(request, context, budgets, worst, clock=self._clock)
        call.reserve(prices if priced else None)
        call.settle_by(prices)
        return call

    async def _ready(
        self, worst: WorstCase, budgets: Sequence[Budget]
    ) -> tuple[PriceSource | None, bool]:
        """The prices, where somebody needs them, and whether the call has one."""
        if all(budget.usd is None for budget in budgets):
            return None, False
        try:
            await self._prices.ready()
            known = worst.usd(worst.output_tokens, self._prices) is not None
        except Exception as error:  # noqa: BLE001 - a price source is anybody's code
            self._cannot_price(worst.model, budgets, error)
            return None, False
        if not known:
            self._cannot_price(worst.model, budgets, None)
        return self._prices, known

    def _cannot_price(
        self, model: str | None, budgets: Sequence[Budget], error: Exception | None
    ) -> None:
        """Refuse the call, or say that its dollars are not limited."""
        of = "a model that nobody named" if model is None else repr(model)
        if self._provider is not None:
            of = f"{of} of {self._provider}"
        why = f"the price of {of} is not known"
        if error is not None:
            why = f"the price of {of} cannot be looked up ({type(error).__name__}: {error})"
        for budget in budgets:
            if budget.usd is not None and budget.unknown_price == "refuse":
                raise ConfigurationError(
                    f"Not sent: {why}, and {budget!r} refuses such calls (unknown_price='refuse'). "
                    "Ask a model with a price, limit tokens or requests in place of dollars, or "
                    "let it ignore what such calls cost: Budget(..., unknown_price='ignore')."
                ) from error
        level = logging.DEBUG if error is None else logging.WARNING
        _log.log(level, "a call is not limited in dollars: %s", why)


def _answer(last: object) -> LLMResponse | StreamChunk | None:
    """What a stream came back with: nothing, if its last chunk is not final, or is no chunk."""
    if not isinstance(last, StreamChunk) or not last.is_final:
        return None
    return last.response or last
