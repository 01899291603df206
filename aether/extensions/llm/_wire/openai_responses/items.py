"""Items: what an answer consists of, and what each kind of them says.

It must not know how they came, nor how they go back. Items of kinds that are not known are left
as they are: a server's own tools make new ones all the time.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic_core import to_json

from aether.errors import ProtocolError
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.reading import expect, listed
from aether.llm.content import ImagePart
from aether.llm.messages import ToolCall, new_call_id

__all__ = [
    "CALL_ARGUMENTS",
    "CUSTOM_INPUT",
    "Item",
    "Piece",
    "begun",
    "calls_in",
    "checked",
    "has_calls",
    "has_unread",
    "images_in",
    "is_commentary",
    "is_cut",
    "is_plain",
    "pieces",
    "reasoning_in",
    "refused",
    "text_in",
]

Item = dict[str, Any]

CALL_ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The kinds of items that call a tool of the caller's, and where each has its arguments."""
CUSTOM_INPUT = "input"
"""The one argument of a call whose input is free text."""

Kind = Literal["text", "refusal", "summary", "reasoning"]

_PART_TEXTS = {
    "output_text": "text",
    "text": "text",  # some servers' word for the same
    "refusal": "refusal",
    "reasoning_text": "text",
    "summary_text": "text",
}
"""The parts that hold text, and the field where each has it."""
_UNFINISHED = ("incomplete", "in_progress", "failed", "cancelled")
_PLAIN_MESSAGE = {"type", "id", "status", "role", "content"}
_PLAIN_CALL = {"type", "id", "status", "call_id", "name", "arguments"}


class Piece(NamedTuple):
    """A text inside an item, by its kind and its place among the others."""

    kind: Kind
    place: int
    text: str


def begun(value: Any, source: Source) -> Item:
    """An item that may not be whole yet, if what is read of it has the types that the protocol
    promises.
    """
    item = expect(value, dict, "output item", source)
    for field in ("type", "name", "call_id"):
        if field in item:
            expect(item[field], str, f"{field} of an output item", source)
    return item


def checked(value: Any, source: Source) -> Item:
    """The same of an item that is whole. A call gets an id of its own if it came without one."""
    item = begun(value, source)
    kind = item.get("type")
    if not kind:
        raise source.error(ProtocolError, f"{source.provider} gave an output item without a type.")
    if kind == "message" and not isinstance(item.get("content"), str):
        _check_parts(item, "content", source)
        if any(part and not part.get("type") for part in item.get("content") or ()):
            raise source.error(
                ProtocolError, f"{source.provider} gave a content part without a type."
            )
    elif kind == "reasoning":
        _check_parts(item, "summary", source)
        _check_parts(item, "content", source)
    elif kind in CALL_ARGUMENTS:
        if not item.get("name"):
            raise source.error(ProtocolError, f"{source.provider} gave a tool call without a name.")
        field = CALL_ARGUMENTS[kind]
        arguments = item.get(field)
        if isinstance(arguments, dict):
            arguments = to_json(arguments).decode()
        arguments = expect(arguments, str, f"tool call's {field}", source)
        item = {**item, field: arguments, "call_id": item.get("call_id") or new_call_id()}
    return item


def pieces(item: Mapping[str, Any]) -> Sequence[Piece]:
    """The texts of a message or of reasoning, in order. Of reasoning that is told both in full and
    in a summary, the full text.
    """
    kind = item.get("type")
    if kind == "message":
        return _texts(item.get("content"), "text")
    if kind != "reasoning":
        return ()
    full = [piece for piece in _texts(item.get("content"), "reasoning") if piece.text]
    return full or _texts(item.get("summary"), "summary")


def is_commentary(item: Mapping[str, Any]) -> bool:
    """Whether a message tells what the model is about to do, and is not the answer."""
    return item.get("type") == "message" and item.get("phase") == "commentary"


def text_in(items: Iterable[Item], *, commentary: bool = False) -> str:
    """The text of the answer, or that of all its commentary."""
    said: list[str] = []
    for item in items:
        if item.get("type") == "message" and is_commentary(item) is commentary:
            said += [piece.text for piece in pieces(item) if piece.kind == "text"]
    return "".join(said)


def reasoning_in(items: Iterable[Item]) -> str:
    """What was said on the way to the answer, its pieces apart by an empty line."""
    said: list[str] = []
    for item in items:
        if item.get("type") == "reasoning" or is_commentary(item):
            said += [piece.text for piece in pieces(item) if piece.text and piece.kind != "refusal"]
    return "\n\n".join(said)


def refused(items: Iterable[Item]) -> bool:
    """Whether the model refused to answer."""
    return any(piece.kind == "refusal" for item in items for piece in pieces(item))


def has_unread(items: Iterable[Item]) -> bool:
    """Whether one of them says something of a kind that is not read: it asks for what only the
    caller can do, or has what the server's tools have done.
    """
    for item in items:
        parts = item.get("content") if item.get("type") == "message" else ()
        unread = isinstance(parts, list) and any(
            part and str(part.get("type")) not in _PART_TEXTS for part in parts
        )
        if unread or item.get("type") not in ("message", "reasoning", *CALL_ARGUMENTS):
            return True
    return False


def is_cut(items: Iterable[Item]) -> bool:
    """Whether a message lacks its end, whatever is said of the answer. Some servers never come to
    say that one is complete.
    """
    return any(
        item.get("type") == "message" and item.get("status") == "incomplete" for item in items
    )


def calls_in(
    items: Iterable[Item], source: Source | None = None, *, cut: bool = False
) -> list[ToolCall]:
    """The calls, each with an id of its own, and with what the source must see again of it. A call
    that was cut off before it had arguments is not one without arguments, and one that the server
    says is not whole has none, however whole they look.
    """
    made: list[ToolCall] = []
    seen: set[str] = set()
    for item in items:
        kind = item.get("type")
        field = CALL_ARGUMENTS.get(str(kind))
        if field is None:
            continue
        name, call_id = str(item.get("name")), str(item.get("call_id"))
        arguments = item.get(field) or ""
        if call_id in seen:
            call_id = new_call_id()
        seen.add(call_id)
        if item.get("status") in _UNFINISHED:
            made.append(ToolCall(call_id, name, invalid_arguments=arguments))
        elif kind == "custom_tool_call":
            made.append(
                ToolCall(
                    call_id,
                    name,
                    {CUSTOM_INPUT: arguments},
                    provider_state={} if source is None else kept_state({"type": kind}, source),
                )
            )
        elif not arguments and cut:
            made.append(ToolCall(call_id, name, invalid_arguments=""))
        else:
            made.append(ToolCall.parse(call_id, name, arguments))
    return made


def has_calls(items: Iterable[Item]) -> bool:
    """Whether there are any."""
    return any(item.get("type") in CALL_ARGUMENTS for item in items)


def images_in(items: Iterable[Item]) -> Iterator[ImagePart]:
    """The images that the server's own tool has made."""
    for item in items:
        result = item.get("result")
        if item.get("type") == "image_generation_call" and isinstance(result, str) and result:
            form = item.get("output_format")
            media_type = f"image/{form if isinstance(form, str) else 'png'}"
            try:
                image = ImagePart(data=b64decode(result, validate=True), media_type=media_type)
            except ValueError:
                continue  # it stays in the state, as it came
            yield image


def is_plain(items: Sequence[Item]) -> bool:
    """Whether text and calls say all that the items do, so that none of them need be kept."""
    for position, item in enumerate(items):
        kind = item.get("type")
        if kind == "message":
            parts = item.get("content")
            if position or item.keys() - _PLAIN_MESSAGE or not isinstance(parts, list):
                return False
            part = parts[0] if len(parts) == 1 else None
            if not isinstance(part, dict) or part.get("type") != "output_text":
                return False
            if part.get("annotations"):
                return False
        elif kind != "function_call" or item.keys() - _PLAIN_CALL:
            return False
    return True


def _check_parts(item: Item, name: str, source: Source) -> None:
    for part in listed(item, name, source):
        fields = expect(part, dict, "content part", source)
        field = _PART_TEXTS.get(str(fields.get("type")))
        if field is not None:
            expect(fields.get(field), str, "content part's text", source)


def _texts(parts: Any, kind: Kind) -> list[Piece]:
    if isinstance(parts, str):
        return [Piece(kind, 0, parts)]
    found: list[Piece] = []
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        field = _PART_TEXTS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if field is not None:
            text = part.get(field)
            said = text if isinstance(text, str) else ""
            found.append(Piece("refusal" if field == "refusal" else kind, index, said))
    return found
