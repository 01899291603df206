"""Opaque state that is bound to a host, where a provider's name stands for any number of servers.

It must not know what the state is. It goes back to the host that gave it, and to no other: two
servers at base URLs of one's own have one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aether.extensions.llm._wire.errors import Source
from aether.llm.content import ProviderState

__all__ = ["kept_state", "own_state"]

_HOST = "host"


def kept_state(state: Mapping[str, Any], source: Source) -> ProviderState:
    """What a message, part or call keeps of the state that this source gave."""
    bound = {} if source.host is None else {_HOST: source.host}
    return {source.provider: {**state, **bound}}


def own_state(kept: ProviderState, provider: str, host: str | None) -> dict[str, Any] | None:
    """The state that this very host gave; `None` if there is none."""
    state = kept.get(provider)
    return state if isinstance(state, dict) and state.get(_HOST) == host else None
