"""What is counted, what it cost, and what is said of what is not known."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    AuthenticationError,
    CircuitOpenError,
    ConfigurationError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm import _tally
from aether.extensions.llm._ledger import Attempt
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.accounting import account_for, bound, record_attempt, settle_answer, settle_failure
from aether.llm.contracts import (
    AudioPart,
    CallContext,
    FilePart,
    ImagePart,
    LedgerEntry,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    TextPart,
    TokenUsage,
    ToolCall,
    ToolCallDelta,
)
from aether.llm.sizing import LARGEST_IMAGE, LARGEST_INPUT, input_token_bound
from tests.llm.scripted import (
    MODEL,
    Clock,
    Scripted,
    a_request,
    an_answer,
    collect,
    deltas,
    text_until_error,
)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("it says nothing")


class Spoken:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE


class Prices:
    """A dollar for a token of input, two for one of output; `free` models have no price."""

    def __init__(self, fail: Callable[[], None] = lambda: None) -> None:
        self.loads = 0
        self.priced: list[LedgerEntry] = []
        self.threads: set[str] = set()
        self.fail = fail

    def load(self) -> None:
        self.fail()
        self.loads += 1

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        self.threads.add(threading.current_thread().name)
        self.priced.append(replace(entry))
        if entry.model is None or entry.model.startswith("free"):
            return None
        return Decimal((entry.input_tokens or 0) + 2 * (entry.output_tokens or 0))


def tracking(*script: Any, **options: Any) -> CostTrackingProvider:
    return CostTrackingProvider(Scripted(*script), **{"prices": Prices(), **options})


def add_many(usage: Usage, calls: int) -> None:
    """Calls of one token in, one out."""
    for _ in range(calls):
        entry = LedgerEntry("p", MODEL, "exact", 1, 1)
        usage.add([entry], a_request(), an_answer(input_tokens=1, output_tokens=1))


async def attempt(stack: CostTrackingProvider, **fields: Any) -> BaseException | None:
    try:
        await stack.complete(a_request(**fields))
    except BaseException as error:  # noqa: BLE001  # cancellations too
        return error
    return None


class TestCounting:
    async def test_each_call_that_came_back_is_counted(self) -> None:
        stack = tracking(an_answer(), an_answer(input_tokens=100, output_tokens=50))
        for _ in range(2):
            await stack.complete(a_request())
        usage = stack.usage
        assert (usage.total_requests, usage.total_input_tokens, usage.total_output_tokens) == (
            2,
            110,
            55,
        )
        assert usage.total_cost_usd == 220.0
        assert type(usage.total_cost_usd) is float
        assert usage.is_exact
        assert usage.uncertain_cost_usd == 0.0

    @pytest.mark.row("B1")
    async def test_rows_are_keyed_and_priced_by_the_model_that_the_response_reports(self) -> None:
        stack = tracking(an_answer(model="dated-2026-11"), an_answer(model="free-7b"))
        for _ in range(2):
            await stack.complete(a_request(model="alias"))
        assert stack.usage.by_model == {
            "dated-2026-11": TokenUsage(1, 10, 5, cost_usd=20.0),
            "free-7b": TokenUsage(1, 10, 5, cost_usd=None),
        }
        assert stack.usage.total_cost_usd == 20.0
        assert [entry.model for entry in stack.usage.ledger] == ["dated-2026-11", "free-7b"]

    @pytest.mark.row("B2")
    async def test_all_kinds_of_tokens_are_summed(self) -> None:
        answer = an_answer(cache_read_tokens=4, cache_write_tokens=3, reasoning_tokens=2)
        stack = tracking(answer, answer, an_answer())
        for _ in range(3):
            await stack.complete(a_request())
        assert stack.usage.by_model[MODEL] == TokenUsage(3, 30, 15, 8, 6, 4, cost_usd=60.0)

    async def test_a_stream_is_counted_like_a_response(self) -> None:
        stack = tracking(deltas("It is ", "42."))
        await collect(stack.stream(a_request()))
        assert stack.usage.by_model == {MODEL: TokenUsage(1, 10, 5, cost_usd=20.0)}
        assert [entry.state for entry in stack.usage.ledger] == ["exact"]

    @pytest.mark.parametrize("own_entry", [True, False])
    async def test_a_stream_is_keyed_by_the_model_that_its_response_reports(
        self, own_entry: bool
    ) -> None:
        request = a_request(model="alias", context=CallContext())

        async def answer() -> list[StreamChunk]:
            if own_entry and request.context is not None:
                request.context.open_entry(provider="p", model="alias").state = "exact"
            return deltas("42", answer=an_answer("42", model="dated-2026-11"))

        stack = tracking(answer)
        await collect(stack.stream(request))
        assert stack.usage.by_model.keys() == {"dated-2026-11"}

    async def test_an_attempt_of_an_adapter_is_priced_by_what_the_response_reports(self) -> None:
        usage = Usage(prices=Prices())
        entry = LedgerEntry(None, "alias", "exact", 10, 5)
        usage.add([entry], a_request(), an_answer(model="dated-2026-11", provider="azure"))
        assert (entry.provider, entry.model) == ("azure", "dated-2026-11")
        assert usage.by_model == {"dated-2026-11": TokenUsage(1, 10, 5, cost_usd=20.0)}

    async def test_an_attempt_is_not_exact_without_both_counts(self) -> None:
        usage = Usage(prices=Prices())
        entry = LedgerEntry("p", MODEL, "exact", 10, None)
        usage.add([entry], a_request(), an_answer(output_tokens=None))
        assert entry.state == "estimated"
        assert not usage.is_exact

    async def test_the_ledger_tells_what_the_response_told(self) -> None:
        answer = an_answer(
            cache_read_tokens=4, cache_write_tokens=3, reasoning_tokens=2, request_id="req-1"
        )
        stack = tracking(answer)
        await stack.complete(a_request())
        [entry] = stack.usage.ledger
        assert entry.request_id == "req-1"
        assert (entry.cache_read_tokens, entry.cache_write_tokens, entry.reasoning_tokens) == (
            4,
            3,
            2,
        )

    async def test_a_final_chunk_without_a_response_is_counted_too(self) -> None:
        closing = StreamChunk(finish_reason="stop", input_tokens=7, output_tokens=3)
        stack = tracking([StreamChunk(text="42"), closing])
        await collect(stack.stream(a_request()))
        assert stack.usage.by_model == {MODEL: TokenUsage(1, 7, 3, cost_usd=13.0)}

    async def test_unknown_usage_stays_unknown(self) -> None:
        stack = tracking(an_answer("x" * 8, input_tokens=None, output_tokens=None))
        await stack.complete(a_request("x" * 40))
        usage = stack.usage
        row = usage.by_model[MODEL]
        assert (row.requests, row.input_tokens, row.output_tokens) == (1, None, None)
        assert usage.total_input_tokens == 0
        assert not usage.is_exact
        [entry] = usage.ledger
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("estimated", 10, 2)
        assert usage.total_cost_usd == 14.0

    async def test_a_provider_that_returns_anything_is_not_counted(self) -> None:
        class Odd:
            async def complete(self, request: LLMRequest, /) -> Any:
                return "just a string"

        stack = CostTrackingProvider(Odd(), prices=Prices())
        await stack.complete(a_request())
        assert stack.usage.total_requests == 0
        assert [entry.state for entry in stack.usage.ledger] == ["unknown"]

    async def test_the_fake_provider_is_tracked(self) -> None:
        stack = CostTrackingProvider(FakeProvider("hello there", default_model="gpt-6-luna"))
        await stack.complete(LLMRequest([Message("user", "hi")]))
        await collect(stack.stream(LLMRequest([Message("user", "hi")])))
        assert stack.usage.total_requests == 2
        assert stack.usage.is_exact
        assert stack.usage.total_cost_usd == pytest.approx(2 * (1 * 0.1 + 3 * 0.5) / 1e6)


class TestLedger:
    """One entry for each attempt, whatever becomes of the call."""

    def stack(self, clock: Clock, *script: Any) -> CostTrackingProvider:
        retry = RetryingProvider(
            Scripted(*script), clock=clock, sleep=clock.sleep, random=lambda: 1.0
        )
        return CostTrackingProvider(retry, prices=Prices())

    @pytest.mark.row("B5")
    async def test_retried_attempts_are_in_the_ledger_and_in_no_total(self) -> None:
        clock = Clock()
        stack = self.stack(clock, ServerError("no"), RateLimitError("no", status=429), an_answer())
        await clock.run(stack.complete(a_request(max_tokens=100)))
        usage = stack.usage
        assert [entry.state for entry in usage.ledger] == ["unknown", "not_billed", "exact"]
        assert (usage.total_requests, usage.total_cost_usd) == (1, 20.0)
        assert not usage.is_exact
        assert usage.uncertain_cost_usd > 200

    @pytest.mark.row("B5")
    async def test_an_attempt_that_failed_with_its_usage_known_is_counted(self) -> None:
        class UnusableOnce(Scripted):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                assert request.context is not None
                entry = request.context.open_entry(provider="own", model=MODEL)
                entry.state, entry.input_tokens, entry.output_tokens = "exact", 10, 5
                return await super().complete(request)

        clock = Clock()
        provider = UnusableOnce(ProtocolError("no JSON", retryable=True), an_answer())
        retry = RetryingProvider(provider, clock=clock, sleep=clock.sleep)
        stack = CostTrackingProvider(retry, prices=Prices())
        await clock.run(stack.complete(a_request()))
        assert stack.usage.by_model == {MODEL: TokenUsage(1, 20, 10, cost_usd=40.0)}
        assert stack.usage.is_exact

    @pytest.mark.row("B3")
    async def test_an_abandoned_stream_is_billed_and_did_not_come_back(self) -> None:
        stack = tracking(deltas("x" * 8, "y" * 8))
        stream = stack.stream(a_request("x" * 40))
        async for _ in stream:
            break
        await stream.aclose()
        usage = stack.usage
        [entry] = usage.ledger
        assert (entry.state, entry.error) == ("estimated", "GeneratorExit")
        assert (entry.input_tokens, entry.output_tokens) == (10, 2)
        assert usage.total_requests == 0
        assert usage.total_cost_usd == 14.0
        assert usage.by_model == {MODEL: TokenUsage(0, cost_usd=14.0)}
        assert not usage.is_exact

    @pytest.mark.row("B3")
    async def test_a_stream_left_after_its_final_chunk_came_back(self) -> None:
        stack = tracking(deltas("42"))
        stream = stack.stream(a_request())
        async for chunk in stream:
            if chunk.is_final:
                break
        await stream.aclose()
        assert stack.usage.total_requests == 1
        assert stack.usage.is_exact

    @pytest.mark.parametrize(
        ("script", "state"),
        [
            ([StreamChunk(text="x" * 8), ProviderConnectionError("gone")], "estimated"),
            ([StreamChunk(text="x" * 8)], "estimated"),
            ([ProviderConnectionError("gone")], "unknown"),
            ([], "unknown"),
            (AuthenticationError("no", status=401), "not_billed"),
        ],
        ids=["broken", "cut", "no content", "empty", "refused"],
    )
    async def test_a_broken_stream_is_in_the_ledger(self, script: Any, state: str) -> None:
        stack = tracking(script)
        await text_until_error(stack.stream(a_request()))
        assert [entry.state for entry in stack.usage.ledger] == [state]
        assert stack.usage.total_requests == 0
        assert bool(stack.usage.by_model) == (state == "estimated")

    async def test_all_that_came_of_a_broken_stream_is_estimated(self) -> None:
        came = [StreamChunk(text="x" * 8), StreamChunk(reasoning="y" * 8), StreamChunk("z" * 8)]
        stack = tracking([*came, ProviderConnectionError("gone")])
        await text_until_error(stack.stream(a_request()))
        assert [entry.output_tokens for entry in stack.usage.ledger] == [6]

    async def test_a_stream_that_nobody_read_was_no_call(self) -> None:
        stack = tracking(deltas("42"))
        await stack.stream(a_request()).aclose()
        assert stack.usage.ledger == ()

    @pytest.mark.row("B4")
    async def test_a_cancelled_call_is_unknown(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.sleep(1000)

        stack = tracking(hang)
        task = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [(entry.state, entry.error) for entry in stack.usage.ledger] == [
            ("unknown", "CancelledError")
        ]

    @pytest.mark.parametrize(
        "error",
        [InputError("no"), CircuitOpenError("open", retry_after=1), ConfigurationError("no")],
    )
    async def test_what_was_never_sent_is_not_in_it(self, error: Exception) -> None:
        stack = tracking(error)
        assert await attempt(stack) is error
        assert stack.usage.ledger == ()
        assert stack.usage.is_exact

    async def test_a_call_cancelled_before_its_first_attempt_is_not_in_it(self) -> None:
        clock = Clock()
        stack = self.stack(clock, RateLimitError("no", status=429, retry_after=10.0), an_answer())
        limited = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        held_back = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        held_back.cancel()
        await clock.run(limited)
        assert [entry.state for entry in stack.usage.ledger] == ["not_billed", "exact"]

    async def test_an_entry_that_nobody_settled_is_unknown(self) -> None:
        class Forgetful(Scripted):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                assert request.context is not None
                request.context.open_entry(provider="own", model=MODEL)
                return await super().complete(request)

        stack = CostTrackingProvider(Forgetful(ServerError("no")), prices=Prices())
        await attempt(stack)
        assert [entry.state for entry in stack.usage.ledger] == ["unknown"]

    async def test_entries_of_an_earlier_call_on_one_context_are_not_counted_twice(self) -> None:
        stack, context = tracking(an_answer()), CallContext()
        for _ in range(2):
            await stack.complete(a_request(context=context))
        assert stack.usage.total_requests == len(stack.usage.ledger) == 2
        assert stack.usage.total_cost_usd == 40.0

    async def test_an_unnamed_model_has_a_row_all_the_same(self) -> None:
        stack = tracking([StreamChunk(text="x")])
        await collect(stack.stream(a_request(model=None)))
        assert list(stack.usage.by_model) == ["unknown"]

    @pytest.mark.row("B6")
    async def test_it_keeps_the_latest_and_the_totals_lose_none(self) -> None:
        usage = Usage(prices=Prices())
        add_many(usage, 10_050)
        assert len(usage.ledger) == 10_000
        assert usage.total_requests == 10_050
        assert usage.total_cost_usd == 3 * 10_050


class TestPartsWithoutTheirWhole:
    @pytest.mark.parametrize(
        "told",
        [
            {"cache_read_tokens": 700, "cache_write_tokens": 50, "reasoning_tokens": 900},
            {"token_details": {"input_audio_tokens": 750, "output_audio_tokens": 900}},
        ],
        ids=["counts", "details"],
    )
    async def test_an_estimate_is_no_less_than_the_parts_that_were_told(
        self, told: dict[str, Any]
    ) -> None:
        answer = an_answer(input_tokens=None, output_tokens=None, **told)
        stack = CostTrackingProvider(Scripted(answer), provider="openai")
        await stack.complete(a_request(max_tokens=1000))
        [entry] = stack.usage.ledger
        assert (entry.input_tokens, entry.output_tokens) == (750, 900)
        assert ((entry.most_input_tokens or 0) >= 750, entry.most_output_tokens) == (True, 1000)
        assert stack.usage.total_cost_usd > 0.0
        assert stack.usage.uncertain_cost_usd > 0.0


class TestPartsOfTheirWhole:
    """Of ten tokens of input and five of output, unless others are told."""

    async def settled(self, told: dict[str, Any]) -> LedgerEntry:
        stack = tracking(an_answer(**told))
        await stack.complete(a_request())
        [entry] = stack.usage.ledger
        return entry

    @pytest.mark.parametrize(
        "told",
        [
            {"cache_read_tokens": 10},
            {"cache_write_tokens": 10},
            {"cache_read_tokens": 6, "cache_write_tokens": 4},
            {"cache_read_tokens": 4, "token_details": {"cache_audio_read_tokens": 4}},
            {"cache_write_tokens": 4, "token_details": {"cache_write_1h_tokens": 4}},
            {"token_details": {"input_audio_tokens": 10, "output_audio_tokens": 5}},
            {"reasoning_tokens": 5},
            {"cache_read_tokens": 4, "output_tokens": 0},
        ],
        ids=str,
    )
    async def test_parts_may_be_all_of_it(self, told: dict[str, Any]) -> None:
        entry = await self.settled(told)
        assert (entry.state, entry.input_tokens) == ("exact", 10)
        assert entry.output_tokens == told.get("output_tokens", 5)
        assert entry.token_details == told.get("token_details", {})

    @pytest.mark.parametrize(
        "told",
        [
            {"cache_read_tokens": 11},
            {"cache_write_tokens": 11},
            {"cache_read_tokens": 6, "cache_write_tokens": 5},
            {"cache_read_tokens": 1, "input_tokens": 0},
            {"token_details": {"input_audio_tokens": 6, "input_image_tokens": 5}},
            {"cache_read_tokens": 4, "token_details": {"cache_audio_read_tokens": 5}},
            {"cache_write_tokens": 4, "token_details": {"cache_write_1h_tokens": 5}},
            {"token_details": {"cache_audio_read_tokens": 1}},
        ],
        ids=str,
    )
    async def test_input_of_which_a_part_is_more_than_the_whole_is_not_known(
        self, told: dict[str, Any]
    ) -> None:
        entry = await self.settled(told)
        assert (entry.state, entry.output_tokens) == ("estimated", 5)
        assert (entry.most_input_tokens or 0) > 11
        assert entry.most_output_tokens is None

    @pytest.mark.parametrize(
        "told",
        [
            {"reasoning_tokens": 6},
            {"reasoning_tokens": 1, "output_tokens": 0},
            {"token_details": {"output_audio_tokens": 6}},
        ],
        ids=str,
    )
    async def test_output_of_which_a_part_is_more_than_the_whole_is_not_known(
        self, told: dict[str, Any]
    ) -> None:
        entry = await self.settled(told)
        assert (entry.state, entry.input_tokens) == ("estimated", 10)
        assert (entry.most_output_tokens or 0) > 6
        assert entry.most_input_tokens is None

    async def test_where_the_cache_has_more_in_a_part_only_parts_of_the_output_are_kept(
        self,
    ) -> None:
        output = {"output_audio_tokens": 3, "output_image_tokens": 2}
        input_ = {"input_audio_tokens": 2, "cache_audio_read_tokens": 5}
        entry = await self.settled({"cache_read_tokens": 4, "token_details": {**input_, **output}})
        assert entry.token_details == output


class TestNonsense:
    """What a third party's provider says of its use may be no number of tokens or dollars."""

    async def test_nothing_is_a_count(self) -> None:
        stack = tracking(an_answer(input_tokens=0, output_tokens=0))
        await stack.complete(a_request())
        assert [entry.state for entry in stack.usage.ledger] == ["exact"]
        assert stack.usage.total_cost_usd == 0.0

    @pytest.mark.parametrize("told", [-5, "7", 2.5, math.nan])
    async def test_what_is_no_count_is_not_known(self, told: Any) -> None:
        stack = tracking(
            [StreamChunk("It", input_tokens=told, output_tokens=9, finish_reason="stop")]
        )
        await collect(stack.stream(a_request()))
        [entry] = stack.usage.ledger
        assert (entry.state, entry.output_tokens) == ("estimated", 9)
        assert (entry.input_tokens or 0) > 0
        assert stack.usage.total_input_tokens == 0

    @pytest.mark.parametrize("told", [-5.0, math.inf, math.nan])
    async def test_what_is_no_cost_is_not_added_to_the_total(self, told: float) -> None:
        stack = tracking(an_answer(cost_usd=told))
        await stack.complete(a_request())
        assert stack.usage.total_cost_usd == 20.0


class TestFallingBack:
    """A layer between the two may ask another provider, which writes no entry of its own."""

    def stack(self, first: LLMProvider, second: LLMProvider) -> CostTrackingProvider:
        class Fallback(Scripted):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                try:
                    return await first.complete(request)
                except ProviderError:
                    return await second.complete(request)

        return CostTrackingProvider(Fallback(), prices=Prices())

    async def test_its_answer_has_an_entry_beside_those_of_the_first(self) -> None:
        first = RetryingProvider(Scripted(RateLimitError("no")), max_attempts=1)
        stack = self.stack(first, Scripted(an_answer(model="other")))
        await stack.complete(a_request())
        assert [entry.state for entry in stack.usage.ledger] == ["not_billed", "exact"]
        assert stack.usage.by_model.keys() == {"other"}
        assert (stack.usage.total_requests, stack.usage.total_cost_usd) == (1, 20.0)

    async def test_an_answer_of_its_own_attempt_is_not_counted_twice(self) -> None:
        first = RetryingProvider(Scripted(RateLimitError("no")), max_attempts=1)
        second = RetryingProvider(Scripted(an_answer(model="other")))
        stack = self.stack(first, second)
        await stack.complete(a_request())
        assert [entry.state for entry in stack.usage.ledger] == ["not_billed", "exact"]
        assert stack.usage.total_cost_usd == 20.0


class TestUncertainty:
    """`uncertain_cost_usd` bounds what is not known: one token to a byte, and all of the output."""

    @pytest.mark.row("B4")
    async def test_it_bounds_what_an_unknown_attempt_may_have_cost(self) -> None:
        stack = tracking(RequestTimeoutError("slow"))
        await attempt(stack, prompt="é" * 1000, max_tokens=50)
        bound = stack.usage.uncertain_cost_usd
        assert 2 * 1000 + 2 * 50 <= bound < 2 * 1000 + 2 * 50 + 300
        assert stack.usage.total_cost_usd == 0.0
        assert stack.usage.by_model == {}

    async def test_without_max_tokens_the_largest_answer_is_assumed(self) -> None:
        stack = tracking(RequestTimeoutError("slow"))
        await attempt(stack)
        assert stack.usage.uncertain_cost_usd > 2 * 131_072

    async def test_tools_are_sent_too(self) -> None:
        class Lookup:
            name = "lookup"
            description = "d" * 1000
            parameters: dict[str, Any] = {"type": "object"}  # noqa: RUF012  # the port's shape

        plain, with_tools = tracking(ServerError("no")), tracking(ServerError("no"))
        await attempt(plain)
        await attempt(with_tools, tools=(Lookup(),))
        more = with_tools.usage.uncertain_cost_usd - plain.usage.uncertain_cost_usd
        assert more > 1000 + 530  # which is what Anthropic adds of its own

    @pytest.mark.row("B1", "B4")
    async def test_a_model_without_a_price_is_left_out(self) -> None:
        stack = tracking(ServerError("no"))
        await attempt(stack, model="free-7b")
        assert stack.usage.uncertain_cost_usd == 0.0
        assert not stack.usage.is_exact

    async def test_what_the_adapter_knows_of_it_is_used(self) -> None:
        prices = Prices()
        usage = Usage(prices=prices)
        entry = LedgerEntry("p", MODEL, "unknown", input_tokens=7)
        usage.add([entry], a_request(max_tokens=3))
        assert usage.uncertain_cost_usd == 7 + 2 * 3
        assert entry.output_tokens is None
        usage.add([LedgerEntry("p", MODEL, "unknown", 7, 1)], a_request(max_tokens=3))
        assert usage.uncertain_cost_usd == 7 + 2 * 3 + 7 + 2 * 1

    @pytest.mark.row("B3")
    async def test_a_stream_that_was_left_may_have_been_written_on(self) -> None:
        stack = tracking(deltas("x" * 8, "y" * 8))
        stream = stack.stream(a_request("x" * 40, max_tokens=100))
        async for _ in stream:
            break
        await stream.aclose()
        [entry] = stack.usage.ledger
        read, written = entry.most_input_tokens, entry.most_output_tokens
        assert written == 100
        assert read is not None
        assert 40 <= read < 300
        assert stack.usage.total_cost_usd == 10 + 2 * 2
        assert stack.usage.uncertain_cost_usd == (read - 10) + 2 * (100 - 2)

    async def test_an_estimate_may_be_too_high_too(self) -> None:
        entry = LedgerEntry("p", MODEL, "estimated", 7, 9, most_output_tokens=10)
        usage = Usage(prices=Prices())
        usage.add([entry], a_request())
        assert usage.total_cost_usd == 7 + 2 * 9
        assert usage.uncertain_cost_usd == 2 * 9

    async def test_what_an_estimate_knows_is_in_the_sums(self) -> None:
        usage = Usage(prices=Prices())
        usage.add([LedgerEntry("p", MODEL, "estimated", 7, 9, most_input_tokens=8)], a_request())
        assert usage.by_model[MODEL].input_tokens is None
        assert usage.by_model[MODEL].output_tokens == 9

    async def test_an_answer_tells_what_the_entry_of_its_attempt_does_not(self) -> None:
        usage = Usage(prices=Prices())
        usage.add(
            [LedgerEntry("p", MODEL, "unknown", most_input_tokens=99)], a_request(), an_answer()
        )
        row = usage.by_model[MODEL]
        assert (row.input_tokens, row.output_tokens) == (10, 5)

    async def test_each_entry_is_counted_by_its_state(self) -> None:
        prices = Prices()
        usage = Usage(prices=prices)
        pending, refused = LedgerEntry("p", MODEL), LedgerEntry("p", MODEL, "not_billed", 7, 9)
        usage.add([pending], a_request(max_tokens=5))
        assert (pending.state, pending.most_output_tokens) == ("unknown", 5)
        usage.add([refused, LedgerEntry("p", MODEL, "estimated", 1, 1)], a_request())
        assert usage.total_cost_usd == 3
        assert refused not in prices.priced
        assert "of its attempts 1 estimated" in str(usage)

    def test_a_call_has_the_entries_from_its_first_on(self) -> None:
        context = CallContext()
        earlier = context.open_entry(provider="p", model=MODEL)
        own = context.open_entry(provider="p", model=MODEL)
        entries = account_for(
            context,
            a_request(max_tokens=5),
            first=1,
            provider="p",
            model=MODEL,
            seconds=0.0,
            answer=None,
            error=RuntimeError("no"),
        )
        assert entries == [own]
        assert (own.state, own.most_output_tokens, earlier.state) == ("unknown", 5, "pending")

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("fails", [False, True])
    async def test_a_call_on_a_used_context_is_counted_by_itself(
        self, streamed: bool, fails: bool
    ) -> None:
        context = CallContext()
        earlier = context.open_entry(provider="p", model=MODEL)
        earlier.state, earlier.input_tokens, earlier.output_tokens = "exact", 1000, 1000
        came = deltas("42.") if streamed else an_answer()
        stack = tracking(RuntimeError("no") if fails else came)
        request = a_request(context=context)
        call = collect(stack.stream(request)) if streamed else stack.complete(request)
        await asyncio.gather(call, return_exceptions=True)
        [entry] = stack.usage.ledger
        assert [earlier, entry] == context.entries
        assert entry.state == ("unknown" if fails else "exact")
        assert abs(datetime.now(UTC) - entry.started_at).total_seconds() < 60

    async def test_an_estimate_may_have_cost_nothing(self) -> None:
        entry = LedgerEntry("p", MODEL, "estimated", 9, 0, most_input_tokens=10)
        usage = Usage(prices=Prices())
        usage.add([entry], a_request())
        assert usage.uncertain_cost_usd == 9

    async def test_a_source_that_prices_only_the_most_bounds_nothing(self) -> None:
        class Capped(Prices):
            def cost(self, entry: LedgerEntry) -> Decimal | None:
                return None if entry.input_tokens == 9 else super().cost(entry)

        usage = Usage(prices=Capped())
        usage.add([LedgerEntry("p", MODEL, "estimated", 9, 0, most_input_tokens=10)], a_request())
        assert usage.uncertain_cost_usd == 0

    async def test_of_a_whole_answer_only_what_was_not_told_is_uncertain(self) -> None:
        stack = tracking(an_answer("x" * 8, output_tokens=None))
        await stack.complete(a_request(max_tokens=100))
        [entry] = stack.usage.ledger
        assert (entry.most_input_tokens, entry.most_output_tokens) == (None, 100)
        assert stack.usage.by_model[MODEL].input_tokens == 10
        assert stack.usage.total_cost_usd == 10 + 2 * 2
        assert stack.usage.uncertain_cost_usd == 2 * 98

    async def test_who_estimates_without_saying_so_is_bounded_by_the_request(self) -> None:
        usage = Usage(prices=Prices())
        usage.add([LedgerEntry("p", MODEL, "estimated", 7, 9)], a_request(max_tokens=100))
        [entry] = usage.ledger
        assert entry.most_output_tokens == 100
        assert (entry.most_input_tokens or 0) > 40
        assert usage.uncertain_cost_usd > 2 * 91

    @pytest.mark.parametrize(
        ("dear", "tokens"),
        [
            ("cache_write_tokens", 50),
            ("cache_write_1h_tokens", 50),
            ("input_audio_tokens", 50),
            ("reasoning_tokens", 3),
            ("output_audio_tokens", 3),
            ("output_image_tokens", 3),
        ],
    )
    async def test_whatever_it_was_it_cost_no_more(self, dear: str, tokens: int) -> None:
        class OneIsDear(Prices):
            def cost(self, entry: LedgerEntry) -> Decimal | None:
                count = entry.token_details.get(dear, getattr(entry, dear, None))
                return (super().cost(entry) or Decimal(0)) + 10 * (count or 0)

        usage = Usage(prices=OneIsDear())
        entry = LedgerEntry("p", MODEL, "unknown", most_input_tokens=50, most_output_tokens=3)
        usage.add([entry], a_request())
        assert usage.uncertain_cost_usd == 50 + 2 * 3 + 10 * tokens

    async def test_a_kind_of_token_without_a_price_hides_no_other(self) -> None:
        class NoImages(Prices):
            def cost(self, entry: LedgerEntry) -> Decimal | None:
                if "output_image_tokens" in entry.token_details:
                    return None
                return (super().cost(entry) or Decimal(0)) / 1000

        usage = Usage(prices=NoImages())
        entry = LedgerEntry("p", MODEL, "unknown", most_input_tokens=50, most_output_tokens=3)
        usage.add([entry], a_request())
        assert usage.uncertain_cost_usd == 0.056

    @pytest.mark.parametrize("unknown", ["input", "output"])
    async def test_what_was_told_of_a_count_that_is_not_known_is_no_part_of_its_bounds(
        self, unknown: str
    ) -> None:
        """Its parts are at most the whole of it, but the whole may be none of them."""
        details = {"input_audio_tokens": 2, "output_audio_tokens": 1}
        entry = LedgerEntry("p", MODEL, "estimated", 7, 9, 4, 3, 5, token_details=details)
        if unknown == "input":
            entry.most_input_tokens = 8
        else:
            entry.most_output_tokens = 10
        prices = Prices()
        usage = Usage(prices=prices)
        usage.add([entry], a_request())
        assert usage.uncertain_cost_usd == (7 if unknown == "input" else 2 * 9)
        told, *bounds = sorted(prices.priced, key=lambda priced: priced != entry)
        assert told == entry
        known = "output_audio_tokens" if unknown == "input" else "input_audio_tokens"
        assert all(bound.token_details[known] == details[known] for bound in bounds)
        if unknown == "input":
            assert {bound.cache_read_tokens for bound in bounds} == {None}
            assert {bound.cache_write_tokens for bound in bounds} == {None, 8}
            assert {bound.token_details.get("input_audio_tokens") for bound in bounds} == {None, 8}
            assert {bound.reasoning_tokens for bound in bounds} == {5}
            assert {bound.input_tokens for bound in bounds} == {0, 8}
        else:
            assert {bound.reasoning_tokens for bound in bounds} == {None, 10}
            audio = {bound.token_details.get("output_audio_tokens") for bound in bounds}
            assert audio == {None, 10}
            assert {bound.cache_read_tokens for bound in bounds} == {4}
            assert {bound.output_tokens for bound in bounds} == {0, 10}

    async def test_of_an_answer_whose_output_was_told_only_the_input_is_uncertain(self) -> None:
        stack = tracking(an_answer(input_tokens=None))
        await stack.complete(a_request(max_tokens=100))
        [entry] = stack.usage.ledger
        assert entry.most_input_tokens is not None
        assert (entry.output_tokens, entry.most_output_tokens) == (5, None)

    def test_of_what_broke_off_more_may_have_been_written_than_was_told(self) -> None:
        entry = LedgerEntry("p", MODEL)
        partial = LLMResponse("x" * 8, MODEL, input_tokens=10, output_tokens=1)
        lost = ProviderConnectionError("gone")
        settle_failure(entry, lost, a_request(max_tokens=100), partial=partial)
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("estimated", 10, 2)
        assert (entry.most_input_tokens, entry.most_output_tokens) == (None, 100)

    async def test_what_nobody_tells_is_taken_at_its_dearest(self) -> None:
        class ByKind(Prices):
            def cost(self, entry: LedgerEntry) -> Decimal | None:
                cost = super().cost(entry) or Decimal(0)
                cost += 10 * (entry.cache_write_tokens or 0) + 5 * (entry.reasoning_tokens or 0)
                return cost + 100 * entry.token_details.get("output_audio_tokens", 0)

        usage = Usage(prices=ByKind())
        entry = LedgerEntry("p", MODEL, "unknown", most_input_tokens=50, most_output_tokens=3)
        usage.add([entry], a_request())
        assert usage.uncertain_cost_usd == 50 * (1 + 10) + 3 * (2 + 100)

    async def test_what_a_server_says_it_cost_is_not_uncertain(self) -> None:
        stack = tracking(an_answer(output_tokens=None, cost_usd=0.5))
        await stack.complete(a_request())
        assert not stack.usage.is_exact
        assert (stack.usage.total_cost_usd, stack.usage.uncertain_cost_usd) == (0.5, 0.0)

    @pytest.mark.parametrize("retried", [False, True])
    @pytest.mark.parametrize(
        "chunk",
        [
            StreamChunk(reasoning="x" * 8),
            StreamChunk(tool_call=ToolCallDelta(0, "c", "xx", "y" * 6)),
        ],
    )
    async def test_reasoning_and_calls_were_written_too(
        self, chunk: StreamChunk, retried: bool
    ) -> None:
        inner: Any = Scripted([chunk, ProviderConnectionError("gone")])
        stack = CostTrackingProvider(RetryingProvider(inner) if retried else inner, prices=Prices())
        await text_until_error(stack.stream(a_request()))
        [entry] = stack.usage.ledger
        assert (entry.state, entry.output_tokens) == ("estimated", 2)


class TestHowAFailureIsSettled:
    """Of an attempt that brought an error: what it told, and who says that it failed."""

    def settled(self, error: Exception | None, **fields: Any) -> LedgerEntry:
        entry = LedgerEntry("p", MODEL)
        partial = LLMResponse("", "of-the-answer", **fields) if fields else None
        settle_failure(entry, error, a_request(max_tokens=100), partial=partial)
        return entry

    @pytest.mark.parametrize(
        "told", [{"input_tokens": 10, "output_tokens": 0}, {"reasoning": "x" * 8}]
    )
    def test_an_answer_that_was_whole_is_settled_as_one(self, told: dict[str, Any]) -> None:
        entry = self.settled(ProtocolError("no"), finish_reason="stop", **told)
        exact = "input_tokens" in told
        assert (entry.state, entry.model) == ("exact" if exact else "estimated", "of-the-answer")
        assert entry.output_tokens == (0 if exact else 2)

    def test_a_text_is_as_long_as_its_bytes(self) -> None:
        entry = LedgerEntry("p", MODEL)
        partial = LLMResponse("😀" * 10, MODEL)
        settle_failure(entry, RuntimeError("no"), a_request(max_tokens=100), partial=partial)
        assert entry.output_tokens == 10

    def test_of_an_exact_entry_without_a_count_only_that_is_not_known(self) -> None:
        entry = LedgerEntry("p", MODEL, "exact", 7)
        bound(entry, a_request(max_tokens=100))
        assert (entry.state, entry.most_input_tokens) == ("estimated", None)
        assert entry.most_output_tokens == 100

    def test_text_reasoning_and_calls_were_all_written(self) -> None:
        entry = LedgerEntry("p", MODEL)
        call = ToolCall(id="1", name="look", arguments={"a": "x" * 33})
        partial = LLMResponse("x" * 40, MODEL, reasoning="x" * 40, tool_calls=[call])
        settle_failure(entry, RuntimeError("no"), a_request(max_tokens=100), partial=partial)
        assert entry.output_tokens == (40 + 40 + 4 + len('{"a": ""}') + 33 + 3) // 4

    def test_an_end_that_tells_nothing_is_no_whole_answer(self) -> None:
        entry = self.settled(ProtocolError("no"), finish_reason="stop")
        assert (entry.state, entry.most_output_tokens) == ("unknown", 100)

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (ProviderConnectionError("gone", kind="reset"), "estimated"),
            (RequestTimeoutError("slow"), "estimated"),
            (RuntimeError("no"), "estimated"),
            (RequestTimeoutError("slow", status=504), "unknown"),
            (ServerError("no", status=500), "unknown"),
        ],
    )
    def test_input_that_was_told_was_used_unless_the_server_says_that_it_failed(
        self, error: Exception, state: str
    ) -> None:
        entry = self.settled(error, input_tokens=10)
        assert (entry.state, entry.input_tokens) == (state, 10)
        assert (entry.model, entry.most_output_tokens) == ("of-the-answer", 100)

    def test_an_end_whose_output_is_not_told_is_no_whole_answer(self) -> None:
        entry = self.settled(ServerError("no"), finish_reason="stop", input_tokens=10)
        assert (entry.state, entry.most_output_tokens) == ("unknown", 100)

    def test_output_that_was_told_was_written_whoever_failed(self) -> None:
        entry = self.settled(ServerError("no", status=500), output_tokens=5)
        assert (entry.state, entry.output_tokens) == ("estimated", 5)

    def test_nothing_told_and_nothing_come_is_unknown(self) -> None:
        assert self.settled(RuntimeError("no")).state == "unknown"
        context = CallContext()
        unforeseen = RuntimeError("no")
        record_attempt(
            context, a_request(), provider="p", model=MODEL, seconds=0.0, error=unforeseen
        )
        assert [entry.state for entry in context.entries] == ["unknown"]

    def test_what_just_ended_has_no_error(self) -> None:
        assert self.settled(None).error is None

    def test_an_answer_may_cost_nothing_and_be_of_another_model(self) -> None:
        entry = LedgerEntry("p", MODEL)
        settle_answer(entry, an_answer(model="another", cost_usd=0.0), a_request())
        assert (entry.cost_usd, entry.model) == (0.0, "another")

    def test_an_answer_from_a_cache_is_no_attempt(self) -> None:
        cached = an_answer("42.", cached=True)
        for answer in (cached, deltas("42.", answer=cached)[-1]):
            entries = account_for(
                CallContext(),
                a_request(),
                first=0,
                provider="p",
                model=MODEL,
                seconds=0.0,
                answer=answer,
                error=None,
            )
            assert entries == []


class TestWhatARequestMayHold:
    def bound(self, *parts: Any) -> int:
        return input_token_bound(
            LLMRequest([Message("user", "x" * 50), Message("user", list(parts))], model=MODEL)
        )

    def test_each_image_is_taken_as_the_largest_beside_the_text(self) -> None:
        image = ImagePart(data=b"x", media_type="image/png")
        text = self.bound(TextPart(text="Look."))
        assert 50 < text < 1000
        assert 2 * LARGEST_IMAGE + text <= self.bound(TextPart(text="Look."), image, image)
        assert self.bound(image, image) < 3 * LARGEST_IMAGE

    def test_arguments_that_are_no_json_may_be_of_any_length_too(self) -> None:
        call = ToolCall.parse("c", "look", "{" + "x" * LARGEST_INPUT)
        calling = Message("assistant", "x" * 50, tool_calls=[call])
        assert input_token_bound(LLMRequest([calling], model=MODEL)) == LARGEST_INPUT

    def test_sound_is_no_more_than_its_bytes_and_what_is_named_of_any_length(self) -> None:
        sound = AudioPart(data=b"x", media_type="audio/wav")
        named = AudioPart(url="https://example.org/a.wav", media_type="audio/wav")
        document = FilePart(data=b"x", media_type="application/pdf")
        assert self.bound(sound) < LARGEST_IMAGE
        for part in (named, document):
            assert self.bound(part) == self.bound(TextPart(text="Look."), part) == LARGEST_INPUT


class TestAttempts:
    """What an adapter's attempt came to, by how far it had come."""

    class Assembly:
        def __init__(self, characters: int) -> None:
            self.characters = characters

        def partial(self) -> LLMResponse:
            return LLMResponse("", MODEL, request_id="req-1")

    def ended(self, attempt: Attempt, error: Exception | None = None) -> None:
        attempt.failed(RateLimitError("no", status=429) if error is None else error)

    @pytest.fixture
    def context(self) -> CallContext:
        return CallContext()

    @pytest.fixture
    def attempt(self, context: CallContext) -> Attempt:
        request = a_request("x" * 40, context=context, max_tokens=100)
        return Attempt(request, Source("p", MODEL, str))

    def test_without_a_context_there_is_none(self) -> None:
        attempt = Attempt(a_request(), Source("p", MODEL, str))
        attempt.accepted = True
        attempt.answered(an_answer())
        self.ended(attempt)

    def test_it_is_under_way_until_it_ends(self, attempt: Attempt, context: CallContext) -> None:
        assert not attempt.accepted
        [entry] = context.entries
        assert (entry.state, entry.error) == ("pending", None)
        assert (entry.provider, entry.requested_model, entry.model) == ("p", MODEL, MODEL)

    def test_a_refusal_before_any_answer_is_not_billed(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        self.ended(attempt, RateLimitError("no", status=429, request_id="req-9"))
        [entry] = context.entries
        assert (entry.state, entry.error) == ("not_billed", "RateLimitError")
        assert entry.request_id == "req-9"

    @pytest.mark.parametrize("status", [400, 418, 499])
    def test_any_refusal_of_the_request_is_not_billed(
        self, attempt: Attempt, context: CallContext, status: int
    ) -> None:
        self.ended(attempt, ProviderError("no", status=status))
        assert [entry.state for entry in context.entries] == ["not_billed"]

    @pytest.mark.parametrize("error", [InputError("no"), ConfigurationError("no")])
    def test_what_was_wrong_before_anything_was_sent_cost_nothing(
        self, attempt: Attempt, context: CallContext, error: Exception
    ) -> None:
        self.ended(attempt, error)
        assert [(e.state, e.error) for e in context.entries] == [
            ("not_billed", type(error).__name__)
        ]

    @pytest.mark.parametrize("error", [RuntimeError("no"), ConfigurationError("no")])
    def test_what_went_wrong_within_an_answer_may_have_cost(
        self, attempt: Attempt, context: CallContext, error: Exception
    ) -> None:
        attempt.accepted = True
        self.ended(attempt, error)
        assert [(e.state, e.error) for e in context.entries] == [("unknown", type(error).__name__)]

    def test_what_nobody_foresaw_may_have_cost(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        self.ended(attempt, RuntimeError("no"))
        assert [(e.state, e.error) for e in context.entries] == [("unknown", "RuntimeError")]

    def test_an_answer_of_values_that_do_not_fit_was_sent_and_may_have_cost(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        with pytest.raises(InputError) as caught:
            LLMResponse(text=None, model=MODEL)  # type: ignore[arg-type]  # the fault
        self.ended(attempt, caught.value)
        assert [(e.state, e.error) for e in context.entries] == [("unknown", "ProtocolError")]

    @pytest.mark.parametrize(
        ("kind", "state"),
        [(StreamInterruptedError, "not_billed"), (ProviderConnectionError, "unknown")],
    )
    def test_a_stream_is_judged_by_what_broke_it_off(
        self, attempt: Attempt, context: CallContext, kind: type[ProviderError], state: str
    ) -> None:
        error = kind("broke off")
        error.__cause__ = RateLimitError("no", status=429)
        self.ended(attempt, error)
        assert [(e.state, e.error) for e in context.entries] == [(state, kind.__name__)]

    def test_what_an_unusable_answer_told_is_counted(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        told = LLMResponse("x" * 8, MODEL, input_tokens=7, output_tokens=3, finish_reason="stop")
        attempt.accepted = True
        self.ended(attempt, ProtocolError("bad", partial=told))
        [entry] = context.entries
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("exact", 7, 3)
        assert entry.error == "ProtocolError"

    def test_what_an_error_brings_of_earlier_attempts_is_none_of_this_one(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        before = LLMResponse("x" * 8, MODEL, input_tokens=10)
        self.ended(attempt, RateLimitError("no", status=429, partial=before))
        [entry] = context.entries
        assert (entry.state, entry.input_tokens) == ("not_billed", None)

    def test_a_refusal_within_an_answer_may_have_been_billed(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        attempt.accepted = True
        self.ended(attempt)
        assert [(e.state, e.error) for e in context.entries] == [("unknown", "RateLimitError")]

    def test_a_refusal_at_the_beginning_of_a_stream_may_have_been_billed(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        attempt.watch(self.Assembly(0))
        self.ended(attempt)
        assert [entry.state for entry in context.entries] == ["unknown"]

    def test_what_had_come_of_a_stream_was_billed(
        self, attempt: Attempt, context: CallContext
    ) -> None:
        attempt.watch(self.Assembly(8))
        self.ended(attempt, ProviderConnectionError("gone"))
        [entry] = context.entries
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("estimated", 10, 2)
        assert (entry.error, entry.request_id) == ("ProviderConnectionError", "req-1")

    async def test_an_answer_that_was_left_at_its_end_has_the_entry_of_its_attempt(self) -> None:
        class OwnEntry(Scripted):
            async def stream(self, request: LLMRequest, /) -> Any:
                assert request.context is not None
                entry = request.context.open_entry(provider="own", model=MODEL)
                entry.state, entry.input_tokens, entry.output_tokens = "exact", 10, 5
                try:
                    async for chunk in super().stream(request):
                        yield chunk
                except GeneratorExit:
                    entry.error = "GeneratorExit"
                    raise

        stack = CostTrackingProvider(OwnEntry(deltas("42")), prices=Prices())
        stream = stack.stream(a_request())
        async for chunk in stream:
            if chunk.is_final:
                break
        await stream.aclose()
        assert [(e.state, e.error) for e in stack.usage.ledger] == [("exact", "GeneratorExit")]
        assert stack.usage.by_model == {MODEL: TokenUsage(1, 10, 5, cost_usd=20.0)}


class TestInputEstimates:
    """About how many tokens a request has, where the provider does not tell."""

    async def estimate(self, request: LLMRequest) -> int | None:
        stack = tracking(an_answer(input_tokens=None))
        await stack.complete(request)
        return stack.usage.ledger[0].input_tokens

    async def test_a_token_is_four_bytes_of_text(self) -> None:
        assert await self.estimate(a_request("x" * 40)) == 10
        assert await self.estimate(a_request("中" * 40)) == 30

    async def test_nothing_is_nothing(self) -> None:
        stack = tracking(an_answer("", input_tokens=None, output_tokens=None))
        await stack.complete(a_request(""))
        [entry] = stack.usage.ledger
        assert (entry.input_tokens, entry.output_tokens) == (0, 0)

    @pytest.mark.parametrize(
        ("call", "tokens"),
        [
            (ToolCall("c", "four", {}), 2),
            (ToolCall("c", "four", {"it": "中" * 100}), 79),
            (ToolCall("c", "four", {"it": Spoken("x" * 400)}), 104),
            (ToolCall("c", "four", {"it": CYCLE}), 1),
            (ToolCall.parse("c", "four", "{" + "x" * 399), 101),
        ],
        ids=["none", "not ASCII", "no JSON", "a cycle", "invalid"],
    )
    async def test_a_call_has_its_name_and_its_arguments(self, call: ToolCall, tokens: int) -> None:
        calling = Message("assistant", tool_calls=[call])
        assert await self.estimate(LLMRequest([Message("user", ""), calling])) == tokens

    async def test_a_tool_is_described_in_ascii(self) -> None:
        class Lookup:
            name = "lookup"
            description = "中" * 1000
            parameters: dict[str, Any] = {}  # noqa: RUF012  # the port's shape

        assert (await self.estimate(a_request("", tools=(Lookup(),))) or 0) > 6 * 1000 / 4

    async def test_tools_calls_schemas_and_images_are_sent_too(self) -> None:
        class Lookup:
            name = "lookup"
            description = "d" * 1000
            parameters: dict[str, Any] = {"type": "object"}  # noqa: RUF012  # the port's shape

        plain = await self.estimate(a_request("x" * 40)) or 0
        call = ToolCall("c", "lookup", {"word": "x" * 400})
        image = ImagePart(url="https://example.com/x.png")
        for request, more in (
            (a_request("x" * 40, tools=(Lookup(),)), 250),
            (a_request("x" * 40, output_schema={"type": "object", "title": "t" * 400}), 100),
            (LLMRequest([Message("user", "x" * 40), Message("assistant", tool_calls=[call])]), 100),
            (LLMRequest([Message("user", ["x" * 40, image])]), 1000),
            (LLMRequest([Message("user", ["x" * 40, image, image])]), 2000),
        ):
            estimated = await self.estimate(request) or 0
            assert more <= estimated - plain < more + 30

    @pytest.mark.parametrize("odd", ["\ud83d", object(), {(1, 2): 3}, Unspeakable(), [CYCLE]])
    async def test_whatever_was_sent_the_attempt_is_settled_and_bounded(self, odd: Any) -> None:
        """A third party's provider may take what is no JSON, or cannot be shown at all."""

        class Odd:
            name, description = "odd", "d"
            parameters: dict[str, Any] = {"type": "object", "default": odd}  # noqa: RUF012  # the port's shape

        calling = Message("assistant", tool_calls=[ToolCall("c", "odd", {"it": odd})])
        for request in (LLMRequest([Message("user", "x"), calling]), a_request(tools=(Odd(),))):
            stack = tracking(an_answer(input_tokens=None), asyncio.CancelledError())
            assert (await stack.complete(request)).text
            with pytest.raises(asyncio.CancelledError):
                await stack.complete(request)
            assert [entry.state for entry in stack.usage.ledger] == ["estimated", "unknown"]
            assert all(entry.most_input_tokens for entry in stack.usage.ledger)

    async def test_a_stream_of_what_is_no_chunk_is_in_the_ledger(self) -> None:
        stack = tracking(["text"])
        with pytest.raises(AttributeError):
            await collect(stack.stream(a_request()))
        assert [entry.state for entry in stack.usage.ledger] == ["unknown"]


class TestPrices:
    async def test_no_price_is_looked_up_on_a_calls_way(self) -> None:
        prices = Prices()
        stack = tracking(an_answer(), prices=prices)
        await stack.complete(a_request())
        await collect(stack.stream(a_request()))
        assert stack.usage.total_requests == 2
        assert repr(stack.usage)
        assert (prices.loads, prices.priced) == (0, [])
        assert stack.usage.total_cost_usd == 40.0
        assert len(prices.priced) == 2

    async def test_nothing_is_loaded_where_nothing_is_to_be_priced(self) -> None:
        prices = Prices()
        usage = Usage(prices=prices)
        assert (usage.total_cost_usd, usage.by_model, usage.uncertain_cost_usd) == (0.0, {}, 0.0)
        assert prices.loads == 0

    async def test_what_the_provider_says_it_cost_counts_and_takes_no_table(self) -> None:
        prices = Prices()
        stack = tracking(an_answer(cost_usd=0.25), an_answer(), prices=prices)
        await stack.complete(a_request())
        assert (stack.usage.total_cost_usd, prices.loads) == (0.25, 0)
        assert stack.usage.ledger[0].cost_usd == 0.25
        await stack.complete(a_request())
        assert (stack.usage.total_cost_usd, prices.loads) == (20.25, 1)
        assert stack.usage.by_model[MODEL].cost_usd == 20.25

    @pytest.mark.row("B5")
    async def test_an_answer_in_parts_is_counted_once(self) -> None:
        """Each part has an entry of its own, and the answer the sum of them."""

        class InParts:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                for part in (an_answer(), an_answer(input_tokens=11, output_tokens=6)):
                    entry = context.open_entry(provider="p", model=MODEL)
                    settle_answer(entry, part, request)
                return an_answer(input_tokens=21, output_tokens=11)

        stack = CostTrackingProvider(InParts(), prices=Prices())
        await stack.complete(a_request())
        assert (stack.usage.total_requests, len(stack.usage.ledger)) == (1, 2)
        assert (stack.usage.total_input_tokens, stack.usage.total_output_tokens) == (21, 11)
        assert stack.usage.is_exact

    async def test_an_answer_whose_last_part_lacks_a_count_is_counted_once(self) -> None:
        class InParts:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                for part in (an_answer(), an_answer(input_tokens=11, output_tokens=None)):
                    entry = context.open_entry(provider="p", model=MODEL)
                    settle_answer(entry, part, request)
                return an_answer(input_tokens=21, output_tokens=None)

        stack = CostTrackingProvider(InParts(), prices=Prices())
        await stack.complete(a_request())
        assert (stack.usage.total_input_tokens, stack.usage.total_output_tokens) == (21, 5)
        assert not stack.usage.is_exact

    async def test_each_entry_is_priced_once(self) -> None:
        prices = Prices()
        stack = tracking(an_answer(), prices=prices)
        for expected in (20.0, 40.0):
            await stack.complete(a_request())
            assert stack.usage.total_cost_usd == expected
            assert stack.usage.by_model[MODEL].cost_usd == expected
        assert len(prices.priced) == 2

    async def test_each_call_is_priced_by_itself(self) -> None:
        """Sums would cross the threshold of a price that depends on a call's size."""
        prices = Prices()
        stack = tracking(an_answer(input_tokens=150_000), prices=prices)
        for _ in range(2):
            await stack.complete(a_request())
        assert stack.usage.total_cost_usd
        assert [entry.input_tokens for entry in prices.priced] == [150_000, 150_000]

    async def test_warming_up_loads_the_prices_in_another_thread(self) -> None:
        prices = Prices()
        stack = tracking(an_answer(), prices=prices)
        await stack.complete(a_request())
        await stack.usage.warm_up()
        assert prices.loads == 1
        assert threading.current_thread().name not in prices.threads

    async def test_warming_up_loads_before_the_first_call_too(self) -> None:
        prices = Prices()
        await Usage(prices=prices).warm_up()
        assert prices.loads == 1

    async def test_many_unread_costs_are_priced_in_the_background(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert _tally.UNPRICED_KEPT == 10_000
        monkeypatch.setattr(_tally, "UNPRICED_KEPT", 100)
        prices = Prices()
        usage = Usage(prices=prices)
        for expected in (100, 200):
            add_many(usage, 99)
            await asyncio.sleep(0)
            assert len(prices.priced) == expected - 100
            add_many(usage, 1)
            for _ in range(500):
                if len(prices.priced) == expected and not usage._tally._in_background:
                    break
                await asyncio.sleep(0.01)
            assert len(prices.priced) == expected
        assert threading.current_thread().name not in prices.threads
        assert usage.total_cost_usd == 600.0

    async def test_what_is_priced_in_the_background_does_not_hold_up_the_end_of_the_program(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_tally, "UNPRICED_KEPT", 100)
        started: list[threading.Thread] = []

        def note(thread: threading.Thread) -> None:
            started.append(thread)

        monkeypatch.setattr(threading.Thread, "start", note)
        add_many(Usage(prices=Prices()), 100)
        assert [thread.daemon for thread in started] == [True]

    async def test_prices_that_fail_to_load_lose_nothing(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(_tally, "UNPRICED_KEPT", 100)
        tries: list[str] = []
        mended = threading.Event()

        def fail() -> None:
            tries.append("load")
            if not mended.is_set():
                raise RuntimeError("the table is gone")

        usage = Usage(prices=Prices(fail))
        for _ in range(15):
            add_many(usage, 10)
            await asyncio.sleep(0.005)
        assert 1 <= len(tries) <= 2
        for _ in range(500):
            if caplog.messages:
                break
            await asyncio.sleep(0.01)
        assert caplog.messages[0] == "the prices cannot be loaded: RuntimeError"
        with pytest.raises(RuntimeError, match="the table is gone"):
            _ = usage.total_cost_usd
        assert usage.total_input_tokens == 150
        mended.set()
        assert usage.total_cost_usd == 450.0

    @pytest.mark.row("B6")
    async def test_the_sums_are_exact(self) -> None:
        class Dime(Prices):
            def cost(self, entry: LedgerEntry) -> Decimal | None:
                return Decimal("0.1")

        stack = tracking(an_answer(), prices=Dime())
        with localcontext() as context:
            context.prec = 2
            for _ in range(900):
                await stack.complete(a_request())
            assert stack.usage.total_cost_usd == stack.usage.by_model[MODEL].cost_usd == 90.0

    async def test_without_a_source_the_public_list_prices_are_taken(self) -> None:
        stack = CostTrackingProvider(Scripted(an_answer(input_tokens=1000, output_tokens=1000)))
        await stack.complete(a_request())
        assert stack.usage.total_cost_usd == pytest.approx(0.0006)

    async def test_a_response_without_a_provider_is_priced_by_the_stacks_own(self) -> None:
        prices = Prices()
        stack = tracking(an_answer(), an_answer(provider="azure"), prices=prices, provider="groq")
        for _ in range(2):
            await stack.complete(a_request())
        assert stack.usage.total_cost_usd
        assert [entry.provider for entry in prices.priced] == ["groq", "azure"]

    def test_a_call_imports_no_prices(self) -> None:
        code = (
            "import asyncio, sys\n"
            "from aether.extensions.llm.cost_tracking import CostTrackingProvider\n"
            "from aether.extensions.llm.fake import FakeProvider\n"
            "from aether.llm.contracts import LLMRequest, Message\n"
            "stack = CostTrackingProvider(FakeProvider())\n"
            "asyncio.run(stack.complete(LLMRequest([Message('user', 'hi')])))\n"
            "assert stack.usage.total_requests == 1\n"
            "sys.exit('genai_prices' in sys.modules)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestThreads:
    @pytest.mark.row("B6")
    def test_calls_from_many_threads_are_all_counted(self) -> None:
        models = [f"m{number}" for number in range(4)]
        stack = tracking(an_answer())
        usage = stack.usage
        reading = threading.Event()

        def call(model: str) -> None:
            async def many() -> None:
                provider = CostTrackingProvider(Scripted(an_answer(model=model)), usage=usage)
                for _ in range(500):
                    await provider.complete(a_request())

            asyncio.run(many())

        def read() -> None:
            while not reading.wait(0.001):
                assert usage.total_cost_usd >= 0
                assert usage.by_model is not None

        reader = threading.Thread(target=read)
        reader.start()
        threads = [threading.Thread(target=call, args=(model,)) for model in models * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reading.set()
        reader.join()
        assert usage.total_requests == 4000
        assert usage.by_model == {
            model: TokenUsage(1000, 10_000, 5000, cost_usd=20_000.0) for model in models
        }
        assert usage.total_cost_usd == 80_000.0


class TestView:
    async def test_a_client_without_cost_tracking_shows_zero_and_says_why(self) -> None:
        prices = Prices()
        await Usage(prices=prices, enabled=False).warm_up()
        assert prices.loads == 0
        usage = Usage.disabled()
        await usage.warm_up()
        assert usage.enabled is False
        assert (usage.total_requests, usage.total_input_tokens, usage.total_output_tokens) == (
            0,
            0,
            0,
        )
        assert (usage.total_cost_usd, usage.uncertain_cost_usd) == (0.0, 0.0)
        assert (usage.by_model, usage.ledger, usage.is_exact) == ({}, (), True)
        assert str(usage) == repr(usage) == "Usage(off: made with with_cost_tracking=False)"

    async def test_it_reads_well(self) -> None:
        stack = tracking(an_answer())
        assert repr(stack.usage) == "Usage(0 requests, 0 input tokens, 0 output tokens, $0.000000)"
        await stack.complete(a_request())
        figures = "Usage(1 requests, 10 input tokens, 5 output tokens, "
        assert repr(stack.usage) == f"{figures}cost not read yet)"
        assert str(stack.usage) == repr(stack.usage) == f"{figures}$20.000000)"

    @pytest.mark.row("B1")
    async def test_it_says_what_is_missing(self) -> None:
        free = an_answer(model="free-7b"), an_answer(model="free-1b")
        stack = tracking(*free, an_answer(), ServerError("no"))
        for _ in range(4):
            await attempt(stack)
        assert str(stack.usage) == (
            "Usage(3 requests, 30 input tokens, 15 output tokens, at least $20.000000 (no price "
            "known for free-1b, free-7b), of its attempts 0 estimated, 1 unknown)"
        )

    async def test_rows_and_ledger_are_copies(self) -> None:
        stack = tracking(an_answer())
        await stack.complete(a_request())
        stack.usage.by_model[MODEL].requests = 99
        stack.usage.by_model.clear()
        assert stack.usage.by_model[MODEL].requests == 1

    def test_prices_belong_to_one_usage(self) -> None:
        with pytest.raises(TypeError, match="either"):
            CostTrackingProvider(FakeProvider(), usage=Usage(), prices=Prices())

    async def test_it_is_a_provider_like_the_one_inside(self) -> None:
        provider = Scripted(an_answer(), default_model="m")
        stack = CostTrackingProvider(provider)
        assert stack.inner is provider
        assert stack.default_model == "m"
        assert repr(stack) == "CostTracking > Scripted"
        await stack.aclose()
        assert provider.closed


KINDS: dict[str, Callable[[], Any]] = {
    "answer": an_answer,
    "answer without usage": lambda: an_answer(input_tokens=None, output_tokens=None),
    "unpriced": lambda: an_answer(model="free-7b"),
    "another model": lambda: an_answer(model="other"),
    "refused": lambda: AuthenticationError("no", status=401),
    "timeout": lambda: RequestTimeoutError("no"),
    "server": lambda: ServerError("no", status=500),
    "cancelled": asyncio.CancelledError,
    "broken": lambda: [StreamChunk(text="x" * 8), ProviderConnectionError("no")],
}


@settings(deadline=None)
@given(
    script=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=12),
    retried=st.booleans(),
)
def test_the_sums_agree_with_the_ledger(script: list[str], retried: bool) -> None:
    clock, provider = Clock(), Scripted(*(KINDS[kind]() for kind in script))
    inner: Any = provider
    if retried:
        inner = RetryingProvider(provider, clock=clock, sleep=clock.sleep, random=lambda: 0.0)
        inner = CircuitBreakerProvider(inner, clock=clock)
    stack = CostTrackingProvider(inner, prices=Prices())
    answers = 0

    async def play() -> None:
        nonlocal answers
        while provider.calls < len(script):
            before = provider.calls
            [result] = await clock.run(collect(stack.stream(a_request(max_tokens=100))))
            answers += not isinstance(result, BaseException)
            if isinstance(result, CircuitOpenError):
                assert provider.calls == before
                clock.now += result.retry_after

    asyncio.run(play())
    usage, rows = stack.usage, stack.usage.by_model.values()
    priced = [entry for entry in usage.ledger if entry.model != "free-7b"]
    assert len(usage.ledger) == provider.calls
    assert usage.total_requests == answers == sum(row.requests for row in rows)
    assert usage.total_cost_usd == sum(row.cost_usd or 0 for row in rows)
    assert usage.total_cost_usd == sum(
        (entry.input_tokens or 0) + 2 * (entry.output_tokens or 0)
        for entry in priced
        if entry.state in {"exact", "estimated"}
    )
    in_doubt = {"estimated", "unknown"}
    assert (usage.uncertain_cost_usd > 0) == any(entry.state in in_doubt for entry in priced)
    assert usage.is_exact == all(entry.state in {"exact", "not_billed"} for entry in usage.ledger)
