"""What is sent to Gemini: paths, bodies, and what is refused before it is sent."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import JsonValue

from aether.errors import InputError
from aether.llm.contracts import (
    AudioPart,
    CachePoint,
    FilePart,
    ImagePart,
    LLMRequest,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from tests.llm.gemini_answers import answer, provider, request

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({"type": "object", "properties": {}})


@dataclass(frozen=True)
class Spec:
    name: str = "add"
    description: str = "Adds."
    parameters: Mapping[str, Any] = field(default_factory=lambda: NO_PARAMETERS)


def image(**fields: Any) -> ImagePart:
    return ImagePart(data=b"\x89PNG", media_type="image/png", **fields)


async def body(
    transport: ScriptedTransport,
    *messages: Message,
    model: str = "gemini-3.8-flash",
    **fields: Any,
) -> dict[str, Any]:
    transport.answers_json(answer("ok"))
    await provider(transport, model).complete(request(*messages, **fields))
    sent: dict[str, Any] = transport.calls[-1].body
    return sent


async def config(
    transport: ScriptedTransport, model: str = "gemini-3.8-flash", **fields: Any
) -> dict[str, Any]:
    sent = await body(transport, model=model, **fields)
    made: dict[str, Any] = sent.get("generationConfig", {})
    return made


async def user_parts(transport: ScriptedTransport, *content: Any) -> list[dict[str, Any]]:
    sent = await body(transport, Message("user", list(content)))
    (turn,) = sent["contents"]
    assert turn["role"] == "user"
    parts: list[dict[str, Any]] = turn["parts"]
    return parts


async def refused(transport: ScriptedTransport, made: LLMRequest, match: str) -> None:
    with pytest.raises(InputError, match=match):
        await provider(transport).complete(made)
    with pytest.raises(InputError, match=match):
        await anext(provider(transport).stream(made))
    assert not transport.calls


# The path


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3.8-flash", "models/gemini-3.8-flash"),
        ("models/gemini-3.8-flash", "models/gemini-3.8-flash"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("publishers/google/models/x", "publishers/google/models/x"),
        ("projects/p/locations/l/endpoints/7", "projects/p/locations/l/endpoints/7"),
        ("a?key=b&c#d", "models/a%3Fkey%3Db%26c%23d"),
    ],
)
async def test_a_model_is_a_name_or_a_resource(
    transport: ScriptedTransport, model: str, path: str
) -> None:
    await body(transport, model=model)
    host = "https://generativelanguage.googleapis.com"
    assert transport.calls[0].url == f"{host}/v1beta/{path}:generateContent"


@pytest.mark.parametrize("model", ["models/../files", "models/.", "a//b", "models/"])
async def test_a_name_that_would_be_another_path_is_refused(
    transport: ScriptedTransport, model: str
) -> None:
    await refused(transport, request(model=model), "name")


# Messages


async def test_a_plain_question_says_nothing_that_nobody_asked_for(
    transport: ScriptedTransport,
) -> None:
    sent = await body(
        transport, Message("user", "Hi"), temperature=0.7, temperature_is_default=True
    )
    assert sent == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


async def test_all_system_messages_are_the_system_instruction(
    transport: ScriptedTransport,
) -> None:
    sent = await body(
        transport,
        Message("system", "Be brief."),
        Message("system", ""),
        Message("user", "Hi"),
        Message("system", [TextPart(text="Be "), CachePoint(), TextPart(text="kind.")]),
    )
    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert [turn["role"] for turn in sent["contents"]] == ["user"]


async def test_turns_of_one_role_are_one_turn(transport: ScriptedTransport) -> None:
    sent = await body(
        transport,
        Message("user", "One"),
        Message("user", "Two"),
        Message("assistant", "Three"),
        Message("assistant", ""),
        Message("assistant", [ReasoningPart(text="hm"), TextPart(text="Four")]),
        Message("user", "Five"),
    )
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "One"}, {"text": "Two"}]},
        {"role": "model", "parts": [{"text": "Three"}, {"text": "Four"}]},
        {"role": "user", "parts": [{"text": "Five"}]},
    ]


async def test_results_are_the_users_turn_in_the_order_of_their_calls(
    transport: ScriptedTransport,
) -> None:
    calls = [ToolCall("call_1", "add", {"a": 1}), ToolCall("call_2", "add", {"a": 2})]
    sent = await body(
        transport,
        Message("user", "Hi"),
        Message("assistant", "Let me see.", tool_calls=calls),
        Message("tool", "no such sum", tool_call_id="call_2", is_error=True),
        Message("tool", "7", tool_call_id="call_1"),
        model="gemini-2.5-flash",
    )
    assert sent["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"name": "add", "args": {"a": 1}}},
                {"functionCall": {"name": "add", "args": {"a": 2}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "add", "response": {"output": "7"}}},
                {"functionResponse": {"name": "add", "response": {"error": "no such sum"}}},
            ],
        },
    ]


async def test_a_call_of_another_provider_is_marked_for_a_model_that_signs(
    transport: ScriptedTransport,
) -> None:
    calls = [ToolCall("call_1", "add", {}), ToolCall("call_2", "add", {})]
    history = [
        Message("user", "Hi"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "7", tool_call_id="call_1"),
        Message("tool", "8", tool_call_id="call_2"),
    ]
    for model, marks in (("gemini-3.8-flash", 1), ("gemini-2.5-flash", 0), ("some-model", 0)):
        sent = await body(transport, *history, model=model)
        first, second = sent["contents"][1]["parts"]
        assert ("thoughtSignature" in first) is bool(marks)
        assert first.get("thoughtSignature", "skip_thought_signature_validator") == (
            "skip_thought_signature_validator"
        )
        assert "thoughtSignature" not in second


async def test_a_name_that_a_model_made_up_is_made_one_that_can_be_sent(
    transport: ScriptedTransport,
) -> None:
    call = ToolCall("call_1", "1 súm", {})
    sent = await body(
        transport,
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "no such tool", is_error=True),
    )
    (made,), (result,) = (turn["parts"] for turn in sent["contents"])
    assert made["functionCall"]["name"] == "_1_s_m"
    assert result["functionResponse"]["name"] == "_1_s_m"


@pytest.mark.parametrize(
    "content",
    ["", [], [TextPart(text="")], [CachePoint()], [TextPart(text=""), CachePoint()]],
)
async def test_an_empty_message_of_the_user_is_refused(
    transport: ScriptedTransport, content: Any
) -> None:
    await refused(transport, request(Message("user", content)), r"Message 1 \(user\) is empty")


async def test_a_conversation_of_the_system_alone_is_refused(transport: ScriptedTransport) -> None:
    await refused(transport, request(Message("system", "Be brief.")), "no message but the system")
    await refused(transport, request(Message("assistant", "")), "no message but the system")


async def test_a_call_without_its_result_is_refused(transport: ScriptedTransport) -> None:
    called = Message("assistant", "", tool_calls=[ToolCall("call_1", "add", {})])
    await refused(transport, request(called, Message("user", "Well?")), "call_1")


async def test_a_system_message_with_an_image_is_refused(transport: ScriptedTransport) -> None:
    made = request(Message("system", [image()]), Message("user", "Hi"))
    await refused(transport, made, "text alone")


# Media


async def test_bytes_go_inline_in_their_order(transport: ScriptedTransport) -> None:
    parts = await user_parts(
        transport,
        TextPart(text="Compare "),
        image(),
        CachePoint(),
        AudioPart(data=b"RIFF", media_type="audio/wav"),
        FilePart(data=b"%PDF", media_type="application/pdf", name="a.pdf"),
        FilePart(data=b"mp4", media_type="video/mp4"),
    )
    assert parts == [
        {"text": "Compare "},
        *(
            {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}}
            for mime, data in [
                ("image/png", b"\x89PNG"),
                ("audio/wav", b"RIFF"),
                ("application/pdf", b"%PDF"),
                ("video/mp4", b"mp4"),
            ]
        ),
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("text/plain; charset=utf-8", "text/plain"),
        ("text/csv", "text/csv"),
        ("application/json", "text/plain"),
        ("application/x-yaml", "text/plain"),
    ],
)
async def test_text_files_are_sent_as_text(
    transport: ScriptedTransport, given: str, sent: str
) -> None:
    (part,) = await user_parts(transport, FilePart(data=b"{}", media_type=given))
    assert part["inlineData"]["mimeType"] == sent


@pytest.mark.parametrize(
    ("part", "file"),
    [
        (
            ImagePart(url="https://example.org/a.PNG?sig=1"),
            {"fileUri": "https://example.org/a.PNG?sig=1", "mimeType": "image/png"},
        ),
        (
            FilePart(url="gs://bucket/a", media_type="application/pdf"),
            {"fileUri": "gs://bucket/a", "mimeType": "application/pdf"},
        ),
        (
            FilePart(url="https://www.youtube.com/watch?v=x"),
            {"fileUri": "https://www.youtube.com/watch?v=x"},
        ),
        (
            FilePart(url="https://generativelanguage.googleapis.com/v1beta/files/abc"),
            {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"},
        ),
    ],
)
async def test_what_google_can_fetch_is_named(
    transport: ScriptedTransport, part: Any, file: dict[str, str]
) -> None:
    assert await user_parts(transport, part) == [{"fileData": file}]


@pytest.mark.parametrize("url", ["http://example.org/a.png", "file:///etc/passwd", "a.png"])
async def test_what_google_cannot_fetch_is_refused(transport: ScriptedTransport, url: str) -> None:
    made = request(Message("user", [ImagePart(url=url)]))
    await refused(transport, made, r"cannot fetch.*from_path")


@pytest.mark.parametrize("media_type", ["audio/x-wav", "audio/mp3", "audio/L16;rate=8000"])
async def test_sound_is_sent_under_its_usual_type(
    transport: ScriptedTransport, media_type: str
) -> None:
    usual = {"audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg"}
    (part,) = await user_parts(transport, AudioPart(data=b"x", media_type=media_type))
    assert part["inlineData"]["mimeType"] == usual.get(media_type, media_type.lower())


@pytest.mark.parametrize(
    ("part", "taken"),
    [
        (ImagePart(data=b"x", media_type="image/bmp"), "image/png, image/jpeg"),
        (ImagePart(data=b"x", media_type="image/svg+xml"), "image/png, image/jpeg"),
        (ImagePart(url="https://h/a", media_type="image/gif"), "image/png, image/jpeg"),
        (AudioPart(data=b"x", media_type="audio/midi"), "audio/wav, audio/mpeg"),
    ],
)
async def test_media_that_gemini_does_not_take_are_refused(
    transport: ScriptedTransport, part: ImagePart | AudioPart, taken: str
) -> None:
    made = request(Message("user", "Hi"), Message("user", ["Look:", part]))
    said = rf"Message 2 \(user\), part 2 is of type {re.escape(part.media_type or '')}: .*{taken}"
    await refused(transport, made, said)


async def test_a_part_can_carry_what_gemini_alone_knows(transport: ScriptedTransport) -> None:
    clip: dict[str, JsonValue] = {"videoMetadata": {"startOffset": "10s"}}
    video = FilePart(
        data=b"mp4", media_type="video/mp4", provider_state={"gemini": clip, "openai": {"x": 1}}
    )
    (part,) = await user_parts(transport, video)
    assert part["videoMetadata"] == {"startOffset": "10s"}
    assert part.keys() == {"inlineData", "videoMetadata"}


async def test_reasoning_is_nothing_that_a_user_says(transport: ScriptedTransport) -> None:
    made = request(Message("user", [ReasoningPart(text="hm")]))
    await refused(transport, made, r"Message 1 \(user\), part 1 is of type reasoning")


async def test_an_image_as_a_result_goes_where_it_is_taken(transport: ScriptedTransport) -> None:
    def history(part: Any) -> list[Message]:
        return [
            Message("user", "Hi"),
            Message("assistant", "", tool_calls=[ToolCall("call_1", "draw", {})]),
            Message("tool", [TextPart(text="Here."), part], tool_call_id="call_1"),
        ]

    sent = await body(transport, *history(image()))
    assert sent["contents"][2]["parts"] == [
        {
            "functionResponse": {
                "name": "draw",
                "response": {"output": "Here."},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}],
            }
        }
    ]
    transport.calls.clear()
    made = request(*history(image()), model="gemini-2.5-flash")
    await refused(transport, made, "this model takes text alone")
    for part in (
        AudioPart(data=b"RIFF", media_type="audio/wav"),
        ImagePart(url="https://example.org/a.png"),
    ):
        await refused(transport, request(*history(part)), "image/png")


# Options


async def test_options_have_their_names(transport: ScriptedTransport) -> None:
    made = await config(
        transport,
        temperature=0.2,
        top_p=0.9,
        seed=7,
        max_tokens=100,
        stop=("a", "b"),
    )
    assert made == {
        "temperature": 0.2,
        "topP": 0.9,
        "seed": 7,
        "maxOutputTokens": 100,
        "stopSequences": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("model", "default", "sent"),
    [
        ("gemini-3.8-flash", True, False),
        ("gemini-4-argon", True, False),
        ("gemini-2.5-flash", True, True),
        ("some-model", True, False),
        ("gemini-3.8-flash", False, True),
        ("some-model", False, True),
    ],
)
async def test_a_temperature_that_nobody_chose_is_for_models_that_gain_by_it(
    transport: ScriptedTransport, model: str, default: bool, sent: bool
) -> None:
    made = await config(transport, model, temperature=0.7, temperature_is_default=default)
    assert made == ({"temperature": 0.7} if sent else {})


async def test_more_stop_sequences_than_five_are_refused(transport: ScriptedTransport) -> None:
    await refused(transport, request(stop=tuple("abcdef")), "6 stop sequences; Gemini takes 5")


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gemini-3.8-flash", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.8-flash", "max", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-flash-preview", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-4-argon", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "xhigh", {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 1024}),
        ("models/gemini-2.5-pro", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
        ("gemma-4-31b-it", "high", None),
        ("some-model", "high", None),
        ("gemini-3.8-flash", None, None),
    ],
)
async def test_an_effort_is_said_in_the_words_of_the_model(
    transport: ScriptedTransport, model: str, effort: Any, sent: dict[str, Any] | None
) -> None:
    made = await config(transport, model, reasoning=effort)
    assert made.get("thinkingConfig") == sent


async def test_knobs_that_gemini_lacks_are_left_out(transport: ScriptedTransport) -> None:
    sent = await body(transport, tools=[Spec()], parallel_tool_calls=False)
    assert sent.keys() == {"contents", "tools"}


# Tools


async def test_a_tool_is_declared_with_its_real_schema(transport: ScriptedTransport) -> None:
    tools = [Spec("ns.add:it-2", "Adds.", SCHEMA), Spec("_now", "", NO_PARAMETERS)]
    sent = await body(transport, tools=tools)
    assert sent["tools"] == [
        {
            "functionDeclarations": [
                {"name": "ns.add:it-2", "description": "Adds.", "parametersJsonSchema": SCHEMA},
                {"name": "_now"},
            ]
        }
    ]
    assert "toolConfig" not in sent


@pytest.mark.parametrize("name", ["", "2add", "a b", "á", "-a", "a" * 129, "a\n"])
async def test_a_name_that_gemini_does_not_take_is_refused(
    transport: ScriptedTransport, name: str
) -> None:
    await refused(transport, request(tools=[Spec(name)]), "tool name")


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("add", {"mode": "ANY", "allowedFunctionNames": ["add"]}),
    ],
)
async def test_a_choice_is_a_mode(
    transport: ScriptedTransport, choice: str, sent: dict[str, Any]
) -> None:
    made = await body(transport, tools=[Spec(), Spec("sub")], tool_choice=choice)
    assert made["toolConfig"] == {"functionCallingConfig": sent}


async def test_a_choice_that_cannot_be_made_is_refused(transport: ScriptedTransport) -> None:
    await refused(transport, request(tools=[Spec()], tool_choice="sub"), "Offered: add")
    await refused(transport, request(tool_choice="required"), "no tools are offered")
    await refused(transport, request(tool_choice="add"), "no tools are offered")
    sent = await body(transport, tool_choice="none")
    assert sent.keys() == {"contents"}


# Answers that follow a schema


async def test_a_schema_is_enforced(transport: ScriptedTransport) -> None:
    made = await config(transport, output_schema=SCHEMA)
    assert made == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}


async def test_a_schema_beside_tools_is_enforced_where_that_is_possible(
    transport: ScriptedTransport,
) -> None:
    made = await body(transport, tools=[Spec()], output_schema=SCHEMA)
    assert made["generationConfig"]["responseJsonSchema"] == SCHEMA
    for model in ("gemini-2.5-flash", "some-model"):
        made = await body(transport, model=model, tools=[Spec()], output_schema=SCHEMA)
        (declared,) = made["tools"]
        assert [tool["name"] for tool in declared["functionDeclarations"]] == ["add", "answer"]
        assert made["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
        assert "generationConfig" not in made


async def test_a_schema_beside_tools_that_are_not_to_be_called_is_enforced(
    transport: ScriptedTransport,
) -> None:
    made = await config(
        transport, "gemini-2.5-flash", tools=[Spec()], tool_choice="none", output_schema=SCHEMA
    )
    assert made["responseJsonSchema"] == SCHEMA


async def test_a_schema_that_cannot_be_enforced_is_told(transport: ScriptedTransport) -> None:
    dangling = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}, "required": ["a"]}
    sent = await body(transport, output_schema=dangling)
    assert sent["generationConfig"] == {"responseMimeType": "application/json"}
    assert "#/$defs/none" in sent["systemInstruction"]["parts"][0]["text"]
    sent = await body(transport, model="gemma-3-27b-it", output_schema=SCHEMA)
    assert "generationConfig" not in sent
    assert '"city"' in sent["systemInstruction"]["parts"][0]["text"]


# What a caller adds


async def test_an_extra_body_is_merged_field_by_field(transport: ScriptedTransport) -> None:
    extra = {
        "generationConfig": {"topK": 40, "thinkingConfig": {"includeThoughts": False}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "tools": [{"googleSearch": {}}],
        "contents": [],
    }
    sent = await body(transport, tools=[Spec()], reasoning="low", max_tokens=9, extra_body=extra)
    assert sent["generationConfig"] == {
        "maxOutputTokens": 9,
        "topK": 40,
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": False},
    }
    assert sent["safetySettings"] == extra["safetySettings"]
    assert sent["tools"] == [
        {"functionDeclarations": [{"name": "add", "description": "Adds."}]},
        {"googleSearch": {}},
    ]
    assert sent["contents"] == []
    sent = await body(transport, extra_body={"tools": [{"codeExecution": {}}]})
    assert sent["tools"] == [{"codeExecution": {}}]


async def test_a_request_is_not_changed(transport: ScriptedTransport) -> None:
    made = request(
        Message("user", "Hi"),
        Message("assistant", "", tool_calls=[ToolCall("call_1", "add", {"a": [1]})]),
        Message("tool", "7", tool_call_id="call_1"),
        Message("user", "And?"),
        tools=[Spec()],
        extra_body={"generationConfig": {"topK": 1}},
        max_tokens=5,
    )
    before = made.model_dump_json()
    transport.answers_json(answer("ok"))
    await provider(transport).complete(made)
    assert made.model_dump_json() == before
