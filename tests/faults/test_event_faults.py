"""Subscribers that fail, dawdle, cancel, change what they are told: no run is any different.

All ten events, subscribers sync and async. What runs come to is compared with what they come to
with nobody listening: texts, errors, requests, history, ledger and cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import inspect
import sys
from collections.abc import AsyncGenerator, Callable
from copy import deepcopy
from typing import Any

import pytest

import aether.events
from aether import Aether, AetherError, Message
from aether.errors import ServerError
from aether.events import EVENT_NAMES, Event, EventBus
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import ImagePart, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.testing import FakeProvider
from tests.faults.aftermath import Aftermath
from tests.faults.event_grammar import check
from tests.faults.plans import in_virtual_time
from tests.faults.ways import SESSION, WAYS, Way, calling, get_answer, saying

MODEL = "gpt-4o-mini"
"""One with a price."""

ten = pytest.mark.parametrize("name", EVENT_NAMES)
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])

Behaviour = Callable[[Event], Any]


# --- runs that give rise to each of the ten events --------------------------------------------


async def echo(items: list[Any]) -> str:
    """Answer."""
    await asyncio.sleep(0)
    return f"echo {items}"


async def broken() -> str:
    """Fail."""
    raise ValueError("tool trouble")


def a_script() -> list[LLMResponse | str | BaseException]:
    calls = calling(
        ToolCall("c1", "echo", {"items": [1, [2]]}), ToolCall("c2", "broken"), model=MODEL
    )
    done = saying("It is done.", model=MODEL)
    trouble = [ServerError("first trouble"), ServerError("second trouble")]
    return [calls, done, calls, done, *trouble, saying("at last", model=MODEL)]


class Pausing(FakeProvider):
    """Waits, as any provider does that is not a fake."""

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        await asyncio.sleep(0)
        return await super().complete(request)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        async for chunk in super().stream(request):
            await asyncio.sleep(0)
            yield chunk


class Scene:
    """A client whose runs give rise to all ten events."""

    def __init__(self) -> None:
        self.provider = Pausing(responses=a_script(), default_model=MODEL)
        self.store = InMemorySessionStore()
        self.client = Aether(self.provider, memory_store=self.store)

    async def play(self) -> list[str]:
        """What the callers get."""
        client, tools = self.client, list[Any]([echo, broken])
        image = ImagePart(data=b"png", media_type="image/png")
        prompt = [Message("user", ["look", image])]
        got = [await client.ask(prompt, tools=tools)]
        got.append((await get_answer(client, "session stream", "stream", tools=tools)).text)
        ways: tuple[Way, ...] = ("ask", "stream")
        for way in ways:
            try:
                got.append((await get_answer(client, way, "fail")).text)
            except AetherError as error:
                got.append(f"{type(error).__name__}: {error}")
        got.append(await client.session(SESSION).ask("again"))
        return got

    async def outcome(self) -> dict[str, Any]:
        """All that a run leaves behind."""
        got = await self.play()
        usage = self.client.usage
        return {
            "got": got,
            "requests": [request.messages for request in self.provider.requests],
            "history": await self.store.load(SESSION),
            "ledger": [(e.state, e.input_tokens, e.output_tokens, e.error) for e in usage.ledger],
            "cost": usage.total_cost_usd,
            "total": (usage.total_requests, usage.total_input_tokens, usage.total_output_tokens),
        }


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What the runs come to while nobody listens."""
    outcome: dict[str, Any] = in_virtual_time(Scene().outcome)
    assert outcome["cost"] > 0
    assert outcome["got"][0] == "It is done."
    assert len(outcome["history"]) == 4
    return outcome


def subscriber(act: Behaviour, *, asynchronous: bool) -> Callable[[Event], Any]:
    """A subscriber that does this, at once or after it has waited."""
    if not asynchronous:
        return act

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        outcome = act(event)
        if inspect.isawaitable(outcome):
            await outcome

    return later


# --- E1, E5: what a subscriber may do ---------------------------------------------------------


class OwnError(BaseException):
    pass


def _raises(error: BaseException) -> Behaviour:
    def act(_: Event) -> None:
        raise error

    return act


RAISING: dict[str, Behaviour] = {
    type(error).__name__: _raises(error)
    for error in (
        ValueError("subscriber trouble"),
        StopIteration(),
        asyncio.CancelledError(),
        OwnError(),
    )
}


@pytest.mark.row("E1", "E3")
@both
@pytest.mark.parametrize("act", RAISING.values(), ids=RAISING.keys())
@ten
def test_subscriber_that_raises_is_logged_once_and_changes_nothing(
    name: str,
    act: Behaviour,
    asynchronous: bool,
    alone: dict[str, Any],
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    heard: list[Event] = []
    scene.client.on(name)(heard.append)
    scene.client.on(name)(subscriber(act, asynchronous=asynchronous))
    aftermath.client(scene.client)
    assert in_virtual_time(scene.outcome) == alone
    check(aftermath.events)
    assert heard
    told = [entry for entry in caplog.records if entry.name == "aether.events"]
    assert [entry.levelname for entry in told] == ["ERROR"] * len(heard)
    assert all(name in entry.getMessage() for entry in told)


def _set_fields(event: Event) -> None:
    for field in dataclasses.fields(event):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, None)


def _spoil(value: Any, depth: int = 0) -> None:
    """Change in it whatever can be changed."""
    if depth > 6:
        return
    if isinstance(value, dict):
        for each in list(value.values()):
            _spoil(each, depth + 1)
        value.clear()
        value["spoilt"] = True
    elif isinstance(value, list):
        for each in value:
            _spoil(each, depth + 1)
        value.reverse()
        value.append("spoilt")
    elif isinstance(value, tuple):
        for each in value:
            _spoil(each, depth + 1)
    elif isinstance(value, StreamChunk):
        value.text = "spoilt"
    elif hasattr(value, "model_fields_set"):
        for field in type(value).model_fields:
            _spoil(getattr(value, field), depth + 1)
            with contextlib.suppress(Exception):
                setattr(value, field, None)


def _spoil_all(event: Event) -> None:
    _set_fields(event)
    for payload in (event.request, event.response, event.chunk, event.call, event.result):
        _spoil(payload)


@pytest.mark.row("E5")
@both
@pytest.mark.parametrize("names", [*([name] for name in EVENT_NAMES), list(EVENT_NAMES)], ids=len)
def test_subscriber_that_changes_what_it_is_told_changes_no_run(
    names: list[str], asynchronous: bool, alone: dict[str, Any], aftermath: Aftermath
) -> None:
    scene = Scene()
    expected = deepcopy(alone)
    for name in names:
        scene.client.on(name)(subscriber(_spoil_all, asynchronous=asynchronous))
    aftermath.client(scene.client)
    assert in_virtual_time(scene.outcome) == expected


@pytest.mark.row("E5")
@pytest.mark.parametrize("way", WAYS)
async def test_tool_is_called_as_the_model_asked_whatever_subscribers_do(
    way: Way, aftermath: Aftermath
) -> None:
    ran: list[str] = []

    def delete(path: str, more: list[str]) -> str:
        ran.append(f"{path} {more}")
        return "deleted"

    script = [calling(ToolCall("c", "delete", {"path": "/tmp/x", "more": ["a"]})), saying()]
    provider = FakeProvider(responses=script)
    client = Aether(provider)
    for name in EVENT_NAMES:
        client.on(name)(_spoil_all)
    aftermath.client(client)
    assert (await get_answer(client, way, tools=[delete])).text == "done"
    assert ran == ["/tmp/x ['a']"]
    assert provider.requests[1].messages[-2].tool_calls[0].arguments["path"] == "/tmp/x"
    assert provider.requests[1].messages[-1].text == "deleted"


@pytest.mark.row("E5")
@pytest.mark.parametrize("way", WAYS)
async def test_value_of_a_typed_answer_is_the_callers_own(way: Way, aftermath: Aftermath) -> None:
    client = Aether(FakeProvider('{"a": [1, 2]}'))
    for name in EVENT_NAMES:
        client.on(name)(_spoil_all)
    aftermath.client(client)
    response = await get_answer(client, way, output=dict[str, list[int]])
    assert response.output == {"a": [1, 2]}


class Fragile:
    """A subscriber whose end fails."""

    def __call__(self, event: Event) -> None: ...

    def __del__(self) -> None:
        raise ValueError("trouble at its end")


@pytest.mark.row("E1")
@ten
def test_subscriber_that_fails_when_it_is_thrown_away_changes_nothing(
    name: str, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    complained: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: complained.append(str(told.exc_value)))
    scene = Scene()
    leaving = [scene.client.events.subscribe(name, Fragile())]
    scene.client.on(name)(lambda _: leaving[0]())
    assert in_virtual_time(scene.outcome) == alone
    leaving.clear()
    gc.collect()
    assert complained == ["trouble at its end"]


# --- E2: subscribers that take their time -----------------------------------------------------


@pytest.mark.row("E2")
@ten
def test_async_subscriber_has_a_second_and_then_goes_on_by_itself(
    name: str,
    alone: dict[str, Any],
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    order: list[tuple[str, int]] = []
    times: list[float] = []

    @scene.client.on(name)
    async def slow(event: Event) -> None:
        number = len(times)
        times.append(asyncio.get_running_loop().time())
        order.append(("begun", number))
        await asyncio.sleep(5)
        order.append(("ended", number))

    @scene.client.on(name)
    def next_one(_: Event) -> None:
        order.append(("next", len(times) - 1))

    aftermath.client(scene.client)

    async def main() -> tuple[dict[str, Any], float]:
        outcome = await scene.outcome()
        took = asyncio.get_running_loop().time()
        await asyncio.sleep(10)
        return outcome, took

    outcome, took = in_virtual_time(main)
    assert outcome == alone
    check(aftermath.events)
    many = len(times)
    told = [entry for entry in caplog.records if entry.name == "aether.events"]
    assert [entry.levelname for entry in told] == ["WARNING"] * many
    assert all(name in entry.getMessage() for entry in told)
    if name.startswith("tool"):  # two of them wait at the same time
        assert took <= many
    else:
        assert took == many
        assert [step for step in order if step[0] != "ended"] == [
            (what, number) for number in range(many) for what in ("begun", "next")
        ]
    assert sorted(number for what, number in order if what == "ended") == list(range(many))


@pytest.mark.row("E2")
@ten
def test_sync_subscriber_that_holds_up_the_loop_is_warned_of(
    name: str,
    alone: dict[str, Any],
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    heard: list[Event] = []

    def blocks(event: Event) -> None:
        nonlocal now
        now += 5

    monkeypatch.setattr(aether.events, "perf_counter", lambda: now)
    scene = Scene()
    scene.client.on(name)(blocks)
    scene.client.on(name)(heard.append)
    aftermath.client(scene.client)
    assert in_virtual_time(scene.outcome) == alone
    told = [entry for entry in caplog.records if entry.name == "aether.events"]
    assert [entry.levelname for entry in told] == ["WARNING"] * len(heard)
    assert all(f"a subscriber of {name} held up the event loop" in e.getMessage() for e in told)


@pytest.mark.row("E2")
@ten
def test_subscriber_that_never_ends_is_waited_for_a_second(
    name: str, alone: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()

    @scene.client.on(name)
    async def hangs(event: Event) -> None:
        await asyncio.Event().wait()

    async def main() -> dict[str, Any]:
        outcome = await scene.outcome()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        return outcome

    assert in_virtual_time(main) == alone
    told = [entry.levelname for entry in caplog.records if entry.name == "aether.events"]
    assert told.count("WARNING") == told.count("ERROR") == len(told) / 2  # its end was told, too


# --- E3: what ends the program ----------------------------------------------------------------


@pytest.mark.row("E3")
@pytest.mark.parametrize("when", ["at once", "soon", "late"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@ten
def test_what_ends_the_program_comes_out_and_everything_is_wound_up(
    name: str,
    kind: type[BaseException],
    when: str,
    aftermath: Aftermath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aether.events, "SLOW_SUBSCRIBER_SECONDS", 0.002)
    scene = Scene()
    client = aftermath.client(scene.client)
    tasks: set[asyncio.Task[Any]] = set()
    ended: list[str] = []

    async def bystander() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("bystander")

    raised: list[Event] = []

    def at_once(event: Event) -> None:
        if not raised:  # as one signal does
            raised.append(event)
            raise kind

    async def soon(event: Event) -> None:
        await asyncio.sleep(0)
        at_once(event)

    async def late(event: Event) -> None:
        await asyncio.sleep(0.01)
        at_once(event)

    client.on(name)(locals()[when.replace(" ", "_")])

    async def main() -> None:
        tasks.add(asyncio.create_task(bystander()))
        await asyncio.sleep(0)
        await scene.play()
        await asyncio.sleep(1)
        raise AssertionError("the program went on")

    with pytest.raises(kind):
        asyncio.run(main())
    assert ended == ["bystander"]
    assert all(task.done() for task in tasks)
    if when != "at once":  # else whoever subscribed later is not told
        check(aftermath.events)


# --- E4: subscribers that reach into the run --------------------------------------------------


@pytest.mark.row("E4")
@both
@ten
def test_subscriber_that_cancels_the_run_ends_it_and_no_peer_is_skipped(
    name: str, asynchronous: bool, aftermath: Aftermath
) -> None:
    scene = Scene()
    client = aftermath.client(scene.client)
    before: list[Event] = []
    after: list[Event] = []

    async def main() -> None:
        run = asyncio.ensure_future(scene.play())

        def cancels(_: Event) -> None:
            run.cancel()

        client.on(name)(before.append)
        client.on(name)(subscriber(cancels, asynchronous=asynchronous))
        client.on(name)(after.append)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 100)
        await asyncio.sleep(1)
        assert (await scene.store.load(SESSION)) in ([], _first_turn())

    in_virtual_time(main)
    assert before
    assert after == before
    check(aftermath.events)


def _first_turn() -> list[Message]:
    return [Message("user", "stream"), Message("assistant", "It is done.")]


@pytest.mark.row("E4")
@both
@ten
def test_subscriber_that_leaves_and_brings_others_skips_no_peer(
    name: str, asynchronous: bool, alone: dict[str, Any], aftermath: Aftermath
) -> None:
    scene = Scene()
    client = aftermath.client(scene.client)
    heard: list[tuple[str, Event]] = []

    def changes(event: Event) -> None:
        heard.append(("once", event))
        unsubscribe()
        client.on(name)(lambda event: heard.append(("new", event)))

    unsubscribe = client.events.subscribe(name, subscriber(changes, asynchronous=asynchronous))
    client.on(name)(lambda event: heard.append(("peer", event)))
    assert in_virtual_time(scene.outcome) == alone
    peers = [event for who, event in heard if who == "peer"]
    assert peers == [event for event in aftermath.events if event.name == name]
    assert 1 <= sum(who == "once" for who, _ in heard) <= 2  # two tools start at the same time
    if len(peers) > 2:
        assert ("new", peers[-1]) in heard


@pytest.mark.row("E4")
@ten
def test_subscriber_may_ask_the_client_and_even_the_session_without_a_deadlock(
    name: str, alone: dict[str, Any], aftermath: Aftermath
) -> None:
    scene = Scene()
    other = Aether(FakeProvider("of its own"), events=scene.client.events)
    asked: list[str] = []
    inside = False

    async def curious(event: Event) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        try:
            asked.append(await other.ask("inner"))
            asked.append((await get_answer(other, "session stream", "inner")).text)
        finally:
            inside = False

    aftermath.client(scene.client)  # which hears of each event before what comes of it
    scene.client.on(name)(curious)
    assert in_virtual_time(scene.outcome) == alone
    assert asked
    assert set(asked) == {"of its own"}
    if name not in ("tool.complete", "tool.error"):  # still inside the call, which has ended
        check(aftermath.events)


@pytest.mark.row("E4")
@pytest.mark.parametrize("name", ["request.start", "request.complete", "tool.start"])
def test_subscriber_that_asks_the_session_of_the_run_does_not_hold_it_up(
    name: str, aftermath: Aftermath
) -> None:
    """It waits for its turn as anybody; after a second the run goes on without it."""
    script = [calling(ToolCall("c", "broken")), saying(), saying("to the subscriber")]
    client = aftermath.client(Aether(FakeProvider(responses=script)))
    answers: list[str] = []

    @client.on(name)
    async def asks(event: Event) -> None:
        if not answers:
            answers.append("asked")
            answers.append(await client.session(SESSION).ask("inner"))

    async def main() -> list[str]:
        session = client.session(SESSION)
        assert await session.ask("outer", tools=[broken]) == "done"
        await asyncio.sleep(10)
        return [message.text for message in await session.history()]

    history = in_virtual_time(main)
    if name == "tool.start":
        assert answers == ["asked"], "asked inside a tool call, it is refused at once"
        assert history == ["outer", "done"]
    else:
        assert answers == ["asked", "to the subscriber"]
        assert history == ["outer", "done", "inner", "to the subscriber"]


# --- E7: nobody listens -----------------------------------------------------------------------


class Endless:
    """Streams so many pieces of one chunk."""

    default_model = "endless"

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        chunk = StreamChunk(text="x")
        for _ in range(self.pieces):
            yield chunk
        yield StreamChunk(finish_reason="stop")


@pytest.mark.row("E7")
async def test_without_subscribers_a_million_events_build_no_object(aftermath: Aftermath) -> None:
    aftermath.listen_to_nobody()
    bus = EventBus()
    client = Aether(Endless(20_000), events=bus)

    async def read() -> int:
        return sum([1 async for _ in client.stream_text("go")])

    await read()
    made: dict[str, int] = {"events": 0, "told": 0}

    def watch(frame: Any, what: str, _: Any) -> None:
        if what == "call":
            made["events"] += frame.f_code is Event.__init__.__code__
            made["told"] += frame.f_code is EventBus.publish.__code__

    sys.setprofile(watch)
    try:
        assert await read() == 20_000
    finally:
        sys.setprofile(None)
    assert made == {"events": 0, "told": 0}

    wants, blocks = bus.wants, sys.getallocatedblocks()
    for _ in range(1_000_000):
        wants("stream.chunk")
    assert abs(sys.getallocatedblocks() - blocks) < 100
