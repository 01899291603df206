"""Schemas in the subsets that providers take: what is rewritten, told, refused and mapped back."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NotRequired, Optional

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from aether.extensions.llm._wire.json_schema import (
    StrictSchema,
    anthropic_schema,
    gemini_parameters,
    gemini_schema,
    input_schema,
    strict_schema,
    within_anthropic_limits,
    wrapped,
)
from aether.tools.schema import build_tool
from tests.llm.schema_rules import check_anthropic, check_gemini, check_strict

Schema = dict[str, Any]
MIXED = Literal["a", 1, None]  # noqa: PYI061 - one enum with null in it, no alternative


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(BaseModel):
    x: int
    y: int = 0


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog", "puppy"] = "dog"
    name: Optional[str] = None  # noqa: UP045 - as users write it


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Link(BaseModel):
    next: Link | None


@dataclass
class Place:
    name: str
    tags: list[str] = field(default_factory=list)


class Film(TypedDict):
    title: str
    year: NotRequired[int]
    rating: NotRequired[int | None]


def schema_of(kind: Any) -> Schema:
    return TypeAdapter(kind).json_schema()


def strict(kind: Any) -> StrictSchema:
    found = strict_schema(schema_of(kind))
    assert found is not None
    return found


def model(**fields: Any) -> type[BaseModel]:
    """A model with these annotations, each with a default where it is a pair."""
    namespace = {
        "__annotations__": {k: v[0] if isinstance(v, tuple) else v for k, v in fields.items()}
    }
    defaults = {k: v[1] for k, v in fields.items() if isinstance(v, tuple)}
    return type("Model", (BaseModel,), {"__module__": __name__, **namespace, **defaults})


def object_of(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


INTEGER = {"type": "integer"}
STRING = {"type": "string"}
NULL = {"type": "null"}


# OpenAI's strict mode


def test_objects_are_closed_and_require_all_their_properties() -> None:
    assert strict(Point).schema == {
        "type": "object",
        "title": "Point",
        "properties": {
            "x": {"type": "integer", "title": "X"},
            "y": {
                "anyOf": [INTEGER, NULL],
                "title": "Y",
                "description": "(default: 0)",
            },
        },
        "required": ["x", "y"],
        "additionalProperties": False,
    }


def test_null_for_an_optional_property_means_that_it_was_left_out() -> None:
    point = strict(Point)
    assert point.restore({"x": 1, "y": None}) == {"x": 1}
    assert point.restore({"x": 1, "y": 2}) == {"x": 1, "y": 2}
    assert Point.model_validate(point.restore({"x": 1, "y": None})) == Point(x=1, y=0)
    with pytest.raises(ValidationError):
        Point.model_validate({"x": 1, "y": None})


def test_null_stays_where_the_property_takes_it() -> None:
    film = strict(Film)
    answer = {"title": "M", "year": None, "rating": None}
    assert film.restore(answer) == {"title": "M", "rating": None}
    optional = strict(model(a=(int | None, 5), b=(Literal["x"] | None, "x")))
    assert optional.restore({"a": None, "b": None}) == {"a": None, "b": None}


def test_nulls_are_dropped_at_any_depth_and_nothing_else_is() -> None:
    kind = list[Place] | dict[Literal["a"], int]
    assert strict_schema(wrapped(schema_of(kind)).schema) is None
    places = strict(model(places=list[Place], first=tuple[Place, Place], other=(Place | int, 1)))
    empty, full = {"name": "a", "tags": None}, {"name": "b", "tags": ["t"]}
    answer = {"places": [empty, full], "first": [empty, empty], "other": empty}
    before = copy.deepcopy(answer)
    restored = places.restore(answer)
    assert restored["places"] == [{"name": "a"}, full]
    assert restored["first"] == [{"name": "a"}, {"name": "a"}]
    assert restored["other"] == {"name": "a"}
    assert answer == before


def test_the_branch_that_the_value_fits_is_followed() -> None:
    class Optionally(BaseModel):
        kind: Literal["o"]
        note: str = ""

    class Nullably(BaseModel):
        kind: Literal["n"]
        note: str | None

    both = strict(model(either=Optionally | Nullably))
    assert both.restore({"either": {"kind": "o", "note": None}}) == {"either": {"kind": "o"}}
    nullably = {"either": {"kind": "n", "note": None}}
    assert both.restore(nullably) == nullably


def test_true_is_no_one_among_constants() -> None:
    class One(BaseModel):
        kind: Literal[1]
        note: str | None

    class True_(BaseModel):  # noqa: N801
        kind: Literal[True]
        note: str = ""

    both = strict(model(either=One | True_))
    assert both.restore({"either": {"kind": True, "note": None}}) == {"either": {"kind": True}}


def restored(value: Any, *branches: Schema) -> Any:
    found = strict_schema(object_of(a={"anyOf": list(branches)}))
    assert found is not None
    return found.restore({"a": value})["a"]


def test_a_branch_must_name_all_that_the_value_has() -> None:
    optionally = {**object_of(n=INTEGER), "required": []}
    nullably = object_of(n={"type": ["integer", "null"]}, m=INTEGER)
    assert restored({"n": None, "m": 1}, optionally, nullably) == {"n": None, "m": 1}
    assert restored({"n": None}, optionally, nullably) == {}


def test_a_branch_must_have_the_length_of_the_value() -> None:
    optionally = {**object_of(n=INTEGER), "required": []}
    nullably = object_of(n={"type": ["integer", "null"]})
    one = {"type": "array", "items": optionally, "maxItems": 1}
    several = {"type": "array", "items": nullably, "minItems": 2}
    assert restored([{"n": None}], several, one) == [{}]
    assert restored([{"n": None}] * 2, one, several) == [{"n": None}] * 2


def test_constants_without_null_take_none_whatever_the_type_says() -> None:
    closed = {"type": ["string", "null"], "enum": ["a"]}
    assert restored({"n": None}, {**object_of(n=closed), "required": []}) == {}


def test_alternatives_within_alternatives_are_told_apart_once() -> None:
    def branch(kind: str) -> Schema:
        either = {"anyOf": [{"$ref": "#/$defs/Either"}, NULL]}
        return object_of(child=either, v={"type": kind})

    either = {"anyOf": [{"$ref": "#/$defs/Text"}, {"$ref": "#/$defs/Number"}]}
    definitions = {"Either": either, "Text": branch("string"), "Number": branch("integer")}
    found = strict_schema({**object_of(a={"$ref": "#/$defs/Either"}), "$defs": definitions})
    assert found is not None
    value: Any = None
    for _ in range(35):  # tried twice at each level, this would not end
        value = {"child": value, "v": 1}
    assert found.restore({"a": value}) == {"a": value}


def test_a_value_that_does_not_fit_is_left_to_the_caller() -> None:
    point = strict(Point)
    values: list[Any] = [None, 1, "text", [], {"x": "no", "y": 1}, {"z": None}]
    for value in values:
        assert point.restore(value) == value
    assert point.restore({"x": "no", "y": None}) == {"x": "no"}


def test_text_is_restored_and_kept_letter_by_letter_where_nothing_changes() -> None:
    point = strict(Point)
    assert point.restore_text('{"x": 1, "y": null}') == '{"x": 1}'
    for text in ('{"x" : 1.0,"y":2}', "no JSON", "", '{"x": 1', "[" * 100_000):
        assert point.restore_text(text) == text
    assert strict(Place).restore_text('{"name": "é", "tags": null}') == '{"name": "é"}'


def test_tools_of_functions_are_strict() -> None:
    def book(town: str, nights: int = 1, *, breakfast: bool = True) -> None:
        """Book."""

    tool = build_tool(book)
    found = strict_schema(tool.parameters)
    assert found is not None
    assert found.schema["required"] == ["town", "nights", "breakfast"]
    arguments = found.restore({"town": "Rome", "nights": None, "breakfast": False})
    assert arguments == {"town": "Rome", "breakfast": False}


def test_a_function_without_parameters_is_strict() -> None:
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    found = strict_schema(empty)
    assert found is not None
    assert found.schema == empty


def test_discriminated_unions_are_alternatives_whose_tags_are_always_written() -> None:
    tagged = Annotated[Cat | Dog, Field(discriminator="kind")]
    found = strict(model(pet=tagged))
    assert found.schema["properties"]["pet"]["anyOf"] == [
        {"$ref": "#/$defs/Cat"},
        {"$ref": "#/$defs/Dog"},
    ]
    dog = found.schema["$defs"]["Dog"]["properties"]["kind"]
    assert dog["enum"] == ["dog", "puppy"]
    assert "anyOf" not in dog
    answer = {"pet": {"kind": "puppy", "name": None}}
    assert found.restore(answer) == answer
    cat = {"pet": {"kind": "cat", "lives": None}}
    assert found.restore(cat) == {"pet": {"kind": "cat"}}


def test_a_constant_that_is_the_default_is_simply_written() -> None:
    kind = strict(model(kind=(Literal["a"], "a"))).schema["properties"]["kind"]
    assert kind["const"] == "a"
    assert "anyOf" not in kind


@pytest.mark.parametrize(
    ("branches", "fits"),
    [
        ([STRING, INTEGER], True),
        ([INTEGER, {"type": "number"}], False),
        ([{"const": "a"}, {"enum": ["b", "c"]}], True),
        ([{"const": "a"}, {"enum": ["a", "c"]}], False),
        ([object_of(k={"const": 1}), object_of(k={"const": 2})], True),
        ([object_of(k={"const": 1}), object_of(k=INTEGER)], False),
        ([object_of(a=INTEGER), object_of(b=INTEGER)], False),
        ([{**object_of(k={"const": 1}), "required": []}, object_of(k={"const": 2})], False),
    ],
)
def test_exclusive_alternatives_are_taken_where_they_exclude_one_another(
    branches: list[Schema], fits: bool
) -> None:
    found = strict_schema(object_of(a={"oneOf": branches}))
    assert (found is not None) is fits


def test_recursive_models_refer_to_themselves() -> None:
    node = strict(Node)
    assert node.schema["properties"]["children"]["anyOf"][0]["items"] == {"$ref": "#/$defs/Node"}
    answer = {"value": 1, "children": [{"value": 2, "children": None}]}
    assert node.restore(answer) == {"value": 1, "children": [{"value": 2}]}
    chain: Any = None
    for _ in range(60):
        chain = {"next": chain}
    assert strict(Link).restore(chain) == chain


def test_a_reference_with_siblings_is_written_out() -> None:
    found = strict(model(point=Annotated[Point, Field(description="Where.")]))
    point = found.schema["properties"]["point"]
    assert point["description"] == "Where."
    assert point["required"] == ["x", "y"]
    assert "$defs" not in found.schema


def test_an_optional_reference_is_described_beside_it() -> None:
    found = strict(model(point=(Annotated[Point, Field(description="Where.")], Point(x=1))))
    assert found.schema["properties"]["point"] == {
        "anyOf": [{"$ref": "#/$defs/Point"}, NULL],
        "description": 'Where.\n(default: {"x": 1, "y": 0})',
    }


def test_references_that_are_described_in_a_circle_end() -> None:
    looping = {
        "$defs": {"A": object_of(b={"$ref": "#/$defs/B", "description": "b"})},
        **object_of(a={"$ref": "#/$defs/A", "description": "a"}),
    }
    looping["$defs"]["B"] = object_of(a={"$ref": "#/$defs/A", "description": "a"})
    found = strict_schema(looping)
    assert found is not None
    check_strict(found.schema)
    assert strict_schema({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}) is None


def test_definitions_get_plain_names() -> None:
    definitions = {"a/b": STRING, "a b": INTEGER, "definition": {"type": "boolean"}}
    references = ["#/$defs/a~1b", "#/$defs/a%20b", "#/definitions/c"]
    found = strict_schema(
        {
            **object_of(**{name: {"$ref": name} for name in references}),
            "$defs": definitions,
            "definitions": {"c": NULL},
        }
    )
    assert found is not None
    properties = found.schema["properties"]
    meant = [found.schema["$defs"][properties[name]["$ref"][8:]] for name in references]
    assert meant == [STRING, INTEGER, NULL]


def test_single_all_of_is_unwrapped_and_several_are_refused() -> None:
    found = strict_schema(object_of(a={"allOf": [INTEGER], "description": "A."}))
    assert found is not None
    assert found.schema["properties"]["a"] == {"type": "integer", "description": "A."}
    assert strict_schema(object_of(a={"allOf": [INTEGER, {"minimum": 1}]})) is None
    assert strict_schema(object_of(a={"allOf": [INTEGER], "type": "string"})) is None


def test_bounds_are_kept_where_strict_mode_knows_them_and_told_otherwise() -> None:
    properties = strict(
        model(
            number=Annotated[int, Field(ge=1, lt=5, multiple_of=2)],
            word=Annotated[str, Field(min_length=2, pattern="^a+$", description="A word.")],
            look=Annotated[str, Field(json_schema_extra={"pattern": "^(?!a)"})],
            items=Annotated[list[int], Field(min_length=1)],
            unique=set[int],
            url=AnyUrl,
            day=date,
            time=timedelta,
        )
    ).schema["properties"]
    assert properties["number"] == {
        "type": "integer",
        "title": "Number",
        "minimum": 1,
        "exclusiveMaximum": 5,
        "multipleOf": 2,
    }
    assert properties["word"] == {
        "type": "string",
        "title": "Word",
        "pattern": "^a+$",
        "description": "A word.\n(minLength: 2)",
    }
    assert properties["look"]["description"] == '(pattern: "^(?!a)")'
    assert properties["items"]["minItems"] == 1
    assert properties["unique"]["description"] == "(uniqueItems: true)"
    assert properties["url"]["description"] == '(format: "uri"; minLength: 1)'
    assert [properties[name]["format"] for name in ("day", "time")] == ["date", "duration"]


def test_bounds_of_other_types_say_nothing_and_go() -> None:
    found = strict_schema(object_of(a={"type": "integer", "pattern": "a", "items": {}}))
    assert found is not None
    assert found.schema["properties"]["a"] == INTEGER


def test_constants_have_a_type() -> None:
    properties = strict(model(mixed=MIXED, colour=Colour, level=Level, yes=Literal[True])).schema[
        "properties"
    ]
    assert properties["mixed"]["type"] == ["string", "integer", "null"]
    assert properties["mixed"]["enum"] == ["a", 1, None]
    assert properties["yes"]["const"] is True


def test_tuples_of_one_type_are_arrays_of_a_length() -> None:
    pair = strict(model(pair=tuple[int, int])).schema["properties"]["pair"]
    assert pair == {
        "type": "array",
        "items": INTEGER,
        "title": "Pair",
        "minItems": 2,
        "maxItems": 2,
    }


@pytest.mark.parametrize(
    "kind",
    [
        dict[str, int],
        model(a=dict),
        model(a=dict[str, int]),
        model(a=Any),
        model(a=list),
        model(a=tuple[int, str]),
        list[int],
        Point | Cat,
        type("Open", (BaseModel,), {"model_config": ConfigDict(extra="allow")}),
    ],
)
def test_what_strict_mode_cannot_say_is_not_strict(kind: Any) -> None:
    assert strict_schema(schema_of(kind)) is None


@pytest.mark.parametrize(
    "schema",
    [
        [],
        True,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}, "required": ["z"]},
        {"type": "object", "properties": {"a": True}},
        object_of(a={"$ref": "#/$defs/none"}),
        object_of(a={"$ref": "https://example.org/schema"}),
        object_of(a={"type": "string", "not": {"const": ""}}),
        object_of(a={"anyOf": [STRING, INTEGER], "type": "string"}),
        object_of(a={"anyOf": [object_of(b=STRING)], "required": ["b"]}),
        object_of(a={"anyOf": []}),
        object_of(a={"enum": [{}]}),
        {**object_of(a=STRING), "patternProperties": {"x": {}}},
    ],
)
def test_schemas_without_a_strict_form_are_not_strict(schema: Any) -> None:
    assert strict_schema(schema) is None


def nested(levels: int, **inner: Schema) -> Schema:
    schema = object_of(**inner)
    for _ in range(levels - 1):
        schema = object_of(a=schema)
    return schema


def chained(length: int) -> Schema:
    definitions = {
        f"d{n}": {"$ref": f"#/$defs/d{n + 1}", "description": "d"} for n in range(length)
    }
    return {**object_of(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, f"d{length}": STRING}}


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (nested(10, a=STRING), True),
        (nested(11, a=STRING), False),
        (nested(3000, a=STRING), False),
        (chained(5000), False),
        (object_of(**{f"p{n}": INTEGER for n in range(5000)}), True),
        (object_of(**{f"p{n}": INTEGER for n in range(5001)}), False),
        (object_of(a={"enum": list(range(1000))}), True),
        (object_of(a={"enum": list(range(1001))}), False),
        (object_of(a={"enum": [f"{n:060}" for n in range(250)]}), True),
        (object_of(a={"enum": [f"{n:060}" for n in range(251)]}), False),
        (object_of(**{f"{n:01000}": INTEGER for n in range(121)}), False),
    ],
)
def test_schemas_beyond_the_limits_are_not_strict(schema: Schema, fits: bool) -> None:
    assert (strict_schema(schema) is not None) is fits


def test_schemas_that_grow_when_written_out_are_given_up() -> None:
    definitions = {
        f"d{n}": object_of(
            a={"$ref": f"#/$defs/d{n + 1}", "description": "a"},
            b={"$ref": f"#/$defs/d{n + 1}", "description": "b"},
        )
        for n in range(30)
    }
    schema = {**object_of(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, "d30": STRING}}
    assert strict_schema(schema) is None
    assert anthropic_schema(schema) is None


def test_schemas_are_not_changed() -> None:
    schema = schema_of(model(node=Node, pet=Annotated[Cat | Dog, Field(discriminator="kind")]))
    before = json.dumps(schema)
    for rewrite in (strict_schema, anthropic_schema, gemini_schema, input_schema, wrapped):
        rewrite(schema)
    assert json.dumps(schema) == before


@pytest.mark.parametrize("rewrite", [anthropic_schema, gemini_schema, strict_schema])
def test_what_a_caller_does_to_a_result_or_a_schema_changes_no_other(rewrite: Any) -> None:
    def written() -> Schema:
        found = rewrite(schema)
        result: Schema = found.schema if isinstance(found, StrictSchema) else found
        return result

    schema = object_of(a=STRING, b=INTEGER)
    first = written()
    first["properties"]["a"]["type"] = "null"
    assert written()["properties"]["a"] == STRING
    schema["properties"] = {"b": INTEGER, "a": STRING}
    assert list(written()["properties"]) == ["b", "a"]


def test_defaults_that_are_no_json_are_told_as_text() -> None:
    found = strict_schema(object_of(a={"type": "string", "default": date(2026, 1, 1)}))
    assert found is not None
    assert found.schema["properties"]["a"]["description"] == '(default: "2026-01-01")'


# Anthropic


def test_anthropic_objects_are_closed_and_bounds_are_told() -> None:
    kind = model(
        word=Annotated[str, Field(min_length=2, pattern="^a", description="A word.")],
        number=Annotated[int, Field(gt=1)],
        few=Annotated[list[int], Field(min_length=1, max_length=3)],
        url=(AnyUrl | None, None),
        colour=Colour,
        pair=tuple[int, str],
    )
    schema = anthropic_schema(schema_of(kind))
    assert schema is not None
    properties = schema["properties"]
    assert properties["word"] == {
        "type": "string",
        "title": "Word",
        "description": 'A word.\n(minLength: 2; pattern: "^a")',
    }
    assert properties["number"]["description"] == "(exclusiveMinimum: 1)"
    assert properties["few"]["minItems"] == 1
    assert properties["few"]["description"] == "(maxItems: 3)"
    assert properties["url"]["anyOf"][0]["format"] == "uri"
    assert properties["pair"]["items"] == {"anyOf": [INTEGER, STRING]}
    assert "prefixItems" in properties["pair"]["description"]
    assert schema["required"] == ["word", "number", "few", "colour", "pair"]
    assert schema["$defs"]["Colour"] == {"enum": ["red", "blue"], "title": "Colour"}
    assert schema["additionalProperties"] is False
    check_anthropic(schema)


def test_anthropic_takes_alternatives_as_any_of() -> None:
    schema = anthropic_schema(
        schema_of(model(pet=Annotated[Cat | Dog, Field(discriminator="kind")]))
    )
    assert schema is not None
    assert "anyOf" in schema["properties"]["pet"]
    overlapping = anthropic_schema(object_of(a={"oneOf": [INTEGER, {"type": "number"}]}))
    assert overlapping is not None


@pytest.mark.parametrize("kind", [Node, Link, model(node=Node), model(a=dict[str, int]), list[int]])
def test_anthropic_has_no_form_for_cycles_mappings_and_other_roots(kind: Any) -> None:
    assert anthropic_schema(schema_of(kind)) is None


def test_tags_are_always_written() -> None:
    schema = schema_of(model(pet=Annotated[Cat | Dog, Field(discriminator="kind")]))
    for rewrite in (anthropic_schema, gemini_schema):
        written = rewrite(schema)
        assert written is not None
        assert written["$defs"]["Dog"]["required"] == ["kind"]
        assert written["$defs"]["Cat"]["required"] == ["kind"]


def test_anthropic_has_no_form_for_the_root_within_itself() -> None:
    assert anthropic_schema({"type": "object", "properties": {"a": {"$ref": "#"}}}) is None


def test_anthropic_limits_count_over_all_schemas_of_a_request() -> None:
    optional = {"type": "object", "properties": {f"p{n}": INTEGER for n in range(24)}}
    one = {"type": "object", "properties": {"p": INTEGER}}
    union = object_of(**{f"p{n}": {"anyOf": [INTEGER, STRING]} for n in range(16)})
    more = object_of(p={"type": ["integer", "string"]})
    written = [anthropic_schema(each) for each in (optional, one, union, more)]
    assert None not in written
    many, few, unions, another = [each for each in written if each is not None]
    assert within_anthropic_limits([many, unions])
    assert not within_anthropic_limits([many, few])
    assert not within_anthropic_limits([unions, another])
    assert within_anthropic_limits([another] * 16)
    assert not within_anthropic_limits([object_of()] * 21)
    properties = {f"p{n}": INTEGER for n in range(25)}
    assert anthropic_schema({"type": "object", "properties": properties}) is None


def test_a_definition_counts_at_each_use() -> None:
    definition = {"type": "object", "properties": {f"p{n}": INTEGER for n in range(9)}}
    uses = {f"u{n}": {"$ref": "#/$defs/d"} for n in range(3)}
    assert anthropic_schema({**object_of(**uses), "$defs": {"d": definition}}) is None


def test_input_schemas_are_objects_and_otherwise_the_same() -> None:
    schema = {
        **object_of(a={"oneOf": [INTEGER]}),
        "additionalProperties": STRING,
        "minProperties": 1,
    }
    assert input_schema(schema) == schema
    assert input_schema({}) == {"type": "object", "properties": {}}
    assert input_schema({"$schema": "http://json-schema.org/draft-07/schema#", **schema}) == schema
    assert input_schema({"$ref": "#/$defs/a", "$defs": {"a": schema}}) == {
        **schema,
        "$defs": {"a": schema},
    }


def test_alternatives_at_the_root_of_a_tool_are_told() -> None:
    schema = {
        **object_of(a=INTEGER, b=INTEGER),
        "oneOf": [{"required": ["a"]}],
        "description": "D.",
    }
    found = input_schema(schema)
    assert "oneOf" not in found
    assert found["description"] == 'D.\n(oneOf: [{"required": ["a"]}])'
    assert found["properties"] == schema["properties"]


# Gemini


def test_gemini_takes_most_of_json_schema() -> None:
    kind = model(
        table=dict[str, int],
        pair=tuple[int, str],
        anything=Any,
        number=Annotated[int, Field(ge=1, le=5)],
        other=int | str | None,
    )
    schema = gemini_schema(schema_of(kind))
    assert schema is not None
    properties = schema["properties"]
    assert properties["table"]["additionalProperties"] == INTEGER
    assert properties["pair"]["prefixItems"] == [INTEGER, STRING]
    assert properties["anything"] == {"title": "Anything"}
    assert properties["number"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 5,
        "title": "Number",
    }
    assert properties["other"]["anyOf"] == [INTEGER, STRING, NULL]


def test_gemini_is_told_what_it_passes_over() -> None:
    kind = model(
        word=Annotated[str, Field(min_length=2)],
        one=Literal["a"],
        yes=Literal[True],
        mixed=MIXED,
        pet=Annotated[Cat | Dog, Field(discriminator="kind")],
    )
    schema = gemini_schema(schema_of(kind))
    assert schema is not None
    properties = schema["properties"]
    assert properties["word"]["description"] == "(minLength: 2)"
    assert properties["one"] == {"type": "string", "enum": ["a"], "title": "One"}
    assert properties["yes"]["description"] == "(enum: [true])"
    enum = {"type": ["string", "integer"], "enum": ["a", 1]}
    assert properties["mixed"]["anyOf"] == [enum, NULL]
    assert properties["pet"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    open_ended = {"type": "object", "patternProperties": {"^a": INTEGER}, "not": {"const": 1}}
    found = gemini_schema(open_ended)
    assert found is not None
    assert "patternProperties" in found["description"]
    check_gemini(schema)


def test_gemini_requires_nothing_that_leads_to_a_cycle() -> None:
    linked = gemini_schema(schema_of(model(first=Link, name=str)))
    assert linked is not None
    assert linked["required"] == ["first", "name"]
    assert linked["$defs"]["Link"]["required"] == []
    root = gemini_schema(object_of(me={"anyOf": [{"$ref": "#"}, NULL]}, name=STRING))
    assert root is not None
    assert root["required"] == ["name"]


def test_gemini_parameters_are_left_out_where_there_are_none() -> None:
    assert gemini_parameters(build_tool(lambda: None, name="now").parameters) is None
    assert gemini_parameters({}) is None
    assert gemini_parameters({"type": "object", "additionalProperties": INTEGER}) is not None
    assert gemini_parameters({"properties": {"a": INTEGER}}) == {
        "type": "object",
        "properties": {"a": INTEGER},
    }
    broken = object_of(a={"$ref": "#/$defs/none"})
    assert gemini_parameters(broken) == broken
    assert gemini_schema(broken) is None


# Roots that are no object


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[int], [1, 2]),
        (Literal["a", "b"], "a"),
        (Colour, "red"),
        (int, 3),
        (Decimal, 1.5),
        (Point | Cat, {"x": 1, "y": 1}),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat", "lives": 1}),
        (list[Node], [{"value": 1, "children": []}]),
        (int | None, None),
    ],
)
def test_other_roots_are_wrapped_for_every_provider(kind: Any, value: Any) -> None:
    found = wrapped(schema_of(kind))
    assert found.is_wrapped
    assert strict_schema(found.schema) is not None
    assert gemini_schema(found.schema) is not None
    assert (anthropic_schema(found.schema) is not None) is (kind != list[Node])
    assert found.unwrap({"value": value}) == value
    assert json.loads(found.unwrap_text(json.dumps({"value": value}))) == value


@pytest.mark.parametrize("kind", [Point, Place, Film, Node, dict[str, int]])
def test_roots_that_are_objects_are_not_wrapped(kind: Any) -> None:
    found = wrapped(schema_of(kind))
    assert not found.is_wrapped
    assert found.schema["type"] == "object"
    assert found.unwrap({"value": 1}) == {"value": 1}
    assert found.unwrap_text('{"value": 1}') == '{"value": 1}'


def test_what_is_inside_is_kept_letter_by_letter() -> None:
    found = wrapped(INTEGER)
    assert found.unwrap_text(' {"value" : 1.10 }\n') == "1.10"
    for text in (
        '{"value": 1',
        '{"value": 1, "more": 2}',
        "1",
        "[1]",
        '{"other": 1}',
        '{"value": }',
    ):
        assert found.unwrap_text(text) == text
    for value in (1, [1], {"value": 1, "more": 2}, {}):
        assert found.unwrap(value) == value


def test_references_to_the_root_follow_it_into_the_object() -> None:
    tree = {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/Answer"}]}}
    found = wrapped({**tree, "$defs": {"Answer": {"enum": ["#"]}}})
    inner = found.schema["$defs"]["Answer_"]
    assert found.schema["properties"] == {"value": {"$ref": "#/$defs/Answer_"}}
    assert inner["items"]["anyOf"] == [{"$ref": "#/$defs/Answer_"}, {"$ref": "#/$defs/Answer"}]
    assert strict_schema(found.schema) is not None
    broken = {"$ref": "#/$defs/none"}
    assert wrapped(broken).is_wrapped
