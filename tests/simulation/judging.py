"""The judge: what was seen, in order, and what must not have been.

A check never raises: inside of a call the product would take that for a failure of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from aether.errors import AetherError

__all__ = ["EARLY", "Judge", "named"]

EARLY = 1e-6
"""Seconds by which sums of floats may differ."""


class Judge:
    """Collects the trace of a simulation, and the violations of its invariants."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.trace: list[str] = []
        self.violations: list[str] = []

    def note(self, text: str) -> None:
        """Add a line to the trace, which is the same whenever the seed is."""
        self.trace.append(f"{self._clock():.6f} {text}")

    def check(self, holds: object, violated: str, *about: object) -> None:
        """Add a violation, unless it holds. `about` is what the text's `%s` stand for."""
        if not holds:
            text = violated % about if about else violated
            self.violations.append(f"at {self._clock():.6f} s: {text}")
            self.note(f"VIOLATION {text}")


def named(error: BaseException | None) -> str:
    """An error in one word, and what it says where that is Aether's own."""
    if error is None:
        return "ok"
    status = getattr(error, "status", None)
    word = type(error).__name__ + (f"({status})" if status is not None else "")
    return word if isinstance(error, AetherError) else f"{word} (not Aether's)"
