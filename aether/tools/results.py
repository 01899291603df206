"""Results as text: what a model is told of what a tool returned.

It must not know how a tool is run.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

__all__ = ["bounded", "render_result"]

MAX_DEPTH = 200


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
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # what plain JSON does not have is in it
        return json.dumps(_plain(value, 0), ensure_ascii=False, allow_nan=False)


def bounded(text: str, limit: int) -> str:
    """The text, cut to `limit` bytes of UTF-8 with a mark that says so.

    Half surrogates, which UTF-8 does not have, become question marks. However long the text is,
    no more of it is read than may be shown.
    """
    if len(text) <= limit and text.isascii():
        return text
    data = text[:limit].encode("utf-8", "replace")
    if len(text) <= limit and len(data) <= limit:
        return data.decode("utf-8")
    mark = f"\n[truncated: {len(text)} characters, of which at most {limit} bytes are shown]"
    return data[: max(0, limit - len(mark))].decode("utf-8", "ignore") + mark


def _plain(value: Any, depth: int) -> Any:
    """The value in the types that JSON has."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it contains itself, or is nested more than {MAX_DEPTH} levels deep")
    depth += 1
    match value:
        case Enum():
            return _plain(value.value, depth)
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case memoryview():
            return f"<{value.nbytes} bytes>"
        case BaseModel():
            return _plain(value.model_dump(mode="json"), depth)
        case Mapping():
            return {_key(key, depth): _plain(item, depth) for key, item in value.items()}
        case set() | frozenset():
            return sorted((_plain(item, depth) for item in value), key=json.dumps)
        case list() | tuple() | deque() | KeysView() | ValuesView() | ItemsView():
            return [_plain(item, depth) for item in value]
        case Awaitable() | Iterator() | AsyncIterator():
            if inspect.iscoroutine(value):
                value.close()  # it would warn that nobody awaited it
            raise TypeError(f"a {type(value).__name__} is no data")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), depth)
            for field in dataclasses.fields(value)
        }
    try:
        return to_jsonable_python(value, inf_nan_mode="strings")
    except ValueError:
        raise TypeError(f"a {type(value).__name__} has no JSON form") from None


def _key(key: Any, depth: int) -> str:
    plain = _plain(key, depth)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
