"""Generated runs: which tools a model calls, how long they take and how they end, how deep they go.

A plan is played by a model that knows it, with tools that do as it says, in virtual time; and what
is to come of it is told here by a few lines that know neither events, tasks nor threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from aether import Aether, Agent, Tool
from aether.errors import ServerError
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.streaming import final_chunk
from aether.tools import build_tool
from tests.faults.ways import calling, saying
from tests.simulation.loop import VirtualLoop

__all__ = ["Actors", "Plan", "Step", "Turn", "expected", "in_virtual_time", "plan", "steps_of"]

Ending = Literal["value", "error", "cancels itself", "hangs", "unknown", "bad arguments"]

MODEL_SECONDS = 1.0
"""How long a model takes to answer."""
TIMEOUTS = (None, 2.0, 5.0)
DELEGATES = {True: "delegate", False: "delegate_in_order"}
"""Agents by whether their tools run at the same time."""


@dataclass(frozen=True)
class Step:
    """One tool call."""

    name: str
    """No other call of the plan has it."""
    ending: Ending = "value"
    seconds: float = 0.0
    timeout: float | None = None
    tidying: float = 0.0
    """How long it takes to end after it was cancelled."""
    delegates: Plan | None = None
    """It is a delegation of this plan to another agent."""


Turn = tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """The tool calls of a run, turn by turn; after them the model answers in text."""

    turns: tuple[Turn, ...]
    parallel: bool = True


def plan(random: Random, *, depth: int = 2, name: str = "") -> Plan:
    """Any plan; it delegates at most `depth` times in one another."""
    turns = []
    for turn in range(random.choice((0, 1, 1, 2) if name else (1, 1, 2, 3))):
        letters = "abcde"[: random.choice((1, 1, 2, 3, 5))]
        turns.append(tuple(_step(random, f"{name}{turn}{letter}", depth) for letter in letters))
    return Plan(tuple(turns), random.random() < 0.7)


def _step(random: Random, name: str, depth: int) -> Step:
    if depth and random.random() < 0.25:
        return Step(name, delegates=plan(random, depth=depth - 1, name=name))
    ending: Ending = random.choice(
        ("value", "value", "value", "error", "cancels itself", "hangs", "unknown", "bad arguments")
    )
    timeout = random.choice(TIMEOUTS[1:] if ending == "hangs" else TIMEOUTS)
    return Step(
        name,
        ending,
        seconds=random.choice((0.0, 0.0, 1.0, 3.0, 7.0)),
        timeout=timeout,
        tidying=random.choice((0.0, 0.0, 0.0, 0.5)),
    )


def steps_of(plan: Plan) -> Mapping[str, Step]:
    """All steps of the plan and of those in it, by name."""
    found: dict[str, Step] = {}
    for turn in plan.turns:
        for step in turn:
            found[step.name] = step
            if step.delegates is not None:
                found |= steps_of(step.delegates)
    return found


# --- what is to come of it --------------------------------------------------------------------


def expected(plan: Plan, *, max_depth: int, depth: int = 0) -> tuple[str, float]:
    """The text of the run's answer, and the seconds it takes."""
    results: list[str] = []
    now = MODEL_SECONDS
    for turn in plan.turns:
        came = [_outcome(step, max_depth, depth) for step in turn]
        results += [text for text, _ in came]
        seconds = [seconds for _, seconds in came]
        now += (max(seconds) if plan.parallel else sum(seconds)) + MODEL_SECONDS
    return f"({'|'.join(results)})", now


def _outcome(step: Step, max_depth: int, depth: int) -> tuple[str, float]:
    if step.delegates is not None:
        if depth >= max_depth:
            return "!ToolError", 0.0
        return expected(step.delegates, max_depth=max_depth, depth=depth + 1)
    if step.ending == "unknown":
        return "!UnknownTool", 0.0
    if step.ending == "bad arguments":
        return "!InvalidArguments", 0.0
    hangs = step.ending == "hangs"
    if step.timeout is not None and (hangs or step.seconds > step.timeout):
        return "!TimeoutError", step.timeout + step.tidying
    told = {"value": step.name, "error": "!ValueError", "cancels itself": "!CancelledError"}
    return told[step.ending], step.seconds


# --- playing it -------------------------------------------------------------------------------


@dataclass
class Actors:
    """A model and tools that play plans. The prompt is the plan's name, as `prepare` gives it."""

    max_depth: int = 2
    failing: frozenset[int] = frozenset()
    """Which requests fail, by their numbers from 1; streams fail in the middle."""
    plans: dict[str, Plan] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    default_model: str = "planned"

    def prepare(self, name: str, plan: Plan) -> str:
        """The prompt for which the plan is played."""
        self.plans[name] = plan
        self.steps |= steps_of(plan)
        for step in steps_of(plan).values():
            if step.delegates is not None:
                self.plans[step.name] = step.delegates
        return name

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests += 1
        fails = self.requests in self.failing
        await asyncio.sleep(MODEL_SECONDS)
        if fails:
            raise ServerError("the model failed")
        return self._answer(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self.requests += 1
        fails = self.requests in self.failing
        response = self._answer(request)
        half = len(response.text) // 2
        for text in (response.text[:half], response.text[half:]):
            await asyncio.sleep(MODEL_SECONDS / 2)
            yield StreamChunk(text=text)
            if fails:
                raise ServerError("the model failed")
        yield final_chunk(response)

    def tools(self, client: Aether) -> list[Tool]:
        """What plans call: tools with each timeout, and delegates of either order."""
        acting = [
            build_tool(self._act, name=_name(timeout), timeout=timeout) for timeout in TIMEOUTS
        ]
        agents = [
            Agent(name, client=client, parallel_tools=parallel)
            for parallel, name in DELEGATES.items()
        ]
        delegating = [agent.as_tool(self.max_depth) for agent in agents]
        for agent in agents:
            agent.tools = (*acting, *delegating)
        return [*acting, *delegating]

    def _answer(self, request: LLMRequest) -> LLMResponse:
        messages = request.messages
        start = max(place for place, message in enumerate(messages) if message.role == "user")
        plan = self.plans[messages[start].text]
        turn = sum(message.role == "assistant" for message in messages[start:])
        if turn < len(plan.turns):
            return calling(*map(_call, plan.turns[turn]), text=f"turn {turn} ")
        results = [_in_short(m.text) for m in messages[start:] if m.role == "tool"]
        return saying(f"({'|'.join(results)})")

    async def _act(self, name: str) -> str:
        step, loop = self.steps[name], asyncio.get_running_loop()
        self.began[name] = loop.time()
        try:
            try:
                await asyncio.sleep(step.seconds)
                if step.ending == "hangs":
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(step.tidying)
                raise
            if step.ending == "error":
                raise ValueError(name)
            if step.ending == "cancels itself":
                raise asyncio.CancelledError
        finally:
            self.ended[name] = loop.time()
        return name


def _call(step: Step) -> ToolCall:
    if step.delegates is not None:
        return ToolCall(step.name, DELEGATES[step.delegates.parallel], {"task": step.name})
    name = "nobody" if step.ending == "unknown" else _name(step.timeout)
    if step.ending == "bad arguments":
        return ToolCall.parse(step.name, name, '{"name": ')
    return ToolCall(step.name, name, {"name": step.name})


def _name(timeout: float | None) -> str:
    return "act" if timeout is None else f"act_within_{timeout:g}"


def _in_short(result: str) -> str:
    return f"!{result.split(':')[1].strip()}" if result.startswith("Error: ") else result


def in_virtual_time(make: Callable[[], Any], *, seed: int = 0) -> Any:
    """What comes of it; `seed` says in which order tasks go on. No task may be left."""
    loop = VirtualLoop(Random(seed))
    try:
        outcome = loop.run_until_complete(make())
        loop.run_until_complete(_settle())
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks were left: {left}"
        assert not loop.complaints, loop.complaints
        return outcome
    finally:
        loop.close()


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
