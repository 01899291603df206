"""How long a server asks to wait, in all spellings, and that it is waited for, and no less."""

from __future__ import annotations

import asyncio
import math
import os
import random
import string
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ProviderError, RateLimitError
from aether.extensions.llm import _pacing
from aether.extensions.llm._wire.errors import Source, refusal
from aether.extensions.llm._wire.retry_after import parse_retry_after
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import CallContext, LLMResponse
from tests.llm.scripted import Clock, Scripted, Step, a_request, an_answer

NOW = 1_796_213_222.0
"""Wed, 02 Dec 2026 12:07:02 GMT: what the wall clock says in these tests."""
FUZZED = 10_000
MILLISECOND = 0.001


def date(seconds: float) -> str:
    """So many seconds from now, as HTTP writes it."""
    return formatdate(NOW + seconds, usegmt=True)


def asked(headers: dict[str, str]) -> float | None:
    return parse_retry_after(headers, now=lambda: NOW)


def refused(headers: dict[str, str], status: int = 429) -> ProviderError:
    """What an adapter makes of an answer with these headers."""
    source = Source("openai", "gpt-x", lambda text: text)
    return refusal(status, b"{}", source=source, retry_after=asked(headers))


SPELLINGS: list[tuple[dict[str, str], int, float | None]] = [
    ({"retry-after": "20"}, 1, 20.0),
    ({"retry-after": "0"}, 1, 0.5),
    ({"retry-after": "-10"}, 1, 0.5),
    ({"retry-after": "60"}, 1, 60.0),
    ({"retry-after": "61"}, 1, 61.0),
    ({"retry-after": "120"}, 1, 120.0),
    ({"retry-after": "121"}, 1, None),
    ({"retry-after": date(20)}, 1, 20.0),
    ({"retry-after": date(0)}, 1, 0.5),
    ({"retry-after": date(-10)}, 1, 0.5),
    ({"retry-after": date(60)}, 1, 60.0),
    ({"retry-after": date(61)}, 1, 61.0),
    ({"retry-after": date(120)}, 1, 120.0),
    ({"retry-after": date(121)}, 1, None),
    ({"retry-after": "9" * 35}, 1, None),
    ({"retry-after": "inf"}, 1, 0.5),
    ({"retry-after": "nan"}, 1, 0.5),
    ({"retry-after": date(-10).replace("Wed", "Xed")}, 1, 0.5),
    ({"retry-after": date(20).replace("2026", "100000")}, 1, 0.5),
    ({"retry-after": ""}, 1, 0.5),
    ({"retry-after": ""}, 2, 1.0),
    ({"retry-after": ""}, 3, 2.0),
    ({"retry-after": ""}, 1100, 8.0),
]
"""Headers of a refusal, which attempt in a row it refuses, and the wait that follows; `None`: none,
the error is raised at once. So far as a wait is named it is the one that OpenAI's SDK tests."""

FURTHER: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after": "-0"}, 0.0),
    ({"retry-after": "1e300"}, 1e300),
    ({"retry-after": "1e999"}, sys.float_info.max),
    ({"retry-after": f"{'9' * 400}e1"}, sys.float_info.max),
    ({"retry-after": "9" * 400}, sys.float_info.max),
    ({"retry-after": "+Infinity"}, None),
    ({"retry-after": "0x10"}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "\uff13"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "2s"}, None),
    # The milliseconds stand above the seconds, if they are any.
    ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ({"retry-after-ms": "0.5"}, 0.0005),
    ({"retry-after-ms": "0", "retry-after": "9"}, 0.0),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
    ({"retry-after-ms": "-5", "retry-after": "9"}, 9.0),
    ({"retry-after-ms": "nan", "retry-after": date(9)}, 9.0),
    # A header that came twice: whoever waits for the longest is early for none.
    ({"retry-after": "2, 9"}, 9.0),
    ({"retry-after": "9, 2"}, 9.0),
    ({"retry-after": "-1, 4"}, 4.0),
    ({"retry-after": f"{date(20)}, {date(80)}"}, 80.0),
    ({"retry-after": f"5, {date(20)}"}, 20.0),
    # The two older forms of a date, and zones: without one, that of HTTP is meant.
    ({"retry-after": "Wednesday, 02-Dec-26 12:07:22 GMT"}, 20.0),
    ({"retry-after": "Wed Dec  2 12:07:22 2026"}, 20.0),
    ({"retry-after": "Wed, 02 Dec 2026 12:07:22 -0000"}, 20.0),
    ({"retry-after": "Wed, 02 Dec 2026 14:07:22 +0200"}, 20.0),
    ({"retry-after": "Wed, 99 Dec 2026 12:07:22 GMT"}, None),
    # A server's own clock is the measure of its dates, where it tells the time.
    ({"retry-after": date(3620), "date": date(3600)}, 20.0),
    ({"retry-after": date(-3580), "date": date(-3600)}, 20.0),
    ({"retry-after": date(20), "date": "yesterday"}, 20.0),
]


@pytest.mark.row("H6")
@pytest.mark.parametrize(("headers", "attempt", "wait"), SPELLINGS)
async def test_each_spelling_is_waited_for_as_it_says(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], attempt: int, wait: float | None
) -> None:
    assert len(SPELLINGS) == 23
    monkeypatch.setattr(_pacing, "RETRY_BUDGET", attempt)  # else a long row of them would use it up
    clock = Clock()
    script: list[Step] = [*[refused({}, 500)] * (attempt - 1), refused(headers), an_answer()]
    provider = RetryingProvider(
        Scripted(*script),
        max_attempts=attempt + 1,
        clock=clock,
        sleep=clock.sleep,
        random=lambda: 1.0,
    )
    [result] = await clock.run(provider.complete(a_request()))
    if wait is None:
        assert isinstance(result, RateLimitError)
        assert result.attempts == attempt
        assert result.retry_after == asked(headers)
        assert clock.sleeps[attempt - 1 :] == []
    else:
        assert result == an_answer(attempts=attempt + 1)
        assert clock.sleeps[-1] == pytest.approx(wait)


@pytest.mark.row("H6")
@pytest.mark.parametrize(("headers", "seconds"), FURTHER)
def test_each_spelling_is_read_as_it_is_meant(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert repr(asked(headers)) == repr(seconds)  # -0.0 is equal to 0.0, but no time


@pytest.mark.row("H6")
def test_a_date_without_a_zone_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone in ("America/New_York", "Asia/Kolkata", "UTC"):
            monkeypatch.setitem(os.environ, "TZ", zone)
            time.tzset()
            assert asked({"retry-after": "Wed Dec  2 12:07:22 2026"}) == 20.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.row("H6")
@given(st.text(), st.text(), st.text())
def test_any_headers_give_a_finite_number_or_none(first: str, second: str, third: str) -> None:
    found = asked({"retry-after": first, "retry-after-ms": second, "date": third})
    assert found is None or 0 <= found < math.inf


def fuzzed(chance: random.Random) -> tuple[dict[str, str], float]:
    """Headers as they may come, and for how many seconds they ask; 0 where it is nonsense."""
    seconds = round(chance.choice([chance.uniform(0, 3), chance.uniform(0, 200)]), 3)
    whole = math.floor(seconds)
    spelling = chance.randrange(10)
    if spelling == 0:
        return {"retry-after": str(whole)}, whole
    if spelling == 1:
        return {"retry-after": f"{' ' * chance.randrange(3)}{seconds!r} "}, seconds
    if spelling == 2:
        return {"retry-after-ms": f"{seconds * 1000:.0f}", "retry-after": "7"}, seconds
    if spelling == 3:
        return {"retry-after": date(whole)}, whole
    if spelling == 4:
        ahead = chance.randrange(-7200, 7200)
        return {"retry-after": date(whole + ahead), "date": date(ahead)}, whole
    if spelling == 5:
        values = [str(whole), str(chance.randrange(200))]
        chance.shuffle(values)
        return {"retry-after": ", ".join(values)}, max(map(int, values))
    if spelling == 6:
        return {"retry-after": f"{seconds:e}"}, float(f"{seconds:e}")
    if spelling == 7:
        return {"retry-after": formatdate(NOW + whole)}, whole
    if spelling == 8:
        return {"retry-after": str(-whole - 1)}, 0
    letters = string.ascii_letters + string.punctuation.replace(",", "")
    return {"retry-after": "x" + "".join(chance.choices(letters, k=chance.randrange(20)))}, 0


def cases() -> Iterator[tuple[dict[str, str], float, float | None]]:
    chance = random.Random(20261202)
    for _ in range(FUZZED):
        headers, seconds = fuzzed(chance)
        yield headers, seconds, chance.choice([None, None, chance.uniform(0, 150)])


@pytest.mark.row("H5", "H6", "H7")
def test_no_attempt_of_ten_thousand_comes_early() -> None:
    """Each is made at the time that was asked for or later, or not at all and the error says it."""

    async def play() -> None:
        for headers, seconds, deadline in cases():
            clock, starts = Clock(), list[float]()

            async def answer(starts: list[float] = starts, clock: Clock = clock) -> LLMResponse:
                starts.append(clock.now)
                return an_answer()

            provider = RetryingProvider(
                Scripted(refused(headers), answer),
                clock=clock,
                sleep=clock.sleep,
                timeout=clock.timeout,
                random=lambda: 0.0,
            )
            began = clock.now
            due = None if deadline is None else began + deadline
            [result] = await clock.run(
                provider.complete(a_request(context=CallContext(deadline=due)))
            )
            if seconds <= 120 and (deadline is None or seconds < deadline):
                assert starts[0] - began >= seconds - MILLISECOND, headers
                assert starts[0] - began <= seconds + MILLISECOND, headers
            else:
                assert isinstance(result, RateLimitError), headers
                assert result.retry_after == pytest.approx(seconds), headers
                assert (clock.now, clock.sleeps, starts) == (began, [], []), headers

    asyncio.run(play())
