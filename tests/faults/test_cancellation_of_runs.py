"""Cancelled at any point, a run without a session leaves nothing behind, and ends as cancelled."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from aether import Agent, Tool
from aether.errors import OverloadedError, RateLimitError
from tests.faults.stage import MODEL, Answer, Stage, calling
from tests.faults.sweep import WAYS, Cancelling, Way, every_pair_of_points, every_point, pause


def delegating(stage: Stage) -> Tool:
    """Two levels: a chief has two assistants at once, each of whom uses a tool."""
    assistants = [Agent(name, model=name, tools=[stage.tools.step]) for name in ("left", "right")]
    return Agent("chief", model="chief", tools=[each.as_tool() for each in assistants]).as_tool()


DELEGATION: dict[str, list[Answer]] = {
    MODEL: [calling("chief", task="do it"), "done"],
    "chief": [calling("left", "right", task="do it"), "both did"],
    "left": [calling("step"), "left did"],
    "right": [calling("step"), "right did"],
}


# --- flows ------------------------------------------------------------------------------------


async def ask(stage: Stage) -> None:
    assert await stage.client.ask("go") == "hello there"


async def complete(stage: Stage) -> None:
    assert (await stage.client.complete("go")).text == "hello there"


async def stream(stage: Stage) -> None:
    chunks = [chunk async for chunk in stage.client.stream("go")]
    assert "".join(chunk.text for chunk in chunks) == "hello there"


async def stream_text(stage: Stage) -> None:
    async with stage.client.stream_text("go") as texts:
        assert "".join([text async for text in texts]) == "hello there"


async def stream_broken_off(stage: Stage) -> None:
    async for text in stage.client.stream_text("go"):
        if text == "o th":
            break
    await pause()
    await pause()


async def stream_closed_early(stage: Stage) -> None:
    async with stage.client.stream("go") as chunks:
        await anext(chunks)


async def structured(stage: Stage) -> None:
    assert await stage.client.ask("go", output=list[int]) == [1, 2]


async def structured_stream(stage: Stage) -> None:
    chunks = [chunk async for chunk in stage.client.stream("go", output=list[int])]
    assert chunks[-1].output == [1, 2]


async def tools_together(stage: Stage) -> None:
    box = stage.tools
    assert await stage.client.ask("go", tools=[box.step, box.work, box.fail, box.linger]) == "done"


async def tools_one_by_one(stage: Stage) -> None:
    tools = [stage.tools.step, stage.tools.work, stage.tools.linger]
    assert await stage.client.ask("go", tools=tools, parallel_tools=False) == "done"


async def tools_of_which_one_hangs(stage: Stage) -> None:
    schema = {"type": "object", "properties": {}}
    hang = Tool(
        name="hang", description="", parameters=schema, handler=stage.tools.hang, timeout=0.002
    )
    assert await stage.client.ask("go", tools=[stage.tools.step, hang]) == "done"


async def tools_of_which_one_swallows_it(stage: Stage) -> None:
    tools = [stage.tools.swallow, stage.tools.step]
    assert await stage.client.ask("go", tools=tools) == "done"


async def stream_with_tools(stage: Stage) -> None:
    tools = [stage.tools.step, stage.tools.linger]
    texts = [text async for text in stage.client.stream_text("go", tools=tools)]
    assert "".join(texts) == "let me see done"


async def agent_without_tools(stage: Stage) -> None:
    async with Agent("one", client=stage.client).stream_text("go") as texts:
        assert "".join([text async for text in texts]) == "done"


async def agent(stage: Stage) -> None:
    one = Agent("one", instructions="Be brief.", tools=[stage.tools.step], client=stage.client)
    assert await one.run_text("go") == "done"


async def agent_stream(stage: Stage) -> None:
    one = Agent("one", tools=[stage.tools.step], client=stage.client)
    async with one.stream("go") as chunks:
        assert "".join([chunk.text async for chunk in chunks]) == "let me see done"


async def delegation(stage: Stage) -> None:
    assert await stage.client.ask("go", tools=[delegating(stage)]) == "done"


async def delegation_in_a_stream(stage: Stage) -> None:
    texts = [text async for text in stage.client.stream_text("go", tools=[delegating(stage)])]
    assert "".join(texts) == "let me see done"


async def retries(stage: Stage) -> None:
    assert await stage.client.ask("go") == "done"


async def retries_of_a_stream(stage: Stage) -> None:
    assert "".join([text async for text in stage.client.stream_text("go")]) == "done"


async def waiting_at_the_gate(stage: Stage) -> None:
    """The first is refused for a while, the second waits as long, behind the first."""
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(stage.client.ask("go"))


async def probe(stage: Stage) -> None:
    await _open_the_circuit(stage)
    assert await stage.client.ask("go") == "done"


async def probe_that_streams(stage: Stage) -> None:
    await _open_the_circuit(stage)
    assert "".join([text async for text in stage.client.stream_text("go")]) == "done"


async def _open_the_circuit(stage: Stage) -> None:
    """Without giving way, so that it is no part of the flow."""
    stage.provider.pausing = False
    for _ in range(5):
        with suppress(OverloadedError):
            await stage.client.ask("go")
    assert stage.breaker.state(MODEL) == "open"
    stage.clock.now += 60
    stage.provider.pausing = True


@dataclass(frozen=True)
class Flow:
    run: Callable[[Stage], Coroutine[Any, Any, None]]
    script: Mapping[str, Sequence[Answer]] | Sequence[Answer]
    least: int
    """It has at least so many points."""


def _busy() -> OverloadedError:
    return OverloadedError("busy", retryable=True)


RUNS = (
    Flow(ask, ["hello there"], 2),
    Flow(complete, ["hello there"], 2),
    Flow(stream, ["hello there"], 5),
    Flow(stream_text, ["hello there"], 5),
    Flow(stream_broken_off, ["hello there"], 5),
    Flow(stream_closed_early, ["hello there"], 1),
    Flow(structured, ["no list", "[1, 2]"], 4),
    Flow(structured_stream, ["no list", "[1, 2]"], 8),
    Flow(agent_without_tools, ["done"], 2),
    Flow(retries, [_busy(), _busy(), "done"], 6),
    Flow(retries_of_a_stream, [_busy(), _busy(), "done"], 6),
    Flow(waiting_at_the_gate, [RateLimitError("slow", retryable=True, retry_after=9)], 8),
    Flow(probe, [*(_busy() for _ in range(15)), "done"], 2),
    Flow(probe_that_streams, [*(_busy() for _ in range(15)), "done"], 3),
)
TOOL_RUNS = (
    Flow(tools_together, [calling("step", "work", "fail", "linger"), "done"], 12),
    Flow(tools_one_by_one, [calling("step", "work", "linger"), "done"], 12),
    Flow(tools_of_which_one_hangs, [calling("step", "hang"), "done"], 8),
    Flow(tools_of_which_one_swallows_it, [calling("swallow", "step"), "done"], 8),
    Flow(stream_with_tools, [calling("step", "linger"), "done"], 14),
    Flow(agent, [calling("step"), "done"], 7),
    Flow(agent_stream, [calling("step"), "done"], 9),
    Flow(delegation, DELEGATION, 25),
    Flow(delegation_in_a_stream, DELEGATION, 30),
)
ways = pytest.mark.parametrize("way", WAYS)


def each_of(flows: Sequence[Flow]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("flow", flows, ids=lambda flow: flow.run.__name__)


@pytest.mark.row("M9")
@each_of(RUNS)
@ways
async def test_run_cancelled_at_any_point_leaves_nothing_behind(flow: Flow, way: Way) -> None:
    assert await every_point(way, playing(flow)) >= flow.least


@pytest.mark.row("M9")
@each_of(RUNS)
async def test_run_cancelled_again_while_it_ends_leaves_nothing_behind(flow: Flow) -> None:
    assert await every_pair_of_points(playing(flow)) >= flow.least


@pytest.mark.row("T6")
@each_of(TOOL_RUNS)
@pytest.mark.parametrize("way", ["once", "late", "timeout", "shield"])
async def test_run_cancelled_while_tools_run_waits_for_their_end(flow: Flow, way: Way) -> None:
    assert await every_point(way, playing(flow)) >= flow.least


@pytest.mark.row("T6")
@each_of(TOOL_RUNS)
async def test_run_cancelled_again_while_its_tools_end_waits_for_them_all_the_same(
    flow: Flow,
) -> None:
    assert await every_pair_of_points(playing(flow)) >= flow.least


@pytest.mark.row("T6")
async def test_run_cancelled_again_while_its_tools_end_keeps_nothing_of_its_caller() -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    async def use(stage: Stage) -> None:
        own = Held()
        held.append(weakref.ref(own))
        await stage.client.ask("go", tools=[stage.tools.linger])

    async with Stage([calling("linger")]) as stage:
        task = asyncio.ensure_future(use(stage))
        while not stage.tools.running:
            await pause()
        task.cancel()
        await pause()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        del task
        assert held[0]() is None


@pytest.mark.row("M9", "T6")
@each_of([*RUNS, *TOOL_RUNS])
async def test_run_cancelled_while_slow_subscribers_and_middleware_are_told_leaves_nothing_behind(
    flow: Flow,
) -> None:
    assert await every_point("once", playing(flow, slow=True)) > flow.least


def playing(flow: Flow, *, slow: bool = False) -> Callable[[Cancelling], Awaitable[None]]:
    async def attempt(cancelling: Cancelling) -> None:
        async with Stage(flow.script, slow=slow) as stage:
            await cancelling.run(flow.run(stage))
            await stage.judge()

    return attempt
