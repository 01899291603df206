"""What the retry layer must do, told from outside (I1): each attempt, the gate and the budget.

It is written from the layer's promises, not from its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from aether.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    ProviderError,
    RateLimitError,
)
from aether.llm.contracts import LLMResponse
from tests.simulation.calls import Attempt, Call
from tests.simulation.circuit import Circuit
from tests.simulation.judging import EARLY, Judge, named

__all__ = ["BUDGET", "Dice", "Retries"]

MAX_ATTEMPTS = 3
BASE, LONGEST = 0.5, 8.0
CAP = 120.0
"""Seconds: a server that asks for more is not waited for."""
LONGEST_GATE = 3600.0
BUDGET = 200
"""Tenths of a retry: at most so many may be left."""


class Dice:
    """Randomness whose next value can be seen beforehand."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.next = chance.random()

    def __call__(self) -> float:
        value, self.next = self.next, self._chance.random()
        return value


class Retries:
    """What all calls to one model share, as it should be."""

    def __init__(
        self,
        circuit: Circuit | None,
        dice: Dice,
        clock: Callable[[], float],
        judge: Judge,
        *,
        budget: int = BUDGET,
    ) -> None:
        self._circuit = circuit
        self._dice = dice
        self._clock = clock
        self._judge = judge
        self._gate = 0.0
        self._budget = budget

    def attempt_began(self, call: Call) -> None:
        now = self._clock()
        if call.attempts:
            self._check_wait(call, call.attempts[-1], now)
            self._check(call.must == "retry", call, "was tried again, but %s", call.must)
        self._check(now >= self._gate - EARLY, call, "passed the gate before %s", self._gate)
        deadline = call.context.deadline
        self._check(deadline is None or now < deadline, call, "was tried after its deadline")
        if self._circuit is not None:
            current = call.admission == self._circuit.generation
            self._check(current, call, "was tried under an admission that has passed")
        call.attempts.append(Attempt(now))
        call.must = "it is under way"

    def attempt_ended(self, call: Call, *, whole: bool, error: BaseException | None) -> None:
        """Settle what must follow. The layer learns of it after this, in the same step."""
        now = self._clock()
        attempt = call.attempts[-1]
        attempt.ended, attempt.error = now, named(error)
        deadline = call.context.deadline
        self._check(deadline is None or now <= deadline + EARLY, call, "went on past its deadline")
        sent = len(call.exchanges)
        self._check(sent == len(call.attempts), call, "made %s requests", sent)
        left = isinstance(error, GeneratorExit) and attempt.content
        if error is None or left or (whole and not isinstance(error, Exception)):
            self._give_back(10 * call.retries or 1)
        if error is None or not isinstance(error, Exception):
            call.must = "it was over"
            return
        self._check(isinstance(error, ProviderError), call, "failed with %r", error)
        plan = call.exchanges[-1].plan if call.exchanges else None
        troubled = plan is not None and (plan.faults or plan.unreachable)
        self._check(troubled or deadline == now, call, "had no trouble, but failed with %r", error)
        if isinstance(error, ProviderError):
            attempt.asked = self._asked(call, error)
            if isinstance(error, RateLimitError) and attempt.asked:
                self._gate = max(self._gate, now + min(attempt.asked, LONGEST_GATE))
            call.must = self._next(call, attempt, error)
            if call.must == "retry":
                self._budget -= 10
                call.retries += 1

    def call_ended(
        self, call: Call, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Check that the call ended as its last attempt says, and tells how many there were."""
        if call.must == "retry":  # it was not made
            self._give_back(10)
        told = response.attempts if response is not None else getattr(error, "attempts", None)
        made = len(call.attempts)
        self._check(told in (None, made), call, "tells of %s attempts, not %s", told, made)
        if error is None:
            self._check(call.must == "it was over", call, "ended well without an answer")
        elif isinstance(error, Exception) and (call.must == "retry" or not call.attempts):
            self._check(self._may_end(call, error), call, "ended untried with %r", error)

    def _give_back(self, tenths: int) -> None:
        self._budget = min(BUDGET, self._budget + tenths)

    def _next(self, call: Call, attempt: Attempt, error: ProviderError) -> str:
        deadline = call.context.deadline
        left = math.inf if deadline is None else deadline - self._clock()
        backoff = self._dice.next * min(LONGEST, BASE * 2 ** (len(call.attempts) - 1))
        if attempt.content:
            return "its reader had seen content"
        if not error.retryable:
            return f"{named(error)} does not get better"
        if len(call.attempts) >= (1 if call.probe else MAX_ATTEMPTS):
            return "it had its attempts"
        if attempt.asked > CAP:
            return "the server asked for too long"
        if max(backoff, attempt.asked) >= left:
            return "there was no time"
        return "retry" if self._budget >= 10 else "the budget was empty"

    def _asked(self, call: Call, error: ProviderError) -> float:
        exchange = call.exchanges[-1]
        served = exchange.served
        if served is None or (served.status or 0) < 400 or error.status != served.status:
            self._check(not error.retry_after, call, "was told %s by nobody", error.retry_after)
            return 0.0
        asked, better = exchange.plan.retry_after, exchange.plan.retryable
        self._check(better in (None, error.retryable), call, "may be retried, or not: %r", error)
        said = error.retry_after or 0.0
        self._check(math.isclose(said, asked), call, "was told %s s, not %s", said, asked)
        return asked

    def _check_wait(self, call: Call, last: Attempt, now: float) -> None:
        waited = now - (last.ended or 0.0)
        self._check(waited >= last.asked - EARLY, call, "waited %s s, not %s", waited, last.asked)
        longest = max(last.asked, min(LONGEST, BASE * 2 ** (len(call.attempts) - 1)))
        if self._gate <= (last.ended or 0.0):
            self._check(waited <= longest + EARLY, call, "waited for %s s", waited)

    def _may_end(self, call: Call, error: Exception) -> bool:
        """Whether a call that could be tried, or tried again, may end with this all the same."""
        now, deadline = self._clock(), call.context.deadline
        left = math.inf if deadline is None else deadline - now
        if isinstance(error, CircuitOpenError):
            return self._circuit is None or call.admission != self._circuit.generation
        if isinstance(error, DeadlineExceededError):
            return left <= EARLY
        if isinstance(error, RateLimitError) and error.status is None:
            held = self._gate - now
            return held > CAP - (now - call.started) - EARLY or held >= left - EARLY
        return False

    def _check(self, holds: object, call: Call, violated: str, *about: object) -> None:
        self._judge.check(holds, "I1 retry: %s " + violated, call.tag, *about)
