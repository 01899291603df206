"""Whether the figures of a soak are as they must be, and the table that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aether.tools.threads import LIMIT
from tests.soak.figures import Figures

__all__ = ["HEAD", "Bounds", "differences", "growth", "row"]

MB = 1_000_000
KIB = 1024
TEN_MINUTES = 600.0
HEAD = "seconds  operations  tasks  files  threads  workers  resident MB  traced MB"
_FEWEST = 3
"""A slope through fewer points says nothing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much memory may grow, by the line of least squares."""

    resident: float | None = 0.5 * MB
    """Bytes in ten minutes; `None`: it is not judged."""
    traced: float | None = 64.0 * KIB
    """Bytes in 10,000 operations; `None`: it is not judged."""


def differences(baseline: Figures, now: Figures, when: str) -> Iterator[str]:
    """What is not as it was. There may be some threads for tools: they end when they have idled."""
    for name, before, after in zip(
        ("tasks", "descriptors", "threads"), baseline.held, now.held, strict=True
    ):
        if before != after:
            yield f"{name}: {before} before, but {after} {when}"
    if now.workers > LIMIT:
        yield f"{now.workers} threads for tools {when}: there are to be {LIMIT} at most"


def growth(samples: Sequence[Figures], bounds: Bounds) -> tuple[list[str], list[str]]:
    """What is to be told of the growth of memory, and what of it is too much."""
    told: list[str] = []
    wrong: list[str] = []
    for name, bound, grown, unit in (
        ("resident memory", bounds.resident, _resident(samples), "in 10 minutes"),
        ("traced memory", bounds.traced, _traced(samples), "in 10,000 operations"),
    ):
        if bound is None:
            continue
        if grown is None:
            told.append(f"{name}: not judged, for there are only {len(samples)} samples")
            continue
        line = f"{name} grows by {grown / KIB:+.1f} KiB {unit}; the bound is {bound / KIB:.1f} KiB"
        told.append(line)
        if grown > bound:
            wrong.append(line)
    return told, wrong


def row(figures: Figures) -> str:
    """One line of the table, under `HEAD`."""
    return (
        f"{figures.seconds:7.0f}  {figures.operations:10}  {figures.tasks:5}  "
        f"{figures.descriptors:5}  {figures.threads:7}  {figures.workers:7}  "
        f"{figures.resident / MB:11.2f}  {figures.traced / MB:9.3f}"
    )


def _resident(samples: Sequence[Figures]) -> float | None:
    return _slope([(each.seconds / TEN_MINUTES, each.resident) for each in samples])


def _traced(samples: Sequence[Figures]) -> float | None:
    return _slope([(each.operations / 10_000, each.traced) for each in samples])


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Of the line of least squares."""
    x, y = [x for x, _ in points], [y for _, y in points]
    if len(set(x)) < _FEWEST:
        return None
    return statistics.linear_regression(x, y).slope
