"""Circuit breaker: while a provider keeps failing, calls to it fail at once.

It must not know how often a call was tried or what it cost: one call is one outcome.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Literal

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
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.failures import translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.per_model import PerModel
from aether.llm.wrapper import ProviderWrapper, check_count, check_seconds, with_context

__all__ = ["CircuitBreakerProvider", "CircuitState"]

_log = logging.getLogger("aether.llm")

CircuitState = Literal["closed", "open", "half_open"]
_Outcome = Literal["success", "failure", "neutral"]

JITTER = 0.1
"""By up to this part a longer pause is shortened at random: clients must not return together."""
PROBE_SECONDS = 1.0
"""When to come back while a probe is under way: its end cannot be known."""

PATIENCE = 5.0
"""Seconds: a caller who gave the provider less time says nothing about it by giving up."""

_NEUTRAL = (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)


class CircuitBreakerProvider(ProviderWrapper):
    """Lets calls through while the provider is well, and few or none while it is not.

    Each model has a circuit of its own. It opens after `failure_threshold` failures in a row. While
    it is open a call raises `CircuitOpenError` at once, whose `retry_after` says when to come
    back. After `recovery_timeout` seconds it is half-open: one call, the probe, is let through,
    however many arrive. A success closes it; a failure opens it for twice as long, at most
    `max_recovery_timeout`.

    - A success is a response, or a stream's final chunk. A stream's outcome counts at its end.
    - A failure is an error that speaks against the provider: connection, timeout, 5xx, a broken
      stream, an answer that the protocol does not allow or that is no response, an exception that
      nobody has foreseen, a deadline of the caller's where nothing had come within `PATIENCE`.
    - All else is neutral, and changes nothing: the caller's own fault (400, 401, 403, 404, 422, a
      `ValueError`), 429, an exhausted quota, an error that is no `ProviderError`, a call of which
      nothing was sent, a cancelled call, a stream that its reader left or that was still coming at
      the call's deadline, a deadline that left the provider less time than `PATIENCE`, without what
      the call has waited in queues and pauses. After a neutral probe the next call is the probe.

    A probe that has no outcome after `probe_timeout` seconds is given up, and another call is let
    through. An outcome that comes when its circuit has opened or closed meanwhile is ignored.

    `provider` is the name for messages; `clock` is monotonic, in seconds; `random` gives 0 to 1.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        failure_threshold: int = 5,
        recovery_timeout: float = 30.0,
        max_recovery_timeout: float = 300.0,
        probe_timeout: float = 600.0,
        provider: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        check_count("failure_threshold", failure_threshold)
        check_seconds("recovery_timeout", recovery_timeout, minimum=0.001)
        check_seconds("max_recovery_timeout", max_recovery_timeout)
        check_seconds("probe_timeout", probe_timeout, minimum=0.001)
        policy = _Policy(
            failure_threshold,
            recovery_timeout,
            max(recovery_timeout, max_recovery_timeout),
            probe_timeout,
            provider,
            clock,
            random,
        )
        self._clock = clock
        self._policy = policy
        self._circuits: PerModel[_Circuit] = PerModel(lambda model: _Circuit(policy, model))

    def state(self, model: str | None = None) -> CircuitState:
        """How the next call to `model` will find its circuit."""
        return self._circuits[model or self.default_model].state()

    def settings(self) -> str:
        policy = self._policy
        return (
            f"opens after {policy.failure_threshold} failures in a row, for "
            f"{policy.recovery_timeout:g} s"
        )

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        request, context = with_context(request)
        circuit = self._circuits[request.model or self.default_model]
        admission = circuit.admit()
        outer, context.admission = context.admission, admission
        begun = None if context.deadline is None else self._time_given(context)
        outcome: _Outcome = "neutral"
        try:
            response = await self.inner.complete(request)
            outcome = _judge_answer(response)
        except Exception as error:
            outcome = _judge(error, impatient=self._is_impatient(context, begun))
            raise
        finally:
            context.admission = outer
            circuit.settle(admission, outcome)
        return response

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(self._batches(request))

    async def _batches(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        request, context = with_context(request)
        circuit = self._circuits[request.model or self.default_model]
        admission = circuit.admit()
        outer, context.admission = context.admission, admission
        begun = None if context.deadline is None else self._time_given(context)
        outcome: _Outcome = "neutral"
        last: StreamChunk | None = None
        try:
            async with open_batches(self.inner, request) as batches:
                async for batch in batches:
                    last = batch[-1]
                    yield batch
        except Exception as error:
            outcome = _judge(error, impatient=self._is_impatient(context, begun))
            raise
        except BaseException:  # cancelled or left: a success all the same if the answer was whole
            if _judge_answer(last) == "success":
                outcome = "success"
            raise
        else:
            outcome = _judge_answer(last)
        finally:
            context.admission = outer
            circuit.settle(admission, outcome)

    def _is_impatient(self, context: CallContext, begun: float | None) -> bool:
        return begun is not None and self._time_given(context) - begun < PATIENCE

    def _time_given(self, context: CallContext) -> float:
        """The clock, without the time that the call has waited here: it is the provider's own."""
        return self._clock() - context.waited


def _judge_answer(answer: object) -> _Outcome:
    """Of what a provider returned, or of its stream's last chunk: it may be anything."""
    whole = isinstance(answer, LLMResponse) or (isinstance(answer, StreamChunk) and answer.is_final)
    return "success" if whole else "failure"


def _judge(raised: Exception, *, impatient: bool = False) -> _Outcome:
    error = translate(raised)
    if not isinstance(error, ProviderError) or isinstance(error, _NEUTRAL) or not error.attempts:
        return "neutral"
    cause = error.__cause__
    if isinstance(error, StreamInterruptedError) and isinstance(cause, _NEUTRAL):
        return "neutral"
    if isinstance(error, DeadlineExceededError) and (impatient or error.partial is not None):
        return "neutral"
    if type(error) is ProviderError and isinstance(cause, ValueError):
        return "neutral"
    status = error.status
    refused = status is not None and 400 <= status < 500 and not error.retryable
    timed_out = isinstance(error, RequestTimeoutError)  # also where the server says not to retry
    return "neutral" if refused and not timed_out else "failure"


@dataclass(frozen=True, slots=True)
class _Policy:
    failure_threshold: int
    recovery_timeout: float
    max_recovery_timeout: float
    probe_timeout: float
    provider: str | None
    clock: Callable[[], float]
    random: Callable[[], float]


class _Admission:
    """Leave to call, good for as long as it is its circuit's current one.

    While a circuit is closed all calls share one admission; a probe has its own. So an outcome
    that belongs to a state which has passed is told by its admission.
    """

    __slots__ = ("_circuit", "expires", "probe")

    def __init__(self, circuit: _Circuit, *, probe: bool, expires: float = math.inf) -> None:
        self._circuit = circuit
        self.probe = probe
        self.expires = expires

    def check(self) -> None:
        if self is not self._circuit.current:
            raise self._circuit.refusal("opened while this call waited to be tried again")


class _Circuit:
    """One model's circuit. Threads may share it."""

    __slots__ = ("_failures", "_lock", "_model", "_open_until", "_pause", "_policy", "current")

    def __init__(self, policy: _Policy, model: str | None) -> None:
        self._policy = policy
        self._model = model
        self._lock = threading.Lock()
        self.current: _Admission | None = _Admission(self, probe=False)
        """`None` while nobody is let through: open, or half-open without a probe."""
        self._failures = 0
        self._open_until = 0.0
        self._pause = policy.recovery_timeout

    def state(self) -> CircuitState:
        current = self.current
        if current is not None:
            return "half_open" if current.probe else "closed"
        return "open" if self._policy.clock() < self._open_until else "half_open"

    def admit(self) -> _Admission:
        """Let a call through. It must be settled, whatever becomes of it."""
        current = self.current
        if current is not None and not current.probe:
            return current
        with self._lock:
            now = self._policy.clock()
            current = self.current
            if current is None:
                if now < self._open_until:
                    raise self.refusal(f"is open after {self._failures} failures in a row")
            elif not current.probe:
                return current
            elif now < current.expires:
                raise self.refusal("is half-open and another call is testing it")
            self.current = _Admission(self, probe=True, expires=now + self._policy.probe_timeout)
            return self.current

    def settle(self, admission: _Admission, outcome: _Outcome) -> None:
        """Count the one outcome of an admitted call, unless its circuit has changed meanwhile."""
        if not admission.probe and (
            (outcome == "success" and not self._failures) or outcome == "neutral"
        ):
            return  # nothing would change: the common way takes no lock
        with self._lock:
            if admission is not self.current:
                return
            if outcome == "failure":
                self._fail(admission)
            elif outcome == "success":
                self._succeed(admission)
            else:
                self.current = None

    def _succeed(self, admission: _Admission) -> None:
        self._failures = 0
        if admission.probe:
            self.current = _Admission(self, probe=False)
            _log.info("the circuit for %s is closed again", self._name())

    def _fail(self, admission: _Admission) -> None:
        policy = self._policy
        self._failures += 1
        if admission.probe:
            self._pause = min(self._pause * 2, policy.max_recovery_timeout)
            pause = self._pause * (1 - JITTER * policy.random())
        elif self._failures >= policy.failure_threshold:
            pause = self._pause = policy.recovery_timeout
        else:
            return
        self.current = None
        self._open_until = policy.clock() + pause
        _log.warning(
            "the circuit for %s is open for %.1f s after %d failures in a row",
            self._name(),
            pause,
            self._failures,
        )

    def refusal(self, what: str) -> CircuitOpenError:
        wait = self._open_until - self._policy.clock()
        if wait <= 0:  # half-open, or closed again
            wait = min(PROBE_SECONDS, self._policy.recovery_timeout)
        return CircuitOpenError(
            f"Not sent: the circuit for {self._name()} {what}. Come back in {wait:.3g} s.",
            retry_after=wait,
            provider=self._policy.provider,
            model=self._model,
        )

    def _name(self) -> str:
        provider = self._policy.provider or "this provider"
        return provider if self._model is None else f"{provider} ({self._model!r})"
