"""The client's calls, blocking: each runs on one private event loop in a thread of its own.

It must not know what a call does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from aether.engine.options import CallOptions
from aether.errors import AetherError, ClientClosedError, StreamInterruptedError
from aether.llm.messages import (
    LLMResponse,
    Message,
    StreamChunk,
    StructuredChunk,
    StructuredResponse,
)
from aether.llm.streaming import OwnedStream
from aether.memory.session import Session

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from aether.client import Aether

__all__ = ["SyncAether", "SyncSession", "SyncStream"]

T = TypeVar("T")


class _LoopThread:
    """An event loop that runs in a daemon thread until it is stopped.

    A forked process has none of its parent's threads: there the next call begins another loop.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.stopped = False
        self._begin()
        _threads.add(self)

    def _begin(self) -> None:
        self._inherited = False
        self._loop = asyncio.new_event_loop()
        self.streams: weakref.WeakSet[AsyncGenerator[Any, None]] = weakref.WeakSet()
        """Those that are read in this loop; they end with it."""
        self._thread = threading.Thread(target=self._serve, name="aether-sync", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """In a forked process: what there is of the parent's loop is left alone, for it shares the
        parent's files.
        """
        self._lock = threading.RLock()
        self._inherited = True
        _left_alone.append(self._loop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self.stopped:
                # A call that ended so hands it to its caller; the loop goes on for the others.
                with suppress(KeyboardInterrupt, SystemExit):
                    self._loop.run_forever()
            self._loop.run_until_complete(_cancel_all())
            self._loop.run_until_complete(_close_all(list(self.streams)))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end, in the caller's context variables. An interrupt cancels it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise AetherError(
                "client.sync was called from code that runs on its own event loop, which would "
                "wait for itself. Use the async client there."
            )
        with self._lock:
            if self.stopped:
                coroutine.close()
                raise ClientClosedError("This client is closed. Make a new one.")
            if self._inherited:
                self._begin()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self.stopped:
                raise ClientClosedError("The client was closed during this call.") from None
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and the thread. Twice is fine."""
        with self._lock:
            running = not (self.stopped or self._inherited)
            self.stopped = True
            if running:
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


_threads: weakref.WeakSet[_LoopThread] = weakref.WeakSet()
_left_alone: list[asyncio.AbstractEventLoop] = []


def _forget_inherited() -> None:
    for thread in list(_threads):
        thread.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)


class SyncStream(Generic[T]):
    """A stream read with a plain `for`. Leave it early with `close()` or its `with`."""

    def __init__(self, thread: _LoopThread, stream: OwnedStream[T]) -> None:
        self._thread = thread
        self._stream = stream
        self._generator = stream.detach()  # each item is read in a task of its own
        self._interrupted = False
        thread.streams.add(self._generator)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._interrupted:
            raise StreamInterruptedError(
                "This stream was interrupted while an item of it was awaited, which is lost. Ask "
                "again.",
                kind="abandoned",
                retryable=False,
            )
        self._stream.reader = threading.current_thread()
        try:
            return self._thread.run(_next(self._generator))
        except _StreamEndError:
            raise StopIteration from None
        except (KeyboardInterrupt, SystemExit):
            self._interrupted = True
            raise

    def close(self) -> None:
        """Stop and release everything. Twice is fine."""
        if not self._thread.stopped:  # else it was closed with the loop
            self._thread.run(self._generator.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SyncSession:
    """A session's calls, blocking. See `aether.memory.session.Session`."""

    def __init__(self, thread: _LoopThread, session: Session) -> None:
        self._thread = thread
        self._session = session

    @property
    def session_id(self) -> str:
        return self._session.session_id

    @overload
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> str: ...
    @overload
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> T: ...
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        self._session.refuse_reentry(threading.current_thread())
        return self._thread.run(self._session.ask(prompt, output=output, **options))

    @overload
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> LLMResponse: ...
    @overload
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> StructuredResponse[T]: ...
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        self._session.refuse_reentry(threading.current_thread())
        return self._thread.run(self._session.complete(prompt, output=output, **options))

    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> SyncStream[StreamChunk]: ...
    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> SyncStream[StructuredChunk[T]]: ...
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        stream = self._session.stream(prompt, output=output, **options)
        return SyncStream(self._thread, stream)

    def stream_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> SyncStream[str]:
        return SyncStream(self._thread, self._session.stream_text(prompt, **options))

    def history(self) -> list[Message]:
        return self._thread.run(self._session.history())

    def clear(self) -> None:
        self._session.refuse_reentry(threading.current_thread())
        self._thread.run(self._session.clear())


class SyncAether:
    """The blocking side of a client: `client.sync`. See `aether.client.Aether`."""

    def __init__(self, client: Aether) -> None:
        self._client = client
        self._thread = _LoopThread()
        # Also at exit: the loop's end closes the connections that it opened.
        self._finalizer = weakref.finalize(self, self._thread.stop)

    @overload
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> str: ...
    @overload
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> T: ...
    def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        return self._thread.run(self._client.ask(prompt, output=output, **options))

    @overload
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> LLMResponse: ...
    @overload
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> StructuredResponse[T]: ...
    def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        return self._thread.run(self._client.complete(prompt, output=output, **options))

    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: None = None,
        **options: Unpack[CallOptions],
    ) -> SyncStream[StreamChunk]: ...
    @overload
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: TypeForm[T],
        **options: Unpack[CallOptions],
    ) -> SyncStream[StructuredChunk[T]]: ...
    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        output: Any = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        stream = self._client.stream(prompt, output=output, **options)
        return SyncStream(self._thread, stream)

    def stream_text(
        self, prompt: str | Sequence[Message], **options: Unpack[CallOptions]
    ) -> SyncStream[str]:
        return SyncStream(self._thread, self._client.stream_text(prompt, **options))

    def session(self, session_id: str, system: str | None = None) -> SyncSession:
        return SyncSession(self._thread, self._client.session(session_id, system))

    def warm_up(self) -> None:
        self._thread.run(self._client.warm_up())

    def close(self) -> None:
        """Close the client and end the private loop. Twice is fine."""
        if not self._thread.stopped:
            self._thread.run(self._client.aclose())
        self.stop()

    def stop(self) -> None:
        """End the private loop; the client closes itself."""
        self._finalizer.detach()
        self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close_all(streams: Sequence[AsyncGenerator[Any, None]]) -> None:
    """One after another, each from its outside: the loop would close all that they are made of at
    once.
    """
    for stream in streams:
        with suppress(Exception):
            await stream.aclose()


class _StreamEndError(Exception):
    """The end of a stream: StopAsyncIteration cannot be raised through a future's coroutine."""


async def _next(generator: AsyncGenerator[T, None]) -> T:
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        raise _StreamEndError from None
