"""What is sent: the body of a Chat Completions call, and what is refused before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import InputError
from aether.extensions.llm._vendors import ELSEWHERE, OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.openai_chat import ChatCodec, render_request
from aether.llm.contracts import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMRequest,
    Message,
    ProviderState,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from aether.llm.profiles import ModelProfile, profile_for


def render(
    *messages: Message,
    vendor: Vendor = OPENAI,
    model: str = "gpt-4.1-mini",
    stream: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    request = LLMRequest(messages or [Message("user", "hi")], **fields)
    return render_request(request, model=model, vendor=vendor, stream=stream, now=0)


@dataclass(frozen=True)
class Spec:
    name: str = "add"
    description: str = "Adds."
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType({"type": "object", "properties": {}})
    )


def tool(name: str = "add") -> ToolSpec:
    return Spec(name)


def called(*ids: str, **fields: Any) -> Message:
    return Message(
        "assistant", tool_calls=[ToolCall(call_id, "add", {"a": 1}) for call_id in ids], **fields
    )


def result(id: str | None, content: str = "1") -> Message:
    return Message("tool", content, tool_call_id=id)


def test_a_plain_request_says_nothing_that_nobody_asked_for() -> None:
    assert render() == {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_a_stream_asks_for_its_usage_where_the_server_takes_the_option() -> None:
    assert render(stream=True)["stream_options"] == {"include_usage": True}
    mistral = render(stream=True, vendor=VENDORS["mistral"])
    assert mistral["stream"] is True
    assert "stream_options" not in mistral


@pytest.mark.parametrize(
    ("model", "is_default", "sent"),
    [
        ("gpt-4o-mini", True, True),
        ("gpt-4.1-2025-04-14", True, True),
        ("openai/gpt-4.1", True, True),
        ("gpt-6-luna", True, False),
        ("o3-mini", True, False),
        ("llama3", True, False),
        ("gpt-6-luna", False, True),
        ("llama3", False, True),
    ],
)
def test_a_temperature_that_nobody_chose_goes_to_models_known_to_take_it(
    model: str, is_default: bool, sent: bool
) -> None:
    body = render(model=model, temperature=0.7, temperature_is_default=is_default)
    assert ("temperature" in body) is sent


@pytest.mark.parametrize(
    ("vendor", "model", "field"),
    [
        (OPENAI, "gpt-4o", "max_completion_tokens"),
        (OPENAI, "gpt-7-not-known", "max_completion_tokens"),
        (ELSEWHERE, "llama3", "max_tokens"),
        (ELSEWHERE, "gpt-4o", "max_tokens"),
        (ELSEWHERE, "gpt-6-luna", "max_completion_tokens"),
        (VENDORS["groq"], "llama3", "max_completion_tokens"),
        (VENDORS["deepseek"], "deepseek-v4-flash", "max_tokens"),
        (VENDORS["openrouter"], "openai/gpt-6-luna", "max_tokens"),
    ],
)
def test_the_output_limit_goes_by_server_and_then_by_model(
    vendor: Vendor, model: str, field: str
) -> None:
    body = render(vendor=vendor, model=model, max_tokens=5)
    assert body[field] == 5
    assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1


def test_options_are_sent_as_they_were_chosen() -> None:
    body = render(top_p=0.5, seed=7, stop="END", extra_body={"user": "u", "seed": 8})
    assert body["top_p"] == 0.5
    assert body["stop"] == ["END"]
    assert body["user"] == "u"
    assert body["seed"] == 8
    assert render(seed=7, vendor=VENDORS["mistral"])["random_seed"] == 7


def test_tools_are_described_and_chosen() -> None:
    body = render(tools=[tool()], tool_choice="add")
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Adds.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert render(tools=[tool()], tool_choice="required")["tool_choice"] == "required"
    assert render(tools=[tool()], tool_choice="none")["tool_choice"] == "none"
    mistral = render(tools=[tool()], tool_choice="required", vendor=VENDORS["mistral"])
    assert mistral["tool_choice"] == "any"
    assert "tool_choice" not in render(tool_choice="auto")


def test_reasoning_is_switched_off_where_tools_demand_it() -> None:
    assert render(model="gpt-6-luna", tools=[tool()])["reasoning_effort"] == "none"
    assert "reasoning_effort" not in render(model="gpt-6-luna")
    assert "reasoning_effort" not in render(model="gpt-4.1", tools=[tool()])
    chosen = render(model="gpt-6-luna", tools=[tool()], extra_body={"reasoning_effort": "low"})
    assert chosen["reasoning_effort"] == "low"


def test_a_tool_that_cannot_be_named_is_demanded_by_being_the_only_one() -> None:
    tools = [tool("add"), tool("subtract")]
    for name in ("llamacpp", "lmstudio"):
        body = render(tools=tools, tool_choice="subtract", vendor=VENDORS[name])
        assert [each["function"]["name"] for each in body["tools"]] == ["subtract"]
        assert body["tool_choice"] == "required"
    llamacpp = VENDORS["llamacpp"]
    free = render(tools=tools, tool_choice="required", vendor=llamacpp)
    assert len(free["tools"]) == 2
    with pytest.raises(InputError, match="tool_choice"):
        render(tools=tools, tool_choice="divide", vendor=llamacpp)


def test_a_seed_is_left_out_where_there_is_none() -> None:
    for name in ("deepseek", "perplexity"):
        body = render(seed=7, vendor=VENDORS[name])
        assert not {"seed", "random_seed"} & set(body)


def test_the_default_model_takes_tools_over_chat_completions() -> None:
    assert OPENAI.default_model is not None
    profile = profile_for(OPENAI.default_model)
    assert profile.chat_tools in ("plain", "without_reasoning")
    assert profile.source


def test_a_model_that_takes_no_tools_here_is_an_error_that_names_another() -> None:
    with pytest.raises(InputError, match="gpt-6-luna"):
        render(model="gpt-6.1-sol", tools=[tool()])
    assert "tools" in render(model="gpt-6.1-sol", tools=[tool()], vendor=VENDORS["openrouter"])


@pytest.mark.parametrize("name", ["mcp.server.tool", "", "a" * 65, "añadir", "two words", "a\n"])
def test_a_tool_name_that_is_refused_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(InputError, match="tool name"):
        render(tools=[tool(name)])


@pytest.mark.parametrize(
    ("tools", "choice"), [([], "required"), ([], "add"), ([tool()], "subtract")]
)
def test_a_choice_without_its_tool_is_an_error(tools: list[ToolSpec], choice: str) -> None:
    with pytest.raises(InputError, match="tool_choice"):
        render(tools=tools, tool_choice=choice)


LOOSE = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = {**LOOSE, "required": ["a"], "additionalProperties": False}


def test_a_schema_is_enforced_where_it_can_be() -> None:
    described = render(output_schema=CLOSED)["response_format"]["json_schema"]
    assert described == {"name": "answer", "schema": CLOSED, "strict": True}


def test_a_schema_is_written_as_strict_mode_wants_it() -> None:
    described = render(output_schema=LOOSE)["response_format"]["json_schema"]
    assert described["strict"] is True
    assert described["schema"]["required"] == ["a"]
    assert described["schema"]["additionalProperties"] is False
    assert "required" not in LOOSE


def test_a_schema_that_strict_mode_cannot_say_is_sent_as_it_is() -> None:
    free = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert render(output_schema=free)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": free},
    }


@pytest.mark.parametrize(
    ("vendor", "model", "strict"),
    [
        ("azure", "my-deployment", True),
        ("cerebras", "gpt-oss-120b", True),
        ("groq", "openai/gpt-oss-20b", True),
        ("groq", "meta-llama/llama-4-scout-17b-16e-instruct", False),
        ("mistral", "mistral-large-4", True),
        ("openrouter", "openai/gpt-6-luna", True),
        ("openrouter", "anthropic/claude-sonnet-5-5", False),
        ("vllm", "qwen3", False),
        ("llamacpp", "default", False),
    ],
)
def test_strict_is_said_to_the_servers_that_enforce_it(
    vendor: str, model: str, strict: bool
) -> None:
    body = render(vendor=VENDORS[vendor], model=model, output_schema=LOOSE)
    described = body["response_format"]["json_schema"]
    assert ("strict" in described) is strict
    assert (described["schema"] == LOOSE) is not strict


def test_models_without_schemas_are_told_to_answer_in_json() -> None:
    deepseek = render(output_schema=CLOSED, vendor=VENDORS["deepseek"])
    assert deepseek["response_format"] == {"type": "json_object"}
    groq = render(output_schema=CLOSED, vendor=VENDORS["groq"], model="llama-3.3-70b-versatile")
    assert groq["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("vendor", "model", "tools", "mode"),
    [
        (OPENAI, "gpt-6-luna", True, "native"),
        (VENDORS["deepseek"], "deepseek-v4-flash", False, "prompt"),
        (VENDORS["groq"], "openai/gpt-oss-120b", False, "native"),
        (VENDORS["groq"], "openai/gpt-oss-120b", True, "tool"),
        (VENDORS["groq"], "llama-3.3-70b-versatile", False, "prompt"),
        (VENDORS["cerebras"], "gpt-oss-120b", True, "tool"),
        (VENDORS["ollama"], "llama3", False, "native"),
        (VENDORS["ollama"], "llama3", True, "prompt"),
    ],
)
def test_how_a_schema_is_said_goes_by_server_model_and_tools(
    vendor: Vendor, model: str, tools: bool, mode: str
) -> None:
    request = LLMRequest([Message("user", "hi")], output_schema=CLOSED, tools=[tool()] * tools)
    assert ChatCodec(vendor).output_mode(request, model) == mode


def test_a_model_that_could_call_nothing_under_a_schema_is_told_it_in_words_alone() -> None:
    body = render(vendor=VENDORS["ollama"], model="m", tools=[tool()], output_schema=CLOSED)
    assert "response_format" not in body


def test_a_model_known_to_have_no_schemas_answers_by_a_tool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = ModelProfile(patterns=(), native_output=False)
    monkeypatch.setattr("aether.extensions.llm._wire.openai_chat.profile_for", lambda _: profile)
    request = LLMRequest([Message("user", "hi")], output_schema=CLOSED)
    assert ChatCodec(OPENAI).output_mode(request, "m") == "tool"


def test_parts_are_written_in_their_order() -> None:
    body = render(
        Message(
            "user",
            [
                TextPart(text="what?"),
                ImagePart(url="https://example.org/a.png"),
                ImagePart(data=b"png", media_type="image/png"),
                AudioPart(data=b"wav", media_type="audio/wav"),
                FilePart(data=b"pdf", media_type="application/pdf", name="a.pdf"),
                FilePart(data=b"pdf", media_type="application/pdf"),
            ],
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
        {"type": "input_audio", "input_audio": {"data": "d2F2", "format": "wav"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"},
        },
        {
            "type": "file",
            "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,cGRm"},
        },
    ]
    alone = render(Message("user", [TextPart(text="just text")]))
    assert alone["messages"][0]["content"] == "just text"


@pytest.mark.parametrize(
    "message",
    [
        Message("user", [AudioPart(url="https://example.org/a.wav")]),
        Message("user", [AudioPart(data=b"x", media_type="audio/ogg")]),
        Message("user", [FilePart(url="https://example.org/a.pdf")]),
        Message("user", [ReasoningPart(text="hm")]),
        Message("system", [ImagePart(url="https://example.org/a.png")]),
        Message("assistant", [ImagePart(url="https://example.org/a.png")]),
        Message("assistant", [AudioPart(data=b"x", media_type="audio/wav")]),
        Message("user", ""),
        Message("user", []),
    ],
)
def test_what_cannot_be_said_is_an_error_that_names_the_message(message: Message) -> None:
    with pytest.raises(InputError, match="Message 2"):
        render(Message("user", "hi"), message)


def test_an_error_names_the_part_by_its_number() -> None:
    parts: list[Any] = ["Compare:", ImagePart(url="https://h/a"), ImagePart(url="file:///a")]
    with pytest.raises(InputError, match=r"Message 1 \(user\), part 3 .*url"):
        render(Message("user", parts))
    with pytest.raises(InputError, match=r"Message 1 \(system\), part 2 .*text alone"):
        render(Message("system", parts))


@pytest.mark.parametrize("vendor", [OPENAI, VENDORS["azure"]], ids=["openai", "azure"])
@pytest.mark.parametrize(
    ("part", "said"),
    [
        (ImagePart(data=b"x", media_type="image/bmp"), "image/bmp: .* takes image/png, image/jpeg"),
        (ImagePart(data=b"x", media_type="image/svg+xml"), r"image/svg\+xml: .* takes image/png"),
        (AudioPart(data=b"x", media_type="audio/ogg"), "takes audio/wav, audio/mpeg"),
    ],
)
def test_openai_takes_known_types_of_media(
    vendor: Vendor, part: ImagePart | AudioPart, said: str
) -> None:
    with pytest.raises(InputError, match=rf"part 2 is of type .*{said}"):
        render(Message("user", ["Look:", part]), vendor=vendor)


def test_a_server_of_which_nothing_is_known_takes_any_media() -> None:
    body = render(
        Message(
            "user",
            [
                ImagePart(data=b"x", media_type="image/bmp"),
                AudioPart(data=b"x", media_type="audio/ogg"),
                AudioPart(data=b"x", media_type="audio/mp4"),
            ],
        ),
        vendor=ELSEWHERE,
    )
    assert body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,eA=="}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "ogg"}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "m4a"}},
    ]


def test_sound_is_named_by_its_format() -> None:
    for media_type, name in [("audio/x-wav", "wav"), ("audio/mp3", "mp3"), ("AUDIO/MPEG", "mp3")]:
        body = render(Message("user", AudioPart(data=b"x", media_type=media_type)))
        assert body["messages"][0]["content"][0]["input_audio"]["format"] == name


def test_a_part_that_the_server_refuses_is_an_error() -> None:
    with pytest.raises(InputError, match="deepseek"):
        render(
            Message("user", [ImagePart(url="https://example.org/a.png")]),
            vendor=VENDORS["deepseek"],
        )


def test_mistral_gets_sound_and_documents_in_its_own_form() -> None:
    body = render(
        Message(
            "user",
            [
                AudioPart(data=b"wav", media_type="audio/ogg"),
                FilePart(data=b"pdf", media_type="application/pdf", name="a.pdf"),
                FilePart(url="https://example.org/b.pdf"),
            ],
        ),
        vendor=VENDORS["mistral"],
    )
    assert body["messages"][0]["content"] == [
        {"type": "input_audio", "input_audio": "d2F2"},
        {
            "type": "document_url",
            "document_url": "data:application/pdf;base64,cGRm",
            "document_name": "a.pdf",
        },
        {"type": "document_url", "document_url": "https://example.org/b.pdf"},
    ]


@pytest.mark.parametrize(
    ("vendor", "part"),
    [
        ("deepseek", FilePart(data=b"x", media_type="application/pdf")),
        ("groq", FilePart(data=b"x", media_type="application/pdf")),
        ("groq", AudioPart(data=b"x", media_type="audio/wav")),
    ],
)
def test_parts_that_a_server_has_no_form_for_are_an_error(
    vendor: str, part: AudioPart | FilePart
) -> None:
    with pytest.raises(InputError, match=vendor):
        render(Message("user", [part]), vendor=VENDORS[vendor])


def test_one_call_a_turn_is_asked_for_where_the_server_takes_it() -> None:
    asked: dict[str, Any] = {"tools": [tool()], "parallel_tool_calls": False}
    for name in ("azure", "groq", "llamacpp", "mistral", "openrouter", "vllm", "xai"):
        assert render(vendor=VENDORS[name], **asked)["parallel_tool_calls"] is False
    assert render(**asked)["parallel_tool_calls"] is False
    for name in ("deepseek", "ollama", "lmstudio", "together", "cerebras", "perplexity"):
        assert "parallel_tool_calls" not in render(vendor=VENDORS[name], **asked)
    assert "parallel_tool_calls" not in render(vendor=ELSEWHERE, **asked)
    assert "parallel_tool_calls" not in render(parallel_tool_calls=False)
    assert "parallel_tool_calls" not in render(tools=[tool()], parallel_tool_calls=True)


def test_stop_sequences_that_a_model_refuses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ModelProfile(patterns=(), accepts_stop=False)
    module = "aether.extensions.llm._wire.openai_chat.request"
    monkeypatch.setattr(f"{module}.profile_for", lambda _: profile)
    with pytest.raises(InputError, match="stop"):
        render(stop=["END"])
    assert render(stop=["END"], vendor=VENDORS["openrouter"])["stop"] == ["END"]
    assert "stop" not in render()


def test_sampling_that_was_chosen_is_sent_beside_an_effort_of_none() -> None:
    body = render(model="gpt-6-luna", reasoning="none", temperature=0.2, top_p=0.5)
    assert body["reasoning_effort"] == "none"
    assert body["temperature"] == 0.2
    assert body["top_p"] == 0.5


def test_no_messages_are_an_error() -> None:
    with pytest.raises(InputError, match="no messages"):
        render_request(LLMRequest([]), model="m", vendor=OPENAI, stream=False, now=0)


def test_results_are_paired_with_their_calls_and_put_in_their_order() -> None:
    body = render(Message("user", "hi"), called("a", "b"), result("b", "2"), result("a", ""))
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a":1}'},
                }
                for call_id in ("a", "b")
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": ""},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [called("a")],
        [called("a"), Message("user", "well?")],
        [called("a", "b"), result("a"), called("c"), result("c")],
        [result("a")],
        [called("a"), result("b")],
        [called("a"), result("a"), result("a")],
        [called("a", "b"), result(None), result("b")],
        [called("a", "a"), result("a")],
    ],
)
def test_calls_and_results_that_do_not_pair_are_an_error(messages: list[Message]) -> None:
    with pytest.raises(InputError):
        render(Message("user", "hi"), *messages)


def test_the_only_open_call_gets_the_result_that_names_none() -> None:
    assert render(called("a"), result(None))["messages"][1]["tool_call_id"] == "a"


def test_mistral_gets_something_said_between_a_result_and_the_user() -> None:
    turns = [called("a"), result("a"), Message("user", "and now?")]
    roles = [message["role"] for message in render(*turns, vendor=VENDORS["mistral"])["messages"]]
    assert roles == ["assistant", "tool", "assistant", "user"]
    roles = [message["role"] for message in render(*turns)["messages"]]
    assert roles == ["assistant", "tool", "user"]
    two = [Message("user", "hi"), Message("user", "are you there?")]
    assert len(render(*two, vendor=VENDORS["mistral"])["messages"]) == 2


def test_messages_that_say_nothing_are_left_out() -> None:
    body = render(Message("system", ""), Message("user", "hi"), Message("assistant", ""))
    assert body["messages"] == [{"role": "user", "content": "hi"}]


def test_a_name_that_a_model_made_up_is_sent_back_in_a_form_that_is_taken() -> None:
    made_up = Message("assistant", tool_calls=[ToolCall("a", "mcp.add it", {})])
    body = render(made_up, result("a"))
    assert body["messages"][0]["tool_calls"][0]["function"]["name"] == "mcp_add_it"


def test_arguments_that_were_no_json_go_back_as_none() -> None:
    cut = Message("assistant", tool_calls=[ToolCall("a", "add", invalid_arguments='{"a": ')])
    body = render(cut, result("a"))
    assert body["messages"][0]["tool_calls"][0]["function"]["arguments"] == "{}"


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_mistral_gets_ids_of_nine_letters_and_digits_that_still_pair(id: str) -> None:
    messages = render(called(id), result(id), vendor=VENDORS["mistral"])["messages"]
    sent = messages[0]["tool_calls"][0]["id"]
    assert len(sent) == 9
    assert sent.isascii()
    assert sent.isalnum()
    assert messages[1]["tool_call_id"] == sent


def test_mistrals_own_ids_are_kept() -> None:
    body = render(called("qDEcl0n92"), result("qDEcl0n92"), vendor=VENDORS["mistral"])
    assert body["messages"][1]["tool_call_id"] == "qDEcl0n92"


@pytest.mark.parametrize("vendor", [OPENAI, VENDORS["azure"]])
def test_ids_that_are_too_long_for_openai_are_shortened_and_still_pair(vendor: Vendor) -> None:
    long = [f"chatcmpl-tool-{number:032x}" for number in range(2)]
    asked, *results = render(called(*long, "b"), *map(result, [*long, "b"]), vendor=vendor)[
        "messages"
    ]
    sent = [call["id"] for call in asked["tool_calls"]]
    assert [answer["tool_call_id"] for answer in results] == sent
    assert len(set(sent)) == 3
    assert all(len(each) <= 40 for each in sent)
    assert sent[2] == "b"
    elsewhere = render(called(*long), *map(result, long), vendor=ELSEWHERE)["messages"]
    assert [call["id"] for call in elsewhere[0]["tool_calls"]] == long


def test_openai_itself_gets_nothing_back_that_a_server_of_its_name_gave() -> None:
    """A server at another base URL has no name of its own, but state that OpenAI refuses."""
    said: Any = [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "Hi."}]
    call = ToolCall("a", "add", {}, provider_state={"openai": {"extra_content": {"google": "x"}}})
    message = Message(
        "assistant",
        "Hi.",
        tool_calls=[call],
        provider_state={"openai": {"reasoning_content": "because", "content": said}},
    )
    sent = render(message, result("a"))["messages"][0]
    assert set(sent) == {"role", "content", "tool_calls"}
    assert sent["content"] == "Hi."
    assert set(sent["tool_calls"][0]) == {"id", "type", "function"}
    back = render(message, result("a"), vendor=ELSEWHERE)["messages"][0]
    assert back["reasoning_content"] == "because"
    assert back["content"] == said
    assert back["tool_calls"][0]["extra_content"] == {"google": "x"}


def test_reasoning_goes_back_to_the_server_that_gave_it_and_to_no_other() -> None:
    state = {"deepseek": {"reasoning_content": "because"}, "openrouter": {"reasoning": "so"}}
    message = called("a", provider_state=state)
    deepseek = render(message, result("a"), vendor=VENDORS["deepseek"])["messages"][0]
    assert deepseek["reasoning_content"] == "because"
    assert "reasoning" not in deepseek
    groq = render(message, result("a"), vendor=VENDORS["groq"])["messages"][0]
    assert set(groq) == {"role", "content", "tool_calls"}


def test_deepseek_gets_the_reasoning_of_every_call_even_if_there_is_none() -> None:
    body = render(called("a"), result("a"), vendor=VENDORS["deepseek"])
    assert body["messages"][0]["reasoning_content"] == ""


def test_a_refusal_alone_is_sent_back() -> None:
    refused = Message("assistant", provider_state={"openai": {"refusal": "no"}})
    assert render(refused, Message("user", "why?"))["messages"][0] == {
        "role": "assistant",
        "content": "",
        "refusal": "no",
    }


def test_the_signature_of_a_call_goes_back_with_it() -> None:
    state: ProviderState = {
        "openai": {"extra_content": {"google": {"thought_signature": "abc"}}, "id": "evil"}
    }
    call = ToolCall("a", "add", {}, provider_state=state)
    body = render(Message("assistant", tool_calls=[call]), result("a"), vendor=ELSEWHERE)
    sent = body["messages"][0]["tool_calls"][0]
    assert sent["extra_content"] == {"google": {"thought_signature": "abc"}}
    assert sent["id"] == "a"


def test_arguments_that_json_cannot_hold_are_an_error() -> None:
    odd = Message("assistant", tool_calls=[ToolCall("a", "add", {"x": object()})])
    with pytest.raises(InputError, match="JSON"):
        render(odd, result("a"))
