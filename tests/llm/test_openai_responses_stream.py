"""Streams of the Responses API: whole however they come, and never taken for whole if cut."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aether.errors import (
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.llm.contracts import LLMResponse, StreamChunk, ToolCall
from tests.llm.conftest import ScriptedTransport
from tests.llm.responses_wire import (
    answer,
    call,
    cut,
    events,
    message,
    provider,
    reasoning,
    request,
    sse,
    stream,
)
from tests.llm.scripted import text_until_error

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = answer(
    reasoning("Erst denken. ", "Dann 🤔 rechnen."),
    message("I look.", id="msg_0", phase="commentary"),
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}},
    message("It is ", "zweiundvierzig, “42”\u2028.", phase="final_answer"),
    call('{"a": "ä\\n\\u2603"}'),
    call("", id="fc_2", call_id="call_2", name="now"),
)


def without(told: list[dict[str, Any]], *endings: str) -> list[dict[str, Any]]:
    return [event for event in told if not event["type"].endswith(endings)]


def changed(
    told: list[dict[str, Any]], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    return [change(event) for event in told]


def unnumbered(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "output_index"}


def repeated(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [event] * (2 if event["type"].endswith("item.added") else 1)


async def expected() -> LLMResponse:
    scripted = ScriptedTransport()
    scripted.answers_json(EVERYTHING)
    return await provider(scripted).complete(request())


async def test_pieces_are_handed_out_as_they_come(transport: ScriptedTransport) -> None:
    told = events(answer(reasoning("Hm, ha."), message("Hello"), call('{"a":1}')))
    chunks, response = await stream(transport, sse(*told))
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hel", "lo"]
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Hm,", " ha", "."]
    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert [(piece.index, piece.id, piece.name) for piece in pieces] == [
        (0, "call_1", "add"),
        *[(0, None, None)] * 3,
    ]
    assert "".join(piece.arguments for piece in pieces) == '{"a":1}'
    assert [chunk.is_final for chunk in chunks] == [*[False] * (len(chunks) - 1), True]
    assert chunks[-1].tool_calls == response.tool_calls == [ToolCall("call_1", "add", {"a": 1})]
    assert (chunks[-1].input_tokens, chunks[-1].output_tokens) == (20, 9)


@given(data=st.data(), size=st.integers(1, 9), named=st.booleans(), crlf=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_splitting_of_the_bytes_gives_the_same(
    data: st.DataObject, size: int, named: bool, crlf: bool
) -> None:
    body = sse(*events(EVERYTHING, size=size), named=named)
    if crlf:
        body = body.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    edges = [0, *cuts, len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]

    async def read() -> tuple[LLMResponse, LLMResponse]:
        _, response = await stream(ScriptedTransport(), *pieces)
        return response, await expected()

    streamed, whole = asyncio.run(read())
    assert streamed == whole


@given(end=st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_a_stream_without_its_last_event_is_never_a_success(end: int) -> None:
    *told, last = events(EVERYTHING)
    body = sse(*told, last)
    end = min(end, len(sse(*told)) + len(sse(last)) - 3)

    async def read() -> None:
        scripted = ScriptedTransport()
        scripted.answers(body[:end])
        text, error = await text_until_error(provider(scripted).stream(request()))
        assert isinstance(error, StreamInterruptedError)
        partial = error.partial
        assert ("" if partial is None else partial.text) == text
        assert partial is None or partial.finish_reason is None
        assert partial is None or not partial.message.provider_state

    asyncio.run(read())


@pytest.mark.parametrize(
    "change",
    [
        lambda told: without(told, ".delta"),
        lambda told: without(told, "_text.done", "_part.done", "arguments.done", "item.done"),
        lambda told: without(told, "item.added", ".delta", "_text.done", "arguments.done"),
        lambda told: told[-1:],
        lambda told: changed(told, unnumbered),
        lambda told: changed(told, lambda event: {**event, "item_id": f"new_{id(event)}"}),
        lambda told: [each for event in told for each in ({"type": "keepalive"}, event)],
        lambda told: [{"type": "response.from.tomorrow", "x": [1]}, *told, {"type": "keepalive"}],
        lambda told: [each for event in told for each in (": a comment\n\n", event)],
        lambda told: [*told, "data: [DONE]\n\n"],
        lambda told: [each for event in told for each in repeated(event)],
    ],
    ids=[
        "no deltas",
        "only deltas, and the whole",
        "only whole items",
        "only the whole",
        "no numbers",
        "new ids all the time",
        "keepalives",
        "unknown events",
        "comments",
        "an end mark",
        "beginnings twice",
    ],
)
async def test_servers_that_tell_it_otherwise_are_understood(
    transport: ScriptedTransport, change: Callable[[Any], Any]
) -> None:
    _, response = await stream(transport, sse(*change(events(EVERYTHING))))
    assert response == await expected()


async def test_events_without_a_type_are_told_by_their_name(transport: ScriptedTransport) -> None:
    told = [(event.pop("type"), event) for event in events(EVERYTHING)]
    body = "".join(f"event: {name}\ndata: {json.dumps(event)}\n\n" for name, event in told)
    _, response = await stream(transport, body.encode())
    assert response == await expected()


async def test_items_that_are_all_counted_as_the_first_are_told_apart(
    transport: ScriptedTransport,
) -> None:
    told = changed(events(EVERYTHING), lambda event: {**event, "output_index": 0})
    _, response = await stream(transport, sse(*told))
    assert response == await expected()


async def test_an_end_that_does_not_repeat_the_answer_is_one(transport: ScriptedTransport) -> None:
    *told, last = events(EVERYTHING)
    end = {**last, "response": {**last["response"], "output": []}}
    _, response = await stream(transport, sse(*told, end))
    assert response == await expected()


async def test_texts_that_were_never_completed_are_kept(transport: ScriptedTransport) -> None:
    *told, last = without(events(answer(message("Hello"), call('{"a":1}'))), ".done")
    end = {**last, "response": {**last["response"], "output": []}}
    _, response = await stream(transport, sse(*told, end))
    assert response.text == response.message.text == "Hello"
    assert response.tool_calls == [ToolCall("call_1", "add", {"a": 1})]


@pytest.mark.row("S20")
async def test_arguments_that_came_where_the_call_began_are_not_lost(
    transport: ScriptedTransport,
) -> None:
    begun, end = events(answer())[0], events(answer())[-1]
    item = call('{"a":1}', status="in_progress")
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    _, response = await stream(transport, sse(begun, added, end))
    assert response.tool_calls == [ToolCall("call_1", "add", {"a": 1})]


@pytest.mark.row("S20")
@pytest.mark.parametrize("arguments", [None, {"a": 1}, [1], 7])
async def test_a_call_that_began_with_what_is_no_text_and_did_not_go_on_cannot_be_run(
    transport: ScriptedTransport, arguments: Any
) -> None:
    begun, end = events(answer())[0], events(answer())[-1]
    added = {"type": "response.output_item.added", "item": {**call(), "arguments": arguments}}
    _, response = await stream(transport, sse(begun, added, end))
    assert response.tool_calls[0].invalid_arguments == ""


@pytest.mark.row("S20")
@pytest.mark.parametrize(
    ("arguments", "output"), [("", ()), ('{"a":1}', (message("Done."),))], ids=["empty", "left out"]
)
async def test_a_call_that_was_begun_alone_cannot_be_run(
    transport: ScriptedTransport, arguments: str, output: tuple[dict[str, Any], ...]
) -> None:
    *told, last = without(events(answer(call(arguments))), ".done")
    end = {**last, "response": {**last["response"], "output": list(output)}}
    _, response = await stream(transport, sse(*told, end))
    (made,) = response.tool_calls
    assert (made.arguments, made.invalid_arguments) == ({}, arguments)


@pytest.mark.row("S17")
@pytest.mark.parametrize(
    ("kind", "status", "finish"),
    [
        ("incomplete", "completed", "incomplete"),
        ("completed", "incomplete", "incomplete"),
        ("incomplete", "failed", None),
        ("failed", "incomplete", None),
    ],
)
async def test_of_an_end_and_its_answer_the_one_that_says_less_counts(
    transport: ScriptedTransport, kind: str, status: str, finish: str | None
) -> None:
    *told, last = events(answer(message("Half of")))
    response = {**last["response"], "status": status}
    body = sse(*told, {**last, "type": f"response.{kind}", "response": response})
    if finish is None:
        with pytest.raises(StreamInterruptedError):
            await stream(transport, body)
    else:
        _, made = await stream(transport, body)
        assert (made.text, made.finish_reason) == ("Half of", "other")
        assert made.finish_reason_raw == finish


@pytest.mark.row("S17")
async def test_a_second_answer_in_a_stream_is_not_joined_to_the_first(
    transport: ScriptedTransport,
) -> None:
    told = events(answer(message("Hello")))
    with pytest.raises(ProtocolError, match="second answer"):
        await stream(transport, sse(*told[:-1], *told))


async def test_an_answer_that_was_never_completed_goes_into_the_state(
    transport: ScriptedTransport,
) -> None:
    told = events(answer(reasoning(), message("Hello")))
    *told, last = [
        event for event in told if event.get("output_index") != 1 or "done" not in event["type"]
    ]
    end = {**last, "response": {**last["response"], "output": []}}
    _, response = await stream(transport, sse(*told, end))
    assert response.text == "Hello"
    state: Any = response.message.provider_state["openai"]
    assert state["output"][0] == reasoning()
    assert state["output"][1]["content"] == [{"type": "output_text", "text": "Hello"}]


@pytest.mark.row("S20")
async def test_a_call_without_an_id_has_one_and_the_same_all_the_time(
    transport: ScriptedTransport,
) -> None:
    chunks, response = await stream(transport, sse(*events(answer(call(call_id=None)))))
    (announced,) = (chunk.tool_call for chunk in chunks if chunk.tool_call)
    assert announced.id == response.tool_calls[0].id
    assert announced.id


@pytest.mark.row("S20")
async def test_items_that_come_at_the_same_time_keep_their_order(
    transport: ScriptedTransport,
) -> None:
    whole = answer(call(), call('{"a":2}', id="fc_2", call_id="call_2"))
    *told, last = events(whole)
    mixed = sorted(told, key=lambda event: event.get("output_index", 0), reverse=True)
    mixed.sort(key=lambda event: not event["type"].endswith(("created", "added")))
    chunks, response = await stream(transport, sse(*mixed, last))
    assert [each.id for each in response.tool_calls] == ["call_1", "call_2"]
    by_index: dict[int, str] = {}
    ids: dict[int, str] = {}
    for piece in (chunk.tool_call for chunk in chunks if chunk.tool_call):
        by_index[piece.index] = by_index.get(piece.index, "") + piece.arguments
        ids[piece.index] = piece.id or ids[piece.index]
    assert {ids[index]: text for index, text in by_index.items()} == {
        "call_1": '{"a":1}',
        "call_2": '{"a":2}',
    }


async def test_a_call_is_announced_when_its_name_is_known(transport: ScriptedTransport) -> None:
    told = events(answer(call('{"a":1}')))
    for event in told:
        if event["type"] == "response.output_item.added":
            del event["item"]["name"]
    chunks, response = await stream(transport, sse(*told))
    pieces = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    assert [(piece.name, piece.arguments) for piece in pieces] == [("add", '{"a":1}')]
    assert response.tool_calls == [ToolCall("call_1", "add", {"a": 1})]


async def test_a_summary_beside_open_reasoning_is_not_said_twice(
    transport: ScriptedTransport,
) -> None:
    thought = reasoning("Short.", content=[{"type": "reasoning_text", "text": "Long."}])
    _, response = await stream(transport, sse(*events(answer(thought, message("Hi")))))
    assert response.reasoning == "Short."


@pytest.mark.row("S4")
async def test_a_text_that_is_not_the_one_of_its_pieces_is_an_error(
    transport: ScriptedTransport,
) -> None:
    told = events(answer(message("Hello, world")))
    lost = next(event for event in told if event.get("delta") == "lo,")
    told.remove(lost)
    transport.answers(sse(*told))
    with pytest.raises(ProtocolError, match="pieces of text") as caught:
        async for _ in provider(transport).stream(request()):
            pass
    assert caught.value.partial is not None


@pytest.mark.row("S4")
@pytest.mark.parametrize(
    ("said", "error"),
    [('{"a": 2}', True), ('{"a": 1', True), ('{"a":1}', False), ('{"a": 1.0}', False), ("", False)],
)
async def test_arguments_that_are_not_those_of_their_pieces_are_an_error(
    transport: ScriptedTransport, said: str, error: bool
) -> None:
    """Written otherwise they are the same."""
    told = events(answer(call(arguments='{"a": 1}')))
    for event in told:
        if event["type"] in ("response.output_item.done", "response.completed"):
            text = json.dumps('{"a": 1}')
            event.update(json.loads(json.dumps(event).replace(text, json.dumps(said))))
    if not error:
        _, response = await stream(transport, sse(*told))
        assert [made.arguments for made in response.tool_calls] == [{"a": 1}]
        return
    transport.answers(sse(*told))
    with pytest.raises(ProtocolError, match="pieces of arguments"):
        async for _ in provider(transport).stream(request()):
            pass


async def test_space_that_is_trimmed_at_the_end_is_no_error(transport: ScriptedTransport) -> None:
    told = events(answer(message("Hello ")))
    for event in told[-4:]:
        event.update(json.loads(json.dumps(event).replace("Hello ", "Hello")))
    _, response = await stream(transport, sse(*told))
    assert response.text == "Hello "


async def test_a_cut_answer_is_not_whole(transport: ScriptedTransport) -> None:
    _, response = await stream(transport, sse(*events(cut(message("Half")))))
    assert (response.text, response.finish_reason) == ("Half", "length")


async def test_an_end_that_calls_a_cut_answer_completed_is_not_believed(
    transport: ScriptedTransport,
) -> None:
    told = events(cut(message("Half")))
    told[-1]["type"] = "response.completed"
    _, response = await stream(transport, sse(*told))
    assert response.finish_reason == "length"


@pytest.mark.row("S16")
async def test_nothing_after_the_last_event_counts(transport: ScriptedTransport) -> None:
    late = {"type": "response.output_text.delta", "output_index": 0, "delta": "!"}
    _, response = await stream(transport, sse(*events(answer(message("Hi"))), late))
    assert response.text == "Hi"


async def test_a_broken_connection_after_the_last_event_is_no_failure(
    transport: ScriptedTransport,
) -> None:
    whole = sse(*events(answer(message("Hi"))))
    _, response = await stream(transport, whole, ProviderConnectionError("cut", kind="reset"))
    assert response.text == "Hi"


async def test_an_end_mark_alone_is_not_the_end_of_an_answer(transport: ScriptedTransport) -> None:
    *told, _ = events(answer(message("Hi")))
    transport.answers(sse(*told, "data: [DONE]\n\n"))
    with pytest.raises(StreamInterruptedError, match="ended before the answer did") as caught:
        async for _ in provider(transport).stream(request()):
            pass
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"


ERRORS: list[tuple[dict[str, Any], type[ProviderError]]] = [
    ({"type": "error", "code": "server_error", "message": "boom", "param": None}, ServerError),
    ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, RateLimitError),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, OverloadedError),
    ({"error": {"type": "invalid_request_error", "message": "bad"}}, BadRequestError),
    ({"code": "invalid_argument", "error": "bad"}, BadRequestError),
    (
        {
            "type": "response.failed",
            "response": answer(
                status="failed", error={"code": "rate_limit_exceeded", "message": "slow"}
            ),
        },
        RateLimitError,
    ),
    ({"type": "response.failed", "response": {}}, ServerError),
    ({"type": "response.failed", "response": answer(message("Hi"))}, ServerError),
]


@pytest.mark.parametrize(("event", "kind"), ERRORS)
async def test_an_error_before_any_content_is_raised_as_what_it_is(
    transport: ScriptedTransport, event: dict[str, Any], kind: type[ProviderError]
) -> None:
    opening = events(answer())[:2]
    transport.answers(sse(*opening, event))
    with pytest.raises(kind) as caught:
        async for _ in provider(transport).stream(request()):
            pass
    assert not isinstance(caught.value, StreamInterruptedError)
    assert caught.value.provider == "openai"


@pytest.mark.parametrize(("event", "kind"), ERRORS)
async def test_an_error_after_content_interrupts_the_stream(
    transport: ScriptedTransport, event: dict[str, Any], kind: type[ProviderError]
) -> None:
    begun = events(answer(message("Hello")))[:6]
    transport.answers(sse(*begun, event))
    text, error = await text_until_error(provider(transport).stream(request()))
    assert text == "Hello"
    assert isinstance(error, StreamInterruptedError)
    assert isinstance(error.__cause__, kind)
    assert error.partial is not None
    assert error.partial.text == "Hello"


async def test_what_a_failed_answer_used_is_known(transport: ScriptedTransport) -> None:
    begun = events(answer(message("Hello")))[:6]
    failed = answer(status="failed", error={"code": "server_error", "message": "boom"})
    transport.answers(sse(*begun, {"type": "response.failed", "response": failed}))
    with pytest.raises(StreamInterruptedError) as caught:
        async for _ in provider(transport).stream(request()):
            pass
    assert caught.value.partial is not None
    assert caught.value.partial.output_tokens == 9


@pytest.mark.parametrize(
    "event",
    [
        "data: {not json\n\n",
        "data: [1]\n\n",
        {"type": "response.output_text.delta", "output_index": 0, "delta": 7},
        {"type": "response.output_item.added", "item": "x"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": 7}},
        {"type": "response.output_item.done", "item": {"type": "function_call", "name": ""}},
        {"type": "response.output_item.done", "item": {"type": {}}},
        {"type": "response.function_call_arguments.delta", "output_index": 7, "delta": "{"},
        {"type": "response.completed", "response": "x"},
        {"type": "response.completed", "response": {"output": {}}},
    ],
)
async def test_what_the_protocol_does_not_allow_is_an_error(
    transport: ScriptedTransport, event: Any
) -> None:
    transport.answers(sse(*events(answer())[:2], event, *events(answer())[-1:]))
    with pytest.raises(ProtocolError):
        async for _ in provider(transport).stream(request()):
            pass


async def test_a_document_in_place_of_a_stream_is_read(transport: ScriptedTransport) -> None:
    chunks, response = await stream(transport, json.dumps(answer(message("Hi"))).encode())
    assert response.text == "Hi"
    assert len(chunks) == 1


async def test_a_text_that_begins_no_item_is_a_message(transport: ScriptedTransport) -> None:
    told = without(events(answer(reasoning("Hm."), message("Hi"))), "item.added")
    _, response = await stream(transport, sse(*told))
    assert (response.text, response.reasoning) == ("Hi", "Hm.")


async def test_leaving_a_stream_closes_it(transport: ScriptedTransport) -> None:
    transport.answers(sse(*events(answer(message("Hello")))))
    chunks = provider(transport).stream(request())
    first: StreamChunk = await anext(chunks)
    await chunks.aclose()
    assert first.text == "Hel"
    assert transport.open_streams == transport.open_bodies == 0
