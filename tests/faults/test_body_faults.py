"""Answers of status 200 that are none, or not whole, or say odd things."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from aether.config import ProviderConfig
from aether.errors import (
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from aether.llm.contracts import TokenUsage, ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Failure, Fault, Reply
from aether.testing.wires.contracts import server_sent_event
from tests.faults.aftermath import Aftermath
from tests.faults.exchanges import (
    HELLO,
    MODEL,
    PROTOCOLS,
    TRANSPORTS,
    USAGE,
    WIRES,
    Way,
    body_of,
    both_ways,
    call,
    changed,
    each_protocol,
    each_transport,
    events_of,
    first_event,
    is_open,
    opened,
    opened_with,
    request_of,
    states,
)

STREAM = {"content-type": "text/event-stream"}
HTML = b"<html><body>Bad gateway, key %s</body></html>"
END_MARKS = {
    "openai": b"data: [DONE]\n\n",
    "openai.responses": b"data: [DONE]\n\n",
    "anthropic": b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    "gemini": b"data: [DONE]\n\n",  # of another protocol, as some gateways append it
}
LONG = ToolCall("call-1", "add", {"a": 1, "b": 2, "why": "because they are there"})
ASKING = Reply(calls=[LONG], usage=USAGE)


def _cut_inside(text: bytes) -> Fault:
    """All that comes before a text, and then the end of the body, as it should be."""

    def cut(answer: Answer, _: object) -> Answer:
        data = b"".join(answer.pieces or ())
        return answer.changed(pieces=[data[: data.index(text) + 1]])

    return changed(f"cut inside {text!r}", cut)


def silent(protocol: str, name: str, *, streaming: bool) -> list[Any]:
    """An answer of status 200 that must not pass for one, by what is wrong with it."""
    events, _ = events_of(protocol)
    settled = WIRES[protocol].stream(HELLO, request_of(protocol, streaming=True)).settled
    error = WIRES[protocol].error_in_body("bad_request", "No.")
    text = b"o th" if streaming else b"lo there"
    unsettled = [*events[: settled - 1], *events[settled:], END_MARKS[protocol]]
    told: Mapping[str, list[Any]] = {
        "end without a reason": [faults.edit(lambda _: events[: settled - 1])],
        "end mark without a reason": [faults.edit(lambda _: unsettled)],
        "cut inside an event": [_cut_inside(text)],
        "cut inside the arguments of a call": [ASKING, _cut_inside(b"because")],
        "nothing but an end mark": [faults.edit(lambda _: [END_MARKS[protocol]])],
        "nothing at all": [faults.edit(lambda _: [])],
        "a page of HTML": [faults.document(HTML % b"none")],
        "an error as JSON": [faults.document(error, "application/json")],
    }
    return told[name]


SILENT = (
    "end without a reason",
    "end mark without a reason",
    "cut inside an event",
    "cut inside the arguments of a call",
    "nothing but an end mark",
    "nothing at all",
    "a page of HTML",
    "an error as JSON",
)
WHOLE = SILENT[2:]
"""Those that there are where the answer is no stream."""
ANOTHER_ANSWER = SILENT[-2:]
"""Those that are read as documents, whole as they are."""


def shows_nothing(protocol: str, name: str) -> bool:
    """Whether a stream ends before anything of it was shown. Google's calls come whole."""
    return name.startswith("nothing") or (protocol == "gemini" and "a call" in name)


def an_adder() -> tuple[Callable[..., Awaitable[int]], list[int]]:
    """A tool, and what it was given each time it ran."""
    ran: list[int] = []

    async def add(a: int, b: int, why: str) -> int:
        """Add two numbers."""
        ran.append(a)
        return a + b

    return add, ran


@pytest.mark.row("S1", "S2", "S4", "S22")
@each_protocol
@each_transport
@pytest.mark.parametrize("name", SILENT)
async def test_no_stream_that_is_not_whole_passes_for_an_answer(
    protocol: str, transport: str, name: str, aftermath: Aftermath
) -> None:
    add, ran = an_adder()
    items = silent(protocol, name, streaming=True)
    async with (
        FaultServer(items, items, items) as server,
        opened(aftermath, server, protocol, transport, attempts=2, fails=True) as client,
    ):
        came = await call(client, "session stream", tools=[add])
        error = came.failed()
        assert "Hello there.".startswith(came.text)
        if name in ANOTHER_ANSWER:
            _is_told_as_what_it_is(error, name)
            assert server.count == 1
        else:
            assert isinstance(error, StreamInterruptedError)
            assert error.kind == "truncated"
            assert error.partial is not None
            assert error.partial.text == came.text
            asked = 2 if shows_nothing(protocol, name) else 1
            assert (error.attempts, server.count) == (asked, asked)
            assert len({request.body for request in server.requests}) == 1
        if came.text:
            assert states(client) == ["estimated"]
    assert ran == []


@pytest.mark.row("S1", "S4", "S22")
@each_protocol
@each_transport
@pytest.mark.parametrize("name", WHOLE)
async def test_no_body_that_is_not_whole_passes_for_an_answer(
    protocol: str, transport: str, name: str, aftermath: Aftermath
) -> None:
    add, ran = an_adder()
    items = silent(protocol, name, streaming=False)
    async with (
        FaultServer(items, items) as server,
        opened(aftermath, server, protocol, transport, attempts=2, fails=True) as client,
    ):
        error = (await call(client, "session", tools=[add])).failed()
        _is_told_as_what_it_is(error, name)
        assert (error.attempts, server.count) == (1, 1)
    assert ran == []


def _is_told_as_what_it_is(error: ProviderError, name: str) -> None:
    """An error in JSON by its class; all else by what it is not: an answer of this protocol."""
    if name == "an error as JSON":
        assert isinstance(error, BadRequestError | ServerError)
        assert "No." in str(error)
    else:
        assert isinstance(error, ProtocolError)


@pytest.mark.row("S1", "S22")
@each_protocol
@each_transport
@pytest.mark.parametrize("name", ["nothing at all", "nothing but an end mark"])
async def test_an_empty_stream_is_tried_again_and_the_second_is_the_answer(
    protocol: str, transport: str, name: str, aftermath: Aftermath
) -> None:
    items = silent(protocol, name, streaming=True)
    async with (
        FaultServer(items, HELLO) as server,
        opened(aftermath, server, protocol, transport, attempts=2) as client,
    ):
        assert (await call(client, "session stream")).succeeded() == HELLO.text
        first, second = (request.body for request in server.requests)
        assert first == second
        response = aftermath.events[-1].response
        assert response is not None
        assert response.attempts == 2
        assert states(client)[-1] == "exact"
        assert not is_open(client)


@pytest.mark.row("S3")
@each_protocol
@each_transport
async def test_a_stream_that_has_said_why_it_ended_needs_no_end_mark(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    """Where the end mark is an event that says so itself, it is needed: Anthropic's."""
    events, whole = events_of(protocol)
    async with (
        FaultServer(faults.edit(lambda _: events[:whole])) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, "session stream")).succeeded() == HELLO.text
        response = aftermath.events[-1].response
        assert response is not None
        assert response.finish_reason == "stop"


@pytest.mark.row("S2")
@each_transport
async def test_a_server_known_to_leave_out_the_reason_gives_other_and_never_stop(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(faults.unsettled()) as server:
        config = ProviderConfig(
            "ollama",
            model=MODEL,
            api_key=aftermath.key,
            base_url=server.base_url("openai"),
            transport=transport,
        )
        async with opened_with(aftermath, config) as client:
            assert (await call(client, "stream")).succeeded() == HELLO.text
            response = aftermath.events[-1].response
            assert response is not None
            assert response.finish_reason == "other"


@pytest.mark.row("S6")
@each_protocol
@each_transport
@both_ways
async def test_bytes_that_are_no_utf8_are_a_protocol_error(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    def spoil(pieces: list[bytes]) -> list[bytes]:
        return [
            piece.replace(b"there", b"th\xffre").replace(b"o th", b"o\xfeth") for piece in pieces
        ]

    async with (
        FaultServer(faults.edit(spoil)) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        came = await call(client, way)
        error = came.failed()
        assert isinstance(error, ProtocolError)
        assert "Hello".startswith(came.text)
        if came.text:
            assert error.partial is not None
            assert error.partial.text == came.text
        assert server.count == 1


@pytest.mark.row("S12")
@each_protocol
@each_transport
@pytest.mark.parametrize("data", ["{", "not JSON", "\x00"])
async def test_an_event_that_is_no_json_ends_the_stream_and_keeps_what_came(
    protocol: str, transport: str, data: str, aftermath: Aftermath
) -> None:
    place = first_event(protocol, b"Hell") + 1
    events, _ = events_of(protocol)
    bad = [*events[:place], server_sent_event(data), *events[place:]]
    async with (
        FaultServer(faults.edit(lambda _: bad)) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        came = await call(client, "session stream")
        error = came.failed()
        assert isinstance(error, ProtocolError)
        assert came.text == "Hell"
        assert error.partial is not None
        assert error.partial.text == "Hell"
        assert server.count == 1
        await server.until_open(0)


FAILURES: Mapping[Failure, tuple[type[ProviderError], ...]] = {
    "overloaded": (OverloadedError, ServerError),  # OpenAI has no word for it inside an answer
    "server": (ServerError,),
    "rate_limit": (RateLimitError,),
}


@pytest.mark.row("S14")
@each_protocol
@each_transport
@pytest.mark.parametrize(
    ("way", "failure"),
    [
        ("ask", "overloaded"),
        ("stream", "rate_limit"),
        ("session", "server"),
        ("session stream", "overloaded"),
    ],
)
async def test_an_error_inside_an_answer_of_status_200_is_tried_again_before_any_content(
    protocol: str, transport: str, way: Way, failure: Failure, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(faults.error_event(failure)) as server,
        opened(aftermath, server, protocol, transport, attempts=2) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        assert server.count == 2
        assert client.usage.ledger[0].error in {kind.__name__ for kind in FAILURES[failure]}


@pytest.mark.row("S14")
@each_protocol
@each_transport
@pytest.mark.parametrize("failure", FAILURES)
async def test_an_error_inside_a_stream_after_content_interrupts_it(
    protocol: str, transport: str, failure: Failure, aftermath: Aftermath
) -> None:
    after = first_event(protocol, b"Hell") + 1
    async with (
        FaultServer(faults.error_event(failure, "Too much.", after=after)) as server,
        opened(aftermath, server, protocol, transport, attempts=3, fails=True) as client,
    ):
        came = await call(client, "session stream")
        error = came.failed()
        assert isinstance(error, StreamInterruptedError)
        assert isinstance(error.__cause__, FAILURES[failure])
        assert "Too much." in str(error)
        assert error.partial is not None
        assert came.text == error.partial.text == "Hell"
        assert server.count == 1
        assert states(client) == ["estimated"]


@pytest.mark.row("S14")
@each_protocol
@each_transport
@both_ways
async def test_an_error_inside_an_answer_that_will_not_pass_is_not_tried_again(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    failure: Failure = "quota" if WIRES[protocol].can("quota") else "bad_request"
    async with (
        FaultServer(faults.error_event(failure)) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        error = (await call(client, way)).failed()
        assert not error.retryable
        assert isinstance(error, QuotaExceededError) or failure == "bad_request"
        assert server.count == 1
        assert not is_open(client)


def _delta(content: str | None = None, *, index: int = 0, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return server_sent_event({"model": "test-model-1", "choices": [choice]})


def _counts(**usage: Any) -> bytes:
    return server_sent_event({"model": "test-model-1", "choices": [], "usage": usage})


EMPTY = server_sent_event({"model": "test-model-1", "choices": []})
DONE = b"data: [DONE]\n\n"


async def _asked_of(
    aftermath: Aftermath, transport: str, *events: bytes, protocol: str = "openai"
) -> Any:
    """The response to a stream of these events."""
    async with (
        FaultServer(Answer(events, headers=STREAM)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        text = (await call(client, "stream")).succeeded()
        response = aftermath.events[-1].response
        assert response is not None
        assert response.text == text
        entry = client.usage.ledger[0]
        return response, entry


@pytest.mark.row("S15")
@each_transport
async def test_a_chunk_without_a_choice_says_nothing_but_its_usage(
    transport: str, aftermath: Aftermath
) -> None:
    response, entry = await _asked_of(
        aftermath,
        transport,
        EMPTY,
        _delta("Hello"),
        EMPTY,
        _delta(finish="stop"),
        _counts(prompt_tokens=7, completion_tokens=2),
        DONE,
    )
    assert response.text == "Hello"
    assert (response.input_tokens, response.output_tokens) == (7, 2)
    assert entry.state == "exact"


@pytest.mark.row("S16")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@each_transport
async def test_what_follows_the_end_of_an_answer_is_left_out(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    """After the end mark, where the protocol has one; else what is said belongs to the answer."""
    events, _ = events_of(protocol)
    place = first_event(protocol, b"Hell")
    more = [*events, DONE, events[place]] if protocol == "gemini" else [*events, events[place]]
    async with (
        FaultServer(Answer(more, headers=STREAM)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        came = await call(client, "stream")
    if protocol == "gemini":  # it has no end mark: it goes on, and then never says that it ends
        assert isinstance(came.error, StreamInterruptedError)
        assert came.text == HELLO.text + "Hell"
    else:
        assert came.succeeded() == HELLO.text


@pytest.mark.row("S16", "S17")
@each_transport
async def test_the_first_reason_counts_and_content_after_it_is_left_out_with_one_warning(
    transport: str, aftermath: Aftermath, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aether.llm"):
        response, _ = await _asked_of(
            aftermath,
            transport,
            _delta("Hello"),
            _delta(finish="length"),
            _delta(" more"),
            _delta(" and more", finish="stop"),
            _counts(prompt_tokens=7, completion_tokens=2),
            DONE,
        )
    assert (response.text, response.finish_reason) == ("Hello", "length")
    assert response.input_tokens == 7
    assert len(caplog.records) == 1


@pytest.mark.row("S17")
@each_transport
async def test_of_two_reasons_of_a_message_the_first_counts(
    transport: str, aftermath: Aftermath
) -> None:
    events, _ = events_of("anthropic")
    end = events[-2]
    response, _ = await _asked_of(
        aftermath,
        transport,
        *events[:-2],
        end.replace(b"end_turn", b"max_tokens"),
        end,
        events[-1],
        protocol="anthropic",
    )
    assert (response.text, response.finish_reason) == (HELLO.text, "length")


@pytest.mark.row("S17")
@each_transport
async def test_answers_that_are_not_the_first_are_left_alone(
    transport: str, aftermath: Aftermath
) -> None:
    response, _ = await _asked_of(
        aftermath,
        transport,
        _delta("No", index=1),
        _delta("Hello"),
        _delta(finish="length", index=1),
        _delta(" there"),
        _delta(finish="stop"),
        DONE,
    )
    assert (response.text, response.finish_reason) == ("Hello there", "stop")


@pytest.mark.row("S18")
@each_protocol
@each_transport
@both_ways
async def test_usage_that_is_not_told_is_unknown_and_estimated(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(faults.untold()) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text
        response = aftermath.events[-1].response
        assert response is not None
        assert (response.input_tokens, response.output_tokens) == (None, None)
        entry = client.usage.ledger[0]
        assert entry.state == "estimated"
        assert entry.input_tokens
        assert entry.output_tokens
        assert not client.usage.is_exact


@pytest.mark.row("S19")
@each_transport
@pytest.mark.parametrize(
    ("told", "known"),
    [
        ([{"prompt_tokens": 1, "completion_tokens": 1}, {"prompt_tokens": 9}], (9, None)),
        ([{"prompt_tokens": 9, "completion_tokens": 5}] * 2, (9, 5)),
        (
            [
                {"prompt_tokens": 9, "completion_tokens": 1},
                {"prompt_tokens": 9, "completion_tokens": 5},
            ],
            (9, 5),
        ),
        (
            [
                {"prompt_tokens": 9, "completion_tokens": 5},
                {"prompt_tokens": 9, "completion_tokens": 3},
            ],
            (9, 3),
        ),
        ([{"prompt_tokens": -1, "completion_tokens": 5}], (None, 5)),
        ([{"prompt_tokens": "9", "completion_tokens": 5.5}], (None, None)),
        ([{"prompt_tokens": True, "completion_tokens": [3]}], (None, None)),
        ([{"prompt_tokens": None, "completion_tokens": 10**9}], (None, 10**9)),
        ([{"prompt_tokens": 10**30, "completion_tokens": 10**12}], (None, None)),
        ([{"prompt_tokens": 0, "completion_tokens": 0}], (None, None)),
        ([{"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 5}], (None, 5)),
    ],
)
async def test_the_latest_usage_counts_and_what_is_no_count_is_unknown(
    transport: str,
    told: list[dict[str, Any]],
    known: tuple[int | None, int | None],
    aftermath: Aftermath,
) -> None:
    response, entry = await _asked_of(
        aftermath,
        transport,
        _delta("Hello"),
        _delta(finish="stop"),
        *(_counts(**each) for each in told),
        DONE,
    )
    assert (response.input_tokens, response.output_tokens) == known
    assert entry.state == ("estimated" if None in known else "exact")
    assert entry.input_tokens != 0
    assert entry.output_tokens != 0


async def _not_run(
    reply: Reply, protocol: str, transport: str | None, way: Way, aftermath: Aftermath
) -> bytes:
    """The reply calls `add`, which is not run. The request that tells the model so."""
    ran: list[Any] = []

    async def add(a: int, b: int = 0) -> int:
        """Add two numbers."""
        ran.append((a, b))
        return a + b

    async with (
        FaultServer(reply) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way, tools=[add])).succeeded() == HELLO.text
        assert ran == []
        return server.requests[1].body


@pytest.mark.row("S21")
@each_protocol
@each_transport
@both_ways
async def test_a_call_that_the_limit_cut_off_is_not_run(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    cut = ToolCall("call-1", "add", {"a": 1}, invalid_arguments='{"a": 1, "b": 2')
    if not WIRES[protocol].can("cut_arguments" if way == "stream" else "whole_cut_arguments"):
        cut = ToolCall("call-1", "add", {"a": 1})  # it may lack what was still to come
    reply = Reply(calls=[cut], finish="length", usage=USAGE)
    told = await _not_run(reply, protocol, transport, way, aftermath)
    assert b"cut off by the output limit" in told


ENDED_EARLY = {
    "openai": ("content_filter", "error", "abort"),
    "openai.responses": ("content_filter",),
    "anthropic": ("refusal",),
    "gemini": ("SAFETY", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"),
}


@pytest.mark.row("S21")
@pytest.mark.parametrize(
    ("protocol", "reason"),
    [(protocol, reason) for protocol in PROTOCOLS for reason in ENDED_EARLY[protocol]],
)
@both_ways
async def test_a_call_of_an_answer_that_was_ended_early_is_not_run(
    protocol: str, reason: str, way: Way, aftermath: Aftermath
) -> None:
    reply = Reply(calls=[ToolCall("call-1", "add", {"a": 1})], finish_raw=reason, usage=USAGE)
    told = await _not_run(reply, protocol, None, way, aftermath)
    assert b"Error: ContentFilter: not run" in told or b"Error: AnswerFailed: not run" in told


FAILED = {
    "openai": ("error", "function_call_filter", "insufficient_system_resource", "abort"),
    "gemini": ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "OTHER"),
}


@pytest.mark.row("S24", "T13")
@pytest.mark.parametrize(
    ("protocol", "reason"),
    [(protocol, reason) for protocol, reasons in FAILED.items() for reason in reasons],
)
@pytest.mark.parametrize("text", ["", "I will add these: "])
@each_transport
@both_ways
async def test_an_answer_that_ended_with_an_error_is_one(
    protocol: str, transport: str, reason: str, text: str, way: Way, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(Reply(text, finish_raw=reason, usage=USAGE)) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, ServerError)
        assert reason in str(error)
        assert error.partial is not None
        assert error.partial.text == text
        assert server.count == 1
        assert client.usage.is_exact  # it was billed, and is told


@pytest.mark.row("S18")
@each_protocol
@both_ways
async def test_usage_of_nothing_beside_a_text_is_unknown_and_estimated(
    protocol: str, way: Way, aftermath: Aftermath
) -> None:
    nothing = TokenUsage(input_tokens=0, output_tokens=0)
    async with (
        FaultServer(Reply("Hello there.", usage=nothing)) as server,
        opened(aftermath, server, protocol) as client,
    ):
        assert (await call(client, way)).succeeded() == "Hello there."
        response = aftermath.events[-1].response
        assert response is not None
        assert (response.input_tokens, response.output_tokens) == (None, None)
        entry = client.usage.ledger[0]
        assert entry.state == "estimated"
        assert entry.input_tokens
        assert entry.output_tokens


@pytest.mark.row("S18")
@each_protocol
@both_ways
async def test_an_answer_without_a_word_may_have_used_no_output(
    protocol: str, way: Way, aftermath: Aftermath
) -> None:
    usage = TokenUsage(input_tokens=7, output_tokens=0)
    async with (
        FaultServer(Reply(finish="content_filter", usage=usage)) as server,
        opened(aftermath, server, protocol) as client,
    ):
        assert (await call(client, way)).succeeded() == ""
        entry = client.usage.ledger[0]
        assert (entry.state, entry.input_tokens, entry.output_tokens) == ("exact", 7, 0)


@pytest.mark.row("S17")
@each_transport
async def test_a_second_answer_in_a_stream_is_not_joined_to_the_first(
    transport: str, aftermath: Aftermath
) -> None:
    events, _ = events_of("anthropic")
    for begun in (events[:4], events[:-1]):
        async with (
            FaultServer(Answer([*begun, *events], headers=STREAM)) as server,
            opened(aftermath, server, "anthropic", transport) as client,
        ):
            error = (await call(client, "stream")).failed()
            assert isinstance(error, ProtocolError)
            assert "second answer" in str(error)


@pytest.mark.row("S22")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (HTML, "text/html"),
        (b"upstream gave up, key %s\n\nagain\n\n", "text/event-stream"),
    ],
)
async def test_a_page_in_place_of_an_answer_is_told_without_the_key(
    protocol: str, transport: str, way: Way, body: bytes, kind: str, aftermath: Aftermath
) -> None:
    page = body % aftermath.key.encode()
    async with (
        FaultServer(faults.document(page, kind)) as server,
        opened(aftermath, server, protocol, transport, attempts=3) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, ProtocolError)
        assert "[key]" in str(error)
        assert ("Bad gateway" if b"Bad" in page else "upstream gave up") in str(error)
        assert len(str(error)) <= 500
        assert server.count == 1
        aftermath.told(error)


@pytest.mark.row("S22")
@each_protocol
@both_ways
@pytest.mark.parametrize("padding", range(0, 400, 114))
async def test_the_key_is_in_no_excerpt_wherever_it_is_cut(
    protocol: str, way: Way, padding: int, aftermath: Aftermath
) -> None:
    page = b"<p>" + b"x" * padding + aftermath.key.encode() * 40
    async with (
        FaultServer(faults.document(page)) as server,
        opened(aftermath, server, protocol) as client,
    ):
        error = (await call(client, way)).failed()
        assert aftermath.key[:9] not in str(error)
        aftermath.told(error)


@pytest.mark.row("S22")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("kind", ["text/plain", ""])
async def test_an_answer_is_read_whatever_its_content_type_says(
    protocol: str, transport: str, way: Way, kind: str, aftermath: Aftermath
) -> None:
    def typed(answer: Answer, _: object) -> Answer:
        return answer.changed(headers={"content-type": kind})

    async with (
        FaultServer(changed("typed", typed)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text


@pytest.mark.row("S22")
@each_protocol
@each_transport
async def test_a_document_in_place_of_a_stream_is_read_as_one(
    protocol: str, transport: str, aftermath: Aftermath
) -> None:
    document = faults.document(body_of(protocol), "application/json")
    async with (
        FaultServer(document) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, "session stream")).succeeded() == HELLO.text
        assert states(client) == ["exact"]


STRANGE: Mapping[str, bytes] = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n{}",
    "201": b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
    "300": b"HTTP/1.1 300 Choices\r\nContent-Length: 0\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "399": b"HTTP/1.1 399 What\r\nContent-Length: 0\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "100 alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "20": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>Hello there.</html>",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "noise": bytes(range(256)) * 4,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below 0": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "a chunk size that is none": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    ),
    "an unknown framing": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: pigeon\r\n\r\n{}",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\n{}",
    "a space before a colon": b"HTTP/1.1 200 OK\r\nA : x\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nA: x\0y\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.row("S23")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("name", STRANGE)
async def test_a_status_without_an_answer_and_what_is_no_http_are_errors_of_ours(
    protocol: str, transport: str, way: Way, name: str, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(faults.raw(STRANGE[name])) as server,
        opened(aftermath, server, protocol, transport, fails=True) as client,
    ):
        error = (await call(client, way)).failed()
        assert isinstance(error, ProtocolError | ProviderConnectionError)
        if name in ("201", "204", "206", "300", "304", "399"):
            assert isinstance(error, ProtocolError)
            assert error.status == int(name)


@pytest.mark.row("S23")
@each_protocol
@each_transport
@both_ways
async def test_early_heads_before_the_answer_are_passed_over(
    protocol: str, transport: str, way: Way, aftermath: Aftermath
) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    def after(answer: Answer, _: object) -> Answer:
        whole = b"".join(written.data for written in answer.writes())
        return answer.changed(raw=early + whole, ending="broken")

    async with (
        FaultServer(changed("early heads", after)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == HELLO.text


@pytest.mark.row("S24")
@each_protocol
@each_transport
@both_ways
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
async def test_an_empty_answer_is_one_only_with_its_reason(
    protocol: str, transport: str, way: Way, finish: Any, aftermath: Aftermath
) -> None:
    async with (
        FaultServer(Reply("", finish=finish, usage=USAGE)) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        assert (await call(client, way)).succeeded() == ""
        response = aftermath.events[-1].response
        assert response is not None
        assert response.finish_reason == finish


@pytest.mark.row("S24")
@each_transport
@both_ways
@pytest.mark.parametrize("content", [None, ""])
async def test_a_refusal_is_told_from_an_answer(
    transport: str, way: Way, content: str | None, aftermath: Aftermath
) -> None:
    message = {"role": "assistant", "content": content, "refusal": "I will not."}
    if way == "ask":
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"model": "test-model-1", "choices": [choice]}).encode()
        answer = Answer([body])
    else:
        choice = {"index": 0, "delta": message, "finish_reason": None}
        events = [server_sent_event({"choices": [choice]}), _delta(finish="stop"), DONE]
        answer = Answer(events, headers=STREAM)
    async with (
        FaultServer(answer) as server,
        opened(aftermath, server, "openai", transport) as client,
    ):
        assert (await call(client, way)).succeeded() == ""
        response = aftermath.events[-1].response
        assert response is not None
        assert response.finish_reason == "content_filter"


@pytest.mark.row("S24")
@each_protocol
@both_ways
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_answer_without_content_or_reason_is_none(
    protocol: str, way: Way, transport: str, aftermath: Aftermath
) -> None:
    spoil: Mapping[str, Callable[[bytes], bytes]] = {
        "openai": lambda piece: piece.replace(b'"finish_reason": "stop"', b'"finish_reason": null'),
        "openai.responses": lambda piece: piece.replace(b'"completed"', b'"in_progress"'),
        "anthropic": lambda piece: piece.replace(b'"end_turn"', b"null"),
        "gemini": lambda piece: piece.replace(b'"STOP"', b"null"),
    }
    async with (
        FaultServer(
            [Reply("", usage=USAGE), faults.edit(lambda them: map(spoil[protocol], them))]
        ) as server,
        opened(aftermath, server, protocol, transport) as client,
    ):
        came = await call(client, way)
        if protocol == "openai.responses" and way == "stream":  # the event says it by its type
            assert came.succeeded() == ""
        else:
            assert isinstance(came.failed(), ProtocolError | StreamInterruptedError)
