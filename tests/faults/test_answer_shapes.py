"""What the protocols say differently, and means the same: silent events, reasons, counts, calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import pytest

from aether.llm.contracts import LLMResponse, ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Fault, Reply
from aether.testing.wires.contracts import server_sent_event
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    USAGE,
    Way,
    all_ways,
    both_ways,
    call,
    each_protocol,
    each_transport,
    events_of,
    opened,
    states,
)
from tests.faults.feeds import Reader

SILENT: dict[str, list[bytes]] = {
    "openai": [
        server_sent_event({"model": "test-model-1", "choices": []}),
        server_sent_event({"model": "test-model-1", "choices": [{"index": 0, "delta": {}}]}),
    ],
    "openai.responses": [
        server_sent_event({"type": "response.queued"}),
        server_sent_event({"type": "response.of_tomorrow", "delta": "no"}),
    ],
    "anthropic": [
        server_sent_event({"type": "ping"}),
        server_sent_event({"type": "of_tomorrow", "delta": {"text": "no"}}),
    ],
    "gemini": [
        server_sent_event({"modelVersion": "test-model-1"}),
        server_sent_event({"candidates": []}),
        server_sent_event({"candidates": [{"index": 0}]}),
    ],
}
"""Events in which nothing is said."""


def last_response(aftermath: Aftermath) -> LLMResponse:
    response = aftermath.events[-1].response
    assert response is not None
    return response


def with_json(change: Callable[[Any], object]) -> Fault:
    """The answer with all JSON in it changed in place."""

    def changed(piece: bytes) -> bytes:
        head, found, data = piece.rpartition(b"data: ")
        try:
            value = json.loads(data)
        except ValueError:
            return piece
        change(value)
        return head + found + json.dumps(value).encode() + (b"\n\n" if found else b"")

    return faults.edit(lambda pieces: [changed(piece) for piece in pieces])


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside of a value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from objects(inner)


@pytest.mark.row("S15")
@each_protocol
@each_transport
async def test_events_in_which_nothing_is_said_change_nothing(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    def between(pieces: list[bytes]) -> list[bytes]:
        silent = b"".join(SILENT[protocol])
        return [part for piece in pieces for part in (piece, silent)]

    async with (
        FaultServer(faults.edit(between)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, "session stream")).succeeded() == HELLO.text
        response = last_response(aftermath)
        assert response.finish_reason == "stop"
        assert (response.input_tokens, response.output_tokens) == (9, 3)
        assert states(client) == ["exact"]


@pytest.mark.row("S16", "S17")
@each_protocol
@each_transport
async def test_of_two_ends_one_counts(protocol: str, transport: str, aftermath: Aftermath) -> None:
    """The first; but Gemini's, whose every chunk may say why it ends, the last."""
    words = {
        "openai": (b'"stop"', b'"length"'),
        "openai.responses": (b"completed", b"incomplete"),
        "anthropic": (b"end_turn", b"max_tokens"),
        "gemini": (b"STOP", b"MAX_TOKENS"),
    }
    first, other = words[protocol]

    def twice(pieces: list[bytes]) -> list[bytes]:
        ends = [
            place
            for place, piece in enumerate(pieces)
            if first in piece and b"_item.done" not in piece
        ]
        place = ends[-1]
        return [*pieces[: place + 1], pieces[place].replace(first, other), *pieces[place + 1 :]]

    async with (
        FaultServer(faults.edit(twice)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, "stream")).succeeded() == HELLO.text
        finish = last_response(aftermath).finish_reason
        assert finish == ("length" if protocol == "gemini" else "stop")


@pytest.mark.row("S17")
@each_transport
@both_ways
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("protocol", ["openai", "gemini"])
async def test_of_several_answers_the_first_is_the_one(
    protocol: str, place: int, transport: str, way: Way, aftermath: Aftermath
) -> None:
    """The one with the first index, wherever it stands."""

    def add_another(value: Any) -> None:
        answers = value.get("choices") or value.get("candidates")
        if answers:
            another = json.loads(
                json.dumps(answers[0]).replace("Hell", "No. ").replace("here", "x")
            )
            answers.insert(place, {**another, "index": 1})

    async with (
        FaultServer(with_json(add_another)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        assert last_response(aftermath).finish_reason == "stop"


@pytest.mark.row("S19")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("count", [-1, "9", 5.5, True, [3], {"a": 1}, None], ids=repr)
async def test_what_is_no_count_is_unknown_and_estimated_and_never_0(
    protocol: str, transport: str, way: Way, count: Any, aftermath: Aftermath
) -> None:
    def spoil(value: Any) -> None:
        for inner in objects(value):
            for name, used in inner.items():
                if name in ("usage", "usageMetadata") and used is not None:
                    inner[name] = dict.fromkeys(used, count)

    async with (
        FaultServer(with_json(spoil)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        response = last_response(aftermath)
        assert (response.input_tokens, response.output_tokens) == (None, None)
        [entry] = client.usage.ledger
        assert entry.state == "estimated"
        assert entry.input_tokens
        assert entry.output_tokens
        assert not client.usage.is_exact


@pytest.mark.row("S19")
@each_protocol
@each_transport
@both_ways
async def test_a_count_of_which_a_part_is_more_is_unknown_and_estimated(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    parts: dict[str, Any] = {
        "prompt_tokens_details": {"cached_tokens": 1000},
        "completion_tokens_details": {"reasoning_tokens": 1000},
        "input_tokens_details": {"cached_tokens": 1000},
        "output_tokens_details": {"reasoning_tokens": 1000, "thinking_tokens": 1000},
        "cachedContentTokenCount": 1000,
    }

    def spoil(value: Any) -> None:
        for inner in objects(value):
            for name, used in inner.items():
                if name in ("usage", "usageMetadata") and used is not None:
                    inner[name] = {**used, **parts}

    async with (
        FaultServer(with_json(spoil)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        response = last_response(aftermath)
        [entry] = client.usage.ledger
        assert entry.state == "estimated"
        told = response.input_tokens, response.output_tokens
        if protocol == "anthropic":  # what its cache brings stands beside the input
            assert told == (9, None)
        elif protocol == "gemini":  # and thoughts beside the output
            assert told == (None, 3)
        else:
            assert told == (None, None)
        assert None not in (entry.input_tokens, entry.output_tokens)
        assert max(entry.input_tokens or 0, entry.output_tokens or 0) >= 1000
        assert not client.usage.is_exact


@pytest.mark.row("S19")
@pytest.mark.parametrize(
    ("protocol", "parts"),
    [
        ("openai", {"prompt_tokens_details": {"audio_tokens": 1000}}),
        ("openai", {"completion_tokens_details": {"audio_tokens": 600, "image_tokens": 400}}),
        ("gemini", {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}] * 2}),
        ("gemini", {"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1000}]}),
        ("gemini", {"cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 1000}]}),
        ("anthropic", {"cache_creation": {"ephemeral_1h_input_tokens": 1000}}),
    ],
)
@each_transport
@both_ways
async def test_more_of_one_kind_than_there_is_at_all_is_unknown_and_estimated(
    protocol: str, parts: dict[str, Any], transport: str, way: Way, aftermath: Aftermath
) -> None:
    priced = {
        "openai": "gpt-4o",
        "gemini": "gemini-2.5-flash",
        "anthropic": "claude-haiku-4-5",
    }

    def spoil(value: Any) -> None:
        for inner in objects(value):
            for name, used in inner.items():
                if name in ("usage", "usageMetadata") and used is not None:
                    inner[name] = {**used, **parts}
                elif name in ("model", "modelVersion"):
                    inner[name] = priced[protocol]

    async with (
        FaultServer(with_json(spoil)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        [entry] = client.usage.ledger
        assert entry.state == "estimated"
        assert not client.usage.is_exact
        told = 1000 if "cache" not in next(iter(parts)) else 0
        assert max(entry.input_tokens or 0, entry.output_tokens or 0) >= told
        assert client.usage.total_cost_usd > 0
        assert client.usage.uncertain_cost_usd > 0


@pytest.mark.row("S19")
@each_protocol
@each_transport
@pytest.mark.parametrize("later", [5, 1])
async def test_the_latest_of_several_counts_is_the_one_though_it_is_smaller(
    protocol: str, transport: str, later: int, aftermath: Aftermath
) -> None:
    """OpenAI's Responses tell it at the end: what an event before that says does not count."""
    names = {"completion_tokens", "output_tokens", "candidatesTokenCount"}

    def again(pieces: list[bytes]) -> list[bytes]:
        told = [
            place
            for place, piece in enumerate(pieces)
            if any(f'"{name}"'.encode() in piece for name in names)
        ]
        place = told[-1]
        if protocol == "openai.responses":
            early = pieces[0].replace(b'"usage": null', b'"usage": {"output_tokens": 7}')
            last = pieces[place].replace(b'"output_tokens": 3', b'"output_tokens": %d' % later)
            return [early, *pieces[1:place], last, *pieces[place + 1 :]]
        head, _, data = pieces[place].rpartition(b"data: ")
        value = json.loads(data)
        for inner in objects(value):
            for name in names & inner.keys():
                inner[name] = later
            for name in {"total_tokens", "totalTokenCount"} & inner.keys():
                inner[name] = 9 + later
        more = head + server_sent_event(value)
        return [*pieces[: place + 1], more, *pieces[place + 1 :]]

    async with (
        FaultServer(faults.edit(again)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, "stream")).succeeded() == HELLO.text
        assert last_response(aftermath).output_tokens == later
        assert states(client) == ["exact"]
        assert client.usage.ledger[0].output_tokens == later


CALLS = [
    ToolCall("same", "add", {"a": 1, "b": 2}),
    ToolCall("same", "add", {"a": 3, "b": 4}),
    ToolCall("same", "rest", {}),
    ToolCall("other", "add", {"a": 5, "b": 6}),
]
CALLING = Reply("Well. ", calls=CALLS, usage=USAGE)


def without_ids(value: Any) -> None:
    for inner in objects(value):
        inner.pop("call_id", None)
        if inner.get("type") in ("function", "tool_use"):
            inner.pop("id", None)


@pytest.mark.row("S20", "T13")
@each_protocol
@each_transport
@all_ways
@pytest.mark.parametrize("ids", ["repeated", "none"])
async def test_calls_with_the_same_id_or_none_are_each_run_and_answered(
    protocol: str, transport: str, way: Way, ids: str, aftermath: Aftermath
) -> None:
    ran: list[int] = []

    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        ran.append(a)
        return a + b + 1000

    async def rest() -> str:
        """Do nothing."""
        ran.append(0)
        return "rested"

    odd: list[Reply | Fault] = [CALLING] if ids == "repeated" else [CALLING, with_json(without_ids)]
    async with (
        FaultServer(odd) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        came = await call(client, way, tools=[add, rest])
        assert came.succeeded().removeprefix("Well. ") == HELLO.text
        told = [event.call_id for event in aftermath.events if event.name == "tool.start"]
        assert len(set(told)) == len(told) == 4
        assert all(told)
        answered = server.requests[1].body
    assert sorted(ran) == [0, 1, 3, 5]
    texts = (b'"1003"', b'"1007"', b'"rested"', b'"1011"')  # in quotes: ids are random
    places = [answered.rindex(text) for text in texts]
    assert places == sorted(places)


@pytest.mark.row("S20")
@pytest.mark.parametrize("protocol", ["openai", "openai.responses", "anthropic"])
def test_calls_whose_pieces_are_mixed_are_told_apart(protocol: str) -> None:
    """Gemini's calls are never in pieces."""
    calls = [ToolCall(f"call-{n}", f"name_{n}", {"a": n, "b": "x" * 9}) for n in range(3)]
    pieces, _ = events_of(protocol, Reply(calls=calls))
    key = {"openai": '"tool_calls": [{"index": %d', "openai.responses": '"output_index": %d'}.get(
        protocol, '"index": %d'
    )
    groups = [[piece for piece in pieces if (key % n).encode() in piece] for n in range(3)]
    assert all(len(group) > 3 for group in groups)
    mine = [piece for group in groups for piece in group]
    first, last = pieces.index(mine[0]), pieces.index(mine[-1])
    mixed = [piece for turn in zip_longest(*groups) for piece in turn if piece is not None]
    with Reader() as reader:
        read = reader.stream(protocol, *pieces[:first], *mixed, *pieces[last + 1 :])
    assert read.error is None
    assert read.response is not None
    made = [(each.id, each.name, each.arguments) for each in read.response.tool_calls]
    assert made == [(each.id, each.name, each.arguments) for each in calls]


REFUSALS: dict[str, tuple[Any, list[bytes]]] = {
    "openai": (
        {
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None, "refusal": "No."},
                    "finish_reason": "stop",
                }
            ],
        },
        [
            server_sent_event({"choices": [{"index": 0, "delta": {"refusal": "No."}}]}),
            server_sent_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            b"data: [DONE]\n\n",
        ],
    ),
    "anthropic": (
        {"type": "message", "model": "m", "content": [], "stop_reason": "refusal"},
        [
            server_sent_event({"type": "message_start", "message": {"model": "m", "content": []}}),
            server_sent_event({"type": "message_delta", "delta": {"stop_reason": "refusal"}}),
            server_sent_event({"type": "message_stop"}),
        ],
    ),
    "gemini": (
        {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m"},
        [server_sent_event({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m"})],
    ),
}
_NO = {"type": "refusal", "refusal": "No."}
_ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
_REFUSED = {
    "id": "r",
    "object": "response",
    "model": "m",
    "status": "completed",
    "output": [{**_ITEM, "content": [_NO]}],
}
_AT = {"output_index": 0, "item_id": "msg_1"}
REFUSALS["openai.responses"] = (
    _REFUSED,
    [
        server_sent_event(
            {"type": "response.output_item.added", **_AT, "item": {**_ITEM, "content": []}}
        ),
        server_sent_event(
            {"type": "response.refusal.delta", **_AT, "content_index": 0, "delta": "No."}
        ),
        server_sent_event(
            {"type": "response.output_item.done", **_AT, "item": {**_ITEM, "content": [_NO]}}
        ),
        server_sent_event({"type": "response.completed", "response": _REFUSED}),
    ],
)


@pytest.mark.row("S24")
@each_protocol
@each_transport
@all_ways
async def test_a_refusal_is_an_empty_answer_that_says_so(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    body, events = REFUSALS[protocol]
    streamed = way.endswith("stream")
    answer = (
        Answer(events, headers={"content-type": "text/event-stream"})
        if streamed
        else Answer([json.dumps(body).encode()])
    )
    async with (
        FaultServer(answer) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        assert (await call(client, way)).succeeded() == ""
        assert last_response(aftermath).finish_reason == "content_filter"
        assert server.count == 1
