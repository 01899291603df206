"""The conformance suite of providers: what every `LLMProvider` must do, as tests.

It must not know how a provider reaches its model. Run your own through it:

    from aether.testing.providers import ProviderConformance

    class TestMyProvider(ProviderConformance):
        def make_provider(self):
            return MyProvider(base_url=...)     # one that answers any prompt with some text

pytest collects the inherited tests; they need pytest-asyncio in its auto mode, or its like.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from aether.llm.contracts import (
    CallContext,
    FinishReason,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
)
from aether.llm.streaming import open_stream
from aether.tools.contracts import Tool

__all__ = ["ProviderConformance"]

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class ProviderConformance:
    """Inherit from it, and say how to make the provider."""

    def make_provider(self) -> LLMProvider | Awaitable[LLMProvider]:
        """A new provider that answers any prompt with text that is not empty."""
        raise NotImplementedError("say how to make the provider")

    def make_tool_calling_provider(self) -> LLMProvider | Awaitable[LLMProvider] | None:
        """A new provider that answers a request which offers `add` with a call of it.

        `None`: the provider cannot call tools.
        """
        return None

    def request(self, **fields: Any) -> LLMRequest:
        """The request that the tests send; override it for a provider that needs more.

        It names no model: the provider's default is meant.
        """
        messages = [
            Message(role="system", content="Answer in one sentence."),
            Message(role="user", content="Say hello."),
        ]
        return LLMRequest(messages=messages, max_tokens=32, **fields)

    async def test_complete_answers_with_a_whole_response(self) -> None:
        async with self._provider() as provider:
            response = await provider.complete(self.request())
        _check(response)
        assert response.text, "the answer has no text"

    async def test_the_stream_ends_with_its_one_final_chunk(self) -> None:
        async with self._provider() as provider:
            chunks = await _read(provider, self.request())
        assert chunks, "the stream was empty"
        assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]

    async def test_only_the_final_chunk_has_counts_calls_and_the_response(self) -> None:
        async with self._provider() as provider:
            chunks = await _read(provider, self.request())
        for chunk in chunks[:-1]:
            assert all(getattr(chunk, name) is None for name in _COUNTS)
            assert chunk.tool_calls is None
            assert chunk.response is None
        response = chunks[-1].response
        assert response is not None, "the final chunk has no response"
        _check(response)
        assert all(getattr(chunks[-1], name) == getattr(response, name) for name in _COUNTS)

    async def test_the_deltas_join_to_the_text(self) -> None:
        async with self._provider() as provider:
            chunks = await _read(provider, self.request())
        response = chunks[-1].response
        assert response is not None
        assert "".join(chunk.text for chunk in chunks) == response.text

    async def test_the_request_is_left_as_it_was(self) -> None:
        request = self.request()
        before = request.model_dump()
        async with self._provider() as provider:
            await provider.complete(request)
            await _read(provider, request)
        assert request.model_dump() == before

    async def test_several_calls_at_once_do_not_mix(self) -> None:
        async with self._provider() as provider:
            calls = asyncio.gather(*(provider.complete(self.request()) for _ in range(3)))
            chunks, responses = await asyncio.gather(_read(provider, self.request()), calls)
        for response in responses:
            _check(response)
        assert chunks[-1].is_final

    async def test_it_works_on_after_a_stream_was_left_early(self) -> None:
        async with self._provider() as provider:
            async with open_stream(provider, self.request()) as chunks:
                async for _ in chunks:
                    break
            _check(await provider.complete(self.request()))

    async def test_a_cancelled_call_ends_and_the_provider_works_on(self) -> None:
        async with self._provider() as provider:
            task = asyncio.ensure_future(provider.complete(self.request()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.done(), "the cancelled call does not end"
            _check(await provider.complete(self.request()))

    async def test_every_attempt_is_in_the_ledger_if_any_is(self) -> None:
        context = CallContext()
        async with self._provider() as provider:
            await provider.complete(self.request(context=context))
            entries = list(context.entries)
            streamed = CallContext()
            await _read(provider, self.request(context=streamed))
        assert len(streamed.entries) == len(entries), "streams and calls are entered alike"
        assert all(entry.state in ("exact", "estimated") for entry in entries + streamed.entries)

    async def test_a_tool_call_comes_whole(self) -> None:
        request = self.request(tools=[_ADD], tool_choice="add")
        async with self._provider(self._tool_calling()) as provider:
            _check_call(await provider.complete(request))

    async def test_a_streamed_tool_call_comes_whole(self) -> None:
        request = self.request(tools=[_ADD], tool_choice="add")
        async with self._provider(self._tool_calling()) as provider:
            chunks = await _read(provider, request)
        response = chunks[-1].response
        assert response is not None
        _check_call(response)
        assert chunks[-1].tool_calls == response.tool_calls

    async def test_closing_twice_is_fine(self) -> None:
        async with self._provider() as provider:
            await provider.complete(self.request())
            await _close(provider)

    async def test_the_default_model_is_a_name_or_none(self) -> None:
        async with self._provider() as provider:
            model = getattr(provider, "default_model", None)
        assert model is None or (isinstance(model, str) and model), f"default_model is {model!r}"

    def _tool_calling(self) -> LLMProvider | Awaitable[LLMProvider]:
        made = self.make_tool_calling_provider()
        if made is None:
            pytest.skip("make_tool_calling_provider() made none: this provider cannot call tools")
        return made

    @asynccontextmanager
    async def _provider(
        self, made: LLMProvider | Awaitable[LLMProvider] | None = None
    ) -> AsyncIterator[LLMProvider]:
        made = self.make_provider() if made is None else made
        provider = await made if inspect.isawaitable(made) else made
        assert isinstance(provider, LLMProvider), f"{type(provider).__name__} has no complete()"
        try:
            yield provider
        finally:
            await _close(provider)


async def _add(a: int, b: int) -> int:
    return a + b


_ADD = Tool(
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


async def _read(provider: LLMProvider, request: LLMRequest) -> list[StreamChunk]:
    async with open_stream(provider, request) as chunks:
        return [chunk async for chunk in chunks]


async def _close(provider: LLMProvider) -> None:
    close = getattr(provider, "aclose", None)
    if close is not None:
        await close()


def _check(response: object) -> None:
    assert isinstance(response, LLMResponse), f"{type(response).__name__} is no LLMResponse"
    assert response.model, "the response does not say which model answered"
    assert response.finish_reason in get_args(FinishReason)
    for name in _COUNTS:
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
