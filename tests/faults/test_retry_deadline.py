"""One deadline holds for all attempts of a call and the waiting between them, to the moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from aether.errors import (
    AetherError,
    CircuitOpenError,
    DeadlineExceededError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    ServerError,
)
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import CallContext, LLMRequest, StreamChunk
from tests.faults.virtual import WIRES, Act, VirtualServer, adapter, stack
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


def due_in(clock: Clock, seconds: float) -> LLMRequest:
    return a_request(context=CallContext(deadline=clock.now + seconds))


def retrying(inner: Any, clock: Clock) -> RetryingProvider:
    return RetryingProvider(
        inner, clock=clock, sleep=clock.sleep, timeout=clock.timeout, random=lambda: 1.0
    )


class NeverEnding(Scripted):
    """Its stream has its final chunk, and stays open."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(deltas("42."))
        self.clock = clock

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk
            await self.clock.wait(math.inf)


class TestAttemptsUnderWay:
    """What has not ended when the deadline comes is cancelled then."""

    async def test_the_first_is_cancelled_at_the_deadline(self) -> None:
        clock, ended = Clock(), []

        async def hang() -> None:
            try:
                await clock.wait(math.inf)
            except asyncio.CancelledError:
                ended.append(clock.now)
                raise

        request = due_in(clock, 5.0)
        [error] = await clock.run(retrying(Scripted(hang), clock).complete(request))
        assert isinstance(error, DeadlineExceededError)
        assert (error.kind, error.attempts, clock.now) == ("deadline", 1, 1005.0)
        assert ended == [1005.0]
        assert request.context is not None
        assert [entry.state for entry in request.context.entries] == ["unknown"]

    async def test_a_later_one_is_cancelled_at_the_same_deadline(self) -> None:
        clock = Clock()

        async def take_long() -> None:
            await clock.wait(3.0)
            raise ServerError("no", status=500)

        request = due_in(clock, 5.0)
        [error] = await clock.run(retrying(Scripted(take_long), clock).complete(request))
        assert isinstance(error, DeadlineExceededError)
        assert (error.attempts, clock.now, clock.sleeps) == (2, 1005.0, [0.5])
        assert "ServerError (status 500)" in error.__notes__[0]

    async def test_before_the_first_content_there_is_no_partial_answer(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.wait(math.inf)

        provider = Scripted(hang)
        stream = retrying(provider, clock).stream(due_in(clock, 5.0))
        [(text, error)] = await clock.run(text_until_error(stream))
        assert (text, type(error), clock.now) == ("", DeadlineExceededError, 1005.0)
        assert provider.started == provider.ended == 1

    async def test_after_the_first_content_it_has_what_had_come(self) -> None:
        clock, server = Clock(), VirtualServer(WIRES["openai chat"](), Clock())
        server.clock = clock
        server.acts = [Act(pause=2.0)]
        request = due_in(clock, 5.0)
        stream = retrying(adapter("openai chat", server), clock).stream(request)
        [(text, error)] = await clock.run(text_until_error(stream))
        assert isinstance(error, DeadlineExceededError)
        assert (error.kind, error.attempts, clock.now, server.open) == ("deadline", 1, 1005.0, 0)
        assert error.partial is not None
        assert text == error.partial.text != ""
        assert request.context is not None
        assert [entry.state for entry in request.context.entries] == ["estimated"]

    async def test_nothing_is_handed_out_after_it(self) -> None:
        """A reader that takes its time has as little left as a server that does."""
        clock, provider = Clock(), Scripted(deltas("It ", "is ", "42."))
        stream = retrying(provider, clock).stream(due_in(clock, 5.0))
        texts: list[str] = []

        async def read_slowly() -> None:
            async for chunk in stream:
                texts.append(chunk.text)
                await clock.wait(3.0)

        [error] = await clock.run(read_slowly())
        assert isinstance(error, DeadlineExceededError)
        assert texts == ["It ", "is "]
        assert provider.started == provider.ended == 1

    async def test_a_stream_whose_final_chunk_was_there_is_whole(self) -> None:
        """Whether its reader takes his time, or the server what it has left to close it."""
        clock = Clock()

        async def read(stream: AsyncGenerator[StreamChunk, None], pause: float) -> list[str]:
            texts: list[str] = []
            async for chunk in stream:
                texts.append(chunk.text)
                if chunk.is_final:
                    await clock.wait(pause)
            return texts

        for provider, pause in ((Scripted(deltas("42.")), 6.0), (NeverEnding(clock), 0.0)):
            breaker = CircuitBreakerProvider(retrying(provider, clock), clock=clock)
            context = CallContext(deadline=clock.now + 5.0)
            stream = breaker.stream(a_request(context=context))
            [texts] = await clock.run(read(stream, pause))
            assert texts == ["42.", ""]
            assert provider.started == provider.ended == 1
            assert [entry.state for entry in context.entries] == ["exact"]

    async def test_a_providers_own_timeout_is_not_taken_for_it(self) -> None:
        clock, provider = Clock(), Scripted(TimeoutError("slow"), an_answer())
        [answer] = await clock.run(retrying(provider, clock).complete(due_in(clock, 5.0)))
        assert answer == an_answer(attempts=2)

    async def test_what_a_provider_raises_when_it_is_cancelled_is_its_cause(self) -> None:
        clock, raised = Clock(), ProviderConnectionError("closed", kind="reset")

        async def hang() -> None:
            try:
                await clock.wait(math.inf)
            except asyncio.CancelledError:
                raise raised from None

        [error] = await clock.run(retrying(Scripted(hang), clock).complete(due_in(clock, 5.0)))
        assert isinstance(error, DeadlineExceededError)
        assert error.kind == "deadline"
        assert error.__cause__ is raised

    async def test_cancelling_is_cancelling_also_under_a_deadline(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.wait(math.inf)

        task = asyncio.ensure_future(retrying(Scripted(hang), clock).complete(due_in(clock, 5.0)))
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    async def test_by_default_it_is_kept_in_real_time(self) -> None:
        async def hang() -> None:
            await asyncio.sleep(30)

        loop = asyncio.get_running_loop()
        request = a_request(context=CallContext(deadline=loop.time() + 0.005))
        with pytest.raises(DeadlineExceededError, match="deadline"):
            await RetryingProvider(Scripted(hang)).complete(request)


class TestAttemptsNotBegun:
    async def test_after_the_deadline_nothing_is_sent(self) -> None:
        clock, provider = Clock(), Scripted(an_answer())
        for request in (due_in(clock, 0.0), due_in(clock, -5.0)):
            [error] = await clock.run(retrying(provider, clock).complete(request))
            assert isinstance(error, DeadlineExceededError)
            assert (error.kind, error.attempts) == ("deadline", 0)
            assert request.context is not None
            assert request.context.entries == []
        assert provider.calls == 0

    async def test_a_gate_that_opens_at_the_deadline_is_not_waited_for(self) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=10.0), an_answer())
        limited = retrying(provider, clock)
        first = asyncio.ensure_future(limited.complete(a_request()))
        await clock.settle()
        [error] = await clock.run(limited.complete(due_in(clock, 10.0)))
        assert isinstance(error, RateLimitError)
        assert (error.attempts, clock.now) == (0, 1000.0)
        await clock.run(first)

    async def test_a_sleep_that_ends_late_starts_no_attempt(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"), an_answer())

        async def oversleep(seconds: float) -> None:
            await clock.wait(seconds + 10)

        late = RetryingProvider(
            provider, clock=clock, sleep=oversleep, timeout=clock.timeout, random=lambda: 1.0
        )
        [error] = await clock.run(late.complete(due_in(clock, 5.0)))
        assert isinstance(error, DeadlineExceededError)
        assert (error.attempts, provider.calls) == (1, 1)


class TestWaiting:
    """At the gate that a 429 closes, and before a retry."""

    async def test_all_waits_at_the_gate_come_out_of_one_patience(self) -> None:
        clock, provider = Clock(), Scripted(an_answer())
        retry = RetryingProvider(
            provider, retry_after_cap=60.0, clock=clock, sleep=clock.sleep, timeout=clock.timeout
        )
        retry._paces[MODEL].close(clock.now + 40.0)
        task = asyncio.ensure_future(retry.complete(a_request()))
        await clock.settle()
        retry._paces[MODEL].close(clock.now + 70.0)
        [error] = await clock.run(task)
        assert isinstance(error, RateLimitError)
        assert (error.retry_after, clock.now, provider.calls) == (30.0, 1040.0, 0)

    async def test_only_who_waits_at_the_gate_waits_for_the_others_there(self) -> None:
        clock = Clock()
        limit = RateLimitError("no", status=429, retry_after=2.0)
        gone = ProviderConnectionError("gone", kind="reset")
        for script, sleeps in (([gone], [0.5]), ([limit, gone], [2.5, 1.0])):
            clock.sleeps.clear()
            retry = retrying(Scripted(*script, an_answer()), clock)
            retry._paces[MODEL].join_queue()
            await clock.run(retry.complete(a_request()))
            assert clock.sleeps == sleeps

    async def test_an_error_without_a_status_is_told_by_its_name(self) -> None:
        clock = Clock()
        gone = ProviderConnectionError("gone", kind="reset")
        [error] = await clock.run(retrying(Scripted(gone, gone, gone), clock).complete(a_request()))
        two = "ProviderConnectionError, ProviderConnectionError"
        assert error.__notes__[-1] == f"Attempts before this failed with: {two}."

    @pytest.mark.parametrize("late", [0.0, 1.0])
    async def test_an_error_at_the_deadline_or_later_is_raised_as_it_is(self, late: float) -> None:
        clock = Clock()

        def fail_late() -> None:
            clock.now += 5.0 + late
            raise ServerError("no", status=500)

        [error] = await clock.run(retrying(Scripted(fail_late), clock).complete(due_in(clock, 5.0)))
        assert isinstance(error, ServerError)
        assert (clock.sleeps, getattr(error, "__notes__", [])) == ([], [])


class TestTheBreaker:
    """A provider that let the time pass has failed; one that was answering, or never asked, not."""

    def breaking(self, inner: Any, clock: Clock) -> CircuitBreakerProvider:
        return CircuitBreakerProvider(retrying(inner, clock), failure_threshold=1, clock=clock)

    async def test_no_answer_by_the_deadline_is_a_failure(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.wait(math.inf)

        breaker = self.breaking(Scripted(hang), clock)
        await clock.run(breaker.complete(due_in(clock, 5.0)))
        assert breaker.state(MODEL) == "open"

    async def test_a_caller_in_a_hurry_says_nothing_about_the_provider(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.wait(math.inf)

        breaker = self.breaking(Scripted(hang, hang), clock)
        [error] = await clock.run(breaker.complete(due_in(clock, 4.9)))
        assert isinstance(error, DeadlineExceededError)
        [(_, error)] = await clock.run(text_until_error(breaker.stream(due_in(clock, 4.9))))
        assert isinstance(error, DeadlineExceededError)
        assert breaker.state(MODEL) == "closed"

    async def test_the_time_that_a_call_waits_is_not_the_providers(self) -> None:
        """Every wait is counted, in calls and in streams."""
        for streamed in (False, True):
            clock = Clock()

            async def hang(clock: Clock = clock) -> None:
                await clock.wait(math.inf)

            limit = RateLimitError("no", status=429, retry_after=2.0)
            breaker = CircuitBreakerProvider(
                retrying(Scripted(limit, limit, hang), clock), failure_threshold=1, clock=clock
            )
            request = due_in(clock, 8.9)
            call = (
                text_until_error(breaker.stream(request)) if streamed else breaker.complete(request)
            )
            await clock.run(call)
            assert request.context is not None
            assert (clock.now, request.context.waited) == (1008.9, 4.0)
            assert breaker.state(MODEL) == "closed"

    async def test_a_limit_that_is_no_callers_deadline_is_always_a_failure(self) -> None:
        for streamed in (False, True):
            late = DeadlineExceededError("the provider's own")
            breaker = CircuitBreakerProvider(Scripted(late), failure_threshold=1, clock=Clock())
            if streamed:
                await text_until_error(breaker.stream(a_request()))
            else:
                with pytest.raises(DeadlineExceededError):
                    await breaker.complete(a_request())
            assert breaker.state(MODEL) == "open"

    async def test_after_a_probe_calls_are_let_through_again(self) -> None:
        clock = Clock()
        refused = ServerError("no", status=500, retryable=False)
        breaker = self.breaking(Scripted(refused, an_answer(), an_answer()), clock)
        with pytest.raises(ServerError):
            await breaker.complete(a_request())
        clock.now += 1000.0
        for _ in range(2):
            assert await breaker.complete(a_request()) == an_answer()

    async def test_a_call_of_which_nothing_was_sent_is_neutral(self) -> None:
        clock = Clock()
        breaker = self.breaking(Scripted(an_answer()), clock)
        await clock.run(breaker.complete(due_in(clock, 0.0)))
        assert breaker.state(MODEL) == "closed"

    async def test_an_answer_that_was_coming_is_neutral(self) -> None:
        clock = Clock()
        breaker = self.breaking(Scripted(deltas("It ", "is ", "42.")), clock)

        async def read_slowly() -> None:
            async for _ in breaker.stream(due_in(clock, 5.0)):
                await clock.wait(3.0)

        [error] = await clock.run(read_slowly())
        assert isinstance(error, DeadlineExceededError)
        assert breaker.state(MODEL) == "closed"


FAULTS: dict[str, list[Act]] = {
    "hangs": [Act(delay=math.inf)],
    "answers late": [Act(delay=2.0)],
    "stalls in the middle": [Act(pause=math.inf)],
    "drips": [Act(pause=1.0)],
    "fails each time": [Act(500, body=b"{}")] * 3,
    "fails late each time": [Act(503, body=b"{}", delay=0.7)] * 3,
    "asks to wait": [Act(429, {"retry-after": "2"}, b"{}")] * 3,
    "asks to wait for too long": [Act(429, {"retry-after": "600"}, b"{}")],
    "is gone": [Act(error=lambda: ProviderConnectionError("gone", kind="connect"))] * 3,
    "breaks off": [Act(events=1, error=lambda: ProviderConnectionError("gone", kind="reset"))] * 3,
    "refuses and then hangs": [Act(429, {"retry-after": "1"}, b"{}"), Act(delay=math.inf)],
    "is well": [],
}


@pytest.mark.row("N6", "N7", "N11", "H7")
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_takes_a_call_past_its_deadline(
    fault: str, wire: str, streamed: bool
) -> None:
    """Not by the least bit of virtual time, whatever goes wrong, and nothing stays open."""
    for deadline in (0.0, 0.2, 0.5, 0.7, 1.0, 1.9, 2.0, 3.5, 30.0):
        clock = Clock(0.0)
        server = VirtualServer(WIRES[wire](), clock, *FAULTS[fault])
        provider = stack(adapter(wire, server), clock)
        request = due_in(clock, deadline)
        work = collect(provider.stream(request)) if streamed else provider.complete(request)
        [result] = await clock.run(work)
        assert clock.now <= deadline
        assert all(start < deadline for start in server.starts)
        assert server.open == 0
        assert not isinstance(result, BaseException) or isinstance(result, AetherError)
        if isinstance(result, ProviderError):
            assert result.attempts == len(server.starts)
        assert not isinstance(result, CircuitOpenError)
        assert len(provider.usage.ledger) == len(server.starts)
        assert all(entry.state != "pending" for entry in provider.usage.ledger)


async def test_a_chunk_is_worth_no_generator_of_its_own() -> None:
    """A stream under a deadline that is left is closed with its task, without the collector."""
    clock, provider = Clock(), Scripted([StreamChunk(text="It "), StreamChunk(text="is ")])
    stream = retrying(provider, clock).stream(due_in(clock, 5.0))
    async for _ in stream:
        break
    await stream.aclose()
    assert provider.started == provider.ended == 1
