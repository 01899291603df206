"""Turns that are asked for at once, by two clients of one store: their history is linearizable.

An answer tells what it was computed from, and a prompt stands in the history once, so the order in
which turns took effect can be read off the store. That order must explain all that callers saw.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import aether.memory._history as history
from aether import Aether, Message
from aether.errors import SessionError, SessionSaveError
from aether.memory import Session
from tests.memory.talking import AppendingStore, ReplacingStore, SavingStore, Talker, answer_to
from tests.simulation.loop import VirtualLoop

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Turn:
    """What is asked of a session: by which client, when, how, and how far it is let."""

    client: int
    start: int
    way: str
    steps: int


TURNS = st.lists(
    st.builds(
        Turn,
        client=st.integers(0, 1),
        start=st.integers(0, 40),
        way=st.sampled_from(["ask", "ask", "stream", "leave", "cancel", "cancel twice"]),
        steps=st.integers(0, 25),
    ),
    min_size=2,
    max_size=6,
)
FAULTS = st.lists(st.sampled_from(["", "", "", "before", "after"]), max_size=6)


@dataclass
class Seen:
    """What its caller saw of a turn. Times are in steps of the loop."""

    began: int = 0
    ended: int = 0
    answer: str | None = None
    may_be_stored: bool = False
    conflicted: bool = False


@pytest.mark.parametrize("make_store", [ReplacingStore, AppendingStore])
@given(seed=st.integers(0, 2**32), turns=TURNS, faults=FAULTS)
@SETTINGS
def test_one_order_of_the_turns_explains_what_everybody_saw(
    make_store: type[SavingStore], seed: int, turns: list[Turn], faults: list[str]
) -> None:
    store = make_store()
    loop = VirtualLoop(Random(seed))
    try:
        seen = loop.run_until_complete(together(turns, store, faults))
        assert not loop.complaints
    finally:
        loop.close()
    stored = store.sessions.get("s", [])
    order = [int(message.text) for message in stored if message.role == "user"]
    assert len(stored) == 2 * len(order) == 2 * len(set(order)), "whole turns, none of them twice"
    for place, number in enumerate(order):
        mine = seen[number]
        assert mine.answer == stored[2 * place + 1].text or mine.may_be_stored
        computed_from = [
            end
            for end in range(place + 1)
            if answer_to([*stored[: 2 * end], Message("user", str(number))])
            == stored[2 * place + 1].text
        ]
        assert computed_from, "from a history that was"
        before = {other for other in order if seen[other].ended < mine.began}
        assert before <= set(order[: computed_from[-1]]), "from all that had come back"
        if len({turn.client for turn in turns}) == 1:
            assert computed_from[-1] == place, "from exactly what stands before it"
    for number, mine in enumerate(seen):
        assert mine.answer is None or number in order, "what came back is stored"
        assert not mine.conflicted or any(each.may_be_stored for each in seen)


async def together(turns: list[Turn], store: SavingStore, faults: list[str]) -> list[Seen]:
    """All of them at once, and each turn's end waited for."""
    talker = Talker()
    clients = [Aether(talker, memory_store=store) for _ in range(2)]
    sessions = [client.session("s") for client in clients]
    store.faults = list(faults)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "LONGEST_PAUSE_SECONDS", 0)
        seen = await asyncio.gather(
            *(take(sessions[turn.client], turn, number) for number, turn in enumerate(turns))
        )
    for session in sessions:
        assert session._queue._current is None
    for client in clients:
        await client.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return seen


async def take(session: Session, turn: Turn, number: int) -> Seen:
    seen = Seen()
    for _ in range(turn.start):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    seen.began = loop.steps
    task = asyncio.ensure_future(act(session, turn, str(number)))
    if turn.way.startswith("cancel"):
        for _ in range(turn.steps):
            await asyncio.sleep(0)
        seen.may_be_stored = task.cancel()
        if turn.way.endswith("twice"):
            await asyncio.sleep(0)
            task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    seen.ended = loop.steps
    if isinstance(outcome, SessionSaveError):
        seen.may_be_stored = "may or may not" in str(outcome)
    elif isinstance(outcome, SessionError):
        seen.conflicted = True
    elif isinstance(outcome, BaseException):
        assert isinstance(outcome, asyncio.CancelledError), outcome
    else:
        seen.answer = outcome
    return seen


async def act(session: Session, turn: Turn, prompt: str) -> str | None:
    if turn.way == "stream":
        return "".join([text async for text in session.stream_text(prompt)])
    if turn.way == "leave":
        async with session.stream(prompt) as chunks:
            async for _ in chunks:
                break
        return None
    return await session.ask(prompt)
