"""What any provider's answers must be, as tests: the part of the suites that needs no wire.

It must not know how a provider reaches its model.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, get_args

from aether.llm.contracts import (
    CachePoint,
    CallContext,
    FinishReason,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    TextPart,
    ToolCall,
)
from aether.llm.streaming import open_stream
from aether.testing._asynchronous import AsynchronousTests
from aether.tools.contracts import Tool

__all__ = ["ADD", "COUNTS", "SCHEMA", "AnsweringTests", "close", "read"]

COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class AnsweringTests(AsynchronousTests):
    """Tests of a provider that answers any prompt with text, and of one that calls `add`."""

    def request(self, **fields: Any) -> LLMRequest:
        """The request that the tests send; override it for a provider that needs more.

        It names no model: the provider's default is meant.
        """
        messages = [
            Message(role="system", content="Answer in one sentence."),
            Message(role="user", content="Say hello."),
        ]
        return LLMRequest(**{"messages": messages, "max_tokens": 32, **fields})

    def _answering(self) -> AbstractAsyncContextManager[LLMProvider]:
        """A provider that answers any prompt with text, closed at the end."""
        raise NotImplementedError

    def _calling(self) -> AbstractAsyncContextManager[LLMProvider]:
        """A provider that answers with a call of `add`, closed at the end; or the test is over."""
        raise NotImplementedError

    async def test_complete_answers_with_a_whole_response(self) -> None:
        async with self._answering() as provider:
            response = await provider.complete(self.request())
        _check(response)
        assert response.text, "the answer has no text"

    async def test_the_stream_ends_with_its_one_final_chunk(self) -> None:
        async with self._answering() as provider:
            chunks = await read(provider, self.request())
        assert chunks, "the stream was empty"
        assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]

    async def test_only_the_final_chunk_has_counts_calls_and_the_response(self) -> None:
        async with self._answering() as provider:
            chunks = await read(provider, self.request())
        for chunk in chunks[:-1]:
            assert all(getattr(chunk, name) is None for name in COUNTS)
            assert chunk.tool_calls is None
            assert chunk.response is None
        response = chunks[-1].response
        assert response is not None, "the final chunk has no response"
        _check(response)
        assert all(getattr(chunks[-1], name) == getattr(response, name) for name in COUNTS)

    async def test_the_deltas_join_to_the_text(self) -> None:
        async with self._answering() as provider:
            chunks = await read(provider, self.request())
        response = chunks[-1].response
        assert response is not None
        assert "".join(chunk.text for chunk in chunks) == response.text

    async def test_the_request_is_left_as_it_was(self) -> None:
        request = self.request()
        before = request.model_dump()
        async with self._answering() as provider:
            await provider.complete(request)
            await read(provider, request)
        assert request.model_dump() == before

    async def test_several_calls_at_once_do_not_mix(self) -> None:
        async with self._answering() as provider:
            calls = asyncio.gather(*(provider.complete(self.request()) for _ in range(3)))
            chunks, responses = await asyncio.gather(read(provider, self.request()), calls)
        for response in responses:
            _check(response)
        assert chunks[-1].is_final

    async def test_it_works_on_after_a_stream_was_left_early(self) -> None:
        async with self._answering() as provider:
            async with open_stream(provider, self.request()) as chunks:
                async for _ in chunks:
                    break
            _check(await provider.complete(self.request()))

    async def test_a_cancelled_call_ends_and_the_provider_works_on(self) -> None:
        async with self._answering() as provider:
            task = asyncio.ensure_future(provider.complete(self.request()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done(), "the cancelled call does not end"
            _check(await provider.complete(self.request()))

    async def test_every_attempt_is_in_the_ledger_if_any_is(self) -> None:
        context = CallContext()
        async with self._answering() as provider:
            await provider.complete(self.request(context=context))
            entries = list(context.entries)
            streamed = CallContext()
            await read(provider, self.request(context=streamed))
        assert len(streamed.entries) == len(entries), "streams and calls are entered alike"
        assert all(entry.state in ("exact", "estimated") for entry in entries + streamed.entries)

    async def test_cache_points_are_no_error(self) -> None:
        text, point = TextPart(text="Say hello."), CachePoint()
        call = ToolCall("call000Aa", "add", {"a": 1, "b": 2})
        messages = [
            Message(role="system", content=[text, point]),
            Message(role="user", content=[text, point]),
            Message(role="assistant", content=[text, point], tool_calls=[call]),
            Message(role="tool", content=[text, point], tool_call_id=call.id),
            Message(role="user", content=[point, text, CachePoint(ttl="1h")]),
        ]
        async with self._answering() as provider:
            response = await provider.complete(self.request(messages=messages))
            chunks = await read(provider, self.request(messages=messages))
        _check(response)
        assert response.text, "the answer has no text"
        assert chunks[-1].is_final

    async def test_an_answer_to_a_schema_is_text(self) -> None:
        request = self.request(output_schema=SCHEMA)
        async with self._answering() as provider:
            response = await provider.complete(request)
            chunks = await read(provider, request)
        streamed = chunks[-1].response
        assert streamed is not None
        for each in (response, streamed):
            _check(each)
            assert each.text, "the answer has no text"
            assert not each.tool_calls, f"the answer came as {each.tool_calls}"
        assert "".join(chunk.text for chunk in chunks) == streamed.text

    async def test_a_tool_call_comes_whole(self) -> None:
        request = self.request(tools=[ADD], tool_choice="add")
        async with self._calling() as provider:
            _check_call(await provider.complete(request))

    async def test_a_streamed_tool_call_comes_whole(self) -> None:
        request = self.request(tools=[ADD], tool_choice="add")
        async with self._calling() as provider:
            chunks = await read(provider, request)
        response = chunks[-1].response
        assert response is not None
        _check_call(response)
        assert chunks[-1].tool_calls == response.tool_calls

    async def test_closing_twice_is_fine(self) -> None:
        async with self._answering() as provider:
            await provider.complete(self.request())
            await close(provider)

    async def test_the_default_model_is_a_name_or_none(self) -> None:
        async with self._answering() as provider:
            model = getattr(provider, "default_model", None)
        assert model is None or (isinstance(model, str) and model), f"default_model is {model!r}"


async def _add(a: int, b: int) -> int:
    return a + b


ADD = Tool(
    name="add",
    description="Adds two numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    handler=_add,
)
"""The tool that the tests offer."""

SCHEMA = {
    "type": "object",
    "properties": {"marked_property": {"type": "string", "description": "Marked words."}},
    "required": ["marked_property"],
    "additionalProperties": False,
}
"""The schema that the tests ask answers to follow."""


async def read(provider: LLMProvider, request: LLMRequest) -> list[StreamChunk]:
    """All chunks of a stream."""
    async with open_stream(provider, request) as chunks:
        return [chunk async for chunk in chunks]


async def close(provider: LLMProvider) -> None:
    """Close a provider that can be closed."""
    closing = getattr(provider, "aclose", None)
    if closing is not None:
        await closing()


def _check(response: object) -> None:
    assert isinstance(response, LLMResponse), f"{type(response).__name__} is no LLMResponse"
    assert response.model, "the response does not say which model answered"
    assert response.finish_reason in get_args(FinishReason)
    for name in COUNTS:
        count = getattr(response, name)
        assert count is None or count >= 0, f"{name} is {count}"
    assert response.message.role == "assistant"


def _check_call(response: LLMResponse) -> None:
    _check(response)
    assert [call.name for call in response.tool_calls] == ["add"]
    call = response.tool_calls[0]
    assert call.id, "a call has an id"
    assert call.invalid_arguments is None, call.invalid_arguments
    assert isinstance(call.arguments, dict)
    assert response.message.tool_calls == response.tool_calls
