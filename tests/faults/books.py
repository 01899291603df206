"""The books of both sides: what a client's ledger says, held against what the server has billed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

import genai_prices

from aether import Aether
from aether.errors import AetherError
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import LedgerEntry, StreamChunk, TokenUsage
from aether.registry import default_registry
from aether.testing import FaultServer
from aether.testing.faults import Reply, Served
from aether.testing.faults.served import true_usage
from tests.faults.aftermath import KEY, Aftermath

__all__ = ["MODELS", "PROTOCOLS", "TRANSPORTS", "Books", "a_reply", "ask", "opened_books", "price"]

TRANSPORTS = ("aiohttp", "httpx")
MODELS = {
    "openai": "gpt-6-luna",
    "openai.responses": "gpt-6-luna",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.8-flash",
}
PROTOCOLS = tuple(MODELS)
ROUNDING = 1e-12
"""Dollars: what is lost where an exact sum is shown as a float."""


def a_reply(protocol: str, text: str = "It is 42, as ever.", **fields: Any) -> Reply:
    """A reply with each kind of tokens that the protocol can tell, of a model with a price."""
    usage = TokenUsage(
        input_tokens=120,
        output_tokens=24,
        cache_read_tokens=40,
        cache_write_tokens=None if protocol == "gemini" else 30,
        reasoning_tokens=9,
    )
    return Reply(text, **{"model": MODELS[protocol], "usage": usage, **fields})


@dataclass
class Books:
    """A client and the server that it asks."""

    client: Aether
    server: FaultServer
    provider: str

    def check(self, *, in_order: bool = True) -> None:
        """Each request has its entry, which is true; and so are the sums, to the cent where they
        are exact, and within what they are said to be uncertain by where they are not.
        """
        usage, served = self.client.usage, list(self.server.served)
        ledger = list(usage.ledger)
        assert len(ledger) == len(served), f"{len(ledger)} entries for {len(served)} requests"
        if in_order:
            for entry, truth in zip(ledger, served, strict=True):
                check_entry(entry, truth)
        billed = sum(self._price_of(each, ledger[0]) for each in served)
        written_on = sum(self._price_of(written_to_its_end(each), ledger[0]) for each in served)
        doubt = usage.uncertain_cost_usd
        assert usage.is_exact == all(entry.state in ("exact", "not_billed") for entry in ledger)
        if usage.is_exact:
            assert usage.total_cost_usd == float(billed)
            assert doubt == 0.0
        assert abs(float(billed) - usage.total_cost_usd) <= doubt + ROUNDING
        assert abs(float(written_on) - usage.total_cost_usd) <= doubt + ROUNDING
        self._check_rows(ledger)

    def _check_rows(self, ledger: list[LedgerEntry]) -> None:
        rows = self.client.usage.by_model
        costs = [row.cost_usd for row in rows.values() if row.cost_usd is not None]
        assert abs(sum(costs) - self.client.usage.total_cost_usd) <= ROUNDING
        told = [entry for entry in ledger if entry.state in ("exact", "estimated")]
        assert rows.keys() == {str(entry.model) for entry in told}
        for model, row in rows.items():
            entries = [entry for entry in told if entry.model == model]
            assert row.input_tokens == _sum(
                None if entry.most_input_tokens else entry.input_tokens for entry in entries
            )
            assert row.output_tokens == _sum(
                None if entry.most_output_tokens else entry.output_tokens for entry in entries
            )
            for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
                assert getattr(row, name) == _sum(getattr(entry, name) for entry in entries)

    def _price_of(self, served: Served, entry: LedgerEntry) -> Decimal:
        if not served.billed:
            return Decimal(0)
        return price(
            self.provider,
            str(served.model),
            entry.started_at,
            input_tokens=served.input_tokens,
            output_tokens=served.output_tokens,
            cache_read_tokens=served.cache_read_tokens,
            cache_write_tokens=served.cache_write_tokens,
            output_reasoning_tokens=served.reasoning_tokens,
        )


def check_entry(entry: LedgerEntry, served: Served) -> None:
    """One entry is true of what the server did with the request."""
    assert entry.state != "pending"
    if entry.state == "not_billed":
        assert not served.billed, f"{entry} was billed: {served}"
        return
    if entry.state == "exact":
        assert served.billed
        assert entry.most_input_tokens is None
        assert entry.most_output_tokens is None
        assert _counts(entry) == _counts(served)
        assert entry.model == served.model
        return
    if entry.state == "estimated":
        assert served.billed, f"{entry} was not billed: {served}"
    for part in (served, written_to_its_end(served)):
        if not part.billed:
            continue
        if entry.most_input_tokens is None:
            assert entry.input_tokens == part.input_tokens
            assert entry.cache_read_tokens == (part.cache_read_tokens or None)
        else:
            assert part.input_tokens <= entry.most_input_tokens
        if entry.most_output_tokens is not None:
            assert part.output_tokens <= entry.most_output_tokens
    if entry.most_output_tokens is None and entry.output_tokens is not None:
        assert entry.output_tokens == served.output_tokens


def written_to_its_end(served: Served) -> Served:
    """What it is billed by a provider that writes on when its peer has gone."""
    if not served.billed or served.reply is None:
        return served
    usage = true_usage(served.reply, served.request)
    return replace(
        served,
        output_tokens=usage.output_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
    )


def price(provider: str, model: str, when: datetime, **counts: int) -> Decimal:
    """What genai-prices itself makes of it; nothing, where it has no price."""
    with localcontext() as context, suppress(LookupError):
        context.prec = 60
        return genai_prices.calc_price(
            genai_prices.Usage(**counts), model, provider_id=provider, genai_request_timestamp=when
        ).total_price
    return Decimal(0)


@asynccontextmanager
async def opened_books(
    server: FaultServer,
    protocol: str,
    transport: str = "aiohttp",
    *,
    aftermath: Aftermath | None = None,
    attempts: int = 1,
    in_order: bool = True,
    **fields: Any,
) -> AsyncIterator[Books]:
    """A client of the server that retries at once; at the end its books are checked."""
    fields = {"model": MODELS[protocol], "transport": transport, **fields}
    config = server.config(protocol, api_key=KEY, **fields)
    choice, adapter = build_provider(config, default_registry)
    name = choice.name
    stack = RetryingProvider(
        adapter, max_attempts=attempts, base_delay=0.0, provider=name, random=lambda: 0.0
    )
    async with Aether(stack) as client:
        books = Books(client, server, name)
        if aftermath is not None:
            aftermath.one_entry_per_request(aftermath.client(client), server)
        yield books
        books.check(in_order=in_order)


async def ask(
    client: Aether, *, streaming: bool, leave: int | None = None, **options: Any
) -> list[StreamChunk] | AetherError | None:
    """What came: the chunks of a stream, of which at most `leave` are read, or the error."""
    try:
        if not streaming:
            await client.complete("What is 6 times 7?", **options)
            return None
        chunks: list[StreamChunk] = []
        async with aclosing(client.stream("What is 6 times 7?", **options)) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if leave is not None and len(chunks) >= leave:
                    break
    except AetherError as error:
        return error
    return chunks


def _counts(source: LedgerEntry | Served) -> tuple[int, ...]:
    return (
        source.input_tokens or 0,
        source.output_tokens or 0,
        source.cache_read_tokens or 0,
        source.cache_write_tokens or 0,
        source.reasoning_tokens or 0,
    )


def _sum(counts: Any) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
