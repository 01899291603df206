"""Sound and images that a model has made: from an answer to parts of its message.

It must not know how the parts go back: what that needs is kept in their `provider_state`.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

from aether.errors import ProtocolError
from aether.extensions.llm._wire.errors import Source
from aether.extensions.llm._wire.host_state import kept_state
from aether.extensions.llm._wire.reading import count, expect, listed
from aether.llm.content import AudioPart, ContentPart, ImagePart, ProviderState, TextPart

__all__ = ["TRANSCRIPT", "Sound", "read_images"]

TRANSCRIPT = "transcript"
"""In the state of a text part: it says what the sound beside it says."""

_KINDS = (
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
)
"""How files begin. An answer does not say what it is in; raw samples begin with anything."""
_RAW = "audio/pcm"


class Sound:
    """A spoken answer: `add` the object of a message, or those of a stream in their order."""

    def __init__(self) -> None:
        self._id = ""
        self._expires_at: int | None = None
        self._transcript: list[str] = []
        self._data = bytearray()
        self._rest = ""

    def __bool__(self) -> bool:
        """Whether anything can be heard or read."""
        return bool(self._data or self._transcript)

    def add(self, fields: Any, source: Source) -> str:
        """What the object says, as text. `ProtocolError` if its sound is no base64."""
        fields = expect(fields, dict, "audio", source)
        self._id = self._id or expect(fields.get("id"), str, "audio id", source)
        expires_at = count(fields.get("expires_at"))
        self._expires_at = self._expires_at if expires_at is None else expires_at
        # A piece may be base64 of its own, or be cut anywhere out of the whole.
        self._rest += expect(fields.get("data"), str, "audio data", source)
        whole = len(self._rest) // 4 * 4
        self._decode(self._rest[:whole], source)
        self._rest = self._rest[whole:]
        said = expect(fields.get("transcript"), str, "transcript", source)
        if said:
            self._transcript.append(said)
        return said

    def parts(self, source: Source, *, whole: bool = True) -> list[ContentPart]:
        """What was said, as text, and the sound, as far as there is any."""
        if self._rest and whole:
            raise source.error(ProtocolError, f"{source.provider} gave sound that was cut off.")
        made: list[ContentPart] = []
        if self._transcript:
            spoken: ProviderState = {source.provider: TRANSCRIPT}
            made.append(TextPart(text="".join(self._transcript), provider_state=spoken))
        if self._data:
            data = bytes(self._data)
            kind = next((kind for start, kind in _KINDS if data.startswith(start)), _RAW)
            kept = kept_state({"id": self._id, "expires_at": self._expires_at}, source)
            made.append(AudioPart(data=data, media_type=kind, provider_state=kept))
        return made

    def _decode(self, text: str, source: Source) -> None:
        try:
            self._data += b64decode(text, validate=True)
        except Base64Error as error:
            raise source.error(
                ProtocolError, f"{source.provider} gave sound that is not base64."
            ) from error


def read_images(fields: dict[str, Any], source: Source) -> list[ImagePart]:
    """The images of a message or a delta."""
    made: list[ImagePart] = []
    for image in listed(fields, "images", source):
        place = expect(image, dict, "image", source).get("image_url")
        url = place.get("url") if isinstance(place, dict) else place
        try:
            made.append(ImagePart(url=url, provider_state=kept_state({}, source)))
        except ValueError as error:
            raise source.error(
                ProtocolError, f"{source.provider} gave an image that cannot be read."
            ) from error
    return made
