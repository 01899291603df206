"""The one-liner for scripts. It must not know the client: that registers itself here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aether.errors import ConfigurationError
from aether.llm.messages import Message

__all__ = ["ask", "set_client_factory"]

_factory: Callable[[], AbstractAsyncContextManager[Any]] | None = None


def set_client_factory(factory: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    """Say how `ask` makes its client."""
    global _factory  # noqa: PLW0603 - said once, when the client's module is imported
    _factory = factory


async def ask(prompt: str | Sequence[Message], **options: Any) -> str:
    """Build a client from the environment, ask, close it. The options are those of `Aether.ask`."""
    if _factory is None:
        raise ConfigurationError("No client factory is set: import aether first.")
    async with _factory() as client:
        answer: str = await client.ask(prompt, **options)
        return answer
