"""A transport without a network: it answers from a script and notes what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aether.http.contracts import AddressCheck, HTTPResponse, Timeout

Piece = bytes | BaseException | asyncio.Event


@dataclass
class Answer:
    """What is answered to one request.

    A piece that is an exception is raised in its place; one that is an event is waited for.
    """

    pieces: Iterable[Piece] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Call:
    url: str
    headers: dict[str, str]
    body: Any
    timeout: Timeout


class ScriptedTransport:
    """Plays `script` in order; an exception in it is raised instead of an answer."""

    def __init__(self) -> None:
        self.script: list[Answer | BaseException] = []
        self.calls: list[Call] = []
        self.open_streams = 0
        self.open_bodies = 0
        self.bodies_read = 0
        self.closed = 0

    def answers(self, *pieces: Piece, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.script.append(Answer(pieces, status, named))

    def answers_json(self, value: object, *, status: int = 200, **headers: str) -> None:
        self.answers(json.dumps(value).encode(), status=status, **headers)

    def fails(self, error: BaseException) -> None:
        self.script.append(error)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        max_bytes: int,
        check_address: AddressCheck | None = None,
    ) -> HTTPResponse:
        answer = self._next(url, headers, body, timeout)
        body_pieces = [piece async for piece in ScriptedStream(answer, self).chunks()]
        return HTTPResponse(answer.status, answer.headers, b"".join(body_pieces))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: Timeout,
        check_address: AddressCheck | None = None,
    ) -> AsyncIterator[ScriptedStream]:
        answer = self._next(url, headers, body, timeout)
        self.open_streams += 1
        try:
            yield ScriptedStream(answer, self)
        finally:
            self.open_streams -= 1

    async def aclose(self) -> None:
        self.closed += 1

    def _next(
        self, url: str, headers: Mapping[str, str], body: bytes | None, timeout: Timeout
    ) -> Answer:
        self.calls.append(Call(url, dict(headers), json.loads(body or b"null"), timeout))
        item = self.script.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item


class ScriptedStream:
    def __init__(self, answer: Answer, transport: ScriptedTransport) -> None:
        self._transport = transport
        self.status = answer.status
        self.headers = answer.headers
        self._pieces = answer.pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        self._transport.open_bodies += 1
        try:
            for piece in self._pieces:
                if isinstance(piece, BaseException):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
            self._transport.bodies_read += 1
        finally:
            self._transport.open_bodies -= 1


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()
