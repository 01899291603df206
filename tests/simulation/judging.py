"""The judge: what was seen, in order, and what must not have been.

A check never raises: inside of a call the product would take that for a failure of its own.

The invariants, by the ids with which a violation is told and a docstring here names them:

I1   A retry: no more attempts than allowed, only after what may be tried again, never after
     content, never earlier than the server asked for, within the deadline and the budget; the same
     request each time, byte for byte.
I2   No attempt is sent while the circuit is open, but for the probe; a probe is a single attempt
     (told as I1 or I4).
I3   Every call that was let through is a success, a failure or neither for the breaker, exactly
     once; what is the caller's own doing is neither (told as I4).
I4   Of a half-open circuit there is one probe at a time; one that is lost is replaced, what comes
     late counts no more, and whoever is turned away is told when to come back.
I5   Each model has a circuit of its own (seen in that I4 holds for each).
I6   What a stream hands out is the beginning of one answer of the server, never of two, and an
     error in the middle has exactly that as its `partial`.
I7   Whatever begins ends once, as a whole answer, an error or a cancellation, with one event for
     it; the texts of a stream together are its answer.
I8   The ledger has one entry for each request, and what it says is what the server would bill, or
     says how far that is in doubt.
I9   A session's history is whole turns in the order in which they were asked for; a turn is there
     if its call returned, and not if it failed, unless the error says that it may be. One that was
     cancelled is taken back where the store can do that.
I10  Whatever an operation held (connection, turn of a session, generator) is free when it is over,
     without the garbage collector, and the next one can begin.
I11  Results of tools stand in the order of their calls, one for each; one by one means never two
     at once, and a failing tool fails nobody else.
I12  Nothing delegates deeper than allowed; what a delegated run used is counted above it.
I13  Subscribers change nothing, whatever they do. No check names it: the same seed must give the
     same trace with well-behaved ones and with others.
I14  A cancellation goes through, in time, and leaves no task behind.
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
