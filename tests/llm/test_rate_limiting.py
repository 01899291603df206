"""Calls start in order, no faster than was asked for, and none waits in vain."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.errors import (
    AetherError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    RateLimitError,
    ServerError,
)
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import CallContext, LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import RateLimit
from aether.testing.providers import ProviderConformance
from tests.llm.scripted import (
    MODEL,
    Clock,
    Scripted,
    a_request,
    an_answer,
    collect,
    deltas,
)

INPUT = 4
"""The tokens that the prompt of `a_request()` is estimated at."""


class TestConformance(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return RateLimitingProvider(FakeProvider("Hello there."), RateLimit(1e9, 1e9))


class Timed(Scripted):
    """Notes when each call started, and which it was."""

    def __init__(self, clock: Clock, *script: Any, **options: Any) -> None:
        super().__init__(*(script or (an_answer(),)), **options)
        self.clock = clock
        self.starts: list[float] = []
        self.order: list[str] = []

    async def _next(self, request: LLMRequest) -> Any:
        self.starts.append(self.clock.now - 1000.0)
        self.order.append(request.messages[-1].text)
        return await super()._next(request)


def limited(inner: Any, clock: Clock, *figures: float | None, **options: Any) -> Any:
    limit = RateLimit(*figures, **options)
    return RateLimitingProvider(inner, limit, clock=clock, timeout=clock.timeout)


def due_in(clock: Clock, seconds: float, **fields: Any) -> LLMRequest:
    return a_request(context=CallContext(deadline=clock.now + seconds), **fields)


def takes(clock: Clock, seconds: float, step: Any = None) -> Callable[[], Any]:
    async def take() -> Any:
        await clock.wait(seconds)
        return an_answer() if step is None else step

    return take


class TestRequests:
    async def test_they_start_at_the_pace_of_the_minute(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        await clock.run(*(provider.complete(a_request()) for _ in range(4)))
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0, 18.0])

    async def test_what_a_second_allows_may_start_at_once(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 180)
        await clock.run(*(provider.complete(a_request()) for _ in range(5)))
        assert inner.starts == pytest.approx([0.0, 0.0, 0.0, 1 / 3, 2 / 3])

    async def test_time_in_which_nobody_asked_is_saved_up_for_no_more_than_that(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        await clock.run(provider.complete(a_request()), clock.wait(600.0))
        await clock.run(*(provider.complete(a_request()) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 600.0, 606.0])

    async def test_each_model_has_a_rate_of_its_own(self) -> None:
        clock = Clock()
        inner = Timed(clock, default_model="a")
        provider = limited(inner, clock, 10)
        models = ("a", "b", None)
        await clock.run(*(provider.complete(a_request(model=model)) for model in models))
        assert inner.starts == pytest.approx([0.0, 0.0, 6.0])  # no model is the default one

    async def test_without_figures_nothing_waits(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock)
        await clock.run(*(provider.complete(a_request()) for _ in range(1000)))
        assert set(inner.starts) == {0.0}

    async def test_a_call_that_need_not_wait_does_not_suspend(self) -> None:
        provider = RateLimitingProvider(FakeProvider(), RateLimit(60, 60_000))
        whole = provider.complete(a_request())
        with pytest.raises(StopIteration):
            whole.send(None)

    async def test_in_real_time_they_wait_too(self) -> None:
        loop = asyncio.get_running_loop()
        provider = RateLimitingProvider(FakeProvider(), RateLimit(6000))
        started = loop.time()
        await asyncio.gather(*(provider.complete(a_request()) for _ in range(102)))
        assert loop.time() - started >= 0.0099


class TestTokens:
    async def test_a_call_pays_for_its_input_and_its_longest_output(self) -> None:
        clock = Clock()
        inner = Timed(clock, an_answer(input_tokens=INPUT, output_tokens=56))
        provider = limited(inner, clock, None, 60)
        await clock.run(*(provider.complete(a_request(max_tokens=56)) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 60.0, 120.0])

    async def test_what_was_not_used_is_given_back_at_once(self) -> None:
        clock = Clock()
        inner = Timed(clock, an_answer(input_tokens=INPUT, output_tokens=2))
        provider = limited(inner, clock, None, 60)
        await clock.run(*(provider.complete(a_request(max_tokens=1000)) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0])

    async def test_what_was_used_beyond_it_is_paid_for_too(self) -> None:
        clock = Clock()
        inner = Timed(clock, an_answer(input_tokens=INPUT, output_tokens=116))
        provider = limited(inner, clock, None, 60)
        await clock.run(*(provider.complete(a_request(max_tokens=16)) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 120.0, 240.0])

    async def test_who_waits_hears_of_a_correction(self) -> None:
        """Of one that ends while the next waits already: up, and down."""
        for used, expected in ((INPUT, 5.0), (INPUT + 116, 120.0)):
            clock = Clock()
            inner = Timed(
                clock,
                takes(clock, 5.0, an_answer(input_tokens=INPUT, output_tokens=used - INPUT)),
                an_answer(),
            )
            provider = limited(inner, clock, None, 60)
            request = a_request(max_tokens=56)
            await clock.run(provider.complete(request), provider.complete(request))
            assert inner.starts == pytest.approx([0.0, expected])

    async def test_without_a_limit_the_average_of_the_answers_is_expected(self) -> None:
        clock = Clock()
        slow = takes(clock, 1e6, an_answer(input_tokens=INPUT, output_tokens=56))
        quick = an_answer(input_tokens=INPUT, output_tokens=56)
        inner = Timed(clock, *[quick] * 300, slow, slow)
        provider = limited(inner, clock, None, 60)
        for _ in range(300):
            await clock.run(provider.complete(a_request()))
        before = inner.starts[-1]
        await clock.run(*(provider.complete(a_request()) for _ in range(2)))
        assert [at - before for at in inner.starts[-2:]] == pytest.approx([60, 120], abs=0.1)

    async def test_a_call_that_needs_more_than_a_minute_brings_starts_all_the_same(self) -> None:
        clock = Clock()
        inner = Timed(clock, an_answer(input_tokens=INPUT, output_tokens=236))
        provider = limited(inner, clock, None, 60)
        await clock.run(*(provider.complete(a_request(max_tokens=236)) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 240.0])

    async def test_no_call_keeps_others_waiting_for_more_than_ten_minutes(self) -> None:
        clock = Clock()
        inner = Timed(clock, an_answer(input_tokens=10**15, output_tokens=10**15), an_answer())
        provider = limited(inner, clock, None, 60)
        await clock.run(*(provider.complete(a_request(max_tokens=1)) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 600.0])

    async def test_a_large_call_at_the_head_is_not_overtaken(self) -> None:
        clock = Clock()
        inner = Timed(clock, takes(clock, 1e6))
        provider = limited(inner, clock, None, 60)
        requests = [
            a_request("first", max_tokens=58),
            a_request("large", max_tokens=118),
            a_request("small", max_tokens=8),
        ]
        await clock.run(*map(provider.complete, requests))
        assert inner.order == ["first", "large", "small"]
        assert inner.starts == pytest.approx([0.0, 60.0, 180.0])

    async def test_a_failed_call_is_paid_for_as_it_was_estimated(self) -> None:
        clock = Clock()
        inner = Timed(clock, ServerError("no"), an_answer())
        provider = limited(inner, clock, None, 60)
        requests = [a_request(max_tokens=56) for _ in range(2)]
        await clock.run(*map(provider.complete, requests))
        assert inner.starts == pytest.approx([0.0, 60.0])

    @pytest.mark.parametrize("state", ["not_billed", "exact", "estimated", "unknown"])
    async def test_the_ledger_of_the_attempt_says_what_was_used(self, state: Any) -> None:
        clock = Clock()

        class Failing(Timed):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                assert request.context is not None
                entry = request.context.open_entry(provider="p", model=MODEL)
                entry.state = state
                if state in ("exact", "estimated"):
                    entry.input_tokens, entry.output_tokens = INPUT, 116
                return await super().complete(request)

        inner = Failing(clock, takes(clock, 5.0, ServerError("no")), an_answer())
        provider = limited(inner, clock, None, 60)
        requests = [a_request(max_tokens=56) for _ in range(2)]
        await clock.run(*map(provider.complete, requests))
        waits = {"not_billed": 5.0, "exact": 120.0, "estimated": 120.0, "unknown": 60.0}
        assert inner.starts == pytest.approx([0.0, waits[state]])

    @pytest.mark.parametrize("told", [-1, "many", 1.5, None])
    async def test_counts_that_are_none_are_estimated(self, told: Any) -> None:
        clock = Clock()
        answer = an_answer().model_copy(update={"input_tokens": told, "output_tokens": told})
        inner = Timed(clock, answer)
        provider = limited(inner, clock, None, 60)
        results = await clock.run(*(provider.complete(a_request(max_tokens=6)) for _ in range(2)))
        assert results == [answer, answer]


class TestOrder:
    async def test_first_come_first_served(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 600)
        names = [str(n) for n in range(50)]
        await clock.run(*(provider.complete(a_request(name)) for name in names))
        assert inner.order == names

    async def test_a_newcomer_does_not_pass_those_who_wait(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)

        async def come_later() -> None:
            await clock.wait(6.0)
            await provider.complete(a_request("late"))

        first = [provider.complete(a_request(name)) for name in "abc"]
        await clock.run(*first, come_later())
        assert inner.order == ["a", "b", "c", "late"]

    async def test_nor_does_it_before_they_have_noticed_that_their_time_has_come(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 180)
        waiting = [asyncio.ensure_future(provider.complete(a_request(name))) for name in "abcde"]
        await clock.settle()
        clock.now += 1.0  # there is enough for three
        await clock.run(provider.complete(a_request("late")), *waiting)
        assert inner.order == ["a", "b", "c", "d", "e", "late"]

    async def test_to_join_those_who_wait_takes_no_longer_the_more_they_are(self) -> None:
        """Counted in calls of Python, of the last hundred that come."""

        async def calls_to_join(queue: int) -> int:
            clock = Clock()
            provider = limited(Timed(clock), clock, 60, max_waiting=queue)
            tasks = []
            counted = 0

            def count(_: object, event: str, __: object) -> None:
                nonlocal counted
                counted += event == "call"

            await provider.complete(a_request())
            for number in range(queue):
                if number == queue - 100:
                    await asyncio.sleep(0)
                    sys.setprofile(count)
                tasks.append(asyncio.ensure_future(provider.complete(a_request())))
            await asyncio.sleep(0)
            sys.setprofile(None)
            assert provider.waiting(MODEL) == queue
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return counted

        assert await calls_to_join(1_000) <= 1.1 * await calls_to_join(200)

    @pytest.mark.parametrize("cancelled", [1, 2, 3])
    async def test_who_is_cancelled_gives_its_place_up(self, cancelled: int) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        tasks = [asyncio.ensure_future(provider.complete(a_request(str(n)))) for n in range(4)]
        await clock.settle()
        assert provider.waiting(MODEL) == 3
        tasks[cancelled].cancel()
        await clock.settle()
        assert provider.waiting(MODEL) == 2
        results = await clock.run(*tasks)
        assert isinstance(results.pop(cancelled), asyncio.CancelledError)
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0])
        assert inner.order == [str(n) for n in range(4) if n != cancelled]

    async def test_the_head_that_is_cancelled_as_its_time_comes_takes_nothing(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        tasks = [asyncio.ensure_future(provider.complete(a_request(str(n)))) for n in range(3)]
        await clock.settle()

        async def cancel() -> None:
            await clock.wait(6.0)
            tasks[1].cancel()

        cancelling = asyncio.ensure_future(cancel())
        results = await clock.run(*tasks, cancelling)
        assert provider.waiting(MODEL) == 0
        expected = [0.0, 6.0] if isinstance(results[1], BaseException) else [0.0, 6.0, 12.0]
        assert inner.starts == pytest.approx(expected)
        assert inner.order[-1] == "2"

    async def test_a_cancelled_wait_is_a_cancelled_call(self) -> None:
        clock = Clock()
        provider = limited(Timed(clock), clock, 10)
        await provider.complete(a_request())
        task = asyncio.ensure_future(provider.complete(a_request()))
        await clock.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1


class TestTheQueue:
    async def test_one_more_than_may_wait_fails_at_once(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10, max_waiting=2)
        results = await clock.run(*(provider.complete(a_request()) for _ in range(5)))
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0])
        for error in results[3:]:
            assert isinstance(error, RateLimitError)
            assert (error.kind, error.attempts, error.retryable) == ("local", 0, False)
            assert (error.retry_after, error.status, error.model) == (None, None, MODEL)
            assert "2 calls" in str(error)
            assert "max_waiting" in str(error)

    async def test_nobody_waits_where_nobody_may(self) -> None:
        clock = Clock()
        provider = limited(Timed(clock), clock, 10, max_waiting=0)
        await provider.complete(a_request())
        with pytest.raises(RateLimitError, match="Not sent"):
            await provider.complete(a_request())

    async def test_who_is_due_before_its_turn_fails_at_once(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        tasks = [asyncio.ensure_future(provider.complete(a_request())) for _ in range(3)]
        await clock.settle()
        with pytest.raises(DeadlineExceededError, match="2 calls") as caught:
            await provider.complete(due_in(clock, 18.0))
        assert (caught.value.attempts, caught.value.kind) == (0, "deadline")
        assert clock.now == 1000.0
        assert provider.waiting(MODEL) == 2
        await clock.run(*tasks, provider.complete(due_in(clock, 18.1)))
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0, 18.0])

    async def test_who_is_due_already_is_not_sent(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        with pytest.raises(DeadlineExceededError):
            await limited(inner, clock, 10).complete(due_in(clock, 0.0))
        assert inner.calls == 0

    async def test_a_turn_that_moves_behind_the_deadline_ends_the_wait(self) -> None:
        """As soon as that is known: here a call before it has used more than was expected."""
        clock = Clock()
        answer = an_answer(input_tokens=INPUT, output_tokens=596)
        inner = Timed(clock, takes(clock, 5.0, answer))
        provider = limited(inner, clock, None, 60)
        request = due_in(clock, 70.0)
        [_, error] = await clock.run(
            provider.complete(a_request(max_tokens=56)), provider.complete(request)
        )
        assert isinstance(error, DeadlineExceededError)
        assert (error.attempts, clock.now) == (0, 1005.0)

    async def test_a_refusal_ends_the_wait_of_those_who_are_due_too_soon(self) -> None:
        clock = Clock()
        refused = takes(clock, 1.0, RateLimitError("no", retry_after=30.0))
        inner = Timed(clock, refused, an_answer())
        provider = limited(inner, clock, 30)
        [_, waits, late, last] = await clock.run(
            provider.complete(a_request()),
            provider.complete(a_request()),
            provider.complete(due_in(clock, 20.0)),
            provider.complete(due_in(clock, 90.0)),
        )
        assert isinstance(late, DeadlineExceededError)
        assert waits == last == an_answer()
        assert inner.starts == pytest.approx([0.0, 31.0, 35.0], rel=0.01)  # at half the rate


class TestStreams:
    async def test_they_wait_to_start_and_hold_nothing_afterwards(self) -> None:
        clock = Clock()
        inner = Timed(clock, deltas("It ", "is ", "42."))
        provider = limited(inner, clock, 10)
        streams = [provider.stream(a_request()) for _ in range(2)]
        first = [await anext(streams[0])]  # it has begun, and is open
        results = await clock.run(collect(streams[1]), collect(streams[0]))
        assert inner.starts == pytest.approx([0.0, 6.0])
        assert first + results[1] == results[0] == deltas("It ", "is ", "42.")
        assert inner.started == inner.ended == 2

    async def test_a_whole_one_is_corrected_by_its_usage(self) -> None:
        clock = Clock()
        answer = an_answer("42.", input_tokens=INPUT, output_tokens=116)
        inner = Timed(clock, deltas("42.", answer=answer))
        provider = limited(inner, clock, None, 60)
        await clock.run(*(collect(provider.stream(a_request(max_tokens=6))) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 120.0])

    @pytest.mark.parametrize("way", ["break", "cancel", "error"])
    async def test_what_came_of_one_that_ended_early_is_paid_for(self, way: str) -> None:
        clock = Clock()

        async def hang() -> Any:
            await clock.wait(math.inf)

        class Streaming(Timed):
            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                self.started += 1
                await self._next(request)
                try:
                    yield StreamChunk(text="x" * 480)
                    if way == "error":
                        raise ServerError("no")
                    await hang()
                finally:
                    self.ended += 1

        inner = Streaming(clock)
        provider = limited(inner, clock, None, 60)

        async def read() -> None:
            stream = provider.stream(a_request(max_tokens=100_000))
            async for _ in stream:
                if way == "break":
                    break
            await stream.aclose()

        reading = asyncio.ensure_future(read())
        await clock.settle()
        if way == "cancel":
            reading.cancel()
        await asyncio.wait([reading])
        assert inner.started == inner.ended == 1
        task = asyncio.ensure_future(anext(provider.stream(a_request(max_tokens=1))))
        await clock.run(task)
        assert inner.starts == pytest.approx([0.0, 124.0])

    async def test_one_that_is_not_begun_takes_no_place(self) -> None:
        clock = Clock()
        provider = limited(Timed(clock), clock, 10)
        stream = provider.stream(a_request())
        await stream.aclose()
        assert provider.waiting(MODEL) == 0
        await provider.complete(a_request())

    async def test_one_that_is_left_while_it_waits_gives_its_place_up(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, 10)
        await provider.complete(a_request())
        task = asyncio.ensure_future(collect(provider.stream(a_request())))
        await clock.settle()
        assert provider.waiting(MODEL) == 1
        task.cancel()
        await asyncio.wait([task])
        assert provider.waiting(MODEL) == 0
        assert inner.started == 0


class TestRefusals:
    """A 429 says that the figures, if there are any, were too high."""

    async def test_the_rate_is_halved_once_for_all_calls_of_the_same_time(self) -> None:
        clock = Clock()
        refused = takes(clock, 1.0, RateLimitError("no"))
        inner = Timed(clock, *[refused] * 10, an_answer())
        provider = limited(inner, clock, 600)
        await clock.run(*(provider.complete(a_request()) for _ in range(10)))
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        # Half of the 60 a minute that are the least that is halved: one in 2 s.
        assert inner.starts[10:] == pytest.approx([3.0, 5.0, 7.0], rel=0.01)

    async def test_it_is_halved_again_by_those_that_started_since(self) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no"))
        provider = limited(inner, clock, 60)
        for _ in range(8):
            await clock.run(provider.complete(a_request()))
        waits = [b - a for a, b in itertools.pairwise(inner.starts)]
        assert waits == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])

    async def test_what_the_user_allows_is_halved_where_it_is_less(self) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no"))
        provider = limited(inner, clock, 6)
        await clock.run(provider.complete(a_request()))
        await clock.run(provider.complete(a_request()))
        assert inner.starts == pytest.approx([0.0, 20.0])

    async def test_without_any_figures_the_calls_of_the_last_minute_are_halved(self) -> None:
        clock = Clock()
        inner = Timed(clock, *[an_answer()] * 119, RateLimitError("no"), an_answer())
        provider = limited(inner, clock)
        await clock.run(*(provider.complete(a_request()) for _ in range(120)))
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        assert inner.starts[120:] == pytest.approx([1.0, 2.0, 3.0], rel=0.01)

    async def test_with_successes_it_rises_until_it_is_as_it_was(self) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no"), an_answer())
        provider = limited(inner, clock, 60)
        await clock.run(*(provider.complete(a_request()) for _ in range(400)))
        gaps = [b - a for a, b in itertools.pairwise(inner.starts)]
        assert gaps[0] == pytest.approx(2.0)
        assert all(b <= a + 1e-6 for a, b in itertools.pairwise(gaps))
        assert gaps[-1] == pytest.approx(1.0)
        recovered = next(n for n, gap in enumerate(gaps) if gap < 1.001)
        assert 240 <= inner.starts[recovered] <= 360  # five minutes, a tenth in each

    async def test_without_a_limit_it_ends_at_twice_the_rate_that_was_refused(self) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no"), an_answer())
        provider = limited(inner, clock, max_waiting=10_000)
        await clock.run(provider.complete(a_request()))
        await clock.run(*(provider.complete(a_request()) for _ in range(1300)))
        gaps = [b - a for a, b in itertools.pairwise(inner.starts)]
        assert min(gap for gap in gaps if gap > 1e-6) == pytest.approx(0.5, rel=0.02)
        assert gaps[-1] == 0.0

    @pytest.mark.parametrize(("pause", "gap"), [(890.0, 60.0), (901.0, 0.0)])
    async def test_a_quarter_of_an_hour_without_one_is_enough_however_few_calls_there_are(
        self, pause: float, gap: float
    ) -> None:
        clock = Clock()
        inner = Timed(clock, *[RateLimitError("no")] * 8, an_answer())
        provider = limited(inner, clock)
        for _ in range(8):
            await clock.run(provider.complete(a_request()))
        clock.now += pause
        for _ in range(2):
            await clock.run(provider.complete(a_request()))
        assert inner.starts[-1] - inner.starts[-2] == pytest.approx(gap, rel=0.2)

    async def test_a_clock_that_goes_back_does_not_keep_it(self) -> None:
        clock = Clock()
        inner = Timed(clock, *[RateLimitError("no")] * 8, an_answer())
        provider = limited(inner, clock)
        for _ in range(8):
            await clock.run(provider.complete(a_request()))
        clock.now -= 1_000_000.0
        await clock.run(provider.complete(a_request()))
        clock.now += 901.0
        before = clock.now
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        assert clock.now == before

    async def test_a_time_that_it_names_is_not_waited_for_twice(self) -> None:
        """Retry waits for it already; so do, here, the calls that wait for their turn."""
        clock = Clock()
        inner = Timed(clock, takes(clock, 1.0, RateLimitError("no", retry_after=7.0)), an_answer())
        retrying = RetryingProvider(
            limited(inner, clock, 30),
            clock=clock,
            sleep=clock.sleep,
            timeout=clock.timeout,
            random=lambda: 0.0,
        )
        results = await clock.run(*(retrying.complete(a_request()) for _ in range(3)))
        assert [result.attempts for result in results] == [2, 1, 1]
        assert inner.starts == pytest.approx([0.0, 8.0, 12.0, 16.0], rel=0.01)
        assert clock.sleeps == [7.0]

    async def test_a_time_of_more_than_a_minute_is_for_retry_to_judge(self) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no", retry_after=3600.0), an_answer())
        provider = limited(inner, clock, 60)
        await clock.run(*(provider.complete(a_request()) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 60.0])

    @pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan, "soon"])
    async def test_a_time_that_is_none_is_not_waited_for(self, seconds: Any) -> None:
        clock = Clock()
        inner = Timed(clock, RateLimitError("no", retry_after=seconds), an_answer())
        provider = limited(inner, clock, 60)
        await clock.run(*(provider.complete(a_request()) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 2.0])

    async def test_one_in_the_middle_of_a_stream_counts_too(self) -> None:
        clock = Clock()
        inner = Timed(clock, [StreamChunk(text="It"), RateLimitError("no")], an_answer())
        provider = limited(inner, clock, 60)
        await clock.run(*(collect(provider.stream(a_request())) for _ in range(2)))
        assert inner.starts == pytest.approx([0.0, 2.0])

    async def test_other_errors_change_nothing(self) -> None:
        clock = Clock()
        inner = Timed(clock, ServerError("no"))
        provider = limited(inner, clock, 60)
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 1.0, 2.0])

    async def test_what_was_refused_here_is_no_429(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        both = limited(limited(inner, clock, 60, max_waiting=0), clock, 6000)
        results = await clock.run(*(both.complete(a_request()) for _ in range(2)))
        assert isinstance(results[1], RateLimitError)
        await clock.run(clock.wait(1.0))
        await clock.run(both.complete(a_request()))  # not after 2 s
        assert inner.starts == pytest.approx([0.0, 1.0])


class TestTheStack:
    """What was not sent costs nothing, and says nothing about the provider."""

    def stack(self, inner: Any, clock: Clock, **options: Any) -> CostTrackingProvider:
        provider = RetryingProvider(
            limited(inner, clock, 10, **options),
            clock=clock,
            sleep=clock.sleep,
            timeout=clock.timeout,
        )
        breaker = CircuitBreakerProvider(provider, failure_threshold=1, clock=clock)
        return CostTrackingProvider(breaker, clock=clock)

    async def test_a_full_queue_leaves_no_entry_and_does_not_open_the_circuit(self) -> None:
        clock = Clock()
        inner = Timed(clock)
        stack = self.stack(inner, clock, max_waiting=1)
        results = await clock.run(*(stack.complete(a_request()) for _ in range(3)))
        assert isinstance(results[2], RateLimitError)
        assert (results[2].attempts, results[2].kind) == (0, "local")
        assert [entry.state for entry in stack.usage.ledger] == ["exact"] * 2
        assert await clock.run(stack.complete(a_request())) == [an_answer()]

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_deadline_before_its_turn_is_neutral_too(self, *, streamed: bool) -> None:
        clock = Clock()
        stack = self.stack(Timed(clock), clock)
        await stack.complete(a_request())
        clock.now += 1.0
        request = due_in(clock, 5.0)
        work = collect(stack.stream(request)) if streamed else stack.complete(request)
        [error] = await clock.run(work)
        assert isinstance(error, DeadlineExceededError)
        assert (error.attempts, clock.now) == (0, 1001.0)
        assert len(stack.usage.ledger) == 1
        await clock.run(stack.complete(a_request()))

    async def test_a_call_that_is_cancelled_while_it_waits_leaves_no_entry(self) -> None:
        clock = Clock()
        stack = self.stack(Timed(clock), clock)
        await stack.complete(a_request())
        for work in (stack.complete(a_request()), collect(stack.stream(a_request()))):
            task = asyncio.ensure_future(work)
            await clock.settle()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert len(stack.usage.ledger) == 1
        assert stack.usage.is_exact

    async def test_so_it_is_without_retry(self) -> None:
        clock = Clock()
        stack = CostTrackingProvider(limited(Timed(clock), clock, 10, max_waiting=0))
        await stack.complete(a_request())
        with pytest.raises(RateLimitError):
            await stack.complete(a_request())
        with pytest.raises(DeadlineExceededError):
            await stack.complete(due_in(clock, 1.0))
        assert len(stack.usage.ledger) == 1

    async def test_each_attempt_of_a_retry_waits_for_its_turn(self) -> None:
        clock = Clock()
        inner = Timed(clock, ServerError("no"), an_answer())
        stack = self.stack(inner, clock)
        [answer] = await clock.run(stack.complete(a_request()))
        assert answer.attempts == 2
        assert inner.starts == pytest.approx([0.0, 6.0])
        assert len(stack.usage.ledger) == 2

    async def test_what_failed_before_the_wait_stays_in_the_ledger(self) -> None:
        clock = Clock()
        stack = self.stack(Timed(clock, ServerError("no")), clock)
        [error] = await clock.run(stack.complete(due_in(clock, 5.9)))
        assert isinstance(error, DeadlineExceededError)
        assert error.attempts == 1
        assert len(stack.usage.ledger) == 1

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(("given", "state"), [(10.0, "closed"), (11.1, "open")])
    async def test_the_provider_is_judged_by_the_time_that_it_had_and_not_by_the_wait(
        self, given: float, state: str, *, streamed: bool
    ) -> None:
        """After 6 s in the queue 4 s are less than any provider is judged by; 5.1 s are not."""
        clock = Clock()
        stack = self.stack(Timed(clock, an_answer(), takes(clock, math.inf)), clock)
        await stack.complete(a_request())
        request = due_in(clock, given)
        work = collect(stack.stream(request)) if streamed else stack.complete(request)
        [error] = await clock.run(work)
        assert isinstance(error, DeadlineExceededError)
        assert error.attempts == 1
        breaker = stack.inner
        assert isinstance(breaker, CircuitBreakerProvider)
        assert breaker.state(MODEL) == state

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_who_waits_while_the_circuit_opens_is_not_sent(self, *, streamed: bool) -> None:
        """Nor is who waits behind: all fail when the first would have had its turn."""
        clock = Clock()
        inner = Timed(clock, takes(clock, 7.0, ServerError("down", status=500, retryable=False)))
        stack = self.stack(inner, clock)
        calls = 5
        work = (lambda r: collect(stack.stream(r))) if streamed else stack.complete
        first, second, *others = await clock.run(*(work(a_request()) for _ in range(calls)))
        assert isinstance(first, ServerError)
        assert isinstance(second, ServerError)
        assert {type(error) for error in others} == {CircuitOpenError}
        assert inner.starts == pytest.approx([0.0, 6.0])
        assert clock.now == pytest.approx(1013.0)
        assert len(stack.usage.ledger) == 2
        clock.now += 30.0
        await clock.run(work(a_request()))
        assert inner.starts[-1] == pytest.approx(43.0)  # at once: they have taken nothing

    async def test_nor_by_the_pause_that_it_has_asked_for(self) -> None:
        clock = Clock()
        refused = RateLimitError("no", retry_after=7.0, retryable=True)
        stack = self.stack(Timed(clock, refused, takes(clock, math.inf)), clock)
        [error] = await clock.run(stack.complete(due_in(clock, 13.0)))
        assert isinstance(error, DeadlineExceededError)
        assert error.attempts == 2
        breaker = stack.inner
        assert isinstance(breaker, CircuitBreakerProvider)
        assert breaker.state(MODEL) == "closed"

    async def test_the_names_are_in_the_message_but_no_key_is(self) -> None:
        clock = Clock()
        provider = RateLimitingProvider(
            Timed(clock), RateLimit(1, max_waiting=0), provider="acme", clock=clock
        )
        await provider.complete(a_request())
        with pytest.raises(AetherError) as caught:
            await provider.complete(a_request())
        assert isinstance(caught.value, RateLimitError)
        assert caught.value.provider == "acme"


class TestSettings:
    @pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "60", 10**400])
    def test_a_limit_that_is_none_is_refused(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match="above 0"):
            RateLimit(bad)
        with pytest.raises(ConfigurationError, match="above 0"):
            RateLimit(tokens_per_minute=bad)

    @pytest.mark.parametrize("bad", [-1, 1.5, True, None])
    def test_a_number_that_may_wait_is_whole(self, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match="whole number"):
            RateLimit(max_waiting=bad)

    def test_a_limit_of_another_type_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="RateLimit"):
            RateLimitingProvider(FakeProvider(), 60)  # type: ignore[arg-type]  # what is tested

    @pytest.mark.parametrize("figure", [1e-300, 5e-324, 1e300, 1e-3])
    async def test_any_number_above_0_works(self, figure: float) -> None:
        clock = Clock()
        provider = limited(Timed(clock), clock, figure, figure)
        await provider.complete(a_request())
        task = asyncio.ensure_future(provider.complete(due_in(clock, 50.0)))
        [result] = await clock.run(task)
        expected = LLMResponse if figure > 1 else DeadlineExceededError
        assert isinstance(result, expected)

    @pytest.mark.parametrize("figure", [0.05, 0.001, 1e-6])
    async def test_a_rate_of_less_than_one_in_ten_minutes_is_kept_to(self, figure: float) -> None:
        clock = Clock()
        inner = Timed(clock)
        provider = limited(inner, clock, figure)
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 60.0 / figure, 120.0 / figure])

    @pytest.mark.parametrize(
        ("limit", "said"),
        [
            (RateLimit(), "what the provider says; at most 1000 calls wait"),
            (RateLimit(60, max_waiting=5), "60 requests a minute; at most 5 calls wait"),
            (
                RateLimit(0.5, 2_000_000),
                "0.5 requests and 2000000 tokens a minute; at most 1000 calls wait",
            ),
        ],
    )
    def test_it_says_how_it_is_set(self, limit: RateLimit, said: str) -> None:
        assert RateLimitingProvider(FakeProvider(), limit).settings() == said

    async def test_it_is_closed_with_what_it_holds(self) -> None:
        inner = Scripted(an_answer(), default_model="m")
        provider = RateLimitingProvider(inner)
        assert (provider.default_model, repr(provider)) == ("m", "RateLimiting > Scripted")
        await provider.aclose()
        assert inner.closed


class TestTheFacade:
    async def test_it_has_its_place_in_the_stack(self) -> None:
        timeout = Timeout(stall=5.0)
        config = ProviderConfig(provider="openai", api_key="sk-none", model="m", timeout=timeout)
        async with Aether(config=config, rate_limit=RateLimit(60)) as client:
            layers = repr(client)
        assert layers == (
            "Aether(CostTracking > CircuitBreaker > Retrying > RateLimiting > Timeout > OpenAI)"
        )

    async def test_it_holds_around_a_provider_that_was_passed_in(self) -> None:
        inner = FakeProvider()
        async with Aether(inner, rate_limit=RateLimit(1, max_waiting=0)) as client:
            await client.ask("Hi")
            with pytest.raises(RateLimitError, match="Not sent"):
                await client.ask("Hi")
            assert len(client.usage.ledger) == len(inner.requests) == 1

    async def test_the_configuration_may_have_it(self) -> None:
        config = ProviderConfig(provider="fake", rate_limit=RateLimit(1, max_waiting=0))
        async with Aether(config=config) as client:
            await client.ask("Hi")
            with pytest.raises(RateLimitError, match="Not sent"):
                await client.ask("Hi")

    def test_a_timeout_for_content_that_is_none_is_refused_when_the_client_is_made(self) -> None:
        config = ProviderConfig(
            provider="openai", api_key="sk-none", model="m", timeout=Timeout(stall=-1.0)
        )
        with pytest.raises(ConfigurationError, match="stall"):
            Aether(config=config)
