"""Content parts: what a message's content is made of where it is more than text.

It must not know how a provider writes them.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import Field, JsonValue, field_validator, model_validator

from aether.errors import InputError
from aether.llm.data import Data

__all__ = [
    "AudioPart",
    "CachePoint",
    "ContentPart",
    "FilePart",
    "ImagePart",
    "ProviderState",
    "ReasoningPart",
    "TextPart",
]

ProviderState = dict[str, JsonValue]
"""Opaque state by provider: it goes back, unchanged, to the one that made it, and to no other."""

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-pn-wav": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-mpeg": "audio/mpeg",
    "audio/mpga": "audio/mpeg",
    "audio/x-aac": "audio/aac",
    "audio/x-aiff": "audio/aiff",
    "audio/x-flac": "audio/flac",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "audio/mp4a-latm": "audio/mp4",
    "application/x-pdf": "application/pdf",
}
_BARE_SOUND = ("audio/l16", "audio/l24", "audio/pcm")
"""Samples without a header: their parameters alone say how to hear them."""
_TYPE_OF_SUFFIX = {
    ".webp": "image/webp",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
}
"""What Python 3.11 knows only where the system has a table of types."""


class TextPart(Data):
    """Text."""

    type: Literal["text"] = "text"
    text: str = Field(strict=True)
    provider_state: ProviderState = Field(default_factory=dict)


class ReasoningPart(Data):
    """What a model thought before it answered, as far as the provider shows it."""

    type: Literal["reasoning"] = "reasoning"
    text: str = Field(default="", strict=True)
    provider_state: ProviderState = Field(default_factory=dict)


class CachePoint(Data):
    """A breakpoint for prompt caches: what stands before it, in all messages, comes again.

    Providers that are told what to cache are told by it; others cache by themselves or not at
    all, and it is left out. `ttl` is how long the cache is kept, where that can be chosen.
    """

    type: Literal["cache_point"] = "cache_point"
    ttl: Literal["5m", "1h"] = "5m"
    provider_state: ProviderState = Field(default_factory=dict)


class _MediaPart(Data):
    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    """In lower case, under its registered name, without parameters."""
    provider_state: ProviderState = Field(default_factory=dict)

    _major_type: ClassVar[str] = ""
    """What the media type begins with."""

    @model_validator(mode="before")
    @classmethod
    def _data_url(cls, value: Any) -> Any:
        """A `data:` URL is data: not every provider takes it for a URL."""
        if isinstance(value, dict):
            url = value.get("url")
            if isinstance(url, str) and url[:5].lower() == "data:" and value.get("data") is None:
                media_type, data = _from_data_url(url)
                given = value.get("media_type") or media_type
                return {**value, "url": None, "data": data, "media_type": given}
        return value

    @field_validator("media_type")
    @classmethod
    def _one_name(cls, value: str | None) -> str | None:
        if value is None:
            return None
        media_type = _normalised(value)
        if not media_type.startswith(cls._major_type):
            raise ValueError(
                f"it begins with {cls._major_type}, as {media_type} does not; a FilePart may be of "
                "any type"
            )
        return media_type

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.data is None):
            raise ValueError("give either url or data")
        if self.data is not None and not self.data:
            raise ValueError("data is empty")
        if self.data is not None and not self.media_type:
            raise ValueError("data needs its media_type, such as 'image/png'")
        return self

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], *, media_type: str | None = None) -> Self:
        """The file's bytes, read now. Its media type is told from its name if it is not given.

        `InputError` if it cannot be read, is empty, or its type is not known or not of this kind.
        """
        file = Path(path)
        found = media_type or _type_by_name(file)
        if found is None:
            raise InputError(f"The type of {file.name!r} is not known: pass media_type=.")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be read: {error.strerror}.") from error
        except ValueError as error:  # a NUL in its name
            raise InputError(f"{str(file)!r} cannot be read: {error}.") from error
        if not data:
            raise InputError(f"{str(file)!r} is empty.")
        return cls(data=data, media_type=found, **cls._named(file.name))

    @classmethod
    def _named(cls, name: str) -> dict[str, Any]:  # noqa: ARG003 - for those that have a name
        return {}


class ImagePart(_MediaPart):
    """An image, by URL or as bytes with their media type; `ImagePart.from_path` reads a file."""

    type: Literal["image"] = "image"

    _major_type = "image/"


class AudioPart(_MediaPart):
    """Sound, by URL or as bytes with their media type; `AudioPart.from_path` reads a file."""

    type: Literal["audio"] = "audio"

    _major_type = "audio/"


class FilePart(_MediaPart):
    """A document, by URL or as bytes with their media type; `FilePart.from_path` reads a file."""

    type: Literal["file"] = "file"
    name: str | None = None

    @classmethod
    def _named(cls, name: str) -> dict[str, Any]:
        return {"name": name}


ContentPart = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | ReasoningPart | CachePoint,
    Field(discriminator="type"),
]


def _normalised(value: str) -> str:
    media_type, *parameters = (each.strip() for each in value.lower().split(";"))
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise ValueError("it is of the form type/subtype, such as 'image/png'")
    media_type = _ALIASES.get(media_type, media_type)
    return ";".join([media_type, *parameters]) if media_type in _BARE_SOUND else media_type


def _type_by_name(file: Path) -> str | None:
    import mimetypes

    media_type, coding = mimetypes.guess_type(file.name)
    if coding is not None:
        return None  # the type is that of what was compressed
    return media_type or _TYPE_OF_SUFFIX.get(file.suffix.lower())


def _from_data_url(url: str) -> tuple[str, bytes]:
    head, comma, payload = url[5:].partition(",")
    if not comma:
        raise ValueError("the data: URL has no data")
    media_type = re.sub(r";\s*base64\s*$", "", head, flags=re.IGNORECASE)
    data = unquote_to_bytes(payload)
    if media_type != head:
        try:
            data = b64decode(data, validate=True)
        except Base64Error:
            raise ValueError("the data: URL is not valid base64") from None
    return media_type if media_type.partition(";")[0] else "text/plain", data
