"""How fast calls to one model may start: buckets that are refilled all the time.

It must not know a call, a clock or who waits: it is told what is needed, and when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aether.extensions.llm._rate_headers import Told

__all__ = ["Bucket", "Need", "Rate"]

MINUTE = 60.0
LONGEST_DEBT = 600.0
"""Seconds: no single call, however large, keeps others waiting for longer."""
LONGEST_PAUSE = 60.0
"""Seconds: after that, whatever a server asks for, the slowed rate is what holds calls back."""
FIRST_SLOWED = 60.0
"""Requests a minute: where fewer are made, a first refusal halves this."""
SLOWEST = 1.0
"""Requests a minute: no refusal slows calls further."""
RISE = 0.1
"""A minute of successes gives back this part of the rate that was refused."""
UNTROUBLED = 2.0
"""So many times the rate that was refused is reached, and the refusals count no more."""
FORGOTTEN = 900.0
"""Seconds without a refusal, and they count no more either, however few calls were made: so long it
takes, by the two above, from half of a rate to twice that rate."""
TYPICAL_OUTPUT = 256.0
"""Tokens of an answer, before there was one."""
WEIGHT = 0.1
"""Of the latest answer in the average."""
_ROUNDING = 1e-9


@dataclass(slots=True)
class Need:
    """What calls take of each limit."""

    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        return self.input_tokens + self.output_tokens

    def add(self, other: Need, times: int = 1) -> None:
        self.requests += times * other.requests
        self.input_tokens += times * other.input_tokens
        self.output_tokens += times * other.output_tokens


class Bucket:
    """Holds up to `capacity`, and is refilled by `rate` a second.

    Who needs more than it holds takes all the same when it is full, and leaves a debt, which the
    next one waits for. So nothing waits for ever, and in the long run the rate is kept.
    """

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float, *, level: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = level
        self._at = now

    def wait(self, need: float, ahead: float, now: float) -> float:
        """Seconds until so much can be taken, if so much else is taken before."""
        short = ahead + min(need, self.capacity) - self.level(now)
        if short <= _ROUNDING * self.capacity:
            return 0.0
        return short / self.rate if self.rate else math.inf  # the least of numbers, in a second

    def level(self, now: float) -> float:
        """What it holds now. A clock that went back costs no more than that time."""
        passed, self._at = now - self._at, now
        if passed > 0:
            self._level = min(self.capacity, self._level + passed * self.rate)
        return self._level

    def take(self, amount: float, now: float, *, instead_of: float = 0.0) -> None:
        """Take so much; or the difference, where another amount was taken before."""
        most = max(self.capacity, LONGEST_DEBT * self.rate)  # what it can hold makes no debt
        taken = min(amount, most) - min(instead_of, most)
        self._level = min(self.level(now) - taken, self.capacity)

    def change(self, rate: float, capacity: float, now: float, *, level: float) -> None:
        self.level(now)
        self.rate, self.capacity = rate, capacity
        self._level = max(min(level, capacity), -LONGEST_DEBT * rate)


class Rate:
    """All that limits the calls to one model: what the user said, what the provider said of its
    own limits, and what its refusals taught.

    What the user said is kept in small bursts, of what a second allows and at least one call. The
    provider's limits are its own buckets: they hold a minute's worth, as far as it says that this
    is left. After a refusal, calls start at half the rate of the last minute, and faster again with
    each success.
    """

    __slots__ = (
        "_asked",
        "_counted_at",
        "_recent",
        "_refused_at",
        "_refused_rate",
        "_resumes",
        "_slowed",
        "_told",
        "_unseen",
        "output",
        "round",
    )

    def __init__(self, requests: float | None, tokens: float | None, now: float) -> None:
        self._asked = {
            name: _paced(per_minute, now)
            for name, per_minute in (("requests", requests), ("tokens", tokens))
            if per_minute is not None
        }
        self._told: dict[str, Bucket] = {}
        self._slowed: Bucket | None = None
        self._refused_at = now
        self._refused_rate = 0.0
        self._resumes: float | None = None
        self._unseen = Need()
        self._recent = 0.0
        self._counted_at = now
        self.round = 0
        """Grows with each slowing down: only a call that started after it can bring another."""
        self.output = TYPICAL_OUTPUT
        """The average answer's tokens."""

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a call needs."""
        return "tokens" in self._asked or any(name != "requests" for name in self._told)

    def wait(self, need: Need, ahead: Need, now: float) -> float:
        """Seconds until a call may start that needs so much, at the earliest, if so much is taken
        before it; exact where nothing is.
        """
        seconds = self._pause(now)
        for name, bucket in (*self._asked.items(), *self._told.items()):
            amount, before = getattr(need, name), getattr(ahead, name)
            seconds = max(seconds, bucket.wait(amount, before, now))
        if self._slowed is not None and not self._is_forgotten(now):
            seconds = max(seconds, self._slowed.wait(need.requests, ahead.requests, now))
        return seconds

    def take(self, need: Need, now: float) -> None:
        """A call starts."""
        for name, bucket in (*self._asked.items(), *self._told.items()):
            bucket.take(getattr(need, name), now)
        if self._slowed is not None:
            self._slowed.take(need.requests, now)
        self._unseen.add(need)
        self._recent = self._count_recent(now) + need.requests

    def correct(self, need: Need, tokens: float, now: float) -> None:
        """A call that was taken for so much has used that many tokens.

        The provider corrects its own figures.
        """
        bucket = self._asked.get("tokens")
        if bucket is not None:
            bucket.take(tokens, now, instead_of=need.tokens)

    def learn_output(self, tokens: float) -> None:
        """An answer had so many."""
        self.output += WEIGHT * (tokens - self.output)

    def seen(self, need: Need) -> None:
        """The provider has counted a call, or never will."""
        self._unseen.add(need, -1)

    def learn(self, told: Mapping[str, Told], now: float) -> None:
        """The provider says what it allows, and what is left of it; calls under way may not be in
        that yet.
        """
        for name, (limit, remaining, a_minutes) in told.items():
            bucket = self._told.get(name)
            if a_minutes is not True:
                if bucket is None:
                    continue
                if a_minutes is False or bucket.capacity != limit:
                    del self._told[name]
                    continue
            if bucket is None:
                bucket = self._told[name] = Bucket(limit / MINUTE, limit, now, level=limit)
            left = bucket.level(now)
            if remaining is not None:
                left = remaining - max(0.0, getattr(self._unseen, name))
            bucket.change(limit / MINUTE, limit, now, level=left)

    def refused(self, round_: int, retry_after: float | None, now: float) -> None:
        """A call that started in that round was refused, for so many seconds."""
        if retry_after is not None and retry_after > 0:
            resumes = now + min(retry_after, LONGEST_PAUSE)
            self._resumes = max(self._resumes or resumes, resumes)
        if round_ != self.round:
            return
        self.round += 1
        if self._slowed is None:
            before = min(max(self._count_recent(now), FIRST_SLOWED), self._limit())
        else:
            before = self._slowed.rate * MINUTE
        self._refused_at = now
        self._refused_rate = before
        self._slowed = _paced(max(before / 2, min(SLOWEST, before)), now, level=0.0)

    def succeeded(self, round_: int, now: float) -> None:
        """A call that started in that round was served."""
        slowed = self._slowed
        if slowed is None or round_ != self.round:
            return
        before = slowed.rate * MINUTE
        per_minute = before + RISE * self._refused_rate / max(before, 1.0)
        if per_minute >= min(self._limit(), UNTROUBLED * self._refused_rate):
            self._slowed = None
        else:
            self._slowed = _paced(per_minute, now, level=slowed.level(now))

    def _is_forgotten(self, now: float) -> bool:
        """Whether the last refusal is so long ago that it counts no more."""
        self._refused_at = min(self._refused_at, now)  # later, where the clock went back
        if now - self._refused_at < FORGOTTEN:
            return False
        self._slowed = None
        return True

    def _limit(self) -> float:
        """Requests a minute, as far as they are limited whatever happens."""
        found = [limits["requests"] for limits in (self._asked, self._told) if "requests" in limits]
        return min((bucket.rate * MINUTE for bucket in found), default=math.inf)

    def _pause(self, now: float) -> float:
        if self._resumes is None:
            return 0.0
        left = self._resumes - now
        if left <= 0:
            self._resumes = None
            return 0.0
        if left > LONGEST_PAUSE:  # the clock went back
            self._resumes, left = now + LONGEST_PAUSE, LONGEST_PAUSE
        return left

    def _count_recent(self, now: float) -> float:
        """About how many calls started in the last minute."""
        passed, self._counted_at = now - self._counted_at, now
        if passed > 0:
            self._recent *= math.exp(-passed / MINUTE)
        return self._recent


def _paced(per_minute: float, now: float, *, level: float = math.inf) -> Bucket:
    """A bucket that holds what a second brings, and at least 1."""
    rate = per_minute / MINUTE
    capacity = max(1.0, rate)
    return Bucket(rate, capacity, now, level=min(level, capacity))
