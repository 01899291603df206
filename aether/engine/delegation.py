"""How deep runs may delegate to one another.

It must not know an agent. Depth is the number of delegations from the outermost run.
"""

from __future__ import annotations

from aether import config
from aether.errors import ToolError
from aether.llm.scope import current_scope

__all__ = ["next_depth"]


def next_depth(agent: str, max_depth: int | None) -> int:
    """The depth of a run that is delegated to `agent` from here.

    Raises `ToolError` beyond `max_depth`, or beyond `AETHER_MAX_DELEGATION_DEPTH` where it is
    `None`. With 1, only the outermost run may delegate.
    """
    scope = current_scope.get()
    depth = 0 if scope is None else scope.depth
    limit = config.max_delegation_depth() if max_depth is None else max_depth
    if depth >= limit:
        raise ToolError(
            f"The delegation depth limit of {limit} is reached: {agent!r} cannot be delegated to "
            "from here. Do the task without it."
        )
    return depth + 1
