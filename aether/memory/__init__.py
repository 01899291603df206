"""Sessions and the port to their stores.

`InMemorySessionStore` is found through the registry when it is first asked for: a port must not
import what implements it.
"""

from typing import TYPE_CHECKING, Any

from aether.memory.contracts import KIND, AppendingSessionStore, SessionStore
from aether.memory.session import Session
from aether.registry import default_registry

if TYPE_CHECKING:
    from aether.extensions.memory.in_memory import InMemorySessionStore

__all__ = ["AppendingSessionStore", "InMemorySessionStore", "Session", "SessionStore"]


def __getattr__(name: str) -> Any:
    if name == "InMemorySessionStore":
        return default_registry.get(KIND, "memory")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
