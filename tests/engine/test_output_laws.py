"""What holds of every type and every text: values come back, previews grow, junk is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import json
import typing
import uuid
from typing import Any, Literal, NamedTuple

import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model
from pydantic_core import from_json

from aether.engine.output import output_type

# Types are made here while running, which a type checker cannot follow.
List: Any = list
Dict: Any = dict
Tuple: Any = tuple
Set: Any = frozenset
Union: Any = typing.Union
standard_typed_dict: Any = typing.TypedDict
backported_typed_dict: Any = typing_extensions.TypedDict
make_model: Any = create_model
names = st.sampled_from(["value", "a", "title", "type", "properties", "größe", "schema_"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "```", "\n```\n", "1e5", "at: -1", "{", "]", "\U0001f600", "null"]
)


class Case(NamedTuple):
    """A type, and values of it."""

    form: Any
    values: st.SearchStrategy[Any]


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


PLAIN = [
    Case(str, texts),
    Case(int, st.integers()),
    Case(float, st.floats(allow_nan=False, allow_infinity=False)),
    Case(bool, st.booleans()),
    Case(type(None), st.none()),
]
LEAVES = [
    *PLAIN,
    Case(Colour, st.sampled_from(Colour)),
    Case(Literal["x", "y", 1], st.sampled_from(["x", "y", 1])),
    Case(dt.date, st.dates()),
    Case(dt.datetime, st.datetimes()),
    Case(decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3)),
    Case(uuid.UUID, st.uuids()),
    Case(bytes, texts.map(str.encode)),
]


def record(kind: str, fields: dict[str, Case]) -> Case:
    parts: Any = {name: case.form for name, case in fields.items()}
    values = st.fixed_dictionaries({name: case.values for name, case in fields.items()})
    if kind == "typed dictionary":
        return Case(backported_typed_dict("Record", parts), values)
    if kind == "standard typed dictionary":
        return Case(standard_typed_dict("Record", parts), values)
    made: Any
    if kind == "dataclass":
        made = dataclasses.make_dataclass("Record", parts.items())
    else:
        made = make_model("Record", **{name: (part, ...) for name, part in parts.items()})
    return Case(made, values.map(lambda value: made(**value)))


def collections(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    hashable = st.sampled_from(LEAVES)
    return st.one_of(
        inner.map(lambda case: Case(List[case[0]], st.lists(case.values, max_size=3))),
        hashable.map(lambda case: Case(Set[case[0]], st.frozensets(case.values, max_size=3))),
        inner.map(
            lambda case: Case(Dict[str, case[0]], st.dictionaries(texts, case.values, max_size=3))
        ),
        inner.map(lambda case: Case(Union[case[0], None], st.none() | case.values)),
        st.tuples(inner, inner).map(
            lambda pair: Case(
                Tuple[pair[0].form, pair[1].form], st.tuples(pair[0].values, pair[1].values)
            )
        ),
        # Of other types a text does not say which branch it is of.
        st.tuples(*[st.sampled_from(PLAIN)] * 2).map(
            lambda pair: Case(Union[pair[0].form, pair[1].form], pair[0].values | pair[1].values)
        ),
    )


def records(inner: st.SearchStrategy[Case], *kinds: str) -> st.SearchStrategy[Case]:
    fields = st.dictionaries(names, inner, min_size=1, max_size=3)
    return st.builds(record, st.sampled_from(kinds), fields)


nested = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: collections(inner) | records(inner, "dataclass", "model", "typed dictionary"),
    max_leaves=4,
)
# Inside of its own models pydantic refuses the standard library's, before Python 3.12.
cases = (nested | records(nested, "standard typed dictionary")).filter(
    lambda case: case.form is not str  # its text is the value, JSON or not
)
layouts = st.sampled_from(
    ["{}", " \n{}\n", "```json\n{}\n```", "```\n{}```", "\n``` JSON\n{}\n\n```\n"]
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, Any, str]:
    """A type, a value of it, and the value's JSON as a model may write it."""
    case = draw(cases)
    value = draw(case.values)
    kind = output_type(case.form)
    document = json.loads(kind._adapter.dump_json(value, by_alias=True))
    if kind._wrapped:
        document = {"value": document}
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 2]))
    return case.form, value, json.dumps(document, ensure_ascii=ascii_only, indent=indent)


@given(answers(), layouts)
def test_a_value_reads_back_equal(answer: tuple[Any, Any, str], layout: str) -> None:
    form, value, document = answer
    read = output_type(form).read(layout.replace("{}", document))
    assert read == value
    assert type(read) is type(value)


@given(cases)
def test_a_schema_is_of_an_object_and_refers_to_itself_alone(case: Case) -> None:
    schema = output_type(case.form).schema
    assert schema is not None
    assert schema["type"] == "object"
    references = [part["$ref"] for part in parts_of(schema) if isinstance(part.get("$ref"), str)]
    for reference in references:
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


@given(answers(), layouts)
def test_previews_grow_and_end_at_the_value(answer: tuple[Any, Any, str], layout: str) -> None:
    form, _, document = answer
    kind = output_type(form)
    text = layout.replace("{}", document)
    previews = [kind.preview(text[:end]) for end in range(len(text) + 1)]
    for earlier, later in itertools.pairwise(previews):
        assert has_grown(earlier, later)
    whole = from_json(document)
    assert previews[-1] == (whole["value"] if kind._wrapped else whole)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["red", "x", "2020-01-01", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
junk = texts | json_values.map(json.dumps) | json_values.map(lambda value: f"Here: {value}")


@given(cases, junk, layouts)
def test_junk_is_refused_or_is_of_the_type(case: Case, text: str, layout: str) -> None:
    kind = output_type(case.form)
    try:
        read = kind.read(layout.replace("{}", text))
    except ValueError:
        return
    assert kind._adapter.validate_python(read) == read


@given(st.text(max_size=20), layouts, cases)
def test_a_preview_of_any_text_raises_nothing(text: str, layout: str, case: Case) -> None:
    output_type(case.form).preview(layout.replace("{}", text))


def parts_of(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [part for each in schema for part in parts_of(each)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(part for each in schema.values() for part in parts_of(each))]


def has_grown(earlier: Any, later: Any) -> bool:
    if earlier is None:
        return True
    if isinstance(earlier, str):
        return isinstance(later, str) and later.startswith(earlier)
    if isinstance(earlier, list):
        return isinstance(later, list) and all(
            has_grown(one, other) for one, other in zip(earlier, later, strict=False)
        )
    if isinstance(earlier, dict):
        return isinstance(later, dict) and all(
            name in later and has_grown(value, later[name]) for name, value in earlier.items()
        )
    same: bool = type(earlier) is type(later) and earlier == later
    return same
