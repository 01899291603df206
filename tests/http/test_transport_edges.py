"""What the suite cannot ask of every transport: names, descriptors, clocks, loops of the past."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import pickle
import socket
import weakref
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest

from aether.errors import (
    ClientClosedError,
    InputError,
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
)
from aether.extensions.http._aiohttp_session import Session
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import HTTPResponse, HTTPStream, Timeout, Transport
from aether.testing._raw_server import Connection, RawServer

PATIENCE = Timeout(connect=5, read=5, total=10)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MEGABYTE = 1024 * 1024


@pytest.fixture(params=[AiohttpTransport, HttpxTransport])
def make_transport(request: pytest.FixtureRequest) -> Callable[[], Transport]:
    make: Callable[[], Transport] = request.param
    return make


@asynccontextmanager
async def opened(transport: Transport) -> AsyncIterator[Transport]:
    try:
        yield transport
    finally:
        await transport.aclose()


def always(answer: bytes, heads: list[bytes] | None = None) -> Callable[[Connection], Any]:
    async def script(connection: Connection) -> None:
        while request := await connection.read_request():
            if heads is not None:
                heads.append(request)
            await connection.write(answer)

    return script


async def get(transport: Transport, url: str, **options: Any) -> HTTPResponse:
    options = {"headers": {}, "timeout": PATIENCE, "max_bytes": MEGABYTE, **options}
    return await transport.request("GET", url, **options)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def test_an_upload_that_is_cancelled_is_not_finished_first(
    make_transport: Callable[[], Transport],
) -> None:
    connected, over = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        connected.set()
        await over.wait()  # and never reads

    async with opened(make_transport()) as transport, RawServer(script) as server:
        before = open_files()
        call = asyncio.ensure_future(
            transport.request(
                "POST",
                server.url,
                headers={},
                body=b"x" * (30 * MEGABYTE),
                timeout=PATIENCE,
                max_bytes=10,
            )
        )
        await connected.wait()
        await asyncio.sleep(0.02)  # until the buffers of the system are full
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: open_files() <= before + 1)  # the server's end
        over.set()


async def test_bodies_of_all_sizes_arrive_one_after_another(
    make_transport: Callable[[], Transport],
) -> None:
    requests: list[bytes] = []
    edge = 64 * 1024
    sizes = [1, 2, 0, edge - 1, edge, edge + 1, 3, MEGABYTE, MEGABYTE + 1, 4, None, 5]
    async with opened(make_transport()) as transport, RawServer(always(OK, requests)) as server:
        for size in sizes:
            await transport.request(
                "POST",
                server.url,
                headers={"content-type": "x/y"},
                body=None if size is None else b"x" * size,
                timeout=PATIENCE,
                max_bytes=10,
            )
        assert server.accepted == 1
    for size, request in zip(sizes, requests, strict=True):
        head, _, body = request.lower().partition(b"\r\n\r\n")
        assert body == b"x" * (size or 0)
        assert head.count(b"content-length: %d" % (size or 0)) == 1
        assert head.count(b"content-type: x/y") == 1


async def test_an_answer_before_the_request_was_read_ends_the_upload(
    make_transport: Callable[[], Transport],
) -> None:
    over = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await over.wait()

    async with opened(make_transport()) as transport, RawServer(script) as server:
        before = open_files()
        try:
            response = await transport.request(
                "POST",
                server.url,
                headers={},
                body=b"x" * (30 * MEGABYTE),
                timeout=Timeout(read=0.05),
                max_bytes=10,
            )
        except RequestTimeoutError:  # one that reads when it has written
            pass
        else:
            assert response.status == 413
        await eventually(lambda: open_files() <= before + 1)
        over.set()


def later(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the clock of the running loop on."""
    loop = asyncio.get_running_loop()
    then = loop.time
    monkeypatch.setattr(loop, "time", lambda: then() + seconds)


async def one_piece(connection: Connection) -> None:
    await connection.read_request()
    await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    await connection.wait_closed_by_peer()


async def test_the_total_limit_leaves_the_readers_own_work_alone(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Timeout(connect=None, read=None, total=100)
    async with (
        opened(make_transport()) as transport,
        RawServer(one_piece) as server,
        transport.stream("GET", server.url, headers={}, timeout=limits) as answer,
    ):
        pieces = aiter(answer.chunks())
        assert await anext(pieces) == b"one"
        later(101, monkeypatch)
        for _ in range(5):
            await asyncio.sleep(0)  # at work
        with pytest.raises(RequestTimeoutError) as raised:
            await anext(pieces)
    assert raised.value.kind == "total"


async def test_a_stream_may_be_read_in_other_tasks_than_it_was_opened_in(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Timeout(connect=None, read=None, total=100)

    async def next_piece() -> bytes:
        return await anext(pieces)

    async with opened(make_transport()) as transport, RawServer(one_piece) as server:
        context = transport.stream("GET", server.url, headers={}, timeout=limits)

        async def enter() -> HTTPStream:
            return await context.__aenter__()

        answer = await asyncio.create_task(enter())
        pieces = aiter(answer.chunks())
        assert await asyncio.create_task(next_piece()) == b"one"
        waiting = asyncio.create_task(next_piece())
        await asyncio.sleep(0)
        later(101, monkeypatch)
        with pytest.raises(RequestTimeoutError):
            await waiting
        await context.__aexit__(None, None, None)


async def test_a_read_after_one_that_was_given_up_is_not_the_end(
    make_transport: Callable[[], Transport],
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.wait_closed_by_peer()

    async with (
        opened(make_transport()) as transport,
        RawServer(script) as server,
        transport.stream(
            "GET", server.url, headers={}, timeout=Timeout(read=0.05, total=1)
        ) as answer,
    ):
        pieces = aiter(answer.chunks())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(pieces)
        with pytest.raises((ProviderConnectionError, RequestTimeoutError)):
            await anext(pieces)


async def test_a_dawdling_error_body_is_as_long_as_it_is(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aether.http.bodies.ERROR_BODY_MAX_SECONDS", 0.02)
    closed = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nsorry")
        await connection.wait_closed_by_peer()
        closed.set()

    async with opened(make_transport()) as transport, RawServer(script) as server:
        response = await get(transport, server.url)
        await asyncio.wait_for(closed.wait(), 5)
    assert (response.status, response.body) == (503, b"sorry")


async def test_a_name_without_an_address_is_told_from_a_server_that_is_away(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", nowhere)
    async with opened(make_transport()) as transport:
        for options in ({}, {"check_address": lambda *_: None}):
            with pytest.raises(ProviderConnectionError, match="nowhere") as raised:
                await get(transport, "http://nowhere.example/", **options)
            assert raised.value.kind == "dns"
            assert raised.value.retryable


@pytest.mark.parametrize("refusal", [ValueError("no"), PermissionError("no"), KeyError("no")])
async def test_what_a_check_raises_comes_out_as_it_is(
    make_transport: Callable[[], Transport], refusal: Exception
) -> None:
    def refuse(address: str, port: int) -> None:
        raise refusal

    async with opened(make_transport()) as transport, RawServer(always(OK)) as server:
        with pytest.raises(type(refusal)) as raised:
            await get(transport, server.url, check_address=refuse)
        assert raised.value is refusal
        assert server.accepted == 0


async def test_the_next_address_of_a_checked_name_is_tried(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asyncio.BaseEventLoop.getaddrinfo

    async def two(self: Any, host: Any, port: Any, **options: Any) -> Any:
        if host == "two.example":
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]
        return await real(self, host, port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", two)
    heads: list[bytes] = []
    asked: list[str] = []
    async with opened(make_transport()) as transport, RawServer(always(OK, heads)) as server:
        response = await get(
            transport,
            f"http://two.example:{server.port}/",
            check_address=lambda address, _: asked.append(address),
        )
    assert response.body == b"hello"
    assert set(asked) == {"127.0.0.1", "127.0.0.2"}
    assert b"host: two.example:" in heads[0].lower()


async def test_a_user_in_the_url_and_a_key_exclude_each_other(
    make_transport: Callable[[], Transport],
) -> None:
    heads: list[bytes] = []
    async with opened(make_transport()) as transport, RawServer(always(OK, heads)) as server:
        url = server.url.replace("//", "//user:pass@")
        with pytest.raises(InputError, match=r"127\.0\.0\.1") as raised:
            await get(transport, url, headers={"authorization": "Bearer k"})
        assert "pass" not in str(raised.value).replace("password", "")
        await get(transport, url)
    assert len(heads) == 1
    assert b"authorization: basic dxnlcjpwyxnz" in heads[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a b",
        "http://127.0.0.1:{port}/a\tb",
        "http://example.com\\@127.0.0.1:{port}/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
    ],
)
async def test_a_url_that_two_readers_would_read_differently_is_refused(
    make_transport: Callable[[], Transport], url: str
) -> None:
    async with opened(make_transport()) as transport, RawServer(always(OK)) as server:
        with pytest.raises(InputError):
            await get(transport, url.format(port=server.port))
        assert server.accepted == 0


async def test_a_refused_url_brings_no_foreign_error_along(
    make_transport: Callable[[], Transport],
) -> None:
    async with opened(make_transport()) as transport:
        with pytest.raises(InputError) as raised:
            await get(transport, f"http://user:password@{'ä' * 80}.example/")
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_loop_that_has_ended_is_forgotten(make_transport: Callable[[], Transport]) -> None:
    transport = make_transport()

    async def once() -> weakref.ref[asyncio.AbstractEventLoop]:
        async with RawServer(always(OK)) as server:
            await get(transport, server.url)
        return weakref.ref(asyncio.get_running_loop())

    ended = asyncio.run(once())
    gc.collect()
    assert ended() is None
    asyncio.run(transport.aclose())


async def test_a_transport_that_is_dropped_closes_its_connections(
    make_transport: Callable[[], Transport],
) -> None:
    async with RawServer(always(OK)) as server:
        gc.disable()
        try:
            await get(make_transport(), server.url)
            await server.until_open(0)
        finally:
            gc.enable()


async def test_a_call_under_way_when_the_transport_is_closed_ends(
    make_transport: Callable[[], Transport],
) -> None:
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        asked.set()
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server:
        transport = make_transport()
        call = asyncio.ensure_future(get(transport, server.url))
        await asked.wait()
        await transport.aclose()
        with pytest.raises((ProviderConnectionError, ClientClosedError), match="was closed"):
            await asyncio.wait_for(call, 5)


async def test_a_client_of_ones_own_is_used_and_left_open() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(307, headers={"location": "/b"}, content=b"moved")

    async with httpx2.AsyncClient(
        transport=httpx2.MockTransport(answer), headers={"x-mine": "1"}, follow_redirects=True
    ) as client:
        transport = HttpxTransport(client)
        response = await get(transport, "http://far.example/a", headers={"x-key": "k"})
        await transport.aclose()
        assert not client.is_closed
        with pytest.raises(ClientClosedError):
            await get(transport, "http://far.example/a")
    assert (response.status, response.body) == (307, b"moved")
    assert [request.headers["x-mine"] + request.headers["x-key"] for request in seen] == ["1k"]


async def test_deflated_and_many_membered_bodies_are_decoded(
    make_transport: Callable[[], Transport],
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    for coding, body in (
        (b"deflate", zlib.compress(b"hello world")),
        (b"GZIP", gzip.compress(b"hello ") + gzip.compress(b"world")),
    ):
        answer = head % (coding, len(body)) + body
        async with opened(make_transport()) as transport, RawServer(always(answer)) as server:
            assert (await get(transport, server.url)).body == b"hello world"


async def test_a_body_that_is_not_in_its_coding_is_a_protocol_error(
    make_transport: Callable[[], Transport],
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
    async with opened(make_transport()) as transport, RawServer(always(answer)) as server:
        with pytest.raises(ProtocolError):
            await get(transport, server.url)


async def test_the_total_limit_is_met_although_there_is_always_something_to_read(
    make_transport: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not over.is_set():
            await connection.write(b"10000\r\n%b\r\n" % (b"x" * 65536))

    limits = Timeout(connect=None, read=None, total=100)
    async with (
        opened(make_transport()) as transport,
        RawServer(script) as server,
        transport.stream("POST", server.url, headers={}, body=b"{}", timeout=limits) as answer,
    ):
        pieces = aiter(answer.chunks())
        await anext(pieces)
        later(101, monkeypatch)
        raised = None
        for _ in range(3):  # what had come is handed out first
            await asyncio.sleep(0.01)  # until more has come
            try:
                await anext(pieces)
            except RequestTimeoutError as error:
                raised = error
        over.set()
    assert raised is not None
    assert raised.kind == "total"


@pytest.mark.parametrize("size", [100, 100_000])  # written at once, and in a task
async def test_leaving_a_stream_ends_the_wait_of_who_reads_it_elsewhere(size: int) -> None:
    limits = Timeout(connect=None, read=None)

    async def next_piece() -> bytes:
        return await anext(pieces)

    async with opened(AiohttpTransport()) as transport, RawServer(one_piece) as server:
        async with transport.stream(
            "POST", server.url, headers={}, body=b"x" * size, timeout=limits
        ) as answer:
            pieces = aiter(answer.chunks())
            assert await anext(pieces) == b"one"
            waiting = asyncio.create_task(next_piece())
            await asyncio.sleep(0)
        with pytest.raises(ProviderConnectionError):
            await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("size", [100, 100_000])
async def test_what_a_left_stream_had_read_is_let_go_of_without_the_garbage_collector(
    size: int,
) -> None:
    def readers() -> int:
        return sum(type(it) is aiohttp.StreamReader for it in gc.get_objects())

    async def leave() -> None:
        async with transport.stream(
            "POST", server.url, headers={}, body=b"x" * size, timeout=PATIENCE
        ) as answer:
            assert await anext(aiter(answer.chunks())) == b"one"

    async with opened(AiohttpTransport()) as transport, RawServer(one_piece) as server:
        gc.collect()
        gc.disable()
        try:
            before = readers()
            for _ in range(3):
                await leave()
            await eventually(lambda: readers() <= before)
        finally:
            gc.enable()


async def test_what_a_checked_request_used_is_let_go_of_without_the_garbage_collector() -> None:
    def sessions() -> int:
        return sum(type(it) is Session for it in gc.get_objects())

    async with opened(AiohttpTransport()) as transport, RawServer(always(OK)) as server:
        await get(transport, server.url)  # the transport's own
        gc.collect()
        gc.disable()
        try:
            before = sessions()
            await get(transport, server.url, check_address=lambda *_: None)
            assert sessions() == before
        finally:
            gc.enable()


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones(
    make_transport: Callable[[], Transport],
) -> None:
    spoken = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(OK)
        if server.accepted == 1:
            await asyncio.sleep(0.005)  # until the connection is kept
            await connection.write(OK.replace(b"hello", b"wrong"))
            spoken.set()
        await connection.wait_closed_by_peer()

    async with opened(make_transport()) as transport, RawServer(script) as server:
        assert (await get(transport, server.url)).body == b"hello"
        await spoken.wait()
        await asyncio.sleep(0.005)  # until the loop has read it
        assert (await get(transport, server.url)).body == b"hello"
        assert server.accepted == 2


NO_LENGTH = b"HTTP/1.1 200 OK\r\n\r\nhello"


async def post(transport: Transport, url: str, size: int = 2) -> bytes:
    options: Any = {"headers": {}, "timeout": PATIENCE, "max_bytes": MEGABYTE}
    return (await transport.request("POST", url, body=b"x" * size, **options)).body


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_body_that_names_no_end_has_none_in_a_reset(
    size: int, make_transport: Callable[[], Transport]
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(NO_LENGTH)
        await asyncio.sleep(0.005)  # until it was read
        connection.reset()

    async with opened(make_transport()) as transport, RawServer(script) as server:
        with pytest.raises(ProviderConnectionError) as raised:
            await post(transport, server.url, size)
    assert raised.value.kind == "reset"


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_body_that_names_no_end_has_none_where_the_transport_is_closed(
    size: int, make_transport: Callable[[], Transport]
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(NO_LENGTH)
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server:
        transport = make_transport()
        call = asyncio.ensure_future(post(transport, server.url, size))
        await asyncio.sleep(0.01)
        await transport.aclose()
        with pytest.raises((ProviderConnectionError, ClientClosedError), match="was closed"):
            await asyncio.wait_for(call, 5)


@pytest.mark.parametrize("cut", [len(OK), 5, 1, 0])
@pytest.mark.parametrize("more", [OK.replace(b"hello", b"wrong"), b"HTTP/1.1 103 Early\r\n\r\n"])
async def test_an_answer_that_came_right_behind_another_is_not_the_next_ones(
    cut: int, more: bytes
) -> None:
    """In one piece with it, or with the end of its body."""

    async def script(connection: Connection) -> None:
        while await connection.read_request():
            if server.accepted == 1:
                await connection.write(OK[: len(OK) - cut])
                await asyncio.sleep(0.002)
                await connection.write(OK[len(OK) - cut :] + more)
            else:
                await connection.write(OK)

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        assert await post(transport, server.url) == b"hello"
        await asyncio.sleep(0.005)  # until the loop has read it all
        assert await post(transport, server.url) == b"hello"
        assert server.accepted == 2


async def test_small_and_large_requests_go_out_on_the_same_connection() -> None:
    requests: list[bytes] = []
    async with opened(AiohttpTransport()) as transport, RawServer(always(OK, requests)) as server:
        for size in (2, 100_000, 100_000, 0, 2, 2, 100_000, 2):
            assert await post(transport, server.url, size) == b"hello"
        assert (await get(transport, server.url)).body == b"hello"
        assert server.accepted == 1


@pytest.mark.parametrize("looks", [False, True])
async def test_a_connection_that_nobody_used_for_a_while_is_closed_and_not_used(
    looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(AiohttpTransport()) as transport, RawServer(always(OK)) as server:
        await post(transport, server.url)
        later(14, monkeypatch)
        await post(transport, server.url)
        assert server.accepted == 1
        later(16, monkeypatch)
        if looks:  # else the next request is quicker than the timer
            await server.until_open(0)
        await post(transport, server.url)
        assert server.accepted == 2
        await server.until_open(1)


async def test_of_several_connections_the_one_that_was_used_last_is_used_first() -> None:
    gate = asyncio.Event()
    asked_on: list[Connection] = []

    async def script(connection: Connection) -> None:
        while await connection.read_request():
            asked_on.append(connection)
            if len(asked_on) == 3:
                gate.set()
            await gate.wait()
            await connection.write(OK)

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        await asyncio.gather(*(post(transport, server.url) for _ in range(3)))
        for _ in range(3):
            await post(transport, server.url)
        assert server.accepted == 3
        assert len(set(asked_on[3:])) == 1
        await transport.aclose()
        await server.until_open(0)


async def test_what_was_read_of_an_answer_is_let_go_of_without_the_garbage_collector() -> None:
    def readers() -> int:
        return sum(type(it) is aiohttp.StreamReader for it in gc.get_objects())

    async with opened(AiohttpTransport()) as transport, RawServer(always(OK)) as server:
        gc.collect()
        gc.disable()
        try:
            before = readers()
            for _ in range(3):
                await post(transport, server.url)
            await asyncio.sleep(0)  # the step that it ended in had it in hand
            assert readers() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_chunked_coding_that_breaks_in_mid_body_is_no_http(size: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n")
        await asyncio.sleep(0.005)  # until it was read
        await connection.write(b"no length\r\n")
        await connection.wait_closed_by_peer()

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        with pytest.raises(ProtocolError) as raised:
            await post(transport, server.url, size)
    assert raised.value.kind == "http"


async def test_a_connection_that_changed_its_protocol_is_not_used_again() -> None:
    switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

    async def script(connection: Connection) -> None:
        while await connection.read_request():
            await connection.write(switched if server.accepted == 1 else OK)

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        assert await post(transport, server.url) == b""
        assert await post(transport, server.url) == b"hello"
        assert server.accepted == 2


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_body_that_names_no_end_ends_where_the_server_closes(
    size: int, make_transport: Callable[[], Transport]
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(NO_LENGTH)
        await asyncio.sleep(0.002)
        await connection.write(b" world")
        connection.close()

    async with opened(make_transport()) as transport, RawServer(script) as server:
        assert await post(transport, server.url, size) == b"hello world"


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("chunk", [1, 70_000])
async def test_a_reader_who_was_waited_for_gets_all_that_came_meanwhile(
    size: int, chunk: int
) -> None:
    """There is more than is read ahead: in bytes, or in chunks."""
    count = 2_000_000 // chunk if chunk > 1 else 100_000
    body = b"%x\r\n%b\r\n" % (chunk, b"x" * chunk) * count + b"0\r\n\r\n"

    async def script(connection: Connection) -> None:
        while await connection.read_request():
            await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        for _ in range(2):
            came = 0
            async with transport.stream(
                "POST", server.url, headers={}, body=b"x" * size, timeout=PATIENCE
            ) as answer:
                async for piece in answer.chunks():
                    came += len(piece)
                    await asyncio.sleep(0.002)
            assert came == chunk * count
        assert server.accepted == 1


@pytest.mark.parametrize("count", [16_384, 16_385, 16_386])
async def test_reading_goes_on_after_a_pause_that_began_with_the_last_chunk_that_had_come(
    count: int,
) -> None:
    """aiohttp pauses at so many chunks; its parser may do so at the next one only."""
    go_on = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        chunks = b"1\r\nx\r\n" * count
        await connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await go_on.wait()
        await connection.write(b"3\r\nend\r\n0\r\n\r\n")

    async with (
        opened(AiohttpTransport()) as transport,
        RawServer(script) as server,
        transport.stream(
            "POST", server.url, headers={}, body=b"x", timeout=Timeout(read=1)
        ) as answer,
    ):
        await asyncio.sleep(0.02)  # until all chunks have come
        came = b""
        async for piece in answer.chunks():
            came += piece
            if len(came) == count:
                go_on.set()
        assert came == b"x" * count + b"end"


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"This is no HTTP.\r\n\r\n", None])
async def test_a_request_that_failed_is_let_go_of_without_the_garbage_collector(
    size: int, answer: bytes | None
) -> None:
    def exchanges() -> int:
        return sum(type(it).__name__ == "_Exchange" for it in gc.get_objects())

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if answer is None:
            await connection.wait_closed_by_peer()
        else:
            await connection.write(answer)

    async def fail() -> None:
        with pytest.raises((ProviderConnectionError, ProtocolError, RequestTimeoutError)):
            await transport.request(
                "POST",
                server.url,
                headers={},
                body=b"x" * size,
                timeout=Timeout(read=0.02),
                max_bytes=MEGABYTE,
            )

    async with opened(AiohttpTransport()) as transport, RawServer(script) as server:
        gc.collect()
        gc.disable()
        try:
            before = exchanges()
            await fail()
            await asyncio.sleep(0.002)  # until the loop has closed the connection
            assert exchanges() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("turns", [1, 2, 4, 50])
async def test_closing_ends_a_request_wherever_it_is(
    make_transport: Callable[[], Transport], turns: int
) -> None:
    async def script(connection: Connection) -> None:
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server, opened(make_transport()) as transport:
        call = asyncio.ensure_future(get(transport, server.url, timeout=Timeout(read=None)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises((ProviderConnectionError, ClientClosedError), match="was closed"):
            await asyncio.wait_for(call, 5)
        await server.until_open(0)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("place", ["address", "handshake", "head", "body"])
async def test_closing_ends_a_request_that_waits_without_a_limit(
    make_transport: Callable[[], Transport],
    place: str,
    guarded: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = asyncio.Event()
    options: dict[str, Any] = {"timeout": Timeout(connect=None, read=None)}
    if guarded:
        options["check_address"] = lambda host, port: None

    async def look_up(*_: Any, **__: Any) -> None:
        waits.set()
        await asyncio.Event().wait()

    async def script(connection: Connection) -> None:
        if place in ("head", "body"):
            await connection.read_request()
        if place == "body":
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        waits.set()
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server, opened(make_transport()) as transport:
        url = server.url
        if place == "address":
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
            url = url.replace("127.0.0.1", "localhost")
        if place == "handshake":
            url = url.replace("http:", "https:")
        calls = [asyncio.ensure_future(get(transport, url, **options)) for _ in range(2)]
        await waits.wait()
        await asyncio.sleep(0.01)
        await transport.aclose()
        for call in calls:
            with pytest.raises(ProviderConnectionError, match="was closed"):
                await asyncio.wait_for(call, 5)


@pytest.mark.parametrize("guarded", [False, True])
async def test_closing_does_not_wait_for_an_upload_that_nobody_reads(
    make_transport: Callable[[], Transport], guarded: bool
) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that it is soon full
        server.bind(("127.0.0.1", 0))
        server.listen()  # and never accepts
        transport = make_transport()
        call = asyncio.ensure_future(
            transport.request(
                "POST",
                f"http://127.0.0.1:{server.getsockname()[1]}",
                headers={},
                body=b"x" * (30 * MEGABYTE),
                timeout=Timeout(connect=None, read=None),
                max_bytes=10,
                check_address=(lambda host, port: None) if guarded else None,
            )
        )
        await asyncio.sleep(0.02)
        await asyncio.wait_for(transport.aclose(), 5)
        with pytest.raises(ProviderConnectionError, match="was closed"):
            await asyncio.wait_for(call, 5)


@pytest.mark.parametrize("make", [AiohttpTransport, HttpxTransport])
async def test_closing_ends_a_request_that_waits_for_its_turn(
    make: Callable[..., Transport],
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        await connection.wait_closed_by_peer()

    limits = Timeout(connect=None, read=None)
    async with opened(make(max_connections=1)) as transport, RawServer(script) as server:
        async with transport.stream("GET", server.url, headers={}, timeout=limits):
            limited = Timeout(connect=None, read=None, total=60)
            calls = [
                asyncio.ensure_future(get(transport, server.url, timeout=each))
                for each in (limits, limited, limits)
            ]
            await asyncio.sleep(0.01)
            await transport.aclose()  # and the stream's reader does not look up
            for call in calls:
                with pytest.raises(ProviderConnectionError, match="was closed"):
                    await asyncio.wait_for(call, 5)
        assert server.accepted == 1


def test_a_request_ends_where_the_generators_of_its_loop_are_shut_down_under_it(
    make_transport: Callable[[], Transport],
) -> None:
    waits = asyncio.Event()

    async def script(connection: Connection) -> None:
        waits.set()
        await connection.wait_closed_by_peer()

    async def ask() -> None:
        async with RawServer(script) as server:
            url = server.url.replace("http:", "https:")
            await get(make_transport(), url, timeout=Timeout(connect=None, read=None))

    async def end(call: asyncio.Task[None]) -> None:
        with pytest.raises(ProviderConnectionError, match="was closed"):
            await asyncio.wait_for(call, 5)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        call = loop.create_task(ask())
        runner.run(waits.wait())
        runner.run(loop.shutdown_asyncgens())
        runner.run(end(call))


@pytest.mark.parametrize("end", ["cancelled", "closed", "late"])
async def test_a_handshake_that_ends_early_leaves_no_connection_to_the_garbage_collector(
    make_transport: Callable[[], Transport], end: str
) -> None:
    waits = asyncio.Event()

    async def script(connection: Connection) -> None:
        waits.set()
        await connection.wait_closed_by_peer()

    limits = Timeout(connect=None, read=None, total=0.02 if end == "late" else None)
    gc.collect()
    gc.disable()
    try:
        async with RawServer(script) as server, opened(make_transport()) as transport:
            url = server.url.replace("http:", "https:")
            call = asyncio.ensure_future(get(transport, url, timeout=limits))
            await waits.wait()
            if end == "closed":
                await transport.aclose()
            elif end == "cancelled":
                call.cancel()
            await asyncio.wait({call}, timeout=5)
            assert call.cancelled() or call.exception() is not None
            await asyncio.wait_for(server.until_open(0), 5)
    finally:
        gc.enable()


@pytest.mark.parametrize("guarded", [False, True])
async def test_who_is_cancelled_when_all_is_closed_is_cancelled(
    make_transport: Callable[[], Transport], guarded: bool
) -> None:
    options: dict[str, Any] = {"timeout": Timeout(connect=None, read=None)}
    if guarded:
        options["check_address"] = lambda host, port: None
    waits = asyncio.Event()

    async def script(connection: Connection) -> None:
        waits.set()
        await connection.wait_closed_by_peer()

    async with RawServer(script) as server, opened(make_transport()) as transport:
        url = server.url.replace("http:", "https:")
        call = asyncio.ensure_future(get(transport, url, **options))
        await waits.wait()
        closing = asyncio.ensure_future(transport.aclose())
        await asyncio.sleep(0)
        call.cancel()
        await closing
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)


async def test_a_pool_of_one_request_is_gone_with_it_without_the_garbage_collector(
    make_transport: Callable[[], Transport],
) -> None:
    kinds = {"AsyncConnectionPool", "TCPConnector", "Session", "AsyncClient"}

    def pools() -> int:
        return sum(type(it).__name__ in kinds for it in gc.get_objects())

    async with opened(make_transport()) as transport, RawServer(always(OK)) as server:
        await get(transport, server.url, check_address=lambda host, port: None)
        gc.collect()
        gc.disable()
        try:
            before = pools()
            await get(transport, server.url, check_address=lambda host, port: None)
            await asyncio.sleep(0.002)  # until the loop has closed the connection
            assert pools() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("failure", ["closed", "cut", "silent", "not allowed"])
async def test_an_exchange_that_failed_is_held_by_nothing_once_its_error_is(
    make_transport: Callable[[], Transport], failure: str
) -> None:
    def exchanges() -> int:
        return sum(type(it).__name__ == "_Exchange" for it in gc.get_objects())

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if failure != "closed":
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        if failure == "silent":
            await connection.wait_closed_by_peer()

    def refuse(host: str, port: int) -> None:
        raise InputError("not there")

    async def fail() -> None:
        with pytest.raises((ProviderConnectionError, RequestTimeoutError, InputError)):
            await get(
                transport,
                server.url,
                timeout=Timeout(read=0.02),
                check_address=refuse if failure == "not allowed" else None,
            )

    async with opened(make_transport()) as transport, RawServer(script) as server:
        await fail()
        gc.collect()
        gc.disable()
        try:
            before = exchanges()
            await fail()
            await asyncio.sleep(0.002)  # until the loop has closed the connection
            assert exchanges() == before
        finally:
            gc.enable()


async def test_who_reads_on_after_a_failure_is_told_of_one_also_when_all_is_closed(
    make_transport: Callable[[], Transport],
) -> None:
    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")

    async with opened(make_transport()) as transport, RawServer(script) as server:
        async with transport.stream("GET", server.url, headers={}, timeout=PATIENCE) as stream:
            pieces = stream.chunks()
            assert await anext(pieces) == b"hello"
            for _ in range(2):
                with pytest.raises(ProviderConnectionError):
                    await anext(pieces)
        with pytest.raises(ProviderConnectionError):
            await anext(pieces)


async def test_headers_are_those_of_a_dict_and_a_copy_is_one(
    make_transport: Callable[[], Transport],
) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Two: a\r\nContent-Length: 0\r\nx-two: \xc3\xa9\r\n\r\n"
    expected = {"x-two": "a, \u00e9", "content-length": "0"}
    async with RawServer(always(head)) as server, opened(make_transport()) as transport:
        answer = await transport.request(
            "GET", server.url, headers={}, timeout=PATIENCE, max_bytes=9
        )
    headers = answer.headers
    assert headers == expected
    assert expected == headers
    assert dict(headers) == {**headers} == dict(headers.items()) == expected
    assert (len(headers), repr(headers)) == (2, repr(expected))
    assert headers.get("x-two") == headers["x-two"] == expected["x-two"]
    assert "x-two" in headers
    absent: tuple[Any, ...] = ("X-Two", "x-three", None, 1, b"x-two")
    for name in absent:
        assert name not in headers
        assert headers.get(name) is None
    for copied in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert copied == answer
        assert type(copied.headers) is dict
