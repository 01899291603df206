"""Taps between the layers of a stack: they pass all on, and tell the models what went by.

From outside in: one above the breaker, one between it and retry, one between retry and the adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from aether.errors import CircuitOpenError
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper
from tests.simulation.answering import check_answer, check_break
from tests.simulation.calls import Call, tag_of
from tests.simulation.circuit import Circuit, outcome_of
from tests.simulation.judging import Judge, named
from tests.simulation.network import CALL_HEADER
from tests.simulation.retry import Retries

__all__ = ["AboveAdapter", "AboveBreaker", "AboveRetry", "Records", "Tap"]


class Records(Protocol):
    """Where the calls of a stack are remembered, and the models of what is kept per model."""

    judge: Judge

    def open_call(self, request: LLMRequest, tag: str, *, streaming: bool) -> Call: ...
    def close_call(self, call: Call) -> None: ...
    def call_of(self, request: LLMRequest) -> Call: ...
    def circuit(self, model: str | None) -> Circuit | None: ...
    def retries(self, model: str | None) -> Retries: ...


class Tap(ProviderWrapper):
    """Tells its `seen_*` methods of each call, its content and its end."""

    def __init__(self, inner: LLMProvider, records: Records) -> None:
        super().__init__(inner)
        self._records = records

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        request, call = self.seen_start(request, streaming=False)
        try:
            response = await self.inner.complete(request)
        except BaseException as error:
            self.seen_end(call, None, error)
            raise
        self.seen_end(call, response, None)
        return response

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        request, call = self.seen_start(request, streaming=True)
        response: LLMResponse | None = None
        try:
            async with open_stream(self.inner, request) as chunks:
                async for chunk in chunks:
                    response = chunk.response or response
                    self.seen_chunk(call, chunk)
                    yield chunk
        except BaseException as error:
            self.seen_end(call, response, error)
            raise
        self.seen_end(call, response, None)

    def seen_start(self, request: LLMRequest, *, streaming: bool) -> tuple[LLMRequest, Call]:
        raise NotImplementedError

    def seen_chunk(self, call: Call, chunk: StreamChunk) -> None:
        """A chunk goes by."""

    def seen_end(
        self, call: Call, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        raise NotImplementedError


class AboveBreaker(Tap):
    """Remembers calls; sees whom the breaker turns away, and what comes out of the stack."""

    def seen_start(self, request: LLMRequest, *, streaming: bool) -> tuple[LLMRequest, Call]:
        call = self._records.open_call(request, tag_of(request.messages), streaming=streaming)
        return request, call

    def seen_chunk(self, call: Call, chunk: StreamChunk) -> None:
        if chunk.text:
            call.shown.append(chunk.text)

    def seen_end(
        self, call: Call, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        circuit = self._records.circuit(call.request.model)
        turned_away = isinstance(error, CircuitOpenError) and call.admission is None
        if circuit is not None and turned_away and isinstance(error, CircuitOpenError):
            circuit.refused(call, error)
        call.outcome = named(error)
        call.whole = response is not None
        self._records.close_call(call)


class AboveRetry(Tap):
    """Sees whom the breaker lets through, and the one outcome of each."""

    def seen_start(self, request: LLMRequest, *, streaming: bool) -> tuple[LLMRequest, Call]:
        call = self._records.call_of(request)
        circuit = self._records.circuit(request.model)
        if circuit is not None:
            circuit.admitted(call)
        return request, call

    def seen_end(
        self, call: Call, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        self._records.retries(call.request.model).call_ended(call, response, error)
        circuit = self._records.circuit(call.request.model)
        if circuit is not None:
            now = asyncio.get_running_loop().time()
            lasted = sum((each.ended or now) - each.started for each in call.attempts)
            circuit.ended(call, outcome_of(error, whole=response is not None, lasted=lasted))


class AboveAdapter(Tap):
    """Sees each attempt; writes into its headers which call it belongs to."""

    def seen_start(self, request: LLMRequest, *, streaming: bool) -> tuple[LLMRequest, Call]:
        call = self._records.call_of(request)
        self._records.retries(request.model).attempt_began(call)
        marked = {**request.extra_headers, CALL_HEADER: call.context.call_id}
        return request.replace(extra_headers=marked), call

    def seen_chunk(self, call: Call, chunk: StreamChunk) -> None:
        if chunk.has_content or chunk.is_final:
            call.attempts[-1].content = True
        call.attempts[-1].text += chunk.text

    def seen_end(
        self, call: Call, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        retries = self._records.retries(call.request.model)
        retries.attempt_ended(call, whole=response is not None, error=error)
        if error is None and response is not None:
            check_answer(self._records.judge, call, response)
        elif isinstance(error, Exception) and call.streaming:
            check_break(self._records.judge, call.attempts[-1], call, error)
