"""llama.cpp's server speaks three of the protocols, with a real model behind them.

What a model of this size says is no matter: it is held to shapes, counts, schemas, and to saying
the same twice. The server differs from the vendors, whose protocols it speaks, in what the
comments here name.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aether import Aether, Message, Tool
from aether.errors import BadRequestError, ContextLengthError
from aether.llm.contracts import LLMRequest, LLMResponse, StreamChunk, ToolCall
from tests.peers.clients import client, fetch
from tests.peers.processes import Process

pytestmark = pytest.mark.parametrize("protocol", ["llamacpp", "responses", "anthropic"])

# Without its cache the server works on a prompt in the same pieces each time, and so a
# temperature of 0 makes it say the same each time.
SAME: dict[str, Any] = {"temperature": 0.0, "extra_body": {"cache_prompt": False}}
# Half a minute of work.
ENDLESS: dict[str, Any] = {"max_tokens": 1900, "extra_body": {"ignore_eos": True}}

ADD = Tool(
    "add",
    "Add two integers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    lambda a, b: a + b,
)
SUM = Message("user", "add 17 and 25")


def connect(protocol: str, server: Process) -> Aether:
    base_url = server.url if protocol == "anthropic" else f"{server.url}/v1"
    return client(protocol, base_url, model="smollm2")


async def read(stream: Any) -> tuple[str, StreamChunk]:
    """The text of all deltas, and the final chunk."""
    chunks = [chunk async for chunk in stream]
    assert [chunk for chunk in chunks if chunk.is_final] == chunks[-1:]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


async def test_an_answer_has_text_model_usage_and_reason(protocol: str, llama_cpp: Process) -> None:
    async with connect(protocol, llama_cpp) as aether:
        response = await aether.complete("Say hello.", **{**ENDLESS, "max_tokens": 3})
    assert response.text
    assert response.model == "smollm2"
    assert response.input_tokens is not None
    assert response.input_tokens > 8
    assert response.output_tokens == 3
    # Over the Responses API this server says `completed` of an answer that it cut off.
    assert response.finish_reason == ("stop" if protocol == "responses" else "length")
    assert aether.usage.total_output_tokens == 3


async def test_a_stream_says_what_a_call_says(protocol: str, llama_cpp: Process) -> None:
    async with connect(protocol, llama_cpp) as aether:
        whole = await aether.complete("What is the capital of France?", max_tokens=12, **SAME)
        text, last = await read(
            aether.stream("What is the capital of France?", max_tokens=12, **SAME)
        )
    assert last.response is not None
    assert text == last.response.text == whole.text
    assert last.finish_reason == whole.finish_reason
    assert (last.input_tokens, last.output_tokens) == (whole.input_tokens, whole.output_tokens)


async def test_input_tokens_include_the_cached_ones(protocol: str, llama_cpp: Process) -> None:
    prompt = f"Over {protocol}, tell me of the rivers of France, their length and their cities."
    async with connect(protocol, llama_cpp) as aether:
        first = await aether.complete(prompt, max_tokens=1)
        second = await aether.complete(prompt, max_tokens=1)
        _, third = await read(aether.stream(prompt, max_tokens=1))
    assert first.input_tokens == second.input_tokens == third.input_tokens
    for response in (second, third):
        assert response.cache_read_tokens is not None
        assert response.input_tokens is not None
        assert 20 < response.cache_read_tokens <= response.input_tokens


async def test_a_refused_body_is_a_bad_request(protocol: str, llama_cpp: Process) -> None:
    async with connect(protocol, llama_cpp) as aether:
        with pytest.raises(BadRequestError, match="must be number") as caught:
            await aether.complete("hi", extra_body={"temperature": "hot"})
        with pytest.raises(BadRequestError, match="must be number"):
            await read(aether.stream("hi", extra_body={"temperature": "hot"}))
    assert caught.value.status == 400
    assert caught.value.attempts == 1


async def test_a_prompt_that_is_too_long_is_told_apart(protocol: str, llama_cpp: Process) -> None:
    async with connect(protocol, llama_cpp) as aether:
        with pytest.raises(ContextLengthError, match="2048"):
            await aether.complete("hi " * 3000)


async def test_a_stream_that_is_left_stops_the_server(protocol: str, llama_cpp: Process) -> None:
    async with connect(protocol, llama_cpp) as aether:
        async with aether.stream("Count to a thousand.", **ENDLESS) as stream:
            async for chunk in stream:
                if chunk.text:
                    break
        await until_idle(llama_cpp)
        assert await aether.ask("Say hello.", max_tokens=4)


async def test_a_cancelled_call_leaves_a_working_server(protocol: str, llama_cpp: Process) -> None:
    # Unlike in a stream, the server does not always see that such a client has gone.
    async with connect(protocol, llama_cpp) as aether:
        task = asyncio.create_task(aether.ask("Count to a thousand.", max_tokens=150))
        await until_it_works(llama_cpp)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await aether.ask("Say hello.", max_tokens=4)
    await until_idle(llama_cpp)


async def test_a_tool_call_and_its_result(protocol: str, llama_cpp_with_tools: Process) -> None:
    # By itself the server answers 500 when a free answer does not have the form of a call, so the
    # call is demanded, and the tool is not offered again with its result.
    demand: dict[str, Any] = {"tools": [ADD], "tool_choice": "required", "max_tokens": 48}
    async with connect(protocol, llama_cpp_with_tools) as aether:
        provider = aether.provider
        response = await provider.complete(
            LLMRequest([SUM], parallel_tool_calls=False, **demand, **SAME)
        )
        for call in response.tool_calls:
            assert call.name == "add"
            if call.invalid_arguments is None:
                assert {type(value) for value in call.arguments.values()} <= {int}
        assert response.tool_calls[0].arguments == {"a": 17, "b": 25}
        if protocol == "anthropic":  # of which the server does not read `disable_parallel_tool_use`
            assert response.finish_reason == "length"
        else:
            assert len(response.tool_calls) == 1
            assert response.finish_reason == "tool_calls"

        results = [Message("tool", "42", tool_call_id=call.id) for call in response.tool_calls]
        answer = await provider.complete(
            LLMRequest([SUM, response.message, *results], max_tokens=8, **SAME)
        )
        assert answer.text
        assert not answer.tool_calls


async def test_streamed_calls_are_the_calls(protocol: str, llama_cpp_with_tools: Process) -> None:
    # Left to itself the model calls again and again until it is cut off. In a stream of the
    # Responses API this server numbers no items, and ends them all at the end; in Anthropic's it
    # opens a block before the one before has ended.
    request = LLMRequest([SUM], tools=[ADD], tool_choice="required", max_tokens=48, **SAME)
    async with connect(protocol, llama_cpp_with_tools) as aether:
        provider: Any = aether.provider
        whole: LLMResponse = await provider.complete(request)
        _, last = await read(provider.stream(request))
    assert last.tool_calls is not None
    called, streamed = whole.tool_calls, last.tool_calls
    if protocol == "anthropic":  # whose answer has {} for the arguments that were cut off
        assert len(called) == len(streamed)
        called, streamed = called[:-1], streamed[:-1]
    assert [shape(call) for call in streamed] == [shape(call) for call in called]
    assert len({call.id for call in last.tool_calls}) == len(last.tool_calls) >= 1


async def until_idle(server: Process) -> None:
    """Until the server works on nothing: it looks once a second whether its clients are there."""
    async with asyncio.timeout(15):
        while any(slot["is_processing"] for slot in await slots(server)):
            pass


async def until_it_works(server: Process) -> None:
    async with asyncio.timeout(15):
        while not any(slot["is_processing"] for slot in await slots(server)):
            pass


async def slots(server: Process) -> Any:
    return await asyncio.to_thread(fetch, f"{server.url}/slots")


def shape(call: ToolCall) -> tuple[str, str, str | None]:
    return call.name, json.dumps(call.arguments), call.invalid_arguments
