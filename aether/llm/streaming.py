"""Opening any provider's stream, and closing it for certain.

It must not know a protocol. A provider without `stream` is read as a stream of one chunk.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["OwnedStream", "final_chunk", "open_stream"]

T = TypeVar("T")

_log = logging.getLogger("aether.llm")


def final_chunk(response: LLMResponse, *, text: str = "") -> StreamChunk:
    """The chunk that closes a stream whose whole is `response`; `text` is its delta, if any."""
    return StreamChunk(
        text=text,
        finish_reason=response.finish_reason,
        input_tokens=response.input_tokens,
        output_tokens=response.output_tokens,
        cache_read_tokens=response.cache_read_tokens,
        cache_write_tokens=response.cache_write_tokens,
        reasoning_tokens=response.reasoning_tokens,
        tool_calls=response.tool_calls,
        response=response,
    )


class open_stream:
    """`async with open_stream(provider, request) as chunks:` closes the stream on every way out."""

    __slots__ = ("_iterator",)

    def __init__(self, provider: LLMProvider, request: LLMRequest) -> None:
        stream = getattr(provider, "stream", None)
        if stream is None:
            self._iterator: Any = _from_complete(provider, request)
            return
        iterator = stream(request)
        if inspect.isawaitable(iterator):  # `async def stream` that returns an iterator
            iterator = _awaited(iterator)
        self._iterator = iterator

    async def __aenter__(self) -> AsyncIterator[StreamChunk]:
        iterator: AsyncIterator[StreamChunk] = self._iterator
        return iterator

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


async def _from_complete(
    provider: LLMProvider, request: LLMRequest
) -> AsyncGenerator[StreamChunk, None]:
    response = await provider.complete(request)
    yield final_chunk(response, text=response.text)


async def _awaited(opening: Any) -> AsyncGenerator[StreamChunk, None]:
    iterator = await opening
    try:
        async for chunk in iterator:
            yield chunk
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


class OwnedStream(Generic[T]):
    """The stream that a caller holds: an async iterator and an async context manager.

    What it has open is released when its `async with` ends, on `aclose()`, when its last reference
    goes, and at the latest when the task that reads it ends. The last matters because a task that
    died of an exception keeps its frame, and with it this stream, alive until somebody looks.
    """

    __slots__ = ("__weakref__", "_creator", "_generator", "_reader")

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator
        self._reader: asyncio.Task[Any] | None = None
        self._creator = _current_task()

    def __aiter__(self) -> OwnedStream[T]:
        return self

    async def __anext__(self) -> T:
        reader = asyncio.current_task()
        if reader is not self._reader:
            self._follow(reader)
        return await self._generator.__anext__()

    async def aclose(self) -> None:
        """Stop and release everything. Twice is fine."""
        await self._generator.aclose()

    async def __aenter__(self) -> OwnedStream[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._generator.aclose()

    def detach(self) -> AsyncGenerator[T, None]:
        """The bare generator, for who reads it from changing tasks and closes it himself."""
        return self._generator

    def _follow(self, reader: asyncio.Task[Any] | None) -> None:
        if reader is not None and _reads_one_item(reader):
            reader = self._creator
        if reader is None or reader is self._reader:
            return
        self._reader = reader
        own = weakref.ref(self)

        def close(task: asyncio.Task[Any]) -> None:
            stream = own()
            if stream is not None and stream._reader is task:
                stream._reader = stream._creator = None
                closing = task.get_loop().create_task(stream._close_quietly())
                _closing.add(closing)
                closing.add_done_callback(_closing.discard)

        reader.add_done_callback(close)

    async def _close_quietly(self) -> None:
        try:
            await self._generator.aclose()
        except Exception as error:
            _log.warning("closing an abandoned stream failed: %s", type(error).__name__)


_closing: set[asyncio.Task[None]] = set()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop is running yet
        return None


def _reads_one_item(task: asyncio.Task[Any]) -> bool:
    # `asyncio.wait_for(anext(stream), ...)` of Python 3.11 reads each item in a task of its own.
    name = getattr(task.get_coro(), "__qualname__", "")
    return name in ("OwnedStream.__anext__", "_wrap_awaitable")
