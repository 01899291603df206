"""What providers say of their limits is kept to, where it is sure what they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether import Aether
from aether.errors import RateLimitError
from aether.extensions.llm._rate_headers import Told, limits_told
from aether.extensions.llm.rate_limiting import RateLimitingProvider
from aether.llm.contracts import CallContext
from aether.llm.policies import RateLimit
from aether.testing import FaultServer, faults
from tests.faults.virtual import WIRES, Act, VirtualServer, adapter
from tests.llm.scripted import Clock, Scripted, a_request, an_answer, collect

ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2026-01-20T21:37:08Z",
    "anthropic-ratelimit-tokens-limit": "2400000",
    "anthropic-ratelimit-tokens-remaining": "2399000",
    "anthropic-ratelimit-tokens-reset": "2026-01-20T21:37:08Z",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1999000",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-20T21:37:08Z",
    "anthropic-ratelimit-output-tokens-limit": "400000",
    "anthropic-ratelimit-output-tokens-remaining": "400000",
    "anthropic-ratelimit-output-tokens-reset": "2026-01-20T21:37:08Z",
}


def plain(kind: str, limit: str, remaining: str | None, reset: str | None) -> dict[str, str]:
    """Those of OpenAI, and of who imitates it."""
    named = (("limit", limit), ("remaining", remaining), ("reset", reset))
    return {f"x-ratelimit-{name}-{kind}": value for name, value in named if value is not None}


def requests_told(limit: int, remaining: int) -> dict[str, str]:
    return {
        "anthropic-ratelimit-requests-limit": str(limit),
        "anthropic-ratelimit-requests-remaining": str(remaining),
    }


HOSTS: dict[str, tuple[Mapping[str, str], Mapping[str, Told]]] = {
    "anthropic": (
        ANTHROPIC,
        {
            "requests": Told(4000, 3999),
            "tokens": Told(2_400_000, 2_399_000),
            "input_tokens": Told(2_000_000, 1_999_000),
            "output_tokens": Told(400_000, 400_000),
        },
    ),
    "openai": (
        plain("requests", "5000", "4999", "12ms") | plain("tokens", "800000", "799900", "7ms"),
        {"requests": Told(5000, 4999), "tokens": Told(800_000, 799_900)},
    ),
    "openai, of which nothing can be told yet": (
        plain("tokens", "2000000", "2000000", "0s"),
        {"tokens": Told(2_000_000, 2_000_000, None)},
    ),
    "openai, of which too little was used": (
        plain("requests", "100000", "99999", "1ms"),
        {"requests": Told(100_000, 99_999, None)},
    ),
    "openai, in seconds": (plain("requests", "60", "59", "1s"), {"requests": Told(60, 59)}),
    "groq, whose requests are a day's": (
        plain("requests", "14400", "14398", "11.486s") | plain("tokens", "30000", "29987", "26ms"),
        {"requests": Told(14_400, 14_398, False), "tokens": Told(30_000, 29_987)},
    ),
    "mistral": (
        {
            "x-ratelimit-limit-tokens-minute": "100000",
            "x-ratelimit-remaining-tokens-minute": "97292",
            "x-ratelimit-tokens-query-cost": "128",
            "x-ratelimit-limit-req-minute": "100",
            "x-ratelimit-remaining-req-minute": "87",
        },
        {"requests": Told(100, 87), "tokens": Told(100_000, 97_292)},
    ),
    "xai, which does not say of what time": (
        plain("requests", "1800", "1799", None),
        {"requests": Told(1800, 1799, None)},
    ),
    "together, whose are a second's": (
        {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "2"},
        {},
    ),
    "a second's, by the plain names": (
        plain("requests", "2", "1", "500ms"),
        {"requests": Told(2, 1, False)},
    ),
    "a window that ends in some seconds": (
        plain("requests", "600", "500", "3"),
        {"requests": Told(600, 500, False)},
    ),
    "plain seconds": (plain("requests", "60", "40", "20"), {"requests": Told(60, 40)}),
    "six minutes for little": (
        plain("tokens", "150000", "149984", "6m0s"),
        {"tokens": Told(150_000, 149_984, False)},
    ),
    "half a minute for half of it": (
        plain("requests", "10", "5", "0m30.5s"),
        {"requests": Told(10, 5)},
    ),
    "no limit": ({"anthropic-ratelimit-requests-limit": "0"}, {}),
    "two that do not agree": (
        requests_told(60, 50) | plain("requests", "2", "1", "500ms"),
        {"requests": Told(60, 50)},
    ),
    "a limit alone": ({"anthropic-ratelimit-requests-limit": "50"}, {"requests": Told(50)}),
}


@pytest.mark.parametrize("host", HOSTS)
def test_of_each_host_only_what_is_a_minutes_is_learnt(host: str) -> None:
    headers, expected = HOSTS[host]
    assert limits_told(headers) == expected


JUNK = st.one_of(
    st.sampled_from(["", "-1", "nan", "inf", "1e9", "1_0", "60, 60", " 60", "٣", "1h1h", "ms"]),
    st.text(max_size=50),
    st.text("0123456789.hmsuµn", max_size=50),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*ANTHROPIC, *HOSTS["openai"][0]})), JUNK))
def test_whatever_a_server_sends_is_read_without_harm(headers: dict[str, str]) -> None:
    for told in limits_told(headers).values():
        assert 0 < told.limit < 1e15
        assert told.remaining is None or 0 <= told.remaining < 1e15


def told_nothing_is_left(wire: str) -> dict[str, str]:
    if wire == "anthropic":
        return {
            "anthropic-ratelimit-requests-limit": "20",
            "anthropic-ratelimit-requests-remaining": "0",
        }
    return plain("requests", "20", "0", "60s")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
class TestThroughTheAdapters:
    async def test_what_is_told_with_an_answer_is_kept_to(self, wire: str, streamed: bool) -> None:
        clock = Clock()
        headers = told_nothing_is_left(wire)
        server = VirtualServer(WIRES[wire](), clock, Act(headers=headers))
        limited = RateLimitingProvider(
            adapter(wire, server), RateLimit(), clock=clock, timeout=clock.timeout
        )

        def call() -> Any:
            request = a_request()
            return collect(limited.stream(request)) if streamed else limited.complete(request)

        await clock.run(call())
        await clock.run(call(), call())
        assert server.starts == pytest.approx([1000.0, 1003.0, 1006.0])

    async def test_what_is_told_with_a_refusal_is_too(self, wire: str, streamed: bool) -> None:
        clock = Clock()
        refused = Act(429, {**told_nothing_is_left(wire), "retry-after": "1"}, b"{}")
        server = VirtualServer(WIRES[wire](), clock, refused)
        limited = RateLimitingProvider(
            adapter(wire, server), RateLimit(), clock=clock, timeout=clock.timeout
        )

        def call() -> Any:
            request = a_request()
            return collect(limited.stream(request)) if streamed else limited.complete(request)

        [error] = await clock.run(call())
        assert isinstance(error, RateLimitError)
        await clock.run(call(), call())
        # Half of the 20 a minute that it allows: one in 6 s.
        assert server.starts == pytest.approx([1000.0, 1006.0, 1012.0], abs=0.2)

    async def test_who_listened_before_hears_it_too(self, wire: str, streamed: bool) -> None:
        clock = Clock()
        heard: list[Mapping[str, str]] = []
        server = VirtualServer(WIRES[wire](), clock, Act(headers={"x-a": "1"}))
        limited = RateLimitingProvider(adapter(wire, server), RateLimit())
        context = CallContext()
        context.on_headers = heard.append
        request = a_request(context=context)
        await (collect(limited.stream(request)) if streamed else limited.complete(request))
        assert heard == [{"x-a": "1"}]
        assert context.on_headers == heard.append


class Telling(Scripted):
    """Tells these headers with its answers."""

    def __init__(self, clock: Clock, *headers: Mapping[str, str], takes: float = 0.0) -> None:
        super().__init__(an_answer())
        self.clock = clock
        self.headers = headers
        self.takes = takes
        self.starts: list[float] = []

    async def complete(self, request: Any, /) -> Any:
        self.starts.append(self.clock.now - 1000.0)
        headers = self.headers[min(self.calls, len(self.headers) - 1)]
        self.requests.append(request)
        if self.takes:
            await self.clock.wait(self.takes)
        request.context.on_headers(headers)
        return an_answer(input_tokens=4, output_tokens=6)


def limited(inner: Any, clock: Clock, *figures: float | None) -> RateLimitingProvider:
    return RateLimitingProvider(inner, RateLimit(*figures), clock=clock, timeout=clock.timeout)


class TestLearning:
    async def test_what_is_left_may_be_used_at_once(self) -> None:
        clock = Clock()
        inner = Telling(clock, requests_told(60, 3), requests_told(60, 3))
        inner.headers = (requests_told(60, 3), *({} for _ in range(5)))
        provider = limited(inner, clock)
        await provider.complete(a_request())
        await clock.run(*(provider.complete(a_request()) for _ in range(5)))
        assert inner.starts == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, 2.0])

    async def test_it_never_makes_calls_faster_than_was_asked(self) -> None:
        clock = Clock()
        inner = Telling(clock, requests_told(100_000, 99_999))
        provider = limited(inner, clock, 10)
        await clock.run(*(provider.complete(a_request()) for _ in range(3)))
        assert inner.starts == pytest.approx([0.0, 6.0, 12.0])

    async def test_others_who_use_it_up_are_noticed(self) -> None:
        clock = Clock()
        inner = Telling(clock, requests_told(60, 59), requests_told(60, 0), {})
        provider = limited(inner, clock)
        for _ in range(3):
            await clock.run(provider.complete(a_request()))
        assert inner.starts == pytest.approx([0.0, 0.0, 1.0])

    async def test_calls_that_it_may_not_have_counted_yet_are_taken_off(self) -> None:
        clock = Clock()
        inner = Telling(clock, requests_told(60, 3), takes=10.0)
        provider = limited(inner, clock)
        first = [asyncio.ensure_future(provider.complete(a_request())) for _ in range(3)]

        async def later() -> None:
            await clock.wait(9.0)
            await asyncio.gather(*(provider.complete(a_request()) for _ in range(2)))

        async def at_ten() -> None:
            await clock.wait(10.5)
            inner.headers = ({},)
            await asyncio.gather(*(provider.complete(a_request()) for _ in range(2)))

        await clock.run(*first, later(), at_ten())
        # Of the 3 that were left at 10 s, 2 were under way since 9 s.
        assert inner.starts == pytest.approx([0, 0, 0, 9, 9, 10.5, 11.0], abs=0.51)
        assert inner.starts[-1] > 10.5

    async def test_each_kind_of_token_has_its_own_limit(self) -> None:
        clock = Clock()
        kinds = ("tokens", "input-tokens", "output-tokens")
        for kind, wait in zip(kinds, (10.0, 4.0, 6.0), strict=True):
            told = {
                f"anthropic-ratelimit-{kind}-limit": "60",
                f"anthropic-ratelimit-{kind}-remaining": "0",
            }
            inner = Telling(clock, told)
            provider = limited(inner, clock)
            started = clock.now - 1000.0
            for _ in range(2):
                await clock.run(provider.complete(a_request(max_tokens=6)))
            assert [at - started for at in inner.starts] == pytest.approx([0.0, wait])

    async def test_a_limit_that_is_told_anew_takes_the_place_of_the_one_before(self) -> None:
        clock = Clock()
        inner = Telling(clock, requests_told(60, 0), requests_told(600, 0), {})
        provider = limited(inner, clock)
        for _ in range(3):
            await clock.run(provider.complete(a_request()))
        assert inner.starts == pytest.approx([0.0, 1.0, 1.1])

    @pytest.mark.parametrize(
        "later",
        [plain("tokens", "6000", "5999", "1ms"), plain("tokens", "6000", "6000", "0s")],
        ids=["too little", "nothing"],
    )
    async def test_what_is_left_counts_too_where_so_little_was_used_that_the_time_is_not_told(
        self, later: dict[str, str]
    ) -> None:
        """Calls that need much less than they might are not held back: the provider has counted."""
        clock = Clock()
        inner = Telling(clock, plain("tokens", "6000", "5000", "10s"), later)
        provider = limited(inner, clock)
        for _ in range(10):
            await clock.run(provider.complete(a_request(max_tokens=2000)))
        assert inner.starts == [0.0] * 10

    async def test_a_limit_that_turns_out_to_be_another_times_is_forgotten(self) -> None:
        """Of a window of one second the first answer looks like a minute's."""
        clock = Clock()
        first, second = plain("requests", "60", "59", "1s"), plain("requests", "60", "30", "500ms")
        inner = Telling(clock, first, second, {})
        provider = limited(inner, clock)
        await provider.complete(a_request())
        for _ in range(3):
            await clock.run(*(provider.complete(a_request()) for _ in range(60)))
        assert inner.starts == [0.0] * 181

    async def test_one_whose_figure_has_changed_is_not_kept_either(self) -> None:
        clock = Clock()
        first, second = plain("requests", "60", "1", "59s"), plain("requests", "900", "900", "0s")
        inner = Telling(clock, first, second, {})
        provider = limited(inner, clock)
        for _ in range(5):
            await clock.run(provider.complete(a_request()))
        assert inner.starts == [0.0] * 5

    async def test_those_who_wait_hear_of_it(self) -> None:
        """Calls that wait for what the provider had left go on as soon as it has more."""
        clock = Clock()
        inner = Telling(clock, requests_told(6, 0), requests_told(600, 599), {})
        provider = limited(inner, clock)
        await provider.complete(a_request())
        waiting = [asyncio.ensure_future(provider.complete(a_request())) for _ in range(5)]
        await clock.run(*waiting)
        assert inner.starts == pytest.approx([0.0] + [10.0] * 5)

    async def test_a_call_without_an_answer_is_forgotten(self) -> None:
        clock = Clock()

        class Failing(Telling):
            async def complete(self, request: Any, /) -> Any:
                if self.calls < 50:
                    self.requests.append(request)
                    raise ConnectionError
                return await super().complete(request)

        inner = Failing(clock, requests_told(60, 2), {})
        provider = limited(inner, clock)
        await clock.run(*(provider.complete(a_request()) for _ in range(50)))
        inner.headers = (*[{}] * 50, requests_told(60, 2), {})
        for _ in range(4):
            await clock.run(provider.complete(a_request()))
        assert inner.starts == pytest.approx([0.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("protocol", ["openai", "openai.responses", "anthropic", "gemini"])
async def test_each_transport_tells_them(protocol: str, transport: str, streamed: bool) -> None:
    told = faults.headers(
        ("Anthropic-RateLimit-Requests-Limit", "1"),
        ("Anthropic-RateLimit-Requests-Remaining", "0"),
    )
    async with FaultServer(told) as server:
        config = server.config(protocol, transport=transport)
        async with Aether(config=config, rate_limit=RateLimit(max_waiting=0)) as client:
            if streamed:
                assert [piece async for piece in client.stream_text("Hi")]
            else:
                await client.ask("Hi")
            with pytest.raises(RateLimitError, match="Not sent"):
                await client.ask("Hi")
            assert server.count == len(client.usage.ledger) == 1
