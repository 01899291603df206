"""Events: which there are, what they carry, and that no subscriber can change a run."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError

import aether.events
from aether import Aether, AetherError, Agent
from aether.errors import ConfigurationError, ProviderError, ToolError
from aether.events import (
    EVENT_NAMES,
    REQUEST_COMPLETE,
    REQUEST_ERROR,
    REQUEST_START,
    STREAM_CHUNK,
    STREAM_COMPLETE,
    STREAM_ERROR,
    STREAM_START,
    TOOL_COMPLETE,
    TOOL_ERROR,
    TOOL_START,
    Event,
    EventBus,
)
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.testing import FakeProvider
from tests.faults.aftermath import Aftermath

TERMINAL = {
    REQUEST_START: (REQUEST_COMPLETE, REQUEST_ERROR),
    STREAM_START: (STREAM_COMPLETE, STREAM_ERROR),
    TOOL_START: (TOOL_COMPLETE, TOOL_ERROR),
}


def ping() -> str:
    """Answer."""
    return "pong"


def broken() -> str:
    """Fail."""
    raise ValueError("tool trouble")


async def hanging() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return "never"


def calling(*names: str) -> LLMResponse:
    return LLMResponse(
        text="I call.",
        model="fake-model",
        input_tokens=5,
        output_tokens=2,
        tool_calls=[ToolCall(f"{name}-{n}", name, {}) for n, name in enumerate(names)],
        finish_reason="tool_calls",
    )


class Hanging:
    """Never answers."""

    default_model = "hanging"

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        await asyncio.Event().wait()
        raise NotImplementedError

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(text="x")
        await asyncio.Event().wait()


class Unnamed:
    """Has no default model; says which one it used."""

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return LLMResponse(text="ok", model="really-used")


def record(bus: EventBus) -> list[Event]:
    seen: list[Event] = []
    for name in EVENT_NAMES:
        bus.subscribe(name, seen.append)
    return seen


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def everything(client: Aether) -> list[str]:
    """Runs that give rise to each of the ten events; what the caller gets."""
    got = [await client.ask("1", tools=[ping, broken])]
    got.append("".join([text async for text in client.stream_text("2")]))
    for failing in (client.ask("3"), anext(client.stream_text("4"))):
        try:
            await failing
        except AetherError as error:
            got.append(str(error))
    return got


def everything_script() -> FakeProvider:
    trouble = ProviderError("provider trouble")
    return FakeProvider(responses=[calling("ping", "broken"), "done", "a stream", trouble, trouble])


EVERYTHING = ["done", "a stream", "provider trouble", "provider trouble"]


async def settle() -> None:
    """Let every task get to where it waits, or ends."""
    for _ in range(10):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Future[Any]) -> None:
    """Let it get to where it waits, then cancel it and await its end."""
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- which there are --------------------------------------------------------------------------


def test_names_are_the_ten_promised() -> None:
    assert set(EVENT_NAMES) == {
        "request.start",
        "request.complete",
        "request.error",
        "stream.start",
        "stream.chunk",
        "stream.complete",
        "stream.error",
        "tool.start",
        "tool.complete",
        "tool.error",
    }
    constants = {getattr(aether.events, name.upper().replace(".", "_")) for name in EVENT_NAMES}
    assert constants == set(EVENT_NAMES)


async def test_the_ten_are_all_published() -> None:
    client = Aether(everything_script())
    seen = record(client.events)
    assert await everything(client) == EVERYTHING
    assert set(names(seen)) == set(EVENT_NAMES)


@pytest.mark.parametrize("wrong", ["request", "request.started", "*", ""])
def test_unknown_event_is_an_error_that_lists_the_known(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"request\.start"):
        EventBus().subscribe(wrong, print)
    with pytest.raises(ConfigurationError, match=r"request\.start"):
        Aether(FakeProvider()).on(wrong)(print)


def test_what_cannot_be_called_cannot_subscribe() -> None:
    wrong: Any = "print"
    with pytest.raises(TypeError):
        EventBus().subscribe(REQUEST_START, wrong)


@pytest.mark.row("E6")
async def test_run_with_tools_tells_its_steps_in_order() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping])
    assert names(seen) == [
        REQUEST_START,
        REQUEST_COMPLETE,
        TOOL_START,
        TOOL_COMPLETE,
        REQUEST_START,
        REQUEST_COMPLETE,
    ]
    assert [event.turn for event in seen] == [1, 1, 1, 1, 2, 2]


@pytest.mark.row("E6")
async def test_stream_with_tools_starts_and_ends_once_and_tells_no_requests() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)
    deltas = [text async for text in client.stream_text("hi", tools=[ping])]
    assert names(seen) == [
        STREAM_START,
        *[STREAM_CHUNK] * 2,
        TOOL_START,
        TOOL_COMPLETE,
        *[STREAM_CHUNK] * 2,
        STREAM_COMPLETE,
    ]
    told = [event.chunk.text for event in seen if event.chunk is not None]
    assert told == deltas


async def test_answer_of_a_provider_without_stream_is_one_chunk_event() -> None:
    client = Aether(Unnamed())
    seen = record(client.events)
    async for _ in client.stream("hi"):
        pass
    assert names(seen) == [STREAM_START, STREAM_CHUNK, STREAM_COMPLETE]


@pytest.mark.parametrize("streamed", [False, True])
async def test_session_turn_is_told_like_any(streamed: bool) -> None:
    client = Aether(FakeProvider())
    seen = record(client.events)
    session = client.session("s")
    if streamed:
        async for _ in session.stream("hi"):
            pass
        assert names(seen) == [STREAM_START, STREAM_CHUNK, STREAM_CHUNK, STREAM_COMPLETE]
    else:
        await session.ask("hi")
        assert names(seen) == [REQUEST_START, REQUEST_COMPLETE]
    assert {event.session_id for event in seen} == {"s"}


# --- what they carry --------------------------------------------------------------------------


def given(event: Event) -> set[str]:
    """The names of the payload's fields that are set."""
    fields = ("request", "response", "chunk", "call", "result", "error", "duration_seconds")
    return {name for name in fields if getattr(event, name) is not None}


async def test_each_event_has_the_payload_that_applies_and_no_other() -> None:
    client = Aether(everything_script())
    seen = record(client.events)
    await everything(client)
    payload = {
        REQUEST_START: {"request"},
        REQUEST_COMPLETE: {"request", "response", "duration_seconds"},
        REQUEST_ERROR: {"request", "error", "duration_seconds"},
        STREAM_START: {"request"},
        STREAM_CHUNK: {"request", "chunk"},
        STREAM_COMPLETE: {"request", "response", "duration_seconds"},
        STREAM_ERROR: {"request", "error", "duration_seconds"},
        TOOL_START: {"call"},
        TOOL_COMPLETE: {"call", "result", "duration_seconds"},
        TOOL_ERROR: {"call", "result", "error", "duration_seconds"},
    }
    for event in seen:
        assert given(event) == payload[event.name], event.name
        assert event.cancelled is False
        assert event.duration_seconds is None or 0 <= event.duration_seconds < 60


async def test_request_and_response_are_those_of_the_call() -> None:
    fake = FakeProvider("hello")
    client = Aether(fake)
    seen = record(client.events)
    response = await client.complete("hi")
    start, complete = seen
    assert start.request is not None
    assert [message.text for message in start.request.messages] == ["hi"]
    asked = fake.requests[0].replace(context=None)
    assert complete.request == start.request == asked
    assert complete.response == response


async def test_second_turns_request_has_the_results_of_the_first() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping])
    second = [event.request for event in seen if event.name == REQUEST_START][1]
    assert second is not None
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[-1].text == "pong"


async def test_model_of_the_request_is_the_resolved_one() -> None:
    client = Aether(FakeProvider(default_model="usual"))
    seen = record(client.events)
    await client.ask("hi")
    await client.ask("hi", model="special")
    async for _ in client.stream("hi", model="special"):
        pass
    started = [event for event in seen if event.name in (REQUEST_START, STREAM_START)]
    models = [event.request.model for event in started if event.request is not None]
    assert models == ["usual", "special", "special"]


async def test_model_of_the_request_is_none_where_the_provider_has_no_default() -> None:
    client = Aether(Unnamed())
    seen = record(client.events)
    await client.ask("hi")
    start, complete = seen
    assert start.request is not None
    assert start.request.model is None
    assert complete.response is not None
    assert complete.response.model == "really-used"


async def test_error_is_the_one_that_the_caller_gets() -> None:
    class Foreign(Unnamed):
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            raise KeyError("foreign")

    client = Aether(Foreign())
    seen = record(client.events)
    with pytest.raises(AetherError) as raised:
        await client.ask("hi")
    assert names(seen) == [REQUEST_START, REQUEST_ERROR]
    assert seen[1].error is raised.value
    with pytest.raises(AetherError) as raised:
        await anext(client.stream("hi"))
    assert seen[-1].error is raised.value


async def test_tool_events_carry_call_and_result() -> None:
    client = Aether(FakeProvider(responses=[calling("ping", "broken", "nobody"), "done"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping, broken], parallel_tools=False)
    told = [event for event in seen if event.name.startswith("tool.")]
    assert [(event.name, event.call.name if event.call else None) for event in told] == [
        (TOOL_START, "ping"),
        (TOOL_COMPLETE, "ping"),
        (TOOL_START, "broken"),
        (TOOL_ERROR, "broken"),
        (TOOL_START, "nobody"),
        (TOOL_ERROR, "nobody"),
    ]
    assert told[1].result.content == "pong"
    assert "tool trouble" in told[3].result.content
    assert isinstance(told[3].error, ToolError)
    assert "tool trouble" in str(told[3].error)
    assert "nobody" in told[5].result.content


@pytest.mark.row("E5")
@pytest.mark.parametrize(
    "field", ["name", "run_id", "request", "response", "chunk", "call", "error", "cancelled"]
)
def test_event_is_frozen(field: str) -> None:
    event = Event(name=REQUEST_START, run_id="r")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, field, None)
    with pytest.raises((AttributeError, TypeError)):
        event.more = 1  # type: ignore[attr-defined]  # that there is no such field is the point


@pytest.mark.row("E5")
async def test_payloads_are_frozen() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping])
    for event in seen:
        for name, attribute in (
            ("request", "model"),
            ("response", "text"),
            ("call", "name"),
            ("result", "content"),
        ):
            payload = getattr(event, name)
            if payload is not None:
                with pytest.raises((ValidationError, AttributeError)):
                    setattr(payload, attribute, "changed")


@pytest.mark.row("E5")
async def test_chunk_that_a_subscriber_changes_is_not_the_readers() -> None:
    def change(event: Event) -> None:
        assert event.chunk is not None
        event.chunk.text = "changed"

    client = Aether(FakeProvider("Hello, world"))
    client.on(STREAM_CHUNK)(change)
    chunks = [chunk async for chunk in client.stream("hi")]
    assert "".join(chunk.text for chunk in chunks) == "Hello, world"


@pytest.mark.parametrize("name", [REQUEST_START, STREAM_START])
async def test_a_request_that_a_subscriber_asks_with_is_no_attempt_of_the_run(name: str) -> None:
    fake = FakeProvider()
    shadow = CostTrackingProvider(FakeProvider())

    async def ask_too(event: Event) -> None:
        assert event.request is not None
        await shadow.complete(event.request)

    client = Aether(fake)
    client.on(name)(ask_too)
    if name == REQUEST_START:
        await client.ask("hi")
    else:
        assert [chunk async for chunk in client.stream("hi")]
    assert shadow.usage.total_requests == 1
    [request] = fake.requests
    assert request.context is not None
    assert len(request.context.entries) == 1


# --- ids --------------------------------------------------------------------------------------


async def test_events_of_one_run_share_an_id_that_no_other_has() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done", "other", "third"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping])
    first = {event.run_id for event in seen}
    assert len(first) == 1
    seen.clear()
    await client.ask("hi")
    async for _ in client.stream("hi"):
        pass
    others = {event.run_id for event in seen}
    assert len(others) == 2
    assert not first & others


@pytest.mark.row("E6")
async def test_call_id_ties_a_start_to_its_end() -> None:
    client = Aether(everything_script())
    seen = record(client.events)
    await everything(client)
    ended: Counter[tuple[str, str | None]] = Counter()
    for event in seen:
        assert event.call_id
        for start, ends in TERMINAL.items():
            if event.name in ends:
                ended[start, event.call_id] += 1
    started = Counter((event.name, event.call_id) for event in seen if event.name in TERMINAL)
    assert started == ended
    assert set(started.values()) == {1}


async def test_call_id_of_a_tool_is_the_models() -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)
    await client.ask("hi", tools=[ping])
    assert [event.call_id for event in seen if event.call is not None] == ["ping-0", "ping-0"]


async def test_delegated_run_names_its_parent_and_its_agent() -> None:
    call = ToolCall("h", "helper", {"task": "Help."})
    client = Aether(
        FakeProvider(
            responses=[LLMResponse(text="", model="m", tool_calls=[call]), "helped", "done"]
        )
    )
    seen = record(client.events)
    await Agent("chief", tools=[Agent("helper").as_tool()], client=client).run_text("Do it.")
    assert names(seen) == [
        REQUEST_START,
        REQUEST_COMPLETE,
        TOOL_START,
        REQUEST_START,
        REQUEST_COMPLETE,
        TOOL_COMPLETE,
        REQUEST_START,
        REQUEST_COMPLETE,
    ]
    outer, inner = seen[0], seen[3]
    assert (outer.agent, inner.agent) == ("chief", "helper")
    assert (outer.parent_run_id, inner.parent_run_id) == (None, outer.run_id)
    assert inner.run_id != outer.run_id


# --- exactly one end --------------------------------------------------------------------------


@pytest.mark.row("E6")
async def test_cancelled_call_ends_once_with_an_error_event() -> None:
    client = Aether(Hanging())
    seen = record(client.events)
    await cancel(asyncio.ensure_future(client.ask("hi")))
    assert names(seen) == [REQUEST_START, REQUEST_ERROR]
    assert seen[1].cancelled
    assert isinstance(seen[1].error, asyncio.CancelledError)


@pytest.mark.row("E6")
async def test_cancelled_stream_ends_once_with_an_error_event() -> None:
    client = Aether(Hanging())
    seen = record(client.events)

    async def read() -> None:
        async for _ in client.stream("hi"):
            pass

    await cancel(asyncio.ensure_future(read()))
    assert names(seen) == [STREAM_START, STREAM_CHUNK, STREAM_ERROR]
    assert seen[-1].cancelled


@pytest.mark.row("E6")
async def test_cancelled_tools_end_once_each() -> None:
    client = Aether(FakeProvider(responses=[calling("hanging", "hanging")]))
    seen = record(client.events)
    await cancel(asyncio.ensure_future(client.ask("hi", tools=[hanging])))
    told = [event for event in seen if event.name.startswith("tool.")]
    assert names(told) == [TOOL_START, TOOL_START, TOOL_ERROR, TOOL_ERROR]
    assert all(event.cancelled for event in told[2:])


@pytest.mark.row("E4")
@pytest.mark.parametrize("start", list(TERMINAL))
async def test_subscriber_of_a_start_that_cancels_the_run_leaves_one_end(start: str) -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)

    async def run() -> None:
        if start == STREAM_START:
            async for _ in client.stream("hi", tools=[ping]):
                pass
        else:
            await client.ask("hi", tools=[ping])

    task = asyncio.ensure_future(run())

    async def stop_it(event: Event) -> None:
        task.cancel()
        await asyncio.sleep(0)

    client.on(start)(stop_it)
    with pytest.raises(asyncio.CancelledError):
        await task
    told = names(seen)
    assert told.count(start) == 1
    assert sum(told.count(end) for end in TERMINAL[start]) == 1


@pytest.mark.row("E4")
@pytest.mark.parametrize("end", [REQUEST_COMPLETE, STREAM_COMPLETE, TOOL_COMPLETE])
async def test_subscriber_of_an_end_that_cancels_the_run_adds_no_second_end(end: str) -> None:
    client = Aether(FakeProvider(responses=[calling("ping"), "done"]))
    seen = record(client.events)

    async def run() -> None:
        if end == STREAM_COMPLETE:
            async for _ in client.stream("hi", tools=[ping]):
                pass
        else:
            await client.ask("hi", tools=[ping])

    task = asyncio.ensure_future(run())

    async def stop_it(event: Event) -> None:
        task.cancel()
        await asyncio.sleep(0)

    client.on(end)(stop_it)
    with pytest.raises(asyncio.CancelledError):
        await task
    told = names(seen)
    start = next(start for start, ends in TERMINAL.items() if end in ends)
    assert told.count(start) == sum(told.count(name) for name in TERMINAL[start]) == 1


@pytest.mark.row("T2")
def test_tool_that_ends_the_program_has_its_end_told() -> None:
    def leave() -> str:
        """Leave."""
        raise SystemExit(3)

    client = Aether(FakeProvider(responses=[calling("leave")]))
    seen = record(client.events)
    with pytest.raises(SystemExit):
        asyncio.run(client.ask("hi", tools=[leave]))
    assert names(seen)[2:] == [TOOL_START, TOOL_ERROR]


# --- subscribers ------------------------------------------------------------------------------


@pytest.mark.row("E2")
async def test_subscribers_are_awaited_in_the_order_of_subscription() -> None:
    client = Aether(FakeProvider())
    order: list[str] = []

    async def first(event: Event) -> None:
        await settle()
        order.append("first")

    def second(event: Event) -> None:
        order.append("second")

    async def third(event: Event) -> str:
        order.append("third")
        return "what it returns is nobody's business"

    for subscriber in (first, second, third):
        client.on(REQUEST_START)(subscriber)
    client.on(REQUEST_COMPLETE)(second)
    assert await client.ask("hi") == "hello"
    assert order == ["first", "second", "third", "second"]


async def test_object_with_an_async_call_subscribes_too() -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard = 0

        async def __call__(self, event: Event) -> None:
            await asyncio.sleep(0)
            self.heard += 1

    listener = Listener()
    client = Aether(FakeProvider())
    client.on(REQUEST_START)(listener)
    await client.ask("hi")
    assert listener.heard == 1


async def test_unsubscribed_hears_no_more_and_twice_is_fine() -> None:
    bus = EventBus()
    client = Aether(FakeProvider(), events=bus)
    heard: list[str] = []
    unsubscribe = bus.subscribe(REQUEST_START, lambda event: heard.append("a"))
    bus.subscribe(REQUEST_START, lambda event: heard.append("b"))
    unsubscribe()
    unsubscribe()
    await client.ask("hi")
    assert heard == ["b"]


async def test_subscribed_twice_is_called_twice_and_each_unsubscribes_one() -> None:
    bus = EventBus()
    client = Aether(FakeProvider(), events=bus)
    heard: list[Event] = []
    hear = heard.append
    unsubscribe = bus.subscribe(REQUEST_START, hear)
    bus.subscribe(REQUEST_START, hear)
    await client.ask("hi")
    assert len(heard) == 2
    unsubscribe()
    unsubscribe()
    await client.ask("hi")
    assert len(heard) == 3


def _raises(error: BaseException) -> Callable[[Event], None]:
    def subscriber(event: Event) -> None:
        raise error

    return subscriber


def _raises_later(error: BaseException) -> Callable[[Event], Awaitable[None]]:
    async def subscriber(event: Event) -> None:
        await asyncio.sleep(0)
        raise error

    return subscriber


FAILURES: list[BaseException] = [
    ValueError("subscriber trouble"),
    TimeoutError(),
    StopIteration(),
    AetherError("from a call of its own"),
    ExceptionGroup("several", [ValueError()]),
    asyncio.CancelledError(),
    GeneratorExit(),
]


@pytest.mark.row("E1")
@pytest.mark.parametrize("make", [_raises, _raises_later])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", EVENT_NAMES)
async def test_subscribers_exception_is_logged_and_changes_nothing(
    name: str, error: BaseException, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = Aether(everything_script())
    before = record(client.events)
    client.on(name)(make(error))
    after = record(client.events)
    with caplog.at_level(logging.DEBUG, logger="aether.events"):
        assert await everything(client) == EVERYTHING
    assert sorted(names(before)) == sorted(names(after))
    told = [entry for entry in caplog.records if entry.name == "aether.events"]
    failures = [entry for entry in told if entry.levelno == logging.ERROR]
    assert len(failures) == names(before).count(name)
    assert all(name in entry.getMessage() for entry in failures)


class Unawaitable:
    def __await__(self) -> Any:
        raise ValueError("cannot be awaited")


@pytest.mark.row("E1")
async def test_awaitable_that_cannot_be_awaited_is_a_failing_subscriber(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Aether(FakeProvider())
    client.on(REQUEST_START)(lambda event: Unawaitable())
    assert await client.ask("hi") == "hello"
    assert len(caplog.records) == 1


@pytest.mark.row("E3")
async def test_interrupt_in_a_subscriber_goes_through() -> None:
    client = Aether(FakeProvider())
    client.on(REQUEST_START)(_raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        await client.ask("hi")


def test_subscriber_has_a_second() -> None:
    assert aether.events.SLOW_SUBSCRIBER_SECONDS == 1.0


@pytest.mark.row("E2")
@pytest.mark.parametrize("slow_event", [REQUEST_START, REQUEST_COMPLETE])
async def test_slow_subscriber_goes_on_as_a_task(
    slow_event: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aether.events, "SLOW_SUBSCRIBER_SECONDS", 0.005)
    client = Aether(FakeProvider())
    go_on, heard = asyncio.Event(), list[str]()
    done = asyncio.Event()

    async def slow(event: Event) -> None:
        heard.append("begun")
        await go_on.wait()
        heard.append("ended")
        done.set()

    client.on(slow_event)(slow)
    client.on(slow_event)(lambda event: heard.append("next"))
    assert await client.ask("hi") == "hello"
    assert heard == ["begun", "next"]
    assert [entry.levelname for entry in caplog.records] == ["WARNING"]
    go_on.set()
    await asyncio.wait_for(done.wait(), 1)
    assert heard == ["begun", "next", "ended"]


@pytest.mark.row("E2")
async def test_slow_subscriber_that_fails_later_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aether.events, "SLOW_SUBSCRIBER_SECONDS", 0.005)
    client = Aether(FakeProvider())
    go_on = asyncio.Event()

    async def slow(event: Event) -> None:
        await go_on.wait()
        raise ValueError("late trouble")

    client.on(REQUEST_START)(slow)
    assert await client.ask("hi") == "hello"
    go_on.set()
    await settle()
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "ERROR"]


@pytest.mark.row("E2")
async def test_subscribers_after_one_during_which_the_run_is_cancelled_hear_all_the_same() -> None:
    client = Aether(FakeProvider())
    order: list[str] = []
    go_on = asyncio.Event()

    async def waits(event: Event) -> None:
        await go_on.wait()
        order.append("waited")

    async def next_one(event: Event) -> None:
        order.append("next")

    client.on(REQUEST_START)(waits)
    client.on(REQUEST_START)(next_one)
    client.on(REQUEST_START)(lambda event: order.append("last"))
    await cancel(asyncio.ensure_future(client.ask("hi")))
    go_on.set()
    await settle()
    assert sorted(order) == ["last", "next", "waited"]
    assert order.index("next") < order.index("last")


@pytest.mark.row("E4")
async def test_subscriber_may_unsubscribe_itself_and_subscribe_others_meanwhile() -> None:
    client = Aether(FakeProvider())
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append("once")
        unsubscribe()
        client.on(REQUEST_START)(lambda event: heard.append("new"))

    unsubscribe = client.events.subscribe(REQUEST_START, once)
    client.on(REQUEST_START)(lambda event: heard.append("peer"))
    await client.ask("hi")
    assert heard == ["once", "peer"]
    await client.ask("hi")
    assert heard == ["once", "peer", "peer", "new"]


@pytest.mark.row("E4")
async def test_subscriber_may_ask_the_client() -> None:
    client = Aether(FakeProvider())
    answers: list[str] = []

    async def curious(event: Event) -> None:
        if event.request is not None and event.request.messages[0].text == "outer":
            answers.append(await client.ask("inner"))

    client.on(REQUEST_START)(curious)
    client.on(REQUEST_COMPLETE)(curious)
    assert await client.ask("outer") == "hello"
    assert answers == ["hello", "hello"]
    assert client.usage.total_requests == 3


@pytest.mark.row("E4")
async def test_subscriber_may_close_the_client() -> None:
    client = Aether(FakeProvider())

    async def close(event: Event) -> None:
        await client.aclose()

    client.on(REQUEST_COMPLETE)(close)
    assert await client.ask("hi") == "hello"


@pytest.mark.row("E7")
async def test_without_subscribers_no_event_is_made(
    monkeypatch: pytest.MonkeyPatch, aftermath: Aftermath
) -> None:
    import aether.engine.context

    aftermath.listen_to_nobody()
    made: list[str] = []

    class Counted(Event):
        def __init__(self, **fields: Any) -> None:
            made.append(fields["name"])
            super().__init__(**fields)

    monkeypatch.setattr(aether.engine.context, "Event", Counted)
    client = Aether(everything_script())
    await everything(client)
    assert made == []
    client = Aether(everything_script())
    client.on(TOOL_START)(lambda event: None)
    await everything(client)
    assert made == [TOOL_START, TOOL_START]


def test_subscribing_from_many_threads_loses_nobody() -> None:
    bus = EventBus()
    heard: list[Event] = []
    start = threading.Barrier(4)

    def subscribe() -> None:
        start.wait()
        for _ in range(300):
            bus.subscribe(REQUEST_START, heard.append)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=subscribe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    asyncio.run(bus.publish(Event(name=REQUEST_START, run_id="r")))
    assert len(heard) == 1200
