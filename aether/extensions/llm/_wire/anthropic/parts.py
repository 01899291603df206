"""From content parts to blocks: text, images and documents.

It must not know messages. What the API takes of no model is an `InputError`.
"""

from __future__ import annotations

from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.media import base64_of, check_type, check_url
from aether.llm.content import CachePoint, FilePart, ImagePart, TextPart

__all__ = ["block_of", "text_block"]

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_TEXT_TYPES = ("application/json", "application/xml", "application/yaml")

Block = dict[str, Any]


def text_block(text: str) -> Block | None:
    """The text as a block; `None` if it says nothing, which is refused."""
    return {"type": "text", "text": text} if text.strip() else None


def block_of(part: Any, place: str) -> Block | None:
    """The part as a block; `None` for text that says nothing, which is refused.

    `place` is where it stands, for an error.
    """
    if isinstance(part, CachePoint):
        return None
    if isinstance(part, TextPart):
        return text_block(part.text)
    if isinstance(part, ImagePart):
        return _image(part, place)
    if isinstance(part, FilePart):
        return _document(part, place)
    raise InputError(f"{place} is of type {part.type}, which Anthropic does not take.")


def _image(part: ImagePart, place: str) -> Block:
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": check_url(part, place)}}
    check_type(part, place, takes=_IMAGE_TYPES, provider="Anthropic")
    source = {"type": "base64", "media_type": part.media_type, "data": base64_of(part)}
    return {"type": "image", "source": source}


def _document(part: FilePart, place: str) -> Block:
    named = {"title": part.name} if part.name else {}
    return {"type": "document", "source": _source(part, place), **named}


def _source(part: FilePart, place: str) -> Block:
    media_type = part.media_type or _PDF
    if media_type == _PDF:
        if part.url is not None:
            return {"type": "url", "url": check_url(part, place)}
        return {"type": "base64", "media_type": _PDF, "data": base64_of(part)}
    if not media_type.startswith("text/") and media_type not in _TEXT_TYPES:
        raise InputError(
            f"{place} is a file of type {media_type}: Anthropic takes {_PDF} and text."
        )
    if part.data is None:
        raise InputError(
            f"{place} is a file of type {media_type} by its URL, from where Anthropic fetches PDF "
            "alone: pass its data."
        )
    try:
        text = part.data.decode()
    except UnicodeDecodeError:
        raise InputError(
            f"{place} is a file of type {media_type} that is not UTF-8, the only encoding of text "
            "that Anthropic takes."
        ) from None
    return {"type": "text", "media_type": "text/plain", "data": text}
