"""The tally of a client: its latest ledger entries, the sums by model, and the costs.

It must not know how a call was made, nor where a price comes from.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal

from aether.extensions.llm._pricing import Prices
from aether.extensions.llm._worst_case import least_of, most_of
from aether.llm.accounting import bound
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.pricing import PriceSource
from aether.llm.usage import LedgerEntry, TokenUsage

__all__ = ["Costs", "Tally"]

ENTRIES_KEPT = 10_000
UNPRICED_KEPT = ENTRIES_KEPT
"""Where more wait for a price and nobody reads a cost, a background thread prices them. Until then
they wait in the ledger, which keeps them anyway."""
UNKNOWN_MODEL = "unknown"

_EXACT = Context(prec=60)  # whatever precision a reading thread has set for itself
_log = logging.getLogger("aether.llm")


@dataclass(frozen=True, slots=True)
class Costs:
    """In US dollars. What was billed differs from `total` by `uncertain` at most."""

    by_model: Mapping[str, Decimal]
    total: Decimal
    uncertain: Decimal


class Tally:
    """Keeps the latest entries, and sums that never lose any. Threads may share it.

    A price depends on the size and the time of each call, so entries are priced one by one; but
    not while they are added, because loading the prices takes a while. They are priced when a
    cost is read, or in a background thread when many wait.
    """

    def __init__(self, prices: PriceSource | None) -> None:
        self.estimated = 0
        """Entries whose tokens are an estimate."""
        self.unknown = 0
        """Entries whose tokens are not known."""
        self._lock = threading.Lock()
        self._entries: deque[LedgerEntry] = deque(maxlen=ENTRIES_KEPT)
        self._rows: defaultdict[str, TokenUsage] = defaultdict(TokenUsage)
        self._unpriced: deque[tuple[str, LedgerEntry]] = deque()
        """With the row that the cost belongs to."""
        self._pricing = threading.Lock()
        self.prices = Prices(prices)
        self._costs: dict[str, Decimal] = {}
        self._total = Decimal(0)
        self._uncertain = Decimal(0)
        self._in_background = False
        self._background_at = UNPRICED_KEPT

    def add(
        self,
        entries: Sequence[LedgerEntry],
        request: LLMRequest,
        answer: LLMResponse | StreamChunk | None,
    ) -> None:
        """Add the attempts of a call that has ended, of which the last brought the answer, if any.

        An entry that is still `pending` becomes `unknown`.
        """
        with self._lock:
            answering = None if answer is None else entries[-1]
            for entry in entries:
                self._add_entry(entry, request, answer if entry is answering else None)
            if len(self._unpriced) < self._background_at or self._in_background:
                return
            self._in_background = True
        threading.Thread(target=self._price_in_background, daemon=True).start()

    def entries(self) -> tuple[LedgerEntry, ...]:
        """The entries kept, oldest first."""
        with self._lock:
            return tuple(self._entries)

    def rows(self) -> dict[str, TokenUsage]:
        """A copy of the sums by model, without costs."""
        with self._lock:
            return {model: replace(row) for model, row in self._rows.items()}

    def costs(self) -> Costs:
        """The costs of all entries. Loads the prices, and blocks, if any waits for its own."""
        if self._unpriced:
            self.price()
        with self._pricing:
            return Costs(dict(self._costs), self._total, self._uncertain)

    def known_costs(self) -> Costs | None:
        """The costs, or `None` while entries wait for their price. Loads nothing."""
        return None if self._unpriced else self.costs()

    def price(self, *, load: bool = False) -> None:
        """Price what waits for it, and load the prices where that takes them or `load` says so."""
        with self._pricing:
            if load:
                self.prices.load()
            while self._unpriced:
                model, entry = self._unpriced[0]
                if entry.cost_usd is not None:
                    self._add_cost(model, Decimal(repr(entry.cost_usd)), None)
                else:
                    self._add_cost(model, *_priced(entry, self.prices))
                self._unpriced.popleft()  # at last: an error must not lose the entry

    def _add_entry(
        self, entry: LedgerEntry, request: LLMRequest, answer: LLMResponse | StreamChunk | None
    ) -> None:
        if isinstance(answer, LLMResponse):
            entry.model = answer.model or entry.model
            entry.provider = answer.provider or entry.provider
        model = entry.model or request.model or UNKNOWN_MODEL
        bound(entry, request)
        self._entries.append(entry)
        state = entry.state
        if answer is not None or state in ("exact", "estimated"):
            row = self._rows[model]
            row.requests += answer is not None
            _add_tokens(row, entry if state == "exact" else _reported(entry, answer))
        if state != "exact":
            self.estimated += state == "estimated"
            self.unknown += state == "unknown"
        if state != "not_billed":
            self._unpriced.append((model, entry))

    def _add_cost(self, model: str, cost: Decimal | None, doubt: Decimal | None) -> None:
        if cost is not None:
            self._total = _EXACT.add(self._total, cost)
            self._costs[model] = _EXACT.add(self._costs.get(model, Decimal(0)), cost)
        if doubt is not None:
            self._uncertain = _EXACT.add(self._uncertain, doubt)

    def _price_in_background(self) -> None:
        try:
            self.price()
            self._background_at = UNPRICED_KEPT
        except Exception as error:  # noqa: BLE001  # whoever reads a cost gets it; a thread cannot
            # The next thread is put off until as many entries wait again.
            self._background_at = 2 * len(self._unpriced)
            _log.warning("the prices cannot be loaded: %s", type(error).__name__)
        finally:
            self._in_background = False


def _reported(
    entry: LedgerEntry, answer: LLMResponse | StreamChunk | None
) -> LLMResponse | StreamChunk | LedgerEntry:
    """Where the tokens are that the provider reported for this attempt, if not all are known.

    An answer that came in parts has the sum of their tokens, and each part its entry.
    """
    if entry.state == "unknown" and answer is not None:
        return answer
    return replace(
        entry,
        input_tokens=None if entry.most_input_tokens is not None else entry.input_tokens,
        output_tokens=None if entry.most_output_tokens is not None else entry.output_tokens,
    )


def _add_tokens(row: TokenUsage, source: LLMResponse | StreamChunk | LedgerEntry) -> None:
    """Add the counts that are known: a sum is `None` until one is."""
    if (count := source.input_tokens) is not None:
        row.input_tokens = (row.input_tokens or 0) + count
    if (count := source.output_tokens) is not None:
        row.output_tokens = (row.output_tokens or 0) + count
    if (count := source.cache_read_tokens) is not None:
        row.cache_read_tokens = (row.cache_read_tokens or 0) + count
    if (count := source.cache_write_tokens) is not None:
        row.cache_write_tokens = (row.cache_write_tokens or 0) + count
    if (count := source.reasoning_tokens) is not None:
        row.reasoning_tokens = (row.reasoning_tokens or 0) + count


def _priced(entry: LedgerEntry, table: PriceSource) -> tuple[Decimal | None, Decimal | None]:
    """What the entry adds to the total, and by how much at most that is wrong."""
    if entry.state == "exact":
        return table.cost(entry), None
    most = table.cost(most_of(entry, table))
    if entry.state == "unknown":
        return None, most
    cost = table.cost(entry)
    if cost is None or most is None:
        return cost, None
    least = table.cost(least_of(entry)) or Decimal(0)
    return cost, max(_EXACT.subtract(most, cost), _EXACT.subtract(cost, least))
