"""Streams that the facade hands out: what they yield, and that they let go of what they hold."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from aether import Aether, AetherError
from aether.errors import ClientClosedError, StreamInterruptedError
from aether.events import STREAM_COMPLETE, STREAM_ERROR, STREAM_START, Event
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.llm.streaming import final_chunk
from aether.testing import FakeProvider


class Tap:
    """Streams letters until it is closed; knows whether it is open, and what it was asked."""

    default_model = "tap"

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    @property
    def open(self) -> int:
        return self.opened - self.closed

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self.opened += 1
        try:
            while True:
                yield StreamChunk(text="x")
                await asyncio.sleep(0)
        finally:
            self.closed += 1


class NoStream:
    default_model = "whole"

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return LLMResponse(text="all at once", model="whole", output_tokens=3, finish_reason="stop")


def endings(client: Aether) -> list[Event]:
    seen: list[Event] = []
    client.on(STREAM_COMPLETE)(seen.append)
    client.on(STREAM_ERROR)(seen.append)
    return seen


async def a_few_turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


# --- what they yield --------------------------------------------------------------------------


async def test_stream_text_yields_deltas_that_join_to_the_text() -> None:
    deltas = [text async for text in Aether(FakeProvider("Hello, world")).stream_text("hi")]
    assert "".join(deltas) == "Hello, world"
    assert len(deltas) > 1
    assert all(isinstance(text, str) and text for text in deltas)


async def test_stream_yields_chunks_of_which_the_last_alone_is_final() -> None:
    chunks = [chunk async for chunk in Aether(FakeProvider("Hello, world")).stream("hi")]
    assert "".join(chunk.text for chunk in chunks) == "Hello, world"
    *before, last = chunks
    for name in (
        "finish_reason",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "tool_calls",
        "response",
    ):
        assert [getattr(chunk, name) for chunk in before] == [None] * len(before)
    assert last.response is not None
    assert (last.finish_reason, last.input_tokens, last.output_tokens) == ("stop", 1, 3)
    assert last.response.text == "Hello, world"


async def test_answer_of_a_provider_without_stream_comes_as_one_chunk() -> None:
    client = Aether(NoStream())
    chunks = [chunk async for chunk in client.stream("hi")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["all at once"]
    assert chunks[-1].response is not None
    assert chunks[-1].output_tokens == 3
    assert [text async for text in client.stream_text("hi")] == ["all at once"]


async def test_logical_stream_has_one_final_chunk_with_the_usage_of_all_turns() -> None:
    def ping() -> str:
        """Answer."""
        return "pong"

    turns = [
        LLMResponse(
            text="one ",
            model="m",
            input_tokens=10,
            output_tokens=1,
            tool_calls=[ToolCall("1", "ping", {})],
            finish_reason="tool_calls",
        ),
        LLMResponse(
            text="two", model="m", input_tokens=20, output_tokens=2, finish_reason="length"
        ),
    ]
    client = Aether(FakeProvider(responses=turns))
    chunks = [chunk async for chunk in client.stream("hi", tools=[ping])]
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    last = chunks[-1]
    assert (last.input_tokens, last.output_tokens, last.finish_reason) == (30, 3, "length")
    assert last.response == turns[1]


async def test_stream_without_its_final_chunk_is_an_error_and_never_a_success() -> None:
    class Cut(NoStream):
        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk(text="half")

    client = Aether(Cut())
    seen = endings(client)
    with pytest.raises(StreamInterruptedError) as raised:
        async for _ in client.stream("hi"):
            pass
    assert raised.value.partial is not None
    assert raised.value.partial.text == "half"
    assert [event.name for event in seen] == [STREAM_ERROR]
    assert not seen[0].cancelled


async def test_coroutine_that_returns_an_iterator_serves_as_stream_too() -> None:
    class Late(NoStream):
        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            return self._chunks()

        async def _chunks(self) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk(text="late")
            yield final_chunk(LLMResponse(text="late", model="m"))

    provider: Any = Late()
    assert [text async for text in Aether(provider).stream_text("hi")] == ["late"]


async def test_nothing_is_asked_before_the_first_item_is_read() -> None:
    tap = Tap()
    stream = Aether(tap).stream("hi")
    await a_few_turns_of_the_loop()
    assert tap.opened == 0
    await stream.aclose()
    assert tap.opened == 0


async def test_stream_of_a_closed_client_is_refused_when_it_is_asked_for() -> None:
    client = Aether(FakeProvider())
    await client.aclose()
    with pytest.raises(ClientClosedError):
        client.stream("hi")
    with pytest.raises(ClientClosedError):
        client.stream_text("hi")


# --- that they let go -------------------------------------------------------------------------

Open = Callable[[Aether], Any]
WAYS: list[Open] = [
    lambda client: client.stream("hi"),
    lambda client: client.stream_text("hi"),
    lambda client: client.session("s").stream("hi"),
    lambda client: client.session("s").stream_text("hi"),
]
ways = pytest.mark.parametrize(
    "open_stream", WAYS, ids=["stream", "text", "session", "session-text"]
)


@ways
@pytest.mark.usefixtures("no_collector")
async def test_end_of_its_async_with_closes_it_at_once(open_stream: Open) -> None:
    tap = Tap()
    client = Aether(tap)
    seen = endings(client)
    async with open_stream(client) as stream:
        async for _ in stream:
            break
        assert tap.open == 1
    assert tap.open == 0
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]


@ways
@pytest.mark.usefixtures("no_collector")
async def test_aclose_closes_it_at_once_and_twice_is_fine(open_stream: Open) -> None:
    tap = Tap()
    client = Aether(tap)
    seen = endings(client)
    stream = open_stream(client)
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert (tap.opened, tap.open) == (1, 0)
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@ways
@pytest.mark.usefixtures("no_collector")
async def test_it_is_closed_when_its_last_reference_goes(open_stream: Open) -> None:
    tap = Tap()
    client = Aether(tap)
    seen = endings(client)
    async for _ in open_stream(client):
        break
    await a_few_turns_of_the_loop()
    assert (tap.opened, tap.open) == (1, 0)
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]


@ways
@pytest.mark.usefixtures("no_collector")
async def test_it_is_closed_when_its_reader_dies_of_an_exception(open_stream: Open) -> None:
    tap = Tap()
    client = Aether(tap)
    seen = endings(client)

    async def read() -> None:
        async for _ in open_stream(client):
            raise ValueError("the reader's own")

    task = asyncio.ensure_future(read())
    await asyncio.wait({task})
    await a_few_turns_of_the_loop()
    assert tap.open == 0  # while the task, and with it its frame, is still there
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]
    assert isinstance(task.exception(), ValueError)


@ways
@pytest.mark.usefixtures("no_collector")
async def test_it_is_closed_when_its_reader_is_cancelled(open_stream: Open) -> None:
    tap = Tap()
    client = Aether(tap)
    seen = endings(client)

    async def read() -> None:
        async for _ in open_stream(client):
            await asyncio.sleep(0)

    task = asyncio.ensure_future(read())
    await a_few_turns_of_the_loop()
    assert tap.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await a_few_turns_of_the_loop()
    assert tap.open == 0
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]


@pytest.mark.usefixtures("no_collector")
async def test_leaving_early_counts_what_is_known() -> None:
    client = Aether(Tap())
    async with client.stream_text("hi") as stream:
        async for _ in stream:
            break
    assert len(client.usage.ledger) == 1
    assert client.usage.ledger[0].state in ("estimated", "unknown")
    assert not client.usage.is_exact
    assert client.usage.total_requests == 0


async def test_leaving_between_the_turns_of_a_stream_is_one_ending() -> None:
    def ping() -> str:
        """Answer."""
        return "pong"

    call = LLMResponse(text="one two", model="m", tool_calls=[ToolCall("1", "ping", {})])
    client = Aether(FakeProvider(responses=[call, "three four"]))
    starts: list[Event] = []
    client.on(STREAM_START)(starts.append)
    seen = endings(client)
    async with client.stream_text("hi", tools=[ping]) as stream:
        async for text in stream:
            if text.startswith("thr"):
                break
    assert len(starts) == 1
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]
    assert client.usage.total_requests == 1


async def test_leaving_after_the_last_delta_is_a_stream_left_early() -> None:
    client = Aether(FakeProvider("ab"))
    seen = endings(client)
    async with client.stream_text("hi") as stream:
        assert [await anext(stream), await anext(stream)] == ["a", "b"]
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, True)]


async def test_whole_stream_ends_once() -> None:
    client = Aether(FakeProvider("Hello, world"))
    seen = endings(client)
    async with client.stream("hi") as stream:
        async for _ in stream:
            pass
    assert [event.name for event in seen] == [STREAM_COMPLETE]


async def test_error_in_the_middle_ends_it_once_and_closes_it() -> None:
    class Breaks(Tap):
        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            self.opened += 1
            try:
                yield StreamChunk(text="x")
                raise ConnectionResetError("gone")
            finally:
                self.closed += 1

    breaks = Breaks()
    client = Aether(breaks)
    seen = endings(client)
    with pytest.raises(AetherError):
        async for _ in client.stream("hi"):
            pass
    assert breaks.open == 0
    assert [(event.name, event.cancelled) for event in seen] == [(STREAM_ERROR, False)]
    assert isinstance(seen[0].error, AetherError)


async def test_many_streams_at_once_are_strangers() -> None:
    client = Aether(FakeProvider("Hello, world"))

    async def whole() -> str:
        return "".join([text async for text in client.stream_text("hi")])

    assert await asyncio.gather(*[whole() for _ in range(20)]) == ["Hello, world"] * 20
    assert client.usage.total_requests == 20
