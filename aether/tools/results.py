"""Results as text: what a model is told of what a tool returned.

It must not know how a tool is run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import inspect
import json
import math
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from enum import Enum
from itertools import islice
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

__all__ = ["bounded", "render_bounded", "render_result", "render_small"]

MAX_DEPTH = 200
LARGE = 32 * 1024
"""A value with fewer characters and members than this, of the types that JSON has, is written at
once: that takes some milliseconds at most."""

_SCALARS = frozenset({int, float, bool, type(None)})
_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_TURN = 1000
"""So many pieces of a larger one are written before the rest of the loop has its turn."""


def render_result(value: object) -> str:
    """A string as it is, anything else as JSON.

    Enumerations count as their values, pydantic models and dataclasses as objects, sets as sorted
    arrays, dates, decimals, paths and the like as strings, numbers that JSON does not have as
    `"NaN"` or `"Infinity"`, and bytes as their number (`"<3 bytes>"`). `TypeError` or `ValueError`
    for what has no JSON form: a generator or coroutine, an object of another class, a structure
    that contains itself.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str(value)
    try:
        return _as_json(value)
    except (TypeError, ValueError, RecursionError):  # what plain JSON does not have is in it
        return "".join(_written(value, 0, math.inf))


async def render_bounded(value: object, limit: int) -> str:
    """What `render_result` says, as `bounded` cuts it; raises as `render_result` does.

    Of a value that is not small no more is written than is shown, and the rest of the loop has its
    turns meanwhile: what stands behind that is not looked at. What pydantic writes, a model or a
    type of another library, is written in one go.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str) or _is_small(value):
        return bounded(render_result(value), limit)
    pieces: list[str] = []
    size = 0
    for number, piece in enumerate(_written(value, 0, limit), 1):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return _cut("".join(pieces), limit, f"more than {limit}")
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return bounded("".join(pieces), limit)


def render_small(value: object, limit: int) -> str | None:
    """What `render_bounded` says, of a small value of the types that JSON has; else `None`.

    It runs no code but its own, and takes no time to speak of.
    """
    if not _is_small(value):
        return None
    try:
        if isinstance(value, str):
            return bounded(value, limit)
        # What JSON makes of a number, without what it sets up for all that may be nested.
        return bounded(repr(value) if type(value) is int else _as_json(value), limit)
    except (TypeError, ValueError, RecursionError):  # a number or a key that JSON does not have
        return None


def bounded(text: str, limit: int) -> str:
    """The text, cut to `limit` bytes of UTF-8 with a mark that says so.

    Half surrogates, which UTF-8 does not have, become question marks, and a text of a class of its
    own a plain one. However long the text is, no more of it is read than may be shown.
    """
    if len(text) <= limit and text.isascii():
        return str.__str__(text)
    data = text[:limit].encode("utf-8", "replace")
    if len(text) <= limit and len(data) <= limit:
        return data.decode("utf-8")
    return _cut(text, limit, str(len(text)))


def _cut(text: str, limit: int, size: str) -> str:
    data = text[:limit].encode("utf-8", "replace")
    mark = f"\n[truncated: {size} characters, of which at most {limit} bytes are shown]"
    return data[: max(0, limit - len(mark))].decode("utf-8", "ignore") + mark


def _is_small(value: object) -> bool:
    if type(value) in _SCALARS:
        return True
    size = 0
    parts = [value]
    for part in parts:
        kind = type(part)
        if kind is str or kind is dict or kind is list or kind is tuple:
            size += len(part)  # type: ignore[arg-type]  # they have all a length
            if size > LARGE:
                return False
            if kind is not str:
                parts += part  # type: ignore[arg-type]  # a dict's keys
                if kind is dict:
                    parts += part.values()  # type: ignore[attr-defined]
        elif kind not in _SCALARS:
            return False
    return True


def _written(value: Any, depth: int, limit: float) -> Iterator[str]:
    """The value as JSON, piece by piece. Of a text no more than `limit` characters are needed."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it contains itself, or is nested more than {MAX_DEPTH} levels deep")
    depth += 1
    match value:
        case Enum():
            yield from _written(value.value, depth, limit)
        case str():
            yield _as_json(value if len(value) <= limit else value[: int(limit) + 1])
        case None | bool() | int():
            yield _as_json(value)
        case float():
            finite = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            yield _as_json(value if math.isfinite(value) else finite)
        case bytes() | bytearray():
            yield f'"<{len(value)} bytes>"'
        case memoryview():
            yield f'"<{value.nbytes} bytes>"'
        case BaseModel():
            yield from _written(value.model_dump(mode="json"), depth, limit)
        case Mapping():
            yield from _object(value.items(), depth, limit)
        case set() | frozenset():
            yield from _set(value, depth, limit)
        case list() | tuple() | deque() | KeysView() | ValuesView() | ItemsView():
            yield "["
            for number, item in enumerate(value):
                if number:
                    yield ", "
                yield from _written(item, depth, limit)
            yield "]"
        case Awaitable() | Iterator() | AsyncIterator():
            if inspect.iscoroutine(value):
                value.close()  # it would warn that nobody awaited it
            raise TypeError(f"a {type(value).__name__} is no data")
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            items = ((field.name, getattr(value, field.name)) for field in fields)
            yield from _object(items, depth, limit)
        case _:
            yield from _written(_foreign(value), depth, limit)


def _object(items: Iterable[tuple[Any, Any]], depth: int, limit: float) -> Iterator[str]:
    yield "{"
    for number, (key, item) in enumerate(items):
        if number:
            yield ", "
        name = "".join(_written(key, depth, limit))
        yield name if name.startswith('"') else _as_json(name)
        yield ": "
        yield from _written(item, depth, limit)
    yield "}"


def _set(value: Iterable[Any], depth: int, limit: float) -> Iterator[str]:
    """In order, whole: sorted in runs, with a piece of nothing after each."""
    runs: list[list[str]] = []
    members = iter(value)
    while some := list(islice(members, _TURN)):
        runs.append(sorted("".join(_written(member, depth, limit)) for member in some))
        yield from [""] * len(some)
    yield "["
    for number, text in enumerate(heapq.merge(*runs)):
        if number:
            yield ", "
        yield text
    yield "]"


def _foreign(value: Any) -> Any:
    try:
        return to_jsonable_python(value, inf_nan_mode="strings")
    except ValueError:
        raise TypeError(f"a {type(value).__name__} has no JSON form") from None
