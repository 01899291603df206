"""Where code runs: inside which run, agent, session and depth of delegation.

It must not know the engine, which sets it, and only in each tool call's own context: a context
variable set in an async generator would leak into whoever reads the generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from aether.llm.usage import TokenUsage

if TYPE_CHECKING:
    from aether.llm.budget import Budget

__all__ = ["Scope", "current_scope", "time_left"]


class Scope(NamedTuple):
    """The run whose tool call is executing in this context."""

    run_id: str
    depth: int = 0
    """Delegations from the outermost run to this one."""
    agent: str | None = None
    sessions: tuple[object, ...] = ()
    """The sessions whose turns are under way here: asking one of them again cannot end."""
    client: Any = None
    """The client that runs the run."""
    add_usage: Callable[[TokenUsage], None] | None = None
    """Counts what a delegated run has used to the run that delegated it."""
    after_untrusted: bool = False
    """Whether the tool call was made after something that others may have written."""
    deadline: float | None = None
    """When the run must have ended, on the monotonic clock; `None` is never."""
    budgets: Sequence[Budget] = ()
    """What the run draws on: what it delegates draws on them, too."""


current_scope: ContextVar[Scope | None] = ContextVar("aether_scope", default=None)


def time_left() -> float | None:
    """Seconds until the run that this code is part of must have ended; never below 0.

    For a tool, which may so choose what it can still do. `None`: there is no limit, or this is no
    part of a run.
    """
    scope = current_scope.get()
    if scope is None or scope.deadline is None:
        return None
    return max(0.0, scope.deadline - time.monotonic())
