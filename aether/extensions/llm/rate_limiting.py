"""Rate limit: calls start no faster than the user, and the provider, allow; the others wait.

It must not know why a call is made, nor whether it is made again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from aether.errors import DeadlineExceededError, RateLimitError, StreamInterruptedError
from aether.extensions.llm._rate import Need, Rate
from aether.extensions.llm._rate_headers import limits_told
from aether.extensions.llm._rate_queue import NoPlaceError, Place, RateQueue
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.per_model import PerModel
from aether.llm.policies import RateLimit
from aether.llm.sizing import estimate_input_tokens, estimate_tokens, written_beside_text
from aether.llm.wrapper import ProviderWrapper, with_context

__all__ = ["RateLimitingProvider"]

LOCAL = "local"
"""The `kind` of an error that no server has sent."""


class RateLimitingProvider(ProviderWrapper):
    """Starts calls in the order in which they come, no faster than `limit` says. Stands inside
    retry, so that each attempt counts.

    Each model has a rate of its own. Requests and tokens flow in at the rate of a minute, all the
    time: at most what a second brings, and at least one call, may start at once; in any longer time
    no more than that and what the time brings. A call waits until those before it have started,
    however much less it needs. Without a need to wait it starts at once.

    How many tokens a call takes is estimated: its input, and `max_tokens` or else the average of
    the answers so far. When it has ended, however that was, the estimate is corrected by what was
    used, up or down. A call that needs more than there can be at once starts when all of it is
    there, and those behind it wait for the rest: none waits for ever.

    - What the provider says of its limits in the headers of an answer is kept to as well, where it
      is sure to be a minute's: a minute's worth may start at once, as far as it says that this is
      left. It never makes calls faster than `limit` says.
    - A 429 halves the rate of requests, however many calls of the same time get one; from each
      success on it rises, in some minutes to what it was. If it names a time, no call starts before
      that time, or for a minute if it is more: to wait for longer is for retry to decide.
    - `limit.max_waiting` calls wait at most; one more is a `RateLimitError` at once, as is a
      `DeadlineExceededError` for one whose deadline comes before its turn. Nothing was sent then:
      `attempts` is 0, `kind` is `local` or `deadline`, and the ledger has no entry.

    A call whose circuit has opened while it waited is not started, and takes nothing. A stream
    counts when it starts, and holds nothing while it runs. Cancelling a call that waits
    ends its wait at once, and those behind it move up. Event loops and threads may share it.

    `provider` is the name for messages; `clock` is monotonic, in seconds, as is `context.deadline`;
    `timeout` is as in `asyncio`.
    """

    def __init__(
        self,
        inner: LLMProvider,
        limit: RateLimit | None = None,
        *,
        provider: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout: Callable[[float], asyncio.Timeout] = asyncio.timeout,
    ) -> None:
        super().__init__(inner)
        if limit is None:
            limit = RateLimit()
        elif not isinstance(limit, RateLimit):
            raise TypeError(
                "limit is a RateLimit, such as RateLimit(requests_per_minute=60), "
                f"not {type(limit).__name__}"
            )
        self._provider = provider
        self._limit = limit
        self._clock = clock

        def queue(_: str | None) -> RateQueue:
            rate = Rate(limit.requests_per_minute, limit.tokens_per_minute, clock())
            return RateQueue(rate, max_waiting=limit.max_waiting, clock=clock, timeout=timeout)

        self._queues: PerModel[RateQueue] = PerModel(queue)

    def waiting(self, model: str | None = None) -> int:
        """How many calls to `model` wait."""
        return self._queues[model or self.default_model].waiting

    def settings(self) -> str:
        limit = self._limit
        named = (("requests", limit.requests_per_minute), ("tokens", limit.tokens_per_minute))
        figures = [f"{figure:.15g} {name}" for name, figure in named if figure is not None]
        allowed = f"{' and '.join(figures)} a minute" if figures else "what the provider says"
        return f"{allowed}; at most {limit.max_waiting} calls wait"

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        call = await self._start(request)
        try:
            response = await self.inner.complete(call.request)
        except BaseException as error:
            call.end(error=error)
            raise
        call.end(answer=response)
        return response

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(self._batches(request))

    async def _batches(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        call = await self._start(request)
        last: StreamChunk | None = None
        characters = 0
        try:
            async with open_batches(self.inner, call.request) as batches:
                async for batch in batches:
                    for last in batch:
                        characters += len(last.text) or written_beside_text(last)
                    yield batch
        except BaseException as error:
            call.end(answer=last, error=error, characters=characters)
            raise
        call.end(answer=last, characters=characters)

    async def _start(self, request: LLMRequest) -> _Call:
        request, context = with_context(request)
        queue = self._queues[request.model or self.default_model]
        need = Need(1)
        if queue.counts_tokens:
            need.input_tokens = estimate_input_tokens(request)
            need.output_tokens = request.max_tokens or queue.output
        context.queued = True
        try:
            started = queue.start(need, context.deadline)
            if isinstance(started, Place):
                began = self._clock()
                admission = context.admission
                agreed = None if admission is None else admission.check
                try:
                    started = await queue.wait(started, agreed)
                finally:
                    context.waited += self._clock() - began
        except NoPlaceError as refusal:
            raise self._refusal(refusal, request) from None
        context.queued = False
        return _Call(request, context, queue, need, started)

    def _refusal(
        self, refusal: NoPlaceError, request: LLMRequest
    ) -> DeadlineExceededError | RateLimitError:
        model = request.model or self.default_model
        if refusal.late:
            return DeadlineExceededError(
                f"Not sent: {refusal.waiting} calls to this model wait before this one, whose turn "
                f"comes in {refusal.seconds:.3g} s or later, after its deadline.",
                provider=self._provider,
                model=model,
                attempts=0,
                kind="deadline",
            )
        return RateLimitError(
            f"Not sent: {refusal.waiting} calls to this model wait for the rate limit already, as "
            f"many as may. The next turn that is free comes in {refusal.seconds:.3g} s or later: "
            "come back then, or raise RateLimit(max_waiting=).",
            provider=self._provider,
            model=model,
            attempts=0,
            retryable=False,
            kind=LOCAL,
        )


class _Call:
    """One call that has started. It must be ended."""

    __slots__ = (
        "_context",
        "_first_entry",
        "_listener",
        "_need",
        "_queue",
        "_round",
        "_unseen",
        "request",
    )

    def __init__(
        self,
        request: LLMRequest,
        context: CallContext,
        queue: RateQueue,
        need: Need,
        round_: int,
    ) -> None:
        self.request = request
        self._context = context
        self._queue = queue
        self._need = need
        self._round = round_
        self._unseen = True
        self._first_entry = len(context.entries)
        self._listener = context.on_headers
        context.on_headers = self._hear

    def end(
        self,
        *,
        answer: object = None,
        error: BaseException | None = None,
        characters: int = 0,
    ) -> None:
        """It came back with `answer`, a response or a stream's last chunk, or with `error`."""
        self._context.on_headers = self._listener
        if self._unseen:
            self._queue.seen(self._need)
        whole = isinstance(answer, LLMResponse) or (
            isinstance(answer, StreamChunk) and answer.is_final
        )
        said = error.__cause__ if isinstance(error, StreamInterruptedError) else error
        if isinstance(said, RateLimitError) and said.kind != LOCAL:
            self._queue.refused(self._round, _seconds(said.retry_after))
        elif whole:
            self._queue.succeeded(self._round)
        output = _count(getattr(_whole(answer), "output_tokens", None)) if whole else None
        if output is not None:
            self._queue.learn_output(output)
        self._queue.correct(self._need, self._used(answer if whole else None, characters))

    def _hear(self, headers: Mapping[str, str]) -> None:
        if self._listener is not None:
            self._listener(headers)
        if self._unseen:
            self._unseen = False
            self._queue.seen(self._need)
        told = limits_told(headers)
        if told:
            self._queue.learn(told)

    def _used(self, answer: object, characters: int) -> float | None:
        """The tokens that it used, as well as they are known."""
        entries = self._context.entries[self._first_entry :]
        if any(entry.state in ("pending", "unknown") for entry in entries):
            return None
        if entries:  # of attempts that were refused: 0
            return sum((entry.input_tokens or 0) + (entry.output_tokens or 0) for entry in entries)
        if answer is None and not characters:
            return None
        told = _whole(answer)
        before, after = (
            _count(getattr(told, name, None)) for name in ("input_tokens", "output_tokens")
        )
        return (self._need.input_tokens if before is None else before) + (
            estimate_tokens(characters) if after is None else after
        )


def _whole(answer: object) -> object:
    """The response itself, where a chunk has it."""
    response = getattr(answer, "response", None)
    return answer if response is None else response


def _count(told: object) -> int | None:
    """What a third party's provider tells may be no count."""
    return told if isinstance(told, int) and told >= 0 else None


def _seconds(told: object) -> float | None:
    return told if isinstance(told, int | float) and 0 < told < math.inf else None
