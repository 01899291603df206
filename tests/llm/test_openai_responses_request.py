"""Requests as they are sent over the Responses API, and those that are refused before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import InputError
from aether.llm.content import (
    AudioPart,
    CachePoint,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
)
from aether.llm.contracts import Message, ToolCall
from aether.tools import Tool
from tests.llm.responses_wire import answer, message, provider, request, sent

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = Tool(name="add", description="Adds.", parameters=PARAMETERS, handler=lambda a=0: a)
PNG = "data:image/png;base64,cG5n"
LOCAL = "http://127.0.0.1:8080/v1"


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


async def test_a_plain_request_says_no_more_than_it_must(transport: ScriptedTransport) -> None:
    body = await sent(transport, request(temperature=0.7, temperature_is_default=True, seed=3))
    assert transport.calls[0].url == "https://api.openai.com/v1/responses"
    assert body == {"model": "gpt-x", "input": [said("What is 17 + 25?")], "store": False}


async def test_a_stream_is_asked_for(transport: ScriptedTransport) -> None:
    transport.answers_json(answer(message("Hello")))
    async for _ in provider(transport).stream(request()):
        pass
    body = transport.calls[0].body
    assert body["stream"] is True
    assert "stream_options" not in body


async def test_roles_keep_their_order(transport: ScriptedTransport) -> None:
    asked = request(
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("system", "Now be verbose."),
        Message("user", "Go on"),
    )
    body = await sent(transport, asked)
    assert "instructions" not in body
    assert [(item["role"], item["content"]) for item in body["input"]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("system", "Now be verbose."),
        ("user", "Go on"),
    ]


async def test_calls_and_results_are_paired_by_the_id_of_the_call(
    transport: ScriptedTransport,
) -> None:
    asked = request(
        Message("user", "Add."),
        Message(
            "assistant",
            "I will.",
            tool_calls=[ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "no such tool")],
        ),
        Message("tool", "two", tool_call_id="c2"),
        Message("tool", "one", tool_call_id="c1"),
    )
    body = await sent(transport, asked)
    assert body["input"][2:] == [
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "no_such_tool", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
    ]


async def test_ids_that_are_too_long_for_openai_are_shortened_and_still_pair(
    transport: ScriptedTransport,
) -> None:
    long = f"functions.{'x' * 64}:0"
    asked = Message("assistant", tool_calls=[ToolCall(long, "add"), ToolCall("c" * 64, "add")])
    results = [Message("tool", "1", tool_call_id=each) for each in (long, "c" * 64)]
    body = await sent(transport, request(Message("user", "Add."), asked, *results))
    first, second, *outputs = (item["call_id"] for item in body["input"][1:])
    assert outputs == [first, second]
    assert len(first) <= 64
    assert second == "c" * 64


async def test_an_assistant_that_said_nothing_is_left_out(transport: ScriptedTransport) -> None:
    thought = [ReasoningPart(text="hm")]
    asked = request(
        Message("system", ""),
        Message("user", "Hi"),
        Message("assistant", ""),
        Message("assistant", list(thought)),
    )
    assert (await sent(transport, asked))["input"] == [said("Hi")]


async def test_parts_of_a_user_message(transport: ScriptedTransport) -> None:
    parts: list[ContentPart] = [
        TextPart(text="Look:"),
        ImagePart(data=b"png", media_type="image/png"),
        ImagePart(url="https://h/a.png"),
        FilePart(data=b"pdf", media_type="application/pdf", name="a.pdf"),
        FilePart(data=b"pdf", media_type="application/pdf"),
        FilePart(url="https://h/a.pdf"),
    ]
    body = await sent(transport, request(Message("user", parts)))
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
        {"type": "input_image", "image_url": "https://h/a.png", "detail": "auto"},
        {
            "type": "input_file",
            "filename": "a.pdf",
            "file_data": "data:application/pdf;base64,cGRm",
        },
        {
            "type": "input_file",
            "filename": "file.pdf",
            "file_data": "data:application/pdf;base64,cGRm",
        },
        {"type": "input_file", "file_url": "https://h/a.pdf"},
    ]


async def test_a_single_part_of_text_is_sent_as_text(transport: ScriptedTransport) -> None:
    body = await sent(transport, request(Message("user", [TextPart(text="Hi")])))
    assert body["input"] == [said("Hi")]


async def test_a_tool_may_show_images_and_files(transport: ScriptedTransport) -> None:
    result: list[ContentPart] = [
        TextPart(text="A chart:"),
        ImagePart(data=b"png", media_type="image/png"),
    ]
    asked = request(
        Message("user", "Draw."),
        Message("assistant", tool_calls=[ToolCall("c1", "draw")]),
        Message("tool", result, tool_call_id="c1"),
    )
    assert (await sent(transport, asked))["input"][-1]["output"] == [
        {"type": "input_text", "text": "A chart:"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
    ]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([Message("user", "")], r"Message 1 \(user\) is empty"),
        ([Message("user", [CachePoint()])], r"Message 1 \(user\) is empty"),
        (
            [Message("user", [AudioPart(data=b"x", media_type="audio/wav")])],
            r"Message 1 \(user\).*audio.*api='chat'",
        ),
        ([Message("user", [ReasoningPart(text="x")])], r"Message 1 \(user\).*reasoning"),
        ([Message("user", ["a", ImagePart(url="file:///a.png")])], "Message 1.*part 2.*image"),
        (
            [Message("user", ["a", ImagePart(data=b"x", media_type="image/bmp")])],
            r"Message 1 \(user\), part 2 is of type image/bmp: .* takes image/png, image/jpeg",
        ),
        ([Message("system", [ImagePart(url="https://h/a")])], r"Message 1 \(system\).*text alone"),
        (
            [Message("user", "Hi"), Message("assistant", [ImagePart(url="https://h/a")])],
            r"Message 2 \(assistant\).*text alone",
        ),
        ([Message("user", "Hi"), Message("tool", "x", tool_call_id="c")], "Message 2.*result"),
        ([Message("user", "Hi"), Message("tool", "x")], r"Message 2 \(tool\) has no tool_call_id"),
        (
            [Message("user", "Hi"), Message("assistant", tool_calls=[ToolCall("c", "add")])],
            "end before the results",
        ),
        (
            [
                Message("user", "Hi"),
                Message("assistant", tool_calls=[ToolCall("c", "add", {"a": object()})]),
                Message("tool", "x"),
            ],
            "Message 2 calls 'add' with arguments that JSON cannot hold",
        ),
    ],
)
async def test_messages_that_cannot_be_sent_are_refused(
    transport: ScriptedTransport, messages: list[Message], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        await provider(transport).complete(request(*messages))
    assert not transport.calls


async def test_another_server_takes_any_image(transport: ScriptedTransport) -> None:
    asked = request(Message("user", ImagePart(data=b"png", media_type="image/bmp")))
    body = await sent(transport, asked, base_url=LOCAL, api="responses")
    assert body["input"][0]["content"] == [
        {"type": "input_image", "image_url": "data:image/bmp;base64,cG5n", "detail": "auto"}
    ]


async def test_tools_say_that_they_are_not_strict(transport: ScriptedTransport) -> None:
    plain = Tool(name="now", description="", parameters={"type": "object"}, handler=lambda: 1)
    body = await sent(transport, request(tools=[ADD, plain]))
    assert body["tools"] == [
        {
            "type": "function",
            "name": "add",
            "description": "Adds.",
            "parameters": PARAMETERS,
            "strict": False,
        },
        {"type": "function", "name": "now", "parameters": {"type": "object"}, "strict": False},
    ]
    assert "tool_choice" not in body
    assert "parallel_tool_calls" not in body


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        *((word, word) for word in ("auto", "none", "required")),
        ("add", {"type": "function", "name": "add"}),
    ],
)
async def test_a_choice_of_tools(transport: ScriptedTransport, choice: str, told: object) -> None:
    body = await sent(transport, request(tools=[ADD], tool_choice=choice))
    assert body["tool_choice"] == told


async def test_one_call_at_a_time_is_asked_for_where_there_are_tools(
    transport: ScriptedTransport,
) -> None:
    body = await sent(transport, request(tools=[ADD], parallel_tool_calls=False))
    assert body["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in await sent(transport, request(parallel_tool_calls=False))
    allowed = await sent(transport, request(tools=[ADD], parallel_tool_calls=True))
    assert "parallel_tool_calls" not in allowed


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"tool_choice": "add"}, "no tools are offered"),
        ({"tools": [ADD], "tool_choice": "sub"}, r"not offered. Offered: add"),
        (
            {"tools": [SimpleNamespace(name="a.b", description="", parameters={})]},
            "'a.b' is not one",
        ),
        ({"stop": "\n"}, r"no stop sequences.*api='chat'"),
        ({"max_tokens": 15}, r"max_tokens is 15.*16.*api='chat'"),
    ],
)
async def test_what_is_known_to_be_refused_is_not_sent(
    transport: ScriptedTransport, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        await provider(transport).complete(request(**fields))
    assert not transport.calls


async def test_only_openai_has_a_least_number_of_tokens(transport: ScriptedTransport) -> None:
    assert (await sent(transport, request(max_tokens=16)))["max_output_tokens"] == 16
    elsewhere = await sent(transport, request(max_tokens=5), base_url=LOCAL, api="responses")
    assert elsewhere["max_output_tokens"] == 5


async def test_sampling_is_sent_where_it_was_chosen_or_is_known_to_be_taken(
    transport: ScriptedTransport,
) -> None:
    chosen = await sent(transport, request(temperature=0.2, top_p=0.9))
    assert (chosen["temperature"], chosen["top_p"]) == (0.2, 0.9)
    default = request(model="gpt-4.1", temperature=0.7, temperature_is_default=True)
    assert (await sent(transport, default))["temperature"] == 0.7
    default = request(model="gpt-6-luna", temperature=0.7, temperature_is_default=True)
    assert "temperature" not in await sent(transport, default)


@pytest.mark.parametrize(
    ("model", "wanted", "told"),
    [
        *((model, "none", "low") for model in ("gpt-6-astra", "gpt-6.1-sol")),
        ("gpt-6-astra", "minimal", "low"),
        ("gpt-6-astra", "max", "max"),
        *((model, "none", "none") for model in ("gpt-6-luna", "gpt-6-sol", "gpt-6.1-terra")),
        ("gpt-6-luna", "minimal", "low"),
        ("gpt-6.2-sol", "none", "low"),
        ("gpt-5.6-terra", "max", "max"),
        ("gpt-5.4-mini", "max", "xhigh"),
        ("gpt-5.1", "xhigh", "high"),
        ("gpt-5-mini", "none", "minimal"),
        ("gpt-5-pro", "low", "high"),
        ("gpt-5.2-pro", "none", "medium"),
        ("o4-mini", "minimal", "low"),
        ("openai/gpt-5.1", "max", "high"),
        ("gpt-x", "minimal", "minimal"),
    ],
)
async def test_an_effort_is_the_nearest_that_the_model_takes(
    transport: ScriptedTransport, model: str, wanted: Any, told: str
) -> None:
    body = await sent(transport, request(model=model, reasoning=wanted))
    assert body["reasoning"] == {"effort": told}


async def test_a_model_that_does_not_reason_is_told_nothing_of_it(
    transport: ScriptedTransport,
) -> None:
    body = await sent(transport, request(model="gpt-4.1", reasoning="high"))
    assert "reasoning" not in body
    assert "include" not in body


async def test_a_model_that_reasons_is_asked_for_what_must_go_back(
    transport: ScriptedTransport,
) -> None:
    body = await sent(transport, request(model="gpt-6-luna"))
    assert body["include"] == ["reasoning.encrypted_content"]
    assert "reasoning" not in body


async def test_a_schema_is_made_strict_where_it_can_be(transport: ScriptedTransport) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = await sent(transport, request(output_schema=schema))
    assert body["text"] == {
        "format": {
            "type": "json_schema",
            "name": "answer",
            "schema": {**schema, "additionalProperties": False},
            "strict": True,
        }
    }
    free = {"type": "object", "additionalProperties": {"type": "integer"}}
    body = await sent(transport, request(output_schema=free))
    assert body["text"]["format"]["schema"] == free
    assert body["text"]["format"]["strict"] is False


async def test_extra_fields_stand_over_what_was_written(transport: ScriptedTransport) -> None:
    extra = {"store": True, "reasoning": {"summary": "auto"}, "tools": [{"type": "web_search"}]}
    body = await sent(transport, request(reasoning="low", extra_body=extra))
    assert body["store"] is True
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["tools"] == [{"type": "web_search"}]


async def test_cache_points_mark_what_stands_before_them(transport: ScriptedTransport) -> None:
    asked = request(
        Message("system", [TextPart(text="Rules."), CachePoint()]),
        Message("user", [CachePoint(), TextPart(text="Hi"), CachePoint(), TextPart(text="there")]),
        model="gpt-6-luna",
    )
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    body = await sent(transport, asked)
    assert [item["content"] for item in body["input"]] == [
        [{"type": "input_text", "text": "Rules.", **mark}],
        [{"type": "input_text", "text": "Hi", **mark}, {"type": "input_text", "text": "there"}],
    ]
    body = await sent(transport, asked.replace(model="gpt-5.4"))
    assert body["input"][0]["content"] == "Rules."
    assert "prompt_cache_breakpoint" not in str(body)


async def test_the_latest_four_cache_points_count(transport: ScriptedTransport) -> None:
    parts: list[ContentPart] = []
    for number in range(6):
        parts += [TextPart(text=str(number)), CachePoint()]
    body = await sent(transport, request(Message("user", parts), model="gpt-6-luna"))
    content = body["input"][0]["content"]
    marked = [part["text"] for part in content if "prompt_cache_breakpoint" in part]
    assert marked == ["2", "3", "4", "5"]
