"""Budgets as users give them: to a client, a session, an agent, a run or a call; delegates too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aether import Aether, Agent, Budget, Hedge, Message
from aether.errors import (
    AetherError,
    BudgetExceededError,
    ConfigurationError,
    InputError,
    ServerError,
)
from aether.extensions.llm.budget import BudgetProvider
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.llm.contracts import LLMRequest, LLMResponse, ToolCall
from aether.llm.sizing import input_token_bound
from aether.llm.wrapper import ProviderWrapper
from aether.testing import FakeProvider, FaultServer, faults
from aether.testing.faults import Reply
from tests.llm.conftest import ScriptedTransport
from tests.llm.gemini_answers import answer, provider, request

MODEL = "gpt-4.1-mini"


def an_answer(text: str = "done", **fields: Any) -> LLMResponse:
    counts = {"input_tokens": 100, "output_tokens": 10, "finish_reason": "stop"}
    return LLMResponse(text, MODEL, **{**counts, **fields})


def calls(name: str, **arguments: Any) -> LLMResponse:
    call = ToolCall("c1", name, arguments)
    return an_answer("", tool_calls=[call], finish_reason="tool_calls")


def a_client(*answers: LLMResponse, **options: Any) -> Aether:
    script: Sequence[LLMResponse] = answers or [an_answer()] * 20
    return Aether(FakeProvider(responses=script, default_model=MODEL), **options)


class Slow(FakeProvider):
    """Begins at once, and answers after a moment."""

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        answered = await super().complete(request)
        await asyncio.sleep(0.02)
        return answered


PRICE = 100 * 0.4e-6 + 10 * 1.6e-6
"""Dollars for one answer, by the price page."""


class TestWhere:
    async def test_a_clients_budget_holds_for_all_its_calls(self) -> None:
        budget = Budget(usd=1, requests=3)
        async with a_client(budget=budget) as client:
            await client.ask("a")
            async for _ in client.stream("b"):
                pass
            await client.session("s").ask("c")
            assert budget.spent_usd == pytest.approx(3 * PRICE)
            assert budget.spent_usd == client.usage.total_cost_usd
            for ask in (client.ask("d"), client.session("s").ask("d"), anext(client.stream("d"))):
                with pytest.raises(BudgetExceededError):
                    await ask
        assert budget.spent_requests == 3

    async def test_a_sessions_budget_holds_for_its_turns_alone(self) -> None:
        budget = Budget(requests=1)
        async with a_client() as client:
            session = client.session("s", budget=budget)
            assert await session.ask("a") == "done"
            with pytest.raises(BudgetExceededError):
                await session.ask("b")
            assert [message.text for message in await session.history()] == ["a", "done"]
            await client.ask("c")
            await client.session("other").ask("d")
        assert budget.spent_requests == 1

    async def test_an_agents_budget_holds_for_its_runs_together(self) -> None:
        budget = Budget(tokens=560)
        async with a_client() as client:
            agent = Agent("a", client=client, budget=budget, max_tokens=20)
            await asyncio.gather(agent.run("a"), agent.run("b"))
            assert budget.spent_tokens == 220
            await agent.run("c")
            await agent.run("d")
            with pytest.raises(BudgetExceededError):
                await agent.run("e")
        assert budget.spent_tokens == 440

    async def test_a_runs_budget_holds_for_all_of_its_turns(self) -> None:
        def look() -> str:
            return "seen"

        budget = Budget(requests=2)
        async with a_client(calls("look"), calls("look"), calls("look")) as client:
            agent = Agent("a", client=client, tools=[look])
            with pytest.raises(BudgetExceededError, match="no request left"):
                await agent.run("go", budget=budget)
        assert budget.spent_requests == 2

    async def test_all_that_concern_a_call_hold_for_it(self) -> None:
        budgets = {name: Budget(requests=9) for name in ("client", "session", "call")}
        async with a_client(budget=budgets["client"]) as client:
            session = client.session("s", budget=budgets["session"])
            await session.ask("a", budget=budgets["call"])
        assert [each.spent_requests for each in budgets.values()] == [1, 1, 1]

    async def test_a_calls_own_holds_for_each_call_that_an_own_layer_makes(self) -> None:
        class Twice(ProviderWrapper):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                await self.inner.complete(request)
                return await self.inner.complete(request)

        budget = Budget(requests=1)
        async with a_client(layers=[Twice]) as client:
            with pytest.raises(BudgetExceededError, match="no request left"):
                await client.ask("a", budget=budget)
            assert client.usage.total_requests == 1
        assert budget.spent_requests == 1

    async def test_it_holds_for_what_an_own_layer_branches_off_a_call_under_way(self) -> None:
        class Both(ProviderWrapper):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                context = request.context
                assert context is not None
                first = asyncio.create_task(self.inner.complete(request))
                await asyncio.sleep(0.005)
                branch = context.branch()
                second = self.inner.complete(request.replace(context=branch))
                found = await asyncio.gather(first, second, return_exceptions=True)
                context.entries += branch.entries
                return next(each for each in found if isinstance(each, LLMResponse))

        budget, slow = Budget(requests=3), Slow("hello")
        async with Aether(slow, layers=[Both]) as client:
            for _ in range(2):
                await client.ask("a", budget=budget)
        assert (budget.spent_requests, len(slow.requests)) == (3, 3)

    @pytest.mark.parametrize("room", [1, 2])
    async def test_a_calls_own_holds_for_the_second_call_of_a_hedge(self, room: int) -> None:
        budget, slow = Budget(requests=room), Slow("hello")
        async with Aether(slow, hedge=Hedge(after=0.001, max_share=1.0)) as client:
            assert await client.ask("a", budget=budget) == "hello"
            assert len(client.usage.ledger) == room
        assert (budget.spent_requests, len(slow.requests)) == (room, room)

    async def test_a_calls_own_holds_for_all_of_a_stack_that_has_budgets_in_a_part_of_it(
        self,
    ) -> None:
        failing = FakeProvider(responses=[ServerError("no", status=500)] * 2)
        spare = FakeProvider("spare")
        stack = FallbackProvider(BudgetProvider(failing, Budget(requests=9)), [spare])
        one, two = Budget(requests=1), Budget(requests=2)
        async with Aether(stack) as client:
            with pytest.raises(ServerError):
                await client.ask("a", budget=one)
            assert await client.ask("a", budget=two) == "spare"
        assert (one.spent_requests, two.spent_requests) == (1, 2)
        assert len(spare.requests) == 1

    async def test_a_calls_own_holds_for_both_of_two_calls_that_a_stack_makes_at_once(self) -> None:
        budget, slow = Budget(requests=1), Slow("hello")
        async with Aether(HedgingProvider(slow, Hedge(after=0.001, max_share=1.0))) as client:
            assert await client.ask("a", budget=budget) == "hello"
        assert (budget.spent_requests, len(slow.requests)) == (1, 1)

    async def test_one_budget_given_everywhere_counts_once(self) -> None:
        root = Budget(usd=1)
        one, two = Budget(requests=5, parent=root), Budget(requests=5, parent=root)
        async with a_client(budget=root) as client:
            await client.session("s", budget=one).ask("a", budget=two)
        assert (root.spent_requests, one.spent_requests, two.spent_requests) == (1, 1, 1)
        assert root.spent_usd == pytest.approx(PRICE)

    async def test_parents_hold_for_the_children_of_several_clients(self) -> None:
        root = Budget(requests=3)
        async with (
            a_client(budget=Budget(usd=1, parent=root)) as one,
            a_client(budget=Budget(tokens=10**6, parent=root)) as two,
        ):
            results = await asyncio.gather(
                *(client.ask("a", max_tokens=9) for client in (one, two) * 3),
                return_exceptions=True,
            )
        assert sum(isinstance(each, BudgetExceededError) for each in results) == 3
        assert root.spent_requests == 3

    async def test_calls_of_a_call_without_budgets_are_not_touched(self) -> None:
        async with a_client() as client:
            run = client.prepare("a", {})
            assert run.provider is client.provider
            run = client.prepare("a", {"budget": Budget(usd=1)})
            assert isinstance(run.provider, BudgetProvider)

    def test_the_blocking_side_takes_them_too(self) -> None:
        budget = Budget(requests=2)
        with a_client().sync as client:
            assert client.ask("a", budget=budget) == "done"
            assert client.session("s", budget=budget).ask("b") == "done"
            with pytest.raises(BudgetExceededError):
                client.ask("c", budget=budget)

    async def test_what_is_no_budget_is_refused(self) -> None:
        with pytest.raises(TypeError, match="Budget"):
            a_client(budget=5)
        with pytest.raises(TypeError, match="Budget"):
            Agent("helper", budget=5)  # type: ignore[arg-type]  # what is tested
        async with a_client() as client:
            with pytest.raises(TypeError, match="Budget"):
                await client.ask("a", budget=5)  # type: ignore[call-overload]  # what is tested

    async def test_a_hit_in_the_cache_costs_nothing(self) -> None:
        budget = Budget(usd=1, requests=1)
        async with a_client(budget=budget, cache=True) as client:
            for _ in range(3):
                assert await client.ask("a", temperature=0) == "done"
        assert budget.spent_usd == pytest.approx(PRICE)
        assert budget.spent_requests == 1


class TestDelegates:
    @staticmethod
    def team(client: Aether, **options: Any) -> Agent:
        writer = Agent("writer", instructions="write", client=client, **options)
        return Agent("boss", client=client, tools=[writer.as_tool()])

    async def test_they_draw_on_what_the_run_has_left(self) -> None:
        budget = Budget(requests=2)
        async with a_client(calls("writer", task="t"), an_answer("written"), an_answer()) as client:
            with pytest.raises(BudgetExceededError):
                await self.team(client).run("go", budget=budget)
        assert budget.spent_requests == 2

    async def test_each_call_counts_once_however_deep_it_is(self) -> None:
        run, own = Budget(usd=1), Budget(usd=1)
        async with a_client(
            calls("writer", task="t"), an_answer("written"), an_answer("all"), budget=run
        ) as client:
            result = await self.team(client, budget=own).run("go", budget=run)
        assert result.text == "all"
        assert (run.spent_requests, own.spent_requests) == (3, 1)
        assert run.spent_usd == pytest.approx(3 * PRICE)

    async def test_a_delegate_without_room_is_told_to_the_one_that_delegates(self) -> None:
        own = Budget(requests=0)
        fake = FakeProvider(
            responses=[calls("writer", task="t"), an_answer("alone")], default_model=MODEL
        )
        async with Aether(fake) as client:
            assert (await self.team(client, budget=own).run("go")).text == "alone"
        told = fake.requests[-1].messages[-1]
        assert told.is_error
        assert "no request left" in told.text

    async def test_a_delegate_of_another_client_draws_on_the_run_too(self) -> None:
        budget = Budget(requests=5)
        async with (
            a_client(an_answer("written")) as other,
            a_client(calls("writer", task="t"), an_answer()) as client,
        ):
            writer = Agent("writer", client=other)
            boss = Agent("boss", client=client, tools=[writer.as_tool()])
            await boss.run("go", budget=budget)
        assert budget.spent_requests == 3


class TestOverHTTP:
    @pytest.mark.parametrize("protocol", ["openai", "openai.responses", "anthropic", "gemini"])
    async def test_the_lowered_limit_is_what_is_sent(self, protocol: str) -> None:
        budget = Budget(tokens=400)
        async with (
            FaultServer() as server,
            Aether(config=server.config(protocol)) as client,
        ):
            await client.ask("Hi", max_tokens=5_000, budget=budget)
            most = (await client.estimate("Hi")).most.input_tokens
            assert str(400 - most).encode() in server.served[0].request.body
        assert budget.spent_tokens == 12

    async def test_attempts_count_and_what_was_refused_is_free(self) -> None:
        budget = Budget(usd=1, requests=3)
        refused = faults.refuse("rate_limit", retry_after=0)
        async with (
            FaultServer(refused, refused, reply=Reply("Hello.", model=MODEL)) as server,
            Aether(config=server.config("openai", model=MODEL), budget=budget) as client,
        ):
            assert await client.ask("Hi", max_tokens=10) == "Hello."
            assert budget.spent_requests == server.count == 3
            assert budget.spent_usd == client.usage.total_cost_usd > 0
            with pytest.raises(BudgetExceededError):
                await client.ask("Hi")
            assert server.count == 3

    async def test_a_provider_without_prices_says_so_before_anything_is_sent(self) -> None:
        async with (
            FaultServer() as server,
            Aether(config=server.config("openai", model="gpt-6.2-sol")) as client,
        ):
            with pytest.raises(ConfigurationError, match=r"gpt-6\.2-sol.*unknown_price"):
                await client.ask("Hi", budget=Budget(usd=5))
            budget = Budget(usd=5, unknown_price="ignore")
            await client.ask("Hi", budget=budget)
            assert server.count == 1
        assert (budget.spent_tokens, budget.unpriced_requests) == (12, 1)


class TestParts:
    """An answer that comes in parts, of which each is a request that reads those before it."""

    REQUEST = request(model="gemini-3.8-flash", max_tokens=20)
    MOST = input_token_bound(REQUEST) + 20

    @staticmethod
    def parts(transport: ScriptedTransport) -> None:
        for number, text in enumerate(("One, ", "two, ")):
            candidate = {"continuationToken": f"t{number}"}
            transport.answers_json(answer(text, finish="CONTINUATION", candidate=candidate))
        transport.answers_json(answer("three."))

    async def test_each_is_set_aside_and_settled(self, transport: ScriptedTransport) -> None:
        self.parts(transport)
        budget = Budget(usd=1, tokens=12 + 12 + self.MOST + 3 + 3, requests=3)
        response = await BudgetProvider(provider(transport), budget).complete(self.REQUEST)
        assert (response.text, response.finish_reason) == ("One, two, three.", "stop")
        assert (budget.spent_requests, budget.spent_tokens) == (3, 36)

    @pytest.mark.parametrize(
        ("tokens", "requests"),
        [(None, 2), (12 + 12 + MOST + 3 + 2, None)],
        ids=["requests", "tokens"],
    )
    async def test_one_without_room_is_not_asked_for_and_the_answer_is_cut_off(
        self, transport: ScriptedTransport, tokens: int | None, requests: int | None
    ) -> None:
        self.parts(transport)
        budget = Budget(tokens=tokens, requests=requests)
        response = await BudgetProvider(provider(transport), budget).complete(self.REQUEST)
        assert (response.text, response.finish_reason) == ("One, two, ", "length")
        assert (budget.spent_requests, budget.spent_tokens) == (2, 24)
        assert len(transport.calls) == 2


class TestEstimates:
    async def test_of_one_call_they_say_what_a_budget_would_set_aside(self) -> None:
        fake = FakeProvider(default_model=MODEL)
        async with Aether(fake) as client:
            estimate = await client.estimate("Hi" * 50, max_tokens=30)
            assert fake.requests == []
            assert (estimate.model, estimate.least.requests, estimate.most.requests) == (
                MODEL,
                1,
                1,
            )
            assert estimate.least.input_tokens == 25
            assert (estimate.least.output_tokens, estimate.most.output_tokens) == (0, 30)
            assert estimate.least.usd == pytest.approx(25 * 0.4e-6)
            enough = Budget(usd=estimate.most.usd, tokens=estimate.most.tokens, requests=1)
            await client.ask("Hi" * 50, max_tokens=30, budget=enough)
            assert fake.requests[0].max_tokens == 30
            less = Budget(tokens=estimate.most.tokens - 1)
            await client.ask("Hi" * 50, max_tokens=30, budget=less)
            assert fake.requests[1].max_tokens == 29

    async def test_of_a_loop_they_take_all_turns_that_it_may_have(self) -> None:
        def look() -> str:
            return "seen"

        async with a_client() as client:
            one = await client.estimate("Hi", max_tokens=30)
            loop = await client.estimate("Hi", max_tokens=30, tools=[look], max_tool_iterations=4)
            typed = await client.estimate("Hi", max_tokens=30, output=int, output_retries=1)
        assert one.most.usd is not None
        assert loop.most.usd is not None
        assert loop.most.requests == 4
        assert loop.most.output_tokens == 120
        assert loop.most.input_tokens > 3 * 2_097_152
        assert loop.most.usd > one.most.usd + 3 * 2_097_152 * 0.4e-6
        assert loop.least.requests == 1
        assert typed.most.requests == 2

    async def test_without_a_price_the_cost_is_not_known(self) -> None:
        async with Aether(FakeProvider()) as client:
            estimate = await client.estimate("Hi")
        assert (estimate.least.usd, estimate.most.usd) == (None, None)
        assert str(estimate).startswith("cost not known: 1 request to fake-model, 1 to ")

    async def test_they_read_well(self) -> None:
        async with a_client() as client:
            text = str(await client.estimate("Hi" * 50, max_tokens=1_000))
        assert text.startswith("$0.00001 to $0.0016")
        assert text.endswith(
            f": 1 request to {MODEL}, 25 to 219 tokens of input, up to 1000 of output"
        )

    async def test_bad_options_are_refused_as_in_a_call(self) -> None:
        async with a_client() as client:
            with pytest.raises(InputError):
                await client.estimate("Hi", max_tokens=-1)
            with pytest.raises(TypeError):
                await client.estimate("Hi", unheard_of=1)  # type: ignore[call-arg]  # what is tested
            with pytest.raises(AetherError):
                await client.estimate([])

    def test_they_are_there_on_the_blocking_side(self) -> None:
        with a_client().sync as client:
            assert client.estimate([Message("user", "Hi")]).least.input_tokens == 1
