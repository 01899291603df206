"""Servers behind the port of transports: the answers of `aether.testing.faults` in virtual time.

A server writes ahead of its reader, as a socket's buffer lets it: what was written by the time of a
read comes in one piece, and is billed, read or not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aether.errors import AetherError, ProtocolError, ProviderConnectionError, RequestTimeoutError
from aether.http.bodies import read_error_body
from aether.http.contracts import HTTPResponse, HTTPStream, Timeout
from aether.testing.faults import Answer, Fault, Reply, Served, Situation, WireRequest
from aether.testing.faults.protocols import written
from aether.testing.wires import Wire

CALL_HEADER = "x-call"
"""Which call of the stack a request belongs to: the tap at the adapter writes it."""


@dataclass
class Plan:
    """What is to become of one request."""

    reply: Reply
    faults: list[Fault] = field(default_factory=list)
    unreachable: Callable[[], AetherError] | None = None
    """The error of a connection that is never made."""
    latency: float = 0.0
    """Seconds until it is there; half of it goes by before the server has it."""
    retry_after: float = 0.0
    """The seconds that a refusal names, however it spells them."""
    retryable: bool | None = None
    """Whether a refusal is one that may be tried again; `None` where that is not for it to say."""
    gulp: int = 1
    """So many writes come at once where the server does not pause between them."""


@dataclass
class Exchange:
    """One request as it went, for those who judge afterwards."""

    body: bytes
    plan: Plan
    served: Served | None = None
    """`None` if it never reached the server."""
    open: bool = True
    """Whether it holds a connection."""


class _Request(WireRequest):
    """It is asked often what it says, and read once."""

    @cached_property
    def json(self) -> dict[str, Any]:
        return super().json


class Network:
    """A `Transport` to one server that speaks `wire`. `begin` says what becomes of a request, and
    is told of which call it is.
    """

    def __init__(self, wire: Wire, begin: Callable[[WireRequest, str], Exchange]) -> None:
        self._wire = wire
        self._begin = begin

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        max_bytes: int,
        check_address: object = None,
    ) -> HTTPResponse:
        sending = self.stream(method, url, headers=headers, body=body, timeout=timeout)
        async with sending as answer:
            pieces = answer.chunks()
            if answer.status >= 400:
                return HTTPResponse(answer.status, answer.headers, await read_error_body(pieces))
            whole = b"".join([piece async for piece in pieces])
            return HTTPResponse(answer.status, answer.headers, whole)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        check_address: object = None,
    ) -> AsyncGenerator[HTTPStream, None]:
        path = "/" + url.split("/", 3)[3]
        request = _Request(method, path, headers, body or b"")
        exchange = self._begin(request, headers[CALL_HEADER])
        writing: _Writing | None = None
        try:
            plan = exchange.plan
            await asyncio.sleep(plan.latency / 2)
            if plan.unreachable is not None:
                raise plan.unreachable()
            exchange.served = Served(request)
            writing = _Writing(self._wire, plan, exchange.served, timeout.read)
            await asyncio.sleep(plan.latency / 2)
            status, head = await writing.head()
            yield _Body(status, head, writing)
        finally:
            exchange.open = False
            if writing is not None:
                writing.leave()

    async def aclose(self) -> None:
        return


class _Writing:
    """A server that writes its answer, and what of it the reader has got."""

    def __init__(self, wire: Wire, plan: Plan, served: Served, patience: float | None) -> None:
        answer, settled = written(wire, plan.reply, served.request)
        situation = Situation(wire, served.request, plan.reply, settled)
        for fault in plan.faults:
            answer = fault.change(answer, situation)
        served.faults = tuple(fault.name for fault in plan.faults)
        self._streamed: Situation | None = None
        """Of an answer that is billed as it is written."""
        if all(fault.billed for fault in plan.faults):
            self._streamed = situation if situation.streaming else None
            served.bill(plan.reply, share=0.0 if self._streamed else 1.0)
        self._answer = answer
        self._served = served
        self._patience = patience
        self._gulp = plan.gulp
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + answer.delay
        self._writes = answer.writes()
        self._next = next(self._writes, None)
        self._framing = _Framing(answer)

    async def head(self) -> tuple[int, dict[str, str]]:
        while self._framing.head is None:
            await self._read()
        return self._framing.head

    async def body(self) -> AsyncIterator[bytes]:
        while True:
            while self._framing.ready:
                yield self._framing.ready.popleft()
            if self._framing.ended:
                return
            await self._read()

    def leave(self) -> None:
        """The reader has closed the connection. What was due by now was written before."""
        while self._next is not None and self._due <= self._loop.time():
            self._write()
        if self._served.outcome == "pending":
            whole = self._next is None and not self._answer.is_cut
            self._served.outcome = "whole" if whole else "cut" if self._next is None else "left"

    async def _read(self) -> None:
        """Wait until something comes."""
        if self._next is None:
            await self._read_ending()
            return
        wait = self._due - self._loop.time()
        if self._patience is not None and wait > self._patience:
            await self._time_out()
        await asyncio.sleep(max(0.0, wait))
        self._framing.feed(self._write())
        for _ in range(self._gulp - 1):
            if self._next is not None and self._due <= self._loop.time():
                self._framing.feed(self._write())

    async def _read_ending(self) -> None:
        if self._answer.ending == "hanging":
            await self._time_out()
        await asyncio.sleep(0)
        self._framing.end(reset=self._answer.ending == "reset")

    async def _time_out(self) -> None:
        await asyncio.sleep(1e9 if self._patience is None else self._patience)
        raise RequestTimeoutError("The server sent nothing for too long.", kind="read")

    def _write(self) -> bytes:
        """Write what is next, and bill it."""
        assert self._next is not None
        data, pieces, out = self._next
        answer, served, streamed = self._answer, self._served, self._streamed
        if answer.raw is None:
            served.status = answer.status
        served.bytes_written += len(data)
        served.pieces = pieces
        if streamed is not None:
            said = out if answer.model_pieces is None else min(out, answer.model_pieces)
            served.bill(streamed.reply, share=said / streamed.settled)
        self._next = next(self._writes, None)
        self._due = max(self._due, self._loop.time()) + answer.pause
        return data


class _Framing:
    """The head and the pieces of a body, taken out of the bytes on the wire."""

    def __init__(self, answer: Answer) -> None:
        self.head: tuple[int, dict[str, str]] | None = None
        self.ready: deque[bytes] = deque()
        self.ended = False
        self._framing = answer.framing
        self._waiting = b""
        self._left = 0
        """Bytes of the body, or of its chunk, that are to come."""

    def feed(self, data: bytes) -> None:
        self._waiting += data
        if self.head is None:
            head, end, rest = self._waiting.partition(b"\r\n\r\n")
            if not end:
                return
            self._waiting = rest
            self.head = _parsed(head)
            self._left = int(self.head[1].get("content-length", 0))
        if self._framing == "chunked":
            self._feed_chunks()
        else:
            piece = self._waiting if self._framing == "close" else self._waiting[: self._left]
            if piece:
                self.ready.append(piece)
            self._waiting = b""
            self._left -= len(piece)
            self.ended = self._framing == "length" and self._left == 0

    def end(self, *, reset: bool) -> None:
        """The connection is closed. That is the end of a body that has no other."""
        if self.head is not None and self._framing == "close" and not reset:
            self.ended = True
        else:
            raise ProviderConnectionError("The connection broke.", kind="reset")

    def _feed_chunks(self) -> None:
        while self._waiting:
            if self._left <= 2:  # of the last chunk nothing but its line's end is to come
                if len(self._waiting) < self._left:
                    return
                size, end, rest = self._waiting[self._left :].partition(b"\r\n")
                if not end:
                    return
                self._left = int(size, 16) + 2
                self._waiting = rest
                if self._left == 2:
                    self.ended = True
                    return
            piece = self._waiting[: self._left - 2]
            if not piece:
                return
            self.ready.append(piece)
            self._waiting = self._waiting[len(piece) :]
            self._left -= len(piece)


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if words[0] != "HTTP/1.1" or len(words) < 2 or not words[1].isdigit():
        raise ProtocolError("The server answered with something that is not HTTP.", kind="http")
    pairs = [line.partition(":") for line in lines]
    return int(words[1]), {name.lower(): value.strip() for name, _, value in pairs}


class _Body:
    def __init__(self, status: int, headers: dict[str, str], writing: _Writing) -> None:
        self.status = status
        self.headers = headers
        self._writing = writing

    def chunks(self) -> AsyncIterator[bytes]:
        return self._writing.body()
