"""Chunks that come together go up together, and each of them stands for itself all the same."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from aether import Aether
from aether.errors import ProtocolError
from aether.extensions.llm.budget import BudgetProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.budget import Budget
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
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
