"""The base of every decorator: a provider that holds another and passes calls on.

It must not know what a decorator adds.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator

from aether.errors import ConfigurationError
from aether.llm.batches import Batch, ChunkStream, open_batches
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = [
    "ProviderWrapper",
    "check_count",
    "check_seconds",
    "describe",
    "layers_of",
    "with_context",
]


def with_context(request: LLMRequest) -> tuple[LLMRequest, CallContext]:
    """The request with a `CallContext`: its own, or a new one if this layer is the outermost."""
    context = request.context
    if context is not None:
        return request, context
    context = CallContext()
    return request.replace(context=context), context


class ProviderWrapper:
    """Forwards `complete`, `stream`, `aclose` and `default_model` to `inner`, and nothing else."""

    def __init__(self, inner: LLMProvider) -> None:
        self.inner = inner

    @property
    def default_model(self) -> str | None:
        """The innermost provider's default model, if it has one."""
        model: str | None = getattr(self.inner, "default_model", None)
        return model

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return await self.inner.complete(request)

    def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        return ChunkStream(_batches(self.inner, request))

    async def aclose(self) -> None:
        close = getattr(self.inner, "aclose", None)
        if close is not None:
            await close()

    def settings(self) -> str:
        """How this layer is set, in a few words, for `Aether.explain`. No secret may be in it."""
        return ""

    def __repr__(self) -> str:
        return describe(self)


async def _batches(provider: LLMProvider, request: LLMRequest) -> AsyncGenerator[Batch, None]:
    async with open_batches(provider, request) as batches:
        async for batch in batches:
            yield batch


def describe(provider: object) -> str:
    """The stack as text, outermost first: `CostTracking > CircuitBreaker > Retrying > OpenAI`."""
    names = (type(layer).__name__ for layer in layers_of(provider))
    return " > ".join(name.removesuffix("Provider") or name for name in names)


def layers_of(provider: object) -> Iterator[object]:
    """The stack's layers from the outside in, and the provider at its centre."""
    seen: set[int] = set()
    current: object | None = provider
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = getattr(current, "inner", None)


def check_count(name: str, value: int) -> None:
    """Raise `ConfigurationError` for an option that is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, not {value!r}.")


def check_seconds(name: str, value: float, *, minimum: float = 0.0) -> None:
    """Raise `ConfigurationError` for an option that is no finite number of at least `minimum`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not minimum <= value <= sys.float_info.max:
        raise ConfigurationError(f"{name} must be a number of at least {minimum:g}, not {value!r}.")
