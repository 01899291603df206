"""A provider that plays a script, and a clock that only a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk
from aether.llm.streaming import final_chunk

MODEL = "gpt-6-luna"


def a_request(prompt: str = "What is 17 + 25?", **fields: Any) -> LLMRequest:
    return LLMRequest([Message("user", prompt)], **{"model": MODEL, **fields})


def an_answer(text: str = "It is 42.", **fields: Any) -> LLMResponse:
    counts = {"input_tokens": 10, "output_tokens": 5, "finish_reason": "stop"}
    return LLMResponse(text, fields.pop("model", MODEL), **{**counts, **fields})


def deltas(*texts: str, answer: LLMResponse | None = None) -> list[StreamChunk]:
    """The chunks of a whole stream."""
    whole = an_answer("".join(texts)) if answer is None else answer
    return [*(StreamChunk(text=text) for text in texts), final_chunk(whole)]


Step = LLMResponse | BaseException | Sequence[StreamChunk | BaseException] | Callable[[], Any]


class Scripted:
    """Plays `script`, one step a call: an answer, an exception, or the chunks of a stream.

    A callable step is awaited, and its result is the step. The last step is played again and
    again. It opens no ledger entry, as a third party's provider does not.
    """

    def __init__(self, *script: Step, default_model: str | None = None) -> None:
        self.script = script
        self.default_model = default_model
        self.requests: list[LLMRequest] = []
        self.started = 0
        self.ended = 0
        self.closed = False

    @property
    def calls(self) -> int:
        return len(self.requests)

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        step = await self._next(request)
        assert isinstance(step, LLMResponse)
        return step

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self.started += 1
        try:
            step = await self._next(request)
            if isinstance(step, LLMResponse):
                step = deltas(step.text, answer=step)
            for item in step:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.ended += 1

    async def aclose(self) -> None:
        self.closed = True

    async def _next(self, request: LLMRequest) -> Any:
        step: Any = self.script[min(self.calls, len(self.script) - 1)]
        self.requests.append(request)
        if callable(step):
            step = await step()
        if isinstance(step, BaseException):
            raise step
        return step


class WithoutStream:
    """A provider with the one required method."""

    def __init__(self, inner: Scripted) -> None:
        self._inner = inner

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return await self._inner.complete(request)


class Timer:
    """What a clock calls later, unless it is cancelled before."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        if self._call is not None:
            self._call()

    def cancel(self) -> None:
        self._call = None


class Clock:
    """Virtual time: it passes while `run` finds nothing else to do than to wait.

    `sleep` and `timeout` are those of `asyncio`, in this time. `wait` is a sleep that is not noted:
    not one of what is tested, but of those around it.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.sleeps: list[float] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await self.wait(seconds)

    async def wait(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        self._call_later(seconds, wake)
        await woken

    def timeout(self, seconds: float) -> asyncio.Timeout:
        limit, loop = asyncio.timeout(None), asyncio.get_running_loop()

        def expire() -> None:
            with suppress(RuntimeError):  # what it limits has ended
                limit.reschedule(loop.time())

        self._call_later(seconds, expire)
        return limit

    def _call_later(self, seconds: float, call: Callable[[], Any]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), call))

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """As a loop's."""
        timer = Timer(call)
        self._call_later(seconds, timer)
        return timer

    async def run(self, *work: Awaitable[Any]) -> list[Any]:
        """Run together, in virtual time, what is to be awaited. Exceptions are results."""
        tasks = [asyncio.ensure_future(item) for item in work]
        await self.settle()
        while not all(task.done() for task in tasks):
            assert self._due, "nothing sleeps, and yet it does not end"
            due, _, call = heapq.heappop(self._due)
            self.now = max(self.now, due)
            call()
            await self.settle()
        return await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def settle() -> None:
        """Until every task waits for something."""
        for _ in range(20):
            await asyncio.sleep(0)


async def collect(stream: AsyncGenerator[StreamChunk, None]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


async def text_until_error(
    stream: AsyncGenerator[StreamChunk, None],
) -> tuple[str, BaseException | None]:
    """What the reader has got, and how it ended."""
    text = ""
    try:
        async for chunk in stream:
            text += chunk.text
    except Exception as error:  # noqa: BLE001  # whatever it is, the test wants to see it
        return text, error
    return text, None
