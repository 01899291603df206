"""From content parts to blocks: text, images and documents.

It must not know messages. What the API takes of no model is an `InputError`.
"""

from __future__ import annotations

from typing import Any

from aether.errors import InputError
from aether.extensions.llm._wire.media import base64_of, check_url
from aether.llm.content import CachePoint, FilePart, ImagePart, TextPart

__all__ = ["block_of"]

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_TEXT_TYPES = ("application/json", "application/xml", "application/yaml")

Block = dict[str, Any]


def block_of(part: Any, position: int) -> Block | None:
    """The part as a block; `None` for text that says nothing, which is refused."""
    if isinstance(part, CachePoint):
        return None
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None
    if isinstance(part, ImagePart):
        return _image(part, position)
    if isinstance(part, FilePart):
        return _document(part, position)
    raise InputError(f"Message {position} has a part of type {part.type}: Anthropic takes none.")


def _image(part: ImagePart, position: int) -> Block:
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": check_url(part, position)}}
    media_type = "image/jpeg" if part.media_type == "image/jpg" else part.media_type
    if media_type not in _IMAGE_TYPES:
        raise InputError(
            f"Message {position} has an image of type {part.media_type}: Anthropic takes "
            f"{', '.join(_IMAGE_TYPES)}."
        )
    source = {"type": "base64", "media_type": media_type, "data": base64_of(part)}
    return {"type": "image", "source": source}


def _document(part: FilePart, position: int) -> Block:
    named = {"title": part.name} if part.name else {}
    return {"type": "document", "source": _source(part, position), **named}


def _source(part: FilePart, position: int) -> Block:
    media_type = (part.media_type or _PDF).partition(";")[0].strip().lower()
    if media_type == _PDF:
        if part.url is not None:
            return {"type": "url", "url": check_url(part, position)}
        return {"type": "base64", "media_type": _PDF, "data": base64_of(part)}
    if not media_type.startswith("text/") and media_type not in _TEXT_TYPES:
        raise InputError(
            f"Message {position} has a file of type {media_type}: Anthropic takes {_PDF} and text."
        )
    if part.data is None:
        raise InputError(
            f"Message {position} has a file of type {media_type} by its URL, from where Anthropic "
            "fetches PDF alone: pass its data."
        )
    try:
        text = part.data.decode()
    except UnicodeDecodeError:
        raise InputError(
            f"Message {position} has a file of type {media_type} that is not UTF-8, the only "
            "encoding of text that Anthropic takes."
        ) from None
    return {"type": "text", "media_type": "text/plain", "data": text}
