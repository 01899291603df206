"""Everything that one simulation is made of, each part with chance of its own, from one seed."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

from aether import Aether
from aether.events import EventBus
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import LLMProvider
from aether.memory import Session
from aether.tools.contracts import NextHandler, ToolInvocation, ToolResult
from tests.simulation.calls import Call, Operation
from tests.simulation.hearing import Hearing, disturb, fail_at_once
from tests.simulation.judging import Judge
from tests.simulation.loop import VirtualLoop
from tests.simulation.stack import MODELS, PROTOCOLS, Stack, Tuning
from tests.simulation.store import AppendingStore, ReplacingStore, SavingStore, Turns
from tests.simulation.tools import Tools

__all__ = ["World"]


class World:
    """The loop, the servers with their stacks, the clients, the store and its sessions.

    `subscribers` says who listens to events: `seed`, whoever the seed says; `none`; or `failing`,
    some who fail at once.
    """

    def __init__(
        self, seed: int, *, users: int, subscribers: str = "seed", tuning: Tuning | None = None
    ) -> None:
        tuning = tuning or Tuning()
        self._seed = seed
        chance = self.chance("world")
        self.users = users
        self.counts: Counter[str] = Counter()
        self.loop = VirtualLoop(self.chance("order"))
        self.judge = Judge(self.loop.time)
        self.calls: dict[str, list[Call]] = defaultdict(list)
        """Of each tag, in order."""
        self.running: dict[Operation, asyncio.Task[Any]] = {}
        self.models = MODELS[: chance.choice((1, 1, 2))]
        self.return_rate = chance.choice((0.0, 0.0, 0.0, 0.2, 0.2, 0.7))
        """How many users do one thing more when they are done with one."""
        self.weights = [
            share * chance.choice((0.05, 1, 1, 4)) for share in (4, 4, 4, 4, 3, 2, 1, 2)
        ]
        """How often each kind of operation comes: no two seeds are about the same."""
        protocols = chance.sample(list(PROTOCOLS), k=chance.choice((1, 2)))
        if tuning.protocol is not None:
            protocols = [tuning.protocol]
        self.stacks = [self._build_stack(each, tuning) for each in protocols]
        self.bus = EventBus()
        self.hearing = Hearing(self.judge, self.bus)
        self.slow = subscribers == "seed" and chance.random() < 0.1
        """Whether there are subscribers that take their time."""
        if subscribers == "failing":
            fail_at_once(self.bus)
        elif self.slow or (subscribers == "seed" and chance.random() < 0.3):
            disturb(self.bus, self.chance("subscribers"), slow=self.slow)
        self._make_store = chance.choice(
            (ReplacingStore, ReplacingStore, AppendingStore, SavingStore)
        )
        self.can_take_back = self._make_store is not AppendingStore
        self._shared = len(self.stacks) > 1 and self._make_store is not SavingStore
        self.turns = Turns(self.judge, self.calls, shared=self._shared)
        self._session_count = chance.choice((1, 2, 2))
        self._failing = chance.choice((0.0, 0.0, 0.05, 0.2))
        self._stored = InMemorySessionStore()
        self._middleware = (_passing,) if chance.random() < 0.3 else ()
        self.stores: list[SavingStore] = []
        self.clients: list[Aether] = []
        self.sessions: list[tuple[Aether, Session]] = []
        for stack in self.stacks:
            self._add_client(stack.provider)
        self.tools = Tools(self.judge, depth=chance.randint(1, 3))

    def _build_stack(self, protocol: str, tuning: Tuning) -> Stack:
        return Stack(
            protocol,
            self.chance(protocol),
            tuning,
            clock=self.loop.time,
            judge=self.judge,
            on_call=self._on_call,
        )

    def _on_call(self, call: Call) -> None:
        self.calls[call.tag].append(call)
        self.tools.check_results(call)

    def chance(self, name: str) -> Random:
        """A source of chance that no other shares: more of one thing changes no other."""
        return Random(f"{self._seed} {name}")

    def count(self, operation: Operation) -> None:
        """Count an operation that is over."""
        self.counts["operations"] += 1
        self.counts[operation.outcome] += 1

    def interrupt(self, operation: Operation) -> None:
        """Cancel an operation, if it is not over."""
        task = self.running.get(operation)
        if task is not None and not task.done():
            operation.cancelled_at = operation.cancelled_at or self.loop.time()
            task.cancel()

    def restart(self, client: Aether) -> None:
        """A client's process has died: it writes no more, and another takes its place."""
        place = self.clients.index(client)
        self.stores[place].failing = 1.0
        self.clients.remove(client)
        self.sessions = [each for each in self.sessions if each[0] is not client]
        self._add_client(client.provider)

    def _add_client(self, provider: LLMProvider) -> None:
        chance = self.chance(f"store {len(self.stores)}")
        store = self._make_store(
            self._stored, self.turns, chance, failing=self._failing, interrupt=self.interrupt
        )
        client = Aether(
            provider, events=self.bus, memory_store=store, tool_middleware=self._middleware
        )
        if self._shared or not self.sessions:
            for number in range(self._session_count):
                session = client.session(f"s-{number}", system="Be brief." if number else None)
                self.sessions.append((client, session))
        self.stores.append(store)
        self.clients.append(client)


async def _passing(call: ToolInvocation, next: NextHandler, /) -> ToolResult:
    """Middleware that lets others go first."""
    await asyncio.sleep(0)
    return await next(call)
