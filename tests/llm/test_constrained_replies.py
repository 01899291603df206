"""What a reply may be, and how it is read: an answer in deltas, a call, or a piece of either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import InputError
from aether.extensions.llm._local.constrained import (
    Reply,
    ToolReply,
    ValueReply,
    offered_tools,
    open_reply,
    reply_schema,
)
from aether.llm.contracts import LLMRequest, Message


@dataclass(frozen=True)
class Spec:
    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
ADD = Spec("add", "Add two integers.", NUMBERS)
NOW = Spec("now", "The time.")


def request(**fields: Any) -> LLMRequest:
    return LLMRequest([Message("user", "Hi")], **fields)


def read(reply: Reply, written: str, size: int = 1) -> tuple[str, str]:
    """The text and the arguments that a reply makes, fed in pieces of `size`."""
    deltas = [
        delta
        for start in range(0, len(written), size)
        for delta in reply.feed(written[start : start + size])
    ]
    text = "".join(delta.text for delta in deltas) + reply.end()
    calls = [delta.tool_call for delta in deltas if delta.tool_call]
    if calls:
        assert calls[0].id
        assert calls[0].name
        assert all(call.id is None and call.name is None for call in calls[1:])
    return text, "".join(call.arguments for call in calls)


def test_without_tools_and_schema_any_text_will_do() -> None:
    assert reply_schema(request()) is None
    reply = open_reply(request())
    assert read(reply, '{"tool": "add"}') == ('{"tool": "add"}', "")
    assert reply.is_valid
    assert not reply.is_complete


def test_tools_leave_an_answer_or_one_call() -> None:
    schema = reply_schema(request(tools=[ADD, NOW]))
    assert schema is not None
    answer, add, now = schema["anyOf"]
    assert answer["properties"] == {"answer": {"type": "string", "minLength": 1}}
    assert add["properties"]["tool"] == {"const": "add"}
    assert add["properties"]["arguments"]["required"] == ["a", "b"]
    assert now["properties"]["tool"] == {"const": "now"}
    for one in schema["anyOf"]:
        assert one["required"] == list(one["properties"])
        assert one["additionalProperties"] is False


def test_required_leaves_no_answer() -> None:
    schema = reply_schema(request(tools=[ADD, NOW], tool_choice="required"))
    assert schema is not None
    assert ["tool" in one["properties"] for one in schema["anyOf"]] == [True, True]


def test_forced_tool_leaves_its_call_alone() -> None:
    forced = request(tools=[ADD, NOW], tool_choice="now")
    schema = reply_schema(forced)
    assert schema is not None
    assert schema["properties"]["tool"] == {"const": "now"}
    assert offered_tools(forced) == ([NOW], True)


def test_none_offers_no_tool() -> None:
    asked = request(tools=[ADD], tool_choice="none")
    assert reply_schema(asked) is None
    assert offered_tools(asked) == ((), False)


def test_tool_that_is_not_offered_cannot_be_forced() -> None:
    with pytest.raises(InputError, match=r"names 'sub'.*Offered: add"):
        offered_tools(request(tools=[ADD], tool_choice="sub"))


def test_output_schema_is_the_reply() -> None:
    schema = reply_schema(request(output_schema=NUMBERS))
    assert schema is not None
    assert schema["required"] == ["a", "b"]


def test_output_schema_beside_tools_is_the_answer() -> None:
    schema = reply_schema(request(output_schema=NUMBERS, tools=[NOW]))
    assert schema is not None
    assert schema["anyOf"][0]["properties"]["answer"]["required"] == ["a", "b"]
    reply = open_reply(request(output_schema=NUMBERS, tools=[NOW]))
    assert read(reply, '{"answer": {"a": 1, "b": 2} }') == ('{"a": 1, "b": 2}', "")
    assert reply.is_complete


def test_schemas_of_several_tools_share_one_set_of_definitions() -> None:
    def spec(name: str, kind: str) -> Spec:
        node = {"$defs": {"Node": {"type": kind}}, "properties": {"n": {"$ref": "#/$defs/Node"}}}
        return Spec(name, "", {"type": "object", **node})

    schema = reply_schema(request(tools=[spec("one", "string"), spec("two", "integer")]))
    assert schema is not None
    references = [
        one["properties"]["arguments"]["properties"]["n"]["$ref"] for one in schema["anyOf"][1:]
    ]
    meant = [schema["$defs"][reference.removeprefix("#/$defs/")] for reference in references]
    assert meant == [{"type": "string"}, {"type": "integer"}]


@given(st.text(), st.booleans(), st.integers(1, 9))
def test_answer_comes_in_deltas_that_join_to_it(text: str, indented: bool, size: int) -> None:
    written = json.dumps({"answer": text}, indent=2 if indented else None)
    reply = ToolReply()
    assert read(reply, written, size) == (text, "")
    assert reply.is_complete
    assert reply.is_valid
    assert reply.call is None


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text(), max_size=2)),
    st.booleans(),
    st.integers(1, 9),
)
def test_call_comes_in_deltas_of_its_arguments(
    arguments: dict[str, Any], indented: bool, size: int
) -> None:
    written = json.dumps({"tool": 'a"dd\n', "arguments": arguments}, indent=2 if indented else None)
    reply = ToolReply()
    text, streamed = read(reply, written, size)
    assert text == ""
    assert json.loads(streamed) == arguments
    assert reply.is_complete
    assert reply.call is not None
    _, name, whole = reply.call
    assert name == 'a"dd\n'
    assert whole == streamed


def test_answer_streams_before_it_has_ended() -> None:
    reply = ToolReply()
    assert list(reply.feed('{ "ans')) == []
    assert [delta.text for delta in reply.feed('wer": "One')] == ["One"]
    assert [delta.text for delta in reply.feed(" two")] == [" two"]
    assert not reply.is_complete


@pytest.mark.parametrize(
    "written",
    [
        '{"tool": "add", "arguments": {"a": 1',
        '{"tool": "add", "arguments": {"a": 1, "b": "}"',
        '{"tool": "add", "argum',
        '{"tool": "ad',
        "{",
    ],
)
def test_cut_call_is_no_call(written: str) -> None:
    reply = ToolReply()
    text, _ = read(reply, written)
    assert text == ""
    assert reply.call is None
    assert not reply.is_complete
    assert not reply.is_valid


def test_cut_answer_keeps_its_text_so_far() -> None:
    reply = ToolReply()
    assert read(reply, '{"answer": "So fa') == ("So fa", "")
    assert not reply.is_complete


def test_what_follows_the_end_means_nothing() -> None:
    reply = ToolReply()
    assert read(reply, '{"answer": "a"}, {"answer": "b"}') == ("a", "")


def test_stop_ends_an_answer_but_no_call() -> None:
    answer = ToolReply(stop=["\n"])
    assert read(answer, '{"answer": "one\\ntwo"}') == ("one", "")
    assert answer.is_complete
    call = ToolReply(stop=["1"])
    assert read(call, '{"tool": "add", "arguments": {"a": 11}}') == ("", '{"a": 11}')


@pytest.mark.parametrize("written", ["17", "true", '"text"', '{"a": [1, 2]}', "[]"])
def test_value_is_its_text(written: str) -> None:
    reply = ValueReply()
    assert read(reply, f"\n {written}\n  ") == (written, "")
    assert reply.is_complete
    assert reply.is_valid


@pytest.mark.parametrize("written", ['{"a": [1', "Sure! Here it is", '"open', ""])
def test_text_that_is_no_value_is_not_valid(written: str) -> None:
    reply = ValueReply()
    read(reply, written)
    assert not reply.is_valid
