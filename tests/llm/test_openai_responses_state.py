"""What an answer was made of goes back to the server as it came, as long as it still says that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aether.llm.content import ImagePart, TextPart
from aether.llm.contracts import LLMResponse, Message, ToolCall
from tests.llm.responses_wire import (
    Item,
    answer,
    call,
    complete,
    cut,
    events,
    message,
    provider,
    reasoning,
    request,
    sent,
    sse,
    stream,
)

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

USER = Message("user", "What is 17 + 25?")
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}}


async def echo(
    transport: ScriptedTransport, made: Message, *results: Message, **fields: Any
) -> list[Item]:
    """The items that an assistant message becomes in the next request."""
    body = await sent(transport, request(USER, made, *results, Message("user", "Go on"), **fields))
    items: list[Item] = body["input"]
    assert items[0]["content"] == USER.content
    assert items[-1]["content"] == "Go on"
    return items[1:-1]


def through_json(made: Message) -> Message:
    return Message.model_validate_json(made.model_dump_json())


def as_session_keeps(response: LLMResponse) -> Message:
    """The final message of a turn: its text and its state, stored as JSON."""
    content = response.message.content
    return through_json(
        Message(
            "assistant",
            response.text if isinstance(content, str) else content,
            provider_state=response.message.provider_state,
        )
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_reasoning_goes_back_before_the_call_that_it_led_to(
    transport: ScriptedTransport, streamed: bool
) -> None:
    whole = answer(reasoning("Hm."), message("I add."), call('{"a": 1}'))
    if streamed:
        _, response = await stream(transport, sse(*events(whole)))
    else:
        response = await complete(transport, whole)
    items = await echo(
        transport, through_json(response.message), Message("tool", "42", tool_call_id="call_1")
    )
    result = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    assert items == [*whole["output"], result]


@pytest.mark.parametrize(
    "output",
    [
        [reasoning(), message("It is 42.")],
        [SEARCH, message("It is 42.")],
        [message("It is 42.", phase="final_answer")],
        [message("I look.", phase="commentary"), message("It is 42.", id="msg_2")],
        [message("It is ", "42.")],
        [message("It is 42.", phase="commentary")],
        [message(content=[{"type": "refusal", "refusal": "No."}])],
        [
            message(
                content=[
                    {"type": "output_text", "text": "It is 42.", "annotations": [{"url": "u"}]}
                ]
            )
        ],
        [{"type": "tomorrow", "id": "x", "deep": {"er": [None, 1.5]}}, message("It is 42.")],
    ],
)
async def test_a_session_s_answer_goes_back_unchanged(
    transport: ScriptedTransport, output: list[Item]
) -> None:
    response = await complete(transport, answer(*output))
    assert await echo(transport, as_session_keeps(response)) == output


async def test_what_was_said_after_a_call_goes_back_after_it(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(call(), message("I add.")))
    items = await echo(transport, response.message, Message("tool", "42"))
    assert items[:2] == [call(), message("I add.")]


async def test_commentary_goes_back_before_its_call(transport: ScriptedTransport) -> None:
    output = [message("I add.", phase="commentary"), call()]
    response = await complete(transport, answer(*output))
    assert response.message.text == ""
    items = await echo(transport, response.message, Message("tool", "42"))
    assert items[:2] == output


async def test_a_plain_answer_needs_no_state(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(message("It is 42."), call()))
    assert response.message.provider_state == {}


async def test_an_edited_text_is_sent_instead(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(reasoning(), message("It is 42.")))
    for text in ("It is 43.", ""):
        edited = response.message.model_copy(update={"content": text})
        items = await echo(transport, edited)
        assert [item["content"] for item in items] == ([text] if text else [])


async def test_edited_calls_are_sent_instead(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(reasoning(), call('{"a":1}')))
    edited = response.message.model_copy(update={"tool_calls": [ToolCall("call_1", "sub")]})
    items = await echo(transport, edited, Message("tool", "1"))
    assert items[0] == {
        "type": "function_call",
        "call_id": "call_1",
        "name": "sub",
        "arguments": "{}",
    }
    without = response.message.model_copy(update={"tool_calls": []})
    assert await echo(transport, without) == []


async def test_the_state_of_another_provider_is_not_sent(transport: ScriptedTransport) -> None:
    state: dict[str, Any] = {"anthropic": {"output": [reasoning(), message("Hi")]}}
    items = await echo(transport, Message("assistant", "Hi", provider_state=state))
    assert items == [{"type": "message", "role": "assistant", "content": "Hi"}]


@pytest.mark.parametrize(
    "state", [None, 7, [], {}, {"output": None}, {"output": ["x"]}, {"refusal": "No."}]
)
async def test_a_state_that_is_none_of_this_protocol_s_is_left_aside(
    transport: ScriptedTransport, state: Any
) -> None:
    items = await echo(transport, Message("assistant", "Hi", provider_state={"openai": state}))
    assert [item["role"] for item in items] == ["assistant"]


async def test_the_other_protocol_takes_the_message_without_the_state(
    transport: ScriptedTransport,
) -> None:
    response = await complete(transport, answer(reasoning("Hm."), message("It is 42.")))
    transport.answers_json({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
    asked = request(USER, response.message, Message("user", "Go on"))
    await provider(transport, api="chat").complete(asked)
    assert transport.calls[-1].body["messages"][1] == {
        "role": "assistant",
        "content": "It is 42.",
    }


async def test_reasoning_that_led_to_nothing_does_not_go_back(transport: ScriptedTransport) -> None:
    response = await complete(transport, cut(message("Half"), reasoning(id="rs_2")))
    assert await echo(transport, response.message) == [message("Half")]
    response = await complete(transport, cut(reasoning()))
    assert await echo(transport, response.message) == []


async def test_reasoning_that_the_server_cannot_find_again_does_not_go_back(
    transport: ScriptedTransport,
) -> None:
    bare = reasoning("Hm.", encrypted_content=None)
    response = await complete(transport, answer(bare, message("It is 42."), call()))
    result = Message("tool", "1")
    items = await echo(transport, response.message, result)
    assert [(item["type"], item.get("id")) for item in items] == [
        ("message", None),
        ("function_call", None),
        ("function_call_output", None),
    ]
    stored = await echo(transport, response.message, result, extra_body={"store": True})
    assert stored[:3] == [bare, message("It is 42."), call()]


async def test_another_server_gets_reasoning_back_as_it_gave_it(
    transport: ScriptedTransport,
) -> None:
    bare = reasoning("Hm.", encrypted_content=None)
    made = provider(transport, base_url="http://127.0.0.1:8080/v1", api="responses")
    transport.answers_json(answer(bare, message("It is 42.")))
    response = await made.complete(request(USER))
    transport.answers_json(answer(message("Hi")))
    await made.complete(request(USER, response.message, Message("user", "Go on")))
    assert transport.calls[-1].body["input"][1:3] == [bare, message("It is 42.")]


async def test_arguments_that_were_no_json_go_back_as_none(transport: ScriptedTransport) -> None:
    response = await complete(transport, answer(reasoning(), call('{"a": ')))
    items = await echo(transport, response.message, Message("tool", "no JSON", is_error=True))
    assert items[:2] == [reasoning(), call("{}")]


@pytest.mark.parametrize("kept", [True, False])
async def test_the_result_of_a_call_of_free_text_is_one_too(
    transport: ScriptedTransport, kept: bool
) -> None:
    item = {"type": "custom_tool_call", "call_id": "call_9", "name": "run", "input": "1 + 1"}
    response = await complete(transport, answer(item))
    made = response.message
    if not kept:
        made = Message("assistant", tool_calls=response.tool_calls)
    assert await echo(transport, through_json(made), Message("tool", "2")) == [
        item,
        {"type": "custom_tool_call_output", "call_id": "call_9", "output": "2"},
    ]


async def test_an_image_that_was_made_goes_back_with_its_item(transport: ScriptedTransport) -> None:
    made = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "YQ=="}
    response = await complete(transport, answer(made, message("Here.")))
    assert response.message.content == [
        TextPart(text="Here."),
        ImagePart(data=b"a", media_type="image/png"),
    ]
    assert await echo(transport, as_session_keeps(response)) == [made, message("Here.")]
