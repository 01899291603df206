from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, BeforeValidator, Field

from aether.tools import build_tool
from aether.tools.arguments import copy_arguments


class Unit(enum.Enum):
    CELSIUS = "c"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Place(BaseModel):
    name: str
    rank: int = 0
    near: list[Place] = []


@dataclasses.dataclass
class Span:
    start: int
    end: float = 0.0


@dataclasses.dataclass
class Listed:
    rows: list[list[int]]


@dataclasses.dataclass
class Paired:
    rows: list[tuple[int, bool]]


class Options(TypedDict):
    limit: int


class Measure(TypedDict):
    degrees: float


Pair = tuple[int, bool]


def validate(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    tool = build_tool(function)
    assert tool.validate is not None
    return tool.validate(arguments)


def accept(annotation: Any, value: Any) -> Any:
    def function(value):  # type: ignore[no-untyped-def]  # annotated below
        ...

    function.__annotations__ = {"value": annotation}
    return validate(function, {"value": value})["value"]


def refuse(annotation: Any, value: Any) -> str:
    with pytest.raises(ValueError) as raised:
        accept(annotation, value)
    return str(raised.value)


@pytest.mark.row("T8")
@pytest.mark.parametrize(
    ("annotation", "sent", "given"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (int, 10**30, 10**30),
        (float, 3, 3.0),
        (float, "0.5", 0.5),
        (bool, True, True),
        (bool, "false", False),
        (bool, 1, True),
        (str, "3", "3"),
        (int | None, None, None),
        (int | str, "3", "3"),
        (int | bool, True, True),
        (Any, True, True),
        (Literal["a", 1], 1, 1),
        (list[int], ["1", 2], [1, 2]),
        (set[int], [1, 1], {1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Pair, [1, True], (1, True)),
        (dict[str, bool], {"a": True}, {"a": True}),
        (Unit, "c", Unit.CELSIUS),
        (datetime, "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - as sent
        (Place, {"name": "x", "rank": "2"}, Place(name="x", rank=2)),
        (Span, {"start": 1, "end": 2}, Span(1, 2.0)),
        (Options, {"limit": "3"}, {"limit": 3}),
        (list[int] | list[bool], [True], [True]),
        (list[float] | tuple[Literal[1], bool], [1, False], (1, False)),
        (Listed | Paired, {"rows": [[0, False]]}, Paired([(0, False)])),
        (Listed | Paired, {"rows": [[0, 1]]}, Listed([[0, 1]])),
        (Literal[True, "a"], True, True),
    ],
    ids=str,
)
def test_arguments_are_coerced_to_the_annotated_types(
    annotation: Any, sent: Any, given: Any
) -> None:
    accepted = accept(annotation, sent)

    assert accepted == given
    assert type(accepted) is type(given)


@pytest.mark.row("T8")
@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (int, "three"),
        (int, 3.5),
        (int, None),
        (int, [3]),
        (int, math.nan),
        (int, "9" * 5000),
        (float, math.nan),
        (float, math.inf),
        (float, "nan"),
        (float, 10**400),
        (list[float], ["inf"]),
        (Span, {"start": 1, "end": "nan"}),
        (Measure, {"degrees": "nan"}),
        (list[Measure], [{"degrees": "inf"}]),
        (str, 3),
        (str, None),
        (list[int], "12"),
        (Unit, "k"),
        (Literal["a"], "b"),
        (Literal[1], True),
        (Annotated[int, Field(ge=1)], 0),
        (Place, {"rank": 1}),
        (Span, {"start": 1, "more": 2}),
        (Options, {"limit": 1, "more": 2}),
    ],
    ids=str,
)
def test_what_is_not_of_the_type_is_refused(annotation: Any, sent: Any) -> None:
    assert refuse(annotation, sent).startswith("value")


@pytest.mark.row("T8")
@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (int, True),
        (float, False),
        (int | None, True),
        (int | str, True),
        (Level, True),
        (list[int], [1, True]),
        (set[float], [True]),
        (tuple[int, ...], [True]),
        (Pair, [True, True]),
        (dict[str, int], {"a": 1, "b": False}),
        (dict[str, list[int]], {"a": [True]}),
        (Span, {"start": True}),
        (Options, {"limit": True}),
        (list[Options], [{"limit": 1}, {"limit": True}]),
        (Place, {"name": "x", "rank": True}),
        (Place, {"name": "x", "near": [{"name": "y", "near": [{"name": "z", "rank": True}]}]}),
        (Place | None, {"name": "x", "rank": True}),
        (int | list[int], [True]),
        (Literal[1, "a"], True),
        (list[Literal[0, "a"]], [False]),
        (Mixed, True),
        (dict[str, int] | dict[str, bool], {"a": True, "b": 2}),
        (list[float] | tuple[Literal[2], bool], [1, False]),
        (Literal[1, 2] | bool, True),  # pydantic takes `True` for the 1
        (Listed | Paired, {"rows": [[True, 0]]}),
    ],
    ids=str,
)
def test_a_boolean_is_no_number_at_any_depth(annotation: Any, sent: Any) -> None:
    refuse(annotation, sent)


@pytest.mark.row("T8")
def test_a_boolean_is_no_number_among_extra_arguments() -> None:
    def function(**rest: int) -> None: ...

    assert validate(function, {"a": "1"}) == {"a": 1}
    with pytest.raises(ValueError, match="a: has a boolean"):
        validate(function, {"a": True})


@pytest.mark.row("T8")
def test_unknown_arguments_are_refused_unless_the_function_takes_them() -> None:
    def closed(city: str, days: int = 1) -> None: ...
    def open_(city: str, **rest: Any) -> None: ...

    with pytest.raises(ValueError, match="contry: is unknown; the tool takes city, days"):
        validate(closed, {"city": "x", "contry": "y"})
    assert validate(open_, {"city": "x", "contry": "y"}) == {"city": "x", "contry": "y"}


@pytest.mark.row("T8")
def test_the_message_names_every_argument_that_is_wrong() -> None:
    def function(city: str, days: int, span: Span, limit: int = 3) -> None: ...

    with pytest.raises(ValueError) as raised:
        validate(function, {"days": "two", "span": {"end": 1}, "limit": None})

    assert str(raised.value) == (
        "city: is required but missing; "
        "days: Input should be a valid integer, unable to parse string as an integer, got 'two'; "
        "span.start: is required but missing; "
        "limit: Input should be a valid integer, got null"
    )


def test_the_message_is_short_and_without_addresses() -> None:
    def function(values: list[int]) -> None: ...

    with pytest.raises(ValueError) as raised:
        validate(function, {"values": ["x" * 10_000] * 1000})

    message = str(raised.value)
    assert len(message) < 2000
    assert "and 990 more" in message
    assert "values[0]" in message
    assert "http" not in message


def test_defaults_are_filled_in_and_not_shared() -> None:
    def function(tags: list[str] = []) -> None:  # noqa: B006 - the point
        ...

    first = validate(function, {})
    first["tags"].append("x")

    assert validate(function, {}) == {"tags": []}


def test_an_authors_own_validator_is_used() -> None:
    def words(value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    def function(words: Annotated[list[str], BeforeValidator(words)]) -> None: ...

    assert validate(function, {"words": "a b"}) == {"words": ["a", "b"]}


@pytest.mark.row("T16")
def test_a_copy_shares_nothing_with_the_original() -> None:
    original = {"a": [1, {"b": [2.5, True, None]}], "c": Span(1)}

    copied = copy_arguments(original)

    assert copied == original
    assert copied["a"] is not original["a"]
    assert copied["a"][1]["b"] is not original["a"][1]["b"]  # type: ignore[index]  # built above
    assert copied["c"] is not original["c"]


@pytest.mark.row("T7")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": math.inf}])
def test_numbers_that_json_does_not_have_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no number"):
        copy_arguments({"a": value})


@pytest.mark.row("T7")
def test_what_is_nested_too_deeply_is_refused() -> None:
    fine: Any = 1
    for _ in range(63):
        fine = [fine]
    too_deep = [fine]

    assert copy_arguments({"a": fine}) == {"a": fine}
    with pytest.raises(ValueError, match="64 levels"):
        copy_arguments({"a": too_deep})
    bottomless: dict[str, Any] = {}
    bottomless["again"] = bottomless
    with pytest.raises(ValueError, match="64 levels"):
        copy_arguments(bottomless)
