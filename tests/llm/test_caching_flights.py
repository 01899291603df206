"""Equal calls at once: one call for all of them, whoever comes, goes, waits or fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    DeadlineExceededError,
    InputError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.caches import InMemoryCache
from aether.extensions.llm.caching import CachingProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.llm.contracts import (
    CallContext,
    LLMRequest,
    LLMResponse,
    StreamChunk,
    ToolCall,
    ToolCallDelta,
)
from aether.llm.streaming import final_chunk, open_stream
from tests.llm.scripted import Clock, a_request, an_answer

PIECES = ["It ", "is ", "42", "."]
TEXT = "".join(PIECES)


def sure(**fields: Any) -> LLMRequest:
    return a_request(temperature=0, **fields)


class Gated:
    """A provider whose answers come on, piece by piece, when the test says so.

    `failures` has for each call what it raises, and after how many pieces.
    """

    default_model = "gpt-6-luna"

    def __init__(self, **failures: Any) -> None:
        self.failures: dict[int, tuple[int, BaseException]] = failures.pop("failures", {})
        self.calls = 0
        self.active = 0
        self.most_active = 0
        self.cancelled = 0
        self.contexts: list[CallContext | None] = []
        self._permits = 0
        self._more = asyncio.Event()

    def go_on(self, pieces: int = 100) -> None:
        self._permits += pieces
        self._more.set()

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        async with self._call(request) as number:
            for place in range(len(PIECES)):
                await self._piece(number, place)
        return an_answer(TEXT)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        async with self._call(request) as number:
            for place, piece in enumerate(PIECES):
                await self._piece(number, place)
                yield StreamChunk(text=piece)
            yield final_chunk(an_answer(TEXT))

    @contextlib.asynccontextmanager
    async def _call(self, request: LLMRequest) -> AsyncGenerator[int, None]:
        self.calls += 1
        number = self.calls
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        self.contexts.append(request.context)
        try:
            yield number
        except BaseException as error:
            self.cancelled += isinstance(error, asyncio.CancelledError | GeneratorExit)
            raise
        finally:
            self.active -= 1

    async def _piece(self, number: int, place: int) -> None:
        failure = self.failures.get(number)
        if failure is not None and failure[0] == place:
            await asyncio.sleep(0)
            raise failure[1]
        while not self._permits:
            self._more.clear()
            await self._more.wait()
        self._permits -= 1


class Forgetful(InMemoryCache):
    """Keeps nothing: each flight is a call."""

    async def put(self, key: str, value: str) -> None:
        await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextmanager
def nothing_left(provider: CachingProvider) -> Iterator[None]:
    """No task and no flight is left, without the garbage collector."""
    before = asyncio.all_tasks()
    gc.disable()
    try:
        yield
        assert len(provider._flights) == 0
        left = asyncio.all_tasks() - before
        assert not left
    finally:
        gc.enable()


async def read(
    provider: CachingProvider, request: LLMRequest, *, streaming: bool, most: int | None = None
) -> tuple[list[str], LLMResponse | None]:
    """The deltas and the response; or the deltas until it left."""
    if not streaming:
        return [], await provider.complete(request)
    texts: list[str] = []
    response = None
    async with open_stream(provider, request) as chunks:
        async for chunk in chunks:
            assert response is None
            texts.append(chunk.text)
            response = chunk.response
            if len(texts) == most:
                break
    return texts, response


def starting(
    provider: CachingProvider, count: int, *, streaming: bool | None = None, **fields: Any
) -> list[asyncio.Task[tuple[list[str], LLMResponse | None]]]:
    """Tasks of equal calls; half of them streams if nothing is said of it."""
    return [
        asyncio.create_task(
            read(
                provider,
                sure(**fields),
                streaming=number % 2 == 0 if streaming is None else streaming,
            )
        )
        for number in range(count)
    ]


STREAMING = pytest.mark.parametrize("streaming", [False, True])


@pytest.mark.parametrize("streaming", [False, True, None])
@pytest.mark.parametrize("cache", [InMemoryCache, Forgetful])
async def test_equal_calls_at_once_are_one_call(
    streaming: bool | None, cache: type[InMemoryCache]
) -> None:
    inner = Gated()
    provider = CachingProvider(inner, cache())
    with nothing_left(provider):
        tasks = starting(provider, 10, streaming=streaming)
        await settle()
        inner.go_on()
        outcomes = await asyncio.gather(*tasks)
    assert inner.calls == 1
    responses = [response for _, response in outcomes if response is not None]
    assert [response.text for response in responses] == [TEXT] * 10
    assert [response.cached for response in responses] == [False] + [True] * 9
    assert [response.attempts for response in responses] == [1] + [0] * 9
    assert len({id(response) for response in responses}) == 10


@pytest.mark.parametrize("fields", [{"temperature": 0.7}, {"context": None}])
async def test_calls_that_are_not_to_be_kept_are_not_shared(fields: dict[str, Any]) -> None:
    inner = Gated()
    inner.go_on()
    provider = CachingProvider(inner, InMemoryCache())
    requests = [sure(max_tokens=n + 1) for n in range(3)]
    if "temperature" in fields:
        requests = [sure().replace(**fields)] * 3
    await asyncio.gather(*(provider.complete(request) for request in requests))
    assert inner.calls == 3


async def test_each_reader_gets_all_of_a_stream_from_its_beginning_as_it_comes() -> None:
    inner = Gated()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        first, second = provider.stream(sure()), provider.stream(sure())
        inner.go_on(2)
        assert [(await anext(first)).text for _ in range(2)] == PIECES[:2]
        waiting = asyncio.ensure_future(anext(first))
        await settle()
        assert not waiting.done()
        assert [(await anext(second)).text for _ in range(2)] == PIECES[:2], "what has come"
        inner.go_on(1)
        assert (await waiting).text == PIECES[2]
        third = provider.stream(sure())
        inner.go_on()
        rest = [[chunk.text async for chunk in stream] for stream in (third, first, second)]
        assert rest == [[*PIECES, ""], [*PIECES[3:], ""], [*PIECES[2:], ""]]
    assert inner.calls == 1


async def test_a_chunk_that_a_reader_changes_is_his_own() -> None:
    class Calling:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk(text="It is 42.")
            yield StreamChunk(tool_call=ToolCallDelta(0, "c1", "note", "{}"))
            yield final_chunk(an_answer("It is 42.", tool_calls=[ToolCall("c1", "note")]))

    provider = CachingProvider(Calling(), InMemoryCache())

    async def spoil() -> tuple[str, str]:
        text = name = ""
        async for chunk in provider.stream(sure()):
            text += chunk.text
            chunk.text = "no"
            if chunk.tool_call is not None:
                name += chunk.tool_call.name or ""
                chunk.tool_call.name = "no"
        return text, name

    spoilt = [*await asyncio.gather(*(spoil() for _ in range(3))), await spoil()]
    assert spoilt == [("It is 42.", "note")] * 4


# Who goes.


@STREAMING
@pytest.mark.parametrize("who", [0, 1, 2])
async def test_one_who_is_cancelled_stops_nobody_else(who: int, streaming: bool) -> None:
    inner = Gated()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        tasks = starting(provider, 3, streaming=streaming)
        await settle()
        inner.go_on(1)
        await settle()
        tasks[who].cancel()
        await settle()
        assert tasks[who].cancelled()
        assert inner.active == 1
        inner.go_on()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    others = [outcome for place, outcome in enumerate(outcomes) if place != who]
    assert [response.text for _, response in others] == [TEXT] * 2  # type: ignore[misc, union-attr]
    assert (inner.calls, inner.cancelled) == (1, 0)


@STREAMING
async def test_when_the_last_has_gone_the_call_is_cancelled_at_once(streaming: bool) -> None:
    inner = Gated()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        tasks = starting(provider, 3, streaming=streaming)
        await settle()
        inner.go_on(2)
        await settle()
        for task in tasks:
            assert inner.active == 1
            task.cancel()
            await asyncio.wait([task])
        assert (inner.active, inner.cancelled) == (0, 1)
    inner.go_on()
    assert not (await provider.complete(sure())).cached, "a part of an answer is not kept"
    assert inner.calls == 2


async def test_who_breaks_off_a_stream_ends_it_if_he_is_the_last() -> None:
    inner = Gated()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        leaving = asyncio.create_task(read(provider, sure(), streaming=True, most=1))
        staying = asyncio.create_task(read(provider, sure(), streaming=True))
        await settle()
        inner.go_on(1)
        assert (await leaving)[0] == PIECES[:1]
        assert inner.active == 1
        inner.go_on()
        texts, response = await staying
        assert texts == [*PIECES, ""]
        assert response is not None
        assert response.cached, "he did not begin it: it costs him nothing"
    assert inner.calls == 1

    other = Gated()
    provider = CachingProvider(other, InMemoryCache())
    with nothing_left(provider):
        other.go_on(1)
        await read(provider, sure(), streaming=True, most=1)
        assert (other.active, other.cancelled) == (0, 1)


async def test_who_comes_while_a_call_is_being_cancelled_makes_another() -> None:
    inner = Gated()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        (leaving,) = starting(provider, 1, streaming=False)
        await settle()
        leaving.cancel()
        (coming,) = starting(provider, 1, streaming=False)
        inner.go_on()
        _, response = await coming
        assert response is not None
        assert not response.cached
        await asyncio.wait([leaving])
    assert inner.cancelled == 1


async def test_who_is_cancelled_twice_still_waits_for_the_call_to_end() -> None:
    released = asyncio.Event()

    class Slow(Gated):
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            try:
                return await super().complete(request)
            finally:
                await released.wait()
                self.calls = 100

    inner = Slow()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        (task,) = starting(provider, 1, streaming=False)
        await settle()
        for _ in range(3):
            task.cancel()
            await settle()
        assert not task.done()
        released.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert inner.calls == 100


async def test_a_flight_whose_task_is_cancelled_from_outside_leaves_nobody_waiting() -> None:
    for turns in (0, 5):
        inner = Gated()
        provider = CachingProvider(inner, InMemoryCache())
        before = asyncio.all_tasks()
        tasks = starting(provider, 3, streaming=False)
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        (flight,) = asyncio.all_tasks() - before - set(tasks)
        flight.cancel()
        await settle()
        inner.go_on()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert [outcome[1].text for outcome in outcomes[1:]] == [TEXT] * 2  # type: ignore[index, union-attr]


# Whose time is up.


@STREAMING
async def test_a_deadline_is_its_callers_alone(streaming: bool) -> None:
    inner, clock = Gated(), Clock()
    provider = CachingProvider(inner, InMemoryCache(), clock=clock, timeout=clock.timeout)

    def within(seconds: float | None) -> Awaitable[Any]:
        deadline = None if seconds is None else clock.now + seconds
        return read(provider, sure(context=CallContext(deadline=deadline)), streaming=streaming)

    async def later() -> None:
        await clock.wait(2)
        inner.go_on(2)
        await clock.wait(6)
        inner.go_on()

    with nothing_left(provider):
        short, medium, none, _ = await clock.run(within(1), within(4), within(None), later())
    assert isinstance(short, DeadlineExceededError)
    assert short.partial is None
    assert isinstance(medium, DeadlineExceededError)
    assert (medium.partial is not None) == streaming
    if medium.partial is not None:
        assert medium.partial.text == "".join(PIECES[:2])
    assert none[1].text == TEXT
    assert [context.deadline for context in inner.contexts if context] == [None]
    assert (inner.calls, inner.cancelled) == (1, 0)


@STREAMING
async def test_a_deadline_of_the_last_cancels_the_call(streaming: bool) -> None:
    inner, clock = Gated(), Clock()
    provider = CachingProvider(
        CostTrackingProvider(inner), InMemoryCache(), clock=clock, timeout=clock.timeout
    )
    context = CallContext(deadline=clock.now + 1)
    with nothing_left(provider):
        (error,) = await clock.run(read(provider, sure(context=context), streaming=streaming))
    assert isinstance(error, DeadlineExceededError)
    assert error.attempts == len(context.entries) == 1
    assert (inner.active, inner.cancelled) == (0, 1)
    assert [entry.state for entry in context.entries] == ["unknown"]


async def test_a_deadline_that_has_come_asks_nobody() -> None:
    inner, clock = Gated(), Clock()
    provider = CachingProvider(inner, InMemoryCache(), clock=clock, timeout=clock.timeout)
    context = CallContext(deadline=clock.now - 1)
    with pytest.raises(DeadlineExceededError) as caught:
        await provider.complete(sure(context=context))
    assert caught.value.attempts == 0
    assert inner.active == 0


@STREAMING
async def test_an_answer_that_is_there_at_the_deadline_is_given_though_keeping_it_takes_longer(
    streaming: bool,
) -> None:
    inner, clock = Gated(), Clock()

    class Slow(InMemoryCache):
        async def put(self, key: str, value: str) -> None:
            await clock.wait(10)

    provider = CachingProvider(inner, Slow(), clock=clock, timeout=clock.timeout)
    inner.go_on()
    context = CallContext(deadline=clock.now + 1)
    with nothing_left(provider):
        (outcome,) = await clock.run(read(provider, sure(context=context), streaming=streaming))
    assert outcome[1].text == TEXT
    assert not outcome[1].cached
    assert clock.now < 1005


# What fails.

FOR_ALL = [
    ServerError("no", status=500, request_id="r1"),
    RateLimitError("no", retry_after=3.0),
    CircuitOpenError("open", retry_after=3.0),
    StreamInterruptedError("cut", partial=an_answer("It")),
]


@STREAMING
@pytest.mark.parametrize("error", FOR_ALL, ids=lambda error: type(error).__name__)
async def test_a_failure_is_everybodys_and_each_has_an_error_of_his_own(
    error: Exception, streaming: bool
) -> None:
    error.__cause__ = cause = ValueError("why")
    error.__notes__ = ["tried twice"]
    inner = Gated(failures={1: (0, error)})
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        tasks = starting(provider, 4, streaming=streaming)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert inner.calls == 1
    assert outcomes[0] is error
    assert len({id(outcome) for outcome in outcomes}) == 4
    for outcome in outcomes:
        assert type(outcome) is type(error)
        assert str(outcome) == str(error)
        assert vars(outcome).keys() == vars(error).keys()
        assert outcome.__cause__ is cause
        assert outcome.__notes__ == ["tried twice"]
    outcomes[1].add_note("mine")  # type: ignore[union-attr]
    assert error.__notes__ == ["tried twice"]


async def test_a_foreign_failure_is_everybodys_too() -> None:
    error = RuntimeError("boom")
    inner = Gated(failures={1: (0, error)})
    provider = CachingProvider(inner, InMemoryCache())
    outcomes = await asyncio.gather(*starting(provider, 3), return_exceptions=True)
    assert outcomes[0] is error
    assert [type(outcome) for outcome in outcomes[1:]] == [ProviderError] * 2
    assert all(outcome.__cause__ is error for outcome in outcomes[1:])  # type: ignore[union-attr]


OWN = [
    BudgetExceededError("no"),
    InputError("no"),
    ConfigurationError("no"),
    DeadlineExceededError("no"),
    asyncio.CancelledError(),
]


@STREAMING
@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
async def test_what_concerns_the_first_caller_is_his_and_the_others_share_another_call(
    error: BaseException, streaming: bool
) -> None:
    inner = Gated(failures={1: (0, error)})
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        tasks = starting(provider, 4, streaming=streaming)
        await settle()
        inner.go_on()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(outcomes[0]) is type(error)
    assert [outcome[1].text for outcome in outcomes[1:]] == [TEXT] * 3  # type: ignore[index, union-attr]
    assert sum(not outcome[1].cached for outcome in outcomes[1:]) == 1  # type: ignore[index, union-attr]
    assert inner.calls == 2


@pytest.mark.parametrize("error", [BudgetExceededError("no"), asyncio.CancelledError()])
async def test_a_stream_is_not_begun_anew_when_its_reader_has_seen_a_part(
    error: BaseException,
) -> None:
    inner = Gated(failures={1: (2, error)})
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        tasks = starting(provider, 2, streaming=True)
        await settle()
        inner.go_on()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    expected = BudgetExceededError if isinstance(error, Exception) else StreamInterruptedError
    assert isinstance(outcomes[1], expected)
    assert inner.calls == 1


async def test_an_error_class_that_cannot_be_copied_is_raised_as_it_is() -> None:
    class TheirError(ProviderError):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    error = TheirError(code=7)
    provider = CachingProvider(Gated(failures={1: (0, error)}), InMemoryCache())
    outcomes = await asyncio.gather(*starting(provider, 2), return_exceptions=True)
    assert outcomes == [error, error]


async def test_an_error_holds_nothing_of_the_flight() -> None:
    class Large:
        pass

    large = Large()
    reference = weakref.ref(large)

    class Failing:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            held = large_of[0]
            await asyncio.sleep(0)
            raise ServerError(f"no {type(held).__name__}")

    large_of = [large]
    del large
    provider = CachingProvider(Failing(), InMemoryCache())
    with nothing_left(provider):
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(provider.complete(sure()) for _ in range(3)), return_exceptions=True
            )
            assert all(isinstance(outcome, ServerError) for outcome in outcomes)
            del outcomes
        large_of.clear()
        await settle()  # the loop holds the tasks that have just ended
        assert reference() is None


@pytest.mark.parametrize(
    "end", [[], [StreamChunk(text="It is 42.", finish_reason="stop")]], ids=["cut", "no response"]
)
async def test_who_wants_a_response_asks_himself_where_a_stream_brings_none(
    end: list[StreamChunk],
) -> None:
    class Chunky(Gated):
        async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
            self.calls += 1
            await asyncio.sleep(0)
            for chunk in end:
                yield chunk

    inner = Chunky()
    inner.go_on()
    provider = CachingProvider(inner, InMemoryCache())
    with nothing_left(provider):
        streams = starting(provider, 2, streaming=True)
        (asking,) = starting(provider, 1, streaming=False)
        _, response = await asking
        got = [await stream for stream in streams]
    assert response is not None
    assert (response.text, response.cached, inner.calls) == (TEXT, False, 2)
    assert got[0] == got[1] == ([*(chunk.text for chunk in end), *[""] * len(end)], None)


# Whose it is.


async def test_the_entries_are_those_of_who_began_it() -> None:
    inner = Gated()
    tracking = CostTrackingProvider(inner)
    provider = CachingProvider(tracking, InMemoryCache())
    contexts = [CallContext(), CallContext(), CallContext()]
    tasks = [asyncio.create_task(provider.complete(sure(context=each))) for each in contexts]
    await settle()
    inner.go_on()
    responses = await asyncio.gather(*tasks)
    assert [len(context.entries) for context in contexts] == [1, 0, 0]
    assert [response.usage.requests for response in responses] == [1, 0, 0]
    assert tracking.usage.total_requests == 1
    assert inner.contexts[0] is not contexts[0]
    assert inner.contexts[0] is not None
    assert inner.contexts[0].run_id == contexts[0].run_id


async def test_a_call_is_paid_once_also_if_who_began_it_has_gone() -> None:
    inner = Gated()
    tracking = CostTrackingProvider(inner)
    provider = CachingProvider(tracking, InMemoryCache())
    tasks = starting(provider, 2, streaming=True)
    await settle()
    tasks[0].cancel()
    await settle()
    inner.go_on()
    _, response = await tasks[1]
    assert response is not None
    assert response.usage.requests == 0
    assert tracking.usage.total_requests == 1
    assert [entry.state for entry in tracking.usage.ledger] == ["exact"]


def test_loops_make_calls_of_their_own_and_share_the_cache() -> None:
    class Answering:
        def __init__(self) -> None:
            self.calls = 0

        async def complete(self, request: LLMRequest) -> LLMResponse:
            self.calls += 1
            meeting.wait(10)
            return an_answer()

    meeting = threading.Barrier(2)
    inner = Answering()
    provider = CachingProvider(inner, InMemoryCache())
    answers: list[LLMResponse] = []

    def run() -> None:
        answers.append(asyncio.run(provider.complete(sure())))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert inner.calls == 2
    assert [answer.cached for answer in answers] == [False, False]
    assert asyncio.run(provider.complete(sure())).cached
    assert len(provider._flights) == 0


def test_a_loop_that_ends_in_the_middle_leaves_nothing() -> None:
    inner: list[Gated] = []

    async def begin(provider_of: list[CachingProvider]) -> None:
        inner.append(Gated())
        provider_of.append(CachingProvider(inner[0], InMemoryCache()))
        tasks = starting(provider_of[0], 4)
        await settle()
        assert inner[0].active == 1
        del tasks

    providers: list[CachingProvider] = []
    asyncio.run(begin(providers))
    assert inner[0].active == 0
    assert len(providers[0]._flights) == 0


async def test_a_long_stream_is_shared_at_each_ones_pace() -> None:
    """The slowest reader holds up nobody, and gets all of it."""

    class Long:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
            for number in range(5_000):
                yield StreamChunk(text=f"{number} ")
            yield final_chunk(an_answer("".join(f"{number} " for number in range(5_000))))

    provider = CachingProvider(Long(), InMemoryCache())
    slow = provider.stream(sure())
    first = await anext(slow)
    quick = [chunk.text async for chunk in provider.stream(sure())]
    rest = [chunk.text async for chunk in slow]
    assert [first.text, *rest] == quick
    assert quick[-2] == "4999 "


# Any order of all of this.

PLANS: dict[str, type[Exception]] = {"fails": ServerError, "refused": BudgetExceededError}
actions = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.booleans(), st.sampled_from([None, None, 1, 2])),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.none()),
        st.tuples(st.just("piece"), st.integers(1, 3), st.none()),
        st.tuples(st.just("turn"), st.integers(1, 6), st.none()),
    ),
    max_size=25,
)
plans = st.dictionaries(
    st.integers(1, 4), st.tuples(st.integers(0, 3), st.sampled_from(sorted(PLANS))), max_size=2
)


@settings(max_examples=300, deadline=None)
@given(actions=actions, plans=plans, keeping=st.booleans())
def test_in_any_order_each_gets_the_whole_or_an_error_and_nothing_is_left(
    actions: list[tuple[str, Any, Any]], plans: dict[int, tuple[int, str]], *, keeping: bool
) -> None:
    asyncio.run(_play(actions, plans, keeping=keeping))


async def _play(
    actions: list[tuple[str, Any, Any]], plans: dict[int, tuple[int, str]], *, keeping: bool
) -> None:
    failures = {
        number: (0 if kind == "refused" else place, PLANS[kind]("no"))
        for number, (place, kind) in plans.items()
    }
    inner = Gated(failures=failures)
    provider = CachingProvider(inner, InMemoryCache() if keeping else Forgetful())
    tasks: list[asyncio.Task[tuple[list[str], LLMResponse | None]]] = []
    leaving: dict[int, int | None] = {}
    with nothing_left(provider):
        for what, one, other in actions:
            cancelled = inner.cancelled
            alone = sum(not task.done() for task in tasks)
            if what == "call":
                most = other if one else None
                leaving[len(tasks)] = most
                tasks.append(asyncio.create_task(read(provider, sure(), streaming=one, most=most)))
            elif what == "cancel" and tasks:
                tasks[one % len(tasks)].cancel()
                await settle()
            elif what == "piece":
                inner.go_on(one)
            else:
                for _ in range(one):
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert inner.active <= 1 or inner.cancelled, "equal calls are one call"
            if what in ("piece", "turn") and alone and not any(leaving.values()):
                assert inner.cancelled == cancelled, "somebody still waits for it"
        inner.go_on(1_000)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert inner.active == 0
    refused = 0
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, BaseException):
            refused += isinstance(outcome, BudgetExceededError)
            known = BudgetExceededError | ServerError | asyncio.CancelledError
            assert isinstance(outcome, known), repr(outcome)
            continue
        texts, response = outcome
        if leaving[place] is not None and response is None:
            assert texts in (PIECES[: leaving[place]], [TEXT])
        else:
            assert response is not None
            assert response.text == TEXT
            assert texts in ([], [*PIECES, ""], [TEXT, ""])
    assert refused <= sum(kind == "refused" for _, kind in plans.values())
