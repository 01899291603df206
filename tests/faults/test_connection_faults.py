"""Connections that cannot be made, or are not what they seem: names, TLS, redirects, proxies, the
clock; and connections that are kept, or that there are too many of.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from aether.errors import (
    ConfigurationError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import Timeout, Transport
from aether.testing import FaultServer, faults
from aether.testing._raw_server import Connection, RawServer
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    TRANSPORT_CLASSES,
    Came,
    Way,
    all_ways,
    both_ways,
    call,
    closing,
    each_protocol,
    each_transport,
    elsewhere,
    eventually,
    first_event,
    is_open,
    opened,
    opened_with,
    states,
)

PATIENCE = Timeout(connect=5, read=5, total=10)


@pytest.fixture(params=[AiohttpTransport, HttpxTransport])
def make_transport(request: pytest.FixtureRequest) -> Callable[..., Transport]:
    make: Callable[..., Transport] = request.param
    return make


def later(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the clock of the running loop on."""
    loop = asyncio.get_running_loop()
    then = loop.time
    monkeypatch.setattr(loop, "time", lambda: then() + seconds)


@pytest.mark.row("N1")
@each_protocol
@each_transport
@all_ways
async def test_a_port_that_nobody_listens_on_is_tried_again_and_bills_nothing(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with FaultServer() as gone:
        url = gone.base_url(protocol)
    config = elsewhere(protocol, url, aftermath, transport=transport)
    async with opened_with(aftermath, config, attempts=3, fails=True) as client:
        error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert (error.kind, error.attempts) == ("connect", 3)
        assert states(client) == ["not_billed"] * 3
        assert is_open(client)  # one failure, whatever the attempts


@pytest.mark.row("N2")
@each_protocol
@each_transport
@both_ways
async def test_a_name_without_an_address_is_tried_again_and_named(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", nowhere)
    config = elsewhere(protocol, "http://model.example/v1", aftermath, transport=transport)
    async with opened_with(aftermath, config, attempts=3) as client:
        error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert (error.kind, error.attempts) == ("dns", 3)
        assert "model.example" in str(error)
        assert states(client) == ["not_billed"] * 3
        aftermath.told(error)


@pytest.mark.row("N5")
@each_protocol
@each_transport
@all_ways
async def test_a_kept_connection_that_the_server_closed_is_replaced_before_anything_is_sent(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(*[faults.drop()] * 3) as server,
        opened(aftermath, server, protocol, transport, attempts=1) as client,
    ):
        for _ in range(4):
            assert (await call(client, way)).succeeded() == HELLO.text
        assert server.count == server.accepted == 4
        assert states(client) == ["exact"] * 4
        assert {entry.error for entry in client.usage.ledger} == {None}
        assert not is_open(client)


@pytest.mark.row("N5")
async def test_a_kept_connection_on_which_the_server_says_something_unasked_is_replaced(
    make_transport: Callable[..., Transport],
) -> None:
    """Some servers answer a request that was never made with a 408 when they have waited enough."""

    waited = asyncio.Event()

    async def script(connection: Connection) -> None:
        while await connection.read_request():
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await waited.wait()
            await connection.write(b"HTTP/1.1 408 Too late\r\nContent-Length: 0\r\n\r\n")
            waited.clear()

    async with closing(make_transport()) as transport, RawServer(script) as server:
        for _ in range(3):
            response = await transport.request(
                "POST", server.url, headers={}, body=b"{}", timeout=PATIENCE, max_bytes=100
            )
            assert response.body == b"ok"
            waited.set()
            while waited.is_set():  # noqa: ASYNC110 - until it is written, and no longer
                await asyncio.sleep(0)


@pytest.mark.row("N5")
async def test_of_many_kept_connections_that_were_closed_none_is_used(
    make_transport: Callable[..., Transport],
) -> None:
    gate, begun = asyncio.Event(), 0

    async def script(connection: Connection) -> None:
        nonlocal begun
        await connection.read_request()
        begun += 1
        await gate.wait()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with closing(make_transport()) as transport, RawServer(script) as server:

        async def post() -> bytes:
            response = await transport.request(
                "POST", server.url, headers={}, body=b"{}", timeout=PATIENCE, max_bytes=100
            )
            return response.body

        many = [asyncio.create_task(post()) for _ in range(10)]
        await eventually(lambda: begun == len(many))
        gate.set()
        assert await asyncio.gather(*many) == [b"ok"] * 10
        assert await post() == b"ok"
        assert server.accepted == 11


@pytest.mark.row("N5")
@each_protocol
@each_transport
@both_ways
async def test_what_was_sent_on_a_kept_connection_is_not_sent_again(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    """The server may have run it: that is for the retry to decide, and to count."""
    async with (
        FaultServer(HELLO, faults.close(billed=True)) as server,
        opened(aftermath, server, protocol, transport, attempts=1) as client,
    ):
        (await call(client, way)).succeeded()
        error = (await call(client, way)).failed()
        assert isinstance(error, ProviderConnectionError)
        assert (server.count, server.accepted) == (2, 1)
        assert states(client) == ["exact", "unknown"]


@pytest.mark.row("N5")
async def test_connections_that_are_alive_are_used_again(
    make_transport: Callable[..., Transport],
) -> None:
    async with closing(make_transport()) as transport, FaultServer() as server:
        for _ in range(5):
            await transport.request(
                "POST",
                f"{server.url}/messages",
                headers={},
                body=b"{}",
                timeout=PATIENCE,
                max_bytes=10_000,
            )
        assert (server.count, server.accepted) == (5, 1)


@pytest.mark.row("N17")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere(
    protocol: str, transport: str, way: Way, status: int, aftermath: Aftermath
) -> None:
    async with FaultServer() as other, FaultServer() as server:
        server.will(faults.redirect(other.base_url(protocol) + "/messages", status))
        async with opened(aftermath, server, protocol, transport, attempts=3) as client:
            error = (await call(client, way)).failed()
            assert isinstance(error, ProtocolError)
            assert error.status == status
            assert "base URL" in str(error)
            assert (server.count, other.count, other.accepted) == (1, 0, 0)


@pytest.mark.row("N18")
@each_protocol
@each_transport
@both_ways
async def test_more_calls_than_connections_wait_their_turn_and_none_is_lost(
    protocol: str,
    transport: str,
    way: Way,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = TRANSPORT_CLASSES[transport](max_connections=3)
    gate, most = asyncio.Event(), 0
    async with closing(limited), FaultServer() as server:

        async def held(_: object) -> str:
            nonlocal most
            most = max(most, server.open_connections)
            await gate.wait()
            return HELLO.text

        server.reply = held
        limits = Timeout(connect=5, read=None)
        async with opened(aftermath, server, protocol, limited, timeout=limits) as client:
            calls = [asyncio.create_task(call(client, way)) for _ in range(60)]
            await eventually(lambda: server.count == 3)
            later(6, monkeypatch)  # waiting for a turn is not connecting
            await asyncio.sleep(0.001)
            gate.set()
            async with asyncio.timeout(20):
                came = await asyncio.gather(*calls)
            assert {each.succeeded() for each in came} == {HELLO.text}
        assert server.count == 60
        assert most <= 3


@pytest.mark.row("N18")
@each_transport
async def test_who_waits_for_a_turn_does_so_no_longer_than_the_total_limit(
    transport: str, aftermath: Aftermath
) -> None:
    limited = TRANSPORT_CLASSES[transport](max_connections=1)
    limits = Timeout(read=5, total=0.02)
    async with closing(limited), FaultServer(faults.hang()) as server:
        config = server.config("anthropic", api_key=aftermath.key, transport=limited)
        hurried = server.config("openai", api_key=aftermath.key, transport=limited, timeout=limits)
        async with (
            opened_with(aftermath, config) as client,
            opened_with(aftermath, hurried) as other,
        ):
            holding = asyncio.create_task(call(client, "ask"))
            await server.until_hanging()
            error = (await call(other, "ask")).failed()
            assert isinstance(error, RequestTimeoutError)
            assert server.count == 1
            holding.cancel()
            await asyncio.wait([holding])


@pytest.mark.row("N18")
@each_transport
async def test_who_is_cancelled_takes_and_keeps_no_turn(
    transport: str, aftermath: Aftermath
) -> None:
    limited = TRANSPORT_CLASSES[transport](max_connections=1)
    async with closing(limited), FaultServer(faults.hang()) as server:
        config = server.config("openai", api_key=aftermath.key, transport=limited)
        async with opened_with(aftermath, config) as client:
            holding = asyncio.create_task(call(client, "stream"))
            await server.until_hanging()
            waiting = [asyncio.create_task(call(client, "ask")) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            holding.cancel()
            async with asyncio.timeout(10):
                came = await asyncio.gather(*waiting, holding, return_exceptions=True)
    texts = [each.text if isinstance(each, Came) else type(each) for each in came]
    assert texts == [asyncio.CancelledError, *[HELLO.text] * 2, asyncio.CancelledError]
    assert server.count == 3


@pytest.mark.row("N18")
@each_transport
async def test_a_process_out_of_files_is_told_what_helps(
    transport: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "connect", refused)
    config = elsewhere("openai", "http://127.0.0.1:9/v1", aftermath, transport=transport)
    async with opened_with(aftermath, config) as client:
        error = (await call(client, "ask")).failed()
        assert isinstance(error, ProviderConnectionError)
        assert error.kind == "connect"
        assert "max_connections" in str(error)
        assert states(client) == ["not_billed"]


@pytest.mark.row("N18")
@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3"])
def test_a_number_of_connections_that_is_none_is_refused(
    make_transport: Callable[..., Transport], number: Any
) -> None:
    with pytest.raises(ConfigurationError, match="max_connections"):
        make_transport(max_connections=number)


@pytest.mark.row("N19")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_jump_of_the_clock_on_the_wall_changes_no_call(
    protocol: str,
    transport: str,
    way: Way,
    jump: int,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = time.time

    def jumped(answer: Any, _: Any) -> Any:
        monkeypatch.setattr(time, "time", lambda: wall() + jump)
        return answer

    limits = Timeout(connect=1, read=1, total=2)
    async with (
        FaultServer([faults.Fault("jump", jumped)]) as server,
        opened(aftermath, server, protocol, transport, timeout=limits) as client,
    ):
        for _ in range(2):
            assert (await call(client, way)).succeeded() == HELLO.text
        assert abs(time.time() - wall()) > 3000
        assert client.usage.ledger[0].started_at.tzinfo is dt.UTC


@pytest.mark.row("N19")
@each_protocol
@each_transport
async def test_a_machine_that_slept_in_the_middle_of_a_stream_gives_it_up(
    protocol: str, transport: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = first_event(protocol, b"Hell") + 1
    async with (
        FaultServer(faults.cut(events=events, ending="hanging")) as server,
        opened(aftermath, server, protocol, transport, timeout=60) as client,
    ):
        stream = client.stream_text("Hi")
        assert await anext(stream) == "Hell"
        waiting = asyncio.ensure_future(anext(stream))
        await server.until_hanging()
        later(600, monkeypatch)
        with pytest.raises(StreamInterruptedError) as raised:
            await asyncio.wait_for(waiting, 5)
        assert raised.value.kind == "read"
        assert (await call(client, "ask")).error is not None  # the circuit is open
        await stream.aclose()
