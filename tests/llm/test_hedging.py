"""When a call is made twice, which answer counts, and what becomes of the other."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from aether import Aether
from aether.config import ProviderConfig
from aether.errors import (
    AuthenticationError,
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm.budget import BudgetProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.budget import Budget
from aether.llm.contracts import CallContext, LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import Hedge
from aether.testing import FaultServer, faults
from aether.testing.providers import AdapterConformance, ProviderConformance
from aether.testing.wires import OpenAIChatWire
from tests.llm.scripted import Clock, Scripted, a_request, an_answer, collect, deltas

ALWAYS = Hedge(after=1.0, max_share=1.0)
A, B = an_answer("From A.", model="a-1"), an_answer("From B.", model="b-1")


class Timed:
    """Plays a script of answers, each after its seconds; an exception is raised then.

    A stream's first chunk is empty and comes at once, its content comes then, and more of it
    `pause` seconds later each.
    """

    def __init__(
        self, clock: Clock, *script: tuple[float, Any], pause: float = 0.0, name: str = "m"
    ) -> None:
        self.clock = clock
        self.script = script
        self.pause = pause
        self.default_model = name
        self.requests: list[LLMRequest] = []
        self.open = 0
        self.most_open = 0
        self.ended: list[float] = []
        self.closed = 0

    @property
    def calls(self) -> int:
        return len(self.requests)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        seconds, answer = self._next(request)
        try:
            await self.clock.wait(seconds)
            if isinstance(answer, BaseException):
                raise answer
            return answer  # type: ignore[no-any-return]  # whatever the script says
        finally:
            self._end()

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        seconds, answer = self._next(request)
        try:
            yield StreamChunk()
            await self.clock.wait(seconds)
            if isinstance(answer, BaseException):
                raise answer
            chunks = deltas(*answer.text.split("|"), answer=answer)
            for place, chunk in enumerate(chunks):
                if place and self.pause:
                    await self.clock.wait(self.pause)
                yield chunk
        finally:
            self._end()

    async def aclose(self) -> None:
        self.closed += 1

    def _next(self, request: LLMRequest) -> tuple[float, Any]:
        step = self.script[min(self.calls, len(self.script) - 1)]
        self.requests.append(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return step

    def _end(self) -> None:
        self.open -= 1
        self.ended.append(self.clock.now)


def hedged(
    clock: Clock, *script: tuple[float, Any], hedge: Hedge = ALWAYS, **options: Any
) -> tuple[HedgingProvider, Timed]:
    inner = Timed(clock, *script)
    return HedgingProvider(inner, hedge, clock=clock, call_later=clock.call_later, **options), inner


async def ask(stack: Any, *, streamed: bool, **fields: Any) -> LLMResponse:
    """The answer, whichever way it is asked for."""
    if not streamed:
        response: LLMResponse = await stack.complete(a_request(**fields))
        return response
    chunks = await collect(stack.stream(a_request(**fields)))
    final = chunks[-1].response
    assert final is not None
    assert "".join(chunk.text for chunk in chunks) == final.text.replace("|", "")
    return final


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["complete", "stream"])


@both_ways
class TestWhoWins:
    async def test_a_quick_answer_is_asked_for_once(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (0.9, A))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer == A
        assert inner.calls == 1
        assert clock.now == 1000.9

    async def test_the_second_if_it_is_quicker(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (10.0, A), (2.0, B))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From B."
        assert clock.now == 1003.0
        assert inner.ended[0] == 1003.0
        assert inner.open == 0

    async def test_the_first_if_it_comes_all_the_same(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (2.0, A), (2.0, B))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From A."
        assert clock.now == 1002.0
        assert inner.ended == [1002.0, 1002.0]

    async def test_if_both_come_at_once_it_is_one_whole_answer(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (3.0, A), (2.0, B))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text in ("From A.", "From B.")
        assert inner.open == 0

    async def test_one_that_fails_before_it_is_late_is_raised_at_once(self, streamed: bool) -> None:
        clock = Clock()
        error = ServerError("no")
        stack, inner = hedged(clock, (0.5, error), (0.0, B))
        assert await clock.run(ask(stack, streamed=streamed)) == [error]
        assert clock.now == 1000.5
        assert inner.calls == 1

    async def test_if_the_first_fails_the_second_is_waited_for(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (2.0, ServerError("no")), (5.0, B))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From B."
        assert clock.now == 1006.0
        assert inner.ended == [1002.0, 1006.0]

    async def test_if_the_second_fails_the_first_is_waited_for(
        self, streamed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (6.0, A), (2.0, AuthenticationError("sk-secret")))
        with caplog.at_level(logging.INFO):
            [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From A."
        assert inner.ended == [1003.0, 1006.0]
        assert "AuthenticationError" in caplog.text
        assert "sk-secret" not in caplog.text

    @pytest.mark.parametrize("seconds", [(2.0, 3.0), (5.0, 2.0), (3.0, 2.0)])
    async def test_if_both_fail_the_first_ones_error_tells_of_the_other(
        self, streamed: bool, seconds: tuple[float, float]
    ) -> None:
        clock = Clock()
        first, second = ServerError("one"), OverloadedError("two", status=529)
        stack, inner = hedged(clock, (seconds[0], first), (seconds[1], second))
        assert await clock.run(ask(stack, streamed=streamed)) == [first]
        assert "A second call failed, too: " in notes(first)
        assert "OverloadedError (status 529): two" in notes(first)
        assert first.attempts == 2
        assert inner.open == 0

    async def test_what_is_no_answer_is_a_failure(self, streamed: bool) -> None:
        class Wrong:
            async def complete(self, request: Any) -> Any:
                return "text"

            async def stream(self, request: Any) -> Any:
                yield StreamChunk()

        clock = Clock()
        stack, _ = hedged(clock, (5.0, A), other=Wrong())
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From A."

    async def test_a_second_that_is_cancelled_by_itself_is_a_failure(self, streamed: bool) -> None:
        clock = Clock()
        stack, _ = hedged(clock, (5.0, A), (1.0, asyncio.CancelledError()))
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From A."
        stack, _ = hedged(clock, (5.0, ServerError("no")), (9.0, asyncio.CancelledError()))
        [error] = await clock.run(ask(stack, streamed=streamed))
        assert isinstance(error, ServerError)

    async def test_a_retry_inside_goes_on_while_the_second_is_made(self, streamed: bool) -> None:
        clock = Clock()
        inner = Timed(clock, (0.5, ServerError("no")), (0.2, B), (0.0, A))
        retrying = RetryingProvider(
            inner,
            base_delay=4.0,
            clock=clock,
            sleep=clock.sleep,
            timeout=clock.timeout,
            random=lambda: 1.0,
        )
        stack = HedgingProvider(retrying, ALWAYS, clock=clock, call_later=clock.call_later)
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From B."
        assert clock.now == 1001.2
        assert inner.calls == 2
        assert answer.attempts == 2


class TestStreams:
    async def test_the_loser_has_ended_before_anything_is_handed_out(self) -> None:
        for script in (((5.0, A), (1.0, B)), ((1.5, A), (1.0, B))):
            clock = Clock()
            stack, inner = hedged(clock, *script)
            stream = stack.stream(a_request())
            [chunk] = await clock.run(anext(stream))
            assert isinstance(chunk, StreamChunk)
            assert inner.open == 1
            assert inner.most_open == 2
            await stream.aclose()
            assert inner.open == 0

    async def test_chunks_without_content_stay_in_their_place(self) -> None:
        clock = Clock()
        for script in (((5.0, A), (1.0, B)), ((1.5, A), (1.0, B)), ((0.5, A),)):
            stack, _ = hedged(clock, *script)
            [chunks] = await clock.run(collect(stack.stream(a_request())))
            assert [bool(chunk.text) for chunk in chunks] == [False, True, False]

    async def test_without_end_they_are_not_kept(self) -> None:
        class Chatty:
            count = 0

            async def complete(self, request: Any) -> Any:
                raise NotImplementedError

            async def stream(self, request: Any) -> AsyncGenerator[StreamChunk, None]:
                for _ in range(10_000):
                    yield StreamChunk()
                for chunk in deltas("From A.", answer=A):
                    yield chunk

        stack = HedgingProvider(Chatty(), Hedge(after=30.0, max_share=1.0))
        chunks = await collect(stack.stream(a_request()))
        assert len(chunks) == 101
        assert [chunk.text for chunk in chunks[-2:]] == ["From A.", ""]

    @pytest.mark.parametrize("script", [((9.0, A), (1.0, B)), ((1.5, A), (1.0, B))])
    async def test_the_rest_comes_as_it_comes(self, script: Any) -> None:
        clock = Clock()
        script = tuple((seconds, an_answer(f"{x.text}|more|end")) for seconds, x in script)
        stack, inner = hedged(clock, *script)
        inner.pause = 3.0
        seen: list[tuple[float, str]] = []

        async def read() -> None:
            seen.extend([(clock.now, chunk.text) async for chunk in stack.stream(a_request())])

        await clock.run(read())
        times = [at for at, text in seen if text]
        assert [text for _, text in seen if text][1:] == ["more", "end"]
        assert times == [times[0], times[0] + 3.0, times[0] + 6.0]

    @pytest.mark.parametrize("script", [((9.0, A), (1.0, B)), ((1.5, A), (1.0, B))])
    async def test_one_that_breaks_after_its_content_breaks(self, script: Any) -> None:
        clock = Clock()
        error = ServerError("down")

        class Breaking(Timed):
            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                async for chunk in super().stream(request):
                    if chunk.is_final:
                        raise error
                    yield chunk

        inner = Breaking(clock, *script)
        stack = CostTrackingProvider(
            HedgingProvider(inner, ALWAYS, clock=clock, call_later=clock.call_later), clock=clock
        )
        assert await clock.run(collect(stack.stream(a_request()))) == [error]
        assert inner.open == 0
        assert [each.error for each in stack.usage.ledger] == ["CancelledError", "ServerError"]
        assert error.attempts == 2

    async def test_a_second_that_is_cut_off_is_no_whole_answer(self) -> None:
        class Cut:
            async def complete(self, request: Any) -> Any:
                raise NotImplementedError

            async def stream(self, request: Any) -> AsyncGenerator[StreamChunk, None]:
                yield StreamChunk(text="It ")

        clock = Clock()
        stack, _ = hedged(clock, (9.0, A), other=Cut())
        [error] = await clock.run(collect(stack.stream(a_request())))
        assert isinstance(error, StreamInterruptedError)

    async def test_a_provider_may_bind_its_stream_to_its_task(self) -> None:
        class Bound:
            """A limit around the whole stream: it holds for the task that has entered it."""

            def __init__(self, inner: Timed) -> None:
                self._inner = inner

            async def complete(self, request: Any) -> Any:
                raise NotImplementedError

            async def stream(self, request: Any) -> AsyncGenerator[StreamChunk, None]:
                task = asyncio.current_task()
                async with asyncio.timeout(10.0):
                    async for chunk in self._inner.stream(request):
                        assert asyncio.current_task() is task
                        yield chunk
                        assert asyncio.current_task() is task

        for script in (((9.0, A), (1.0, B)), ((1.5, A), (1.0, B)), ((0.5, A),)):
            clock = Clock()
            inner = Timed(clock, *script)
            stack = HedgingProvider(Bound(inner), ALWAYS, clock=clock, call_later=clock.call_later)
            [chunks] = await clock.run(collect(stack.stream(a_request())))
            assert chunks[-1].is_final
            assert inner.open == 0

    async def test_a_provider_may_be_another_client(self) -> None:
        class Gateway:
            def __init__(self, inner: Timed) -> None:
                self.client = Aether(inner)

            async def complete(self, request: Any) -> Any:
                raise NotImplementedError

            async def stream(self, request: Any) -> AsyncGenerator[StreamChunk, None]:
                async for chunk in self.client.stream("Hi"):
                    yield chunk

        clock = Clock()
        inner = Timed(clock, (9.0, A), (1.0, B))
        stack = HedgingProvider(Gateway(inner), ALWAYS, clock=clock, call_later=clock.call_later)
        [chunks] = await clock.run(collect(stack.stream(a_request())))
        assert "".join(chunk.text for chunk in chunks) == "From B."


@both_ways
class TestWhenACallIsLate:
    async def test_of_fewer_than_twenty_nothing_is_concluded(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, *[(1.0, A)] * 19, (60.0, A), hedge=Hedge(max_share=1.0))
        for _ in range(20):
            await clock.run(ask(stack, streamed=streamed))
        assert inner.calls == 20
        assert clock.now == 1079.0

    async def test_then_what_is_slower_than_95_of_100_is(self, streamed: bool) -> None:
        clock = Clock()
        seconds = [float(n) for n in range(1, 21)]
        script = [*((each, A) for each in seconds), (60.0, A), (0.5, B)]
        stack, inner = hedged(clock, *script, hedge=Hedge(max_share=1.0))
        for _ in range(20):
            await clock.run(ask(stack, streamed=streamed))
        begun = clock.now
        [answer] = await clock.run(ask(stack, streamed=streamed))
        assert answer.text == "From B."
        assert clock.now == begun + 19.0 + 0.5  # the 95th percentile of 1 to 20
        assert inner.calls == 22

    async def test_each_model_and_way_for_itself(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, *[(1.0, A)] * 20, (60.0, A), hedge=Hedge(max_share=1.0))
        for _ in range(20):
            await clock.run(ask(stack, streamed=streamed))
        await clock.run(ask(stack, streamed=not streamed))
        await clock.run(ask(stack, streamed=streamed, model="another"))
        assert inner.calls == 22

    async def test_failures_are_not_counted(self, streamed: bool) -> None:
        clock = Clock()
        script = [*[(9.0, ServerError("no"))] * 30, *[(1.0, A)] * 20, (60.0, A), (0.5, B)]
        stack, _ = hedged(clock, *script, hedge=Hedge(max_share=1.0))
        for _ in range(50):
            await clock.run(ask(stack, streamed=streamed))
        begun = clock.now
        await clock.run(ask(stack, streamed=streamed))
        assert clock.now == begun + 1.5

    async def test_a_late_call_is_counted_with_all_its_time(self, streamed: bool) -> None:
        """Else each hedge would make the next calls late sooner."""
        clock = Clock()
        script = [*[(1.0, A)] * 20, *[(60.0, A), (0.1, B)] * 3, (60.0, A), (0.1, B)]
        stack, _ = hedged(clock, *script, hedge=Hedge(max_share=1.0))
        for _ in range(23):
            await clock.run(ask(stack, streamed=streamed))
        begun = clock.now
        await clock.run(ask(stack, streamed=streamed))
        assert clock.now - begun >= 1.1


class TestShare:
    async def test_a_cold_client_makes_no_call_twice(self) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (3.0, A), hedge=Hedge(after=1.0))
        for _ in range(19):
            await clock.run(stack.complete(a_request()))
        assert inner.calls == 19
        await clock.run(stack.complete(a_request()))
        assert inner.calls == 21

    @pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 1.0])
    async def test_no_more_than_it_are_made_twice(self, share: float) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (3.0, A), hedge=Hedge(after=1.0, max_share=share))
        for number in range(1, 101):
            await clock.run(stack.complete(a_request()))
            assert inner.calls - number <= share * number + 1e-9
        assert inner.calls == 100 + round(share * 100)

    async def test_also_of_calls_at_once(self) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (3.0, A), hedge=Hedge(after=1.0, max_share=0.1))
        await clock.run(*(stack.complete(a_request()) for _ in range(100)))
        assert 100 < inner.calls <= 110

    @pytest.mark.parametrize(
        "refusal", [CircuitOpenError("open", retry_after=1.0), BudgetExceededError("nothing left")]
    )
    @both_ways
    async def test_a_refused_second_is_none(self, refusal: Exception, streamed: bool) -> None:
        clock = Clock()
        other = Scripted(refusal)
        stack, _ = hedged(clock, (3.0, A), hedge=Hedge(after=1.0, max_share=0.5), other=other)
        first, second, third = [
            (await clock.run(ask(stack, streamed=streamed)))[0] for _ in range(3)
        ]
        assert first == second == third == A
        assert other.calls == 2  # at the second call, and again with the leave given back
        error = ServerError("no")
        stack, _ = hedged(clock, (3.0, error), other=other)
        assert await clock.run(ask(stack, streamed=streamed)) == [error]
        assert notes(error) == ""

    async def test_an_open_circuit_lets_no_second_through(self) -> None:
        clock = Clock()
        inner = Timed(clock, (0.0, ServerError("no")), (3.0, A))
        breaker = CircuitBreakerProvider(inner, failure_threshold=1, clock=clock)
        sound = Timed(clock, (3.0, A))
        stack = HedgingProvider(
            sound, ALWAYS, other=breaker, clock=clock, call_later=clock.call_later
        )
        await clock.run(breaker.complete(LLMRequest(a_request().messages)))
        assert breaker.state() == "open"
        [answer] = await clock.run(stack.complete(a_request()))
        assert answer.text == "From A."
        assert inner.calls == 1

    async def test_a_reservation_must_have_room_for_a_second(self) -> None:
        class Reserved:
            def __init__(self, *, room: bool) -> None:
                self._room = room
                self.asked = 0

            def extend(self) -> bool:
                self.asked += 1
                return self._room

        for room in (False, True):
            clock = Clock()
            stack, inner = hedged(clock, (3.0, A), (0.0, B))
            context = CallContext()
            context.reservation = reserved = Reserved(room=room)
            [answer] = await clock.run(stack.complete(a_request(context=context)))
            assert answer.text == ("From B." if room else "From A.")
            assert (inner.calls, reserved.asked) == (1 + room, 1)
            for sent in inner.requests:  # so that a retry of either asks, too
                assert sent.context is not None
                assert sent.context.reservation is reserved


class TestDeadline:
    @both_ways
    @pytest.mark.parametrize("seconds", [0.5, 1.0])
    async def test_none_is_late_that_must_have_ended_before(
        self, streamed: bool, seconds: float
    ) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (5.0, A), (0.0, B))
        context = CallContext(deadline=clock.now + seconds)
        await clock.run(ask(stack, streamed=streamed, context=context))
        assert inner.calls == 1

    async def test_nor_one_for_which_no_call_was_ever_quick_enough(self) -> None:
        clock = Clock()
        script = [*[(2.0, A)] * 20, (9.0, A), (9.0, A), (1.0, B)]
        stack, inner = hedged(clock, *script, hedge=Hedge(max_share=1.0))
        for _ in range(20):
            await clock.run(stack.complete(a_request()))
        await clock.run(stack.complete(a_request(context=CallContext(deadline=clock.now + 3.9))))
        assert inner.calls == 21
        await clock.run(stack.complete(a_request(context=CallContext(deadline=clock.now + 4.1))))
        assert inner.calls == 23

    @both_ways
    async def test_both_have_the_calls_deadline(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (5.0, A), (0.0, B))
        context = CallContext(deadline=clock.now + 4.0)
        await clock.run(ask(stack, streamed=streamed, context=context))
        assert [each.context.deadline for each in inner.requests if each.context] == [1004.0] * 2


class TestTheSecondRequest:
    async def test_is_the_same_in_a_context_of_its_own(self) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (5.0, A), (0.0, B))
        request = a_request(extra_headers={"X-Own": "1"}, extra_body={"a": 1})
        await clock.run(stack.complete(request))
        first, second = inner.requests
        assert second.replace(context=None) == request
        assert first.context is not None
        assert second.context is not None
        assert first.context is not second.context
        assert first.context.call_id == second.context.call_id

    async def test_may_be_for_another_model(self) -> None:
        clock = Clock()
        hedge = Hedge(after=1.0, max_share=1.0, model="small")
        stack, inner = hedged(clock, (5.0, A), (0.0, B), hedge=hedge)
        await clock.run(stack.complete(a_request(model="large")))
        assert [each.model for each in inner.requests] == ["large", "small"]

    async def test_another_provider_is_sent_nothing_that_was_for_the_first_alone(self) -> None:
        clock = Clock()
        other = Timed(clock, (0.0, B))
        hedge = Hedge(after=1.0, max_share=1.0, model="other:small")
        stack, inner = hedged(clock, (5.0, A), hedge=hedge, other=other)
        request = a_request(extra_headers={"X-Key": "for A"}, extra_body={"a": 1})
        [answer] = await clock.run(stack.complete(request))
        assert answer.text == "From B."
        assert inner.requests[0].extra_headers == {"X-Key": "for A"}
        [sent] = other.requests
        assert (sent.model, sent.extra_headers, sent.extra_body) == (None, {}, {})
        assert sent.messages == request.messages


@both_ways
class TestTheLedger:
    @pytest.mark.parametrize(
        ("script", "ended"),
        [
            (((9.0, A), (1.0, B)), ["CancelledError", None]),
            (((1.5, A), (1.0, B)), ["CancelledError", None]),
            (((3.0, ServerError("no")), (5.0, B)), ["ServerError", None]),
            (((5.0, A), (1.0, ServerError("no"))), ["ServerError", None]),
            (
                ((5.0, ServerError("1")), (1.0, OverloadedError("2"))),
                ["OverloadedError", "ServerError"],
            ),
            (((0.5, A),), [None]),
        ],
    )
    async def test_whoever_keeps_it_both_are_in_it(
        self, streamed: bool, script: Any, ended: list[str | None]
    ) -> None:
        clock = Clock()
        # Outside of the hedge, of providers that open no entries themselves.
        stack, _ = hedged(clock, *script)
        outside = CostTrackingProvider(stack, clock=clock)
        [answer] = await clock.run(ask(outside, streamed=streamed))
        assert [each.error for each in outside.usage.ledger] == ended
        if isinstance(answer, LLMResponse):
            assert answer.attempts == len(ended)
            assert outside.usage.by_model[answer.model].requests == 1
        # Inside of it, where each line has its own.
        context = CallContext()
        inside = CostTrackingProvider(Timed(clock, *script), clock=clock)
        stack = HedgingProvider(inside, ALWAYS, clock=clock, call_later=clock.call_later)
        await clock.run(ask(stack, streamed=streamed, context=context))
        assert [each.error for each in context.entries] == ended
        assert len(inside.usage.ledger) == len(ended)

    async def test_a_cancelled_call_has_both(self, streamed: bool) -> None:
        clock = Clock()
        stack, inner = hedged(clock, (9.0, A), (9.0, B))
        outside = CostTrackingProvider(stack, clock=clock)
        task = asyncio.ensure_future(ask(outside, streamed=streamed))

        async def cancel() -> None:
            await clock.wait(2.0)
            task.cancel()

        await clock.run(task, cancel())
        assert task.cancelled()
        assert [each.error for each in outside.usage.ledger] == ["CancelledError"] * 2
        assert inner.open == 0


class TestClosing:
    async def test_both_are_closed_once(self) -> None:
        clock = Clock()
        other = Timed(clock, (0.0, B))
        stack, inner = hedged(clock, (0.0, A), other=other)
        await stack.aclose()
        assert (inner.closed, other.closed) == (1, 1)
        stack, inner = hedged(clock, (0.0, A))
        await stack.aclose()
        assert inner.closed == 1
        await HedgingProvider(inner, ALWAYS, other=inner).aclose()
        assert inner.closed == 2

    async def test_a_loser_that_does_not_end_holds_up_nothing_for_long(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("aether.extensions.llm._racing.GRACE_SECONDS", 0.01)
        release = asyncio.Event()

        class Stubborn:
            async def complete(self, request: Any) -> Any:
                try:
                    await asyncio.sleep(60)
                finally:
                    await release.wait()

        clock = Clock()
        inner = Timed(clock, (3.0, A))
        stack = HedgingProvider(
            inner, ALWAYS, other=Stubborn(), clock=clock, call_later=clock.call_later
        )
        task = asyncio.ensure_future(clock.run(stack.complete(a_request())))
        await Clock.settle()
        # In virtual time nothing sleeps any more: real time has to pass.
        with pytest.raises(AssertionError, match="nothing sleeps"):
            await task
        await asyncio.sleep(0.02)
        release.set()
        await Clock.settle()
        assert "does not end" in caplog.text


class TestConfiguration:
    @pytest.mark.parametrize("hedge", [None, True, 2.0, Hedge])
    def test_a_hedge_is_a_hedge(self, hedge: Any) -> None:
        with pytest.raises(ConfigurationError, match="Hedge"):
            HedgingProvider(FakeProvider(), hedge)

    def test_it_says_how_it_is_set(self) -> None:
        stack = HedgingProvider(FakeProvider(), Hedge())
        assert stack.settings() == "after the 95th percentile, at most 0.05 of the calls"
        stack = HedgingProvider(FakeProvider(), Hedge(after=2.5, max_share=1, model="small"))
        assert stack.settings() == "after 2.5 s, at most 1 of the calls, of small"

    @pytest.mark.parametrize("other", ["fake:model", FakeProvider, 7])
    def test_the_other_is_a_provider(self, other: Any) -> None:
        with pytest.raises(ConfigurationError, match="other"):
            HedgingProvider(FakeProvider(), ALWAYS, other=other)

    @pytest.mark.parametrize(
        "fields",
        [
            {"after": -1},
            {"after": float("nan")},
            {"after": True},
            {"max_share": 0},
            {"max_share": 1.5},
            {"max_share": "half"},
            {"model": ""},
            {"model": 7},
        ],
        ids=repr,
    )
    def test_bad_figures_are_refused(self, fields: Any) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(fields))):
            Hedge(**fields)


class TestOnAClient:
    async def test_the_switch_puts_it_there(self) -> None:
        config = ProviderConfig(provider="fake")
        async with Aether(config=config, hedge=True) as client:
            assert repr(client.provider).startswith("Hedging > ")
            for _ in range(25):
                assert await client.ask("Hi") == "hello"
            assert client.usage.total_requests == 25
            assert len(client.usage.ledger) == 25

    async def test_a_late_answer_is_asked_for_twice(self) -> None:
        gate = asyncio.Event()

        class Late(FakeProvider):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                first = not self.requests
                response = await super().complete(request)
                if first:
                    await gate.wait()
                return response

        late = Late("hello")
        async with Aether(late, hedge=Hedge(after=0.001, max_share=1.0)) as client:
            response = await client.complete("Hi")
            assert (response.text, response.attempts) == ("hello", 2)
            ended = {each.error for each in client.usage.ledger}
            assert ended == {"CancelledError", None}
            assert client.usage.total_requests == 1

    def test_a_blocking_stream_is_asked_for_twice_too(self) -> None:
        """Each of its items is read in a task of its own."""

        class Late(FakeProvider):
            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                first = not self.requests
                async for chunk in super().stream(request):
                    if first:
                        await asyncio.Event().wait()
                    yield chunk

        client = Aether(Late("hello"), hedge=Hedge(after=0.001, max_share=1.0))
        with client.sync as blocking:
            chunks = list(blocking.stream("Hi"))
        assert "".join(chunk.text for chunk in chunks) == "hello"
        assert chunks[-1].response is not None
        assert chunks[-1].response.attempts == 2

    @both_ways
    async def test_both_count_against_the_budget(self, streamed: bool) -> None:
        for limit, text, attempts in ((2, "From B.", 2), (1, "From A.", 1)):
            clock = Clock()
            budget = Budget(requests=limit)
            inner = Timed(clock, (0.05, A), name="gpt-4.1-mini")
            other = Timed(clock, (0.0, B), name="gpt-4.1-mini")
            lines = [BudgetProvider(each, budget) for each in (inner, other)]
            stack = HedgingProvider(
                lines[0],
                Hedge(after=0.01, max_share=1.0),
                other=lines[1],
                clock=clock,
                call_later=clock.call_later,
            )
            [answer] = await clock.run(ask(stack, streamed=streamed, max_tokens=5))
            assert (answer.text, answer.attempts) == (text, attempts)
            assert budget.spent_requests == limit
            assert other.calls == limit - 1

    def test_one_serves_threads_and_loops(self) -> None:
        stack = HedgingProvider(FakeProvider(), Hedge(after=0.0, max_share=0.5))
        failed: list[BaseException] = []

        def work() -> None:
            async def calls() -> None:
                for _ in range(50):
                    await stack.complete(a_request())
                    await collect(stack.stream(a_request()))

            try:
                asyncio.run(calls())
            except BaseException as error:  # noqa: BLE001 - of a thread, for the test
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed


async def test_a_limit_of_a_rate_that_is_waited_for_makes_a_call_late() -> None:
    """The second goes to another provider, which has no such limit."""
    clock = Clock()
    inner = Timed(clock, (0.1, RateLimitError("slow down", retry_after=30.0)), (0.1, A))
    retrying = RetryingProvider(inner, clock=clock, sleep=clock.sleep, timeout=clock.timeout)
    other = Timed(clock, (0.3, B))
    stack = HedgingProvider(retrying, ALWAYS, other=other, clock=clock, call_later=clock.call_later)
    [answer] = await clock.run(stack.complete(a_request()))
    assert answer.text == "From B."
    assert clock.now == pytest.approx(1001.3)


class TestAround(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return HedgingProvider(FakeProvider("Hello there."), Hedge(after=0.0, max_share=1.0))


class TestInPlaceOf(ProviderConformance):
    """The first is refused when the second has been asked."""

    def make_provider(self) -> LLMProvider:
        asked = asyncio.Event()

        async def refused() -> Any:
            asked.clear()
            await asked.wait()
            return CircuitOpenError("open", retry_after=1.0)

        class Slower(FakeProvider):
            async def complete(self, request: LLMRequest, /) -> LLMResponse:
                asked.set()
                await Clock.settle()
                return await super().complete(request)

            async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
                asked.set()
                await Clock.settle()
                async for chunk in super().stream(request):
                    yield chunk

        hedge = Hedge(after=0.0, max_share=1.0)
        return HedgingProvider(Scripted(refused), hedge, other=Slower("Hello there."))


class TestOverSockets:
    """The loser's connection is closed at once, and each request is in the ledger."""

    @both_ways
    async def test_a_first_that_hangs_is_left(self, aftermath: Any, streamed: bool) -> None:
        async with FaultServer(faults.hang(), "From B.") as server:
            config = server.config("openai", api_key=aftermath.key)
            async with Aether(config=config, hedge=Hedge(after=0.01, max_share=1.0)) as client:
                aftermath.client(client)
                aftermath.one_entry_per_request(client, server)
                if streamed:
                    final = [chunk async for chunk in client.stream("Hi")][-1].response
                else:
                    final = await client.complete("Hi")
                assert final is not None
                assert (final.text, final.attempts) == ("From B.", 2)
                await server.until_left()
                await server.until_open(1)
                states = {each.state for each in client.usage.ledger}
                assert states == {"unknown", "estimated"}

    @both_ways
    async def test_a_second_that_hangs_is_left(self, aftermath: Any, streamed: bool) -> None:
        first: Any = [faults.delay(0.03), "From A."]
        async with FaultServer(first, faults.hang()) as server:
            config = server.config("anthropic", api_key=aftermath.key)
            async with Aether(config=config, hedge=Hedge(after=0.001, max_share=1.0)) as client:
                aftermath.client(client)
                aftermath.one_entry_per_request(client, server)
                if streamed:
                    texts = [text async for text in client.stream_text("Hi")]
                    assert "".join(texts) == "From A."
                else:
                    assert await client.ask("Hi") == "From A."
                await server.until_left()
                await server.until_open(1)


class TestAroundAnAdapter(AdapterConformance):
    """It takes nothing away."""

    wire = OpenAIChatWire()
    cuts = 20
    lacks = frozenset({"parallel_tool_calls"})

    def make_provider(self, base_url: str) -> LLMProvider:
        adapter = OpenAIProvider(self.api_key, base_url=base_url, api="chat")
        return HedgingProvider(adapter, Hedge(after=60.0, max_share=1.0))
