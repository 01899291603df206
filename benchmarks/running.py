"""Running the measures: one server, and processes for each library, in rounds that take turns.

It must not know what the figures mean.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.measures import MEASURES

_MINUTES = 15
# What is not handed on: keys, settings, proxies, and what changes how Python runs. What is: nothing
# may be fetched from elsewhere.
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "HOME": os.environ.get("HOME", ""),
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "PYTHONPATH": str(ROOT),
}


@dataclass
class Taken:
    """What was found of one library, from every round."""

    name: str
    values: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By the keys of figures: each value with the reference around it, in µs."""
    why_not: dict[str, list[str]] = field(default_factory=dict)
    """By the names of measures: why there is no value, for each round that has none."""

    def add(self, row: dict[str, Any]) -> None:
        """Take over what a worker wrote of one measure."""
        if "why_not" in row:
            self.why_not.setdefault(row["measure"], []).append(row["why_not"])
        for key, value in row.get("values", {}).items():
            self.values.setdefault(key, []).append((value, row["reference"]))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, of whom, and how often."""

    pythons: dict[str, str]
    """By the names of subjects: the interpreter of its environment."""
    measures: Sequence[str]
    rounds: int = 5
    scale: float = 1.0
    is_whole: bool = False

    def groups(self, subject: str, number: int) -> Iterator[list[str]]:
        """The measures of a library in a round, those together that may share a process."""
        wanted = [
            name
            for name in self.measures
            if subject in (MEASURES[name].subjects or (subject,))
            and number < (MEASURES[name].rounds or self.rounds)
        ]
        shared = [name for name in wanted if not MEASURES[name].is_alone]
        if shared:
            yield shared
        yield from ([name] for name in wanted if MEASURES[name].is_alone)


@contextmanager
def server() -> Iterator[str]:
    """The server in a process of its own; yields its origin."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "benchmarks.server"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the server was started without its pipes")
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(plan: Plan, tell: Callable[[str], object]) -> list[Taken]:
    """All rounds; each second one goes through the libraries backwards."""
    found = {name: Taken(name) for name in plan.pythons}
    with server() as origin:
        for number in range(plan.rounds):
            names = list(plan.pythons)
            for name in names if number % 2 == 0 else reversed(names):
                for group in plan.groups(name, number):
                    started = monotonic()
                    for row in _worker(plan, name, origin, group):
                        found[name].add(row)
                    took = f"{monotonic() - started:.0f} s"
                    tell(f"round {number + 1}, {name}: {', '.join(group)}: {took}")
    return list(found.values())


def _worker(plan: Plan, name: str, origin: str, measures: list[str]) -> list[dict[str, Any]]:
    command = [plan.pythons[name], "-P", "-m", "benchmarks.worker", name, origin, *measures]
    command += ["--scale", str(plan.scale), *(["--whole"] if plan.is_whole else [])]
    try:
        process = subprocess.run(  # noqa: S603 - an interpreter of an environment made here
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MINUTES * 60,
        )
    except subprocess.TimeoutExpired:
        return [{"measure": each, "why_not": f"not done in {_MINUTES} min"} for each in measures]
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    done = {row["measure"] for row in rows}
    last = (process.stderr.strip().splitlines() or ["no error was written"])[-1]
    why_not = f"the process ended with {process.returncode}: {last}"
    return rows + [{"measure": n, "why_not": why_not} for n in measures if n not in done]


def interpreter(environment: Path) -> str:
    """Of a virtual environment."""
    return str(environment / "bin" / "python")
