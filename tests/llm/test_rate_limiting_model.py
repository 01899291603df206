"""The limiter against a simple model, on virtual time: any calls, any cancellations, any clock."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aether.errors import RateLimitError
from aether.extensions.llm._rate import Need, Rate
from aether.extensions.llm._rate_headers import Told
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.llm.contracts import LLMRequest, LLMResponse
from aether.llm.policies import RateLimit
from tests.llm.scripted import MODEL, Clock, a_request, an_answer

INPUT = 4
REQUESTS = st.one_of(st.none(), st.sampled_from([6.0, 20.0, 60.0, 150.0, 600.0]))
TOKENS = st.one_of(st.none(), st.sampled_from([100.0, 600.0, 7777.0, 60_000.0]))
SLACK = 1e-6


@dataclass(frozen=True)
class Planned:
    """One call: when it comes, what it needs and uses, and when it is cancelled."""

    gap: float
    output: int
    used: int
    patience: float
    takes: float


CALLS = st.lists(
    st.builds(
        Planned,
        gap=st.sampled_from([0.0, 0.0, 0.0, 0.31, 2.17, 40.03]),
        output=st.sampled_from([1, 6, 56, 996]),
        used=st.sampled_from([1, 6, 56, 996]),
        patience=st.sampled_from([math.inf, math.inf, 0.113, 3.457, 30.791]),
        takes=st.sampled_from([0.0, 0.7, 13.0]),
    ),
    min_size=1,
    max_size=12,
)


class Server:
    """Notes when calls start; uses what they plan."""

    def __init__(self, clock: Clock, plan: list[Planned], *, slow: bool) -> None:
        self.clock = clock
        self.plan = plan
        self.slow = slow
        self.starts: dict[int, float] = {}

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        number = int(request.messages[0].text[1:])
        self.starts[number] = self.clock.now
        planned = self.plan[number]
        if self.slow:
            await self.clock.wait(planned.takes)
            return an_answer(input_tokens=INPUT, output_tokens=planned.output)
        return an_answer(input_tokens=INPUT, output_tokens=planned.used)


async def play(
    plan: list[Planned], limit: RateLimit, *, slow: bool
) -> tuple[dict[int, float], list[Any], int]:
    """When each call started, and how it ended."""
    clock = Clock(0.0)
    server = Server(clock, plan, slow=slow)
    provider = RateLimitingProvider(server, limit, clock=clock, timeout=clock.timeout)

    async def call(number: int, planned: Planned, at: float) -> Any:
        await clock.wait(at)
        task = asyncio.ensure_future(
            provider.complete(a_request(f"n{number:015}", max_tokens=planned.output))
        )
        if planned.patience < math.inf:
            cancel = asyncio.ensure_future(clock.wait(planned.patience))
            cancel.add_done_callback(lambda _: number in server.starts or task.cancel())
            await asyncio.wait([task])
            cancel.cancel()
        return await task

    times = itertools.accumulate(planned.gap for planned in plan)
    calls = [call(n, planned, at) for n, (planned, at) in enumerate(zip(plan, times, strict=True))]
    results = await clock.run(*calls)
    return server.starts, results, provider.waiting(MODEL)


def expected_starts(plan: list[Planned], limit: RateLimit) -> dict[int, float]:
    """One call after another: each starts when all buckets have what it needs."""
    rates = [
        figure and figure / 60 for figure in (limit.requests_per_minute, limit.tokens_per_minute)
    ]
    levels = [rate and max(1.0, rate) for rate in rates]
    now = arrival = 0.0
    starts: dict[int, float] = {}
    for number, planned in enumerate(plan):
        arrival += planned.gap
        start = max(now, arrival)
        needs = (1.0, planned.output + INPUT)
        uses = (1.0, planned.used + INPUT)

        def at(time: float, which: int, since: float) -> float:
            rate, level = rates[which], levels[which]
            assert rate is not None
            assert level is not None
            return min(max(1.0, rate), level + rate * (time - since))

        ready = start
        for which, (rate, need) in enumerate(zip(rates, needs, strict=True)):
            if rate is not None:
                short = min(need, max(1.0, rate)) - at(start, which, now)
                ready = max(ready, start + max(0.0, short) / rate)
        leaves = arrival + planned.patience
        at_once = ready <= arrival + SLACK
        assume(at_once or abs(ready - leaves) > SLACK)  # its turn comes as it leaves: either may be
        gone = ready > leaves - SLACK and not (ready <= arrival + SLACK)
        moment = max(now, min(ready, leaves)) if gone else ready
        for which, (rate, use) in enumerate(zip(rates, uses, strict=True)):
            if rate is not None:
                levels[which] = at(moment, which, now) - (0.0 if gone else use)
        now = moment
        if not gone:
            starts[number] = ready
    return starts


def near(one: dict[int, float], other: dict[int, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], rel_tol=1e-6, abs_tol=0.01) for key in one
    )


@settings(max_examples=100, deadline=None)
@given(CALLS, REQUESTS, TOKENS)
def test_each_call_starts_when_the_model_says(
    plan: list[Planned], requests: float | None, tokens: float | None
) -> None:
    limit = RateLimit(requests, tokens)
    starts, _, waiting = asyncio.run(play(plan, limit, slow=False))
    assert waiting == 0
    expected = expected_starts(plan, limit)
    assert near(starts, expected), f"{starts} instead of {expected}"


@settings(max_examples=100, deadline=None)
@given(CALLS, REQUESTS, TOKENS, st.sampled_from([0, 1, 3, 1000]))
def test_no_time_sees_more_than_it_may(
    plan: list[Planned], requests: float | None, tokens: float | None, max_waiting: int
) -> None:
    """However the calls overlap: the rate is kept in each window, the order too, and none is lost:
    each is served, refused because too many wait, or cancelled."""
    limit = RateLimit(requests, tokens, max_waiting=max_waiting)
    starts, results, waiting = asyncio.run(play(plan, limit, slow=True))
    assert waiting == 0
    assert list(starts) == sorted(starts)
    for number, result in enumerate(results):
        if number in starts:
            assert isinstance(result, LLMResponse)
        else:
            full = isinstance(result, RateLimitError) and max_waiting < len(plan)
            assert full or isinstance(result, asyncio.CancelledError)
    needs = {n: (1.0, plan[n].output + INPUT) for n in starts}
    for which, figure in enumerate((requests, tokens)):
        if figure is None:
            continue
        rate, burst = figure / 60, max(1.0, figure / 60)
        for first, last in itertools.combinations(starts, 2):
            taken = sum(needs[n][which] for n in starts if first <= n < last)
            passed = starts[last] - starts[first]
            least = min(needs[last][which], burst)
            assert taken <= rate * passed + burst - least + SLACK * (1 + taken)


MOMENTS = st.one_of(
    st.floats(-1e9, 1e9), st.sampled_from([0.0, 1.0, 60.0, 61.0, 1e300, -1e300, 5e-324])
)
HAPPENINGS = st.lists(
    st.tuples(
        MOMENTS,
        st.sampled_from(["take", "refused", "succeeded", "learn", "correct", "seen"]),
        st.sampled_from([0.0, 1.0, 7.0, 1e4, 1e18]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(REQUESTS, TOKENS, HAPPENINGS)
def test_no_clock_and_no_report_can_corrupt_it(
    requests: float | None, tokens: float | None, happenings: list[tuple[float, str, float]]
) -> None:
    """Whatever has happened, at whatever times: a call may start soon after."""
    rate = Rate(requests, tokens, 0.0)
    now = 0.0
    taken = 0
    for at, what, amount in happenings:
        now = at
        need = Need(1, INPUT, amount)
        if what == "take":
            rate.take(need, now)
            taken += 1
        elif what == "refused":
            rate.refused(rate.round, amount, now)
        elif what == "succeeded":
            rate.succeeded(rate.round, now)
        elif what == "learn":
            rate.learn({"requests": Told(amount + 1, amount), "tokens": Told(60, amount)}, now)
        elif what == "correct":
            rate.correct(need, amount, now)
        else:
            rate.seen(need)
    seconds = rate.wait(Need(1, INPUT, 1), Need(), now)
    assert 0.0 <= seconds <= 60.0 + 600.0 * (len(happenings) + 1)
    for _ in range(3):  # what is lost by rounding is waited for again
        left = rate.wait(Need(1, INPUT, 1), Need(), now)
        now = math.nextafter(now + left, math.inf)
    if abs(now) < 1e9:
        assert rate.wait(Need(1, INPUT, 1), Need(), now) < 1.0


async def test_a_clock_that_goes_back_makes_nobody_wait_for_long() -> None:
    for step in (-1e6, -1.0, 1e6):
        clock = Clock()
        offset = 0.0
        starts: list[float] = []

        class Noting:
            async def complete(self, _: LLMRequest, /) -> LLMResponse:
                starts.append(clock.now)  # noqa: B023 - it is called in this turn
                return an_answer()

        provider = RateLimitingProvider(
            Noting(),
            RateLimit(10),
            clock=lambda: clock.now + offset,  # noqa: B023 - it is called in this turn
            timeout=clock.timeout,
        )

        async def jump() -> None:
            nonlocal offset
            await clock.wait(3.0)  # noqa: B023 - it is awaited in this turn
            offset = step  # noqa: B023

        await clock.run(*(provider.complete(a_request()) for _ in range(4)), jump())
        gaps = [b - a for a, b in itertools.pairwise(starts)]
        assert all(gap <= 12.01 for gap in gaps)
        assert gaps[1:] == [6.0, 6.0]
