"""Where flows are played that are cancelled: a client over a provider that can be suspended.

It is judged by what is left: nothing runs or is open, events and ledger are whole, history is as it
was unless the answer was handed out, and the next call is answered at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx2
import pytest

from aether import Aether, SessionStore
from aether.events import EVENT_NAMES, Event
from aether.extensions.llm import (
    CircuitBreakerProvider,
    CostTrackingProvider,
    RetryingProvider,
)
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import (
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    ToolCall,
)
from aether.testing import FakeProvider
from aether.tools.contracts import NextHandler, ToolInvocation, ToolResult
from aether.tools.threads import worker_threads
from tests.faults.aftermath import Aftermath
from tests.faults.sweep import pause

__all__ = [
    "MODEL",
    "Answer",
    "Scripted",
    "Stage",
    "Toolbox",
    "calling",
    "settle",
    "share_tls_context",
]

Answer = LLMResponse | str | BaseException

MODEL = "scripted"
_SETTLING_TURNS = 40


def calling(*names: str, **arguments: str) -> LLMResponse:
    """An answer that calls these tools, all with the same arguments."""
    calls = [ToolCall(f"c{n}", name, dict(arguments)) for n, name in enumerate(names)]
    return LLMResponse("let me see ", MODEL, tool_calls=calls, finish_reason="tool_calls")


class Scripted:
    """Plays a script for each model, as a `FakeProvider`, and can be suspended wherever a provider
    over a network can: before an answer, between its pieces, at its end, while it is closed.
    """

    default_model = MODEL

    def __init__(self, scripts: Mapping[str, Sequence[Answer]]) -> None:
        self._scripts = {model: list(script) for model, script in scripts.items()}
        self.count = 0
        """The requests so far."""
        self.open = 0
        """Those under way."""
        self.pausing = True
        self.closed = 0

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        with self._exchange():
            await self._pause()
            response = await self._player(request).complete(request)
            await self._pause()
            return response

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        with self._exchange():
            await self._pause()
            async for chunk in self._player(request).stream(request):
                yield chunk
                await self._pause()

    async def aclose(self) -> None:
        await self._pause()
        self.closed += 1
        await self._pause()

    def end_script(self) -> None:
        """From now on answer `next`, without giving way."""
        self._scripts = {}
        self.pausing = False

    def _player(self, request: LLMRequest) -> FakeProvider:
        script = self._scripts.get(request.model or MODEL)
        return FakeProvider(responses=[script.pop(0) if script else "next"])

    async def _pause(self) -> None:
        if self.pausing:
            await pause()

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        self.count += 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class Clock:
    """Time that passes when somebody sleeps, which gives way once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await pause()
        self.now += seconds


class Toolbox:
    """Tools that can be suspended, and how many of them run."""

    def __init__(self) -> None:
        self.running = 0

    async def step(self) -> str:
        """Take two steps."""
        with self._counted():
            await pause()
            await pause()
            return "stepped"

    def work(self) -> str:
        """Work in a thread."""
        return "worked"

    async def fail(self) -> str:
        """Fail after a while."""
        with self._counted():
            await pause()
            raise ValueError("mine")

    async def linger(self) -> str:
        """Take a while to end, also when cancelled."""
        with self._counted():
            try:
                await pause()
            finally:
                await pause()
                await pause()
            return "left"

    async def swallow(self) -> str:
        """Take no notice of being cancelled."""
        with self._counted(), suppress(asyncio.CancelledError):
            await pause()
        return "done all the same"

    async def hang(self) -> str:
        """Never end."""
        with self._counted():
            await asyncio.Event().wait()
            return "never"

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


class Stage:
    """A client with the whole stack over `Scripted`, and a session that has a turn already.

    With `slow`, a subscriber of each event and a middleware around each tool give way, too.
    """

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Answer]] | Sequence[Answer] = (),
        *,
        store: SessionStore | None = None,
        slow: bool = False,
    ) -> None:
        if not isinstance(scripts, Mapping):
            scripts = {MODEL: scripts}
        self.provider = Scripted(scripts)
        self._never_gives_way = store is None and not slow
        self.clock = Clock()
        self.store: SessionStore = InMemorySessionStore() if store is None else store
        self.aftermath = Aftermath()
        self._retrying = RetryingProvider(
            self.provider, clock=self.clock, sleep=self.clock.sleep, random=_half
        )
        self.breaker = CircuitBreakerProvider(self._retrying, clock=self.clock, random=_half)
        self.client = self.aftermath.client(
            Aether(
                CostTrackingProvider(self.breaker),
                memory_store=self.store,
                tool_middleware=[self._pass_slowly] if slow else [],
            )
        )
        self.tools = Toolbox()
        if slow:
            for name in EVENT_NAMES:
                self.client.on(name)(self._dawdle)
        self.session = self.client.session("s")
        self.stored = 0
        """How many messages a flow knows to have been added to the session."""

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        before = [Message("user", "before"), Message("assistant", "then")]
        await self.store.save("s", before)
        self._before = await self.session.history()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.client.aclose()
        close = getattr(self.store, "aclose", None)
        if close is not None:
            await close()

    async def judge(self) -> None:
        """Assert all that must hold."""
        assert self.tools.running == 0, "a tool still runs though its caller goes on"
        await settle(self._tasks)
        provider = self.provider
        assert provider.open == 0, "the provider is still asked"
        assert provider.count == len(self.client.usage.ledger)
        await self.aftermath.judge()
        assert all(entry.state != "pending" for entry in self.client.usage.ledger)
        history = await self.session.history()
        turns = [message for message in history if message.role != "system"]
        assert turns[: len(self._before)] == self._before
        assert len(history) == len(self._before) + self.stored, f"history: {history}"
        await self._answers_at_once()

    async def _answers_at_once(self) -> None:
        """Nothing is held that the next call needs: a turn, a gate, the leave of a breaker."""
        self.provider.end_script()
        self.clock.now += (
            60  # the gate is open again, but a probe that got lost would be waited for
        )
        assert self._retrying._paces[MODEL]._queue == 0, "a place at the gate is still taken"
        for ask in (self.client.ask, self.session.ask):
            task: asyncio.Task[str] = asyncio.ensure_future(ask("next"))
            await asyncio.sleep(0)
            if not self._never_gives_way:
                await asyncio.wait({task}, timeout=1)
            assert task.done(), "the next call is held up"
            assert task.result()
        assert self.breaker.state(MODEL) == "closed"

    async def _dawdle(self, _: Event) -> None:
        if self.provider.pausing:
            await pause()

    async def _pass_slowly(self, call: ToolInvocation, following: NextHandler) -> ToolResult:
        await pause()
        result = await following(call)
        await pause()
        return result


async def settle(before: set[asyncio.Task[Any]]) -> None:
    """Give what was told to end a few turns of the loop to do so, and threads a few moments."""
    known = {*before, asyncio.current_task()}
    for turn in range(_SETTLING_TURNS):
        if asyncio.all_tasks() <= known and not worker_threads.abandoned:
            return
        await asyncio.sleep(0 if turn < _SETTLING_TURNS / 2 else 0.005)
    left = asyncio.all_tasks() - known
    assert not left, f"tasks are left: {left}"
    assert not worker_threads.abandoned, "a thread is left"


def share_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx2 reads its certificates anew for each client, which takes longer than all the rest."""
    monkeypatch.setattr(httpx2, "create_ssl_context", _tls_context)


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _half() -> float:
    return 0.5
