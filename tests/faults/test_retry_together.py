"""Many callers of one stack at once, of whose requests any may fail: what holds for all of them.

A seed decides when they come, what the server does and how long they may take. The same seed gives
the same run, to the byte.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from aether import Aether, Agent
from aether.errors import AetherError, CircuitOpenError, ProviderError, ServerError
from aether.extensions.llm.retrying import LONGEST_GATE_SECONDS
from aether.llm.contracts import CallContext, LLMRequest, LLMResponse, ToolCall
from aether.testing.wires import WireRequest
from tests.faults.virtual import WIRES, Act, VirtualServer, adapter, stack
from tests.llm.scripted import MODEL, Clock, Scripted, a_request, an_answer, collect

SEEDS = int(os.environ.get("STACK_SIMULATIONS", "40"))
CALLERS, MOMENT = 60, 1e-9
NUMBER = re.compile(rb"caller (\d+)")


class Attempt(NamedTuple):
    """One request, as the server saw it."""

    caller: int
    start: float
    state: str
    """The breaker's, at that time."""
    act: Act

    @property
    def asked(self) -> float:
        """For how many seconds the server closed the gate."""
        return float(self.act.headers.get("retry-after", 0)) if self.act.status == 429 else 0.0

    @property
    def end(self) -> float:
        return self.start + self.act.delay


class Flaky(VirtualServer):
    """It chooses for each request what it does."""

    def __init__(self, wire: str, clock: Clock, chance: random.Random) -> None:
        super().__init__(WIRES[wire](), clock)
        self.chance = chance
        self.trouble = chance.uniform(0.0, 0.7)
        self.outage = (begin := chance.uniform(0.0, 60.0), begin + chance.uniform(20.0, 150.0))
        self.log: list[Attempt] = []
        self.breaker: Any = None

    def _begin(self, method: str, url: str, sent: Mapping[str, Any]) -> tuple[Act, WireRequest]:
        self.acts = [self._choose()]
        act, request = super()._begin(method, url, sent)
        found = NUMBER.search(request.body)
        assert found is not None
        state = self.breaker.state(MODEL)
        self.log.append(Attempt(int(found[1]), self.clock.now, state, act))
        return act, request

    def _choose(self) -> Act:
        delay = round(self.chance.uniform(0.0, 3.0), 3)
        wait = str(round(self.chance.choice([0, 1, 7, 30]) * self.chance.random(), 2))
        if self.chance.random() < 0.01:
            wait = str(self.chance.choice([130, 9999]))
        down = self.outage[0] < self.clock.now < self.outage[1]
        failing = [Act(500, {}, b"{}", delay), Act(503, {"retry-after": wait}, b"{}", delay)]
        refusing = [
            Act(429, {}, b"{}", delay),
            Act(429, {"retry-after": wait}, b"{}", delay),
            Act(400, {}, b"{}", delay),
            Act(200, {}, b"<html>", delay),
        ]
        if self.chance.random() > (0.95 if down else self.trouble):
            return Act(delay=delay)
        return self.chance.choice(failing if down else [*failing, *refusing])


class Run:
    """One simulation."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock(0.0)
        wire = sorted(WIRES)[seed % len(WIRES)]
        self.server = Flaky(wire, self.clock, self.chance)
        self.stack = stack(adapter(wire, self.server), self.clock, random=self.chance.random)
        self.server.breaker = self.stack.inner
        self.deadlines: dict[int, float] = {}
        self.trace: list[str] = []

    async def caller(self, number: int) -> Any:
        await self.clock.wait(self.chance.uniform(0.0, 200.0))
        deadline = None
        if self.chance.random() < 0.3:
            deadline = self.deadlines[number] = self.clock.now + self.chance.uniform(0.0, 20.0)
        request = a_request(f"caller {number}", context=CallContext(deadline=deadline))
        began = self.clock.now
        result: object
        try:
            if self.chance.random() < 0.5:
                [*_, last] = await collect(self.stack.stream(request))
                result = last.response
            else:
                result = await self.stack.complete(request)
        except AetherError as error:
            result = error
        self.trace.append(f"{number} {began!r} {self.clock.now!r} {result!r}")
        return result

    def play(self) -> list[Any]:
        async def together() -> list[Any]:
            return await self.clock.run(*map(self.caller, range(CALLERS)))

        results = asyncio.run(together())
        self.trace += [repr(attempt) for attempt in self.server.log]
        return results


@pytest.mark.row("H5", "H7", "H8", "H10", "H16")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_holds_for_all(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aether.llm")
    run = Run(seed)
    results = run.play()
    log = run.server.log
    made = Counter(attempt.caller for attempt in log)
    for number, result in enumerate(results):
        assert isinstance(result, AetherError | LLMResponse)
        assert made[number] <= 3
        if not isinstance(result, CircuitOpenError):  # it says nothing of the attempts before it
            assert isinstance(result, ProviderError | LLMResponse)
            assert result.attempts == made[number]
    for attempt in log:
        assert attempt.start < run.deadlines.get(attempt.caller, math.inf)
    heard = [each for each in log if each.end < run.deadlines.get(each.caller, math.inf)]
    no_attempt_comes_while_the_gate_is_closed(log, heard)
    no_attempt_comes_before_its_own_time(log)
    no_attempt_comes_while_the_circuit_is_open(log, run.deadlines)
    ledger = run.stack.usage.ledger
    assert len(ledger) == len(log)
    assert all(entry.state != "pending" for entry in ledger)
    assert run.server.open == 0


def no_attempt_comes_while_the_gate_is_closed(log: list[Attempt], heard: list[Attempt]) -> None:
    for closing in heard:
        until = closing.end + min(closing.asked, LONGEST_GATE_SECONDS)
        for attempt in log:
            assert not closing.end + MOMENT < attempt.start < until - 0.001, (closing, attempt)


def no_attempt_comes_before_its_own_time(log: list[Attempt]) -> None:
    latest: dict[int, Attempt] = {}
    for attempt in log:
        before = latest.get(attempt.caller)
        if before is not None:
            wait = float(before.act.headers.get("retry-after", 0))
            assert attempt.start >= before.end + wait - 0.001
        latest[attempt.caller] = attempt


def no_attempt_comes_while_the_circuit_is_open(
    log: list[Attempt], deadlines: Mapping[int, float]
) -> None:
    """But the one probe: the next one is after its end, which may be its caller's deadline."""
    over = -math.inf
    for attempt in log:
        assert attempt.state != "open"
        if attempt.state == "half_open":
            assert attempt.start >= over
            over = min(attempt.end, deadlines.get(attempt.caller, math.inf))


def test_the_same_seed_is_the_same_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aether.llm")
    traces = []
    for _ in range(2):
        run = Run(7)
        run.play()
        traces.append("\n".join(run.trace))
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) >= CALLERS


class TestLayersOfRetry:
    """Whoever calls a model through however much, there is one layer that tries again."""

    @pytest.mark.row("H16")
    async def test_a_tool_that_asks_an_agent_whose_provider_is_out_is_three_attempts(self) -> None:
        clock, asked = Clock(), Counter[str]()

        class Provider:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                said = request.messages[-1].text
                asked[said if said in ("begin", "look it up") else "go on"] += 1
                if said == "look it up":
                    raise ServerError("no", status=500)
                if said == "begin":
                    call = ToolCall("1", "researcher", {"task": "look it up"})
                    return an_answer("", tool_calls=[call], finish_reason="tool_calls")
                assert "ServerError" in said
                return an_answer("Nobody knows.")

        async with Aether(stack(Provider(), clock)) as client:
            researcher = Agent("researcher", client=client)
            tool = researcher.as_tool()
            author = Agent("author", client=client, tools=[tool])
            [text] = await clock.run(author.run_text("begin"))
        assert text == "Nobody knows."
        assert asked == {"begin": 1, "look it up": 3, "go on": 1}
        assert len(clock.sleeps) == 2

    @pytest.mark.row("H16")
    async def test_a_thousand_calls_in_an_outage_are_hardly_more_requests(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no", status=500))
        client = Aether(stack(provider, clock, failure_threshold=10**9))
        for _ in range(1_000):
            [error] = await clock.run(client.ask("Hi"))
            assert isinstance(error, ServerError)
        assert provider.calls <= 1_000 * 1.1 + 20
        assert len(client.usage.ledger) == provider.calls
        await client.aclose()


def test_the_traces_say_something() -> None:
    """Runs in which nothing fails, or everything, would show nothing."""
    kinds: Counter[str] = Counter()
    for seed in range(40):
        run = Run(seed)
        results = run.play()
        kinds.update(type(result).__name__ for result in results)
        kinds.update(attempt.state for attempt in run.server.log)
    assert set(kinds) == {
        *["LLMResponse", "BadRequestError", "RateLimitError", "ServerError", "OverloadedError"],
        *["ProtocolError", "DeadlineExceededError", "CircuitOpenError", "closed", "half_open"],
    }
    assert min(kinds.values()) > 20
