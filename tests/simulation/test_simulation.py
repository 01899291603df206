"""Whole systems in virtual time: many users, servers that fail, and what must be true all the same.

`run.py` beside this file runs more seeds, and says how to look at one of them. The invariants and
their ids are in judging.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aether.extensions.llm import _ledger, _pacing, circuit_breaker
from aether.llm import streaming
from aether.memory import _history, _turns
from tests.simulation.simulation import simulate

HERE = Path(__file__).parent
SEEDS = 1000
CHUNK = 50
FAILED_ONCE = [int(line) for line in (HERE / "seeds.txt").read_text().split()]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_invariant_holds_whatever_the_seed(first: int) -> None:
    for seed in range(first, first + CHUNK):
        assert_holds(seed)


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once_does_not_fail_again(seed: int) -> None:
    assert_holds(seed)


def test_a_seed_gives_the_same_trace_in_another_process_with_other_hashes() -> None:
    here = [simulate(seed).digest for seed in range(5)]
    assert [simulate(seed).digest for seed in range(5)] == here
    command = [sys.executable, str(HERE / "run.py"), "--seeds", "5", "--trace"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(HERE.parents[1])}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = output.stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("seed ")] == here


@pytest.mark.parametrize("seed", range(10))
def test_subscribers_that_fail_change_nothing(seed: int) -> None:
    alone = simulate(seed, subscribers="none")
    assert simulate(seed, subscribers="failing").judge.trace == alone.judge.trace


async def nothing(*_: object, **__: object) -> None:
    """In place of a coroutine that should do something."""


SETTLE = circuit_breaker._Circuit.settle
ADVANCE = _turns.TurnQueue._advance

SABOTAGE: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "a 429 holds nobody back": (_pacing.Pace, "close", lambda *_: None),
    "the retry budget is endless": (_pacing.Pace, "take_retry", lambda *_: True),
    "a probe that is cancelled never reports": (
        circuit_breaker._Circuit,
        "settle",
        lambda self, admission, outcome: (
            None if outcome == "neutral" else SETTLE(self, admission, outcome)
        ),
    ),
    "an attempt that fails is not settled": (_ledger.Attempt, "failed", lambda *_: None),
    "a turn ends when nobody waits": (_turns.TurnQueue, "_leave", lambda *_: None),
    "a cancelled turn stays": (_history.History, "_take_back", nothing),
    "an abandoned stream stays open": (streaming.OwnedStream, "_follow", lambda *_: None),
    "the last come is first served": (
        _turns.TurnQueue,
        "_advance",
        lambda self: (self._waiting.reverse(), ADVANCE(self), self._waiting.reverse()),
    ),
}


@pytest.mark.parametrize("fault", SABOTAGE)
def test_a_fault_of_the_product_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, sabotaged = SABOTAGE[fault]
    monkeypatch.setattr(owner, name, sabotaged)
    assert any(simulate(seed).violations for seed in range(100))


def assert_holds(seed: int) -> None:
    outcome = simulate(seed)
    again = f"python tests/simulation/run.py --start {seed} --seeds 1 --trace"
    kept = "and add the seed to tests/simulation/seeds.txt"
    assert not outcome.violations, f"seed {seed}: {outcome.violations}\nrun {again}\n{kept}"
