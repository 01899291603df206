"""Cost tracking: counts what each call used, and keeps a ledger with an entry for each attempt.

It must not know where a price comes from, nor why an attempt was made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from aether.extensions.llm._tally import Tally
from aether.llm.accounting import account_for
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.pricing import PriceSource
from aether.llm.sizing import written_beside_text
from aether.llm.usage import LedgerEntry, TokenUsage
from aether.llm.wrapper import ProviderWrapper, with_context

__all__ = ["CostTrackingProvider", "Usage"]


class CostTrackingProvider(ProviderWrapper):
    """Counts the calls that go through it; the sums are in `usage`. To be put outermost.

    Whatever way a call ends, its attempts are in the ledger when it has ended: those that inner
    layers wrote down, or else one for the call. A price is never looked up on a call's way.
    `provider` is the name under which a response without one is priced; `clock` is monotonic.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        usage: Usage | None = None,
        prices: PriceSource | None = None,
        provider: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if usage is not None and prices is not None:
            raise TypeError("pass either usage= or prices=: a Usage has its own prices")
        super().__init__(inner)
        self.usage = Usage(prices=prices) if usage is None else usage
        self._provider = provider
        self._clock = clock

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        request, context = with_context(request)
        first, started = len(context.entries), self._clock()
        try:
            response = await self.inner.complete(request)
        except BaseException as error:
            self._count(request, context, first, started, error=error)
            raise
        self._count(request, context, first, started, response)
        return response

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(self._batches(request))

    async def _batches(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        request, context = with_context(request)
        first, started = len(context.entries), self._clock()
        last: StreamChunk | None = None
        characters = 0
        try:
            async with open_batches(self.inner, request) as batches:
                async for batch in batches:
                    for last in batch:
                        characters += len(last.text) or written_beside_text(last)
                    yield batch
        except BaseException as error:
            self._count(request, context, first, started, _answer(last), error, characters)
            raise
        self._count(request, context, first, started, _answer(last), None, characters)

    def _count(
        self,
        request: LLMRequest,
        context: CallContext,
        first: int,
        started: float,
        answer: LLMResponse | StreamChunk | None = None,
        error: BaseException | None = None,
        characters: int = 0,
    ) -> None:
        if not isinstance(answer, (LLMResponse, StreamChunk)):
            answer = None  # a third party may return anything
        entries = account_for(
            context,
            request,
            first=first,
            provider=self._provider,
            model=request.model or self.default_model,
            seconds=self._clock() - started,
            answer=answer,
            error=error,
            characters=characters,
        )
        self.usage.add(entries, request, answer if entries else None)


def _answer(last: object) -> LLMResponse | StreamChunk | None:
    """What a stream came back with: nothing, if its last chunk is not final, or is no chunk."""
    if not isinstance(last, StreamChunk) or not last.is_final:
        return None
    return last.response or last


class Usage:
    """What the calls of one client used, live. Reading and counting are safe from any thread.

    Requests are the calls that came back: each turn of a tool loop is one, a retried attempt is
    none. Tokens are those that providers reported. Costs are those of all attempts that were
    billed, `exact` and `estimated` entries of the ledger alike: of an abandoned or broken stream
    too. `unknown` entries may have been billed. By how much the total may be wrong for these and
    for estimates, `uncertain_cost_usd` says.

    Prices are loaded when a cost is first read, which takes about 0.3 s and stalls the event loop
    for up to 0.2 s if it is read there; `await warm_up()` does it beforehand, in a thread.
    """

    def __init__(self, *, prices: PriceSource | None = None, enabled: bool = True) -> None:
        self.enabled = enabled
        """Whether anything is counted. If not, all figures stay at zero."""
        self._tally = Tally(prices)

    @classmethod
    def disabled(cls) -> Usage:
        """The usage of a client without cost tracking: zero, and it says so."""
        return cls(enabled=False)

    @property
    def prices(self) -> PriceSource:
        """Where the prices come from, for who needs them too. They are loaded when first needed."""
        return self._tally.prices

    @property
    def total_requests(self) -> int:
        """Calls that came back."""
        return sum(row.requests for row in self._tally.rows().values())

    @property
    def total_input_tokens(self) -> int:
        """What providers reported. A call that reported nothing adds nothing: see `is_exact`."""
        return sum(row.input_tokens or 0 for row in self._tally.rows().values())

    @property
    def total_output_tokens(self) -> int:
        """What providers reported, reasoning included."""
        return sum(row.output_tokens or 0 for row in self._tally.rows().values())

    @property
    def total_cost_usd(self) -> float:
        """What was billed, in US dollars. Models without a known price are left out."""
        return float(self._tally.costs().total)

    @property
    def uncertain_cost_usd(self) -> float:
        """What was billed differs from `total_cost_usd` by no more than this, in US dollars.

        Almost always it is less, and mostly by far: each count that a provider did not report is
        taken at the most that it can be. That is for input a token for each byte of the request, or
        2,097,152 where it holds a document, `extra_body` or no JSON; for output, which may have
        been reasoning or have been written after a stream was left, `max_tokens`, or 131,072 where
        none was set; all at the model's dearest price for such tokens. It is 0 where `is_exact`.
        Models without a known price are left out.
        """
        return float(self._tally.costs().uncertain)

    @property
    def by_model(self) -> dict[str, TokenUsage]:
        """A row for each model that a response reported or an attempt was billed for; copies.

        `cost_usd` is `None` where no price is known.
        """
        costs = self._tally.costs().by_model
        rows = self._tally.rows()
        for model, row in rows.items():
            row.cost_usd = float(costs[model]) if model in costs else None
        return rows

    @property
    def ledger(self) -> Sequence[LedgerEntry]:
        """The latest 10,000 attempts of calls that have ended, oldest first."""
        return self._tally.entries()

    @property
    def is_exact(self) -> bool:
        """Whether the tokens of every attempt are known: none is `estimated` or `unknown`.

        Whether their prices are known, the rows say. Calls count when they have ended: one that is
        under way says nothing here yet, nor does a stream that was left by `break`, until the loop
        has had the turns in which it is closed.
        """
        return not (self._tally.estimated or self._tally.unknown)

    async def warm_up(self) -> None:
        """Load the prices now, in a worker thread."""
        if self.enabled:
            await asyncio.to_thread(self._tally.price, load=True)

    def add(
        self,
        entries: Sequence[LedgerEntry],
        request: LLMRequest,
        answer: LLMResponse | StreamChunk | None = None,
    ) -> None:
        """Count a call that has ended: its attempts, of which the last brought the answer, if any.

        An entry that is still `pending` becomes `unknown`.
        """
        self._tally.add(entries, request, answer)

    def __repr__(self) -> str:
        """The figures in one line. A cost that waits for its price is not loaded for this."""
        if not self.enabled:
            return "Usage(off: made with with_cost_tracking=False)"
        return f"Usage({', '.join(self._figures())})"

    def __str__(self) -> str:
        """The figures in one line, with the cost."""
        self._tally.costs()
        return repr(self)

    def _figures(self) -> Iterator[str]:
        rows = self._tally.rows()
        yield f"{self.total_requests} requests"
        yield f"{self.total_input_tokens} input tokens"
        yield f"{self.total_output_tokens} output tokens"
        costs = self._tally.known_costs()
        if costs is None:
            yield "cost not read yet"
        elif unpriced := sorted(rows.keys() - costs.by_model.keys()):
            yield f"at least ${costs.total:.6f} (no price known for {', '.join(unpriced)})"
        else:
            yield f"${costs.total:.6f}"
        if not self.is_exact:
            yield f"of its attempts {self._tally.estimated} estimated"
            yield f"{self._tally.unknown} unknown"
