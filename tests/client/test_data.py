"""The data of a call: messages, parts, tool calls, requests, responses, chunks, usage."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

import aether
from aether import Aether, Tool
from aether.errors import InputError
from aether.extensions.memory import InMemorySessionStore
from aether.llm.contracts import (
    AudioPart,
    CachePoint,
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
from aether.llm.messages import text_message
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
    | st.builds(
        ImagePart,
        data=st.binary(min_size=1),
        media_type=st.just("image/png"),
        provider_state=states,
    )
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
    with pytest.raises(InputError, match="role"):
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
    with pytest.raises(InputError):
        Message("user", content)


PICTURE = ImagePart(url="https://example.org/a.png")


@pytest.mark.parametrize(
    ("content", "made"),
    [
        (["What?", PICTURE, "Hm?"], [TextPart(text="What?"), PICTURE, TextPart(text="Hm?")]),
        (PICTURE, [PICTURE]),
        ({"type": "text", "text": "a"}, [TextPart(text="a")]),
        ((PICTURE, PICTURE), [PICTURE, PICTURE]),
        (iter([PICTURE, "a"]), [PICTURE, TextPart(text="a")]),
        (None, ""),
        ([], []),
    ],
)
def test_content_is_made_of_texts_and_parts(content: Any, made: Any) -> None:
    assert Message("user", content).content == made


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (ImagePart, {}, "give either url or data"),
        (ImagePart, {"data": b"x"}, "data needs its media_type, such as 'image/png'"),
        (
            ImagePart,
            {"data": "%", "media_type": "image/png"},
            "data should be bytes, or base64 of them",
        ),
        (TextPart, {"text": b"x"}, "text should be a str"),
        (CachePoint, {"ttl": "2h"}, "ttl should be '5m' or '1h'"),
        (
            Message,
            {"role": "user", "content": b"x"},
            "content is text, a part, or a list of parts, not bytes",
        ),
        (
            Message,
            {"role": "user", "content": ["a", 5]},
            "content[1] is no part of a known type",
        ),
        (
            Message,
            {"role": "user", "content": [{"type": "image"}]},
            "content[0]: give either url or data",
        ),
        (
            Message,
            {"role": "user", "content": {"type": "text", "text": "x", "colour": 1}},
            "there is no field content[0].colour",
        ),
        (Message, {"role": "tool", "content": [{"type": "text"}]}, "content[0].text is missing"),
        (LLMRequest, {"messages": ["x"]}, "messages[0] should be a Message"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(kind: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        kind(**fields)
    assert str(caught.value) == f"{kind.__name__}: {said}."
    assert isinstance(caught.value.__cause__, ValidationError)


def test_an_unknown_kind_of_part_is_told_the_known_ones() -> None:
    content: Any = [{"type": "video"}]
    with pytest.raises(InputError, match=r"content\[0\] is no part of .*'text', 'image', 'audio'"):
        Message("user", content)


def test_of_many_problems_the_first_few_are_told() -> None:
    content: Any = [5] * 1000
    with pytest.raises(InputError, match=r"content\[4\].*; and 995 more\.$") as caught:
        Message("user", content)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "canary"},
        {"content": [{"type": "canary"}]},
        {"content": [{"type": "image", "data": "canary!"}]},
        {"content": [{"type": "image", "data": "eA==", "media_type": "canary"}]},
        {"content": 5, "tool_call_id": {"canary": "canary"}},
        {"tool_calls": ["canary"]},
    ],
)
def test_no_error_shows_what_the_values_hold(wrong: dict[str, Any]) -> None:
    given = {"role": "user", **wrong}
    with pytest.raises(InputError) as caught:
        Message(**given)
    assert "canary" not in f"{caught.value}"
    with pytest.raises(ValidationError) as stored:
        Message.model_validate_json(json.dumps(given))
    assert "input_value" not in f"{stored.value}{caught.value.__cause__}"


# --- media ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (ImagePart, "IMAGE/PNG", "image/png"),
        (ImagePart, " image/png ; charset=binary", "image/png"),
        (ImagePart, "image/jpg", "image/jpeg"),
        (ImagePart, "image/svg+xml", "image/svg+xml"),
        (AudioPart, "audio/x-wav", "audio/wav"),
        (AudioPart, "audio/wave", "audio/wav"),
        (AudioPart, "audio/mp3", "audio/mpeg"),
        (AudioPart, "audio/x-m4a", "audio/mp4"),
        (AudioPart, "audio/L16; rate=24000", "audio/l16;rate=24000"),
        (FilePart, "text/markdown; charset=utf-8", "text/markdown"),
        (FilePart, "image/jpg", "image/jpeg"),
    ],
)
def test_a_media_type_has_one_name(kind: Any, given: str, kept: str) -> None:
    assert kind(data=b"x", media_type=given).media_type == kept
    assert kind(url="https://example.org/a", media_type=given).media_type == kept


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ImagePart, "application/pdf"),
        (ImagePart, "text/plain"),
        (ImagePart, "audio/wav"),
        (AudioPart, "image/png"),
        (AudioPart, "video/webm"),
    ],
)
def test_a_media_type_fits_its_part(kind: Any, given: str) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__}: media_type .*{given}.*FilePart"):
        kind(data=b"x", media_type=given)


@pytest.mark.parametrize("kind", [ImagePart, AudioPart, FilePart])
@pytest.mark.parametrize("given", ["png", "garbage", "image/", "/png", "image/a b", "a/b/c", "*/*"])
def test_a_media_type_has_two_halves(kind: Any, given: str) -> None:
    with pytest.raises(InputError, match="media_type is of the form type/subtype"):
        kind(data=b"x", media_type=given)


@pytest.mark.parametrize("kind", [ImagePart, AudioPart, FilePart])
def test_media_without_any_bytes_are_refused(kind: Any, tmp_path: Path) -> None:
    media_type = {ImagePart: "image/png", AudioPart: "audio/wav", FilePart: "text/plain"}[kind]
    with pytest.raises(InputError, match="data is empty"):
        kind(data=b"", media_type=media_type)
    with pytest.raises(InputError, match="data is empty"):
        kind(url=f"data:{media_type};base64,")
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(InputError, match=r"'.*empty' is empty"):
        kind.from_path(empty, media_type=media_type)


@pytest.mark.parametrize(
    ("kind", "name", "media_type"),
    [
        (ImagePart, "a.JPG", "image/jpeg"),
        (ImagePart, "a.webp", "image/webp"),
        (AudioPart, "a.wav", "audio/wav"),
        (AudioPart, "a.flac", "audio/flac"),
        (AudioPart, "a.m4a", "audio/mp4"),
        (FilePart, "a.md", "text/markdown"),
    ],
)
def test_the_type_of_a_file_is_told_from_its_name(
    kind: Any, name: str, media_type: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(b"x")
    assert kind.from_path(file).media_type == media_type


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (AudioPart, "a.png", "image/png"),
        (FilePart, "a", "pass media_type="),
        (FilePart, "a.csv.gz", "pass media_type="),
    ],
)
def test_a_file_of_another_or_an_unknown_type_is_refused(
    kind: Any, name: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(b"x")
    with pytest.raises(InputError, match=said):
        kind.from_path(file)


@pytest.mark.parametrize("name", ["none.png", "a\0.png"])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        ImagePart.from_path(tmp_path / name)


def test_a_data_url_is_data() -> None:
    sound = AudioPart(url="data:audio/L16;rate=8000;BASE64,eA==")
    assert (sound.data, sound.media_type) == (b"x", "audio/l16;rate=8000")
    text = FilePart(url="data:;charset=utf-8,a%20b")
    assert (text.data, text.media_type) == (b"a b", "text/plain")
    with pytest.raises(InputError, match="image/, as text/plain does not"):
        ImagePart(url="data:,x")


def test_a_model_of_ones_own_takes_its_leading_fields_by_position_too() -> None:
    class Signed(ToolCall):
        by: str = Field(default="", kw_only=False)

    assert Signed("c1", "add", {}, "me") == Signed(id="c1", name="add", arguments={}, by="me")
    assert ToolCall("c1", "add", {}) == ToolCall(id="c1", name="add", arguments={})


@pytest.mark.parametrize(
    ("args", "named", "said"),
    [
        (("user", "Hi", []), {}, "Message takes at most 2 positional arguments: role, content"),
        (("user",), {"role": "user"}, "Message got 'role' twice"),
    ],
)
def test_a_field_is_given_once_and_only_the_leading_ones_by_position(
    args: tuple[Any, ...], named: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        Message(*args, **named)


def test_misspelt_field_is_refused() -> None:
    wrong: dict[str, Any] = {"tool_call": []}
    with pytest.raises(InputError, match="tool_call"):
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


@given(st.sampled_from(["user", "system"]), st.text())
def test_a_message_of_a_text_would_pass_every_check(role: Role, text: str) -> None:
    made = text_message(role, text)

    assert made == Message.model_validate(made.model_dump()) == Message(role, text)
    assert made.untrusted is False
    assert made.tool_calls is not text_message(role, text).tool_calls


def test_a_message_of_a_text_holds_no_class_of_its_own() -> None:
    class Marked(str):
        __slots__ = ()

    assert type(text_message("user", Marked("a")).content) is str


# --- requests and responses -------------------------------------------------------------------


def test_request_needs_messages_alone() -> None:
    request = LLMRequest([Message("user", "hi")])
    assert (request.model, request.temperature, request.max_tokens) == (None, None, None)
    assert tuple(request.tools) == ()
    assert request.temperature_is_default is False
    nothing: dict[str, Any] = {}
    with pytest.raises(InputError, match="messages"):
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
    for wrong, said in ((["add"], "Tool objects"), ([print], "Tool objects"), (None, "a list of")):
        tools: Any = wrong
        with pytest.raises(InputError, match=said):
            LLMRequest([Message("user", "hi")], tools=tools)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": True}, "max_tokens should be an int"),
        ({"max_tokens": "10"}, "max_tokens should be an int"),
        ({"max_tokens": 10.0}, "max_tokens should be an int"),
        ({"max_tokens": 0}, "max_tokens should be greater than 0"),
        ({"seed": True}, "seed should be an int"),
        ({"seed": "1"}, "seed should be an int"),
        ({"temperature": True}, "temperature should be a number"),
        ({"temperature": "1"}, "temperature should be a number"),
        ({"temperature": 2.1}, "temperature should be less than or equal to 2"),
        ({"temperature": float("nan")}, "temperature should be a finite number"),
        ({"top_p": True}, "top_p should be a number"),
        ({"top_p": "0.5"}, "top_p should be a number"),
        ({"top_p": 1.1}, "top_p should be less than or equal to 1"),
        ({"stop": ""}, "stop is a text or a list of texts, none of them empty"),
        ({"stop": ["a", ""]}, "stop is a text or a list of texts, none of them empty"),
        ({"stop": [b"a"]}, "stop is a text or a list of texts, none of them empty"),
        ({"stop": 5}, "stop should be a list"),
    ],
)
async def test_request_refuses_settings_of_another_type_or_range(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"^LLMRequest: {said}"):
        LLMRequest([Message("user", "hi")], **options)
    fake = FakeProvider()
    with pytest.raises(InputError, match=f"^Invalid option: {said}"):
        await Aether(fake).ask("hi", **options)
    assert fake.requests == []


def test_request_takes_whole_numbers_for_real_ones() -> None:
    request = LLMRequest([Message("user", "hi")], temperature=2, top_p=1, stop="a")
    assert (request.temperature, request.top_p, request.stop) == (2.0, 1.0, ("a",))


def test_copy_with_changes_leaves_the_request_as_it_was() -> None:
    request = LLMRequest([Message("user", "hi")], model="m")
    assert request.replace(model="n").model == "n"
    assert request.model == "m"


def test_a_subclass_may_copy_in_its_own_way_by_way_of_a_plain_copy() -> None:
    class Noted(Message):
        def model_copy(self, *, update: Any = None, deep: bool = False) -> Noted:
            if update is None and not deep:
                return copy.copy(self)
            return super().model_copy(update=update, deep=deep)

    first = Noted("user", "hi")
    for made in (copy.copy(first), first.model_copy()):
        assert (type(made), made) == (Noted, first)
        assert made is not first
        assert made.model_fields_set == {"role", "content"}
        assert made.model_fields_set is not first.model_fields_set


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
    with pytest.raises(InputError, match="finish_reason"):
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
