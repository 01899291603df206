"""A phase of a soak: many do something all the time, and at quiet moments it is measured."""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from aether.errors import AetherError
from aether.http.contracts import Timeout
from tests.soak.crew import PATIENT, Crew
from tests.soak.figures import Figures, descriptors, measure, threads
from tests.soak.filling import fill, level, short_ledgers
from tests.soak.judging import Bounds, differences, growth, row
from tests.soak.operations import BLOCKING, KINDS, Doing
from tests.soak.saying import said
from tests.soak.watching import watching

__all__ = ["Outcome", "Phase", "Plan"]

_PATIENCE = 60.0
"""Seconds after which an operation should have ended, whatever the server does."""
_SHOWN = 10
_SETTLING_STEPS = 20
_SETTLING_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a phase is, and how it is judged."""

    operations: int
    """At least so many."""
    seconds: float = 0.0
    """At least so long: the operations are spread over it."""
    seed: int = 7
    workers: int = 64
    """So many operations at once."""
    parts: int = 50
    """After each of them memory is measured."""
    warm_up: int = 10
    """So many parts come before those in which memory may not grow."""
    rest: float = 17.0
    """Seconds for idle connections and threads to end, before what is held is compared; with 0 this
    is done at the end alone. aiohttp keeps a connection for 15 s, httpx for 5, a thread for tools
    waits for 10."""
    timeout: Timeout = PATIENT
    """Of the clients."""
    rest_every: int = 5
    """So many parts come between two rests."""
    frames: int = 0
    """With so many of them each allocation of memory is traced; with 0 none is. With more than 1 it
    is told, too, what has grown most.
    """
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(slots=True)
class Outcome:
    """What came of a phase."""

    ends: Counter[str] = field(default_factory=Counter)
    """How operations ended: `answer`, `left`, `cancelled`, or an error's name."""
    done: Counter[str] = field(default_factory=Counter)
    """How many of each kind."""
    samples: list[Figures] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What is to be told of the growth of memory."""
    wrong: list[str] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return self.done.total()


class Phase:
    """Runs a plan against the server at a URL. `after_each` is called after each operation."""

    def __init__(
        self,
        url: str,
        plan: Plan,
        *,
        after_each: Callable[[], object] = lambda: None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._url = url
        self._plan = plan
        self._after_each = after_each
        self._say = say
        self._begun = time.monotonic()
        self._chances = [random.Random(f"{plan.seed} {n}") for n in range(plan.workers)]
        self._snapshot = tracemalloc.Snapshot([], 1)
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Do and measure it all. Whatever was made is closed in the end, and nothing is left."""
        with watching(self._wrong), short_ledgers():
            await self._rehearse()
            empty = await self._measured()
            self.outcome = Outcome(wrong=self.outcome.wrong)
            self._begun = time.monotonic()
            with _tracing(self._plan.frames):
                async with Crew.at(self._url, self._plan.timeout) as crew:
                    await self._work(crew)
            after = await self._measured(empty)
            self._compare(empty, after, "after all clients were closed")
        told, wrong = growth(self.outcome.samples[self._plan.warm_up :], self._plan.bounds)
        self.outcome.told += told
        self.outcome.wrong += wrong
        return self.outcome

    async def _rehearse(self) -> None:
        """Do each thing once with each client, so that what is made once is there."""
        async with Crew.at(self._url, self._plan.timeout) as crew:
            await crew.ask_plainly()
            with ThreadPoolExecutor(self._plan.workers) as pool:
                chance = self._chances[0]
                every = (
                    self._operate(kind, Doing(f"{kind}.r{number}", client, crew, chance, pool))
                    for number, client in enumerate(crew.clients)
                    for kind in KINDS
                )
                await asyncio.gather(*every)
            crew.read_costs()

    async def _work(self, crew: Crew) -> None:
        plan = self._plan
        await crew.ask_plainly()
        if plan.rest:
            await self._part(crew, until=lambda: self.outcome.operations >= 20 * plan.workers)
            await fill(crew)
        baseline = await self._rested(crew)
        for number in range(1, plan.parts + 1):
            await self._part(crew, until=partial(self._is_done, number / plan.parts))
            for line in crew.unmatched():
                self._wrong(line)
            crew.read_costs()
            await level(crew)
            if plan.rest and number % plan.rest_every == 0:
                now = await self._rested(crew, baseline)
                self._compare(baseline, now, f"after {now.operations} operations")
            else:
                now = await self._measured()
            self.outcome.samples.append(now)
            self._look(number)
            self._say(row(now))

    def _look(self, number: int) -> None:
        """Remember who holds what at the end of the warming up, and tell of the changes since."""
        if self._plan.frames < 2:
            return
        if number == self._plan.warm_up:
            self._snapshot = tracemalloc.take_snapshot()
        elif number == self._plan.parts:
            grown = tracemalloc.take_snapshot().compare_to(self._snapshot, "traceback")
            for each in grown[:_SHOWN]:
                self.outcome.told += [str(each), *each.traceback.format()]

    def _is_done(self, share: float) -> bool:
        long_enough = self._elapsed() >= share * self._plan.seconds
        return long_enough and self.outcome.operations >= share * self._plan.operations

    async def _rested(self, crew: Crew, baseline: Figures | None = None) -> Figures:
        """Measure when all that ends after some time has ended."""
        await asyncio.sleep(self._plan.rest)
        await crew.ask_plainly()
        return await self._measured(baseline)

    async def _measured(self, baseline: Figures | None = None) -> Figures:
        """Measure, after a moment for what was told to end to do so."""
        for _ in range(_SETTLING_STEPS):
            await asyncio.sleep(_SETTLING_SECONDS)
            held = descriptors(), threads()
            if baseline is None or held == (baseline.descriptors, baseline.threads):
                break
        return measure(self._elapsed(), self.outcome.operations)

    async def _part(self, crew: Crew, *, until: Callable[[], bool]) -> None:
        with ThreadPoolExecutor(self._plan.workers) as pool:
            work = (self._worker(crew, chance, pool, until) for chance in self._chances)
            await asyncio.gather(*work)

    async def _worker(
        self,
        crew: Crew,
        chance: random.Random,
        pool: ThreadPoolExecutor,
        until: Callable[[], bool],
    ) -> None:
        names, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        while not until():
            early = self._early()
            if early > 0:
                await asyncio.sleep(early)
                continue
            kind = chance.choices(names, weights)[0]
            self.outcome.done[kind] += 1
            tag = f"{kind}.{self.outcome.operations}"
            client = chance.choice(crew.clients)
            await self._operate(kind, Doing(tag, client, crew, chance, pool))
            self._after_each()

    def _early(self) -> float:
        """By how many seconds it is ahead: the operations are spread over the time, so that a quick
        machine does no more of them.
        """
        if not self._plan.operations:
            return 0.0
        share = self.outcome.operations / self._plan.operations
        return share * self._plan.seconds - self._elapsed()

    async def _operate(self, kind: str, doing: Doing) -> None:
        """Do it, perhaps cancel it, and look at how it ends."""
        task = asyncio.ensure_future(KINDS[kind][1](doing))
        cancelled = kind not in BLOCKING and doing.chance.random() < 0.1
        if cancelled:
            await asyncio.wait({task}, timeout=doing.chance.uniform(0.0, 0.05))
            task.cancel()
        await asyncio.wait({task}, timeout=_PATIENCE)
        if not task.done():
            self._wrong(f"{doing.tag} has not ended: {task.get_stack()}")
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            return
        if task.cancelled():
            self._ended("cancelled", None if cancelled else f"{doing.tag} was cancelled by nobody")
            return
        error = task.exception()
        if error is not None:
            foreign = not isinstance(error, AetherError)
            self._ended(type(error).__name__, f"{doing.tag}: {error!r}" if foreign else None)
            return
        text = task.result()
        known = text is None or text == said(doing.tag)
        wrong = None if known else f"{doing.tag} got {text!r}"
        self._ended("left" if text is None else "answer", wrong)

    def _ended(self, how: str, wrong: str | None) -> None:
        self.outcome.ends[how] += 1
        if wrong:
            self._wrong(wrong)

    def _compare(self, baseline: Figures, now: Figures, when: str) -> None:
        for line in differences(baseline, now, when):
            self._wrong(line)

    def _wrong(self, line: str) -> None:
        self.outcome.wrong.append(line)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


@contextmanager
def _tracing(frames: int) -> Iterator[None]:
    """Everything in the block is made and given back while it is traced."""
    if frames:
        tracemalloc.start(frames)
    try:
        yield
    finally:
        if frames:
            tracemalloc.stop()
