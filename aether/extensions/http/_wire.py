"""What every transport does alike: judge what is to be sent, read a body within its limits.

It must not know an HTTP library.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from urllib.parse import urlsplit

from aether._version import __version__
from aether.errors import InputError, ProtocolError

__all__ = ["HEADERS", "check_headers", "flatten", "host_of", "read_body"]

HEADERS = {"User-Agent": f"aether/{__version__}", "Accept-Encoding": "identity"}
"""Sent where a request does not set them itself."""

_NOT_IN_HEADERS = re.compile(r"[\r\n\0]")

Pieces = AsyncGenerator[bytes, None]


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a header that could become two."""
    for name, value in headers.items():
        if _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(value):
            raise InputError(f"The header {name[:40]!r} has a line break or a NUL in it.")


def host_of(url: str) -> str:
    """The URL's host, which is all of it that a message may tell."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def flatten(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, repeated ones joined."""
    flat: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        flat[lower] = f"{flat[lower]}, {value}" if lower in flat else value
    return flat


async def read_body(pieces: Pieces, *, max_bytes: int, host: str) -> bytes:
    """The whole body; `ProtocolError` if it is longer than `max_bytes`."""
    body = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            body += piece
            if len(body) > max_bytes:
                raise ProtocolError(
                    f"The answer of {host} is longer than {max_bytes} bytes.", kind="size"
                )
    return bytes(body)
