"""A stream that is left early closes its connection at once, whoever leaves it and however."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from aether import Aether, Agent
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import ToolCall
from aether.llm.streaming import OwnedStream
from aether.testing import FaultServer, faults
from aether.testing.faults import Script
from aether.testing.wires import Reply
from tests.faults.aftermath import Aftermath
from tests.faults.stage import share_tls_context

Open = Callable[[Aether], OwnedStream[Any]]


def step() -> str:
    """Take a step."""
    return "stepped"


OPENERS: dict[str, Open] = {
    "stream": lambda client: client.stream("go"),
    "text": lambda client: client.stream_text("go"),
    "output": lambda client: client.stream("go", output=list[int]),
    "second turn": lambda client: client.stream_text("go", tools=[step]),
    "session": lambda client: client.session("s").stream("go"),
    "session text": lambda client: client.session("s").stream_text("go"),
    "session's second turn": lambda client: client.session("s").stream_text("go", tools=[step]),
    "agent": lambda client: Agent("a", client=client).stream("go"),
    "agent's second turn": lambda client: Agent("a", client=client, tools=[step]).stream_text("go"),
}

HANGING: Script = [Reply("[1, 2, 3]"), faults.cut(events=3, ending="hanging")]
"""A text that begins, and does not end."""
CALLING: Script = Reply(calls=[ToolCall("c", "step", {})])


# --- ways of leaving while the reader goes on --------------------------------------------------


async def by_break(stream: Callable[[], OwnedStream[Any]]) -> None:
    async for _ in stream():
        break


async def by_return(stream: Callable[[], OwnedStream[Any]]) -> object:
    async for item in stream():
        return item
    return None


async def by_its_end_of_with(stream: Callable[[], OwnedStream[Any]]) -> None:
    async with stream() as items:
        await anext(items)


async def by_aclose(stream: Callable[[], OwnedStream[Any]]) -> None:
    items = stream()
    await anext(items)
    await items.aclose()
    await items.aclose()


async def by_dropping_it(stream: Callable[[], OwnedStream[Any]]) -> None:
    items = stream()
    await anext(items)


async def by_an_error(stream: Callable[[], OwnedStream[Any]]) -> None:
    with suppress(ValueError):
        async for _ in stream():
            raise ValueError("mine")


async def by_an_error_that_is_kept(stream: Callable[[], OwnedStream[Any]]) -> object:
    try:
        async for _ in stream():
            int("mine")
    except ValueError as error:
        return error
    return None


async def by_a_time_limit(stream: Callable[[], OwnedStream[Any]]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async for _ in stream():
                limit.reschedule(asyncio.get_running_loop().time() + 0.005)


async def by_a_time_limit_for_one_item(stream: Callable[[], OwnedStream[Any]]) -> None:
    items = stream()
    await anext(items)
    with suppress(TimeoutError):
        while True:
            await asyncio.wait_for(anext(items), 0.005)


async def by_a_generator_of_ones_own(stream: Callable[[], OwnedStream[Any]]) -> None:
    async def louder() -> AsyncGenerator[str, None]:
        async for item in stream():
            yield f"{item}!"

    async for _ in louder():
        break


async def by_closing_a_generator_of_ones_own(stream: Callable[[], OwnedStream[Any]]) -> None:
    async def louder() -> AsyncGenerator[str, None]:
        async with stream() as items:
            async for item in items:
                yield f"{item}!"

    async with aclosing(louder()) as louder_items:
        await anext(louder_items)


GOING_ON = (
    by_break,
    by_return,
    by_its_end_of_with,
    by_aclose,
    by_dropping_it,
    by_an_error,
    by_an_error_that_is_kept,
    by_a_time_limit,
    by_a_time_limit_for_one_item,
    by_a_generator_of_ones_own,
    by_closing_a_generator_of_ones_own,
)


# --- ways in which the reader's task ends ------------------------------------------------------


async def with_an_error(stream: OwnedStream[Any]) -> None:
    async for _ in stream:
        raise ValueError("mine")


async def cancelled_while_it_waits(stream: OwnedStream[Any]) -> None:
    async for _ in stream:
        pass


async def cancelled_while_it_works(stream: OwnedStream[Any]) -> None:
    async for _ in stream:
        await asyncio.sleep(60)


async def with_the_stream_in_a_cycle(stream: OwnedStream[Any]) -> None:
    cycle: list[object] = [stream]
    cycle.append(cycle)
    await anext(stream)


async def in_a_group_that_fails(stream: OwnedStream[Any]) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            begun.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        await begun.wait()
        raise ValueError("mine")


ENDING = (
    with_an_error,
    cancelled_while_it_waits,
    cancelled_while_it_works,
    with_the_stream_in_a_cycle,
    in_a_group_that_fails,
)


opened = pytest.mark.parametrize(
    ("transport", "opener"),
    [
        *(("aiohttp", opener) for opener in OPENERS),
        *(("httpx", opener) for opener in ("text", "second turn", "session text")),
    ],
)


@pytest.fixture(autouse=True)
def one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


@pytest.mark.row("M10")
@opened
@pytest.mark.parametrize("leave", GOING_ON, ids=lambda leave: leave.__name__)
async def test_stream_that_is_left_is_closed_while_its_reader_goes_on(
    transport: str,
    opener: str,
    leave: Callable[[Callable[[], OwnedStream[Any]]], Awaitable[object]],
    aftermath: Aftermath,
) -> None:
    async with serving(opener) as server, making(server, transport, aftermath) as client:
        kept = await leave(lambda: OPENERS[opener](client))
        await closed_at_once(server, client)
        del kept
        aftermath.one_entry_per_request(client, server)


@pytest.mark.row("M10")
@opened
@pytest.mark.parametrize("read", ENDING, ids=lambda read: read.__name__)
async def test_stream_is_closed_when_its_readers_task_ends_though_both_are_kept(
    transport: str,
    opener: str,
    read: Callable[[OwnedStream[Any]], Awaitable[None]],
    aftermath: Aftermath,
) -> None:
    async with serving(opener) as server, making(server, transport, aftermath) as client:
        stream = OPENERS[opener](client)
        task = asyncio.ensure_future(read(stream))
        if read in (cancelled_while_it_waits, cancelled_while_it_works):
            await server.until_hanging()
            task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.done()
        await closed_at_once(server, client)
        assert task.cancelled() or task.exception() is not None or stream is not None
        aftermath.one_entry_per_request(client, server)


def serving(opener: str) -> FaultServer:
    script = [CALLING, HANGING] if "second" in opener else [HANGING]
    return FaultServer(*script, reply="next")


def making(server: FaultServer, transport: str, aftermath: Aftermath) -> Aether:
    config = server.config(transport=transport, api_key=aftermath.key)
    return aftermath.client(Aether(config=config, memory_store=InMemorySessionStore()))


async def closed_at_once(server: FaultServer, client: Aether) -> None:
    """No connection is open, and a session's next turn is held up by nothing."""
    await server.until_open(0)
    assert await client.session("s").history() == []
    async with asyncio.timeout(1):
        assert await client.session("s").ask("next") == "next"
    assert [message.text for message in await client.session("s").history()] == ["next", "next"]
