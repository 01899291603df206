"""OpenAI's strict mode: the same subset for answers and tools, in Chat Completions and Responses.

The rules are those of the guide "Structured model outputs", section "Supported schemas": every
object is closed and requires all of its properties, so an optional one is written as nullable and
a null in its place means that it was left out. Formats and keywords that are not listed there are
refused with a 400, and regular expressions with lookaround are as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    ANNOTATIONS,
    Schema,
    Unsupported,
    accepts_null,
    constants,
    flattened,
    resolve,
    subschemas,
    types_of,
)
from aether.extensions.llm._wire.json_schema.remembering import remembered
from aether.extensions.llm._wire.json_schema.restoring import restored
from aether.extensions.llm._wire.json_schema.walking import Walk, described, nullable

__all__ = ["StrictSchema", "is_strict", "strict_schema"]

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


@dataclass(frozen=True, slots=True)
class StrictSchema:
    """A schema for `strict: true`, and the way back to the one that it was made of."""

    schema: dict[str, Any]
    original: Schema

    def restore(self, value: Any) -> Any:
        """The model's value under the original schema: nulls that mean "left out" are left out.

        Those are the nulls of properties that are optional and do not take null themselves. A
        value that does not fit the schema stays as it is, for the caller's validator to refuse.
        The value that was passed is not changed.
        """
        return restored(value, self.original)

    def restore_text(self, text: str) -> str:
        """The same for an answer as text. What is no JSON, or needs no change, is kept as it is."""
        try:
            value = json.loads(text)
            back = self.restore(value)
            return text if back == value else json.dumps(back, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            return text


def strict_schema(schema: Any) -> StrictSchema | None:
    """The schema as strict mode takes it; `None` where it cannot say the same.

    `None`, to be sent without strict, for a root that is no object (see `wrapped`), free mappings,
    values of any type, tuples of different types, alternatives that exclude one another without
    being told apart by a constant, references to nothing, and schemas beyond OpenAI's limits.
    """
    written = _strictly(schema)
    return None if written is None else StrictSchema(written, schema)


@remembered
def _strictly(schema: Any) -> dict[str, Any] | None:
    if not isinstance(schema, Mapping):
        return None
    try:
        written = _StrictWalk(schema).rewritten()
        fits = written.get("type") == "object" and _within_limits(written)
    except Unsupported:
        return None
    return written if fits else None


def is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema as it is."""
    strict = strict_schema(schema)
    return strict is not None and strict.schema == schema


class _StrictWalk(Walk):
    def keeps(self, key: str, value: Any, types: tuple[str, ...]) -> bool:
        if key == "format":
            return bool(types) and value in _FORMATS
        if key == "pattern":
            return bool(types) and not _BEYOND_REGULAR.search(value)
        return bool(types) and key in _KEPT

    def requires(self, name: str, part: Any, required: list[Any]) -> bool:  # noqa: ARG002
        return True

    def property(self, name: str, part: Any, *, required: bool) -> dict[str, Any]:
        if required or self.always_written(name, part) or accepts_null(part, self.document):
            return self.node(part)
        if "$ref" in part and part.keys() - {"$ref"} <= ANNOTATIONS:
            # Described beside the reference, which then need not be written out.
            return described(nullable(self.node({"$ref": part["$ref"]})), part)
        return nullable(self.node(part))

    def union(self, schema: Schema) -> dict[str, Any]:
        choices = schema.get("oneOf")
        if choices is not None and "discriminator" not in schema:
            pairs = combinations([flattened(each, self.document) for each in choices], 2)
            if not all(self._exclude(one, other) for one, other in pairs):
                raise Unsupported(schema)
        return super().union(schema)

    def _exclude(self, one: Schema, other: Schema) -> bool:
        """Whether no value fits both, as far as types and constants tell."""
        types = {*types_of(one)}, {*types_of(other)}
        kinds = [{"number" if each == "integer" else each for each in some} for some in types]
        if kinds[0] and kinds[1] and kinds[0].isdisjoint(kinds[1]):
            return True
        values = constants(one), constants(other)
        if values[0] is not None and values[1] is not None:
            return all(value not in values[1] for value in values[0])
        return kinds == [{"object"}, {"object"}] and any(
            self._tells(name, one)
            and self._tells(name, other)
            and self._exclude(
                flattened(one["properties"][name], self.document),
                flattened(other["properties"][name], self.document),
            )
            for name in one.get("properties", {})
        )

    def _tells(self, name: str, schema: Schema) -> bool:
        part = schema.get("properties", {}).get(name)
        if part is None or constants(flattened(part, self.document)) is None:
            return False
        return name in schema.get("required", []) or self.always_written(name, part)


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
