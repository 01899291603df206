"""Schemas that were rewritten before: a client sends the same few with each of its requests.

Rewriting costs some ten times as much as the JSON of a schema, and twenty tools need it twenty
times. What is remembered is text, from the text of the schema: dicts may be changed by whoever
holds them, and two that are equal may list their properties in different orders, which a model
follows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

__all__ = ["remembered"]

_MOST = 128


def remembered(
    rewrite: Callable[[Any], dict[str, Any] | None],
) -> Callable[[Any], dict[str, Any] | None]:
    """The same function, which works once for each schema of the latest ones.

    Its results are the caller's own. A schema that is no JSON is rewritten each time.
    """

    @functools.lru_cache(maxsize=_MOST)
    def rewritten(text: str) -> str | None:
        written = rewrite(json.loads(text))
        return None if written is None else json.dumps(written)

    @functools.wraps(rewrite)
    def remembering(schema: Any) -> dict[str, Any] | None:
        try:
            written = rewritten(json.dumps(schema))
        except (TypeError, ValueError, RecursionError):
            return rewrite(schema)
        if written is None:
            return None
        found: dict[str, Any] = json.loads(written)
        return found

    return remembering
