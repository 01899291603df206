"""All tool calls of one turn: run together or one by one, answered in their order.

It must not know how one call is run. All children have ended before it returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from aether.engine.context import RunContext
from aether.engine.steps import tool_step
from aether.errors import ToolLoopError
from aether.llm.messages import FinishReason, LLMResponse, Message, ToolCall, new_call_id
from aether.llm.scope import current_scope
from aether.tools.contracts import Provenance, ToolInvocation, ToolResult
from aether.tools.dispatch import begin, dispatch

__all__ = ["MAX_CALLS_PER_TURN", "dispatch_calls", "tell_apart"]

MAX_CALLS_PER_TURN = 128
CANCEL_GRACE_SECONDS = 1.0

_log = logging.getLogger("aether.engine")


async def dispatch_calls(
    response: LLMResponse, run: RunContext, *, turn: int, messages: Sequence[Message]
) -> list[ToolResult]:
    """Run the response's calls; one result for each, in the order of the calls.

    A response that its output limit, a filter or an error ended has none of its calls run: a cut
    call can look whole. On cancellation all running calls are cancelled and awaited first.
    """
    calls = response.tool_calls
    if len(calls) > MAX_CALLS_PER_TURN:
        raise ToolLoopError(
            f"The model asked for {len(calls)} tool calls in one turn; at most "
            f"{MAX_CALLS_PER_TURN} are run.",
            messages=messages,
            usage=run.usage,
        )
    if response.finish_reason in _CUT:
        return [_cut_off(call, *_CUT[response.finish_reason]) for call in calls]
    if len(calls) > 1 and run.runs_in_parallel():
        return await _gather(calls, response, run, turn)
    return [await _step(call, response, run, turn) for call in calls]


def tell_apart(response: LLMResponse) -> LLMResponse:
    """The response with a new id for each call whose id another one before it has already."""
    if len(response.tool_calls) == 1:
        return response
    seen: set[str] = set()
    renamed: dict[int, str] = {}
    for place, call in enumerate(response.tool_calls):
        if call.id in seen:
            renamed[place] = new_call_id()
        seen.add(call.id)
    if not renamed:
        return response

    def distinct(calls: Sequence[ToolCall]) -> list[ToolCall]:
        return [
            call.model_copy(update={"id": renamed[place]}) if place in renamed else call
            for place, call in enumerate(calls)
        ]

    message = response.message
    return response.model_copy(
        update={
            "tool_calls": distinct(response.tool_calls),
            "message": message.model_copy(update={"tool_calls": distinct(message.tool_calls)}),
        }
    )


async def _step(call: ToolCall, response: LLMResponse, run: RunContext, turn: int) -> ToolResult:
    """The step of a call that runs by itself."""
    if run.middleware or run.tells_of_tools():
        return (await _gather([call], response, run, turn))[0]
    return await tool_step(
        run,
        turn=turn,
        call=partial(_invocation, call, response, run),
        dispatch=partial(_dispatch_alone, call, run, response.message.untrusted),
    )


async def _gather(
    calls: Sequence[ToolCall], response: LLMResponse, run: RunContext, turn: int
) -> list[ToolResult]:
    untrusted = response.message.untrusted
    invocations = [_invocation(call, response, run) for call in calls]
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_step_in_task(call, run, turn, untrusted)) for call in invocations]
    await _all(tasks)
    return [
        _cancelled(call) if task.cancelled() else task.result()
        for call, task in zip(calls, tasks, strict=True)
    ]


async def _step_in_task(
    call: ToolInvocation, run: RunContext, turn: int, untrusted: bool
) -> ToolResult:
    """The step of a call in a task of its own, so that all of it may be in the call's scope."""
    current_scope.set(run.scope(after_untrusted=untrusted))
    dispatched = partial(dispatch, call, call.tool, offered=run.tools, middleware=run.middleware)
    return await tool_step(run, turn=turn, call=lambda: call, dispatch=dispatched)


async def _dispatch_alone(call: ToolCall, run: RunContext, untrusted: bool) -> ToolResult:
    """Dispatch the only call of a turn, of which nobody is told: in a task if it needs one."""
    context = contextvars.copy_context()
    context.run(current_scope.set, run.scope(after_untrusted=untrusted))
    begun = await begin(call, run.tools.get(call.name), offered=run.tools, context=context)
    if isinstance(begun, ToolResult):
        return begun
    # Not `create_task(context=...)`: a task factory from before Python 3.11 does not take it.
    task = context.run(asyncio.get_running_loop().create_task, begun)
    await _all([task])
    return _cancelled(call) if task.cancelled() else task.result()


async def _all(tasks: Sequence[asyncio.Task[ToolResult]]) -> None:
    """Wait for the tasks, and let none of them go on behind this, whatever comes."""
    try:
        # Only what is no Exception comes out of a step as one: the siblings need not go on then.
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: what ends the program is raised by the loop, once
    if not pending:
        return
    for task in pending:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    deadline = asyncio.get_running_loop().time() + CANCEL_GRACE_SECONDS
    while pending:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            _log.warning("%d tool calls do not end although they were cancelled", len(pending))
            break
        try:
            await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
        pending = [task for task in pending if not task.done()]
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # else it would hold this frame, and the frame it


def _invocation(call: ToolCall, response: LLMResponse, run: RunContext) -> ToolInvocation:
    """The call as middleware and subscribers see it."""
    provenance = Provenance(
        source="model",
        model=response.model,
        run_id=run.run_id,
        agent=run.agent,
        depth=run.depth,
        after_untrusted=response.message.untrusted,
    )
    return ToolInvocation(
        id=call.id,
        name=call.name,
        arguments=call.arguments,
        invalid_arguments=call.invalid_arguments,
        provider_state=call.provider_state,
        tool=run.tools.get(call.name),
        provenance=provenance,
    )


_CUT: dict[FinishReason | None, tuple[str, str]] = {
    "length": (
        "OutputLimit",
        "the answer was cut off by the output limit. Call again with shorter arguments.",
    ),
    "content_filter": ("ContentFilter", "a content policy ended the answer."),
    "error": ("AnswerFailed", "the answer ended with an error. Call again if it is still needed."),
}


def _cut_off(call: ToolCall, kind: str, reason: str) -> ToolResult:
    return ToolResult(
        tool_call_id=call.id,
        name=call.name,
        content=f"Error: {kind}: not run, because {reason}",
        is_error=True,
        error_type=kind,
        untrusted=False,
    )


def _cancelled(call: ToolCall) -> ToolResult:
    return ToolResult(
        tool_call_id=call.id,
        name=call.name,
        content="Error: CancelledError: the call was cancelled",
        is_error=True,
        error_type="CancelledError",
        untrusted=False,
    )
