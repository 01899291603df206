"""A client that knows nothing but sockets: it sends bytes, and keeps every byte that comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aether.testing import FaultServer
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
    Wire,
    WireRequest,
)

WIRES: dict[str, Wire] = {
    "openai": OpenAIChatWire(),
    "openai.responses": OpenAIResponsesWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
}

_PATHS = {
    "openai": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "anthropic": "/v1/messages",
}


@dataclass
class Answered:
    """An answer, taken apart."""

    status: int
    headers: list[tuple[str, str]]
    chunks: list[bytes]
    """Of a body that came in chunks, each as it was framed, one that was cut included."""
    ended: bool
    """Whether the last chunk came."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class PlainPeer:
    """One connection. What came is in `data`, and how it went on in `end`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.data = b""

    async def send(
        self, protocol: str = "openai", *, streaming: bool = True, path: str | None = None
    ) -> None:
        body, own_path = asked(protocol, streaming=streaming)
        head = f"POST {path or own_path} HTTP/1.1\r\nHost: x\r\nX-Case: Kept\r\n"
        await self.send_bytes(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def until_end(self) -> str:
        """All that comes, and then how the connection ends: `fin` or `rst`."""
        try:
            while piece := await self._reader.read(65536):
                self.data += piece
        except ConnectionResetError:
            return "rst"
        return "fin"

    async def pieces(self) -> list[bytes]:
        """Whatever is there at a time, until the end of an answer in chunks."""
        came: list[bytes] = []
        while not self.data.endswith(b"\r\n0\r\n\r\n"):
            came.append(await self._reader.read(65536))
            assert came[-1], f"the connection ended: {self.data!r}"
            self.data += came[-1]
        return came

    async def exactly(self, size: int) -> bytes:
        """Read on until so many bytes have come in all."""
        if size > len(self.data):
            self.data += await self._reader.readexactly(size - len(self.data))
        return self.data

    def leave(self) -> None:
        self._writer.close()


@asynccontextmanager
async def plain_peer(server: FaultServer) -> AsyncIterator[PlainPeer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    try:
        yield PlainPeer(reader, writer)
    finally:
        writer.transport.abort()


async def answered(server: FaultServer, protocol: str, *, streaming: bool) -> bytes:
    """The bytes of an answer that leaves the connection open, which a second request shows."""
    async with asyncio.timeout(30), plain_peer(server) as peer:
        await peer.send(protocol, streaming=streaming)
        await peer.pieces()
        first, peer.data = peer.data, b""
        await peer.send(protocol, streaming=streaming)
        await peer.pieces()
        return first


async def ended(server: FaultServer, protocol: str, *, streaming: bool) -> tuple[bytes, str]:
    """The bytes of an answer after which the connection is ended, and how: `fin` or `rst`."""
    async with asyncio.timeout(30), plain_peer(server) as peer:
        await peer.send(protocol, streaming=streaming)
        end = await peer.until_end()
        return peer.data, end


def asked(protocol: str, *, streaming: bool) -> tuple[bytes, str]:
    """Body and path of a request."""
    body: dict[str, Any] = {"messages": []}
    if protocol == "gemini":
        method = "streamGenerateContent?alt=sse" if streaming else "generateContent"
        return json.dumps(body).encode(), f"/v1beta/models/m:{method}"
    options = {"stream_options": {"include_usage": True}} if protocol == "openai" else {}
    return json.dumps({**body, "stream": streaming, **options}).encode(), _PATHS[protocol]


def request_of(protocol: str, *, streaming: bool) -> WireRequest:
    body, path = asked(protocol, streaming=streaming)
    return WireRequest("POST", path, {}, body)


def taken_apart(data: bytes) -> Answered:
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    version, status, *_ = first.split(" ")
    assert version == "HTTP/1.1"
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    answer = Answered(int(status), headers, [], ended=False)
    if ("transfer-encoding", "chunked") not in headers:
        answer.chunks = [rest]
        return answer
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            assert rest == b"\r\n"
            answer.ended = True
            return answer
        answer.chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) :].removeprefix(b"\r\n")
    return answer


def whole_pieces(full: bytes, size: int) -> int:
    """How many pieces of the body, each in its frame, are in the first so many bytes."""
    body = full.index(b"\r\n\r\n") + 4
    ends = [body]
    for chunk in taken_apart(full).chunks:
        ends.append(ends[-1] + len(b"%x\r\n%b\r\n" % (len(chunk), chunk)))
    return sum(end <= size for end in ends[1:])
