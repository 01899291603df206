"""The data of a call: messages, parts, tool calls, requests, responses, chunks, usage."""

from __future__ import annotations

import copy
import pickle
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import aether
from aether import Aether, Tool
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import (
    AudioPart,
    CallContext,
    FilePart,
    FinishReason,
    ImagePart,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ReasoningPart,
    Role,
    StreamChunk,
    StreamingLLMProvider,
    TextPart,
    TokenUsage,
    ToolCall,
)
from aether.testing import FakeProvider

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
states = st.dictionaries(
    st.sampled_from(["openai", "gemini", "anthropic"]), json_values, max_size=3
)
parts = (
    st.builds(TextPart, text=st.text(), provider_state=states)
    | st.builds(ReasoningPart, text=st.text(), provider_state=states)
    | st.builds(ImagePart, data=st.binary(), media_type=st.just("image/png"), provider_state=states)
    | st.builds(AudioPart, url=st.text(min_size=1), provider_state=states)
    | st.builds(
        FilePart, url=st.text(min_size=1), name=st.none() | st.text(), provider_state=states
    )
)
calls = st.builds(
    ToolCall,
    id=st.text(min_size=1),
    name=st.text(),
    arguments=st.dictionaries(st.text(), json_values, max_size=3),
    provider_state=states,
)
messages = st.builds(
    Message,
    role=st.sampled_from(get_args(Role)),
    content=st.text() | st.lists(parts, max_size=3),
    tool_calls=st.lists(calls, max_size=2),
    tool_call_id=st.none() | st.text(),
    provider_state=states,
)


# --- messages and parts -----------------------------------------------------------------------


def test_message_takes_role_and_content_by_position() -> None:
    assert Message("user", "hi") == Message(role="user", content="hi")
    assert Message is aether.Message


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_roles_are_the_four(role: Any) -> None:
    assert Message(role, "x").role == role


@pytest.mark.parametrize("role", ["developer", "", None, "USER"])
def test_other_roles_are_refused(role: Any) -> None:
    with pytest.raises(ValidationError, match="role"):
        Message(role, "x")


def test_message_carries_calls_and_answers_one() -> None:
    call = ToolCall("c1", "add", {"a": 1})
    assert Message("assistant", tool_calls=[call]).tool_calls == [call]
    assert Message("tool", "2", tool_call_id="c1").tool_call_id == "c1"


def test_content_of_parts_is_typed_and_text_is_that_of_the_text_parts() -> None:
    content: Any = [
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "a"},
        {"type": "image", "url": "http://x/y.png"},
        {"type": "audio", "data": b"\x00\xff", "media_type": "audio/wav"},
        {"type": "file", "url": "http://x/y.pdf", "name": "y.pdf"},
        {"type": "text", "text": "b"},
    ]
    message = Message("user", content)
    assert [type(part) for part in message.content] == [
        ReasoningPart,
        TextPart,
        ImagePart,
        AudioPart,
        FilePart,
        TextPart,
    ]
    assert message.text == "ab"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "url": "x"},
        {"type": "image"},
        {"type": "image", "url": "x", "data": b"x", "media_type": "image/png"},
        {"type": "image", "data": b"x"},
        {"type": "text"},
        {"type": "text", "text": "x", "colour": "red"},
    ],
)
def test_part_that_says_nothing_or_too_much_is_refused(part: dict[str, Any]) -> None:
    content: Any = [part]
    with pytest.raises(ValidationError):
        Message("user", content)


def test_misspelt_field_is_refused() -> None:
    wrong: dict[str, Any] = {"tool_call": []}
    with pytest.raises(ValidationError, match="tool_call"):
        Message("user", "x", **wrong)


@given(messages)
def test_message_survives_json_and_pickle_whole(message: Message) -> None:
    assert Message.model_validate_json(message.model_dump_json()) == message
    assert Message.model_validate(message.model_dump()) == message
    assert pickle.loads(pickle.dumps(message)) == message


STATE: dict[str, Any] = {
    "gemini": {"thought_signature": "c2ln"},
    "anthropic": [{"type": "thinking", "signature": "s", "deep": {"er": [None, 1.5, True]}}],
}


async def test_provider_state_survives_a_session_store_everywhere() -> None:
    message = Message(
        "assistant",
        [TextPart(text="a", provider_state=STATE), ReasoningPart(text="b", provider_state=STATE)],
        tool_calls=[ToolCall("1", "t", {}, provider_state=STATE)],
        provider_state=STATE,
    )
    store = InMemorySessionStore()
    await store.save("s", [message])
    (loaded,) = await store.load("s")
    assert loaded == message
    assert loaded.provider_state == STATE
    assert loaded.tool_calls[0].provider_state == STATE
    assert [part.provider_state for part in loaded.content if not isinstance(part, str)] == [
        STATE,
        STATE,
    ]


async def test_provider_state_of_an_answer_goes_back_with_the_next_turn() -> None:
    answer = LLMResponse(
        text="one", model="m", message=Message("assistant", "one", provider_state=STATE)
    )
    fake = FakeProvider(responses=[answer, "two"])
    session = Aether(fake).session("s")
    await session.ask("1")
    await session.ask("2")
    assert fake.requests[1].messages[1].provider_state == STATE


async def test_provider_state_of_calls_goes_back_within_a_run() -> None:
    def ping() -> str:
        """Answer."""
        return "pong"

    call = ToolCall("1", "ping", {}, provider_state=STATE)
    fake = FakeProvider(responses=[LLMResponse(text="", model="m", tool_calls=[call]), "done"])
    await Aether(fake).ask("hi", tools=[ping])
    assert fake.requests[1].messages[1].tool_calls[0].provider_state == STATE


# --- tool calls -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [{}, {"id": None}, {"id": ""}])
def test_call_without_an_id_gets_one(missing: dict[str, Any]) -> None:
    one, two = ToolCall(name="t", **missing), ToolCall(name="t", **missing)
    assert one.id
    assert two.id
    assert one.id != two.id


def test_call_keeps_its_id() -> None:
    assert ToolCall("c1", "t", {"a": 1}) == ToolCall(id="c1", name="t", arguments={"a": 1})


@pytest.mark.parametrize("text", ["", "  ", "null", " null\n", "{}"])
def test_no_arguments_are_none(text: str) -> None:
    call = ToolCall.parse("1", "t", text)
    assert (call.arguments, call.invalid_arguments) == ({}, None)


@pytest.mark.parametrize(
    "text", ["[1]", "1", '"x"', "true", "{", '{"a": 1', '{"a": NaN}', "{'a': 1}", '{"a":1} x']
)
def test_arguments_that_are_no_object_are_kept_as_invalid(text: str) -> None:
    call = ToolCall.parse("1", "t", text)
    assert (call.arguments, call.invalid_arguments) == ({}, text)


@given(st.text())
def test_parsing_arguments_never_fails(text: str) -> None:
    call = ToolCall.parse(None, "t", text)
    assert call.id
    assert isinstance(call.arguments, dict)


# --- requests and responses -------------------------------------------------------------------


def test_request_needs_messages_alone() -> None:
    request = LLMRequest([Message("user", "hi")])
    assert (request.model, request.temperature, request.max_tokens) == (None, None, None)
    assert tuple(request.tools) == ()
    assert request.temperature_is_default is False
    nothing: dict[str, Any] = {}
    with pytest.raises(ValidationError, match="messages"):
        LLMRequest(**nothing)


def test_request_takes_its_leading_fields_by_position() -> None:
    tool = Tool(name="t", description="", parameters={"type": "object"}, handler=lambda: "x")
    request = LLMRequest([Message("user", "hi")], "m", 0.5, 10, [tool])
    assert (request.model, request.temperature, request.max_tokens) == ("m", 0.5, 10)
    assert tuple(request.tools) == (tool,)


@pytest.mark.parametrize("cls", [LLMRequest, LLMResponse, Message, ToolCall, TextPart])
def test_data_is_immutable(cls: type[BaseModel]) -> None:
    made = {
        LLMRequest: LLMRequest([Message("user", "hi")]),
        LLMResponse: LLMResponse("x", "m"),
        Message: Message("user", "hi"),
        ToolCall: ToolCall("1", "t"),
        TextPart: TextPart(text="x"),
    }[cls]
    for name in cls.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, None)


def test_request_does_not_follow_the_list_that_it_was_made_of() -> None:
    conversation = [Message("user", "hi")]
    request = LLMRequest(conversation)
    conversation.append(Message("user", "more"))
    assert len(request.messages) == 1


def test_request_refuses_tools_that_are_names_or_functions() -> None:
    for wrong in (["add"], [print]):
        tools: Any = wrong
        with pytest.raises(ValidationError, match="Tool objects"):
            LLMRequest([Message("user", "hi")], tools=tools)


def test_copy_with_changes_leaves_the_request_as_it_was() -> None:
    request = LLMRequest([Message("user", "hi")], model="m")
    assert request.replace(model="n").model == "n"
    assert request.model == "m"


def test_what_a_call_notes_on_its_request_is_not_serialised() -> None:
    request = LLMRequest([Message("user", "hi")], context=CallContext())
    assert "context" not in request.model_dump()
    assert "context" not in request.model_dump_json()


@pytest.mark.parametrize("mode", ["python", "json"])
def test_dumped_request_has_what_a_model_is_told_of_the_tools(mode: Any) -> None:
    tool = Tool(name="t", description="d", parameters={"type": "object"}, handler=lambda: "canary")
    request = LLMRequest([Message("user", "hi")], tools=[tool])
    told = [{"name": "t", "description": "d", "parameters": {"type": "object"}}]
    assert request.model_dump(mode=mode)["tools"] == told
    assert request.model_dump_json()


def test_response_takes_its_leading_fields_by_position() -> None:
    call = ToolCall("1", "t")
    response = LLMResponse("x", "m", 1, 2, [call], "tool_calls")
    assert (response.text, response.model) == ("x", "m")
    assert (response.input_tokens, response.output_tokens) == (1, 2)
    assert (response.tool_calls, response.finish_reason) == ([call], "tool_calls")


def test_what_a_response_does_not_know_is_none_and_never_zero() -> None:
    response = LLMResponse(text="x", model="m")
    assert response.tool_calls == []
    for name in (
        "input_tokens",
        "output_tokens",
        "finish_reason",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "request_id",
        "reasoning",
        "finish_reason_raw",
    ):
        assert getattr(response, name) is None, name


def test_response_has_the_message_to_send_back() -> None:
    call = ToolCall("1", "t")
    response = LLMResponse(text="x", model="m", tool_calls=[call])
    assert response.message == Message("assistant", "x", tool_calls=[call])
    own = Message("assistant", "x", provider_state={"openai": 1})
    assert LLMResponse(text="x", model="m", message=own).message is own


def test_finish_reasons_are_the_six() -> None:
    six = {"stop", "length", "tool_calls", "content_filter", "error", "other"}
    assert set(get_args(FinishReason)) == six
    wrong: Any = "end_turn"
    with pytest.raises(ValidationError, match="finish_reason"):
        LLMResponse(text="x", model="m", finish_reason=wrong)


@pytest.mark.parametrize("reason", ["stop", "other", "tool_calls", None])
async def test_whether_there_are_calls_is_read_from_the_calls(reason: Any) -> None:
    def ping() -> str:
        """Answer."""
        return "pong"

    call = LLMResponse(
        text="", model="m", tool_calls=[ToolCall("1", "ping", {})], finish_reason=reason
    )
    assert await Aether(FakeProvider(responses=[call, "done"])).ask("hi", tools=[ping]) == "done"
    claims = LLMResponse(text="no calls", model="m", finish_reason="tool_calls")
    assert await Aether(FakeProvider(responses=[claims])).ask("hi", tools=[ping]) == "no calls"


@given(st.lists(calls, max_size=2), st.none() | st.integers(0, 10), st.text())
def test_response_survives_json_and_pickle_whole(
    tool_calls: list[ToolCall], tokens: int | None, text: str
) -> None:
    response = LLMResponse(text=text, model="m", input_tokens=tokens, tool_calls=tool_calls)
    assert LLMResponse.model_validate_json(response.model_dump_json()) == response
    assert pickle.loads(pickle.dumps(response)) == response
    assert copy.deepcopy(response) == response


# --- chunks, usage, protocols -----------------------------------------------------------------


def test_chunk_is_light_and_all_but_its_text_is_none() -> None:
    chunk = StreamChunk(text="x")
    assert not isinstance(chunk, BaseModel)
    assert not hasattr(chunk, "__dict__")
    for name in (
        "reasoning",
        "finish_reason",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "tool_calls",
        "response",
    ):
        assert getattr(chunk, name) is None, name
    assert StreamChunk().text == ""


async def test_reasoning_streams_as_deltas_of_its_own() -> None:
    response = LLMResponse(text="answer", model="m", reasoning="hm", finish_reason="stop")
    client = Aether(FakeProvider(responses=[response, response]))
    chunks = [chunk async for chunk in client.stream("hi")]
    assert "".join(chunk.reasoning or "" for chunk in chunks) == "hm"
    assert [text async for text in client.stream_text("hi")] == ["answ", "er"]


def test_usage_starts_unknown() -> None:
    usage = TokenUsage()
    assert usage.requests == 0
    assert usage.cost_usd is None
    assert usage.input_tokens is None


def test_usage_adds_what_is_known_and_invents_nothing() -> None:
    total = TokenUsage(1, input_tokens=3) + TokenUsage(1, input_tokens=4, output_tokens=2)
    assert (total.requests, total.input_tokens, total.output_tokens) == (2, 7, 2)
    assert total.cache_read_tokens is None
    assert total.cost_usd is None
    assert (TokenUsage(cost_usd=0.5) + TokenUsage()).cost_usd == 0.5


def test_protocols_tell_who_can_complete_and_who_can_stream() -> None:
    class Whole:
        async def complete(self, request: LLMRequest, /) -> LLMResponse:
            raise NotImplementedError

    assert isinstance(Whole(), LLMProvider)
    assert not isinstance(Whole(), StreamingLLMProvider)
    assert isinstance(FakeProvider(), StreamingLLMProvider)
    assert not isinstance(object(), LLMProvider)
