"""Images, sound and documents on their way into a request.

It must not know a protocol: which types and which sources it takes, a codec says.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlsplit

from aether.errors import InputError
from aether.llm.content import AudioPart, FilePart, ImagePart

__all__ = ["Media", "base64_of", "check_url", "data_url"]

Media = ImagePart | AudioPart | FilePart


def base64_of(part: Media) -> str:
    """The part's bytes as base64."""
    return b64encode(part.data or b"").decode()


def data_url(part: Media) -> str:
    """The part's bytes as a `data:` URL."""
    return f"data:{part.media_type};base64,{base64_of(part)}"


def check_url(part: Media, position: int, *, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """The part's URL, if it is one that a provider can fetch; else `InputError`."""
    url = part.url or ""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    sound = url.isprintable() and " " not in url and bool(parts.netloc)
    if parts.scheme not in schemes or not sound:
        raise InputError(
            f"Message {position} has a part of type {part.type} whose url the provider cannot "
            f"fetch: it begins with {' or '.join(f'{scheme}://' for scheme in schemes)}. For a "
            f"file of your own, use {type(part).__name__}.from_path."
        )
    return url
