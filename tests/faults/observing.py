"""Seeing what a test makes, without being told: each client, what it sends and tells, each turn.

It is put around the classes for as long as a test runs, and is no part of them. What cannot be seen
so: what runs in another process; the requests of a provider that is not Aether's, or that is asked
past its client; the turns of sessions whose store is not the one in memory.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from aether import Aether
from aether.events import EVENT_NAMES, STREAM_CHUNK, Event, EventBus
from aether.extensions.llm._http import Endpoint
from aether.extensions.llm.cost_tracking import Usage
from aether.extensions.memory.in_memory import InMemorySessionStore
from aether.llm.contracts import Message
from aether.memory._turns import Turn, TurnQueue
from aether.memory.session import Session

KEPT_ENTRIES = 10_000
"""A ledger forgets what is older than so many."""
_UNSENT = frozenset({"ClientClosedError", "ConfigurationError", "InputError", "CancelledError"})
"""What may end an attempt before anything was asked of the transport."""


@dataclass
class _Tally:
    """How many requests an endpoint has asked its transport for, and in whose ledgers they are."""

    sent: int = 0
    owners: list[Usage] = field(default_factory=list)


@dataclass
class Observed:
    """What a test has made so far."""

    clients: weakref.WeakSet[Aether] = field(default_factory=weakref.WeakSet)
    usages: list[Usage] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """Those of every client, but for the chunks: so none is made that the test does not ask for."""
    queues: list[TurnQueue] = field(default_factory=list)
    """One for each session: it is what a session locks."""
    complaints: list[str] = field(default_factory=list)
    """What sessions did wrong."""
    listening: bool = True
    """Whether clients that are made from now on are listened to."""
    _heard: weakref.WeakSet[EventBus] = field(default_factory=weakref.WeakSet)
    _tallies: weakref.WeakKeyDictionary[Endpoint, _Tally] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    _kept: list[_Tally] = field(default_factory=list)

    def adopt(self, client: Aether) -> None:
        """See this client."""
        self.clients.add(client)
        if all(usage is not client.usage for usage in self.usages):
            self.usages.append(client.usage)
        self.adopt_provider(client.provider, client.usage)
        if self.listening and client.events not in self._heard:
            self._heard.add(client.events)
            for name in EVENT_NAMES:
                if name != STREAM_CHUNK:
                    client.events.subscribe(name, self.events.append)

    def adopt_provider(self, provider: Any, usage: Usage) -> None:
        """Know whose requests those of this stack are."""
        while (inner := getattr(provider, "inner", None)) is not None:
            provider = inner
        endpoint = getattr(getattr(provider, "_exchange", None), "_endpoint", None)
        if endpoint is not None:
            tally = self.tally(endpoint)
            if all(owner is not usage for owner in tally.owners):
                tally.owners.append(usage)
                tally.sent = 0  # what was asked before was no client's

    def tally(self, endpoint: Endpoint) -> _Tally:
        """The requests of an endpoint. It is not kept alive."""
        tally = self._tallies.get(endpoint)
        if tally is None:
            tally = self._tallies[endpoint] = _Tally()
            self._kept.append(tally)
        return tally

    def judge(self) -> None:
        """Assert that ledgers and sessions are as they must be."""
        assert not self.complaints, self.complaints[0]
        for usage in self.usages:
            ledger = usage.ledger
            assert all(entry.state != "pending" for entry in ledger), f"not settled: {ledger}"
            if usage.enabled and len(ledger) < KEPT_ENTRIES:
                self._one_entry_per_request(usage)

    def _one_entry_per_request(self, usage: Usage) -> None:
        mine = [tally for tally in self._kept if any(owner is usage for owner in tally.owners)]
        if not mine or any(len(tally.owners) > 1 for tally in mine):
            return  # a provider without an endpoint, or that of two clients
        sent = sum(tally.sent for tally in mine)
        ledger = usage.ledger
        unsent = sum(entry.error in _UNSENT for entry in ledger)
        assert sent <= len(ledger) <= sent + unsent, (
            f"{len(ledger)} ledger entries for {sent} requests: {list(ledger)}"
        )


class _Counting:
    """A transport whose requests are counted."""

    def __init__(self, transport: Any, tally: _Tally) -> None:
        self._transport = transport
        self._tally = tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def request(self, *arguments: Any, **options: Any) -> Any:
        self._tally.sent += 1
        return await self._transport.request(*arguments, **options)

    def stream(self, *arguments: Any, **options: Any) -> Any:
        self._tally.sent += 1
        return self._transport.stream(*arguments, **options)


def observe(patch: pytest.MonkeyPatch) -> Observed:
    """From now on, until the patches are taken back."""
    observed = Observed()
    _see_clients(patch, observed)
    _see_requests(patch, observed)
    _see_turns(patch, observed)
    return observed


def _see_clients(patch: pytest.MonkeyPatch, observed: Observed) -> None:
    make, other = Aether.__init__, Aether._other

    @functools.wraps(make)
    def made(client: Aether, *arguments: Any, **options: Any) -> None:
        make(client, *arguments, **options)
        observed.adopt(client)

    def made_other(client: Aether, provider: str) -> Any:
        stack = other(client, provider)
        observed.adopt_provider(stack.provider, client.usage)
        return stack

    patch.setattr(Aether, "__init__", made)
    patch.setattr(Aether, "_other", made_other)


def _see_requests(patch: pytest.MonkeyPatch, observed: Observed) -> None:
    opened = Endpoint._open

    def counted(endpoint: Endpoint) -> Any:
        transport = vars(endpoint)["_transport"]
        return None if transport is None else _Counting(transport, observed.tally(endpoint))

    def kept(endpoint: Endpoint, transport: Any) -> None:
        vars(endpoint)["_transport"] = transport

    async def opened_counted(endpoint: Endpoint) -> Any:
        await opened(endpoint)
        return counted(endpoint)

    patch.setattr(Endpoint, "_transport", property(counted, kept), raising=False)
    patch.setattr(Endpoint, "_open", opened_counted)


def _see_turns(patch: pytest.MonkeyPatch, observed: Observed) -> None:
    """A turn that fails leaves the history as it was, and one that succeeds adds to it."""
    whose: dict[TurnQueue, tuple[InMemorySessionStore, str]] = {}
    begun: dict[int, tuple[list[Message], int]] = {}
    written: Counter[tuple[int, str]] = Counter()  # by turns that succeeded
    make_queue, make_session = TurnQueue.__init__, Session.__init__
    enter, leave = Turn.__enter__, Turn.__exit__

    def made_queue(queue: TurnQueue) -> None:
        make_queue(queue)
        observed.queues.append(queue)

    @functools.wraps(make_session)
    def made_session(session: Session, *arguments: Any, **options: Any) -> None:
        make_session(session, *arguments, **options)
        store = options["store"]
        if isinstance(store, InMemorySessionStore):
            whose[session._queue] = store, session.session_id

    def entered(turn: Turn) -> Turn:
        if (place := whose.get(turn._queue)) is not None:
            store, name = place
            begun[id(turn)] = list(store._sessions.get(name, [])), written[id(store), name]
        return enter(turn)

    def left(turn: Turn, *error: object) -> None:
        if (place := whose.get(turn._queue)) is not None and id(turn) in begun:
            store, name = place
            before, others = begun.pop(id(turn))
            after = store._sessions.get(name, [])
            kind = error[0] if error else None
            if kind is None:
                written[id(store), name] += 1
                if after == before and before:
                    observed.complaints.append(f"a turn of {name!r} succeeded and left no trace")
            elif after != before and written[id(store), name] == others:
                observed.complaints.append(
                    f"a turn of {name!r} failed ({kind}) and left a trace: {before} -> {after}"
                )
        leave(turn, *error)

    patch.setattr(TurnQueue, "__init__", made_queue)
    patch.setattr(Session, "__init__", made_session)
    patch.setattr(Turn, "__enter__", entered)
    patch.setattr(Turn, "__exit__", left)
