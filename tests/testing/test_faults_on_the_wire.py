"""Each kind of fault does to the bytes what it says, in each protocol, streaming and not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from aether import Aether
from aether.errors import InputError, StreamInterruptedError
from aether.llm.contracts import TokenUsage, ToolCall
from aether.testing import FaultServer, faults
from aether.testing.faults import Answer, Ending, Failure, Fault, Reply
from tests.testing.plain_peer import (
    WIRES,
    Answered,
    answered,
    ended,
    plain_peer,
    request_of,
    taken_apart,
    whole_pieces,
)

REPLY = Reply("One, two, three.", usage=TokenUsage(input_tokens=100, output_tokens=40))
SILENT = Reply(REPLY.text)
CALLS = Reply(calls=[ToolCall("call_1", "add", {"a": 1, "b": 2})])

by_protocol = pytest.mark.parametrize("protocol", WIRES)
streaming_or_not = pytest.mark.parametrize("streaming", [True, False], ids=["stream", "whole"])


def said(protocol: str, reply: Reply = REPLY, *, streaming: bool) -> list[bytes]:
    """The pieces of the answer as the protocol's wire writes them."""
    wire, request = WIRES[protocol], request_of(protocol, streaming=streaming)
    return list(wire.stream(reply, request).events) if streaming else [wire.body(reply, request)]


def settled(protocol: str, reply: Reply = REPLY) -> int:
    return WIRES[protocol].stream(reply, request_of(protocol, streaming=True)).settled


async def whole(protocol: str, *items: Any, streaming: bool) -> tuple[Answered, faults.Served]:
    """An answer that leaves its connection open."""
    async with FaultServer([*items], reply=REPLY) as server:
        data = await answered(server, protocol, streaming=streaming)
    return taken_apart(data), server.served[0]


async def broken(
    protocol: str, *items: Any, streaming: bool, end: str = "fin"
) -> tuple[bytes, faults.Served]:
    """An answer that ends its connection."""
    async with FaultServer([*items], reply=REPLY) as server:
        data, how = await ended(server, protocol, streaming=streaming)
        await server.until_left()
    assert how == end
    assert server.served[0].bytes_written == len(data)
    return data, server.served[0]


@by_protocol
@streaming_or_not
@pytest.mark.parametrize("reply", [REPLY, SILENT, CALLS], ids=["text", "no usage", "calls"])
async def test_an_answer_without_a_fault_is_its_pieces(
    protocol: str, streaming: bool, reply: Reply
) -> None:
    async with FaultServer(reply=reply) as server:
        data = await answered(server, protocol, streaming=streaming)
    answer = taken_apart(data)
    assert answer.status == 200
    assert answer.chunks == said(protocol, reply, streaming=streaming)
    assert answer.ended
    kind = WIRES[protocol].stream_type if streaming else "application/json"
    assert ("content-type", kind) in answer.headers
    for served in server.served:
        assert (served.status, served.outcome) == (200, "whole")
        assert (served.pieces, served.bytes_written) == (len(answer.chunks), len(data))
    assert server.accepted == 1


@by_protocol
@streaming_or_not
@pytest.mark.parametrize("failure", get_args(Failure))
@pytest.mark.parametrize("retry_after", [None, 7, "Thu, 01 Jan 2026 00:00:00 GMT"])
async def test_a_refusal_is_written_as_the_protocol_writes_it(
    protocol: str, streaming: bool, failure: Failure, retry_after: str | int | None
) -> None:
    fault = faults.refuse(failure, "Not today.", retry_after=retry_after)
    answer, served = await whole(protocol, fault, streaming=streaming)
    error = WIRES[protocol].error(failure, "Not today.")
    assert (answer.status, answer.body) == (error.status, error.body)
    assert b"Not today." in answer.body
    told = [value for name, value in answer.headers if name == "retry-after"]
    assert told == ([] if retry_after is None else [str(retry_after)])
    assert (served.status, served.outcome, served.billed) == (error.status, "whole", False)
    assert served.faults == (f"refuse {failure}",)


@by_protocol
@streaming_or_not
async def test_a_status_has_the_body_and_the_headers_that_it_is_given(
    protocol: str, streaming: bool
) -> None:
    twice = [("x-should-retry", "true"), ("x-should-retry", "false")]
    fault = faults.status(799, b"\xff\x00", retry_after=-1, headers=twice)
    answer, served = await whole(protocol, fault, streaming=streaming)
    assert (answer.status, answer.body) == (799, b"\xff\x00")
    assert answer.headers == [
        ("transfer-encoding", "chunked"),
        ("retry-after", "-1"),
        *twice,
    ]
    assert not served.billed


@pytest.mark.parametrize("code", [103, 204, 304])
async def test_a_status_that_has_no_body_goes_without_one(code: int) -> None:
    async with (
        FaultServer(faults.status(code, b"none"), reply=REPLY) as server,
        plain_peer(server) as peer,
    ):
        await peer.send()
        await peer.send()
        await peer.pieces()
    head, _, rest = peer.data.partition(b"\r\n\r\n")
    assert head.split(b" ")[:2] == [b"HTTP/1.1", str(code).encode()]
    assert b"\r\n" not in head  # no header promises a body
    assert taken_apart(rest).chunks == said("openai", streaming=True)


@by_protocol
@streaming_or_not
async def test_a_redirect_names_its_target(protocol: str, streaming: bool) -> None:
    answer, _ = await whole(protocol, faults.redirect("http://127.0.0.1:1/x"), streaming=streaming)
    assert answer.status == 307
    assert ("location", "http://127.0.0.1:1/x") in answer.headers


@by_protocol
@streaming_or_not
async def test_a_document_stands_in_place_of_an_answer(protocol: str, streaming: bool) -> None:
    answer, served = await whole(protocol, faults.document(b"<p>Hi"), streaming=streaming)
    assert (answer.status, answer.body) == (200, b"<p>Hi")
    assert [value for name, value in answer.headers if name == "content-type"] == ["text/html"]
    assert not served.billed


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 201 Made\r\n\r\nrest", 201),
        (b"HTTP/1.0 200 \r\n\r\n", 200),
        (b"<html>HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 200 OK", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize(("ending", "end"), [("broken", "fin"), ("reset", "rst"), ("whole", "fin")])
async def test_raw_bytes_are_all_that_comes(
    data: bytes, status: int | None, ending: Ending, end: str
) -> None:
    fault = faults.raw(data, ending=ending)
    came, served = await broken("openai", fault, streaming=True, end=end)
    assert came == data
    assert (served.status, served.billed) == (status, False)


@by_protocol
@streaming_or_not
async def test_an_error_event_comes_after_so_many_events(protocol: str, streaming: bool) -> None:
    pieces, wire = said(protocol, streaming=streaming), WIRES[protocol]
    for after in range(len(pieces)):
        fault = faults.error_event("overloaded", "Too much.", after=after)
        answer, served = await whole(protocol, fault, streaming=streaming)
        assert answer.status == 200
        if not streaming:
            assert answer.chunks == [wire.error_in_body("overloaded", "Too much.")]
            continue
        assert answer.chunks == [*pieces[:after], wire.error_event("overloaded", "Too much.")]
        share = min(after / settled(protocol), 1)
        assert served.output_tokens == -int(-40 * share // 1)  # the error was no model's
        assert served.input_tokens == 100


@by_protocol
@streaming_or_not
async def test_a_cut_after_events_writes_just_these(protocol: str, streaming: bool) -> None:
    pieces = said(protocol, streaming=streaming)
    for count in range(len(pieces) + 1):
        data, served = await broken(protocol, faults.cut(events=count), streaming=streaming)
        answer = taken_apart(data)
        assert answer.chunks == pieces[:count]
        assert not answer.ended
        assert (served.outcome, served.pieces) == ("cut", count)
        if streaming:
            share = min(count / settled(protocol), 1)
            assert served.output_tokens == -int(-40 * share // 1)
        else:
            assert served.output_tokens == 40  # it was written before it was sent


@by_protocol
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("text", ["One, two, three.", '{"type": "text_delta", "content": "x"}'])
async def test_a_cut_after_texts_leaves_the_same_text_in_each_protocol(
    protocol: str, count: int, text: str
) -> None:
    reply = Reply(text, reasoning="So I thought.", calls=CALLS.calls, signature="signed")
    fault = faults.cut(texts=count)
    data, served = await broken(protocol, fault, reply, streaming=True)
    pieces = said(protocol, reply, streaming=True)
    assert taken_apart(data).chunks == pieces[: served.pieces]
    assert served.faults == (f"cut after {count} texts (broken)",)
    size = -(-len(text) // 3)
    parts = [json.dumps(text[start : start + size])[1:-1] for start in range(0, len(text), size)]
    came = b"".join(pieces[: served.pieces]).decode()
    assert all(f'"{part}"' in came for part in parts[:count])
    assert not any(f'"{part}"' in came for part in parts[count:])
    assert f'"{parts[count - 1]}"' in pieces[served.pieces - 1].decode()  # and no event more


@by_protocol
@pytest.mark.parametrize("ending", ["broken", "reset"])
async def test_a_client_reads_the_same_text_before_a_cut_after_texts(
    protocol: str, ending: Ending
) -> None:
    async with (
        FaultServer([faults.cut(texts=2, ending=ending), "Storm over the west"]) as server,
        Aether(config=server.config(protocol)) as client,
    ):
        got = ""
        with pytest.raises(StreamInterruptedError) as caught:  # noqa: PT012 - a stream is read
            async for text in client.stream_text("Hi"):
                got += text
        assert caught.value.partial is not None
        assert (got, server.count) == ("Storm over the", 1)
        assert caught.value.partial.text == got


@by_protocol
async def test_of_an_answer_that_is_no_stream_a_cut_after_texts_leaves_the_head(
    protocol: str,
) -> None:
    data, _ = await broken(protocol, faults.cut(texts=2), streaming=False)
    assert (taken_apart(data).status, taken_apart(data).chunks) == (200, [])


@by_protocol
@pytest.mark.parametrize("reply", [CALLS, Reply("One.")], ids=["calls", "short"])
async def test_a_cut_after_more_texts_than_there_are_is_an_error(
    protocol: str, reply: Reply
) -> None:
    with pytest.raises(InputError, match=r"after 3 pieces of text, but the reply has [02]"):
        async with FaultServer([faults.cut(texts=3), reply]) as server:
            assert await ended(server, protocol, streaming=True) == (b"", "fin")


@by_protocol
@streaming_or_not
async def test_a_cut_of_the_body_writes_just_so_many_bytes(protocol: str, streaming: bool) -> None:
    pieces = said(protocol, streaming=streaming)
    body = b"".join(pieces)
    for size in range(0, len(body) + 1, 41):
        data, served = await broken(protocol, faults.cut(body=size), streaming=streaming)
        answer = taken_apart(data)
        assert answer.body == body[:size]
        assert not answer.ended
        whole_ones = [n for n in range(len(pieces) + 1) if len(b"".join(pieces[:n])) <= size]
        assert (served.outcome, served.pieces) == ("cut", whole_ones[-1])


@by_protocol
@streaming_or_not
@pytest.mark.parametrize(("ending", "end"), [("broken", "fin"), ("reset", "rst")])
async def test_a_cut_on_the_wire_writes_just_so_many_bytes(
    protocol: str, streaming: bool, ending: Ending, end: str
) -> None:
    async with FaultServer(reply=REPLY) as server:
        full = await answered(server, protocol, streaming=streaming)
    status_line = full.index(b"\r\n") + 2
    for size in (0, 1, status_line - 1, status_line, *range(100, len(full), 97)):
        fault = faults.cut(wire=size, ending=ending)
        data, served = await broken(protocol, fault, streaming=streaming, end=end)
        assert data == full[:size]
        assert served.status == (200 if size >= status_line else None)
        assert served.outcome == "cut"
        assert served.pieces == whole_pieces(full, size)


@by_protocol
async def test_an_event_that_lacks_only_its_closing_line_ends_is_billed(protocol: str) -> None:
    first = said(protocol, streaming=True)[0]
    data = len(first.rstrip(b"\r\n"))
    _, one = await broken(protocol, faults.cut(events=1), streaming=True)
    assert one.output_tokens > 0
    for size in range(data - 1, len(first)):
        _, served = await broken(protocol, faults.cut(body=size), streaming=True)
        assert served.pieces == 0
        assert served.output_tokens == (one.output_tokens if size >= data else 0)


@by_protocol
@streaming_or_not
async def test_a_cut_may_end_as_if_that_was_all(protocol: str, streaming: bool) -> None:
    pieces = said(protocol, streaming=streaming)
    answer, served = await whole(protocol, faults.cut(body=20, ending="whole"), streaming=streaming)
    assert answer.body == b"".join(pieces)[:20]
    assert answer.ended
    assert served.outcome == "cut"
    data, _ = await broken(protocol, faults.cut(body=20, ending="dropped"), streaming=streaming)
    assert taken_apart(data) == answer


@by_protocol
@streaming_or_not
async def test_a_cut_behind_the_end_cuts_nothing(protocol: str, streaming: bool) -> None:
    for limits in ({"events": 1000}, {"body": 10**6}, {"wire": 10**6}):
        fault = faults.cut(**limits, ending="whole")
        answer, served = await whole(protocol, fault, streaming=streaming)
        assert answer.chunks == said(protocol, streaming=streaming)
        assert served.outcome == "whole"


@by_protocol
@streaming_or_not
async def test_a_cut_may_end_in_silence(protocol: str, streaming: bool) -> None:
    async with (
        FaultServer(faults.cut(body=20, ending="hanging"), reply=REPLY) as server,
        plain_peer(server) as peer,
    ):
        await peer.send(protocol, streaming=streaming)
        await server.until_hanging()
        await peer.exactly(server.served[0].bytes_written)
        assert taken_apart(peer.data).body == said(protocol, streaming=streaming)[0][:20]
        assert server.served[0].outcome == "cut"
        assert server.open_connections == 1
        peer.leave()
        await server.until_left()
        assert await peer.until_end() == "fin"
    assert server.served[0].bytes_written == len(peer.data)


@by_protocol
@streaming_or_not
@pytest.mark.parametrize(
    ("make", "end", "billed"),
    [(faults.reset, "rst", False), (faults.close, "fin", False)],
    ids=["reset", "close"],
)
async def test_the_connection_ends_when_the_request_was_read(
    protocol: str, streaming: bool, make: Any, end: str, billed: bool
) -> None:
    for fault, costs in ((make(), billed), (make(billed=True), True)):
        data, served = await broken(protocol, fault, streaming=streaming, end=end)
        assert data == b""
        assert (served.status, served.outcome, served.billed) == (None, "cut", costs)


@by_protocol
@streaming_or_not
async def test_not_a_byte_is_answered_and_the_model_may_have_run(
    protocol: str, streaming: bool
) -> None:
    async with FaultServer(faults.hang(), reply=REPLY) as server, plain_peer(server) as peer:
        await peer.send(protocol, streaming=streaming)
        await server.until_hanging()
        peer.leave()
        assert await peer.until_end() == "fin"
        await server.until_left()
    (served,) = server.served
    assert (served.bytes_written, served.status, served.outcome) == (0, None, "cut")
    assert (served.input_tokens, served.output_tokens) == (100, 0 if streaming else 40)


@by_protocol
@streaming_or_not
async def test_a_whole_answer_may_be_the_connections_last(protocol: str, streaming: bool) -> None:
    data, served = await broken(protocol, faults.drop(), streaming=streaming)
    assert taken_apart(data).chunks == said(protocol, streaming=streaming)
    assert taken_apart(data).ended
    assert served.outcome == "whole"


@by_protocol
async def test_an_unsettled_stream_says_everything_but_why_it_ended(protocol: str) -> None:
    pieces = said(protocol, streaming=True)
    del pieces[settled(protocol) - 1]
    answer, served = await whole(protocol, faults.unsettled(), streaming=True)
    assert answer.chunks == pieces
    for reason in (b'"stop"', b"end_turn", b"STOP", b"response.completed"):
        assert reason not in answer.body
    marks = {"openai": b"[DONE]", "anthropic": b"message_stop"}
    assert marks.get(protocol, b"") in answer.body
    assert served.billed


async def test_an_unsettled_answer_that_is_no_stream_is_empty() -> None:
    answer, _ = await whole("openai", faults.unsettled(), streaming=False)
    assert (answer.status, answer.body) == (200, b"")


@by_protocol
@streaming_or_not
async def test_the_pieces_are_edited(protocol: str, streaming: bool) -> None:
    def change(pieces: list[bytes]) -> Sequence[bytes]:
        return [b"first", *reversed(pieces)]

    answer, served = await whole(protocol, faults.edit(change, "turned"), streaming=streaming)
    assert answer.chunks == [b"first", *reversed(said(protocol, streaming=streaming))]
    assert served.faults == ("turned",)


@by_protocol
@streaming_or_not
async def test_the_first_byte_comes_late(protocol: str, streaming: bool) -> None:
    answer, _ = await whole(protocol, faults.delay(0.01), streaming=streaming)
    assert answer.chunks == said(protocol, streaming=streaming)
    async with FaultServer(faults.delay(600), reply=REPLY) as server, plain_peer(server) as peer:
        await peer.send(protocol, streaming=streaming)
        await server.until_asked()
        peer.leave()
        await server.until_left()  # it does not wait on for a peer that is gone
    assert server.served[0].outcome == "left"
    assert server.served[0].bytes_written == 0


@by_protocol
@streaming_or_not
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_few_bytes_come_at_once(protocol: str, streaming: bool, size: int) -> None:
    async with FaultServer(faults.split(size), reply=REPLY) as server, plain_peer(server) as peer:
        await peer.send(protocol, streaming=streaming)
        came = await peer.pieces()
    assert max(map(len, came)) <= size
    halves = [faults.split(size), faults.cut(wire=len(peer.data) // 2)]
    data, served = await broken(protocol, *halves, streaming=streaming)
    assert data == peer.data[: len(data)]
    assert served.pieces == whole_pieces(peer.data, len(data))
    assert taken_apart(peer.data).chunks == said(protocol, streaming=streaming)
    assert server.served[0].outcome == "whole"
    assert server.served[0].pieces == len(said(protocol, streaming=streaming))


@by_protocol
@streaming_or_not
async def test_bytes_drip_with_a_pause_between(protocol: str, streaming: bool) -> None:
    answer, _ = await whole(protocol, faults.drip(200, seconds=0.001), streaming=streaming)
    assert answer.chunks == said(protocol, streaming=streaming)
    async with (
        FaultServer(faults.drip(3, seconds=600), reply=REPLY) as server,
        plain_peer(server) as peer,
    ):
        await peer.send(protocol, streaming=streaming)
        assert await peer.exactly(3) == b"HTT"
        peer.leave()
        await server.until_left()
    (served,) = server.served
    assert (served.outcome, served.bytes_written, served.status) == ("left", 3, None)


@by_protocol
async def test_comments_come_without_end_and_are_nobodys_tokens(protocol: str) -> None:
    events = said(protocol, streaming=True)
    async with (
        FaultServer(faults.keep_alive(2, comment=b": on\n\n"), reply=REPLY) as server,
        plain_peer(server) as peer,
    ):
        await peer.send(protocol)
        await peer.exactly(5000)
        peer.leave()
        await server.until_left()
    chunks = taken_apart(peer.data).chunks
    assert chunks[:2] == events[:2]
    assert set(chunks[2:-1]) == {b": on\n\n"}
    (served,) = server.served
    assert served.outcome == "left"
    assert served.output_tokens == -int(-40 * 2 / settled(protocol) // 1)


@by_protocol
@streaming_or_not
async def test_headers_are_added(protocol: str, streaming: bool) -> None:
    plain, _ = await whole(protocol, streaming=streaming)
    more = (("x-a", "1"), ("x-a", "2"))
    answer, _ = await whole(protocol, faults.headers(*more), streaming=streaming)
    assert answer.headers == [*plain.headers, *more]
    assert answer.chunks == plain.chunks


@by_protocol
@streaming_or_not
@pytest.mark.parametrize("by", [5, -5])
async def test_the_length_is_wrong_by_so_much(protocol: str, streaming: bool, by: int) -> None:
    body = b"".join(said(protocol, streaming=streaming))
    async with (
        FaultServer(faults.wrong_length(by), reply=REPLY) as server,
        plain_peer(server) as peer,
    ):
        await peer.send(protocol, streaming=streaming)
        if by > 0:
            assert await peer.until_end() == "fin"
        else:
            await server.until_asked()
            await server.until_left()
            await peer.exactly(server.served[0].bytes_written)
    answer = taken_apart(peer.data)
    assert answer.body == body
    assert ("content-length", str(len(body) + by)) in answer.headers
    assert server.served[0].outcome == ("cut" if by > 0 else "whole")


@by_protocol
@streaming_or_not
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_bomb_is_small_and_grows(protocol: str, streaming: bool, coding: Any) -> None:
    answer, _ = await whole(protocol, faults.bomb(300_000, coding=coding), streaming=streaming)
    assert ("content-encoding", coding) in answer.headers
    assert len(answer.body) < 1000
    unpack = gzip.decompress if coding == "gzip" else zlib.decompress
    assert len(unpack(answer.body)) == 300_000


@by_protocol
@streaming_or_not
async def test_what_was_used_is_not_told_but_billed(protocol: str, streaming: bool) -> None:
    answer, served = await whole(protocol, faults.untold(), streaming=streaming)
    assert answer.chunks == said(protocol, SILENT, streaming=streaming)
    assert (served.input_tokens, served.output_tokens) == (100, 40)


PAIRS: list[tuple[Fault, Fault]] = [
    (faults.refuse("server"), faults.delay(0.001)),
    (faults.status(500, b"no"), faults.split(3)),
    (faults.document(b"<p>" * 20), faults.cut(body=9, ending="whole")),
    (faults.error_event("server"), faults.headers(("x-a", "1"))),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name}, {pair[1].name}")
@by_protocol
@streaming_or_not
async def test_what_is_said_and_how_it_is_sent_may_be_told_in_either_order(
    protocol: str, streaming: bool, pair: tuple[Fault, Fault]
) -> None:
    one, served = await whole(protocol, *pair, streaming=streaming)
    other, _ = await whole(protocol, *reversed(pair), streaming=streaming)
    assert one == other
    assert served.faults == (pair[0].name, pair[1].name)


async def test_a_refusal_may_be_cut_and_its_connection_ended() -> None:
    data, served = await broken(
        "openai", faults.drop(), faults.refuse("server", "Out."), streaming=True
    )
    assert taken_apart(data).status == 500
    assert b"Out." in data
    assert served.outcome == "whole"


@pytest.mark.parametrize("ending", ["whole", "dropped", "broken"])
async def test_a_length_is_that_of_the_whole_body_however_little_is_written(
    ending: Ending,
) -> None:
    answer = Answer([b"12345", b"67890"], framing="length", body_bytes=7, ending=ending)
    async with FaultServer(answer) as server, plain_peer(server) as peer:
        await peer.send()
        await server.until_asked()
        await server.until_left()
        await peer.exactly(server.served[0].bytes_written)
    assert peer.data.endswith(b"content-length: 10\r\n\r\n1234567")
    assert server.served[0].outcome == "cut"
    assert server.served[0].pieces == 1


async def test_a_body_may_end_with_its_connection() -> None:
    answer = Answer([b"12345", b"67890"], framing="close", headers={"x-a": "1"})
    async with FaultServer(answer) as server:
        data, how = await ended(server, "openai", streaming=True)
    assert data == b"HTTP/1.1 200 OK\r\nconnection: close\r\nx-a: 1\r\n\r\n1234567890"
    assert (how, server.served[0].outcome) == ("fin", "whole")


async def test_an_answer_may_have_no_end() -> None:
    def pieces() -> Any:
        while True:
            yield b"more"

    async with FaultServer(Answer(pieces())) as server, plain_peer(server) as peer:
        await peer.send()
        await peer.exactly(10_000)
        peer.leave()
        await server.until_left()
    assert server.served[0].outcome == "left"


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.refuse("ratelimit"),  # type: ignore[arg-type]  # the point of the test
        lambda: faults.error_event("ratelimit"),  # type: ignore[arg-type]
        lambda: faults.cut(ending="closed"),  # type: ignore[arg-type]
        lambda: faults.cut(texts=0),
        lambda: faults.cut(texts=1, events=1),
        lambda: faults.cut(texts=1, ending="closed"),  # type: ignore[arg-type]
        lambda: faults.split(0),
        lambda: faults.drip(-1),
        lambda: Answer([], framing="none"),  # type: ignore[arg-type]
    ],
)
def test_what_no_answer_can_be_is_said_at_once(make: Any) -> None:
    with pytest.raises(InputError):
        make()


def test_the_events_of_a_stream_are_json() -> None:
    """The tests above compare with what the wires write; this is what that looks like."""
    for protocol in WIRES:
        for event in said(protocol, streaming=True):
            data = event.partition(b"data: ")[2].strip()
            assert data == b"[DONE]" or isinstance(json.loads(data), dict)
