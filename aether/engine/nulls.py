"""Nulls that stand for what was left out, where a provider's schemas know no optional properties.

It must not know a type: it goes by the type's schema, and by where its validation found problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

__all__ = ["Nulls"]

_REFERENCE = "#/$defs/"

Place = tuple[int | str, ...]


class Nulls:
    """The nulls in values of one schema."""

    def __init__(self, schema: dict[str, Any], definitions: dict[str, Any]) -> None:
        self._schema = schema
        self._definitions = definitions

    def left_out(self, value: Any, places: Iterable[Place]) -> Any:
        """The value without the nulls at these places, where its problems are.

        `None` if not all of them are nulls of properties that an object need not have. Of a union,
        the first alternative counts for which they are.
        """
        value = deepcopy(value)
        nulls = self._nulls(places, value, [self._schema])
        if not nulls:
            return None
        for holder, name in nulls:
            del holder[name]
        return value

    def followed(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What the schema refers to, if it is a reference; else the schema."""
        name = schema.get("$ref", "").removeprefix(_REFERENCE)
        target: dict[str, Any] = self._definitions.get(name, schema)
        return target

    def _nulls(
        self, places: Iterable[tuple[int | str, ...]], at: Any, schemas: Sequence[Any]
    ) -> list[tuple[dict[Any, Any], int | str]] | None:
        """The nulls to leave out for the problems at these places to go; `None` if one stays."""
        below: dict[int | str, list[tuple[int | str, ...]]] = {}
        for place in places:
            if not place:
                return None
            below.setdefault(place[0], []).append(place[1:])
        parts = list(self._parts(schemas))
        inside, branches = [], []
        for step, deeper in below.items():
            if not _has(at, step):  # the name of a union's branch, or of what is missing
                named = [part for part in parts if part.get("title") == step]
                branches.append(self._nulls(deeper, at, named or schemas))
            elif at[step] is not None:
                inside.append(self._nulls(deeper, at[step], list(_inside(parts, step))))
            else:
                inside.append([(at, step)] if _can_lack(parts, step) else None)
        if not inside:  # one branch is enough
            return next((nulls for nulls in branches if nulls is not None), None)
        found = [nulls for nulls in inside + branches if nulls is not None]
        whole = len(found) == len(below)
        return [null for nulls in found for null in nulls] if whole else None

    def _parts(self, schemas: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The schemas, and all that they refer to or choose from."""
        pending = list(schemas)
        followed: set[str] = set()
        while pending:
            part = pending.pop()
            if not isinstance(part, dict) or part.get("$ref") in followed:
                continue
            if "$ref" in part:
                followed.add(part["$ref"])
                pending.append(self.followed(part))
            for keyword in ("anyOf", "oneOf", "allOf"):
                pending.extend(part.get(keyword, ()))
            yield part


def _has(value: Any, step: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _can_lack(parts: Iterable[dict[str, Any]], step: int | str) -> bool:
    """Whether it is a property, and one that an object need not have."""
    return any(
        step in part.get("properties", ()) and step not in part.get("required", ())
        for part in parts
    )


def _inside(parts: Iterable[dict[str, Any]], step: int | str) -> Iterator[Any]:
    """The schemas of what an object has under a name, or an array at an index."""
    for part in parts:
        if isinstance(step, str):
            properties = part.get("properties", {})
            yield properties.get(step, part.get("additionalProperties"))
        else:
            fixed = part.get("prefixItems", [])
            yield fixed[step] if step < len(fixed) else part.get("items")
