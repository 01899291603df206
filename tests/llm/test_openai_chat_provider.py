"""The OpenAI adapter over a transport: what it sends, how it fails, what it books and hides."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    InputError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
    UnknownNameError,
)
from aether.extensions.llm import _event_stream
from aether.extensions.llm.openai import OpenAIProvider
from aether.http import bodies
from aether.http.contracts import KIND, Timeout
from aether.llm.contracts import (
    CallContext,
    LedgerEntry,
    LLMRequest,
    LLMResponse,
    Message,
    StreamChunk,
    StreamingLLMProvider,
)
from aether.registry import default_registry

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

KEY = "sk-canary-0123456789"
OK = {
    "model": "told-model",
    "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def provider(transport: Any, **options: Any) -> OpenAIProvider:
    return OpenAIProvider(KEY, "gpt-x", transport=transport, **{"api": "chat", **options})


def request(**fields: Any) -> LLMRequest:
    return LLMRequest([Message("user", "How are you today?")], **fields)


def sse(*values: Any) -> bytes:
    lines = (value if isinstance(value, str) else json.dumps(value) for value in values)
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def delta(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    fields = {} if content is None else {"content": content}
    return {
        "model": "told-model",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


async def settle() -> None:
    """Let the other tasks go on until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
WHOLE = sse(delta(""), delta("Hel"), delta("lo"), delta(finish="stop"), USAGE, "[DONE]")


async def read(stream: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


async def book(made: OpenAIProvider, *, stream: bool = False) -> tuple[LedgerEntry, Any]:
    """The ledger's one entry of a call, and its response or error."""
    context = CallContext()
    try:
        outcome: Any
        if stream:
            outcome = (await read(made.stream(request(context=context))))[-1].response
        else:
            outcome = await made.complete(request(context=context))
    except Exception as error:  # noqa: BLE001 - whatever it was, the ledger tells
        outcome = error
    (entry,) = context.entries
    return entry, outcome


# What is sent


async def test_a_call_is_posted_with_its_key(transport: ScriptedTransport) -> None:
    transport.answers_json(OK, x_request_id="req-1")
    response = await provider(transport).complete(request())
    (call,) = transport.calls
    assert call.url == "https://api.openai.com/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"
    assert call.body["model"] == "gpt-x"
    assert call.timeout == Timeout(connect=5.0, read=600.0)
    assert response.text == "Hello"
    assert response.request_id == "req-1"


async def test_a_stream_comes_in_pieces_with_one_final_chunk(transport: ScriptedTransport) -> None:
    transport.answers(*(WHOLE[i : i + 5] for i in range(0, len(WHOLE), 5)), x_request_id="req-1")
    chunks = await read(provider(transport).stream(request()))
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk.is_final for chunk in chunks] == [False, False, True]
    response = chunks[-1].response
    assert response is not None
    assert response.text == "Hello"
    assert response.request_id == "req-1"
    assert chunks[-1].output_tokens == 2
    assert transport.calls[0].body["stream"] is True
    assert transport.calls[0].headers["accept-encoding"] == "identity"
    assert transport.open_streams == 0


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/chat/completions"),
        ("https://h/a/b//", "https://h/a/b/chat/completions"),
        ("https://h/v1?key=x", "https://h/v1/chat/completions?key=x"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1/chat/completions"),
    ],
)
async def test_any_base_url_is_joined(
    transport: ScriptedTransport, base_url: str, url: str
) -> None:
    transport.answers_json(OK)
    await provider(transport, base_url=base_url).complete(request())
    assert transport.calls[0].url == url


async def test_a_server_of_ones_own_needs_no_key(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    made = OpenAIProvider(base_url="http://127.0.0.1:1/v1", transport=transport)
    await made.complete(request())
    assert "authorization" not in transport.calls[0].headers


async def test_the_key_of_the_environment_goes_to_openai_alone(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    transport.answers_json(OK)
    transport.answers_json(OK)
    await OpenAIProvider(api="chat", transport=transport).complete(request())
    await OpenAIProvider(base_url="http://h/v1", transport=transport).complete(request())
    assert transport.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in transport.calls[1].headers


async def test_extra_headers_are_sent(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    await provider(transport).complete(request(extra_headers={"OpenAI-Project": "p"}))
    assert transport.calls[0].headers["openai-project"] == "p"


@pytest.mark.parametrize("header", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"": "x"}, {"a": "é\u0100"}])
async def test_a_header_that_http_cannot_carry_is_refused(
    transport: ScriptedTransport, header: dict[str, str]
) -> None:
    with pytest.raises(InputError, match="header"):
        await provider(transport).complete(request(extra_headers=header))
    assert not transport.calls


async def test_a_value_that_json_cannot_hold_is_refused(transport: ScriptedTransport) -> None:
    context = CallContext()
    with pytest.raises(InputError, match="JSON"):
        await provider(transport).complete(request(extra_body={"x": object()}, context=context))
    assert not context.entries


async def test_the_model_of_the_request_comes_first(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    await provider(transport).complete(request(model="gpt-y"))
    assert transport.calls[0].body["model"] == "gpt-y"


async def test_it_is_a_provider_that_streams(transport: ScriptedTransport) -> None:
    assert isinstance(provider(transport), StreamingLLMProvider)


# How it is made


def test_without_a_key_it_says_what_to_set_and_how_to_try_without() -> None:
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY.*LLM_PROVIDER=local"):
        OpenAIProvider()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIProvider("", base_url="https://api.openai.com/v1")


@pytest.mark.parametrize("key", ["sk-a\n", "sk a", "sk-ä", "\r\nX: y", "sk-\x00", "\u2028"])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAIProvider(key)
    assert key.strip() not in str(caught.value) or not key.strip()


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.openai.com/v1", "ftp://h/v1", "http://", "http://h:x/", "http://[::1"),
        *("http://a b/", "http://h:0/", "http://h/\x01", "http://user:sesame@h/v1"),
        *("http://h\\@evil/", "http://h\n/"),
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAIProvider(KEY, base_url=url or " ")
    assert "sesame" not in str(caught.value)
    assert caught.value.__context__ is None or "sesame" not in str(caught.value.__context__)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_timeout_that_cannot_be_one_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        OpenAIProvider(KEY, timeout=timeout)


@pytest.mark.parametrize("name", ["connect", "read", "total"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "5"])
def test_no_part_of_a_timeout_may_be_one_that_cannot_be(name: str, seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        OpenAIProvider(KEY, timeout=Timeout(**{name: seconds}))


async def test_a_timeout_is_for_reading_or_is_whole(transport: ScriptedTransport) -> None:
    whole = Timeout(connect=1, read=2, total=3)
    for timeout in (7, whole):
        transport.answers_json(OK)
        await provider(transport, timeout=timeout).complete(request())
    assert transport.calls[0].timeout == Timeout(connect=5.0, read=7.0)
    assert transport.calls[1].timeout == whole


def test_an_unknown_protocol_in_the_environment_falls_back_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API", "telepathy")
    OpenAIProvider(KEY)
    assert "OPENAI_API" in caplog.text
    assert "telepathy" not in caplog.text


def test_an_unknown_transport_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="aiohttp"):
        OpenAIProvider(KEY, transport="pigeon")
    with pytest.raises(UnknownNameError):
        OpenAIProvider(KEY, transport="pigeon")
    monkeypatch.setenv("AETHER_HTTP", "pigeon")
    OpenAIProvider(KEY)  # what stands in the environment falls back, and is warned of
    with pytest.raises(ConfigurationError, match="transport"):
        OpenAIProvider(KEY, transport=7)  # type: ignore[arg-type] # the point of the test


@pytest.fixture
def registered(transport: ScriptedTransport) -> Iterator[list[ScriptedTransport]]:
    """The transports that were made of the registered name `scripted`."""
    made: list[ScriptedTransport] = []

    def make() -> ScriptedTransport:
        made.append(transport)
        return transport

    default_registry.add(KIND, "scripted", make)
    yield made
    default_registry.remove(KIND, "scripted")


async def test_a_named_transport_is_made_late_and_closed(
    registered: list[ScriptedTransport],
) -> None:
    made = OpenAIProvider(KEY, api="chat", transport="scripted")
    assert not registered
    await made.aclose()
    assert not registered
    made = OpenAIProvider(KEY, api="chat", transport="scripted")
    with pytest.raises(IndexError):  # its script is empty
        await made.complete(request())
    await made.aclose()
    await made.aclose()
    assert len(registered) == 1
    assert registered[0].closed == 1


async def test_a_transports_class_makes_one_that_is_closed(transport: ScriptedTransport) -> None:
    made: list[ScriptedTransport] = []

    class Counted(type(transport)):  # type: ignore[misc] # a fixture's class cannot be imported
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    provider = OpenAIProvider(KEY, api="chat", transport=Counted)
    with pytest.raises(IndexError):  # its script is empty
        await provider.complete(request())
    await provider.aclose()
    assert [each.closed for each in made] == [1]


async def test_a_given_transport_is_left_open(transport: ScriptedTransport) -> None:
    made = provider(transport)
    await made.aclose()
    assert transport.closed == 0


async def test_a_call_after_closing_is_an_error_that_bills_nothing(
    transport: ScriptedTransport,
) -> None:
    made = provider(transport)
    await made.aclose()
    for stream in (False, True):
        entry, error = await book(made, stream=stream)
        assert isinstance(error, ClientClosedError)
        assert entry.state == "not_billed"


# What it hides


async def test_the_key_is_nowhere_to_be_seen(
    transport: ScriptedTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    made = provider(transport)
    seen = [repr(made), *_attributes(made, set())]
    transport.answers_json({"error": {"message": f"bad key {KEY}"}}, status=401)
    transport.answers(f"<html>{KEY}</html>".encode())
    transport.answers(sse(delta("x"), {"error": {"message": KEY}}))
    for stream in (False, False, True):
        _, error = await book(made, stream=stream)
        seen += [str(error), repr(error), repr(vars(error)), str(error.__cause__)]
    seen += [repr(transport.calls[0].headers), caplog.text]
    assert not [text for text in seen if KEY in text]
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(made)


def _attributes(value: object, known: set[int]) -> Iterator[str]:
    if id(value) in known or isinstance(value, type):
        return
    known.add(id(value))
    yield repr(value)
    for inner in getattr(value, "__dict__", {}).values():
        yield from _attributes(inner, known)


def test_its_repr_says_where_and_what(transport: ScriptedTransport) -> None:
    made = provider(transport, base_url="http://h/v1/?token=x")
    where = "base_url='http://h/v1', api='chat'"
    assert repr(made) == f"OpenAIProvider(default_model='gpt-x', {where})"
    assert OpenAIProvider(KEY).default_model == "gpt-6-luna"


# How it fails


async def test_a_refusal_carries_what_the_server_said(transport: ScriptedTransport) -> None:
    error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    for stream in (False, True):
        transport.answers_json(error, status=429, retry_after="2", x_request_id="req-1")
        entry, raised = await book(provider(transport), stream=stream)
        assert isinstance(raised, RateLimitError)
        assert raised.retry_after == 2.0
        assert raised.retryable
        assert (raised.provider, raised.model) == ("openai", "gpt-x")
        assert raised.request_id == "req-1"
        assert (entry.state, entry.error) == ("not_billed", "RateLimitError")
        assert entry.request_id == "req-1"
    assert transport.open_streams == 0


async def test_a_wait_that_comes_with_an_answer_is_left_alone(
    transport: ScriptedTransport,
) -> None:
    transport.answers_json(OK, retry_after="2")
    assert (await provider(transport).complete(request())).text == "Hello"


async def test_the_body_of_a_refused_stream_is_bounded(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "ERROR_BODY_MAX_SECONDS", 0.01)
    transport.answers(b"out of order", asyncio.Event(), status=500)
    transport.answers(*[b"x" * 10_000] * 7, asyncio.Event(), status=500)
    transport.answers(b"cut ", ProviderConnectionError("cut"), status=500)
    for message in ("out of order", "xxx", "cut"):
        with pytest.raises(ServerError, match=message):
            await read(provider(transport).stream(request()))


async def test_the_errors_of_the_transport_are_signed(transport: ScriptedTransport) -> None:
    for stream in (False, True):
        transport.fails(ProviderConnectionError("no such host", kind="dns"))
        entry, raised = await book(provider(transport), stream=stream)
        assert isinstance(raised, ProviderConnectionError)
        assert (raised.provider, raised.model) == ("openai", "gpt-x")
        assert entry.state == "not_billed"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ProviderConnectionError("x", kind="connect"), "not_billed"),
        (ProviderConnectionError("x", kind="tls"), "not_billed"),
        (RequestTimeoutError("x", kind="connect"), "not_billed"),
        (ProviderConnectionError("x", kind="reset"), "unknown"),
        (RequestTimeoutError("x", kind="read"), "unknown"),
        (ProtocolError("x"), "unknown"),
        (asyncio.CancelledError(), "unknown"),
        (ConfigurationError("x"), "not_billed"),
    ],
)
async def test_what_a_failed_attempt_may_have_cost_is_booked(
    transport: ScriptedTransport, error: BaseException, state: str
) -> None:
    for stream in (False, True):
        transport.fails(error)
        context = CallContext()
        asked, made = request(context=context), provider(transport)
        with pytest.raises(type(error)):
            await (read(made.stream(asked)) if stream else made.complete(asked))
        assert [entry.state for entry in context.entries] == [state]
        assert context.entries[0].error == type(error).__name__


@pytest.mark.parametrize(
    ("status", "state"), [(400, "not_billed"), (401, "not_billed"), (500, "unknown")]
)
async def test_what_a_refused_attempt_may_have_cost_is_booked(
    transport: ScriptedTransport, status: int, state: str
) -> None:
    transport.answers(b"", status=status)
    entry, _ = await book(provider(transport))
    assert entry.state == state


async def test_an_answer_is_booked_as_the_server_counts(transport: ScriptedTransport) -> None:
    transport.answers_json(OK, x_request_id="req-1")
    transport.answers(WHOLE)
    for stream in (False, True):
        entry, _ = await book(provider(transport), stream=stream)
        assert entry.state == "exact"
        assert entry.model == "told-model"
        assert entry.provider == "openai"
        assert entry.input_tokens == 9
        assert entry.error is None


async def test_an_answer_without_usage_is_estimated_and_says_nothing_of_it(
    transport: ScriptedTransport,
) -> None:
    transport.answers_json({**OK, "usage": None})
    transport.answers(sse(delta("Hello"), delta(finish="stop"), "[DONE]"))
    for stream in (False, True):
        entry, response = await book(provider(transport), stream=stream)
        assert isinstance(response, LLMResponse)
        assert response.input_tokens is None
        assert response.output_tokens is None
        assert entry.state == "estimated"
        assert (entry.input_tokens, entry.output_tokens) == (5, 2)


async def test_a_call_of_a_tool_is_estimated_by_what_was_written(
    transport: ScriptedTransport,
) -> None:
    call = {"id": "c", "function": {"name": "add", "arguments": '{"a": "' + "x" * 400 + '"}'}}
    message = {"content": None, "tool_calls": [call]}
    transport.answers_json({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    entry, _ = await book(provider(transport))
    assert entry.state == "estimated"
    assert entry.output_tokens is not None
    assert 100 <= entry.output_tokens <= 110


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"[]", b'{"choices": []}'])
async def test_an_answer_that_is_none_is_a_protocol_error(
    transport: ScriptedTransport, body: bytes
) -> None:
    for stream in (False, True):
        transport.answers(body, content_type="text/event-stream")
        entry, error = await book(provider(transport), stream=stream)
        assert isinstance(error, StreamInterruptedError if stream and not body else ProtocolError)
        assert entry.state == "unknown"


async def test_an_error_in_an_answer_of_status_200_is_raised(transport: ScriptedTransport) -> None:
    for stream in (False, True):
        transport.answers_json({"error": {"message": "m", "code": 429}})
        entry, error = await book(provider(transport), stream=stream)
        assert isinstance(error, RateLimitError)
        assert entry.state == "unknown"  # it had begun to answer


async def test_a_server_that_does_not_stream_is_read_all_the_same(
    transport: ScriptedTransport,
) -> None:
    body = b" \n" + json.dumps(OK).encode()
    transport.answers(*(body[i : i + 7] for i in range(0, len(body), 7)))
    (chunk,) = await read(provider(transport).stream(request()))
    assert chunk.is_final
    assert chunk.text == "Hello"
    assert chunk.input_tokens == 9


# Streams that break


async def test_an_error_before_the_first_content_is_raised_as_what_it_is(
    transport: ScriptedTransport,
) -> None:
    transport.answers(sse(delta("")), sse({"error": {"message": "m", "type": "overloaded_error"}}))
    with pytest.raises(OverloadedError):
        await read(provider(transport).stream(request()))
    transport.answers(sse(delta("")), ProviderConnectionError("reset", kind="reset"))
    with pytest.raises(ProviderConnectionError):
        await read(provider(transport).stream(request()))


@pytest.mark.parametrize(
    ("end", "cause", "retryable"),
    [
        (ProviderConnectionError("reset", kind="reset"), ProviderConnectionError, True),
        (RequestTimeoutError("idle", kind="read"), RequestTimeoutError, True),
        (sse({"error": {"message": "m", "type": "overloaded_error"}}), OverloadedError, True),
        (sse({"error": {"message": "m", "code": 400}}), BadRequestError, False),
    ],
)
async def test_after_the_first_content_any_failure_is_an_interruption(
    transport: ScriptedTransport,
    end: bytes | BaseException,
    cause: type[BaseException],
    retryable: bool,
) -> None:
    transport.answers(sse(delta("Hello my dear")), end)
    context = CallContext()
    stream = provider(transport).stream(request(context=context))
    assert (await anext(stream)).text == "Hello my dear"
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert type(caught.value.__cause__) is cause
    assert caught.value.retryable is retryable
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello my dear"
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-x")
    (entry,) = context.entries
    assert (entry.state, entry.output_tokens) == ("estimated", 4)
    assert entry.model == "told-model"


async def test_an_event_that_is_no_json_is_a_protocol_error_with_what_had_come(
    transport: ScriptedTransport,
) -> None:
    for bad in (b"data: {\n\n", b'data: "\xff"\n\n'):
        transport.answers(sse(delta("Hello")), bad)
        entry, error = await book(provider(transport), stream=True)
        assert isinstance(error, ProtocolError)
        assert error.partial is not None
        assert error.partial.text == "Hello"
        assert (error.provider, error.model) == ("openai", "gpt-x")
        assert entry.state == "estimated"


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n", b'data: {"choi'])
async def test_a_stream_that_ends_too_early_is_an_error(
    transport: ScriptedTransport, end: bytes
) -> None:
    transport.answers(sse(delta("Hello")), end)
    entry, error = await book(provider(transport), stream=True)
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"
    assert error.partial is not None
    assert entry.state == "estimated"


@pytest.mark.parametrize(
    "end",
    [b"", b"data: [DO", ProviderConnectionError("cut", kind="reset"), RequestTimeoutError("")],
)
async def test_a_stream_that_gave_its_reason_is_whole_without_an_end_mark(
    transport: ScriptedTransport, end: bytes | BaseException
) -> None:
    transport.answers(sse(delta("Hello"), delta(finish="stop")), end)
    entry, response = await book(provider(transport), stream=True)
    assert isinstance(response, LLMResponse)
    assert response.text == "Hello"
    assert entry.state == "estimated"


async def test_a_stream_that_breaks_inside_an_event_is_not_whole(
    transport: ScriptedTransport,
) -> None:
    transport.answers(
        sse(delta("Hello"), delta(finish="stop")) + b"data: {", ProviderConnectionError("cut")
    )
    with pytest.raises(StreamInterruptedError):
        await read(provider(transport).stream(request()))


async def test_a_stream_of_comments_alone_is_given_up(transport: ScriptedTransport) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 100.0
        return now

    class Commenting:
        status, headers = 200, {"x": "y"}

        async def chunks(self) -> AsyncIterator[bytes]:
            yield sse(delta("x"))
            while True:
                yield b": still here\n\n"

    stream = _event_stream.EventStream(Commenting(), read_seconds=1.0, clock=clock)
    with pytest.raises(RequestTimeoutError) as caught:
        async for _ in stream.batches():
            pass
    assert caught.value.kind == "idle"
    assert now <= 1000


async def test_leaving_a_stream_releases_it_at_once_and_books_what_came(
    transport: ScriptedTransport,
) -> None:
    transport.answers(sse(delta("")), sse(delta("Hello")), WHOLE)
    context = CallContext()
    stream = provider(transport).stream(request(context=context))
    gc.disable()
    try:
        assert (await anext(stream)).text == "Hello"
        assert transport.open_streams == 1
        await stream.aclose()
        assert transport.open_streams == transport.open_bodies == 0
    finally:
        gc.enable()
    (entry,) = context.entries
    assert (entry.state, entry.output_tokens) == ("estimated", 2)


@pytest.mark.parametrize(
    ("pieces", "state"), [([], "unknown"), ([delta("")], "unknown"), ([delta("x")], "estimated")]
)
async def test_a_cancelled_stream_releases_its_connection_and_is_booked(
    transport: ScriptedTransport, pieces: list[Any], state: str
) -> None:
    transport.answers(sse(*pieces), asyncio.Event())
    context = CallContext()
    task = asyncio.ensure_future(read(provider(transport).stream(request(context=context))))
    await settle()
    assert transport.open_streams == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.open_streams == 0
    assert [(e.state, e.error) for e in context.entries] == [(state, "CancelledError")]


async def test_a_cancelled_call_is_booked_as_unknown(transport: ScriptedTransport) -> None:
    transport.answers(asyncio.Event())
    context = CallContext()
    task = asyncio.ensure_future(provider(transport).complete(request(context=context)))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [entry.state for entry in context.entries] == ["unknown"]


async def test_a_stream_left_between_its_reason_and_its_end_is_booked_as_the_server_counts(
    transport: ScriptedTransport,
) -> None:
    counted = {**delta(finish="stop"), "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    transport.answers(sse(delta("Hello"), counted), asyncio.Event())
    context = CallContext()
    task = asyncio.ensure_future(read(provider(transport).stream(request(context=context))))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(e.state, e.output_tokens) for e in context.entries] == [("exact", 2)]


async def test_the_final_chunk_does_not_wait_for_the_connection_to_end(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_event_stream, "DRAIN_SECONDS", 0.01)
    transport.answers(WHOLE, asyncio.Event())
    chunks = await asyncio.wait_for(read(provider(transport).stream(request())), timeout=5)
    assert chunks[-1].is_final


async def test_what_follows_the_end_mark_is_read_so_that_the_connection_can_be_kept(
    transport: ScriptedTransport,
) -> None:
    transport.answers(WHOLE, b": bye\n\n", b"data: {}\n\n")
    chunks = await read(provider(transport).stream(request()))
    assert chunks[-1].is_final
    assert transport.bodies_read == 1


async def test_leaving_at_the_final_chunk_changes_nothing_of_the_books(
    transport: ScriptedTransport,
) -> None:
    transport.answers(WHOLE)
    context = CallContext()
    stream = provider(transport).stream(request(context=context))
    while not (await anext(stream)).is_final:
        pass
    await stream.aclose()
    assert [(entry.state, entry.error) for entry in context.entries] == [("exact", None)]


async def test_elsewhere_the_output_limit_has_its_older_name(
    transport: ScriptedTransport,
) -> None:
    for base_url in (None, "http://127.0.0.1:1/v1"):
        transport.answers_json(OK)
        await provider(transport, base_url=base_url).complete(request(max_tokens=5))
    assert transport.calls[0].body["max_completion_tokens"] == 5
    assert transport.calls[1].body["max_tokens"] == 5


async def test_a_request_is_not_changed(transport: ScriptedTransport) -> None:
    asked = request(temperature=0.5, extra_body={"a": {"b": 1}})
    before = copy.deepcopy(asked.model_dump())
    transport.answers_json(OK)
    await provider(transport).complete(asked)
    assert asked.model_dump() == before


async def test_a_wrong_key_says_so(transport: ScriptedTransport) -> None:
    transport.answers_json({"error": {"message": "Incorrect API key provided"}}, status=401)
    with pytest.raises(AuthenticationError, match="Check the API key"):
        await provider(transport).complete(request())
