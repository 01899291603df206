"""Reading JSON Schemas: what a reference means, which types and constants a schema allows.

It must not know a provider, and writes no schema but the one that a reference stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = [
    "ANNOTATIONS",
    "DEFINITIONS",
    "Unsupported",
    "accepts_null",
    "constants",
    "explicit_root",
    "flattened",
    "merged",
    "resolve",
    "subschemas",
    "types_of",
    "well_formed",
]

Schema = Mapping[str, Any]

DEFINITIONS = ("$defs", "definitions")
# They describe values and refuse none.
ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated"})

_LONGEST_CHAIN = 64
_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}

# Where a schema holds others: by name, in a list, or alone.
_NAMED = ("properties", "patternProperties", "dependentSchemas", *DEFINITIONS)
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_ALONE = (
    *("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
)


# What a schema must hold under a keyword for anything here to make sense of it.
_HOLDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("properties", *DEFINITIONS), Mapping),
    **dict.fromkeys(("required", "anyOf", "oneOf", "allOf", "prefixItems", "enum"), list),
    **dict.fromkeys(("$ref", "format", "pattern"), str),
    **dict.fromkeys(("minItems", "maxItems"), int),
    "type": (str, list),
}


class Unsupported(Exception):  # noqa: N818 - an outcome that no caller of the package sees
    """A schema, or a part of it, has no form in the subset that it is rewritten to."""


def resolve(pointer: str, document: Schema) -> Schema:
    """The schema that a `$ref` inside of the document means."""
    if not (pointer == "#" or pointer.startswith("#/")):
        raise Unsupported(pointer)
    found: Any = document
    for part in pointer.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            raise Unsupported(pointer)
    return well_formed(found)


def well_formed(schema: object) -> Schema:
    """The schema itself, whose first level makes sense."""
    if not isinstance(schema, Mapping):
        raise Unsupported(schema)
    for key, value in schema.items():
        if key in _HOLDS and not isinstance(value, _HOLDS[key]):
            raise Unsupported(schema)
    for texts in (schema.get("required"), schema.get("type")):
        if isinstance(texts, list) and not all(isinstance(each, str) for each in texts):
            raise Unsupported(schema)
    return schema


def merged(inner: Schema, siblings: Schema) -> dict[str, Any]:
    """One schema of what stood in a `$ref` or `allOf` and what stood beside it."""
    for key, value in siblings.items():
        if key in inner and key not in ANNOTATIONS and inner[key] != value:
            raise Unsupported(key)
    return {**inner, **siblings}


def flattened(schema: Any, document: Schema) -> Schema:
    """The schema without a `$ref` or a single `allOf` on its first level."""
    for _ in range(_LONGEST_CHAIN):
        flat = well_formed(schema)
        beside = {key: value for key, value in flat.items() if key not in DEFINITIONS}
        parts = beside.get("allOf")
        if "$ref" in beside:
            schema = merged(resolve(beside.pop("$ref"), document), beside)
        elif parts is not None and len(parts) == 1:
            del beside["allOf"]
            schema = merged(well_formed(parts[0]), beside)
        else:
            return flat
    raise Unsupported(schema)


def explicit_root(document: Schema) -> dict[str, Any]:
    """The document with a root that says what it is, where it only referred to it."""
    flat = flattened(document, document)
    return {**flat, **{key: document[key] for key in DEFINITIONS if key in document}}


def types_of(schema: Schema) -> tuple[str, ...]:
    """The types of a flattened schema, written or evident; none where it may be anything."""
    written = schema.get("type")
    if isinstance(written, str):
        return (written,)
    if isinstance(written, list):
        return tuple(written)
    values = constants(schema)
    if values is not None:
        return tuple(dict.fromkeys(_TYPES.get(type(value), "object") for value in values))
    if "properties" in schema:
        return ("object",)
    return ("array",) if "items" in schema or "prefixItems" in schema else ()


def constants(schema: Schema) -> list[Any] | None:
    """The values of an `enum` or a `const`; `None` where there is neither."""
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def accepts_null(schema: Any, document: Schema, depth: int = _LONGEST_CHAIN) -> bool:
    """Whether null is one of the values, as far as types, constants and alternatives tell."""
    if depth == 0:
        raise Unsupported(schema)
    flat = flattened(schema, document)
    values = constants(flat)
    if values is not None and None not in values:
        return False
    choices = flat.get("anyOf", flat.get("oneOf"))
    if choices is not None:
        return any(accepts_null(choice, document, depth - 1) for choice in choices)
    types = types_of(flat)
    return not types or "null" in types


def subschemas(schema: Any) -> Iterator[Schema]:
    """The schema and all that are written in it, definitions too; references are not followed."""
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, Mapping):
            continue
        yield each
        for key in _NAMED:
            if isinstance(each.get(key), Mapping):
                waiting.extend(each[key].values())
        for key in _LISTED:
            if isinstance(each.get(key), list):
                waiting.extend(each[key])
        waiting.extend(each[key] for key in _ALONE if key in each)
