"""The port to caches of answers. It must not know when an answer is looked up or kept."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aether.registry import declare_builtins

__all__ = ["KIND", "ResponseCache"]

KIND = "response_cache"


@runtime_checkable
class ResponseCache(Protocol):
    """Keeps answers under keys: JSON as text, never code. One serves many tasks, loops and threads.

    What it cannot find or keep it may say by an error: the call goes on without it, unless a `get`
    raises `ConfigurationError` or `ClientClosedError`. It may also have `async aclose()`, which the
    client that it was made for calls once.
    """

    async def get(self, key: str) -> str | None:
        """What was put there last, as it was, unless it has expired or had to make room."""
        ...

    async def put(self, key: str, value: str) -> None:
        """Keep it in place of what was there, which is gone also where it is not kept."""
        ...

    async def delete(self, key: str) -> None:
        """Forget it."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...


declare_builtins(
    KIND,
    {
        "memory": "aether.extensions.caches.in_memory:InMemoryCache",
        "sqlite": "aether.extensions.caches.sqlite:SQLiteCache",
    },
)
