"""The tool loop as one logical stream over any number of provider streams.

It must not know a protocol. It has one final chunk, one `stream.start` and one terminal event.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import TYPE_CHECKING

from aether.engine.context import RunContext
from aether.engine.loop import Progress
from aether.errors import DeadlineExceededError, StreamInterruptedError
from aether.events import STREAM_CHUNK, STREAM_COMPLETE, STREAM_ERROR, STREAM_START
from aether.llm.batches import open_batches
from aether.llm.contracts import LLMProvider
from aether.llm.failures import check_response, lost_calls, translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk, StructuredChunk
from aether.llm.streaming import final_chunk
from aether.llm.usage import add_known

if TYPE_CHECKING:
    from aether.engine.output import OutputType

__all__ = ["run_stream"]


async def run_stream(
    provider: LLMProvider, request: LLMRequest, run: RunContext
) -> AsyncGenerator[StreamChunk, None]:
    """Chunks of every turn as they come, then one final chunk.

    The final chunk has the usage of all turns together, and the last turn's finish reason and
    response. Before it is handed out, the last provider stream has been read to its end and
    closed. Leaving early fires `stream.error` with `cancelled`.
    """
    started = perf_counter()
    first = request
    progress = Progress(run)
    output = run.output
    limit = run.limit()
    total: StreamChunk | None = None
    pieces: list[str] = []
    try:
        await run.publish(STREAM_START, request=first, call_id=run.run_id)
        while True:
            turn = progress.turn
            run.begin_call(request)
            closing: StreamChunk | None = None
            pieces = []
            called = False
            async with open_batches(provider, request) as batches:
                try:
                    async for batch in limit.iterate(batches):
                        for chunk in batch:
                            if closing is not None:
                                continue  # nothing may follow the final chunk; read on to the end
                            delta = chunk
                            if chunk.response is not None or chunk.finish_reason is not None:
                                closing = chunk
                                if not (chunk.has_content or chunk.restart):
                                    continue
                                delta = StreamChunk(
                                    chunk.text, chunk.reasoning, restart=chunk.restart
                                )
                            if delta.restart:
                                pieces = []
                                called = False
                            if chunk.tool_call is not None:
                                called = True
                            pieces.append(delta.text)
                            if run.events.wants(STREAM_CHUNK) and (
                                delta.has_content or delta.restart
                            ):
                                await run.publish(
                                    STREAM_CHUNK,
                                    request=first,
                                    chunk=copy.copy(delta),  # not frozen, and the reader's own
                                    call_id=run.run_id,
                                    turn=turn,
                                )
                            yield delta if output is None else _previewing(delta, pieces, output)
                            if run.deadline is not None:
                                limit.check()  # who was told of it, or reads it, took his time
                except DeadlineExceededError:
                    if closing is None:
                        raise
            response = run.marked(_whole(closing, pieces, request, called=called), request.messages)
            run.count_answer(response)
            total = _sum(total, response)
            if response.tool_calls:
                import aether.engine.dispatch as tool_calls  # as in the loop

                response = tool_calls.tell_apart(response)
                results = await limit.wait_for(
                    tool_calls.dispatch_calls, response, run, turn=turn, messages=request.messages
                )
                request = progress.after_tools(request, response, results)
                continue
            settled = progress.after_answer(request, response)
            if isinstance(settled, LLMResponse):
                response = settled
                break
            request = settled
    except BaseException as raised:  # noqa: BLE001 - it is raised, in the end
        error = translate(raised, model=request.model) if isinstance(raised, Exception) else raised
        if isinstance(error, DeadlineExceededError):
            run.count_attempts(error)
            if error.partial is None and any(pieces):
                error.partial = LLMResponse(text="".join(pieces), model=request.model or "")
        await run.publish(
            STREAM_ERROR,
            request=first,
            call_id=run.run_id,
            error=error,
            cancelled=isinstance(error, asyncio.CancelledError | GeneratorExit),
            duration_seconds=perf_counter() - started,
        )
        try:
            if error is raised:
                raise
            raise error from raised
        finally:
            del error  # else it would hold this frame, and the frame it
    await run.publish(
        STREAM_COMPLETE,
        request=first,
        response=response,
        call_id=run.run_id,
        duration_seconds=perf_counter() - started,
    )
    yield total if output is None else _with_output(total, response)


def _whole(
    closing: StreamChunk | None, pieces: list[str], request: LLMRequest, *, called: bool
) -> LLMResponse:
    if closing is None:
        raise StreamInterruptedError(
            "The provider's stream ended without its final chunk: the answer is not complete.",
            model=request.model,
            kind="truncated",
            partial=LLMResponse(text="".join(pieces), model=request.model or ""),
        )
    response = closing.response
    if response is not None:
        check_response(response, request)
    else:
        response = _made(closing, pieces, request)
    if called and not response.tool_calls:
        raise lost_calls(response)
    return response


def _made(closing: StreamChunk, pieces: list[str], request: LLMRequest) -> LLMResponse:
    return LLMResponse(
        text="".join(pieces),
        model=request.model or "",
        input_tokens=closing.input_tokens,
        output_tokens=closing.output_tokens,
        cache_read_tokens=closing.cache_read_tokens,
        cache_write_tokens=closing.cache_write_tokens,
        reasoning_tokens=closing.reasoning_tokens,
        tool_calls=list(closing.tool_calls or ()),
        finish_reason=closing.finish_reason,
    )


def _previewing(
    chunk: StreamChunk, pieces: list[str], output: OutputType
) -> StructuredChunk[object]:
    """A delta that can show the value so far."""
    count = len(pieces)
    return StructuredChunk(
        text=chunk.text,
        reasoning=chunk.reasoning,
        tool_call=chunk.tool_call,
        restart=chunk.restart,
        preview=lambda: output.preview("".join(pieces[:count])),
    )


def _with_output(total: StreamChunk, response: LLMResponse) -> StructuredChunk[object]:
    """The final chunk with the checked value."""
    fields = {each.name: getattr(total, each.name) for each in dataclasses.fields(total)}
    return StructuredChunk(**{**fields, "response": response}, output=response.output)


def _sum(total: StreamChunk | None, response: LLMResponse) -> StreamChunk:
    """The logical stream's final chunk so far. One turn of unknown size makes the sum unknown."""
    chunk = final_chunk(response)
    if total is not None:
        for name in ("input_tokens", "output_tokens"):
            before, now = getattr(total, name), getattr(chunk, name)
            setattr(chunk, name, None if before is None or now is None else before + now)
        for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            setattr(chunk, name, add_known(getattr(total, name), getattr(chunk, name)))
    return chunk
