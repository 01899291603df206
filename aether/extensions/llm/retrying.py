"""Retry: a failed call is sent again where that may help, and not before the server's time.

It must not know a provider's protocol or its siblings: it asks the error (`retryable`,
`retry_after`), and reads and writes the call's context.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from aether.errors import (
    AetherError,
    DeadlineExceededError,
    ProviderError,
    RateLimitError,
    StreamInterruptedError,
)
from aether.extensions.llm._pacing import Pace
from aether.llm.accounting import record_attempt
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.deadline import NEVER, Deadline
from aether.llm.failures import broken_stream, check_response, translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.per_model import PerModel
from aether.llm.sizing import written_beside_text
from aether.llm.wrapper import ProviderWrapper, check_count, check_seconds, with_context

__all__ = ["RetryingProvider"]

LONGEST_GATE_SECONDS = 3600.0
"""However long a server asks to wait, other calls are held back no longer."""


class RetryingProvider(ProviderWrapper):
    """Sends a failed call again where that may help.

    A call has up to `max_attempts` attempts, the half-open probe of a circuit breaker one. Before
    the n-th retry it waits a random time between 0 and `base_delay` * 2**(n-1) seconds, at most
    `max_delay` (exponential backoff with full jitter), and never less than the `retry_after` of the
    error. If the server asks for more than `retry_after_cap` seconds, or the call's deadline comes
    first, the error is raised at once and carries `retry_after`. Only a `ProviderError` that is
    `retryable` is tried again; any other exception comes out as an `AetherError`, with the original
    as its `__cause__`. The response and the error say how many `attempts` there were.

    One deadline, `context.deadline`, holds for all attempts and the waiting together. No attempt
    starts after it, and one that is under way when it comes is cancelled: that is a
    `DeadlineExceededError`, unless a stream's final chunk was there.

    An attempt that a budget has no room for (`context.reservation`) is not made: the error of the
    one before it is raised.

    In a stream all before the first content (text, reasoning, a piece of a tool call) may be tried
    again. After it nothing is: the caller gets the error, whose `partial` holds the text so far.
    A stream that ends without its final chunk is a `StreamInterruptedError`.

    A 429 that names a time closes a gate: until then the other calls to the same model wait too,
    or fail at once with `RateLimitError` where that is longer than they may wait. Those that waited
    together start within `base_delay` of each other.

    Retries to one model draw on a budget, so that an outage is not made worse by them: 20, of which
    each retry takes one. A call that succeeds, or a stream that its reader leaves after its first
    content, puts back what it took, or 0.1 if it took nothing, never above 20. So n calls in a
    total outage make at most n + 20 attempts. When nothing is left the first error is raised.

    Cancelling a call ends its waiting and its attempt at once. `provider` is the name for messages;
    `clock` is monotonic, in seconds, as is `context.deadline`; `random` gives 0 to 1; `sleep` and
    `timeout` are as in `asyncio`.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        max_attempts: int = 3,
        base_delay: float = 0.5,
        max_delay: float = 8.0,
        retry_after_cap: float = 120.0,
        provider: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        timeout: Callable[[float], asyncio.Timeout] = asyncio.timeout,
    ) -> None:
        super().__init__(inner)
        check_count("max_attempts", max_attempts)
        check_seconds("base_delay", base_delay)
        check_seconds("max_delay", max_delay)
        check_seconds("retry_after_cap", retry_after_cap)
        self._max_attempts = max_attempts
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._retry_after_cap = retry_after_cap
        self._provider = provider
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._timeout = timeout
        self._paces: PerModel[Pace] = PerModel(lambda _: Pace())

    def settings(self) -> str:
        return (
            f"up to {self._max_attempts} attempts, {self._base_delay:g} to {self._max_delay:g} s "
            f"apart; Retry-After up to {self._retry_after_cap:g} s"
        )

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        call = self._begin(request)
        while True:
            if call.delay is not None or call.pace.closed_until:
                await self._wait(call)
            self._start_attempt(call)
            try:
                if call.deadline is NEVER:
                    response = await self.inner.complete(call.request)
                else:
                    response = await call.deadline.wait_for(self.inner.complete, call.request)
                check_response(response, call.request, self._provider)
            except BaseException as error:
                self._record(call, error=error)
                if not isinstance(error, Exception):
                    raise
                self._plan_retry(call, error)
            else:
                self._record(call, response)
                call.pace.put_back(call.retries)
                return call.told_of_attempts(response)

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(self._batches(request))

    async def _batches(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        call = self._begin(request)
        shown = 0  # chunks without content that the caller has got: he gets none of them twice
        while True:
            if call.delay is not None or call.pace.closed_until:
                await self._wait(call)
            self._start_attempt(call)
            last: StreamChunk | None = None
            begun = False
            repeated = shown
            pieces: list[str] = []
            beside = 0
            try:
                async with open_batches(self.inner, call.request) as batches:
                    async for batch in call.deadline.iterate(batches):
                        for last in batch:
                            if last.text:
                                pieces.append(last.text)
                            else:
                                beside += written_beside_text(last)
                        if not begun:
                            empty = _before_content(batch)
                            begun = empty < len(batch)
                            skipped = min(empty, repeated)
                            repeated -= skipped
                            shown += empty - skipped
                            batch = batch[skipped:]  # noqa: PLW2901 - what is left of it
                        if last is not None and last.response is not None:
                            batch[-1] = call.told_in_chunk(last, last.response)
                        if batch:
                            yield batch
                self._check_ended(call, last)
            except BaseException as error:
                answer = last if isinstance(last, StreamChunk) and last.is_final else None
                characters = beside + sum(map(len, pieces))
                self._record(call, answer=answer, error=error, characters=characters)
                if not isinstance(error, Exception):
                    if answer is not None or (begun and isinstance(error, GeneratorExit)):
                        call.pace.put_back(call.retries)
                    raise
                # It was whole before the deadline came.
                if answer is not None and isinstance(error, DeadlineExceededError):
                    call.pace.put_back(call.retries)
                    return
                if begun:
                    self._raise_broken(call, error, "".join(pieces))
                self._plan_retry(call, error)
            else:
                self._record(call, answer=last, characters=beside + sum(map(len, pieces)))
                call.pace.put_back(call.retries)
                return

    def _begin(self, request: LLMRequest) -> _Call:
        request, context = with_context(request)
        context.accounted = True
        pace = self._paces[request.model or self.default_model]
        at = context.deadline
        deadline = NEVER if at is None else Deadline(at, self._clock, self._timeout)
        return _Call(request, context, pace, deadline)

    def _start_attempt(self, call: _Call) -> None:
        """Ask whether the deadline has come, and the breaker whether it still agrees."""
        context = call.context
        try:
            call.deadline.check()
            if context.admission is not None:
                context.admission.check()
        except BaseException as error:
            call.not_tried(error)
            raise
        call.attempts += 1
        call.entries = len(context.entries)
        call.started = self._clock()

    async def _wait(self, call: _Call) -> None:
        """Wait for what is to be waited for before the next attempt."""
        began = self._clock()
        try:
            await self._wait_for_turn(call)
        except BaseException as error:
            call.not_tried(error)
            raise
        finally:
            call.context.waited += self._clock() - began

    async def _wait_for_turn(self, call: _Call) -> None:
        pace = call.pace
        patience = self._retry_after_cap
        if call.delay is not None:
            if call.gate:
                patience -= call.delay
                await self._wait_at_gate(call, call.delay)
                pace.reopen(call.gate)
                call.gate = 0.0
            else:
                await self._sleep(call.delay)
            call.delay = None
        while gate := pace.closed_until:
            left = gate - self._clock()
            if left > 0:
                if left > patience or left >= call.deadline.left():
                    raise self._held_back(call, left)
                patience -= left
                await self._wait_at_gate(call, left)
            pace.reopen(gate)

    async def _wait_at_gate(self, call: _Call, seconds: float) -> None:
        """Whoever finds others waiting starts up to `base_delay` after them, not all at once."""
        if call.pace.join_queue():  # of the time that is left, one half is for the attempt
            spread = min(self._base_delay, (call.deadline.left() - seconds) / 2)
            seconds += self._random() * max(0.0, spread)
        try:
            await self._sleep(seconds)
        finally:
            call.pace.leave_queue()

    def _plan_retry(self, call: _Call, raised: Exception) -> None:
        """Settle when the next attempt starts, or raise what the caller gets."""
        error = translate(raised, provider=self._provider, model=call.request.model)
        if not isinstance(error, ProviderError):
            raise call.final(error)
        self._close_gate(call, error)
        delay = max(self._backoff(call.attempts), _seconds_asked(error))
        if not self._may_retry(call, error, delay):
            raise call.final(error)
        call.delay = delay
        status = "" if error.status is None else f" (status {error.status})"
        call.failures += (f"{type(error).__name__}{status}",)

    def _may_retry(self, call: _Call, error: ProviderError, delay: float) -> bool:
        admission = call.context.admission
        probe = admission is not None and admission.probe
        if not error.retryable or call.attempts >= (1 if probe else self._max_attempts):
            return False
        if _seconds_asked(error) > self._retry_after_cap:
            reason = (
                f"the server asks for more than the {self._retry_after_cap:g} s that are waited"
            )
        elif call.deadline.left() <= 0:
            return False
        elif delay >= call.deadline.left():
            reason = f"the call's deadline comes before the {delay:.3g} s to wait are over"
        elif call.context.reservation is not None and not call.context.reservation.extend():
            reason = "a budget does not have enough left for another attempt"
        elif not call.pace.take_retry():
            reason = "too many retries of late did not help, and the budget for them is used up"
        else:
            call.retries += 1
            return True
        _note(error, f"Not tried again: {reason}.")
        return False

    def _raise_broken(self, call: _Call, raised: Exception, text: str) -> None:
        """Raise what the caller of a stream gets that broke after its first content."""
        if isinstance(raised, ProviderError):
            self._close_gate(call, raised)
        error = broken_stream(
            raised, text, provider=self._provider, model=call.request.model or self.default_model
        )
        raise call.final(error)

    def _check_ended(self, call: _Call, last: StreamChunk | None) -> None:
        if last is None or not last.is_final:
            raise StreamInterruptedError(
                "The provider's stream ended without its final chunk: the answer is not complete.",
                provider=self._provider,
                model=call.request.model,
                kind="truncated",
            )

    def _close_gate(self, call: _Call, error: ProviderError) -> None:
        seconds = _seconds_asked(error)
        said = error.__cause__ if isinstance(error, StreamInterruptedError) else error
        if seconds and isinstance(said, RateLimitError):
            call.gate = self._clock() + min(seconds, LONGEST_GATE_SECONDS)
            call.pace.close(call.gate)

    def _held_back(self, call: _Call, seconds: float) -> RateLimitError:
        return RateLimitError(
            f"Not sent: the provider has refused calls to this model for another {seconds:.3g} s, "
            "which is longer than this call may wait. Try again then.",
            provider=self._provider,
            model=call.request.model,
            retry_after=seconds,
        )

    def _backoff(self, attempts: int) -> float:
        exponent = min(attempts - 1, 64)  # beyond it the cap has long been reached
        return self._random() * min(self._max_delay, self._base_delay * 2.0**exponent)

    def _record(
        self,
        call: _Call,
        answer: LLMResponse | StreamChunk | None = None,
        *,
        error: BaseException | None = None,
        characters: int = 0,
    ) -> None:
        if len(call.context.entries) == call.entries:
            record_attempt(
                call.context,
                call.request,
                provider=self._provider,
                model=call.request.model or self.default_model,
                seconds=self._clock() - call.started,
                answer=answer,
                error=error,
                characters=characters,
            )


class _Call:
    """One call on its way through its attempts."""

    attempts = 0
    retries = 0
    delay: float | None = None
    gate = 0.0
    """The time until which this call's own 429 has closed the gate."""
    entries = 0
    started = 0.0
    failures: tuple[str, ...] = ()
    """No exceptions, which hold their frames, and these this call: a cycle."""

    def __init__(
        self, request: LLMRequest, context: CallContext, pace: Pace, deadline: Deadline
    ) -> None:
        self.request = request  # immutable: every attempt sends the same
        self.context = context
        self.pace = pace
        self.deadline = deadline
        self._first_entry = len(context.entries)

    def final(self, error: AetherError) -> AetherError:
        """The error that the caller gets, which tells of the attempts before it."""
        if isinstance(error, ProviderError):
            error.attempts = len(self.context.entries) - self._first_entry
        if self.failures:
            _note(error, f"Attempts before this failed with: {', '.join(self.failures)}.")
        return error

    def not_tried(self, error: BaseException) -> None:
        """This error has come before the attempt that was to be made."""
        if self.attempts:
            self.pace.give_back()
        if isinstance(error, AetherError):
            self.final(error)

    def told_of_attempts(self, response: LLMResponse) -> LLMResponse:
        """The response that the caller gets. Its own attempt may have no entry yet."""
        sent = max(len(self.context.entries), self.entries + 1) - self._first_entry
        return response if sent == 1 else response.model_copy(update={"attempts": sent})

    def told_in_chunk(self, chunk: StreamChunk, response: LLMResponse) -> StreamChunk:
        """The final chunk, with its response, that the caller gets."""
        told = self.told_of_attempts(response)
        return chunk if told is response else dataclasses.replace(chunk, response=told)


def _before_content(batch: Batch) -> int:
    """How many chunks stand before the first that has content, or is final."""
    for count, chunk in enumerate(batch):
        if chunk.has_content or chunk.is_final:
            return count
    return len(batch)


def _note(error: AetherError, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):  # the same error may be raised many times
        error.add_note(note)


def _seconds_asked(error: ProviderError) -> float:
    """The server's `retry_after`, or 0 where it is none that can be waited for."""
    seconds = error.retry_after
    return seconds if isinstance(seconds, int | float) and seconds > 0 else 0.0
