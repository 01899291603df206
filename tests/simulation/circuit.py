"""What a circuit breaker must do, told from outside (I2, I3, I4): who is let through, who is not.

It is written from the breaker's promises, not from its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from tests.simulation.calls import Call
from tests.simulation.judging import EARLY, Judge

__all__ = ["Circuit", "Rules", "outcome_of"]

LEAST_PAUSE = 0.9
"""The pause after a failed probe may be shortened to this part."""

PATIENCE = 5.0
"""A caller's deadline that left less time than this says nothing about the provider."""

_NEUTRAL = (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)


class Rules:
    """The breaker's own options."""

    def __init__(self, threshold: int, pause: float, longest: float, probe: float) -> None:
        self.threshold = threshold
        self.pause = pause
        self.longest = longest
        self.probe = probe


class Circuit:
    """One model's circuit, as it should be."""

    def __init__(self, name: str, rules: Rules, clock: Callable[[], float], judge: Judge) -> None:
        self._name = name
        self._rules = rules
        self._clock = clock
        self._judge = judge
        self.generation = 0
        """Counts the states so far: what was admitted in one that has passed counts no more."""
        self._closed = True
        self._failures = 0
        self._pause = rules.pause
        self._opens = (0.0, 0.0)
        """While it is open: the earliest and the latest time of the next probe."""
        self._probe_until: float | None = None

    def admitted(self, call: Call) -> None:
        """A call has come through."""
        now = self._clock()
        if not self._closed:
            if self._probe_until is not None:
                self._check(
                    now >= self._probe_until - EARLY, call, "a second probe was let through"
                )
            else:
                self._check(now >= self._opens[0] - EARLY, call, "was let through while open")
            self._probe_until = now + self._rules.probe
            self.generation += 1
            call.probe = True
        call.admission = self.generation

    def refused(self, call: Call, error: CircuitOpenError) -> None:
        """A call has been turned away."""
        now = self._clock()
        back = now + error.retry_after
        self._check(error.retry_after > 0, call, "was to come back at once")
        self._check(math.isfinite(back), call, "is never to come back")
        self._check(not self._closed, call, "was turned away from a closed circuit")
        if self._closed:
            return
        if self._probe_until is not None:
            self._check(now < self._probe_until + EARLY, call, "was turned away for a lost probe")
        else:
            earliest, latest = self._opens
            self._check(now < latest + EARLY, call, "was turned away after the pause")
            near = earliest - EARLY <= back <= latest + EARLY
            self._check(near, call, "was told another time than that of the pause")

    def ended(self, call: Call, outcome: str) -> None:
        """An admitted call is over."""
        if call.admission != self.generation:
            return
        if outcome == "success":
            self._failures = 0
            if call.probe:
                self._closed = True
                self._next_state()
        elif outcome == "failure":
            self._failures += 1
            if call.probe:
                self._pause = min(2 * self._pause, self._rules.longest)
                self._open(LEAST_PAUSE)
            elif self._failures >= self._rules.threshold:
                self._pause = self._rules.pause
                self._open(1.0)
        elif call.probe:
            self._opens = (self._clock(), self._clock())
            self._next_state()

    def _open(self, least: float) -> None:
        now = self._clock()
        self._closed = False
        self._opens = (now + least * self._pause, now + self._pause)
        self._next_state()

    def _next_state(self) -> None:
        self._probe_until = None
        self.generation += 1

    def _check(self, holds: object, call: Call, violated: str) -> None:
        self._judge.check(holds, "I4 breaker %s: %s %s", self._name, call.tag, violated)


def outcome_of(error: BaseException | None, *, whole: bool, lasted: float) -> str:
    """How an admitted call counts whose attempts lasted so many seconds; `whole`: its answer,
    or its final chunk, was there."""
    if error is None:
        return "success" if whole else "failure"
    if not isinstance(error, Exception):
        return "success" if whole else "neutral"
    if not isinstance(error, ProviderError) or isinstance(error, _NEUTRAL) or not error.attempts:
        return "neutral"
    if isinstance(error, StreamInterruptedError):
        return "neutral" if isinstance(error.__cause__, _NEUTRAL) else "failure"
    if isinstance(error, DeadlineExceededError):
        hurried = lasted < PATIENCE - EARLY
        return "neutral" if hurried or error.partial is not None else "failure"
    refused = error.status is not None and 400 <= error.status < 500 and not error.retryable
    return "neutral" if refused and not isinstance(error, RequestTimeoutError) else "failure"
