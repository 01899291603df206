"""Parts, as Gemini writes them: text, media, calls and results, from the neutral form.

It must not know a conversation: who says what, and in which order.
"""

from __future__ import annotations

import mimetypes
import re
from base64 import b64decode
from typing import Any
from urllib.parse import urlsplit

from aether.errors import InputError
from aether.extensions.llm._wire.conversation import place_of
from aether.extensions.llm._wire.host_state import unbound
from aether.extensions.llm._wire.media import Media, base64_of, check_type, check_url
from aether.llm.content import AudioPart, FilePart, ImagePart, TextPart
from aether.llm.messages import Message, ToolCall

__all__ = [
    "MEDIA",
    "PROVIDER",
    "call_part",
    "check_media",
    "content_part",
    "media_of",
    "result_part",
    "state_of",
]

PROVIDER = "gemini"
"""Whose state it is that messages, parts and calls carry in `provider_state`."""

MEDIA = (ImagePart, AudioPart, FilePart)

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_.:-]")
_TEXTUAL = frozenset(
    f"application/{name}"
    for name in ("json", "x-ndjson", "xml", "yaml", "x-yaml", "toml", "javascript", "sql")
)
# "Supported image formats" and "Supported audio formats" in Gemini's documentation, and the types
# of sound in Vertex AI's.
_TAKEN = (
    *(f"image/{name}" for name in ("png", "jpeg", "webp", "heic", "heif")),
    *(f"audio/{name}" for name in ("wav", "mpeg", "aiff", "aac", "ogg", "flac", "mp4", "webm")),
    *(f"audio/{name}" for name in ("opus", "pcm", "l16")),
)
_IN_RESULTS = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")


def check_media(part: Any, place: str) -> None:
    """`InputError` if the part is an image or sound of a type that Gemini does not take.

    For what a user sends. What a model has made goes back to it as it came.
    """
    if isinstance(part, ImagePart | AudioPart) and part.media_type:
        check_type(part, place, takes=_TAKEN, provider="Gemini")


def content_part(part: Any, place: str) -> dict[str, Any]:
    """A text or media part. What it carries of Gemini's own goes beside it, as it is: a
    signature, or such as `videoMetadata`.
    """
    if isinstance(part, TextPart):
        return {"text": part.text, **state_of(part.provider_state)}
    if isinstance(part, MEDIA):
        return {**_media(part, place), **state_of(part.provider_state)}
    raise InputError(f"{place} is of type {part.type}, which Gemini does not take.")


def call_part(call: ToolCall) -> dict[str, Any]:
    """A call, with the id and the signature that Gemini gave it, if it did."""
    state = state_of(call.provider_state)
    name = _NOT_IN_A_NAME.sub("_", call.name)[:128]  # a model may have made it up
    if not name or not (name[0].isalpha() or name[0] == "_"):
        name = f"_{name}"[:128]
    function: dict[str, Any] = {"name": name, "args": call.arguments}
    call_id = state.pop("id", None)
    if call_id is not None:
        function["id"] = call_id
    return {"functionCall": function, **state}


def result_part(
    message: Message, position: int, call: dict[str, Any], *, takes_media: bool | None
) -> dict[str, Any]:
    """The result of a call, which is named by its name and by the id that Gemini gave it."""
    text = message.text
    function: dict[str, Any] = {
        "name": call["name"],
        "response": {"error": text} if message.is_error else {"output": text},
    }
    if call.get("id"):
        function["id"] = call["id"]
    media = [] if isinstance(message.content, str) else _result_media(message, position)
    if media:
        place, first = media[0]
        if takes_media is False:
            raise InputError(
                f"{place} is of type {first.type}: this model takes text alone as a tool's result."
            )
        function["parts"] = [_media(part, place) for place, part in media]
    return {"functionResponse": function}


def media_of(mime_type: str, data: str) -> Media:
    """The neutral form of the bytes in an answer. `ValueError` if they are not base64, of which
    Protocol Buffers' JSON has both alphabets.
    """
    decoded = b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    if mime_type.startswith("image/"):
        return ImagePart(data=decoded, media_type=mime_type)
    if mime_type.startswith("audio/"):
        return AudioPart(data=decoded, media_type=mime_type)
    return FilePart(data=decoded, media_type=mime_type)


def state_of(provider_state: dict[str, Any]) -> dict[str, Any]:
    """A copy of what a part or call carries for Gemini."""
    state = provider_state.get(PROVIDER)
    return unbound(state) if isinstance(state, dict) else {}


def _result_media(message: Message, position: int) -> list[tuple[str, Media]]:
    media = [
        (place_of(message, position, number), part)
        for number, part in enumerate(message.content, 1)
        if isinstance(part, MEDIA)
    ]
    for place, part in media:
        if part.data is None or _media_type(part) not in _IN_RESULTS:
            raise InputError(
                f"{place} is of type {part.type}, which Gemini does not take like this as a tool's "
                f"result: pass the data of one of {', '.join(_IN_RESULTS)}."
            )
    return media


def _media(part: Media, place: str) -> dict[str, Any]:
    if part.data is not None:
        return {"inlineData": {"mimeType": _media_type(part), "data": base64_of(part)}}
    # Public and signed HTTPS URLs, those of the Files API and of YouTube, and registered objects
    # of Cloud Storage ("File input methods" in Gemini's documentation).
    url = check_url(part, place, schemes=("https", "gs"))
    named: dict[str, Any] = {"fileUri": url}
    media_type = _media_type(part) if part.media_type else _guessed_type(url)
    if media_type:
        named["mimeType"] = media_type
    return {"fileData": named}


def _media_type(part: Media) -> str:
    """Text that is no text by its type is refused, so it is plain text."""
    media_type = part.media_type or ""
    return "text/plain" if media_type in _TEXTUAL else media_type


def _guessed_type(url: str) -> str | None:
    return mimetypes.guess_type(urlsplit(url).path)[0]
