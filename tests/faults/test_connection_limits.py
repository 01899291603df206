"""Answers without measure: bombs, endless heads and events, slow readers, comments for ever."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import pytest

from aether.errors import (
    ProtocolError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.http._decoding import decoded
from aether.extensions.http._wire import read_body
from aether.extensions.llm._event_stream import STALL_SECONDS, EventStream
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMRequest, Message, StreamChunk
from aether.testing import FaultServer, faults
from aether.testing._raw_server import Connection, RawServer
from aether.testing.faults import Answer
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    PROTOCOLS,
    Way,
    both_ways,
    call,
    each_protocol,
    each_transport,
    elsewhere,
    events_of,
    first_event,
    opened,
    opened_with,
)
from tests.faults.feeds import Feed, adapter_of

MEGABYTE = 1024 * 1024

BOMBS: Mapping[str, bytes] = {  # each is some 70 MB of spaces, and small as it is sent
    "gzip": gzip.compress(b" " * MEGABYTE) * 70,
    "deflate": zlib.compress(b" " * 17 * MEGABYTE),
    "br": b"\x1b" * 1000,
    "zstd": b"\x28\xb5\x2f\xfd" * 1000,
    "gzip, gzip": gzip.compress(gzip.compress(b" " * MEGABYTE)),
}


@pytest.mark.row("N15")
@each_protocol
@each_transport
@both_ways
async def test_an_answer_is_asked_for_without_a_coding(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer() as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        (await call(client, way)).succeeded()
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.row("N15")
@each_transport
@both_ways
@pytest.mark.parametrize(
    ("protocol", "coding"),
    [
        *(("anthropic", coding) for coding in BOMBS),
        *((protocol, "gzip") for protocol in PROTOCOLS if protocol != "anthropic"),
    ],
)
async def test_a_body_that_grows_without_measure_when_it_is_decoded_is_an_error(
    protocol: str, transport: str, way: Way, coding: str, aftermath: Aftermath
) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    async with (
        FaultServer(Answer([BOMBS[coding]], headers=headers)) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, ProtocolError)
        assert server.count == 1


@pytest.mark.row("N15")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_an_answer_in_a_coding_nobody_asked_for_is_read(
    protocol: str, transport: str, way: Way, coding: str, aftermath: Aftermath
) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    squeezed = [
        faults.edit(lambda pieces: [pack(b"".join(pieces))]),
        faults.headers(("content-encoding", coding)),
    ]
    async with (
        FaultServer(squeezed) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: Mapping[str, tuple[bytes, bytes]] = {
    "a header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 65536),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n" * 8000),
    "large headers": (b"HTTP/1.1 200 OK\r\n", (b"X-A: " + b"a" * 4000 + b"\r\n") * 16),
    "a header's name": (b"HTTP/1.1 200 OK\r\n", b"X" * 65536),
    "a status line": (b"HTTP/1.1 200 ", b"O" * 65536),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-T: a\r\n" * 8000),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX-T: ", b"a" * 65536),
    "headers before the head": (b"HTTP/1.1 103 Wait\r\n", b"X-A: a\r\n" * 8000),
    "noise": (b"", b"\0\1\2\3" * 20000),
}
UNBOUNDED: Mapping[str, tuple[bytes, bytes]] = {
    "a chunk's extension": (CHUNKED + b"2;", b"a" * 65536),
    "a chunk's size": (CHUNKED, b"0" * 65536),
    "blank lines": (b"", b"\r\n" * 20000),
    "early heads": (b"", b"HTTP/1.1 103 Wait\r\n\r\n" * 2000),
}
"""What one of the libraries reads without end, and throws away."""
ENOUGH = 12_000_000


@pytest.mark.row("N16")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("name", [*ENDLESS, *UNBOUNDED])
async def test_http_without_measure_is_an_error_and_is_not_kept(
    protocol: str, transport: str, way: Way, name: str, aftermath: Aftermath
) -> None:
    first, then = {**ENDLESS, **UNBOUNDED}[name]
    written = 0

    async def script(connection: Connection) -> None:
        nonlocal written
        await connection.read_request()
        await connection.write(first)
        for piece in repeat(then):
            if written > ENOUGH:
                break
            await connection.write(piece)
            written += len(piece)

    # The system's buffers hold megabytes: what is read is not told from what was written.
    limits = Timeout(connect=5, read=5, total=0.1 if name in UNBOUNDED else None)
    async with RawServer(script) as server:
        config = elsewhere(protocol, server.url, aftermath, transport=transport, timeout=limits)
        async with opened_with(aftermath, config, fails=True) as client:
            tracemalloc.start()
            try:
                error = (await call(client, way)).failed()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peak < 10 * MEGABYTE
    if name in ENDLESS:
        assert isinstance(error, ProtocolError)
        assert written < ENOUGH
    else:
        assert isinstance(error, ProtocolError | ProviderConnectionError | RequestTimeoutError)


@pytest.mark.row("N14")
@each_protocol
@each_transport
async def test_a_slow_reader_holds_the_server_back_and_little_is_kept_for_him(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    events, _ = events_of(protocol)
    place = first_event(protocol, b"Hell")
    large = events[place].replace(b"Hell", b"x" * 8000)

    def endless(_: object) -> Answer:
        pieces = chain(events[:place], repeat(large))
        return Answer(pieces, headers={"content-type": "text/event-stream"})

    async with (
        FaultServer(reply=endless) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        stream = client.stream_text("Hi")
        assert await anext(stream)
        tracemalloc.start()
        try:
            before = -1
            while before < server.served[0].bytes_written < 100 * MEGABYTE:
                before = server.served[0].bytes_written
                await asyncio.sleep(0.02)  # until the system's buffers are full
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await stream.aclose()
    assert server.served[0].bytes_written < 50 * MEGABYTE
    assert kept < MEGABYTE  # that of the server's own as well


@pytest.mark.row("S11")
@each_transport
@pytest.mark.parametrize(
    ("protocol", "piece"),
    [*((protocol, b"x" * 65536) for protocol in PROTOCOLS), ("openai", b"data: x\n" * 8192)],
    ids=[*PROTOCOLS, "lines"],
)
async def test_an_event_without_end_is_given_up_at_its_limit(
    protocol: str, transport: str, piece: bytes, aftermath: Aftermath
) -> None:
    pieces = [b"data: ", *[piece] * 800]
    answer = Answer(pieces, headers={"content-type": "text/event-stream"})
    async with (
        FaultServer(answer) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        error = (await call(client, "session stream")).failed()
        assert isinstance(error, ProtocolError)
        assert "larger than 16777216 bytes" in str(error)
        assert server.count == 1


@pytest.mark.row("S11")
@each_protocol
@each_transport
async def test_a_document_without_end_is_given_up_at_its_limit(
    protocol: str, transport: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aether.extensions.llm._http.MAX_DOCUMENT_BYTES", MEGABYTE)
    monkeypatch.setattr("aether.extensions.llm._event_stream.MAX_DOCUMENT_BYTES", MEGABYTE)
    for way in ("ask", "stream"):
        answer = Answer(repeat(b'{"a": "' + b"x" * 65536))
        async with (
            FaultServer(answer) as server,
            opened(aftermath, server, protocol, transport, attempts=3) as client,
        ):
            error = (await call(client, way)).failed()
            assert isinstance(error, ProtocolError)
            assert server.count == 1


class Pieces:
    """A body whose pieces come without waiting, and a clock that each of them puts on."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, pieces: Sequence[bytes], step: float = 0.0) -> None:
        self._pieces = pieces
        self._step = step
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self._pieces:
            self.now += self._step
            yield piece


@pytest.mark.row("S11", "N15")
@pytest.mark.parametrize(
    "piece",
    [b"data: {}\n\n", b": \n\n", b"\n", b"data: x", b"\r", b"data:\n"],
    ids=["events", "comments", "blank lines", "no end", "returns", "lines"],
)
async def test_the_rest_of_the_loop_has_its_turn_while_much_is_read(piece: bytes) -> None:
    """One piece of a body may be large, and many may be made of one that was compressed."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    body = Pieces([piece * (65536 // len(piece))] * 16)
    stream = EventStream(body, read_seconds=None, clock=body.clock)
    beside = asyncio.create_task(others())
    batches = stream.batches()
    async for _ in batches:
        pass
    beside.cancel()
    await asyncio.wait([beside])
    assert turns >= 60


@pytest.mark.row("N15")
async def test_the_rest_of_the_loop_has_its_turn_while_a_bomb_is_decoded() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    body = Pieces([BOMBS["gzip"]])
    beside = asyncio.create_task(others())
    with pytest.raises(ProtocolError):
        await read_body(
            decoded(body.chunks(), {"content-encoding": "gzip"}),
            max_bytes=20 * MEGABYTE,
            host="model.example",
        )
    beside.cancel()
    await asyncio.wait([beside])
    assert turns >= 300


@pytest.mark.row("N12")
@pytest.mark.parametrize("comment", [b": ping\n\n", b"\n", b"event: ping\n\n", b"retry: 5\n\n"])
async def test_a_stream_that_sends_nothing_but_comments_is_given_up(comment: bytes) -> None:
    body = Pieces([b'data: {"a": 1}\n\n', *[comment] * 1000], step=30.0)
    stream = EventStream(body, read_seconds=60.0, clock=body.clock)
    batches = stream.batches()
    assert len(await anext(batches)) == 1
    with pytest.raises(RequestTimeoutError) as raised:
        await anext(batches)
    assert raised.value.kind == "idle"
    assert STALL_SECONDS < body.now < STALL_SECONDS + 120
    await stream.aclose()


@pytest.mark.row("N12")
async def test_every_event_is_progress() -> None:
    body = Pieces([b": ping\n\n", b'data: {"a": 1}\n\n'] * 100, step=500.0)
    stream = EventStream(body, read_seconds=60.0, clock=body.clock)
    assert len([batch async for batch in stream.batches()]) == 100


@pytest.mark.row("N12")
@each_protocol
@pytest.mark.parametrize("begun", [True, False])
async def test_comments_for_ever_interrupt_a_stream_that_has_begun_and_else_are_tried_again(
    protocol: str, begun: bool
) -> None:
    events, _ = events_of(protocol)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    said = events[: first_event(protocol, b"Hell") + 1 if begun else 0]
    provider: Any = adapter_of(protocol, Feed([*said, *[b": ping\n\n"] * 1000]))
    provider._exchange._endpoint._clock = clock
    chunks: list[StreamChunk] = []

    async def read(stream: AsyncIterator[StreamChunk]) -> None:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - they outlive the error

    error = StreamInterruptedError if begun else RequestTimeoutError
    with pytest.raises(error) as raised:
        await read(provider.stream(LLMRequest([Message("user", "Hi")])))
    assert raised.value.kind == "idle"
    assert raised.value.retryable
    assert [chunk.text for chunk in chunks] == (["Hell"] if begun else [])
