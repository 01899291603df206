"""The most and the least that an attempt can cost, and the most that a request may use.

It must not know why anyone asks: a ledger that was not told all, a budget, or an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Context, Decimal

from aether.llm.messages import LLMRequest
from aether.llm.pricing import PriceSource
from aether.llm.profiles import profile_for
from aether.llm.sizing import LARGEST_OUTPUT, brings_more_in, input_token_bound, output_token_bound
from aether.llm.usage import LedgerEntry

__all__ = ["WorstCase", "least_of", "most_of"]

TAKEN = 8_192
"""A `max_tokens` that next to all models take, whatever their longest answer is."""

USUAL = 16_384
"""A longer answer may take longer than an answer may that is not streamed, and is rarely wanted."""

_EXACT = Context(prec=60)  # whatever precision the calling thread has set for itself
_GUESSES = 4


class WorstCase:
    """The most that one attempt of a request can use, and what that costs.

    `input_tokens` and `output_tokens` are bounds. The output is `max_tokens`; where that is not
    set, the longest answer of the model, or of any model. What asks for a price raises what the
    table raises.
    """

    __slots__ = (
        "_dearest_input",
        "_last",
        "can_be_lowered",
        "input_tokens",
        "largest_limit",
        "model",
        "output_tokens",
        "provider",
    )

    def __init__(
        self,
        request: LLMRequest,
        *,
        provider: str | None,
        model: str | None,
        input_tokens: int | None = None,
    ) -> None:
        self.provider = provider
        self.model = model
        self.input_tokens = input_token_bound(request) if input_tokens is None else input_tokens
        known = None if model is None else profile_for(model).max_output_tokens
        self.output_tokens = LARGEST_OUTPUT if known is None else known
        self.largest_limit = TAKEN if known is None else min(known, USUAL)
        """No larger `max_tokens` may be set where the request has none."""
        self.can_be_lowered = not brings_more_in(request)
        """Whether `max_tokens` limits the output: a field of `extra_body` may set another limit."""
        if request.max_tokens is not None or not self.can_be_lowered:
            self.output_tokens = self.largest_limit = output_token_bound(request)
        self._dearest_input: LedgerEntry | None = None
        self._last: tuple[int, Decimal | None] | None = None

    def usd(self, output_tokens: int, table: PriceSource) -> Decimal | None:
        """What it costs with an output of so many tokens; `None` if no price is known."""
        if self._dearest_input is None:
            self._dearest_input = self._input(self.input_tokens, table)
        if self._last is None or self._last[0] != output_tokens:
            entry = replace(self._dearest_input, most_output_tokens=output_tokens)
            self._last = output_tokens, table.cost(_with_most_output(entry, table))
        return self._last[1]

    def usd_of_input(self, tokens: int, table: PriceSource) -> Decimal | None:
        """What so many tokens of input cost."""
        return table.cost(self._input(tokens, table))

    def most_output_for(
        self, usd: Decimal, table: PriceSource, least: int, most: int
    ) -> int | None:
        """How many tokens of output, from `least` to `most`, cost no more with the input.

        `None` if the least cost more, or if no price is known. It looks where the price of most
        models, so much a token, would have it, and halves what is left where that is wrong.
        """
        low, high = least, most
        at_low, at_high = self.usd(low, table), self.usd(high, table)
        if at_low is None or at_high is None or at_low > usd:
            return None
        if at_high <= usd:
            return most
        guesses = 0
        while high - low > 1:
            middle = (low + high) // 2
            if guesses < _GUESSES:
                middle = low + int(_part(usd, at_low, at_high) * (high - low))
                middle = min(max(middle, low + 1), high - 1)
            guesses += 1
            price = self.usd(middle, table)
            if price is None:
                return None
            if price <= usd:
                low, at_low = middle, price
            else:
                high, at_high = middle, price
        return low

    def _input(self, tokens: int, table: PriceSource) -> LedgerEntry:
        entry = LedgerEntry(self.provider, self.model, most_input_tokens=tokens)
        return _with_most_input(entry, table)


def _part(usd: Decimal, low: Decimal, high: Decimal) -> float:
    return float(_EXACT.subtract(usd, low)) / float(_EXACT.subtract(high, low))


def most_of(entry: LedgerEntry, table: PriceSource) -> LedgerEntry:
    """The entry with the most that its attempt can have used, in the dearest way: what a cache was
    written with, or what was reasoning, sound or an image, may have a price of its own.
    """
    return _with_most_output(_with_most_input(entry, table), table)


def least_of(entry: LedgerEntry) -> LedgerEntry:
    """The entry with what its attempt has used for certain."""
    if entry.most_input_tokens is not None:
        entry = replace(_without_input(entry), input_tokens=0)
    if entry.most_output_tokens is not None:
        entry = replace(_without_output(entry), output_tokens=0)
    return entry


def _with_most_input(entry: LedgerEntry, table: PriceSource) -> LedgerEntry:
    tokens = entry.most_input_tokens
    if tokens is None:
        return entry
    entry = replace(_without_input(entry), input_tokens=tokens)
    written = replace(entry, cache_write_tokens=tokens)
    ways = (
        entry,
        written,
        _with_details(written, cache_write_1h_tokens=tokens),
        _with_details(entry, input_audio_tokens=tokens),
    )
    return _dearest(ways, table)


def _with_most_output(entry: LedgerEntry, table: PriceSource) -> LedgerEntry:
    tokens = entry.most_output_tokens
    if tokens is None:
        return entry
    entry = replace(_without_output(entry), output_tokens=tokens)
    ways = (
        entry,
        replace(entry, reasoning_tokens=tokens),
        _with_details(entry, output_audio_tokens=tokens),
        _with_details(entry, output_image_tokens=tokens),
    )
    return _dearest(ways, table)


def _dearest(ways: Iterable[LedgerEntry], table: PriceSource) -> LedgerEntry:
    return max(ways, key=lambda way: table.cost(way) or Decimal(0))


def _without_input(entry: LedgerEntry) -> LedgerEntry:
    """Without what is said of parts of the input, which is not known."""
    details = {name: n for name, n in entry.token_details.items() if name.startswith("output")}
    return replace(entry, cache_read_tokens=None, cache_write_tokens=None, token_details=details)


def _without_output(entry: LedgerEntry) -> LedgerEntry:
    details = {name: n for name, n in entry.token_details.items() if not name.startswith("output")}
    return replace(entry, reasoning_tokens=None, token_details=details)


def _with_details(entry: LedgerEntry, **details: int) -> LedgerEntry:
    return replace(entry, token_details={**entry.token_details, **details})
