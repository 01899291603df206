"""Every built-in provider, and every decorator, keeps what the port promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from aether.extensions.llm._vendors import VENDORS, is_among
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.gemini import GeminiProvider
from aether.extensions.llm.local import LocalProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.extensions.llm.registry import KIND
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk, ToolCall
from aether.registry import Registry
from aether.testing._provider_tests.content import ContentTests
from aether.testing._provider_tests.options import OptionTests, Setting
from aether.testing._provider_tests.reading import ReadingTests
from aether.testing._provider_tests.requests import RequestTests
from aether.testing._provider_tests.streams import StreamTests
from aether.testing._provider_tests.structured import StructuredTests
from aether.testing.providers import AdapterConformance, ProviderConformance
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
)


class TestOpenAIChat(AdapterConformance):
    names = ("openai",)
    wire = OpenAIChatWire()
    lacks = frozenset({"parallel_tool_calls"})  # sent to OpenAI's own address alone

    def make_provider(self, base_url: str) -> LLMProvider:
        return OpenAIProvider(self.api_key, base_url=base_url, api="chat")


class TestOpenAIResponses(AdapterConformance):
    wire = OpenAIResponsesWire()
    lacks = frozenset({"seed"})

    def make_provider(self, base_url: str) -> LLMProvider:
        return OpenAIProvider(self.api_key, base_url=base_url, api="responses")


class TestAnthropic(AdapterConformance):
    names = ("anthropic",)
    wire = AnthropicWire()
    lacks = frozenset({"seed"})

    def make_provider(self, base_url: str) -> LLMProvider:
        return AnthropicProvider(self.api_key, base_url=base_url)


class TestGemini(AdapterConformance):
    names = ("gemini",)
    wire = GeminiWire()
    lacks = frozenset({"parallel_tool_calls"})

    def make_provider(self, base_url: str) -> LLMProvider:
        return GeminiProvider(self.api_key, base_url=base_url)


class TestGeminiWithCallIds(ReadingTests, RequestTests):
    wire = GeminiWire(call_ids=True)

    def make_provider(self, base_url: str) -> LLMProvider:
        return GeminiProvider(self.api_key, base_url=base_url)


class TestVendors(ReadingTests, RequestTests, ContentTests, OptionTests, StructuredTests):
    """The one adapter under each of its names: what differs is a row of data, and shows itself in
    what is sent and how it is read.
    """

    wire = OpenAIChatWire(reasoning_field="reasoning_content", usage="always")

    @pytest.fixture(autouse=True, params=sorted(VENDORS))
    def _vendor(self, request: pytest.FixtureRequest) -> None:
        self.vendor: str = request.param
        row = VENDORS[self.vendor]
        known: dict[Setting, bool] = {
            "seed": row.seed_field is not None,
            "reasoning": any(is_among("some-model", each.models) for each in row.reasoning),
            "parallel_tool_calls": row.parallel_option,
        }
        self.lacks = frozenset(setting for setting, has in known.items() if not has)

    def make_provider(self, base_url: str) -> LLMProvider:
        return OpenAICompatibleProvider(
            self.api_key, "some-model", vendor=self.vendor, base_url=base_url
        )


class TestVendorWithoutEndMark(StreamTests):
    wire = OpenAIChatWire(reasoning_field="reasoning", usage="always", end_mark=False)
    cuts = 60

    def make_provider(self, base_url: str) -> LLMProvider:
        return OpenAICompatibleProvider(
            self.api_key, "some-model", vendor="perplexity", base_url=base_url
        )


class TestDefaultStack(AdapterConformance):
    """The decorators take nothing away. They try once, so that each answer counts."""

    wire = OpenAIChatWire()
    cuts = 60
    lacks = frozenset({"parallel_tool_calls"})

    def make_provider(self, base_url: str) -> LLMProvider:
        adapter = OpenAIProvider(self.api_key, base_url=base_url, api="chat")
        retrying = RetryingProvider(adapter, max_attempts=1)
        return CostTrackingProvider(CircuitBreakerProvider(retrying, failure_threshold=100_000))


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
    suites = (TestOpenAIChat, TestAnthropic, TestGemini, TestFake, TestLocal)
    enrolled = {*VENDORS, *(name for suite in suites for name in suite.names)}
    assert set(Registry().names(KIND)) <= enrolled
