"""Lists that a stream gives in fragments, put together: parts of content, details of reasoning.

It must not know what is read from them: they go back to the server as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["is_more_than_text", "join_details", "join_parts"]

_PART_TEXTS = {
    "text": "text",
    "thinking": "thinking",
    "reasoning": "summary",  # Databricks'
    "summary_text": "text",
}
_DETAIL_TEXTS = ("text", "summary", "data")


def is_more_than_text(content: Any) -> bool:
    """Whether content is a list with a part that is no text, such as Mistral's thinking."""
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") != "text" for part in content
    )


def join_parts(pieces: Iterable[Any]) -> list[Any]:
    """The parts of content: texts that follow one another as one, and so the texts of a thought.

    Of another field the latest value counts.
    """
    joined: list[Any] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if not (isinstance(piece, dict) and isinstance(last, dict)):
            joined.append(piece)
            continue
        kind = piece.get("type")
        field = _PART_TEXTS.get(str(kind), "")
        before, more = last.get(field), piece.get(field)
        if kind != last.get("type") or type(before) is not type(more):
            joined.append(piece)
        elif isinstance(before, str) and isinstance(more, str):
            joined[-1] = {**last, **piece, field: before + more}
        elif isinstance(before, list) and isinstance(more, list):
            joined[-1] = {**last, **piece, field: join_parts([*before, *more])}
        else:
            joined.append(piece)
    return joined


def join_details(pieces: Iterable[Any]) -> list[Any]:
    """OpenRouter's reasoning details: the pieces of one entry, which follow one another, as one.

    Its texts are joined; of another field the latest value counts.
    """
    groups: list[list[Any]] = []
    for piece in pieces:
        if groups and _goes_on(groups[-1][0], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    joined: list[Any] = []
    for details in groups:
        if len(details) == 1:
            joined += details
            continue
        entry: dict[str, Any] = {}
        for name in dict.fromkeys(name for detail in details for name in detail):
            values = [detail[name] for detail in details if detail.get(name) is not None]
            text = name in _DETAIL_TEXTS and all(isinstance(value, str) for value in values)
            entry[name] = "".join(values) if text else values[-1] if values else None
        joined.append(entry)
    return joined


def _goes_on(first: Any, piece: Any) -> bool:
    """Whether a piece belongs to the entry that the first one begins."""
    if not (isinstance(first, dict) and isinstance(piece, dict)) or first.get("index") is None:
        return False
    ids = {str(each["id"]) for each in (first, piece) if each.get("id")}
    place = first.get("type"), first["index"]
    return place == (piece.get("type"), piece.get("index")) and len(ids) < 2
