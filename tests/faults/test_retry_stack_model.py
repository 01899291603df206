"""The whole stack against an oracle: any refusals, in any order, over every adapter.

The oracle says of each call how many attempts it makes, how long it sleeps before each, how it
ends, what the ledger holds of it, and what breaker, gate and budget are afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aether.errors import (
    AetherError,
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    DeadlineExceededError,
    NotFoundError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm import _pacing
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import CallContext
from tests.faults.virtual import HELLO, WIRES, Act, VirtualServer, adapter, stack
from tests.llm.scripted import MODEL, Clock, a_request, collect

ATTEMPTS, CAP, BUDGET, THRESHOLD, PAUSE, LONGEST = 3, 120.0, 3, 2, 30.0, 300.0
PATIENCE = 5.0  # a caller who leaves a provider less time says nothing about it
EMPTY = b"{}"

Outcome = Literal["ok", "fail", "neutral"]


class Fault(NamedTuple):
    """What the server does, and what is to be made of it."""

    act: Act
    error: type[AetherError] | None = None
    ledger: str = "exact"
    outcome: Outcome = "ok"
    retryable: bool = False
    asked: float = 0.0
    gate: bool = False


def status(code: int, headers: dict[str, str] | None = None, body: bytes = EMPTY) -> Act:
    return Act(code, headers or {}, body)


def gone(kind: str) -> Any:
    return lambda: ProviderConnectionError("gone", kind=kind)


IN_THREE_SECONDS = {
    "date": "Wed, 02 Dec 2026 12:07:02 GMT",
    "retry-after": "Wed, 02 Dec 2026 12:07:05 GMT",
}
SPENT = b'{"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}'
BUSY = b'{"type": "error", "error": {"type": "overloaded_error"}}'

FAULTS: dict[str, Fault] = {
    "none": Fault(Act()),
    "late": Fault(Act(delay=2.0)),
    "400": Fault(status(400), BadRequestError, "not_billed", "neutral"),
    "401": Fault(status(401), AuthenticationError, "not_billed", "neutral"),
    "404": Fault(status(404), NotFoundError, "not_billed", "neutral"),
    "408": Fault(status(408), RequestTimeoutError, "unknown", "fail", retryable=True),
    "409": Fault(status(409), BadRequestError, "not_billed", "neutral", retryable=True),
    "429": Fault(status(429), RateLimitError, "not_billed", "neutral", retryable=True),
    "429 for 3 s": Fault(
        status(429, {"retry-after": "3"}), RateLimitError, "not_billed", "neutral", True, 3.0, True
    ),
    "429 for 0.25 s": Fault(
        status(429, {"retry-after-ms": "250", "retry-after": "60"}),
        RateLimitError,
        "not_billed",
        "neutral",
        True,
        0.25,
        True,
    ),
    "429 until a date": Fault(
        status(429, IN_THREE_SECONDS), RateLimitError, "not_billed", "neutral", True, 3.0, True
    ),
    "429 for 600 s": Fault(
        status(429, {"retry-after": "600"}),
        RateLimitError,
        "not_billed",
        "neutral",
        True,
        600.0,
        True,
    ),
    "quota": Fault(
        status(429, {"retry-after": "1"}, SPENT), QuotaExceededError, "not_billed", "neutral"
    ),
    "500": Fault(status(500), ServerError, "unknown", "fail", retryable=True),
    "503 for 1 s": Fault(
        status(503, {"retry-after": "1"}), OverloadedError, "not_billed", "fail", True, 1.0
    ),
    "503 late": Fault(
        Act(503, {}, EMPTY, delay=1.5), OverloadedError, "not_billed", "fail", retryable=True
    ),
    "overloaded": Fault(status(400, {}, BUSY), OverloadedError, "not_billed", "fail", True),
    "do retry": Fault(
        status(400, {"x-should-retry": "true"}), BadRequestError, "not_billed", "neutral", True
    ),
    "do not retry": Fault(status(500, {"x-should-retry": "false"}), ServerError, "unknown", "fail"),
    "not reached": Fault(
        Act(error=gone("connect")), ProviderConnectionError, "not_billed", "fail", True
    ),
    "reset": Fault(Act(error=gone("reset")), ProviderConnectionError, "unknown", "fail", True),
    "html": Fault(status(200, {}, b"<html>Hello</html>"), ProtocolError, "unknown", "fail"),
    "hang": Fault(Act(delay=math.inf), RequestTimeoutError, "unknown", "fail"),
    "cut": Fault(Act(events=-1, error=gone("reset")), StreamInterruptedError, "estimated", "fail"),
}
CUT_WHOLE = Fault(Act(error=gone("reset")), ProviderConnectionError, "unknown", "fail", True)


@dataclass
class Expected:
    """Of one call."""

    error: type[AetherError] | None = None
    attempts: int = 0
    sleeps: list[float] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    retry_after: float | None = None


@dataclass
class Oracle:
    """What is known after any number of calls, one after another."""

    now: float = 0.0
    gate: float = 0.0
    tenths: int = BUDGET * 10
    failures: int = 0
    opens_at: float | None = None
    """`None`: the circuit is closed."""
    pause: float = PAUSE

    def state(self) -> str:
        if self.opens_at is None:
            return "closed"
        return "open" if self.now < self.opens_at else "half_open"

    def call(self, faults: list[Fault], *, chance: float, deadline: float | None) -> Expected:
        expected = Expected()
        probe = self.state() == "half_open"
        if self.state() == "open":
            expected.error = CircuitOpenError
            return expected
        outcome = self._attempts(expected, faults, 1 if probe else ATTEMPTS, chance, deadline)
        self._settle(outcome, probe=probe, chance=chance)
        return expected

    def _attempts(
        self,
        expected: Expected,
        faults: list[Fault],
        most: int,
        chance: float,
        deadline: float | None,
    ) -> Outcome:
        ends_at = math.inf if deadline is None else self.now + deadline
        left = self.gate - self.now
        self.gate = self.gate if left > 0 else 0.0
        if self.gate:
            if left > CAP or left >= ends_at - self.now:
                expected.error, expected.retry_after = RateLimitError, left
                return "neutral"
            expected.sleeps.append(left)
            self.now, self.gate = self.gate, 0.0
        if self.now >= ends_at:
            expected.error = DeadlineExceededError
            return "neutral"
        given = 0.0  # the time that the provider has had
        for number, fault in enumerate(faults, 1):
            expected.attempts = number
            if fault.act.delay >= ends_at - self.now:
                given += ends_at - self.now
                self.now = ends_at
                expected.ledger.append("unknown")
                expected.error = DeadlineExceededError
                return "fail" if given >= PATIENCE else "neutral"
            given += fault.act.delay
            self.now += fault.act.delay
            expected.ledger.append(fault.ledger)
            if fault.error is None:
                self.tenths = min(BUDGET * 10, self.tenths + ((number - 1) * 10 or 1))
                return "ok"
            if fault.gate:
                self.gate = max(self.gate, self.now + fault.asked)
            wait = max(fault.asked, chance * min(8.0, 0.5 * 2 ** (number - 1)))
            hopeless = not fault.retryable or fault.asked > CAP or wait >= ends_at - self.now
            if hopeless or number >= most or self.tenths < 10:
                expected.error, expected.retry_after = fault.error, fault.asked or None
                return fault.outcome
            self.tenths -= 10
            expected.sleeps.append(wait)
            self.now += wait
            self.gate = 0.0
        raise AssertionError("the script is too short")

    def _settle(self, outcome: Outcome, *, probe: bool, chance: float) -> None:
        if outcome == "ok":
            self.failures, self.opens_at = 0, None
        elif outcome == "fail":
            self.failures += 1
            if probe:
                self.pause = min(self.pause * 2, LONGEST)
                self.opens_at = self.now + self.pause * (1 - 0.1 * chance)
            elif self.failures >= THRESHOLD:
                self.pause = PAUSE
                self.opens_at = self.now + PAUSE


class StackMachine(RuleBasedStateMachine):
    @initialize(wire=st.sampled_from(sorted(WIRES)))
    def begin(self, wire: str) -> None:
        self.oracle, self.clock = Oracle(), Clock(0.0)
        self.chance = 0.0
        self.server = VirtualServer(WIRES[wire](), self.clock)
        self.stack = stack(
            adapter(wire, self.server),
            self.clock,
            random=lambda: self.chance,
            failure_threshold=THRESHOLD,
        )
        assert isinstance(self.stack.inner, CircuitBreakerProvider)
        self.breaker = self.stack.inner
        assert isinstance(self.breaker.inner, RetryingProvider)
        self.pace = self.breaker.inner._paces[MODEL]

    @rule(
        names=st.lists(st.sampled_from(sorted(FAULTS)), min_size=ATTEMPTS, max_size=ATTEMPTS),
        chance=st.sampled_from([0.0, 0.5, 1.0]),
        deadline=st.sampled_from([None, None, 0.0, 0.375, 1.0, 3.0, 50.0]),
        streamed=st.booleans(),
    )
    def call(self, names: list[str], chance: float, deadline: float | None, streamed: bool) -> None:
        if deadline is None:
            names = ["reset" if name == "hang" else name for name in names]
        faults = [CUT_WHOLE if n == "cut" and not streamed else FAULTS[n] for n in names]
        self.chance = chance
        began, served = self.clock.now, len(self.server.starts)
        written = len(self.stack.usage.ledger)
        self.server.acts = [fault.act for fault in faults]
        self.clock.sleeps.clear()
        context = CallContext(deadline=None if deadline is None else began + deadline)
        request = a_request(context=context)
        stream = collect(self.stack.stream(request)) if streamed else None
        work: Any = self.stack.complete(request) if stream is None else stream
        [result] = asyncio.run(self.clock.run(work))
        expected = self.oracle.call(faults, chance=chance, deadline=deadline)

        assert len(self.server.starts) - served == expected.attempts
        assert self.clock.sleeps == pytest.approx(expected.sleeps)
        assert self.clock.now == pytest.approx(self.oracle.now)
        entries = self.stack.usage.ledger[written:]
        assert [entry.state for entry in entries] == expected.ledger
        assert len({bytes(body) for body in self.server.bodies[served:]}) <= 1
        assert self.server.open == 0
        if expected.error is None:
            answer = result[-1].response if streamed else result
            assert (answer.text, answer.attempts) == (HELLO.text, expected.attempts)
            return
        assert type(result) is expected.error
        if isinstance(result, ProviderError):
            assert result.attempts == expected.attempts
            if expected.retry_after is not None:
                assert result.retry_after == pytest.approx(expected.retry_after)
        if isinstance(result, CircuitOpenError):
            assert self.oracle.opens_at is not None
            left = self.oracle.opens_at - self.oracle.now
            assert result.retry_after == pytest.approx(left)

    @rule(seconds=st.sampled_from([0.125, 2.0, PAUSE, 90.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.oracle.now += seconds

    @invariant()
    def what_is_shared_is_as_expected(self) -> None:
        if not hasattr(self, "oracle"):
            return
        assert self.breaker.state(MODEL) == self.oracle.state()
        assert self.breaker._circuits[MODEL]._failures == self.oracle.failures
        assert self.pace._tenths == self.oracle.tenths
        assert max(self.pace.closed_until, self.clock.now) == pytest.approx(
            max(self.oracle.gate, self.oracle.now)
        )


@pytest.fixture(autouse=True)
def a_small_budget(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_pacing, "RETRY_BUDGET", BUDGET)
    caplog.set_level(logging.CRITICAL, "aether.llm")


TestStackModel = StackMachine.TestCase
TestStackModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
