"""Which of OpenAI's protocols is spoken, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import ConfigurationError, InputError
from aether.extensions.llm.openai import OpenAIProvider
from aether.llm.contracts import Message, ToolCall
from aether.tools import Tool
from tests.llm.responses_wire import KEY, answer, call, message, provider, reasoning, request

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

CHAT = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
ADD = Tool(name="add", description="", parameters={"type": "object"}, handler=lambda: 1)


async def url_of(transport: ScriptedTransport, **options: Any) -> str:
    """Where a request goes, whichever protocol it is in."""
    transport.answers_json({**answer(message("Hello")), **CHAT})
    response = await provider(transport, **options).complete(request())
    assert response.text == "Hello"
    return transport.calls[-1].url


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (None, "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/", "https://api.openai.com/v1/responses"),
        ("https://API.OpenAI.com/", "https://API.OpenAI.com/v1/responses"),
        ("https://eu.api.openai.com", "https://eu.api.openai.com/v1/responses"),
        ("https://api.openai.com/v2", "https://api.openai.com/v2/responses"),
        ("https://api.openai.com/v1/responses", "https://api.openai.com/v1/responses"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/responses/", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000", "http://localhost:8000/chat/completions"),
        ("https://api.openai.com.evil/v1", "https://api.openai.com.evil/v1/chat/completions"),
        ("https://notapi.openai.com/v1", "https://notapi.openai.com/v1/chat/completions"),
    ],
)
async def test_the_host_decides_which_protocol_is_spoken(
    transport: ScriptedTransport, base_url: str | None, url: str
) -> None:
    assert await url_of(transport, base_url=base_url) == url
    assert await url_of(transport, base_url=base_url, api="auto") == url


async def test_a_choice_stands_over_the_host(transport: ScriptedTransport) -> None:
    local = "http://localhost:8000/v1"
    assert (await url_of(transport, api="chat")).endswith("/v1/chat/completions")
    assert await url_of(transport, api="responses", base_url=local) == f"{local}/responses"


async def test_the_environment_chooses_where_nobody_else_does(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = "http://localhost:8000/v1"
    monkeypatch.setenv("OPENAI_API", "chat")
    assert (await url_of(transport)).endswith("/chat/completions")
    assert (await url_of(transport, api="auto")).endswith("/responses")
    monkeypatch.setenv("OPENAI_API", "responses")
    assert (await url_of(transport, base_url=local)).endswith("/responses")
    assert (await url_of(transport, base_url=local, api="chat")).endswith("/chat/completions")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'auto', 'chat' or 'responses', not 'soap'"):
        OpenAIProvider(KEY, api="soap")  # type: ignore[arg-type] # the point of the test


def test_the_provider_says_which_protocol_it_speaks() -> None:
    made = OpenAIProvider(KEY)
    assert made.api == "responses"
    assert repr(made) == (
        "OpenAIProvider(default_model='gpt-6-luna', base_url='https://api.openai.com/v1', "
        "api='responses')"
    )


@pytest.mark.parametrize("url", ["https://api.openai.com", "https://eu.api.openai.com/v1"])
def test_openai_s_own_hosts_need_a_key(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIProvider(base_url=url)


async def test_a_model_that_takes_tools_over_responses_alone_works_as_it_is(
    transport: ScriptedTransport,
) -> None:
    transport.answers_json(answer(reasoning(), call("{}")))
    made = provider(transport, "gpt-6-astra")
    asked = request(tools=[ADD])
    response = await made.complete(asked)
    assert response.tool_calls == [ToolCall("call_1", "add", {})]
    transport.answers_json(answer(message("1")))
    result = Message("tool", "1", tool_call_id="call_1")
    messages = (*asked.messages, response.message, result)
    assert (await made.complete(asked.replace(messages=messages))).text == "1"
    kinds = [item["type"] for item in transport.calls[-1].body["input"]]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]


async def test_over_chat_such_a_model_is_refused_with_the_way_out(
    transport: ScriptedTransport,
) -> None:
    with pytest.raises(InputError, match=r"Responses API.*api='responses'"):
        await provider(transport, "gpt-6-astra", api="chat").complete(request(tools=[ADD]))
    assert not transport.calls
