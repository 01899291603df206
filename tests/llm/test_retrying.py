"""What is sent again, when, and what the caller gets in the end."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import ssl
import statistics
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    InputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm._pacing import Pace
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import CallContext, LLMRequest, LLMResponse, Message, StreamChunk
from aether.llm.deadline import Deadline, deadline_after
from tests.llm.scripted import (
    MODEL,
    Clock,
    Scripted,
    WithoutStream,
    a_request,
    an_answer,
    collect,
    deltas,
    text_until_error,
)

TRANSIENT = [
    ProviderConnectionError,
    RequestTimeoutError,
    RateLimitError,
    OverloadedError,
    ServerError,
    StreamInterruptedError,
]
REFUSALS = [
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    BadRequestError,
    ContextLengthError,
    ContentFilterError,
    QuotaExceededError,
    ProtocolError,
]


def retrying(inner: Any, clock: Clock, **options: Any) -> RetryingProvider:
    """Retry in virtual time; `random` gives the longest wait unless it is told otherwise."""
    options = {"random": lambda: 1.0, **options}
    return RetryingProvider(inner, clock=clock, sleep=clock.sleep, timeout=clock.timeout, **options)


async def outcome(clock: Clock, provider: RetryingProvider, **fields: Any) -> Any:
    [result] = await clock.run(provider.complete(a_request(**fields)))
    return result


class TestWhatIsRetried:
    async def test_a_call_that_succeeds_is_made_once(self) -> None:
        clock, provider = Clock(), Scripted(an_answer())
        result = await outcome(clock, retrying(provider, clock))
        assert result == an_answer()
        assert (provider.calls, clock.sleeps) == (1, [])

    @pytest.mark.parametrize("kind", TRANSIENT)
    @pytest.mark.parametrize("failures", [1, 2])
    async def test_a_transient_error_is_tried_again(
        self, kind: type[ProviderError], failures: int
    ) -> None:
        clock, provider = Clock(), Scripted(*[kind("no")] * failures, an_answer())
        result = await outcome(clock, retrying(provider, clock))
        assert result == an_answer(attempts=failures + 1)
        assert provider.calls == failures + 1
        assert clock.sleeps == [0.5, 1.0][:failures]

    @pytest.mark.parametrize("kind", TRANSIENT)
    async def test_the_third_failure_is_the_last(self, kind: type[ProviderError]) -> None:
        clock, provider = Clock(), Scripted(kind("no"))
        error = await outcome(clock, retrying(provider, clock))
        assert type(error) is kind
        assert error.attempts == provider.calls == 3

    @pytest.mark.parametrize("kind", REFUSALS)
    async def test_a_refusal_is_not_tried_again(self, kind: type[ProviderError]) -> None:
        clock, provider = Clock(), Scripted(kind("no"))
        error = await outcome(clock, retrying(provider, clock))
        assert type(error) is kind
        assert (error.attempts, provider.calls, clock.sleeps) == (1, 1, [])

    async def test_the_error_is_asked_and_not_its_class(self) -> None:
        clock = Clock()
        willing = Scripted(ProviderError("conflict", status=409, retryable=True), an_answer())
        assert await outcome(clock, retrying(willing, clock)) == an_answer(attempts=2)
        unwilling = Scripted(ServerError("x-should-retry: false", retryable=False))
        assert isinstance(await outcome(clock, retrying(unwilling, clock)), ServerError)
        assert (willing.calls, unwilling.calls) == (2, 1)

    @pytest.mark.parametrize("raised", [InputError("no"), ConfigurationError("no")])
    async def test_an_error_that_is_not_the_providers_passes_unchanged(
        self, raised: AetherError
    ) -> None:
        clock, provider = Clock(), Scripted(raised)
        assert await outcome(clock, retrying(provider, clock)) is raised
        assert provider.calls == 1

    async def test_the_same_request_goes_out_each_time(self) -> None:
        clock, messages = Clock(), [Message("user", "first")]
        extra = {"seed": 1}

        async def change_and_fail() -> None:
            messages.append(Message("user", "smuggled in"))
            extra["seed"] = 2
            raise ServerError("no")

        provider = Scripted(change_and_fail, an_answer())
        request = LLMRequest(messages, MODEL, extra_body=extra)
        await clock.run(retrying(provider, clock).complete(request))
        first, second = provider.requests
        assert first is second
        assert [message.text for message in second.messages] == ["first"]
        assert second.extra_body == {"seed": 1}


class TestForeignExceptions:
    @pytest.mark.parametrize(
        ("raised", "expected", "calls"),
        [
            (ConnectionResetError("reset"), ProviderConnectionError, 3),
            (ConnectionRefusedError("refused"), ProviderConnectionError, 3),
            (OSError("no route"), ProviderConnectionError, 3),
            (TimeoutError("too slow"), RequestTimeoutError, 3),
            (ssl.SSLCertVerificationError("bad certificate"), ProviderConnectionError, 1),
            (ValueError("bad"), ProviderError, 1),
            (KeyError("choices"), ProviderError, 1),
            (RuntimeError("boom"), ProviderError, 1),
        ],
    )
    async def test_they_come_out_as_aether_errors(
        self, raised: Exception, expected: type[ProviderError], calls: int
    ) -> None:
        clock, provider = Clock(), Scripted(raised)
        error = await outcome(clock, retrying(provider, clock, provider="ollama"))
        assert type(error) is expected
        assert error.__cause__ is raised
        assert (error.provider, error.model) == ("ollama", MODEL)
        assert error.attempts == provider.calls == calls

    @pytest.mark.parametrize(
        "fields",
        [{"text": None}, {"input_tokens": "many"}, {"tool_calls": [{"id": "1", "name": 7}]}],
    )
    async def test_an_answer_of_values_that_do_not_fit_is_the_providers_fault(
        self, fields: dict[str, Any]
    ) -> None:
        """It was sent and answered: the caller's input is not to blame, and it may have cost."""

        class Careless:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                return LLMResponse(**{"text": "It is 42.", "model": MODEL, **fields})

        clock, context = Clock(), CallContext()
        error = await outcome(clock, retrying(Careless(), clock, provider="acme"), context=context)
        assert isinstance(error, ProtocolError)
        assert next(iter(fields)) in str(error)
        assert isinstance(error.__cause__, InputError)
        assert (error.provider, error.attempts, clock.sleeps) == ("acme", 1, [])
        assert [(e.state, e.error) for e in context.entries] == [("unknown", "ProtocolError")]

    async def test_in_a_stream_it_is_the_providers_fault_too(self) -> None:
        class Careless:
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                raise NotImplementedError

            async def stream(self, request: LLMRequest, /) -> Any:
                yield StreamChunk(text="It ")
                yield StreamChunk(response=LLMResponse(text=None, model=MODEL))  # type: ignore[arg-type]  # the fault

        stream = retrying(Careless(), clock := Clock()).stream(a_request())
        [(text, error)] = await clock.run(text_until_error(stream))
        assert text == "It "
        assert isinstance(error, StreamInterruptedError)
        assert isinstance(error.__cause__, InputError)

    @pytest.mark.parametrize("answer", [None, "It is 42.", {"text": "It is 42."}])
    async def test_what_is_no_response_is_an_error(self, answer: Any) -> None:
        class Wrong:
            calls = 0

            async def complete(self, request: LLMRequest, /) -> Any:
                self.calls += 1
                return answer

        clock, wrong, context = Clock(), Wrong(), CallContext()
        stack = retrying(wrong, clock, provider="acme")
        error = await outcome(clock, stack, context=context)
        assert isinstance(error, ProtocolError)
        assert error.provider == "acme"
        assert type(answer).__name__ in str(error)
        assert (error.attempts, wrong.calls) == (1, 1)
        assert [entry.state for entry in context.entries] == ["unknown"]

    async def test_whatever_an_exception_says_is_told_on_one_printable_line(self) -> None:
        class Mute(Exception):  # noqa: N818  # a third party's
            def __str__(self) -> str:
                raise KeyError

        for raised in (RuntimeError("a\r\nb\x1b[31m\u202ec"), RuntimeError("x" * 9000), Mute()):
            clock = Clock()
            error = await outcome(clock, retrying(Scripted(raised), clock))
            assert isinstance(error, ProviderError)
            assert str(error).isprintable()
            assert len(str(error)) <= 500

    async def test_cancelling_is_no_failure(self) -> None:
        clock, provider = Clock(), Scripted(asyncio.CancelledError())
        request = a_request(context=CallContext())
        [result] = await clock.run(retrying(provider, clock).complete(request))
        assert isinstance(result, asyncio.CancelledError)
        assert provider.calls == 1
        assert request.context is not None
        assert [entry.state for entry in request.context.entries] == ["unknown"]


class TestWaiting:
    async def test_the_wait_doubles_up_to_its_maximum(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        await outcome(clock, retrying(provider, clock, max_attempts=7))
        assert clock.sleeps == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]

    @pytest.mark.row("H8")
    async def test_the_wait_is_spread_over_its_whole_length(self) -> None:
        clock, chance = Clock(), random.Random(7)
        waits: list[float] = []
        for _ in range(10_000):
            clock.sleeps.clear()
            provider = retrying(Scripted(RateLimitError("no")), clock, random=chance.random)
            await outcome(clock, provider)
            waits.append(clock.sleeps[1])
        assert 0 <= min(waits) < 0.01
        assert 0.99 < max(waits) <= 1.0
        assert statistics.mean(waits) == pytest.approx(0.5, abs=0.03)
        assert statistics.pstdev(waits) == pytest.approx(1 / math.sqrt(12), abs=0.03)

    @pytest.mark.parametrize("kind", [RateLimitError, OverloadedError, ServerError])
    async def test_the_servers_time_is_waited_for(self, kind: type[ProviderError]) -> None:
        clock, provider = Clock(), Scripted(kind("no", retry_after=2.0), an_answer())
        assert await outcome(clock, retrying(provider, clock)) == an_answer(attempts=2)
        assert clock.sleeps == [2.0]

    async def test_a_fraction_of_a_second_is_waited_for_too(self) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=0.25), an_answer())
        await outcome(clock, retrying(provider, clock, random=lambda: 0.0))
        assert clock.sleeps == [0.25]

    async def test_a_short_retry_after_does_not_shorten_the_backoff(self) -> None:
        clock = Clock()
        provider = Scripted(RateLimitError("no", retry_after=0.25), an_answer())
        await outcome(clock, retrying(provider, clock))
        assert clock.sleeps == [0.5]

    @pytest.mark.parametrize("nonsense", [0, -1.0, math.nan, "soon", "7"])
    async def test_a_retry_after_that_is_none_is_ignored(self, nonsense: Any) -> None:
        clock = Clock()
        provider = Scripted(RateLimitError("no", retry_after=nonsense), an_answer())
        assert await outcome(clock, retrying(provider, clock)) == an_answer(attempts=2)
        assert clock.sleeps == [0.5]

    @pytest.mark.row("H7")
    @pytest.mark.parametrize("seconds", [120.1, 600.0, math.inf])
    async def test_a_retry_after_beyond_the_cap_is_raised_at_once(self, seconds: float) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=seconds))
        error = await outcome(clock, retrying(provider, clock))
        assert isinstance(error, RateLimitError)
        assert error.retry_after == seconds
        assert (provider.calls, clock.sleeps) == (1, [])
        assert any("120 s" in note for note in error.__notes__)

    @pytest.mark.row("H7")
    async def test_a_retry_after_beyond_the_deadline_is_raised_at_once(self) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=30.0))
        context = CallContext(deadline=clock.now + 20)
        error = await outcome(clock, retrying(provider, clock), context=context)
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 30.0
        assert (provider.calls, clock.sleeps) == (1, [])

    async def test_a_retry_after_that_ends_with_the_deadline_is_raised_at_once(self) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=20.0))
        context = CallContext(deadline=clock.now + 20)
        error = await outcome(clock, retrying(provider, clock), context=context)
        assert isinstance(error, RateLimitError)
        assert (provider.calls, clock.sleeps) == (1, [])

    async def test_no_retry_starts_after_the_deadline(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        context = CallContext(deadline=clock.now + 0.75)
        error = await outcome(clock, retrying(provider, clock), context=context)
        assert isinstance(error, ServerError)
        assert (provider.calls, clock.sleeps) == (2, [0.5])
        assert any("deadline" in note for note in error.__notes__)

    async def test_a_sleep_that_takes_no_time_ends_the_wait_all_the_same(self) -> None:
        sleeps: list[float] = []

        async def note(seconds: float) -> None:
            sleeps.append(seconds)

        provider = Scripted(RateLimitError("no", retry_after=2.0), an_answer())
        stack = RetryingProvider(provider, sleep=note)
        assert await stack.complete(a_request()) == an_answer(attempts=2)
        assert await stack.complete(a_request()) == an_answer()
        assert sleeps == [2.0]

    async def test_cancelling_ends_a_wait(self) -> None:
        clock, provider = Clock(), Scripted(RateLimitError("no", retry_after=60.0), an_answer())
        stack = retrying(provider, clock)
        task = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert provider.calls == 1


class TestDeadline:
    """What is awaited by a call is cut off when its deadline comes."""

    def deadline(self, clock: Clock, seconds: float | None) -> Deadline:
        at = None if seconds is None else clock.now + seconds
        return Deadline(at, clock, clock.timeout)

    def test_it_has_come_at_its_very_moment(self) -> None:
        clock = Clock()
        deadline = self.deadline(clock, 1.5)
        deadline.check()
        assert deadline.left() == 1.5
        clock.now += 1.5
        with pytest.raises(
            RequestTimeoutError, match=r"^The call's deadline has come\. Allow it more time"
        ) as caught:
            deadline.check()
        assert caught.value.kind == "deadline"

    def test_any_number_of_seconds_will_do(self) -> None:
        longest = sys.float_info.max
        assert deadline_after(longest, clock=lambda: 1.0) == 1.0 + longest
        assert deadline_after(0.5, clock=lambda: 1.0) == 1.5
        assert deadline_after(None) is None

    async def test_without_one_nothing_is_limited(self) -> None:
        def no_limit(seconds: float) -> asyncio.Timeout:
            raise AssertionError(seconds)

        deadline = Deadline(None, Clock(), no_limit)
        deadline.check()
        assert deadline.left() == math.inf

        async def work() -> int:
            return 42

        chunks = Scripted(deltas("42")).stream(a_request())
        assert await deadline.wait_for(work) == 42
        assert deadline.iterate(chunks) is chunks
        await chunks.aclose()

    async def test_work_is_cancelled_when_it_comes(self) -> None:
        clock, ended = Clock(), []

        async def work() -> None:
            try:
                await clock.wait(10)
            finally:
                ended.append(clock.now)

        [error] = await clock.run(self.deadline(clock, 2.0).wait_for(work))
        assert isinstance(error, RequestTimeoutError)
        assert (error.kind, ended) == ("deadline", [1002.0])
        [error] = await clock.run(self.deadline(clock, 0.0).wait_for(work))
        assert isinstance(error, RequestTimeoutError)
        assert len(ended) == 1  # it was not begun

    async def test_a_time_out_of_the_work_itself_is_another(self) -> None:
        clock, own = Clock(), TimeoutError("its own")

        async def work() -> None:
            raise own

        [error] = await clock.run(self.deadline(clock, 2.0).wait_for(work))
        assert error is own

    async def test_each_item_is_waited_for_until_then(self) -> None:
        clock = Clock()

        async def items() -> AsyncGenerator[int, None]:
            yield 1
            await clock.wait(1)
            yield 2
            await clock.wait(10)
            yield 3

        seen: list[int] = []

        async def read() -> None:
            async for item in self.deadline(clock, 2.0).iterate(items()):
                seen.append(item)  # noqa: PERF401  # what was seen before it broke off counts

        [error] = await clock.run(read())
        assert isinstance(error, RequestTimeoutError)
        assert (seen, clock.now) == ([1, 2], 1002.0)


class TestWhatTheCallerGets:
    async def test_the_error_tells_of_the_attempts_before_it(self) -> None:
        clock = Clock()
        provider = Scripted(
            ServerError("secret-1", status=500),
            ProviderConnectionError("secret-2"),
            OverloadedError("busy", status=529),
        )
        error = await outcome(clock, retrying(provider, clock))
        assert isinstance(error, OverloadedError)
        [note] = error.__notes__
        assert "ServerError (status 500), ProviderConnectionError" in note
        assert "secret" not in note

    async def test_an_error_raised_over_and_over_does_not_grow(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        first = await outcome(clock, stack)
        second = await outcome(clock, stack)
        assert first is second
        assert len(first.__notes__) == 1
        assert first.attempts == 3

    async def test_a_failed_call_leaves_nothing_to_the_garbage_collector(self) -> None:
        async def fail() -> None:
            raise ServerError("no")

        def kept() -> int:
            return sum(
                type(thing).__name__ in {"_Call", "ServerError"} for thing in gc.get_objects()
            )

        clock = Clock()
        stack = retrying(Scripted(fail, an_answer()), clock)
        gc.collect()
        gc.disable()
        try:
            before = kept()
            assert await outcome(clock, stack) == an_answer(attempts=2)
            assert kept() == before
        finally:
            gc.enable()

    @pytest.mark.parametrize(
        "options",
        [
            {"max_attempts": 0},
            {"max_attempts": 1.5},
            {"max_attempts": True},
            {"base_delay": -1},
            {"max_delay": math.nan},
            {"retry_after_cap": math.inf},
            {"base_delay": "1"},
        ],
    )
    def test_an_option_that_cannot_work_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(options))} must"):
            RetryingProvider(Scripted(an_answer()), **options)

    async def test_it_is_a_provider_like_the_one_inside(self) -> None:
        provider = Scripted(an_answer(), default_model="m")
        stack = RetryingProvider(provider)
        assert stack.inner is provider
        assert stack.default_model == "m"
        assert repr(stack) == "Retrying > Scripted"
        await stack.aclose()
        assert provider.closed


class TestGate:
    """A 429 that names a time holds back the other calls to the same model."""

    def stack(
        self, clock: Clock, *script: Any, **options: Any
    ) -> tuple[RetryingProvider, Scripted]:
        provider = Scripted(*script)
        return retrying(provider, clock, **options), provider

    async def test_other_calls_wait_until_its_time(self) -> None:
        clock, starts = Clock(), []

        async def answer() -> LLMResponse:
            starts.append(clock.now)
            return an_answer()

        stack, provider = self.stack(clock, RateLimitError("no", retry_after=10.0), answer)
        results = await clock.run(*(stack.complete(a_request()) for _ in range(20)))
        assert all(isinstance(result, LLMResponse) for result in results)
        assert provider.calls == 21
        assert min(starts) == 1010.0

    async def test_those_who_waited_do_not_all_start_at_once(self) -> None:
        clock, starts, chance = Clock(), [], random.Random(3)

        async def answer() -> LLMResponse:
            starts.append(clock.now)
            return an_answer()

        script = (RateLimitError("no", retry_after=10.0), answer)
        stack, _ = self.stack(clock, *script, random=chance.random)
        await clock.run(*(stack.complete(a_request()) for _ in range(20)))
        assert starts.count(1010.0) == 1
        assert len(set(starts)) == 20
        assert max(starts) <= 1010.5

    async def test_another_model_is_not_held_back(self) -> None:
        clock = Clock()
        stack, _ = self.stack(clock, RateLimitError("no", retry_after=10.0), an_answer())
        limited = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        assert await stack.complete(a_request(model="other")) == an_answer()
        assert clock.now == 1000.0
        await clock.run(limited)

    async def test_nobody_waits_longer_than_needed(self) -> None:
        clock = Clock()
        stack, _ = self.stack(clock, RateLimitError("no", retry_after=10.0), an_answer())
        await clock.run(stack.complete(a_request()))
        clock.sleeps.clear()
        await clock.run(stack.complete(a_request()))
        assert clock.sleeps == []

    @pytest.mark.row("H7")
    @pytest.mark.parametrize(("later", "sleeps"), [(9.5, [0.5]), (10.0, []), (11.0, [])])
    async def test_what_is_left_of_the_time_is_waited_for(
        self, later: float, sleeps: list[float]
    ) -> None:
        clock = Clock()
        script = RateLimitError("no", retry_after=10.0), an_answer()
        stack, _ = self.stack(clock, *script, max_attempts=1)
        await outcome(clock, stack)
        clock.now += later
        assert await outcome(clock, stack) == an_answer()
        assert clock.sleeps == sleeps

    async def test_a_call_waits_for_as_long_as_it_may_and_not_until_its_deadline(self) -> None:
        clock = Clock()
        script = RateLimitError("no", retry_after=120.0), an_answer()
        stack, provider = self.stack(clock, *script, max_attempts=1)
        await outcome(clock, stack)
        context = CallContext(deadline=clock.now + 120)
        assert isinstance(await outcome(clock, stack, context=context), RateLimitError)
        assert (provider.calls, clock.sleeps) == (1, [])
        assert await outcome(clock, stack) == an_answer()
        assert clock.sleeps == [120.0]

    async def test_a_call_whose_deadline_is_earlier_fails_at_once(self) -> None:
        clock = Clock()
        script = RateLimitError("no", retry_after=10.0), an_answer()
        stack, provider = self.stack(clock, *script, provider="acme")
        limited = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        hasty = a_request(context=CallContext(deadline=clock.now + 5))
        [error] = await clock.run(stack.complete(hasty))
        assert isinstance(error, RateLimitError)
        assert str(error).startswith("Not sent: the provider has refused calls to this model for")
        assert "another 10 s, which is longer than this call may wait" in str(error)
        assert (error.provider, error.model) == ("acme", MODEL)
        assert (error.retry_after, error.attempts, clock.now) == (10.0, 0, 1000.0)
        assert provider.calls == 1
        assert hasty.context is not None
        assert hasty.context.entries == []
        await clock.run(limited)

    async def test_while_the_server_asks_for_more_than_the_cap_calls_fail_at_once(self) -> None:
        clock = Clock()
        stack, provider = self.stack(clock, RateLimitError("no", retry_after=600.0), an_answer())
        first = await outcome(clock, stack)
        assert first.retry_after == 600.0
        clock.now += 100
        second = await outcome(clock, stack)
        assert isinstance(second, RateLimitError)
        assert second.retry_after == 500.0
        assert provider.calls == 1
        clock.now += 500
        assert await outcome(clock, stack) == an_answer()

    async def test_the_gate_opens_within_an_hour_whatever_a_server_says(self) -> None:
        clock = Clock()
        stack, _ = self.stack(clock, RateLimitError("no", retry_after=math.inf), an_answer())
        await outcome(clock, stack)
        clock.now += 3600
        assert await outcome(clock, stack) == an_answer()

    async def test_a_second_429_closes_it_again_but_not_for_ever(self) -> None:
        clock = Clock()
        stack, _ = self.stack(
            clock, RateLimitError("no", retry_after=100.0), RateLimitError("no", retry_after=100.0)
        )
        results = await clock.run(*(stack.complete(a_request()) for _ in range(3)))
        assert all(isinstance(result, RateLimitError) for result in results)
        assert clock.now <= 1000.0 + 3 * 120.0

    @pytest.mark.parametrize(("first", "second"), [(10.0, 30.0), (30.0, 10.0)])
    async def test_the_latest_of_several_times_counts(self, first: float, second: float) -> None:
        clock, starts = Clock(), []

        async def refuse_late() -> None:
            await clock.sleep(5.0)
            raise RateLimitError("no", retry_after=second)

        async def answer() -> LLMResponse:
            starts.append(clock.now)
            return an_answer()

        # The second call is under way already when the first is refused.
        script = (refuse_late, RateLimitError("no", retry_after=first), answer)
        stack, _ = self.stack(clock, *script, random=lambda: 0.0)

        async def arrive_later() -> Any:
            await clock.sleep(6.0)
            return await stack.complete(a_request())

        early = [stack.complete(a_request()) for _ in range(2)]
        await clock.run(*early, arrive_later())
        assert len(starts) == 3
        assert min(starts) == 1000.0 + max(first, 5.0 + second)

    async def test_the_waits_of_a_call_are_added_up_against_the_cap(self) -> None:
        clock = Clock()

        async def refuse_late() -> None:
            await clock.sleep(90.0)
            raise RateLimitError("no", retry_after=100.0)

        stack, provider = self.stack(
            clock, refuse_late, RateLimitError("no", retry_after=100.0), an_answer()
        )
        results = await clock.run(*(stack.complete(a_request()) for _ in range(2)))
        assert results[0] == an_answer(attempts=2)
        assert isinstance(results[1], RateLimitError)
        assert results[1].retry_after == 90.0
        assert results[1].attempts == 1
        assert provider.calls == 3

    async def test_the_spread_keeps_to_the_deadline(self) -> None:
        clock, starts = Clock(), []

        async def answer() -> LLMResponse:
            starts.append(clock.now)
            return an_answer()

        stack, _ = self.stack(clock, RateLimitError("no", retry_after=10.0), answer)
        deadline = clock.now + 10.1
        requests = [a_request(context=CallContext(deadline=deadline)) for _ in range(5)]
        await clock.run(*map(stack.complete, requests))
        assert len(starts) == 5
        assert max(starts) <= deadline

    async def test_half_of_the_time_that_is_left_is_for_the_attempt(self) -> None:
        clock = Clock()
        script = RateLimitError("no", retry_after=10.0), an_answer()
        stack, _ = self.stack(clock, *script, base_delay=60.0)
        requests = [a_request(context=CallContext(deadline=clock.now + 14)) for _ in range(2)]
        await clock.run(*map(stack.complete, requests))
        assert clock.sleeps == [10.0, 12.0]

    async def test_a_503_that_names_a_time_holds_back_nobody_else(self) -> None:
        clock = Clock()
        stack, _ = self.stack(clock, OverloadedError("no", retry_after=10.0), an_answer())
        failed = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        assert await stack.complete(a_request()) == an_answer()
        assert clock.now == 1000.0
        await clock.run(failed)

    async def test_a_cancelled_waiter_leaves_the_queue(self) -> None:
        clock = Clock()
        stack, _ = self.stack(clock, RateLimitError("no", retry_after=10.0), an_answer())
        limited = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        waiting = [asyncio.ensure_future(stack.complete(a_request())) for _ in range(3)]
        await clock.settle()
        for task in waiting:
            task.cancel()
        await clock.run(limited)
        clock.sleeps.clear()
        stack.inner.script = (RateLimitError("no", retry_after=10.0),)  # type: ignore[attr-defined]  # the script is a test's
        await outcome(clock, stack)
        assert clock.sleeps == [10.0, 10.0]


class TestBudget:
    async def test_an_outage_is_not_made_much_worse(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        for _ in range(1000):
            assert isinstance(await outcome(clock, stack), ServerError)
        assert provider.calls == 1020

    async def test_single_calls_get_all_their_attempts(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        assert [(await outcome(clock, stack)).attempts for _ in range(10)] == [3] * 10

    async def test_without_budget_the_first_error_is_raised(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        for _ in range(10):
            await outcome(clock, stack)
        error = await outcome(clock, stack)
        assert error.attempts == 1
        assert any("budget" in note for note in error.__notes__)

    async def test_retries_that_helped_cost_nothing(self) -> None:
        clock = Clock()
        script: list[Any] = [ServerError("no"), ServerError("no"), an_answer()] * 100
        stack = retrying(Scripted(*script), clock)
        for _ in range(100):
            assert await outcome(clock, stack) == an_answer(attempts=3)

    async def test_calls_that_succeed_earn_a_retry_in_ten(self) -> None:
        clock = Clock()
        script: list[Any] = [ServerError("no")] * 30
        script += [an_answer()] * 10 + [ServerError("no")] * 3
        provider = Scripted(*script)
        stack = retrying(provider, clock)
        for _ in range(10):
            await outcome(clock, stack)  # 30 attempts: nothing is left
        for _ in range(10):
            await outcome(clock, stack)
        assert (await outcome(clock, stack)).attempts == 2
        assert (await outcome(clock, stack)).attempts == 1

    async def test_a_stream_that_succeeds_puts_back_what_it_took(self) -> None:
        clock = Clock()
        script: list[Any] = [ServerError("no"), deltas("42")] * 100
        stack = retrying(Scripted(*script), clock)
        for _ in range(100):
            [chunks] = await clock.run(collect(stack.stream(a_request())))
            assert chunks[-1].is_final

    @pytest.mark.parametrize("wanted", ["has_content", "is_final"])
    async def test_a_stream_that_its_reader_leaves_puts_back_too(self, wanted: str) -> None:
        clock = Clock()
        script: list[Any] = [ServerError("no"), deltas("42")] * 30
        stack = retrying(Scripted(*script), clock)

        async def read(stream: Any) -> None:
            async for chunk in stream:
                if getattr(chunk, wanted):
                    break
            await stream.aclose()

        for _ in range(30):
            assert await clock.run(read(stack.stream(a_request()))) == [None]

    async def test_a_stream_that_is_cancelled_in_the_middle_puts_nothing_back(self) -> None:
        """It may have been cancelled because nothing came any more."""
        clock = Clock()
        stalling: list[Any] = [StreamChunk(text="It "), asyncio.CancelledError()]
        stack = retrying(Scripted(ServerError("no"), stalling), clock)
        [error] = await clock.run(collect(stack.stream(a_request())))
        assert isinstance(error, asyncio.CancelledError)
        assert sum(stack._paces[MODEL].take_retry() for _ in range(30)) == 19

    @pytest.mark.parametrize("trouble", ["cancelled", "circuit", "gate"])
    async def test_a_retry_that_was_never_made_is_given_back(self, trouble: str) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        pace = stack._paces[MODEL]
        for _ in range(30):
            context = CallContext()
            context.admission = leave = Leave()
            task = asyncio.ensure_future(stack.complete(a_request(context=context)))
            await clock.settle()
            if trouble == "cancelled":
                task.cancel()
            leave.withdrawn = trouble == "circuit"
            pace.closed_until = clock.now + 1000 if trouble == "gate" else 0.0
            [error] = await clock.run(task)
            expected = {"cancelled": asyncio.CancelledError, "circuit": CircuitOpenError}
            assert type(error) is expected.get(trouble, RateLimitError)
            pace.closed_until = 0.0
        assert provider.calls == 30
        assert sum(pace.take_retry() for _ in range(30)) == 20

    async def test_a_429_that_is_followed_by_a_success_is_put_back_once(self) -> None:
        clock = Clock()
        used_up: list[Any] = [ServerError("no")] * 30  # ten calls with three attempts each
        script: list[Any] = [*used_up, ServerError("no"), *[an_answer()] * 9, ServerError("no")]
        stack = retrying(Scripted(*script), clock)
        for _ in range(11 + 9):
            await outcome(clock, stack)
        assert (await outcome(clock, stack)).attempts == 1  # nine calls have earned 0.9 retries
        limited: list[Any] = [an_answer(), RateLimitError("no"), an_answer(), ServerError("no")]
        stack.inner = Scripted(*limited)
        assert await outcome(clock, stack) == an_answer()  # the tenth: one retry is there
        assert await outcome(clock, stack) == an_answer(attempts=2)  # which is used, and put back
        assert (await outcome(clock, stack)).attempts == 2  # and is there once, not twice
        assert (await outcome(clock, stack)).attempts == 1

    def test_a_retry_that_helped_earns_nothing_on_top(self) -> None:
        pace = Pace()
        assert sum(pace.take_retry() for _ in range(30)) == 20
        pace.put_back(1)
        assert [pace.take_retry(), pace.take_retry()] == [True, False]
        for _ in range(9):
            pace.put_back(0)
            assert not pace.take_retry()
        pace.put_back(0)
        assert [pace.take_retry(), pace.take_retry()] == [True, False]
        pace.put_back(1000)
        assert sum(pace.take_retry() for _ in range(30)) == 20

    def test_whoever_leaves_the_queue_leaves_one_place(self) -> None:
        pace = Pace()
        assert [pace.join_queue(), pace.join_queue()] == [False, True]
        pace.leave_queue()
        assert pace.join_queue()
        pace.leave_queue()
        pace.leave_queue()
        assert [pace.join_queue(), pace.join_queue()] == [False, True]

    def test_a_retry_that_is_given_back_is_one_and_none_above_the_budget(self) -> None:
        pace = Pace()
        assert pace.take_retry()
        pace.put_back(1)  # by another call
        pace.give_back()
        assert sum(pace.take_retry() for _ in range(30)) == 20
        pace.give_back()
        for _ in range(9):
            pace.put_back(0)
        assert [pace.take_retry(), pace.take_retry()] == [True, False]

    async def test_each_model_has_its_own(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = retrying(provider, clock)
        for _ in range(20):
            await outcome(clock, stack)
        assert (await outcome(clock, stack, model="other")).attempts == 3

    async def test_a_request_without_a_model_is_one_to_the_default_model(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"), default_model=MODEL)
        stack = retrying(provider, clock)
        for _ in range(20):
            await outcome(clock, stack, model=None)
        assert (await outcome(clock, stack, model=MODEL)).attempts == 1


class Leave:
    """A breaker's leave to call, which a test withdraws."""

    def __init__(self, *, probe: bool = False) -> None:
        self.probe = probe
        self.withdrawn = False

    def check(self) -> None:
        if self.withdrawn:
            raise CircuitOpenError("open", retry_after=30.0)


class TestAdmission:
    async def test_a_probe_has_one_attempt(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        context = CallContext()
        context.admission = Leave(probe=True)
        error = await outcome(clock, retrying(provider, clock), context=context)
        assert error.attempts == provider.calls == 1

    async def test_no_attempt_starts_when_the_circuit_opened_meanwhile(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no", status=500))
        context, leave = CallContext(), Leave()
        context.admission = leave
        task = asyncio.ensure_future(retrying(provider, clock).complete(a_request(context=context)))
        await clock.settle()
        leave.withdrawn = True
        [error] = await clock.run(task)
        assert isinstance(error, CircuitOpenError)
        assert provider.calls == 1
        assert "ServerError (status 500)" in error.__notes__[0]


class TestStreams:
    @pytest.mark.parametrize("kind", TRANSIENT)
    async def test_an_error_before_the_first_content_is_tried_again(
        self, kind: type[ProviderError]
    ) -> None:
        clock = Clock()
        provider = Scripted(kind("no"), [StreamChunk(), kind("no")], deltas("It is ", "42."))
        [chunks] = await clock.run(collect(retrying(provider, clock).stream(a_request())))
        assert "".join(chunk.text for chunk in chunks) == "It is 42."
        assert clock.sleeps == [0.5, 1.0]
        assert provider.started == provider.ended == 3

    @pytest.mark.parametrize(
        "content",
        [StreamChunk(text="It"), StreamChunk(reasoning="Hm"), deltas("", answer=an_answer(""))[-1]],
    )
    async def test_nothing_is_repeated_after_the_first_content(self, content: StreamChunk) -> None:
        clock = Clock()
        failure = ServerError("no", status=500, retry_after=7.0)
        provider = Scripted([content, failure], deltas("again"))
        stream = retrying(provider, clock).stream(a_request())
        [(text, error)] = await clock.run(text_until_error(stream))
        assert text == content.text
        assert isinstance(error, StreamInterruptedError)
        assert isinstance(error.__cause__, ServerError)
        assert (error.status, error.retry_after) == (500, 7.0)
        assert error.partial is not None
        assert error.partial.text == content.text
        assert error.attempts == provider.calls == 1
        assert clock.sleeps == []

    async def test_what_the_adapter_said_of_a_broken_stream_stays(self) -> None:
        clock = Clock()
        raised = StreamInterruptedError("idle", kind="idle", partial=an_answer("It is"))
        stream = retrying(Scripted([StreamChunk(text="It "), raised]), clock).stream(a_request())
        [(_, error)] = await clock.run(text_until_error(stream))
        assert error is raised
        assert raised.partial is not None
        assert raised.partial.text == "It is"

    async def test_a_refusal_in_mid_stream_keeps_its_class(self) -> None:
        clock = Clock()
        raised = ContentFilterError("no")
        provider = Scripted([StreamChunk(text="How to "), raised])
        [(_, error)] = await clock.run(
            text_until_error(retrying(provider, clock).stream(a_request()))
        )
        assert error is raised
        assert raised.partial is not None
        assert raised.partial.text == "How to "

    async def test_an_error_in_mid_stream_that_is_not_the_providers_passes_unchanged(self) -> None:
        clock, raised = Clock(), ConfigurationError("no")
        provider = Scripted([StreamChunk(text="It "), raised])
        [(_, error)] = await clock.run(
            text_until_error(retrying(provider, clock).stream(a_request()))
        )
        assert error is raised

    async def test_a_foreign_exception_in_mid_stream_is_an_interruption(self) -> None:
        clock, raised = Clock(), KeyError("choices")
        provider = Scripted([StreamChunk(text="It "), raised], default_model="fallback")
        stack = retrying(provider, clock, provider="ollama")
        for asked, model in ((MODEL, MODEL), (None, "fallback")):
            [(_, error)] = await clock.run(text_until_error(stack.stream(a_request(model=asked))))
            assert isinstance(error, StreamInterruptedError)
            assert error.__cause__ is raised
            assert not error.retryable
            assert (error.provider, error.model) == ("ollama", model)
            assert error.partial is not None
            assert (error.partial.text, error.partial.model) == ("It ", model)

    @pytest.mark.parametrize("raised", [RuntimeError("odd"), RequestTimeoutError("slow")])
    async def test_what_goes_wrong_after_the_final_chunk_is_told_all_the_same(
        self, raised: Exception
    ) -> None:
        clock, provider = Clock(), Scripted([*deltas("42"), raised])
        [(text, error)] = await clock.run(
            text_until_error(retrying(provider, clock).stream(a_request()))
        )
        assert text == "42"
        assert isinstance(error, StreamInterruptedError)
        assert error.__cause__ is raised

    async def test_a_stream_without_its_final_chunk_is_an_error(self) -> None:
        clock = Clock()
        provider = Scripted(deltas("It is ", "42.")[:-1])
        stack = retrying(provider, clock, provider="acme")
        [(text, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert text == "It is 42."
        assert isinstance(error, StreamInterruptedError)
        assert "ended without its final chunk" in str(error)
        assert (error.kind, error.provider, error.model) == ("truncated", "acme", MODEL)
        assert error.partial is not None
        assert error.partial.text == "It is 42."

    async def test_the_final_chunk_says_how_many_attempts_there_were(self) -> None:
        clock = Clock()
        for failures in range(3):
            provider = Scripted(*[ServerError("no")] * failures, deltas("It is ", "42."))
            context = CallContext()
            stream = retrying(provider, clock).stream(a_request(context=context))
            [chunks] = await clock.run(collect(stream))
            assert chunks[-1].response is not None
            assert chunks[-1].response.attempts == provider.calls == failures + 1
            assert (chunks[-1] is provider.script[-1][-1]) == (failures == 0)  # type: ignore[index]  # its chunks
            assert len(context.entries) == failures + 1

    async def test_an_empty_stream_is_tried_again(self) -> None:
        clock, provider = Clock(), Scripted([], [StreamChunk()], deltas("42"))
        [chunks] = await clock.run(collect(retrying(provider, clock).stream(a_request())))
        assert "".join(chunk.text for chunk in chunks) == "42"
        assert provider.calls == 3

    async def test_chunks_without_content_are_handed_on_once(self) -> None:
        clock = Clock()
        first, second, third, fourth = (StreamChunk() for _ in range(4))
        provider = Scripted(
            [first, second, ServerError("no")],
            [StreamChunk(), ServerError("no")],
            [StreamChunk(), StreamChunk(), third, fourth, *deltas("42")],
        )
        [chunks] = await clock.run(collect(retrying(provider, clock).stream(a_request())))
        shown = [chunk for chunk in chunks if not chunk.has_content and not chunk.is_final]
        assert [*map(id, shown)] == [*map(id, (first, second, third, fourth))]

    async def test_a_deadline_that_comes_after_the_final_chunk_spoils_nothing(self) -> None:
        clock = Clock()

        class Lingering(Scripted):
            async def stream(self, request: LLMRequest, /) -> Any:
                async for chunk in super().stream(request):
                    yield chunk
                await clock.wait(1000)

        script: list[Any] = [ServerError("no"), deltas("42")] * 30
        stack = retrying(Lingering(*script), clock)
        for _ in range(30):  # more than the budget: each retry that helped is put back
            context = CallContext(deadline=clock.now + 5)
            [chunks] = await clock.run(collect(stack.stream(a_request(context=context))))
            assert chunks[-1].is_final
            assert [entry.state for entry in context.entries] == ["unknown", "exact"]

    async def test_leaving_early_closes_the_stream_inside(self) -> None:
        clock, provider = Clock(), Scripted(deltas("It ", "is ", "42."))
        context = CallContext()
        stream = retrying(provider, clock).stream(a_request(context=context))
        async for _ in stream:
            break
        await stream.aclose()
        assert provider.started == provider.ended == 1
        [entry] = context.entries
        assert (entry.state, entry.error) == ("estimated", "GeneratorExit")

    async def test_a_provider_without_stream_is_retried_too(self) -> None:
        clock = Clock()
        provider = Scripted(ServerError("no"), an_answer())
        stack = retrying(WithoutStream(provider), clock)
        [chunks] = await clock.run(collect(stack.stream(a_request())))
        assert [chunk.text for chunk in chunks] == ["It is 42."]
        assert provider.calls == 2

    async def test_a_429_in_a_stream_closes_the_gate_too(self) -> None:
        clock = Clock()
        limit = RateLimitError("no", retry_after=10.0)
        provider = Scripted([StreamChunk(text="It "), limit], an_answer())
        stack = retrying(provider, clock)
        [(_, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert isinstance(error, StreamInterruptedError)
        assert await outcome(clock, stack) == an_answer()
        assert clock.sleeps == [10.0]

    async def test_a_429_that_the_adapter_tells_as_what_broke_the_stream_closes_it_too(
        self,
    ) -> None:
        clock = Clock()
        broken = StreamInterruptedError("broke off", retry_after=10.0)
        broken.__cause__ = RateLimitError("no", retry_after=10.0)
        stack = retrying(Scripted([StreamChunk(text="It "), broken], an_answer()), clock)
        [(_, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert error is broken
        assert await outcome(clock, stack) == an_answer()
        assert clock.sleeps == [10.0]

    @pytest.mark.parametrize("before", [[], [StreamChunk(text="It ")]])
    async def test_what_is_no_chunk_is_an_error_with_its_entry(self, before: list[Any]) -> None:
        clock, request = Clock(), a_request(context=CallContext())
        stack = retrying(Scripted([*before, "is 42."]), clock)  # type: ignore[list-item]  # what a third party may do
        [error] = await clock.run(collect(stack.stream(request)))
        assert isinstance(error, ProviderError)
        assert error.attempts == 1
        assert request.context is not None
        states = [entry.state for entry in request.context.entries]
        assert states == ["estimated" if before else "unknown"]


class TestLedger:
    """A provider that opens no entries has them opened for it, one for each attempt."""

    async def entries(self, clock: Clock, provider: Any, *, stream: bool = False) -> list[Any]:
        context = CallContext()
        stack = retrying(provider, clock, provider="ollama")
        request = a_request(context=context)
        if stream:
            await clock.run(text_until_error(stack.stream(request)))
        else:
            await clock.run(stack.complete(request))
        return context.entries

    async def test_each_attempt_has_its_entry(self) -> None:
        script = (OverloadedError("no", status=529), RequestTimeoutError("slow"), an_answer())
        entries = await self.entries(Clock(), Scripted(*script))
        assert [(entry.state, entry.error) for entry in entries] == [
            ("not_billed", "OverloadedError"),
            ("unknown", "RequestTimeoutError"),
            ("exact", None),
        ]
        assert {(entry.provider, entry.model) for entry in entries} == {("ollama", MODEL)}
        assert (entries[2].input_tokens, entries[2].output_tokens) == (10, 5)

    async def test_without_a_model_the_default_one_is_meant(self) -> None:
        context, clock = CallContext(), Clock()
        stack = retrying(Scripted(ServerError("no"), default_model="m"), clock, max_attempts=1)
        await outcome(clock, stack, model=None, context=context)
        assert [entry.model for entry in context.entries] == ["m"]

    async def test_unknown_usage_is_estimated_and_says_so(self) -> None:
        answer = an_answer("x" * 10, input_tokens=None, output_tokens=None)
        [entry] = await self.entries(Clock(), Scripted(answer))
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("estimated", 4, 3)

    async def test_a_broken_stream_is_estimated_from_what_came(self) -> None:
        script: list[Any] = [StreamChunk(text="x" * 8), ProviderConnectionError("gone")]
        [entry] = await self.entries(Clock(), Scripted(script), stream=True)
        assert (entry.state, entry.output_tokens) == ("estimated", 2)

    @pytest.mark.parametrize("end", [ProviderConnectionError("gone"), None])
    async def test_what_came_beside_the_text_was_written_too(self, end: Exception | None) -> None:
        came = [StreamChunk(text="x" * 8), *[StreamChunk(reasoning="y" * 8)] * 2]
        last = StreamChunk(finish_reason="stop") if end is None else end
        [entry] = await self.entries(Clock(), Scripted([*came, last]), stream=True)
        assert (entry.state, entry.output_tokens) == ("estimated", 6)

    async def test_a_stream_that_is_left_at_its_end_was_whole(self) -> None:
        clock, context = Clock(), CallContext()
        stream = retrying(Scripted(deltas("42")), clock).stream(a_request(context=context))
        async for chunk in stream:
            if chunk.is_final:
                break
        await stream.aclose()
        assert [entry.state for entry in context.entries] == ["exact"]

    async def test_attempts_of_an_earlier_call_are_none_of_a_later_one(self) -> None:
        clock, context = Clock(), CallContext()
        failing = [ServerError("no")] * 3
        stack = retrying(Scripted(an_answer(), failing[0], an_answer(), *failing), clock)
        assert await outcome(clock, stack, context=context) == an_answer()
        assert await outcome(clock, stack, context=context) == an_answer(attempts=2)
        assert (await outcome(clock, stack, context=context)).attempts == 3

    async def test_a_stream_has_the_usage_of_its_final_chunk(self) -> None:
        closing = StreamChunk(finish_reason="stop", input_tokens=7, output_tokens=3)
        entries = await self.entries(
            Clock(), Scripted([StreamChunk(text="42"), closing]), stream=True
        )
        assert [(e.state, e.input_tokens, e.output_tokens) for e in entries] == [("exact", 7, 3)]

    async def test_an_entry_of_the_providers_own_is_not_doubled(self) -> None:
        class Accountable(Scripted):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                assert request.context is not None
                entry = request.context.open_entry(provider="own", model="own")
                entry.state = "unknown"
                return await super().complete(request)

        entries = await self.entries(Clock(), Accountable(ServerError("no"), an_answer()))
        assert [entry.provider for entry in entries] == ["own", "own"]

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (AuthenticationError("no", status=401), "not_billed"),
            (ProviderError("teapot", status=418), "not_billed"),
            (RateLimitError("no", status=429), "not_billed"),
            (ProviderConnectionError("no", kind="dns"), "not_billed"),
            (ProviderConnectionError("no", kind="reset"), "unknown"),
            (ConnectionRefusedError("no"), "not_billed"),
            (ConnectionResetError("no"), "unknown"),
            (RequestTimeoutError("no", status=408), "unknown"),
            (ServerError("no", status=500), "unknown"),
            (RuntimeError("no"), "unknown"),
        ],
    )
    async def test_what_a_failure_may_have_cost(self, error: Exception, state: str) -> None:
        entries = await self.entries(Clock(), Scripted(error))
        assert {entry.state for entry in entries} == {state}

    async def test_what_was_never_sent_leaves_no_entry(self) -> None:
        assert await self.entries(Clock(), Scripted(InputError("no"))) == []

    async def test_an_entry_begins_when_its_attempt_began(self) -> None:
        clock = Clock()

        async def take_long() -> LLMResponse:
            await clock.sleep(60.0)
            return an_answer()

        slow = await self.entries(clock, Scripted(take_long))
        quick = await self.entries(clock, Scripted(an_answer()))
        behind = quick[0].started_at - slow[0].started_at
        assert 60 <= behind.total_seconds() < 70


STEPS: dict[str, Callable[[], Any]] = {
    "ok": an_answer,
    "server": lambda: ServerError("no"),
    "server after 1": lambda: ServerError("no", retry_after=1.0),
    "timeout": lambda: RequestTimeoutError("no"),
    "reset": lambda: ConnectionResetError("no"),
    "limit": lambda: RateLimitError("no"),
    "limit after 3": lambda: RateLimitError("no", retry_after=3.0),
    "limit after 600": lambda: RateLimitError("no", retry_after=600.0),
    "refused": lambda: BadRequestError("no"),
    "quota": lambda: QuotaExceededError("no"),
    "bug": lambda: ValueError("no"),
    "input": lambda: InputError("no"),
}
ASKED = {"server after 1": 1.0, "limit after 3": 3.0, "limit after 600": 600.0}
FATAL = {"refused", "quota", "bug", "input", "limit after 600"}


def oracle(
    script: list[str], *, max_attempts: int, chance: float, deadline: float | None
) -> tuple[int, list[float], str]:
    """Attempts, waits and the last step of a call, by the rules as the docstring tells them."""
    waits: list[float] = []
    for number, step in enumerate(script, start=1):
        wait = max(chance * min(8.0, 0.5 * 2 ** (number - 1)), ASKED.get(step, 0.0))
        late = deadline is not None and sum(waits) + wait >= deadline
        if step == "ok" or step in FATAL or number == max_attempts or late:
            return number, waits, step
        waits.append(wait)
    raise AssertionError("the script is too short")


@settings(deadline=None)
@given(
    script=st.lists(st.sampled_from(sorted(STEPS)), min_size=6, max_size=6),
    max_attempts=st.integers(1, 6),
    chance=st.sampled_from([0.0, 0.25, 1.0]),
    deadline=st.sampled_from([None, 0.5, 2.0, 5.0]),
    stream=st.booleans(),
)
def test_any_script_is_played_by_the_rules(
    script: list[str], max_attempts: int, chance: float, deadline: float | None, stream: bool
) -> None:
    clock, provider = Clock(0.0), Scripted(*(STEPS[step]() for step in script))
    stack = retrying(provider, clock, max_attempts=max_attempts, random=lambda: chance)
    request = a_request(context=CallContext(deadline=deadline))

    async def play() -> Any:
        work = collect(stack.stream(request)) if stream else stack.complete(request)
        [result] = await clock.run(work)
        return result

    result = asyncio.run(play())
    attempts, waits, last = oracle(
        script, max_attempts=max_attempts, chance=chance, deadline=deadline
    )
    assert provider.calls == attempts
    assert clock.sleeps == pytest.approx(waits)
    if last == "ok":
        assert not isinstance(result, BaseException)
        return
    assert isinstance(result, AetherError)
    expected = STEPS[last]()
    original = result if isinstance(expected, AetherError) else result.__cause__
    assert type(original) is type(expected)
    if isinstance(result, ProviderError):
        assert result.attempts == attempts
