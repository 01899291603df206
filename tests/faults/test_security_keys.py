"""A key goes to its origin, in a header, and nothing that a model or a server says changes that."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aether import Aether, Message, ProviderConfig
from aether.errors import AetherError, ConfigurationError, InputError, ToolError
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.extensions.llm.fake import FakeProvider
from aether.extensions.llm.gemini import GeminiProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import AudioPart, ContentPart, FilePart, LLMRequest, LLMResponse, ToolCall
from aether.testing import FaultServer, faults
from aether.tools import Tool
from tests.faults.aftermath import KEY, Aftermath
from tests.llm.conftest import ScriptedTransport
from tests.llm.responses_wire import answer, message, reasoning

PROTOCOLS = ["openai", "openai.responses", "anthropic", "gemini"]
TRANSPORTS = ["aiohttp", "httpx"]
EVERYWHERE = pytest.mark.parametrize(
    ("protocol", "transport"), [(p, t) for p in PROTOCOLS for t in TRANSPORTS]
)
HOSTILE = [
    "evil.example/x",
    "@evil.example/",
    "http://evil.example/",
    "//evil.example/",
    "../../../x",
    "..",
    "x\r\nHost: evil.example",
    "x HTTP/1.1\r\n\r\nGET /",
    "x?key=1#y",
    "x\0y",
    "\\evil.example",
    "x\u2028y\u202e",
]


@pytest.fixture(autouse=True)
async def no_thread_stays() -> AsyncIterator[None]:
    """The event loop looks names up in threads, which would idle until it is closed."""
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


def origin(server: FaultServer) -> str:
    return server.url.removeprefix("http://")


@EVERYWHERE
@pytest.mark.row("X14")
async def test_the_key_is_in_one_header_and_in_no_url(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer() as server:
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config) as client:
            aftermath.client(client)
            await client.ask("hi")
            assert [chunk async for chunk in client.stream("hi")]
    for sent in server.requests:
        holding = [name for name, value in sent.headers.items() if KEY in value]
        assert len(holding) == 1
        assert holding[0].lower() in ("authorization", "x-api-key", "x-goog-api-key")
        assert KEY not in sent.path
        assert KEY.encode() not in sent.body


@EVERYWHERE
@pytest.mark.row("X14")
async def test_the_query_of_a_base_url_is_in_no_error(
    protocol: str, transport: str, aftermath: Aftermath, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="httpx2")  # it logs each URL, as it is, as INFO
    caplog.set_level(logging.WARNING, logger="httpcore2")
    async with FaultServer(
        faults.refuse("bad_request"), faults.reset(), faults.document(b"")
    ) as server:
        config = server.config(protocol, api_key="canary-1", transport=transport)
        secret = replace(config, base_url=f"{config.base_url}?token={KEY}")
        async with Aether(config=secret, with_retry=False) as client:
            aftermath.client(client)
            for _ in range(3):
                with pytest.raises(AetherError) as raised:
                    await client.ask("hi")
                aftermath.told(raised.value)
            aftermath.told(client.provider)
    assert all(KEY in sent.path for sent in server.requests)


@pytest.mark.row("X14")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{KEY}@host.example/",
        f"https://{KEY}@host.example/",
        f"ftp://host.example/{KEY}",
        f"https://host example/{KEY}",
        f"https://host.example:x/{KEY}",
        f"https://[{KEY}]/",
    ],
)
def test_a_base_url_that_is_refused_is_not_repeated(protocol: str, url: str) -> None:
    provider = protocol.partition(".")[0]
    with pytest.raises(ConfigurationError) as raised:
        Aether(config=ProviderConfig(provider=provider, api_key="canary-1", base_url=url))
    assert KEY not in f"{raised.value!r} {raised.value} {raised.value.__cause__}"
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


class Telling:
    """What every server can say in an answer, which a careless client would act upon."""

    def __init__(self, evil: FaultServer) -> None:
        self.fields = {
            "base_url": evil.url,
            "baseURL": evil.url,
            "url": evil.url,
            "endpoint": evil.url,
            "next": evil.url,
            "location": evil.url,
            "headers": {"Host": origin(evil), "X-Evil": "yes"},
            "extra_headers": {"X-Evil": "yes"},
            "api_base": evil.url,
        }
        self.headers = [
            ("location", evil.url),
            ("content-location", evil.url),
            ("alt-svc", f'h2="{origin(evil)}"'),
            ("refresh", f"0; url={evil.url}"),
            ("link", f"<{evil.url}>; rel=next"),
            ("set-cookie", "session=1; Path=/"),
        ]

    def fault(self, *, model: str) -> list[faults.Fault]:
        """An answer that is right but for these words."""

        def telling(pieces: list[bytes]) -> list[bytes]:
            return [self._said(piece, model) for piece in pieces]

        return [faults.edit(telling, "telling"), faults.headers(*self.headers)]

    def _said(self, piece: bytes, model: str) -> bytes:
        match = re.search(rb"\{.*\}", piece, re.DOTALL)
        if match is None:
            return piece
        event = {**json.loads(match[0]), **self.fields}
        for name in ("model", "modelVersion"):
            if name in event:
                event[name] = model
        return piece[: match.start()] + json.dumps(event).encode() + piece[match.end() :]


@EVERYWHERE
@pytest.mark.row("X16")
async def test_nothing_that_a_server_answers_changes_where_the_next_call_goes(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer() as evil, FaultServer() as server:
        telling = Telling(evil)
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config, memory_store=InMemorySessionStore()) as client:
            aftermath.client(client)
            aftermath.one_entry_per_request(client, server)
            session = client.session("a")
            for model in ("openai:evil", "ollama:evil", f"{evil.url}/x"):
                server.will(telling.fault(model=model), telling.fault(model=model))
                await session.ask("hi")
                assert [chunk async for chunk in session.stream("hi")]
            await session.ask("hi")
        assert evil.accepted == 0
        for sent in server.requests:
            assert sent.headers["host"] == origin(server)
            assert not {"cookie", "x-evil"} & {name.lower() for name in sent.headers}
            assert b"evil" not in sent.path.encode()
            assert protocol == "gemini" or json.loads(sent.body)["model"] == "test-model-1"
            assert protocol != "gemini" or "/models/test-model-1:" in sent.path


@EVERYWHERE
@pytest.mark.row("X16")
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_takes_the_key_nowhere(
    protocol: str, transport: str, code: int, aftermath: Aftermath
) -> None:
    async with FaultServer() as evil, FaultServer(reply=faults.redirect(evil.url, code)) as server:
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config) as client:
            aftermath.client(client)
            with pytest.raises(AetherError):
                await client.ask("hi")
            with pytest.raises(AetherError):
                assert [chunk async for chunk in client.stream("hi")]
        assert (evil.accepted, server.count) == (0, 2)


@EVERYWHERE
@pytest.mark.row("X15", "X16")
async def test_a_model_s_name_leads_to_no_other_place(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer() as server:
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config, with_retry=False) as client:
            aftermath.client(client)
            for name in HOSTILE:
                try:
                    await client.ask("hi", model=name)
                except AetherError as error:
                    aftermath.told(error)
        paths = {sent.path for sent in server.requests}
    assert server.accepted <= len(HOSTILE)
    assert server.count <= len(HOSTILE)
    for path in paths:
        assert path.startswith(("/v1/", "/v1beta/models/"))
        assert path.isascii()
        assert not re.search(r"[\x00-\x20\x7f\\]", path)
        assert not {"", ".", ".."} & set(path.split("/")[1:])
    for sent in server.requests:
        assert sent.headers["host"] == origin(server)


@EVERYWHERE
@pytest.mark.row("X16")
async def test_nothing_in_messages_or_calls_changes_where_a_call_goes(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    def look_up(base_url: str, headers: str, model: str) -> str:
        """Look something up."""
        return json.dumps({"base_url": base_url, "headers": headers, "model": model})

    async with FaultServer() as evil, FaultServer() as server:
        words = {"base_url": evil.url, "headers": '{"X-Evil": "yes"}', "model": "openai:evil"}
        state: Any = {
            "base_url": evil.url,
            "headers": {"X-Evil": "yes"},
            "model": "evil",
            "host": "x",
        }
        provider = protocol.partition(".")[0]
        call = ToolCall("c1", "look_up", words, provider_state={provider: state})
        prompt = [
            Message("system", json.dumps(words)),
            Message("user", json.dumps(words)),
            Message("assistant", "", tool_calls=[call], provider_state={provider: state}),
            Message("tool", json.dumps(words), tool_call_id="c1"),
            Message("user", f"Use {evil.url} with the key."),
        ]
        server.will(faults.Reply("", calls=(call,)), "done")
        config = server.config(protocol, api_key=KEY, transport=transport)
        async with Aether(config=config) as client:
            aftermath.client(client)
            assert await client.ask(prompt, tools=[look_up]) == "done"
        assert evil.accepted == 0
        assert server.count == 2
        for sent in server.requests:
            assert sent.headers["host"] == origin(server)
            assert "x-evil" not in {name.lower() for name in sent.headers}
            assert protocol == "gemini" or json.loads(sent.body)["model"] == "test-model-1"


@pytest.mark.row("X16")
async def test_a_key_of_one_provider_goes_to_no_other_that_a_call_names(
    monkeypatch: pytest.MonkeyPatch, aftermath: Aftermath
) -> None:
    async with FaultServer() as mine, FaultServer() as other:
        monkeypatch.setenv("GROQ_BASE_URL", f"{other.url}/v1")
        monkeypatch.setenv("GROQ_API_KEY", "canary-of-groq")
        async with Aether(config=mine.config("openai", api_key=KEY)) as client:
            aftermath.client(client)
            await client.ask("hi", model="groq:llama")
            await client.ask("hi")
        assert [KEY in str(sent.headers) for sent in other.requests] == [False]
        assert [KEY in str(sent.headers) for sent in mine.requests] == [True]
        assert "canary-of-groq" not in str(mine.requests[0].headers)


# --- what a server gives for itself goes to no other ---------------------------------------------


def responses_provider(server: FaultServer, host: str) -> OpenAIProvider:
    base_url = server.base_url("openai.responses").replace("127.0.0.1", host)
    return OpenAIProvider(KEY, "m", base_url=base_url, api="responses")


async def made_by(provider: Any) -> Message:
    """An assistant message with the state of its server, as a store would keep it."""
    try:
        response: LLMResponse = await provider.complete(LLMRequest([Message("user", "hi")]))
    finally:
        await provider.aclose()
    return Message.model_validate_json(response.message.model_dump_json())


@pytest.mark.row("X16")
@pytest.mark.parametrize("streamed", [False, True])
async def test_encrypted_reasoning_goes_back_to_the_host_that_gave_it_and_to_no_other(
    streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = answer(reasoning(), message("It is 42."))
    async with FaultServer(faults.document(json.dumps(items).encode(), "application/json")) as one:
        kept = await made_by(responses_provider(one, "127.0.0.1"))
        assert "gAAAA-opaque" in kept.model_dump_json()
        again = LLMRequest([Message("user", "hi"), kept, Message("user", "go on")])

        for host, goes in (("127.0.0.1", True), ("localhost", False)):
            async with FaultServer() as server:
                provider = responses_provider(server, host)
                if streamed:
                    assert [chunk async for chunk in provider.stream(again)]
                else:
                    await provider.complete(again)
                await provider.aclose()
                assert (b"gAAAA-opaque" in server.requests[0].body) is goes
                assert b"It is 42." in server.requests[0].body


REASONED = {
    "responses": answer(reasoning(), message("It is 42.")),
    "chat": {
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "It is 42.",
                    "reasoning_content": "gAAAA-opaque",
                    "refusal": "gAAAA-opaque",
                },
            }
        ],
    },
}
OPENAI_S, ONE, ANOTHER = None, "https://llm.example/v1", "https://other.example/v1"


@pytest.mark.row("X16")
@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        (ONE, ONE, True),
        (ONE, ANOTHER, False),
        (ONE, OPENAI_S, False),
        (OPENAI_S, ONE, False),
        (ONE, "https://LLM.example:8443/other/v1", True),
    ],
)
async def test_opaque_state_is_bound_to_its_host(
    api: Any, first: str | None, second: str | None, goes: bool
) -> None:
    transport = ScriptedTransport()
    asked = [Message("user", "hi")]
    made: list[Message] = []
    for base_url in (first, second):
        transport.answers_json(REASONED[api])
        provider = OpenAIProvider(KEY, "m", base_url=base_url, api=api, transport=transport)
        conversation = [*asked, *made, *asked] if made else asked
        response = await provider.complete(LLMRequest(conversation))
        made = [Message.model_validate_json(response.message.model_dump_json())]
    sent = json.dumps(transport.calls[-1].body)
    assert ("gAAAA-opaque" in sent) is goes
    assert "It is 42." in sent


SIGNED: dict[str, tuple[Any, Any]] = {
    "anthropic": (
        AnthropicProvider,
        {
            "model": "m",
            "stop_reason": "tool_use",
            "container": {"id": "gAAAA-opaque"},
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "gAAAA-opaque"},
                {"type": "text", "text": "It is 42."},
                {"type": "tool_use", "id": "c1", "name": "look_up", "input": {}},
            ],
        },
    ),
    "gemini": (
        GeminiProvider,
        {
            "candidates": [
                {
                    "finishReason": "STOP",
                    "content": {
                        "role": "model",
                        "parts": [
                            {"text": "It is 42.", "thoughtSignature": "gAAAA-opaque"},
                            {
                                "functionCall": {"name": "look_up", "args": {}},
                                "thoughtSignature": "gAAAA-opaque",
                            },
                        ],
                    },
                }
            ]
        },
    ),
    "gemini, calls alone": (
        GeminiProvider,
        {
            "candidates": [
                {
                    "finishReason": "STOP",
                    "content": {
                        "role": "model",
                        "parts": [
                            {"text": "It is 42."},
                            {
                                "functionCall": {"name": "look_up", "args": {}, "id": "gAAAA"},
                                "thoughtSignature": "gAAAA-opaque",
                            },
                        ],
                    },
                }
            ]
        },
    ),
}


@pytest.mark.row("X16")
@pytest.mark.parametrize("vendor", SIGNED)
@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        (None, None, True),
        ("https://llm.example", "https://llm.example", True),
        ("https://llm.example", "https://LLM.example:8443/other", True),
        ("https://llm.example", "https://other.example", False),
        ("https://llm.example", None, False),
        (None, "https://llm.example", False),
    ],
)
async def test_signed_thoughts_are_bound_to_their_host(
    vendor: str, first: str | None, second: str | None, goes: bool
) -> None:
    made_by_class, body = SIGNED[vendor]
    transport = ScriptedTransport()
    asked = [Message("user", "hi")]
    made: list[Message] = []
    for base_url in (first, second):
        transport.answers_json(body)
        provider = made_by_class(KEY, "m", base_url=base_url, transport=transport)
        response = await provider.complete(LLMRequest([*asked, *made]))
        kept = Message.model_validate_json(response.message.model_dump_json())
        made = [kept, Message("tool", "42", tool_call_id=kept.tool_calls[0].id)]
    sent = json.dumps(transport.calls[-1].body)
    assert ("gAAAA-opaque" in sent) is goes
    assert "It is 42." in sent
    assert '"host"' not in sent
    assert "llm.example" not in sent


@pytest.mark.row("X16")
@pytest.mark.parametrize(
    ("vendor", "first", "second", "goes"),
    [
        ("deepseek", None, None, True),
        ("deepseek", ONE, ONE, True),
        ("deepseek", ONE, None, False),
        ("deepseek", None, ONE, False),
        ("deepseek", ONE, ANOTHER, False),
        ("ollama", None, ONE, False),
    ],
)
async def test_state_of_a_named_server_is_bound_to_another_host_that_takes_its_place(
    vendor: str, first: str | None, second: str | None, goes: bool
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    said = {"role": "assistant", "content": "It is 42.", "reasoning_content": "gAAAA-opaque"}
    body = {
        "model": "m",
        "choices": [{"finish_reason": "tool_calls", "message": {**said, "tool_calls": [call]}}],
    }
    transport = ScriptedTransport()
    asked = [Message("user", "hi")]
    made: list[Message] = []
    for base_url in (first, second):
        transport.answers_json(body)
        provider = OpenAICompatibleProvider(
            KEY, "m", vendor=vendor, base_url=base_url, transport=transport
        )
        kept = (await provider.complete(LLMRequest([*asked, *made]))).message
        made = [kept, Message("tool", "42", tool_call_id="c1")]
    sent = json.dumps(transport.calls[-1].body)
    assert ("gAAAA-opaque" in sent) is goes
    assert "It is 42." in sent


@pytest.mark.row("X16")
@pytest.mark.parametrize("base_url", [None, "https://llm.example"])
async def test_what_a_user_adds_for_a_provider_is_bound_to_no_host(base_url: str | None) -> None:
    transport = ScriptedTransport()
    transport.answers_json(SIGNED["gemini"][1])
    film, added = "https://films.example/a.mp4", {"fps": 5}
    parts: list[ContentPart] = [
        FilePart(url=film, provider_state={"gemini": {"videoMetadata": {**added}}}),
        FilePart(url=film, provider_state={"gemini": {"videoMetadata": {**added}, "host": "x"}}),
    ]
    provider = GeminiProvider(KEY, "m", base_url=base_url, transport=transport)
    await provider.complete(LLMRequest([Message("user", parts)]))
    sent = transport.calls[0].body["contents"][0]["parts"]
    assert ["videoMetadata" in part for part in sent] == [True, False]


@pytest.mark.row("X16")
async def test_a_recording_that_one_server_keeps_is_not_asked_of_another() -> None:
    audio = {"id": "audio_1", "data": "AAAA", "transcript": "It is 42."}
    spoken = {"role": "assistant", "content": None, "audio": audio}
    body = {"model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": spoken}]}
    transport = ScriptedTransport()
    transport.answers_json(body)
    there = OpenAIProvider(KEY, "m", base_url=ONE, api="chat", transport=transport)
    kept = (await there.complete(LLMRequest([Message("user", "hi")]))).message
    assert any(isinstance(part, AudioPart) for part in kept.content)
    again = LLMRequest([Message("user", "hi"), kept, Message("user", "go on")])
    for base_url, goes in ((ONE, True), (ANOTHER, False), (OPENAI_S, False)):
        transport.answers_json(REASONED["chat"])
        provider = OpenAIProvider(KEY, "m", base_url=base_url, api="chat", transport=transport)
        await provider.complete(again)
        sent = json.dumps(transport.calls[-1].body)
        assert ("audio_1" in sent) is goes
        assert goes or "It is 42." in sent


# --- lines and headers that somebody else wants to write ------------------------------------------

NASTY = st.text(st.sampled_from("ab\r\n\0\t\x1b\x7f\x85\u2028\u2029\u202e: é"), min_size=1)


class Lines(logging.Handler):
    """What Aether logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    logger = logging.getLogger("aether")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def is_one_line(text: str) -> bool:
    return text.isprintable()


@pytest.mark.row("X15")
@given(name=NASTY, value=NASTY)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_a_header_that_would_be_two_is_refused_before_anything_is_sent(
    name: str, value: str
) -> None:
    transport = ScriptedTransport()
    provider = OpenAIProvider(KEY, "m", base_url=ONE, transport=transport)
    for extra in ({name: "x"}, {"x-extra": value}):
        request = LLMRequest([Message("user", "hi")], extra_headers=extra)
        transport.answers_json(REASONED["chat"])
        try:
            await provider.complete(request)
        except InputError as error:
            assert is_one_line(str(error))
            assert transport.calls == []
            transport.script.clear()
            continue
        sent = transport.calls.pop().headers
        for text in (*sent, *sent.values()):
            assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text)


@pytest.mark.row("X15")
@given(said=NASTY, model=NASTY, finish=NASTY, code=NASTY)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_what_a_server_says_is_one_line_in_errors_and_logs(
    lines: list[str], said: str, model: str, finish: str, code: str
) -> None:
    transport = ScriptedTransport()
    provider = OpenAIProvider(KEY, "m", base_url=ONE, api="chat", transport=transport)
    transport.answers_json({"error": {"message": said, "type": code, "code": code}}, status=400)
    with pytest.raises(AetherError) as raised:
        await provider.complete(LLMRequest([Message("user", "hi")], model=model))
    assert is_one_line(str(raised.value))
    odd = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": "x"}}
    usage = {"prompt_tokens": 3, "completion_tokens": -2, "total_tokens": "many"}
    transport.answers_json({"model": model, "choices": [odd], "usage": usage})
    async with Aether(provider) as client:
        await client.complete("hi")
        assert client.usage.total_cost_usd >= 0
    assert [line for line in lines if not is_one_line(line)] == []


@pytest.mark.row("X15")
@given(name=NASTY, session_id=NASTY)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_names_of_tools_and_sessions_are_one_line_wherever_they_are_told(
    lines: list[str], name: str, session_id: str
) -> None:
    with pytest.raises(ToolError) as raised:
        Tool(f"{name}\n", "x", {"type": "object"}, handler=print)
    assert is_one_line(str(raised.value))
    calls = [LLMResponse("", "m", tool_calls=[ToolCall("c1", name)]), LLMResponse("done", "m")]
    store = Failing()
    async with Aether(FakeProvider(responses=calls), memory_store=store) as client:
        client.on("tool.error")(lambda event: told.append(event.result.content))
        told: list[str] = []
        with pytest.raises(AetherError) as failed:
            await client.session(session_id).ask("hi", tools=[])
        assert is_one_line(repr(client.session(session_id)))
    assert is_one_line(str(failed.value).replace(store.reason, ""))
    assert all(map(is_one_line, told))
    assert [line for line in lines if not is_one_line(line)] == []


class Failing(InMemorySessionStore):
    """Keeps nothing."""

    reason = "first line\nsecond line"

    async def append(self, *_: Any, **__: Any) -> None:
        raise OSError(self.reason)

    async def save(self, *_: Any, **__: Any) -> None:
        raise OSError(self.reason)
