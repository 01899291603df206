"""Dispatch: one call to one tool, and whatever goes wrong told in the result.

It must not know how calls are ordered, nor that a model reads the results.
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import functools
import inspect
import reprlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

from aether.errors import UnknownNameError
from aether.llm.data import made_of
from aether.llm.messages import ToolCall, is_too_large
from aether.llm.scope import current_scope
from aether.registry import Registry
from aether.tools.arguments import copy_arguments, require_names
from aether.tools.contracts import (
    NextHandler,
    Provenance,
    Tool,
    ToolInvocation,
    ToolMiddleware,
    ToolResult,
)
from aether.tools.registry import get_tool, list_tools, resolve_tools
from aether.tools.results import bounded, render_bounded, render_small
from aether.tools.threads import OverdueError, worker_threads

__all__ = ["MAX_ERROR_BYTES", "MAX_RESULT_BYTES", "begin", "dispatch", "dispatch_tool"]

C = TypeVar("C", bound=ToolCall)

MAX_RESULT_BYTES = 1 << 20
MAX_ERROR_BYTES = 2048


async def dispatch(
    call: ToolInvocation,
    tool: Tool | None,
    *,
    offered: Collection[str] = (),
    middleware: Sequence[ToolMiddleware] = (),
    max_result_bytes: int = MAX_RESULT_BYTES,
) -> ToolResult:
    """Run one call through the middleware to its tool. The result answers `call`, always.

    `tool` is the offered tool of the call's name, or `None`: then nothing is run, and the result
    names the `offered` ones. Middleware sees such calls too; it may change the arguments and the
    `tool` of a copy of the call, but a call never reaches a tool of another name.

    What goes wrong is an error result: `Error: <type>: <message>`, at most 2 KiB, without a
    traceback. A handler that is async is awaited in the current task; any other runs in a thread
    with a copy of the context, which goes on unseen if the time is up. Content beyond
    `max_result_bytes` is cut off and says so.

    Only cancellation of the current task and what is no `Exception` is raised. A handler that
    swallows the cancellation does not keep it from the caller.
    """
    handler: NextHandler = functools.partial(_run, offered=offered, limit=max_result_bytes)
    if middleware:
        call = _own_copy(call)
        for layer in reversed(middleware):
            handler = functools.partial(_pass_through, layer, handler, max_result_bytes)
    if call.tool is not tool:
        call = call.model_copy(update={"tool": tool})
    return await _answer(call, handler)


async def begin(
    call: ToolCall,
    tool: Tool | None,
    *,
    offered: Collection[str],
    context: contextvars.Context | None = None,
    max_result_bytes: int = MAX_RESULT_BYTES,
) -> ToolResult | Coroutine[Any, Any, ToolResult]:
    """`dispatch` to the tool, as far as it can be done in anybody's task.

    The result, where no more has to be awaited than a thread. What an author's code awaits may
    change its task, or hold it up: then the coroutine that comes to the result, for a task with
    this `context`. In that, all code of the author's runs; without one, in the current one.
    """
    if tool is None or tool.name != call.name:
        return _failure(call, "UnknownTool", _unknown(call.name, offered))
    if context is None:
        arguments = _checked(call, tool)
        in_thread = contextvars.copy_context()
    else:
        arguments = context.run(_checked, call, tool)
        in_thread = context.copy()
    if isinstance(arguments, ToolResult):
        return arguments
    until = None
    if tool.timeout is not None:
        until = asyncio.get_running_loop().time() + tool.timeout
    try:
        if _is_async(tool.handler):
            work = functools.partial(tool.handler, **arguments)
            return _answer(call, functools.partial(_finish, tool, work, until, max_result_bytes))
        value = await worker_threads.run(
            functools.partial(_call, tool.handler, arguments), context=in_thread, until=until
        )
    except Exception as error:  # noqa: BLE001 - told in the result
        return _failed(call, tool, error, overdue=isinstance(error, OverdueError))
    content = render_small(value, max_result_bytes)
    if content is None:
        told = functools.partial(_finish, tool, lambda: value, until, max_result_bytes)
        return _answer(call, told)
    return _success(call, content, value=value, untrusted=not tool.trusted)


async def dispatch_tool(
    call: ToolCall,
    *,
    tools: Sequence[str | Tool | Callable[..., Any]] | None = None,
    registry: Registry | None = None,
    middleware: Sequence[ToolMiddleware] = (),
) -> ToolResult:
    """Run one call by hand, as the tool loop would.

    The tool is one of `tools`, or where they are not given, any that is registered. Inside another
    tool's call, the provenance says which run that belongs to.
    """
    if tools is not None:
        offered = resolve_tools(tools, registry=registry)
    else:
        try:
            offered = {call.name: get_tool(call.name, registry=registry)}
        except UnknownNameError:
            offered = {tool.name: tool for tool in list_tools(registry=registry)}
    tool = offered.get(call.name)
    own = {"tool": tool, "provenance": _by_hand()}
    invocation = ToolInvocation(**{**dict(call), **own})
    return await dispatch(invocation, tool, offered=offered, middleware=middleware)


def _by_hand() -> Provenance:
    scope = current_scope.get()
    if scope is None:
        return Provenance()
    return Provenance(
        run_id=scope.run_id,
        agent=scope.agent,
        depth=scope.depth,
        after_untrusted=scope.after_untrusted,
    )


def _own_copy(call: ToolInvocation) -> ToolInvocation:
    """A call whose arguments middleware may change without changing the recorded call."""
    try:
        return call.model_copy(update={"arguments": copy_arguments(call.arguments)})
    except ValueError:  # refused, with the reason, when the call comes to be run
        return call


async def _pass_through(
    layer: ToolMiddleware, following: NextHandler, limit: int, call: ToolInvocation
) -> ToolResult:
    untrusted = call.tool is None or not call.tool.trusted

    async def follow(call: ToolInvocation, /) -> ToolResult:
        nonlocal untrusted
        result = await following(call)
        untrusted = untrusted or result.untrusted  # a text made of it stays what it is
        return result

    try:
        answer: object = await layer(call, follow)
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        return _failure(call, "CancelledError", "the call was cancelled by middleware")
    except Exception as error:  # noqa: BLE001 - told in the result
        return _failure(call, type(error).__name__, _message(error), untrusted=untrusted)
    if isinstance(answer, str):
        return _success(call, bounded(answer, limit), value=answer, untrusted=untrusted)
    if isinstance(answer, ToolResult):
        return _within(answer, limit, call)
    return _failure(
        call,
        "InvalidResult",
        f"middleware returned a {type(answer).__name__}, not a ToolResult or a string",
    )


async def _run(call: ToolInvocation, *, offered: Collection[str], limit: int) -> ToolResult:
    begun = await begin(call, call.tool, offered=offered, max_result_bytes=limit)
    return begun if isinstance(begun, ToolResult) else await begun


async def _answer(call: C, handler: Callable[[C], Awaitable[ToolResult]]) -> ToolResult:
    """What the handler answers, under the call's id; a cancellation that it swallows goes on."""
    task = asyncio.current_task()
    cancellations = 0 if task is None else task.cancelling()
    result = await handler(call)
    if task is not None and task.cancelling() > cancellations:
        raise asyncio.CancelledError
    if result.tool_call_id != call.id or result.name != call.name:
        result = result.model_copy(update={"tool_call_id": call.id, "name": call.name})
    return result


def _checked(call: ToolCall, tool: Tool) -> dict[str, Any] | ToolResult:
    """What to call the handler with, or why it is not called."""
    if call.invalid_arguments is not None:
        came = reprlib.repr(call.invalid_arguments)
        reason = "not one whole JSON object with each name once, so not run"
        if is_too_large(call.invalid_arguments):
            reason = "too large, so not run"
        return _failure(call, "InvalidArguments", f"{reason}: {came}")
    try:
        own = copy_arguments(call.arguments)
        return require_names(tool.parameters, own) if tool.validate is None else tool.validate(own)
    except asyncio.CancelledError:  # a validator's own: nothing is awaited here
        return _failed(call, tool, _CancelledItselfError())
    except Exception as error:  # noqa: BLE001 - told in the result; validators may be anybody's
        return _failure(call, "InvalidArguments", _message(error))


async def _finish(
    tool: Tool, work: Callable[[], Any], until: float | None, limit: int, call: ToolCall
) -> ToolResult:
    """Await what the work gives, and tell it."""
    deadline = asyncio.timeout_at(until)
    try:
        async with deadline:
            value = work()
            if isinstance(value, Awaitable):
                value = await value
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        return _failed(call, tool, _CancelledItselfError())
    except Exception as error:  # noqa: BLE001 - told in the result
        return _failed(call, tool, error, overdue=deadline.expired())
    if isinstance(value, ToolResult):
        return _within(value, limit, call)
    try:
        content = await render_bounded(value, limit)
    except Exception as error:  # noqa: BLE001 - told in the result
        reason = f"the tool ran, but its result cannot be told: {_message(error)}"
        return _failure(call, "InvalidResult", reason, untrusted=not tool.trusted)
    return _success(call, content, value=value, untrusted=not tool.trusted)


class _CancelledItselfError(Exception):
    """A handler has raised `CancelledError`, though nobody had cancelled its call."""


def _call(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return handler(**arguments)
    except asyncio.CancelledError as error:
        raise _CancelledItselfError from error


def _is_async(handler: Callable[..., Any]) -> bool:
    if inspect.isfunction(handler):
        return inspect.iscoroutinefunction(handler)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _is_cancelled() -> bool:
    """Whether the current task was cancelled, rather than `CancelledError` raised in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _within(result: ToolResult, limit: int, call: ToolCall) -> ToolResult:
    """An author's own result, with no more content than there may be."""
    if not isinstance(result.content, str):  # copies are not checked
        kind = type(result.content).__name__
        return _failure(call, "InvalidResult", f"the content of a ToolResult is a str, not {kind}")
    return result.model_copy(update={"content": bounded(result.content, limit)})


def _success(call: ToolCall, content: str, *, value: object, untrusted: bool) -> ToolResult:
    told = {
        "tool_call_id": call.id,
        "name": call.name,
        "content": content,
        "untrusted": untrusted,
        "value": value,
    }
    return made_of(ToolResult, told)


def _failure(call: ToolCall, kind: str, message: str, *, untrusted: bool = False) -> ToolResult:
    content = f"Error: {kind}: {message}" if message else f"Error: {kind}"
    return ToolResult(
        tool_call_id=call.id,
        name=call.name,
        content=bounded(content, MAX_ERROR_BYTES),
        is_error=True,
        error_type=kind,
        untrusted=untrusted,
    )


def _failed(call: ToolCall, tool: Tool, error: Exception, *, overdue: bool = False) -> ToolResult:
    """What to tell of a handler that has failed."""
    if overdue:
        return _failure(call, "TimeoutError", f"no result within {tool.timeout:g} seconds")
    if isinstance(error, _CancelledItselfError):
        return _failure(call, "CancelledError", "the tool cancelled itself")
    return _failure(call, type(error).__name__, _message(error), untrusted=not tool.trusted)


def _message(error: Exception) -> str:
    try:
        return str(error)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - it still has a type
        return ""


def _unknown(name: str, offered: Collection[str]) -> str:
    message = f"no tool named {reprlib.repr(name)}."
    close = difflib.get_close_matches(name[:64], offered)
    if close:
        message += f" Did you mean {' or '.join(map(repr, close))}?"
    return f"{message} Offered: {', '.join(offered) or 'none'}."
