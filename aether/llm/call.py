"""The context of one call: what the layers of a stack must tell one another about it.

It rides on the request, is never serialised, and is made by whichever layer is outermost. It must
not know any layer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from aether.llm.usage import LedgerEntry

if TYPE_CHECKING:
    from aether.llm.budget import Budget

__all__ = ["Admission", "CallContext", "Reservation", "new_id"]


# Identifiers are no secrets: the system's entropy is asked once, not for each of them.
_random = random.Random()  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A random identifier of 24 hexadecimal digits."""
    return _random.getrandbits(96).to_bytes(12).hex()


class Admission(Protocol):
    """A circuit breaker's leave to call."""

    @property
    def probe(self) -> bool:
        """Whether this call is the one that tests a half-open circuit: it gets one attempt."""
        ...

    def check(self) -> None:
        """Raise `CircuitOpenError` if no further attempt may start under this admission."""
        ...


class Reservation(Protocol):
    """What budgets have set aside for a call: the most that one attempt may use."""

    def extend(self) -> bool:
        """Settle the attempts that have ended, and set the same aside for one more.

        `False` if there is no room for it.
        """
        ...


class CallContext:
    """One call of a provider stack, from its outermost layer to the adapter and back."""

    __slots__ = (
        "accounted",
        "admission",
        "budgets",
        "cache",
        "call_id",
        "deadline",
        "entries",
        "kept",
        "on_headers",
        "queued",
        "reservation",
        "run_id",
        "waited",
    )

    deadline: float | None
    """When all of it must have ended, on the monotonic clock; `None` is never."""
    budgets: Sequence[Budget]
    """Those that the call draws on besides its stack's own."""
    cache: bool | str | None
    """Whether to answer it from a cache, and under which key; `None` leaves it to the layer."""
    admission: Admission | None
    reservation: Reservation | None
    on_headers: Callable[[Mapping[str, str]], None] | None
    """Told the headers of each answer, errors too, when they are there; names in lower case."""
    queued: bool
    """Whether it waits in this process for its next attempt, of which nothing was sent yet, or was
    refused there: such an attempt has no entry."""
    waited: float
    """Seconds that it has waited in this process, between attempts and for its turn."""
    entries: list[LedgerEntry]
    """The attempts made for this call, in order."""
    accounted: bool
    """Whether an inner layer sees to it that each attempt has its entry."""
    kept: dict[object, Any]
    """What an adapter keeps from one attempt to the next, under a key of its own."""

    def __init__(
        self,
        *,
        run_id: str | None = None,
        call_id: str | None = None,
        deadline: float | None = None,
        budgets: Sequence[Budget] = (),
        cache: bool | str | None = None,
    ) -> None:
        self.run_id = run_id or new_id()
        self.call_id = call_id or new_id()
        self.deadline = deadline
        self.budgets = budgets
        self.cache = cache
        self.admission = self.reservation = self.on_headers = None
        self.queued = self.accounted = False
        self.waited = 0.0
        self.entries = []
        self.kept = {}

    def __repr__(self) -> str:
        return f"CallContext({self.call_id}, {len(self.entries)} attempts)"

    def branch(self) -> CallContext:
        """The context of one of several calls that are made for this one, maybe at once.

        It has the same ids, deadline and budgets, and attempts of its own: whoever makes branches
        appends their entries to this context's, in order, when they have ended.
        """
        return CallContext(
            run_id=self.run_id,
            call_id=self.call_id,
            deadline=self.deadline,
            budgets=self.budgets,
            cache=self.cache,
        )

    def open_entry(self, *, provider: str | None, model: str | None) -> LedgerEntry:
        """Begin an attempt. Whoever opens it must settle its state, whatever happens."""
        entry = LedgerEntry(provider, model)
        entry.run_id = self.run_id
        entry.requested_model = model
        self.entries.append(entry)
        return entry
