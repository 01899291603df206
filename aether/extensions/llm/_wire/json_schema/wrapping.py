"""Roots that are no object, as one property of an object: lists, texts, numbers, alternatives.

Most providers take no other root for an answer. One rule for all of them keeps an answer the same
wherever it comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    DEFINITIONS,
    Schema,
    Unsupported,
    explicit_root,
    subschemas,
    types_of,
)

__all__ = ["Wrapped", "wrapped"]

_PROPERTY = "value"
_DEFINITION = "Answer"
_OPENING = re.compile(r'\s*\{\s*"value"\s*:\s*')
_CLOSING = re.compile(r"\s*\}\s*")

_NAMED = ("properties", "patternProperties", "dependentSchemas")
_DATA = ("const", "enum", "default", "examples", "discriminator")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A schema whose root is an object, and the way back to the value inside."""

    schema: dict[str, Any]
    is_wrapped: bool
    """False where the root was an object before: then values and texts stay as they are."""

    def unwrap(self, value: Any) -> Any:
        """The value inside. One that is not wrapped stays as it is, for the caller to refuse."""
        if self.is_wrapped and isinstance(value, dict) and value.keys() == {_PROPERTY}:
            return value[_PROPERTY]
        return value

    def unwrap_text(self, text: str) -> str:
        """The same for an answer as text: what is inside, as the model wrote it."""
        opening = _OPENING.match(text) if self.is_wrapped else None
        if opening is None:
            return text
        try:
            _, end = json.JSONDecoder().raw_decode(text, opening.end())
        except (ValueError, RecursionError):
            return text
        return text[opening.end() : end] if _CLOSING.fullmatch(text, end) else text


def wrapped(schema: Schema) -> Wrapped:
    """The schema with an object as its root: itself where it is one, or an object of one property.

    A root that only refers to an object becomes that object. Alternatives are wrapped even where
    each is an object.
    """
    try:
        root = explicit_root(schema)
    except Unsupported:
        return Wrapped(_object_of(dict(schema)), is_wrapped=True)
    unions = {"anyOf", "oneOf", "allOf", "$ref"}
    if types_of(root) == ("object",) and unions.isdisjoint(root):
        return Wrapped(root, is_wrapped=False)
    definitions = {key: root.pop(key) for key in DEFINITIONS if key in root}
    if any(_is_moved(each.get("$ref")) for each in subschemas({**root, **definitions})):
        named = dict(definitions.get("$defs", {}))
        name = _DEFINITION
        while name in named:
            name += "_"
        target = f"#/$defs/{name}"
        definitions["$defs"] = {**named, name: root}
        definitions = {
            key: {each: _moved(part, target) for each, part in parts.items()}
            for key, parts in definitions.items()
        }
        root = {"$ref": target}
    return Wrapped({**_object_of(root), **definitions}, is_wrapped=True)


def _object_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {_PROPERTY: schema},
        "required": [_PROPERTY],
        "additionalProperties": False,
    }


def _is_moved(pointer: Any) -> bool:
    """Whether the pointer means the root, or something in it that is no definition."""
    stays = tuple(f"#/{key}/" for key in DEFINITIONS)
    return isinstance(pointer, str) and pointer.startswith("#") and not pointer.startswith(stays)


def _moved(schema: Any, target: str) -> Any:
    """The schema where what was the root now stands at the target."""
    if isinstance(schema, list):
        return [_moved(each, target) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {}
    for key, value in schema.items():
        if key == "$ref" and _is_moved(value):
            moved[key] = target + value[1:]
        elif key in _NAMED and isinstance(value, Mapping):
            moved[key] = {name: _moved(part, target) for name, part in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value, target)
    return moved
