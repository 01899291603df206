"""Prices from the table that ships with genai-prices: no network, no key.

It must not know who asks for a price, nor keep what was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aether.llm.usage import LedgerEntry

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

__all__ = ["GenAIPrices"]

SELF_HOSTED = frozenset({"llamacpp", "lmstudio", "local", "ollama", "vllm"})
"""Providers that run on their user's machine: there a model's name says nothing of its cost."""

_MODALITIES = ("audio", "image", "video")
_OF_INPUT = tuple(f"input_{modality}_tokens" for modality in _MODALITIES)
_OF_CACHE = tuple(f"cache_{modality}_read_tokens" for modality in _MODALITIES)
_OF_OUTPUT = tuple(f"output_{modality}_tokens" for modality in _MODALITIES)
_DETAILS = frozenset({*_OF_INPUT, *_OF_CACHE, *_OF_OUTPUT, "cache_write_1h_tokens"})

_MILLION = 1_000_000
_EXACT = Context(prec=60)  # whatever precision the calling thread has set for itself
_log = logging.getLogger("aether.prices")


class GenAIPrices:
    """A `PriceSource` of public list prices, in US dollars.

    Prompt caches, reasoning, sound and images, and prices that depend on the size or the time of a
    call are taken into account; batches, service tiers, searches and discounts are not. A provider
    that the table does not have is priced by the model's name alone. One that runs on its user's
    machine has no price, nor has a model that the table has none for.

    Loading takes about 0.3 s of CPU, once in a process. A newer table that the application has
    installed with `genai_prices.UpdatePrices` is used from then on.
    """

    def __init__(self) -> None:
        self._table: _Table | None = None

    def load(self) -> None:
        self._current_table()

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        if entry.model is None or (entry.input_tokens is None and entry.output_tokens is None):
            return None
        counts = _Counts.of(entry)
        if not counts.possible():
            _log.warning(
                "%s reported tokens for %r that cannot be: %r", entry.provider, entry.model, counts
            )
            return None
        table = self._current_table()
        model = table.find(entry.provider, entry.model)
        if model is None:
            return None
        price = model.get_prices(entry.started_at)
        if (counts.input and price.input_mtok is None) or (
            counts.output and price.output_mtok is None
        ):
            return None
        try:
            with localcontext(_EXACT):
                return table.rates(price).cost(counts)
        except ValueError as error:  # of a part that overlaps another: how much was not told
            _log.warning("%r of %s cannot be priced: %s", entry.model, entry.provider, error)
            return None

    def _current_table(self) -> _Table:
        from genai_prices.data_snapshot import get_snapshot

        snapshot = get_snapshot()
        table = self._table
        if table is None or table.snapshot is not snapshot:
            table = self._table = _Table(snapshot)
        return table


class _Counts(NamedTuple):
    """Tokens; `input` and `output` include what follows them."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    details: Mapping[str, int] = MappingProxyType({})
    """Parts of these, by the table's names for them, which are also those of the ledger."""

    @classmethod
    def of(cls, entry: LedgerEntry) -> _Counts:
        """A part is priced only within its known whole."""
        known_input, known_output = entry.input_tokens is not None, entry.output_tokens is not None
        return cls(
            entry.input_tokens or 0,
            entry.output_tokens or 0,
            (entry.cache_read_tokens or 0) if known_input else 0,
            (entry.cache_write_tokens or 0) if known_input else 0,
            (entry.reasoning_tokens or 0) if known_output else 0,
            {
                name: tokens
                for name, tokens in entry.token_details.items()
                if name in _DETAILS and (known_output if name in _OF_OUTPUT else known_input)
            },
        )

    def possible(self) -> bool:
        wholes = {
            **dict.fromkeys(_OF_INPUT, self.input),
            **dict.fromkeys(_OF_CACHE, self.cache_read),
            **dict.fromkeys(_OF_OUTPUT, self.output),
            "cache_write_1h_tokens": self.cache_write,
        }
        return (
            min(self[:5]) >= 0
            and self.cache_read + self.cache_write <= self.input
            and self.reasoning <= self.output
            and all(0 <= tokens <= wholes[name] for name, tokens in self.details.items())
        )


class _Rates:
    """What a token of each kind costs at one price.

    A price without tiers is linear in the counts, so its rates are found once, by asking for a
    million of each kind: asking for each call would take 0.1 ms.
    """

    def __init__(self, price: ModelPrice) -> None:
        self._price = price
        self._linear = not any(hasattr(value, "tiers") for value in vars(price).values())
        if self._linear:
            self._request = self._ask(_Counts(0, 0, 0, 0, 0))
            self._input = self._rate(_Counts(_MILLION, 0, 0, 0, 0))
            self._output = self._rate(_Counts(0, _MILLION, 0, 0, 0))
            self._cache_read = self._rate(_Counts(_MILLION, 0, _MILLION, 0, 0))
            self._cache_write = self._rate(_Counts(_MILLION, 0, 0, _MILLION, 0))
            self._reasoning = self._rate(_Counts(0, _MILLION, 0, 0, _MILLION))

    def cost(self, counts: _Counts) -> Decimal:
        if counts.details or not self._linear:
            return self._ask(counts)
        plain_input = counts.input - counts.cache_read - counts.cache_write
        return (
            self._request
            + self._input * plain_input
            + self._cache_read * counts.cache_read
            + self._cache_write * counts.cache_write
            + self._output * (counts.output - counts.reasoning)
            + self._reasoning * counts.reasoning
        )

    def _rate(self, counts: _Counts) -> Decimal:
        return (self._ask(counts) - self._request) / _MILLION

    def _ask(self, counts: _Counts) -> Decimal:
        from genai_prices import Usage

        usage = Usage(
            input_tokens=counts.input,
            output_tokens=counts.output,
            cache_read_tokens=counts.cache_read,
            cache_write_tokens=counts.cache_write,
            output_reasoning_tokens=counts.reasoning,
            **counts.details,
        )
        return self._price.calc_price(usage)["total_price"]


class _Table:
    """One snapshot of the prices, with what was looked up in it."""

    def __init__(self, snapshot: DataSnapshot) -> None:
        self.snapshot = snapshot
        self.find: Callable[[str | None, str], ModelInfo | None] = lru_cache(1024)(self._find)
        self._rates: dict[int, _Rates] = {}

    def _find(self, provider: str | None, model: str) -> ModelInfo | None:
        if provider in SELF_HOSTED:
            return None
        try:
            _, found = self.snapshot.find_provider_model(model, None, self._known(provider), None)
        except LookupError:
            return None
        return found if found.prices else None

    def _known(self, provider: str | None) -> str | None:
        if provider is not None:
            try:
                self.snapshot.find_provider(None, provider, None)
            except LookupError:
                return None
        return provider

    def rates(self, price: ModelPrice) -> _Rates:
        """By identity: a price is not hashable, and the snapshot keeps it alive."""
        rates = self._rates.get(id(price))
        if rates is None:
            rates = self._rates[id(price)] = _Rates(price)
        return rates
