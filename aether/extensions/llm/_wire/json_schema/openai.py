"""OpenAI's strict mode for answers: one subset, in Chat Completions and in Responses.

The rules are those of the guide "Structured model outputs", section "Supported schemas": every
object is closed and requires all of its properties, so an optional one is written as nullable and
a null in its place means that it was left out. Formats and keywords that are not listed there are
refused with a 400, and regular expressions with lookaround are as well.
It must not know what a schema is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    ANNOTATIONS,
    Schema,
    Unsupported,
    accepts_null,
    constants,
    resolve,
    subschemas,
)
from aether.extensions.llm._wire.json_schema.remembering import rewritten
from aether.extensions.llm._wire.json_schema.walking import Walk, described, nullable

__all__ = ["strict_schema"]

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_KEPT = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems"),
    }
)
_BEYOND_REGULAR = re.compile(r"\(\?(?!:)|\\[1-9k]")

_MOST_PROPERTIES = 5_000
_MOST_LEVELS = 10
_DEEPEST = 100  # of objects, arrays, alternatives and references
_MOST_CHARACTERS = 120_000  # of names of properties and definitions, and of constants
_MOST_CONSTANTS = 1_000
_LONG_ENUM = 250
_MOST_CHARACTERS_OF_LONG_ENUM = 15_000


def strict_schema(schema: Any) -> dict[str, Any] | None:
    """The schema as strict mode takes it; `None` where it cannot say the same.

    Under it a null for an optional property that takes none means that it was left out. `None`, to
    be sent without strict, for a root that is no object, free mappings, values of any type, tuples
    of different types, references to nothing, and schemas beyond OpenAI's limits.
    """
    return rewritten(schema, _StrictWalk)


class _StrictWalk(Walk):
    def rewritten(self) -> dict[str, Any]:
        written = super().rewritten()
        if written.get("type") != "object" or not _within_limits(written):
            raise Unsupported(self.document)
        return written

    def keeps(self, key: str, value: Any, types: tuple[str, ...]) -> bool:
        if key == "format":
            return bool(types) and value in _FORMATS
        if key == "pattern":
            return bool(types) and not _BEYOND_REGULAR.search(value)
        return bool(types) and key in _KEPT

    def requires(self, name: str, part: Any, required: list[Any]) -> bool:  # noqa: ARG002 - as every walk
        return True

    def property(self, name: str, part: Any, *, required: bool) -> dict[str, Any]:
        if required or self.always_written(name, part) or accepts_null(part, self.document):
            return self.node(part)
        if "$ref" in part and part.keys() - {"$ref"} <= ANNOTATIONS:
            # Described beside the reference, which then need not be written out.
            return described(nullable(self.node({"$ref": part["$ref"]})), part)
        return nullable(self.node(part))


def _within_limits(schema: dict[str, Any]) -> bool:
    parts = list(subschemas(schema))
    names = [name for part in parts for name in part.get("properties", {})]
    enums = [[str(value) for value in values] for part in parts if (values := constants(part))]
    values = [value for each in enums for value in each]
    long = [each for each in enums if len(each) > _LONG_ENUM]
    return (
        len(names) <= _MOST_PROPERTIES
        and len(values) <= _MOST_CONSTANTS
        and _length([*names, *schema.get("$defs", {}), *values]) <= _MOST_CHARACTERS
        and all(_length(each) <= _MOST_CHARACTERS_OF_LONG_ENUM for each in long)
        and _levels(schema, schema, {}) <= _MOST_LEVELS
    )


def _length(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


def _levels(schema: Schema, document: Schema, known: dict[str, int], depth: int = 0) -> int:
    """How deep objects stand in one another; what a schema repeats of itself is not counted."""
    if depth > _DEEPEST:
        raise Unsupported(schema)
    pointer = schema.get("$ref")
    if pointer is not None:
        if pointer not in known:
            known[pointer] = 0
            known[pointer] = _levels(resolve(pointer, document), document, known, depth + 1)
        return known[pointer]
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    if "items" in schema:
        inner.append(schema["items"])
    deepest = max((_levels(each, document, known, depth + 1) for each in inner), default=0)
    return deepest + (schema.get("type") == "object")
