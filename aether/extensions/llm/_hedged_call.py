"""A call that may be made twice: what is known of the two, and what its caller is told of them.

It must not know when a second one is made, nor which of them is waited for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable

from aether.errors import ProviderError, StreamInterruptedError
from aether.extensions.llm._branches import Branch, note
from aether.extensions.llm._lateness import Latencies
from aether.llm.call import CallContext
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["HedgedCall"]


class HedgedCall:
    """One call, and what is known of the two that are made for it."""

    def __init__(
        self, request: LLMRequest, context: CallContext, first: Branch, clock: Callable[[], float]
    ) -> None:
        self.request = request
        self.context = context
        self.first = first
        """It stands in the caller's own context."""
        self.second: Branch | None = None
        """Since it was made."""
        self.sent = request
        """What the second is sent."""
        self.after: float | None = None
        """The seconds after which the call is late; `None`: it is not made twice."""
        self.latencies: Latencies | None = None
        """Where it is noted how long it takes, if that is noted."""
        self.reservation = context.reservation  # an inner layer puts its own in its place
        self.failure: Exception | None = None
        """How the first has failed."""
        self.refused = False
        """Whether a budget or a breaker did not let the second through."""
        self.second_won = False
        self._place = len(context.entries)
        self._clock = clock
        self._started = clock()

    def time_left(self) -> float:
        deadline = self.context.deadline
        return math.inf if deadline is None else deadline - self._clock()

    def came(self) -> None:
        """The first content has come, or the answer."""
        if self.latencies is not None:
            self.latencies.add(self._clock() - self._started)
            self.latencies = None

    def end_first(
        self,
        error: BaseException | None = None,
        *,
        answer: LLMResponse | None = None,
        lost: bool = False,
    ) -> None:
        """The first has ended. Whoever is outside keeps the ledger of a call that is alone."""
        if self.second is not None:
            if lost and isinstance(error, TimeoutError):
                error = asyncio.CancelledError()
            self.first.end(self.request, answer=answer, error=error)

    def check_second(self) -> None:
        """Refuse an end of the second one's stream that is none."""
        if self.second is None or not self.second.is_whole:
            raise StreamInterruptedError(
                "The provider's stream ended without its final chunk: the answer is not complete.",
                model=self.sent.model,
                kind="truncated",
            )

    def note_second(self, told: str) -> None:
        if self.failure is not None:
            note(self.failure, f"A second call failed, too: {told}")

    def settle(self) -> None:
        """Both have ended: put the second one's attempts into the ledger, before or behind those of
        the first, so that those of the answer are last.
        """
        self.failure = None  # it holds frames that hold this
        if self.second is not None:
            entries = self.context.entries
            place = len(entries) if self.second_won else self._place
            entries[place:place] = self.second.context.entries

    def told(self, response: LLMResponse) -> LLMResponse:
        """The response that the caller gets, with the attempts of the one that has lost."""
        if self.second is None:
            return response
        others = self.first.attempts if self.second_won else self.second.attempts
        if not others:
            return response
        return response.model_copy(update={"attempts": response.attempts + others})

    def count_attempts(self, error: ProviderError) -> None:
        """Let the error that the caller gets count those of both, which have ended."""
        if self.second is not None:
            error.attempts = max(error.attempts, self.first.attempts + self.second.attempts)

    def passed_on(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk that the reader gets."""
        told = None if chunk.response is None else self.told(chunk.response)
        return chunk if told is chunk.response else dataclasses.replace(chunk, response=told)
