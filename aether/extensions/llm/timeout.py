"""Timeouts for content: an answer that does not begin, or does not go on, is given up.

It must not know a connection: whatever keeps one open, only content counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Literal

from aether.errors import RequestTimeoutError
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper, check_seconds

__all__ = ["TimeoutProvider"]

SHORTEST = 0.001

_Kind = Literal["first_content", "stall"]


class TimeoutProvider(ProviderWrapper):
    """Gives a call up that brings no content in time. To be put innermost, around the adapter.

    Content is text, reasoning, a piece of a tool call, or the end of the answer; what only keeps
    the connection open is none. `first_content` is how many seconds there may be until the first
    of it; of an answer that is no stream, until it is there. `stall` is how many there may be
    between two pieces of a stream. `None` is no limit, and the default: a model may think for
    minutes before it says anything.

    What is given up is closed at once, and raises `RequestTimeoutError`, of which `kind` is
    `first_content` or `stall`, and `partial` what had come, if anything had. It is `retryable`, but
    the provider may have billed it. Only the provider's time counts: the reader of a stream may
    take his own.

    `provider` is the name for messages; `clock` is monotonic, in seconds; `timeout` is as in
    `asyncio`.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        first_content: float | None = None,
        stall: float | None = None,
        provider: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout: Callable[[float], asyncio.Timeout] = asyncio.timeout,
    ) -> None:
        super().__init__(inner)
        for name, seconds in (("first_content", first_content), ("stall", stall)):
            if seconds is not None:
                check_seconds(name, seconds, minimum=SHORTEST)
        self._first_content = first_content
        self._stall = stall
        self._provider = provider
        self._clock = clock
        self._timeout = timeout

    def settings(self) -> str:
        named = (("first content", self._first_content), ("stall", self._stall))
        return ", ".join(f"{name} {limit:g} s" for name, limit in named if limit is not None)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        if self._first_content is None:
            return await self.inner.complete(request)
        limit = self._timeout(self._first_content)
        try:
            async with limit:
                return await self.inner.complete(request)
        except Exception as error:
            if limit.expired():
                raise self._late("first_content", request, [], []) from error
            raise

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        kind: _Kind = "first_content"
        left = self._first_content
        texts: list[str] = []
        thoughts: list[str] = []
        whole = False
        async with open_stream(self.inner, request) as opened:
            chunks = aiter(opened)
            while True:
                asked = self._clock()
                try:
                    chunk = await self._within(left, chunks)
                except StopAsyncIteration:
                    return
                except _TimeIsUpError as late:
                    if whole:  # there is nothing more to wait for
                        return
                    raise self._late(kind, request, texts, thoughts) from late.__cause__
                if chunk.has_content or chunk.is_final:
                    kind, left = "stall", self._stall
                    whole = whole or chunk.is_final
                    texts.append(chunk.text)
                    thoughts.append(chunk.reasoning or "")
                elif left is not None:
                    left -= self._clock() - asked
                    if left <= 0 and not whole:
                        raise self._late(kind, request, texts, thoughts)
                yield chunk

    async def _within(
        self, seconds: float | None, chunks: AsyncIterator[StreamChunk]
    ) -> StreamChunk:
        if seconds is None:
            return await anext(chunks)
        limit = self._timeout(seconds)
        try:
            async with limit:
                return await anext(chunks)
        except Exception as error:
            if limit.expired():
                raise _TimeIsUpError from error
            raise

    def _late(
        self, kind: _Kind, request: LLMRequest, texts: list[str], thoughts: list[str]
    ) -> RequestTimeoutError:
        name = self._provider or "The provider"
        model = request.model or self.default_model
        if kind == "stall":
            said = f"{name} sent no further content for {self._stall:g} s."
        else:
            said = f"{name} sent no content within {self._first_content:g} s."
        partial = None
        if texts:
            reasoning = "".join(thoughts) or None
            partial = LLMResponse(text="".join(texts), model=model or "", reasoning=reasoning)
        return RequestTimeoutError(
            said, provider=self._provider, model=model, kind=kind, partial=partial
        )


class _TimeIsUpError(Exception):
    """The limit has passed; what came of the waiting is the cause."""
