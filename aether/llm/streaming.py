"""Opening any provider's stream, and closing it for certain.

It must not know a protocol. A provider without `stream` is read as a stream of one chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import weakref
from asyncio import current_task
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from aether._finishing import Finishing
from aether.errors import StreamInterruptedError
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["OwnedStream", "close_quietly", "final_chunk", "open_stream", "text_of"]

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


def open_stream(provider: LLMProvider, request: LLMRequest) -> _OpenStream:
    """The provider's chunks, as an async context manager that closes them on every way out."""
    stream = getattr(provider, "stream", None)
    if stream is None:
        return _OpenStream(_from_complete(provider, request))
    iterator = stream(request)
    if inspect.isawaitable(iterator):  # `async def stream` that returns an iterator
        iterator = _awaited(iterator)
    return _OpenStream(iterator)


class _OpenStream:
    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[StreamChunk]) -> None:
        self._iterator = iterator

    async def __aenter__(self) -> AsyncIterator[StreamChunk]:
        return self._iterator

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


async def text_of(chunks: AsyncGenerator[StreamChunk, None]) -> AsyncGenerator[str, None]:
    """The text deltas of a stream that are not empty.

    Text alone cannot say that an answer begins anew of which there was some already: then it is a
    `StreamInterruptedError`.
    """
    said = False
    try:
        async for chunk in chunks:
            if chunk.restart and said:
                raise StreamInterruptedError(
                    "The answer begins anew, from another provider, and the text so far is void, "
                    "which text alone cannot say. Read stream(), whose chunks say restart, or use "
                    'Fallbacks(after_content="raise").',
                    kind="restart",
                    retryable=False,
                )
            if chunk.text:
                said = True
                yield chunk.text
    finally:
        await chunks.aclose()


class OwnedStream(Generic[T]):
    """The stream that a caller holds: an async iterator and an async context manager.

    What it has open is released when its `async with` ends, on `aclose()`, when its last reference
    goes, and at the latest when the task that reads it ends. The last matters because a task that
    died of an exception keeps its frame, and with it this stream, alive until somebody looks.
    """

    __slots__ = ("__weakref__", "_cut_short", "_followed", "_generator", "_loop", "reader")

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator
        self.reader: asyncio.Task[Any] | threading.Thread | None = None
        """The task that reads it, until that ends. Who detached it says himself who reads."""
        self._cut_short = False
        """Whether it was closed, before its end, because its reader had ended."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop in which it is read."""
        self._followed: tuple[asyncio.Task[Any], Callable[[asyncio.Task[Any]], None]] | None = None
        """The task that is to say when it ends, and what it then calls."""

    def __aiter__(self) -> OwnedStream[T]:
        return self

    def __anext__(self) -> Awaitable[T]:
        # Not async: the reader is the task that asks, also where another one waits for the item, as
        # in `asyncio.wait_for(anext(stream), ...)` of Python 3.11.
        reader, loop = self.reader, self._loop
        if reader is None or loop is None or current_task(loop) is not reader:
            asking = _current_task()
            if asking is not reader:
                self._follow(asking)
                return _FirstItem(self, self._generator.__anext__())
        return self._generator.__anext__()

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
        if self._cut_short:
            raise StreamInterruptedError(
                "This stream was closed when the task that read it ended. Read a stream to its end "
                "in one task, or ask again.",
                kind="abandoned",
                retryable=False,
            )
        if reader is None:
            return
        self._unfollow()
        self.reader = reader
        self._loop = reader.get_loop()
        ended = weakref.WeakMethod(self._reader_ended)

        def on_end(task: asyncio.Task[Any]) -> None:
            method = ended()
            if method is not None:
                method(task)

        reader.add_done_callback(on_end)
        self._followed = reader, on_end

    def _unfollow(self) -> None:
        """A task that reads many streams must not keep something of each until it ends."""
        if self._followed is not None:
            reader, on_end = self._followed
            reader.remove_done_callback(on_end)
            self._followed = None

    def _reader_ended(self, reader: asyncio.Task[Any]) -> None:
        self._followed = None
        if reader is not self.reader:
            return
        self.reader = None
        self._cut_short = _is_open(self._generator)
        _begin_closing(self._generator, reader.get_loop())

    def __del__(self) -> None:
        if self._loop is not None:
            self._unfollow()
            _close_soon(self._generator, self._loop)


class _FirstItem(Generic[T]):
    """Holds the stream until its item has come: of `anext(client.stream(...))` nobody else does."""

    __slots__ = ("_item", "_stream")

    def __init__(self, stream: OwnedStream[T], item: Awaitable[T]) -> None:
        self._stream = stream
        self._item = item

    def __await__(self) -> Generator[Any, Any, T]:
        return (yield from self._item.__await__())


def _close_soon(generator: AsyncGenerator[Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop close a stream that nobody holds any more. From any thread.

    It would do so by itself, but in a task that it cancels, when it is shut down, before that has
    begun: then the stream would be cancelled and closed in the middle of each other (as of Python
    3.11 and 3.12), and what it is made of be closed in no order.
    """
    # Whoever waits for an item of it holds it still, and lets go of it afterwards.
    if _is_open(generator) and not getattr(generator, "ag_running", False):
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it all that was open
            loop.call_soon_threadsafe(_begin_closing, generator, loop)


def _is_open(generator: AsyncGenerator[Any, None]) -> bool:
    return getattr(generator, "ag_frame", None) is not None


def _begin_closing(generator: AsyncGenerator[Any, None], loop: asyncio.AbstractEventLoop) -> None:
    if _is_open(generator):
        closing = Finishing(close_quietly(generator), loop=loop)
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


async def close_quietly(generator: AsyncGenerator[Any, None]) -> None:
    """Close a stream that nobody reads any more; what goes wrong is logged."""
    try:
        await generator.aclose()
    except Exception as error:  # noqa: BLE001 - nobody is left who could be told otherwise
        _log.warning("closing an abandoned stream failed: %s", type(error).__name__)


_closing: set[asyncio.Task[None]] = set()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return current_task()
    except RuntimeError:  # no loop is running: its items are asked for one by one
        return None
