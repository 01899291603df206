"""Estimating: what a call or a loop would use at least and at most, before anything is sent.

It must not know how a call is made, nor what a budget has left.
"""

from __future__ import annotations

import logging
from decimal import Context, Decimal

from aether.extensions.llm._pricing import Prices
from aether.extensions.llm._worst_case import WorstCase
from aether.llm.estimate import Estimate, Expected
from aether.llm.messages import LLMRequest
from aether.llm.pricing import PriceSource
from aether.llm.sizing import LARGEST_INPUT, estimate_input_tokens
from aether.llm.usage import LedgerEntry

__all__ = ["estimate_calls"]

_EXACT = Context(prec=60)
_log = logging.getLogger("aether.llm")


async def estimate_calls(
    request: LLMRequest, *, provider: str | None, turns: int, prices: PriceSource
) -> Estimate:
    """What up to so many `turns` would use, of which `request` is the first.

    Prices are loaded in a worker thread, if they were not yet. If they cannot be loaded, the cost
    is not known.
    """
    worst = WorstCase(request, provider=provider, model=request.model)
    tokens = estimate_input_tokens(request)
    least_usd = most_usd = None
    try:
        shared = prices if isinstance(prices, Prices) else Prices(prices)
        await shared.ready()
        sent = LedgerEntry(provider, request.model, input_tokens=tokens, output_tokens=0)
        least_usd = shared.cost(sent)
        most_usd = worst.usd(worst.output_tokens, shared)
        if turns > 1 and most_usd is not None:
            later = WorstCase(
                request, provider=provider, model=request.model, input_tokens=LARGEST_INPUT
            ).usd(worst.output_tokens, shared)
            most_usd = None if later is None else _EXACT.fma(later, Decimal(turns - 1), most_usd)
    except Exception as error:  # noqa: BLE001 - a price source is anybody's code
        _log.warning("the price of %r cannot be looked up: %s", request.model, type(error).__name__)
    return Estimate(
        model=request.model,
        least=Expected(1, tokens, 0, None if least_usd is None else float(least_usd)),
        most=Expected(
            turns,
            worst.input_tokens + (turns - 1) * LARGEST_INPUT,
            turns * worst.output_tokens,
            None if most_usd is None else float(most_usd),
        ),
    )
