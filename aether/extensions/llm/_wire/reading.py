"""Reading decoded JSON: the types that a protocol promises, or a `ProtocolError`.

It must not know a protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Sized
from typing import Any, TypedDict, TypeVar

from pydantic_core import from_json

from aether.errors import ProtocolError
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.large_json import ReadDocument

__all__ = [
    "MAX_MEMBERS",
    "Tokens",
    "check_number",
    "count",
    "count_of_some",
    "counted",
    "decode",
    "decode_any",
    "expect",
    "expect_list",
    "first_count",
    "inner",
    "listed",
    "reported_cost",
    "unless_less",
]

T = TypeVar("T")

MAX_MEMBERS = 2048
"""So many calls, items or parts one answer has at most."""

_EXCERPT = 200
_REDACTED = 16 * 1024  # more than the excerpt: no key that begins in that is cut in two
_SEARCHED = 64 * 1024
_MOST = sys.float_info.max
_IMPOSSIBLE = 10**12  # tokens: what models read and write in one answer ends far below
_TICKS = 10**10  # that xAI counts to a dollar


class Tokens(TypedDict, total=False):
    """What an answer used, as an `LLMResponse` has it. Unknown is `None`, or left out."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    token_details: dict[str, int]
    cost_usd: float | None


def decode(body: bytes, source: Source) -> dict[str, Any]:
    """The JSON object that a body of status 200 holds. Of a list, its first object: so an error
    may come.
    """
    value = decode_any(body, source)
    if type(value) is dict:
        return value
    if type(value) is list and value and type(value[0]) is dict:
        return value[0]
    return expect(value, dict, "body", source)


def decode_any(body: bytes, source: Source) -> Any:
    """The JSON that a body of status 200 holds."""
    if type(body) is ReadDocument:
        return body.value
    try:
        return from_json(body)
    except ValueError as error:
        shown = body[:_SEARCHED].lstrip()[:_REDACTED].decode("utf-8", "replace")
        said = source.redact(shown).strip()[:_EXCERPT]
        raise source.error(
            ProtocolError,
            f"{source.provider} answered 200 with "
            + (f"what is not JSON: {said}" if said else "an empty body."),
            status=200,
        ) from error


def expect(value: Any, kind: type[T], name: str, source: Source) -> T:
    """The value if it is of that type; an empty one for none; else `ProtocolError`. For a list,
    whose length is to be looked at too, there is `expect_list`.
    """
    if isinstance(value, kind):
        return value
    if value is None:
        return kind()
    raise source.error(
        ProtocolError,
        f"{source.provider} gave a {name} of type {type(value).__name__}, "
        f"where the protocol has a {kind.__name__}.",
    )


def check_number(members: Sized, name: str, source: Source) -> None:
    """`ProtocolError` for more members than any answer has: each is read in the same step of the
    loop.
    """
    if len(members) > MAX_MEMBERS:
        raise source.error(
            ProtocolError, f"{source.provider} gave more than {MAX_MEMBERS} members of {name}."
        )


def expect_list(value: Any, name: str, source: Source) -> list[Any]:
    """The value if it is a list of at most `MAX_MEMBERS`; an empty one for none; else
    `ProtocolError`.
    """
    if type(value) is list and len(value) <= MAX_MEMBERS:
        return value
    members: list[Any] = expect(value, list, name, source)
    check_number(members, name, source)
    return members


def listed(fields: dict[str, Any], name: str, source: Source) -> list[Any]:
    """The list of that name; an empty one for none."""
    return expect_list(fields.get(name), name, source)


def inner(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """The object of that name; an empty one for anything else."""
    found = fields.get(name)
    return found if type(found) is dict else {}


def count(value: object) -> int | None:
    """A count. What is no whole number of at least 0, or beyond all that can be, is not known."""
    return value if type(value) is int and 0 <= value < _IMPOSSIBLE else None


def count_of_some(value: object) -> int | None:
    """A count of what there is some of: a server that says 0 has not counted."""
    return count(value) or None


def unless_less(whole: int | None, *parts: int | None) -> int | None:
    """A count; not known where its parts are told to be more, as one of them must be wrong."""
    if whole is None or sum(part or 0 for part in parts) > whole:
        return None
    return whole


def counted(**parts: object) -> dict[str, int]:
    """The parts that are counts above 0."""
    return {name: tokens for name, value in parts.items() if value and (tokens := count(value))}


def first_count(*values: object) -> int | None:
    """The first of the values that is a count."""
    return next((found for found in map(count, values) if found is not None), None)


def reported_cost(usage: dict[str, Any]) -> float | None:
    """What the server says that an answer cost, in US dollars: xAI, Perplexity and OpenRouter do.

    OpenRouter names the price of a call over a key of one's own apart from its fee. A bare `cost`
    of anybody else is of no known currency.
    """
    ticks = _amount(usage["cost_in_usd_ticks"]) if "cost_in_usd_ticks" in usage else None
    if ticks is not None:
        return ticks / _TICKS
    if "cost" not in usage:
        return None
    cost, details = usage["cost"], usage.get("cost_details")
    if isinstance(cost, dict):
        return _amount(cost.get("total_cost"))
    if not isinstance(details, dict):
        return None
    fee = _amount(cost)
    if not usage.get("is_byok"):
        return fee
    price = _amount(details.get("upstream_inference_cost"))
    return None if fee is None or price is None else fee + price


def _amount(value: Any) -> float | None:
    known = type(value) in (int, float) and 0 <= value <= _MOST
    return float(value) if known else None
