from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from aether.tools.results import bounded, render_result


class Unit(enum.Enum):
    CELSIUS = "c"


class Word(str, enum.Enum):  # noqa: UP042 - as code older than StrEnum has it
    YES = "yes"


class Level(enum.IntEnum):
    LOW = 1


class Place(BaseModel):
    name: str
    rank: float = 0.5
    since: date | None = None


@dataclasses.dataclass
class Span:
    start: int
    place: Place | None = None
    raw: bytes = b"abc"


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.row("T12")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        ("", ""),
        (Word.YES, "yes"),
        (Unit.CELSIUS, "c"),
        (None, "null"),
        (True, "true"),
        (42, "42"),
        (0.5, "0.5"),
        (Level.LOW, "1"),
        ({"a": [1, "zwölf", None]}, '{"a": [1, "zwölf", null]}'),
        ((1, 2), "[1, 2]"),
        (Point(1, 2), "[1, 2]"),
        ({3, 1, 2}, "[1, 2, 3]"),
        (frozenset({"b", "a"}), '["a", "b"]'),
        (deque([1]), "[1]"),
        ({"a": 1}.keys(), '["a"]'),
        ({"a": 1}.items(), '[["a", 1]]'),
        (OrderedDict(a=1), '{"a": 1}'),
        (
            {1: "a", None: "b", Unit.CELSIUS: "c", (1, 2): "d"},
            '{"1": "a", "null": "b", "c": "c", "[1, 2]": "d"}',
        ),
        (float("nan"), '"NaN"'),
        ([float("inf"), -float("inf")], '["Infinity", "-Infinity"]'),
        (b"abc", '"<3 bytes>"'),
        ({"data": bytearray(5)}, '{"data": "<5 bytes>"}'),
        (memoryview(b"abcd"), '"<4 bytes>"'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05Z"'),
        ([date(2026, 1, 2), timedelta(hours=1)], '["2026-01-02", "PT1H"]'),
        (Decimal("1.50"), '"1.50"'),
        (Path("a"), '"a"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Place(name="x"), '{"name": "x", "rank": 0.5, "since": null}'),
        (Place(name="x", rank=float("nan")), '{"name": "x", "rank": "NaN", "since": null}'),
        (
            [Span(1), 1],
            '[{"start": 1, "place": null, "raw": "<3 bytes>"}, 1]',
        ),
        (SecretStr("key"), '"**********"'),
    ],
    # Neither an address nor the order of a set may be in a test's name: workers compare them.
    ids=lambda each: (
        type(each).__name__ if isinstance(each, memoryview | set | frozenset) else repr(each)
    ),
)
def test_a_value_has_a_text(value: Any, text: str) -> None:
    assert render_result(value) == text


async def _coroutine() -> None: ...


async def _async_generator() -> Any:
    yield 1


def _circular() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


def _deep() -> Any:
    value: Any = Unit.CELSIUS
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.row("T12")
@pytest.mark.parametrize(
    "make",
    [
        lambda: (n for n in range(3)),
        lambda: [iter([1])],
        _coroutine,
        lambda: {"later": _coroutine()},
        _async_generator,
        object,
        lambda: [object()],
        lambda: ValueError("an exception"),
        lambda: int,
        lambda: print,
        lambda: 10**5000,
        _circular,
        _deep,
    ],
)
def test_what_has_no_json_form_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        render_result(make())


@pytest.mark.row("T12")
def test_an_endless_generator_is_refused_unread() -> None:
    def endless() -> Any:
        while True:
            yield 1

    with pytest.raises(TypeError, match="generator is no data"):
        render_result({"numbers": endless()})


def test_a_future_is_refused() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(TypeError, match="no data"):
        render_result([loop.create_future()])
    loop.close()


def test_a_text_of_a_class_of_its_own_becomes_a_plain_one() -> None:
    class Marked(str):
        __slots__ = ()

    assert type(bounded(Marked("a"), 100)) is str
    assert type(bounded(Marked("ä"), 100)) is str


def test_a_text_within_the_limit_is_left_as_it_is() -> None:
    assert bounded("zwölf", 6) == "zwölf"
    assert bounded("a" * 100, 100) == "a" * 100


@pytest.mark.row("T11")
@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("limit", range(80, 84))
def test_a_text_beyond_the_limit_is_cut_between_letters(letter: str, limit: int) -> None:
    cut = bounded(letter * 1000, limit)

    kept, _, rest = cut.partition("\n")
    assert kept == letter * len(kept)
    assert kept
    assert rest.startswith("[truncated: ")
    assert limit - 4 < len(cut.encode()) <= limit


@pytest.mark.row("T12")
def test_half_surrogates_become_question_marks() -> None:
    assert bounded("a\ud800b", 100) == "a?b"


@pytest.mark.row("T11")
@given(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=300), st.integers(80, 200)
)
@settings(deadline=None)
def test_a_cut_text_is_a_valid_prefix_within_the_limit(text: str, limit: int) -> None:
    cut = bounded(text, limit)

    whole = text.encode("utf-8", "replace").decode()
    kept, mark, rest = cut.rpartition("\n[truncated: ")
    assert len(cut.encode()) <= limit
    if mark:
        assert whole.startswith(kept)
        assert rest.startswith(f"{len(text)} characters")
        assert len(whole.encode()) > limit
    else:
        assert cut == whole


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
@settings(deadline=None)
def test_plain_data_comes_back_from_its_json(value: Any) -> None:
    text = render_result(value)

    assert text == value if isinstance(value, str) else json.loads(text) == value
