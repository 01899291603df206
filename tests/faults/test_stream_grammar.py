"""Streams by chance: however they are written and cut they say the same, and nothing else is said.

Without sockets: a whole adapter reads bytes that are handed to it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aether.errors import (
    ProtocolError,
    ProviderConnectionError,
    ProviderError,
    StreamInterruptedError,
)
from aether.testing.wires.contracts import server_sent_event
from tests.faults.exchanges import (
    CALLING,
    HELLO,
    PROTOCOLS,
    body_of,
    each_protocol,
    events_of,
)
from tests.faults.feeds import Reader
from tests.faults.grammar import body, events, in_pieces, joined, say


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Reader() as made:
        yield made


def by_chance(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],  # it remembers nothing
    )


def broken() -> ProviderConnectionError:
    return ProviderConnectionError("It broke.", kind="reset")


chances = st.integers(min_value=0, max_value=2**32).map(random.Random)
protocols = st.sampled_from(PROTOCOLS)


@pytest.mark.row("S5", "S7", "S9", "S10")
@by_chance(150)
@given(chance=chances, protocol=protocols)
def test_what_is_said_is_what_is_read_however_it_is_written_and_cut(
    reader: Reader, chance: random.Random, protocol: str
) -> None:
    said = say(chance)
    data = joined(chance, events(protocol, said))
    read = reader.stream(protocol, *in_pieces(chance, data))
    assert read.error is None
    response = read.response
    assert response is not None
    assert read.text == response.text == said.text
    assert [(made.name, made.arguments) for made in response.tool_calls] == said.calls
    assert response.finish_reason == said.finish
    assert (response.input_tokens, response.output_tokens) == said.usage
    # The same as an answer that is no stream.
    assert reader.whole(protocol, body(protocol, said)).ending == read.ending


@pytest.mark.row("S1", "S4", "N9", "N10")
@by_chance(150)
@given(chance=chances, protocol=protocols, breaks=st.booleans())
def test_a_stream_that_is_cut_is_an_error_that_has_what_was_shown(
    reader: Reader, chance: random.Random, protocol: str, breaks: bool
) -> None:
    said = say(chance)
    pieces = events(protocol, said)
    last = chance.randrange(len(pieces))
    data = joined(chance, pieces[:last]) + pieces[last][: chance.randrange(len(pieces[last]) - 2)]
    then = broken() if breaks else None
    read = reader.stream(protocol, *in_pieces(chance, data), then=then)
    assert said.text.startswith(read.text)
    if read.error is None:  # all was said but the end mark
        assert protocol == "openai"
        assert read.response is not None
        assert read.response.text == said.text
        assert read.response.finish_reason == said.finish
        return
    assert isinstance(read.error, ProviderError)
    assert read.error.retryable
    assert read.error.kind == ("reset" if breaks else "truncated")
    if read.chunks or not breaks:
        assert isinstance(read.error, StreamInterruptedError)
        assert read.error.partial is not None
        assert read.error.partial.text == read.text
        assert read.error.partial.finish_reason in (None, said.finish)
    else:
        assert isinstance(read.error, ProviderConnectionError)


@pytest.mark.row("S4", "S6", "S12", "S13")
@by_chance(300)
@given(chance=chances, protocol=protocols)
def test_one_wrong_byte_gives_what_was_said_or_a_typed_error_or_what_the_byte_says(
    reader: Reader, chance: random.Random, protocol: str
) -> None:
    """Where the byte stands in a text, it is the text: nothing tells it from another."""
    said = say(chance, most=3)
    data = joined(chance, events(protocol, said))
    place = chance.randrange(len(data))
    wrong = data[:place] + bytes([data[place] ^ chance.randint(1, 255)]) + data[place + 1 :]
    read = reader.stream(protocol, *in_pieces(chance, wrong))
    assert read.ending == reader.stream(protocol, wrong).ending
    if read.error is not None:
        assert isinstance(read.error, StreamInterruptedError | ProtocolError)
        return
    assert read.response is not None
    assert read.response.text == read.text
    assert read.response.finish_reason is not None


@pytest.mark.row("S4")
@each_protocol
@pytest.mark.parametrize("breaks", [False, True], ids=["ends", "breaks"])
@pytest.mark.parametrize("reply", [HELLO, CALLING], ids=["text", "call"])
def test_a_stream_cut_at_any_byte_is_whole_or_an_error(
    reader: Reader, protocol: str, breaks: bool, reply: Any
) -> None:
    """At every byte of a text that ends; at every sixth of the others."""
    pieces, whole_after = events_of(protocol, reply)
    data = b"".join(pieces)
    # The last line's end may lack where the body has ended as it should.
    whole_at = len(b"".join(pieces[:whole_after]).rstrip())
    every = 1 if reply is HELLO and not breaks else 6
    for place in range(0, len(data), every):
        read = reader.stream(protocol, data[:place], then=broken() if breaks else None)
        if read.error is None:
            where = f"cut at {place} of {len(data)}: {data[:place][-60:]!r}"
            assert place >= whole_at, where
            assert _is_between_events(data[:place], breaks=breaks), where
            assert read.text == reply.text
            continue
        assert isinstance(read.error, ProviderError)
        assert reply.text.startswith(read.text)
        if read.chunks:
            assert isinstance(read.error, StreamInterruptedError)
            assert read.error.partial is not None
            assert read.error.partial.text == read.text
            for made in read.error.partial.tool_calls:
                assert made.invalid_arguments is not None or made.arguments == {"a": 1, "b": 2}


_OTHER_BYTES = b'x"\\0}],:{[ \n\r\t-\x00\xff'


@pytest.mark.row("S4", "S12")
@each_protocol
@pytest.mark.parametrize("reply", [HELLO, CALLING], ids=["text", "call"])
def test_one_wrong_byte_between_the_strings_and_numbers_of_json_is_an_error(
    reader: Reader, protocol: str, reply: Any
) -> None:
    """No other byte makes sense there, so it must be seen. In each place a few are tried.

    But a line's end for the first bracket: what is left is an empty event, as servers send some.
    """
    pieces, _ = events_of(protocol, reply)
    data = b"".join(pieces)
    chance = random.Random(protocol)
    seen = 0
    for place in _between_values(pieces):
        for byte in chance.sample(_OTHER_BYTES, 3):
            opens = data[:place].endswith(b"data: ")
            if byte == data[place] or (opens and byte in b"\r\n"):
                continue
            wrong = data[:place] + bytes([byte]) + data[place + 1 :]
            read = reader.stream(protocol, wrong)
            where = f"{bytes([byte])!r} at {place}: {wrong[max(0, place - 30) : place + 30]!r}"
            assert isinstance(read.error, StreamInterruptedError | ProtocolError), where
            assert reply.text.startswith(read.text), where
            assert read.response is None, where
            seen += 1
    assert seen > 300


def _between_values(pieces: list[bytes]) -> Iterator[int]:
    """The places in a stream where JSON has its quotes, brackets, commas, colons and words."""
    start = 0
    for piece in pieces:
        at = piece.find(b"data: {")
        if at >= 0:
            at += len(b"data: ")
            for token in _TOKEN.finditer(piece, at):
                first, end = token.span()
                text = token[0].startswith(b'"')
                yield from (
                    start + each for each in ((first, end - 1) if text else range(*token.span()))
                )
        start += len(piece)


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|true|false|null')


@pytest.mark.row("S4")
@pytest.mark.parametrize("reply", [HELLO, CALLING], ids=["text", "call"])
def test_one_wrong_byte_in_what_is_said_twice_is_an_error(reader: Reader, reply: Any) -> None:
    """OpenAI's Responses repeat at their end what was said in pieces: one of the two is wrong."""
    protocol = "openai.responses"
    pieces, _ = events_of(protocol, reply)
    data = b"".join(pieces)
    truth = [each.arguments for each in reply.calls]
    for place in range(len(data)):
        wrong = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        read = reader.stream(protocol, wrong)
        if read.error is None:
            where = f"at {place}: {wrong[max(0, place - 40) : place + 40]!r}"
            assert read.response is not None
            assert read.response.text == reply.text, where
            assert [each.arguments for each in read.response.tool_calls] == truth, where


@pytest.mark.row("S5")
@each_protocol
def test_characters_that_are_cut_in_two_or_written_as_pairs_are_whole(
    reader: Reader, protocol: str
) -> None:
    text = "a😀é語\u2028𝄞"
    pieces, _ = events_of(protocol, type(HELLO)(text))
    plain = b"".join(pieces)
    escaped = b"".join(_escaped(piece) for piece in pieces)
    assert b"\\ud83d\\ude00" in escaped
    for data in (plain, escaped):
        read = reader.stream(protocol, *(bytes([byte]) for byte in data))
        assert read.error is None
        assert read.text == text


@pytest.mark.row("S5")
@each_protocol
@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\ud83dx"])
def test_half_a_pair_is_a_protocol_error(reader: Reader, protocol: str, half: str) -> None:
    pieces, _ = events_of(protocol)
    data = b"".join(pieces).replace(b"Hell", half.encode())
    assert isinstance(reader.stream(protocol, data).error, ProtocolError)
    whole = body_of(protocol).replace(b"Hell", half.encode())
    assert isinstance(reader.whole(protocol, whole).error, ProtocolError)


@pytest.mark.row("S7")
@each_protocol
@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n\r\n"])
def test_other_line_ends_are_line_ends(reader: Reader, protocol: str, end: bytes) -> None:
    pieces, _ = events_of(protocol)
    data = b"".join(pieces).replace(b"\r\n", b"\n")
    told = data.replace(b"\n", end) if end != b"\n\r\n" else data.replace(b"\n\n", end)
    for size in (1, 2, 3, 50):
        cut = [told[start : start + size] for start in range(0, len(told), size)]
        read = reader.stream(protocol, *cut)
        assert read.error is None
        assert read.text == HELLO.text


@pytest.mark.row("S8")
@each_protocol
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x00"])
def test_what_only_looks_like_a_line_s_end_is_text(
    reader: Reader, protocol: str, mark: str
) -> None:
    text = f"one{mark}two"
    pieces, _ = events_of(protocol, type(HELLO)(text))
    read = reader.stream(protocol, *(bytes([byte]) for byte in b"".join(pieces)))
    assert read.error is None
    assert read.text == text


@pytest.mark.row("S9", "S10")
@each_protocol
def test_fields_that_mean_nothing_and_data_over_several_lines_change_nothing(
    reader: Reader, protocol: str
) -> None:
    pieces, _ = events_of(protocol)
    told = [b"\xef\xbb\xbf: hello\n\nid: 1\nretry: 10\nwhat: ever\nnothing\n\n"]
    for piece in pieces:
        head, _, data = piece.replace(b"\r\n", b"\n").partition(b"data: ")
        lines = data.strip().replace(b", ", b",\ndata:")
        told.append(b": ping\nid\nid: 2\n" + head + b"data:" + lines + b"\nretry: x\n\n")
    read = reader.stream(protocol, b"".join(told))
    assert read.error is None
    assert read.text == HELLO.text


@pytest.mark.row("S20")
@by_chance(200)
@given(chance=chances)
def test_pieces_of_calls_are_put_together_by_a_table(reader: Reader, chance: random.Random) -> None:
    """Against a model: what each call is, however its pieces are told and mixed."""
    calls = [
        (f"name_{number}", {"a": number} if chance.random() < 0.8 else {})
        for number in range(chance.randint(1, 4))
    ]
    ids = [chance.choice(["one", "two", None]) for _ in calls]  # given twice, or not at all
    queues = [
        list(_told(chance, number, name, arguments, ids[number]))
        for number, (name, arguments) in enumerate(calls)
    ]
    told: list[dict[str, Any]] = []
    # The first piece of each, in order, and then the rest in any order of the calls.
    told += [queue.pop(0) for queue in queues]
    while any(queues):
        told.append(chance.choice([queue for queue in queues if queue]).pop(0))
    deltas = [_choice({"tool_calls": [each]}) for each in told]
    read = reader.stream("openai", *deltas, _choice({}, "tool_calls"), b"data: [DONE]\n\n")
    assert read.error is None
    assert read.response is not None
    made = read.response.tool_calls
    assert [(call.name, call.arguments) for call in made] == calls
    assert all(call.invalid_arguments is None for call in made)
    assert len({call.id for call in made}) == len(made)
    assert all(call.id for call in made)


@pytest.mark.row("S20")
@pytest.mark.parametrize(
    ("told", "calls"),
    [
        (
            [{"function": {"name": "get_"}}, {"function": {"name": "time", "arguments": "{}"}}],
            [("get_time", {})],
        ),
        (
            [
                {"function": {"name": "get"}},
                {"function": {"name": "get_time"}},
                {"function": {"name": "get_time", "arguments": "{}"}},
            ],
            [("get_time", {})],
        ),
        (
            [
                {"function": {"name": "a", "arguments": '{"x":'}},
                {"function": {"name": "a", "arguments": "1}"}},
            ],
            [("a", {"x": 1})],
        ),
        ([{"id": "1", "function": {"name": "a", "arguments": ""}}], [("a", {})]),
        (
            [
                {"id": "1", "function": {"name": "a", "arguments": "{}"}},
                {"id": "2", "function": {"name": "a", "arguments": "{}"}},
            ],
            [("a", {}), ("a", {})],
        ),
    ],
)
def test_names_in_pieces_and_calls_under_one_index_are_told_apart(
    reader: Reader, told: list[dict[str, Any]], calls: list[tuple[str, Any]]
) -> None:
    deltas = [_choice({"tool_calls": [{"index": 0, **each}]}) for each in told]
    read = reader.stream("openai", *deltas, _choice({}, "tool_calls"), b"data: [DONE]\n\n")
    assert read.response is not None
    assert [(call.name, call.arguments) for call in read.response.tool_calls] == calls


@pytest.mark.row("S20")
@pytest.mark.parametrize("with_ids", [True, False])
def test_calls_without_an_index_are_told_apart_by_their_names(
    reader: Reader, with_ids: bool
) -> None:
    deltas = []
    for number in range(3):
        first: dict[str, Any] = {"function": {"name": f"name_{number}", "arguments": ""}}
        if with_ids:
            first["id"] = f"call-{number}"
        rest = {"function": {"arguments": f'{{"a": {number}}}'}}
        deltas += [_choice({"tool_calls": [first]}), _choice({"tool_calls": [rest]})]
    read = reader.stream("openai", *deltas, _choice({}, "tool_calls"), b"data: [DONE]\n\n")
    assert read.response is not None
    made = [(call.name, call.arguments) for call in read.response.tool_calls]
    assert made == [(f"name_{number}", {"a": number}) for number in range(3)]


@pytest.mark.row("S13")
@each_protocol
@pytest.mark.parametrize("value", [None, 7, "text", [], [[]], {}, True, 1.5])
def test_a_value_of_the_wrong_shape_in_any_place_is_no_error_of_python(
    reader: Reader, protocol: str, value: Any
) -> None:
    said = say(random.Random(3))
    pieces = events(protocol, said)
    for number, piece in enumerate(pieces):
        head, _, data = piece.partition(b"data: ")
        if data.startswith(b"["):
            continue
        for change in _each_place(json.loads(data)):
            spoilt = [*pieces[:number], head + change(value), *pieces[number + 1 :]]
            read = reader.stream(protocol, *spoilt)
            if read.error is None:
                assert read.response is not None
                assert read.response.text == read.text
            else:
                assert isinstance(read.error, ProviderError)
    for change in _each_place(json.loads(body(protocol, said))):
        read = reader.whole(protocol, change(value).removeprefix(b"data: ").strip())
        assert read.response is not None or isinstance(read.error, ProviderError)


@pytest.mark.row("S25", "N13")
@each_protocol
def test_the_work_for_a_stream_grows_as_its_length(reader: Reader, protocol: str) -> None:
    def calls_for(count: int) -> int:
        data = [*start, *[middle] * count, *end]
        calls = 0

        def count_one(_: object, event: str, __: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count_one)
        try:
            read = reader.stream(protocol, b"".join(data))
        finally:
            sys.setprofile(None)
        assert read.error is None
        assert len(read.text) > count
        return calls

    pieces, whole = events_of(protocol)
    place = next(number for number, piece in enumerate(pieces) if b"Hell" in piece)
    start, middle, end = pieces[:place], pieces[place], pieces[place:whole]
    if protocol == "openai.responses":  # its end repeats the whole, which must be that
        end = [piece for piece in end if b"response.completed" in piece]
        end = [end[-1].replace(b'"output": [', b'"output": [], "was": [')]
    assert calls_for(4000) / calls_for(2000) < 2.2


def _is_between_events(data: bytes, *, breaks: bool) -> bool:
    """Whether no event was under way where a stream ends; the end mark says nothing more."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    rest = lines.rpartition(b"\n\n")[2].strip()
    if not rest or (len(rest) > len("data: ") and b"data: [DONE]".startswith(rest)):
        return True
    try:  # a body that ended, and did not break off, may lack its last blank line
        json.loads(rest.partition(b"data: ")[2])
    except ValueError:
        return False
    return not breaks


def _escaped(piece: bytes) -> bytes:
    head, found, data = piece.partition(b"data: ")
    if not data.strip().startswith(b"{"):
        return piece
    return head + found + json.dumps(json.loads(data)).encode() + b"\n\n"


def _choice(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return server_sent_event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _told(
    chance: random.Random, index: int, name: str, arguments: dict[str, Any], call_id: str | None
) -> Iterator[dict[str, Any]]:
    """One call in pieces, as one server or another tells it."""
    text = json.dumps(arguments) if arguments or chance.random() < 0.5 else ""
    cut = chance.randint(0, len(text))
    repeats = chance.random() < 0.3  # the name, whole, in every piece
    named = {"name": name}
    first: dict[str, Any] = {"index": index, "function": {**named, "arguments": ""}}
    if call_id is not None:
        first["id"] = f"{call_id}-{index}" if chance.random() < 0.5 else call_id
    yield first
    for piece in (text[:cut], text[cut:]):
        if piece:
            function = {"arguments": piece, **(named if repeats else {})}
            yield {"index": index, "function": function}


def _each_place(value: Any) -> Iterator[Any]:
    """For each place in a value: the event that has another value there."""

    def places(inner: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if isinstance(inner, dict | list):
            for key in inner if isinstance(inner, dict) else range(len(inner)):
                yield (*path, key)
                yield from places(inner[key], (*path, key))

    for path in places(value, ()):

        def change(other: Any, path: tuple[Any, ...] = path) -> bytes:
            copy = json.loads(json.dumps(value))
            inner = copy
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = other
            return b"data: " + json.dumps(copy).encode() + b"\n\n"

        yield change
