"""Streams that are left leave no socket, at once and without the garbage collector."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aether import Aether
from aether.errors import StreamInterruptedError
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import Timeout
from aether.testing import FaultServer, faults
from aether.testing._raw_server import Connection, RawServer
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    PROTOCOLS,
    TRANSPORT_CLASSES,
    call,
    closing,
    each_protocol,
    each_transport,
    eventually,
    first_event,
    opened,
    sockets,
    states,
)

MANY = 100

Leaving = Callable[[Aether], Awaitable[None]]


async def breaks(client: Aether) -> None:
    async for _ in client.stream_text("Hi"):
        break


async def breaks_in_a_block(client: Aether) -> None:
    async with client.stream("Hi") as chunks:
        async for _ in chunks:
            break


async def raises(client: Aether) -> None:
    async def reading() -> None:
        async for _ in client.stream_text("Hi"):
            raise ZeroDivisionError

    task = asyncio.ensure_future(reading())
    await asyncio.wait([task])
    assert isinstance(task.exception(), ZeroDivisionError)


async def is_cancelled(client: Aether, *, times: int = 1) -> None:
    reading = asyncio.Event()

    async def read() -> None:
        async with client.session("one").stream_text("Hi") as texts:
            async for _ in texts:
                reading.set()

    task = asyncio.ensure_future(read())
    await reading.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert task.cancelled()


async def is_cancelled_twice(client: Aether) -> None:
    await is_cancelled(client, times=2)


async def times_out(client: Aether) -> None:
    async def read() -> None:
        async with asyncio.timeout(None) as limit:
            async for _ in client.stream_text("Hi"):
                limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await read()


LEAVING = [breaks, breaks_in_a_block, raises, is_cancelled, is_cancelled_twice, times_out]


@pytest.mark.row("N9", "N11")
@each_protocol
@each_transport
@pytest.mark.parametrize("leave", LEAVING)
async def test_a_stream_that_is_left_closes_its_connection_at_once(
    protocol: str, transport: str, leave: Leaving, aftermath: Aftermath
) -> None:
    events = first_event(protocol, b"Hell") + 1
    async with (
        FaultServer(faults.cut(events=events, ending="hanging")) as server,
        opened(aftermath, server, protocol, transport, fails=True) as client,
    ):
        await leave(client)
        await server.until_open(0)
        assert states(client) == ["estimated"]
        assert [event.name for event in aftermath.events][-1] == "stream.error"
        assert aftermath.events[-1].cancelled


@pytest.mark.row("N9")
@each_transport
async def test_many_streams_that_are_left_leave_no_socket(
    transport: str, aftermath: Aftermath
) -> None:
    """The garbage collector is off, as in each test that shows a row."""
    fault = faults.cut(events=2, ending="hanging")
    ways: list[Leaving] = [breaks, raises, is_cancelled, is_cancelled_twice]
    async with (
        FaultServer(*[fault] * MANY) as server,
        opened(aftermath, server, "openai", transport) as client,
    ):
        before = sockets()
        for start in range(0, MANY, 20):
            await asyncio.gather(*(ways[n % 4](client) for n in range(start, start + 20)))
        assert server.count == MANY
        await server.until_open(0)
        assert sockets() == before


@pytest.mark.row("N9")
@each_transport
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_reference_to_a_stream_that_failed_keeps_nothing_open(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    events = first_event(protocol, b"Hell") + 1
    async with (
        FaultServer(faults.cut(events=events, ending="reset")) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        stream = client.stream("Hi")
        with pytest.raises(StreamInterruptedError) as raised:
            async for _ in stream:
                pass
        assert raised.value.__traceback__ is not None  # the frames are still there
        await server.until_open(0)
        assert [chunk async for chunk in stream] == []
        assert (await call(client, "ask")).error is not None  # the circuit is open


@pytest.mark.row("N5", "N9")
@each_transport
@pytest.mark.parametrize("turns", range(1, 12))
@pytest.mark.parametrize("body", [None, b"{}"])
async def test_a_call_cancelled_while_it_closes_kept_connections_leaves_none_open(
    transport: str, turns: int, body: bytes | None, aftermath: Aftermath
) -> None:
    """The server has closed them all: whoever asks next replaces them."""
    gate, over, begun = asyncio.Event(), asyncio.Event(), 0

    async def script(connection: Connection) -> None:
        nonlocal begun
        await connection.read_request()
        begun += 1
        await gate.wait()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await over.wait()

    before = sockets()
    made = TRANSPORT_CLASSES[transport]()
    async with closing(made), RawServer(script) as server:

        async def post() -> None:
            await made.request(
                "POST", server.url, headers={}, body=body, timeout=Timeout(read=5), max_bytes=9
            )

        many = [asyncio.create_task(post()) for _ in range(8)]
        await eventually(lambda: begun == len(many))
        gate.set()
        await asyncio.gather(*many)
        over.set()
        await server.until_open(0)
        kept = held_by(made)  # so that it does not help that they are forgotten
        task = asyncio.create_task(post())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await server.until_open(0)
        await eventually(lambda: sockets() <= before + 2)  # the server's, and one that was made
    assert kept is not None


def held_by(transport: Any) -> list[Any]:
    """The connections that httpx2 has kept, by their public name; aiohttp's protocols or lines."""
    loop = asyncio.get_running_loop()
    if isinstance(transport, HttpxTransport):
        client: Any = transport._clients._kept[loop][0]
        connections: list[Any] = client._transport._pool.connections
        assert len(connections) == 8
        assert isinstance(client._transport._pool._close_connections, functools.partial)
        assert type(client._transport._pool._network_backend).__name__ == "_Network"
        return connections
    session: Any = transport._sessions._kept[loop][0]
    protocols = [protocol for kept in session._connector._conns.values() for protocol, _ in kept]
    lines = [line for kept in session._idle._lines.values() for line in kept]
    assert len(protocols) + len(lines) == 8
    return [*protocols, *lines]
