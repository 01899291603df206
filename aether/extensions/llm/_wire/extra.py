"""What a caller adds to the body of a request, for what Aether has no word for.

It must not know a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aether.errors import InputError

__all__ = ["laid_over"]


def laid_over(body: dict[str, Any], extra: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """The body with the fields of `extra` over its own; itself, if there are none.

    Objects are merged field by field, unless they have another `type`, and `tools` are added behind
    those that are offered: so what is added takes nothing away. `InputError` for a `stream` that
    contradicts the call.
    """
    if not extra:
        return body
    if extra.get("stream", stream) is not stream:
        raise InputError(
            "extra_body sets stream against the call. Leave it out: stream() asks for a stream, "
            "complete() and ask() for a whole answer."
        )
    made = _merged(body, extra)
    if "tools" in body and isinstance(extra.get("tools"), list | tuple):
        made["tools"] = [*body["tools"], *extra["tools"]]
    return made


def _merged(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    made = {**fields, **extra}
    for name, value in extra.items():
        own = fields.get(name)
        if not isinstance(value, Mapping) or not isinstance(own, Mapping):
            continue
        if value.get("type", own.get("type")) == own.get("type"):
            made[name] = _merged(own, value)
    return made
