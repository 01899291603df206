"""Arguments: from what a model sent to what a function is called with.

It must not know signatures, nor who calls the function.
"""

from __future__ import annotations

import copy
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python

from aether.llm.messages import MAX_JSON_PARTS, has_too_many_parts

__all__ = ["ArgumentValidator", "copy_arguments", "require_names"]

MAX_DEPTH = 64
_MAX_PROBLEMS = 10


def copy_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy, so that nobody changes the recorded call.

    `ValueError` for numbers that are none, for what is nested more than 64 levels deep or has more
    than 65,536 values, and for objects that JSON does not have and that cannot be copied.
    """
    if len(arguments) <= MAX_JSON_PARTS and _SHARED.issuperset(map(type, arguments.values())):
        return dict(arguments)  # as most are
    if has_too_many_parts(arguments):
        raise ValueError(
            f"more than {MAX_JSON_PARTS} values, or nested more than {MAX_DEPTH} levels deep"
        )
    return {name: _copied(value, 1) for name, value in arguments.items()}


_PLAIN = frozenset({str, int, float, type(None)})
"""Types of values in which there is no boolean."""
_SHARED = frozenset({str, int, bool, type(None)})
"""Types whose values a copy may share: they cannot change, and JSON has all of them."""


def _copied(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _SHARED:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number that JSON has")
        return value
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if kind is dict:
        if _SHARED.issuperset(map(type, value.values())):
            return value.copy()
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    if kind is list:
        if _SHARED.issuperset(map(type, value)):
            return value.copy()
        return [_copied(item, depth + 1) for item in value]
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ValueError(f"a {kind.__name__} cannot be copied: {error}") from error


def require_names(parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are, or `ValueError` if one is missing that `parameters` requires."""
    missing = [name for name in parameters.get("required", ()) if name not in arguments]
    if missing:
        raise ValueError("; ".join(f"{name}: is required but missing" for name in missing))
    return dict(arguments)


class ArgumentValidator:
    """Validates and coerces arguments by pydantic's lax rules, except that no boolean is a number.

    Called with a call's arguments it returns keyword arguments as Python objects, defaults filled
    in; it raises `ValueError` that tells a model, argument by argument, what is wrong.
    """

    __slots__ = ("_adapter", "_definitions", "_others", "_properties", "_validate")

    def __init__(self, adapter: TypeAdapter[dict[str, Any]], parameters: Mapping[str, Any]) -> None:
        self._adapter = adapter
        self._validate: Callable[[object], dict[str, Any]] = adapter.validator.validate_python
        self._properties: Mapping[str, Any] = parameters["properties"]
        self._others: Any = parameters["additionalProperties"]
        self._definitions: Mapping[str, Any] = parameters.get("$defs", {})

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            validated = self._validate(arguments)
        except ValidationError as error:
            raise ValueError(self._explain(error)) from None
        name = self._counted(arguments, validated)
        if name is None:
            return validated
        with suppress(ValueError):
            validated = self._validate_as_json(arguments)
            if self._counted(arguments, validated) is None:
                return validated
        raise ValueError(f"{name}: has a boolean where a number is expected")

    def _validate_as_json(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Of a union's members pydantic takes the one that fits exactly, and in Python no list is
        exactly a tuple or a set: there a member that counts booleans may come before one that fits.
        """
        return self._adapter.validate_json(to_json(arguments, inf_nan_mode="constants"))

    def _counted(self, arguments: Mapping[str, Any], validated: Mapping[str, Any]) -> str | None:
        """The first argument in which a boolean was taken for a number."""
        if _PLAIN.issuperset(map(type, arguments.values())):
            return None  # as most are
        for name, value in arguments.items():
            if not isinstance(value, (bool, list, dict)):
                continue
            schema = self._properties.get(name, self._others)
            match = _match(value, schema, self._definitions)
            if match == _MISPLACED or (match < _FITS and _is_counted(value, validated[name])):
                return name
        return None

    def _explain(self, error: ValidationError) -> str:
        problems = error.errors(include_url=False, include_context=False)
        told = [self._tell(problem) for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > len(told):
            told.append(f"and {len(problems) - len(told)} more")
        return "; ".join(told)

    def _tell(self, problem: Mapping[str, Any]) -> str:
        where = _path(problem["loc"])
        match problem["type"]:
            case "missing":
                return f"{where}: is required but missing"
            case "extra_forbidden" if len(problem["loc"]) == 1:
                known = ", ".join(self._properties) or "no arguments"
                return f"{where}: is unknown; the tool takes {known}"
            case "extra_forbidden":
                return f"{where}: is unknown"
        return f"{where}: {problem['msg']}, got {_echo(problem['input'])}"


def _path(location: Sequence[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "arguments"


def _echo(value: Any) -> str:
    names = {dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value)) or reprlib.repr(value)


_MISPLACED, _FOREIGN, _EITHER, _FITS = range(4)


def _match(value: Any, schema: Any, definitions: Mapping[str, Any]) -> int:
    """Whether a boolean in `value` stands where `schema` has a number and no boolean.

    Python's booleans are integers, and pydantic takes them for numbers at any depth; the schema
    says where that happened. A value of another type than the schema's is foreign: in a union
    it says nothing. Where a union has it both ways, it is either.
    """
    if not isinstance(schema, Mapping):
        return _FITS
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        matches = [_match(value, branch, definitions) for branch in branches]
        if max(matches) < _EITHER:
            return min(matches)
        return _EITHER if _MISPLACED in matches or _EITHER in matches else _FITS
    expected = schema.get("type")
    if isinstance(value, bool):
        if "enum" in schema:  # a mixed one has no type, and `True == 1`
            return _FITS if any(each is value for each in schema["enum"]) else _MISPLACED
        if expected in ("integer", "number"):
            return _MISPLACED
        return _FITS if expected in (None, "boolean") else _FOREIGN
    if isinstance(value, list):
        if expected not in (None, "array"):
            return _FOREIGN
        first, rest = schema.get("prefixItems", ()), schema.get("items")
        schemas = [*first[: len(value)], *[rest] * (len(value) - len(first))]
        pairs = list(zip(value, schemas, strict=True))
    elif isinstance(value, dict):
        if expected not in (None, "object"):
            return _FOREIGN
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        pairs = [(item, known.get(name, others)) for name, item in value.items()]
    else:
        return _FITS if _could_be(value, expected) else _FOREIGN
    return min((_match(item, part, definitions) for item, part in pairs), default=_FITS)


def _could_be(value: Any, expected: str | None) -> bool:
    """Whether what is neither an array nor an object nor a boolean may be read as this type."""
    match expected:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, str) or value in (0, 1)
        case "array" | "object":
            return False
    return expected is None or value is not None


def _is_counted(sent: Any, made: Any) -> bool:
    """Whether a boolean in what was sent is a number in what pydantic has made of it."""
    try:
        return _has_number_for_boolean(sent, to_jsonable_python(made, inf_nan_mode="constants"))
    except ValueError:
        return False  # an author's own class: its validation is theirs


def _has_number_for_boolean(sent: Any, made: Any) -> bool:
    if isinstance(sent, bool):
        return isinstance(made, int | float) and not isinstance(made, bool)
    if isinstance(sent, list) and isinstance(made, list) and len(sent) == len(made):
        return any(map(_has_number_for_boolean, sent, made))
    if isinstance(sent, dict) and isinstance(made, dict):
        return any(_has_number_for_boolean(sent[key], made[key]) for key in sent.keys() & made)
    return False
