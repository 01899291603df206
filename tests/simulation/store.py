"""A session store that fails by chance, and the judge of what is written to it (I9).

Each write is looked at where it takes effect: it adds one whole turn, computed from what stood
there, or takes back the turn of somebody who was cancelled. No other write may happen.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

from aether.errors import SessionSaveError
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import Message
from tests.simulation.calls import Call, Operation, current_operation, tag_of
from tests.simulation.judging import Judge

__all__ = ["AppendingStore", "ReplacingStore", "SavingStore", "Turns", "texts"]

MEDDLING = (0.0, 0.02, 0.2)
"""Shares of writes whose operation is cancelled just before, or when they have taken effect."""
MEDDLING_AGAIN = 0.3
"""The share of those that are cancelled once more, while what they wrote is taken back."""

_TURNS = {"ask session", "stream session"}

Texts = tuple[tuple[str, str], ...]


class Turns:
    """What is stored of each session, write by write."""

    def __init__(self, judge: Judge, calls: dict[str, list[Call]], *, shared: bool) -> None:
        self._judge = judge
        self._calls = calls
        self._shared = shared
        """Whether two clients may write to one session."""
        self.states: dict[str, list[Texts]] = defaultdict(lambda: [()])
        self._asked: dict[object, list[str]] = defaultdict(list)
        """The tags of the turns that each session object was asked for, in order."""
        self._stored: dict[str, list[str]] = defaultdict(list)
        """The tags of the turns that are stored."""
        self._returned: set[str] = set()
        """The tags of the turns whose answer came back."""
        self._gone: set[str] = set()
        """Tags of stored turns that somebody cleared away."""
        self.shrunk_at: dict[str, float] = defaultdict(lambda: -1.0)
        """When turns were last taken out of a session."""

    def asked_for(self, operation: Operation) -> None:
        """A turn is asked for now: it has its place."""
        self._asked[operation.session].append(operation.tag)
        stored = self._stored[operation.session.session_id]
        operation.known = [tag for tag in stored if tag in self._returned]

    def written(self, time: float, session: str, messages: Sequence[Message]) -> None:
        """A write took effect."""
        operation = current_operation.get()
        before, after = self.states[session][-1], texts(messages)
        self.states[session].append(after)
        self._judge.note(f"stored {session} {len(after)} by {operation.tag}")
        old, new = _without_system(before), _without_system(after)
        if operation.kind == "clear":
            self._check(not after, operation, "left %s", after)
            self._gone.update(self._stored.pop(session, ()))
            self.shrunk_at[session] = time
        elif new[: len(old)] == old and len(new) == len(old) + 2:
            self._added(operation, session, old, new)
        elif old[: len(new)] == new and len(old) == len(new) + 2:
            taken = self._stored[session].pop()
            self.shrunk_at[session] = time
            self._check(taken == operation.tag, operation, "took %s away", taken)
        else:
            self._check(new == old, operation, "wrote %s over %s", new, old)

    def _added(self, operation: Operation, session: str, old: Texts, new: Texts) -> None:
        self._stored[session].append(operation.tag)
        (asked, prompt), (answered, text) = new[-2:]
        calls = self._calls.get(operation.tag, [])
        self._check(asked == "user" and answered == "assistant", operation, "added no turn")
        self._check(tag_of([Message("user", prompt)]) == operation.tag, operation, "is not its own")
        self._check(calls, operation, "was stored before a model was asked")
        if not calls:
            return
        reply = calls[-1].exchanges[-1].plan.reply.text if calls[-1].exchanges else None
        self._check(text == reply, operation, "stored %r, not %r", text, reply)
        seen = _without_system(texts(calls[0].request.messages))[:-1]
        same = old == seen or (self._shared and old[: len(seen)] == seen)
        # A store that compares lengths cannot tell turns that were cleared from as many new ones.
        cleared = len(old) == len(seen) and self.shrunk_at[session] >= calls[0].started
        operation.misplaced = not same and cleared and self._shared
        self._check(same or operation.misplaced, operation, "answered another history")
        said = " ".join(text for role, text in seen if role == "user")
        missed = [tag for tag in operation.known if f"[{tag}]" not in said]
        missed = [tag for tag in missed if tag not in self._gone]
        self._check(not missed, operation, "did not see %s, which had come back", missed)

    def settled(
        self, operation: Operation, error: BaseException | None, *, can_take_back: bool
    ) -> None:
        """An operation of a session is over: it is stored if, and only if, it came back."""
        stored = self._stored[operation.session.session_id]
        count = stored.count(operation.tag)
        said_so = isinstance(error, SessionSaveError) and "may or may not" in str(error)
        if operation.outcome == "returned" or operation.whole:
            there = count == 1 or operation.tag in self._gone or operation.kind not in _TURNS
            self._check(there, operation, "came back, and is stored %s times", count)
            self._returned.add(operation.tag)
        elif operation.crashed or said_so:
            self._check(count <= 1, operation, "is stored %s times", count)
        elif count:
            others = operation.misplaced or (self._shared and stored[-1] != operation.tag)
            excused = operation.outcome in ("cancelled", "timeout") and (
                not can_take_back or operation.store_faults or others
            )
            self._check(excused, operation, "ended with %s, but is stored", operation.outcome)

    def check_order(self) -> None:
        """At the end: turns of one session object are stored in the order they were asked for."""
        for stored in self._stored.values():
            places = {tag: place for place, tag in enumerate(stored)}
            for asked in self._asked.values():
                order = [places[tag] for tag in asked if tag in places]
                self._judge.check(order == sorted(order), "I9: %s are stored as %s", asked, stored)

    def _check(self, holds: object, operation: Operation, violated: str, *about: object) -> None:
        self._judge.check(holds, f"I9: {operation.tag} ({operation.kind}) {violated}", *about)


class SavingStore:
    """A process's way to a store with nothing but what every store must have.

    A call fails now and then; a write before it takes effect, or after it. And some who write are
    cancelled just then.
    """

    def __init__(
        self,
        inner: InMemorySessionStore,
        turns: Turns,
        chance: Random,
        *,
        failing: float,
        interrupt: Callable[[Operation], None],
    ) -> None:
        self._inner = inner
        self._turns = turns
        self._chance = chance
        self._interrupt = interrupt
        self.failing = failing
        """The share of calls that fail; at 1, its process has died."""
        self._slowest = chance.choice((0.002, 0.02, 0.1))
        self._meddling = chance.choice(MEDDLING)

    async def load(self, session_id: str) -> list[Message]:
        operation = current_operation.get()
        if operation.cancelled_at is not None and self._chance.random() < MEDDLING_AGAIN:
            self._interrupt(operation)
        await self._delay()
        if self._fails():
            raise OSError("the disk is gone")
        messages = await self._inner.load(session_id)
        await self._delay()
        return messages

    async def save(self, session_id: str, messages: Sequence[Message]) -> None:
        await self._write(session_id, self._inner.save(session_id, messages))

    async def delete(self, session_id: str) -> None:
        await self._write(session_id, self._inner.delete(session_id))

    async def exists(self, session_id: str) -> bool:
        return await self._inner.exists(session_id)

    async def _write(self, session_id: str, writing: object) -> None:
        """Write with a failure before or after it took effect."""
        assert asyncio.iscoroutine(writing)
        try:
            self._meddle()
            await self._delay()
            if self._fails():
                raise OSError("no room")
            await writing  # it does not suspend: nobody comes in between
        finally:
            writing.close()
        time = asyncio.get_running_loop().time()
        self._turns.written(time, session_id, await self._inner.load(session_id))
        self._meddle()
        await self._delay()
        if self._fails():
            raise OSError("no word from the disk")

    def _meddle(self) -> None:
        if self._chance.random() < self._meddling:
            self._interrupt(current_operation.get())

    async def _delay(self) -> None:
        await asyncio.sleep(self._chance.choice((0.0, 0.0, self._slowest / 10, self._slowest)))

    def _fails(self) -> bool:
        fails = self._chance.random() < self.failing
        if fails:
            current_operation.get().store_faults += 1
        return fails


class AppendingStore(SavingStore):
    """One that compares and sets, but only ever adds."""

    async def append(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        appending = self._inner.append(session_id, messages, expected_length=expected_length)
        await self._write(session_id, appending)


class ReplacingStore(AppendingStore):
    """One with all that a store can have."""

    async def replace(
        self, session_id: str, messages: Sequence[Message], *, expected_length: int
    ) -> None:
        replacing = self._inner.replace(session_id, messages, expected_length=expected_length)
        await self._write(session_id, replacing)


def texts(messages: Sequence[Message]) -> Texts:
    return tuple((message.role, message.text) for message in messages)


def _without_system(messages: Texts) -> Texts:
    return tuple(message for message in messages if message[0] != "system")
