"""The key of a request, equal for equal ones alone; and an answer as text, itself or nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.extensions.llm._canonical import (
    KeptAnswer,
    _digest,
    read_answer,
    replayed,
    request_key,
    write_answer,
)
from aether.llm.contracts import (
    AudioPart,
    CachePoint,
    CallContext,
    FilePart,
    ImagePart,
    LLMRequest,
    LLMResponse,
    Message,
    ReasoningPart,
    StreamChunk,
    TextPart,
    ToolCall,
    ToolCallDelta,
)
from aether.tools.contracts import Tool
from tests.llm.scripted import a_request, an_answer

KEY = "0" * 64


def key_of(request: LLMRequest, *, name: str | None = None, **more: Any) -> str | None:
    more = {"model": request.model, "identity": ("openai", "https://one"), **more}
    return request_key(request, name=name, **more)


def a_tool(
    name: str = "add", description: str = "Adds.", parameters: Mapping[str, Any] | None = None
) -> Tool:
    return Tool(name, description, parameters or {"type": "object"}, handler=print)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CALLS: dict[str, Sequence[Any]] = {
    "id": ["c1", "c2"],
    "name": ["add", "sub"],
    "arguments": [{}, {"a": "1"}, {"a": "2"}, {"b": {"a": ["1", None]}}],
    "invalid_arguments": [None, '{"a": ', ""],
    "provider_state": [{}, {"openai": "x"}, {"openai": {"x": None}}],
}
PARTS: dict[type[Any], dict[str, Sequence[Any]]] = {
    TextPart: {"text": ["a", "b"], "provider_state": [{}, {"p": "1"}]},
    ReasoningPart: {"text": ["a", "b"], "provider_state": [{}, {"p": "1"}]},
    CachePoint: {"ttl": ["5m", "1h"], "provider_state": [{}, {"p": "1"}]},
    ImagePart: {
        "url": [None, "https://a", "https://b"],
        "data": [None, b"a", b"\x00\xff"],
        "media_type": ["image/png", "image/jpeg"],
        "provider_state": [{}, {"p": "1"}],
    },
    AudioPart: {
        "url": [None, "https://a"],
        "data": [None, b"a", b"b"],
        "media_type": ["audio/wav", "audio/mpeg"],
        "provider_state": [{}, {"p": "1"}],
    },
    FilePart: {
        "url": [None, "https://a"],
        "data": [None, b"a", b"b"],
        "media_type": ["application/pdf", "text/plain"],
        "name": [None, "a.pdf", "b.pdf"],
        "provider_state": [{}, {"p": "1"}],
    },
}
MESSAGES: dict[str, Sequence[Any]] = {
    "role": ["user", "system", "assistant", "tool"],
    "content": ["", "hello", "1", [], [TextPart(text="hello")], [CachePoint()]],
    "tool_calls": [[], [ToolCall("c1", "add")], [ToolCall("c1", "add"), ToolCall("c2", "add")]],
    "tool_call_id": [None, "c1", "c2"],
    "is_error": [False, True],
    "provider_state": [{}, {"openai": ["x"]}],
}
REQUESTS: dict[str, Sequence[Any]] = {
    "messages": [
        (Message("user", "a"),),
        (Message("user", "b"),),
        (Message("user", "a"), Message("user", "b")),
        (Message("user", "b"), Message("user", "a")),
    ],
    "model": ["m1", "m2", None],
    "temperature": [None, 0.0, 0.5, 1.0],
    "max_tokens": [None, 1, 2],
    "tools": [(), (a_tool(),), (a_tool("sub"),), (a_tool(), a_tool("sub"))],
    "temperature_is_default": [False, True],
    "tool_choice": [None, "auto", "add"],
    "top_p": [None, 0.5],
    "seed": [None, 0, 1],
    "stop": [(), ("a",), ("b",), ("a", "b")],
    "reasoning": [None, "low", "high"],
    "parallel_tool_calls": [None, True, False],
    "output_schema": [None, SCHEMA, {"type": "object"}],
    "extra_body": [{}, {"a": "1"}, {"a": {"a": "1"}}, {"a": None}, {"a": ["1"]}, {"a": []}],
    "extra_headers": [{}, {"a": "1"}, {"b": "1"}],
}


def made(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    try:
        return kind(**fields)
    except ValueError:
        return None  # a part without a source, or with two


def values(table: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: st.sampled_from(found) for name, found in table.items()})


calls = values(CALLS).map(lambda fields: ToolCall(**fields))
parts = st.one_of(
    *(values(fields).map(partial(made, kind)).filter(bool) for kind, fields in PARTS.items())
)
messages = st.one_of(
    values(MESSAGES).map(lambda fields: Message(**fields)),
    st.lists(parts, max_size=2).map(lambda content: Message("user", content)),
    st.lists(calls, max_size=2).map(lambda found: Message("assistant", tool_calls=found)),
)


def test_each_field_is_looked_at() -> None:
    assert REQUESTS.keys() == LLMRequest.model_fields.keys() - {"context"}
    assert MESSAGES.keys() == Message.model_fields.keys() - {"untrusted"}
    assert CALLS.keys() == ToolCall.model_fields.keys()
    for kind, fields in PARTS.items():
        assert fields.keys() == kind.model_fields.keys() - {"type"}


@pytest.mark.parametrize("field", REQUESTS)
def test_a_key_tells_each_value_of_each_field_apart(field: str) -> None:
    requests = [a_request().replace(**{field: value}) for value in REQUESTS[field]]
    keys = [key_of(request) for request in requests]
    assert None not in keys
    assert len(set(keys)) == len(requests)


@pytest.mark.parametrize("field", MESSAGES)
def test_a_key_tells_each_value_of_each_field_of_a_message_apart(field: str) -> None:
    found = [Message(**{"role": "tool", field: value}) for value in MESSAGES[field]]
    assert len({key_of(LLMRequest([message])) for message in found}) == len(found)


@pytest.mark.parametrize("field", CALLS)
def test_a_key_tells_each_value_of_each_field_of_a_call_apart(field: str) -> None:
    found = [ToolCall(**{"id": "c", "name": "n", field: value}) for value in CALLS[field]]
    requests = [LLMRequest([Message("assistant", tool_calls=[call])]) for call in found]
    assert len({key_of(request) for request in requests}) == len(found)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in PARTS.items() for field in fields]
)
def test_a_key_tells_each_value_of_each_field_of_a_part_apart(kind: type[Any], field: str) -> None:
    others = (
        {"data": b"z", "media_type": PARTS[kind]["media_type"][0]} if "data" in PARTS[kind] else {}
    )
    if field == "url":
        del others["data"]
    if kind in (TextPart, ReasoningPart):
        others = {"text": "z"}
    found = [made(kind, {**others, field: value}) for value in PARTS[kind][field]]
    parts_made = [part for part in found if part is not None]
    assert len(parts_made) >= len(found) - 1
    keys = {key_of(LLMRequest([Message("user", [part])])) for part in parts_made}
    assert len(keys) == len(parts_made)


@given(values(REQUESTS), values(REQUESTS), st.sets(st.sampled_from(sorted(REQUESTS))))
def test_keys_are_equal_if_the_requests_are(
    one: dict[str, Any], other: dict[str, Any], alike: set[str]
) -> None:
    other = {name: one[name] if name in alike else value for name, value in other.items()}
    first, second = LLMRequest(**one), LLMRequest(**other)
    assert (key_of(first) == key_of(second)) == (first == second)


@given(messages, messages)
def test_keys_are_equal_if_the_messages_are(one: Message, other: Message) -> None:
    first, second = LLMRequest([one]), LLMRequest([other])
    assert (key_of(first) == key_of(second)) == (first == second)
    assert key_of(first) == key_of(LLMRequest([one.model_copy(deep=True)]))


@pytest.mark.parametrize(
    "tools",
    [
        [a_tool(), a_tool(description="Adds up.")],
        [a_tool(), a_tool(parameters={"type": "object", "properties": {}})],
        [a_tool(parameters={"type": "object", "x": 1}), a_tool(parameters={"type": "object"})],
    ],
)
def test_a_key_tells_tools_apart_by_what_the_model_is_told(tools: list[Tool]) -> None:
    assert len({key_of(a_request(tools=[tool])) for tool in tools}) == len(tools)


def test_what_is_not_sent_is_no_part_of_the_key() -> None:
    request = a_request(tools=[a_tool()])
    handled = Tool("add", "Adds.", {"type": "object"}, handler=len, timeout=1.0, trusted=True)
    marked = [Message("user", "What is 17 + 25?", untrusted=True)]
    same = [
        request.replace(context=CallContext(cache=True)),
        request.replace(tools=(handled,)),
        request.replace(messages=tuple(marked)),
    ]
    assert {key_of(each) for each in same} == {key_of(request)}


def test_the_order_of_names_in_an_object_is_no_part_of_the_key() -> None:
    one = a_request(extra_body={"a": {"x": 1, "y": 2}, "b": 3})
    other = a_request(extra_body={"b": 3, "a": {"y": 2, "x": 1}})
    assert key_of(one) == key_of(other)


def test_numbers_that_are_written_otherwise_have_other_keys() -> None:
    keys = {key_of(a_request(extra_body={"a": value})) for value in (1, True, "1", 1.5, [1], None)}
    assert len(keys) == 6


def test_a_key_is_of_who_is_asked() -> None:
    request = a_request()
    keys = {
        key_of(request),
        key_of(request, identity=("openai", "https://two")),
        key_of(request, identity=("azure", "https://one")),
        key_of(request, identity=(None, "https://one")),
        key_of(request, model="other"),
        key_of(request, model=None),
    }
    assert len(keys) == 6


def test_the_key_of_a_format_stays_what_it_is() -> None:
    """Another one would forget all that users have kept: it needs a new `FORMAT`."""
    assert key_of(a_request(tools=[a_tool()], temperature=0)) == (
        "7fff8166f880d2f61bddc6e084a4b00751633a7caf2460ac374f3ec25f181329"
    )


class Strange:
    """No JSON, and no help."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, b"x", {1, 2}, object(), Strange(), "half a pair: \ud83d", {1: 2, "1": 2}],
    ids=["nan", "infinity", "bytes", "set", "object", "strange", "surrogate", "mixed names"],
)
def test_a_request_that_is_no_json_has_no_key(value: Any) -> None:
    assert key_of(a_request(extra_body={"a": {"b": [value]}})) is None
    assert key_of(a_request().replace(output_schema={"a": value})) is None
    call = ToolCall("c1", "add", {"a": value})
    assert key_of(LLMRequest([Message("assistant", tool_calls=[call])])) is None


def test_a_request_that_holds_itself_has_no_key() -> None:
    body: dict[str, Any] = {}
    body["a"] = body
    assert key_of(a_request().replace(extra_body=body)) is None


# A key of the caller's.


def test_a_name_stands_for_the_prompt() -> None:
    one, other = (
        a_request("a"),
        LLMRequest([Message("system", "s"), Message("user", "b")], "gpt-6-luna"),
    )
    assert key_of(one, name="n") == key_of(other, name="n")
    assert len({key_of(one), key_of(one, name="n"), key_of(one, name="m")}) == 3


@pytest.mark.parametrize("field", sorted(REQUESTS.keys() - {"messages"}))
def test_a_name_stands_for_no_other_field(field: str) -> None:
    requests = [a_request().replace(**{field: value}) for value in REQUESTS[field]]
    assert len({key_of(request, name="n") for request in requests}) == len(requests)


def test_a_name_does_not_stand_for_what_came_after_the_prompt() -> None:
    prompt = Message("user", "a")
    call = Message("assistant", tool_calls=[ToolCall("c1", "add")])
    wrong = Message("assistant", "{")
    conversations = [
        [prompt],
        [prompt, call, Message("tool", "1", tool_call_id="c1")],
        [prompt, call, Message("tool", "2", tool_call_id="c1")],
        [prompt, wrong, Message("user", "That is no JSON.")],
    ]
    assert len({key_of(LLMRequest(each), name="n") for each in conversations}) == 4


# Answers as text.

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
states = st.dictionaries(st.text(), json_values, max_size=2)
counts = st.none() | st.integers(min_value=0)
any_call = st.builds(
    ToolCall,
    st.text(min_size=1),
    st.text(),
    st.dictionaries(st.text(), json_values, max_size=3),
    invalid_arguments=st.none() | st.text(),
    provider_state=states,
)
any_part = st.one_of(
    st.builds(TextPart, text=st.text(), provider_state=states),
    st.builds(ReasoningPart, text=st.text(), provider_state=states),
    st.builds(ImagePart, data=st.binary(min_size=1), media_type=st.just("image/png")),
    st.builds(AudioPart, data=st.binary(min_size=1), media_type=st.just("audio/wav")),
    st.builds(FilePart, url=st.text(min_size=1).map(lambda end: f"https://x/{end}")),
)
any_message = st.builds(
    Message,
    st.just("assistant"),
    st.text() | st.lists(any_part, max_size=3),
    tool_calls=st.lists(any_call, max_size=2),
    provider_state=states,
    untrusted=st.booleans(),
)
responses = st.builds(
    LLMResponse,
    st.text(),
    st.text(),
    counts,
    counts,
    st.lists(any_call, max_size=2),
    st.sampled_from(["stop", "tool_calls", "length", None]),
    finish_reason_raw=st.none() | st.text(),
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    reasoning=st.none() | st.text(),
    token_details=st.dictionaries(st.text(), st.integers(), max_size=2),
    cost_usd=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    request_id=st.none() | st.text(),
    provider=st.none() | st.text(),
    attempts=st.integers(min_value=1),
    output=json_values,
    message=any_message,
)


@settings(max_examples=200)
@given(responses)
def test_an_answer_comes_back_as_it_was(response: LLMResponse) -> None:
    written = write_answer(KEY, response, None)
    assert written is not None
    text, copied = written
    json.loads(text)
    kept = read_answer(KEY, text)
    assert kept is not None
    for read in (kept.response, copied):
        assert read == response
        assert read.model_dump() == response.model_dump()
        assert read.message.untrusted == response.message.untrusted
    assert joined(list(kept.chunks())) == (response.text, response.reasoning or "")


@given(st.lists(st.text()), st.lists(st.text()), st.booleans())
def test_the_deltas_of_a_stream_come_back(
    texts: list[str], thoughts: list[str], calling: bool
) -> None:
    streamed = [StreamChunk(reasoning=each) for each in thoughts]
    streamed += [StreamChunk(text=each) for each in texts]
    tool_calls = []
    if calling:
        streamed.append(StreamChunk(tool_call=ToolCallDelta(0, "c1", "add", '{"a"')))
        streamed.append(StreamChunk(tool_call=ToolCallDelta(0, arguments=": 1}")))
        tool_calls = [ToolCall("c1", "add", {"a": 1})]
    response = LLMResponse(
        "".join(texts), "m", tool_calls=tool_calls, reasoning="".join(thoughts) or None
    )
    written = write_answer(KEY, response, streamed)
    assert written is not None
    kept = read_answer(KEY, written[0])
    assert kept is not None
    assert list(kept.chunks()) == [chunk for chunk in streamed if chunk.has_content]


def joined(chunks: list[StreamChunk]) -> tuple[str, str]:
    return "".join(c.text for c in chunks), "".join(c.reasoning or "" for c in chunks)


def test_deltas_that_do_not_join_to_the_answer_are_replaced_by_one() -> None:
    call = ToolCall("c1", "add", {"a": 1})
    cases: list[tuple[LLMResponse, list[StreamChunk]]] = [
        (an_answer("It is 42."), [StreamChunk(text="It is ")]),
        (an_answer("a", reasoning="b"), [StreamChunk(text="a")]),
        (an_answer("a"), [StreamChunk(reasoning="b"), StreamChunk(text="a")]),
        (an_answer("", tool_calls=[call]), []),
    ]
    for response, streamed in cases:
        written = write_answer(KEY, response, streamed)
        assert written is not None
        kept = read_answer(KEY, written[0])
        assert kept is not None
        assert list(kept.chunks()) == list(replayed(response))
        assert joined(list(kept.chunks())) == (response.text, response.reasoning or "")


def test_calls_are_replayed_as_they_came() -> None:
    calls = [
        ToolCall("c1", "add", {"a": "\u00e4"}),
        ToolCall("c2", "add", invalid_arguments='{"a": '),
    ]
    deltas = [chunk.tool_call for chunk in replayed(an_answer("", tool_calls=calls))]
    assert deltas == [
        ToolCallDelta(0, "c1", "add", '{"a": "\u00e4"}'),
        ToolCallDelta(1, "c2", "add", '{"a": '),
    ]


class TheirResponse(LLMResponse):
    """A third party's own."""

    more: str = ""


@pytest.mark.parametrize(
    "response",
    [
        an_answer("half a pair: \ud83d"),
        an_answer(cost_usd=math.nan),
        an_answer(cost_usd=math.inf),
        an_answer(tool_calls=[ToolCall("c1", "add", {"a": {1}})]),
        an_answer(tool_calls=[ToolCall("c1", "add", {"a": (1,)})]),
        an_answer(tool_calls=[ToolCall("c1", "add", {"a": {1: 2}})]),
        an_answer(tool_calls=[ToolCall("c1", "add", {"a": b"x"})]),
        an_answer(tool_calls=[ToolCall("c1", "add", {"a": math.nan})]),
        an_answer(output=object()),
        TheirResponse("It is 42.", "m", more="yes"),
    ],
)
def test_an_answer_that_would_come_back_otherwise_is_not_written(response: LLMResponse) -> None:
    assert write_answer(KEY, response, None) is None


@given(st.data())
def test_a_text_with_any_character_changed_is_no_answer(data: st.DataObject) -> None:
    written = write_answer(KEY, an_answer("It is 42.", reasoning="17 + 25"), None)
    assert written is not None
    text = written[0]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda c: c != text[place]))
    assert read_answer(KEY, text[:place] + other + text[place + 1 :]) is None
    assert read_answer(KEY, text[:place]) is None
    assert read_answer(KEY, text[:place] + text[place + 1 :]) is None


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "null", '["",{}]', None, b"[]", 1, "\ud83d", "x" * 500]
)
def test_anything_else_is_no_answer(text: object) -> None:
    assert read_answer(KEY, text) is None


def test_an_answer_of_a_version_with_other_fields_is_none() -> None:
    body = '{"response":{"text":"It is 42.","model":"m","mood":"good"},"deltas":null}'
    assert read_answer(KEY, f'["{_digest(KEY, body)}",{body}]') is None


def test_an_answer_is_read_under_its_own_key_alone() -> None:
    written = write_answer(KEY, an_answer(), None)
    assert written is not None
    assert read_answer(KEY, written[0]) is not None
    assert read_answer("1" * 64, written[0]) is None


def test_what_is_kept_has_no_more_than_it_needs() -> None:
    assert KeptAnswer.model_fields.keys() == {"response", "deltas"}
