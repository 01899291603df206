"""Whatever happens to turns and stores, history is exactly the turns that succeeded, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import aether.memory._history as history
from aether import Aether, Message
from aether.errors import AetherError, ProviderError, SessionConflictError, SessionSaveError
from aether.llm.contracts import LLMResponse
from aether.memory import Session
from tests.memory.talking import (
    DELTAS,
    AppendingStore,
    ReplacingStore,
    SavingStore,
    Talker,
    answer_to,
    texts,
)

TICKS = st.integers(0, 14)
SETTINGS = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)
FAULTS = st.lists(st.sampled_from(["before", "after", ""]), max_size=2)


class Sessions(RuleBasedStateMachine):
    """One session of two clients on one store. The model is a list of messages."""

    make_store: type[SavingStore]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.talker = Talker()
        self.turns: list[Message] = []
        self.system: str | None = None
        self.count = 0
        self.clients: list[Aether] = []
        self.sessions: list[Session] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(history, "LONGEST_PAUSE_SECONDS", 0)

    @initialize()
    def begin(self) -> None:
        self.store = self.make_store()
        self.restart()

    @rule(which=st.sampled_from([0, 1]))
    def ask(self, which: int) -> None:
        prompt = self.prompt()
        self.succeeded(prompt, self.run(self.sessions[which].ask(prompt)))

    @rule(which=st.sampled_from([0, 1]), text=st.booleans())
    def stream_to_the_end(self, which: int, text: bool) -> None:
        prompt, session = self.prompt(), self.sessions[which]

        async def read() -> str:
            if text:
                return "".join([piece async for piece in session.stream_text(prompt)])
            return "".join([chunk.text async for chunk in session.stream(prompt)])

        self.succeeded(prompt, self.run(read()))

    @rule(which=st.sampled_from([0, 1]), prompts=st.integers(2, 4))
    def ask_several_at_once(self, which: int, prompts: int) -> None:
        asked = [self.prompt() for _ in range(prompts)]

        async def together() -> list[str]:
            return await asyncio.gather(*(self.sessions[which].ask(prompt) for prompt in asked))

        for prompt, answer in zip(asked, self.run(together()), strict=True):
            self.succeeded(prompt, answer)

    @rule(which=st.sampled_from([0, 1]), streaming=st.booleans())
    def the_model_fails(self, which: int, streaming: bool) -> None:
        self.talker.error = ProviderError("no")
        with pytest.raises(ProviderError):
            self.run(self.turn(self.sessions[which], self.prompt(), streaming))
        self.talker.error = None

    @rule(
        which=st.sampled_from([0, 1]),
        read=st.integers(0, DELTAS),
        way=st.sampled_from(["break", "close", "error", "task ends", "drop"]),
    )
    def leave_a_stream(self, which: int, read: int, way: str) -> None:
        stream = self.sessions[which].stream(self.prompt())

        async def leave() -> None:
            nonlocal stream
            for _ in range(read):
                await anext(stream)
            if way == "close":
                await stream.aclose()
            elif way == "error":
                async with stream:
                    raise ValueError("mine")
            elif way == "break":
                async for _ in stream:
                    break
                del stream
            elif way == "drop":
                del stream

        async def left() -> None:
            await asyncio.gather(asyncio.ensure_future(leave()), return_exceptions=True)
            for _ in range(10):
                await asyncio.sleep(0)

        if way == "break" and read == DELTAS:
            read -= 1  # the next chunk is the final one
        self.run(left())

    @rule(which=st.sampled_from([0, 1]), ticks=TICKS, streaming=st.booleans(), twice=st.booleans())
    def cancel(self, which: int, ticks: int, streaming: bool, twice: bool) -> None:
        prompt = self.prompt()

        async def cancelled() -> str | None:
            writes = self.store.writes
            task = asyncio.ensure_future(self.turn(self.sessions[which], prompt, streaming))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            if twice and self.store.writes == writes:
                await asyncio.sleep(0)
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, asyncio.CancelledError):
                return None
            assert isinstance(outcome, str)
            return outcome

        answer = self.run(cancelled())
        if answer is None and self.make_store is AppendingStore:
            answer = self.kept_although_cancelled(prompt)
        if answer is not None:
            self.succeeded(prompt, answer)

    @rule(which=st.sampled_from([0, 1]), faults=FAULTS, streaming=st.booleans())
    def the_store_fails(self, which: int, faults: list[str], streaming: bool) -> None:
        prompt = self.prompt()
        self.store.faults = list(faults)
        try:
            answer = self.run(self.turn(self.sessions[which], prompt, streaming))
        except SessionSaveError as error:
            assert faults[0] == "before"
            assert error.response is not None
            assert error.response.text == self.answer(prompt)
        else:
            self.succeeded(prompt, answer)
        self.store.faults = []

    @rule(which=st.sampled_from([0, 1]), streaming=st.booleans())
    def the_store_cannot_be_read(self, which: int, streaming: bool) -> None:
        self.store.broken = True
        calls = len(self.talker.requests)
        with pytest.raises(AetherError, match="disk is gone"):
            self.run(self.turn(self.sessions[which], self.prompt(), streaming))
        assert len(self.talker.requests) == calls
        self.store.broken = False

    @precondition(lambda self: self.make_store is not SavingStore)
    @rule(ticks=TICKS, first=st.sampled_from([0, 1]))
    def both_clients_at_once(self, ticks: int, first: int) -> None:
        mine, other = self.prompt(), self.prompt()
        before = self.transcript()

        async def at_once() -> None:
            leading = asyncio.ensure_future(self.sessions[first].ask(mine))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await asyncio.gather(leading, self.sessions[1 - first].ask(other))

        self.run(at_once())
        added = self.stored_turns()[len(self.turns) :]
        assert {added[0].text, added[2].text} == {mine, other}
        prefix = [*before, added[0]]
        assert added[1].text == answer_to(prefix), "the first was computed from all before it"
        prefix += [added[1], added[2]]
        behind = [answer_to([*before, added[2]]), answer_to(prefix)]
        assert added[3].text in behind, "the second from all before it, or merged behind"
        self.turns += added
        self.system = self.given()

    @precondition(lambda self: self.make_store is not SavingStore)
    @rule(which=st.sampled_from([0, 1]), ticks=TICKS)
    def deleted_during_a_turn(self, which: int, ticks: int) -> None:
        prompt, before = self.prompt(), self.transcript()

        async def race() -> str | None:
            task = asyncio.ensure_future(self.sessions[which].ask(prompt))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await self.store.delete("s")
            try:
                return await task
            except SessionConflictError as error:
                assert isinstance(error.response, LLMResponse)
                assert error.response.text == answer_to([*before, Message("user", prompt)])
                return None

        had_turns = bool(self.turns)
        answer = self.run(race())
        stored = self.stored_turns()
        if answer is None:
            assert stored == []
            assert had_turns
        assert texts(stored) in ([], [("user", prompt), ("assistant", answer)])
        self.turns = stored
        self.system = next((m.text for m in self.stored() if m.role == "system"), None)

    @rule(which=st.sampled_from([0, 1]))
    def clear(self, which: int) -> None:
        self.run(self.sessions[which].clear())
        self.turns = []
        self.system = None

    @rule(text=st.sampled_from(["Be brief.", "Be kind."]))
    def give_a_system_prompt(self, text: str) -> None:
        for client in self.clients:
            client.session("s", system=text)

    @rule()
    def restart(self) -> None:
        self.close()
        self.clients = [Aether(self.talker, memory_store=self.store) for _ in range(2)]
        self.sessions = [client.session("s") for client in self.clients]

    @invariant()
    def history_is_the_turns_that_succeeded(self) -> None:
        if not self.clients:
            return
        assert texts(self.stored_turns()) == texts(self.turns)
        systems = [m.text for m in self.stored() if m.role == "system"]
        assert systems[-1:] == ([] if self.system is None else [self.system])
        if self.make_store is not AppendingStore:
            assert len(systems) < 2
            assert [m.role for m in self.stored()][: len(systems)] == ["system"] * len(systems)
        for session in self.sessions:
            seen = self.run(session.history())
            assert texts(seen) == [("system", text) for text in systems[-1:]] + texts(self.turns)

    @invariant()
    def nothing_is_held(self) -> None:
        assert self.talker.open_streams == 0
        for session in self.sessions:
            assert session._queue._current is None

    def teardown(self) -> None:
        self.close()
        self.loop.close()
        self.patch.undo()

    def close(self) -> None:
        for client in self.clients:
            self.run(client.aclose())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 5))

    async def turn(self, session: Session, prompt: str, streaming: bool) -> str:
        if streaming:
            return "".join([text async for text in session.stream_text(prompt)])
        return await session.ask(prompt)

    def prompt(self) -> str:
        self.count += 1
        return f"p{self.count}"

    def given(self) -> str | None:
        """The system prompt of the next turn."""
        own = self.sessions[0]._system
        return self.system if own is None else own.text

    def transcript(self) -> list[Message]:
        """What the next turn is computed from."""
        system = self.given()
        return [*([] if system is None else [Message("system", system)]), *self.turns]

    def answer(self, prompt: str) -> str:
        return answer_to([*self.transcript(), Message("user", prompt)])

    def succeeded(self, prompt: str, answer: str) -> None:
        assert answer == self.answer(prompt), "it was computed from exactly what is stored before"
        self.system = self.given()
        self.turns += [Message("user", prompt), Message("assistant", answer)]

    def kept_although_cancelled(self, prompt: str) -> str | None:
        """A store without `replace` cannot take back what it has stored: a whole turn, or none."""
        added = self.stored_turns()[len(self.turns) :]
        if not added:
            return None
        user, assistant = added
        assert user.text == prompt
        return assistant.text

    def stored(self) -> Sequence[Message]:
        return self.store.sessions.get("s", [])

    def stored_turns(self) -> list[Message]:
        return [message for message in self.stored() if message.role != "system"]


class SessionsOfSavingStore(Sessions):
    make_store = SavingStore


class SessionsOfAppendingStore(Sessions):
    make_store = AppendingStore


class SessionsOfReplacingStore(Sessions):
    make_store = ReplacingStore


TestSavingStore = SessionsOfSavingStore.TestCase
TestAppendingStore = SessionsOfAppendingStore.TestCase
TestReplacingStore = SessionsOfReplacingStore.TestCase
TestSavingStore.settings = TestAppendingStore.settings = TestReplacingStore.settings = SETTINGS
