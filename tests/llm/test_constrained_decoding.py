"""Reading JSON text that comes in pieces: whatever the pieces are, the whole reads the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.extensions.llm._local.decoding import StopFilter, StringDecoder, ValueScanner

ANY_TEXT = st.text(st.characters(codec=None, categories=None))
"""Every code point, halves of surrogate pairs too."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
SPACE = st.text(" \t\r\n", max_size=3)
ESCAPED = st.sampled_from(
    [
        *('\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0041", "\\u00e9", "\\u2028"),
        *("\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\uffff", "x", "é", "😀", " "),
    ]
)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def as_utf8(text: str) -> str:
    """What UTF-8 can hold of a string: a lone half of a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def decode(parts: list[str]) -> str:
    decoder = StringDecoder()
    decoded = "".join(decoder.feed(part) for part in parts)
    assert decoder.is_closed
    return decoded


@given(st.lists(ESCAPED), st.lists(st.integers(0)))
def test_string_reads_like_json_however_it_is_cut(parts: list[str], cuts: list[int]) -> None:
    written = '"' + "".join(parts) + '"'
    assert decode(pieces(written, cuts)) == as_utf8(json.loads(written))


@given(ANY_TEXT, st.booleans(), st.lists(st.integers(0)))
def test_any_string_comes_back(text: str, ascii_only: bool, cuts: list[int]) -> None:
    if not ascii_only:
        text = as_utf8(text)
    written = json.dumps(text, ensure_ascii=ascii_only)
    assert decode(pieces(written, cuts)) == as_utf8(text)


@pytest.mark.parametrize(
    "written",
    [
        r'"a\"b\\c\/d\n\u0041"',
        r'"\ud83d\ude00"',
        r'"\ud83d\ud83d\ude00"',
        r'"\ud83dx"',
        r'"\ude00\ud83d"',
        r'"\ud83d\n"',
        '"😀é"',
        '""',
    ],
)
def test_string_reads_the_same_at_every_splitting_in_three(written: str) -> None:
    expected = as_utf8(json.loads(written))
    for first in range(len(written) + 1):
        for second in range(first, len(written) + 1):
            assert decode([written[:first], written[first:second], written[second:]]) == expected


def test_string_decodes_as_far_as_it_has_come() -> None:
    decoder = StringDecoder()
    assert decoder.feed(' "Hel') == "Hel"
    assert decoder.feed("lo\\") == "lo"
    assert decoder.feed("u00e9\\ud83d") == "é"
    assert not decoder.is_closed
    assert decoder.feed('\\ude00"}ignored"') == "😀"
    assert decoder.is_closed


def test_broken_escape_is_no_builtin_error() -> None:
    assert decode([r'"\u12zz\q"']) == "\ufffdq"


@given(VALUES, SPACE, st.sampled_from(["", "}", " }", ", 1", "]"]), st.lists(st.integers(0)))
def test_value_is_taken_without_what_surrounds_it(
    value: Any, space: str, after: str, cuts: list[int]
) -> None:
    written = json.dumps(value)
    scanner = ValueScanner()
    taken = "".join(scanner.feed(part) for part in pieces(space + written + after, cuts))
    assert taken == written
    assert scanner.is_closed or not after


@pytest.mark.parametrize("written", ["{}", '{"a": [1, "}"]}', "[]", '"a\\"b"', '""'])
def test_value_with_a_closing_mark_is_closed_by_it(written: str) -> None:
    scanner = ValueScanner()
    assert scanner.feed(written[:-1]) == written[:-1]
    assert not scanner.is_closed
    assert scanner.feed(written[-1]) == written[-1]
    assert scanner.is_closed


STOPS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=3)


@given(st.text("abc", max_size=20), STOPS, st.lists(st.integers(0)))
def test_text_ends_before_the_first_stop_however_it_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stopping = StopFilter(stops)
    passed = "".join(stopping.feed(part) for part in pieces(text, cuts)) + stopping.end()
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert stopping.is_stopped == bool(found)
    # Cut in pieces, a stop that ends earlier is seen before a longer one that began earlier.
    assert text.startswith(passed)
    assert not any(stop in passed for stop in stops)
    assert len(passed) >= min(found, default=len(text))


def test_beginning_of_a_stop_is_held_back_until_it_is_known() -> None:
    stopping = StopFilter(["END"])
    assert stopping.feed("one E") == "one "
    assert stopping.feed("N") == ""
    assert stopping.feed("X two EN") == "ENX two "
    assert stopping.end() == "EN"
    assert not stopping.is_stopped


def test_without_stops_nothing_is_held_back() -> None:
    assert StopFilter([]).feed("text") == "text"
