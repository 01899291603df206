"""An event that repeats an earlier one but for its text: only that is read, and never wrongly."""

from __future__ import annotations

import json
from itertools import product

import pytest

from aether.extensions.llm._wire.large_json import ReadDocument
from aether.extensions.llm._wire.repetition import Repetition


def event(written_text: str, more: str = "", before: str = "") -> bytes:
    return f'{{"id": 7, {before}"say": {written_text}, "end": null{more}}}'.encode()


def shown(*events: tuple[bytes, str]) -> Repetition:
    repetition = Repetition(b'"say"')
    for data, text in events:
        repetition.show(data, text)
    return repetition


def read(repetition: Repetition, data: bytes) -> str | None:
    return repetition.read(data) if repetition.is_known else None


def learnt() -> Repetition:
    return shown((event('"one"'), "one"), (event('"two"'), "two"))


@pytest.mark.parametrize(
    "text", ["two", "", " ", 'a "quote"\\', "\n\t\0", "söme 😀", '","end":1,"say":"']
)
@pytest.mark.parametrize("in_ascii", [True, False])
def test_the_text_alone_is_read(text: str, in_ascii: bool) -> None:
    assert read(learnt(), event(json.dumps(text, ensure_ascii=in_ascii))) == text


@pytest.mark.parametrize(
    "data",
    [
        event('"two"', ', "end": 1'),
        event('"two"', ', "say": "three"'),
        event('"two", "end": 1, "say": "three"'),
        event('"two"').replace(b"7", b"8"),
        event("null"),
        event("5"),
        event('["two"]'),
        event(""),
        event('"two'),
        event('"\\ud800"'),
        event('"\\x"'),
        event('"\n"'),
        event('"two"')[:-1],
        event('"two"').replace(b"two", b"\xff"),
        b'{"id": 7, "say": , "end": null}',
        b'{"id": 7, "say": ',
        b', "end": null}',
        b"",
    ],
)
def test_of_any_other_event_nothing_is_read(data: bytes) -> None:
    assert read(learnt(), data) is None


def test_nor_of_one_of_which_only_the_beginning_is_left() -> None:
    assert read(learnt(), ReadDocument(event('"two"'))) is None


def test_nor_is_such_a_one_an_example() -> None:
    beginnings = [(ReadDocument(event(f'"{text}"')), text) for text in ("one", "two")]
    assert read(shown(*beginnings), event('"three"')) is None


def test_nor_where_the_sides_of_the_text_overlap() -> None:
    repetition = shown((b'{"say":"a"}', "a"), (b'{"say":"b"}', "b"))
    assert read(repetition, b'{"say":"c"}') == "c"
    assert read(repetition, b'{"say":}') is None
    assert read(repetition, b'{"say":') is None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (event('"one"'), event('"two"', ', "more": 1')),
        (event('"one"'), event('"two"').replace(b"7", b"8")),
        (event('"one"', ', "s\\u0061y": "one"'), event('"one"', ', "s\\u0061y": "two"')),
        (event('["one"]'), event('["two"]')),
        (event('"one\\"').replace(b'", "end', b'"", "end'), event('"two"')),
        (b'{"say" : "one"}', b'{"say" : "two"}'),
        (b'{"said": "one"}', b'{"said": "two"}'),
        (b"", b""),
    ],
)
def test_nothing_is_known_of_events_that_differ_in_more_or_elsewhere(
    one: bytes, two: bytes
) -> None:
    repetition = shown((one, "one"), (two, "two"))
    assert not any(
        read(repetition, data.replace(old, b"three"))
        for data, old in product((one, two), (b"one", b"two", b"other"))
    )


def test_nor_of_events_whose_text_is_elsewhere() -> None:
    """They look as they should, but were read as having one and the same text."""
    assert read(shown((event('"one"'), "x"), (event('"two"'), "x")), event('"three"')) is None


def test_the_events_may_change_while_some_repeat_others() -> None:
    repetition = Repetition(b'"say"')
    for number in range(20):
        for text in ("one", "two"):
            data = event(f'"{text}"', f', "second": {number}')
            assert read(repetition, data) is None
            assert repetition.is_sought
            repetition.show(data, text)
        assert read(repetition, event('"three"', f', "second": {number}')) == "three"


def test_no_more_is_looked_at_where_none_repeats_another() -> None:
    repetition = Repetition(b'"say"')
    for number in range(8):
        assert repetition.is_sought
        repetition.show(event('"one"', f', "number": {number}'), "one")
    assert not repetition.is_sought
    assert not repetition.is_known


def test_a_text_that_ends_in_an_escaped_quote_is_no_example_and_spoils_none() -> None:
    repetition = shown(
        (event('"one"'), "one"), (event('"a \\"b\\""'), 'a "b"'), (event('"two"'), "two")
    )
    assert read(repetition, event('"three"')) == "three"
