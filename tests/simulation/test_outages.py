"""A provider that is down: how much retries add to it, and who tries whether it is back."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from aether import Agent
from aether.errors import AetherError, CircuitOpenError, ProviderError
from aether.llm.contracts import LLMRequest, Message
from aether.testing import faults
from aether.testing.faults import Fault, Reply
from tests.simulation.circuit import Rules
from tests.simulation.network import Plan
from tests.simulation.stack import MODELS, Stack, Tuning
from tests.simulation.world import World

CALLS = 1000
PAUSE = 30.0
RULES = Rules(threshold=5, pause=PAUSE, longest=300.0, probe=600.0)
FAILS = faults.status(500)


def test_retries_are_a_tenth_of_the_calls_once_the_budget_is_used_up() -> None:
    world, stack = down(breaking=False)

    async def call_and_call() -> None:
        for number in range(CALLS):
            with pytest.raises(ProviderError):
                await (ask(stack) if number % 2 else ask_an_agent(world))

    world.loop.run_until_complete(call_and_call())
    world.loop.close()
    assert CALLS < requests(stack) <= 1.1 * CALLS + 20
    assert not world.judge.violations


def test_a_breaker_keeps_all_but_a_few_calls_from_a_provider_that_is_down() -> None:
    world, stack = down(breaking=True)

    async def call_and_call() -> None:
        for number in range(CALLS):
            with pytest.raises(AetherError):
                await (ask(stack) if number % 2 else ask_an_agent(world))

    world.loop.run_until_complete(call_and_call())
    world.loop.close()
    assert requests(stack) == RULES.threshold * 3
    assert not world.judge.violations


@pytest.mark.parametrize(
    ("fault", "count"),
    [(None, 10_000), (FAILS, 1000), (faults.hang(), 1000)],
    ids=["goes well", "fails", "hangs"],
)
def test_however_many_call_one_tests_a_half_open_circuit(fault: Fault | None, count: int) -> None:
    world, stack = down(breaking=True)

    async def come_together() -> tuple[int, list[BaseException | None]]:
        for _ in range(RULES.threshold):
            with pytest.raises(ProviderError):
                await ask(stack)
        sent = requests(stack)
        stack.weather.plan = partial(slowly, fault)  # type: ignore[method-assign]  # for this test
        await asyncio.sleep(PAUSE)
        callers = [asyncio.ensure_future(ask(stack)) for _ in range(count)]
        await asyncio.sleep(0.5)
        at_once = [caller.exception() for caller in callers if caller.done()]
        await asyncio.wait(callers)
        for caller in callers:
            caller.exception()
        return requests(stack) - sent, at_once

    probes, refused = world.loop.run_until_complete(come_together())
    world.loop.close()
    assert probes == 1
    assert sum(isinstance(error, CircuitOpenError) for error in refused) == count - 1
    assert not world.judge.violations


def down(*, breaking: bool) -> tuple[World, Stack]:
    """A world whose one provider answers each request with a 500."""
    tuning = Tuning(protocol="openai chat", breaking=breaking, rules=RULES)
    world = World(0, users=0, tuning=tuning)
    (stack,) = world.stacks
    stack.weather.plan = partial(slowly, FAILS)  # type: ignore[method-assign]  # for this test
    return world, stack


def slowly(fault: Fault | None, *_: object) -> Plan:
    return Plan(Reply("Hello."), [] if fault is None else [fault], latency=1.0)


async def ask(stack: Stack) -> str:
    request = LLMRequest([Message("user", "[nobody] Well?")], MODELS[0])
    return (await stack.provider.complete(request)).text


async def ask_an_agent(world: World) -> str:
    """It could delegate, and each of its runs calls the model over the same one retry layer."""
    agent = Agent("boss", tools=[world.tools.delegating], client=world.clients[0])
    return await agent.run_text("[nobody] Well?", model=MODELS[0])


def requests(stack: Stack) -> int:
    return sum(len(call.exchanges) for call in stack.calls.values())
