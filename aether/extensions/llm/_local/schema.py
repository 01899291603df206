"""JSON Schema as the engine's grammar converter understands it.

It must not know what the schemas are for. The converter (llama.cpp's `json-schema-to-grammar`)
passes over keywords that it does not know, takes some of them wrongly (`allOf`, alternatives with
siblings, patterns that write unescaped quotes), fails on long repetitions, and prints warnings to
stderr. So a schema is rewritten here to what it does right. What cannot be said in a grammar is
left out: the rewritten schema allows more values than the original, never free text. A schema that
no value can satisfy, or that refers to nothing, is an `InputError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from aether.errors import InputError

__all__ = ["simplify_schema"]

Schema = dict[str, Any]

LONGEST_REPETITION = 256
"""Larger bounds of lengths and counts are left out: the engine refuses a grammar with 2000."""
LARGEST_SCHEMA = 10_000
"""Parts, each reference and alternative written out."""
LARGEST_INTEGER = 10**15
"""Larger bounds are left out: the converter holds them in 64 bits."""
FORMATS = frozenset({"date", "time", "date-time", "uuid"})

_STRUCTURAL = frozenset(
    {
        *("$ref", "allOf", "anyOf", "oneOf", "type", "const", "enum"),
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
_KEYWORDS_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}

# Patterns of which the converter makes valid JSON strings: no quote, backslash or "any character".
_SAFE_PATTERN = re.compile(
    r"""\^(?: [A-Za-z0-9 _,:;@#%&=~<>!'/-]                  # itself
         | \\[.+*?()\[\]{}|^$-]                             # escaped
         | \[ [A-Za-z0-9 _.,:;@#%&=~<>!'/+*?(){}|$-]+ \]     # one of
         | \((?!\?) | \(\?: | \) | \| | [?*+] | \{\d\d?(,\d*)?\}
         )*\$""",
    re.VERBOSE,
)
_CLASS = re.compile(r"\[[^\]]*\]")


def simplify_schema(document: object, definitions: Schema, *, of: str) -> Schema:
    """`document` rewritten for the engine. What it refers to is added to `definitions`.

    The result points into `definitions` as `#/$defs/...`; put them there, at the root. `of` names
    the schema in an error, as in "the parameters of tool 'add'".
    """
    try:
        return _Simplifier(document, definitions, of).schema(document)
    except RecursionError:
        raise InputError(f"The JSON Schema of {of} is nested too deeply.") from None


class _Simplifier:
    def __init__(self, document: object, definitions: Schema, of: str) -> None:
        self._document = document
        self._definitions = definitions
        self._of = of
        self._names: dict[str, str] = {}
        self._parts = 0

    def schema(self, given: object) -> Schema:
        schema = self._flatten(given)
        if "$ref" in schema:
            return {"$ref": self._reference(schema["$ref"])}
        if "const" in schema:
            return {"const": schema["const"]}
        if "enum" in schema:
            if not isinstance(schema["enum"], list) or not schema["enum"]:
                raise self._refusal("enum must list at least one value")
            return {"enum": schema["enum"]}
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._alternatives(schema, keyword)
        types = schema.get("type", _implied_type(schema))
        if isinstance(types, list):
            return self._one_of([self._typed(name, schema) for name in types])
        return {} if types is None else self._typed(types, schema)

    def _flatten(self, given: object) -> Schema:
        """Without annotations, with `allOf` and the siblings of a `$ref` merged into one schema."""
        self._parts += 1
        if self._parts > LARGEST_SCHEMA:
            raise self._refusal("it is too large")
        if given is True:
            return {}
        if not isinstance(given, Mapping):
            raise self._refusal(f"nothing satisfies {given!r}")
        schema = {key: value for key, value in given.items() if key in _STRUCTURAL}
        parts = self._list(schema.pop("allOf", []), "allOf")
        if "$ref" in schema and (parts or len(schema) > 1):
            parts = [{"$ref": schema.pop("$ref")}, *parts]
        for part in parts:
            flat = self._flatten(part)
            if "$ref" in flat:
                flat = self._flatten(self._target(flat["$ref"]))
            schema = _merge(schema, flat)
        return schema

    def _alternatives(self, schema: Schema, keyword: str) -> Schema:
        shared = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        alternatives = [one for one in self._list(schema[keyword], keyword) if one is not False]
        if shared:
            alternatives = [{"allOf": [shared, one]} for one in alternatives]
        return self._one_of([self.schema(one) for one in alternatives])

    def _one_of(self, schemas: list[Schema]) -> Schema:
        if not schemas:
            raise self._refusal("there is no alternative to choose")
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _typed(self, name: object, schema: Schema) -> Schema:
        match name:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
            case "integer":
                return self._integer(schema)
            case "number" | "boolean" | "null":
                return {"type": name}
        raise self._refusal(f"there is no type {name!r}")

    def _object(self, schema: Schema) -> Schema:
        given = schema.get("properties", {})
        if not isinstance(given, Mapping):
            raise self._refusal("properties must be an object")
        properties = {
            name: self.schema(value) for name, value in given.items() if value is not False
        }
        extra = self._extra(schema, closed=bool(properties))
        required = self._list(schema.get("required", []), "required")
        for name in required:
            if name not in properties:
                properties[name] = {} if isinstance(extra, bool) else extra
        result: Schema = {"type": "object", "additionalProperties": extra}
        if properties or extra is False:
            result["properties"] = properties
            result["required"] = list(dict.fromkeys(required))
        return result

    def _extra(self, schema: Schema, *, closed: bool) -> bool | Schema:
        """Properties that are not named: none, where the schema says nothing and names others."""
        by_pattern = schema.get("patternProperties")
        if isinstance(by_pattern, Mapping) and by_pattern:
            return self._one_of([self.schema(value) for value in by_pattern.values()])
        extra = schema.get("additionalProperties", not closed)
        return extra if isinstance(extra, bool) else self.schema(extra)

    def _array(self, schema: Schema) -> Schema:
        items = schema.get("items", True)
        # A tuple; before 2020 it was written as a list of items.
        fixed = items if isinstance(items, list) else schema.get("prefixItems")
        if fixed:
            tuple_items = self._list(fixed, "prefixItems")
            return {"type": "array", "prefixItems": [self.schema(item) for item in tuple_items]}
        return {
            "type": "array",
            "items": {} if items is False else self.schema(items),
            **self._lengths(schema, "minItems", "maxItems"),
        }

    def _string(self, schema: Schema) -> Schema:
        result: Schema = {"type": "string"}
        pattern = _safe_pattern(schema.get("pattern"))
        if pattern is not None:
            result["pattern"] = pattern
        elif schema.get("format") in FORMATS:
            result["format"] = schema["format"]
        else:
            result |= self._lengths(schema, "minLength", "maxLength")
        return result

    def _lengths(self, schema: Schema, least: str, most: str) -> Schema:
        kept = {
            key: int(value)
            for key in (least, most)
            if isinstance(value := schema.get(key), int | float)
            and 0 <= value <= LONGEST_REPETITION
        }
        if kept.get(least, 0) > kept.get(most, math.inf):
            raise self._refusal(f"{least} is larger than {most}")
        return kept

    def _integer(self, schema: Schema) -> Schema:
        low = [
            *_numbers(schema, "minimum", math.ceil),
            *_numbers(schema, "exclusiveMinimum", lambda bound: math.floor(bound) + 1),
        ]
        high = [
            *_numbers(schema, "maximum", math.floor),
            *_numbers(schema, "exclusiveMaximum", lambda bound: math.ceil(bound) - 1),
        ]
        result: Schema = {"type": "integer"}
        if low:
            result["minimum"] = max(low)
        if high:
            result["maximum"] = min(high)
        if low and high and max(low) > min(high):
            raise self._refusal("the minimum is larger than the maximum")
        return result

    def _reference(self, pointer: object) -> str:
        pointer = str(pointer)
        name = self._names.get(pointer)
        if name is None:
            name = self._names[pointer] = f"d{len(self._definitions)}"
            self._definitions[name] = {}  # known while it is made: a schema may contain itself
            self._definitions[name] = self.schema(self._target(pointer))
        return f"#/$defs/{name}"

    def _target(self, pointer: object) -> object:
        """What a reference means, through references that lead to another one."""
        seen: list[object] = []
        while True:
            if pointer in seen:
                raise self._refusal(f"$ref {pointer!r} refers to itself")
            seen.append(pointer)
            target = self._look_up(pointer)
            flat = self._flatten(target) if isinstance(target, Mapping) else {}
            if "$ref" not in flat:
                return target
            pointer = flat["$ref"]

    def _look_up(self, pointer: object) -> object:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise self._refusal(f"$ref {pointer!r} does not point into the schema itself")
        target: Any = self._document
        for step in pointer.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, Mapping) and key in target:
                target = target[key]
            else:
                raise self._refusal(f"$ref {pointer!r} points to nothing")
        found: object = target
        return found

    def _list(self, value: object, keyword: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._refusal(f"{keyword} must be a list")
        return value

    def _refusal(self, why: str) -> InputError:
        return InputError(f"The JSON Schema of {self._of} cannot be used: {why}.")


def _merge(first: Schema, second: Schema) -> Schema:
    """What satisfies both, as far as one schema can say it: for the rest `first` counts."""
    merged = {**second, **first}
    if "properties" in first and "properties" in second:
        properties = dict(first["properties"])
        for name, value in second["properties"].items():
            there = name in properties
            properties[name] = {"allOf": [properties[name], value]} if there else value
        merged["properties"] = properties
    if "required" in first and "required" in second:
        merged["required"] = [*first["required"], *second["required"]]
    if first.get("additionalProperties") is True and "additionalProperties" in second:
        merged["additionalProperties"] = second["additionalProperties"]
    return merged


def _implied_type(schema: Schema) -> str | None:
    for name, keywords in _KEYWORDS_OF_TYPE.items():
        if any(keyword in schema for keyword in keywords):
            return name
    return None


def _numbers(schema: Schema, keyword: str, rounded: Any) -> Iterable[int]:
    bound = schema.get(keyword)
    # `exclusiveMinimum: true` is how it was written before 2019.
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        return
    if abs(bound) <= LARGEST_INTEGER:
        yield int(rounded(bound))


def _safe_pattern(pattern: object) -> str | None:
    """The pattern in the words that the converter knows, or `None` if it cannot be said in them."""
    if not isinstance(pattern, str):
        return None
    try:
        re.compile(pattern)
    except re.error:
        return None
    known = _CLASS.sub(lambda found: _spell_out(found[0], "{}"), pattern)
    known = _spell_out(known, "[{}]").replace(r"\/", "/")
    return known if _SAFE_PATTERN.fullmatch(known) else None


def _spell_out(pattern: str, form: str) -> str:
    digits, letters = form.format("0-9"), form.format("A-Za-z0-9_")
    return pattern.replace(r"\d", digits).replace(r"\w", letters)
