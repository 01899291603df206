"""One simulation: a seed in, a trace and the violated invariants out."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aether.errors import AetherError
from aether.llm import call as identifiers
from tests.simulation.calls import Operation, current_operation
from tests.simulation.judging import Judge
from tests.simulation.loop import Stuck
from tests.simulation.money import check_ledger
from tests.simulation.stack import MODELS
from tests.simulation.users import User, crash
from tests.simulation.world import World

__all__ = ["USERS", "Outcome", "simulate"]

USERS = 20
SETTLED = 0.001
"""Seconds in which everything that is ready is done; nothing that waits is."""
LINGERING = 20.0
"""The same where subscribers take their time."""
LONG = 5000.0
"""Seconds after which every gate and circuit is open to a probe."""


@dataclass
class Outcome:
    """What came of one seed."""

    seed: int
    judge: Judge
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def violations(self) -> list[str]:
        """What must not have been."""
        return self.judge.violations

    @property
    def digest(self) -> str:
        """The trace in one word."""
        return hashlib.sha256("\n".join(self.judge.trace).encode()).hexdigest()


def simulate(seed: int, *, users: int = USERS, subscribers: str = "seed") -> Outcome:
    """Run one seed. Nothing is awaited in real time, and no socket or thread is used."""
    with _alone(seed) as complaints:
        world = World(seed, users=users, subscribers=subscribers)
        try:
            world.loop.run_until_complete(_run(world))
        except Stuck as stuck:
            world.judge.check(False, str(stuck))
            return Outcome(seed, world.judge)
        except Exception as error:  # noqa: BLE001 - a seed that breaks the simulation failed, too
            world.judge.check(False, "broken: %s", "".join(traceback.format_exception(error)))
            return Outcome(seed, world.judge)
        finally:
            world.loop.close()
        judge, counts, complaints_of_loop = world.judge, world.counts, world.loop.complaints
        del world
    for complaint in (*complaints, *complaints_of_loop):
        judge.check(False, "nobody caught: %s", complaint)
    return Outcome(seed, judge, counts)


async def _run(world: World) -> None:
    users = [User(world, number) for number in range(world.users)]
    lives = [world.loop.create_task(user.live()) for user in users]
    fate = world.chance("fate")
    if fate.random() < 0.15:
        lives.append(world.loop.create_task(crash(world, fate.uniform(0.0, 30.0))))
    await asyncio.wait(lives)
    for life in lives:
        life.result()
    await asyncio.sleep(LINGERING if world.slow else SETTLED)
    _check_released(world)
    for user in users:
        for operation in user.operations:
            operation.kept = None
            world.count(operation)
    await asyncio.sleep(LONG)
    await _check_well(world)
    for client in world.clients:
        await client.aclose()
    await asyncio.sleep(LONG)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    world.judge.check(not tasks, "I14: tasks are left: %s", tasks)
    world.hearing.check(slow=world.slow)
    world.turns.check_order()
    for stack in world.stacks:
        check_ledger(world.judge, stack.usage, stack.calls.values())


def _check_released(world: World) -> None:
    """I10: what operations held is free, without the garbage collector."""
    check = world.judge.check
    for call in (call for stack in world.stacks for call in stack.calls.values()):
        check(not call.holds_connection, "I10: %s holds a connection", call.tag)
    for _, session in world.sessions:
        queue = session._queue
        check(queue._current is None, "I10: the turn of %s is taken", session)
        check(not queue._waiting, "I10: somebody waits for %s", session)
    open_generators = [each for each in world.loop._asyncgens if each.ag_frame is not None]
    check(not open_generators, "I10: generators are open: %s", open_generators)


async def _check_well(world: World) -> None:
    """Once nothing goes wrong any more, every model and every session answers."""
    for store in world.stores:
        store.failing = 0.0
    for stack in world.stacks:
        stack.weather.clear = True
    asked: list[tuple[Any, dict[str, Any]]] = [
        (client, {"model": model}) for client in world.clients for model in MODELS
    ]
    sessions = [session for _, session in world.sessions]
    asked += [(session, {}) for session in sessions]
    for number, (answering, options) in enumerate(asked):
        operation = Operation(f"end.{number}", "ask session", started=world.loop.time())
        operation.session = answering if answering in sessions else None
        current_operation.set(operation)
        try:
            await answering.ask(f"[{operation.tag}] Well?", **options)
        except AetherError as error:
            world.judge.check(False, "I4, I10: %s does not answer: %r", answering, error)


@contextmanager
def _alone(seed: int) -> Iterator[list[str]]:
    """Whatever is global is the simulation's own for a while. Yields what nobody caught."""
    complaints: list[str] = []
    collecting, hook = gc.isenabled(), sys.unraisablehook
    chance, minting = random.getstate(), identifiers._random
    gc.collect(0)
    gc.disable()
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda raised: complaints.append(repr(raised.exc_value))
    random.seed(seed)
    identifiers._random = random.Random(seed)
    try:
        yield complaints
        gc.collect(0)  # what was left in cycles complains now
    finally:
        random.setstate(chance)
        identifiers._random = minting
        sys.unraisablehook = hook
        logging.disable(logging.NOTSET)
        if collecting:
            gc.enable()
