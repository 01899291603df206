"""An answer that does not begin, or does not go on, is given up; keep-alives are no content."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest

from aether import Aether
from aether.errors import (
    ConfigurationError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.llm.timeout import TimeoutProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import (
    CallContext,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamChunk,
    ToolCallDelta,
)
from aether.registry import Registry
from aether.testing import FaultServer, faults
from aether.testing.providers import ProviderConformance
from tests.llm.scripted import (
    MODEL,
    Clock,
    Scripted,
    a_request,
    an_answer,
    collect,
    deltas,
    text_until_error,
)

PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
SOON = 0.02
"""Seconds: a limit that a test waits for."""


class TestConformance(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return TimeoutProvider(FakeProvider("Hello there."), first_content=30.0, stall=30.0)


class Paced(Scripted):
    """A stream of chunks, each after so many seconds."""

    def __init__(self, clock: Clock, *chunks: tuple[float, StreamChunk]) -> None:
        super().__init__(an_answer())
        self.clock = clock
        self.chunks = chunks

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self.started += 1
        self.requests.append(request)
        try:
            for seconds, chunk in self.chunks:
                if seconds:
                    await self.clock.wait(seconds)
                yield chunk
        finally:
            self.ended += 1


def watched(inner: Any, clock: Clock, **limits: float | None) -> TimeoutProvider:
    return TimeoutProvider(inner, clock=clock, timeout=clock.timeout, provider="acme", **limits)


def text(seconds: float, said: str) -> tuple[float, StreamChunk]:
    return seconds, StreamChunk(text=said)


def ping(seconds: float) -> tuple[float, StreamChunk]:
    return seconds, StreamChunk()


FINAL = deltas()[-1]


class TestTheFirstContent:
    async def test_an_answer_that_does_not_come_is_given_up(self) -> None:
        clock = Clock()

        async def hang() -> Any:
            await clock.wait(math.inf)

        [error] = await clock.run(
            watched(Scripted(hang), clock, first_content=5.0).complete(a_request())
        )
        assert isinstance(error, RequestTimeoutError)
        assert (error.kind, error.retryable, error.attempts) == ("first_content", True, 1)
        assert (error.provider, error.model, error.partial) == ("acme", MODEL, None)
        assert "no content within 5 s" in str(error)
        assert clock.now == 1005.0

    async def test_an_answer_in_time_is_handed_out(self) -> None:
        clock = Clock()

        async def take() -> LLMResponse:
            await clock.wait(4.9)
            return an_answer()

        provider = watched(Scripted(take), clock, first_content=5.0, stall=0.1)
        assert await clock.run(provider.complete(a_request())) == [an_answer()]

    async def test_a_stream_that_is_only_kept_open_is_given_up(self) -> None:
        clock = Clock()
        inner = Paced(clock, *[ping(1.0)] * 100)
        stream = watched(inner, clock, first_content=5.0).stream(a_request())
        [(said, error)] = await clock.run(text_until_error(stream))
        assert isinstance(error, RequestTimeoutError)
        assert (error.kind, error.partial, said, clock.now) == ("first_content", None, "", 1005.0)
        assert inner.started == inner.ended == 1

    async def test_keep_alives_that_come_without_a_pause_do_not_help(self) -> None:
        """Of a provider that never lets the loop go on."""
        clock = Clock()

        class Flood(Paced):
            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                while True:
                    self.clock.now += 0.1
                    yield StreamChunk()

        stream = watched(Flood(clock), clock, first_content=5.0).stream(a_request())
        [(_, error)] = await clock.run(text_until_error(stream))
        assert isinstance(error, RequestTimeoutError)
        assert clock.now == pytest.approx(1005.0, abs=0.2)

    @pytest.mark.parametrize(
        "content",
        [
            StreamChunk(text="It"),
            StreamChunk(reasoning="Hm."),
            StreamChunk(tool_call=ToolCallDelta(index=0, name="add")),
            FINAL,
        ],
        ids=["text", "reasoning", "call", "end"],
    )
    async def test_text_reasoning_calls_and_the_end_are_content(self, content: StreamChunk) -> None:
        clock = Clock()
        inner = Paced(clock, (4.9, content), (10.0, FINAL))
        provider = watched(inner, clock, first_content=5.0)
        [chunks] = await clock.run(collect(provider.stream(a_request())))
        assert chunks == [content, FINAL]

    async def test_it_is_no_limit_for_what_follows(self) -> None:
        clock = Clock()
        inner = Paced(clock, text(1.0, "It"), text(60.0, " is."), (60.0, FINAL))
        provider = watched(inner, clock, first_content=5.0)
        [chunks] = await clock.run(collect(provider.stream(a_request())))
        assert len(chunks) == 3


class TestAStall:
    async def test_a_stream_that_does_not_go_on_is_given_up(self) -> None:
        clock = Clock()
        inner = Paced(
            clock,
            (60.0, StreamChunk(reasoning="Hm.")),
            text(2.9, "It"),
            text(2.9, " is"),
            *[ping(1.0)] * 100,
        )
        stream = watched(inner, clock, stall=3.0).stream(a_request())
        [(said, error)] = await clock.run(text_until_error(stream))
        assert isinstance(error, RequestTimeoutError)
        assert (error.kind, error.retryable, said) == ("stall", True, "It is")
        assert error.partial is not None
        assert (error.partial.text, error.partial.reasoning) == ("It is", "Hm.")
        assert error.partial.model == MODEL
        assert clock.now == pytest.approx(1068.8)
        assert inner.started == inner.ended == 1

    async def test_a_reader_may_take_his_time(self) -> None:
        clock = Clock()
        inner = Paced(clock, text(1.0, "It"), ping(1.0), text(1.0, " is"), (1.0, FINAL))
        provider = watched(inner, clock, first_content=3.0, stall=3.0)
        seen: list[StreamChunk] = []

        async def read() -> None:
            async for chunk in provider.stream(a_request()):
                seen.append(chunk)
                await clock.wait(60.0)

        assert await clock.run(read()) == [None]
        assert len(seen) == 4

    async def test_a_stream_that_is_whole_but_stays_open_is_whole(self) -> None:
        clock = Clock()
        inner = Paced(clock, text(1.0, "It"), (1.0, FINAL), *[ping(1.0)] * 100)
        [chunks] = await clock.run(collect(watched(inner, clock, stall=3.0).stream(a_request())))
        assert [chunk for chunk in chunks if chunk.is_final] == [FINAL]
        assert inner.started == inner.ended == 1
        inner = Paced(clock, (1.0, FINAL), ping(math.inf))
        [chunks] = await clock.run(collect(watched(inner, clock, stall=3.0).stream(a_request())))
        assert chunks == [FINAL]
        assert inner.started == inner.ended == 1


class TestInTheStack:
    def stack(self, inner: Any, clock: Clock, **limits: float | None) -> CircuitBreakerProvider:
        retrying = RetryingProvider(
            watched(inner, clock, **limits),
            clock=clock,
            sleep=clock.sleep,
            timeout=clock.timeout,
            random=lambda: 1.0,
        )
        return CircuitBreakerProvider(retrying, failure_threshold=1, clock=clock)

    async def test_before_the_first_content_it_is_tried_again(self) -> None:
        clock = Clock()

        async def hang() -> Any:
            await clock.wait(math.inf)

        stack = self.stack(Scripted(hang, an_answer()), clock, first_content=5.0)
        [answer] = await clock.run(stack.complete(a_request()))
        assert (answer.attempts, clock.now) == (2, 1005.5)
        stack = self.stack(Scripted(hang, an_answer("42.")), clock, first_content=5.0)
        [(said, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert (said, error) == ("42.", None)

    async def test_after_it_the_stream_is_broken(self) -> None:
        clock = Clock()
        stack = self.stack(Paced(clock, text(1.0, "It"), ping(math.inf)), clock, stall=5.0)
        [(said, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert isinstance(error, StreamInterruptedError)
        assert (error.kind, error.retryable, said) == ("stall", True, "It")
        assert error.partial is not None
        assert error.partial.text == "It"
        assert stack.state(MODEL) == "open"

    async def test_the_calls_deadline_comes_first_where_it_is_sooner(self) -> None:
        clock = Clock()

        async def hang() -> Any:
            await clock.wait(math.inf)

        stack = self.stack(Scripted(hang), clock, first_content=50.0)
        request = a_request(context=CallContext(deadline=clock.now + 7.0))
        [error] = await clock.run(stack.complete(request))
        assert (error.kind, clock.now) == ("deadline", 1007.0)


class TestErrorsAndCancellation:
    async def test_a_providers_own_timeout_is_not_taken_for_it(self) -> None:
        clock = Clock()
        raised = TimeoutError("slow")
        provider = watched(Scripted(raised), clock, first_content=5.0)
        for work in (provider.complete(a_request()), collect(provider.stream(a_request()))):
            [error] = await clock.run(work)
            assert error is raised

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_what_a_provider_raises_when_it_is_given_up_is_the_cause(
        self, *, streamed: bool
    ) -> None:
        clock, raised = Clock(), ProviderConnectionError("closed", kind="reset")

        async def hang() -> Any:
            try:
                await clock.wait(math.inf)
            except asyncio.CancelledError:
                raise raised from None

        provider = watched(Scripted(hang), clock, first_content=5.0)
        request = a_request()
        work = collect(provider.stream(request)) if streamed else provider.complete(request)
        [error] = await clock.run(work)
        assert isinstance(error, RequestTimeoutError)
        assert error.__cause__ is raised

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_cancelling_is_cancelling(self, *, streamed: bool) -> None:
        clock = Clock()

        async def hang() -> Any:
            await clock.wait(math.inf)

        inner = Scripted(hang)
        provider = watched(inner, clock, first_content=5.0, stall=5.0)
        request = a_request()
        work = collect(provider.stream(request)) if streamed else provider.complete(request)
        task = asyncio.ensure_future(work)
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert inner.started == inner.ended == int(streamed)

    async def test_a_stream_that_is_left_is_closed(self) -> None:
        clock = Clock()
        inner = Paced(clock, text(0.0, "It"), text(1.0, " is"))
        stream = watched(inner, clock, first_content=5.0, stall=5.0).stream(a_request())
        async for _ in stream:
            break
        await stream.aclose()
        assert inner.started == inner.ended == 1

    @pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "5"])
    def test_a_limit_that_is_none_is_refused(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match="first_content"):
            TimeoutProvider(FakeProvider(), first_content=bad)
        with pytest.raises(ConfigurationError, match="stall"):
            TimeoutProvider(FakeProvider(), stall=bad)

    async def test_without_limits_nothing_is_limited(self) -> None:
        clock = Clock()
        inner = Paced(clock, text(1e6, "It"), (1e6, FINAL))
        [chunks] = await clock.run(collect(watched(inner, clock).stream(a_request())))
        assert len(chunks) == 2


class Alarm:
    """Limits that come when the test says so."""

    def __init__(self) -> None:
        self._limits: list[asyncio.Timeout] = []

    def timeout(self, _: float) -> asyncio.Timeout:
        limit = asyncio.timeout(None)
        self._limits.append(limit)
        return limit

    async def ring(self, task: asyncio.Task[Any]) -> None:
        """Let the time be up until the task has noticed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 5.0
        while not task.done() and loop.time() < end:
            for limit in self._limits:
                with suppress(RuntimeError):  # what it limited has ended
                    limit.reschedule(loop.time())
            await asyncio.sleep(0.001)


_PINGS = {
    "openai": b'data: {"id":"1","object":"chat.completion.chunk","choices":[]}\n\n',
    "openai.responses": b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
    "gemini": b": ping\n\n",
}


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestOnSockets:
    """What a server does to keep a connection open, in each protocol, on each transport."""

    def client(self, server: FaultServer, protocol: str, transport: str, alarm: Alarm) -> Aether:
        timeout = Timeout(connect=5.0, read=60.0, first_content=1.0, stall=1.0)
        config = server.config(protocol, transport=transport, timeout=timeout)
        _, adapter = build_provider(config, Registry())
        return Aether(TimeoutProvider(adapter, first_content=1.0, stall=1.0, timeout=alarm.timeout))

    @pytest.mark.parametrize("comment", [None, b": ping\n\n"], ids=["events", "comments"])
    async def test_pings_alone_are_no_content(
        self, protocol: str, transport: str, comment: bytes | None
    ) -> None:
        alarm = Alarm()
        fault = faults.keep_alive(comment=comment or _PINGS[protocol], seconds=0.001)
        async with (
            FaultServer(fault) as server,
            self.client(server, protocol, transport, alarm) as client,
        ):
            reading = asyncio.ensure_future(text_until_error(client.stream("Hi").detach()))
            await server.until_asked()
            await asyncio.sleep(0.01)  # some of them have come
            assert not reading.done()
            await alarm.ring(reading)
            said, error = await reading
            assert isinstance(error, RequestTimeoutError)
            assert (said, error.kind, error.partial) == ("", "first_content", None)
            await server.until_left()
            assert server.count == len(client.usage.ledger) == 1

    @pytest.mark.parametrize("drips", [True, False], ids=["drips", "silence"])
    async def test_no_content_after_some_is_a_stall(
        self, protocol: str, transport: str, drips: bool
    ) -> None:
        alarm, comes = Alarm(), asyncio.Event()
        events = {"openai": 2, "openai.responses": 5, "anthropic": 4, "gemini": 1}[protocol]
        fault = faults.keep_alive(after=events, comment=_PINGS[protocol], seconds=0.001)
        if not drips:
            fault = faults.cut(texts=1, ending="hanging")
        async with (
            FaultServer(fault) as server,
            self.client(server, protocol, transport, alarm) as client,
        ):
            shown = ""

            async def read() -> None:
                nonlocal shown
                async for piece in client.stream_text("Hi"):
                    shown += piece
                    comes.set()

            reading = asyncio.ensure_future(read())
            await asyncio.wait_for(comes.wait(), 5.0)
            await alarm.ring(reading)
            with pytest.raises(RequestTimeoutError) as caught:
                await reading
            assert caught.value.kind == "stall"
            assert caught.value.partial is not None
            assert caught.value.partial.text == shown != ""
            await server.until_left()
            assert [entry.state for entry in client.usage.ledger] == ["estimated"]

    async def test_an_answer_that_is_no_stream_has_the_first_limit(
        self, protocol: str, transport: str
    ) -> None:
        alarm = Alarm()
        async with (
            FaultServer(faults.drip(seconds=0.5)) as server,
            self.client(server, protocol, transport, alarm) as client,
        ):
            asking = asyncio.ensure_future(client.ask("Hi"))
            await server.until_asked()
            await alarm.ring(asking)
            with pytest.raises(RequestTimeoutError) as caught:
                await asking
            assert caught.value.kind == "first_content"
            await server.until_left()
            assert [entry.state for entry in client.usage.ledger] == ["unknown"]

    async def test_the_configuration_is_enough(self, protocol: str, transport: str) -> None:
        timeout = Timeout(connect=5.0, read=60.0, first_content=SOON, stall=30.0)
        async with FaultServer(reply=faults.hang()) as server:
            config = server.config(protocol, transport=transport, timeout=timeout)
            async with Aether(config=config, with_retry=False) as client:
                for ask in (client.ask("Hi"), client.stream("Hi").__anext__()):
                    with pytest.raises(RequestTimeoutError) as caught:
                        await ask
                    assert caught.value.kind == "first_content"

    async def test_an_answer_in_time_is_whole(self, protocol: str, transport: str) -> None:
        timeout = Timeout(first_content=30.0, stall=30.0)
        async with FaultServer() as server:
            config = server.config(protocol, transport=transport, timeout=timeout)
            async with Aether(config=config) as client:
                assert await client.ask("Hi") == "Hello there."
                pieces = [piece async for piece in client.stream_text("Hi")]
                assert "".join(pieces) == "Hello there."


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"first_content": 30}, "first content 30 s"),
        ({"first_content": 2.5, "stall": 20}, "first content 2.5 s, stall 20 s"),
    ],
)
def test_it_says_how_it_is_set(options: dict[str, Any], said: str) -> None:
    assert TimeoutProvider(FakeProvider(), **options).settings() == said
