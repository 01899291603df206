"""Hedging: an answer that is late is asked for a second time, and the quicker one counts.

It must not know why an answer is late, what it costs, nor what its providers are made of.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from aether.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    ProviderError,
    StreamInterruptedError,
)
from aether.extensions.llm._branches import (
    Branch,
    close_all,
    for_another_provider,
    told_failure,
)
from aether.extensions.llm._hedged_call import HedgedCall
from aether.extensions.llm._lateness import Latencies, Share
from aether.extensions.llm._racing import CallLater, Race
from aether.llm.contracts import LLMProvider
from aether.llm.failures import check_response, translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.per_model import PerModel
from aether.llm.policies import Hedge
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper, with_context

__all__ = ["HedgingProvider"]

T = TypeVar("T")

_log = logging.getLogger("aether.llm")

MOST_WITHOUT_CONTENT = 100
"""Of the chunks before the content, which say nothing, the latest are kept, and no more."""


class HedgingProvider(ProviderWrapper):
    """Makes a call a second time when its answer is late, and hands out the one that comes first.

    A call is late if nothing has come `hedge.after` seconds after its beginning: no content of a
    stream, no answer of a call that is no stream. Without `hedge.after` it is late when 95 of 100
    calls to its model had brought something, of the latest 100 that were answered, streams and
    others apart; of fewer than 20 nothing is concluded, and no call is late.

    The second call goes to `other`, which answers with its own default model, and gets neither
    `extra_body` nor `extra_headers`; without `other` to `inner`, for `hedge.model` if there is one.
    What comes first counts: a response, or a stream with content. The other call is then cancelled,
    and has ended before anything is handed out. If one fails, the other is waited for; if both do,
    the first one's error is raised, with a note of the second's. If the first fails before a second
    was made, its error is raised at once.

    At most `hedge.max_share` of the calls are made twice: no more than that share of the calls so
    far, at any time, of which the share of 200 calls may be saved up. None is made twice whose
    deadline comes before the second could have brought anything.

    Both calls count: each goes through its whole stack, which takes from a budget and asks a
    breaker, and each has its attempts in the call's ledger, those of the answer last. Where a
    budget or a breaker refuses the second, there is none. `attempts` of the response and of the
    error counts those of both.

    The first call runs as if it were alone, in the task of its caller, and the second in one of its
    own. Cancelling the call, or leaving its stream, ends both at once. `clock` is monotonic, in
    seconds, as is the deadline; `call_later` is as that of the running loop, if it is not given.
    """

    def __init__(
        self,
        inner: LLMProvider,
        hedge: Hedge,
        *,
        other: LLMProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        super().__init__(inner)
        if not isinstance(hedge, Hedge):
            raise ConfigurationError(f"hedge is a Hedge, such as Hedge(after=2.0), not {hedge!r}.")
        if other is not None and (isinstance(other, type) or not isinstance(other, LLMProvider)):
            raise ConfigurationError(
                "other is a provider, which has `async def complete(self, request)`, not "
                f"{other!r}. A model's name goes to Hedge(model=)."
            )
        self.other = other
        self._hedge = hedge
        self._clock = clock
        self._call_later = call_later
        self._share = Share(hedge.max_share)
        self._latencies: PerModel[tuple[Latencies, Latencies]] = PerModel(
            lambda _: (Latencies(), Latencies())
        )

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        call = self._begin(request, streamed=False)
        if call.after is None:
            response = await self.inner.complete(call.request)
            call.came()
            return response
        race: Race[LLMResponse] = self._race(call, self._answer_second)
        try:
            first = await self._answer_first(call, race)
            response = await self._second_instead(call, race) if first is None else first
            call.came()
            await race.stop()
            response = call.told(response)
        except ProviderError as error:
            call.count_attempts(error)
            raise
        finally:
            await _finish(call, race)
        return response

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        call = self._begin(request, streamed=True)
        if call.after is None:
            async with open_stream(self.inner, call.request) as chunks:
                async for chunk in chunks:
                    if call.latencies is not None and (chunk.has_content or chunk.is_final):
                        call.came()
                    yield chunk
            return
        race: Race[StreamChunk] = self._race(call, self._stream_second)
        try:
            async with open_stream(self.inner, call.request) as chunks:
                head = await self._stream_first(call, race, chunks)
                if head is not None:
                    try:
                        await race.stop()
                        call.came()
                        for chunk in head:
                            yield call.passed_on(chunk)
                        async for chunk in chunks:
                            call.first.see(chunk)
                            yield call.passed_on(chunk)
                    except BaseException as error:
                        call.end_first(error)
                        raise
                    call.end_first()
            if head is None:
                item: StreamChunk | None = await self._second_instead(call, race)
                call.came()
                while item is not None:
                    yield call.passed_on(item)
                    item = await race.next_item()
                call.check_second()
        except ProviderError as error:
            call.count_attempts(error)
            raise
        finally:
            await _finish(call, race)

    def settings(self) -> str:
        hedge = self._hedge
        after = "the 95th percentile" if hedge.after is None else f"{hedge.after:g} s"
        model = "" if hedge.model is None else f", of {hedge.model}"
        return f"after {after}, at most {hedge.max_share:.3g} of the calls{model}"

    async def aclose(self) -> None:
        await close_all((self.inner,) if self.other is None else (self.inner, self.other))

    def _begin(self, request: LLMRequest, *, streamed: bool) -> HedgedCall:
        request, context = with_context(request)
        call = HedgedCall(request, context, Branch(self.inner, context, self._clock), self._clock)
        allowed = self._share.count_call()
        after = self._hedge.after
        if after is None:
            call.latencies = self._latencies[request.model or self.default_model][streamed]
            after = call.latencies.late()
        if allowed and after is not None and call.time_left() > after:
            call.after = after
        return call

    def _race(
        self, call: HedgedCall, second: Callable[[HedgedCall, Race[T]], Coroutine[Any, Any, None]]
    ) -> Race[T]:
        return Race(partial(second, call), after=call.after or 0.0, call_later=self._call_later)

    async def _answer_first(self, call: HedgedCall, race: Race[LLMResponse]) -> LLMResponse | None:
        """The first one's answer; `None` if it has failed, or the second has one."""
        try:
            async with race:
                response = await self.inner.complete(call.request)
                check_response(response, call.request)
        except BaseException as error:
            call.end_first(error, lost=race.is_lost)
            if not isinstance(error, Exception):
                raise
            call.failure = error
            return None
        call.end_first(answer=response)
        return response

    async def _stream_first(
        self, call: HedgedCall, race: Race[StreamChunk], chunks: AsyncIterator[StreamChunk]
    ) -> Iterable[StreamChunk] | None:
        """The first one's chunks up to its content; `None` as above."""
        try:
            async with race:
                return await _up_to_content(chunks, call.first)
        except BaseException as error:
            call.end_first(error, lost=race.is_lost)
            if not isinstance(error, Exception):
                raise
            call.failure = error
            return None

    async def _answer_second(self, call: HedgedCall, race: Race[LLMResponse]) -> None:
        second = self._set_out(call)
        if second is None:
            return
        try:
            response = await second.provider.complete(call.sent)
            check_response(response, call.sent)
        except BaseException as error:
            self._end_second(call, error)
            raise
        second.end(call.sent, answer=response)
        race.overtake()
        await race.hand_over(response)

    async def _stream_second(self, call: HedgedCall, race: Race[StreamChunk]) -> None:
        second = self._set_out(call)
        if second is None:
            return
        try:
            async with open_stream(second.provider, call.sent) as chunks:
                head = await _up_to_content(chunks, second)
                race.overtake()
                for chunk in head:
                    await race.hand_over(chunk)
                async for chunk in chunks:
                    second.see(chunk)
                    await race.hand_over(chunk)
        except BaseException as error:
            self._end_second(call, error)
            raise
        second.end(call.sent)

    def _set_out(self, call: HedgedCall) -> Branch | None:
        """The first is late: begin the second call, if there is to be one."""
        least = 0.0 if call.latencies is None else call.latencies.least()
        if call.time_left() <= least or not self._share.take():
            return None
        if call.reservation is not None and not call.reservation.extend():
            self._share.give_back()
            return None
        context = call.context.branch()
        context.reservation = call.reservation
        if self.other is not None:
            call.sent = for_another_provider(call.request, context)
        else:
            model = self._hedge.model or call.request.model
            call.sent = call.request.replace(context=context, model=model)
        call.second = Branch(self.other or self.inner, context, self._clock)
        return call.second

    def _end_second(self, call: HedgedCall, error: BaseException) -> None:
        second = call.second
        if second is None:
            return
        second.end(call.sent, error=error)
        if isinstance(error, BudgetExceededError | CircuitOpenError) and not second.attempts:
            self._share.give_back()
            call.refused = True
        elif isinstance(error, Exception):
            _log.warning("the second call of a late one failed: %s", type(error).__name__)

    async def _second_instead(self, call: HedgedCall, race: Race[T]) -> T:
        """What the second has, where the first has nothing; if that is nothing, too, the first
        one's error is raised.
        """
        second = call.second
        if second is not None:
            try:
                item = await race.next_item()
            except Exception as error:  # noqa: BLE001 - told with the first one's
                if not call.refused:
                    call.note_second(told_failure(second.provider, translate(error)))
            else:
                if item is not None:
                    call.second_won = True
                    call.failure = None
                    return item
        failure, call.failure = call.failure, None
        try:
            raise failure or StreamInterruptedError("Neither of two calls has answered.")
        finally:
            del failure  # else it would hold this frame, and the frame it


async def _finish(call: HedgedCall, race: Race[Any]) -> None:
    try:
        await race.stop()
    finally:
        call.settle()


async def _up_to_content(chunks: AsyncIterator[StreamChunk], branch: Branch) -> deque[StreamChunk]:
    """The chunks as far as the first that says something."""
    head: deque[StreamChunk] = deque(maxlen=MOST_WITHOUT_CONTENT)
    async for chunk in chunks:
        branch.see(chunk)
        head.append(chunk)
        if chunk.has_content or chunk.is_final:
            return head
    raise StreamInterruptedError(
        "The provider's stream ended without its final chunk: the answer is not complete.",
        kind="truncated",
    )
