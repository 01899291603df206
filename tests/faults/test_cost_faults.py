"""What a call costs where counts nest, prices are unknown, and thousands are counted at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.errors import AetherError, BadRequestError
from aether.extensions.llm import CostTrackingProvider
from aether.extensions.llm.cost_tracking import Usage
from aether.llm.contracts import LedgerEntry, LLMRequest, LLMResponse, TokenUsage
from aether.testing import FaultServer, faults
from aether.testing.faults import Fault, Reply
from tests.faults.aftermath import Aftermath
from tests.faults.books import ask, opened_books
from tests.faults.stage import share_tls_context

both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])

MILLION = Decimal(1_000_000)

# What each provider tells, and what it costs by the price pages of November 2026: the tokens of
# each kind, times the dollars for a million of them.
VECTORS: dict[str, tuple[str, str, dict[str, Any], Decimal]] = {
    "OpenAI, from a cache": (
        "openai",
        "gpt-4o-mini",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        86 * Decimal("0.15") + 1920 * Decimal("0.075") + 300 * Decimal("0.6"),
    ),
    "OpenAI, to a cache, with reasoning": (
        "openai",
        "gpt-6-luna",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 300},
            "completion_tokens_details": {"reasoning_tokens": 150},
        },
        300 * Decimal("0.1")
        + 400 * Decimal("0.01")
        + 300 * Decimal("0.125")
        + 200 * Decimal("0.5"),
    ),
    "OpenAI, heard and spoken": (
        "openai",
        "gpt-audio",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "total_tokens": 1500,
            "prompt_tokens_details": {"audio_tokens": 600, "text_tokens": 400},
            "completion_tokens_details": {"audio_tokens": 400, "text_tokens": 100},
        },
        Decimal(400 * 2.5) + 600 * 32 + 100 * 10 + 400 * 64,
    ),
    "a server that leaves reasoning out of its output": (
        "openai",
        "gpt-4o-mini",
        {
            "prompt_tokens": 35,
            "completion_tokens": 12,
            "total_tokens": 109,
            "completion_tokens_details": {"reasoning_tokens": 62},
        },
        35 * Decimal("0.15") + 74 * Decimal("0.6"),
    ),
    "a server that says what it cost": (
        "openai",
        "gpt-4o-mini",
        {
            "prompt_tokens": 35,
            "completion_tokens": 12,
            "cost": 0.00125,
            "cost_details": {"upstream_inference_cost": None},
        },
        Decimal("0.00125") * MILLION,
    ),
    "OpenAI's Responses": (
        "openai.responses",
        "gpt-6.1-terra",
        {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 600},
            "output_tokens": 200,
            "output_tokens_details": {"reasoning_tokens": 100},
            "total_tokens": 1200,
        },
        400 * Decimal(1) + 600 * Decimal("0.05") + 200 * Decimal(5),
    ),
    "OpenAI's Responses, a large call": (
        "openai.responses",
        "gpt-6.1-sol",
        {
            "input_tokens": 300_000,
            "input_tokens_details": {"cached_tokens": 100_000},
            "output_tokens": 1000,
        },
        200_000 * Decimal(4) + 100_000 * Decimal("0.2") + 1000 * Decimal(15),
    ),
    "Anthropic, whose three kinds of input exclude one another": (
        "anthropic",
        "claude-sonnet-5-5",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 500,
            "output_tokens_details": {"thinking_tokens": 300},
        },
        100 * Decimal(2) + 2000 * Decimal("0.1") + 1000 * Decimal("2.5") + 500 * Decimal(10),
    ),
    "Anthropic, kept for an hour": (
        "anthropic",
        "claude-sonnet-5-5",
        {
            "input_tokens": 100,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 500,
        },
        100 * Decimal(2) + 600 * Decimal("2.5") + 400 * Decimal(4) + 500 * Decimal(10),
    ),
    "Anthropic, large by what came from a cache": (
        "anthropic",
        "claude-haiku-5-5",
        {"input_tokens": 20_000, "cache_read_input_tokens": 100_000, "output_tokens": 1000},
        20_000 * Decimal("0.5") + 100_000 * Decimal("0.05") + 1000 * Decimal("2.5"),
    ),
    "Gemini, whose thoughts and tools stand beside the rest": (
        "gemini",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 200,
            "toolUsePromptTokenCount": 40,
            "candidatesTokenCount": 50,
            "thoughtsTokenCount": 30,
            "totalTokenCount": 1120,
        },
        840 * Decimal("0.3") + 200 * Decimal("0.03") + 80 * Decimal("2.5"),
    ),
    "Gemini, heard, in part from a cache": (
        "gemini",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 1000,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 400},
                {"modality": "AUDIO", "tokenCount": 600},
            ],
            "cachedContentTokenCount": 200,
            "cacheTokensDetails": [
                {"modality": "TEXT", "tokenCount": 100},
                {"modality": "AUDIO", "tokenCount": 100},
            ],
            "candidatesTokenCount": 50,
            "totalTokenCount": 1050,
        },
        300 * Decimal("0.3")
        + 500 * Decimal(1)
        + 100 * Decimal("0.03")
        + 100 * Decimal("0.1")
        + 50 * Decimal("2.5"),
    ),
    "Gemini, heard, and only text from a cache": (
        "gemini",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 1000,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 600}],
            "cachedContentTokenCount": 200,
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 200}],
            "candidatesTokenCount": 50,
            "totalTokenCount": 1050,
        },
        200 * Decimal("0.3") + 600 * Decimal(1) + 200 * Decimal("0.03") + 50 * Decimal("2.5"),
    ),
    "Gemini, an image": (
        "gemini",
        "gemini-2.5-flash-image",
        {
            "promptTokenCount": 10,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
            "candidatesTokenCount": 1300,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
            "totalTokenCount": 1310,
        },
        10 * Decimal("0.3") + 10 * Decimal("2.5") + 1290 * Decimal(30),
    ),
}


@pytest.fixture(autouse=True)
def _quick_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


def telling(usage: dict[str, Any]) -> Fault:
    """The answer, in which this is what was used."""

    def told(value: Any) -> Any:
        if isinstance(value, list):
            return [told(each) for each in value]
        if not isinstance(value, dict):
            return value
        names = ("usage", "usageMetadata")
        return {
            name: usage if name in names and each is not None else told(each)
            for name, each in value.items()
        }

    def in_line(line: bytes) -> bytes:
        start, mark, data = line.rpartition(b"data: ")
        if not data.strip().startswith(b"{"):
            return line
        return start + mark + json.dumps(told(json.loads(data))).encode()

    def changed(pieces: list[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield b"\n".join(map(in_line, piece.split(b"\n")))

    return faults.edit(changed)


class TestTokensOfEachKind:
    @pytest.mark.row("B2")
    @both_ways
    @pytest.mark.parametrize("vector", VECTORS)
    async def test_each_token_is_priced_once(
        self, aftermath: Aftermath, vector: str, streaming: bool
    ) -> None:
        protocol, model, usage, price = VECTORS[vector]
        reply = Reply("Yes.", usage=TokenUsage(input_tokens=1, output_tokens=1), model=model)
        async with FaultServer([telling(usage), reply]) as server:
            config = server.config(protocol, api_key=aftermath.key, model=model)
            async with aftermath.client(Aether(config=config)) as client:
                came = await ask(client, streaming=streaming)
                assert not isinstance(came, AetherError)
                total, entry = client.usage.total_cost_usd, client.usage.ledger[0]
        assert entry.state == "exact"
        assert total == float(price / MILLION)
        assert client.usage.by_model[model].cost_usd == total
        assert client.usage.uncertain_cost_usd == 0.0


class TestUnknownPrices:
    @pytest.mark.row("B1")
    @both_ways
    async def test_a_model_without_a_price_is_counted_and_not_priced(
        self, aftermath: Aftermath, streaming: bool
    ) -> None:
        usage = TokenUsage(input_tokens=100, output_tokens=50)
        replies = [Reply("a", usage=usage, model=model) for model in ("gpt-6.2-sol", "gpt-4o-mini")]
        async with (
            FaultServer(*replies) as server,
            opened_books(server, "openai", aftermath=aftermath) as books,
        ):
            for _ in replies:
                await ask(books.client, streaming=streaming)
        told = books.client.usage
        assert told.by_model["gpt-6.2-sol"] == TokenUsage(1, 100, 50, cost_usd=None)
        assert told.total_cost_usd == told.by_model["gpt-4o-mini"].cost_usd == 0.000045
        assert (told.total_input_tokens, told.total_output_tokens) == (200, 100)
        assert told.is_exact
        assert "at least $0.000045 (no price known for gpt-6.2-sol)" in str(told)

    @pytest.mark.row("B1", "B4")
    async def test_what_is_uncertain_of_a_model_without_a_price_is_not_made_up(
        self, aftermath: Aftermath
    ) -> None:
        reply = Reply("Hello there.", model="gpt-6.2-sol")
        async with (
            FaultServer(faults.hang(), reply, reply=reply) as server,
            opened_books(
                server, "openai", aftermath=aftermath, model="gpt-6.2-sol", timeout=0.02
            ) as books,
        ):
            assert isinstance(await ask(books.client, streaming=False), AetherError)
            assert books.client.usage.uncertain_cost_usd == 0.0
            assert not books.client.usage.is_exact
            assert books.client.usage.ledger[0].most_output_tokens == 131_072


class TestRefusalsThatMayCost:
    """A refusal costs nothing, unless its server says that it may, or says what was written."""

    @pytest.mark.row("B4")
    @both_ways
    @pytest.mark.parametrize(
        ("provider", "error", "state"),
        [
            ("azure", {"code": "content_filter", "message": "no"}, "unknown"),
            ("azure", {"code": "context_length_exceeded", "message": "no"}, "unknown"),
            ("azure", {"code": "invalid_value", "message": "no"}, "not_billed"),
            ("groq", {"code": "tool_use_failed", "failed_generation": "<f>"}, "unknown"),
            ("groq", {"code": "json_validate_failed", "failed_generation": "{"}, "unknown"),
            ("groq", {"code": "context_length_exceeded", "message": "no"}, "not_billed"),
        ],
    )
    async def test_a_refusal_of_what_was_read_or_written_may_have_been_billed(
        self,
        aftermath: Aftermath,
        provider: str,
        error: dict[str, Any],
        state: str,
        streaming: bool,
    ) -> None:
        body = json.dumps({"error": error}).encode()
        async with FaultServer(faults.status(400, body)) as server:
            config = ProviderConfig(
                provider, "llama-3.3-70b", aftermath.key, server.base_url("openai")
            )
            async with aftermath.client(Aether(config=config)) as client:
                assert isinstance(await ask(client, streaming=streaming), BadRequestError)
                aftermath.one_entry_per_request(client, server)
        assert [entry.state for entry in client.usage.ledger] == [state]


class _Priced:
    """Answers as one of three models, one after the other, and gives way before it does."""

    models = ("gpt-6-luna", "claude-haiku-5-5", "gemini-3.8-flash")
    default_model = models[0]

    def __init__(self) -> None:
        self._calls = 0

    async def complete(self, _: LLMRequest, /) -> LLMResponse:
        self._calls += 1
        model = self.models[self._calls % 3]
        await asyncio.sleep(0)
        return LLMResponse("Yes.", model, 7, 3, finish_reason="stop")


PRICES = {
    "gpt-6-luna": (7 * Decimal("0.1") + 3 * Decimal("0.5")) / MILLION,
    "claude-haiku-5-5": (7 * Decimal("0.1") + 3 * Decimal("0.5")) / MILLION,
    "gemini-3.8-flash": (7 * Decimal("0.75") + 3 * Decimal("3.75")) / MILLION,
}


class TestManyAtOnce:
    @pytest.mark.row("B6")
    async def test_the_rows_of_ten_thousand_calls_add_up_to_the_total(self) -> None:
        count = 10_000
        async with Aether(_Priced()) as client:
            await asyncio.gather(*(client.ask("Hi") for _ in range(count)))
        check_sums(client.usage, count)

    @pytest.mark.row("B6")
    def test_nor_is_any_call_lost_that_another_thread_makes(self) -> None:
        usage, threads_count, each = Usage(), 6, 300
        started = threading.Barrier(threads_count)
        failures: list[BaseException] = []

        async def calls() -> None:
            stack = CostTrackingProvider(_Priced(), usage=usage)
            async with Aether(stack) as client:
                await asyncio.gather(*(client.ask("Hi") for _ in range(each)))

        def work() -> None:
            try:
                started.wait(5)
                asyncio.run(calls())
                assert usage.total_cost_usd <= threads_count * each * float(max(PRICES.values()))
            except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(threads_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        check_sums(usage, threads_count * each)


def check_sums(usage: Usage, count: int) -> None:
    """All calls are there, and nothing was lost by adding so many fractions up."""
    rows = usage.by_model
    assert usage.total_requests == sum(row.requests for row in rows.values()) == count
    total = Decimal(0)
    for model, row in rows.items():
        cost = row.requests * PRICES[model]
        assert row == TokenUsage(row.requests, 7 * row.requests, 3 * row.requests) + TokenUsage(
            cost_usd=float(cost)
        )
        total += cost
    assert usage.total_cost_usd == float(total)
    kept = Counter(entry.model for entry in usage.ledger)
    assert kept == {model: row.requests for model, row in rows.items()}


class _SlowPrices:
    """A table that takes its time."""

    def __init__(self) -> None:
        self.loading = threading.Event()
        self.loaded = threading.Event()
        self.loads = 0

    def load(self) -> None:
        self.loading.set()
        assert self.loaded.wait(5)
        self.loads += 1

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        return Decimal(entry.input_tokens or 0)


class TestLoadingPrices:
    @pytest.mark.row("B6")
    async def test_a_call_and_its_cost_outlive_a_warm_up_that_is_cancelled(self) -> None:
        prices = _SlowPrices()
        async with Aether(CostTrackingProvider(_Priced(), prices=prices)) as client:
            loop = asyncio.get_running_loop()
            warming = asyncio.ensure_future(client.warm_up())
            await loop.run_in_executor(None, prices.loading.wait, 5)
            await client.ask("Hi")  # no call waits for a price
            warming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await warming
            asked = loop.run_in_executor(None, lambda: client.usage.total_cost_usd)
            prices.loaded.set()
            assert await asked == 7.0
            await client.warm_up()
            assert client.usage.total_cost_usd == 7.0
        await loop.shutdown_default_executor()

    async def test_who_reads_a_cost_while_the_table_fails_loses_nothing(self) -> None:
        class Prices(_SlowPrices):
            def load(self) -> None:
                self.loads += 1
                if self.loads == 1:
                    raise RuntimeError("the table is gone")

        async with Aether(CostTrackingProvider(_Priced(), prices=Prices())) as client:
            await client.ask("Hi")
            with pytest.raises(RuntimeError, match="the table is gone"):
                _ = client.usage.uncertain_cost_usd
            assert client.usage.total_requests == 1
            assert client.usage.total_cost_usd == 7.0
