"""Subscribers: one that remembers every event (I7), and some that behave badly (I13)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from aether.events import EVENT_NAMES, Event, EventBus
from aether.llm.contracts import LLMResponse
from tests.simulation.judging import Judge

__all__ = ["Hearing", "disturb", "fail_at_once"]

_ENDS = {
    "request.start": ("request.complete", "request.error"),
    "stream.start": ("stream.complete", "stream.error"),
    "tool.start": ("tool.complete", "tool.error"),
}


class Hearing:
    """Remembers the events of each run, and says whether they are a sentence of the grammar."""

    def __init__(self, judge: Judge, bus: EventBus) -> None:
        self._judge = judge
        self._runs: dict[str, list[Event]] = defaultdict(list)
        for name in EVENT_NAMES:
            bus.subscribe(name, self._hear)

    def _hear(self, event: Event) -> None:
        self._runs[event.run_id].append(event)
        self._judge.note(f"event {event.name} {event.session_id or '-'} {event.turn or 0}")

    def check(self, *, slow: bool) -> None:
        """`stream.start chunk* end`, or `request.start end` for each turn; tools in between.

        Where subscribers are `slow`, a run that was cancelled may not wait for its tools' ends.
        """
        for events in self._runs.values():
            names = [event.name for event in events]
            while slow and "stream.error" in names and names[-1] in _ENDS["tool.start"]:
                names.pop()
            streams = names.count("stream.start")
            if streams or "stream.chunk" in names:
                inside = streams == 1 and names[0] == "stream.start"
                whole = inside and names[-1] in _ENDS["stream.start"]
                self._judge.check(whole, "I7 events: a stream's are %s", names)
                self._check_text(events, events[len(names) - 1].response)
            for start, ends in _ENDS.items():
                self._check_pairs(events, start, ends)

    def _check_text(self, events: Sequence[Event], answer: LLMResponse | None) -> None:
        """The deltas that were told end with the answer that was."""
        chunks = (event.chunk for event in events if event.chunk is not None)
        told = "".join(chunk.text for chunk in chunks)
        same = answer is None or told.endswith(answer.text)
        self._judge.check(same, "I7 events: %r was told, not %s", told, answer)

    def _check_pairs(self, events: Sequence[Event], start: str, ends: tuple[str, str]) -> None:
        """Each start has one end, behind it; what ends well has what came of it."""
        under_way: dict[tuple[Any, ...], Event] = {}
        for event in events:
            key = (event.call_id, event.turn if start == "tool.start" else None)
            if event.name == start:
                self._judge.check(key not in under_way, "I7 events: a second %s", event)
                under_way[key] = event
            elif event.name in ends:
                begun = under_way.pop(key, None)
                self._judge.check(begun, "I7 events: no start of %s", event)
                if event.name == ends[1]:
                    self._judge.check(event.error, "I7 events: no error in %s", event)
        self._judge.check(not under_way, "I7 events: no end of %s", under_way)


def disturb(bus: EventBus, chance: Random, *, slow: bool) -> None:
    """Subscribe callbacks that fail, some of them later or, where `slow`, after a while."""

    async def fail_later(event: Event) -> None:
        await asyncio.sleep(0)
        raise ValueError("a subscriber's own fault")

    async def dawdle(event: Event) -> None:
        await asyncio.sleep(3.0)

    async def linger(event: Event) -> None:
        await asyncio.sleep(0.3)

    every = [_fail, _cancel, fail_later, *((dawdle, linger) if slow else ())]
    for callback in chance.sample(every, k=chance.randint(1, 2)):
        _subscribe(bus, callback)


def fail_at_once(bus: EventBus) -> None:
    """Subscribe callbacks that fail, and let nobody else go first."""
    _subscribe(bus, _fail)
    _subscribe(bus, _cancel)


def _subscribe(bus: EventBus, callback: Callable[[Event], object]) -> None:
    for name in EVENT_NAMES:
        bus.subscribe(name, callback)


def _fail(event: Event) -> None:
    raise RuntimeError("a subscriber's own fault")


def _cancel(event: Event) -> None:
    raise asyncio.CancelledError
