"""Server-sent events: every way of cutting the bytes gives the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ProtocolError
from aether.extensions.llm._wire.large_json import LARGE_BYTES, ReadDocument
from aether.extensions.llm._wire.sse import MAX_EVENT_LINES, SSEDecoder


def decode(*pieces: bytes, max_bytes: int = 1 << 24) -> list[tuple[str, bytes]]:
    decoder = SSEDecoder(max_bytes=max_bytes)
    return [(name, data) for piece in pieces for data, name in decoder.feed(piece)]


def data(*values: bytes) -> list[tuple[str, bytes]]:
    return [("", value) for value in values]


def test_a_large_event_in_pieces_is_read_like_a_small_one() -> None:
    value = b"x" * (LARGE_BYTES + 100)
    stream = b"data: " + value + b"\n\ndata: b\n\n"
    assert decode(stream[:50], stream[50:-5], stream[-5:]) == data(value, b"b")


def test_what_is_not_read_in_turns_is_checked_up_to_its_largest() -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        decode(b"data: " + b"\xff" * LARGE_BYTES + b"\n\n")


def test_a_rest_that_was_read_in_turns_is_whole() -> None:
    events: list[tuple[bytes, str]] = [(ReadDocument(b'{"a": "x'), "")]
    assert SSEDecoder(max_bytes=100).flush(events) == events
    assert SSEDecoder(max_bytes=100).flush([(b'{"a": "x', "")]) == []


@pytest.mark.parametrize(("rest", "count"), [(b"data: {}", 1), (b"data: 1", 0), (b"data: x", 0)])
def test_only_a_rest_that_ends_as_json_does_may_be_an_event(rest: bytes, count: int) -> None:
    decoder = SSEDecoder(max_bytes=100)
    assert decoder.feed(rest) == []
    assert len(decoder.rest()) == count


@pytest.mark.row("S7", "S8", "S9", "S10")
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", data(b"a", b"b")),
        (b"data:a\n\n", data(b"a")),
        (b"data:  a \n\n", data(b" a ")),
        (b"data: a\ndata: b\ndata:\n\n", data(b"a\nb\n")),
        (b"data\n\ndata\ndata\n\ndata:", data(b"", b"\n")),
        (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), ("", b"b")]),
        (b"event: ping\n\ndata: a\n\n", data(b"a")),
        (b": comment\n\ndata: a\n: another\n\n", data(b"a")),
        (b"id: 1\nretry: 5\nunknown: x\nno colon\ndata: a\n\n", data(b"a")),
        (b" data: a\n\nDATA: b\n\n", []),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", data(b"a", b"b", b"c")),
        (b"data: a\r\ndata: b\r\n\r\n", data(b"a\nb")),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", data(b"a", b"b")),
        (b"\xef\xbb\xbfdata: a\n\n", data(b"a")),
        (
            b"data: a\xe2\x80\xa8b\xc2\x85c\x0bd\x0ce\n\n",
            data(b"a\xe2\x80\xa8b\xc2\x85c\x0bd\x0ce"),
        ),
        (b"data: \xf0\x9f\x98\x80\n\n", data("😀".encode())),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(
    stream: bytes, events: list[tuple[str, bytes]]
) -> None:
    assert decode(stream) == events
    assert decode(*(bytes([byte]) for byte in stream)) == events
    for cut in range(len(stream)):
        assert decode(stream[:cut], stream[cut:]) == events


_FRAGMENTS = st.sampled_from(
    [
        *(b"data:", b"data: ", b"event: x", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"{}"),
        *(b"\xef\xbb\xbf", "é😀\u2028".encode(), b" ", b"\xff", b"id", b"[DONE]"),
    ]
)


@pytest.mark.row("S5", "S7")
@given(
    st.lists(_FRAGMENTS, max_size=30).map(b"".join),
    st.lists(st.integers(min_value=0, max_value=120), max_size=12),
)
def test_no_way_of_cutting_changes_the_events(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    try:
        whole = decode(stream)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decode(*pieces)
    else:
        assert decode(*pieces) == whole


def _model(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[tuple[str, bytes]] = []
    name, lines = b"", b""
    for line in text.split(b"\n")[:-1]:
        if not line:
            if lines:
                events.append((name.decode(), lines[:-1]))
            name, lines = b"", b""
        field, _, value = line.partition(b":")
        if field == b"data":
            lines += value.removeprefix(b" ") + b"\n"
        elif field == b"event":
            name = value.removeprefix(b" ")
    return events


@pytest.mark.row("S7", "S8", "S9", "S10")
@given(st.lists(_FRAGMENTS.filter(lambda part: part != b"\xff"), max_size=40).map(b"".join))
def test_it_agrees_with_the_standards_algorithm(stream: bytes) -> None:
    assert decode(stream) == _model(stream)


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    "stream",
    [
        b"data: \xff\n\n",
        b"data: a\ndata: \xe2\x82\n\n",
        b"event: a\ndata: 1\n\nevent: b\ndata: \xff\n\n",
    ],
)
def test_data_that_is_not_utf8_is_a_protocol_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        decode(stream)


@pytest.mark.row("S5")
def test_a_character_cut_in_two_is_whole_again() -> None:
    assert decode(b"data: \xf0\x9f", b"\x98\x80\n\n") == data("😀".encode())


@pytest.mark.row("S11")
@pytest.mark.parametrize("end", [b"", b"\n\n"])
@pytest.mark.parametrize("line", [b"data: ", b": ", b"data: a\ndata: "])
def test_an_event_that_is_too_large_is_a_protocol_error(line: bytes, end: bytes) -> None:
    with pytest.raises(ProtocolError, match="larger"):
        decode(line + b"x" * 100 + end, max_bytes=99)


@pytest.mark.parametrize("line", [b"data: ", b"data: a\ndata: ", b"data:"])
def test_an_event_of_just_the_limit_is_read(line: bytes) -> None:
    event = line.ljust(99, b"x")
    assert len(decode(event + b"\n\n", max_bytes=99)) == 1
    assert len(decode(event, b"\n\n", max_bytes=99)) == 1


def test_a_name_that_is_not_utf8_spoils_no_data() -> None:
    assert decode(b"event: a\xffb\ndata: 1\n\n") == [("a\ufffdb", b"1")]
    assert decode(b"event: a\xffb\ndata: 1\ndata: 2\n\n") == [("a\ufffdb", b"1\n2")]
    assert decode(b"event: a\xffb\ndata:1\n\n") == [("a\ufffdb", b"1")]


def test_events_of_one_line_and_of_more_are_read_in_their_order() -> None:
    stream = b"event: a\ndata: 1\n\nevent: b\ndata: 2\ndata: 3\n\nevent: c\ndata:4\n\n"
    assert decode(stream) == [("a", b"1"), ("b", b"2\n3"), ("c", b"4")]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\nDATA: b\n\n", data(b"a")),
        (b"data: a\nDATA: b\n\n", data(b"a")),
        (b"event: a\nDATA: 1\n\n", []),
        (b"EVENT: a\ndata: 1\n\n", data(b"1")),
        (b"event: a\ndata: 1\n\nEVENT: b\ndata: 2\n\n", [("a", b"1"), ("", b"2")]),
    ],
)
def test_a_field_in_capitals_is_unknown(stream: bytes, events: list[tuple[str, bytes]]) -> None:
    assert decode(stream) == events


def test_many_events_may_be_larger_together() -> None:
    assert len(decode(b"data: x\n\n" * 100 + b"data", b": y\n\n", max_bytes=20)) == 101


def test_an_event_in_pieces_of_one_byte_is_read_in_linear_time() -> None:
    size = 300_000  # quadratic work would take minutes: there is no clock in this test
    pieces = [b"data: ", *([b"x"] * size), b"\n", b"\n"]
    assert decode(*pieces) == data(b"x" * size)


@pytest.mark.row("S11")
def test_an_endless_event_is_given_up_at_the_limit() -> None:
    decoder = SSEDecoder()
    piece = b"x" * 65_536
    for _ in range(16 * 16):
        assert decoder.feed(piece) == []
    with pytest.raises(ProtocolError, match="larger"):
        decoder.feed(piece)


@pytest.mark.row("S4")
@pytest.mark.parametrize(
    ("stream", "between"),
    [
        (b"", True),
        (b"data: a\n\n", True),
        (b"data: a\n\n\n", True),
        (b"data: a\n", False),
        (b"data: a\n\nda", False),
        (b"data: a\n\ndata: ", False),
        (b"data: a\n\ndata: [", True),
        (b"\r", True),
        (b"\xef\xbb\xbf", True),
        (b"\xef\xbb", False),
    ],
)
def test_close_tells_whether_the_end_was_between_events(stream: bytes, between: bool) -> None:
    decoder = SSEDecoder()
    decoder.feed(stream)
    assert decoder.close() is between


@pytest.mark.parametrize(
    ("rest", "events"),
    [
        (b'data: {"a": {"b": 1}}', data(b'{"a": {"b": 1}}')),
        (b'data: {"a": {"b": 1}}\n', data(b'{"a": {"b": 1}}')),
        (b"data: [DONE]", data(b"[DONE]")),
        (b'data: {"a": {"b": 1}', []),
        (b"data: [DON", []),
        (b'data: {"a": 1', []),
        (b": comment", []),
        (b"", []),
    ],
)
def test_the_last_event_of_a_whole_body_may_lack_its_blank_line(
    rest: bytes, events: list[tuple[str, bytes]]
) -> None:
    decoder = SSEDecoder()
    assert list(decoder.feed(b"data: 1\n\n" + rest)) != []
    assert [(name, said) for said, name in decoder.flush(decoder.rest())] == events
    cut = not events and rest.startswith(b"data: {")
    assert decoder.close() is not cut


def test_a_field_of_its_own_with_an_error_is_an_event() -> None:
    """So older servers of llama.cpp report one."""
    stream = b'data: 1\n\nerror: {"code":400}\n\ndata: [DONE]\n\n'
    assert decode(stream) == [("", b"1"), ("error", b'{"code":400}'), ("", b"[DONE]")]
    assert decode(b"error: 7\n\nerror\n\n") == []


def test_bare_json_with_an_error_is_an_event() -> None:
    """So Gemini reports an error in the middle of a stream."""
    error = b'{\n  "error": {"code": 503}\n}'
    assert decode(b"data: 1\n\n" + error + b"\n\n") == data(b"1", error)
    decoder = SSEDecoder()
    assert list(decoder.feed(error)) == []
    assert [said for said, _ in decoder.flush(decoder.rest())] == [error]
    assert decode(b'{"candidates": []}\n\n') == []
    assert decode(b'[{"error": {"code": 503}}]\n\n') == data(b'[{"error": {"code": 503}}]')


@pytest.mark.row("S11")
@pytest.mark.parametrize("line", [b"data:\n", b"data: \n"])
def test_an_event_of_too_many_lines_is_a_protocol_error(line: bytes) -> None:
    """Each line takes its time: so many of them would hold up everything else."""
    with pytest.raises(ProtocolError, match="lines"):
        decode(line * (MAX_EVENT_LINES + 1) + b"\n")
    assert len(decode(line * MAX_EVENT_LINES + b"\n")[0][1]) == MAX_EVENT_LINES - 1


@pytest.mark.row("S11")
def test_an_end_behind_too_many_lines_is_not_between_events() -> None:
    decoder = SSEDecoder()
    decoder.feed(b": a\n" * (MAX_EVENT_LINES - 1))
    assert decoder.close()
    decoder.feed(b": a\n")
    assert not decoder.close()
