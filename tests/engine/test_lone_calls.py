"""The only call of a turn, of which nobody is told: it has no task, and all that others have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from aether import Aether
from aether.engine import dispatch
from aether.events import TOOL_COMPLETE, Event
from aether.llm.contracts import LLMResponse, ToolCall
from aether.llm.messages import Message
from aether.llm.scope import current_scope
from aether.testing import FakeProvider
from aether.tools.contracts import Tool, ToolInvocation
from aether.tools.schema import build_tool
from aether.tools.threads import worker_threads

Ask = Callable[[Aether, list[Any]], Awaitable[str]]
variable: ContextVar[str] = ContextVar("variable", default="unset")


async def ask(client: Aether, tools: list[Any]) -> str:
    return await client.ask("go", tools=tools)


async def stream(client: Aether, tools: list[Any]) -> str:
    return "".join([text async for text in client.stream_text("go", tools=tools)])


ways = pytest.mark.parametrize("way", [ask, stream])


@asynccontextmanager
async def calling(name: str, **arguments: Any) -> AsyncIterator[tuple[Aether, FakeProvider]]:
    call = LLMResponse(
        text="", model="fake", tool_calls=[ToolCall("c0", name, arguments)], finish_reason="stop"
    )
    fake = FakeProvider(responses=[call, "done"])
    async with Aether(fake) as client:
        yield client, fake


def told(fake: FakeProvider) -> Message:
    [message] = [each for each in fake.requests[-1].messages if each.role == "tool"]
    return message


def add(a: int, b: int) -> int:
    return a + b


@ways
async def test_it_makes_no_task_where_it_needs_but_a_thread(way: Ask) -> None:
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **more)

    async with calling("add", a=1, b=2) as (client, fake):
        asyncio.get_running_loop().set_task_factory(make)
        try:
            assert await way(client, [add]) == "done"
        finally:
            asyncio.get_running_loop().set_task_factory(None)
    assert told(fake).text == "3"
    assert not [each for each in made if "step" in each or "_answer" in each]


@ways
async def test_a_task_factory_need_not_know_of_contexts(way: Ask) -> None:
    def make(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop)

    async def tell() -> bool:
        return current_scope.get() is not None

    async with calling("tell") as (client, fake):
        asyncio.get_running_loop().set_task_factory(make)
        try:
            assert await way(client, [tell]) == "done"
        finally:
            asyncio.get_running_loop().set_task_factory(None)
    assert told(fake).text == "true"


def sets_in_a_thread() -> str:
    seen = variable.get()
    variable.set("changed")
    return seen


async def sets() -> str:
    return sets_in_a_thread()


def gives_what_sets() -> Awaitable[str]:
    variable.set("unseen")
    return sets()


def validating() -> Tool:
    def validate(arguments: Any) -> dict[str, Any]:
        seen = variable.get()
        variable.set("changed")
        return {"seen": f"{seen}, {variable.get()}, {current_scope.get() is not None}"}

    async def tell(seen: str) -> str:
        return f"{seen}, {variable.get()}"

    return Tool("tell", "", {"type": "object"}, tell, validate=validate)


@pytest.mark.row("T18")
@pytest.mark.parametrize(
    ("tool", "seen"),
    [
        (build_tool(sets_in_a_thread, name="tell"), "callers"),
        (build_tool(sets, name="tell"), "callers"),
        (build_tool(gives_what_sets, name="tell"), "callers"),
        (validating(), "callers, changed, True, changed"),
    ],
    ids=["in a thread", "async", "an awaitable", "a validator"],
)
@ways
async def test_what_it_sets_reaches_nobody_else(way: Ask, tool: Tool, seen: str) -> None:
    variable.set("callers")
    async with calling("tell") as (client, fake):
        assert await way(client, [tool]) == "done"
    assert told(fake).text == seen
    assert variable.get() == "callers"
    assert current_scope.get() is None


@pytest.mark.row("T3")
@ways
async def test_a_cancellation_that_a_thread_raises_is_the_tools_own(way: Ask) -> None:
    def odd() -> None:
        raise asyncio.CancelledError

    async with calling("odd") as (client, fake):
        assert await way(client, [odd]) == "done"
    assert told(fake).text == "Error: CancelledError: the tool cancelled itself"


class OddError(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError


def cancels(_: Any = None) -> Any:
    raise asyncio.CancelledError


def fails_oddly() -> None:
    raise OddError


@pytest.mark.parametrize(
    ("tool", "content"),
    [
        (
            Tool("odd", "", {"type": "object"}, sets, validate=cancels),
            "Error: CancelledError: the tool cancelled itself",
        ),
        (build_tool(fails_oddly, name="odd"), "Error: OddError"),
    ],
    ids=["a validator", "an exception's text"],
)
@ways
async def test_no_cancellation_that_authors_raise_is_the_runs(
    way: Ask, tool: Tool, content: str
) -> None:
    async with calling("odd") as (client, fake):
        assert await way(client, [tool]) == "done"
    assert told(fake).text == content


@pytest.mark.row("T2")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@ways
def test_what_ends_the_program_comes_out_of_a_thread(way: Ask, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind

    async def main() -> None:
        async with calling("leave") as (client, _):
            await way(client, [leave])

    with pytest.raises(kind):
        asyncio.run(main())


@pytest.mark.row("T5")
@ways
async def test_a_thread_that_hangs_is_given_up_after_its_time(way: Ask) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(60)

    async with calling("hang") as (client, fake):
        assert await way(client, [build_tool(hang, timeout=0.02)]) == "done"
    assert told(fake).text == "Error: TimeoutError: no result within 0.02 seconds"
    assert worker_threads.abandoned == 1 or not begun.wait(0.05)  # on a busy machine, not at all
    release.set()
    while worker_threads.abandoned:  # noqa: ASYNC110 - a thread ends without telling
        await asyncio.sleep(0.001)


@pytest.mark.row("T4")
@ways
async def test_the_time_of_an_awaitable_began_with_its_function(way: Ask) -> None:
    def gives() -> Awaitable[bool]:
        return asyncio.Event().wait()

    async with calling("gives") as (client, fake):
        assert await way(client, [build_tool(gives, timeout=0.01)]) == "done"
    assert told(fake).text == "Error: TimeoutError: no result within 0.01 seconds"


@pytest.mark.row("T6")
@ways
async def test_a_cancelled_run_waits_for_an_awaitable_that_goes_on_but_not_for_ever(
    way: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_GRACE_SECONDS", 0.01)
    begun, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    def gives() -> Awaitable[None]:
        return stubborn()

    async with calling("gives") as (client, fake):
        running = asyncio.ensure_future(way(client, [gives]))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert "1 tool calls do not end" in caplog.text
        assert len(fake.requests) == 1
        release.set()
        await ended.wait()


@pytest.mark.row("T6")
@ways
async def test_a_cancelled_run_does_not_wait_for_a_thread(way: Ask) -> None:
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(60)

    async with calling("hang") as (client, fake):
        running = asyncio.ensure_future(way(client, [hang]))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(fake.requests) == 1
    release.set()
    while worker_threads.abandoned:  # noqa: ASYNC110 - a thread ends without telling
        await asyncio.sleep(0.001)


@ways
async def test_who_subscribes_while_it_runs_hears_of_its_end(way: Ask) -> None:
    heard: list[Event] = []

    async with calling("subscribe") as (client, _):

        def subscribe() -> str:
            client.events.subscribe(TOOL_COMPLETE, heard.append)
            return "subscribed"

        assert await way(client, [subscribe]) == "done"
    [event] = heard
    assert isinstance(event.call, ToolInvocation)
    assert event.result.content == "subscribed"
