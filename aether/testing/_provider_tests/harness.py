"""What the tests of an adapter stand on: a server, a provider at its address, and a judgement.

It must not know a protocol.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from aether.errors import AetherError, ProviderError
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, TokenUsage, ToolCall
from aether.llm.streaming import open_stream
from aether.testing._provider_tests.answering import COUNTS, AnsweringTests, close
from aether.testing.faults import Answer, Ending, FaultServer, Script
from aether.testing.wires import Feature, Reply, Wire, WireRequest, WireStream

__all__ = [
    "ADDING",
    "BOTH_WAYS",
    "FOLLOWING",
    "FULL",
    "HELLO",
    "AdapterHarness",
    "Outcome",
    "agrees",
    "outcome",
]

BOTH_WAYS = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])

HANGING_SECONDS = 30
"""No call of a test takes so long."""

HELLO = Reply(text="Hello there.", usage=TokenUsage(input_tokens=9, output_tokens=3))
ADDING = Reply(calls=[ToolCall("call000Aa", "add", {"a": 1, "b": 2})])
FULL = Reply(
    text=' Grüße, "Welt"\u2028\x85 \U0001f600\\\r\n\tat the end: ',
    reasoning="First: é… then 考える.",
    calls=[
        ToolCall("call000Aa", "add", {"a": 1, "b": -2}),
        ToolCall(
            "call000Bb", "look_up", {"words": ["ä\u2029\n", "\U0001f600"], "deep": {"x": [None]}}
        ),
        ToolCall("call000Cc", "add", {"a": 1, "b": -2}),
    ],
    usage=TokenUsage(
        input_tokens=1000,
        output_tokens=200,
        cache_read_tokens=300,
        cache_write_tokens=50,
        reasoning_tokens=80,
    ),
    signature="c2lnbmF0dXJlLW9mLXRoZS10dXJu",
)
"""All that a reply can be, with the characters at which readers stumble."""
FOLLOWING = {"marked_property": 'é, then a "marked" value'}
"""An answer that follows the tests' schema."""


class AdapterHarness(AnsweringTests):
    """Inherit from it with tests; what it needs to know is told by whom the tests are for."""

    wire: Wire
    """How the provider's server writes its answers."""
    api_key: str = "sk-canary-1234567890abcdef"
    """The key to make the provider with; empty for one that takes none."""

    patience: float = 5.0
    """How many seconds the tests wait for what must come at once."""

    def make_provider(self, base_url: str) -> LLMProvider | Awaitable[LLMProvider]:
        """A new provider that sends its requests to `base_url`, with `self.api_key` as its key."""
        raise NotImplementedError("say how to make the provider")

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[LLMProvider]:
        async with self._answering_as_asked() as (provider, _):
            yield provider

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[LLMProvider]:
        async with self._serving(ADDING) as (provider, _):
            yield provider

    @asynccontextmanager
    async def _answering_as_asked(self) -> AsyncIterator[tuple[LLMProvider, FaultServer]]:
        """A provider, and a server that follows the tests' schema where the request has it: as
        text, or by a call where a tool has the schema.
        """

        def answer(request: WireRequest) -> Reply:
            for name, tool in self.wire.offered(request).items():
                if "marked_property" in json.dumps(tool):
                    return replace(ADDING, calls=[ToolCall("call000Aa", name, FOLLOWING)])
            asked = b"marked_property" in request.body
            return replace(HELLO, text=json.dumps(FOLLOWING)) if asked else HELLO

        async with self._serving(answer) as (provider, server):
            yield provider, server

    @asynccontextmanager
    async def _serving(self, script: Script) -> AsyncIterator[tuple[LLMProvider, FaultServer]]:
        """A provider and its server."""
        assert hasattr(self, "wire"), "say how its server writes: wire = OpenAIChatWire(), or other"
        async with FaultServer(reply=script, wire=self.wire, patience=self.patience) as server:
            made = self.make_provider(server.url)
            provider = await made if inspect.isawaitable(made) else made
            assert isinstance(provider, LLMProvider), f"{type(provider).__name__} has no complete()"
            try:
                yield provider, server
            finally:
                await close(provider)

    @asynccontextmanager
    async def _streaming(
        self, reply: Reply
    ) -> AsyncIterator[tuple[LLMProvider, FaultServer, WireStream]]:
        """A provider that can stream, its server, and the reply as the server writes it."""
        async with self._serving(reply) as (provider, server):
            await outcome(provider, self.request(), streaming=True)
            request = server.requests[-1]
            if not self.wire.wants_stream(request):
                pytest.skip("this provider does not ask for streams")
            yield provider, server, self.wire.stream(reply, request)

    def _events(self, events: Sequence[bytes], ending: Ending = "whole") -> Answer:
        """A streamed answer of these pieces."""
        return Answer(events, headers={"content-type": self.wire.stream_type}, ending=ending)

    def _need(self, *features: Feature) -> None:
        for feature in features:
            if not self.wire.can(feature):
                pytest.skip(f"{type(self.wire).__name__} cannot say: {feature}")

    async def _refused(
        self, answer: Answer, *, streaming: bool, request: LLMRequest | None = None
    ) -> ProviderError:
        """The error that an answer is taken for."""
        async with self._serving(answer) as (provider, _):
            came = await outcome(provider, request or self.request(), streaming=streaming)
        return came.failed()


@dataclass(slots=True)
class Outcome:
    """How one call ended, and what was handed out on the way."""

    text: str = ""
    shown: bool = False
    """Whether its reader got to see anything."""
    response: LLMResponse | None = None
    error: Exception | None = None

    def failed(self) -> ProviderError:
        """The error, which must be one of a provider; a success is the test's failure."""
        assert self.error is not None, f"no error, but a success: {self.response!r}"
        assert isinstance(self.error, AetherError), f"not of Aether's tree: {self.error!r}"
        assert isinstance(self.error, ProviderError), f"no ProviderError: {self.error!r}"
        return self.error

    def succeeded(self) -> LLMResponse:
        """The response."""
        if self.error is not None:
            raise self.error
        assert self.response is not None, "the stream has no final chunk with a response"
        return self.response


async def outcome(provider: LLMProvider, request: LLMRequest, *, streaming: bool) -> Outcome:
    """Ask, and let nothing through but cancellation. One that waits for ever is told so."""
    came = Outcome()
    try:
        async with asyncio.timeout(HANGING_SECONDS):
            if not streaming:
                came.response = await provider.complete(request)
                return came
            async with open_stream(provider, request) as chunks:
                async for chunk in chunks:
                    came.text += chunk.text
                    came.shown = came.shown or chunk.has_content
                    came.response = chunk.response
    except Exception as error:  # noqa: BLE001 - which one it is, is what the tests judge
        came.response, came.error = None, error
    return came


def agrees(
    response: LLMResponse, reply: Reply, wire: Wire, *, counts_may_be_unknown: bool = False
) -> None:
    """Assert that the response says what the reply said: no more, and no less."""
    assert response.text == reply.text, f"text {response.text!r}, where {reply.text!r} was sent"
    sent = reply.reasoning if wire.can("reasoning") else ""
    assert (response.reasoning or "") == sent, f"reasoning {response.reasoning!r}, not {sent!r}"
    _calls_agree(response, reply, wire)
    expected = reply.reason
    if reply.calls and expected == "stop":
        expected = "tool_calls"
    assert response.finish_reason == expected, f"{response.finish_reason}, not {expected}"
    assert response.model == reply.model, f"model {response.model!r}, not {reply.model!r}"
    for name in COUNTS:
        count, told = getattr(response, name), _told(name, reply, wire)
        if counts_may_be_unknown and count is None:
            continue
        assert count == told, f"{name} is {count}, where {told} was reported"


def _calls_agree(response: LLMResponse, reply: Reply, wire: Wire) -> None:
    calls = response.tool_calls
    assert [call.name for call in calls] == [call.name for call in reply.calls]
    for call, sent in zip(calls, reply.calls, strict=True):
        assert call.invalid_arguments is None, f"the arguments did not come whole: {call!r}"
        assert call.arguments == sent.arguments, f"{call.arguments}, not {sent.arguments}"
        if wire.can("call_ids"):
            assert call.id == sent.id, f"id {call.id!r}, not {sent.id!r}"
    ids = [call.id for call in calls]
    assert all(ids), "a call has no id"
    assert len(set(ids)) == len(ids), f"two calls with the same id: {ids}"
    assert response.message.tool_calls == response.tool_calls


def _told(name: str, reply: Reply, wire: Wire) -> int | None:
    if reply.usage is None or name in wire.cannot:
        return None
    count: int | None = getattr(reply.usage, name)
    return count
