"""The OpenAI adapter on real sockets, over each transport."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aether.errors import (
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.llm.openai import OpenAIProvider
from aether.llm.contracts import CallContext, LLMRequest, Message, StreamChunk

REQUEST = LLMRequest([Message("user", "hi")])
USAGE = {"prompt_tokens": 9, "completion_tokens": 2}


def sse(*values: Any) -> bytes:
    lines = (value if isinstance(value, str) else json.dumps(value) for value in values)
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def delta(content: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"model": "told", "choices": [choice]}


WHOLE = sse(
    delta("Hé"), delta("llo 😀"), delta("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]"
)


class Server:
    """Speaks HTTP/1.1 on loopback; what it answers is told by `answer`."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        self.pieces: list[bytes] = []
        self.head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        self.end = "whole"
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        (length,) = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.head + b"transfer-encoding: chunked\r\n\r\n")
        for piece in self.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if self.end == "whole":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        if self.end == "hang":
            await reader.read()  # until the other side goes
        return False


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    made.url = f"http://{host}:{port}/v1"
    async with listening:
        yield made


@pytest.fixture(params=["aiohttp", "httpx"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    @asynccontextmanager
    async def connected(server: Server, **options: Any) -> AsyncIterator[OpenAIProvider]:
        made = OpenAIProvider(
            "sk-canary-0123456789", base_url=server.url, transport=request.param, **options
        )
        try:
            yield made
        finally:
            await made.aclose()

    return connected


async def read(stream: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


async def test_a_call_is_sent_and_answered(server: Server, connect: Callable[..., Any]) -> None:
    choice = {"index": 0, "message": {"content": "Héllo"}, "finish_reason": "stop"}
    server.head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: r1\r\n"
    server.pieces = [json.dumps({"choices": [choice], "usage": USAGE}).encode()]
    async with connect(server) as provider:
        response = await provider.complete(REQUEST)
    assert response.text == "Héllo"
    assert response.request_id == "r1"
    (sent,) = server.requests
    assert sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert sent.lower().count(b"sk-canary-0123456789") == 1


async def test_a_stream_in_pieces_of_one_byte_is_whole(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces = [bytes([byte]) for byte in WHOLE]
    async with connect(server) as provider:
        chunks = await read(provider.stream(REQUEST))
    assert [chunk.text for chunk in chunks] == ["Hé", "llo 😀", ""]
    assert chunks[-1].output_tokens == 2


async def test_the_connection_of_a_whole_stream_is_used_again(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces = [WHOLE]
    async with connect(server) as provider:
        for _ in range(3):
            await read(provider.stream(REQUEST))
    assert len(server.requests) == 3
    assert server.connections == 1


async def test_leaving_a_stream_closes_its_connection_at_once(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces, server.end = [sse(delta("Hé"))], "hang"
    context = CallContext()
    async with connect(server) as provider:
        gc.disable()
        try:
            stream = provider.stream(REQUEST.replace(context=context))
            assert (await anext(stream)).text == "Hé"
            await stream.aclose()
            await asyncio.wait_for(server.gone.wait(), timeout=5)
        finally:
            gc.enable()
    assert [entry.state for entry in context.entries] == ["estimated"]


async def test_a_cancelled_stream_closes_its_connection_at_once(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces, server.end = [sse(delta("Hé"))], "hang"
    async with connect(server) as provider:
        stream = provider.stream(REQUEST)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(server.gone.wait(), timeout=5)


async def test_a_stream_that_is_cut_off_keeps_what_came(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces, server.end = [sse(delta("Hé")), b"data: {"], "cut"
    async with connect(server) as provider:
        with pytest.raises(StreamInterruptedError) as caught:
            await read(provider.stream(REQUEST))
    assert isinstance(caught.value.__cause__, ProviderConnectionError)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hé"


async def test_a_stream_that_is_cut_off_after_its_reason_is_whole(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.pieces, server.end = [sse(delta("Hé", "stop"))], "cut"
    async with connect(server) as provider:
        chunks = await read(provider.stream(REQUEST))
    assert chunks[-1].finish_reason == "stop"


async def test_a_server_that_hangs_is_given_up(server: Server, connect: Callable[..., Any]) -> None:
    server.pieces, server.end = [], "hang"
    context = CallContext()
    async with connect(server, timeout=0.02) as provider:
        with pytest.raises(RequestTimeoutError) as caught:
            await read(provider.stream(REQUEST.replace(context=context)))
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-6-luna")
    assert [entry.state for entry in context.entries] == ["unknown"]


async def test_a_refused_stream_is_read_as_a_refusal(
    server: Server, connect: Callable[..., Any]
) -> None:
    server.head = (
        b"HTTP/1.1 429 Too Many\r\ncontent-type: text/event-stream\r\nretry-after-ms: 1500\r\n"
    )
    server.pieces = [b'{"error": {"message": "slow down"}}']
    async with connect(server) as provider:
        with pytest.raises(RateLimitError, match="slow down") as caught:
            await read(provider.stream(REQUEST))
    assert caught.value.retry_after == 1.5


async def test_a_port_that_nobody_listens_on_bills_nothing(
    server: Server, connect: Callable[..., Any], unused_tcp_port: int
) -> None:
    server.url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    context = CallContext()
    async with connect(server) as provider:
        with pytest.raises(ProviderConnectionError):
            await provider.complete(REQUEST.replace(context=context))
    assert [entry.state for entry in context.entries] == ["not_billed"]
