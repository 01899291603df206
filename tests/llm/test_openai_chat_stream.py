"""Streams put together: text, reasoning, calls, usage and ends, as servers really send them."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    AetherError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm._vendors import OPENAI, VENDORS, Vendor
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.openai_chat import ChatAssembly, parse_response
from aether.extensions.llm._wire.sse import SSEDecoder
from aether.llm.contracts import LLMResponse, StreamChunk

DONE = "[DONE]"


def assembly(vendor: Vendor = OPENAI) -> ChatAssembly:
    return ChatAssembly(source=Source(vendor.name, "asked-model", str), vendor=vendor)


def events(*values: Any) -> list[tuple[bytes, str]]:
    return [
        ((value if isinstance(value, str) else json.dumps(value)).encode(), "") for value in values
    ]


def fed(made: ChatAssembly, events: Iterable[tuple[bytes, str]]) -> Iterator[StreamChunk]:
    for data, name in events:
        yield from made.feed(data, name)


def read(*values: Any, vendor: Vendor = OPENAI) -> tuple[list[StreamChunk], LLMResponse]:
    made = assembly(vendor)
    chunks = list(fed(made, events(*values)))
    response = made.finish()
    assert "".join(chunk.text for chunk in chunks) == response.text
    assert "".join(chunk.reasoning or "" for chunk in chunks) == (response.reasoning or "")
    return chunks, response


def delta(content: Any = None, *, finish: Any = None, **fields: Any) -> dict[str, Any]:
    if content is not None:
        fields["content"] = content
    return {
        "model": "told-model",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


def usage(**counts: int) -> dict[str, Any]:
    return {"choices": [], "usage": counts}


def piece(arguments: Any = None, **fields: Any) -> dict[str, Any]:
    function = {key: fields.pop(key) for key in ("name",) if key in fields}
    if arguments is not None:
        function["arguments"] = arguments
    return delta(tool_calls=[{**fields, "function": function}])


def test_text_is_handed_out_as_it_comes() -> None:
    chunks, response = read(
        delta("", role="assistant"),
        delta("Hel"),
        delta("lo"),
        delta(finish="stop"),
        usage(prompt_tokens=9, completion_tokens=2),
        DONE,
    )
    assert [chunk.text for chunk in chunks] == ["Hel", "lo"]
    assert response.text == "Hello"
    assert response.model == "told-model"
    assert response.finish_reason == "stop"
    assert (response.input_tokens, response.output_tokens) == (9, 2)
    assert response.cache_read_tokens is None


@pytest.mark.parametrize("vendor", [OPENAI, VENDORS["openrouter"]])
def test_a_stream_says_what_the_whole_answer_says(vendor: Vendor) -> None:
    told = {"prompt_tokens": 9, "completion_tokens": 2}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    message = {"content": "Hi", "reasoning": "why", "tool_calls": [call]}
    whole = parse_response(
        json.dumps(
            {
                "model": "told-model",
                "choices": [{"message": message, "finish_reason": "tool_calls"}],
                "usage": told,
            }
        ).encode(),
        source=Source(vendor.name, "asked-model", str),
        vendor=vendor,
    )
    _, streamed = read(
        delta(reasoning="w"),
        delta(reasoning="hy"),
        delta("H"),
        delta("i"),
        piece("", index=0, id="c1", name="add"),
        piece('{"a"', index=0),
        piece(":1}", index=0),
        delta(finish="tool_calls"),
        {"choices": [], "usage": told},
        DONE,
        vendor=vendor,
    )
    assert streamed == whole


CUT_UP = [
    piece("", index=0, id="a", name="add"),
    piece('{"x":', index=0),
    piece("1}", index=0),
]


@pytest.mark.row("S20")
@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        (CUT_UP, [("a", "add", {"x": 1})]),
        ([piece('{"x":1}', index=0, id="a", name="add")], [("a", "add", {"x": 1})]),
        (
            [
                piece("{", index=0, id="a", name="add"),
                piece("{", index=1, id="b", name="sub"),
                piece("}", index=0),
                piece("}", index=1),
            ],
            [("a", "add", {}), ("b", "sub", {})],
        ),
        ([piece("{}", id="a", name="add")], [("a", "add", {})]),
        (
            [piece("{}", id="a", name="add"), piece("{}", id="b", name="add")],
            [("a", "add", {}), ("b", "add", {})],
        ),
        ([piece("{", id="a", name="add"), piece("}", id="a")], [("a", "add", {})]),
        ([piece("{", id="a", name="add"), piece("}")], [("a", "add", {})]),
        (
            [piece("{}", index=0, id="a", name="add"), piece("{}", index=0, id="b", name="sub")],
            [("a", "add", {}), ("b", "sub", {})],
        ),
        (
            [
                piece("{", index=0, id="a", name="add"),
                piece("}", index=0, id=None, name=None),
            ],
            [("a", "add", {})],
        ),
        (
            [piece("{", index=0, id="a", name="add"), piece("}", index=0, id="a", name="add")],
            [("a", "add", {})],
        ),
        (
            [
                piece('{"x":', index=0, id="a", name="add"),
                piece("{}", index=0, name="add"),
                piece("}", index=0, name="add"),
                piece("", index=0, name="add"),
            ],
            [("a", "add", {"x": {}})],
        ),
        (
            [
                piece("{", index=0, id="a", name="add"),
                piece("}", index=0, id="made up"),
                piece("{}", index=1, id="b", name="sub"),
            ],
            [("a", "add", {}), ("b", "sub", {})],
        ),
        ([piece("", index=0, id="a", name="add")], [("a", "add", {})]),
        ([piece("null", index=0, id="a", name="add")], [("a", "add", {})]),
        ([piece({"x": 1}, index=0, id="a", name="add")], [("a", "add", {"x": 1})]),
        (
            [piece("{}", index=3, id="a", name="add"), piece("{}", index=7, id="b", name="sub")],
            [("a", "add", {}), ("b", "sub", {})],
        ),
    ],
)
def test_calls_are_put_together(
    pieces: list[Any], calls: list[tuple[str, str, dict[str, Any]]]
) -> None:
    chunks, response = read(*pieces, delta(finish="tool_calls"), DONE)
    assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == calls
    assert all(call.invalid_arguments is None for call in response.tool_calls)
    assert response.finish_reason == "tool_calls"
    given_out = [chunk.tool_call for chunk in chunks if chunk.tool_call is not None]
    assert len(given_out) == len(pieces)
    assert {call.index for call in given_out} == set(range(len(calls)))


@pytest.mark.row("S20")
def test_calls_without_ids_get_ids_and_the_same_id_twice_is_told_apart() -> None:
    _, response = read(
        piece("{}", index=0, id="", name="add"),
        piece("{}", index=1, id="a", name="add"),
        piece("{}", index=2, id="a", name="add"),
        delta(finish="stop"),
    )
    ids = [call.id for call in response.tool_calls]
    assert all(ids)
    assert len(set(ids)) == 3
    assert response.finish_reason == "tool_calls"


def test_whole_calls_that_all_have_the_first_index_and_no_id_are_told_apart() -> None:
    """So Gemini's compatible server may count them."""
    _, response = read(
        piece('{"x":1}', index=0, id="", name="add"),
        piece('{"x":2}', index=0, id="", name="add"),
        piece("{}", index=0, id="", name="sub"),
        delta(finish="tool_calls"),
    )
    assert [(c.name, c.arguments) for c in response.tool_calls] == [
        ("add", {"x": 1}),
        ("add", {"x": 2}),
        ("sub", {}),
    ]
    assert len({call.id for call in response.tool_calls}) == 3


@pytest.mark.parametrize("finish", ["function_call", "stop"])
def test_a_call_in_the_place_of_older_servers_is_put_together(finish: str) -> None:
    _, response = read(
        delta(None, role="assistant", function_call={"name": "add", "arguments": ""}),
        delta(None, function_call={"arguments": '{"x":'}),
        delta(None, function_call={"arguments": "1}"}),
        delta(finish=finish),
        DONE,
    )
    assert [(c.name, c.arguments) for c in response.tool_calls] == [("add", {"x": 1})]


@pytest.mark.parametrize("arguments", ["", '{"x": "The'])
def test_a_call_that_was_cut_off_is_marked(arguments: str) -> None:
    _, response = read(piece(arguments, index=0, id="a", name="add"), delta(finish="length"), DONE)
    assert response.finish_reason == "length"
    assert response.tool_calls[0].invalid_arguments == arguments


def test_the_signature_of_a_streamed_call_is_kept() -> None:
    _, response = read(
        piece("{}", index=0, id="a", name="add", extra_content={"google": "abc"}),
        delta(finish="stop"),
    )
    assert response.tool_calls[0].provider_state == {"openai": {"extra_content": {"google": "abc"}}}


def test_a_call_without_a_name_is_an_error_and_no_answer() -> None:
    with pytest.raises(ProtocolError, match="without a name"):
        read(delta("x"), piece("{}", index=0, id="a"), delta(finish="tool_calls"))


def test_a_piece_of_a_call_that_says_nothing_begins_none() -> None:
    empty = {"index": 0, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    _, response = read(delta("x", tool_calls=[empty, {}]), delta(finish="stop"))
    assert (response.text, response.tool_calls) == ("x", [])


def test_a_finish_that_speaks_of_calls_needs_one() -> None:
    with pytest.raises(ProtocolError, match="gives no call"):
        read(delta("", role="assistant"), delta(finish="tool_calls"), DONE)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_streamed_reasoning_is_echoed_under_its_name(field: str) -> None:
    chunks, response = read(
        delta("", role="assistant", **{field: ""}),
        delta(None, **{field: "be"}),
        delta(None, **{field: "cause"}),
        delta("4"),
        delta(finish="stop"),
        vendor=VENDORS["vllm"],
    )
    assert [chunk.reasoning for chunk in chunks] == ["be", "cause", None]
    assert response.message.provider_state == {"vllm": {field: "because"}}


def test_reasoning_details_are_joined_to_whole_entries() -> None:
    def detail(**fields: Any) -> dict[str, Any]:
        return delta(None, reasoning_details=[fields])

    _, response = read(
        detail(type="reasoning.text", index=0, text="be", signature=None),
        detail(type="reasoning.text", index=0, text="cause"),
        detail(type="reasoning.text", index=0, signature="sig"),
        detail(type="reasoning.encrypted", index=1, data="x", id="e1"),
        detail(type="odd"),
        detail(type="odd"),
        delta("4"),
        delta(finish="stop"),
        vendor=VENDORS["openrouter"],
    )
    assert response.message.provider_state["openrouter"] == {
        "reasoning_details": [
            {"type": "reasoning.text", "index": 0, "text": "because", "signature": "sig"},
            {"type": "reasoning.encrypted", "index": 1, "data": "x", "id": "e1"},
            {"type": "odd"},
            {"type": "odd"},
        ]
    }


def test_encrypted_details_with_ids_of_their_own_are_not_joined() -> None:
    details = [
        {"type": "reasoning.encrypted", "index": 0, "data": data, "id": name}
        for name, data in (("e1", "x"), ("e2", "y"))
    ]
    _, response = read(
        *(delta(None, reasoning_details=[detail]) for detail in details),
        delta("4", finish="stop"),
        vendor=VENDORS["openrouter"],
    )
    assert response.message.provider_state["openrouter"] == {"reasoning_details": details}


def test_pieces_of_a_summary_of_reasoning_are_joined() -> None:
    def thought(text: str, **fields: Any) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": text, **fields}]
        return delta([{"type": "reasoning", "summary": summary}])

    chunks, response = read(
        thought("be"),
        thought("cause"),
        thought("", signature="sig"),
        delta("Hel"),
        delta("lo", finish="stop"),
        vendor=VENDORS["vllm"],
    )
    assert [chunk.reasoning for chunk in chunks] == ["be", "cause", None, None]
    summary = [{"type": "summary_text", "text": "because", "signature": "sig"}]
    assert response.message.provider_state == {
        "vllm": {
            "content": [
                {"type": "reasoning", "summary": summary},
                {"type": "text", "text": "Hello"},
            ]
        }
    }


def test_content_lists_with_thinking_are_told_apart() -> None:
    chunks, response = read(
        delta([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
        delta([{"type": "text", "text": "4"}]),
        delta("2"),
        delta(finish="stop"),
        vendor=VENDORS["mistral"],
    )
    assert (response.reasoning, response.text) == ("hm", "42")
    assert len(chunks) == 3


THINKING = {
    "<think>hm</think>\n\n4 is <b>": ("4 is <b>", "hm"),
    "  <think>\nhm </thin </think> x</think>": ("x</think>", "\nhm </thin "),
    "<think>never closed </thi": ("", "never closed </thi"),
    "<thinking>text</thinking>": ("<thinking>text</thinking>", ""),
    "text <think>x</think>": ("text <think>x</think>", ""),
    " \n": (" \n", ""),
    "<thi": ("<thi", ""),
    "<think></think>": ("", ""),
    " " * 100 + "<think>x": (" " * 100 + "<think>x", ""),
}


@given(
    st.sampled_from(sorted(THINKING)),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_think_tags_are_found_however_they_are_cut(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    vendor = VENDORS["ollama"]
    _, whole = read(delta(text), delta(finish="stop"), vendor=vendor)
    _, cut_up = read(*[delta(part) for part in pieces], delta(finish="stop"), vendor=vendor)
    assert (cut_up.text, cut_up.reasoning) == (whole.text, whole.reasoning)
    assert (whole.text, whole.reasoning or "") == THINKING[text]


def test_a_streamed_refusal_is_a_content_filter() -> None:
    _, response = read(
        delta(None, refusal="I "), delta(None, refusal="won't"), delta(finish="stop")
    )
    assert response.finish_reason == "content_filter"
    assert response.message.provider_state == {"openai": {"refusal": "I won't"}}


@pytest.mark.row("S19")
def test_the_latest_usage_counts_wherever_it_stands() -> None:
    running = {**delta("a"), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    on_finish = {
        **delta(finish="stop"),
        "usage": {"prompt_tokens": 1, "completion_tokens": 5},
        "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 5}},
    }
    _, response = read(running, on_finish, {"choices": [], "usage": None}, DONE)
    assert (response.input_tokens, response.output_tokens) == (1, 5)
    _, old = read(delta("a"), {**delta(finish="stop"), "x_groq": {"usage": {"prompt_tokens": 2}}})
    assert old.input_tokens == 2
    _, none = read(delta("a"), delta(finish="stop"))
    assert none.input_tokens is None
    assert none.output_tokens is None


def test_chunks_that_say_nothing_are_left_alone() -> None:
    chunks, _ = read(
        {"choices": [], "prompt_filter_results": []},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0}]},
        {"choices": None},
        {"type": "keepalive"},
        "",
        "null",
        {"choices": [{"index": 1, "delta": {"content": "an alternative"}}]},
        delta("x"),
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        delta(finish="stop"),
    )
    assert [chunk.text for chunk in chunks] == ["x"]


@pytest.mark.row("S16", "S17")
def test_the_first_finish_counts_and_what_follows_is_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "aether.llm"):
        _, response = read(
            delta("x", finish="stop"), delta("", finish="length"), delta("y"), delta("z"), DONE
        )
    assert response.text == "x"
    assert response.finish_reason == "stop"
    assert len(caplog.records) == 1


@pytest.mark.row("S16")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([piece("", index=0, id="call_1", name="add")], piece('{"a":1}', index=0)),
        ([piece('{"a"', index=0, id="call_1", name="add")], piece(":1}", index=0)),
        (
            [piece('{"a":1}', index=0, id="call_1", name="add")],
            piece("{}", index=1, id="call_2", name="add"),
        ),
        ([delta("x")], piece("{}", name="add")),
    ],
    ids=["arguments", "rest of arguments", "second call", "call"],
)
def test_no_call_that_follows_the_finish_is_left_out(
    before: list[dict[str, Any]], after: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError, match="went on with a tool call"):
        read(*before, delta(finish="stop"), after, DONE)


@pytest.mark.row("S16")
def test_a_call_that_is_repeated_behind_the_finish_is_one() -> None:
    whole = piece('{"a":1}', index=0, id="call_1", name="add")
    _, response = read(whole, delta(finish="tool_calls"), whole, delta(tool_calls=[{}]), DONE)
    assert [call.arguments for call in response.tool_calls] == [{"a": 1}]


@pytest.mark.parametrize("mark", ["[DONE] ", " [DONE]"])
def test_space_around_the_end_mark_changes_nothing(mark: str) -> None:
    assert read(delta("x", finish="stop"), mark)[1].text == "x"


def test_nothing_counts_after_the_end_mark() -> None:
    _, response = read(delta("x", finish="stop"), DONE, delta("y"), "not json")
    assert response.text == "x"


@pytest.mark.parametrize("end", [[], [DONE]])
def test_a_stream_without_a_finish_reason_is_interrupted_and_keeps_what_came(
    end: list[str],
) -> None:
    made = assembly()
    list(fed(made, events(delta("Hel"), piece("", index=0, id="a", name="add"), *end)))
    with pytest.raises(StreamInterruptedError) as caught:
        made.finish()
    partial = caught.value.partial
    assert caught.value.kind == "truncated"
    assert partial is not None
    assert partial.text == "Hel"
    assert partial.finish_reason is None
    assert partial.tool_calls[0].invalid_arguments is not None


@pytest.mark.row("S2")
def test_a_server_known_to_leave_out_the_reason_ends_with_its_end_mark() -> None:
    ollama = VENDORS["ollama"]
    _, response = read(delta("x"), DONE, vendor=ollama)
    assert (response.finish_reason, response.text) == ("other", "x")
    assert response.finish_reason_raw is None
    for values in ([delta("x")], [DONE], []):
        with pytest.raises(StreamInterruptedError):
            read(*values, vendor=ollama)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "m", "type": "server_error"}}, ServerError),
        ({"error": {"message": "m", "status_code": 400}}, BadRequestError),
        ({"error": "m"}, ServerError),
        ({"object": "error", "message": "m", "code": 503}, OverloadedError),
        (
            {"choices": [{"index": 0, "error": {"code": 529}, "finish_reason": "error"}]},
            OverloadedError,
        ),
        ({"error": {"code": 502, "message": "m"}, **delta("", finish="error")}, ServerError),
        ({"x_groq": {"error": "m"}, **delta(finish="stop")}, ServerError),
    ],
)
def test_an_error_in_the_stream_is_raised_as_what_it_is(
    event: dict[str, Any], kind: type[AetherError]
) -> None:
    with pytest.raises(kind) as caught:
        read(event)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "whole"}, "finish_reason": "stop"},
        {"delta": {}, "message": {"content": "whole"}, "finish_reason": "stop"},
        {"text": "whole", "finish_reason": "stop"},
        {"delta": {"function_call": {}}, "finish_reason": "function_call"},
    ],
)
def test_an_answer_that_is_in_no_delta_is_not_an_empty_one(choice: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read({"choices": [{"index": 0, **choice}]}, DONE)


def test_a_whole_message_beside_the_deltas_is_left_alone() -> None:
    _, response = read(
        {"choices": [{**delta("whole")["choices"][0], "message": {"content": "whole"}}]},
        {"choices": [{"delta": {}, "message": {"content": "whole"}, "finish_reason": "stop"}]},
    )
    assert response.text == "whole"


def test_an_event_named_error_is_one_whatever_it_holds() -> None:
    with pytest.raises(OverloadedError):
        assembly().feed(b'{"message": "m", "status_code": 503}', "error")


@pytest.mark.parametrize(
    "value",
    [
        "not json",
        "[]",
        "7",
        '{"choices": 7}',
        '{"choices": [7]}',
        '{"choices": [{"delta": []}]}',
        '{"choices": [{"delta": [1]}]}',
        '{"choices": [{"delta": {"content": 7}}]}',
        '{"choices": [{"delta": {"tool_calls": 7}}]}',
        '{"choices": [{"delta": {"tool_calls": [7]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"function": 7}]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": 7}}]}}]}',
        '{"choices": [{"delta": {}, "finish_reason": 7}]}',
    ],
)
def test_what_came_before_a_bad_event_is_handed_out(value: str) -> None:
    made = assembly()
    seen: list[StreamChunk] = []
    try:
        for chunk in fed(made, events(delta("x"), value)):
            seen.append(chunk)  # noqa: PERF402 - what was seen before the error is the point
        made.finish()
    except (ProtocolError, StreamInterruptedError):
        pass
    else:
        pytest.fail("the event passed for an answer")
    assert [chunk.text for chunk in seen] == ["x"]


STREAM = [
    delta("", role="assistant"),
    delta("H\u00e9\u2028llo \U0001f600"),
    *CUT_UP,
    delta(None, reasoning="hm", finish=None),
    {**delta(finish="tool_calls"), "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
BYTES = b"".join(
    b": comment\n\ndata: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
    for value in STREAM
)


def test_a_stream_cut_anywhere_is_the_same_stream() -> None:
    def put_together(*pieces: bytes) -> tuple[list[StreamChunk], LLMResponse]:
        decoder, made = SSEDecoder(), assembly()
        chunks = [chunk for part in pieces for chunk in fed(made, decoder.feed(part))]
        return chunks, made.finish()

    whole = put_together(BYTES)
    for cut in range(len(BYTES)):
        assert put_together(BYTES[:cut], BYTES[cut:]) == whole
    assert put_together(*(bytes([byte]) for byte in BYTES)) == whole


def test_a_stream_that_ends_anywhere_too_early_is_no_answer() -> None:
    whole_at = len(BYTES)
    for end in range(whole_at):
        decoder, made = SSEDecoder(), assembly()
        list(fed(made, decoder.feed(BYTES[:end])))
        with pytest.raises(StreamInterruptedError):
            made.finish()


def test_many_chunks_are_joined_once() -> None:
    many = 100_000
    made = assembly(VENDORS["openrouter"])
    hold = events(delta(None, reasoning="r", reasoning_details=[{"index": 0, "text": "r"}]))
    for _ in fed(made, hold * many):
        pass
    list(fed(made, events(delta("x"), delta(finish="stop"))))
    assert len(made.finish().reasoning or "") == many


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
_RICH = [
    delta("x", role="assistant", reasoning="r", refusal="n", reasoning_details=[{"index": 0}]),
    delta([{"type": "thinking", "thinking": [{"text": "t"}]}, {"type": "text", "text": "y"}]),
    *CUT_UP,
    piece("{}", id="b", name="sub", extra_content={"google": {}}),
    {**delta(finish="stop"), "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"a": 1}}},
    {"choices": [], "error": None, "x_groq": {"usage": {"prompt_tokens": 2}}},
]


def _places(value: Any) -> list[tuple[Any, Any]]:
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, _ in pairs]
    for _, inner in pairs:
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_wrong_shape_is_an_answer_or_an_error_of_ours(data: st.DataObject) -> None:
    values = copy.deepcopy(_RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(values)
        container, key = places[data.draw(st.integers(0, len(places) - 1))]
        container[key] = data.draw(_JSON)
    made = assembly(VENDORS[data.draw(st.sampled_from(["openrouter", "ollama"]))])
    chunks: list[StreamChunk] = []
    try:
        for chunk in fed(made, events(*values)):
            chunks.append(chunk)  # noqa: PERF402 - kept although the feed may raise
        response = made.finish()
    except AetherError:
        response = made.partial()
    assert response.text == "".join(chunk.text for chunk in chunks)
    fits = LLMResponse.model_validate(response.model_dump(), strict=True)
    assert repr(fits) == repr(response)  # NaN may be in it, which equals nothing


@pytest.mark.row("S24")
def test_a_refusal_that_is_a_part_of_streamed_content_is_one() -> None:
    _, response = read(delta([{"type": "refusal", "refusal": "No."}]), delta(finish="stop"), DONE)
    assert (response.text, response.finish_reason) == ("", "content_filter")
    assert "No." in str(response.message.provider_state)


@pytest.mark.row("S24")
def test_streamed_parts_that_nobody_reads_are_no_empty_answer() -> None:
    _, response = read(delta([{"type": "of_tomorrow", "x": 1}]), delta(finish="stop"), DONE)
    assert (response.text, response.finish_reason) == ("", "other")


_STRAY = {"index": 0, "id": "c", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.row("S17", "T13")
@pytest.mark.parametrize(
    "last",
    [
        delta([{"type": "tool_use", "name": "add"}], finish="tool_calls"),
        {
            "choices": [
                {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
                {"index": 0, "delta": {"tool_calls": [_STRAY]}},
            ]
        },
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": "assistant"},
                    "message": {"content": "Let me look.", "tool_calls": [_STRAY]},
                    "finish_reason": "tool_calls",
                }
            ]
        },
    ],
)
def test_calls_where_the_protocol_has_none_are_not_lost(last: dict[str, Any]) -> None:
    made = assembly()
    with pytest.raises(ProtocolError, match=r"tool call|choice of their own|whole m"):  # noqa: PT012 - it comes with the end, or before
        list(fed(made, events(delta("Let me look."), last, DONE)))
        made.finish()


@pytest.mark.row("S24")
def test_a_whole_message_beside_a_delta_that_says_nothing_is_not_lost() -> None:
    last = delta(role="assistant", finish="stop")
    last["choices"][0]["message"] = {"content": "Hello"}
    with pytest.raises(ProtocolError, match="whole message"):
        list(fed(assembly(), events(last)))


def test_the_whole_so_far_beside_each_delta_is_left_alone() -> None:
    """As Perplexity tells it."""
    told = [delta("", role="assistant"), delta("Hel"), delta("lo"), delta("", finish="stop")]
    for event, whole in zip(told, ("", "Hel", "Hello", "Hello"), strict=True):
        event["choices"][0]["message"] = {"role": "assistant", "content": whole}
    assert read(*told, DONE)[1].text == "Hello"
