"""`Aether(layers=[...])`: a user's own layers, outermost, around whatever the client is made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from aether import Aether, ProviderConfig
from aether.extensions.llm import FakeProvider
from aether.llm.contracts import LLMProvider, LLMRequest, LLMResponse, StreamChunk
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper
from aether.testing.providers import ProviderConformance


class Marking(ProviderWrapper):
    """Writes its letter behind the prompt and behind the answer, and into `seen`."""

    def __init__(self, inner: LLMProvider, letter: str, seen: list[str] | None = None) -> None:
        super().__init__(inner)
        self._letter = letter
        self._seen = [] if seen is None else seen

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self._seen.append(self._letter)
        response = await self.inner.complete(request)
        return LLMResponse(text=f"{response.text}{self._letter}", model=response.model)

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        self._seen.append(self._letter)
        async with open_stream(self.inner, request) as chunks:
            async for chunk in chunks:
                yield chunk


class TestMarking(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return ProviderWrapper(FakeProvider("hello"))


def marking(letter: str, seen: list[str] | None = None) -> Any:
    return lambda inner: Marking(inner, letter, seen)


async def test_the_first_sees_a_request_first_and_the_answer_last() -> None:
    seen: list[str] = []
    layers = [marking("a", seen), marking("b", seen)]
    async with Aether(FakeProvider("hello "), layers=layers) as client:
        assert await client.ask("Hi") == "hello ba"
        assert repr(client) == "Aether(Marking > Marking > Budget > CostTracking > Fake)"
    assert seen == ["a", "b"]


async def test_they_stand_around_a_stream_too_and_it_is_closed_through_them() -> None:
    seen: list[str] = []
    client = Aether(FakeProvider("one two three"), layers=[marking("a", seen)])
    async with client, client.stream_text("Hi") as texts:
        async for _ in texts:
            break
    assert seen == ["a"]
    assert client.usage.ledger[0].state == "estimated"


async def test_they_stand_around_every_provider_of_the_client() -> None:
    config = ProviderConfig(provider="openai", api_key="sk-none")
    async with Aether(config=config, layers=[marking("a")]) as client:
        assert (await client.ask("Hi", model="fake:any")).endswith("a")


async def test_their_aclose_is_the_clients() -> None:
    closed: list[str] = []

    class Closing(ProviderWrapper):
        async def aclose(self) -> None:
            closed.append("layer")
            await super().aclose()

    class Provider(FakeProvider):
        async def aclose(self) -> None:
            closed.append("provider")

    await Aether(Provider("hello"), layers=[Closing]).aclose()
    assert closed == ["layer", "provider"]


@pytest.mark.parametrize("layers", ["Marking", Marking, [Marking(FakeProvider("x"), "a")], [None]])
def test_what_is_no_list_of_layers_is_refused(layers: Any) -> None:
    with pytest.raises(TypeError, match="layers is a list"):
        Aether(FakeProvider("hello"), layers=layers)


def test_a_layer_that_makes_no_provider_is_refused() -> None:
    with pytest.raises(TypeError, match="is no provider"):
        Aether(FakeProvider("hello"), layers=[lambda inner: None])  # type: ignore[list-item,return-value]
