"""What llama.cpp's server does over Chat Completions alone, by its name and by its address."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aether import Message
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import LLMRequest
from tests.peers.processes import Process

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WHO = Message("user", "Ada is 36 years old. Who is she?")


@pytest.fixture(params=["by name", "by address"])
async def provider(
    request: pytest.FixtureRequest, llama_cpp: Process
) -> AsyncIterator[RetryingProvider]:
    base_url = f"{llama_cpp.url}/v1"
    adapter: Any
    if request.param == "by name":
        adapter = OpenAICompatibleProvider(vendor="llamacpp", base_url=base_url)
    else:
        adapter = OpenAIProvider(default_model="smollm2", base_url=base_url)
    # After a stream the server closes the connection that it said it would keep: hence the retry.
    provider = RetryingProvider(adapter)
    yield provider
    await provider.aclose()


async def test_an_answer_keeps_to_its_schema(provider: RetryingProvider) -> None:
    # Over the Responses API and Anthropic's this server reads no schema: it ignores `text.format`
    # and `output_config.format` without a word.
    request = LLMRequest([WHO], output_schema=PERSON, max_tokens=96, temperature=0.0, seed=1)
    response = await provider.complete(request)
    streamed = [chunk.text async for chunk in provider.stream(request)]
    for text in (response.text, "".join(streamed)):
        answer = json.loads(text)
        assert set(answer) == {"name", "age"}
        assert type(answer["age"]) is int
    assert response.finish_reason == "stop"


async def test_the_same_seed_says_the_same(provider: RetryingProvider) -> None:
    request = LLMRequest(
        [WHO],
        max_tokens=12,
        temperature=1.5,
        seed=7,
        top_p=0.9,
        extra_body={"cache_prompt": False},
    )
    first = await provider.complete(request)
    again = "".join([chunk.text async for chunk in provider.stream(request)])
    other = await provider.complete(request.replace(seed=8))
    assert first.text == again
    assert first.text != other.text


async def test_a_stop_sequence_ends_the_answer(provider: RetryingProvider) -> None:
    request = LLMRequest([WHO], max_tokens=32, stop=["e"], temperature=0.0)
    response = await provider.complete(request)
    assert "e" not in response.text
    assert response.finish_reason == "stop"
