"""What a call keeps: nothing, once what is kept by design is full."""

from __future__ import annotations

from collections.abc import Sequence

from aether import Message
from aether.extensions.memory.in_memory import InMemorySessionStore
from tests.costs.counting import Answering, blocks_kept, build_client, python_calls

LEDGER = 10_000


async def test_a_thousand_more_calls_keep_no_memory() -> None:
    transport = Answering()
    client = build_client(transport)

    async def ask() -> None:
        await client.ask("What is 17 + 25?")
        transport.sent.clear()

    async def ask_and_read_the_cost() -> None:
        await ask()
        assert client.usage.total_cost_usd > 0  # else the entry would wait for its price

    for _ in range(LEDGER):
        await ask()
    await ask_and_read_the_cost()
    assert len(client.usage.ledger) == LEDGER
    assert await blocks_kept(ask_and_read_the_cost, times=1_000) < 100


class Told(InMemorySessionStore):
    """What it was told to write."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[int] = []
        self.rewritten = 0

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        self.appended.append(len(messages))
        await super().append(session_id, messages, expected_length=expected_length)

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        self.rewritten += 1
        await super().save(session_id, messages)

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        self.rewritten += 1
        await super().replace(session_id, messages, expected_length=expected_length)


async def test_a_turn_of_a_session_writes_its_own_messages_alone() -> None:
    store = Told()
    session = build_client(Answering(), memory_store=store).session("s", system="Be brief.")
    for _ in range(20):
        await session.ask("What is 17 + 25?")
    assert store.appended == [3] + [2] * 19
    assert store.rewritten == 0


async def test_a_turn_costs_little_more_for_each_message_before_it() -> None:
    store = Told()
    session = build_client(Answering(), memory_store=store).session("s")
    counts = []
    for turns in (10, 60):
        while len(store.appended) < turns:
            await session.ask("What is 17 + 25?")
        counts.append((await python_calls(lambda: session.ask("What is 17 + 25?"))).total())
    messages = 2 * (60 - 10)
    assert (counts[1] - counts[0]) / messages <= 12
