"""The one-liner for scripts. It must not know the client: that registers itself here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from aether.errors import ConfigurationError
from aether.llm.messages import Message

if TYPE_CHECKING:
    from typing_extensions import TypeForm

__all__ = ["ask", "set_client_factory"]

T = TypeVar("T")

_factory: Callable[[], AbstractAsyncContextManager[Any]] | None = None


def set_client_factory(factory: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    """Say how `ask` makes its client."""
    global _factory  # noqa: PLW0603 - said once, when the client's module is imported
    _factory = factory


@overload
async def ask(prompt: str | Sequence[Message], *, output: None = None, **options: Any) -> str: ...
@overload
async def ask(prompt: str | Sequence[Message], *, output: TypeForm[T], **options: Any) -> T: ...
async def ask(prompt: str | Sequence[Message], *, output: Any = None, **options: Any) -> Any:
    """Build a client from the environment, ask, close it. The options are those of `Aether.ask`."""
    if _factory is None:
        raise ConfigurationError("No client factory is set: import aether first.")
    async with _factory() as client:
        return await client.ask(prompt, output=output, **options)
