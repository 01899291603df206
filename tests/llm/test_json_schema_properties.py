"""Any types, any values: what a provider is asked for is what the caller's type takes, and back."""

from __future__ import annotations

import json
from dataclasses import MISSING, field, make_dataclass
from enum import Enum
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Union

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model
from typing_extensions import TypedDict

from aether.engine.output import output_type
from aether.extensions.llm._wire.json_schema import (
    anthropic_schema,
    gemini_parameters,
    gemini_schema,
    input_schema,
    strict_schema,
)
from tests.llm.schema_rules import (
    check_anthropic,
    check_gemini,
    check_strict,
    fits,
    instances,
)


class Kind(NamedTuple):
    """A type, whether it takes null, and values of it.

    Each value is a pair: as the type takes it, and as strict mode has it, with null for what is
    left out.
    """

    type: Any
    nullable: bool
    values: st.SearchStrategy[tuple[Any, Any]]


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Tree(BaseModel):
    value: int
    branches: list[Tree] = []


class Chain(BaseModel):
    label: str = "-"
    next: Chain | None = None


def of(generic: Any, *arguments: Any) -> Any:
    """The generic type of arguments that only a running test knows."""
    return generic[arguments[0] if len(arguments) == 1 else arguments]


LEFT_OUT = object()
NAMES = ("alpha", "beta", "gamma")
NUMBERS = st.shared(st.builds(count), key="numbers")
"""For the names of classes, by which pydantic's errors tell alternatives apart."""


def twice(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    return values.map(lambda value: (value, value))


def fields_of(fields: dict[str, tuple[Kind, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Objects of these fields, each a kind and the pair that stands for leaving it out."""
    ways = {
        name: kind.values if absent is None else kind.values | st.just((LEFT_OUT, absent[1]))
        for name, (kind, absent) in fields.items()
    }
    return st.fixed_dictionaries(ways).map(
        lambda pairs: (
            {name: pair[0] for name, pair in pairs.items() if pair[0] is not LEFT_OUT},
            {name: pair[1] for name, pair in pairs.items()},
        )
    )


TREES = st.recursive(
    st.integers(0, 3).map(lambda n: ({"value": n}, {"value": n, "branches": None})),
    lambda inner: st.lists(inner, max_size=2).map(
        lambda pairs: (
            {"value": 1, "branches": [pair[0] for pair in pairs]},
            {"value": 1, "branches": [pair[1] for pair in pairs]},
        )
    ),
    max_leaves=4,
)
CHAINS: st.SearchStrategy[tuple[Any, Any]] = st.recursive(
    st.just(({}, {"label": None, "next": None})),
    lambda inner: inner.map(lambda pair: ({"next": pair[0]}, {"label": None, "next": pair[1]})),
    max_leaves=3,
)
SIMPLE = [
    Kind(int, False, twice(st.integers(-3, 3))),
    Kind(float, False, twice(st.floats(-3, 3))),
    Kind(str, False, twice(st.sampled_from(["", "a", "null"]))),
    Kind(bool, False, twice(st.booleans())),
    Kind(None, True, twice(st.none())),
    Kind(Literal["a", 1], False, twice(st.sampled_from(["a", 1]))),
    Kind(of(Literal, "a", None), True, twice(st.sampled_from(["a", None]))),
    Kind(Size, False, twice(st.sampled_from(["s", "l"]))),
    Kind(Tree, False, TREES),
    Kind(Chain, False, CHAINS),
]


@st.composite
def optionals(draw: st.DrawFn, kind: Kind) -> tuple[Any, Any]:
    """A default for a field of the kind, and the pair that stands for leaving the field out."""
    original, strict = draw(kind.values)
    default = TypeAdapter(kind.type).validate_json(json.dumps(original))
    return default, (LEFT_OUT, strict if kind.nullable else None)


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Kind], tag: str | None = None) -> Kind:
    chosen = {name: draw(inner) for name in NAMES[: draw(st.integers(0, 3))]}
    annotations: dict[str, Any] = {}
    fields: dict[str, tuple[Kind, Any]] = {}
    if tag is not None:
        literal = Kind(of(Literal, tag), False, st.just((tag, tag)))
        fields["tag"] = (literal, None)
        annotations["tag"] = (literal.type, draw(st.sampled_from([..., tag])))
    as_dataclass = tag is None and draw(st.booleans())
    for name, kind in chosen.items():
        if draw(st.booleans()):
            fields[name] = (kind, None)
            annotations[name] = (kind.type, ...)
        else:
            default, absent = draw(optionals(kind))
            fields[name] = (kind, absent)
            annotations[name] = (kind.type, default)
    if not as_dataclass:
        return Kind(
            create_model(f"Model{next(draw(NUMBERS))}", **annotations), False, fields_of(fields)
        )
    ordered = sorted(annotations.items(), key=lambda item: item[1][1] is not ...)
    made = make_dataclass(
        f"Data{next(draw(NUMBERS))}",
        [
            (name, kind, field(default_factory=MISSING if value is ... else lambda v=value: v))
            for name, (kind, value) in ordered
        ],
    )
    return Kind(made, False, fields_of(fields))


@st.composite
def typed_dicts(draw: st.DrawFn, inner: st.SearchStrategy[Kind]) -> Kind:
    annotations: dict[str, Any] = {}
    fields: dict[str, tuple[Kind, Any]] = {}
    for name in NAMES[: draw(st.integers(1, 3))]:
        kind = draw(inner)
        optional = not kind.nullable and draw(st.booleans())
        annotations[name] = of(NotRequired, kind.type) if optional else kind.type
        fields[name] = (kind, (LEFT_OUT, None) if optional else None)
    made: Any = TypedDict
    keys = made(f"Keys{next(draw(NUMBERS))}", annotations)
    return Kind(keys, False, fields_of(fields))


@st.composite
def tagged_unions(draw: st.DrawFn, inner: st.SearchStrategy[Kind]) -> Kind:
    one, other = draw(models(inner, "one")), draw(models(inner, "other"))
    union = of(Annotated, of(Union, one.type, other.type), Field(discriminator="tag"))
    return Kind(union, False, one.values | other.values)


def lists(kind: Kind) -> Kind:
    pairs = st.lists(kind.values, max_size=2)
    return Kind(of(list, kind.type), False, pairs.map(transposed))


def couples(kind: Kind) -> Kind:
    pairs = st.lists(kind.values, min_size=2, max_size=2)
    return Kind(of(tuple, kind.type, kind.type), False, pairs.map(transposed))


def transposed(pairs: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def with_null(kind: Kind) -> Kind:
    either = of(Union, kind.type, None)
    return Kind(either, True, kind.values | st.just((None, None)))


def beside_text(kind: Kind) -> Kind:
    either = of(Union, kind.type, str)
    return Kind(either, kind.nullable, kind.values | twice(st.just("text")))


@st.composite
def unions(draw: st.DrawFn, inner: st.SearchStrategy[Kind]) -> Kind:
    one, other = draw(inner), draw(inner)
    either = of(Union, one.type, other.type)
    return Kind(either, one.nullable or other.nullable, one.values | other.values)


def grown(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        models(inner),
        typed_dicts(inner),
        tagged_unions(inner),
        inner.map(lists),
        inner.map(couples),
        inner.map(with_null),
        inner.map(beside_text),
    )


CLEAR = st.recursive(st.sampled_from(SIMPLE), grown, max_leaves=5)
"""Types whose values tell which alternative they are of."""
ANY = st.recursive(st.sampled_from(SIMPLE), lambda i: grown(i) | unions(i), max_leaves=5)

some = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def schema_of(kind: Kind) -> dict[str, Any]:
    schema = output_type(kind.type).schema
    assume(schema is not None)  # a text is written as it is
    assert schema is not None
    return schema


def strictly(kind: Kind) -> dict[str, Any]:
    strict = strict_schema(schema_of(kind))
    assert strict is not None
    check_strict(strict)
    return strict


def read(kind: Kind, answer: Any) -> Any:
    return output_type(kind.type).read(json.dumps(answer))


def answer_of(kind: Kind, value: Any) -> Any:
    """The value as the schema has it: below the root's only property if the type is no object."""
    return {"value": value} if schema_of(kind)["properties"].keys() == {"value"} else value


@some
@given(ANY, st.data())
def test_what_strict_mode_allows_is_taken_by_the_type(kind: Kind, data: st.DataObject) -> None:
    strict = strictly(kind)
    read(kind, data.draw(instances(strict, strict)))


@some
@given(CLEAR, st.data())
def test_what_the_type_takes_comes_through_strict_mode(kind: Kind, data: st.DataObject) -> None:
    strict = strictly(kind)
    value, written = data.draw(kind.values)
    answer = answer_of(kind, written)
    assert fits(answer, strict, strict)
    whole = TypeAdapter(kind.type).validate_json(json.dumps(value))
    assert read(kind, answer) == whole


@some
@given(ANY, st.data())
def test_anthropic_and_the_type_take_the_same(kind: Kind, data: st.DataObject) -> None:
    schema = anthropic_schema(schema_of(kind))
    assume(schema is not None)
    assert schema is not None
    check_anthropic(schema)
    value, _ = data.draw(kind.values)
    assert fits(answer_of(kind, value), schema, schema)
    answer = data.draw(instances(schema, schema))
    if "prefixItems" not in json.dumps(schema):
        read(kind, answer)


@some
@given(ANY, st.data())
def test_gemini_takes_what_the_type_takes(kind: Kind, data: st.DataObject) -> None:
    schema = gemini_schema(schema_of(kind))
    assert schema is not None
    check_gemini(schema)
    value, _ = data.draw(kind.values)
    assert fits(answer_of(kind, value), schema, schema)


WORDS = st.sampled_from(["string", "integer", "object", "array", "null", "a", "#", "#/$defs/a"])
KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "required", "additionalProperties", "items", "prefixItems"),
        *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "enum", "const", "default"),
        *("format", "pattern", "minItems", "maxItems", "discriminator", "propertyName"),
        *("title", "description", "not", "a"),
    ]
)
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)
PLAUSIBLE = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"const": "a"}, {"$ref": "#/$defs/a"}, {"$ref": "#"}]),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": WORDS},
            optional={
                "properties": st.dictionaries(WORDS, inner, max_size=2) | NONSENSE,
                "$defs": st.dictionaries(st.just("a"), inner) | NONSENSE,
                "required": st.lists(WORDS, max_size=2) | NONSENSE,
                "anyOf": st.lists(inner, max_size=2) | NONSENSE,
                "allOf": st.lists(inner, max_size=2) | NONSENSE,
                "items": inner | NONSENSE,
                "enum": NONSENSE,
                "format": NONSENSE,
                "discriminator": NONSENSE,
            },
        )
        | st.fixed_dictionaries({"oneOf": st.lists(inner, max_size=3)})
    ),
    max_leaves=8,
)


@settings(some, max_examples=200)
@given(NONSENSE | PLAUSIBLE)
def test_nonsense_is_refused_and_never_an_accident(schema: Any) -> None:
    strict = strict_schema(schema)
    if strict is not None:
        check_strict(strict)
    anthropic_schema(schema)
    gemini_schema(schema)
    if isinstance(schema, dict):
        input_schema(schema)
        gemini_parameters(schema)
