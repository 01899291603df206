"""The client's calls, blocking: each runs on one private event loop in a thread of its own.

It must not know what a call does.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from aether._loop_thread import LoopThread
from aether.engine.options import CallOptions
from aether.errors import StreamInterruptedError
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
    from aether.llm.budget import Budget
    from aether.llm.estimate import Estimate

__all__ = ["SyncAether", "SyncSession", "SyncStream"]

T = TypeVar("T")


class SyncStream(Generic[T]):
    """A stream read with a plain `for`. Leave it early with `close()` or its `with`."""

    def __init__(self, thread: LoopThread, stream: OwnedStream[T]) -> None:
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

    def __init__(self, thread: LoopThread, session: Session) -> None:
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
        self._thread = LoopThread()
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

    def estimate(
        self, prompt: str | Sequence[Message], *, output: Any = None, **options: Unpack[CallOptions]
    ) -> Estimate:
        return self._thread.run(self._client.estimate(prompt, output=output, **options))

    def explain(self) -> str:
        return self._client.explain()

    def session(
        self, session_id: str, system: str | None = None, *, budget: Budget | None = None
    ) -> SyncSession:
        return SyncSession(self._thread, self._client.session(session_id, system, budget=budget))

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


class _StreamEndError(Exception):
    """The end of a stream: StopAsyncIteration cannot be raised through a future's coroutine."""


async def _next(generator: AsyncGenerator[T, None]) -> T:
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        raise _StreamEndError from None
