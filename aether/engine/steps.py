"""The two steps of a run that have effects: a model step and a tool step.

Events wrap exactly these two places. It must not know what comes before or after a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING

from aether.engine.context import RunContext
from aether.errors import ToolError
from aether.events import (
    REQUEST_COMPLETE,
    REQUEST_ERROR,
    REQUEST_START,
    TOOL_COMPLETE,
    TOOL_ERROR,
    TOOL_START,
)
from aether.llm.contracts import LLMProvider
from aether.llm.failures import check_response, translate
from aether.llm.messages import LLMRequest, LLMResponse

if TYPE_CHECKING:
    from aether.tools.contracts import ToolInvocation, ToolResult

__all__ = ["model_step", "tool_step"]


async def model_step(
    provider: LLMProvider, request: LLMRequest, run: RunContext, *, turn: int
) -> LLMResponse:
    """One provider call that is no stream, with its `request.*` events.

    What a third party's provider raises comes out as an `AetherError`.
    """
    run.begin_call(request)
    context = request.context
    call_id = context.call_id if context is not None else None
    started = perf_counter()
    try:
        if run.events.wants(REQUEST_START):
            await run.publish(REQUEST_START, request=request, call_id=call_id, turn=turn)
        response = await provider.complete(request)
        check_response(response, request)
        response = run.marked(response, request.messages)
    except BaseException as raised:  # noqa: BLE001 - it is raised, in the end
        error = translate(raised, model=request.model) if isinstance(raised, Exception) else raised
        await run.publish(
            REQUEST_ERROR,
            request=request,
            call_id=call_id,
            turn=turn,
            error=error,
            cancelled=isinstance(error, asyncio.CancelledError),
            duration_seconds=perf_counter() - started,
        )
        try:
            if error is raised:
                raise
            raise error from raised
        finally:
            del error  # else it would hold this frame, and the frame it
    run.count_answer(response)
    if run.events.wants(REQUEST_COMPLETE):
        await run.publish(
            REQUEST_COMPLETE,
            request=request,
            response=response,
            call_id=call_id,
            turn=turn,
            duration_seconds=perf_counter() - started,
        )
    return response


async def tool_step(
    run: RunContext,
    *,
    turn: int,
    call: Callable[[], ToolInvocation],
    dispatch: Callable[[], Awaitable[ToolResult]],
) -> ToolResult:
    """One tool call with its `tool.*` events, for which `call` is made if one is wanted.

    Whatever goes wrong in the tool is in the result.
    """
    started = perf_counter()
    try:
        if run.events.wants(TOOL_START):
            told = call()
            await run.publish(TOOL_START, call=told, call_id=told.id, turn=turn)
        result = await dispatch()
    except BaseException as error:
        if run.events.wants(TOOL_ERROR):
            told = call()
            await run.publish(
                TOOL_ERROR,
                call=told,
                call_id=told.id,
                turn=turn,
                error=error,
                cancelled=isinstance(error, asyncio.CancelledError),
                duration_seconds=perf_counter() - started,
            )
        raise
    ended = TOOL_ERROR if result.is_error else TOOL_COMPLETE
    if run.events.wants(ended):
        told = call()
        await run.publish(
            ended,
            call=told,
            result=result,
            call_id=told.id,
            turn=turn,
            error=ToolError(result.content) if result.is_error else None,
            duration_seconds=perf_counter() - started,
        )
    return result
