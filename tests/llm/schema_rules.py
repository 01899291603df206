"""What providers say of the schemas they take, written apart from what rewrites them.

And what values a rewritten schema allows: whether one fits, and strategies that make some.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_STRICT_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref", "$defs"),
    *("enum", "const", "title", "description", "pattern", "format", "minItems", "maxItems"),
    *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_STRICT_FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
}
_ANTHROPIC_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "$ref", "$defs"),
    *("enum", "const", "title", "description", "format", "minItems"),
}
_GEMINI_KEYWORDS = {
    *("$defs", "$ref", "type", "format", "title", "description", "enum", "items", "prefixItems"),
    *("minItems", "maxItems", "minimum", "maximum", "anyOf", "properties", "required"),
    "additionalProperties",
}


def parts(schema: Any) -> list[Schema]:
    """Every schema in a rewritten one."""
    if not isinstance(schema, dict):
        return []
    inner = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", []),
        *schema.get("prefixItems", []),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    return [schema, *(part for each in inner for part in parts(each))]


def check_common(schema: Schema, keywords: set[str]) -> None:
    for part in parts(schema):
        assert part.keys() <= keywords
        if "$ref" in part:
            assert part.keys() == {"$ref"}
            name = part["$ref"].removeprefix("#/$defs/")
            assert part["$ref"] == "#" or name in schema["$defs"]


def check_strict(schema: Schema) -> None:
    assert schema["type"] == "object"
    check_common(schema, _STRICT_KEYWORDS)
    for part in parts(schema):
        assert part.keys() & {"type", "anyOf", "$ref"}
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part.get("required", []) == list(part["properties"])
        if part.get("type") == "array":
            assert part["items"]
        assert part.get("format", "date") in _STRICT_FORMATS


def check_anthropic(schema: Schema) -> None:
    assert schema["type"] == "object"
    check_common(schema, _ANTHROPIC_KEYWORDS)
    for part in parts(schema):
        assert part.keys() & {"type", "anyOf", "$ref", "enum", "const"}
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
        assert part.get("minItems", 0) in (0, 1)


def check_gemini(schema: Schema) -> None:
    check_common(schema, _GEMINI_KEYWORDS)
    for part in parts(schema):
        for value in part.get("enum", []):
            assert isinstance(value, str | int | float)
            assert not isinstance(value, bool)


def resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = root if name == "#" else root["$defs"][name]
    return schema


def fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether the value is one that a rewritten schema allows, formats and numbers aside."""
    schema = resolved(schema, root)
    if "anyOf" in schema:
        return any(fits(value, each, root) for each in schema["anyOf"])
    constants = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if constants is not None:
        return any(value == each and type(value) is type(each) for each in constants)
    types = schema.get("type", [])
    if types and not any(is_a(value, each) for each in ([types] if types is str(types) else types)):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        return set(schema.get("required", [])) <= set(value) and all(
            fits(each, properties[name], root)
            if name in properties
            else others is True or (others is not False and fits(each, others, root))
            for name, each in value.items()
        )
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        kinds = [*prefix, *[schema.get("items", {})] * (len(value) - len(prefix))]
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 9) and all(
            fits(each, kind, root) for each, kind in zip(value, kinds, strict=False)
        )
    return True


def is_a(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        return type(value) in ((int,) if kind == "integer" else (int, float))
    kinds = {"string": str, "boolean": bool, "null": type(None), "object": dict, "array": list}
    return isinstance(value, kinds[kind])


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-3, 3),
    "number": st.floats(-3, 3),
    "string": st.sampled_from(["", "a", "b"]),
    "boolean": st.booleans(),
    "null": st.none(),
}


def instances(schema: Schema, root: Schema, depth: int = 8) -> st.SearchStrategy[Any]:
    """Values that a rewritten schema of a provider that closes objects allows."""
    schema = resolved(schema, root)
    if "anyOf" in schema:
        # `typing` may give back a union that it has seen before, in the order of that one.
        choices = sorted(schema["anyOf"], key=json.dumps)
        if depth <= 0 and {"type": "null"} in choices:
            return st.none()
        return st.one_of([instances(each, root, depth - 1) for each in choices])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if schema["type"] == "object":
        required = set(schema.get("required", []))
        kinds = {name: instances(p, root, depth - 1) for name, p in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: kind for name, kind in kinds.items() if name in required},
            optional={name: kind for name, kind in kinds.items() if name not in required},
        )
    if schema["type"] == "array":
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", 0 if depth <= 0 else 2)
        if most == 0:
            return st.just([])
        return st.lists(instances(schema["items"], root, depth - 1), min_size=least, max_size=most)
    types = schema["type"]
    return st.one_of([SCALARS[each] for each in ([types] if types is str(types) else types)])
