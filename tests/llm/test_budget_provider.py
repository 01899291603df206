"""A budget around a provider: what is set aside, lowered or refused, and how a call is settled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from aether import Budget
from aether.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm.budget import BudgetProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import (
    CallContext,
    FilePart,
    LedgerEntry,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
)
from aether.llm.sizing import (
    LARGEST_INPUT,
    LARGEST_OUTPUT,
    estimate_input_tokens,
    input_token_bound,
)
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper
from aether.testing.providers import ProviderConformance
from tests.llm.scripted import (
    MODEL,
    Clock,
    Scripted,
    WithoutStream,
    a_request,
    an_answer,
    collect,
    deltas,
)

MICRO = Decimal("0.000001")


class Prices:
    """A millionth of a dollar for a token of input, two for one of output; `free` has no price."""

    def __init__(self, fail: Callable[[], None] = lambda: None) -> None:
        self.loads = 0
        self.loaded_in: set[str] = set()
        self.fail = fail
        self.broken = False

    def load(self) -> None:
        self.fail()
        self.loads += 1
        self.loaded_in.add(threading.current_thread().name)

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        if self.broken:
            raise LookupError("the table is torn")
        if entry.model is None or entry.model.startswith("free"):
            return None
        if entry.input_tokens is None and entry.output_tokens is None:
            return None
        times = 10 if entry.model == "dear" else 1
        return times * MICRO * ((entry.input_tokens or 0) + 2 * (entry.output_tokens or 0))


def held_to(budget: Budget | None, *script: Any, **options: Any) -> BudgetProvider:
    return BudgetProvider(Scripted(*script), budget, **{"prices": Prices(), **options})


def sent_by(stack: BudgetProvider) -> list[LLMRequest]:
    assert isinstance(stack.inner, Scripted)
    return stack.inner.requests


def micro(usd: float | None) -> int:
    assert usd is not None
    return round(usd * 1e6)


async def complete(stack: BudgetProvider, request: LLMRequest) -> LLMResponse:
    return await stack.complete(request)


async def streamed(stack: BudgetProvider, request: LLMRequest) -> LLMResponse:
    chunks = await collect(stack.stream(request))
    assert chunks[-1].response is not None
    return chunks[-1].response


both_ways = pytest.mark.parametrize("ask", [complete, streamed], ids=["whole", "stream"])
BOUND = input_token_bound(a_request())
"""The most tokens of input of the plain request."""


class TestConformance(ProviderConformance):
    def make_provider(self) -> BudgetProvider:
        return BudgetProvider(FakeProvider(), Budget(requests=1_000))


class TestConformanceWithoutBudgets(ProviderConformance):
    def make_provider(self) -> BudgetProvider:
        return BudgetProvider(FakeProvider())


class TestSettling:
    @both_ways
    async def test_a_call_is_settled_at_its_tokens_and_price(self, ask: Any) -> None:
        budget = Budget(usd=1, tokens=100_000, requests=5)
        stack = held_to(budget, an_answer(input_tokens=100, output_tokens=50))
        await ask(stack, a_request(max_tokens=1_000))
        assert micro(budget.spent_usd) == 200
        assert (budget.spent_tokens, budget.spent_requests) == (150, 1)
        assert micro(budget.remaining_usd) == 999_800
        assert (budget.remaining_tokens, budget.remaining_requests) == (99_850, 4)
        assert budget.uncertain_usd == 0.0

    @both_ways
    async def test_while_it_is_under_way_the_most_that_it_can_use_is_set_aside(
        self, ask: Any
    ) -> None:
        budget = Budget(usd=1, tokens=100_000, requests=5)
        seen: list[tuple[int, int | None, int | None]] = []

        async def look() -> LLMResponse:
            seen.append(
                (
                    micro(budget.remaining_usd),
                    budget.remaining_tokens,
                    budget.remaining_requests,
                )
            )
            return an_answer()

        await ask(held_to(budget, look), a_request(max_tokens=1_000))
        assert seen == [(1_000_000 - BOUND - 2_000, 99_000 - BOUND, 4)]

    @both_ways
    async def test_what_the_provider_says_that_it_cost_counts_before_the_table(
        self, ask: Any
    ) -> None:
        budget = Budget(usd=1)
        await ask(held_to(budget, an_answer(cost_usd=0.25)), a_request())
        assert budget.spent_usd == 0.25

    @both_ways
    async def test_counts_that_were_not_reported_are_estimated_and_the_rest_is_uncertain(
        self, ask: Any
    ) -> None:
        budget = Budget(usd=1)
        answer = an_answer("four" * 10, input_tokens=None, output_tokens=None)
        await ask(held_to(budget, answer), a_request(max_tokens=100))
        estimate = estimate_input_tokens(a_request())
        assert budget.spent_tokens == estimate + 10
        assert micro(budget.spent_usd) == estimate + 20
        assert micro(budget.uncertain_usd) == BOUND - estimate + 180
        assert budget.uncertain_tokens == BOUND - estimate + 90

    @both_ways
    @pytest.mark.parametrize("limit", [64, None])
    async def test_of_an_unknown_outcome_all_is_uncertain_and_nothing_is_spent(
        self, ask: Any, limit: int | None
    ) -> None:
        budget = Budget(usd=1, tokens=10**6)
        with pytest.raises(RequestTimeoutError):
            await ask(held_to(budget, RequestTimeoutError("slow")), a_request(max_tokens=limit))
        assert (budget.spent_usd, budget.spent_tokens, budget.spent_requests) == (0.0, 0, 1)
        most = limit or LARGEST_OUTPUT
        assert micro(budget.uncertain_usd) == BOUND + 2 * most
        assert budget.uncertain_tokens == BOUND + most
        assert budget.remaining_usd == 1.0

    async def test_what_is_uncertain_is_no_more_than_the_model_can_answer(self) -> None:
        budget = Budget(tokens=10**6)
        request = a_request(model="claude-opus-4-1")
        with pytest.raises(RequestTimeoutError):
            await held_to(budget, RequestTimeoutError("slow")).complete(request)
        assert budget.uncertain_tokens == input_token_bound(request) + 32_000

    @both_ways
    @pytest.mark.parametrize(
        "error",
        [AuthenticationError("no", status=401), BadRequestError("no", status=400)],
        ids=["401", "400"],
    )
    async def test_a_refused_call_is_a_request_and_nothing_else(
        self, ask: Any, error: Exception
    ) -> None:
        budget = Budget(usd=1, tokens=10**6, requests=2)
        with pytest.raises(type(error)):
            await ask(held_to(budget, error), a_request())
        assert (budget.spent_usd, budget.spent_tokens, budget.spent_requests) == (0.0, 0, 1)
        assert (budget.remaining_usd, budget.remaining_tokens) == (1.0, 10**6)
        assert (budget.uncertain_usd, budget.unpriced_requests) == (0.0, 0)

    @both_ways
    async def test_a_call_that_was_not_sent_leaves_no_trace(self, ask: Any) -> None:
        budget = Budget(usd=1, requests=1)
        with pytest.raises(CircuitOpenError):
            await ask(held_to(budget, CircuitOpenError("open", retry_after=1)), a_request())
        assert budget.spent_requests == 0
        assert budget.remaining_usd == 1.0

    @both_ways
    async def test_a_cancelled_call_gives_back_what_it_had_set_aside(self, ask: Any) -> None:
        budget = Budget(usd=1)
        began = asyncio.Event()

        async def hang() -> None:
            began.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(ask(held_to(budget, hang), a_request(max_tokens=10)))
        await began.wait()
        assert micro(budget.remaining_usd) == 1_000_000 - BOUND - 20
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert budget.remaining_usd == 1.0
        assert (budget.spent_requests, micro(budget.uncertain_usd)) == (1, BOUND + 20)

    async def test_a_stream_that_is_left_is_settled_at_what_had_come_at_once(self) -> None:
        budget = Budget(usd=1)
        stack = held_to(budget, deltas("four" * 5, "never seen"))
        stream = stack.stream(a_request(max_tokens=100))
        assert (await anext(stream)).text
        await stream.aclose()
        estimate = estimate_input_tokens(a_request())
        assert budget.spent_tokens == estimate + 5
        assert budget.uncertain_tokens == BOUND - estimate + 95
        assert micro(budget.remaining_usd) == 1_000_000 - estimate - 10

    async def test_a_stream_that_breaks_is_settled_at_what_had_come(self) -> None:
        budget = Budget(usd=1)
        broken = [StreamChunk(text="four" * 5), StreamInterruptedError("gone")]
        with pytest.raises(StreamInterruptedError):
            await collect(held_to(budget, broken).stream(a_request(max_tokens=100)))
        assert budget.spent_tokens == estimate_input_tokens(a_request()) + 5
        assert budget.account.held.tokens == 0

    async def test_an_estimate_is_no_more_than_the_limit_allows(self) -> None:
        budget = Budget(tokens=BOUND + 16)
        broken = [StreamChunk(text="incomprehensibilities " * 16), StreamInterruptedError("gone")]
        with pytest.raises(StreamInterruptedError):
            await collect(held_to(budget, broken).stream(a_request()))
        assert budget.spent_tokens == estimate_input_tokens(a_request()) + 16

    async def test_a_stream_nobody_reads_sets_nothing_aside(self) -> None:
        budget = Budget(usd=1)
        stream = held_to(budget, an_answer()).stream(a_request())
        assert budget.remaining_usd == 1.0
        await stream.aclose()
        assert budget.spent_requests == 0

    async def test_an_answer_of_another_model_has_that_models_price(self) -> None:
        budget = Budget(usd=1)
        await held_to(budget, an_answer(model="dear")).complete(a_request())
        assert micro(budget.spent_usd) == 200

    async def test_one_of_a_model_without_a_price_has_that_of_the_one_that_was_asked(self) -> None:
        budget = Budget(usd=1)
        await held_to(budget, an_answer(model="free-7b")).complete(a_request())
        assert (micro(budget.spent_usd), budget.unpriced_requests) == (20, 0)

    async def test_a_price_that_can_no_longer_be_looked_up_is_taken_as_all_that_was_set_aside(
        self,
    ) -> None:
        budget, prices = Budget(usd=1), Prices()

        async def tear() -> LLMResponse:
            prices.broken = True
            return an_answer()

        await held_to(budget, tear, prices=prices).complete(a_request(max_tokens=100))
        assert micro(budget.spent_usd) == BOUND + 200
        assert budget.account.held.usd == 0

    async def test_more_than_max_tokens_is_told_and_refuses_what_follows(self) -> None:
        budget = Budget(tokens=BOUND + 100)
        stack = held_to(budget, an_answer(input_tokens=10, output_tokens=5_000))
        await stack.complete(a_request())
        assert (budget.spent_tokens, budget.remaining_tokens) == (5_010, 0)
        with pytest.raises(BudgetExceededError):
            await stack.complete(a_request())


class TestLowering:
    @both_ways
    async def test_max_tokens_is_lowered_to_what_is_left_of_dollars(self, ask: Any) -> None:
        budget = Budget(usd=MICRO * (BOUND + 101))
        stack = held_to(budget, an_answer(output_tokens=50, finish_reason="length"))
        request = a_request(max_tokens=1_000)
        assert (await ask(stack, request)).finish_reason == "length"
        assert [sent.max_tokens for sent in sent_by(stack)] == [50]
        assert request.max_tokens == 1_000

    @both_ways
    async def test_it_is_lowered_to_what_is_left_of_tokens(self, ask: Any) -> None:
        stack = held_to(Budget(tokens=BOUND + 70), an_answer())
        await ask(stack, a_request(max_tokens=1_000))
        await ask(stack, a_request(max_tokens=20))
        assert [sent.max_tokens for sent in sent_by(stack)] == [70, 20]

    async def test_the_least_of_all_that_is_left_counts(self) -> None:
        root = Budget(usd=MICRO * (BOUND + 200))
        stack = held_to(Budget(tokens=BOUND + 300, parent=root), an_answer())
        await stack.complete(a_request(max_tokens=1_000))
        context = CallContext(budgets=[Budget(tokens=BOUND + 40)])
        await stack.complete(a_request(max_tokens=1_000, context=context))
        assert [sent.max_tokens for sent in sent_by(stack)] == [100, 40]

    async def test_a_call_that_fits_is_sent_as_it_is(self) -> None:
        budget = Budget(usd=MICRO * (BOUND + 100))
        stack = held_to(budget, an_answer())
        request = a_request(max_tokens=50, context=CallContext())
        await stack.complete(request)
        [sent] = sent_by(stack)
        assert sent.replace(context=None) == request.replace(context=None)

    @pytest.mark.parametrize(
        ("model", "most"),
        [("claude-opus-4-1", 32_000), ("gpt-6-luna", LARGEST_OUTPUT)],
        ids=["known", "unknown"],
    )
    async def test_without_max_tokens_the_longest_answer_of_the_model_is_set_aside(
        self, model: str, most: int
    ) -> None:
        budget = Budget(tokens=10**6)
        left: list[int | None] = []

        async def look() -> LLMResponse:
            left.append(budget.remaining_tokens)
            return an_answer()

        stack = held_to(budget, look)
        await stack.complete(a_request(model=model))
        assert left == [10**6 - input_token_bound(a_request(model=model)) - most]
        assert sent_by(stack)[0].max_tokens is None

    @pytest.mark.parametrize(
        ("model", "limit"),
        [("claude-opus-4-1", 16_384), ("gpt-6-luna", 8_192)],
    )
    async def test_a_limit_that_nobody_set_is_none_that_a_model_would_refuse(
        self, model: str, limit: int
    ) -> None:
        stack = held_to(Budget(tokens=BOUND + limit + 100), an_answer())
        await stack.complete(a_request(model=model))
        assert sent_by(stack)[0].max_tokens == limit

    async def test_below_sixteen_tokens_it_is_refused_and_not_sent(self) -> None:
        budget = Budget(tokens=BOUND + 15)
        stack = held_to(budget, an_answer())
        with pytest.raises(BudgetExceededError) as raised:
            await stack.complete(a_request(max_tokens=1_000))
        assert sent_by(stack) == []
        assert raised.value.remaining_tokens == BOUND + 15
        assert (raised.value.remaining_usd, raised.value.remaining_requests) == (None, None)
        await stack.complete(a_request(max_tokens=15))
        assert [sent.max_tokens for sent in sent_by(stack)] == [15]

    async def test_fields_of_extra_body_may_set_another_limit_so_nothing_is_lowered(self) -> None:
        most = LARGEST_INPUT + LARGEST_OUTPUT
        enough, less = Budget(tokens=most), Budget(tokens=most - 1)
        request = a_request(max_tokens=10, extra_body={"max_completion_tokens": 99})
        await held_to(enough, an_answer()).complete(request)
        with pytest.raises(BudgetExceededError, match="extra_body"):
            await held_to(less, an_answer()).complete(request)

    async def test_fields_that_bring_nothing_in_change_nothing(self) -> None:
        stack = held_to(Budget(tokens=BOUND + 16), an_answer())
        await stack.complete(a_request(max_tokens=16, extra_body={"top_k": 5, "user": "u"}))
        assert len(sent_by(stack)) == 1

    async def test_a_document_counts_as_the_most_that_a_model_reads(self) -> None:
        part = FilePart(data=b"%PDF", media_type="application/pdf")
        request = LLMRequest([Message("user", part)], MODEL, max_tokens=16)
        with pytest.raises(BudgetExceededError, match="a document"):
            await held_to(Budget(tokens=LARGEST_INPUT), an_answer()).complete(request)
        await held_to(Budget(tokens=LARGEST_INPUT + 16), an_answer()).complete(request)


class TestRefusing:
    async def test_it_says_what_is_left_what_it_needs_of_which_budget_and_what_to_do(self) -> None:
        root = Budget(usd=MICRO * 100)
        stack = held_to(Budget(usd=5, parent=root), an_answer(), provider="openai")
        with pytest.raises(BudgetExceededError) as raised:
            await stack.complete(a_request("long" * 100, max_tokens=500))
        need = input_token_bound(a_request("long" * 100))
        assert str(raised.value) == (
            "Not sent: Budget(usd=0.000100: $0.00 spent, $0.0001 left) has too little left for "
            f"this call of 'gpt-6-luna', which may use $0.000{need + 32}: {need} tokens of input "
            "at most, and 16 of output. Shorten the messages, or raise the limit."
        )
        assert raised.value.remaining_usd == 0.0001
        assert (raised.value.provider, raised.value.model) == ("openai", "gpt-6-luna")

    async def test_calls_under_way_are_named_as_a_reason(self) -> None:
        budget = Budget(requests=1)
        inner: list[BaseException] = []

        async def again() -> LLMResponse:
            with pytest.raises(BudgetExceededError) as raised:
                await stack.complete(a_request())
            inner.append(raised.value)
            return an_answer()

        stack = held_to(budget, again)
        await stack.complete(a_request())
        assert "no request left" in str(inner[0])
        assert "Calls under way have the most that they may use set aside" in str(inner[0])

    @both_ways
    async def test_a_limit_of_nothing_refuses_every_call(self, ask: Any) -> None:
        for budget in (Budget(usd=0), Budget(tokens=0), Budget(requests=0)):
            stack = held_to(budget, an_answer())
            with pytest.raises(BudgetExceededError):
                await ask(stack, a_request(max_tokens=1))
            assert sent_by(stack) == []

    async def test_nothing_of_a_refused_call_stays_set_aside(self) -> None:
        root, child = Budget(usd=1, requests=10), Budget(tokens=5)
        stack = held_to(root, an_answer())
        for _ in range(3):
            with pytest.raises(BudgetExceededError):
                await stack.complete(a_request(context=CallContext(budgets=[child])))
        assert (root.remaining_usd, root.remaining_requests, child.remaining_tokens) == (1.0, 10, 5)

    async def test_no_call_waits_for_another(self) -> None:
        budget, release = Budget(requests=1), asyncio.Event()

        async def hang() -> LLMResponse:
            await release.wait()
            return an_answer()

        stack = held_to(budget, hang)
        first = asyncio.ensure_future(stack.complete(a_request()))
        await Clock.settle()
        with pytest.raises(BudgetExceededError):
            await stack.complete(a_request())
        release.set()
        await first


class TestPrices:
    @both_ways
    async def test_a_price_that_is_not_known_refuses_the_call(self, ask: Any) -> None:
        stack = held_to(Budget(usd=5), an_answer(), provider="ollama")
        with pytest.raises(ConfigurationError) as raised:
            await ask(stack, a_request(model="free-7b"))
        assert "the price of 'free-7b' of ollama is not known" in str(raised.value)
        assert "unknown_price='refuse'" in str(raised.value)
        assert "unknown_price='ignore'" in str(raised.value)
        assert sent_by(stack) == []

    @both_ways
    async def test_or_is_ignored_where_that_was_asked_for(self, ask: Any) -> None:
        budget = Budget(usd=0.001, tokens=10_000, requests=2, unknown_price="ignore")
        stack = held_to(budget, an_answer(model="free-7b"))
        for _ in range(2):
            await ask(stack, a_request(model="free-7b", max_tokens=100))
        assert (budget.spent_tokens, budget.spent_requests, budget.spent_usd) == (30, 2, 0.0)
        assert sent_by(stack)[0].max_tokens == 100
        with pytest.raises(BudgetExceededError):
            await ask(stack, a_request(model="free-7b"))

    async def test_one_budget_that_refuses_is_enough(self) -> None:
        parent = Budget(usd=5)
        budget = Budget(usd=5, parent=parent, unknown_price="ignore")
        with pytest.raises(ConfigurationError):
            await held_to(budget, an_answer()).complete(a_request(model="free-7b"))
        assert parent.remaining_usd == 5.0

    async def test_what_was_ignored_is_counted_as_unpriced(self) -> None:
        budget = Budget(usd=5, unknown_price="ignore")
        stack = held_to(budget, an_answer(model="free-7b"), RequestTimeoutError("slow"))
        await stack.complete(a_request(model="free-7b"))
        with pytest.raises(RequestTimeoutError):
            await stack.complete(a_request(model="free-7b"))
        assert budget.unpriced_requests == 2
        assert budget.uncertain_tokens > 0

    async def test_an_ignored_price_that_the_answer_brings_counts(self) -> None:
        budget = Budget(usd=5, unknown_price="ignore")
        stack = held_to(budget, an_answer(model="dear"), an_answer(model="free", cost_usd=0.5))
        await stack.complete(a_request(model="free-router"))
        assert micro(budget.spent_usd) == 200
        await stack.complete(a_request(model="free-router"))
        assert micro(budget.spent_usd) == 500_200

    async def test_they_are_loaded_once_in_a_worker_thread_and_only_for_dollars(self) -> None:
        prices = Prices()
        stack = held_to(None, an_answer(), prices=prices)
        for budget in (Budget(tokens=10**6), Budget(requests=3, parent=Budget(tokens=10**6))):
            await stack.complete(a_request(context=CallContext(budgets=[budget])))
            assert budget.unpriced_requests == 1
        assert prices.loads == 0
        for _ in range(3):
            context = CallContext(budgets=[Budget(requests=3, parent=Budget(usd=1))])
            await stack.complete(a_request(context=context))
        assert prices.loads == 1
        assert threading.main_thread().name not in prices.loaded_in

    async def test_calls_that_begin_together_load_them_once(self) -> None:
        prices = Prices(lambda: time.sleep(0.01))
        stack = held_to(Budget(usd=5), an_answer(), prices=prices)
        await asyncio.gather(*(stack.complete(a_request(max_tokens=9)) for _ in range(20)))
        assert prices.loads == 1

    @both_ways
    async def test_a_call_that_is_cancelled_while_they_are_loaded_has_set_nothing_aside(
        self, ask: Any
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def load_slowly() -> None:
            began.set()
            go_on.wait(5)

        budget = Budget(usd=5, requests=1)
        stack = held_to(budget, an_answer(), prices=Prices(load_slowly))
        task = asyncio.ensure_future(ask(stack, a_request()))
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert (budget.remaining_usd, budget.remaining_requests) == (5.0, 1)
        await ask(stack, a_request())
        assert budget.spent_requests == 1

    async def test_a_model_that_nobody_named_has_no_price(self) -> None:
        with pytest.raises(ConfigurationError, match="a model that nobody named"):
            await held_to(Budget(usd=5), an_answer()).complete(a_request(model=None))

    @both_ways
    async def test_prices_that_cannot_be_loaded_refuse_the_call_and_are_tried_again(
        self, ask: Any
    ) -> None:
        broken = [OSError("no table"), None]

        def fail() -> None:
            error = broken.pop(0)
            if error is not None:
                raise error

        budget = Budget(usd=5)
        stack = held_to(budget, an_answer(), prices=Prices(fail))
        with pytest.raises(ConfigurationError, match="OSError: no table"):
            await ask(stack, a_request())
        assert sent_by(stack) == []
        assert budget.remaining_usd == 5.0
        await ask(stack, a_request())
        assert micro(budget.spent_usd) == 20

    @both_ways
    async def test_or_are_ignored_where_that_was_asked_for(
        self, ask: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise OSError("no table")

        budget = Budget(usd=5, requests=1, unknown_price="ignore")
        stack = held_to(budget, an_answer(), prices=Prices(fail))
        await ask(stack, a_request())
        assert (budget.spent_tokens, budget.unpriced_requests) == (15, 1)
        assert "not limited in dollars" in caplog.text
        with pytest.raises(BudgetExceededError):
            await ask(stack, a_request())


class TestComposing:
    async def test_without_budgets_a_call_passes_through(self) -> None:
        stack = held_to(None, an_answer())
        request = a_request()
        await stack.complete(request)
        assert [chunk async for chunk in stack.stream(request)][-1].is_final
        assert all(sent is request for sent in sent_by(stack))

    async def test_a_provider_without_a_stream_is_read_as_one(self) -> None:
        for budget in (None, Budget(requests=1)):
            stack = BudgetProvider(WithoutStream(Scripted(an_answer("Hi"))), budget)
            assert [chunk.text for chunk in await collect(stack.stream(a_request()))] == ["Hi"]

    async def test_the_budgets_of_the_call_are_drawn_on_beside_its_own(self) -> None:
        own, run, call = Budget(tokens=1_000), Budget(requests=9), Budget(usd=1)
        context = CallContext(budgets=[run, call, own])
        await held_to(own, an_answer()).complete(a_request(context=context, max_tokens=9))
        assert own.spent_tokens == 15
        assert run.spent_requests == 1
        assert micro(call.spent_usd) == 20
        assert context.budgets == [run, call, own]
        assert context.reservation is None

    async def test_two_layers_around_one_another_hold_each_budget_once(self) -> None:
        shared, inner_own, call = Budget(tokens=200), Budget(requests=1), Budget(requests=1)
        seen: list[int | None] = []

        async def look() -> LLMResponse:
            seen.append(shared.remaining_tokens)
            return an_answer()

        inner = held_to(inner_own, look)
        stack = BudgetProvider(BudgetProvider(inner, shared), shared, prices=Prices())
        context = CallContext(budgets=[call])
        await stack.complete(a_request(context=context, max_tokens=20))
        assert seen == [200 - BOUND - 20]
        assert (shared.spent_tokens, shared.spent_requests) == (15, 1)
        assert (inner_own.spent_requests, call.spent_requests) == (1, 1)

    async def test_a_layer_between_that_makes_calls_of_its_own_has_them_counted_once(self) -> None:
        shared, inner_own = Budget(requests=5), Budget(requests=5)

        class Twice(ProviderWrapper):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                answers: list[LLMResponse] = []
                for _ in range(2):
                    branch = context.branch()
                    answers.append(await self.inner.complete(request.replace(context=branch)))
                    context.entries += branch.entries
                return answers[-1]

        stack = BudgetProvider(Twice(held_to(inner_own, an_answer())))
        await stack.complete(a_request(context=CallContext(budgets=[shared])))
        assert (shared.spent_requests, inner_own.spent_requests) == (2, 2)
        assert shared.account.held.requests == 0

    async def test_an_attempt_that_is_under_way_while_another_begins_is_settled_at_its_end(
        self,
    ) -> None:
        budget = Budget(tokens=10_000)

        class Overlapping:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                first, second = (context.open_entry(provider=None, model=MODEL) for _ in range(2))
                first.state, first.input_tokens, first.output_tokens = "exact", 1, 2
                assert context.reservation is not None
                assert context.reservation.extend()
                second.state, second.input_tokens, second.output_tokens = "exact", 3, 4
                return an_answer()

        await BudgetProvider(Overlapping(), budget).complete(a_request(max_tokens=100))
        assert (budget.spent_tokens, budget.spent_requests) == (10, 2)

    @pytest.mark.parametrize("room", [1, 2])
    async def test_an_attempt_that_is_under_way_keeps_what_is_set_aside_for_it(
        self, room: int
    ) -> None:
        budget = Budget(requests=room)
        seen: list[tuple[bool, int | None]] = []

        class Overlapping:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                assert context.reservation is not None
                context.open_entry(provider=None, model=MODEL)
                seen.append((context.reservation.extend(), budget.remaining_requests))
                return an_answer()

        await BudgetProvider(Overlapping(), budget).complete(a_request(max_tokens=100))
        assert seen == [(room == 2, 0)]
        assert budget.account.held.requests == 0

    async def test_what_cannot_be_settled_is_taken_as_all_that_was_set_aside(self) -> None:
        budget, times = Budget(tokens=10_000), iter([0.0])

        def clock() -> float:
            return next(times)

        stack = held_to(budget, an_answer(), clock=clock)
        with pytest.raises(RuntimeError):
            await stack.complete(a_request(max_tokens=100))
        assert (budget.spent_tokens, budget.account.held.tokens) == (BOUND + 100, 0)

    async def test_a_further_attempt_is_set_aside_and_counted(self) -> None:
        budget, clock = Budget(usd=1, requests=3), Clock()
        flaky = Scripted(ServerError("no", status=500), RateLimitError("no"), an_answer())
        retrying = RetryingProvider(flaky, clock=clock, sleep=clock.sleep, timeout=clock.timeout)
        stack = BudgetProvider(CircuitBreakerProvider(retrying), budget, prices=Prices())
        [answer] = await clock.run(stack.complete(a_request(max_tokens=10)))
        assert answer.attempts == 3
        assert budget.spent_requests == 3
        assert micro(budget.spent_usd) == 20
        assert micro(budget.uncertain_usd) == BOUND + 20
        assert budget.account.held.requests == 0

    async def test_an_attempt_without_room_is_not_made(self) -> None:
        budget, clock = Budget(requests=2), Clock()
        failing = Scripted(ServerError("no", status=500))
        retrying = RetryingProvider(failing, clock=clock, sleep=clock.sleep, timeout=clock.timeout)
        [error] = await clock.run(BudgetProvider(retrying, budget).complete(a_request()))
        assert isinstance(error, ServerError)
        reason = "a budget does not have enough left for another attempt"
        assert error.__notes__[0] == f"Not tried again: {reason}."
        assert failing.calls == 2
        assert (budget.spent_requests, budget.remaining_requests) == (2, 0)

    async def test_a_refused_attempt_has_used_nothing_so_the_next_one_has_its_room(self) -> None:
        budget, clock = Budget(tokens=BOUND + 16), Clock()
        flaky = Scripted(RateLimitError("no", status=429), an_answer())
        retrying = RetryingProvider(flaky, clock=clock, sleep=clock.sleep, timeout=clock.timeout)
        [answer] = await clock.run(BudgetProvider(retrying, budget).complete(a_request()))
        assert answer.text == "It is 42."
        assert budget.spent_tokens == 15

    async def test_both_layers_must_have_room_for_a_further_attempt(self) -> None:
        for outer, inner in ((1, 5), (5, 1)):
            outside, inside, clock = Budget(requests=outer), Budget(requests=inner), Clock()
            failing = Scripted(ServerError("no", status=500))
            retrying = RetryingProvider(
                failing, clock=clock, sleep=clock.sleep, timeout=clock.timeout
            )
            stack = BudgetProvider(BudgetProvider(retrying, inside), outside)
            await clock.run(stack.complete(a_request()))
            assert failing.calls == 1
            assert (outside.spent_requests, inside.spent_requests) == (1, 1)
            assert (outside.account.held.requests, inside.account.held.requests) == (0, 0)

    @both_ways
    @pytest.mark.parametrize("inside", [True, False], ids=["cost inside", "cost outside"])
    async def test_it_agrees_with_cost_tracking_and_no_entry_is_written_twice(
        self, ask: Any, inside: bool
    ) -> None:
        budget, prices = Budget(usd=1), Prices()
        script = Scripted(an_answer(), RequestTimeoutError("slow"), an_answer("more"))
        stack: Any
        if inside:
            tracking = CostTrackingProvider(script, prices=prices)
            stack = BudgetProvider(tracking, budget, prices=prices)
        else:
            stack = tracking = CostTrackingProvider(
                BudgetProvider(script, budget, prices=prices), prices=prices
            )
        for _ in range(3):
            with suppress(RequestTimeoutError):
                await ask(stack, a_request(max_tokens=30))
        assert len(tracking.usage.ledger) == budget.spent_requests == 3
        assert budget.spent_usd == tracking.usage.total_cost_usd
        assert budget.uncertain_usd == tracking.usage.uncertain_cost_usd

    @both_ways
    async def test_an_answer_from_a_cache_further_in_costs_nothing(self, ask: Any) -> None:
        budget = Budget(usd=1, requests=1)
        tracking = CostTrackingProvider(Scripted(an_answer(cached=True)), prices=Prices())
        stack = BudgetProvider(tracking, budget, prices=Prices())
        for _ in range(2):
            await ask(stack, a_request())
        assert (budget.spent_usd, budget.spent_requests) == (0.0, 0)
        assert list(tracking.usage.ledger) == []

    async def test_a_reader_may_leave_through_the_context_manager(self) -> None:
        budget = Budget(requests=1)
        script = Scripted(deltas("a", "b"))
        async with open_stream(BudgetProvider(script, budget), a_request()) as chunks:
            await anext(chunks)
        assert script.ended == 1
        assert budget.account.held.requests == 0
        assert budget.spent_requests == 1

    def test_a_budget_that_is_none_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="such as Budget"):
            BudgetProvider(FakeProvider(), 5)  # type: ignore[arg-type]  # what is tested

    def test_many_loops_in_threads_share_one_budget(self) -> None:
        budget = Budget(usd=MICRO * 40 * 100, requests=150)
        stack = held_to(budget, an_answer())
        refused: list[int] = []

        async def many() -> None:
            calls = [stack.complete(a_request(max_tokens=20)) for _ in range(50)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused.append(sum(isinstance(each, BudgetExceededError) for each in results))

        threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert budget.spent_requests == 300 - sum(refused)
        assert micro(budget.spent_usd) == 20 * budget.spent_requests
        assert 100 <= budget.spent_requests <= 150
        assert budget.account.held == type(budget.account.held)()
