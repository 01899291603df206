"""Streams of Anthropic put together: text, thinking, calls, usage and ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import (
    AetherError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from aether.extensions.llm._wire.anthropic import MessagesAssembly, parse_response
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.sse import SSEDecoder
from aether.llm.contracts import LLMResponse, StreamChunk

Event = dict[str, Any] | tuple[str, str]


def source() -> Source:
    return Source("anthropic", "asked-model", str)


def events(*values: Event) -> list[tuple[bytes, str]]:
    made = []
    for value in values:
        name, data = value if isinstance(value, tuple) else (value["type"], json.dumps(value))
        made.append((data.encode(), name))
    return made


def fed(made: MessagesAssembly, events: Iterable[tuple[bytes, str]]) -> Iterator[StreamChunk]:
    for data, name in events:
        yield from made.feed(data, name)


def read(*values: Event) -> tuple[list[StreamChunk], LLMResponse]:
    made = MessagesAssembly(source=source())
    chunks = list(fed(made, events(*values)))
    response = made.finish()
    assert "".join(chunk.text for chunk in chunks) == response.text
    assert "".join(chunk.reasoning or "" for chunk in chunks) == (response.reasoning or "")
    return chunks, response


def fails(*values: Event) -> AetherError:
    with pytest.raises(AetherError) as caught:
        read(*values)
    return caught.value


START = {
    "type": "message_start",
    "message": {
        "type": "message",
        "role": "assistant",
        "model": "told-model",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1},
    },
}
STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    made = {"type": kind, **fields}
    return {"type": "content_block_delta", "index": index, "delta": made}


def close(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    counts = {"output_tokens": 7, **usage}
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": counts}


def text(index: int, *pieces: str) -> list[Event]:
    deltas = [delta(index, "text_delta", text=piece) for piece in pieces]
    return [begin(index, type="text", text=""), *deltas, close(index)]


def call(index: int, *pieces: str, given: Any = None, **fields: Any) -> list[Event]:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": "add", "input": given or {}}
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [begin(index, **{**block, **fields}), *deltas, close(index)]


THOUGHT = [
    begin(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="Let me "),
    delta(0, "thinking_delta", thinking="see."),
    delta(0, "signature_delta", signature="c2lnbmVk"),
    close(0),
]


def test_text_is_handed_out_as_it_comes() -> None:
    chunks, response = read(START, PING, *text(0, "Hel", "lo"), PING, end(), STOP)
    assert [chunk.text for chunk in chunks] == ["Hel", "lo"]
    assert response.text == "Hello"
    assert response.model == "told-model"
    assert response.finish_reason == "stop"
    assert response.message.provider_state == {}


def test_thinking_is_handed_out_and_kept_with_its_signature() -> None:
    chunks, response = read(START, *THOUGHT, *text(1, "Yes."), end(), STOP)
    assert [(chunk.reasoning, chunk.text) for chunk in chunks] == [
        ("Let me ", ""),
        ("see.", ""),
        (None, "Yes."),
    ]
    assert response.message.provider_state["anthropic"] == {
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"},
            {"type": "text", "text": "Yes."},
        ]
    }


@pytest.mark.row("S20")
def test_calls_come_in_pieces() -> None:
    chunks, response = read(
        START, *text(0, "So:"), *call(1, "", '{"a"', ": 1}"), *call(2), end("tool_use"), STOP
    )
    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert [(made.index, made.id, made.name, made.arguments) for made in pieces] == [
        (0, "toolu_1", "add", ""),
        (0, None, None, '{"a"'),
        (0, None, None, ": 1}"),
        (1, "toolu_2", "add", ""),
    ]
    assert [(made.id, made.arguments) for made in response.tool_calls] == [
        ("toolu_1", {"a": 1}),
        ("toolu_2", {}),
    ]
    assert response.finish_reason == "tool_calls"


@pytest.mark.row("S20")
def test_the_input_of_a_call_may_come_whole() -> None:
    chunks, response = read(START, *call(0, given={"a": 1}), end("tool_use"), STOP)
    assert response.tool_calls[0].arguments == {"a": 1}
    assert chunks[0].tool_call is not None
    assert json.loads(chunks[0].tool_call.arguments) == {"a": 1}


def test_blocks_may_be_interleaved() -> None:
    _, response = read(
        START,
        begin(0, type="text", text=""),
        begin(1, type="tool_use", id="toolu_1", name="add", input={}),
        delta(0, "text_delta", text="a"),
        delta(1, "input_json_delta", partial_json='{"a": 1}'),
        delta(0, "text_delta", text="b"),
        end("tool_use"),
        STOP,
    )
    assert response.text == "ab"
    assert response.tool_calls[0].arguments == {"a": 1}


def test_an_index_that_comes_again_is_another_block() -> None:
    _, response = read(START, *text(0, "a"), *text(0, "b"), end(), STOP)
    assert response.text == "ab"


def test_blocks_of_the_server_are_kept_as_they_come() -> None:
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"u": 1}]}
    chunks, response = read(
        START,
        begin(0, **used),
        delta(0, "input_json_delta", partial_json='{"q": '),
        delta(0, "input_json_delta", partial_json='"x"}'),
        begin(1, **found),
        begin(2, type="redacted_thinking", data="d"),
        begin(3, type="compaction", content=None),
        delta(3, "compaction_delta", content="Before: ..."),
        begin(4, type="text", text="", citations=None),
        delta(4, "citations_delta", citation={"cited_text": "x"}),
        delta(4, "citations_delta", citation={"cited_text": "y"}),
        delta(4, "text_delta", text="Cited."),
        delta(4, "something_new", data=1),
        end(),
        STOP,
    )
    assert [chunk.text for chunk in chunks] == ["Cited."]
    assert response.tool_calls == []
    assert response.message.provider_state["anthropic"] == {
        "content": [
            {**used, "input": {"q": "x"}},
            found,
            {"type": "redacted_thinking", "data": "d"},
            {"type": "compaction", "content": "Before: ..."},
            {
                "type": "text",
                "text": "Cited.",
                "citations": [{"cited_text": "x"}, {"cited_text": "y"}],
            },
        ]
    }


@pytest.mark.row("S19")
def test_usage_is_a_running_total_of_which_what_is_left_out_stands() -> None:
    _, response = read(
        START,
        *text(0, "a"),
        end(None, output_tokens=3, cache_read_input_tokens=None),
        end(output_tokens=8, input_tokens=12, output_tokens_details={"thinking_tokens": 5}),
        STOP,
    )
    assert (response.input_tokens, response.output_tokens) == (16, 8)
    assert (response.cache_read_tokens, response.reasoning_tokens) == (4, 5)


def test_what_was_written_is_not_known_where_the_end_does_not_count_it() -> None:
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    _, response = read(START, *text(0, "a"), last, STOP)
    assert (response.input_tokens, response.output_tokens) == (13, None)


def test_the_text_of_a_block_that_is_not_known_is_kept_and_not_shown() -> None:
    new = {"type": "something_new", "text": ""}
    pieces = [delta(0, "text_delta", text=piece) for piece in ("Hid", "den")]
    _, response = read(START, begin(0, **new), *pieces, close(0), *text(1, "a"), end(), STOP)
    assert response.text == "a"
    content = [{**new, "text": "Hidden"}, {"type": "text", "text": "a"}]
    assert response.message.provider_state == {"anthropic": {"content": content}}


@pytest.mark.row("S17")
def test_the_stop_reason_stands_whatever_follows_it() -> None:
    assert (
        read(START, end("stop_sequence"), end(None), STOP)[1].finish_reason_raw == "stop_sequence"
    )


@pytest.mark.parametrize("late", [False, True])
def test_the_container_of_the_servers_code_is_kept(late: bool) -> None:
    container = {"container": {"id": "container_1", "expires_at": "2026-11-26T12:00:00Z"}}
    message: Any = START["message"]
    start = START if late else {**START, "message": {**message, **container}}
    finish: dict[str, Any] = end()
    if late:
        finish["delta"].update(container)
    _, response = read(start, *text(0, "a"), finish, STOP)
    assert response.message.provider_state == {"anthropic": {"container": "container_1"}}


def test_unknown_events_and_a_foreign_end_mark_are_passed_over() -> None:
    foreign = ("data", "[DONE]")
    _, response = read(
        START,
        {"type": "something_new", "delta": 5},
        foreign,
        *text(0, "a"),
        ("", ""),
        end(),
        STOP,
        foreign,
        ("data", "{"),
    )
    assert response.text == "a"


def test_events_are_told_apart_by_their_data() -> None:
    nameless = [("", json.dumps(value)) for value in (START, *text(0, "a"), end(), STOP)]
    assert read(*nameless)[1].text == "a"


def test_nothing_after_the_end_counts() -> None:
    made = MessagesAssembly(source=source())
    chunks = list(fed(made, events(START, *text(0, "a"), end(), STOP, *text(1, "b"))))
    assert [chunk.text for chunk in chunks] == ["a"]
    assert made.ended
    assert made.finished


def test_an_answer_may_have_no_content() -> None:
    _, response = read(START, end(), STOP)
    assert response.text == ""
    assert response.finish_reason == "stop"


# What was cut off


@pytest.mark.parametrize("written", ["", '{"a": ', '{"a": 1'])
@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "model_context_window_exceeded"])
def test_a_call_that_was_cut_off_is_not_run(written: str, reason: str) -> None:
    _, response = read(START, *call(0, "{}"), *call(1, written), end(reason), STOP)
    first, cut = response.tool_calls
    assert first.invalid_arguments is None
    assert cut.invalid_arguments == written


def test_arguments_that_are_no_object_are_not_run() -> None:
    _, response = read(START, *call(0, "[1]"), *call(1, '{"a"}'), end("tool_use"), STOP)
    assert [made.invalid_arguments for made in response.tool_calls] == ["[1]", '{"a"}']


WHOLE: list[Event] = [START, *text(0, "Hel", "lo"), *call(1, '{"a": 1}'), end("tool_use"), STOP]


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_stream_that_ends_early_is_an_error_with_what_had_come(length: int) -> None:
    error = fails(*WHOLE[:length])
    assert isinstance(error, StreamInterruptedError)
    partial = error.partial
    assert partial is not None
    assert "Hello".startswith(partial.text)
    stopped = length == len(WHOLE) - 1
    assert (partial.finish_reason is not None) == stopped
    assert partial.output_tokens == (7 if stopped else None)
    assert partial.input_tokens == (13 if length else None)


def test_a_partial_answer_has_no_call_without_its_end() -> None:
    error = fails(START, *call(0, '{"a": 1}'), *call(1, '{"b":')[:-1])
    assert isinstance(error, StreamInterruptedError)
    assert error.partial is not None
    whole, cut = error.partial.tool_calls
    assert whole.arguments == {"a": 1}
    assert cut.invalid_arguments == '{"b":'


# Errors


@pytest.mark.parametrize(
    ("kind", "error_class", "status"),
    [
        ("overloaded_error", OverloadedError, 529),
        ("api_error", ServerError, 500),
        ("invalid_request_error", BadRequestError, 400),
    ],
)
@pytest.mark.parametrize("name", ["error", ""])
def test_an_error_in_the_stream_is_raised_as_what_it_is(
    kind: str, error_class: type[AetherError], status: int, name: str
) -> None:
    said = json.dumps({"type": "error", "error": {"type": kind, "message": "Sorry."}})
    error = fails(START, *text(0, "a"), (name, said))
    assert type(error) is error_class
    assert isinstance(error, OverloadedError | ServerError | BadRequestError)
    assert error.status == status
    assert "Sorry." in str(error)


def test_an_error_of_a_gateway_is_raised_whatever_its_shape() -> None:
    assert "Sorry." in str(fails(START, ("error", "Sorry.")))
    assert "Sorry." in str(fails(START, ("", '{"error": {"message": "Sorry.", "code": 503}}')))


@pytest.mark.parametrize(
    "bad",
    [
        ("message_start", "{"),
        ("message_start", "[]"),
        begin(0),
        begin(0, type="text", text=5),
        delta(0, "text_delta", text=5),
        delta(5, "text_delta", text="a"),
        {**delta(0, "text_delta", text="a"), "index": [0]},
        {**begin(0, type="text", text=""), "index": {}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": ["text_delta"]}},
        delta(0, "thinking_delta", thinking="a"),
        {"type": "content_block_delta", "index": 0, "delta": "a"},
        {"type": "message_delta", "delta": {"stop_reason": 5}},
        {"type": "message_start", "message": "a"},
    ],
)
def test_what_the_protocol_does_not_allow_is_an_error(bad: Event) -> None:
    assert isinstance(fails(START, begin(0, type="text", text=""), bad, end(), STOP), ProtocolError)


@pytest.mark.parametrize("last", [[], [end(None)]])
def test_an_end_mark_without_a_reason_to_stop_is_no_end(last: list[Event]) -> None:
    error = fails(START, *text(0, "a"), *last, STOP)
    assert isinstance(error, StreamInterruptedError)
    assert error.kind == "truncated"
    assert error.partial is not None
    assert error.partial.text == "a"
    assert error.partial.finish_reason is None


def test_an_end_that_promises_calls_needs_one() -> None:
    error = fails(START, *text(0, "a"), end("tool_use"), STOP)
    assert isinstance(error, ProtocolError)
    assert error.partial is not None
    assert error.partial.text == "a"
    assert isinstance(fails(START, *call(0, name=""), end("tool_use"), STOP), ProtocolError)
    assert isinstance(fails(START, STOP), StreamInterruptedError)


def test_what_came_before_an_error_is_handed_out() -> None:
    made = MessagesAssembly(source=source())
    seen: list[str] = []
    with pytest.raises(ProtocolError):
        seen.extend(
            chunk.text for chunk in fed(made, events(START, *text(0, "a"), ("message_stop", "{")))
        )
    assert made.has_content
    assert made.characters == 1


# However it is cut

pieces = st.lists(st.text(max_size=6), max_size=4)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]]:
    """The events of an answer, and the same answer whole."""
    values: list[Any] = [START]
    content: list[Any] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["text", "thinking", "tool_use", "server_tool_use"]))
        if kind in ("text", "thinking"):
            said = draw(pieces)
            values += [
                begin(index, **{"type": kind, kind: ""}),
                *(delta(index, f"{kind}_delta", **{kind: each}) for each in said),
            ]
            block: dict[str, Any] = {"type": kind, kind: "".join(said)}
            if kind == "thinking":
                values.append(delta(index, "signature_delta", signature="s"))
                block["signature"] = "s"
        else:
            block = {"type": kind, "id": f"id_{index}", "name": "add"}
            given = draw(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)))
            written = json.dumps(given)
            cuts = sorted(draw(st.lists(st.integers(0, len(written)), max_size=3)))
            values.append(begin(index, **block, input={}))
            values += [
                delta(index, "input_json_delta", partial_json=written[a:b])
                for a, b in pairwise([0, *cuts, len(written)])
            ]
            block["input"] = given
        values.append(close(index))
        content.append(block)
        if draw(st.booleans()):
            values.append(PING)
    reason = "tool_use" if any(each["type"] == "tool_use" for each in content) else "end_turn"
    usage = {**START["message"]["usage"], "output_tokens": 7}  # type: ignore[index] # its value is a dict
    whole = {"model": "told-model", "content": content, "stop_reason": reason, "usage": usage}
    return [*values, end(reason), STOP], whole


def encoded(values: Sequence[Any], line_end: str) -> bytes:
    lines = (f"event: {v['type']}\ndata: {json.dumps(v)} \n\n" for v in values)
    return "".join(lines).replace("\n", line_end).encode()


@given(answers(), st.sampled_from(["\n", "\r\n"]), st.data())
def test_any_splitting_of_the_bytes_gives_what_the_whole_answer_gives(
    made: tuple[list[Any], dict[str, Any]], line_end: str, data: st.DataObject
) -> None:
    values, whole = made
    raw = encoded(values, line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    decoder = SSEDecoder()
    assembly = MessagesAssembly(source=source())
    shown: list[StreamChunk] = []
    for start, stop in pairwise([0, *cuts, len(raw)]):
        shown += fed(assembly, decoder.feed(raw[start:stop]))
    response = assembly.finish()
    assert response == parse_response(json.dumps(whole).encode(), source=source())
    assert "".join(chunk.text for chunk in shown) == response.text
    assert "".join(chunk.reasoning or "" for chunk in shown) == (response.reasoning or "")


@pytest.mark.row("S20")
def test_a_call_that_was_only_begun_is_not_one_without_arguments() -> None:
    begun, *_, closed = call(0)
    error = fails(START, begun, end("tool_use"), STOP)
    assert isinstance(error, ProtocolError)
    assert "never ended" in str(error)
    assert read(START, begun, closed, end("tool_use"), STOP)[1].tool_calls[0].arguments == {}


def test_an_answer_that_is_in_no_event_of_its_own_is_not_an_empty_one() -> None:
    told = {**START["message"], "content": [{"type": "text", "text": "Hello"}]}  # type: ignore[dict-item] # its value is a dict
    error = fails({**START, "message": told}, end(), STOP)
    assert isinstance(error, ProtocolError)


@pytest.mark.row("S20")
@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_arguments_in_a_block_that_is_no_call_are_not_lost(kind: str) -> None:
    piece = delta(0, "input_json_delta", partial_json="{}")
    error = fails(START, begin(0, type=kind), piece, close(0), end(), STOP)
    assert isinstance(error, ProtocolError)
    assert "arguments of a call" in str(error)
