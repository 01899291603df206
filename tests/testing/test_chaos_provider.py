"""A provider that fails now and then, as it is told, and the same way each time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest

from aether import Aether
from aether.errors import (
    AetherError,
    ConfigurationError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm import RetryingProvider
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk
from aether.testing import ChaosProvider, FakeProvider
from aether.testing.chaos import CHAOS, Trouble

TEXT = "One two three four five six seven eight."
REQUEST = LLMRequest([Message("user", "Hi")])

ERRORS: dict[Trouble, type[ProviderError]] = {
    "rate_limit": RateLimitError,
    "overloaded": OverloadedError,
    "server": ServerError,
    "connection": ProviderConnectionError,
    "timeout": RequestTimeoutError,
    "protocol": ProtocolError,
}
LOSSES: tuple[Trouble, ...] = ("lost_answer", "cut", "truncated")


def always(trouble: Trouble, **options: Any) -> tuple[ChaosProvider, FakeProvider]:
    fake = FakeProvider(TEXT)
    return ChaosProvider(fake, troubles={trouble: 1}, **options), fake


async def read(provider: ChaosProvider) -> list[StreamChunk]:
    return [chunk async for chunk in provider.stream(REQUEST)]


async def hear(provider: ChaosProvider, chunks: list[StreamChunk]) -> None:
    async for chunk in provider.stream(REQUEST):
        chunks.append(chunk)  # noqa: PERF401 - what had come stays if there is an error


async def happening(seed: int, calls: int, streaming: int = 0) -> list[Trouble | None]:
    """What happens to so many calls; every so many-th is a stream."""
    provider = ChaosProvider(FakeProvider(TEXT), seed=seed, sleep=lambda _: asyncio.sleep(0))
    for number in range(calls):
        try:
            if streaming and number % streaming == 0:
                await read(provider)
            else:
                await provider.complete(REQUEST)
        except ProviderError:
            pass
    return provider.happened


@pytest.mark.parametrize("streaming", [0, 1, 3], ids=["calls", "streams", "both"])
async def test_a_seed_gives_the_same_troubles_to_the_same_calls(streaming: int) -> None:
    first = await happening(7, 300, streaming)
    assert await happening(7, 300, streaming) == first
    assert await happening(8, 300, streaming) != first
    assert len(first) == 300


async def test_each_trouble_happens_as_often_as_it_is_told() -> None:
    counts = Counter(await happening(0, 10_000))
    for trouble in get_args(Trouble):
        assert counts[trouble] == pytest.approx(10_000 * CHAOS.get(trouble, 0), abs=60)
    assert counts[None] == pytest.approx(8000, abs=150)


async def test_shares_that_make_one_leave_no_call_in_peace() -> None:
    troubles: dict[Trouble, float] = {"server": 0.7, "overloaded": 0.2, "timeout": 0.1}
    provider = ChaosProvider(FakeProvider(TEXT), troubles=troubles)
    for _ in range(500):
        with pytest.raises(ProviderError):
            await provider.complete(REQUEST)
    assert None not in provider.happened


async def test_without_troubles_nothing_happens() -> None:
    provider = ChaosProvider(FakeProvider(TEXT), troubles={})
    assert (await provider.complete(REQUEST)).text == TEXT
    assert "".join(chunk.text for chunk in await read(provider)) == TEXT
    assert provider.happened == [None, None]


@pytest.mark.parametrize(("trouble", "error"), ERRORS.items())
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_failure_is_raised_before_the_inner_provider_is_asked(
    trouble: Trouble, error: type[ProviderError], streaming: bool
) -> None:
    provider, fake = always(trouble)
    with pytest.raises(error, match=r"^Chaos: ") as caught:
        await (read(provider) if streaming else provider.complete(REQUEST))
    assert type(caught.value) is error
    assert caught.value.retryable == (trouble != "protocol")
    assert fake.requests == []
    assert provider.happened == [trouble]


async def test_failures_have_what_a_servers_would_have() -> None:
    statuses = {"rate_limit": 429, "overloaded": 503, "server": 500}
    for trouble in ERRORS:
        with pytest.raises(ProviderError) as caught:
            await always(trouble)[0].complete(REQUEST)
        assert caught.value.status == statuses.get(trouble)
        assert caught.value.retry_after == (1.0 if trouble == "rate_limit" else None)
        assert (caught.value.kind is not None) == (trouble in ("connection", "timeout"))


@pytest.mark.parametrize("trouble", LOSSES)
async def test_an_answer_is_lost_after_the_inner_provider_has_given_it(trouble: Trouble) -> None:
    provider, fake = always(trouble)
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.complete(REQUEST)
    assert caught.value.retryable
    assert fake.requests == [REQUEST]


async def test_a_lost_stream_has_no_chunk() -> None:
    provider, fake = always("lost_answer")
    with pytest.raises(ProviderConnectionError):
        await anext(provider.stream(REQUEST))
    assert len(fake.requests) == 1


async def test_a_stream_is_cut_anywhere_with_what_came_as_its_partial() -> None:
    lengths: set[int] = set()
    for seed in range(40):
        provider, _ = always("cut", seed=seed)
        chunks: list[StreamChunk] = []
        with pytest.raises((StreamInterruptedError, ProviderConnectionError)) as caught:
            await hear(provider, chunks)
        text = "".join(chunk.text for chunk in chunks)
        assert TEXT.startswith(text)
        assert not any(chunk.is_final for chunk in chunks)
        assert isinstance(caught.value, StreamInterruptedError) == bool(text)
        if text:
            assert caught.value.partial is not None
            assert caught.value.partial.text == text
        lengths.add(len(chunks))
    whole = len(await read(ChaosProvider(FakeProvider(TEXT), troubles={})))
    assert lengths == set(range(whole))


async def test_the_partial_of_a_cut_stream_has_its_reasoning() -> None:
    class Thinking:
        async def complete(self, _: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, _: LLMRequest) -> AsyncIterator[StreamChunk]:
            for thought in "abcdefgh":
                yield StreamChunk(reasoning=thought)
            yield StreamChunk(finish_reason="stop")

    with pytest.raises(StreamInterruptedError) as caught:
        await read(ChaosProvider(Thinking(), troubles={"cut": 1}, seed=1))
    assert caught.value.partial is not None
    assert caught.value.partial.reasoning
    assert "abcdefgh".startswith(caught.value.partial.reasoning)


async def test_a_truncated_stream_ends_without_its_final_chunk_and_without_an_error() -> None:
    for seed in range(20):
        provider, _ = always("truncated", seed=seed)
        chunks = await read(provider)
        assert not any(chunk.is_final for chunk in chunks)
        async with Aether(always("truncated", seed=seed)[0]) as client:
            with pytest.raises(AetherError):  # what is truncated is no success
                await anext(text async for text in client.stream_text("Hi") if text is None)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_late_answer_is_whole(streaming: bool) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    provider, _ = always("delay", delay=3.5, sleep=sleep)
    if streaming:
        assert "".join(chunk.text for chunk in await read(provider)) == TEXT
    else:
        assert (await provider.complete(REQUEST)).text == TEXT
    assert waits == [3.5]
    assert provider.happened == ["delay"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_cancellation_passes_at_once(streaming: bool) -> None:
    provider, fake = always("delay", delay=600)
    task = asyncio.create_task(read(provider) if streaming else provider.complete(REQUEST))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.requests == []


@pytest.mark.parametrize("trouble", [None, *LOSSES])
async def test_the_inner_stream_is_closed_when_the_reader_leaves(trouble: Trouble | None) -> None:
    closed: list[int] = []

    class Counting:
        async def complete(self, _: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, _: LLMRequest) -> AsyncIterator[StreamChunk]:
            try:
                for number in range(9):
                    yield StreamChunk(f"{number} ")
                yield StreamChunk(finish_reason="stop")
            finally:
                closed.append(1)

    provider = ChaosProvider(Counting(), troubles={trouble: 1} if trouble else {}, seed=1)
    stream = provider.stream(REQUEST)
    try:
        async for _ in stream:
            break
    except ProviderConnectionError:
        pass
    await stream.aclose()
    assert closed == [1]


async def test_each_attempt_of_a_retry_is_a_call() -> None:
    chaos = ChaosProvider(FakeProvider(TEXT), troubles={"overloaded": 0.5}, seed=7)
    async with Aether(RetryingProvider(chaos, sleep=lambda _: asyncio.sleep(0))) as client:
        assert await client.ask("Hi") == TEXT
        assert repr(client.provider).endswith("Retrying > Chaos > Fake")
    assert chaos.happened == ["overloaded", "overloaded", None]


def test_its_default_model_is_that_of_the_inner_provider() -> None:
    assert ChaosProvider(FakeProvider()).default_model == FakeProvider().default_model


@pytest.mark.parametrize(
    ("troubles", "message"),
    [
        ({"rate limit": 0.1}, "no such trouble: rate limit.*rate_limit"),
        ({"server": -0.1}, "from 0 to 1"),
        ({"server": 1.1}, "from 0 to 1"),
        ({"server": float("nan")}, "from 0 to 1"),
        ({"server": 0.6, "cut": 0.6}, "at most 1 together"),
    ],
)
def test_troubles_that_cannot_be_are_refused(troubles: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ChaosProvider(FakeProvider(), troubles=troubles)
