"""What is checked after each test of a fault is seen where it goes wrong, of any client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError, ProviderError
from aether.events import REQUEST_START, TOOL_START, Event
from aether.extensions.llm.cost_tracking import Usage
from aether.extensions.memory.in_memory import InMemorySessionStore
from aether.llm.contracts import Message
from aether.testing import FakeProvider, FaultServer, faults
from tests.faults.aftermath import KEY, Aftermath
from tests.faults.exchanges import each_protocol
from tests.faults.observing import Observed, observe

BEFORE = [Message("user", "Before."), Message("assistant", "Yes.")]


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Observed:
    return observe(monkeypatch)


@pytest.fixture
def aftermath(observed: Observed) -> Aftermath:
    return Aftermath(observed)


@each_protocol
async def test_an_attempt_that_is_in_no_ledger_is_seen(
    protocol: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Usage.add

    def lose_the_first(usage: Usage, entries: Sequence[Any], *rest: Any) -> None:
        add(usage, entries[1:], *rest)

    for lost in (False, True):
        if lost:
            monkeypatch.setattr(Usage, "add", lose_the_first)
        async with FaultServer(faults.refuse("rate_limit", retry_after=0)) as server:
            async with Aether(config=server.config(protocol)) as client:
                await client.ask("Hi")
            assert server.count == 2
        if not lost:
            await aftermath.judge()
    with pytest.raises(AssertionError, match="1 ledger entries for 2 requests"):
        await aftermath.judge()


async def test_an_attempt_that_is_never_settled_is_seen(aftermath: Aftermath) -> None:
    client = Aether(FakeProvider(responses=["a"]))
    await client.ask("Hi")
    await aftermath.judge()
    client.usage.ledger[0].state = "pending"
    with pytest.raises(AssertionError, match="not settled"):
        await aftermath.judge()


@pytest.mark.parametrize("name", [REQUEST_START, TOOL_START])
async def test_a_start_without_an_end_is_seen(aftermath: Aftermath, name: str) -> None:
    client = Aether(FakeProvider(responses=["a"]))
    await client.ask("Hi")
    await aftermath.judge()
    await client.events.publish(Event(name=name, run_id="r", call_id="c"))
    with pytest.raises(AssertionError, match="0 ends"):
        await aftermath.judge()


async def test_nobody_listens_where_nobody_shall(aftermath: Aftermath) -> None:
    aftermath.listen_to_nobody()
    assert not Aether(FakeProvider(responses=["a"])).events.wants(REQUEST_START)


class Careless(InMemorySessionStore):
    """Writes to a session when it is read, or keeps nothing of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scribbles = self.forgets = False

    async def load(self, session_id: str) -> list[Message]:
        loaded = await super().load(session_id)
        if self.scribbles:
            await super().save(session_id, [*loaded, Message("user", "Half a turn.")])
        return loaded

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        if not self.forgets:
            await super().append(session_id, messages, expected_length=expected_length)


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_failed_turn_leaves_in_the_history_is_seen(
    aftermath: Aftermath, streamed: bool
) -> None:
    store = Careless()
    await store.save("s", BEFORE)
    script = [ProviderError("It broke."), ProviderError("It broke.")]
    client = Aether(FakeProvider(responses=script), memory_store=store)
    session = client.session("s")
    for scribbles in (False, True):
        await aftermath.judge()
        store.scribbles = scribbles
        asked: Any = anext(session.stream("Hi")) if streamed else session.ask("Hi")
        with pytest.raises(AetherError):
            await asked
    with pytest.raises(AssertionError, match=r"failed .* and left a trace"):
        await aftermath.judge()


async def test_a_turn_that_succeeds_and_is_not_kept_is_seen(aftermath: Aftermath) -> None:
    store = Careless()
    await store.save("s", BEFORE)
    session = Aether(FakeProvider(responses=["a", "b"]), memory_store=store).session("s")
    await session.ask("Hi")
    await session.clear()
    await store.save("s", BEFORE)
    await aftermath.judge()
    store.forgets = True
    await session.ask("Hi")
    with pytest.raises(AssertionError, match="left no trace"):
        await aftermath.judge()


async def test_a_key_in_an_event_is_seen(aftermath: Aftermath) -> None:
    client = Aether(FakeProvider(responses=[ProviderError(f"No: {KEY[:9]}.")]))
    with pytest.raises(AetherError):
        await client.ask("Hi")
    aftermath.shows_no_key("")
    client = Aether(FakeProvider(responses=[ProviderError(f"No: {KEY}.")]))
    with pytest.raises(AetherError):
        await client.ask("Hi")
    with pytest.raises(AssertionError, match="the key was shown"):
        aftermath.shows_no_key("")
