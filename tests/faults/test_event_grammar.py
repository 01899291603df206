"""Every sequence of events that a run can give rise to is one that the grammar allows.

The runs are generated: tools that fail, hang, are cancelled or delegate; answers whole or streamed,
in sessions, by agents; models that fail; runs that are cancelled, left early or at their last turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Aether
from aether.errors import AetherError
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import LLMRequest, ToolCall
from tests.faults.event_grammar import check
from tests.faults.plans import Actors, expected, in_virtual_time, plan
from tests.faults.ways import SESSION, WAYS, Way, get_answer

RUNS = 300


def record(client: Aether, *, slow: bool) -> list[Event]:
    """The client's events, as they come; `slow` has each held up by a subscriber."""
    seen: list[Event] = []

    async def dawdle(_: Event) -> None:
        await asyncio.sleep(0.125)

    for name in EVENT_NAMES:
        client.on(name)(seen.append)
        if slow:
            client.on(name)(dawdle)
    return seen


async def leave_early(client: Aether, way: Way, prompt: str, after: int, **options: Any) -> None:
    """Read so many pieces of a stream, and no more."""
    asked: Any = client.session(SESSION) if way.startswith("session") else client
    async with asked.stream_text(prompt, **options) as texts:
        async for _ in texts:
            after -= 1
            if after < 0:
                break


@pytest.mark.row("E6")
@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(WAYS),
    together=st.integers(1, 3),
    ending=st.sampled_from(["whole", "whole", "cancelled", "failing", "left", "last turn"]),
    share=st.floats(0, 1, exclude_max=True),
    slow=st.booleans(),
)
@settings(max_examples=RUNS, deadline=None)
def test_events_of_any_run_follow_the_grammar(
    seed: int, way: Way, together: int, ending: str, share: float, slow: bool
) -> None:
    random = Random(seed)
    failing = {random.randrange(1, 6) for _ in range(3)} if ending == "failing" else set()
    actors = Actors(max_depth=random.randrange(3), failing=frozenset(failing))
    client = Aether(actors)
    seen = record(client, slow=slow)

    async def one(number: int) -> None:
        made = plan(random, name=f"{number}:")
        prompt = actors.prepare(f"plan {number}", made)
        options: dict[str, Any] = {
            "tools": actors.tools(client),
            "parallel_tools": made.parallel,
        }
        if ending == "last turn":
            options["max_tool_iterations"] = 1
        if ending == "left":
            await leave_early(client, way, prompt, random.randrange(4), **options)
            return
        run = asyncio.ensure_future(get_answer(client, way, prompt, **options))
        if ending == "cancelled":
            _, seconds = expected(made, max_depth=actors.max_depth)
            await asyncio.sleep(int(share * seconds) + 0.3)
            run.cancel()
        with contextlib.suppress(asyncio.CancelledError, AetherError):
            await run

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(together):
                group.create_task(one(number))
        await asyncio.sleep(10)  # what was held up is told by now

    in_virtual_time(main, seed=seed)
    assert seen
    check(seen)


def an_event(name: str, **fields: Any) -> Event:
    given: dict[str, Any] = {"run_id": "r", "turn": 1, "request": LLMRequest([])}
    if name.startswith("tool"):
        given |= {"call": ToolCall("c", "f"), "call_id": "c"}
    else:
        given |= {"call_id": "r" if name.startswith("stream") else "q"}
    return Event(name=name, **{**given, **fields})


ALLOWED = [
    ["request.start", "request.complete"],
    ["request.start", "request.error"],
    ["request.start", "request.complete", "tool.start", "tool.error"],
    ["stream.start", "stream.error"],
    ["stream.start", "stream.chunk", "stream.chunk", "stream.complete"],
    ["stream.start", "tool.start", "tool.complete", "stream.complete"],
]
REFUSED = [
    ["request.start"],
    ["request.complete"],
    ["tool.start", "tool.complete"],
    ["request.start", "request.start", "request.complete"],
    ["request.start", "request.complete", "request.error"],
    ["request.start", "request.error", "tool.start", "tool.complete"],
    ["request.start", "tool.start", "tool.complete", "request.complete"],
    ["request.start", "request.complete", "tool.start"],
    ["request.start", "request.complete", "tool.complete"],
    ["request.start", "request.complete", "tool.start", "tool.complete", "tool.error"],
    ["request.start", "request.complete", "stream.start", "stream.complete"],
    ["stream.start"],
    ["stream.chunk", "stream.complete"],
    ["stream.start", "stream.start", "stream.complete"],
    ["stream.start", "stream.complete", "stream.error"],
    ["stream.start", "stream.complete", "stream.chunk"],
    ["stream.start", "request.start", "request.complete", "stream.complete"],
    ["stream.start", "tool.start", "stream.complete", "tool.complete"],
    ["stream.start", "tool.start", "stream.chunk", "tool.complete", "stream.complete"],
]


@pytest.mark.parametrize("names", ALLOWED, ids=" ".join)
def test_grammar_allows_what_there_can_be(names: list[str]) -> None:
    check(map(an_event, names))


@pytest.mark.parametrize("names", REFUSED, ids=" ".join)
def test_grammar_refuses_what_there_cannot_be(names: list[str]) -> None:
    with pytest.raises(AssertionError):
        check(map(an_event, names))


def test_grammar_refuses_a_delegated_run_outside_of_its_call() -> None:
    outer = [an_event("request.start"), an_event("request.complete")]
    inner = [
        an_event(name, run_id="s", parent_run_id="r", call_id="i")
        for name in ("request.start", "request.complete")
    ]
    start, end = an_event("tool.start"), an_event("tool.complete")
    check([*outer, start, *inner, end])
    for wrong in ([*outer, *inner, start, end], [*outer, start, inner[0], end, inner[1]]):
        with pytest.raises(AssertionError):
            check(wrong)
