"""The layer that the guide writes keeps what it promises, and passes the suite that it names."""

from __future__ import annotations

from typing import Any

import pytest

from aether import Aether
from aether.llm.content import ImagePart, ReasoningPart, TextPart
from aether.llm.contracts import LLMProvider, Message
from aether.testing import FakeProvider
from aether.testing.providers import ProviderConformance
from tests.docs.test_guides import GUIDES, blocks


def redacting() -> Any:
    [guide] = [guide for guide in GUIDES if guide.stem == "layers"]
    [block] = [block for block in blocks(guide) if "class Redacting" in block]
    names: dict[str, Any] = {"__name__": "guide"}
    exec(block, names)
    return names["Redacting"]


class TestRedacting(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        made: LLMProvider = redacting()(FakeProvider("hello"))
        return made


@pytest.mark.parametrize("way", ["complete", "stream"])
async def test_it_changes_text_and_leaves_all_else_of_a_message_as_it_is(way: str) -> None:
    provider = FakeProvider("hello")
    image = ImagePart(url="https://example.com/a.png")
    thought = ReasoningPart(text="hm", provider_state={"anthropic": {"signature": "s"}})
    messages = [
        Message("user", ["See C-123456.", image]),
        Message("assistant", [thought, "C-123456 it is."]),
        Message("user", "And C-654321?"),
    ]
    async with Aether(provider, layers=[redacting()]) as client:
        if way == "complete":
            await client.complete(messages)
        else:
            async with client.stream(messages) as chunks:
                _ = [chunk async for chunk in chunks]
    sent = provider.requests[0].messages
    assert sent[0].content == [TextPart(text="See C-******."), image]
    assert sent[1].content == [thought, TextPart(text="C-****** it is.")]
    assert sent[2].content == "And C-******?"
    assert "123456" in messages[0].text
