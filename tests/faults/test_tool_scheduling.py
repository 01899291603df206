"""The scheduling of tools, as a state machine: any calls, durations, endings and cancellations.

Each result answers its call, in order; in sequence no two calls overlap; nobody's failure is a
sibling's; a delegation is refused exactly at the limit; and when a run gives control back, none of
its tools is running any more. Time is virtual, and the order in which tasks go on is drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from aether import Aether
from aether.llm.contracts import LLMProvider
from tests.faults.plans import Actors, Plan, Step, Turn, expected, in_virtual_time, plan, steps_of
from tests.faults.ways import SESSION, WAYS, Way, get_answer

ways = st.sampled_from(WAYS)
seeds = st.integers(0, 2**32)
grace = 1.0


def running_at(actors: Actors, now: float) -> list[Step]:
    """The tools that have begun before and end later."""
    return [
        actors.steps[name]
        for name, began in actors.began.items()
        if began <= now and actors.ended.get(name, now + 1) > now
    ]


def tidying(step: Step, since: float) -> float:
    """How long it takes to end if it is cancelled so long after it has begun."""
    given_up = step.timeout is not None and since >= step.timeout
    return 0.0 if given_up else step.tidying  # it tidies up already, and that is cancelled too


class ToolScheduling(RuleBasedStateMachine):
    """One client that is asked again and again; `told` and `used` are what it must have come to."""

    @initialize(max_depth=st.integers(0, 3))
    def begin(self, max_depth: int) -> None:
        self.actors = Actors(max_depth=max_depth)
        provider: LLMProvider = self.actors
        self.client = Aether(provider)
        self.told: list[str] = []
        self.played = 0

    @rule(way=ways, seed=seeds)
    def run(self, way: Way, seed: int) -> None:
        """A run to its end."""
        name, made = self._prepare(seed)
        text, seconds = expected(made, max_depth=self.actors.max_depth)

        async def main() -> tuple[str, float]:
            answered = await self._ask(way, name, made)
            return answered, asyncio.get_running_loop().time()

        answered, took = in_virtual_time(main, seed=seed)
        assert answered == text
        assert took == seconds
        self._nothing_overlaps_in_order(made)
        assert self.actors.began.keys() == self.actors.ended.keys()
        if way.startswith("session"):
            self.told += [name, text]

    @rule(way=ways, seed=seeds, share=st.floats(0, 1, exclude_max=True))
    def cancel(self, way: Way, seed: int, share: float) -> None:
        """A run that is cancelled while it is under way."""
        name, made = self._prepare(seed)
        _, seconds = expected(made, max_depth=self.actors.max_depth)
        at = int(share * seconds) + 0.25  # when nothing else happens

        async def main() -> float:
            loop = asyncio.get_running_loop()
            run = asyncio.ensure_future(self._ask(way, name, made))
            await asyncio.sleep(at)
            running = [
                (step, at - self.actors.began[step.name]) for step in running_at(self.actors, at)
            ]
            run.cancel()
            try:
                await run
            except asyncio.CancelledError:
                came = loop.time()
            else:
                raise AssertionError("the cancellation was swallowed")
            assert self.actors.began.keys() == self.actors.ended.keys()
            assert run.cancelled()
            assert came - at <= grace
            assert came - at == max((tidying(step, since) for step, since in running), default=0)
            await asyncio.sleep(100)
            return came

        came = in_virtual_time(main, seed=seed)
        assert all(began < at for began in self.actors.began.values()), "begun after the end"
        assert all(ended <= came for ended in self.actors.ended.values())

    @invariant()
    def history_has_the_runs_that_ended(self) -> None:
        async def history() -> Sequence[str]:
            return [message.text for message in await self.client.session(SESSION).history()]

        if hasattr(self, "client"):
            assert in_virtual_time(history) == self.told

    @invariant()
    def the_ledger_has_each_request(self) -> None:
        if hasattr(self, "client"):
            ledger = self.client.usage.ledger
            assert len(ledger) == self.actors.requests
            assert all(entry.state != "pending" for entry in ledger)

    def _prepare(self, seed: int) -> tuple[str, Plan]:
        self.played += 1
        made = plan(Random(seed), name=f"{self.played}:")
        self.actors.began.clear()
        self.actors.ended.clear()
        return self.actors.prepare(f"plan {self.played}", made), made

    async def _ask(self, way: Way, name: str, made: Plan) -> str:
        tools = self.actors.tools(self.client)
        response = await get_answer(
            self.client, way, name, tools=tools, parallel_tools=made.parallel
        )
        return response.text

    def _nothing_overlaps_in_order(self, made: Plan) -> None:
        for each in [made, *(step.delegates for step in steps_of(made).values())]:
            if each is None or each.parallel:
                continue
            for turn in each.turns:
                spans = pairwise(self._spans(turn))
                assert all(before[1] <= after[0] for before, after in spans)

    def _spans(self, turn: Turn) -> list[tuple[float, float]]:
        began, ended = self.actors.began, self.actors.ended
        return [(began[s.name], ended[s.name]) for s in turn if s.name in began]


@pytest.mark.row("T3", "T4", "T6", "T7", "T13", "T15")
def test_any_calls_are_answered_in_order_at_their_time_and_ended_before_their_run() -> None:
    some = settings(max_examples=40, stateful_step_count=10, deadline=None)
    run_state_machine_as_test(ToolScheduling, settings=some)
