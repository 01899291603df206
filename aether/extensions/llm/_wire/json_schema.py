"""JSON Schemas as far as providers restrict them.

It must not change a schema: what a caller validates against is what the provider is told.
"""

from __future__ import annotations

from typing import Any

__all__ = ["is_strict"]

_DEPTH = 64
_REFUSED = frozenset({"default", "allOf", "oneOf", "not", "patternProperties"})


def is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema as it is.

    Its root is an object; every object closes itself with `additionalProperties: false` and
    requires all its properties.
    """
    root = isinstance(schema, dict) and schema.get("type") == "object"
    return root and _is_strict(schema, _DEPTH)


def _is_strict(schema: Any, depth: int) -> bool:
    if not isinstance(schema, dict) or depth == 0 or not _REFUSED.isdisjoint(schema):
        return False
    if "$ref" in schema and len(schema) > 1:
        return False
    properties = schema.get("properties", {})
    definitions = schema.get("$defs", {})
    choices = schema.get("anyOf", [])
    if not (
        isinstance(properties, dict) and isinstance(definitions, dict) and isinstance(choices, list)
    ):
        return False
    if schema.get("type") == "object" or properties:
        required = schema.get("required", [])
        if schema.get("additionalProperties") is not False or not isinstance(required, list):
            return False
        if any(name not in required for name in properties):
            return False
    items = [schema["items"]] if "items" in schema else []
    inner = [*items, *choices, *properties.values(), *definitions.values()]
    return all(_is_strict(each, depth - 1) for each in inner)
