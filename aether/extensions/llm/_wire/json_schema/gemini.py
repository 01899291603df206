"""Gemini's real JSON Schema: `responseJsonSchema` and `parametersJsonSchema`.

They exclude `responseSchema` and `parameters`, the older subset of OpenAPI, which nothing here
needs. The keywords are those that the API's reference lists for `responseJsonSchema`: what it does
not list is passed over there, and so told in the description. Constants become enums, which hold
texts and numbers only, a `$ref` stands alone, and only optional properties may lead to a cycle.
It must not know what a schema is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    Schema,
    Unsupported,
    constants,
    explicit_root,
    subschemas,
)
from aether.extensions.llm._wire.json_schema.remembering import rewritten
from aether.extensions.llm._wire.json_schema.walking import BOUNDS, Walk, described

__all__ = ["gemini_parameters", "gemini_schema"]

_KEPT = frozenset({"format", "minItems", "maxItems", "minimum", "maximum"})


def gemini_schema(schema: Any) -> dict[str, Any] | None:
    """The schema for `responseJsonSchema`, beside `responseMimeType: application/json`.

    A required property that leads to a cycle becomes optional, as the API wants it: the caller's
    validation misses it where the model leaves it out. `None` for a schema that refers to nothing,
    that no value fits, or that is out of all proportion.
    """
    return rewritten(schema, _GeminiWalk)


def gemini_parameters(parameters: Schema) -> dict[str, Any] | None:
    """The schema for `parametersJsonSchema`; `None` to leave it out, for a function without any.

    A schema that cannot be rewritten is returned as it is, for the API to judge.
    """
    try:
        root = explicit_root(parameters)
    except Unsupported:
        return dict(parameters)
    root = {"type": "object", **root}
    closed = root.get("additionalProperties", False) is False
    if not root.get("properties") and closed and {"anyOf", "oneOf", "allOf"}.isdisjoint(root):
        return None
    return gemini_schema(root) or root


class _GeminiWalk(Walk):
    told = BOUNDS | {
        *("patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
        *("dependentRequired", "dependentSchemas", "dependencies", "contentSchema"),
        *("contains", "minContains", "maxContains", "not", "if", "then", "else", "allOf"),
    }

    def rewritten(self) -> dict[str, Any]:
        written = super().rewritten()
        _open_cycles(written)
        return written

    def keeps(self, key: str, value: Any, types: tuple[str, ...]) -> bool:  # noqa: ARG002 - as every walk
        return key in _KEPT

    def node(self, schema: Any) -> dict[str, Any]:
        return super().node({} if schema is True else schema)

    def shape(self, schema: Schema, types: tuple[str, ...]) -> dict[str, Any]:
        if "anyOf" not in schema and "oneOf" not in schema:
            return super().shape(schema, types) if types else {}
        beside = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        choices = super().union({key: schema[key] for key in schema.keys() - beside.keys()})
        return {**self.shape(beside, types), **choices}

    def literal(self, schema: Schema, types: tuple[str, ...]) -> dict[str, Any]:
        values = constants(schema) or []
        kinds = [kind for kind in types if kind != "null"]
        if not kinds:
            return {"type": "null"}
        written: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
        plain = [each for each in values if each is not None]
        if any(isinstance(each, bool | dict | list) for each in plain):
            written["type"] = types[0] if len(types) == 1 else list(types)
            return described(written, {}, {"enum": values})
        written["enum"] = plain
        return {"anyOf": [written, {"type": "null"}]} if None in values else written

    def object(self, schema: Schema) -> dict[str, Any]:
        written: dict[str, Any] = {"type": "object"}
        properties = schema.get("properties")
        required = schema.get("required", [])
        if properties is not None:
            written["properties"] = {name: self.node(part) for name, part in properties.items()}
            tags = [name for name, part in properties.items() if self.requires(name, part, [])]
            required = [*required, *(name for name in tags if name not in required)]
        if required or "required" in schema:
            written["required"] = required
        if "additionalProperties" in schema:
            others = schema["additionalProperties"]
            plain = isinstance(others, bool)
            written["additionalProperties"] = others if plain else self.node(others)
        return written

    def array(self, schema: Schema) -> dict[str, Any]:
        written: dict[str, Any] = {"type": "array"}
        if "prefixItems" in schema:
            written["prefixItems"] = [self.node(part) for part in schema["prefixItems"]]
        if isinstance(schema.get("items"), Mapping):
            written["items"] = self.node(schema["items"])
        return written


def _open_cycles(document: dict[str, Any]) -> None:
    """Takes from `required` what leads back to the definition, or to the root, it stands in."""
    definitions = document.pop("$defs", {})
    owners = {"#": document, **{f"#/$defs/{name}": each for name, each in definitions.items()}}
    uses = {pointer: _uses(owner) for pointer, owner in owners.items()}
    for pointer, owner in owners.items():
        for schema in subschemas(owner):
            cyclic = {
                name
                for name, part in schema.get("properties", {}).items()
                if pointer in _reachable(_uses(part), uses)
            }
            if not cyclic.isdisjoint(schema.get("required", [])):
                schema["required"] = [each for each in schema["required"] if each not in cyclic]  # type: ignore[index]
    if definitions:
        document["$defs"] = definitions


def _uses(schema: Schema) -> set[str]:
    return {each["$ref"] for each in subschemas(schema) if "$ref" in each}


def _reachable(pointers: set[str], uses: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = set(pointers)
    while waiting:
        pointer = waiting.pop()
        found.add(pointer)
        waiting |= uses[pointer] - found
    return found
