"""Which answers are kept, and how they come again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from aether.errors import (
    ClientClosedError,
    ConfigurationError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.caches import InMemoryCache, SQLiteCache
from aether.extensions.llm._canonical import write_answer
from aether.extensions.llm.caching import CachingProvider, identity_of
from aether.extensions.llm.cost_tracking import CostTrackingProvider
from aether.extensions.llm.fallback import FallbackProvider
from aether.extensions.llm.local import LocalProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.llm.contracts import (
    CallContext,
    FilePart,
    FinishReason,
    ImagePart,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    ToolCall,
    ToolCallDelta,
)
from aether.llm.streaming import final_chunk
from aether.testing import FakeProvider
from aether.testing.providers import ProviderConformance
from tests.llm.scripted import MODEL, Scripted, a_request, an_answer, collect, deltas


def sure(prompt: str = "What is 17 + 25?", **fields: Any) -> LLMRequest:
    return a_request(prompt, **{"temperature": 0, **fields})


def asked(cache: bool | str | None, prompt: str = "What is 17 + 25?", **fields: Any) -> LLMRequest:
    return a_request(prompt, context=CallContext(cache=cache), **fields)


def caching(*script: Any, cache: Any = None, **options: Any) -> tuple[CachingProvider, Scripted]:
    provider = Scripted(*(script or (an_answer(),)))
    cache = InMemoryCache() if cache is None else cache
    return CachingProvider(provider, cache, **options), provider


def parts(chunks: list[StreamChunk]) -> list[tuple[str, str | None, ToolCallDelta | None]]:
    return [(chunk.text, chunk.reasoning, chunk.tool_call) for chunk in chunks]


class TestAroundAFake(ProviderConformance):
    def make_provider(self) -> LLMProvider:
        return CachingProvider(FakeProvider("Hello there."), InMemoryCache())

    def make_tool_calling_provider(self) -> LLMProvider:
        call = ToolCall("1", "add", {"a": 1, "b": 2})
        answer = LLMResponse("", "fake", tool_calls=[call], finish_reason="tool_calls")
        return CachingProvider(FakeProvider(responses=[answer]), InMemoryCache())


class TestOfHits(TestAroundAFake):
    """The same of answers that the cache gives."""

    def request(self, **fields: Any) -> LLMRequest:
        return super().request(**fields).replace(temperature=0.0)

    async def test_it_answers_from_the_cache(self) -> None:
        async with self._answering() as provider:
            await provider.complete(self.request())
            assert (await provider.complete(self.request())).cached


# What is looked up, and what is kept.


async def test_an_answer_to_an_equal_request_comes_from_the_cache() -> None:
    provider, inner = caching(an_answer(request_id="r1"))
    first = await provider.complete(sure())
    again = await provider.complete(sure())
    assert inner.calls == 1
    assert (first.cached, first.attempts) == (False, 1)
    assert (again.cached, again.attempts, again.request_id) == (True, 0, "r1")
    assert again.model_copy(update={"cached": False, "attempts": 1}) == first
    assert again.usage.requests == 0
    assert again.usage.input_tokens is None


async def test_another_request_is_another_call() -> None:
    provider, inner = caching()
    for request in (sure(), sure("And 1 + 1?"), sure(max_tokens=7), sure(model="other")):
        assert not (await provider.complete(request)).cached
    assert inner.calls == 4


async def test_the_default_model_is_the_same_as_its_name() -> None:
    inner = Scripted(an_answer(), default_model=MODEL)
    provider = CachingProvider(inner, InMemoryCache())
    await provider.complete(sure(model=None))
    assert (await provider.complete(sure())).cached
    inner.default_model = "another"
    assert not (await provider.complete(sure(model=None))).cached


NOT_SURE = {
    "no temperature": {"temperature": None},
    "a temperature": {"temperature": 0.7},
    "a low temperature": {"temperature": 0.001},
    "a default": {"temperature": 0, "temperature_is_default": True},
    "another body": {"temperature": 0, "extra_body": {"temperature": 1}},
    "an image elsewhere": {
        "temperature": 0,
        "messages": [Message("user", ["What?", ImagePart(url="https://example.com/a.png")])],
    },
    "a file elsewhere": {
        "temperature": 0,
        "messages": [Message("user", FilePart(url="https://example.com/a.pdf"))],
    },
}


@pytest.mark.parametrize("fields", NOT_SURE.values(), ids=NOT_SURE.keys())
async def test_what_may_be_answered_otherwise_is_kept_only_if_that_is_asked_for(
    fields: dict[str, Any],
) -> None:
    provider, inner = caching()
    request = LLMRequest(**{"messages": sure().messages, "model": MODEL, **fields})
    for _ in range(2):
        assert not (await provider.complete(request)).cached
    asking = request.replace(context=CallContext(cache=True))
    assert not (await provider.complete(asking)).cached
    assert (await provider.complete(asking)).cached
    assert inner.calls == 3


async def test_an_image_that_is_in_the_request_is_sure() -> None:
    provider, _ = caching()
    request = sure().replace(
        messages=(Message("user", [ImagePart(data=b"x", media_type="image/png")]),)
    )
    await provider.complete(request)
    assert (await provider.complete(request)).cached


async def test_who_wants_no_cache_neither_gets_nor_leaves_anything() -> None:
    provider, inner = caching()
    fresh = sure(context=CallContext(cache=False))
    for _ in range(2):
        assert not (await provider.complete(fresh)).cached
        assert not (await collect(provider.stream(fresh)))[-1].response.cached  # type: ignore[union-attr]
    assert not (await provider.complete(sure())).cached
    assert inner.calls == 5


async def test_a_request_that_is_no_json_is_answered_without_the_cache() -> None:
    provider, inner = caching()
    request = asked(True, extra_body={"a": object()})
    for _ in range(2):
        assert not (await provider.complete(request)).cached
    assert inner.calls == 2


@pytest.mark.parametrize(
    "answer",
    [
        an_answer(finish_reason="length"),
        an_answer(finish_reason="content_filter"),
        an_answer(finish_reason="error"),
        an_answer(finish_reason="other"),
        an_answer(finish_reason=None),
        an_answer(""),
        an_answer("", finish_reason="tool_calls"),
        an_answer("I call", finish_reason="tool_calls"),
        an_answer("half a pair: \ud83d"),
        an_answer(output=object()),
    ],
    ids=lambda answer: f"{answer.finish_reason} {answer.text!a}",
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_what_is_not_whole_is_not_kept(answer: LLMResponse, streaming: bool) -> None:
    provider, inner = caching(answer)
    for _ in range(2):
        if streaming:
            chunks = await collect(provider.stream(sure()))
            assert chunks[-1].response is answer
        else:
            assert await provider.complete(sure()) is answer
    assert inner.calls == 2
    assert repr(provider.cache) == "InMemoryCache(0 answers, 0 bytes)"


@pytest.mark.parametrize(
    "answer",
    [
        an_answer("", tool_calls=[ToolCall("c1", "add")], finish_reason="tool_calls"),
        an_answer("", tool_calls=[ToolCall("c1", "add")]),
        an_answer(
            "", tool_calls=[ToolCall("c", "a", invalid_arguments="{")], finish_reason="tool_calls"
        ),
        an_answer("", message=Message("assistant", [ImagePart(data=b"x", media_type="image/png")])),
    ],
    ids=["calls", "stop with calls", "an invalid call", "an image"],
)
async def test_calls_and_images_are_kept(answer: LLMResponse) -> None:
    provider, _ = caching(answer)
    await provider.complete(sure())
    again = await provider.complete(sure())
    assert again.cached
    assert (again.tool_calls, again.message) == (answer.tool_calls, answer.message)


async def test_an_error_is_not_kept() -> None:
    provider, inner = caching(
        ServerError("no"), [StreamChunk(text="It"), ServerError("no")], an_answer()
    )
    with pytest.raises(ServerError):
        await provider.complete(sure())
    with pytest.raises(ServerError):
        await collect(provider.stream(sure()))
    assert not (await provider.complete(sure())).cached
    assert inner.calls == 3


@pytest.mark.parametrize("odd", ["text", None])
async def test_what_is_no_response_is_refused_and_asked_for_once(odd: Any) -> None:
    class Odd:
        calls = 0

        async def complete(self, request: LLMRequest) -> Any:
            self.calls += 1
            assert self.calls <= 2, "it asks again and again"
            await asyncio.sleep(0)
            return odd

    inner = Odd()
    provider = CachingProvider(inner, InMemoryCache())
    with pytest.raises(ProtocolError, match=f"{type(odd).__name__} instead of"):
        await provider.complete(sure())
    outcomes = await asyncio.gather(
        *(provider.complete(sure()) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [ProtocolError] * 3
    assert inner.calls == 2


@pytest.mark.parametrize(
    "chunks",
    [
        [StreamChunk(text="It is")],
        [],
        [StreamChunk(text="It is 42.", finish_reason="stop")],
        [StreamChunk(text="Or not"), StreamChunk(restart=True), *deltas("It is 42.")],
    ],
    ids=["cut", "empty", "without a response", "restarted"],
)
async def test_a_stream_without_a_whole_answer_of_its_own_is_not_kept(
    chunks: list[StreamChunk],
) -> None:
    provider, inner = caching(chunks)
    for _ in range(2):
        got = await collect(provider.stream(sure()))
        assert "".join(c.text for c in got) == "".join(c.text for c in chunks)
        assert [c.restart for c in got] == [c.restart for c in chunks] or chunks[-1:] != []
    assert inner.calls == 2


# Streams.


async def test_a_stream_comes_again_in_its_deltas() -> None:
    streamed = [
        StreamChunk(reasoning="17 + "),
        StreamChunk(reasoning="25"),
        StreamChunk(text="It "),
        StreamChunk(),
        StreamChunk(text="is 42."),
        StreamChunk(tool_call=ToolCallDelta(0, "c1", "note", '{"a":')),
        StreamChunk(tool_call=ToolCallDelta(0, arguments="1}")),
    ]
    answer = an_answer(
        "It is 42.", reasoning="17 + 25", tool_calls=[ToolCall("c1", "note", {"a": 1})]
    )
    provider, inner = caching([*streamed, final_chunk(answer)])
    first = await collect(provider.stream(sure()))
    assert parts(first) == parts([*streamed, StreamChunk()])
    assert first[-1].response is answer
    again = await collect(provider.stream(sure()))
    assert parts(again) == parts([c for c in streamed if c.has_content] + [StreamChunk()])
    final = again[-1]
    assert final.response is not None
    assert final.response.cached
    assert final == final_chunk(final.response)
    assert final.response.model_copy(update={"cached": False, "attempts": 1}) == answer
    assert inner.calls == 1


async def test_an_answer_that_came_at_once_is_streamed_in_one_delta_of_each_kind() -> None:
    calls = [ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "add", invalid_arguments="{")]
    answer = an_answer("It is 42.", reasoning="17 + 25", tool_calls=calls)
    provider, _ = caching(answer)
    await provider.complete(sure())
    chunks = await collect(provider.stream(sure()))
    assert parts(chunks) == [
        ("", "17 + 25", None),
        ("It is 42.", None, None),
        ("", None, ToolCallDelta(0, "c1", "add", '{"a": 1}')),
        ("", None, ToolCallDelta(1, "c2", "add", "{")),
        ("", None, None),
    ]
    assert chunks[-1].tool_calls == calls
    assert [chunk.is_final for chunk in chunks] == [False] * 4 + [True]


async def test_an_answer_that_was_streamed_is_found_whole() -> None:
    answer = an_answer("It is 42.")
    provider, inner = caching(deltas("It is ", "42.", answer=answer))
    await collect(provider.stream(sure()))
    again = await provider.complete(sure())
    assert again.cached
    assert again.text == "It is 42."
    assert inner.calls == 1


async def test_text_in_the_final_chunk_is_no_less_a_delta() -> None:
    class Whole:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            return an_answer("It is 42.")

    provider = CachingProvider(Whole(), InMemoryCache())
    for _ in range(2):
        chunks = await collect(provider.stream(sure()))
        assert [chunk.text for chunk in chunks] == ["It is 42.", ""]


async def test_a_stream_without_the_cache_is_the_inner_one_itself() -> None:
    made: list[Any] = []

    class Streaming(Scripted):
        def stream(self, request: LLMRequest, /) -> Any:
            made.append(super().stream(request))
            return made[-1]

    provider = CachingProvider(Streaming(an_answer()), InMemoryCache())
    stream = provider.stream(a_request())
    assert stream is made[0]
    await collect(stream)


async def test_a_stream_that_must_be_awaited_is_a_stream() -> None:
    class Awaited:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            return an_answer()

        async def stream(self, request: LLMRequest) -> AsyncGenerator[StreamChunk, None]:
            async def chunks() -> AsyncGenerator[StreamChunk, None]:
                for chunk in deltas("It is ", "42."):
                    yield chunk

            return chunks()

    provider = CachingProvider(Awaited(), InMemoryCache())
    for request in (a_request(), sure(), sure()):
        assert "".join([c.text async for c in provider.stream(request)]) == "It is 42."


async def test_what_follows_the_final_chunk_is_left_out() -> None:
    provider, _ = caching([*deltas("It is 42."), StreamChunk(text="And more.")])
    for _ in range(2):
        assert [c.text for c in await collect(provider.stream(sure()))] == ["It is 42.", ""]


# An answer is each caller's own.


@pytest.mark.parametrize("reason", ["tool_calls", "length"], ids=["kept", "not kept"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_that_a_caller_changes_stays_what_it_was_for_others(
    streaming: bool, reason: FinishReason
) -> None:
    call = ToolCall("c1", "add", {"a": [1]})
    answer = an_answer("x", tool_calls=[call], finish_reason=reason)
    provider, _ = caching(answer.model_copy(deep=True), lambda: another(answer))

    async def ask_and_spoil() -> None:
        response: LLMResponse | None
        if streaming:
            response = (await collect(provider.stream(sure())))[-1].response
        else:
            response = await provider.complete(sure())
        assert response is not None
        assert response.tool_calls[0].arguments == {"a": [1]}
        assert response.message.tool_calls[0].arguments == {"a": [1]}
        response.tool_calls[0].arguments["a"].append(2)
        response.message.tool_calls[0].arguments.clear()
        response.tool_calls.clear()

    for _ in range(3):
        await asyncio.gather(*(ask_and_spoil() for _ in range(3)))


async def another(answer: LLMResponse) -> LLMResponse:
    return answer.model_copy(deep=True)


async def test_who_counts_outside_is_told_that_it_was_counted_inside() -> None:
    class Counted:
        async def complete(self, request: LLMRequest) -> LLMResponse:
            assert request.context is not None
            request.context.accounted = True
            raise ServerError("nothing was sent")

    outside = CostTrackingProvider(CachingProvider(Counted(), InMemoryCache()))
    with pytest.raises(ServerError):
        await outside.complete(sure())
    assert not outside.usage.ledger


async def test_a_hit_costs_nothing_outside_of_the_cache_either() -> None:
    outside = CostTrackingProvider(caching(an_answer())[0])
    for _ in range(2):
        await outside.complete(sure())
        await collect(outside.stream(sure()))
    assert outside.usage.total_requests == len(outside.usage.ledger) == 1


# Who has answered.


async def test_an_answer_of_another_provider_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    provider, inner = caching(an_answer(provider="anthropic"), provider="openai")
    with caplog.at_level(logging.INFO, "aether.llm"):
        for _ in range(2):
            assert not (await provider.complete(sure())).cached
    assert inner.calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        "an answer was not kept: who was asked were anthropic, openai"
    ]


@pytest.mark.parametrize("named", [None, "openai"])
@pytest.mark.parametrize("told", [None, "openai"])
async def test_an_answer_of_the_provider_itself_is_kept(
    named: str | None, told: str | None
) -> None:
    provider, _ = caching(an_answer(provider=told), provider=named)
    await provider.complete(sure())
    assert (await provider.complete(sure())).cached


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("names", [("one", "two"), (None, None)])
async def test_an_answer_that_was_fallen_back_to_is_not_kept(
    streaming: bool, names: tuple[str | None, str | None]
) -> None:
    failing = Scripted(ServerError("no"), default_model=MODEL)
    helping = Scripted(an_answer(provider=names[1]), default_model="other")
    stack = FallbackProvider(
        CostTrackingProvider(failing, provider=names[0]),
        [CostTrackingProvider(helping, provider=names[1])],
    )
    provider = CachingProvider(stack, InMemoryCache(), provider=names[0])
    for _ in range(2):
        if streaming:
            await collect(provider.stream(sure()))
        else:
            assert not (await provider.complete(sure())).cached
    assert helping.calls == 2
    failing.script = (an_answer("mine"),)
    failing.requests.clear()
    await provider.complete(sure())
    assert (await provider.complete(sure())).text == "mine"


async def test_an_answer_after_retries_is_kept() -> None:
    inner = Scripted(ServerError("no"), an_answer(), default_model=MODEL)
    retrying = RetryingProvider(inner, base_delay=0, provider="openai")
    provider = CachingProvider(retrying, InMemoryCache(), provider="openai")
    first = await provider.complete(sure(model=None))
    again = await provider.complete(sure(model=None))
    assert (first.attempts, again.attempts, again.cached) == (2, 0, True)


def test_an_identity_is_that_of_who_is_asked() -> None:
    def at(url: str, api: Any = "chat") -> OpenAIProvider:
        return OpenAIProvider("k", base_url=url, api=api)

    same: list[LLMProvider] = [at("https://a/v1"), RetryingProvider(at("https://a/v1"))]
    others: list[LLMProvider] = [
        at("https://b/v1"),
        at("https://a/v1", "responses"),
        FakeProvider(),
    ]
    assert len({identity_of(each) for each in same}) == 1
    assert len({identity_of(each) for each in [same[0], *others]}) == 4


def test_local_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    identities = set()
    for folder in ("a", "b"):
        model = tmp_path / folder / "model.gguf"
        model.parent.mkdir()
        model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))
        identities.add(identity_of(LocalProvider(model_path=model)))
    assert len(identities) == 2


async def test_providers_that_share_a_cache_share_no_answers() -> None:
    cache = InMemoryCache()
    for options in ({}, {"provider": "a"}, {"identity": "a"}, {"provider": "a", "identity": "a"}):
        provider, _ = caching(cache=cache, **options)
        assert not (await provider.complete(sure())).cached
        assert (await provider.complete(sure())).cached


# A key of the caller's.


async def test_a_key_finds_an_answer_to_another_prompt() -> None:
    provider, inner = caching(an_answer("1"), an_answer("2"))
    await provider.complete(asked("sum", "What is 17 + 25?"))
    assert (await provider.complete(asked("sum", "And 17 and 25?"))).cached
    assert not (await provider.complete(asked("other", "And 17 and 25?"))).cached
    assert not (await provider.complete(asked(True, "And 17 and 25?"))).cached
    assert inner.calls == 3


async def test_a_key_finds_no_answer_to_other_tools_or_another_schema() -> None:
    provider, _ = caching()
    schema = {"type": "object", "properties": {}}
    await provider.complete(asked("sum"))
    for fields in ({"output_schema": schema}, {"model": "other"}, {"max_tokens": 3}, {"stop": "x"}):
        assert not (await provider.complete(asked("sum", **fields))).cached


# A cache that fails.


class Broken(InMemoryCache):
    def __init__(self, get: Exception | None = None, put: Exception | None = None) -> None:
        super().__init__()
        self.failing_get, self.failing_put = get, put

    async def get(self, key: str) -> str | None:
        if self.failing_get is not None:
            raise self.failing_get
        return await super().get(key)

    async def put(self, key: str, value: str) -> None:
        if self.failing_put is not None:
            raise self.failing_put
        await super().put(key, value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("where", ["get", "put"])
async def test_a_cache_that_fails_does_not_fail_the_call_and_is_told_once(
    where: str, streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    secret = RuntimeError("redis://user:password@host is gone")
    provider, inner = caching(cache=Broken(**{where: secret}))
    for _ in range(3):
        if streaming:
            await collect(provider.stream(sure()))
        else:
            assert (await provider.complete(sure())).text == "It is 42."
    assert inner.calls == 3
    assert len(caplog.records) == 1
    assert "Broken" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "password" not in caplog.text


@pytest.mark.parametrize("error", [ConfigurationError("no cache"), ClientClosedError("closed")])
async def test_a_cache_that_cannot_work_is_an_error(error: Exception) -> None:
    provider, inner = caching(cache=Broken(get=error))
    with pytest.raises(type(error)):
        await provider.complete(sure())
    with pytest.raises(type(error)):
        await collect(provider.stream(sure()))
    outcomes = await asyncio.gather(
        *(provider.complete(sure()) for _ in range(4)), return_exceptions=True
    )
    assert all(isinstance(outcome, type(error)) for outcome in outcomes)
    assert inner.calls == 0


@pytest.mark.parametrize("error", [ConfigurationError("no cache"), ClientClosedError("closed")])
async def test_an_answer_that_is_there_is_not_lost_to_the_cache(error: Exception) -> None:
    provider, _ = caching(cache=Broken(put=error))
    assert (await provider.complete(sure())).text == "It is 42."


@pytest.mark.parametrize(
    "damaged",
    [
        lambda text: text.replace("42", "43"),
        lambda text: text[:-9],
        lambda _: "",
        lambda _: "null",
        lambda _: '{"response": {"text": "It is 43.", "model": "m"}}',
        lambda text: text.encode(),
        lambda _: (write_answer("of another key", an_answer("It is 43."), None) or ("",))[0],
    ],
)
async def test_what_is_not_what_was_kept_is_a_miss(damaged: Any) -> None:
    provider, inner = caching()
    await provider.complete(sure())
    entries = provider.cache._entries  # type: ignore[attr-defined]
    (key,) = entries
    text = await provider.cache.get(key)

    async def get(_: str) -> Any:
        return damaged(text)

    provider.cache.get = get  # type: ignore[method-assign, assignment]
    again = await provider.complete(sure())
    assert not again.cached
    assert again.text == "It is 42."
    assert inner.calls == 2


@pytest.mark.parametrize("wrong", [None, InMemoryCache, {}, "sqlite:///x"])
def test_what_is_no_cache_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="cache is an instance"):
        CachingProvider(FakeProvider(), wrong)


async def test_closing_closes_the_provider_and_not_the_cache(tmp_path: Path) -> None:
    async with SQLiteCache(tmp_path / "a.sqlite") as cache:
        provider, inner = caching(cache=cache)
        await provider.complete(sure())
        await provider.aclose()
        assert inner.closed
        assert (await provider.complete(sure())).cached


async def test_an_answer_outlives_the_process_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    for number in range(2):
        async with SQLiteCache(path) as cache:
            provider, inner = caching(deltas("It is ", "42."), cache=cache)
            chunks = await collect(provider.stream(sure()))
            assert [c.text for c in chunks] == ["It is ", "42.", ""]
            assert inner.calls == 1 - number


def test_the_stack_is_printed() -> None:
    assert repr(CachingProvider(FakeProvider(), InMemoryCache())) == "Caching > Fake"


async def test_a_broken_stream_keeps_its_partial() -> None:
    partial = an_answer("It is")
    provider, _ = caching(
        [StreamChunk(text="It is"), StreamInterruptedError("cut", partial=partial)]
    )
    with pytest.raises(StreamInterruptedError) as caught:
        await collect(provider.stream(sure()))
    assert caught.value.partial is partial
