"""Sessions and the port to their stores.

`Session` is imported when it is first asked for. So is `InMemorySessionStore`, through a registry:
a port must not import what implements it. An empty registry is asked, which knows the built-ins
alone.
"""

from typing import TYPE_CHECKING, Any

from aether.memory.contracts import KIND, AppendingSessionStore, SessionStore
from aether.registry import Registry

if TYPE_CHECKING:
    from aether.extensions.memory.in_memory import InMemorySessionStore
    from aether.memory.session import Session

__all__ = ["AppendingSessionStore", "InMemorySessionStore", "Session", "SessionStore"]


if not TYPE_CHECKING:  # for checkers, any name would be one of the module's

    def __getattr__(name: str) -> Any:
        if name == "Session":
            from aether.memory.session import Session

            return Session
        if name == "InMemorySessionStore":
            return Registry().get(KIND, "memory")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
