"""What grows with what is there already, and how fast: counted in instructions, which see a loop
that calls nothing. What C does in one step, such as to copy a list of all that came before, no
count shows: `make bench ARGS=long` measures it. Joins are counted in `test_steps.py`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from aether.extensions.memory.in_memory import InMemorySessionStore
from aether.registry import Registry
from aether.tools import register_tool
from tests.costs.counting import Answering, build_client
from tests.costs.steps import instructions, mark

PROMPT = "What is 17 + 25?"
TURNS = 20


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Marking(Answering):
    """Marks each request."""

    async def request(self, *args: Any, **options: Any) -> Any:
        mark()
        return await super().request(*args, **options)


async def test_each_turn_of_a_tool_loop_takes_as_much_more_as_the_one_before() -> None:
    client = build_client(Marking(turns=TURNS))

    async def loop() -> None:
        await client.ask(PROMPT, tools=[add], max_tool_iterations=TURNS + 1)

    at_requests = await instructions(loop)
    turns = [after - before for before, after in pairwise(at_requests[:-1])]
    grown = [after - before for before, after in pairwise(turns)]
    assert len(turns) == TURNS
    # The first ones lack what stands before them: an answer, a result.
    assert max(grown[3:]) - min(grown[3:]) <= 10, grown
    assert 0 < grown[-1] <= 2 * 230  # to write two messages once more


async def test_each_message_before_a_turn_of_a_session_takes_alike() -> None:
    counts = []
    sizes = (20, 40, 60)
    for size in sizes:
        store = InMemorySessionStore()
        session = build_client(Answering(), memory_store=store).session("s")
        for _ in range(size):
            await session.ask(PROMPT)
        past = await store.load("s")
        assert len(past) == 2 * size

        async def turn(store: Any = store, past: Any = past, session: Any = session) -> None:
            await store.save("s", past)
            mark()
            await session.ask(PROMPT)

        start, end = await instructions(turn)
        counts.append(end - start)
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert second == pytest.approx(first, rel=0.01)
    assert 0 < first / 40 <= 380  # to copy it for the session and to write it into the request


async def test_each_chunk_of_a_stream_takes_alike() -> None:
    counts = []
    for chunks in (200, 400, 600):
        client = build_client(Answering(chunks=chunks))

        async def read(client: Any = client) -> None:
            async for _ in client.stream_text(PROMPT):
                pass

        counts += await instructions(read)
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert second == pytest.approx(first, rel=0.01)
    assert 0 < first / 200 <= 340


async def test_tools_that_are_registered_and_not_offered_are_not_even_walked_over() -> None:
    counts = []
    for registered in (3, 1000):
        registry = Registry()
        for number in range(registered):
            register_tool(name=f"add_{number}", registry=registry)(add)
        client = build_client(Answering(), registry=registry)

        async def ask(client: Any = client) -> None:
            await client.ask(PROMPT, tools=["add_0", "add_1", "add_2"])

        counts += await instructions(ask)
    assert counts[0] > 1_000
    assert abs(counts[1] - counts[0]) <= 10  # to walk over them would be some thousands
