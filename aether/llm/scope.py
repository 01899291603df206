"""Where code runs: inside which run, agent, session and depth of delegation.

It must not know the engine, which sets it, and only inside each tool call's own task: a context
variable set in an async generator would leak into whoever reads the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aether.llm.usage import TokenUsage

__all__ = ["Scope", "current_scope"]


@dataclass(frozen=True, slots=True)
class Scope:
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


current_scope: ContextVar[Scope | None] = ContextVar("aether_scope", default=None)
