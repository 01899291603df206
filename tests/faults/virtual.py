"""A provider's server without a socket, in virtual time: what a whole stack does, to the second."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aether.errors import AetherError
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.gemini import GeminiProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import HTTPResponse
from aether.llm.contracts import TokenUsage
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
    Reply,
    Wire,
    WireRequest,
)
from tests.llm.scripted import MODEL, Clock

HELLO = Reply("It is 42.", usage=TokenUsage(input_tokens=9, output_tokens=5), model=MODEL)


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """`None`: the whole answer, as the request wants it."""
    delay: float = 0.0
    """Seconds until the first byte; `inf`: never."""
    pause: float = 0.0
    """Seconds before each further event of a stream."""
    events: int | None = None
    """Only so many events of a stream; then `error`. -1: all but the one that says why it ended."""
    error: Callable[[], AetherError] | None = None
    """What the transport raises, at once or after `events`."""


class VirtualServer:
    """A `Transport` that plays `acts`, one a request; when they are at their end, it answers."""

    def __init__(self, wire: Wire, clock: Clock, *acts: Act) -> None:
        self.wire = wire
        self.clock = clock
        self.acts = list(acts)
        self.starts: list[float] = []
        """When each request came."""
        self.bodies: list[bytes] = []
        self.open = 0
        """Requests whose answer is under way."""

    async def request(self, method: str, url: str, **sent: Any) -> HTTPResponse:
        act, request = self._begin(method, url, sent)
        self.open += 1
        try:
            await self.wait(act.delay)
            if act.error is not None:
                raise act.error()
            body = self.wire.body(HELLO, request) if act.body is None else act.body
            return HTTPResponse(act.status, act.headers, body)
        finally:
            self.open -= 1

    @asynccontextmanager
    async def stream(self, method: str, url: str, **sent: Any) -> AsyncGenerator[_Answer, None]:
        act, request = self._begin(method, url, sent)
        self.open += 1
        try:
            await self.wait(act.delay)
            if act.error is not None and act.events is None:
                raise act.error()
            yield _Answer(self, act, request)
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        return

    async def wait(self, seconds: float) -> None:
        if seconds:
            await self.clock.wait(seconds)

    def _begin(self, method: str, url: str, sent: Mapping[str, Any]) -> tuple[Act, WireRequest]:
        path = "/" + url.split("/", 3)[3]
        request = WireRequest(method, path, sent["headers"], sent["body"])
        self.starts.append(self.clock.now)
        self.bodies.append(request.body)
        return (self.acts.pop(0) if self.acts else Act()), request


class _Answer:
    def __init__(self, server: VirtualServer, act: Act, request: WireRequest) -> None:
        self.status = act.status
        self.headers = act.headers
        self._server = server
        self._act = act
        self._request = request

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        act, wire = self._act, self._server.wire
        if act.body is not None:
            yield act.body
            return
        stream = wire.stream(HELLO, self._request)
        count = stream.settled - 1 if act.events == -1 else act.events
        for number, event in enumerate(stream.events[:count]):
            if number:
                await self._server.wait(act.pause)
            yield event
        if act.error is not None:
            raise act.error()


WIRES: dict[str, Callable[[], Wire]] = {
    "openai chat": OpenAIChatWire,
    "openai responses": OpenAIResponsesWire,
    "anthropic": AnthropicWire,
    "gemini": GeminiWire,
}


def adapter(wire: str, server: VirtualServer) -> Any:
    """The adapter that speaks it."""
    options: dict[str, Any] = {"transport": server, "base_url": "http://127.0.0.1:1/v1"}
    if wire.startswith("openai"):
        return OpenAIProvider("sk-canary-0123456789", MODEL, api=wire.split()[1], **options)  # type: ignore[arg-type]  # one of two
    provider = AnthropicProvider if wire == "anthropic" else GeminiProvider
    return provider("sk-canary-0123456789", MODEL, **options)


def stack(
    inner: Any, clock: Clock, *, random: Callable[[], float] = lambda: 1.0, **breaker: Any
) -> CostTrackingProvider:
    """The default stack around `inner`, in virtual time."""
    retrying = RetryingProvider(
        inner,
        provider="openai",
        clock=clock,
        sleep=clock.sleep,
        timeout=clock.timeout,
        random=random,
    )
    breaking = CircuitBreakerProvider(
        retrying, provider="openai", clock=clock, random=random, **breaker
    )
    return CostTrackingProvider(breaking, clock=clock)
