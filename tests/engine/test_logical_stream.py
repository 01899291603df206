"""One logical stream over several turns: chunks, events, and what leaving it early does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from aether import Aether
from aether.errors import AetherError, ProtocolError, ProviderError, StreamInterruptedError
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import (
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    ToolCall,
    ToolCallDelta,
)
from aether.testing import FakeProvider


class Endless:
    """Streams until it is closed, and says when that was."""

    default_model = "endless"

    def __init__(self) -> None:
        self.closed = 0

    async def complete(self, request: LLMRequest) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        try:
            while True:
                yield StreamChunk(text="x")
                await asyncio.sleep(0)
        finally:
            self.closed += 1


class Broken:
    """Streams some text and then does as it was told."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    async def complete(self, request: LLMRequest) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text="half ")
        if self.error is not None:
            raise self.error


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def record(client: Aether) -> list[Event]:
    seen: list[Event] = []
    for name in EVENT_NAMES:
        client.events.subscribe(name, seen.append)
    return seen


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


TOOL_TURN = LLMResponse(
    text="Let me see.",
    model="fake",
    input_tokens=7,
    output_tokens=2,
    cache_read_tokens=3,
    tool_calls=[ToolCall("1", "ping", {})],
    finish_reason="tool_calls",
)
LAST_TURN = LLMResponse(
    text="It is pong.", model="fake", input_tokens=9, output_tokens=4, finish_reason="stop"
)


def ping() -> str:
    return "pong"


async def test_text_of_every_turn_comes_and_one_final_chunk_sums_the_usage() -> None:
    async with Aether(FakeProvider(responses=[TOOL_TURN, LAST_TURN])) as client:
        chunks = [chunk async for chunk in client.stream("go", tools=[ping])]
    assert "".join(chunk.text for chunk in chunks) == "Let me see.It is pong."
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    final = chunks[-1]
    assert final.is_final
    assert (final.input_tokens, final.output_tokens, final.cache_read_tokens) == (16, 6, 3)
    assert final.finish_reason == "stop"
    assert final.response == LAST_TURN
    assert final.tool_calls == []


async def test_a_turn_of_unknown_size_makes_the_sum_unknown() -> None:
    unknown = LLMResponse(text="?", model="fake", finish_reason="stop")
    async with Aether(FakeProvider(responses=[TOOL_TURN, unknown])) as client:
        chunks = [chunk async for chunk in client.stream("go", tools=[ping])]
    assert chunks[-1].input_tokens is None


async def test_stream_text_yields_no_empty_deltas() -> None:
    async with Aether(FakeProvider(responses=[TOOL_TURN, LAST_TURN])) as client:
        texts = [text async for text in client.stream_text("go", tools=[ping])]
    assert all(texts)
    assert "".join(texts) == "Let me see.It is pong."


@pytest.mark.row("E6")
async def test_events_of_a_stream_with_tools_follow_the_grammar() -> None:
    async with Aether(FakeProvider(responses=[TOOL_TURN, LAST_TURN])) as client:
        seen = record(client)
        chunks = [chunk async for chunk in client.stream("go", tools=[ping])]
    deltas = sum(bool(chunk.text) for chunk in chunks)
    assert names(seen)[0] == "stream.start"
    assert names(seen)[-1] == "stream.complete"
    assert names(seen).count("stream.chunk") == deltas
    assert [n for n in names(seen) if n.startswith("tool.")] == ["tool.start", "tool.complete"]
    assert not [n for n in names(seen) if n.startswith("request.")]
    assert len({event.run_id for event in seen}) == 1
    assert seen[-1].response == LAST_TURN
    assert seen[-1].duration_seconds is not None


async def test_leaving_early_fires_one_cancelled_error_and_closes_at_once(
    no_collector: None,
) -> None:
    endless = Endless()
    async with Aether(endless) as client:
        seen = record(client)
        async with client.stream_text("go") as texts:
            async for _ in texts:
                break
        assert endless.closed == 1
        assert names(seen)[-1] == "stream.error"
        assert seen[-1].cancelled
        assert sum(n in ("stream.error", "stream.complete") for n in names(seen)) == 1


async def test_a_broken_loop_over_the_bare_stream_closes_it(no_collector: None) -> None:
    endless = Endless()
    async with Aether(endless) as client:
        async for _ in client.stream("go"):
            break
        for _ in range(5):
            await asyncio.sleep(0)
        assert endless.closed == 1


async def test_a_task_that_dies_while_reading_closes_its_stream(no_collector: None) -> None:
    endless = Endless()

    async def read(client: Aether) -> None:
        async for _ in client.stream("go"):
            raise ZeroDivisionError

    async with Aether(endless) as client:
        task = asyncio.create_task(read(client))
        await asyncio.wait([task])
        for _ in range(5):
            await asyncio.sleep(0)
        assert endless.closed == 1  # though the task still holds the frame
        assert isinstance(task.exception(), ZeroDivisionError)


async def test_a_cancelled_reader_closes_its_stream(no_collector: None) -> None:
    endless = Endless()
    reading = asyncio.Event()

    async def read(client: Aether) -> None:
        async for _ in client.stream("go"):
            reading.set()

    async with Aether(endless) as client:
        seen = record(client)
        task = asyncio.create_task(read(client))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert endless.closed == 1
        assert names(seen)[-1] == "stream.error"
        assert seen[-1].cancelled


async def test_each_item_may_be_waited_for_with_a_timeout() -> None:
    async with Aether(FakeProvider("a longer answer")) as client:
        stream = client.stream_text("go")
        texts = []
        while True:
            try:
                texts.append(await asyncio.wait_for(stream.__anext__(), 5))
            except StopAsyncIteration:
                break
    assert "".join(texts) == "a longer answer"


class Losing:
    """Begins a call that is not among the calls of its response."""

    default_model = "losing"

    def __init__(self, text: str) -> None:
        self.text = text

    async def complete(self, request: LLMRequest) -> LLMResponse:
        call = ToolCall("call_1", "add", {"a": 1})
        message = Message(role="assistant", content=self.text, tool_calls=[call])
        return LLMResponse(text=self.text, model="m", finish_reason="stop", message=message)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text=self.text)
        yield StreamChunk(tool_call=ToolCallDelta(0, "call_1", "add", '{"a": 1}'))
        yield StreamChunk(finish_reason="stop")


@pytest.mark.row("T13")
@pytest.mark.parametrize("text", ["", "I will add these."])
async def test_a_call_that_a_provider_lost_is_an_error_and_no_answer(text: str) -> None:
    async with Aether(Losing(text)) as client:
        session = client.session("s")
        with pytest.raises(ProtocolError, match="would be lost"):
            await session.ask("go")
        with pytest.raises(ProtocolError, match="would be lost"):
            async for _ in session.stream_text("go"):
                pass
        assert await session.history() == []


async def test_a_stream_without_its_final_chunk_is_an_error() -> None:
    async with Aether(Broken()) as client:
        seen = record(client)
        with pytest.raises(StreamInterruptedError) as raised:
            async for _ in client.stream("go"):
                pass
    assert raised.value.partial is not None
    assert raised.value.partial.text == "half "
    assert names(seen)[-1] == "stream.error"
    assert not seen[-1].cancelled


@pytest.mark.parametrize("error", [ValueError("bad"), ProviderError("bad"), RuntimeError("bad")])
async def test_what_a_provider_raises_in_mid_stream_is_an_aether_error(error: Exception) -> None:
    texts: list[str] = []
    async with Aether(Broken(error)) as client:
        with pytest.raises(AetherError, match="bad"):
            texts += [text async for text in client.stream_text("go")]
    assert texts == []


async def test_a_provider_without_stream_answers_in_one_chunk() -> None:
    class Plain:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            return LAST_TURN

    async with Aether(Plain()) as client:
        chunks = [chunk async for chunk in client.stream("go")]
        assert [text async for text in client.stream_text("go")] == ["It is pong."]
    assert chunks[-1].is_final
    assert "".join(chunk.text for chunk in chunks) == "It is pong."


async def test_a_final_chunk_without_a_response_is_made_whole() -> None:
    class Slim:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk(text="a")
            yield StreamChunk(text="b", finish_reason="stop", input_tokens=1, output_tokens=2)

    async with Aether(Slim()) as client:
        chunks = [chunk async for chunk in client.stream("go", model="m")]
    response = chunks[-1].response
    assert response is not None
    assert (response.text, response.model, response.input_tokens) == ("ab", "m", 1)
    assert "".join(chunk.text for chunk in chunks) == "ab"


async def test_asking_and_streaming_give_the_same_text_and_usage() -> None:
    results: list[Any] = []
    for streaming in (False, True):
        async with Aether(FakeProvider(responses=[TOOL_TURN, LAST_TURN])) as client:
            if streaming:
                final = [chunk async for chunk in client.stream("go", tools=[ping])][-1]
                text = final.response.text if final.response else None
            else:
                text = await client.ask("go", tools=[ping])
            usage = client.usage
            results.append(
                (text, usage.total_requests, usage.total_input_tokens, usage.total_output_tokens)
            )
    assert results[0] == results[1]


async def test_reading_on_after_the_reader_has_ended_is_an_error_and_no_early_end() -> None:
    async with Aether(FakeProvider("one two three")) as client:
        stream = client.stream_text("go")

        async def read_one() -> str:
            return await anext(stream)

        reader = asyncio.create_task(read_one())
        for _ in range(5):
            await asyncio.sleep(0)
        assert reader.result() == "one "
        with pytest.raises(StreamInterruptedError, match="task that read it"):
            await anext(stream)


async def test_a_stream_that_was_read_to_its_end_has_just_ended_for_everybody() -> None:
    async with Aether(FakeProvider("one two")) as client:
        stream = client.stream_text("go")

        async def read_all() -> list[str]:
            return [text async for text in stream]

        assert await asyncio.create_task(read_all()) == ["one ", "two"]
        for _ in range(3):
            await asyncio.sleep(0)
        assert await read_all() == []


async def test_a_reader_may_hand_its_stream_to_the_next_one() -> None:
    async with Aether(FakeProvider("one two three")) as client:
        stream = client.stream_text("go")
        first = await anext(stream)
        rest = await asyncio.create_task(_rest(stream))
    assert first + rest == "one two three"


async def _rest(stream: AsyncIterator[str]) -> str:
    return "".join([text async for text in stream])
