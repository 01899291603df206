"""Answers of the Responses API: what they say, streamed and not, and those that are none."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from aether.errors import (
    BadRequestError,
    ContentFilterError,
    ProtocolError,
    ProviderError,
    RateLimitError,
    ServerError,
)
from aether.llm.content import ImagePart, TextPart
from aether.llm.contracts import ToolCall
from tests.llm.responses_wire import answer, both, call, complete, cut, message, reasoning

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport


async def test_text_model_and_usage(transport: ScriptedTransport) -> None:
    response = await both(transport, answer(message("It is 42.")))
    assert response.text == "It is 42."
    assert response.model == "told-model"
    assert response.provider == "openai"
    assert (response.finish_reason, response.finish_reason_raw) == ("stop", "completed")
    assert (response.input_tokens, response.output_tokens) == (20, 9)
    assert (response.cache_read_tokens, response.cache_write_tokens) == (8, 4)
    assert response.reasoning_tokens == 5
    assert response.reasoning is None
    assert response.message.provider_state == {}


@pytest.mark.row("S19")
@pytest.mark.parametrize("usage", [None, {}, [], {"input_tokens": "9", "output_tokens": -1}])
async def test_unknown_usage_is_none(transport: ScriptedTransport, usage: object) -> None:
    response = await both(transport, answer(message("Hi"), usage=usage))
    assert response.input_tokens is None
    assert response.output_tokens is None
    assert response.cache_read_tokens is None
    assert response.reasoning_tokens is None


async def test_what_a_server_says_that_it_cost_is_read(transport: ScriptedTransport) -> None:
    told = {"input_tokens": 9, "output_tokens": 3, "cost_in_usd_ticks": 37_756_000}
    assert (await both(transport, answer(message("Hi"), usage=told))).cost_usd == 0.0037756
    assert (await both(transport, answer(message("Hi")))).cost_usd is None


async def test_a_call_decides_why_it_stopped(transport: ScriptedTransport) -> None:
    response = await both(transport, answer(message("I will add."), call('{"a": 1}')))
    assert response.text == "I will add."
    assert response.tool_calls == [ToolCall("call_1", "add", {"a": 1})]
    assert response.finish_reason == "tool_calls"
    assert response.finish_reason_raw == "completed"


@pytest.mark.parametrize("arguments", ["", "null", "{}"])
async def test_a_call_without_arguments(transport: ScriptedTransport, arguments: str) -> None:
    response = await both(transport, answer(call(arguments)))
    assert response.tool_calls == [ToolCall("call_1", "add", {})]


async def test_several_calls_keep_their_order(transport: ScriptedTransport) -> None:
    second = call('{"a":2}', id="fc_2", call_id="call_2", name="sub")
    response = await both(transport, answer(reasoning(), call(), second))
    assert [(each.id, each.name) for each in response.tool_calls] == [
        ("call_1", "add"),
        ("call_2", "sub"),
    ]


@pytest.mark.row("S20")
async def test_calls_with_one_id_are_told_apart(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(call(), call(id="fc_2")))
    first, second = response.tool_calls
    assert first.id == "call_1"
    assert second.id not in ("", "call_1")


@pytest.mark.row("S20")
async def test_a_call_without_an_id_gets_one(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(call(call_id=None)))
    assert response.tool_calls[0].id


@pytest.mark.parametrize(("arguments", "left"), [('{"a": 1', '{"a": 1'), ("", "")])
async def test_a_call_that_was_cut_off_is_never_one_to_run(
    transport: ScriptedTransport, arguments: str, left: str
) -> None:
    response = await both(transport, cut(call(arguments, status="incomplete")))
    assert response.finish_reason == "length"
    assert response.finish_reason_raw == "incomplete:max_output_tokens"
    assert response.tool_calls[0].invalid_arguments == left


@pytest.mark.row("S21")
@pytest.mark.parametrize("status", ["incomplete", "in_progress", "failed", "cancelled"])
@pytest.mark.parametrize("arguments", ["{}", '{"a": 1}', '{"a": 1', ""])
async def test_a_call_that_is_not_whole_is_none_to_run_in_a_whole_answer(
    transport: ScriptedTransport, status: str, arguments: str
) -> None:
    response = await both(transport, answer(call(arguments, status=status)))
    assert response.tool_calls[0].invalid_arguments == arguments


@pytest.mark.row("S21")
@pytest.mark.parametrize("reason", ["max_tokens", "steered", None])
async def test_calls_of_an_answer_that_was_cut_are_not_to_be_run_whatever_has_cut_it(
    transport: ScriptedTransport, reason: str | None
) -> None:
    response = await complete(transport, cut(call('{"a": 1}'), reason=reason))
    assert response.finish_reason == "length"


@pytest.mark.row("S21")
async def test_a_whole_answer_with_a_reason_why_it_is_not_is_none(
    transport: ScriptedTransport,
) -> None:
    whole = answer(message("Half an ans"))
    whole["incomplete_details"] = {"reason": "max_output_tokens"}
    response = await both(transport, whole)
    assert (response.text, response.finish_reason) == ("Half an ans", "length")


@pytest.mark.row("S21")
async def test_a_message_that_lacks_its_end_is_no_whole_answer(
    transport: ScriptedTransport,
) -> None:
    response = await both(transport, answer(message("Half an ans", status="incomplete")))
    assert (response.text, response.finish_reason) == ("Half an ans", "other")


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter", "steered"])
async def test_a_call_of_an_answer_that_was_cut_has_not_none_for_its_arguments(
    transport: ScriptedTransport, reason: str
) -> None:
    response = await both(transport, cut(call(""), reason=reason))
    assert response.tool_calls[0].invalid_arguments == ""


@pytest.mark.parametrize(
    ("reason", "neutral"),
    [
        ("max_output_tokens", "length"),
        ("content_filter", "content_filter"),
        ("max_messages", "other"),
        ("steered", "other"),
    ],
)
async def test_an_incomplete_answer_says_why(
    transport: ScriptedTransport, reason: str, neutral: str
) -> None:
    response = await both(transport, cut(message("Half an ans"), reason=reason))
    assert response.text == "Half an ans"
    assert response.finish_reason == neutral
    assert response.finish_reason_raw == f"incomplete:{reason}"


async def test_an_answer_that_was_cut_while_it_was_thought(transport: ScriptedTransport) -> None:
    response = await both(transport, cut(reasoning()))
    assert (response.text, response.finish_reason) == ("", "length")


async def test_a_status_that_is_not_told_is_not_made_up(transport: ScriptedTransport) -> None:
    whole = answer(message("Hi"))
    del whole["status"]
    response = await complete(transport, whole)
    assert (response.text, response.finish_reason) == ("Hi", "other")
    assert response.finish_reason_raw is None


async def test_summaries_are_reasoning(transport: ScriptedTransport) -> None:
    response = await both(transport, answer(reasoning("First.", "Then."), message("Hi")))
    assert response.reasoning == "First.\n\nThen."
    assert response.text == "Hi"


async def test_open_reasoning_goes_before_its_summary(transport: ScriptedTransport) -> None:
    open_text = [{"type": "reasoning_text", "text": "All of it."}]
    response = await complete(transport, answer(reasoning("Some.", content=open_text)))
    assert response.reasoning == "All of it."


async def test_open_reasoning_is_reasoning(transport: ScriptedTransport) -> None:
    thought = reasoning(content=[{"type": "reasoning_text", "text": "17 + 25"}])
    response = await both(transport, answer(thought, message("42")))
    assert response.reasoning == "17 + 25"


async def test_several_messages_and_parts_are_one_text(transport: ScriptedTransport) -> None:
    response = await both(transport, answer(message("One, ", "two, "), message("three", id="m2")))
    assert response.text == "One, two, three"


async def test_commentary_is_not_the_answer(transport: ScriptedTransport) -> None:
    response = await both(
        transport,
        answer(
            reasoning("Hm."),
            message("I look it up.", phase="commentary"),
            message("It is 42.", id="msg_2", phase="final_answer"),
        ),
    )
    assert response.text == "It is 42."
    assert response.reasoning == "Hm.\n\nI look it up."


async def test_commentary_before_a_call_is_no_text(transport: ScriptedTransport) -> None:
    response = await both(transport, answer(message("I look.", phase="commentary"), call()))
    assert (response.text, response.finish_reason) == ("", "tool_calls")


async def test_commentary_is_the_answer_where_nothing_else_was_said(
    transport: ScriptedTransport,
) -> None:
    response = await both(transport, answer(message("It is 42.", phase="commentary")))
    assert response.text == "It is 42."
    response = await both(transport, cut(message("I look", phase="commentary")))
    assert response.text == ""


@pytest.mark.row("S24")
async def test_a_refusal_is_no_text(transport: ScriptedTransport) -> None:
    no = message(content=[{"type": "refusal", "refusal": "I cannot."}])
    response = await both(transport, answer(no))
    assert (response.text, response.finish_reason) == ("", "content_filter")
    begun = {"type": "output_text", "text": "Well.", "annotations": []}
    response = await both(transport, answer(message(content=[begun, *no["content"]])))
    assert (response.text, response.finish_reason) == ("Well.", "content_filter")


async def test_items_of_the_server_s_own_tools_are_passed_over(
    transport: ScriptedTransport,
) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"q": "x"}}
    response = await both(transport, answer(search, {"type": "tomorrow"}, message("Found.")))
    assert response.text == "Found."
    assert response.finish_reason == "stop"


async def test_an_image_that_was_made_is_a_part_of_the_message(
    transport: ScriptedTransport,
) -> None:
    made = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "output_format": "webp",
        "result": base64.b64encode(b"an image").decode(),
    }
    response = await both(transport, answer(made, message("Here.")))
    assert response.text == "Here."
    assert response.message.content == [
        TextPart(text="Here."),
        ImagePart(data=b"an image", media_type="image/webp"),
    ]
    broken = await complete(transport, answer({**made, "result": "???"}, message("Here.")))
    assert broken.message.content == "Here."


async def test_a_call_of_free_text_has_it_as_its_input(transport: ScriptedTransport) -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_9", "name": "run"}
    response = await both(transport, answer({**item, "input": "print(1)"}))
    assert [(each.id, each.name, each.arguments) for each in response.tool_calls] == [
        ("call_9", "run", {"input": "print(1)"})
    ]


async def test_what_other_servers_write_otherwise_is_read(transport: ScriptedTransport) -> None:
    loose = {"type": "message", "role": "assistant", "content": "It is 42."}
    assert (await complete(transport, answer(loose))).text == "It is 42."
    loose = message(content=[{"type": "text", "text": "It is 42."}])
    assert (await complete(transport, answer(loose))).text == "It is 42."
    response = await complete(transport, answer(call(arguments={"a": 1})))  # type: ignore[arg-type] # as some do
    assert response.tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"status": "failed"}, ServerError),
        ({"status": "cancelled"}, ServerError),
        ({"status": "queued"}, ProtocolError),
        ({"status": "in_progress"}, ProtocolError),
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}}, ServerError),
        (
            {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "x"}},
            RateLimitError,
        ),
        (
            {"status": "failed", "error": {"code": "invalid_prompt", "message": "x"}},
            BadRequestError,
        ),
        ({"status": "failed", "error": {"code": "bio_policy", "message": "x"}}, ContentFilterError),
        ({"error": "something"}, ServerError),
        ({"output": None}, ProtocolError),
        ({"output": {}}, ProtocolError),
        ({"output": ["text"]}, ProtocolError),
        ({"output": [{"type": ["message"]}]}, ProtocolError),
        ({"output": [message(content=7)]}, ProtocolError),
        ({"output": [message(content=["Hi"])]}, ProtocolError),
        ({"output": [message(content=[{"type": "output_text", "text": 7}])]}, ProtocolError),
        ({"output": [reasoning(summary="x")]}, ProtocolError),
        ({"output": [call(name="")]}, ProtocolError),
        ({"output": [call(name=None)]}, ProtocolError),
        ({"output": [call(call_id=7)]}, ProtocolError),
        ({"output": [call(arguments=[1])]}, ProtocolError),  # type: ignore[arg-type] # the point
    ],
)
async def test_what_is_no_answer_is_an_error(
    transport: ScriptedTransport, fields: dict[str, Any], kind: type[ProviderError]
) -> None:
    with pytest.raises(kind) as caught:
        await complete(transport, answer(**{"output": [message("Hi")], **fields}))
    assert caught.value.provider == "openai"


async def test_another_protocol_is_told_from_this_one(transport: ScriptedTransport) -> None:
    chat = {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}}]}
    with pytest.raises(ProtocolError, match="api='chat'"):
        await complete(transport, chat)


async def test_an_empty_answer_is_one(transport: ScriptedTransport) -> None:
    response = await both(transport, answer())
    assert (response.text, response.finish_reason) == ("", "stop")


@pytest.mark.row("S24")
@pytest.mark.parametrize(
    "item",
    [
        {"type": "computer_call", "id": "cu_1", "call_id": "call_1", "action": {}},
        {"type": "mcp_approval_request", "id": "a_1", "name": "add", "arguments": "{}"},
        {
            "type": "message",
            "id": "m_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_audio", "transcript": "Hi"}],
        },
    ],
)
async def test_an_answer_that_nobody_reads_is_no_empty_one(
    transport: ScriptedTransport, item: dict[str, Any]
) -> None:
    response = await complete(transport, answer(reasoning(), item))
    assert (response.text, response.finish_reason) == ("", "other")
    assert item["type"] in str(response.message.provider_state)
    response = await complete(transport, answer(item, message("Hi", id="m_2")))
    assert (response.text, response.finish_reason) == ("Hi", "stop")


@pytest.mark.row("S13")
@pytest.mark.parametrize(
    "item",
    [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
        {"type": "message", "role": "assistant", "content": [{"text": "Hi"}]},
    ],
)
async def test_what_has_no_type_is_not_left_out(
    transport: ScriptedTransport, item: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError, match="without a type"):
        await complete(transport, answer(item))
