"""Anthropic's subset for answers, and the parameters of tools, which may be any object.

The rules are those of the guide "Structured outputs", section "JSON Schema limitations", and what
the vendor's SDK makes of schemas: objects are closed, bounds are refused with a 400 and so told in
the description, constants stand without a type, and nothing may refer to itself.
It must not know what a schema is for.
"""

from __future__ import annotations

from typing import Any

from aether.extensions.llm._wire.json_schema.reading import (
    Schema,
    Unsupported,
    explicit_root,
    resolve,
)
from aether.extensions.llm._wire.json_schema.remembering import rewritten
from aether.extensions.llm._wire.json_schema.walking import BOUNDS, Walk, described

__all__ = ["anthropic_schema", "input_schema"]

_FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "uri"),
        *("ipv4", "ipv6", "uuid"),
    }
)
_UNIONS = ("oneOf", "anyOf", "allOf")
_MOST_OPTIONAL = 24
_MOST_UNIONS = 16
_DEEPEST = 100  # of objects, arrays, alternatives and references


def anthropic_schema(schema: Any) -> dict[str, Any] | None:
    """The schema for `output_config.format`; `None` where it cannot say the same.

    `None` for a root that is no object, free mappings, values of any type, schemas that refer to
    themselves or to nothing, and for one beyond the API's limits.
    """
    return rewritten(schema, _AnthropicWalk)


def input_schema(parameters: Schema) -> dict[str, Any]:
    """The parameters of a tool: any schema whose root is a plain object.

    Alternatives at the root are refused with a 400 ("does not support oneOf, allOf, or anyOf at
    the top level"), so they are told in the description; the tool's own validation holds to them.
    """
    try:
        root = explicit_root(parameters)
    except Unsupported:
        root = dict(parameters)
    told: dict[str, Any] = {key: root.pop(key) for key in _UNIONS if key in root}
    root.pop("$schema", None)  # it is read as draft 2020-12, whatever it says
    root.pop("$ref", None)
    plain = {**root, "type": "object", "properties": root.get("properties", {})}
    words = {"description": plain.pop("description", None)}
    return described(plain, words, told)


class _AnthropicWalk(Walk):
    told = BOUNDS | {"prefixItems"}

    def rewritten(self) -> dict[str, Any]:
        written = super().rewritten()
        optional, unions = _counted(written, written, {})
        few = optional <= _MOST_OPTIONAL and unions <= _MOST_UNIONS
        if written.get("type") != "object" or not few:
            raise Unsupported(self.document)
        return written

    def keeps(self, key: str, value: Any, types: tuple[str, ...]) -> bool:
        if key == "minItems":
            return bool(types) and value in (0, 1)
        return bool(types) and key == "format" and value in _FORMATS

    def literal(self, schema: Schema, types: tuple[str, ...]) -> dict[str, Any]:
        written = super().literal(schema, types)
        del written["type"]
        return written

    def array(self, schema: Schema) -> dict[str, Any]:
        prefix = schema.get("prefixItems")
        if not prefix or "items" in schema:
            return super().array(schema)
        kinds = [part for number, part in enumerate(prefix) if part not in prefix[:number]]
        items = [self.node(part) for part in kinds]
        return {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}


def _counted(
    schema: Schema, document: Schema, known: dict[str, tuple[int, int]], depth: int = 0
) -> tuple[int, int]:
    """How many optional properties and alternatives; those of a definition count at each use.

    What refers to itself has no count, and is `Unsupported`.
    """
    if depth > _DEEPEST:
        raise Unsupported(schema)
    pointer = schema.get("$ref")
    if pointer is not None:
        if pointer not in known:
            known[pointer] = _counted(resolve(pointer, document), document, known, depth + 1)
        return known[pointer]
    properties = schema.get("properties", {})
    inner = [*properties.values(), *schema.get("anyOf", [])]
    if "items" in schema:
        inner.append(schema["items"])
    counts = [_counted(each, document, known, depth + 1) for each in inner]
    optional = len(properties.keys() - {*schema.get("required", [])})
    unions = int("anyOf" in schema or isinstance(schema.get("type"), list))
    return optional + sum(each[0] for each in counts), unions + sum(each[1] for each in counts)
