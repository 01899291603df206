"""The context of one call: what the layers of a stack must tell one another about it.

It rides on the request, is never serialised, and is made by whichever layer is outermost. It must
not know any layer.
"""

from __future__ import annotations

import os
import random
from typing import Any, Protocol

from aether.llm.usage import LedgerEntry

__all__ = ["Admission", "CallContext", "new_id"]


# Identifiers are no secrets: the system's entropy is asked once, not for each of them.
_random = random.Random()  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A random identifier of 24 hexadecimal digits."""
    return f"{_random.getrandbits(96):024x}"


class Admission(Protocol):
    """A circuit breaker's leave to call."""

    @property
    def probe(self) -> bool:
        """Whether this call is the one that tests a half-open circuit: it gets one attempt."""
        ...

    def check(self) -> None:
        """Raise `CircuitOpenError` if no further attempt may start under this admission."""
        ...


class CallContext:
    """One call of a provider stack, from its outermost layer to the adapter and back."""

    __slots__ = ("accounted", "admission", "call_id", "deadline", "entries", "kept", "run_id")

    def __init__(
        self,
        *,
        run_id: str | None = None,
        call_id: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self.run_id = run_id or new_id()
        self.call_id = call_id or new_id()
        self.deadline = deadline
        """When all of it must have ended, on the monotonic clock; `None` is never."""
        self.admission: Admission | None = None
        self.entries: list[LedgerEntry] = []
        """The attempts made for this call, in order."""
        self.accounted = False
        """Whether an inner layer sees to it that each attempt has its entry."""
        self.kept: dict[object, Any] = {}
        """What an adapter keeps from one attempt to the next, under a key of its own."""

    def __repr__(self) -> str:
        return f"CallContext({self.call_id}, {len(self.entries)} attempts)"

    def open_entry(self, *, provider: str | None, model: str | None) -> LedgerEntry:
        """Begin an attempt. Whoever opens it must settle its state, whatever happens."""
        entry = LedgerEntry(
            provider=provider, model=model, run_id=self.run_id, requested_model=model
        )
        self.entries.append(entry)
        return entry
