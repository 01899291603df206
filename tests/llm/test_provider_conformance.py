"""Every built-in provider, and every decorator, keeps what the port promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import pytest

from aether.extensions.llm._vendors import VENDORS
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.local import LocalProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.extensions.llm.registry import KIND
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.registry import Registry
from aether.testing.providers import ProviderConformance
from tests.llm.conftest import Answer, ScriptedTransport

CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


class SpeakingTransport(ScriptedTransport):
    """Answers every request as OpenAI would: with a greeting, or with a call of an offered tool."""

    def _next(
        self, url: str, headers: Mapping[str, str], body: bytes | None, timeout: Timeout
    ) -> Answer:
        asked = json.loads(body or b"{}")
        message: dict[str, Any] = {"role": "assistant", "content": "Hello there."}
        finish = "stop"
        if asked.get("tools"):
            message, finish = {"role": "assistant", "tool_calls": [CALL]}, "tool_calls"
        if asked.get("stream"):
            words = (message.get("content") or "").split()
            deltas = [{**message, "content": ""}, *({"content": word} for word in words)]
            events: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
            events += [
                {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
                {"model": "gpt-x", "choices": [], "usage": USAGE},
            ]
            lines = [*map(json.dumps, events), "[DONE]"]
            return Answer([f"data: {line}\n\n".encode() for line in lines])
        choice = {"index": 0, "message": message, "finish_reason": finish}
        answer = {"model": "gpt-x", "choices": [choice], "usage": USAGE}
        return Answer([json.dumps(answer).encode()])


class TestOpenAI(ProviderConformance):
    names = ("openai",)

    def make_provider(self) -> LLMProvider:
        return OpenAIProvider("sk-test-key", transport=SpeakingTransport())

    def make_tool_calling_provider(self) -> LLMProvider:
        return self.make_provider()


class TestFake(ProviderConformance):
    names = ("fake",)

    def make_provider(self) -> LLMProvider:
        return FakeProvider("Hello there.")

    def make_tool_calling_provider(self) -> LLMProvider:
        call = ToolCall("1", "add", {"a": 1, "b": 2})
        return FakeProvider(
            responses=[
                LLMResponse(text="", model="fake", tool_calls=[call], finish_reason="tool_calls")
            ]
        )


class TestDefaultStack(ProviderConformance):
    names = ()

    def make_provider(self) -> LLMProvider:
        adapter = OpenAIProvider("sk-test-key", transport=SpeakingTransport())
        return CostTrackingProvider(CircuitBreakerProvider(RetryingProvider(adapter)))

    def make_tool_calling_provider(self) -> LLMProvider:
        return self.make_provider()


@pytest.mark.parametrize("vendor", sorted(VENDORS))
class TestVendors:
    """The one adapter under each of its names: what differs is a row of data."""

    async def test_a_vendor_conforms(self, vendor: str) -> None:
        class Case(ProviderConformance):
            def make_provider(self) -> LLMProvider:
                return OpenAICompatibleProvider(
                    "sk-test-key",
                    "some-model",
                    vendor=vendor,
                    base_url="http://127.0.0.1:9/v1",
                    transport=SpeakingTransport(),
                )

            def make_tool_calling_provider(self) -> LLMProvider:
                return self.make_provider()

        case = Case()
        tests = [name for name in dir(case) if name.startswith("test_")]
        assert len(tests) > 10
        for name in tests:
            outcome = getattr(case, name)()
            if asyncio.iscoroutine(outcome):
                await outcome


class _KeptOpen:
    """The one engine of the tests below, which none of them may close."""

    default_model = "local"
    engine: LocalProvider

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await self.engine.complete(request)

    def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
        return self.engine.stream(request)


@pytest.fixture(scope="class")
def _engine() -> Iterator[None]:
    _KeptOpen.engine = LocalProvider()
    yield
    asyncio.run(_KeptOpen.engine.aclose())


@pytest.mark.usefixtures("_engine")
class TestLocal(ProviderConformance):
    names = ("local",)

    def make_provider(self) -> LLMProvider:
        return _KeptOpen()

    def make_tool_calling_provider(self) -> LLMProvider:
        return self.make_provider()

    def request(self, **fields: Any) -> LLMRequest:
        length = 64 if "tools" in fields else 8
        return super().request(**fields).replace(max_tokens=length, seed=1)


def test_every_built_in_provider_is_enrolled() -> None:
    enrolled = {*VENDORS, *TestOpenAI.names, *TestFake.names, *TestLocal.names}
    assert set(Registry().names(KIND)) <= enrolled
