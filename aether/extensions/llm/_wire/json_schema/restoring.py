"""From a value under a strict schema to the same under the original: nulls for "left out" go.

The rule reads the original schema alone: in an object, a property that is optional and does not
take null is left out where it is null. Alternatives are tried in their order, and the first that
the value fits is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    Schema,
    Unsupported,
    accepts_null,
    constants,
    flattened,
    types_of,
)

__all__ = ["restored"]

_DEEPEST = 150  # levels of a value; each costs three frames of the interpreter's thousand


def restored(value: Any, schema: Schema) -> Any:
    """The value as the schema has it; unchanged where it does not fit."""
    try:
        return _Restoring(schema).visit(schema, value, _DEEPEST)[1]
    except Unsupported:
        return value


class _Restoring:
    def __init__(self, document: Schema) -> None:
        self._document = document
        # Alternatives within alternatives would be tried twice at each level. What the ids stand
        # for is kept with the result, so that no id is used again.
        self._known: dict[tuple[int, int], tuple[Any, Any, tuple[bool, Any]]] = {}

    def visit(self, schema: Any, value: Any, depth: int) -> tuple[bool, Any]:
        """Whether the value fits, and what it becomes."""
        if depth == 0:
            return True, value
        if not isinstance(value, dict | list):
            return self._read(flattened(schema, self._document), value, depth - 1)
        key = id(schema), id(value)
        if key not in self._known:
            result = self._read(flattened(schema, self._document), value, depth - 1)
            self._known[key] = (schema, value, result)
        return self._known[key][2]

    def _read(self, schema: Schema, value: Any, depth: int) -> tuple[bool, Any]:
        choices = schema.get("anyOf", schema.get("oneOf"))
        if choices is not None:
            for choice in choices:
                fits, back = self.visit(choice, value, depth)
                if fits:
                    return True, back
            return False, value
        types, values = types_of(schema), constants(schema)
        if types and not any(_is(value, each) for each in types):
            return False, value
        if values is not None and value not in values:
            return False, value
        if isinstance(value, dict):
            return self._object(schema, value, depth)
        if isinstance(value, list):
            return self._array(schema, value, depth)
        return True, value

    def _object(self, schema: Schema, value: dict[str, Any], depth: int) -> tuple[bool, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        fits = value.keys() <= properties.keys() and value.keys() >= {*required}
        back = {}
        for name, inner in value.items():
            part = properties.get(name)
            if part is None:
                back[name] = inner
                continue
            optional = name not in required
            if inner is None and optional and not accepts_null(part, self._document):
                continue
            inner_fits, back[name] = self.visit(part, inner, depth)
            fits = fits and inner_fits
        return fits, back

    def _array(self, schema: Schema, value: list[Any], depth: int) -> tuple[bool, Any]:
        prefix = schema.get("prefixItems", [])
        parts = [*prefix, *[schema.get("items", {})] * (len(value) - len(prefix))]
        results = [
            self.visit(part, inner, depth) for part, inner in zip(parts, value, strict=False)
        ]
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        fits = least <= len(value) <= most and all(result[0] for result in results)
        return fits, [result[1] for result in results]


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, Mapping)
        case _:
            kinds = {"string": str, "boolean": bool, "array": list, "null": type(None)}
            return isinstance(value, kinds.get(kind, ()))
