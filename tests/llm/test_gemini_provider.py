"""The Gemini adapter over a transport: how it is made, how it fails, what it books and hides."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from aether import Aether, ProviderConfig, Tool
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
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from aether.extensions.llm.gemini import GeminiProvider
from aether.extensions.memory.sqlite import SQLiteSessionStore
from aether.http.contracts import Timeout
from aether.llm.contracts import CallContext, LLMResponse, StreamingLLMProvider
from tests.llm.gemini_answers import (
    KEY,
    answer,
    call,
    provider,
    read,
    request,
    signed,
    sse,
    thought,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.llm.conftest import ScriptedTransport

GOOGLE = "https://generativelanguage.googleapis.com"
RPC = "type.googleapis.com/google.rpc"


# How it is made


async def test_a_call_is_posted_with_its_key_in_a_header(transport: ScriptedTransport) -> None:
    transport.answers_json(answer("Hello"))
    await provider(transport).complete(request())
    (sent,) = transport.calls
    assert sent.url == f"{GOOGLE}/v1beta/models/gemini-3.8-flash:generateContent"
    assert sent.headers["x-goog-api-key"] == KEY
    assert "authorization" not in sent.headers
    assert sent.timeout == Timeout(connect=5.0, read=600.0)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"base_url": f"{GOOGLE}/"}, f"{GOOGLE}/v1beta"),
        ({"api_version": "v1"}, f"{GOOGLE}/v1"),
        ({"base_url": f"{GOOGLE}/v1"}, f"{GOOGLE}/v1"),
        ({"base_url": f"{GOOGLE}/v1alpha/"}, f"{GOOGLE}/v1alpha"),
        ({"base_url": f"{GOOGLE}/v1beta", "api_version": "v1"}, f"{GOOGLE}/v1"),
        ({"base_url": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080/v1beta"),
        ({"base_url": "http://127.0.0.1:8080/gemini//"}, "http://127.0.0.1:8080/gemini/v1beta"),
        ({"base_url": "http://v1"}, "http://v1/v1beta"),
        ({"base_url": "https://h/v1beta/openai"}, "https://h/v1beta/openai/v1beta"),
    ],
)
async def test_a_base_url_is_without_its_version(
    transport: ScriptedTransport, options: dict[str, Any], url: str
) -> None:
    transport.answers_json(answer("Hello"))
    made = GeminiProvider(KEY, transport=transport, **options)
    await made.complete(request())
    assert transport.calls[0].url == f"{url}/models/gemini-3.8-flash:generateContent"


async def test_a_query_of_the_base_url_is_kept(transport: ScriptedTransport) -> None:
    transport.answers(sse(answer("Hello")))
    made = GeminiProvider(KEY, base_url="https://h/p?tenant=1", transport=transport)
    await read(made.stream(request()))
    path = "https://h/p/v1beta/models/gemini-3.8-flash:streamGenerateContent"
    assert transport.calls[0].url == f"{path}?alt=sse&tenant=1"


@pytest.mark.parametrize("version", ["v1/beta", "beta", "v", "v1 ", "../v1"])
def test_a_version_that_cannot_be_one_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match="api_version"):
        GeminiProvider(KEY, api_version=version)


def test_without_a_key_it_says_what_to_set_and_how_to_try_without() -> None:
    for base_url in (None, f"{GOOGLE}/v1", "https://x.googleapis.com"):
        with pytest.raises(ConfigurationError, match=r"GEMINI_API_KEY.*LLM_PROVIDER=local"):
            GeminiProvider(base_url=base_url)


@pytest.mark.parametrize(
    "names", [("GEMINI_API_KEY",), ("GOOGLE_API_KEY",), ("GEMINI_API_KEY", "GOOGLE_API_KEY")]
)
async def test_the_key_of_the_environment_goes_to_google_alone(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name in names:
        monkeypatch.setenv(name, f"key-of-{name}")
    for base_url in (None, "https://googleapis.com.evil.example", "http://127.0.0.1:1"):
        transport.answers_json(answer("Hello"))
        await GeminiProvider(base_url=base_url, transport=transport).complete(request())
    sent = [made.headers.get("x-goog-api-key") for made in transport.calls]
    assert sent == [f"key-of-{names[0]}", None, None]


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://[::1", "http://user:sesame@h", "v1"])
def test_a_base_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GeminiProvider(KEY, base_url=url)
    assert "sesame" not in str(caught.value)


async def test_its_name_finds_it(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_PROVIDER", "gemini")
    with pytest.raises(ConfigurationError, match="GEMINI_API_KEY"):
        Aether()
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_MODEL", "gemini-2.5-flash")
    monkeypatch.setenv("GEMINI_BASE_URL", "http://127.0.0.1:1")
    transport.answers_json(answer("Hello"))
    async with Aether(config=ProviderConfig(transport=transport)) as client:
        assert await client.ask("Hi") == "Hello"
    assert transport.calls[0].url == (
        "http://127.0.0.1:1/v1beta/models/gemini-2.5-flash:generateContent"
    )
    assert transport.calls[0].headers["x-goog-api-key"] == KEY
    monkeypatch.setenv("AETHER_MODEL", "gemini:gemini-4-argon")
    transport.answers_json(answer("Hello"))
    async with Aether(config=ProviderConfig(transport=transport)) as client:
        await client.ask("Hi")
    assert "gemini-4-argon" in transport.calls[1].url


def test_the_key_shows_nowhere(transport: ScriptedTransport) -> None:
    made = provider(transport)
    shown = [repr(made), str(vars(made)), repr(made.base_url)]
    assert all(KEY not in text for text in shown)
    assert "gemini-3.8-flash" in repr(made)
    assert GOOGLE in repr(made)


async def test_a_key_in_an_answer_is_not_shown(transport: ScriptedTransport) -> None:
    transport.answers_json(answer("a", modelVersion=f"m-{KEY}", responseId=f"r-{KEY}"))
    response = await provider(transport).complete(request())
    assert KEY not in response.model_dump_json()
    error = {"code": 400, "message": f"bad key={KEY}", "status": KEY}
    transport.answers_json({"error": error}, status=400)
    with pytest.raises(BadRequestError) as caught:
        await provider(transport).complete(request())
    assert KEY not in f"{caught.value} {vars(caught.value)}"


async def test_closing_twice_is_fine_and_a_call_after_it_is_not() -> None:
    made = GeminiProvider(KEY)
    await made.aclose()
    await made.aclose()
    with pytest.raises(ClientClosedError):
        await made.complete(request())


async def test_it_is_a_provider_that_streams(transport: ScriptedTransport) -> None:
    assert isinstance(provider(transport), StreamingLLMProvider)


async def test_extra_headers_are_sent(transport: ScriptedTransport) -> None:
    transport.answers_json(answer("Hello"))
    await provider(transport).complete(request(extra_headers={"X-Server-Timeout": "60"}))
    assert transport.calls[0].headers["x-server-timeout"] == "60"


# How it fails


def google_error(code: int, status: str, message: str = "no", *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": details}}


def info(reason: str) -> dict[str, str]:
    return {"@type": f"{RPC}.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def quota(identifier: str) -> dict[str, Any]:
    violation = {"quotaMetric": "requests", "quotaId": identifier}
    return {"@type": f"{RPC}.QuotaFailure", "violations": [violation]}


@pytest.mark.parametrize(
    ("body", "error_class", "retryable"),
    [
        (
            google_error(400, "INVALID_ARGUMENT", "API key not valid.", info("API_KEY_INVALID")),
            AuthenticationError,
            False,
        ),
        (google_error(400, "INVALID_ARGUMENT"), BadRequestError, False),
        (google_error(400, "FAILED_PRECONDITION", "User location"), BadRequestError, False),
        (
            google_error(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200000) exceeds the maximum number of tokens allowed "
                "(1048576).",
            ),
            ContextLengthError,
            False,
        ),
        (google_error(401, "UNAUTHENTICATED"), AuthenticationError, False),
        (google_error(403, "PERMISSION_DENIED"), PermissionDeniedError, False),
        (google_error(404, "NOT_FOUND", "models/x is not found"), NotFoundError, False),
        (google_error(429, "RESOURCE_EXHAUSTED"), RateLimitError, True),
        (
            google_error(429, "RESOURCE_EXHAUSTED", "slow", quota("TokensPerModelPerMinute")),
            RateLimitError,
            True,
        ),
        (
            google_error(429, "RESOURCE_EXHAUSTED", "slow", quota("RequestsPerDayPerProject")),
            QuotaExceededError,
            False,
        ),
        (
            google_error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
            QuotaExceededError,
            False,
        ),
        (google_error(500, "INTERNAL"), ServerError, True),
        (google_error(503, "UNAVAILABLE", "overloaded"), OverloadedError, True),
        (google_error(504, "DEADLINE_EXCEEDED"), ServerError, True),
    ],
)
@pytest.mark.parametrize("shape", ["object", "list"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal_is_raised_as_what_it_is(
    transport: ScriptedTransport,
    body: dict[str, Any],
    error_class: type[ProviderError],
    retryable: bool,
    shape: str,
    streamed: bool,
) -> None:
    status = body["error"]["code"]
    transport.answers_json(
        body if shape == "object" else [body], status=status, content_type="text/event-stream"
    )
    context = CallContext()
    made = request(context=context)
    made_by = provider(transport)
    with pytest.raises(ProviderError) as caught:
        await (read(made_by.stream(made)) if streamed else made_by.complete(made))
    error = caught.value
    assert type(error) is error_class
    assert error.retryable is retryable
    assert error.status == status
    assert error.provider == "gemini"
    assert error.model == "gemini-3.8-flash"
    assert body["error"]["message"].rstrip(".")[:20] in str(error)
    assert [entry.state for entry in context.entries] == [
        "unknown" if error_class is ServerError else "not_billed"
    ]


@pytest.mark.parametrize(
    ("delay", "headers", "seconds"),
    [
        ("48s", {}, 48.0),
        ("48.939935699s", {}, 48.939935699),
        ("0s", {}, 0.0),
        ("48s", {"retry_after": "7"}, 7.0),
        *((odd, {}, None) for odd in ("-1s", "1e400s", "soon", "48", "", 48, None, "infs")),
    ],
)
async def test_the_wait_that_google_asks_for_is_read_from_the_body(
    transport: ScriptedTransport, delay: Any, headers: dict[str, str], seconds: float | None
) -> None:
    details = [7, info("RATE_LIMIT"), {"@type": f"{RPC}.RetryInfo", "retryDelay": delay}]
    body = google_error(429, "RESOURCE_EXHAUSTED", "slow", *details)
    transport.answers_json(body, status=429, **headers)
    with pytest.raises(RateLimitError) as caught:
        await provider(transport).complete(request())
    assert caught.value.retry_after == seconds
    transport.answers(sse(body))
    with pytest.raises(RateLimitError) as caught:
        await read(provider(transport).stream(request()))
    assert caught.value.retry_after == (None if seconds is None else float(delay[:-1]))


async def test_nothing_is_sent_or_booked_for_what_cannot_be_sent(
    transport: ScriptedTransport,
) -> None:
    context = CallContext()
    with pytest.raises(InputError):
        await provider(transport).complete(request(extra_body={"x": object()}, context=context))
    assert not transport.calls
    assert not context.entries


# What it books


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_is_booked_as_it_was_reported(
    transport: ScriptedTransport, streamed: bool
) -> None:
    usage = {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 20,
    }
    value = answer("Hello", usageMetadata=usage)
    context = CallContext()
    made = request(context=context)
    if streamed:
        transport.answers(sse(value))
        await read(provider(transport).stream(made))
    else:
        transport.answers_json(value)
        await provider(transport).complete(made)
    (entry,) = context.entries
    assert entry.state == "exact"
    assert (entry.input_tokens, entry.output_tokens) == (10, 10)
    assert (entry.cache_read_tokens, entry.reasoning_tokens) == (4, 7)
    assert entry.provider == "gemini"
    assert entry.model == "gemini-told"
    assert entry.request_id == "answer-1"


async def test_a_stream_that_is_left_is_booked(transport: ScriptedTransport) -> None:
    context = CallContext()
    transport.answers(sse(answer("Hel", finish=None)), asyncio.Event())
    chunks = provider(transport).stream(request(context=context))
    assert (await anext(chunks)).text == "Hel"
    await chunks.aclose()
    (entry,) = context.entries
    assert entry.state == "estimated"
    assert entry.output_tokens
    assert transport.open_streams == 0


async def test_each_part_of_an_answer_is_booked(transport: ScriptedTransport) -> None:
    context = CallContext()
    transport.answers_json(
        answer("Hel", finish="CONTINUATION", candidate={"continuationToken": "t1"})
    )
    transport.answers_json(answer("lo"))
    response = await provider(transport).complete(request(context=context))
    assert [entry.output_tokens for entry in context.entries] == [3, 3]
    assert response.output_tokens == 6


async def test_a_timeout_is_what_it_is(transport: ScriptedTransport) -> None:
    transport.fails(RequestTimeoutError("The server did not answer."))
    with pytest.raises(RequestTimeoutError) as caught:
        await provider(transport).complete(request())
    assert caught.value.provider == "gemini"


# In the whole


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_loop_sends_back_what_gemini_gave(
    transport: ScriptedTransport, streamed: bool
) -> None:
    wanted = [
        thought("Two sums."),
        call(args={"a": 1, "b": 2}, signature="s1"),
        call(args={"a": 3, "b": 4}),
    ]
    for value in (answer(*wanted), answer("3 and 7.")):
        transport.answers(sse(value) if streamed else sse(value)[6:])
    client = Aether(provider(transport))
    prompt = "What are 1 + 2 and 3 + 4?"
    if streamed:
        text = "".join([piece async for piece in client.stream_text(prompt, tools=[add])])
    else:
        text = await client.ask(prompt, tools=[add])
    assert text == "3 and 7."
    contents = transport.calls[1].body["contents"]
    assert contents[1] == {"role": "model", "parts": wanted}
    assert contents[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "add", "response": {"output": result}}}
            for result in ("3", "7")
        ],
    }
    assert client.usage.total_output_tokens == 6


async def test_a_session_in_a_file_sends_back_what_gemini_gave(
    transport: ScriptedTransport, tmp_path: Path
) -> None:
    parts = [thought("Hm."), {"text": "Hello"}, signed("", "s1")]
    for value in (answer(*parts), answer("Still here.")):
        transport.answers_json(value)
    for prompt in ("Hi", "Are you there?"):
        async with (
            SQLiteSessionStore(tmp_path / "sessions.db") as store,
            Aether(provider(transport), memory_store=store) as client,
        ):
            await client.session("one").ask(prompt)
    contents = transport.calls[1].body["contents"]
    assert [turn["role"] for turn in contents] == ["user", "model", "user"]
    assert contents[1]["parts"] == parts


async def test_a_tool_without_parameters_can_be_called(transport: ScriptedTransport) -> None:
    now = Tool(
        name="now",
        description="The time.",
        parameters={"type": "object", "properties": {}},
        handler=lambda: "noon",
    )
    transport.answers_json(answer({"functionCall": {"name": "now"}}))
    transport.answers_json(answer("It is noon."))
    assert await Aether(provider(transport)).ask("Time?", tools=[now]) == "It is noon."
    assert "parametersJsonSchema" not in transport.calls[0].body["tools"][0]


async def test_a_request_is_not_changed(transport: ScriptedTransport) -> None:
    transport.answers_json(answer(signed("Hello", "s1")))
    response: LLMResponse = await provider(transport).complete(request())
    made = request(response.message, request().messages[0])
    before = copy.deepcopy(made)
    transport.answers_json(answer("ok"))
    await provider(transport).complete(made)
    assert made == before
