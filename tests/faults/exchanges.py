"""What the tests of connections and bodies do alike: each protocol, each transport, each way to
ask; and what came of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from aether import Aether, ProviderConfig
from aether.errors import AetherError, ProviderError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.factory import build_provider
from aether.extensions.llm.retrying import RetryingProvider
from aether.extensions.memory.in_memory import InMemorySessionStore
from aether.http.contracts import Transport
from aether.llm.contracts import (
    Message,
    TokenUsage,
    ToolCall,
)
from aether.registry import default_registry
from aether.testing import FaultServer
from aether.testing.faults import Answer, Fault, Reply, Situation
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
    Wire,
    WireRequest,
)
from tests.faults.aftermath import Aftermath

PROTOCOLS = ("openai", "openai.responses", "anthropic", "gemini")
TRANSPORTS = ("aiohttp", "httpx")
Way = Literal["ask", "stream", "session", "session stream"]
WAYS: tuple[Way, ...] = ("ask", "stream", "session", "session stream")

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
TRANSPORT_CLASSES: Mapping[str, Callable[..., Transport]] = {
    "aiohttp": AiohttpTransport,
    "httpx": HttpxTransport,
}

both_ways = pytest.mark.parametrize("way", ["ask", "stream"])
all_ways = pytest.mark.parametrize("way", WAYS)

WIRES: Mapping[str, Wire] = {
    "openai": OpenAIChatWire(),
    "openai.responses": OpenAIResponsesWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
}
MODEL = "test-model-1"
USAGE = TokenUsage(input_tokens=9, output_tokens=3)
HELLO = Reply("Hello there.", usage=USAGE)
"""What a server answers whom nobody tells otherwise."""
ADD = ToolCall("call-1", "add", {"a": 1, "b": 2})
CALLING = Reply(calls=[ADD], usage=USAGE)


@dataclasses.dataclass
class Came:
    """What a call gave: the text that was handed out, and how it ended."""

    text: str = ""
    error: AetherError | None = None

    def failed(self) -> ProviderError:
        """The error; the test has failed if there is none."""
        assert self.error is not None, f"it passed for an answer: {self.text!r}"
        assert isinstance(self.error, ProviderError), f"not a provider's: {self.error!r}"
        return self.error

    def succeeded(self) -> str:
        """The text; the test has failed if there was an error."""
        if self.error is not None:
            raise self.error
        return self.text


async def call(client: Aether, way: Way, prompt: str = "Hi", **options: Any) -> Came:
    """Ask in that way. Anything that is raised and is no `AetherError` goes on."""
    came = Came()
    asked = client.session("one") if way.startswith("session") else client
    try:
        if way.endswith("stream"):
            async with asked.stream_text(prompt, **options) as texts:
                async for text in texts:
                    came.text += text
        else:
            came.text = await asked.ask(prompt, **options)
    except AetherError as error:
        came.error = error
    return came


@asynccontextmanager
async def opened(
    aftermath: Aftermath,
    server: FaultServer,
    protocol: str,
    transport: Any = None,
    *,
    attempts: int = 1,
    fails: bool = False,
    **fields: Any,
) -> AsyncIterator[Aether]:
    """A client of the server with the default stack, which waits for nothing between attempts.

    Watched by the aftermath, and where every call `fails`, the session's history too.
    """
    config = server.config(protocol, transport=transport, api_key=aftermath.key, **fields)
    async with opened_with(aftermath, config, attempts=attempts, fails=fails) as client:
        aftermath.one_entry_per_request(client, server)
        yield client


@asynccontextmanager
async def opened_with(
    aftermath: Aftermath, config: ProviderConfig, *, attempts: int = 1, fails: bool = False
) -> AsyncIterator[Aether]:
    """The same of any configuration, without the ledger."""
    choice, adapter = build_provider(config, default_registry)
    name = choice.name
    retrying = RetryingProvider(
        adapter, max_attempts=attempts, base_delay=0.0, provider=name, random=lambda: 0.0
    )
    stack = CircuitBreakerProvider(retrying, failure_threshold=1, provider=name)
    store = InMemorySessionStore()
    await store.save("one", [Message("user", "Before."), Message("assistant", "Yes.")])
    if fails:
        await aftermath.keeps_history(store, "one")
    async with Aether(stack, memory_store=store) as client:
        yield aftermath.client(client)


def is_open(client: Aether) -> bool:
    """Whether the circuit breaker of `opened` has opened: after one failure."""
    breaker: Any = client.provider
    while not isinstance(breaker, CircuitBreakerProvider):
        breaker = breaker.inner
    return breaker.state(MODEL) != "closed"


def states(client: Aether) -> list[str]:
    """The states of the ledger's entries, in order."""
    return [entry.state for entry in client.usage.ledger]


def events_of(protocol: str, reply: Reply = HELLO) -> tuple[list[bytes], int]:
    """The events of a streamed reply, and after how many of them it is whole for the adapter."""
    stream = WIRES[protocol].stream(reply, request_of(protocol, streaming=True))
    whole = len(stream.events) if protocol == "anthropic" else stream.settled
    return list(stream.events), whole


def body_of(protocol: str, reply: Reply = HELLO) -> bytes:
    """The body of a reply that is no stream."""
    return WIRES[protocol].body(reply, request_of(protocol, streaming=False))


def request_of(protocol: str, *, streaming: bool) -> WireRequest:
    """A request as the wires want to see it."""
    path = ":streamGenerateContent" if protocol == "gemini" and streaming else "/"
    body = b'{"stream": true, "stream_options": {"include_usage": true}}' if streaming else b"{}"
    return WireRequest("POST", path, {}, body)


def changed(name: str, change: Callable[[Answer, Situation], Answer]) -> Fault:
    """A fault of a test's own."""
    return Fault(name, change)


def first_event(protocol: str, text: bytes, reply: Reply = HELLO) -> int:
    """The place of the first event that has a text in it."""
    return next(place for place, event in enumerate(events_of(protocol, reply)[0]) if text in event)


def elsewhere(protocol: str, url: str, aftermath: Aftermath, **fields: Any) -> ProviderConfig:
    """A configuration of a server that is not the fault server."""
    name, _, api = protocol.partition(".")
    options = {"api": api or "chat"} if name == "openai" else {}
    return ProviderConfig(
        name, model=MODEL, api_key=aftermath.key, base_url=url, options=options, **fields
    )


@asynccontextmanager
async def closing(transport: Transport) -> AsyncIterator[Transport]:
    """The transport, closed at the end."""
    try:
        yield transport
    finally:
        await transport.aclose()


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:  # the folder's own
            continue
    return count


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds; `TimeoutError` after 5 seconds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)
