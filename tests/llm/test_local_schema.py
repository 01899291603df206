"""Schemas in the engine's words: what it takes wrongly is rewritten, left out, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import InputError
from aether.extensions.llm._local.schema import simplify_schema

A = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
B = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
BOTH = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def simplified(schema: object) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    result = simplify_schema(schema, definitions, of="the output")
    return {**result, "$defs": definitions} if definitions else result


def test_annotations_are_left_out() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Add",
        "description": "Two numbers.",
        "type": "object",
        "properties": {"a": {"type": "integer", "title": "A", "default": 1, "examples": [2]}},
        "required": ["a"],
    }
    assert simplified(schema) == {**A, "additionalProperties": False}


def test_object_with_named_properties_is_closed_unless_it_says_otherwise() -> None:
    assert simplified(A)["additionalProperties"] is False
    assert simplified({**A, "additionalProperties": True})["additionalProperties"] is True
    assert simplified({"type": "object"})["additionalProperties"] is True


def test_dictionary_keeps_the_schema_of_its_values() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer", "title": "V"}}
    assert simplified(schema)["additionalProperties"] == {"type": "integer"}
    by_pattern = {"type": "object", "patternProperties": {"^x": {"type": "integer"}}}
    assert simplified({**by_pattern, "additionalProperties": False}) == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
    }


def test_required_property_that_is_not_described_is_asked_for_all_the_same() -> None:
    schema = simplified({**A, "required": ["a", "z"]})
    assert schema["required"] == ["a", "z"]
    assert schema["properties"]["z"] == {}


@pytest.mark.parametrize("table", ["$defs", "definitions", "components"])
def test_reference_is_collected_once(table: str) -> None:
    pointer = f"#/{table}/A~1~0"
    schema = {
        table: {"A/~": A},
        "type": "object",
        "properties": {"x": {"$ref": pointer}, "y": {"$ref": pointer, "description": "Y."}},
    }
    result = simplified(schema)
    assert result["properties"] == {"x": {"$ref": "#/$defs/d0"}, "y": {"$ref": "#/$defs/d0"}}
    assert result["$defs"] == {"d0": {**A, "additionalProperties": False}}


def test_schema_may_contain_itself() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
    }
    result = simplified({"$defs": {"Node": node}, "$ref": "#/$defs/Node"})
    assert result["$ref"] == "#/$defs/d0"
    following = result["$defs"]["d0"]["properties"]["next"]
    assert following == {"anyOf": [{"$ref": "#/$defs/d0"}, {"type": "null"}]}
    assert "d0" in simplified({"type": "object", "properties": {"me": {"$ref": "#"}}})["$defs"]


def test_reference_is_followed_through_references() -> None:
    schema = {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "null"}}, "$ref": "#/$defs/A"}
    assert simplified(schema)["$defs"] == {"d0": {"type": "null"}}


def test_all_of_is_merged_into_one() -> None:
    assert simplified({"allOf": [A, B]}) == BOTH
    assert simplified({**A, "allOf": [B]}) == BOTH
    assert simplified({"$defs": {"A": A}, "$ref": "#/$defs/A", **B}) == {
        **BOTH,
        "required": ["b", "a"],
    }
    twice = {"allOf": [A, {"properties": {"a": {"minimum": 3}}}]}
    assert simplified(twice)["properties"]["a"] == {"type": "integer", "minimum": 3}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_alternatives_keep_what_stands_beside_them(keyword: str) -> None:
    schema = {**A, keyword: [{"required": ["b"]}, B]}
    first, second = simplified(schema)["anyOf"]
    assert first["required"] == ["a", "b"]
    assert first["properties"] == {"a": {"type": "integer"}, "b": {}}
    assert second["properties"] == {"b": {"type": "boolean"}, "a": {"type": "integer"}}


def test_several_types_are_alternatives() -> None:
    assert simplified({"type": ["integer", "null"], "minimum": 3}) == {
        "anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]
    }
    assert simplified({"type": ["integer"]}) == {"type": "integer"}


def test_enum_and_const_say_everything() -> None:
    assert simplified({"type": "string", "enum": ["a", "b"]}) == {"enum": ["a", "b"]}
    assert simplified({"type": "string", "const": "a"}) == {"const": "a"}


def test_type_is_told_from_the_keywords_where_it_is_missing() -> None:
    assert simplified({"properties": {"a": {"minLength": 2}}})["properties"] == {
        "a": {"type": "string", "minLength": 2}
    }
    assert simplified({"items": {"type": "null"}})["type"] == "array"
    assert simplified({"maximum": 3}) == {"type": "number"}
    assert simplified({}) == simplified(True) == {}


def test_tuples_old_and_new() -> None:
    items = [{"type": "integer"}, {"type": "boolean"}]
    expected = {"type": "array", "prefixItems": items}
    new = {"type": "array", "prefixItems": items, "items": False, "minItems": 2, "maxItems": 2}
    assert simplified(new) == expected
    assert simplified({"type": "array", "items": items}) == expected


@pytest.mark.parametrize(
    ("given_bounds", "kept"),
    [
        ({"minimum": 1, "maximum": 5}, {"minimum": 1, "maximum": 5}),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 3}, {"minimum": 1, "maximum": 2}),
        ({"minimum": 0.5, "maximum": 2.5}, {"minimum": 1, "maximum": 2}),
        ({"minimum": 1, "exclusiveMinimum": 4}, {"minimum": 5}),
        ({"minimum": 0, "exclusiveMinimum": True}, {"minimum": 0}),
        ({"maximum": 10**25}, {}),
        ({"minimum": float("-inf")}, {}),
        ({"multipleOf": 5}, {}),
    ],
)
def test_bounds_of_an_integer(given_bounds: dict[str, Any], kept: dict[str, Any]) -> None:
    assert simplified({"type": "integer", **given_bounds}) == {"type": "integer", **kept}


def test_lengths_that_a_grammar_cannot_hold_are_left_out() -> None:
    assert simplified({"type": "string", "minLength": 3, "maxLength": 5000}) == {
        "type": "string",
        "minLength": 3,
    }
    assert simplified({"type": "array", "items": True, "minItems": 3000}) == {
        "type": "array",
        "items": {},
    }


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        (r"^\d{3}-\d{4}$", "^[0-9]{3}-[0-9]{4}$"),
        (r"^[\w.-]+$", "^[A-Za-z0-9_.-]+$"),
        (r"^(?:foo|bar)\/a\.b$", r"^(?:foo|bar)/a\.b$"),
        ("^$", "^$"),
        ("abc", None),  # the engine wants both anchors
        ("^(?=a)b$", None),
        ("^a.b$", None),  # any character may be a quote, which the engine would write as it is
        ('^[^"]*$', None),
        ('^"$', None),
        (r"^\t$", None),
        (r"^a{300}$", None),
        ("^(a$", None),
        (r"^(a)\1$", None),
        (3, None),
    ],
)
def test_pattern_is_kept_if_the_engine_writes_valid_strings_of_it(
    pattern: object, kept: str | None
) -> None:
    expected = {"type": "string"} if kept is None else {"type": "string", "pattern": kept}
    assert simplified({"type": "string", "pattern": pattern}) == expected


def test_formats_that_the_engine_does_not_know_are_left_out() -> None:
    assert simplified({"type": "string", "format": "date"})["format"] == "date"
    assert simplified({"type": "string", "format": "email"}) == {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "nothing satisfies False"),
        (None, "nothing satisfies None"),
        ({"type": "whatever"}, "there is no type 'whatever'"),
        ({"type": {}}, "there is no type {}"),
        ({"type": []}, "there is no alternative to choose"),
        ({"anyOf": [False]}, "there is no alternative to choose"),
        ({"anyOf": {}}, "anyOf must be a list"),
        ({"enum": []}, "enum must list at least one value"),
        ({"properties": []}, "properties must be an object"),
        ({"type": "object", "required": "a"}, "required must be a list"),
        ({"$ref": "#/$defs/Nope"}, "'#/$defs/Nope' points to nothing"),
        ({"$ref": "https://example.com/a.json"}, "does not point into the schema itself"),
        ({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}, "refers to itself"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "the minimum is larger than the maximum"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength is larger than maxLength"),
        ({"type": "array", "items": {"type": "x"}}, "there is no type 'x'"),
    ],
)
def test_schema_that_cannot_be_held_is_refused(schema: object, why: str) -> None:
    with pytest.raises(InputError) as caught:
        simplified(schema)
    assert str(caught.value).startswith("The JSON Schema of the output cannot be used: ")
    assert why in str(caught.value)


def test_endless_schema_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InputError, match="nested too deeply"):
        simplified(deep)
    merging = {"$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}, A]}}, "$ref": "#/$defs/A"}
    with pytest.raises(InputError, match=r"nested too deeply|too large"):
        simplified(merging)


def test_schema_that_doubles_with_each_step_is_refused() -> None:
    steps = {
        f"S{n}": {"required": [f"k{n}"], "anyOf": [{"$ref": f"#/$defs/S{n + 1}"}] * 2}
        for n in range(40)
    }
    with pytest.raises(InputError, match="too large"):
        simplified({"$defs": {**steps, "S40": A}, "$ref": "#/$defs/S0"})


KEYWORDS = {
    "type": st.sampled_from(["object", "array", "string", "integer", "null", ["integer", "null"]]),
    "minimum": st.integers(-9, 9),
    "maxLength": st.integers(-1, 400),
    "pattern": st.text(max_size=5),
    "format": st.text(max_size=5),
    "enum": st.lists(st.integers(), max_size=2),
    "required": st.lists(st.text(max_size=2), max_size=2),
    "unknown": st.integers(),
}
SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional=KEYWORDS) | st.booleans(),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            **KEYWORDS,
            "properties": st.dictionaries(st.text(max_size=2), inner, max_size=3),
            "items": inner,
            "additionalProperties": inner,
            "anyOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3),
        },
    ),
    max_leaves=10,
)


@given(SCHEMAS)
def test_any_schema_is_simplified_or_refused(schema: object) -> None:
    try:
        once = simplified(schema)
    except InputError:
        return
    assert simplified(once) == once
