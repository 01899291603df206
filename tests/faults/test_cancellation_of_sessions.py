"""Cancelled at any point, a turn leaves the history as it was and the session free for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from aether import Agent, SessionStore
from aether.extensions.memory import InMemorySessionStore, SQLiteSessionStore
from aether.llm.contracts import Message
from aether.memory import _history
from tests.faults.stage import MODEL, Answer, Stage, calling
from tests.faults.sweep import WAYS, Cancelling, Way, every_pair_of_points, every_point, pause


class PausingStore(InMemorySessionStore):
    """Gives way before and behind each operation, as one over a network does."""

    async def load(self, session_id: str) -> list[Message]:
        await pause()
        messages = await super().load(session_id)
        await pause()
        return messages

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        await pause()
        await super().append(session_id, messages, expected_length=expected_length)
        await pause()

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        await pause()
        await super().replace(session_id, messages, expected_length=expected_length)
        await pause()


class SavingStore:
    """One that can do no more than the port demands, and gives way as the other does."""

    def __init__(self) -> None:
        self._inner = InMemorySessionStore()

    async def load(self, session_id: str) -> list[Message]:
        await pause()
        messages = await self._inner.load(session_id)
        await pause()
        return messages

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        await pause()
        await self._inner.save(session_id, messages)
        await pause()

    async def delete(self, session_id: str) -> None:
        await pause()
        await self._inner.delete(session_id)
        await pause()

    async def exists(self, session_id: str) -> bool:
        return await self._inner.exists(session_id)


# --- flows: each says what it has added to the history when it knows of it ---------------------


async def ask(stage: Stage) -> None:
    assert await stage.session.ask("go") == "hello there"
    stage.stored += 2


async def ask_with_a_new_system_prompt(stage: Stage) -> None:
    stage.session.set_system("Be brief.")
    assert await stage.session.ask("go") == "hello there"
    stage.stored += 3


async def structured(stage: Stage) -> None:
    assert (await stage.session.complete("go", output=list[int])).output == [1, 2]
    stage.stored += 2


async def tools(stage: Stage) -> None:
    assert await stage.session.ask("go", tools=[stage.tools.step, stage.tools.work]) == "done"
    stage.stored += 2


async def delegation(stage: Stage) -> None:
    helper = Agent("helper", model="helper", tools=[stage.tools.step])
    assert await stage.session.ask("go", tools=[helper.as_tool()]) == "done"
    stage.stored += 2


async def stream(stage: Stage) -> None:
    async for chunk in stage.session.stream("go"):
        if chunk.is_final:
            stage.stored += 2


async def stream_text(stage: Stage) -> None:
    async with stage.session.stream_text("go", tools=[stage.tools.step]) as texts:
        assert "".join([text async for text in texts]) == "let me see done"
    stage.stored += 2


async def stream_broken_off(stage: Stage) -> None:
    async for text in stage.session.stream_text("go"):
        if text == "o th":
            break
    assert await stage.session.ask("go on") == "next"
    stage.stored += 2


async def stream_closed_early(stage: Stage) -> None:
    async with stage.session.stream("go") as chunks:
        await anext(chunks)
    assert await stage.session.ask("go on") == "next"
    stage.stored += 2


async def turns_at_once(stage: Stage) -> None:
    async def turn() -> None:
        await stage.session.ask("go")
        stage.stored += 2

    async def streamed() -> None:
        async for chunk in stage.session.stream("go"):
            if chunk.is_final:
                stage.stored += 2

    async with asyncio.TaskGroup() as group:
        for each in (turn, streamed, turn):
            group.create_task(each())


@dataclass(frozen=True)
class Flow:
    run: Callable[[Stage], Coroutine[Any, Any, None]]
    script: dict[str, list[Answer]]
    least: int
    """It has at least so many points over a store that never gives way."""


FLOWS = (
    Flow(ask, {MODEL: ["hello there"]}, 2),
    Flow(ask_with_a_new_system_prompt, {MODEL: ["hello there"]}, 2),
    Flow(structured, {MODEL: ["no list", "[1, 2]"]}, 4),
    Flow(tools, {MODEL: [calling("step", "work"), "done"]}, 8),
    Flow(
        delegation, {MODEL: [calling("helper", task="do"), "done"], "helper": [calling("step")]}, 9
    ),
    Flow(stream, {MODEL: ["hello there"]}, 5),
    Flow(stream_text, {MODEL: [calling("step"), "done"]}, 9),
    Flow(stream_broken_off, {MODEL: ["hello there"]}, 6),
    Flow(stream_closed_early, {MODEL: ["hello there"]}, 3),
    Flow(turns_at_once, {}, 10),
)
flows = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.run.__name__)

STORES: dict[str, Callable[[], SessionStore | None]] = {
    "memory": lambda: None,
    "pausing": PausingStore,
    "saving": SavingStore,
    "sqlite": lambda: SQLiteSessionStore(":memory:"),
}
stores = pytest.mark.parametrize("store", STORES)


@pytest.mark.row("M9")
@flows
@pytest.mark.parametrize(
    ("store", "way"),
    [
        *(("memory", way) for way in WAYS),
        *((store, way) for store in ("pausing", "sqlite") for way in ("once", "late", "timeout")),
        *(("saving", way) for way in ("once", "late")),
    ],
)
async def test_turn_cancelled_at_any_point_leaves_no_trace(
    flow: Flow, store: str, way: Way
) -> None:
    assert await every_point(way, playing(flow, store)) >= flow.least


@pytest.mark.row("M9")
@flows
@pytest.mark.parametrize("store", ["memory", "pausing", "saving"])
async def test_turn_cancelled_again_while_it_is_taken_back_leaves_no_trace(
    flow: Flow, store: str
) -> None:
    assert await every_pair_of_points(playing(flow, store)) >= flow.least


@pytest.mark.row("M9")
@flows
async def test_turn_cancelled_while_slow_subscribers_are_told_leaves_no_trace(flow: Flow) -> None:
    assert await every_point("once", playing(flow, "memory", slow=True)) > flow.least


@pytest.mark.row("M9")
@stores
async def test_session_cleared_by_a_call_that_is_cancelled_is_whole_or_empty(store: str) -> None:
    async def attempt(cancelling: Cancelling) -> None:
        async with Stage({}, store=STORES[store]()) as stage:
            before = await stage.session.history()
            await cancelling.run(stage.session.clear())
            assert await stage.session.history() in ([], before)
            assert await stage.session.ask("next") == "next"

    for way in WAYS:
        await every_point(way, attempt)
    await every_pair_of_points(attempt)


@pytest.mark.row("M9")
async def test_store_that_hangs_holds_up_a_cancellation_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(PausingStore):
        def __init__(self) -> None:
            super().__init__()
            self.stuck = asyncio.Event()

        async def append(
            self, session_id: str, messages: Sequence[Message], *, expected_length: int
        ) -> None:
            self.stuck.set()
            await super().append(session_id, messages, expected_length=expected_length)

        async def load(self, session_id: str) -> list[Message]:
            if self.stuck.is_set():
                await asyncio.Event().wait()
            return await super().load(session_id)

    monkeypatch.setattr(_history, "TAKE_BACK_SECONDS", 0.01)
    async with Stage(["hello there"], store=(store := Stuck())) as stage:
        task = asyncio.ensure_future(stage.session.ask("go"))
        await store.stuck.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()
        assert "may stay" in caplog.text
        store.stuck.clear()
        assert await stage.session.ask("next") == "next"


def playing(
    flow: Flow, store: str, *, slow: bool = False
) -> Callable[[Cancelling], Awaitable[None]]:
    async def attempt(cancelling: Cancelling) -> None:
        async with Stage(flow.script, store=STORES[store](), slow=slow) as stage:
            await cancelling.run(flow.run(stage))
            await stage.judge()

    return attempt
