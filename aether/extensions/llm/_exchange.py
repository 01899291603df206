"""Exchanges with a model over an endpoint: what every adapter with a protocol over HTTP shares.

It must not know a protocol: a `Codec` writes the requests and reads the answers.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import TypeAlias

from aether.errors import (
    ConfigurationError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from aether.extensions.llm._event_stream import EventStream
from aether.extensions.llm._http import Endpoint, render_json
from aether.extensions.llm._ledger import Attempt
from aether.extensions.llm._wire.codec import Assembly, Codec
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.joining import joined
from aether.extensions.llm._wire.large_json import LARGE_BYTES, read_in_turns
from aether.extensions.llm._wire.structured import AnswerTool, told_the_schema
from aether.llm.batches import Batch, ChunkStream
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import final_chunk

__all__ = ["MAX_FOLLOW_UPS", "Exchange"]

_Sent: TypeAlias = tuple[str, bytes, Mapping[str, str]]
"""The path, the body and the headers."""

MAX_FOLLOW_UPS = 16
"""So often an answer that came in parts is asked to go on."""


class Exchange:
    """One server, spoken to in one protocol."""

    def __init__(self, endpoint: Endpoint, codec: Codec, default_model: str | None) -> None:
        self._endpoint = endpoint
        self._codec = codec
        self._default_model = default_model

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """One answer; one request, unless the answer comes in parts. Cancelling it closes the
        connection at once.
        """
        model = self._model(request)
        asked, shaping = request, None
        if request.output_schema is not None:
            request, shaping = self._shape(request, model)
        whole: LLMResponse | None = None
        for part in count(1):
            source = self._endpoint.source(model)
            path, sent, headers = self._render(
                request, model, asked if part == 1 else None, stream=False
            )
            attempt = Attempt(request, source)
            try:
                body = await self._endpoint.post(path, sent, headers, source, _listener(request))
                attempt.accepted = True
                if len(body) > LARGE_BYTES:
                    body = await _read(body, source)
                response = self._codec.parse(body, source=source)
                attempt.answered(response)
            except BaseException as error:
                attempt.failed(error)
                raise
            whole = response if whole is None else joined(whole, response)
            following = self._codec.follow_up(request, response)
            if following is not None and not _may_go_on(request, part):
                whole, following = _cut_off(whole), None
            if following is None:
                return whole if shaping is None else shaping.response(whole)
            request = following
        raise AssertionError("the count of parts has no end")

    def stream(self, request: LLMRequest) -> ChunkStream:
        """One answer in pieces; the last chunk, alone in its batch, is final.

        What goes wrong before the first content is raised as what it is, and may be tried again.
        After it, it is a `StreamInterruptedError` with what had come (or a `ProtocolError`, which
        carries that too). Closing the iterator closes the connection at once.
        """
        return ChunkStream(self._batches(request))

    async def _batches(self, request: LLMRequest) -> AsyncGenerator[Batch, None]:
        model = self._model(request)
        asked, shaping = request, None
        if request.output_schema is not None:
            request, shaping = self._shape(request, model)
        whole: LLMResponse | None = None
        calls = 0  # of the parts before: an index tells the calls of the whole answer apart
        for part in count(1):
            source = self._endpoint.source(model)
            sent = self._render(request, model, asked if part == 1 else None, stream=True)
            attempt = Attempt(request, source)
            try:
                async with self._open(sent, source, request, before=whole) as events:
                    assembly = self._codec.assemble(source=source)
                    attempt.watch(assembly)
                    text = ""
                    try:
                        async with aclosing(events.batches()) as batches:
                            async for batch in batches:
                                chunks: list[StreamChunk] = []
                                try:
                                    for data, name in batch:
                                        chunks += assembly.feed(data, name)
                                except Exception:
                                    if chunks := _shown(chunks, calls, shaping):
                                        yield chunks  # they came before what is wrong
                                    raise
                                if chunks := _shown(chunks, calls, shaping):
                                    yield chunks
                                if assembly.ended:
                                    break
                        if events.document is not None:
                            document = events.document
                            if len(document) > LARGE_BYTES:
                                document = await read_in_turns(document)
                            response = self._codec.parse(document, source=source)
                            text = response.text
                        elif assembly.ended or events.ended_between_events:
                            response = assembly.finish()
                        else:
                            raise source.error(
                                StreamInterruptedError,
                                f"The stream of {source.provider} ended in the middle of an event.",
                                kind="truncated",
                                partial=assembly.partial(),
                            )
                    except ProviderError as error:
                        if not (
                            _is_broken(error) and assembly.finished and events.ended_between_events
                        ):
                            raise _explained(error, assembly, source, whole, shaping)  # noqa: B904 - it sets its cause
                        response = assembly.finish()  # whole, only its end mark lacks
                    attempt.answered(response)
                    whole = response if whole is None else joined(whole, response)
                    following = self._codec.follow_up(request, response)
                    if following is not None and not _may_go_on(request, part):
                        whole, following = _cut_off(whole), None
                    if following is not None:
                        calls = len(whole.tool_calls)
                        if text and shaping is None:
                            yield [StreamChunk(text)]
                    elif shaping is None:
                        yield [final_chunk(whole, text=text)]
                    else:
                        yield [shaping.final_chunk(whole)]
                    await events.drain()
            except BaseException as error:
                attempt.failed(error)
                raise
            if following is None:
                return
            request = following

    async def aclose(self) -> None:
        """Close what was opened here. Twice is fine."""
        await self._endpoint.aclose()

    def _model(self, request: LLMRequest) -> str:
        model = request.model or self._default_model
        if not model:
            name = self._endpoint.provider
            raise ConfigurationError(
                f"No model was named for {name}. Set {name.upper()}_MODEL, or pass model= with "
                "the call."
            )
        return model

    def _shape(self, request: LLMRequest, model: str) -> tuple[LLMRequest, AnswerTool | None]:
        """The request with its schema said in a way that the model knows."""
        mode = self._codec.output_mode(request, model)
        if mode == "tool":
            shaping = AnswerTool(request)
            return shaping.request, shaping
        return (told_the_schema(request) if mode == "prompt" else request), None

    def _render(
        self, request: LLMRequest, model: str, asked: LLMRequest | None, *, stream: bool
    ) -> _Sent:
        """What is sent. Where the same was `asked` before, in the same call, it is what was sent
        then: the caller may have changed, meanwhile, what the request is made of.
        """
        context = None if asked is None else asked.context
        kept = None if context is None else context.kept
        sent: _Sent
        if kept and (self, stream) in kept:
            same, sent = kept[self, stream]
            if same() is asked:
                return sent
        path, body, headers = self._codec.render(request, model=model, stream=stream)
        sent = path, render_json(body), {**headers, **request.extra_headers}
        if kept is not None:
            kept[self, stream] = weakref.ref(asked), sent  # no cycle: the request has the context
        return sent

    @asynccontextmanager
    async def _open(
        self, sent: _Sent, source: Source, request: LLMRequest, *, before: LLMResponse | None
    ) -> AsyncGenerator[EventStream, None]:
        """The stream of one part. What goes wrong when others came before it breaks them off."""
        try:
            async with self._endpoint.stream(
                *sent, source=source, on_headers=_listener(request)
            ) as events:
                yield events
        except ProviderError as error:
            if before is None or error.partial is not None:
                raise
            raise _broken_off(error, source, before) from error


def _may_go_on(request: LLMRequest, part: int) -> bool:
    """Whether the next part may be asked for after so many."""
    reservation = None if request.context is None else request.context.reservation
    return part <= MAX_FOLLOW_UPS and (reservation is None or reservation.extend())


def _cut_off(whole: LLMResponse) -> LLMResponse:
    """An answer that may not go on, though there is more of it."""
    return whole.model_copy(update={"finish_reason": "length"})


async def _read(body: bytes, source: Source) -> bytes:
    try:
        return await read_in_turns(body)
    except ProtocolError as error:
        source.sign(error)
        raise


def _listener(request: LLMRequest) -> Callable[[Mapping[str, str]], None] | None:
    """Who is told the headers of the request's answer."""
    context = request.context
    return None if context is None else context.on_headers


def _shown(chunks: Batch, calls: int, shaping: AnswerTool | None) -> Batch:
    """What the reader gets of one part's chunks, when there were so many calls before it."""
    if calls:
        for chunk in chunks:
            if chunk.tool_call is not None:
                chunk.tool_call.index += calls
    if shaping is None:
        return chunks
    return [shown for shown in map(shaping.chunk, chunks) if shown.has_content]


def _is_broken(error: ProviderError) -> bool:
    """Whether the connection failed, and not the server or its protocol."""
    return isinstance(error, ProviderConnectionError | RequestTimeoutError) and error.status is None


def _explained(
    error: ProviderError,
    assembly: Assembly,
    source: Source,
    before: LLMResponse | None,
    shaping: AnswerTool | None,
) -> ProviderError:
    """The error that the reader of a stream gets: what had come before it decides."""
    if not assembly.has_content and before is None:
        return error
    partial = assembly.partial()
    if before is not None:
        partial = joined(before, partial)
    if shaping is not None:
        partial = shaping.response(partial)
    if isinstance(error, StreamInterruptedError):
        error.partial = partial
        return error
    if isinstance(error, ProtocolError):
        error.partial = error.partial or partial
        return error
    interrupted = _broken_off(error, source, partial)
    interrupted.__cause__ = error
    return interrupted


def _broken_off(
    error: ProviderError, source: Source, partial: LLMResponse
) -> StreamInterruptedError:
    return source.error(
        StreamInterruptedError,
        f"The stream of {source.provider} broke off: {error}",
        status=error.status,
        retryable=error.retryable,
        retry_after=error.retry_after,
        kind=error.kind,
        partial=partial,
    )
