"""The circuit breaker against a small model of it: any calls, in any order, ending at any time.

No event loop runs: a call is a coroutine that is stepped by hand, so that Hypothesis, or a seed,
decides which call goes on, and when. A call may end when its circuit has long changed, or never.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from aether.errors import (
    BadRequestError,
    CircuitOpenError,
    DeadlineExceededError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.llm.call import Admission
from aether.llm.contracts import LLMRequest, LLMResponse
from tests.llm.scripted import MODEL, a_request, an_answer, deltas

THRESHOLD, PAUSE, LONGEST, PROBE_TIMEOUT = 2, 10.0, 35.0, 60.0
SIMULATIONS = int(os.environ.get("BREAKER_SIMULATIONS", "1000"))

ENDINGS: dict[str, BaseException] = {
    "fail": ServerError("no"),
    "foreign": ConnectionResetError("no"),
    "late": DeadlineExceededError("no"),
    "refused": BadRequestError("no"),
    "limited": RateLimitError("no"),
    "exhausted": QuotaExceededError("no"),
    "not sent": DeadlineExceededError("no", attempts=0),
    "cancelled": asyncio.CancelledError(),
}
FAILING = {"fail", "foreign", "late", "wrong"}


class Suspended:
    """Awaited inside the provider: gives the control back to the test."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Hanging:
    """A provider whose calls end when, and as, the test says."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.answer: Any = an_answer()
        """What the next call to end gives."""
        self.asked: LLMRequest | None = None
        """The latest request."""

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.in_flight += 1
        self.asked = request
        try:
            await Suspended()
        finally:
            self.in_flight -= 1
        answer: LLMResponse = self.answer
        return answer

    async def stream(self, request: LLMRequest, /) -> Any:
        self.in_flight += 1
        self.asked = request
        try:
            await Suspended()
            for chunk in deltas("It is ", "42."):
                if chunk.is_final and self.answer is None:
                    return
                yield chunk
        finally:
            self.in_flight -= 1


@dataclass
class Model:
    """The rules once more, as plainly as can be."""

    now: float = 0.0
    state: str = "closed"
    era: int = 0
    """Changes with the state: an outcome counts only in the era of its admission."""
    failures: int = 0
    opens_at: float = 0.0
    pause: float = PAUSE
    probe_until: float | None = None

    def seen(self) -> str:
        return "half_open" if self.state == "open" and self.now >= self.opens_at else self.state

    def admit(self) -> int | None:
        if self.seen() == "open":
            return None
        if self.seen() == "half_open":
            if self.probe_until is not None and self.now < self.probe_until:
                return None
            self.state, self.probe_until = "half_open", self.now + PROBE_TIMEOUT
            self.era += 1
        return self.era

    def settle(self, era: int, ending: str) -> None:
        if era != self.era:
            return
        probe = self.state == "half_open"
        if ending == "ok":
            self.failures = 0
            if probe:
                self.change("closed")
        elif ending in FAILING:
            self.failures += 1
            if probe or self.failures >= THRESHOLD:
                self.pause = min(self.pause * 2, LONGEST) if probe else PAUSE
                self.change("open")
                self.opens_at = self.now + self.pause
        elif probe:
            self.change("half_open")

    def change(self, state: str) -> None:
        self.state, self.probe_until = state, None
        self.era += 1


@dataclass(eq=False)
class Call:
    era: int
    work: Any
    """What is suspended inside the provider."""
    stream: Any
    admission: Admission
    """What the layers inside were told."""


def resume(work: Any) -> Any:
    """Let it go on; it is not suspended again."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits again")


class CircuitBreakerMachine(RuleBasedStateMachine):
    calls: Bundle[Call] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.provider = Hanging()
        self.in_flight: list[Call] = []
        self.stack = CircuitBreakerProvider(
            self.provider,
            failure_threshold=THRESHOLD,
            recovery_timeout=PAUSE,
            max_recovery_timeout=LONGEST,
            probe_timeout=PROBE_TIMEOUT,
            clock=lambda: self.model.now,
            random=lambda: 0.0,
        )

    @rule(target=calls, streamed=st.lists(st.booleans(), min_size=1, max_size=4))
    def arrive(self, streamed: list[bool]) -> Any:
        """Calls arrive together: each is let through, or refused at once."""
        begun = [call for call in map(self.begin, streamed) if call is not None]
        self.in_flight += begun
        return multiple(*begun)

    def begin(self, streamed: bool) -> Call | None:
        era = self.model.admit()
        stream = self.stack.stream(a_request()) if streamed else None
        work: Any = self.stack.complete(a_request()) if stream is None else stream.__anext__()
        if era is None:
            with pytest.raises(CircuitOpenError) as caught:
                work.send(None)
            if self.model.seen() == "open":
                assert caught.value.retry_after == self.model.opens_at - self.model.now
            assert caught.value.retry_after > 0
            return None
        work.send(None)
        request = self.provider.asked
        assert request is not None
        assert request.context is not None
        assert request.context.admission is not None
        assert request.context.admission.probe == (self.model.state == "half_open")
        return Call(era, work, stream, request.context.admission)

    @rule(call=consumes(calls))
    def succeed(self, call: Call) -> None:
        if call.stream is None:
            assert resume(call.work) == an_answer()
        else:
            chunk = resume(call.work)
            while not chunk.is_final:
                chunk = resume(call.stream.__anext__())
            with pytest.raises(StopAsyncIteration):
                resume(call.stream.__anext__())
        self.settle(call, "ok")

    @rule(call=consumes(calls))
    def answer_wrongly(self, call: Call) -> None:
        """With what is no response, or with a stream that has no final chunk."""
        self.provider.answer = None
        if call.stream is None:
            assert resume(call.work) is None
        else:
            resume(call.work)
            resume(call.stream.__anext__())
            with pytest.raises(StopAsyncIteration):
                resume(call.stream.__anext__())
        self.provider.answer = an_answer()
        self.settle(call, "wrong")

    @rule(call=calls)
    def ask_again(self, call: Call) -> None:
        """A retry inside asks whether its next attempt may start: not if the circuit changed."""
        if call.era == self.model.era:
            call.admission.check()
        else:
            with pytest.raises(CircuitOpenError):
                call.admission.check()

    @rule(call=consumes(calls), ending=st.sampled_from(sorted(ENDINGS)))
    def fail(self, call: Call, ending: str) -> None:
        with pytest.raises(type(ENDINGS[ending])) as caught:
            call.work.throw(ENDINGS[ending])
        assert caught.value is ENDINGS[ending]
        self.settle(call, ending)

    @rule(call=consumes(calls), read=st.integers(1, 3))
    def leave(self, call: Call, read: int) -> None:
        """The reader leaves a stream after some of its three chunks, or a call altogether."""
        if call.stream is None:
            call.work.close()
            self.settle(call, "left")
            return
        chunk = resume(call.work)
        for _ in range(read - 1):
            chunk = resume(call.stream.__anext__())
        resume(call.stream.aclose())
        self.settle(call, "ok" if chunk.is_final else "left")

    @rule()
    def drop_unread(self) -> None:
        """A stream that is closed before anybody has read from it was never a call."""
        resume(self.stack.stream(a_request()).aclose())

    @rule(seconds=st.sampled_from([5.0, PAUSE, LONGEST, PROBE_TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    def settle(self, call: Call, ending: str) -> None:
        self.in_flight.remove(call)
        self.model.settle(call.era, ending)

    @invariant()
    def it_is_in_the_same_state(self) -> None:
        assert self.stack.state(MODEL) == self.model.seen()

    @invariant()
    def it_has_counted_as_many_failures(self) -> None:
        assert self.stack._circuits[MODEL]._failures == self.model.failures

    @invariant()
    def only_what_was_let_through_is_under_way(self) -> None:
        assert self.provider.in_flight == len(self.in_flight)

    @invariant()
    def at_most_one_probe_counts(self) -> None:
        current = [call for call in self.in_flight if call.era == self.model.era]
        assert self.model.state == "closed" or len(current) <= 1

    def teardown(self) -> None:
        """Whatever has happened, and whatever never ends: a provider that is well is found so."""
        self.model.now += LONGEST + PROBE_TIMEOUT
        call = self.begin(streamed=False)
        assert call is not None, "the breaker is wedged"
        self.in_flight.append(call)
        self.succeed(call)
        assert self.stack.state(MODEL) == "closed"
        for call in self.in_flight:
            with pytest.raises(asyncio.CancelledError):
                call.work.throw(asyncio.CancelledError())


TestCircuitBreakerModel = CircuitBreakerMachine.TestCase
TestCircuitBreakerModel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def simulate(seed: int) -> None:
    """Dozens of callers of one circuit, some of whom never end."""
    chance, machine = random.Random(seed), CircuitBreakerMachine()
    for _ in range(chance.randrange(5, 40)):
        if not machine.in_flight or chance.random() < 0.4:
            machine.arrive(chance.choices([True, False], k=chance.randrange(1, 5)))
        elif chance.random() < 0.3:
            machine.wait(chance.choice([1.0, PAUSE, LONGEST, PROBE_TIMEOUT]))
        else:
            call = chance.choice(machine.in_flight)
            how = chance.randrange(6)
            if how == 0:
                machine.succeed(call)
            elif how == 1:
                machine.answer_wrongly(call)
            elif how == 2:
                machine.ask_again(call)
            elif how == 3:
                machine.leave(call, chance.randrange(1, 4))
            else:
                machine.fail(call, chance.choice(sorted(ENDINGS)))
        machine.it_is_in_the_same_state()
        machine.it_has_counted_as_many_failures()
        machine.at_most_one_probe_counts()
    machine.teardown()


def test_no_breaker_of_many_is_ever_wedged(caplog: pytest.LogCaptureFixture) -> None:
    """`BREAKER_SIMULATIONS=100000` is the long tier; the error of a seed that fails names it."""
    caplog.set_level(logging.CRITICAL, "aether.llm")
    for seed in range(SIMULATIONS):
        try:
            simulate(seed)
        except BaseException as error:
            error.add_note(f"The seed was {seed}.")
            raise
