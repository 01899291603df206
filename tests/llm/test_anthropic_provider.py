"""The Anthropic adapter over a transport: what it sends, how it fails, what it books and hides."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aether import Aether, ProviderConfig
from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ContextLengthError,
    InputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm._exchange import MAX_FOLLOW_UPS
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import (
    CallContext,
    LedgerEntry,
    LLMRequest,
    Message,
    StreamChunk,
    StreamingLLMProvider,
)
from tests.llm.conftest import ScriptedTransport

if TYPE_CHECKING:
    from aether.llm.messages import LLMResponse

KEY = "sk-ant-canary-0123456789"
OK = {
    "type": "message",
    "model": "told-model",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
START = {
    "type": "message_start",
    "message": {"model": "told-model", "usage": {"input_tokens": 9, "output_tokens": 1}},
}
TEXT = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in ("Hel", "lo")
    ),
    {"type": "content_block_stop", "index": 0},
]
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 3},
}
STOP = {"type": "message_stop"}


def sse(*values: dict[str, Any]) -> bytes:
    return "".join(f"event: {v['type']}\ndata: {json.dumps(v)}\n\n" for v in values).encode()


WHOLE = sse(START, {"type": "ping"}, *TEXT, END, STOP)


def provider(transport: Any, **options: Any) -> AnthropicProvider:
    return AnthropicProvider(KEY, transport=transport, **options)


def request(**fields: Any) -> LLMRequest:
    return LLMRequest([Message("user", "How are you?")], **fields)


async def read(stream: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "AUTH_TOKEN", "MODEL", "BASE_URL"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)


# What is sent


async def test_a_call_is_posted_with_its_key(transport: ScriptedTransport) -> None:
    transport.answers_json(OK, request_id="req_1")
    response = await provider(transport).complete(request())
    (call,) = transport.calls
    assert call.url == "https://api.anthropic.com/v1/messages"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["anthropic-version"] == "2026-10-21"
    assert "x-api-key" not in call.headers
    assert KEY not in json.dumps(call.body)
    assert call.body["model"] == "claude-haiku-5-5"
    assert call.timeout == Timeout(connect=5.0, read=600.0)
    assert response.text == "Hello"
    assert response.request_id == "req_1"
    assert response.provider == "anthropic"


async def test_a_stream_comes_in_pieces_with_one_final_chunk(transport: ScriptedTransport) -> None:
    transport.answers(*(WHOLE[i : i + 5] for i in range(0, len(WHOLE), 5)), request_id="req_1")
    chunks = await read(provider(transport).stream(request()))
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk.is_final for chunk in chunks] == [False, False, True]
    response = chunks[-1].response
    assert response is not None
    assert response.text == "Hello"
    assert response.request_id == "req_1"
    assert (chunks[-1].input_tokens, chunks[-1].output_tokens) == (9, 3)
    assert transport.calls[0].body["stream"] is True
    assert transport.open_streams == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
async def test_however_the_bytes_are_split_the_answer_is_the_same(cuts: list[int]) -> None:
    transport = ScriptedTransport()
    places = [0, *sorted(cuts), len(WHOLE)]
    transport.answers(*(WHOLE[a:b] for a, b in pairwise(places)))
    chunks = await read(provider(transport).stream(request()))
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]


async def test_a_document_instead_of_a_stream_is_read(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    (chunk,) = await read(provider(transport).stream(request()))
    assert chunk.text == "Hello"
    assert chunk.is_final


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/messages"),
        ("https://api.deepseek.com/anthropic", "https://api.deepseek.com/anthropic/v1/messages"),
        ("https://h/a/v1/messages", "https://h/a/v1/messages"),
        ("https://h/v12", "https://h/v12/v1/messages"),
        ("https://h/v1?key=x", "https://h/v1/messages?key=x"),
        ("http://[::1]:1", "http://[::1]:1/v1/messages"),
    ],
)
async def test_any_base_url_is_joined(
    transport: ScriptedTransport, base_url: str, url: str
) -> None:
    transport.answers_json(OK)
    await provider(transport, base_url=base_url).complete(request())
    assert transport.calls[0].url == url


@pytest.mark.parametrize("base_url", ["h", "ftp://h", "http://[::1", "https://u:p@h"])
def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        provider(None, base_url=base_url)


async def test_a_server_of_ones_own_needs_no_key(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    made = AnthropicProvider(base_url="http://127.0.0.1:1", transport=transport)
    await made.complete(request())
    assert "authorization" not in transport.calls[0].headers


async def test_the_key_of_the_environment_goes_to_anthropic_alone(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.answers_json(OK)
    transport.answers_json(OK)
    transport.answers_json(OK)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-0123456789")
    await AnthropicProvider(transport=transport).complete(request())
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    await AnthropicProvider(transport=transport).complete(request())
    await AnthropicProvider(base_url="http://h", transport=transport).complete(request())
    assert transport.calls[0].headers["authorization"] == "Bearer token-0123456789"
    assert transport.calls[1].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in transport.calls[2].headers


def test_a_missing_key_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"ANTHROPIC_API_KEY.*LLM_PROVIDER=local"):
        AnthropicProvider()


async def test_beta_features_are_asked_for_by_a_header(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    headers = {"Anthropic-Beta": "some-beta", "Anthropic-Version": "2023-06-01"}
    await provider(transport).complete(request(extra_headers=headers))
    assert transport.calls[0].headers["anthropic-beta"] == "some-beta"
    assert transport.calls[0].headers["anthropic-version"] == "2023-06-01"


async def test_what_is_refused_beforehand_is_neither_sent_nor_booked(
    transport: ScriptedTransport,
) -> None:
    context = CallContext()
    with pytest.raises(InputError):
        await provider(transport).complete(LLMRequest([Message("user", "")], context=context))
    with pytest.raises(InputError):
        await read(provider(transport).stream(LLMRequest([Message("user", "")], context=context)))
    assert not transport.calls
    assert not context.entries


async def test_the_answer_may_be_the_call_of_a_tool(transport: ScriptedTransport) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    call = {"type": "tool_use", "id": "t", "name": "answer", "input": {"a": 1}}
    transport.answers_json({**OK, "content": [call], "stop_reason": "tool_use"})
    response = await provider(transport).complete(request(output_schema=schema))
    assert transport.calls[0].body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert json.loads(response.text) == {"a": 1}
    assert response.finish_reason == "stop"
    assert response.tool_calls == []


# By name


async def test_it_is_found_by_name(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.answers_json(OK)
    monkeypatch.setenv("AETHER_MODEL", "anthropic:claude-sonnet-5-5")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://gateway.example/anthropic")
    async with Aether(config=ProviderConfig(transport=transport)) as client:
        assert await client.ask("Hi") == "Hello"
        assert KEY not in repr(client)
    (call,) = transport.calls
    assert call.url == "https://gateway.example/anthropic/v1/messages"
    assert call.body["model"] == "claude-sonnet-5-5"
    assert "temperature" not in call.body
    assert call.headers["authorization"] == f"Bearer {KEY}"


async def test_tools_and_sessions_send_back_what_they_must(transport: ScriptedTransport) -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}
    text = {"type": "text", "text": "It is 3."}
    call = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}}
    transport.answers_json({**OK, "content": [thought, call], "stop_reason": "tool_use"})
    transport.answers_json({**OK, "content": [thought, text]})
    transport.answers_json(OK)

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with Aether(provider(transport)) as client:
        session = client.session("s", system="Be brief.")
        assert await session.ask("What is 1 + 2?", tools=[add]) == "It is 3."
        await session.ask("Thanks.")
    asked = {"role": "user", "content": "What is 1 + 2?"}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
    assert [made.body["messages"] for made in transport.calls] == [
        [asked],
        [
            asked,
            {"role": "assistant", "content": [thought, call]},
            {"role": "user", "content": [result]},
        ],
        # The thinking of a turn whose calls were not kept would be refused.
        [
            asked,
            {"role": "assistant", "content": "It is 3."},
            {"role": "user", "content": "Thanks."},
        ],
    ]
    assert all(made.body["system"] == "Be brief." for made in transport.calls)


# Failures


@pytest.mark.parametrize(
    ("status", "kind", "said", "error_class", "retryable"),
    [
        (400, "invalid_request_error", "max_tokens: too large", BadRequestError, False),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
            ContextLengthError,
            False,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 7 + 2 > 8",
            ContextLengthError,
            False,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low",
            QuotaExceededError,
            False,
        ),
        (401, "authentication_error", "invalid x-api-key", AuthenticationError, False),
        (402, "billing_error", "No money.", QuotaExceededError, False),
        (403, "permission_error", "Not yours.", PermissionDeniedError, False),
        (404, "not_found_error", "model: claude-sonet", NotFoundError, False),
        (413, "request_too_large", "32 MB", BadRequestError, False),
        (429, "rate_limit_error", "Slower.", RateLimitError, True),
        (500, "api_error", "Oops.", ServerError, True),
        (504, "timeout_error", "Late.", ServerError, True),
        (529, "overloaded_error", "Overloaded", OverloadedError, True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_raised_as_what_it_is(
    transport: ScriptedTransport,
    status: int,
    kind: str,
    said: str,
    error_class: type[ProviderError],
    retryable: bool,
    stream: bool,
) -> None:
    body = {"type": "error", "error": {"type": kind, "message": f"{said} {KEY}"}}
    transport.answers_json(body, status=status, request_id="req_1", retry_after="7")
    made = provider(transport)
    with pytest.raises(error_class) as caught:
        await (read(made.stream(request())) if stream else made.complete(request()))
    error = caught.value
    assert type(error) is error_class
    assert (error.status, error.retryable, error.retry_after) == (status, retryable, 7.0)
    assert (error.request_id, error.provider, error.model) == (
        "req_1",
        "anthropic",
        "claude-haiku-5-5",
    )
    assert said in str(error)
    assert KEY not in str(error)


async def test_the_server_may_say_whether_to_try_again(transport: ScriptedTransport) -> None:
    transport.answers_json({"type": "error"}, status=500, x_should_retry="false")
    with pytest.raises(ServerError) as caught:
        await provider(transport).complete(request())
    assert caught.value.retryable is False


async def test_a_wait_that_a_good_answer_names_means_nothing(transport: ScriptedTransport) -> None:
    transport.answers_json(OK, retry_after="59")
    assert (await provider(transport).complete(request())).text == "Hello"


def failing(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "Overloaded"}}


async def test_an_error_before_any_content_may_be_tried_again(transport: ScriptedTransport) -> None:
    transport.answers(sse(START, failing("overloaded_error")))
    with pytest.raises(OverloadedError) as caught:
        await read(provider(transport).stream(request()))
    assert caught.value.status == 529
    assert caught.value.retryable is True


async def test_an_error_after_content_ends_the_stream(transport: ScriptedTransport) -> None:
    transport.answers(sse(START, *TEXT, failing("overloaded_error")))
    stream = provider(transport).stream(request())
    assert [(await anext(stream)).text for _ in range(2)] == ["Hel", "lo"]
    with pytest.raises(StreamInterruptedError, match="Overloaded") as caught:
        await anext(stream)
    error = caught.value
    assert error.status == 529
    assert isinstance(error.__cause__, OverloadedError)
    assert error.partial is not None
    assert error.partial.text == "Hello"
    assert transport.open_streams == 0


EVENTS: list[dict[str, Any]] = [START, *TEXT, END, STOP]


@pytest.mark.parametrize("length", range(len(EVENTS)))
@pytest.mark.parametrize("breaks", [False, True])
async def test_a_stream_without_its_end_mark_is_an_error(
    transport: ScriptedTransport, length: int, breaks: bool
) -> None:
    pieces: list[bytes | BaseException] = [sse(*EVENTS[:length])]
    if breaks:
        pieces.append(ProviderConnectionError("reset"))
    transport.answers(*pieces)
    with pytest.raises((StreamInterruptedError, ProviderConnectionError)) as caught:
        await read(provider(transport).stream(request()))
    assert caught.value.retryable is True
    if length > 2:  # text was shown
        assert isinstance(caught.value, StreamInterruptedError)
        assert caught.value.partial is not None


async def test_what_comes_after_the_end_mark_is_left_alone(transport: ScriptedTransport) -> None:
    transport.answers(WHOLE + b"event: data\ndata: [DONE]\n\n", ProviderConnectionError("reset"))
    chunks = await read(provider(transport).stream(request()))
    assert chunks[-1].is_final


async def test_leaving_a_stream_closes_it_at_once(transport: ScriptedTransport) -> None:
    transport.answers(WHOLE)
    stream = provider(transport).stream(request())
    await anext(stream)
    await stream.aclose()
    assert transport.open_streams == 0
    assert transport.open_bodies == 0


async def test_a_body_that_is_no_answer_is_a_protocol_error(transport: ScriptedTransport) -> None:
    transport.answers(b"<html>")
    with pytest.raises(ProtocolError):
        await provider(transport).complete(request())


async def test_a_paused_turn_streams_on(transport: ScriptedTransport) -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    search = {"type": "content_block_start", "index": 1, "content_block": used}
    pause = copy.deepcopy(END)
    pause["delta"]["stop_reason"] = "pause_turn"  # type: ignore[index] # its value is a dict
    transport.answers(sse(START, *TEXT, search, pause, STOP))
    transport.answers(WHOLE)
    chunks = await read(provider(transport).stream(request()))
    assert "".join(chunk.text for chunk in chunks) == "HelloHello"
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    assert chunks[-1].output_tokens == 6
    assert len(transport.calls) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_pauses_without_end_was_cut_off(
    transport: ScriptedTransport, streamed: bool
) -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    for _ in range(MAX_FOLLOW_UPS + 1):
        if streamed:
            search = {"type": "content_block_start", "index": 1, "content_block": used}
            pause = copy.deepcopy(END)
            pause["delta"]["stop_reason"] = "pause_turn"  # type: ignore[index] # as above
            transport.answers(sse(START, *TEXT, search, pause, STOP))
        else:
            transport.answers_json(
                {
                    "model": "claude",
                    "content": [{"type": "text", "text": "Hello"}, used],
                    "stop_reason": "pause_turn",
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                }
            )
    made = provider(transport)
    if streamed:
        response = (await read(made.stream(request())))[-1].response
    else:
        response = await made.complete(request())
    assert response is not None
    assert response.finish_reason == "length"
    assert response.text == "Hello" * (MAX_FOLLOW_UPS + 1)
    assert transport.script == []


async def test_a_part_that_was_refused_is_not_billed(transport: ScriptedTransport) -> None:
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    search = {"type": "content_block_start", "index": 1, "content_block": used}
    pause = copy.deepcopy(END)
    pause["delta"]["stop_reason"] = "pause_turn"  # type: ignore[index] # its value is a dict
    transport.answers(sse(START, *TEXT, search, pause, STOP))
    transport.answers_json(failing("overloaded_error"), status=529)
    context = CallContext()
    with pytest.raises(StreamInterruptedError) as caught:
        await read(provider(transport).stream(request(context=context)))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"
    assert [(entry.state, entry.error) for entry in context.entries] == [
        ("exact", None),
        ("not_billed", "StreamInterruptedError"),
    ]


# Books


async def book(made: AnthropicProvider, *, stream: bool) -> tuple[LedgerEntry, Any]:
    """The ledger's one entry of a call, and its response or error."""
    context = CallContext()
    outcome: LLMResponse | Exception | None
    try:
        if stream:
            outcome = (await read(made.stream(request(context=context))))[-1].response
        else:
            outcome = await made.complete(request(context=context))
    except ProviderError as error:
        outcome = error
    (entry,) = context.entries
    return entry, outcome


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_booked_exactly(transport: ScriptedTransport, stream: bool) -> None:
    if stream:
        transport.answers(WHOLE, request_id="req_1")
    else:
        transport.answers_json(OK, request_id="req_1")
    entry, _ = await book(provider(transport), stream=stream)
    assert entry.state == "exact"
    assert (entry.provider, entry.model, entry.request_id) == ("anthropic", "told-model", "req_1")
    assert (entry.input_tokens, entry.output_tokens) == (9, 3)


async def test_an_answer_without_counts_is_not_booked_as_free(transport: ScriptedTransport) -> None:
    transport.answers_json({**OK, "usage": {}})
    entry, response = await book(provider(transport), stream=False)
    assert response.output_tokens is None
    assert entry.state != "exact"


async def test_a_refused_call_is_not_billed(transport: ScriptedTransport) -> None:
    transport.answers_json(failing("invalid_request_error"), status=400)
    entry, error = await book(provider(transport), stream=False)
    assert isinstance(error, BadRequestError)
    assert entry.state == "not_billed"


async def test_a_broken_stream_is_booked_as_an_estimate(transport: ScriptedTransport) -> None:
    transport.answers(sse(START, *TEXT))
    entry, error = await book(provider(transport), stream=True)
    assert isinstance(error, StreamInterruptedError)
    assert entry.state == "estimated"
    assert entry.model == "told-model"


async def test_a_stream_that_lacks_its_end_mark_alone_is_booked_exactly(
    transport: ScriptedTransport,
) -> None:
    transport.answers(sse(START, *TEXT, END))
    entry, error = await book(provider(transport), stream=True)
    assert isinstance(error, StreamInterruptedError)
    assert entry.state == "exact"
    assert entry.output_tokens == 3


# Its life


async def test_it_keeps_its_key_to_itself(transport: ScriptedTransport) -> None:
    made = provider(transport)
    assert repr(made) == (
        "AnthropicProvider(default_model='claude-haiku-5-5', base_url='https://api.anthropic.com')"
    )

    def everything(value: Any, depth: int = 0) -> Iterator[str]:
        yield repr(value)
        if depth < 4:
            for inner in vars(value).values() if hasattr(value, "__dict__") else ():
                yield from everything(inner, depth + 1)

    assert not any(KEY in shown for shown in everything(made))


async def test_a_closed_provider_refuses_calls(transport: ScriptedTransport) -> None:
    made = AnthropicProvider(KEY, transport=lambda: transport)
    transport.answers_json(OK)
    await made.complete(request())
    await made.aclose()
    await made.aclose()
    assert transport.closed == 1
    with pytest.raises(ClientClosedError):
        await made.complete(request())


def test_it_is_a_streaming_provider(transport: ScriptedTransport) -> None:
    assert isinstance(provider(transport), StreamingLLMProvider)
    assert provider(transport).default_model == "claude-haiku-5-5"
