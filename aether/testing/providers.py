"""The conformance suites of providers: what every `LLMProvider` must do, as tests.

They must not know how a provider reaches its model. One that sends its requests over HTTP runs
through the larger suite, against a server that writes as the provider's does:

    from aether.testing.providers import AdapterConformance
    from aether.testing.wires import OpenAIChatWire

    class TestMyProvider(AdapterConformance):
        wire = OpenAIChatWire()

        def make_provider(self, base_url):
            return MyProvider(api_key=self.api_key, base_url=base_url)

Any other runs through the part that needs answers alone:

    from aether.testing.providers import ProviderConformance

    class TestMyProvider(ProviderConformance):
        def make_provider(self):
            return MyProvider()     # one that answers any prompt with some text

pytest collects the inherited tests; they need pytest-asyncio, in any mode, or its like.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from aether.llm.contracts import LLMProvider
from aether.testing._provider_tests.answering import AnsweringTests, close
from aether.testing._provider_tests.content import ContentTests
from aether.testing._provider_tests.failures import FailureTests
from aether.testing._provider_tests.lifecycle import LifecycleTests
from aether.testing._provider_tests.options import OptionTests
from aether.testing._provider_tests.reading import ReadingTests
from aether.testing._provider_tests.requests import RequestTests
from aether.testing._provider_tests.streams import StreamTests
from aether.testing._provider_tests.structured import StructuredTests

__all__ = ["AdapterConformance", "ProviderConformance"]


class ProviderConformance(AnsweringTests):
    """For any provider. Inherit from it, and say how to make the provider."""

    def make_provider(self) -> LLMProvider | Awaitable[LLMProvider]:
        """A new provider that answers any prompt with text that is not empty."""
        raise NotImplementedError("say how to make the provider")

    def make_tool_calling_provider(self) -> LLMProvider | Awaitable[LLMProvider] | None:
        """A new provider that answers a request which offers `add` with a call of it.

        `None`: the provider cannot call tools.
        """
        return None

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[LLMProvider]:
        async with self._provider(self.make_provider()) as provider:
            yield provider

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[LLMProvider]:
        made = self.make_tool_calling_provider()
        if made is None:
            pytest.skip("make_tool_calling_provider() made none: this provider cannot call tools")
        async with self._provider(made) as provider:
            yield provider

    @asynccontextmanager
    async def _provider(
        self, made: LLMProvider | Awaitable[LLMProvider]
    ) -> AsyncIterator[LLMProvider]:
        provider = await made if inspect.isawaitable(made) else made
        assert isinstance(provider, LLMProvider), f"{type(provider).__name__} has no complete()"
        try:
            yield provider
        finally:
            await close(provider)


class AdapterConformance(
    StreamTests,
    ReadingTests,
    FailureTests,
    LifecycleTests,
    RequestTests,
    ContentTests,
    OptionTests,
    StructuredTests,
):
    """For a provider that sends its requests over HTTP.

    Inherit from it, set `wire`, and say how to make the provider. What the wire has no way to say
    is skipped. `lacks`, `cuts` and `patience` may be set as well.
    """

    def make_provider(self, base_url: str) -> LLMProvider | Awaitable[LLMProvider]:
        """A new provider that sends its requests to `base_url`, with `self.api_key` as its key.

        It asks a server on 127.0.0.1, which answers every path below `base_url` alike.
        """
        raise NotImplementedError("say how to make the provider")
