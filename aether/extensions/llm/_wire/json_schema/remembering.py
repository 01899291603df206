"""Schemas that were rewritten before: a client sends the same few with each of its requests.

What is remembered is text, from the text of the schema: dicts may be changed by whoever holds
them, and two that are equal may list their properties in different orders, which a model follows.
It must not know a provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aether.extensions.llm._wire.json_schema.reading import Unsupported
from aether.extensions.llm._wire.json_schema.walking import Walk

__all__ = ["rewritten"]

_as_text = json.JSONEncoder(default=str).encode
_as_value = json.JSONDecoder().decode


def rewritten(schema: Any, walk: Callable[[Any], Walk]) -> dict[str, Any] | None:
    """The schema in the subset of the walk; `None` where it has no form there.

    What is no JSON counts as its text. The result is the caller's own.
    """
    try:
        text = _as_text(schema)
    except (TypeError, ValueError, RecursionError):  # names that are no text; one without an end
        return None
    written: dict[str, Any] | None = _as_value(_remembered(text, walk))
    return written


@lru_cache(maxsize=128)
def _remembered(text: str, walk: Callable[[Any], Walk]) -> str:
    try:
        return _as_text(walk(_as_value(text)).rewritten())
    except (Unsupported, RecursionError):
        return "null"
