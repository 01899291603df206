"""Streams whose chunks come in batches: many come with one read of a connection.

A layer that does its part once for a whole batch is in no single chunk's way. This module must not
know what a layer does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, StreamChunk
from aether.llm.streaming import open_stream

__all__ = ["Batch", "ChunkStream", "open_batches"]

Batch = list[StreamChunk]
"""Chunks that came together: at least one, and none behind a final one. Whoever gets it owns it."""


class ChunkStream(AsyncGenerator[StreamChunk, None]):
    """The chunks of `batches`, as a provider's stream. To be read either way, and not both."""

    __slots__ = ("__weakref__", "_chunks", "batches")

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self.batches = batches
        self._chunks: AsyncGenerator[StreamChunk, None] | None = None

    @property
    def is_read_singly(self) -> bool:
        """Whether somebody has begun to read chunks: some of a batch may be gone."""
        return self._chunks is not None

    def __aiter__(self) -> AsyncGenerator[StreamChunk, None]:
        if self._chunks is None:
            self._chunks = _one_by_one(self.batches)
        return self._chunks

    def __anext__(self) -> Coroutine[Any, Any, StreamChunk]:
        return aiter(self).__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, StreamChunk]:
        return aiter(self).asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, StreamChunk]:
        return aiter(self).athrow(*error)

    async def aclose(self) -> None:
        if self._chunks is not None:
            await self._chunks.aclose()
        await self.batches.aclose()


def open_batches(provider: LLMProvider, request: LLMRequest) -> _OpenBatches:
    """As `open_stream`, in batches. Of a stream that has none, each chunk is one."""
    return _OpenBatches(open_stream(provider, request))


class _OpenBatches:
    __slots__ = ("_opened",)

    def __init__(self, opened: AbstractAsyncContextManager[AsyncIterator[StreamChunk]]) -> None:
        self._opened = opened

    async def __aenter__(self) -> AsyncIterator[Batch]:
        chunks = await self._opened.__aenter__()
        # By its very class: what only passes for one, as a tracer's proxy does, sees each chunk.
        if type(chunks) is ChunkStream and not chunks.is_read_singly:
            return chunks.batches
        return _Singly(aiter(chunks))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(kind, error, traceback)


class _Singly(AsyncIterator[Batch]):
    """Not a generator, which would have to be closed."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: AsyncIterator[StreamChunk]) -> None:
        self._chunks = chunks

    async def __anext__(self) -> Batch:
        return [await anext(self._chunks)]


async def _one_by_one(batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[StreamChunk, None]:
    try:
        async for batch in batches:
            for chunk in batch:
                yield chunk
    finally:
        await batches.aclose()
