"""What can go wrong with a tool, and that it never costs more than the one call.

Each is shown in all the ways a client is asked in: whole or as a stream, in a session, by an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import functools
import itertools
import json
import math
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import aether.tools.dispatch
from aether import Aether, Agent, ProviderConfig, Tool
from aether.errors import ClientClosedError, ProtocolError, ToolLoopError
from aether.extensions.memory import InMemorySessionStore
from aether.http.contracts import HTTPResponse
from aether.llm.contracts import LLMRequest, LLMResponse, Message, ToolCall
from aether.registry import Registry
from aether.testing import FakeProvider
from aether.tools import NextHandler, ToolInvocation, ToolResult, build_tool, register_tool
from aether.tools.dispatch import MAX_ERROR_BYTES, MAX_RESULT_BYTES, dispatch
from aether.tools.results import bounded
from aether.tools.threads import LIMIT, WorkerThreads
from tests.faults.aftermath import Aftermath
from tests.faults.ways import SESSION, WAYS, Way, calling, get_answer, saying
from tests.simulation.loop import VirtualLoop

ways = pytest.mark.parametrize("way", WAYS)


async def ping() -> str:
    """Answer."""
    await asyncio.sleep(0)
    return "pong"


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call-{name}-{number}", name, arguments)


def told(request: LLMRequest) -> list[Message]:
    """The results that a request tells the model."""
    return [message for message in request.messages if message.role == "tool"]


class Play:
    """A client over a script, with all that is checked after a fault."""

    def __init__(
        self, aftermath: Aftermath, script: Sequence[LLMResponse | str], **options: Any
    ) -> None:
        self.provider = FakeProvider(responses=script)
        self.store = InMemorySessionStore()
        self.client = aftermath.client(Aether(self.provider, memory_store=self.store, **options))

    async def answer(self, way: Way, *tools: Any, **options: Any) -> str:
        return (await get_answer(self.client, way, tools=tools, **options)).text

    @property
    def results(self) -> list[Message]:
        """What the model was told after its first turn."""
        return told(self.provider.requests[1])


def in_virtual_time(work: Any) -> Any:
    """Run it without waiting. No task may be left."""
    loop = VirtualLoop(Random(0))
    try:
        outcome = loop.run_until_complete(work)
        assert not asyncio.all_tasks(loop)
        return outcome
    finally:
        loop.close()


# --- T1, T3: what a tool raises ---------------------------------------------------------------


@pytest.mark.row("T1")
@pytest.mark.parametrize("in_a_thread", [False, True])
@ways
async def test_an_exception_is_told_in_two_kilobytes_and_the_run_goes_on(
    way: Way, in_a_thread: bool, aftermath: Aftermath
) -> None:
    def fail() -> None:
        raise ValueError("no such city: " + "é" * 5000) from KeyError(
            "the cause, which is not told"
        )

    async def fail_async() -> None:
        fail()

    fails = build_tool(fail if in_a_thread else fail_async, name="fail")
    play = Play(aftermath, [calling(call("fail"), call("ping")), saying()])
    assert await play.answer(way, fails, ping) == "done"

    failed, fine = play.results
    assert failed.is_error
    assert failed.text.startswith("Error: ValueError: no such city: é")
    assert len(failed.text.encode()) <= MAX_ERROR_BYTES == 2048
    for secret in ("Traceback", "File ", __file__, "the cause"):
        assert secret not in failed.text
    assert (fine.is_error, fine.text) == (False, "pong")


class StopEverything(BaseException):
    pass


@pytest.mark.row("T2")
@pytest.mark.parametrize(("in_a_thread", "parallel"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopEverything])
@ways
def test_what_ends_the_program_comes_out_when_the_siblings_have_ended(
    way: Way,
    kind: type[BaseException],
    in_a_thread: bool,
    parallel: bool,
    aftermath: Aftermath,
) -> None:
    began: list[str] = []
    ended: list[str] = []

    async def waits() -> None:
        began.append("waits")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    def leave() -> None:
        raise kind

    async def leave_async() -> None:
        await asyncio.sleep(0)
        raise kind

    leaves = build_tool(leave if in_a_thread else leave_async, name="leave")
    first = [call("waits", 0)] if parallel else []
    play = Play(aftermath, [calling(*first, call("leave"), call("waits", 1)), saying()])

    async def main() -> None:
        await aftermath.keeps_history(play.store, SESSION)
        await play.answer(way, waits, leaves, parallel_tools=parallel)

    with pytest.raises(kind):
        asyncio.run(main())
    assert ended == began
    assert len(play.provider.requests) == 1


@pytest.mark.row("T3")
@pytest.mark.parametrize("how", ["raises", "in a thread", "its own task", "a cancelled future"])
@ways
async def test_a_tool_that_cancels_itself_has_failed_alone(
    way: Way, how: str, aftermath: Aftermath
) -> None:
    async def raises() -> None:
        raise asyncio.CancelledError

    def in_a_thread() -> None:
        raise asyncio.CancelledError

    async def its_own_task() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def a_cancelled_future() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    handler = locals()[how.replace(" ", "_")]
    odd = build_tool(handler, name="odd")
    play = Play(aftermath, [calling(call("ping", 1), call("odd"), call("ping", 2)), saying()])
    task = asyncio.current_task()
    assert task is not None

    async with asyncio.timeout(5):
        assert await play.answer(way, ping, odd) == "done"
        assert task.cancelling() == 0

    assert [result.is_error for result in play.results] == [False, True, False]
    assert play.results[1].text.startswith("Error: CancelledError")


# --- T4, T5, T6: tools that do not end --------------------------------------------------------


@pytest.mark.row("T4")
@ways
def test_an_async_tool_that_hangs_is_given_up_after_its_timeout(
    way: Way, aftermath: Aftermath
) -> None:
    ended: list[float] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def slow() -> str:
        await asyncio.sleep(59)
        return "just in time"

    async def main() -> None:
        play = Play(aftermath, [calling(call("hangs"), call("slow")), saying()])
        assert await play.answer(way, hangs, slow) == "done"
        hung, fine = play.results
        assert hung.text == "Error: TimeoutError: no result within 60 seconds"
        assert fine.text == "just in time"
        assert ended == [60.0]
        assert asyncio.get_running_loop().time() == 60.0

    in_virtual_time(main())


@pytest.mark.row("T4")
@ways
def test_an_async_tool_that_refuses_to_be_cancelled_is_waited_for(
    way: Way, aftermath: Aftermath
) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(30)
        return "late, but whole"

    async def main() -> None:
        play = Play(aftermath, [calling(call("stubborn"), call("ping")), saying()])
        assert await play.answer(way, stubborn, ping) == "done"
        assert [result.text for result in play.results] == ["late, but whole", "pong"]
        assert asyncio.get_running_loop().time() == 90.0

    in_virtual_time(main())


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> WorkerThreads:
    threads = WorkerThreads(limit=2, idle_seconds=0.01)
    monkeypatch.setattr(aether.tools.dispatch, "worker_threads", threads)
    return threads


class CallsUntilAllHang:
    """Has tools called that hang until no thread is left, and then plays its script."""

    default_model = "m"

    def __init__(self, threads: WorkerThreads, *script: LLMResponse) -> None:
        self.threads = threads
        self.script = list(script)
        self.requests: list[LLMRequest] = []
        self.hung = False

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests.append(request)
        self.hung = self.hung or self.threads.abandoned == 2
        if self.hung:
            return self.script.pop(0)
        return calling(*(call("hang", 2 * len(self.requests) + n) for n in range(2)))


@pytest.mark.row("T5")
@ways
async def test_when_all_threads_hang_a_sync_tool_fails_at_once_and_others_go_on(
    way: Way, two_threads: WorkerThreads, aftermath: Aftermath
) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    def quick() -> str:
        return "quick"

    async def let_go() -> str:
        release.set()
        while two_threads.abandoned:  # noqa: ASYNC110 - a thread ends without telling
            await asyncio.sleep(0.001)
        return "they are free"

    model = CallsUntilAllHang(
        two_threads,
        calling(call("quick", 1), call("ping")),
        calling(call("let_go")),
        calling(call("quick", 2)),
        saying(),
    )
    client = aftermath.client(Aether(model))
    tools = [build_tool(hang, timeout=0.01), quick, ping, let_go]
    answer = await get_answer(client, way, tools=tools, max_tool_iterations=1000)
    assert answer.text == "done"

    *hung, stuck, fine, freed, ran = told(model.requests[-1])
    assert {result.text for result in hung} == {
        "Error: TimeoutError: no result within 0.01 seconds"
    }
    assert stuck.text.startswith("Error: ToolError: All 2 threads for tools hang")
    assert (fine.text, freed.text, ran.text) == ("pong", "they are free", "quick")


@pytest.mark.row("T5")
def test_there_are_no_more_than_32_threads_for_tools() -> None:
    assert LIMIT == 32


@pytest.mark.row("T6")
@pytest.mark.parametrize(("tidying", "waited"), [(0.0, 0.0), (0.75, 0.75), (5.0, 1.0)])
@ways
def test_a_cancelled_run_waits_for_its_tools_a_second_and_no_longer(
    way: Way,
    tidying: float,
    waited: float,
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[float] = []

    async def untidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(tidying)
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        play = Play(aftermath, [calling(call("untidy"), call("ping"), call("untidy", 1))])
        await aftermath.keeps_history(play.store, SESSION)
        run = asyncio.ensure_future(play.answer(way, untidy, ping))
        await asyncio.sleep(3)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert loop.time() == 3 + waited
        assert len(ended) == (2 if waited == tidying else 0)
        await asyncio.sleep(10)
        assert ended == [3 + tidying] * 2

    in_virtual_time(main())
    warned = [entry.getMessage() for entry in caplog.records if entry.name == "aether.engine"]
    late = "2 tool calls do not end although they were cancelled"
    assert warned == ([] if waited == tidying else [late])


@pytest.mark.row("T6")
@ways
async def test_a_cancelled_run_does_not_wait_for_a_tool_in_a_thread(
    way: Way, two_threads: WorkerThreads, aftermath: Aftermath
) -> None:
    began, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(60)

    play = Play(aftermath, [calling(call("hang"))])
    await aftermath.keeps_history(play.store, SESSION)
    run = asyncio.ensure_future(play.answer(way, hang))
    await began.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert two_threads.abandoned == 1
    release.set()
    while two_threads.abandoned:  # noqa: ASYNC110 - a thread ends without telling
        await asyncio.sleep(0.001)


# --- T7, T9, T10: calls that are not as they should be ----------------------------------------

NOT_ARGUMENTS = {
    "no JSON": "Paris, please",
    "cut off": '{"city": "Par',
    "a list": '["Paris"]',
    "a string": '"Paris"',
    "a number": "1",
    "not a number": "NaN",
    "not a number inside": '{"city": NaN}',
    "infinity inside": '{"city": -Infinity}',
    "a number too great": '{"city": 1e999}',
    "a name twice": '{"city": "Paris", "city": "Rome"}',
    "a name twice, once escaped": '{"city": "Paris", "\\u0063ity": "Rome"}',
    "a name twice, deep inside": '{"city": "Paris", "more": [{"a": 1, "a": 2}]}',
    "half a surrogate": '{"city": "\\ud83d"}',
    "two objects": '{"city": "Paris"}{"city": "Rome"}',
    "a million levels deep": '{"city": ' * 10**6,
    "a million lists deep": '{"city": ' + "[" * 10**6 + "]" * 10**6 + "}",
    "65 levels deep": '{"city": ' + "[" * 64 + "]" * 64 + "}",
}


@pytest.mark.row("T7")
@ways
async def test_arguments_that_are_no_json_object_are_told_to_the_model_and_not_run(
    way: Way, aftermath: Aftermath
) -> None:
    ran: list[Any] = []

    def look(city: Any, more: Any = None) -> str:
        ran.append(city)
        return "sunny"

    calls = [ToolCall.parse(name, "look", text) for name, text in NOT_ARGUMENTS.items()]
    fine = ToolCall.parse("fine", "look", ' {"city": "Paris"} ')
    none = [ToolCall.parse(f"none {text!r}", "ping", text) for text in ("", " ", "null", "{}")]
    play = Play(aftermath, [calling(*calls, fine, *none), saying()])

    assert await play.answer(way, look, ping) == "done"

    *bad, good = play.results[:-4]
    assert ran == ["Paris"]
    assert (good.is_error, good.text) == (False, "sunny")
    assert [result.tool_call_id for result in bad] == list(NOT_ARGUMENTS)
    assert all(result.is_error for result in bad)
    for result in bad:
        assert result.text.startswith("Error: InvalidArguments: ")
        assert len(result.text.encode()) <= MAX_ERROR_BYTES
    assert [result.text for result in play.results[-4:]] == ["pong"] * 4


@pytest.mark.row("T7", "T14")
@ways
async def test_a_model_that_only_sends_bad_arguments_has_as_many_turns_as_any(
    way: Way, aftermath: Aftermath
) -> None:
    turns = [calling(ToolCall.parse(f"c{n}", "ping", "{'no': 'JSON'}")) for n in range(9)]
    play = Play(aftermath, turns)
    await aftermath.keeps_history(play.store, SESSION)
    with pytest.raises(ToolLoopError, match="3 turns") as raised:
        await play.answer(way, ping, max_tool_iterations=3)
    assert len(play.provider.requests) == 3
    assert [message.is_error for message in raised.value.messages if message.role == "tool"] == [
        True
    ] * 3


def _as_json_says(text: str) -> Any:
    """What the standard library reads in a text that has each name once; else `ValueError`."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(pairs)
        if len(read) < len(pairs):
            raise ValueError("twice")
        return read

    def refuse(_: str) -> None:
        raise ValueError("no number")

    read = json.loads(text, object_pairs_hook=distinct, parse_constant=refuse)
    json.dumps(read, ensure_ascii=False).encode()
    return read


pieces = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", '"a"', '"b"', "1", "-0.5", "null", "true", "NaN", " ", '"', "\\"]
)


@pytest.mark.row("T7")
@given(st.text(max_size=12) | st.lists(pieces, max_size=10).map("".join))
@example('{"a":1,"b":{"a":1}}')
@settings(max_examples=1500, deadline=None)
def test_only_a_json_object_is_read_as_arguments(text: str) -> None:
    read = ToolCall.parse("c", "f", text)
    try:
        expected = {} if text.strip() in ("", "null") else _as_json_says(text.strip())
    except (ValueError, RecursionError):
        expected = None
    if isinstance(expected, dict):
        assert (read.arguments, read.invalid_arguments) == (expected, None)
    else:
        assert (read.arguments, read.invalid_arguments) == ({}, text)


@pytest.mark.row("T9")
@ways
async def test_only_an_offered_tool_is_run_though_others_are_registered(
    way: Way, aftermath: Aftermath
) -> None:
    ran: list[str] = []
    registry = Registry()

    @register_tool(registry=registry)
    def secret() -> str:
        ran.append("secret")
        return "secret"

    async def renaming(invocation: ToolInvocation, next: NextHandler) -> ToolResult:
        if invocation.id == "renamed":
            invocation = invocation.model_copy(update={"name": "secret"})
        return await next(invocation)

    script = [
        calling(call("secret"), call("nobody"), ToolCall("renamed", "ping"), call("ping", 2)),
        saying(),
    ]
    play = Play(aftermath, script, registry=registry, tool_middleware=[renaming])
    assert await play.answer(way, ping) == "done"

    assert ran == []
    assert [result.is_error for result in play.results] == [True, True, True, False]
    for result in play.results[:3]:
        assert result.text.startswith("Error: UnknownTool: ")
        assert result.text.endswith("Offered: ping.")
    assert "secret" in {tool.name for tool in [registry.get("tool", "secret")]}


LOOKALIKES = [
    *("Ping", "PING", "ping ", " ping", "ping\n", "ping\0", "ping\u200b", "pi\u0307ng"),
    *("p\u0456ng", "pin\u0261", "\uff50ing", "ping()", "ping.__call__", "functions.ping"),
    *("__class__", "__init__", "", "*"),
]


@pytest.mark.row("T10")
@ways
async def test_a_name_that_only_looks_like_a_tools_reaches_none(
    way: Way, aftermath: Aftermath
) -> None:
    ran: list[str] = []

    def ping() -> str:
        ran.append("ping")
        return "pong"

    calls = [ToolCall(f"c{n}", name) for n, name in enumerate(LOOKALIKES)]
    play = Play(aftermath, [calling(*calls), saying()])
    assert await play.answer(way, ping) == "done"
    assert ran == []
    assert [result.is_error for result in play.results] == [True] * len(LOOKALIKES)


@pytest.mark.row("T10")
@given(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
    | st.permutations("ping").map("".join)
    | st.lists(st.sampled_from("pingPING_-\u0456\u0131"), max_size=6).map("".join)
)
@example("ping")
@settings(deadline=None)
def test_any_other_name_is_told_which_tools_there_are(name: str) -> None:
    invocation = ToolInvocation(id="c", name=name)
    result = asyncio.run(dispatch(invocation, build_tool(ping), offered=["ping"]))
    assert result.is_error == (name != "ping")
    if result.is_error:
        assert result.content.endswith("Offered: ping.")


# --- T11, T12: results that are not as they should be -----------------------------------------


@pytest.mark.row("T11")
@pytest.mark.parametrize("letter", ["x", "\N{EURO SIGN}"])
@ways
async def test_a_result_of_100_megabytes_is_cut_between_letters_and_says_so(
    way: Way, letter: str, aftermath: Aftermath
) -> None:
    size = 100_000_000 // len(letter.encode())

    async def huge() -> str:
        return letter * size

    play = Play(aftermath, [calling(call("huge")), saying()])
    assert await play.answer(way, huge) == "done"

    (result,) = play.results
    shown, _, mark = result.text.partition("\n")
    assert shown == letter * len(shown)
    assert mark == f"[truncated: {size} characters, of which at most 1048576 bytes are shown]"
    assert MAX_RESULT_BYTES - 3 <= len(result.text.encode()) <= MAX_RESULT_BYTES == 1048576


@pytest.mark.row("T11")
def test_no_more_of_a_long_text_is_copied_than_is_shown() -> None:
    long = "\N{EURO SIGN}" * 20_000_000
    tracemalloc.start()
    try:
        bounded(long, 1000)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


class Record(BaseModel):
    when: date
    ratio: float


@dataclasses.dataclass
class Span:
    start: int
    inner: Any = None


class Broken(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("has no text")


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append({"again": circle})
    return circle


def _deep() -> Any:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    return deep


async def _coroutine() -> None: ...


async def _async_generator() -> AsyncIterator[int]:
    yield 1


RESULTS: dict[str, tuple[Callable[[], Any], str | None]] = {
    # what the tool returns, and what the model is told of it; None: an error
    "text": (lambda: "as it is", "as it is"),
    "none": (lambda: None, "null"),
    "not a number": (lambda: [math.nan, math.inf, -math.inf], '["NaN", "Infinity", "-Infinity"]'),
    "bytes": (lambda: b"\xff\x00", '"<2 bytes>"'),
    "bytes inside": (lambda: {"a": bytearray(3)}, '{"a": "<3 bytes>"}'),
    "a model": (
        lambda: Record(when=date(2026, 1, 2), ratio=math.nan),
        '{"when": "2026-01-02", "ratio": "NaN"}',
    ),
    "a dataclass": (lambda: Span(1, Span(2)), '{"start": 1, "inner": {"start": 2, "inner": null}}'),
    "a set": (lambda: {2, 1}, "[1, 2]"),
    "keys that are no strings": (lambda: {(1, 2): 3, None: 4}, '{"[1, 2]": 3, "null": 4}'),
    "half a surrogate": (lambda: "a\ud800b", "a?b"),
    "in a circle": (_circle, None),
    "a dataclass in a circle": (lambda: _set(span := Span(1), "inner", span), None),
    "endlessly deep": (_deep, None),
    "a generator": (lambda: (n for n in itertools.count()), None),
    "an async generator": (_async_generator, None),
    "a coroutine": (lambda: [_coroutine()], None),
    "an exception": (lambda: ValueError("mine"), None),
    "a class": (lambda: Span, None),
    "a function": (lambda: len, None),
    "an object": (object, None),
    "a text without a text": (lambda: Broken("x"), None),
    "a number with too many digits": (lambda: 10**5000, None),
}


def _set(holder: Any, name: str, value: Any) -> Any:
    setattr(holder, name, value)
    return holder


@pytest.mark.row("T12")
@ways
async def test_any_result_is_told_or_is_an_error_result(way: Way, aftermath: Aftermath) -> None:
    async def give(what: str) -> Any:
        return RESULTS[what][0]()

    play = Play(
        aftermath, [calling(*(ToolCall(w, "give", {"what": w}) for w in RESULTS)), saying()]
    )
    assert await play.answer(way, give) == "done"

    for result, (what, (_, text)) in zip(play.results, RESULTS.items(), strict=True):
        assert result.tool_call_id == what
        assert result.is_error == (text is None), what
        if text is None:
            assert result.text.startswith("Error: InvalidResult: the tool ran, but "), what
        else:
            assert result.text == text, what


# --- T13, T14: how many calls -----------------------------------------------------------------


@pytest.mark.row("T13")
@ways
async def test_calls_that_share_an_id_are_told_apart_and_answered_in_order(
    way: Way, aftermath: Aftermath
) -> None:
    async def echo(text: str, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return text

    calls = [ToolCall("same", "echo", {"text": str(n), "turns": 5 - n}) for n in range(5)]
    play = Play(aftermath, [calling(*calls), saying()])
    assert await play.answer(way, echo) == "done"

    made = play.provider.requests[1].messages[-6].tool_calls
    ids = [each.id for each in made]
    assert len(set(ids)) == 5
    assert ids[0] == "same"
    assert [each.arguments for each in made] == [each.arguments for each in calls]
    assert [result.tool_call_id for result in play.results] == ids
    assert [result.text for result in play.results] == list("01234")


@pytest.mark.row("T13")
@ways
async def test_an_answer_that_lost_its_calls_is_an_error(way: Way, aftermath: Aftermath) -> None:
    play = Play(aftermath, [calling(), saying()])
    await aftermath.keeps_history(play.store, SESSION)
    with pytest.raises(ProtocolError, match="has no call and no text") as raised:
        await play.answer(way, ping)
    assert len(play.provider.requests) == 1
    assert raised.value.partial is not None


@pytest.mark.row("T13")
@ways
async def test_a_text_without_calls_is_the_answer_whatever_its_finish_reason_says(
    way: Way, aftermath: Aftermath
) -> None:
    play = Play(aftermath, [calling(text="It is 42.")])
    assert await play.answer(way, ping) == "It is 42."


@pytest.mark.row("T13")
@ways
async def test_128_calls_of_a_turn_are_run_and_more_are_an_error(
    way: Way, aftermath: Aftermath
) -> None:
    ran: list[int] = []

    async def note(which: int) -> int:
        ran.append(which)
        return which

    def script(many: int) -> list[LLMResponse]:
        return [calling(*(call("note", n, which=n) for n in range(many))), saying()]

    play = Play(aftermath, script(128))
    assert await play.answer(way, note) == "done"
    assert [result.text for result in play.results] == [str(n) for n in range(128)]
    for many in (129, 1000):
        ran.clear()
        play = Play(aftermath, script(many))
        await aftermath.keeps_history(play.store, SESSION)
        with pytest.raises(ToolLoopError, match=f"{many} tool calls in one turn") as raised:
            await play.answer(way, note)
        assert ran == []
        assert len(play.provider.requests) == 1
        assert raised.value.usage is not None
        assert raised.value.usage.requests == 1


@pytest.mark.row("T14")
@pytest.mark.parametrize("limit", [1, 4, None])
@ways
async def test_a_model_that_always_calls_is_asked_exactly_as_often_as_it_may_be(
    way: Way, limit: int | None, aftermath: Aftermath
) -> None:
    asked = 10 if limit is None else limit
    play = Play(aftermath, [calling(call("ping", n), text=f"{n} ") for n in range(20)])
    await aftermath.keeps_history(play.store, SESSION)
    options = {} if limit is None else {"max_tool_iterations": limit}

    with pytest.raises(ToolLoopError, match=f"after {asked} turns") as raised:
        await play.answer(way, ping, **options)

    assert len(play.provider.requests) == asked
    messages, usage = raised.value.messages, raised.value.usage
    assert [message.role for message in messages] == ["user", *["assistant", "tool"] * asked]
    assert "".join(message.text for message in messages[1::2]) == "".join(
        f"{n} " for n in range(asked)
    )
    assert usage is not None
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (
        asked,
        10 * asked,
        5 * asked,
    )
    assert play.client.usage.total_input_tokens == 10 * asked


# --- T15: delegation --------------------------------------------------------------------------


class Tree:
    """A provider whose models delegate to themselves `width` times, as deep as they may."""

    default_model = "tree"

    def __init__(self, width: int, tool: str = "me") -> None:
        self.width = width
        self.tool = tool
        self.runs = self.requests = self.refused = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.requests += 1
        results = told(request)
        if not results:
            self.runs += 1
            return calling(*(call(self.tool, n, task="go on") for n in range(self.width)))
        self.refused += sum("delegation depth" in result.text for result in results)
        return saying("answered")


@pytest.mark.row("T15")
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
async def test_a_tree_of_delegations_is_exactly_as_deep_as_it_may_be(
    depth: int, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 10 if depth < 3 else 4
    monkeypatch.setenv("AETHER_MAX_DELEGATION_DEPTH", str(depth))
    tree = Tree(width)
    async with Aether(tree) as client:
        me = Agent("me", client=client, parallel_tools=parallel)
        me.tools = (me.as_tool(),)
        result = await me.run("go")
        runs = sum(width**level for level in range(depth + 1))
        assert tree.runs == runs
        assert tree.refused == width ** (depth + 1)
        assert client.usage.total_requests == tree.requests == 2 * runs
    assert (result.usage.requests, result.usage.input_tokens) == (2 * runs, 10 * 2 * runs)


def _again_with_asyncio_run(agent: Agent) -> Callable[[str], str]:
    def again(task: str) -> str:
        request = ToolCall("inner", "me", {"task": task})
        tool = agent.as_tool()
        return asyncio.run(aether.tools.dispatch_tool(request, tools=[tool])).content

    return again


def _again_with_sync(agent: Agent) -> Callable[[str], str]:
    def again(task: str) -> str:
        assert agent.client is not None
        return agent.client.sync.ask(task, tools=[agent.as_tool()])

    return again


def _again_in_a_thread(agent: Agent) -> Callable[[str], Awaitable[str]]:
    async def again(task: str) -> str:
        return await asyncio.to_thread(_again_with_asyncio_run(agent), task)

    return again


@pytest.mark.row("T15")
@pytest.mark.parametrize(
    "again", [_again_with_asyncio_run, _again_in_a_thread], ids=["in a thread", "to_thread"]
)
async def test_depth_is_kept_through_threads_and_loops_of_their_own(again: Any) -> None:
    tree = Tree(2, "again")
    async with Aether(tree) as client:
        me = Agent("me", client=client)
        me.tools = (again(me),)
        await me.run("go")
    await asyncio.get_running_loop().shutdown_default_executor()
    assert tree.runs == 1 + 2 + 4 + 8


@pytest.mark.row("T15")
async def test_depth_is_kept_through_the_blocking_client() -> None:
    """A run asks, through `client.sync`, for one that delegates: each level is one deeper."""

    class Relay(Tree):
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            self.tool = request.tools[0].name
            return await super().complete(request)

    tree = Relay(1)
    async with Aether(tree) as client:
        me = Agent("me", client=client)
        me.tools = (_again_with_sync(me),)
        await me.run("go")
    assert tree.refused == 1
    assert tree.runs == 4 + 4  # four of `me`, each of which asks once through the client


@pytest.mark.row("T15")
async def test_one_branch_at_its_limit_leaves_its_siblings_theirs() -> None:
    class Lopsided:
        default_model = "lopsided"

        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            results = told(request)
            if results:
                return saying("|".join(result.text for result in results))
            match request.messages[-1].text:
                case "go":
                    return calling(*(call("me", n, task=t) for n, t in enumerate("3105")))
                case "0":
                    return saying("end")
                case more:
                    return calling(call("me", task=str(int(more) - 1)))

    async with Aether(Lopsided()) as client:
        me = Agent("me", client=client)
        me.tools = (me.as_tool(max_depth=3),)
        three, one, none, five = (await me.run_text("go")).split("|")
    assert (one, none) == ("end", "end")
    assert "delegation depth limit of 3" in three
    assert "delegation depth limit of 3" in five


# --- T16, T17, T18: what a tool does to others ------------------------------------------------


@pytest.mark.row("T16")
@ways
async def test_a_tool_that_changes_its_arguments_changes_nobody_elses(
    way: Way, aftermath: Aftermath
) -> None:
    shared: dict[str, Any] = {"items": [1, [2]], "more": {"a": 1}}
    seen: list[Any] = []

    async def spoil(items: list[Any], more: dict[str, Any]) -> str:
        seen.append((copy.deepcopy(items), copy.deepcopy(more)))
        items[1].append("spoilt")
        items.clear()
        more["spoilt"] = True
        await asyncio.sleep(0)
        return "done"

    by_hand = Tool("spoil_too", "", {"type": "object", "properties": {}}, spoil)
    names = ["spoil", "spoil_too", "spoil", "spoil_too"]
    calls = [ToolCall(f"c{n}", name, shared) for n, name in enumerate(names)]
    play = Play(aftermath, [calling(*calls), saying()])
    assert await play.answer(way, spoil, by_hand) == "done"

    assert shared == {"items": [1, [2]], "more": {"a": 1}}
    assert seen == [([1, [2]], {"a": 1})] * 4
    recorded = play.provider.requests[1].messages[-5].tool_calls
    assert [each.arguments for each in recorded] == [shared] * 4
    events = [event.call for event in aftermath.events if event.call is not None]
    assert [each.arguments for each in events] == [shared] * 8


async def _ask(client: Aether) -> str:
    return await client.session(SESSION).ask("again")


async def _stream(client: Aether) -> str:
    return "".join([text async for text in client.session(SESSION).stream_text("again")])


async def _clear(client: Aether) -> str:
    await client.session(SESSION).clear()
    return "cleared"


async def _delegate(client: Aether) -> str:
    async def deeper() -> str:
        return await _ask(client)

    return await client.ask("deeper", tools=[deeper])


def _block(client: Aether) -> str:
    return client.sync.session(SESSION).ask("again")


@pytest.mark.row("T17")
@pytest.mark.parametrize("enter", [_ask, _stream, _clear, _block])
@pytest.mark.parametrize("way", ["session", "session stream"])
async def test_a_tool_that_asks_its_own_session_fails_at_once(
    way: Way, enter: Callable[[Aether], Any], aftermath: Aftermath
) -> None:
    play = Play(aftermath, [calling(call("again")), saying()])
    again = functools.partial(enter, play.client)
    async with asyncio.timeout(5):
        assert await play.answer(way, build_tool(again, name="again")) == "done"
    (result,) = play.results
    assert result.text.startswith("Error: SessionError: Session 's' was asked from inside its own")
    assert [message.text for message in await play.store.load(SESSION)] == ["go", "done"]
    await play.client.aclose()


@pytest.mark.row("T17")
@pytest.mark.parametrize("way", ["session", "session stream"])
async def test_a_delegate_that_asks_the_session_of_its_caller_fails_at_once(
    way: Way, aftermath: Aftermath
) -> None:
    script = [calling(call("again")), calling(call("deeper")), saying("inner"), saying()]
    play = Play(aftermath, script)
    again = functools.partial(_delegate, play.client)
    async with asyncio.timeout(5):
        assert await play.answer(way, build_tool(again, name="again")) == "done"
    (result,) = told(play.provider.requests[2])
    assert result.text.startswith("Error: SessionError: ")


@pytest.mark.row("T17")
@ways
async def test_a_tool_may_ask_its_client_and_any_other_session(
    way: Way, aftermath: Aftermath
) -> None:
    play = Play(aftermath, [calling(call("ask_more")), "inner", "other", saying()])

    async def ask_more() -> str:
        return f"{await play.client.ask('x')} {await play.client.session('other').ask('x')}"

    async with asyncio.timeout(5):
        assert await play.answer(way, ask_more) == "done"
    assert told(play.provider.requests[3])[0].text == "inner other"


class OneTurn:
    """A transport whose only answer calls the tool `close`."""

    async def request(self, *_: Any, **__: Any) -> HTTPResponse:
        return HTTPResponse(200, {}, json.dumps(self._answer("message")).encode())

    @contextlib.asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        answer = f"data: {json.dumps(self._answer('delta'))}\n\ndata: [DONE]\n\n".encode()

        class Body:
            status = 200
            headers: dict[str, str] = {}  # noqa: RUF012 - as the port has it

            async def chunks(self) -> AsyncIterator[bytes]:
                yield answer

        yield Body()

    async def aclose(self) -> None:
        return

    def _answer(self, where: str) -> dict[str, Any]:
        function = {"name": "close", "arguments": "{}"}
        made = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]}
        return {"choices": [{"index": 0, where: made, "finish_reason": "tool_calls"}]}


@pytest.mark.row("T17")
@pytest.mark.parametrize("in_a_thread", [False, True])
@ways
async def test_a_tool_that_closes_the_client_ends_the_run_with_an_error_that_says_so(
    way: Way, in_a_thread: bool, aftermath: Aftermath
) -> None:
    config = ProviderConfig(
        "openai", "m", aftermath.key, transport=OneTurn, options={"api": "chat"}
    )
    client = aftermath.client(Aether(config=config))

    async def close_async() -> str:
        await client.aclose()
        return "closed"

    def close_blocking() -> str:
        return asyncio.run(close_async())

    close = build_tool(close_blocking if in_a_thread else close_async, name="close")
    async with asyncio.timeout(5):
        with pytest.raises(ClientClosedError):
            await get_answer(client, way, tools=[close])
    first, *rest = client.usage.ledger
    assert first.state != "not_billed"
    assert all(entry.state == "not_billed" for entry in rest)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.row("T18")
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("in_a_thread", [False, True])
@ways
async def test_a_tool_sees_the_callers_context_and_what_it_sets_stays_its_own(
    way: Way, in_a_thread: bool, parallel: bool, aftermath: Aftermath
) -> None:
    def change() -> str:
        seen = variable.get()
        variable.set("changed by a tool")
        return seen

    async def change_async() -> str:
        await asyncio.sleep(0)
        return change()

    tool = build_tool(change if in_a_thread else change_async, name="change")
    turns = [calling(call("change", 2 * n), call("change", 2 * n + 1)) for n in range(2)]
    play = Play(aftermath, [*turns, saying()])
    token = variable.set("the caller's")
    try:
        assert await play.answer(way, tool, parallel_tools=parallel) == "done"
        assert variable.get() == "the caller's"
    finally:
        variable.reset(token)
    assert [result.text for result in told(play.provider.requests[2])] == ["the caller's"] * 4


@pytest.mark.row("T18")
async def test_a_stream_that_runs_tools_leaves_its_readers_context_alone(
    aftermath: Aftermath,
) -> None:
    seen: list[str] = []

    async def change() -> str:
        seen.append(variable.get())
        variable.set("changed by a tool")
        return "changed"

    play = Play(aftermath, [calling(call("change"), text="let me see "), saying("here it is")])
    texts: list[str] = []
    async with play.client.stream_text("go", tools=[change]) as stream:
        while "".join(texts) != "let me see here it is":
            variable.set(f"before {len(texts)}")
            texts.append(await anext(stream))
            assert variable.get() == f"before {len(texts) - 1}"
    assert seen == ["before 3"]
