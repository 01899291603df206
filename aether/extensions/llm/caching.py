"""Caching: an answer that was given before is given again, and equal calls at once are one call.

It must not know where answers are kept, what they cost, nor who else was asked for one.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeGuard

from aether.errors import ClientClosedError, ConfigurationError, DeadlineExceededError
from aether.extensions.llm._canonical import (
    read_answer,
    replayed,
    request_key,
    write_answer,
)
from aether.extensions.llm._flights import Flight, Flights
from aether.extensions.llm._shares import (
    Result,
    concerns_all,
    delta_of,
    error_of,
    final_of,
    response_of,
)
from aether.llm.caching import ResponseCache
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.deadline import Deadline
from aether.llm.failures import check_response
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper, layers_of, with_context

__all__ = ["CachingProvider", "identity_of"]

_log = logging.getLogger("aether.llm")

_MOST_TOLD = 100
_WHO_ANSWERS = ("base_url", "api", "api_version", "model_source")


class CachingProvider(ProviderWrapper):
    """Answers from `cache` what was answered before. To be put outside of what counts costs.

    Looked up and kept are the answers to requests that are deterministic: with a `temperature` of 0
    that somebody chose, without `extra_body`, and without content that is only named by a URL. The
    call's option `cache` (`context.cache`) beats that: `True` takes and keeps whatever answer there
    is, a text does so under this key, `False` does neither.

    The key is a hash of all that is sent and of who is asked: the `provider`'s name, the model and
    the `identity`, which tells apart what answers differently under one name; without it, what
    `identity_of(inner)` says. A key of the caller's stands in place of the messages up to the first
    that a model has written: the transcript after it, the tools, the schema and all options still
    count, so that no turn of a tool loop gets another turn's answer.

    Kept is an answer that is whole (`stop`, or `tool_calls` with calls), has content, and comes
    from the provider and model that were asked. What cannot be written as JSON is not kept.

    An answer from the cache has `cached` set and 0 `attempts`; its counts and its `request_id` are
    those of the call that brought it. A stream of it has the deltas that came then, or one of each
    kind, and then the final chunk. Whatever kept it, `complete` and `stream` find it.

    Equal calls at once share one, within an event loop: each reader of a stream gets all of it,
    from the beginning. The ledger's entries are those of the caller who began it, and his budgets
    pay; the answers of the others are `cached`. A caller who leaves, or whose deadline comes, stops
    nobody else; when the last one has gone, the call is cancelled. It has no deadline itself.
    If it fails, all get the error, but for what concerns the first caller alone (his budget, his
    input): then the others make a call of their own.

    A cache that fails does not fail the call, and is logged once; but a `ConfigurationError` or
    `ClientClosedError` of a look-up comes out. `aclose` leaves the cache open. `clock` is
    monotonic, in seconds; `timeout` is as in `asyncio`.
    """

    def __init__(
        self,
        inner: LLMProvider,
        cache: ResponseCache,
        *,
        provider: str | None = None,
        identity: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout: Callable[[float], asyncio.Timeout] = asyncio.timeout,
    ) -> None:
        if isinstance(cache, type) or not isinstance(cache, ResponseCache):
            raise ConfigurationError(
                "A cache is an instance with async get, put, delete and clear, such as "
                f"InMemoryCache(), not {cache!r}."
            )
        super().__init__(inner)
        self.cache = cache
        self._provider = provider
        self._identity = (provider, identity_of(inner) if identity is None else identity)
        self._clock = clock
        self._timeout = timeout
        self._flights: Flights[StreamChunk, Result] = Flights()
        self._told: set[str] = set()

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        key = self._key(request)
        if key is None:
            return await self.inner.complete(request)
        call = self._begin(request, key)
        try:
            return await self._wait_for_answer(call)
        except DeadlineExceededError as error:
            call.tell_attempts(error)
            raise

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        key = self._key(request)
        if key is not None:
            return self._read_along(self._begin(request, key))
        stream = getattr(self.inner, "stream", None)
        if stream is None or inspect.iscoroutinefunction(stream):
            return super().stream(request)
        chunks: AsyncGenerator[StreamChunk, None] = stream(request)
        return chunks

    async def _wait_for_answer(self, call: _Call) -> LLMResponse:
        while True:
            flight, first = self._flights.join(call.key, partial(self._call_inner, call))
            try:
                while await self._has_news(flight, call, len(flight.items)):
                    pass
                if flight.error is None:
                    response = response_of(
                        flight.result, call.request, first=first, alone=flight.is_last_reader
                    )
                    if response is not None:
                        return response
                elif first or concerns_all(flight.error):
                    raise flight.error if first else error_of(flight.error)
            finally:
                await flight.leave()

    async def _read_along(self, call: _Call) -> AsyncGenerator[StreamChunk, None]:
        shown = 0
        try:
            while True:
                flight, first = self._flights.join(call.key, partial(self._stream_inner, call))
                try:
                    while shown < len(flight.items) or await self._has_news(flight, call, shown):
                        for chunk in flight.items[shown:]:
                            shown += 1
                            yield delta_of(chunk)
                    if flight.error is None:
                        final = final_of(
                            flight.result, call.request, first=first, alone=flight.is_last_reader
                        )
                        if final is not None:
                            yield final
                        return
                    if first or shown or concerns_all(flight.error):
                        raise flight.error if first else error_of(flight.error)
                finally:
                    await flight.leave()
        except DeadlineExceededError as error:
            call.tell_attempts(error)
            raise

    def settings(self) -> str:
        return type(self.cache).__name__  # its repr may hold an address with a password

    def _key(self, request: LLMRequest) -> str | None:
        """The key of a request whose answer may be looked up and kept."""
        asked = None if request.context is None else request.context.cache
        if asked is False or not (asked or _is_deterministic(request)):
            return None
        return request_key(
            request,
            model=request.model or self.default_model,
            identity=self._identity,
            name=asked if isinstance(asked, str) else None,
        )

    def _begin(self, request: LLMRequest, key: str) -> _Call:
        request, context = with_context(request)
        deadline = Deadline(context.deadline, self._clock, self._timeout)
        return _Call(key, request, context, deadline, len(context.entries))

    async def _has_news(self, flight: _Flight, call: _Call, shown: int) -> bool:
        """Wait for more than was shown. `False`: all has come."""
        if flight.ended:
            return len(flight.items) > shown
        try:
            await call.deadline.wait_for(flight.news)
        except DeadlineExceededError as error:
            if flight.result is not None:  # it is there, and only being kept
                return len(flight.items) > shown
            error.provider, error.model = self._provider, call.request.model
            text = _text_of(flight.items[:shown])
            if text:
                error.partial = LLMResponse(text=text, model=call.request.model or "")
            raise
        return True

    async def _call_inner(self, call: _Call, flight: _Flight) -> None:
        if await self._found(call, flight):
            return
        with _sent(call) as request:
            response = await self.inner.complete(request)
        check_response(response, request, provider=self._provider)
        for chunk in replayed(response):
            flight.add(chunk)
        await self._settle(call, flight, response, response, None)

    async def _stream_inner(self, call: _Call, flight: _Flight) -> None:
        if await self._found(call, flight):
            return
        final: StreamChunk | None = None
        with _sent(call) as request:
            async with open_stream(self.inner, request) as chunks:
                async for chunk in chunks:
                    if final is not None:
                        continue  # nothing may follow the final chunk; read on to the end
                    if chunk.is_final:
                        final = chunk
                        if chunk.has_content:
                            flight.add(StreamChunk(chunk.text, chunk.reasoning, chunk.tool_call))
                    else:
                        flight.add(chunk)
        if final is not None:
            bare = dataclasses.replace(final, text="", reasoning=None, tool_call=None)
            await self._settle(call, flight, bare, final.response, flight.items)

    async def _found(self, call: _Call, flight: _Flight) -> bool:
        """Whether the answer was kept: then it is the flight's."""
        try:
            text = await self.cache.get(call.key)
        except (ConfigurationError, ClientClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - a cache may be anybody's: the call goes on without it
            self._tell_of_failure("looking up", error)
            return False
        kept = None if text is None else read_answer(call.key, text)
        if kept is None:
            return False
        for chunk in kept.chunks():
            flight.add(chunk)
        flight.result = Result(None, kept.response, found=True)
        return True

    async def _settle(
        self,
        call: _Call,
        flight: _Flight,
        raw: object,
        response: LLMResponse | None,
        streamed: Sequence[StreamChunk] | None,
    ) -> None:
        """Give the flight its result: `raw` to who began it, copies of the response to others."""
        restarted = streamed is not None and any(chunk.restart for chunk in streamed)
        written = None
        if _is_whole(response) and not restarted and self._is_from_who_was_asked(response, call):
            written = write_answer(call.key, response, streamed)
        if written is not None:
            text, copied = written
            flight.result = Result(raw, copied)
            try:
                await self.cache.put(call.key, text)
            except Exception as error:  # noqa: BLE001 - as above, and the answer is there
                self._tell_of_failure("keeping", error)
        else:
            if isinstance(response, LLMResponse) and flight.readers > 1:
                response = response.model_copy(deep=True)
            flight.result = Result(raw, response)

    def _is_from_who_was_asked(self, response: LLMResponse, call: _Call) -> bool:
        """Whether nothing says that another provider or model was asked, too."""
        attempts = call.context.entries[call.first_entry :]
        names = {self._provider, response.provider, *(entry.provider for entry in attempts)}
        if len(names - {None}) > 1:
            told = ", ".join(sorted(name for name in names if name is not None))
            self._tell_once(logging.INFO, f"an answer was not kept: who was asked were {told}")
            return False
        model = call.request.model or self.default_model
        return model is None or all(entry.requested_model in (None, model) for entry in attempts)

    def _tell_of_failure(self, what: str, error: Exception) -> None:
        # Its type alone: the message of anybody's cache may hold an address with a password.
        name = type(error).__name__
        self._tell_once(
            logging.WARNING,
            f"{what} an answer in {type(self.cache).__name__} failed ({name}): calls go on without",
        )

    def _tell_once(self, level: int, what: str) -> None:
        if what not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(what)
            _log.log(level, "%s", what)


def identity_of(provider: LLMProvider) -> str:
    """What the provider at the centre of a stack says of who answers: its class, its endpoint (a
    `base_url`), its protocol (`api`, `api_version`), its file (`model_source`).

    One cache may serve clients of several of them, where one name means several models.
    """
    *_, centre = layers_of(provider)
    kind = type(centre)
    told = (getattr(centre, name, None) for name in _WHO_ANSWERS)
    return " ".join([f"{kind.__module__}.{kind.__qualname__}", *map(str, told)])


_Flight = Flight[StreamChunk, Result]


@dataclasses.dataclass(slots=True)
class _Call:
    key: str
    request: LLMRequest
    context: CallContext
    deadline: Deadline
    first_entry: int

    def tell_attempts(self, error: DeadlineExceededError) -> None:
        """How many requests were made, which is known when they have ended."""
        error.attempts = max(error.attempts, len(self.context.entries) - self.first_entry)


@contextmanager
def _sent(call: _Call) -> Iterator[LLMRequest]:
    """The request as it is sent for all who wait: without the deadline of the first of them."""
    context = copy.copy(call.context)  # its entries are the same list
    context.deadline = None
    try:
        yield call.request.replace(context=context)
    finally:
        call.context.accounted = context.accounted


def _is_deterministic(request: LLMRequest) -> bool:
    """Whether the same request is given the same answer, as far as that can be told."""
    if request.temperature != 0 or request.temperature_is_default or request.extra_body:
        return False
    return not any(map(_names_content, request.messages))


def _names_content(message: Message) -> bool:
    """Whether something of it is elsewhere, and may be another thing tomorrow."""
    if isinstance(message.content, str):
        return False
    return any(getattr(part, "url", None) is not None for part in message.content)


def _is_whole(response: LLMResponse | None) -> TypeGuard[LLMResponse]:
    if not isinstance(response, LLMResponse):
        return False
    if response.finish_reason == "stop":
        return bool(response.message.content or response.tool_calls)
    return response.finish_reason == "tool_calls" and bool(response.tool_calls)


def _text_of(chunks: Sequence[StreamChunk]) -> str:
    """What stands: without what was void when an answer began anew."""
    begins = max((place for place, chunk in enumerate(chunks) if chunk.restart), default=0)
    return "".join(chunk.text for chunk in chunks[begins:])
