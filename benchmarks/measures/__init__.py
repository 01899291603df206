"""The measures: each a module with an async function `measure`, and with `FIGURES`, or `figures`.

`figures` is a function, where titles say how much is done: it is told how counts are scaled.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

from benchmarks.contracts import Figure, Values
from benchmarks.setting import Setting, scaled

_EVERY = None


class Measure(NamedTuple):
    """A measure, without importing it."""

    subjects: tuple[str, ...] | None = _EVERY
    """Of whom it is taken: every library, or these."""
    rounds: int | None = None
    """So often at most, where it takes long or comes out alike each time."""
    is_alone: bool = False
    """Whether it needs a process in which nothing has happened before."""


MEASURES = {
    "call": Measure(),
    "chunk": Measure(),
    "paced": Measure(),
    "first": Measure(),
    "tool": Measure(),
    "agent": Measure(),
    "many": Measure(rounds=3, is_alone=True),
    "cold": Measure(rounds=3, is_alone=True),
    "loop": Measure(subjects=("aether", "floor")),
    "session": Measure(subjects=("aether",)),
    "offered": Measure(subjects=("aether",), rounds=3, is_alone=True),
    "events": Measure(subjects=("aether",)),
    "long": Measure(subjects=("aether", "floor"), rounds=2, is_alone=True),
    "crowd": Measure(subjects=("aether", "floor"), rounds=1, is_alone=True),
    "memory": Measure(subjects=("aether",), rounds=1, is_alone=True),
}
COMPARED = tuple(name for name, measure in MEASURES.items() if measure.subjects is None)
"""What is measured of other libraries, too."""


def figures_of(name: str, scale: float = 1.0) -> tuple[Figure, ...]:
    """The figures that a measure yields, with titles that say what was done at this scale."""
    module = importlib.import_module(f"benchmarks.measures.{name}")
    if hasattr(module, "figures"):
        return cast("tuple[Figure, ...]", module.figures(partial(scaled, scale)))
    return cast("tuple[Figure, ...]", module.FIGURES)


def function_of(name: str) -> Callable[[Setting], Awaitable[Values]]:
    """The measure itself."""
    module = importlib.import_module(f"benchmarks.measures.{name}")
    return cast("Callable[[Setting], Awaitable[Values]]", module.measure)


def check(is_right: bool, said: object) -> None:
    """What is fast and wrong is not measured."""
    if not is_right:
        raise RuntimeError(f"a wrong answer: {str(said)[:200]!r}")
