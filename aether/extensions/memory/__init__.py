"""Stores of sessions. The one that needs no file is here; the other is imported when asked for."""

from typing import TYPE_CHECKING, Any

from aether.extensions.memory.in_memory import InMemorySessionStore

if TYPE_CHECKING:
    from aether.extensions.memory.sqlite import SQLiteSessionStore

__all__ = ["InMemorySessionStore", "SQLiteSessionStore"]


def __getattr__(name: str) -> Any:
    if name == "SQLiteSessionStore":
        from aether.extensions.memory.sqlite import SQLiteSessionStore

        return SQLiteSessionStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
