"""The long tier: any number of seeds, on any number of processes.

    python tests/simulation/run.py --seeds 100000 --start 0 --jobs 2
    python tests/simulation/run.py --start 93 --seeds 1 --trace

A seed that fails is printed with its first violation and the command that runs it again, and kept
in seeds.txt, which the test suite runs every time. The ids of invariants are in judging.py.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # Python puts the script's own folder there

from tests.simulation.simulation import USERS, simulate

Result = tuple[int, str, int, Counter[str]]
"""The seed, what is to be printed, the number of its violations, and what was done."""

KEPT = Path(__file__).with_name("seeds.txt")
EVERY = 200
"""Seeds between two lines of progress."""


def main() -> int:
    arguments = _arguments()
    run = partial(_run, users=arguments.users, trace=arguments.trace)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    if arguments.jobs == 1:
        return _report(map(run, seeds), arguments.users)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        return _report(pool.map(run, seeds, chunksize=20), arguments.users)


def _report(results: Iterable[Result], users: int) -> int:
    """Print what comes of the seeds. Returns 1 if any failed."""
    started = time.perf_counter()
    failed = done = 0
    counts: Counter[str] = Counter()
    for done, (seed, text, violations, of_seed) in enumerate(results, 1):
        counts += of_seed
        if text:
            _say(text)
        if violations:
            failed += 1
            _keep(seed, users)
        if done % EVERY == 0:
            _say(f"{done} seeds, {failed} failed, {time.perf_counter() - started:.0f} s")
    _say(f"{done} seeds, {failed} failed, {time.perf_counter() - started:.0f} s")
    _say(", ".join(f"{count} {what}" for what, count in counts.most_common()))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--users", type=int, default=USERS, help=f"at once (default {USERS})")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--trace", action="store_true", help="print what happened in each")
    return parser.parse_args()


def _run(seed: int, *, users: int, trace: bool) -> Result:
    warnings.simplefilter("error")  # a coroutine that nobody awaits is a violation, too
    outcome = simulate(seed, users=users)
    lines = [*outcome.judge.trace, f"seed {seed}: {outcome.digest}"] if trace else []
    if outcome.violations:
        again = f"python tests/simulation/run.py --start {seed} --seeds 1 --users {users} --trace"
        lines += [f"seed {seed} FAILED {outcome.violations[0]}", f"  again: {again}"]
    return seed, "\n".join(lines), len(outcome.violations), outcome.counts


def _keep(seed: int, users: int) -> None:
    kept = KEPT.read_text()
    if users == USERS and str(seed) not in kept.split():
        KEPT.write_text(f"{kept}{seed}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
