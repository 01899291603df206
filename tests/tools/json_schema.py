"""JSON Schema as tools use it: whether a value is one that a schema accepts."""

from __future__ import annotations

from typing import Any

__all__ = ["conforms"]


def conforms(value: Any, schema: Any, root: Any) -> bool:
    """Whether a JSON Schema, of the keywords that are used here, accepts a value."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        return any(conforms(value, part, root) for part in schema["anyOf"])
    if "const" in schema and not _same(value, schema["const"]):
        return False
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return False
    match schema.get("type"):
        case None:
            return True
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "array":
            if not isinstance(value, list) or len(value) > schema.get("maxItems", len(value)):
                return False
            first = schema.get("prefixItems", [])
            return len(value) >= schema.get("minItems", 0) and all(
                conforms(item, first[at] if at < len(first) else schema.get("items", {}), root)
                for at, item in enumerate(value)
            )
        case "object":
            known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
            return (
                isinstance(value, dict)
                and all(name in value for name in schema.get("required", []))
                and all(conforms(v, known.get(name, others), root) for name, v in value.items())
            )
    raise AssertionError(f"an unknown type in {schema}")


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)
