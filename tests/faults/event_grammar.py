"""The grammar of events: which sequences there can be, as an automaton for each run.

    run     = (request tools)* | "stream.start" (chunk* tools)* end
    request = "request.start" ("request.complete" | "request.error")
    tools   = each call: "tool.start" ("tool.complete" | "tool.error"), any number at a time
    end     = "stream.complete" | "stream.error"

A run that a tool call started has all its events between that call's start and its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aether.events import Event

__all__ = ["EventGrammar", "check"]


@dataclass
class _Run:
    parent: str | None
    streams: bool
    request: str | None = None
    """The id of the request that is under way."""
    turn: int = 0
    tools: dict[str, str] = field(default_factory=dict)
    """The calls that are under way, with their tools."""
    called: set[str] = field(default_factory=set)
    """The calls of this turn, ended or not."""
    ended: str | None = None
    """Its last event, if there can be no other."""


class EventGrammar:
    """Reads events one by one. `AssertionError` for one that cannot come next."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def read(self, event: Event) -> None:
        """Go on with this event."""
        kind, _, what = event.name.partition(".")
        run = self._runs.get(event.run_id)
        if run is None:
            assert what == "start", f"{event.name} begins a run"
            assert kind in ("request", "stream"), f"{event.name} begins a run"
            run = self._runs[event.run_id] = _Run(event.parent_run_id, kind == "stream")
        assert run.ended is None, f"{event.name} after {run.ended}"
        assert event.parent_run_id == run.parent
        if run.parent in self._runs:
            assert self._runs[run.parent].tools, "a delegated run outside of any tool call"
        assert event.call_id, f"{event.name} without an id"
        getattr(self, f"_{kind}")(run, what, event)

    def end(self) -> None:
        """There are no more events."""
        for run in self._runs.values():
            assert not run.tools, f"no end of the calls {run.tools}"
            assert run.request is None, "a request without an end"
            assert not run.streams or run.ended is not None, "a stream without an end"

    def _request(self, run: _Run, what: str, event: Event) -> None:
        assert not run.streams, f"{event.name} in a stream"
        assert not run.tools, f"{event.name} while tools run"
        if what == "start":
            assert run.request is None, "a request in a request"
            self._next_turn(run, event)
            run.request = event.call_id
            return
        assert run.request == event.call_id, f"{event.name} of another request"
        assert event.turn == run.turn
        run.request = None
        if what == "error":
            run.ended = event.name

    def _stream(self, run: _Run, what: str, event: Event) -> None:
        assert run.streams, f"{event.name} in a run that does not stream"
        assert event.call_id == event.run_id
        if what == "start":
            assert run.turn == 0, "a stream that starts twice"
            run.turn = 1
            return
        assert not run.tools, f"{event.name} while tools run"
        if what == "chunk":
            if event.turn != run.turn:
                self._next_turn(run, event)
            return
        run.ended = event.name

    def _tool(self, run: _Run, what: str, event: Event) -> None:
        assert run.request is None, f"{event.name} while a model is asked"
        assert event.call is not None
        assert event.call_id == event.call.id
        if event.turn != run.turn:
            assert run.streams, f"{event.name} of turn {event.turn} in turn {run.turn}"
            self._next_turn(run, event)  # of a turn without text
        if what == "start":
            assert event.call_id not in run.called, "a call that starts twice"
            run.called.add(event.call.id)
            run.tools[event.call.id] = event.call.name
            return
        assert run.tools.pop(event.call.id, None) == event.call.name, f"{event.name} without start"

    def _next_turn(self, run: _Run, event: Event) -> None:
        assert not run.tools, f"{event.name} of the next turn while tools run"
        assert event.turn == run.turn + 1, f"{event.name} of turn {event.turn} after {run.turn}"
        run.turn += 1
        run.called = set()


def check(events: Iterable[Event]) -> None:
    """All events of some runs, from their first to their last, in the order in which they came."""
    grammar = EventGrammar()
    for number, event in enumerate(events):
        try:
            grammar.read(event)
        except AssertionError as error:
            error.add_note(f"event {number}: {event.name} of run {event.run_id}")
            raise
    grammar.end()
