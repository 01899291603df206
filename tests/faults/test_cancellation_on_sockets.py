"""Cancelled at any point, a call over a real connection closes it, and the client goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from aether import Aether
from aether.errors import RequestTimeoutError, StreamInterruptedError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.extensions.memory import InMemorySessionStore
from aether.http.contracts import Transport
from aether.llm.contracts import ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Script
from aether.testing.wires import Reply
from tests.faults.aftermath import Aftermath
from tests.faults.stage import settle, share_tls_context
from tests.faults.sweep import Cancelling, Way, every_pair_of_points, every_point, pause

pytestmark = pytest.mark.row("M9")

PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
TEXT = "Hello there."


async def step() -> str:
    """Take a step."""
    await pause()
    return "stepped"


async def ask(client: Aether) -> int:
    assert await client.ask("go") == TEXT
    return 0


async def stream(client: Aether) -> int:
    chunks = [chunk async for chunk in client.stream("go")]
    assert "".join(chunk.text for chunk in chunks) == TEXT
    return 0


async def stream_broken_off(client: Aether) -> int:
    async for _ in client.stream_text("go"):
        break
    await pause()
    return 0


async def hanging_ask(client: Aether) -> int:
    with suppress(RequestTimeoutError, StreamInterruptedError):
        await client.ask("go")
    return 0


async def hanging_stream(client: Aether) -> int:
    with suppress(RequestTimeoutError, StreamInterruptedError):
        async for _ in client.stream("go"):
            pass
    return 0


async def tools_in_a_stream_of_a_session(client: Aether) -> int:
    texts = [text async for text in client.session("s").stream_text("go", tools=[step])]
    assert "".join(texts) == TEXT
    return 2


@dataclass(frozen=True)
class Flow:
    run: Callable[[Aether], Coroutine[Any, Any, int]]
    """Says how many messages it has added to the session."""
    script: tuple[Script, ...] = ()
    timeout: float = 5.0
    """Seconds until the server is given up. A busy machine may need many for what takes few."""


CALLS = Reply(calls=[ToolCall("c1", "step", {}), ToolCall("c2", "step", {})])
FLOWS = (
    Flow(ask),
    Flow(stream),
    Flow(stream_broken_off),
    Flow(hanging_ask, (faults.hang(),), timeout=0.1),
    Flow(hanging_stream, (faults.cut(events=3, ending="hanging"),), timeout=0.1),
    Flow(tools_in_a_stream_of_a_session, (CALLS,)),
)
flows = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.run.__name__)
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)
transports = pytest.mark.parametrize("transport", ["aiohttp", "httpx"])


@pytest.fixture(autouse=True)
def one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


@flows
@protocols
@transports
async def test_call_cancelled_at_any_point_closes_its_connection(
    flow: Flow, protocol: str, transport: str
) -> None:
    assert await every_point("once", calling(flow, protocol, transport)) > 3


@flows
@transports
@pytest.mark.parametrize("way", ["late", "timeout"])
async def test_call_cancelled_late_or_by_its_time_limit_closes_its_connection(
    flow: Flow, transport: str, way: Way
) -> None:
    assert await every_point(way, calling(flow, "anthropic", transport)) > 3


@flows
@transports
async def test_call_cancelled_again_while_its_connection_is_closed_closes_it_all_the_same(
    flow: Flow, transport: str
) -> None:
    assert await every_pair_of_points(calling(flow, "openai", transport)) > 3


@pytest.mark.parametrize("make", [AiohttpTransport, HttpxTransport])
async def test_call_cancelled_while_it_waits_for_a_connection_takes_no_place(
    make: Callable[..., Transport],
) -> None:
    async def attempt(cancelling: Cancelling) -> None:
        async with FaultServer() as server:
            transport = make(max_connections=1)
            client = Aether(config=server.config(transport=transport))
            tasks = asyncio.all_tasks()

            async def several() -> None:
                async with asyncio.TaskGroup() as group:
                    for call in (ask, stream_broken_off, ask):
                        group.create_task(call(client))

            await cancelling.run(several())
            await server.until_left()
            await settle(tasks | _tasks_of(server))
            async with asyncio.timeout(1):
                assert await client.ask("next") == TEXT
            assert server.open_connections == 1
            await transport.aclose()
            await server.until_open(0)

    assert await every_point("once", attempt) > 3
    assert await every_point("late", attempt) > 3


def calling(flow: Flow, protocol: str, transport: str) -> Callable[[Cancelling], Awaitable[None]]:
    async def attempt(cancelling: Cancelling) -> None:
        await _attempt(cancelling, flow, protocol, transport)

    return attempt


async def _attempt(cancelling: Cancelling, flow: Flow, protocol: str, transport: str) -> None:
    aftermath, store = Aftermath(), InMemorySessionStore()
    async with FaultServer(*flow.script) as server:
        config = server.config(
            protocol, transport=transport, api_key=aftermath.key, timeout=flow.timeout
        )
        client = Aether(config=config, memory_store=store, with_retry=False)
        tasks = asyncio.all_tasks()
        stored = 0

        async def run() -> None:
            nonlocal stored
            stored = await flow.run(client)

        async with aftermath.client(client):
            await cancelling.run(run())
            await server.until_left()
            await settle(tasks | _tasks_of(server))
            await aftermath.judge()
            entries = client.usage.ledger
            # One more, if it was cancelled before the request was there.
            assert server.count <= len(entries) <= server.count + 1
            assert all(entry.state != "pending" for entry in entries)
            assert len(await client.session("s").history()) == stored
            server._script.clear()
            assert await client.session("s").ask("next") == TEXT
            assert server.open_connections == 1, "a connection was left open"
        await server.until_open(0)


def _tasks_of(server: FaultServer) -> set[asyncio.Task[object]]:
    return set(server._raw._tasks)
