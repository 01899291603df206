"""Any two providers, any way to read and to leave: what comes out is one of their whole answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ServerError, StreamInterruptedError
from aether.extensions.llm._lateness import SAVED_CALLS, Latencies, Share
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.hedging import HedgingProvider
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import Hedge
from aether.llm.streaming import final_chunk
from tests.llm.scripted import Clock, a_request, an_answer


@dataclass(frozen=True)
class Act:
    """What a provider does with one call."""

    delay: int
    """Until the first content, in seconds."""
    empty: int
    """Chunks without content before it."""
    pauses: tuple[int, ...]
    """Before each further chunk."""
    fails: int | None
    """Before the content (0), or before a later chunk."""
    cut: bool
    """It ends without a final chunk instead."""


ACTS = st.builds(
    Act,
    delay=st.integers(0, 8),
    empty=st.integers(0, 2),
    pauses=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    fails=st.one_of(st.none(), st.integers(0, 3)),
    cut=st.booleans(),
)


class Acting:
    def __init__(self, clock: Clock, name: str, acts: list[Act]) -> None:
        self._clock = clock
        self.default_model = name
        self._acts = deque(acts)
        self.calls = 0
        self.open = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        act = self._begin()
        try:
            await self._clock.wait(act.delay)
            for pause in act.pauses:
                await self._clock.wait(pause)
            if act.fails is not None:
                raise ServerError("no")
            return an_answer(self._text(act), model=self.default_model)
        finally:
            self.open -= 1

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        act = self._begin()
        try:
            for _ in range(act.empty):
                yield StreamChunk()
            await self._clock.wait(act.delay)
            for place, pause in enumerate((0, *act.pauses)):
                await self._clock.wait(pause)
                if act.fails == place:
                    raise ServerError("no")
                yield StreamChunk(text=self._piece(place))
            if not act.cut:
                yield final_chunk(an_answer(self._text(act), model=self.default_model))
        finally:
            self.open -= 1

    def _begin(self) -> Act:
        self.calls += 1
        self.open += 1
        self._acts.rotate(-1)
        return self._acts[-1]

    def _piece(self, place: int) -> str:
        return f"{self.default_model}{place} "

    def _text(self, act: Act) -> str:
        return "".join(map(self._piece, range(len(act.pauses) + 1)))


@dataclass(frozen=True)
class Ask:
    at: int
    streamed: bool
    leaves_after: int | None
    """So many chunks of a stream are read."""
    cancelled_after: float | None
    """Seconds."""


ASKS = st.builds(
    Ask,
    at=st.integers(0, 20),
    streamed=st.booleans(),
    leaves_after=st.one_of(st.none(), st.integers(0, 4)),
    cancelled_after=st.one_of(st.none(), st.integers(0, 12).map(lambda n: n + 0.5), st.just(2.0)),
)


@given(
    st.lists(ACTS, min_size=1, max_size=4),
    st.lists(ACTS, min_size=1, max_size=4),
    st.lists(ASKS, min_size=1, max_size=8),
    st.sampled_from([0.0, 1.0, 2.0, 3.0]),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_it_is_one_whole_answer_and_nothing_is_left(
    first: list[Act], second: list[Act], asks: list[Ask], after: float, share: float
) -> None:
    asyncio.run(_play(first, second, asks, Hedge(after=after, max_share=share)))


async def _play(first: list[Act], second: list[Act], asks: list[Ask], hedge: Hedge) -> None:
    clock = Clock()
    a, b = Acting(clock, "a", first), Acting(clock, "b", second)
    begun = 0

    class Watched(HedgingProvider):
        def _begin(self, request: LLMRequest, *, streamed: bool) -> Any:
            nonlocal begun
            begun += 1
            return super()._begin(request, streamed=streamed)

    stack = CostTrackingProvider(
        Watched(a, hedge, other=b, clock=clock, call_later=clock.call_later), clock=clock
    )
    before = asyncio.all_tasks()
    most = Fraction(hedge.max_share)

    async def one(ask: Ask) -> None:
        await clock.wait(ask.at)
        task = asyncio.ensure_future(_read(stack, ask))
        if ask.cancelled_after is not None:
            await clock.wait(ask.cancelled_after)
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        assert b.calls <= most * begun

    results = await clock.run(*map(one, asks))
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert asyncio.all_tasks() == before
    assert a.open == b.open == 0
    entries = stack.usage.ledger
    assert len(entries) == a.calls + b.calls
    assert all(each.state != "pending" for each in entries)


async def _read(stack: Any, ask: Ask) -> None:
    try:
        if not ask.streamed:
            response = await stack.complete(a_request())
            _judge(response.text, response, whole=True)
            return
        text, final = "", None
        chunks = stack.stream(a_request())
        try:
            count = 0
            while count != ask.leaves_after:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                count += 1
                assert final is None, "nothing may follow the final chunk"
                text += chunk.text
                final = chunk.response
                _judge(text, final, whole=final is not None)
        finally:
            await chunks.aclose()
    except (ServerError, StreamInterruptedError):
        pass  # that of the first, or of one that broke after its content


def _judge(text: str, response: LLMResponse | None, *, whole: bool) -> None:
    """The text is the beginning of one provider's answer, in order, or all of it."""
    pieces = text.split()
    names = {piece[0] for piece in pieces}
    assert len(names) <= 1, f"two answers are mixed: {text}"
    assert [piece[1:] for piece in pieces] == [str(place) for place in range(len(pieces))]
    if whole:
        assert response is not None
        assert response.text == text
        assert {response.model} == names


# --- the figures --------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), max_size=250))
def test_late_is_the_95th_percentile_of_the_latest_hundred(seconds: list[float]) -> None:
    latencies = Latencies()
    for number, each in enumerate(seconds, 1):
        latencies.add(each)
        window = sorted(seconds[max(0, number - 100) : number])
        expected = None if number < 20 else window[ceil(Fraction(95, 100) * len(window)) - 1]
        assert latencies.late() == expected
        assert latencies.least() == window[0]


@given(
    st.floats(0.001, 1.0),
    st.lists(st.sampled_from(["call", "take", "give back"]), max_size=400),
)
def test_never_more_are_taken_than_the_share_of_the_calls(share: float, steps: list[str]) -> None:
    leave = Share(share)
    calls = taken = 0
    for step in steps:
        if step == "call":
            calls += 1
            if leave.count_call():
                assert taken + 1 <= Fraction(share) * calls + Fraction(calls, 10**9)
        elif step == "take":
            taken += leave.take()
        elif taken:
            leave.give_back()
            taken -= 1
        assert taken <= Fraction(share) * calls + Fraction(calls, 10**9)


def test_a_quiet_time_saves_up_no_more_than_the_share_of_200_calls() -> None:
    leave = Share(0.05)
    for _ in range(10_000):
        leave.count_call()
    assert sum(leave.take() for _ in range(100)) == SAVED_CALLS * 0.05 == 10


def test_the_smallest_share_comes_at_last() -> None:
    leave = Share(0.0001)
    assert not any(leave.count_call() for _ in range(9_999))
    assert leave.count_call()
