"""What a call costs, counted in Python functions entered: what is added here is felt by everybody.

The bounds leave room for a few more. Whoever needs more raises one, and says what for.
"""

from __future__ import annotations

import pytest

from aether import Aether, Agent
from aether.events import EventBus
from tests.costs.counting import Answering, blocks_kept, build_client, python_calls

PROMPT = "What is 17 + 25?"


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_an_ask() -> None:
    client = build_client(Answering())
    calls = await python_calls(lambda: client.ask(PROMPT))
    assert 50 < calls.total() <= 135, calls.most_common(20)


async def test_a_tool_flow_of_two_turns() -> None:
    client = build_client(Answering())
    calls = await python_calls(lambda: client.ask(PROMPT, tools=[add]))
    assert 100 < calls.total() <= 345, calls.most_common(20)


@pytest.mark.parametrize(("events_a_read", "most"), [(16, 7.0), (1, 15.5)])
async def test_a_chunk_of_a_stream(events_a_read: int, most: float) -> None:
    few, many = [
        await python_calls(lambda client=client: _read(client))  # type: ignore[misc]
        for client in (
            build_client(Answering(chunks=200, events_a_read=events_a_read)),
            build_client(Answering(chunks=400, events_a_read=events_a_read)),
        )
    ]
    assert 1 < (many.total() - few.total()) / 200 <= most, (many - few).most_common(20)


async def test_a_stream_twice_as_long_costs_twice() -> None:
    counts = [
        (await python_calls(lambda client=client: _read(client))).total()  # type: ignore[misc]
        for client in (build_client(Answering(chunks=size)) for size in (2_000, 4_000, 8_000))
    ]
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert second == pytest.approx(2 * first, rel=0.01)


async def test_without_a_subscriber_no_event_is_built_and_no_copy_made() -> None:
    client = build_client(Answering(), events=EventBus())
    await _everything(client)
    calls = await python_calls(lambda: _everything(client))
    built = [name for name in calls if "/events.py" in name or "/payloads.py" in name]
    assert [name.split(":")[1] for name in built] == ["wants"]


async def test_building_an_agent_takes_no_more_than_its_fields() -> None:
    client = build_client(Answering())
    agents: list[Agent] = []

    async def build() -> None:
        agents.append(Agent("sum", instructions="Answer.", tools=[add], client=client))

    calls = await python_calls(build)
    assert calls.total() <= 12, calls.most_common()
    kept = await blocks_kept(build, times=100)
    assert kept / 100 <= 12


async def _read(client: Aether) -> int:
    return sum([1 async for _ in client.stream_text(PROMPT)])


async def _everything(client: Aether) -> None:
    await client.ask(PROMPT, tools=[add])
    await _read(client)
    await client.session("s").ask(PROMPT)
