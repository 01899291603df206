"""Chunks that come together go up together, and each of them stands for itself all the same."""

from __future__ import annotations

import json
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from aether import Aether
from aether.engine.context import RunContext
from aether.errors import DeadlineExceededError, ProtocolError, ServerError
from aether.events import STREAM_CHUNK
from aether.extensions.llm.budget import BudgetProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.budget import Budget
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.deadline import Deadline
from aether.llm.wrapper import ProviderWrapper
from tests.llm.conftest import ScriptedTransport
from tests.llm.scripted import Scripted, a_request, an_answer, deltas

LAYERS: list[Callable[[LLMProvider], ProviderWrapper]] = [
    ProviderWrapper,
    CostTrackingProvider,
    CircuitBreakerProvider,
    RetryingProvider,
    RateLimitingProvider,
    BudgetProvider,
    lambda inner: BudgetProvider(inner, Budget(requests=10)),
]


class Batches:
    """A provider whose chunks come in batches."""

    def __init__(self, *sizes: int) -> None:
        self.chunks = deltas(*(f"{number} " for number in range(sum(sizes))))
        self._sizes = (*sizes, 1)
        self.open = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        raise NotImplementedError

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(self._batches())

    async def _batches(self) -> AsyncGenerator[Batch, None]:
        self.open += 1
        try:
            at = 0
            for size in self._sizes:
                yield self.chunks[at : at + size]
                at += size
        finally:
            self.open -= 1


async def sizes_of(provider: LLMProvider) -> list[int]:
    async with open_batches(provider, a_request()) as batches:
        return [len(batch) async for batch in batches]


@pytest.mark.parametrize("layer", LAYERS)
async def test_what_came_together_goes_up_together(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    assert await sizes_of(layer(Batches(3, 1, 2))) == [3, 1, 2, 1]


@pytest.mark.parametrize("layer", LAYERS)
async def test_each_can_be_read_by_itself(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    provider = Batches(3, 1, 2)
    stream = layer(provider).stream(a_request())
    async with aclosing(stream):
        read = [await anext(stream), await stream.asend(None)]
        assert provider.open == 1
        read += [chunk async for chunk in stream]
    assert [chunk.text for chunk in read] == [chunk.text for chunk in provider.chunks]
    assert provider.open == 0


async def test_where_nothing_comes_together_each_is_a_batch() -> None:
    assert await sizes_of(Scripted(deltas("a", "b"))) == [1, 1, 1]


@pytest.mark.parametrize("layer", LAYERS)
async def test_whoever_leaves_in_the_middle_of_a_batch_leaves_nothing_open(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    provider = Batches(3)
    async with aclosing(layer(provider).stream(a_request())) as chunks:
        assert (await anext(chunks)).text == "0 "
        assert provider.open == 1
    assert provider.open == 0


@pytest.mark.parametrize("layer", LAYERS)
async def test_what_is_thrown_into_a_stream_closes_it(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    provider = Batches(3)
    chunks = layer(provider).stream(a_request())
    await anext(chunks)
    with pytest.raises(KeyError):
        await chunks.athrow(KeyError())
    assert provider.open == 0


async def test_a_stream_that_was_closed_unread_has_nothing() -> None:
    chunks = Batches(3).stream(a_request())
    await chunks.aclose()
    assert [chunk async for chunk in chunks] == []


async def test_a_layer_of_somebody_else_sees_each_chunk() -> None:
    class Shouting(CostTrackingProvider):
        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            async for chunk in super().stream(request):
                yield StreamChunk(chunk.text.upper()) if chunk.text else chunk

    provider = Batches(2)
    provider.chunks = deltas("a", "b", answer=an_answer("AB"))
    async with Aether(provider, layers=[Shouting]) as client:
        assert [text async for text in client.stream_text("Hi")] == ["A", "B"]
    assert provider.open == 0


async def test_a_layer_may_call_what_it_has_as_it_likes() -> None:
    class Batching(ProviderWrapper):
        def __init__(self, inner: LLMProvider) -> None:
            super().__init__(inner)
            self._batches: list[LLMRequest] = []

    assert await sizes_of(Batching(Batches(2))) == [2, 1]


class Noting:
    """Notes each chunk that is read of a stream, and passes for what it stands before."""

    def __init__(self, stream: AsyncGenerator[StreamChunk, None]) -> None:
        self._stream = stream
        self.seen: list[StreamChunk] = []

    @property  # type: ignore[misc]  # as the proxies of wrapt do
    def __class__(self) -> type:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Noting:
        return self

    async def __anext__(self) -> StreamChunk:
        self.seen.append(await anext(self._stream))
        return self.seen[-1]


@pytest.mark.parametrize("layer", LAYERS)
async def test_what_stands_before_a_stream_sees_each_chunk(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    noting: list[Noting] = []

    class Traced(ProviderWrapper):
        def stream(self, request: LLMRequest, /) -> Any:
            noting.append(Noting(super().stream(request)))
            return noting[0]

    provider = Batches(3)
    chunks = [chunk async for chunk in layer(Traced(provider)).stream(a_request())]
    assert len(chunks) == len(provider.chunks)
    assert [chunk.text for chunk in noting[0].seen] == [chunk.text for chunk in provider.chunks]


@pytest.mark.parametrize("layer", LAYERS)
async def test_of_a_stream_that_was_begun_the_rest_is_read(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    class Begun(ProviderWrapper):
        chunks = Batches(3).stream(a_request())

        def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            return self.chunks

    provider = Begun(Batches(3))
    assert (await anext(provider.chunks)).text == "0 "
    rest = [chunk.text async for chunk in layer(provider).stream(a_request())]
    assert rest == ["1 ", "2 ", ""]


@pytest.mark.parametrize("layer", LAYERS)
async def test_an_iterator_that_is_no_generator_becomes_one(
    layer: Callable[[LLMProvider], ProviderWrapper],
) -> None:
    class Iterating(Batches):
        def stream(self, request: LLMRequest, /) -> Any:
            return self

        def __aiter__(self) -> Iterating:
            return self

        async def __anext__(self) -> StreamChunk:
            if not self.chunks:
                raise StopAsyncIteration
            return self.chunks.pop(0)

    async with aclosing(layer(Iterating(2)).stream(a_request())) as chunks:
        assert [chunk.text async for chunk in chunks] == ["0 ", "1 ", ""]


def test_a_stream_can_be_referred_to_weakly() -> None:
    chunks = Batches(1).stream(a_request())
    assert weakref.ref(chunks)() is chunks


async def test_whoever_subscribes_in_the_middle_of_a_batch_hears_of_the_rest() -> None:
    heard: list[str] = []
    async with Aether(Batches(3)) as client, client.stream("Hi") as chunks:
        await anext(chunks)
        client.events.subscribe(STREAM_CHUNK, lambda event: heard.append(str(event.chunk)))
        async for _ in chunks:
            pass
    assert heard == [str(StreamChunk("1 ")), str(StreamChunk("2 "))]


@pytest.mark.parametrize("slow", ["subscriber", "reader"])
async def test_the_deadline_may_come_in_the_middle_of_a_batch(
    slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(RunContext, "limit", lambda _: Deadline(5.0, lambda: now[0]))
    provider = Batches(3)
    read: list[str] = []

    async def read_all(client: Aether) -> None:
        async for text in client.stream_text("Hi", timeout=5.0):
            read.append(text)
            now[0] += slow == "reader" and 5.0

    async with Aether(provider) as client:
        if slow == "subscriber":
            client.events.subscribe(STREAM_CHUNK, lambda _: now.insert(0, 5.0))
        with pytest.raises(DeadlineExceededError) as caught:
            await read_all(client)
    assert read == ["0 "]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "0 "
    assert provider.open == 0


async def test_a_retry_gives_no_chunk_twice_also_of_a_batch() -> None:
    class Failing(Batches):
        calls = 0

        async def _batches(self) -> AsyncGenerator[Batch, None]:
            self.calls += 1
            if self.calls == 1:
                yield [StreamChunk()]
                raise ConnectionError
            yield [StreamChunk(), StreamChunk(), StreamChunk("a")]
            yield deltas(answer=an_answer("a"))

    async def no_sleep(_: float) -> None:
        return

    provider = RetryingProvider(Failing(), sleep=no_sleep)
    chunks = [chunk async for chunk in provider.stream(a_request())]
    assert [chunk.text for chunk in chunks] == ["", "", "a", ""]
    response = chunks[-1].response
    assert response is not None
    assert response.attempts == 2


def event(text: str, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, **fields}
    return b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"


async def test_what_came_before_a_bad_event_of_the_same_read_is_handed_out(
    transport: ScriptedTransport,
) -> None:
    transport.answers(event("a") + event("b") + b"data: {\n\n" + event("c"))
    provider = RetryingProvider(
        OpenAIProvider("sk-0123456789", base_url="http://model.example/v1", transport=transport)
    )
    read: list[StreamChunk] = []

    async def read_all() -> None:
        async for chunk in provider.stream(a_request()):
            read.append(chunk)  # noqa: PERF401 - what was read before the error is the point

    with pytest.raises(ProtocolError, match="not JSON") as caught:
        await read_all()
    assert [chunk.text for chunk in read] == ["a", "b"]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "ab"
    assert transport.open_streams == 0
    assert len(transport.calls) == 1


async def test_what_was_shown_before_a_retry_is_shown_once_although_it_comes_with_more() -> None:
    first, second, third = StreamChunk(), StreamChunk(), StreamChunk()
    attempts: list[list[Batch | ServerError]] = [
        [[first, second], ServerError("no")],
        [[StreamChunk(), StreamChunk(), third, *deltas("42")]],
    ]

    class Failing(Scripted):
        def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            return ChunkStream(self._batches())

        async def _batches(self) -> AsyncGenerator[Batch, None]:
            for batch in attempts.pop(0):
                if isinstance(batch, ServerError):
                    raise batch
                yield batch

    retrying = RetryingProvider(Failing(), base_delay=0)
    chunks = [chunk async for chunk in retrying.stream(a_request())]
    empty = [chunk for chunk in chunks if not chunk.has_content and not chunk.is_final]
    assert [*map(id, empty)] == [*map(id, (first, second, third))]
    assert "".join(chunk.text for chunk in chunks) == "42"
