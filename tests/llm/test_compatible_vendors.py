"""The well-known servers that speak OpenAI's protocol: each where it is, and as it wants it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import ConfigurationError, UnknownNameError
from aether.extensions.llm._vendors import VENDORS
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.llm.contracts import LLMRequest, Message, ToolCall

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

KEY = "key-canary-0123456789"
OK = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
LOCAL = ("ollama", "vllm", "llamacpp", "lmstudio")


def provider(vendor: str, transport: Any, **options: Any) -> OpenAICompatibleProvider:
    if VENDORS[vendor].base_url is None:
        options.setdefault("base_url", "https://mine.example")
    return OpenAICompatibleProvider(KEY, "m", vendor=vendor, transport=transport, **options)


def request(*messages: Message, **fields: Any) -> LLMRequest:
    return LLMRequest(messages or [Message("user", "hi")], **fields)


@pytest.mark.parametrize(
    ("vendor", "url"),
    [
        ("ollama", "http://localhost:11434/v1/chat/completions"),
        ("vllm", "http://localhost:8000/v1/chat/completions"),
        ("llamacpp", "http://localhost:8080/v1/chat/completions"),
        ("lmstudio", "http://localhost:1234/v1/chat/completions"),
        ("groq", "https://api.groq.com/openai/v1/chat/completions"),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions"),
        ("deepseek", "https://api.deepseek.com/chat/completions"),
        ("mistral", "https://api.mistral.ai/v1/chat/completions"),
        ("xai", "https://api.x.ai/v1/chat/completions"),
        ("together", "https://api.together.xyz/v1/chat/completions"),
        ("cerebras", "https://api.cerebras.ai/v1/chat/completions"),
        ("perplexity", "https://api.perplexity.ai/chat/completions"),
        (
            "azure",
            "https://mine.example/openai/deployments/m/chat/completions?api-version=2024-10-21",
        ),
    ],
)
async def test_each_is_called_where_it_is(
    transport: ScriptedTransport, vendor: str, url: str
) -> None:
    transport.answers_json(OK)
    response = await provider(vendor, transport).complete(request())
    (call,) = transport.calls
    assert call.url == url
    assert response.provider == vendor
    carried = "api-key" if vendor == "azure" else "authorization"
    assert call.headers[carried] == (KEY if vendor == "azure" else f"Bearer {KEY}")
    assert sum(KEY in value for value in call.headers.values()) == 1


def test_every_row_is_tried() -> None:
    (marker,) = test_each_is_called_where_it_is.pytestmark  # type: ignore[attr-defined] # pytest's
    assert {row[0] for row in marker.args[1]} == set(VENDORS)


async def test_azures_version_and_deployment_can_be_chosen(transport: ScriptedTransport) -> None:
    transport.answers_json(OK)
    base_url = "https://mine.example/?api-version=2099-01-01-preview"
    await provider("azure", transport, base_url=base_url).complete(request(model="a b/c"))
    assert transport.calls[0].url == (
        "https://mine.example/openai/deployments/a%20b%2Fc/chat/completions"
        "?api-version=2099-01-01-preview"
    )


async def test_azures_first_chunk_without_choices_is_no_end(transport: ScriptedTransport) -> None:
    chunks: list[Any] = [
        {"choices": [], "prompt_filter_results": [{}]},
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]},
    ]
    transport.answers(*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))
    stream = provider("azure", transport).stream(request())
    assert [chunk.text async for chunk in stream] == ["x", ""]


def test_azure_needs_an_address() -> None:
    with pytest.raises(ConfigurationError, match="AZURE_BASE_URL"):
        OpenAICompatibleProvider(KEY, vendor="azure")


@pytest.mark.parametrize("vendor", sorted(set(VENDORS) - set(LOCAL)))
def test_without_a_key_the_cloud_ones_say_what_to_set(vendor: str) -> None:
    base_url = "https://mine.example" if vendor == "azure" else None
    variable = f"{vendor.upper()}_API_KEY"
    with pytest.raises(ConfigurationError, match=rf"{variable}.*LLM_PROVIDER=local"):
        OpenAICompatibleProvider(vendor=vendor, base_url=base_url)


@pytest.mark.parametrize("vendor", LOCAL)
async def test_the_local_ones_need_no_key(transport: ScriptedTransport, vendor: str) -> None:
    transport.answers_json(OK)
    made = OpenAICompatibleProvider(None, "m", vendor=vendor, transport=transport)
    await made.complete(request())
    assert "authorization" not in transport.calls[0].headers


@pytest.mark.parametrize(
    ("vendor", "base_url", "url"),
    [
        ("ollama", "http://localhost:11434", "http://localhost:11434/v1"),
        ("groq", "https://API.groq.com/", "https://API.groq.com/openai/v1"),
        ("mistral", "https://api.mistral.ai/v1/", "https://api.mistral.ai/v1"),
        ("mistral", "https://api.mistral.ai/v2", "https://api.mistral.ai/v2"),
        ("deepseek", "https://api.deepseek.com/", "https://api.deepseek.com"),
        ("ollama", "http://elsewhere:11434", "http://elsewhere:11434"),
        ("groq", "https://api.groq.com.evil", "https://api.groq.com.evil"),
        ("groq", "http://api.groq.com", "http://api.groq.com"),
        ("azure", "https://mine.example/", "https://mine.example"),
    ],
)
def test_the_path_of_its_own_address_may_be_left_out(vendor: str, base_url: str, url: str) -> None:
    assert OpenAICompatibleProvider(KEY, vendor=vendor, base_url=base_url).base_url == url


def test_a_base_url_that_is_none_is_refused() -> None:
    for base_url in ("http://[::1", "api.groq.com", "https://"):
        with pytest.raises(ConfigurationError, match="base URL"):
            OpenAICompatibleProvider(KEY, vendor="groq", base_url=base_url)


async def test_the_environment_has_the_key_for_its_own_host_alone(
    transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    for base_url in (None, "http://h/v1", "https://api.groq.com"):
        transport.answers_json(OK)
        made = OpenAICompatibleProvider(
            None, "m", vendor="groq", base_url=base_url, transport=transport
        )
        await made.complete(request())
    assert transport.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in transport.calls[1].headers
    assert transport.calls[2].headers["authorization"] == f"Bearer {KEY}"


async def test_without_a_model_it_says_what_to_set(transport: ScriptedTransport) -> None:
    made = OpenAICompatibleProvider(KEY, vendor="groq", transport=transport)
    assert made.default_model is None
    with pytest.raises(ConfigurationError, match="GROQ_MODEL"):
        await made.complete(request())
    transport.answers_json(OK)
    await made.complete(request(model="llama"))
    assert transport.calls[0].body["model"] == "llama"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'groq'.*openrouter"):
        OpenAICompatibleProvider(vendor="grok")


def test_its_repr_shows_no_key(transport: ScriptedTransport) -> None:
    made = provider("groq", transport)
    assert repr(made) == (
        "OpenAICompatibleProvider(vendor='groq', default_model='m', "
        "base_url='https://api.groq.com/openai/v1')"
    )
    assert KEY not in str(vars(made))


async def test_what_a_server_showed_of_its_reasoning_goes_back_to_it(
    transport: ScriptedTransport,
) -> None:
    call = {"id": "c1", "function": {"name": "add", "arguments": "{}"}}
    message = {"content": None, "reasoning_content": "hm", "tool_calls": [call]}
    transport.answers_json({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    transport.answers_json(OK)
    made = provider("deepseek", transport)
    first = await made.complete(request())
    assert first.reasoning == "hm"
    assert first.tool_calls == [ToolCall("c1", "add", {})]
    stored = Message.model_validate_json(first.message.model_dump_json())
    result = Message("tool", "42", tool_call_id="c1")
    await made.complete(request(Message("user", "hi"), stored, result))
    assert transport.calls[1].body["messages"][1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        ],
    }


def test_the_table_of_vendors_is_read_without_anything_else() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "import aether.extensions.llm._vendors\n"
        "print([m for m in sys.modules if m.startswith('aether.') and 'vendors' not in m])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    names = found.stdout.decode()
    assert "_http" not in names
    assert "_wire" not in names
