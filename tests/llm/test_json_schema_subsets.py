"""Schemas in the subsets that providers take: what is rewritten, told, refused and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NotRequired, Optional

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from aether.engine.output import output_type
from aether.extensions.llm._wire.json_schema import (
    anthropic_schema,
    gemini_parameters,
    gemini_schema,
    input_schema,
    strict_schema,
)
from aether.tools.schema import build_tool
from tests.llm.schema_rules import check_anthropic, check_gemini, check_strict, fits

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


def strict(kind: Any) -> Schema:
    found = strict_schema(schema_of(kind))
    assert found is not None
    return found


def back(kind: Any, answer: Any) -> Any:
    """The value that an answer is read as, if strict mode allows it."""
    written = strict_schema(output_type(kind).schema)
    assert written is not None
    check_strict(written)
    assert fits(answer, written, written)
    return output_type(kind).read(json.dumps(answer))


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
    assert strict(Point) == {
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


def test_null_for_an_optional_property_counts_as_left_out() -> None:
    assert back(Point, {"x": 1, "y": None}) == Point(x=1)
    assert back(Place, {"name": "a", "tags": None}) == Place("a")
    node = {"value": 1, "children": [{"value": 2, "children": None}]}
    assert back(Node, node) == Node(value=1, children=[Node(value=2)])
    tagged = Annotated[Cat | Dog, Field(discriminator="kind")]
    assert back(list[tagged], {"value": [{"kind": "cat", "lives": None}]}) == [Cat()]


def test_null_stays_where_the_property_takes_it() -> None:
    answer = {"title": "M", "year": None, "rating": None}
    assert back(Film, answer) == {"title": "M", "rating": None}
    assert back(Dog, {"kind": "puppy", "name": None}) == Dog(kind="puppy")
    either = model(a=(int | None, 5), b=(Literal["x"] | None, "x"), c=(int, 7))
    assert back(either, {"a": None, "b": None, "c": None}) == either(a=None, b=None)


class Size(BaseModel):
    unit: str
    width: int | None
    height: int = 1


@dataclass
class Word:
    text: str
    width: int = 2


class Mark(TypedDict):
    text: str | None
    code: int
    width: NotRequired[int]


Holder = model(size=(Size | Word, Word("b")))


@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        (Size | Word, {"unit": "m", "width": None, "height": None}, Size(unit="m", width=None)),
        (Size | Word, {"text": "a", "width": None}, Word("a")),
        (Word | Mark, {"text": None, "code": 1, "width": None}, {"text": None, "code": 1}),
        (list[Word] | list[Size], [{"text": "a", "width": None}], [Word("a")]),
        (
            list[Holder],  # type: ignore[valid-type]  # made while running
            [{"size": {"unit": "m", "width": None, "height": None}}, {"size": None}],
            [Holder(size=Size(unit="m", width=None)), Holder()],
        ),
    ],
)
def test_nulls_are_read_as_one_alternative_has_them(kind: Any, answer: Any, value: Any) -> None:
    assert back(kind, {"value": answer}) == value


def test_nulls_are_no_problem_of_the_alternative_that_takes_them() -> None:
    class Early(BaseModel):
        start: int
        end: int = 0

    class Late(BaseModel):
        start: int = 0
        end: int | None

    answer = {"value": {"start": None, "end": None}}
    assert back(Early | Late, answer) == Late(end=None)
    assert back(Late | Early, answer) == Late(end=None)


def test_nulls_are_found_by_the_names_that_the_model_sees() -> None:
    class Named(BaseModel):
        width: int = Field(default=1, alias="the width")
        height: int = Field(default=2, validation_alias="the height")

    assert back(Named, {"the width": None, "the height": None}) == Named()


def test_tools_of_functions_are_strict() -> None:
    def book(town: str, nights: int = 1, *, breakfast: bool = True) -> None:
        """Book."""

    tool = build_tool(book)
    found = strict_schema(tool.parameters)
    assert found is not None
    assert found["required"] == ["town", "nights", "breakfast"]


def test_a_function_without_parameters_is_strict() -> None:
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    found = strict_schema(empty)
    assert found is not None
    assert found == empty


def test_discriminated_unions_are_alternatives_whose_tags_are_always_written() -> None:
    tagged = Annotated[Cat | Dog, Field(discriminator="kind")]
    found = strict(model(pet=tagged))
    assert found["properties"]["pet"]["anyOf"] == [
        {"$ref": "#/$defs/Cat"},
        {"$ref": "#/$defs/Dog"},
    ]
    dog = found["$defs"]["Dog"]["properties"]["kind"]
    assert dog["enum"] == ["dog", "puppy"]
    assert "anyOf" not in dog


def test_a_constant_that_is_the_default_is_simply_written() -> None:
    kind = strict(model(kind=(Literal["a"], "a")))["properties"]["kind"]
    assert kind["const"] == "a"
    assert "anyOf" not in kind


def test_exclusive_alternatives_are_alternatives() -> None:
    found = strict_schema(object_of(a={"oneOf": [INTEGER, {"type": "number"}]}))
    assert found is not None
    assert found["properties"]["a"] == {"anyOf": [INTEGER, {"type": "number"}]}


def test_recursive_models_refer_to_themselves() -> None:
    node = strict(Node)
    assert node["properties"]["children"]["anyOf"][0]["items"] == {"$ref": "#/$defs/Node"}


def test_a_reference_with_siblings_is_written_out() -> None:
    found = strict(model(point=Annotated[Point, Field(description="Where.")]))
    point = found["properties"]["point"]
    assert point["description"] == "Where."
    assert point["required"] == ["x", "y"]
    assert "$defs" not in found


def test_an_optional_reference_is_described_beside_it() -> None:
    found = strict(model(point=(Annotated[Point, Field(description="Where.")], Point(x=1))))
    assert found["properties"]["point"] == {
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
    check_strict(found)
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
    properties = found["properties"]
    meant = [found["$defs"][properties[name]["$ref"][8:]] for name in references]
    assert meant == [STRING, INTEGER, NULL]


def test_single_all_of_is_unwrapped_and_several_are_refused() -> None:
    found = strict_schema(object_of(a={"allOf": [INTEGER], "description": "A."}))
    assert found is not None
    assert found["properties"]["a"] == {"type": "integer", "description": "A."}
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
    )["properties"]
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
    assert found["properties"]["a"] == INTEGER


def test_constants_have_a_type() -> None:
    properties = strict(model(mixed=MIXED, colour=Colour, level=Level, yes=Literal[True]))[
        "properties"
    ]
    assert properties["mixed"]["type"] == ["string", "integer", "null"]
    assert properties["mixed"]["enum"] == ["a", 1, None]
    assert properties["yes"]["const"] is True


def test_tuples_of_one_type_are_arrays_of_a_length() -> None:
    pair = strict(model(pair=tuple[int, int]))["properties"]["pair"]
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
        {("a",): "names are texts"},
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
    for rewrite in (strict_schema, anthropic_schema, gemini_schema, input_schema):
        rewrite(schema)
    assert json.dumps(schema) == before


@pytest.mark.parametrize("rewrite", [anthropic_schema, gemini_schema, strict_schema])
def test_what_a_caller_does_to_a_result_or_a_schema_changes_no_other(rewrite: Any) -> None:
    schema = object_of(a=STRING, b=INTEGER)
    first = rewrite(schema)
    first["properties"]["a"]["type"] = "null"
    assert rewrite(schema)["properties"]["a"] == STRING
    schema["properties"] = {"b": INTEGER, "a": STRING}
    assert list(rewrite(schema)["properties"]) == ["b", "a"]


def test_defaults_that_are_no_json_are_told_as_text() -> None:
    found = strict_schema(object_of(a={"type": "string", "default": date(2026, 1, 1)}))
    assert found is not None
    assert found["properties"]["a"]["description"] == '(default: "2026-01-01")'


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


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "object", "properties": {f"p{n}": INTEGER for n in range(24)}}, True),
        ({"type": "object", "properties": {f"p{n}": INTEGER for n in range(25)}}, False),
        (object_of(**{f"p{n}": {"anyOf": [INTEGER, STRING]} for n in range(16)}), True),
        (object_of(**{f"p{n}": {"type": ["integer", "string"]} for n in range(17)}), False),
    ],
)
def test_anthropic_limits_optional_properties_and_alternatives(schema: Schema, fits: bool) -> None:
    assert (anthropic_schema(schema) is not None) is fits


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
