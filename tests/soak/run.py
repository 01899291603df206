"""A soak: clients that live long, a server that often fails, and nothing that may pile up.

    python tests/soak/run.py --minutes 30 --operations 200000

Every fifth answer of the server is a fault of some kind. Each operation ends as what the server
said, as an `AetherError`, or as the cancellation that was asked for. Tasks, files and threads are
exactly as many at every quiet moment, and memory does not grow. Python's own tracing of memory
makes all slower and larger: so the last part of the operations is traced, with clients of its own,
and the memory of the process is measured before. Linux only. The seed brings the same choices back,
but not the same order of events.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # Python puts the script's own folder there

from tests.soak.figures import keep_no_free_memory
from tests.soak.judging import HEAD, Bounds
from tests.soak.phase import Outcome, Phase, Plan
from tests.soak.serving import served_apart

TRACED = 0.15
"""The share of operations that is traced."""
SHOWN = 20


def main() -> int:
    """Run it, and print what came of it. Returns 1 if anything is wrong."""
    given = _arguments()
    keep_no_free_memory()
    _say(f"Python {platform.python_version()}, {' '.join(platform.libc_ver())} with")
    _say(os.environ["GLIBC_TUNABLES"])
    _say(f"{given.operations} operations, {given.workers} at once, in {given.minutes:g} minutes")
    _say(f"or more; {given.faults:.0%} of the answers are faults; the seed is {given.seed}")
    outcomes = []
    with served_apart(share=given.faults, seed=given.seed) as url:
        for name, plan in _plans(given):
            _say(f"\n{name}\n{HEAD}")
            outcome = asyncio.run(Phase(url, plan, say=_say).run())
            _report(outcome)
            outcomes.append(outcome)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _plans(given: argparse.Namespace) -> Iterator[tuple[str, Plan]]:
    plain = Plan(
        operations=round(given.operations * (1 - TRACED)),
        seconds=given.minutes * 60 * (1 - TRACED),
        seed=given.seed,
        workers=given.workers,
        bounds=Bounds(traced=None),
    )
    yield "without tracing", plain
    yield (
        "with tracing",
        replace(
            plain,
            operations=given.operations - plain.operations,
            seconds=given.minutes * 60 * TRACED,
            seed=given.seed + 1,
            parts=12,
            warm_up=4,
            rest_every=1,
            frames=given.frames,
            bounds=Bounds(resident=None),
        ),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="at least (default 30)")
    parser.add_argument("--operations", type=int, default=200_000, help="at least (200,000)")
    parser.add_argument("--faults", type=float, default=0.2, help="the share of answers (0.2)")
    parser.add_argument("--workers", type=int, default=64, help="operations at once (64)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--frames", type=int, default=1, help="that are traced (1)")
    return parser.parse_args()


def _report(outcome: Outcome) -> None:
    _say(f"{outcome.operations} operations")
    for what, counts in (("kinds", outcome.done), ("ends", outcome.ends)):
        _say(f"{what}: " + ", ".join(f"{count} {each}" for each, count in counts.most_common()))
    for line in (*outcome.told, *(f"WRONG: {each}" for each in outcome.wrong[:SHOWN])):
        _say(line)
    _say(f"{len(outcome.wrong)} wrong")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
