"""One walk over a schema that writes it anew: what all subsets of JSON Schema have in common.

It must not know a provider: each subset is a subclass, and says there what it keeps. What a
subset cannot hold a model to is told the model in the description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from aether.extensions.llm._wire.json_schema.reading import (
    ANNOTATIONS,
    DEFINITIONS,
    Schema,
    Unsupported,
    constants,
    explicit_root,
    flattened,
    merged,
    resolve,
    subschemas,
    types_of,
    well_formed,
)

__all__ = ["BOUNDS", "Walk", "described", "nullable"]

_DEEPEST = 64
_LARGEST = 20_000  # parts, with what is written out; references written out may double again
_LONGEST_HINT = 200
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")

# Keywords that refuse values of some types, and say nothing of others.
_APPLIES_TO = {
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), ("string",)),
    **dict.fromkeys(("contentMediaType", "contentEncoding", "contentSchema"), ("string",)),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), ("integer", "number")),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), ("integer", "number")),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "unevaluatedItems"), ("array",)),
    **dict.fromkeys(("contains", "minContains", "maxContains", "items"), ("array",)),
    **dict.fromkeys(("minProperties", "maxProperties", "propertyNames"), ("object",)),
    **dict.fromkeys(("patternProperties", "unevaluatedProperties"), ("object",)),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), ("object",)),
    **dict.fromkeys(("prefixItems",), ("array",)),
    **dict.fromkeys(("properties", "required", "additionalProperties"), ("object",)),
    **dict.fromkeys(("not", "if", "then", "else", "allOf", "anyOf", "oneOf", "$dynamicRef"), ()),
}
_SHAPES = frozenset(
    {
        *("anyOf", "oneOf", "items", "prefixItems"),
        *("properties", "required", "additionalProperties"),
    }
)
BOUNDS = frozenset(
    {
        *("minLength", "maxLength", "pattern", "format", "contentMediaType", "contentEncoding"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)


class Walk:
    """One document on its way into one subset. `Unsupported` where it does not fit.

    Definitions are written as far as they are used, under `$defs`.
    """

    told: ClassVar[frozenset[str]] = BOUNDS
    """Keywords that are told in the description where they are not kept."""

    def __init__(self, document: Schema) -> None:
        self.document = document
        tags = [each.get("discriminator") for each in subschemas(document)]
        named = [tag.get("propertyName") for tag in tags if isinstance(tag, Mapping)]
        self._tags = {name for name in named if isinstance(name, str)}
        self._names: dict[str, str] = {}
        self._written_out: list[str] = []
        self._depth = 0
        self._parts = 0

    def rewritten(self) -> dict[str, Any]:
        """The document in the subset."""
        root = self.node(explicit_root(self.document))
        definitions: dict[str, Any] = {}
        while len(definitions) < len(self._names):
            pointer, name = list(self._names.items())[len(definitions)]
            definitions[name] = self.node(resolve(pointer, self.document))
        return {**root, "$defs": definitions} if definitions else root

    def keeps(self, key: str, value: Any, types: tuple[str, ...]) -> bool:
        """Whether the subset knows the keyword with this value, on these types."""
        raise NotImplementedError

    def node(self, schema: Any) -> dict[str, Any]:
        """Any schema, anywhere in the document."""
        self._parts += 1
        if self._parts > _LARGEST or self._depth > _DEEPEST:
            raise Unsupported(schema)
        well_formed(schema)
        self._depth += 1
        try:
            parts = schema.get("allOf")
            if parts is not None and len(parts) == 1:
                beside = {key: value for key, value in schema.items() if key != "allOf"}
                return self.node(merged(well_formed(parts[0]), beside))
            return self._reference(schema) if "$ref" in schema else self._described(schema)
        finally:
            self._depth -= 1

    def _reference(self, schema: Schema) -> dict[str, Any]:
        pointer = schema["$ref"]
        target = resolve(pointer, self.document)
        beside = {
            key: value
            for key, value in schema.items()
            if key not in ("$ref", "title", *DEFINITIONS) and (key, value) != ("default", None)
        }
        if not beside:
            return {"$ref": self._name(pointer)}
        if pointer not in self._written_out:
            self._written_out.append(pointer)
            try:
                return self.node(merged(target, beside))
            finally:
                self._written_out.pop()
        if not beside.keys() <= ANNOTATIONS:
            raise Unsupported(pointer)
        return described({"anyOf": [{"$ref": self._name(pointer)}]}, beside)

    def _name(self, pointer: str) -> str:
        if pointer == "#":
            return pointer
        if pointer not in self._names:
            name = wanted = _NOT_PLAIN.sub("_", pointer.rpartition("/")[2])
            taken = set(self._names.values())
            number = 1
            while name in taken:
                number += 1
                name = f"{wanted}{number}"
            self._names[pointer] = name
        return f"#/$defs/{self._names[pointer]}"

    def _described(self, schema: Schema) -> dict[str, Any]:
        types = types_of(schema)
        if len(types) > 1 and not {"object", "array"}.isdisjoint(types):
            bare = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
            choices = [self.node({**bare, "type": each}) for each in types]
            return described({"anyOf": choices}, schema)
        written = self.shape(schema, types)
        told = {}
        for key, value in schema.items():
            applies = _APPLIES_TO.get(key)
            read = key in written or (key in _SHAPES and key not in self.told)
            if read or applies is None:
                continue
            if applies and types and {*applies}.isdisjoint(types):
                continue
            if self.keeps(key, value, types):
                written[key] = value
            elif key in self.told:
                told[key] = value
            else:
                raise Unsupported(key)
        return described(written, schema, told)

    def shape(self, schema: Schema, types: tuple[str, ...]) -> dict[str, Any]:
        """What kind of value it is, without the bounds and the words."""
        if "anyOf" in schema or "oneOf" in schema:
            return self.union(schema)
        if constants(schema) is not None:
            return self.literal(schema, types)
        if types in (("object",), ("array",)):
            return self.object(schema) if types == ("object",) else self.array(schema)
        if not types:
            raise Unsupported(schema)
        return {"type": types[0] if len(types) == 1 else list(types)}

    def union(self, schema: Schema) -> dict[str, Any]:
        """Alternatives, with nothing beside them but words and bounds."""
        choices = schema.get("anyOf", schema.get("oneOf"))
        alone = len(_SHAPES & schema.keys()) == 1 and not types_of(schema)
        if not alone or not choices:
            raise Unsupported(schema)
        return {"anyOf": [self.node(choice) for choice in choices]}

    def literal(self, schema: Schema, types: tuple[str, ...]) -> dict[str, Any]:
        """Constants, all of them plain values."""
        if not {"object", "array"}.isdisjoint(types):
            raise Unsupported(schema)
        kept = {key: schema[key] for key in ("const", "enum") if key in schema}
        return {"type": types[0] if len(types) == 1 else list(types), **kept}

    def object(self, schema: Schema) -> dict[str, Any]:
        """An object of named properties and no others.

        What does not say whether it is open has the properties of a model or a dataclass, which
        ignores others; without any it is a free mapping, and those cannot be closed.
        """
        open_to = schema.get("additionalProperties", False)
        properties = schema.get("properties", {} if "additionalProperties" in schema else None)
        required = schema.get("required", [])
        if open_to is not False or properties is None or not properties.keys() >= {*required}:
            raise Unsupported(schema)
        parts = {
            name: self.property(name, part, required=name in required)
            for name, part in properties.items()
        }
        written: dict[str, Any] = {"type": "object", "properties": parts}
        named = [name for name in properties if self.requires(name, properties[name], required)]
        if named or "required" in schema:
            written["required"] = named
        return {**written, "additionalProperties": False}

    def requires(self, name: str, part: Any, required: list[Any]) -> bool:
        """Whether the model must write the property."""
        return name in required or self.always_written(name, part)

    def always_written(self, name: str, part: Any) -> bool:
        """Whether an optional property can be required: it tells alternatives apart.

        Validators want it even where it has a default; and where the default is the only value,
        nothing is lost.
        """
        flat = flattened(part, self.document) if isinstance(part, Mapping) else {}
        values = constants(flat)
        return values is not None and (
            name in self._tags or ("default" in flat and values == [flat["default"]])
        )

    def property(self, name: str, part: Any, *, required: bool) -> dict[str, Any]:  # noqa: ARG002
        """The schema of one property."""
        return self.node(part)

    def array(self, schema: Schema) -> dict[str, Any]:
        """An array of one kind of items; a tuple of one kind and a fixed length is one."""
        prefix = schema.get("prefixItems")
        if prefix is None:
            return {"type": "array", "items": self.node(schema.get("items"))}
        fixed = schema.get("minItems") == schema.get("maxItems") == len(prefix)
        if not fixed or not prefix or any(part != prefix[0] for part in prefix):
            raise Unsupported(schema)
        return {"type": "array", "items": self.node(prefix[0])}


def nullable(schema: Schema) -> dict[str, Any]:
    """The rewritten schema, or null."""
    words = {key: value for key, value in schema.items() if key in ANNOTATIONS}
    inner = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    choices = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    return {"anyOf": [*choices, {"type": "null"}], **words}


def described(
    written: dict[str, Any], schema: Schema, told: Schema | None = None
) -> dict[str, Any]:
    """The rewritten schema with the words of the original, and with what is only told.

    A default and examples are told where they are short: bounds are told at any length.
    """
    if isinstance(schema.get("title"), str):
        written["title"] = schema["title"]
    notes = [f"{key}: {_json(value)}" for key, value in (told or {}).items()]
    words = {key: schema[key] for key in ("default", "examples") if schema.get(key) is not None}
    texts = {key: _json(value) for key, value in words.items()}
    notes += [f"{key}: {text}" for key, text in texts.items() if len(text) <= _LONGEST_HINT]
    description = schema.get("description")
    lines = [description] if isinstance(description, str) and description else []
    if "description" in written:
        lines.append(written["description"])
    if notes:
        lines.append(f"({'; '.join(notes)})")
    if lines:
        written["description"] = "\n".join(lines)
    return written


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
