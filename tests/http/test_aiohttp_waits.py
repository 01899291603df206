"""The limit between two pieces, which one timer keeps for all that wait in a loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from aether.errors import RequestTimeoutError
from aether.extensions.http._aiohttp_line import Patience
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.http.contracts import Timeout, Transport
from aether.testing._raw_server import Connection, RawServer

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = AiohttpTransport()
    yield made
    await made.aclose()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    async def put_on(seconds: float) -> None:
        """Put the clock of the running loop on, once all wait, and let it see."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        then = loop.time
        monkeypatch.setattr(loop, "time", lambda: then() + seconds)
        await asyncio.sleep(0.001)

    return put_on


class Feed:
    """A server whose answer brings a piece when it is told to, after those of its head."""

    def __init__(self, *head: bytes) -> None:
        self._head = head
        self._told: asyncio.Queue[None] = asyncio.Queue()
        self.server = RawServer(self._serve)

    def bring(self) -> None:
        self._told.put_nowait(None)

    async def _serve(self, connection: Connection) -> None:
        await connection.read_request()
        for part in self._head:
            await self._told.get()
            await connection.write(part)
        if not self._head:
            await connection.write(HEAD)
        while True:
            await self._told.get()
            await connection.write(b"1\r\nx\r\n")


@asynccontextmanager
async def reading(
    transport: Transport, server: RawServer, seconds: float | None, *, size: int = 2
) -> AsyncIterator[Callable[[], asyncio.Task[bytes]]]:
    """Opens a stream. What is made begins to wait for the next piece."""
    limits = Timeout(connect=None, read=seconds)
    body = b"x" * size
    async with transport.stream("POST", server.url, headers={}, body=body, timeout=limits) as it:
        pieces = aiter(it.chunks())

        async def read() -> bytes:
            return await anext(pieces)

        yield lambda: asyncio.create_task(read())


async def failed(waiting: asyncio.Task[bytes]) -> None:
    with pytest.raises(RequestTimeoutError) as raised:
        await waiting
    assert raised.value.kind == "read"


async def test_a_stream_that_goes_on_in_time_may_last_longer_than_the_limit(
    transport: Transport, later: Callable[[float], Awaitable[None]]
) -> None:
    feed = Feed()
    async with feed.server as server, reading(transport, server, 100) as read:
        for _ in range(4):
            waiting = read()
            await later(60)
            assert not waiting.done()
            feed.bring()
            assert await waiting == b"x"
        waiting = read()
        await later(101)
        await failed(waiting)


@pytest.mark.parametrize("size", [1000, 100_000])  # written at once, and in a task
async def test_an_answer_that_begins_in_parts_is_waited_for_as_long_as_they_come(
    size: int, transport: Transport, later: Callable[[float], Awaitable[None]]
) -> None:
    feed = Feed(b"HTTP/1.1 100 Continue\r\n\r\n", *(HEAD[n : n + 9] for n in range(0, 54, 9)), b"1")
    limits = Timeout(connect=None, read=100)

    async def ask() -> None:
        async with transport.stream(
            "POST", feed.server.url, headers={}, body=b"x" * size, timeout=limits
        ) as answer:
            await anext(aiter(answer.chunks()))

    async with feed.server:
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        for _ in range(8):
            feed.bring()
            await later(60)
            assert not waiting.done()
        await later(101)
        with pytest.raises(RequestTimeoutError) as raised:
            await waiting
    assert raised.value.kind == "read"


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_the_time_that_a_reader_takes_is_not_the_servers(
    size: int, transport: Transport, later: Callable[[float], Awaitable[None]]
) -> None:
    feed = Feed()
    async with feed.server as server, reading(transport, server, 100, size=size) as read:
        feed.bring()
        assert await read() == b"x"
        await later(150)
        waiting = read()
        await later(60)
        assert not waiting.done()
        feed.bring()
        assert await waiting == b"x"


async def test_each_waits_for_as_long_as_its_own_limit(
    transport: Transport, later: Callable[[float], Awaitable[None]]
) -> None:
    async with (
        Feed().server as server,
        reading(transport, server, 1000) as long,
        reading(transport, server, 10) as short,
        reading(transport, server, None) as endless,
        reading(transport, server, 1000) as longer,
    ):
        first, second, third = long(), short(), endless()
        await later(11)
        await failed(second)
        last = longer()
        await later(990)
        await failed(first)
        assert not last.done()
        await later(11)
        await failed(last)
        assert not third.done()
        third.cancel()


async def test_a_wait_that_was_given_up_is_over(
    transport: Transport, later: Callable[[float], Awaitable[None]]
) -> None:
    feed = Feed()
    async with feed.server as server, reading(transport, server, 100) as read:
        waiting = read()
        await later(60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await later(60)
        feed.bring()
        assert await read() == b"x"


class Clockwork:
    """What `Patience` needs of a loop, with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rings = 0
        self._timer: tuple[float, Any] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, ring: Any, *arguments: Any) -> Any:
        self._timer = when, lambda: ring(*arguments)
        return SimpleNamespace(when=lambda: when, cancel=lambda: None)

    def turn(self) -> None:
        while self._timer is not None:
            (self.now, ring), self._timer = self._timer, None
            self.rings += 1
            ring()


class Met:
    def __init__(self, clockwork: Clockwork, seconds: float) -> None:
        self._clockwork = clockwork
        self._seconds = seconds
        self.late: float | None = None

    def set_exception(self, _: BaseException, /) -> None:
        self.late = self._clockwork.now - self._seconds


def test_many_limits_that_are_met_apart_take_few_looks_and_none_is_met_early() -> None:
    clockwork = Clockwork()
    patience = Patience(clockwork)  # type: ignore[arg-type]
    line: Any = SimpleNamespace(heard_at=-math.inf)
    waits = [Met(clockwork, number / 1000) for number in range(1, 1001)]
    for number, waiting in enumerate(waits, 1):
        patience.begin(waiting, line, number / 1000)
    clockwork.turn()
    assert all(waiting.late is not None and 0 <= waiting.late <= 0.011 for waiting in waits)
    assert clockwork.rings <= 102
