from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import threading
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import InputError
from aether.llm.content import TextPart
from aether.llm.messages import Message, ToolCall
from aether.tools import (
    NextHandler,
    Provenance,
    Tool,
    ToolInvocation,
    ToolMiddleware,
    ToolResult,
    build_tool,
    dispatch_tool,
)
from aether.tools.dispatch import MAX_ERROR_BYTES, dispatch


def invocation(name: str, arguments: Any = None, **more: Any) -> ToolInvocation:
    return ToolInvocation(id="call_1", name=name, arguments=arguments or {}, **more)


async def run(tool: Tool | Callable[..., Any], arguments: Any = None, **options: Any) -> ToolResult:
    if not isinstance(tool, Tool):
        tool = build_tool(tool)
    return await dispatch(invocation(tool.name, arguments), tool, **options)


async def add(a: int, b: int = 2) -> int:
    return a + b


def add_in_a_thread(a: int, b: int = 2) -> int:
    return a + b


@pytest.mark.parametrize("function", [add, add_in_a_thread])
async def test_a_call_is_validated_run_and_answered(function: Callable[..., Any]) -> None:
    result = await run(function, {"a": "40"})

    assert result.tool_call_id == "call_1"
    assert result.name == function.__name__
    assert result.content == "42"
    assert result.value == 42
    assert not result.is_error
    assert result.error_type is None
    assert result.message.tool_call_id == "call_1"


async def test_a_result_is_untrusted_unless_the_tool_is_trusted() -> None:
    assert (await run(add, {"a": 1})).untrusted
    assert not (await run(build_tool(add, trusted=True), {"a": 1})).untrusted


@pytest.mark.row("T1")
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_an_exception_is_told_without_its_traceback(in_a_thread: bool) -> None:
    def fail() -> None:
        raise ValueError("no such city: Atlantis")

    async def fail_async() -> None:
        fail()

    result = await run(fail if in_a_thread else fail_async)

    assert result.is_error
    assert result.error_type == "ValueError"
    assert result.content == "Error: ValueError: no such city: Atlantis"
    assert result.untrusted


@pytest.mark.row("T1")
async def test_a_long_error_is_cut() -> None:
    async def fail() -> None:
        raise RuntimeError("é" * 100_000)

    result = await run(fail)

    assert len(result.content.encode()) <= MAX_ERROR_BYTES
    assert "truncated" in result.content


@pytest.mark.row("T1")
async def test_an_exception_that_cannot_be_printed_still_has_a_type() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def fail() -> None:
        raise UnprintableError

    assert (await run(fail)).content == "Error: UnprintableError"


@pytest.mark.row("T1")
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_a_stop_iteration_is_an_error_as_any(in_a_thread: bool) -> None:
    def fail() -> None:
        raise StopIteration

    async def fail_async() -> None:
        raise StopIteration

    assert (await run(fail if in_a_thread else fail_async)).is_error


@pytest.mark.row("T2")
@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_interrupt_is_raised(kind: type[BaseException], in_a_thread: bool) -> None:
    def fail() -> None:
        raise kind

    async def fail_async() -> None:
        raise kind

    with pytest.raises(kind):
        asyncio.run(run(fail if in_a_thread else fail_async))


@pytest.mark.row("T9")
async def test_an_unknown_tool_is_told_with_those_that_are_offered() -> None:
    result = await dispatch(invocation("get_wether"), None, offered=["get_weather", "add"])

    assert result.error_type == "UnknownTool"
    assert result.content == (
        "Error: UnknownTool: no tool named 'get_wether'. Did you mean 'get_weather'? "
        "Offered: get_weather, add."
    )


@pytest.mark.row("T10")
@pytest.mark.parametrize(
    "name",
    ["Add", "add ", "\N{CYRILLIC SMALL LETTER A}dd", "__class__", "", "add\n", "a" * 100_000],
)
async def test_only_the_exact_name_reaches_a_tool(name: str) -> None:
    result = await dispatch(invocation(name), build_tool(add), offered=["add"])

    assert result.error_type == "UnknownTool"
    assert len(result.content) <= MAX_ERROR_BYTES


@pytest.mark.row("T7")
async def test_arguments_that_are_no_json_object_are_never_run() -> None:
    ran = []

    async def note() -> None:
        ran.append(1)

    call = ToolCall.parse("call_1", "note", '{"a": 1' + " " * 100_000)
    result = await dispatch(ToolInvocation(**dict(call)), build_tool(note))

    assert result.error_type == "InvalidArguments"
    assert "not one whole JSON object" in result.content
    assert len(result.content) < 300
    assert not ran


@pytest.mark.row("T8")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"a": None},
        {"a": "x"},
        {"a": True},
        {"a": 1, "c": 2},
        {"a": float("nan")},
        {"a": json.loads("[" * 500 + "]" * 500)},
        {"a": (number for number in range(3))},
    ],
)
@pytest.mark.parametrize("with_middleware", [False, True])
async def test_bad_arguments_are_told_and_not_run(arguments: Any, with_middleware: bool) -> None:
    result = await run(add, arguments, middleware=[layer("", [])] if with_middleware else [])

    assert result.error_type == "InvalidArguments"
    assert result.content.startswith("Error: InvalidArguments: ")


async def test_a_tool_made_by_hand_gets_the_arguments_as_they_are() -> None:
    tool = Tool(
        name="echo",
        description="",
        parameters={"type": "object", "properties": {}, "required": ["a"]},
        handler=lambda **given: given,
    )

    assert (await run(tool, {"a": "1", "b": [True]})).value == {"a": "1", "b": [True]}
    assert (await run(tool, {"b": 1})).content == (
        "Error: InvalidArguments: a: is required but missing"
    )


@pytest.mark.parametrize("made", [None, ["a"], {1: 2}])
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_what_a_validator_makes_that_are_no_arguments_is_told(
    made: Any, in_a_thread: bool
) -> None:
    handler = add_in_a_thread if in_a_thread else add
    tool = Tool("add", "", {"type": "object"}, handler, validate=lambda _: made)

    assert (await run(tool)).error_type == "TypeError"


async def test_a_handler_that_cannot_be_looked_at_is_told() -> None:
    class Odd:
        def __call__(self) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            if name == "__call__":
                raise RuntimeError("odd")
            return super().__getattribute__(name)

    result = await run(Tool("odd", "", {"type": "object"}, Odd()))

    assert result.content == "Error: RuntimeError: odd"


@pytest.mark.row("T16")
async def test_a_tool_cannot_change_the_recorded_call() -> None:
    def spoil(items: list[Any], more: dict[str, Any]) -> str:
        items.clear()
        more["x"] = 1
        return "done"

    tool = build_tool(spoil)
    by_hand = Tool("spoil", "", tool.parameters, spoil)
    for each in (tool, by_hand):
        arguments = {"items": [1, [2]], "more": {}}
        call = invocation("spoil", arguments)

        assert (await dispatch(call, each)).content == "done"
        assert call.arguments == {"items": [1, [2]], "more": {}}


@pytest.mark.row("T4")
async def test_an_async_tool_that_hangs_is_cancelled_after_its_timeout() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    result = await run(build_tool(hang, timeout=0.01))

    assert result.error_type == "TimeoutError"
    assert result.content == "Error: TimeoutError: no result within 0.01 seconds"
    assert ended == ["cancelled"]


@pytest.mark.row("T5")
async def test_a_sync_tool_that_hangs_is_given_up_after_its_timeout() -> None:
    release = threading.Event()

    result = await run(build_tool(lambda: release.wait(60), name="hang", timeout=0.01))

    assert result.content == "Error: TimeoutError: no result within 0.01 seconds"
    release.set()


@pytest.mark.row("T4")
async def test_a_timeout_error_of_the_tools_own_is_its_own() -> None:
    async def fail() -> None:
        raise TimeoutError("the database is slow")

    assert (await run(fail)).content == "Error: TimeoutError: the database is slow"


@pytest.mark.row("T4")
async def test_a_tool_may_have_no_timeout() -> None:
    assert (await run(build_tool(add, timeout=None), {"a": 1})).content == "3"


@pytest.mark.row("T3")
async def test_a_tool_that_raises_cancelled_error_has_failed() -> None:
    async def fail() -> None:
        raise asyncio.CancelledError

    result = await run(fail)

    assert result.error_type == "CancelledError"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.row("T6")
@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_cancellation_goes_on(in_a_thread: bool) -> None:
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    def hang_in_a_thread() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait(60)

    task = asyncio.create_task(run(hang_in_a_thread if in_a_thread else hang))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()


@pytest.mark.row("T6")
@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_a_tool_cannot_swallow_a_cancellation(ending: str) -> None:
    started = asyncio.Event()

    async def stubborn() -> str:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ending == "raises":
                raise ValueError from None
        return "I go on"

    task = asyncio.create_task(run(stubborn))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.row("T6")
async def test_a_cancellation_that_came_before_the_first_wait_goes_on() -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    async def cancel_and_run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await run(wait)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancel_and_run())


@pytest.mark.row("T6")
async def test_a_time_limit_around_the_dispatch_is_kept() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run(hang)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.row("T18")
async def test_a_sync_tool_sees_the_callers_context_and_cannot_change_it() -> None:
    def look() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    variable.set("mine")

    assert (await run(look)).content == "mine"
    assert variable.get() == "mine"


async def test_a_handler_may_be_any_callable() -> None:
    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 1

        def method(self, a: int) -> int:
            return a + 2

    assert (await run(Adder(), {"a": 1})).content == "2"
    assert (await run(Adder().method, {"a": 1})).content == "3"
    assert (await run(functools.partial(add, b=5), {"a": 1})).content == "6"
    assert (await run(build_tool(lambda: add(1), name="f"))).content == "3"


async def test_a_handler_may_return_a_result_of_its_own() -> None:
    async def own() -> ToolResult:
        return ToolResult(
            tool_call_id="other", name="other", content="x" * 100, is_error=True, untrusted=False
        )

    result = await run(own, max_result_bytes=80)

    assert (result.tool_call_id, result.name) == ("call_1", "own")
    assert result.is_error
    assert not result.untrusted
    assert len(result.content) <= 80


@pytest.mark.row("T11")
async def test_a_large_result_is_cut_and_says_so() -> None:
    async def large() -> str:
        return "é" * 1_000_000

    content = (await run(large)).content

    assert len(content.encode()) <= 1 << 20
    assert content.endswith(
        "[truncated: 1000000 characters, of which at most 1048576 bytes are shown]"
    )


@pytest.mark.row("T12")
async def test_a_result_without_a_json_form_is_an_error_and_says_that_the_tool_ran() -> None:
    async def generate() -> Any:
        return (number for number in range(3))

    result = await run(generate)

    assert result.error_type == "InvalidResult"
    assert result.content == (
        "Error: InvalidResult: the tool ran, but its result cannot be told: a generator is no data"
    )


def layer(
    name: str, seen: list[str]
) -> Callable[[ToolInvocation, NextHandler], Awaitable[ToolResult]]:
    async def middleware(call: ToolInvocation, next: NextHandler) -> ToolResult:
        seen.append(f"{name} in")
        result = await next(call)
        seen.append(f"{name} out")
        return result

    return middleware


async def test_the_first_middleware_is_outermost() -> None:
    seen: list[str] = []

    await run(add, {"a": 1}, middleware=[layer("first", seen), layer("second", seen)])

    assert seen == ["first in", "second in", "second out", "first out"]


async def test_middleware_sees_the_tool_and_where_the_call_is_from() -> None:
    seen: list[ToolInvocation] = []

    async def look(call: ToolInvocation, next: NextHandler) -> ToolResult:
        seen.append(call)
        return await next(call)

    tool = build_tool(add)
    provenance = Provenance(source="model", model="m", after_untrusted=True)
    await dispatch(invocation("add", {"a": 1}, provenance=provenance), tool, middleware=[look])
    await dispatch(invocation("sub"), None, middleware=[look])

    assert seen[0].tool is tool
    assert seen[0].provenance == provenance
    assert seen[1].tool is None


async def test_a_string_from_middleware_is_the_content() -> None:
    async def deny(call: ToolInvocation, next: NextHandler) -> str:
        return "Denied."

    result = await run(add, {"a": 1}, middleware=[deny])

    assert result.content == "Denied."
    assert result.value == "Denied."
    assert not result.is_error
    assert result.tool_call_id == "call_1"


class Shout(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Verdict(StrEnum):
    NO = "denied"


@pytest.mark.parametrize("answer", [Shout("denied"), Verdict.NO])
async def test_a_string_of_a_class_of_its_own_from_middleware_is_a_plain_content(
    answer: str,
) -> None:
    async def deny(call: ToolInvocation, next: NextHandler) -> str:
        return answer

    async def change(call: ToolInvocation, next: NextHandler) -> ToolResult:
        return (await next(call)).model_copy(update={"content": answer})

    denied = await run(add, {"a": 1}, middleware=[deny])
    changed = await run(add, {"a": 1}, middleware=[change])

    for result in (denied, changed):
        assert (type(result.content), result.content) == (str, "denied")
        assert (type(result.message.content), result.message.content) == (str, "denied")
    assert denied.value is answer


@pytest.mark.parametrize("content", [None, b"x", 5, ["x"]])
async def test_a_copied_result_whose_content_is_no_text_is_an_error_result(content: object) -> None:
    copied = ToolResult(tool_call_id="c", name="add", content="x").model_copy(
        update={"content": content}
    )

    async def answer(call: ToolInvocation, next: NextHandler) -> ToolResult:
        return copied

    def own(a: int) -> ToolResult:
        return copied

    for result in (await run(add, {"a": 1}, middleware=[answer]), await run(own, {"a": 1})):
        assert result.is_error
        assert result.error_type == "InvalidResult"
        assert type(content).__name__ in result.content


async def test_middleware_can_change_the_arguments_and_the_result() -> None:
    async def change(call: ToolInvocation, next: NextHandler) -> ToolResult:
        result = await next(call.model_copy(update={"arguments": {"a": 10}, "id": "other"}))
        return result.model_copy(update={"content": f"<{result.content}>", "tool_call_id": "no"})

    call = invocation("add", {"a": 1})
    result = await dispatch(call, build_tool(add), middleware=[change])

    assert result.content == "<12>"
    assert result.tool_call_id == "call_1"
    assert call.arguments == {"a": 1}


@pytest.mark.row("T16")
async def test_arguments_that_middleware_changes_in_place_leave_the_recorded_call() -> None:
    async def spoil(call: ToolInvocation, next: NextHandler) -> ToolResult:
        call.arguments["a"] = 10
        return await next(call)

    call = invocation("add", {"a": 1})

    assert (await dispatch(call, build_tool(add), middleware=[spoil])).content == "12"
    assert call.arguments == {"a": 1}


@pytest.mark.row("T9")
async def test_middleware_can_put_another_tool_in_place_but_not_rename_the_call() -> None:
    async def sandboxed(a: int) -> str:
        return "sandboxed"

    async def swap(call: ToolInvocation, next: NextHandler) -> ToolResult:
        return await next(call.model_copy(update={"tool": build_tool(sandboxed, name="add")}))

    async def rename(call: ToolInvocation, next: NextHandler) -> ToolResult:
        return await next(call.model_copy(update={"name": "sub"}))

    assert (await run(add, {"a": 1}, middleware=[swap])).content == "sandboxed"
    renamed = await run(add, {"a": 1}, middleware=[rename])
    assert renamed.error_type == "UnknownTool"
    assert renamed.name == "add"


async def test_middleware_may_call_next_again() -> None:
    tries = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        return "there"

    async def again(call: ToolInvocation, next: NextHandler) -> ToolResult:
        result = await next(call)
        return await next(call) if result.is_error else result

    assert (await run(flaky, middleware=[again])).content == "there"


def _no_coroutine(call: Any, next: Any) -> Any:
    return "not awaitable"


async def _fails(call: Any, next: Any) -> Any:
    raise PermissionError("not today")


async def _returns_nothing(call: Any, next: Any) -> Any:
    await next(call)


async def _passes_nonsense_on(call: Any, next: Any) -> Any:
    return await next("nonsense")


async def _cancels(call: Any, next: Any) -> Any:
    raise asyncio.CancelledError


@pytest.mark.row("T3")
@pytest.mark.parametrize(
    ("middleware", "kind"),
    [
        (_no_coroutine, "TypeError"),
        (_fails, "PermissionError"),
        (_returns_nothing, "InvalidResult"),
        (_passes_nonsense_on, "AttributeError"),
        (_cancels, "CancelledError"),
    ],
)
async def test_middleware_that_fails_is_an_error_result(
    middleware: ToolMiddleware, kind: str
) -> None:
    result = await run(add, {"a": 1}, middleware=[middleware])

    assert result.is_error
    assert result.error_type == kind
    assert result.tool_call_id == "call_1"


async def test_a_call_by_hand_is_from_the_user() -> None:
    seen: list[ToolInvocation] = []

    async def look(call: ToolInvocation, next: NextHandler) -> ToolResult:
        seen.append(call)
        return await next(call)

    result = await dispatch_tool(ToolCall("1", "add", {"a": 1}), tools=[add], middleware=[look])

    assert result.content == "3"
    assert seen[0].provenance.source == "user"

    await dispatch_tool(
        invocation("add", {"a": 1}, provenance=Provenance(source="model")),
        tools=[add],
        middleware=[look],
    )

    assert seen[1].provenance.source == "user"


@pytest.mark.row("T9")
async def test_a_call_by_hand_to_an_unknown_tool_lists_close_matches() -> None:
    result = await dispatch_tool(ToolCall("1", "ad"), tools=[add])

    assert result.error_type == "UnknownTool"
    assert "Did you mean 'add'?" in result.content


hostile_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([object(), ValueError("x"), int, len, iter(()), 1j, range(3)])
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=2) | st.integers() | st.tuples(st.booleans()) | st.none(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.mark.row("T12")
@given(hostile_values)
@settings(deadline=None)
def test_no_result_is_too_odd_for_a_dispatch(value: Any) -> None:
    async def give() -> Any:
        return value

    result = asyncio.run(run(give))

    result.content.encode()
    assert result.is_error == (result.error_type == "InvalidResult")


@pytest.mark.row("T8")
@given(st.dictionaries(st.sampled_from(["a", "b", "c", ""]), hostile_values, max_size=3))
@settings(deadline=None)
def test_no_arguments_are_too_odd_for_a_dispatch(arguments: dict[str, Any]) -> None:
    result = asyncio.run(run(add, arguments))

    result.content.encode()
    assert result.is_error == (result.error_type == "InvalidArguments")


@pytest.mark.parametrize("is_error", [False, True])
@pytest.mark.parametrize("untrusted", [False, True])
def test_the_message_of_a_result_would_pass_every_check(is_error: bool, untrusted: bool) -> None:
    result = ToolResult(
        tool_call_id="c", name="add", content="ü", is_error=is_error, untrusted=untrusted
    )

    checked = Message(
        role="tool",
        content="ü",
        tool_call_id="c",
        is_error=is_error,
        untrusted=untrusted,
    )
    assert result.message == checked
    assert result.message.untrusted is untrusted
    assert result.message.model_dump() == checked.model_dump()
    assert result.message.tool_calls is not result.message.tool_calls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_error": 1, "untrusted": 0}, {"is_error": True, "untrusted": False}),
        ({"untrusted": "no"}, {"untrusted": False}),
        ({"content": ["a"]}, {"content": [TextPart(text="a")]}),
        ({"content": Shout("a")}, {"content": "a"}),
    ],
)
def test_the_message_of_a_result_that_was_copied_is_as_if_it_had_been_checked(
    changes: dict[str, Any], said: dict[str, Any]
) -> None:
    result = ToolResult(tool_call_id="c", name="add", content="x")
    message = result.model_copy(update=changes).message

    assert {name: getattr(message, name) for name in said} == said
    assert [type(getattr(message, name)) for name in said] == [*map(type, said.values())]
    assert Message.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("changes", [{"is_error": None}, {"untrusted": None}, {"content": 5}])
def test_a_result_that_was_copied_with_what_it_cannot_be_makes_no_message(
    changes: dict[str, Any],
) -> None:
    result = ToolResult(tool_call_id="c", name="add", content="x").model_copy(update=changes)

    with pytest.raises(InputError, match=f"Message: {next(iter(changes))}"):
        _ = result.message
