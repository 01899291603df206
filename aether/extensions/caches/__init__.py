"""Caches of answers. The one that needs no file is here; the other is imported when asked for."""

from typing import TYPE_CHECKING, Any

from aether.extensions.caches.in_memory import InMemoryCache

if TYPE_CHECKING:
    from aether.extensions.caches.sqlite import SQLiteCache

__all__ = ["InMemoryCache", "SQLiteCache"]


def __getattr__(name: str) -> Any:
    if name == "SQLiteCache":
        from aether.extensions.caches.sqlite import SQLiteCache

        return SQLiteCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
