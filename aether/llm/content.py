"""Content parts: what a message's content is made of where it is more than text.

It must not know how a provider writes them.
"""

from __future__ import annotations

import os
from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from aether.errors import InputError

__all__ = [
    "AudioPart",
    "CachePoint",
    "ContentPart",
    "Data",
    "FilePart",
    "ImagePart",
    "ProviderState",
    "ReasoningPart",
    "TextPart",
]

ProviderState = dict[str, JsonValue]
"""Opaque state by provider: it goes back, unchanged, to the one that made it, and to no other."""


class Data(BaseModel):
    """The base of the data models: frozen, strict about names, leading fields by position too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    if not TYPE_CHECKING:  # checkers read the signature off the fields that have kw_only=False

        def __init__(self, *args: Any, **data: Any) -> None:
            if args:
                names = [n for n, f in type(self).model_fields.items() if f.kw_only is False]
                if len(args) > len(names):
                    raise TypeError(
                        f"{type(self).__name__} takes at most {len(names)} positional arguments: "
                        f"{', '.join(names)}"
                    )
                for name, value in zip(names, args, strict=False):
                    if name in data:
                        raise TypeError(f"{type(self).__name__} got {name!r} twice")
                    data[name] = value
            super().__init__(**data)

        # As on pydantic's own RootModel: validation need not come through here for each model that
        # it makes, which would take it more than twice as long.
        __init__.__pydantic_base_init__ = True


class TextPart(Data):
    """Text."""

    type: Literal["text"] = "text"
    text: str
    provider_state: ProviderState = Field(default_factory=dict)


class ReasoningPart(Data):
    """What a model thought before it answered, as far as the provider shows it."""

    type: Literal["reasoning"] = "reasoning"
    text: str = ""
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
    provider_state: ProviderState = Field(default_factory=dict)

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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.data is None):
            raise ValueError("give either url or data")
        if self.data is not None and not self.media_type:
            raise ValueError("data needs its media_type, such as 'image/png'")
        return self

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], *, media_type: str | None = None) -> Self:
        """The file's bytes, read now. Its media type is told from its name if it is not given.

        `InputError` if it cannot be read, or its type is not known.
        """
        import mimetypes

        file = Path(path)
        guessed = media_type or mimetypes.guess_type(file.name)[0]
        if guessed is None:
            raise InputError(f"The type of {file.name!r} is not known: pass media_type=.")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be read: {error.strerror}.") from error
        return cls(data=data, media_type=guessed, **cls._named(file.name))

    @classmethod
    def _named(cls, name: str) -> dict[str, Any]:  # noqa: ARG003 - for those that have a name
        return {}


class ImagePart(_MediaPart):
    """An image, by URL or as bytes with their media type; `ImagePart.from_path` reads a file."""

    type: Literal["image"] = "image"


class AudioPart(_MediaPart):
    """Sound, by URL or as bytes with their media type; `AudioPart.from_path` reads a file."""

    type: Literal["audio"] = "audio"


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


def _from_data_url(url: str) -> tuple[str, bytes]:
    head, comma, payload = url[5:].partition(",")
    media_type, *parameters = head.split(";")
    if not comma:
        raise ValueError("the data: URL has no data")
    data = unquote_to_bytes(payload)
    if "base64" in parameters:
        try:
            data = b64decode(data, validate=True)
        except Base64Error:
            raise ValueError("the data: URL is not valid base64") from None
    return media_type or "text/plain", data
