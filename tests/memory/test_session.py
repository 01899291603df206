"""What a session promises: whole turns, in order, stored before they are handed out."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

import aether.memory._history as history
from aether import Aether, Agent, Message
from aether.errors import (
    AetherError,
    InputError,
    ProviderError,
    SessionConflictError,
    SessionError,
    SessionSaveError,
)
from aether.events import EVENT_NAMES, Event
from aether.llm.contracts import LLMResponse, ReasoningPart, TextPart, ToolCall
from aether.memory import InMemorySessionStore, Session
from aether.testing import FakeProvider
from tests.memory.talking import (
    DELTAS,
    AppendingStore,
    ReplacingStore,
    SavingStore,
    Talker,
    answer_to,
    texts,
)

HI = [Message("user", "hi"), Message("assistant", answer_to([Message("user", "hi")]))]
STORES = [SavingStore, AppendingStore, ReplacingStore]


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
async def client(talker: Talker) -> AsyncIterator[Aether]:
    async with Aether(talker) as client:
        yield client


@pytest.fixture
def session(client: Aether) -> Session:
    return client.session("s")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def pass_turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def read_all(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


def talk(*prompts: str) -> list[tuple[str, str]]:
    """The history that these prompts make, one after another."""
    messages: list[Message] = []
    for prompt in prompts:
        messages.append(Message("user", prompt))
        messages.append(Message("assistant", answer_to(messages)))
    return texts(messages)


async def test_turns_are_remembered(session: Session, talker: Talker) -> None:
    answers = [await session.ask("hi"), (await session.complete("and?")).text]
    assert texts(await session.history()) == talk("hi", "and?")
    assert [text for role, text in talk("hi", "and?") if role == "assistant"] == answers
    assert texts(talker.requests[1].messages) == [*talk("hi"), ("user", "and?")]


async def test_the_same_id_gives_the_same_object_while_anyone_holds_it(client: Aether) -> None:
    session = client.session("s")
    assert client.session("s") is session
    assert client.session("t") is not session
    assert session.session_id == "s"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_turn_under_way_holds_the_session(
    client: Aether, talker: Talker, streaming: bool, no_collector: None
) -> None:
    talker.gate = asyncio.Event()
    reading = client.session("s").stream_text("hi")
    if streaming:
        turn = asyncio.ensure_future(anext(reading))
    else:
        turn = asyncio.ensure_future(client.session("s").ask("hi"))
    await pass_turns()
    behind = asyncio.ensure_future(client.session("s").ask("and?"))
    await pass_turns()
    assert talker.asked == ["hi"]
    talker.gate.set()
    await turn
    await reading.aclose()
    await behind


async def test_sessions_nobody_holds_are_forgotten(client: Aether) -> None:
    for number in range(100):
        client.session(f"s{number}")
    gc.collect()
    assert not client._sessions


async def test_two_clients_on_one_store_see_one_history(talker: Talker) -> None:
    store = InMemorySessionStore()
    async with (
        Aether(talker, memory_store=store) as one,
        Aether(talker, memory_store=store) as other,
    ):
        await one.session("s").ask("hi")
        await other.session("s").ask("and?")
        assert texts(await one.session("s").history()) == talk("hi", "and?")


async def test_a_hundred_at_once_go_one_by_one_in_order(session: Session, talker: Talker) -> None:
    prompts = [str(number) for number in range(100)]
    await asyncio.gather(*(session.ask(prompt) for prompt in prompts))
    assert talker.asked == prompts
    assert texts(await session.history()) == talk(*prompts)


async def test_asks_and_streams_share_one_queue(session: Session, talker: Talker) -> None:
    async def read(prompt: str) -> None:
        async with session.stream(prompt) as chunks:
            async for _ in chunks:
                await asyncio.sleep(0)

    await asyncio.gather(
        *(session.ask(str(n)) if n % 2 else read(str(n)) for n in range(20)), session.clear()
    )
    assert talker.asked == [str(n) for n in range(20)]
    assert await session.history() == []


@pytest.mark.parametrize("make", [AppendingStore, ReplacingStore, InMemorySessionStore])
async def test_two_writers_at_once_lose_no_turn(talker: Talker, make: type[SavingStore]) -> None:
    store = make()
    async with (
        Aether(talker, memory_store=store) as one,
        Aether(talker, memory_store=store) as other,
    ):
        clients = [one, other]
        await asyncio.gather(
            *(clients[n % 2].session("s", system="Be brief.").ask("the same") for n in range(20))
        )
    roles = [message.role for message in await store.load("s")]
    assert roles == ["system", *["user", "assistant"] * 20]


# What does not succeed leaves no trace.


async def test_a_failed_turn_leaves_no_trace(session: Session, talker: Talker) -> None:
    await session.ask("hi")
    talker.error = ProviderError("no")
    with pytest.raises(ProviderError):
        await session.ask("and?")
    with pytest.raises(ProviderError):
        await read_all(session.stream("and?"))
    talker.error = None
    await session.ask("so?")
    assert texts(await session.history()) == talk("hi", "so?")


@pytest.mark.parametrize("make", STORES)
@pytest.mark.parametrize("streaming", [False, True])
async def test_cancelled_at_any_point_it_leaves_no_trace(
    talker: Talker, make: type[SavingStore], streaming: bool
) -> None:
    store = make()
    store.sessions["s"] = [Message("system", "old"), *HI]
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s")

        async def turn() -> None:
            if streaming:
                async for _ in session.stream_text("and?"):
                    await asyncio.sleep(0)
            else:
                await session.ask("and?")

        before = list(store.sessions["s"])
        for ticks in range(50):
            session.set_system(f"new {ticks}")
            task = asyncio.ensure_future(turn())
            await pass_turns(ticks)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if outcome is None:
                break
            assert isinstance(outcome, asyncio.CancelledError)
            await pass_turns(2)
            assert talker.open_streams == 0
            assert session._queue._current is None, "the lock is free"
            if make is AppendingStore and store.writes:
                store.writes = 0  # it was stored already, and this store cannot take it back
                store.sessions["s"] = before
            assert store.sessions["s"] == before, f"cancelled after {ticks} ticks"
        assert ticks > 4
        assert texts(store.sessions["s"])[-2:-1] == [("user", "and?")]


@pytest.mark.parametrize("make", [SavingStore, ReplacingStore])
async def test_a_first_turn_that_is_cancelled_while_it_is_stored_leaves_no_session(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        task = asyncio.ensure_future(client.session("s").ask("hi"))
        await store.written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await store.exists("s")


async def test_what_others_wrote_behind_a_cancelled_turn_stays(talker: Talker) -> None:
    store = ReplacingStore()
    async with Aether(talker, memory_store=store) as client:
        task = asyncio.ensure_future(client.session("s").ask("hi"))
        await store.written.wait()
        task.cancel()
        await store.append("s", HI, expected_length=2)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert texts(store.sessions["s"])[-2:] == texts(HI)


async def test_a_turn_that_cannot_be_taken_back_is_logged(
    talker: Talker, caplog: pytest.LogCaptureFixture
) -> None:
    store = ReplacingStore()
    async with Aether(talker, memory_store=store) as client:
        task = asyncio.ensure_future(client.session("s").ask("hi"))
        await store.written.wait()
        store.broken = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "may stay in session 's'" in caplog.text


async def test_a_store_that_hangs_holds_up_no_cancellation(talker: Talker) -> None:
    class Hanging(ReplacingStore):
        async def append(
            self, session_id: str, messages: Sequence[Message], *, expected_length: int
        ) -> None:
            await asyncio.Event().wait()

    async with Aether(talker, memory_store=Hanging()) as client:
        session = client.session("s")
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await session.ask("hi")
        assert await session.history() == []


# Streams.


@pytest.mark.parametrize("read", range(1, DELTAS + 1))
@pytest.mark.parametrize("way", ["break", "aclose", "with", "error", "cancel", "drop"])
async def test_a_stream_left_early_leaves_no_trace(
    session: Session, talker: Talker, no_collector: None, way: str, read: int
) -> None:
    await session.ask("hi")

    async def leave() -> None:
        stream = session.stream_text("left")
        if way == "with":
            async with stream:
                for _ in range(read):
                    await anext(stream)
            return
        seen = 0
        async for _ in stream:
            seen += 1
            if seen < read:
                continue
            if way == "break":
                break
            if way == "aclose":
                await stream.aclose()
                return
            if way == "error":
                raise ValueError("mine")
            if way == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            if way == "drop":
                del stream
                return

    task = asyncio.ensure_future(leave())
    behind = asyncio.ensure_future(session.ask("behind"))
    await asyncio.wait([task])
    for _ in range(10):
        if talker.asked[-1] == "behind":
            break
        await asyncio.sleep(0)
    assert talker.asked[-1] == "behind", "the lock is free soon"
    await behind
    assert talker.open_streams == 0
    assert texts(await session.history()) == talk("hi", "behind")


async def test_a_stream_broken_off_in_this_task_frees_the_session(
    session: Session, no_collector: None
) -> None:
    async for _ in session.stream("left"):
        break
    await session.ask("hi")
    assert texts(await session.history()) == talk("hi")


async def test_a_stream_that_is_never_read_takes_no_turn(session: Session, talker: Talker) -> None:
    stream = session.stream("left")
    await session.ask("hi")
    await stream.aclose()
    assert talker.asked == ["hi"]


async def test_closing_a_stream_may_be_cancelled(session: Session, talker: Talker) -> None:
    stream = session.stream("left")
    await anext(stream)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await stream.aclose()
    await session.ask("hi")
    assert texts(await session.history()) == talk("hi")


async def test_a_stream_cancelled_while_it_waits_takes_no_turn(
    session: Session, talker: Talker
) -> None:
    talker.gate = asyncio.Event()
    first = asyncio.ensure_future(session.ask("hi"))
    await pass_turns()
    waiting = asyncio.ensure_future(anext(session.stream("left")))
    await pass_turns()
    waiting.cancel()
    talker.gate.set()
    await first
    await session.ask("and?")
    assert texts(await session.history()) == talk("hi", "and?")


async def test_a_stream_is_stored_before_its_final_chunk(session: Session) -> None:
    async for chunk in session.stream("hi"):
        assert bool(await session.history()) == chunk.is_final
        if chunk.is_final:
            await session.ask("and?")  # its turn is over
    assert texts(await session.history()) == talk("hi", "and?")


async def test_stream_text_is_stored_when_it_was_read_to_its_end(session: Session) -> None:
    pieces = [text async for text in session.stream_text("hi")]
    assert len(pieces) == DELTAS
    assert texts(await session.history()) == talk("hi")


async def test_stream_text_saves_what_ask_would_have_returned() -> None:
    turns = [
        LLMResponse("Let me see.", "fake", tool_calls=[ToolCall("1", "ping")]),
        LLMResponse("It is pong.", "fake", finish_reason="stop"),
    ]

    def ping() -> str:
        """Ping."""
        return "pong"

    saved = []
    async with Aether(FakeProvider(responses=[*turns, *turns])) as client:
        session = client.session("s")
        streamed = "".join([text async for text in session.stream_text("go", tools=[ping])])
        saved.append(await session.history())
        await session.clear()
        assert await session.ask("go", tools=[ping]) == "It is pong."
        saved.append(await session.history())
    assert streamed == "Let me see.It is pong."
    assert saved[0] == saved[1] == [Message("user", "go"), Message("assistant", "It is pong.")]


# The store fails.


@pytest.mark.parametrize("make", STORES)
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_store_that_fails_hands_over_the_answer(
    talker: Talker, make: type[SavingStore], streaming: bool
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s")
        await session.ask("hi")
        store.faults = ["before"]
        with pytest.raises(SessionSaveError, match="no room") as caught:
            await (read_all(session.stream("and?")) if streaming else session.ask("and?"))
        assert caught.value.response is not None
        assert caught.value.response.text == talk("hi", "and?")[-1][1]
        assert isinstance(caught.value.__cause__, OSError)
        assert texts(await session.history()) == talk("hi")
        await session.ask("so?")
        assert texts(await session.history()) == talk("hi", "so?")


@pytest.mark.parametrize("make", STORES)
async def test_a_turn_that_was_stored_though_the_store_failed_is_stored_once(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s", system="Be brief.")
        store.faults = ["after"]
        answer = await session.ask("hi")
        assert texts(store.sessions["s"]) == [
            ("system", "Be brief."),
            ("user", "hi"),
            ("assistant", answer),
        ]
    assert store.writes == 1


async def test_where_nobody_can_tell_whether_it_was_stored_the_error_says_so(
    talker: Talker,
) -> None:
    class Breaking(AppendingStore):
        async def append(
            self, session_id: str, messages: Sequence[Message], *, expected_length: int
        ) -> None:
            self.broken = True
            raise OSError("gone")

    async with Aether(talker, memory_store=Breaking()) as client:
        with pytest.raises(SessionSaveError, match="may or may not be stored") as caught:
            await client.session("s").ask("hi")
    assert caught.value.response is not None


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_turn_of_a_session_that_was_cleared_is_never_said_to_be_gone_where_it_may_be_there(
    talker: Talker, fault: str
) -> None:
    class Regrown(AppendingStore):
        """Others clear the session, and take as many new turns, just before it is written to."""

        async def append(
            self, session_id: str, messages: Sequence[Message], *, expected_length: int
        ) -> None:
            if expected_length:
                self.sessions[session_id] = [Message("user", "x"), Message("assistant", "y")]
                self.faults = [fault]
            await super().append(session_id, messages, expected_length=expected_length)

    store = Regrown()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s")
        await session.ask("hi")
        if fault == "after":
            answer = await session.ask("and?")
            new = [("user", "and?"), ("assistant", answer)]
            assert texts(store.sessions["s"]) == [("user", "x"), ("assistant", "y"), *new]
        else:
            with pytest.raises(SessionSaveError, match="may or may not be stored") as caught:
                await session.ask("and?")
            assert caught.value.response is not None


class Garbage(SavingStore):
    def __init__(self, loaded: Any) -> None:
        super().__init__()
        self.loaded = loaded

    async def load(self, session_id: str) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.mark.parametrize(
    "loaded",
    [OSError("gone"), None, "text", [{"role": "user"}], [*HI, None], (), SessionError("x")],
)
async def test_a_load_that_fails_costs_no_call(talker: Talker, loaded: Any) -> None:
    async with Aether(talker, memory_store=Garbage(loaded)) as client:
        session = client.session("s")
        for _ in range(2):
            with pytest.raises(SessionError):
                await session.ask("hi")
            with pytest.raises(SessionError):
                await anext(session.stream("hi"))
            with pytest.raises(SessionError):
                await session.history()
    assert talker.requests == []


async def test_a_delete_that_fails_is_a_session_error(talker: Talker) -> None:
    class Undeletable(SavingStore):
        async def delete(self, session_id: str) -> None:
            raise OSError("read-only")

    async with Aether(talker, memory_store=Undeletable()) as client:
        session = client.session("s")
        with pytest.raises(SessionError, match="read-only"):
            await session.clear()
        await session.ask("hi")


async def test_a_conflict_without_end_carries_the_answer(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LONGEST_PAUSE_SECONDS", 0)
    tries = 0

    class Contended(AppendingStore):
        async def append(
            self, session_id: str, messages: Sequence[Message], *, expected_length: int
        ) -> None:
            nonlocal tries
            tries += 1
            raise SessionConflictError("again")

    async with Aether(talker, memory_store=Contended()) as client:
        with pytest.raises(SessionConflictError, match="kept writing") as caught:
            await client.session("s").ask("hi")
    assert caught.value.response is not None
    assert caught.value.response.text == HI[1].text
    assert tries == history.MAX_TRIES


@pytest.mark.parametrize("make", STORES)
async def test_a_session_that_was_deleted_meanwhile_is_not_brought_back(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s")
        await session.ask("hi")
        talker.gate = asyncio.Event()
        asking = asyncio.ensure_future(session.ask("and?"))
        await pass_turns()
        await store.delete("s")
        talker.gate.set()
        with pytest.raises(SessionConflictError, match="removed") as caught:
            await asking
        assert caught.value.response is not None
        assert await session.history() == []


@pytest.mark.parametrize("make", [AppendingStore, ReplacingStore])
async def test_a_turn_comes_behind_what_others_stored_meanwhile(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s")
        talker.gate = asyncio.Event()
        asking = asyncio.ensure_future(session.ask("mine"))
        await pass_turns()
        await store.save("s", HI)
        talker.gate.set()
        answer = await asking
        assert texts(await session.history()) == [
            *texts(HI),
            ("user", "mine"),
            ("assistant", answer),
        ]


async def test_a_store_that_only_saves_works_and_is_warned_of_once(
    talker: Talker, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(SavingStore):
        pass

    async with Aether(talker, memory_store=Plain()) as client:
        with caplog.at_level(logging.WARNING):
            await client.session("s").ask("hi")
            await client.session("s").ask("and?")
            await client.session("t").ask("hi")
        assert texts(await client.session("s").history()) == talk("hi", "and?")
    assert [record.message for record in caplog.records if "append" in record.message] == [
        "Plain has no append(): where two writers share a session, turns may be lost"
    ]


# System prompts.


@pytest.mark.parametrize("make", STORES)
async def test_a_system_prompt_given_again_replaces_the_stored_one(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s", system="old")
        await session.ask("hi")
        stored = list(store.sessions["s"])
        assert texts(stored)[0] == ("system", "old")
        assert client.session("s", system="new") is session
        assert store.sessions["s"] == stored, "from the next turn"
        await session.ask("and?")
        assert [m.text for m in talker.requests[1].messages] == [
            "new",
            "hi",
            stored[2].text,
            "and?",
        ]
        await client.session("s").ask("so?")
        assert talker.requests[2].messages[0].text == "new"
        kept = [m.text for m in await session.history() if m.role == "system"]
        assert kept == ["new"]
        systems = [m.text for m in store.sessions["s"] if m.role == "system"]
        assert systems == (["old", "new"] if make is AppendingStore else ["new"])
        assert [m.role for m in await session.history()] == ["system", *["user", "assistant"] * 3]


async def test_the_stored_system_prompt_holds_where_none_is_given(talker: Talker) -> None:
    store = InMemorySessionStore()
    async with Aether(talker, memory_store=store) as client:
        await client.session("s", system="Be brief.").ask("hi")
    async with Aether(talker, memory_store=store) as client:
        await client.session("s").ask("and?")
        await client.session("s", system="").ask("so?")
    assert [r.messages[0].text for r in talker.requests] == ["Be brief."] * 3
    assert [m.role for m in await store.load("s")].count("system") == 1


async def test_a_system_prompt_that_others_changed_meanwhile_stays(talker: Talker) -> None:
    store = ReplacingStore()
    async with Aether(talker, memory_store=store) as client:
        session = client.session("s", system="old")
        await session.ask("hi")
        talker.gate = asyncio.Event()
        asking = asyncio.ensure_future(session.ask("and?"))
        await pass_turns()
        await store.save("s", [Message("system", "newer"), *store.sessions["s"][1:], *HI])
        talker.gate.set()
        await asking
    assert texts(store.sessions["s"])[0] == ("system", "newer")
    assert len(store.sessions["s"]) == 7


@pytest.mark.parametrize("make", STORES)
async def test_a_new_system_prompt_brings_back_no_turns_of_a_session_that_was_cleared(
    talker: Talker, make: type[SavingStore]
) -> None:
    store = make()
    async with Aether(talker, memory_store=store) as client:
        await client.session("s", system="old").ask("hi")
        session = client.session("s", system="new")
        talker.gate = asyncio.Event()
        asking = asyncio.ensure_future(session.ask("and?"))
        await pass_turns()
        others = [Message("system", "old"), Message("user", "anew"), Message("assistant", "yes")]
        await store.delete("s")
        await store.save("s", others)
        assert len(others) == 3, "as many messages as there were before"
        talker.gate.set()
        with pytest.raises(SessionConflictError, match="removed") as caught:
            await asking
        assert caught.value.response is not None
        assert await session.history() == others


async def test_a_failed_turn_leaves_the_system_prompt_as_well(
    client: Aether, talker: Talker
) -> None:
    await client.session("s", system="old").ask("hi")
    session = client.session("s", system="new")
    talker.error = ProviderError("no")
    with pytest.raises(ProviderError):
        await session.ask("and?")
    assert texts(await session.history())[0] == ("system", "old")


async def test_a_cleared_session_begins_anew(client: Aether, talker: Talker) -> None:
    session = client.session("s", system="Be brief.")
    await session.ask("hi")
    await session.clear()
    assert await session.history() == []
    await session.ask("again")
    assert [m.text for m in talker.requests[1].messages] == ["Be brief.", "again"]


# Inside its own turn.


@pytest.mark.parametrize("call", ["ask", "stream", "clear", "task", "sync", "thread"])
async def test_a_session_asked_from_its_own_tool_is_an_error_at_once(call: str) -> None:
    use = LLMResponse("", "fake", tool_calls=[ToolCall("1", call)])
    provider = FakeProvider(responses=[use, "done"])
    async with Aether(provider) as client:
        session = client.session("s")

        async def ask() -> str:
            return await client.session("s").ask("inside")

        async def stream() -> None:
            await anext(client.session("s").stream("inside"))

        async def clear() -> None:
            await client.session("s").clear()

        async def task() -> str:
            return await asyncio.create_task(ask())

        def sync() -> str:
            return client.sync.session("s").ask("inside")

        def thread() -> str:
            return asyncio.run(ask())

        tools: dict[str, Callable[[], Any]] = {
            "ask": ask,
            "stream": stream,
            "clear": clear,
            "task": task,
            "sync": sync,
            "thread": thread,
        }
        async with asyncio.timeout(10):
            assert await session.ask("go", tools=[tools[call]]) == "done"
        assert texts(await session.history()) == [("user", "go"), ("assistant", "done")]
    result = provider.requests[1].messages[-1].text
    assert "SessionError" in result
    assert "inside its own turn" in result


async def test_a_session_asked_from_its_own_turn_by_way_of_an_agent_is_an_error_at_once() -> None:
    delegate = LLMResponse("", "fake", tool_calls=[ToolCall("1", "helper", {"task": "go"})])
    use = LLMResponse("", "fake", tool_calls=[ToolCall("2", "ask")])
    provider = FakeProvider(responses=[delegate, use, "told", "done"])
    async with Aether(provider) as client:
        session = client.session("s")

        async def ask() -> str:
            return await client.session("s").ask("inside")

        helper = Agent("helper", tools=[ask])
        async with asyncio.timeout(10):
            assert await session.ask("go", tools=[helper.as_tool()]) == "done"
        assert texts(await session.history()) == [("user", "go"), ("assistant", "done")]
    assert "SessionError" in provider.requests[2].messages[-1].text


async def test_another_session_may_be_asked_from_inside_a_tool() -> None:
    use = LLMResponse("", "fake", tool_calls=[ToolCall("1", "ask_other")])
    async with Aether(FakeProvider(responses=[use, "from the other", "done"])) as client:
        session = client.session("s")

        async def ask_other() -> str:
            return await client.session("other").ask("inside")

        assert await session.ask("go", tools=[ask_other]) == "done"
        assert texts(await session.history()) == [("user", "go"), ("assistant", "done")]
        assert texts(await client.session("other").history())[1] == ("assistant", "from the other")


async def test_a_session_asked_by_who_reads_its_stream_is_an_error_at_once(
    session: Session, talker: Talker
) -> None:
    async for _ in session.stream_text("hi"):
        for call in (session.ask("x"), anext(session.stream("x")), session.clear()):
            with pytest.raises(SessionError, match="inside its own turn"):
                await call
        assert await session.history() == []
    assert talker.asked == ["hi"]
    assert texts(await session.history()) == talk("hi")


async def test_a_stream_whose_items_are_waited_for_with_a_timeout_is_read_by_this_task(
    session: Session,
) -> None:
    stream = session.stream_text("hi")
    await asyncio.wait_for(anext(stream), 1)
    with pytest.raises(SessionError):
        await session.ask("x")
    await stream.aclose()


async def test_another_task_may_ask_while_a_stream_is_read(session: Session) -> None:
    behind: asyncio.Future[str] | None = None
    async for _ in session.stream_text("hi"):
        behind = behind or asyncio.ensure_future(session.ask("and?"))
        await pass_turns()
    assert behind is not None
    await behind
    assert texts(await session.history()) == talk("hi", "and?")


def test_a_blocking_session_asked_by_who_reads_its_stream_is_an_error_at_once() -> None:
    talker = Talker()
    with Aether(talker).sync as client:
        session = client.session("s")
        stream = session.stream_text("hi")
        for _ in stream:
            with pytest.raises(SessionError):
                session.ask("x")
            with pytest.raises(SessionError):
                client.session("s").complete("x")
            with pytest.raises(SessionError):
                session.clear()
            with pytest.raises(SessionError):
                next(session.stream("x"))
            client.session("other").ask("fine")
        session.ask("and?")
        assert texts(session.history()) == talk("hi", "and?")


def test_another_thread_waits_while_a_blocking_stream_is_read() -> None:
    with Aether(Talker()).sync as client:
        session = client.session("s")
        stream = session.stream("hi")
        next(stream)
        asking = threading.Thread(target=session.ask, args=("and?",), daemon=True)
        asking.start()
        for chunk in stream:
            assert bool(session.history()) == chunk.is_final
        asking.join(10)
        assert texts(session.history()) == talk("hi", "and?")


# What is stored, and what is passed on.


async def test_tool_turns_are_not_stored() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    use = LLMResponse("Adding.", "fake", tool_calls=[ToolCall("1", "add", {"a": 17, "b": 25})])
    provider = FakeProvider(responses=[use, "42", "yes"])
    async with Aether(provider) as client:
        session = client.session("s")
        await session.ask("17 + 25?", tools=[add])
        await session.ask("sure?", tools=[add])
        roles = [m.role for m in await session.history()]
    assert roles == ["user", "assistant"] * 2
    assert [m.role for m in provider.requests[2].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("content", ["done", [ReasoningPart(text="hm"), TextPart(text="done")]])
async def test_what_the_provider_keeps_in_a_message_survives(content: Any) -> None:
    state: dict[str, Any] = {"fake": {"signature": ["abc", 1]}}
    message = Message("assistant", content, provider_state=state)
    provider = FakeProvider(responses=[LLMResponse("done", "fake", message=message), "2"])
    async with Aether(provider) as client:
        session = client.session("s")
        await session.ask("hi")
        await session.ask("and?")
    assert provider.requests[1].messages[1] == message


async def test_events_carry_the_session() -> None:
    seen: list[Event] = []

    def ping() -> str:
        """Ping."""
        return "pong"

    use = LLMResponse("", "fake", tool_calls=[ToolCall("1", "ping")])
    async with Aether(FakeProvider(responses=[use, "done", use, "done", "alone"])) as client:
        for name in EVENT_NAMES:
            client.on(name)(seen.append)
        await client.session("s").ask("go", tools=[ping])
        async for _ in client.session("s").stream("go", tools=[ping]):
            pass
        assert {event.name for event in seen} >= {"request.start", "tool.complete", "stream.chunk"}
        assert {event.session_id for event in seen} == {"s"}
        seen.clear()
        await client.ask("go")
        assert {event.session_id for event in seen} == {None}


@pytest.mark.parametrize("call", ["ask", "complete", "stream", "stream_text"])
async def test_options_are_passed_on(call: str) -> None:
    def ping() -> str:
        """Ping."""
        return "pong"

    options: dict[str, Any] = {
        "model": "m",
        "temperature": 0.1,
        "max_tokens": 7,
        "tools": [ping],
        "tool_choice": "ping",
    }
    provider = FakeProvider("hello")
    async with Aether(provider) as client:
        called = getattr(client.session("s"), call)("hi", **options)
        if call.startswith("stream"):
            async for _ in called:
                pass
        else:
            await called
    request = provider.requests[0]
    assert (request.model, request.temperature, request.max_tokens) == ("m", 0.1, 7)
    assert [tool.name for tool in request.tools] == ["ping"]
    assert request.tool_choice == "ping"


async def test_an_unknown_option_is_an_error_and_leaves_no_trace(session: Session) -> None:
    with pytest.raises(TypeError, match="unknown option"):
        await session.ask("hi", nonsense=1)  # type: ignore[call-overload]
    assert await session.history() == []


async def test_a_prompt_may_be_a_sequence_of_messages(session: Session, talker: Talker) -> None:
    prompt = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
    given = list(prompt)
    answer = await session.ask(prompt)
    assert prompt == given
    assert texts(await session.history()) == [*texts(prompt), ("assistant", answer)]
    streamed = "".join([text async for text in session.stream_text(tuple(prompt))])
    assert texts(await session.history())[4:] == [*texts(prompt), ("assistant", streamed)]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        (b"hi", TypeError),
        (["hi"], TypeError),
        ([{"role": "user", "content": "hi"}], TypeError),
        (Message("user", "hi"), TypeError),
        ([], InputError),
        ([Message("assistant", "hi")], InputError),
        ([Message("system", "x"), Message("user", "hi")], InputError),
        ([Message("tool", "x", tool_call_id="1"), Message("user", "hi")], InputError),
        (
            [Message("assistant", "", tool_calls=[ToolCall("1", "x")]), Message("user", "hi")],
            InputError,
        ),
    ],
)
async def test_a_wrong_prompt_is_refused(
    session: Session, talker: Talker, prompt: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await session.ask(prompt)
    for call in (session.stream, session.stream_text):
        with pytest.raises(error):
            call(prompt)
    assert talker.requests == []
    await session.ask("hi")


async def test_wrong_ids_and_system_prompts_are_refused(client: Aether) -> None:
    wrong: Any
    for wrong in (None, 5, b"s"):
        with pytest.raises(TypeError):
            client.session(wrong)
    with pytest.raises(InputError):
        client.session("")
    session = client.session("s")
    for wrong in (5, Message("system", "x")):
        with pytest.raises(TypeError):
            client.session("s", system=wrong)
        with pytest.raises(TypeError):
            client.session("new", system=wrong)
    assert client.session("s") is session


@pytest.mark.parametrize(
    "name", ["../x", "'; DROP TABLE sessions; --", "*", "\u202e", "\U0001f600"]
)
async def test_any_id_is_taken_as_it_is(client: Aether, name: str) -> None:
    await client.session(name).ask("hi")
    assert texts(await client.session(name).history()) == talk("hi")
    assert await client.session("x").history() == []


# Loops and threads.


def test_one_session_works_in_one_loop_after_another() -> None:
    client = Aether(Talker())
    session = client.session("s")

    async def contend(*prompts: str) -> None:
        await asyncio.gather(*(session.ask(prompt) for prompt in prompts))

    asyncio.run(contend("a", "b", "c"))
    asyncio.run(contend("d", "e"))
    assert texts(asyncio.run(session.history())) == talk("a", "b", "c", "d", "e")
    asyncio.run(client.aclose())


def test_a_stream_left_open_at_the_end_of_a_loop_holds_up_nobody() -> None:
    client = Aether(Talker())
    session = client.session("s")
    kept: list[Any] = []

    async def leave() -> None:
        stream = session.stream("left")
        kept.append(stream)
        await anext(stream)

    async def go() -> None:
        async with asyncio.timeout(5):
            await session.ask("hi")
        await client.aclose()

    asyncio.run(leave())
    asyncio.run(go())
    assert texts(asyncio.run(session.history())) == talk("hi")


def test_threads_share_a_session() -> None:
    client = Aether(Talker())

    async def talk_on(name: str) -> None:
        for number in range(10):
            await client.session("s").ask(f"{name}{number}")

    threads = [threading.Thread(target=asyncio.run, args=(talk_on(name),)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    stored = texts(asyncio.run(client.session("s").history()))
    prompts = [text for role, text in stored if role == "user"]
    assert stored == talk(*prompts)
    for name in "abc":
        own = [prompt for prompt in prompts if prompt.startswith(name)]
        assert own == [f"{name}{n}" for n in range(10)]
    asyncio.run(client.aclose())


async def test_a_session_of_a_closed_client_says_so(talker: Talker) -> None:
    async with Aether(talker) as client:
        session = client.session("s")
        await session.ask("hi")
    with pytest.raises(AetherError, match="closed"):
        await session.ask("and?")
    assert texts(await session.history()) == talk("hi")
