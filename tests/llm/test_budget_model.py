"""Budgets against a small model of them: any calls, in any order, ending at any time, in any way.

No event loop runs: a call is a coroutine that is stepped by hand, so that Hypothesis decides which
call goes on, and how. A call may be tried again, be cancelled or left, or never end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from aether import Budget
from aether.errors import AetherError, BudgetExceededError
from aether.extensions.llm._pricing import Prices
from aether.extensions.llm.budget import BudgetProvider
from aether.llm.contracts import CallContext, LedgerEntry, LLMRequest, LLMResponse, StreamChunk
from aether.llm.sizing import input_token_bound, output_token_bound
from tests.llm.scripted import MODEL, a_request, an_answer

SIMULATIONS = int(os.environ.get("BUDGET_SIMULATIONS", "100"))
MICRO = Decimal("0.000001")
BOUND = input_token_bound(a_request())


class Linear:
    """Three millionths of a dollar for a token of input, seven for one of output."""

    def load(self) -> None:
        pass

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        return MICRO * (3 * (entry.input_tokens or 0) + 7 * (entry.output_tokens or 0))


class Tiered(Linear):
    """From a hundred tokens of output on, each of them costs more; so do many tokens of input."""

    def cost(self, entry: LedgerEntry) -> Decimal | None:
        dear_input, dear_output = (entry.input_tokens or 0) > 60, (entry.output_tokens or 0) >= 100
        return MICRO * (
            (entry.input_tokens or 0) * (4 if dear_input else 3)
            + (entry.output_tokens or 0) * (11 if dear_output else 7)
        )


class Suspended:
    """Awaited inside the provider: gives the control back to the test, which says what is next."""

    def __await__(self) -> Generator[None, Any, Any]:
        return (yield)


@dataclass
class Step:
    """What becomes of an attempt: its entry's state, and the part of its bounds that it used."""

    state: str
    input_part: float
    output_part: float
    retried: bool = False


class Stepped:
    """A provider whose attempts end when, and as, the test says, with an entry for each."""

    default_model = MODEL

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        while True:
            entry = await self._attempt(request)
            if entry.state == "exact":
                return an_answer()

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text="x")
        while True:
            entry = await self._attempt(request)
            if entry.state == "exact":
                yield StreamChunk(finish_reason="stop")
                return

    async def _attempt(self, request: LLMRequest) -> LedgerEntry:
        context = request.context
        assert context is not None
        entry = context.open_entry(provider=None, model=MODEL)
        step: Step = await Suspended()
        most_output = output_token_bound(request)
        entry.state = step.state  # type: ignore[assignment]  # Hypothesis draws it from the states
        if step.state != "not_billed":
            entry.input_tokens = int(BOUND * step.input_part)
            entry.output_tokens = int(most_output * step.output_part)
        if step.state in ("estimated", "unknown"):
            entry.most_input_tokens, entry.most_output_tokens = BOUND, most_output
        if step.state == "unknown":
            entry.input_tokens = entry.output_tokens = None
        if step.state != "exact":
            entry.error = "ServerError"
            assert context.reservation is not None
            if not step.retried or not context.reservation.extend():
                raise TimeoutError
        return entry


@dataclass
class Call:
    request: LLMRequest
    context: CallContext
    budgets: tuple[Budget, ...]
    running: Any
    stream: Any = None
    counted: int = 0
    counted_entries: list[LedgerEntry] = field(default_factory=list)


steps = st.builds(
    Step,
    st.sampled_from(["exact", "exact", "estimated", "unknown", "not_billed"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
limits = st.one_of(st.none(), st.integers(0, 2_000))


class Budgets(RuleBasedStateMachine):
    budgets = Bundle[Budget]("budgets")
    calls = Bundle[Call]("calls")
    prices: Linear = Linear()

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Budget] = []
        self.entries: dict[int, list[LedgerEntry]] = {}
        self.under_way: list[Call] = []
        self.table = Prices(self.prices)
        self.table.load()

    @rule(
        target=budgets,
        usd=st.one_of(st.none(), st.integers(0, 9_000)),
        tokens=limits,
        requests=st.one_of(st.none(), st.integers(0, 8)),
        parents=st.lists(budgets, max_size=1),
    )
    def allow(
        self, usd: int | None, tokens: int | None, requests: int | None, parents: list[Budget]
    ) -> Any:
        parent = parents[0] if parents else None
        if usd is None and tokens is None and requests is None and parent is None:
            return multiple()
        budget = Budget(None if usd is None else MICRO * usd, tokens, requests, parent)
        self.all.append(budget)
        self.entries[id(budget)] = []
        return budget

    @rule(
        target=calls,
        own=budgets,
        others=st.lists(budgets, max_size=3),
        streaming=st.booleans(),
        nested=st.booleans(),
        left=st.booleans(),
        max_tokens=st.one_of(st.none(), st.integers(1, 400)),
    )
    def call(
        self,
        own: Budget,
        others: list[Budget],
        streaming: bool,
        nested: bool,
        left: bool,
        max_tokens: int | None,
    ) -> Any:
        stack = BudgetProvider(Stepped(), own, prices=self.table)
        if nested:
            stack = BudgetProvider(stack, others[0] if others else own, prices=self.table)
        context = CallContext(budgets=others)
        request = a_request(max_tokens=max_tokens, context=context)
        drawn: dict[int, Budget] = {}
        for budget in (own, *others):
            current: Budget | None = budget
            while current is not None:
                drawn[id(current)] = current
                current = current.parent
        call = Call(request, context, tuple(drawn.values()), None)
        before = self.figures()
        try:
            if streaming:
                call.stream = stack.stream(request)
                with suppress(StopIteration):
                    call.stream.asend(None).send(None)
                if left:
                    with suppress(StopIteration):
                        call.stream.aclose().send(None)
                    self.count(call, context.entries)
                    return multiple()
                call.running = call.stream.asend(None)
            else:
                call.running = stack.complete(request)
            call.running.send(None)
        except BudgetExceededError:
            assert self.figures() == before, "a refused call has changed something"
            self.under_limits_is_no_room(call, max_tokens)
            return multiple()
        self.under_way.append(call)
        return call

    @rule(target=calls, call=consumes(calls), step=steps)
    def go_on(self, call: Call, step: Step) -> Any:
        try:
            call.running.send(step)
        except StopIteration:
            if call.stream is not None:  # its last chunk was read, and now its end is
                with suppress(StopAsyncIteration):
                    call.stream.asend(None).send(None)
            self.ended(call)
        except (TimeoutError, AetherError):
            self.ended(call)
        else:
            self.count(call, call.context.entries[:-1])
            return call
        return multiple()

    @rule(call=consumes(calls))
    def cancel(self, call: Call) -> None:
        with pytest.raises(asyncio.CancelledError):
            call.running.throw(asyncio.CancelledError)
        self.ended(call)

    def ended(self, call: Call) -> None:
        self.under_way.remove(call)
        assert all(entry.state != "pending" for entry in call.context.entries)
        self.count(call, call.context.entries)

    def count(self, call: Call, entries: list[LedgerEntry]) -> None:
        new = entries[call.counted :]
        call.counted = len(entries)
        for budget in call.budgets:
            self.entries[id(budget)] += new

    def figures(self) -> list[Any]:
        return [
            (budget.account.spent, budget.account.held, budget.account.beyond)
            for budget in self.all
        ]

    def under_limits_is_no_room(self, call: Call, max_tokens: int | None) -> None:
        """Some budget has less left than the least that the call needs."""
        least = min(max_tokens or 16, 16)
        price = self.prices.cost(LedgerEntry(model=MODEL, input_tokens=BOUND, output_tokens=least))
        assert price is not None
        assert any(
            (budget.account.usd is not None and (budget.account.left(budget).usd or 0) < price)
            or (budget.tokens is not None and (budget.remaining_tokens or 0) < BOUND + least)
            or budget.remaining_requests == 0
            for budget in call.budgets
        ), "it was refused, though there was room"

    @invariant()
    def nothing_passes_a_limit(self) -> None:
        for budget in self.all:
            account = budget.account
            gone = account.spent.plus(account.held)
            assert account.usd is None or gone.usd <= account.usd
            assert account.tokens is None or gone.tokens <= account.tokens
            assert account.requests is None or gone.requests <= account.requests

    @invariant()
    def each_attempt_is_in_each_budget_of_its_call_once(self) -> None:
        for budget in self.all:
            entries = self.entries[id(budget)]
            assert budget.spent_requests == len(entries)
            counted = [each for each in entries if each.state in ("exact", "estimated")]
            assert budget.spent_tokens == sum(
                (each.input_tokens or 0) + (each.output_tokens or 0) for each in counted
            )

    @invariant()
    def dollars_are_those_of_the_tokens(self) -> None:
        for budget in self.all:
            entries = self.entries[id(budget)]
            if budget.unpriced_requests or not budget.spent_tokens:
                continue
            counted = [each for each in entries if each.state in ("exact", "estimated")]
            costs = [self.prices.cost(each) or Decimal(0) for each in counted]
            assert budget.account.spent.usd == sum(costs)

    @invariant()
    def only_calls_under_way_hold_anything(self) -> None:
        for budget in self.all:
            holding = [call for call in self.under_way if budget in call.budgets]
            assert budget.account.held.requests == len(holding)
            if not holding:
                assert budget.account.held.usd == 0
                assert budget.account.held.tokens == 0

    def teardown(self) -> None:
        for call in list(self.under_way):
            self.cancel(call)
        for budget in self.all:
            assert budget.account.held.tokens == 0


class TieredBudgets(Budgets):
    prices = Tiered()


limited = settings(max_examples=SIMULATIONS, stateful_step_count=40, deadline=None)
TestBudgets: Any = Budgets.TestCase
TestBudgets.settings = limited
TestTieredBudgets: Any = TieredBudgets.TestCase
TestTieredBudgets.settings = limited


@pytest.mark.parametrize("prices", [Linear(), Tiered()], ids=["linear", "tiered"])
def test_the_most_that_is_affordable_is_found_to_the_token(prices: Linear) -> None:
    from aether.extensions.llm._worst_case import WorstCase

    worst = WorstCase(a_request(max_tokens=500), provider=None, model=MODEL)
    costs = {n: prices.cost(LedgerEntry(None, MODEL, "exact", BOUND, n)) for n in range(16, 501)}
    for micros in range(0, 10_000, 37):
        usd = MICRO * micros
        fitting = [n for n, cost in costs.items() if cost is not None and cost <= usd]
        expected = max(fitting) if fitting else None
        assert worst.most_output_for(usd, prices, 16, 500) == expected
