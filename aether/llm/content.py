"""Content parts: what a message's content is made of where it is more than text.

It must not know how a provider writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "AudioPart",
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


class _MediaPart(Data):
    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    provider_state: ProviderState = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> _MediaPart:
        if (self.url is None) == (self.data is None):
            raise ValueError("give either url or data")
        if self.data is not None and not self.media_type:
            raise ValueError("data needs its media_type, such as 'image/png'")
        return self


class ImagePart(_MediaPart):
    """An image, by URL or as bytes with their media type."""

    type: Literal["image"] = "image"


class AudioPart(_MediaPart):
    """Sound, by URL or as bytes with their media type."""

    type: Literal["audio"] = "audio"


class FilePart(_MediaPart):
    """A document, by URL or as bytes with their media type."""

    type: Literal["file"] = "file"
    name: str | None = None


ContentPart = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | ReasoningPart, Field(discriminator="type")
]
