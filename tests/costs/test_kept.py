"""What is kept of each call, whichever way it is made and however it ends: nothing, by the byte.

A list is seen as it grows, which a count of blocks does not show. The ledger of costs is made
short, so that it is full at once.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import pytest

from aether import Aether, Agent
from aether.errors import ToolLoopError
from aether.extensions.llm import _tally
from tests.costs.counting import Answering, build_client

PROMPT = "What is 17 + 25?"
LEDGER = 10
TIMES = 300
LEAST = 8
"""Bytes of a place in a list: nothing that is kept of each call takes less."""


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def uses(client: Aether) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """The ways to use a client, by name."""
    session = client.session("s")

    async def stream() -> None:
        async for _ in client.stream_text(PROMPT):
            pass

    async def stream_with_a_tool() -> None:
        async for _ in client.stream(PROMPT, tools=[add], max_tool_iterations=2):
            pass

    async def leave_a_stream() -> None:
        async with aclosing(client.stream_text(PROMPT)) as texts:
            async for _ in texts:
                break

    async def fail() -> None:
        with suppress(ToolLoopError):
            await client.ask(PROMPT, tools=[add], max_tool_iterations=1)

    async def be_cancelled() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await client.ask(PROMPT, tools=[add])

    async def ask_a_session() -> None:
        await session.clear()
        await session.ask(PROMPT)

    async def stream_a_session() -> None:
        await session.clear()
        async for _ in session.stream_text(PROMPT):
            pass

    async def run_an_agent() -> None:
        await Agent("sum", instructions="Answer.", tools=[add], client=client).run(PROMPT)

    return {
        "ask": lambda: client.ask(PROMPT),
        "ask with a tool": lambda: client.ask(PROMPT, tools=[add]),
        "stream": stream,
        "stream with a tool": stream_with_a_tool,
        "leave a stream": leave_a_stream,
        "fail": fail,
        "be cancelled": be_cancelled,
        "ask a session": ask_a_session,
        "stream a session": stream_a_session,
        "run an agent": run_an_agent,
    }


@pytest.mark.parametrize("name", uses(build_client(Answering())))
async def test_nothing_is_kept_of_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "ENTRIES_KEPT", LEDGER)
    transport = Answering(chunks=3)
    client = build_client(transport)
    use = uses(client)[name]

    async def kept_after(times: int) -> int:
        for _ in range(times):
            await use()
            await asyncio.sleep(0)  # nothing here waits, and the loop has what it is to do later
            transport.sent.clear()
            assert client.usage.total_cost_usd >= 0  # else entries wait for their price
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    await kept_after(20)  # the prices are loaded
    tracemalloc.start()
    try:
        before = await kept_after(50)
        kept = await kept_after(TIMES) - before
    finally:
        tracemalloc.stop()
    assert len(client.usage.ledger) == LEDGER
    assert kept < TIMES * LEAST / 2


class Counting(asyncio.Task[None]):
    """A task that knows how much it is to call at its end."""

    calls = 0

    def add_done_callback(self, *args: Any, **options: Any) -> None:
        self.calls += 1
        super().add_done_callback(*args, **options)

    def remove_done_callback(self, *args: Any, **options: Any) -> int:
        removed = super().remove_done_callback(*args, **options)
        self.calls -= removed
        return removed


async def test_tasks_that_read_a_stream_in_turns_hold_it_once() -> None:
    stream = build_client(Answering(chunks=20)).stream_text(PROMPT)
    turns = [asyncio.Event(), asyncio.Event()]
    seen: list[int] = []

    async def read(own: int) -> None:
        for _ in range(8):
            await turns[own].wait()
            turns[own].clear()
            await anext(stream)
            seen.append(sum(task.calls for task in tasks))
            turns[1 - own].set()

    turns[0].set()
    tasks = [Counting(read(own), name=f"reader {own}") for own in (0, 1)]
    await asyncio.wait(tasks)
    for task in tasks:
        await task
    assert len(seen) == 16
    assert max(seen) - min(seen) <= 1  # with each turn one more, it would be 15
