"""Images, sound and documents on their way into a request.

It must not know a protocol: which types and which sources it takes, a codec says.
"""

from __future__ import annotations

import mimetypes
from base64 import b64encode
from collections.abc import Collection
from urllib.parse import urlsplit

from aether.errors import InputError
from aether.llm.content import AudioPart, FilePart, ImagePart

__all__ = ["Media", "base64_of", "check_type", "check_url", "data_url", "file_name", "plain_type"]

Media = ImagePart | AudioPart | FilePart


def base64_of(part: Media) -> str:
    """The part's bytes as base64."""
    return b64encode(part.data or b"").decode()


def data_url(part: Media) -> str:
    """The part's bytes as a `data:` URL."""
    return f"data:{part.media_type};base64,{base64_of(part)}"


def file_name(part: FilePart) -> str:
    """The file's name, or one that is made of its type."""
    return part.name or f"file{mimetypes.guess_extension(part.media_type or '') or ''}"


def plain_type(part: Media) -> str:
    """The part's media type without the parameters that bare sound may have."""
    return (part.media_type or "").partition(";")[0]


def check_type(part: Media, place: str, *, takes: Collection[str], provider: str) -> None:
    """`InputError` if the part is not of a type that the provider takes."""
    media_type = plain_type(part)
    if media_type not in takes:
        kinds = ", ".join(each for each in takes if each.startswith(f"{part.type}/"))
        raise InputError(f"{place} is of type {media_type}: {provider} takes {kinds}.")


def check_url(part: Media, place: str, *, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """The part's URL, if it is one that a provider can fetch; else `InputError`."""
    url = part.url or ""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    sound = url.isprintable() and " " not in url and bool(parts.netloc)
    if parts.scheme not in schemes or not sound:
        raise InputError(
            f"{place} is of type {part.type}, with a url that the provider cannot fetch: it "
            f"begins with {' or '.join(f'{scheme}://' for scheme in schemes)}. For a file of your "
            f"own, use {type(part).__name__}.from_path."
        )
    return url
