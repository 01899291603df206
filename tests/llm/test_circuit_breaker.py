"""When calls are let through, and what counts for or against a provider."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import threading
from typing import Any

import pytest

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ContentFilterError,
    ContextLengthError,
    DeadlineExceededError,
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
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import CallContext, LLMRequest, LLMResponse, StreamChunk
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


def _broken_off(cause: Exception) -> StreamInterruptedError:
    error = StreamInterruptedError("broke off")
    error.__cause__ = cause
    return error


def _from(cause: Exception) -> ProviderError:
    error = ProviderError("the provider raised something")
    error.__cause__ = cause
    return error


def _unfit(**fields: Any) -> InputError:
    """What making a response of values that do not fit raises in a third party's provider."""
    with pytest.raises(InputError) as caught:
        LLMResponse(**{"text": "It is 42.", "model": MODEL, **fields})
    return caught.value


class TheirError(ProviderError):
    """A third party's own class of errors."""


FAILURES = [
    ProviderConnectionError("reset"),
    ProviderConnectionError("bad certificate", retryable=False),
    RequestTimeoutError("slow"),
    DeadlineExceededError("the call's deadline has come"),
    RequestTimeoutError("x-should-retry: false", status=408, retryable=False),
    OverloadedError("busy", status=529),
    ServerError("no", status=500),
    ServerError("x-should-retry: false", status=500, retryable=False),
    StreamInterruptedError("cut"),
    _broken_off(ServerError("no")),
    ProtocolError("an HTML page"),
    ProviderError("conflict", status=409, retryable=True),
    ProviderError("nobody knows"),
    TheirError("bad gateway", status=502),
    _unfit(text=None),
    _unfit(input_tokens="many"),
    _unfit(tool_calls=[{"id": "1", "name": 7, "arguments": {}}]),
    ConnectionResetError("reset"),
    TimeoutError("slow"),
    OSError("no route"),
    ssl.SSLCertVerificationError("bad certificate"),
    RuntimeError("boom"),
    _from(RuntimeError("boom")),
]
NEUTRAL = [
    AuthenticationError("no", status=401),
    PermissionDeniedError("no", status=403),
    NotFoundError("no", status=404),
    BadRequestError("no", status=400),
    BadRequestError("no", status=422),
    BadRequestError("conflict", status=409, retryable=True),
    BadRequestError("too early", status=425, retryable=True),
    ContextLengthError("no", status=400),
    ContentFilterError("no"),
    RateLimitError("no", status=429),
    QuotaExceededError("no", status=429),
    ProviderError("no", status=400),
    ProviderError("teapot", status=418),
    ProviderError("gone already", status=499),
    TheirError("teapot", status=418),
    DeadlineExceededError("nothing was sent", attempts=0),
    DeadlineExceededError("the answer was coming", partial=an_answer()),
    _broken_off(RateLimitError("no")),
    InputError("no"),
    CircuitOpenError("another one", retry_after=1.0),
    ValueError("temperature"),
    json.JSONDecodeError("no", "", 0),
    _from(ValueError("temperature")),
    asyncio.CancelledError(),
]


class Leave:
    """Another breaker's leave to call."""

    probe = False

    def check(self) -> None:
        """Nothing has changed."""


def breaking(inner: Any, clock: Clock, **options: Any) -> CircuitBreakerProvider:
    options = {"failure_threshold": 2, "random": lambda: 0.0, **options}
    return CircuitBreakerProvider(inner, clock=clock, **options)


async def fail(stack: CircuitBreakerProvider, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(Exception):  # noqa: B017  # which one is the script's matter
            await stack.complete(a_request())


async def half_open(clock: Clock, *script: Any, **options: Any) -> tuple[Any, Scripted]:
    """A circuit that has just become half-open, and what it will meet."""
    provider = Scripted(ServerError("no"), ServerError("no"), *script)
    stack = breaking(provider, clock, **options)
    await fail(stack)
    clock.now += 30
    return stack, provider


class TestOpening:
    @pytest.mark.parametrize("error", FAILURES, ids=repr)
    async def test_failures_in_a_row_open_it(self, error: Exception) -> None:
        stack = breaking(Scripted(error), Clock())
        await fail(stack, 1)
        assert stack.state(MODEL) == "closed"
        await fail(stack, 1)
        assert stack.state(MODEL) == "open"

    @pytest.mark.parametrize("error", NEUTRAL, ids=repr)
    async def test_what_is_neutral_changes_nothing(self, error: BaseException) -> None:
        provider = Scripted(ServerError("no"), error, error, error, ServerError("no"))
        stack = breaking(provider, Clock())
        await fail(stack, 1)
        for _ in range(3):
            with pytest.raises(type(error)):
                await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"
        await fail(stack, 1)
        assert stack.state(MODEL) == "open"

    @pytest.mark.parametrize("error", NEUTRAL, ids=repr)
    async def test_what_is_neutral_is_so_in_a_stream(self, error: BaseException) -> None:
        stack = breaking(Scripted([error]), Clock(), failure_threshold=1)
        stream = stack.stream(a_request())
        with pytest.raises(type(error)):
            await anext(stream)
        assert stack.state(MODEL) == "closed"

    @pytest.mark.parametrize("answer", [None, "It is 42.", {"text": "It is 42."}])
    async def test_what_is_no_response_is_a_failure(self, answer: Any) -> None:
        class Wrong:
            async def complete(self, request: LLMRequest, /) -> Any:
                return answer

            async def stream(self, request: LLMRequest, /) -> Any:
                yield answer

        for stream in (False, True):
            stack = breaking(Wrong(), Clock(), failure_threshold=1)
            if stream:
                assert [chunk async for chunk in stack.stream(a_request())] == [answer]
            else:
                assert await stack.complete(a_request()) == answer
            assert stack.state(MODEL) == "open"

    async def test_a_success_begins_the_count_anew(self) -> None:
        script: list[Any] = [ServerError("no"), an_answer()] * 2
        stack = breaking(Scripted(*script), Clock())
        for step in script:
            if isinstance(step, LLMResponse):
                await stack.complete(a_request())
            else:
                await fail(stack, 1)
        assert stack.state(MODEL) == "closed"

    async def test_the_default_threshold_is_five(self) -> None:
        stack = CircuitBreakerProvider(Scripted(ServerError("no")))
        await fail(stack, 4)
        assert stack.state(MODEL) == "closed"
        await fail(stack, 1)
        assert stack.state(MODEL) == "open"

    async def test_open_means_that_nothing_is_sent(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = breaking(provider, clock, provider="openai")
        await fail(stack)
        clock.now += 10
        with pytest.raises(CircuitOpenError, match=r"openai.*Come back in 20 s") as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == 20.0
        assert (caught.value.provider, caught.value.model) == ("openai", MODEL)
        _, error = await text_until_error(stack.stream(a_request()))
        assert isinstance(error, CircuitOpenError)
        assert provider.calls == 2

    async def test_each_model_has_a_circuit_of_its_own(self) -> None:
        stack = breaking(Scripted(ServerError("no"), ServerError("no"), an_answer()), Clock())
        await fail(stack)
        assert await stack.complete(a_request(model="other")) == an_answer()
        assert (stack.state(MODEL), stack.state("other"), stack.state()) == (
            "open",
            "closed",
            "closed",
        )

    async def test_a_request_without_a_model_is_one_to_the_default_model(self) -> None:
        stack = breaking(Scripted(ServerError("no"), default_model=MODEL), Clock())
        for model in (None, MODEL):
            with pytest.raises(ServerError):
                await stack.complete(a_request(model=model))
        assert (stack.state(), stack.state(MODEL)) == ("open", "open")

    async def test_models_without_end_take_no_memory_without_end(self) -> None:
        stack = breaking(Scripted(an_answer()), Clock())
        for number in range(1000):
            await stack.complete(a_request(model=f"made-up-{number}"))
        assert len(stack._circuits) <= 256

    @pytest.mark.parametrize(
        "options",
        [
            {"failure_threshold": 0},
            {"failure_threshold": 2.0},
            {"recovery_timeout": 0},
            {"recovery_timeout": math.nan},
            {"max_recovery_timeout": -1},
            {"probe_timeout": "60"},
            {"probe_timeout": 0},
        ],
    )
    def test_an_option_that_cannot_work_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(options))} must"):
            CircuitBreakerProvider(Scripted(an_answer()), **options)

    def test_a_millisecond_is_the_shortest_time(self) -> None:
        CircuitBreakerProvider(
            Scripted(an_answer()),
            failure_threshold=1,
            recovery_timeout=0.001,
            max_recovery_timeout=0,
            probe_timeout=0.001,
        )


class TestHalfOpen:
    async def test_a_success_closes_it(self) -> None:
        stack, _ = await half_open(Clock(), an_answer())
        assert stack.state(MODEL) == "half_open"
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"

    async def test_exactly_one_of_many_callers_gets_through(self) -> None:
        clock = Clock()

        async def answer_late() -> LLMResponse:
            await clock.sleep(5)
            return an_answer()

        stack, provider = await half_open(clock, answer_late)
        callers = (stack.complete(a_request()) for _ in range(10_000))
        results = await clock.run(*callers)
        refused = [result for result in results if isinstance(result, CircuitOpenError)]
        assert (len(refused), provider.calls) == (9_999, 3)
        assert all(error.retry_after > 0 for error in refused)
        assert stack.state(MODEL) == "closed"

    def test_exactly_one_of_many_threads_gets_through(self) -> None:
        clock, lock, at_once = Clock(), threading.Lock(), threading.Barrier(20)
        counts = {"let through": 0, "refused": 0}

        class Slow:
            def __init__(self) -> None:
                self.release = threading.Event()

            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                with lock:
                    counts["let through"] += 1
                self.release.wait(5)
                return an_answer()

        slow, failing = Slow(), Scripted(ServerError("no"))
        stack = breaking(failing, clock)
        asyncio.run(fail(stack))
        stack.inner = slow
        clock.now += 30

        def call() -> None:
            at_once.wait(5)
            try:
                asyncio.run(stack.complete(a_request()))
            except CircuitOpenError:
                with lock:
                    counts["refused"] += 1
                    if counts["refused"] == 19:
                        slow.release.set()

        threads = [threading.Thread(target=call) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == {"let through": 1, "refused": 19}

    async def test_each_failed_probe_doubles_the_pause_up_to_its_maximum(self) -> None:
        clock = Clock()
        stack, _ = await half_open(clock, ServerError("no"))
        pauses = []
        for _ in range(5):
            await fail(stack, 1)
            with pytest.raises(CircuitOpenError) as caught:
                await stack.complete(a_request())
            pauses.append(caught.value.retry_after)
            clock.now += caught.value.retry_after
        assert pauses == [60.0, 120.0, 240.0, 300.0, 300.0]

    async def test_a_longer_pause_is_shortened_at_random(self) -> None:
        clock = Clock()
        stack, _ = await half_open(clock, ServerError("no"), random=lambda: 1.0)
        await fail(stack, 1)
        with pytest.raises(CircuitOpenError) as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == pytest.approx(54.0)

    async def test_the_pause_is_short_again_after_it_was_closed(self) -> None:
        clock = Clock()
        stack, _ = await half_open(clock, ServerError("no"), an_answer(), ServerError("no"))
        await fail(stack, 1)
        clock.now += 60
        await stack.complete(a_request())
        await fail(stack)
        for pause in (30.0, 60.0):
            with pytest.raises(CircuitOpenError) as caught:
                await stack.complete(a_request())
            assert caught.value.retry_after == pause
            clock.now += pause
            await fail(stack, 1)

    async def test_the_pause_never_gets_shorter_by_failing(self) -> None:
        clock = Clock()
        stack, _ = await half_open(clock, ServerError("no"), max_recovery_timeout=5.0)
        await fail(stack, 1)
        with pytest.raises(CircuitOpenError) as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == 30.0

    @pytest.mark.parametrize("error", NEUTRAL, ids=repr)
    async def test_a_neutral_probe_makes_room_for_the_next(self, error: BaseException) -> None:
        stack, provider = await half_open(Clock(), error, an_answer())
        with pytest.raises(type(error)):
            await stack.complete(a_request())
        assert stack.state(MODEL) == "half_open"
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"
        assert provider.calls == 4

    async def test_a_cancelled_probe_makes_room_for_the_next(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.sleep(math.inf)

        stack, _ = await half_open(clock, hang, an_answer())
        probe = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        with pytest.raises(CircuitOpenError, match="testing it"):
            await stack.complete(a_request())
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"

    async def test_an_abandoned_stream_as_probe_makes_room_for_the_next(self) -> None:
        stack, _ = await half_open(Clock(), deltas("It ", "is ", "42."), an_answer())
        stream = stack.stream(a_request())
        async for _chunk in stream:
            break
        await stream.aclose()
        assert stack.state(MODEL) == "half_open"
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"

    async def test_a_stream_that_nobody_reads_is_no_probe(self) -> None:
        stack, _ = await half_open(Clock(), an_answer())
        stream = stack.stream(a_request())
        await stream.aclose()
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"

    async def test_a_probe_is_lost_after_ten_minutes(self) -> None:
        clock = Clock()

        async def hang() -> None:
            await clock.wait(math.inf)

        stack, _ = await half_open(clock, hang, an_answer())
        probe = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        clock.now += 599.5
        with pytest.raises(CircuitOpenError):
            await stack.complete(a_request())
        clock.now += 0.5
        assert await stack.complete(a_request()) == an_answer()
        probe.cancel()

    async def test_a_lost_probe_is_replaced_and_its_outcome_ignored(self) -> None:
        clock, first = Clock(), asyncio.get_running_loop().create_future()

        async def late() -> Any:
            return await first

        stack, _ = await half_open(clock, late, an_answer(), probe_timeout=60.0)
        lost = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        clock.now += 59
        with pytest.raises(CircuitOpenError):
            await stack.complete(a_request())
        clock.now += 1
        await stack.complete(a_request())
        assert stack.state(MODEL) == "closed"
        first.set_result(ServerError("no"))
        with pytest.raises(ServerError):
            await lost
        await fail(stack, 0)
        assert stack.state(MODEL) == "closed"
        assert stack._circuits[MODEL]._failures == 0

    async def test_while_a_probe_is_under_way_calls_are_to_come_back_in_a_second(self) -> None:
        clock, pending = Clock(), asyncio.get_running_loop().create_future()

        async def wait() -> Any:
            return await pending

        stack, _ = await half_open(clock, wait)
        probe = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        for _ in range(2):
            with pytest.raises(CircuitOpenError, match=r"testing it\. Come back in 1 s") as caught:
                await stack.complete(a_request())
            assert caught.value.retry_after == 1.0
            clock.now += 5
        pending.set_result(an_answer())
        await probe

    async def test_they_are_to_come_back_sooner_where_the_pause_is_shorter(self) -> None:
        clock, pending = Clock(), asyncio.get_running_loop().create_future()

        async def wait() -> Any:
            return await pending

        stack, _ = await half_open(clock, wait, recovery_timeout=0.5)
        probe = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        with pytest.raises(CircuitOpenError) as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == 0.5
        pending.set_result(an_answer())
        await probe

    async def test_what_is_left_of_a_pause_is_told_to_its_end(self) -> None:
        clock = Clock()
        stack = breaking(Scripted(ServerError("no")), clock)
        await fail(stack)
        clock.now += 29.75
        with pytest.raises(CircuitOpenError) as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == 0.25


class TestLog:
    @pytest.mark.parametrize(("provider", "name"), [("acme", "acme"), (None, "this provider")])
    async def test_it_says_when_a_circuit_opens_and_closes(
        self, caplog: pytest.LogCaptureFixture, provider: str | None, name: str
    ) -> None:
        caplog.set_level("INFO", "aether.llm")
        clock = Clock()
        stack, _ = await half_open(clock, ServerError("no"), an_answer(), provider=provider)
        await fail(stack, 1)
        clock.now += 60
        await stack.complete(a_request())
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            (
                "WARNING",
                f"the circuit for {name} ('{MODEL}') is open for 30.0 s after 2 failures in a row",
            ),
            (
                "WARNING",
                f"the circuit for {name} ('{MODEL}') is open for 60.0 s after 3 failures in a row",
            ),
            ("INFO", f"the circuit for {name} ('{MODEL}') is closed again"),
        ]

    async def test_without_a_model_the_provider_is_all_that_is_named(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        stack = breaking(Scripted(ServerError("no")), Clock(), provider="acme", failure_threshold=1)
        with pytest.raises(ServerError):
            await stack.complete(a_request(model=None))
        assert "the circuit for acme is open" in caplog.text
        with pytest.raises(CircuitOpenError, match="the circuit for acme is open after 1 failures"):
            await stack.complete(a_request(model=None))


class TestLateOutcomes:
    @pytest.mark.parametrize("late", [ServerError("no"), an_answer()])
    async def test_a_call_from_before_it_opened_changes_nothing(self, late: Any) -> None:
        clock, pending = Clock(), asyncio.get_running_loop().create_future()

        async def wait() -> Any:
            return await pending

        provider = Scripted(wait, ServerError("no"))
        stack = breaking(provider, clock)
        early = asyncio.ensure_future(stack.complete(a_request()))
        await clock.settle()
        await fail(stack)
        clock.now += 10
        pending.set_result(late)
        await asyncio.gather(early, return_exceptions=True)
        with pytest.raises(CircuitOpenError) as caught:
            await stack.complete(a_request())
        assert caught.value.retry_after == 20.0


class TestStreams:
    async def test_a_stream_counts_at_its_end(self) -> None:
        stack, _ = await half_open(Clock(), deltas("It is ", "42."))
        states = [stack.state(MODEL) async for _ in stack.stream(a_request())]
        assert states == ["half_open"] * 3
        assert stack.state(MODEL) == "closed"

    async def test_leaving_after_the_final_chunk_is_a_success(self) -> None:
        stack, _ = await half_open(Clock(), deltas("42"))
        stream = stack.stream(a_request())
        async for chunk in stream:
            if chunk.is_final:
                break
        await stream.aclose()
        assert stack.state(MODEL) == "closed"

    @pytest.mark.parametrize(
        "script",
        [
            [StreamChunk(text="It "), ServerError("no")],
            [StreamChunk(text="It "), StreamInterruptedError("cut")],
            [StreamChunk(text="It ")],
            [],
        ],
        ids=["error", "interrupted", "cut", "empty"],
    )
    async def test_a_broken_stream_is_a_failure(self, script: Any) -> None:
        stack = breaking(Scripted(script), Clock(), failure_threshold=1)
        await text_until_error(stack.stream(a_request()))
        assert stack.state(MODEL) == "open"

    async def test_leaving_early_closes_the_stream_inside(self) -> None:
        provider = Scripted(deltas("It ", "is ", "42."))
        stack = breaking(provider, Clock())
        stream = stack.stream(a_request())
        async for _ in stream:
            break
        await stream.aclose()
        assert provider.ended == 1
        assert stack.state(MODEL) == "closed"


class TestWithRetry:
    """Retry sits inside; the two know each other by the call's context alone."""

    def stack(self, provider: Any, clock: Clock, **options: Any) -> CircuitBreakerProvider:
        retry = RetryingProvider(
            provider, clock=clock, sleep=clock.sleep, random=lambda: 1.0, max_attempts=3
        )
        return breaking(retry, clock, **options)

    async def test_a_call_whose_retries_ran_out_is_one_failure(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = self.stack(provider, clock)
        await clock.run(stack.complete(a_request()))
        assert (provider.calls, stack.state(MODEL)) == (3, "closed")
        await clock.run(stack.complete(a_request()))
        assert (provider.calls, stack.state(MODEL)) == (6, "open")

    async def test_a_retry_that_helped_is_a_success(self) -> None:
        clock = Clock()
        provider = Scripted(ServerError("no"), ServerError("no"), an_answer())
        stack = self.stack(provider, clock, failure_threshold=1)
        await clock.run(stack.complete(a_request()))
        assert stack.state(MODEL) == "closed"

    async def test_a_probe_has_one_attempt(self) -> None:
        clock, provider = Clock(), Scripted(ServerError("no"))
        stack = self.stack(provider, clock, failure_threshold=1)
        await clock.run(stack.complete(a_request()))
        clock.now += 30
        [error] = await clock.run(stack.complete(a_request()))
        assert isinstance(error, ServerError)
        assert (error.attempts, provider.calls) == (1, 4)

    async def test_no_attempt_starts_while_it_is_open(self) -> None:
        """Ten calls fail at once: the first two to give up open it while the others wait."""
        clock, states = Clock(), []

        async def note_and_fail() -> None:
            states.append(stack.state(MODEL))
            raise ServerError("no")

        chances = iter([0.1, 0.1] + [1.0] * 100)
        retry = RetryingProvider(
            Scripted(note_and_fail), clock=clock, sleep=clock.sleep, random=lambda: next(chances)
        )
        stack = breaking(retry, clock)
        results = await clock.run(*(stack.complete(a_request()) for _ in range(10)))
        assert len(states) < 30
        assert set(states) == {"closed"}
        refused = [error for error in results if isinstance(error, CircuitOpenError)]
        assert refused
        for error in refused:
            assert " opened while this call waited to be tried again. " in str(error)
            assert "ServerError" in error.__notes__[0]

    async def test_a_stream_that_breaks_in_the_middle_is_a_failure_and_is_not_repeated(
        self,
    ) -> None:
        clock = Clock()
        provider = Scripted([StreamChunk(text="It "), ServerError("no")])
        stack = self.stack(provider, clock, failure_threshold=1)
        [(text, error)] = await clock.run(text_until_error(stack.stream(a_request())))
        assert (text, provider.calls) == ("It ", 1)
        assert isinstance(error, StreamInterruptedError)
        assert stack.state(MODEL) == "open"

    async def test_the_admission_is_gone_when_the_call_has_ended(self) -> None:
        clock, context = Clock(), CallContext()
        stack = self.stack(Scripted(an_answer()), clock)
        await stack.complete(a_request(context=context))
        assert context.admission is None
        await collect(stack.stream(a_request(context=context)))
        assert context.admission is None

    async def test_that_of_another_breaker_around_it_is_there_again(self) -> None:
        context, outer = CallContext(), Leave()
        context.admission = outer
        stack = self.stack(Scripted(an_answer()), Clock())
        await stack.complete(a_request(context=context))
        assert context.admission is outer
        await collect(stack.stream(a_request(context=context)))
        assert context.admission is outer
